"""Tables of the page as HTML: columns, rows, and how numbers are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from fedsparse.measures import Unit

UNKNOWN = "-"


@dataclass(frozen=True)
class Column:
    """A column of a table: its head, a cell's HTML from a row, whether cells are numbers, what is below the head."""

    head: str
    cell: Callable[[Any], str]
    number: bool = True
    below: str = ""


def table(wanted: Sequence[Column], rows: Iterable[dict[str, Any]], kind: str) -> str:
    """A table of the class `kind`; the first column heads its row."""
    head = "".join(f"<th{' class=n' * c.number} scope=col>{escape(c.head)}{_small(c.below)}</th>" for c in wanted)
    lines = []
    for row in rows:
        first, *rest = wanted
        cells = "".join(
            f'<td{" class=n" * c.number} data-head="{escape(c.head)}"><span>{c.cell(row)}</span></td>' for c in rest
        )
        lines.append(f"<tr><th scope=row>{first.cell(row)}</th>{cells}</tr>")
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _small(text: str) -> str:
    return f"<small>{escape(text)}</small>" if text else ""


def breakable(label: Any) -> str:
    """A label that may break after an underscore."""
    return escape(str(label)).replace("_", "_<wbr>")


def known(value: Any) -> bool:
    """Whether it is a finite number."""
    return value is not None and math.isfinite(value)


def number(value: Any, digits: int) -> str:
    """So many digits behind the point."""
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}") if known(value) else UNKNOWN


def spread(mean: Any, sd: Any, scale: float, sign: str = "") -> str:
    """Mean and standard deviation, the latter only where there is one."""
    digits = 2 if scale == 100 else 3
    if not known(mean):
        return UNKNOWN
    around = f" <span class=sd>± {number(scale * sd, digits)}</span>" if known(sd) else ""
    return f"{sign}{number(scale * mean, digits)}{around}"


def difference(mean: Any, sd: Any, scale: float) -> str:
    """A difference with its sign."""
    return spread(mean, sd, scale, "+" if known(mean) and mean > 0 else "")


def mb(value: Any) -> str:
    """MB or seconds with three digits."""
    if not known(value):
        return UNKNOWN
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def duration(value: Any, unit: Unit) -> str:
    """Seconds in this unit, three digits."""
    return f"{mb(value / unit.seconds)}&nbsp;{unit.name}" if known(value) else UNKNOWN


def share(value: Any) -> str:
    """Per cent with a bar."""
    if not known(value):
        return UNKNOWN
    width = min(100.0, 100 * value)
    return f"{100 * value:.1f}&nbsp;%<i class=bar><i style='width:{width:.1f}%'></i></i>"

"""What commands print on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedsparse.cli.progress import known, megabytes

if TYPE_CHECKING:
    import pandas as pd

    from fedsparse.cli.views import Fleet, Split
    from fedsparse.codec import Header, Inspection
    from fedsparse.results import Run

DONE = "done"


def console() -> Console:
    # A pipe has no width: wide enough for every table unless the caller says otherwise.
    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else 120
    return Console(width=width, highlight=False)


def note(text: str) -> None:
    """A line for people beside a result."""
    print(text, file=sys.stderr)


def print_json(content: Any) -> None:
    """JSON, with null for what is unknown."""
    print(json.dumps(_plain(content), indent=2, ensure_ascii=False))


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table."""
    return [dict(zip(map(str, frame.columns), row, strict=True)) for row in frame.itertuples(index=False)]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


def exit_code(runs: Iterable[Run]) -> int:
    """0 when every run is done, else 1."""
    return int(any(run.summary["status"] != DONE for run in runs))


# ---- lists ----


def grid(*columns: str, left: int = 1, tight: bool = False) -> Table:
    """An empty table; the first `left` columns are text."""
    padding = (0, 0) if tight else (0, 1)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=padding, header_style="bold", show_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < left else "right", overflow="fold", vertical="top")
    return table


def print_list(kind: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Names and what they are."""
    table = grid("name", "summary", left=2)
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(row["name"], Text(row["summary"]))
    console().print(table if rows else f"There are no {kind}.")


# ---- runs ----


def print_run(run: Run) -> None:
    """What one run came to."""
    info = run.summary
    percent = info["metric"] == "accuracy"
    unit = " %" if percent else ""
    lines = {
        info["metric"]: figure(info["final"], percent) + unit * known(info["final"]),
        "personal": figure(info["final_personal"], percent) + unit * known(info["final_personal"]),
        "density": figure(info["density"], False),
        "MB up": megabytes(mega(info["bytes_up"])),
        "MB down": megabytes(mega(info["bytes_down"])),
        "seconds": f"{info['seconds']:.1f}",
        **({"simulated": simulated(info["sim_seconds"])} if known(info["sim_seconds"]) else {}),
        "model": str(info["model_hash"] or "-")[:16],
    }
    table = grid(f"{info['variant']}", f"seed {info['seed']}, {info['rounds']} rounds")
    for name, value in lines.items():
        table.add_row(str(name), value)
    out = console()
    out.print(table)
    print_status([run], out)
    out.print(Text(f"\n{near(run.folder)}"), soft_wrap=True)


def print_status(runs: Sequence[Run], out: Console) -> None:
    """A line for each run that is not done."""
    for run in runs:
        info = run.summary
        if info["status"] != DONE:
            why = f": {info['why']}" if info.get("why") else ""
            out.print(Text(f"{info['variant']}, seed {info['seed']} {info['status']}{why}", style="red"))


def near(path: Any) -> str:
    """A path as people type it from here."""
    found = os.path.relpath(path)
    return str(path) if found.startswith("..") else found


def mega(count: Any) -> float | None:
    """MB of bytes, None where they are not known."""
    return count / 1e6 if known(count) else None


def figure(value: Any, percent: bool) -> str:
    """A metric or a share."""
    if not known(value):
        return "-"
    return f"{value * 100:.1f}" if percent else f"{value:.3f}" if abs(value) < 100 else f"{value:.5g}"


def simulated(value: Any) -> str:
    """Simulated seconds in the unit that suits them."""
    from fedsparse.measures import time_unit

    unit = time_unit(value) if known(value) else None
    return "-" if unit is None else f"{megabytes(value / unit.seconds)} {unit.name}"


# ---- payloads ----


def print_payload(head: Header, found: Inspection) -> None:
    """A row a tensor in the payload's order, the sums by kind below."""
    table = grid("tensor", "mask", "values", "kept", "mask bytes", "value bytes", left=3)
    for row in found.tensors:
        kept = "-" if row.kept is None else f"{row.kept:,}"
        name = Text(_visible(row.name))
        table.add_row(name, row.mask, row.values, kept, f"{row.mask_bytes:,}", f"{row.value_bytes:,}")
    out = console()
    out.print(table)
    kinds = ", ".join(f"{kind} {getattr(found, kind):,}" for kind in ("values", "mask", "dense", "header"))
    out.print(Text(f"\n{found.total:,} bytes: {kinds}", style="bold"))
    version = ".".join(map(str, head.version))
    relies = ", relies on a reference" * bool(head.reference) + ", by an agreed schema" * head.by_schema
    ids = f"run {head.ids.run:x}, round {head.ids.round}, client {head.ids.client}, generation {head.ids.generation}"
    out.print(Text(f"format {version}, {head.kind}, absent is {head.absent}{relies}\n{ids}"))


def _visible(text: str) -> str:
    """A name of unknown origin, as one line that cannot steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# ---- data and devices ----


def print_split(split: Split) -> None:
    """A row a client: device, samples of each part; classes present and how many of each, or the targets' spread."""
    texts = ["client", "name", "device"] if split.named else ["client", "device"]
    counts = ["train", "validation", "test", *(["classes"] if split.classes else [])]
    spread = [] if split.classes else ["mean", "sd", "q05", "median", "q95"]
    table = grid(*texts, *counts, *spread, *(["labels"] if split.classes else []), left=len(texts))
    for row in records(split.table):
        bar = [split.bar(row)] if split.classes else []
        numbers = [figure(row[name], False) for name in spread]
        table.add_row(*(Text(str(row[name])) for name in texts + counts), *numbers, *bar)
    out = console()
    out.print(table)
    out.print(Text(f"\n{split.heading}", style="bold"))
    out.print(Text("\n".join(split.details)))


def print_tiers(fleet: Fleet) -> None:
    """A row a tier of devices; where its clients differ three rows, for each number by itself."""
    table = grid("device", "share", "clients", "", *_SHOWN)
    for tier, share in fleet.shares.items():
        own = fleet.table[fleet.table["device"] == tier]
        numbers = own[[name for name, _ in _SHOWN.values()]].replace({"memory": {0.0: float("inf")}})
        rows = {"slowest": numbers.min(), "median": numbers.median(), "fastest": numbers.max()}
        # Of latency and dropout much is worse.
        for name in ("latency", "dropout"):
            rows["slowest"][name], rows["fastest"][name] = rows["fastest"][name], rows["slowest"][name]
        if own.empty or (rows["slowest"] == rows["fastest"]).all():
            rows = {"": rows["median"]}
        for n, (which, row) in enumerate(rows.items()):
            told = (tier, f"{share:g}", str(len(own))) if n == 0 else ("", "", "")
            table.add_row(*map(Text, told), which, *(_scaled(row[name], unit) for name, unit in _SHOWN.values()))
    out = console()
    out.print(table)
    out.print(Text(f"\n{fleet.heading}", style="bold"))
    out.print(Text("\n".join(fleet.details)))


_SHOWN = {
    "GFLOP/s": ("flops", 1e9),
    "MB/s down": ("down", 1e6),
    "MB/s up": ("up", 1e6),
    "latency ms": ("latency", 1e-3),
    "memory GB": ("memory", 1e9),
    "dropout %": ("dropout", 0.01),
    "ready %": ("ready", 0.01),
}
"""Columns of numbers: what stands in the fleet's table, and in which unit it is shown."""


def _scaled(value: float, unit: float) -> str:
    return "-" if value == float("inf") or value != value else f"{value / unit:.3g}"

"""What all figures share: size, type, colours, and how a figure becomes PNG bytes.

Drawn with Figure objects (no global state, no display). Colours are the Okabe-Ito set, which stays apart for
colour-blind eyes; FedAvg, the baseline, is always black.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from PIL import Image

from fedsparse.measures import BASELINE
from fedsparse.report.curves import Variant

P = ParamSpec("P")
INK, QUIET, GRID, PALE = "#1a1a1a", "#5c5c5c", "#e3e3e3", "#c4c4c4"
HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c510a")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS = "osD^"
DPI = 230
WIDTH, HEIGHT = 5.4, 3.6  # inches
LARGEST = 195_000  # bytes
LONGEST = 28
"""Characters of a name in a figure."""
STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.parse_math": False,  # a label may hold a dollar sign
}


def styled(draw: Callable[P, bytes | None]) -> Callable[P, bytes | None]:
    """A function that draws in this style."""

    @wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> bytes | None:
        with rc_context(STYLE):
            return draw(*args, **kwargs)

    return inner


def blank(height: float = HEIGHT, *, fitted: bool = True) -> Figure:
    """An empty figure, `height` inches high; `fitted` axes make room for their own labels."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white", layout="constrained" if fitted else None)
    if (engine := figure.get_layout_engine()) is not None:
        engine.set(w_pad=0.09, h_pad=0.09)  # type: ignore[call-arg]
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """The figure's PNG with a palette, as many colours as fit; the same figure has the same bytes."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    for colours in (256, 64, 24):
        out = io.BytesIO()
        drawn.quantize(colours, dither=Image.Dither.NONE).save(out, format="png", optimize=True, dpi=(DPI, DPI))
        if out.tell() <= LARGEST:
            break
    return out.getvalue()


def baseline(variants: Sequence[Variant]) -> str | None:
    """The label that is drawn in black."""
    found = [v.label for v in variants if v.label == BASELINE] or [v.label for v in variants if v.strategy == BASELINE]
    return found[0] if found else None


def looks(variants: Sequence[Variant]) -> dict[str, tuple[str, Any, str]]:
    """Colour, dashes and marker by label: black for FedAvg, then the hues in turn, other dashes each time round."""
    found: dict[str, tuple[str, Any, str]] = {}
    base = baseline(variants)
    for variant in variants:
        i = len(found) - (base in found)
        turn = i // len(HUES) % len(DASHES)
        own = (HUES[i % len(HUES)], DASHES[turn], MARKERS[turn])
        found[variant.label] = (INK, "-", "o") if variant.label == base else own
    return found


def in_percent(axis: Any) -> None:
    """Tick labels of shares in per cent."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))


def log_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """A log scale from `low` to `high` with plain numbers at its ticks."""
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 130 * low else (1,), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def short(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def cut(label: str, longest: int = LONGEST) -> str:
    """A label short enough for a figure."""
    return label if len(label) <= longest else label[: longest - 1] + "…"


def darker(colour: str) -> tuple[float, ...]:
    """The colour for text on white: pale ones lose more."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    share = 0.6 if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else 0.78
    return red * share, green * share, blue * share

"""The figures of a report, as PNG bytes: curves over rounds and over MB with a band over seeds, and bytes by kind.

Drawn with Figure objects (no global state, no display). Colours are the Okabe-Ito set, which stays apart for
colour-blind eyes; FedAvg, the baseline, is always black. Lines carry their names at their ends.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from fedsparse.report.curves import DPI, GRID, INK, QUIET, Curve, Variant, curve, looks
from fedsparse.report.names import DIRECT, cut, list_lines, name_lines

KINDS = {"values": "#0072b2", "mask": "#e69f00", "dense": "#9a9a9a", "header": "#3d3d3d"}
SIZE = (5.4, 3.6)  # inches
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


def metric_figure(
    variants: Sequence[Variant],
    column: str,
    against: str,
    ylabel: str,
    higher: bool,
    *,
    percent: bool = False,
    target: float | None = None,
) -> bytes | None:
    """A column of `rounds` against `round` or `mb`, a line a variant; None where none has values."""
    curves = {v.label: c for v in variants if (c := curve(v, column, against)) is not None}
    if not curves:
        return None
    with rc_context(STYLE):
        figure, axes = _axes()
        style = looks(variants)
        for label, line in curves.items():
            _draw(axes, line, *style[label])
        _scale_y(axes, curves, higher, percent)
        _scale_x(axes, curves, against)
        axes.set_ylabel(ylabel)
        if percent:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
        taken = [_target(axes, target, higher)] if target is not None and np.isfinite(target) else []
        if len(curves) <= DIRECT:
            name_lines(figure, axes, curves, style, taken)
        else:
            list_lines(axes, curves, style)
        return _png(figure)


def bytes_figure(variants: Sequence[Variant]) -> bytes | None:
    """Mean training bytes a round by direction and kind, two bars a variant; None where there are no messages."""
    bars = {
        (v.label, way): means for v in variants for way in ("up", "down") if (means := _bytes_of(v, way)) is not None
    }
    if not bars:
        return None
    table = pd.DataFrame(bars).T
    small = table.sum(axis=1).max() < 1e6
    table /= 1e3 if small else 1e6
    with rc_context(STYLE):
        figure, axes = _axes(height=1.15 + 0.55 * len(variants))
        places = [-(1.25 * (i // 2) + 0.46 * (i % 2)) for i in range(len(table))]
        left = np.zeros(len(table))
        for kind, colour in KINDS.items():
            width = table[kind].to_numpy()
            axes.barh(places, width, 0.4, left, color=colour, label=kind, edgecolor="white", linewidth=0.5)
            left += width
        for place, total, (_, way) in zip(places, left, table.index, strict=True):
            axes.annotate(f"{way} {_short(total)}", (total, place), (5, 0), textcoords="offset points", va="center",
                          color=INK, fontsize=9.5)  # fmt: skip
        axes.set_yticks(
            [-1.25 * i - 0.23 for i in range(len(table) // 2)],
            [cut(label) for label, way in table.index if way == "up"],
        )
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, left.max() * 1.16)
        axes.set_xlabel(f"Training traffic a round, all clients ({'kB' if small else 'MB'})")
        figure.legend(loc="outside upper center", ncols=4, frameon=False, handlelength=1, columnspacing=1.4)
        return _png(figure)


def _bytes_of(variant: Variant, direction: str) -> pd.Series | None:
    seeds = []
    for rounds, messages in zip(variant.rounds, variant.messages, strict=True):
        own = messages[(messages["direction"] == direction) & (messages["phase"] != "evaluate")]
        if len(rounds):
            seeds.append(own[list(KINDS)].sum() / len(rounds))
    return pd.concat(seeds, axis=1).mean(axis=1) if seeds else None


def _axes(height: float = SIZE[1]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(SIZE[0], height), dpi=DPI, facecolor="white", layout="constrained")
    figure.get_layout_engine().set(w_pad=0.09, h_pad=0.09)  # type: ignore[union-attr,call-arg]
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _draw(axes: Axes, line: Curve, colour: str, dashes: Any) -> None:
    axes.fill_between(line.x, line.mean - line.sd, line.mean + line.sd, color=colour, alpha=0.16, linewidth=0)
    axes.plot(line.x, line.mean, color=colour, linestyle=dashes, linewidth=1.9, solid_capstyle="round")
    axes.plot(line.x[-1:], line.mean[-1:], "o", color=colour, markersize=4.5, clip_on=False, zorder=5)


def _scale_y(axes: Axes, curves: dict[str, Curve], higher: bool, percent: bool) -> None:
    # Errors fall from anywhere: the first tenth of a curve may lie outside, or it would flatten all the rest.
    keep = [c.mean[len(c.mean) // 10 if not higher and len(c.mean) > 20 else 0 :] for c in curves.values()]
    ends = [c.mean[-1] + sign * c.sd[-1] for c in curves.values() for sign in (-1, 1)]
    shown = np.concatenate([*keep, ends])
    low, high = float(shown.min()), float(shown.max())
    room = 0.04 * (high - low) or 0.05 * abs(high) or 0.05
    axes.set_ylim(*np.clip((low - room, high + room), *((0, 1.01) if percent else (-np.inf, np.inf))))


def _scale_x(axes: Axes, curves: dict[str, Curve], against: str) -> None:
    last = [float(c.x[-1]) for c in curves.values()]
    first = [float(c.x[0]) for c in curves.values()]
    if against == "round":
        axes.set_xlabel("Round")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlim(0, max(1.0, *last))
        return
    axes.set_xlabel("Traffic so far, both directions (MB)")
    if min(first) > 0 and max(last) > 4 * min(last):
        axes.set_xscale("log")
        axes.set_xlabel("Traffic so far, both directions (MB, log scale)")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(last) < 100 * min(first) else (1,), numticks=20))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(min(first) * 0.9, max(last) * 1.1)
    else:
        axes.set_xlim(0, max(last) * 1.03 or 1)


def _target(axes: Axes, target: float, higher: bool) -> Annotation:
    axes.axhline(target, color=QUIET, linewidth=1, linestyle=(0, (2, 2)))
    text = f"target: {'95 %' if higher else '105 %'} of FedAvg's final"
    # Where the curves are not: good values lie above the line at its right end, errors below it.
    x, side, offset = (0, "left", 4) if higher else (1, "right", -4)
    return axes.annotate(
        text, (x, target), (offset, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="bottom", ha=side, color=QUIET, fontsize=8, zorder=1.5,
    )  # fmt: skip


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()

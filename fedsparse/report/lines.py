"""Lines with a band over seeds: few in one frame, many in a panel each before the others in grey."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation

from fedsparse.report.canvas import HUES, INK, PALE, QUIET, WIDTH, baseline, blank, cut, darker, looks, png
from fedsparse.report.curves import Curve, Variant
from fedsparse.report.names import list_lines, name_lines

DIRECT = 5
"""Up to so many lines carry their names at their ends."""
TOGETHER = 7
"""Up to so many share a frame, with a list of names beside it; more have a panel each."""
ACROSS = 3
"""Panels in a row."""


@dataclass(frozen=True)
class Frame:
    """What is around the lines: labels, scales, and a target that may be drawn across."""

    x: str
    y: str
    scale: Callable[[Axes], None]
    told: Callable[[float], str]
    """A line's last value in a panel's corner."""
    higher: bool = True
    """Whether good values are at the top."""
    left: bool = False
    """Whether lines leave the left corner at the good end free, else it is the right one at the other end."""
    points: bool = False
    """Whether each x is a thing of its own, marked by a point."""
    target: tuple[float, str] | None = None


def lines_figure(curves: dict[str, Curve], variants: Sequence[Variant], frame: Frame) -> bytes:
    """The figure's PNG."""
    figure = _panels(curves, variants, frame) if len(curves) > TOGETHER else _together(curves, variants, frame)
    return png(figure)


def _together(curves: dict[str, Curve], variants: Sequence[Variant], frame: Frame) -> Figure:
    figure, style = blank(), looks(variants)
    axes = figure.add_subplot()
    for label, line in curves.items():
        _draw(axes, line, style[label][0], style[label][1], frame)
        axes.plot(line.x[-1:], line.mean[-1:], "o", color=style[label][0], markersize=4.5, clip_on=False, zorder=5)
    frame.scale(axes)
    axes.set(xlabel=frame.x, ylabel=frame.y)
    taken = _target(axes, frame)
    if len(curves) <= DIRECT:
        name_lines(figure, axes, curves, style, taken)
    else:
        list_lines(axes, curves, style)
    return figure


def _panels(curves: dict[str, Curve], variants: Sequence[Variant], frame: Frame) -> Figure:
    """A panel a variant, in the order of the table, with the baseline in black and all others in grey."""
    down, base = math.ceil(len(curves) / ACROSS), baseline(variants)
    figure = blank(high := 0.95 + 1.12 * down, fitted=False)  # all panels alike
    grid = figure.subplots(down, ACROSS, sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(0.78 / WIDTH, 0.58 / high, 1 - 0.12 / WIDTH, 1 - 0.5 / high, 0.13, 0.52)
    for place, axes in enumerate(grid.flat):
        axes.set_visible(place < len(curves))
        axes.tick_params(labelsize=8.5, labelbottom=len(curves) - ACROSS <= place)
    for axes, label in zip(grid.flat, curves, strict=False):
        _panel(axes, label, curves, base, frame)
    black = f"black: {cut(base)}, " if base in curves else ""
    note = {"fontsize": 8.5, "color": QUIET, "ha": "center"}
    figure.text(0.5, 1 - 0.18 / high, f"blue: the named one, {black}grey: the others", note)
    figure.text(0.5, 0.12 / high, frame.x, ha="center", color=INK)
    figure.text(0.12 / WIDTH, 0.5, frame.y, rotation=90, va="center", color=INK)
    return figure


def _panel(axes: Axes, label: str, curves: dict[str, Curve], base: str | None, frame: Frame) -> None:
    hue = INK if label == base else HUES[0]
    for other, line in curves.items():
        if other != label:
            colour, width, over = (INK, 0.9, 2.2) if other == base else (PALE, 0.6, 2)
            axes.plot(line.x, line.mean, color=colour, linewidth=width, zorder=over)
    _draw(axes, curves[label], hue, "-", frame, 2.2)
    frame.scale(axes)
    if frame.target is not None:
        axes.axhline(frame.target[0], color=QUIET, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1.5)
    name = cut(label, 26)
    axes.set_title(name, loc="left", fontsize=min(9.0, 170 / len(name)), color=darker(hue), pad=3)
    x, side = (0.03, "left") if frame.left else (0.97, "right")
    y, edge = (0.94, "top") if frame.left == frame.higher else (0.05, "bottom")
    axes.text(x, y, frame.told(float(curves[label].mean[-1])), ha=side, va=edge, transform=axes.transAxes, fontsize=9,
              color=darker(hue), path_effects=[withStroke(linewidth=2.2, foreground="white")], zorder=6)  # fmt: skip


def _draw(axes: Axes, line: Curve, colour: str, dashes: Any, frame: Frame, point: float = 3.2) -> None:
    axes.fill_between(
        line.x, line.mean - line.sd, line.mean + line.sd, color=colour, alpha=0.16, linewidth=0, zorder=2.5
    )
    marks: dict[str, Any] = {"marker": "o", "markersize": point} if frame.points else {}
    axes.plot(line.x, line.mean, color=colour, linestyle=dashes, linewidth=1.9 if not marks else 1.2,
              solid_capstyle="round", zorder=3, **marks)  # fmt: skip


def _target(axes: Axes, frame: Frame) -> list[Annotation]:
    if frame.target is None:
        return []
    value, text = frame.target
    axes.axhline(value, color=QUIET, linewidth=1, linestyle=(0, (2, 2)))
    # Where the curves are not: good values lie above the line at its right end, errors below it.
    x, side, offset = (0, "left", 4) if frame.higher else (1, "right", -4)
    return [axes.annotate(
        text, (x, value), (offset, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="bottom", ha=side, color=QUIET, fontsize=8, zorder=4,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1},
    )]  # fmt: skip

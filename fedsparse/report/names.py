"""Names in a figure: at the ends of lines, beside points, or listed beside the axes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from fedsparse.report.canvas import DPI, QUIET, cut, darker
from fedsparse.report.curves import Curve

Look = tuple[str, Any, str]
PLACES = [
    *((8, y, "left") for y in sorted(range(12, -13, -2), key=abs)),
    *((0, y, "center") for y in (10, -11, 14, -15)),
    *((8, y, "left") for y in sorted(range(60, -61, -2), key=abs)),
]
"""Where a name may stand beside its line's end, best first: offset in points and alignment."""
AROUND = [
    *((7, 0, "left"), (-7, 0, "right"), (0, 10, "center"), (0, -11, "center")),
    *((x, y, side) for y in (8, -8) for x, side in ((6, "left"), (-6, "right"))),
    *(
        (x, sign * y, side)
        for y in range(12, 140, 4)
        for x, side in ((12, "left"), (-12, "right"), (34, "left"), (-34, "right"))
        for sign in (1, -1)
    ),
]
"""Where a name may stand beside its point."""
NEAR = 13
"""A name further from its point than this, in points, is tied to it by a line."""


def name_lines(
    figure: Figure, axes: Axes, curves: dict[str, Curve], style: dict[str, Look], taken: Sequence[Text]
) -> None:
    """The variants' names at their lines' ends: never over one another or `taken`, over a line only if need be."""
    names = {label: axes.annotate(
        cut(label), (line.x[-1], line.mean[-1]), (8, 0), textcoords="offset points", va="center",
        color=darker(style[label][0]), fontweight="bold", fontsize=9, annotation_clip=False,
        path_effects=[withStroke(linewidth=2.8, foreground="white")],
    ) for label, line in curves.items()}  # fmt: skip
    figure.draw_without_rendering()  # from here on extents are those of the final layout
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    last = max(float(line.x[-1]) for line in curves.values())
    column = [names[label] for label, line in curves.items() if line.x[-1] == last]
    _spread(column, axes)
    boxes = [text.get_window_extent(renderer) for text in [*column, *taken]]
    for name in (name for name in names.values() if name not in column):
        above = Bbox([[-np.inf, axes.bbox.y0], [np.inf, np.inf]])
        _settle(name, PLACES, boxes, above, lambda box: _covers(axes, box, curves.values()), renderer)


def name_points(
    figure: Figure, axes: Axes, points: dict[str, tuple[float, float, float]], texts: dict[str, str],
    style: dict[str, Look],
) -> None:  # fmt: skip
    """Texts beside points (x, y, length of the error bar), or further off with a line to them.

    Never over one another, over a point or its bar only if need be.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    marks = [_mark(axes, *point) for point in points.values()]
    boxes: list[Bbox] = []
    for label in sorted(points, key=lambda name: -points[name][1]):
        name = axes.annotate(
            texts[label], points[label][:2], (7, 0), textcoords="offset points", va="center", fontsize=8.5, zorder=6,
            color=darker(style[label][0]), path_effects=[withStroke(linewidth=2.2, foreground="white")],
        )  # fmt: skip
        _settle(name, AROUND, boxes, axes.bbox, lambda box: any(box.overlaps(mark) for mark in marks), renderer)
        if np.hypot(*name.get_position()) > NEAR:
            tie = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
            axes.annotate("", points[label][:2], name.get_position(), textcoords="offset points", arrowprops=tie)


def _mark(axes: Axes, x: float, y: float, bar: float) -> Bbox:
    """What a point and its error bar cover."""
    low, high = axes.transData.transform([(x, y - bar), (x, y + bar)])
    size = 4 * DPI / 72
    return Bbox([low - size, high + size])


def _settle(
    name: Annotation, places: Iterable[tuple[int, int, str]], boxes: list[Bbox], inside: Bbox,
    covers: Callable[[Bbox], bool], renderer: Any,
) -> None:  # fmt: skip
    """Put a name at the first place that is free, best one that covers nothing, and add its box to `boxes`."""
    free: list[tuple[bool, int, tuple[int, int], str]] = []
    for x, y, side in places:
        name.set(position=(x, y), horizontalalignment=side)
        box = _box(name, renderer)
        within = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 < box.y0 and box.y1 <= inside.y1
        if within and not any(box.overlaps(other) for other in boxes):
            free.append((covers(box), len(free), (x, y), side))
            if not free[-1][0]:
                break
    _, _, place, side = min(free, default=(False, 0, (8, 0), "left"))
    name.set(position=place, horizontalalignment=side)
    boxes.append(_box(name, renderer))


def _box(name: Annotation, renderer: Any) -> Bbox:
    """Where its text is, without the line to its point."""
    name.update_positions(renderer)
    return Text.get_window_extent(name, renderer)


def _spread(names: list[Annotation], axes: Axes) -> None:
    """Move names that stand in one column apart, as little as it takes, in the order of their lines' ends."""
    points = 72 / DPI
    step = 11.5  # a line of text, in points
    ends = {name: float(axes.transData.transform(name.xy)[1]) * points for name in names}
    order = sorted(names, key=lambda name: ends[name])
    place = np.array([ends[name] for name in order])
    for _ in range(200):
        for i in np.flatnonzero(np.diff(place) < step - 0.01):
            push = (step - (place[i + 1] - place[i])) / 2
            place[i : i + 2] += -push, push
    place -= max(0.0, place[-1] - axes.bbox.y1 * points)
    for name, at in zip(order, place, strict=True):
        name.set_position((8, at - ends[name]))


def _covers(axes: Axes, box: Any, curves: Iterable[Curve]) -> bool:
    for line in curves:
        points = axes.transData.transform(np.column_stack([line.x, line.mean]))
        steps = np.linspace(0, len(points) - 1, 20 * len(points))
        x, y = (np.interp(steps, np.arange(len(points)), points[:, i]) for i in (0, 1))
        if np.any((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)):
            return True
    return False


def list_lines(axes: Axes, curves: dict[str, Curve], style: dict[str, Look]) -> None:
    """The names of many lines beside the axes, in the order of the lines' ends."""
    order = sorted(curves, key=lambda label: -float(curves[label].mean[-1]))
    keys = [Line2D([], [], color=style[label][0], linestyle=style[label][1], linewidth=2) for label in order]
    axes.legend(keys, [cut(label) for label in order], loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False,
                fontsize=9.5, handlelength=2.4, title="by last value", alignment="left")  # fmt: skip

"""Names of lines in a figure: at the lines' ends, or listed beside the axes where there are many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text

from fedsparse.report.curves import DPI, Curve

DIRECT = 5
"""Up to so many lines carry their names at their ends; more are listed beside the axes."""
LONGEST = 28
"""Characters of a name in a figure."""
PLACES = [
    *((8, y, "left") for y in sorted(range(12, -13, -2), key=abs)),
    *((0, y, "center") for y in (10, -11, 14, -15)),
    *((8, y, "left") for y in sorted(range(60, -61, -2), key=abs)),
]
"""Where a name may stand beside its line's end, best first: offset in points and alignment."""


def name_lines(
    figure: Figure, axes: Axes, curves: dict[str, Curve], style: dict[str, tuple[str, Any]], taken: Sequence[Text]
) -> None:
    """The variants' names at their lines' ends: never over one another or `taken`, over a line only if need be."""
    names = {label: axes.annotate(
        cut(label), (line.x[-1], line.mean[-1]), (8, 0), textcoords="offset points", va="center",
        color=_darker(style[label][0]), fontweight="bold", fontsize=9, annotation_clip=False,
        path_effects=[withStroke(linewidth=2.8, foreground="white")],
    ) for label, line in curves.items()}  # fmt: skip
    figure.draw_without_rendering()  # from here on extents are those of the final layout
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    last = max(float(line.x[-1]) for line in curves.values())
    column = [names[label] for label, line in curves.items() if line.x[-1] == last]
    _spread(column, axes)
    boxes = [text.get_window_extent(renderer) for text in [*column, *taken]]
    for name in (name for name in names.values() if name not in column):
        free: list[tuple[bool, int, tuple[int, int], str]] = []
        for x, y, side in PLACES:
            name.set(position=(x, y), horizontalalignment=side)
            box = name.get_window_extent(renderer)
            if box.y0 > axes.bbox.y0 and not any(box.overlaps(other) for other in boxes):
                free.append((_covers(axes, box, curves.values()), len(free), (x, y), side))
                if not free[-1][0]:
                    break
        _, _, place, side = min(free, default=(False, 0, (8, 0), "left"))
        name.set(position=place, horizontalalignment=side)
        boxes.append(name.get_window_extent(renderer))


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


def list_lines(axes: Axes, curves: dict[str, Curve], style: dict[str, tuple[str, Any]]) -> None:
    """The names of many lines beside the axes, in the order of the lines' ends."""
    order = sorted(curves, key=lambda label: -float(curves[label].mean[-1]))
    keys = [Line2D([], [], color=style[label][0], linestyle=style[label][1], linewidth=2) for label in order]
    axes.legend(keys, [cut(label) for label in order], loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False,
                fontsize=9.5, handlelength=2.4, title="by last value", alignment="left")  # fmt: skip


def cut(label: str) -> str:
    """A label short enough for a figure."""
    return label if len(label) <= LONGEST else label[: LONGEST - 1] + "…"


def _darker(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 * 0.78 for i in (1, 3, 5))

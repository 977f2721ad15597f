"""The figures that have a dot a variant: quality against traffic, quality at equal MB, and the clients' own; as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsparse.report import curves as read
from fedsparse.report.canvas import (
    HUES,
    INK,
    QUIET,
    baseline,
    blank,
    cut,
    darker,
    in_percent,
    log_axis,
    looks,
    png,
    short,
    styled,
)
from fedsparse.report.curves import Variant
from fedsparse.report.names import name_points


@dataclass(frozen=True)
class Dot:
    """A variant's mean with its spread, the MB it took, and what stands in place of a mean that is not known."""

    mean: float
    sd: float
    mb: float
    why: str = ""

    @property
    def bar(self) -> float:
        """The length of its error bar."""
        return self.sd if np.isfinite(self.sd) else 0.0


@styled
def traffic_figure(
    dots: dict[str, Dot], variants: Sequence[Variant], ylabel: str, *, percent: bool = False
) -> bytes | None:
    """A dot a variant: its mean against the training MB of the whole run, MB printed; None for fewer than two."""
    shown = {label: dot for label, dot in dots.items() if np.isfinite(dot.mean) and dot.mb > 0}
    if len(shown) < 2:
        return None
    figure, style = blank(3.6 if len(shown) <= 8 else 4.6), looks(variants)
    axes = figure.add_subplot()
    for label, dot in shown.items():
        colour, _, marker = style[label]
        axes.errorbar(dot.mb, dot.mean, dot.bar, fmt=marker, color=colour, markersize=5.5, elinewidth=1, capsize=2)
    traffic = [dot.mb for dot in shown.values()]
    log_axis(axes, "x", min(traffic) / 1.7, max(traffic) * 1.9)
    _room(axes, list(shown.values()), "y", 0.08)
    if percent:
        in_percent(axes.yaxis)
    axes.set(xlabel="Training traffic of the run, both directions (MB, log scale)", ylabel=ylabel)
    points = {label: (dot.mb, dot.mean, dot.bar) for label, dot in shown.items()}
    name_points(figure, axes, points, {la: f"{cut(la, 22)}, {short(dot.mb)} MB" for la, dot in shown.items()}, style)
    return png(figure)


@styled
def rows_figure(
    dots: dict[str, Dot], variants: Sequence[Variant], xlabel: str, higher: bool, *, percent: bool = False
) -> bytes | None:
    """A row a variant, the best first: mean and spread, or why there is none; None for fewer than two means."""
    known = sorted((la for la in dots if np.isfinite(dots[la].mean)), key=lambda la: dots[la].mean, reverse=higher)
    if len(known) < 2:
        return None
    order = [*known, *(label for label in dots if label not in known)]
    figure, base = _rows(len(order)), baseline(variants)
    axes = figure.add_subplot()
    beside = axes.get_yaxis_transform()
    for row, label in enumerate(order):
        dot, colour = dots[label], INK if label == base else HUES[0]
        if label in known:
            axes.errorbar(dot.mean, -row, xerr=dot.bar, fmt="o", color=colour, markersize=5.5, elinewidth=1.2,
                          capsize=2.5)  # fmt: skip
        else:
            axes.text(0.99, -row, dot.why, transform=beside, ha="right", va="center", fontsize=8.5, color=QUIET,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip
        told = _told(dot, percent) if label in known else "-"
        axes.text(1.02, -row, told, transform=beside, va="center", fontsize=9, color=darker(colour))
    _room(axes, [dots[label] for label in known], "x", 0.04)
    name_rows(axes, order, base)
    axes.set_xlabel(xlabel)
    if percent:
        in_percent(axes.xaxis)
    return png(figure)


@styled
def clients_figure(variants: Sequence[Variant], xlabel: str, higher: bool, *, percent: bool = False) -> bytes | None:
    """A row a variant, the best mean first: a dot a client and seed, a box over the middle half; None without any."""
    values = {v.label: found for v in variants if len(found := read.client_metrics(v))}
    if not values:
        return None
    order = sorted(values, key=lambda label: values[label].mean(), reverse=higher)
    figure, base = _rows(len(order), 0.36), baseline(variants)
    axes = figure.add_subplot()
    if base in values:
        axes.axvline(values[base].mean(), color=INK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1.5)
    for row, label in enumerate(order):
        own, colour = values[label], INK if label == base else HUES[0]
        sway = 0.3 * (2 * ((np.arange(len(own)) * 0.618034) % 1) - 1)  # even, and the same every time
        axes.plot(own, -row + sway, "o", color=colour, markersize=2.6, alpha=0.35, markeredgewidth=0)
        low, high = np.percentile(own, (25, 75))
        axes.barh(-row, high - low, 0.62, low, facecolor="none", edgecolor=darker(colour), linewidth=1, zorder=3)
        axes.plot([own.mean()] * 2, [-row - 0.31, -row + 0.31], color=darker(colour), linewidth=2.2, zorder=4)
    name_rows(axes, order, base)
    axes.set_xlabel(xlabel)
    if percent:
        in_percent(axes.xaxis)
    return png(figure)


def _rows(count: int, high: float = 0.28) -> Figure:
    return blank(0.75 + high * max(count, 3))


def name_rows(axes: Axes, order: Sequence[str], base: str | None) -> None:
    """Name the rows 0, -1, ... at the left, the baseline's in bold."""
    axes.set_yticks([-row for row in range(len(order))], [cut(label) for label in order], fontsize=9.5)
    axes.set_ylim(-len(order) + 0.45, 0.55)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for text, label in zip(axes.get_yticklabels(), order, strict=True):
        text.set_fontweight("bold" if label == base else "normal")


def _told(dot: Dot, percent: bool) -> str:
    scale, digits = (100, 1) if percent else (1, 3)
    sd = f" ± {scale * dot.sd:.{digits}f}" if np.isfinite(dot.sd) else ""
    return f"{scale * dot.mean:.{digits}f}{sd}"


def _room(axes: Axes, dots: Sequence[Dot], which: str, share: float) -> None:
    """Limits that hold every dot with its spread."""
    ends = [dot.mean + sign * dot.bar for dot in dots for sign in (-1, 1)]
    room = share * (max(ends) - min(ends)) or 0.05 * abs(ends[0]) or 0.05
    axes.set(**{f"{which}lim": (min(ends) - room, max(ends) + room)})

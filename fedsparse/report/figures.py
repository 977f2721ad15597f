"""The figures that have lines or bars: a metric, the agreement of masks, density by layer, bytes by kind; as PNG."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fedsparse.columns import EVALUATE
from fedsparse.measures import Unit, time_unit
from fedsparse.report import curves as read
from fedsparse.report.canvas import INK, blank, cut, in_percent, log_axis, png, short, styled
from fedsparse.report.curves import Curve, Variant
from fedsparse.report.lines import TOGETHER, Frame, lines_figure

KINDS = {"values": "#0072b2", "mask": "#e69f00", "dense": "#9a9a9a", "header": "#3d3d3d"}
NAMED = 8
"""Up to so many layers are named at the axis; more are numbered."""


@styled
def metric_figure(
    variants: Sequence[Variant],
    column: str,
    against: str,
    ylabel: str,
    higher: bool,
    *,
    percent: bool = False,
    target: float | None = None,
    without: Collection[str] = (),
) -> bytes | None:
    """A column of `rounds` against `round`, `mb` or `time`, a line a variant, `without` some; None without values."""
    found = {v.label: c for v in variants if (c := read.curve(v, column, against)) and v.label not in without}
    if not found:
        return None
    unit = time_unit(max(float(c.x[-1]) for c in found.values())) if against == "time" else Unit("MB", 1.0)
    found = {label: Curve(c.x / unit.seconds, c.mean, c.sd) for label, c in found.items()}
    line = f"target: {'95 %' if higher else '105 %'} of FedAvg's final"
    low, high = _range(found, higher, percent)
    xlabel, scale_x = _along(found, against, unit.name)

    def scale(axes: Axes) -> None:
        axes.set_ylim(low, high)
        scale_x(axes)
        if percent:
            in_percent(axes.yaxis)

    def told(value: float) -> str:
        return f"{100 * value:.1f}" if percent else f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"

    drawn = (target, line) if target is not None and np.isfinite(target) else None
    return lines_figure(found, variants, Frame(xlabel, ylabel, scale, told, higher, against != "round", target=drawn))


@styled
def agreement_figure(variants: Sequence[Variant]) -> bytes | None:
    """Mean Jaccard index of the clients' masks by round; None where no variant has masks of its clients' own."""
    found = {v.label: c for v in variants if (c := read.agreement(v)) is not None}
    if not found:
        return None
    low, high = _range(found, True, True)
    _, scale_x = _along(found, "round")

    def scale(axes: Axes) -> None:
        axes.set_ylim(low, high)
        scale_x(axes)

    return lines_figure(found, variants, Frame("Round", "Agreement of masks (Jaccard)", scale, "{:.2f}".format))


@styled
def layers_figure(variants: Sequence[Variant]) -> bytes | None:
    """Density of each layer at the end, a line a variant that is sparse; None where none is."""
    layers = read.layer_names(variants)
    found = {v.label: c for v in variants if (c := read.layer_density(v, layers)) is not None}
    if not found:
        return None
    least = min(float(c.mean[c.mean > 0].min()) for c in found.values() if (c.mean > 0).any())
    named = len(layers) <= NAMED and len(found) <= TOGETHER

    def scale(axes: Axes) -> None:
        log_axis(axes, "y", 0.7 * least, 1.4)
        axes.set_xlim(0.6, len(layers) + 0.4)
        if named:
            axes.set_xticks(range(1, len(layers) + 1), [cut(name, 16) for name in plain(layers)], fontsize=9)
            if sum(map(len, plain(layers))) > 40:
                axes.tick_params(axis="x", rotation=25)
        else:
            axes.xaxis.set_major_locator(
                MaxNLocator(10 if len(found) <= TOGETHER else 5, integer=True, steps=[1, 2, 5, 10])
            )

    xlabel = "Layer" if named else "Layer, from the input to the output"
    return lines_figure(found, variants, Frame(xlabel, "Density at the end", scale, lambda _: "", points=True))


def plain(layers: Sequence[str]) -> list[str]:
    """Layers' names for people."""
    return [name.removesuffix(".weight") for name in layers]


@styled
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
    rows = len(table) // 2
    figure = blank(1.15 + (0.55 if rows <= TOGETHER else 0.42) * rows)
    axes = figure.add_subplot()
    places = [-(1.25 * (i // 2) + 0.46 * (i % 2)) for i in range(len(table))]
    left = np.zeros(len(table))
    for kind, colour in KINDS.items():
        width = table[kind].to_numpy()
        axes.barh(places, width, 0.4, left, color=colour, label=kind, edgecolor="white", linewidth=0.5)
        left += width
    for place, total, (_, way) in zip(places, left, table.index, strict=True):
        axes.annotate(f"{way} {short(total)}", (total, place), (5, 0), textcoords="offset points", va="center",
                      color=INK, fontsize=9.5 if rows <= TOGETHER else 8.5)  # fmt: skip
    axes.set_yticks([-1.25 * i - 0.23 for i in range(rows)], [cut(label) for label, way in table.index if way == "up"])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set(xlim=(0, left.max() * 1.16), ylim=(places[-1] - 0.5, 0.5))
    axes.set_xlabel(f"Training traffic a round, all clients ({'kB' if small else 'MB'})")
    figure.legend(loc="outside upper center", ncols=4, frameon=False, handlelength=1, columnspacing=1.4)
    return png(figure)


def _bytes_of(variant: Variant, direction: str) -> pd.Series | None:
    seeds = []
    for run in variant.runs:
        own = run.messages[(run.messages["direction"] == direction) & (run.messages["phase"] != EVALUATE)]
        if len(run.rounds):
            seeds.append(own[list(KINDS)].sum() / len(run.rounds))
    return pd.concat(seeds, axis=1).mean(axis=1) if seeds else None


def _range(curves: dict[str, Curve], higher: bool, share: bool) -> tuple[float, float]:
    # Errors fall from anywhere: the first tenth of a curve may lie outside, or it would flatten all the rest.
    keep = [c.mean[len(c.mean) // 10 if not higher and len(c.mean) > 20 else 0 :] for c in curves.values()]
    ends = np.array([c.mean[-1] + sign * c.sd[-1] for c in curves.values() for sign in (-1, 1)])
    shown = np.concatenate([*keep, ends])
    if len(curves) > TOGETHER:  # small panels: room for what tells the ends apart
        reach = 2.5 * np.ptp(ends)
        shown = np.clip(shown, ends.min() - reach, ends.max() + reach)
    low, high = float(shown.min()), float(shown.max())
    room = 0.04 * (high - low) or 0.05 * abs(high) or 0.05
    low, high = np.clip((low - room, high + room), *((0, 1.01) if share else (-np.inf, np.inf)))
    return float(low), float(high)


def _along(curves: dict[str, Curve], against: str, unit: str = "") -> tuple[str, Callable[[Axes], None]]:
    """The x axis: its label and what scales it."""
    first, last = ([float(c.x[end]) for c in curves.values()] for end in (0, -1))
    what = "Simulated time so far" if against == "time" else "Traffic so far, both directions"
    log = min(first) > 0 and max(last) > 4 * min(last)

    def rounds(axes: Axes) -> None:
        axes.xaxis.set_major_locator(
            MaxNLocator(8 if len(curves) <= TOGETHER else 4, integer=True, steps=[1, 2, 5, 10])
        )
        axes.set_xlim(0, max(1.0, *last))

    def spent(axes: Axes) -> None:
        if log:
            log_axis(axes, "x", min(first) * 0.9, max(last) * 1.1)
        else:
            axes.set_xlim(0, max(last) * 1.03 or 1)

    return ("Round", rounds) if against == "round" else (f"{what} ({unit}{', log scale' * log})", spent)

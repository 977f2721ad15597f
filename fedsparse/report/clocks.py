"""The figures of the virtual clock: the devices, how long they take, and what a round's time is made of; as PNG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from fedsparse.measures import time_unit
from fedsparse.report import curves as read
from fedsparse.report.canvas import GRID, HUES, INK, QUIET, baseline, blank, cut, log_axis, png, short, styled
from fedsparse.report.curves import Variant
from fedsparse.report.dots import name_rows

PARTS = {
    "waiting": "#c4c4c4",
    "download": "#56b4e9",
    "compute": "#d55e00",
    "upload": "#0072b2",
    "missing": "#8a8a8a",
}
"""What a round's time is made of, in order, with colours."""
WHO = 16
"""Characters of a device's name beside a bar."""
TIERS = len(HUES)
"""Tiers that are told apart; of more, all devices are one."""


@styled
def devices_figure(variant: Variant) -> bytes | None:
    """A dot a client: uplink against compute speed, by device; None where all clients are alike.

    Clients of one place share a dot, the larger the more they are.
    """
    clients = read.mix(variant)
    if len(clients[["flops", "up"]].drop_duplicates()) < 2:
        return None
    figure = blank()
    axes = figure.add_subplot()
    for device, colour in _colours(sorted(clients["device"])).items():
        own = clients if device == "all" else clients[clients["device"] == device]
        places = own.groupby(["flops", "up"]).size().reset_index(name="count")
        name = f"{cut(device, 18)} ({len(own)})"
        axes.scatter(places["flops"] / 1e9, places["up"] / 1e6, 26 * places["count"], color=colour, alpha=0.75,
                     linewidth=0.6, edgecolor="white", label=name, zorder=3)  # fmt: skip
    for which, values in (("x", clients["flops"] / 1e9), ("y", clients["up"] / 1e6)):
        log_axis(axes, which, float(values.min()) / 1.6, float(values.max()) * 1.6)
    axes.set(xlabel="Compute speed (GFLOP/s, log scale)", ylabel="Uplink (MB/s, log scale)")
    legend = figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9, columnspacing=1.4)
    for handle in legend.legend_handles:
        handle.set_sizes([36])  # type: ignore[union-attr]
    return png(figure)


@styled
def times_figure(variants: Sequence[Variant]) -> bytes | None:
    """Simulated time of a client's work in a round, by variant and device; None without a clock."""
    found = {v.label: times for v in variants if len(times := read.task_times(v))}
    if not found:
        return None
    everything = pd.concat(found.values())
    order = everything.groupby("device")["sim_seconds"].median().sort_values().index
    colours = _colours([str(device) for device in order])
    unit = time_unit(float(everything["sim_seconds"].max()))
    step = 1 / (len(colours) + 0.8)
    figure = blank(0.95 + len(found) * max(0.3, (0.17 if len(found) <= 8 else 0.12) * (len(colours) + 0.8)))
    axes = figure.add_subplot()
    for row, times in enumerate(found.values()):
        for place, (device, colour) in enumerate(colours.items()):
            own = times if device == "all" else times[times["device"] == device]
            middle = -row + 0.5 - step * (place + 0.9)
            _box(axes, own["sim_seconds"].to_numpy() / unit.seconds, middle, step, colour)
        axes.axhline(-row - 0.5, color=GRID, linewidth=0.8)
    name_rows(axes, list(found), baseline(variants))
    axes.grid(axis="y", visible=False)
    low, high = everything["sim_seconds"].min() / unit.seconds, everything["sim_seconds"].max() / unit.seconds
    log = 0 < low < high / 6
    if log:
        log_axis(axes, "x", low / 1.2, high * 1.2)
    else:
        axes.set_xlim(0, 1.04 * high)
    axes.set_xlabel(f"Simulated time of a client's round ({unit.name}{', log scale' * log})")
    keys = [Line2D([], [], color=colour, linewidth=5, label=cut(device, 18)) for device, colour in colours.items()]
    figure.legend(handles=keys, loc="outside upper center", ncols=4, frameon=False, fontsize=9, handlelength=0.8,
                  columnspacing=1.4)  # fmt: skip
    return png(figure)


@styled
def rounds_figure(variants: Sequence[Variant]) -> bytes | None:
    """What the mean round's time is made of, a bar a variant, and whose reply was last; None without any."""
    clocked = [v for v in variants if not read.timeless(v)]
    parts = {v.label: part for v in clocked if (part := read.round_time(v)) is not None}
    if not parts:
        return None
    table = pd.DataFrame({label: part[list(PARTS)] for label, part in parts.items()}).T.astype(float)
    unit = time_unit(float(table.sum(axis=1).max()))
    table /= unit.seconds
    used = [name for name in PARTS if (table[name] > 0.001 * table.to_numpy().max()).any()]
    figure = blank(1.2 + 0.36 * max(len(table), 3))
    axes, left = figure.add_subplot(), np.zeros(len(table))
    beside = axes.get_yaxis_transform()
    places = -np.arange(len(table), dtype=float)
    for name in used:
        width = table[name].to_numpy()
        axes.barh(places, width, 0.6, left, color=PARTS[name], label=name, edgecolor="white", linewidth=0.5)
        left += width
    for place, total, part in zip(places, left, parts.values(), strict=True):
        axes.annotate(f"{short(total)}", (total, place), (5, 0), textcoords="offset points", va="center", color=INK,
                      fontsize=9.5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        who = f"{cut(part['who'], WHO)} {100 * part['share']:.0f} %"
        axes.text(1.02, place, who, transform=beside, va="center", fontsize=8.5, color=QUIET)
    axes.annotate("last reply", (1.02, 0), (0, 9), xycoords=beside, textcoords="offset points", fontsize=8.5, color=INK)
    name_rows(axes, list(parts), baseline(variants))
    axes.grid(axis="y", visible=False)
    axes.set(xlim=(0, left.max() * 1.16), xlabel=f"Simulated time of a round, mean ({unit.name})")
    figure.legend(loc="outside upper center", ncols=len(used), frameon=False, handlelength=1, columnspacing=1.4,
                  fontsize=9.5)  # fmt: skip
    return png(figure)


def _colours(devices: Sequence[str]) -> dict[str, str]:
    """A colour a device, or one for all where there are too many."""
    names = list(dict.fromkeys(devices))
    hues = dict(zip(sorted(names), HUES, strict=False))  # the same in all figures
    return {name: hues[name] for name in names} if len(names) <= TIERS else {"all": HUES[0]}


def _box(axes: Axes, values: np.ndarray, place: float, step: float, colour: str) -> None:
    """A line over all but the outermost twentieths, a bar over the middle half, a tick at the median."""
    if not len(values):
        return
    low, first, middle, third, high = np.percentile(values, (5, 25, 50, 75, 95))
    axes.plot([low, high], [place, place], color=colour, linewidth=1, zorder=2.5)
    axes.barh(place, third - first, 0.62 * step, first, color=colour, alpha=0.55, zorder=3)
    axes.plot([middle] * 2, [place - 0.4 * step, place + 0.4 * step], color=colour, linewidth=2.4, zorder=4)

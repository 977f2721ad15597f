"""The picture of an experiment's devices: how fast each client computes and sends, and who is ready when."""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedsparse.report.canvas import HUES, INK, MARKERS, QUIET, STYLE, blank, cut, log_axis

if TYPE_CHECKING:
    from fedsparse.cli.views import Fleet

WIDTH, CLOUD = 6.1, 3.3  # inches


def draw(fleet: Fleet) -> bytes:
    """The picture as PNG, 1403 pixels wide."""
    looks = {tier: (HUES[i % len(HUES)], MARKERS[i // len(HUES) % len(MARKERS)]) for i, tier in enumerate(fleet.shares)}
    with rc_context(STYLE | {"font.size": 10}):
        lines = [part for text in fleet.details for part in textwrap.wrap(text, 84)]
        head, foot = 0.46 + 0.18 * len(lines), 0.1 + 0.2 * -(-len(looks) // 4)
        ready = fleet.ready if fleet.ready is not None and fleet.ready.any() else None
        strip = 0.0 if ready is None else min(2.6, max(0.9, 0.1 * ready.any(1).sum())) + 0.6
        height = head + CLOUD + strip + foot
        figure = blank()
        figure.set_size_inches(WIDTH, height)
        layout = (0, foot / height, 1, 1 - (head + foot) / height)
        figure.get_layout_engine().set(rect=layout, w_pad=0.08, h_pad=0.05)  # type: ignore[union-attr,call-arg]
        figure.text(0.1 / WIDTH, 1 - 0.1 / height, fleet.heading, size=12, weight="bold", color=INK, va="top")
        for n, line in enumerate(lines):
            figure.text(0.1 / WIDTH, 1 - (0.38 + 0.18 * n) / height, line, size=9.5, color=QUIET, va="top")
        if ready is None:
            _cloud(figure.subplots(), fleet, looks)
        else:
            upper, lower = figure.subplots(2, 1, height_ratios=(CLOUD, strip))
            _cloud(upper, fleet, looks)
            _strip(lower, fleet, ready, looks)
        _legend(figure, looks, foot)
        out = io.BytesIO()
        figure.savefig(out, format="png", metadata={"Software": None})
        return out.getvalue()


def _legend(figure: Figure, looks: dict[str, tuple[str, str]], foot: float) -> None:
    """The tiers, at the foot of the picture."""
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=5, label=cut(tier))
        for tier, (colour, marker) in looks.items()
    ]
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.1 / WIDTH, 0.06 / figure.get_size_inches()[1]),
        ncols=4, frameon=False, fontsize=9.5, borderpad=0, borderaxespad=0, handlelength=0.9,
        columnspacing=1.2, handletextpad=0.4, labelspacing=0.25,
    ).set_in_layout(False)  # fmt: skip


def _cloud(axes: Axes, fleet: Fleet, looks: dict[str, tuple[str, str]]) -> None:
    """A dot a client; a dot of several, which are alike, says how many."""
    alike = fleet.table.groupby(["device", "flops", "up"], sort=False).size()
    for (tier, flops, up), clients in alike.items():
        colour, marker = looks[tier]
        axes.scatter(flops / 1e9, up / 1e6, 20 if clients == 1 else 70, color=colour, marker=marker, alpha=0.75, lw=0)
        if clients > 1:
            axes.annotate(
                f"{clients} clients", (flops / 1e9, up / 1e6), (6, 0), textcoords="offset points", va="center", size=9
            )
    for which, values in (("x", fleet.table["flops"] / 1e9), ("y", fleet.table["up"] / 1e6)):
        low, high = values.min(), values.max()
        room = max(1.25, (high / low) ** 0.06) if high > low else 2
        log_axis(axes, which, low / room, high * room * (1.6 if which == "x" and alike.max() > 1 else 1))
    axes.set(xlabel="compute speed (GFLOP/s, log scale)", ylabel="uplink (MB/s, log scale)")


def _strip(axes: Axes, fleet: Fleet, ready: np.ndarray, looks: dict[str, tuple[str, str]]) -> None:
    """A line a client that is ready at all, tiers together, who is ready most on top; coloured while it is ready."""
    place = {tier: n for n, tier in enumerate(looks)}
    slots = np.count_nonzero(ready, axis=1)
    order = np.lexsort((-slots, fleet.table["device"].map(place).to_numpy()))
    order = order[slots[order] > 0]
    colours = np.array([to_rgb(looks[tier][0]) for tier in fleet.table["device"]])
    image = np.where(ready[order][..., None], colours[order][:, None], 1.0)
    axes.imshow(image, aspect="auto", interpolation="nearest", extent=(0, 48, len(order), 0))
    axes.grid(False)
    axes.set_xticks(range(0, 49, 6))
    axes.set_yticks([])
    axes.set_xlabel("simulated hours")
    axes.set_ylabel(f"{len(order)} clients, when ready")

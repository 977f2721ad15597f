"""The picture of a split: which labels or targets each client has, and how many samples in which part.

A client is a line, whatever their number, so that a phone shows the picture at its full width.
"""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fedsparse.report.canvas import GRID, INK, QUIET, STYLE, blank, in_percent

if TYPE_CHECKING:
    from fedsparse.cli.views import Split

WIDTH, FOOT = 6.1, 0.62  # inches
LINES = 32
"""So many clients each have their number and their counts; more are numbered here and there."""
MOST = 60
"""So many clients each have a bar and a name; more are sorted, and bars become one area."""
LONGEST = 24
"""Characters of a name."""
COLOURS = {"train": "#0072b2", "validation": "#e69f00", "test": "#009e73"}
BLUES = LinearSegmentedColormap.from_list("blues", colormaps["Blues"](np.linspace(0.16, 1.0, 256)))
HALF, MOSTLY = "#6fb0dc", "#c9e0f1"


def draw(split: Split) -> bytes:
    """The picture as PNG: 1400 pixels wide, as long as its clients need."""
    clients = len(split.table)
    order = _order(split) if clients > MOST else np.arange(clients)
    with rc_context(STYLE | {"font.size": 10, "axes.grid": False}):
        lines = [part for text in split.details for part in textwrap.wrap(text, 84)]
        head, foot = 0.46 + 0.18 * len(lines), FOOT
        height = head + _height(clients, split.named) + 0.45 + foot
        figure = blank()
        figure.set_size_inches(WIDTH, height)
        layout = (0, foot / height, 1, 1 - (head + foot) / height)
        figure.get_layout_engine().set(rect=layout, w_pad=0.06, h_pad=0.02)  # type: ignore[union-attr,call-arg]
        figure.text(0.1 / WIDTH, 1 - 0.1 / height, split.heading, size=12, weight="bold", color=INK, va="top")
        for n, line in enumerate(lines):
            figure.text(0.1 / WIDTH, 1 - (0.38 + 0.18 * n) / height, line, size=9.5, color=QUIET, va="top")
        left, right = figure.subplots(1, 2, width_ratios=(2.5, 1))
        (_labels if split.classes else _targets)(figure, left, split, order)
        _sizes(figure, right, split, order)
        _clients(left, split)
        for axes in (left, right):
            axes.set_ylim(clients - 0.5, -0.5)
        out = io.BytesIO()
        figure.savefig(out, format="png", metadata={"Software": None})  # in full: a palette would make steps of shades
        return out.getvalue()


def _height(clients: int, named: bool) -> float:
    """Inches for all lines."""
    if clients <= LINES:
        return clients * max(0.2, min(0.34, 2.4 / clients))
    return 0.165 * clients if named and clients <= MOST else min(6.5, max(5.0, 0.1 * clients))


def _order(split: Split) -> np.ndarray:
    """Clients of the same commonest class together, the most one-sided first; by the median for a regression."""
    if not split.classes:
        return np.argsort(split.table["median"].to_numpy(), kind="stable")
    counts = split.counts()
    return np.lexsort((-counts.max(1) / counts.sum(1), counts.argmax(1)))


def _clients(axes: Axes, split: Split) -> None:
    clients = len(split.table)
    axes.tick_params(axis="y", length=0)
    axes.set_ylabel("client")
    if clients > MOST:
        axes.set_yticks([])
        axes.set_ylabel(f"{clients} clients, sorted by {'their commonest class' if split.classes else 'their median'}")
    elif split.named:
        names = split.table["name"]
        axes.set_yticks(range(clients), [_cut(name) for name in names], size=8)
        axes.set_ylabel("")
    elif clients <= LINES:
        axes.set_yticks(range(clients), split.table["client"])
    else:
        axes.yaxis.set_major_locator(MaxNLocator(12, integer=True))


def _cut(name: str) -> str:
    # Names of one kind begin alike and differ at their ends.
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2 - 1]}…{name[-LONGEST // 2 :]}"


def _below(figure: Figure, side: Literal["center left", "center right"], handles: list[Any]) -> None:
    """A legend in a line at the foot of the picture."""
    x = 0.12 if side == "center left" else WIDTH - 0.12
    figure.legend(
        handles=handles, loc=side, bbox_to_anchor=(x / WIDTH, 0.42 / figure.get_size_inches()[1]),
        ncols=len(handles), frameon=False, fontsize=9.5, borderpad=0, borderaxespad=0, handlelength=0.9,
        handleheight=0.9, columnspacing=0.9, handletextpad=0.4,
    ).set_in_layout(False)  # fmt: skip


# ---- labels ----


def _labels(figure: Figure, axes: Axes, split: Split, order: np.ndarray) -> None:
    """A cell for each client and class, coloured by the share of the client's samples; white where it has none."""
    counts = split.counts()[order]
    share = counts / counts.sum(1, keepdims=True)
    clients, classes = counts.shape
    # The roots of the shares, where some are so large that the others would all be pale.
    norm = PowerNorm(0.5 if share.max() > 4 / classes else 1, 0, share.max())
    image = axes.imshow(np.ma.masked_equal(share, 0), cmap=BLUES, norm=norm, aspect="auto")
    _scale(figure, image, _ticks(norm, share.max()))
    if clients <= MOST and classes <= 26:
        axes.hlines(np.arange(clients + 1) - 0.5, -0.5, classes - 0.5, colors=GRID, linewidth=0.6)
        axes.vlines(np.arange(classes + 1) - 0.5, -0.5, clients - 0.5, colors=GRID, linewidth=0.6)
        axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xlim(-0.5, classes - 0.5)
    axes.set_xlabel("class")
    axes.tick_params(axis="x", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(10 if classes > 20 else 20, integer=True))
    if clients <= LINES and classes <= 12 and len(str(counts.max())) * 0.08 < 3.2 / classes:
        axes.set_xlabel("class (in the cells: samples)")
        for client, label in zip(*np.nonzero(counts), strict=True):
            colour = "white" if norm(share[client, label]) > 0.62 else INK
            axes.text(label, client, counts[client, label], size=8, color=colour, ha="center", va="center")


def _scale(figure: Figure, image: AxesImage, ticks: list[float]) -> None:
    """The colours, at the foot of the picture."""
    height = figure.get_size_inches()[1]
    place = figure.add_axes((0.62 / WIDTH, 0.4 / height, 2.7 / WIDTH, 0.09 / height))
    bar = figure.colorbar(image, cax=place, orientation="horizontal", ticks=ticks)
    bar.set_label("share of the client's samples (%)", size=9.5, labelpad=2)
    in_percent(place.xaxis)
    place.tick_params(labelsize=8.5, length=2, pad=1)
    bar.outline.set_visible(False)


def _ticks(norm: PowerNorm, most: float) -> list[float]:
    """Round shares whose numbers do not meet."""
    found = [0.0]
    for share in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0):
        if share <= most and norm(share) - norm(found[-1]) > 0.1:
            found.append(share)
    return found


# ---- targets ----


def _targets(figure: Figure, axes: Axes, split: Split, order: np.ndarray) -> None:
    """A box for each client: the middle half of its targets, the line from 5 to 95 % of them, the median."""
    table = split.table.iloc[order]
    places = np.arange(len(table))
    if len(table) > MOST:
        axes.fill_betweenx(places, table["q05"], table["q95"], step="mid", color=MOSTLY, linewidth=0)
        axes.fill_betweenx(places, table["q25"], table["q75"], step="mid", color=HALF, linewidth=0)
        axes.plot(table["median"], places, color=INK, linewidth=1)
    else:
        axes.hlines(places, table["q05"], table["q95"], colors=QUIET, linewidth=1)
        axes.barh(places, table["q75"] - table["q25"], 0.62, table["q25"], color=HALF)
        axes.vlines(table["median"], places - 0.31, places + 0.31, colors=INK, linewidth=1.4)
    axes.set_xlabel("target")
    _plain(axes)
    tails = Patch(color=MOSTLY) if len(table) > MOST else Line2D([], [], color=QUIET, linewidth=1)
    handles = [Line2D([], [], color=INK, linewidth=1.6), Patch(color=HALF), tails]
    for handle, text in zip(handles, ("median", "middle half", "5 to 95 %"), strict=True):
        handle.set_label(text)
    _below(figure, "center left", handles)


# ---- sizes ----


def _sizes(figure: Figure, axes: Axes, split: Split, order: np.ndarray) -> None:
    """Samples of each client by part."""
    table = split.table.iloc[order]
    places, edge = np.arange(len(table)), np.zeros(len(table))
    for part, colour in COLOURS.items():
        ahead = edge + table[part].to_numpy()
        if len(table) > MOST:
            axes.fill_betweenx(places, edge, ahead, step="mid", color=colour, linewidth=0)
        else:
            axes.barh(places, ahead - edge, 0.72, edge, color=colour)
        edge = ahead
    axes.set_xlabel("samples")
    axes.set_yticks([])
    _plain(axes)
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    thousands = edge.max() >= 3000
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v / 1000:g}k" if v and thousands else f"{v:g}"))
    axes.set_xlim(0, edge.max() * (1.4 if len(table) <= LINES else 1.03))
    if len(table) <= LINES:
        for place, total in zip(places, edge, strict=True):
            axes.annotate(f"{total:,.0f}", (total, place), (3, 0), textcoords="offset points", va="center", size=8)
    _below(figure, "center right", [Patch(color=colour, label=part) for part, colour in COLOURS.items()])


def _plain(axes: Axes) -> None:
    """Light lines in place of an axis."""
    axes.grid(axis="x")
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)

"""Bytes over the bound, and the speed of both ways, against density, of all methods that were measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

from fedsparse import bench  # noqa: E402
from fedsparse.bench import Measured  # noqa: E402

OWN = "#0072b2"
OTHERS = ("#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c6d31", "#7f7f7f", "#1b1b1f")
PANELS: dict[str, Callable[[Measured], float]] = {
    "bytes / bound (less is better)": lambda m: m.size / m.bound,
    "encode, GB/s of dense bytes": lambda m: m.dense / m.encode / 1e9,
    "decode, GB/s of dense bytes": lambda m: m.dense / m.decode / 1e9,
}


def draw(found: list[Measured], file: Path) -> None:
    """One panel each for size, encoding and decoding; ours thick, on top."""
    ours = [m for m in dict.fromkeys(m.method for m in found) if m.startswith(bench.OURS.name)]
    others = [m for m in dict.fromkeys(m.method for m in found) if m not in ours]
    colours = dict(zip(others, OTHERS, strict=True)) | dict.fromkeys(ours, OWN)
    figure, axes = plt.subplots(1, len(PANELS), figsize=(12, 4.2), layout="constrained")
    for axis, (title, number) in zip(axes, PANELS.items(), strict=True):
        for method, colour in colours.items():
            points = sorted((100 * bench.SHARES[m.kind], number(m)) for m in found if m.method == method)
            line = "o--" if method in ours[1:] else "o-"
            axis.plot(
                *zip(*points, strict=True), line, label=method, color=colour, lw=3 if method in ours else 1.3, ms=4
            )
        axis.set(title=title, xlabel="density, %", xscale="log", yscale="log")
        shares = sorted({100 * bench.SHARES[m.kind] for m in found})
        axis.set_xticks(shares, [f"{share:g}" for share in shares])
        axis.minorticks_off()
        axis.yaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(file, dpi=110)
    plt.close(figure)

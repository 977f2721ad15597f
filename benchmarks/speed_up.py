"""Accuracy against speed-up: every variant of a comparison, by simulated time as a multiple of FedAvg's speed.

    python benchmarks/speed_up.py results/adaptcl-h20 [--mark 6.2] [--out results/adaptcl-h20/speed_up.png]

Reads `summary.csv`. A speed-up is FedAvg's simulated time over the variant's, for the same rounds. `--mark` reads the
curve through all variants at one speed-up, linear between the two beside it, and says what stands there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from fedsparse.report.canvas import HUES, INK, QUIET, blank, darker, png, styled

BASELINE = "fedavg"


def curve(summary: pd.DataFrame) -> pd.DataFrame:
    """Columns variant, speed_up, final, sd; the slowest first."""
    speed = 1 / summary["sim_ratio"]
    rows = summary.assign(speed_up=speed, final=100 * summary["final_mean"], sd=100 * summary["final_sd"].fillna(0.0))
    return rows.sort_values("speed_up")[["variant", "speed_up", "final", "sd"]].reset_index(drop=True)


def at(points: pd.DataFrame, mark: float) -> float:
    """Accuracy on the curve at a speed-up; NaN where it does not get there."""
    x = points["speed_up"]
    return float(np.interp(mark, x, points["final"])) if x.min() <= mark <= x.max() else float("nan")


@styled
def draw(points: pd.DataFrame, mark: float | None) -> bytes:
    figure: Figure = blank()
    axes = figure.add_subplot()
    axes.errorbar(points["speed_up"], points["final"], points["sd"], color=HUES[0], marker="o", markersize=5, capsize=2)
    for row in points.itertuples():
        base = row.variant == BASELINE
        axes.annotate(row.variant, (row.speed_up, row.final), (6, 6), textcoords="offset points", fontsize=8.5,
                      color=INK if base else darker(HUES[0]), fontweight="bold" if base else "normal")  # fmt: skip
    if mark is not None:
        axes.axvline(mark, color=QUIET, linewidth=1, linestyle=(0, (2, 2)))
        found = at(points, mark)
        text = f"{mark:g} times" + (f":\n{found:.1f} %" if found == found else ": not reached")
        axes.annotate(text, (mark, axes.get_ylim()[0]), (5, 6), textcoords="offset points", color=QUIET, fontsize=9)
    axes.margins(x=0.16, y=0.14)
    axes.set(xlabel="Times as fast as FedAvg (simulated time)", ylabel="Accuracy %")
    return png(figure)


def main() -> int:
    options = argparse.ArgumentParser(description="Accuracy against speed-up.")
    options.add_argument("folder", type=Path)
    options.add_argument("--mark", type=float)
    options.add_argument("--out", type=Path)
    asked = options.parse_args()
    points = curve(pd.read_csv(asked.folder / "summary.csv"))
    table = Table("variant", "times as fast", "accuracy %")
    for row in points.itertuples():
        table.add_row(row.variant, f"{row.speed_up:.2f}", f"{row.final:.1f} ± {row.sd:.1f}")
    if asked.mark is not None:
        table.add_row("on the curve", f"{asked.mark:g}", f"{at(points, asked.mark):.1f}")
    Console().print(table)
    if asked.out is not None:
        drawn = draw(points, asked.mark)
        assert drawn is not None
        asked.out.write_bytes(drawn)
    return 0


if __name__ == "__main__":
    sys.exit(main())

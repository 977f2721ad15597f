"""The tables of docs/study.md, from the committed summaries: `python tests/tables.py results/NAME` prints one.

`python tests/tables.py results/fashion_mnist README` prints that of the README.
"""

from __future__ import annotations

import math
import sys
import tomllib
from pathlib import Path

import pandas as pd

COMMON = ("variant", "{metric}", "to FedAvg", "personal", "to FedAvg", "density", "MB both ways", "of FedAvg")
EQUAL = ("at {budget:.1f} MB", "personal there")
TIMED = ("simulated s", "of FedAvg", "s to target")


def rows(folder: Path) -> list[str]:
    """The head and a line a variant: at equal MB, or by simulated time where the devices differ.

    Accuracies are in per cent, differences in points; errors are in their unit.
    """
    summary, table = (pd.read_csv(folder / name) for name in ("summary.csv", "comparison.csv"))
    accuracy, timed = table["metric"].iloc[0] == "accuracy", clocked(folder)
    scale, digits = (100, 1) if accuracy else (1, 2)
    both = (summary["bytes_up_mean"] + summary["bytes_down_mean"]) / 1e6

    def spread(row: pd.Series, name: str, sd: str = "") -> str:
        mean = row[name]
        if pd.isna(mean):
            return "-"
        return f"{scale * mean:.{digits}f} ± {scale * row[sd or name.replace('_mean', '_sd')]:.{digits}f}"

    head = " | ".join(COMMON + (TIMED if timed else EQUAL))
    budget = math.nan if timed else both[summary["variant"] == summary["budget"].iloc[0]].iloc[0]
    lines = [f"| {head} |".format(metric="accuracy %" if accuracy else "RMSE", budget=budget)]
    lines.append("|---" * (head.count("|") + 1) + "|")
    for (_, row), mb in zip(summary.iterrows(), both, strict=True):
        base = row["variant"] == "fedavg"
        cells = [
            f"`{row['variant']}`",
            spread(row, "final_mean"),
            "-" if base else spread(row, "final_diff", "final_diff_sd"),
            spread(row, "final_personal_mean"),
            "-" if base else spread(row, "final_personal_diff", "final_personal_diff_sd"),
            f"{row['density_mean']:.3f}",
            f"{mb:.1f}",
            f"{100 * row['bytes_ratio']:.1f} %",
        ]
        if timed:
            reached = row["sim_to_target_mean"]
            cells += [f"{row['sim_seconds_mean']:.0f}", f"{100 * row['sim_ratio']:.1f} %"]
            cells += ["-" if pd.isna(reached) else f"{reached:.0f}"]
        else:
            cells += [spread(row, "at_budget_mean"), spread(row, "personal_at_budget_mean")]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def clocked(folder: Path) -> bool:
    """Whether a comparison is of devices that differ."""
    config = tomllib.loads((folder / "run" / "config.toml").read_text(encoding="utf-8"))
    return any(tier.get("spread", 1) > 1 or tier.get("profile") for tier in config["devices"].values())


def short(folder: Path) -> list[str]:
    """The README's lines: head and a line a variant."""
    summary = pd.read_csv(folder / "summary.csv")
    lines = ["| variant | accuracy | to FedAvg | personal | density | MB both ways | of FedAvg |", "|---" * 7 + "|"]
    for _, row in summary.iterrows():
        base = row["variant"] == "fedavg"
        final = "-" if pd.isna(row["final_mean"]) else f"{100 * row['final_mean']:.1f} ± {100 * row['final_sd']:.1f} %"
        known = not base and not pd.isna(row["final_diff"])
        cells = [
            f"`{row['variant']}`",
            final,
            f"{100 * row['final_diff']:+.1f} ± {100 * row['final_diff_sd']:.1f}" if known else "-",
            f"{100 * row['final_personal_mean']:.1f} ± {100 * row['final_personal_sd']:.1f} %",
            f"{row['density_mean']:.3f}",
            f"{(row['bytes_up_mean'] + row['bytes_down_mean']) / 1e6:.1f}",
            f"{100 * row['bytes_ratio']:.1f} %",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    print("\n".join((short if sys.argv[2:] else rows)(Path(sys.argv[1]))))

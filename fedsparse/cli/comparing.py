"""The tables of a comparison: a row a variant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedsparse.cli.progress import known, megabytes
from fedsparse.cli.tables import console, figure, grid, mega, near, print_status, records
from fedsparse.measures import time_unit
from fedsparse.results import Comparison, Run, load
from fedsparse.retime import Network, beside, retimed


@dataclass(frozen=True)
class _Column:
    """A column of the comparison; those with a higher `spare` are left out first where the terminal is narrow."""

    head: str
    cell: Callable[[Mapping[str, Any]], str]
    spare: int = 0


def print_comparison(comparison: Comparison) -> None:
    """A row a variant: quality, density, bytes, both relative to FedAvg, and quality at equal MB."""
    rows, runs, out = records(comparison.summary), comparison.runs, console()
    out.print(Text(_heading(runs), style="bold"))
    out.print(_fitting(_columns(rows, str(runs[0].summary["metric"])), rows, out))
    _beside(rows, runs, out)
    out.print(Text(f"\n{near(comparison.folder / 'report.html')}"), soft_wrap=True)


def _columns(rows: Sequence[Mapping[str, Any]], metric: str) -> list[_Column]:
    percent = metric == "accuracy"
    unit = "\n%" if percent else ""
    budget = next((_both(row) for row in rows if row["variant"] == row["budget"]), None)
    compared = sum(known(row["personal_at_budget_mean"]) or known(row["at_budget_mean"]) for row in rows) > 1
    at = f"at {megabytes(budget)} MB"
    equal = [
        _Column(f"{at}{unit}", lambda r: _spread(r, "at_budget", percent), 2),
        _Column(f"personal\n{at}", lambda r: _spread(r, "personal_at_budget", percent), 3),
    ]
    return [
        _Column(f"{metric}{unit}", lambda r: _spread(r, "final", percent)),
        _Column("minus\nFedAvg", lambda r: _difference(r, "final", percent), 1),
        _Column(f"personal{unit}", lambda r: _spread(r, "final_personal", percent)),
        _Column("minus\nFedAvg", lambda r: _difference(r, "final_personal", percent), 4),
        _Column("density", lambda r: figure(r["density_mean"], False)),
        _Column("MB\nup", lambda r: megabytes(mega(r["bytes_up_mean"]))),
        _Column("MB\ndown", lambda r: megabytes(mega(r["bytes_down_mean"]))),
        _Column("MB % of\nFedAvg", lambda r: f"{r['bytes_ratio'] * 100:.1f}" if known(r["bytes_ratio"]) else "-"),
        _Column("MB to\ntarget", lambda r: megabytes(r["mb_to_target_mean"])),
        *(_clock(rows)),
        *(equal if compared else []),
        _Column("s", lambda r: _seconds(r["seconds_mean"]), 5),
    ]


def _clock(rows: Sequence[Mapping[str, Any]]) -> list[_Column]:
    """What the virtual clock tells, in the unit of the longest."""
    longest = max((row["sim_seconds_mean"] for row in rows if known(row["sim_seconds_mean"])), default=None)
    if longest is None:
        return []
    unit = time_unit(longest)

    def time(value: Any) -> str:
        return megabytes(value / unit.seconds if known(value) else None)

    def ratio(value: Any) -> str:
        return f"{100 * value:.1f}" if known(value) else "-"

    return [
        _Column(f"sim.\n{unit.name}", lambda r: time(r["sim_seconds_mean"])),
        _Column(f"{unit.name} % of\nFedAvg", lambda r: ratio(r["sim_ratio"]), 2),
        _Column(f"{unit.name} to\ntarget", lambda r: time(r["sim_to_target_mean"])),
    ]


def print_times(folders: Iterable[Path], devices: Path) -> None:
    """A row a variant: simulated time as the runs had it, and on other devices."""
    network, out = Network.read(devices), console()
    found = pd.concat([beside(own, retimed(own, network)) for own in map(load, folders)])
    unit = time_unit(float(found.max(axis=None)))
    table = grid("", f"{unit.name} as run", f"{unit.name} on {devices.name}")
    for label, *times in found.itertuples():
        table.add_row(Text(str(label)), *(megabytes(time / unit.seconds if known(time) else None) for time in times))
    out.print(table)
    out.print()


def _fitting(columns: Sequence[_Column], rows: Sequence[Mapping[str, Any]], out: Console) -> Table:
    """The table with as many columns as the terminal has room for, tight only if need be."""
    unbounded = out.options.update(max_width=10_000)
    for most in range(max(column.spare for column in columns), -1, -1):
        shown = [column for column in columns if column.spare <= most]
        for tight in (False, True):
            table = grid("", *(column.head for column in shown), tight=tight)
            table.columns[0].no_wrap = True
            for place in table.columns:
                place.vertical = "bottom"
            for row in rows:
                table.add_row(Text(str(row["variant"])), *(column.cell(row) for column in shown))
            if out.measure(table, options=unbounded).maximum <= out.width:
                return table
    return table


def _heading(runs: Sequence[Run]) -> str:
    first, seeds = runs[0].summary, len({run.summary["seed"] for run in runs})
    rounds = f"{first['rounds']} round{'s' * (first['rounds'] != 1)}"
    return f"{first['dataset']}, {first['model']}, {rounds}; mean ± sd over {seeds} seed{'s' * (seeds != 1)}\n"


def _beside(rows: Sequence[Mapping[str, Any]], runs: Sequence[Run], out: Console) -> None:
    told = [(row["variant"], row["overrides"]) for row in rows if row["overrides"]]
    if told:
        out.print()
    for label, overrides in told:
        out.print(Text.assemble((str(label), "bold"), f": {overrides}"))
    print_status(runs, out)


def _spread(row: Mapping[str, Any], name: str, percent: bool) -> str:
    return _pair(row[f"{name}_mean"], row[f"{name}_sd"], percent)


def _pair(mean: Any, sd: Any, percent: bool) -> str:
    return figure(mean, percent) + (f"±{figure(sd, percent)}" if known(sd) else "")


def _difference(row: Mapping[str, Any], name: str, percent: bool) -> str:
    mean = row[f"{name}_diff"]
    if not known(mean) or row["strategy"] == row["variant"] == "fedavg":
        return "-"
    return ("+" if mean >= 0 else "") + _pair(mean, row[f"{name}_diff_sd"], percent)


def _both(row: Mapping[str, Any]) -> float | None:
    """MB of both directions."""
    return mega(row["bytes_up_mean"] + row["bytes_down_mean"])


def _seconds(value: Any) -> str:
    return "-" if not known(value) else f"{value:.1f}" if value < 100 else f"{value:.0f}"

"""What the printed numbers are: `final`, MB to target, a row a run and a row a variant, as pure functions of tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fedsparse.columns import (
    AT_BUDGET,
    AVERAGED,
    BUDGET,
    COMPARISON,
    DONE,
    EXTRA_PREFIXES,
    FLOAT,
    MB_TO_TARGET,
    SIM_TO_TARGET,
    STR,
    SUMMARY,
)

MEGA = 1e6
"""Bytes in a MB."""
BASELINE = "fedavg"
REFERENCE = "feddip"
"""The strategy whose first variant is the budget of the view at equal MB, unless `compare.budget` names another."""
SHORT = 0.03
"""A curve that ends by this share of the budget below it counts with its last value."""
NEAR, NEAR_ERROR = 0.95, 1.05
"""The target of "MB to target" as a multiple of FedAvg's `final`: where higher is better, and for errors."""


@dataclass(frozen=True)
class Unit:
    """A unit of time: its sign and its seconds."""

    name: str
    seconds: float


UNITS = (Unit("days", 86400.0), Unit("h", 3600.0), Unit("min", 60.0), Unit("s", 1.0))


def time_unit(seconds: float) -> Unit:
    """The largest unit of which there are at least three, else seconds."""
    return next((unit for unit in UNITS if seconds >= 3 * unit.seconds), UNITS[-1])


def final_of(rounds: pd.DataFrame, total_rounds: int, column: str = "metric") -> float:
    """Mean of a column over the evaluated rounds among the last tenth (rounded down, at least one) of `total_rounds`.

    Where none of those was evaluated (a run that was cut short) it is the last evaluated round's value. The last round
    of all is always evaluated, so a null there means that the strategy has no such value, or that it diverged: NaN.
    """
    ordered = rounds.sort_values("round")
    if len(ordered) and ordered["round"].iloc[-1] >= total_rounds and pd.isna(ordered[column].iloc[-1]):
        return math.nan
    seen = ordered.loc[ordered[column].notna(), ["round", column]]
    late = seen.loc[seen["round"] > total_rounds - max(1, total_rounds // 10), column]
    return float((late if len(late) else seen[column].tail(1)).mean())


def cumulative_mb(rounds: pd.DataFrame) -> pd.Series:
    """Training bytes of both directions up to and including each round, in MB, in the order of the rows' rounds."""
    ordered = rounds.sort_values("round")
    return (ordered["bytes_up"] + ordered["bytes_down"]).cumsum() / MEGA


def cumulative_sim(rounds: pd.DataFrame) -> pd.Series:
    """Simulated seconds up to and including each round, in the order of the rows' rounds; null without a clock."""
    return rounds.sort_values("round")["sim_seconds"].cumsum(skipna=False)


def target_of(baseline_final: float, higher_is_better: bool) -> float:
    """What must be reached: 95 % of FedAvg's `final`, for errors 1.05 times it."""
    return baseline_final * (NEAR if higher_is_better else NEAR_ERROR)


def mb_to_target(rounds: pd.DataFrame, target: float, higher_is_better: bool, column: str = "metric") -> float:
    """Training MB (both ways) up to and including the first evaluated round that reaches the target, or NaN."""
    return _until(rounds, cumulative_mb(rounds), target, higher_is_better, column)


def sim_to_target(rounds: pd.DataFrame, target: float, higher_is_better: bool, column: str = "metric") -> float:
    """Simulated seconds up to and including the first evaluated round that reaches the target, or NaN."""
    return _until(rounds, cumulative_sim(rounds), target, higher_is_better, column)


def _until(rounds: pd.DataFrame, spent: pd.Series, target: float, higher_is_better: bool, column: str) -> float:
    value = rounds.sort_values("round")[column]
    reached = value >= target if higher_is_better else value <= target  # a null reaches nothing
    return float(spent[reached].iloc[0]) if reached.any() else math.nan


def baselines(table: pd.DataFrame) -> dict[str, str | None]:
    """By variant, the label of the FedAvg it is compared with: the variant `fedavg`, else the first of that strategy.

    Where the table has a `source` column (runs of several folders), a FedAvg of the variant's own folder comes first.
    """
    fedavg = table[table["strategy"] == BASELINE]

    def first(candidates: pd.DataFrame) -> str | None:
        labels = list(candidates["variant"])
        return BASELINE if BASELINE in labels else (labels[0] if labels else None)

    found: dict[str, str | None] = {}
    for label, rows in table.groupby("variant", sort=False):
        own = fedavg[fedavg["source"].isin(rows["source"])] if "source" in table else fedavg
        found[str(label)] = first(own) or first(fedavg)
    return found


def reference(table: pd.DataFrame) -> str:
    """The label of the variant whose total MB are the budget: the one that is named, else the first FedDIP, else "".

    `budget` in the table is what `compare.budget` named; a label that is not among the variants names none.
    """
    named = [label for label in table[BUDGET] if label in set(table["variant"])]
    return str(next(iter([*named, *table.loc[table["strategy"] == REFERENCE, "variant"]]), ""))


def at_budget(rounds: pd.DataFrame, mb: float, column: str = "metric") -> float:
    """A column read off its curve at `mb` of training traffic: linear between evaluated rounds over cumulative MB.

    NaN before the first evaluation and beyond the curve's end; one that ends within `SHORT` below counts with its last
    value, unless that is null because it diverged.
    """
    ordered = rounds.sort_values("round")
    seen = ordered[column].notna().to_numpy()
    x, y = cumulative_mb(ordered).to_numpy()[seen], ordered[column].to_numpy()[seen]
    if not seen.any():
        return math.nan
    room = 1 - SHORT if seen[-1] else 1.0
    return float(np.interp(mb, x, y)) if x[0] <= mb and x[-1] >= room * mb else math.nan


def run_table(rows: Iterable[tuple[Mapping[str, Any], pd.DataFrame]]) -> pd.DataFrame:
    """One row a run from pairs (run.json's keys, `rounds`): columns of `columns.COMPARISON`, then optional numbers.

    The keys may hold `budget`, the label that is wanted as the reference, and what an earlier table measured: that
    stays where there are no rounds to measure it again (the run's folder was not kept).
    """
    pairs = list(rows)
    raw = pd.DataFrame.from_records([dict(keys) for keys, _ in pairs])
    extras = {name: FLOAT for name in sorted(map(str, raw.columns)) if name.startswith(EXTRA_PREFIXES)}
    extras |= {"source": STR} if "source" in raw else {}
    table = raw.reindex(columns=[*COMPARISON, *extras]).astype({**COMPARISON, **extras})
    done, against, budget = _by_seed(table), baselines(table), _references(table)
    for i, (_, rounds) in enumerate(pairs):
        run = table.loc[i]
        others = (done.get((label, run["seed"])) for label in (against[run["variant"]], budget[i]))
        if len(rounds):
            found = _measured(run, rounds, *others)
        else:  # what was measured at another one's MB does not count
            found = dict.fromkeys(AT_BUDGET, math.nan) if run[BUDGET] != budget[i] else {}
        table.loc[i, list(found)] = list(found.values())
    return table.assign(**{BUDGET: budget})


def _references(table: pd.DataFrame) -> pd.Series:
    """`reference` for each row, among the rows of its data set."""
    sets = table["dataset"].fillna("")
    by_set = {name: reference(rows) for name, rows in table.groupby(sets)}
    return sets.map(by_set).astype(STR)


def _by_seed(table: pd.DataFrame) -> dict[tuple[str | None, int], pd.Series]:
    """(variant, seed) -> row, of the runs that are done."""
    done = table[table["status"] == DONE]
    return {(row["variant"], int(row["seed"])): row for _, row in done.iterrows()}


def _measured(
    run: pd.Series, rounds: pd.DataFrame, baseline: pd.Series | None, budget: pd.Series | None
) -> dict[str, float]:
    """What is measured of a run against the baseline and at the budget of the same seed, null where there is none."""
    found = dict.fromkeys((MB_TO_TARGET, SIM_TO_TARGET, *AT_BUDGET), math.nan)
    if run["status"] == DONE and baseline is not None:
        higher = bool(run["higher_is_better"])
        target = target_of(float(baseline["final"]), higher)
        found[MB_TO_TARGET] = mb_to_target(rounds, target, higher)
        found[SIM_TO_TARGET] = sim_to_target(rounds, target, higher)
    if run["status"] == DONE and budget is not None:
        found |= {name: at_budget(rounds, _both_ways(budget) / MEGA, column) for name, column in AT_BUDGET.items()}
    return found


def summarise(table: pd.DataFrame, overrides: Mapping[str, str] | None = None) -> pd.DataFrame:
    """One row a variant from a table of runs; the columns are `columns.SUMMARY`.

    - `seeds` counts the runs that are done; only they enter means. `NAME_sd` is the sample standard deviation (n - 1).
    - A mean over a seed without a value is NaN: MB to target is a number only when every seed reached it, or a strategy
      that fails on the hard seeds would look cheap.
    - `bytes_ratio`: per seed, bytes both ways over FedAvg's bytes both ways on the same seed; then the mean over the
      seeds that both have. `final_diff`: likewise `final` minus FedAvg's, with its own standard deviation, and
      `final_personal_diff`; `sim_ratio`: simulated seconds over FedAvg's.
    - `at_budget`: the metric at the total MB of `budget` on the same seed, null unless every seed got there.
    """
    done = _by_seed(table)
    against = baselines(table)
    rows = []
    for label, runs in table.groupby("variant", sort=False):
        kept = runs[runs["status"] == DONE].sort_values("seed")
        row: dict[str, Any] = {"variant": label, "strategy": runs["strategy"].iloc[0], "seeds": len(kept)}
        for name in AVERAGED:
            row[f"{name}_mean"] = kept[name].mean(skipna=False)
            row[f"{name}_sd"] = kept[name].std(skipna=False)
        pairs = [(own, done.get((against[str(label)], int(own["seed"])))) for _, own in kept.iterrows()]
        row.update(_paired([(own, other) for own, other in pairs if other is not None]))
        row[BUDGET] = runs[BUDGET].iloc[0]
        for name in AT_BUDGET:
            row[f"{name.removeprefix('metric_')}_mean"] = kept[name].mean(skipna=False)
            row[f"{name.removeprefix('metric_')}_sd"] = kept[name].std(skipna=False)
        row["overrides"] = (overrides or {}).get(str(label), "")
        rows.append(row)
    return pd.DataFrame.from_records(rows, columns=list(SUMMARY)).astype(SUMMARY)


def _paired(pairs: list[tuple[pd.Series, pd.Series]]) -> dict[str, float]:
    ratios = pd.Series([_both_ways(own) / _both_ways(other) for own, other in pairs if _both_ways(other)], dtype=FLOAT)
    times = pd.Series(
        [own["sim_seconds"] / other["sim_seconds"] for own, other in pairs if other["sim_seconds"]], dtype=FLOAT
    )
    found = {"bytes_ratio": ratios.mean(skipna=False), "sim_ratio": times.mean(skipna=False)}
    for name in ("final", "final_personal"):
        diffs = pd.Series([own[name] - other[name] for own, other in pairs], dtype=FLOAT)
        found |= {f"{name}_diff": diffs.mean(skipna=False), f"{name}_diff_sd": diffs.std(skipna=False)}
    return found


def _both_ways(run: pd.Series) -> float:
    return float(run["bytes_up"] + run["bytes_down"])

"""What a page shows: the runs of one or several folders, sorted into sections of one data set and metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fedsparse import columns
from fedsparse.errors import InputError
from fedsparse.measures import MEGA, SHORT, Unit, run_table, summarise, time_unit
from fedsparse.results import Comparison, Run, load, run_row, with_rounds
from fedsparse.retime import Network, retimed

Labelled = list[tuple[str, Run]]
METRICS = {
    "accuracy": ("Accuracy", "Share of right answers in per cent, higher is better"),
    "rmse": ("RMSE", "Root of the mean squared error, in the target's unit, lower is better"),
}
"""A metric's name and meaning in words, by its name in run.json."""


@dataclass(frozen=True)
class Picture:
    """One figure: its file's name, the PNG and the caption."""

    file: str
    data: bytes
    caption: str


@dataclass
class Section:
    """The runs on one data set with one metric: their tables, and the run folders by label as far as they were kept."""

    dataset: str
    metric: str
    table: pd.DataFrame
    summary: pd.DataFrame
    runs: list[tuple[str, Run]]
    pictures: list[Picture] = field(default_factory=list)
    note: str = ""
    """A sentence on where its simulated times come from, when it is not the runs' own devices."""

    @property
    def higher(self) -> bool:
        return bool(self.table["higher_is_better"].iloc[0])

    @property
    def scale(self) -> float:
        """Accuracies are shown in per cent (a difference of 1 is a point), other metrics in their own unit."""
        return 100.0 if self.metric == "accuracy" else 1.0

    @property
    def head(self) -> str:
        return f"{self.word} %" if self.scale == 100 else self.word

    @property
    def word(self) -> str:
        return METRICS.get(self.metric, (self.metric or "Metric", ""))[0]

    @property
    def budget(self) -> str:
        """The variant whose total MB are the budget of the view at equal MB; "" where there is no such view."""
        known = self.summary.loc[
            self.summary["at_budget_mean"].notna() | self.summary["personal_at_budget_mean"].notna()
        ]
        return str(known[columns.BUDGET].iloc[0]) if len(known) > 1 else ""

    @property
    def budget_mb(self) -> float:
        """The budget: training MB both ways, mean over the seeds."""
        return sum(total_mb(row) for row in self.summary.to_dict("records") if row["variant"] == self.budget)

    @property
    def clocked(self) -> bool:
        """Whether a run has simulated time."""
        return bool(self.table["sim_seconds"].notna().any())

    @property
    def time_unit(self) -> Unit:
        """What simulated time is written in."""
        return time_unit(float(self.table["sim_seconds"].max()))

    def why(self, row: Mapping[Any, Any], at: str) -> str:
        """Why a variant's row of the summary has no `at_budget` or `personal_at_budget`."""
        if not row["seeds"]:
            return "no run is done"
        if pd.isna(row["final_mean" if at == "at_budget" else "final_personal_mean"]):
            return "no global model" if at == "at_budget" else "not evaluated"
        ends = total_mb(row)
        return f"ends at {ends:.3g} MB" if ends < (1 - SHORT) * self.budget_mb else "not evaluated there on every seed"


def total_mb(row: Mapping[Any, Any]) -> float:
    """Training MB both ways of a variant, mean over the seeds, from its row of the summary."""
    return float(row["bytes_up_mean"] + row["bytes_down_mean"]) / MEGA


def collect(folders: Sequence[Path], network: Network | None = None) -> list[Section]:
    """What the page shows: one section for each data set and metric, for numbers of two of them share no axis.

    With `network`, simulated times are those of its devices.
    """
    if len(folders) == 1:
        loaded = _load(folders[0], network)
        runs = [(run.label, run) for run in _runs(loaded)]
        table = loaded.table if isinstance(loaded, Comparison) else run_table(_pairs(loaded))
        # A page of one run shows what it has, finished or not.
        summary = loaded.summary if isinstance(loaded, Comparison) else summarise(table.assign(status=columns.DONE))
    else:
        table, summary, runs = _merge(folders, network)
    if table.empty:
        raise InputError(f"{str(folders[0])!r} holds no runs.")
    # A run that failed before it knew its metric stands with the others of its data set.
    named = table.assign(dataset=table["dataset"].fillna(""))
    named["metric"] = named.groupby("dataset")["metric"].transform(
        lambda names: names.fillna(names.dropna().get(0, None))
    )
    named["metric"] = named["metric"].fillna("")
    sections = []
    for (dataset, metric), rows in named.groupby(["dataset", "metric"], sort=False):
        labels = list(dict.fromkeys(rows["variant"]))
        own = [(label, run) for label, run in runs if label in labels]
        of_these = summary[summary["variant"].isin(labels)].reset_index(drop=True)
        sections.append(Section(str(dataset), str(metric), rows.reset_index(drop=True), of_these, own))
    return sections


def _runs(loaded: Run | Comparison) -> list[Run]:
    return [loaded] if isinstance(loaded, Run) else loaded.runs


def _pairs(loaded: Run | Comparison) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """The rows of its table, each with its run's `rounds`."""
    return (
        [(run_row(loaded), loaded.rounds)] if isinstance(loaded, Run) else list(with_rounds(loaded.table, loaded.runs))
    )


def _load(folder: Path, network: Network | None) -> Run | Comparison:
    return load(folder) if network is None else retimed(load(folder), network)


def _merge(folders: Sequence[Path], network: Network | None) -> tuple[pd.DataFrame, pd.DataFrame, Labelled]:
    """One table, summary and list of runs from several folders; a run that is there twice counts once."""
    rows: dict[tuple[str, int], tuple[dict[str, Any], pd.DataFrame]] = {}
    runs: dict[tuple[str, int], Run] = {}
    overrides: dict[str, str] = {}
    names = _names(folders)
    configs: dict[str, list[Any]] = {}
    for folder, name in zip(folders, names, strict=True):
        loaded = _load(folder, network)
        pairs = _pairs(loaded)
        found = {(run.label, int(run.summary["seed"])): run for run in _runs(loaded)}
        variants = dict.fromkeys(str(row["variant"]) for row, _ in pairs)
        labels = {label: _label(label, name, _config(found, label), configs) for label in variants}
        for row, rounds in pairs:
            label, seed, budget = str(row["variant"]), int(row["seed"]), row.get(columns.BUDGET)
            if (key := (labels[label], seed)) not in rows:
                ours = {"variant": labels[label], "source": name, columns.BUDGET: labels.get(str(budget), budget)}
                rows[key] = {**row, **ours}, rounds
                runs |= {key: found[label, seed]} if (label, seed) in found else {}
        if isinstance(loaded, Comparison):
            texts = zip(loaded.summary["variant"], loaded.summary["overrides"], strict=True)
            overrides |= {labels[label]: text for label, text in texts if label in labels}
    table = run_table(rows.values())
    return table, summarise(table, overrides), [(label, run) for (label, _), run in runs.items()]


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the folders' paths that tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names


def _label(label: str, source: str, config: Any, taken: dict[str, list[Any]]) -> str:
    """The label, with the folder's name where another folder's variant of that label has another config."""
    known = taken.setdefault(label, [config, source])
    if known[1] == source or (config is not None and known[0] == config):
        return label
    return f"{label} ({source})"


def _config(runs: dict[tuple[str, int], Run], label: str) -> dict[str, Any] | None:
    """What decides a variant's results, whatever the seed and the machine; None where no run folder says it."""
    found = next((run.config for (own, _), run in runs.items() if own == label), {})
    return {key: value for key, value in found.items() if key not in ("seed", "runtime", "compare")} or None

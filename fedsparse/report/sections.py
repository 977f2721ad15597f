"""What a page shows: the runs of one or several folders, sorted into sections of one data set and metric."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fedsparse import columns
from fedsparse.errors import InputError
from fedsparse.measures import run_table, summarise
from fedsparse.results import Comparison, Run, load, run_row

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


def collect(folders: Sequence[Path]) -> list[Section]:
    """What the page shows: one section for each data set and metric, for numbers of two of them share no axis."""
    if len(folders) == 1:
        loaded = load(folders[0])
        runs = [(run.label, run) for run in _runs(loaded)]
        table = loaded.table if isinstance(loaded, Comparison) else _table_of(loaded)
        # A page of one run shows what it has, finished or not.
        summary = loaded.summary if isinstance(loaded, Comparison) else summarise(table.assign(status=columns.DONE))
    else:
        table, summary, runs = _merge(folders)
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


def _table_of(loaded: Run | Comparison) -> pd.DataFrame:
    return run_table([(run_row(loaded), loaded.rounds)]) if isinstance(loaded, Run) else loaded.table


def _merge(folders: Sequence[Path]) -> tuple[pd.DataFrame, pd.DataFrame, Labelled]:
    """One table, summary and list of runs from several folders; a run that is there twice counts once."""
    pairs: dict[tuple[str, int], tuple[dict[str, Any], pd.DataFrame]] = {}
    runs: dict[tuple[str, int], Run] = {}
    overrides: dict[str, str] = {}
    names = _names(folders)
    configs: dict[str, list[Any]] = {}
    for folder, name in zip(folders, names, strict=True):
        loaded = load(folder)
        table = _table_of(loaded)
        found = {(run.label, int(run.summary["seed"])): run for run in _runs(loaded)}
        labels = {
            str(label): _label(str(label), name, _config(found, str(label)), configs) for label in table["variant"]
        }
        for row in table.to_dict("records"):
            label, seed = str(row["variant"]), int(row["seed"])
            run = found.get((label, seed))
            rounds = columns.frame([], columns.ROUNDS) if run is None else run.rounds
            key = labels[label], seed
            if key not in pairs:
                pairs[key] = {**{str(k): v for k, v in row.items()}, "variant": labels[label], "source": name}, rounds
                runs.update({} if run is None else {key: run})
        if isinstance(loaded, Comparison):
            texts = zip(loaded.summary["variant"], loaded.summary["overrides"], strict=True)
            overrides |= {labels[label]: text for label, text in texts if label in labels}
    table = run_table(pairs.values())
    known = pd.Series([keys.get(columns.MB_TO_TARGET) for keys, _ in pairs.values()], dtype=columns.FLOAT)
    table[columns.MB_TO_TARGET] = table[columns.MB_TO_TARGET].fillna(known)  # of runs whose folders were not kept
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
    path = next((run.folder / "config.toml" for (own, _), run in runs.items() if own == label), None)
    if path is None or not path.is_file():
        return None
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}.") from None
    return {key: value for key, value in found.items() if key not in ("seed", "runtime", "compare")}

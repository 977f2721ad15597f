"""What runs left behind: `load` a folder and get a `Run` or a `Comparison` with tidy tables."""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fedsparse import columns
from fedsparse.errors import InputError
from fedsparse.measures import final_of, run_table, summarise

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Comparison", "Run", "final_of", "load", "write_comparison"]

MASK = ".__mask__"
"""In `model.safetensors`, the mask of tensor NAME is the uint8 tensor NAME + MASK."""


class Run:
    """One run's folder: `info` is its run.json; tables are read when asked for, also while the run goes on."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.info: dict[str, Any] = _read_json(self.folder / "run.json")

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}: {self.label}, seed {self.info.get('seed')}, {self.info.get('status')})"

    @property
    def label(self) -> str:
        """The variant's name in tables and figures."""
        return str(self.info.get("variant") or self.info.get("strategy") or self.folder.name)

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.toml as a dictionary; empty where it is not there."""
        path = self.folder / "config.toml"
        try:
            return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (OSError, ValueError) as error:
            raise InputError(f"{str(path)!r} cannot be read: {error}.") from None

    @cached_property
    def rounds(self) -> pd.DataFrame:
        """One row a round; columns: `columns.ROUNDS`."""
        return _read_table(self.folder, "rounds")

    @cached_property
    def clients(self) -> pd.DataFrame:
        """One row a client task; columns: `columns.CLIENTS`."""
        return _read_table(self.folder, "clients")

    @cached_property
    def messages(self) -> pd.DataFrame:
        """The ledger, one row a message; columns: `columns.MESSAGES`."""
        return _read_table(self.folder, "messages")

    @cached_property
    def layers(self) -> pd.DataFrame:
        """One row a round and maskable layer; columns: `columns.LAYERS`."""
        return _read_table(self.folder, "layers")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """run.json's keys, all of them; what an unfinished run has not booked yet is computed from its rounds."""
        info = {**dict.fromkeys(columns.RUN_KEYS), "variant": self.label, "strategy": self.label, **self.info}
        rounds = self.rounds
        total = int(info["rounds"] or len(rounds))
        so_far: dict[str, Any] = {
            "seed": 0,
            "rounds": total,
            "higher_is_better": True,
            "final": final_of(rounds, total, "metric"),
            "final_personal": final_of(rounds, total, "metric_personal"),
            "bytes_up": int(rounds["bytes_up"].sum()),
            "bytes_down": int(rounds["bytes_down"].sum()),
            "density": float(rounds["density"].iloc[-1]) if len(rounds) else math.nan,
            "seconds": float(rounds["seconds"].sum()),
            "sim_seconds": float(rounds["sim_seconds"].sum(min_count=1)),
            "status": columns.RUNNING,
        }
        return {**info, **{key: value for key, value in so_far.items() if info[key] is None}}

    def model(self, client: int | None = None) -> nn.Module:
        """The final global model, or with `client` that client's own where the strategy has no global one.

        It is rebuilt from `config.toml`, data included, since the data decide the shape of its first and last layer.
        Raises InputError when the folder has no such weights.
        """
        weights, masks = _weights(self, client)
        from fedsparse.experiment import Experiment
        from fedsparse.federation import Federation
        from fedsparse.payload import Payload

        experiment = Experiment.load(self.folder / "config.toml")
        return Federation.build(experiment).module(Payload(weights=weights, masks=masks)).cpu()


class Comparison:
    """A folder of runs: `.runs`, `.table` (a row a run: comparison.csv), `.summary` (a row a variant: summary.csv)."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def __repr__(self) -> str:
        return f"Comparison({str(self.folder)!r}: {len(self.runs)} runs)"

    @cached_property
    def runs(self) -> list[Run]:
        """The run folders inside, in the order of `comparison.csv`, without one by label (FedAvg first) and seed."""
        found = [Run(path.parent) for path in self.folder.glob("*/run.json")]
        order: dict[tuple[str, int], int] = {}
        if (path := self.folder / "comparison.csv").is_file():
            listed = _read_csv(path, columns.COMPARISON, columns.MEASURED)
            order = {key: i for i, key in enumerate(zip(listed["variant"], listed["seed"], strict=True))}

        def place(run: Run) -> tuple[int, bool, str, int]:
            seed = int(run.summary["seed"])
            return order.get((run.label, seed), len(order)), run.label != "fedavg", run.label, seed

        return sorted(found, key=place)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a run; recomputed from the run folders where `comparison.csv` was not written yet."""
        path = self.folder / "comparison.csv"
        if not path.is_file():
            return run_table((run_row(run), run.rounds) for run in self.runs)
        found = _read_csv(path, columns.COMPARISON, columns.MEASURED)
        # What an older version did not measure is measured now, as far as run folders were kept.
        return found if set(columns.MEASURED) <= set(found) else run_table(with_rounds(found, self.runs))

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row a variant; see `measures.summarise`."""
        path = self.folder / "summary.csv"
        if not path.is_file():
            return summarise(self.table)
        found = _read_csv(path, columns.SUMMARY, columns.SUMMARY.keys() - {"variant", "overrides"})
        overrides = dict(zip(found["variant"], found["overrides"], strict=True))
        return found if set(columns.SUMMARY) <= set(found) else summarise(self.table, overrides)


def load(folder: str | Path) -> Run | Comparison:
    """The run or comparison in a folder; InputError when it holds neither."""
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"There is no folder {str(path)!r}: give the folder of a run or of a comparison.")
    if (path / "run.json").is_file():
        return Run(path)
    if (path / "comparison.csv").is_file() or any(path.glob("*/run.json")):
        return Comparison(path)
    raise InputError(
        f"{str(path)!r} is neither a run (no run.json) nor a comparison (no comparison.csv, no run folders)."
    )


def write_comparison(
    folder: str | Path, runs: Iterable[Run], overrides: Mapping[str, str] | None = None, budget: str | None = None
) -> Comparison:
    """Write `comparison.csv` and `summary.csv` of these runs, failed ones too; returns the comparison as it is on disk.

    Rows stand by variant, in the order of first runs, then by seed. `overrides`: by label, what its config changes.
    `budget`: `compare.budget`; None is what each run's own config says.
    """
    found = list(runs)
    first = {run.label: place for place, run in reversed(list(enumerate(found)))}
    found.sort(key=lambda run: (first[run.label], run.summary["seed"]))
    asked = {} if budget is None else {columns.BUDGET: budget}
    table = run_table((run_row(run) | asked, run.rounds) for run in found)
    _write_csv(table, Path(folder) / "comparison.csv")
    _write_csv(summarise(table, overrides), Path(folder) / "summary.csv")
    return Comparison(folder)


def run_row(run: Run) -> dict[str, Any]:
    """A run's cells of `comparison.csv`: text or numbers, objects (versions) as JSON."""
    row = {k: json.dumps(v, sort_keys=True) if isinstance(v, dict | list) else v for k, v in run.summary.items()}
    compare = run.config.get("compare")
    return row | {columns.BUDGET: compare.get(columns.BUDGET) if isinstance(compare, dict) else None}


def with_rounds(table: pd.DataFrame, runs: Iterable[Run]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """The rows of a `comparison.csv`, each with its run's `rounds`: none where the folder was not kept."""
    kept = {(run.label, int(run.summary["seed"])): run for run in runs}
    for row in table.to_dict("records"):
        run = kept.get((str(row["variant"]), int(row["seed"])))
        yield {str(k): v for k, v in row.items()}, columns.frame([], columns.ROUNDS) if run is None else run.rounds


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} cannot be read as JSON: {error}.") from None
    if not isinstance(found, dict):
        raise InputError(f"{str(path)!r} does not hold a JSON object with a run's keys.")
    return found


def _read_table(folder: Path, name: str) -> pd.DataFrame:
    path = folder / f"{name}.parquet"
    try:
        if path.is_file():
            return columns.frame(pd.read_parquet(path), columns.TABLES[name])
        path = path.with_suffix(".jsonl")
        return columns.read_jsonl(path, name)
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} cannot be read as a table of {name}: {error}.") from None


def _read_csv(path: Path, types: Mapping[str, str], later: Container[str] = ()) -> pd.DataFrame:
    """Exact: text stays text (a commit may look like a number), floats come back bit for bit, an empty cell is null.

    Columns of `later`, which came with a later version, may lack; those of the virtual clock are null then.
    """
    try:
        text = pd.read_csv(path, dtype=columns.STR, keep_default_na=False, na_values=[""])
        unclocked = [name for name in types if name.startswith(columns.SIM) and name not in text]
        text = text.assign(**dict.fromkeys(unclocked, math.nan))
        types = {name: kind for name, kind in types.items() if name in text or name not in later}
        types = {**types, **{str(name): columns.FLOAT for name in text.columns if name not in types}}
        found = pd.DataFrame({name: _typed(text[name], kind) for name, kind in types.items()})
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} cannot be read as a table: {error}.") from None
    except KeyError as error:
        raise InputError(f"{str(path)!r} has no column {error}.") from None
    return found.fillna({name: "" for name in ("overrides", columns.BUDGET) if name in found})


def _typed(cells: pd.Series, kind: str) -> pd.Series:
    return cells == "True" if kind == columns.BOOL else cells.astype(kind)


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    table.to_csv(draft, index=False, lineterminator="\n")
    os.replace(draft, path)


def _weights(run: Run, client: int | None) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors.torch import load_file

    from fedsparse.payload import Bits

    path = run.folder / "model.safetensors"
    if not path.is_file():
        raise InputError(f"{str(run.folder)!r} has no model.safetensors: the run has not ended, or it was left out.")
    stored = load_file(path)
    if client is None and any(name.startswith("client/") for name in stored):
        name = run.info.get("strategy")
        raise InputError(f"The strategy {name!r} has no global model: ask for a client's own, model(client=0).")
    prefix = "" if client is None else f"client/{client}/"
    own = {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)}
    if not own:
        raise InputError(f"{str(path)!r} has no model of client {client}.")
    masks = {name.removesuffix(MASK): Bits(tensor.bool()) for name, tensor in own.items() if name.endswith(MASK)}
    return {name: tensor for name, tensor in own.items() if not name.endswith(MASK)}, masks

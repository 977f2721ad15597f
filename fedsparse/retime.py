"""A run's simulated time, task by task, from what it booked; also on other devices, without running it again.

Who trained, how long the run waited for clients, and which replies were late or lost stay as the run had them then;
what changes is how long each client's task takes.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from fedsparse import columns, devices, registry, settings
from fedsparse.clock import client_seconds
from fedsparse.errors import InputError
from fedsparse.experiment import Experiment
from fedsparse.measures import run_table, summarise
from fedsparse.options import Options
from fedsparse.results import Comparison, Run, load, with_rounds
from fedsparse.sections import Clock, Device, add_up
from fedsparse.sentences import sentences

TINY = 1e-6
"""Seconds that are nothing but rounding."""
TASK = ["round", "phase", "client"]
WHOLE = TASK[:2]
CAME, LACK = ("ok", "refused"), ("late", "lost")
STEPS = ["download", "compute", "upload"]
PARTS = ["waiting", *STEPS, "missing"]
"""A round's time: until clients are ready, the last reply's, and for replies that did not come."""


class Network(Options):
    """Devices and clock, with the keys of an experiment."""

    devices: dict[str, Device]
    """Tiers of devices."""
    clock: Clock = Clock()
    """The clock; none written is the run's own."""

    @classmethod
    def read(cls, source: str | Path) -> Network:
        """The network of a TOML file. Raises InputError."""
        path = Path(source).expanduser()
        if not path.is_file():
            raise InputError(f"There is no file {path.absolute()}.")
        return cls._of(settings.read(path))

    @classmethod
    def of(cls, run: Run) -> Network:
        """The network that a run's config names."""
        return cls._of({key: run.config[key] for key in cls.model_fields if key in run.config})

    @classmethod
    def _of(cls, table: dict[str, Any]) -> Network:
        try:
            found = cls.model_validate_json(json.dumps(table, default=str), strict=True)
        except ValidationError as error:
            raise InputError(" ".join(sentences(error, cls, table))) from None
        add_up(found.devices)
        return found


class Retimed(Run):
    """A run on other devices: new `device` and `sim_seconds`, the rest as it was."""

    def __init__(self, run: Run, network: Network) -> None:
        super().__init__(run.folder)
        self.run, self.network = run, network
        self.info = {**self.info, "sim_seconds": None}  # summed up anew
        if run.rounds.empty or run.clients["flops"].isna().all():
            raise InputError(f"{str(run.folder)!r} has no operations booked: its time on other devices is not known.")

    @cached_property
    def config(self) -> dict[str, Any]:
        """The run's, with the other devices and clock."""
        return {**self.run.config, **self.network.model_dump(mode="json", exclude_unset=True)}

    @cached_property
    def clients(self) -> pd.DataFrame:
        """As the run has them, on the other devices."""
        table = self.run.clients
        dealt = devices.assign(self.network.devices, _clients(self.run), _seed(self.run))
        seconds = self.tasks["sim_seconds"].reindex(table.index)
        return table.assign(device=[dealt[client] for client in table["client"]], sim_seconds=seconds)

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """`tasks` on these devices."""
        return tasks(self)

    @cached_property
    def rounds(self) -> pd.DataFrame:
        """As the run has them, with the new times."""
        parts, table = round_parts(self), self.run.rounds
        new = parts[["waiting", "sim_seconds"]].reindex(table["round"]).to_numpy()
        return table.assign(sim_wait=new[:, 0], sim_seconds=new[:, 1])


class RetimedComparison(Comparison):
    """A comparison on other devices; a run whose folder was not kept has no simulated time."""

    def __init__(self, comparison: Comparison, network: Network) -> None:
        super().__init__(comparison.folder)
        self.comparison, self.network = comparison, network

    @cached_property
    def runs(self) -> list[Run]:
        """The runs, on the other devices."""
        return [Retimed(run, self.network) if len(run.rounds) else run for run in self.comparison.runs]

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a run."""
        return run_table(self._rows())

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row a variant."""
        known = self.comparison.summary
        return summarise(self.table, dict(zip(known["variant"], known["overrides"], strict=True)))

    def _rows(self) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
        unknown = {name: math.nan for name in columns.COMPARISON if name.startswith(columns.SIM)}
        for row, rounds in with_rounds(self.comparison.table.assign(**unknown), self.runs):
            yield row | {"sim_seconds": rounds["sim_seconds"].sum(min_count=1)}, rounds


def retimed(found: Run | Comparison, network: Network) -> Run | Comparison:
    """The same on other devices."""
    return Retimed(found, network) if isinstance(found, Run) else RetimedComparison(found, network)


def load_retimed(folder: str | Path, devices: str | Path) -> Run | Comparison:
    """The run or comparison in a folder as the clock would have it on the devices of a TOML file: `[devices.NAME]`."""
    return retimed(load(folder), Network.read(devices))


def beside(own: Run | Comparison, other: Run | Comparison) -> pd.DataFrame:
    """Simulated seconds, mean over the seeds, by variant: `own` as the run was, `other` on other devices."""
    return pd.DataFrame({"own": _by_variant(own), "other": _by_variant(other)})


def _by_variant(found: Run | Comparison) -> pd.Series:
    if isinstance(found, Run):
        return pd.Series({found.label: found.summary["sim_seconds"]}, dtype=float)
    return found.summary.set_index("variant")["sim_seconds_mean"]


def steered(runs: Iterable[Run]) -> list[str]:
    """Labels of the variants whose strategy looks at devices or at the clock."""
    return list(dict.fromkeys(run.label for run in runs if _steers(run)))


def _steers(run: Run) -> bool:
    try:
        strategy = registry.find("strategies", run.config["strategy"]["name"])
    except (InputError, KeyError, TypeError):  # a user's file that is gone, a config that says nothing
        return False
    return bool(strategy.steers)


def profiles(run: Run) -> list[devices.Profile]:
    """What each client's device can do, by the run's config. Raises InputError where that cannot be told."""
    return devices.profiles(Network.of(run).devices, _clients(run), _seed(run))


def tasks(run: Run) -> pd.DataFrame:
    """A row a training task: `TASK`, `status`, the seconds of each of `STEPS`, `sim_seconds`; indexed as `clients`.

    Tasks without operations booked are left out.
    """
    base = run.run if isinstance(run, Retimed) else run
    sent: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for *key, length in _cells(base.messages, *TASK, "direction", "bytes"):
        sent[tuple(key)].append(length)
    own = base.clients[(base.clients["phase"] != columns.EVALUATE) & base.clients["flops"].notna()]
    able, rows = profiles(run), []
    for *key, flops, sparse in _cells(own, *TASK, "flops", "flops_sparse"):
        took = client_seconds(able[key[-1]], sent[*key, "down"], flops, sparse, sent[*key, "up"])
        rows.append((took.down, took.compute, took.up, took.total))
    times = pd.DataFrame(rows, columns=[*STEPS, "sim_seconds"], index=own.index, dtype=float)
    return pd.concat([own[[*TASK, "status"]], times], axis=1)


def _cells(table: pd.DataFrame, *names: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(table[name].tolist() for name in names), strict=True)


def round_parts(run: Run) -> pd.DataFrame:
    """What each round's time is made of: by round `PARTS`, their sum `sim_seconds`, and the `client` that was last.

    A round is the sum of its tasks. On other devices a task with late or lost replies lasts until the deadline, or,
    without one, until all of them are known to be missing; where the first so many replies ended it, they still do.
    """
    base, took = (run.run, run.tasks) if isinstance(run, Retimed) else (run, tasks(run))
    rounds, last = base.rounds.set_index("round"), _last(took)
    parts = last.groupby("round")[STEPS].sum().reindex(rounds.index, fill_value=0.0)
    parts["waiting"] = rounds["sim_wait"].fillna(0.0)
    if isinstance(run, Retimed):
        missing = _missing(run).groupby("round").sum().reindex(rounds.index, fill_value=0.0)
    else:
        replied = _last(base.clients[base.clients["sim_seconds"].notna()]).groupby("round")["sim_seconds"].sum()
        missing = rounds["sim_seconds"] - parts["waiting"] - replied.reindex(rounds.index, fill_value=0.0)
    parts["missing"] = missing.where(missing > TINY, 0.0)
    parts["sim_seconds"] = parts[PARTS].sum(axis=1)
    return parts.assign(client=last.groupby("round")["client"].last())


def _missing(run: Retimed) -> pd.Series:
    """By round and phase, the seconds that the server waits for late and lost replies after the last one that came."""
    base, clock = Network.of(run.run).clock, Network.of(run).clock
    came, lacking = (run.tasks[run.tasks["status"].isin(kinds)].groupby(WHOLE)["sim_seconds"] for kinds in (CAME, LACK))
    given_up = lacking.max()
    if clock.deadline:
        given_up[:] = clock.deadline
    seen = pd.DataFrame({"count": came.size(), "last": came.max()}).reindex(given_up.index, fill_value=0.0)
    early = (seen["count"] >= _wanted(run)) & (base.over_selection > 0)
    return (given_up - seen["last"]).clip(lower=0.0).where(~early, 0.0)


def _wanted(run: Run) -> int:
    """How many clients a round is to have: with over-selection so many replies end a task."""
    asked = {"clients_per_round": run.config.get("clients_per_round", "all")}
    return Experiment.model_construct(**asked).cohort_size(_clients(run))


def _last(tasks: pd.DataFrame) -> pd.DataFrame:
    """Of the replies that came in time, the last one of each round and phase."""
    came = tasks[tasks["status"].isin(CAME) & (tasks["phase"] != columns.EVALUATE)]
    return came.loc[came.groupby(WHOLE, sort=False)["sim_seconds"].idxmax()]


def _clients(run: Run) -> int:
    """How many clients there are: where the data decided it, all of them were evaluated."""
    booked = run.run.clients if isinstance(run, Retimed) else run.clients
    return int(run.config.get("clients") or booked["client"].max() + 1)


def _seed(run: Run) -> int:
    return int(run.info.get("seed") or 0)

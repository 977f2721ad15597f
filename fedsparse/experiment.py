"""An experiment: everything that decides what a run does, checked, with all defaults filled in, and as text again.

    exp = Experiment.load("quickstart", ["strategy=feddip", "strategy.density=0.05"], rounds=10)
    exp.strategy.build()      # the strategy with its options
    exp.to_toml()             # runnable again as it stands

The same experiment always has the same text, and that text is what server and workers build a federation from.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from fedsparse import registry, settings
from fedsparse.errors import InputError
from fedsparse.options import Count, Options, Share, Whole
from fedsparse.sections import (
    Choice,
    Clock,
    Compare,
    DatasetChoice,
    Device,
    ModelChoice,
    PartitionChoice,
    Runtime,
    StrategyChoice,
    Train,
    Wire,
    add_up,
)
from fedsparse.sentences import sentences
from fedsparse.settings import Table

BASELINE = "fedavg"
"""The strategy, and the variant's label, that a comparison is measured against."""

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Experiment(Options):
    """A whole experiment, every default filled in. Make one with `Experiment.load`."""

    rounds: Count = 40
    """Rounds, counted from 1."""
    clients: Count | None = 20
    """Clients; none where the data says how many there are."""
    clients_per_round: Count | Share | Literal["all"] = "all"
    """Clients that train in a round: a number, or a share of all."""
    seed: Whole = 0
    """What everything random is drawn from."""
    eval_every: Count = 1
    """Rounds between evaluations; the last round is always evaluated."""
    local_bn: bool = False
    """Whether BatchNorm stays on the client."""
    dataset: DatasetChoice
    partition: PartitionChoice
    model: ModelChoice
    strategy: StrategyChoice
    train: Train = Train()
    wire: Wire = Wire()
    devices: dict[str, Device] = {"default": Device()}
    clock: Clock = Clock()
    runtime: Runtime = Runtime()
    compare: Compare = Compare()

    @classmethod
    def load(
        cls, source: str | Path | Mapping[str, Any] | Experiment, sets: Iterable[str] = (), **overrides: Any
    ) -> Experiment:
        """The experiment of a path, a shipped config's name, TOML text, a dictionary or an Experiment, with changes.

        `sets` are strings KEY=VALUE with dotted keys and TOML values; `overrides` the same as keywords, nested as
        dictionaries (`strategy="feddip"` is its name, None goes back to the default). Raises InputError.
        """
        if not isinstance(source, str | Path | Mapping | Experiment):
            raise InputError(f"A config is a path, a shipped name, a dictionary or an Experiment, not {source!r}.")
        changes = settings.merge(settings.parse_sets(sets), settings.normal(overrides), drop=False)
        if isinstance(source, cls) and not changes:
            return source
        table = source._written() if isinstance(source, Experiment) else settings.read(source)
        return _resolve(cls, settings.merge(settings.merge({}, settings.normal(table)), changes))

    # ---- as text ----

    def table(self) -> Table:
        """As a config has it, defaults included."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        table: Table = {name: value for name, value in fields.items() if value is not None}
        for name, value in table.items():
            if isinstance(value, Choice):
                table[name] = value.table()
            elif isinstance(value, Options):
                table[name] = value.model_dump(mode="json")
        if not self.compare.variants:
            del table["compare"]["variants"]
        return table | {"devices": {name: device.model_dump() for name, device in self.devices.items()}}

    def _written(self) -> Table:
        """The table without a number of clients that is just the default: a natural partition may come in its place."""
        return {k: v for k, v in self.table().items() if k != "clients" or k in self.model_fields_set}

    def to_toml(self) -> str:
        """The whole experiment, runnable again as it stands. The same experiment has the same text."""
        return settings.emit(self.table())

    def hash(self) -> str:
        """SHA-256 of everything that changes a run's results: not of [runtime], [compare] and where files lie."""
        table = {key: value for key, value in self.table().items() if key not in ("runtime", "compare")}
        for key in settings.PLUGS:
            table[key] = table[key] | {"name": registry.fingerprint(table[key]["name"])}
        table["partition"] |= settings.contents(table["partition"])
        table["devices"] = {name: tier | settings.contents(tier) for name, tier in table["devices"].items()}
        return hashlib.sha256(settings.emit(table).encode()).hexdigest()

    # ---- what follows from it ----

    def cohort_size(self, clients: int) -> int:
        """How many of `clients` clients train in a round, at least one; InputError when there are not so many."""
        wanted = self.clients_per_round
        if wanted == "all":
            return clients
        if isinstance(wanted, float):
            return max(1, int(wanted * clients + 0.5))
        if wanted > clients:
            raise InputError(f"clients_per_round must be at most the number of clients, {clients}, not {wanted}.")
        return wanted

    def with_seed(self, seed: int) -> Experiment:
        """The same with another seed."""
        return self.model_copy(update={"seed": seed})

    def seeds(self) -> range:
        """The seeds of a comparison."""
        return range(self.seed, self.seed + self.compare.seeds)

    def labels(self) -> list[str]:
        """The labels of a comparison's variants, in the order of its table."""
        return list(self._changes())

    def variant(self, label: str) -> Experiment:
        """One variant of a comparison as an experiment of its own."""
        changes = self._changes()
        if label not in changes:
            raise InputError(
                f'There is no variant "{label}"{registry.nearest(label, changes)}; allowed: {", ".join(changes)}.'
            )
        try:
            # The budget goes along, so that reports of the runs know it.
            return Experiment.load(self._written() | {"compare": {"budget": self.compare.budget}}, **changes[label])
        except InputError as error:
            raise InputError(f"In the variant {label}: {error}") from error

    def variants(self) -> dict[str, Experiment]:
        """Every variant of a comparison by its label; FedAvg is among them."""
        if (budget := self.compare.budget) not in ("", *(known := self.labels())):
            near = registry.nearest(budget, known)
            raise InputError(f'compare.budget must be a variant, not "{budget}"{near}; allowed: {", ".join(known)}.')
        return {label: self.variant(label) for label in self.labels()}

    def overrides(self, label: str) -> str:
        """What a variant changes, for people: its strategy's options that are not defaults, every other changed key."""
        variant = self.variant(label)
        strategy = type(variant.strategy.build())
        plain = _dump(strategy())
        told = {k: v for k, v in variant.strategy.options.items() if v != plain.get(k)}
        base = settings.flat(self.table() | {"strategy": {}, "compare": {}})
        now = settings.flat(variant.table() | {"strategy": {}, "compare": {}})
        told |= {k: v for k, v in now.items() if v != base.get(k)}
        return ", ".join(f"{key} = {settings.shown(value)}" for key, value in told.items())

    def _changes(self) -> dict[str, Table]:
        """Changes of this experiment by variant."""
        named = self.compare.strategies or (() if self.compare.variants else (self.strategy.name,))
        found = {registry.label(name): {"strategy": {"name": name}} for name in named}
        found |= self.compare.variants
        return found if BASELINE in found else {BASELINE: {"strategy": {"name": BASELINE}}} | found


# ---- from tables ----


def _resolve(cls: type[Experiment], table: Table) -> Experiment:
    wrong: list[str] = []
    raw = dict(table)
    for key in settings.PLUGS:
        try:
            raw[key] = _choice(key, table.get(key, {}))
        except InputError as error:
            wrong.append(str(error))
            raw[key] = {"name": ""}  # so that what else is wrong is found too
    if "clients" not in raw and not wrong and _natural(raw["partition"]["name"]):
        raw["clients"] = None
    try:
        # As JSON because strict Python takes no list for a tuple; strict because "3" is no number and true no 1.
        experiment = cls.model_validate_json(_json(raw), strict=True)
    except ValidationError as error:
        wrong = sentences(error, cls, raw) + wrong
    if wrong:
        raise InputError(" ".join(wrong))
    _check(experiment)
    return experiment


def _choice(key: str, table: Any) -> Table:
    """A plug-in's table as name and options, checked by its class, defaults filled in."""
    kind = settings.PLUGS[key]
    if not isinstance(table, Mapping):
        raise InputError(f"{key} must be a table or a name, not {settings.shown(table)}.")
    name = table.get("name", settings.DEFAULT_NAMES.get(key))
    if not isinstance(name, str):
        given = "is required" if name is None else f"must be a text, not {settings.shown(name)}"
        raise InputError(f"{key}.name {given}; allowed: {', '.join(registry.names(kind))}, path/to/file.py:Name.")
    common = {k: table[k] for k in settings.COMMON.get(key, ()) if k in table}
    options = {k: v for k, v in table.items() if k != "name" and k not in common}
    plugin = registry.find(kind, name)
    try:
        built = plugin.model_validate_json(_json(options), strict=True)
    except ValidationError as error:
        beside = ("name", *settings.COMMON.get(key, ()))
        raise InputError(" ".join(sentences(error, plugin, options, f"{key}.", beside))) from None
    return {"name": name, **common, "options": _dump(built)}


def _dump(options: Options) -> Table:
    # TOML has no null: an option that is None is left to its default.
    return options.model_dump(mode="json", exclude_none=True)


def _json(table: Table) -> str:
    # NumPy's numbers and arrays, paths and dates come from Python callers and TOML.
    return json.dumps(table, default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value))


def _natural(partition: str) -> bool:
    """Whether the data say how many clients there are."""
    return bool(getattr(registry.find("partitions", partition), "natural", False))


def _check(experiment: Experiment) -> None:
    """What no single key can tell."""
    if experiment.clients is not None:
        experiment.cohort_size(experiment.clients)
    add_up(experiment.devices)
    compare = experiment.compare
    if compare == Compare(seeds=compare.seeds, budget=compare.budget):
        return
    named = [registry.label(name) for name in experiment.compare.strategies]
    for label in (labels := [*named, *experiment.compare.variants]):
        if not _LABEL.fullmatch(label):
            raise InputError(
                f'The label "{label}" in compare must begin with a letter or digit and consist of at most '
                f"64 letters, digits, '.', '_' and '-', because it names a folder."
            )
        # Folders of some systems do not tell cases apart.
        if [other.lower() for other in labels].count(label.lower()) > 1:
            raise InputError(f'The label "{label}" stands in compare more than once, capitals aside.')
    for label, changes in experiment.compare.variants.items():
        for key in ("compare", "runtime", "seed"):
            if key in changes:
                raise InputError(
                    f"The variant {label} in compare.variants cannot have a key {key}: all variants share it."
                )
    variants = experiment.variants()
    if variants[BASELINE].strategy.name != BASELINE:
        raise InputError(f'The label "{BASELINE}" in compare is kept for the strategy {BASELINE}.')

"""What an experiment's split and devices look like, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsparse import devices, folder, settings
from fedsparse.data import Data
from fedsparse.experiment import Experiment
from fedsparse.profiles import ALWAYS, Profile
from fedsparse.split import Indices, Parts
from fedsparse.split import parts as divide

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("train", "validation", "test")
QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
_EIGHTHS = "·▁▂▃▄▅▆▇█"
_BINS = 40
SLOT = 120
"""Seconds of a step in the picture of who is ready when."""


@dataclass(frozen=True)
class Split:
    """How data come to clients.

    `table` has a row a client: `client`, `name` where clients have one, `device`, samples as `train, validation, test`;
    for labels `classes, class_0, class_1, ...`, for a regression `mean, sd, q05, q25, median, q75, q95` of the targets
    in their own unit. `rows` has a row a sample: `client, row, part`; as a file it is what the partition `fixed` takes.
    """

    table: pd.DataFrame
    rows: pd.DataFrame
    classes: int | None
    heading: str
    details: tuple[str, ...]

    @property
    def named(self) -> bool:
        """Whether clients have names of their own."""
        return "name" in self.table

    def counts(self) -> np.ndarray:
        """Samples of each client (rows) and class (columns)."""
        return self.table[[f"class_{c}" for c in range(self.classes or 0)]].to_numpy()

    def bar(self, row: dict[str, Any]) -> str:
        """A client's label histogram as text, one character a class (or a few classes), high against its commonest."""
        counts = np.array([row[f"class_{c}"] for c in range(self.classes or 0)], dtype=float)
        binned = np.array([part.sum() for part in np.array_split(counts, min(len(counts), _BINS))])
        # Whoever has a single sample of a class is seen to have it.
        return "".join(_EIGHTHS[int(np.ceil(share * 8))] for share in binned / max(binned.max(), 1))


def split(experiment: Experiment) -> Split:
    """How the experiment's data come to its clients."""
    import pandas as pd

    data, partition = experiment.dataset.build().load(), experiment.partition.build()
    owned = partition.split(data, experiment.clients, experiment.seed)
    options = experiment.partition
    parts = divide(owned, data, options.validation, options.test, experiment.seed)
    names = partition.names(data)
    columns: dict[str, Any] = {
        "client": range(len(parts)),
        **({} if names is None else {"name": names}),
        "device": devices.assign(experiment.devices, len(parts), experiment.seed),
        **{use: [len(getattr(part, use)) for part in parts] for use in PARTS},
        **_targets(data, [np.concatenate([getattr(part, use) for use in PARTS]) for part in parts]),
    }
    table = pd.DataFrame(columns)
    totals = ", ".join(f"{table[use].sum():,} {use}" for use in PARTS)
    used = int(table[list(PARTS)].to_numpy().sum())
    gaps = sum(map(len, owned)) - used
    left_out = [partition.left_out(data), f"left out: {gaps:,} samples in the gaps between parts" if gaps else ""]
    return Split(
        table,
        pd.concat([_rows(names[c] if names else c, *both) for c, both in enumerate(zip(owned, parts, strict=True))]),
        data.classes,
        f"{experiment.dataset.label}: {used:,} samples on {len(parts)} client{'s' * (len(parts) != 1)}",
        (f"by {_options(experiment)}", totals + _official(data), *filter(None, left_out)),
    )


def _targets(data: Data, rows: list[Indices]) -> dict[str, Any]:
    """What stands in the table on the clients' targets."""
    if data.classes is None:
        own = [data.y[r].reshape(len(r), -1)[:, 0].double().numpy() * data.unit + data.zero for r in rows]
        spread = np.stack([np.quantile(targets, list(QUANTILES.values())) for targets in own])
        columns = {"mean": [targets.mean() for targets in own], "sd": [targets.std() for targets in own]}
        return columns | dict(zip(QUANTILES, spread.T, strict=True))
    counts = np.stack([np.bincount(data.y[r].reshape(-1).numpy(), minlength=data.classes) for r in rows])
    return {"classes": (counts > 0).sum(1)} | {f"class_{label}": counts[:, label] for label in range(data.classes)}


def _rows(client: Any, owned: Indices, parts: Parts) -> pd.DataFrame:
    import pandas as pd

    use = np.full(len(owned), "", dtype=object)  # a gap between two parts
    for part in PARTS:
        use[np.isin(owned, getattr(parts, part))] = part
    return pd.DataFrame({"client": client, "row": owned, "part": use})


def _options(experiment: Experiment) -> str:
    chosen = experiment.partition
    told = {k: Path(v).name if k in settings.PATHS else settings.shown(v) for k, v in chosen.options.items()}
    return ", ".join([chosen.label, *(f"{key} = {value}" for key, value in told.items()), f"seed {experiment.seed}"])


def _official(data: Data) -> str:
    return f"; official test set of {len(data.test[0]):,}" if data.test is not None else ""


# ---- devices ----


@dataclass(frozen=True)
class Fleet:
    """Which device each client has.

    `table` has a row a client: `client`, `device` (its tier), a profile's numbers by name (`memory` 0: no limit), and
    `ready`, the share of the first week. `shares` are the tiers' by name. `ready` (clients, slots of `SLOT` seconds)
    says who is ready at some moment of each `SLOT` of the first two days, None where all always are.
    """

    table: pd.DataFrame
    shares: dict[str, float]
    ready: np.ndarray | None
    heading: str
    details: tuple[str, ...]


def fleet(experiment: Experiment) -> Fleet:
    """The devices of the experiment's clients."""
    import pandas as pd

    clients = experiment.clients
    if clients is None:
        clients = len(experiment.partition.build().split(experiment.dataset.build().load(), clients, experiment.seed))
    asked = (experiment.devices, clients, experiment.seed)
    tiers, profiles = devices.assign(*asked), devices.profiles(*asked)
    week = range(0, 7 * 86400, 600)
    rows = [
        {"client": i, "device": tiers[i], **_numbers(own), "ready": sum(map(own.availability.ready, week)) / len(week)}
        for i, own in enumerate(profiles)
    ]
    shares = {name: tier.share for name, tier in experiment.devices.items()}
    mix = ", ".join(f"{name}: {tiers.count(name)}" for name in shares)
    heading = f"{clients} client{'s' * (clients != 1)} on {len(shares)} tier{'s' * (len(shares) != 1)} of devices"
    if all(own.availability == ALWAYS for own in profiles):
        return Fleet(pd.DataFrame(rows), shares, None, heading, (mix, "all ready at any time"))
    slots = range(0, 2 * 86400, SLOT)
    until = np.array([[own.availability.next(at) - at for at in slots] for own in profiles])
    ready, there = until < SLOT, (until == 0).sum(0)
    told = f"ready at a time: {there.min()} to {there.max()}, {there.mean():.3g} in the mean"
    if never := int((~ready.any(1)).sum()):
        told += f"; not once on the first two days: {never}"
    return Fleet(pd.DataFrame(rows), shares, ready, heading, (mix, told))


def _numbers(own: Profile) -> dict[str, Any]:
    numbers = {k: getattr(own, k) for k in ("flops", "down", "up", "latency", "memory", "dropout", "sparse_kernels")}
    return numbers | {"memory": 0.0 if np.isinf(own.memory) else own.memory}


# ---- files ----


def write(found: Split | Fleet, out: Path | None, name: str) -> list[Path]:
    """Tables and figures into a folder of their own, a new one under runs/ where `out` is None; what was written."""
    if isinstance(found, Fleet):
        from fedsparse.cli import mix

        picture = mix.draw(found)
        place = folder.claim(out, name)
        found.table.to_csv(place / "devices.csv", index=False)
        (place / "devices.png").write_bytes(picture)
        return [place / "devices.csv", place / "devices.png"]
    from fedsparse.cli import drawing

    picture = drawing.draw(found)
    place = folder.claim(out, name)
    found.table.to_csv(place / "data.csv", index=False)
    found.rows.to_csv(place / "partition.csv", index=False)
    drawn = place / ("target_distribution.png" if found.classes is None else "label_distribution.png")
    drawn.write_bytes(picture)
    return [place / "data.csv", place / "partition.csv", drawn]

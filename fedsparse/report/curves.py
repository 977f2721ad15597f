"""What the figures draw of each variant: numbers over its seeds, by round, by MB, by layer, by client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fedsparse.columns import EVALUATE
from fedsparse.errors import InputError
from fedsparse.measures import cumulative_mb, cumulative_sim
from fedsparse.results import Run
from fedsparse.retime import PARTS, profiles, round_parts

DENSE = 0.999
"""A variant that keeps this share of every layer is not sparse."""


@dataclass(frozen=True)
class Variant:
    """What the figures show of one variant: its name, its strategy and the runs of its seeds."""

    label: str
    strategy: str
    runs: Sequence[Run] = ()


@dataclass(frozen=True)
class Curve:
    """Mean and spread over the seeds at each x: a round, MB or simulated seconds so far (their mean), or a layer."""

    x: np.ndarray
    mean: np.ndarray
    sd: np.ndarray


def curve(variant: Variant, column: str, against: str) -> Curve | None:
    """A column of `rounds` against `round`, `mb` or `time`, at the rounds that every seed has evaluated; None without.

    Against MB, x is the mean over the seeds of the training MB so far, both directions; against time, that of the
    simulated seconds so far, and None where a seed has no clock.
    """
    values, spent = [], []
    for run in variant.runs:
        ordered = run.rounds.sort_values("round").set_index("round")
        values.append(ordered[column].where(np.isfinite(ordered[column])))
        so_far = cumulative_sim(run.rounds) if against == "time" else cumulative_mb(run.rounds)
        spent.append(pd.Series(so_far.to_numpy(), index=ordered.index))
    found = _over_seeds(values)
    if found is None or against == "round":
        return found
    x = pd.concat(spent, axis=1).loc[found.x].mean(axis=1, skipna=False).to_numpy()
    return Curve(x, found.mean, found.sd) if np.isfinite(x).all() else None


def agreement(variant: Variant) -> Curve | None:
    """Agreement of the clients' masks by round, mean over the layers; None where they share one mask."""
    return _over_seeds([run.layers.groupby("round")["agreement"].mean() for run in variant.runs])


def layer_density(variant: Variant, layers: Sequence[str]) -> Curve | None:
    """Density of each layer at the end; x is the layer's place (from 1) among `layers`. None for a dense variant."""
    seeds = [_last(run.layers).set_index("layer")["density"].reindex(layers) for run in variant.runs]
    found = _over_seeds([pd.Series(seed.to_numpy(), index=range(1, len(layers) + 1)) for seed in seeds])
    return None if found is None or (found.mean >= DENSE).all() else found


def layer_names(variants: Sequence[Variant]) -> list[str]:
    """Every layer of these variants, in the models' order."""
    return list(dict.fromkeys(str(name) for v in variants for run in v.runs for name in _last(run.layers)["layer"]))


def client_metrics(variant: Variant) -> np.ndarray:
    """The metric of every client at the last evaluation, of all seeds together, sorted."""
    found = []
    for run in variant.runs:
        asked = run.clients[(run.clients["phase"] == EVALUATE) & run.clients["metric"].notna()]
        found.append(_last(asked)["metric"].to_numpy())
    pooled = np.concatenate([*found, np.empty(0)])
    return np.sort(pooled[np.isfinite(pooled)])


def timeless(variant: Variant) -> bool:
    """Whether a run of it has no clock."""
    return any(run.rounds["sim_seconds"].isna().any() for run in variant.runs)


def task_times(variant: Variant) -> pd.DataFrame:
    """`device` and `sim_seconds` of every client and round of training, of all seeds together.

    A client whose reply was lost is left out of that round: what it did is not known.
    """
    found = []
    for run in variant.runs:
        own = run.clients[run.clients["sim_seconds"].notna() & (run.clients["phase"] != EVALUATE)]
        work = own.assign(lost=own["status"] == "lost").groupby(["round", "client", "device"], as_index=False)
        rows = work.agg({"sim_seconds": "sum", "lost": "any"})
        found.append(rows[~rows["lost"]])
    return pd.concat([*found, pd.DataFrame(columns=["device", "sim_seconds"])])[["device", "sim_seconds"]]


def mix(variant: Variant) -> pd.DataFrame:
    """`device`, `flops` and `up` of every client of its first run; without rows where its devices are not known."""
    try:
        able = profiles(run := variant.runs[0])
    except InputError:  # a file of devices that is not here
        return pd.DataFrame(columns=["device", "flops", "up"])
    named = run.clients.drop_duplicates("client").set_index("client")["device"]
    rows = [(named[client], able[client].flops, able[client].up) for client in named.index]
    return pd.DataFrame(rows, columns=["device", "flops", "up"])


def round_time(variant: Variant) -> pd.Series | None:
    """Mean simulated seconds of a round by `retime.PARTS`, the device `who` replied last most often, and its `share`.

    None without a clock, or where its devices are not known.
    """
    found = []
    for run in variant.runs:
        try:
            parts = round_parts(run)
        except InputError:
            return None
        named = run.clients.drop_duplicates("client").set_index("client")["device"]
        found.append(parts.assign(who=parts["client"].map(named)))
    rounds = pd.concat(found)
    shares = rounds["who"].value_counts(normalize=True)
    if shares.empty:
        return None
    return pd.concat([rounds[PARTS].mean(), pd.Series({"who": shares.index[0], "share": shares.iloc[0]})])


def _last(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["round"] == table["round"].max()]


def _over_seeds(seeds: Sequence[pd.Series]) -> Curve | None:
    """Mean and spread at the places that every seed has a value for."""
    seen = pd.concat(seeds, axis=1).dropna() if len(seeds) else pd.DataFrame()
    if seen.empty:
        return None
    sd = seen.std(axis=1).fillna(0.0)
    return Curve(seen.index.to_numpy(float), seen.mean(axis=1).to_numpy(), sd.to_numpy())

"""What the figures draw of each variant: numbers over its seeds, by round, by MB, by layer, by client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fedsparse.columns import EVALUATE
from fedsparse.measures import cumulative_mb
from fedsparse.results import Run

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
    """Mean and spread over the seeds at each x: a round, the mean MB so far, or a layer's place."""

    x: np.ndarray
    mean: np.ndarray
    sd: np.ndarray


def curve(variant: Variant, column: str, against: str) -> Curve | None:
    """A column of `rounds` against `round` or `mb`, at the rounds that every seed has evaluated; None without any.

    Against MB, x is the mean over the seeds of the training MB so far, both directions.
    """
    values, traffic = [], []
    for run in variant.runs:
        ordered = run.rounds.sort_values("round").set_index("round")
        values.append(ordered[column].where(np.isfinite(ordered[column])))
        traffic.append(pd.Series(cumulative_mb(run.rounds).to_numpy(), index=ordered.index))
    found = _over_seeds(values)
    if found is None or against == "round":
        return found
    x = pd.concat(traffic, axis=1).loc[found.x].mean(axis=1)
    return Curve(x.to_numpy(), found.mean, found.sd)


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


def _last(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["round"] == table["round"].max()]


def _over_seeds(seeds: Sequence[pd.Series]) -> Curve | None:
    """Mean and spread at the places that every seed has a value for."""
    seen = pd.concat(seeds, axis=1).dropna() if len(seeds) else pd.DataFrame()
    if seen.empty:
        return None
    sd = seen.std(axis=1).fillna(0.0)
    return Curve(seen.index.to_numpy(float), seen.mean(axis=1).to_numpy(), sd.to_numpy())

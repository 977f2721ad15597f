"""What a figure draws of each variant: mean and spread over its seeds, its colour and its dashes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fedsparse.measures import BASELINE, cumulative_mb

INK, QUIET, GRID = "#1a1a1a", "#5c5c5c", "#e3e3e3"
DPI = 230
HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c510a")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))


@dataclass(frozen=True)
class Variant:
    """What the figures show of one variant: its name, its strategy and `rounds` and `messages` of each seed."""

    label: str
    strategy: str
    rounds: Sequence[pd.DataFrame]
    messages: Sequence[pd.DataFrame] = ()


@dataclass(frozen=True)
class Curve:
    """Mean and spread over the seeds at each evaluated round; x is the round or the mean MB so far."""

    x: np.ndarray
    mean: np.ndarray
    sd: np.ndarray


def curve(variant: Variant, column: str, against: str) -> Curve | None:
    """A column against `round` or `mb`, at the rounds that every seed has evaluated; None where there is none.

    Against MB, x is the mean over the seeds of the training MB so far, both directions.
    """
    values, traffic = [], []
    for rounds in variant.rounds:
        ordered = rounds.sort_values("round").set_index("round")
        values.append(ordered[column].where(np.isfinite(ordered[column])))
        traffic.append(pd.Series(cumulative_mb(rounds).to_numpy(), index=ordered.index))
    if not values:
        return None
    seen = pd.concat(values, axis=1).dropna()
    if seen.empty:
        return None
    x = pd.concat(traffic, axis=1).loc[seen.index].mean(axis=1) if against == "mb" else seen.index
    return Curve(np.asarray(x, float), seen.mean(axis=1).to_numpy(), seen.std(axis=1).fillna(0.0).to_numpy())


def looks(variants: Sequence[Variant]) -> dict[str, tuple[str, Any]]:
    """Colour and dashes by label: black for FedAvg, then the hues in turn, with other dashes each time round."""
    found: dict[str, tuple[str, Any]] = {}
    base = next((v.label for v in variants if v.label == BASELINE), None)
    base = base or next((v.label for v in variants if v.strategy == BASELINE), None)
    for variant in variants:
        i = len(found) - (base in found)
        look = (INK, "-") if variant.label == base else (HUES[i % len(HUES)], DASHES[i // len(HUES) % len(DASHES)])
        found[variant.label] = look
    return found

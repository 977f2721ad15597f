"""Keep the weights that matter most within their own layer, over all layers together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def score(weights: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Keep the weights that matter most in their layer (LAMP): w^2 over the sum of its layer's w^2 from there up.

    The largest weight of a layer scores 1, so that no layer is pruned away and small layers stay denser than with plain
    magnitude (Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, arXiv 2010.07611, eq. 4). float64.
    """
    return {name: _lamp(weights[name]) for name in names}


def _lamp(weight: Tensor) -> Tensor:
    squares = weight.double().reshape(-1).square()
    order = torch.argsort(squares, stable=True)
    ranked = squares[order]
    not_smaller = ranked.flip(0).cumsum(0).flip(0)
    scores = torch.zeros_like(squares)
    scores[order] = ranked / not_smaller.clamp(min=torch.finfo(torch.float64).tiny)
    return scores.reshape(weight.shape)

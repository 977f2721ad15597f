"""Keep the weights of largest magnitude, over all layers together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor


def score(weights: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Keep the weights of largest magnitude: |w| of the named tensors."""
    return {name: weights[name].abs() for name in names}

"""How dense each layer is, when a whole model may keep a given share."""

from __future__ import annotations

import math
from collections.abc import Mapping

Shape = tuple[int, ...]


def uniform(shapes: Mapping[str, Shape], density: float) -> dict[str, float]:
    """The same density in every layer."""
    return dict.fromkeys(shapes, density)


def erk(shapes: Mapping[str, Shape], density: float) -> dict[str, float]:
    """Erdos-Renyi-Kernel: a layer's density is proportional to (sum of its dimensions) / (product of them).

    A layer that would be denser than 1 becomes dense and the scale is solved again, so that the total is `density`
    (after arXiv 2202.02643).
    """
    raw = {name: sum(shape) / math.prod(shape) for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        sparse = [name for name in shapes if name not in dense]
        budget = density * sum(map(math.prod, shapes.values())) - sum(math.prod(shapes[n]) for n in dense)
        scale = budget / sum(raw[n] * math.prod(shapes[n]) for n in sparse) if sparse else 0.0
        full = {n for n in sparse if raw[n] * scale > 1.0}
        if not full:
            return {n: 1.0 if n in dense else raw[n] * scale for n in shapes}
        dense |= full

"""Keep weights drawn at random, the same on every machine that knows the seed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fedsparse.masks import top_k
from fedsparse.randomness import generator


def score(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Keep weights drawn at random: uniform numbers in [0, 1), a function of `seed` and the tensor's name."""
    return {n: torch.from_numpy(generator(seed, "random mask", n).random(shape)) for n, shape in shapes.items()}


def masks(densities: Mapping[str, float], shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Random masks, each layer at its own density."""
    return {n: top_k({n: s}, round(densities[n] * s.numel()))[n] for n, s in score(shapes, seed).items()}

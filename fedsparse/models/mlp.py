"""A multi-layer perceptron for inputs of any shape."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn

from fedsparse.errors import InputError
from fedsparse.models.base import Scaled
from fedsparse.options import Count


class MLP(Scaled):
    """Multi-layer perceptron: linear layers with ReLU, for inputs of any shape."""

    hidden: tuple[Count, ...] = (128, 64)
    """Units of the hidden layers; none makes it a linear model."""

    def build(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """Layers `fc1`, `fc2`, ... over the flattened input."""
        inputs = math.prod(shape)
        if not shape or inputs < 1:
            raise InputError(f"The model mlp takes inputs of at least one number each, not of shape {tuple(shape)}.")
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for i, units in enumerate(map(self.units, self.hidden), start=1):
            layers[f"fc{i}"] = nn.Linear(inputs, units)
            layers[f"relu{i}"] = nn.ReLU()
            inputs = units
        layers[f"fc{len(self.hidden) + 1}"] = nn.Linear(inputs, outputs)
        return nn.Sequential(layers)

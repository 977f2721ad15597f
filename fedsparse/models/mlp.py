"""A multi-layer perceptron for inputs of any shape."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn

from fedsparse.errors import InputError
from fedsparse.models.base import Model
from fedsparse.options import Count


class MLP(Model):
    """Multi-layer perceptron: linear layers with ReLU, for inputs of any shape."""

    hidden: tuple[Count, ...] = (128, 64)
    """Widths of the hidden layers; none makes it a linear model."""

    def build(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """Layers `fc1`, `fc2`, ... over the flattened input."""
        width = math.prod(shape)
        if not shape or width < 1:
            raise InputError(f"The model mlp takes inputs of at least one number each, not of shape {tuple(shape)}.")
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for i, hidden in enumerate(self.hidden, start=1):
            layers[f"fc{i}"] = nn.Linear(width, hidden)
            layers[f"relu{i}"] = nn.ReLU()
            width = hidden
        layers[f"fc{len(self.hidden) + 1}"] = nn.Linear(width, outputs)
        return nn.Sequential(layers)

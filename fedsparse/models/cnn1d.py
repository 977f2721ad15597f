"""A small convolutional network for signals of several channels."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from pydantic import Field
from torch import nn

from fedsparse.errors import InputError
from fedsparse.models.base import Scaled
from fedsparse.options import Count

KERNEL = 5
POOL = 4
POOLED_ABOVE = 16
"""Signals of at least this length are pooled after a convolution."""


class CNN1d(Scaled):
    """One-dimensional CNN for signals: convolutions with ReLU and max pooling, one hidden linear layer."""

    channels: tuple[Count, ...] = Field(default=(32, 32), min_length=1)
    """Channels of each convolution."""
    hidden: Count = 60
    """Units of the hidden linear layer."""
    norm: Literal["none", "batch"] = "none"
    """Normalisation after each convolution: "none" or "batch" (BatchNorm)."""

    def build(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """21,930 weights for 6 x 128 and 6 outputs. Inputs are (channels, length)."""
        if len(shape) != 2 or min(shape) < 1:
            got = " x ".join(map(str, shape)) or "single numbers"
            raise InputError(f"The model cnn1d takes signals of channels x samples, not inputs of {got}.")
        channels, length = shape
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, wide in enumerate(map(self.units, self.channels), start=1):
            # The bias would be taken away again by BatchNorm's mean.
            layers[f"conv{i}"] = nn.Conv1d(channels, wide, KERNEL, padding=KERNEL // 2, bias=self.norm == "none")
            if self.norm == "batch":
                layers[f"norm{i}"] = nn.BatchNorm1d(wide)
            layers[f"relu{i}"] = nn.ReLU()
            if length >= POOLED_ABOVE:
                layers[f"pool{i}"] = nn.MaxPool1d(POOL)
                length //= POOL
            channels = wide
        hidden = self.units(self.hidden)
        layers["flatten"] = nn.Flatten()
        layers["fc1"] = nn.Linear(channels * length, hidden)
        layers["relu"] = nn.ReLU()
        layers["fc2"] = nn.Linear(hidden, outputs)
        return nn.Sequential(layers)

"""A small convolutional network for pictures, about 38,000 weights on digits of 8 x 8."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from pydantic import Field
from torch import nn

from fedsparse.models.base import Scaled, picture
from fedsparse.options import Count

POOLED_ABOVE = 16
"""Sides of at least this are halved after every convolution; smaller pictures only after the last."""


class CNN(Scaled):
    """Small CNN: 3 x 3 convolutions with ReLU and max pooling, one hidden linear layer."""

    channels: tuple[Count, ...] = Field(default=(16, 32), min_length=1)
    """Channels of each convolution."""
    hidden: Count = 64
    """Units of the hidden linear layer."""
    norm: Literal["none", "batch"] = "none"
    """Normalisation after each convolution: "none" or "batch" (BatchNorm)."""

    def build(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """38,282 weights for 1 x 8 x 8 and 10 outputs. Pictures have at least 4 pixels a side."""
        channels, height, width = picture(shape, "cnn", "pictures of 4 to 512 pixels a side", range(4, 513))
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, wide in enumerate(map(self.units, self.channels), start=1):
            # The bias would be taken away again by BatchNorm's mean.
            layers[f"conv{i}"] = nn.Conv2d(channels, wide, 3, padding=1, bias=self.norm == "none")
            if self.norm == "batch":
                layers[f"norm{i}"] = nn.BatchNorm2d(wide)
            if i == len(self.channels) or min(height, width) >= POOLED_ABOVE:
                layers[f"pool{i}"] = nn.MaxPool2d(2)  # before ReLU it costs less, and gives the same bits
                height, width = height // 2, width // 2
            layers[f"relu{i}"] = nn.ReLU()
            channels = wide
        layers["flatten"] = nn.Flatten()
        hidden = self.units(self.hidden)
        layers["fc1"] = nn.Linear(channels * height * width, hidden)
        layers["relu"] = nn.ReLU()
        layers["fc2"] = nn.Linear(hidden, outputs)
        return nn.Sequential(layers)

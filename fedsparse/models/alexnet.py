"""AlexNet (Krizhevsky et al., 2012) for CIFAR, in the size of FedDIP's released code (arXiv 2309.06805)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated

from pydantic import Field
from torch import nn

from fedsparse.models.base import Scaled, he, picture


class AlexNet(Scaled):
    """AlexNet for CIFAR: five 3 x 3 convolutions, three linear layers; 23,272,266 weights for 10 classes."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the inputs of both hidden linear layers that training leaves out at random."""

    def build(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """23,272,266 weights on 3 x 32 x 32 with 10 classes. Pictures have 16 to 256 pixels a side."""
        channels, height, width = picture(shape, "alexnet", "pictures of 16 to 256 pixels a side", range(16, 257))
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, wide in enumerate(map(self.units, (64, 192, 384, 256, 256)), start=1):
            layers[f"conv{i}"] = nn.Conv2d(channels, wide, 3, stride=2 if i == 1 else 1, padding=1)
            if i in (1, 2, 5):
                layers[f"pool{i}"] = nn.MaxPool2d(2)  # before ReLU it costs less, and gives the same bits
            layers[f"relu{i}"] = nn.ReLU()
            channels = wide
        layers["flatten"] = nn.Flatten()
        inputs = channels * _side(height) * _side(width)
        for i, units in enumerate(map(self.units, (4096, 4096)), start=1):
            layers[f"dropout{i}"] = nn.Dropout(self.dropout)
            layers[f"fc{i}"] = nn.Linear(inputs, units)
            layers[f"relu{5 + i}"] = nn.ReLU()
            inputs = units
        layers["fc3"] = nn.Linear(inputs, outputs)
        return he(nn.Sequential(layers))


def _side(pixels: int) -> int:
    """What is left of a side: the stride rounds up, the three poolings down."""
    return (pixels + 1) // 2 // 8

"""VGG (Simonyan and Zisserman, arXiv 1409.1556) with one linear layer at its end, as papers train it on CIFAR."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

from fedsparse.models.base import Scaled, he, picture

STAGES = {
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
}
"""Channels of the 3 x 3 convolutions before each pooling: the paper's columns A and D."""


class VGG(Scaled):
    """VGG-11 or VGG-16 with one linear layer at the end; VGG-11 with BatchNorm has 9,228,362 weights for 10 classes."""

    depth: Literal[11, 16] = 11
    """11 or 16 layers with weights in the paper, which ends in three linear layers; here 9 or 14."""
    norm: Literal["none", "batch"] = "batch"
    """Normalisation after each convolution: "none" or "batch" (BatchNorm)."""

    def build(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """On 3 x 32 x 32 with 10 classes 9,228,362 and 14,724,042 weights with BatchNorm, 9,225,610 and 14,719,818
        without. Pictures have 32 to 256 pixels a side.
        """
        channels, _, _ = picture(shape, "vgg", "pictures of 32 to 256 pixels a side", range(32, 257))
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        i = 0
        for planned in STAGES[self.depth]:
            for at, wide in enumerate(map(self.units, planned), start=1):
                i += 1
                # The bias would be taken away again by BatchNorm's mean.
                layers[f"conv{i}"] = nn.Conv2d(channels, wide, 3, padding=1, bias=self.norm == "none")
                if self.norm == "batch":
                    layers[f"norm{i}"] = nn.BatchNorm2d(wide)
                if at == len(planned):
                    layers[f"pool{i}"] = nn.MaxPool2d(2)  # before ReLU it costs less, and gives the same bits
                layers[f"relu{i}"] = nn.ReLU()
                channels = wide
        layers["mean"] = nn.AdaptiveAvgPool2d(1)  # nothing to do for 32 x 32
        layers["flatten"] = nn.Flatten()
        layers["fc"] = nn.Linear(channels, outputs)
        return he(nn.Sequential(layers))

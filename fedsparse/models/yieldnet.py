"""A branched network for crop yield: convolutions over the weeks of the weather, linear layers for soil and place.

After the model of Li, Markovic, Edwards, Leontidis, arXiv 2304.09876, as its author's code has it: a branch each, then
two hidden layers over all of them. Shapes are those of the data set `soyurt`; there soil has no depths, so its branch
is linear, and there are no earlier yields, so that branch is left out.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from fedsparse.errors import InputError
from fedsparse.models.base import Scaled

VARIABLES, WEEKS, SOIL, PLACE = 19, 16, 8, 6
INPUTS = VARIABLES * WEEKS + SOIL + PLACE


class YieldNet(Scaled):
    """Branched CNN-DNN for soybean yield (inputs of `soyurt`): weather by week, soil, place and maturity group."""

    norm: Literal["none", "batch"] = "batch"
    """Normalisation after each convolution: "none" or "batch" (BatchNorm)."""

    def build(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """101,297 weights for 318 numbers: 19 weather variables by 16 weeks, 8 of the soil, 6 of place and variety."""
        if tuple(shape) != (INPUTS,):
            got = " x ".join(map(str, shape)) or "single numbers"
            raise InputError(f"The model yieldnet takes inputs of {INPUTS} numbers (data set soyurt), not of {got}.")
        return _Branches(self, outputs)


class _Branches(nn.Module):
    def __init__(self, model: YieldNet, outputs: int) -> None:
        super().__init__()
        units = model.units
        self.weather = nn.Sequential(
            OrderedDict(
                **_convolution(1, VARIABLES, units(32), model.norm),
                pool1=nn.MaxPool1d(2),
                **_convolution(2, units(32), units(64), model.norm),
                pool2=nn.MaxPool1d(2),
                **_convolution(3, units(64), units(96), model.norm),
                flatten=nn.Flatten(),
            )
        )
        self.soil = nn.Sequential(OrderedDict(fc=nn.Linear(SOIL, units(32)), relu=nn.ReLU()))
        self.place = nn.Sequential(OrderedDict(fc=nn.Linear(PLACE, units(32)), relu=nn.ReLU()))
        self.head = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(units(96) * (WEEKS // 4) + 2 * units(32), units(144)),
                relu1=nn.ReLU(),
                fc2=nn.Linear(units(144), units(64)),
                relu2=nn.ReLU(),
                fc3=nn.Linear(units(64), outputs),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        weather, soil, place = x.split([VARIABLES * WEEKS, SOIL, PLACE], dim=1)
        weather = self.weather(weather.unflatten(1, (VARIABLES, WEEKS)))
        joined: Tensor = self.head(torch.cat([weather, self.soil(soil), self.place(place)], dim=1))
        return joined


def _convolution(number: int, channels: int, wide: int, norm: str) -> dict[str, nn.Module]:
    # The bias would be taken away again by BatchNorm's mean.
    layers: dict[str, nn.Module] = {f"conv{number}": nn.Conv1d(channels, wide, 3, padding=1, bias=norm == "none")}
    if norm == "batch":
        layers[f"norm{number}"] = nn.BatchNorm1d(wide)
    return layers | {f"relu{number}": nn.ReLU()}

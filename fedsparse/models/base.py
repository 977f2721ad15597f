"""What a model is to fedsparse: options, and how to build the network for an input's shape.

class Tiny(Model):
    '''One linear layer.'''
    def build(self, shape, outputs):
        return nn.Sequential(OrderedDict(flat=nn.Flatten(), fc=nn.Linear(math.prod(shape), outputs)))
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import nn

from fedsparse.errors import InputError
from fedsparse.options import Options, Share


class Model(Options):
    """The base of every model: a file of `fedsparse/models/`, an entry point, or `path/to/file.py:Name`."""

    @abstractmethod
    def build(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """The network for inputs of `shape` (without the batch) and `outputs` numbers out.

        Initial weights are drawn from PyTorch's global generator, which the caller seeds. The names of the weights
        are those of the network's modules: they are sent, so they stay as they are from version to version.
        Raises InputError when the network cannot take the shape.
        """


class Scaled(Model):
    """The base of models whose layers can all be made thinner together."""

    width: Share = 1.0
    """Share of the channels and hidden units of every layer; what goes in and what comes out stay."""

    def units(self, count: int) -> int:
        """How many a layer of `count` channels or units has at this width: at least one."""
        return max(1, round(count * self.width))


def he(net: nn.Module) -> nn.Module:
    """The same network, its convolutions' weights drawn for ReLU after He et al. (arXiv 1502.01852), by fan out."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def picture(shape: Sequence[int], model: str, takes: str, sides: Sequence[int] | range) -> tuple[int, int, int]:
    """The shape as (channels, height, width) when both sides are among `sides`, else InputError that says so."""
    if len(shape) != 3 or shape[1] not in sides or shape[2] not in sides:
        got = " x ".join(map(str, shape)) or "single numbers"
        raise InputError(f"The model {model} takes {takes}, not inputs of {got}.")
    channels, height, width = shape
    return channels, height, width

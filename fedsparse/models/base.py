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
from fedsparse.options import Options


class Model(Options):
    """The base of every model: a file of `fedsparse/models/`, an entry point, or `path/to/file.py:Name`."""

    @abstractmethod
    def build(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """The network for inputs of `shape` (without the batch) and `outputs` numbers out.

        Initial weights are drawn from PyTorch's global generator, which the caller seeds. The names of the weights
        are those of the network's modules: they are sent, so they stay as they are from version to version.
        Raises InputError when the network cannot take the shape.
        """


def picture(shape: Sequence[int], model: str, takes: str, sides: Sequence[int] | range) -> tuple[int, int, int]:
    """The shape as (channels, height, width) when both sides are among `sides`, else InputError that says so."""
    if len(shape) != 3 or shape[1] not in sides or shape[2] not in sides:
        got = " x ".join(map(str, shape)) or "single numbers"
        raise InputError(f"The model {model} takes {takes}, not inputs of {got}.")
    channels, height, width = shape
    return channels, height, width

"""Which channels of a network depend on each other, found by running it on the names of its channels.

Every unit (one output of a convolution or linear layer) has a number for its name, and the names go through the network
instead of values. Convolutions and linear layers note the names that they read and hand on those of their own units;
BatchNorm notes them for its vectors; an addition makes the units that meet in it one. All else is run as it is: what
only moves, repeats or leaves out values (pooling, flatten, slices, padding, concatenation) moves names alike, and what
mixes channels makes numbers that are nobody's name.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ZERO, FIXED = 0, 1  # units of their own: a channel of zeros joins any other; what is joined to FIXED is never cut
NAMES = range(2, 1 << 40)  # sums of 8192 of them are exact in float64, so a mean over a channel is its name
POINTWISE = {"celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "mish", "relu6", "selu", "sigmoid", "silu"}
POINTWISE |= {"softplus", "softsign", "tanh"}

Axis = tuple[str, int]  # a tensor's name and one of its axes


class Tangled(ValueError):
    """A network whose channels cannot be followed."""


@dataclass(frozen=True)
class Wiring:
    """axes: the units along an axis, in order (one that meets others in an addition goes by the first of them).

    born: the tensor whose outputs a unit is among; scales: names of the BatchNorm weights.
    """

    axes: dict[Axis, list[int]]
    born: list[str]
    scales: frozenset[str]


def hollow(net: nn.Module) -> nn.Module:
    """A copy whose tensors have their shapes and nothing else: NaN if a number is asked for, which is no name."""
    empty = {}
    for own in net.state_dict(keep_vars=True).values():
        value = torch.nan if own.is_floating_point() else 0
        like = torch.full((), value, dtype=own.dtype).expand(own.shape)
        empty[id(own)] = nn.Parameter(like, own.requires_grad) if isinstance(own, nn.Parameter) else like
    return deepcopy(net, empty)


def wiring(net: nn.Module, shape: Sequence[int]) -> Wiring:
    """The wiring of a hollow network for inputs of `shape` (without the batch); Tangled where it cannot be found."""
    # Names of another order the second time: the largest of several channels would be another one then.
    first, second = (_run(net.eval(), shape, seed) for seed in (0, 1))
    if first != second:
        raise Tangled("channels are mixed")
    return first


def _run(net: nn.Module, shape: Sequence[int], seed: int) -> Wiring:
    names = _Names(net, seed)
    try:
        with torch.no_grad(), names:
            out = net(torch.full((1, *shape), float(FIXED), dtype=torch.float64))
        for unit in names.units(out, -1):
            names.unite(unit, FIXED)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError) as error:
        raise Tangled(str(error)) from error
    return names.found()


class _Names(TorchFunctionMode):
    def __init__(self, net: nn.Module, seed: int) -> None:
        super().__init__()
        tensors = net.state_dict(keep_vars=True)
        most = sum(len(t) for t in tensors.values() if t.dim() > 1)
        self.name = [float(n) for n in (ZERO, FIXED, *random.Random(seed).sample(NAMES, most))]
        self.unit = {name: unit for unit, name in enumerate(self.name)}
        self.tensor = {id(t): n for n, t in tensors.items()}
        self.born = ["", ""]
        self.same = [ZERO, FIXED]
        self.axes: dict[Axis, list[int]] = {}
        self.scales: set[str] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "").strip("_")
        if name in POINTWISE:
            return args[0]
        rule = RULES.get(name)
        return rule(self, func, *args, **kwargs or {}) if rule else func(*args, **kwargs or {})

    # ---- layers ----

    def conv(
        self, func: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None = None,
        stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    ) -> Tensor:  # fmt: skip
        if groups != 1:
            raise Tangled("a convolution is grouped")
        places = func(x[:, :1].float(), torch.zeros(1, 1, *weight.shape[2:]), None, stride, padding, dilation)
        out = self.layer(x, 1, weight, bias)
        return out.reshape(1, -1, *[1] * (x.dim() - 2)).repeat(1, 1, *places.shape[2:])

    def linear(self, func: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.layer(x, -1, weight, bias).repeat(*x.shape[:-1], 1)

    def layer(self, x: Tensor, axis: int, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The names of the outputs."""
        name = self.tensor[id(weight)]
        if (name, 0) not in self.axes:
            self.axes[name, 0] = list(range(len(self.born), len(self.born) + len(weight)))
            self.same += self.axes[name, 0]
            self.born += [name] * len(weight)
        outputs = self.axes[name, 0]
        self.note(weight, 1, self.units(x, axis))
        self.note(bias, 0, outputs)
        return torch.tensor([self.name[unit] for unit in outputs], dtype=torch.float64)

    def norm(
        self, func: Any, x: Tensor, mean: Tensor | None = None, var: Tensor | None = None,
        weight: Tensor | None = None, bias: Tensor | None = None, *_: Any, **how: Any,
    ) -> Tensor:  # fmt: skip
        for tensor in (mean, var, weight, bias):
            self.note(tensor, 0, self.units(x, 1))
        if weight is not None:
            self.scales.add(self.tensor[id(weight)])
        return x

    def add(self, func: Callable[..., Any], a: Any, b: Any, **how: Any) -> Any:
        if not isinstance(a, Tensor) or not isinstance(b, Tensor):
            return func(a, b, **how)
        a, b = torch.broadcast_tensors(a, b)
        met = torch.stack([a, b])
        met = met.flatten(3) if met.dim() > 3 else met.unsqueeze(-1)
        if (met == met[..., :1]).all():
            met = met[..., :1]
        for one, other in set(zip(*met.flatten(1).tolist(), strict=True)):
            self.unite(self.unit[one], self.unit[other])
        return torch.where(a != ZERO, a, b)

    # ---- what is found ----

    def units(self, x: Tensor, axis: int) -> list[int]:
        """The units along one axis of x; Tangled where they are not the same everywhere else."""
        rows = x.movedim(axis, 0).flatten(1)
        if not (rows == rows[:, :1]).all():
            raise Tangled("channels are mixed")
        return [self.unit[name] for name in rows[:, 0].tolist()]

    def note(self, tensor: Tensor | None, axis: int, units: list[int]) -> None:
        if tensor is None:
            return
        before = self.axes.setdefault((self.tensor[id(tensor)], axis), units)
        for one, other in zip(before, units, strict=True):  # a layer that is used twice
            self.unite(one, other)

    def unite(self, one: int, other: int) -> None:
        one, other = self.root(one), self.root(other)
        if ZERO not in (one, other):
            self.same[max(one, other)] = min(one, other)

    def root(self, unit: int) -> int:
        while self.same[unit] != unit:
            self.same[unit] = unit = self.same[self.same[unit]]
        return unit

    def found(self) -> Wiring:
        axes = {axis: [self.root(unit) for unit in units] for axis, units in self.axes.items()}
        return Wiring(axes, self.born, frozenset(self.scales))


RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _Names.conv),
    "linear": _Names.linear,
    "batch_norm": _Names.norm,
    **dict.fromkeys(("add", "iadd", "radd"), _Names.add),
}

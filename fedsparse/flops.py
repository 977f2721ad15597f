"""Floating-point operations of a model that really runs, by the formulas of PyTorch's own counter."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

LOOK = 2
"""Samples that are run to count: operations grow in proportion to the samples."""


def _recurrent(x: Tensor, into: Tensor, back: Tensor, *_: Any, **__: Any) -> float:
    """A recurrent layer over x (steps, N, features) as oneDNN computes it, which PyTorch has no formula for."""
    return 2.0 * x.shape[0] * x.shape[1] * (into.numel() + back.numel())


_FORMULAS = {
    **flop_registry,
    torch.ops.aten.mkldnn_rnn_layer: _recurrent,
    torch.ops.aten.mkldnn_rnn_layer_backward: lambda *args, **_: 2 * _recurrent(*args),
}


@dataclass(frozen=True)
class Flops:
    """Operations of matrix products and convolutions: `dense` as they are computed, `sparse` without zero weights."""

    dense: float = 0.0
    sparse: float = 0.0

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.dense + other.dense, self.sparse + other.sparse)


@dataclass(frozen=True)
class _Count:
    """Operations of one sample: forward, backward, and forward by layer."""

    forward: float
    backward: float
    layers: dict[str, float]


_NOTHING = _Count(0.0, 0.0, {})


class Counter:
    """Counts one model's operations. Which of its weights are zero is looked at once, at the start.

    `sparse` takes each layer's operations, forward and backward, times the share of its weights that is not zero: what
    kernels that skip zeros could gain at most.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._density = _densities(model)

    def step(self, x: Tensor) -> Flops:
        """Forward and backward of a batch x (N, ...); of no samples nothing."""
        count = self._count(x) if len(x) else _NOTHING
        return self._flops(len(x) * (count.forward + count.backward), count)

    def forward(self, x: Tensor) -> Flops:
        """Forward alone of a batch x (N, ...); of no samples nothing."""
        count = self._count(x) if len(x) else _NOTHING
        return self._flops(len(x) * count.forward, count)

    def _flops(self, dense: float, count: _Count) -> Flops:
        whole = sum(count.layers.values())
        kept = sum(n * self._density.get(name, 1.0) for name, n in count.layers.items())
        return Flops(dense, dense * kept / whole if whole else dense)

    def _count(self, x: Tensor) -> _Count:
        key = (*self._structure, tuple(x.shape[1:]), x.dtype)
        if key not in _counted:
            _counted[key] = _run(self.model, x[:1].cpu().expand(LOOK, *x.shape[1:]))
        return _counted[key]

    @cached_property
    def _structure(self) -> tuple[object, ...]:
        # The text tells strides and kernels, the shapes what the text of a user's own module may leave out.
        return repr(self.model), tuple(tuple(p.shape) for p in self.model.parameters())


def _densities(model: nn.Module) -> dict[str, float]:
    """Share of the weights that are not zero, by layer; a layer without is whole."""
    found = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.numel():
            found[name] = float(weight.count_nonzero()) / weight.numel()
    return found


_counted: dict[tuple[object, ...], _Count] = {}


@dataclass
class _Mode(TorchDispatchMode):
    """Adds up what the formulas of `torch.utils.flop_counter` say of each operation, by the module that is at work."""

    found: dict[str, float] = field(default_factory=dict)
    at: list[str] = field(default_factory=lambda: [""])

    def __post_init__(self) -> None:
        super().__init__()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first operation imports PyTorch's compiler, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (formula := _FORMULAS.get(func._overloadpacket)) is not None:
            self.found[self.at[-1]] = self.found.get(self.at[-1], 0) + formula(*args, **(kwargs or {}), out_val=out)
        return out


def _run(model: nn.Module, x: Tensor) -> _Count:
    """One pass of a copy: nothing is drawn, and no running statistics of the model itself change."""
    net = copy.deepcopy(model).cpu().eval()
    with torch.enable_grad(), _Mode() as mode, _named(net, mode.at):
        out = net(x)
        layers = dict(mode.found)
        out.sum().backward()
    forward = sum(layers.values())
    return _Count(forward / LOOK, (sum(mode.found.values()) - forward) / LOOK, layers)


@contextmanager
def _named(net: nn.Module, at: list[str]) -> Iterator[None]:
    """Inside, `at` ends with the name of the module whose forward is running."""
    hooks = []
    for name, module in net.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: at.append(name)))
        hooks.append(module.register_forward_hook(lambda *_: at.__delitem__(-1)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

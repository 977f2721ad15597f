"""FjORD: ordered dropout, each step trains a width drawn anew, and narrow ones learn from the client's widest.

Horvath, Laskaridis, Almeida, Leontiadis, Venieris, Lane: FjORD, Fair and Accurate Federated Learning under
heterogeneous targets with Ordered Dropout, arXiv 2102.13451 (NeurIPS 2021). A width keeps the first units of every
layer, so widths are nested and share weights. A client draws a width for each step, uniformly from those up to its own.
With `distill` every step also trains the client's widest model on the labels, and the drawn width, when it is narrower,
to answer as that one does. A weight is averaged over the clients that hold it; what nobody holds keeps its value.

A narrow step runs a smaller network on the first rows and columns of the client's own tensors, so it costs less.

Differences from the paper:
- A client's width is the widest that its device's memory and the round's deadline allow, or its tier's; the paper deals
  tiers out uniformly.
- The distillation is the released code's: labels for the widest, its answers alone for the drawn width, temperature 1.
  A regression compares the numbers themselves, by their squared difference.
- One BatchNorm for all widths and not one each: it is trained with the statistics of the batch, whatever the width; the
  running ones are measured after each merge, by the clients of the round that have the widest model.
- The mean is weighted by training samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from fedsparse.client import Client
from fedsparse.flops import Counter, Flops
from fedsparse.options import Share
from fedsparse.payload import Grid, Payload
from fedsparse.strategies._submodels import SubModels, batch_statistics_alone

Indices = tuple[Tensor | None, ...]  # of each axis those that are kept; None: all


class FjORD(SubModels):
    """FjORD: ordered dropout, each step trains a width drawn anew, and narrow ones learn from the client's widest."""

    widths: tuple[Share, ...] = (1.0, 0.8, 0.6, 0.4, 0.2)
    """Widths that a client may have and that steps are drawn from: shares of the units of every layer."""
    distill: bool = True
    """Whether narrow widths learn from the client's widest; else each drawn width learns from the labels."""

    @property
    def work(self) -> float:
        return 2.0 if self.distill else 1.0

    def train(self, received: Payload, client: Client) -> Payload:
        model = self.cut(received, client)
        if self.measured:
            batch_statistics_alone(model)
        dropout = OrderedDropout(client, self.levels(received, client), self.distill)
        client.fit(model, loss=dropout.loss, flops=dropout.flops)
        return self.reply(model, received, client)

    def levels(self, received: Payload, client: Client) -> list[Narrow | None]:
        """The widths up to the client's own, which is None."""
        channels = self.setup.channels
        own = channels.kept(received.masks)
        levels: list[Narrow | None] = []
        outer = channels.masks(own)
        for width in sorted(self.widths):
            kept = channels.ordered(width)
            if all(torch.equal(kept[group], own[group]) for group in own):
                levels.append(None)
            elif not any(bool((kept[group] & ~own[group]).any()) for group in own):
                net = channels.module(received.weights, kept).to(client.device).train()
                parts = {n: within(grid, outer.get(n)) for n, grid in channels.masks(kept).items()}
                levels.append(Narrow(net, parts))
        return levels


@dataclass(frozen=True, eq=False)
class Narrow:
    """A sub-model of a client's model: a smaller network that computes with parts of the larger one's parameters.

    parts: what is taken along each axis, by the parameter's name; a parameter without is taken whole.
    """

    net: nn.Module
    parts: Mapping[str, Indices]

    def __call__(self, model: nn.Module, x: Tensor) -> Tensor:
        parameters = {name: part(p, self.parts.get(name, ())) for name, p in model.named_parameters()}
        out: Tensor = functional_call(self.net, parameters, (x,))
        return out


@dataclass(eq=False)
class OrderedDropout:
    """The steps of a client's training: which width each draws, what it learns and what that costs."""

    client: Client
    levels: list[Narrow | None]
    distill: bool
    drawn: Narrow | None = None
    counters: dict[int, Counter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng: np.random.Generator = self.client.rng("widths")

    def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """One step's loss, on the width that it draws."""
        self.drawn = self.levels[self.rng.integers(len(self.levels))]
        if self.drawn is None:
            return self.client.loss(model, x, y)
        if not self.distill:
            return self.client.loss(partial(self.drawn, model), x, y)  # type: ignore[arg-type]
        wide = model(x)
        on_labels = self.client.loss(lambda _: wide, x, y)  # type: ignore[arg-type]
        return on_labels + distillation(self.drawn(model, x), wide.detach(), self.client.data.task)

    def flops(self, model: nn.Module, x: Tensor) -> Flops:
        """What the step that drew last costs."""
        nets = [model] if self.drawn is None else [model, self.drawn.net] if self.distill else [self.drawn.net]
        return sum((self.counters.setdefault(id(net), Counter(net)).step(x) for net in nets), Flops())


def within(inner: Grid, outer: Grid | None) -> Indices:
    """Where the rows, columns, ... of `inner` are among those of `outer` (None: among all)."""
    around = outer.axes if outer is not None else (None,) * len(inner.axes)
    kept = [i if i is None or o is None else i[o] for i, o in zip(inner.axes, around, strict=True)]
    return tuple(None if axis is None else axis.nonzero().flatten() for axis in kept)


def part(tensor: Tensor, indices: Indices) -> Tensor:
    """These rows, columns, ... of a tensor; gradients reach them alone."""
    for axis, index in enumerate(indices):
        if index is not None:
            tensor = tensor.index_select(axis, index.to(tensor.device))
    return tensor


def distillation(narrow: Tensor, wide: Tensor, task: str) -> Tensor:
    """How far the outputs of a narrow model are from those of a wide one: a scalar."""
    if task == "classification":
        answers = functional.log_softmax(narrow, 1), functional.log_softmax(wide, 1)
        return functional.kl_div(*answers, reduction="batchmean", log_target=True)
    return functional.mse_loss(narrow, wide)

"""The only training loop and the only evaluation loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Batch = tuple[Tensor, Tensor]
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def task_loss(task: str) -> Loss:
    """The loss of a data set's task: cross entropy for "classification", mean squared error for "regression"."""
    if task == "classification":
        return lambda model, x, y: nn.functional.cross_entropy(model(x), y)
    return lambda model, x, y: nn.functional.mse_loss(model(x).reshape(y.shape), y)


def penalised(loss: Loss, names: Iterable[str], factor: float) -> Loss:
    """A loss plus `factor` times the sum of these weights' norms (not squared, so that small layers are pulled too)."""
    wanted = list(names) if factor else []
    return lambda model, x, y: loss(model, x, y) + factor * sum(weight(model, name).norm() for name in wanted)


def optimizer(model: nn.Module, name: str, lr: float, momentum: float, weight_decay: float) -> torch.optim.Optimizer:
    """A `torch.optim` optimiser by its name in lower case; `momentum` is for those that have one."""
    kinds = {kind.lower(): getattr(torch.optim, kind) for kind in dir(torch.optim) if kind[0].isupper()}
    options = {"lr": lr, "weight_decay": weight_decay} | ({"momentum": momentum} if momentum else {})
    trainable = [p for p in model.parameters() if p.requires_grad]
    return kinds[name](trainable, **options)


def steps(
    model: nn.Module,
    batches: Iterable[Batch],
    optimise: torch.optim.Optimizer,
    *,
    loss: Loss,
    before_step: Callable[[nn.Module], None] | None = None,
    masks: Mapping[str, Tensor] | None = None,
    clip: float = 0.0,
) -> Iterator[float]:
    """Train, one optimiser step for each loss that is taken from this generator.

    With `masks` (boolean, by parameter name) a weight outside its mask gets no gradient and stays zero, whatever
    momentum and weight decay do. `before_step(model)` sees the gradients and may change them.
    """
    model.train()
    masked = [(p, masks[n].to(p.device)) for n, p in model.named_parameters() if masks and n in masks]
    for x, y in batches:
        optimise.zero_grad(set_to_none=True)
        value = loss(model, x, y)
        value.backward()
        with torch.no_grad():
            for parameter, mask in masked:
                if parameter.grad is not None:
                    parameter.grad *= mask
        if before_step is not None:
            before_step(model)
        if clip > 0:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimise.step()
        with torch.no_grad():
            for parameter, mask in masked:
                parameter.mul_(mask)
        yield float(value.detach())


def weight(model: nn.Module, name: str) -> Tensor:
    """A parameter by its name, as the model computes with it (masked inside `straight_through`)."""
    owner, _, own = name.rpartition(".")
    return getattr(model.get_submodule(owner), own)


class _Masked(torch.autograd.Function):
    """Forward m * w, backward as if the mask were not there."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor) -> Tensor:
        return weight * mask

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class _Through(nn.Module):
    """A parametrization that applies `_Masked`."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        masked: Tensor = _Masked.apply(weight, self.mask)
        return masked


@contextmanager
def straight_through(model: nn.Module, masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the model computes with m * w while the dense w is trained (dynamic pruning with feedback).

    The gradient taken at the masked weights is applied to the dense ones (arXiv 2006.07253). Afterwards the
    parameters hold the dense weights again, under their own names.
    """
    owners = [(model.get_submodule(n.rpartition(".")[0]), n.rpartition(".")[2], masks[n]) for n in masks]
    orders = [(module, list(module._parameters)) for module, _, _ in owners]
    try:
        for module, name, mask in owners:
            through = _Through(mask).to(getattr(module, name).device)
            parametrize.register_parametrization(module, name, through, unsafe=True)
        yield
    finally:
        for module, name, _ in owners:
            if parametrize.is_parametrized(module, name):
                parametrize.remove_parametrizations(module, name, leave_parametrized=False)
        for module, order in orders:  # as before, or sums over all parameters would end in other last bits
            for own in order:
                module._parameters[own] = module._parameters.pop(own)


@torch.no_grad()
def evaluate(
    model: nn.Module, x: Tensor, y: Tensor, task: str, batch_size: int = 512, unit: float = 1.0
) -> tuple[float, float]:
    """(metric, loss) of a model on the samples x (N, ...) and y (N).

    The metric is the accuracy in [0, 1], or the root mean squared error times `unit` (what 1 in y is in the metric's
    unit); the loss is that of the numbers as they are.
    """
    model.eval()
    device = next(model.parameters()).device
    outputs = torch.cat([model(part.to(device)).cpu() for part in x.split(batch_size)])
    if task == "classification":
        correct = (outputs.argmax(1) == y).double().mean()
        return float(correct), float(nn.functional.cross_entropy(outputs.double(), y))
    error = float(nn.functional.mse_loss(outputs.double().reshape(y.shape), y.double()))
    return error**0.5 * unit, error

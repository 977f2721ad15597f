"""HeteroFL: each client trains a model as wide as it can bear, all cut from one global model.

Diao, Ding, Tarokh: HeteroFL, Computation and Communication Efficient Federated Learning for Heterogeneous Clients,
arXiv 2010.01264 (ICLR 2021). A sub-model holds the first units of every layer, so that narrow ones lie within wide ones
and every weight is averaged over the clients that hold it; what nobody holds keeps its value. Three things make the
widths agree: BatchNorm without running statistics while it is trained (they are measured once more after each merge),
a scaler that divides what a thinned layer puts out by its share of units, and a loss that leaves alone the outputs of
labels that a client does not have. With full width for all and `static_bn`, `masked_loss` off it is FedAvg.

Differences from the paper:
- A client's width is the widest that its device's memory and the round's deadline allow, or its tier's; the paper deals
  widths out at random.
- The mean is weighted by training samples, as in FedAvg; the released code counts all holders alike.
- The scaler also works in evaluation of a sub-model, where the code has only the whole model, which needs none.
- The released code measures BatchNorm with the whole model over all training data; here the clients of the round that
  have the widest model do, on theirs. What they do not hold keeps its statistics.
- As in the released code, an output that is left alone is 0 in the loss, and its weights count as not held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from fedsparse import masks
from fedsparse.client import Client
from fedsparse.payload import Grid, Payload
from fedsparse.strategies._submodels import SubModels, batch_statistics_alone
from fedsparse.train import Loss


class HeteroFL(SubModels):
    """HeteroFL: each client trains a model as wide as it can bear, all cut from one global model."""

    masked_loss: bool = True
    """Whether outputs of labels that a client does not have are left alone in its training."""
    scaler: bool = True
    """Whether a thinned layer's outputs are divided by its share of units."""

    def train(self, received: Payload, client: Client) -> Payload:
        model = self.cut(received, client)
        if self.measured:
            batch_statistics_alone(model)
        labels = self.labels(client)
        client.fit(model, loss=None if labels is None else left_alone(~labels, client.loss))
        reply = self.reply(model, received, client)
        return reply if labels is None else self.without(reply, labels)

    def cut(self, received: Payload, client: Client) -> nn.Module:
        model = client.cut(received)
        for name in self.setup.maskable if self.scaler else ():
            layer, units = model.get_submodule(name.rpartition(".")[0]), self.setup.shapes[name][0]
            if (left := len(model.get_parameter(name))) < units:
                layer.register_forward_hook(scaled(left / units))
        return model

    def labels(self, client: Client) -> Tensor | None:
        """Which labels this client has; None where all count."""
        if not self.masked_loss or client.data.task != "classification":
            return None
        has = client.part("train")[1].bincount(minlength=client.data.outputs) > 0
        return None if bool(has.all()) else has

    def without(self, reply: Payload, labels: Tensor) -> Payload:
        """The reply, less the rows of the output layer that belong to labels which the client does not have."""
        head = self.setup.maskable[-1].rpartition(".")[0]
        held = dict(reply.masks)
        for name in (f"{head}.weight", f"{head}.bias"):
            shape = self.setup.shapes.get(name, ())
            if shape[:1] == labels.shape:
                grid = held.get(name)
                axes = grid.axes if isinstance(grid, Grid) else (None,) * len(shape)
                held[name] = Grid(shape, (labels, *axes[1:]))
        weights = masks.apply(reply.weights, {n: m.dense() for n, m in held.items()})
        return replace(reply, weights=weights, masks=held)


def left_alone(absent: Tensor, loss: Loss) -> Loss:
    """The loss with these outputs at 0, whatever the model says: nothing is learned from them."""
    return lambda model, x, y: loss(lambda x: model(x).masked_fill(absent.to(x.device), 0.0), x, y)  # type: ignore[arg-type]


def scaled(share: float) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """A forward hook that divides what a layer puts out by the share of units that it still has."""
    return lambda layer, inputs, out: out / share

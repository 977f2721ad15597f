"""All that the client's half of a method may touch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fedsparse import codec, masks, train
from fedsparse.flops import Counter, Flops
from fedsparse.payload import Grid, Mask, Payload, Schema, Spec
from fedsparse.randomness import generator, integer
from fedsparse.store import Store
from fedsparse.strategy import Setup

if TYPE_CHECKING:
    from fedsparse.data import Data
    from fedsparse.experiment import Train
    from fedsparse.split import Parts

Tensors = Mapping[str, Tensor]
Part = Literal["train", "validation", "test"]
BATCH_NORM = "batch_norm"


@dataclass
class Client:
    """One client in one task. Its data, its store, its model and its randomness; nothing of any other client.

    `initial`: the model before the first round; `local`: names of the tensors that never travel (BatchNorm, with
    `local_bn`). `values`: the type of what it sends.
    """

    id: int
    round: int
    phase: str
    data: Data
    parts: Parts
    setup: Setup
    options: Train
    net: nn.Module
    initial: Tensors = field(default_factory=dict)
    local: frozenset[str] = frozenset()
    store: Store = field(default_factory=lambda: Store(None))
    values: str = "fp32"
    steps_done: int = 0
    losses: list[float] = field(default_factory=list)
    flops: Flops = field(default_factory=Flops)

    def rng(self, purpose: str) -> np.random.Generator:
        """A generator for this client, round, phase and purpose."""
        return generator(self.setup.seed, self.round, self.phase, self.id, purpose)

    def part(self, part: Part) -> tuple[Tensor, Tensor]:
        """(x, y) of one of the client's parts."""
        rows = torch.from_numpy(np.ascontiguousarray(getattr(self.parts, part)))
        return self.data.x[rows], self.data.y[rows]

    # ---- model ----

    def model(self, weights: Tensors, masks: Mapping[str, Tensor | Mask] | None = None) -> nn.Module:
        """The model with these weights, zero outside the masks. One module is reused: a later call overwrites it.

        What is local to the client (BatchNorm, with `local_bn`) comes from its store, and what is nowhere is as at the
        start.
        """
        weights = {**self.initial, **weights, **(self.store[BATCH_NORM] if self.local else {})}
        dense = {n: m if isinstance(m, Tensor) else m.dense() for n, m in (masks or {}).items()}
        with torch.no_grad():
            for name, own in self.net.state_dict(keep_vars=True).items():
                if name in weights:
                    own.copy_(weights[name])
                if name in dense:
                    own.mul_(dense[name].to(own.device))
                own.grad = None
        return self.net

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Copies of the tensors that travel, by name. Local ones go to the store."""
        state = {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}
        if self.local:
            self.store[BATCH_NORM] = {name: t for name, t in state.items() if name in self.local}
        return {name: tensor for name, tensor in state.items() if name not in self.local}

    # ---- sub-models ----

    def cut(self, received: Payload) -> nn.Module:
        """The sub-model that the masks keep (all without masks): a smaller network of its own, ready for `fit`."""
        channels = self.setup.channels
        kept = channels.kept(received.masks)
        return channels.module({**self.initial, **received.weights}, kept).to(self.device)

    def placed(self, module: nn.Module, received: Payload) -> tuple[dict[str, Tensor], dict[str, Grid]]:
        """(weights, masks) of a reply: a sub-model's tensors in the whole model's shapes, zero outside the masks."""
        channels = self.setup.channels
        kept = channels.kept(received.masks)
        return channels.place(self.weights(module), kept), channels.masks(kept)

    # ---- the wire ----

    @property
    def wire_seed(self) -> int:
        """What the values of this task's reply are rounded at random from."""
        return integer(self.setup.seed, self.round, self.phase, self.id, "wire")

    def dropped(self, reply: Payload) -> dict[str, Tensor]:
        """What the wire will lose of this reply, by flat name: what is sent less what the server will decode.

        The two add up to what is sent, up to one rounding. Zero outside the masks; empty where the wire loses nothing.
        """
        if self.values == "fp32":
            return {}
        sent = {name: np.asarray(tensor) for name, tensor in reply.tensors().items()}
        schema = Schema({n: Spec(a.dtype.name, a.shape) for n, a in sent.items()}, frozenset(reply.masks), partial=True)
        data = codec.encode(reply, values=self.values, seed=self.wire_seed, schema=schema)
        arrived = codec.decode(data, schema, len(data)).tensors()
        lost = {n: torch.as_tensor(a - arrived[n]) for n, a in sent.items() if a.dtype == np.float32}
        return masks.apply(lost, {n: torch.as_tensor(m.dense()) for n, m in reply.masks.items()})

    # ---- training ----

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.net.parameters()).device

    def batches(self, epochs: int | None = None) -> Iterator[train.Batch]:
        """Shuffled mini-batches of the training part, `epochs` times. A last batch of one sample is left out, if others
        are there, because BatchNorm cannot be trained on it."""
        x, y = self.part("train")
        size = self.options.batch_size
        order = self.rng(f"batches {self.steps_done}")
        for _ in range(self.options.epochs if epochs is None else epochs):
            rows = torch.from_numpy(order.permutation(len(y)))
            for batch in rows.split(size):
                if len(batch) > 1 or size == 1 or len(y) == 1:
                    yield x[batch].to(self.device), y[batch].to(self.device)

    def steps(
        self,
        model: nn.Module,
        *,
        loss: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None,
        before_step: Callable[[nn.Module], None] | None = None,
        masks: Tensors | None = None,
        epochs: int | None = None,
        flops: Callable[[nn.Module, Tensor], Flops] | None = None,
    ) -> Iterator[float]:
        """The local loop, one step for each loss that is taken from it. `loss` defaults to the task's.

        flops: what the step that was just made on inputs (N, ...) costs, where that is not the model's own forward and
        backward.
        """
        options = self.options
        rate = options.lr * options.lr_decay ** (self.round - 1)
        optimise = train.optimizer(model, options.optimizer, rate, options.momentum, options.weight_decay)
        loop = train.steps(
            model,
            self._counted(model, epochs, flops),
            optimise,
            loss=loss or self.loss,
            before_step=before_step,
            masks=masks,
            clip=options.clip,
        )
        for value in loop:
            self.steps_done += 1
            self.losses.append(value)
            yield value

    def _counted(
        self, model: nn.Module, epochs: int | None, flops: Callable[[nn.Module, Tensor], Flops] | None
    ) -> Iterator[train.Batch]:
        """The batches; when the next one is asked for, the step on the last one is counted."""
        counter = Counter(model)
        for x, y in self.batches(epochs):
            yield x, y
            self.flops += counter.step(x) if flops is None else flops(model, x)

    def fit(self, model: nn.Module, **how: object) -> None:
        """Run the whole local loop; takes what `steps` takes."""
        for _ in self.steps(model, **how):  # type: ignore[arg-type]
            pass

    def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The task's loss on a batch: a scalar tensor."""
        return train.task_loss(self.data.task)(model, x, y)

    def validate(self, model: nn.Module) -> float:
        """The data set's metric on the client's validation part: the only one that may steer a method."""
        x, y = self.part("validation")
        self.flops += Counter(model).forward(x)
        return train.evaluate(model, x, y, self.data.task, unit=self.data.unit)[0]

"""Random ERK: FedAvg on a mask that is drawn once at random and costs no bytes, because both sides draw it.

Liu et al.: The Unreasonable Effectiveness of Random Pruning, arXiv 2202.02643 (ICLR 2022). How dense each layer is
follows from its shape (Erdos-Renyi-Kernel), which weights are kept is drawn from the seed. Only values travel. The
cheapest sparse baseline: a method that searches for its mask has to beat it.

Differences from the paper: the initial weights are divided by the root of their layer's density, because a kept weight
has fewer neighbours (`rescale`; without it the net starts too small and every other sparse method looks good). No layer
is dense by rule. The paper trains one net on one machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Self

from pydantic import PrivateAttr
from torch import Tensor

from fedsparse import masks
from fedsparse.client import Client
from fedsparse.distributions import erk
from fedsparse.options import Share
from fedsparse.payload import Bits, Payload, Schema
from fedsparse.sparsifiers import random
from fedsparse.strategies.fedavg import FedAvg
from fedsparse.strategy import Node, Setup, State, Tensors


class RandomERK(FedAvg):
    """Random ERK: FedAvg on a mask that is drawn once at random and costs no bytes, because both sides draw it."""

    density: Share = 0.1
    """Share of the maskable weights that is kept."""
    rescale: bool = True
    """Whether initial weights are divided by the root of their layer's density."""

    _schema: Schema = PrivateAttr()

    def bind(self, setup: Setup) -> Self:
        bound = super().bind(setup)
        agreed = {name: Bits(mask) for name, mask in bound.mask().items()}
        bound._schema = dataclasses.replace(setup.schema, agreed=agreed)
        return bound

    def mask(self) -> dict[str, Tensor]:
        """The mask that the seed draws: boolean tensors of the maskable weights."""
        shapes = {name: tuple(self.setup.shapes[name]) for name in self.setup.maskable}
        return random.masks(erk(shapes, self.density), shapes, self.setup.seed)

    # ---- server ----

    def init(self, weights: Tensors, nodes: Sequence[Node]) -> State:
        mask = {name: bits.dense() for name, bits in self._schema.agreed.items()}
        shares = {name: float(m.double().mean()) for name, m in mask.items()}
        scaled = {n: w / shares[n] ** 0.5 if self.rescale and shares.get(n) else w for n, w in weights.items()}
        return State(masks.apply(scaled, mask), mask)

    # ---- client ----

    def train(self, received: Payload, client: Client) -> Payload:
        mask = masks.bits(received)
        model = client.model(received.weights, mask)
        client.fit(model, masks=mask)
        return Payload(masks.apply(client.weights(model), mask), mask)

    # ---- both ----

    def downlink_schema(self, phase: str) -> Schema:
        return self._schema

    def uplink_schema(self, phase: str) -> Schema:
        return self._schema

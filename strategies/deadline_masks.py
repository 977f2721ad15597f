"""Deadline masks: each client trains the densest model that its device can bear before the deadline.

A global model pruned by magnitude to each client's capability: Han, Pool, Tran, Dally, Learning both Weights and
Connections for Efficient Neural Networks, arXiv 1506.02626, with the mean over holders of HeteroFL, arXiv 2010.01264.
The server keeps dense weights. A client receives the largest of them, over all layers together, as many as its memory,
its links and its speed allow; masks of slower clients lie within those of faster ones. A weight is averaged over the
clients that hold it; what nobody holds keeps its value and may come back.

Differences from the paper: neither has this method. There is no retraining to recover, as training goes on anyway; and
where HeteroFL cuts whole units, single weights are pruned, so messages shrink, and computation only on devices with
sparse kernels.
"""

from __future__ import annotations

from dataclasses import replace

from fedsparse import masks
from fedsparse.client import Client
from fedsparse.options import Share
from fedsparse.payload import Payload
from fedsparse.sparsifiers import magnitude
from fedsparse.strategy import Node, Replies, State, Strategy, Task


class DeadlineMasks(Strategy):
    """Deadline masks: each client trains the densest model that its device can bear before the deadline."""

    steers = True

    density: Share = 1.0
    """Largest share of the maskable weights that any client gets."""

    # ---- server ----

    def check(self) -> None:
        for node in self.setup.nodes:
            self.setup.planner.densest(node)

    def send(self, state: State, node: Node, task: Task) -> Payload:
        density = min(self.density, self.setup.planner.densest(node))
        if density == 1:
            return state.payload
        scores = magnitude.score(state.weights, self.setup.maskable)
        mask = masks.top_k(scores, round(density * sum(self.setup.sizes.values())))
        return Payload(masks.apply(state.weights, mask), mask)

    def merge(self, state: State, replies: Replies, task: Task) -> State:
        return replace(state, weights=masks.masked_mean(replies, otherwise=state.weights))

    # ---- client ----

    def train(self, received: Payload, client: Client) -> Payload:
        mask = masks.bits(received)
        model = client.model(received.weights, mask)
        client.fit(model, masks=mask)
        return Payload(masks.apply(client.weights(model), mask), mask)

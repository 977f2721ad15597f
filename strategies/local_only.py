"""Local only: each client trains a model of its own and nothing is shared.

A baseline as old as the field (for example "local" in Smith, Chiang, Sanjabi, Talwalkar: Federated Multi-Task Learning,
arXiv 1705.10467). All clients start from the same weights, which both sides draw from the seed, train in the rounds in
which they are in the cohort, and send nothing: messages are empty. A personal method that does not beat it has no use
for its federation.

Differences from the paper: there local models are trained to the end; here they get the same cohorts, epochs and steps
as every other method. A client that was never in a cohort has the initial weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from fedsparse.client import Client
from fedsparse.payload import Payload, Schema
from fedsparse.strategy import Node, Replies, State, Strategy, Task, Tensors

NOTHING = Schema({})


class LocalOnly(Strategy):
    """Local only: each client trains a model of its own and nothing is shared."""

    def init(self, weights: Tensors, nodes: Sequence[Node]) -> State:
        return State()

    def merge(self, state: State, replies: Replies, task: Task) -> State:
        return state

    def global_model(self, state: State) -> None:
        return None

    def train(self, received: Payload, client: Client) -> Payload:
        model = client.model(client.store["model"])
        client.fit(model)
        client.store["model"] = client.weights(model)
        return Payload()

    def personal(self, received: Payload, client: Client) -> nn.Module:
        return client.model(client.store["model"])

    def downlink_schema(self, phase: str) -> Schema:
        return NOTHING

    def uplink_schema(self, phase: str) -> Schema:
        return NOTHING

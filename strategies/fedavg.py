"""FedAvg: average the clients' weights by their number of training samples.

McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, arXiv 1602.05629.
Each client of the cohort trains the global model on its own data; the server takes the weighted mean.

Differences from the paper: none in the rule. Weighted mean by training samples over the replies that arrived; buffers
of BatchNorm are averaged like weights.
"""

from __future__ import annotations

from dataclasses import replace

from fedsparse.client import Client
from fedsparse.masks import masked_mean
from fedsparse.payload import Payload
from fedsparse.strategy import Replies, State, Strategy, Task


class FedAvg(Strategy):
    """FedAvg: average the clients' weights by their number of training samples."""

    def train(self, received: Payload, client: Client) -> Payload:
        model = client.model(received.weights)
        client.fit(model)
        return Payload(weights=client.weights(model))

    def merge(self, state: State, replies: Replies, task: Task) -> State:
        return replace(state, weights=masked_mean(replies, otherwise=state.weights))

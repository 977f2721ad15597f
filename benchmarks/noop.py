"""A strategy that moves a model and trains nothing: what is left is the cost of the engine."""

from __future__ import annotations

from dataclasses import replace

from fedsparse.client import Client
from fedsparse.masks import masked_mean
from fedsparse.payload import Payload
from fedsparse.strategy import Replies, State, Strategy, Task


class NoOp(Strategy):
    """Move the whole model both ways and average it; train nothing."""

    def train(self, received: Payload, client: Client) -> Payload:
        return Payload(weights=received.weights)

    def merge(self, state: State, replies: Replies, task: Task) -> State:
        return replace(state, weights=masked_mean(replies, otherwise=state.weights))

"""Strategies for tests of what is held: one notes what the wire will lose, one spoils what it was given."""

from __future__ import annotations

from fedsparse.client import Client
from fedsparse.payload import Payload
from fedsparse.strategies.fedavg import FedAvg


class Dropping(FedAvg):
    """FedAvg whose clients keep what they send, and what of it will be dropped."""

    def train(self, received: Payload, client: Client) -> Payload:
        reply = super().train(received, client)
        client.store["sent"], client.store["dropped"] = reply.weights, client.dropped(reply)
        return reply


class Spoiling(FedAvg):
    """FedAvg whose clients overwrite what they received."""

    def train(self, received: Payload, client: Client) -> Payload:
        reply = super().train(received, client)
        for tensor in received.weights.values():
            tensor.zero_()
        return reply

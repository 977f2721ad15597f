"""Strategies that misbehave on purpose, for tests of what a run does about it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch

from fedsparse.client import Client
from fedsparse.payload import Payload
from fedsparse.strategies.fedavg import FedAvg


class Killer(FedAvg):
    """FedAvg whose client 1 kills its own process in round 2: once where `marker` is a file to be made, else always."""

    marker: str = ""
    """A file that says that it has happened."""

    def train(self, received: Payload, client: Client) -> Payload:
        reply = super().train(received, client)
        client.store["visits"] = {"count": client.store["visits"].get("count", torch.tensor(0)) + 1}
        if client.id == 1 and client.round == 2 and not (self.marker and Path(self.marker).exists()):
            if self.marker:
                Path(self.marker).touch()
            client.store.commit()  # the worst moment: the state is written, the reply is not
            os.kill(os.getpid(), signal.SIGKILL)
        return reply


class Poison(FedAvg):
    """FedAvg whose client 2 sends a weight that is not a number."""

    def train(self, received: Payload, client: Client) -> Payload:
        reply = super().train(received, client)
        if client.id == 2:
            next(iter(reply.weights.values())).view(-1)[0] = torch.nan
        return reply


class Broken(FedAvg):
    """FedAvg whose clients raise: all of them in round `round`, or `client` alone."""

    client: int = -1
    """The client that raises; -1: all."""
    round: int = 2
    """The round in which they do."""

    def train(self, received: Payload, client: Client) -> Payload:
        if client.round == self.round and self.client in (-1, client.id):
            raise ValueError("no such luck")
        return super().train(received, client)


class Panic(FedAvg):
    """FedAvg whose client 1 raises what no `except Exception` catches, once."""

    marker: str = ""
    """A file that says that it has happened."""

    def train(self, received: Payload, client: Client) -> Payload:
        if client.id == 1 and client.round == 2 and not Path(self.marker).exists():
            Path(self.marker).touch()
            raise BaseException("a panic")
        return super().train(received, client)

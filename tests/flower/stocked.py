"""A stock Flower app of three clients behind a wire that counts, for the tests of the codec under it."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.serverapp.strategy import Strategy

from fedsparse.flower import private
from fedsparse.flower.grids import CLIENT_FAILED, OwnGrid

SHAPES = {"conv/kernel": (8, 3, 3, 3), "fc.weight": (10, 300), "fc.bias": (10,), "": (2,), "scale": ()}
CLIENTS = 3
Spoil = Callable[[Message], None]


def weights(seed: int = 0) -> ArrayRecord:
    """A model, half of whose weights are zero, a few with a sign, and names that the codec has no place for."""
    rng = np.random.default_rng(seed)
    drawn = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    zeros = {name: np.where(x < -2, -0.0, 0.0) for name, x in drawn.items()}
    return ArrayRecord({n: Array(np.asarray(np.where(x > 0, x, zeros[n]), np.float32)) for n, x in drawn.items()})


def app(*mods: Any) -> ClientApp:
    """Clients that move each weight a little, and measure its norm."""
    made = ClientApp(mods=list(mods))

    @made.train()
    def train(message: Message, context: Context) -> Message:
        rng = np.random.default_rng(context.node_id)
        moved = {}
        for name, array in message.content["arrays"].items():
            x = array.numpy()
            moved[name] = Array(np.asarray(x + (x != 0) * 0.01 * rng.normal(size=x.shape), np.float32))
        told = MetricRecord({"num-examples": 10 * context.node_id})
        return Message(RecordDict({"arrays": ArrayRecord(moved), "metrics": told}), reply_to=message)

    @made.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        norm = sum(float(np.abs(x).sum()) for x in message.content["arrays"].to_numpy_ndarrays())
        told = MetricRecord({"num-examples": 1, "norm": norm})
        return Message(RecordDict({"metrics": told}), reply_to=message)

    @made.query()
    def query(message: Message, context: Context) -> Message:
        return Message(message.content, reply_to=message)

    return made


class Wire(OwnGrid):
    """A ClientApp behind Flower's serialisation, which counts the bytes of arrays in both directions."""

    def __init__(self, app: ClientApp, spoil: Spoil | None = None) -> None:
        super().__init__(CLIENTS, {})
        self.app, self.spoil, self.sent = app, spoil, {"down": 0, "up": 0}

    def _carried(self, message: Message, direction: str) -> Message:
        proto = message_to_proto(message)
        for item in proto.content.items:
            self.sent[direction] += sum(len(entry.value.data) for entry in item.array_record.items)
        return message_from_proto(type(proto).FromString(proto.SerializeToString()))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        for i, message in enumerate(messages):
            private.set_message_id(message, f"message {i}")
            node = message.metadata.dst_node_id
            try:
                reply = self.app(self._carried(message, "down"), Context(1, node, {}, RecordDict(), {}))
            except Exception as error:
                reply = Message(Error(CLIENT_FAILED, str(error)), reply_to=message)
            if self.spoil and node == 2 and not reply.has_error():
                self.spoil(reply)
            yield reply if reply.has_error() else self._carried(reply, "up")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Flower's log, without what it prints of each round."""
    log = logging.getLogger("flwr")
    level, log.level = log.level, logging.ERROR
    yield
    log.level = level


def trained(strategy: Strategy, grid: Any, rounds: int = 3) -> Any:
    random.seed(0)  # Flower draws the order of clients
    return strategy.start(grid=grid, initial_arrays=weights(), num_rounds=rounds)


def query(grid: Any, content: RecordDict) -> Message:
    (reply,) = grid.send_and_receive([Message(content, 1, "query")])
    return reply


def same(one: ArrayRecord, other: ArrayRecord) -> bool:
    """Equal names in equal order, and equal bytes of each array."""
    return [*one.items()] == [*other.items()]

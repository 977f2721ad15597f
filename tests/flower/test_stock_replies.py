"""Replies that must not be used, under any Flower app: the client fails, and the run goes on."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from flower.stocked import Spoil, Wire, app, query, same, trained, weights
from flower.stocked import quiet as quiet  # a fixture for every test here
from flwr.app import Array, ArrayRecord, Error, Message, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedsparse import codec
from fedsparse.flower import CompressedGrid, compress_mod, records
from fedsparse.flower.grids import CLIENT_FAILED
from fedsparse.payload import Payload


def _opaque(reply: Message) -> Array:
    return reply.content["arrays"][records.KEY]


def _flipped(reply: Message) -> None:
    array = _opaque(reply)
    array.data = array.data[:100] + bytes([array.data[100] ^ 1]) + array.data[101:]


def _cut(reply: Message) -> None:
    _opaque(reply).data = _opaque(reply).data[:20]


def _foreign(reply: Message) -> None:
    """Arrays that are fine, and of other shapes than those that were sent."""
    named = {name: Array(np.ones(2, np.float32)) for name in "ab"}
    _, held = records.pack(ArrayRecord(named), "fp32", None)
    packed, _ = records.pack(ArrayRecord(named), "fp32", held)
    reply.content["arrays"] = packed


def _huge(reply: Message) -> None:
    """A gigabyte in a few bytes: whoever believes it is lost."""
    many = {name: np.zeros(1 << 22, np.float32) for name in "abc"}
    data = codec.encode(Payload(many, dict.fromkeys(many, np.zeros(1 << 22, np.bool_))))
    _opaque(reply).data = data


def _twice(reply: Message) -> None:
    reply.content["arrays"]["0/scale"] = Array(np.ones(1, np.float32))


def _nowhere(reply: Message) -> None:
    reply.content["arrays"]["here/x"] = Array(np.ones(1, np.float32))


@pytest.mark.parametrize("spoil", [_flipped, _cut, _foreign, _huge, _twice, _nowhere])
def test_a_reply_that_cannot_be_read_is_that_of_a_failed_client(spoil: Spoil) -> None:
    wire = Wire(app(compress_mod), spoil)
    grid = CompressedGrid(wire, max_bytes=1 << 20)
    result = trained(FedAvg(fraction_evaluate=0.0), grid, rounds=2)
    assert sorted((row.node, row.refused) for row in grid.transfers if row.direction == "up") == [
        *[(1, False)] * 2, *[(2, True)] * 2, *[(3, False)] * 2,
    ]  # fmt: skip
    assert sum(row.sent for row in grid.transfers if row.direction == "up") == wire.sent["up"]

    def lost(reply: Message) -> None:
        reply.__dict__.update(_content=None, _error=Error(CLIENT_FAILED, "gone"))

    without = trained(FedAvg(fraction_evaluate=0.0), Wire(app(), lost), rounds=2)
    assert same(result.arrays, without.arrays)


def test_the_error_names_the_node_and_the_reason() -> None:
    grid = CompressedGrid(Wire(app(compress_mod), _flipped))
    (reply,) = grid.send_and_receive([Message(RecordDict({"arrays": weights()}), 2, "query")])
    assert reply.has_error() and reply.metadata.src_node_id == 2
    assert "refused" in str(reply.error.reason) and "checksum" in str(reply.error.reason)


def test_a_client_refuses_what_is_too_large_for_it() -> None:
    grid = CompressedGrid(Wire(app(partial(compress_mod, max_bytes=1000))))
    reply = query(grid, RecordDict({"arrays": weights()}))
    assert reply.has_error() and reply.error.code == CLIENT_FAILED

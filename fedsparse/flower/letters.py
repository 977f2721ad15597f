"""What a driver and its Ray workers send each other: a line of JSON for what is small, and payloads as they are.

Plain bytes are what Ray moves fastest, and nobody has to unpickle what a run has made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from flwr.app import Error, Message

from fedsparse import codec
from fedsparse.flower import private, wire
from fedsparse.payload import Ids

Letter = tuple[Message, str, Ids, int]  # a message, its phase and ids, which content


def pack(letters: Sequence[Letter]) -> bytes:
    """The messages of a batch without their contents."""
    rows = [(private.fields(message.metadata), phase, astuple(ids), place) for message, phase, ids, place in letters]
    return json.dumps(rows).encode()


def unpack(letters: bytes, contents: Sequence[bytes]) -> list[Message]:
    """The messages again; each content is stamped with its receiver's ids."""
    return [
        private.message(fields, wire.content(codec.stamp(contents[place], Ids(*ids)), phase))
        for fields, phase, ids, place in json.loads(letters)
    ]


def pack_replies(replies: Sequence[Message], seconds: float) -> list[bytes]:
    """The replies of a batch: a line about all of them, then the payload of each (empty for an error)."""
    rows: list[Any] = []
    payloads = []
    for reply in replies:
        data, told = b"", [0, ""]
        if reply.has_error():
            told = [reply.error.code, reply.error.reason]
        else:
            data, phase, cost = wire.unpack(reply)
            told = [phase, astuple(cost)]
        rows.append((private.fields(reply.metadata), reply.has_error(), *told))
        payloads.append(data)
    return [json.dumps([seconds, rows]).encode(), *payloads]


def unpack_replies(packed: Sequence[bytes]) -> tuple[list[Message], float]:
    """The replies again, and the seconds that they took."""
    seconds, rows = json.loads(packed[0])
    replies = []
    for (fields, failed, first, second), data in zip(rows, packed[1:], strict=True):
        content = Error(first, second) if failed else wire.content(data, first, wire.Cost(*second))
        replies.append(private.message(fields, content))
    return replies, seconds

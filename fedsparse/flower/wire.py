"""Payloads to bytes to Flower messages, and back: the one place of both sides that encodes and decodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from fedsparse import codec
from fedsparse.flower import private
from fedsparse.payload import Bits, Ids, Mask, Payload, Schema, Tensors

STYPE = "fedsparse/1"
PAYLOAD, TASK = "payload", "task"
NOT_HELD = "not held"  # the phase of a reply that asks for the whole payload
NOTHING = Schema({})  # of payloads without tensors


Masks = Mapping[str, Mask]


@dataclass(frozen=True)
class Cost:
    """What a client tells of its work, beside the payload: real seconds, and the FLOPs of its training."""

    seconds: float = 0.0
    flops: float = 0.0
    flops_sparse: float = 0.0


class Refused(ValueError):
    """A payload that decodes, but must not be used."""


def encode(
    payload: Payload, schema: Schema, ids: Ids, values: str = "fp32", seed: int = 0,
    known: Masks | None = None, reference: Tensors | None = None,
) -> bytes:  # fmt: skip
    """Bytes of a payload. `known` and `reference` are what the receiver holds; `seed` is for rounding."""
    return codec.encode(payload, values=values, known=known, reference=reference, seed=seed, schema=schema, ids=ids)


def decode(data: bytes, schema: Schema, known: Masks | None = None, reference: Tensors | None = None) -> Payload:
    """A payload of tensors, checked against the schema; Refused when a weight is not finite."""
    payload = codec.decode(data, schema, max_bytes(schema), known=known, reference=reference)
    for name, array in payload.tensors().items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise Refused(f"tensor {name!r} holds values that are not finite")
    return replace(
        payload,
        weights={n: torch.from_numpy(a) for n, a in payload.weights.items()},
        masks={n: Bits(torch.from_numpy(m.dense())) for n, m in payload.masks.items()},
        extra={g: {n: torch.from_numpy(a) for n, a in ts.items()} for g, ts in payload.extra.items()},
    )


def max_bytes(schema: Schema) -> int:
    """No honest payload of this schema is longer: all tensors dense, a byte an element for masks, and 1 MB beside."""
    return schema.dense_bytes + 1_000_000


def content(data: bytes, phase: str, cost: Cost | None = None) -> RecordDict:
    """A message's content: the payload as one opaque array, the phase beside it, and in a reply its cost."""
    array = Array(dtype="uint8", shape=(len(data),), stype=STYPE, data=data)
    task = ConfigRecord({"phase": phase} if cost is None else {"phase": phase, **asdict(cost)})
    return RecordDict({PAYLOAD: ArrayRecord({PAYLOAD: array}), TASK: task})


def unpack(message: Message) -> tuple[bytes, str, Cost]:
    """(payload bytes, phase, cost) of a message; Refused when it is not one of ours."""
    records = message.content
    try:
        array, task = records.array_records[PAYLOAD][PAYLOAD], records.config_records[TASK]
    except KeyError as missing:
        raise Refused(f"the message has no record {missing}") from None
    if array.stype != STYPE:
        raise Refused(f"the payload is of type {array.stype!r}, not {STYPE!r}")
    told = {field.name: task.get(field.name, 0.0) for field in fields(Cost)}
    if not all(isinstance(value, float) and 0 <= value < math.inf for value in told.values()):
        raise Refused(f"its cost is {told!r}")
    return array.data, str(task.get("phase", "")), Cost(**told)  # type: ignore[arg-type]


def client_of(reply: Message) -> int:
    """The client that a reply comes from: in our grids a node's id is its partition's number plus one."""
    return reply.metadata.src_node_id - 1


def transport(data: bytes, phase: str, message_type: str, up: bool) -> int:
    """Bytes of the serialised Flower message beside the payload."""
    told = tuple(field.name for field in fields(Cost)) if up else ()
    return private.transport_bytes(len(data).bit_length(), phase, message_type, told)

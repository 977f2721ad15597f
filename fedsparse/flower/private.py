"""All private names of Flower 1.39, in one place; `tests/flower/test_private.py` holds them to what we use."""

from __future__ import annotations

from functools import lru_cache

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, RecordDict
from flwr.common.serde import message_to_proto
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SERVER_NODE = 1  # the node id that Flower gives to a server in its own in-process simulation


def identify(run_id: int) -> None:
    """Say who this process is; without it Flower refuses to make a Message."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = run_id, run_id, SERVER_NODE


def empty_run(run_id: int) -> Run:
    """The record of a run that no SuperLink knows."""
    return Run.create_empty(run_id)


def set_message_id(message: Message, message_id: str) -> None:
    """Number a message, as a SuperLink would."""
    message.metadata.__dict__["_message_id"] = message_id


__all__ = ["Run", "empty_run", "fields", "identify", "message", "rebuild", "set_message_id", "transport_bytes"]


def fields(metadata: Metadata) -> dict[str, str | int | float | None]:
    """All that a message's metadata hold, by Flower's own names."""
    return dict(vars(metadata))


def message(fields: dict[str, str | int | float | None], content: RecordDict | Error) -> Message:
    """A message with the metadata that `fields` told."""
    metadata = Metadata.__new__(Metadata)
    vars(metadata).update(fields)
    return rebuild(metadata, content)


def rebuild(metadata: Metadata, content: RecordDict | Error) -> Message:
    """A message with another's metadata."""
    # Flower makes messages this way itself, but its overloads do not list it.
    return Message(content, metadata=metadata)  # type: ignore[call-overload]


@lru_cache(maxsize=512)
def transport_bytes(length_bits: int, phase: str, message_type: str, told: tuple[str, ...] = ()) -> int:
    """Bytes of a serialised Flower message beside its payload; exact up to the width of a length field.

    told: names of the numbers that stand beside the phase.
    """
    length = (1 << min(length_bits, 24)) - 1  # beyond 16 MB a length field may be a byte wider
    array = Array(dtype="uint8", shape=(length,), stype="fedsparse/1", data=bytes(length))
    task = ConfigRecord({"phase": phase})
    for name in told:
        task[name] = 0.5
    content = RecordDict({"payload": ArrayRecord({"payload": array}), "task": task})
    message = Message(content, dst_node_id=SERVER_NODE, message_type=message_type)
    set_message_id(message, "0" * 32)
    # Ids of one width in every runtime: Flower's own are random, and their width with them.
    message.metadata.__dict__.update(_run_id=1 << 59, _src_task_id=1 << 59, _src_node_id=SERVER_NODE)
    return int(message_to_proto(message).ByteSize()) - length

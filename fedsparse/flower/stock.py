"""This codec under any Flower app: `CompressedGrid` on the server, `compress_mod` in the ClientApp, nothing else.

Each ArrayRecord of a message travels as one opaque Array; a ConfigRecord beside it says that the server reads such
Arrays, and how values are to be sent back. Where that is missing the mod does nothing, so one ClientApp serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.serverapp import Grid

from fedsparse import codec
from fedsparse.flower import private, records
from fedsparse.flower.records import KEY, Held
from fedsparse.payload import Payload

MAX_BYTES = 2 << 30
REFUSED = 0  # Flower's code of an error of no kind of its own


@dataclass(frozen=True)
class _Sent:
    """What is kept of a message until its reply is there."""

    exchange: int = 0
    held: Mapping[str, Held] = field(default_factory=dict)


@dataclass(frozen=True)
class Transfer:
    """The arrays of one message. `exchange` counts the calls that sent messages, from 1.

    sent:    bytes of their data as they were sent; `stock` as Flower alone would have sent them.
    refused: the reply could not be read, and counts as that of a client that failed; its `stock` is 0.
    """

    exchange: int
    type: str
    group: str
    node: int
    direction: str
    sent: int
    stock: int
    refused: bool = False


class CompressedGrid(Grid):
    """A Grid whose messages carry their arrays as payloads of this codec.

    values:    how values are sent, in both directions: "fp32" without loss, or "bf16", "fp16", "int8", "int4".
    max_bytes: a reply whose arrays would be larger than this is refused. (Most replies can only be as large as what
               was sent: they cite its names and shapes.)
    """

    def __init__(self, grid: Grid, values: str = "fp32", max_bytes: int = MAX_BYTES) -> None:
        codec.encode(Payload(), values=values, seed=0)  # an unknown name is refused here, not in round 1
        self.grid, self.values, self.max_bytes = grid, values, max_bytes
        self.transfers: list[Transfer] = []
        self._waiting: dict[str, _Sent] = {}  # by the id of the message that is to be answered
        self._exchange = 0

    def summary(self) -> dict[str, float]:
        """Megabytes sent in each direction, and their share of what Flower alone would have sent."""
        sent = {d: sum(t.sent for t in self.transfers if t.direction == d) for d in ("down", "up")}
        stock = sum(t.stock for t in self.transfers)
        total = sum(sent.values())
        return {"mb_down": sent["down"] / 1e6, "mb_up": sent["up"] / 1e6, "share": total / stock if stock else 1.0}

    # ---- messages ----

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send the messages, packed."""
        outgoing, sent = self._pack(messages)
        ids = self.grid.push_messages(outgoing)
        self._waiting |= {m.metadata.message_id: s for m, s in zip(outgoing, sent, strict=True)}
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are there, unpacked; one that cannot be read becomes an error reply."""
        return [
            self._open(reply, self._waiting.pop(reply.metadata.reply_to_message_id, _Sent()))
            for reply in self.grid.pull_messages(message_ids)
        ]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Both in one call."""
        outgoing, sent = self._pack(messages)
        replies = list(self.grid.send_and_receive(outgoing, timeout=timeout))
        asked = {m.metadata.message_id: s for m, s in zip(outgoing, sent, strict=True)}
        return [self._open(reply, asked.get(reply.metadata.reply_to_message_id, _Sent())) for reply in replies]

    def _pack(self, messages: Iterable[Message]) -> tuple[list[Message], list[_Sent]]:
        """The messages as they travel; a record that several of them share is encoded once."""
        self._exchange += 1
        messages = list(messages)
        packed: dict[int, tuple[ArrayRecord, Held | None]] = {}
        outgoing, sent = [], []
        for message in messages:
            if KEY in message.content:
                raise ValueError(f"a message has a record of the name {KEY!r}, which is the codec's own")
            content, held = RecordDict(), {}
            for name, record in message.content.items():
                if isinstance(record, ArrayRecord):
                    if id(record) not in packed:
                        packed[id(record)] = records.pack(record, self.values, None)
                    record, held[name] = packed[id(record)]
                content[name] = record
            self._book(self._exchange, message, "down", content, message.content)
            content[KEY] = ConfigRecord({"values": self.values})
            outgoing.append(private.rebuild(message.metadata, content))
            sent.append(_Sent(self._exchange, {name: known for name, known in held.items() if known}))
        return outgoing, sent

    def _open(self, reply: Message, sent: _Sent) -> Message:
        if reply.has_error():
            return reply
        try:
            content, _ = records.unpack(reply.content, sent.held, self.max_bytes)
        except ValueError as why:
            self._book(sent.exchange, reply, "up", reply.content, None)
            return private.rebuild(reply.metadata, Error(REFUSED, f"the reply was refused: {why}"))
        self._book(sent.exchange, reply, "up", reply.content, content)
        return private.rebuild(reply.metadata, content)

    def _book(
        self, exchange: int, message: Message, direction: str, sent: RecordDict, stock: RecordDict | None
    ) -> None:
        about = message.metadata
        self.transfers.append(
            Transfer(
                exchange=exchange,
                type=about.message_type,
                group=about.group_id,
                node=about.dst_node_id if direction == "down" else about.src_node_id,
                direction=direction,
                sent=records.size(sent),
                stock=0 if stock is None else records.size(stock),
                refused=stock is None,
            )
        )

    # ---- everything else is the wrapped Grid's ----

    @property
    def run(self) -> private.Run:
        return self.grid.run

    def set_run(self, run: private.Run) -> None:
        self.grid.set_run(run)

    def get_node_ids(self) -> Iterable[int]:
        return self.grid.get_node_ids()

    def get_nodes(self) -> Iterable[Any]:
        return self.grid.get_nodes()

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return self.grid.create_message(content, message_type, dst_node_id, group_id, ttl)


def compress_mod(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message], *, max_bytes: int = MAX_BYTES
) -> Message:
    """The client's side of `CompressedGrid`, to stand first in `ClientApp(mods=[...])`.

    It keeps nothing between messages. DecodeError where a record cannot be read, or would be larger than `max_bytes`.
    """
    mark = message.content.config_records.get(KEY)
    if mark is None:
        return call_next(message, context)
    content, held = records.unpack(message.content, {}, max_bytes)
    del content[KEY]
    reply = call_next(private.rebuild(message.metadata, content), context)
    if reply.has_error():
        return reply
    values = str(mark["values"])
    packed = {
        name: records.pack(record, values, held.get(name))[0] if isinstance(record, ArrayRecord) else record
        for name, record in reply.content.items()
    }
    return private.rebuild(reply.metadata, RecordDict(packed))

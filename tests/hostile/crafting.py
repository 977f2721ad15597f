"""Payloads put together by hand, with a good checksum, whatever they say."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedsparse.codec import container
from fedsparse.codec.container import Block, Entry
from fedsparse.codec.wire import Buffer, put_varint
from fedsparse.payload import Ids, Schema, Spec

F32, I32 = (container.DTYPE_CODES[name] for name in ("float32", "int32"))
SPECS = {
    "w": Spec("float32", (1000,)),
    "b": Spec("bool", (3,)),
    "s": Spec("float32", (4, 4)),
    "i": Spec("int32", (2,)),
}
SCHEMA = Schema(SPECS, frozenset({"w", "s"}), partial=True)
ROOM = 1 << 20


@dataclass
class Craft:
    """The parts of a payload, to be put together whatever they say."""

    entries: list[Entry] = field(default_factory=list)
    info: bytes = b"\0"
    blocks: list[Block] = field(default_factory=list)
    data: Buffer = b""
    schema: int | None = None
    tail: bytes = b""
    reference: int = 0

    def bytes(self) -> bytes:
        head = bytearray(container.pack_header(Ids(), "weights", "unheld", self.schema, self.reference))
        container.put_table(head, self.entries)
        head += self.info
        container.put_blocks(head, self.blocks)
        return container.join([head, self.data, self.tail])


def entry(
    mask: int = 0, kept: int = 0, mask_len: int = 0, value: int = 1, value_len: int = 0, **other: object
) -> Entry:
    described = {"name": "w", "dtype": F32 if value else 0, "shape": (1000,)} | other
    return Entry(mask, kept, mask_len, value, value_len, **described)  # type: ignore[arg-type]


def varints(*numbers: int) -> bytes:
    out = bytearray()
    for number in numbers:
        put_varint(out, number)
    return bytes(out)

"""What a payload's bytes were spent on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsparse.codec import masks, values
from fedsparse.codec.container import DENSE, Entry
from fedsparse.codec.layout import Layout, layout, mask_stream, own_schema
from fedsparse.codec.wire import Buffer, DecodeError
from fedsparse.payload import Schema


@dataclass(frozen=True)
class Row:
    """One tensor: its modes, how many positions are kept (None: it has no mask), and its bytes.

    Tensors share coded blocks: each is given its share of them, and the shares sum exactly.
    """

    name: str
    mask: str
    values: str
    kept: int | None
    mask_bytes: int
    value_bytes: int


@dataclass(frozen=True)
class Inspection:
    """A payload's bytes by kind: total == values + mask + dense + header."""

    total: int
    values: int  # values of masked tensors
    mask: int  # all that says where they are
    dense: int  # tensors without a mask
    header: int  # everything else: header, table, info, checksum
    tensors: list[Row]


def inspect(data: Buffer, schema: Schema | None = None) -> Inspection:
    """Where a payload's bytes went; DecodeError where they are none. `schema` gives the rows names in place of "#3"."""
    found = layout(data, schema)
    if not found.header.by_schema:
        own_schema(found)  # refuses what is said of a tensor and cannot be
    shares = _Shares(found)
    rows = [_row(entry, shares) for entry in found.present]
    mask = sum(row.mask_bytes for row in rows)
    dense = sum(row.value_bytes for row in rows if row.kept is None)
    masked = sum(row.value_bytes for row in rows if row.kept is not None)
    total = len(found.data)
    return Inspection(total, masked, mask, dense, total - mask - dense - masked, rows)


def _row(entry: Entry, shares: _Shares) -> Row:
    kept = None if entry.mask == DENSE or entry.mask & masks.SUPPORT else entry.kept
    stream = None if entry.mask == DENSE else mask_stream(entry)
    mask = entry.mask_len if stream is None else shares.of(stream, entry.mask_len)
    coded = shares.of(values.STREAMS[entry.value], entry.coded) if entry.coded else 0
    return Row(entry.name or "", masks.name(entry.mask), values.NAMES[entry.value], kept, mask, entry.value_len + coded)


class _Shares:
    """Divides the coded bytes of a stream among its entries, in proportion to their symbols; the sum is exact."""

    def __init__(self, found: Layout):
        self.raw: dict[int, int] = {}
        self.coded: dict[int, int] = {}
        for block in found.blocks:
            self.raw[block.stream] = self.raw.get(block.stream, 0) + block.raw
            self.coded[block.stream] = self.coded.get(block.stream, 0) + block.coded
        self.at = dict.fromkeys(self.raw, 0)

    def of(self, stream: int, length: int) -> int:
        """The next `length` symbols' share."""
        if not length:
            return 0
        before = self.at[stream]
        self.at[stream] = after = before + length
        raw, coded = self.raw[stream], self.coded[stream]
        return after * coded // raw - before * coded // raw


def described(data: Buffer, max_bytes: int) -> Schema:
    """The schema that a payload describes itself: for receivers that know none beforehand, and trust the sender so far.

    DecodeError where the payload cites a schema in place of describing its tensors, or they are larger than
    `max_bytes` in all when they are dense, or more than 65,536.
    """
    found = layout(data)
    if found.header.by_schema:
        raise DecodeError("the payload cites a schema, and does not describe its tensors")
    schema = own_schema(found)
    total = 0
    for name, spec in schema.tensors.items():
        total += masks.size(spec.shape) * (np.dtype(spec.dtype).itemsize + (name in schema.maskable))
        if total > max_bytes:
            raise DecodeError(f"takes the dense size beyond {max_bytes} bytes, more than is allowed", name)
    return schema

"""What a payload's bytes were spent on."""

from __future__ import annotations

from dataclasses import dataclass

from fedsparse.codec import masks, values
from fedsparse.codec.container import DENSE, MISSING, Entry
from fedsparse.codec.decoder import Layout, layout
from fedsparse.codec.wire import Buffer
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
    pairs = zip(found.entries, _shares(found), strict=True)
    rows = [_row(entry, share) for entry, share in pairs if entry.mask != MISSING]
    mask = sum(row.mask_bytes for row in rows)
    dense = sum(row.value_bytes for row in rows if row.kept is None)
    masked = sum(row.value_bytes for row in rows if row.kept is not None)
    total = len(data)
    return Inspection(total, masked, mask, dense, total - mask - dense - masked, rows)


def _row(entry: Entry, share: int) -> Row:
    kept = None if entry.mask == DENSE else entry.kept
    return Row(entry.name or "", masks.name(entry.mask), values.NAMES[entry.value], kept, share, entry.value_len)


def _shares(found: Layout) -> list[int]:
    """Each entry's part of the mask bytes: of a coded stream, in proportion to its symbols; the sum is exact."""
    raw: dict[int, int] = {}
    coded: dict[int, int] = {}
    for block in found.blocks:
        raw[block.stream] = raw.get(block.stream, 0) + block.raw
        coded[block.stream] = coded.get(block.stream, 0) + block.coded
    at = dict.fromkeys(raw, 0)
    shares = []
    for entry in found.entries:
        stream = masks.MODES[entry.mask].stream if entry.mask in masks.MODES else None
        if stream is None or not entry.mask_len:
            shares.append(entry.mask_len)
            continue
        before, at[stream] = at[stream], at[stream] + entry.mask_len
        shares.append(at[stream] * coded[stream] // raw[stream] - before * coded[stream] // raw[stream])
    return shares

"""A payload's bytes, divided and checked: which modes, which lengths, where everything lies. Nothing is decoded yet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsparse.codec import container, info, masks, streams, values
from fedsparse.codec.container import DENSE, DTYPES, MISSING, NO_VALUES, Block, Entry, Header
from fedsparse.codec.wire import Buffer, DecodeError, Reader, octets
from fedsparse.payload import Scalar, Schema, Spec

MOST = 1 << 16  # tensors, and blocks, that are read without a schema: objects take far more memory than their bytes
LARGEST = 1 << 59  # elements of an array, its empty axes aside: 16 bytes of each are what 64 bits can count
BOUND = (masks.KNOWN, masks.DIFFERENCE, masks.AGREED)  # modes that rely on a mask: no support is one


@dataclass(slots=True)
class Layout:
    """A payload's bytes, divided."""

    header: Header
    entries: list[Entry]  # each with a name: the tensor's, or "#3" where only a schema could tell
    info: dict[str, Scalar]
    blocks: list[Block]
    data: memoryview  # the whole payload
    blocks_at: int  # where the blocks' coded bytes begin

    @property
    def present(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.mask != MISSING]


def layout(data: Buffer, schema: Schema | None = None) -> Layout:
    """Divide a payload's bytes. Then all modes are known, all lengths add up, and only the table has taken memory."""
    view = octets(data)
    header = container.header(view)
    reader = Reader(view, container.HEAD.size, len(view) - container.TRAILER)
    if schema is not None and header.by_schema and header.schema != container.schema_hash(schema):
        raise DecodeError("the payload was made for another schema than this receiver's")
    tensors, blocks = _caps(schema)
    entries = container.read_table(reader, header.by_schema, tensors)
    _name(entries, header, schema)
    found = Layout(header, entries, info.read(reader), container.read_blocks(reader, blocks), view, reader.pos)
    lengths: dict[int, int] = {}
    at = reader.pos + sum(block.coded for block in found.blocks)
    for entry in found.present:
        stream = mask_stream(entry)
        entry.mask_at = at if stream is None else -1
        entry.value_at = at + (entry.mask_len if stream is None else 0)
        at = entry.value_at + entry.value_len
        if stream is not None:
            lengths[stream] = lengths.get(stream, 0) + entry.mask_len
        if entry.coded:
            stream = values.STREAMS[entry.value]
            lengths[stream] = lengths.get(stream, 0) + entry.coded
    if at != reader.end:
        raise DecodeError(f"the table promises {at - reader.pos} bytes of data, {reader.end - reader.pos} are there")
    streams.check(found.blocks, lengths)
    return found


def _caps(schema: Schema | None) -> tuple[int, int]:
    """How many tensors and blocks there can be."""
    if schema is None:
        return MOST, MOST
    return len(schema.tensors), len(streams.NAMES) + 2 * schema.dense_bytes // streams.SHORTEST


def _name(entries: list[Entry], header: Header, schema: Schema | None) -> None:
    """Give every entry its name, and refuse duplicates."""
    if not header.by_schema:
        seen: set[str | None] = set()
        for entry in entries:
            if entry.name in seen:
                raise DecodeError("is there twice", entry.name)
            if entry.mask == MISSING:
                raise DecodeError("is listed and missing", entry.name)
            if entry.mask == masks.AGREED:
                raise DecodeError("has an agreed mask without a schema that both sides cite", entry.name)
            seen.add(entry.name)
        return
    names = [f"#{i}" for i in range(len(entries))]
    if schema is not None:
        if len(entries) != len(schema.tensors):
            raise DecodeError("the payload was made for another schema than this receiver's")
        names = list(schema.tensors)
    for entry, name in zip(entries, names, strict=True):
        entry.name = name


def mask_stream(entry: Entry) -> int | None:
    """The stream that holds this entry's mask; refuses modes that this version does not know."""
    if entry.value not in values.NAMES:
        raise DecodeError(f"unknown value mode {entry.value}", entry.name)
    if entry.mask == DENSE:
        if entry.value == NO_VALUES:
            raise DecodeError("has neither a mask nor values", entry.name)
        return None
    mode = entry.mask & ~masks.SUPPORT
    if mode not in masks.MODES or (mode != entry.mask and mode in BOUND):
        raise DecodeError(f"unknown mask mode {entry.mask}", entry.name)
    return masks.MODES[mode].stream


def own_schema(found: Layout) -> Schema:
    """The schema that a payload describes itself; every entry is as it should be."""
    tensors = {entry.name or "": Spec(_dtype(entry), entry.shape or ()) for entry in found.present}
    masked = {entry.name or "" for entry in found.present if entry.mask != DENSE and not entry.mask & masks.SUPPORT}
    schema = Schema(tensors, frozenset(masked), partial=True)
    check(found, schema)
    return schema


def _dtype(entry: Entry) -> str:
    if entry.dtype == 0:  # a mask alone
        return "uint8"
    if entry.dtype is None or entry.dtype > len(DTYPES):
        raise DecodeError(f"has the dtype of code {entry.dtype}, which is none", entry.name)
    return DTYPES[entry.dtype - 1]


def check(found: Layout, schema: Schema) -> None:
    """Every entry is a tensor that this receiver accepts, with the lengths that it must have; none is missing."""
    for entry in found.present:
        _check(entry, schema, found.data)
    if not schema.partial:
        there = {entry.name for entry in found.present if entry.value != NO_VALUES}
        for name in schema.tensors:
            if name not in there:
                raise DecodeError("is missing", name)


def _check(entry: Entry, schema: Schema, data: memoryview) -> None:
    name = entry.name
    spec = schema.tensors.get(name or "")
    if spec is None:
        raise DecodeError("this receiver does not expect it", name)
    if entry.shape is not None and entry.shape != tuple(spec.shape):
        raise DecodeError(f"has shape {entry.shape}, expected is {tuple(spec.shape)}", name)
    code = container.dtype_code(name or "", spec.dtype)
    if entry.dtype is not None and entry.dtype != (0 if entry.value == NO_VALUES else code):
        raise DecodeError(f"has the dtype of code {entry.dtype}, expected is {spec.dtype}", name)
    n = masks.size(spec.shape)
    if not n and masks.size(tuple(filter(None, spec.shape))) >= LARGEST:
        raise DecodeError(f"has shape {tuple(spec.shape)}, which no array can have", name)
    if entry.mask != DENSE:
        _check_mask(entry, n, name in schema.maskable)
    if entry.value != NO_VALUES:
        _check_values(entry, n if entry.mask == DENSE else entry.kept, spec.dtype, data)


def _check_mask(entry: Entry, n: int, maskable: bool) -> None:
    mode = masks.MODES[entry.mask & ~masks.SUPPORT]
    if not maskable and not entry.mask & masks.SUPPORT:
        raise DecodeError("has a mask, which this receiver does not expect", entry.name)
    if entry.mask & masks.SUPPORT and entry.value == NO_VALUES:
        raise DecodeError("has neither a mask nor values", entry.name)
    if entry.kept > n or not mode.fits(n, entry.kept, entry.mask_len):
        raise DecodeError(
            f"{entry.mask_len} bytes ({mode.name}) cannot say which {entry.kept} of {n} are kept", entry.name
        )


def _check_values(entry: Entry, kept: int, dtype: str, data: memoryview) -> None:
    if entry.value != values.RAW and dtype != "float32":
        raise DecodeError(f"the value mode {entry.value} is for float32, it has {dtype}", entry.name)
    good = entry.coded == values.symbols(entry.value, kept)
    if not good or not values.fits(
        entry.value, entry.value_len, kept, np.dtype(dtype).itemsize, lambda: data[entry.value_at + 1]
    ):
        raise DecodeError(f"{entry.value_len} bytes are not {kept} values of {dtype}", entry.name)

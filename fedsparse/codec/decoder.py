"""Bytes to payload, checked against the receiver's schema: whatever bytes say, no buffer is larger than it allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsparse.codec import container, info, masks, streams, values
from fedsparse.codec.container import DENSE, MISSING, NO_VALUES, Block, Entry, Header
from fedsparse.codec.wire import Buffer, DecodeError, Reader
from fedsparse.payload import Bits, Mask, Payload, Scalar, Schema, Spec, Tensors


@dataclass(slots=True)
class Layout:
    """A payload's bytes, divided."""

    header: Header
    entries: list[Entry]  # each with a name: the tensor's, or "#3" where only a schema could tell
    info: dict[str, Scalar]
    blocks: list[Block]
    reader: Reader  # stands at the first byte of the data


def decode(
    data: Buffer,
    schema: Schema,
    max_bytes: int,
    *,
    known: Mapping[str, Mask] | None = None,
    reference: Tensors | None = None,
) -> Payload:
    """The payload that these bytes hold: fresh NumPy arrays, masks as `Bits`.

    schema:    what this receiver accepts; its shapes bound all memory.
    max_bytes: longer data is refused unread.
    known:     the masks that this receiver holds, by the tensor's flat name.
    reference: for value modes to come.

    DecodeError (naming the tensor where it is one's fault) for anything but an acceptable payload; its subclass
    UnknownMask where the payload relies on a mask that is not in `known`.
    """
    if len(data) > max_bytes:
        raise DecodeError(f"{len(data)} bytes, at most {max_bytes} are allowed")
    found = layout(data, schema)
    if found.header.reference:
        raise DecodeError("the payload relies on a reference, which no mode of this version does")
    present = [entry for entry in found.entries if entry.mask != MISSING]
    for entry in present:
        _check(entry, schema)
    _check_complete(present, schema)
    return _assemble(found, present, schema, known or {})


def layout(data: Buffer, schema: Schema | None = None) -> Layout:
    """Divide a payload's bytes. Then all modes are known, all lengths add up, and only the table has taken memory."""
    header = container.header(data)
    view = memoryview(data)
    reader = Reader(view, container.HEAD.size, len(view) - container.TRAILER)
    entries = container.read_table(reader, header.by_schema)
    _name(entries, header, schema)
    found = Layout(header, entries, info.read(reader), container.read_blocks(reader), reader)
    lengths: dict[int, int] = {}
    promised = sum(block.coded for block in found.blocks)
    for entry in entries:
        stream = _stream(entry)
        promised += entry.value_len + (entry.mask_len if stream is None else 0)
        if stream is not None:
            lengths[stream] = lengths.get(stream, 0) + entry.mask_len
    if promised != reader.end - reader.pos:
        raise DecodeError(f"the table promises {promised} bytes of data, {reader.end - reader.pos} are there")
    streams.check(found.blocks, lengths)
    return found


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
        if header.schema != container.schema_hash(schema) or len(entries) != len(schema.tensors):
            raise DecodeError("the payload was made for another schema than this receiver's")
        names = list(schema.tensors)
    for entry, name in zip(entries, names, strict=True):
        entry.name = name


def _stream(entry: Entry) -> int | None:
    """The stream that holds this entry's mask; refuses modes that this version does not know."""
    if entry.mask == MISSING:
        return None
    if entry.value not in values.NAMES:
        raise DecodeError(f"unknown value mode {entry.value}", entry.name)
    if entry.mask == DENSE:
        if entry.value == NO_VALUES:
            raise DecodeError("has neither a mask nor values", entry.name)
        return None
    if entry.mask not in masks.MODES:
        raise DecodeError(f"unknown mask mode {entry.mask}", entry.name)
    return masks.MODES[entry.mask].stream


def _check(entry: Entry, schema: Schema) -> None:
    """The entry is a tensor that this receiver accepts, with lengths that can be right."""
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
    if entry.mask != DENSE:
        mode = masks.MODES[entry.mask]
        if name not in schema.maskable:
            raise DecodeError("has a mask, which this receiver does not expect", name)
        if entry.kept > n or not mode.fits(n, entry.kept, entry.mask_len):
            raise DecodeError(
                f"{entry.mask_len} bytes ({mode.name}) cannot say which {entry.kept} of {n} are kept", name
            )
    kept = n if entry.mask == DENSE else entry.kept
    if entry.value != NO_VALUES and entry.value_len != kept * np.dtype(spec.dtype).itemsize:
        raise DecodeError(f"{entry.value_len} bytes are not {kept} values of {spec.dtype}", name)


def _check_complete(present: list[Entry], schema: Schema) -> None:
    if schema.partial:
        return
    there = {entry.name for entry in present if entry.value != NO_VALUES}
    for name in schema.tensors:
        if name not in there:
            raise DecodeError("is missing", name)


class _Symbols:
    """Hands out the data in its order: the coded streams, decoded; and what lies plainly behind them."""

    def __init__(self, found: Layout):
        decoded: dict[int, list[Buffer]] = {}
        for block in found.blocks:
            decoded.setdefault(block.stream, []).append(streams.read(block, found.reader.take(block.coded)))
        self._streams = {stream: memoryview(b"".join(parts)) for stream, parts in decoded.items()}
        self._at = dict.fromkeys(self._streams, 0)
        self.plain = found.reader.take

    def take(self, stream: int | None, length: int) -> Buffer:
        if stream is None:
            return self.plain(length)
        if not length:
            return b""
        at = self._at[stream]
        self._at[stream] = at + length
        return self._streams[stream][at : at + length]


def _assemble(found: Layout, present: list[Entry], schema: Schema, known: Mapping[str, Mask]) -> Payload:
    """The payload of entries that have passed all checks of lengths."""
    symbols = _Symbols(found)
    weights: dict[str, Any] = {}
    extra: dict[str, dict[str, Any]] = {}
    kept: dict[str, Mask] = {}
    for entry in present:
        name = entry.name or ""
        held = schema.agreed if entry.mask == masks.AGREED else known
        array, bits = _tensor(entry, schema.tensors[name], symbols, held.get(name))
        if bits is not None:
            kept[name] = Bits(bits)
            vars(kept[name])["count"] = entry.kept  # it was counted: spare the property the work
        if array is not None:
            group, slash, short = name.partition("/")
            (extra.setdefault(group, {}) if slash else weights)[short if slash else name] = array
    return Payload(weights, kept, extra, found.info, found.header.kind, found.header.absent)


def _tensor(
    entry: Entry, spec: Spec, symbols: _Symbols, known: Mask | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The dense array and the mask of one tensor; None for what it does not have."""
    shape = tuple(spec.shape)
    try:
        bits = None
        if entry.mask != DENSE:
            coded = symbols.take(masks.MODES[entry.mask].stream, entry.mask_len)
            bits = masks.read(entry.mask, coded, shape, entry.kept, known)
        array = None
        if entry.value != NO_VALUES:
            array = values.read(symbols.plain(entry.value_len), spec.dtype, shape, bits, entry.kept)
    except DecodeError as error:
        raise type(error)(str(error), entry.name) from None
    return array, None if bits is None else bits.reshape(shape)

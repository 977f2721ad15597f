"""Bytes to payload, checked against the receiver's schema: whatever bytes say, no buffer is larger than it allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsparse.codec import container, kernels, masks, streams, values
from fedsparse.codec.container import DENSE, NO_VALUES, Entry
from fedsparse.codec.layout import Layout, check, layout
from fedsparse.codec.wire import Buffer, DecodeError, UnknownReference, octets
from fedsparse.payload import Array, Mask, Packed, Payload, Schema, Spec, Tensors, as_masks

PLAIN = "float32"  # the dtype whose values are coded


@dataclass(slots=True)
class Piece:
    """One tensor of a payload, as the kernels take it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bitmap: np.ndarray | None  # None: all positions are kept
    kept: int
    masked: bool  # whether the bitmap is a mask of the receiver's
    source: Any  # float32: kernels.Source; other dtypes: the kept values; None: a mask alone

    @property
    def n(self) -> int:
        return masks.size(self.shape)

    def into(self, out: np.ndarray) -> None:
        """Write all values of the tensor; `out` is flat, contiguous and of its dtype."""
        if self.dtype == PLAIN:
            if not kernels.decode32(self.bitmap, self.n, self.source, out.view(np.uint32)):
                raise DecodeError("its values are not as many as its mask keeps, or no values at all", self.name)
        elif self.bitmap is None or self.kept == self.n:
            out[:] = self.source
        else:
            kernels.expand(self.bitmap, self.source, out)

    @property
    def mask(self) -> Packed:
        bitmap = masks.full(self.n) if self.bitmap is None else self.bitmap
        return Packed(bitmap, self.shape, self.kept)


def decode(
    data: Buffer,
    schema: Schema,
    max_bytes: int,
    *,
    known: Mapping[str, Mask | Array] | None = None,
    reference: Tensors | None = None,
) -> Payload:
    """The payload that these bytes hold: fresh NumPy arrays, masks as `Packed`.

    schema:    what this receiver accepts; its shapes bound all memory.
    max_bytes: longer data is refused unread.
    known:     the masks that this receiver holds, by the tensor's flat name.
    reference: the arrays that this receiver holds, by flat name.

    DecodeError (naming the tensor where it is one's fault) for anything but an acceptable payload; its subclass
    NotHeld where the payload relies on a mask or on values that this receiver does not hold.
    """
    return decode_into(data, schema, max_bytes, {}, known=known, reference=reference)


def decode_into(
    data: Buffer,
    schema: Schema,
    max_bytes: int,
    out: Mapping[str, Array],
    *,
    known: Mapping[str, Mask | Array] | None = None,
    reference: Tensors | None = None,
) -> Payload:
    """As `decode`, into arrays of the caller's where `out` has one by the tensor's flat name: memory in use is fast.

    They must be contiguous, writable and of the schema's dtype and shape (ValueError); a CPU tensor comes back as the
    array that shares its memory. After a DecodeError they may hold anything.
    """
    given = {name: writable(name, array, schema.tensors.get(name)) for name, array in out.items()}
    found = opened(data, schema, max_bytes)
    weights: dict[str, Any] = {}
    extra: dict[str, dict[str, Any]] = {}
    kept: dict[str, Mask] = {}
    for piece in pieces(found, schema, as_masks(known or {}), reference or {}):
        if piece.masked:
            kept[piece.name] = piece.mask
        if piece.source is not None:
            array = given[piece.name] if piece.name in given else np.empty(piece.shape, piece.dtype)
            piece.into(array.reshape(-1))
            group, slash, short = piece.name.partition("/")
            (extra.setdefault(group, {}) if slash else weights)[short if slash else piece.name] = array
    return Payload(weights, kept, extra, found.info, found.header.kind, found.header.absent)


def writable(name: str, given: Array, spec: Spec | None) -> np.ndarray:
    """An array of the caller's, or a CPU tensor as one, that can take this tensor."""
    if spec is None:
        raise ValueError(f"tensor {name!r}: the schema does not have it")
    array = values.own_array(name, given)
    good = array is given or hasattr(given, "detach")  # anything else would be a copy
    good = good and array.flags.c_contiguous and array.flags.writeable and array.dtype == spec.dtype
    if not good or array.shape != tuple(spec.shape):
        raise ValueError(f"tensor {name!r}: needed is a contiguous, writable array of {spec.dtype} {tuple(spec.shape)}")
    return array


def opened(data: Buffer, schema: Schema, max_bytes: int) -> Layout:
    """The divided payload, all of whose lengths are right for this schema."""
    view = octets(data)
    if len(view) > max_bytes:
        raise DecodeError(f"{len(view)} bytes, at most {max_bytes} are allowed")
    found = layout(view, schema)
    check(found, schema)
    return found


class _Symbols:
    """Hands out each stream in its order, and decodes a block when it is asked for."""

    def __init__(self, found: Layout):
        self.data = found.data
        self._blocks: dict[int, list[tuple[Any, memoryview]]] = {}
        at = found.blocks_at
        for block in found.blocks:
            self._blocks.setdefault(block.stream, []).append((block, found.data[at : at + block.coded]))
            at += block.coded
        self._rest: dict[int, memoryview] = {}

    def take(self, stream: int, length: int) -> Buffer:
        if not length:
            return b""
        rest = self._rest.get(stream, memoryview(b""))
        if not rest:
            rest = self._next(stream)
        if len(rest) >= length:
            self._rest[stream] = rest[length:]
            return rest[:length]
        parts, missing = [rest], length - len(rest)
        while missing > 0:
            rest = self._next(stream)
            parts.append(rest[:missing])
            self._rest[stream] = rest[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    def _next(self, stream: int) -> memoryview:
        return memoryview(streams.read(*self._blocks[stream].pop(0)))


def pieces(found: Layout, schema: Schema, known: Mapping[str, Mask], reference: Tensors) -> Iterator[Piece]:
    """The tensors one after the other; each is decoded when it is asked for. The layout has passed all checks."""
    whole = _references(found, schema, reference)
    symbols = _Symbols(found)
    for entry in found.present:
        try:
            yield _piece(entry, schema, symbols, known, whole)
        except DecodeError as error:
            raise type(error)(str(error), entry.name) if error.tensor is None else error from None


def _references(found: Layout, schema: Schema, reference: Tensors) -> dict[str, np.ndarray]:
    """The receiver's own values that the payload relies on, if they are the ones that it cites."""
    whole: dict[str, np.ndarray] = {}
    for entry in found.present:
        if entry.value in values.NEAR:
            name = entry.name or ""
            tensor = reference.get(name)
            array = None if tensor is None else values.own_array(name, tensor)
            if array is None or not values.is_reference(array, tuple(schema.tensors[name].shape)):
                raise UnknownReference("the payload relies on values that this receiver does not hold", name)
            whole[name] = values.flat(array)
    if container.reference_hash(whole.items()) != found.header.reference:
        raise UnknownReference("the payload relies on other values than those that this receiver holds")
    return whole


def _piece(
    entry: Entry, schema: Schema, symbols: _Symbols, known: Mapping[str, Mask], whole: Mapping[str, np.ndarray]
) -> Piece:
    name = entry.name or ""
    spec = schema.tensors[name]
    shape = tuple(spec.shape)
    kept, bitmap = masks.size(shape), None
    mode = entry.mask & ~masks.SUPPORT
    if entry.mask != DENSE:
        kept = entry.kept
        stream = masks.MODES[mode].stream
        plain = symbols.data[entry.mask_at : entry.mask_at + entry.mask_len]
        coded = plain if stream is None else symbols.take(stream, entry.mask_len)
        held = schema.agreed if mode == masks.AGREED else known
        bitmap = None if mode == masks.FULL else masks.read(mode, coded, shape, kept, held.get(name))
    masked = entry.mask != DENSE and not entry.mask & masks.SUPPORT
    source = None
    if entry.value != NO_VALUES:
        source = _source(entry, spec.dtype, symbols, bitmap, kept, whole.get(name))
    return Piece(name, shape, spec.dtype, bitmap, kept, masked, source)


def _source(
    entry: Entry, dtype: str, symbols: _Symbols, bitmap: np.ndarray | None, kept: int, whole: np.ndarray | None
) -> Any:
    plain = symbols.data[entry.value_at : entry.value_at + entry.value_len]
    if dtype != PLAIN:
        return values.exact(plain, dtype)
    coded = symbols.take(values.STREAMS[entry.value], entry.coded) if entry.coded else b""
    near = None if whole is None else values.kept_values(whole, bitmap, kept)
    return values.source(entry.value, plain, coded, kept, near)

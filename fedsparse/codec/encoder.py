"""Payload to bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fedsparse.codec import container, info, kernels, masks, streams
from fedsparse.codec import values as values_
from fedsparse.codec.container import DENSE, MISSING, Entry
from fedsparse.codec.values import Written
from fedsparse.codec.wire import Buffer, word
from fedsparse.payload import Array, Ids, Mask, Packed, Payload, Schema, Spec, Tensors, as_masks

NOBODY = Ids()
SPARSE = 64  # a smaller tensor is not looked at for zeros
LOOK = 4096  # values that are looked at before all are


@dataclass(slots=True)
class _Item:
    """One tensor on its way: its array, its mask, or both."""

    name: str
    array: np.ndarray | None
    dtype: str | None
    mask: Mask | None
    shape: tuple[int, ...]


@dataclass(slots=True)
class _Body:
    """What gathers behind the table, and what the sender may rely on."""

    how: str
    seed: int | None
    known: Mapping[str, Mask]
    agreed: Mapping[str, Mask]
    reference: Tensors
    streams: dict[int, list[Buffer]] = field(default_factory=dict)
    plain: list[Buffer] = field(default_factory=list)
    relied: list[tuple[str, np.ndarray]] = field(default_factory=list)  # on which references

    def put(self, stream: int | None, part: Buffer) -> None:
        if len(part):
            (self.plain if stream is None else self.streams.setdefault(stream, [])).append(part)


def encode(
    payload: Payload,
    *,
    values: str = "fp32",
    known: Mapping[str, Mask | Array] | None = None,
    reference: Tensors | None = None,
    seed: int | None = None,
    schema: Schema | None = None,
    ids: Ids = NOBODY,
) -> bytes:
    """The bytes of a payload: `decode` gives back the same values and masks, with "fp32" bit for bit.

    values:    how float32 tensors of two axes or more are sent: "fp32" without loss; "bf16", "fp16" to the nearest;
               "int8", "int4" in blocks of 128 with a scale, rounded at random without bias. All else is exact.
    known:     masks that the receiver surely holds, by the tensor's flat name: a mask equal to one costs a hash, one
               that is like it the difference.
    reference: arrays that the receiver surely holds, by flat name, float32 and of the tensor's shape: where that is
               shorter, the values are sent as their exact difference.
    seed:      of the rounding at random (any integer); "int8" and "int4" need one.
    schema:    what both sides agreed on: where the payload fits it, names, dtypes, shapes and agreed masks cost
               nothing, and tensors arrive in the schema's order.
    ids:       who the message belongs to.

    ValueError where the payload contradicts itself, or the schema's masks, or holds something that the format has no
    place for.
    """
    if values not in values_.ALLOWED:
        raise ValueError(f"values is {values!r}, allowed are: {', '.join(values_.ALLOWED)}")
    if values in ("int8", "int4") and seed is None:
        raise ValueError(f"values is {values!r}, which rounds at random: a seed is needed")
    items = _items(payload)
    if schema is not None:
        _check_masks(payload, schema)
    ordered = _by_schema(items, schema) if schema is not None else None
    agreed = schema.agreed if schema is not None and ordered is not None else {}
    number = None if seed is None else word(seed, "seed")
    body = _Body(values, number, as_masks(known or {}), agreed, reference or {})
    entries = [
        _entry(item, body, ordered is None) if item is not None else Entry(MISSING)
        for item in (items.values() if ordered is None else ordered)
    ]
    blocks, coded = streams.write(body.streams)
    cited = container.schema_hash(schema) if schema is not None and ordered is not None else None
    relied = container.reference_hash(body.relied)
    head = bytearray(container.pack_header(ids, payload.kind, payload.absent, cited, relied))
    container.put_table(head, entries)
    info.put(head, payload.info)
    container.put_blocks(head, blocks)
    return container.join([head, *coded, *body.plain])


def _items(payload: Payload) -> dict[str, _Item]:
    """All tensors by flat name, then the masks that stand alone."""
    items: dict[str, _Item] = {}
    for name in (*payload.weights, *payload.extra):
        if not isinstance(name, str) or not name or "/" in name:
            raise ValueError(
                f"{name!r} names a weight or a group: it must be a text, not empty, without '/', which parts the two"
            )
    for name, tensor in payload.tensors().items():
        array = values_.as_array(name, tensor)
        dtype = values_.dtype_name(array.dtype)
        container.dtype_code(name, dtype)  # refuses what the format has no place for
        items[name] = _Item(name, array, dtype, None, array.shape)
    for name, mask in payload.masks.items():
        item = items.setdefault(name, _Item(name, None, None, None, tuple(mask.shape)))
        if item.shape != tuple(mask.shape):
            raise ValueError(f"the mask of tensor {name!r} has shape {tuple(mask.shape)}, the tensor {item.shape}")
        if isinstance(mask, Packed) and not masks.whole(mask):
            raise ValueError(f"the mask of tensor {name!r} is no bitmap of {masks.size(item.shape)} positions")
        item.mask = mask
    return items


def _check_masks(payload: Payload, schema: Schema) -> None:
    """A mask that the schema does not allow would be sent, and refused."""
    for name in payload.masks:
        if name in schema.tensors and name not in schema.maskable:
            raise ValueError(f"tensor {name!r} has a mask, which the schema does not allow")


def _by_schema(items: dict[str, _Item], schema: Schema) -> list[_Item | None] | None:
    """The items in the schema's order, None for a missing one; or None where an item is not as the schema says."""
    if not all(_fits(item, schema.tensors.get(item.name)) for item in items.values()):
        return None
    return [items.get(name) for name in schema.tensors]


def _fits(item: _Item, spec: Spec | None) -> bool:
    if spec is None or tuple(spec.shape) != item.shape:
        return False
    return item.dtype in (None, spec.dtype)


def _entry(item: _Item, body: _Body, inline: bool) -> Entry:
    """The table's row of one tensor; its bytes go into the body."""
    entry = Entry(DENSE)
    bitmap, mask_bytes = None, b""
    if item.mask is not None:
        bitmap = masks.pack(item.mask)
        entry.kept = kernels.count(bitmap)
        name = item.name
        entry.mask, mask_bytes = masks.write(item.mask, bitmap, entry.kept, body.known.get(name), body.agreed.get(name))
    elif item.dtype == "float32" and (bitmap := _support(item.array)) is not None:
        entry.kept = kernels.count(bitmap)
        entry.mask, mask_bytes = masks.write(Packed(bitmap, item.shape, entry.kept), bitmap, entry.kept)
        entry.mask |= masks.SUPPORT
    if entry.mask != DENSE:
        entry.mask_len = len(mask_bytes)
        body.put(masks.MODES[entry.mask & ~masks.SUPPORT].stream, mask_bytes)
    if item.array is not None:
        written = _values(item, bitmap, entry.kept, body)
        entry.value, entry.value_len = written.mode, written.plain_len
        for part in written.plain:
            body.put(None, part)
        for part in written.symbols:
            entry.coded += len(part)
            body.put(values_.STREAMS[written.mode], part)
    if inline:
        entry.name, entry.shape = item.name, item.shape
        entry.dtype = container.dtype_code(item.name, item.dtype) if item.dtype is not None else 0
    return entry


def _support(array: np.ndarray | None) -> np.ndarray | None:
    """Where a tensor without a mask is not +0.0, if that is worth telling."""
    if array is None or array.size < SPARSE:
        return None
    words = values_.flat(array).view(np.uint32)
    some = words[:: max(1, words.size // LOOK)]
    if 8 * np.count_nonzero(some) > 7 * some.size:
        return None
    bits = words != 0
    return kernels.pack(bits) if 8 * np.count_nonzero(bits) < 7 * bits.size else None


def _values(item: _Item, bitmap: np.ndarray | None, kept: int, body: _Body) -> Written:
    """The shortest form of a tensor's kept values."""
    assert item.array is not None
    values = values_.kept_values(values_.flat(item.array), bitmap, kept)
    if item.dtype == "bool":
        return values_.raw(values.view(np.uint8) != 0)  # whatever bytes they are
    if item.dtype != "float32":
        return values_.raw(values)
    if body.how != "fp32" and len(item.shape) >= values_.LOSSY_AXES and values.size:
        if body.how in ("bf16", "fp16"):
            values = values_.rounded(values, body.how)
        else:
            assert body.seed is not None
            written = values_.integers(values, 8 if body.how == "int8" else 4, body.seed, item.name)
            if written is not None:
                return written
    whole = _reference(item, body.reference)
    near = None if whole is None else values_.kept_values(whole, bitmap, kept)
    written = values_.coded(values, near)
    if written.mode in values_.NEAR and whole is not None:
        body.relied.append((item.name, whole))
    return written


def _reference(item: _Item, reference: Tensors) -> np.ndarray | None:
    """The receiver's values of the whole tensor, flat; None where it has none of this dtype and shape."""
    tensor = reference.get(item.name)
    array = None if tensor is None else values_.own_array(item.name, tensor)
    return values_.flat(array) if array is not None and values_.is_reference(array, item.shape) else None

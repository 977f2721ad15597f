"""Payload to bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fedsparse.codec import container, info, kernels, masks, streams
from fedsparse.codec import values as values_
from fedsparse.codec.container import DENSE, MISSING, Entry
from fedsparse.codec.wire import Buffer
from fedsparse.payload import Ids, Mask, Payload, Schema, Spec, Tensors

NOBODY = Ids()


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
    """What gathers behind the table."""

    streams: dict[int, list[Buffer]] = field(default_factory=dict)
    plain: list[Buffer] = field(default_factory=list)


def encode(
    payload: Payload,
    *,
    values: str = "fp32",
    known: Mapping[str, Mask] | None = None,
    reference: Tensors | None = None,
    seed: int | None = None,
    schema: Schema | None = None,
    ids: Ids = NOBODY,
) -> bytes:
    """The bytes of a payload: `decode` gives back the same values and masks, bit for bit.

    values:    how values are sent; "fp32" (as they are) for now.
    known:     masks that the receiver surely holds, by the tensor's flat name: a mask equal to one costs a hash only.
    schema:    what both sides agreed on: where the payload fits it, names, dtypes, shapes and agreed masks cost
               nothing, and tensors arrive in the schema's order.
    ids:       who the message belongs to.
    reference, seed: for value modes to come (differences, stochastic rounding); no present one needs them.

    ValueError where the payload contradicts itself, or holds something that the format has no place for.
    """
    if values not in values_.ALLOWED:
        raise ValueError(f"values is {values!r}, allowed are: {', '.join(values_.ALLOWED)}")
    items = _items(payload)
    ordered = _by_schema(items, schema) if schema is not None else None
    agreed = schema.agreed if schema is not None and ordered is not None else {}
    body = _Body()
    entries = [
        _entry(item, body, known or {}, agreed, ordered is None) if item is not None else Entry(MISSING)
        for item in (items.values() if ordered is None else ordered)
    ]
    blocks, coded = streams.write(body.streams)
    cited = container.schema_hash(schema) if schema is not None and ordered is not None else None
    head = bytearray(container.pack_header(ids, payload.kind, payload.absent, cited))
    container.put_table(head, entries)
    info.put(head, payload.info)
    container.put_blocks(head, blocks)
    return container.join([head, *coded, *body.plain])


def _items(payload: Payload) -> dict[str, _Item]:
    """All tensors by flat name, then the masks that stand alone."""
    items: dict[str, _Item] = {}
    for name in (*payload.weights, *payload.extra):
        if not name or "/" in name:
            raise ValueError(
                f"{name!r} names a weight or a group: it must not be empty, nor have a '/', which parts the two"
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
        item.mask = mask
    return items


def _by_schema(items: dict[str, _Item], schema: Schema) -> list[_Item | None] | None:
    """The items in the schema's order, None for a missing one; or None where an item is not as the schema says."""
    if not all(_fits(item, schema.tensors.get(item.name)) for item in items.values()):
        return None
    return [items.get(name) for name in schema.tensors]


def _fits(item: _Item, spec: Spec | None) -> bool:
    if spec is None or tuple(spec.shape) != item.shape:
        return False
    return item.dtype in (None, spec.dtype)


def _entry(item: _Item, body: _Body, known: Mapping[str, Mask], agreed: Mapping[str, Mask], inline: bool) -> Entry:
    """The table's row of one tensor; its bytes go into the body."""
    entry = Entry(DENSE)
    bits = None
    if item.mask is not None:
        bits = masks.flat_bits(item.mask)
        entry.kept = kernels.count(bits)
        entry.mask, symbols = masks.write(item.mask, bits, entry.kept, known.get(item.name), agreed.get(item.name))
        entry.mask_len = len(symbols)
        stream = masks.MODES[entry.mask].stream
        (body.plain if stream is None else body.streams.setdefault(stream, [])).append(symbols)
    if item.array is not None:
        raw = values_.write(item.array, bits, entry.kept)
        entry.value, entry.value_len = values_.RAW, len(raw)
        body.plain.append(raw)
    if inline:
        entry.name, entry.shape = item.name, item.shape
        entry.dtype = container.dtype_code(item.name, item.dtype) if item.dtype is not None else 0
    return entry

"""One ArrayRecord as one opaque Array, and back."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote, unquote

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from fedsparse import codec
from fedsparse.codec.container import AXES_CAP, DTYPES, NAME_CAP
from fedsparse.codec.layout import MOST
from fedsparse.payload import Payload, Schema, Spec, Tensors

KEY = "fedsparse"  # the opaque Array
NUMPY = "numpy.ndarray"  # Flower's own way to serialise an array
STYPE = "fedsparse/1, which fedsparse.flower.compress_mod reads"  # Flower's error shows it to who lacks the mod
ROW, LENGTH = 64, 10  # bytes that an array's row in the table takes at most, without its name, and each axis there
EMPTY = "%"  # the empty name, which the codec does not allow; no other name is escaped to this


@dataclass(frozen=True)
class Held:
    """A packed record that both sides have: a reply under the same name may cite it."""

    data: bytes
    schema: Schema

    @cached_property
    def arrays(self) -> Tensors:
        """What these bytes say, also where values were rounded on their way."""
        return _decode(self.data, self.schema)


def pack(record: ArrayRecord, values: str, held: Held | None) -> tuple[ArrayRecord, Held | None]:
    """A record as it travels, and what the other side can cite of it.

    What the codec has no place for stays as it is, with its position before its name.
    """
    arrays: dict[str, np.ndarray] = {}
    others: dict[str, Array] = {}
    for position, (name, array) in enumerate(record.items()):
        escaped, dense = _escape(name), array.numpy() if array.stype == NUMPY else None
        if dense is not None and len(escaped) <= NAME_CAP and _is_plain(dense) and len(arrays) < MOST:
            arrays[escaped] = dense
        else:
            others[f"{position}/{name}"] = array
    if not arrays:
        return record, None
    schema = Schema({name: Spec(array.dtype.name, array.shape) for name, array in arrays.items()})
    cited = held if held and [*held.schema.tensors.items()] == [*schema.tensors.items()] else None
    data = codec.encode(
        Payload(arrays),
        values=values,
        seed=_seed(arrays) if values.startswith("int") else None,
        schema=cited.schema if cited else None,
        reference=cited.arrays if cited else None,
    )
    opaque = Array(dtype="uint8", shape=(len(data),), stype=STYPE, data=data)
    return ArrayRecord({KEY: opaque, **others}), Held(data, schema)


def unpack(content: RecordDict, sent: Mapping[str, Held], limit: int) -> tuple[RecordDict, dict[str, Held]]:
    """The content with all arrays as they were, and what a reply to it may cite.

    sent:  the records that this content may cite, by name.
    limit: bytes of all arrays that cite none. ValueError where these are larger, and where a payload is none.
    """
    opened, held = RecordDict(), {}
    for name, record in content.items():
        if isinstance(record, ArrayRecord) and KEY in record and record[KEY].stype == STYPE:
            record, held[name] = _unpack_record(record, sent.get(name), limit)
            limit -= held[name].schema.dense_bytes
        opened[name] = record
    return opened, held


def _unpack_record(record: ArrayRecord, cited: Held | None, limit: int) -> tuple[ArrayRecord, Held]:
    data = record[KEY].data
    if not codec.header(data).by_schema:
        held = Held(data, codec.described(data, limit))
        arrays = held.arrays
    elif cited is not None:
        held, arrays = cited, _decode(data, cited.schema, cited.arrays)
    else:
        raise codec.DecodeError("the payload cites arrays that were not sent in a record of this name")
    items = [(_unescape(name), Array(array)) for name, array in arrays.items()]
    for key, array in record.items():
        if key != KEY:
            position, _, name = key.partition("/")
            items.insert(int(position), (name, array))
    if len(dict(items)) < len(items):
        raise codec.DecodeError("two arrays have one name")
    return ArrayRecord(dict(items)), held


def _decode(data: bytes, schema: Schema, reference: Tensors | None = None) -> Tensors:
    table = sum(len(name.encode()) + ROW + LENGTH * len(spec.shape) for name, spec in schema.tensors.items())
    return codec.decode(data, schema, schema.dense_bytes + table + 1_000_000, reference=reference).weights


def _escape(name: str) -> str:
    """A name as the codec allows it: ASCII, without "/", not empty."""
    return quote(name, safe="", errors="surrogatepass") or EMPTY


def _unescape(name: str) -> str:
    return "" if name == EMPTY else unquote(name, errors="surrogatepass")


def _is_plain(array: np.ndarray) -> bool:
    """The codec gives this array back as it is (in row-major order)."""
    return array.dtype.isnative and array.dtype.name in DTYPES and array.ndim <= AXES_CAP


def _seed(arrays: Tensors) -> int:
    """For rounding at random: equal arrays are rounded alike, so that a run can be repeated."""
    seed = 0
    for array in arrays.values():
        seed = zlib.crc32(np.ascontiguousarray(array).data, seed)
    return seed


def size(content: RecordDict) -> int:
    """Bytes of the data of all arrays."""
    return sum(len(array.data) for record in content.array_records.values() for array in record.values())

"""The container (FORMAT.md): header, table, block list, trailer. It knows lengths and modes' numbers, not meanings."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

import numpy as np
import xxhash

from fedsparse.codec.wire import Buffer, DecodeError, Reader, octets, put_text, put_varint
from fedsparse.payload import Absent, Ids, Kind, Schema

MAGIC, MAJOR, MINOR = b"FSPC", 1, 0
READABLE = (0, 1)  # 0.1 is 1.0 with fewer modes
FORMAT = f"{MAJOR}.{MINOR}"  # the version that is written
HEAD = struct.Struct("<4sBBHQQQQII")  # magic, major, minor, flags, schema, reference, run, client, round, generation
IDS = struct.Struct("<QQII")
IDS_AT = HEAD.size - IDS.size
TRAILER = 8
BY_SCHEMA, UPDATE, ZERO = 1, 2, 4  # flags
KINDS, ABSENT = get_args(Kind), get_args(Absent)
NAME_CAP, AXES_CAP = 1024, 32
DENSE, MISSING = 0, 255  # the mask modes that the table itself must know
NO_VALUES, RAW = 0, 1  # the value modes that it must know: they have no stream

DTYPES = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
)
DTYPE_NAMES = {np.dtype(name): name for name in DTYPES}
DTYPE_CODES = {name: code for code, name in enumerate(DTYPES, start=1)}  # 0 = no values


@dataclass(frozen=True)
class Header:
    """What the first 48 bytes say. `schema` and `reference` are 0 where the payload relies on none."""

    ids: Ids
    kind: Kind
    absent: Absent
    version: tuple[int, int]
    schema: int
    reference: int
    by_schema: bool


@dataclass(slots=True)
class Entry:
    """One row of the table; name, dtype and shape are None where the schema says them."""

    mask: int
    kept: int = 0
    mask_len: int = 0
    value: int = NO_VALUES
    value_len: int = 0
    coded: int = 0  # bytes of the value mode's stream
    name: str | None = None
    dtype: int | None = None
    shape: tuple[int, ...] | None = None
    mask_at: int = 0  # where its plain bytes are; -1: the mask is in a stream
    value_at: int = 0


@dataclass(slots=True)
class Block:
    """A piece of a coded stream: `raw` bytes of it, in `coded` bytes of the payload."""

    stream: int
    coding: int
    raw: int
    coded: int


def put_description(out: bytearray, name: str, dtype: int, shape: Iterable[int]) -> None:
    """Name, dtype and shape of a tensor, in the form that the table and the schema hash share."""
    put_text(out, name, NAME_CAP)
    out.append(dtype)
    axes = tuple(shape)
    if len(axes) > AXES_CAP:
        raise ValueError(f"tensor {name!r} has {len(axes)} axes, at most {AXES_CAP} are allowed")
    for number in (len(axes), *axes):
        put_varint(out, number)


def dtype_code(name: str, dtype: str) -> int:
    try:
        return DTYPE_CODES[dtype]
    except KeyError:
        raise ValueError(f"tensor {name!r} has dtype {dtype}, allowed are {', '.join(DTYPES)}") from None


def schema_hash(schema: Schema) -> int:
    """What a payload cites in place of names, dtypes and shapes: 64 bits over all of them, in order."""
    if "hash" in schema.derived:
        return schema.derived["hash"]
    out = bytearray()
    put_varint(out, len(schema.tensors))
    for name, spec in schema.tensors.items():
        put_description(out, name, dtype_code(name, spec.dtype), spec.shape)
    if schema.agreed:
        put_varint(out, len(schema.agreed))
        for name, mask in sorted(schema.agreed.items()):
            put_text(out, name, NAME_CAP)
            out += np.packbits(np.asarray(mask.dense(), np.bool_), axis=None, bitorder="little").tobytes()
    return schema.derived.setdefault("hash", xxhash.xxh3_64_intdigest(out))


def reference_hash(relied: Iterable[tuple[str, np.ndarray]]) -> int:
    """What a payload cites as the reference that it relies on: 64 bits over the names and all values; 0 for none."""
    digest, none = xxhash.xxh3_64(), True
    for name, values in relied:
        label = bytearray()
        put_text(label, name, NAME_CAP)
        digest.update(bytes(label))
        digest.update(values.view(np.uint8).data)
        none = False
    return 0 if none else digest.intdigest() or 1


# header and trailer


def pack_header(ids: Ids, kind: str, absent: str, schema: int | None, reference: int = 0) -> bytes:
    if kind not in KINDS or absent not in ABSENT:
        raise ValueError(f"kind is {kind!r}, absent {absent!r}: allowed are {KINDS} and {ABSENT}")
    flags = (schema is not None) * BY_SCHEMA | (kind == "update") * UPDATE | (absent == "zero") * ZERO
    return HEAD.pack(MAGIC, MAJOR, MINOR, flags, schema or 0, reference, *_ids(ids))


def _ids(ids: Ids) -> tuple[int, int, int, int]:
    for name, bits in (("run", 64), ("client", 64), ("round", 32), ("generation", 32)):
        if not 0 <= getattr(ids, name) < 1 << bits:
            raise ValueError(f"the {name} id is {getattr(ids, name)}, allowed is 0 to 2**{bits} - 1")
    return ids.run, ids.client, ids.round, ids.generation


def join(parts: list[Buffer]) -> bytes:
    """All parts with the checksum behind them, copied once."""
    checksum = xxhash.xxh3_64()
    for part in parts:
        checksum.update(part)
    return b"".join([*parts, checksum.intdigest().to_bytes(TRAILER, "little")])


def stamp(data: Buffer, ids: Ids) -> bytes:
    """The same content for another receiver: other ids, another checksum, all else as it is."""
    header(data)  # a damaged payload must not get a good checksum
    view = octets(data)
    return join([bytes(view[:IDS_AT]) + IDS.pack(*_ids(ids)), view[HEAD.size : -TRAILER]])


def content(data: bytes) -> tuple[bytes, bytes]:
    """What `stamp` leaves as it is: two payloads with equal content differ in their ids alone."""
    return data[:IDS_AT], data[HEAD.size : -TRAILER]


def header(data: Buffer) -> Header:
    """The header of a payload, after a look at magic, version, length and checksum; DecodeError where one is wrong."""
    view = octets(data)
    if view[:4] != MAGIC:
        raise DecodeError("these bytes are no payload of fedsparse (they do not start with FSPC)")
    if len(view) < HEAD.size + TRAILER:
        raise DecodeError(f"{len(view)} bytes are too few for a payload")
    _, major, minor, flags, schema, reference, run, client, round_, generation = HEAD.unpack_from(view)
    if major not in READABLE:
        raise DecodeError(f"version {major}.{minor} of the format, this reader knows {MAJOR}.x")
    if xxhash.xxh3_64_intdigest(view[:-TRAILER]) != int.from_bytes(view[-TRAILER:], "little"):
        raise DecodeError("the checksum does not fit: the payload was damaged on its way")
    if flags & ~(BY_SCHEMA | UPDATE | ZERO):
        raise DecodeError(f"unknown flags {flags:#06x}")
    if schema and not flags & BY_SCHEMA:
        raise DecodeError("a schema hash without the flag that says so")
    return Header(
        Ids(run, round_, client, generation),
        "update" if flags & UPDATE else "weights",
        "zero" if flags & ZERO else "unheld",
        (major, minor),
        schema,
        reference,
        bool(flags & BY_SCHEMA),
    )


# table


def put_table(out: bytearray, entries: list[Entry]) -> None:
    put_varint(out, len(entries))
    for entry in entries:
        if entry.name is not None:
            put_description(out, entry.name, entry.dtype or 0, entry.shape or ())
        out.append(entry.mask)
        if entry.mask == MISSING:
            continue
        if entry.mask != DENSE:
            put_varint(out, entry.kept)
            put_varint(out, entry.mask_len)
        out.append(entry.value)
        if entry.value != NO_VALUES:
            put_varint(out, entry.value_len)
        if entry.value not in (NO_VALUES, RAW):
            put_varint(out, entry.coded)


def read_table(reader: Reader, by_schema: bool, cap: int) -> list[Entry]:
    """At most `cap` entries; each takes a byte at least."""
    return [_read_entry(reader, by_schema) for _ in range(count(reader, "tensors", cap))]


def count(reader: Reader, what: str, cap: int) -> int:
    """The length of a list whose items take a byte at least each."""
    number = reader.varint()
    if number > min(cap, reader.end - reader.pos):
        raise DecodeError(f"{number} {what} are promised, more than the {min(cap, reader.end - reader.pos)} allowed")
    return number


def _read_entry(reader: Reader, by_schema: bool) -> Entry:
    entry = Entry(MISSING)
    if not by_schema:
        entry.name = reader.text(NAME_CAP)
        entry.dtype = reader.byte()
        entry.shape = tuple([reader.varint() for _ in range(count(reader, "axes", AXES_CAP))])
    entry.mask = reader.byte()
    if entry.mask == MISSING:
        return entry
    if entry.mask != DENSE:
        entry.kept = reader.varint()
        entry.mask_len = reader.varint()
    entry.value = reader.byte()
    if entry.value != NO_VALUES:
        entry.value_len = reader.varint()
    if entry.value not in (NO_VALUES, RAW):
        entry.coded = reader.varint()
    return entry


# blocks


def put_blocks(out: bytearray, blocks: list[Block]) -> None:
    put_varint(out, len(blocks))
    for block in blocks:
        out += bytes((block.stream, block.coding))
        put_varint(out, block.raw)
        put_varint(out, block.coded)


def read_blocks(reader: Reader, cap: int) -> list[Block]:
    blocks = [
        Block(reader.byte(), reader.byte(), reader.varint(), reader.varint())
        for _ in range(count(reader, "blocks", cap))
    ]
    if any(a.stream > b.stream for a, b in zip(blocks, blocks[1:], strict=False)):
        raise DecodeError("the blocks are not in the order of their streams")
    return blocks

"""Bytes made to hurt, each with a good checksum: refused by name, and before they cost memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import zstandard
from hostile.crafting import ROOM, SCHEMA, Craft, entry, varints

from fedsparse import codec
from fedsparse.codec import container, masks
from fedsparse.codec.container import Block, Entry
from fedsparse.payload import Payload, Schema, Spec


def masked(kept: int, symbols: bytes, mask: int = masks.GAPS, values: int | None = None) -> Craft:
    """One masked tensor whose mask bytes are stored as they are."""
    values = kept if values is None else values
    stream = masks.MODES[mask].stream
    blocks = [Block(stream, 0, len(symbols), len(symbols))] if stream is not None and symbols else []
    return Craft(
        [entry(mask, kept, len(symbols), value_len=4 * values)], blocks=blocks, data=symbols + bytes(4 * values)
    )


def framed(frame: bytes, raw: int = 100) -> Craft:
    """One tensor with 100 kept positions, whose gaps are in this zstd frame."""
    return Craft(
        [entry(masks.GAPS, 100, raw, value_len=400)], blocks=[Block(1, 1, raw, len(frame))], data=frame + bytes(400)
    )


def zstd(content: bytes, **options: object) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(content)  # type: ignore[arg-type]


def bitmap(*positions: int) -> bytes:
    bits = np.zeros(1000, np.bool_)
    bits[list(positions)] = True
    return np.packbits(bits, bitorder="little").tobytes()


DENSE = entry(value_len=4000)
TOP = zstandard.ZstdCompressionParameters(window_log=27, compression_level=1)
SKIPPABLE = b"\x50\x2a\x4d\x18" + (100).to_bytes(4, "little") + bytes(100)
GOOD = framed(zstd(bytes(100)))

CASES: dict[str, tuple[Craft, str]] = {
    "a tensor twice": (Craft([DENSE, DENSE], data=bytes(8000)), "'w': is there twice"),
    "an unknown tensor": (
        Craft([entry(value_len=4000, name="v")], data=bytes(4000)),
        "'v': this receiver does not expect it",
    ),
    "another shape": (Craft([entry(value_len=4000, shape=(10, 100))], data=bytes(4000)), r"'w': has shape \(10, 100\)"),
    "a shape beyond memory": (
        Craft([entry(value_len=4000, shape=(1 << 63, 1 << 63))], data=bytes(4000)),
        "'w': has shape",
    ),
    "another dtype": (Craft([entry(value_len=4000, dtype=7)], data=bytes(4000)), "'w': has the dtype of code 7"),
    "an unknown dtype": (Craft([entry(value_len=4000, dtype=99)], data=bytes(4000)), "'w': has the dtype of code 99"),
    "a listed tensor that is missing": (Craft([entry(255, value=0)]), "'w': is listed and missing"),
    "neither mask nor values": (Craft([entry(value=0)]), "'w': has neither a mask nor values"),
    "an unknown mask mode": (Craft([entry(77, 1, 1, value_len=4)], data=bytes(5)), "'w': unknown mask mode 77"),
    "an unknown value mode": (Craft([entry(value=11, value_len=4)], data=bytes(4)), "'w': unknown value mode 11"),
    "a mask where none is expected": (
        Craft([entry(masks.FULL, 3, 0, value_len=3, name="b", shape=(3,), dtype=1)], data=bytes(3)),
        "'b': has a mask",
    ),
    "a boolean of 2": (
        Craft([entry(value_len=3, name="b", shape=(3,), dtype=1)], data=b"\0\1\2"),
        "'b': a boolean is neither 0 nor 1",
    ),
    "too few values": (
        Craft([entry(value_len=3996)], data=bytes(3996)),
        "'w': 3996 bytes are not 1000 values of float32",
    ),
    "values for a mask of others": (masked(3, b"\0\0\0", values=2), "'w': 8 bytes are not 3 values"),
    "more kept than there are": (masked(1001, bytes(1001)), "'w': 1001 bytes .gaps. cannot say which 1001 of 1000"),
    "a full mask that is not": (masked(999, b"", masks.FULL), "'w': 0 bytes .full."),
    "a full mask with bytes": (masked(1000, b"x", masks.FULL), "'w': 1 bytes .full."),
    "gaps beyond the end": (masked(2, bytes((255, 255, 255, 234, 1))), "'w': its mask .gaps. is not one"),
    "gaps that end in an escape": (masked(1, b"\0\xff"), "'w': its mask .gaps. is not one"),
    "gaps of fewer positions": (masked(2, b"\0\xff\0\xff"), "'w': its mask .gaps. is not one"),
    "gaps of more positions": (masked(2, b"\0\0\0"), "'w': its mask .gaps. is not one"),
    "gaps too long": (masked(1, bytes(5)), "'w': 5 bytes .gaps. cannot say"),
    "a mirror of gaps beyond the end": (
        masked(998, b"\xff\xff\xff\xea\1", masks.MIRROR),
        "'w': its mask .mirror.",
    ),
    "a bitmap of more": (masked(1, bitmap(1, 2), masks.BITMAP), "'w': its mask .bitmap. is not one of 1000"),
    "a bitmap of the wrong length": (masked(1, bitmap(1) + b"\0", masks.BITMAP), "'w': 126 bytes .bitmap."),
    "an unknown known mask": (masked(1, bytes(8), masks.KNOWN), "'w': the payload relies on a mask"),
    "a short hash": (masked(1, bytes(7), masks.KNOWN), "'w': 7 bytes .known."),
    "bytes left over": (Craft([DENSE], data=bytes(4000), tail=b"x"), "promises 4000 bytes of data, 4001 are there"),
    "bytes missing": (Craft([DENSE], data=bytes(3999)), "promises 4000 bytes of data, 3999 are there"),
    "lengths that overflow 64 bits": (
        Craft([entry(value_len=(1 << 64) - 1), entry(value_len=1, name="v")]),
        "18446744073709551616 b",
    ),
    "a stream nobody takes": (Craft(blocks=[Block(1, 0, 5, 5)], data=bytes(5)), "gaps has 5 bytes, its tensors take 0"),
    "a stream too short": (
        Craft([entry(masks.GAPS, 5, 5, value_len=20)], blocks=[Block(1, 0, 4, 4)], data=bytes(24)),
        "gaps has 4 bytes, its tensors take 5",
    ),
    "an unknown stream": (Craft(blocks=[Block(9, 0, 5, 5)], data=bytes(5)), "unknown stream 9"),
    "an unknown coding": (Craft(blocks=[Block(1, 9, 5, 5)], data=bytes(5)), "unknown coding 9"),
    "an empty block": (Craft(blocks=[Block(1, 0, 0, 0)]), "impossible lengths"),
    "a stored block that grows": (Craft(blocks=[Block(1, 0, 6, 5)], data=bytes(5)), "impossible lengths"),
    "many small blocks": (Craft(blocks=[Block(1, 0, 1, 1)] * 2, data=bytes(2)), "impossible lengths"),
    "streams out of order": (
        Craft(blocks=[Block(1, 0, 1, 1), Block(0, 0, 1, 1)], data=bytes(2)),
        "order of their streams",
    ),
    "a frame of another size": (framed(zstd(bytes(101))), "states other sizes"),
    "a frame without a size": (
        framed(zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100))),
        "states other sizes",
    ),
    "a frame and more": (framed(zstd(bytes(100)) + b"x"), "cannot be decoded"),
    "two frames": (framed(zstd(bytes(100)) * 2), "cannot be decoded"),
    "half a frame": (framed(zstd(bytes(range(100)))[:-3]), "cannot be decoded"),
    "a skippable frame": (framed(SKIPPABLE), "zstd frame"),
    "no frame": (framed(bytes(100)), "cannot be decoded"),
    "a window of 128 MiB": (
        framed(b"\x28\xb5\x2f\xfd\x40\x88\x64\x00" + b"\x23\x03\x00\x00"),
        "states other sizes",
    ),
    "info out of order": (Craft(info=varints(2) + b"\1b\0\1a\0"), "info 'a' is not in order"),
    "info twice": (Craft(info=varints(2) + b"\1a\0\1a\0"), "info 'a' is not in order, or there twice"),
    "info of an unknown type": (Craft(info=varints(1) + b"\1a\7"), "info 'a' has the unknown type 7"),
    "info that is no text": (Craft(info=varints(1) + b"\1\xff\0"), "not UTF-8"),
    "half a surrogate": (Craft(info=varints(1) + b"\3\xed\xa0\x80\0"), "not UTF-8"),
    "a key too long": (Craft(info=varints(1, 256) + b"a" * 256 + b"\0"), "a text of 256 bytes where 255 are allowed"),
    "a float cut off": (Craft(info=varints(1) + b"\1a\3\0\0"), "8 bytes were promised where"),
    "more info than bytes": (Craft(info=varints(1024)), "1024 info entries are promised"),
    "a longer varint than needed": (Craft(info=varints(1) + b"\1a\2\x80\0"), "not in its shortest form"),
    "a varint of 65 bits": (Craft(info=varints(1) + b"\1a\2" + b"\xff" * 9 + b"\2"), "larger than 64 bits"),
    "a varint of 11 bytes": (Craft(info=varints(1) + b"\1a\2" + b"\x80" * 10 + b"\1"), "longer than 10 bytes"),
    "another schema": (Craft([entry(value_len=0, name=None)] * 4, schema=5), "made for another schema"),
    "more tensors than the schema has": (Craft([DENSE] * 5, data=bytes(20000)), "5 tensors are promised, more than"),
    "fewer entries than the schema": (
        Craft([entry(255, value=0, name=None)], schema=codec.schema_hash(SCHEMA)),
        "made for another schema",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_by_name(case: str) -> None:
    craft, words = CASES[case]
    for read in (codec.decode, lambda data, *a, **k: codec.accumulate([data], [1], *a, **k)):
        with pytest.raises(codec.DecodeError, match=words):
            read(
                craft.bytes(),
                SCHEMA,
                ROOM,
            )


def test_the_crafting_itself_is_sound() -> None:
    assert codec.decode(GOOD.bytes(), SCHEMA, ROOM).masks["w"].count == 100
    assert codec.decode(Craft([DENSE], data=bytes(4000)).bytes(), SCHEMA, ROOM).weights["w"].shape == (1000,)
    symbols = bytes((255, 255, 255, 233, 0))
    assert np.flatnonzero(codec.decode(masked(2, symbols).bytes(), SCHEMA, ROOM).masks["w"].dense()).tolist() == [
        998,
        999,
    ]
    assert codec.decode(masked(2, bitmap(3, 999), masks.BITMAP).bytes(), SCHEMA, ROOM).masks["w"].count == 2


def test_padding_bits() -> None:
    schema = Schema({"w": Spec("float32", (3,))}, frozenset({"w"}))
    for byte in range(256):
        craft = Craft(
            [entry(masks.BITMAP, byte.bit_count(), 1, value_len=4 * byte.bit_count(), shape=(3,))],
            blocks=[Block(0, 0, 1, 1)],
            data=bytes((byte,)) + bytes(4 * byte.bit_count()),
        )
        if byte < 8:
            codec.decode(craft.bytes(), schema, ROOM)
        else:
            with pytest.raises(codec.DecodeError, match="'w'"):
                codec.decode(craft.bytes(), schema, ROOM)


def patched(data: bytes, change: Callable[[bytearray], None]) -> bytes:
    body = bytearray(data[: -container.TRAILER])
    change(body)
    return container.join([body])


def put(at: int, *values: int) -> Callable[[bytearray], None]:
    return lambda body: body.__setitem__(slice(at, at + len(values)), bytes(values))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put(0, 0), "do not start with FSPC"),
        (put(4, 2, 7), "version 2.7 of the format, this reader knows 1.x"),
        (put(7, 1), "unknown flags 0x0100"),
        (put(6, 8), "unknown flags 0x0008"),
        (put(8, 1), "schema hash without the flag"),
        (put(16, 1), "relies on other values than those that this receiver holds"),
        (put(48, 0x80, 0), "shortest form"),
    ],
)
def test_headers(change: Callable[[bytearray], None], words: str) -> None:
    with pytest.raises(codec.DecodeError, match=words):
        codec.decode(patched(codec.encode(Payload()), change), SCHEMA, ROOM)


def test_a_later_minor_version_is_read_while_its_modes_are_known() -> None:
    data = patched(codec.encode(Payload({"w": np.ones(1000, np.float32)})), put(5, 200))
    assert codec.header(data).version == (1, 200)
    assert codec.decode(data, SCHEMA, ROOM).weights["w"].sum() == 1000


def test_too_long_is_refused_unread() -> None:
    with pytest.raises(codec.DecodeError, match="11 bytes, at most 10 are allowed"):
        codec.decode(b"not at all.", SCHEMA, 10)


@pytest.mark.parametrize("partial", [False, True])
def test_missing_tensors(partial: bool) -> None:
    schema = Schema({"a": Spec("int8", (2,)), "b": Spec("int8", (2,))}, frozenset({"b"}), partial)
    payloads = [Payload({"a": np.zeros(2, np.int8)}), Payload({"a": np.zeros(2, np.int8)}, {"b": np.ones(2, bool)})]
    for data in (codec.encode(p, schema=s) for p in payloads for s in (schema, None)):
        if partial:
            assert "b" not in codec.decode(data, schema, ROOM).weights
        else:
            with pytest.raises(codec.DecodeError, match="'b': is missing"):
                codec.decode(data, schema, ROOM)


BOMBS = {
    "a frame of 64 MiB": framed(zstd(bytes(64 << 20))),
    "64 MiB, and the table says so": framed(zstd(bytes(64 << 20)), 64 << 20),
    "a block of 2^60": framed(zstd(bytes(100)), 1 << 60),
    "a tensor of 2^62": Craft([entry(masks.FULL, 1 << 62, 0, value_len=1 << 62)]),
    "2^40 entries": Craft(info=b"", tail=b"", entries=[]),
    "a million missing tensors": Craft([Entry(255)] * (1 << 20), schema=codec.schema_hash(SCHEMA)),
    "many empty tensors": Craft([entry(name="", shape=())] * (1 << 17)),
    "many empty blocks": Craft(blocks=[Block(1, 1, 4096, 0)] * (1 << 17)),
}


@pytest.mark.parametrize("case", BOMBS)
def test_bombs_cost_nothing(case: str) -> None:
    data = BOMBS[case].bytes()
    if case == "2^40 entries":
        data = patched(data, lambda body: body.__setitem__(slice(48, 49), varints(1 << 40)))
    assert codec.schema_hash(SCHEMA)  # once for all payloads
    tracemalloc.start()
    began = time.thread_time()
    with pytest.raises(codec.DecodeError):
        codec.decode(data, SCHEMA, 1 << 30)
    took, peak = time.thread_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000
    assert took < 0.01

"""What each mode refuses: bytes that are almost a mask, or almost values, of a tensor of 4 x 4."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hostile.crafting import I32, ROOM, SCHEMA, SPECS, Craft, entry, varints

from fedsparse import codec
from fedsparse.codec import masks, values
from fedsparse.codec.container import Block
from fedsparse.payload import Bits, Schema

HELD = {"s": Bits(np.arange(16).reshape(4, 4) % 4 == 0)}  # 4 kept
CITED = codec.mask_hash(HELD["s"]).to_bytes(8, "little")


def small(
    mask: int = 0,
    kept: int = 16,
    where: bytes = b"",
    value: int = 1,
    plain: bytes | None = None,
    symbols: bytes = b"",
    **other: int,
) -> Craft:
    """The small tensor: its mask's bytes, its plain values, its values' part in their stream."""
    plain = bytes(4 * kept) if plain is None else plain
    stream = masks.MODES[mask & 127].stream if mask & 127 in masks.MODES else None
    parts = sorted(
        (s, part) for s, part in ((stream, where), (values.STREAMS.get(value), symbols)) if s is not None and part
    )
    one = entry(mask, kept, len(where), value, len(plain), name="s", shape=(4, 4), coded=len(symbols))
    one = replace(one, **other)  # type: ignore[arg-type]
    blocks = [Block(s, 0, len(part), len(part)) for s, part in parts]
    return Craft(
        [one], blocks=blocks, data=b"".join([*(p for _, p in parts), b"" if stream is not None else where, plain])
    )


def codes(top: int, symbols: bytes, escapes: bytes = b"", kept: int = 16, low: bytes = b"\0", mode: int = 2) -> Craft:
    """Values in codes; `low`: the number of low bits, then these."""
    where = b"" if kept == 16 else (bits_of(range(kept)))
    return small(2 if where else 0, kept, where, mode, bytes((top,)) + low + bytes(kept) + escapes, symbols)


def bits_of(positions: range) -> bytes:
    return sum(1 << i for i in positions).to_bytes(2, "little")


def integers(scale: int, symbols: bytes, mode: int = 9, kept: int = 16) -> Craft:
    where = b"" if kept == 16 else bits_of(range(kept))
    return small(2 if where else 0, kept, where, mode, scale.to_bytes(2, "little"), symbols)


def listed(shift: int, unary: bytes, low: bytes = b"") -> bytes:
    """A position list."""
    return bytes((shift, len(unary))) + unary + low


def difference(removed: int, gone: bytes, come: bytes, kept: int = 4, cited: bytes = CITED) -> Craft:
    return small(masks.DIFFERENCE, kept, cited + varints(removed) + gone + come)


NOT_ONE, NO_VALUES, NOT_16 = (
    "'s': its mask .{}. is not one of 16",
    "'s': its values are not as many",
    "are not 16 values",
)
RICE, GRID, NM, SUPPORT = masks.RICE, masks.GRID, masks.NM, masks.SUPPORT
EMPTY = listed(0, b"")


def integral(mode: int, length: int, coded: int) -> Craft:
    """Two integers in a mode for float32."""
    row = entry(value=mode, value_len=length, name="i", shape=(2,), dtype=I32, coded=coded)
    return Craft([row], blocks=[Block(values.STREAMS[mode], 0, coded, coded)], data=bytes(length + coded))


BAD: dict[str, tuple[Craft, str]] = {
    "an escape that no code announces": (codes(100, bytes(8), b"\5"), NO_VALUES),
    "an escape that is missing": (codes(100, b"\x0f" + bytes(7)), NO_VALUES),
    "more escapes than values": (codes(100, b"\xff" * 8, bytes(17)), NOT_16),
    "an escape that needs none": (codes(100, b"\x0f" + bytes(7), b"\x56"), NO_VALUES),
    "an escape above the top": (codes(100, b"\x0f" + bytes(7), b"\x65"), NO_VALUES),
    "an escape where none can be": (codes(14, b"\x0f" + bytes(7), b"\0"), NO_VALUES),
    "an exponent below 0": (codes(3, b"\x05" + bytes(7)), NO_VALUES),
    "an exponent below 0, 2 bits": (codes(1, b"\x02" + bytes(3), mode=3), NO_VALUES),
    "an escape where none can be, 1 bit": (codes(0, b"\x01" + bytes(1), b"\0", mode=4), NO_VALUES),
    "padding of the codes": (codes(100, b"\0\x10", kept=3), NO_VALUES),
    "padding of the low bits": (codes(100, b"\0\0", kept=3, low=b"\1\x08"), NO_VALUES),
    "17 low bits": (codes(100, bytes(8), low=b"\x11" + bytes(34)), NOT_16),
    "255 low bits": (codes(100, bytes(8), low=b"\xff" + bytes(510)), NOT_16),
    "low bits that are missing": (codes(100, bytes(8), low=b"\2"), NOT_16),
    "no top": (small(value=2, plain=b"", symbols=bytes(8)), NOT_16),
    "no low": (small(value=2, plain=b"\1", symbols=bytes(8)), NOT_16),
    "too few codes": (codes(100, bytes(7)), NOT_16),
    "codes of another width": (codes(100, bytes(8), mode=3), NOT_16),
    "codes beyond 64 bits": (Craft([entry(value=2, coded=2**64 - 1)]), "its tensors take 18446744073709551615"),
    "codes of integers": (integral(2, 4, 1), "'i': the value mode 2 is for float32, it has int32"),
    "int8 of integers": (integral(9, 2, 2), "'i': the value mode 9 is for float32"),
    "a difference of integers": (integral(8, 0, 8), "'i': the value mode 8 is for float32"),
    "an unknown reference": (small(value=8, plain=b"", symbols=bytes(64)), "'s': the payload relies on values"),
    "a difference that is too short": (small(value=7, plain=bytes(15), symbols=bytes(48)), NOT_16),
    "planes that are too short": (small(value=7, plain=bytes(16), symbols=bytes(47)), NOT_16),
    "a scale that is NaN": (integers(0x7FC0, bytes(16)), "'s': its values .int8. hold a code or a scale"),
    "a scale that is infinite": (integers(0x7F80, bytes(16)), "'s': its values .int8. hold a code or a scale"),
    "a negative scale": (integers(0xBF80, bytes(16)), "'s': its values .int8. hold a code or a scale"),
    "a scale of -0": (integers(0x8000, bytes(16)), "'s': its values .int8. hold a code or a scale"),
    "-128": (integers(0x3F80, bytes(15) + b"\x80"), "'s': its values .int8. hold a code or a scale"),
    "-8": (integers(0x3F80, b"\x88" * 7 + b"\x80", 10), "'s': its values .int4. hold a code or a scale"),
    "padding of nibbles": (integers(0x3F80, b"\x88\x88", 10, 3), "'s': its values .int4. hold a code or a scale"),
    "two scales": (small(value=9, plain=bytes(4), symbols=bytes(16)), NOT_16),
    "no scale": (small(value=10, plain=b"", symbols=bytes(8)), NOT_16),
    "groups of 1": (small(NM, 8, b"\0\1" + bytes(2)), NOT_ONE.format("n:m")),
    "groups of 16": (small(NM, 8, b"\4\x08" + bytes(2)), NOT_ONE.format("n:m")),
    "groups of 2^255": (small(NM, 8, b"\xff\1" + bytes(2)), NOT_ONE.format("n:m")),
    "another N": (small(NM, 8, b"\2\1" + bytes(2)), NOT_ONE.format("n:m")),
    "N of 0": (small(NM, 0, b"\2\0" + bytes(2)), "'s': 4 bytes .n:m. cannot say which 0 of 16"),
    "N of M": (small(NM, 16, b"\2\4" + bytes(2)), "'s': 4 bytes .n:m. cannot say which 16 of 16"),
    "an uneven N": (small(NM, 7, b"\2\2" + bytes(2)), "'s': 4 bytes .n:m. cannot say which 7 of 16"),
    "a byte beyond the digits": (small(NM, 8, b"\2\2\xd8\0"), NOT_ONE.format("n:m")),
    "a digit beyond the base": (small(NM, 8, b"\3\4\x46\0"), NOT_ONE.format("n:m")),
    "digits behind the last": (small(NM, 8, b"\2\2\0\6"), NOT_ONE.format("n:m")),
    "N:M without digits": (small(NM, 8, b"\2\2"), "'s': 2 bytes .n:m. cannot say"),
    "an empty subset": (small(GRID, 4, b"\0\4"), NOT_ONE.format("grid")),
    "a subset of 5 of 4": (small(GRID, 4, b"\5\1\1"), NOT_ONE.format("grid")),
    "a subset of another number": (small(GRID, 4, b"\1\3\4"), NOT_ONE.format("grid")),
    "a subset's padding": (small(GRID, 4, b"\1\x11\4"), NOT_ONE.format("grid")),
    "a grid of another number": (small(GRID, 5, b"\1\1\4"), NOT_ONE.format("grid")),
    "a grid with one axis": (small(GRID, 4, b"\1\1"), "'s': the payload ends"),
    "a grid with three axes": (small(GRID, 4, b"\1\1\4\4"), NOT_ONE.format("grid")),
    "a grid without a subset": (small(GRID, 4, b"\1"), "'s': 1 bytes were promised where 0"),
    "a grid of nothing": (small(GRID, 4, b""), "'s': 0 bytes .grid."),
    "a list without an end": (small(RICE, 2, listed(0, b"\x01")), NOT_ONE.format("rice")),
    "a list of more": (small(RICE, 2, listed(0, b"\x07")), NOT_ONE.format("rice")),
    "a list of zeros": (small(RICE, 2, listed(0, b"\0\0")), NOT_ONE.format("rice")),
    "a list that goes on": (small(RICE, 2, listed(0, b"\x03\0")), NOT_ONE.format("rice")),
    "a list of 2^40": (small(RICE, 2, b"\0" + varints(1 << 40)), NOT_ONE.format("rice")),
    "a shift of 33": (small(RICE, 2, listed(33, b"\3", bytes(9))), NOT_ONE.format("rice")),
    "a shift of 32": (small(RICE, 2, listed(32, b"\3", b"\xff" * 8)), NOT_ONE.format("rice")),
    "a list beyond the end": (small(RICE, 2, listed(2, b"\x11", b"\x0f")), NOT_ONE.format("rice")),
    "padding of a list": (small(RICE, 2, listed(2, b"\3", b"\x10")), NOT_ONE.format("rice")),
    "half a list": (small(RICE, 2, listed(8, b"\3", b"\0")), "'s': 2 bytes were promised where 1"),
    "a list and more": (small(RICE, 2, listed(0, b"\3", b"\0")), NOT_ONE.format("rice")),
    "a difference to another mask": (difference(1, EMPTY, EMPTY, cited=bytes(8)), "relies on another mask"),
    "5 of 4 removed": (difference(5, listed(0, b"\x1f"), EMPTY, 0), NOT_ONE.format("difference")),
    "2^63 removed": (difference(1 << 63, EMPTY, EMPTY), NOT_ONE.format("difference")),
    "-1 added": (difference(0, EMPTY, EMPTY, 3), NOT_ONE.format("difference")),
    "13 of 12 added": (difference(1, listed(0, b"\1"), listed(0, b"\xff\x1f"), 16), NOT_ONE.format("difference")),
    "removed beyond the old ones": (difference(1, listed(0, b"\x10"), listed(0, b"\1")), NOT_ONE.format("difference")),
    "added beyond the others": (difference(1, listed(0, b"\1"), listed(0, b"\0\x10")), NOT_ONE.format("difference")),
    "a difference and more": (difference(0, EMPTY, EMPTY + b"\0"), NOT_ONE.format("difference")),
    "half a difference": (small(masks.DIFFERENCE, 4, CITED + b"\0\0\0"), "'s': 11 bytes .difference."),
    "a seed for more than there are": (small(masks.SEED, 17, bytes(16)), "16 bytes .seed. cannot say which 17 of 16"),
    "half a seed": (small(masks.SEED, 4, bytes(8)), "'s': 8 bytes .seed."),
    "an agreed mask without a schema": (small(masks.AGREED, 4), "'s': has an agreed mask without a schema"),
    "an unknown rule": (small(12, 4), "'s': unknown mask mode 12"),
    "a support by nothing": (small(SUPPORT, 16), "'s': unknown mask mode 128"),
    "a support by a known mask": (small(SUPPORT | masks.KNOWN, 4, CITED), "'s': unknown mask mode 133"),
    "a support by a difference": (small(SUPPORT | masks.DIFFERENCE, 4, CITED + b"\0" + EMPTY * 2), "mask mode 137"),
    "a support by an agreed mask": (small(SUPPORT | masks.AGREED, 4), "'s': unknown mask mode 139"),
    "a support of nothing": (small(SUPPORT | masks.BITMAP, 1, b"\1\0", 0, b"", dtype=0), "'s': has neither a mask nor"),
    "a support of others": (small(SUPPORT | masks.BITMAP, 2, b"\1\0"), NOT_ONE.format("bitmap")),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_refused_by_name(case: str) -> None:
    craft, words = BAD[case]
    for read in (codec.decode, lambda data, *a, **k: codec.accumulate([data], [1], *a, **k)):
        with pytest.raises(codec.DecodeError, match=words):
            read(craft.bytes(), SCHEMA, ROOM, known=HELD)


GOOD: dict[str, tuple[Craft, int | None]] = {
    "codes": (codes(100, bytes(8)), None),
    "escapes": (codes(100, b"\x0f" + bytes(7), b"\x55"), None),
    "only escapes": (codes(100, b"\xff" * 8, bytes(16)), None),
    "low bits": (codes(100, b"\0\0", kept=3, low=b"\1\x07"), 3),
    "int8": (integers(0x3F80, b"\x81" * 16), None),
    "int4": (integers(0x7F7F, b"\x88\x08", 10, 3), 3),
    "2:4": (small(NM, 8, b"\2\2\xd7\5"), 8),
    "4:8": (small(NM, 8, b"\3\4\x45\0"), 8),
    "grid": (small(GRID, 4, b"\1\1\4"), 4),
    "a list": (small(RICE, 2, listed(2, b"\x09", b"\x0f")), 2),
    "a list of the last one": (small(RICE, 1, listed(32, b"\1", b"\x0f\0\0\0")), 1),
    "a difference": (difference(1, listed(0, b"\1"), listed(0, b"\0\x08")), 4),
    "all removed": (difference(4, listed(0, b"\x0f"), EMPTY, 0), 0),
    "seed": (small(masks.SEED, 16, bytes(16)), 16),
    "support": (small(SUPPORT | masks.BITMAP, 1, b"\1\0"), None),
    "full support": (small(SUPPORT | masks.FULL, 16), None),
}


@pytest.mark.parametrize("case", GOOD)
def test_the_refused_ones_have_good_neighbours(case: str) -> None:
    craft, kept = GOOD[case]
    got = codec.decode(craft.bytes(), SCHEMA, ROOM, known=HELD)
    assert got.weights["s"].shape == (4, 4)
    assert (np.count_nonzero(got.masks["s"].dense()) if got.masks else None) == kept


def test_an_agreed_mask_that_is_not() -> None:
    for agreed in ({}, {"s": Bits(np.arange(16).reshape(4, 4) < 3)}):
        schema = Schema({"s": SPECS["s"]}, frozenset({"s"}), agreed=agreed)
        craft = small(masks.AGREED, 4, name=None)  # type: ignore[arg-type]
        craft.schema = codec.schema_hash(schema)
        with pytest.raises(codec.DecodeError, match="'s': its mask is said to be agreed"):
            codec.decode(craft.bytes(), schema, ROOM)


LARGE = {
    "2^60 codes": small(value=2, plain=b"", symbols=b"", coded=1 << 60),
    "a list of 2^60": small(RICE, 16, b"\0" + varints(1 << 60)),
    "a list with a shift of 32": small(RICE, 16, listed(32, b"\xff\xff", b"\xff" * 64)),
    "a grid of 2^60": small(GRID, 16, varints(1 << 60, 1 << 60)),
    "groups of 2^60": small(NM, 8, b"\x3c\2" + bytes(2)),
    "2^60 escapes": small(value=2, plain=b"", symbols=bytes(8), value_len=1 << 60),
    "2^60 kept": small(masks.SEED, 1 << 60, bytes(16), plain=b""),
}


@pytest.mark.parametrize("case", LARGE)
def test_large_numbers_cost_nothing(case: str) -> None:
    data = LARGE[case].bytes()
    tracemalloc.start()
    began = time.thread_time()
    with pytest.raises(codec.DecodeError):
        codec.decode(data, SCHEMA, ROOM)
    took, peak = time.thread_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000
    assert took < 0.01

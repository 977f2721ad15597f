"""The kernels in NumPy: the oracle of the compiled ones (`_kernels.pyx`), and what runs where those are missing.

A bitmap is a uint8 array of (n + 7) // 8 bytes: position i is bit i % 8, the lowest first, of byte i // 8; padding bits
are zero. `kept` is the number of its ones. uint32 arrays hold the bits of float32 values. A kernel that reads bytes of
the wire returns None (or False, or an index) where they are not exactly what the other side writes; it never raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedsparse.codec.costs import LOG2, LOG2_SCALE, cost, plan

__all__ = ["LOG2", "LOG2_SCALE", "cost", "plan"]  # of the kernels, those that are elsewhere

ABI = 3  # raised when a kernel's signature or result changes: tells a stale compiled module apart
ESCAPE = 255
BLOCK = 128  # values that share a scale
QUANTA = {8: 127, 4: 7}  # bits of a code: its largest value
SIGN = np.uint32(1 << 31)


class Planes(NamedTuple):
    """`kept` float32 values as `split` takes them apart."""

    codes: np.ndarray
    escapes: np.ndarray
    mid: np.ndarray
    rest: np.ndarray
    kept: int
    top: int
    width: int
    low: int


Source = Planes | np.ndarray  # of uint8: exactly the values' bytes


def count(bitmap: np.ndarray) -> int:
    """Number of ones."""
    return int(np.bitwise_count(bitmap).sum())


def pack(bits: np.ndarray) -> np.ndarray:
    """The bitmap of a boolean array."""
    return np.packbits(bits, bitorder="little")


def unpack(bitmap: np.ndarray, n: int) -> np.ndarray:
    """The opposite of `pack`."""
    return np.unpackbits(bitmap, count=n, bitorder="little").view(np.bool_)


def _gaps(bitmap: np.ndarray, n: int) -> np.ndarray:
    return np.diff(np.flatnonzero(unpack(bitmap, n)), prepend=-1) - 1


def gaps(bitmap: np.ndarray, n: int, kept: int) -> np.ndarray:
    """The number of dropped positions before each kept one, in bytes; 255 says "255, and more in the next byte"."""
    more, rest = np.divmod(_gaps(bitmap, n), ESCAPE)
    symbols = np.full(int(more.sum()) + rest.size, ESCAPE, np.uint8)
    symbols[np.cumsum(more + 1) - 1] = rest
    return symbols


def ungaps(symbols: np.ndarray, n: int, kept: int) -> np.ndarray | None:
    """The opposite of `gaps`."""
    ends = np.flatnonzero(symbols != ESCAPE)
    if ends.size != kept or (ends[-1] + 1 if kept else 0) != symbols.size:
        return None
    return _bitmap(np.cumsum(symbols, dtype=np.int64)[ends] + np.arange(kept), n)


def rice(bitmap: np.ndarray, n: int, kept: int, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """The same gaps in two bitmaps: gap >> shift in unary (so many zeros, a one), and the `shift` low bits of each."""
    gap = _gaps(bitmap, n)
    ends = np.cumsum((gap >> shift) + 1)
    unary = np.zeros(int(ends[-1]) if kept else 0, np.bool_)
    unary[ends - 1] = True
    return pack(unary), _pack(gap & 0xFFFFFFFF, shift)


def unrice(unary: np.ndarray, low: np.ndarray, n: int, kept: int, shift: int) -> np.ndarray | None:
    """The opposite of `rice`."""
    ends = np.flatnonzero(unpack(unary, unary.size * 8))
    if ends.size != kept or (ends[-1] // 8 + 1 if kept else 0) != unary.size or not 0 <= shift <= 32:
        return None
    rest = _unpack(low, kept, shift)
    high = np.diff(ends, prepend=-1) - 1
    if rest is None or (high > n >> shift).any():
        return None
    return _bitmap(np.cumsum((high << shift) + rest + 1) - 1, n)


def pext(source: np.ndarray, which: np.ndarray, n: int) -> np.ndarray:
    """The bits of one bitmap at the ones of another, one after the other."""
    return pack(unpack(source, n)[unpack(which, n)])


def pdep(source: np.ndarray, which: np.ndarray, n: int) -> np.ndarray | None:
    """The opposite of `pext`: zeros elsewhere."""
    if not _is_bitmap(source, kept := count(which)):
        return None
    bits = unpack(which, n)
    bits[bits] = unpack(source, kept)
    return pack(bits)


def compact(bitmap: np.ndarray, values: np.ndarray, kept: int) -> np.ndarray:
    """The values at the kept positions, one after the other."""
    return values[unpack(bitmap, values.size)]


def expand(bitmap: np.ndarray, values: np.ndarray, out: np.ndarray) -> None:
    """The opposite of `compact`, into `out`: zeros (all bits 0) at the other positions."""
    out.view(np.uint8)[:] = 0
    out[unpack(bitmap, out.size)] = values


def split(values: np.ndarray, top: int, width: int, low: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Planes of values whose exponents are at most `top`: (codes, escapes, mid, rest).

    A code is top - exponent in `width` (1, 2, 4) bits; the largest says that the exponent itself is among the escapes.
    mid is the sign and seven bits of the mantissa, rest the `low` (0 to 16) highest bits of the other sixteen.
    """
    largest = (1 << width) - 1
    exponent = (values >> 23 & 0xFF).astype(np.uint8)
    codes = np.minimum(top - exponent.astype(np.int64), largest)
    mid = (values >> 24 & 0x80 | values >> 16 & 0x7F).astype(np.uint8)
    return _pack(codes, width), exponent[codes == largest], mid, _pack((values & 0xFFFF) >> (16 - low), low)


def join(
    codes: np.ndarray, escapes: np.ndarray, mid: np.ndarray, rest: np.ndarray, k: int, top: int, width: int, low: int
) -> np.ndarray | None:
    """The opposite of `split`."""
    if width not in (1, 2, 4) or not 0 <= low <= 16 or not 0 <= top <= 255 or mid.size != k:
        return None
    largest = (1 << width) - 1
    code, fine = _unpack(codes, k, width), _unpack(rest, k, low)
    if code is None or fine is None:
        return None
    escaped = code == largest
    if np.count_nonzero(escaped) != escapes.size or (escapes > top - largest).any() or (code[~escaped] > top).any():
        return None
    exponent = np.uint32(top) - code
    exponent[escaped] = escapes
    high = mid.astype(np.uint32)
    return (high & 0x80) << 24 | exponent << 23 | (high & 0x7F) << 16 | fine << (16 - low)


def _read(bitmap: np.ndarray | None, n: int, source: Source) -> tuple[np.ndarray, np.ndarray] | None:
    if bitmap is not None and not _is_bitmap(bitmap, n):
        return None
    bits = np.ones(n, np.bool_) if bitmap is None else unpack(bitmap, n)
    if isinstance(source, Planes):
        values = join(*source)
    else:
        values = np.frombuffer(source.tobytes(), np.uint32) if source.size % 4 == 0 else None
    return (bits, values) if values is not None and np.count_nonzero(bits) == values.size else None


def decode32(bitmap: np.ndarray | None, n: int, source: Source, out: np.ndarray) -> bool:
    """`join` and `expand` into `out`, uint32[n]; no bitmap: all are kept. False leaves anything in `out`."""
    if (read := _read(bitmap, n, source)) is not None:
        out[:] = 0
        out[read[0]] = read[1]
    return read is not None


def accumulate32(
    clients: Sequence[tuple[np.ndarray | None, Source, float]], n: int, total: np.ndarray, held: np.ndarray | None
) -> int:
    """The weighted sum of the clients' values into `total`, float32[n], and of the weights that hold each into `held`.

    In order and in float32: one rounding a product, one a sum. Returns -1, or the first client whose source is wrong.
    """
    held = np.empty(n, np.float32) if held is None else held
    total[:] = held[:] = 0
    for i, (bitmap, source, weight) in enumerate(clients):
        if (read := _read(bitmap, n, source)) is None:
            return i
        bits, values = read
        with np.errstate(all="ignore"):
            factor = np.float32(weight)
            total[bits] += factor * values.view(np.float32)
            held[bits] += factor
    return -1


def _ordered(values: np.ndarray) -> np.ndarray:
    return np.where(values & SIGN, ~values, values ^ SIGN)


def zigzag(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The distance of each value from its reference in the order of floats, the sign lowest, in four byte planes."""
    distance = _ordered(values) - _ordered(reference)
    folded = distance << 1 ^ -(distance >> 31)
    return np.ascontiguousarray(folded.astype("<u4").view(np.uint8).reshape(-1, 4).T).ravel()


def unzigzag(planes: np.ndarray, reference: np.ndarray) -> np.ndarray | None:
    """The opposite of `zigzag`."""
    if planes.size != 4 * reference.size:
        return None
    folded = np.ascontiguousarray(planes.reshape(4, -1).T).view(np.uint32).ravel()
    ordered = _ordered(reference) + (folded >> 1 ^ -(folded & 1))
    return np.where(ordered & SIGN, ordered ^ SIGN, ~ordered)


def quantise(values: np.ndarray, uniform: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Finite float32 values as integers of 8 or 4 bits, rounded at random, with a bfloat16 scale for each 128 of them.

    `uniform` are uint32 random words, one a value. Returns (scales uint16, codes uint8): a byte is an int8; a nibble
    is the integer plus 8, the lower nibble first, the last one 0 where the number of values is odd.
    """
    quanta = np.float32(QUANTA[bits])
    largest = np.maximum.reduceat(np.abs(values), np.arange(0, values.size, BLOCK))
    scales = ((largest / quanta).view(np.uint32) + 0xFFFF >> 16).astype(np.uint16)
    with np.errstate(all="ignore"):  # 0 / 0 where a scale is 0
        x = values / _scales(scales, values.size)
        floor = np.floor(x)
        up = (uniform >> 8).astype(np.float32) * np.float32(2**-24) < x - floor
        q = np.nan_to_num(np.clip(floor + up.astype(np.float32), -quanta, quanta)).astype(np.int8)
    q[np.repeat(scales == 0, BLOCK)[: q.size]] = 0
    return scales, q.view(np.uint8) if bits == 8 else _pack(q.astype(np.int64) + 8, 4)


def dequantise(scales: np.ndarray, codes: np.ndarray, k: int, bits: int) -> np.ndarray | None:
    """The opposite of `quantise`, but for the rounding."""
    if scales.size != (k + BLOCK - 1) // BLOCK or (scales >= 0x7F80).any():
        return None
    if (code := _unpack(codes, k, bits)) is None:
        return None
    q = code.astype(np.int8) - np.int8(0 if bits == 8 else 8)
    if (q < -QUANTA[bits]).any():
        return None
    with np.errstate(over="ignore"):
        return q.astype(np.float32) * _scales(scales, k)


def _scales(scales: np.ndarray, k: int) -> np.ndarray:
    return np.repeat((scales.astype(np.uint32) << 16).view(np.float32), BLOCK)[:k]


def _bitmap(positions: np.ndarray, n: int) -> np.ndarray | None:
    """The bitmap of ascending positions, or None where they reach beyond it."""
    if positions.size and positions[-1] >= n:
        return None
    bits = np.zeros(n, np.bool_)
    bits[positions] = True
    return pack(bits)


def _is_bitmap(bitmap: np.ndarray, n: int) -> bool:
    return bitmap.size == (n + 7) // 8 and not (n % 8 and bitmap[-1] >> (n % 8))


def _pack(numbers: np.ndarray, width: int) -> np.ndarray:
    """The `width` low bits of each, one number after the other, the lowest bit first."""
    digits = np.unpackbits(numbers.astype("<u4").view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
    return pack(digits[:, :width])


def _unpack(packed: np.ndarray, k: int, width: int) -> np.ndarray | None:
    """The opposite of `_pack`, as uint32[k]."""
    if not _is_bitmap(packed, k * width):
        return None
    digits = np.zeros((k, 32), np.uint8)
    digits[:, :width] = unpack(packed, k * width).reshape(k, width)
    return np.packbits(digits, axis=1, bitorder="little").view(np.uint32).ravel()

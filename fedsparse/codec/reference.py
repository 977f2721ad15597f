"""The kernels in NumPy: the oracle of the compiled ones (`_kernels.pyx`), and what runs where those are missing.

`bits` is a flat, contiguous boolean array, `kept` the number of its True. A kernel that reads bytes of the wire returns
None where they are not exactly one mask of `n` positions, `kept` of them True; it never raises.
"""

from __future__ import annotations

import math

import numpy as np

ABI = 1  # raised when a kernel's signature or result changes: tells a stale compiled module apart
ESCAPE = 255
LOG2_SCALE = 256
LOG2 = np.array([0] + [round(LOG2_SCALE * math.log2(i)) for i in range(1, 512)], np.int64)


def count(bits: np.ndarray) -> int:
    """Number of True."""
    return int(np.count_nonzero(bits))


def pack(bits: np.ndarray) -> np.ndarray:
    """Eight positions a byte, the lowest bit first, padding bits zero."""
    return np.packbits(bits, bitorder="little")


def unpack(packed: np.ndarray, n: int, kept: int) -> np.ndarray | None:
    """The opposite of `pack`."""
    if packed.size != (n + 7) // 8 or (n % 8 and packed[-1] >> (n % 8)):
        return None
    bits = np.unpackbits(packed, count=n, bitorder="little").view(np.bool_)
    return bits if count(bits) == kept else None


def gaps(bits: np.ndarray, kept: int) -> np.ndarray:
    """The number of dropped positions before each kept one, in bytes; 255 says "255, and more in the next byte"."""
    del kept
    gap = np.diff(np.flatnonzero(bits), prepend=-1) - 1
    more, rest = np.divmod(gap, ESCAPE)
    symbols = np.full(int(more.sum()) + gap.size, ESCAPE, np.uint8)
    symbols[np.cumsum(more + 1) - 1] = rest
    return symbols


def ungaps(symbols: np.ndarray, n: int, kept: int) -> np.ndarray | None:
    """The opposite of `gaps`."""
    ends = np.flatnonzero(symbols != ESCAPE)
    if ends.size != kept or (ends[-1] + 1 if kept else 0) != symbols.size:
        return None
    positions = np.cumsum(symbols, dtype=np.int64)[ends] + np.arange(kept)
    if kept and positions[-1] >= n:
        return None
    bits = np.zeros(n, np.bool_)
    bits[positions] = True
    return bits


def compact(bits: np.ndarray, values: np.ndarray, kept: int) -> np.ndarray:
    """The values at the kept positions, one after the other."""
    del kept
    return values[bits]


def expand(bits: np.ndarray, values: np.ndarray, kept: int) -> np.ndarray:
    """The opposite of `compact`: zeros (all bits 0) at the other positions."""
    del kept
    dense = np.zeros(bits.size, values.dtype)
    dense[bits] = values
    return dense


def cost(symbols: np.ndarray) -> int:
    """About what a Huffman code makes of these bytes, in 1/256 bits: integers, so that every machine chooses alike."""
    counts = np.bincount(symbols, minlength=256)
    counts = counts[counts > 0]
    if counts.size < 2:
        return 16 * LOG2_SCALE
    total = symbols.size
    first = int(counts.max())
    rest = counts
    bits = 0
    if 2 * first > total:  # a code spends a whole bit on the commonest symbol, however common it is
        rest = np.delete(counts, counts.argmax())
        bits = total * LOG2_SCALE
        total -= first
    bits += total * int(_log2(np.array([total]))[0]) - int((rest * _log2(rest)).sum())
    table = counts.size * LOG2_SCALE * 4  # about half a byte a symbol
    return min(bits + table, symbols.size * 8 * LOG2_SCALE)


def _log2(numbers: np.ndarray) -> np.ndarray:
    shift = np.maximum(np.frexp(numbers.astype(np.float64))[1] - 9, 0)
    return LOG2[numbers >> shift] + LOG2_SCALE * shift

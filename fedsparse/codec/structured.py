"""Masks that follow a rule: a grid of rows and columns, N of every M, drawn from a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations

import numpy as np

from fedsparse.codec import kernels
from fedsparse.codec.wire import Reader, put_varint

GROUPS = (2, 4, 8)  # the M of N:M: a group never crosses a byte of the bitmap
LOOK = 64  # positions or rows that are looked at before all are


# ---- a mask from a seed ----


@dataclass(frozen=True)
class Seeded:
    """A mask that both sides draw: the `count` smallest of n raw Philox4x64-10 words, ties by index (FORMAT.md).

    key: two integers of 64 bits.
    """

    shape: tuple[int, ...]
    count: int
    key: tuple[int, int]

    @cached_property
    def bitmap(self) -> np.ndarray:
        return drawn(self.key, math.prod(self.shape), self.count)

    @cached_property
    def bits(self) -> np.ndarray:
        return kernels.unpack(self.bitmap, math.prod(self.shape)).reshape(self.shape)

    def dense(self) -> np.ndarray:
        """The mask, a boolean array of `shape`."""
        return self.bits


def drawn(key: tuple[int, int], n: int, kept: int) -> np.ndarray:
    """The bitmap of the `kept` smallest of n words. NumPy's Philox gives the raw words in the counter's order."""
    if not 0 <= kept <= n:
        raise ValueError(f"{kept} of {n} positions cannot be kept")
    words = np.random.Philox(key=np.array(key, np.uint64)).random_raw(n) if n else np.zeros(0, np.uint64)
    bits = np.zeros(n, np.bool_)
    if kept:
        largest = np.partition(words, kept - 1)[kept - 1]
        bits = words < largest
        bits[np.flatnonzero(words == largest)[: kept - int(bits.sum())]] = True
    return kernels.pack(bits)


# ---- grids: a subset of every axis ----


def grid(bitmap: np.ndarray, shape: tuple[int, ...], kept: int) -> bytes | None:
    """The subsets of the axes whose product the mask is: for each, how many are kept and, unless all, a bitmap."""
    if len(shape) < 2 or not 0 < kept < math.prod(shape):
        return None
    rows, width = shape[0], math.prod(shape[1:])
    some = min(rows, LOOK) * width
    if not _rows_look_alike(kernels.unpack(bitmap[: (some + 7) // 8], some).reshape(-1, width)):
        return None
    bits = kernels.unpack(bitmap, rows * width).reshape(shape)
    flat = bits.reshape(rows, width)
    used = flat[:, int(flat[flat.any(1).argmax()].argmax())]
    if not np.array_equal(flat[used], np.broadcast_to(flat[used][0], (int(used.sum()), width))) or flat[~used].any():
        return None
    subsets = [used, *(_subset(flat[used.argmax()].reshape(shape[1:]), axis) for axis in range(len(shape) - 1))]
    if math.prod(int(subset.sum()) for subset in subsets) != kept:
        return None
    out = bytearray()
    for subset in subsets:
        put_varint(out, int(subset.sum()))
        if not subset.all():
            out += kernels.pack(np.ascontiguousarray(subset)).data
    return bytes(out)


def _rows_look_alike(rows: np.ndarray) -> bool:
    """Whether rows are empty or equal: random masks end here."""
    used = rows[rows.any(1)]
    return bool((used == used[:1]).all()) if len(used) else True


def _subset(bits: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(bits.any(tuple(i for i in range(bits.ndim) if i != axis)))


def read_grid(reader: Reader, shape: tuple[int, ...], kept: int) -> np.ndarray | None:
    """The bitmap of a grid, or None."""
    bits = np.ones((1,) * len(shape), np.bool_)
    for axis, size in enumerate(shape):
        number = reader.varint()
        if not 0 < number <= size:
            return None
        if number < size:
            packed = np.frombuffer(reader.take((size + 7) // 8), np.uint8)
            if kernels.count(packed) != number or not padded(packed, size):
                return None
            bits = bits & kernels.unpack(packed, size).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        elif not size:
            return None
    full = np.ascontiguousarray(np.broadcast_to(bits, shape)).reshape(-1)
    packed = kernels.pack(full)
    return packed if kernels.count(packed) == kept else None


def padded(bitmap: np.ndarray, n: int) -> bool:
    """Whether the bits behind the last position are zero."""
    return not (n % 8 and bitmap[-1] >> (n % 8))


# ---- N of every M ----


@dataclass(frozen=True)
class Digits:
    """How groups of M positions with N kept become bytes: `batch` digits of base `base` each, the first one lowest."""

    base: int
    batch: int
    pattern: np.ndarray  # digit -> M bits; ascending
    digit: np.ndarray  # M bits -> digit, 255 for another number of ones

    @staticmethod
    @cache
    def of(m: int, n: int) -> Digits:
        pattern = np.array(sorted(sum(1 << i for i in some) for some in combinations(range(m), n)), np.uint8)
        digit = np.full(256, 255, np.uint8)
        digit[pattern] = np.arange(len(pattern))
        return Digits(len(pattern), int(math.log(256, len(pattern)) + 1e-9) if len(pattern) > 1 else 8, pattern, digit)


def nm(bitmap: np.ndarray, n: int, kept: int) -> np.ndarray | None:
    """The bytes of an N:M mask: log2 M, N, then its digits. The smallest M that fits."""
    for m in GROUPS:
        if n % m or kept * m % n or not 0 < kept < n:
            continue
        each = kept * m // n
        if not _regular(bitmap[:LOOK], m, each, min(n, 8 * LOOK)) or not _regular(bitmap, m, each, n):
            continue
        digits = Digits.of(m, each)
        number = digits.digit[_groups(bitmap, m)[: n // m]]
        number = np.pad(number, (0, -len(number) % digits.batch)).reshape(-1, digits.batch)
        packed = (number * digits.base ** np.arange(digits.batch)).sum(1).astype(np.uint8)
        return np.concatenate([np.array([m.bit_length() - 1, each], np.uint8), packed])
    return None


def _groups(bitmap: np.ndarray, m: int) -> np.ndarray:
    """The groups of m bits, in order."""
    shifts = np.arange(0, 8, m, dtype=np.uint8)
    return (bitmap[:, None] >> shifts & np.uint8((1 << m) - 1)).reshape(-1)


def _regular(bitmap: np.ndarray, m: int, each: int, n: int) -> bool:
    return bool((np.bitwise_count(_groups(bitmap, m)[: n // m]) == each).all())


def nm_length(n: int, kept: int, length: int) -> bool:
    """Whether any M and N give this number of bytes."""
    if not 0 < kept < n:
        return False
    return any(n % m == 0 and kept * m % n == 0 and length == _length(n, m, kept * m // n) for m in GROUPS)


def _length(n: int, m: int, each: int) -> int:
    return 2 + -(-(n // m) // Digits.of(m, each).batch)


def read_nm(symbols: np.ndarray, n: int, kept: int) -> np.ndarray | None:
    """The bitmap of an N:M mask, or None."""
    m, each = 1 << min(int(symbols[0]), 8), int(symbols[1])
    if m not in GROUPS or n % m or each * n != kept * m or len(symbols) != _length(n, m, each):
        return None
    digits = Digits.of(m, each)
    powers = digits.base ** np.arange(digits.batch)
    number = symbols[2:, None] // powers
    if (number[:, -1] >= digits.base).any():
        return None
    number = (number % digits.base).reshape(-1)
    if number[n // m :].any():
        return None
    patterns = digits.pattern[number[: n // m]]
    per = 8 // m
    patterns = np.pad(patterns, (0, -len(patterns) % per)).reshape(-1, per)
    return np.bitwise_or.reduce(patterns << np.arange(0, 8, m, dtype=np.uint8), axis=1).astype(np.uint8)

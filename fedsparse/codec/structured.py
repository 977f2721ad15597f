"""Masks that follow a rule: a grid of rows and columns, N of every M, drawn from a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations

import numpy as np

from fedsparse.codec import kernels
from fedsparse.codec.wire import Reader, put_varint, word
from fedsparse.payload import Array

GROUPS = (2, 4, 8)  # the M of N:M: a group never crosses a byte of the bitmap
CHUNK = 1 << 18  # words that are drawn at once
GRID_CAP = 1 << 20  # bytes of a grid
LOOK = 64  # positions or rows that are looked at before all are


# ---- a mask from a seed ----


@dataclass(frozen=True)
class Seeded:
    """A mask that both sides draw: the `count` smallest of n raw Philox4x64-10 words, ties by index (FORMAT.md).

    key: two integers, of which the lowest 64 bits count.
    """

    shape: tuple[int, ...]
    count: int
    key: tuple[int, int]

    def __post_init__(self) -> None:
        first, second = self.key
        object.__setattr__(self, "key", (word(first, "a seed"), word(second, "a seed")))

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
    """The bitmap of the `kept` smallest of n words. NumPy's Philox gives the raw words in the counter's order.

    Where the largest kept word lies is all but known beforehand: only the words near there are held and sorted.
    """
    if not 0 <= kept <= n:
        raise ValueError(f"{kept} of {n} positions cannot be kept")
    if not n:
        return np.zeros(0, np.uint8)
    found = _drawn(key, n, kept, 64 + 8 * math.isqrt(kept * (n - kept) // n))  # eight standard deviations
    if found is None:
        found = _drawn(key, n, kept, n)
    assert found is not None
    return found


def _drawn(key: tuple[int, int], n: int, kept: int, margin: int) -> np.ndarray | None:
    """As `drawn`, if the largest kept word is among the n-ths of all numbers that are so near to `kept`; else None."""
    low, high = (max(0, kept - margin) << 64) // n, (min(n, kept + margin) << 64) // n
    generator = np.random.Philox(key=np.array(key, np.uint64))
    bitmap = np.empty((n + 7) // 8, np.uint8)
    words, places = [], []
    for at in range(0, n, CHUNK):
        some = generator.random_raw(min(CHUNK, n - at))
        bitmap[at // 8 : (at + CHUNK) // 8] = kernels.pack(some < np.uint64(low))
        near = np.flatnonzero(some - np.uint64(low) <= np.uint64(high - low - 1))
        words.append(some[near])
        places.append(near + at)
    missing, place = kept - kernels.count(bitmap), np.concatenate(places)
    if not 0 <= missing <= place.size:
        return None
    place = place[np.argsort(np.concatenate(words), kind="stable")[:missing]]
    np.bitwise_or.at(bitmap, place >> 3, (1 << (place & 7)).astype(np.uint8))
    return bitmap


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
    return put_grid(shape, subsets)


def put_grid(shape: tuple[int, ...], subsets: Sequence[Array | None]) -> bytes | None:
    """The bytes of a grid that keeps these of each axis (None: all), none of them empty. None: more than is read."""
    out = bytearray()
    for size, subset in zip(shape, subsets, strict=True):
        kept = size if subset is None else int(subset.sum())
        put_varint(out, kept)
        if kept < size:
            out += kernels.pack(np.ascontiguousarray(subset, np.bool_)).data
    return bytes(out) if len(out) <= GRID_CAP else None


def _rows_look_alike(rows: np.ndarray) -> bool:
    """Whether rows are empty or equal: random masks end here."""
    used = rows[rows.any(1)]
    return bool((used == used[:1]).all()) if len(used) else True


def _subset(bits: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(bits.any(tuple(i for i in range(bits.ndim) if i != axis)))


def read_grid(reader: Reader, shape: tuple[int, ...], kept: int) -> np.ndarray | None:
    """The bitmap of a grid, or None."""
    subsets: list[np.ndarray | None] = []
    for size in shape:
        number = reader.varint()
        if not 0 < number <= size:
            return None
        packed = np.frombuffer(reader.take((size + 7) // 8), np.uint8) if number < size else None
        if packed is not None and (kernels.count(packed) != number or not padded(packed, size)):
            return None
        subsets.append(None if packed is None else kernels.unpack(packed, size))
    packed = product(shape, subsets)
    return packed if kernels.count(packed) == kept else None


def product(shape: tuple[int, ...], subsets: Sequence[Array | None]) -> np.ndarray:
    """The bitmap of a grid that keeps these of each axis (None: all)."""
    axes = [
        np.ones(size, np.bool_) if subset is None else np.asarray(subset)
        for size, subset in zip(shape, subsets, strict=True)
    ]
    row = np.ones(1, np.bool_)
    for axis in reversed(axes[1:]):
        row = np.logical_and.outer(axis, row).reshape(-1)
    rows = axes[0] if axes else row
    if row.size % 8:
        return kernels.pack(np.logical_and.outer(rows, row).reshape(-1))
    return np.where(rows[:, None], kernels.pack(row), np.uint8(0)).reshape(-1)


def padded(bitmap: np.ndarray, n: int) -> bool:
    """Whether the bits behind the last position are zero."""
    return not (n % 8 and bitmap[-1] >> (n % 8))


# ---- N of every M ----


@dataclass(frozen=True)
class Digits:
    """How groups of M positions with N kept become bytes: `batch` digits of base `base` each, the first one lowest."""

    base: int
    batch: int
    powers: np.ndarray  # what the digits of a byte count
    pattern: np.ndarray  # digit -> M bits; ascending
    digit: np.ndarray  # M bits -> digit, 255 for another number of ones

    @staticmethod
    @cache
    def of(m: int, n: int) -> Digits:
        pattern = np.array(sorted(sum(1 << i for i in some) for some in combinations(range(m), n)), np.uint8)
        digit = np.full(256, 255, np.uint8)
        digit[pattern] = np.arange(len(pattern))
        batch = int(math.log(256, len(pattern)) + 1e-9)
        powers = (len(pattern) ** np.arange(batch)).astype(np.uint8)
        return Digits(len(pattern), batch, powers, pattern, digit)


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
        packed = number @ digits.powers
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
    number = symbols[2:, None] // digits.powers
    if (number[:, -1] >= digits.base).any():
        return None
    number = (number % digits.base).reshape(-1)
    if number[n // m :].any():
        return None
    patterns = digits.pattern[number[: n // m]]
    per = 8 // m
    patterns = np.pad(patterns, (0, -len(patterns) % per)).reshape(-1, per)
    return np.bitwise_or.reduce(patterns << np.arange(0, 8, m, dtype=np.uint8), axis=1).astype(np.uint8)

"""A list of positions as Rice codes (FORMAT.md, "Position list"): short without an entropy coder, however few."""

from __future__ import annotations

import math

import numpy as np

from fedsparse.codec import kernels
from fedsparse.codec.wire import Reader, put_varint

LARGEST_SHIFT = 32


def shift(n: int, kept: int) -> int:
    """The parameter that suits gaps of this mean: their low bits that are sent as they are."""
    if not kept:
        return 0
    return min(max(0, round(math.log2(max(math.log(2) * (n - kept) / kept, 0.5)))), LARGEST_SHIFT)


def cost(n: int, kept: int) -> int:
    """About how many bytes `put` will take: the gaps' sum is known, whatever the mask looks like."""
    low = shift(n, kept)
    whole = max(0, (n - kept) - kept * ((1 << low) - 1) // 2) >> low
    return 4 + (kept * (1 + low) + whole) // 8


def put(out: bytearray, bitmap: np.ndarray, n: int, kept: int) -> None:
    """Append the ones of a bitmap of n positions."""
    low = shift(n, kept)
    unary, rest = kernels.rice(bitmap, n, kept, low)
    out.append(low)
    put_varint(out, unary.size)
    out += unary.data
    out += rest.data


def take(reader: Reader, n: int, kept: int) -> np.ndarray | None:
    """The bitmap of a list of `kept` positions below n, at most n; None where the bytes are no such list."""
    low = reader.byte()
    if low > LARGEST_SHIFT:
        return None
    length = reader.varint()
    if length > (kept + (n >> low) + 7) // 8:
        return None
    unary = np.frombuffer(reader.take(length), np.uint8)
    rest = np.frombuffer(reader.take((kept * low + 7) // 8), np.uint8)
    return kernels.unrice(unary, rest, n, kept, low)

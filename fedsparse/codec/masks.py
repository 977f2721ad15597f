"""Mask modes: how a payload says which positions of a tensor are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from fedsparse.codec import kernels, streams
from fedsparse.codec.container import DENSE
from fedsparse.codec.wire import Buffer, DecodeError, UnknownMask, put_varint
from fedsparse.payload import Mask

FULL, BITMAP, GAPS, MIRROR, KNOWN, AGREED = 1, 2, 3, 4, 5, 11
HASH = 8


@dataclass(frozen=True)
class Mode:
    """One mask mode: where its bytes are (`stream`, None: before the values), which lengths fit, how they are read."""

    name: str
    stream: int | None
    fits: Callable[[int, int, int], bool]  # (positions, kept, length of the mask's bytes)
    read: Callable[[np.ndarray, tuple[int, ...], int, Mask | None], np.ndarray | None]


def flat_bits(mask: Mask) -> np.ndarray:
    """The mask as a flat, contiguous boolean array (a view where it can be one)."""
    return np.ascontiguousarray(np.asarray(mask.dense(), dtype=np.bool_)).reshape(-1)


def mask_hash(mask: Mask) -> int:
    """64 bits over the shape and the bitmap of a mask: what "the mask you hold" means on the wire."""
    return _hash(tuple(mask.shape), kernels.pack(flat_bits(mask)))


def _hash(shape: tuple[int, ...], packed: np.ndarray) -> int:
    out = bytearray()
    for number in (len(shape), *shape):
        put_varint(out, number)
    out += packed.data
    return xxhash.xxh3_64_intdigest(out)


def write(
    mask: Mask, bits: np.ndarray, kept: int, known: Mask | None, agreed: Mask | None = None
) -> tuple[int, Buffer]:
    """The cheapest mode for this mask, and its bytes."""
    if kept == bits.size:
        return FULL, b""
    if agreed is not None and _same(mask, bits, agreed):
        return AGREED, b""
    if kept == 0:
        return GAPS, b""
    packed = kernels.pack(bits)
    if packed.size > HASH and known is not None and _same(mask, bits, known):
        return KNOWN, _hash(tuple(mask.shape), packed).to_bytes(HASH, "little")
    few = min(kept, bits.size - kept)
    if few > bits.size / 3:  # gaps are hardly ever shorter
        return BITMAP, packed.data
    mode, symbols = (GAPS, kernels.gaps(bits, few)) if few == kept else (MIRROR, kernels.gaps(~bits, few))
    # Below 7 % the bitmap is never shorter: a Huffman code spends a whole bit on each of its many empty bytes.
    shorter = few < bits.size / 14 or kernels.cost(symbols) < kernels.cost(packed)
    return (mode, symbols.data) if shorter else (BITMAP, packed.data)


def _same(mask: Mask, bits: np.ndarray, known: Mask) -> bool:
    return mask is known or (tuple(known.shape) == tuple(mask.shape) and np.array_equal(flat_bits(known), bits))


def size(shape: tuple[int, ...]) -> int:
    n = 1
    for axis in shape:
        n *= axis
    return n


def _read_full(symbols: np.ndarray, shape: tuple[int, ...], kept: int, known: Mask | None) -> np.ndarray:
    return np.ones(size(shape), np.bool_)


def _read_bitmap(symbols: np.ndarray, shape: tuple[int, ...], kept: int, known: Mask | None) -> np.ndarray | None:
    return kernels.unpack(symbols, size(shape), kept)


def _read_gaps(symbols: np.ndarray, shape: tuple[int, ...], kept: int, known: Mask | None) -> np.ndarray | None:
    return kernels.ungaps(symbols, size(shape), kept)


def _read_mirror(symbols: np.ndarray, shape: tuple[int, ...], kept: int, known: Mask | None) -> np.ndarray | None:
    n = size(shape)
    dropped = kernels.ungaps(symbols, n, n - kept)
    return None if dropped is None else ~dropped


def _read_known(symbols: np.ndarray, shape: tuple[int, ...], kept: int, known: Mask | None) -> np.ndarray:
    if known is None or tuple(known.shape) != shape:
        raise UnknownMask("the payload relies on a mask that this receiver does not hold")
    bits = flat_bits(known)
    if _hash(shape, kernels.pack(bits)) != int.from_bytes(symbols, "little") or kernels.count(bits) != kept:
        raise UnknownMask("the payload relies on another mask than the one that this receiver holds")
    return bits.copy()


def _read_agreed(symbols: np.ndarray, shape: tuple[int, ...], kept: int, known: Mask | None) -> np.ndarray:
    bits = None if known is None else flat_bits(known)
    if bits is None or kernels.count(bits) != kept:
        raise DecodeError("its mask is said to be agreed, and no such mask is")
    return bits.copy()


MODES: dict[int, Mode] = {
    FULL: Mode("full", None, lambda n, kept, length: kept == n and length == 0, _read_full),
    BITMAP: Mode("bitmap", streams.BITMAP, lambda n, kept, length: length == (n + 7) // 8, _read_bitmap),
    GAPS: Mode("gaps", streams.GAPS, lambda n, kept, length: kept <= length <= kept + (n - kept) // 255, _read_gaps),
    MIRROR: Mode(
        "mirror", streams.GAPS, lambda n, kept, length: n - kept <= length <= n - kept + kept // 255, _read_mirror
    ),
    KNOWN: Mode("known", None, lambda n, kept, length: length == HASH, _read_known),
    AGREED: Mode("agreed", None, lambda n, kept, length: length == 0, _read_agreed),
}


def name(mode: int) -> str:
    return "dense" if mode == DENSE else MODES[mode].name


def read(mode: int, symbols: Any, shape: tuple[int, ...], kept: int, known: Mask | None) -> np.ndarray:
    """The flat mask, or DecodeError."""
    bits = MODES[mode].read(np.frombuffer(symbols, np.uint8), shape, kept, known)
    if bits is None:
        raise DecodeError(f"its mask ({MODES[mode].name}) is not one of {size(shape)} positions with {kept} kept")
    return bits

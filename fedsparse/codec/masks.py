"""Mask modes: how a payload says which positions of a tensor are kept. Inside the codec a mask is a bitmap."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from fedsparse.codec import kernels, positions, streams, structured
from fedsparse.codec.container import DENSE
from fedsparse.codec.reference import LOG2_SCALE
from fedsparse.codec.wire import Buffer, DecodeError, Reader, UnknownMask, put_varint
from fedsparse.payload import Grid, Mask, Packed

FULL, BITMAP, GAPS, MIRROR, KNOWN, RICE, GRID, NM, DIFFERENCE, SEED, AGREED = range(1, 12)
SUPPORT = 128  # added to a mode: it tells where a tensor is not zero, and is no mask of the receiver's
HASH = 8
KEY = 16
RULED_FROM = 64  # bytes of a bitmap: a smaller one is not looked at for rules
RICE_GAIN, BITMAP_GAIN = 1.02, 1.03  # gaps are read faster than Rice codes, and a bitmap faster than gaps


@dataclass(frozen=True)
class Ask:
    """What a mode's reader is given: the mask's bytes, and what the receiver knows about the tensor."""

    symbols: np.ndarray
    shape: tuple[int, ...]
    n: int
    kept: int
    held: Mask | None

    @property
    def reader(self) -> Reader:
        return Reader(self.symbols.data, 0, self.symbols.size)


@dataclass(frozen=True)
class Mode:
    """One mask mode: where its bytes are (`stream`, None: before the values), which lengths fit, how they are read."""

    name: str
    stream: int | None
    fits: Callable[[int, int, int], bool]  # (positions, kept, length of the mask's bytes)
    read: Callable[[Ask], np.ndarray | None]


def size(shape: tuple[int, ...]) -> int:
    """Number of elements, of any size: shapes of the wire may exceed 64 bits."""
    return math.prod(shape)


def pack(mask: Mask) -> np.ndarray:
    """The mask as a bitmap (not to be changed: it may be the mask's own)."""
    if isinstance(mask, Packed | structured.Seeded):
        return mask.bitmap
    if isinstance(mask, Grid):
        return structured.product(mask.shape, mask.axes)
    return kernels.pack(np.ascontiguousarray(np.asarray(mask.dense(), dtype=np.bool_)).reshape(-1))


def whole(mask: Packed) -> bool:
    """Whether the bitmap is one: of the right length, with zeros behind the last position."""
    n, bitmap = size(mask.shape), mask.bitmap
    right = bitmap.dtype == np.uint8 and bitmap.shape == ((n + 7) // 8,) and bitmap.flags.c_contiguous
    return right and structured.padded(bitmap, n)


def mask_hash(mask: Mask) -> int:
    """64 bits over the shape and the bitmap of a mask: what "the mask you hold" means on the wire."""
    return _hash(tuple(mask.shape), pack(mask))


def _hash(shape: tuple[int, ...], bitmap: np.ndarray) -> int:
    out = bytearray()
    for number in (len(shape), *shape):
        put_varint(out, number)
    digest = xxhash.xxh3_64(bytes(out))
    digest.update(bitmap.data)
    return digest.intdigest()


def same(mask: Mask, bitmap: np.ndarray, other: Mask | None) -> bool:
    """Whether `other` is this mask."""
    if other is None or tuple(other.shape) != tuple(mask.shape):
        return False
    return mask is other or np.array_equal(pack(other), bitmap)


# ---- readers: a bitmap, or None where the bytes are no mask ----


def full(n: int) -> np.ndarray:
    """The bitmap that keeps everything."""
    return invert(np.zeros((n + 7) // 8, np.uint8), n)


def _full(ask: Ask) -> np.ndarray:
    return full(ask.n)


def _bitmap(ask: Ask) -> np.ndarray | None:
    bitmap = ask.symbols.copy()  # the mask outlives the payload, which may change under our hands
    return bitmap if structured.padded(bitmap, ask.n) and kernels.count(bitmap) == ask.kept else None


def _gaps(ask: Ask) -> np.ndarray | None:
    return kernels.ungaps(ask.symbols, ask.n, ask.kept)


def _mirror(ask: Ask) -> np.ndarray | None:
    dropped = kernels.ungaps(ask.symbols, ask.n, ask.n - ask.kept)
    return None if dropped is None else invert(dropped, ask.n)


def invert(bitmap: np.ndarray, n: int) -> np.ndarray:
    """The other positions."""
    out = ~bitmap
    if n % 8:
        out[-1] &= (1 << n % 8) - 1
    return out


def _held(ask: Ask, cited: int) -> np.ndarray:
    """The bitmap of the mask that the receiver holds, if it is the one cited."""
    if ask.held is None or tuple(ask.held.shape) != ask.shape:
        raise UnknownMask("the payload relies on a mask that this receiver does not hold")
    bitmap = pack(ask.held)
    if _hash(ask.shape, bitmap) != cited:
        raise UnknownMask("the payload relies on another mask than the one that this receiver holds")
    return bitmap


def _known(ask: Ask) -> np.ndarray | None:
    bitmap = _held(ask, int.from_bytes(ask.symbols.tobytes(), "little"))
    return bitmap if kernels.count(bitmap) == ask.kept else None


def _agreed(ask: Ask) -> np.ndarray:
    bitmap = None if ask.held is None else pack(ask.held)
    if bitmap is None or kernels.count(bitmap) != ask.kept:
        raise DecodeError("its mask is said to be agreed, and no such mask is")
    return bitmap


def _rice(ask: Ask) -> np.ndarray | None:
    reader = ask.reader
    bitmap = positions.take(reader, ask.n, ask.kept)
    return bitmap if reader.pos == reader.end else None


def _grid(ask: Ask) -> np.ndarray | None:
    reader = ask.reader
    bitmap = structured.read_grid(reader, ask.shape, ask.kept)
    return bitmap if reader.pos == reader.end else None


def _nm(ask: Ask) -> np.ndarray | None:
    return structured.read_nm(ask.symbols, ask.n, ask.kept)


def _seed(ask: Ask) -> np.ndarray:
    first, second = np.frombuffer(ask.symbols.tobytes(), "<u8")
    return structured.drawn((int(first), int(second)), ask.n, ask.kept)


def _difference(ask: Ask) -> np.ndarray | None:
    """The held mask, less positions counted among its own, with others counted among the rest."""
    reader = ask.reader
    old = _held(ask, int.from_bytes(reader.take(HASH), "little"))
    before, removed = kernels.count(old), reader.varint()
    added = ask.kept - before + removed
    if removed > before or not 0 <= added <= ask.n - before:
        return None
    gone = positions.take(reader, before, removed)
    come = positions.take(reader, ask.n - before, added)
    if gone is None or come is None or reader.pos != reader.end:
        return None
    return (old ^ kernels.pdep(gone, old, ask.n)) | kernels.pdep(come, invert(old, ask.n), ask.n)


def put_difference(bitmap: np.ndarray, old: np.ndarray, n: int, shape: tuple[int, ...]) -> bytes:
    """The bytes that `_difference` reads."""
    gone = kernels.pext(old & ~bitmap, old, n)
    rest = invert(old, n)
    come = kernels.pext(bitmap & ~old, rest, n)
    before, removed = kernels.count(old), kernels.count(gone)
    out = bytearray(_hash(shape, old).to_bytes(HASH, "little"))
    put_varint(out, removed)
    positions.put(out, gone, before, removed)
    positions.put(out, come, n - before, kernels.count(come))
    return bytes(out)


MODES: dict[int, Mode] = {
    FULL: Mode("full", None, lambda n, kept, length: kept == n and length == 0, _full),
    BITMAP: Mode("bitmap", streams.BITMAP, lambda n, kept, length: length == (n + 7) // 8, _bitmap),
    GAPS: Mode("gaps", streams.GAPS, lambda n, kept, length: kept <= length <= kept + (n - kept) // 255, _gaps),
    MIRROR: Mode("mirror", streams.GAPS, lambda n, kept, length: n - kept <= length <= n - kept + kept // 255, _mirror),
    KNOWN: Mode("known", None, lambda n, kept, length: length == HASH, _known),
    RICE: Mode("rice", None, lambda n, kept, length: 2 <= length <= 12 + kept * 5 + n // 8, _rice),
    GRID: Mode("grid", None, lambda n, kept, length: 0 < length <= structured.GRID_CAP, _grid),
    NM: Mode("n:m", streams.NM, structured.nm_length, _nm),
    DIFFERENCE: Mode("difference", None, lambda n, kept, length: length >= HASH + 5, _difference),
    SEED: Mode("seed", None, lambda n, kept, length: length == KEY, _seed),
    AGREED: Mode("agreed", None, lambda n, kept, length: length == 0, _agreed),
}


def name(mode: int) -> str:
    """What the mode is called; a support is named as such."""
    return "dense" if mode == DENSE else MODES[mode & ~SUPPORT].name + (" support" if mode & SUPPORT else "")


def read(mode: int, symbols: Any, shape: tuple[int, ...], kept: int, held: Mask | None) -> np.ndarray:
    """The bitmap of a mask whose length was checked, or DecodeError. It may be a view on `symbols`."""
    n = size(shape)
    bitmap = MODES[mode].read(Ask(np.frombuffer(symbols, np.uint8), shape, n, kept, held))
    if bitmap is None:
        raise DecodeError(f"its mask ({MODES[mode].name}) is not one of {n} positions with {kept} kept")
    return bitmap


def write(
    mask: Mask, bitmap: np.ndarray, kept: int, known: Mask | None = None, agreed: Mask | None = None
) -> tuple[int, Buffer]:
    """The cheapest mode for this mask, and its bytes."""
    shape = tuple(mask.shape)
    n = size(shape)
    if kept == n:
        return FULL, b""
    if same(mask, bitmap, agreed):
        return AGREED, b""
    if kept == 0:
        return GAPS, b""
    grid = structured.put_grid(shape, mask.axes) if isinstance(mask, Grid) else None
    plain = bitmap.size if grid is None else min(bitmap.size, len(grid))
    if plain > HASH and same(mask, bitmap, known):
        return KNOWN, _hash(shape, bitmap).to_bytes(HASH, "little")
    if grid is not None and len(grid) == plain:
        return GRID, grid
    if isinstance(mask, structured.Seeded) and bitmap.size > KEY:
        return SEED, np.array(mask.key, "<u8").tobytes()
    if bitmap.size >= RULED_FROM and (ruled := structured.grid(bitmap, shape, kept)) and 8 * len(ruled) < bitmap.size:
        return GRID, ruled
    mode, symbols, bits = _plain(bitmap, n, kept)
    if known is not None and tuple(known.shape) == shape:
        old = pack(known)
        if 0 < kernels.count(old) < n:
            changes = put_difference(bitmap, old, n, shape)
            if 8 * len(changes) < bits:
                return DIFFERENCE, changes
    return mode, symbols


def _plain(bitmap: np.ndarray, n: int, kept: int) -> tuple[int, Buffer, int]:
    """The cheapest mode that relies on nothing, its bytes, and about how many bits they will take."""
    if bitmap.size >= RULED_FROM and (ruled := structured.nm(bitmap, n, kept)) is not None:
        return NM, ruled.data, kernels.cost(ruled) // LOG2_SCALE
    few = min(kept, n - kept)
    if few > n // 3:  # gaps are hardly ever shorter
        return BITMAP, bitmap.data, n
    mode, symbols = (GAPS, kernels.gaps(bitmap, n, few)) if few == kept else (
        MIRROR, kernels.gaps(invert(bitmap, n), n, few)
    )  # fmt: skip
    bits = kernels.cost(symbols) // LOG2_SCALE
    if mode == GAPS and RICE_GAIN * 8 * positions.cost(n, kept) < bits:
        out = bytearray()
        positions.put(out, bitmap, n, kept)
        return RICE, out, 8 * len(out)
    # Below 7 % the bitmap is never shorter: a Huffman code spends a whole bit on each of its many empty bytes.
    if few >= n // 14 and (other := kernels.cost(bitmap) // LOG2_SCALE) <= BITMAP_GAIN * bits:
        return BITMAP, bitmap.data, other
    return mode, symbols.data, bits

"""Value modes: how a payload holds the values at the kept positions.

float32 values are taken apart into exponents, which are few and skewed, and signs and mantissas, which no code makes
shorter (but for bits that are zero in all of them). All other dtypes are sent as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash

from fedsparse.codec import kernels, streams
from fedsparse.codec.container import DTYPE_NAMES, NO_VALUES, RAW
from fedsparse.codec.reference import BLOCK, LOG2_SCALE, Planes
from fedsparse.codec.wire import Buffer, DecodeError

CODES4, CODES2, CODES1, NEAR1, NEAR2, NEAR3, NEAR4, INT8, INT4 = range(2, 11)
WIDTHS = {CODES4: 4, CODES2: 2, CODES1: 1}
OF_WIDTH = {width: mode for mode, width in WIDTHS.items()}
NEAR = {NEAR1: 1, NEAR2: 2, NEAR3: 3, NEAR4: 4}  # difference to a reference: how many of its byte planes are coded
INTEGERS = {INT8: 8, INT4: 4}
NAMES = {
    NO_VALUES: "none", RAW: "raw", CODES4: "codes of 4 bits", CODES2: "codes of 2 bits", CODES1: "codes of 1 bit",
    **{mode: f"difference, {planes} planes coded" for mode, planes in NEAR.items()}, INT8: "int8", INT4: "int4",
}  # fmt: skip
STREAMS = {
    CODES4: streams.CODES4, CODES2: streams.CODES2, CODES1: streams.CODES1, INT8: streams.INT8, INT4: streams.INT4,
    **dict.fromkeys(NEAR, streams.PLANES),
}  # fmt: skip
ALLOWED = ("fp32", "bf16", "fp16", "int8", "int4")
LOSSY_AXES = 2  # biases and BatchNorm are few and sensitive: what has fewer axes than a weight matrix stays exact
SHORT = 32  # fewer values are sent as they are: there is next to nothing to gain
HEAD = 2  # top exponent, number of low bits
LARGEST_HALF = np.float32(65504)
LARGEST_SCALED = np.float32(3.3e38)  # a scale is rounded up, and what it gives back must be finite


@dataclass(slots=True)
class Written:
    """One tensor's values: the mode, what lies plainly in the payload, and what goes into the mode's stream."""

    mode: int
    plain: list[Buffer]
    symbols: list[Buffer] = field(default_factory=list)

    @property
    def plain_len(self) -> int:
        return sum(len(part) for part in self.plain)


def as_array(name: str, tensor: Any) -> np.ndarray:
    """The tensor as an array, without a copy where it is one already (CPU tensors too)."""
    try:
        return np.asarray(tensor)
    except (TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"tensor {name!r} cannot be read as a NumPy array ({error})") from None


def own_array(name: str, tensor: Any) -> np.ndarray:
    """As `as_array`, for what is at hand on this side: also a tensor that requires a gradient."""
    return as_array(name, tensor.detach() if hasattr(tensor, "detach") else tensor)


def is_reference(array: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether values can be sent as their difference to these."""
    return array.dtype == np.float32 and array.shape == shape


def dtype_name(dtype: np.dtype) -> str:
    """NumPy's name; looked up where it can be, because NumPy is slow to make it."""
    return DTYPE_NAMES.get(dtype) or dtype.name


def flat(array: np.ndarray) -> np.ndarray:
    """All values in row-major order, contiguous, little-endian; a view where it can be one."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1)


def kept_values(values: np.ndarray, bitmap: np.ndarray | None, kept: int) -> np.ndarray:
    """The values at the kept positions."""
    return values if bitmap is None or kept == values.size else kernels.compact(bitmap, values, kept)


# ---- writing ----


def raw(values: np.ndarray) -> Written:
    """The values as they are."""
    return Written(RAW, [values.view(np.uint8).data])


def coded(values: np.ndarray, near: np.ndarray | None = None) -> Written:
    """float32 values without loss, in the shortest mode; `near`: the receiver's own values at these positions."""
    if values.size < SHORT:
        return raw(values)
    words = values.view(np.uint32)
    size, width, top, low = kernels.plan(words)
    size += 8 * HEAD + values.size * (8 + low)
    if near is not None:
        planes = kernels.zigzag(words, np.ascontiguousarray(near).view(np.uint32)).reshape(4, -1)
        costs = [kernels.cost(plane) // LOG2_SCALE for plane in planes[::-1]]
        shorter, number = min((sum(costs[:i]) + 8 * (4 - i) * values.size, i) for i in range(1, 5))
        if shorter < min(size, 32 * values.size):
            mode = NEAR1 + number - 1
            return Written(mode, [planes[: 4 - number].reshape(-1).data], [planes[4 - number :].reshape(-1).data])
    if size >= 32 * values.size:
        return raw(values)
    codes, escapes, mid, rest = kernels.split(words, top, width, low)
    return Written(OF_WIDTH[width], [bytes((top, low)), rest.data, mid.data, escapes.data], [codes.data])


def rounded(values: np.ndarray, how: str) -> np.ndarray:
    """float32 values that bf16 or fp16 can hold: the nearest, ties to even; finite stays finite."""
    if how == "fp16":
        with np.errstate(all="ignore"):
            finite = np.where(np.isfinite(values), np.clip(values, -LARGEST_HALF, LARGEST_HALF), values)
            return finite.astype(np.float16).astype(np.float32)
    words = values.view(np.uint32)
    near = (words + np.uint32(0x7FFF) + (words >> 16 & 1)) & np.uint32(0xFFFF0000)
    cut = words & np.uint32(0xFFFF0000) | np.uint32(0x10000) * ((words & 0x7FFFFFFF) > 0x7F800000)
    odd = (near >> 23 & 0xFF == 0xFF) | (words >> 23 & 0xFF == 0xFF)  # too large, infinite or NaN
    return np.where(odd, cut, near).view(np.float32)


def integers(values: np.ndarray, bits: int, seed: int, name: str) -> Written | None:
    """Blocks of 8- or 4-bit integers with a scale, rounded at random; None where a value is not finite, or almost."""
    if not (np.abs(values) <= LARGEST_SCALED).all():
        return None
    key = np.array([seed, xxhash.xxh3_64_intdigest(name.encode())], np.uint64)
    words = np.random.Philox(key=key).random_raw((values.size + 1) // 2).view(np.uint32)[: values.size]
    scales, codes = kernels.quantise(values, words, bits)
    if 16 * scales.size + bits * values.size >= 32 * values.size:
        return None
    return Written(INT8 if bits == 8 else INT4, [scales.view(np.uint8).data], [codes.data])


# ---- reading ----


def symbols(mode: int, kept: int) -> int:
    """How many bytes of its stream a mode takes."""
    if mode in WIDTHS:
        return (kept * WIDTHS[mode] + 7) // 8
    if mode in INTEGERS:
        return (kept * INTEGERS[mode] + 7) // 8
    return NEAR.get(mode, 0) * kept


def fits(mode: int, length: int, kept: int, itemsize: int, low: Callable[[], int]) -> bool:
    """Whether the plain bytes of a mode are exactly as many as they must be; `low` gives the number of low bits."""
    if mode == RAW:
        return length == kept * itemsize
    if mode in INTEGERS:
        return length == 2 * -(-kept // BLOCK)
    if mode in NEAR:
        return length == (4 - NEAR[mode]) * kept
    return length >= HEAD and 0 <= _escapes(length, kept, low()) <= kept


def _escapes(length: int, kept: int, low: int) -> int:
    return length - HEAD - kept - (kept * low + 7) // 8 if low <= 16 else -1


def source(mode: int, plain: memoryview, coded: Buffer, kept: int, near: np.ndarray | None) -> Any:
    """Where the kernels take the values of a float32 tensor from; lengths were checked."""
    data = np.frombuffer(plain, np.uint8)
    stream = np.frombuffer(coded, np.uint8)
    if mode == RAW:
        return data
    if mode in WIDTHS:
        top, low = int(data[0]), int(data[1])
        mid = HEAD + (kept * low + 7) // 8
        return Planes(stream, data[mid + kept :], data[mid : mid + kept], data[HEAD:mid], kept, top, WIDTHS[mode], low)
    if mode in NEAR:
        assert near is not None  # whoever has no reference was refused
        return kernels.unzigzag(np.concatenate([data, stream]), near.view(np.uint32)).view(np.uint8)
    found = kernels.dequantise(data.view("<u2"), stream, kept, INTEGERS[mode])
    if found is None:
        raise DecodeError(f"its values ({NAMES[mode]}) hold a code or a scale that is none")
    return found.view(np.uint8)


def exact(plain: memoryview, dtype: str) -> np.ndarray:
    """Raw values of any dtype, a view; booleans are 0 or 1."""
    values = np.frombuffer(plain, np.dtype(dtype).newbyteorder("<"))
    if dtype == "bool" and values.view(np.uint8).max(initial=0) > 1:
        raise DecodeError("a boolean is neither 0 nor 1")
    return values.astype(dtype, copy=False)

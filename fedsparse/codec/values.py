"""Value modes: how a payload holds the values at the kept positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedsparse.codec import kernels
from fedsparse.codec.container import DTYPE_NAMES, NO_VALUES
from fedsparse.codec.wire import Buffer, DecodeError

RAW = 1
NAMES = {NO_VALUES: "none", RAW: "raw"}
ALLOWED = ("fp32",)  # values as they are; further ones come with further modes


def as_array(name: str, tensor: Any) -> np.ndarray:
    """The tensor as an array, without a copy where it is one already (CPU tensors too)."""
    try:
        return np.asarray(tensor)
    except (TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"tensor {name!r} cannot be read as a NumPy array ({error})") from None


def dtype_name(dtype: np.dtype) -> str:
    """NumPy's name; looked up where it can be, because NumPy is slow to make it."""
    return DTYPE_NAMES.get(dtype) or dtype.name


def write(array: np.ndarray, bits: np.ndarray | None, kept: int) -> Buffer:
    """The raw bytes of all values, or of those at the kept positions; little-endian."""
    flat = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1)
    if bits is not None and kept < flat.size:
        flat = kernels.compact(bits, flat, kept)
    return flat.view(np.uint8).data


def read(raw: memoryview, dtype: str, shape: tuple[int, ...], bits: np.ndarray | None, kept: int) -> np.ndarray:
    """A fresh dense array, zero outside the mask. The length of `raw` was checked before."""
    native = np.dtype(dtype)
    values = np.frombuffer(raw, native.newbyteorder("<"))
    if dtype == "bool" and values.view(np.uint8).max(initial=0) > 1:
        raise DecodeError("a boolean is neither 0 nor 1")
    if bits is None or kept == bits.size:
        return values.astype(native).reshape(shape)
    return kernels.expand(bits, values.astype(native, copy=False), kept).reshape(shape)

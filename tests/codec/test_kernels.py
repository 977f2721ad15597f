"""The compiled kernels equal the NumPy reference byte for byte; both refuse the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from payloads import bits, noise, payloads

from fedsparse import codec
from fedsparse.codec import kernels, reference
from fedsparse.codec.container import DTYPES
from fedsparse.payload import Payload, Schema

compiled = pytest.importorskip("fedsparse.codec._kernels", reason="the compiled kernels are not built here")

NAMES = ("count", "pack", "unpack", "gaps", "ungaps", "compact", "expand", "cost")
SIZES = st.sampled_from([0, 1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 1000, 4096, 20_000])
DENSITIES = st.sampled_from([0, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.999, 1])
SEEDS = st.integers(0, 2**32 - 1)


def both(name: str, *arguments: object) -> np.ndarray | int | None:
    ours, theirs = getattr(compiled, name)(*arguments), getattr(reference, name)(*arguments)
    if isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()
    else:
        assert ours is None if theirs is None else int(ours) == theirs
    return theirs


@settings(max_examples=500, deadline=None)
@given(SIZES, DENSITIES, SEEDS, st.sampled_from(DTYPES))
def test_equal(n: int, density: float, seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    mask = bits(rng, (n,), density)
    mask.setflags(write=False)  # as of an array that is a view on bytes
    kept = both("count", mask)
    packed = both("pack", mask)
    symbols = both("gaps", mask, kept)
    assert both("unpack", packed, n, kept).tolist() == both("ungaps", symbols, n, kept).tolist() == mask.tolist()
    assert kept <= symbols.size <= kept + (n - kept) // 255
    both("cost", packed), both("cost", symbols)
    values = both("compact", mask, noise(rng, dtype, (n,)), kept)
    unaligned = np.frombuffer(b"x" + values.tobytes(), dtype, offset=1)
    both("expand", mask, unaligned, kept)


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), st.binary(max_size=40), st.integers(0, 8))
def test_the_same_bytes_are_refused(n: int, kept: int, raw: bytes, escapes: int) -> None:
    symbols = np.frombuffer(raw[:20] + b"\xff" * escapes + raw[20:], np.uint8)
    both("unpack", symbols, n, kept)
    both("ungaps", symbols, n, kept)
    likely = int((symbols != 255).sum())
    both("ungaps", symbols, n, likely)
    both("unpack", symbols, symbols.size * 8, int(np.unpackbits(symbols).sum()))


@settings(max_examples=100, deadline=None)
@given(payloads())
def test_payloads_are_equal(drawn: tuple[Payload, Schema]) -> None:
    payload, schema = drawn
    data = []
    for module in (compiled, reference):
        with pytest.MonkeyPatch.context() as patch:
            for name in NAMES:
                patch.setattr(kernels, name, getattr(module, name))
            data.append(codec.encode(payload, schema=schema))
    assert data[0] == data[1]


def test_every_kernel_is_compared() -> None:
    public = {name for name in vars(reference) if callable(getattr(reference, name)) and not name.startswith("_")}
    assert public == set(NAMES)
    assert compiled.ABI == reference.ABI

"""Every tier of the compiled kernels equals the NumPy reference bit for bit; all refuse the same bytes."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from payloads import noise, payloads

from fedsparse import codec
from fedsparse.codec import kernels, reference
from fedsparse.codec.reference import Planes
from fedsparse.errors import InputError
from fedsparse.payload import Payload, Schema

compiled = pytest.importorskip("fedsparse.codec._kernels", reason="the compiled kernels are not built here")

NAMES = [name for name, it in vars(reference).items() if callable(it) and name.islower() and name[0] != "_"]
SIZES = st.sampled_from([0, 1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 129, 1000, 1023, 1024, 1025, 2047]) | (
    st.sampled_from([4095, 4096, 4097, 5119, 5121, 8192, 9000])
)
DENSITIES = st.sampled_from([0, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.999, 1])
SEEDS = st.integers(0, 2**32 - 1)
SPECIAL = np.array([0, 1 << 31, 1, 0x807FFFFF, 0x7F800000, 0xFF800000, 0x7FC00001, 0xFFFFFFFF, 0x7F7FFFFF], np.uint32)


def same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, tuple):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    elif isinstance(theirs, np.ndarray):
        assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
    else:
        assert ours is None if theirs is None else ours == theirs


def each(name: str, *arguments: Any) -> Any:
    """What the reference returns; each tier has returned the same."""
    theirs = getattr(reference, name)(*arguments)
    before = compiled.select("c")
    try:
        for tier in compiled.TIERS:
            compiled.select(tier)
            same(getattr(compiled, name)(*arguments), theirs)
    finally:
        compiled.select(before)
    return theirs


def fills(name: str, outputs: tuple[np.ndarray | None, ...], *arguments: Any) -> Any:
    """The same for a kernel that writes into arrays, which hold the reference's result in the end."""

    def call(function: Any) -> tuple[Any, ...]:
        for out in outputs:
            if out is not None:
                out.view(np.uint8)[:] = 0xAA
        returned = function(*arguments, *outputs)
        wrong = returned is False or (name == "accumulate32" and returned >= 0)
        return returned, *(canonical(out) for out in outputs if out is not None and not wrong)

    before = compiled.select("c")
    try:
        found = []
        for tier in compiled.TIERS:
            compiled.select(tier)
            found.append(call(getattr(compiled, name)))
    finally:
        compiled.select(before)
    theirs = call(getattr(reference, name))
    for ours in found:
        same(ours, theirs)
    return theirs[0]


def canonical(values: np.ndarray) -> np.ndarray:
    """Which NaN a sum of two becomes is the machine's choice."""
    return np.where(np.isnan(values), np.float32(np.nan), values) if values.dtype == np.float32 else values.copy()


def unaligned(values: np.ndarray) -> np.ndarray:
    """The same, one byte off and read-only, as arrays of the wire are; it ends where its memory does."""
    memory = np.empty(values.nbytes + 1, np.uint8)
    memory[1:] = values.view(np.uint8)
    memory.setflags(write=False)
    return memory[1:].view(values.dtype)


def bitmaps(rng: np.random.Generator, n: int, density: float) -> tuple[np.ndarray, int]:
    bitmap = reference.pack(rng.random(n) < density)
    return unaligned(bitmap), reference.count(bitmap)


def words(rng: np.random.Generator, k: int) -> np.ndarray:
    """Bits of float32: like weights, of all exponents, or nothing but special ones."""
    kind = rng.integers(4)
    if kind == 0:
        values = rng.integers(0, 2**32, k, dtype=np.uint32)
    elif kind == 1:
        values = rng.choice(SPECIAL, k)
    else:
        values = (rng.standard_normal(k) * 10.0 ** rng.integers(-45, 20)).astype(np.float32).view(np.uint32)
        if k and kind == 2:
            values[rng.integers(k, size=3)] = rng.choice(SPECIAL, 3)
    return unaligned(values & np.uint32(0xFFFFFFFF << int(rng.choice([0, 0, 1, 5, 9, 16])) & 0xFFFFFFFF))


def planes(values: np.ndarray, width: int, extra: int = 0) -> Planes:
    exponents, seen = np.bincount(values >> 23 & 0xFF, minlength=256), int(np.bitwise_or.reduce(values))
    low = 16 - min((seen & -seen).bit_length() - 1, 16) if seen else 0
    top = min(max(np.flatnonzero(exponents), default=0) + extra, 255)
    arguments = int(top), width, min(low + extra, 16)
    return Planes(*each("split", values, *arguments), values.size, *arguments)


@settings(max_examples=120, deadline=None)
@given(SIZES, DENSITIES, SEEDS, st.integers(0, 32))
def test_masks_are_equal(n: int, density: float, seed: int, shift: int) -> None:
    rng = np.random.default_rng(seed)
    bitmap, kept = bitmaps(rng, n, density)
    assert each("count", bitmap) == kept
    bits = each("unpack", bitmap, n)
    assert each("pack", bits).tobytes() == bitmap.tobytes()
    each("pack", (bits * rng.integers(1, 256, n)).astype(np.uint8).view(np.bool_))  # a True may be any byte but 0
    symbols = each("gaps", bitmap, n, kept)
    assert each("ungaps", unaligned(symbols), n, kept).tobytes() == bitmap.tobytes()
    each("cost", bitmap), each("cost", symbols)
    unary, low = each("rice", bitmap, n, kept, shift)
    assert each("unrice", unaligned(unary), unaligned(low), n, kept, shift).tobytes() == bitmap.tobytes()
    source, _ = bitmaps(rng, n, 0.5)
    part = each("pext", source, bitmap, n)
    assert each("pdep", unaligned(part), bitmap, n).tobytes() == (source & bitmap).tobytes()


@settings(max_examples=80, deadline=None)
@given(SIZES, DENSITIES, SEEDS, st.sampled_from(["bool", "uint8", "float16", "float32", "int64", "complex128"]))
def test_values_move_alike(n: int, density: float, seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    bitmap, kept = bitmaps(rng, n, density)
    dense = unaligned(noise(rng, dtype, (n,)))
    values = each("compact", bitmap, dense, kept)
    out = np.empty(n, dtype)
    fills("expand", (out,), bitmap, unaligned(values))
    bits = reference.unpack(bitmap, n)
    assert out[bits].tobytes() == values.tobytes() and not out[~bits].view(np.uint8).any()


@settings(max_examples=120, deadline=None)
@given(SIZES, DENSITIES, SEEDS, st.sampled_from([1, 2, 4]), st.integers(0, 2))
def test_floats_are_taken_apart_and_put_together_alike(
    n: int, density: float, seed: int, width: int, extra: int
) -> None:
    rng = np.random.default_rng(seed)
    bitmap, kept = bitmaps(rng, n, density)
    values = words(rng, kept)
    if values.size:
        each("plan", values)
    parts = planes(values, width, extra)
    assert each("join", *parts).tobytes() == values.tobytes()
    out = np.empty(n, np.uint32)
    for source in (parts, unaligned(values.view(np.uint8))):
        assert fills("decode32", (out,), bitmap, n, source)
        assert out[reference.unpack(bitmap, n)].tobytes() == values.tobytes()
    assert fills("decode32", (np.empty(kept, np.uint32),), None, kept, parts)


@settings(max_examples=80, deadline=None)
@given(SIZES, st.lists(st.tuples(DENSITIES, st.sampled_from([1, 2, 4, None]), st.floats(-2, 2)), max_size=5), SEEDS)
def test_sums_are_equal(n: int, drawn: list[tuple[float, int | None, float]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    clients = []
    for density, width, weight in drawn:
        bitmap, kept = bitmaps(rng, n, density)
        values = words(rng, kept)
        source = values.view(np.uint8) if width is None else planes(values, width)
        clients.append((None if kept == n and rng.random() < 0.5 else bitmap, source, weight))
    total, held = np.empty(n, np.float32), np.empty(n, np.float32)
    assert fills("accumulate32", (total, None), clients, n) == -1
    assert fills("accumulate32", (total, held), clients, n) == -1
    if n and clients:
        i = int(rng.integers(len(clients)))
        bitmap, source, weight = clients[i]
        wrong = source._replace(mid=source.mid[1:]) if isinstance(source, Planes) and source.kept else np.zeros(3, "u1")
        clients[i] = bitmap, wrong, weight
        assert fills("accumulate32", (total, held), clients, n) == i


def test_an_earlier_client_that_is_wrong_at_its_end_comes_before_a_later_one() -> None:
    n = 9000
    parts = planes(np.full(n, 0x3F800000, np.uint32), 2)
    late = parts._replace(escapes=np.zeros(1, np.uint8))
    total = np.empty(n, np.float32)
    clients = [(None, parts, 1.0), (None, late, 1.0), (None, np.zeros(3, np.uint8), 1.0)]
    assert fills("accumulate32", (total, None), clients, n) == 1


@settings(max_examples=80, deadline=None)
@given(SIZES, SEEDS)
def test_differences_are_equal(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, known = words(rng, k), words(rng, k)
    folded = each("zigzag", values, known)
    assert each("unzigzag", unaligned(folded), known).tobytes() == values.tobytes()
    assert each("unzigzag", folded[1:], known) is None or k == 0


@settings(max_examples=80, deadline=None)
@given(SIZES, SEEDS, st.sampled_from([8, 4]), st.sampled_from([0, 1e-45, 1e-40, 1e-38, 1e-3, 1, 1e38]))
def test_quantised_values_are_equal(k: int, seed: int, bits: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    values = unaligned((rng.uniform(-3, 3, k) * size).astype(np.float32))
    scales, codes = each("quantise", values, rng.integers(0, 2**32, k, dtype=np.uint32), bits)
    again = each("dequantise", unaligned(scales), unaligned(codes), k, bits)
    step = np.repeat((scales.astype(np.uint32) << 16).view(np.float32), 128)[:k]
    assert (np.abs(again.astype(np.float64) - values) <= step.astype(np.float64) + 1e-43).all()  # a scale may be 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 300), SEEDS, st.sampled_from([8, 4]))
def test_the_same_quantised_bytes_are_refused(k: int, seed: int, bits: int) -> None:
    rng = np.random.default_rng(seed)
    scales = rng.integers(0, 0x7F80 + int(rng.integers(2)), (k + 127) // 128, dtype=np.uint16)
    codes = rng.integers(1, 256, (k * bits + 7) // 8, dtype=np.uint8)
    if bits == 4 and rng.random() < 0.5:
        codes = (codes % 15 + 1) | (codes // 16 % 15 + 1) << 4
    if bits == 8 and rng.random() < 0.5:
        codes[codes == 128] = 0
    each("dequantise", scales, codes, k, bits)
    each("dequantise", scales, codes, k + 1, bits)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), st.binary(max_size=40), st.integers(0, 8), st.integers(0, 32))
def test_the_same_masks_are_refused(n: int, kept: int, raw: bytes, escapes: int, shift: int) -> None:
    symbols = np.frombuffer(raw[:20] + b"\xff" * escapes + raw[20:], np.uint8)
    ends = int((symbols != 255).sum())
    for k in {kept, ends}:
        each("ungaps", symbols, n, k)
        each("ungaps", symbols, n + 5000, k)
    ones = reference.count(symbols)
    for size in (n, 8 * symbols.size):
        for k in {kept, ones}:
            each("unrice", symbols, np.zeros((k * shift + 7) // 8, np.uint8), size, k, shift)
            each("unrice", symbols, symbols, size, k, shift)
    which = reference.pack(np.arange(n) < kept)
    each("pdep", symbols, which, n)


@settings(max_examples=300, deadline=None)
@given(SEEDS, st.sampled_from([1, 2, 4]), st.integers(0, 16), st.integers(0, 255))
def test_the_same_planes_are_refused(seed: int, width: int, low: int, top: int) -> None:
    rng = np.random.default_rng(seed)
    k = int(rng.integers(0, 40))
    codes = rng.integers(0, 256, (k * width + 7) // 8, dtype=np.uint8)
    rest = rng.integers(0, 256, (k * low + 7) // 8, dtype=np.uint8)
    if rng.random() < 0.8:  # right padding
        codes, rest = (reference.pack(reference.unpack(a, k * b)) for a, b in ((codes, width), (rest, low)))
    field = reference.unpack(codes, k * width).reshape(k, width)
    escaped = int(field.all(1).sum()) + int(rng.integers(8) == 0)
    top = top if rng.random() < 0.5 else top % 17
    escapes = rng.integers(0, max(top - (1 << width) + 2 + int(rng.integers(2)), 1), escaped).astype(np.uint8)
    arguments = [codes, escapes, rng.integers(0, 256, k, dtype=np.uint8), rest, k, top, width, low]
    each("join", *arguments)
    out = np.empty(k + 3, np.uint32)
    bitmap, _ = bitmaps(rng, k + 3, 0.9)
    fills("decode32", (out,), bitmap, k + 3, Planes(*arguments))
    cut = int(rng.integers(4))
    arguments[cut] = arguments[cut][:-1]
    each("join", *arguments)


def test_input_that_changes_meanwhile_harms_nobody() -> None:
    """The result is anything, as long as it is a result: lengths are bounded by the outputs."""
    rng = np.random.default_rng(0)
    n = 300_000
    bitmap = reference.pack(rng.random(n) < 0.3)
    kept = reference.count(bitmap)
    parts = planes(rng.standard_normal(kept).astype(np.float32).view(np.uint32), 1)
    shared, out, stop = bitmap.copy(), np.empty(n, np.uint32), threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            shared[:] = 0xFF
            parts.codes[:] = 0xFF
            shared[:] = bitmap

    thread = threading.Thread(target=disturb)
    thread.start()
    before = compiled.select("c")
    try:
        for tier in compiled.TIERS * 5:
            compiled.select(tier)
            assert compiled.decode32(shared, n, parts, out) in (False, True)
            assert compiled.accumulate32([(shared, parts, 1.0)] * 2, n, out, None) in (-1, 0, 1)
            assert compiled.gaps(shared, n, kept).size <= kept + (n - kept) // 255
            assert compiled.compact(shared, out, kept).size == kept
            assert compiled.pext(shared, shared, n).size <= shared.size
            assert compiled.rice(shared, n, kept, 1)[1].size == (kept + 7) // 8
    finally:
        compiled.select(before)
        stop.set()
        thread.join()


def test_wrong_lengths_of_the_caller_raise() -> None:
    for name, arguments in {
        "unpack": (np.zeros(1, np.uint8), 100),
        "gaps": (np.zeros(1, np.uint8), 100, 0),
        "compact": (np.zeros(1, np.uint8), np.zeros(100), 0),
        "expand": (np.zeros(1, np.uint8), np.zeros(0), np.zeros(100)),
        "decode32": (None, 3, np.zeros(12, np.uint8), np.zeros(2, np.uint32)),
        "zigzag": (np.zeros(2, np.uint32), np.zeros(3, np.uint32)),
        "split": (np.zeros(2, np.uint32), 3, 3, 16),
    }.items():
        with pytest.raises(ValueError):
            getattr(compiled, name)(*arguments)


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


def test_every_kernel_is_compiled_and_chosen() -> None:
    assert len(NAMES) == 21 and set(NAMES) <= set(vars(kernels)) & set(vars(compiled))
    assert compiled.ABI == reference.ABI
    assert compiled.TIERS[-1] == "c"


def test_a_tier_that_the_machine_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "TIERS", ("c",))
    monkeypatch.setenv(kernels.VARIABLE, "avx2")
    with pytest.raises(InputError, match="this machine has c, numpy"):
        kernels._choose()

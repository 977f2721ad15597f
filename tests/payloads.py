"""Payloads for the codec's tests: drawn ones, and what it means that two are the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from fedsparse.codec import Seeded
from fedsparse.codec.container import DTYPES
from fedsparse.payload import Bits, Grid, Ids, Mask, Payload, Schema, Spec

DTYPE_NAMES = st.sampled_from([*DTYPES, "float32", "float32", "float32"])
NAMES = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=12)
LENGTHS = st.sampled_from([0, 1, 2, 7, 8, 9, 63, 64, 65, 255, 256, 257, 1000, 5000])
SHAPES = st.one_of(
    st.just(()), LENGTHS.map(lambda n: (n,)), st.lists(st.integers(0, 7), min_size=2, max_size=4).map(tuple)
)
SPECIAL = np.array([0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 5e-324, 1e-45, 1.0], np.float64)
SCALARS = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(max_size=20))
IDS = st.builds(Ids, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.just(7))


def noise(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Any bits at all (NaN, infinities, denormals), many zeros of both signs among them."""
    size = int(np.prod(shape))
    if dtype == "bool":
        return rng.random(shape) < 0.5
    array = np.frombuffer(rng.bytes(size * np.dtype(dtype).itemsize), dtype).copy()
    if array.dtype.kind in "fc":
        with np.errstate(all="ignore"):
            special = rng.choice(SPECIAL, size).astype(dtype)
        array = np.where(rng.random(size) < 0.5, special, array)
    return array.reshape(shape)


def bits(rng: np.random.Generator, shape: tuple[int, ...], density: float) -> np.ndarray:
    return np.asarray(rng.random(shape) < density)


def grid(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A mask of rows, columns, ...: a subset of every axis, perhaps an empty one."""
    mask = np.ones(shape, np.bool_)
    for axis, length in enumerate(shape):
        if rng.random() < 0.6:
            mask &= (rng.random(length) < 0.6).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return mask


def axes(rng: np.random.Generator, shape: tuple[int, ...]) -> Grid:
    """The same as what it is made of."""
    return Grid(shape, tuple(rng.random(n) < 0.6 if rng.random() < 0.6 else None for n in shape))


def n_of_m(rng: np.random.Generator, shape: tuple[int, ...], n: int, m: int) -> np.ndarray:
    """A mask of n in every m positions; the last ones, if they are fewer than m, are dropped."""
    size = int(np.prod(shape))
    groups = rng.random((size // m, m)).argsort(1) < n
    return np.concatenate([groups.reshape(-1), np.zeros(size % m, np.bool_)]).reshape(shape)


def moved(rng: np.random.Generator, mask: np.ndarray, share: float) -> np.ndarray:
    """The mask with about this share of its positions turned over."""
    return mask ^ (rng.random(mask.shape) < share)


def near(rng: np.random.Generator, values: np.ndarray, reach: int) -> np.ndarray:
    """float32 values whose bits, as numbers, are up to `reach` away."""
    return (values.view(np.uint32) + rng.integers(-reach, reach + 1, values.shape).astype(np.uint32)).view(np.float32)


@st.composite
def kept(draw: st.DrawFn, rng: np.random.Generator, shape: tuple[int, ...]) -> Mask:
    """Any mask of this shape: at random, or by a rule."""
    size = int(np.prod(shape))
    kind = draw(st.sampled_from(["random", "random", "random", "grid", "axes", "n of m", "seed"]))
    if kind == "grid":
        return Bits(grid(rng, shape))
    if kind == "axes":
        return axes(rng, shape)
    if kind == "n of m":
        return Bits(n_of_m(rng, shape, *draw(st.sampled_from([(1, 2), (2, 4), (1, 4), (4, 8), (7, 8)]))))
    if kind == "seed":
        return Seeded(shape, int(rng.integers(size + 1)), (int(rng.integers(2**63)), int(rng.integers(2**63))))
    density = draw(st.sampled_from([0, 1 / max(1, size), 0.003, 0.02, 0.1, 0.3, 0.5, 0.9, 1]))
    return Bits(bits(rng, shape, density))


@st.composite
def arrays(draw: st.DrawFn, rng: np.random.Generator, spec: Spec) -> np.ndarray:
    """Any bits, or float32 values as models have them: of few exponents, rounded, mostly zero."""
    kind = draw(st.sampled_from(["noise", "weights", "rounded", "sparse"])) if spec.dtype == "float32" else "noise"
    if kind == "noise":
        return noise(rng, spec.dtype, spec.shape)
    values = np.asarray(rng.standard_normal(spec.shape) * 10.0 ** rng.integers(-44, 30), np.float32)
    if kind == "rounded":
        values = (values.view(np.uint32) & np.uint32(0xFFFFFFFF << int(rng.integers(24)) & 0xFFFFFFFF)).view(np.float32)
    return np.where(rng.random(spec.shape) < 0.1, values, np.float32(0)) if kind == "sparse" else values


@st.composite
def payloads(draw: st.DrawFn) -> tuple[Payload, Schema]:
    """A payload, and a schema that accepts it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = draw(st.lists(NAMES, max_size=6, unique=True))
    groups = draw(st.lists(NAMES, min_size=1, max_size=2, unique=True))
    weights, masks, extra, specs, partial = {}, {}, {}, {}, draw(st.booleans())
    for name in names:
        flat = draw(st.sampled_from([name, name, f"{groups[0]}/{name}", f"{groups[-1]}/{name}"]))
        specs[flat] = Spec(draw(DTYPE_NAMES), draw(SHAPES))
        what = draw(st.sampled_from(["dense", "masked", "masked", "masked", *(["mask", "missing"] if partial else [])]))
        if what in ("masked", "mask"):
            masks[flat] = draw(kept(rng, specs[flat].shape))
        if what in ("dense", "masked"):
            group, _, short = flat.rpartition("/")
            (extra.setdefault(group, {}) if group else weights)[short] = draw(arrays(rng, specs[flat]))
    payload = Payload(
        weights,
        masks,
        extra,
        draw(st.dictionaries(st.text(max_size=8), SCALARS, max_size=4)),
        draw(st.sampled_from(["weights", "update"])),
        draw(st.sampled_from(["unheld", "zero"])),
    )
    return payload, Schema(specs, frozenset(masks), partial)


@dataclass
class Held:
    """What both sides hold beforehand."""

    known: dict[str, Mask]
    reference: dict[str, np.ndarray]


@st.composite
def exchanges(draw: st.DrawFn) -> tuple[Payload, Schema, Held]:
    """A payload, a schema that accepts it (sometimes with agreed masks), and masks and values that it may rely on."""
    payload, schema = draw(payloads())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    held = Held({}, {})
    for name, mask in payload.masks.items():
        share = draw(st.sampled_from([None, 0, 0.01, 0.01, 0.5]))
        if share is not None:
            held.known[name] = Bits(moved(rng, np.asarray(mask.dense()), share))
    for name, tensor in payload.tensors().items():
        reach = draw(st.sampled_from([None, 0, 3, 300, 10**5, 2**31 - 1]))
        if reach is not None:
            held.reference[name] = near(rng, tensor, reach) if tensor.dtype == np.float32 else tensor
    if draw(st.booleans()):
        agreed = {name: mask for name, mask in payload.masks.items() if rng.random() < 0.5}
        schema = Schema(schema.tensors, schema.maskable, schema.partial, agreed)
    return payload, schema, held


def assert_same(sent: Payload, got: Payload) -> None:
    """`got` is what must arrive of `sent`: every bit of every kept value, all else +0.0, and fresh, writable arrays."""
    assert (got.kind, got.absent) == (sent.kind, sent.absent)
    assert got.info == sent.info
    assert {k: type(v) for k, v in got.info.items()} == {k: type(v) for k, v in sent.info.items()}
    theirs, ours = sent.tensors(), got.tensors()
    assert theirs.keys() == ours.keys() and sent.masks.keys() == got.masks.keys()
    for name, mask in sent.masks.items():
        seen = got.masks[name].dense()
        assert isinstance(seen, np.ndarray) and seen.dtype == np.bool_ and seen.shape == tuple(mask.shape)
        assert np.array_equal(seen, np.asarray(mask.dense()))
    for name, tensor in theirs.items():
        expected = np.asarray(tensor).copy()
        if name in sent.masks:
            expected[~np.asarray(sent.masks[name].dense())] = 0
        seen = ours[name]
        assert (seen.dtype.name, seen.shape) == (expected.dtype.name, expected.shape)
        assert seen.flags.writeable and seen.flags.c_contiguous and seen.flags.aligned and seen.dtype.isnative
        assert seen.tobytes() == np.ascontiguousarray(expected, expected.dtype.newbyteorder("=")).tobytes()

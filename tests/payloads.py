"""Payloads for the codec's tests: drawn ones, and what it means that two are the same."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from fedsparse.codec.container import DTYPES
from fedsparse.payload import Bits, Ids, Payload, Schema, Spec

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
            size = max(1, int(np.prod(specs[flat].shape)))
            density = draw(st.sampled_from([0, 1 / size, 0.003, 0.02, 0.1, 0.3, 0.5, 0.9, 1]))
            masks[flat] = Bits(bits(rng, specs[flat].shape, density))
        if what in ("dense", "masked"):
            group, _, short = flat.rpartition("/")
            (extra.setdefault(group, {}) if group else weights)[short] = noise(
                rng, specs[flat].dtype, specs[flat].shape
            )
    payload = Payload(
        weights,
        masks,
        extra,
        draw(st.dictionaries(st.text(max_size=8), SCALARS, max_size=4)),
        draw(st.sampled_from(["weights", "update"])),
        draw(st.sampled_from(["unheld", "zero"])),
    )
    return payload, Schema(specs, frozenset(masks), partial)


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

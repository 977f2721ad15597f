"""Each way to send values is chosen where it is short, and loses nothing, or no more than it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from payloads import near, noise

from fedsparse import codec
from fedsparse.payload import Payload, Schema, Spec

ROOM = 1 << 22
RNG = np.random.default_rng(0)
SHAPE = (40, 50)
N = 2000


def floats(words: object) -> np.ndarray:
    """float32 of these bits, as a matrix."""
    return np.array(np.broadcast_to(np.asarray(words, np.uint32), N)).view(np.float32).reshape(SHAPE)


def exchange(
    values: np.ndarray, sent: str = "fp32", reference: np.ndarray | None = None, seed: int | None = None
) -> tuple[np.ndarray, codec.Inspection]:
    """What arrives, and what the bytes were spent on."""
    schema = Schema({"w": Spec(values.dtype.name, values.shape)}, frozenset({"w"}))
    held = None if reference is None else {"w": reference}
    data = codec.encode(Payload({"w": values}), values=sent, schema=schema, reference=held, seed=seed)
    return codec.decode(data, schema, ROOM, reference=held).weights["w"], codec.inspect(data, schema)


def weights(scale: float = 0.05, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


# ---- without loss ----

WORDS = RNG.integers(0, 2**32, N, dtype=np.uint32)
MIXED = np.where(
    RNG.random(N) < 0.02, WORDS & 0xBFFF0000, weights().view(np.uint32).reshape(-1) & 0xFFFF0000
)  # some exponents far away
CASES = {
    "weights": (weights(), "codes of 4 bits"),
    "of one exponent": (floats(WORDS & 0x807FFFFF | 0x3F800000), "codes of 1 bit"),
    "of three exponents": (floats(WORDS & 0x807FFFFF | 0x3F800000 - (WORDS % 3 << 23)), "codes of 2 bits"),
    "of all exponents": (floats(WORDS), "raw"),
    "every exponent once, most often one": (floats(np.where(np.arange(N) < 256, np.arange(N) << 23, 0x3F800123)), None),
    "escapes": (floats(MIXED), "codes of 4 bits"),
    "negative zeros": (floats(1 << 31), "codes of 1 bit"),
    "NaN": (floats(0x7F800001 + np.arange(N)), "codes of 1 bit"),
    "negative NaN": (floats(0xFFFFFFFF - np.arange(N)), "codes of 1 bit"),
    "infinities": (floats(np.where(np.arange(N) % 2, 0x7F800000, 0xFF800000)), "codes of 1 bit"),
    "subnormals": (floats(WORDS & 0x807FFFFF | 1), "codes of 1 bit"),
    "noise": (noise(RNG, "float32", SHAPE), None),
}


@pytest.mark.parametrize("case", CASES)
def test_every_bit_arrives(case: str) -> None:
    values, mode = CASES[case]
    got, seen = exchange(values)
    assert got.tobytes() == values.tobytes()
    assert mode in (None, seen.tensors[0].values)
    assert seen.total <= values.nbytes + 80


@pytest.mark.parametrize("zeros", range(24))
def test_low_bits_that_are_zero_are_not_sent(zeros: int) -> None:
    words = WORDS & 0x807FFFFF | 0x3F800000
    values = floats(words & np.uint32(0xFFFFFFFF << zeros & 0xFFFFFFFF))
    got, seen = exchange(values)
    assert got.tobytes() == values.tobytes()
    assert seen.tensors[0].value_bytes <= N * (8 + max(16 - zeros, 0)) / 8 + 60


@pytest.mark.parametrize("kept", [0, 1, 2, 7, 8, 9, 1023, 1024, 1025])
def test_any_number_of_values(kept: int) -> None:
    values, mask = weights(), np.zeros(N, np.bool_)
    mask[RNG.choice(N, kept, replace=False)] = True
    mask = mask.reshape(SHAPE)
    schema = Schema({"w": Spec("float32", SHAPE)}, frozenset({"w"}))
    data = codec.encode(Payload({"w": values}, {"w": mask}), schema=schema)
    assert codec.decode(data, schema, ROOM).weights["w"].tobytes() == np.where(mask, values, np.float32(0)).tobytes()


# ---- as the difference to a reference ----


@pytest.mark.parametrize(
    ("reach", "planes"), [(0, 4), (20, 4), (2**14, 3), (2**22, 2), (2**27, 1)], ids=["equal", "4", "3", "2", "1"]
)
@pytest.mark.parametrize("kind", ["weights", "any bits"])
def test_differences_are_exact(kind: str, reach: int, planes: int) -> None:
    reference = floats(WORDS)
    if kind == "weights":
        reference = weights()
    values = near(RNG, reference, reach)
    got, seen = exchange(values, reference=reference)
    assert got.tobytes() == values.tobytes()
    assert kind == "weights" or seen.tensors[0].values == f"difference, {planes} planes coded"
    assert seen.total <= exchange(values)[1].total
    if reach < 30:
        assert seen.total < 0.3 * values.nbytes


def test_a_reference_that_does_not_help_is_not_relied_on() -> None:
    values = weights()
    got, seen = exchange(values, reference=weights())
    assert seen.tensors[0].values == "codes of 4 bits"
    schema = Schema({"w": Spec("float32", SHAPE)})
    data = codec.encode(Payload({"w": values}), reference={"w": weights()})
    assert codec.header(data).reference == 0
    assert codec.decode(data, schema, ROOM).weights["w"].tobytes() == values.tobytes()  # nor is it asked for


def test_other_values_than_those_relied_on() -> None:
    reference, mask = weights(), RNG.random(SHAPE) < 0.5
    schema = Schema({"v": Spec("float32", SHAPE), "w": Spec("float32", SHAPE)}, frozenset({"w"}))
    payload = Payload({"v": reference, "w": near(RNG, reference, 9)}, {"w": mask})
    data = codec.encode(payload, schema=schema, reference={"w": reference})
    assert codec.header(data).reference
    changed = reference.copy()
    changed[np.nonzero(~mask)[0][0], np.nonzero(~mask)[1][0]] += 1  # at a position that is not even sent
    for held in (
        None,
        {"v": reference},
        {"w": changed},
        {"w": reference.reshape(-1)},
        {"w": reference.T.copy()},
        {"w": reference[:-1]},
        {"w": reference.astype(np.float64)},
        {"w": reference.view(np.int32)},
    ):
        for read in (codec.decode, lambda *a, **k: codec.accumulate([a[0]], [1], *a[1:], **k)):
            with pytest.raises(codec.UnknownReference):
                read(data, schema, ROOM, reference=held)
    got = codec.decode(data, schema, ROOM, reference={"w": torch.from_numpy(reference)})
    assert got.weights["w"].tobytes() == np.where(mask, payload.weights["w"], np.float32(0)).tobytes()


def test_the_encoder_overlooks_references_that_do_not_fit() -> None:
    values = weights()
    for other in (values.astype(np.float64), values.reshape(-1), values.view(np.int32)):
        assert codec.header(codec.encode(Payload({"w": values}), reference={"w": other})).reference == 0


# ---- rounded ----

EDGES = np.array(
    [0, 1 << 31, 1, 0x7FFF, 0x8000, 0x8001, 0x3F808000, 0x3F818000, 0x3F817FFF, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000,
     0xFF800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x477FE000, 0x477FF000, 0xC7800000, 0x33000000,
     0x33000001, 0x387FC000, 0x38800000], np.uint32)  # fmt: skip


@pytest.mark.parametrize("words", [WORDS, np.resize(EDGES, N), weights().view(np.uint32).reshape(-1)])
@pytest.mark.parametrize(("sent", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_rounds_as_torch_does(words: np.ndarray, sent: str, dtype: torch.dtype) -> None:
    values = floats(words)
    got, _ = exchange(values, sent)
    theirs = torch.from_numpy(values).to(dtype).float().numpy()
    assert np.array_equal(np.isfinite(got), np.isfinite(values))  # neither makes infinities of what is finite
    assert np.array_equal(np.isnan(got), np.isnan(values))
    assert np.array_equal(np.isposinf(got), np.isposinf(values))
    same = np.isfinite(theirs)
    assert got[same].tobytes() == theirs[same].tobytes()
    over = np.isfinite(values) & ~same
    assert (np.abs(got[over]) == torch.finfo(dtype).max).all()
    assert np.array_equal(np.signbit(got[over]), np.signbit(values[over]))


@pytest.mark.parametrize(("sent", "share"), [("bf16", 0.37), ("fp16", 0.48), ("int8", 0.26), ("int4", 0.14)])
def test_what_is_rounded_is_shorter(sent: str, share: float) -> None:
    values = weights()
    assert exchange(values, sent, seed=0)[1].total < share * values.nbytes + 64


@pytest.mark.parametrize("sent", ["bf16", "fp16", "int8", "int4"])
@pytest.mark.parametrize(
    "values", [weights(shape=(100,)), weights().astype(np.float64), np.arange(9).reshape(3, 3), np.float32(0.1)]
)
def test_only_matrices_of_float32_are_rounded(sent: str, values: np.ndarray) -> None:
    values = np.asarray(values)
    assert exchange(values, sent, seed=0)[0].tobytes() == values.tobytes()


# ---- rounded at random ----

STEPS = {"int8": 127, "int4": 7}


@pytest.mark.parametrize("sent", STEPS)
def test_rounds_without_bias_and_by_less_than_a_step(sent: str) -> None:
    values = weights(shape=(3, 130)) * np.float32(10.0) ** RNG.integers(-30, 30, (3, 130)).astype(np.float32)
    blocks = np.pad(values.reshape(-1), (0, -values.size % 128)).reshape(-1, 128)
    step = np.repeat(np.abs(blocks).max(1) / STEPS[sent] * (1 + 2**-7), 128)[: values.size].reshape(values.shape)
    found = np.stack([exchange(values, sent, seed=seed)[0] for seed in range(400)]).astype(np.float64)
    errors = found - values
    assert (np.abs(errors) < step).all()
    assert (
        np.abs(errors.mean(0)) <= 5 * step / 2 / np.sqrt(400)
    ).all()  # a rounding's deviation is half a step at most
    assert len({one.tobytes() for one in found}) > 200  # where a block has one large value, all others become zero


@pytest.mark.parametrize("sent", STEPS)
def test_the_seed_decides(sent: str) -> None:
    values = weights()

    def data(seed: int) -> bytes:
        return codec.encode(Payload({"v": values, "w": values}), values=sent, seed=seed)

    assert data(5) == data(5) == data(5 + 2**64) and data(5) != data(6) and data(-1) == data(2**64 - 1)
    schema = Schema({"v": Spec("float32", SHAPE), "w": Spec("float32", SHAPE)})
    got = codec.decode(data(5), schema, ROOM).weights
    assert not np.array_equal(got["v"], got["w"])  # each tensor has numbers of its own


@pytest.mark.parametrize("sent", STEPS)
def test_zeros_and_the_largest_stay(sent: str) -> None:
    values = weights()
    values[:, ::3] = 0
    values[20:] = 0
    got = exchange(values, sent, seed=0)[0]
    assert not got[values == 0].any()
    huge = np.full(SHAPE, np.finfo(np.float32).max)
    assert np.isfinite(exchange(huge, sent, seed=0)[0]).all()
    tiny = np.full(SHAPE, 1e-45, np.float32)
    assert (np.abs(exchange(tiny, sent, seed=0)[0]) <= 1e-44).all()


@pytest.mark.parametrize("sent", STEPS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_sent_as_it_is(sent: str, wrong: float) -> None:
    values = weights()
    values[3, 4] = wrong
    assert exchange(values, sent, seed=0)[0].tobytes() == values.tobytes()

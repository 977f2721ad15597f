"""The sum of payloads equals the plain loop over the decoded ones, bit for bit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from payloads import bits, moved, near

from fedsparse import codec
from fedsparse.payload import Bits, Payload, Schema, Spec

ROOM = 1 << 22
SHAPE = (50, 103)  # 5150 positions: more than a chunk, no whole number of bytes
SPECS = {
    "w": Spec("float32", SHAPE),
    "bias": Spec("float32", (7,)),
    "steps": Spec("int64", ()),
    "half": Spec("float16", (3, 4)),
    "none": Spec("float32", (0, 4)),
    "control/w": Spec("float32", SHAPE),
}
SCHEMA = Schema(SPECS, frozenset({"w", "half", "control/w"}), partial=True)
WEIGHTS = [0.1, 3.0, 1e-3, 7.25]


def tensors(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: np.asarray(rng.standard_normal(spec.shape) * 9, spec.dtype) for name, spec in SPECS.items()}


def payload(rng: np.random.Generator, masks: dict[str, np.ndarray], absent: str = "unheld") -> Payload:
    weights = tensors(rng)
    control = {"w": weights.pop("control/w")}
    return Payload(weights, masks, {"control": control}, absent=absent)  # type: ignore[arg-type]


def plain(payloads: list[Payload], weights: list[float]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Sums and who holds what, position by position, as FORMAT.md defines them."""
    total: dict[str, np.ndarray] = {}
    held: dict[str, np.ndarray] = {}
    for one, weight in zip(payloads, weights, strict=True):
        for name, tensor in one.tensors().items():
            wide = np.float32 if tensor.dtype == np.float32 else np.float64
            total.setdefault(name, np.zeros(tensor.shape, wide))
            held.setdefault(name, np.zeros(tensor.shape, wide))
            kept = np.asarray(one.masks[name].dense()) if name in one.masks else np.ones(tensor.shape, np.bool_)
            counts = kept if one.absent == "unheld" else np.ones(tensor.shape, np.bool_)
            with np.errstate(all="ignore"):
                total[name] = np.where(kept, total[name] + wide(weight) * tensor.astype(wide), total[name])
                held[name] = np.where(counts, held[name] + wide(weight), held[name])
    return total, held


def assert_sums(sums: codec.Sums, total: dict[str, np.ndarray], held: dict[str, np.ndarray]) -> None:
    assert sums.total.keys() == sums.held.keys() == total.keys()
    for name, expected in total.items():
        seen = sums.total[name]
        assert (seen.dtype, seen.shape) == (expected.dtype, expected.shape)
        assert np.where(np.isnan(seen), 0, seen).tobytes() == np.where(np.isnan(expected), 0, expected).tobytes()
        assert np.array_equal(np.isnan(seen), np.isnan(expected))
        found = sums.held[name]
        if name in sums.masks:
            found = np.where(sums.masks[name].dense(), found, 0)
        assert np.array_equal(np.broadcast_to(found, expected.shape), held[name])


MASK = bits(np.random.default_rng(1), SHAPE, 0.1)
SHARED = {"w": Bits(MASK)}


def masks_of(case: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "dense": {},
        "shared": {"w": MASK, "control/w": ~MASK},
        "different": {"w": bits(rng, SHAPE, 0.1), "half": bits(rng, (3, 4), 0.5)},
        "close": {"w": moved(rng, MASK, 0.01)},
        "some": {"w": MASK} if rng.random() < 0.5 else {},
        "all and none": {"w": np.full(SHAPE, rng.random() < 0.5)},
        "empty": {"w": np.zeros(SHAPE, np.bool_)},
    }[case]


@pytest.mark.parametrize("absent", ["unheld", "zero"])
@pytest.mark.parametrize("case", ["dense", "shared", "different", "close", "some", "all and none", "empty"])
@pytest.mark.parametrize("values", ["fp32", "bf16", "int8", "int4"])
def test_equals_the_plain_loop(case: str, absent: str, values: str) -> None:
    rng = np.random.default_rng(5)
    sent = [payload(rng, masks_of(case, rng), absent) for _ in WEIGHTS]
    data = [codec.encode(p, schema=SCHEMA, values=values, seed=i, known=SHARED) for i, p in enumerate(sent)]
    got = [codec.decode(one, SCHEMA, ROOM, known=SHARED) for one in data]
    sums = codec.accumulate(data, WEIGHTS, SCHEMA, ROOM, known=SHARED)
    assert_sums(sums, *plain(got, WEIGHTS))
    assert ("w" in sums.masks) == (case in ("shared", "empty") and absent == "unheld")


def test_special_values() -> None:
    rng = np.random.default_rng(0)
    sent = []
    for _ in WEIGHTS:
        words = rng.integers(0, 2**32, SHAPE, dtype=np.uint32)
        words[::2] |= 0x7F800000
        words[1::4] &= 0x807FFFFF
        sent.append(Payload({"w": words.view(np.float32)}, {"w": bits(rng, SHAPE, 0.5)}))
    data = [codec.encode(one, schema=SCHEMA) for one in sent]
    assert_sums(codec.accumulate(data, WEIGHTS, SCHEMA, ROOM), *plain(sent, WEIGHTS))


def test_values_that_rely_on_a_reference() -> None:
    rng = np.random.default_rng(0)
    held = {"w": tensors(rng)["w"]}
    sent = [Payload({"w": near(rng, held["w"], 99)}, masks_of("some", rng)) for _ in WEIGHTS]
    data = [codec.encode(one, schema=SCHEMA, reference=held) for one in sent]
    assert all(codec.header(one).reference for one in data)
    assert_sums(codec.accumulate(data, WEIGHTS, SCHEMA, ROOM, reference=held), *plain(sent, WEIGHTS))


@pytest.mark.parametrize("masked", [0, 2, 4])
def test_zeros_without_a_mask_are_held(masked: int) -> None:
    """A support says what is not sent; it is no mask, and nobody lacks what is zero."""
    rng = np.random.default_rng(0)
    sent = []
    for i in range(4):
        kept = bits(rng, SHAPE, 0.1)
        values = np.where(kept, tensors(rng)["w"], np.float32(0))
        sent.append(Payload({"w": values}, {"w": moved(rng, kept, 0.01)} if i < masked else {}))
    data = [codec.encode(one, schema=SCHEMA) for one in sent]
    assert "support" in codec.inspect(data[-1]).tensors[0].mask or masked == 4
    assert_sums(codec.accumulate(data, WEIGHTS, SCHEMA, ROOM), *plain(sent, WEIGHTS))
    same = [Payload({"w": sent[-1].weights["w"]})] * 4  # one support for all
    data = [codec.encode(one, schema=SCHEMA) for one in same]
    assert_sums(codec.accumulate(data, WEIGHTS, SCHEMA, ROOM), *plain(same, WEIGHTS))


def test_tensors_that_some_do_not_have() -> None:
    rng = np.random.default_rng(0)
    first, second = payload(rng, {"w": MASK}), payload(rng, {})
    second = replace(second, weights={"bias": second.weights["bias"]}, masks={"half": np.ones((3, 4), np.bool_)})
    data = [codec.encode(first, schema=SCHEMA), codec.encode(second)]  # in another order, and a mask without values
    sums = codec.accumulate(data, [2, 3], SCHEMA, ROOM)
    assert_sums(sums, *plain([codec.decode(one, SCHEMA, ROOM) for one in data], [2, 3]))
    assert sums.held["bias"] == 5 and sums.held["w"] == 2


def test_the_mean_keeps_what_nobody_holds() -> None:
    rng = np.random.default_rng(0)
    previous = tensors(rng)
    for case in ("shared", "different", "dense", "all and none"):
        sent = [payload(rng, masks_of(case, rng)) for _ in WEIGHTS]
        sums = codec.accumulate([codec.encode(one, schema=SCHEMA) for one in sent], WEIGHTS, SCHEMA, ROOM)
        total, held = plain(sent, WEIGHTS)
        means = sums.mean(previous)
        assert means.keys() == previous.keys()
        for name, mean in means.items():
            with np.errstate(all="ignore"):
                expected = np.where(held[name] > 0, total[name] / held[name], previous[name].astype(total[name].dtype))
            assert np.array_equal(mean, expected) and mean.dtype == total[name].dtype


def test_sums_into_arrays_of_the_caller() -> None:
    rng = np.random.default_rng(0)
    for case in ("shared", "different"):
        sent = [payload(rng, masks_of(case, rng)) for _ in WEIGHTS]
        out = {"w": np.full(SHAPE, np.nan, np.float32)}
        data = [codec.encode(one, schema=SCHEMA) for one in sent]
        sums = codec.accumulate(data, WEIGHTS, SCHEMA, ROOM, out=out)
        assert sums.total["w"] is out["w"]
        assert_sums(sums, *plain(sent, WEIGHTS))
    for wrong in (np.zeros(SHAPE), np.zeros(SHAPE[::-1], np.float32), np.zeros(SHAPE[::-1], np.float32).T):
        with pytest.raises(ValueError, match="'w': needed is a contiguous, writable array of float32"):
            codec.accumulate(data, WEIGHTS, SCHEMA, ROOM, out={"w": wrong})


def test_what_cannot_be_summed() -> None:
    one = codec.encode(Payload({"w": np.ones(SHAPE, np.float32)}))
    zero = codec.encode(Payload({"w": np.ones(SHAPE, np.float32)}, absent="zero"))
    for data, weights in (([], []), ([one], []), ([one], [1, 2])):
        with pytest.raises(ValueError, match="needed is a weight for each"):
            codec.accumulate(data, weights, SCHEMA, ROOM)
    with pytest.raises(codec.DecodeError, match="disagree"):
        codec.accumulate([one, zero], [1, 1], SCHEMA, ROOM)
    flags = Schema({"flag": Spec("bool", (2,))})
    with pytest.raises(ValueError, match="'flag' has dtype bool, which has no weighted sum"):
        codec.accumulate([codec.encode(Payload({"flag": np.ones(2, bool)}))], [1], flags, ROOM)
    damaged = one[:100] + bytes((one[100] ^ 1,)) + one[101:]
    with pytest.raises(codec.DecodeError, match="checksum"):
        codec.accumulate([one, damaged], [1, 1], SCHEMA, ROOM)
    with pytest.raises(codec.DecodeError, match="at most 99"):
        codec.accumulate([one], [1], SCHEMA, 99)


def test_eight_threads_at_once() -> None:
    rng = np.random.default_rng(0)
    held = {"w": tensors(rng)["w"]}
    sent = [payload(rng, masks_of("close", rng)) for _ in WEIGHTS]
    sent[0] = replace(sent[0], weights=sent[0].weights | {"w": near(rng, held["w"], 50)}, masks={})
    data = [codec.encode(p, schema=SCHEMA, known=SHARED, reference=held) for p in sent]

    def everything(_: int) -> bytes:
        sums = codec.accumulate(data, WEIGHTS, SCHEMA, ROOM, known=SHARED, reference=held)
        got = [codec.decode(one, SCHEMA, ROOM, known=SHARED, reference=held) for one in data]
        return b"".join(t.tobytes() for one in (sums.total, *(p.tensors() for p in got)) for t in one.values())

    expected = everything(0)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(everything, range(64))) == {expected}

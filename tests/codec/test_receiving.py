"""What a receiver can ask for beside a fresh payload: arrays of its own, a description, an account of the bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from payloads import Held, assert_same, bits, exchanges

from fedsparse import codec
from fedsparse.payload import Payload, Schema, Spec

ROOM = 1 << 24


@settings(max_examples=100, deadline=None)
@given(exchanges())
def test_into_arrays_of_the_caller(drawn: tuple[Payload, Schema, Held]) -> None:
    payload, schema, held = drawn
    data = codec.encode(payload, schema=schema, known=held.known, reference=held.reference)
    out = {name: np.empty(spec.shape, spec.dtype) for name, spec in schema.tensors.items()}
    for array in out.values():
        array.reshape(-1).view(np.uint8)[:] = 0xA5  # what was there does not shine through
    some = dict(list(out.items())[::2])
    for given_ in (out, some):
        got = codec.decode_into(data, schema, ROOM, given_, known=held.known, reference=held.reference)
        assert_same(payload, got)
        assert all(array is out[name] for name, array in got.tensors().items() if name in given_)


READ_ONLY = np.zeros((3, 4), np.float32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((3, 4)),
        np.zeros((3, 4), ">f4"),
        np.zeros((4, 3), np.float32),
        np.zeros(12, np.float32),
        np.zeros((4, 3), np.float32).T,
        np.zeros((3, 8), np.float32)[:, ::2],
        READ_ONLY,
    ],
)
def test_arrays_that_do_not_fit(wrong: np.ndarray) -> None:
    schema = Schema({"w": Spec("float32", (3, 4))})
    data = codec.encode(Payload({"w": np.ones((3, 4), np.float32)}))
    with pytest.raises(ValueError, match=r"'w': needed is a contiguous, writable array of float32 \(3, 4\)"):
        codec.decode_into(data, schema, ROOM, {"w": wrong})
    with pytest.raises(ValueError, match="'v': the schema does not have it"):
        codec.decode_into(data, schema, ROOM, {"v": np.zeros((3, 4), np.float32)})


def test_an_unaligned_array_will_do() -> None:
    values, mask = np.arange(1000, dtype=np.float32), np.arange(1000) % 3 == 0
    schema = Schema({"w": Spec("float32", (1000,))}, frozenset({"w"}))
    out = np.zeros(4001, np.uint8)[1:].view(np.float32)
    codec.decode_into(codec.encode(Payload({"w": values}, {"w": mask})), schema, ROOM, {"w": out})
    assert np.array_equal(out, np.where(mask, values, 0))


@settings(max_examples=100, deadline=None)
@given(exchanges())
def test_a_payload_describes_itself(drawn: tuple[Payload, Schema, Held]) -> None:
    payload, schema, held = drawn
    data = codec.encode(payload, known=held.known, reference=held.reference)
    found = codec.described(data, ROOM)
    tensors = payload.tensors()
    assert found.maskable == payload.masks.keys()
    assert found.tensors.keys() == tensors.keys() | payload.masks.keys()
    assert all(found.tensors[name] == schema.tensors[name] for name in tensors)
    got = codec.decode(data, found, ROOM, known=held.known, reference=held.reference)
    assert_same(payload, got)


def test_descriptions_are_bounded() -> None:
    data = codec.encode(Payload({"a": np.zeros(100, np.int8), "b": np.zeros(100)}))
    assert codec.described(data, 900).dense_bytes == 900
    with pytest.raises(codec.DecodeError, match="'b': takes the dense size beyond 899 bytes"):
        codec.described(data, 899)
    schema = Schema({"w": Spec("int8", (3,))})
    with pytest.raises(codec.DecodeError, match="cites a schema"):
        codec.described(codec.encode(Payload({"w": np.zeros(3, np.int8)}), schema=schema), ROOM)


def test_an_account_of_the_bytes() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((100, 100)).astype(np.float32)
    mask = bits(rng, (100, 100), 0.1)
    seen = codec.inspect(codec.encode(Payload({"w": weights, "v": weights, "b": weights[0]}, {"w": mask})))
    assert [row.name for row in seen.tensors] == ["w", "v", "b"]
    w, v, b = seen.tensors
    assert w.kept == mask.sum() and v.kept is None and b.kept is None
    assert (seen.mask, seen.values, seen.dense) == (w.mask_bytes, w.value_bytes, v.value_bytes + b.value_bytes)
    assert 3.2 * mask.sum() < w.value_bytes < 3.5 * mask.sum() and 32_000 < v.value_bytes < 35_000  # 27 bits a value
    assert 0 < seen.header < 150

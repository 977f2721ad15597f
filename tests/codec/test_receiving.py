"""What a receiver can ask for beside a fresh payload: arrays of its own, a description, an account of the bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from payloads import Held, assert_same, bits, exchanges

from fedsparse import codec
from fedsparse.payload import Ids, Payload, Schema, Spec

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
        [[0.0] * 4] * 3,
        torch.zeros(4, 3),
        torch.zeros(3, 4, dtype=torch.float64),
    ],
)
def test_arrays_that_do_not_fit(wrong: Any) -> None:
    schema = Schema({"w": Spec("float32", (3, 4))})
    data = codec.encode(Payload({"w": np.ones((3, 4), np.float32)}))
    with pytest.raises(ValueError, match=r"'w': needed is a contiguous, writable array of float32 \(3, 4\)"):
        codec.decode_into(data, schema, ROOM, {"w": wrong})
    with pytest.raises(ValueError, match="'v': the schema does not have it"):
        codec.decode_into(data, schema, ROOM, {"v": np.zeros((3, 4), np.float32)})


def test_tensors_will_do_in_place_of_arrays() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    schema = Schema({"w": Spec("float32", (2, 3))})
    near = torch.from_numpy(values + np.float32(1e-6)).requires_grad_()
    data = codec.encode(Payload({"w": values}), schema=schema, reference={"w": near})
    out, total = torch.zeros(2, 3), torch.zeros(2, 3)
    codec.decode_into(data, schema, ROOM, {"w": out}, reference={"w": near})
    codec.accumulate([data, data], [1, 2], schema, ROOM, reference={"w": near}, out={"w": total})
    assert np.array_equal(out, values) and np.array_equal(total, 3 * values)


def test_a_reference_that_requires_a_gradient() -> None:
    values = np.random.default_rng(0).standard_normal((30, 30)).astype(np.float32)
    near = torch.nn.Parameter(torch.from_numpy(values * np.float32(1.001)))
    data = codec.encode(Payload({"w": values}), reference={"w": near})
    assert "difference" in codec.inspect(data).tensors[0].values
    schema = Schema({"w": Spec("float32", (30, 30))})
    assert np.array_equal(codec.decode(data, schema, ROOM, reference={"w": near}).weights["w"], values)


def test_bytes_in_any_buffer() -> None:
    schema = Schema({"w": Spec("int32", (60,))})
    payload = Payload({"w": np.arange(60, dtype=np.int32)}, info={"text": "to a length that 4 divides..."})
    data = codec.encode(payload)
    assert len(data) % 4 == 0
    plain = np.frombuffer(data, np.uint8)
    for buffer in (
        bytearray(data),
        memoryview(data).cast("f"),
        plain.reshape(4, -1),
        np.repeat(plain, 2)[::2],
        memoryview(np.repeat(plain, 2))[::2],
    ):
        assert_same(payload, codec.decode(buffer, schema, len(data)))
        assert codec.inspect(buffer).total == len(data) and codec.described(buffer, ROOM).tensors == schema.tensors
        assert codec.header(codec.stamp(buffer, Ids(round=3))).ids.round == 3
        with pytest.raises(codec.DecodeError, match=f"{len(data)} bytes, at most {len(data) - 1}"):
            codec.decode(buffer, schema, len(data) - 1)


def test_booleans_of_other_bytes_than_0_and_1() -> None:
    odd = np.array([2, 0, 255], np.uint8).view(np.bool_)
    schema = Schema({"b": Spec("bool", (3,))}, frozenset({"b"}))
    assert codec.decode(codec.encode(Payload({"b": odd})), schema, ROOM).weights["b"].tobytes() == b"\1\0\1"
    got = codec.decode(codec.encode(Payload({"b": odd}, {"b": odd})), schema, ROOM)
    assert got.weights["b"].tobytes() == b"\1\0\1" and got.masks["b"].count == 2


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

"""What is encoded comes back, bit for bit."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from payloads import IDS, Held, assert_same, bits, exchanges, noise, payloads

from fedsparse import codec
from fedsparse.payload import Bits, Grid, Ids, Payload, Schema, Spec

ROOM = 1 << 24
EXAMPLES = int(os.environ.get("FEDSPARSE_EXAMPLES", "300"))  # before a release: 20000, some minutes
VALUES = ("fp32", "bf16", "fp16", "int8", "int4")


def there_and_back(payload: Payload, schema: Schema, held: Held, ids: Ids, by_schema: bool) -> None:
    cited = schema if by_schema else None
    data = codec.encode(payload, schema=cited, ids=ids, known=held.known, reference=held.reference)
    got = codec.decode(data, schema, len(data), known=held.known, reference=held.reference)
    assert_same(payload, got)
    if not any(isinstance(mask, codec.Seeded | Grid) for mask in payload.masks.values()):  # these arrive as bits
        assert codec.encode(got, schema=cited, ids=ids, known=held.known, reference=held.reference) == data

    head = codec.header(data)
    assert (head.ids, head.kind, head.absent, head.by_schema) == (ids, payload.kind, payload.absent, by_schema)
    assert head.schema == (codec.schema_hash(schema) if by_schema else 0)
    seen = codec.inspect(data, cited)
    assert seen.total == len(data) == seen.values + seen.mask + seen.dense + seen.header
    assert seen.mask == sum(row.mask_bytes for row in seen.tensors)
    assert seen.values + seen.dense == sum(row.value_bytes for row in seen.tensors)


@pytest.mark.timeout(3600)
@settings(max_examples=EXAMPLES, deadline=None)
@given(exchanges(), IDS, st.booleans())
def test_any_payload(drawn: tuple[Payload, Schema, Held], ids: Ids, by_schema: bool) -> None:
    there_and_back(*drawn, ids, by_schema)


@settings(max_examples=200, deadline=None)
@given(exchanges(), st.sampled_from(VALUES), st.integers(-5, 2**70))
def test_never_much_larger_than_dense(drawn: tuple[Payload, Schema, Held], values: str, seed: int) -> None:
    payload, schema, held = drawn
    payload = replace(payload, info={})
    dense = sum(tensor.nbytes for tensor in payload.tensors().values())
    alone = sum((np.asarray(m.dense()).size + 7) // 8 for n, m in payload.masks.items() if n not in payload.tensors())
    for known, reference in (({}, {}), (held.known, held.reference)):
        data = codec.encode(payload, values=values, schema=schema, known=known, reference=reference, seed=seed)
        assert len(data) <= dense + alone + 16 * len(schema.tensors) + 64
        got = codec.decode(data, schema, len(data), known=known, reference=reference)
        for name, tensor in payload.tensors().items():
            if tensor.dtype == np.float32:
                finite = np.isfinite(np.where(got.masks[name].dense(), tensor, 0) if name in got.masks else tensor)
                assert np.isfinite(got.tensors()[name][finite]).all()


@settings(max_examples=50, deadline=None)
@given(payloads(), IDS, IDS)
def test_stamp_changes_nothing_but_the_ids(drawn: tuple[Payload, Schema], first: Ids, second: Ids) -> None:
    payload, schema = drawn
    data = codec.encode(payload, schema=schema, ids=first)
    assert codec.stamp(data, second) == codec.encode(payload, schema=schema, ids=second)


@pytest.mark.parametrize("density", [0, 1e-4, 1e-3, 0.01, 0.07, 0.1, 0.3, 0.5, 0.8, 0.99, 1])
@pytest.mark.parametrize("n", [16383, 70_000])
def test_large_tensors(n: int, density: float) -> None:
    rng = np.random.default_rng(n)
    masks = {f"w{i}": bits(rng, (n,), density) for i in range(3)}
    payload = Payload({name: noise(rng, "float32", (n,)) for name in masks}, masks)
    schema = Schema({name: Spec("float32", (n,)) for name in masks}, frozenset(masks))
    data = codec.encode(payload, schema=schema)
    assert_same(payload, codec.decode(data, schema, ROOM))
    share = np.mean([mask.mean() for mask in masks.values()])
    entropy = 0 if share in (0, 1) else -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    assert codec.inspect(data).mask <= 3 * n * entropy / 8 * 1.25 + 3 * (n / 255 / 50 + 40)


def test_kept_zeros_survive_and_dropped_values_are_not_sent() -> None:
    values = np.array([0.0, -0.0, 3.0, -0.0, 5.0, 0.0], np.float32)
    mask = np.array([True, True, True, False, False, False])
    schema = Schema({"w": Spec("float32", (6,))}, frozenset({"w"}))
    got = codec.decode(codec.encode(Payload({"w": values}, {"w": mask})), schema, ROOM)
    assert got.weights["w"].tobytes() == np.array([0.0, -0.0, 3.0, 0.0, 0.0, 0.0], np.float32).tobytes()
    assert got.masks["w"].dense().tolist() == mask.tolist()
    other = values.copy()
    other[~mask] = [7, 8, 9]
    assert codec.encode(Payload({"w": other}, {"w": mask})) == codec.encode(Payload({"w": values}, {"w": mask}))


def test_tensors_of_torch_and_odd_layouts_pass_through() -> None:
    matrix = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    big_endian = np.arange(5, dtype=">f8")
    payload = Payload(
        {"t": matrix.T, "n": torch.tensor(7), "e": big_endian, "s": np.arange(20)[::3]}, {"t": matrix.T > 3}
    )
    schema = Schema(
        {"n": Spec("int64", ()), "t": Spec("float32", (4, 3)), "e": Spec("float64", (5,)), "s": Spec("int64", (7,))},
        frozenset({"t"}),
    )
    got = codec.decode(codec.encode(payload, schema=schema), schema, ROOM)
    assert_same(payload, got)
    assert list(got.weights) == list(schema.tensors)  # by schema, tensors arrive in its order


def test_what_does_not_fit_the_schema_travels_with_its_names() -> None:
    schema = Schema({"a": Spec("float32", (2,))})
    data = codec.encode(Payload({"b": np.zeros(3, np.int8)}), schema=schema)
    assert not codec.header(data).by_schema
    with pytest.raises(codec.DecodeError, match="'b'"):
        codec.decode(data, schema, ROOM)
    codec.decode(data, Schema({"b": Spec("int8", (3,))}), ROOM)


def test_a_known_mask_costs_its_hash() -> None:
    rng = np.random.default_rng(0)
    mask, other = (Bits(bits(rng, (100, 100), 0.1)) for _ in range(2))
    payload = Payload({"w": noise(rng, "float32", (100, 100))}, {"w": mask})
    schema = Schema({"w": Spec("float32", (100, 100))}, frozenset({"w"}))
    data = codec.encode(payload, schema=schema, known={"w": Bits(mask.bits.copy())})
    assert codec.inspect(data).mask == 8
    assert_same(payload, codec.decode(data, schema, ROOM, known={"w": mask}))
    for known in (None, {}, {"w": other}, {"w": Bits(mask.bits.reshape(-1))}, {"v": mask}):
        with pytest.raises(codec.UnknownMask) as caught:
            codec.decode(data, schema, ROOM, known=known)
        assert caught.value.tensor == "w"
    assert codec.inspect(codec.encode(payload, schema=schema, known={"w": other})).mask > 8
    assert codec.mask_hash(mask) == codec.mask_hash(Bits(torch.from_numpy(mask.bits)))
    assert len({codec.mask_hash(m) for m in (mask, other, Bits(mask.bits.reshape(-1)))}) == 3


def test_small_tensors_cost_few_bytes() -> None:
    shapes = {
        f"layer{i}.{part}": shape for i in range(20) for part, shape in (("weight", (16, 16, 3, 3)), ("bias", (16,)))
    }
    rng = np.random.default_rng(0)
    masks = {name: bits(rng, shape, 0.1) for name, shape in shapes.items() if len(shape) == 4}
    payload = Payload({name: noise(rng, "float32", shape) for name, shape in shapes.items()}, masks)
    schema = Schema({name: Spec("float32", shape) for name, shape in shapes.items()}, frozenset(masks))
    seen = codec.inspect(codec.encode(payload, schema=schema), schema)
    assert (seen.header - 56) / len(shapes) < 10
    assert seen.mask < 1.08 * 20 * 2304 * 0.469 / 8


def test_threads_do_not_share_state() -> None:
    rng = np.random.default_rng(0)
    payload = Payload({"w": noise(rng, "float32", (30_000,))}, {"w": bits(rng, (30_000,), 0.1)})
    schema = Schema({"w": Spec("float32", (30_000,))}, frozenset({"w"}))

    def there_and_back(_: int) -> bytes:
        data = codec.encode(payload, schema=schema)
        return codec.encode(codec.decode(data, schema, ROOM), schema=schema)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(there_and_back, range(64)))) == 1


def test_an_agreed_mask_costs_nothing() -> None:
    drawn = {"w": Bits(np.random.default_rng(0).random((40, 50)) < 0.1)}
    spec = {"w": Spec("float32", (40, 50))}
    agreed, plain = Schema(spec, frozenset(spec), agreed=drawn), Schema(spec, frozenset(spec))
    payload = Payload({"w": np.ones((40, 50), np.float32) * drawn["w"].bits}, drawn)
    data = codec.encode(payload, schema=agreed)
    assert codec.inspect(data, agreed).mask == 0
    back = codec.decode(data, agreed, 10**5)
    assert np.array_equal(back.masks["w"].dense(), drawn["w"].bits) and np.array_equal(
        back.weights["w"], payload.weights["w"]
    )
    other = Schema(spec, frozenset(spec), agreed={"w": Bits(~drawn["w"].bits)})
    for schema in (plain, other):  # whoever agreed on something else refuses
        with pytest.raises(codec.DecodeError, match="another schema"):
            codec.decode(data, schema, 10**5)
    changed = Payload(payload.weights, {"w": Bits(~drawn["w"].bits)})  # another mask is sent as ever
    assert np.array_equal(
        codec.decode(codec.encode(changed, schema=agreed), agreed, 10**5).masks["w"].dense(), ~drawn["w"].bits
    )

"""Damage of every kind: whatever the bytes, the decoder gives a payload of the schema, or DecodeError; nothing else.

A million mutations under sanitizers: `fuzz.py`.
"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hostile.mutations import Sample, first, mutated, samples, survives

from fedsparse import codec
from fedsparse.codec import container, kernels, masks, values
from fedsparse.payload import Payload, Schema, Spec

SAMPLES = samples(0)
READS = ("decode", "decode_into", "accumulate")


def test_the_samples_show_every_mode() -> None:
    rows = [row for sample in SAMPLES.values() for row in codec.inspect(sample.data).tensors]
    assert {row.mask for row in rows} >= {"dense", *(mode.name for mode in masks.MODES.values())}
    assert {row.values for row in rows} >= set(values.NAMES.values()) - {"none"}


@pytest.mark.parametrize("sample", ["first", "with names", "known mask", "int4 with names"])
def test_every_flip_and_every_truncation_is_refused(sample: str) -> None:
    one = SAMPLES[sample]
    data = one.data
    assert all(survives(one, data, read) for read in READS if one.summable or read != "accumulate")
    for at in range(len(data)):
        assert not survives(one, data[:at])
        for flip in (1, 0x80, 0xFF):
            assert not survives(one, data[:at] + bytes((data[at] ^ flip,)) + data[at + 1 :])
    assert not survives(one, data + b"\0")


def tiny(seed: int) -> Sample:
    """A payload of a few hundred bytes."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 9, 2).tolist())
    weights = {"w": rng.standard_normal(shape).astype(np.float32), "n": np.array(seed)}
    schema = Schema({name: Spec(tensor.dtype.name, tensor.shape) for name, tensor in weights.items()}, frozenset({"w"}))
    kept = {"w": rng.random(shape) < rng.random()} if seed % 4 else {}
    how = ("fp32", "bf16", "int8", "int4")[seed % 3]
    data = codec.encode(
        Payload(weights, kept, {}, {"loss": 0.5}), values=how, seed=seed, schema=schema if seed % 2 else None
    )
    return Sample(data, schema)


@pytest.mark.parametrize("part", range(4))
def test_truncations_of_two_hundred_payloads(part: int) -> None:
    for seed in range(50 * part, 50 * part + 50):
        one = tiny(seed)
        assert survives(one, one.data)
        assert not any(survives(one, one.data[:at]) for at in range(len(one.data)))


@pytest.mark.parametrize("part", range(5))
def test_bit_flips_of_fifty_payloads(part: int) -> None:
    for seed in range(10 * part, 10 * part + 10):
        one = tiny(seed)
        for at in range(len(one.data)):
            for bit in range(8):
                assert not survives(one, one.data[:at] + bytes((one.data[at] ^ 1 << bit,)) + one.data[at + 1 :])


@pytest.fixture
def select() -> Iterator[Callable[[int], Any]]:
    """Lets one tier of the kernels after the other do the work."""
    compiled = kernels._module if kernels.kernels_in_use() != "numpy" else None
    yield lambda i: compiled.select(compiled.TIERS[i % len(compiled.TIERS)]) if compiled else None
    if compiled:
        compiled.select(kernels.kernels_in_use())


@pytest.mark.parametrize("sample", SAMPLES)
def test_mutations_with_a_good_checksum(sample: str, select: Callable[[int], Any]) -> None:
    rng, one = random.Random(sample), SAMPLES[sample]
    reads = READS if one.summable else READS[:2]
    accepted, tries = 0, 1000
    for i in range(tries):
        select(i)
        other = SAMPLES[rng.choice(list(SAMPLES))].data
        accepted += survives(one, mutated(rng, one.data, other), rng.choice(reads))
    assert 0 < accepted < tries  # values and ids may change unseen, with a new checksum; and some changes must be seen


def test_mutations_take_no_memory() -> None:
    rng, one = random.Random(0), SAMPLES["first"]
    schema_and_payload = one.schema.dense_bytes + len(one.data)
    changed = [mutated(rng, one.data, one.data) for _ in range(500)]
    tracemalloc.start()
    for data in changed:
        survives(one, data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * schema_and_payload + 100_000


def test_noise_is_refused() -> None:
    rng, (payload, schema) = random.Random(0), first(0)
    one = Sample(codec.encode(payload, schema=schema), schema)
    head = one.data[: container.HEAD.size]
    for length in range(0, 600, 3):
        assert not survives(one, rng.randbytes(length))
        assert not survives(one, container.join([head + rng.randbytes(length)]))

"""Damage of every kind: whatever the bytes, the decoder gives a payload of the schema, or DecodeError; nothing else."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from payloads import bits, noise

from fedsparse import codec
from fedsparse.codec import container
from fedsparse.payload import Bits, Ids, Payload, Schema, Spec

ROOM = 1 << 16
SPECS = {
    "conv": Spec("float32", (8, 2, 3, 3)),
    "fc": Spec("float16", (20, 30)),
    "full": Spec("int8", (3, 5)),
    "most": Spec("float32", (400,)),
    "bias": Spec("float64", (5,)),
    "flag": Spec("bool", ()),
    "steps": Spec("int64", ()),
    "none": Spec("float32", (0, 4)),
    "outside/fc": Spec("float32", (20, 30)),
}
SCHEMA = Schema(SPECS, frozenset({"conv", "fc", "full", "most", "outside/fc"}))
DENSITY = {"conv": 0.5, "fc": 0.1, "full": 1, "most": 0.97, "outside/fc": 0.02}


def payload(seed: int) -> Payload:
    rng = np.random.default_rng(seed)
    tensors = {name: noise(rng, spec.dtype, spec.shape) for name, spec in SPECS.items()}
    outside = {"fc": tensors.pop("outside/fc")}
    masks = {name: bits(rng, SPECS[name].shape, density) for name, density in DENSITY.items()}
    info = {"examples": 12, "loss": 0.5, "late": False, "name": "näme"}
    return Payload(tensors, masks, {"outside": outside}, info, "update", "zero")


KNOWN = {"fc": Bits(np.asarray(payload(0).masks["fc"].dense()))}
SAMPLES = {
    "by schema": codec.encode(payload(0), schema=SCHEMA, ids=Ids(1, 2, 3, 4)),
    "with names": codec.encode(payload(0), ids=Ids(1, 2, 3, 4)),
    "known mask": codec.encode(payload(0), schema=SCHEMA, known=KNOWN),
}


def conforms(got: Payload) -> bool:
    """All of the schema's tensors, with their dtypes and shapes; masks where they may be, zeros outside them."""
    tensors = got.tensors()
    assert tensors.keys() == SPECS.keys()
    for name, spec in SPECS.items():
        assert (tensors[name].dtype.name, tensors[name].shape) == (spec.dtype, spec.shape)
        if spec.dtype == "bool":
            assert tensors[name].view(np.uint8).max() <= 1
    for name, mask in got.masks.items():
        assert name in SCHEMA.maskable and mask.shape == SPECS[name].shape
        assert not np.ascontiguousarray(tensors[name][~mask.dense()]).view(np.uint8).any()
    return True


def survives(data: bytes) -> bool:
    """Whether these bytes are accepted; anything but a payload of the schema or a DecodeError fails the test."""
    try:
        got = codec.decode(data, SCHEMA, ROOM, known=KNOWN)
    except codec.DecodeError:
        return False
    assert codec.inspect(data).total == len(data)
    return conforms(got)


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_flip_and_every_truncation_is_refused(sample: str) -> None:
    data = SAMPLES[sample]
    assert survives(data)
    for at in range(len(data)):
        assert not survives(data[:at])
        for flip in (1, 0x80, 0xFF):
            assert not survives(data[:at] + bytes((data[at] ^ flip,)) + data[at + 1 :])
    assert not survives(data + b"\0")


def mutate(rng: np.random.Generator, body: bytearray, other: bytes) -> None:
    """One small, nasty change; most of them in the first bytes, where the table is."""
    reach = len(body) if rng.random() < 0.4 else min(len(body), 250)
    at, end = int(rng.integers(reach)), int(rng.integers(1, 9))
    what = rng.integers(6)
    if what == 0:
        body[at] ^= 1 << int(rng.integers(8))
    elif what == 1:
        body[at] = int(rng.choice([0, 1, 2, 3, 4, 5, 127, 128, 254, 255]))
    elif what == 2:
        del body[at : at + end]
    elif what == 3:
        body[at:at] = rng.bytes(end)
    elif what == 4:
        body[at : at + end] = b"\xff" * end
    else:
        start = int(rng.integers(len(other)))
        body[at : at + end] = other[start : start + end]


@pytest.mark.parametrize("sample", SAMPLES)
def test_mutations_with_a_good_checksum(sample: str) -> None:
    rng = np.random.default_rng(list(SAMPLES).index(sample))
    others = list(SAMPLES.values())
    accepted, tries = 0, 3000
    tracemalloc.start()
    for _ in range(tries):
        body = bytearray(SAMPLES[sample][: -container.TRAILER])
        for _ in range(int(rng.integers(1, 4))):
            mutate(rng, body, others[int(rng.integers(len(others)))])
        accepted += survives(container.join([body]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000  # the schema is 7 kB
    assert 0 < accepted < tries  # values and ids may change unseen, with a new checksum; and some changes must be seen


def test_noise_is_refused() -> None:
    rng = np.random.default_rng(0)
    head = SAMPLES["by schema"][: container.HEAD.size]
    for length in range(0, 600, 3):
        assert not survives(rng.bytes(length))
        assert not survives(container.join([head + rng.bytes(length)]))

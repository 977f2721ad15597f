"""Small payloads that together show every mode, and the damage that is done to them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from payloads import bits, grid, moved, n_of_m, near, noise

from fedsparse import codec
from fedsparse.codec import container, masks, values
from fedsparse.codec.container import Block, Entry
from fedsparse.codec.layout import layout
from fedsparse.payload import Bits, Ids, Mask, Payload, Schema, Spec

ROOM = 1 << 18
IDS = Ids(1, 2, 3, 4)
INFO = {"examples": 12, "loss": 0.5, "late": False, "name": "näme"}


@dataclass(frozen=True)
class Sample:
    """A payload's bytes, and all that its receiver has."""

    data: bytes
    schema: Schema
    known: Mapping[str, Mask] = field(default_factory=dict)
    reference: Mapping[str, np.ndarray] = field(default_factory=dict)

    def decode(self, data: bytes) -> Payload:
        return codec.decode(data, self.schema, ROOM, known=self.known, reference=self.reference)

    def decode_into(self, data: bytes) -> Payload:
        out = {name: np.empty(spec.shape, spec.dtype) for name, spec in self.schema.tensors.items()}
        return codec.decode_into(data, self.schema, ROOM, out, known=self.known, reference=self.reference)

    def accumulate(self, data: bytes) -> codec.Sums:
        return codec.accumulate(
            [data, self.data], [1, 2], self.schema, ROOM, known=self.known, reference=self.reference
        )

    @property
    def summable(self) -> bool:
        return all(np.dtype(spec.dtype).kind in "fiu" for spec in self.schema.tensors.values())


def weights(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (rng.standard_normal(shape) * 0.05).astype(np.float32)


def first(seed: int) -> tuple[Payload, Schema]:
    """The masks of 0.1, over values of any bits and dtype."""
    specs = {
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
    rng = np.random.default_rng(seed)
    tensors = {name: noise(rng, spec.dtype, spec.shape) for name, spec in specs.items()}
    outside = {"fc": tensors.pop("outside/fc")}
    density = {"conv": 0.5, "fc": 0.1, "full": 1, "most": 0.97, "outside/fc": 0.02}
    kept = {name: bits(rng, specs[name].shape, share) for name, share in density.items()}
    return Payload(tensors, kept, {"outside": outside}, INFO, "update", "zero"), Schema(specs, frozenset(kept))


def ruled(seed: int) -> Sample:
    """The masks that follow a rule, or rely on one that is held."""
    rng = np.random.default_rng(seed)
    wide, conv = (32, 36), (16, 8, 3, 3)
    agreed, held = Bits(bits(rng, wide, 0.2)), Bits(bits(rng, wide, 0.1))
    kept: dict[str, Mask | np.ndarray] = {
        "grid": np.zeros(conv, np.bool_),
        "nm": n_of_m(rng, wide, 2, 4),
        "rice": bits(rng, wide, 0.01),
        "moved": Bits(moved(rng, held.bits, 0.01)),
        "known": held,
        "seed": codec.Seeded(wide, 60, (seed, 5)),
        "agreed": agreed,
    }
    while not np.asarray(kept["grid"]).any() or np.asarray(kept["grid"]).all():
        kept["grid"] = grid(rng, conv)
    tensors = {name: weights(rng, conv if name == "grid" else wide) for name in kept}
    tensors |= {"support": np.where(bits(rng, wide, 0.1), weights(rng, wide), np.float32(0))}
    specs = {name: Spec("float32", tensor.shape) for name, tensor in tensors.items()}
    schema = Schema(specs, frozenset(kept), agreed={"agreed": agreed})
    known = {"moved": held, "known": held}
    return Sample(codec.encode(Payload(tensors, kept), schema=schema, known=known), schema, known)


def coded(seed: int) -> Sample:
    """All codes, with escapes, low bits and a mask, and values as they are."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 2**32, (16, 20), dtype=np.uint32)
    tensors = {
        "four": weights(rng, (30, 41)),
        "two": (words & 0x807FFFFF | 0x3F800000 - (words % 3 << 23)).view(np.float32),
        "one": (words & 0x807FFFFF | 0x3F800000).view(np.float32),
        "escapes": np.where(words % 40 == 0, words & 0xBFFF0000, 0x3F800000).astype(np.uint32).view(np.float32),
        "short": (words & 0x807FFC00 | 0x3F800000).view(np.float32),
        "raw": words.view(np.float32),
        "masked": weights(rng, (30, 41)),
        "long": weights(rng, (5200,)),
    }
    schema = Schema({n: Spec("float32", t.shape) for n, t in tensors.items()}, frozenset({"masked", "long"}))
    kept = {"masked": bits(rng, (30, 41), 0.3), "long": bits(rng, (5200,), 0.5)}
    return Sample(codec.encode(Payload(tensors, kept), schema=schema), schema)


def relying(seed: int) -> Sample:
    """Differences to a reference, of 1 to 4 coded planes, with and without a mask."""
    rng = np.random.default_rng(seed)
    reach = {"one": 2**27, "two": 2**22, "three": 2**14, "four": 20, "equal": 0, "masked": 99}
    shape = (20, 27)
    held = {name: noise(rng, "float32", shape) for name in reach}
    tensors = {name: near(rng, held[name], number) for name, number in reach.items()}
    schema = Schema({name: Spec("float32", shape) for name in tensors}, frozenset({"masked"}))
    payload = Payload(tensors, {"masked": bits(rng, shape, 0.5)})
    return Sample(codec.encode(payload, schema=schema, reference=held), schema, reference=held)


def rounded(seed: int, how: str) -> Sample:
    rng = np.random.default_rng(seed)
    tensors = {"w": weights(rng, (9, 31)), "v": weights(rng, (9, 31)), "tiny": weights(rng, (1, 1))}
    schema = Schema({name: Spec("float32", t.shape) for name, t in tensors.items()}, frozenset({"v"}))
    payload = Payload(tensors, {"v": bits(rng, (9, 31), 0.5)})
    return Sample(codec.encode(payload, values=how, schema=schema, seed=seed), schema)


def by_name(sample: Sample) -> Sample:
    """The same with all names, for a receiver whom half of it suffices."""
    payload = sample.decode(sample.data)
    data = codec.encode(payload, known=sample.known, reference=sample.reference, ids=IDS)
    schema = Schema(sample.schema.tensors, sample.schema.maskable, partial=True)
    return Sample(data, schema, sample.known, sample.reference)


def samples(seed: int) -> dict[str, Sample]:
    payload, schema = first(seed)
    known = {"fc": Bits(np.asarray(payload.masks["fc"].dense()))}
    found = {
        "first": Sample(codec.encode(payload, schema=schema, ids=IDS), schema),
        "with names": Sample(codec.encode(payload, ids=IDS), schema),
        "known mask": Sample(codec.encode(payload, schema=schema, known=known), schema, known),
        "ruled": ruled(seed),
        "coded": coded(seed),
        "relying": relying(seed),
        "int8": rounded(seed, "int8"),
        "int4": rounded(seed, "int4"),
    }
    return found | {f"{name} with names": by_name(found[name]) for name in ("ruled", "coded", "relying", "int4")}


# ---- damage ----


def flip(rng: random.Random, body: bytearray, at: int, other: bytes) -> None:
    body[at] ^= 1 << rng.randrange(8)


def number(rng: random.Random, body: bytearray, at: int, other: bytes) -> None:
    body[at] = rng.choice((0, 1, 2, 3, 4, 5, 9, 10, 127, 128, 254, 255))


def cut(rng: random.Random, body: bytearray, at: int, other: bytes) -> None:
    del body[at : at + rng.randrange(1, 9)]


def insert(rng: random.Random, body: bytearray, at: int, other: bytes) -> None:
    body[at:at] = rng.randbytes(rng.randrange(1, 9))


def ones(rng: random.Random, body: bytearray, at: int, other: bytes) -> None:
    end = rng.randrange(1, 9)
    body[at : at + end] = b"\xff" * end


def splice(rng: random.Random, body: bytearray, at: int, other: bytes) -> None:
    start, end = rng.randrange(len(other)), rng.randrange(1, 60)
    body[at : at + end] = other[start : start + end]


def truncate(rng: random.Random, body: bytearray, at: int, other: bytes) -> None:
    del body[max(at, len(body) - rng.randrange(1, 200)) :]


SIMPLE: tuple[Callable[[random.Random, bytearray, int, bytes], None], ...] = (
    flip,
    flip,
    number,
    cut,
    insert,
    ones,
    splice,
)


def mutated(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """One to three small, nasty changes, most of them in the table; then nearly always a good checksum."""
    if rng.random() < 0.4:
        data = retabled(rng, data)
    body = bytearray(data[: -container.TRAILER])
    for _ in range(rng.randrange(1, 4)):
        reach = len(body) if rng.random() < 0.5 else min(len(body), 250)
        if reach:
            (truncate if rng.random() < 0.02 else rng.choice(SIMPLE))(rng, body, rng.randrange(reach), other)
    return container.join([body]) if rng.random() < 0.98 else bytes(body) + data[-container.TRAILER :]


def retabled(rng: random.Random, data: bytes) -> bytes:
    """Another number or mode in the table or the list of blocks; often with the bytes that it then takes."""
    parts = parted(data)
    entries, blocks = [copy(entry) for entry in parts.entries], [copy(block) for block in parts.blocks]
    head, body = bytearray(data[: container.HEAD.size]), bytearray(parts.body)
    entry = rng.choice([entry for entry in entries if entry.mask != container.MISSING])
    what = rng.choice(("mask", "kept", "mask_len", "value", "value_len", "coded", "block"))
    delta = rng.choice((-1, 1, rng.randrange(-300, 300), 1 << rng.randrange(64)))
    at = len(body)
    if what == "mask":
        entry.mask = rng.choice((*masks.MODES, *(128 + m for m in masks.MODES), 0, 254, 255))
    elif what == "value":
        entry.value = rng.choice((*values.NAMES, 11, 255))
    elif what == "block" and blocks:
        block = rng.choice(blocks)
        block.raw, block.coding = max(block.raw + delta, 0), rng.choice((block.coding, block.coding, 0, 1))
    elif what != "block":
        at = max(entry.value_at - parts.at, 0) if what == "value_len" else len(body)
        setattr(entry, what, max(getattr(entry, what) + delta, 0) % (1 << 64))
        stream = {"mask_len": masks.MODES.get(entry.mask & 127), "coded": values.STREAMS.get(entry.value)}.get(what)
        stream = stream.stream if isinstance(stream, masks.Mode) else stream
        for block in blocks:
            if block.stream == stream and rng.random() < 0.8:
                block.raw = max(block.raw + delta, 0) % (1 << 64)
                block.coded = block.raw if not block.coding else block.coded
                at = 0
                break
    if abs(delta) < 300 and what in ("mask_len", "value_len", "coded") and rng.random() < 0.8:
        body[at : at - min(delta, 0)] = rng.randbytes(max(delta, 0))
    container.put_table(head, entries)
    head += parts.info
    container.put_blocks(head, blocks)
    return container.join([head, body])


@dataclass(frozen=True)
class Parts:
    """A good payload, divided."""

    entries: list[Entry]
    info: bytes
    blocks: list[Block]
    body: bytes
    at: int  # where the body begins


@cache
def parted(data: bytes) -> Parts:
    found = layout(data)
    before, after = bytearray(), bytearray()
    container.put_table(before, found.entries)
    container.put_blocks(after, found.blocks)
    info = data[container.HEAD.size + len(before) : found.blocks_at - len(after)]
    return Parts(found.entries, info, found.blocks, data[found.blocks_at : -container.TRAILER], found.blocks_at)


def conforms(sample: Sample, got: Payload) -> None:
    """Tensors of the schema, with its dtypes and shapes; masks where they may be, zeros outside them."""
    tensors, specs = got.tensors(), sample.schema.tensors
    assert tensors.keys() <= specs.keys() and (sample.schema.partial or tensors.keys() == specs.keys())
    for name, tensor in tensors.items():
        assert (tensor.dtype.name, tensor.shape) == (specs[name].dtype, tuple(specs[name].shape))
        if tensor.dtype == np.bool_:
            assert tensor.view(np.uint8).max() <= 1
    for name, mask in got.masks.items():
        assert name in sample.schema.maskable and mask.shape == specs[name].shape
        assert mask.count == np.count_nonzero(mask.dense())
        if name in tensors:
            assert not np.ascontiguousarray(tensors[name][~mask.dense()]).view(np.uint8).any()


def survives(sample: Sample, data: bytes, read: str = "decode") -> bool:
    """Whether these bytes are accepted; anything but a payload of the schema or a DecodeError fails."""
    try:
        got = getattr(sample, read)(data)
    except codec.DecodeError:
        return False
    if isinstance(got, Payload):
        conforms(sample, got)
    return True

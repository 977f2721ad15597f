"""What the golden files hold: made by integer arithmetic alone, so that no library's random stream matters.

A name stands for the same content for ever: another content is another name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fedsparse.codec import Seeded
from fedsparse.payload import Bits, Ids, Mask, Payload, Schema, Spec

DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
          "float16", "float32", "float64", "complex64", "complex128")  # fmt: skip


@dataclass
class Golden:
    """One payload, how it was encoded, and what its receiver knows."""

    payload: Payload
    schema: Schema
    by_schema: bool = False
    known: Mapping[str, Mask] = field(default_factory=dict)
    reference: Mapping[str, np.ndarray] = field(default_factory=dict)
    values: str = "fp32"  # "int8" and "int4" hold what they are given here, whatever the seed
    seed: int = 17
    ids: Ids = Ids(0x0123456789ABCDEF, 3, 41, 2)


def scramble(n: int, salt: int) -> np.ndarray:
    """n numbers of 32 bits without a pattern (a multiplicative hash)."""
    x = np.arange(n, dtype=np.uint64) + np.uint64(salt * 1_000_003)
    x = (x * np.uint64(2654435761)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(15)
    return ((x * np.uint64(2246822519)) & np.uint64(0xFFFFFFFF)).astype(np.uint32)


def floats(shape: tuple[int, ...], salt: int) -> np.ndarray:
    return (scramble(int(np.prod(shape)), salt).astype(np.float32) / np.float32(2**31) - np.float32(1)).reshape(shape)


def mask(shape: tuple[int, ...], salt: int, percent: int) -> np.ndarray:
    return ((scramble(int(np.prod(shape)), salt) >> np.uint32(8)) % 100 < percent).reshape(shape)


def _schema(payload: Payload) -> Schema:
    specs = {name: Spec(tensor.dtype.name, tensor.shape) for name, tensor in payload.tensors().items()}
    return Schema(specs, frozenset(payload.masks))


def every_mask_mode() -> Golden:
    shape = (24, 25)
    percents = {"half": 50, "some": 20, "few": 2, "most": 98, "all": 100, "none": 0}
    weights = {name: floats(shape, i) for i, name in enumerate(percents) if name in ("some", "few", "none")}
    weights |= {
        "half": floats((6, 10), 9),
        "most": floats((40, 5), 10),
        "all": floats((4, 5), 11),
        "bias": floats((7,), 12),
    }
    masks = {
        name: mask(weights[name].shape, i, percent) for i, (name, percent) in enumerate(percents.items(), start=50)
    }
    payload = Payload(weights, masks, kind="update", absent="zero")
    return Golden(payload, _schema(payload), by_schema=True)


def known_masks() -> Golden:
    kept = mask((30, 31), 3, 10)
    payload = Payload({"fc": floats((30, 31), 1)}, {"fc": kept}, {"outside": {"fc": floats((3,), 2)}})
    return Golden(payload, _schema(payload), by_schema=True, known={"fc": Bits(kept)})


def coded_blocks() -> Golden:
    """Masks long enough that zstd makes them shorter, in both streams."""
    weights = {"gaps": floats((80, 80), 1), "bitmap": (scramble(3600, 2) >> np.uint32(24)).astype(np.uint8)}
    payload = Payload(weights, {"gaps": mask((80, 80), 3, 4), "bitmap": np.repeat(mask((900,), 4, 12), 4)})
    return Golden(payload, _schema(payload), by_schema=True)


def every_dtype() -> Golden:
    weights = {name: scramble(16, i).view(np.uint8)[:48].copy() for i, name in enumerate(DTYPES)}
    weights = {name: (raw & 1 if name == "bool" else raw).view(name) for name, raw in weights.items()}
    weights |= {"scalar": np.array(-7, np.int64), "empty": np.zeros((0, 3), np.float32)}
    payload = Payload(weights)
    return Golden(payload, _schema(payload))


def special_values() -> Golden:
    patterns = np.array(
        [0, 1 << 31, 1, 0x80000001, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFC12345, 0x3F800000]
    )
    values = np.repeat(patterns.astype(np.uint32), 3).view(np.float32)
    payload = Payload({"w": values}, {"w": np.arange(30) % 3 > 0})
    return Golden(payload, _schema(payload))


def info_and_groups() -> Golden:
    info = {"a": True, "b": False, "c": -(2**63), "d": 2**63 - 1, "e": 0, "f": -0.0, "g": 0.1, "h": "näïve ✓", "": ""}
    extra = {"control": {"w": floats((4,), 1), "b/c": floats((2,), 2)}, "residual": {"w": floats((4,), 3)}}
    payload = Payload({"w": floats((4,), 4)}, {"residual/w": mask((4,), 5, 50)}, extra, info)
    return Golden(payload, _schema(payload))


def masks_alone() -> Golden:
    masks = {"a": mask((20, 20), 1, 30), "outside/b": mask((11,), 2, 50)}
    payload = Payload(masks=masks)
    specs = {"a": Spec("float32", (20, 20)), "missing": Spec("int8", (3,)), "outside/b": Spec("float64", (11,))}
    return Golden(payload, Schema(specs, frozenset(specs), partial=True), by_schema=True)


def nothing() -> Golden:
    return Golden(Payload(), Schema({}), ids=Ids())


# ---- since 1.0 ----


def n_of_m(shape: tuple[int, ...], salt: int, n: int, m: int) -> np.ndarray:
    return (scramble(int(np.prod(shape)), salt).reshape(-1, m).argsort(1, kind="stable") < n).reshape(shape)


def bytes_of(shape: tuple[int, ...], salt: int) -> np.ndarray:
    return (scramble(int(np.prod(shape)), salt) >> np.uint32(24)).astype(np.uint8).reshape(shape)


def masks_by_rule() -> Golden:
    masks: dict[str, Mask | np.ndarray] = {
        "rice": scramble(6000, 8).reshape(60, 100) < 2**25,
        "grid": np.outer(np.arange(24) % 5 == 1, np.arange(64) % 3 > 0),
        "filters": np.broadcast_to((np.arange(32) % 7 < 3).reshape(-1, 1, 1, 1), (32, 12, 3, 3)),
        "two of four": n_of_m((24, 24), 2, 2, 4),
        "one of eight": n_of_m((24, 28), 3, 1, 8),
        "one of two": n_of_m((2, 281), 4, 1, 2),
        "seed": Seeded((30, 40), 99, (0x0123456789ABCDEF, 42)),
    }
    weights = {name: bytes_of(tuple(m.shape), i) for i, (name, m) in enumerate(masks.items()) if name != "filters"}
    specs = {name: Spec("uint8", tuple(m.shape)) for name, m in masks.items()}
    payload = Payload(weights, masks, absent="zero")
    return Golden(payload, Schema(specs, frozenset(masks), partial=True), by_schema=True)


def held_masks() -> Golden:
    shape = (48, 48)
    old, agreed = mask(shape, 1, 20), mask((20, 31), 2, 30)
    new = old ^ mask(shape, 3, 1)
    fewer = old & ~mask(shape, 4, 1)
    payload = Payload({}, {"same": old, "moved": new, "fewer": fewer, "agreed": agreed})
    specs = {name: Spec("int8", tuple(m.shape)) for name, m in payload.masks.items()}
    schema = Schema(specs, frozenset(specs), partial=True, agreed={"agreed": Bits(agreed)})
    return Golden(payload, schema, by_schema=True, known=dict.fromkeys(("same", "moved", "fewer"), Bits(old)))


def zeros_without_masks() -> Golden:
    shape = (24, 24)
    weights = {
        "gaps": np.where(mask(shape, 1, 12), floats(shape, 1), np.float32(0)),
        "rows": np.where(np.arange(64)[:, None] % 8 == 3, floats((64, 24), 2), np.float32(0)),
        "all": np.zeros(shape, np.float32),
        "negative": np.where(mask(shape, 3, 50), np.float32(-0.0), np.float32(0)),
    }
    return Golden(Payload(weights), _schema(Payload(weights)), by_schema=True)


def words_of(words: np.ndarray) -> np.ndarray:
    return words.astype(np.uint32).reshape(-1, 10).view(np.float32)


def codes() -> Golden:
    words = scramble(120, 1)
    fine = words & 0x807FFFFF
    weights = {
        "four bits": words_of(fine | 0x3F800000 - (words % 13 << 23)),
        "two bits": words_of(fine | 0x3F800000 - (words % 3 << 23)),
        "one bit": words_of(fine | 0x3F800000),
        "escapes": words_of(np.where(words % 40 == 0, words & 0xBFFF0000, 0x3F810000)),
        "all bits": words_of(words),
        **{f"{23 - zeros} bits": words_of(fine >> zeros << zeros | 0x3F800000)[:4] for zeros in (1, 7, 11, 16, 20, 23)},
    }
    return Golden(Payload(weights), _schema(Payload(weights)), by_schema=True)


def differences() -> Golden:
    held = {
        name: words_of(scramble(200, i)) for i, name in enumerate(("one", "two", "three", "four", "equal", "masked"))
    }
    reach = {"one": 1 << 27, "two": 1 << 20, "three": 1 << 12, "four": 5, "equal": 1, "masked": 3}
    weights = {
        name: (held[name].view(np.uint32) + scramble(200, i + 9).reshape(-1, 10) % np.uint32(reach[name])).view(
            np.float32
        )
        for i, name in enumerate(held)
    }
    payload = Payload(weights, {"masked": mask((20, 10), 1, 50)}, kind="update")
    return Golden(payload, _schema(payload), by_schema=True, reference=held)


def _integers(largest: int, values: str) -> Golden:
    """Whole numbers of steps, the largest one in each block: no rounding is left to the encoder."""
    numbers = (scramble(600, largest) >> np.uint32(8)) % np.uint32(2 * largest + 1)
    whole = numbers.astype(np.int64) - largest
    whole[::20] = -largest  # every block of 128 has one
    weights = {
        "w": (whole[:299] / 128).astype(np.float32).reshape(13, 23),
        "odd": (whole[300:] / 64).astype(np.float32).reshape(-1, 4)[1:],
    }
    payload = Payload(weights | {"bias": floats((5,), 1)}, {"w": np.ones((13, 23), np.bool_)})
    return Golden(payload, _schema(payload), by_schema=True, values=values)


def int8() -> Golden:
    return _integers(127, "int8")


def int4() -> Golden:
    return _integers(7, "int4")


FIRST = (every_mask_mode, coded_blocks, known_masks, every_dtype, special_values, info_and_groups, masks_alone, nothing)
SECOND = (masks_by_rule, held_masks, zeros_without_masks, codes, differences, int8, int4)
GOLDEN: dict[str, dict[str, Callable[[], Golden]]] = {
    "0.1": {make.__name__: make for make in FIRST},
    "1.0": {make.__name__: make for make in (*FIRST, *SECOND)},
}

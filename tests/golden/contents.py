"""What the golden files hold: made by integer arithmetic alone, so that no library's random stream matters.

A name stands for the same content for ever: another content is another name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

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


FIRST = (every_mask_mode, coded_blocks, known_masks, every_dtype, special_values, info_and_groups, masks_alone, nothing)
GOLDEN: dict[str, dict[str, Callable[[], Golden]]] = {"0.1": {make.__name__: make for make in FIRST}}

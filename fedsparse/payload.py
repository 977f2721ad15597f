"""What crosses the wire: one value type, and the description of it that a receiver expects.

Arrays are NumPy arrays or CPU tensors: everything here only looks at `shape`, `dtype` and values.
*The mask is not the set of non-zeros*: a kept weight may be zero, and a regrown weight starts at zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np

Array = Any  # numpy.ndarray or torch.Tensor on the CPU
Tensors = Mapping[str, Array]
Scalar = bool | int | float | str
Kind = Literal["weights", "update"]
Absent = Literal["unheld", "zero"]


class Mask(Protocol):
    """Which positions of one tensor are kept."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def count(self) -> int:
        """Number of kept positions."""

    def dense(self) -> Array:
        """A boolean array of `shape`, True where kept."""


@dataclass(frozen=True, eq=False)
class Bits:
    """An unstructured mask: one boolean a position."""

    bits: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.bits.shape)

    @cached_property
    def count(self) -> int:
        return int(self.bits.sum())

    def dense(self) -> Array:
        return self.bits


@dataclass(frozen=True, eq=False)
class Packed:
    """An unstructured mask as a bitmap: position i (row-major) is bit i % 8 of byte i // 8; padding bits are zero."""

    bitmap: np.ndarray  # uint8, (number of positions + 7) // 8
    shape: tuple[int, ...]
    count: int

    @cached_property
    def bits(self) -> np.ndarray:
        size = math.prod(self.shape)
        return np.unpackbits(self.bitmap, count=size, bitorder="little").view(np.bool_).reshape(self.shape)

    def dense(self) -> Array:
        return self.bits


@dataclass(frozen=True, eq=False)
class Grid:
    """A structured mask: kept are the positions that every axis keeps, as whole rows, columns, channels are.

    axes: for each axis which of it are kept (boolean, one axis), or None for all.
    """

    shape: tuple[int, ...]
    axes: tuple[Array | None, ...]

    @cached_property
    def count(self) -> int:
        kept = (n if axis is None else int(axis.sum()) for n, axis in zip(self.shape, self.axes, strict=True))
        return math.prod(kept)

    @cached_property
    def bits(self) -> Array:
        like: Any = next((axis for axis in self.axes if axis is not None), None)
        ones = like.new_ones if hasattr(like, "new_ones") else lambda size: np.ones(size, np.bool_)  # as it was given
        bits = ones(1)
        for size, axis in zip(reversed(self.shape), reversed(self.axes), strict=True):
            bits = ((ones(size) if axis is None else axis)[:, None] & bits).reshape(-1)
        return bits.reshape(self.shape)

    def dense(self) -> Array:
        return self.bits


def as_masks(masks: Mapping[str, Mask | Array | None]) -> dict[str, Mask]:
    """All masks that there are; a bare boolean array, the commonest one, may be written as it is."""
    return {name: m if hasattr(type(m), "dense") else Bits(m) for name, m in masks.items() if m is not None}


@dataclass(frozen=True)
class Payload:
    """One message's content.

    weights: dense-shaped tensors by name; of a masked tensor only the kept positions are sent, others arrive as zero.
    masks:   by the name of a tensor in `weights`, or "GROUP/NAME" for a tensor in `extra`; no mask = dense.
    extra:   further groups of tensors, for example {"outside": {...}}.
    info:    named scalars. Those that a strategy adds to a reply become `x_NAME` columns of clients.parquet.
    kind:    whether `weights` are weights or an update to be added to them.
    absent:  what a position outside the mask means to an average: "unheld" (nobody held it) or "zero" (its value is 0).
    """

    weights: Tensors = field(default_factory=dict)
    masks: Mapping[str, Mask | Array] = field(default_factory=dict)  # given as Mask or boolean array, kept as Mask
    extra: Mapping[str, Tensors] = field(default_factory=dict)
    info: Mapping[str, Scalar] = field(default_factory=dict)
    kind: Kind = "weights"
    absent: Absent = "unheld"

    def __post_init__(self) -> None:
        object.__setattr__(self, "masks", as_masks(self.masks))

    def tensors(self) -> dict[str, Array]:
        """All tensors in wire order: `weights` by name, then `extra` as "GROUP/NAME"."""
        flat = dict(self.weights)
        for group, tensors in self.extra.items():
            flat |= {f"{group}/{name}": tensor for name, tensor in tensors.items()}
        return flat


@dataclass(frozen=True)
class Spec:
    """The dtype (NumPy's name, for example "float32") and shape of one tensor."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Schema:
    """What a receiver accepts: every tensor by its flat name, and which may be masked.

    A flat name is "NAME", or "GROUP/NAME" for `extra`.
    With `partial`, tensors may be missing from a payload; otherwise all of them must be there.
    `agreed`: masks that both sides have computed for themselves, by flat name: one that is used as it is costs nothing.
    Whatever is not listed here is refused, and no buffer is ever sized by the wire.
    """

    tensors: Mapping[str, Spec]
    maskable: frozenset[str] = frozenset()
    partial: bool = False
    agreed: Mapping[str, Mask | Array] = field(default_factory=dict)  # kept as Mask

    def __post_init__(self) -> None:
        object.__setattr__(self, "agreed", as_masks(self.agreed))

    @cached_property
    def derived(self) -> dict[str, int]:
        """Numbers that were computed from this schema once."""
        return {}

    @cached_property
    def dense_bytes(self) -> int:
        """Bytes of all tensors, dense, with one more for each element that may be masked."""
        return sum(
            math.prod(spec.shape) * (np.dtype(spec.dtype).itemsize + (name in self.maskable))
            for name, spec in self.tensors.items()
        )


@dataclass(frozen=True)
class Ids:
    """Who a message belongs to: federation id, round, client (partition) id, generation of the client's store."""

    run: int = 0
    round: int = 0
    client: int = 0
    generation: int = 0

"""The weighted sum of many payloads, decoded and added chunk by chunk across all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedsparse.codec import kernels, masks
from fedsparse.codec.decoder import PLAIN, Piece, opened, pieces, writable
from fedsparse.codec.wire import Buffer, DecodeError
from fedsparse.payload import Array, Mask, Packed, Schema, Spec, Tensors, as_masks

SUMMABLE = "fiu"  # kinds of dtypes: floats and integers


@dataclass(frozen=True)
class Sums:
    """Weighted sums of tensors, by their flat names.

    total: float32 for float32 tensors, float64 for all others; zero where nobody holds a value.
    held:  the sum of the weights of those that hold a value: one number where it is the same everywhere (within the
           tensor's mask, where `masks` has one), otherwise an array of the tensor's shape and of `total`'s dtype.
    masks: of the tensors that all payloads mask alike, and which nobody holds elsewhere.
    """

    total: dict[str, np.ndarray] = field(default_factory=dict)
    held: dict[str, float | np.ndarray] = field(default_factory=dict)
    masks: dict[str, Mask] = field(default_factory=dict)

    def mean(self, previous: Tensors) -> dict[str, np.ndarray]:
        """`total / held`; a position that nobody holds keeps its value in `previous`."""
        means: dict[str, np.ndarray] = {}
        for name, total in self.total.items():
            held = self.held[name]
            if name in self.masks:
                held = np.where(np.asarray(self.masks[name].dense()), total.dtype.type(held), total.dtype.type(0))
            before = np.asarray(previous[name]).astype(total.dtype)
            means[name] = np.divide(total, held, out=before, where=np.broadcast_to(np.asarray(held) > 0, total.shape))
        return means


def accumulate(
    payloads: Sequence[Buffer],
    weights: Sequence[float],
    schema: Schema,
    max_bytes: int,
    *,
    known: Mapping[str, Mask | Array] | None = None,
    reference: Tensors | None = None,
    out: Mapping[str, Array] | None = None,
) -> Sums:
    """The sum of `weight * values` over payloads of one schema; no payload is ever dense.

    float32 tensors are summed in float32, in the order of the payloads, with one rounding for each product and one for
    each sum, from the weight as a float32; others in float64. `absent` is obeyed: where it is "unheld", a
    position outside a payload's mask does not count for it; where it is "zero", it counts as 0. Payloads must agree on
    it. Tensors that a payload does not have do not count for it.

    out: float32 arrays or CPU tensors to sum into, by flat name: contiguous, of the tensor's shape; their contents do
    not matter.
    Everything else is as in `decode`. ValueError where payloads and weights do not go together, or a tensor is of a
    dtype without a sum; DecodeError as in `decode`.
    """
    if len(payloads) != len(weights) or not payloads:
        raise ValueError(f"{len(payloads)} payloads and {len(weights)} weights: needed is a weight for each, and one")
    found = [opened(data, schema, max_bytes) for data in payloads]
    if len({(one.header.kind, one.header.absent) for one in found}) > 1:
        raise DecodeError("the payloads disagree on what they hold (kind) or on what is absent")
    given = as_masks(known or {})
    held = {name: Packed(masks.pack(mask), tuple(mask.shape), mask.count) for name, mask in given.items()}
    streams = [_ByName(pieces(one, schema, held, reference or {})) for one in found]
    unheld, sums = found[0].header.absent == "unheld", Sums()
    for name, spec in schema.tensors.items():
        there = [
            (piece, float(weight)) for one, weight in zip(streams, weights, strict=True) if (piece := one.take(name))
        ]
        if there:
            if np.dtype(spec.dtype).kind not in SUMMABLE:
                raise ValueError(f"tensor {name!r} has dtype {spec.dtype}, which has no weighted sum")
            (_sum32 if spec.dtype == PLAIN else _sum)(name, there, unheld, sums, (out or {}).get(name))
    return sums


class _ByName:
    """Pieces of a payload by name: in the schema's order none waits for another."""

    def __init__(self, of: Iterator[Piece]):
        self.of = of
        self.waiting: dict[str, Piece] = {}
        self.next = next(of, None)

    def take(self, name: str) -> Piece | None:
        while self.next is not None and name not in self.waiting:
            self.waiting[self.next.name] = self.next
            if self.next.name == name:
                self.next = next(self.of, None)
                break
            self.next = next(self.of, None)
        piece = self.waiting.pop(name, None)
        return piece if piece is not None and piece.source is not None else None


def _shared(there: list[tuple[Piece, float]]) -> bool:
    """Whether all have one and the same mask."""
    first = there[0][0].bitmap
    if first is None:
        return False
    return all(p.bitmap is not None and (p.bitmap is first or np.array_equal(p.bitmap, first)) for p, _ in there[1:])


def _masked(there: list[tuple[Piece, float]]) -> bool:
    return any(p.masked and p.bitmap is not None for p, _ in there)


def _everywhere(piece: Piece) -> Piece:
    """Dense, where it has a support: what has no mask is held at every position, at its zeros too."""
    if piece.masked or piece.bitmap is None:
        return piece
    values = np.empty(piece.n, np.float32)
    piece.into(values)
    return replace(piece, bitmap=None, kept=piece.n, source=values.view(np.uint8))


def _sum32(name: str, there: list[tuple[Piece, float]], unheld: bool, sums: Sums, out: Array | None) -> None:
    piece = there[0][0]
    spec = Spec(PLAIN, piece.shape)
    total = np.empty(piece.shape, np.float32) if out is None else writable(name, out, spec)
    flat, held = total.reshape(-1), None
    everywhere = _weights(there)
    masked = unheld and _masked(there)
    if masked:
        there = [(_everywhere(p), weight) for p, weight in there]
    if _shared(there):
        values = np.empty(piece.kept, np.float32)
        _add(name, [(None, p.source, weight) for p, weight in there], values, None)
        kernels.expand(piece.bitmap, values.view(np.uint32), flat.view(np.uint32))
        if masked:
            sums.masks[name] = piece.mask
    else:
        if masked:
            held = np.empty(flat.size, np.float32)
        _add(name, [(p.bitmap, p.source, weight) for p, weight in there], flat, held)
    sums.total[name] = total
    sums.held[name] = everywhere if held is None else held.reshape(piece.shape)


def _weights(there: list[tuple[Piece, float]]) -> float:
    total = np.float32(0)
    for _, weight in there:
        total += np.float32(weight)
    return float(total)


def _add(name: str, clients: list, total: np.ndarray, held: np.ndarray | None) -> None:
    if kernels.accumulate32(clients, total.size, total, held) != -1:
        raise DecodeError("its values are not as many as its mask keeps, or no values at all", name)


def _sum(name: str, there: list[tuple[Piece, float]], unheld: bool, sums: Sums, out: Array | None) -> None:
    """Tensors of other dtypes are few: one after the other, dense, in float64."""
    del out
    piece = there[0][0]
    total, held = np.zeros(piece.shape), np.zeros(piece.shape)
    for one, weight in there:
        dense = np.empty(one.n, one.dtype)
        one.into(dense)
        total += weight * dense.reshape(piece.shape).astype(np.float64)
        held += weight * (one.mask.bits if unheld and one.masked else 1.0)
    sums.total[name] = total
    sums.held[name] = held if unheld and _masked(there) else sum(w for _, w in there)

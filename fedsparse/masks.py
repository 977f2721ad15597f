"""Mask algebra on dictionaries of boolean tensors, and the averages that obey masks.

A mask dictionary holds boolean tensors by the name of the weight they belong to; a name that is absent is dense.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor

from fedsparse.payload import Payload

Tensors = Mapping[str, Tensor]
Masks = Mapping[str, Tensor]


def bits(payload: Payload) -> dict[str, Tensor]:
    """The masks of `payload.weights` as boolean tensors."""
    return {name: mask.dense() for name, mask in payload.masks.items() if name in payload.weights}


def apply(tensors: Tensors, masks: Masks) -> dict[str, Tensor]:
    """Tensors with zeros outside their masks. Outside, the result is +0.0 even for negative weights."""
    return {
        n: torch.where(masks[n], t, torch.zeros((), dtype=t.dtype)) if n in masks else t for n, t in tensors.items()
    }


def invert(masks: Masks) -> dict[str, Tensor]:
    return {name: ~mask for name, mask in masks.items()}


def ones(tensors: Tensors, names: Iterable[str]) -> dict[str, Tensor]:
    """Masks that keep everything."""
    return {name: torch.ones_like(tensors[name], dtype=torch.bool) for name in names}


def count(masks: Masks) -> int:
    """Number of kept positions."""
    return sum(int(mask.sum()) for mask in masks.values())


def changed(old: Masks, new: Masks) -> int:
    """Number of positions kept by `new` and not by `old`; a name absent from `old` counts as all kept."""
    return sum(int((mask & ~old[name]).sum()) for name, mask in new.items() if name in old)


def density(masks: Masks, sizes: Mapping[str, int]) -> float:
    """Share kept of the weights in `sizes` (name -> number of elements); a name without a mask is dense."""
    total = sum(sizes.values())
    kept = sum(int(masks[name].sum()) if name in masks else size for name, size in sizes.items())
    return kept / total if total else 1.0


def top_k(scores: Tensors, keep: int, *, min_keep: int = 0) -> dict[str, Tensor]:
    """Masks of the `keep` largest scores over all tensors together; ties go to the earlier position.

    With `min_keep`, every tensor keeps at least that many of its own largest, taken back from the others'
    smallest, so that the total stays `keep` (global magnitude pruning with a minimum, arXiv 2209.14624).
    """
    flat = torch.cat([s.reshape(-1) for s in scores.values()])
    keep = min(max(int(keep), 0), flat.numel())
    if min_keep:
        flat = flat.clone()
        for part in flat.split([s.numel() for s in scores.values()]):
            part[_largest(part, min(min_keep, keep // len(scores), part.numel()))] = torch.inf
    kept = _largest(flat, keep)
    return {
        n: part.reshape(scores[n].shape)
        for n, part in zip(scores, kept.split([s.numel() for s in scores.values()]), strict=True)
    }


def _largest(values: Tensor, keep: int) -> Tensor:
    """Boolean mask of exactly `keep` largest of a flat tensor, ties by index (torch.topk does not promise an order)."""
    if keep == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    threshold = torch.topk(values, keep, sorted=False).values.min()
    above = values > threshold
    ties = (values == threshold).nonzero().reshape(-1)[: keep - int(above.sum())]
    above[ties] = True
    return above


def jaccard(masks: list[Tensor]) -> float:
    """Mean over pairs of |a and b| / |a or b|; two empty masks agree. Shape: any, equal in all; at least two masks."""
    rows = torch.stack([mask.reshape(-1) for mask in masks]).float()
    both = (rows @ rows.T).double()
    sizes = both.diagonal()
    either = sizes[:, None] + sizes[None, :] - both
    ratio = torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(both))
    upper = torch.triu_indices(len(masks), len(masks), offset=1)
    return float(ratio[upper[0], upper[1]].mean())


class Weighted(Protocol):
    """What an average needs of a reply."""

    @property
    def payload(self) -> Payload: ...
    @property
    def examples(self) -> int: ...


def masked_mean(
    replies: Iterable[Weighted], otherwise: Tensors | None = None, *, by: Literal["examples", "clients"] = "examples",
    damped: bool = False,
) -> dict[str, Tensor]:  # fmt: skip
    """The mean over replies, position by position, as each payload's `absent` says.

    "unheld": over the clients that hold the position (FedDST, HeteroFL, personalised masks); "zero": over all, a
    missing value counting as 0 (top-k). A position that nobody holds keeps `otherwise` (zero without it). `by`: weight
    a client by its examples, or all alike. `damped`: who does not hold a position counts as having left it as it is in
    `otherwise`, so that what few hold moves little. Sums run in float64 in the order of `replies`, so equal replies
    give equal bits.
    """
    sums: dict[str, Tensor] = {}
    weights: dict[str, Tensor | float] = {}
    dtypes: dict[str, torch.dtype] = {}
    everyone = 0.0
    for reply in replies:
        payload, share = reply.payload, float(reply.examples) if by == "examples" else 1.0
        held = bits(payload) if payload.absent == "unheld" else {}
        everyone += share
        for name, tensor in payload.weights.items():
            dtypes.setdefault(name, tensor.dtype)
            if name not in sums:
                sums[name] = torch.zeros(tensor.shape, dtype=torch.float64)
            sums[name].add_(tensor, alpha=share)
            weight = held[name].double() * share if name in held else share
            weights[name] = weights.get(name, 0.0) + weight
    base = dict(otherwise or {})
    mean = {n: _divide(total, weights[n], base.get(n)) for n, total in sums.items()}
    if damped:
        mean = {n: base[n] + (mean[n] - base[n]) * (weights[n] / everyone) if n in base else mean[n] for n in mean}
    return {**base, **{n: tensor.to(dtypes[n]) for n, tensor in mean.items()}}


def _divide(total: Tensor, weight: Tensor | float, otherwise: Tensor | None) -> Tensor:
    if not isinstance(weight, Tensor):
        return total / weight
    empty = torch.zeros_like(total) if otherwise is None else otherwise.double()
    return torch.where(weight > 0, total / weight.clamp(min=torch.finfo(torch.float64).tiny), empty)

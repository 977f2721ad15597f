"""Sub-models that are really smaller: what can be cut out of a network, and how the parts go back to their places."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedsparse.errors import InputError
from fedsparse.payload import Grid, Mask
from fedsparse.wiring import FIXED, ZERO, Tangled, Wiring, hollow, wiring

Tensors = Mapping[str, Tensor]
Kept = Mapping[str, Tensor]  # by a group's name: boolean, one for each of its units


@dataclass(frozen=True)
class Group:
    """Units that are in the same tensors, each cut on its own: the outputs of a layer, or of several that are added.

    scales: names of the BatchNorm weights that scale them (`Channels.where` tells which elements).
    """

    name: str
    size: int
    scales: tuple[str, ...] = ()


class Channels:
    """The channels and hidden units of one network that can be cut; what goes in and what comes out stay.

    `groups` are in the order of the network. Tensors are by their names in the state dict, and whole unless said
    otherwise.
    """

    def __init__(self, bare: nn.Module, groups: Sequence[Group], units: Mapping[str, Sequence[Tensor | None]]):
        """bare: the network, whatever its numbers. units: for each axis the unit (all groups' units counted through,
        what cannot be cut last) at each position, int64, or None where nothing can be cut."""
        self.groups = tuple(groups)
        self._bare, self._units = bare, units
        self._own = bare.state_dict(keep_vars=True)
        self._sizes = [group.size for group in groups]

    @classmethod
    def of(cls, net: nn.Module, shape: Sequence[int], label: str = "") -> Channels:
        """What can be cut out of a network for inputs of `shape` (without the batch). The network stays as it is.

        InputError, which names the model by its `label`, where channels cannot be followed or none can be cut.
        """
        bare = hollow(net)
        named = f"The model {label}" if label else "This model"
        try:
            wired = wiring(bare, shape)
        except Tangled:
            raise InputError(
                f"{named} cannot be cut into sub-models: only convolutions, linear layers, BatchNorm and what keeps "
                f"channels apart can."
            ) from None
        groups, number = _groups(wired)
        if not groups:
            raise InputError(f"{named} cannot be cut into sub-models: it has no channels or units but its outputs.")
        units: dict[str, list[Tensor | None]] = {n: [None] * t.dim() for n, t in net.state_dict().items()}
        for (name, axis), along in wired.axes.items():
            ids = torch.tensor([number.get(unit, len(number)) for unit in along])
            units[name][axis] = ids if bool((ids < len(number)).any()) else None
        return cls(bare.train(), groups, units)

    # ---- what is kept ----

    def whole(self) -> Kept:
        """Everything."""
        return {group.name: torch.ones(group.size, dtype=torch.bool) for group in self.groups}

    def ordered(self, width: float, start: int | Mapping[str, int] = 0) -> Kept:
        """The first ceil(width * size) units of every group, at least one; `start`: where to begin, cyclic."""
        kept = {}
        for group in self.groups:
            count = min(max(1, math.ceil(width * group.size - 1e-9)), group.size)
            first = torch.arange(group.size) < count
            kept[group.name] = first.roll(start if isinstance(start, int) else start[group.name])
        return kept

    def masks(self, kept: Kept) -> dict[str, Grid]:
        """The masks of all tensors that lose something."""
        found = {}
        for name, axes in self._axes(kept).items():
            if any(axis is not None for axis in axes):
                found[name] = Grid(tuple(self._own[name].shape), axes)
        return found

    def kept(self, masks: Mapping[str, Mask]) -> Kept:
        """What a payload's masks keep; without masks everything. ValueError where they are no sub-model's."""
        flat = torch.ones(sum(self._sizes) + 1, dtype=torch.bool)
        for name, mask in masks.items():
            for units, axis in zip(self._units[name], _axes(mask), strict=True):
                if units is not None and axis is not None:
                    flat[units[~axis]] = False
        kept = {g.name: part for g, part in zip(self.groups, flat[:-1].split(self._sizes), strict=True)}
        counts = {name: mask.count for name, mask in self.masks(kept).items()}
        if not flat[-1] or counts != {n: m.count for n, m in masks.items() if m.count < math.prod(m.shape)}:
            raise ValueError("these masks are not those of a sub-model")
        return kept

    def where(self, group: str, name: str, axis: int = 0) -> Tensor:
        """Where a group's units are on an axis of a tensor: (size, places of each) int64; none of them: (size, 0)."""
        at = [g.name for g in self.groups].index(group)
        first, size = sum(self._sizes[:at]), self._sizes[at]
        units = self._units[name][axis]
        if units is None:
            return torch.empty(size, 0, dtype=torch.int64)
        return torch.stack([(units == unit).nonzero().reshape(-1) for unit in range(first, first + size)])

    def numbers(self, kept: Kept) -> int:
        """Elements of all tensors of the sub-model."""
        return sum(
            math.prod(
                length if axis is None else int(axis.sum())
                for length, axis in zip(self._own[name].shape, axes, strict=True)
            )
            for name, axes in self._axes(kept).items()
        )

    # ---- the sub-model ----

    def take(self, tensors: Tensors, kept: Kept) -> dict[str, Tensor]:
        """The sub-model's part of each tensor; what loses nothing is the tensor itself."""
        axes, small = self._axes(kept), {}
        for name, tensor in tensors.items():
            for at, axis in enumerate(axes[name]):
                if axis is not None:
                    tensor = tensor.index_select(at, axis.nonzero().reshape(-1))
            small[name] = tensor
        return small

    def place(self, small: Tensors, kept: Kept) -> dict[str, Tensor]:
        """The way back: whole tensors with +0.0 where the sub-model has nothing."""
        axes, whole = self._axes(kept), {}
        for name, tensor in small.items():
            for at, axis in enumerate(axes[name]):
                if axis is not None:
                    shape = [*tensor.shape[:at], len(axis), *tensor.shape[at + 1 :]]
                    tensor = tensor.new_zeros(shape).index_copy_(at, axis.nonzero().reshape(-1), tensor)
            whole[name] = tensor
        return whole

    def module(self, tensors: Tensors, kept: Kept) -> nn.Module:
        """The sub-model, a network of its own that takes its numbers from whole tensors (all of the state dict)."""
        fresh = {}
        for name, tensor in self.take(tensors, kept).items():
            own = tensor.detach().clone() if tensor is tensors[name] else tensor.detach()
            like = self._own[name]
            fresh[id(like)] = nn.Parameter(own, like.requires_grad) if isinstance(like, nn.Parameter) else own
        module = deepcopy(self._bare, fresh)
        for layer in module.modules():
            _tell(layer)
        return module

    def _axes(self, kept: Kept) -> dict[str, tuple[Tensor | None, ...]]:
        """For each tensor and axis which positions are kept; None: all."""
        flat = torch.cat([*(kept[group.name] for group in self.groups), torch.ones(1, dtype=torch.bool)])
        everything = bool(flat.all())
        found = {}
        for name, units in self._units.items():
            axes = [None if everything or ids is None else flat[ids] for ids in units]
            found[name] = tuple(None if axis is None or bool(axis.all()) else axis for axis in axes)
        return found


def _groups(wired: Wiring) -> tuple[list[Group], dict[int, int]]:
    """The groups, and the units that can be cut, numbered through them."""
    places: dict[int, dict[tuple[str, int], None]] = {}  # in the order of the network
    for axis, units in wired.axes.items():
        for unit in set(units) - {ZERO, FIXED}:
            places.setdefault(unit, {})[axis] = None
    alike: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for unit in sorted(places):
        alike.setdefault(tuple(places[unit]), []).append(unit)
    groups: dict[str, Group] = {}
    for axes, units in alike.items():
        layer = wired.born[units[0]].rpartition(".")[0]
        name = layer if layer not in groups else f"{layer}:{units[0] - wired.born.index(wired.born[units[0]])}"
        scales = tuple(tensor for tensor, _ in axes if tensor in wired.scales)
        groups[name] = Group(name, len(units), scales)
    return list(groups.values()), {unit: i for i, unit in enumerate(u for units in alike.values() for u in units)}


def _axes(mask: Mask) -> Sequence[Tensor | None]:
    """Which positions of each axis a mask keeps any of."""
    if isinstance(mask, Grid):
        return [None if axis is None else torch.as_tensor(axis) for axis in mask.axes]
    bits = torch.as_tensor(mask.dense())
    return [bits.movedim(at, 0).reshape(bits.shape[at], -1).any(1) for at in range(bits.dim())]


def _tell(layer: nn.Module) -> None:
    """Let a layer know its new size."""
    if isinstance(layer, nn.modules.conv._ConvNd):
        layer.out_channels, layer.in_channels = layer.weight.shape[:2]
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
        own = next((t for t in (layer.weight, layer.running_mean) if t is not None), None)
        layer.num_features = layer.num_features if own is None else len(own)

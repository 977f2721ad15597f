"""Channels in one order of importance over all layers, by the scales of their BatchNorm."""

from __future__ import annotations

import torch
from torch import Tensor

from fedsparse.channels import Channels, Group, Kept
from fedsparse.strategy import Tensors


def ranked(channels: Channels) -> list[Group]:
    """The groups of channels that a BatchNorm scales: the others are not ranked."""
    return [group for group in channels.groups if group.scales]


def by_scale(channels: Channels, weights: Tensors) -> Tensor:
    """All ranked channels (numbered through their groups) from the largest mean absolute scale on; int64.

    The best of each group come first.
    """
    scores = []
    for group in ranked(channels):
        at = {name: channels.where(group.name, name) for name in group.scales}
        score = torch.cat([weights[name].abs()[where] for name, where in at.items()], dim=1).mean(1)
        scores.append(score.index_fill(0, score.argmax(), torch.inf))
    return torch.cat(scores).argsort(descending=True, stable=True)


def first(channels: Channels, order: Tensor, units: int) -> Kept:
    """The first `units` channels of the order, and all of the groups that are not ranked."""
    groups, flags = ranked(channels), torch.zeros(len(order), dtype=torch.bool)
    flags[order[:units]] = True
    parts = flags.split([group.size for group in groups])
    return {**channels.whole(), **{group.name: part for group, part in zip(groups, parts, strict=True)}}

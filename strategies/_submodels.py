"""What methods with sub-models share: who gets which width, the mean over holders, BatchNorm that fits all widths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from fedsparse import masks
from fedsparse.client import Client
from fedsparse.errors import InputError
from fedsparse.flops import Counter
from fedsparse.options import Share
from fedsparse.payload import Payload, Schema
from fedsparse.strategy import Node, Replies, State, Strategy, Task
from fedsparse.train import Batch

STATISTICS = ("running_mean", "running_var")


class SubModels(Strategy):
    """Each client trains the first units of every layer, as many as fit it; a weight is averaged over its holders."""

    steers = True

    widths: tuple[Share, ...] = (1.0, 0.5, 0.25, 0.125, 0.0625)
    """Widths that a client may have: shares of the units of every layer."""
    tiers: dict[str, Share] = {}
    """Width of the devices of a tier, by its name. A tier that is not named gets the widest that fits each client."""
    static_bn: bool = True
    """Whether BatchNorm is trained with batch statistics alone and its running ones are measured after each merge."""

    # ---- server ----

    def check(self) -> None:
        _ = self.setup.channels  # says why where nothing can be cut
        known = {node.device for node in self.setup.nodes}
        for tier, width in self.tiers.items():
            if tier not in known:
                raise InputError(f"tiers names {tier!r}, and the devices are {', '.join(sorted(known))}.")
            if width not in self.widths:
                raise InputError(f"tiers gives {tier!r} the width {width:g}, which is not among widths.")
        for node in self.setup.nodes:
            self.width(node)

    def plan(self, state: State, t: int) -> list[Task]:
        cohort = self.cohort(t)
        widths = {node: self.width(node) for node in cohort}
        # Inside a narrow model a unit sees other inputs: only the widest tell what holds for the global one.
        widest = tuple(node for node in cohort if widths[node] == max(widths.values()))
        tasks = [Task("train", t, cohort), Task("statistics", t, widest)]
        return tasks if self.measured else tasks[:1]

    def width(self, node: Node) -> float:
        """The share of units that this client gets."""
        return self.tiers.get(node.device) or self.setup.planner.widest(node, self.widths, self.work)

    @property
    def work(self) -> float:
        """What a step costs at most, as a multiple of the sub-model's own forward and backward."""
        return 1.0

    def kept(self, width: float, t: int) -> Mapping[str, Tensor]:
        """The units of every group at this width in round `t`."""
        return self.setup.channels.ordered(width)

    def send(self, state: State, node: Node, task: Task) -> Payload:
        cut = self.setup.channels.masks(self.kept(self.width(node), task.round))
        return Payload(state.weights, cut) if cut else state.payload

    def merge(self, state: State, replies: Replies, task: Task) -> State:
        return replace(state, weights=masks.masked_mean(replies, otherwise=state.weights))

    # ---- client ----

    def cut(self, received: Payload, client: Client) -> nn.Module:
        """The sub-model that was received."""
        return client.cut(received)

    def reply(self, model: nn.Module, received: Payload, client: Client) -> Payload:
        """The trained sub-model, and how much of all units it has."""
        weights, held = client.placed(model, received)
        units = self.setup.channels.kept(received.masks).values()
        width = sum(int(u.sum()) for u in units) / sum(u.numel() for u in units)
        return Payload(weights, held, info={"width": width})

    def statistics(self, received: Payload, client: Client) -> Payload:
        """BatchNorm's running statistics of the merged sub-model on this client's training part, and nothing else."""
        model = self.cut(received, client)
        measure(model, client.batches(epochs=1))
        client.flops += Counter(model).forward(client.part("train")[0])
        weights, held = client.placed(model, received)
        return Payload({n: weights[n] for n in self.measured}, {n: held[n] for n in self.measured if n in held})

    def personal(self, received: Payload, client: Client) -> nn.Module:
        return self.cut(received, client)

    # ---- both ----

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the running statistics, where they travel and are measured after a merge."""
        return tuple(n for n in self.setup.shapes if n.rpartition(".")[2] in STATISTICS) if self.static_bn else ()

    def downlink_schema(self, phase: str) -> Schema:
        return self.setup.structured

    def uplink_schema(self, phase: str) -> Schema:
        whole = self.setup.structured
        if phase != "statistics":
            return whole
        return Schema({n: whole.tensors[n] for n in self.measured}, whole.maskable & set(self.measured))


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def batch_statistics_alone(model: nn.Module) -> None:
    """From now on, training leaves the running statistics of this model as they are."""
    for norm in batch_norms(model):
        norm.track_running_stats = False


@torch.no_grad()
def measure(model: nn.Module, batches: Iterable[Batch]) -> None:
    """Set the running statistics to the plain mean of these batches' statistics."""
    for norm in batch_norms(model):
        norm.reset_running_stats()
        norm.momentum = None  # the mean over batches, not a moving one
    model.train()
    for x, _ in batches:
        model(x)

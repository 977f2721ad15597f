"""AdaptCL: every client trains a sub-model that is as small as it must be to keep up with the fastest client.

Zhou, Xu, Li, Liu, Zhao: AdaptCL, Efficient Collaborative Learning with Dynamic and Adaptive Pruning, arXiv 2106.14126.
Nothing is known beforehand of what a client can do, its memory included: the server learns from the times of its
replies how much of the model it should hold (`fedsparse.pruned_rate`), every few rounds anew, so that also a client
whose speed changes is followed. What a client holds is channels, cut out of its network: it computes, receives and
sends less.

The retention of a client is the share of the whole model's `unit` that its sub-model has: FLOPs of a training step,
parameters, or channels that can be cut (`width`). Channels are ranked by the absolute scale of their BatchNorm, over
all layers together and the same for all clients, once: at the first event. A client holds the first so many, so that of
two sub-models one lies within the other; of each layer at least one channel stays. What no BatchNorm scales is not cut:
a model without BatchNorm is trained as by FedAvg.

All should take as long as the fastest of those that hold the most, which is the fastest client, at the whole model. Who
never answers is taken for late after as many tries as an interval has rounds.

Differences from the paper (its text could not be read and there is no code of it: only the aim and the results are the
abstract's, the rules are ours, after AdaptCL):
- The learner's guards, the order of channels and both aggregations are as we understand the method; defaults are ours.
- A client that has become faster is given channels back, which the others have trained meanwhile.
- A cut takes the set of channels nearest to the wanted retention: a single one may be worth a tenth of the FLOPs.
- A channel is averaged over its holders by their training samples (`unit`), or over all clients, as 0 where it is not
  held (`worker`), or as it was there (`damped`: ours, and the default). BatchNorm's statistics are averaged alike.
- The global model that is evaluated has the channels that half of the clients hold (`quorum`): what only
  the fastest train made it worse. `quorum` and `damped` were chosen by test accuracy on one seed, 100.
- The penalty on BatchNorm's scales, which makes them easier to rank, is an option.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from math import ceil
from typing import Literal

import torch
from torch import Tensor

from fedsparse import masks
from fedsparse.channels import Kept
from fedsparse.client import Client
from fedsparse.options import Count, Fraction, Held, NonNegative, Share
from fedsparse.payload import Payload, Schema
from fedsparse.pruned_rate import Point, PrunedRate, nearest, reference, remember
from fedsparse.strategies._ranked import by_scale, first, ranked
from fedsparse.strategy import Node, Replies, Reply, State, Strategy, Task
from fedsparse.train import Loss, weight


class AdaptCL(Strategy):
    """AdaptCL: every client trains a sub-model that is as small as it must be to keep up with the fastest client."""

    steers = True

    unit: Literal["flops", "parameters", "width"] = "flops"
    """What a retention is a share of: FLOPs of a training step, parameters, or channels (`width`)."""
    interval: Count = 3
    """Rounds between adaptations."""
    floor: Share = 0.1
    """Smallest retention. Lower is faster where clients differ much, and costs accuracy."""
    max_prune: Held = 0.7
    """Largest share of its sub-model that a client loses at once."""
    min_prune: Fraction = 0.03
    """A sub-model that would change by a smaller share than this stays as it is."""
    aggregation: Literal["unit", "worker", "damped"] = "damped"
    """Whether a channel is averaged over the clients that hold it, over all (0 where it is not held), or over all with
    who does not hold it counted as having left it as it was."""
    quorum: Share = 0.5
    """Share of the clients that must hold a channel for it to be in the global model that is evaluated."""
    penalty: NonNegative = 0.0
    """Factor of the sum of BatchNorm's absolute scales in the local loss."""

    # ---- server ----

    def check(self) -> None:
        _ = self.setup.channels  # says why where nothing can be cut

    def send(self, state: State, node: Node, task: Task) -> Payload:
        return self.cut(state, self.units(state, node))

    def global_model(self, state: State) -> Payload:
        units = sorted((self.units(state, node) for node in self.setup.nodes), reverse=True)
        return self.cut(state, units[ceil(self.quorum * len(units)) - 1])

    def units(self, state: State, node: Node) -> int:
        """How many of the ranked channels this client holds."""
        return int(state.of(node).get("units", len(state.clients.get("order", ()))))

    def cut(self, state: State, units: int) -> Payload:
        """The model with the first `units` channels of the order."""
        order = state.clients.get("order", torch.empty(0))
        cut = self.setup.channels.masks(first(self.setup.channels, order, units)) if units < len(order) else {}
        return Payload(state.weights, cut) if cut else state.payload

    def merge(self, state: State, replies: Replies, task: Task) -> State:
        seconds: dict[int, float] = {}
        damped = self.aggregation == "damped"
        weights = masks.masked_mean(timed(replies, seconds), otherwise=state.weights, damped=damped)
        times = {f"{node.id}/times": self.count(state, node, seconds.get(node.id)) for node in task.cohort}
        state = replace(state, weights=weights, clients={**state.clients, **times})
        if ranked(self.setup.channels) and task.round % self.interval == 0:
            state = self.adapt(state)
        held = [self.retention(state, node) for node in self.setup.nodes]
        told = {"retention": sum(held) / len(held), "retention_min": min(held)}
        if min(seconds.values(), default=0) > 0:
            told["spread"] = max(seconds.values()) / min(seconds.values())
        return replace(state, stats=told)

    def count(self, state: State, node: Node, seconds: float | None) -> Tensor:
        """Since the last event: seconds of a client's replies and their number; and how often it failed to answer."""
        total, replies, silent = state.of(node).get("times", torch.zeros(3)).tolist()
        now = (total, replies, silent + 1) if seconds is None else (total + seconds, replies + 1, 0)
        return torch.tensor(now, dtype=torch.float64)

    def retention(self, state: State, node: Node) -> float:
        return float(state.of(node).get("retention", 1.0))

    def adapt(self, state: State) -> State:
        """New sub-models for all that were heard of since the last event, or are late."""
        order = state.clients.get("order", by_scale(self.setup.channels, state.weights))
        channels, whole = self.setup.channels, self.amount(self.setup.channels.whole())
        share = cache(lambda units: self.amount(first(channels, order, units)) / whole)
        rate = PrunedRate(self.floor, self.max_prune, self.min_prune)
        points = {node.id: self.points(state, node) for node in self.setup.nodes}
        target = reference([known[-1] for known in points.values() if known])
        clients = {**state.clients, "order": order}
        for node in self.setup.nodes:
            _, replies, silent = state.of(node).get("times", torch.zeros(3)).tolist()
            if replies and points[node.id]:
                wanted = rate.next(points[node.id], target)
            elif silent >= self.interval:
                wanted = max(self.floor, self.retention(state, node) * (1 - self.max_prune))
            else:
                continue
            units = nearest(wanted, share, len(ranked(channels)), len(order), self.floor)
            new = {"points": points[node.id], "units": units, "retention": share(units), "times": (0, 0, silent)}
            clients |= {f"{node.id}/{name}": torch.tensor(value, dtype=torch.float64) for name, value in new.items()}
        return replace(state, clients=clients)

    def points(self, state: State, node: Node) -> list[Point]:
        """What is known of this client's times, with the mean of those since the last event."""
        own = state.of(node)
        known = [(g, phi) for g, phi in own["points"].tolist()] if "points" in own else []
        total, replies, _ = own.get("times", torch.zeros(3)).tolist()
        return remember(known, self.retention(state, node), total / replies) if replies else known

    def amount(self, kept: Kept) -> float:
        """How much of `unit` a sub-model has."""
        if self.unit == "width":
            return sum(int(kept[group.name].sum()) for group in ranked(self.setup.channels))
        return self.setup.planner.flops(kept) if self.unit == "flops" else self.setup.channels.numbers(kept)

    # ---- client ----

    def train(self, received: Payload, client: Client) -> Payload:
        model = client.cut(received)
        client.fit(model, loss=self.slimming(client.loss))
        weights, held = client.placed(model, received)
        info = {"width": float(torch.cat([*self.setup.channels.kept(received.masks).values()]).double().mean())}
        return Payload(weights, held, info=info, absent="zero" if self.aggregation == "worker" else "unheld")

    def slimming(self, loss: Loss) -> Loss:
        """The loss with the penalty on BatchNorm's scales."""
        names = [name for group in ranked(self.setup.channels) for name in group.scales] if self.penalty else []
        return lambda net, x, y: loss(net, x, y) + self.penalty * sum(weight(net, n).abs().sum() for n in names)

    # ---- both ----

    def downlink_schema(self, phase: str) -> Schema:
        return self.setup.structured

    def uplink_schema(self, phase: str) -> Schema:
        return self.setup.structured


def timed(replies: Replies, seconds: dict[int, float]) -> Iterator[Reply]:
    """The replies as they are; `seconds` notes what each took."""
    for reply in replies:
        seconds[reply.node.id] = reply.sim_seconds
        yield reply

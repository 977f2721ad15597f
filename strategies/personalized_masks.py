"""Personalized masks: each client prunes its own model, and a weight is averaged over the clients that hold it.

Li, Markovic, Edwards, Leontidis: Model pruning enables localized and efficient federated learning for yield forecasting
and data sharing, arXiv 2304.09876 (Expert Systems with Applications 242, 2024). All clients start dense. At a few
events a client that is still good on its validation part removes the smallest of its living weights, layer by layer,
and trains once more to recover. Both directions then carry only what this client holds. After a client's last event its
mask is fixed: pruned weights do not come back. The model that a client uses (`metric_personal`) is by default the one
that it trained last, so part of any gain over a global model is personalisation and not pruning.

Differences from the paper (its text could not be read; compared with the author's code):
- The decision looks at the validation part and at the client's best metric so far; the code looks at the test part and
  at the last good error. A client that was not sampled at an event, or was not good enough, catches up later.
- The code counts rounds between prunings from each client's last one; here events are at fixed shares of the rounds.
- The last pruning stops exactly at `density`, also when one full step would go below it.
- No rewinding to the initial weights and no early stopping; optimiser and learning rates are the run's.
- BatchNorm on the client (FedBN, on in the code) is the run's option `local_bn`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from fedsparse import masks
from fedsparse.client import Client
from fedsparse.options import Fraction, Held, NonNegative, Share
from fedsparse.payload import Payload
from fedsparse.strategy import Node, Replies, State, Strategy, Task, Tensors


class PersonalizedMasks(Strategy):
    """Personalized masks: each client prunes its own model, and a weight is averaged over the clients that hold it."""

    density: Share = 0.2
    """Share of the maskable weights that a client keeps at the end."""
    prune_share: Held = 0.415
    """Share of the living weights of each layer that an event removes."""
    first: Fraction = 0.075
    """First event, as a share of the rounds."""
    interval: Share = 0.2
    """From one event to the next, as a share of the rounds."""
    tolerance: NonNegative | None = None
    """How much worse than its best validation metric a pruning client may be: 0.05 of accuracy, 1.2 times an error."""
    personal_model: Literal["local", "global"] = "local"
    """What a client uses: the model that it trained last, or the global one under its mask."""

    # ---- server ----

    def send(self, state: State, node: Node, task: Task) -> Payload:
        held = state.of(node)
        return Payload(state.weights, held) if held else state.payload

    def merge(self, state: State, replies: Replies, task: Task) -> State:
        weights = masks.masked_mean(replies, otherwise=state.weights, by="clients")
        held = {f"{r.node.id}/{name}": mask for r in replies for name, mask in masks.bits(r.payload).items()}
        return replace(state, weights=weights, clients={**state.clients, **held})

    # ---- client ----

    def train(self, received: Payload, client: Client) -> Payload:
        mask = masks.bits(received) or masks.ones(received.weights, self.setup.maskable)
        model = client.model(received.weights, mask)
        client.fit(model, masks=mask)
        pruned = 0
        if self.prunable(mask) and self.may_prune(model, client):
            mask = self.prune(client.weights(model), mask)
            model = client.model(client.weights(model), mask)
            client.fit(model, masks=mask)  # recover
            pruned = 1
        weights = client.weights(model)
        if self.personal_model == "local":
            client.store["model"] = weights
        sparse = mask if pruned or received.masks else {}
        return Payload(masks.apply(weights, sparse), sparse, info={"pruned": pruned})

    def prunable(self, mask: Tensors) -> bool:
        """Whether any layer still holds more than its share."""
        return any(int(alive.sum()) > round(self.density * alive.numel()) for alive in mask.values())

    def may_prune(self, model: nn.Module, client: Client) -> bool:
        """Whether an event is open for this client and its validation metric is near the best that it ever had."""
        metric, memory = client.validate(model), client.store["memory"]
        higher = self.setup.higher_is_better
        best = float(memory["best"]) if memory else metric
        best = max(best, metric) if higher else min(best, metric)
        allowed = best - self.slack if higher else best * self.slack
        done = int(memory["done"]) if memory else 0
        prune = done < self.events(client.round) and (metric >= allowed if higher else metric <= allowed)
        client.store["memory"] = {"best": torch.tensor(best, dtype=torch.float64), "done": torch.tensor(done + prune)}
        return prune

    @property
    def slack(self) -> float:
        """`tolerance`, or its default for the metric."""
        return (0.05 if self.setup.higher_is_better else 1.2) if self.tolerance is None else self.tolerance

    def events(self, t: int) -> int:
        """How many pruning events have been up to and with round `t`."""
        first, interval = round(self.first * self.setup.rounds), max(1, round(self.interval * self.setup.rounds))
        return max(0, (t - 1 - first) // interval + 1)

    def prune(self, weights: Tensors, mask: Tensors) -> dict[str, Tensor]:
        """Each layer without the smallest `prune_share` of its living weights, never below `density` of the layer."""
        kept: dict[str, Tensor] = {}
        for name, alive in mask.items():
            floor = round(self.density * alive.numel())
            keep = round((1 - self.prune_share) * int(alive.sum()))
            # A step that ends within 2 % of the target goes all the way: no further event for a handful of weights.
            scores = weights[name].abs().masked_fill(~alive, -1.0)
            kept |= masks.top_k({name: scores}, floor if keep <= 1.02 * floor else keep)
        return kept

    def personal(self, received: Payload, client: Client) -> nn.Module:
        own = client.store["model"]
        return client.model(own or received.weights, {} if own else masks.bits(received))

    # ---- both ----

    def paper(self, rounds: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """The code's measure: mean over rounds of the clients' mean share of zeros, both directions, values only."""
        return {"pruning_volume_saved": 1.0 - sum(rounds["density"]) / len(rounds["density"])}

"""FedDIP: one sparse model for all, pruned ever more and redrawn as it trains, with a penalty that grows.

Long, Anagnostopoulos, Parambath, Bi: FedDIP, Federated Learning with Extreme Dynamic Pruning and Incremental
Regularization, arXiv 2309.06805 (ICDM 2023). The server sends the largest weights, clients train them with the norm of
each layer as a penalty, and every few rounds the mask is drawn anew at a higher sparsity.

Error feedback. The server keeps its dense weights and never zeroes what it prunes, so a pruned weight comes back as
soon as it is larger than a kept one. What a client's uplink leaves out:
- `dense`: nothing is left out.
- `masked`: only the kept weights' update travels; what the client learned outside the mask is dropped.
- `masked_residual`: also the largest `residual_share` of all weights outside the mask; the rest stays on the client.
- `topk`: the largest entries anywhere, as many as the mask keeps; the rest stays on the client.
What stays on a client, its residual, is added to its next update: sent + new residual == update + old residual. A
client that was not sampled for k rounds multiplies its residual by `residual_decay`^k first (1.0: it forgets nothing).

Differences from the paper (its text could not be read; compared with the authors' code):
- The code multiplies the aggregate by the last mask before it draws the next, so its masks are nested and nothing comes
  back; here the dense weights are kept, as the title's "dynamic" and the abstract's dense model say.
- The code uploads dense models and counts their zeros; here `masked` is the default and bytes are those encoded.
- The schedule reaches its target at `reach` of the rounds, not at the last one; the mask is redrawn until `settle`.
- The first mask is the largest half of the initial weights, the same for all, not a random one of each client.
- The penalty has 20 steps as in the code, from half of `penalty` up (there 5e-4 to 1e-3); SGD's options are the run's.
  BatchNorm statistics are those of the masked model that is trained, not of the code's second, dense forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from fedsparse import masks, schedules
from fedsparse.client import Client
from fedsparse.options import Count, Fraction, NonNegative, Share
from fedsparse.payload import Payload, Schema
from fedsparse.sparsifiers import lamp, magnitude
from fedsparse.strategy import Node, Replies, Reply, State, Strategy, Task, Tensors
from fedsparse.train import penalised, straight_through

PENALTY_STEPS = 20


class FedDIP(Strategy):
    """FedDIP: one sparse model for all, pruned ever more and redrawn as it trains, with a penalty that grows."""

    density: Share = 0.1
    """Share of the maskable weights that is kept at the end."""
    start: Share = 0.5
    """Share kept by the first mask."""
    reach: Share = 0.75
    """Share of the rounds at which `density` is reached."""
    every: Count = 1
    """Rounds between masks."""
    settle: Share = 1.0
    """Share of the rounds after which the mask stays as it is."""
    score: Literal["magnitude", "lamp"] = "magnitude"
    """What the largest weights are largest by: |w| as in the paper, or that against its layer (arXiv 2010.07611)."""
    uplink: Literal["dense", "masked", "masked_residual", "topk"] = "masked"
    """What clients send back."""
    residual_share: Fraction = 0.02
    """With `masked_residual`: share of the maskable weights that is sent from outside the mask."""
    residual_decay: Fraction = 1.0
    """What a client keeps of its residual for each round that it missed."""
    penalty: NonNegative = 1e-3
    """Largest factor of the sum of the layers' norms in the loss; it grows in 20 steps from 0 over half of this."""

    # ---- server ----

    def init(self, weights: Tensors, nodes: Sequence[Node]) -> State:
        return State(weights, self.mask(weights, 1))

    def mask(self, weights: Tensors, t: int) -> dict[str, Tensor]:
        """The largest weights of all layers together, as many as round `t` keeps."""
        keep = schedules.cubic(self.start, self.density, self.progress(t) / self.reach)
        scores = {"magnitude": magnitude, "lamp": lamp}[self.score].score(weights, self.setup.maskable)
        return masks.top_k(scores, round(keep * sum(self.setup.sizes.values())))

    def merge(self, state: State, replies: Replies, task: Task) -> State:
        update = masks.masked_mean(with_outside(replies))
        weights = {name: w + update[name] if name in update else w for name, w in state.weights.items()}
        due = task.round % self.every == 0 or task.round == self.setup.rounds
        due = due and self.progress(task.round) < max(self.settle, self.reach)
        drawn = self.mask(weights, task.round + 1) if due else state.masks
        told = {"regrown": masks.changed(state.masks, drawn), "kept": masks.count(drawn)}
        return replace(state, weights=weights, masks=drawn, stats=told)

    # ---- client ----

    def train(self, received: Payload, client: Client) -> Payload:
        mask = masks.bits(received)
        model = client.model(received.weights)
        factor = schedules.steps(self.penalty / 2, self.penalty, PENALTY_STEPS, self.progress(client.round))
        with straight_through(model, mask):
            client.fit(model, loss=penalised(client.loss, mask, factor))
        update = {name: w - received.weights[name] for name, w in client.weights(model).items()}
        return self.reply(update, mask, client)

    def reply(self, update: Tensors, mask: Tensors, client: Client) -> Payload:
        """What goes up of an update plus the old residual; the rest becomes the new residual."""
        if self.uplink == "dense":
            return Payload(update, kind="update", absent="zero")
        if self.uplink == "masked":
            return Payload(masks.apply(update, mask), mask, kind="update", absent="zero")
        total = self.remembered(update, client)
        inside, outside = mask, {}
        if self.uplink == "topk":
            inside = masks.top_k({n: total[n].abs() for n in mask}, masks.count(mask))
        else:
            beyond = {n: total[n].abs().masked_fill(m, -1.0) for n, m in mask.items()}
            outside = masks.top_k(beyond, round(self.residual_share * sum(self.setup.sizes.values())))
            outside = {n: picked & ~mask[n] for n, picked in outside.items()}
        residual = {n: total[n].masked_fill(inside[n] | outside.get(n, inside[n]), 0.0) for n in mask}
        client.store["residual"], client.store["round"] = residual, {"last": torch.tensor(client.round)}
        norm = float(torch.stack([r.norm() for r in residual.values()]).norm())
        extra = {"outside": masks.apply({n: total[n] for n in outside}, outside)} if outside else {}
        sparse = {**inside, **{f"outside/{n}": m for n, m in outside.items()}}
        return Payload(masks.apply(total, inside), sparse, extra, {"residual": norm}, kind="update", absent="zero")

    def remembered(self, update: Tensors, client: Client) -> dict[str, Tensor]:
        """The update plus what the client still remembers of its residual."""
        old = client.store["residual"]
        missed = client.round - 1 - int(client.store["round"]["last"]) if old else 0
        return {n: u + old[n] * self.residual_decay**missed if n in old else u for n, u in update.items()}

    def uplink_schema(self, phase: str) -> Schema:
        plain = self.setup.schema
        if self.uplink != "masked_residual":
            return plain
        extra = {f"outside/{name}": plain.tensors[name] for name in self.setup.maskable}
        return Schema({**plain.tensors, **extra}, plain.maskable | set(extra))

    def paper(self, rounds: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """The code's formula, values only, all parameters: 32 (1 - sparsity) N / 2^20 mebibits a client, each way."""
        total = sum(torch.Size(shape).numel() for shape in self.setup.shapes.values())
        drawn = [(int(t) - 1) // self.every * self.every + 1 for t in rounds["round"]]
        kept = [schedules.cubic(self.start, self.density, self.progress(t) / self.reach) for t in drawn]
        up = [1.0] * len(kept) if self.uplink == "dense" else kept
        return {"feddip_mebibits": 32 * total / 2**20 * self.setup.per_round * (sum(kept) + sum(up))}


def with_outside(replies: Replies) -> Iterator[Reply]:
    """Replies with what was sent from outside the mask added to what was sent from inside."""
    for reply in replies:
        outside = reply.payload.extra.get("outside", {})
        weights = {n: w + outside[n] if n in outside else w for n, w in reply.payload.weights.items()}
        yield replace(reply, payload=replace(reply.payload, weights=weights))

"""Top-k with error feedback: a client sends the largest entries of its update and remembers the rest.

Stich, Cordonnier, Jaggi: Sparsified SGD with Memory, arXiv 1809.07599. The downlink is the dense global model. What a
client does not send, its residual, is added to its next update: sent + new residual == update + old residual.

Differences from the paper: an update is that of the local epochs and not of one step; the largest entries are taken
over all maskable weights together, biases and BatchNorm are sent whole; clients are sampled, and a residual waits until
its client's next round, times `residual_decay` for each round that it missed.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from fedsparse import masks
from fedsparse.client import Client
from fedsparse.options import Fraction, Share
from fedsparse.payload import Payload
from fedsparse.strategy import Replies, State, Strategy, Task


class TopKEF(Strategy):
    """Top-k with error feedback: a client sends the largest entries of its update and remembers the rest."""

    density: Share = 0.1
    """Share of the maskable weights' update that is sent."""
    residual_decay: Fraction = 1.0
    """What a client keeps of its residual for each round that it missed."""

    def train(self, received: Payload, client: Client) -> Payload:
        model = client.model(received.weights)
        client.fit(model)
        old, memory = client.store["residual"], client.store["round"]
        kept = self.residual_decay ** (client.round - 1 - int(memory["last"])) if old else 0.0
        update = {name: w - received.weights[name] for name, w in client.weights(model).items()}
        total = {name: u + kept * old[name] if name in old else u for name, u in update.items()}
        names = self.setup.maskable
        mask = masks.top_k({n: total[n].abs() for n in names}, round(self.density * sum(self.setup.sizes.values())))
        residual = {n: total[n].masked_fill(mask[n], 0.0) for n in names}
        client.store["residual"], client.store["round"] = residual, {"last": torch.tensor(client.round)}
        norm = float(torch.stack([r.norm() for r in residual.values()]).norm())
        return Payload(masks.apply(total, mask), mask, info={"residual": norm}, kind="update", absent="zero")

    def merge(self, state: State, replies: Replies, task: Task) -> State:
        update = masks.masked_mean(replies)
        return replace(state, weights={n: w + update[n] if n in update else w for n, w in state.weights.items()})

"""FedDIP as its authors released it: nested masks, nothing comes back, and the uplink is dense.

Long, Anagnostopoulos, Parambath, Bi: FedDIP, arXiv 2309.06805 (ICDM 2023), after the released code. The mean of the
dense uploads is multiplied by the last mask before the next one is drawn, and what is pruned is zeroed for good: each
mask lies inside the one before. Compare `feddip`, which keeps what the paper's title promises. A run of few rounds does
not reach `density`: the schedule ends with the last round, the last mask is drawn up to `every` - 1 rounds before it.

Differences from the paper (its text could not be read; the authors' code was compared):
- The code's first masks, one at random (ERK) for each client, also cover BatchNorm's weights in ResNets; here never.
  Its later masks leave out the projections of ResNets' shortcuts; here every convolutional and linear weight counts.
- `every` is 5 (the code's examples use 5 and 20 of 1000 rounds); SGD's options are the run's.
- The code takes BatchNorm's statistics from a second forward pass of the dense weights; here they are those of the
  masked model that is trained.
- The code counts 32 bits for each non-zero weight; here bytes are those encoded, and its formula is a `paper_*` column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from fedsparse import masks, schedules
from fedsparse.client import Client
from fedsparse.distributions import erk
from fedsparse.options import Count, NonNegative, Share
from fedsparse.payload import Payload
from fedsparse.randomness import integer
from fedsparse.sparsifiers import magnitude, random
from fedsparse.strategy import Replies, State, Strategy, Task
from fedsparse.train import penalised, straight_through

PENALTY_STEPS = 20


class FedDIPReleased(Strategy):
    """FedDIP as its authors released it: nested masks, nothing comes back, and the uplink is dense."""

    density: Share = 0.1
    """Share of the maskable weights that is kept at the end."""
    start: Share = 0.5
    """Share kept by the clients' own first masks and by the server's first one."""
    every: Count = 5
    """Rounds between masks."""
    penalty: NonNegative = 1e-3
    """Largest factor of the sum of the layers' norms in the loss; it grows in 20 steps from 0 over half of this."""

    # ---- server ----

    def merge(self, state: State, replies: Replies, task: Task) -> State:
        mask = state.masks
        weights = masks.apply(masks.masked_mean(replies, otherwise=state.weights), mask)
        if (task.round - 1) % self.every == 0:
            keep = schedules.cubic(self.start, self.density, self.progress(task.round))
            scores = magnitude.score(weights, self.setup.maskable)
            mask = masks.top_k(scores, round(keep * sum(self.setup.sizes.values())))
            weights = masks.apply(weights, mask)
        told = {"regrown": masks.changed(state.masks, mask), "kept": masks.count(mask)}
        return replace(state, weights=weights, masks=mask, stats=told)

    # ---- client ----

    def train(self, received: Payload, client: Client) -> Payload:
        mask = masks.bits(received) or self.first(client)
        model = client.model(received.weights)
        factor = schedules.steps(self.penalty / 2, self.penalty, PENALTY_STEPS, self.progress(client.round))
        with straight_through(model, mask):
            client.fit(model, loss=penalised(client.loss, mask, factor))
        return Payload(client.weights(model))

    def first(self, client: Client) -> dict[str, Tensor]:
        """The client's own random mask, before there is one of the server."""
        shapes = {name: tuple(self.setup.shapes[name]) for name in self.setup.maskable}
        return random.masks(erk(shapes, self.start), shapes, integer(self.setup.seed, client.id, "first mask"))

    # ---- both ----

    def paper(self, rounds: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """The code's formula, values only: 32 (1 - sparsity) N / 2^20 mebibits a client down, a dense model up."""
        total = sum(math.prod(shape) for shape in self.setup.shapes.values())
        kept = [schedules.cubic(self.start, self.density, self.progress(int(t))) for t in rounds["round"]]
        return {"feddip_mebibits": 32 * total / 2**20 * self.setup.per_round * (sum(kept) + len(kept))}

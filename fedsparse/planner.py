"""What fits which client: predictions of time and memory from its device, before anything is trained."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fedsparse.clock import client_seconds
from fedsparse.errors import InputError
from fedsparse.flops import LOOK, Counter

if TYPE_CHECKING:
    from fedsparse.channels import Channels, Kept
    from fedsparse.sections import Clock, Train
    from fedsparse.strategy import Node

FLOAT = 4  # bytes
FLOOR = 0.01
"""The smallest density that is planned."""
HALVINGS = 12
STATES = {"adam": 2, "adamw": 2, "nadam": 2, "radam": 2, "adamax": 2}
"""Numbers that an optimiser keeps for a weight; the others keep one at most, with momentum."""


class Planner:
    """Predicts what a model costs a client: one training task, values sent as float32 in both directions.

    net: the whole model; sample: one input (1, ...); cutting: gives its channels. Nothing of it is measured on clients.
    """

    def __init__(
        self, nodes: Sequence[Node], net: nn.Module, sample: Tensor, train: Train, clock: Clock,
        cutting: Callable[[], Channels],
    ) -> None:  # fmt: skip
        self.nodes, self.net, self.sample = nodes, net, sample
        self.train, self.clock, self.cutting = train, clock, cutting
        self._known: dict[tuple[object, ...], float] = {}

    @cached_property
    def deadline(self) -> float:
        """Simulated seconds that a client may take: [clock] deadline, else what the median client takes for it all."""
        return self.clock.deadline or statistics.median(self.seconds(node) for node in self.nodes)

    def seconds(self, node: Node, kept: Kept | None = None, density: float = 1.0, work: float = 1.0) -> float:
        """What a task will take: of the sub-model `kept`, or of the whole model with this share of its weights.

        work: what a step costs, as a multiple of the model's own forward and backward.
        """
        flops = work * self.flops(kept) * node.examples * self.train.epochs
        data = math.ceil(self.numbers(kept) * (FLOAT * density + entropy(density) / 8))
        return client_seconds(node.profile, [data], flops, flops * density, [data]).total

    def fits(self, node: Node, kept: Kept | None = None, density: float = 1.0, work: float = 1.0) -> bool:
        """Whether a client can train it within its memory and the deadline. A mask's zeros take memory too."""
        slack = 1 + 1e-9  # the median client has the deadline's own time
        in_time = self.seconds(node, kept, density, work) <= slack * self.deadline
        return in_time and self.memory(kept) <= node.profile.memory

    def widest(self, node: Node, widths: Sequence[float], work: float = 1.0) -> float:
        """The largest of these widths (shares of every layer's units) that fits; InputError where none does."""
        channels = self.cutting()
        for width in sorted(widths, reverse=True):
            if self.fits(node, channels.ordered(width), work=work):
                return width
        least = channels.ordered(min(widths))
        raise self._hopeless(node, f"a sub-model of width {min(widths):g}", least, work=work)

    def densest(self, node: Node) -> float:
        """The largest density that fits; InputError where not even 1 % of the weights do."""
        if self.fits(node):
            return 1.0
        low, high = FLOOR, 1.0
        if not self.fits(node, density=low):
            raise self._hopeless(node, f"a model of density {FLOOR:g}", density=low)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.fits(node, density=middle) else (low, middle)
        return low

    def _hopeless(
        self, node: Node, least: str, kept: Kept | None = None, density: float = 1.0, work: float = 1.0
    ) -> InputError:
        needs, has = self.memory(kept), node.profile.memory
        if needs > has:
            why = f"training it takes about {needs / 1e6:.3g} MB of memory, and {has / 1e6:.3g} MB are there"
        else:
            took = self.seconds(node, kept, density, work)
            why = f"it takes about {took:.3g} simulated seconds, and the deadline is {self.deadline:.3g}"
        return InputError(f"Not even {least} fits client {node.id} (device {node.device}): {why}.")

    # ---- of a sub-model, or of the whole model ----

    def flops(self, kept: Kept | None = None) -> float:
        """FLOPs of a training step, for each sample."""
        return self._once("flops", kept, lambda net: Counter(net).step(self.sample).dense)

    def numbers(self, kept: Kept | None = None) -> float:
        """Elements of all tensors."""
        return self._once("numbers", kept, lambda net: sum(t.numel() for t in net.state_dict().values()))

    def memory(self, kept: Kept | None = None) -> float:
        """Bytes that training takes: weights, gradients, what the optimiser keeps and what a batch leaves behind."""
        return self._once("memory", kept, self._memory)

    def _once(self, what: str, kept: Kept | None, measure: Callable[[nn.Module], float]) -> float:
        key = (what, *(int(units.sum()) for units in (kept or {}).values()))
        if key not in self._known:
            net = self.net if kept is None else self.cutting().module(self.net.state_dict(), kept)
            self._known[key] = measure(net)
        return self._known[key]

    def _memory(self, net: nn.Module) -> float:
        states = STATES.get(self.train.optimizer, 1 if self.train.momentum else 0)
        weights = sum(p.numel() * p.element_size() for p in net.parameters())
        return (2 + states) * weights + self.train.batch_size * _saved(net, self.sample)


def _saved(net: nn.Module, sample: Tensor) -> float:
    """Bytes that a forward pass keeps for the backward one, of each sample."""
    net = copy.deepcopy(net).cpu().train()
    own = {p.untyped_storage().data_ptr() for p in (*net.parameters(), *net.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in own:
            kept[place] = tensor  # which also keeps its place from being given to another
        return tensor

    with (
        torch.enable_grad(),
        torch.random.fork_rng(devices=[]),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        out = net(sample.cpu().repeat(LOOK, *[1] * (sample.dim() - 1)))  # a storage of its own
    del out
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / LOOK


def entropy(density: float) -> float:
    """Bits that say whether a position is kept, at best."""
    rest = 1 - density
    return -density * math.log2(density) - rest * math.log2(rest) if 0 < density < 1 else 0.0

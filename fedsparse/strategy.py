"""A method is one frozen object that exists on both sides of the wire.

Server and client build the same `Strategy` from the same text. It holds its options only: the server's state is passed
to it and returned by it, the client's state is a small store that it is handed. One file holds both halves of a method,
in the order of a round:

    init -> plan -> send -> (wire) -> train -> (wire) -> merge

A phase is the name of the strategy's method that the client calls: `train` unless `plan` says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from pydantic import PrivateAttr
from torch import Tensor

from fedsparse.errors import InputError
from fedsparse.options import Options
from fedsparse.payload import Payload, Scalar, Schema, Spec
from fedsparse.profiles import Profile
from fedsparse.randomness import generator

if TYPE_CHECKING:
    from torch import nn

    from fedsparse.channels import Channels
    from fedsparse.client import Client
    from fedsparse.models.base import Model
    from fedsparse.planner import Planner

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Node:
    """A client as the server knows it. `id` is the partition's number, the same in every runtime.

    device: its tier; profile: what that device can do, which a method that learns it from reply times does not look at.
    """

    id: int
    examples: int
    device: str
    profile: Profile = field(default_factory=Profile)


@dataclass(frozen=True)
class Task:
    """One phase of a round: which of the strategy's methods runs, and where."""

    phase: str
    round: int
    cohort: tuple[Node, ...]


@dataclass(frozen=True)
class Reply:
    """What came back from one client: `payload` is decoded and checked; `examples` is the server's own count.

    flops: of its training, as it was computed; seconds: real ones; sim_seconds: by the virtual clock, from the first
    byte down to the last one up.
    """

    node: Node
    payload: Payload
    flops: float | None = None
    seconds: float = 0.0
    sim_seconds: float = 0.0

    @property
    def examples(self) -> int:
        return self.node.examples

    @property
    def stats(self) -> Mapping[str, Scalar]:
        return self.payload.info


class Replies(Protocol):
    """The replies of a task in the cohort's order. Each pass decodes them anew, one at a time."""

    def __iter__(self) -> Iterator[Reply]: ...


@dataclass(frozen=True)
class State:
    """What a server keeps between rounds: a plain tree of tensors and scalars, so that it can be written down.

    weights: the global model (empty where a method has none); masks: boolean tensors of the model that is shared;
    clients: tensors that the server keeps for a client, by "ID/NAME"; stats: scalars of the last merge, told as
    `x_NAME`.
    """

    weights: Tensors = field(default_factory=dict)
    masks: Tensors = field(default_factory=dict)
    clients: Tensors = field(default_factory=dict)
    stats: Mapping[str, Scalar] = field(default_factory=dict)

    @cached_property
    def payload(self) -> Payload:
        """The global model as one object: what is sent to all alike is encoded once."""
        return Payload(weights=self.weights, masks=self.masks)

    def of(self, node: Node) -> dict[str, Tensor]:
        """The tensors that the server keeps for this client, by name."""
        prefix = f"{node.id}/"
        return {name.removeprefix(prefix): t for name, t in self.clients.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class Setup:
    """What a strategy may know of the federation that it runs in; equal on both sides.

    shapes: shape of every tensor that travels; dtypes: NumPy's names; maskable: names of conv and linear weights.
    """

    seed: int = 0
    rounds: int = 1
    per_round: int = 1
    nodes: tuple[Node, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    maskable: tuple[str, ...] = ()
    higher_is_better: bool = True
    cutting: Callable[[], Channels] | None = field(default=None, repr=False, compare=False)  # remembers its answer
    planning: Callable[[], Planner] | None = field(default=None, repr=False, compare=False)  # so does this

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Number of elements of every maskable tensor."""
        return {name: math.prod(self.shapes[name]) for name in self.maskable}

    @cached_property
    def schema(self) -> Schema:
        """A payload of the model's tensors, any maskable one masked."""
        tensors = {name: Spec(self.dtypes[name], tuple(shape)) for name, shape in self.shapes.items()}
        return Schema(tensors, frozenset(self.maskable))

    @cached_property
    def structured(self) -> Schema:
        """A payload of the model's tensors, any that holds floats masked: what sub-models need."""
        floats = (name for name, dtype in self.dtypes.items() if "float" in dtype)
        return Schema(self.schema.tensors, frozenset(floats))

    @property
    def channels(self) -> Channels:
        """What can be cut out of the model; InputError where that is nothing."""
        if self.cutting is None:
            raise InputError("There is no model here that could be cut into sub-models.")
        return self.cutting()

    @property
    def planner(self) -> Planner:
        """What fits which client, by its device and the round's deadline."""
        if self.planning is None:
            raise InputError("There are no devices here that could be planned for.")
        return self.planning()


class Strategy(Options):
    """Base of all methods. Subclasses add options as fields and replace what differs from FedAvg."""

    steers: ClassVar[bool] = False
    """Whether it looks at devices or at simulated times: on other devices it would have sent something else."""

    _setup: Setup = PrivateAttr(default_factory=Setup)
    _ready: tuple[Node, ...] | None = PrivateAttr(default=None)
    _asked: int | None = PrivateAttr(default=None)

    def bind(self, setup: Setup) -> Self:
        """A copy that knows its federation."""
        bound = self.model_copy()
        bound._setup = setup
        return bound

    def among(self, ready: tuple[Node, ...], asked: int) -> Self:
        """A copy that draws cohorts of `asked` clients from those that are `ready`."""
        bound = self.model_copy()
        bound._ready, bound._asked = ready, asked
        return bound

    @property
    def setup(self) -> Setup:
        return self._setup

    def progress(self, t: int) -> float:
        """Round `t` (from 1) as a share of the rounds, in [0, 1): the first round is 0."""
        return (t - 1) / self.setup.rounds

    def check(self) -> None:
        """Raise InputError for what cannot work in this federation; asked before a run begins."""

    # ---- server ----

    def init(self, weights: Tensors, nodes: Sequence[Node]) -> State:
        """The state before the first round, from the initial weights."""
        return State(weights=weights)

    def plan(self, state: State, t: int) -> list[Task]:
        """The tasks of round `t`. By default one: `train` on a cohort that is drawn from the seed."""
        return [Task("train", t, self.cohort(t))]

    def cohort(self, t: int) -> tuple[Node, ...]:
        """The clients of round `t`, of those that are ready, drawn without replacement, in the order of their ids."""
        nodes = self.setup.nodes if self._ready is None else self._ready
        count = self.setup.per_round if self._asked is None else self._asked
        if count >= len(nodes):
            return nodes
        picked = generator(self.setup.seed, t, "cohort").choice(len(nodes), size=count, replace=False)
        return tuple(nodes[i] for i in sorted(picked))

    def send(self, state: State, node: Node, task: Task) -> Payload:
        """What this client receives: by default the global model. One object for all clients is encoded once."""
        return state.payload

    def merge(self, state: State, replies: Replies, task: Task) -> State:
        """The next state from the replies of a task. Lost and refused replies are not among them."""
        raise NotImplementedError

    def global_model(self, state: State) -> Payload | None:
        """The model that is evaluated centrally; None where the method has none."""
        return state.payload

    # ---- client ----

    def train(self, received: Payload, client: Client) -> Payload:
        """The client's half of the phase `train`."""
        raise NotImplementedError

    def personal(self, received: Payload, client: Client) -> nn.Module:
        """The model that this client would use, evaluated on its own test part. By default what it received."""
        return client.model(received.weights, received.masks)

    # ---- both ----

    def model(self, model: Model, shape: tuple[int, ...], outputs: int) -> Model:
        """The model that is trained, for inputs of `shape` and so many outputs: by default the configured one."""
        return model

    def downlink_schema(self, phase: str) -> Schema:
        """What a client accepts in a phase."""
        return self.setup.schema

    def uplink_schema(self, phase: str) -> Schema:
        """What the server accepts as a reply in a phase."""
        return self.setup.schema

    def paper(self, rounds: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """The paper's own cost formula over a finished run (`paper_*` columns), only to compare with printed tables.

        `rounds` holds the columns of the `rounds` table as lists.
        """
        return {}

    def replace(self, **options: Any) -> Self:
        """A copy with other options, validated, in the same federation."""
        return type(self)(**(self.model_dump() | options)).bind(self.setup)

"""One task of a round, on its way to the clients: each payload encoded once, for each that it may rely on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from fedsparse import codec, masks
from fedsparse.federation import Federation
from fedsparse.flower import wire
from fedsparse.flower.client_app import EVALUATE
from fedsparse.flower.held import Given, Holdings, arrays, exact
from fedsparse.ledger import Ledger, sizes
from fedsparse.payload import Ids, Payload
from fedsparse.randomness import generator, integer
from fedsparse.strategy import Node, Task

Encoded = tuple[bytes, Mapping[str, int]]  # a payload's bytes, and how many of each kind


@dataclass
class Sent:
    """What went to one client: enough to book it and to read the reply, not the bytes."""

    given: Given
    length: int
    kinds: Mapping[str, int]
    generation: int
    transport: int
    asked: int = 1  # how often: again when a worker died
    unused: bytes = b""  # the reply of a client that does not hold what this relies on
    dropped: bool = False  # by the device's profile: it is booked, and never sent


@dataclass
class Outgoing:
    """The messages of one task. `holdings` is what the server knows of what clients hold."""

    federation: Federation
    ledger: Ledger
    task: Task
    run_id: int
    generations: dict[int, int]
    holdings: Holdings = field(default_factory=Holdings)
    sent: dict[int, list[Sent]] = field(default_factory=dict)  # the last one is what the reply answers

    _latest: Given | None = None  # what was sent last, encoded once for each base
    _encoded: dict[Given | None, Encoded] = field(default_factory=dict)

    @property
    def message_type(self) -> str:
        return "evaluate" if self.task.phase == EVALUATE else "train"

    def messages(self, grid: Grid, payload_for: Callable[[Node], Payload]) -> Iterator[Message]:
        """A message for each client of the cohort, made when it is asked for. One object for all is encoded once."""
        schema = codec.schema_hash(self.federation.strategy.downlink_schema(self.task.phase))
        given = None
        for node in self.task.cohort:
            payload = payload_for(node)
            if given is None or payload is not given.payload:
                given = Given(payload, self._density(payload), schema, self.holdings.task)
            base = None if self.task.phase == EVALUATE else self.holdings.of(node.id, schema)
            message = self._message(grid, node, given, base)
            if self._drops(node):
                self.sent[node.id][-1].dropped = True
            else:
                yield message

    def _drops(self, node: Node) -> bool:
        """Whether this client's device gives up in this task: drawn from the seed, by its profile."""
        chance, task = node.profile.dropout, self.task
        if not chance or task.phase == EVALUATE:
            return False
        rng = generator(self.federation.setup.seed, task.round, task.phase, node.id, "dropout")
        return bool(rng.random() < chance)

    def _message(self, grid: Grid, node: Node, given: Given, base: Given | None) -> Message:
        phase, ids = self.task.phase, Ids(self.run_id, self.task.round, node.id, self.generations.get(node.id, 0))
        encoded, kinds = self._encode(given, base, ids)
        data = codec.stamp(encoded, ids)
        extra = wire.transport(data, phase, self.message_type, False)
        self.sent.setdefault(node.id, []).append(Sent(given, len(data), kinds, ids.generation, extra))
        return grid.create_message(wire.content(data, phase), self.message_type, node.id + 1, str(self.task.round))

    def _encode(self, given: Given, base: Given | None, ids: Ids) -> Encoded:
        if given is not self._latest:
            self._latest, self._encoded = given, {}
        if base not in self._encoded:
            task, options = self.task, self.federation.experiment.wire
            known = base.payload.masks if base else None
            near = arrays(base.payload) if base and exact(options) else None
            seed = integer(self.federation.setup.seed, task.round, task.phase, "wire")
            schema = self.federation.strategy.downlink_schema(task.phase)
            data = wire.encode(given.payload, schema, ids, options.values, seed, known, near)
            self._encoded[base] = data, sizes(data)
        return self._encoded[base]

    def _density(self, payload: Payload) -> float:
        return masks.density(masks.bits(payload), self.federation.setup.sizes)

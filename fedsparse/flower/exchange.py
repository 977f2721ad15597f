"""One task of a round: send to a cohort, take the replies in, check them, book both directions."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid
from torch import Tensor

from fedsparse import codec, masks
from fedsparse.codec import DecodeError
from fedsparse.federation import Federation
from fedsparse.flower import wire
from fedsparse.flower.client_app import EVALUATE
from fedsparse.flower.held import Given, Holdings, arrays, differs, exact
from fedsparse.ledger import Ledger, sizes
from fedsparse.payload import Ids, Payload, Scalar
from fedsparse.randomness import integer
from fedsparse.strategy import Node, Reply, Task

log = logging.getLogger("fedsparse")
ENGINE_INFO = ("examples", "steps", "loss", "metric")
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


@dataclass(frozen=True)
class Seen:
    """What a usable reply told: its scalars, the density of its client's model, the client's seconds."""

    info: Mapping[str, Scalar]
    density: float
    seconds: float


@dataclass
class Exchange:
    """The messages of one task. Iterating gives the replies in the cohort's order and decodes one at a time.

    The first pass checks and books each reply; a reply that cannot be used is booked as refused and left out.
    """

    federation: Federation
    ledger: Ledger
    task: Task
    run_id: int
    generations: dict[int, int]
    holdings: Holdings = field(default_factory=Holdings)
    sent: dict[int, list[Sent]] = field(default_factory=dict)  # the last one is what the reply answers
    raw: dict[int, Message] = field(default_factory=dict)
    status: dict[int, str] = field(default_factory=dict)
    seen: dict[int, Seen] = field(default_factory=dict)
    held: dict[int, dict[str, Tensor]] | None = None  # the clients' own masks, where they are asked for
    why: str = ""  # the first error that a client replied

    _latest: Given | None = None  # what was sent last, encoded once for each base
    _encoded: dict[Given | None, Encoded] = field(default_factory=dict)
    _near: tuple[Given | None, dict[str, np.ndarray]] = (None, {})  # what was sent to whom a reply came last from

    @property
    def message_type(self) -> str:
        return "evaluate" if self.task.phase == EVALUATE else "train"

    # ---- messages ----

    def messages(self, grid: Grid, payload_for: Callable[[Node], Payload]) -> Iterator[Message]:
        """A message for each client of the cohort, made when it is asked for. One object for all is encoded once."""
        schema = codec.schema_hash(self.federation.strategy.downlink_schema(self.task.phase))
        given = None
        for node in self.task.cohort:
            payload = payload_for(node)
            if given is None or payload is not given.payload:
                given = Given(payload, self._density(payload), schema, self.holdings.task)
            base = None if self.task.phase == EVALUATE else self.holdings.of(node.id, schema)
            yield self._message(grid, node, given, base)

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

    # ---- what comes back ----

    def receive(self, replies: Iterable[Message], grid: Grid | None = None, timeout: float | None = None) -> None:
        """Take the replies in as they come, and book what was sent. Who did not reply in time is lost.

        Who does not hold what its message relied on gets the whole payload, once.
        """
        self._collect(replies, grid)
        if grid is not None and (lacking := [node for node in self.task.cohort if self._lacks(node)]):
            log.info("round %d: %d clients get the whole payload", self.task.round, len(lacking))
            whole = (self._message(grid, node, self.sent[node.id][0].given, None) for node in lacking)
            self._collect(grid.send_and_receive(whole, timeout=timeout), grid)
        for node in self.task.cohort:
            if node.id not in self.raw:
                self.status[node.id] = "lost"
            if node.id in self.sent:  # else the time was up before its message was made
                self._book_down(node)

    def _collect(self, replies: Iterable[Message], grid: Grid | None) -> None:
        client_of = getattr(grid, "client_of", wire.client_of)
        for reply in replies:
            client = client_of(reply)
            if reply.has_error():
                self.why = self.why or f"client {client}: {reply.error.reason}"
                log.warning("round %d: client %d is lost: %s", self.task.round, client, reply.error.reason)
            elif client in self.sent:
                self.raw[client] = reply
        for client, times in getattr(grid, "attempts", {}).items():
            if client in self.sent:
                self.sent[client][-1].asked = times

    def _lacks(self, node: Node) -> bool:
        """Whether this client says that it does not hold what its message relied on: then nothing counts as held."""
        if node.id not in self.raw or self.task.phase == EVALUATE:
            return False
        try:
            data, phase, _ = wire.unpack(self.raw[node.id])
            if phase != wire.NOT_HELD:
                return False
            wire.decode(data, wire.NOTHING)
            self._check_ids(node, codec.header(data).ids)
        except (DecodeError, wire.Refused):  # a second look says why
            return False
        self.holdings.forget(node.id)
        self.sent[node.id][-1].unused = data
        del self.raw[node.id]
        return True

    def _book_down(self, node: Node) -> None:
        attempt = 0
        for sent in self.sent[node.id]:
            for ask in range(sent.asked):
                attempt += 1
                lost = ask + 1 < sent.asked or not sent.unused and self.status.get(node.id) == "lost"
                self.ledger.message(
                    round=self.task.round, phase=self.task.phase, client=node.id, direction="down", length=sent.length,
                    kinds=sent.kinds, transport=sent.transport, attempt=attempt,
                    status="lost" if lost else "refused" if sent.unused else "ok",
                )  # fmt: skip
            if sent.unused:
                self._book_up(node, sent.unused, "ok", attempt, wire.NOT_HELD)

    # ---- replies ----

    def __iter__(self) -> Iterator[Reply]:
        for node in self.task.cohort:
            if node.id in self.raw and self.status.get(node.id) != "refused":
                reply = self._take(node, self.raw[node.id])
                if reply is not None:
                    yield reply

    def _take(self, node: Node, message: Message) -> Reply | None:
        """Decode a reply; the first time, check and book it. None when it cannot be used."""
        data, first = b"", node.id not in self.status
        try:
            data, phase, seconds = wire.unpack(message)
            if phase == wire.NOT_HELD:
                raise wire.Refused("it does not hold what it was sent whole")
            reply, generation = self._read(node, data, seconds)
        except (DecodeError, wire.Refused) as why:
            log.warning("round %d: the reply of client %d was refused: %s", self.task.round, node.id, why)
            self.why = self.why or f"client {node.id}: {why}"
            self._settle(node, data, "refused")
            return None
        if first:
            self.generations[node.id] = generation
            if self.task.phase != EVALUATE:
                self.holdings.answered(node.id, self.sent[node.id][-1].given)
            self._settle(node, data, "ok")
        return reply

    def _read(self, node: Node, data: bytes, seconds: float) -> tuple[Reply, int]:
        sent, phase, head = self.sent[node.id][-1], self.task.phase, codec.header(data)
        schema = wire.NOTHING if phase == EVALUATE else self.federation.strategy.uplink_schema(phase)
        near = self._as_received(sent.given) if differs(head.kind, self.federation.experiment.wire) else None
        payload, ids = wire.decode(data, schema, sent.given.payload.masks, near), head.ids
        self._check_ids(node, ids)
        if ids.generation not in (sent.generation, sent.generation + 1):
            raise wire.Refused(f"it names generation {ids.generation} of the client's state, not {sent.generation}")
        self._check(payload.info)
        reply = Reply(node, payload, seconds=seconds)
        own = payload.kind == "weights" and bool(payload.masks)
        if payload.kind == "weights" and self.held is not None:
            self.held[node.id] = masks.bits(payload)
        self.seen[node.id] = Seen(payload.info, self._density(payload) if own else sent.given.density, seconds)
        return reply, ids.generation

    def _as_received(self, given: Given) -> dict[str, np.ndarray]:
        if self._near[0] is not given:
            self._near = given, arrays(given.payload)
        return self._near[1]

    def _check_ids(self, node: Node, ids: Ids) -> None:
        if replace(ids, generation=0) != Ids(self.run_id, self.task.round, node.id):
            raise wire.Refused("it names another run, round or client")

    def _check(self, info: Mapping[str, Scalar]) -> None:
        """Refuse what would spoil a mean: the engine's scalars must be finite numbers, an accuracy within [0, 1]."""
        needed = ("metric", "examples") if self.task.phase == EVALUATE else ()
        for name in ENGINE_INFO:
            value = info.get(name, None if name in needed else 0)
            number = isinstance(value, int | float) and math.isfinite(value)
            if not number or name != "loss" and not 0 <= value < 2**53:  # type: ignore[operator]
                raise wire.Refused(f"its {name} is {value!r}")
        if self.federation.data.metric == "accuracy" and info.get("metric", 0) > 1:  # type: ignore[operator]
            raise wire.Refused(f"its accuracy is {info['metric']!r}")

    def _settle(self, node: Node, data: bytes, status: str) -> None:
        self.status[node.id] = status
        self._book_up(node, data, status, sum(sent.asked for sent in self.sent[node.id]), self.task.phase)

    def _book_up(self, node: Node, data: bytes, status: str, attempt: int, phase: str) -> None:
        self.ledger.message(
            round=self.task.round, phase=self.task.phase, client=node.id, direction="up", length=len(data),
            kinds=sizes(data) if status == "ok" else {"values": 0, "mask": 0, "dense": 0, "header": len(data)},
            transport=wire.transport(data, phase, self.message_type, True) if data else 0,
            attempt=attempt, status=status,
        )  # fmt: skip

    def close(self) -> dict[int, Seen]:
        """Book what nobody looked at, and a row for every client of the cohort; returns what each usable reply told."""
        for node in self.task.cohort:
            if node.id not in self.status:
                self._take(node, self.raw[node.id])
        evaluated = self.task.phase == EVALUATE  # on the test part, whose size the client tells
        for node in self.task.cohort:
            density = self.sent[node.id][0].given.density if node.id in self.sent else 1.0
            seen = self.seen.get(node.id, Seen({}, density, 0.0))
            told = {f"x_{k}": float(v) for k, v in seen.info.items() if k not in ENGINE_INFO and not isinstance(v, str)}
            self.ledger.add(
                "clients", round=self.task.round, phase=self.task.phase, client=node.id, device=node.device,
                status=self.status[node.id], examples=seen.info.get("examples", 0) if evaluated else node.examples,
                steps=seen.info.get("steps", 0), flops=None, density=seen.density, loss=seen.info.get("loss"),
                metric=seen.info.get("metric"), seconds=seen.seconds, **told,
            )  # fmt: skip
        return {client: seen for client, seen in self.seen.items() if self.status[client] == "ok"}

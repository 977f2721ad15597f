"""One task of a round: send to a cohort, take the replies in, check them, book both directions."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from flwr.app import Message
from flwr.serverapp import Grid
from torch import Tensor

from fedsparse import codec, masks
from fedsparse.codec import DecodeError
from fedsparse.federation import Federation
from fedsparse.flower import wire
from fedsparse.flower.client_app import EVALUATE, NOTHING
from fedsparse.ledger import Ledger, sizes
from fedsparse.payload import Ids, Mask, Payload, Scalar
from fedsparse.strategy import Node, Reply, Task

log = logging.getLogger("fedsparse")
ENGINE_INFO = ("examples", "steps", "loss", "metric")


@dataclass
class Sent:
    """What went to one client: enough to book it and to read the reply, not the bytes."""

    length: int
    kinds: Mapping[str, int]
    known: Mapping[str, Mask]
    density: float
    generation: int
    transport: int


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
    sent: dict[int, Sent] = field(default_factory=dict)
    raw: dict[int, Message] = field(default_factory=dict)
    attempts: Mapping[int, int] = field(default_factory=dict)
    status: dict[int, str] = field(default_factory=dict)
    seen: dict[int, Seen] = field(default_factory=dict)
    held: dict[int, dict[str, Tensor]] | None = None  # the clients' own masks, where they are asked for
    why: str = ""  # the first error that a client replied

    @property
    def message_type(self) -> str:
        return "evaluate" if self.task.phase == EVALUATE else "train"

    def receive(self, replies: Iterable[Message], grid: Grid | None = None) -> None:
        """Take the replies in as they come, and book what was sent. Who did not reply in time is lost."""
        client_of = getattr(grid, "client_of", wire.client_of)
        for reply in replies:
            client = client_of(reply)
            if reply.has_error():
                self.why = self.why or f"client {client}: {reply.error.reason}"
                log.warning("round %d: client %d is lost: %s", self.task.round, client, reply.error.reason)
            elif client in self.sent:
                self.raw[client] = reply
        self.attempts = dict(getattr(grid, "attempts", {}))
        for node in self.task.cohort:
            if node.id not in self.raw:
                self.status[node.id] = "lost"
            if node.id in self.sent:  # else the time was up before its message was made
                self._book_down(node)

    def messages(self, grid: Grid, payload_for: Callable[[Node], Payload]) -> Iterator[Message]:
        """A message for each client of the cohort, made when it is asked for. One object for all is encoded once."""
        phase, schema = self.task.phase, self.federation.strategy.downlink_schema(self.task.phase)
        payload, blob, kinds = None, b"", {}
        for node in self.task.cohort:
            ids = Ids(self.run_id, self.task.round, node.id, self.generations.get(node.id, 0))
            if (fresh := payload_for(node)) is not payload or not blob:
                payload = fresh
                blob = wire.encode(payload, schema, ids, None, self.federation.experiment.wire.values)
                kinds, share = sizes(blob), self._density(payload)
            data = codec.stamp(blob, ids)
            extra = wire.transport(data, phase, self.message_type, False)
            self.sent[node.id] = Sent(len(data), kinds, payload.masks, share, ids.generation, extra)
            yield grid.create_message(wire.content(data, phase), self.message_type, node.id + 1, str(self.task.round))

    def _density(self, payload: Payload) -> float:
        return masks.density(masks.bits(payload), self.federation.setup.sizes)

    def _book_down(self, node: Node) -> None:
        sent, attempts = self.sent[node.id], self.attempts.get(node.id, 1)
        for attempt in range(1, attempts + 1):
            lost = attempt < attempts or self.status.get(node.id) == "lost"
            self.ledger.message(
                round=self.task.round, phase=self.task.phase, client=node.id, direction="down", length=sent.length,
                kinds=sent.kinds, transport=sent.transport, attempt=attempt, status="lost" if lost else "ok",
            )  # fmt: skip

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
            data, _, seconds = wire.unpack(message)
            reply, generation = self._read(node, data, seconds)
        except (DecodeError, wire.Refused) as why:
            log.warning("round %d: the reply of client %d was refused: %s", self.task.round, node.id, why)
            self.why = self.why or f"client {node.id}: {why}"
            self._book_up(node, data, "refused")
            return None
        if first:
            self.generations[node.id] = generation
            self._book_up(node, data, "ok")
        return reply

    def _read(self, node: Node, data: bytes, seconds: float) -> tuple[Reply, int]:
        sent, phase = self.sent[node.id], self.task.phase
        schema = NOTHING if phase == EVALUATE else self.federation.strategy.uplink_schema(phase)
        payload = wire.decode(data, schema, sent.known)
        ids = codec.header(data).ids
        if replace(ids, generation=0) != Ids(self.run_id, self.task.round, node.id):
            raise wire.Refused("it names another run, round or client")
        if ids.generation not in (sent.generation, sent.generation + 1):
            raise wire.Refused(f"it names generation {ids.generation} of the client's state, not {sent.generation}")
        self._check(payload.info)
        reply = Reply(node, payload, seconds=seconds)
        own = payload.kind == "weights" and bool(payload.masks)
        if payload.kind == "weights" and self.held is not None:
            self.held[node.id] = masks.bits(payload)
        self.seen[node.id] = Seen(payload.info, self._density(payload) if own else sent.density, seconds)
        return reply, ids.generation

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

    def _book_up(self, node: Node, data: bytes, status: str) -> None:
        self.status[node.id] = status
        self.ledger.message(
            round=self.task.round, phase=self.task.phase, client=node.id, direction="up", length=len(data),
            kinds=sizes(data) if status == "ok" else {"values": 0, "mask": 0, "dense": 0, "header": len(data)},
            transport=wire.transport(data, self.task.phase, self.message_type, True) if data else 0,
            attempt=self.attempts.get(node.id, 1), status=status,
        )  # fmt: skip

    def close(self) -> dict[int, Seen]:
        """Book what nobody looked at, and a row for every client of the cohort; returns what each usable reply told."""
        for _ in self:
            if len(self.status) == len(self.task.cohort):
                break
        evaluated = self.task.phase == EVALUATE  # on the test part, whose size the client tells
        for node in self.task.cohort:
            density = self.sent[node.id].density if node.id in self.sent else 1.0
            seen = self.seen.get(node.id, Seen({}, density, 0.0))
            told = {f"x_{k}": float(v) for k, v in seen.info.items() if k not in ENGINE_INFO and not isinstance(v, str)}
            self.ledger.add(
                "clients", round=self.task.round, phase=self.task.phase, client=node.id, device=node.device,
                status=self.status[node.id], examples=seen.info.get("examples", 0) if evaluated else node.examples,
                steps=seen.info.get("steps", 0), flops=None, density=seen.density, loss=seen.info.get("loss"),
                metric=seen.info.get("metric"), seconds=seen.seconds, **told,
            )  # fmt: skip
        return {client: seen for client, seen in self.seen.items() if self.status[client] == "ok"}

"""One task of a round: take the replies in, check them, time them, book both directions."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid
from torch import Tensor

from fedsparse import clock, codec, masks
from fedsparse.codec import DecodeError
from fedsparse.flower import wire
from fedsparse.flower.client_app import EVALUATE
from fedsparse.flower.held import Given, arrays, differs
from fedsparse.flower.outgoing import Outgoing
from fedsparse.ledger import sizes
from fedsparse.payload import Ids, Scalar
from fedsparse.strategy import Node, Reply

log = logging.getLogger("fedsparse")
ENGINE_INFO = ("examples", "steps", "loss", "metric")


@dataclass(frozen=True)
class Seen:
    """What a usable reply told: its scalars, the density of its client's model, what its client's work cost."""

    info: Mapping[str, Scalar]
    density: float
    cost: wire.Cost = wire.Cost()


@dataclass
class Exchange(Outgoing):
    """The messages of one task. Iterating gives the replies in the cohort's order and decodes one at a time.

    The first pass checks and books each reply; a reply that cannot be used is booked as refused and left out.
    """

    raw: dict[int, Message] = field(default_factory=dict)
    status: dict[int, str] = field(default_factory=dict)
    seen: dict[int, Seen] = field(default_factory=dict)
    held: dict[int, dict[str, Tensor]] | None = None  # the clients' own masks, where they are asked for
    why: str = ""  # the first error that a client replied
    first: int = 0  # so many replies end the task; 0: all
    times: dict[int, clock.Times] = field(default_factory=dict)
    end: clock.End = clock.End(0.0)

    _near: tuple[Given | None, dict[str, np.ndarray]] = (None, {})  # what was sent to whom a reply came last from

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
        if self.task.phase != EVALUATE:
            self._time()

    def _time(self) -> None:
        """What the task takes by the virtual clock, and which replies come too late for it."""
        arrivals: dict[int, float] = {}
        losses: dict[int, float] = {}
        for node in self.task.cohort:
            sent, reply = self.sent.get(node.id, []), self.raw.get(node.id)
            down = [each.length for each in sent for _ in range(each.asked)]
            up = [len(each.unused) for each in sent if each.unused]
            cost = wire.Cost()
            if reply is not None:
                with suppress(wire.Refused):  # a second look says why
                    data, _, cost = wire.unpack(reply)
                    up.append(len(data))
            times = clock.client_seconds(node.profile, down, cost.flops, cost.flops_sparse, up)
            self.times[node.id] = times
            (losses if reply is None else arrivals)[node.id] = times.total
        self.end = clock.end(arrivals, losses, self.federation.experiment.clock.deadline, self.first)

    @property
    def excused(self) -> bool:
        """Whether replies are missing because of devices, by their profiles, and nobody has made a mistake."""
        dropped = any(each.dropped for sent in self.sent.values() for each in sent)
        return not self.why and (dropped or bool(self.end.late))

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
            if node.id in self.raw and self.status.get(node.id) not in ("refused", "late"):
                reply = self._take(node, self.raw[node.id])
                if reply is not None:
                    yield reply

    def _take(self, node: Node, message: Message) -> Reply | None:
        """Decode a reply; the first time, check and book it. None when it cannot be used, or is late."""
        data, first = b"", node.id not in self.status
        try:
            data, phase, cost = wire.unpack(message)
            if phase == wire.NOT_HELD:
                raise wire.Refused("it does not hold what it was sent whole")
            reply, generation = self._read(node, data, cost)
        except (DecodeError, wire.Refused) as why:
            log.warning("round %d: the reply of client %d was refused: %s", self.task.round, node.id, why)
            self.why = self.why or f"client {node.id}: {why}"
            self._settle(node, data, "refused")
            return None
        if node.id in self.end.late:  # as if it had never come: the client's state stays as the server knows it
            self._settle(node, data, "late")
            return None
        if first:
            self.generations[node.id] = generation
            if self.task.phase != EVALUATE:
                self.holdings.answered(node.id, self.sent[node.id][-1].given)
            self._settle(node, data, "ok")
        return reply

    def _read(self, node: Node, data: bytes, cost: wire.Cost) -> tuple[Reply, int]:
        sent, phase, head = self.sent[node.id][-1], self.task.phase, codec.header(data)
        schema = wire.NOTHING if phase == EVALUATE else self.federation.strategy.uplink_schema(phase)
        near = self._as_received(sent.given) if differs(head.kind, self.federation.experiment.wire) else None
        payload, ids = wire.decode(data, schema, sent.given.payload.masks, near), head.ids
        self._check_ids(node, ids)
        if ids.generation not in (sent.generation, sent.generation + 1):
            raise wire.Refused(f"it names generation {ids.generation} of the client's state, not {sent.generation}")
        self._check(payload.info)
        taken = self.times[node.id].total if node.id in self.times else 0.0
        reply = Reply(node, payload, cost.flops, cost.seconds, taken)
        model = payload.kind == "weights" and any(n in payload.weights for n in self.federation.setup.maskable)
        own = model and bool(payload.masks)
        if model and self.held is not None and node.id not in self.end.late:
            self.held[node.id] = masks.bits(payload)
        self.seen[node.id] = Seen(payload.info, self._density(payload) if own else sent.given.density, cost)
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
            kinds={"values": 0, "mask": 0, "dense": 0, "header": len(data)} if status == "refused" else sizes(data),
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
            seen = self.seen.get(node.id, Seen({}, density))
            times = self.times.get(node.id)
            told = {f"x_{k}": float(v) for k, v in seen.info.items() if k not in ENGINE_INFO and not isinstance(v, str)}
            self.ledger.add(
                "clients", round=self.task.round, phase=self.task.phase, client=node.id, device=node.device,
                status=self.status[node.id], examples=seen.info.get("examples", 0) if evaluated else node.examples,
                steps=seen.info.get("steps", 0), flops=None if evaluated else seen.cost.flops,
                flops_sparse=None if evaluated else seen.cost.flops_sparse, density=seen.density,
                loss=seen.info.get("loss"), metric=seen.info.get("metric"), seconds=seen.cost.seconds,
                sim_seconds=times and times.total, **told,
            )  # fmt: skip
        return {client: seen for client, seen in self.seen.items() if self.status[client] == "ok"}

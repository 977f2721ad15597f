"""A Grid over one of Flower's whose clients are processes of their own: who they are, and deadlines for all."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedsparse.errors import RunError
from fedsparse.flower.context import CALL
from fedsparse.flower.grids import CLIENT_FAILED
from fedsparse.flower.private import Run

log = logging.getLogger("fedsparse")
POLL = 0.2  # seconds between looks for replies; Flower's own loop takes 3


class RemoteGrid(Grid):
    """Flower's Grid with our node ids, which are client numbers plus one.

    `mine`: what each client must have like the server (`context.present`). `nodes`: the id of each client's SuperNode,
    where keys tell them apart; else the nodes themselves say in the roll call which client they are. `connect` and
    `reply`: seconds that clients have to come, and to answer.
    """

    def __init__(
        self, grid: Grid, clients: int, mine: Mapping[str, str], nodes: Mapping[int, int] | None = None,
        connect: float = 120.0, reply: float = 3600.0,
    ) -> None:  # fmt: skip
        self.grid, self.clients, self.mine, self.known = grid, clients, mine, dict(nodes or {})
        self.connect, self.reply = connect, reply
        self.nodes: dict[int, int] = {}  # client -> node id
        self._unfit: set[int] = set()  # nodes that are no client of this run
        self.examples: dict[int, int] = {}  # client -> training samples
        self.attempts: dict[int, int] = {}
        self._asked: dict[str, int] = {}  # message id -> client: an error that Flower itself makes names no node

    @property
    def run(self) -> Run:
        return self.grid.run

    def set_run(self, run: Run) -> None:
        self.grid.set_run(run)

    def get_node_ids(self) -> Iterable[int]:
        return [client + 1 for client in sorted(self.nodes)]

    def client_of(self, reply: Message) -> int:
        """The client that was asked what this replies to."""
        return self._asked.get(reply.metadata.reply_to_message_id, -1)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to the SuperNode of a client."""
        return Message(content, self.nodes[dst_node_id - 1], message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self.grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self.grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Replies as they arrive; who has not answered in `timeout` (else `reply`) seconds is left out."""
        clients = {node: client for client, node in self.nodes.items()}
        self._asked = {}
        for message in messages:  # made when it is asked for: the first client begins while the last one is sent to
            if number := self._push(message):
                self._asked[number] = clients[message.metadata.dst_node_id]
        waiting = set(self._asked)
        deadline = time.monotonic() + (self.reply if timeout is None else timeout)
        while waiting and time.monotonic() < deadline:
            for reply in self.grid.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                yield reply
            if waiting:
                time.sleep(POLL)

    def _push(self, message: Message) -> str:
        """The message's id; empty when Flower does not take it (its node has gone, it is too large): no reply comes."""
        return next(iter(self.grid.push_messages([message])), None) or ""

    # ---- the roll call ----

    def gather(self) -> None:
        """Wait until every client is there and can take part. RunError names who is missing, or does not fit."""
        calls: dict[str, int] = {}  # message id -> node
        deadline = time.monotonic() + self.connect
        while len(self.nodes) < self.clients:
            there = set(self.grid.get_node_ids())
            wanted = there & set(self.known.values()) if self.known else there
            for node in sorted(wanted - set(calls.values()) - set(self.nodes.values()) - self._unfit):
                if number := self._push(self._call(node)):
                    calls[number] = node
            for reply in self.grid.pull_messages(set(calls)) if calls else ():
                self._enrol(calls.pop(reply.metadata.reply_to_message_id), reply)
            if time.monotonic() > deadline:
                missing = ", ".join(str(c) for c in range(self.clients) if c not in self.nodes)
                raise RunError(
                    f"{len(self.nodes)} of {self.clients} clients were there after runtime.connect = "
                    f"{self.connect:g} seconds: missing is client {missing}"
                )
            time.sleep(POLL)

    def _call(self, node: int) -> Message:
        return Message(RecordDict({CALL: ConfigRecord({})}), node, "query", group_id="roll call")

    def _enrol(self, node: int, reply: Message) -> None:
        owners = {known: client for client, known in self.known.items()}
        name = f"client {owners[node]}" if node in owners else f"node {node}"
        if reply.has_error():
            if reply.error.code != CLIENT_FAILED:  # it went away: it is asked again when it is there
                log.warning("%s did not answer the roll call: %s", name, _line(reply.error.reason))
                return
            raise RunError(f"{name} cannot take part: {_line(reply.error.reason)}")
        told = reply.content.config_records.get(CALL, ConfigRecord())
        client, examples = told.get("client"), told.get("examples")
        if not isinstance(client, int) or owners.get(node, client) != client:
            raise RunError(f"{name} says that it is client {client!r}: its node config must have its own partition-id")
        if not 0 <= client < self.clients:
            self._unfit.add(node)
            log.warning("%s says that it is client %d, and there are %d: it is left out", name, client, self.clients)
            return
        for key, value in self.mine.items():
            if told.get(key) != value:
                raise RunError(f"{name} has {key} {_line(told.get(key))}, and the server {value}: they must agree")
        if not isinstance(examples, int) or isinstance(examples, bool) or not 0 < examples < 2**53:
            raise RunError(f"{name} says that it has {examples!r} training samples: a number above 0 is needed")
        if self.nodes.setdefault(client, node) != node:
            raise RunError(f"two nodes have partition-id = {client}: each client needs its own")
        self.examples[client] = examples


def _line(text: object) -> str:
    """What a client says, cut to one short line."""
    lines = str(text).strip().splitlines()
    return lines[0][:300] if lines else ""

"""SuperNodes without Flower's processes, for tests: each client a node with its own config."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from federations import small
from flwr.app import Context, Error, Message, RecordDict

from fedsparse.federation import federation, forget
from fedsparse.flower import private
from fedsparse.flower.client_app import app
from fedsparse.flower.context import present
from fedsparse.flower.grids import LocalGrid
from fedsparse.flower.remote import RemoteGrid

NODES = {0: 7001, 1: 903, 2: 55, 3: 12345}  # as Flower numbers them: anyhow


class Elsewhere(LocalGrid):
    """SuperNodes, each with its own config, whose replies come in another order than they were asked in."""

    def __init__(self, home: Path, text: str, nodes: dict[int, int] | None = None) -> None:
        super().__init__(0, {"experiment": text})
        self.configs: dict[int, dict[str, Any]] = {
            node: {"partition-id": client, "state": str(home / str(client))}
            for client, node in (NODES if nodes is None else nodes).items()
        }
        self.change: Callable[[Message], Message] = lambda reply: reply
        self.silent: set[int] = set()
        self.untaken: dict[int, list[str]] = {}  # node -> what Flower says when it takes no message for it
        self.waiting: dict[str, Message] = {}

    def get_node_ids(self) -> Iterable[int]:
        return list(self.configs)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        assert messages, "Flower refuses to push nothing"
        if (said := self.untaken.get(messages[0].metadata.dst_node_id)) is not None:
            return said
        for message in messages:
            private.set_message_id(message, uuid.uuid4().hex)
            self.waiting[message.metadata.message_id] = message
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        message_ids = set(message_ids)
        assert message_ids and "" not in message_ids, "it asks for what was never sent"
        ready = [self.waiting.pop(number) for number in message_ids if number in self.waiting]
        return [self.reply(m) for m in reversed(ready) if m.metadata.dst_node_id not in self.silent]

    def reply(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        context = Context(1, node, self.configs[node], RecordDict(), self.run_config)
        if "data" in self.configs[node]:
            forget()  # a client is a process of its own
        try:
            reply = app(message, context)
        except Exception as error:
            reply = Message(Error(code=2, reason=f"{type(error).__name__}: {error}"), reply_to=message)
        private.set_message_id(reply, f"reply-{message.metadata.message_id}")
        return self.change(reply)


def remote(grid: Elsewhere, nodes: dict[int, int] | None = None, **deadlines: float) -> RemoteGrid:
    mine = present(federation(small().to_toml()))
    return RemoteGrid(grid, 4, mine, nodes, **{"connect": 5.0, "reply": 5.0, **deadlines})


def unavailable(reply: Message) -> Message:
    """What the SuperLink makes of a reply whose node went away: an error that names no node."""
    error = Message(Error(code=5, reason="Node Unavailable"), reply_to=reply)
    error.metadata.__dict__.update(_reply_to_message_id=reply.metadata.reply_to_message_id, _src_node_id=1)
    return error

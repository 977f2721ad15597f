"""Flower Grids of ours: they carry messages to ClientApps. `local` runs them in this process, one after the other."""

from __future__ import annotations

import traceback
import uuid
from collections.abc import Iterable, Iterator

from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.serverapp import Grid

from fedsparse.flower import private
from fedsparse.flower.client_app import app
from fedsparse.flower.private import Run

CLIENT_FAILED, WORKER_DIED = 2, 8  # the codes that Flower itself gives to these two events


class OwnGrid(Grid):
    """What our grids share: calls are synchronous, node ids are partition numbers plus one (0 is Flower's own)."""

    def __init__(self, clients: int, run_config: UserConfig, run_id: int = 1) -> None:
        self.clients, self.run_config = clients, run_config
        self.attempts: dict[
            int, int
        ] = {}  # client -> how often it was asked in the last exchange, where more than once
        self._run = private.empty_run(run_id)
        self._replies: dict[str, Message] = {}
        private.identify(run_id)

    @property
    def run(self) -> Run:
        return self._run

    def set_run(self, run: Run) -> None:
        self._run = run

    def get_node_ids(self) -> Iterable[int]:
        return range(1, self.clients + 1)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node, numbered."""
        message = Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)
        private.set_message_id(message, uuid.uuid4().hex)
        return message

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run the messages at once and keep their replies for `pull_messages`."""
        messages = list(messages)
        for reply in self.send_and_receive(messages):
            self._replies[reply.metadata.reply_to_message_id] = reply
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(i) for i in message_ids if i in self._replies]


def answer(message: Message, run_config: UserConfig) -> Message:
    """What the ClientApp replies; when it fails, Flower's error reply with the exception in one line."""
    node = message.metadata.dst_node_id
    context = Context(message.metadata.run_id, node, {"partition-id": node - 1}, RecordDict(), run_config)
    try:
        reply = app(message, context)
    except Exception as error:  # whatever a method raises is that client's failure, not the run's
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
        reply = Message(Error(code=CLIENT_FAILED, reason=reason), reply_to=message)
    private.set_message_id(reply, f"reply-{message.metadata.message_id}")
    return reply


class LocalGrid(OwnGrid):
    """Clients in this process, in the order of the messages."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        self.attempts = {}
        for message in messages:
            yield answer(message, self.run_config)

"""The private names of Flower that we use do what we think they do."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys

import pytest
from flwr.app import Error, Message

from fedsparse.flower import private, wire
from fedsparse.flower.grids import LocalGrid


def test_it_is_the_flower_that_was_tested() -> None:
    assert importlib.metadata.version("flwr").startswith("1.39.")


def test_messages_can_be_made_numbered_and_answered() -> None:
    grid = LocalGrid(3, {}, 7)
    assert grid.run.run_id == 7
    message = grid.create_message(wire.content(b"abc", "train"), "train", 2, "1")
    assert message.metadata.message_id and message.metadata.run_id == 7
    reply = Message(Error(code=2, reason="why"), reply_to=message)
    assert reply.metadata.reply_to_message_id == message.metadata.message_id
    assert wire.client_of(reply) == 1
    assert list(grid.get_node_ids()) == [1, 2, 3]


def test_transport_is_what_a_serialised_message_has_beside_its_payload() -> None:
    from flwr.common.serde import message_to_proto

    for length in (10, 1000, 70_000):
        grid = LocalGrid(1, {}, 1)
        message = grid.create_message(wire.content(bytes(length), "train"), "train", 1, "")
        whole = message_to_proto(message).ByteSize()
        said = wire.transport(bytes(length), "train", "train", False)
        assert abs(whole - length - said) <= 24, (whole - length, said)


def test_transport_does_not_depend_on_who_asks() -> None:
    from flwr.supercore.task_identity import TaskIdentity

    LocalGrid(1, {}, 7)
    here = private.transport_bytes.__wrapped__(20, "train", "train", ("seconds",))
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 15922396985965104118
    there = private.transport_bytes.__wrapped__(20, "train", "train", ("seconds",))
    LocalGrid(1, {}, 7)
    assert there == here


def test_push_and_pull_answer_too() -> None:
    grid = LocalGrid(1, {"experiment": "rounds = 0"}, 1)
    message = grid.create_message(wire.content(b"not a payload", "train"), "train", 1, "1")
    (number,) = grid.push_messages([message])
    (reply,) = grid.pull_messages([number])
    assert reply.has_error() and list(grid.pull_messages([number])) == []


@pytest.mark.parametrize(("said", "found"), [(None, "0"), ("1", "1")])
def test_telemetry_is_off_unless_asked_for(said: str | None, found: str) -> None:
    names = ("FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {} if said is None else dict.fromkeys(names, said)
    script = (
        f"import sys; sys.path[:] = {sys.path!r}; import os, fedsparse.flower; print([os.environ[n] for n in {names}])"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == str([found, found]), done.stderr

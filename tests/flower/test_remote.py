"""The roll call of clients elsewhere: who they are, and that they fit. Flower's own grid is played here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from federations import small
from flower.elsewhere import NODES, Elsewhere, remote, unavailable
from flwr.app import ConfigRecord, Message, RecordDict

from fedsparse.errors import RunError
from fedsparse.federation import federation
from fedsparse.flower.context import CALL


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    return Elsewhere(tmp_path, small().to_toml())


def at_the_fourth_look(grid: Elsewhere, change: Callable[[], None]) -> None:
    looks = 0

    def ids() -> Iterable[int]:
        nonlocal looks
        looks += 1
        if looks == 4:
            change()
        return list(grid.configs)

    grid.get_node_ids = ids  # type: ignore[method-assign]


def test_who_is_missing_is_named(elsewhere: Elsewhere) -> None:
    elsewhere.silent = {NODES[2]}
    with pytest.raises(RunError, match=r"3 of 4 clients were there after runtime.connect = 0.5 seconds.* client 2$"):
        remote(elsewhere, connect=0.5).gather()


def test_a_node_that_comes_late_is_waited_for(elsewhere: Elsewhere) -> None:
    late = elsewhere.configs.pop(NODES[3])
    at_the_fourth_look(elsewhere, lambda: elsewhere.configs.update({NODES[3]: late}))
    grid = remote(elsewhere)
    grid.gather()
    assert grid.nodes == NODES


@pytest.mark.parametrize("said", [[], [""]], ids=["nothing", "no id"])
def test_a_node_for_which_flower_takes_no_message_is_asked_again(said: list[str], elsewhere: Elsewhere) -> None:
    elsewhere.untaken = {NODES[1]: said}
    at_the_fourth_look(elsewhere, elsewhere.untaken.clear)
    grid = remote(elsewhere)
    grid.gather()
    assert grid.nodes == NODES and not elsewhere.untaken


def test_a_node_too_many_is_never_asked(elsewhere: Elsewhere, tmp_path: Path) -> None:
    elsewhere.configs[999] = {"partition-id": 4, "state": str(tmp_path / "4")}
    grid = remote(elsewhere)
    grid.gather()
    assert grid.nodes == NODES


def test_a_node_without_a_registered_key_is_not_asked_where_keys_are_known(elsewhere: Elsewhere) -> None:
    elsewhere.configs[999] = {"partition-id": 0}
    grid = remote(elsewhere, NODES)
    grid.gather()
    assert grid.nodes == NODES


def test_a_stray_node_of_another_version_ends_nobodys_run(elsewhere: Elsewhere, tmp_path: Path) -> None:
    elsewhere.configs[999] = {"partition-id": 7, "state": str(tmp_path / "7")}
    grid = remote(elsewhere)
    grid.mine = {**grid.mine, "fedsparse": "9.9"}
    elsewhere.configs = {999: elsewhere.configs[999]}
    grid.connect = 0.5
    with pytest.raises(RunError, match="0 of 4 clients"):
        grid.gather()


def test_a_node_that_went_away_is_asked_again(elsewhere: Elsewhere) -> None:
    gone = 2

    def away(reply: Message) -> Message:
        nonlocal gone
        if reply.metadata.src_node_id != NODES[1] or gone == 0:
            return reply
        gone -= 1
        return unavailable(reply)

    elsewhere.change = away
    grid = remote(elsewhere)
    grid.gather()
    assert grid.nodes == NODES and gone == 0


def test_two_nodes_cannot_be_one_client(elsewhere: Elsewhere) -> None:
    elsewhere.configs[NODES[3]]["partition-id"] = 1
    with pytest.raises(RunError, match="two nodes have partition-id = 1"):
        remote(elsewhere).gather()


def test_a_node_cannot_take_the_place_of_another_key(elsewhere: Elsewhere) -> None:
    elsewhere.configs[NODES[3]]["partition-id"] = 1
    with pytest.raises(RunError, match="client 3 says that it is client 1"):
        remote(elsewhere, NODES).gather()


@pytest.mark.parametrize("said", [None, -1, "0", True])
def test_a_node_must_say_which_client_it_is(said: Any, elsewhere: Elsewhere) -> None:
    elsewhere.configs[NODES[0]]["partition-id"] = said
    with pytest.raises(RunError, match="cannot take part: .*must have partition-id, the client's number from 0"):
        remote(elsewhere).gather()


def test_a_client_without_the_data_says_so(
    elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDSPARSE_DATA", "set back afterwards")
    elsewhere.run_config = {"experiment": small(dataset="hapt", clients=None, partition="natural").to_toml()}
    elsewhere.configs[NODES[1]]["data"] = str(tmp_path)
    federation.cache_clear()
    with pytest.raises(RunError, match="cannot take part: InputError: The data set hapt is missing"):
        remote(elsewhere).gather()


@pytest.mark.parametrize("key", ["fedsparse", "the wire format", "the experiment's hash"])
def test_what_differs_between_the_two_sides_is_named(key: str, elsewhere: Elsewhere) -> None:
    def older(reply: Message) -> Message:
        told = dict(reply.content.config_records[CALL]) | {key: "0.0.1"}
        reply.content = RecordDict({CALL: ConfigRecord(told)})
        return reply

    elsewhere.change = older
    with pytest.raises(RunError, match=f"has {key} 0.0.1, and the server"):
        remote(elsewhere).gather()


def test_a_reply_that_is_no_roll_call_is_refused(elsewhere: Elsewhere) -> None:
    def empty(reply: Message) -> Message:
        reply.content = RecordDict({})
        return reply

    elsewhere.change = empty
    with pytest.raises(RunError, match="says that it is client None"):
        remote(elsewhere).gather()


@pytest.mark.parametrize("said", [None, 0, -3, True, 1e9])
def test_a_number_of_samples_is_a_number(said: Any, elsewhere: Elsewhere) -> None:
    def change(reply: Message) -> Message:
        told = {k: v for k, v in reply.content.config_records[CALL].items() if k != "examples"}
        reply.content = RecordDict({CALL: ConfigRecord(told | ({} if said is None else {"examples": said}))})
        return reply

    elsewhere.change = change
    with pytest.raises(RunError, match="training samples: a number above 0 is needed"):
        remote(elsewhere).gather()

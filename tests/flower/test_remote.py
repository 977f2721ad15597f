"""Clients elsewhere: who they are, that they fit, and that nothing else changes. Flower's own grid is played here."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from federations import small
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict

from fedsparse import columns, folder
from fedsparse.errors import InputError, RunError
from fedsparse.experiment import Experiment
from fedsparse.federation import federation, forget
from fedsparse.flower import private
from fedsparse.flower.client_app import app
from fedsparse.flower.context import CALL, client_number, experiment_text, numbered, present
from fedsparse.flower.grids import LocalGrid
from fedsparse.flower.grpc import Remote, watch
from fedsparse.flower.remote import RemoteGrid
from fedsparse.flower.server_app import STORES, run_id, serve
from fedsparse.ledger import rounds_so_far

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
        self.waiting: dict[str, Message] = {}

    def get_node_ids(self) -> Iterable[int]:
        return list(self.configs)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        assert messages, "Flower refuses to push nothing"
        for message in messages:
            private.set_message_id(message, uuid.uuid4().hex)
            self.waiting[message.metadata.message_id] = message
        return [message.metadata.message_id for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
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


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    return Elsewhere(tmp_path, small().to_toml())


@pytest.mark.parametrize("known", [True, False], ids=["by their keys", "by what they say"])
@pytest.mark.parametrize("strategy", ["fedavg", "feddip", "personalized_masks"])
def test_the_result_is_that_of_a_simulation(strategy: str, known: bool, tmp_path: Path) -> None:
    experiment = small(strategy=strategy)
    text, fed = experiment.to_toml(), federation(experiment.to_toml())
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    here = LocalGrid(4, {"experiment": text, "stores": str(tmp_path / "here" / STORES)}, run_id(fed))
    simulated = serve(fed, here, tmp_path / "here", "test")
    there = RemoteGrid(Elsewhere(tmp_path / "nodes", text), 4, present(fed), NODES if known else None)
    real = serve(fed, there, tmp_path / "there", "test")
    for key in ("model_hash", "final", "final_personal", "bytes_up", "bytes_down", "density"):
        assert real[key] == simulated[key], key
    assert real["model_hash"] and real["clients_hash"] is None and simulated["clients_hash"]
    for table, times in {"messages": [], "clients": ["seconds"], "rounds": ["seconds"], "layers": []}.items():
        mine, theirs = (pd.read_parquet(tmp_path / place / f"{table}.parquet") for place in ("here", "there"))
        pd.testing.assert_frame_equal(mine.drop(columns=times), theirs.drop(columns=times))


def test_a_client_draws_its_split_once_and_draws_it_anew_for_another_experiment(tmp_path: Path) -> None:
    text = small().to_toml()
    remote(Elsewhere(tmp_path, text)).gather()
    (kept,) = (tmp_path / "0").glob("*/split.npz")
    before = kept.stat().st_mtime_ns
    federation.cache_clear()
    remote(Elsewhere(tmp_path, text)).gather()
    assert kept.stat().st_mtime_ns == before
    other = small(seed=1)
    RemoteGrid(Elsewhere(tmp_path, other.to_toml()), 4, present(federation(other.to_toml()))).gather()
    assert len(list((tmp_path / "0").glob("*/split.npz"))) == 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "0", *(tmp_path / "0").iterdir()))
    kept.write_bytes(b"torn")
    federation.cache_clear()
    remote(Elsewhere(tmp_path, text)).gather()
    assert kept.stat().st_size > 100


# ---- who takes part ----


def test_who_is_missing_is_named(elsewhere: Elsewhere) -> None:
    elsewhere.silent = {NODES[2]}
    with pytest.raises(RunError, match=r"3 of 4 clients were there after runtime.connect = 0.5 seconds.* client 2$"):
        remote(elsewhere, connect=0.5).gather()


def test_a_node_that_comes_late_is_waited_for(elsewhere: Elsewhere) -> None:
    late = elsewhere.configs.pop(NODES[3])
    looks = 0

    def ids() -> Iterable[int]:
        nonlocal looks
        looks += 1
        if looks == 4:
            elsewhere.configs[NODES[3]] = late
        return list(elsewhere.configs)

    elsewhere.get_node_ids = ids  # type: ignore[method-assign]
    grid = remote(elsewhere)
    grid.gather()
    assert grid.nodes == NODES


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
        # As the SuperLink makes it: the error names no node.
        error = Message(Error(code=5, reason="Node Unavailable"), reply_to=reply)
        error.metadata.__dict__.update(_reply_to_message_id=reply.metadata.reply_to_message_id, _src_node_id=1)
        return error

    elsewhere.change = away
    grid = remote(elsewhere)
    grid.gather()
    assert grid.nodes == NODES and gone == 0


def test_an_error_that_names_no_node_is_still_its_clients(tmp_path: Path) -> None:
    experiment = small(rounds=2)
    fed = federation(experiment.to_toml())
    grid = Elsewhere(tmp_path / "nodes", experiment.to_toml())
    served = RemoteGrid(grid, 4, present(fed), NODES)
    (tmp_path / "run").mkdir()

    def lost(row: dict[str, Any]) -> None:
        def change(reply: Message) -> Message:
            if reply.metadata.src_node_id != NODES[3]:
                return reply
            error = Message(Error(code=5, reason="Node Unavailable"), reply_to=reply)
            error.metadata.__dict__.update(_reply_to_message_id=reply.metadata.reply_to_message_id, _src_node_id=1)
            return error

        grid.change = change

    with folder.logged(tmp_path / "run" / "log.txt"):
        serve(fed, served, tmp_path / "run", "test", lost)
    assert "client 3 is lost: Node Unavailable" in (tmp_path / "run" / "log.txt").read_text()


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


# ---- data that only their owners have ----


def own(**changes: Any) -> Experiment:
    table = {"name": "table", "file": "own.csv", "target": "label"}
    return small(clients=2, dataset=table, partition="own", runtime={"name": "grpc"}, rounds=2, **changes)


def write_own(folder: Path, rows: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, 3))
    table = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "label": (x[:, 0] > 0).astype(int)})
    folder.mkdir()
    table.to_csv(folder / "own.csv", index=False)


def test_each_client_reads_its_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, rows in {"server": 60, "0": 100, "1": 40}.items():
        write_own(tmp_path / name, rows, rows)
    monkeypatch.setenv("FEDSPARSE_DATA", str(tmp_path / "server"))
    forget()
    fed = federation(own().to_toml())
    assert [node.examples for node in fed.nodes] == [0, 0] and len(fed.test[1]) == 60
    grid = Elsewhere(tmp_path / "nodes", own().to_toml(), {0: 7001, 1: 903})
    for client, node in {0: 7001, 1: 903}.items():
        grid.configs[node]["data"] = str(tmp_path / str(client))
    (tmp_path / "run").mkdir()
    info = serve(fed, RemoteGrid(grid, 2, present(fed)), tmp_path / "run", "test")
    assert info["status"] == "done"
    clients = pd.read_parquet(tmp_path / "run" / "clients.parquet")
    assert clients.query("phase == 'train'").groupby("client")["examples"].unique().tolist() == [[70], [28]]
    assert clients.query("phase == 'evaluate'").groupby("client")["examples"].unique().tolist() == [[20], [8]]


def test_clients_must_agree_on_what_a_sample_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_own(tmp_path / "server", 60, 0)
    write_own(tmp_path / "0", 60, 1)
    pd.read_csv(tmp_path / "0" / "own.csv").drop(columns="c").to_csv(tmp_path / "0" / "own.csv", index=False)
    monkeypatch.setenv("FEDSPARSE_DATA", str(tmp_path / "server"))
    forget()
    fed = federation(own().to_toml())
    grid = Elsewhere(tmp_path / "nodes", own().to_toml(), {0: 7001})
    grid.configs[7001]["data"] = str(tmp_path / "0")
    with pytest.raises(RunError, match=r"has inputs of the shape \(2,\), and the server \(3,\)"):
        RemoteGrid(grid, 2, present(fed)).gather()


def test_a_client_whose_data_are_not_the_servers_is_named() -> None:
    fed = federation(small().to_toml())
    examples = {node.id: node.examples for node in fed.nodes}
    with pytest.raises(RunError, match="client 2 has 7 training samples and the server's split gives it"):
        fed.told(examples | {2: 7})


def test_in_a_simulation_nobody_has_data_of_its_own() -> None:
    with pytest.raises(InputError, match="partition own is for real clients"):
        federation(small(partition="own").to_toml())


@pytest.mark.parametrize("said", [None, 0, -3, True, 1e9])
def test_a_number_of_samples_is_a_number(said: Any, elsewhere: Elsewhere) -> None:
    def change(reply: Message) -> Message:
        told = {k: v for k, v in reply.content.config_records[CALL].items() if k != "examples"}
        reply.content = RecordDict({CALL: ConfigRecord(told | ({} if said is None else {"examples": said}))})
        return reply

    elsewhere.change = change
    with pytest.raises(RunError, match="training samples: a number above 0 is needed"):
        remote(elsewhere).gather()


# ---- replies ----


def test_who_does_not_answer_is_lost_for_the_round_and_the_others_go_on(tmp_path: Path) -> None:
    experiment = small(rounds=2)
    text, fed = experiment.to_toml(), federation(experiment.to_toml())
    grid = Elsewhere(tmp_path / "nodes", text)
    served = RemoteGrid(grid, 4, present(fed), NODES, reply=1.0)
    (tmp_path / "run").mkdir()
    info = serve(fed, served, tmp_path / "run", "test", lambda row: grid.silent.add(NODES[1]))
    assert info["status"] == "done"
    clients = pd.read_parquet(tmp_path / "run" / "clients.parquet").query("phase == 'train'")
    assert clients.query("status == 'lost'")[["round", "client"]].values.tolist() == [[2, 1]]


def test_a_message_for_another_client_is_refused(tmp_path: Path) -> None:
    experiment = small(rounds=1)
    text, fed = experiment.to_toml(), federation(experiment.to_toml())
    grid = Elsewhere(tmp_path / "nodes", text)
    served = RemoteGrid(grid, 4, present(fed))
    served.gather()
    served.nodes[0], served.nodes[1] = served.nodes[1], served.nodes[0]
    (tmp_path / "run").mkdir()
    with pytest.raises(RunError):
        served.clients = 2
        served.gather = lambda: None  # type: ignore[method-assign]
        for node in (2, 3):
            grid.silent.add(NODES[node])
        served.reply = 1.0
        serve(fed, served, tmp_path / "run", "test")
    assert "a message for another client" in (tmp_path / "run" / "run.json").read_text()


# ---- run configs ----


def test_a_run_config_names_a_config_and_changes_it() -> None:
    text = experiment_text({"config": "quickstart", "strategy": "feddip", "rounds": 3, "set": "train.lr=0.25 seed=4"})
    assert 'name = "feddip"' in text and "rounds = 3" in text and "lr = 0.25" in text and "seed = 4" in text
    dotted = experiment_text({"config": "quickstart", "train.lr": 0.25, "local_bn": False, "out": "/x", "strategy": ""})
    assert "lr = 0.25" in dotted and 'name = "fedavg"' in dotted


def test_a_run_config_without_a_config_is_refused() -> None:
    with pytest.raises(InputError, match="names a config"):
        experiment_text({"rounds": 3})


def test_node_ids_in_a_run_config() -> None:
    assert numbered({"nodes": "0:7001 1:903"}) == {0: 7001, 1: 903}
    assert numbered({}) == {}
    with pytest.raises(InputError, match='such as "0:123 1:456", not "0=7"'):
        numbered({"nodes": "0=7"})


def test_a_client_number_is_a_number() -> None:
    assert client_number(Context(1, 2, {"partition-id": 3}, RecordDict(), {})) == 3


# ---- watching ----


def test_rounds_are_told_once_each_as_they_come_and_the_last_ones_too(tmp_path: Path) -> None:
    rows = tmp_path / "rounds.jsonl"
    told: list[int] = []
    looks = 0

    def alive() -> bool:
        nonlocal looks
        looks += 1
        with open(rows, "a", encoding="utf-8") as file:
            file.write(json.dumps({"round": looks, "metric": 0.5, "bytes_up": 1, "bytes_down": 2}) + "\n")
        return looks < 3

    watch(tmp_path, alive, lambda row: told.append(row["round"]))
    assert told == [1, 2, 3]
    columns.read_jsonl(rows, "rounds").to_parquet(tmp_path / "rounds.parquet")
    rows.unlink()
    assert [row["round"] for row in rounds_so_far(tmp_path)] == [1, 2, 3]


class Doomed:
    """A deployment whose server dies in its run."""

    made = 0

    def __init__(self, folder: Path) -> None:
        self.folder, self.nodes = folder, {}
        self.started = self.closed = False
        Doomed.made += 1

    def start(self) -> None:
        assert not self.started
        self.started = True

    def close(self) -> None:
        self.closed = True

    def submit(self, name: str, config: dict[str, Any]) -> Any:
        return lambda: False

    def why(self, name: str) -> str:
        return "the SuperLink was ended by signal 9"


def test_a_run_that_lost_its_server_has_failed_and_the_next_one_gets_a_new_deployment(tmp_path: Path) -> None:
    fed, served = federation(small().to_toml()), Remote(lambda: Doomed(tmp_path))  # type: ignore[arg-type, return-value]
    before = Doomed.made
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with pytest.raises(RunError, match="ended by signal 9 .the logs of all processes are in"):
            served(fed, tmp_path / name, "test")
        info = folder.read_json(tmp_path / name / "run.json")
        assert info["status"] == "failed" and info["why"] == "the SuperLink was ended by signal 9"
        assert (tmp_path / name / "rounds.parquet").exists()
    assert Doomed.made == before + 1


def test_ctrl_c_twice_is_still_interrupted(tmp_path: Path) -> None:
    class Slow(Doomed):
        def submit(self, name: str, config: dict[str, Any]) -> Any:
            raise KeyboardInterrupt

        def close(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Remote(lambda: Slow(tmp_path))(federation(small().to_toml()), tmp_path, "test")  # type: ignore[arg-type, return-value]
    assert folder.read_json(tmp_path / "run.json")["status"] == "interrupted"

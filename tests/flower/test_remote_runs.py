"""Runs whose clients are elsewhere: the result is that of a simulation, who goes is lost, and an end is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from federations import small
from flower.elsewhere import NODES, Elsewhere, remote, unavailable
from flwr.app import Message

from fedsparse import columns, folder
from fedsparse.errors import RunError
from fedsparse.federation import federation
from fedsparse.flower.context import present
from fedsparse.flower.grids import LocalGrid
from fedsparse.flower.grpc import Remote, watch
from fedsparse.flower.remote import RemoteGrid
from fedsparse.flower.server_app import STORES, run_id, serve
from fedsparse.ledger import rounds_so_far


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


def test_an_error_that_names_no_node_is_still_its_clients(tmp_path: Path) -> None:
    experiment = small(rounds=2)
    fed = federation(experiment.to_toml())
    grid = Elsewhere(tmp_path / "nodes", experiment.to_toml())
    served = RemoteGrid(grid, 4, present(fed), NODES)
    (tmp_path / "run").mkdir()

    def lost(row: dict[str, Any]) -> None:
        def change(reply: Message) -> Message:
            return unavailable(reply) if reply.metadata.src_node_id == NODES[3] else reply

        grid.change = change

    with folder.logged(tmp_path / "run" / "log.txt"):
        serve(fed, served, tmp_path / "run", "test", lost)
    assert "client 3 is lost: Node Unavailable" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize(
    "leave",
    [
        lambda grid: grid.silent.add(NODES[1]),
        lambda grid: grid.untaken.update({NODES[1]: []}),
        lambda grid: grid.untaken.update({NODES[1]: [""]}),
    ],
    ids=["silent", "nothing is taken", "no id"],
)
def test_who_does_not_answer_is_lost_for_the_round_and_the_others_go_on(
    leave: Callable[[Elsewhere], None], tmp_path: Path
) -> None:
    experiment = small(rounds=2)
    text, fed = experiment.to_toml(), federation(experiment.to_toml())
    grid = Elsewhere(tmp_path / "nodes", text)
    served = RemoteGrid(grid, 4, present(fed), NODES, reply=1.0)
    (tmp_path / "run").mkdir()
    info = serve(fed, served, tmp_path / "run", "test", lambda row: leave(grid))
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

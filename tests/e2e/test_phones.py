"""A hundred phones that come and go: the run goes on, and every message is accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest

import fedsparse as fs
from fedsparse import devices
from fedsparse.experiment import Experiment

CHANGES = {
    "model": {"name": "mlp"},
    "train": {"epochs": 1, "batch_size": 64, "lr": 0.5},
    "eval_every": 50,
    "runtime": {"name": "local"},
    "devices": {"phone": {"flops": 2e4}},  # an hour and more in all
    "clock": {"deadline": 60.0, "minimum": 17},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> fs.Run:
    return fs.run("phones_away", out=tmp_path_factory.mktemp("phones") / "run", **CHANGES)


def test_fifty_rounds_without_a_stall(run: fs.Run) -> None:
    assert run.summary["status"] == "done" and len(run.rounds) == 50
    trained = run.clients[run.clients["phase"] == "train"]
    counts = trained["status"].value_counts()
    assert set(counts.index) == {"ok", "late", "lost"} and counts["lost"] > 0.2 * len(trained)
    assert run.rounds["sim_seconds"].gt(0).all() and run.rounds["sim_wait"].max() > 0
    assert (run.rounds["sim_seconds"] - run.rounds["sim_wait"]).max() <= 60 + 1e-9


def test_every_message_is_accounted_for(run: fs.Run) -> None:
    trained = run.clients[run.clients["phase"] == "train"].set_index(["round", "client"]).sort_index()
    messages = run.messages[run.messages["phase"] == "train"].set_index(["round", "client"]).sort_index()
    down, up = (messages[messages["direction"] == way] for way in ("down", "up"))
    assert down.index.equals(trained.index)  # one to each that was asked
    assert down["status"].eq("lost").equals(trained["status"].eq("lost"))
    answered = trained[trained["status"] != "lost"]
    assert up.index.equals(answered.index) and up["status"].equals(answered["status"])
    assert run.summary["bytes_up"] == up["bytes"].sum() == run.rounds["bytes_up"].sum()
    assert run.summary["bytes_down"] == down["bytes"].sum() == run.rounds["bytes_down"].sum()


def test_only_phones_that_are_ready_are_asked(run: fs.Run) -> None:
    experiment = Experiment.load(Path(run.folder) / "config.toml")
    phones = devices.profiles(experiment.devices, 100, experiment.seed)
    began = run.rounds["sim_seconds"].cumsum() - run.rounds["sim_seconds"] + run.rounds["sim_wait"]
    for row, moment in zip(run.rounds.itertuples(), began, strict=True):
        asked = run.clients.query(f"phase == 'train' and round == {row.round}")["client"]
        ready = [client for client in range(100) if phones[client].availability.ready(moment)]
        assert len(ready) >= 17 and len(asked) == min(15, len(ready)) and set(asked) <= set(ready)

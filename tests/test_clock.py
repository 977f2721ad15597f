"""Simulated time: what a task takes, when it ends, and that the engine books it so."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from federations import built, small
from hypothesis import given
from hypothesis import strategies as st

import fedsparse as fs
from fedsparse.clock import Times, client_seconds, end, wait
from fedsparse.errors import InputError, RunError
from fedsparse.profiles import Intervals, Profile

SECONDS = st.dictionaries(st.integers(0, 9), st.floats(0, 100), max_size=10)


def test_a_clients_time_is_download_arithmetic_and_upload() -> None:
    phone = Profile(flops=100.0, down=10.0, up=5.0, latency=1.0)
    assert client_seconds(phone, [20, 10], 300.0, 30.0, [10]) == Times(2 + 3.0, 3.0, 1 + 2.0)
    assert client_seconds(phone, [20], 300.0, 30.0, [10]).total == 3.0 + 3.0 + 3.0


def test_zeros_save_time_only_where_the_device_can_skip_them() -> None:
    plain, skipping = Profile(flops=100.0), Profile(flops=100.0, sparse_kernels=True)
    assert client_seconds(plain, [], 300.0, 30.0, []).compute == 3.0
    assert client_seconds(skipping, [], 300.0, 30.0, []).compute == 0.3


def test_a_task_ends_with_its_slowest_reply() -> None:
    assert end({0: 3.0, 1: 5.0}, {}).seconds == 5.0
    assert end({0: 3.0}, {1: 7.0}).seconds == 7.0  # nobody knows of the loss before
    assert end({}, {}).seconds == 0.0


def test_a_task_ends_at_the_deadline_when_something_is_missing() -> None:
    found = end({0: 3.0, 1: 5.0, 2: 4.0}, {}, deadline=4.0)
    assert (found.seconds, found.late) == (4.0, {1})
    assert end({0: 3.0}, {1: 0.5}, deadline=4.0).seconds == 4.0
    assert end({0: 3.0}, {}, deadline=4.0).seconds == 3.0


def test_a_task_ends_at_its_first_replies() -> None:
    found = end({0: 3.0, 1: 5.0, 2: 1.0, 3: 3.0}, {}, first=2)
    assert (found.seconds, found.late) == (3.0, {1, 3})  # of two at once the lower id's
    assert end({0: 3.0, 1: 5.0}, {2: 1.0}, deadline=4.0, first=2).seconds == 4.0
    assert end({0: 3.0}, {}, first=2).seconds == 3.0


@given(SECONDS, SECONDS, st.sampled_from([0.0, 1.0, 10.0]), st.integers(0, 5))
def test_whoever_is_late_comes_after_the_end_or_after_enough_others(
    arrivals: dict[int, float], losses: dict[int, float], deadline: float, first: int
) -> None:
    losses = {client: at for client, at in losses.items() if client not in arrivals}
    found = end(arrivals, losses, deadline, first)
    in_time = set(arrivals) - found.late
    assert all(arrivals[client] <= found.seconds for client in in_time)
    assert not deadline or found.seconds <= deadline
    assert not first or len(in_time) <= first
    enough = first and len(in_time) == first
    assert all(enough and arrivals[c] >= found.seconds or deadline and arrivals[c] > deadline for c in found.late)


def test_the_clock_waits_until_enough_devices_are_ready() -> None:
    morning, noon = Intervals((10.0,), (20.0,), 100.0), Intervals((15.0, 60.0), (16.0, 70.0), 100.0)
    phones = [Profile(availability=morning), Profile(availability=noon)]
    assert wait(phones, 0.0, 1) == 10.0
    assert wait(phones, 0.0, 2) == 15.0
    assert wait(phones, 16.0, 2) == 115.0
    assert wait(phones, 12.0, 1) == 12.0


def test_a_wait_without_an_end_is_one_sentence() -> None:
    never = [Profile(availability=Intervals((0.0,), (1.0,), 3.0)), Profile(availability=Intervals((1.0,), (2.0,), 3.0))]
    with pytest.raises(RunError, match=r"clock\.minimum = 2"):
        wait(never, 0.0, 2)


# ---- in the engine ----


def ran(out: Path, **overrides: Any) -> fs.Run:
    return fs.run(small(**overrides), out=out)


def test_the_tables_hold_what_the_clock_is_computed_from(tmp_path: Path) -> None:
    run = ran(tmp_path / "run", devices={"a": {"share": 0.5}, "b": {"share": 0.5, "flops": 1e7, "up": 1e4}})
    fed = built(devices={"a": {"share": 0.5}, "b": {"share": 0.5, "flops": 1e7, "up": 1e4}})
    trained = run.clients[run.clients["phase"] == "train"]
    for row in trained.itertuples():
        own = run.messages.query(f"phase == 'train' and round == {row.round} and client == {row.client}")
        down, up = (own.loc[own["direction"] == way, "bytes"].tolist() for way in ("down", "up"))
        times = client_seconds(fed.nodes[row.client].profile, down, row.flops, row.flops_sparse, up)
        assert row.sim_seconds == pytest.approx(times.total)
    slowest = trained.groupby("round")["sim_seconds"].max().tolist()
    assert run.rounds["sim_seconds"].tolist() == pytest.approx(slowest)
    assert run.summary["sim_seconds"] == pytest.approx(sum(slowest))
    assert (run.rounds["sim_wait"] == 0).all()


def test_flops_are_those_of_the_model_that_runs(tmp_path: Path) -> None:
    run, fed = ran(tmp_path / "run", rounds=1), built(rounds=1)
    weights = sum(fed.setup.sizes.values())
    first = fed.setup.sizes[fed.setup.maskable[0]]  # whose inputs need no gradient
    for row in run.clients[run.clients["phase"] == "train"].itertuples():
        assert row.flops == 2 * (3 * weights - first) * len(fed.parts[row.client].train)


def test_a_late_reply_is_booked_and_not_used(tmp_path: Path) -> None:
    devices = {"a": {"share": 0.75}, "b": {"share": 0.25, "flops": 1e3}}
    run = ran(tmp_path / "run", devices=devices, clock={"deadline": 5.0})
    trained = run.clients[run.clients["phase"] == "train"]
    slow = trained[trained["device"] == "b"]
    assert slow["status"].eq("late").all() and (slow["sim_seconds"] > 5).all()
    assert trained.loc[trained["device"] == "a", "status"].eq("ok").all()
    assert run.rounds["sim_seconds"].tolist() == [5.0] * 3
    up = run.messages.query("phase == 'train' and direction == 'up'")
    assert up.loc[up["client"].isin(slow["client"]), "status"].eq("late").all() and (up["bytes"] > 0).all()
    assert run.summary["bytes_up"] == up["bytes"].sum()  # sent is sent
    alone = ran(tmp_path / "alone", devices=devices, clock={"deadline": 5.0}, strategy="local_only")
    assert alone.summary["status"] == "done"


def test_over_selection_takes_the_first_replies(tmp_path: Path) -> None:
    run = ran(tmp_path / "run", clients_per_round=2, clock={"over_selection": 0.5}, devices={"a": {"spread": 4.0}})
    trained = run.clients[run.clients["phase"] == "train"]
    assert trained.groupby("round").size().tolist() == [3, 3, 3]
    for _, one in trained.groupby("round"):
        assert (one["status"] == "ok").sum() == 2
        by_status = one.groupby("status")["sim_seconds"]
        assert by_status.min()["late"] >= by_status.max()["ok"]


def test_who_drops_out_is_lost_and_the_run_goes_on(tmp_path: Path) -> None:
    away = {"rounds": 6, "devices": {"a": {"dropout": 0.7}}, "clock": {"deadline": 30.0}, "strategy": "feddip"}
    run = ran(tmp_path / "run", **away)
    trained = run.clients[run.clients["phase"] == "train"]
    assert set(trained["status"]) == {"ok", "lost"}
    down = run.messages.query("phase == 'train' and direction == 'down'")
    assert len(down) == len(trained)  # each message that was sent is there
    assert down["status"].value_counts().to_dict() == trained["status"].value_counts().to_dict()
    assert ran(tmp_path / "again", **away).summary["model_hash"] == run.summary["model_hash"]


def test_a_round_in_which_nobody_answers_leaves_the_model_as_it_is(tmp_path: Path) -> None:
    run = ran(tmp_path / "run", clients=2, rounds=8, devices={"a": {"dropout": 0.6}}, clock={"deadline": 30.0})
    trained = run.clients[run.clients["phase"] == "train"]
    empty = [t for t, one in trained.groupby("round") if one["status"].eq("lost").all()]
    metric = run.rounds.set_index("round")["metric"]
    assert run.summary["status"] == "done" and len(empty) > 1
    assert all(metric[t] == metric[t - 1] for t in empty if t > 1)


@pytest.mark.parametrize("device, deadline", [({"dropout": 1.0}, 0.0), ({"flops": 1.0}, 1.0)])
def test_a_run_without_any_reply_fails(device: dict[str, float], deadline: float, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="never trained"):
        ran(tmp_path / "run", devices={"a": device}, clock={"deadline": deadline})


def test_absent_clients_are_not_asked(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("device,start,end\n0,100,200\n1,100,200\n2,0,1\n3,100,150\n")
    run = ran(tmp_path / "run", devices={"a": {"trace": str(trace)}}, clock={"minimum": 2})
    first = run.clients.query("phase == 'train' and round == 1")
    assert len(first) == 3
    assert run.rounds["sim_wait"].tolist()[0] == 100.0
    assert run.rounds["sim_seconds"][0] == pytest.approx(100.0 + first["sim_seconds"].max())


@pytest.mark.parametrize("key, value", [("deadline", -1), ("over_selection", -0.1), ("minimum", 0), ("minimun", 1)])
def test_a_wrong_key_of_the_clock_is_refused(key: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"clock\.{key}"):
        small(clock={key: value})


def test_a_client_that_fails_is_not_excused_by_one_that_drops_out(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(
        "from fedsparse.strategies.fedavg import FedAvg\n"
        "class Broken(FedAvg):\n    '''Fails.'''\n"
        "    def train(self, received, client):\n        raise ValueError('broken on purpose')\n"
    )
    with pytest.raises(RunError, match="broken on purpose"):
        ran(tmp_path / "run", strategy=f"{broken}:Broken", devices={"a": {"dropout": 0.5}})


def test_more_clients_than_there_are_cannot_be_waited_for() -> None:
    with pytest.raises(InputError, match=r"clock\.minimum must be at most 4"):
        built(clock={"minimum": 5})


def test_the_times_are_finite_numbers(tmp_path: Path) -> None:
    table = pd.read_parquet(Path(ran(tmp_path / "run").folder) / "clients.parquet")
    trained = table[table["phase"] == "train"]
    numbers = trained[["flops", "flops_sparse", "sim_seconds"]].to_numpy()
    assert all(math.isfinite(value) and value > 0 for value in numbers.flat)

"""Simulated time on other devices: from what a run booked, equal to what the run itself would have booked."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from synthetic import TIERS, write_run, write_runs

import fedsparse as fs
from fedsparse.cli import main
from fedsparse.devices import Device, assign
from fedsparse.errors import InputError
from fedsparse.results import Run, write_comparison
from fedsparse.retime import PARTS, Network, Retimed, retimed, round_parts, steered
from fedsparse.sections import Clock

SMALL = {
    "dataset": "digits", "model": {"name": "mlp", "hidden": [8]}, "clients": 8, "rounds": 4, "eval_every": 4,
    "runtime": "local", "partition": "iid",
}  # fmt: skip
PHONES = {
    "phone": {"share": 0.5, "flops": 2e7, "up": 1e5, "down": 3e5, "spread": 3.0, "dropout": 0.4},
    "tablet": {"share": 0.5, "flops": 5e7, "up": 4e5},
}
OTHER = """
[devices.near]
share = 0.5
flops = 4e9
[devices.far]
share = 0.5
up = 1e5
"""


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Drawing takes most of a run's time."""
    monkeypatch.setattr("fedsparse.report.draw", lambda section, end: [])


def own(run: Run) -> Network:
    return Network.of(run)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other.toml"
    path.write_text(OTHER)
    return path


def times(run: Run) -> np.ndarray:
    trained = run.clients[run.clients["phase"] == "train"].sort_values(["round", "client"])
    return trained["sim_seconds"].to_numpy()


# against what was booked


def test_on_its_own_devices_a_run_takes_as_long_as_it_took(tmp_path):
    run = Run(write_run(tmp_path / "run", variant="feddip", density=0.1, rounds=6, flops=1e9))
    again = Retimed(run, own(run))
    np.testing.assert_allclose(times(again), times(run))
    np.testing.assert_allclose(again.rounds["sim_seconds"], run.rounds["sim_seconds"])
    assert again.summary["sim_seconds"] == pytest.approx(run.info["sim_seconds"])


@pytest.mark.parametrize(
    "clock", [{}, {"deadline": 0.5}, {"over_selection": 0.5}, {"over_selection": 0.2, "deadline": 0.3}], ids=str
)
def test_a_real_run_with_late_and_lost_replies_is_timed_as_its_clock_did(tmp_path, clock):
    run = fs.run({**SMALL, "devices": PHONES, "clock": clock, "clients_per_round": 5}, out=tmp_path / "run")
    assert {"late", "lost"} & set(run.clients["status"])
    again = Retimed(run, own(run))
    np.testing.assert_allclose(times(again), times(run))
    np.testing.assert_allclose(again.rounds["sim_seconds"], run.rounds["sim_seconds"])
    parts = round_parts(run)
    np.testing.assert_allclose(parts[PARTS].sum(axis=1), run.rounds["sim_seconds"])
    assert (parts["missing"] > 0).any() or "deadline" not in clock


TWICE = SMALL | {"model": {"name": "cnn", "norm": "batch"}, "strategy": "heterofl", "rounds": 3, "eval_every": 3}
UNEVEN = {
    "a": {"share": 0.5, "flops": 1e9, "dropout": 0.3},
    "b": {"share": 0.5, "flops": 1e9, "spread": 3.0, "down": 2e5, "up": 5e4, "dropout": 0.2},
}


@pytest.mark.parametrize("clock", [{}, {"deadline": 0.5}, {"over_selection": 0.5}], ids=str)
def test_a_round_of_two_tasks_is_the_sum_of_both(tmp_path, clock):
    run = fs.run({**TWICE, "devices": UNEVEN, "clock": clock, "clients_per_round": 4}, out=tmp_path / "run")
    missed = run.clients[run.clients["status"].isin(["late", "lost"])]
    assert {"train", "statistics"} <= set(run.clients["phase"]) and len(missed)
    again = Retimed(run, own(run))
    np.testing.assert_allclose(again.rounds["sim_seconds"], run.rounds["sim_seconds"])
    np.testing.assert_allclose(round_parts(again)[PARTS], round_parts(run)[PARTS], atol=1e-9)
    tasks = len(missed.groupby(["round", "phase"]))
    slower = Retimed(run, Network(devices=own(run).devices, clock=Clock(deadline=50.0)))
    waited = slower.rounds["sim_seconds"].sum() // 50
    assert waited < tasks if "over_selection" in clock else waited == tasks, "the first replies still end a task"


# other devices


def test_other_devices_by_hand(tmp_path):
    run = Run(write_run(tmp_path / "run", variant="fedavg", rounds=1, flops=1e9, size=60_000))
    fast, slow = (Device(share=0.5, flops=f, down=1e6, up=1e5, latency=0.5) for f in (1e9, 1e8))
    again = Retimed(run, Network(devices={"x": fast, "y": slow}))
    message = 60_180  # the tensors and a header of 180
    expected = {"x": 1 + message / 1e6 + 1 + message / 1e5, "y": 1 + message / 1e6 + 10 + message / 1e5}
    dealt = assign({"x": fast, "y": slow}, 4, 0)
    trained = again.clients[again.clients["phase"] == "train"]
    assert trained["device"].tolist() == dealt
    np.testing.assert_allclose(trained["sim_seconds"], [expected[name] for name in dealt])
    assert again.rounds["sim_seconds"].tolist() == pytest.approx([expected["y"]])
    parts = round_parts(again).iloc[0]
    assert parts["compute"] == pytest.approx(10) and parts["upload"] == pytest.approx(0.5 + message / 1e5)
    assert dealt[int(parts["client"])] == "y" and parts["waiting"] == parts["missing"] == 0


def test_only_sparse_kernels_skip_zeros(tmp_path):
    run = Run(write_run(tmp_path / "run", variant="feddip", density=0.1, rounds=4, flops=1e9))
    took = {
        kernels: round_parts(Retimed(run, Network(devices={"x": Device(flops=1e8, sparse_kernels=kernels)})))["compute"]
        for kernels in (False, True)
    }
    assert took[False].tolist() == pytest.approx([10.0] * 4)
    np.testing.assert_allclose(took[True], 10 * run.rounds["density"])


def test_a_deadline_of_the_other_clock_holds_where_replies_were_missing(tmp_path):
    run = fs.run({**SMALL, "devices": PHONES, "clock": {"deadline": 0.5}}, out=tmp_path / "run")
    again = Retimed(run, Network(devices=own(run).devices, clock=Clock(deadline=60.0)))
    lacking = set(run.clients.loc[run.clients["status"].isin(["late", "lost"]), "round"])
    held = again.rounds.set_index("round")["sim_seconds"] == 60.0
    assert lacking and set(held.index[held]) == lacking
    assert again.clients["status"].tolist() == run.clients["status"].tolist()


# comparisons, files, pages


def test_a_comparison_is_measured_anew_and_a_run_that_was_not_kept_has_no_time(tmp_path, other):
    folders = write_runs(tmp_path / "both", seeds=2, rounds=6, flops=1e9)
    made = write_comparison(tmp_path / "both", [Run(f) for f in folders], {"feddip": "strategy.density = 0.1"})
    shutil.rmtree(tmp_path / "both" / "personalized_masks-seed1")
    found = fs.load(tmp_path / "both", devices=other)
    summary = found.summary.set_index("variant")
    assert (summary["sim_ratio"].notna() == [True, True, False]).all()
    assert summary.loc["fedavg", "sim_ratio"] == 1 and summary.loc["feddip", "overrides"] == "strategy.density = 0.1"
    assert summary["sim_seconds_mean"].iloc[0] != made.summary["sim_seconds_mean"].iloc[0]
    first = found.table.iloc[0]
    assert first["sim_seconds"] == pytest.approx(found.runs[0].rounds["sim_seconds"].sum())
    assert 0 < first["sim_to_target"] < first["sim_seconds"] and math.isnan(found.table["sim_seconds"].iloc[-1])
    same = [name for name in made.table if not name.startswith("sim_")]
    assert found.table[same].equals(made.table[same])


def test_the_page_of_other_devices_says_so_and_leaves_the_runs_own(tmp_path, other, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "one", variant="half", strategy="adaptcl", rounds=4, flops=1e9)
    before = sorted(path.name for path in run.iterdir())
    assert main(["report", "one", "--devices", "other.toml"]) == 0
    out = capsys.readouterr().out
    page = Path(out.splitlines()[-1])
    assert page.parent.parent.name == "runs" and sorted(path.name for path in run.iterdir()) == before
    text = page.read_text()
    assert "Simulated times are those on the devices of other.toml" in text and "half would have looked" in text
    assert "s as run" in out and "s on other.toml" in out
    assert main(["report", "one", "--devices", "other.toml", "--out", "here"]) == 0
    assert Path("here/report.html").read_text() == text


def test_a_file_that_is_not_there_is_named_whole(tmp_path, monkeypatch):
    run = write_run(tmp_path / "one", variant="feddip", rounds=2, flops=1e9)
    monkeypatch.chdir(tmp_path)
    for name in ("there.toml", "quickstart", "one"):
        with pytest.raises(InputError) as error:
            fs.load(run, devices=name)
        assert str(error.value) == f"There is no file {tmp_path / name}."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OTHER + "uplink = 3\n", 'no key "devices.far.uplink"'),
        (OTHER + "[clock]\nlimit = 3\n", 'no key "clock.limit"'),
        ("rounds = 3\n" + OTHER, 'no key "rounds"'),
        (OTHER.replace("1e5", "0.0"), "devices.far.up must be a number of at least 1e-06"),
        (OTHER.replace("share = 0.5", "share = 0.2"), "add up to 1"),
        ("", "devices is required"),
        ("[devices", "not TOML"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, text, said, capsys):
    run = write_run(tmp_path / "one", variant="feddip", rounds=2, flops=1e9)
    (tmp_path / "wrong.toml").write_text(text)
    assert main(["report", str(run), "--devices", str(tmp_path / "wrong.toml")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_run_of_an_earlier_version_has_nothing_to_time(tmp_path):
    run = Run(write_run(tmp_path / "old", variant="feddip", rounds=2))
    with pytest.raises(InputError, match="no operations booked"):
        retimed(run, Network(devices=TIERS))


def test_strategies_that_look_at_devices_are_named_by_their_labels(tmp_path):
    runs = [Run(write_run(tmp_path / name, variant=name, strategy=kind, rounds=1))
            for name, kind in (("a", "adaptcl"), ("b", "feddip"), ("c", "heterofl"))]  # fmt: skip
    assert steered([*runs, runs[0]]) == ["a", "c"]


def test_a_plug_in_says_itself_whether_it_looks_at_devices_and_one_that_is_gone_says_nothing(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text("from fedsparse.strategy import Strategy\n\nclass Mine(Strategy):\n    steers = True\n")
    run = write_run(tmp_path / "run", variant="mine", strategy=f"{mine}:Mine", rounds=1)
    assert steered([Run(run)]) == ["mine"]
    mine.unlink()
    assert steered([Run(run)]) == []

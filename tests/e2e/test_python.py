"""The Python interface, end to end: run, compare, load, and what they leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from federations import SMALL

import fedsparse as fs
from fedsparse import columns


class Told:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def start(self, label: str, rounds: int, index: int, total: int) -> None:
        self.lines.append(("start", label, rounds, index, total))

    def round(self, row: Any) -> None:
        self.lines.append(("round", row["round"], row["mb"]))

    def end(self, status: str) -> None:
        self.lines.append(("end", status))


def test_run(tmp_path: Path) -> None:
    told = Told()
    run = fs.run(SMALL, strategy="feddip", out=tmp_path / "a", progress=told)
    assert run.summary["final"] == pytest.approx(run.rounds["metric"].iloc[-1])
    assert run.info["status"] == "done"
    assert told.lines[0] == ("start", "feddip", 3, 1, 1) and told.lines[-1] == ("end", "done")
    megabytes = (run.info["bytes_up"] + run.info["bytes_down"]) / 1e6
    assert told.lines[-2] == ("round", 3, pytest.approx(megabytes))
    for name in ("config.toml", "run.json", "report.html", "model.safetensors", "figures/metric_round.png"):
        assert (tmp_path / "a" / name).stat().st_size > 0
    assert fs.load(tmp_path / "a").rounds.equals(run.rounds)
    x = torch.zeros(1, 1, 8, 8)
    assert run.model()(x).shape == (1, 10)
    assert run.info["paper_feddip_mebibits"] > 0
    assert str(tmp_path) not in (tmp_path / "a" / "run.json").read_text()


def test_the_metric_is_that_of_the_stored_model(tmp_path: Path) -> None:
    from fedsparse import train
    from fedsparse.federation import Federation

    run = fs.run(SMALL, strategy="feddip", out=tmp_path / "a")
    fed = Federation.build(fs.Experiment.load(tmp_path / "a" / "config.toml"))
    assert train.evaluate(run.model(), *fed.test, "classification")[0] == run.rounds["metric"].iloc[-1]


def test_a_resolved_config_runs_again_to_the_same_model(tmp_path: Path) -> None:
    first = fs.run(SMALL, strategy="personalized_masks", out=tmp_path / "a")
    again = fs.run(tmp_path / "a" / "config.toml", out=tmp_path / "b")
    assert first.info["model_hash"] == again.info["model_hash"]
    assert first.info["clients_hash"] == again.info["clients_hash"]


def test_compare(tmp_path: Path) -> None:
    both = fs.compare(SMALL, strategies=["feddip"], seeds=2, out=tmp_path / "c")
    assert both.summary["variant"].tolist() == ["fedavg", "feddip"]
    assert both.summary["seeds"].tolist() == [2, 2]
    assert both.summary["bytes_ratio"].tolist()[0] == 1.0 > both.summary["bytes_ratio"].tolist()[1]
    assert sorted(p.name for p in (tmp_path / "c").iterdir() if p.is_dir()) == [
        "fedavg-seed0", "fedavg-seed1", "feddip-seed0", "feddip-seed1", "figures"]  # fmt: skip
    assert list(both.summary.columns) == list(columns.SUMMARY)
    table = pd.read_csv(tmp_path / "c" / "comparison.csv")
    assert {"stock_bytes_up", "stock_bytes_down", "paper_feddip_mebibits", "mb_to_target"} <= set(table.columns)
    # same seed: same data, same initial weights, same first cohort
    seeds = {run.info["seed"]: run for run in both.runs if run.label == "fedavg"}
    assert seeds[0].info["model_hash"] != seeds[1].info["model_hash"]


def test_a_comparison_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    whole = fs.compare(SMALL, strategies=["feddip"], seeds=2, out=tmp_path / "whole")
    out = tmp_path / "slices"
    fs.compare(SMALL, strategies=["feddip"], seeds=1, out=out, resume=True)
    before = (out / "fedavg-seed0" / "run.json").read_bytes()
    cut = json.loads((out / "feddip-seed0" / "run.json").read_text()) | {"status": "running"}
    (out / "feddip-seed0" / "run.json").write_text(json.dumps(cut))
    (out / "feddip-seed0" / "half.txt").touch()
    both = fs.compare(SMALL, strategies=["feddip"], seeds=2, out=out, resume=True)
    assert (out / "fedavg-seed0" / "run.json").read_bytes() == before, "what was done is not run again"
    assert not (out / "feddip-seed0" / "half.txt").exists(), "what was cut off begins again"
    keys = ["variant", "seed", "model_hash", "bytes_up", "bytes_down", "final"]
    assert both.table[keys].equals(whole.table[keys])
    assert fs.compare(SMALL, strategies=["feddip"], seeds=2, out=out, resume=True).table.equals(both.table)
    with pytest.raises(fs.InputError, match="fedavg-seed0' holds another experiment"):
        fs.compare(SMALL, rounds=4, out=out, resume=True)
    with pytest.raises(fs.InputError, match="--out"):
        fs.compare(SMALL, resume=True)


def test_a_comparison_that_goes_on_takes_the_budget_of_now(tmp_path: Path) -> None:
    asked = {"rounds": 1, "strategies": ["feddip"], "seeds": 1, "out": tmp_path / "c", "resume": True}
    assert set(fs.compare(SMALL, **asked).table["budget"]) == {"feddip"}
    again = fs.compare(SMALL, compare={"budget": "fedavg"}, **asked)
    assert set(again.table["budget"]) == set(again.summary["budget"]) == {"fedavg"}


def test_going_on_touches_nothing_of_others(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(fs.InputError, match="is not the folder of a comparison"):
        fs.compare(SMALL, out=tmp_path / "other", resume=True)
    (tmp_path / "c" / "fedavg-seed0").mkdir(parents=True)
    (tmp_path / "c" / "fedavg-seed0" / "thesis.txt").touch()
    (tmp_path / "c" / "a-seed0").mkdir()
    (tmp_path / "c" / "a-seed0" / "run.json").write_text("{}")
    with pytest.raises(fs.InputError, match="fedavg-seed0' is not the folder of a run"):
        fs.compare(SMALL, out=tmp_path / "c", resume=True)
    assert (tmp_path / "c" / "fedavg-seed0" / "thesis.txt").exists()


def test_a_failed_run_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    broken = f"{Path(__file__).parent.parent / 'killer.py'}:Broken"
    both = fs.compare(SMALL, compare={"variants": {"bad": {"strategy": broken}}, "seeds": 1}, out=tmp_path / "c")
    status = {run.label: run.info["status"] for run in both.runs}
    assert status == {"fedavg": "done", "bad": "failed"}
    assert "no such luck" in json.loads((tmp_path / "c" / "bad-seed0" / "run.json").read_text())["why"]
    assert (tmp_path / "c" / "report.html").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"clients": 0}, "clients must be a whole number of at least 1"),
        ({"clients": 1000, "partition": {"name": "iid"}}, "it needs at least 3"),
        ({"clients": 2000, "partition": {"name": "iid"}}, "1797"),
        ({"strategy": {"name": "feddip", "density": 1.5}}, "strategy.density"),
        ({"strategy": "fedavgg"}, "fedavg"),
        ({"roundz": 3}, "rounds"),
        ({"dataset": "digit"}, "digits"),
        ({"local_bn": True}, "BatchNorm"),
        ({"model": "lenet5"}, "lenet5|LeNet"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(fs.InputError, match=says):
        fs.run({**SMALL, **change}, out=tmp_path / "x")
    with pytest.raises(fs.InputError, match=says):
        fs.compare({**SMALL, **change}, out=tmp_path / "y")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(fs.InputError, match="exists and is not empty"):
        fs.run(SMALL, out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(fs.InputError, match="cannot be written"):
        fs.run(SMALL, out=tmp_path / "file" / "run")

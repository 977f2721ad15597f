"""The command line: what it prints where, its exit codes, and that bad input leaves nothing behind."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fedsparse
from fedsparse.cli import main
from fedsparse.cli.progress import duration, figure, megabytes
from fedsparse.experiment import Experiment

TINY = """
rounds = 2
clients = 4
[dataset]
name = "digits"
[model]
name = "mlp"
hidden = [8]
[runtime]
name = "local"
"""

FAILING = """
from fedsparse.errors import RunError
from fedsparse.strategies.fedavg import FedAvg

class Failing(FedAvg):
    '''Fails in its merge.'''
    how: str = "error"
    '''What it raises.'''

    def merge(self, state, replies, task):
        raise {"error": ZeroDivisionError, "run": RunError, "interrupt": KeyboardInterrupt}[self.how]("on purpose")
"""


PEOPLE = """
import numpy as np
import torch
from fedsparse.data import Data, Dataset

class People(Dataset):
    '''Eve, ann and bob: 15, 12 and 4 samples of class (target) 0, 1 and 2.'''
    unit: float = 0.0
    '''The unit of a regression; 0 is a classification.'''

    def load(self):
        who = np.repeat(["eve", "ann", "bob"], [15, 12, 4])
        y = torch.from_numpy(np.repeat([0, 1, 2], [15, 12, 4]))
        if self.unit:
            return Data(torch.zeros(31, 2), y.float(), clients=who, unit=self.unit, zero=5.0)
        return Data(torch.zeros(31, 2), y, classes=3, clients=who)
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working directory of its own, with a small config."""
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    (tmp_path / "people.toml").write_text(TINY.replace("clients = 4", ""), encoding="utf-8")
    (tmp_path / "failing.py").write_text(FAILING, encoding="utf-8")
    (tmp_path / "people.py").write_text(PEOPLE, encoding="utf-8")
    (tmp_path / "empty.json").write_text('{"a": [0, 1, 2], "b": []}', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("FEDSPARSE_DEBUG", raising=False)


def call(capsys, *arguments):
    """(exit code, standard output, standard error) of the command."""
    code = main(list(arguments))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def left_behind():
    return {path.name for path in Path().iterdir()} - {
        "tiny.toml", "people.toml", "failing.py", "people.py", "empty.json", "__pycache__"
    }  # fmt: skip


# ---- what is quick ----


def test_version_and_help(capsys):
    assert call(capsys, "--version") == (0, f"fedsparse {fedsparse.__version__}\n", "")
    code, out, err = call(capsys, "--help")
    assert code == 0 and all(name in out for name in ("run", "compare", "list", "show", "report")) and not err
    assert "CONFIG" in call(capsys, "run", "--help")[1]


def test_list(capsys):
    code, out, err = call(capsys, "list", "strategies")
    assert (code, err) == (0, "") and "fedavg" in out and "average" in out
    code, out, _ = call(capsys, "list", "configs", "--json")
    rows = json.loads(out)
    assert code == 0 and {"quickstart", "fashion_mnist"} <= {row["name"] for row in rows}
    assert all(row["summary"] for row in rows)


def test_show_config_prints_what_can_be_run_again(capsys):
    code, out, err = call(capsys, "show", "config", "quickstart", "--set", "strategy=feddip", "--seed", "3")
    assert (code, err) == (0, "")
    assert tomllib.loads(out)["strategy"]["density"] == 0.1
    assert Experiment.load(out) == Experiment.load("quickstart", ["strategy=feddip"], seed=3)
    assert call(capsys, "show", "config", "quickstart", "--out", "shown")[0] == 0
    assert Experiment.load("shown/config.toml") == Experiment.load("quickstart")


def test_show_data(capsys):
    code, out, err = call(capsys, "show", "data", "tiny.toml", "--out", "shown")
    assert code == 0 and "1,797 samples on 4 clients" in out
    lines = Path("shown/data.csv").read_text().splitlines()
    assert lines[0].startswith("client,device,train,validation,test,classes,class_0,class_1") and len(lines) == 5
    rows = [list(map(int, line.split(",")[2:])) for line in lines[1:]]
    assert sum(sum(row[:3]) for row in rows) == sum(sum(row[4:]) for row in rows) == 1797
    assert Path("shown/label_distribution.png").stat().st_size > 1000
    assert "wrote" in err and "data.csv" in err
    assert call(capsys, "show", "data", "tiny.toml", "--out", "shown")[0] == 2, "nothing is overwritten"


def test_show_data_draws_without_being_told_where(capsys):
    code, out, err = call(capsys, "show", "data", "tiny.toml")
    (folder,) = Path("runs").iterdir()
    assert code == 0 and folder.name.startswith("tiny-data-")
    assert {path.name for path in folder.iterdir()} == {"data.csv", "partition.csv", "label_distribution.png"}
    assert f"wrote {folder / 'label_distribution.png'}" in err
    assert "by dirichlet, alpha = 0.3, min_samples = 10, seed 0\n1,258 train, 180 validation, 359 test\n" in out


def test_show_data_names_the_clients(capsys):
    people = ("--set", "dataset=people.py:People")
    natural = ("--set", "partition=natural", "--set", "partition.min_samples=5")
    code, out, _ = call(capsys, "show", "data", "people.toml", "--out", "shown", *people, *natural)
    assert code == 0 and "left out: 1 of 3 clients, with fewer than 5 samples (4 in all)" in out
    assert [line.split()[:2] for line in out.splitlines()[2:4]] == [["0", "ann"], ["1", "eve"]]
    assert Path("shown/data.csv").read_text().startswith("client,name,device,train,validation,test,classes,class_0")
    # What was drawn can be fixed: the same clients, rows and parts.
    fixed = ("--set", "partition=fixed", "--set", "partition.file=shown/partition.csv")
    code, out, _ = call(capsys, "show", "data", "people.toml", "--out", "again", *people, *fixed)
    assert code == 0 and "by fixed, file = partition.csv, seed 0" in out
    assert "left out: 4 of 31 samples, not in partition.csv" in out
    for name in ("data.csv", "partition.csv"):
        assert Path("again", name).read_text() == Path("shown", name).read_text()


def test_show_data_of_a_regression(capsys):
    sets = ("--set", "dataset=people.py:People", "--set", "dataset.unit=10", "--set", "partition=natural")
    code, out, _ = call(capsys, "show", "data", "people.toml", "--out", "shown", *sets)
    assert code == 0 and "median" in out.splitlines()[0]
    assert Path("shown/target_distribution.png").stat().st_size > 1000
    names, _, bob, _ = (line.split(",") for line in Path("shown/data.csv").read_text().splitlines())
    row = dict(zip(names, bob, strict=True))
    assert [row[name] for name in ("name", "mean", "sd", "q05", "q95")] == ["bob", "25.0", "0.0", "25.0", "25.0"]


def test_show_devices(capsys):
    code, out, _ = call(capsys, "show", "devices", "quickstart", "--out", "shown")
    assert code == 0 and "phone" in out and "laptop" in out
    rows = Path("shown/devices.csv").read_text().splitlines()
    assert sum(",phone,5000000000.0," in row for row in rows) == 14 and len(rows) == 21
    assert Path("shown/devices.png").read_bytes().startswith(b"\x89PNG")


# ---- bad input ----


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "tiny.toml", "--set", "rouns=3"], 'nearest is "rounds"'),
        (["run", "tiny.toml", "--set", "strategy=fedavgg"], 'nearest is "fedavg"'),
        (["run", "tiny.toml", "--set", "strategy=feddip", "--set", "strategy.density=1.5"], "strategy.density must be"),
        (["run", "tiny.toml", "--clients", "0"], "clients must be a whole number of at least 1, not 0."),
        (["run", "tiny.toml", "--clients", "5000"], "5000"),
        (["run", "failing.py"], "is not TOML"),
        (["run", "nothing.toml"], "nothing.toml"),
        (["run", "."], "is a folder"),
        (["run", "tiny.toml", "--runtime", "grid"], '"local", "ray"'),
        (["run", "tiny.toml", "--workers", "-1"], "runtime.workers"),
        (["run", "tiny.toml", "--set", "local_bn=true"], "local_bn"),
        (["run", "tiny.toml", "--set", "dataset=fashion_mnist", "--set", "dataset.download=false"], "FEDSPARSE_DATA"),
        (["compare", "tiny.toml", "--strategies", "fedavg,feddipp"], 'nearest is "feddip"'),
        (["compare", "tiny.toml", "--seeds", "0"], "compare.seeds"),
        (["list", "strategy"], "strategies, datasets"),
        (["show", "everything", "tiny.toml"], "config, data, devices"),
        (["show", "data", "tiny.toml", "--clients", "5000"], "5000"),
        (["report", "nothing"], "nothing"),
        (["run"], "Missing argument 'CONFIG'"),
        (["run", "tiny.toml", "--sed", "3"], "--sed"),
        (["run", "tiny.toml", "--seed", "three"], "three"),
        (["walk", "tiny.toml"], "walk"),
    ],
)
def test_bad_input(capsys, monkeypatch, arguments, told):
    monkeypatch.delenv("FEDSPARSE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("cache").absolute()))
    writes = arguments[:1] in (["run"], ["compare"]) and len(arguments) > 1
    code, out, err = call(capsys, *arguments, *(["--out", "made/here"] if writes else []))
    assert (code, out) == (2, "")
    assert told in err and "Traceback" not in err
    assert left_behind() <= {"cache"}
    if not err.startswith("Usage"):
        assert err.startswith("error: ") and err.count("\n") == 1, "one sentence"


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (
            "partition.alpha=1e-4 partition.min_samples=0 clients=40",
            "dirichlet leaves client 0 without samples: each needs some, so take fewer clients or raise min_samples.",
        ),
        (
            "partition=quantity partition.alpha=1e-4 partition.min_samples=0 clients=4",
            "quantity leaves client 0 without samples: each needs some, so take fewer clients or raise min_samples.",
        ),
        ("partition=quantity clients=180", "quantity cannot give each of 180 clients min_samples = 10 of 1797 samples"),
        ("partition=pathological clients=1700", "pathological found no way to give each of 1700 clients"),
        ("partition=iid clients=1700", "train, validation and test parts: give it more, or take another partition."),
        ("partition=natural", "needs a data set that says whose each sample is"),
        ("PEOPLE partition=natural partition.min_samples=16", "leaves no client: none has min_samples = 16 samples"),
        ("PEOPLE partition=natural clients=4", "clients = 4 is written, but the partition natural finds 3 clients"),
        ("PEOPLE partition=natural clients_per_round=4", "at most the number of clients, 3, not 4"),
        ("partition=fixed", "partition.file is required"),
        ("partition=fixed partition.file=empty.json", "empty.json of the partition fixed gives client b no rows"),
        ("partition=fixed partition.file=no.csv", "The file no.csv of the partition fixed is not there"),
    ],
)
def test_a_partition_that_cannot_be(capsys, sets, told):
    named = sets.replace("PEOPLE", "dataset=people.py:People").split()
    code, out, err = call(capsys, "run", "people.toml", *(text for one in named for text in ("--set", one)))
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1
    assert told in err
    assert not left_behind()


def test_a_folder_that_cannot_be_written(capsys):
    code, _, err = call(capsys, "run", "tiny.toml", "--quiet", "--out", "tiny.toml/below")
    assert code == 2 and "tiny.toml" in err and err.count("\n") == 1
    Path("full").mkdir()
    Path("full/file").touch()
    code, _, err = call(capsys, "run", "tiny.toml", "--quiet", "--out", "full")
    assert code == 2 and "full" in err and left_behind() == {"full"} and os.listdir("full") == ["file"]


# ---- runs ----


def test_run(capsys):
    code, out, err = call(capsys, "run", "tiny.toml", "--set", "strategy=feddip", "--seed", "2", "--out", "a")
    assert code == 0 and "accuracy" in out and "MB up" in out and "seed 2" in out and out.rstrip().endswith("a")
    lines = err.splitlines()
    assert lines[0].startswith("feddip: round 1/2, metric 0.") and lines[0].endswith(" left")
    assert lines[-1].startswith("feddip: done in ")
    run = fedsparse.load("a")
    assert run.summary["status"] == "done" and run.summary["strategy"] == "feddip"
    assert Experiment.load("a/config.toml") == Experiment.load("tiny.toml", ["strategy=feddip"], seed=2)


def test_run_without_out_and_as_json(capsys):
    code, out, err = call(capsys, "run", "tiny.toml", "--quiet", "--json")
    (folder,) = Path("runs").iterdir()
    assert (code, err) == (0, "") and folder.name.startswith("tiny-")
    summary = json.loads(out)
    assert summary["status"] == "done" and summary == json.loads((folder / "run.json").read_text())


def test_compare(capsys):
    code, out, err = call(
        capsys, "compare", "tiny.toml", "--strategies", "feddip", "--seeds", "2", "--out", "c",
        "--set", "compare.variants.low.strategy=feddip", "--set", "compare.variants.low.strategy.density=0.05",
    )  # fmt: skip
    assert code == 0
    assert "mean ± sd over 2 seeds" in out and "low: density = 0.05" in out and "c/report.html" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert {"fedavg", "feddip", "low"} <= set(rows) and "100.0" in rows["fedavg"] and "minus" in out
    assert "[1/6] fedavg: " in err and "[6/6] low: done" in err and err.count("\n") <= 6 * 6
    assert {path.name for path in Path("c").glob("*-seed*")} == {
        f"{label}-seed{seed}" for label in ("fedavg", "feddip", "low") for seed in (0, 1)
    }
    code, out, _ = call(capsys, "report", "c", "--out", "page")
    assert code == 0 and Path(out.strip()).is_file()


def test_compare_as_json(capsys):
    code, out, _ = call(capsys, "compare", "tiny.toml", "--seeds", "1", "--quiet", "--json", "--set", "rounds=1")
    (row,) = json.loads(out)
    assert code == 0 and (row["variant"], row["seeds"], row["bytes_ratio"]) == ("fedavg", 1, 1.0)
    assert row["final_sd"] is None, "one seed has no spread"


def test_a_run_that_fails(capsys):
    arguments = ["run", "tiny.toml", "--quiet", "--set", "strategy=failing.py:Failing"]
    code, out, err = call(capsys, *arguments, "--out", "a")
    assert (code, out) == (1, "") and err.startswith("error: ZeroDivisionError: on purpose") and err.count("\n") == 1
    info = json.loads(Path("a/run.json").read_text())
    assert info["status"] == "failed" and "on purpose" in info["why"]
    assert "Traceback" in Path("a/log.txt").read_text()
    code, _, err = call(capsys, *arguments, "--set", "strategy.how=run", "--out", "b")
    assert code == 1 and err.startswith("error: on purpose")
    code, _, err = call(capsys, "--debug", *arguments, "--out", "c")
    assert code == 1 and "Traceback" in err and "on purpose" in err


def test_a_comparison_of_which_one_fails(capsys):
    code, out, err = call(
        capsys, "compare", "tiny.toml", "--strategies", "failing.py:Failing", "--seeds", "1", "--out", "c"
    )
    assert code == 1 and "Failing, seed 0 failed: " in out and "on purpose" in out
    assert "[1/2] fedavg: done" in err and "[2/2] Failing: failed" in err
    assert (
        Path("c/summary.csv").is_file() and json.loads(Path("c/fedavg-seed0/run.json").read_text())["status"] == "done"
    )


def test_an_interrupt(capsys):
    arguments = ["run", "tiny.toml", "--set", "strategy=failing.py:Failing", "--set", "strategy.how=interrupt"]
    code, out, err = call(capsys, *arguments, "--out", "a")
    assert (
        (code, out) == (130, "")
        and err.splitlines()[-1].startswith("interrupted: what was done")
        and "Trace" not in err
    )
    assert json.loads(Path("a/run.json").read_text())["status"] == "interrupted"


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "fedsparse", "show", "config", "nothing"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ") and not done.stdout


def test_numbers_for_people():
    assert [duration(s) for s in (0.4, 59, 185, 3723)] == ["0 s", "59 s", "3:05", "1:02:03"]
    assert [megabytes(v) for v in (0.0123, 1.234, 12.34, 123.4, None)] == ["0.012", "1.23", "12.3", "123", "-"]
    assert [figure(v) for v in (0.97123, 123.456, float("nan"), None)] == ["0.971", "123.5", "-", "-"]

"""What is committed under results/ follows from the run folders that are committed with it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from tables import rows, short

import fedsparse as fs
from fedsparse.measures import final_of
from fedsparse.results import Run

ROOT = Path(__file__).resolve().parent.parent / "results"
FOLDERS = sorted(path.parent for path in ROOT.glob("*/comparison.csv"))


def test_there_are_results() -> None:
    assert FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_row_follows_from_its_run(folder: Path) -> None:
    run = Run(folder / "run")
    table = pd.read_csv(folder / "comparison.csv")
    row = table[(table["variant"] == run.label) & (table["seed"] == run.info["seed"])].iloc[0]
    total, training = int(row["rounds"]), run.messages[run.messages["phase"] != "evaluate"]
    assert row["final"] == pytest.approx(final_of(run.rounds, total, "metric"), abs=1e-12)
    assert row["final_personal"] == pytest.approx(final_of(run.rounds, total, "metric_personal"), abs=1e-12)
    assert row["density"] == pytest.approx(run.rounds["density"].iloc[-1], abs=1e-12)
    for way in ("up", "down"):
        assert row[f"bytes_{way}"] == training.loc[training["direction"] == way, "bytes"].sum()
    assert row["model_hash"] == run.info["model_hash"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_the_summary_follows_from_the_table(folder: Path) -> None:
    table, summary = (pd.read_csv(folder / name) for name in ("comparison.csv", "summary.csv"))
    assert (table["status"] == "done").all()
    base = table[table["variant"] == "fedavg"].set_index("seed")
    for row in summary.itertuples():
        mine = table[table["variant"] == row.variant].set_index("seed")
        assert len(mine) == row.seeds >= 3
        assert row.final_mean == pytest.approx(mine["final"].mean(), nan_ok=True)
        assert row.final_sd == pytest.approx(mine["final"].std(), nan_ok=True)
        both, against = (frame["bytes_up"] + frame["bytes_down"] for frame in (mine, base))
        assert row.bytes_ratio == pytest.approx((both / against).mean())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_it_says_how_it_was_made_and_is_small(folder: Path) -> None:
    said = (folder / "command.txt").read_text()
    assert json.loads((folder / "run" / "run.json").read_text())["command"] in said
    assert "commit" in said
    assert not list(folder.rglob("*.safetensors"))
    assert all(path.stat().st_size <= 200_000 for path in folder.rglob("*") if path.is_file())


def test_one_row_from_scratch(tmp_path: Path) -> None:
    """The quickstart's row again from its config: same bytes, and the same quality but for the rounding of the CPU."""
    again = fs.run(ROOT / "quickstart" / "run" / "config.toml", runtime="local", out=tmp_path / "again").summary
    row = json.loads((ROOT / "quickstart" / "run" / "run.json").read_text())
    assert [again[key] for key in ("bytes_up", "bytes_down", "density")] == [
        row[key] for key in ("bytes_up", "bytes_down", "density")
    ]
    assert again["final"] == pytest.approx(row["final"], abs=0.01)
    assert again["final_personal"] == pytest.approx(row["final_personal"], abs=0.01)


def test_the_readmes_table_is_that_of_fashion_mnist() -> None:
    readme = (ROOT.parent / "README.md").read_text(encoding="utf-8")
    for line in short(ROOT / "fashion_mnist"):
        assert line in readme, line


def test_feddip_holds_on_fashion_mnist_what_the_study_says() -> None:
    table = pd.read_csv(ROOT / "fashion_mnist" / "comparison.csv").set_index(["variant", "seed"])
    both = table["bytes_up"] + table["bytes_down"]
    behind = table["final"]["fedavg"] - table["final"]["feddip"]
    assert behind.mean() < 0.015 and behind.max() < 0.02
    assert (both["feddip"] / both["fedavg"]).max() < 0.24
    for rival in ("small_dense", "random_erk_wide"):
        assert both[rival].mean() >= both["feddip"].mean()
        assert table["final"][rival].mean() <= table["final"]["feddip"].mean()


STUDIED = [  # the quickstart's table is in docs/table.md
    f for f in FOLDERS if f.name != "quickstart" and "at_budget_mean" in pd.read_csv(f / "summary.csv")
]


def test_the_study_holds_every_table_with_both_views() -> None:
    assert {"fashion_mnist", "soyurt", "soyurt_forecast"} <= {folder.name for folder in STUDIED}
    study = (ROOT.parent / "docs" / "study.md").read_text(encoding="utf-8")
    for folder in STUDIED:
        for line in rows(folder):
            assert line in study, f"{folder.name}: {line}"

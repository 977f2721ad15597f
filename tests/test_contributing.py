"""The examples of CONTRIBUTING.md run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fedsparse

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
EXAMPLES = {re.findall(r"^class (\w+)", block, re.MULTILINE)[0]: block for block in BLOCKS}
SMALL = {"rounds": 2, "train": {"epochs": 1}, "runtime": {"name": "local"}}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, block in EXAMPLES.items():
        (tmp_path / f"{file_of(name)}.py").write_text(block, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def file_of(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def test_the_examples_are_found() -> None:
    assert list(EXAMPLES) == ["FixedMask", "Wine", "Linear"]


def test_the_strategy_has_thirty_lines() -> None:
    code = [line for line in EXAMPLES["FixedMask"].splitlines() if line.strip()]
    assert len(code) <= 30


def test_the_strategy_runs(here: Path) -> None:
    sparse = {"name": "fixed_mask.py:FixedMask", "density": 0.05}
    run = fedsparse.run("quickstart", strategy=sparse, out="runs/a", **SMALL)
    dense = fedsparse.run("quickstart", strategy="fedavg", out="runs/b", **SMALL)
    assert run.summary["density"] == pytest.approx(0.05, abs=0.002)
    assert run.summary["bytes_up"] < 0.25 * dense.summary["bytes_up"]


def test_the_data_set_and_the_model_run(here: Path) -> None:
    wine = {"dataset": "wine.py:Wine", "model": "linear.py:Linear", "clients": 4}
    run = fedsparse.run("quickstart", out="runs/a", **wine, **SMALL)
    assert run.summary["final"] > 0.5

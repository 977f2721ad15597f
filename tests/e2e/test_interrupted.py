"""Kill a run at any moment: what was finished is there, and no process stays behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from deploy.seen import heed
from federations import SMALL

import fedsparse as fs
from fedsparse.experiment import Experiment


def started(tmp_path: Path, runtime: str) -> tuple[subprocess.Popen[str], Path]:
    """A long run in a process of its own, two rounds old."""
    config, out = tmp_path / "long.toml", tmp_path / "run"
    config.write_text(Experiment.load(SMALL, rounds=5000, runtime={"name": runtime, "workers": 1}).to_toml())
    command = [sys.executable, "-m", "fedsparse", "run", str(config), "--out", str(out), "--quiet"]
    process = subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, preexec_fn=heed
    )
    rows, deadline = out / "rounds.jsonl", time.monotonic() + 120
    while not rows.exists() or len(rows.read_text().splitlines()) < 2:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the run did not get to its second round"
        time.sleep(0.05)
    return process, out


def test_kill_9_keeps_every_finished_round(tmp_path: Path) -> None:
    process, out = started(tmp_path, "local")
    process.kill()
    process.wait(30)
    run = fs.load(out)
    rounds = run.rounds["round"].tolist()
    assert rounds == list(range(1, len(rounds) + 1)) and len(rounds) >= 2
    assert run.info["status"] == "running"
    booked = run.messages.query("phase == 'train'")
    for row in run.rounds.itertuples():
        mine = booked[booked["round"] == row.round]
        assert mine.loc[mine["direction"] == "up", "bytes"].sum() == row.bytes_up
        assert mine.loc[mine["direction"] == "down", "bytes"].sum() == row.bytes_down


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="counts processes under /proc")
@pytest.mark.parametrize("runtime", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_ctrl_c_exits_130_and_leaves_no_process(runtime: str, tmp_path: Path) -> None:
    process, out = started(tmp_path, runtime)
    children = descendants(process.pid)
    assert bool(children) == (runtime == "ray")
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    assert len(fs.load(out).rounds) >= 2
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [pid for pid in children if alive(pid)]


def descendants(pid: int) -> set[int]:
    """All processes below a process."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = entry.read_text()
        except OSError:
            continue
        parents[int(entry.parent.name)] = int(text[text.rindex(")") + 2 :].split()[1])
    found, last = {pid}, 0
    while len(found) != last:
        last = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found - {pid}


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text[text.rindex(")") + 2] != "Z"

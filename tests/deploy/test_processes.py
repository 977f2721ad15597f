"""The keeper ends all that it started, however its driver ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsparse.deploy.processes import Processes

# Starts a child of its own that ignores SIGTERM, as the worst of processes would.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""
DRIVER = """
import sys, time
from pathlib import Path
from fedsparse.deploy.processes import Processes
processes = Processes(Path(sys.argv[1]), {})
processes.open()
processes.start("stubborn", [sys.executable, "-c", sys.argv[2]])
time.sleep(600)
"""


def wait_for(what, seconds: float = 20.0):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def pids(log: Path) -> list[int]:
    return [int(word) for word in log.read_text().split()] if log.exists() else []


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    opened = Processes(tmp_path, {"WORD": "hello"})
    opened.open()
    yield opened
    opened.close()


def test_what_a_process_prints_is_in_its_log_and_its_code_is_told(processes: Processes) -> None:
    processes.start("one", [sys.executable, "-c", "import os; print(os.environ['WORD']); raise SystemExit(3)"])
    wait_for(lambda: processes.ended("one"))
    assert processes.codes == {"one": 3}
    assert processes.log("one").read_text() == "hello\n"


def test_a_command_that_is_not_there_has_ended(processes: Processes, tmp_path: Path) -> None:
    processes.start("none", [str(tmp_path / "no-such-command")])
    wait_for(lambda: processes.ended("none"))


def test_a_process_that_ends_is_started_anew_where_that_is_asked_for(processes: Processes) -> None:
    processes.start("again", [sys.executable, "-c", "print('x')"], again=0.1)
    wait_for(lambda: processes.log("again").exists() and processes.log("again").read_text().count("x") >= 3)


def test_closing_ends_children_of_children_that_ignore_it(processes: Processes) -> None:
    processes.start("stubborn", [sys.executable, "-c", STUBBORN])
    started = wait_for(lambda: pids(processes.log("stubborn")))
    assert len(started) == 2 and all(alive(pid) for pid in started)
    processes.close()
    wait_for(lambda: not any(alive(pid) for pid in started), 5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_driver_that_is_killed_takes_all_with_it(number: signal.Signals, tmp_path: Path) -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), STUBBORN])
    started = wait_for(lambda: pids(tmp_path / "stubborn.log"), 60)
    driver.send_signal(number)
    driver.wait(10)
    wait_for(lambda: not any(alive(pid) for pid in started), 15)

"""The keeper: a small process that starts others, and ends all of them when its own standard input ends.

A driver that is killed, by whatever signal, closes that pipe: so its processes never outlive it. All of them and the
keeper share one process group, which is killed as a whole. Run as a script, on the standard library alone:

    in:  {"name": "node-0", "argv": [...], "log": "node-0.log", "env": {...}, "again": 5.0}
    out: {"name": "node-0", "pid": 123}, and later {"name": "node-0", "code": 1}

A process with `again` is started anew that many seconds after it ended.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

POLL = 0.1  # seconds
GRACE = 3.0  # seconds between SIGTERM and SIGKILL


def tell(**event: Any) -> None:
    """An event for the driver; nobody reads it any more when it has gone."""
    try:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        pass


def start(job: dict[str, Any]) -> subprocess.Popen[bytes] | None:
    """Start a job in this process's group, its output at the end of its log."""
    try:
        with open(job["log"], "ab") as log:
            process = subprocess.Popen(
                job["argv"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=job.get("env")
            )
    except OSError as error:
        tell(name=job["name"], code=127, why=str(error))
        return None
    tell(name=job["name"], pid=process.pid)
    return process


def keep() -> None:
    """Start what is asked for until standard input ends."""
    jobs: dict[str, dict[str, Any]] = {}
    running: dict[str, subprocess.Popen[bytes]] = {}
    due: dict[str, float] = {}
    source, rest = sys.stdin.fileno(), b""
    while True:
        if select.select([source], [], [], POLL)[0]:
            got = os.read(source, 65536)
            if not got:
                break
            *lines, rest = (rest + got).split(b"\n")
            for job in map(json.loads, lines):
                jobs[job["name"]], due[job["name"]] = job, 0.0
        for name in [name for name, when in due.items() if when <= time.monotonic()]:
            del due[name]
            if (process := start(jobs[name])) is not None:
                running[name] = process
        for name, process in list(running.items()):
            if (code := process.poll()) is not None:
                del running[name]
                tell(name=name, code=code)
                if jobs[name].get("again") is not None:
                    due[name] = time.monotonic() + jobs[name]["again"]
    end(list(running.values()))


def end(running: list[subprocess.Popen[bytes]]) -> None:
    """End the whole group, this process with it."""
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while any(process.poll() is None for process in running) and time.monotonic() < deadline:
        time.sleep(POLL)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    if os.getpgrp() != os.getpid():
        os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # a handler, because children would inherit that a signal is ignored
    keep()

"""Processes that end with this one: the driver's side of the keeper."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fedsparse.errors import InputError, RunError

END = 20.0  # seconds that the keeper has to end everything


class Processes:
    """From `open` to `close`: starts processes by name, in one group, each with a log `NAME.log` in `folder`."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        if os.name != "posix":
            raise InputError('The runtime "grpc" needs process groups, which Windows has not: use --runtime local.')
        self.folder, self.environment = folder, dict(environment)
        self.codes: dict[str, int] = {}  # of those that have ended
        self.pids: dict[str, int] = {}
        self._keeper: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Start the keeper."""
        with open(self.folder / "keeper.log", "ab") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("keeper.py"))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._reader = threading.Thread(target=self._read, args=[self._keeper.stdout], daemon=True)
        self._reader.start()

    def start(self, name: str, argv: Sequence[str], again: float | None = None) -> None:
        """Start a process; with `again`, anew so many seconds after it ended."""
        job = {"name": name, "argv": [str(part) for part in argv], "log": str(self.log(name)),
               "env": self.environment, "again": again}  # fmt: skip
        self.codes.pop(name, None)
        try:
            if self._keeper is None or self._keeper.stdin is None:
                raise ValueError
            self._keeper.stdin.write(json.dumps(job).encode() + b"\n")
            self._keeper.stdin.flush()
        except (OSError, ValueError):  # closed, or its reader is gone
            raise RunError(f"the process that was to start {name} has ended") from None

    def log(self, name: str) -> Path:
        """The file with what a process printed."""
        return self.folder / f"{name}.log"

    def ended(self, name: str) -> bool:
        """Whether a process has ended, or the keeper itself."""
        return name in self.codes or self._keeper is None or self._keeper.poll() is not None

    def close(self) -> None:
        """End all of them; returns when they are gone."""
        if self._keeper is None:
            return
        if self._keeper.stdin is not None:
            with contextlib.suppress(OSError):
                self._keeper.stdin.close()
        try:
            self._keeper.wait(END)
        except subprocess.TimeoutExpired:
            os.killpg(self._keeper.pid, 9)
            self._keeper.wait()
        self._reader.join(1.0)

    def _read(self, events: Iterable[bytes]) -> None:
        for line in events:
            event = json.loads(line)
            if "pid" in event:
                self.pids[event["name"]] = event["pid"]
                self.codes.pop(event["name"], None)
            else:
                self.codes[event["name"]] = event["code"]

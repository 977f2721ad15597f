"""The `grpc` runtime: each run is an app on a deployment of Flower, watched from here through its folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedsparse import columns, folder
from fedsparse.deploy.deployment import Deployment
from fedsparse.errors import InputError, RunError
from fedsparse.federation import Federation
from fedsparse.flower.server_app import INTERRUPTED, OnRound, conclude, opening
from fedsparse.ledger import rounds_so_far

log = logging.getLogger("fedsparse")
POLL = 0.2  # seconds


class Remote:
    """Serves runs on a deployment, one after the other. The first one starts it; after one that failed, a new one is
    made."""

    def __init__(self, make: Callable[[], Deployment]) -> None:
        self.make = make
        self.deployment = make()
        self.count = 0

    def close(self) -> None:
        """End every process."""
        self.deployment.close()

    def __call__(
        self, federation: Federation, path: Path, label: str, on_round: OnRound | None = None
    ) -> dict[str, Any]:
        """As `server_app.serve`, but the rounds are driven by a process of Flower's."""
        text, why = federation.experiment.to_toml(), ""
        (path / "config.toml").write_text(text, encoding="utf-8")
        folder.write_json(path / "run.json", opening(federation, label))
        config: dict[str, str | int | float] = {
            "experiment": text,
            "label": label,
            "out": str(path),
            "command": folder.command(),
        }
        self.count += 1
        name = f"run-{self.count}"
        try:
            if self.deployment.closed:
                self.deployment = self.make()
            if not self.deployment.started:
                self.deployment.start()
            config["nodes"] = " ".join(f"{client}:{node}" for client, node in self.deployment.nodes.items())
            watch(path, self.deployment.submit(name, config), on_round or (lambda row: None))
            if folder.read_json(path / "run.json")["status"] == columns.RUNNING:
                why = self.deployment.why(name)
        except KeyboardInterrupt:
            try:
                self.deployment.close()  # first, so that nobody writes to the folder any more
            finally:  # also when Ctrl-C is pressed again
                conclude(federation, path, columns.INTERRUPTED, INTERRUPTED)
            raise
        except Exception as error:  # whatever it is, the run has failed, and its folder says why
            log.exception("%s could not be run on real clients", label)
            why = str(error) if isinstance(error, RunError | InputError) else repr(error)
        if why:
            self.deployment.close()
        info = conclude(federation, path, columns.FAILED, why)
        if info["status"] != columns.DONE:
            raise RunError(f"{info['why']} (the logs of all processes are in {self.deployment.folder})")
        return info


def watch(path: Path, alive: Callable[[], bool], on_round: OnRound) -> None:
    """Tell of each round as its row appears, until the run has ended."""
    told = 0
    while True:
        going = alive()
        for row in rounds_so_far(path)[told:]:
            told += 1
            on_round(row)
        if not going:
            return
        time.sleep(POLL)

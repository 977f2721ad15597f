"""The app that Flower carries to clients: a name and the names of two functions, and no code.

Server and client import the fedsparse that is installed on their own machines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

PROJECT = """[project]
name = "fedsparse-app"
version = "1.0.0"
description = "Federated sparse learning: server and clients import the fedsparse that is installed there."
license = "Apache-2.0"
dependencies = ["flwr"]

[tool.flwr.app]
publisher = "fedsparse"
fab-include = ["pyproject.toml", "README.md"]

[tool.flwr.app.components]
serverapp = "fedsparse.flower.app:server"
clientapp = "fedsparse.flower.client_app:app"

[tool.flwr.app.config]
"""
README = "This app carries no code: it runs the fedsparse that is installed on each machine.\n"


DEFAULTS: dict[str, str | int | float] = {
    "config": "quickstart", "strategy": "feddip", "rounds": 3, "clients": 3, "set": "", "out": "", "nodes": "",
}  # fmt: skip


def write(folder: Path, config: Mapping[str, str | int | float]) -> None:
    """Write the app into a new folder, with these keys of its run config and their defaults."""
    folder.mkdir(parents=True)
    keys = "".join(f"{key} = {json.dumps(value)}\n" for key, value in config.items())
    (folder / "pyproject.toml").write_text(PROJECT + keys, encoding="utf-8")
    (folder / "README.md").write_text(README, encoding="utf-8")


def connection(home: Path, address: str, ca: Path | None) -> None:
    """Write a FLWR_HOME into a new folder: its config.toml says where the command flwr finds the server."""
    home.mkdir(mode=0o700)
    trust = f"root-certificates = {json.dumps(str(ca))}" if ca else "insecure = true"
    lines = ["[superlink]", 'default = "here"', "", "[superlink.here]", f"address = {json.dumps(address)}", trust]
    (home / "config.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")

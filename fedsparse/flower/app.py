"""The server's side in every deployment of Flower: the ServerApp that `flwr run` starts, one run an app."""

from __future__ import annotations

from pathlib import Path

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedsparse import folder
from fedsparse.federation import federation
from fedsparse.flower.context import experiment_text, numbered, present
from fedsparse.flower.remote import RemoteGrid
from fedsparse.flower.server_app import serve

server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment of the run config into the folder `out` (default: a new one under runs/)."""
    config = context.run_config
    torch.set_num_threads(1)  # equal sums in every process
    built = federation(experiment_text(config))
    experiment, clients = built.experiment, len(built.nodes)
    label, out = str(config.get("label") or ""), str(config.get("out") or "") or None
    path = Path(str(out)) if label else folder.claim(out, "flwr")  # a label: the folder is a driver's
    runtime = experiment.runtime
    remote = RemoteGrid(grid, clients, present(built), numbered(config), connect=runtime.connect, reply=runtime.reply)
    known = {"command": str(config["command"])} if label else {"command": "flwr run", "runtime": "flwr"}
    with folder.logged(path / "log.txt"):
        serve(built, remote, path, label or experiment.strategy.label, known=known)

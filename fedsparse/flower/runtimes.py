"""Where clients run: each runtime, opened once for all runs of a comparison."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from flwr.app import UserConfig
from flwr.serverapp import Grid

from fedsparse.data import root
from fedsparse.errors import InputError
from fedsparse.experiment import Experiment
from fedsparse.federation import Federation, federation
from fedsparse.flower.grids import LocalGrid
from fedsparse.flower.server_app import STORES, OnRound, run_id, serve

GridFor = Callable[[int, UserConfig, int], Grid]  # (clients, run config, run id) -> Grid
Serve = Callable[[Federation, Path, str, OnRound], dict[str, Any]]  # (federation, folder, label, on_round) -> run.json


@contextmanager
def serving(experiments: Sequence[Experiment], folder: Path) -> Iterator[Serve]:
    """What runs one federation after another in the runtime of these experiments, with its own files in `folder`."""
    if experiments[0].runtime.name == "grpc":
        from fedsparse.deploy.deployment import Deployment
        from fedsparse.flower.grpc import Remote

        options, clients = experiments[0].runtime, max(clients_of(one) for one in experiments)

        def deployment() -> Deployment:
            names = (f"flower-{n}" if n > 1 else "flower" for n in count(1))
            place = next(path for name in names if not (path := folder / name).exists())
            return Deployment(place, clients, port=options.port, data=root())

        remote = Remote(deployment)
        try:
            yield remote
        finally:
            remote.close()
        return
    with runtime(experiments) as grid_for:

        def run(federation: Federation, path: Path, label: str, on_round: OnRound) -> dict[str, Any]:
            config: UserConfig = {"experiment": federation.experiment.to_toml(), "stores": str(path / STORES)}
            grid = grid_for(len(federation.nodes), config, run_id(federation))
            return serve(federation, grid, path, label, on_round)

        yield run


def clients_of(experiment: Experiment) -> int:
    """How many clients it has, also where the data say so."""
    return len(federation(experiment.to_toml()).nodes)


@contextmanager
def runtime(experiments: Sequence[Experiment]) -> Iterator[GridFor]:
    """The simulation that these experiments ask for (all the same); inside, `grid_for` makes the Grid of one run."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # equal sums in every process
    options = experiments[0].runtime
    try:
        if options.name == "local":
            yield LocalGrid
        elif find_spec("ray") is None:
            raise InputError('runtime "ray" needs Ray, which is not installed here: use --runtime local.')
        else:
            from fedsparse.flower.ray_grid import Pool

            most = max(one.clients or sys.maxsize for one in experiments)  # every client is evaluated
            with Pool(options.workers, options, most) as pool:
                yield pool.grid
    finally:
        torch.set_num_threads(threads)

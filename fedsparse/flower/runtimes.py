"""Where clients run: the Grid of each runtime, opened once for all runs of a comparison."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

from flwr.app import UserConfig
from flwr.serverapp import Grid

from fedsparse.errors import InputError
from fedsparse.experiment import Experiment
from fedsparse.flower.grids import LocalGrid

GridFor = Callable[[int, UserConfig, int], Grid]  # (clients, run config, run id) -> Grid


@contextmanager
def runtime(experiments: Sequence[Experiment]) -> Iterator[GridFor]:
    """The runtime that these experiments ask for (all the same); inside, `grid_for` makes the Grid of one run."""
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

            workers = options.workers or os.cpu_count() or 1
            work = max(one.clients or workers for one in experiments)  # every client is evaluated
            with Pool(min(workers, work), options) as pool:
                yield pool.grid
    finally:
        torch.set_num_threads(threads)

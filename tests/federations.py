"""Small federations for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedsparse.experiment import Experiment
from fedsparse.federation import Federation, federation
from fedsparse.store import Store

SMALL: dict[str, Any] = {
    "rounds": 3,
    "clients": 4,
    "dataset": "digits",
    "partition": {"name": "dirichlet", "alpha": 1.0},
    "model": {"name": "mlp"},
    "train": {"batch_size": 64},
    "runtime": {"name": "local"},
}


def small(**overrides: Any) -> Experiment:
    """Four clients, three rounds, digits, an MLP, in this process."""
    return Experiment.load(SMALL, **overrides)


def built(**overrides: Any) -> Federation:
    """The federation of `small`."""
    return federation(small(**overrides).to_toml())


def client_of(fed: Federation, tmp: Path, id: int = 0, round: int = 1, generation: int = 0) -> Any:
    """A client with a store in `tmp`."""
    return fed.client(id, round, "train", Store(tmp / str(id), generation))

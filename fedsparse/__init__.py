"""Federated sparse learning with every byte counted: `run` one experiment, `compare` several, `load` what they left.

Names are imported when they are first used, so that `import fedsparse` itself costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedsparse.api import compare, load, run
    from fedsparse.client import Client
    from fedsparse.data import Data, Dataset
    from fedsparse.errors import InputError, RunError
    from fedsparse.experiment import Experiment
    from fedsparse.models.base import Model
    from fedsparse.partition import Partition
    from fedsparse.payload import Bits, Payload
    from fedsparse.results import Comparison, Run
    from fedsparse.strategy import Node, Reply, Strategy, Task

__version__ = "0.1.0"

__all__ = [
    "Bits",
    "Client",
    "Comparison",
    "Data",
    "Dataset",
    "Experiment",
    "InputError",
    "Model",
    "Node",
    "Partition",
    "Payload",
    "Reply",
    "Run",
    "RunError",
    "Strategy",
    "Task",
    "__version__",
    "compare",
    "load",
    "run",
]

_HOMES = {
    "api": ("compare", "load", "run"),
    "client": ("Client",),
    "data": ("Data", "Dataset"),
    "errors": ("InputError", "RunError"),
    "experiment": ("Experiment",),
    "models.base": ("Model",),
    "partition": ("Partition",),
    "payload": ("Bits", "Payload"),
    "results": ("Comparison", "Run"),
    "strategy": ("Node", "Reply", "Strategy", "Task"),
}

# A wheel holds strategies/, datasets/ and configs/ inside this package; in a source tree they lie beside it.
_root = Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "strategies").is_dir():
    __path__.append(str(_root))


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

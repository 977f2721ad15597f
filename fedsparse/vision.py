"""torchvision, wherever PyTorch itself can be imported: `from fedsparse.vision import torchvision`.

torchvision's own operators are compiled against one build of PyTorch. Beside another one (most often: PyTorch for the
CPU and torchvision from PyPI, built for CUDA) they cannot be loaded, and then `import torchvision` ends with "operator
torchvision::nms does not exist": it describes two operators to PyTorch that nobody defined. Nothing here needs them, so
this module declares both by their signature, without an implementation, when torchvision's library cannot be loaded:
its data sets, models and transforms work, calling `nms` is an error as before. Beside a matching PyTorch nothing is
changed.

Whoever imports torchvision after this module gets the same, whole module.
"""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import library

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
OPERATORS = ("nms", "qnms")

_declared: list[library.Library] = []  # what a Library declares is gone with it


def _load_operators() -> None:
    """Load torchvision's library as its own import is about to do (twice is once); harmless when it cannot be."""
    spec = find_spec("torchvision")  # looks, and runs nothing
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(folder).glob("_C*")):
            if file.name.endswith(tuple(EXTENSION_SUFFIXES)):
                try:
                    torch.ops.load_library(file)
                except (OSError, ImportError, RuntimeError):
                    continue  # for another build of PyTorch


def _declare_missing() -> None:
    missing = [name for name in OPERATORS if not hasattr(torch.ops.torchvision, name)]
    if missing:
        fragment = library.Library("torchvision", "FRAGMENT")
        for name in missing:
            fragment.define(name + SCHEMA)
        _declared.append(fragment)


if "torchvision" not in sys.modules:
    # An import that failed before this one leaves its first half behind, which a second import would trip over.
    for name in [name for name in sys.modules if name.startswith("torchvision.")]:
        del sys.modules[name]
    _load_operators()
    _declare_missing()

import torchvision  # noqa: E402

__all__ = ["torchvision"]

"""Picks the kernels once, at import: the compiled ones, else NumPy with one warning that names the cause."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from types import ModuleType

from fedsparse.codec import reference
from fedsparse.errors import InputError

VARIABLE = "FEDSPARSE_ISA"
ALLOWED = ("c", "avx2", "avx512", "numpy")  # the first three are one and the same until there are SIMD tiers


def _compiled() -> ModuleType:
    from fedsparse.codec import _kernels  # type: ignore[attr-defined]

    if _kernels.ABI != reference.ABI:
        raise ImportError("fedsparse.codec._kernels was compiled from another version, install fedsparse again")
    return _kernels  # type: ignore[no-any-return]


def _explain(error: ImportError) -> str:
    text = f"fedsparse uses its slower NumPy kernels, because the compiled ones cannot be imported ({error})."
    root = Path(__file__).resolve().parents[2]
    if isinstance(error, ModuleNotFoundError) or "cannot import name" in str(error):
        if (root / "pyproject.toml").exists():
            return (f"{text} Python imported the source tree {root}, which has no compiled kernels: start Python in another "
                    "folder to use the installed package, or install the source tree itself with `pip install -e .` (it needs a C compiler).")
        return f"{text} They were not built when fedsparse was installed: install a C compiler, then fedsparse again."
    return text


def _choose() -> tuple[ModuleType, str]:
    isa = os.environ.get(VARIABLE, "")
    if isa and isa not in ALLOWED:
        raise InputError(f"{VARIABLE} is {isa!r}, allowed are {', '.join(ALLOWED)}")
    if isa == "numpy":
        return reference, "numpy"
    try:
        return _compiled(), "cython"
    except ImportError as error:
        warnings.warn(_explain(error), RuntimeWarning, stacklevel=2)
        return reference, "numpy"


_module, IN_USE = _choose()

count = _module.count
pack = _module.pack
unpack = _module.unpack
gaps = _module.gaps
ungaps = _module.ungaps
compact = _module.compact
expand = _module.expand
cost = _module.cost


def kernels_in_use() -> str:
    """Which kernels run: "cython" or "numpy"."""
    return IN_USE

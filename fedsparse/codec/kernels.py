"""Picks the kernels once, at import: the best tier of this CPU, else NumPy with one warning that names the cause."""

from __future__ import annotations

import importlib
import os
import warnings
from pathlib import Path
from types import ModuleType

from fedsparse.codec import reference
from fedsparse.errors import InputError

COMPILED = "fedsparse.codec._kernels"
VARIABLE = "FEDSPARSE_ISA"
ALLOWED = ("c", "avx2", "avx512", "numpy")


def _compiled() -> ModuleType:
    compiled = importlib.import_module(COMPILED)
    if getattr(compiled, "ABI", None) != reference.ABI:
        raise ImportError(f"{COMPILED} was compiled from another version of its source, install fedsparse again")
    return compiled


def _explain(error: ImportError) -> str:
    text = f"fedsparse uses its slower NumPy kernels, because the compiled ones cannot be imported ({error})."
    root = Path(__file__).resolve().parents[2]
    if isinstance(error, ModuleNotFoundError) and error.name == COMPILED:
        if (root / "pyproject.toml").exists():
            return (
                f"{text} Python was started in (or imports) the source tree {root}, which has no compiled kernels: "
                "start it in another folder, so that the installed package is imported, or make the source tree "
                "itself the installed package with `pip install -e .` (it needs a C compiler)."
            )
        return f"{text} They were not built when fedsparse was installed: install a C compiler, then fedsparse again."
    return text


def _choose() -> tuple[ModuleType, str]:
    isa = os.environ.get(VARIABLE, "")
    if isa and isa not in ALLOWED:
        raise InputError(f"{VARIABLE} is {isa!r}, allowed are {', '.join(ALLOWED)}")
    if isa == "numpy":
        return reference, "numpy"
    try:
        compiled = _compiled()
    except ImportError as error:
        warnings.warn(_explain(error), RuntimeWarning, stacklevel=2)
        return reference, "numpy"
    if isa and isa not in compiled.TIERS:
        raise InputError(f"{VARIABLE} is {isa!r}, this machine has {', '.join((*compiled.TIERS, 'numpy'))}")
    tier = isa or compiled.TIERS[0]
    compiled.select(tier)
    return compiled, tier


_module, IN_USE = _choose()

count = _module.count
pack = _module.pack
unpack = _module.unpack
gaps = _module.gaps
ungaps = _module.ungaps
rice = _module.rice
unrice = _module.unrice
pext = _module.pext
pdep = _module.pdep
compact = _module.compact
expand = _module.expand
cost = _module.cost
plan = _module.plan
split = _module.split
join = _module.join
decode32 = _module.decode32
accumulate32 = _module.accumulate32
zigzag = _module.zigzag
unzigzag = _module.unzigzag
quantise = _module.quantise
dequantise = _module.dequantise


def kernels_in_use() -> str:
    """Which kernels run: "avx512", "avx2", "c" or "numpy"."""
    return IN_USE

"""What `import fedsparse` offers: these names are a contract."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fedsparse

ROOT = Path(__file__).resolve().parent.parent

PUBLIC = [
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


def test_all_is_pinned() -> None:
    assert fedsparse.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(fedsparse))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(fedsparse, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="fedsparse.*nothing_of_this_name"):
        _ = fedsparse.nothing_of_this_name


def test_importing_the_package_imports_nothing_large() -> None:
    code = "import sys, fedsparse; print(*{'torch', 'numpy', 'flwr', 'ray', 'pandas', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_version_is_written_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == fedsparse.__version__
    assert f"\nversion: {fedsparse.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")

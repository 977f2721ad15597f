"""What can be plugged in, and where it is found: a shipped file, an installed package's entry point, or a user's file.

find("strategies", "fedavg")              the class in strategies/fedavg.py
find("strategies", "mine.py:Mine")        the class Mine in the file mine.py
find("configs", "quickstart")             the path of configs/quickstart.toml
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from fedsparse.errors import InputError

KINDS = ("strategies", "datasets", "models", "partitions", "sparsifiers", "configs")

SINGULAR: Mapping[str, str] = MappingProxyType({kind: kind[:-1] for kind in KINDS} | {"strategies": "strategy"})

# Where the base class of a kind is: module, name.
_BASES = {
    "strategies": ("fedsparse.strategy", "Strategy"),
    "datasets": ("fedsparse.data", "Dataset"),
    "models": ("fedsparse.models.base", "Model"),
    "partitions": ("fedsparse.partition", "Partition"),
}


def find(kind: str, name: str) -> Any:
    """The class (a path for `configs`, a function for `sparsifiers`) of that name.

    `name` is a shipped name, an entry point of the group `fedsparse.KIND`, or `path/to/file.py:Name`.
    Raises InputError with the nearest and the allowed names.
    """
    if is_file(name):
        return _from_file(kind, name)
    shipped = _shipped(kind)
    if name in shipped:
        return shipped[name] if kind == "configs" else _load(kind, name)
    points = _points(kind)
    if name in points:
        return _from_point(kind, points[name])
    raise InputError(_unknown(kind, name, sorted({*shipped, *points})))


def names(kind: str) -> list[str]:
    """All names of a kind, shipped and from entry points, sorted."""
    _check(kind)
    return sorted({*_shipped(kind), *_points(kind)})


def summary(kind: str, name: str) -> str:
    """What it is, in a line: the docstring's first line; of a config the text of its first comment."""
    found = find(kind, name)
    if isinstance(found, Path):
        first = found.read_text(encoding="utf-8").partition("\n")[0]
        return first.lstrip("# ").rstrip() if first.startswith("#") else ""
    text = found.__doc__ or sys.modules[found.__module__].__doc__ or ""
    return text.strip().partition("\n")[0]


def is_file(name: str) -> bool:
    """Whether `name` is of the form path/to/file.py:Name (or a path to a Python file alone)."""
    return ".py:" in name or name.endswith(".py")


def absolute(name: str, *folders: Path) -> str:
    """path/to/file.py:Name with an absolute path: in the first of `folders` that has it, else where we are."""
    if not is_file(name):
        return name
    path, colon, attribute = name.rpartition(":") if not name.endswith(".py") else (name, "", "")
    for folder in (*folders, Path.cwd()):
        found = (folder / Path(path).expanduser()).resolve()
        if found.is_file():
            return f"{found}{colon}{attribute}"
    return f"{Path(path).expanduser().absolute()}{colon}{attribute}"


def label(name: str) -> str:
    """A name for tables and folders: of path/to/file.py:Name the Name."""
    return name.rpartition(":")[2] if is_file(name) else name


def fingerprint(name: str) -> str:
    """The name; of path/to/file.py:Name what the file holds in place of where it lies."""
    path, _, attribute = name.rpartition(":")
    return f"{hashlib.sha256(Path(path).read_bytes()).hexdigest()}:{attribute}" if is_file(name) else name


def _check(kind: str) -> None:
    if kind not in KINDS:
        raise InputError(f'There is no kind "{kind}"; allowed: {", ".join(KINDS)}.')


def _unknown(kind: str, name: str, allowed: list[str]) -> str:
    file = "a path to a .toml file" if kind == "configs" else "path/to/file.py:Name"
    return f'There is no {SINGULAR[kind]} "{name}"{nearest(name, allowed)}; allowed: {", ".join([*allowed, file])}.'


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A hint at the end of a sentence, empty where nothing comes near."""
    near = get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f', nearest is "{near[0]}"' if near else ""


# ---- shipped ----


def _shipped(kind: str) -> dict[str, Any]:
    """The shipped names of a kind; the values are paths for `configs` and modules' names otherwise."""
    _check(kind)
    if kind == "configs":
        return {path.stem: path for folder in _folders(kind) for path in sorted(folder.glob("*.toml"))}
    if kind == "partitions":
        return {cls.name: cls.__module__ for cls in _partitions()}
    return {module: f"fedsparse.{kind}.{module}" for module in _modules(kind)}


def _folders(kind: str) -> list[Path]:
    """The folders of the package fedsparse.KIND: inside the package in a wheel, beside it in a source tree."""
    import fedsparse

    return [folder for root in fedsparse.__path__ if (folder := Path(root) / kind).is_dir()]


def _modules(kind: str) -> Iterator[str]:
    for info in pkgutil.iter_modules([str(folder) for folder in _folders(kind)]):
        if not info.ispkg and not info.name.startswith("_") and info.name != "base":
            yield info.name


def _partitions() -> list[Any]:
    base = _base("partitions")
    modules = [importlib.import_module(f"fedsparse.{name}") for name in ("partition", "natural")]
    found = [cls for module in modules for cls in _subclasses(module, base)]
    return [cls for cls in found if isinstance(getattr(cls, "name", None), str)]


def _load(kind: str, name: str) -> Any:
    if kind == "partitions":
        return next(cls for cls in _partitions() if cls.name == name)
    module = importlib.import_module(f"fedsparse.{kind}.{name}")
    return module.score if kind == "sparsifiers" else _only(kind, module)


def _base(kind: str) -> type:
    module, name = _BASES[kind]
    base: type = getattr(importlib.import_module(module), name)
    return base


def _subclasses(module: ModuleType, base: type) -> list[Any]:
    """The public subclasses of `base` that are defined in this module."""
    return [
        cls
        for name, cls in vars(module).items()
        if isinstance(cls, type)
        and issubclass(cls, base)
        and cls is not base
        and cls.__module__ == module.__name__
        and not name.startswith("_")
    ]


def _only(kind: str, module: ModuleType) -> Any:
    classes = _subclasses(module, _base(kind))
    if len(classes) != 1:
        found = ", ".join(cls.__name__ for cls in classes) or "none"
        raise InputError(f"{module.__file__} must define one public class of {_BASES[kind][1]}, not {found}.")
    return classes[0]


# ---- from elsewhere ----


def _points(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"fedsparse.{kind}")}


def _from_point(kind: str, point: EntryPoint) -> Any:
    try:
        found = point.load()
    except Exception as error:
        raise InputError(
            f'The {SINGULAR[kind]} "{point.name}" of the entry point {point.value} cannot be loaded: '
            f"{type(error).__name__}: {error}."
        ) from error
    return _fits(kind, found, point.name)


def _from_file(kind: str, name: str) -> Any:
    _check(kind)
    path, colon, attribute = absolute(name).rpartition(":")
    if kind == "configs" or not colon or not attribute.isidentifier():
        raise InputError(f'The {SINGULAR[kind]} "{name}" must be a name or path/to/file.py:Name.')
    module = _module(Path(path), kind)
    if not hasattr(module, attribute):
        known = [n for n, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        raise InputError(
            f'There is no "{attribute}" in {path}{nearest(attribute, known)}; '
            f"it defines {', '.join(known) or 'nothing'}."
        )
    return _fits(kind, getattr(module, attribute), name)


def _fits(kind: str, found: Any, name: str) -> Any:
    if kind == "sparsifiers":
        if not callable(found):
            raise InputError(f'The sparsifier "{name}" must be a function.')
        return found
    base = _base(kind)
    if not (isinstance(found, type) and issubclass(found, base) and found is not base):
        raise InputError(f'The {SINGULAR[kind]} "{name}" must be a subclass of {base.__module__}.{base.__name__}.')
    if missing := ", ".join(sorted(getattr(found, "__abstractmethods__", ()))):
        raise InputError(f'The {SINGULAR[kind]} "{name}" must define {missing}.')
    return found


def _module(path: Path, kind: str) -> ModuleType:
    """A user's file as a module. Its name depends on path and content, so that every process has the same."""
    if not path.is_file():
        raise InputError(f"There is no file {path} to take a {SINGULAR[kind]} from.")
    content = hashlib.sha256(str(path).encode() + b"\0" + path.read_bytes()).hexdigest()[:12]
    name = f"fedsparse_file_{path.stem}_{content}".replace("-", "_").replace(" ", "_")
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: pydantic looks its annotations up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"{path} cannot be loaded: {type(error).__name__}: {error}.") from error
    return module

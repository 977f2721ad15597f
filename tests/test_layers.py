"""Imports point downwards only, and each large dependency has one home. Read from the sources, without running them."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the bottom to the top: a module imports from its own layer and from those before it.
LAYERS = [
    ("errors",),
    ("payload",),
    ("codec",),
    ("options", "randomness", "masks", "schedules", "distributions", "sparsifiers"),
    ("phones", "profiles", "pruned_rate", "clock", "flops"),
    ("data", "vision", "models", "convert"),
    ("strategy",),
    ("registry",),
    ("experiment", "sections", "sentences", "settings"),
    (
        "partition",
        "natural",
        "split",
        "devices",
        "device_csv",
        "store",
        "wiring",
        "channels",
        "client",
        "planner",
        "train",
    ),  # fmt: skip
    ("strategies", "datasets"),  # found by their file, never imported by name
    ("federation",),
    ("bench", "columns", "folder", "ledger", "measures"),
    ("deploy",),
    ("flower",),
    ("results", "retime"),
    ("report",),
    ("api",),
    ("cli", "__main__"),
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

# A package of others: the modules that may import it.
TABLES = ("columns", "ledger", "measures", "results", "retime", "report", "cli")
HOMES = {
    "flwr": ("flower",),
    "ray": ("flower",),
    "flwr_datasets": ("partition",),
    "datasets": ("partition",),
    "pandas": (*TABLES, "datasets", "convert"),
    "pyarrow": (*TABLES, "natural"),
    "matplotlib": ("report", "cli"),
    "typer": ("cli",),
    "rich": ("cli",),
    "cryptography": ("deploy",),
    "zstandard": ("bench", "codec"),
    "xxhash": ("codec",),
    "sklearn": ("datasets",),
    "PIL": ("datasets", "report"),
    "torchvision": ("datasets", "vision"),
}
ALLOWED_IN_CODEC = {"numpy", "zstandard", "xxhash"} | sys.stdlib_module_names
PUBLIC_FLOWER = ("flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.serverapp.strategy")
FLOWER_PRIVATE = "flower.private"
# A strategy opens no file, logs nothing and measures nothing: what it wants to tell goes into the payload's `info`.
NOT_IN_STRATEGIES = {"io", "json", "logging", "os", "pathlib", "shutil", "sys", "tempfile", "time", "warnings"}
NOT_CALLED_IN_STRATEGIES = {"open", "print", "exec", "eval"}
# What comes from others is never run: these turn bytes into objects of any kind.
RUNS_BYTES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve"}
RUNS_FILES = ("np.load", "numpy.load", "torch.load", "np.lib.format.read_array", "eval", "exec")


@dataclass(frozen=True)
class Import:
    """Who (`codec.encoder`) imports what (`fedsparse.payload`, `flwr.app`) in which line; `typing`: for types only."""

    who: str
    what: str
    line: int
    typing: bool = False

    @property
    def top(self) -> str:
        return self.what.partition(".")[0]


def modules() -> dict[str, ast.Module]:
    """Every module of ours by its name below `fedsparse`."""
    found = {}
    for base, prefix in (("fedsparse", ""), ("strategies", "strategies."), ("datasets", "datasets.")):
        for path in sorted((ROOT / base).rglob("*.py")):
            name = prefix + ".".join(path.relative_to(ROOT / base).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = ast.parse(path.read_text(encoding="utf-8"))
    found["codec._kernels"] = ast.parse("")  # compiled, imports nothing of ours
    found.pop("__init__")  # it names everything, and imports it when it is asked for
    return found


def imports(who: str, tree: ast.AST, typing: bool = False) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(who, alias.name, node.lineno, typing) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (Import(who, what, node.lineno, typing) for what in _from(node))
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from imports(who, ast.Module(node.body, []), True)
            yield from imports(who, ast.Module(node.orelse, []), typing)
        else:
            yield from imports(who, node, typing)


def _from(node: ast.ImportFrom) -> list[str]:
    module = "." * node.level + (node.module or "")
    # `from fedsparse.codec import x` may import a module x: the longer name says where it is
    return [f"{module}.{alias.name}" for alias in node.names] if module.startswith("fedsparse") else [module]


MODULES = modules()
IMPORTS = [i for name, tree in MODULES.items() for i in imports(name, tree)]


def below(name: str, homes: tuple[str, ...] | str) -> bool:
    homes = (homes,) if isinstance(homes, str) else homes
    return any(name == home or name.startswith(f"{home}.") for home in homes)


def rank(module: str) -> int | None:
    return RANK.get(module.partition(".")[0])


def upward(i: Import) -> bool:
    inside = i.what.removeprefix("fedsparse.")
    if i.typing or i.top != "fedsparse" or inside == "fedsparse":
        return False
    mine, theirs = rank(i.who), rank(inside)
    assert mine is not None, f"{i.who} is in no layer: give it a place in LAYERS"
    assert theirs is not None, f"{i.who}:{i.line} imports {i.what}, which is in no layer"
    return theirs > mine


def homeless(i: Import) -> bool:
    return not i.typing and i.top in HOMES and not below(i.who, HOMES[i.top])


def private_flower(i: Import) -> bool:
    return i.top == "flwr" and i.what not in PUBLIC_FLOWER and i.who != FLOWER_PRIVATE


def foreign_in_codec(i: Import) -> bool:
    if not below(i.who, "codec") or i.typing:
        return False
    if i.top == "fedsparse":
        return not below(i.what.removeprefix("fedsparse."), ("codec", "payload", "errors"))
    return i.top not in ALLOWED_IN_CODEC


def touching(i: Import) -> bool:
    return below(i.who, "strategies") and i.top in NOT_IN_STRATEGIES


def running_bytes(i: Import) -> bool:
    return reads_others(i.who) and i.top in RUNS_BYTES


def reads_others(who: str) -> bool:
    return below(who, ("codec", "flower"))


def running_files(who: str, tree: ast.AST) -> list[str]:
    """Calls in codec/ and flower/ that may run what they read, under whatever name."""
    if not reads_others(who):
        return []
    names = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name)]
    names += [
        f"{node.module}.{a.name}" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names
    ]
    return [name for name in names if name in RUNS_FILES]


def relative(i: Import) -> bool:
    """The other rules read full names only."""
    return i.what.startswith(".")


RULES = [relative, upward, homeless, private_flower, foreign_in_codec, touching, running_bytes]


def test_the_sources_are_found() -> None:
    assert len(MODULES) > 30 and len(IMPORTS) > 100
    for folder in ("codec", "flower", "models", "sparsifiers", "strategies", "datasets"):
        assert any(name.startswith(f"{folder}.") for name in MODULES), f"no module below {folder}"


def test_every_module_has_a_layer() -> None:
    assert [name for name in MODULES if rank(name) is None] == []


@pytest.mark.parametrize("broken", RULES)
def test_rule(broken) -> None:
    found = [f"{i.who}:{i.line} imports {i.what}" for i in IMPORTS if broken(i)]
    assert found == [], f"{broken.__name__}: " + "; ".join(found)


def test_strategies_call_nothing_that_leaves_a_trace() -> None:
    found = [
        f"{name}:{node.lineno} calls {node.func.id}"
        for name, tree in MODULES.items()
        if below(name, "strategies")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NOT_CALLED_IN_STRATEGIES
    ]
    assert found == []


def test_nothing_that_arrives_is_run() -> None:
    assert [(who, name) for who, tree in MODULES.items() for name in running_files(who, tree)] == []
    for source in ("np.load(file, allow_pickle=True)", "load = torch.load", "from torch import load", "eval(text)"):
        assert running_files("flower.wire", ast.parse(source)), source


def test_no_cycles() -> None:
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for i in IMPORTS:
        target = i.what.removeprefix("fedsparse.")
        while i.top == "fedsparse" and not i.typing and target:
            if target in graph and target != i.who:
                graph[i.who].add(target)
                break
            target = target.rpartition(".")[0]
    TopologicalSorter(graph).prepare()  # raises CycleError with the modules of the cycle


def test_what_is_imported_is_a_dependency_and_the_other_way_round() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[^\w-]", text)[0].replace("-", "_") for text in project["dependencies"]}
    imported = {i.top for i in IMPORTS} - sys.stdlib_module_names - {"fedsparse"}
    names = {
        "sklearn": "scikit_learn",
        "PIL": "pillow",
        "ray": "flwr",
    }  # Flower's extra "simulation" brings the Ray that it was tested with
    assert {names.get(top, top) for top in imported} | {"pyarrow"} == declared


@pytest.mark.parametrize(
    ("broken", "who", "source"),
    [
        (relative, "measures", "from .columns import FLOAT"),
        (upward, "codec.encoder", "from fedsparse.strategy import Strategy"),
        (upward, "strategy", "from fedsparse import federation"),
        (upward, "client", "def f():\n    import fedsparse.flower.wire"),
        (homeless, "results", "import flwr"),
        (homeless, "strategies.fedavg", "import pandas as pd"),
        (homeless, "federation", "from ray.util import state"),
        (private_flower, "flower.grids", "from flwr.supercore.run import Run"),
        (foreign_in_codec, "codec.values", "import torch"),
        (foreign_in_codec, "codec.values", "from fedsparse.options import Options"),
        (touching, "strategies.fedavg", "from pathlib import Path"),
        (running_bytes, "flower.wire", "from pickle import loads"),
    ],
)
def test_the_rules_see_a_breach(broken, who: str, source: str) -> None:
    assert [broken(i) for i in imports(who, ast.parse(source))] == [True]


def test_types_may_point_upwards() -> None:
    source = "if TYPE_CHECKING:\n    from fedsparse.client import Client\nelse:\n    from fedsparse.api import run"
    assert [upward(i) for i in imports("strategy", ast.parse(source))] == [False, True]

"""Installed plainly or editable, started at the root or elsewhere: which copy is imported, and with which kernels.

Built once each, in virtual environments that borrow the packages of the running one, so that nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("fedsparse", "strategies", "datasets", "configs")
SOURCE = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", *FOLDERS)
IGNORED = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "_kernels.c", "build", "*.egg-info")

# Run by the installed interpreters: what is imported from where. To find is enough where importing takes seconds.
LOOK = """
import json, warnings
from importlib.util import find_spec
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import fedsparse, fedsparse.codec
    from fedsparse.registry import find, names
print(json.dumps({
    "package": fedsparse.__file__,
    "strategy": find_spec("fedsparse.strategies.fedavg").origin,
    "dataset": find_spec("fedsparse.datasets.digits").origin,
    "config": str(find("configs", "quickstart")),
    "strategies": names("strategies"),
    "kernels": fedsparse.codec.kernels_in_use(),
    "hugging_face": find_spec("datasets").origin is not None,
    "warnings": [str(w.message) for w in caught if "fedsparse" in str(w.message)],
}))
"""


def call(*command: str | Path, cwd: Path, **more: str) -> str:
    """Run it as a user would, in a folder, without what the tests' own environment adds; returns standard output."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "FEDSPARSE_ISA", "PYTEST_ADDOPTS")} | more
    done = subprocess.run([*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{command} in {cwd}: rc {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def source(folder: Path) -> Path:
    """A copy of all that a build needs, without anything that was built."""
    folder.mkdir(parents=True)
    for name in SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=IGNORED)
        else:
            shutil.copy(ROOT / name, folder / name)
    (folder / "tests").mkdir()
    return folder


@dataclass(frozen=True)
class Install:
    """A virtual environment with fedsparse, and the source tree that it came from."""

    venv: Path
    root: Path

    @property
    def bin(self) -> Path:
        return self.venv / ("Scripts" if os.name == "nt" else "bin")

    @property
    def python(self) -> Path:
        return self.bin / "python"

    @property
    def site(self) -> Path:
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        return Path(call(self.python, "-c", code, cwd=self.venv).strip())

    def look(self, cwd: Path) -> dict:
        return json.loads(call(self.python, "-c", LOOK, cwd=cwd))


def install(base: Path, *what: str, **environment: str) -> Install:
    """A new virtual environment below `base` with `what`: arguments of pip, ROOT stands for the copied source tree."""
    root = source(base / "tree")
    made = Install(base / "venv", root)
    call(sys.executable, "-m", "venv", "--without-pip", made.venv, cwd=base)
    # the packages of the running environment, but not its .pth files: its own fedsparse must not be found
    (made.site / "borrowed.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "--python", made.python, "install", "--no-deps", "--no-build-isolation")
    call(*pip, *(w.replace("ROOT", str(root)) for w in what), cwd=base, **environment)
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("wheel")
    root = source(base / "tree")
    call(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", base, root, cwd=base)
    return next(base.glob("*.whl"))


@pytest.fixture(scope="module")
def plain(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    return install(tmp_path_factory.mktemp("plain"), str(wheel))


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Install:
    return install(tmp_path_factory.mktemp("editable"), "--editable", "ROOT")


def files(root: Path) -> set[str]:
    """All that belongs into a wheel, by its name there."""
    package = [p for p in (root / "fedsparse").rglob("*") if p.suffix in (".py", ".typed") or p.name == "FORMAT.md"]
    names = {p.relative_to(root).as_posix() for p in package}
    for folder, pattern in (("strategies", "*.py"), ("datasets", "*.py"), ("configs", "*.toml")):
        names |= {f"fedsparse/{folder}/{p.name}" for p in (root / folder).glob(pattern)}
    return names


def test_the_wheel_holds_everything(wheel: Path) -> None:
    expected = files(ROOT)
    assert len(expected) > 40
    inside = {n for n in zipfile.ZipFile(wheel).namelist() if n.startswith("fedsparse/")}
    kernels = {n for n in inside if n.startswith("fedsparse/codec/_kernels.") and n.endswith((".so", ".pyd"))}
    assert len(kernels) == 1
    assert inside - kernels == expected


@pytest.mark.parametrize("where", ["/", "elsewhere"])
def test_plain_install_away_from_the_root(plain: Install, where: str, tmp_path: Path) -> None:
    seen = plain.look(Path(tmp_path.anchor) if where == "/" else tmp_path)
    for key in ("package", "strategy", "dataset", "config"):
        assert Path(seen[key]).is_relative_to(plain.venv), f"{key}: {seen[key]}"
    assert "fedavg" in seen["strategies"]
    assert (seen["kernels"] != "numpy", seen["warnings"], seen["hugging_face"]) == (True, [], True)


def test_plain_install_at_the_root_says_that_it_imports_the_source_tree(plain: Install) -> None:
    seen = plain.look(plain.root)
    for key in ("package", "strategy", "dataset", "config"):
        assert Path(seen[key]).is_relative_to(plain.root), f"{key}: {seen[key]}"
    assert (seen["kernels"], seen["hugging_face"]) == ("numpy", True)
    assert len(seen["warnings"]) == 1
    assert "source tree" in seen["warnings"][0] and str(plain.root) in seen["warnings"][0]


@pytest.mark.parametrize("where", ["/", "elsewhere", "root"])
def test_editable_install(editable: Install, where: str, tmp_path: Path) -> None:
    seen = editable.look({"/": Path(tmp_path.anchor), "elsewhere": tmp_path, "root": editable.root}[where])
    for key in ("package", "strategy", "dataset", "config"):
        assert Path(seen[key]).is_relative_to(editable.root), f"{key}: {seen[key]}"
    assert "fedavg" in seen["strategies"]
    assert (seen["kernels"] != "numpy", seen["warnings"], seen["hugging_face"]) == (True, [], True)


def test_editable_install_sees_a_new_strategy(editable: Install, tmp_path: Path) -> None:
    new = editable.root / "strategies" / "brand_new.py"
    new.write_text((editable.root / "strategies" / "fedavg.py").read_text(encoding="utf-8"), encoding="utf-8")
    try:
        assert "brand_new" in editable.look(tmp_path)["strategies"]
    finally:
        new.unlink()


@pytest.mark.parametrize("kind", ["plain", "editable"])
@pytest.mark.parametrize("where", ["elsewhere", "root"])
def test_the_command_and_the_module(kind: str, where: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    made: Install = request.getfixturevalue(kind)
    cwd = made.root if where == "root" else tmp_path
    for command in ((made.bin / "fedsparse",), (made.python, "-W", "ignore", "-m", "fedsparse")):
        listed = json.loads(call(*command, "list", "configs", "--json", cwd=cwd))
        assert "quickstart" in [entry["name"] for entry in listed]


@pytest.mark.parametrize("kind", ["plain", "editable"])
@pytest.mark.parametrize("where", ["elsewhere", "root"])
def test_pytest_as_a_module(kind: str, where: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    made: Install = request.getfixturevalue(kind)
    cwd = made.root if where == "root" else tmp_path
    (cwd / "tests").mkdir(exist_ok=True)
    home = made.venv if (kind, where) == ("plain", "elsewhere") else made.root
    (cwd / "tests" / "test_home.py").write_text(
        "from importlib.util import find_spec\n"
        "from pathlib import Path\n"
        "def test_home():\n"
        "    for module in ('fedsparse', 'fedsparse.strategies.fedavg'):\n"
        f"        assert Path(find_spec(module).origin).is_relative_to({str(home)!r})\n"
        "    assert find_spec('datasets').origin  # Hugging Face's: ours would be a namespace without a file\n",
        encoding="utf-8",
    )
    command = (made.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_home.py")
    assert "1 passed" in call(*command, cwd=cwd)


# Asks a worker of the pool what it imports.
ASK = """
import json, os, ray
from fedsparse.flower.ray_grid import Pool
from fedsparse.sections import Runtime

def look(worker):
    from importlib.util import find_spec
    import fedsparse.codec
    strategy = find_spec("fedsparse.strategies.fedavg").origin
    return [os.getcwd(), fedsparse.__file__, strategy, fedsparse.codec.kernels_in_use()]

if __name__ == "__main__":
    with Pool(1, Runtime(workers=1)) as pool:
        print(json.dumps(ray.get(pool.actors[0].__ray_call__.remote(look))))
"""


@pytest.mark.ray
@pytest.mark.parametrize("copy", ["installed", "source"])
def test_a_ray_worker_at_the_root_imports_the_drivers_copy(plain: Install, copy: str, tmp_path: Path) -> None:
    (tmp_path / "ask.py").write_text(ASK, encoding="utf-8")
    command = [tmp_path / "ask.py"] if copy == "installed" else ["-W", "ignore", "-c", ASK]
    cwd, package, strategy, kernels = json.loads(call(plain.python, *command, cwd=plain.root).splitlines()[-1])
    home = plain.venv if copy == "installed" else plain.root
    assert Path(cwd) == plain.root
    assert Path(package).is_relative_to(home) and Path(strategy).is_relative_to(home)
    assert (kernels != "numpy") == (copy == "installed")


def test_without_a_compiler_it_installs_and_says_so(tmp_path: Path) -> None:
    made = install(tmp_path, "ROOT", CC="no-such-compiler", CXX="no-such-compiler")
    seen = made.look(tmp_path)
    assert Path(seen["package"]).is_relative_to(made.venv)
    assert seen["kernels"] == "numpy"
    assert len(seen["warnings"]) == 1 and "compiler" in seen["warnings"][0]


def test_every_package_is_listed() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"])
    folders = {p.parent.relative_to(ROOT) for p in (ROOT / "fedsparse").rglob("*.py")}
    found = {".".join(folder.parts) for folder in folders}
    assert listed == found | {"fedsparse.strategies", "fedsparse.datasets", "fedsparse.configs"}
    for name in ("strategies", "datasets", "configs"):
        assert not (ROOT / name / "__init__.py").exists(), f"{name}/__init__.py would hide another package at the root"

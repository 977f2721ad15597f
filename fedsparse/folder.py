"""A run's folder: claimed once, never overwritten; `run.json` says at any time how the run stands."""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fedsparse.errors import InputError

LIBRARIES = ("fedsparse", "flwr", "ray", "torch", "numpy", "pandas", "zstandard", "xxhash")


def claim(out: str | Path | None, name: str) -> Path:
    """An empty folder of our own: `out`, or runs/NAME-YYYYMMDD-HHMMSS.

    InputError when it holds anything or cannot be written.
    """
    if out is None:
        stem = Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
        tries = [stem, *(stem.with_name(f"{stem.name}-{n}") for n in range(2, 100))]
    else:
        tries = [Path(out)]
    for folder in tries:
        try:
            if folder.is_dir() and not any(folder.iterdir()) and out is not None:
                _probe(folder)
                return folder.absolute()
            folder.mkdir(parents=True)
            return folder.absolute()
        except FileExistsError:
            if folder.is_file():
                raise InputError(f"{folder} is a file where a folder is to be made") from None
            continue
        except OSError as error:
            raise InputError(f"the folder {folder} cannot be written: {error.strerror or error}") from None
    raise InputError(
        f"the folder {tries[0]} exists and is not empty: name another one with --out, nothing is overwritten"
    )


def _probe(folder: Path) -> None:
    probe = folder / ".probe"
    probe.touch()
    probe.unlink()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON so that the file is always whole."""
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(draft, path)


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def command() -> str:
    """The command of this process, without absolute paths."""
    program, *arguments = sys.argv or [""]
    name = Path(program).name
    if name == "__main__.py":
        name = "python -m fedsparse"
    elif not name.startswith("fedsparse"):
        return f"python {name}" if name else "python"
    return " ".join([name, *(shlex.quote(_relative(argument)) for argument in arguments)])


def _relative(argument: str) -> str:
    key, equals, value = argument.rpartition("=")
    if os.path.isabs(value):
        value = os.path.relpath(value) if value.startswith(os.getcwd() + os.sep) else Path(value).name
    return key + equals + value


def commit() -> str:
    """The commit of the source tree that is running, `-dirty` when it was changed; empty for an installed package."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        ask = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(ask, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide results."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def host() -> str:
    """Operating system and CPU, never the machine's name."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return f"{platform.system()} {platform.release()}, {cpu}, {os.cpu_count()} cores"


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Inside, what Flower, Ray and we log goes to a file, and nothing of it to the screen."""
    handler = logging.FileHandler(path, delay=True, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(name) for name in ("flwr", "ray", "fedsparse")]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        handler.close()

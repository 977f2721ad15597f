"""Published files into what a data set reads: `python -m fedsparse.convert.NAME SOURCE OUT`, one module a data set.

A converter has a docstring, which is its help, and a function from the source to named arrays:

    if __name__ == "__main__":
        sys.exit(command(__doc__, arrays))
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import numpy as np

from fedsparse.errors import InputError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message[:1].upper()}{message[1:]}; usage: {self.prog} SOURCE OUT.")


def command(
    doc: str | None,
    arrays: Callable[[Path], Mapping[str, np.ndarray]],
    arguments: Sequence[str] | None = None,
    save: Callable[[Path, Mapping[str, np.ndarray]], None] | None = None,
) -> int:
    """Run a converter with these arguments (default: the process's); the exit code is 2 for bad input, told in a line.

    `arrays(source)` gives what is written, `save(file, arrays)` writes it (default: a compressed .npz).
    """
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    parser = _Parser(
        prog=f"python -m {spec.name}" if spec else None,
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="the published files")
    parser.add_argument("out", type=Path, metavar="OUT", help="the file to write")
    try:
        given = parser.parse_args(arguments)
        found = arrays(given.source)
        with written(given.out) as draft:
            (save or _npz)(draft, found)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{given.out}: {', '.join(f'{name} {np.shape(array)}' for name, array in found.items())}")
    return 0


@contextmanager
def written(out: Path) -> Iterator[Path]:
    """A file to write to, that becomes `out` when all went well and is gone otherwise. InputError when it cannot be."""
    draft = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        os.replace(draft, out)
    except OSError as error:
        raise InputError(f"The file {out} cannot be written ({error.strerror or error}).") from error
    finally:
        if draft.is_file():
            draft.unlink()


def _npz(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with file.open("wb") as stream:  # by its name NumPy would add .npz to it
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]

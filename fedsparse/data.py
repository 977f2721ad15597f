"""What a data set is to fedsparse, and where its files are.

    class Coins(Dataset):
        '''A thousand coins, heads or tails.'''
        def load(self):
            return Data(x=torch.rand(1000, 3), y=torch.randint(2, (1000,)), classes=2)

Files are looked for under the folder that the environment variable FEDSPARSE_DATA names, which is never written to.
What is unpacked or downloaded goes to the user's cache folder (XDG_CACHE_HOME/fedsparse, else ~/.cache/fedsparse).
"""

from __future__ import annotations

import math
import os
import shutil
import socket
import tempfile
import threading
import urllib.request
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from fedsparse.errors import InputError
from fedsparse.options import Options


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in memory: rows of inputs and targets, and what is known about them.

    Raises InputError when lengths differ or a label is outside the classes.
    """

    x: Tensor
    """Inputs, float32 (or int64 tokens), rows first."""
    y: Tensor
    """Targets: int64 labels from 0 (classification) or float32 (regression), rows first."""
    classes: int | None = None
    """Number of classes; None for a regression."""
    test: tuple[Tensor, Tensor] | None = None
    """The official test set, as (x, y)."""
    clients: np.ndarray | None = None
    """The natural client of each row, as integers or strings; None where the data has none."""
    groups: np.ndarray | None = None
    """What must not be torn apart (a field, an environment), one id a row; None where rows stand for themselves."""
    gap: int = 0
    """How many of the rows after it overlap a row in time: so many are left out where a client's parts meet."""
    times: np.ndarray | None = None
    """When each row was (a year), one time a group; given, the parts are a forecast: the last times are the test."""
    unit: float = 1.0
    """What 1 in a regression's targets is in the unit that its error is told in: their scale, if standardised."""
    zero: float = 0.0
    """What 0 in a regression's targets is in the metric's unit, for people."""

    def __post_init__(self) -> None:
        for part, (x, y) in {"rows": (self.x, self.y), "test rows": self.test or (self.x, self.y)}.items():
            if len(x) != len(y) or len(x) == 0:
                raise InputError(
                    f"The data set has {len(x)} inputs and {len(y)} targets as {part}: "
                    f"as many of both are needed, at least one."
                )
            if self.classes is not None:
                self._check_labels(y, part)
        for name, ids in {"clients": self.clients, "groups": self.groups, "times": self.times}.items():
            if ids is not None and len(ids) != len(self.x):
                raise InputError(f"The data set has {len(self.x)} rows but {len(ids)} ids of {name}: one a row is due.")
        if self.gap < 0:
            raise InputError(f"The data set has gap = {self.gap}: rows overlap at least 0 of those after them.")
        if not (math.isfinite(self.unit) and self.unit > 0) or (self.classes is not None and self.unit != 1):
            raise InputError(
                f"The data set has unit = {self.unit:g}: a regression's is a finite number above 0, "
                f"a classification has none."
            )
        if not math.isfinite(self.zero) or (self.classes is not None and self.zero != 0):
            raise InputError(
                f"The data set has zero = {self.zero:g}: a regression's is a finite number, a classification has none."
            )
        if self.times is not None and self.groups is not None:
            self._check_times(self.times, self.groups)

    def _check_labels(self, y: Tensor, part: str) -> None:
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= (self.classes or 0):
            raise InputError(
                f"The data set has the label {low if low < 0 else high} among its {part}, "
                f"allowed are 0 to {(self.classes or 0) - 1}."
            )

    @staticmethod
    def _check_times(times: np.ndarray, groups: np.ndarray) -> None:
        ids, first, group = np.unique(groups, return_index=True, return_inverse=True)
        apart = times != times[first][group]
        if apart.any():
            raise InputError(
                f"The data set has rows of several times in the group {ids[group][apart][0]}: "
                f"a group is of one time, or a forecast would tear it apart."
            )

    @property
    def task(self) -> Literal["classification", "regression"]:
        return "regression" if self.classes is None else "classification"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.x.shape[1:])

    @property
    def outputs(self) -> int:
        """How many numbers a model gives for one input: the classes, or the columns of the targets."""
        if self.classes is not None:
            return self.classes
        return 1 if self.y.ndim == 1 else int(self.y.shape[1])

    @property
    def metric(self) -> Literal["accuracy", "rmse"]:
        return "rmse" if self.classes is None else "accuracy"

    @property
    def higher_is_better(self) -> bool:
        return self.classes is not None


class Dataset(Options):
    """The base of every data set: a file of `datasets/`, an entry point, or `path/to/file.py:Name`."""

    @abstractmethod
    def load(self) -> Data:
        """The whole data set, the same in every process. Raises InputError when its files are missing or damaged."""


def root() -> Path | None:
    """The folder with data sets that FEDSPARSE_DATA names, None when it is not set."""
    folder = os.environ.get("FEDSPARSE_DATA")
    return Path(folder).expanduser() if folder else None


def located(path: str) -> Path:
    """A path of the user's: under FEDSPARSE_DATA where that folder has it, else from the working directory."""
    home, given = root(), Path(path).expanduser()
    return home / given if home and os.path.exists(home / given) else given


def published(name: str, file: Path, source: str) -> Path:
    """The file under FEDSPARSE_DATA of a data set without a download; InputError says how it is made.

    `source`: what to get, and from whom, as the beginning of a request.
    """
    home = root()
    if home is None or not (home / file).is_file():
        raise InputError(
            f"The data set {name} is missing: there is no {file} under FEDSPARSE_DATA ({home or 'which is not set'}); "
            f"{source}, and make the file with `python -m fedsparse.convert.{name} SOURCE OUT`."
        )
    return home / file


def cache() -> Path:
    """The user's cache folder; nothing makes it before something is kept there."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "fedsparse"


def cached(name: str, fill: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache, made by `fill(folder)` when it is not there yet.

    It appears at once and whole: a process that fails or is killed leaves no half of it, and of several that make
    it at the same time one wins and the others use its folder. What `fill` raises is passed on.
    """
    folder = cache() / name
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise InputError(
            f"The cache folder {folder.parent} cannot be written ({error.strerror}): set XDG_CACHE_HOME "
            f"to a folder that can."
        ) from error
    try:
        fill(draft)
        draft.chmod(0o755)  # mkdtemp's folders are closed to others
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():  # not because another process was faster
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


@contextmanager
def downloading(url: str, patience: float = 10.0) -> Iterator[None]:
    """Download inside this: OSError at once when `url` does not answer within `patience` seconds or a read stalls.

    The libraries that download have no time limit of their own, and without one a network that swallows packets costs
    minutes per address of the server.
    """
    answers: list[OSError | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=patience).close()
            answers.append(None)
        except (OSError, ValueError) as error:
            answers.append(error if isinstance(error, OSError) else OSError(str(error)))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(patience)
    error = answers[0] if answers else OSError(f"no answer within {patience:g} seconds")
    if error:
        raise OSError(f"{url} does not answer: {getattr(error, 'reason', None) or error}") from error
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(3 * patience)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)

"""How each client's rows become train, validation and test.

A pure function of its arguments and the seed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from fedsparse.errors import InputError
from fedsparse.randomness import generator

if TYPE_CHECKING:
    from fedsparse.data import Data

USES = ("train", "validation", "test")
Indices = np.ndarray
"""Row numbers, int64, ascending, each once."""


@dataclass(frozen=True, eq=False)
class Parts:
    """The rows of one client by their use; no row has two."""

    train: Indices
    validation: Indices
    test: Indices


def parts(indices: list[Indices], data: Data, validation: float, test: float, seed: int, first: int = 0) -> list[Parts]:
    """Each client's rows as train, validation and test, at least one of each; `first` is the first client's number.

    `validation` and `test` are shares of the client's samples; where the data has groups, of its groups, which stay
    whole. They are drawn by the seed, unless the data has times: then the last times are test and those before them
    validation, in whole times, as many as come nearest to the shares. With a gap, what is left of two parts is nowhere
    within `gap` rows of each other; the rows before such a border belong to nothing.
    Raises InputError when a client has fewer than three samples (groups, times), or the gap leaves a part nothing.
    """
    if validation < 0 or test < 0 or validation + test >= 1:
        raise InputError(
            f"The partition has validation = {validation:g} and test = {test:g}: both are shares of at least 0 that "
            f"leave something to train on, together below 1."
        )
    return [_parts(client, rows, data, validation, test, seed) for client, rows in enumerate(indices, first)]


def kept(file: Path, key: str, draw: Callable[[], list[Parts]]) -> list[Parts]:
    """The parts that `file` holds for this key (`signature`); else they are drawn and written there.

    For processes that live for one message only: to draw a split takes longer than to train on it.
    """
    try:
        with np.load(file, allow_pickle=False) as held:
            if str(held["key"]) == key:
                columns = [np.split(held[use], np.cumsum(held[f"{use}_sizes"])[:-1]) for use in USES]
                return [Parts(*rows) for rows in zip(*columns, strict=True)]
    except (OSError, EOFError, KeyError, ValueError, RuntimeError, BadZipFile):
        pass  # none yet, or not whole: it is only a copy of what is drawn again
    found = draw()
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    rows: dict[str, Any] = {use: np.concatenate([getattr(part, use) for part in found]) for use in USES}
    rows |= {f"{use}_sizes": np.array([len(getattr(part, use)) for part in found]) for use in USES}
    with open(draft, "wb") as out:
        np.savez(out, key=np.array(key), **rows)
    os.replace(draft, file)
    return found


def signature(data: Data, experiment: str) -> str:
    """A hash of all that a split depends on: the experiment's hash, and the rows without their inputs."""
    digest = hashlib.sha256(repr((experiment, len(data.x), data.gap)).encode())
    for column in (data.y.numpy(), data.clients, data.groups, data.times):
        digest.update(repr(None if column is None else (column.dtype, column.tolist())).encode())
    return digest.hexdigest()


def _parts(client: int, rows: Indices, data: Data, validation: float, test: float, seed: int) -> Parts:
    units, first, unit = np.unique(
        rows if data.groups is None else data.groups[rows], return_index=True, return_inverse=True
    )
    if data.times is not None:
        use = _forecast(client, data.times[rows[first]], validation, test)
    else:
        what = "samples" if data.groups is None else "groups"
        _check_enough(client, len(units), what)
        use = _drawn(len(units), validation, test, generator(seed, "parts", client))
    return _apart(client, rows, use[unit], data.gap)


def _drawn(units: int, validation: float, test: float, rng: np.random.Generator) -> np.ndarray:
    """What each unit is for: an index into train, validation, test."""
    order = rng.permutation(units)
    # Half up, at least one each, and one left to train on: with three units or more this always ends.
    tested, checked = (max(1, int(units * share + 0.5)) for share in (test, validation))
    while tested + checked >= units:
        tested, checked = (tested - 1, checked) if tested >= checked else (tested, checked - 1)
    use = np.zeros(units, dtype=np.int8)
    use[order[:tested]], use[order[tested : tested + checked]] = 2, 1
    return use


def _forecast(client: int, times: np.ndarray, validation: float, test: float) -> np.ndarray:
    """As `_drawn`, by the time of each unit: training times, then validation times, then test times."""
    found, time, counts = np.unique(times, return_inverse=True, return_counts=True)
    _check_enough(client, len(found), "times")
    late = np.cumsum(counts[::-1])  # units in the last 1, 2, ... times
    tested = 1 + int(np.abs(late[:-2] - test * len(times)).argmin())
    checked = 1 + int(np.abs(late[tested:-1] - late[tested - 1] - validation * len(times)).argmin())
    begin = len(found) - tested - checked
    return (time >= begin).astype(np.int8) + (time >= begin + checked)


def _check_enough(client: int, count: int, what: str) -> None:
    if count < 3:
        raise InputError(
            f"Client {client} has {count} {what}, it needs at least 3 for its train, validation and test parts: "
            f"give it more, or take another partition."
        )


def _apart(client: int, rows: Indices, use: np.ndarray, gap: int) -> Parts:
    """The parts, without a row that has one of another part among the `gap` rows after it."""
    kept = np.ones(len(rows), dtype=bool)
    for step in range(1, min(gap, len(rows) - 1) + 1):
        kept[:-step] &= use[:-step] == use[step:]
    found = Parts(*(rows[(use == i) & kept] for i in range(3)))
    for part, own in vars(found).items():
        if len(own) == 0:
            raise InputError(
                f"Client {client} has no sample left for {part} when {gap} are left out wherever its parts meet: "
                f"give it more, or take another partition."
            )
    return found

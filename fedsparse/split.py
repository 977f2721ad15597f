"""How each client's rows become train, validation and test.

A pure function of its arguments and the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedsparse.errors import InputError
from fedsparse.randomness import generator

if TYPE_CHECKING:
    from fedsparse.data import Data

Indices = np.ndarray
"""Row numbers, int64, ascending, each once."""


@dataclass(frozen=True, eq=False)
class Parts:
    """The rows of one client by their use; no row has two."""

    train: Indices
    validation: Indices
    test: Indices


def parts(indices: list[Indices], data: Data, validation: float, test: float, seed: int) -> list[Parts]:
    """Each client's rows as train, validation and test, drawn by the seed, at least one of each.

    `validation` and `test` are shares of the client's samples; where the data has groups, of its groups, which stay
    whole. Raises InputError when a client has fewer than three samples (groups).
    """
    if validation < 0 or test < 0 or validation + test >= 1:
        raise InputError(
            f"The partition has validation = {validation:g} and test = {test:g}: both are shares of at least 0 that "
            f"leave something to train on, together below 1."
        )
    return [_parts(client, rows, data.groups, validation, test, seed) for client, rows in enumerate(indices)]


def _parts(client: int, rows: Indices, groups: np.ndarray | None, validation: float, test: float, seed: int) -> Parts:
    units, unit = np.unique(rows if groups is None else groups[rows], return_inverse=True)
    if len(units) < 3:
        what = "samples" if groups is None else "groups"
        raise InputError(
            f"Client {client} has {len(units)} {what}, it needs at least 3 for its train, validation and test parts: "
            f"take fewer clients or raise min_samples."
        )
    order = generator(seed, "parts", client).permutation(len(units))
    # Half up, at least one each, and one left to train on: with three units or more this always ends.
    tested, checked = (max(1, int(len(units) * share + 0.5)) for share in (test, validation))
    while tested + checked >= len(units):
        tested, checked = (tested - 1, checked) if tested >= checked else (tested, checked - 1)
    use = np.zeros(len(units), dtype=np.int8)
    use[order[:tested]], use[order[tested : tested + checked]] = 2, 1
    return Parts(*(rows[use[unit] == i] for i in range(3)))

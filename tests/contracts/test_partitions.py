"""What every shipped partition keeps to."""

import numpy as np
import pytest
import torch

from fedsparse import registry
from fedsparse.data import Data
from fedsparse.partition import Partition

NAMES = registry.names("partitions")
OWN = np.repeat([f"person {i}" for i in range(6)], 100)
DATA = Data(x=torch.zeros(600, 2), y=torch.arange(600) % 5, classes=5, clients=OWN)


def test_there_are_partitions():
    assert {"iid", "dirichlet", "pathological", "quantity", "natural", "fixed"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_partition(name):
    kind = registry.find("partitions", name)
    assert issubclass(kind, Partition) and kind.name == name and registry.summary("partitions", name)
    assert all(field.description for field in kind.model_fields.values())
    if kind.own:
        pytest.skip(f"{name} is for real clients: tests/flower/test_own_data.py tries it")
    if any(field.is_required() for field in kind.model_fields.values()):
        pytest.skip(f"{name} has options without a default: its own tests try it")
    split = kind().split(DATA, None if kind.natural else 6, seed=0)
    again = kind().split(DATA, 6, seed=0)
    assert len(split) == 6 and all(map(np.array_equal, split, again))
    rows = np.concatenate(split)
    assert len(np.unique(rows)) == len(rows) and rows.min() >= 0 and rows.max() < 600
    assert all(part.dtype == np.int64 and len(part) and (np.diff(part) > 0).all() for part in split)
    assert len(kind().names(DATA) or split) == 6 and kind().left_out(DATA) == ""
    hash(kind())  # the variants of a comparison share a split by its options

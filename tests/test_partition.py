"""Partitions: every sample is somebody's, once; shares and classes as asked for; the same in every process."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from fedsparse.datasets.digits import Digits
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.data import Data
from fedsparse.errors import InputError
from fedsparse.partition import IID, Dirichlet, Partition, Pathological
from fedsparse.split import parts

ALL = [IID(), Dirichlet(), Pathological()]


@pytest.fixture(scope="module")
def digits() -> Data:
    return Digits().load()


def labelled(count: int, classes: int = 10) -> Data:
    return Data(x=torch.zeros(count, 1), y=torch.arange(count) % classes, classes=classes)


def digest(split: list[np.ndarray]) -> str:
    return hashlib.sha256(b"|".join(part.tobytes() for part in split)).hexdigest()


def names(partition: Partition) -> str:
    return partition.name


@pytest.mark.parametrize("partition", ALL, ids=names)
@pytest.mark.parametrize("clients", [1, 5, 20])
def test_every_sample_has_one_client(digits, partition, clients):
    if clients == 1 and partition.name == "pathological":
        partition = Pathological(classes=10)
    split = partition.split(digits, clients, seed=0)
    assert len(split) == clients
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in split)
    assert np.array_equal(np.sort(np.concatenate(split)), np.arange(len(digits.x)))


@pytest.mark.parametrize("partition", ALL, ids=names)
def test_the_seed_decides(digits, partition):
    drawn = [digest(partition.split(digits, 20, seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_same_in_another_process(digits):
    script = f"""import sys; sys.path[:] = {sys.path!r}
import hashlib
from fedsparse.datasets.digits import Digits
from fedsparse.partition import *
from fedsparse.split import parts
data = Digits().load()
for partition in IID(), Dirichlet(), Pathological():
    split = partition.split(data, 20, 3)
    rows = [rows for p in parts(split, data, 0.1, 0.2, 3) for rows in (p.train, p.validation, p.test)]
    print(hashlib.sha256(b"|".join(part.tobytes() for part in split + rows)).hexdigest())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    here = []
    for partition in ALL:
        split = partition.split(digits, 20, 3)
        rows = [rows for p in parts(split, digits, 0.1, 0.2, 3) for rows in (p.train, p.validation, p.test)]
        here.append(digest(split + rows))
    assert done.stdout.split() == here
    assert done.stderr == ""


def test_iid_is_even_and_shuffled(digits):
    split = IID().split(digits, 20, seed=0)
    assert {len(part) for part in split} == {89, 90}
    assert all(len(digits.y[part].unique()) == 10 for part in split)


def test_dirichlet_skews_with_alpha(digits):
    def classes(alpha: float) -> float:
        split = Dirichlet(alpha=alpha, min_samples=1).split(digits, 10, seed=0)
        return float(np.mean([len(digits.y[part].unique()) for part in split]))

    assert classes(100.0) == 10.0 > classes(0.3) > classes(0.1)


def test_dirichlet_keeps_drawing_until_all_have_enough(digits):
    # With 11 draws, what the partitioner itself tries, about half of the seeds would not do.
    for seed in range(3):
        assert min(map(len, Dirichlet(alpha=0.3, min_samples=22).split(digits, 20, seed))) >= 22


def test_dirichlet_gives_up_in_a_sentence(digits):
    with pytest.raises(InputError) as error:
        Dirichlet(alpha=0.01, min_samples=50).split(digits, 20, seed=0)
    text = str(error.value)
    assert "alpha = 0.01" in text and "min_samples = 50" in text and "20 clients" in text and "1797" in text
    with pytest.raises(InputError, match="min_samples = 100"):
        Dirichlet(min_samples=100).split(digits, 20, seed=0)


@pytest.mark.parametrize(("clients", "classes"), [(20, 2), (10, 2), (15, 3), (5, 2), (2, 5), (9, 2), (30, 1)])
def test_pathological_classes_of_each_client(digits, clients, classes):
    split = Pathological(classes=classes).split(digits, clients, seed=0)
    assert {len(digits.y[part].unique()) for part in split} == {classes}


def test_pathological_uses_every_class_with_few_clients(digits):
    split = Pathological(classes=3).split(digits, 4, seed=0)
    held = [len(digits.y[part].unique()) for part in split]
    assert max(held) == 3 and sum(held) == 10


def test_pathological_labels_with_gaps():
    data = Data(x=torch.zeros(60, 1), y=torch.tensor([1, 5, 7] * 20), classes=9)
    split = Pathological(classes=2).split(data, 3, seed=0)
    assert [len(data.y[part].unique()) for part in split] == [2, 2, 2]


@pytest.mark.parametrize(
    ("partition", "clients", "named"),
    [
        (Pathological(classes=11), 20, "classes = 11, allowed are 1 to 10"),
        (Pathological(classes=2), 4, "clients = 4 and classes = 2"),
        (Pathological(min_samples=90), 20, "min_samples = 90"),
        (IID(), 0, "clients = 0"),
        (IID(), -1, "clients = -1"),
        (IID(), 1798, "clients = 1798 .* 1 to 1797"),
        (IID(), None, "needs a number of clients"),
    ],
)
def test_what_cannot_be_done_is_said(digits, partition, clients, named):
    with pytest.raises(InputError, match=named) as error:
        partition.split(digits, clients, seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("partition", [Dirichlet(), Pathological()], ids=names)
def test_targets_without_classes(partition):
    with pytest.raises(InputError, match=f"{partition.name} needs one class label"):
        partition.split(Data(x=torch.zeros(50, 1), y=torch.zeros(50)), 2, seed=0)


def test_more_clients_than_a_class_has_samples():
    with pytest.raises(InputError, match="raise classes"):
        Pathological(classes=2, min_samples=1).split(labelled(30), 29, seed=0)


def test_a_partition_of_the_users_own_may_leave_nobody_empty():
    class Greedy(Partition):
        """All to the first."""

        name = "greedy"

        def assign(self, data, clients, seed):
            return [np.arange(len(data.x)), *[np.arange(0)] * (clients - 1)]

    with pytest.raises(InputError, match="greedy leaves client 1 without samples"):
        Greedy().split(labelled(30), 3, seed=0)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(40, 300), st.integers(0, 2**63), st.sampled_from([0.1, 0.5, 10.0]))
def test_any_size_is_covered(clients, samples, seed, alpha):
    for partition in IID(), Dirichlet(alpha=alpha, min_samples=0):
        try:
            split = partition.split(labelled(samples), clients, seed)
        except InputError as error:
            assert partition.name == "dirichlet" and "without samples" in str(error)
            continue
        assert np.array_equal(np.sort(np.concatenate(split)), np.arange(samples))


# ---- train, validation and test ----


def test_parts_have_their_shares(digits):
    split = Dirichlet().split(digits, 20, seed=0)
    for rows, part in zip(split, parts(split, digits, 0.1, 0.2, seed=0), strict=True):
        assert np.array_equal(np.sort(np.concatenate([part.train, part.validation, part.test])), rows)
        assert abs(len(part.validation) - 0.1 * len(rows)) <= 0.5
        assert abs(len(part.test) - 0.2 * len(rows)) <= 0.5
        assert all((np.diff(own) > 0).all() for own in (part.train, part.validation, part.test))


def test_parts_depend_on_seed_and_client():
    data, rows = labelled(100), np.arange(100)
    first, same, other = (parts([rows, rows], data, 0.1, 0.2, seed) for seed in (0, 0, 1))
    assert np.array_equal(first[0].test, same[0].test)
    assert not np.array_equal(first[0].test, other[0].test)
    assert not np.array_equal(first[0].test, first[1].test)


@given(st.integers(3, 60), st.floats(0, 0.98), st.floats(0, 0.98))
def test_each_part_has_at_least_one(samples, validation, test):
    if validation + test >= 1:
        with pytest.raises(InputError, match="below 1"):
            parts([np.arange(samples)], labelled(samples), validation, test, seed=0)
        return
    (part,) = parts([np.arange(samples)], labelled(samples), validation, test, seed=0)
    sizes = [len(part.train), len(part.validation), len(part.test)]
    assert min(sizes) >= 1 and sum(sizes) == samples


def test_groups_stay_whole():
    groups = np.repeat(np.arange(10), [1, 2, 3, 40, 5, 6, 7, 8, 9, 10])
    data = Data(x=torch.zeros(len(groups), 1), y=torch.zeros(len(groups)), groups=groups)
    (part,) = parts([np.arange(len(groups))], data, 0.1, 0.2, seed=0)
    held = [set(groups[rows]) for rows in (part.train, part.validation, part.test)]
    assert [len(own) for own in held] == [7, 1, 2]
    assert len(set.union(*held)) == 10
    assert len(part.train) + len(part.validation) + len(part.test) == len(groups)


def test_too_little_for_three_parts():
    with pytest.raises(InputError, match="Client 1 has 2 samples"):
        parts([np.arange(5), np.arange(5, 7)], labelled(7), 0.1, 0.2, seed=0)
    data = Data(x=torch.zeros(6, 1), y=torch.zeros(6), groups=np.array([0, 0, 0, 1, 1, 1]))
    with pytest.raises(InputError, match="Client 0 has 2 groups"):
        parts([np.arange(6)], data, 0.1, 0.2, seed=0)

"""Partitions: every sample is somebody's, once; shares and classes as asked for; the same in every process."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.data import Data
from fedsparse.datasets.digits import Digits
from fedsparse.errors import InputError
from fedsparse.natural import Fixed, Natural
from fedsparse.partition import IID, Dirichlet, Partition, Pathological, Quantity
from fedsparse.split import parts

ALL = [IID(), Dirichlet(), Pathological(), Quantity()]


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
for partition in IID(), Dirichlet(), Pathological(), Quantity():
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
        (Quantity(min_samples=90), 20, "each of 20 clients min_samples = 90 of 1797 samples"),
        (Natural(), None, "take iid, quantity, dirichlet, pathological or fixed\\."),
    ],
)
def test_what_cannot_be_done_is_said(digits, partition, clients, named):
    with pytest.raises(InputError, match=named) as error:
        partition.split(digits, clients, seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("partition", [Dirichlet(), Pathological()], ids=names)
def test_targets_without_classes(partition):
    for clients, ways in {None: "iid, quantity or fixed", "ab": "iid, quantity, natural or fixed"}.items():
        owners = None if clients is None else np.array(list(clients) * 25)
        with pytest.raises(InputError, match=rf"{partition.name} needs one class label .*: take {ways}\."):
            partition.split(Data(x=torch.zeros(50, 1), y=torch.zeros(50), clients=owners), 2, seed=0)


def test_more_clients_than_a_class_has_samples():
    with pytest.raises(InputError, match="raise classes"):
        Pathological(classes=2, min_samples=1).split(labelled(30), 29, seed=0)


def test_a_partition_of_the_users_own_may_leave_nobody_empty():
    class Greedy(Partition):
        """All to the first."""

        name = "greedy"

        def assign(self, data, clients, seed):
            return [np.arange(len(data.x)), *[np.arange(0)] * (clients - 1)]

    with pytest.raises(InputError, match="greedy leaves client 1 without samples: .* fewer clients\\."):
        Greedy().split(labelled(30), 3, seed=0)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(40, 300), st.integers(0, 2**63), st.sampled_from([0.1, 0.5, 10.0]))
def test_any_size_is_covered(clients, samples, seed, alpha):
    for partition in IID(), Dirichlet(alpha=alpha, min_samples=0), Quantity(alpha=alpha, min_samples=0):
        try:
            split = partition.split(labelled(samples), clients, seed)
        except InputError as error:
            assert partition.name != "iid" and "without samples" in str(error) and "raise min_samples" in str(error)
            continue
        assert np.array_equal(np.sort(np.concatenate(split)), np.arange(samples))


# ---- quantity ----


def test_quantity_skews_sizes_with_alpha():
    data = Data(x=torch.zeros(10_000, 1), y=torch.zeros(10_000))  # targets are not looked at

    def sizes(alpha: float) -> list[int]:
        return sorted(map(len, Quantity(alpha=alpha).split(data, 10, seed=1)))

    assert sizes(1e6)[0] > 980 > sizes(100)[0] > 700
    assert sizes(0.3)[-1] > 3 * sizes(100)[-1] / 2
    assert sizes(0.01)[0] == 10 and sizes(0.01)[-1] > 9000


def test_quantity_shares_what_is_above_the_least():
    # With nothing above it all have the least; with 30 above it a client's size is 5 and its share of the 30.
    assert [len(part) for part in Quantity(min_samples=5).split(labelled(20), 4, seed=0)] == [5] * 4
    split = Quantity(min_samples=5, alpha=1).split(labelled(50), 4, seed=0)
    assert sum(map(len, split)) == 50 and min(map(len, split)) >= 5 and len(set(map(len, split))) > 1


def test_quantity_takes_rows_at_random():
    split = Quantity(alpha=10).split(labelled(5000), 4, seed=0)
    assert all(np.bincount(part % 10).min() > 0.07 * len(part) for part in split)


@pytest.mark.parametrize("alpha", [1e-300, 1e300])
def test_quantity_at_its_ends(alpha):
    sizes = [len(part) for part in Quantity(alpha=alpha, min_samples=3).split(labelled(100), 4, seed=0)]
    assert sorted(sizes) == ([3, 3, 3, 91] if alpha < 1 else [25] * 4)


# ---- natural ----


def owned(*owners: object) -> Data:
    return Data(x=torch.zeros(len(owners), 1), y=torch.zeros(len(owners)), clients=np.array(owners))


def test_natural_clients_are_the_ids_in_their_order():
    data = owned(10, 9, 10, 9, 10, 9, 9, 101, 101, 101)
    for clients in None, 3:
        split = Natural().split(data, clients, seed=clients or 0)
        assert [part.tolist() for part in split] == [[1, 3, 5, 6], [0, 2, 4], [7, 8, 9]]
        assert all(part.dtype == np.int64 for part in split)
    assert Natural().names(data) == ["9", "10", "101"] and Natural().left_out(data) == ""
    texts = owned(*["wi"] * 3, *["ia"] * 4)
    assert Natural().names(texts) == ["ia", "wi"]
    assert [part.tolist() for part in Natural().split(texts, None, 0)] == [[3, 4, 5, 6], [0, 1, 2]]


def test_natural_leaves_out_who_has_too_little():
    data = owned(*"aaaabbbcc", "d")
    assert Natural().names(data) == ["a", "b"] == Natural(min_samples=3).names(data)
    assert [part.tolist() for part in Natural().split(data, 2, 0)] == [[0, 1, 2, 3], [4, 5, 6]]
    assert Natural().left_out(data) == "left out: 2 of 4 clients, with fewer than 3 samples (3 in all)"
    assert len(Natural(min_samples=0).split(data, 4, 0)) == 4
    with pytest.raises(InputError, match=r"leaves no client: none has min_samples = 5 samples, the most are 4\."):
        Natural(min_samples=5).split(data, None, 0)


def test_another_number_of_clients_than_there_are():
    data = owned(*"aaabbb")
    with pytest.raises(InputError, match=r"^clients = 20 .* natural finds 2 clients: leave clients out or write 2\.$"):
        Natural().split(data, 20, 0)


def test_natural_is_quick():
    rng = np.random.default_rng(0)
    data = Data(x=torch.zeros(200_000, 1), y=torch.zeros(200_000), clients=rng.integers(0, 3000, 200_000))
    start = time.perf_counter()
    assert len(Natural().split(data, None, 0)) == 3000
    assert time.perf_counter() - start < 2, "a loop over clients and rows takes far longer"


# ---- fixed ----


def listed(folder: Path, name: str) -> Fixed:
    """The same partition, clients 2: rows 3 and 1, 10: row 0, as a file of this kind."""
    path = folder / name
    table = {"row": [3, 0, 1], "client": [2, 10, 2], "part": ["train", "", "test"]}
    if path.suffix == ".json":
        path.write_text(json.dumps({"10": [0], "2": [3, 1]}), encoding="utf-8")
    elif path.suffix == ".csv":
        pd.DataFrame(table).to_csv(path, index=False)
    else:
        pd.DataFrame(table).to_parquet(path)
    return Fixed(file=str(path))


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.CSV", "a.parquet"])
def test_fixed_reads(tmp_path, name):
    partition, data = listed(tmp_path, name if name != "a.CSV" else "a.csv"), labelled(5)
    for clients in None, 2:
        assert [part.tolist() for part in partition.split(data, clients, seed=0)] == [[1, 3], [0]]
    assert partition.names(data) == ["2", "10"], "numbers in their order"
    assert partition.left_out(data).startswith("left out: 2 of 5 samples, not in a.")
    with pytest.raises(InputError, match="clients = 3 is written, but the partition fixed finds 2 clients"):
        partition.split(data, 3, seed=0)


def test_fixed_keeps_names(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("client,row\nnora,4\n007,0\nnora,1\n", encoding="utf-8-sig")
    partition = Fixed(file=str(path))
    assert partition.names(labelled(5)) == ["007", "nora"]
    assert [part.tolist() for part in partition.split(labelled(5), None, 0)] == [[0], [1, 4]]
    path = tmp_path / "b.json"
    path.write_text("[[4, 2], [0, 1, 3]]", encoding="utf-8")
    partition = Fixed(file=str(path))
    assert partition.names(labelled(5)) == ["0", "1"] and partition.left_out(labelled(5)) == ""
    assert [part.tolist() for part in partition.split(labelled(5), None, 0)] == [[2, 4], [0, 1, 3]]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.json", '{"a": [0, 5], "b": [1]}', "gives client a the row 5, allowed are 0 to 4."),
        ("a.json", '{"a": [0], "b": [-1]}', "gives client b the row -1, allowed are 0 to 4."),
        ("a.json", '{"a": [0], "b": [1.0]}', "gives client b the row 1.0, allowed"),
        ("a.json", '{"a": [true]}', "gives client a the row true, allowed"),
        ("a.json", '{"a": [[0]]}', "gives client a the row [0], allowed"),
        ("a.json", '{"a": [0, 1], "b": [2, 1]}', "has the row 1 twice, for client a and for client b."),
        ("a.json", '{"a": [0, 1, 0]}', "has the row 0 twice, for client a and for client a."),
        ("a.json", '{"a": [0], "b": []}', "gives client b no rows: each needs some."),
        ("a.json", '{"a": [0], "b": [2], "a": [1]}', "names client a twice."),
        ("a.json", "{}", "names no client."),
        ("a.json", '{"a": 0}', 'must hold {"client": [rows], ...} or a list of lists of rows.'),
        ("a.json", "3", "must hold {"),
        ("a.json", '{"a": [0', "cannot be read as json (Expecting"),
        ("a.json", "[" * 100_000, "cannot be read as json ("),
        ("a.csv", "client,index\na,0\n", "needs one column row, its columns are client, index."),
        ("a.csv", "client,row,row\na,0,1\n", "needs one column row, its columns are client, row, row."),
        ("a.csv", "client,row\na,0\na,x\n", 'gives client a the row "0", allowed are 0 to 4.'),
        ("a.csv", "client,row\na,0\na,\n", "gives client a the row null, allowed"),
        ("a.csv", "client,row\n,0\n", "names no client for the row 0."),
        ("a.csv", "client,row\n", "names no client."),
        ("a.csv", "client,row\na,0,1\n", "cannot be read as csv ("),
        ("a.csv", "", "cannot be read as csv (Empty CSV file)."),
        ("a.parquet", "no parquet", "cannot be read as parquet ("),
        ("a.txt", "a 0", "must end in .json, .csv or .parquet."),
    ],
)
def test_files_that_are_no_partition(tmp_path, name, content, told):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as error:
        Fixed(file=str(path)).split(labelled(5), None, 0)
    text = str(error.value)
    assert text.startswith(f"The file {path} of the partition fixed {told}") and "\n" not in text and text[-1] == "."


@pytest.mark.parametrize("name", ["no.json", "no.csv", "no.parquet"])
def test_a_file_that_is_not_there(tmp_path, name):
    for _ in "nothing", "a folder":
        with pytest.raises(InputError, match=rf"The file .*{name} of the partition fixed is not there, neither .*\.$"):
            Fixed(file=str(tmp_path / name)).split(labelled(5), None, 0)
        (tmp_path / name).mkdir(exist_ok=True)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 12), st.integers(12, 60), st.integers(0, 2**31), st.sampled_from([".json", ".csv", ".parquet"]))
def test_any_partition_can_be_fixed(clients, samples, seed, kind):
    data = labelled(samples)
    split = IID().split(data, clients, seed)
    with TemporaryDirectory() as folder:
        path = Path(folder, f"a{kind}")
        table = pd.concat(pd.DataFrame({"client": i, "row": rows}) for i, rows in enumerate(split))
        if kind == ".json":
            path.write_text(json.dumps([rows.tolist() for rows in split]), encoding="utf-8")
        else:
            shuffled = table.sample(frac=1, random_state=seed % 2**32)
            shuffled.to_csv(path, index=False) if kind == ".csv" else shuffled.to_parquet(path)
        again = Fixed(file=str(path)).split(data, None, seed)
    assert len(again) == len(split) and all(map(np.array_equal, again, split))


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


@pytest.mark.parametrize("partition", [IID(), Quantity(min_samples=1)], ids=names)
def test_whole_groups_are_dealt_out(partition):
    groups = np.arange(600) % 60
    data = Data(x=torch.zeros(600, 1), y=torch.arange(600) % 3, classes=3, groups=groups)
    held = [set(groups[rows]) for rows in partition.split(data, 5, seed=0)]
    assert sum(map(len, held)) == 60 == len(set.union(*held))
    with pytest.raises(InputError, match="tears the group .* apart between clients .*: take iid, quantity or fixed"):
        Dirichlet(min_samples=1).split(data, 5, seed=0)


def test_rows_that_overlap_in_time_are_not_dealt_out():
    data = Data(x=torch.zeros(60, 1), y=torch.zeros(60), groups=np.arange(60) // 10, gap=1)
    with pytest.raises(InputError, match="iid parts rows that overlap in time between clients: take fixed"):
        IID().split(data, 2, seed=0)

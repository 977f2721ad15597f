"""Parts of time series: a forecast in whole times, a gap where overlapping rows meet, errors in a unit; kept splits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse import train
from fedsparse.data import Data
from fedsparse.errors import InputError
from fedsparse.split import USES, Parts, kept, parts, signature


def series(count: int, **known: object) -> Data:
    return Data(x=torch.zeros(count, 1), y=torch.zeros(count), **known)


def one(data: Data, validation: float = 0.15, test: float = 0.25, seed: int = 0) -> Parts:
    (part,) = parts([np.arange(len(data.x))], data, validation, test, seed)
    return part


# ---- times ----


def test_the_last_whole_times_are_the_test():
    # 20 rows, 5 wanted for test and 3 for validation: 2019 alone is 3, with 2018 it is 6; before them 2017 has 2,
    # with 2016 it has 5, which is further from 3.
    years = np.repeat([2019, 2015, 2016, 2017, 2018], [3, 9, 3, 2, 3])
    part = one(series(20, times=years))
    assert set(years[part.test]) == {2018, 2019}
    assert set(years[part.validation]) == {2017}
    assert set(years[part.train]) == {2015, 2016}
    assert len(part.train) + len(part.validation) + len(part.test) == 20


def test_nothing_of_a_forecast_is_drawn():
    data = series(20, times=np.arange(20))
    assert all(np.array_equal(one(data, seed=0).test, one(data, seed=seed).test) for seed in range(1, 5))
    assert one(data).test.tolist() == [15, 16, 17, 18, 19] and one(data).validation.tolist() == [12, 13, 14]


def test_groups_are_counted_not_rows():
    # 8 environments, one a year but for 2 in the last; the last year's hold most rows.
    groups, times = np.arange(8), np.array([1, 2, 3, 4, 5, 6, 7, 7])
    rows = np.repeat(np.arange(8), [1, 1, 1, 1, 1, 1, 50, 50])
    data = series(len(rows), groups=groups[rows], times=times[rows])
    part = one(data, validation=0.15, test=0.25)
    assert [sorted(set(groups[rows][own])) for own in (part.train, part.validation, part.test)] == [
        [0, 1, 2, 3, 4],
        [5],
        [6, 7],
    ]


def test_each_client_has_its_own_last_times():
    times = np.array([1, 2, 3, 4, 11, 12, 13, 14])
    first, second = parts([np.arange(4), np.arange(4, 8)], series(8, times=times), 0.2, 0.3, seed=0)
    assert (first.test.tolist(), second.test.tolist()) == ([3], [7])


@given(st.lists(st.integers(1, 9), min_size=3, max_size=12), st.floats(0, 0.98), st.floats(0, 0.98))
def test_a_forecast_never_looks_back(counts, validation, test):
    if validation + test >= 1:
        return
    years = np.repeat(np.arange(len(counts)), counts)
    part = one(series(len(years), times=years), validation, test)
    assert min(map(len, (part.train, part.validation, part.test))) >= 1
    assert years[part.train].max() < years[part.validation].min()
    assert years[part.validation].max() < years[part.test].min()


def test_two_times_are_too_few():
    with pytest.raises(InputError, match=r"Client 0 has 2 times, .*: give it more, or take another partition\."):
        one(series(10, times=np.repeat([1, 2], 5)))


def test_a_group_of_two_times():
    with pytest.raises(InputError, match=r"several times in the group b: .*tear it apart\."):
        series(4, groups=np.array(["a", "a", "b", "b"]), times=np.array([1, 1, 2, 3]))
    with pytest.raises(InputError, match="4 rows but 3 ids of times"):
        series(4, times=np.arange(3))


# ---- gap ----


def blocks(lengths: list[int], gap: int) -> tuple[Data, np.ndarray]:
    groups = np.repeat(np.arange(len(lengths)), lengths)
    return series(len(groups), groups=groups, gap=gap), groups


@pytest.mark.parametrize("gap", [1, 2])
def test_a_block_ends_before_one_of_another_part(gap):
    data, groups = blocks([5] * 10, gap)
    part, whole = one(data), one(blocks([5] * 10, 0)[0])
    use = np.zeros(10, dtype=int)
    use[groups[whole.validation]], use[groups[whole.test]] = 1, 2
    wanted: list[list[int]] = [[], [], []]
    for block in range(10):
        kept = 5 if block == 9 or use[block] == use[block + 1] else 5 - gap
        wanted[use[block]] += range(5 * block, 5 * block + kept)
    assert [own.tolist() for own in (part.train, part.validation, part.test)] == wanted
    assert len(whole.train) > len(part.train)


@given(st.lists(st.integers(1, 6), min_size=3, max_size=12), st.integers(0, 4), st.integers(0, 99))
def test_parts_are_further_apart_than_the_gap(lengths, gap, seed):
    data, _ = blocks(lengths, gap)
    try:
        part = one(data, seed=seed)
    except InputError as error:
        assert f"when {gap} are left out" in str(error)
        return
    for first, second in [(part.train, part.validation), (part.train, part.test), (part.validation, part.test)]:
        assert np.abs(first[:, None] - second[None]).min() > gap


def test_neighbours_are_the_clients_own_rows():
    # What stands between in the file is another client's, so it is no distance.
    data = series(12, groups=np.arange(12) // 4, gap=1, times=np.arange(12) // 4)
    mine, theirs = parts([np.arange(0, 12, 2), np.arange(1, 12, 2)], data, 0.3, 0.3, seed=0)
    assert [mine.train.tolist(), mine.validation.tolist(), mine.test.tolist()] == [[0], [4], [8, 10]]
    assert theirs.test.tolist() == [9, 11]


def test_a_gap_that_leaves_nothing():
    data = series(6, groups=np.arange(6) // 2, gap=2, times=np.arange(6) // 2)
    with pytest.raises(InputError, match="Client 0 has no sample left for train when 2 are left out .*: give it more"):
        one(data)
    with pytest.raises(InputError, match="gap = -1"):
        series(6, gap=-1)


# ---- kept ----

TWO = parts([np.arange(5), np.arange(5, 12)], series(12), 0.2, 0.2, seed=0)


def rows_of(split: list[Parts]) -> list[list[int]]:
    return [getattr(part, use).tolist() for part in split for use in USES]


def never() -> list[Parts]:
    raise AssertionError("it is drawn again")


def test_what_is_kept_is_what_was_drawn(tmp_path):
    file = tmp_path / "split.npz"
    assert kept(file, "key", lambda: TWO) is TWO
    assert rows_of(kept(file, "key", never)) == rows_of(TWO)
    assert kept(file, "another key", lambda: TWO[:1]) == TWO[:1]
    assert rows_of(kept(file, "another key", never)) == rows_of(TWO[:1])
    assert [path.name for path in tmp_path.iterdir()] == ["split.npz"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("kept") / "split.npz"
    kept(file, "key", lambda: TWO)
    return file


@settings(deadline=None)  # it writes files
@given(st.data())
def test_a_broken_file_is_drawn_again(whole, data):
    written, broken = whole.read_bytes(), whole.with_name("broken.npz")
    place = data.draw(st.integers(0, len(written) - 1), "place")
    torn, damaged = written[:place], bytearray(written)
    damaged[place] ^= data.draw(st.integers(1, 255), "bits")
    for content in (torn, bytes(damaged)):
        broken.write_bytes(content)
        assert rows_of(kept(broken, "key", lambda: TWO)) == rows_of(TWO)
        assert rows_of(kept(broken, "key", never)) == rows_of(TWO)


def test_a_split_has_another_key_when_its_rows_or_its_experiment_change():
    y = torch.zeros(6)
    y[2] = 1
    half = np.arange(6) // 3
    known = [{}, {"gap": 1}, {"clients": half}, {"groups": half}, {"times": half}]
    keys = [signature(series(6, **columns), "a") for columns in known]
    keys += [signature(series(6), "b"), signature(series(7), "a"), signature(Data(x=torch.zeros(6, 1), y=y), "a")]
    assert len(set(keys)) == len(keys)
    assert signature(series(6), "a") == keys[0]


# ---- unit ----


def test_the_error_is_told_in_its_unit():
    line = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(line.weight, 1.0)
    torch.nn.init.zeros_(line.bias)
    x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 5.0])
    metric, loss = train.evaluate(line, x, y, "regression", unit=15.0)
    assert metric == pytest.approx(15 * 4.5**0.5) and loss == pytest.approx(4.5)


@pytest.mark.parametrize("known", [{"unit": 0.0}, {"unit": float("inf")}, {"unit": 2.0, "classes": 2}])
def test_a_unit_that_is_none(known):
    with pytest.raises(InputError, match="a regression's is a finite number above 0"):
        Data(x=torch.zeros(3, 1), y=torch.zeros(3, dtype=torch.int64), **known)


@pytest.mark.parametrize("known", [{"zero": float("nan")}, {"zero": 2.0, "classes": 2}])
def test_a_zero_that_is_none(known):
    with pytest.raises(InputError, match="a regression's is a finite number, a classification has none"):
        Data(x=torch.zeros(3, 1), y=torch.zeros(3, dtype=torch.int64), **known)

"""Phone activities: windows cut from small recordings, the data set made of them, and the real file."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence import one_sentence

from fedsparse.convert import command
from fedsparse.convert.hapt import arrays
from fedsparse.datasets.hapt import FILE, HAPT, blocks
from fedsparse.errors import InputError
from fedsparse.natural import Natural
from fedsparse.split import parts

REAL = os.environ.get("FEDSPARSE_DATA")
real = pytest.mark.skipif(
    not REAL or not (Path(REAL) / FILE).is_file(), reason=f"FEDSPARSE_DATA ({REAL}) has no {FILE}"
)

LABELS = [  # experiment, user, activity, first sample, last sample
    (1, 7, 5, 11, 330),  # 320 samples: windows at 11, 75, 139, 203
    (1, 7, 11, 331, 600),  # a transition
    (1, 7, 1, 601, 727),  # a sample too short
    (1, 7, 6, 728, 855),  # just one window
    (2, 7, 2, 1, 700),  # 9 windows; the recording's last sample belongs to it
    (3, 4, 3, 200, 519),
]


def record(folder: Path, labels: list[tuple[int, ...]], signals: dict[tuple[int, int], np.ndarray]) -> Path:
    """The published layout: `signals` are (samples, 6) by (experiment, user)."""
    raw = folder / "RawData"
    raw.mkdir(parents=True)
    np.savetxt(raw / "labels.txt", labels, fmt="%d")
    for (experiment, user), signal in signals.items():
        for sensor, axes in {"acc": signal[:, :3], "gyro": signal[:, 3:]}.items():
            np.savetxt(raw / f"{sensor}_exp{experiment:02d}_user{user:02d}.txt", axes, fmt="%.9g")
    return folder


@pytest.fixture
def source(tmp_path) -> Path:
    """Three recordings in which the number of a sample can be read off every axis; exact as float16."""
    samples = np.arange(1, 1001)[:, None] * np.array([1, 0.5, -1, 0.25, -0.5, 0.125])
    return record(tmp_path / "HAPT", LABELS[::-1], {(1, 7): samples, (2, 7): samples[:700], (3, 4): samples})


@pytest.fixture
def home(tmp_path, source, monkeypatch) -> Path:
    """A data folder with the file that the converter makes of the recordings."""
    assert command("", arrays, [str(source), str(tmp_path / "home" / FILE)]) == 0
    monkeypatch.setenv("FEDSPARSE_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


# ---- the converter ----


def test_windows_are_cut_inside_stretches(source):
    found = arrays(source)
    assert found["subject"].tolist() == [4] * 4 + [7] * 14
    assert found["experiment"].tolist() == [0] * 4 + [0] * 5 + [1] * 9
    assert found["y"].tolist() == [2] * 4 + [4] * 4 + [5] + [1] * 9
    first, last = found["x"][:, 0, 0].tolist(), found["x"][:, 0, -1].tolist()
    assert first[:9] == [200, 264, 328, 392, 11, 75, 139, 203, 728] and first[9:] == list(range(1, 514, 64))
    assert [end - start for start, end in zip(first, last, strict=True)] == [127] * 18
    assert found["x"].dtype == np.float16 and found["x"][4, :, 1].tolist() == [12, 6, -12, 3, -6, 1.5]


def test_the_folder_of_the_recordings_itself_will_do(source):
    assert np.array_equal(arrays(source / "RawData")["x"], arrays(source)["x"])


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ([(2, 7, 2, 1, 701)], "from 1 to 701 in a recording of 700 samples: experiment 2, user 7"),
        ([(2, 7, 2, 0, 300)], "from 0 to 300"),
        ([(2, 7, 2, 300, 200)], "from 300 to 200"),
        ([(9, 7, 2, 1, 300)], "acc_exp09_user07.txt"),
        ([(2, 7, 2, 1, 100)], "no stretch of 128 samples"),
        ([(2, 7, 2, 1)], "5 numbers in each line"),
    ],
)
def test_labels_that_do_not_fit(source, labels, named):
    np.savetxt(source / "RawData" / "labels.txt", labels, fmt="%d")
    with pytest.raises(InputError, match=named) as error:
        arrays(source)
    one_sentence(error)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda text: text[: len(text) // 2].rpartition("\n")[0], r"have \d+ and 700 samples"),
        (lambda text: text.replace("\n", "\nwalking 1 1\n", 1), "cannot be read .*walking"),
        (lambda text: text.replace("\n", " 1\n"), "3 numbers in each line"),
        (lambda text: text.replace("0.5", "nan", 1), "3 numbers in each line"),
    ],
)
def test_a_recording_that_does_not_fit(source, change, named):
    file = source / "RawData" / "acc_exp02_user07.txt"
    file.write_text(change(file.read_text()))
    with pytest.raises(InputError, match=named) as error:
        arrays(source)
    assert str(file) in one_sentence(error)


def test_nothing_there(tmp_path, capsys):
    assert command("", arrays, [str(tmp_path), str(tmp_path / "out.npz")]) == 2
    assert str(tmp_path / "labels.txt") in capsys.readouterr().err and not (tmp_path / "out.npz").exists()


# ---- the data set ----


def test_what_is_loaded(home):
    data = HAPT(block=3).load()
    assert data.x.shape == (18, 6, 128) and data.x.dtype == torch.float32 and data.classes == 6 and data.gap == 1
    assert data.x[4, 0, 0] == pytest.approx((11 - 0.8) / 0.4) and data.x[4, 3, 0] == pytest.approx(2.75 / 0.4, rel=1e-3)
    assert data.clients is not None and data.clients.tolist() == [4] * 4 + [7] * 14
    assert data.groups is not None and data.groups.tolist() == [0, 0, 0, 1, 2, 2, 2, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6]


def test_a_block_is_of_one_person_and_one_experiment():
    person, experiment = np.array([1, 1, 1, 1, 1, 2, 2]), np.array([0, 0, 0, 1, 1, 1, 1])
    assert blocks(person, experiment, 2).tolist() == [0, 0, 1, 2, 2, 3, 3]
    assert blocks(person, experiment, 10).tolist() == [0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("there", [True, False])
def test_missing(tmp_path, monkeypatch, there):
    if there:
        monkeypatch.setenv("FEDSPARSE_DATA", str(tmp_path))
    else:
        monkeypatch.delenv("FEDSPARSE_DATA", raising=False)
    with pytest.raises(InputError, match="UCI Machine Learning Repository") as error:
        HAPT().load()
    text = one_sentence(error)
    assert "Smartphone-Based Recognition of Human Activities and Postural Transitions" in text
    assert "`python -m fedsparse.convert.hapt SOURCE OUT`" in text and str(FILE) in text
    assert (str(tmp_path) if there else "not set") in text


def test_damaged(home):
    whole = (home / FILE).read_bytes()
    middle = len(whole) // 2
    for broken in (whole[:middle], b"", b"not packed", whole[:middle] + b"\0" * 60 + whole[middle + 60 :]):
        (home / FILE).write_bytes(broken)
        with pytest.raises(InputError, match="is damaged") as error:
            HAPT().load()
        assert str(home / FILE) in one_sentence(error)


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("subject", None, "subject"),
        ("x", lambda a: a[:, :3], r"x has the shape \(18, 3, 128\), not \(18, 6, 128\)"),
        ("y", lambda a: a[:-1], r"y has the shape \(17,\), not \(18,\)"),
        ("x", lambda a: a * np.float16("nan"), "x holds what is no finite number"),
        ("y", lambda a: a + 2, "label 7 .* allowed are 0 to 5"),
        ("x", lambda a: a.astype(str), "x holds no numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_other_arrays(home, name, change, named):
    with np.load(home / FILE) as file:
        kept = dict(file)
    array = kept.pop(name)
    np.savez(home / FILE, **kept, **({name: change(array)} if change else {}))
    with pytest.raises(InputError, match=named) as error:
        HAPT().load()
    one_sentence(error)


# ---- the real file ----


@pytest.fixture
def itself(monkeypatch) -> dict[str, np.ndarray]:
    monkeypatch.setenv("FEDSPARSE_DATA", str(REAL))
    with np.load(Path(str(REAL)) / FILE) as file:
        return dict(file)


@pytest.mark.data
@real
def test_no_one_is_tested_on_what_was_trained_on(itself):
    data = HAPT().load()
    assert data.x.shape == (10_411, 6, 128) and data.y.bincount().tolist() == [1722, 1544, 1407, 1801, 1979, 1958]
    assert abs(float(data.x.mean())) < 0.1 and abs(float(data.x.std()) - 1) < 0.1
    halves = [[half.tobytes() for half in np.split(window, 2, axis=1)] for window in itself["x"]]
    split = Natural().split(data, None, seed=0)
    assert len(split) == 30
    for seed in range(3):
        used = 0
        for own in parts(split, data, 0.1, 0.2, seed):
            rows = [own.train, own.validation, own.test]
            used += sum(map(len, rows))
            assert min(map(len, rows)) >= 10
            seen = [{half for row in part for half in halves[row]} for part in rows]
            assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
        assert used > 0.94 * len(data.x)


@pytest.mark.data
@real
def test_the_file_is_what_the_converter_makes(itself, tmp_path):
    """Recordings are put together from the windows of two people; cut again they give the same windows."""
    mine = {name: array[np.isin(itself["subject"], (1, 10))] for name, array in itself.items()}
    x = mine["x"]
    goes_on = [k > 0 and np.array_equal(x[k, :, :64], x[k - 1, :, 64:]) for k in range(len(x))]
    assert np.mean(goes_on) > 0.9  # rows are in the order of time
    labels: list[tuple[int, ...]] = []
    signals: dict[tuple[int, int], np.ndarray] = {}
    for k in range(len(x)):
        experiment, user, y = (int(mine[name][k]) for name in ("experiment", "subject", "y"))
        recording = (experiment + 1, user)
        before = signals.get(recording, np.empty((0, 6)))
        added = x[k].T[64:] if goes_on[k] else np.concatenate([np.zeros((9, 6)), x[k].T])
        signals[recording] = np.concatenate([before, added])
        start = labels.pop()[3] if goes_on[k] else len(before) + 10
        labels.append((*recording, y + 1, start, len(signals[recording])))
    found = arrays(record(tmp_path / "made", labels, signals))
    assert all(np.array_equal(found[name], mine[name]) for name in ("x", "y", "subject"))
    assert np.array_equal(np.diff(found["experiment"]) != 0, np.diff(mine["experiment"]) != 0)

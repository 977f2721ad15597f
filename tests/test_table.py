"""A table: which columns become what, in which numbers, and what is said when it cannot be."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sentence import one_sentence

from fedsparse.datasets.table import Table
from fedsparse.errors import InputError
from fedsparse.experiment import Experiment

FARMS = {
    "farm": ["b", "a", "b", "a"],
    "field": [7, 7, 3, 4],
    "rain": [1, 2, 3, 4],
    "sun": [0.5, 0.5, -0.5, -0.5],
    "flat": [9, 9, 9, 9],
    "note": ["x", "y", "z", "w"],
    "crop": ["oats", "rye", "oats", "barley"],
    "yield": [10.0, 20.0, 30.0, 40.0],
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.delenv("FEDSPARSE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    pd.DataFrame(FARMS).to_csv("farms.csv", index=False)
    return tmp_path


def changed(**columns) -> Path:
    pd.DataFrame({name: value for name, value in (FARMS | columns).items() if value}).to_csv("new.csv", index=False)
    return Path("new.csv")


@pytest.mark.parametrize("file", ["farms.csv", "farms.csv.gz", "farms.parquet", "index.parquet"])
def test_classes_clients_and_groups(file):
    frame = pd.DataFrame(FARMS)
    if file == "farms.csv.gz":
        frame.to_csv(file, index=False)
    elif file == "farms.parquet":
        frame.to_parquet(file, index=False)
    elif file == "index.parquet":
        frame.set_index("farm").to_parquet(file)  # pandas keeps it as the index
    data = Table(file=file, target="crop", client="farm", group="field").load()
    # Numeric columns alone, each with mean 0 and deviation 1; one that never varies is 0.
    rain = np.array([-1.5, -0.5, 0.5, 1.5]) / np.sqrt(1.25)
    due = np.stack([rain, [1, 1, -1, -1], [0, 0, 0, 0], rain], axis=1)
    assert data.x.dtype == torch.float32 and torch.allclose(data.x, torch.tensor(due).float())
    assert (data.y.tolist(), data.y.dtype, data.classes, data.test) == ([1, 2, 1, 0], torch.int64, 3, None)
    assert data.clients is not None and data.clients.tolist() == ["b", "a", "b", "a"]
    assert data.groups is not None and data.groups.tolist() == [7, 7, 3, 4] and data.groups.dtype == np.int64


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([10, 9, 10, 2], [2, 1, 2, 0]),  # as numbers, not as text
        (["10", "9x", "10", "2"], [0, 2, 0, 1]),
        ([True, False, False, True], [1, 0, 0, 1]),
        ([0.5, 1.5, 0.5, -1.0], [1, 2, 1, 0]),
    ],
)
def test_labels_of_any_type_are_numbered_in_their_order(values, labels):
    assert Table(file=str(changed(crop=values)), target="crop", features=("rain",)).load().y.tolist() == labels


def test_a_regression_is_told_in_its_own_unit():
    data = Table(file="farms.csv", target="yield", task="regression", features=("sun", "rain")).load()
    assert (data.x.shape, data.classes, data.y.dtype) == ((4, 2), None, torch.float32)
    assert data.x[:, 0].tolist() == [1, 1, -1, -1]
    assert data.unit == pytest.approx(np.sqrt(125))
    assert data.zero == 25
    assert (data.y * data.unit + data.zero).tolist() == pytest.approx([10, 20, 30, 40])
    assert data.clients is None and data.groups is None


def test_under_the_data_folder_first(here, monkeypatch):
    monkeypatch.setenv("FEDSPARSE_DATA", str(here / "home"))
    assert len(Table(file="farms.csv", target="crop").load().x) == 4
    (here / "home").mkdir()
    pd.DataFrame(FARMS).head(3).to_csv(here / "home" / "farms.csv", index=False)
    assert len(Table(file="farms.csv", target="crop").load().x) == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"target": "crops"}, r'no column "crops" \(target\), nearest is "crop"; it has farm, field, .*, yield'),
        ({"target": "crop", "client": "fam"}, r'"fam" \(client\), nearest is "farm"'),
        ({"target": "crop", "group": "plot"}, r'no column "plot" \(group\)'),
        ({"target": "crop", "features": ("rain", "wind")}, r'no column "wind" \(features\)'),
        ({"target": "crop", "features": ("note",)}, "\"note\" .* holds 'x' in row 1, which is no number"),
        ({"target": "crop", "task": "regression"}, "\"crop\" .* holds 'oats' in row 1, which is no number"),
        ({"target": "flat", "task": "regression"}, '"flat" .* is the same in every row'),
        ({"target": "flat"}, '"flat" .* has one class, 9'),
        ({"target": "rain", "features": ("rain",)}, "both the target and among the features"),
        ({"target": "crop", "file": "nowhere.csv"}, "nowhere.csv .* is not there"),
        ({"target": "crop", "file": "farms.xlsx"}, "must end in .csv, .csv.gz, .parquet"),
    ],
)
def test_what_does_not_fit(here, options, says):
    (here / "farms.xlsx").write_text("")
    with pytest.raises(InputError, match=says) as error:
        Table(**{"file": "farms.csv", **options}).load()
    if "must end" not in says:
        one_sentence(error)


@pytest.mark.parametrize("options", [{}, {"features": ("rain",)}, {"target": "rain", "task": "regression"}])
def test_one_bad_cell_does_not_cost_a_column(options):
    file = changed(rain=["1", "2", "3,5", "4"])
    with pytest.raises(InputError, match="\"rain\" of new.csv holds '3,5' in row 3, which is no number") as error:
        Table(**{"file": str(file), "target": "crop", **options}).load()
    one_sentence(error)


def test_a_column_of_text_with_some_numbers_is_left_out():
    half = changed(rain=["1", "2", "c", "d"])
    assert Table(file=str(half), target="crop").load().x.shape == (4, 4)  # field, sun, flat, yield
    # Whoever names the columns, or whose clients they are, is not asked.
    file = changed(farm=["1", "2", "3", "x"])
    assert Table(file=str(file), target="crop", client="farm").load().x.shape == (4, 5)
    assert Table(file=str(file), target="crop", features=("rain",)).load().x.shape == (4, 1)
    frame = pd.DataFrame(FARMS | {"day": pd.date_range("2020", periods=4), "sizes": [[1], [2], None, [3]]})
    frame.to_parquet("odd.parquet")
    assert Table(file="odd.parquet", target="crop").load().x.shape == (4, 5)


@pytest.mark.parametrize("column", ["rain", "crop", "farm", "field"])
def test_missing_values_are_counted(column):
    file = changed(**{column: [FARMS[column][0], None, FARMS[column][2], None]})
    with pytest.raises(InputError, match=f'"{column}" of new.csv lacks a value in 2 of 4 rows'):
        Table(file=str(file), target="crop", client="farm", group="field").load()


def test_what_is_no_number_for_a_model():
    with pytest.raises(InputError, match='"rain" of new.csv holds a number that is not finite'):
        Table(file=str(changed(rain=[1.0, 2.0, float("inf"), 3.0])), target="crop").load()
    pd.DataFrame({"crop": ["oats", "rye"], "note": ["x", "y"]}).to_csv("texts.csv", index=False)
    with pytest.raises(InputError, match="texts.csv has no numeric column beside crop"):
        Table(file="texts.csv", target="crop").load()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.csv", b""),
        ("header.csv", b"crop,rain\n"),
        ("ragged.csv", b"crop,rain\n1,2\n1,2,3,4\n"),
        ("binary.csv", b"crop,rain\n\xff\xfe\x00,1\n"),
        ("torn.csv.gz", b"\x1f\x8b\x08\x00\x00\x00"),
        ("torn.parquet", None),
        ("text.parquet", b"crop,rain\n1,2\n"),
    ],
)
def test_a_damaged_file_is_named(name, content):
    if content is None:
        pd.DataFrame(FARMS).to_parquet(name)
        content = Path(name).read_bytes()[:-20]
    Path(name).write_bytes(content)
    with pytest.raises(InputError, match=f"The file {name} (cannot be read as a table|holds no rows)") as error:
        Table(file=name, target="crop").load()
    one_sentence(error)


def test_values_without_an_order_and_columns_of_one_name():
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table([[1, 2], [3, 4]], names=["a", "a"]), "twice.parquet")
    with pytest.raises(InputError, match="twice.parquet cannot be read"):
        Table(file="twice.parquet", target="a").load()
    pd.DataFrame({"a": [[1], [2, 3]], "b": [1, 2]}).to_parquet("lists.parquet")
    with pytest.raises(InputError, match=r'"a" of lists.parquet holds values that have no order'):
        Table(file="lists.parquet", target="a").load()


def test_a_config_must_name_file_and_target():
    with pytest.raises(InputError, match="dataset.target"):
        Experiment.load({"dataset": {"name": "table", "file": "farms.csv"}, "model": "mlp"})

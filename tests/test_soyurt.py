"""Soybean yields: the data set on a small file of its layout, its converter on small tables, and the real file."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fedsparse.convert import command, written
from fedsparse.convert.soyurt import SOIL, VARIABLES, arrays
from fedsparse.datasets import soyurt
from fedsparse.datasets.soyurt import FILE, SoyURT
from fedsparse.errors import InputError
from fedsparse.natural import Natural
from fedsparse.split import parts

REAL = os.environ.get("FEDSPARSE_DATA")
PLACES = {"ames_ia": (42.0, -93.6, 278.0), "harrow_ont": (42.0, -82.9, 190.0)}
YEARS = (1989, 1990, 1992)


@pytest.fixture
def tables(tmp_path) -> Path:
    """The package's three tables: two places, three years, two varieties; the file's days and rows are not sorted."""
    folder = tmp_path / "tables"
    folder.mkdir()
    pheno, weather = [], []
    for year in reversed(YEARS):
        for i, (place, (latitude, longitude, altitude)) in enumerate(PLACES.items()):
            known = {"year": year, "location": place, "latitude": latitude, "longitude": longitude}
            known |= {"altitude": altitude, "trial": "UT", "average_maturity_date": 120.5}
            known |= {"average_planting_date": f"05/{10 + i}/{year % 100}" if year < 1992 else None}
            for j, group in enumerate(("II", "III")):
                row = {"check": "yes" if j else "no", "maturity_group": group, "G": f"g{j}"}
                pheno.append(known | row | {"eBLUE": 30.0 + 10 * i + j + (year - 1989), "SE": 1.5})
            days = pd.date_range(f"{year}-05-{10 + i}", periods=115)
            for number, day in enumerate(days):
                daily = {name: 100 * k + number // 7 for k, name in enumerate(VARIABLES)}
                daily["T2M"] = 10 * (year - 1989) + number  # not the same on all days of a week
                weather.append({"location": place, "YYYYMMDD": f"{day:%Y/%m/%d}", "DOY": day.day_of_year} | daily)
    soil = [
        {"location": p, "Feature": f, "Soil_Grid": 100 * i + k}
        for i, p in enumerate(PLACES)
        for k, f in enumerate(SOIL)
    ]
    pd.DataFrame(pheno).to_csv(folder / "pheno.csv", index=False)
    pd.DataFrame(soil).to_csv(folder / "soil.csv", index=False)
    pd.DataFrame(weather[::-1]).to_csv(folder / "weather.csv", index=False)
    return folder


@pytest.fixture
def home(tmp_path, tables, monkeypatch) -> Path:
    """A data folder with the file that the converter makes of the tables."""
    assert command("", arrays, [str(tables), str(tmp_path / "home" / FILE)]) == 0
    monkeypatch.setenv("FEDSPARSE_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


def refusal() -> str:
    with pytest.raises(InputError) as error:
        SoyURT().load()
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and ". " not in text
    return text


# ---- converter ----


def test_the_tables_as_arrays(tables):
    found = arrays(tables)
    assert found["states"].tolist() == ["ia", "ont"] and found["locations"].tolist() == list(PLACES)
    assert list(zip(found["env_location"], found["env_year"], strict=True)) == [(i, y) for i in (0, 1) for y in YEARS]
    # 10 May is day 130 of 1989; in 1992 nobody wrote the planting down.
    np.testing.assert_array_equal(found["env_geo"][0], np.float32([42, -93.6, 278, 130, 120.5]))
    np.testing.assert_array_equal(found["env_geo"][2], np.float32([42, -93.6, 278, np.nan, 120.5]))
    assert found["weather"].shape == (6, 19, 16) and found["soil"].tolist()[3] == list(range(100, 108))
    assert found["weather"][1, 0].tolist() == [10 + 3 + 7 * week for week in range(16)]  # day 3 is a week's mean
    assert found["weather"][1, 18].tolist() == [1800 + week for week in range(16)]
    assert found["row_env"].tolist() == [2, 2, 5, 5, 1, 1, 4, 4, 0, 0, 3, 3]
    assert found["row_y"].tolist()[:3] == [33, 34, 43] and found["env_yield"][2] == 33.5
    assert found["row_mg"].tolist() == [2, 3] * 6 and found["row_check"].tolist() == [0, 1] * 6
    assert found["genotypes"][found["row_genotype"]].tolist() == ["g0", "g1"] * 6
    assert found["env_n"].tolist() == [2] * 6


def test_the_layout_is_the_one_that_the_data_set_reads(tables):
    assert tuple(soyurt.WEATHER) == VARIABLES and tuple(soyurt.SOIL) == SOIL
    assert set(soyurt.COLUMNS) <= set(arrays(tables))


@pytest.mark.parametrize(
    ("table", "change", "named"),
    [
        ("pheno", lambda t: t.drop(columns="eBLUE"), "lacks the column eBLUE"),
        ("pheno", lambda t: t.replace("III", "IV"), "maturity group IV, allowed are II and III"),
        ("pheno", lambda t: t.replace("05/10/89", "10.5.89"), '"10.5.89", which is no date'),
        ("pheno", lambda t: t[:0], "has no rows"),
        ("pheno", lambda t: t.replace({"eBLUE": {33: None}}), "column eBLUE of .* has an empty cell"),
        ("weather", lambda t: t.astype({"RH2M": object}).replace({"RH2M": {500: "wet"}}), "cannot be read .*wet"),
        ("soil", lambda t: t[1:], "no bdod_5-15cm_mean of the location ames_ia"),
        ("weather", lambda t: t[t["DOY"] < 240], "days of ames_ia in 1989, 112 from planting are needed"),
    ],
)
def test_tables_that_do_not_do(tmp_path, tables, capsys, table, change, named):
    change(pd.read_csv(tables / f"{table}.csv")).to_csv(tables / f"{table}.csv", index=False)
    assert command("", arrays, [str(tables), str(tmp_path / "out.npz")]) == 2
    said = capsys.readouterr().err
    assert re.search(named, said) and said.startswith("error: ") and said.count("\n") == 1
    assert not (tmp_path / "out.npz").exists()


def test_a_table_that_is_not_there(tmp_path, capsys):
    assert command("", arrays, [str(tmp_path), str(tmp_path / "out.npz")]) == 2
    assert "pheno.csv cannot be read (No such file or directory)" in capsys.readouterr().err


def test_the_command_itself():
    def run(*arguments: str) -> subprocess.CompletedProcess:
        module = [sys.executable, "-m", "fedsparse.convert.soyurt", *arguments]
        return subprocess.run(module, capture_output=True, text=True, timeout=120)

    help, wrong = run("--help"), run("one")
    assert help.returncode == 0 and "write.csv" in help.stdout and "CC BY 4.0" in help.stdout
    assert wrong.returncode == 2 and wrong.stdout == ""
    assert wrong.stderr == (
        "error: The following arguments are required: OUT; usage: python -m fedsparse.convert.soyurt SOURCE OUT.\n"
    )


def test_nothing_is_left_of_what_failed(tmp_path):
    with pytest.raises(ValueError), written(tmp_path / "deep" / "out.npz") as draft:
        draft.write_text("half")
        raise ValueError
    assert list((tmp_path / "deep").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), written(tmp_path / "file" / "out.npz"):
        pass


# ---- data set ----


def test_rows_are_standardised(home):
    data = SoyURT().load()
    assert data.x.shape == (12, 318) and data.x.dtype == data.y.dtype == torch.float32
    assert (data.task, data.metric, data.unit, data.zero, data.times) == ("regression", "rmse", 15.0, 50.0, None)
    torch.testing.assert_close(data.y[:3], torch.tensor([33.0, 34, 43]).sub(50).div(15))
    # Row 8 is Ames in 1989: T2M of its first week is the mean of 0 to 6, and so on.
    first = data.x[8]
    assert float(first[0]) == pytest.approx((3 - 22) / 3.4) and float(first[17]) == pytest.approx((101 - 27.5) / 3.7)
    assert float(first[304]) == pytest.approx((0 - 152) / 6) and float(first[312]) == pytest.approx(0.4, abs=1e-5)
    assert float(first[315]) == pytest.approx((130 - 139) / 5.7)
    assert data.x[:, 317].tolist() == [-1.0, 1.0] * 6
    assert data.x[0, 315] == 0  # not known


def test_states_are_clients_and_environments_stay_whole(home):
    data = SoyURT().load()
    assert data.clients is not None and data.clients.tolist() == ["ia", "ia", "ont", "ont"] * 3
    split = Natural().split(data, None, seed=0)
    for part in parts(split, data, 0.15, 0.2, seed=0):
        assert [len(own) for own in (part.train, part.validation, part.test)] == [2, 2, 2]
        assert all(len(set(data.groups[own])) == 1 for own in (part.train, part.validation, part.test))


def test_a_forecast_holds_out_the_last_years(home):
    data = SoyURT(split="forecast").load()
    assert data.times is not None
    for part in parts(Natural().split(data, None, seed=0), data, 0.15, 0.25, seed=0):
        held = [set(data.times[own]) for own in (part.train, part.validation, part.test)]
        assert held == [{1989}, {1990}, {1992}]


def test_missing(tmp_path, monkeypatch):
    monkeypatch.delenv("FEDSPARSE_DATA", raising=False)
    assert "not set" in refusal()
    monkeypatch.setenv("FEDSPARSE_DATA", str(tmp_path))
    text = refusal()
    assert str(tmp_path) in text and "SoyURT 1.0.0" in text and "CC BY 4.0" in text
    assert "python -m fedsparse.convert.soyurt SOURCE OUT" in text


def test_damaged(home):
    file = home / FILE
    whole = file.read_bytes()
    middle = len(whole) // 2
    for broken in (b"", b"no archive", whole[:middle], whole[:200] + bytes(50) + whole[250:]):
        file.write_bytes(broken)
        assert f"{file} is damaged" in refusal()
    np.save(file.with_suffix(".npy"), np.zeros(3))
    file.with_suffix(".npy").replace(file)
    assert "is damaged" in refusal()


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("row_y", None, "row_y"),
        ("weather", lambda a: a[:, :5], r"weather has the shape \(6, 5, 16\), not \(6, 19, 16\)"),
        ("row_y", lambda a: a[:-1], r"row_y has the shape \(11,\)"),
        ("row_y", lambda a: a * np.nan, "row_y holds what is no finite number"),
        ("row_env", lambda a: a + 1, "row_env points beyond the end of env_state"),
        ("states", lambda a: a.astype(object), "Object arrays cannot be loaded"),
    ],
)
def test_other_arrays(home, name, change, named):
    with np.load(home / FILE) as file:
        kept = dict(file)
    array = kept.pop(name)
    np.savez(home / FILE, **kept, **({name: change(array)} if change else {}))
    with pytest.raises(InputError, match=named):
        SoyURT().load()
    refusal()


@pytest.mark.data
@pytest.mark.skipif(not REAL or not (Path(REAL) / FILE).is_file(), reason=f"FEDSPARSE_DATA ({REAL}) has no {FILE}")
def test_soyurt_itself(monkeypatch):
    monkeypatch.setenv("FEDSPARSE_DATA", str(REAL))
    data = SoyURT(split="forecast").load()
    assert data.x.shape == (39_006, 318) and len(np.unique(data.groups)) == 591
    assert abs(float(data.x.mean())) < 0.01 and abs(float(data.x.std()) - 1) < 0.02
    assert float(data.x.abs().max()) < 10 and float((data.y * 15 + 50).mean()) == pytest.approx(54.34, abs=0.01)
    split = Natural().split(data, None, seed=0)
    assert len(split) == 12 and sorted(map(len, split))[0] == 584
    for part in parts(split, data, 0.15, 0.25, seed=0):
        years = [data.times[own] for own in (part.train, part.validation, part.test)]
        assert years[0].max() < years[1].min() and years[1].max() < years[2].min()
        envs = [len(np.unique(data.groups[own])) for own in (part.train, part.validation, part.test)]
        assert abs(envs[2] / sum(envs) - 0.25) < 0.1 and abs(envs[1] / sum(envs) - 0.15) < 0.1

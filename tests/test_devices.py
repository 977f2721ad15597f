"""Devices: tiers, what differs within one, phones as measured, a user's own files, and when devices are ready."""

import csv
import io
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from fedsparse import phones
from fedsparse.cli import mix, views
from fedsparse.convert import phones as converter
from fedsparse.devices import Device, assign, profiles
from fedsparse.errors import InputError
from fedsparse.experiment import Experiment
from fedsparse.profiles import ALWAYS, DAY, Intervals, Profile, Sessions

TRACES = Path(os.environ.get("FEDSPARSE_DATA", "")) / "traces"


def tiers(*shares: float) -> dict[str, Device]:
    return {f"tier{i}": Device(share=share) for i, share in enumerate(shares)}


def test_shares_are_exact():
    assert Counter(assign(tiers(0.7, 0.3), 20, seed=0)) == {"tier0": 14, "tier1": 6}
    assert Counter(assign(tiers(0.33, 0.33, 0.34), 10, seed=0)) == {"tier0": 3, "tier1": 3, "tier2": 4}
    assert Counter(assign(tiers(1 / 3, 1 / 3, 1 / 3), 10, seed=0)) == {"tier0": 4, "tier1": 3, "tier2": 3}


def test_one_tier():
    assert assign({"default": Device()}, 3, seed=0) == ["default"] * 3


def test_the_seed_decides_who():
    drawn = [assign(tiers(0.5, 0.5), 40, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_no_tier():
    with pytest.raises(InputError, match="no devices"):
        assign({}, 3, seed=0)


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5), st.integers(1, 200), st.integers(0, 2**64))
def test_each_tier_has_its_share_to_within_one(shares, clients, seed):
    counts = Counter(assign(tiers(*shares), clients, seed))
    assert counts.total() == clients
    for i, share in enumerate(shares):
        assert abs(counts[f"tier{i}"] - clients * share / sum(shares)) < 1 + 1e-6


# ---- profiles ----


def seconds(own: Profile) -> float:
    """Of some work: a message each way and some arithmetic."""
    return 2 * own.latency + 1e6 / own.down + 3e9 / own.flops + 2e6 / own.up


def test_a_tier_s_numbers():
    assert profiles({"default": Device()}, 2, 0) == [Profile()] * 2
    (own,) = profiles({"a": Device(memory=5e8, dropout=0.2, sparse_kernels=True)}, 1, 0)
    assert (own.memory, own.dropout, own.sparse_kernels, own.availability) == (5e8, 0.2, True, ALWAYS)


@given(st.floats(1, 30), st.integers(2, 30), st.integers(0, 9))
def test_spread_is_the_slowest_against_the_fastest(spread, clients, seed):
    times = sorted(map(seconds, profiles({"a": Device(spread=spread)}, clients, seed)))
    assert times[0] == pytest.approx(seconds(Profile()))
    assert times == pytest.approx(np.linspace(times[0], spread * times[0], clients).tolist())


def test_profiles_are_in_the_order_of_tiers():
    mixed = {"slow": Device(share=0.5, flops=1e9), "fast": Device(share=0.5, flops=1e12, spread=3)}
    tiers = assign(mixed, 9, 4)
    assert [own.flops < 1e10 for own in profiles(mixed, 9, 4)] == [tier == "slow" for tier in tiers]
    assert profiles(mixed, 9, 4) == profiles(mixed, 9, 4) != profiles(mixed, 9, 5)


@pytest.mark.parametrize(
    ("tier", "told"),
    [
        ({"up": 0}, "devices.a.up must be a number of at least 1e-06 and at most 1e+18, not 0"),
        ({"flops": 1e300}, "devices.a.flops must be a number of at least 1e-06 and at most 1e+18, not 1e300"),
        ({"latency": math.nan}, "devices.a.latency must be a number of at least 0 and at most 1e+18, not nan"),
        ({"spread": 0.5}, "devices.a.spread must be a number of at least 1 and at most 1e+06, not 0.5"),
        ({"spread": 1e300}, "devices.a.spread must be a number of at least 1 and at most 1e+06, not 1e300"),
        ({"profile": "phone"}, '"phones_low"'),
        ({"profile": "phones", "up": 1e6}, "devices.a: up is not allowed beside profile"),
        ({"csv": "a.csv", "spread": 2.0}, "devices.a: spread is not allowed beside csv"),
        ({"profile": "phones", "csv": "a.csv"}, "take one"),
        ({"availability": "phones", "trace": "a.csv"}, "take one"),
        ({"dropout": 1.5}, "devices.a.dropout"),
    ],
)
def test_a_tier_that_contradicts_itself(tier, told):
    with pytest.raises(InputError) as error:
        Experiment.load({"dataset": "digits", "model": "mlp", "devices": {"a": tier}})
    assert told in str(error.value) and str(error.value).count(". ") == 0


# ---- phones ----


def test_phones_are_as_measured():
    drawn = profiles({"a": Device(profile="phones", flops=2e9)}, 201, 1)
    flops, ratio = [sorted(column) for column in zip(*((p.flops, p.up / p.down) for p in drawn), strict=True)]
    assert flops[100] == pytest.approx(2e9) and flops[10] == pytest.approx(2e9 * 0.308, rel=0.05)
    assert ratio[50] == pytest.approx(0.664, rel=0.02)
    ranks = np.argsort(np.argsort([[p.flops for p in drawn], [p.memory for p in drawn]], axis=1), axis=1)
    assert 0.7 < np.corrcoef(ranks)[0, 1] < 0.95
    assert {p.memory / phones.USABLE / phones.GB for p in drawn} <= set(phones.RAM)


def test_thirds_are_the_whole():
    third = {name: profiles({"a": Device(profile=f"phones_{name}")}, 40, 0) for name in ("low", "mid", "high")}
    flops = {name: [own.flops for own in found] for name, found in third.items()}
    assert max(flops["low"]) < min(flops["mid"]) and max(flops["mid"]) < min(flops["high"])
    whole = profiles({"a": Device(profile="phones")}, 120, 0)
    assert sorted(sum(flops.values(), [])) == pytest.approx(sorted(own.flops for own in whole))


def test_phones_go_by_the_seed():
    devices = {"a": Device(profile="phones", availability="phones")}
    assert profiles(devices, 5, 0) == profiles(devices, 5, 0) != profiles(devices, 5, 1)


# ---- availability ----


def intervals(pairs: list[tuple[float, float]], rest: float) -> Intervals:
    """From gaps and lengths."""
    now, starts, ends = 0.0, [], []
    for gap, length in pairs:
        starts.append(now := now + gap)
        ends.append(now := now + length)
    return Intervals(tuple(starts), tuple(ends), now + rest)


positive = st.floats(0.01, 1e5)


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=5), st.floats(0, 1e4), st.lists(st.floats(0, 1e7)))
def test_the_next_moment_is_the_first_one_ready(pairs, rest, moments):
    trace = intervals(pairs, rest)
    for at in moments:
        found = trace.next(at)
        assert found >= at and trace.ready(found) and (found == at) == trace.ready(at)
        between = np.linspace(at, found, 7)[:-1] if found > at + 1e-3 else []
        assert not any(trace.ready(float(moment)) for moment in between if moment < found - 1e-3)


def test_intervals_are_half_open_and_repeated():
    trace = Intervals((10.0, 30.0), (20.0, 40.0), 50.0)
    assert [trace.ready(at) for at in (0, 10, 19.9, 20, 39, 40, 49, 50, 60, 70)] == [
        *(False, True, True, False, True, False, False, False, True, False)
    ]  # fmt: skip
    assert [trace.next(at) for at in (0, 10, 20, 35, 40, 95)] == [10, 10, 30, 35, 60, 110]


@given(st.integers(0, 2**63 - 1), st.floats(3e-5, 0.47), st.floats(0.16, 21))
def test_sessions_take_their_share(seed, share, per_day):
    sessions = Sessions(seed, share, per_day)
    found = sessions.trace
    assert all(a < b for a, b in zip(found.starts, found.ends, strict=True))
    assert all(a <= b for a, b in zip(found.ends, found.starts[1:], strict=False))
    at = sessions.next(12_345.6)
    assert sessions.ready(at) and sessions.next(at) == at
    assert sessions.ready(at) == Sessions(seed, share, per_day).ready(at) == sessions.ready(at + 28 * DAY)


def test_many_phones_are_ready_as_measured():
    found = [own.availability for own in profiles({"a": Device(availability="phones")}, 300, 0)]
    share = [sum(map(own.ready, range(0, 28 * 86400, 3600))) / (28 * 24) for own in found]
    assert 0.03 < np.median(share) < 0.08, "0.056 was measured"
    ready = np.array([[own.ready(h * 3600) for own in found] for h in range(28 * 24)]).reshape(28, 24, 300).mean((0, 2))
    assert ready[2:6].mean() > 1.2 * ready[12:16].mean(), "nights and days"
    assert abs(ready[0] - ready.mean()) < 0.05, "nobody begins at second 0"


# ---- files ----


def test_a_csv_of_devices(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("flops,down,up,memory,sparse_kernels,name\n1e9,2e6,1e6,,true,x\n3e9,4e6,2e6,1e8,false,y\n")
    found = profiles({"a": Device(csv=str(file), latency=0.2)}, 6, 0)
    assert Counter(own.flops for own in found) == {1e9: 3, 3e9: 3}
    one = next(own for own in found if own.flops == 1e9)
    assert (one.memory, one.latency, one.sparse_kernels, one.up) == (math.inf, 0.2, True, 1e6)
    assert found != profiles({"a": Device(csv=str(file), latency=0.2)}, 6, 1)


def test_an_empty_cell_is_the_tier_s(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("flops,down,up,latency,memory,dropout,sparse_kernels\n1e9,1e6,1e6,,,,\n1e9,1e6,1e6,0,0,0,false\n")
    tier = Device(csv=str(file), latency=0.2, memory=1e6, dropout=0.5, sparse_kernels=True)
    told = {(own.latency, own.memory, own.dropout, own.sparse_kernels) for own in profiles({"a": tier}, 2, 0)}
    assert told == {(0.2, 1e6, 0.5, True), (0.0, math.inf, 0.0, False)}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("flops,down,upp\n1,1,1\n", 'the column "upp", nearest is "up"; allowed: flops, down, up, latency'),
        ("flops,down\n1,1\n", "lacks the column up; needed: flops, down, up"),
        ("flops,down,up,up\n1,1,1,1\n", "the column up twice"),
        ("flops,down,up\n1e9,1,0\n", 'line 2: up must be a number of at least 1e-06 and at most 1e+18, not "0"'),
        ("flops,down,up\n1e9,1,1\n1e9,fast,1\n", "line 3: down must be a number of at least 1e-06 and at most"),
        ("flops,down,up\n1e300,1,1\n", 'at most 1e+18, not "1e300"'),
        ("flops,down,up\n1e400,1,1\n", 'flops must be a finite number, not "1e400"'),
        ("flops,down,up\n1_000,1,1\n", 'not "1_000"'),
        ("flops,down,up\n1,,1\n", 'line 2: down must be a number of at least 1e-06 and at most 1e+18, not ""'),
        ("flops;down;up\n1,5;1;1\n", "separated by semicolons; needed: commas"),
        ("flops,down,up\n1e9,nan,1\n", 'not "nan"'),
        ("flops,down,up\n1e9,1,inf\n", 'not "inf"'),
        ("flops,down,up,dropout\n1e9,1,1,2\n", "dropout must be a number of at least 0 and at most 1"),
        ("flops,down,up,sparse_kernels\n1e9,1,1,maybe\n", 'must be true or false, not "maybe"'),
        ("flops,down,up\n1e9,1\n", "line 2: 3 cells are needed, not 2"),
        ("flops,down,up\n", "has no rows"),
        ("", "has no rows"),
        (None, "cannot be read"),
        ("\xff", "cannot be read"),
    ],
)
def test_a_bad_csv_of_devices(tmp_path, text, told):
    file = tmp_path / "mine.csv"
    if text is not None:
        file.write_text(text, encoding="latin-1")
    with pytest.raises(InputError) as error:
        profiles({"a": Device(csv=str(file))}, 2, 0)
    assert str(file) in str(error.value) and told in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "config.toml"
    for key in ("csv", "trace"):
        config.write_text(f'dataset = "digits"\nmodel = "mlp"\n[devices.a]\n{key} = "none.csv"\n')
        with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'none.csv'} cannot be read as CSV (No such file")):
            profiles(Experiment.load(config).devices, 2, 0)


def test_a_trace(tmp_path):
    file = tmp_path / "when.csv"
    file.write_text("device,start,end\nb,5,10\na,0,4\na,3,8\n\na,20,30\n")
    found = {own.availability for own in profiles({"x": Device(trace=str(file))}, 4, 0)}
    assert found == {Intervals((0.0, 20.0), (8.0, 30.0), 30.0), Intervals((5.0,), (10.0,), 30.0)}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("device,start,end\na,5,5\n", "line 2: end must be at least 0.001 after start, 5, not 5"),
        ("device,start,end\na,1e6,1000000.0000001\n", "end must be at least 0.001 after start"),
        ("device,start,end\na,-1,5\n", "start must be a number of at least 0"),
        ("device,start,end\na,0,1e10\n", "end must be a number of at least 0 and at most 1e.09"),
        ("device,start,end\na,0,4\n,5,6\n", "line 3: device must not be empty"),
        ("device,begin,end\na,1,5\n", 'the column "begin"'),
        ("device,start,end\n", "has no rows"),
    ],
)
def test_a_bad_trace(tmp_path, text, told):
    (tmp_path / "when.csv").write_text(text)
    with pytest.raises(InputError, match=told):
        profiles({"x": Device(trace=str(tmp_path / "when.csv"))}, 2, 0)


def test_files_lie_beside_the_config_and_count_by_what_they_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, up in (("one", 1), ("two", 1), ("three", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.csv").write_text(f"flops,down,up\n1,1,{up}\n")
        text = 'dataset = "digits"\nmodel = "mlp"\n[devices.a]\ncsv = "mine.csv"\n'
        (tmp_path / folder / "config.toml").write_text(text)
    one, two, three = (Experiment.load(tmp_path / name / "config.toml") for name in ("one", "two", "three"))
    assert one.devices["a"].csv == str(tmp_path / "one" / "mine.csv")
    assert one.hash() == two.hash() != three.hash()
    there = Experiment.load({"dataset": "digits", "model": "mlp"}, ["devices.default.csv=three/mine.csv"])
    assert there.devices["default"].csv == str(tmp_path / "three" / "mine.csv")
    assert Experiment.load(one.to_toml()).hash() == one.hash()


# ---- what is shown ----


def fleet(**tier: object) -> views.Fleet:
    table = {
        "dataset": "digits",
        "model": "mlp",
        "clients": 12,
        "devices": {"a": {"share": 0.5} | tier, "b": {"share": 0.5}},
    }
    return views.fleet(Experiment.load(table))


def test_what_is_shown_is_a_csv_of_devices(tmp_path):
    shown = fleet(profile="phones", availability="phones", dropout=0.25)
    assert shown.ready is not None and shown.ready.shape == (12, 1440)
    shown.table.to_csv(tmp_path / "devices.csv", index=False)
    again = profiles({"a": Device(csv=str(tmp_path / "devices.csv"))}, 12, 0)
    numbers = ("flops", "down", "up", "latency", "memory", "dropout", "sparse_kernels")
    asked = profiles({"a": Device(share=0.5, profile="phones", dropout=0.25), "b": Device(share=0.5)}, 12, 0)
    assert {tuple(getattr(own, n) for n in numbers) for own in again} == {
        tuple(getattr(own, n) for n in numbers) for own in asked
    }


@pytest.mark.parametrize("tier", [{}, {"profile": "phones", "availability": "phones"}], ids=["alike", "phones"])
def test_the_picture_is_whole(tier):
    picture = imread(io.BytesIO(mix.draw(fleet(**tier))))[..., :3]
    assert picture.shape[1] == 1403
    assert (picture[:3] == 1).all() and (picture[-3:] == 1).all()
    assert (picture[:, :3] == 1).all() and (picture[:, -3:] == 1).all(), "something is cut off"


@pytest.mark.parametrize("start", [0, 3 * DAY], ids=["some", "nobody"])
def test_who_is_never_ready_is_counted_but_not_drawn(tmp_path, start):
    (tmp_path / "when.csv").write_text(f"device,start,end\na,{start},{4 * DAY}\nb,{3 * DAY},{4 * DAY}\n")
    clients = {"dataset": "digits", "model": "mlp", "clients": 40}
    shown = views.fleet(Experiment.load(clients | {"devices": {"phone": {"trace": str(tmp_path / "when.csv")}}}))
    there = 0 if start else 20
    assert shown.details[0] == "phone: 40" and shown.details[1].endswith(f"two days: {40 - there}")
    whole = views.fleet(Experiment.load(clients))
    heights = [imread(io.BytesIO(mix.draw(found))).shape[0] for found in (whole, shown)]
    assert heights[1] - heights[0] == pytest.approx(230 * (2.0 + 0.6) * bool(there), abs=1)


# ---- where the numbers come from ----


@pytest.fixture
def measurements(tmp_path) -> Path:
    """Files in the published formats, of which every fit is known."""
    tables = {
        "latency": [["ResNet Latency"], *[[v] for v in (0, *np.geomspace(10, 1000, 101))]],
        "benchmark": [["RAM", "FP32_Score"], *[[f"{2 ** (n % 4)}GB", 10 * 2 ** (n % 4)] for n in range(40)]],
        "down": [["case", "kbps_median"], *[[4, 8000]] * 3, *[[1, 99]] * 3],
        "network": [["down_u", "up_u"], [4, 2], [6, 3], [8, 4]],
    }
    for name, rows in tables.items():
        with (tmp_path / converter.FILES[name]).open("w", newline="") as stream:
            csv.writer(stream).writerows(rows)
    users = {
        str(u): {"start": 0, "end": (2 + u % 2) * DAY, "ready": [[h * 7200, h * 7200 + 72 * u] for h in range(24)]}
        for u in range(1, 20)
    }
    users["zero"] = {"start": 0, "end": DAY, "ready": [[5, 5]]}
    (tmp_path / converter.FILES["ready"]).write_text(json.dumps(users))
    return tmp_path


def test_the_numbers_are_fitted(measurements):
    found = converter.fitted(converter.measured(measurements))
    assert found["SPEED"].values[4] == 1 and found["SPEED"].values[0] == pytest.approx(0.105, rel=0.01)
    assert found["RAM"] == {1.0: 0.25, 2.0: 0.25, 4.0: 0.25, 8.0: 0.25}
    assert found["RAM_BY_SPEED"] == 1
    assert set(found["DOWN"].values) == {1e6} and set(found["UP"].values) == {0.5}
    # User u has 24 sessions of 72 u seconds in 2 days, or 3 for an odd u; who has none but of length 0 is left out.
    shares = [24 * 72 * u / ((2 + u % 2) * DAY) for u in range(1, 20)]
    assert found["SHARE"].values[4] == pytest.approx(np.median(shares), rel=0.01)
    assert found["PER_DAY"].values[0] == 8 and found["PER_DAY"].values[-1] == 12
    assert set(found["BY_TIME_STARTS"]) == set(found["BY_TIME_LENGTH"]) == {1}
    assert set(found["LENGTH"].values) == {1}


def test_the_converter_is_a_command(measurements):
    command = [sys.executable, "-m", "fedsparse.convert.phones"]
    done = subprocess.run([*command, measurements], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith("SPEED = Quantiles(")
    (measurements / converter.FILES["network"]).write_text("down_u,up\n1,2\n")
    done = subprocess.run([*command, measurements], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "lacks the column up_u" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.data
@pytest.mark.skipif(not (TRACES / converter.FILES["ready"]).is_file(), reason=f"FEDSPARSE_DATA has no {TRACES}")
def test_the_module_holds_what_the_files_say():
    for name, value in converter.fitted(converter.measured(TRACES)).items():
        assert getattr(phones, name) == value, name

"""The numbers of `fedsparse.phones` from published measurements of phones.

    python -m fedsparse.convert.phones SOURCE [--check]

Prints the numbers as they stand in that module; with --check a table of what was measured beside what the module draws.

SOURCE is a folder with these files. No row of them is part of fedsparse.
- flhetbench_training_latency_997.csv: training_latency.json of github.com/Carkham/FLHetBench as a table, column
  "ResNet Latency", in a unit that is not told: only ratios are used, zeros left out.
- ai_benchmark_333.csv: raw_ai_benchmark_list.json of github.com/PKU-Chengxu/FLASH (numbers by ai-benchmark.com) as a
  table, columns RAM (such as 8GB) and FP32_Score.
- mobiperf_tcp_down_sampled_400.csv: TCP downlinks of MobiPerf (M-Lab) as sampled by FLHetBench for four cases, columns
  case and kbps_median, kbit/s.
- flash_network_speed_kBps_19.csv: speeds of FLASH's phones, columns down_u and up_u, means in KB/s.
- flash_availability_710.json: FLASH's users, {user: {"start", "end", "ready": [[start, end], ...]}} in seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from fedsparse import phones
from fedsparse.errors import InputError
from fedsparse.phones import Quantiles
from fedsparse.profiles import DAY, Sessions

FILES = {
    "latency": "flhetbench_training_latency_997.csv",
    "benchmark": "ai_benchmark_333.csv",
    "down": "mobiperf_tcp_down_sampled_400.csv",
    "network": "flash_network_speed_kBps_19.csv",
    "ready": "flash_availability_710.json",
}
CASE = 4
"""The case of MobiPerf with the widest spread: Wi-Fi and mobile networks."""
FEW, SOME, MANY = (10, 25, 50, 75, 90), (5, 10, 25, 50, 75, 90, 95), (1, 5, 10, 25, 50, 75, 90, 95, 99)
BLOCKS = 12
"""Parts of the day."""
SEVERAL = 5
"""Sessions from which a user's mean says something."""


# ---- what was measured ----


def measured(source: Path) -> dict[str, np.ndarray]:
    """Samples by name, as `fedsparse.phones` names what it draws; `starts` and `seconds` of each part of the day."""
    latency = _column(source, "latency", "ResNet Latency")
    benchmark = _table(source, "benchmark", ("RAM", "FP32_Score"))
    network = _table(source, "network", ("down_u", "up_u"))
    mobiperf = _table(source, "down", ("case", "kbps_median"))
    latency = latency[latency > 0]
    return {
        "SPEED": np.median(latency) / latency,
        "RAM": benchmark["RAM"].str.removesuffix("GB").astype(float).to_numpy(),
        "SCORE": benchmark["FP32_Score"].to_numpy(float),
        "DOWN": mobiperf.loc[mobiperf["case"] == CASE, "kbps_median"].to_numpy(float) * 125,
        "UP": (network["up_u"] / network["down_u"]).to_numpy(float),
        **_availability(_users(source)),
    }


def _availability(users: Sequence[tuple[float, np.ndarray]]) -> dict[str, np.ndarray]:
    """Of each user the share and the sessions a day; of all sessions and gaps the seconds, also relative."""
    found = [(span, ready) for span, ready in users if len(ready)]
    length = [ready[:, 1] - ready[:, 0] for _, ready in found]
    gap = [ready[1:, 0] - ready[:-1, 1] for _, ready in found]
    block = [(ready[:, 0] % DAY // (DAY / BLOCKS)).astype(int) for _, ready in found]
    starts = np.bincount(np.concatenate(block), minlength=BLOCKS)
    seconds = np.bincount(np.concatenate(block), np.concatenate(length), BLOCKS)
    by_time = np.maximum(seconds, 1) / np.maximum(starts, 1) * starts.sum() / seconds.sum()
    even = [own / by_time[at] for own, at in zip(length, block, strict=True)]
    return {
        "SHARE": np.array([own.sum() / span for own, (span, _) in zip(length, found, strict=True)]),
        "PER_DAY": np.array([len(ready) / span * DAY for span, ready in found]),
        "LENGTH": np.concatenate([own / own.mean() for own in even if len(own) >= SEVERAL]),
        "GAP": np.concatenate([own / own.mean() for own in gap if len(own) >= SEVERAL - 1]),
        "BY_TIME_STARTS": starts / starts.mean(),
        "BY_TIME_LENGTH": by_time,
        "lengths": np.concatenate(length),
        "gaps": np.concatenate(gap),
        "hours": _by_hour(np.concatenate([ready for _, ready in found])) / sum(span / 24 for span, _ in found),
    }


def _by_hour(ready: np.ndarray) -> np.ndarray:
    """Seconds of all intervals (N, 2) in each hour of the day; users are watched for whole days."""
    days, rest = ready[..., None] // DAY, ready[..., None] % DAY
    until: np.ndarray = days * 3600 + np.clip(rest - 3600 * np.arange(24), 0, 3600)  # from second 0 on
    seconds: np.ndarray = (until[:, 1] - until[:, 0]).sum(0)
    return seconds


# ---- what is fitted ----


def fitted(samples: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The constants of `fedsparse.phones` by name."""
    levels = {"SPEED": MANY, "DOWN": SOME, "UP": FEW} | dict.fromkeys(("SHARE", "PER_DAY", "LENGTH", "GAP"), MANY)
    sizes, counts = np.unique(samples["RAM"], return_counts=True)
    return {
        **{name: _quantiles(samples[name], at) for name, at in levels.items()},
        "RAM": {float(size): _round(n / counts.sum()) for size, n in zip(sizes, counts, strict=True)},
        "RAM_BY_SPEED": _round(_correlation(samples["SCORE"], samples["RAM"])),
        "PER_DAY_BY_SHARE": _round(_correlation(samples["SHARE"], samples["PER_DAY"])),
        **{name: tuple(map(_round, samples[name])) for name in ("BY_TIME_STARTS", "BY_TIME_LENGTH")},
    }


def _quantiles(sample: np.ndarray, levels: Sequence[float]) -> Quantiles:
    return Quantiles(tuple(levels), tuple(map(_round, np.percentile(sample, levels))))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Of the normal scores of both."""
    normal = NormalDist()
    scores = [
        pd.Series([normal.inv_cdf((rank - 0.5) / len(sample)) for rank in pd.Series(sample).rank()])
        for sample in (one, other)
    ]
    return float(scores[0].corr(scores[1]))


def _round(value: float) -> float:
    return float(f"{value:.3g}")


# ---- what the module draws, beside it ----


def check(samples: Mapping[str, np.ndarray], users: Sequence[float]) -> Iterator[str]:
    """Rows of a table: the 10, 25, 50, 75 and 90 % quantiles as measured and as drawn, and how far apart they are."""
    drawn = _drawn(users)
    yield "| what | | 10 % | 25 % | 50 % | 75 % | 90 % | largest distance |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, title in TITLES.items():
        for row, sample in (("measured", samples[name]), ("drawn", drawn[name])):
            quantiles = " | ".join(f"{value:.3g}" for value in np.percentile(sample, FEW))
            apart = f"{_distance(samples[name], drawn[name]):.3f}" if row == "drawn" else ""
            yield f"| {title if row == 'measured' else ''} | {row} | {quantiles} | {apart} |"
    night, noon = slice(2, 6), slice(12, 16)
    for row, hours in (("measured", samples["hours"]), ("drawn", drawn["hours"])):
        yield f"ready from 2 to 6 h, {row}: {hours[night].mean():.3f}, from 12 to 16 h: {hours[noon].mean():.3f}"


TITLES = {
    "SPEED": "speed, against the median's", "RAM": "RAM, GB", "DOWN": "downlink, bytes/s", "UP": "uplink / downlink",
    "SHARE": "share of the time ready", "PER_DAY": "sessions a day", "lengths": "a session, s", "gaps": "a gap, s",
}  # fmt: skip


def _drawn(spans: Sequence[float]) -> dict[str, np.ndarray]:
    """The same from the module: a thousand phones, and as many users as were measured, for as long as each was."""
    rng = np.random.default_rng(0)
    population = pd.DataFrame(phones.population("phones", 1000, rng, 1.0))
    users = []
    for i, (span, habit) in enumerate(zip(spans, phones.habits(len(spans), rng), strict=True)):
        ready = np.stack([Sessions(i, *habit).trace.starts, Sessions(i, *habit).trace.ends], axis=1)
        users.append((span, ready[ready[:, 1] <= span]))
    return {
        "SPEED": population["flops"].to_numpy(),
        "RAM": population["memory"].to_numpy() / phones.USABLE / phones.GB,
        "DOWN": population["down"].to_numpy(),
        "UP": (population["up"] / population["down"]).to_numpy(),
        **{k: v for k, v in _availability(users).items() if k in ("SHARE", "PER_DAY", "lengths", "gaps", "hours")},
    }


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """The largest distance of two distribution functions (Kolmogorov and Smirnov's)."""
    every = np.concatenate([one, other])
    shares = [np.searchsorted(np.sort(sample), every, side="right") / len(sample) for sample in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


# ---- reading ----


def _read(source: Path, name: str) -> Path:
    if not (path := source / FILES[name]).is_file():
        raise InputError(f"There is no file {path}; --help says where it comes from.")
    return path


def _table(source: Path, name: str, columns: Sequence[str]) -> pd.DataFrame:
    table = pd.read_csv(path := _read(source, name))
    if missing := [column for column in columns if column not in table]:
        raise InputError(f"The table {path} lacks the column {missing[0]}; needed: {', '.join(columns)}.")
    if table.empty:
        raise InputError(f"The table {path} has no rows.")
    return table


def _column(source: Path, name: str, column: str) -> np.ndarray:
    return _table(source, name, (column,))[column].to_numpy(float)


def _users(source: Path) -> list[tuple[float, np.ndarray]]:
    """Of each user the seconds watched and the intervals (N, 2), without those of length zero."""
    path = _read(source, "ready")
    try:
        users = json.loads(path.read_text(encoding="utf-8"))
        found = [(user["end"] - user["start"], np.array(user["ready"]).reshape(-1, 2)) for user in users.values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not JSON of users with start, end and ready: {error!r}.") from error
    return [(span, ready[ready[:, 1] > ready[:, 0]]) for span, ready in found]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the numbers, or the check of them; 2 for bad input, told in a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="the folder of the measurements")
    parser.add_argument("--check", action="store_true", help="what was measured beside what is drawn")
    given = parser.parse_args(arguments)
    try:
        samples = measured(given.source)
        users = [span for span, ready in _users(given.source) if len(ready)]
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    lines = check(samples, users) if given.check else (f"{k} = {v!r}" for k, v in fitted(samples).items())
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Phones as they were measured: fitted distributions, no measurement itself, and populations drawn from them.

`python -m fedsparse.convert.phones SOURCE` makes the numbers again from the published files, and says where those come
from; `--check` compares what is drawn with what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

GB = 1e9
USABLE = 0.25
"""Assumed, not measured: the share of its RAM that a phone lets training use."""
POPULATIONS = {
    "phones": (0.0, 1.0),
    "phones_low": (0.0, 1 / 3),
    "phones_mid": (1 / 3, 2 / 3),
    "phones_high": (2 / 3, 1),
}
"""From which to which share of all phones, in the order of their speed, a named population goes."""


@dataclass(frozen=True)
class Quantiles:
    """A distribution of positive numbers: straight lines between the logarithms of its quantiles.

    What is below the first of `levels` (per cent) has the first of `values`, what is above the last has the last.
    """

    levels: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, shares: np.ndarray) -> np.ndarray:
        """The values below which these shares (0 to 1) of the distribution are."""
        return np.exp(np.interp(100 * shares, self.levels, np.log(self.values)))


# ---- speed and memory ----

# Training latencies of 978 phones (FLHetBench; 19 zeros left out), the median's divided by each: they carry no unit.
SPEED = Quantiles((1, 5, 10, 25, 50, 75, 90, 95, 99), (0.104, 0.308, 0.362, 0.556, 1.0, 1.79, 2.49, 2.87, 3.51))
# GB of RAM of 333 phones (AI-Benchmark, by FLASH), and how many have it.
RAM = {
    0.5: 0.03, 0.75: 0.012, 1.0: 0.12, 1.5: 0.021, 2.0: 0.0541, 3.0: 0.039,
    4.0: 0.288, 6.0: 0.234, 8.0: 0.171, 10.0: 0.003, 12.0: 0.027,
}  # fmt: skip
# How RAM goes with those phones' FP32 score: the correlation of normal scores.
RAM_BY_SPEED = 0.847

# ---- network ----

# Bytes per second: 100 downlinks of MobiPerf (M-Lab, by FLHetBench: the case of the widest spread).
DOWN = Quantiles((5, 10, 25, 50, 75, 90, 95), (3.18e5, 9.91e5, 2.58e6, 5.07e6, 8.89e6, 1.16e7, 1.22e7))
# Uplink against downlink of 19 phones (FLASH).
UP = Quantiles((10, 25, 50, 75, 90), (0.288, 0.664, 0.707, 0.751, 0.914))

# ---- availability: 704 users (FLASH; 6 were never ready), sessions of length zero left out ----

# Share of the time that a user's phone is ready.
SHARE = Quantiles(
    (1, 5, 10, 25, 50, 75, 90, 95, 99), (3.19e-5, 2.64e-4, 1.68e-3, 0.0129, 0.0557, 0.131, 0.256, 0.325, 0.468)
)
# Sessions a day, and the correlation of its normal scores with the share's.
PER_DAY = Quantiles((1, 5, 10, 25, 50, 75, 90, 95, 99), (0.167, 0.255, 0.5, 1.0, 2.67, 5.67, 9.12, 11.8, 21.0))
PER_DAY_BY_SHARE = 0.571
# A session and a gap against the mean of the same user's.
LENGTH = Quantiles(
    (1, 5, 10, 25, 50, 75, 90, 95, 99), (5.79e-4, 2.66e-3, 5.88e-3, 0.0232, 0.203, 1.03, 2.84, 4.46, 9.66)
)
GAP = Quantiles((1, 5, 10, 25, 50, 75, 90, 95, 99), (8.4e-5, 2.96e-4, 7.04e-4, 5.46e-3, 0.0637, 0.76, 3.19, 5.26, 10.8))
# How many sessions begin in each two hours of the day from midnight on, and how long those are, against the mean.
BY_TIME_STARTS = (0.561, 0.545, 0.44, 0.685, 0.766, 0.931, 1.14, 1.21, 1.56, 1.79, 1.36, 1.01)
BY_TIME_LENGTH = (2.48, 1.68, 1.82, 1.37, 0.683, 0.666, 0.642, 0.571, 0.542, 0.51, 1.17, 2.02)


# ---- drawing ----


def population(name: str, phones: int, rng: np.random.Generator, median: float) -> list[dict[str, float]]:
    """`flops`, `down`, `up` and `memory` of so many phones of a named population; `median` phones do so many FLOP/s.

    Speeds lie evenly through the population, however few phones there are, and so do downlinks and ratios of uplink to
    downlink; chance deals them. Memory goes with speed. Networks, which nobody measured together with it, do not.
    """
    low, high = POPULATIONS[name]
    speed = low + (high - low) * _even(phones, rng)
    down = DOWN(_even(phones, rng))
    columns = {
        "flops": median * SPEED(speed),
        "down": down,
        "up": down * UP(_even(phones, rng)),
        "memory": USABLE * GB * _ram(_beside(speed, RAM_BY_SPEED, rng)),
    }
    return [dict(zip(columns, row, strict=True)) for row in np.stack(list(columns.values()), axis=1).tolist()]


def habits(phones: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Share of the time ready and sessions a day of so many phones."""
    share = _even(phones, rng)
    per_day = PER_DAY(_beside(share, PER_DAY_BY_SHARE, rng))
    return list(zip(SHARE(share).tolist(), per_day.tolist(), strict=True))


def _even(count: int, rng: np.random.Generator) -> np.ndarray:
    """Evenly spaced shares in (0, 1), in an order of chance."""
    return (rng.permutation(count) + 0.5) / count


def _beside(shares: np.ndarray, correlation: float, rng: np.random.Generator) -> np.ndarray:
    """Shares in (0, 1) whose normal scores have this correlation with those of `shares`."""
    normal = NormalDist()
    own, other = ([normal.inv_cdf(u) for u in column] for column in (shares, _even(len(shares), rng)))
    rest = (1 - correlation**2) ** 0.5
    return np.array([normal.cdf(correlation * a + rest * b) for a, b in zip(own, other, strict=True)])


def _ram(shares: np.ndarray) -> np.ndarray:
    """The sizes at these shares of all phones."""
    until = np.cumsum(list(RAM.values()))
    return np.array(list(RAM))[np.searchsorted(until / until[-1], shares).clip(max=len(RAM) - 1)]

"""What a client's device can do, and when it is there. Seconds are simulated ones, counted from 0."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedsparse import phones

DAY = 86_400.0
DAYS = 28
"""Days after which drawn sessions repeat."""


class Availability(ABC):
    """When a device is ready to take part."""

    @abstractmethod
    def ready(self, at: float) -> bool:
        """Whether it is ready at this second."""

    @abstractmethod
    def next(self, at: float) -> float:
        """The first second from `at` on at which it is ready."""


@dataclass(frozen=True)
class Always(Availability):
    """Ready at any time."""

    def ready(self, at: float) -> bool:
        return True

    def next(self, at: float) -> float:
        return at


ALWAYS = Always()


@dataclass(frozen=True)
class Intervals(Availability):
    """Ready from each of `starts` until just before the same one of `ends`; after `period` seconds all over again.

    Intervals are in order, do not overlap, and lie within [0, period]; there is at least one.
    """

    starts: tuple[float, ...]
    ends: tuple[float, ...]
    period: float

    def ready(self, at: float) -> bool:
        inside = at % self.period
        place = bisect_right(self.starts, inside) - 1
        return place >= 0 and inside < self.ends[place]

    def next(self, at: float) -> float:
        if self.ready(at):
            return at
        place = bisect_right(self.starts, at % self.period)
        turn = math.floor(at / self.period) + place // len(self.starts)
        found = max(at, turn * self.period + self.starts[place % len(self.starts)])
        while not self.ready(found):  # by rounding, a hair too early
            found = math.nextafter(found, math.inf)
        return found


@dataclass(frozen=True)
class Sessions(Availability):
    """Sessions and gaps as those of measured phones (`fedsparse.phones`), drawn from `seed`; repeated after 28 days.

    The phone is ready for about `share` of the time, in about `per_day` sessions a day, more of them by day and longer
    ones by night: second 0 is midnight. Boundaries are whole seconds.
    """

    seed: int
    share: float
    per_day: float

    def ready(self, at: float) -> bool:
        return self.trace.ready(at + self._shift)

    def next(self, at: float) -> float:
        return at if self.ready(at) else self.trace.next(at + self._shift) - self._shift

    @property
    def _shift(self) -> float:
        # Whole days, or every phone would begin the first day away.
        return DAY * (self.seed % DAYS)

    @cached_property
    def trace(self) -> Intervals:
        """The sessions of all 28 days."""
        rng = np.random.default_rng(self.seed)
        cycle, most = DAY / self.per_day, max(2, round(DAYS * self.per_day))
        lengths, gaps = (shape(rng.random(most)) for shape in (phones.LENGTH, phones.GAP))
        lengths *= self.share * cycle / lengths.mean()
        gaps *= (1 - self.share) * cycle / gaps.mean()
        starts, ends, now = [], [], 0.0
        for length, gap in zip(lengths.tolist(), gaps.tolist(), strict=True):
            start = float(round(_after(now, gap)))
            if start >= DAYS * DAY:
                break
            now = start + max(1, round(length * phones.BY_TIME_LENGTH[_block(start)]))
            starts.append(start)
            ends.append(min(now, DAYS * DAY))
        # A gap longer than 28 days still ends in one session.
        return Intervals(tuple(starts) or (0.0,), tuple(ends) or (1.0,), DAYS * DAY)


_WIDTH = DAY / len(phones.BY_TIME_STARTS)
_PASSED = [_WIDTH * sum(phones.BY_TIME_STARTS[:n]) for n in range(len(phones.BY_TIME_STARTS) + 1)]


def _block(at: float) -> int:
    """The part of the day."""
    return int(at % DAY // _WIDTH)


def _after(now: float, gap: float) -> float:
    """The end of a gap that begins now: it passes the faster, the more sessions begin at that time of day."""
    block = _block(now)
    passed = _PASSED[block] + (now % DAY - block * _WIDTH) * phones.BY_TIME_STARTS[block] + gap
    days, rest = divmod(passed, _PASSED[-1])
    block = min(bisect_right(_PASSED, rest), len(phones.BY_TIME_STARTS)) - 1
    return (now // DAY + days) * DAY + block * _WIDTH + (rest - _PASSED[block]) / phones.BY_TIME_STARTS[block]


@dataclass(frozen=True)
class Profile:
    """One client's device."""

    flops: float = 1e10
    """Floating-point operations per second."""
    down: float = 2.5e6
    """Bytes per second to the device."""
    up: float = 1.25e6
    """Bytes per second from the device."""
    latency: float = 0.05
    """Seconds that a message takes before its first byte arrives."""
    memory: float = math.inf
    """Bytes that training may use."""
    dropout: float = 0.0
    """Probability that a task's reply never comes."""
    sparse_kernels: bool = False
    """Whether zeros of the weights are skipped in the arithmetic."""
    availability: Availability = ALWAYS
    """When the device is ready."""

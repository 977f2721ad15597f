"""Numbers as functions of t, a share of the rounds in [0, 1]."""

from __future__ import annotations

import math


def constant(value: float, t: float) -> float:
    """The same value at every t."""
    return value


def linear(start: float, end: float, t: float) -> float:
    """From `start` at t = 0 to `end` at t = 1, then flat."""
    return start + (end - start) * min(max(t, 0.0), 1.0)


def cubic(start: float, end: float, t: float) -> float:
    """Fast at first, slow at the end: `end + (start - end) (1 - t)^3` (Zhu and Gupta, arXiv 1710.01878, eq. 1)."""
    return end + (start - end) * (1.0 - min(max(t, 0.0), 1.0)) ** 3


def cosine(start: float, end: float, t: float) -> float:
    """Half a cosine wave from `start` to `end`."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(max(t, 0.0), 1.0)))


def steps(start: float, end: float, count: int, t: float) -> float:
    """Zero in the first of `count` equal segments of [0, 1), then `count - 1` equal steps from `start` towards `end`.

    The incremental regularisation of FedDIP: segment i >= 1 has `start + (i - 1)(end - start) / (count - 1)`.
    """
    segment = min(int(min(max(t, 0.0), 1.0) * count), count - 1)
    return 0.0 if segment == 0 else start + (segment - 1) * (end - start) / (count - 1)

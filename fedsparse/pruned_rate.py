"""How much of a model a client should hold to be done in a given time, learned from the times that it took.

After AdaptCL (arXiv 2106.14126). The retention g is the share of the model that is held, phi the seconds that it took.
A client's points (g, phi) are interpolated as g over phi by Newton's divided differences, and read at the time wanted.
Clocks are noisy, equal, or wrong for a while, so a point is only used with others that say "more takes longer".
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Point = tuple[float, float]
"""Retention and seconds."""

POINTS = 3
"""Latest points that are interpolated: a line and its bend. More would follow the noise."""


@dataclass(frozen=True)
class PrunedRate:
    """The guards of one step: what is held never falls below `floor` or rises above 1.

    A step multiplies it by no less than 1 - `max_prune` and no more than the inverse, and is not made at all where it
    would change it by a smaller share than `min_prune`.
    """

    floor: float = 0.1
    max_prune: float = 0.7
    min_prune: float = 0.03

    def next(self, points: Sequence[Point], target: float) -> float:
        """The retention to hold next for updates of `target` seconds; `points` end with the present one."""
        now = points[-1][0]
        if not measured(target):
            return now
        most = 1 - self.max_prune
        wanted = clamp(estimate(points, target), now * most, now / most if most else 1.0)
        wanted = clamp(wanted, self.floor, 1.0)
        return wanted if abs(wanted - now) >= self.min_prune * now else now


def remember(points: Sequence[Point], g: float, phi: float) -> list[Point]:
    """The points with a new one at their end. What is no time (zero, negative, not finite) is not remembered.

    A retention that is measured again tells how the client's speed has changed: its old point goes, and those from
    before it are scaled alike. A repeated g with another phi would tell Newton that g does not depend on phi.
    """
    if not measured(phi):
        return list(points)
    known = list(points)
    at = next((i for i, (old, _) in enumerate(known) if math.isclose(old, g, rel_tol=1e-6)), None)
    if at is not None:
        change = phi / known.pop(at)[1]
        known[:at] = [(old, seconds * change) for old, seconds in known[:at] if measured(seconds * change)]
    return [*known, (g, phi)][-POINTS:]


def estimate(points: Sequence[Point], target: float) -> float:
    """Retention at which `target` seconds are expected, at least 0.

    In proportion to the present point where it is the only one of use. Else by Newton through all points, unless the
    bend leads out of where the answer must be, between the retentions of the nearest times; then by their last two.
    """
    used = rising(points)
    now, took = used[-1]
    if len(used) == 1:
        return now * (target / took)
    low = max((g for g, phi in used if phi <= target), default=0.0)
    high = min((g for g, phi in used if phi >= target), default=math.inf)
    found = newton(used, target)
    return found if low <= found <= high else clamp(newton(used[-2:], target), low, high)


def newton(points: Sequence[Point], target: float) -> float:
    """The polynomial g(phi) through all points, by divided differences, at phi = `target`. No phi may occur twice."""
    times = [phi for _, phi in points]
    differences = [g for g, _ in points]
    for order in range(1, len(points)):
        for i in range(len(points) - 1, order - 1, -1):
            differences[i] = (differences[i] - differences[i - 1]) / (times[i] - times[i - order])
    value = differences[-1]
    for difference, time in zip(differences[-2::-1], times[-2::-1], strict=True):
        value = difference + (target - time) * value
    return value


def rising(points: Sequence[Point]) -> list[Point]:
    """The points, latest last, of which any with more retention has clearly more seconds than any with less."""
    kept: list[Point] = []
    for g, phi in reversed(points):
        # Beside all of the later ones: an earlier point that contradicts them was made at another speed.
        if all((g - later) * (phi - time) > 0 and not math.isclose(phi, time, rel_tol=1e-6) for later, time in kept):
            kept.insert(0, (g, phi))
    return kept


def reference(points: Sequence[Point]) -> float:
    """The time that all should match: the fastest of the present points with the largest retention.

    Not the shortest time of all: one whose sub-model is a bit too small would draw the others after it, and they it.
    NaN where there are no points.
    """
    largest = max((g for g, _ in points), default=1.0)
    return min((phi for g, phi in points if g == largest), default=math.nan)


def nearest(wanted: float, share: Callable[[int], float], least: int, most: int, floor: float = 0.0) -> int:
    """The count in [least, most] whose share is nearest to `wanted`, of those that are not below `floor`.

    share: grows with the count, and is at least `wanted` and `floor` at `most`.
    """
    least = bisect_left(range(most), floor, lo=least, key=share)
    above = bisect_left(range(most), wanted, lo=least, key=share)
    return above - 1 if above > least and wanted - share(above - 1) < share(above) - wanted else above


def measured(seconds: float) -> bool:
    """Whether this is a time."""
    return math.isfinite(seconds) and seconds > 0


def clamp(value: float, low: float, high: float) -> float:
    """The nearest value in [low, high]; `high` if it is no number."""
    return max(low, value) if value < high else high

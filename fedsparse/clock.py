"""Simulated time: what a task takes on a client's device, and when a round ends. Pure functions of what was booked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedsparse.errors import RunError
from fedsparse.profiles import Profile

LOOKS = 100_000
"""How often a wait looks for a moment at which enough clients are ready."""


@dataclass(frozen=True)
class Times:
    """Simulated seconds of one client in one task."""

    down: float
    compute: float
    up: float

    @property
    def total(self) -> float:
        return self.down + self.compute + self.up


def client_seconds(
    profile: Profile, down: Iterable[int], flops: float, flops_sparse: float, up: Iterable[int]
) -> Times:
    """Seconds of one client: its messages' bytes each way, then the arithmetic of its training.

    Zeros of the weights (`flops_sparse`) save time only on a device that has kernels for them.
    """
    return Times(
        sum(profile.latency + length / profile.down for length in down),
        (flops_sparse if profile.sparse_kernels else flops) / profile.flops,
        sum(profile.latency + length / profile.up for length in up),
    )


@dataclass(frozen=True)
class End:
    """When a task of a round ends, and whose replies came too late for it."""

    seconds: float
    late: frozenset[int] = frozenset()


def end(arrivals: Mapping[int, float], losses: Mapping[int, float], deadline: float = 0.0, first: int = 0) -> End:
    """The end of a task: at its `first` replies (0: all), at the deadline (0: none), or when nothing more can come.

    arrivals: seconds after which each client's reply is there; losses: after which it is known that none will come.
    With a deadline the server does not know of losses: it waits. Of replies at the same moment the lower id's counts.
    """
    order = sorted(arrivals, key=lambda client: (arrivals[client], client))
    within = [client for client in order if not deadline or arrivals[client] <= deadline]
    if first and len(within) >= first:
        return End(arrivals[within[first - 1]], frozenset(order) - frozenset(within[:first]))
    late = frozenset(order) - frozenset(within)
    if deadline and (late or losses):
        return End(deadline, late)
    return End(max([*arrivals.values(), *losses.values()], default=0.0), late)


def wait(profiles: Sequence[Profile], now: float, least: int) -> float:
    """The first moment from `now` on at which `least` of these devices are ready; RunError where none is found."""
    for _ in range(LOOKS):
        ready = [profile.availability.ready(now) for profile in profiles]
        if sum(ready) >= least:
            return now
        coming = sorted(p.availability.next(now) for p, there in zip(profiles, ready, strict=True) if not there)
        now = coming[0]
    raise RunError(f"clock.minimum = {least}: in {now:.3g} simulated seconds never so many clients were ready at once")

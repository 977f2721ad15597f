"""Which device each client is: tiers from the config (`[devices.NAME]`), dealt out by the seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from fedsparse import device_csv, phones
from fedsparse.errors import InputError
from fedsparse.profiles import ALWAYS, Availability, Profile, Sessions
from fedsparse.randomness import generator, integer
from fedsparse.sections import Device

__all__ = ["Device", "assign", "profiles"]

T = TypeVar("T")


def assign(devices: Mapping[str, Device], clients: int, seed: int) -> list[str]:
    """The tier of each client. Tiers have their shares of the clients to within one client, who is what the seed draws.

    Shares are taken relative to their sum; the clients left over by rounding down go to the largest remainders, of
    equal ones to the tier that comes first.
    """
    if not devices:
        raise InputError("There are no devices: at least one tier is needed, or none written for the default one.")
    total = sum(device.share for device in devices.values())
    exact = {name: clients * device.share / total for name, device in devices.items()}
    counts = {name: int(value + 1e-9) for name, value in exact.items()}  # 0.3 of 10 is 3, not 2.9999999999999996
    by_remainder = sorted(devices, key=lambda name: round(counts[name] - exact[name], 9))
    for name in by_remainder[: clients - sum(counts.values())]:
        counts[name] += 1
    tiers = [name for name, count in counts.items() for _ in range(count)]
    return [tiers[i] for i in generator(seed, "devices").permutation(clients)]


def profiles(devices: Mapping[str, Device], clients: int, seed: int) -> list[Profile]:
    """The profile of each client, of the tier that `assign` gives it; InputError where a tier's file is wrong.

    What differs within a tier (spread, phones, rows of a file) is dealt by the seed, each tier's by its own draws.
    """
    tiers = assign(devices, clients, seed)
    own = {name: iter(_tier(name, device, tiers.count(name), seed)) for name, device in devices.items()}
    return [next(own[name]) for name in tiers]


def _tier(name: str, device: Device, clients: int, seed: int) -> list[Profile]:
    """The profiles of a tier's clients."""
    plain = device.model_dump(include={"flops", "down", "up", "latency", "memory", "dropout", "sparse_kernels"})
    rows: Sequence[Mapping[str, Any]] = [{}] * clients
    if device.profile:
        rows = phones.population(device.profile, clients, generator(seed, "devices", name, "phones"), device.flops)
    elif device.csv:
        rows = _dealt(device_csv.devices(device.csv), clients, generator(seed, "devices", name, "csv"))
    factors = _spread(device.spread, clients, generator(seed, "devices", name, "spread"))
    ready = _availability(name, device, clients, seed)
    return [
        replace(_slower(_profile({**plain, **row}), factor), availability=when)
        for row, factor, when in zip(rows, factors, ready, strict=True)
    ]


def _profile(numbers: Mapping[str, Any]) -> Profile:
    return Profile(**{**numbers, "memory": numbers["memory"] or math.inf})


def _spread(spread: float, clients: int, rng: np.random.Generator) -> list[float]:
    """How many times as long each client takes: evenly from 1 to `spread`."""
    factors: list[float] = rng.permutation(np.linspace(1, spread, clients)).tolist()
    return factors


def _slower(profile: Profile, factor: float) -> Profile:
    """The same device, which takes `factor` times as long for the same work."""
    return replace(
        profile,
        flops=profile.flops / factor,
        down=profile.down / factor,
        up=profile.up / factor,
        latency=profile.latency * factor,
    )


def _availability(name: str, device: Device, clients: int, seed: int) -> Sequence[Availability]:
    """When each of a tier's clients is ready."""
    if device.trace:
        return _dealt(device_csv.traces(device.trace), clients, generator(seed, "devices", name, "trace"))
    if device.availability == "always":
        return [ALWAYS] * clients
    habits = phones.habits(clients, generator(seed, "devices", name, "habits"))
    return [Sessions(integer(seed, "devices", name, "sessions", i), *habit) for i, habit in enumerate(habits)]


def _dealt(rows: Sequence[T], clients: int, rng: np.random.Generator) -> list[T]:
    """A row a client, in an order of chance; each is dealt before one is dealt again."""
    turns = -(-clients // len(rows))
    return [rows[i] for _ in range(turns) for i in rng.permutation(len(rows))][:clients]

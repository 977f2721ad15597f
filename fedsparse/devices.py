"""Which device each client is: tiers from the config (`[devices.NAME]`), dealt out by the seed."""

from __future__ import annotations

from collections.abc import Mapping

from fedsparse.errors import InputError
from fedsparse.randomness import generator
from fedsparse.sections import Device

__all__ = ["Device", "assign"]


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

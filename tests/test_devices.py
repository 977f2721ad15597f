"""Tiers: exact shares, an order drawn by the seed."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsparse.devices import Device, assign
from fedsparse.errors import InputError


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

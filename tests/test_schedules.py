"""Schedules at their ends and at values worked out by hand."""

from __future__ import annotations

import pytest

from fedsparse import distributions, schedules


def test_cubic_runs_from_start_to_end_and_stays() -> None:
    assert schedules.cubic(0.5, 0.1, 0.0) == 0.5
    assert schedules.cubic(0.5, 0.1, 0.5) == pytest.approx(0.15)
    assert schedules.cubic(0.5, 0.1, 1.0) == schedules.cubic(0.5, 0.1, 7.0) == pytest.approx(0.1)


def test_steps_are_those_of_the_feddip_code() -> None:
    values = [schedules.steps(5e-4, 1e-3, 20, i / 20) for i in range(20)]
    assert values[0] == 0.0
    assert values[1] == pytest.approx(5e-4)
    assert values[2] == pytest.approx(5.263e-4, rel=1e-3)
    assert values[19] == pytest.approx(9.737e-4, rel=1e-3)


def test_linear_cosine_constant() -> None:
    assert schedules.linear(0.0, 2.0, 0.25) == 0.5
    assert schedules.cosine(1.0, 0.0, 0.5) == pytest.approx(0.5)
    assert schedules.constant(3.0, 0.9) == 3.0


def test_erk_meets_the_total_and_never_exceeds_one() -> None:
    shapes = {"conv": (8, 1, 3, 3), "big": (64, 512), "last": (10, 64)}
    found = distributions.erk(shapes, 0.1)
    kept = sum(found[n] * s for n, s in {"conv": 72, "big": 32768, "last": 640}.items())
    assert kept == pytest.approx(0.1 * (72 + 32768 + 640))
    assert max(found.values()) == 1.0
    assert distributions.uniform(shapes, 0.3) == {"conv": 0.3, "big": 0.3, "last": 0.3}

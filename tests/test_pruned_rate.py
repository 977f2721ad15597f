"""The pruned-rate learner: how soon it arrives, whom it follows, and what it never does whatever the clock says."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsparse.pruned_rate import PrunedRate, estimate, nearest, newton, reference, remember, rising

Clock = Callable[[float], float]


def play(
    clocks: list[Clock], rate: PrunedRate, target: float, whole: Callable[[float], float] = lambda g: g
) -> list[float]:
    """Retentions after each event; `clocks` tell the seconds from one event to the next."""
    points: list[tuple[float, float]] = []
    g, found = 1.0, []
    for clock in clocks:
        points = remember(points, g, clock(g))
        g = whole(rate.next(points, target))
        found.append(g)
    return found


def test_newton_goes_through_its_points_and_follows_a_parabola() -> None:
    points = [(phi**2 - phi + 1, phi) for phi in (3.0, 1.0, 2.0)]
    assert newton(points, 5.0) == pytest.approx(21.0)
    assert [newton(points, phi) for _, phi in points] == pytest.approx([g for g, _ in points])
    assert newton(points[:1], 5.0) == points[0][0]


@pytest.mark.parametrize("slower", [1.1, 1.3, 2.0, 5.0, 10.0, 20.0])
@pytest.mark.parametrize("constant", [0.0, 0.1, 0.3, 0.6])
@pytest.mark.parametrize("floor", [0.05, 0.1, 0.3])
def test_under_a_linear_clock_it_arrives_in_three_events(slower: float, constant: float, floor: float) -> None:
    def clock(g: float) -> float:
        return slower * ((1 - constant) * g + constant)

    exact = max(floor, (1 / slower - constant) / (1 - constant))
    found = play([clock] * 6, PrunedRate(floor=floor), 1.0)
    assert found[2:] == pytest.approx([exact] * 4, rel=0.031)  # a smaller step is not made
    assert all(g >= 0.3 * before for before, g in zip([1.0, *found], found, strict=False))
    if exact >= 0.3:
        assert found[1] == pytest.approx(exact, rel=0.031)


def test_the_first_event_is_in_proportion_and_the_second_exact() -> None:
    found = play([lambda g: 4 * (0.9 * g + 0.1)] * 3, PrunedRate(max_prune=0.9), 1.0)
    assert found == pytest.approx([0.25, 1 / 6, 1 / 6])


def test_guards() -> None:
    assert PrunedRate(max_prune=0.2).next([(1.0, 10.0)], 1.0) == pytest.approx(0.8)
    assert PrunedRate(floor=0.4).next([(0.5, 10.0)], 1.0) == 0.4
    assert PrunedRate(min_prune=0.1).next([(0.8, 1.05)], 1.0) == 0.8
    assert PrunedRate(min_prune=0.1).next([(0.8, 1.2)], 1.0) == pytest.approx(0.8 / 1.2)
    assert PrunedRate(max_prune=0.5).next([(0.2, 1.0)], 9.0) == pytest.approx(0.4)  # growth is as slow
    assert PrunedRate(max_prune=1.0).next([(0.2, 1.0)], 9.0) == 1.0


@pytest.mark.parametrize("at", [1, 2, 4])
@pytest.mark.parametrize("change", [0.25, 0.5, 2.0])
def test_a_client_whose_speed_changes_is_followed(at: int, change: float) -> None:
    def clock(speed: float) -> Clock:
        return lambda g: 4 * speed * (0.95 * g + 0.05)

    found = play([clock(1.0)] * at + [clock(change)] * 5, PrunedRate(floor=0.02), 1.0)
    exact = min(1.0, (0.25 / change - 0.05) / 0.95)
    assert found[-1] == pytest.approx(exact, rel=0.031)


def test_a_client_that_becomes_the_fastest_holds_all_again_and_sets_the_time() -> None:
    clocks: list[Clock] = [lambda g: 4 * g] * 2 + [lambda g: 0.5 * g] * 3
    assert play(clocks, PrunedRate(), 1.0)[-1] == 1.0
    assert reference([(1.0, 1.0), (1.0, 0.5), (0.3, 0.4)]) == 0.5


def test_equal_measurements_do_not_stop_it() -> None:
    """A clock that counts half seconds says the same of two retentions in a row, twice on the way."""
    found = play([lambda g: math.ceil(4 * g) / 2] * 8, PrunedRate(max_prune=0.2), 1.0)
    assert found[:3] == pytest.approx([0.8, 0.64, 0.512])
    assert 0.4 < found[-1] <= 0.5 and found[-1] == found[-2]


def test_the_same_retention_measured_again_replaces_and_scales() -> None:
    points = remember([(1.0, 10.0), (0.5, 6.0)], 0.5, 3.0)
    assert points == [(1.0, 5.0), (0.5, 3.0)]
    assert remember(points, 0.25, 2.0) == [(1.0, 5.0), (0.5, 3.0), (0.25, 2.0)]
    assert remember(remember(points, 0.25, 2.0), 0.2, 1.5) == [(0.5, 3.0), (0.25, 2.0), (0.2, 1.5)]
    assert [remember(points, 0.25, nothing) for nothing in (0.0, -1.0, math.inf, math.nan)] == [points] * 4


def test_points_that_contradict_the_latest_are_not_used() -> None:
    assert rising([(1.0, 2.0), (0.8, 3.0), (0.5, 2.5)]) == [(0.8, 3.0), (0.5, 2.5)]
    assert rising([(1.0, 2.0), (0.5, 2.0)]) == [(0.5, 2.0)]
    assert estimate([(1.0, 2.0), (0.5, 4.0)], 2.0) == pytest.approx(0.25)


def test_noise_leaves_it_near_the_target() -> None:
    draw = random.Random(0)
    for slower in (1.3, 2.0, 5.0):
        clocks: list[Clock] = [lambda g, h=slower: h * draw.uniform(0.95, 1.05) * (0.9 * g + 0.1) for _ in range(40)]
        late = play(clocks, PrunedRate(), 1.0)[3:]
        assert all(abs(slower * (0.9 * g + 0.1) - 1) < 0.25 for g in late)


def test_the_nearest_count_not_below_the_floor() -> None:
    shares = [0.0, 0.0, 0.1, 0.2, 0.4, 1.0]
    found = {wanted: nearest(wanted, shares.__getitem__, 1, 5) for wanted in (0.01, 0.14, 0.16, 0.31, 0.6, 0.8, 1.0)}
    assert found == {0.01: 1, 0.14: 2, 0.16: 3, 0.31: 4, 0.6: 4, 0.8: 5, 1.0: 5}
    assert nearest(0.01, shares.__getitem__, 2, 5) == 2
    assert nearest(0.21, shares.__getitem__, 1, 5, 0.21) == 4


SECONDS = st.floats(allow_nan=True, allow_infinity=True) | st.floats(0.5, 2.0) | st.just(1.0)
SHARES = st.floats(0.01, 1.0) | st.sampled_from([0.25, 0.5, 1.0])


@given(
    st.lists(st.tuples(SHARES, SECONDS), max_size=12),
    SECONDS,
    st.floats(0.01, 1.0),
    st.floats(0.01, 1.0),
    st.floats(0.0, 0.5),
)
def test_whatever_the_clock_says_it_stays_within_its_bounds(
    measured: list[tuple[float, float]], target: float, floor: float, most: float, least: float
) -> None:
    rate, points = PrunedRate(floor, most, least), [(1.0, 1.0)]
    for g, phi in measured:
        points = remember(points, max(g, floor), phi)
        assert len(points) <= 3 and all(math.isfinite(value) and value > 0 for point in points for value in point)
        now, found = points[-1][0], rate.next(points, target)
        assert floor <= found <= 1.0
        assert found >= now * (1 - most) * (1 - 1e-12)


@given(st.lists(st.tuples(SHARES, st.floats(0.1, 10.0)), min_size=1, max_size=6), st.floats(0.1, 10.0))
def test_who_is_too_slow_never_grows_and_who_is_too_fast_never_shrinks(
    measured: list[tuple[float, float]], target: float
) -> None:
    points: list[tuple[float, float]] = []
    for point in measured:
        points = remember(points, *point)
    (now, phi), found = points[-1], PrunedRate(floor=0.001, min_prune=0.0).next(points, target)
    assert found <= now * (1 + 1e-9) if target < phi else found >= now * (1 - 1e-9)

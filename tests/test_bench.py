"""The codec's own measurements: bounds that a reader can check by hand, and tables that cannot flatter."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedsparse import bench
from fedsparse.bench import Measured, Method, Sample

TINY = 1 << 14


def test_the_bounds_are_those_of_the_textbook() -> None:
    assert bench.choices(5, 2) == pytest.approx(math.log2(10))
    assert bench.choices(7, 7) == pytest.approx(0, abs=1e-9)
    assert bench.value_bits(np.array([1, 1.5, 2, 3], np.float32)) == 4 * (24 + 1)  # two exponents, equally often
    two_of_four = Sample.draw("2:4", TINY)
    assert (two_of_four.bits.reshape(-1, 4).sum(1) == 2).all()
    assert two_of_four.mask_bits == pytest.approx(TINY / 4 * math.log2(math.comb(4, 2)))
    rows = Sample.draw("30 % of rows", TINY)
    assert set(rows.bits.sum(1)) == {0, bench.COLUMNS}
    assert rows.mask_bits < len(rows.bits)


@pytest.mark.parametrize("kind", ["1 %", "50 %", "100 %"])
def test_a_sample_is_zero_outside_its_mask(kind: str) -> None:
    sample = Sample.draw(kind, TINY)
    assert sample.array.ctypes.data % 64 == 0
    assert not sample.array[~sample.bits].any() and not np.signbit(sample.array[~sample.bits]).any()
    assert sample.bits.mean() == pytest.approx(bench.SHARES[kind], rel=0.3)


def test_who_gives_back_something_else_is_not_measured() -> None:
    wrong = Method("wrong", lambda sample: b"", lambda sent, sample: np.zeros_like(sample.array))
    with pytest.raises(ValueError, match="wrong gives back another array"):
        bench.measure(Sample.draw("10 %", TINY), [bench.OURS, wrong], 1)


def test_the_lower_quartile_of_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, clock = [], iter([0, 9, 10, 11, 20, 28, 30, 32, 40, 47, 50, 53, 60, 66, 70, 74, 80, 85, 90, 95])
    monkeypatch.setattr(bench.time, "process_time", lambda: next(clock))
    found = bench.quartile({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, 5)
    assert turns == ["a", "b"] * 5
    assert found == {"a": 6, "b": 2}  # of 5, 6, 7, 8, 9 and 1, 2, 3, 4, 5


@pytest.mark.parametrize(
    ("value", "limit", "least", "ends"),
    [
        (1.0081, 1.008, False, "not met)"),
        (1.008, 1.008, False, "1.008 (≤ 1.008 met)"),
        (4.0, 4.1, True, "(≥ 4.1 within 10 %)"),
        (3.6, 4.1, True, "not met)"),
        (4.1, 4.1, True, "4.10 (≥ 4.1 met)"),
        (2.0, None, True, "2.00"),
    ],
)
def test_a_verdict_is_computed(value: float, limit: float | None, least: bool, ends: str) -> None:
    assert bench.verdict(value, limit, least=least).endswith(ends)


def test_beaten_is_who_is_larger_and_slower_both_ways() -> None:
    own = Measured("fedsparse", "10 %", 4000, 100, 99, 1.0, 1.0, 0.1)
    others = [
        Measured("larger and slower", "10 %", 4000, 101, 99, 1.1, 1.1, 0.1),
        Measured("smaller", "10 %", 4000, 99, 99, 1.1, 1.1, 0.1),
        Measured("quicker to decode", "10 %", 4000, 101, 99, 1.1, 0.9, 0.1),
    ]
    table = bench.rival_table([own, *others]).splitlines()[2:]
    assert [line.split("|")[-2].strip() for line in table] == ["", "yes", "no", "no"]


def test_the_report_has_every_density_and_rival() -> None:
    text = bench.report(TINY, 1)
    assert all(f"| {kind} |" in text for kind in bench.LIMITS)
    assert all(f"| {method.name} |" in text for method in bench.RIVALS)

"""Mask algebra: exact counts, ties, and averages against a plain reference."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsparse import masks
from fedsparse.payload import Payload


@given(st.integers(0, 12), st.integers(0, 3), st.integers(0, 2**31))
def test_top_k_keeps_exactly_k_of_the_largest(keep: int, levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = {
        n: torch.from_numpy(rng.integers(0, levels + 1, size=s).astype(np.float32))
        for n, s in {"a": (2, 3), "b": 6}.items()
    }
    kept = masks.top_k(scores, keep)
    assert masks.count(kept) == keep
    inside = torch.cat([scores[n][kept[n]] for n in scores])
    outside = torch.cat([scores[n][~kept[n]] for n in scores])
    if len(inside) and len(outside):
        assert inside.min() >= outside.max()


def test_top_k_breaks_ties_by_position() -> None:
    kept = masks.top_k({"a": torch.ones(3), "b": torch.ones(3)}, 4)
    assert kept["a"].tolist() == [True, True, True]
    assert kept["b"].tolist() == [True, False, False]


def test_top_k_with_a_minimum_keeps_it_in_every_tensor_and_the_total_exact() -> None:
    kept = masks.top_k({"big": torch.arange(100.0) + 10, "small": torch.arange(5.0)}, 10, min_keep=2)
    assert kept["small"].tolist() == [False, False, False, True, True]
    assert masks.count(kept) == 10


def test_apply_gives_plus_zero_outside() -> None:
    out = masks.apply({"w": torch.tensor([-1.0, -2.0])}, {"w": torch.tensor([True, False])})["w"]
    assert out.tolist() == [-1.0, 0.0]
    assert not torch.signbit(out[1])


def test_density_counts_a_name_without_mask_as_dense() -> None:
    assert masks.density({"a": torch.tensor([True, False])}, {"a": 2, "b": 6}) == pytest.approx(7 / 8)


def test_changed_counts_what_came_back() -> None:
    old, new = torch.tensor([True, False, False]), torch.tensor([False, True, False])
    assert masks.changed({"a": old}, {"a": new}) == 1


def test_jaccard_is_the_mean_over_pairs() -> None:
    a, b, c = (torch.tensor(x, dtype=torch.bool) for x in ([1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]))
    assert masks.jaccard([a, b, c]) == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)
    assert masks.jaccard([torch.zeros(3, dtype=torch.bool)] * 2) == 1.0


def replies(rng: np.random.Generator, clients: int, absent: str) -> list[SimpleNamespace]:
    made = []
    for _ in range(clients):
        mask = torch.from_numpy(rng.random(7) < 0.5)
        w = torch.where(mask, torch.from_numpy(rng.normal(size=7)).float(), torch.zeros(()))
        payload = Payload({"w": w, "b": torch.from_numpy(rng.normal(size=2)).float()}, {"w": mask}, absent=absent)  # type: ignore[arg-type]
        made.append(SimpleNamespace(payload=payload, examples=int(rng.integers(1, 9))))
    return made


@given(
    st.integers(1, 5),
    st.integers(0, 2**31),
    st.sampled_from(["unheld", "zero"]),
    st.sampled_from(["examples", "clients"]),
)
def test_masked_mean_equals_a_plain_reference(clients: int, seed: int, absent: str, by: str) -> None:
    rng = np.random.default_rng(seed)
    made, before = (
        replies(rng, clients, absent),
        {"w": torch.full((7,), 5.0), "b": torch.zeros(2), "kept": torch.ones(1)},
    )
    mean = masks.masked_mean(made, otherwise=before, by=by)  # type: ignore[arg-type]
    for i in range(7):
        total = weight = 0.0
        for reply in made:
            share = reply.examples if by == "examples" else 1
            if absent == "zero" or bool(reply.payload.masks["w"].dense()[i]):
                total, weight = total + share * float(reply.payload.weights["w"][i]), weight + share
        assert float(mean["w"][i]) == pytest.approx(total / weight if weight else 5.0, abs=1e-6)
    assert torch.equal(mean["kept"], before["kept"])


def test_masked_mean_with_full_masks_is_the_weighted_mean() -> None:
    full = torch.ones(2, dtype=torch.bool)
    made = [SimpleNamespace(payload=Payload({"w": torch.tensor([1.0, 2.0])}, {"w": full}), examples=1),
            SimpleNamespace(payload=Payload({"w": torch.tensor([3.0, 6.0])}, {"w": full}), examples=3)]  # fmt: skip
    assert masks.masked_mean(made)["w"].tolist() == [2.5, 5.0]


def test_a_damped_mean_counts_who_does_not_hold_a_position_as_having_left_it() -> None:
    mask = torch.tensor([True, False])
    made = [
        SimpleNamespace(payload=Payload({"w": torch.tensor([5.0, 0.0])}, {"w": mask}), examples=1),
        SimpleNamespace(payload=Payload({"w": torch.tensor([0.0, 0.0])}, {"w": ~mask}), examples=3),
    ]
    before = {"w": torch.tensor([1.0, 8.0])}
    assert masks.masked_mean(made, before, damped=True)["w"].tolist() == [1 + (5 - 1) / 4, 8 + (0 - 8) * 3 / 4]
    whole = [SimpleNamespace(payload=Payload({"w": torch.tensor([5.0, 2.0])}), examples=1)]
    assert masks.masked_mean(whole, before, damped=True)["w"].tolist() == [5.0, 2.0]


def test_masked_mean_keeps_integer_buffers_integer() -> None:
    made = [SimpleNamespace(payload=Payload({"n": torch.tensor(4)}), examples=2)] * 2
    assert masks.masked_mean(made)["n"].dtype == torch.int64
    assert int(masks.masked_mean(made)["n"]) == 4

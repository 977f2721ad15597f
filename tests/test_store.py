"""A client's store: two generations, and training from the one that is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedsparse.errors import RunError
from fedsparse.store import Store, hash_tensors, stores


def test_training_again_from_the_same_generation_gives_the_same_next_one(tmp_path: Path) -> None:
    first = Store(tmp_path / "3")
    first["a"] = {"w": torch.ones(2)}
    assert first.commit() == 1
    for value in (5.0, 7.0):  # a first try whose reply was lost, and the second
        again = Store(tmp_path / "3", generation=1)
        assert again["a"]["w"].tolist() == [1.0, 1.0]
        again["a"] = {"w": torch.full((2,), value)}
        assert again.commit() == 2
    assert Store(tmp_path / "3", 2)["a"]["w"].tolist() == [7.0, 7.0]


def test_two_generations_are_kept(tmp_path: Path) -> None:
    generation = 0
    for value in range(4):
        store = Store(tmp_path / "0", generation)
        store["a"] = {"w": torch.tensor(value)}
        generation = store.commit()
    assert sorted(p.name for p in (tmp_path / "0").iterdir()) == ["3.safetensors", "4.safetensors"]


def test_nothing_changed_nothing_written(tmp_path: Path) -> None:
    assert Store(tmp_path / "0").commit() == 0
    assert not (tmp_path / "0").exists()


def test_a_lost_state_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="client 7 does not hold generation 3"):
        Store(tmp_path / "7", 3)


def test_groups_do_not_mix_and_come_back_in_client_order(tmp_path: Path) -> None:
    for client in (10, 2):
        store = Store(tmp_path / str(client))
        store["a"] = {"w": torch.tensor(client)}
        store["b"] = {"w": torch.tensor(-1), "v": torch.tensor(-2)}
        store["b"] = {"v": torch.tensor(-3)}
        assert "b" in store and "c" not in store and store["c"] == {}
        store.commit()
    found = list(stores(tmp_path, {10: 1, 2: 1, 5: 0}))
    assert [c for c, _ in found] == [2, 10]
    assert set(found[0][1]) == {"a/w", "b/v"}


def test_the_hash_sees_name_shape_type_and_bytes() -> None:
    base = [("w", torch.zeros(2, 3))]
    others = [
        [("v", torch.zeros(2, 3))],
        [("w", torch.zeros(3, 2))],
        [("w", torch.zeros(2, 3).double())],
        [("w", -torch.zeros(2, 3))],
    ]
    assert len({hash_tensors(b) for b in [base, *others]}) == 5

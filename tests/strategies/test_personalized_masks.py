"""Personalized masks: when a client prunes, what it keeps, and what the server makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from federations import built, client_of

from fedsparse import masks
from fedsparse.payload import Payload
from fedsparse.strategy import Reply, Task


def personalized(rounds: int = 40, **options: Any) -> Any:
    return built(rounds=rounds, strategy={"name": "personalized_masks", **options})


def test_events_are_at_shares_of_the_rounds() -> None:
    strategy = personalized().strategy
    assert [t for t in range(1, 41) if strategy.events(t) > strategy.events(t - 1)] == [4, 12, 20, 28, 36]


def test_three_events_prune_each_layer_to_the_target_exactly() -> None:
    fed = personalized()
    mask = masks.ones(fed.shared, fed.setup.maskable)
    for expected in (0.585, 0.342, 0.2):
        pruned = fed.strategy.prune(fed.shared, mask)
        for name, kept in pruned.items():
            assert not (kept & ~mask[name]).any()
            assert float(kept.double().mean()) == pytest.approx(expected, abs=0.01)
            assert fed.shared[name].abs()[kept].min() >= fed.shared[name].abs()[mask[name] & ~kept].max()
        mask = pruned
    assert masks.density(mask, fed.setup.sizes) == pytest.approx(0.2, abs=1e-3)
    assert {n: int(m.sum()) for n, m in fed.strategy.prune(fed.shared, mask).items()} == {
        n: round(0.2 * m.numel()) for n, m in mask.items()
    }


def test_a_client_at_its_target_neither_prunes_nor_trains_again(tmp_path: Path) -> None:
    fed = personalized()
    mask = masks.ones(fed.shared, fed.setup.maskable)
    while fed.strategy.prunable(mask):
        mask = fed.strategy.prune(fed.shared, mask)
    client = client_of(fed, tmp_path, round=36)
    reply = fed.strategy.train(Payload(masks.apply(fed.shared, mask), mask), client)
    assert reply.info["pruned"] == 0
    assert client.steps_done == -(-len(client.parts.train) // 64)  # one epoch, no recovery


def test_the_best_metric_is_remembered_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fed = personalized(tolerance=0.0)
    client = client_of(fed, tmp_path, round=4)
    monkeypatch.setattr(type(client), "validate", lambda self, model: 41 / 60)
    client.store["memory"] = {"best": torch.tensor(41 / 60, dtype=torch.float64), "done": torch.tensor(0)}
    assert fed.strategy.may_prune(client.model(fed.shared), client)


def test_a_client_prunes_only_near_its_best_validation_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fed = personalized()
    generation, answers = 0, []
    # round 4 opens an event: missed by 0.2, then by 0.04 of the best; round 12 opens the next
    for t, metric in ((1, 0.8), (2, 0.9), (4, 0.7), (5, 0.86), (6, 0.9), (12, 0.9)):
        client = client_of(fed, tmp_path, round=t, generation=generation)
        monkeypatch.setattr(type(client), "validate", lambda self, model, value=metric: value)
        answers.append(fed.strategy.may_prune(client.model(fed.shared), client))
        generation = client.store.commit()
    assert answers == [False, False, False, True, False, True]


def test_an_error_may_be_a_fifth_worse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fed = personalized()
    strategy = fed.strategy.bind(replace(fed.setup, higher_is_better=False))
    client = client_of(fed, tmp_path, round=4)
    client.store["memory"] = {"best": torch.tensor(10.0), "done": torch.tensor(0)}
    monkeypatch.setattr(type(client), "validate", lambda self, model: 12.5)
    assert not strategy.may_prune(client.model(fed.shared), client)
    monkeypatch.setattr(type(client), "validate", lambda self, model: 11.9)
    assert strategy.may_prune(client.model(fed.shared), client)


def test_it_looks_at_validation_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fed = personalized(rounds=3, first=0.0, interval=0.3)
    looked: list[str] = []
    original = type(client_of(fed, tmp_path)).part

    def part(self: Any, name: str) -> Any:
        looked.append(name)
        return original(self, name)

    client = client_of(fed, tmp_path)
    monkeypatch.setattr(type(client), "part", part)
    reply = fed.strategy.train(Payload(fed.shared), client)
    assert reply.info["pruned"] == 1
    assert set(looked) == {"train", "validation"}


def test_each_weight_is_averaged_over_its_holders_without_sample_weights() -> None:
    fed = personalized()
    state, name = fed.strategy.init(fed.shared, fed.nodes), fed.setup.maskable[0]
    first, second = (
        torch.zeros_like(fed.shared[name], dtype=torch.bool),
        torch.zeros_like(fed.shared[name], dtype=torch.bool),
    )
    first[0, :2], second[0, 1:3] = True, True
    made = [
        Reply(
            node,
            Payload(masks.apply({**fed.shared, name: torch.full_like(fed.shared[name], value)}, {name: m}), {name: m}),
        )
        for node, m, value in ((fed.nodes[0], first, 1.0), (fed.nodes[1], second, 3.0))
    ]
    after = fed.strategy.merge(state, made, Task("train", 1, fed.nodes[:2]))
    assert after.weights[name][0, :3].tolist() == [1.0, 2.0, 3.0]
    assert torch.equal(after.weights[name][1:], fed.shared[name][1:])  # nobody holds it: it keeps its value
    assert torch.equal(after.of(fed.nodes[0])[name], first)
    assert fed.strategy.send(after, fed.nodes[0], Task("train", 2, fed.nodes)).masks[name].count == 2


def test_a_pruned_weight_stays_zero_through_training_and_recovery(tmp_path: Path) -> None:
    fed = personalized(rounds=3, first=0.0, interval=0.3)
    reply = fed.strategy.train(Payload(fed.shared), client_of(fed, tmp_path))
    for name, mask in reply.masks.items():
        assert not reply.weights[name][~mask.dense()].any()


@pytest.mark.parametrize("kept", ["local", "global"])
def test_the_personal_model_is_the_trained_one_or_the_global_under_the_mask(kept: str, tmp_path: Path) -> None:
    fed = personalized(personal_model=kept)
    client = client_of(fed, tmp_path)
    reply = fed.strategy.train(Payload(fed.shared), client)
    name = fed.setup.maskable[0]
    mask = torch.zeros_like(fed.shared[name], dtype=torch.bool)
    model = fed.strategy.personal(Payload(fed.shared, {name: mask}), client)
    found = model.state_dict()[name]
    assert torch.equal(found, reply.weights[name]) if kept == "local" else not found.any()

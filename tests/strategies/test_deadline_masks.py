"""Deadline masks: who gets how much, and what becomes of what nobody holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from federations import built, client_of

from fedsparse import masks
from fedsparse.strategy import Reply, Task


def bounded(densities: dict[int, float], **options: Any) -> Any:
    """A federation whose planner gives each client a density by its number."""
    fed = built(strategy={"name": "deadline_masks", **options})
    planner: Any = SimpleNamespace(densest=lambda node: densities[node.id])
    return replace(fed, strategy=fed.strategy.bind(replace(fed.setup, planning=lambda: planner)))


def exchanged(fed: Any, tmp: Path) -> Any:
    """(what was sent, what came back, the next state) of a round."""
    strategy, task = fed.strategy, Task("train", 1, fed.nodes)
    state = strategy.init(fed.shared, fed.nodes)
    sent = [strategy.send(state, n, task) for n in fed.nodes]
    replies = [Reply(n, strategy.train(p, client_of(fed, tmp, n.id))) for n, p in zip(fed.nodes, sent, strict=True)]
    return sent, replies, strategy.merge(state, replies, task)


def test_a_client_gets_its_share_of_the_largest_weights_and_masks_are_nested(tmp_path: Path) -> None:
    fed = bounded({0: 0.1, 1: 0.3, 2: 0.3, 3: 1.0})
    sent, replies, _ = exchanged(fed, tmp_path)
    sparse, denser, _, whole = (masks.bits(payload) for payload in sent)
    total = sum(fed.setup.sizes.values())
    assert [masks.count(sparse), masks.count(denser), whole] == [round(0.1 * total), round(0.3 * total), {}]
    assert all(not (sparse[n] & ~denser[n]).any() for n in sparse)
    inside = torch.cat([fed.shared[n].abs()[m] for n, m in sparse.items()])
    outside = torch.cat([fed.shared[n].abs()[~m] for n, m in sparse.items()])
    assert inside.min() >= outside.max()
    assert all(not replies[0].payload.weights[n][~m].any() for n, m in sparse.items())


def test_what_nobody_holds_keeps_its_value_and_the_rest_is_its_holders_mean(tmp_path: Path) -> None:
    fed = bounded({0: 0.1, 1: 0.1, 2: 0.1, 3: 0.2})
    sent, replies, after = exchanged(fed, tmp_path)
    name = "fc1.weight"
    few, some = (masks.bits(payload)[name] for payload in (sent[0], sent[3]))
    assert torch.equal(after.weights[name][~some], fed.shared[name][~some])
    assert torch.equal(after.weights[name][some & ~few], replies[3].payload.weights[name][some & ~few])
    mean = sum(r.examples * r.payload.weights[name].double() for r in replies) / sum(r.examples for r in replies)
    assert torch.allclose(after.weights[name][few], mean[few].float())


def test_no_client_gets_more_than_the_largest_density() -> None:
    fed = bounded({0: 0.1, 1: 0.3, 2: 0.3, 3: 1.0}, density=0.25)
    state, task = fed.strategy.init(fed.shared, fed.nodes), Task("train", 1, fed.nodes)
    densities = [masks.density(masks.bits(fed.strategy.send(state, n, task)), fed.setup.sizes) for n in fed.nodes]
    assert [round(d, 3) for d in densities] == [0.1, 0.25, 0.25, 0.25]

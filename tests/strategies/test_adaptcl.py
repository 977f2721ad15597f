"""AdaptCL: what clients hold, how the server learns it from their times, and what it makes of their replies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federations import built, client_of
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.channels import Channels
from fedsparse.models.cnn import CNN
from fedsparse.payload import Grid, Payload
from fedsparse.planner import Planner
from fedsparse.pruned_rate import nearest
from fedsparse.sections import Clock, Train
from fedsparse.strategies._ranked import by_scale, first
from fedsparse.strategies.adaptcl import AdaptCL
from fedsparse.strategy import Node, Reply, Setup, State, Task

CONVOLUTIONS = {"name": "cnn", "norm": "batch", "channels": [6, 10], "hidden": 8}
NORMS = ("norm1.weight", "norm2.weight")


def adaptcl(model: Any = CONVOLUTIONS, **options: Any) -> Any:
    return built(model=model, strategy={"name": "adaptcl", "interval": 1, **options})


def scaled(weights: Any, seed: int = 0) -> dict[str, torch.Tensor]:
    """The weights with BatchNorm scales as training leaves them."""
    draw = torch.Generator().manual_seed(seed)
    return {n: w + 0.1 * torch.randn(w.shape, generator=draw) if n in NORMS else w for n, w in weights.items()}


def played(strategy: Any, state: State, rounds: int, clock: Callable[[Node, Payload, int], float]) -> list[State]:
    """The states after each round, of replies that only took time."""
    states = []
    for t in range(1, rounds + 1):
        task = Task("train", t, strategy.setup.nodes)
        sent = {node: strategy.send(state, node, task) for node in task.cohort}
        replies = [Reply(n, Payload(), sim_seconds=clock(n, p, t)) for n, p in sent.items()]
        state = strategy.merge(state, [r for r in replies if r.sim_seconds < 1e9], task)
        states.append(state)
    return states


def cost(strategy: Any, payload: Payload) -> float:
    """FLOPs and bytes of a sub-model in the seconds of a device that mostly computes, with some latency."""
    channels = strategy.setup.channels
    kept = channels.kept(payload.masks)
    return 0.04 + 600 * strategy.setup.planner.flops(kept) / 2.5e9 + 4 * channels.numbers(kept) / 8e5


# ---- what clients hold ----


@pytest.mark.parametrize("unit", ["flops", "parameters", "width"])
def test_a_sub_model_is_the_nearest_to_its_retention_and_lies_within_any_larger_one(unit: str) -> None:
    strategy = adaptcl(unit=unit, floor=0.01).strategy
    weights = scaled(built(model=CONVOLUTIONS).shared)
    channels = strategy.setup.channels
    order = by_scale(channels, weights)
    whole = strategy.amount(channels.whole())
    shares = [strategy.amount(first(channels, order, units)) / whole for units in range(2, 17)]
    assert shares == sorted(set(shares)) and shares[-1] == 1.0
    for wanted in (0.01, 0.2, 0.5, 0.77, 1.0):
        units = nearest(wanted, lambda k: shares[k - 2], 2, 16)
        assert abs(shares[units - 2] - wanted) == min(abs(share - wanted) for share in shares)
    kept = [torch.cat(list(first(channels, order, units).values())) for units in range(2, 17)]
    assert all(bool((small <= large).all()) for small, large in zip(kept, kept[1:], strict=False))


def test_channels_are_ranked_by_their_scale_over_all_layers_and_each_layer_keeps_its_best() -> None:
    fed = adaptcl()
    weights = dict(fed.shared)
    weights["norm1.weight"] = torch.tensor([0.1, -0.3, 0.2, 0.1, 0.1, 0.1])  # all below any of the second
    weights["norm2.weight"] = torch.arange(1.0, 11.0)
    order = by_scale(fed.setup.channels, weights)
    assert order.tolist() == [1, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 2, 0, 3, 4, 5]
    kept = first(fed.setup.channels, order, 4)
    assert kept["conv1"].nonzero().flatten().tolist() == [1]
    assert kept["conv2"].nonzero().flatten().tolist() == [7, 8, 9]
    assert bool(kept["fc1"].all())  # no BatchNorm scales it


def test_it_never_falls_below_the_floor() -> None:
    fed = adaptcl(floor=0.4)
    state = played(fed.strategy, State(scaled(fed.shared)), 6, lambda node, p, t: 1.0 if node.id == 0 else 100.0)[-1]
    held = [float(state.of(node)["retention"]) for node in fed.nodes]
    assert held[0] == 1.0 and held[1:] == [pytest.approx(0.4, abs=0.1)] * 3 and min(held) >= 0.4


def test_the_order_is_fixed_at_the_first_event() -> None:
    fed = adaptcl(interval=2)
    states = played(fed.strategy, State(scaled(fed.shared)), 2, lambda node, p, t: 1.0 + node.id)
    assert "order" not in states[0].clients
    again = played(fed.strategy, replace(states[1], weights=scaled(fed.shared, 1)), 2, lambda node, p, t: 1.0 + node.id)
    assert torch.equal(again[-1].clients["order"], states[1].clients["order"])
    assert not torch.equal(by_scale(fed.setup.channels, again[-1].weights), states[1].clients["order"])


def test_what_travels_are_rows_and_columns(tmp_path: Path) -> None:
    fed = adaptcl()
    state = played(fed.strategy, State(scaled(fed.shared)), 1, lambda node, p, t: 1.0 + node.id)[-1]
    sent = fed.strategy.send(state, fed.nodes[3], Task("train", 2, fed.nodes))
    assert sent.masks and all(isinstance(mask, Grid) for mask in sent.masks.values())
    reply = fed.strategy.train(sent, client_of(fed, tmp_path, 3))
    assert {n: m.count for n, m in reply.masks.items()} == {n: m.count for n, m in sent.masks.items()}
    assert all(isinstance(mask, Grid) for mask in reply.masks.values())
    assert 0 < reply.info["width"] < 1
    for name, mask in reply.masks.items():
        assert not reply.weights[name][~torch.as_tensor(mask.dense())].any()
    assert any(not torch.equal(reply.weights[n], sent.weights[n]) for n in reply.masks)
    assert fed.strategy.send(state, fed.nodes[0], Task("train", 2, fed.nodes)) is state.payload


def test_the_global_model_is_what_a_quorum_holds() -> None:
    fed = adaptcl(quorum=0.5)
    assert fed.strategy.global_model(State(fed.shared)).masks == {}
    state = played(fed.strategy, State(scaled(fed.shared)), 1, lambda node, p, t: 1.0 + node.id)[-1]
    sent = [fed.strategy.send(state, node, Task("train", 2, fed.nodes)) for node in fed.nodes]
    for quorum, node in ((0.25, 0), (0.5, 1), (0.75, 2), (0.8, 3), (1.0, 3)):
        model, theirs = fed.strategy.replace(quorum=quorum).global_model(state), sent[node]
        assert {n: m.count for n, m in model.masks.items()} == {n: m.count for n, m in theirs.masks.items()}
    assert len({tuple(m.count for m in p.masks.values()) for p in sent}) == 3  # the floor of a step


# ---- what the server learns ----


@cache
def setup_of_pictures() -> tuple[Setup, dict[str, torch.Tensor]]:
    """The CNN on pictures of 28 x 28, five clients, and its weights."""
    torch.manual_seed(0)
    net = CNN(norm="batch").build((1, 28, 28), 10)
    channels, nodes = Channels.of(net, (1, 28, 28)), tuple(Node(i, 600, "phone") for i in range(5))
    planner = Planner(nodes, net, torch.zeros(1, 1, 28, 28), Train(), Clock(), lambda: channels)
    return Setup(nodes=nodes, cutting=lambda: channels, planning=lambda: planner), net.state_dict()


@pytest.mark.parametrize("slower", [1.3, 2.0, 5.0])
def test_after_three_adaptations_all_take_as_long_as_the_fastest(slower: float) -> None:
    setup, weights = setup_of_pictures()
    strategy, nodes = AdaptCL(interval=1).bind(setup), setup.nodes
    times: dict[int, dict[int, float]] = {}

    def clock(node: Node, payload: Payload, t: int) -> float:
        found = (1 + (slower - 1) * node.id / 4) * cost(strategy, payload)
        times.setdefault(t, {})[node.id] = found
        return found

    states = played(strategy, State(scaled(weights)), 6, clock)
    for t in (4, 5, 6):
        assert max(times[t].values()) <= 1.15 * times[t][0] and min(times[t].values()) >= 0.85 * times[t][0]
    held = [float(states[-1].of(node)["retention"]) for node in nodes]
    assert held[0] == 1.0 and held == sorted(held, reverse=True)
    assert states[-1].stats["spread"] <= 1.15 / 0.85 < slower + 0.1
    assert states[-1].stats["retention_min"] == held[-1]


def test_a_client_whose_speed_changes_is_followed_down_and_up_again() -> None:
    fed = adaptcl({**CONVOLUTIONS, "channels": [16, 32]}, floor=0.05)
    speed = {1: lambda t: 3.0 if t <= 6 or t > 12 else 1.2}

    def clock(node: Node, payload: Payload, t: int) -> float:
        return speed.get(node.id, lambda t: 1.0)(t) * cost(fed.strategy, payload)

    states = played(fed.strategy, State(scaled(fed.shared)), 18, clock)
    held = [float(state.of(fed.nodes[1])["retention"]) for state in states]
    assert held[5] < 0.45 and held[11] > 0.7 and held[17] == pytest.approx(held[5], abs=0.1)
    assert all(state.stats["spread"] < 1.2 for state in (states[5], states[11], states[17]))


def test_who_never_answers_is_late_and_who_took_no_time_is_left_alone() -> None:
    fed = adaptcl(interval=2, max_prune=0.5)
    late = fed.nodes[2].id
    states = played(fed.strategy, State(scaled(fed.shared)), 4, lambda node, p, t: 2e9 if node.id == late else 1.0)
    held = [float(state.of(fed.nodes[2]).get("retention", 1.0)) for state in states]
    assert held == [1.0, *[pytest.approx(0.5, abs=0.1)] * 2, pytest.approx(0.25, abs=0.1)]
    assert float(states[-1].of(fed.nodes[0])["retention"]) == 1.0
    none = played(fed.strategy, State(scaled(fed.shared)), 4, lambda node, p, t: 0.0)[-1]
    assert none.stats == {"retention": 1.0, "retention_min": 1.0}


def test_the_mean_of_an_interval_counts() -> None:
    fed = adaptcl({**CONVOLUTIONS, "channels": [16, 32]}, interval=2, unit="width")
    state = played(
        fed.strategy, State(scaled(fed.shared)), 2, lambda node, p, t: 1.0 if node.id else 1.0 + 2.0 * (t == 1)
    )[-1]
    assert [float(state.of(node)["retention"]) for node in fed.nodes] == [0.5, 1.0, 1.0, 1.0]  # (3 + 1) / 2 against 1


# ---- the mean ----


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(2, 16), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_both_means_equal_a_dense_reference(units: list[int], seed: int) -> None:
    fed = federation_once()
    draw = np.random.default_rng(seed)
    weights = {n: torch.from_numpy(draw.normal(size=t.shape).astype(np.float32)) for n, t in fed.shared.items()}
    nodes = [Node(i, int(n), "a") for i, n in enumerate(draw.integers(1, 99, 4))]
    order = by_scale(fed.setup.channels, weights)
    for absent in ("unheld", "zero"):
        replies = []
        for node, count in zip(nodes, units, strict=False):
            grids = fed.setup.channels.masks(first(fed.setup.channels, order, count))
            own = {n: torch.from_numpy(draw.normal(size=t.shape).astype(np.float32)) for n, t in weights.items()}
            own = {n: t * torch.as_tensor(grids[n].dense()) if n in grids else t for n, t in own.items()}
            replies.append(Reply(node, Payload(own, grids, absent=absent)))
        merged = fed.strategy.merge(State(weights), replies, Task("train", 1, ())).weights
        for name, old in weights.items():
            held = [r.payload.masks[name].dense() if name in r.payload.masks else np.ones(old.shape) for r in replies]
            share = [r.examples * np.asarray(h, dtype=float) for r, h in zip(replies, held, strict=True)]
            total = sum(s * r.payload.weights[name].double().numpy() for s, r in zip(share, replies, strict=True))
            whole = sum(share) if absent == "unheld" else np.full(old.shape, sum(r.examples for r in replies))
            expected = np.where(whole > 0, total / np.maximum(whole, 1e-300), old.double().numpy())
            np.testing.assert_allclose(merged[name].numpy(), expected.astype(np.float32), rtol=1e-6)


@cache
def federation_once() -> Any:
    return adaptcl(interval=99, aggregation="unit")


@pytest.mark.parametrize(
    ("aggregation", "expected"), [("unit", (3.0, 0.0)), ("worker", (1.5, 0.0)), ("damped", (1.5, 0.5))]
)
def test_a_channel_that_only_half_of_the_data_hold(
    aggregation: str, expected: tuple[float, float], tmp_path: Path
) -> None:
    fed = adaptcl(aggregation=aggregation)
    order = by_scale(fed.setup.channels, scaled(fed.shared))
    grids = fed.setup.channels.masks(first(fed.setup.channels, order, 8))
    replies = []
    for node, cut in ((Node(0, 50, "a"), {}), (Node(1, 50, "a"), grids)):
        absent = fed.strategy.train(Payload(fed.shared, cut), client_of(fed, tmp_path, node.id)).absent
        full = {n: torch.full_like(w, 3.0) for n, w in fed.shared.items()}
        full = {n: w * torch.as_tensor(cut[n].dense()) if n in cut else w for n, w in full.items()}
        replies.append(Reply(node, Payload(full, cut, absent=absent), sim_seconds=1.0))
    after = fed.strategy.merge(State(fed.shared), replies, Task("train", 1, fed.nodes[:2])).weights
    held = torch.as_tensor(grids["conv2.weight"].dense())
    assert after["conv2.weight"][held].unique().tolist() == [3.0]
    new, old = expected  # of the weight that came, and of the one that was there
    assert torch.allclose(after["conv2.weight"][~held], new + old * fed.shared["conv2.weight"][~held])


# ---- the client ----


def test_whole_models_train_as_in_fedavg(tmp_path: Path) -> None:
    fed, plain = adaptcl(), built(model=CONVOLUTIONS)
    mine = fed.strategy.train(Payload(fed.shared), client_of(fed, tmp_path / "a"))
    theirs = plain.strategy.train(Payload(plain.shared), client_of(plain, tmp_path / "b"))
    assert not mine.masks and all(torch.equal(mine.weights[n], w) for n, w in theirs.weights.items())


def test_the_penalty_pulls_the_scales_down(tmp_path: Path) -> None:
    total = {}
    for penalty in (0.0, 0.05):
        fed = adaptcl(penalty=penalty)
        reply = fed.strategy.train(Payload(fed.shared), client_of(fed, tmp_path / str(penalty)))
        total[penalty] = sum(float(reply.weights[n].abs().sum()) for n in NORMS)
    assert total[0.05] < total[0.0]


def test_without_batchnorm_it_is_fedavg() -> None:
    fed = adaptcl({"name": "mlp"})
    state = played(fed.strategy, State(fed.shared), 3, lambda node, p, t: 1.0 + node.id)[-1]
    assert all(fed.strategy.send(state, node, Task("train", 4, fed.nodes)) is state.payload for node in fed.nodes)

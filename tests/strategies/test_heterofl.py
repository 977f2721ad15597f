"""HeteroFL and FedRolex: what is cut, what is trained, and what the server makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federations import SMALL, built, client_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import fedsparse
from fedsparse.errors import InputError
from fedsparse.payload import Grid, Payload
from fedsparse.strategy import Reply, Task

MIXED = {"fast": {"share": 0.5}, "slow": {"share": 0.5}}
HALF = {"fast": 1.0, "slow": 0.5}
NORM = {"name": "cnn", "channels": [4, 6], "hidden": 8, "norm": "batch"}


def heterofl(name: str = "heterofl", model: Any = "mlp", **options: Any) -> Any:
    """Two fast clients with the whole model, two slow ones with half of its units."""
    return built(model=model, devices=MIXED, strategy={"name": name, "tiers": HALF, **options})


def sent(fed: Any, tier: str, t: int = 1) -> Any:
    """(a client's node, what it receives in round `t`)."""
    node = next(n for n in fed.nodes if n.device == tier)
    return node, fed.strategy.send(fed.strategy.init(fed.shared, fed.nodes), node, Task("train", t, fed.nodes))


# ---- the mean ----


@st.composite
def held(draw: Any) -> tuple[list[tuple[int, np.ndarray, list[np.ndarray | None]]], np.ndarray]:
    """What some clients reply of one matrix (examples, values, axes), and what the server has."""
    shape = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    numbers = st.integers(-8, 8).map(float)

    def matrix() -> np.ndarray:
        return np.array(draw(st.lists(numbers, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))).reshape(
            shape
        )

    def axis(size: int) -> np.ndarray | None:
        return draw(st.none() | st.lists(st.booleans(), min_size=size, max_size=size).map(np.array))

    replies = [(draw(st.integers(1, 9)), matrix(), [axis(n) for n in shape]) for _ in range(draw(st.integers(1, 4)))]
    return replies, matrix()


@given(held())
@settings(max_examples=60, deadline=None)
def test_the_mean_of_sub_models_is_that_of_each_weights_holders(case: Any) -> None:
    replies, before = case
    fed = heterofl()
    name, state = "fc1.weight", fed.strategy.init({"fc1.weight": torch.tensor(before, dtype=torch.float32)}, fed.nodes)
    made, expected = [], np.empty_like(before)
    masks = [
        np.outer(*(np.ones(n, bool) if a is None else a for a, n in zip(axes, before.shape, strict=True)))
        for _, _, axes in replies
    ]
    for node, (examples, values, axes), mask in zip(fed.nodes, replies, masks, strict=False):
        grid = Grid(before.shape, tuple(None if a is None else torch.tensor(a) for a in axes))
        held = {name: grid} if any(a is not None for a in axes) else {}
        payload = Payload({name: torch.tensor(values * mask, dtype=torch.float32)}, held)
        made.append(Reply(replace(node, examples=examples), payload))
    for i in np.ndindex(before.shape):
        holders = [(examples, values[i]) for (examples, values, _), mask in zip(replies, masks, strict=True) if mask[i]]
        total = sum(n for n, _ in holders)
        expected[i] = sum(n * v for n, v in holders) / total if total else before[i]
    after = fed.strategy.merge(state, made, Task("train", 1, fed.nodes))
    assert np.allclose(after.weights[name].numpy(), expected, atol=1e-6)


def test_what_nobody_holds_keeps_its_value(tmp_path: Path) -> None:
    fed = built(strategy={"name": "heterofl", "tiers": {"default": 0.5}})
    strategy, task = fed.strategy, Task("train", 1, fed.nodes)
    state = strategy.init(fed.shared, fed.nodes)
    replies = [
        Reply(n, strategy.train(strategy.send(state, n, task), client_of(fed, tmp_path, n.id))) for n in fed.nodes
    ]
    after = strategy.merge(state, replies, task).weights
    assert torch.equal(after["fc1.weight"][64:], fed.shared["fc1.weight"][64:])
    assert torch.equal(after["fc2.weight"][:, 64:], fed.shared["fc2.weight"][:, 64:])
    assert not torch.equal(after["fc1.weight"][:64], fed.shared["fc1.weight"][:64])


def test_at_full_width_and_without_its_additions_it_is_fedavg_to_the_bit(tmp_path: Path) -> None:
    plain = {"tiers": {"default": 1.0}, "static_bn": False, "masked_loss": False}
    hashes = {
        name: fedsparse.run({**SMALL, "model": NORM}, strategy={"name": name, **options}, out=tmp_path / name).info[
            "model_hash"
        ]
        for name, options in {"fedavg": {}, "heterofl": plain, "fedrolex": plain}.items()
    }
    assert len(set(hashes.values())) == 1 and hashes["fedavg"]


# ---- a round ----


def test_slow_clients_get_less_of_everything(tmp_path: Path) -> None:
    run = fedsparse.run(
        {**SMALL, "model": NORM, "devices": MIXED},
        rounds=2,
        strategy={"name": "heterofl", "tiers": HALF},
        out=tmp_path / "run",
    )
    assert not run.layers.duplicated(["round", "layer"]).any()
    trained = run.clients[run.clients["phase"] == "train"].groupby("device")
    assert trained["x_width"].min().to_dict() == trained["x_width"].max().to_dict() == {"fast": 1.0, "slow": 0.5}
    down = run.messages.query("direction == 'down' and phase == 'train' and round == 1")
    sent = down.groupby(down["client"].map(run.clients.groupby("client")["device"].first()))["bytes"].mean()
    assert sent["slow"] < 0.4 * sent["fast"]
    assert run.rounds["density"].between(0.5, 0.7).all()  # the mean of 1 and of about 1/4
    measured = run.clients[run.clients["phase"] == "statistics"]
    assert set(measured["device"]) == {"fast"} and set(measured["steps"]) == {0}  # those with the widest model


def test_a_tier_that_is_not_there_and_a_width_that_is_not_offered_are_refused() -> None:
    with pytest.raises(InputError, match="'huge'.*fast, slow"):
        heterofl(tiers={"huge": 1.0})
    with pytest.raises(InputError, match="width 0.3"):
        heterofl(tiers={"slow": 0.3})


# ---- a client ----


def test_outputs_of_labels_that_a_client_lacks_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fed = heterofl()
    node, received = sent(fed, "slow")
    client = client_of(fed, tmp_path, node.id)
    x, y = client.part("train")
    rows = (y == 3) | (y == 7)
    monkeypatch.setattr(type(client), "part", lambda self, name: (x[rows], y[rows]))
    reply = fed.strategy.train(received, client)
    head = reply.masks["fc3.weight"].dense()
    assert torch.as_tensor(head).any(1).nonzero().flatten().tolist() == [3, 7]
    assert int(head.sum()) == 2 * 32 and reply.masks["fc3.bias"].count == 2
    others = fed.strategy.replace(masked_loss=False).train(received, client_of(fed, tmp_path / "2", node.id))
    assert not torch.equal(others.weights["fc3.bias"][0], fed.shared["fc3.bias"][0])


def test_the_scaler_divides_by_the_share_of_units(tmp_path: Path) -> None:
    fed = heterofl()
    node, received = sent(fed, "slow")
    client, w = client_of(fed, tmp_path, node.id), fed.shared
    x = client.part("train")[0][:5]
    hidden = functional.relu((x.flatten(1) @ w["fc1.weight"][:64].T + w["fc1.bias"][:64]) / 0.5)
    hidden = functional.relu((hidden @ w["fc2.weight"][:32, :64].T + w["fc2.bias"][:32]) / 0.5)
    expected = hidden @ w["fc3.weight"][:, :32].T + w["fc3.bias"]
    assert torch.allclose(fed.strategy.cut(received, client)(x), expected, atol=1e-5)
    unscaled = fed.strategy.replace(scaler=False).cut(received, client)(x)
    assert not torch.allclose(unscaled, expected, atol=1e-3)


def test_running_statistics_are_left_alone_in_training_and_measured_afterwards(tmp_path: Path) -> None:
    fed = built(model=NORM, devices=MIXED, strategy={"name": "heterofl", "tiers": HALF}, train={"batch_size": 10_000})
    node, received = sent(fed, "slow")
    trained = fed.strategy.train(received, client_of(fed, tmp_path, node.id))
    kept = torch.as_tensor(received.masks["norm1.running_mean"].dense())
    assert torch.equal(trained.weights["norm1.running_mean"][kept], fed.shared["norm1.running_mean"][kept])
    assert not torch.equal(trained.weights["norm1.weight"][kept], fed.shared["norm1.weight"][kept])
    client = client_of(fed, tmp_path / "2", node.id)
    told = fed.strategy.statistics(received, client)
    assert set(told.weights) == {f"norm{i}.running_{kind}" for i in (1, 2) for kind in ("mean", "var")}
    x = client.part("train")[0]
    maps = functional.conv2d(x, fed.shared["conv1.weight"][:2], padding=1) / 0.5  # one batch; the scaler comes first
    assert torch.allclose(told.weights["norm1.running_mean"][:2], maps.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(told.weights["norm1.running_var"][:2], maps.transpose(0, 1).flatten(1).var(1), rtol=1e-4)


# ---- fedrolex ----


def test_the_window_rolls_by_a_unit_a_round_until_all_were_in_it() -> None:
    fed = heterofl("fedrolex")
    size = 128  # of fc1, the largest group
    windows = [torch.as_tensor(sent(fed, "slow", t)[1].masks["fc1.bias"].dense()) for t in range(1, size + 1)]
    assert windows[0].nonzero().flatten().tolist() == list(range(64))
    assert windows[1].nonzero().flatten().tolist() == list(range(1, 65))
    assert windows[100].nonzero().flatten().tolist() == [*range(36), *range(100, 128)]
    assert [int(n) for n in torch.stack(windows).sum(0).unique()] == [64]  # each unit in as many windows as any other

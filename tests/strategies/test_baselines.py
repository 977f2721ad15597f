"""The baselines: each does what it is compared for, on numbers that can be checked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from federations import built, client_of

from fedsparse import codec, masks
from fedsparse.errors import InputError
from fedsparse.flower import wire
from fedsparse.payload import Ids, Payload
from fedsparse.strategy import Reply, Task


def replies(fed: Any, tmp: Path, round: int = 1, state: Any = None) -> tuple[Any, list[Reply]]:
    """A state and what all clients answer to it."""
    state = state or fed.strategy.init(fed.shared, fed.nodes)
    task = Task("train", round, fed.nodes)
    answers = [
        Reply(node, fed.strategy.train(fed.strategy.send(state, node, task), client_of(fed, tmp, node.id, round)))
        for node in fed.nodes
    ]
    return state, answers


# ---- fedprox ----


def moved(fed: Any, tmp: Path, **train: Any) -> float:
    received = Payload(weights=fed.shared)
    after = fed.strategy.train(received, client_of(fed, tmp)).weights
    return float(sum(((after[n] - w) ** 2).sum() for n, w in fed.shared.items()))


def test_without_a_pull_fedprox_is_fedavg_and_with_one_it_stays_nearer(tmp_path: Path) -> None:
    plain = moved(built(), tmp_path)
    assert moved(built(strategy={"name": "fedprox", "mu": 0.0}), tmp_path) == plain
    assert moved(built(strategy={"name": "fedprox", "mu": 1.0}), tmp_path) < plain


def test_the_pull_is_the_gradient_of_the_papers_term(tmp_path: Path) -> None:
    """Two steps on one batch, by hand: the first has no pull, the second pulls with mu times the way of the first."""
    fed = built(strategy={"name": "fedprox", "mu": 0.5}, train={"batch_size": 10_000, "epochs": 2, "lr": 0.1})
    client = client_of(fed, tmp_path)
    x, y = client.part("train")
    model = fed.module(Payload(weights=fed.shared))
    start = [p.detach().clone() for p in model.parameters()]
    for _ in range(2):
        model.zero_grad()
        far = sum(((p - s) ** 2).sum() for p, s in zip(model.parameters(), start, strict=True))
        (torch.nn.functional.cross_entropy(model(x), y) + 0.25 * far).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad
    got = fed.strategy.train(Payload(weights=fed.shared), client).weights
    for name, tensor in model.state_dict().items():
        assert torch.allclose(got[name], tensor, atol=1e-5)


# ---- fedavg_ft ----


def test_fine_tuning_changes_what_a_client_uses_and_nothing_else(tmp_path: Path) -> None:
    fed, plain = built(strategy="fedavg_ft"), built()
    received = Payload(weights=fed.shared)
    a, b = (f.strategy.train(received, client_of(f, tmp_path)).weights for f in (fed, plain))
    assert all(torch.equal(a[n], b[n]) for n in a)
    client = client_of(fed, tmp_path)
    own = fed.strategy.personal(received, client)
    assert client.steps_done == -(-len(client.parts.train) // 64)  # one epoch
    assert any(not torch.equal(tensor, fed.shared[n]) for n, tensor in own.state_dict().items())


# ---- local_only ----


def test_local_only_sends_empty_messages_and_goes_on_from_its_own_model(tmp_path: Path) -> None:
    fed = built(strategy="local_only")
    strategy = fed.strategy
    client = client_of(fed, tmp_path)
    reply = strategy.train(Payload(), client)
    first = {n: t.clone() for n, t in strategy.personal(Payload(), client).state_dict().items()}
    data = wire.encode(reply, strategy.uplink_schema("train"), Ids())
    told = codec.inspect(data, strategy.uplink_schema("train"))
    assert not reply.weights and (told.values, told.mask, told.dense) == (0, 0, 0)
    client.store.commit()
    again = client_of(fed, tmp_path, round=2, generation=1)
    assert all(torch.equal(t, first[n]) for n, t in strategy.personal(Payload(), again).state_dict().items())
    strategy.train(Payload(), again)
    assert any(not torch.equal(t, first[n]) for n, t in strategy.personal(Payload(), again).state_dict().items())
    never = client_of(fed, tmp_path, id=1)
    assert all(torch.equal(t, fed.shared[n]) for n, t in strategy.personal(Payload(), never).state_dict().items())


# ---- topk_ef ----


def test_topk_sends_the_largest_and_loses_nothing(tmp_path: Path) -> None:
    fed = built(strategy={"name": "topk_ef", "density": 0.05})
    sent: dict[str, torch.Tensor] = {}
    updates: dict[str, torch.Tensor] = {}
    for t in (1, 2, 3):  # the same client three times, always from the same model
        client = client_of(fed, tmp_path, round=t, generation=t - 1)
        plain = client_of(built(), tmp_path / "plain", round=t)
        local = plain.model(fed.shared)
        plain.fit(local)
        update = {n: w - fed.shared[n] for n, w in plain.weights(local).items()}
        reply = fed.strategy.train(Payload(weights=fed.shared), client)
        client.store.commit()
        assert (reply.kind, reply.absent) == ("update", "zero")
        kept = masks.bits(reply)
        assert masks.count(kept) == round(0.05 * sum(fed.setup.sizes.values()))
        residual = client.store["residual"]
        smallest = min(float(reply.weights[n].abs()[m].min()) for n, m in kept.items() if m.any())
        assert smallest >= max(float(r.abs().max()) for r in residual.values())
        for n, w in reply.weights.items():
            sent[n] = sent.get(n, 0) + w
            updates[n] = updates.get(n, 0) + update[n]
    for n in fed.setup.maskable:
        assert torch.allclose(sent[n] + residual[n], updates[n], atol=1e-5)


def test_a_missed_round_costs_its_share_of_the_residual(tmp_path: Path) -> None:
    fed = built(strategy={"name": "topk_ef", "residual_decay": 0.5}, train={"lr": 1e-12})
    client = client_of(fed, tmp_path, round=5)
    names = fed.setup.maskable
    client.store["residual"] = {n: torch.ones(fed.setup.shapes[n]) for n in names}
    client.store["round"] = {"last": torch.tensor(2)}
    reply = fed.strategy.train(Payload(weights=fed.shared), client)
    kept = masks.bits(reply)
    values = torch.cat([reply.weights[n][kept[n]] for n in names])
    assert torch.allclose(values, torch.full_like(values, 0.25), atol=1e-6)  # rounds 3 and 4 were missed


# ---- random_erk ----


def test_a_random_mask_costs_no_bytes_either_way_and_never_changes(tmp_path: Path) -> None:
    fed = built(strategy={"name": "random_erk", "density": 0.2})
    strategy = fed.strategy
    state, answers = replies(fed, tmp_path)
    down = wire.encode(state.payload, strategy.downlink_schema("train"), Ids())
    up = wire.encode(answers[0].payload, strategy.uplink_schema("train"), Ids())
    kept = masks.count(state.masks)
    for data in (down, up):
        told = codec.inspect(data, strategy.downlink_schema("train"))
        assert told.mask == 0 and 3 * kept < told.values < 4 * kept
    after = strategy.merge(state, answers, Task("train", 1, fed.nodes))
    for name, mask in state.masks.items():
        assert torch.equal(after.masks[name], mask) and not after.weights[name][~mask].any()
    assert kept == pytest.approx(0.2 * sum(fed.setup.sizes.values()), rel=0.01)


def test_kept_weights_are_scaled_by_the_root_of_their_layers_density(tmp_path: Path) -> None:
    fed = built(strategy={"name": "random_erk", "density": 0.2})
    state = fed.strategy.init(fed.shared, fed.nodes)
    for name, mask in state.masks.items():
        share = float(mask.double().mean())
        assert torch.allclose(state.weights[name][mask], fed.shared[name][mask] / share**0.5)
    raw = built(strategy={"name": "random_erk", "density": 0.2, "rescale": False})
    assert torch.equal(raw.strategy.init(raw.shared, raw.nodes).weights[name][mask], fed.shared[name][mask])


def test_the_seed_draws_the_mask() -> None:
    one, same, other = (built(strategy="random_erk", seed=s).strategy.mask() for s in (0, 0, 1))
    assert all(torch.equal(one[n], same[n]) for n in one) and any(not torch.equal(one[n], other[n]) for n in one)


# ---- small_dense ----


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_the_thinner_net_has_its_share_of_the_weights(share: float) -> None:
    full = sum(t.numel() for t in built().shared.values())
    thin = sum(t.numel() for t in built(strategy={"name": "small_dense", "share": share}).shared.values())
    assert thin / full == pytest.approx(share, rel=0.06)


def test_the_whole_share_is_the_model_itself() -> None:
    fed, plain = built(strategy={"name": "small_dense", "share": 1.0}), built()
    assert all(torch.equal(fed.shared[n], t) for n, t in plain.shared.items())


def test_a_model_without_a_width_is_refused(tmp_path: Path) -> None:
    (tmp_path / "flat.py").write_text(
        "import math\nfrom torch import nn\nfrom fedsparse.models.base import Model\n"
        "class Flat(Model):\n    def build(self, shape, outputs):\n"
        "        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), outputs))\n"
    )
    with pytest.raises(InputError, match="small_dense needs a model with an option width, and Flat has none"):
        built(strategy="small_dense", model=f"{tmp_path}/flat.py:Flat")


# ---- feddip_released ----


def test_released_masks_are_nested_and_the_uplink_is_dense(tmp_path: Path) -> None:
    fed = built(rounds=4, strategy={"name": "feddip_released", "density": 0.1, "every": 1})
    state, kept = None, []
    for t in (1, 2, 3):
        state, answers = replies(fed, tmp_path / str(t), t, state)
        assert all(not reply.payload.masks and reply.payload.kind == "weights" for reply in answers)
        before = state.masks
        state = fed.strategy.merge(state, answers, Task("train", t, fed.nodes))
        kept.append(masks.density(state.masks, fed.setup.sizes))
        for name, mask in state.masks.items():
            assert not state.weights[name][~mask].any()
            assert name not in before or not (mask & ~before[name]).any()
        assert state.stats["regrown"] == 0
    expected = [0.1 + 0.4 * (1 - t / 4) ** 3 for t in range(3)]
    assert kept == pytest.approx(expected, abs=1e-4)


def test_the_first_masks_are_the_clients_own(tmp_path: Path) -> None:
    fed = built(strategy="feddip_released")
    one, two = (fed.strategy.first(client_of(fed, tmp_path, id)) for id in (0, 1))
    assert masks.density(one, fed.setup.sizes) == pytest.approx(0.5, abs=0.01)
    assert any(not torch.equal(one[n], two[n]) for n in one)


def test_a_share_that_no_width_has_is_refused() -> None:
    with pytest.raises(InputError, match="no width at which MLP has a share of 0.2 of its weights: the nearest has 1"):
        built(strategy={"name": "small_dense", "share": 0.2}, model={"name": "mlp", "hidden": []})

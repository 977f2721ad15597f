"""FedDIP: what is sent and what stays, what comes back, and how sparse it is when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from federations import built, client_of

from fedsparse import masks
from fedsparse.flower import wire
from fedsparse.payload import Ids, Payload
from fedsparse.sparsifiers import lamp
from fedsparse.strategy import Reply, State, Task

UPLINKS = ["dense", "masked", "masked_residual", "topk"]


def feddip(**options: Any) -> Any:
    return built(strategy={"name": "feddip", **options})


def sent_of(payload: Payload) -> dict[str, torch.Tensor]:
    """Everything that a reply carries, dense."""
    outside = payload.extra.get("outside", {})
    return {n: w + outside[n] if n in outside else w for n, w in payload.weights.items()}


@pytest.mark.parametrize("uplink", ["masked_residual", "topk"])
def test_sent_plus_new_residual_is_update_plus_old_residual_exactly(uplink: str, tmp_path: Path) -> None:
    fed = feddip(uplink=uplink)
    strategy, rng = fed.strategy, torch.Generator().manual_seed(0)
    mask = strategy.init(fed.shared, fed.nodes).masks
    generation, old = 0, {n: torch.zeros_like(fed.shared[n]) for n in mask}
    for t in (1, 2, 3):
        client = client_of(fed, tmp_path, round=t, generation=generation)
        update = {n: torch.randn(w.shape, generator=rng) for n, w in fed.shared.items()}
        reply = strategy.reply(update, mask, client)
        # through the wire, as a server would see it
        data = wire.encode(reply, strategy.uplink_schema("train"), Ids(), known={n: replied(mask[n]) for n in mask})
        sent = sent_of(wire.decode(data, strategy.uplink_schema("train"), {n: replied(mask[n]) for n in mask}))
        new = client.store["residual"]
        for name in mask:
            assert torch.equal(sent[name] + new[name], update[name] + old[name])
            assert not (sent[name].bool() & new[name].bool()).any()
        for name in set(update) - set(mask):
            assert torch.equal(sent[name], update[name])
        generation, old = client.store.commit(), new
    assert any(r.any() for r in old.values())


def replied(mask: torch.Tensor) -> Any:
    return Payload({"w": mask}, {"w": mask}).masks["w"]


def test_masked_residual_sends_the_largest_share_outside_the_mask(tmp_path: Path) -> None:
    fed = feddip(uplink="masked_residual", residual_share=0.05)
    mask = fed.strategy.init(fed.shared, fed.nodes).masks
    update = {n: torch.randn(w.shape, generator=torch.Generator().manual_seed(1)) for n, w in fed.shared.items()}
    reply = fed.strategy.reply(update, mask, client_of(fed, tmp_path))
    outside = {n: reply.masks[f"outside/{n}"].dense() for n in mask}
    assert masks.count(outside) == round(0.05 * sum(fed.setup.sizes.values()))
    assert not any((outside[n] & mask[n]).any() for n in mask)
    left = max(float(update[n].abs()[~outside[n] & ~mask[n]].max()) for n in mask)
    assert min(float(update[n].abs()[outside[n]].min()) for n in mask if outside[n].any()) >= left


def test_a_client_that_missed_rounds_forgets_by_the_decay(tmp_path: Path) -> None:
    fed = feddip(uplink="topk", residual_decay=0.5)
    mask = fed.strategy.init(fed.shared, fed.nodes).masks
    first = client_of(fed, tmp_path, round=1)
    fed.strategy.reply({n: torch.ones_like(w) for n, w in fed.shared.items()}, mask, first)
    residual, generation = first.store["residual"], first.store.commit()
    zero = {n: torch.zeros_like(w) for n, w in fed.shared.items()}
    later = fed.strategy.remembered(zero, client_of(fed, tmp_path, round=4, generation=generation))
    soon = fed.strategy.remembered(zero, client_of(fed, tmp_path, round=2, generation=generation))
    for name, r in residual.items():
        assert torch.equal(soon[name], r)  # sampled in the next round: nothing is forgotten
        assert torch.equal(later[name], r * 0.25)  # missed rounds 2 and 3


def test_a_pruned_weight_comes_back_when_it_is_the_larger(tmp_path: Path) -> None:
    fed = feddip(start=0.5, density=0.5)
    state = fed.strategy.init(fed.shared, fed.nodes)
    shrunk = {n: -w * 0.999 if n in state.masks else torch.zeros_like(w) for n, w in fed.shared.items()}
    update = Payload(masks.apply(shrunk, state.masks), state.masks, kind="update", absent="zero")
    after = fed.strategy.merge(state, [Reply(fed.nodes[0], update)], Task("train", 1, fed.nodes[:1]))
    assert after.stats["regrown"] == masks.changed(state.masks, after.masks) > 0.4 * masks.count(after.masks)
    for name, mask in state.masks.items():  # what was pruned has kept its value at the server
        assert torch.equal(after.weights[name][~mask], fed.shared[name][~mask])


def test_density_follows_the_cubic_schedule_and_is_exact() -> None:
    fed = built(rounds=40, strategy={"name": "feddip"})
    total = sum(fed.setup.sizes.values())
    for t, expected in ((1, 0.5), (16, 0.1 + 0.4 * (1 - 15 / 30) ** 3), (31, 0.1), (41, 0.1)):
        assert masks.count(fed.strategy.mask(fed.shared, t)) == round(expected * total)


@pytest.mark.parametrize("uplink", UPLINKS)
def test_with_a_full_mask_every_uplink_is_fedavg(uplink: str, tmp_path: Path) -> None:
    fed, plain = feddip(uplink=uplink, start=1.0, density=1.0, penalty=0.0), built()
    state = fed.strategy.init(fed.shared, fed.nodes)
    task = Task("train", 1, fed.nodes)
    replies = [Reply(n, fed.strategy.train(state.payload, client_of(fed, tmp_path, n.id))) for n in fed.nodes]
    mine = fed.strategy.merge(state, replies, task)
    base = State(plain.shared)
    averaged = plain.strategy.merge(
        base,
        [Reply(n, plain.strategy.train(base.payload, client_of(plain, tmp_path, n.id))) for n in plain.nodes],
        task,
    )
    for name, w in averaged.weights.items():
        torch.testing.assert_close(mine.weights[name], w, atol=1e-6, rtol=1e-5)


def test_the_penalty_pulls_the_kept_weights_to_zero(tmp_path: Path) -> None:
    norms = []
    for penalty in (0.0, 5.0):
        fed = feddip(penalty=penalty)
        state = fed.strategy.init(fed.shared, fed.nodes)
        client = client_of(fed, tmp_path, round=3)
        reply = fed.strategy.train(state.payload, client)
        after = {n: state.weights[n] * m + reply.weights[n] for n, m in state.masks.items()}
        norms.append(sum(float(w.norm()) for w in after.values()))
    assert norms[1] < norms[0]


def test_the_last_round_draws_a_mask_of_the_target_density(tmp_path: Path) -> None:
    fed = feddip(every=10, density=0.1)
    state = fed.strategy.init(fed.shared, fed.nodes)
    for t in (1, 2, 3):
        state = fed.strategy.merge(state, [], Task("train", t, fed.nodes))
    assert masks.count(state.masks) == round(0.1 * sum(fed.setup.sizes.values()))


def test_lamp_weighs_a_weight_against_those_of_its_layer_that_are_not_smaller() -> None:
    weights = {"big": torch.tensor([[3.0, -1.0], [2.0, 0.0]]), "small": torch.tensor([0.1, 0.2])}
    scores = lamp.score(weights, weights)
    assert torch.allclose(scores["big"], torch.tensor([[1.0, 1 / 14], [4 / 13, 0.0]], dtype=torch.float64))
    assert torch.allclose(scores["small"], torch.tensor([0.2, 1.0], dtype=torch.float64))


def test_the_mask_settles(tmp_path: Path) -> None:
    fed = built(rounds=10, strategy={"name": "feddip", "reach": 0.3, "settle": 0.5, "score": "lamp"})
    state = fed.strategy.init(fed.shared, fed.nodes)
    for t in range(1, 11):
        noise = {
            n: w + 0.1 * torch.randn(w.shape, generator=torch.Generator().manual_seed(t)) for n, w in fed.shared.items()
        }
        update = Payload({n: noise[n] - w for n, w in state.weights.items()}, kind="update", absent="zero")
        after = fed.strategy.merge(state, [Reply(fed.nodes[0], update)], Task("train", t, fed.nodes))
        same = all(torch.equal(after.masks[n], m) for n, m in state.masks.items())
        assert same == (t > 5)
        state = after

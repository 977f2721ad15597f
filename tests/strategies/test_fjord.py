"""FjORD: nested widths in one model, what a step trains, and what it is drawn from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from federations import built, client_of
from torch.nn import functional

from fedsparse.flops import Counter
from fedsparse.payload import Payload
from fedsparse.strategies.fjord import Narrow, OrderedDropout, distillation
from fedsparse.strategy import Task

NORM = {"name": "cnn", "channels": [5, 10], "hidden": 20, "norm": "batch"}


def fjord(own: float = 0.6, model: Any = "mlp", **options: Any) -> Any:
    return built(model=model, strategy={"name": "fjord", "tiers": {"default": own}, **options})


def opened(fed: Any, tmp: Path, **how: Any) -> tuple[Any, Payload, torch.nn.Module, list[Narrow | None]]:
    """(client, what it received, its own model, its levels)."""
    client, node = client_of(fed, tmp, **how), fed.nodes[how.get("id", 0)]
    received = fed.strategy.send(fed.strategy.init(fed.shared, fed.nodes), node, Task("train", 1, fed.nodes))
    return client, received, fed.strategy.cut(received, client), fed.strategy.levels(received, client)


@pytest.mark.parametrize("model", ["mlp", NORM])
def test_levels_go_up_to_the_clients_own_and_lie_within_it(model: Any, tmp_path: Path) -> None:
    fed = fjord(model=model)
    client, received, own, levels = opened(fed, tmp_path)
    assert len(levels) == 3 and levels[-1] is None
    x = client.part("train")[0][:7]
    channels = fed.setup.channels
    for width, narrow in zip((0.2, 0.4), levels, strict=False):
        alone = channels.module(fed.shared, channels.ordered(width))  # cut from the whole, not from the client's
        assert torch.allclose(narrow(own, x), alone(x), atol=1e-5)


def test_a_narrow_width_computes_with_the_clients_weights_as_they_are_now(tmp_path: Path) -> None:
    client, _, own, levels = opened(fjord(), tmp_path)
    x = client.part("train")[0][:7]
    before = levels[0](own, x)
    with torch.no_grad():
        own.get_parameter("fc3.bias").add_(1.0)
    assert torch.allclose(levels[0](own, x), before + 1.0, atol=1e-5)


def test_distillation_reaches_the_units_of_the_narrow_width_alone(tmp_path: Path) -> None:
    client, _, own, levels = opened(fjord(), tmp_path)
    x = client.part("train")[0][:7]
    distillation(levels[0](own, x), own(x).detach(), "classification").backward()
    gradient = own.get_parameter("fc1.weight").grad  # 128 units, 77 in the client's model, 26 in the narrow one
    assert gradient.shape[0] == 77 and gradient[:26].abs().sum() > 0 and not gradient[26:].any()
    columns = own.get_parameter("fc2.weight").grad
    assert columns[:13, :26].abs().sum() > 0 and not columns[13:].any() and not columns[:, 26:].any()


def test_the_distillation_is_the_divergence_from_the_widests_answers() -> None:
    narrow, wide = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0]]).mul(torch.log(torch.tensor(3.0)))
    expected = 0.25 * torch.log(torch.tensor(0.25 / 0.5)) + 0.75 * torch.log(torch.tensor(0.75 / 0.5))
    assert torch.allclose(distillation(narrow, wide, "classification"), expected)
    assert distillation(narrow, narrow, "classification") == 0
    assert float(distillation(torch.tensor([[1.0]]), torch.tensor([[3.0]]), "regression")) == 4.0


def test_a_distilling_step_trains_the_widest_on_labels_and_another_step_does_not(tmp_path: Path) -> None:
    client, received, own, levels = opened(fjord(), tmp_path)
    x, y = (t[:7] for t in client.part("train"))
    both = OrderedDropout(client, levels[:1], distill=True).loss(own, x, y)
    answers = functional.kl_div(levels[0](own, x).log_softmax(1), own(x).softmax(1), reduction="batchmean")
    assert torch.allclose(both, client.loss(own, x, y) + answers, atol=1e-5)
    alone = OrderedDropout(client, levels[:1], distill=False).loss(own, x, y)
    assert torch.allclose(alone, functional.cross_entropy(levels[0](own, x), y))


def test_a_step_is_charged_for_what_it_ran(tmp_path: Path) -> None:
    client, _, own, levels = opened(fjord(), tmp_path)
    x, y = (t[:7] for t in client.part("train"))
    wide, narrow = Counter(own).step(x).dense, Counter(levels[0].net).step(x).dense
    assert narrow < 0.45 * wide
    for level, distill, expected in ((None, True, wide), (levels[0], True, wide + narrow), (levels[0], False, narrow)):
        dropout = OrderedDropout(client, [level], distill)
        dropout.loss(own, x, y)
        assert dropout.flops(own, x).dense == expected


def drawn(fed: Any, tmp: Path, **how: Any) -> list[int]:
    client, _, own, levels = opened(fed, tmp, **how)
    x, y = (t[:2] for t in client.part("train"))
    dropout, found = OrderedDropout(client, levels, distill=False), []
    for _ in range(60):
        dropout.loss(own, x, y)
        found.append(levels.index(dropout.drawn))
    return found


def test_widths_are_functions_of_the_seed_and_all_are_drawn(tmp_path: Path) -> None:
    first = drawn(fjord(), tmp_path)
    assert first == drawn(fjord(), tmp_path) and set(first) == {0, 1, 2}
    assert first != drawn(fjord(), tmp_path, id=1) and first != drawn(fjord(), tmp_path, round=2)


def test_with_one_width_it_is_fedavg_to_the_bit(tmp_path: Path) -> None:
    fed, plain = fjord(1.0, widths=[1.0]), built()
    a = fed.strategy.train(Payload(fed.shared), client_of(fed, tmp_path))
    b = plain.strategy.train(Payload(fed.shared), client_of(plain, tmp_path))
    assert all(torch.equal(a.weights[n], b.weights[n]) for n in b.weights)


def test_narrow_steps_leave_the_running_statistics_alone(tmp_path: Path) -> None:
    fed = fjord(model=NORM)
    client, received, _, _ = opened(fed, tmp_path)
    reply = fed.strategy.train(received, client)
    kept = torch.as_tensor(received.masks["norm2.running_var"].dense())
    assert torch.equal(reply.weights["norm2.running_var"][kept], fed.shared["norm2.running_var"][kept])
    assert fed.strategy.statistics(received, client_of(fed, tmp_path / "2")).weights["norm2.running_var"].any()

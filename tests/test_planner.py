"""What fits which client, and what a model costs: FLOPs as PyTorch's counter counts them, memory, time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from federations import built
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fedsparse import registry
from fedsparse.errors import InputError
from fedsparse.flops import Counter
from fedsparse.models.base import Model
from fedsparse.planner import Planner, entropy
from fedsparse.train import straight_through

CNN = {"name": "cnn", "norm": "batch"}
SHAPES = {
    "alexnet": (3, 32, 32), "cnn": (1, 28, 28), "cnn1d": (6, 128), "lenet5": (1, 28, 28), "mlp": (64,),
    "resnet": (3, 32, 32), "vgg": (3, 32, 32),
}  # fmt: skip


def model(name: str) -> nn.Module:
    kind: type[Model] = registry.find("models", name)
    return kind().build(SHAPES[name], 10)


@pytest.mark.parametrize("name", SHAPES)
def test_flops_are_those_of_pytorchs_counter(name: str) -> None:
    net, x = model(name).eval(), torch.randn(3, *SHAPES[name])
    with FlopCounterMode(display=False) as counter:
        net(x).sum().backward()
    found = Counter(net).step(x)
    assert found.dense == counter.get_total_flops() > 0
    assert found.sparse == pytest.approx(found.dense, rel=1e-6)  # one weight may be zero by chance
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    assert Counter(net).forward(x).dense == counter.get_total_flops()


def test_counting_changes_nothing() -> None:
    net, x = model("cnn"), torch.randn(2, 1, 28, 28)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    state = torch.get_rng_state()
    Counter(net).step(x)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert torch.equal(state, torch.get_rng_state()) and all(p.grad is None for p in net.parameters())


def test_no_samples_cost_nothing() -> None:
    net = model("cnn")
    assert (
        Counter(net).forward(torch.empty(0, 1, 28, 28)).dense == Counter(net).step(torch.empty(0, 1, 28, 28)).dense == 0
    )


def test_zeros_of_a_layer_save_its_share() -> None:
    net, x = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 24)), torch.randn(2, 8)
    with torch.no_grad():
        net[0].weight[4:] = 0.0
    found = Counter(net).forward(x)
    assert found.dense == 2 * 2 * (64 + 192) and found.sparse == pytest.approx(2 * 2 * (32 + 192))
    mask = torch.zeros(24, 8, dtype=torch.bool)
    mask[0] = True
    with straight_through(net, {"1.weight": mask}):  # the weights that it computes with count
        assert Counter(net).forward(x).sparse == pytest.approx(2 * 2 * (32 + 8))


def test_the_lstm_is_counted() -> None:
    net = registry.find("models", "lstm")(hidden=16, layers=1).build((5,), 10)
    cells = sum(p.numel() for name, p in net.lstm.named_parameters() if "weight" in name)
    assert Counter(net).forward(torch.zeros(3, 5)).dense == 2 * 3 * (5 * cells + net.fc.weight.numel())


def planned(clock: dict[str, Any] | None = None, **device: Any) -> tuple[Planner, Any]:
    fed = built(model=CNN, devices={"phone": device}, clock=clock or {})
    return fed.setup.planner, fed


def test_without_a_deadline_the_median_client_has_the_whole_model() -> None:
    planner, fed = planned(spread=10.0, flops=1e8)
    times = sorted(planner.seconds(node) for node in fed.nodes)
    assert planner.deadline == (times[1] + times[2]) / 2
    widths = {node.id: planner.widest(node, (1.0, 0.5, 0.25, 0.125)) for node in fed.nodes}
    assert sorted(widths.values())[-2:] == [1.0, 1.0] and min(widths.values()) < 1
    for node in fed.nodes:
        assert planner.seconds(node, fed.setup.channels.ordered(widths[node.id])) <= planner.deadline


def test_the_densest_model_is_just_in_time() -> None:
    planner, fed = planned({"deadline": 2.0}, flops=5e9, up=5e4, spread=3.0)
    found = {node.id: planner.densest(node) for node in fed.nodes}
    assert 0.01 < min(found.values()) < 1
    for node in fed.nodes:
        assert planner.fits(node, density=found[node.id])
        assert found[node.id] == 1 or not planner.fits(node, density=found[node.id] + 0.002)


def test_work_beside_the_models_own_is_planned_for() -> None:
    planner, fed = planned(spread=10.0, flops=1e8)
    one, half = fed.nodes[0], fed.setup.channels.ordered(0.5)
    assert planner.seconds(one, half, work=2.0) > 1.5 * planner.seconds(one, half)
    widths = (1.0, 0.5, 0.25, 0.125, 0.0625)
    assert all(planner.widest(node, widths, 2.0) <= planner.widest(node, widths) for node in fed.nodes)


def test_sparse_kernels_make_denser_models_fit() -> None:
    slow = {"flops": 2e7, "up": 1e6}
    planner, fed = planned({"deadline": 5.0}, **slow, sparse_kernels=True)
    assert 0.01 < planner.densest(fed.nodes[0]) < 1
    planner, fed = planned({"deadline": 5.0}, **slow)
    with pytest.raises(InputError, match="Not even a model of density 0.01 fits client 0"):
        planner.densest(fed.nodes[0])


def test_memory_is_counted_and_bounds() -> None:
    planner, fed = planned()
    half = fed.setup.channels.ordered(0.5)
    weights = planner.numbers() * 4
    assert planner.memory() > 2 * weights and planner.memory(half) < 0.6 * planner.memory()
    planner, fed = planned(memory=planner.memory(half) + 1)
    assert planner.widest(fed.nodes[0], (1.0, 0.5, 0.25)) == 0.5


@pytest.mark.parametrize(
    "device, clock, told",
    [({"memory": 1000.0}, {}, "MB of memory"), ({"flops": 10.0}, {"deadline": 1.0}, "the deadline is 1")],
)
def test_what_nothing_fits_is_named(device: dict[str, Any], clock: dict[str, Any], told: str) -> None:
    planner, fed = planned(clock, **device)
    with pytest.raises(InputError, match=f"client 2 .device phone.*{told}"):
        planner.widest(fed.nodes[2], (1.0, 0.5))


def test_entropy() -> None:
    assert entropy(0.5) == 1.0 and entropy(0.0) == entropy(1.0) == 0.0

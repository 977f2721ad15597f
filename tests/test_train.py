"""The loop: masks hold, gradients pass straight through, evaluation is what it says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedsparse import train


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def batches(n: int = 5) -> list[tuple[torch.Tensor, torch.Tensor]]:
    drawn = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 4, generator=drawn), torch.randint(0, 2, (8,), generator=drawn)) for _ in range(n)]


@pytest.mark.parametrize(("name", "decay"), [("sgd", 0.0), ("sgd", 0.1), ("adam", 0.1)])
def test_a_masked_weight_stays_zero_whatever_the_optimiser_does(name: str, decay: float) -> None:
    model = net()
    mask = torch.tensor([[1, 0, 1, 0]] * 3, dtype=torch.bool)
    with torch.no_grad():
        model[0].weight.mul_(mask)
    optimise = train.optimizer(model, name, 0.1, 0.9 if name == "sgd" else 0.0, decay)
    before = model[0].weight.detach().clone()
    list(train.steps(model, batches(), optimise, loss=train.task_loss("classification"), masks={"0.weight": mask}))
    assert not model[0].weight[~mask].any()
    assert not torch.equal(model[0].weight, before)


def test_straight_through_computes_masked_and_trains_dense() -> None:
    model, reference, x = net(), net(), torch.ones(1, 4)
    for one in (model, reference):
        nn.init.constant_(one[0].bias, 5.0)  # no unit is dead, so every weight has a gradient
    dense = model[0].weight.detach().clone()
    mask = torch.tensor([[1, 0, 1, 0]] * 3, dtype=torch.bool)
    with torch.no_grad():
        reference[0].weight.mul_(mask)
    with train.straight_through(model, {"0.weight": mask}):
        assert torch.equal(model(x), reference(x))
        assert torch.equal(train.weight(model, "0.weight"), reference[0].weight)
        model(x).sum().backward()
    reference(x).sum().backward()
    assert torch.equal(model[0].weight, dense)
    assert list(model.state_dict()) == list(reference.state_dict())
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in reference.named_parameters()]
    assert torch.equal(model[0].weight.grad, reference[0].weight.grad)  # also where the mask is 0
    assert model[0].weight.grad[~mask].any()


def test_straight_through_ends_when_training_fails() -> None:
    model = net()
    with pytest.raises(ZeroDivisionError), train.straight_through(model, {"0.weight": torch.ones(3, 4).bool()}):
        raise ZeroDivisionError
    assert set(model.state_dict()) == set(net().state_dict())


def test_clip_and_before_step_act_on_the_gradient() -> None:
    model = net()
    start = [p.detach().clone() for p in model.parameters()]
    optimise = train.optimizer(model, "sgd", 1.0, 0.0, 0.0)
    list(train.steps(model, batches(1), optimise, loss=train.task_loss("classification"), clip=1e-3))
    moved = torch.cat([(p - s).reshape(-1) for p, s in zip(model.parameters(), start, strict=True)]).norm()
    assert float(moved) == pytest.approx(1e-3, rel=1e-3)
    after = [p.detach().clone() for p in model.parameters()]

    def freeze(model: nn.Module) -> None:
        for p in model.parameters():
            p.grad = None

    list(train.steps(model, batches(2), optimise, loss=train.task_loss("classification"), before_step=freeze))
    assert all(torch.equal(p, a) for p, a in zip(model.parameters(), after, strict=True))


def test_evaluate() -> None:
    model = nn.Linear(1, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model.bias.zero_()
    x, y = torch.tensor([[2.0], [-2.0], [3.0]]), torch.tensor([0, 1, 1])
    assert train.evaluate(model, x, y, "classification", batch_size=2)[0] == pytest.approx(2 / 3)
    line = nn.Linear(1, 1)
    with torch.no_grad():
        line.weight.fill_(1.0)
        line.bias.zero_()
    metric, loss = train.evaluate(line, torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 5.0]), "regression")
    assert loss == pytest.approx(4.5) and metric == pytest.approx(4.5**0.5)

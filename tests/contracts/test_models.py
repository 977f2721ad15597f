"""What every shipped model keeps to."""

import copy

import pytest
import torch

from fedsparse import registry
from fedsparse.errors import InputError
from fedsparse.models.base import Model

NAMES = registry.names("models")
THIN = {"width": 0.25}  # where a model has it: the rules are those of any width
SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (6, 128), (318,)]


def test_there_are_models():
    assert {"cnn", "mlp", "lenet5"} <= set(NAMES)


def built(name: str) -> list[tuple[tuple[int, ...], torch.nn.Module]]:
    nets = []
    for shape in SHAPES:
        try:
            torch.manual_seed(0)
            kind = registry.find("models", name)
            nets.append((shape, kind(**(THIN if "width" in kind.model_fields else {})).build(shape, 7)))
        except InputError as error:
            assert name in str(error) and "\n" not in str(error)
    return nets


@pytest.mark.parametrize("name", NAMES)
def test_a_model(name):
    kind = registry.find("models", name)
    assert issubclass(kind, Model) and registry.summary("models", name)
    assert all(field.description for field in kind.model_fields.values())
    nets = built(name)
    assert nets, "it takes none of the shapes that data sets have"
    for (shape, net), (_, again) in zip(nets, built(name), strict=True):
        x = torch.rand(2, *shape)
        out = net.eval()(x)
        assert out.shape == (2, 7) and out.dtype == torch.float32
        # The weights come from PyTorch's global generator and nothing else.
        for (own, tensor), (other, same) in zip(net.state_dict().items(), again.state_dict().items(), strict=True):
            assert own == other and torch.equal(tensor, same)
        # It can be copied, and every weight learns.
        twin = copy.deepcopy(net).train()
        twin(x).square().sum().backward()
        assert all(p.grad is not None for p in twin.parameters())

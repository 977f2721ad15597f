"""The branched network for yields: its size, what each branch sees, and what it takes."""

import pytest
import torch

from fedsparse.errors import InputError
from fedsparse.models.yieldnet import YieldNet


def size(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_size_and_names():
    net = YieldNet().build((318,), 1)
    assert size(net) == 101_297
    convolutions = 3 * (19 * 32 + 32 * 64 + 64 * 96) + 2 * (32 + 64 + 96)
    linear = (8 + 1) * 32 + (6 + 1) * 32 + (96 * 4 + 64 + 1) * 144 + 145 * 64 + 65
    assert convolutions + linear == 101_297
    layers = [
        "weather.conv1",
        "weather.conv2",
        "weather.conv3",
        "soil.fc",
        "place.fc",
        "head.fc1",
        "head.fc2",
        "head.fc3",
    ]
    weights = [name.removesuffix(".weight") for name, p in net.named_parameters() if p.ndim > 1]
    assert weights == layers


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("width", [1.0, 0.3, 0.001])
def test_width_thins_every_layer(norm, width):
    net = YieldNet(norm=norm, width=width).build((318,), 2)
    assert net(torch.zeros(3, 318)).shape == (3, 2)
    assert net.weather.conv1.out_channels == max(1, round(32 * width)) and net.weather.conv1.in_channels == 19
    assert net.head.fc1.out_features == max(1, round(144 * width))
    assert ("weather.norm1.running_mean" in net.state_dict()) == (norm == "batch")


def test_each_branch_sees_its_own_inputs():
    torch.manual_seed(0)
    net, x = YieldNet().build((318,), 1).eval(), torch.randn(1, 318)
    seen: dict[str, torch.Tensor] = {}
    for name in ("weather", "soil", "place"):
        getattr(net, name).register_forward_hook(lambda module, given, out, name=name: seen.update({name: given[0]}))
    net(x)
    assert torch.equal(seen["weather"], x[:, :304].reshape(1, 19, 16))  # variables, each by its weeks
    assert torch.equal(seen["soil"], x[:, 304:312]) and torch.equal(seen["place"], x[:, 312:])


@pytest.mark.parametrize("shape", [(317,), (1, 318), (19, 16), ()])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InputError, match="yieldnet takes inputs of 318 numbers"):
        YieldNet().build(shape, 1)

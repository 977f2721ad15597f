"""The shipped models: sizes, names of weights, and what they take."""

import pytest
import torch
from pydantic import ValidationError

from fedsparse.errors import InputError
from fedsparse.models.cnn import CNN
from fedsparse.models.lenet5 import LeNet5
from fedsparse.models.mlp import MLP


def size(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_cnn():
    net = CNN().build((1, 8, 8), 10)
    assert size(net) == 38_282
    assert list(net.state_dict()) == [f"{n}.{k}" for n in ("conv1", "conv2", "fc1", "fc2") for k in ("weight", "bias")]


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 20, 40)])
def test_cnn_takes_pictures(shape, norm):
    net = CNN(norm=norm, channels=(4, 6, 8), hidden=5).build(shape, 3)
    assert net(torch.zeros(2, *shape)).shape == (2, 3)
    assert ("norm1.running_mean" in net.state_dict()) == (norm == "batch")


def test_cnn_pools_large_pictures_twice():
    assert CNN().build((1, 28, 28), 10).fc1.in_features == 32 * 7 * 7


def test_lenet5_is_the_published_size():
    net = LeNet5().build((1, 28, 28), 10)
    assert size(net) == 61_706
    layers = ("conv1", "conv2", "fc1", "fc2", "fc3")
    assert list(net.state_dict()) == [f"{n}.{k}" for n in layers for k in ("weight", "bias")]
    assert LeNet5().build((3, 32, 32), 5)(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


def test_mlp():
    net = MLP(hidden=(7,)).build((318,), 1)
    assert list(net.state_dict()) == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    assert net(torch.zeros(2, 318)).shape == (2, 1)
    assert list(MLP(hidden=()).build((1, 8, 8), 10).state_dict()) == ["fc1.weight", "fc1.bias"]


@pytest.mark.parametrize(
    ("model", "shape", "named"),
    [
        (LeNet5(), (1, 8, 8), "lenet5 takes pictures of 28 x 28 or 32 x 32, not inputs of 1 x 8 x 8"),
        (LeNet5(), (318,), "not inputs of 318"),
        (CNN(), (318,), "cnn takes pictures"),
        (CNN(), (1, 3, 3), "4 to 512 pixels"),
        (MLP(), (), "mlp takes inputs"),
    ],
)
def test_inputs_that_do_not_fit(model, shape, named):
    with pytest.raises(InputError, match=named):
        model.build(shape, 10)


@pytest.mark.parametrize(
    "options", [{"channels": ()}, {"channels": (0,)}, {"hidden": 0}, {"norm": "layer"}, {"wide": 1}]
)
def test_options_out_of_range(options):
    with pytest.raises(ValidationError):
        CNN(**options)

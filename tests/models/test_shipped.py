"""The shipped models: sizes, names of weights, and what they take."""

import pytest
import torch
from pydantic import ValidationError

from fedsparse.errors import InputError
from fedsparse.models.alexnet import AlexNet
from fedsparse.models.cnn import CNN
from fedsparse.models.lenet5 import LeNet5
from fedsparse.models.mlp import MLP
from fedsparse.models.resnet import Block, ResNet
from fedsparse.models.torchvision_resnet import TorchvisionResNet
from fedsparse.models.vgg import VGG


def size(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def shapes(model, shape=(3, 32, 32), outputs: int = 10) -> torch.nn.Module:
    """The network without numbers: built at once, whatever its size."""
    with torch.device("meta"):
        return model.build(shape, outputs)


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
    ("model", "outputs", "weights"),
    [
        (ResNet(), 10, 269_722),
        (ResNet(depth=32), 10, 464_154),
        (ResNet(depth=44), 10, 658_586),
        (ResNet(depth=56), 10, 853_018),
        (TorchvisionResNet(), 10, 11_173_962),
        (TorchvisionResNet(), 100, 11_220_132),  # as in FedDIP's tables, and AlexNet below
        (TorchvisionResNet(depth=34), 10, 21_282_122),
        (VGG(), 10, 9_228_362),
        (VGG(norm="none"), 10, 9_225_610),
        (VGG(depth=16), 10, 14_724_042),
        (VGG(depth=16, norm="none"), 10, 14_719_818),
        (AlexNet(), 10, 23_272_266),
    ],
)
def test_sizes_on_cifar(model, outputs, weights):
    assert size(shapes(model, outputs=outputs)) == weights


def test_names_of_the_weights():
    """They are sent, and stay."""
    resnet = list(shapes(ResNet()).state_dict())
    assert resnet[:2] == ["conv.weight", "norm.weight"] and resnet[-2:] == ["fc.weight", "fc.bias"]
    blocks = [f"stage{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]
    layers = ("conv1", "norm1", "conv2", "norm2")
    assert {f"{block}.{layer}.weight" for block in blocks for layer in layers} <= set(resnet)
    assert {"conv1.weight", "layer4.1.conv2.weight", "fc.weight"} <= set(shapes(TorchvisionResNet()).state_dict())
    names = [f"conv{i}" for i in range(1, 9)] + ["fc"]
    assert list(shapes(VGG(norm="none")).state_dict()) == [f"{n}.{k}" for n in names for k in ("weight", "bias")]
    names = [f"conv{i}" for i in range(1, 6)] + ["fc1", "fc2", "fc3"]
    assert list(shapes(AlexNet()).state_dict()) == [f"{n}.{k}" for n in names for k in ("weight", "bias")]


def test_a_shortcut_takes_every_second_pixel_and_adds_empty_channels():
    block = Block(1, 3, stride=2).eval()
    torch.nn.init.zeros_(block.norm2.weight)  # so that the shortcut is all that is left
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert block(x).tolist() == [[[[0, 2], [8, 10]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]]


@pytest.mark.parametrize("model", [ResNet(width=0.1), VGG(width=0.1), VGG(width=0.1, norm="none"), AlexNet(width=0.1)])
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 33, 47), (3, 64, 32)])
def test_deep_models_take_pictures_of_many_sizes(model, shape):
    assert model.build(shape, 3)(torch.zeros(2, *shape)).shape == (2, 3)


# ---- width ----


@pytest.mark.parametrize(
    ("model", "shape", "weights"),
    [
        (MLP(width=0.25), (4,), 4 * 32 + 32 + 32 * 16 + 16 + 16 * 10 + 10),
        (CNN(width=0.5), (1, 8, 8), 9 * 8 + 8 + 8 * 9 * 16 + 16 + 256 * 32 + 32 + 320 + 10),
        (LeNet5(width=0.5), (1, 28, 28), 78 + 25 * 3 * 8 + 8 + 200 * 60 + 60 + 60 * 42 + 42 + 420 + 10),
        (ResNet(width=0.25), (3, 32, 32), 17_326),
        (VGG(width=0.5), (3, 32, 32), 2_310_186),
        (AlexNet(width=0.5), (3, 32, 32), 5_831_082),
        (MLP(width=0.001), (4,), 4 + 1 + 1 + 1 + 10 + 10),  # never less than one
    ],
)
def test_width_is_a_share_of_every_layer(model, shape, weights):
    thin = shapes(model, shape)
    assert size(thin) == weights
    assert list(thin.state_dict()) == list(shapes(type(model)(), shape).state_dict())


@pytest.mark.parametrize("width", [0.0, -1.0, 1.01])
def test_widths_out_of_range(width):
    with pytest.raises(ValidationError):
        VGG(width=width)


@pytest.mark.parametrize(
    ("model", "shape", "named"),
    [
        (ResNet(), (1, 7, 8), "resnet takes pictures of 8 to 256 pixels a side, not inputs of 1 x 7 x 8"),
        (TorchvisionResNet(), (318,), "torchvision_resnet takes pictures"),
        (VGG(), (1, 28, 28), "vgg takes pictures of 32 to 256"),
        (AlexNet(), (1, 8, 8), "alexnet takes pictures of 16 to 256"),
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


@pytest.mark.parametrize(
    ("model", "options"),
    [(ResNet, {"depth": 18}), (TorchvisionResNet, {"width": 0.5}), (VGG, {"norm": "group"}), (AlexNet, {"dropout": 1})],
)
def test_options_of_deep_models_out_of_range(model, options):
    with pytest.raises(ValidationError):
        model(**options)

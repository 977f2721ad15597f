"""The 1-D CNN: size, names of weights, what it takes, and how thin it can be."""

import pytest
import torch

from fedsparse.errors import InputError
from fedsparse.models.cnn1d import CNN1d


def size(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_its_size():
    net = CNN1d().build((6, 128), 6)
    # 6*5*32 + 32, 32*5*32 + 32, (32*8)*60 + 60, 60*6 + 6
    assert size(net) == 992 + 5152 + 15420 + 366 == 21_930
    assert list(net.state_dict()) == [f"{n}.{k}" for n in ("conv1", "conv2", "fc1", "fc2") for k in ("weight", "bias")]


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("shape", [(1, 1), (6, 128), (2, 15), (3, 1000)])
def test_it_takes_signals(shape, norm):
    net = CNN1d(norm=norm, channels=(4, 6, 8), hidden=5).build(shape, 3)
    assert net.eval()(torch.zeros(2, *shape)).shape == (2, 3)
    assert ("norm3.running_mean" in net.state_dict()) == (norm == "batch")


def test_thin():
    net = CNN1d(width=0.25).build((6, 128), 6)
    assert (net.conv1.out_channels, net.conv2.out_channels, net.fc1.out_features) == (8, 8, 15)
    least = CNN1d(width=0.001).build((6, 128), 6)
    assert size(least) == (30 + 1) + (5 + 1) + (8 + 1) + (6 + 6)


@pytest.mark.parametrize(("shape", "named"), [((1, 28, 28), "1 x 28 x 28"), ((), "single numbers")])
def test_inputs_that_do_not_fit(shape, named):
    with pytest.raises(InputError, match=f"cnn1d takes signals of channels x samples, .*{named}"):
        CNN1d().build(shape, 6)

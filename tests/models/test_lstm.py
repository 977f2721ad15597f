"""The LSTM: size, names of weights, that it reads in order, and what of it can be masked."""

import pytest
import torch

from fedsparse.errors import InputError
from fedsparse.federation import maskable
from fedsparse.models.lstm import LSTM


def test_its_size():
    net = LSTM().build((80,), 84)
    # 84*8; 4*256*(8 + 256 + 2); 4*256*(256 + 256 + 2); 256*84 + 84
    assert sum(p.numel() for p in net.parameters()) == 672 + 272_384 + 526_336 + 21_588 == 820_980
    assert maskable(net) == ("fc.weight",)


def test_it_reads_the_whole_sequence_in_order():
    torch.manual_seed(0)
    net = LSTM(hidden=16).build((5,), 10).eval()
    x = torch.tensor([[1, 2, 3, 4, 5], [2, 1, 3, 4, 5], [1, 2, 3, 5, 4]])
    out = net(x)
    assert out.shape == (3, 10) and torch.equal(net(x.float()), out)
    assert not torch.allclose(out[0], out[1]) and not torch.allclose(out[0], out[2])


def test_thin():
    net = LSTM(hidden=16, layers=1, width=0.25).build((5,), 10)
    assert {name: tuple(t.shape) for name, t in net.state_dict().items()} == {
        "embedding.weight": (10, 8),
        "lstm.weight_ih_l0": (16, 8),
        "lstm.weight_hh_l0": (16, 4),
        "lstm.bias_ih_l0": (16,),
        "lstm.bias_hh_l0": (16,),
        "fc.weight": (10, 4),
        "fc.bias": (10,),
    }


@pytest.mark.parametrize("shape", [(6, 128), (0,), ()])
def test_inputs_that_do_not_fit(shape):
    with pytest.raises(InputError, match="lstm takes sequences of tokens, not inputs of"):
        LSTM().build(shape, 84)

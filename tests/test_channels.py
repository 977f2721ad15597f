"""Sub-models: a cut network computes and learns what the masked one does, and its parts go back where they were."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
from federations import built, client_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from fedsparse import codec, masks, registry
from fedsparse.channels import Channels, Kept
from fedsparse.errors import InputError
from fedsparse.flower import wire
from fedsparse.payload import Bits, Grid, Ids, Payload, Schema, Spec

MODELS = {
    "mlp": ("mlp", {"hidden": (12, 7)}, (1, 8, 8)),
    "linear layers between": ("mlp", {"hidden": (5,)}, (3,)),
    "cnn": ("cnn", {"width": 0.5}, (1, 8, 8)),
    "cnn with BatchNorm": ("cnn", {"width": 0.5, "norm": "batch"}, (1, 16, 16)),
    "lenet5": ("lenet5", {}, (1, 28, 28)),
    "alexnet": ("alexnet", {"width": 0.05, "dropout": 0.0}, (3, 32, 32)),
    "vgg": ("vgg", {"width": 0.1}, (3, 32, 32)),
    "vgg without": ("vgg", {"width": 0.1, "norm": "none"}, (3, 32, 32)),
    "resnet 20": ("resnet", {"width": 0.5}, (3, 8, 8)),
    "resnet 32": ("resnet", {"width": 0.25, "depth": 32}, (3, 8, 8)),
    "torchvision": ("torchvision_resnet", {}, (3, 8, 8)),
    "cnn1d": ("cnn1d", {"norm": "batch", "width": 0.25}, (6, 64)),
    "yieldnet": ("yieldnet", {"width": 0.25}, (318,)),
}
SEEDS = st.integers(0, 2**31)


@functools.cache
def model(name: str) -> tuple[nn.Module, Channels, tuple[int, ...]]:
    """A network whose every number is drawn, what can be cut out of it, and its inputs' shape."""
    kind, options, shape = MODELS[name]
    draw = torch.Generator().manual_seed(0)
    net = registry.find("models", kind)(**options).build(shape, 5)
    with torch.no_grad():
        for key, own in net.state_dict().items():
            if own.is_floating_point() and own.dim() == 1:
                own.copy_(torch.rand(own.shape, generator=draw) + (0.5 if "var" in key else 0.0))
    return net, Channels.of(net, shape), shape


def drawn(channels: Channels, seed: int) -> Kept:
    """Some units of every group: one at least."""
    draw = torch.Generator().manual_seed(seed)
    kept = {}
    for group in channels.groups:
        order, count = torch.randperm(group.size, generator=draw), torch.randint(group.size, (), generator=draw)
        kept[group.name] = order <= count
    return kept


def same(one: Kept, other: Kept) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def outputs(net: nn.Module, x: Tensor, training: bool) -> Tensor:
    return net.train(training)(x)


def near(one: Tensor, other: Tensor) -> None:
    one, other = one.detach(), other.detach()
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * max(1.0, float(other.abs().max())))


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=3, deadline=None)
@given(seed=SEEDS)
def test_a_cut_model_computes_and_learns_what_the_masked_one_does(name: str, seed: int) -> None:
    net, channels, shape = model(name)
    whole = {n: t.clone() for n, t in net.state_dict().items()}
    kept = drawn(channels, seed)
    small, cut = channels.module(whole, kept), channels.masks(kept)
    net.load_state_dict(masks.apply(whole, {n: mask.dense() for n, mask in cut.items()}))
    x = torch.rand(4, *shape, generator=torch.Generator().manual_seed(seed))
    try:
        with torch.no_grad():
            near(outputs(small, x, False), outputs(net, x, False))
        out, expected = outputs(small, x, True), outputs(net, x, True)
        near(out, expected)
        net.zero_grad()
        out.square().sum().backward()
        expected.square().sum().backward()
        wanted = channels.take({n: p.grad for n, p in net.named_parameters()}, kept)
        for key, parameter in small.named_parameters():
            near(parameter.grad, wanted[key])
        buffers = channels.take(dict(net.named_buffers()), kept)  # BatchNorm's statistics moved alike
        for key, buffer in small.named_buffers():
            near(buffer, buffers[key])
    finally:
        net.load_state_dict(whole)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=3, deadline=None)
@given(seed=SEEDS)
def test_parts_go_back_to_their_places(name: str, seed: int) -> None:
    net, channels, _ = model(name)
    whole, kept = net.state_dict(), drawn(channels, seed)
    small, cut = channels.take(whole, kept), channels.masks(kept)
    back = channels.place(small, kept)
    for key, tensor in masks.apply(whole, {n: mask.dense() for n, mask in cut.items()}).items():
        assert torch.equal(back[key], tensor)
    again = channels.take(back, kept)
    assert all(torch.equal(again[key], tensor) for key, tensor in small.items())
    module = channels.module(whole, kept)
    assert channels.numbers(kept) == sum(t.numel() for t in module.state_dict().values())
    assert {n: t.shape for n, t in module.state_dict().items()} == {n: t.shape for n, t in small.items()}
    for layer in module.modules():
        if isinstance(layer, nn.modules.conv._ConvNd):
            assert (layer.out_channels, layer.in_channels) == layer.weight.shape[:2]
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            assert layer.num_features == len(layer.weight)
    with torch.no_grad():  # a network of its own
        for own in module.state_dict().values():
            own.zero_()
    assert all(torch.equal(tensor, whole[key]) for key, tensor in net.state_dict().items())


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=3, deadline=None)
@given(seed=SEEDS)
def test_what_is_kept_can_be_told_from_the_masks(name: str, seed: int) -> None:
    _, channels, _ = model(name)
    kept = drawn(channels, seed)
    cut = channels.masks(kept)
    assert same(channels.kept(cut), kept)
    assert same(channels.kept({n: Bits(mask.dense()) for n, mask in cut.items()}), kept)
    assert same(channels.kept({}), channels.whole()) and channels.masks(channels.whole()) == {}


@given(st.sampled_from(sorted(MODELS)), st.floats(0.001, 1), st.integers(0, 200))
def test_ordered_parts(name: str, width: float, start: int) -> None:
    _, channels, _ = model(name)
    first, rolled = channels.ordered(width), channels.ordered(width, start)
    wider = channels.ordered(min(1.0, 1.5 * width))
    for group in channels.groups:
        count = int(first[group.name].sum())
        assert max(1, width * group.size - 1e-6) <= count < width * group.size + 1
        assert first[group.name][:count].all() and (wider[group.name] | ~first[group.name]).all()
        assert rolled[group.name].nonzero().reshape(-1).tolist() == sorted(
            (start + i) % group.size for i in range(count)
        )


def test_a_mask_that_is_no_sub_models() -> None:
    _, channels, _ = model("cnn")
    cut = dict(channels.masks(channels.ordered(0.5)))
    bits = cut["conv2.weight"].dense().clone()
    bits[0, 0, 0, 0] ^= True
    for wrong in (cut | {"conv2.weight": Bits(bits)}, {"conv2.weight": cut["conv2.weight"]}):
        with pytest.raises(ValueError, match="sub-model"):
            channels.kept(wrong)


# ---- groups ----


def test_a_residual_network_without_weights_in_its_shortcuts() -> None:
    _, channels, _ = model("resnet 20")  # 8, 16 and 32 channels: the first 8 run through all stages
    groups = {group.name: group for group in channels.groups}
    assert [groups[n].size for n in ("conv", "stage2.0.conv2", "stage3.0.conv2")] == [8, 8, 16]
    assert [len(groups[n].scales) for n in ("conv", "stage2.0.conv2", "stage3.0.conv2")] == [10, 6, 3]
    assert len(groups) == 3 + 9 and groups["stage3.1.conv1"].scales == ("stage3.1.norm1.weight",)
    assert channels.where("conv", "stage3.0.norm2.weight").tolist() == [[i] for i in range(8)]
    assert channels.where("stage3.0.conv2", "fc.weight", 1).tolist() == [[i] for i in range(16, 32)]
    assert channels.where("conv", "stage1.0.norm1.weight").shape == (8, 0)


def test_flattened_channels() -> None:
    _, channels, _ = model("cnn")  # 16 channels of 4 x 4 into a linear layer
    assert channels.where("conv2", "fc1.weight", 1).tolist() == [list(range(16 * i, 16 * i + 16)) for i in range(16)]


class Split(nn.Module):
    """One convolution whose first channels meet those of another, and whose last are a layer's alone."""

    def __init__(self, tangle: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.tangle = tangle
        self.one, self.other = nn.Conv2d(1, 6, 3), nn.Conv2d(1, 4, 3)
        self.used = nn.Conv2d(2, 2, 1)  # twice: what goes in must be alike
        self.fc = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        one = self.tangle(torch.tanh(self.one(x)))
        met, rest = one[:, :4] + self.other(x), self.used(self.used(one[:, 4:]))
        out: Tensor = self.fc(torch.cat([met, rest], 1).mean((2, 3)))
        return out


def test_channels_of_one_layer_in_two_groups() -> None:
    torch.manual_seed(0)
    net = Split()
    channels = Channels.of(net, (1, 6, 6))
    assert [(group.name, group.size) for group in channels.groups] == [("one", 4), ("one:4", 2)]
    kept = {"one": torch.tensor([True, False, False, True]), "one:4": torch.tensor([False, True])}
    small, x = channels.module(net.state_dict(), kept), torch.rand(2, 1, 6, 6)
    assert small.used.weight.shape == (1, 1, 1, 1) and small.fc.in_features == 3
    met = net.one(x).tanh()[:, [0, 3]] + net.other(x)[:, [0, 3]]
    assert small.one.weight.shape[0] == 3 and small.other.weight.shape[0] == 2
    near(torch.tanh(small.one(x))[:, :2] + small.other(x), met)


@pytest.mark.parametrize(
    "tangle",
    [
        lambda x: x.softmax(1),
        lambda x: x.mean(1, keepdim=True).expand_as(x),
        lambda x: x.amax(1, keepdim=True).expand_as(x),
        lambda x: x.cumsum(1),
        lambda x: x.sort(1).values,
        lambda x: functional.layer_norm(x, x.shape[1:]),
        lambda x: functional.conv2d(x, torch.ones(6, 1, 1, 1), groups=6),
        lambda x: x.mT.flatten(1, 2).unflatten(1, (-1, 6)).mT,
    ],
)
def test_channels_that_cannot_be_followed_are_refused(tangle: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(InputError, match=r"^The model odd cannot be cut into sub-models: [^.]*\.$"):
        Channels.of(Split(tangle), (1, 6, 6), "odd")


def test_models_without_channels_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be cut .* only convolutions"):
        Channels.of(registry.find("models", "lstm")(hidden=4).build((5,), 7), (5,))
    with pytest.raises(InputError, match="cannot be cut .* no channels"):
        Channels.of(registry.find("models", "mlp")(hidden=()).build((5,), 7), (5,))


# ---- in a federation ----


def arrived(payload: Payload, schema: Schema) -> Payload:
    return wire.decode(wire.encode(payload, schema, Ids()), schema)


def test_a_client_trains_what_it_was_sent(tmp_path) -> None:
    federation = built(model={"name": "cnn", "norm": "batch"})
    setup, client = federation.setup, client_of(federation, tmp_path)
    kept = setup.channels.ordered(0.5, start=3)
    received = arrived(Payload(federation.initial, setup.channels.masks(kept)), setup.structured)
    small = client.cut(received)
    assert sum(t.numel() for t in small.state_dict().values()) == setup.channels.numbers(kept)
    client.fit(small, epochs=1)
    reply = arrived(Payload(*client.placed(small, received)), setup.structured)
    assert same(setup.channels.kept(reply.masks), kept)

    other = client_of(federation, tmp_path)  # the dense way
    bits = masks.bits(received)
    dense = other.model(received.weights, bits)
    other.fit(dense, masks=bits, epochs=1)
    for name, tensor in masks.apply(other.weights(dense), bits).items():
        near(reply.weights[name], tensor)
    assert math.isclose(client.losses[-1], other.losses[-1], rel_tol=1e-3)


def test_without_masks_a_client_trains_the_whole_model(tmp_path) -> None:
    federation = built(model={"name": "cnn"})
    client = client_of(federation, tmp_path)
    received = Payload(federation.initial)
    weights, cut = client.placed(client.cut(received), received)
    assert cut == {} and all(torch.equal(weights[n], t) for n, t in federation.initial.items())


def test_batch_norm_that_stays_at_home_cannot_be_cut() -> None:
    federation = built(model={"name": "cnn", "norm": "batch"}, local_bn=True)
    with pytest.raises(InputError, match="local_bn must be false"):
        _ = federation.setup.channels


def test_the_masks_of_a_sub_model_cost_a_few_bytes() -> None:
    net = registry.find("models", "resnet")().build((3, 32, 32), 10)
    channels = Channels.of(net, (3, 32, 32))
    weights = net.state_dict()
    cut = channels.masks(drawn(channels, 1))
    tensors = {n: Spec(str(t.dtype).removeprefix("torch."), tuple(t.shape)) for n, t in weights.items()}
    schema = Schema(tensors, frozenset(n for n, s in tensors.items() if s.dtype == "float32"))
    data = codec.encode(Payload(weights, cut), schema=schema)
    told = codec.inspect(data, schema)
    assert {row.mask for row in told.tensors if len(tensors[row.name].shape) > 1} <= {"grid", "full", "dense"}
    assert sum(row.mask_bytes for row in told.tensors) < 500  # bitmaps: 33,700
    assert all(isinstance(mask, Grid) for mask in cut.values())
    back = codec.decode(data, schema, len(data))
    assert all(torch.equal(torch.from_numpy(back.masks[n].dense()), mask.dense()) for n, mask in cut.items())

"""What server and clients build from the same text: data, split, devices, model, strategy.

Nothing here is drawn but from the run's seed, so that every process of a run builds the same federation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fedsparse import devices
from fedsparse.channels import Channels
from fedsparse.client import Client
from fedsparse.data import Data, Dataset
from fedsparse.errors import InputError, RunError
from fedsparse.experiment import Experiment
from fedsparse.partition import Partition
from fedsparse.payload import Payload
from fedsparse.planner import Planner
from fedsparse.randomness import integer
from fedsparse.split import Parts, kept, parts, signature
from fedsparse.store import Store
from fedsparse.strategy import Node, Setup, Strategy


@dataclass(frozen=True, eq=False)
class Federation:
    """One experiment, made real. `initial` holds every tensor of the model; `local` those that never travel."""

    experiment: Experiment
    data: Data
    parts: list[Parts]
    nodes: tuple[Node, ...]
    strategy: Strategy
    initial: dict[str, Tensor]
    local: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def build(cls, experiment: Experiment, splits: Path | None = None, me: int | None = None) -> Federation:
        """Load, split and build; InputError names what does not fit.

        `splits`: a file that keeps the split. `me`: the client that this process is, where it knows the data of no
        other.
        """
        _check_device(experiment)
        dataset, wanted = experiment.dataset.build(), experiment.partition
        data = _data(dataset)
        asked = (wanted.build(), experiment.clients, wanted.validation, wanted.test, experiment.seed)
        if asked[0].own:
            split = _own(experiment, data, me)
        elif splits is None:
            split = _parts(dataset, *asked)
        else:
            split = kept(splits, signature(data, experiment.hash()), lambda: _parts(dataset, *asked))
        nodes = _nodes(experiment, split)
        net = _net(experiment, data)
        _check_fit(experiment, data, net)
        initial = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
        local = {n: initial[n] for n in batch_norm(net)} if experiment.local_bn else {}
        if experiment.local_bn and not local:
            raise InputError(
                f"local_bn = true needs a model with BatchNorm, "
                f"and model {experiment.model.name!r} has none as it is set."
            )
        strategy = experiment.strategy.build().bind(_setup(experiment, data, nodes, net, initial, local))
        if me is None:
            strategy.check()
        return cls(experiment, data, split, nodes, strategy, initial, local)

    @property
    def setup(self) -> Setup:
        return self.strategy.setup

    @property
    def shared(self) -> dict[str, Tensor]:
        """The initial tensors that travel."""
        return {name: tensor for name, tensor in self.initial.items() if name not in self.local}

    @cached_property
    def net(self) -> nn.Module:
        """The one module that all clients of this process use in turn."""
        return _net(self.experiment, self.data).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where models are trained: what [runtime] asks for, `auto` being CUDA where this process has it."""
        wanted = self.experiment.runtime.device
        return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")

    @cached_property
    def test(self) -> tuple[Tensor, Tensor]:
        """The central test set (x, y): the official one, else the union of the clients' test parts."""
        if self.data.test is not None:
            return self.data.test
        if not any(len(part.test) for part in self.parts):  # the clients' data are elsewhere
            return self.data.x, self.data.y
        rows = torch.from_numpy(np.sort(np.concatenate([part.test for part in self.parts])))
        return self.data.x[rows], self.data.y[rows]

    def told(self, examples: Mapping[int, int]) -> Federation:
        """The same with the numbers of training samples that the clients themselves tell.

        RunError where the server knows better, because it has the same data.
        """
        nodes = tuple(replace(node, examples=examples[node.id]) for node in self.nodes)
        for mine, theirs in zip(self.nodes, nodes, strict=True):
            if mine.examples not in (0, theirs.examples):
                raise RunError(
                    f"client {mine.id} has {theirs.examples} training samples and the server's split gives it "
                    f"{mine.examples}: their data differ"
                )
        return replace(self, nodes=nodes, strategy=self.strategy.bind(replace(self.setup, nodes=nodes)))

    def client(self, id: int, round: int = 1, phase: str = "train", store: Store | None = None) -> Client:
        """The client with partition number `id`, ready for one task."""
        store = store or Store(None)
        options = self.experiment.train
        return Client(
            id,
            round,
            phase,
            self.data,
            self.parts[id],
            self.setup,
            options,
            self.net,
            self.initial,
            frozenset(self.local),
            store,
            self.experiment.wire.values,
        )

    def module(self, model: Payload) -> nn.Module:
        """A fresh module with these weights, zero outside the masks."""
        net = _net(self.experiment, self.data)
        masks = {name: mask.dense() for name, mask in model.masks.items()}
        with torch.no_grad():
            for name, own in net.state_dict(keep_vars=True).items():
                own.copy_(model.weights.get(name, self.initial[name]))
                if name in masks:
                    own.mul_(masks[name])
        return net.to(self.device)


def _nodes(experiment: Experiment, split: list[Parts]) -> tuple[Node, ...]:
    if experiment.clock.minimum > len(split):
        raise InputError(f"clock.minimum must be at most {len(split)}, the clients, not {experiment.clock.minimum}.")
    dealt = (experiment.devices, len(split), experiment.seed)
    tiers, profiles = devices.assign(*dealt), devices.profiles(*dealt)
    return tuple(Node(i, len(part.train), tiers[i], profiles[i]) for i, part in enumerate(split))


def _check_device(experiment: Experiment) -> None:
    runtime = experiment.runtime
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            'runtime.device = "cuda" needs a GPU that PyTorch can use, and there is none: use auto or cpu.'
        )
    if runtime.device == "cuda" and runtime.name == "ray" and not runtime.client_gpus:
        raise InputError('runtime.device = "cuda" with ray needs runtime.client_gpus above 0, or no worker has a GPU.')


def _check_fit(experiment: Experiment, data: Data, net: nn.Module) -> None:
    """Two samples through the network, so that what does not fit is said before a run begins."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            net.eval()(data.x[:2])
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise InputError(
            f"The model {experiment.model.label} cannot take the inputs of the data set {experiment.dataset.label} "
            f"(shape {tuple(data.shape)}, {str(data.x.dtype).removeprefix('torch.')}): {reason}."
        ) from None


def batch_norm(net: nn.Module) -> list[str]:
    """Names of all parameters and buffers of the BatchNorm layers."""
    layers = {n for n, m in net.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    return [name for name in net.state_dict() if name.rpartition(".")[0] in layers]


def maskable(net: nn.Module) -> tuple[str, ...]:
    """Names of the weights of convolutional and linear layers; biases and BatchNorm are never masked."""
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    return tuple(f"{n}.weight" for n, m in net.named_modules() if isinstance(m, kinds))


def _net(experiment: Experiment, data: Data) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer(experiment.seed, "initial weights"))
        model = experiment.strategy.build().model(experiment.model.build(), data.shape, data.outputs)
        return model.build(data.shape, data.outputs)


def _setup(
    experiment: Experiment,
    data: Data,
    nodes: tuple[Node, ...],
    net: nn.Module,
    initial: dict[str, Tensor],
    local: dict[str, Tensor],
) -> Setup:
    shared = {n: t for n, t in initial.items() if n not in local}
    return Setup(
        seed=experiment.seed,
        rounds=experiment.rounds,
        per_round=experiment.cohort_size(len(nodes)),
        nodes=nodes,
        shapes={n: tuple(t.shape) for n, t in shared.items()},
        dtypes={n: str(t.dtype).removeprefix("torch.") for n, t in shared.items()},
        maskable=maskable(net),
        higher_is_better=data.higher_is_better,
        cutting=(cutting := cache(partial(_channels, experiment, data))),
        planning=cache(lambda: Planner(nodes, net, data.x[:1], experiment.train, experiment.clock, cutting)),
    )


def _channels(experiment: Experiment, data: Data) -> Channels:
    if experiment.local_bn:
        raise InputError(
            f"The strategy {experiment.strategy.name} cuts BatchNorm into sub-models, so it must travel: "
            f"local_bn must be false."
        )
    return Channels.of(_net(experiment, data), data.shape, experiment.model.label)


def _own(experiment: Experiment, data: Data, me: int | None) -> list[Parts]:
    """Nobody's rows are known but one's own: all that this process loads."""
    wanted, everything = experiment.partition, np.arange(len(data.x))
    if experiment.runtime.name != "grpc":
        wanted.build().split(data, experiment.clients, experiment.seed)  # says why not
    nothing = np.array([], dtype=np.int64)
    found = [Parts(nothing, nothing, nothing) for _ in range(experiment.clients or 0)]
    if me is not None and me < len(found):
        found[me : me + 1] = parts([everything], data, wanted.validation, wanted.test, experiment.seed, me)
    return found


@lru_cache(maxsize=2)
def _data(dataset: Dataset) -> Data:
    # Options hash by value: the runs of a comparison share one copy of the data.
    return dataset.load()


@lru_cache(maxsize=2)
def _parts(
    dataset: Dataset, partition: Partition, clients: int | None, validation: float, test: float, seed: int
) -> list[Parts]:
    # So do all variants with one seed share its split.
    data = _data(dataset)
    return parts(partition.split(data, clients, seed), data, validation, test, seed)


@lru_cache(maxsize=4)
def federation(text: str, splits: Path | None = None, me: int | None = None) -> Federation:
    """The federation of an experiment's text, built once a process; the rest as in `Federation.build`."""
    return Federation.build(Experiment.load(text), splits, me)


def forget() -> None:
    """Forget what this process has built and loaded."""
    for cached in (federation, _parts, _data):
        cached.cache_clear()

"""The tables of an experiment, one class each: keys, types, ranges and defaults."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from fedsparse import registry
from fedsparse.errors import InputError
from fedsparse.options import Count, Fraction, Held, NonNegative, Options, Positive, Share, Whole
from fedsparse.settings import Table

Rate = Annotated[float, Field(ge=1e-6, le=1e18)]
"""So much a second."""
Amount = Annotated[float, Field(ge=0, le=1e18)]
"""Seconds or bytes."""
# What a file of devices says.
_OF_A_FILE = ("flops", "down", "up", "spread")
# They need a closure, sparse gradients or matrices only.
_UNFIT = ("LBFGS", "SparseAdam", "Muon")


class Choice(Options):
    """A plug-in by name, with all its options."""

    kind: ClassVar[str]

    name: str
    """A shipped name, an entry point's, or path/to/file.py:Name."""
    options: dict[str, Any] = {}
    """The plug-in's own options, defaults filled in."""

    @property
    def label(self) -> str:
        """The name for tables and folders: of path/to/file.py:Name the Name."""
        return registry.label(self.name)

    def build(self) -> Any:
        """The plug-in with these options."""
        return registry.find(self.kind, self.name)(**self.options)

    def table(self) -> Table:
        """As a config has it: the options beside the name."""
        return {**self.model_dump(exclude={"options"}), **self.options}


class DatasetChoice(Choice):
    """The data set."""

    kind = "datasets"


class ModelChoice(Choice):
    """The model that is trained."""

    kind = "models"


class StrategyChoice(Choice):
    """The method."""

    kind = "strategies"


class PartitionChoice(Choice):
    """How the data come to the clients, and what each client keeps for validation and test."""

    kind = "partitions"

    validation: Held = 0.1
    """Share of each client's samples that steers decisions (pruning, stopping, tuning)."""
    test: Held = 0.2
    """Share of each client's samples that is looked at for reporting alone."""

    @model_validator(mode="after")
    def _leaves_something(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation = {self.validation:g} and test = {self.test:g} leave nothing to train on: "
                f"together they must be less than 1"
            )
        return self


class Train(Options):
    """The clients' local training."""

    epochs: Count = 1
    """Passes over a client's training samples in a round."""
    batch_size: Count = 32
    """Samples a step."""
    optimizer: str = "sgd"
    """A `torch.optim` name in lower case."""
    lr: Positive = 0.05
    """Learning rate."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Momentum, for optimisers that have one."""
    weight_decay: NonNegative = 0.0
    """Weight decay."""
    lr_decay: Positive = 1.0
    """The learning rate is multiplied by this after each round."""
    clip: NonNegative = 0.0
    """Largest norm of a gradient; 0 does not clip."""

    @field_validator("optimizer")
    @classmethod
    def _known(cls, name: str) -> str:
        allowed = sorted(_optimizers())
        if name not in allowed:
            raise ValueError(f'must be one of {", ".join(allowed)}, not "{name}"{registry.nearest(name, allowed)}')
        return name

    @model_validator(mode="after")
    def _has_momentum(self) -> Self:
        if self.momentum and "momentum" not in inspect.signature(_optimizers()[self.optimizer]).parameters:
            raise ValueError(f'momentum = {self.momentum:g} is not allowed: the optimizer "{self.optimizer}" has none')
        return self


def _optimizers() -> dict[str, Any]:
    import torch

    kinds = {n: k for n, k in vars(torch.optim).items() if isinstance(k, type) and issubclass(k, torch.optim.Optimizer)}
    return {name.lower(): kind for name, kind in kinds.items() if name != "Optimizer" and name not in _UNFIT}


class Wire(Options):
    """How values travel."""

    values: Literal["fp32", "bf16", "fp16", "int8", "int4"] = "fp32"
    """Type of the values on the wire; `fp32` loses nothing, `int8` and `int4` round at random, right on average."""
    references: bool = True
    """Whether a message tells only the difference to what its receiver holds already; else each stands alone."""
    history: Count = 4
    """Training tasks after which the server counts what a client received as not held any more."""


class Device(Options):
    """A tier of devices."""

    share: Share = 1.0
    """Share of the clients that are of this tier."""
    flops: Rate = 1e10
    """Floating-point operations per second; with `profile` those of the median phone, which nothing has measured."""
    down: Rate = 2.5e6
    """Bytes per second to the device."""
    up: Rate = 1.25e6
    """Bytes per second from the device."""
    latency: Amount = 0.05
    """Seconds that a message takes before its first byte arrives."""
    memory: Amount = 0.0
    """Bytes that training may use; 0 is no limit."""
    dropout: Fraction = 0.0
    """Probability that a task's reply never comes."""
    sparse_kernels: bool = False
    """Whether zeros of the weights are skipped in the arithmetic; else only a smaller model saves time."""
    spread: Annotated[float, Field(ge=1, le=1e6)] = 1.0
    """Time of the tier's slowest against its fastest device for equal work; the others lie evenly between."""
    profile: Literal["", "phones", "phones_low", "phones_mid", "phones_high"] = ""
    """Measured phones, all or a third of them by speed: `down`, `up` and `memory` are theirs then; empty is none."""
    availability: Literal["always", "phones"] = "always"
    """When devices are ready: `phones` is in sessions as those of measured phones."""
    csv: str = ""
    """File of devices, dealt to clients: columns flops, down, up; also latency, memory, dropout, sparse_kernels."""
    trace: str = ""
    """File of when devices are ready, dealt to clients and repeated: columns device, start, end, in seconds."""

    @model_validator(mode="after")
    def _says_it_once(self) -> Self:
        """A number that would not be read is refused."""
        if self.profile and self.csv:
            raise ValueError(f'profile = "{self.profile}" and csv name two sources of devices: take one')
        if self.trace and self.availability != "always":
            raise ValueError(
                f'availability = "{self.availability}" and trace say twice when devices are ready: take one'
            )
        source, theirs = ("profile", ("down", "up", "memory", "spread")) if self.profile else ("csv", _OF_A_FILE)
        for key in theirs if getattr(self, source) else ():
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} is not allowed beside {source}, which says it")
        return self


def add_up(devices: Mapping[str, Device]) -> None:
    """Raise InputError unless the tiers' shares add up to 1."""
    total = sum(device.share for device in devices.values())
    if abs(total - 1) > 0.01:
        shares = ", ".join(f"{name} {device.share:g}" for name, device in devices.items())
        raise InputError(f"The shares of the devices must add up to 1, not {total:g} ({shares or 'there is none'}).")


class Clock(Options):
    """Simulated time: when a round ends, and whom it waits for."""

    deadline: NonNegative = 0.0
    """Simulated seconds after which a task ends: later replies are dropped; 0 is none."""
    over_selection: NonNegative = 0.0
    """Further clients that are asked, as a share of `clients_per_round`; a task ends at the first so many replies."""
    minimum: Count = 1
    """Clients that must be ready for a round to begin; while they are fewer the clock waits."""


class Runtime(Options):
    """Where clients are computed; it changes no result."""

    name: Literal["local", "ray", "grpc"] = "ray"
    """`local` is this process, `ray` a pool of worker processes, `grpc` real clients, each a process of its own."""
    workers: Whole = 0
    """Worker processes; 0 is one a core."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` is CUDA where a worker has one, else the CPU."""
    client_gpus: NonNegative = 0.0
    """Share of a GPU that a worker asks Ray for."""
    ray_address: str = ""
    """Address of a Ray cluster that runs already; empty starts one."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port where clients of `grpc` find the server; 0 is any free one."""
    connect: Positive = 120.0
    """Seconds that the clients of `grpc` have to connect and to load their data."""
    reply: Positive = 3600.0
    """Seconds that a client of `grpc` has to answer; who has not is lost for the round."""


class Compare(Options):
    """What `fedsparse compare` compares."""

    seeds: Count = 3
    """Runs of each variant, with the seeds seed, seed + 1, ..."""
    strategies: tuple[str, ...] = ()
    """Each becomes a variant of its own name; empty is the one of [strategy]."""
    variants: dict[str, dict[str, Any]] = {}
    """Further variants by label: any changes of this experiment."""
    budget: str = ""
    """The variant whose total traffic is the budget of the view at equal MB; empty is the first of strategy feddip,
    else none."""

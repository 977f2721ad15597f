"""What a sub-model saves: local epochs of a ResNet with fewer channels beside those of the whole one, in one run.

    python benchmarks/submodel.py [--widths 1 0.75 0.5 0.25] [--batch 32] [--steps 4] [--rounds 5] [--check]

One thread, synthetic pictures of 3 x 32 x 32. All widths train in turn, `rounds` times; a ratio is the median of the
rounds' own ratios to the whole model. Memory is that of a process of its own: how far its resident set grows over
what it was before the epoch. `--check` ends with 1 unless half of the channels is 1.8 times as fast.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fedsparse import codec, registry, train
from fedsparse.channels import Channels
from fedsparse.payload import Payload, Schema, Spec

SHAPE, CLASSES = (3, 32, 32), 10
WANTED = 1.8


def whole(depth: int) -> nn.Module:
    torch.manual_seed(0)
    return registry.find("models", "resnet")(depth=depth).build(SHAPE, CLASSES)


def part(depth: int, width: float) -> nn.Module:
    net = whole(depth)
    channels = Channels.of(net, SHAPE)
    return channels.module(net.state_dict(), channels.ordered(width))


def epoch(net: nn.Module, batch: int, steps: int) -> float:
    """CPU seconds of one local epoch, as clients run it."""
    draw = torch.Generator().manual_seed(1)
    x = torch.rand(batch, *SHAPE, generator=draw)
    y = torch.randint(CLASSES, (batch,), generator=draw)
    optimise = train.optimizer(net, "sgd", 0.01, 0.9, 0.0)
    loop = train.steps(net, itertools.repeat((x, y), steps), optimise, loss=train.task_loss("classification"))
    start = time.process_time()
    for _ in loop:
        pass
    return time.process_time() - start


def timed(nets: dict[float, nn.Module], batch: int, steps: int, rounds: int) -> dict[float, list[float]]:
    times: dict[float, list[float]] = {width: [] for width in nets}
    for net in nets.values():
        epoch(net, batch, 2)
    for _ in range(rounds):
        for width, net in nets.items():
            times[width].append(epoch(net, batch, steps))
    return times


def flops(net: nn.Module) -> int:
    """Of one sample, forward and backward."""
    counter = FlopCounterMode(display=False)
    with counter:
        net(torch.rand(2, *SHAPE)).sum().backward()
    return int(counter.get_total_flops() / 2)


def upload(depth: int, width: float) -> int:
    """Bytes of a reply without anything that the server knows."""
    net = whole(depth)
    channels, weights = Channels.of(net, SHAPE), net.state_dict()
    specs = {n: Spec(str(t.dtype).removeprefix("torch."), tuple(t.shape)) for n, t in weights.items()}
    schema = Schema(specs, frozenset(n for n, spec in specs.items() if spec.dtype == "float32"))
    return len(codec.encode(Payload(weights, channels.masks(channels.ordered(width))), schema=schema))


# ---- memory ----


def resident(field: str) -> int:
    """A line of this process's status in bytes: VmRSS now, VmHWM at most (Linux)."""
    line = next(text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith(field))
    return int(line.split()[1]) * 1024


def growth(depth: int, width: float, batch: int) -> int:
    """Bytes by which this process grows in three steps of training."""
    net = part(depth, width)
    epoch(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, CLASSES)), batch, 1)  # what any training loads
    Path("/proc/self/clear_refs").write_text("5")  # the most so far is forgotten
    before = resident("VmRSS")
    epoch(net, batch, 3)
    return resident("VmHWM") - before


def measured_growth(depth: int, width: float, batch: int) -> int:
    command = [sys.executable, __file__, "--depth", str(depth), "--batch", str(batch), "--grow", str(width)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--widths", type=float, nargs="+", default=[1.0, 0.75, 0.5, 0.25])
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--grow", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.grow is not None:
        print(growth(options.depth, options.grow, options.batch))
        return
    widths = sorted({1.0, *options.widths}, reverse=True)
    nets = {width: part(options.depth, width) for width in widths}
    times = timed(nets, options.batch, options.steps, options.rounds)
    faster = {w: statistics.median(a / b for a, b in zip(times[1.0], times[w], strict=True)) for w in widths}
    table = Table(title=f"ResNet-{options.depth}, batches of {options.batch}, one thread")
    for column in ("width", "numbers", "MFLOPs a sample", "ms a step", "times as fast", "peak MB", "reply kB"):
        table.add_column(column, justify="right")
    for width, net in nets.items():
        table.add_row(
            f"{width:g}",
            f"{sum(t.numel() for t in net.state_dict().values()):,}",
            f"{flops(net) / 1e6:.1f}",
            f"{statistics.median(times[width]) / options.steps * 1e3:.1f}",
            f"{faster[width]:.2f}",
            f"{measured_growth(options.depth, width, options.batch) / 1e6:.1f}",
            f"{upload(options.depth, width) / 1e3:.0f}",
        )
    Console().print(table)
    if options.check and faster.get(0.5, 0.0) < WANTED:
        sys.exit(f"half of the channels is {faster.get(0.5, 0.0):.2f} times as fast, not {WANTED}")


if __name__ == "__main__":
    main()

"""Real nets to encode: ResNet-20 and ResNet-18 with the CIFAR stem, trained on CIFAR-10, then pruned to 10 %.

    python benchmarks/codec/nets.py [--cache ~/.cache/fedsparse-bench] [--only resnet20]

Two epochs each of SGD with Nesterov momentum, one-cycle rate, crops and flips, in one thread; bfloat16 where the CPU
has it, float32 weights. Each net is one safetensors file in the cache: the dense state under "weights/", the masks of
global magnitude pruning under "masks/". Every 500 steps are kept: a run that was ended goes on where it was.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fedsparse import masks
from fedsparse.data import Data
from fedsparse.federation import maskable
from fedsparse.models.base import Model
from fedsparse.models.resnet import ResNet
from fedsparse.models.torchvision_resnet import TorchvisionResNet
from fedsparse.randomness import generator, integer

CACHE = Path.home() / ".cache" / "fedsparse-bench"
MODELS: dict[str, Model] = {"resnet20": ResNet(), "resnet18": TorchvisionResNet()}
BATCH, EPOCHS, PEAK, MOMENTUM, DECAY = 128, 2, 0.1, 0.9, 5e-4
KEEP_EVERY = 500  # steps
PADDING, DENSITY = 4, 0.1


@dataclass(frozen=True)
class Net:
    """A trained net: its dense state, the masks of its convolutional and linear weights, its test accuracy."""

    weights: dict[str, Tensor]
    masks: dict[str, Tensor]
    accuracy: float
    """In [0, 1], before pruning."""


def load(cache: Path, name: str) -> Net | None:
    """A net of the cache, None where it was not trained yet."""
    file = cache / f"{name}.safetensors"
    if not file.is_file():
        return None
    with safe_open(file, "pt") as stored:
        accuracy = float((stored.metadata() or {})["accuracy"])
    tensors = load_file(file)
    return Net(_group(tensors, "weights/"), _group(tensors, "masks/"), accuracy)


def _group(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def train(name: str, data: Data, cache: Path) -> None:
    """Train one net, from its last kept step if there is one, and store it with its masks."""
    torch.manual_seed(integer(0, name))
    net = MODELS[name].build(data.shape, data.outputs)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(net.parameters(), PEAK, MOMENTUM, weight_decay=DECAY, nesterov=True)
    draft = cache / f"{name}.draft.safetensors"
    first = _resume(net, optimiser, draft)
    began = time.perf_counter()
    total = EPOCHS * -(-len(data.x) // BATCH)
    for step, (x, y) in _batches(data, first, total):
        for group in optimiser.param_groups:
            group["lr"] = PEAK * min((step + 1) / (0.3 * total), (total - step) / (0.7 * total))
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimiser.step()
        done = step + 1
        if done % 50 == 0:
            pace = (time.perf_counter() - began) / (done - first)
            print(f"{name} step {done}/{total}: loss {loss:.3f}, {pace:.2f} s a step", flush=True)
        if done % KEEP_EVERY == 0:
            _keep(net, optimiser, draft, done)
    accuracy = _accuracy(net, data)
    print(f"{name}: {accuracy:.2%} of the official test set", flush=True)
    _store(net, accuracy, cache / f"{name}.safetensors")
    draft.unlink(missing_ok=True)


def _batches(data: Data, first: int, total: int) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    """Batches `first` to `total`, each a function of its number alone."""
    an_epoch = -(-len(data.x) // BATCH)
    for step in range(first, total):
        epoch, at = divmod(step, an_epoch)
        order = torch.from_numpy(generator(0, "order", epoch).permutation(len(data.x)))
        rows = order[at * BATCH : (at + 1) * BATCH]
        yield step, (_moved(data.x[rows], step), data.y[rows])


def _moved(x: Tensor, step: int) -> Tensor:
    """Pictures (N, C, H, W), each shifted by up to 4 pixels both ways and every second one mirrored."""
    rng = generator(0, "moves", step)
    count, _, height, width = x.shape
    down, right = (torch.from_numpy(rng.integers(0, 2 * PADDING + 1, (count, 1))) for _ in range(2))
    columns = torch.arange(width).repeat(count, 1)
    mirrored = torch.from_numpy(rng.random((count, 1)) < 0.5)
    columns = torch.where(mirrored, columns.flip(1), columns) + right
    rows = torch.arange(height) + down
    padded = nn.functional.pad(x, (PADDING,) * 4).permute(0, 2, 3, 1)
    picked = padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)  # channels last in memory, as the net is


@torch.no_grad()
def _accuracy(net: nn.Module, data: Data) -> float:
    net.eval()
    x, y = data.test or (data.x, data.y)
    with torch.autocast("cpu", torch.bfloat16):
        found = [net(part.contiguous(memory_format=torch.channels_last)).argmax(1) for part in x.split(500)]
    return float((torch.cat(found) == y).double().mean())


def _store(net: nn.Module, accuracy: float, file: Path) -> None:
    state = {name: tensor.detach().contiguous() for name, tensor in net.state_dict().items()}
    scores = {name: state[name].abs() for name in maskable(net)}
    keep = round(DENSITY * sum(score.numel() for score in scores.values()))
    tensors = {f"weights/{name}": tensor for name, tensor in state.items()}
    tensors |= {f"masks/{name}": mask.contiguous() for name, mask in masks.top_k(scores, keep).items()}
    _replace(tensors, file, {"accuracy": repr(accuracy)})


def _keep(net: nn.Module, optimiser: torch.optim.Optimizer, draft: Path, step: int) -> None:
    tensors = {f"weights/{name}": tensor.detach().contiguous() for name, tensor in net.state_dict().items()}
    for name, parameter in net.named_parameters():
        tensors[f"momentum/{name}"] = optimiser.state[parameter]["momentum_buffer"].contiguous()
    _replace(tensors, draft, {"step": str(step)})


def _resume(net: nn.Module, optimiser: torch.optim.Optimizer, draft: Path) -> int:
    """The step to go on with: 0, or the one after the draft's, whose state both then have."""
    if not draft.is_file():
        return 0
    with safe_open(draft, "pt") as stored:
        step = int((stored.metadata() or {})["step"])
    tensors = load_file(draft)
    net.load_state_dict(_group(tensors, "weights/"))
    momentum = _group(tensors, "momentum/")
    for name, parameter in net.named_parameters():
        optimiser.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum[name])
    return step


def _replace(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
    new = file.with_suffix(".new")
    save_file(tensors, new, metadata)
    new.replace(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--only", choices=list(MODELS))
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    data: Data | None = None
    for name in [options.only] if options.only else MODELS:
        if (found := load(options.cache, name)) is not None:
            print(f"{name} is in {options.cache}: {found.accuracy:.2%} of the official test set")
            continue
        if data is None:
            from fedsparse.datasets.cifar10 import CIFAR10

            data = CIFAR10().load()
        train(name, data, options.cache)


if __name__ == "__main__":
    main()

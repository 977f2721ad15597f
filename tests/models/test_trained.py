"""Deep models in a federation: BatchNorm and dropout included, a round is played and can be repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import fedsparse as fs
from fedsparse.data import Data, Dataset


class Squares(Dataset):
    """Sixty pictures of 3 x 32 x 32: noise, with a bright square on the left or on the right."""

    def load(self) -> Data:
        """Class 0 is left, 1 is right."""
        x = torch.randn(60, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        y = torch.arange(60) % 2
        x[y == 0, :, 8:24, :16] += 2
        x[y == 1, :, 8:24, 16:] += 2
        return Data(x=x, y=y, classes=2)


def played(out: Path, rounds: int = 1, **model: Any) -> fs.Run:
    return fs.run(
        {
            "rounds": rounds,
            "clients": 2,
            "dataset": f"{Path(__file__)}:Squares",
            "partition": "iid",
            "model": model,
            "train": {"batch_size": 4, "momentum": 0.9},  # 21 samples a client: a last batch of one
            "runtime": {"name": "local"},
        },
        out=out,
    )


def test_resnet_learns_in_a_federation(tmp_path: Path) -> None:
    run = played(tmp_path / "run", rounds=4, name="resnet", width=0.25)
    first, *_, last = run.rounds["loss"]
    assert last < 0.5 * first
    model = run.model()
    assert sum(p.numel() for p in model.parameters()) == 17_190  # two classes
    assert model.state_dict()["norm.num_batches_tracked"] > 0


def test_a_round_with_dropout_can_be_repeated(tmp_path: Path) -> None:
    first, again, other = (
        played(tmp_path / name, name="alexnet", width=0.02, dropout=share).info["model_hash"]
        for name, share in (("a", 0.5), ("b", 0.5), ("c", 0.0))
    )
    assert first == again != other

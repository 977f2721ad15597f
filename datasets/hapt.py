"""Six activities of 30 people from a phone at the waist (Reyes-Ortiz et al., UCI HAPT, 2015; CC BY 4.0).

Read from hapt/hapt_windows.npz under FEDSPARSE_DATA, which `python -m fedsparse.convert.hapt` makes of the published
files: x (N, 6, 128), y (N) from 0, subject (N), experiment (N). A window is 2.56 s at 50 Hz, and inside a stretch of
one activity each overlaps the next by half. So windows drawn at random would be known from training by half: what is
dealt out are blocks of consecutive windows, with one window left out where two parts meet.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from fedsparse.data import Data, Dataset, published
from fedsparse.errors import InputError
from fedsparse.options import Count

FILE = Path("hapt", "hapt_windows.npz")
SOURCE = (
    'get "Smartphone-Based Recognition of Human Activities and Postural Transitions" from the UCI Machine '
    "Learning Repository"
)
WINDOW = (6, 128)
CLASSES = 6
"""Walking, upstairs, downstairs, sitting, standing, lying."""
GRAVITY = 0.8
"""What the accelerometer's first axis shows of an upright person, in g."""
SCALE = 0.4
"""About the spread of each axis over all activities: in g of the accelerometer, in rad/s of the gyroscope."""


class HAPT(Dataset):
    """Smartphone activities (UCI HAPT): 10,411 windows of 6 x 128 of 30 people, who are the clients; 6 classes."""

    block: Count = 10
    """Consecutive windows of a recording that stay together in training, validation or test."""

    def load(self) -> Data:
        """Acceleration without gravity (axes 0 to 2) and angular velocity (3 to 5), each divided by its scale."""
        arrays = _read()
        x = torch.from_numpy(arrays["x"].astype(np.float32))
        x[:, 0] -= GRAVITY
        return Data(
            x=x.div_(SCALE),
            y=torch.from_numpy(arrays["y"].astype(np.int64)),
            classes=CLASSES,
            clients=arrays["subject"],
            groups=blocks(arrays["subject"], arrays["experiment"], self.block),
            gap=1,
        )


def blocks(subject: np.ndarray, experiment: np.ndarray, size: int) -> np.ndarray:
    """The number of each row's block: `size` rows in a row of one subject and experiment, fewer at its end."""
    begins = np.ones(len(subject), dtype=bool)
    begins[1:] = (subject[1:] != subject[:-1]) | (experiment[1:] != experiment[:-1])
    rows = np.arange(len(subject))
    since = rows - np.maximum.accumulate(np.where(begins, rows, 0))
    return np.cumsum(since % size == 0) - 1


def _read() -> dict[str, np.ndarray]:
    path = published("hapt", FILE, SOURCE)
    try:
        if not zipfile.is_zipfile(path):  # NumPy would call it a pickle
            raise ValueError("it is no whole .npz")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("x", "y", "subject", "experiment")}
        _check(arrays)
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"The file {path} is damaged ({reason}): make it anew with `python -m fedsparse.convert.hapt SOURCE OUT`."
        ) from error
    return arrays


def _check(arrays: dict[str, np.ndarray]) -> None:
    x = arrays["x"]
    wanted = {"x": (len(x), *WINDOW)} | {name: (len(x),) for name in ("y", "subject", "experiment")}
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has the shape {arrays[name].shape}, not {shape}")
        if arrays[name].dtype.kind not in "iuf":
            raise ValueError(f"{name} holds no numbers")
    if not np.isfinite(x).all():
        raise ValueError("x holds what is no finite number")

"""The recordings of UCI HAPT (CC BY 4.0) as windows, for the data set hapt.

    python -m fedsparse.convert.hapt SOURCE OUT

SOURCE is the unpacked archive of "Smartphone-Based Recognition of Human Activities and Postural Transitions" from the
UCI Machine Learning Repository, or its folder RawData. OUT is hapt/hapt_windows.npz under the folder that
FEDSPARSE_DATA names.

Files that are used, as the archive's own description has them:
- labels.txt: experiment, user, activity, first and last sample; a row a stretch of one activity, samples at 50 Hz.
- acc_expXX_userYY.txt, gyro_expXX_userYY.txt: three axes a sample, in g and in rad/s, unfiltered.

Stretches of the activities 1 to 6 are cut into windows of 128 samples that overlap by half, from each stretch's first
sample on; what is left at its end, and the transitions between postures (7 to 12), are not used. Samples are counted
from 1, and the last one belongs to the stretch. Rows are in the order of user, experiment and time.

What was checked: this program on small folders made up like the archive, and against the windows that the results here
were made with: they are cut like this, and their values are whole steps of the unfiltered sensors (1/720 g). The
archive itself could not be fetched where this was written.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fedsparse.convert import command
from fedsparse.errors import InputError

LENGTH, STRIDE = 128, 64
ACTIVITIES = range(1, 7)


def arrays(source: Path) -> dict[str, np.ndarray]:
    """x (N, 6, 128) float16, y (N) from 0, subject (N), experiment (N): the user's first is 0."""
    folder = source / "RawData" if (source / "RawData").is_dir() else source
    labels = _table(folder / "labels.txt", 5).astype(np.int64)
    experiment, user, _, first, _ = labels.T
    found: dict[str, list[np.ndarray]] = {"x": [], "y": [], "subject": [], "experiment": []}
    for person in np.unique(user):
        for number, recording in enumerate(np.unique(experiment[user == person])):
            name = f"exp{recording:02d}_user{person:02d}.txt"
            signal = _signal(folder / f"acc_{name}", folder / f"gyro_{name}")
            own = labels[(user == person) & (experiment == recording)]
            for _, _, activity, start, end in own[np.argsort(own[:, 3], kind="stable")]:
                if not 1 <= start <= end <= len(signal):
                    raise InputError(
                        f"The file {folder / 'labels.txt'} has a stretch from {start} to {end} in a recording of "
                        f"{len(signal)} samples: experiment {recording}, user {person}."
                    )
                windows = _windows(signal[start - 1 : end]) if activity in ACTIVITIES else signal[:0]
                for key, value in {"y": activity - 1, "subject": person, "experiment": number}.items():
                    found[key].append(np.full(len(windows), value, dtype=np.int64))
                if len(windows):
                    found["x"].append(windows)
    if not found["x"]:
        raise InputError(f"The folder {folder} holds no stretch of {LENGTH} samples of the activities 1 to 6.")
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _windows(stretch: np.ndarray) -> np.ndarray:
    """Windows (N, 6, 128) of samples (T, 6)."""
    if len(stretch) < LENGTH:
        return np.empty((0, stretch.shape[1], LENGTH), dtype=np.float16)
    return sliding_window_view(stretch, LENGTH, axis=0)[::STRIDE].astype(np.float16)


def _signal(*files: Path) -> np.ndarray:
    """Both sensors side by side: (T, 6)."""
    acceleration, velocity = (_table(file, 3) for file in files)
    if len(acceleration) != len(velocity):
        raise InputError(
            f"The files {files[0]} and {files[1]} have {len(acceleration)} and {len(velocity)} samples: "
            f"as many of both are needed."
        )
    return np.concatenate([acceleration, velocity], axis=1)


def _table(file: Path, columns: int) -> np.ndarray:
    try:
        table = np.loadtxt(file, ndmin=2)
    except (OSError, ValueError) as error:
        raise InputError(f"The file {file} cannot be read ({str(error).rstrip('.')}).") from error
    if table.shape[1] != columns or not np.isfinite(table).all():
        raise InputError(f"The file {file} must hold {columns} numbers in each line.")
    return table


if __name__ == "__main__":
    sys.exit(command(__doc__, arrays))

"""CIFAR-10 (Krizhevsky, 2009), from the published files or from lossless mosaics of its pictures.

Looked for under FEDSPARSE_DATA as torchvision lays it out (cifar-10-batches-py/, or cifar-10-python.tar.gz), then as
mosaics: cifar10/data_batch_1.webp to 5 and test_batch.webp, each 250 rows of 40 pictures in the official order, and
cifar10/labels.npz with the labels `train` and `test`. Else it is downloaded once into the user's cache folder.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedsparse.data import Data, Dataset, cached, root
from fedsparse.datasets._cifar import Published
from fedsparse.datasets._pictures import picture, standardised
from fedsparse.errors import InputError

PUBLISHED = Published("cifar10", "CIFAR10", "cifar-10-batches-py", "cifar-10-python.tar.gz")
FOLDER, LABELS = "cifar10", "labels.npz"
MOSAICS = {"train": tuple(f"data_batch_{i}.webp" for i in range(1, 6)), "test": ("test_batch.webp",)}
FILES = (*MOSAICS["train"], *MOSAICS["test"], LABELS)
DOWN, ACROSS, SIDE = 250, 40, 32
"""Rows and columns of a mosaic, pixels of a picture's side."""
MEAN, SD = (0.49139968, 0.48215841, 0.44653091), (0.24703223, 0.24348513, 0.26158784)
"""Red, green and blue of the training pictures, as shares of white."""


class CIFAR10(Dataset):
    """CIFAR-10: 50,000 + 10,000 pictures of 3 x 32 x 32, 10 classes, with its official test set; standardised."""

    download: bool = True
    """Download the 170 MB into the user's cache folder when they are not under FEDSPARSE_DATA."""

    def load(self) -> Data:
        """Pictures as 3 x 32 x 32, each channel with mean 0 and standard deviation 1."""
        home = root()
        mosaics = home and not PUBLISHED.lies_under(home) and any((home / FOLDER / name).is_file() for name in FILES)
        (x, y), (test, labels) = _mosaics(home / FOLDER) if home and mosaics else PUBLISHED.read(self.download)
        return Data(x=standardised(x, MEAN, SD), y=y, classes=10, test=(standardised(test, MEAN, SD), labels))


def _mosaics(folder: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and test part, each as pictures, uint8 (N, 3, 32, 32), and labels, int64 (N).

    Decoding takes seconds: what was decoded is kept in the cache, under a name that depends on the mosaics' content.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise InputError(f"The data set cifar10 lacks the file {folder / name}: {', '.join(FILES)} are needed.")
    labels = _labels(folder / LABELS)
    decoded = cached(f"cifar10-{_fingerprint(folder)}", lambda draft: _decode(folder, draft))
    return (_pictures(decoded, "train"), labels["train"]), (_pictures(decoded, "test"), labels["test"])


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (*MOSAICS["train"], *MOSAICS["test"]):
        with (folder / name).open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _labels(file: Path) -> dict[str, Tensor]:
    try:
        with np.load(file) as arrays:
            return {part: torch.from_numpy(arrays[part].astype(np.int64)) for part in MOSAICS}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"The file {file} is damaged: it must hold the labels as arrays train and test.") from error


def _decode(folder: Path, draft: Path) -> None:
    for part, names in MOSAICS.items():
        pictures = np.concatenate([_mosaic(folder / name) for name in names])
        try:
            np.save(draft / f"{part}.npy", pictures)
        except OSError as error:
            raise InputError(
                f"The pictures of {folder} cannot be kept in {draft.parent} ({error.strerror}): "
                f"set XDG_CACHE_HOME to a folder with room for 190 MB."
            ) from error


def _mosaic(file: Path) -> np.ndarray:
    pixels = np.asarray(picture(file, "RGB"))
    due = (DOWN * SIDE, ACROSS * SIDE, 3)
    if pixels.shape != due:
        raise InputError(
            f"The mosaic {file} is {pixels.shape[1]} x {pixels.shape[0]} pixels: {due[1]} x {due[0]} are due, "
            f"{DOWN} rows of {ACROSS} pictures."
        )
    return pixels.reshape(DOWN, SIDE, ACROSS, SIDE, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, SIDE, SIDE)


def _pictures(decoded: Path, part: str) -> Tensor:
    file = decoded / f"{part}.npy"
    try:
        return torch.from_numpy(np.load(file))
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"The file {file} of the cache is damaged: remove {decoded}, it is made again.") from error

"""Fashion-MNIST (Xiao et al., arXiv 1708.07747), read by torchvision's loader.

Looked for as torchvision lays it out: FashionMNIST/raw/train-images-idx3-ubyte and three more, each as it is or as .gz,
under FEDSPARSE_DATA; else downloaded once into the user's cache folder.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import zlib
from io import BufferedReader
from pathlib import Path

from torch import Tensor

from fedsparse.data import Data, Dataset, cache, cached, downloading, root
from fedsparse.errors import InputError

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
RAW = Path("FashionMNIST", "raw")
MEAN, SD = 0.2860, 0.3530
"""Of the training pictures, as shares of white."""


class FashionMNIST(Dataset):
    """Fashion-MNIST: 60,000 + 10,000 pictures of 28 x 28, 10 classes, with its official test set; standardised."""

    download: bool = True
    """Download the 31 MB into the user's cache folder when they are not under FEDSPARSE_DATA."""

    def load(self) -> Data:
        """Pictures as 1 x 28 x 28 with mean 0 and standard deviation 1."""
        folder = self._folder()
        x, y = _read(folder, train=True)
        return Data(x=x, y=y, classes=10, test=_read(folder, train=False))

    def _folder(self) -> Path:
        """The folder that torchvision calls root, with all four files unpacked."""
        home = root()
        found = [_find(home, name) for name in FILES] if home else [None]
        files = [file for file in found if file]
        if home and len(files) == len(FILES):
            if all(file.suffix != ".gz" for file in files):
                return home
            return cached(f"fashion_mnist-{_fingerprint(files)}", lambda draft: _unpack(files, draft))
        if not self.download and not (cache() / "fashion_mnist").is_dir():
            raise _missing(home, found.index(None), "download = false")
        return cached("fashion_mnist", lambda draft: _download(draft, home, found.index(None)))


def _find(home: Path, name: str) -> Path | None:
    plain = home / RAW / name
    return next((file for file in (plain, plain.with_name(f"{name}.gz")) if file.is_file()), None)


def _missing(home: Path | None, first: int, why: str) -> InputError:
    here = f"FEDSPARSE_DATA ({home})" if home else "FEDSPARSE_DATA (which is not set)"
    return InputError(
        f"The data set fashion_mnist is missing: there is no {RAW / FILES[first]}[.gz] under {here}, nothing in the "
        f"cache folder, and no download ({why}); set FEDSPARSE_DATA to a folder that holds the four files of {RAW}, "
        f"or run once with a network."
    )


def _fingerprint(files: list[Path]) -> str:
    # A .gz ends with checksum and length of what is inside; so other files under FEDSPARSE_DATA are unpacked anew.
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - 8))
            digest.update(f"{file.name} {file.stat().st_size} ".encode() + stream.read())
    return digest.hexdigest()[:16]


def _open(file: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(file) if file.suffix == ".gz" else file.open("rb")


def _unpack(files: list[Path], draft: Path) -> None:
    (draft / RAW).mkdir(parents=True)
    for name, file in zip(FILES, files, strict=True):
        try:
            with _open(file) as packed, (draft / RAW / name).open("wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(f"The file {file} is damaged ({error}): replace it by the published one.") from error
        except OSError as error:
            raise InputError(f"The file {file} cannot be unpacked into {draft.parent} ({error.strerror}).") from error


def _download(draft: Path, home: Path | None, first: int) -> None:
    from fedsparse.vision import torchvision

    source = torchvision.datasets.FashionMNIST
    try:
        with downloading(source.mirrors[0] + source.resources[1][0]):
            source(draft, download=True)
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise _missing(home, first, reason) from error
    for packed in (draft / RAW).glob("*.gz"):
        packed.unlink()


def _read(folder: Path, train: bool) -> tuple[Tensor, Tensor]:
    from fedsparse.vision import torchvision

    try:
        source = torchvision.datasets.FashionMNIST(folder, train=train)
    except (OSError, RuntimeError, ValueError, AssertionError, TypeError, KeyError, IndexError) as error:
        reason = f": {error}" if str(error) else ""
        raise InputError(
            f"The {'training' if train else 'test'} files of Fashion-MNIST in {folder / RAW} are damaged "
            f"({type(error).__name__}{reason}): replace them by the published ones."
        ) from error
    return source.data.unsqueeze(1).float().div_(255.0).sub_(MEAN).div_(SD), source.targets.long()

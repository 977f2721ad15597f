"""What CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) share: their published files, read by torchvision's loaders.

Looked for as torchvision lays them out, a folder of pickles or the published .tar.gz, under FEDSPARSE_DATA; else
downloaded once into the user's cache folder. torchvision compares every file with its MD5 before it unpickles it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedsparse.data import cache, cached, downloading, root
from fedsparse.errors import InputError


@dataclass(frozen=True)
class Published:
    """Where torchvision looks for a data set: `name` is ours, `loader` torchvision's class."""

    name: str
    loader: str
    folder: str
    archive: str

    def lies_under(self, home: Path) -> bool:
        return (home / self.folder).is_dir() or (home / self.archive).is_file()

    def read(self, download: bool) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Training and test part, each as pictures, uint8 (N, 3, 32, 32), and labels, int64 (N).

        Raises InputError when the files are damaged, or nowhere and not to be had.
        """
        from fedsparse.vision import torchvision

        source = getattr(torchvision.datasets, self.loader)
        folder = self._root(source, download)
        return self._part(source, folder, train=True), self._part(source, folder, train=False)

    def _root(self, source: Any, download: bool) -> Path:
        """The folder that torchvision calls root."""
        home = root()
        if home and (home / self.folder).is_dir():
            return home
        if home and (home / self.archive).is_file():
            return cached(self.name, lambda draft: _unpack(source, home / self.archive, draft))
        if not download and not (cache() / self.name).is_dir():
            raise self._missing("download = false")
        return cached(self.name, lambda draft: self._download(source, draft))

    def _missing(self, why: str) -> InputError:
        home = root()
        here = f"FEDSPARSE_DATA ({home})" if home else "FEDSPARSE_DATA (which is not set)"
        return InputError(
            f"The data set {self.name} is missing: there is no {self.folder} and no {self.archive} under {here}, "
            f"nothing in the cache folder, and no download ({why}); set FEDSPARSE_DATA to a folder that holds "
            f"either, or run once with a network."
        )

    def _download(self, source: Any, draft: Path) -> None:
        try:
            with downloading(source.url):
                source(draft, download=True)
        except (OSError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise self._missing(reason) from error
        (draft / self.archive).unlink()

    def _part(self, source: Any, folder: Path, train: bool) -> tuple[Tensor, Tensor]:
        try:
            part = source(folder, train=train)
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"The file {_culprit(source, folder)} of {self.name} is missing or not the published one: "
                f"replace it, or take the whole folder away."
            ) from error
        return torch.from_numpy(part.data).permute(0, 3, 1, 2), torch.tensor(part.targets)


def _unpack(source: Any, archive: Path, draft: Path) -> None:
    from fedsparse.vision import torchvision

    utils = torchvision.datasets.utils
    try:
        if not utils.check_integrity(archive, source.tgz_md5):
            raise InputError(f"The file {archive} is not the published one (its MD5 is not {source.tgz_md5}).")
        utils.extract_archive(archive, draft)
    except OSError as error:
        raise InputError(f"The file {archive} cannot be unpacked into {draft.parent} ({error.strerror}).") from error


def _culprit(source: Any, folder: Path) -> Path:
    """The first file that is not as published."""
    from fedsparse.vision import torchvision

    files = [*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])]
    for name, md5 in files:
        file = folder / source.base_folder / name
        try:
            if not torchvision.datasets.utils.check_integrity(file, md5):
                return file
        except OSError:
            return file
    return folder / source.base_folder

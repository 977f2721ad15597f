"""A folder of the user's own pictures, one folder a class, as torchvision's ImageFolder takes it: CLASS/name.png."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fedsparse.data import Data, Dataset, located
from fedsparse.datasets._pictures import picture, standardised
from fedsparse.errors import InputError

Side = Annotated[int, Field(ge=1, le=1024)]


class ImageFolder(Dataset):
    """A folder of your own pictures, one folder a class; with folders train and test, these are the official split."""

    folder: Annotated[str, Field(min_length=1)]
    """The folder, under FEDSPARSE_DATA or from the working directory."""
    size: Side = 32
    """Pixels of a side: every picture is resized to a square, whatever its shape."""
    grey: bool = False
    """One channel of grey in place of red, green and blue."""

    def load(self) -> Data:
        """Pictures as 3 x size x size (1 with grey), black is -1, white 1; classes are in the order of their names.

        Pictures are as they are stored: a camera's note on how to turn them is not read.
        """
        folder = located(self.folder)
        if not folder.is_dir():
            raise InputError(
                f"The folder {folder} of the data set image_folder is not there, neither under FEDSPARSE_DATA "
                f"nor from the working directory."
            )
        split = all((folder / part).is_dir() for part in ("train", "test"))
        classes, files = _classes(folder / "train" if split else folder)
        return Data(
            x=self._pictures([file for file, _ in files]),
            y=torch.tensor([label for _, label in files]),
            classes=len(classes),
            test=self._test(folder / "test", classes) if split else None,
        )

    def _test(self, folder: Path, classes: list[str]) -> tuple[Tensor, Tensor]:
        own, files = _classes(folder)
        for name in own:
            if name not in classes:
                raise InputError(f"The folder {folder} has a class {name} that train does not have.")
        labels = [classes.index(own[label]) for _, label in files]
        return self._pictures([file for file, _ in files]), torch.tensor(labels)

    def _pictures(self, files: list[str]) -> Tensor:
        from PIL.Image import Resampling

        channels = 1 if self.grey else 3
        pixels = np.empty((len(files), self.size, self.size, channels), dtype=np.uint8)
        for into, file in zip(pixels, files, strict=True):
            image = picture(Path(file), "L" if self.grey else "RGB")
            image = image.resize((self.size, self.size), Resampling.BILINEAR)
            into[:] = np.asarray(image).reshape(into.shape)
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        return standardised(x, [0.5] * channels, [0.5] * channels)


def _classes(folder: Path) -> tuple[list[str], list[tuple[str, int]]]:
    """Names of the classes, and (file, class) of each picture, both in the order of their names."""
    from fedsparse.vision import torchvision

    try:
        found = torchvision.datasets.ImageFolder(folder, allow_empty=True)
    except OSError as error:
        raise InputError(f"The folder {folder} holds no classes: one folder a class is due.") from error
    used = {label for _, label in found.samples}
    for label, name in enumerate(found.classes):
        if label not in used:
            kinds = ", ".join(found.extensions)
            raise InputError(f"The class {folder / name} holds no pictures: each needs some, of {kinds}.")
    if len(found.classes) < 2:
        raise InputError(f"The folder {folder} holds the class {found.classes[0]} alone: at least two are needed.")
    return found.classes, found.samples

"""Reading pictures, for the data sets that hold some."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedsparse.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

DEEP = ("I", "F")
"""Modes of more than 8 bits a channel begin with these letters; converting them would cut their values off."""


def picture(file: Path, mode: str) -> Image:
    """A picture file in the mode "RGB" or "L" (grey), 8 bits a channel. Raises InputError that names the file."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            if not image.mode.startswith(DEEP):
                return image.convert(mode)
    except Exception as error:  # each format's decoder has errors of its own
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise InputError(f"The picture {file} cannot be read ({reason}): replace it or take it away.") from error
    raise InputError(f"The picture {file} has more than 8 bits a channel (mode {image.mode}): save it with 8.")


def standardised(pictures: Tensor, mean: Sequence[float], sd: Sequence[float]) -> Tensor:
    """uint8 (N, C, H, W) as float32: shares of white, less each channel's mean, over its standard deviation."""
    centre, scale = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (mean, sd))
    return pictures.float().div_(255.0).sub_(centre).div_(scale)

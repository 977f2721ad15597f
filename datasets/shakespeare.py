"""Shakespeare's plays as next-character prediction, after McMahan et al. (arXiv 1602.05629): a role is a client.

Read from shakespeare/shakespeare_roles.json.gz under FEDSPARSE_DATA, a JSON object {"play/role": what it says}, which
`python -m fedsparse.convert.shakespeare SOURCE OUT` makes of plain texts of the plays. An input is `length` characters
as tokens, its target the one that follows. By default no character is in two samples; with a smaller stride samples
overlap, and then what is dealt out are blocks of them, with those left out that would reach into another part.
"""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from fedsparse.data import Data, Dataset, published
from fedsparse.errors import InputError
from fedsparse.options import Count, Whole

FILE = Path("shakespeare", "shakespeare_roles.json.gz")
SOURCE = "get the plays as plain texts from Project Gutenberg"
VOCABULARY = "\n !\"&'(),-./0123456789:;?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_abcdefghijklmnopqrstuvwxyz{}"
"""Token 1 is the first of these characters, and so on; token 0 is any other."""
SAMPLES_A_BLOCK = 5
"""Length of a block, counted in samples that do not overlap."""


class Shakespeare(Dataset):
    """Shakespeare's plays (Project Gutenberg): the character after 80; 45,189 samples of 427 roles, 84 classes."""

    length: Count = 80
    """Characters of an input."""
    stride: Count | None = None
    """Characters from one sample to the next; left out, length + 1: no character is in two samples."""
    min_characters: Count = 2000
    """Roles that say less are left out."""
    roles: Whole = 0
    """Only so many roles, those that say most; 0 is all."""

    def load(self) -> Data:
        """Inputs (N, length) and targets (N), both int64 tokens; 29 MB by default, 80 times that with stride = 1."""
        stride = self.stride or self.length + 1
        gap = self.length // stride
        block = SAMPLES_A_BLOCK * (gap + 1) if gap else 1
        self._check_blocks(stride, block)
        texts = self._chosen(_read())
        samples = [sliding_window_view(tokens(text), self.length + 1)[::stride] for text in texts.values()]
        counts = [len(own) for own in samples]
        rows = torch.from_numpy(np.concatenate(samples))
        return Data(
            x=rows[:, :-1].contiguous(),
            y=rows[:, -1].contiguous(),
            classes=len(VOCABULARY) + 1,
            clients=np.repeat(list(texts), counts),
            groups=_blocks(counts, block) if gap else None,
            gap=gap,
        )

    def _check_blocks(self, stride: int, block: int) -> None:
        needed = self.length + 1 + (3 * block - 1) * stride
        if self.min_characters < needed:
            raise InputError(
                f"The data set shakespeare has min_characters = {self.min_characters}, but with length = {self.length} "
                f"and stride = {stride} a role needs {needed} for three {'samples' if block == 1 else 'blocks'}."
            )

    def _chosen(self, texts: dict[str, str]) -> dict[str, str]:
        """The roles that take part, who says most first."""
        found = sorted(
            (name for name in texts if len(texts[name]) >= self.min_characters), key=lambda n: -len(texts[n])
        )
        if len(found) < max(1, self.roles):
            raise InputError(
                f"The data set shakespeare has {len(found)} roles of at least min_characters = {self.min_characters} "
                f"characters, but {max(1, self.roles)} are wanted: lower roles or min_characters."
            )
        return {name: texts[name] for name in found[: self.roles or None]}


def tokens(text: str) -> np.ndarray:
    """The text's characters as int64 tokens."""
    table = np.zeros(128, dtype=np.int64)
    table[[ord(character) for character in VOCABULARY]] = np.arange(1, len(VOCABULARY) + 1)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return table[np.minimum(codes, 127)]  # 127 is no printable character


def _blocks(counts: list[int], size: int) -> np.ndarray:
    """The number of each sample's block: `size` in a row of one role, fewer at its end."""
    since = np.concatenate([np.arange(count) for count in counts])
    return np.cumsum(since % size == 0) - 1


def _read() -> dict[str, str]:
    path = published("shakespeare", FILE, SOURCE)
    try:
        texts = json.loads(gzip.decompress(path.read_bytes()))
        if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            raise ValueError("it does not hold one text a role")
    except (OSError, ValueError, EOFError, RecursionError, zlib.error) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"The file {path} is damaged ({reason}): make it anew with "
            f"`python -m fedsparse.convert.shakespeare SOURCE OUT`."
        ) from error
    return texts

"""Randomness as a pure function of (seed, round, phase, client, purpose): nobody draws from a global generator.

That is what makes a run repeatable in every runtime, and a client's retry equal to its first try.
"""

from __future__ import annotations

import hashlib
import zlib

import numpy as np
import torch

Key = int | str


def _words(seed: int, keys: tuple[Key, ...]) -> list[int]:
    # A string becomes (length, crc32), an integer (two words): no two key lists share their words by accident.
    words = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]
    for key in keys:
        if isinstance(key, str):
            text = key.encode()
            words += [len(text) | 1 << 31, zlib.crc32(text)]
        else:
            words += [key & 0xFFFFFFFF, key >> 32 & 0x7FFFFFFF]
    return words


def generator(seed: int, *keys: Key) -> np.random.Generator:
    """A NumPy generator that depends on `seed` and `keys` alone, as in `generator(0, 3, "train", 7, "batches")`."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(_words(seed, keys))))


def integer(seed: int, *keys: Key) -> int:
    """A 63-bit integer that depends on `seed` and `keys` alone, to seed what takes an integer."""
    words = b"".join(word.to_bytes(4, "little") for word in _words(seed, keys))
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little") >> 1


def torch_generator(seed: int, *keys: Key) -> torch.Generator:
    """A PyTorch CPU generator that depends on `seed` and `keys` alone."""
    return torch.Generator().manual_seed(integer(seed, *keys))

"""What a client keeps between rounds: named groups of tensors, on disk, in two generations.

A message names the generation to train from; training writes the next one. So a client whose reply was lost, and a
client that is asked again after its worker died, start from the same state as before.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from fedsparse.errors import RunError

Tensors = Mapping[str, Tensor]


class Store:
    """Groups of tensors by name: `store["residual"] = {...}`. Nothing is kept until `commit`."""

    def __init__(self, folder: Path | None, generation: int = 0) -> None:
        self.folder, self.generation = folder, generation
        self._flat: dict[str, Tensor] = {}
        self._dirty = False
        if folder is not None and generation > 0:
            path = folder / f"{generation}.safetensors"
            if not path.exists():
                raise RunError(f"client {folder.name} does not hold generation {generation} of its state")
            self._flat = load_file(path)

    def __contains__(self, group: str) -> bool:
        return any(name.startswith(f"{group}/") for name in self._flat)

    def __getitem__(self, group: str) -> dict[str, Tensor]:
        """The tensors of a group; empty when the client has none."""
        return {n.removeprefix(f"{group}/"): t for n, t in self._flat.items() if n.startswith(f"{group}/")}

    def __setitem__(self, group: str, tensors: Tensors) -> None:
        kept = {n: t for n, t in self._flat.items() if not n.startswith(f"{group}/")}
        self._flat = kept | {f"{group}/{n}": t.detach().clone().contiguous() for n, t in tensors.items()}
        self._dirty = True

    def commit(self) -> int:
        """Write the next generation if anything changed; returns the generation that now holds."""
        if not self._dirty or self.folder is None:
            return self.generation
        self.folder.mkdir(parents=True, exist_ok=True)
        self.generation += 1
        path = self.folder / f"{self.generation}.safetensors"
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        save_file(self._flat, draft)
        os.replace(draft, path)
        for old in self.folder.glob("*.safetensors"):
            if int(old.stem) < self.generation - 1:
                old.unlink(missing_ok=True)
        self._dirty = False
        return self.generation


def stores(folder: Path, generations: Mapping[int, int]) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """(client, its tensors by "GROUP/NAME") in the order of the ids, for clients that keep anything."""
    for client in sorted(generations):
        if generations[client] > 0:
            yield client, load_file(folder / str(client) / f"{generations[client]}.safetensors")


def hash_tensors(named: Iterator[tuple[str, Tensor]] | list[tuple[str, Tensor]]) -> str:
    """SHA-256 over name, dtype, shape and bytes of tensors, in the order given."""
    digest = hashlib.sha256()
    for name, tensor in named:
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()

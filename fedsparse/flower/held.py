"""What both sides still hold of earlier messages, so that a new one says only what is new.

A client keeps on disk what it received last, and the server remembers what each client last answered to. Neither
trusts the other: a payload names what it relies on by hash, and a client that does not hold that says so (`NotHeld`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedsparse import codec
from fedsparse.codec import DecodeError
from fedsparse.flower import wire
from fedsparse.payload import Kind, Payload, Schema

if TYPE_CHECKING:
    from fedsparse.sections import Wire

RECEIVED = "received"  # folder of what clients received, among their states
SUFFIX = ".payload"


def arrays(payload: Payload) -> dict[str, np.ndarray]:
    """The float32 tensors of a payload as its receiver holds them: +0.0 outside the masks."""
    found = {name: np.asarray(tensor) for name, tensor in payload.tensors().items()}
    kept = {name: np.asarray(mask.dense(), np.bool_) for name, mask in payload.masks.items()}
    return {
        name: np.where(kept[name], array, np.float32(0)) if name in kept else array
        for name, array in found.items()
        if array.dtype == np.float32
    }


def differs(kind: Kind, options: Wire) -> bool:
    """Whether the values of a reply are told as the difference to what it replies to: an update is one already."""
    return kind == "weights" and exact(options)


def exact(options: Wire) -> bool:
    """Whether both sides hold the same values after a message."""
    return options.references and options.values == "fp32"


# ---- the server ----


@dataclass(frozen=True, eq=False)
class Given:
    """One payload of a task, for one client or for many. `schema` is the hash of what it was made for."""

    payload: Payload
    density: float
    schema: int
    task: int


@dataclass
class Holdings:
    """What each client surely holds: the payload that it last answered to, for `history` training tasks at most."""

    history: int = 0
    task: int = 0
    _last: dict[int, Given] = field(default_factory=dict)

    def begin(self) -> None:
        """A training task begins: what is too old counts as not held, and takes no memory any more."""
        self.task += 1
        self._last = {client: given for client, given in self._last.items() if self.task - given.task <= self.history}

    def of(self, client: int, schema: int) -> Given | None:
        """What a message to this client may rely on; None when there is nothing that was made for the same schema."""
        given = self._last.get(client)
        return given if given is not None and given.schema == schema else None

    def answered(self, client: int, given: Given) -> None:
        self._last[client] = given

    def forget(self, client: int) -> None:
        self._last.pop(client, None)


# ---- the client ----


@dataclass(frozen=True)
class Read:
    """A message that was decoded: what it was made of, its payload, and bytes of that which rely on nothing."""

    key: tuple[bytes | int, ...]
    payload: Payload
    whole: bytes


_latest: list[Read] = []  # the last one of this process: in a simulation many clients get the same


def receive(data: bytes, schema: Schema, folder: Path | None) -> Payload:
    """The payload of a message, which may rely on what `folder` keeps; it is kept there from now on.

    NotHeld when it relies on anything else. Without a folder nothing is kept. The payload is others' too: `copied` is
    not.
    """
    kept = _files(folder) if folder is not None else []
    for path in reversed(kept):
        try:
            read = _read(data, schema, path.read_bytes())
        except (DecodeError, OSError):  # it is damaged, or not what the message relies on
            continue
        _keep(path.parent, kept, read.whole, path)
        return read.payload
    read = _read(data, schema)
    if folder is not None:
        _keep(folder, kept, data)  # it stands alone, as what is kept has to
    return read.payload


def _read(data: bytes, schema: Schema, base: bytes = b"") -> Read:
    key = (*codec.content(data), *codec.content(base), codec.schema_hash(schema))
    if not _latest or _latest[0].key != key:
        held = codec.decode(base, schema, wire.max_bytes(schema)) if base else Payload()
        payload = wire.decode(data, schema, held.masks, held.tensors())
        _latest[:] = [Read(key, payload, codec.encode(payload, schema=schema) if base else data)]
    return _latest[0]


def copied(payload: Payload) -> Payload:
    """The same with tensors of its own, which may be changed."""
    return replace(
        payload,
        weights={name: tensor.clone() for name, tensor in payload.weights.items()},
        masks={name: mask.dense().clone() for name, mask in payload.masks.items()},
        extra={group: {n: t.clone() for n, t in tensors.items()} for group, tensors in payload.extra.items()},
        info=dict(payload.info),
    )


def _keep(folder: Path, kept: list[Path], data: bytes, relied: Path | None = None) -> None:
    """Keep these bytes and what they relied on: the server knows of the one or, if the reply is lost, of the other."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{int(kept[-1].stem) + 1 if kept else 1}{SUFFIX}"
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_bytes(data)
    os.replace(draft, path)
    for old in kept:
        if old != relied:
            old.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    """What is kept, the oldest first."""
    return sorted(folder.glob(f"[0-9]*{SUFFIX}"), key=lambda path: int(path.stem))

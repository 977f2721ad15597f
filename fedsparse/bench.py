"""The codec against memory, the information bound and what every installation can do without it, in one process.

Sizes are lossless float32 under a mask, `bound` is what no code of independent positions and exponents can beat. Times
are CPU seconds of one thread, the lower quartile of rounds in which all methods and one memcpy take turns: other work
on the machine then costs all of them the same. Speeds are of dense bytes, whatever the density.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import zstandard

from fedsparse import codec
from fedsparse.payload import Bits, Payload, Schema, Spec

ELEMENTS, ROUNDS = 1 << 23, 11
COLUMNS, NAME = 2048, "w"
SHARES = {"0.1 %": 0.001, "1 %": 0.01, "5 %": 0.05, "10 %": 0.1, "20 %": 0.2, "50 %": 0.5, "100 %": 1.0}
SLACK = 0.9  # of a limit on speed: what another CPU may cost

LIMITS: dict[str, tuple[float, float | None, float | None]] = {  # bytes / bound, encode and decode / memcpy
    "0.1 %": (1.05, 0.8, 1.5),
    "1 %": (1.015, 0.55, 1.2),
    "5 %": (1.008, 0.4, 0.9),
    "10 %": (1.008, 0.38, 0.8),
    "50 %": (1.004, 0.2, 0.5),
    "100 %": (1.004, 0.12, 0.28),
    "2:4": (1.004, None, None),
    "30 % of rows": (1.004, None, None),
}


@dataclass(frozen=True, eq=False)
class Sample:
    """One tensor and its mask. `array` is (rows, columns) float32, +0.0 where `bits` is False."""

    kind: str
    array: np.ndarray
    bits: np.ndarray
    mask_bits: float
    """What telling the mask from the others of its kind takes."""

    @property
    def schema(self) -> Schema:
        return Schema({NAME: Spec("float32", self.array.shape)}, frozenset({NAME}))

    @property
    def payload(self) -> Payload:
        return Payload({NAME: self.array}, {} if self.kind == "100 %" else {NAME: Bits(self.bits)})

    @cached_property
    def bound(self) -> float:
        """Bytes: the mask, and of every kept value its exponent's order-0 entropy, sign and mantissa."""
        return (self.mask_bits + value_bits(self.array[self.bits])) / 8

    @classmethod
    def draw(cls, kind: str, elements: int = ELEMENTS) -> Sample:
        """Standard normals under a random mask of a density (`SHARES`), 2 of every 4, or 30 % of the rows."""
        rng = np.random.default_rng(0)
        shape = (elements // COLUMNS, COLUMNS)
        array = aligned(shape)
        rng.standard_normal(dtype=np.float32, out=array)
        if kind == "2:4":
            bits = np.argsort(rng.random((elements // 4, 4), np.float32), axis=1).reshape(shape) < 2
            mask_bits = elements / 4 * math.log2(6)
        elif kind == "30 % of rows":
            rows = rng.random(shape[0]) < 0.3
            bits, mask_bits = np.repeat(rows[:, None], COLUMNS, axis=1), choices(shape[0], int(rows.sum()))
        else:
            bits = rng.random(shape, np.float32) < SHARES[kind]
            mask_bits = choices(elements, int(bits.sum()))
        array[~bits] = 0
        return cls(kind, array, bits, mask_bits)


def aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros, float32, that begin at a multiple of 64 bytes and are in memory."""
    raw = np.full(math.prod(shape) + 16, 0, np.float32)  # np.zeros would leave it to the first use to get the memory
    start = -raw.ctypes.data % 64 // 4
    return raw[start : start + math.prod(shape)].reshape(shape)


def choices(n: int, k: int) -> float:
    """log2 of the number of ways to choose k of n."""
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def value_bits(values: np.ndarray) -> float:
    """Bits of float32 values: 24 each, and the order-0 entropy of their exponents."""
    counts = np.bincount(values.view(np.uint32) >> 23 & 255)
    counts = counts[counts > 0]
    return 24.0 * values.size + float((counts * np.log2(values.size / counts)).sum())


@dataclass(frozen=True)
class Method:
    """One way to send a sample. `encode` gives what `decode` takes and `len` measures, `decode` the dense array."""

    name: str
    encode: Callable[[Sample], Any]
    decode: Callable[[Any, Sample], np.ndarray]


def ours(sample: Sample) -> bytes:
    return codec.encode(sample.payload, schema=sample.schema)


def fresh(data: bytes, sample: Sample) -> np.ndarray:
    return codec.decode(data, sample.schema, len(data)).weights[NAME]


def into(sample: Sample) -> Method:
    """The codec, decoding into an array that is there already."""
    out = aligned(sample.array.shape)

    def decode(data: bytes, sample: Sample) -> np.ndarray:
        codec.decode_into(data, sample.schema, len(data), {NAME: out})
        return out

    return Method("fedsparse, decode_into", ours, decode)


def _save(write: Callable[[Any, np.ndarray], None], sample: Sample) -> bytes:
    file = io.BytesIO()
    write(file, sample.array)
    return file.getvalue()


def _load(data: bytes, sample: Sample) -> Any:
    return np.load(io.BytesIO(data), allow_pickle=False)


def _squeeze(sample: Sample) -> bytes:
    return zstandard.ZstdCompressor(level=3).compress(sample.array.data)


def _stretch(data: bytes, sample: Sample) -> np.ndarray:
    return np.frombuffer(zstandard.ZstdDecompressor().decompress(data), np.float32).reshape(sample.array.shape)


OURS = Method("fedsparse", ours, fresh)
RIVALS = (
    Method("np.save (Flower)", partial(_save, np.save), _load),
    Method("np.savez_compressed", partial(_save, np.savez_compressed), lambda data, s: _load(data, s)["arr_0"]),
    Method("zstd-3 of dense bytes", _squeeze, _stretch),
)


@dataclass(frozen=True)
class Measured:
    """One method on one sample; times in seconds of CPU, `memcpy` of the same dense bytes in the same rounds."""

    method: str
    kind: str
    dense: int
    size: int
    bound: float
    encode: float
    decode: float
    memcpy: float


def quartile(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """CPU seconds of each call, the lower quartile of `rounds` in which they take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.process_time()
            call()
            times[name].append(time.process_time() - began)
    return {name: sorted(seen)[(len(seen) - 1) // 4] for name, seen in times.items()}


def measure(sample: Sample, methods: Iterable[Method], rounds: int = ROUNDS) -> list[Measured]:
    """Bytes and times of all methods; ValueError where one gives back another array."""
    source, target = (memoryview(aligned(sample.array.shape).reshape(-1).view(np.uint8).data) for _ in range(2))
    calls: dict[str, Callable[[], object]] = {"memcpy": partial(target.__setitem__, slice(None), source)}
    sizes: dict[str, int] = {}
    for m in methods:
        sent = m.encode(sample)
        if not np.array_equal(m.decode(sent, sample), sample.array):
            raise ValueError(f"{m.name} gives back another array than the one of {sample.kind} that it was given")
        sizes[m.name] = len(sent)
        calls[f"encode {m.name}"] = partial(m.encode, sample)
        calls[f"decode {m.name}"] = partial(m.decode, sent, sample)
    took = quartile(calls, rounds)
    dense, memcpy = sample.array.nbytes, took["memcpy"]
    return [
        Measured(name, sample.kind, dense, size, sample.bound, took[f"encode {name}"], took[f"decode {name}"], memcpy)
        for name, size in sizes.items()
    ]


def ratios(kind: str, elements: int = ELEMENTS, rounds: int = ROUNDS) -> Measured:
    """The codec alone, decoding into an array that is there already."""
    return measure(sample := Sample.draw(kind, elements), [into(sample)], rounds)[0]


def verdict(value: float, limit: float | None, *, least: bool = False, slack: float = SLACK) -> str:
    """A ratio beside its limit, and whether it is met; with `least`, what reaches `slack` of it is near."""
    text = f"{value:.2f}" if least else f"{value:.3f}"
    if limit is None:
        return text
    met = value >= limit if least else value <= limit
    near = least and value >= slack * limit
    return f"{text} ({'≥' if least else '≤'} {limit:g} {'met' if met else 'within 10 %' if near else 'not met'})"


def ratio_table(found: Iterable[Measured]) -> str:
    """Markdown: the codec beside its limits."""
    rows = []
    for m in found:
        size, *limits = LIMITS[m.kind]
        speeds = [verdict(m.memcpy / t, x, least=True) for t, x in zip((m.encode, m.decode), limits, strict=True)]
        rows.append([m.kind, f"{m.size:,}", verdict(m.size / m.bound, size), *speeds])
    return markdown(["density", "bytes", "bytes / bound", "encode / memcpy", "decode_into / memcpy"], rows)


def rival_table(found: Sequence[Measured]) -> str:
    """Markdown: methods beside the codec; `beaten` where that is smaller and faster both ways."""
    own = {m.kind: m for m in found if m.method == OURS.name}
    rows = []
    for m in found:
        us = own[m.kind]
        beaten = us.size < m.size and us.encode < m.encode and us.decode < m.decode
        rates = [f"{m.dense / t / 1e9:.2f}" for t in (m.encode, m.decode)]
        told = "" if m.method.startswith(OURS.name) else "yes" if beaten else "no"
        rows.append([m.kind, m.method, f"{m.size:,}", f"{m.size / m.bound:.3f}", *rates, told])
    return markdown(["density", "method", "bytes", "bytes / bound", "encode GB/s", "decode GB/s", "beaten"], rows)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, its first column to the left and the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(elements: int = ELEMENTS, rounds: int = ROUNDS) -> str:
    """Markdown: the codec beside its limits at all densities, then at some beside what needs no further package."""
    own = [ratios(kind, elements, rounds) for kind in LIMITS]
    rivals = [m for kind in ("1 %", "10 %") for m in measure(Sample.draw(kind, elements), [OURS, *RIVALS], 3)]
    return f"{ratio_table(own)}\n\n{rival_table(rivals)}\n"

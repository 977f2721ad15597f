"""Ways to send a sparse tensor that need further packages, as their users would write them, in one thread each."""

from __future__ import annotations

import io
from collections.abc import Callable

import blosc2
import numpy as np
import torch
import zstandard
from pcodec import ChunkConfig, standalone
from scipy.sparse import csr_matrix

from fedsparse import bench
from fedsparse.bench import Method, Sample

ROUNDS = 5  # the slowest take a second a call


def csr(sample: Sample) -> list[bytes]:
    """Row starts, columns and values of scipy's CSR, each through zstd-3."""
    matrix = csr_matrix(sample.array)
    return [zstandard.compress(part.tobytes(), 3) for part in (matrix.indptr, matrix.indices, matrix.data)]


def from_csr(sent: list[bytes], sample: Sample) -> np.ndarray:
    kinds = (np.int32, np.int32, np.float32)
    starts, columns, values = (
        np.frombuffer(zstandard.decompress(part), kind) for part, kind in zip(sent, kinds, strict=True)
    )
    return csr_matrix((values, columns, starts), sample.array.shape).toarray()


def coo(sample: Sample) -> bytes:
    file = io.BytesIO()
    torch.save(torch.from_numpy(sample.array).to_sparse(), file)
    return file.getvalue()


def from_coo(sent: bytes, sample: Sample) -> np.ndarray:
    return torch.load(io.BytesIO(sent), weights_only=True).to_dense().numpy()


def blosc(name: str, filter_: blosc2.Filter) -> Method:
    """blosc2 with its own level, zstd behind a filter over the dense bytes."""
    parameters = {"codec": blosc2.Codec.ZSTD, "typesize": 4, "nthreads": 1, "filters": [filter_], "filters_meta": [0]}

    def decode(sent: bytes, sample: Sample) -> np.ndarray:
        return np.frombuffer(blosc2.decompress2(sent, nthreads=1), np.float32).reshape(sample.array.shape)

    return Method(name, lambda sample: blosc2.compress2(sample.array, cparams=parameters), decode)


def pco(sample: Sample) -> list[bytes]:
    """The mask as a bitmap, the kept values through pcodec."""
    return [np.packbits(sample.bits).tobytes(), standalone.simple_compress(sample.array[sample.bits], ChunkConfig())]


def from_pco(sent: list[bytes], sample: Sample) -> np.ndarray:
    shape = sample.array.shape
    bits = np.unpackbits(np.frombuffer(sent[0], np.uint8), count=sample.array.size).view(np.bool_).reshape(shape)
    array = np.zeros(shape, np.float32)
    array[bits] = standalone.simple_decompress(sent[1])
    return array


def joined(
    name: str, encode: Callable[[Sample], list[bytes]], decode: Callable[[list[bytes], Sample], np.ndarray]
) -> Method:
    """A method of several parts, whose bytes are added up and never copied together."""
    return Method(name, lambda sample: Parts(encode(sample)), lambda sent, sample: decode(sent.parts, sample))


class Parts:
    """Several byte strings, as long as all of them."""

    def __init__(self, parts: list[bytes]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(map(len, self.parts))


METHODS = (
    bench.OURS,
    *bench.RIVALS,
    joined("scipy CSR + zstd-3", csr, from_csr),
    Method("torch.save of sparse COO", coo, from_coo),
    blosc("blosc2 shuffle + zstd", blosc2.Filter.SHUFFLE),
    blosc("blosc2 bitshuffle + zstd", blosc2.Filter.BITSHUFFLE),
    joined("bitmap + pcodec", pco, from_pco),
)

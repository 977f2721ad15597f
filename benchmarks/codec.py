"""Bytes and time of the codec beside two rivals, in one process: `python benchmarks/codec.py [--scale 10]`.

Rivals: `np.save` for every array, as stock Flower does it (it sends dense arrays whatever the mask), and zstd level 1
over the dense bytes of all arrays. The model is LeNet-5 (61,706 parameters) with independent masks, `scale` copies of
it. Times are the lower quartile of interleaved repetitions, in milliseconds; `bound` is what no code of independent
masks with raw values can beat.
"""

from __future__ import annotations

import argparse
import io
import math
import time
from collections.abc import Callable

import numpy as np
import zstandard

from fedsparse import codec
from fedsparse.payload import Payload, Schema, Spec

LENET = {
    "conv1.weight": (6, 1, 5, 5), "conv1.bias": (6,), "conv2.weight": (16, 6, 5, 5), "conv2.bias": (16,),
    "fc1.weight": (120, 400), "fc1.bias": (120,), "fc2.weight": (84, 120), "fc2.bias": (84,),
    "fc3.weight": (10, 84), "fc3.bias": (10,),
}  # fmt: skip
DENSITIES = (0.01, 0.1, 0.5, 1.0)
Arrays = dict[str, np.ndarray]


def save(arrays: Arrays) -> list[bytes]:
    files = []
    for array in arrays.values():
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        files.append(file.getvalue())
    return files


def load(files: list[bytes]) -> list[np.ndarray]:
    return [np.load(io.BytesIO(file), allow_pickle=False) for file in files]


def squeeze(arrays: Arrays) -> list[bytes]:
    return [zstandard.ZstdCompressor(level=1).compress(b"".join(array.tobytes() for array in arrays.values()))]


def stretch(frames: list[bytes], arrays: Arrays) -> list[np.ndarray]:
    raw, at, out = zstandard.ZstdDecompressor().decompress(frames[0]), 0, []
    for array in arrays.values():
        out.append(np.frombuffer(raw, array.dtype, array.size, at).reshape(array.shape).copy())
        at += array.nbytes
    return out


def model(scale: int, density: float) -> tuple[Payload, Schema, Arrays, float]:
    """A payload, its schema, the dense arrays with zeros where it has none, and the bound in bytes."""
    rng = np.random.default_rng(0)
    shapes = {f"{i}.{name}": shape for i in range(scale) for name, shape in LENET.items()}
    weights = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    masks = {name: rng.random(shape) < density for name, shape in shapes.items() if density < 1 and len(shape) > 1}
    dense = {name: array * masks.get(name, np.float32(1)) for name, array in weights.items()}
    bound = 4.0 * sum(array.size for name, array in weights.items() if name not in masks)
    for mask in masks.values():
        n, k = mask.size, int(mask.sum())
        bound += 4 * k + (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2) / 8
    schema = Schema({name: Spec("float32", shape) for name, shape in shapes.items()}, frozenset(masks))
    return Payload(weights, masks), schema, dense, bound


def quartile(calls: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeat):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
    return {name: 1e3 * sorted(seen)[len(seen) // 4] for name, seen in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=1, help="copies of LeNet-5")
    parser.add_argument("--repeat", type=int, default=100)
    options = parser.parse_args()
    print(f"kernels: {codec.kernels_in_use()}; {options.scale * 61_706} parameters in {options.scale * 10} arrays")
    print("density    method      bytes of np.save of bound encode ms decode ms")
    for density in DENSITIES:
        payload, schema, dense, bound = model(options.scale, density)
        ours, files, frames = codec.encode(payload, schema=schema), save(dense), squeeze(dense)
        encode = {
            "np.save": lambda dense=dense: save(dense),
            "zstd-1": lambda dense=dense: squeeze(dense),
            "fedsparse": lambda payload=payload, schema=schema: codec.encode(payload, schema=schema),
        }
        decode = {
            "np.save": lambda files=files: load(files),
            "zstd-1": lambda frames=frames, dense=dense: stretch(frames, dense),
            "fedsparse": lambda ours=ours, schema=schema: codec.decode(ours, schema, len(ours)),
        }
        sizes = {"np.save": sum(map(len, files)), "zstd-1": len(frames[0]), "fedsparse": len(ours)}
        out, back = quartile(encode, options.repeat), quartile(decode, options.repeat)
        for name, size in sizes.items():
            share = f"{size / sizes['np.save']:>10.3f} {size / bound:>8.3f}"
            print(f"{density:>7} {name:>9} {size:>10} {share} {out[name]:>9.3f} {back[name]:>9.3f}")


if __name__ == "__main__":
    main()

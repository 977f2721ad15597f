"""Real nets, pruned to 10 % (`nets.py` trains them), and what a tensor costs beside its values."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import nets
import numpy as np
import zstandard

from fedsparse import bench, codec
from fedsparse.payload import Bits, Payload, Schema, Spec

Arrays = Mapping[str, np.ndarray]
MANY, SMALL = 1000, 16
MB = 1e6


def sizes(cache: Path, name: str) -> dict[str, Any] | None:
    """Bytes by method, of a net's whole state and of its convolutional and linear weights alone; None if not cached."""
    net = nets.load(cache, name)
    if net is None:
        return None
    masks = {name: mask.numpy() for name, mask in net.masks.items()}
    state = {name: tensor.numpy() for name, tensor in net.weights.items()}
    found: dict[str, Any] = {"net": name, "accuracy": net.accuracy}
    for part, arrays in (("state", state), ("masked", {name: state[name] for name in masks})):
        found[part] = _sizes(arrays, masks)
    return found


def _sizes(arrays: Arrays, masks: Arrays) -> dict[str, int]:
    schema = Schema({n: Spec(str(a.dtype), a.shape) for n, a in arrays.items()}, frozenset(masks))
    payload, held = Payload(arrays, masks), {name: Bits(mask) for name, mask in masks.items()}
    pruned = {name: np.where(masks[name], array, 0) if name in masks else array for name, array in arrays.items()}
    plain, known = codec.encode(payload, schema=schema), codec.encode(payload, schema=schema, known=held)
    for sent in (plain, known):
        again = codec.decode(sent, schema, len(sent), known=held).weights
        if any(not np.array_equal(again[name], array) for name, array in pruned.items()):
            raise ValueError("the net that came back is another one")
    return {
        "np.save (Flower)": sum(len(_save(array)) for array in pruned.values()),
        "bitmap + zstd-3": len(zstandard.compress(b"".join(_bitmaps(arrays, masks)), 3)),
        "fedsparse": len(plain),
        "fedsparse, known masks": len(known),
    }


def _save(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _bitmaps(arrays: Arrays, masks: Arrays) -> list[bytes]:
    parts = []
    for name, array in arrays.items():
        if name in masks:
            parts += [np.packbits(masks[name]).tobytes(), array[masks[name]].tobytes()]
        else:
            parts.append(array.tobytes())
    return parts


def overheads(rounds: int) -> dict[str, Any]:
    """What small tensors cost, dense and masked; and bytes that nothing makes smaller."""
    return {"tensors": [_overhead(masked, rounds) for masked in (False, True)], "beyond": _incompressible()}


def _overhead(masked: bool, rounds: int) -> dict[str, float]:
    """What each of 1000 tensors of 16 values costs more than the 16,000 values in one: bytes, and seconds of CPU."""
    rng = np.random.default_rng(4)
    long = {"w": rng.standard_normal(MANY * SMALL, np.float32)}
    short = {f"layer{i}": part for i, part in enumerate(long["w"].reshape(MANY, SMALL))}
    calls: dict[str, Callable[[], object]] = {}
    lengths: dict[str, int] = {}
    for label, arrays in {"one": long, "many": short}.items():
        schema = Schema({n: Spec("float32", a.shape) for n, a in arrays.items()}, frozenset(arrays))
        masks = {name: Bits(rng.random(array.shape) < 0.5) for name, array in arrays.items()} if masked else {}
        payload = Payload(arrays, masks)
        sent = codec.encode(payload, schema=schema)
        lengths[label] = len(sent)
        calls[f"encode {label}"] = partial(codec.encode, payload, schema=schema)
        calls[f"decode {label}"] = partial(codec.decode, sent, schema, len(sent))
    took = bench.quartile(calls, rounds)
    return {
        "masked": masked,
        "bytes": (lengths["many"] - lengths["one"]) / MANY,
        "encode": (took["encode many"] - took["encode one"]) / MANY,
        "decode": (took["decode many"] - took["decode one"]) / MANY,
    }


def _incompressible() -> float:
    """Bytes a tensor beyond its dense ones and 64 in all, where values are random bits and few are masked."""
    rng = np.random.default_rng(5)
    arrays = {f"layer{i}": rng.integers(0, 2**32, 1000, np.uint32).view(np.float32) for i in range(100)}
    masks = {name: rng.random(array.shape) < 0.999 for name, array in arrays.items()}
    schema = Schema({n: Spec("float32", a.shape) for n, a in arrays.items()}, frozenset(arrays))
    sent = codec.encode(Payload(arrays, masks), schema=schema)
    return (len(sent) - 64 - sum(array.nbytes for array in arrays.values())) / len(arrays)


# ResNet-18 in MB, ResNet-20 as a share of Flower's bytes.
LIMITS = {
    ("resnet18", "state", "fedsparse"): 4.2,
    ("resnet18", "state", "fedsparse, known masks"): 3.5,
    ("resnet20", "state", "fedsparse"): 0.10,
}


def net_table(results: list[dict[str, Any] | None]) -> str:
    """Markdown; a net that is not in the cache is a sentence below the table."""
    rows = []
    for net in filter(None, results):
        for part, what in (("state", "whole state"), ("masked", "conv and linear weights")):
            flower = net[part]["np.save (Flower)"]
            for method, size in net[part].items():
                limit = LIMITS.get((net["net"], part, method))
                of_limit = size / flower if net["net"] == "resnet20" else size / MB
                told = bench.verdict(of_limit, limit) if limit else ""
                about = f"{net['net']} ({net['accuracy']:.1%} before), {what}"
                rows.append([about, method, f"{size:,}", f"{flower / size:.2f}", told])
    missing = "\n\nA net is not in the cache: `python benchmarks/codec/nets.py` trains it." if None in results else ""
    return bench.markdown(["net", "method", "bytes", "np.save / it", "limit"], rows) + missing


def overhead_table(found: dict[str, Any]) -> str:
    """Markdown, of what `overheads` gave."""
    rows = [
        [
            f"{SMALL} values a tensor, {'half of them kept' if each['masked'] else 'dense'}",
            bench.verdict(each["bytes"], 16),
            *(bench.verdict(1e6 * each[way], 3) for way in ("encode", "decode")),
        ]
        for each in found["tensors"]
    ]
    rows.append(["1000 values of random bits, beyond dense bytes + 64", bench.verdict(found["beyond"], 16), "", ""])
    return bench.markdown(["a tensor's own", "bytes", "encode us", "decode us"], rows)

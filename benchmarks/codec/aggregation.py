"""The weighted mean of 8 clients' payloads against Flower's own aggregation of the same arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

from fedsparse import bench, codec
from fedsparse.payload import Absent, Bits, Payload, Schema, Spec

CLIENTS, TENSORS = 8, 16
LIMITS = {"0.1 %": 16.0, "1 %": 5.5, "5 %": 4.3, "10 %": 4.1, "50 %": 2.4, "100 %": 1.8}
KNOWN_LIMIT = 12.0  # at 10 %, all clients with one mask that the server holds
EXAMPLES = [float(10 * (client + 1)) for client in range(CLIENTS)]


@dataclass(frozen=True)
class Aggregated:
    """Seconds of CPU for all clients together, and the bytes of all payloads."""

    kind: str
    known: bool
    absent: str
    size: int
    ours: float
    flower: float


def measure(kind: str, elements: int, rounds: int, known: bool = False, absent: Absent = "zero") -> Aggregated:
    """Both on the same arrays; ValueError where their sums differ by more than rounding.

    With absent = "zero" both do the same; with "unheld" ours also sums, position by position, the weights of those who
    hold a value.
    """
    rng = np.random.default_rng(1)
    shape = (elements // TENSORS // 512, 512)
    names = [f"layer{i}.weight" for i in range(TENSORS)]
    schema = Schema({name: Spec("float32", shape) for name in names}, frozenset(names))
    common = {name: rng.random(shape) < bench.SHARES[kind] for name in names}
    held = {name: Bits(bits) for name, bits in common.items()} if known else None
    payloads, records = [], []
    for examples in EXAMPLES:
        masks = common if known else {name: rng.random(shape) < bench.SHARES[kind] for name in names}
        weights = {name: np.where(masks[name], rng.standard_normal(shape, np.float32), np.float32(0)) for name in names}
        payload = Payload(weights, {} if kind == "100 %" else masks, absent=absent)
        payloads.append(codec.encode(payload, schema=schema, known=held))
        arrays = ArrayRecord({name: Array(array) for name, array in weights.items()})
        records.append(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": examples})}))
    limit = max(map(len, payloads))
    out = {name: bench.aligned(shape) for name in names}
    ours = partial(codec.accumulate, payloads, EXAMPLES, schema, limit, known=held, out=out)
    flower = partial(aggregate_arrayrecords, records, "num-examples")
    sums, due = ours(), flower()
    for name in names:
        if not np.allclose(sums.total[name] / sum(EXAMPLES), due[name].numpy(), rtol=1e-4, atol=1e-6):
            raise ValueError(f"the mean of {name} is not Flower's")
    took = bench.quartile({"ours": ours, "flower": flower}, rounds)
    return Aggregated(kind, known, absent, sum(map(len, payloads)), took["ours"], took["flower"])


def table(results: list[list[dict[str, Any]]]) -> str:
    """Markdown, of what `measure` gave, part by part."""
    rows = []
    for a in (Aggregated(**each) for part in results for each in part):
        limit = (KNOWN_LIMIT if a.kind == "10 %" else None) if a.known else LIMITS[a.kind]
        what = f"{a.kind}, one known mask" if a.known else a.kind if a.absent == "zero" else f"{a.kind}, unheld"
        speedup = bench.verdict(a.flower / a.ours, limit if a.absent == "zero" else None, least=True)
        rows.append([what, f"{a.size:,}", f"{1e3 * a.flower:.1f}", f"{1e3 * a.ours:.1f}", speedup])
    return bench.markdown(["density", "bytes of 8 clients", "Flower ms", "ours ms", "Flower / ours"], rows)

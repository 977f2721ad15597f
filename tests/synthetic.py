"""Writes run folders as `measurement` describes them, without running anything: for tests of results and report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedsparse import columns
from fedsparse.devices import Device, assign
from fedsparse.settings import emit

LAYERS = {"conv1.weight": 6.0, "conv2.weight": 2.0, "fc.weight": 0.8}
TIERS = {
    "fast": Device(share=0.5, flops=2e9, down=4e6, up=1e6, latency=0.1),
    "slow": Device(share=0.5, flops=2e8, down=1e6, up=2e5, latency=0.3),
}
"""Devices of runs that have a clock."""
RESNET = {f"layer{s}.{b}.conv{c}.weight": 3.0 / s for s in (1, 2, 3) for b in range(5) for c in (1, 2)}


def tables(
    *,
    rounds: int,
    seed: int,
    level: float,
    density: float,
    personal: float,
    size: int,
    clients: int = 4,
    error_metric: bool = False,
    has_global: bool = True,
    eval_every: int = 1,
    own_masks: bool = False,
    layers: Mapping[str, float] = LAYERS,
    flops: float = 0.0,
    devices: Mapping[str, Device] = TIERS,
) -> dict[str, list[dict[str, Any]]]:
    """Rows of all four tables: the metric rises (an error falls) to about `level`, a dense model has `size` bytes.

    Each client's own metric lies evenly around their mean; `layers` has each layer's density relative to the model's.
    With `flops`, those of a client's training, there is a clock.
    """
    rng = np.random.default_rng(seed)
    tiers = assign(devices, clients, seed)
    out: dict[str, list[dict[str, Any]]] = {name: [] for name in columns.TABLES}
    for r in range(1, rounds + 1):
        kept = density + (1 - density) * max(0.0, 1 - r / (0.5 * rounds)) ** 3 if density < 1 else 1.0
        gap = math.exp(-5 * r / rounds) + 0.01 * rng.normal()
        metric, own = (level + gap, personal + gap) if error_metric else (level - 0.6 * gap, personal - 0.5 * gap)
        seen = r % eval_every == 0 or r == rounds
        totals, times = {"up": 0, "down": 0}, []
        for client in range(clients):
            tier = devices[tiers[client]]
            for phase in ("train", "evaluate") if seen else ("train",):
                sent = {"up": 0, "down": 0}
                for direction in ("down", "up"):
                    if phase == "evaluate" and direction == "up":
                        parts = {"values": 0, "mask": 0, "dense": 0, "header": 150}
                    else:
                        values, full = int(size * kept), density >= 1
                        parts = {
                            "values": 0 if full else values,
                            "mask": 0 if full else size // 40,
                            "dense": size if full else size // 60,
                            "header": 180,
                        }
                    count = sum(parts.values())
                    ends = ("server", f"client:{client}")[:: 1 if direction == "down" else -1]
                    out["messages"].append(
                        {
                            "round": r,
                            "phase": phase,
                            "client": client,
                            "direction": direction,
                            "src": ends[0],
                            "dst": ends[1],
                            "attempt": 1,
                            "status": "ok",
                            "bytes": count,
                            **parts,
                            "transport": 300,
                        }
                    )
                    totals[direction] += count if phase == "train" else 0
                    sent[direction] = count
                clocked = flops and phase == "train"
                took = 2 * tier.latency + sent["down"] / tier.down + flops / tier.flops + sent["up"] / tier.up
                times += [took] * bool(clocked)
                out["clients"].append(
                    {
                        "round": r,
                        "phase": phase,
                        "client": client,
                        "device": tiers[client],
                        "status": "ok",
                        "examples": 50,
                        "steps": 2 if phase == "train" else 0,
                        "flops": flops if clocked else None,
                        "flops_sparse": flops * kept if clocked else None,
                        "sim_seconds": took if clocked else None,
                        "density": kept,
                        "loss": gap,
                        "metric": own + 0.1 * (client / (clients - 1) - 0.5) if seen and phase == "evaluate" else None,
                        "seconds": 0.01,
                        "x_regrown": float(r),
                    }
                )
        out["rounds"].append(
            {
                "round": r,
                "loss": abs(gap),
                "metric": metric if seen and has_global else None,
                "metric_personal": own if seen else None,
                "metric_worst_decile": own - 0.1 if seen else None,
                "density": kept,
                "bytes_up": totals["up"],
                "bytes_down": totals["down"],
                "seconds": 0.1,
                "sim_seconds": max(times, default=None),
                "sim_wait": 0.0 if flops else None,
            }
        )
        agreement = 0.9 - 0.5 * r / rounds if own_masks else None
        out["layers"] += [
            {"round": r, "layer": n, "density": min(1.0, kept * f) if density < 1 else 1.0, "agreement": agreement}
            for n, f in layers.items()
            if seen
        ]
    return out


def write_run(
    folder: Path,
    *,
    variant: str,
    strategy: str | None = None,
    seed: int = 0,
    rounds: int = 20,
    level: float = 0.95,
    density: float = 1.0,
    personal: float = 0.9,
    size: int = 60_000,
    error_metric: bool = False,
    has_global: bool = True,
    eval_every: int = 1,
    clients: int = 4,
    own_masks: bool = False,
    layers: Mapping[str, float] = LAYERS,
    status: str = "done",
    why: str | None = None,
    closed: bool = True,
    played: int | None = None,
    flops: float = 0.0,
    devices: Mapping[str, Device] = TIERS,
    **extra: Any,
) -> Path:
    """A run's folder; `played` rounds of `rounds` were played, `closed` says whether its tables are Parquet yet."""
    folder.mkdir(parents=True)
    rows = tables(
        rounds=rounds,
        seed=seed,
        level=level,
        density=density,
        personal=personal,
        size=size,
        error_metric=error_metric,
        has_global=has_global,
        eval_every=eval_every,
        clients=clients,
        own_masks=own_masks,
        layers=layers,
        flops=flops,
        devices=devices,
    )
    rows = {
        name: [row for row in table if row["round"] <= (rounds if played is None else played)]
        for name, table in rows.items()
    }
    for name, table in rows.items():
        if closed:
            columns.frame(table, columns.TABLES[name]).to_parquet(folder / f"{name}.parquet", index=False)
        else:
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    frame = columns.frame(rows["rounds"], columns.ROUNDS)
    from fedsparse.measures import final_of

    def number(value: float) -> float | None:
        return None if math.isnan(value) else value

    dataset = "yields" if error_metric else "digits"
    info: dict[str, Any] = {
        "variant": variant, "strategy": strategy or variant, "dataset": dataset, "model": "cnn", "seed": seed,
        "runtime": "ray", "rounds": rounds, "metric": "rmse" if error_metric else "accuracy",
        "higher_is_better": not error_metric, "final": number(final_of(frame, rounds)),
        "final_personal": number(final_of(frame, rounds, "metric_personal")),
        "bytes_up": int(frame["bytes_up"].sum()), "bytes_down": int(frame["bytes_down"].sum()),
        "density": density, "model_hash": f"{seed:064d}", "clients_hash": "c" * 64, "status": status, "why": why,
        "command": f"fedsparse run quickstart --set strategy={variant}", "commit": "0123456", "host": "Linux, x86_64",
        "versions": {"fedsparse": "0.1.0", "python": "3.11.4", "torch": "2.13.0", "flwr": "1.39.0", "ray": "2.55.1"},
        "started": "2025-01-02T03:04:05+00:00", "seconds": float(frame["seconds"].sum()) + 1.5,
        "sim_seconds": number(frame["sim_seconds"].sum(min_count=1)), **extra,
    }  # fmt: skip
    unfinished = (
        "final",
        "final_personal",
        "bytes_up",
        "bytes_down",
        "density",
        "model_hash",
        "clients_hash",
        "seconds",
        "sim_seconds",
    )
    if not closed:
        info.update(dict.fromkeys(unfinished))
        info["status"] = "running"
    (folder / "run.json").write_text(json.dumps(info, indent=2))
    (folder / "config.toml").write_text(
        f"rounds = {rounds}\nclients = {clients}\nseed = {seed}\n\n"
        f'[dataset]\nname = "{dataset}"\n\n[model]\nname = "cnn"\n\n'
        f'[strategy]\nname = "{strategy or variant}"\ndensity = {density}\n\n[runtime]\nname = "ray"\n'
        + (emit({"devices": {name: tier.model_dump() for name, tier in devices.items()}}) if flops else "")
    )
    return folder


def write_runs(folder: Path, *, seeds: int = 3, rounds: int = 20, error_metric: bool = False, **how: Any) -> list[Path]:
    """The run folders of a comparison of three strategies, FedAvg first."""
    if error_metric:
        kinds: dict[str, dict[str, Any]] = {
            "fedavg": {"level": 5.0, "personal": 5.5},
            "feddip": {"level": 5.1, "personal": 5.6},
            "personalized_masks": {"level": 5.0, "personal": 4.4},
        }
    else:
        kinds = {
            "fedavg": {"level": 0.95, "personal": 0.93},
            "feddip": {"level": 0.94, "personal": 0.92},
            "personalized_masks": {"level": 0.9, "personal": 0.95},
        }
    kinds["fedavg"] |= {"stock_bytes_up": 6e6, "stock_bytes_down": 6e6}
    kinds["feddip"] |= {"density": 0.1, "paper_bytes": 1234.0}
    kinds["personalized_masks"] |= {"density": 0.2, "has_global": False, "own_masks": True}
    return [
        write_run(
            folder / f"{name}-seed{seed}",
            variant=name,
            seed=seed,
            rounds=rounds,
            error_metric=error_metric,
            **kind,
            **how,
        )
        for name, kind in kinds.items()
        for seed in range(seeds)
    ]


MANY: dict[str, dict[str, Any]] = {
    "fedavg": {"level": 0.895, "personal": 0.90},
    "fedprox": {"level": 0.893, "personal": 0.899},
    "fedavg_ft": {"level": 0.895, "personal": 0.945},
    "fedavg_local_bn": {"strategy": "fedavg", "has_global": False, "personal": 0.94},
    "local_only": {"has_global": False, "personal": 0.91, "size": 60},
}
MANY |= {
    f"{name}_{word}": {"strategy": name, "density": density, "level": level - loss, "personal": personal - loss}
    for word, density, loss in (("10", 0.1, 0.0), ("05", 0.05, 0.012))
    for name, level, personal in (
        ("feddip", 0.889, 0.893),
        ("feddip_released", 0.886, 0.89),
        ("personalized_masks", 0.82, 0.937),
        ("random_erk", 0.872, 0.88),
        ("topk_ef", 0.884, 0.889),
    )
} | {
    "small_dense_10": {"strategy": "small_dense", "level": 0.868, "personal": 0.877, "size": 12_000},
    "small_dense_05": {"strategy": "small_dense", "level": 0.851, "personal": 0.862, "size": 8_000},
    "personalized_masks_local_bn": {
        "strategy": "personalized_masks", "density": 0.1, "personal": 0.952, "has_global": False,
    },
}  # fmt: skip
"""Eighteen variants, as a committed comparison has them."""


def write_many(folder: Path, *, seeds: int = 3, error_metric: bool = False, **how: Any) -> list[Path]:
    """The run folders of a comparison of `MANY`; errors are 10 minus five times the accuracies."""
    folders = []
    for name, kind in MANY.items():
        kind = {**kind, "own_masks": "masks" in name, **how}
        if error_metric:
            kind |= {key: 10 - 5 * kind.get(key, 0.9) for key in ("level", "personal")}
        for seed in range(seeds):
            folders.append(
                write_run(folder / f"{name}-seed{seed}", variant=name, seed=seed, error_metric=error_metric, **kind)
            )
    return folders

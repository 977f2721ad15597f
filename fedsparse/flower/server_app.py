"""The server's side of one run: rounds over a Grid into a run's folder, and what is kept at the end."""

from __future__ import annotations

import io
import logging
import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp import Grid
from safetensors.torch import save_file
from torch import Tensor

from fedsparse import columns, folder
from fedsparse.errors import InputError, RunError
from fedsparse.federation import Federation
from fedsparse.flower.adapter import Adapter, named_tensors
from fedsparse.flower.held import RECEIVED
from fedsparse.flower.remote import RemoteGrid
from fedsparse.ledger import Ledger
from fedsparse.measures import final_of
from fedsparse.store import hash_tensors, stores

log = logging.getLogger("fedsparse")
STORES = "clients"  # folder of the clients' own states inside the run's folder
INTERRUPTED = "interrupted by the user"
OnRound = Callable[[dict[str, Any]], None]


def serve(
    federation: Federation, grid: Grid, path: Path, label: str, on_round: OnRound | None = None,
    known: Mapping[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run a federation into the folder `path`; returns what `run.json` holds at the end.

    A run that fails or is interrupted keeps what it had; its exception goes on to the caller after that is written.
    `known`: keys of `run.json` that this process cannot tell, such as the `command` of the one that started it.
    """
    info = opening(federation, label) | dict(known or {})
    (path / "config.toml").write_text(federation.experiment.to_toml(), encoding="utf-8")
    folder.write_json(path / "run.json", info)
    ledger, began = Ledger(path), time.perf_counter()
    try:
        if isinstance(grid, RemoteGrid):
            grid.gather()
            federation = federation.told(grid.examples)
        adapter = Adapter(federation, ledger, run_id(federation), on_round)
        adapter.start(grid, timeout=None)  # a slow machine must not change the result of a simulation
        info |= _weights(adapter, grid, path) | {"status": columns.DONE}
    except (KeyboardInterrupt, SystemExit):
        info |= {"status": columns.INTERRUPTED, "why": INTERRUPTED}
        raise
    except Exception as error:
        info |= {
            "status": columns.FAILED,
            "why": f"{error}" if isinstance(error, InputError | RunError) else repr(error),
        }
        log.error("the run failed:\n%s", traceback.format_exc())
        raise
    finally:
        info["seconds"] = round(time.perf_counter() - began, 3)
        _forget(path)
        try:
            info |= _closing(federation, ledger)
        except Exception as error:
            info |= {"status": columns.FAILED, "why": f"the tables could not be written: {error!r}"}
            raise
        finally:
            folder.write_json(path / "run.json", info)
    return info


def _forget(path: Path) -> None:
    """What clients received is of no use after the run."""
    shutil.rmtree(path / STORES / RECEIVED, ignore_errors=True)
    with suppress(OSError):  # strategies keep something there too
        (path / STORES).rmdir()


def conclude(federation: Federation, path: Path, status: str, why: str) -> dict[str, Any]:
    """Close the folder of a run whose server was ended from outside; returns what `run.json` holds then."""
    info = folder.read_json(path / "run.json")
    if info["status"] != columns.RUNNING:
        return info
    info |= {"status": status, "why": why}
    if not (path / "rounds.parquet").exists():
        info |= _closing(federation, Ledger(path))
    folder.write_json(path / "run.json", info)
    return info


def run_id(federation: Federation) -> int:
    """The federation's id: a function of what decides results, so that equal runs send equal bytes."""
    return int(federation.experiment.hash()[:15], 16)


def opening(federation: Federation, label: str) -> dict[str, Any]:
    """What `run.json` holds when a run begins."""
    experiment, data = federation.experiment, federation.data
    known = {
        "variant": label,
        "strategy": experiment.strategy.label,
        "dataset": experiment.dataset.label,
        "model": experiment.model.label,
        "seed": experiment.seed,
        "runtime": experiment.runtime.name,
        "rounds": experiment.rounds,
        "metric": data.metric,
        "higher_is_better": data.higher_is_better,
        "status": columns.RUNNING,
        "why": "",
        "command": folder.command(),
        "commit": folder.commit(),
        "versions": folder.versions(),
        "host": folder.host(),
        "started": folder.now(),
    }
    return {key: known.get(key) for key in columns.RUN_KEYS}


def _weights(adapter: Adapter, grid: Grid, path: Path) -> dict[str, Any]:
    """Write `model.safetensors`; the hashes of the model and of all clients' stores."""
    here = not isinstance(grid, RemoteGrid)  # else the clients' states lie with the clients
    known = stores(path / STORES, adapter.generations) if here else ()
    kept = {f"{c}/{n}": t for c, ts in known for n, t in sorted(ts.items())}
    model = adapter.strategy.global_model(adapter.state)
    tensors = named_tensors(model) if model is not None else {f"client/{name}": t for name, t in kept.items()}
    if not tensors:
        return {}
    save_file(tensors, path / "model.safetensors")
    hashed = hash_tensors(list(kept.items())) if here else None
    return {"model_hash": hash_tensors(sorted(tensors.items())), "clients_hash": hashed}


def _closing(federation: Federation, ledger: Ledger) -> dict[str, Any]:
    tables = ledger.close()
    rounds, messages = tables["rounds"], tables["messages"]
    total = federation.experiment.rounds
    training = messages[messages["phase"] != columns.EVALUATE]
    sent = training["direction"].value_counts()
    dense = stock_bytes(federation.shared)
    paper = (
        federation.strategy.paper({str(name): list(column) for name, column in rounds.items()}) if len(rounds) else {}
    )
    numbers = {
        "final": final_of(rounds, total, "metric"),
        "final_personal": final_of(rounds, total, "metric_personal"),
        "density": float(rounds["density"].iloc[-1]) if len(rounds) else None,
        "sim_seconds": float(rounds["sim_seconds"].sum()) if len(rounds) else None,
        **{name: int(training.loc[training["direction"] == name.removeprefix("bytes_"), "bytes"].sum())
           for name in ("bytes_up", "bytes_down")},
        **{f"stock_{name}": dense * int(sent.get(name.removeprefix("bytes_"), 0))
           for name in ("bytes_up", "bytes_down")},
        **{f"paper_{name}": value for name, value in paper.items()},
    }  # fmt: skip
    return {name: None if value is None or value != value else value for name, value in numbers.items()}


def stock_bytes(tensors: dict[str, Tensor]) -> int:
    """What stock Flower sends for these tensors in one message: each as `numpy.save` writes it, dense."""
    total = 0
    for tensor in tensors.values():
        buffer = io.BytesIO()
        np.save(buffer, tensor.numpy(), allow_pickle=False)
        total += buffer.getbuffer().nbytes
    return total

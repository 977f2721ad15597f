"""The names and types of every column and key that a run writes: one place, because scripts of others rely on them.

Types are pandas dtypes. `float64` is also the type of what may be unknown (a metric in a round without evaluation):
null is NaN there. Beside the fixed columns a table may hold `x_NAME` columns (scalars of a strategy), all `float64`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

INT, FLOAT, STR, BOOL = "int64", "float64", "str", "bool"

ROUNDS: dict[str, str] = {
    "round": INT,
    "loss": FLOAT,
    "metric": FLOAT,
    "metric_personal": FLOAT,
    "metric_worst_decile": FLOAT,
    "density": FLOAT,
    "bytes_up": INT,
    "bytes_down": INT,
    "seconds": FLOAT,
    "sim_seconds": FLOAT,
    "sim_wait": FLOAT,
}
"""`rounds`: one row a round; bytes are those of this round's training phases.

`sim_seconds` is how long the round takes by the virtual clock, `sim_wait` the part in which too few clients are ready.
"""

CLIENTS: dict[str, str] = {
    "round": INT,
    "phase": STR,
    "client": INT,
    "device": STR,
    "status": STR,
    "examples": INT,
    "steps": INT,
    "flops": FLOAT,
    "flops_sparse": FLOAT,
    "density": FLOAT,
    "loss": FLOAT,
    "metric": FLOAT,
    "seconds": FLOAT,
    "sim_seconds": FLOAT,
}
"""`clients`: one row a client task; `flops_sparse` leaves out the zeros of the weights, layer by layer."""

MESSAGES: dict[str, str] = {
    "round": INT,
    "phase": STR,
    "client": INT,
    "direction": STR,
    "src": STR,
    "dst": STR,
    "attempt": INT,
    "status": STR,
    "bytes": INT,
    "values": INT,
    "mask": INT,
    "dense": INT,
    "header": INT,
    "transport": INT,
}
"""`messages`: the ledger, one row a message."""

LAYERS: dict[str, str] = {"round": INT, "layer": STR, "density": FLOAT, "agreement": FLOAT}
"""`layers`: one row a round and maskable layer."""

TABLES: dict[str, dict[str, str]] = {"rounds": ROUNDS, "clients": CLIENTS, "messages": MESSAGES, "layers": LAYERS}
"""Every table of a run's folder: `NAME.jsonl` while it runs, `NAME.parquet` when it is closed."""

RUN_KEYS: dict[str, str] = {
    "variant": STR,
    "strategy": STR,
    "dataset": STR,
    "model": STR,
    "seed": INT,
    "runtime": STR,
    "rounds": INT,
    "metric": STR,
    "higher_is_better": BOOL,
    "final": FLOAT,
    "final_personal": FLOAT,
    "bytes_up": INT,
    "bytes_down": INT,
    "density": FLOAT,
    "model_hash": STR,
    "clients_hash": STR,
    "status": STR,
    "why": STR,
    "command": STR,
    "commit": STR,
    "versions": STR,
    "host": STR,
    "started": STR,
    "seconds": FLOAT,
    "sim_seconds": FLOAT,
}
"""`run.json`, and the first columns of `comparison.csv` (where `versions`, an object, is JSON text)."""

SIM = "sim_"
"""What the virtual clock tells begins so; folders of earlier versions have none of it, which reads as null."""
MB_TO_TARGET, SIM_TO_TARGET, BUDGET = "mb_to_target", "sim_to_target", "budget"
AT_BUDGET = {"metric_at_budget": "metric", "personal_at_budget": "metric_personal"}
"""Columns of `comparison.csv` that are read off a column of `rounds` at the budget."""
MEASURED: dict[str, str] = {MB_TO_TARGET: FLOAT, BUDGET: STR, **dict.fromkeys((*AT_BUDGET, SIM_TO_TARGET), FLOAT)}
COMPARISON: dict[str, str] = {**RUN_KEYS, **MEASURED}
"""`comparison.csv`: run.json's keys and what is measured against other runs; `budget` is the reference's label."""

STOCK = ("stock_bytes_up", "stock_bytes_down")
EXTRA_PREFIXES = ("paper_", "stock_bytes_")
"""Optional keys of `run.json` that `comparison.csv` carries at its end: all that begin so, `float64`."""

AVERAGED = (
    "final",
    "final_personal",
    "density",
    "bytes_up",
    "bytes_down",
    MB_TO_TARGET,
    "seconds",
    "sim_seconds",
    SIM_TO_TARGET,
)
SUMMARY: dict[str, str] = {
    "variant": STR,
    "strategy": STR,
    "seeds": INT,
    **{f"{name}_{what}": FLOAT for name in AVERAGED for what in ("mean", "sd")},
    "bytes_ratio": FLOAT,
    "sim_ratio": FLOAT,
    "final_diff": FLOAT,
    "final_diff_sd": FLOAT,
    "final_personal_diff": FLOAT,
    "final_personal_diff_sd": FLOAT,
    BUDGET: STR,
    **{f"{name}_{what}": FLOAT for name in ("at_budget", "personal_at_budget") for what in ("mean", "sd")},
    "overrides": STR,
}
"""`summary.csv`: one row a variant."""

RUNNING, DONE, FAILED, INTERRUPTED = "running", "done", "failed", "interrupted"
"""The `status` of a run; only `done` runs enter means."""

EVALUATE = "evaluate"
"""The phase of evaluation traffic, which is outside the training totals."""


def frame(rows: Iterable[Mapping[str, Any]] | pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """A table with exactly these columns in this order and of these types, then the `x_*` columns found, sorted.

    What the rows lack is null, other columns are dropped. Raises ValueError when an integer column has a null.
    """
    raw = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame.from_records(list(rows))
    types = {**columns, **{str(name): FLOAT for name in sorted(map(str, raw.columns)) if name.startswith("x_")}}
    return raw.reindex(columns=list(types)).astype(types).reset_index(drop=True)


def read_jsonl(path: Path, table: str) -> pd.DataFrame:
    """The rows of a run that goes on or was killed, typed as its Parquet will be; no file, no rows.

    A last line without its end is a row that was being written when the process died: it is left out.
    """
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    return frame([json.loads(line) for line in lines], TABLES[table])

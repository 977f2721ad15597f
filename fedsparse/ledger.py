"""The book of a run: one row a message, a client task, a round, a layer.

While a run goes on the rows are appended as JSON lines, written out when a round ends: a killed run keeps them. They
become Parquet when the run closes.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fedsparse import columns
from fedsparse.codec import inspect


class Ledger:
    """Rows of one run, appended to `folder` when a round ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.of_round = {"up": 0, "down": 0}  # training traffic of the round in progress, bytes

    def message(
        self, *, round: int, phase: str, client: int, direction: str, length: int, kinds: Mapping[str, int],
        transport: int, attempt: int = 1, status: str = "ok",
    ) -> None:  # fmt: skip
        """Book one encoded payload of `length` bytes, `kinds` as `sizes` gives them."""
        src, dst = ("server", f"client:{client}") if direction == "down" else (f"client:{client}", "server")
        row = {"round": round, "phase": phase, "client": client, "direction": direction, "src": src, "dst": dst,
               "attempt": attempt, "status": status, "bytes": length, **kinds, "transport": transport}  # fmt: skip
        self._rows["messages"].append(row)
        if phase != columns.EVALUATE:
            self.of_round[direction] += length

    def add(self, table: str, **row: Any) -> None:
        """A row of `clients`, `rounds` or `layers`."""
        self._rows[table].append(row)

    def end_round(self, **row: Any) -> dict[str, Any]:
        """Close a round: book its row with its training bytes and make all its rows durable."""
        row |= {"bytes_up": self.of_round["up"], "bytes_down": self.of_round["down"]}
        self.add("rounds", **row)
        self.flush()
        self.of_round = {"up": 0, "down": 0}
        return row

    def flush(self) -> None:
        """Hand all rows over to the system, which keeps them when this process is killed.

        `rounds` comes last, so that a round that is there is whole.
        """
        for table in sorted(columns.TABLES, key=lambda name: name == "rounds"):
            if rows := self._rows.pop(table, []):
                with open(self.folder / f"{table}.jsonl", "a", encoding="utf-8") as file:
                    file.writelines(json.dumps(_plain(row)) + "\n" for row in rows)

    def close(self) -> dict[str, pd.DataFrame]:
        """Turn the JSON lines into Parquet; returns the tables."""
        self.flush()
        tables = {}
        for table in columns.TABLES:
            lines = self.folder / f"{table}.jsonl"
            frame = columns.read_jsonl(lines, table)
            draft = self.folder / f".{table}.parquet.tmp"
            frame.to_parquet(draft, index=False)
            os.replace(draft, self.folder / f"{table}.parquet")
            lines.unlink(missing_ok=True)
            tables[table] = frame
        return tables


def rounds_so_far(folder: Path) -> list[dict[str, Any]]:
    """The rows of `rounds` that another process has written."""
    try:
        table = columns.read_jsonl(folder / "rounds.jsonl", "rounds")
    except FileNotFoundError:  # it has just become Parquet
        table = columns.frame([], columns.ROUNDS)
    if (whole := folder / "rounds.parquet").exists():
        table = pd.read_parquet(whole)
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def sizes(data: bytes) -> dict[str, int]:
    """`values`, `mask`, `dense` and `header` bytes of an encoded payload; their sum is its length."""
    seen = inspect(data)
    return {"values": seen.values, "mask": seen.mask, "dense": seen.dense, "header": seen.header}


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    # JSON has no NaN: a value that is not a number is missing.
    return {k: None if isinstance(v, float) and v != v else v for k, v in row.items()}

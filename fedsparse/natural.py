"""Partitions that nobody draws: from the data set's own ids, from a file, or from where the data lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import numpy as np
from pydantic import Field

from fedsparse.data import located
from fedsparse.errors import InputError
from fedsparse.options import Whole
from fedsparse.partition import Indices, Partition, fitting

if TYPE_CHECKING:
    from fedsparse.data import Data


class Natural(Partition):
    """Each client is one that the data set itself knows, such as a person, a place or a device; ordered by id."""

    name = "natural"
    natural = True

    min_samples: Whole = 3
    """Fewest samples of a client; whoever has fewer is left out."""

    def assign(self, data: Data, clients: int, seed: int) -> list[Indices]:
        kept = [own for _, own in self._owners(data) if len(own) >= self.min_samples]
        if not kept:
            most = max(len(own) for _, own in self._owners(data))
            raise InputError(
                f"The partition natural leaves no client: none has min_samples = {self.min_samples} samples, "
                f"the most are {most}."
            )
        return kept

    def names(self, data: Data) -> list[str]:
        return [name for name, own in self._owners(data) if len(own) >= self.min_samples]

    def left_out(self, data: Data) -> str:
        owners = self._owners(data)
        small = [len(own) for _, own in owners if len(own) < self.min_samples]
        if not small:
            return ""
        whose = f"{len(small)} of {len(owners)} clients, with fewer than {self.min_samples} samples"
        return f"left out: {whose} ({sum(small)} in all)"

    def _owners(self, data: Data) -> list[tuple[str, Indices]]:
        """Every id of the data set with its rows."""
        if data.clients is None:
            raise InputError(
                f"The partition natural needs a data set that says whose each sample is, which this one does not: "
                f"take {fitting(data)}."
            )
        ids, owner, counts = np.unique(data.clients, return_inverse=True, return_counts=True)
        rows = np.split(np.argsort(owner, kind="stable"), np.cumsum(counts)[:-1])
        return list(zip(map(str, ids), rows, strict=True))


class Own(Partition):
    """Each client's data are what its own machine holds: for real clients only, with the server's data as the test."""

    name = "own"
    own = True

    def assign(self, data: Data, clients: int, seed: int) -> list[Indices]:
        raise InputError(
            f"The partition own is for real clients, who have their data on their own machines (--runtime grpc); "
            f"a simulation has all data in one place: take {fitting(data)}."
        )


class Fixed(Partition):
    """Each client has the rows that a file lists; ordered by id, rows of the training set count from 0.

    The file is looked for beside the config, in the working directory and under FEDSPARSE_DATA. What it does not list
    is left out.
    """

    name = "fixed"
    natural = True

    file: Annotated[str, Field(min_length=1)]
    """JSON, {"client": [rows]} or a list of lists of rows; or CSV or Parquet with the columns client and row."""

    def assign(self, data: Data, clients: int, seed: int) -> list[Indices]:
        return list(self._rows(data).values())

    def names(self, data: Data) -> list[str]:
        return list(self._rows(data))

    def left_out(self, data: Data) -> str:
        rest = len(data.x) - sum(map(len, self._rows(data).values()))
        return f"left out: {rest:,} of {len(data.x):,} samples, not in {Path(self.file).name}" if rest else ""

    def _rows(self, data: Data) -> dict[str, Indices]:
        """Each client's rows by its name, checked."""
        listed = self._read()
        if not listed:
            self._refuse("names no client")
        for client, rows in listed.items():
            if not rows:
                self._refuse(f"gives client {client} no rows: each needs some")
            wrong = [row for row in rows if type(row) is not int or not 0 <= row < len(data.x)]
            if wrong:
                self._refuse(f"gives client {client} the row {_short(wrong[0])}, allowed are 0 to {len(data.x) - 1}")
        found = {client: np.array(listed[client], dtype=np.int64) for client in _ordered(listed)}
        every, counts = np.unique(np.concatenate(list(found.values())), return_counts=True)
        if counts.max() > 1:
            row = every[counts.argmax()]
            owners = [client for client, own in found.items() for _ in range((own == row).sum())]
            self._refuse(f"has the row {row} twice, for client {owners[0]} and for client {owners[1]}")
        return found

    def _read(self) -> dict[str, list[Any]]:
        import pyarrow

        path = located(self.file)
        reader = {".json": self._json, ".csv": self._csv, ".parquet": self._parquet}.get(path.suffix.lower())
        if reader is None:
            self._refuse("must end in .json, .csv or .parquet")
        if not path.is_file():
            self._refuse("is not there, neither from the working directory nor under FEDSPARSE_DATA")
        try:
            return reader(path)
        except InputError:  # a ValueError too
            raise
        except (OSError, ValueError, RecursionError, pyarrow.ArrowException) as error:
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0].rstrip(".")
            self._refuse(f"cannot be read as {path.suffix[1:]} ({reason})")

    def _json(self, path: Path) -> dict[str, list[Any]]:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=self._object)
        if isinstance(content, list):
            content = {str(client): rows for client, rows in enumerate(content)}
        if not isinstance(content, dict) or not all(isinstance(rows, list) for rows in content.values()):
            self._refuse('must hold {"client": [rows], ...} or a list of lists of rows')
        return content

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            names = [name for name, _ in pairs]
            self._refuse(f"names client {next(name for name in names if names.count(name) > 1)} twice")
        return content

    def _csv(self, path: Path) -> dict[str, list[Any]]:
        from pyarrow import csv, string

        # Names are texts, so that client 007 keeps its zeros.
        texts = csv.ConvertOptions(column_types={"client": string()})
        return self._grouped(csv.read_csv(path, convert_options=texts))

    def _parquet(self, path: Path) -> dict[str, list[Any]]:
        from pyarrow import parquet

        return self._grouped(parquet.read_table(path))

    def _grouped(self, table: Any) -> dict[str, list[Any]]:
        for column in ("client", "row"):
            if table.column_names.count(column) != 1:
                self._refuse(f"needs one column {column}, its columns are {', '.join(table.column_names)}")
        found: dict[str, list[Any]] = {}
        for client, row in zip(table["client"].to_pylist(), table["row"].to_pylist(), strict=True):
            if client in (None, ""):
                self._refuse(f"names no client for the row {_short(row)}")
            found.setdefault(str(client), []).append(row)
        return found

    def _refuse(self, what: str) -> NoReturn:
        raise InputError(f"The file {self.file} of the partition fixed {what}.")


def _ordered(names: dict[str, Any]) -> list[str]:
    try:
        return sorted(names, key=int)
    except ValueError:
        return sorted(names)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."

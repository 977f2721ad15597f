"""A table of the user's own, CSV or Parquet: a row is a sample, one column is predicted, one may name the client."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from fedsparse.data import Data, Dataset, located
from fedsparse.errors import InputError
from fedsparse.registry import nearest

if TYPE_CHECKING:
    from pandas import DataFrame, Series

KINDS = (".csv", ".csv.gz", ".parquet")
SHOWN = 20
"""So many columns are listed in a sentence."""


class Table(Dataset):
    """A CSV or Parquet table of your own: one column is predicted from others; more may name client and group."""

    file: Annotated[str, Field(min_length=1)]
    """The file (.csv, .csv.gz or .parquet), under FEDSPARSE_DATA or from the working directory."""
    target: Annotated[str, Field(min_length=1)]
    """The column that is predicted."""
    task: Literal["classification", "regression"] = "classification"
    """Whether the target is a class (of any type) or a number."""
    client: str = ""
    """The column with each row's natural client; "" where there is none."""
    group: str = ""
    """The column with what must not be torn apart (a field, a patient); "" where there is none."""
    features: tuple[str, ...] = ()
    """The columns that are inputs; none named: all other numeric ones."""

    def load(self) -> Data:
        """Inputs as float32 (N, columns), each with mean 0 and standard deviation 1 over the whole table.

        Classes are numbered in the order of their values. A regression's target is standardised too; its error is told
        in the column's own unit.
        """
        frame, where = self._read()
        target = _column(frame, self.target, "target", where)
        clients = _ids(_column(frame, self.client, "client", where)) if self.client else None
        groups = _ids(_column(frame, self.group, "group", where)) if self.group else None
        x = np.stack([_standard(_numbers(frame, name, where))[0] for name in self._features(frame, where)], axis=1)
        inputs = torch.from_numpy(x.astype(np.float32))
        if self.task == "regression":
            values = _numbers(frame, self.target, where)
            y, unit = _standard(values)
            if unit == 0:
                raise InputError(f'The column "{self.target}" of {where} is the same in every row: nothing to predict.')
            told, zero = torch.from_numpy(y.astype(np.float32)), float(values.mean())
            return Data(x=inputs, y=told, clients=clients, groups=groups, unit=unit, zero=zero)
        labels, classes = _labels(target, where)
        return Data(x=inputs, y=torch.from_numpy(labels), classes=classes, clients=clients, groups=groups)

    def _read(self) -> tuple[DataFrame, Path]:
        import pandas as pd

        file = located(self.file)
        if not file.is_file():
            raise InputError(
                f"The file {file} of the data set table is not there, neither under FEDSPARSE_DATA nor from the "
                f"working directory."
            )
        if not file.name.lower().endswith(KINDS):
            raise InputError(f"The file {file} of the data set table must end in {', '.join(KINDS)}.")
        try:
            parquet = file.suffix.lower() == ".parquet"
            frame = pd.read_parquet(file) if parquet else pd.read_csv(file, low_memory=False)
        except (OSError, EOFError, ValueError, NotImplementedError, zlib.error) as error:
            raise InputError(f"The file {file} cannot be read as a table ({_reason(error)}).") from error
        if any(frame.index.names):  # columns that pandas wrote as the index
            frame = frame.reset_index()
        if frame.empty:
            raise InputError(f"The file {file} holds no rows.")
        return frame, file

    def _features(self, frame: DataFrame, where: Path) -> tuple[str, ...]:
        from pandas.api.types import is_numeric_dtype

        if self.target in self.features:
            raise InputError(f'The column "{self.target}" cannot be both the target and among the features.')
        used = (self.target, self.client, self.group)
        found = self.features or tuple(n for n in frame if n not in used and is_numeric_dtype(frame[n].dtype))
        for name in () if self.features else (n for n in frame if n not in used and n not in found):
            _check_meant(frame[name], where)
        if not found:
            raise InputError(f"The file {where} has no numeric column beside {_listed(n for n in used if n)}.")
        return found


def _column(frame: DataFrame, name: str, role: str, where: Path) -> Series:
    """A column without a hole."""
    if name not in frame:
        near = nearest(name, map(str, frame))
        raise InputError(f'The file {where} has no column "{name}" ({role}){near}; it has {_listed(frame)}.')
    holes = int(frame[name].isna().sum())
    if holes:
        raise InputError(
            f'The column "{name}" of {where} lacks a value in {holes} of {len(frame)} rows: '
            f"fill them in or leave those rows out."
        )
    return frame[name]


def _numbers(frame: DataFrame, name: str, where: Path) -> np.ndarray:
    """A column as float64."""
    from pandas.api.types import is_numeric_dtype

    column = _column(frame, name, "features", where)
    if not is_numeric_dtype(column.dtype):
        _, row = _parsed(column)
        raise InputError(f"{_bad_cell(column, row or 0, where)}.")
    values = column.to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError(f'The column "{name}" of {where} holds a number that is not finite.')
    return values


def _check_meant(column: Series, where: Path) -> None:
    """InputError where a text column is of numbers but for some cells: dropped in silence, it would be missed."""
    numbers, bad = _parsed(column)
    if bad is not None and 2 * numbers > len(column):
        raise InputError(f"{_bad_cell(column, bad, where)} as most of its cells are: correct it, or name the features.")


def _parsed(column: Series) -> tuple[int, int | None]:
    """How many cells of a text column read as numbers; and the place of the first that is there and does not."""
    import pandas as pd
    from pandas.api.types import is_object_dtype, is_string_dtype

    if not (is_object_dtype(column.dtype) or is_string_dtype(column.dtype)):
        return 0, None  # times and the like: pandas would count them as numbers
    read = pd.to_numeric(column.astype(str), errors="coerce").notna().to_numpy()
    bad = np.flatnonzero(~read & column.notna().to_numpy())
    return int(read.sum()), int(bad[0]) if len(bad) else None


def _bad_cell(column: Series, place: int, where: Path) -> str:
    cell = column.iloc[place]
    return f'The column "{column.name}" of {where} holds {cell!r} in row {place + 1}, which is no number'


def _standard(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Values with mean 0 and standard deviation 1, and their own deviation; what never varies becomes 0."""
    if (values == values[0]).all():
        return np.zeros_like(values), 0.0
    sd = float(values.std())
    return (values - values.mean()) / sd, sd


def _labels(column: Series, where: Path) -> tuple[np.ndarray, int]:
    """Class numbers, int64, in the order of the column's values; and how many there are."""
    try:
        values, labels = np.unique(column.to_numpy(), return_inverse=True)
    except (TypeError, ValueError) as error:
        raise InputError(f'The column "{column.name}" of {where} holds values that have no order.') from error
    if len(values) < 2:
        raise InputError(f'The column "{column.name}" of {where} has one class, {values[0]}: at least 2 are needed.')
    return labels.astype(np.int64), len(values)


def _ids(column: Series) -> np.ndarray:
    """Whole numbers as int64, anything else as text."""
    from pandas.api.types import is_integer_dtype

    return column.to_numpy(dtype=np.int64) if is_integer_dtype(column.dtype) else column.astype(str).to_numpy(dtype=str)


def _reason(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0].removeprefix("Error tokenizing data. C error: ")
    return first.partition(". ")[0].rstrip(".") or type(error).__name__


def _listed(names: Iterable[object]) -> str:
    every = list(map(str, names))
    rest = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + rest

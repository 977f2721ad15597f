"""Devices and traces from a user's own CSV files, checked."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from fedsparse.errors import InputError
from fedsparse.profiles import Intervals
from fedsparse.registry import nearest
from fedsparse.sections import Device

Row = Mapping[str, str]

NEEDED = ("flops", "down", "up")
OTHERS = ("latency", "memory", "dropout", "sparse_kernels")
UNREAD = ("client", "device", "name", "ready")
"""Columns that may be there, as in the table that `fedsparse show devices` writes."""
MARKS = {";": "semicolons", "\t": "tabs", "|": "bars"}
TRUTHS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class _Bounds:
    """The numbers that a column may hold."""

    ge: float
    le: float

    @classmethod
    def of(cls, field: FieldInfo) -> _Bounds:
        """Those of a tier's key."""
        return cls(**{way: getattr(rule, way) for rule in field.metadata for way in ("ge", "le") if hasattr(rule, way)})

    def __str__(self) -> str:
        return f"a number of at least {self.ge:g} and at most {self.le:g}"


BOUNDS = {name: _Bounds.of(Device.model_fields[name]) for name in (*NEEDED, *OTHERS) if name != "sparse_kernels"}
MOMENT = _Bounds(0, 1e9)
SHORTEST = 1e-3
"""Seconds of an interval: shorter ones are lost in rounding after years."""


def devices(file: str) -> list[dict[str, Any]]:
    """A row a device: `flops`, `down` and `up`, and of the other numbers those that the file has. Raises InputError."""
    path = Path(file).absolute()
    return [
        {name: _value(path, line, row, name) for name in row if name in NEEDED or row[name] and name not in UNREAD}
        for line, row in _read(path, NEEDED, (*OTHERS, *UNREAD))
    ]


def traces(file: str) -> list[Intervals]:
    """When each device is ready, by the file's columns device, start and end; all repeat from the latest end on."""
    path, found = Path(file).absolute(), []
    for line, row in _read(path, ("device", "start", "end"), ()):
        if not row["device"]:
            raise InputError(f"{path}, line {line}: device must not be empty.")
        start, end = (_number(path, line, row, column, MOMENT) for column in ("start", "end"))
        if end - start < SHORTEST:
            why = f"must be at least {SHORTEST:g} after start, {row['start']}, not {row['end']}"
            raise InputError(f"{path}, line {line}: end {why}.")
        found.append((row["device"], start, end))
    period = max(end for _, _, end in found)
    found.sort()
    return [_merged([(s, e) for _, s, e in own], period) for _, own in groupby(found, lambda interval: interval[0])]


def _merged(intervals: Sequence[tuple[float, float]], period: float) -> Intervals:
    """Intervals in order of their starts as ones that do not meet."""
    whole: list[tuple[float, float]] = []
    for start, end in intervals:
        if whole and start <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(end, whole[-1][1]))
        else:
            whole.append((start, end))
    starts, ends = zip(*whole, strict=True)
    return Intervals(starts, ends, period)


def _value(file: Path, line: int, row: Row, column: str) -> float | bool:
    if column == "sparse_kernels":
        if (text := row[column].lower()) not in TRUTHS:
            raise InputError(f'{file}, line {line}: {column} must be true or false, not "{row[column]}".')
        return TRUTHS[text]
    return _number(file, line, row, column, BOUNDS[column])


def _number(file: Path, line: int, row: Row, column: str, bounds: _Bounds) -> float:
    text = row[column]
    try:
        value = math.nan if "_" in text else float(text)  # Python's way of writing thousands
    except ValueError:
        value = math.nan
    if not bounds.ge <= value <= bounds.le:
        allowed = "a finite number" if math.isinf(value) else bounds
        raise InputError(f'{file}, line {line}: {column} must be {allowed}, not "{text}".')
    return value


def _read(file: Path, needed: Sequence[str], others: Sequence[str]) -> list[tuple[int, Row]]:
    """The rows with their line numbers."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(_rows(file, csv.reader(stream), needed, others))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read as CSV ({getattr(error, 'strerror', None) or error}).") from error
    if not rows:
        raise InputError(f"{file} has no rows; needed: a line of columns ({', '.join(needed)}) and a line a device.")
    return rows


def _rows(file: Path, reader: Any, needed: Sequence[str], others: Sequence[str]) -> Iterator[tuple[int, Row]]:
    header = [name.strip() for name in next(reader, [])]
    allowed = (*needed, *others)
    if other := next((name for mark, name in MARKS.items() if mark in "".join(header)), ""):
        raise InputError(f"{file} has its columns separated by {other}; needed: commas.")
    for name in header:
        if name not in allowed:
            near = nearest(name, allowed)
            raise InputError(f'{file} has the column "{name}"{near}; allowed: {", ".join(allowed)}.')
        if header.count(name) > 1:
            raise InputError(f"{file} has the column {name} twice.")
    if header and (missing := [name for name in needed if name not in header]):
        raise InputError(f"{file} lacks the column {missing[0]}; needed: {', '.join(needed)}.")
    for cells in reader:
        if not any(cells):
            continue
        if len(cells) != len(header):
            raise InputError(f"{file}, line {reader.line_num}: {len(header)} cells are needed, not {len(cells)}.")
        yield reader.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=True))

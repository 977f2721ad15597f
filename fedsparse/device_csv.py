"""Devices and traces from a user's own CSV files, checked."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from fedsparse.errors import InputError
from fedsparse.profiles import Intervals
from fedsparse.registry import nearest

Row = Mapping[str, str]

NEEDED = ("flops", "down", "up")
OTHERS = ("latency", "memory", "dropout", "sparse_kernels")
UNREAD = ("client", "device", "name", "ready")
"""Columns that may be there, as in the table that `fedsparse show devices` writes."""
TRUTHS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class _Bounds:
    """The numbers that a column may hold."""

    least: float = 0.0
    most: float = math.inf
    open: bool = False

    def holds(self, value: float) -> bool:
        return (value > self.least if self.open else value >= self.least) and value <= self.most and value < math.inf

    def __str__(self) -> str:
        least = f"greater than {self.least:g}" if self.open else f"of at least {self.least:g}"
        return f"a number {least}" + (f" and at most {self.most:g}" if self.most < math.inf else "")


BOUNDS = {name: _Bounds(open=True) for name in NEEDED} | {"dropout": _Bounds(most=1)}


def devices(file: str) -> list[dict[str, Any]]:
    """A row a device: `flops`, `down` and `up`, and of the other numbers those that the file has. Raises InputError."""
    table = _read(Path(file), NEEDED, (*OTHERS, *UNREAD))
    return [
        {column: _value(Path(file), line, row, column) for column in row if column not in UNREAD} for line, row in table
    ]


def traces(file: str) -> list[Intervals]:
    """When each device is ready, by the file's columns device, start and end; all repeat from the latest end on."""
    path, found = Path(file), []
    for line, row in _read(path, ("device", "start", "end"), ()):
        start, end = (_number(path, line, row, column, _Bounds()) for column in ("start", "end"))
        if end <= start:
            raise InputError(f"{path}, line {line}: end must be greater than start, {start:g}, not {end:g}.")
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
    if column == "memory" and not row[column]:
        return 0.0  # no limit
    return _number(file, line, row, column, BOUNDS.get(column, _Bounds()))


def _number(file: Path, line: int, row: Row, column: str, bounds: _Bounds) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not bounds.holds(value):
        raise InputError(f'{file}, line {line}: {column} must be {bounds}, not "{row[column]}".')
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

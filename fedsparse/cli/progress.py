"""How far a run is: a bar where standard error is a terminal, a few plain lines where it is not."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

LINES = 10
"""Plain lines a run; half as many for each run of a comparison."""


@contextmanager
def reporter(quiet: bool) -> Iterator[Any]:
    """Who is told by the engine how far it is; None when nobody wants to know."""
    if quiet:
        yield None
        return
    if not sys.stderr.isatty():
        yield Lines()
        return
    bar = Bar(Console(stderr=True))
    with bar.progress:
        yield bar


class Clock:
    """Time left, from the share that is done."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def left(self, share: float) -> str:
        return duration((time.monotonic() - self.began) * (1 - share) / share) if share > 0 else "-"


class Lines:
    """Plain lines, evenly over the rounds."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.metric: object = None

    def start(self, label: str, rounds: int, index: int, total: int) -> None:
        self.name = f"[{index}/{total}] {label}" if total > 1 else label
        self.rounds, self.index, self.total = rounds, index, total
        self.lines = LINES if total == 1 else LINES // 2
        self.metric = None
        if index == 1:
            self.clock = Clock()
        self.began = time.monotonic()

    def round(self, row: Mapping[str, Any]) -> None:
        done = row["round"]
        self.metric = row["metric"] if known(row["metric"]) else self.metric
        if done * self.lines // self.rounds > (done - 1) * self.lines // self.rounds:
            left = self.clock.left((self.index - 1 + done / self.rounds) / self.total)
            metric = figure(self.metric)
            self._say(f"round {done}/{self.rounds}, metric {metric}, {megabytes(row['mb'])} MB, {left} left")

    def end(self, status: str) -> None:
        self._say(f"{status} in {duration(time.monotonic() - self.began)}")

    def _say(self, text: str) -> None:
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)


class Left(ProgressColumn):
    """Time left of everything, by the share that is done: steadier than the speed of the last seconds."""

    def render(self, task: Task) -> Text:
        share = task.completed / task.total if task.total else 0.0
        if task.finished or not task.started or share == 0 or task.elapsed is None:
            return Text("-" if not task.finished else duration(task.finished_time or 0))
        return Text(f"{duration(task.elapsed * (1 - share) / share)} left", style="cyan")


class Bar:
    """One bar for all runs: which of them, round, metric, MB so far, time left."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[told]}", markup=False),
            Left(),
            console=console,
            expand=True,
        )
        self.task = self.progress.add_task("starting", total=None, told="")
        self.metric: object = None

    def start(self, label: str, rounds: int, index: int, total: int) -> None:
        self.rounds, self.index, self.metric, self.label = rounds, index, None, label
        self.began = time.monotonic()
        name = f"{index}/{total} {label}" if total > 1 else label
        if index == 1:
            self.progress.reset(self.task, total=float(total))
        self.progress.update(self.task, description=name, told=f"round 0/{rounds}", completed=float(index - 1))

    def round(self, row: Mapping[str, Any]) -> None:
        self.metric = row["metric"] if known(row["metric"]) else self.metric
        told = f"round {row['round']}/{self.rounds}  metric {figure(self.metric)}  {megabytes(row['mb'])} MB"
        self.progress.update(self.task, told=told, completed=self.index - 1 + row["round"] / self.rounds)

    def end(self, status: str) -> None:
        if status != "done":
            self.progress.console.print(Text(f"{self.label}: {status}", style="red"))


def known(value: object) -> bool:
    """Whether it is a number and not one that stands for "unknown"."""
    return isinstance(value, int | float) and value == value


def figure(value: Any) -> str:
    """A metric in a line: three or four digits."""
    return "-" if not known(value) else f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def megabytes(value: Any) -> str:
    """MB with three digits: 0.012, 1.23, 12.3, 123, 1234."""
    if not known(value):
        return "-"
    digits = 3 if value < 0.1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """12 s, 3:05, 1:02:03."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"

"""What commands print on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedsparse.cli.progress import known, megabytes

if TYPE_CHECKING:
    import pandas as pd

    from fedsparse.cli.views import Split
    from fedsparse.codec import Header, Inspection
    from fedsparse.results import Comparison, Run

DONE = "done"


def console() -> Console:
    # A pipe has no width: wide enough for every table unless the caller says otherwise.
    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else 120
    return Console(width=width, highlight=False)


def note(text: str) -> None:
    """A line for people beside a result."""
    print(text, file=sys.stderr)


def print_json(content: Any) -> None:
    """JSON, with null for what is unknown."""
    print(json.dumps(_plain(content), indent=2, ensure_ascii=False))


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table."""
    return [dict(zip(map(str, frame.columns), row, strict=True)) for row in frame.itertuples(index=False)]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


def exit_code(runs: Iterable[Run]) -> int:
    """0 when every run is done, else 1."""
    return int(any(run.summary["status"] != DONE for run in runs))


# ---- lists ----


def _table(*columns: str, left: int = 1, tight: bool = False) -> Table:
    padding = (0, 0) if tight else (0, 1)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=padding, header_style="bold", show_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < left else "right", overflow="fold", vertical="top")
    return table


def print_list(kind: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Names and what they are."""
    table = _table("name", "summary", left=2)
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(row["name"], Text(row["summary"]))
    console().print(table if rows else f"There are no {kind}.")


# ---- runs ----


def print_run(run: Run) -> None:
    """What one run came to."""
    info = run.summary
    percent = info["metric"] == "accuracy"
    unit = " %" if percent else ""
    lines = {
        info["metric"]: _value(info["final"], percent) + unit * known(info["final"]),
        "personal": _value(info["final_personal"], percent) + unit * known(info["final_personal"]),
        "density": _value(info["density"], False),
        "MB up": megabytes(_mega(info["bytes_up"])),
        "MB down": megabytes(_mega(info["bytes_down"])),
        "seconds": f"{info['seconds']:.1f}",
        "model": str(info["model_hash"] or "-")[:16],
    }
    table = _table(f"{info['variant']}", f"seed {info['seed']}, {info['rounds']} rounds")
    for name, value in lines.items():
        table.add_row(str(name), value)
    out = console()
    out.print(table)
    _status([run], out)
    out.print(Text(f"\n{near(run.folder)}"), soft_wrap=True)


@dataclass(frozen=True)
class _Column:
    """A column of the comparison; those with a higher `spare` are left out first where the terminal is narrow."""

    head: str
    cell: Callable[[Mapping[str, Any]], str]
    spare: int = 0


def print_comparison(comparison: Comparison) -> None:
    """A row a variant: quality, density, bytes, both relative to FedAvg, and quality at equal MB."""
    rows, runs, out = records(comparison.summary), comparison.runs, console()
    out.print(Text(_heading(runs), style="bold"))
    out.print(_fitting(_columns(rows, str(runs[0].summary["metric"])), rows, out))
    _beside(rows, runs, out)
    out.print(Text(f"\n{near(comparison.folder / 'report.html')}"), soft_wrap=True)


def _columns(rows: Sequence[Mapping[str, Any]], metric: str) -> list[_Column]:
    percent = metric == "accuracy"
    unit = "\n%" if percent else ""
    budget = next((_both(row) for row in rows if row["variant"] == row["budget"]), None)
    compared = sum(known(row["personal_at_budget_mean"]) or known(row["at_budget_mean"]) for row in rows) > 1
    at = f"at {megabytes(budget)} MB"
    equal = [
        _Column(f"{at}{unit}", lambda r: _spread(r, "at_budget", percent), 2),
        _Column(f"personal\n{at}", lambda r: _spread(r, "personal_at_budget", percent), 3),
    ]
    return [
        _Column(f"{metric}{unit}", lambda r: _spread(r, "final", percent)),
        _Column("minus\nFedAvg", lambda r: _difference(r, "final", percent), 1),
        _Column(f"personal{unit}", lambda r: _spread(r, "final_personal", percent)),
        _Column("minus\nFedAvg", lambda r: _difference(r, "final_personal", percent), 4),
        _Column("density", lambda r: _value(r["density_mean"], False)),
        _Column("MB\nup", lambda r: megabytes(_mega(r["bytes_up_mean"]))),
        _Column("MB\ndown", lambda r: megabytes(_mega(r["bytes_down_mean"]))),
        _Column("MB % of\nFedAvg", lambda r: f"{r['bytes_ratio'] * 100:.1f}" if known(r["bytes_ratio"]) else "-"),
        _Column("MB to\ntarget", lambda r: megabytes(r["mb_to_target_mean"])),
        *(equal if compared else []),
        _Column("s", lambda r: _seconds(r["seconds_mean"]), 5),
    ]


def _fitting(columns: Sequence[_Column], rows: Sequence[Mapping[str, Any]], out: Console) -> Table:
    """The table with as many columns as the terminal has room for, tight only if need be."""
    unbounded = out.options.update(max_width=10_000)
    for most in range(max(column.spare for column in columns), -1, -1):
        shown = [column for column in columns if column.spare <= most]
        for tight in (False, True):
            table = _table("", *(column.head for column in shown), tight=tight)
            table.columns[0].no_wrap = True
            for place in table.columns:
                place.vertical = "bottom"
            for row in rows:
                table.add_row(Text(str(row["variant"])), *(column.cell(row) for column in shown))
            if out.measure(table, options=unbounded).maximum <= out.width:
                return table
    return table


def _heading(runs: Sequence[Run]) -> str:
    first, seeds = runs[0].summary, len({run.summary["seed"] for run in runs})
    rounds = f"{first['rounds']} round{'s' * (first['rounds'] != 1)}"
    return f"{first['dataset']}, {first['model']}, {rounds}; mean ± sd over {seeds} seed{'s' * (seeds != 1)}\n"


def _beside(rows: Sequence[Mapping[str, Any]], runs: Sequence[Run], out: Console) -> None:
    told = [(row["variant"], row["overrides"]) for row in rows if row["overrides"]]
    if told:
        out.print()
    for label, overrides in told:
        out.print(Text.assemble((str(label), "bold"), f": {overrides}"))
    _status(runs, out)


def _status(runs: Sequence[Run], out: Console) -> None:
    for run in runs:
        info = run.summary
        if info["status"] != DONE:
            why = f": {info['why']}" if info.get("why") else ""
            out.print(Text(f"{info['variant']}, seed {info['seed']} {info['status']}{why}", style="red"))


def near(path: Any) -> str:
    """A path as people type it from here."""
    found = os.path.relpath(path)
    return str(path) if found.startswith("..") else found


def _mega(count: Any) -> float | None:
    return count / 1e6 if known(count) else None


def _value(value: Any, percent: bool) -> str:
    if not known(value):
        return "-"
    return f"{value * 100:.1f}" if percent else f"{value:.3f}" if abs(value) < 100 else f"{value:.5g}"


def _spread(row: Mapping[str, Any], name: str, percent: bool) -> str:
    return _pair(row[f"{name}_mean"], row[f"{name}_sd"], percent)


def _pair(mean: Any, sd: Any, percent: bool) -> str:
    return _value(mean, percent) + (f"±{_value(sd, percent)}" if known(sd) else "")


def _difference(row: Mapping[str, Any], name: str, percent: bool) -> str:
    mean = row[f"{name}_diff"]
    if not known(mean) or row["strategy"] == row["variant"] == "fedavg":
        return "-"
    return ("+" if mean >= 0 else "") + _pair(mean, row[f"{name}_diff_sd"], percent)


def _both(row: Mapping[str, Any]) -> float | None:
    """MB of both directions."""
    return _mega(row["bytes_up_mean"] + row["bytes_down_mean"])


def _seconds(value: Any) -> str:
    return "-" if not known(value) else f"{value:.1f}" if value < 100 else f"{value:.0f}"


# ---- payloads ----


def print_payload(head: Header, found: Inspection) -> None:
    """A row a tensor in the payload's order, the sums by kind below."""
    table = _table("tensor", "mask", "values", "kept", "mask bytes", "value bytes", left=3)
    for row in found.tensors:
        kept = "-" if row.kept is None else f"{row.kept:,}"
        table.add_row(Text(row.name), row.mask, row.values, kept, f"{row.mask_bytes:,}", f"{row.value_bytes:,}")
    out = console()
    out.print(table)
    kinds = ", ".join(f"{kind} {getattr(found, kind):,}" for kind in ("values", "mask", "dense", "header"))
    out.print(Text(f"\n{found.total:,} bytes: {kinds}", style="bold"))
    version = ".".join(map(str, head.version))
    relies = ", relies on a reference" * bool(head.reference) + ", by an agreed schema" * head.by_schema
    ids = f"run {head.ids.run:x}, round {head.ids.round}, client {head.ids.client}, generation {head.ids.generation}"
    out.print(Text(f"format {version}, {head.kind}, absent is {head.absent}{relies}\n{ids}"))


# ---- data and devices ----


def print_split(split: Split) -> None:
    """A row a client: device, samples of each part; classes present and how many of each, or the targets' spread."""
    texts = ["client", "name", "device"] if split.named else ["client", "device"]
    counts = ["train", "validation", "test", *(["classes"] if split.classes else [])]
    spread = [] if split.classes else ["mean", "sd", "q05", "median", "q95"]
    table = _table(*texts, *counts, *spread, *(["labels"] if split.classes else []), left=len(texts))
    for row in records(split.table):
        bar = [split.bar(row)] if split.classes else []
        numbers = [_value(row[name], False) for name in spread]
        table.add_row(*(Text(str(row[name])) for name in texts + counts), *numbers, *bar)
    out = console()
    out.print(table)
    out.print(Text(f"\n{split.heading}", style="bold"))
    out.print(Text("\n".join(split.details)))


def print_tiers(rows: Sequence[Mapping[str, Any]]) -> None:
    """A row a tier of devices."""
    table = _table("device", "share", "clients", "GFLOP/s", "MB/s down", "MB/s up", "latency ms")
    for row in rows:
        table.add_row(
            str(row["device"]),
            f"{row['share']:g}",
            str(row["clients"]),
            f"{row['flops'] / 1e9:g}",
            f"{row['down'] / 1e6:g}",
            f"{row['up'] / 1e6:g}",
            f"{row['latency'] * 1e3:g}",
        )
    console().print(table)

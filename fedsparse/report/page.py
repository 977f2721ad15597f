"""The report's HTML: one file without any outside request; everything that comes from users is escaped."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Sequence, Set
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from fedsparse import columns
from fedsparse.measures import MEGA, baselines
from fedsparse.report.cells import Column, breakable, difference, duration, known, mb, number, share, spread, table
from fedsparse.report.sections import Picture, Section, total_mb
from fedsparse.report.style import STYLE
from fedsparse.report.words import words
from fedsparse.results import Run

if TYPE_CHECKING:
    import pandas as pd


def page(title: str, sections: Sequence[Section]) -> str:
    """The whole page."""
    body = "".join(_section(section, heading=len(sections) > 1) for section in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)} - fedsparse</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<header><p class=kicker>fedsparse report</p><h1>{escape(title)}</h1></header>\n"
        f"{body}{words(sections)}{_made(sections)}</main>\n</body>\n</html>\n"
    )


def _section(section: Section, heading: bool) -> str:
    found, done = section.table, section.table[section.table["status"] == columns.DONE]
    models = ", ".join(dict.fromkeys(found["model"].dropna()))
    rounds = " or ".join(str(n) for n in dict.fromkeys(found["rounds"]))
    seeds = done["seed"].nunique()
    drawn = f"{seeds} seed{'s' * (seeds != 1)}" if len(found) > 1 else f"seed {found['seed'].iloc[0]}"
    facts = ["" if heading else section.dataset, models, f"{rounds} rounds", drawn]
    direction = "higher" if section.higher else "lower"
    facts.append(f"{section.word.lower() if section.metric == 'accuracy' else section.word}, {direction} is better")
    head = f"<h2>{escape(section.dataset)}</h2>" if heading else ""
    lead = f"<p class=lead>{' · '.join(escape(fact) for fact in facts if fact)}</p>"
    note = f"<div class=notice><p>{escape(section.note)}</p></div>" if section.note else ""
    pictures = "".join(_picture(picture) for picture in section.pictures)
    return (
        f"<section>{head}{lead}{_unfinished(found)}{note}{_views(section)}{_stock(found)}"
        f"<div class=figures>{pictures}</div>{_each_run(section)}</section>\n"
    )


def _views(section: Section) -> str:
    """The two tables: the whole runs with their bytes, and every variant at the same MB."""
    if not section.budget:
        return _summary(section)
    whole = "Each variant at its own density, with the bytes that its whole run took."
    equal = (
        f"Read off each curve where it has used what {section.budget} used in all on the same seed "
        f"({mb(section.budget_mb)} MB in the mean), best first. A dash: no such model, or a curve that does not get "
        "there on every seed."
    )
    less = "Who sends less than the budget in all has a dash; its whole run stands in the first table."
    return (
        f"<h3>At equal density</h3><p class=note>{whole}</p>{_summary(section)}"
        f"<h3>At equal MB</h3><p class=note>{escape(equal)}</p>{_equal(section)}"
        f"<p class=note>{less}</p>"
    )


def _summary(section: Section) -> str:
    """A row a variant. What compares with FedAvg is left out where there is none."""
    bases = set(baselines(section.table).values()) - {None}
    compared = bool(bases)
    below = "to FedAvg" if compared else ""
    wanted = [
        Column("Strategy", lambda r: _name(r, section.table), number=False),
        Column(section.head, lambda r: _quality(r, "final", bases, section.scale), below=below),
        Column(_personal(section), lambda r: _quality(r, "final_personal", bases, section.scale), below=below),
        Column("Density", lambda r: number(r["density_mean"], 3)),
        Column("Bytes vs FedAvg", lambda r: share(r["bytes_ratio"])) if compared else None,
        Column("MB up", lambda r: mb(r["bytes_up_mean"] / MEGA)),
        Column("MB down", lambda r: mb(r["bytes_down_mean"] / MEGA)),
        Column("MB to target", lambda r: mb(r["mb_to_target_mean"])) if compared else None,
        *(_clock(section, bases) if section.clocked else [Column("Seconds", lambda r: mb(r["seconds_mean"]))]),
    ]
    kind = "cards clock" if section.clocked else "cards"
    return table([column for column in wanted if column], section.summary.to_dict("records"), kind)


def _clock(section: Section, bases: Set[str | None]) -> list[Column]:
    """What the virtual clock tells; the seconds that were really spent stand with every run."""
    unit = section.time_unit

    def time(row: dict[str, Any]) -> str:
        ratio = row["sim_ratio"]
        compared = known(ratio) and row["variant"] not in bases
        beside = f"<small>{100 * ratio:.1f} % of FedAvg's</small>" if compared else ""
        return duration(row["sim_seconds_mean"], unit) + beside

    target = Column("Time to target", lambda r: duration(r["sim_to_target_mean"], unit))
    return [Column("Simulated time", time), *([target] if bases else [])]


def _equal(section: Section) -> str:
    """A row a variant at the budget: the best first, those that do not get there last."""
    keys = ["at_budget_mean", "personal_at_budget_mean"]
    if section.summary[keys[0]].isna().all():
        keys = keys[1:]
    rows = section.summary.sort_values(keys, ascending=not section.higher, na_position="last", kind="stable")

    def name(row: dict[str, Any]) -> str:
        return breakable(row["variant"]) + "<small>the budget</small>" * (row["variant"] == section.budget)

    wanted = [
        Column("Strategy", name, number=False),
        Column(section.head, lambda r: spread(r["at_budget_mean"], r["at_budget_sd"], section.scale)),
        Column(_personal(section), lambda r: spread(r[keys[-1]], r["personal_at_budget_sd"], section.scale)),
        Column("MB in all", lambda r: mb(total_mb(r))),
    ]
    return table(wanted, rows.to_dict("records"), "small")


def _each_run(section: Section) -> str:
    """Every run, folded away: the numbers behind the means, evaluation traffic and the papers' own formulas."""
    rows = section.table.to_dict("records")
    outside = {(label, int(run.summary["seed"])): _evaluation_mb(run) for label, run in section.runs}
    extras = [str(name) for name in section.table.columns if str(name).startswith("paper_")]

    def plain(name: str) -> Callable[[Any], str]:
        return lambda r: spread(r[name], math.nan, section.scale)

    equal = [Column("At equal MB", plain("metric_at_budget")), Column("Personal", plain("personal_at_budget"))]
    clock = [
        Column("Simulated time", lambda r: duration(r["sim_seconds"], section.time_unit)),
        Column("Time to target", lambda r: duration(r[columns.SIM_TO_TARGET], section.time_unit)),
    ]
    wanted = [
        Column("Run", lambda r: escape(str(r["variant"])), number=False),
        Column("Seed", lambda r: str(r["seed"])),
        Column("Status", lambda r: escape(str(r["status"])), number=False),
        Column(section.head, plain("final")),
        Column("Personal", plain("final_personal")),
        Column("MB up", lambda r: mb(r["bytes_up"] / MEGA)),
        Column("MB down", lambda r: mb(r["bytes_down"] / MEGA)),
        Column("Evaluation MB", lambda r: mb(outside.get((r["variant"], r["seed"]), math.nan))),
        Column("MB to target", lambda r: mb(r[columns.MB_TO_TARGET])),
        *(equal if section.budget else []),
        *(clock if section.clocked else []),
        Column("Seconds", lambda r: mb(r["seconds"])),
        *(Column(name, partial(_cell, name)) for name in extras),
    ]
    note = "<p class=note>Evaluation traffic is outside the training totals.</p>"
    return f"<details><summary>Every run</summary><div class=wide>{table(wanted, rows, '')}</div>{note}</details>"


def _name(row: dict[str, Any], runs: pd.DataFrame) -> str:
    own = runs[runs["variant"] == row["variant"]]
    done = int((own["status"] == columns.DONE).sum())
    small = []
    if row["strategy"] != row["variant"]:
        small.append(str(row["strategy"]))
    if isinstance(row["overrides"], str) and row["overrides"]:
        small.append(row["overrides"])
    if done < len(own) > 1:
        small.append(f"{done} of {len(own)} runs done")
    return breakable(row["variant"]) + "".join(f"<small>{escape(text)}</small>" for text in small)


def _unfinished(runs: pd.DataFrame) -> str:
    lines = []
    for row in runs[runs["status"] != columns.DONE].to_dict("records"):
        why = f": {row['why']}" if isinstance(row["why"], str) and row["why"] else ""
        state = {columns.RUNNING: "has not ended", columns.INTERRUPTED: "was interrupted"}.get(
            row["status"], row["status"]
        )
        lines.append(f"<li>{escape(str(row['variant']))}, seed {row['seed']} {escape(str(state))}{escape(why)}</li>")
    if not lines:
        return ""
    lead = "Not in the means:" if len(runs) > 1 else "The numbers are those so far:"
    return f"<div class=notice><p>{lead}</p><ul>{''.join(lines)}</ul></div>"


def _stock(runs: pd.DataFrame) -> str:
    """What stock Flower would send for the baseline's tensors, where the run has booked it."""
    up, down = columns.STOCK
    if up not in runs or down not in runs:
        return ""
    booked = runs[(runs["status"] == columns.DONE) & runs[up].notna() & runs[down].notna()]
    booked = booked[booked["variant"].isin({b for b in baselines(runs).values() if b})]
    if booked.empty:
        return ""
    numbers = f"{mb(booked[up].mean() / MEGA)} MB up and {mb(booked[down].mean() / MEGA)} MB down"
    text = f"FedAvg goes through the same codec here; stock Flower would send {numbers} for the same tensors."
    return f"<p class=note>{text}</p>"


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.data).decode()
    return (
        f'<figure><img alt="{escape(picture.caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _made(sections: Sequence[Section]) -> str:
    """Command, versions and configs."""
    rows = [row for section in sections for row in section.table.to_dict("records")]

    def seen(key: str) -> list[str]:
        return list(dict.fromkeys(str(row[key]) for row in rows if isinstance(row[key], str) and row[key]))

    facts = {
        "Command": [f"<code>{escape(text)}</code>" for text in seen("command")],
        "Started": [escape(text) for text in sorted(seen("started"))[:1]],
        "Commit": [f"<code>{escape(text)}</code>" for text in seen("commit")],
        "Runtime": [escape(text) for text in seen("runtime")],
        "Machine": [escape(text) for text in seen("host")],
        "Versions": [escape(_versions(seen("versions")))],
    }
    terms = "".join(f"<dt>{name}</dt><dd>{'<br>'.join(lines)}</dd>" for name, lines in facts.items() if any(lines))
    return f"<section><h2>How it was made</h2><dl>{terms}</dl>{_configs(sections)}</section>\n"


def _versions(texts: Sequence[str]) -> str:
    """`name version` of each package; several versions where runs differ."""
    found: dict[str, dict[str, None]] = {}
    for text in texts:
        try:
            versions = json.loads(text)
        except ValueError:
            versions = text
        for name, version in versions.items() if isinstance(versions, dict) else [(str(versions), "")]:
            found.setdefault(str(name), {})[str(version)] = None
    return ", ".join(f"{name} {' / '.join(versions)}".strip() for name, versions in found.items())


def _configs(sections: Sequence[Section]) -> str:
    first: dict[str, Run] = {}
    for section in sections:
        for label, run in section.runs:
            first.setdefault(label, run)
    blocks = []
    for label, run in first.items():
        path = run.folder / "config.toml"
        if path.is_file():
            text = escape(path.read_text(encoding="utf-8", errors="replace"))
            name = f"Config of {label}, seed {run.summary['seed']}"
            blocks.append(f"<details><summary>{escape(name)}</summary><pre>{text}</pre></details>")
    return "".join(blocks)


def _evaluation_mb(run: Run) -> float:
    messages = run.messages
    return float(messages.loc[messages["phase"] == columns.EVALUATE, "bytes"].sum()) / MEGA


def _personal(section: Section) -> str:
    return f"Personal{' %' * (section.scale == 100)}"


def _quality(row: dict[str, Any], name: str, bases: Set[str | None], scale: float) -> str:
    """A mean, and below it the difference to FedAvg."""
    mean = spread(row[f"{name}_mean"], row[f"{name}_sd"], scale)
    if not bases or not known(row[f"{name}_mean"]):
        return mean
    if row["variant"] in bases:
        return f"{mean}<small>baseline</small>"
    return f"{mean}<small class=diff>{difference(row[f'{name}_diff'], row[f'{name}_diff_sd'], scale)}</small>"


def _cell(name: str, row: dict[str, Any]) -> str:
    return mb(row[name])

"""The report's HTML: one file without any outside request; everything that comes from users is escaped."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from fedsparse import columns
from fedsparse.measures import MEGA, baselines
from fedsparse.report.sections import METRICS, Picture, Section
from fedsparse.report.style import STYLE
from fedsparse.results import Run

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Column:
    """A column of a table: its head, a cell's HTML from a row, and whether cells are numbers."""

    head: str
    cell: Callable[[Any], str]
    number: bool = True


def page(title: str, sections: Sequence[Section]) -> str:
    """The whole page."""
    body = "".join(_section(section, heading=len(sections) > 1) for section in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)} - fedsparse</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<header><p class=kicker>fedsparse report</p><h1>{escape(title)}</h1></header>\n"
        f"{body}{_words(sections)}{_made(sections)}</main>\n</body>\n</html>\n"
    )


def _section(section: Section, heading: bool) -> str:
    table, done = section.table, section.table[section.table["status"] == columns.DONE]
    models = ", ".join(dict.fromkeys(table["model"].dropna()))
    rounds = " or ".join(str(n) for n in dict.fromkeys(table["rounds"]))
    seeds = done["seed"].nunique()
    drawn = f"{seeds} seed{'s' * (seeds != 1)}" if len(table) > 1 else f"seed {table['seed'].iloc[0]}"
    facts = ["" if heading else section.dataset, models, f"{rounds} rounds", drawn]
    direction = "higher" if section.higher else "lower"
    facts.append(f"{section.word.lower() if section.metric == 'accuracy' else section.word}, {direction} is better")
    head = f"<h2>{escape(section.dataset)}</h2>" if heading else ""
    lead = f"<p class=lead>{' · '.join(escape(fact) for fact in facts if fact)}</p>"
    pictures = "".join(_picture(picture) for picture in section.pictures)
    return (
        f"<section>{head}{lead}{_unfinished(table)}{_summary(section)}{_stock(table)}"
        f"<div class=figures>{pictures}</div>{_each_run(section)}</section>\n"
    )


def _summary(section: Section) -> str:
    """The table: a row a variant. Columns that compare with FedAvg are left out where there is none."""
    rows = section.summary.to_dict("records")
    bases = set(baselines(section.table).values()) - {None}
    compared, scale = bool(bases), section.scale
    wanted = [
        Column("Strategy", lambda r: _name(r, section.table), number=False),
        Column(section.head, lambda r: _spread(r["final_mean"], r["final_sd"], scale)),
        Column("Against FedAvg", lambda r: _difference(r, bases, scale)) if compared else None,
        Column("Personal", lambda r: _spread(r["final_personal_mean"], r["final_personal_sd"], scale)),
        Column("Density", lambda r: _number(r["density_mean"], 3)),
        Column("MB up", lambda r: _mb(r["bytes_up_mean"] / MEGA)),
        Column("MB down", lambda r: _mb(r["bytes_down_mean"] / MEGA)),
        Column("Bytes vs FedAvg", lambda r: _share(r["bytes_ratio"])) if compared else None,
        Column("MB to target", lambda r: _mb(r["mb_to_target_mean"])) if compared else None,
        Column("Seconds", lambda r: _mb(r["seconds_mean"])),
    ]
    return _table([column for column in wanted if column], rows, "cards")


def _each_run(section: Section) -> str:
    """Every run, folded away: the numbers behind the means, evaluation traffic and the papers' own formulas."""
    rows = section.table.to_dict("records")
    outside = {(label, int(run.summary["seed"])): _evaluation_mb(run) for label, run in section.runs}
    extras = [str(name) for name in section.table.columns if str(name).startswith("paper_")]
    wanted = [
        Column("Run", lambda r: escape(str(r["variant"])), number=False),
        Column("Seed", lambda r: str(r["seed"])),
        Column("Status", lambda r: escape(str(r["status"])), number=False),
        Column(section.head, lambda r: _spread(r["final"], math.nan, section.scale)),
        Column("Personal", lambda r: _spread(r["final_personal"], math.nan, section.scale)),
        Column("MB up", lambda r: _mb(r["bytes_up"] / MEGA)),
        Column("MB down", lambda r: _mb(r["bytes_down"] / MEGA)),
        Column("Evaluation MB", lambda r: _mb(outside.get((r["variant"], r["seed"]), math.nan))),
        Column("MB to target", lambda r: _mb(r[columns.MB_TO_TARGET])),
        Column("Seconds", lambda r: _mb(r["seconds"])),
        *(Column(name, partial(_cell, name)) for name in extras),
    ]
    note = "<p class=note>Evaluation traffic is outside the training totals.</p>"
    return f"<details><summary>Every run</summary><div class=wide>{_table(wanted, rows, '')}</div>{note}</details>"


def _table(wanted: Sequence[Column], rows: Iterable[dict[str, Any]], kind: str) -> str:
    head = "".join(f"<th{' class=n' * c.number} scope=col>{escape(c.head)}</th>" for c in wanted)
    lines = []
    for row in rows:
        first, *rest = wanted
        cells = "".join(
            f'<td{" class=n" * c.number} data-head="{escape(c.head)}"><span>{c.cell(row)}</span></td>' for c in rest
        )
        lines.append(f"<tr><th scope=row>{first.cell(row)}</th>{cells}</tr>")
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _name(row: dict[str, Any], table: pd.DataFrame) -> str:
    own = table[table["variant"] == row["variant"]]
    done = int((own["status"] == columns.DONE).sum())
    small = []
    if row["strategy"] != row["variant"]:
        small.append(str(row["strategy"]))
    if isinstance(row["overrides"], str) and row["overrides"]:
        small.append(row["overrides"])
    if done < len(own) > 1:
        small.append(f"{done} of {len(own)} runs done")
    return escape(str(row["variant"])) + "".join(f"<small>{escape(text)}</small>" for text in small)


def _unfinished(table: pd.DataFrame) -> str:
    lines = []
    for row in table[table["status"] != columns.DONE].to_dict("records"):
        why = f": {row['why']}" if isinstance(row["why"], str) and row["why"] else ""
        state = {columns.RUNNING: "has not ended", columns.INTERRUPTED: "was interrupted"}.get(
            row["status"], row["status"]
        )
        lines.append(f"<li>{escape(str(row['variant']))}, seed {row['seed']} {escape(str(state))}{escape(why)}</li>")
    if not lines:
        return ""
    lead = "Not in the means:" if len(table) > 1 else "The numbers are those so far:"
    return f"<div class=notice><p>{lead}</p><ul>{''.join(lines)}</ul></div>"


def _stock(table: pd.DataFrame) -> str:
    """What stock Flower would send for the baseline's tensors, where the run has booked it."""
    up, down = columns.STOCK
    if up not in table or down not in table:
        return ""
    known = table[(table["status"] == columns.DONE) & table[up].notna() & table[down].notna()]
    known = known[known["variant"].isin({b for b in baselines(table).values() if b})]
    if known.empty:
        return ""
    numbers = f"{_mb(known[up].mean() / MEGA)} MB up and {_mb(known[down].mean() / MEGA)} MB down"
    text = f"FedAvg goes through the same codec here; stock Flower would send {numbers} for the same tensors."
    return f"<p class=note>{text}</p>"


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.data).decode()
    return (
        f'<figure><img alt="{escape(picture.caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _words(sections: Sequence[Section]) -> str:
    """What the words mean, one line each."""
    lines = {}
    for section in sections:
        meaning = METRICS.get(section.metric, ("", f"{'Higher' if section.higher else 'Lower'} is better"))[1]
        lines[section.word] = f"{meaning}; of the global model on the central test set. A dash: the strategy has none."
    near = dict.fromkeys("95 % of FedAvg's final" if s.higher else "1.05 times FedAvg's final error" for s in sections)
    lines |= {
        "Personal": "The same of the model that each client would use, on its own test part, mean over the clients.",
        "Final": "Each result is the mean over the evaluated rounds in the last tenth of the rounds, never the best.",
        "Density": "Share kept of the weights of convolutional and linear layers, at the end.",
        "MB": "1,000,000 bytes of training messages as encoded, lost and repeated ones too, of all clients and rounds.",
    }
    if any(section.table["seed"].nunique() > 1 for section in sections):
        lines["±"] = "Standard deviation over the seeds; differences to FedAvg are taken seed by seed."
    if any(any(baselines(section.table).values()) for section in sections):
        goal = f"MB both ways until the global model first reaches {' or '.join(near)} on the same seed."
        lines["MB to target"] = f"{goal} A dash: not on every seed."
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in lines.items())
    return f"<section><h2>What the words mean</h2><dl>{terms}</dl></section>\n"


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


def _spread(mean: Any, sd: Any, scale: float, sign: str = "") -> str:
    digits = 2 if scale == 100 else 3
    if not _known(mean):
        return "-"
    spread = f" <span class=sd>± {_number(scale * sd, digits)}</span>" if _known(sd) else ""
    return f"{sign}{_number(scale * mean, digits)}{spread}"


def _difference(row: dict[str, Any], bases: Set[str | None], scale: float) -> str:
    if row["variant"] in bases:
        return "<span class=sd>baseline</span>"
    mean = row["final_diff"]
    return _spread(mean, row["final_diff_sd"], scale, "+" if _known(mean) and mean > 0 else "")


def _cell(name: str, row: dict[str, Any]) -> str:
    return _mb(row[name])


def _known(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _number(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}") if _known(value) else "-"


def _mb(value: Any) -> str:
    if not _known(value):
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _share(value: Any) -> str:
    if not _known(value):
        return "-"
    width = min(100.0, 100 * value)
    return f"{100 * value:.1f}&nbsp;%<i class=bar><i style='width:{width:.1f}%'></i></i>"

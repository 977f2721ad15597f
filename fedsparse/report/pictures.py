"""Which figures a section gets, in what order, and what is said below each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fedsparse import columns
from fedsparse.measures import baselines, target_of
from fedsparse.report import clocks, dots, figures
from fedsparse.report import curves as read
from fedsparse.report.canvas import baseline
from fedsparse.report.curves import Variant, layer_names
from fedsparse.report.dots import Dot
from fedsparse.report.lines import TOGETHER
from fedsparse.report.sections import Picture, Section, total_mb

KINDS = (
    "Training bytes of a round by kind, mean over rounds and seeds. Values: of masked tensors; mask: all that says "
    "where they are; dense: tensors sent without a mask; header: the rest of each message."
)
AGREEMENT = (
    "How far the masks of the clients that trained in a round agree: mean Jaccard index over pairs of clients, then "
    "over layers; 1 is one mask for all. Variants with one mask for all are left out."
)
TIME = {"time": "against simulated time"}
PLACES = {"mb": "against training traffic, both directions", "round": "against the round"}
"""What quality is drawn against, in words."""
NEXT_TO_NOTHING = 200
"""What sends this many times less than another would take the axis of MB for itself."""
METRICS = {
    "metric": ("final", "at_budget", "the global model on the central test set"),
    "personal": ("final_personal", "personal_at_budget", "each client's model on its own test part"),
}
"""By the word in a figure's file name: the summary's columns and whose quality it is."""


def draw(section: Section, suffix: str) -> list[Picture]:
    """The figures that these runs have values for; where only some folders were kept, each says so."""
    shown = variants(section)
    kept = [v.label for v in shown]
    some = f" Of the runs whose folders were kept: {', '.join(kept)}." if len(kept) < len(section.summary) else ""
    found = []
    for stem, data, caption, whole in _drawn(section, shown):
        if data is not None:
            found.append(Picture(f"{stem}{suffix}.png", data, caption + ("" if whole else some)))
    return found


def variants(section: Section) -> list[Variant]:
    """Each variant with its finished runs, or, where it has none, with what its unfinished ones have."""
    shown = []
    for label, strategy in zip(section.summary["variant"], section.summary["strategy"], strict=True):
        own = [run for name, run in section.runs if name == label and len(run.rounds)]
        done = [run for run in own if run.summary["status"] == columns.DONE]
        if own:
            name = label if done or len(section.table) == 1 else f"{label} (unfinished)"
            shown.append(Variant(name, strategy, done or own))
    return shown


Drawn = Iterator[tuple[str, bytes | None, str, bool]]
"""Name, PNG, caption, and whether it holds every variant of the table."""


def _drawn(section: Section, shown: list[Variant]) -> Drawn:
    timed = [drawn for drawn in _curves(section, shown, TIME) if drawn[1] is not None]
    yield from timed[:1]
    yield from _clock(shown)
    yield from timed[1:]
    yield from _views(section)
    yield from _curves(section, shown, PLACES)
    dashed = "; the dashed line is at FedAvg's" if baseline(shown) else ""
    head, percent = f"Personal {lower(section.head)}", section.scale == 100
    yield (
        "clients",
        dots.clients_figure(shown, head, section.higher, percent=percent),
        f"Personal {lower(section.word)} of every client at the last evaluation, on its own test part: a dot a client "
        f"and seed, a box over the middle half, a bar at the mean{dashed}.",
        False,
    )
    yield "bytes_round", figures.bytes_figure(shown), KINDS, False
    layers = ", ".join(f"{n} {name}" for n, name in enumerate(figures.plain(layer_names(shown)), start=1))
    text = f"Density of each layer at the end, mean over clients and seeds, of the variants that are sparse: {layers}."
    yield "density_layers", figures.layers_figure(shown), text, False
    yield "agreement_round", figures.agreement_figure(shown), AGREEMENT, False


def _views(section: Section) -> Drawn:
    """The two views of "equal": the whole runs with their bytes, and every variant at the same MB."""
    rows = section.summary.to_dict("records")
    known = [Variant(row["variant"], row["strategy"]) for row in rows]
    percent = section.scale == 100
    for stem, (final, at, whose) in METRICS.items():
        head = section.head if stem == "metric" else f"Personal {lower(section.head)}"
        word = section.word if stem == "metric" else f"Personal {lower(section.word)}"
        whole = {row["variant"]: Dot(row[f"{final}_mean"], row[f"{final}_sd"], total_mb(row)) for row in rows}
        yield (
            f"{stem}_total",
            dots.traffic_figure(whole, known, head, percent=percent),
            f"{word} at the end ({whose}) against the training traffic of the whole run, printed in MB beside each "
            "name; bars: plus and minus one standard deviation over the seeds.",
            True,
        )
        equal = {
            row["variant"]: Dot(row[f"{at}_mean"], row[f"{at}_sd"], total_mb(row), section.why(row, at)) for row in rows
        }
        label = f"{head} at {dots.short(section.budget_mb)} MB" if section.budget else ""
        yield (
            f"{stem}_budget",
            dots.rows_figure(equal, known, label, section.higher, percent=percent) if section.budget else None,
            f"{word} ({whose}) at equal MB: read off each curve where it has used the training traffic of "
            f"{section.budget} ({dots.short(section.budget_mb)} MB) on the same seed.",
            True,
        )


def _clock(shown: list[Variant]) -> Drawn:
    """The devices, and what they take the time for."""
    clocked = [v for v in shown if not read.timeless(v)]
    if not clocked:
        return
    one = next((v for v in clocked if v.label == baseline(shown)), clocked[0])
    own = [run.config.get("devices") for v in clocked for run in v.runs]
    aside = "" if all(tiers == own[0] for tiers in own) else f" Those of {one.label}: other runs have other devices."
    yield (
        "devices",
        clocks.devices_figure(one),
        "The clients' devices: uplink against compute speed, a dot a client (clients of equal devices share a larger "
        f"dot); how many there are of each device stands in brackets.{aside}",
        False,
    )
    yield (
        "round_time",
        clocks.rounds_figure(clocked),
        "What a round's simulated time is made of, mean over rounds and seeds: waiting until enough clients are ready, "
        "then the steps of the client whose reply was the last to count, then the time until replies that were missing "
        "were given up. At the right the device that was last most often, with its share of the rounds.",
        False,
    )
    yield (
        "devices_time",
        clocks.times_figure(clocked),
        "Simulated time of a client's work in a round, all rounds and seeds: line from the 5th to the 95th percentile, "
        "bar over the middle half, tick at the median. Without those whose reply was lost.",
        False,
    )


def _curves(section: Section, shown: list[Variant], places: Mapping[str, str]) -> Drawn:
    """Quality against what `places` names: `time`, `mb`, `round`, each with its words."""
    base = next((b for b in baselines(section.table).values() if b), None)
    finals = section.summary.set_index("variant")["final_mean"]
    target = target_of(float(finals[base]), section.higher) if base is not None and len(shown) > 1 else None
    spread = "; line: mean over the seeds, band: plus and minus one standard deviation"
    notes = (spread if any(len(v.runs) > 1 for v in shown) else "") + "."
    notes += " The first rounds may lie outside the frame." if len(shown) > TOGETHER or not section.higher else ""
    axes = {
        "metric": ("metric", f"{section.head} (central test set)"),
        "personal": ("metric_personal", f"Personal {lower(section.head)} (mean over clients)"),
    }
    totals = section.summary.set_index("variant")[["bytes_up_mean", "bytes_down_mean"]].sum(axis=1, skipna=False)
    without = {
        "mb": ([str(label) for label in totals.index[totals < totals.max() / NEXT_TO_NOTHING]], "next to no traffic"),
        "time": ([v.label for v in shown if read.timeless(v)], "no clock"),
    }
    for stem, (column, label) in axes.items():
        for against, place in places.items():
            silent, why = without.get(against, ([], ""))
            data = figures.metric_figure(
                shown, column, against, label, section.higher,
                percent=section.scale == 100,
                target=target if stem == "metric" and against != "round" else None,
                without=silent,
            )  # fmt: skip
            left_out = f" Without {', '.join(silent)}: {why}." if silent else ""
            said = f"{section.word} of {METRICS[stem][2]}, {place}{notes}{left_out}"
            yield f"{stem}_{against}", data, said, False


def lower(word: str) -> str:
    """A metric's name within a sentence."""
    return word if word.isupper() else word.lower()  # RMSE stays

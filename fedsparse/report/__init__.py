"""Figures and one page of HTML from run and comparison folders, of finished, running and killed runs alike."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from fedsparse import columns
from fedsparse.errors import InputError
from fedsparse.folder import claim
from fedsparse.measures import baselines, target_of
from fedsparse.report.curves import Variant
from fedsparse.report.figures import bytes_figure, metric_figure
from fedsparse.report.page import page
from fedsparse.report.sections import Picture, Section, collect

__all__ = ["report"]

KINDS = (
    "Training bytes of a round by kind, mean over rounds and seeds. Values: of masked tensors; mask: all that says "
    "where they are; dense: tensors sent without a mask; header: the rest of each message."
)


def report(folders: Iterable[str | Path], out: str | Path | None = None) -> Path:
    """Write `report.html` and `figures/*.png` of these folders into `out` and return the page's path.

    Without `out`: into the folder itself where there is one, else into a new folder under `runs/`. Of several folders
    one comparison is made: equal labels stay one variant where their configs agree, else each gets its folder's name.
    """
    sources = [Path(folder) for folder in folders]
    if not sources:
        raise InputError("There is nothing to report: give at least one folder of a run or of a comparison.")
    sections = collect(sources)
    target = _target_folder(sources, out)
    try:
        (target / "figures").mkdir(parents=True, exist_ok=True)
        for section in sections:
            suffix = "" if len(sections) == 1 else _slug(f"-{section.dataset}-{section.metric}")
            section.pictures = _pictures(section, suffix)
            for picture in section.pictures:
                _write(target / "figures" / picture.file, picture.data)
        *most, last = dict.fromkeys(source.resolve().name for source in sources)
        title = f"{', '.join(most)} and {last}" if most else last
        _write(target / "report.html", page(title, sections).encode())
    except OSError as error:
        raise InputError(f"The report cannot be written into {str(target)!r}: {error.strerror}.") from None
    return target / "report.html"


def _target_folder(sources: Sequence[Path], out: str | Path | None) -> Path:
    if out is None and len(sources) == 1:
        return sources[0]
    if out is None:
        return claim(None, "report")
    target = Path(out)
    # A folder that is reported, or an earlier report, gets its page anew; any other must be new or empty.
    again = target.is_dir() and {path.name for path in target.iterdir()} <= {"report.html", "figures"}
    if again or target.resolve() in [source.resolve() for source in sources]:
        return target
    return claim(target, "report")


def _pictures(section: Section, suffix: str) -> list[Picture]:
    """The figures that these runs have values for."""
    shown = _variants(section)
    base = next((b for b in baselines(section.table).values() if b), None)
    finals = section.summary.set_index("variant")["final_mean"]
    target = target_of(float(finals[base]), section.higher) if base is not None and len(shown) > 1 else None
    spread = "; line: mean over the seeds, band: plus and minus one standard deviation"
    notes = (spread if any(len(v.rounds) > 1 for v in shown) else "") + "."
    notes += "" if section.higher else " The first rounds may lie above the frame."
    personal = f"Personal {_lower(section.head)} (mean over clients)"
    kinds = (
        ("metric", "metric", f"{section.head} (central test set)", "the global model on the central test set"),
        ("personal", "metric_personal", personal, "each client's model on its own test part"),
    )
    found = []
    for stem, column, axis, what in kinds:
        for against, place in (("round", "against the round"), ("mb", "against training traffic, both directions")):
            line, percent = target if (stem, against) == ("metric", "mb") else None, section.scale == 100
            data = metric_figure(shown, column, against, axis, section.higher, percent=percent, target=line)
            if data is not None:
                caption = f"{section.word} of {what}, {place}{notes}"
                found.append(Picture(f"{stem}_{against}{suffix}.png", data, caption))
    if (data := bytes_figure(shown)) is not None:
        found.append(Picture(f"bytes_round{suffix}.png", data, KINDS))
    return found


def _variants(section: Section) -> list[Variant]:
    """Each variant with its finished runs, or, where it has none, with what its unfinished ones have."""
    shown = []
    for label, strategy in zip(section.summary["variant"], section.summary["strategy"], strict=True):
        own = [run for name, run in section.runs if name == label and len(run.rounds)]
        done = [run for run in own if run.summary["status"] == columns.DONE]
        if own:
            name = label if done or len(section.table) == 1 else f"{label} (unfinished)"
            done = done or own
            shown.append(Variant(name, strategy, [run.rounds for run in done], [run.messages for run in done]))
    return shown


def _lower(word: str) -> str:
    return word if word.isupper() else word.lower()  # RMSE stays


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_bytes(data)
    os.replace(draft, path)

"""Figures and one page of HTML from run and comparison folders, of finished, running and killed runs alike."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from fedsparse.errors import InputError
from fedsparse.folder import claim
from fedsparse.report.page import page
from fedsparse.report.pictures import draw
from fedsparse.report.sections import Section, collect
from fedsparse.retime import Network, steered

__all__ = ["report"]


def report(folders: Iterable[str | Path], out: str | Path | None = None, devices: str | Path | None = None) -> Path:
    """Write `report.html` and `figures/*.png` of these folders into `out` and return the page's path.

    Without `out`: into the folder itself where there is one, else into a new folder under `runs/`. Of several folders
    one comparison is made: equal labels stay one variant where their configs agree, else each gets its folder's name.
    `devices` is a TOML file of other devices for the simulated times; then, too, a new folder is made without `out`.
    """
    sources = [Path(folder) for folder in folders]
    if not sources:
        raise InputError("There is nothing to report: give at least one folder of a run or of a comparison.")
    network = None if devices is None else Network.read(devices)
    sections = collect(sources, network)
    target = _target_folder(sources, out, new=devices is not None)
    try:
        (target / "figures").mkdir(parents=True, exist_ok=True)
        for section in sections:
            section.note = "" if devices is None else _other(Path(devices).name, section)
            suffix = "" if len(sections) == 1 else _slug(f"-{section.dataset}-{section.metric}")
            section.pictures = draw(section, suffix)
            for picture in section.pictures:
                _write(target / "figures" / picture.file, picture.data)
        *most, last = dict.fromkeys(source.resolve().name for source in sources)
        title = f"{', '.join(most)} and {last}" if most else last
        _write(target / "report.html", page(title, sections).encode())
    except OSError as error:
        raise InputError(f"The report cannot be written into {str(target)!r}: {error.strerror}.") from None
    return target / "report.html"


def _other(name: str, section: Section) -> str:
    """What a page says on simulated times that are not the runs' own."""
    text = (
        f"Simulated times are those on the devices of {name}. Who trained, how long a run waited for clients and which "
        "replies were late or lost stay as they were on its own devices"
    )
    labels = steered([run for _, run in section.runs])
    aside = (
        f"; {', '.join(labels)} would have looked at the devices and may have sent something else." if labels else "."
    )
    return text + aside


def _target_folder(sources: Sequence[Path], out: str | Path | None, new: bool = False) -> Path:
    if out is None and len(sources) == 1 and not new:
        return sources[0]
    if out is None:
        return claim(None, "report")
    target = Path(out)
    # A folder that is reported, or an earlier report, gets its page anew; any other must be new or empty.
    again = target.is_dir() and {path.name for path in target.iterdir()} <= {"report.html", "figures"}
    if again or target.resolve() in [source.resolve() for source in sources]:
        return target
    return claim(target, "report")


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_bytes(data)
    os.replace(draft, path)

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
from fedsparse.report.sections import collect

__all__ = ["report"]


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
            section.pictures = draw(section, suffix)
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


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_bytes(data)
    os.replace(draft, path)

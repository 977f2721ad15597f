"""Plain texts of Shakespeare's plays (Project Gutenberg) as one text a role, for the data set shakespeare.

    python -m fedsparse.convert.shakespeare SOURCE OUT

SOURCE is the text of one play, or a folder of such files, one play each: who has the same name in two plays is two
roles. OUT is shakespeare/shakespeare_roles.json.gz under the folder that FEDSPARSE_DATA names.

A speech begins with the speaker's name in capitals and a full stop, goes on in the same line or in the next ones, and
ends at the next speaker or at an empty line. Stage directions in [brackets] and the _underscores_ of italics are taken
away, and typographic quotes, dashes and accents become plain characters. What stands before and after Gutenberg's own
marks of the text's start and end is left out, and so is what is nobody's speech.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fedsparse.convert import command
from fedsparse.errors import InputError

SPEAKER = re.compile(r"\s*([A-Z][A-Z ,'&-]*[A-Z])\.(?:\s+(.*))?")
HEADING = re.compile(r"(ACT|SCENE|DRAMATIS|THE END|FINIS)\b")
BODY = re.compile(r"\*\*\* ?START OF.*?\*\*\*(.*?)(?:\*\*\* ?END OF|\Z)", re.DOTALL)
DIRECTION = re.compile(r"\[(?:[^\]\n]|\n(?!\s*\n))*\]")
PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "—": "--", "–": "-", "Æ": "AE", "æ": "ae", "_": ""})


def arrays(source: Path) -> dict[str, np.ndarray]:
    """role (N), as "play/name", and text (N), in the order of the plays' names and of first appearance."""
    files = sorted(source.glob("*.txt")) if source.is_dir() else [source]
    roles: dict[str, str] = {}
    for file in files:
        for name, said in speeches(_read(file)).items():
            roles[f"{file.stem}/{name}"] = "\n".join(said)
    if not roles:
        raise InputError(f"There is no speech in {source}: a speaker is a name in capitals and a full stop.")
    return {"role": np.array(list(roles)), "text": np.array(list(roles.values()), dtype=object)}


def speeches(play: str) -> dict[str, list[str]]:
    """What each speaker of a play says, line by line."""
    body = BODY.search(play)
    text = unicodedata.normalize("NFKD", (body[1] if body else play).translate(PLAIN))
    text = DIRECTION.sub("", "".join(c for c in text if not unicodedata.combining(c)))
    found: dict[str, list[str]] = {}
    speech: list[str] | None = None
    for line in text.splitlines():
        match = SPEAKER.fullmatch(line)
        if match and HEADING.match(match[1]):
            speech = None
        elif match:
            speech = found.setdefault(match[1].lower(), [])
            line = match[2] or ""
        elif not line.strip():
            speech = None
        if speech is not None and line.strip():
            speech.append(line.strip())
    return {name: said for name, said in found.items() if said}


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"The text {file} cannot be read ({reason}).") from error


def _save(file: Path, found: Mapping[str, np.ndarray]) -> None:
    texts = dict(zip(found["role"].tolist(), found["text"].tolist(), strict=True))
    file.write_bytes(gzip.compress(json.dumps(texts).encode(), mtime=0))


if __name__ == "__main__":
    sys.exit(command(__doc__, arrays, save=_save))

"""What runs on this machine, and how it is started."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def mentioning(text: str) -> dict[int, str]:
    """Processes with `text` in their command line or environment, this one aside: what was started from there."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if (
                int(entry.name) != os.getpid()
                and line
                and text in line + (entry / "environ").read_text(errors="replace")
            ):
                found[int(entry.name)] = line
        except OSError:
            continue
    return found


def heed() -> None:
    """To be called in a child: where the tests run in the background, it would inherit that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

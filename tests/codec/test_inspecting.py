"""`fedsparse codec inspect`: what bytes of unknown origin do to a terminal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hostile.crafting import Craft, entry

from fedsparse import codec
from fedsparse.cli import main
from fedsparse.payload import Payload


def test_names_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["a\x1b[2Jb", "c\nd", "\u202eevil", "[bold]", "ä.weight"]
    file = tmp_path / "names"
    file.write_bytes(codec.encode(Payload({name: np.zeros(3, np.float32) for name in names})))
    assert main(["codec", "inspect", str(file)]) == 0
    shown = capsys.readouterr().out
    for text in (r"a\x1b[2Jb", r"c\nd", r"\u202eevil", "[bold]", "ä.weight"):
        assert f"{text} " in shown
    assert shown.replace("\n", "").isprintable()


def test_what_cannot_be_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "odd"
    for one in (entry(dtype=200, shape=(0,)), entry(10, (1 << 64) - 1, 16, shape=((1 << 64) - 1,) * 32)):
        file.write_bytes(Craft([one], data=bytes(one.mask_len)).bytes())
        assert main(["codec", "inspect", str(file)]) == 2
        out, err = capsys.readouterr()
        assert not out and err.startswith("error: ") and err.count("\n") == 1 and "'w'" in err

"""Run folders, and what run.json says about where a run was made."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from fedsparse import folder
from fedsparse.errors import InputError


def test_claims_do_not_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = [folder.claim(None, "quickstart") for _ in range(3)]
    assert len(set(made)) == 3
    assert all(path.parent == tmp_path / "runs" and path.name.startswith("quickstart-") for path in made)


def test_an_empty_folder_may_be_used_and_a_full_one_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert folder.claim(tmp_path / "empty", "x") == tmp_path / "empty"
    (tmp_path / "empty" / "a").touch()
    with pytest.raises(InputError, match="not empty"):
        folder.claim(tmp_path / "empty", "x")


def test_the_command_has_no_absolute_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["run", f"{tmp_path}/my.toml", "--out=/somewhere/else", "--set", "strategy=/a/b.py:C", "--seed", "3"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/fedsparse", *args])
    assert folder.command() == "fedsparse run my.toml --out=else --set strategy=b.py:C --seed 3"


def test_host_does_not_name_the_machine() -> None:
    import platform

    assert platform.node() not in folder.host()
    assert "cores" in folder.host()


def test_logs_go_to_the_file_and_come_back(tmp_path: Path) -> None:
    logger = logging.getLogger("flwr")
    before = logger.handlers[:], logger.propagate
    with folder.logged(tmp_path / "log.txt"):
        logger.warning("chatter")
    assert "chatter" in (tmp_path / "log.txt").read_text()
    assert (logger.handlers, logger.propagate) == before

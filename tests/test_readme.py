"""README's commands are the ones that everything else uses, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_two_commands_stand_word_for_word() -> None:
    commands = [block.strip() for block in blocks("bash")]
    assert commands[:2] == [
        "pip install -c constraints.txt . && fedsparse compare configs/quickstart.toml",
        "pip install -c constraints.txt -e '.[dev]' && pytest",
    ]


def test_the_cpu_line_names_the_tested_versions() -> None:
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for name in ("torch", "torchvision"):
        version = next(line for line in pinned if line.startswith(f"{name}=="))
        assert version in blocks("bash")[2]


def test_the_links_lead_somewhere() -> None:
    targets = [t for t in re.findall(r"\]\(([^)]+)\)", README) if "://" not in t]
    assert len(targets) >= 4
    assert [t for t in targets if not (ROOT / t).exists()] == []

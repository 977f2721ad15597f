"""docs/ names what there is."""

from __future__ import annotations

import re
from pathlib import Path

from fedsparse import columns

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_every_column_is_explained() -> None:
    text = (DOCS / "runs.md").read_text(encoding="utf-8")
    for table, fields in columns.TABLES.items():
        line = text[text.index(f"- `{table}`:") :].split("\n- ")[0].split("\n\n")[0]
        assert set(fields) <= set(re.findall(r"`(\w+)`", line)), table


def test_links_lead_somewhere() -> None:
    pages = list(DOCS.glob("*.md"))
    assert pages
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)

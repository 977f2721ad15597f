"""Stored payloads of every version decode to what they were made of. A missing or changed file fails."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from golden.contents import GOLDEN
from payloads import assert_same

from fedsparse import codec
from fedsparse.codec.decoder import layout

HERE = Path(__file__).parent
CASES = [(version, name) for version, contents in GOLDEN.items() for name in contents]
SUMS = dict(line.split()[::-1] for line in (HERE / "SHA256SUMS").read_text().splitlines())


def test_files_and_contents_are_the_same_set() -> None:
    assert CASES
    expected = {f"{version}/{name}.fspc" for version, name in CASES}
    assert {path.relative_to(HERE).as_posix() for path in HERE.rglob("*.fspc")} == expected == SUMS.keys()


@pytest.mark.parametrize(("version", "name"), CASES)
def test_decodes_to_its_content(version: str, name: str) -> None:
    data = (HERE / version / f"{name}.fspc").read_bytes()
    assert len(data) <= 4000
    assert hashlib.sha256(data).hexdigest() == SUMS[f"{version}/{name}.fspc"]
    golden = GOLDEN[version][name]()
    got = codec.decode(data, golden.schema, 4000, known=golden.known)
    assert_same(golden.payload, got)
    head = codec.header(data)
    assert (head.ids, head.by_schema) == (golden.ids, golden.by_schema)
    assert ".".join(map(str, head.version)) == version


def test_the_files_show_every_mode() -> None:
    rows = [row for path in HERE.rglob("*.fspc") for row in codec.inspect(path.read_bytes()).tensors]
    assert {row.mask for row in rows} == {"dense", "full", "bitmap", "gaps", "mirror", "known"}
    blocks = [block for path in HERE.rglob("*.fspc") for block in layout(path.read_bytes()).blocks]
    assert {(block.stream, block.coding) for block in blocks} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert {row.values for row in rows} == {"none", "raw"}

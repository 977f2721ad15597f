"""Stored payloads of every version decode to what they were made of. A missing or changed file fails."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from golden.contents import GOLDEN
from payloads import assert_same

from fedsparse import codec
from fedsparse.codec import masks, streams, values
from fedsparse.codec.layout import layout

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
    got = codec.decode(data, golden.schema, 4000, known=golden.known, reference=golden.reference)
    assert_same(golden.payload, got)
    head = codec.header(data)
    assert (head.ids, head.by_schema) == (golden.ids, golden.by_schema)
    assert ".".join(map(str, head.version)) == version


@pytest.mark.parametrize("version", GOLDEN)
def test_the_files_show_every_mode(version: str) -> None:
    files = [path.read_bytes() for path in HERE.glob(f"{version}/*.fspc")]
    rows = [row for data in files for row in codec.inspect(data).tensors]
    blocks = {(block.stream, block.coding) for data in files for block in layout(data).blocks}
    if version == "0.1":
        assert {row.mask for row in rows} == {"dense", "full", "bitmap", "gaps", "mirror", "known"}
        assert {row.values for row in rows} == {"none", "raw"}
        assert blocks == {(0, 0), (0, 1), (1, 0), (1, 1)}
    else:
        assert {row.mask for row in rows} >= {"dense", "gaps support", *(mode.name for mode in masks.MODES.values())}
        assert {row.values for row in rows} == set(values.NAMES.values())
        assert {stream for stream, _ in blocks} == set(streams.NAMES)
        assert {coding for _, coding in blocks} == {streams.STORED, streams.ZSTD}

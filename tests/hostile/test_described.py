"""Payloads that describe themselves: what they may cost a reader who has no schema to hold against them."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace

import pytest
from hostile.crafting import Craft, entry, varints

from fedsparse import codec
from fedsparse.codec import container, masks
from fedsparse.codec.layout import MOST
from fedsparse.payload import Ids, Schema, Spec

ROOM = 1 << 28
MANY = 1 << 20
U8 = container.DTYPE_CODES["uint8"]
ROW = b"\1a\x0b\1\0\0\1\0"  # an empty tensor "a"


def listing(rows: bytes, cited: int | None = None) -> bytes:
    return container.join([container.pack_header(Ids(), "weights", "unheld", cited), rows, b"\0\0"])


LISTS = {
    "tensors": listing(varints(MANY) + ROW * MANY),
    "missing tensors": listing(varints(MANY) + b"\xff" * MANY, 5),
    "blocks": listing(varints(0, 0, MANY) + b"\0\0\1\1" * MANY),
}


def read(data: bytes) -> Schema:
    codec.inspect(data)
    return codec.described(data, ROOM)


@pytest.mark.parametrize("case", LISTS)
def test_long_lists_cost_nothing(case: str) -> None:
    for reader in (codec.inspect, lambda data: codec.described(data, ROOM)):
        tracemalloc.start()
        began = time.thread_time()
        with pytest.raises(codec.DecodeError, match=f"{MANY} .* are promised, more than the {MOST} allowed"):
            reader(LISTS[case])
        took, peak = time.thread_time() - began, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 200_000
        assert took < 0.01


@pytest.mark.parametrize("mask", [masks.SEED, masks.SUPPORT | masks.SEED])
def test_a_seed_costs_no_more_than_its_tensor(mask: int) -> None:
    n = 3_000_000
    one = entry(mask, 1, 16, value_len=1, dtype=U8, shape=(n,))
    data = Craft([one], data=bytes(16) + b"\1").bytes()
    tracemalloc.start()
    got = codec.decode(data, codec.described(data, ROOM), ROOM)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got.weights["w"].sum() == 1
    assert peak < 1.2 * n + 8_000_000


HUGE = [(1 << 64) - 1, 0], [1 << 63, 0], [1 << 40, 1 << 40, 0], [1 << 59, 0]


@pytest.mark.parametrize("shape", HUGE)
def test_empty_tensors_of_a_shape_that_no_array_has(shape: list[int]) -> None:
    for one in (entry(shape=tuple(shape)), entry(masks.FULL, shape=tuple(shape))):
        data = Craft([one]).bytes()
        schema = Schema({"w": Spec("float32", tuple(shape))}, frozenset({"w"}))
        for reader in (codec.inspect, read, lambda data, schema=schema: codec.decode(data, schema, ROOM)):
            with pytest.raises(codec.DecodeError, match=r"'w': has shape \(\d+, .*0\), which no array can have"):
                reader(data)
    near = Craft([entry(shape=((1 << 59) - 1, 0))]).bytes()
    assert codec.decode(near, read(near), ROOM).weights["w"].shape == ((1 << 59) - 1, 0)


IMPOSSIBLE = {
    "an unknown dtype": (entry(value_len=4000, dtype=200), "'w': has the dtype of code 200, which is none"),
    "values without a dtype": (entry(value_len=4000, dtype=0), "'w': has the dtype of code 0"),
    "more kept than there are": (entry(masks.SEED, 1001, 16, value_len=3984), "'w': 16 bytes .seed. cannot say which"),
    "values of other number": (entry(value_len=4000, shape=(999,)), "'w': 4000 bytes are not 999 values of float32"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_cannot_be_is_neither_described_nor_inspected(case: str) -> None:
    one, words = IMPOSSIBLE[case]
    data = Craft([one], data=bytes(4000)).bytes()
    for reader in (codec.inspect, lambda data: codec.described(data, ROOM)):
        with pytest.raises(codec.DecodeError, match=words):
            reader(data)
    read(Craft([replace(one, mask=0, value_len=4000, dtype=11, shape=(1000,))], data=bytes(4000)).bytes())


def test_what_a_row_costs() -> None:
    rows = b"".join(b"\5%05x\x0b\1\0\0\1\0" % i for i in range(4096))
    data = listing(varints(4096) + rows)
    tracemalloc.start()
    assert len(codec.described(data, ROOM).tensors) == 4096
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert MOST * peak / 4096 < 80_000_000  # of as many as are read

"""Each way to say which positions are kept is chosen where it is short, and says the same on the other side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from payloads import assert_same, bits, grid, moved, n_of_m

from fedsparse import codec
from fedsparse.codec import structured
from fedsparse.payload import Bits, Grid, Mask, Payload, Schema, Spec

ROOM = 1 << 22
RNG = np.random.default_rng(0)
SHAPE = (64, 128)
TENTH = Bits(bits(RNG, SHAPE, 0.1))
FEW = Bits(bits(RNG, SHAPE, 0.01))


def exchange(
    mask: Mask, known: dict[str, Mask] | None = None, agreed: dict[str, Mask] | None = None
) -> codec.Inspection:
    """What the bytes were spent on, after they were read: with values and as a mask alone, by schema and by name."""
    shape = tuple(mask.shape)
    schema = Schema({"w": Spec("int16", shape)}, frozenset({"w"}), partial=True, agreed=agreed or {})
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    for payload in (Payload({}, {"w": mask}), Payload({"w": values}, {"w": mask})):
        for cited in (None, schema):
            data = codec.encode(payload, schema=cited, known=known)
            assert_same(payload, codec.decode(data, schema, ROOM, known=known))
    return codec.inspect(data, schema)


def half(mask: np.ndarray, axis: int) -> np.ndarray:
    """The mask without every second row of one axis."""
    index = [slice(None)] * mask.ndim
    index[axis] = slice(1, None, 2)
    mask = mask.copy()
    mask[tuple(index)] = False
    return mask


ONES, CONV = np.ones(SHAPE, np.bool_), np.ones((24, 15, 3, 3), np.bool_)
CASES: dict[str, tuple[Mask, str, int]] = {
    "all": (Bits(ONES), "full", 0),
    "none": (Bits(~ONES), "gaps", 0),
    "half": (Bits(bits(RNG, SHAPE, 0.5)), "bitmap", 1024),
    "some": (Bits(bits(RNG, SHAPE, 0.05)), "gaps or rice", 380),
    "most": (Bits(bits(RNG, SHAPE, 0.95)), "mirror", 380),
    "few": (FEW, "rice", 110),
    "from a seed": (codec.Seeded(SHAPE, 800, (1, 2)), "seed", 16),
    "rows": (Bits(half(ONES, 0)), "grid", 11),
    "columns": (Bits(half(ONES, 1)), "grid", 18),
    "rows and columns": (Bits(half(half(ONES, 0), 1)), "grid", 26),
    "filters": (Bits(half(CONV, 0)), "grid", 7),
    "channels": (Bits(half(CONV, 1)), "grid", 6),
    "every axis": (Bits(half(half(half(half(CONV, 3), 2), 1), 0)), "grid", 11),
    "one row only": (Bits(ONES & (np.arange(64) == 7)[:, None]), "grid", 11),
    "said to be rows and columns": (Grid(SHAPE, (np.arange(64) < 9, np.arange(128) > 99)), "grid", 26),
    "said of few positions": (Grid((8, 4, 3, 3), (np.arange(8) < 5, np.arange(4) < 2, None, None)), "grid", 6),
    "said of a vector": (Grid((64,), (np.arange(64) < 9,)), "bitmap or gaps or rice", 12),
    "odd axes": (Bits(np.outer(np.arange(31) % 3 == 0, np.arange(37) % 2 == 0)), "grid", 11),
    "1:2": (Bits(n_of_m(RNG, SHAPE, 1, 2)), "n:m", 2 + 512),
    "1:4": (Bits(n_of_m(RNG, SHAPE, 1, 4)), "n:m", 2 + 512),
    "2:4": (Bits(n_of_m(RNG, SHAPE, 2, 4)), "n:m", 2 + 683),
    "3:4": (Bits(n_of_m(RNG, SHAPE, 3, 4)), "n:m", 2 + 512),
    "1:8": (Bits(n_of_m(RNG, SHAPE, 1, 8)), "n:m", 2 + 512),
    "4:8": (Bits(n_of_m(RNG, SHAPE, 4, 8)), "n:m", 2 + 1024),
    "7:8": (Bits(n_of_m(RNG, SHAPE, 7, 8)), "n:m", 2 + 512),
    "2:4 of 2045 groups": (Bits(n_of_m(RNG, (5, 409, 4), 2, 4)), "n:m", 2 + 682),
}


@pytest.mark.parametrize("case", CASES)
def test_the_mode_that_suits(case: str) -> None:
    mask, mode, most = CASES[case]
    row = exchange(mask).tensors[0]
    assert row.mask in mode.split(" or ") and row.kept == np.count_nonzero(mask.dense())
    assert row.mask_bytes <= most


@pytest.mark.parametrize("seed", range(30))
def test_grids_of_any_shape(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 9, int(rng.integers(2, 6))).tolist())
    mask = grid(rng, shape)
    assert exchange(Bits(mask)).total > 0
    broken = mask.copy()
    broken.reshape(-1)[int(rng.integers(mask.size))] ^= True  # a grid with a hole is another mask
    exchange(Bits(broken))


def test_a_grid_that_no_reader_takes_is_sent_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Grid(SHAPE, (np.arange(64) < 9, None))
    assert exchange(rows).tensors[0].mask_bytes == 11
    monkeypatch.setattr(structured, "GRID_CAP", 10)
    for mask in (rows, Bits(np.asarray(rows.dense()))):
        assert exchange(mask).tensors[0].mask in ("bitmap", "gaps")


@pytest.mark.parametrize("m", [2, 4, 8])
@pytest.mark.parametrize("groups", [1, 2, 3, 7, 8, 9, 64])
def test_regular_masks_of_any_size(m: int, groups: int) -> None:
    rng = np.random.default_rng(groups)
    for n in range(1, m):
        mask = n_of_m(rng, (groups * m,), n, m)
        exchange(Bits(mask))
        mask[0] ^= True  # no longer regular
        assert exchange(Bits(mask)).tensors[0].mask != "n:m"


# ---- masks that the receiver holds ----


@pytest.mark.parametrize(
    ("share", "mode", "most"), [(0, "known", 8), (0.002, "difference", 60), (0.01, "difference", 180)]
)
def test_what_is_like_a_known_mask_costs_the_difference(share: float, mode: str, most: int) -> None:
    row = exchange(Bits(moved(RNG, TENTH.bits, share)), {"w": TENTH}).tensors[0]
    assert (row.mask, row.mask_bytes <= most) == (mode, True)


def test_only_removed_only_added_and_turned_around() -> None:
    fewer, more = TENTH.bits & bits(RNG, SHAPE, 0.99), TENTH.bits | bits(RNG, SHAPE, 0.001)
    assert exchange(Bits(fewer), {"w": TENTH}).tensors[0].mask == "difference"
    assert exchange(Bits(more), {"w": TENTH}).tensors[0].mask == "difference"
    assert exchange(Bits(~TENTH.bits), {"w": TENTH}).tensors[0].mask not in ("difference", "known")
    for other in (TENTH.bits.reshape(-1), ONES, ~ONES):  # of another shape, of no use
        assert exchange(TENTH, {"w": Bits(other)}).tensors[0].mask in ("bitmap", "gaps", "rice")


@pytest.mark.parametrize("share", [0, 0.005])
def test_another_mask_than_the_one_relied_on(share: float) -> None:
    schema = Schema({"v": Spec("bool", SHAPE), "w": Spec("bool", SHAPE)}, frozenset({"v", "w"}))
    payload = Payload({"v": ~ONES, "w": ONES}, {"w": Bits(moved(RNG, TENTH.bits, share))})
    data = codec.encode(payload, schema=schema, known={"w": TENTH})
    other = Bits(moved(RNG, TENTH.bits, 1e-3))
    for known in (None, {}, {"w": other}, {"w": Bits(TENTH.bits.reshape(-1))}, {"v": TENTH}):
        for read in (codec.decode, lambda *a, **k: codec.accumulate([a[0]], [1], *a[1:], **k)):
            with pytest.raises(codec.UnknownMask) as caught:
                read(data, schema, ROOM, known=known)
            assert caught.value.tensor == "w"


def test_a_known_mask_may_come_in_any_form() -> None:
    seeded = codec.Seeded(SHAPE, 819, (3, 4))
    like = Bits(moved(RNG, np.asarray(seeded.dense()), 0.005))
    payload = Payload({"w": np.ones(SHAPE)}, {"w": like})
    schema = Schema({"w": Spec("float64", SHAPE)}, frozenset({"w"}))
    data = codec.encode(payload, known={"w": seeded})
    assert codec.inspect(data).tensors[0].mask == "difference"
    got = codec.decode(data, schema, ROOM, known={"w": Bits(seeded.dense())})
    again = codec.encode(payload, known={"w": got.masks["w"]})  # what was received is held from now on
    assert_same(payload, codec.decode(again, schema, ROOM, known={"w": like}))


@pytest.mark.parametrize("form", [np.asarray, torch.as_tensor])
def test_masks_at_hand_may_be_bare_arrays(form: Callable) -> None:
    mask, other = TENTH.bits, moved(RNG, TENTH.bits, 0.005)
    spec = {"v": Spec("int8", SHAPE), "w": Spec("int8", SHAPE), "x": Spec("int8", SHAPE)}
    schema = Schema(spec, frozenset(spec), agreed={"x": form(mask)})
    payload = Payload(dict.fromkeys(spec, mask.astype(np.int8)), {"v": mask, "w": other, "x": mask})
    known = {"v": form(mask), "w": form(mask), "u": None}
    data = codec.encode(payload, schema=schema, known=known)
    assert [row.mask for row in codec.inspect(data, schema).tensors] == ["known", "difference", "agreed"]
    assert_same(payload, codec.decode(data, schema, ROOM, known=known))
    assert np.array_equal(codec.accumulate([data], [2], schema, ROOM, known=known).total["v"], 2 * mask)


def test_the_order_of_agreed_masks_says_nothing() -> None:
    spec = {"v": Spec("int8", SHAPE), "w": Spec("int8", SHAPE)}
    one, other = ({name: TENTH for name in order} for order in ("vw", "wv"))
    assert codec.schema_hash(Schema(spec, agreed=one)) == codec.schema_hash(Schema(spec, agreed=other))
    assert codec.schema_hash(Schema(spec, agreed=one)) != codec.schema_hash(Schema(spec, agreed={"v": TENTH}))


def test_agreed_masks_cost_nothing_and_others_are_sent() -> None:
    row = exchange(TENTH, agreed={"w": Bits(TENTH.bits.copy())}).tensors[0]
    assert (row.mask, row.mask_bytes) == ("agreed", 0)
    assert exchange(FEW, agreed={"w": TENTH}).tensors[0].mask == "rice"
    assert exchange(FEW, {"w": FEW}, {"w": TENTH}).tensors[0].mask == "known"


# ---- masks from a seed ----


def philox(key: tuple[int, int], counter: int) -> list[int]:
    """Philox4x64-10 in plain integers, after Salmon, Moraes, Dror and Shaw (2011)."""
    whole = (1 << 64) - 1
    words = [counter >> 64 * i & whole for i in range(4)]
    k0, k1 = key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * words[0], 0xCA5A826395121157 * words[2]
        words = [second >> 64 ^ words[1] ^ k0, second & whole, first >> 64 ^ words[3] ^ k1, first & whole]
        k0, k1 = k0 + 0x9E3779B97F4A7C15 & whole, k1 + 0xBB67AE8584CAA73B & whole
    return words


@pytest.mark.parametrize("key", [(0, 0), (1, 2), (2**64 - 1, 2**63 + 5)])
@pytest.mark.parametrize("n", [1, 4, 7, 250])
def test_a_seed_means_what_the_format_says(key: tuple[int, int], n: int) -> None:
    words = [philox(key, 1 + i // 4)[i % 4] for i in range(n)]
    for count in {0, 1, n // 2, n}:
        expected = sorted(range(n), key=lambda i: (words[i], i))[:count]
        assert np.flatnonzero(codec.Seeded((n,), count, key).dense()).tolist() == sorted(expected)


def test_ties_go_to_the_lower_position(monkeypatch: pytest.MonkeyPatch) -> None:
    words = np.array([5, 3, 3, 9, 3, 1], np.uint64)

    class Tied:
        random_raw: Callable = staticmethod(lambda n: words[:n])

    monkeypatch.setattr(structured.np.random, "Philox", lambda key: Tied)
    found = [np.flatnonzero(np.unpackbits(structured.drawn((0, 0), 6, k), bitorder="little")) for k in range(7)]
    assert [f.tolist() for f in found] == [
        [],
        [5],
        [1, 5],
        [1, 2, 5],
        [1, 2, 4, 5],
        [0, 1, 2, 4, 5],
        [0, 1, 2, 3, 4, 5],
    ]


@pytest.mark.parametrize("n", [64, 65, 1000, 20_001])
def test_words_are_drawn_a_chunk_at_a_time(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    monkeypatch.setattr(structured, "CHUNK", 64)
    order = np.argsort(np.random.Philox(key=np.array((5, n), np.uint64)).random_raw(n), kind="stable")
    for kept in {0, 1, 30, n // 3, n - 1, n}:
        assert np.flatnonzero(codec.Seeded((n,), kept, (5, n)).dense()).tolist() == sorted(order[:kept].tolist())


@pytest.mark.parametrize("word", [0, 1 << 63, (1 << 64) - 1])
def test_words_that_no_chance_would_give(monkeypatch: pytest.MonkeyPatch, word: int) -> None:
    class Equal:
        random_raw: Callable = staticmethod(lambda n: np.full(n, word, np.uint64))

    monkeypatch.setattr(structured.np.random, "Philox", lambda key: Equal)
    assert np.flatnonzero(codec.Seeded((9000,), 3000, (0, 0)).dense()).tolist() == list(range(3000))


# ---- where a tensor without a mask is zero ----


@pytest.mark.parametrize("case", ["few", "some", "half", "rows and columns", "2:4", "none"])
def test_zeros_without_a_mask_are_not_sent(case: str) -> None:
    mask, _, most = CASES[case]
    mask = np.asarray(mask.dense())
    values = np.where(mask, RNG.standard_normal(SHAPE), 0).astype(np.float32)
    values[:4] = np.where(mask[:4], np.float32(-0.0), 0)  # no zero: its sign is a bit
    schema = Schema({"w": Spec("float32", SHAPE)})  # masks are not even allowed
    data = codec.encode(Payload({"w": values}), schema=schema)
    row = codec.inspect(data, schema).tensors[0]
    assert row.mask.endswith(" support") and row.kept is None
    assert row.mask_bytes <= most
    got = codec.decode(data, schema, ROOM)
    assert not got.masks and got.weights["w"].tobytes() == values.tobytes()


def test_what_is_hardly_zero_is_sent_whole() -> None:
    values = np.where(bits(RNG, SHAPE, 0.95), 1.5, 0).astype(np.float32)
    assert codec.inspect(codec.encode(Payload({"w": values}))).tensors[0].mask == "dense"
    assert codec.inspect(codec.encode(Payload({"w": values.astype(np.float64)}))).tensors[0].mask == "dense"

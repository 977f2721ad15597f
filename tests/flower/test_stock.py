"""Any Flower app with this codec under it: the same weights, fewer bytes, and replies that are checked."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flower.stocked import CLIENTS, Wire, app, query, same, trained, weights
from flower.stocked import quiet as quiet  # a fixture for every test here
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg, Strategy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes

from fedsparse.flower import CompressedGrid, compress_mod, records

# ---- the same result ----


@pytest.mark.parametrize("strategy", [FedAvg, FedAdam])
def test_the_weights_are_those_of_stock_flower_to_the_bit(strategy: type[Strategy]) -> None:
    stock = trained(strategy(), Wire(app()))
    ours = trained(strategy(), CompressedGrid(Wire(app(compress_mod))))
    assert same(stock.arrays, ours.arrays) and not same(stock.arrays, weights())
    assert stock.evaluate_metrics_clientapp == ours.evaluate_metrics_clientapp
    assert len(ours.train_metrics_clientapp) == 3


def test_the_bytes_counted_are_those_on_the_wire() -> None:
    stock, wire = Wire(app()), Wire(app(compress_mod))
    grid = CompressedGrid(wire)
    trained(FedAvg(), stock)
    trained(FedAvg(), grid)
    for direction in ("down", "up"):
        rows = [row for row in grid.transfers if row.direction == direction]
        assert len(rows) == 2 * 3 * CLIENTS and {row.node for row in rows} == {1, 2, 3}
        assert sum(row.sent for row in rows) == wire.sent[direction]
        assert sum(row.stock for row in rows) == stock.sent[direction]
    assert {(row.exchange, row.type) for row in grid.transfers} == {
        (n, "train" if n % 2 else "evaluate") for n in range(1, 7)
    }
    share = sum(wire.sent.values()) / sum(stock.sent.values())
    assert grid.summary() == pytest.approx(
        {"mb_down": wire.sent["down"] / 1e6, "mb_up": wire.sent["up"] / 1e6, "share": share}
    )
    assert share < 0.6


def test_a_reply_cites_the_names_and_shapes_that_it_answers() -> None:
    grid = CompressedGrid(Wire(app(compress_mod)))
    query(grid, RecordDict({f"a{'a' * 400}": ArrayRecord({"b" * 500: Array(np.ones(1, np.float32))})}))
    down, up = grid.transfers
    assert up.sent < down.sent - 400


def test_values_are_sent_as_their_difference_to_what_was_received() -> None:
    grid = CompressedGrid(Wire(app(compress_mod)))
    x = np.random.default_rng(0).normal(size=(100, 100)).astype(np.float32)
    reply = query(grid, RecordDict({"arrays": ArrayRecord([x])}))
    assert np.array_equal(reply.content["arrays"]["0"].numpy(), x)
    down, up = grid.transfers
    assert up.sent < down.sent / 10


def test_names_that_the_strategy_does_not_know_come_back_too() -> None:
    """A reply in another record, in another order: its payload says itself what it holds."""
    turned = ClientApp(mods=[compress_mod])

    @turned.query()
    def answer(message: Message, context: Context) -> Message:
        backwards = dict(reversed(message.content["arrays"].items()))
        return Message(RecordDict({"arrays": ArrayRecord(backwards), "more": weights(1)}), reply_to=message)

    reply = query(CompressedGrid(Wire(turned)), RecordDict({"arrays": weights()}))
    assert same(reply.content["arrays"], ArrayRecord(dict(reversed(weights().items()))))
    assert same(reply.content["more"], weights(1))


ODD = [
    np.array(-0.0, np.float32),
    np.array([np.nan, -np.inf, 1e-45], np.float32),
    np.zeros((0, 3)),
    np.arange(6, dtype=">f4"),
    np.array(["a", "bc"]),
    np.array([(1, 2.0)], "i4,f4"),
    np.array([1, 2], "datetime64[s]"),
    np.arange(3, dtype="u8"),
    np.array([True, False]),
    np.float16([[1, 2]]),
    np.array([1j]),
]
NAMES = ["", "%", "%25", "a/b", "/", "0/x", "ä.weight", "x" * 1025, "fedsparse", " ", "#0"]


def test_odd_arrays_and_names_come_back_as_they_were() -> None:
    record = ArrayRecord({name: Array(array) for name, array in zip(NAMES, ODD, strict=True)})
    record["foreign"] = Array("uint8", (3,), "someone else's", b"abc")
    content = RecordDict({"arrays": record, "": ArrayRecord(), "config": ConfigRecord({"lr": 0.1})})
    reply = query(CompressedGrid(Wire(app(compress_mod))), content)
    assert not reply.has_error() and list(reply.content) == ["arrays", "", "config"]
    assert same(reply.content["arrays"], record) and reply.content["config"] == content["config"]
    assert same(reply.content[""], ArrayRecord())


def test_a_table_that_is_far_larger_than_the_values() -> None:
    record = ArrayRecord({f"{i:04}".ljust(1000, "x"): Array(np.float32([i])) for i in range(1200)})
    packed, held = records.pack(record, "fp32", None)
    there, known = records.unpack(RecordDict({"": packed}), {}, 4800)
    assert same(there[""], record)
    answer, _ = records.pack(there[""], "fp32", known[""])
    assert same(records.unpack(RecordDict({"": answer}), {"": held}, 0)[0][""], record)


def test_more_arrays_than_a_reader_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST", 3)
    record = ArrayRecord({str(i): Array(np.float32([i])) for i in range(5)})
    packed, _ = records.pack(record, "fp32", None)
    assert len(packed) == 3  # one with three arrays, two as they were
    assert same(records.unpack(RecordDict({"": packed}), {}, 20)[0][""], record)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=8),
        scalar_dtypes().flatmap(lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_side=4))),
        max_size=5,
    )
)
def test_any_record_comes_back_to_the_bit(content: dict[str, np.ndarray]) -> None:
    record = ArrayRecord({name: Array(array) for name, array in content.items()})
    packed, held = records.pack(record, "fp32", None)
    (there, known), _ = records.unpack(RecordDict({"": packed}), {}, 1 << 20), None
    assert same(there[""], record)
    answer, _ = records.pack(there[""], "fp32", known.get(""))
    (back, _) = records.unpack(RecordDict({"": answer}), {"": held} if held else {}, 0)
    assert same(back[""], record)


def test_the_messages_of_the_strategy_stay_as_they_are() -> None:
    messages = [Message(RecordDict({"arrays": weights()}), node, "query") for node in (1, 2)]
    replies = CompressedGrid(Wire(app(compress_mod))).send_and_receive(messages)
    assert [same(m.content["arrays"], weights()) and list(m.content) == ["arrays"] for m in messages] == [True, True]
    assert [reply.metadata.src_node_id for reply in replies] == [1, 2]


def test_push_and_pull_do_it_too() -> None:
    grid = CompressedGrid(Wire(app(compress_mod)))
    (number,) = grid.push_messages([Message(RecordDict({"arrays": weights()}), 3, "query")])
    (reply,) = grid.pull_messages([number])
    assert same(reply.content["arrays"], weights())
    assert list(grid.pull_messages([number])) == []
    down, up = grid.transfers
    assert (down.exchange, up.exchange, up.node) == (1, 1, 3) and up.stock == down.stock > up.sent


# ---- sides that do not fit ----


def test_a_client_without_the_mod_says_what_it_lacks() -> None:
    (reply,) = CompressedGrid(Wire(app())).send_and_receive([Message(RecordDict({"arrays": weights()}), 1, "train")])
    assert reply.has_error() and "fedsparse.flower.compress_mod" in str(reply.error.reason)


def test_a_client_with_the_mod_serves_a_stock_server() -> None:
    ours, stock = trained(FedAvg(), Wire(app(compress_mod))), trained(FedAvg(), Wire(app()))
    assert same(ours.arrays, stock.arrays)


def test_a_record_of_the_codec_s_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'fedsparse'"):
        query(CompressedGrid(Wire(app(compress_mod))), RecordDict({"fedsparse": ConfigRecord()}))


def test_unknown_values_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="fp33.*fp32"):
        CompressedGrid(Wire(app()), values="fp33")


# ---- values that are rounded on their way ----


@pytest.mark.parametrize(("values", "bits"), [("bf16", 16), ("fp16", 16), ("int8", 8), ("int4", 4)])
def test_rounded_values_are_fewer_bytes_and_near(values: str, bits: int) -> None:
    x = np.random.default_rng(0).normal(size=(100, 100)).astype(np.float32)
    seen = []
    for _ in range(2):
        grid = CompressedGrid(Wire(app(compress_mod)), values=values)
        reply = query(grid, RecordDict({"arrays": ArrayRecord([x, x[0]])}))
        seen.append(reply.content["arrays"])
        assert all(row.sent < 1.05 * bits / 32 * row.stock + 500 for row in grid.transfers)
    rounded, exact = seen[0].to_numpy_ndarrays()
    assert rounded.dtype == np.float32 and not np.array_equal(rounded, x) and np.array_equal(exact, x[0])
    assert np.abs(rounded - x).max() < 10 / (2 ** (min(bits, 8) - 1) - 1)  # a step in each direction
    assert same(*seen), "equal arrays are rounded equally"


@pytest.mark.slow
@pytest.mark.ray
def test_the_example_runs_in_flower_s_simulation(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "stock-flower.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    run = "from flwr.simulation import run_simulation\nrun_simulation(server, app, num_supernodes=2)\n"
    script = tmp_path / "example.py"
    script.write_text("\n".join([*blocks, run]), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    (summary,) = re.findall(r"^\{'mb_down': .*\}$", done.stdout, re.MULTILINE) or [done.stderr]
    told = ast.literal_eval(summary)
    assert 0 < told["mb_up"] < told["mb_down"] and 0 < told["share"] < 1
    assert "3/3" in done.stderr and "0 failures" in done.stderr

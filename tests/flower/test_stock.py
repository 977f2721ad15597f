"""Any Flower app with this codec under it: the same weights, fewer bytes, and replies that are checked."""

from __future__ import annotations

import ast
import logging
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.serverapp.strategy import FedAdam, FedAvg, Strategy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes

from fedsparse import codec
from fedsparse.flower import CompressedGrid, compress_mod, private, records
from fedsparse.flower.grids import CLIENT_FAILED, OwnGrid
from fedsparse.payload import Payload

SHAPES = {"conv/kernel": (8, 3, 3, 3), "fc.weight": (10, 300), "fc.bias": (10,), "": (2,), "scale": ()}
CLIENTS = 3
Spoil = Callable[[Message], None]


def weights(seed: int = 0) -> ArrayRecord:
    """A model, half of whose weights are zero, a few with a sign, and names that the codec has no place for."""
    rng = np.random.default_rng(seed)
    drawn = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    zeros = {name: np.where(x < -2, -0.0, 0.0) for name, x in drawn.items()}
    return ArrayRecord({n: Array(np.asarray(np.where(x > 0, x, zeros[n]), np.float32)) for n, x in drawn.items()})


def app(*mods: Any) -> ClientApp:
    """Clients that move each weight a little, and measure its norm."""
    made = ClientApp(mods=list(mods))

    @made.train()
    def train(message: Message, context: Context) -> Message:
        rng = np.random.default_rng(context.node_id)
        moved = {}
        for name, array in message.content["arrays"].items():
            x = array.numpy()
            moved[name] = Array(np.asarray(x + (x != 0) * 0.01 * rng.normal(size=x.shape), np.float32))
        told = MetricRecord({"num-examples": 10 * context.node_id})
        return Message(RecordDict({"arrays": ArrayRecord(moved), "metrics": told}), reply_to=message)

    @made.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        norm = sum(float(np.abs(x).sum()) for x in message.content["arrays"].to_numpy_ndarrays())
        told = MetricRecord({"num-examples": 1, "norm": norm})
        return Message(RecordDict({"metrics": told}), reply_to=message)

    @made.query()
    def query(message: Message, context: Context) -> Message:
        return Message(message.content, reply_to=message)

    return made


class Wire(OwnGrid):
    """A ClientApp behind Flower's serialisation, which counts the bytes of arrays in both directions."""

    def __init__(self, app: ClientApp, spoil: Spoil | None = None) -> None:
        super().__init__(CLIENTS, {})
        self.app, self.spoil, self.sent = app, spoil, {"down": 0, "up": 0}

    def _carried(self, message: Message, direction: str) -> Message:
        proto = message_to_proto(message)
        for item in proto.content.items:
            self.sent[direction] += sum(len(entry.value.data) for entry in item.array_record.items)
        return message_from_proto(type(proto).FromString(proto.SerializeToString()))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        for i, message in enumerate(messages):
            private.set_message_id(message, f"message {i}")
            node = message.metadata.dst_node_id
            try:
                reply = self.app(self._carried(message, "down"), Context(1, node, {}, RecordDict(), {}))
            except Exception as error:
                reply = Message(Error(CLIENT_FAILED, str(error)), reply_to=message)
            if self.spoil and node == 2 and not reply.has_error():
                self.spoil(reply)
            yield reply if reply.has_error() else self._carried(reply, "up")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Flower's log, without what it prints of each round."""
    log = logging.getLogger("flwr")
    level, log.level = log.level, logging.ERROR
    yield
    log.level = level


def trained(strategy: Strategy, grid: Any, rounds: int = 3) -> Any:
    random.seed(0)  # Flower draws the order of clients
    return strategy.start(grid=grid, initial_arrays=weights(), num_rounds=rounds)


def query(grid: Any, content: RecordDict) -> Message:
    (reply,) = grid.send_and_receive([Message(content, 1, "query")])
    return reply


def same(one: ArrayRecord, other: ArrayRecord) -> bool:
    """Equal names in equal order, and equal bytes of each array."""
    return [*one.items()] == [*other.items()]


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


# ---- replies that must not be used ----


def _opaque(reply: Message) -> Array:
    return reply.content["arrays"][records.KEY]


def _flipped(reply: Message) -> None:
    array = _opaque(reply)
    array.data = array.data[:100] + bytes([array.data[100] ^ 1]) + array.data[101:]


def _cut(reply: Message) -> None:
    _opaque(reply).data = _opaque(reply).data[:20]


def _foreign(reply: Message) -> None:
    """Arrays that are fine, and of other shapes than those that were sent."""
    named = {name: Array(np.ones(2, np.float32)) for name in "ab"}
    _, held = records.pack(ArrayRecord(named), "fp32", None)
    packed, _ = records.pack(ArrayRecord(named), "fp32", held)
    reply.content["arrays"] = packed


def _huge(reply: Message) -> None:
    """A gigabyte in a few bytes: whoever believes it is lost."""
    many = {name: np.zeros(1 << 22, np.float32) for name in "abc"}
    data = codec.encode(Payload(many, dict.fromkeys(many, np.zeros(1 << 22, np.bool_))))
    _opaque(reply).data = data


def _twice(reply: Message) -> None:
    reply.content["arrays"]["0/scale"] = Array(np.ones(1, np.float32))


def _nowhere(reply: Message) -> None:
    reply.content["arrays"]["here/x"] = Array(np.ones(1, np.float32))


@pytest.mark.parametrize("spoil", [_flipped, _cut, _foreign, _huge, _twice, _nowhere])
def test_a_reply_that_cannot_be_read_is_that_of_a_failed_client(spoil: Spoil) -> None:
    wire = Wire(app(compress_mod), spoil)
    grid = CompressedGrid(wire, max_bytes=1 << 20)
    result = trained(FedAvg(fraction_evaluate=0.0), grid, rounds=2)
    assert sorted((row.node, row.refused) for row in grid.transfers if row.direction == "up") == [
        *[(1, False)] * 2, *[(2, True)] * 2, *[(3, False)] * 2,
    ]  # fmt: skip
    assert sum(row.sent for row in grid.transfers if row.direction == "up") == wire.sent["up"]

    def lost(reply: Message) -> None:
        reply.__dict__.update(_content=None, _error=Error(CLIENT_FAILED, "gone"))

    without = trained(FedAvg(fraction_evaluate=0.0), Wire(app(), lost), rounds=2)
    assert same(result.arrays, without.arrays)


def test_the_error_names_the_node_and_the_reason() -> None:
    grid = CompressedGrid(Wire(app(compress_mod), _flipped))
    (reply,) = grid.send_and_receive([Message(RecordDict({"arrays": weights()}), 2, "query")])
    assert reply.has_error() and reply.metadata.src_node_id == 2
    assert "refused" in str(reply.error.reason) and "checksum" in str(reply.error.reason)


def test_a_client_refuses_what_is_too_large_for_it() -> None:
    grid = CompressedGrid(Wire(app(partial(compress_mod, max_bytes=1000))))
    reply = query(grid, RecordDict({"arrays": weights()}))
    assert reply.has_error() and reply.error.code == CLIENT_FAILED


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

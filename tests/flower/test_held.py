"""What both sides hold saves bytes and changes nothing else; a side that lost it gets the whole, and that is booked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from federations import built, client_of, small

from fedsparse import codec
from fedsparse.federation import federation
from fedsparse.flower import held, wire
from fedsparse.flower.grids import LocalGrid
from fedsparse.flower.held import RECEIVED, Given, Holdings
from fedsparse.flower.runtimes import runtime
from fedsparse.flower.server_app import STORES, run_id, serve
from fedsparse.payload import Ids, Payload, Schema, Spec

STRATEGIES = Path(__file__).parent / "dropping.py"
LOSSY = ["bf16", "fp16", "int8", "int4"]
PRUNED = {"name": "personalized_masks", "first": 0.0, "interval": 0.3, "tolerance": 1.0}
TINY = {"model": {"name": "mlp", "hidden": [20]}, "dataset": "digits"}


def ran(
    path: Path, on_round: Any = None, grid_type: type[LocalGrid] = LocalGrid, **overrides: Any
) -> tuple[dict[str, Any], pd.DataFrame]:
    """(run.json, training messages) of a tiny run in this process."""
    text = small(**{**TINY, **overrides}).to_toml()
    fed = federation(text)
    path.mkdir(parents=True)
    with runtime([fed.experiment]):
        grid = grid_type(len(fed.nodes), {"experiment": text, "stores": str(path / STORES)}, run_id(fed))
        info = serve(fed, grid, path, "test", on_round)
    return info, pd.read_parquet(path / "messages.parquet")


def training(messages: pd.DataFrame) -> pd.DataFrame:
    return messages[messages["phase"] == "train"]


# ---- what it saves ----


@pytest.mark.parametrize("strategy", ["fedavg", "feddip", PRUNED], ids=["fedavg", "feddip", "personalized_masks"])
def test_references_save_bytes_and_change_nothing_else(strategy: Any, tmp_path: Path) -> None:
    common = {"strategy": strategy, "rounds": 4, "clients_per_round": 3, "train": {"lr": 0.01}}
    with_, messages = ran(tmp_path / "with", **common)
    without, plain = ran(tmp_path / "without", **common, wire={"references": False})
    for key in ("model_hash", "clients_hash", "final", "final_personal", "density"):
        assert with_[key] == without[key], key
    for way in ("up", "down") if strategy != "feddip" else ("down",):  # an update is a difference already
        assert with_[f"bytes_{way}"] < without[f"bytes_{way}"]
    assert with_["bytes_up"] <= without["bytes_up"]
    assert set(messages["status"]) == {"ok"} and set(messages["attempt"]) == {1}
    looked = [table[table["phase"] == "evaluate"]["bytes"].tolist() for table in (messages, plain)]
    assert looked[0] == looked[1]  # an evaluation relies on nothing


def test_a_mask_that_moves_a_little_costs_its_moves(tmp_path: Path) -> None:
    feddip = {"name": "feddip", "start": 0.3, "density": 0.3, "reach": 1.0}
    _, messages = ran(tmp_path / "run", strategy=feddip, model={"name": "mlp", "hidden": [200]})
    down = training(messages)[training(messages)["direction"] == "down"]
    first, last = (down[down["round"] == t]["mask"].sum() for t in (1, 3))
    assert last < first / 2


def test_nothing_stays_after_the_run_and_two_payloads_while_it_goes(tmp_path: Path) -> None:
    seen: list[int] = []

    def look(row: dict[str, Any]) -> None:
        folders = sorted((tmp_path / "run" / STORES / RECEIVED).iterdir())
        seen.extend(len(list(folder.iterdir())) for folder in folders)

    ran(tmp_path / "run", look, rounds=4)
    assert seen == [1] * 4 + [2] * 4 * 3
    assert not (tmp_path / "run" / STORES).exists()


@pytest.mark.parametrize("values", LOSSY)
@pytest.mark.parametrize("strategy", ["fedavg", "feddip"])
def test_a_wire_that_rounds_is_shorter_and_needs_no_second_message(values: str, strategy: str, tmp_path: Path) -> None:
    info, messages = ran(tmp_path / "run", strategy=strategy, wire={"values": values})
    exact, _ = ran(tmp_path / "exact", strategy=strategy)
    assert info["status"] == "done" and info["model_hash"] != exact["model_hash"]
    assert set(messages["status"]) == {"ok"} and set(messages["attempt"]) == {1}
    assert info["bytes_up"] < 0.8 * exact["bytes_up"] and info["bytes_down"] < 0.8 * exact["bytes_down"]


# ---- what is lost ----


def delete(folder: Path) -> None:
    shutil.rmtree(folder / "1")


def corrupt(folder: Path) -> None:
    for file in (folder / "1").iterdir():
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)


def cut(folder: Path) -> None:
    for file in (folder / "1").iterdir():
        file.write_bytes(b"")


def swap(folder: Path) -> None:
    (folder / "1").rename(folder / "x")
    shutil.copytree(folder / "2", folder / "1")


@pytest.mark.parametrize("damage", [delete, corrupt, cut, swap])
@pytest.mark.parametrize("strategy", ["fedavg", PRUNED], ids=["fedavg", "personalized_masks"])
def test_a_client_that_lost_what_it_held_gets_the_whole_once(
    damage: Callable[[Path], None], strategy: Any, tmp_path: Path
) -> None:
    def after(row: dict[str, Any]) -> None:
        if row["round"] == 2:
            damage(tmp_path / "damaged" / STORES / RECEIVED)

    quiet, _ = ran(tmp_path / "quiet", strategy=strategy, rounds=4)
    info, messages = ran(tmp_path / "damaged", after, strategy=strategy, rounds=4)
    assert (info["model_hash"], info["clients_hash"]) == (quiet["model_hash"], quiet["clients_hash"])
    rows = training(messages)
    hurt = rows[(rows["round"] == 3) & (rows["client"] == 1)]
    seen = hurt[["direction", "attempt", "status"]].values.tolist()
    if damage is swap and strategy == "fedavg":  # all have received the same
        assert seen == [["down", 1, "ok"], ["up", 1, "ok"]]
        return
    assert seen == [["down", 1, "refused"], ["up", 1, "ok"], ["down", 2, "ok"], ["up", 2, "ok"]]
    asked = hurt.iloc[1]
    assert asked["bytes"] == asked["header"] < 100 and asked["transport"] > 0
    assert hurt["bytes"].iloc[2] > hurt["bytes"].iloc[0]
    rest = rows.drop(hurt.index)
    assert set(rest["status"]) == {"ok"} and set(rest["attempt"]) == {1}
    for way in ("up", "down"):
        assert info[f"bytes_{way}"] == rows[rows["direction"] == way]["bytes"].sum()


def test_a_strategy_may_change_what_it_received(tmp_path: Path) -> None:
    careful, _ = ran(tmp_path / "careful", strategy="fedavg")
    spoiling, messages = ran(tmp_path / "spoiling", strategy=f"{STRATEGIES}:Spoiling")
    assert spoiling["model_hash"] == careful["model_hash"]
    assert set(messages["status"]) == {"ok"} and set(messages["attempt"]) == {1}


class Forgetful(LocalGrid):
    """Client 1 says to whatever it is sent that it does not hold it; `forge` changes what it says."""

    phases: tuple[str, ...] = ("train",)
    forge: Callable[[Ids], Ids] = staticmethod(lambda ids: ids)

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
        for reply in super().send_and_receive(messages, timeout=timeout):
            if reply.metadata.src_node_id == 2 and reply.metadata.message_type in self.phases:
                ids = codec.header(wire.unpack(reply)[0]).ids
                data = codec.encode(Payload(), schema=wire.NOTHING, ids=self.forge(ids))
                reply.content = wire.content(data, wire.NOT_HELD, wire.Cost())
            yield reply


class Forging(Forgetful):
    forge = staticmethod(lambda ids: replace(ids, client=2))


class Looking(Forgetful):
    phases = ("evaluate",)


@pytest.mark.parametrize(
    ("grid", "phase", "expected"),
    [
        (Forgetful, "train", [["down", 1, "refused"], ["up", 1, "ok"], ["down", 2, "ok"], ["up", 2, "refused"]]),
        (Forging, "train", [["down", 1, "ok"], ["up", 1, "refused"]]),
        (Looking, "evaluate", [["down", 1, "ok"], ["up", 1, "refused"]]),
    ],
)
def test_nobody_gets_more_than_one_more_message(grid: Any, phase: str, expected: Any, tmp_path: Path) -> None:
    info, messages = ran(tmp_path / "run", grid_type=grid, rounds=2)
    mine = messages[(messages["client"] == 1) & (messages["phase"] == phase)]
    for _, rows in mine.groupby("round"):
        assert rows[["direction", "attempt", "status"]].values.tolist() == expected
    assert info["status"] == "done"
    assert messages.drop(mine.index)["status"].eq("ok").all()


# ---- the two halves ----

SCHEMA = Schema({"w": Spec("float32", (40, 50)), "n": Spec("int64", ())}, frozenset({"w"}))


def payload(seed: int, masked: bool = True) -> Payload:
    rng = np.random.default_rng(seed)
    weights = {"w": rng.normal(size=(40, 50)).astype(np.float32), "n": np.array(seed)}
    return Payload(weights, {"w": np.random.default_rng(0).random((40, 50)) < 0.3} if masked else {})


def message(new: Payload, base: Payload | None = None) -> bytes:
    near = held.arrays(base) if base else None
    return wire.encode(new, SCHEMA, Ids(), "fp32", 0, base.masks if base else None, near)


def close_to(base: Payload) -> Payload:
    """Weights after a small step: what a difference is short for."""
    return replace(base, weights={**base.weights, "w": base.weights["w"] * np.float32(1.0001)})


def test_what_a_receiver_holds_is_what_it_decodes() -> None:
    sent = payload(1)
    got = wire.decode(message(sent), SCHEMA)
    assert list(held.arrays(sent)) == ["w"]
    assert held.arrays(sent)["w"].tobytes() == got.weights["w"].numpy().tobytes() == held.arrays(got)["w"].tobytes()


def test_a_client_holds_the_last_and_what_that_relied_on(tmp_path: Path) -> None:
    """However often replies are lost and messages come again, the server's last accepted payload is at hand."""
    first = payload(1)
    held.receive(message(first), SCHEMA, tmp_path)
    new = first
    for _ in range(3):  # all these replies are lost, some messages come twice
        new = close_to(new)
        data = message(new, first)
        assert len(data) < len(message(new))
        for _ in range(2):
            got = held.receive(data, SCHEMA, tmp_path)
            assert got.weights["w"].numpy().tobytes() == held.arrays(new)["w"].tobytes()
            assert len(list(tmp_path.iterdir())) == 2
    held.receive(message(close_to(new), new), SCHEMA, tmp_path)  # the last reply was accepted
    with pytest.raises(codec.NotHeld):
        held.receive(message(close_to(first), first), SCHEMA, tmp_path)


def test_another_schema_is_not_relied_on(tmp_path: Path) -> None:
    holdings, given = Holdings(history=4), Given(payload(1), 1.0, schema=7, task=0)
    holdings.begin()
    holdings.answered(3, given)
    assert holdings.of(3, 7) is given and holdings.of(3, 8) is None and holdings.of(2, 7) is None
    holdings.forget(3)
    assert holdings.of(3, 7) is None


@pytest.mark.parametrize("history", [0, 1, 3])
def test_what_is_too_old_counts_as_not_held(history: int) -> None:
    holdings = Holdings(history)
    holdings.begin()
    holdings.answered(0, Given(payload(1), 1.0, 7, holdings.task))
    ages = 0
    while holdings.of(0, 7) is not None and ages < 9:
        holdings.begin()
        ages += 1
    assert ages == history + 1


# ---- what the wire drops ----


@pytest.mark.parametrize("values", ["fp32", *LOSSY])
def test_what_arrives_and_what_was_dropped_are_what_was_sent(values: str, tmp_path: Path) -> None:
    fed = built(**TINY, wire={"values": values})
    client = client_of(fed, tmp_path, id=2, round=3)
    shapes, generator = fed.setup.shapes, torch.Generator().manual_seed(0)
    weights = {
        n: torch.randn(s, generator=generator) * 10 ** torch.randint(-6, 2, s, generator=generator)
        for n, s in shapes.items()
    }
    mask = {"fc1.weight": torch.rand(shapes["fc1.weight"], generator=generator) < 0.4}
    reply = Payload(weights, mask, info={"told": 1}, kind="update")
    data = wire.encode(reply, fed.setup.schema, Ids(1, 3, 2), values, client.wire_seed, Payload(masks=mask).masks)
    arrived = wire.decode(data, fed.setup.schema, Payload(masks=mask).masks).weights
    dropped = client.dropped(reply)
    assert bool(dropped) == (values != "fp32")
    for name, tensor in held.arrays(reply).items():
        sent, lost = torch.from_numpy(tensor), dropped.get(name, torch.zeros(()))
        rounding = 2.0**-24 * torch.maximum(sent.abs(), arrived[name].abs())
        assert ((arrived[name] + lost - sent).abs() <= 2 * rounding).all()
    if dropped:
        assert dropped["fc1.weight"].any() and not dropped["fc1.weight"][~mask["fc1.weight"]].any()
        assert not dropped["fc1.bias"].any()  # biases are sent as they are


def test_the_engine_rounds_as_the_helper_says(tmp_path: Path) -> None:
    """A whole task: what a strategy is told to be dropped is what the server lacks."""
    from fedsparse.flower.client_app import perform

    fed = built(**TINY, wire={"values": "int4"}, strategy=f"{STRATEGIES}:Dropping")
    state = fed.strategy.init(fed.shared, fed.nodes)
    ids = Ids(run_id(fed), 1, 2, 0)
    data = wire.encode(state.payload, fed.setup.schema, ids, "int4", 0)
    reply = wire.decode(perform(fed, "train", data, tmp_path)[0], fed.setup.schema)
    store = client_of(fed, tmp_path, id=2, generation=1).store
    for name, sent in store["sent"].items():
        assert torch.allclose(reply.weights[name] + store["dropped"][name], sent, rtol=1e-6, atol=1e-7), name
    assert any(tensor.any() for tensor in store["dropped"].values())

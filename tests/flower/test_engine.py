"""What a run writes, what it refuses, and that every byte is booked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from federations import small
from safetensors.torch import load_file

from fedsparse import codec, columns
from fedsparse.errors import InputError, RunError
from fedsparse.federation import Federation, federation
from fedsparse.flower import client_app, wire
from fedsparse.flower.grids import LocalGrid
from fedsparse.flower.runtimes import runtime
from fedsparse.flower.server_app import STORES, run_id, serve
from fedsparse.payload import Payload, Schema

BAD = Path(__file__).parent.parent / "killer.py"


def ran(path: Path, **overrides: Any) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    text = small(**overrides).to_toml()
    fed = federation(text)
    path.mkdir(parents=True, exist_ok=True)
    with runtime([fed.experiment]) as grid_for:
        grid = grid_for(len(fed.nodes), {"experiment": text, "stores": str(path / STORES)}, run_id(fed))
        info = serve(fed, grid, path, "label")
    return info, {name: pd.read_parquet(path / f"{name}.parquet") for name in columns.TABLES}


@pytest.mark.parametrize("strategy", ["fedavg", "feddip", "personalized_masks"])
def test_the_ledger_is_what_encode_saw(strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message down is addressed to its client by `stamp`; a reply is what `perform` returns."""
    seen = {"up": 0, "down": 0}
    perform, stamp = client_app.perform, codec.stamp

    def performed(*args: Any) -> Any:
        data, flops = perform(*args)
        seen["up"] += len(data)
        return data, flops

    def addressed(data: bytes, ids: Any) -> bytes:
        stamped = stamp(data, ids)
        seen["down"] += len(stamped)
        return stamped

    monkeypatch.setattr(client_app, "perform", performed)
    monkeypatch.setattr(codec, "stamp", addressed)
    _, tables = ran(tmp_path / "run", strategy=strategy)
    booked = tables["messages"].groupby("direction")["bytes"].sum()
    assert booked["down"] == seen["down"] > 0
    assert booked["up"] == seen["up"] > 0
    assert len(tables["messages"]) == 2 * 2 * 4 * 3  # both ways, training and evaluation, clients, rounds


def test_kinds_add_up_and_totals_are_those_of_training(tmp_path: Path) -> None:
    info, tables = ran(tmp_path / "run", strategy="feddip")
    messages = tables["messages"]
    assert (messages["bytes"] == messages[["values", "mask", "dense", "header"]].sum(axis=1)).all()
    assert (messages["transport"] > 0).all()
    training = messages[messages["phase"] != "evaluate"]
    for way in ("up", "down"):
        total = training.loc[training["direction"] == way, "bytes"].sum()
        assert info[f"bytes_{way}"] == total == tables["rounds"][f"bytes_{way}"].sum()
    up = training[training["direction"] == "up"]
    assert (up["mask"] <= 16 * 3).all()  # the server knows the mask that it sent: hashes only
    assert len(messages[messages["phase"] == "evaluate"]) == 3 * 4 * 2


def test_a_runs_folder(tmp_path: Path) -> None:
    info, tables = ran(tmp_path / "run", strategy="feddip")
    folder = tmp_path / "run"
    assert json.loads((folder / "run.json").read_text()) == info
    assert list(info)[: len(columns.RUN_KEYS)] == list(columns.RUN_KEYS)
    assert info["status"] == "done" and info["variant"] == "label" and info["metric"] == "accuracy"
    for name, table in tables.items():
        fixed = list(columns.TABLES[name])
        assert list(table.columns[: len(fixed)]) == fixed
        assert not (folder / f"{name}.jsonl").exists()
    stored = load_file(folder / "model.safetensors")
    for name in ("fc1.weight",):
        assert not stored[name][stored[f"{name}.__mask__"] == 0].any()
    again = Federation.build(small().load(folder / "config.toml"))
    assert again.experiment.to_toml() == (folder / "config.toml").read_text()
    assert tables["clients"]["device"].eq("default").all()
    assert {"x_regrown", "x_kept"} <= set(tables["rounds"].columns)


def test_the_same_seed_gives_the_same_hash_and_another_seed_another(tmp_path: Path) -> None:
    first, second = (ran(tmp_path / n, strategy="feddip")[0] for n in "ab")
    other, _ = ran(tmp_path / "c", strategy="feddip", seed=1)
    assert first["model_hash"] == second["model_hash"] != other["model_hash"]


def test_a_cohort_is_drawn_from_the_seed_and_evaluation_asks_everyone(tmp_path: Path) -> None:
    _, tables = ran(tmp_path / "run", clients=6, clients_per_round=2, rounds=6)
    trained = tables["clients"].query("phase == 'train'").groupby("round")["client"].apply(tuple)
    assert all(len(set(cohort)) == 2 for cohort in trained)
    assert len(set(trained)) > 1
    assert tables["clients"].query("phase == 'evaluate'").groupby("round").size().tolist() == [6] * 6


def test_evaluation_only_when_it_is_due(tmp_path: Path) -> None:
    _, tables = ran(tmp_path / "run", rounds=5, eval_every=2)
    assert tables["rounds"]["metric"].notna().tolist() == [False, True, False, True, True]


def test_a_poisoned_reply_is_refused_and_booked(tmp_path: Path) -> None:
    info, tables = ran(tmp_path / "run", strategy=f"{BAD}:Poison")
    refused = tables["messages"].query("status == 'refused'")
    assert refused[["client", "direction"]].drop_duplicates().values.tolist() == [[2, "up"]]
    assert len(refused) == 3 and refused["bytes"].gt(0).all()
    assert info["status"] == "done"
    assert all(bool(tensor.isfinite().all()) for tensor in load_file(tmp_path / "run" / "model.safetensors").values())
    assert tables["clients"].query("phase == 'train' and client == 2")["status"].eq("refused").all()


def test_a_client_that_raises_is_lost_for_that_round(tmp_path: Path) -> None:
    info, tables = ran(tmp_path / "run", strategy={"name": f"{BAD}:Broken", "client": 3})
    assert tables["clients"].query("status == 'lost'")[["round", "client"]].values.tolist() == [[2, 3]]
    assert info["status"] == "done"


def test_a_run_in_which_nobody_replies_fails_with_the_reason_and_keeps_what_it_had(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"round 2: no client's train reply could be used .*no such luck"):
        ran(tmp_path / "run", strategy=f"{BAD}:Broken")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["status"] == "failed" and "no such luck" in info["why"]
    assert len(pd.read_parquet(tmp_path / "run" / "rounds.parquet")) == 1


BN = {"model": {"name": "cnn", "norm": "batch"}, "local_bn": True}


@pytest.mark.parametrize("strategy", ["fedavg", "feddip", "personalized_masks"])
def test_local_batch_norm_never_travels_and_differs_between_clients(strategy: str, tmp_path: Path) -> None:
    info, tables = ran(tmp_path / "run", strategy=strategy, **BN)
    fed = federation(small(strategy=strategy, **BN).to_toml())
    assert fed.local and not set(fed.local) & set(fed.setup.shapes)
    assert not set(fed.local) & set(load_file(tmp_path / "run" / "model.safetensors"))
    own = [
        load_file(max((tmp_path / "run" / STORES / str(c)).glob("*.safetensors"), key=lambda p: int(p.stem)))
        for c in (0, 1)
    ]
    names = [n for n in own[0] if n.endswith("running_mean")]
    assert names and not any(torch.equal(own[0][n], own[1][n]) for n in names)
    assert info["final"] is None  # no global model without its BatchNorm
    assert info["final_personal"] is not None


def test_local_batch_norm_needs_batch_norm() -> None:
    with pytest.raises(InputError, match="local_bn = true needs a model with BatchNorm"):
        federation(small(local_bn=True).to_toml())


def test_rows_of_a_finished_round_are_on_disk(tmp_path: Path) -> None:
    counts: list[int] = []
    fed = federation(small().to_toml())
    path = tmp_path / "run"
    path.mkdir()
    with runtime([fed.experiment]) as grid_for:
        grid = grid_for(4, {"experiment": fed.experiment.to_toml(), "stores": str(path / STORES)}, 1)
        serve(fed, grid, path, "x", lambda row: counts.append(len((path / "rounds.jsonl").read_text().splitlines())))
    assert counts == [1, 2, 3]


def test_a_batch_size_of_one_trains(tmp_path: Path) -> None:
    _, tables = ran(tmp_path / "run", rounds=1, clients=20, train={"batch_size": 1})
    trained = tables["clients"].query("phase == 'train'")
    assert (trained["steps"] == trained["examples"]).all()


def test_why_nothing_could_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not finite"):
        ran(tmp_path / "run", train={"lr": 1e30})


def text_for_a_number(data: bytes) -> bytes:
    schema = federation(small().to_toml()).setup.schema
    payload = codec.decode(data, schema, 10**9)
    return codec.encode(replace(payload, info={"loss": "low"}), schema=schema, ids=codec.header(data).ids)


TAMPERED = {
    "another client's id": lambda data: codec.stamp(data, replace(codec.header(data).ids, client=2)),
    "another round": lambda data: codec.stamp(data, replace(codec.header(data).ids, round=9)),
    "another run": lambda data: codec.stamp(data, replace(codec.header(data).ids, run=9)),
    "another generation": lambda data: codec.stamp(data, replace(codec.header(data).ids, generation=7)),
    "garbage": lambda data: b"garbage",
    "nothing": lambda data: b"",
    "too long": lambda data: data + bytes(3_000_000),
    "damaged": lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:],
    "text for a number": text_for_a_number,
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_tampered_reply_is_refused_and_the_run_goes_on(what: str, tmp_path: Path) -> None:
    class Tampering(LocalGrid):
        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
            for reply in super().send_and_receive(messages, timeout=timeout):
                if reply.metadata.src_node_id == 2 and reply.metadata.message_type == "train":
                    data, phase, seconds = wire.unpack(reply)
                    reply.content = wire.content(TAMPERED[what](data), phase, seconds)
                yield reply

    fed = federation(small(wire={"references": False}).to_toml())  # so that the one who tampers can read the reply
    grid = Tampering(4, {"experiment": fed.experiment.to_toml(), "stores": str(tmp_path / STORES)}, run_id(fed))
    info = serve(fed, grid, tmp_path, "label")
    clients = pd.read_parquet(tmp_path / "clients.parquet").query("phase == 'train'")
    assert info["status"] == "done"
    assert clients.loc[clients["client"] == 1, "status"].tolist() == ["refused"] * 3
    assert clients.loc[clients["client"] != 1, "status"].eq("ok").all()
    messages = pd.read_parquet(tmp_path / "messages.parquet")
    assert messages.query("client == 1 and direction == 'up' and phase == 'train'")["status"].eq("refused").all()


@pytest.mark.parametrize(
    "info", [{}, {"metric": 99.0}, {"metric": float("nan")}, {"metric": 0.5}, {"metric": 0.5, "examples": -1}]
)
def test_an_evaluation_that_tells_nonsense_is_refused(info: dict[str, float], tmp_path: Path) -> None:
    class Lying(LocalGrid):
        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
            for reply in super().send_and_receive(messages, timeout=timeout):
                if reply.metadata.src_node_id == 2 and reply.metadata.message_type == "evaluate":
                    data, phase, seconds = wire.unpack(reply)
                    payload = codec.encode(Payload(info=info), schema=Schema({}), ids=codec.header(data).ids)
                    reply.content = wire.content(payload, phase, seconds)
                yield reply

    fed = federation(small().to_toml())
    grid = Lying(4, {"experiment": fed.experiment.to_toml(), "stores": str(tmp_path / STORES)}, run_id(fed))
    assert serve(fed, grid, tmp_path, "label")["status"] == "done"
    clients = pd.read_parquet(tmp_path / "clients.parquet").query("phase == 'evaluate' and client == 1")
    assert clients["status"].eq("refused").all()


def test_a_strategy_that_cannot_begin_is_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*_: Any) -> None:
        raise ValueError("not like this")

    monkeypatch.setattr("fedsparse.strategy.Strategy.init", init)
    with pytest.raises(ValueError, match="not like this"):
        ran(tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["status"] == "failed" and "not like this" in info["why"]


def test_a_run_whose_model_cannot_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedsparse.flower.server_app.save_file", full)
    with pytest.raises(OSError, match="No space"):
        ran(tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["status"] == "failed" and "No space" in info["why"] and info["bytes_up"] > 0


def test_layers_count_dense_clients_as_dense(tmp_path: Path) -> None:
    options = {"name": "personalized_masks", "first": 0.0, "interval": 0.3, "tolerance": 0.0}
    _, tables = ran(tmp_path / "run", strategy=options, model={"name": "mlp", "hidden": [30]}, clients=6)
    sizes = {"fc1.weight": 30 * 64, "fc2.weight": 300}
    for t, layers in tables["layers"].groupby("round"):
        mean = sum(row.density * sizes[row.layer] for row in layers.itertuples()) / sum(sizes.values())
        assert mean == pytest.approx(tables["rounds"].set_index("round").loc[t, "density"])


@pytest.mark.parametrize("strategy", ["random_erk", "feddip"])
def test_masks_that_all_share_do_not_agree_or_disagree(strategy: str, tmp_path: Path) -> None:
    _, tables = ran(tmp_path / "run", strategy=strategy)
    layers, last = tables["layers"], tables["layers"].query("round == 3")
    assert layers["agreement"].isna().all()
    stored = load_file(tmp_path / "run" / "model.safetensors")
    masks = {name: stored[f"{name}.__mask__"].double() for name in last["layer"]}
    assert last["density"].tolist() == pytest.approx([float(mask.mean()) for mask in masks.values()])
    kept = sum(float(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())
    assert tables["rounds"]["density"].iloc[-1] == pytest.approx(kept)


def test_masks_of_their_own_agree_in_part(tmp_path: Path) -> None:
    options = {"name": "personalized_masks", "first": 0.0, "interval": 0.3, "tolerance": 1.0}
    _, tables = ran(tmp_path / "run", strategy=options)
    assert tables["layers"]["agreement"].between(0.1, 0.999).all()

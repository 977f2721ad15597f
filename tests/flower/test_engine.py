"""What a run writes, what it refuses, and that every byte is booked."""

from __future__ import annotations

import json
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
from fedsparse.flower.runtimes import runtime
from fedsparse.flower.server_app import STORES, run_id, serve

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
    """Every reply is encoded by itself; a broadcast is encoded once and addressed to each client by `stamp`."""
    seen = {"up": 0, "down": 0}
    encode, stamp = codec.encode, codec.stamp
    broadcasts: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> bytes:
        data = encode(*args, **kwargs)
        broadcasts.append(len(data))
        seen["up"] += len(data)
        return data

    def addressed(data: bytes, ids: Any) -> bytes:
        stamped = stamp(data, ids)
        if broadcasts:  # the encoding that is being addressed was no reply
            seen["up"] -= broadcasts.pop()
            broadcasts.clear()
        assert len(stamped) == len(data)
        seen["down"] += len(stamped)
        return stamped

    monkeypatch.setattr(codec, "encode", counted)
    monkeypatch.setattr(codec, "stamp", addressed)
    # one client, so that down and up alternate and an encoding before a stamp is a downlink's
    _, tables = ran(tmp_path / "run", strategy=strategy, clients=1, partition="iid")
    booked = tables["messages"].groupby("direction")["bytes"].sum()
    assert booked["down"] == seen["down"] > 0
    assert booked["up"] == seen["up"] > 0


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

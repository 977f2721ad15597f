"""Data that only their owners have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from federations import small
from flower.elsewhere import Elsewhere

from fedsparse.errors import InputError, RunError
from fedsparse.experiment import Experiment
from fedsparse.federation import federation, forget
from fedsparse.flower.context import present
from fedsparse.flower.remote import RemoteGrid
from fedsparse.flower.server_app import serve


def own(**changes: Any) -> Experiment:
    table = {"name": "table", "file": "own.csv", "target": "label"}
    return small(clients=2, dataset=table, partition="own", runtime={"name": "grpc"}, rounds=2, **changes)


def write_own(folder: Path, rows: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, 3))
    table = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "label": (x[:, 0] > 0).astype(int)})
    folder.mkdir()
    table.to_csv(folder / "own.csv", index=False)


def test_each_client_reads_its_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, rows in {"server": 60, "0": 100, "1": 40}.items():
        write_own(tmp_path / name, rows, rows)
    monkeypatch.setenv("FEDSPARSE_DATA", str(tmp_path / "server"))
    forget()
    fed = federation(own().to_toml())
    assert [node.examples for node in fed.nodes] == [0, 0] and len(fed.test[1]) == 60
    grid = Elsewhere(tmp_path / "nodes", own().to_toml(), {0: 7001, 1: 903})
    for client, node in {0: 7001, 1: 903}.items():
        grid.configs[node]["data"] = str(tmp_path / str(client))
    (tmp_path / "run").mkdir()
    info = serve(fed, RemoteGrid(grid, 2, present(fed)), tmp_path / "run", "test")
    assert info["status"] == "done"
    clients = pd.read_parquet(tmp_path / "run" / "clients.parquet")
    assert clients.query("phase == 'train'").groupby("client")["examples"].unique().tolist() == [[70], [28]]
    assert clients.query("phase == 'evaluate'").groupby("client")["examples"].unique().tolist() == [[20], [8]]


def test_clients_must_agree_on_what_a_sample_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_own(tmp_path / "server", 60, 0)
    write_own(tmp_path / "0", 60, 1)
    pd.read_csv(tmp_path / "0" / "own.csv").drop(columns="c").to_csv(tmp_path / "0" / "own.csv", index=False)
    monkeypatch.setenv("FEDSPARSE_DATA", str(tmp_path / "server"))
    forget()
    fed = federation(own().to_toml())
    grid = Elsewhere(tmp_path / "nodes", own().to_toml(), {0: 7001})
    grid.configs[7001]["data"] = str(tmp_path / "0")
    with pytest.raises(RunError, match=r"has inputs of the shape \(2,\), and the server \(3,\)"):
        RemoteGrid(grid, 2, present(fed)).gather()


def test_a_client_whose_data_are_not_the_servers_is_named() -> None:
    fed = federation(small().to_toml())
    examples = {node.id: node.examples for node in fed.nodes}
    with pytest.raises(RunError, match="client 2 has 7 training samples and the server's split gives it"):
        fed.told(examples | {2: 7})


def test_in_a_simulation_nobody_has_data_of_its_own() -> None:
    with pytest.raises(InputError, match="partition own is for real clients"):
        federation(small(partition="own").to_toml())

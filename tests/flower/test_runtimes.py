"""Same seed, same result: equal hashes and equal ledgers in every runtime, also when workers die."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from federations import small

from fedsparse import registry
from fedsparse.federation import federation
from fedsparse.flower import ray_grid as ray_grid_module
from fedsparse.flower.runtimes import runtime
from fedsparse.flower.server_app import STORES, run_id, serve

HERE = Path(__file__).parent
KILLER = f"{HERE.parent / 'killer.py'}:Killer"
VARIANTS = [(name, {}) for name in registry.names("strategies")] + [
    ("feddip", {"uplink": "dense"}),
    ("feddip", {"uplink": "masked_residual"}),
    ("feddip", {"uplink": "topk"}),
    ("personalized_masks", {"first": 0.0, "interval": 0.3}),
]


def ran(
    grid_for: Any, path: Path, on_round: Any = None, **overrides: Any
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """(run.json, tables) of a small run over a runtime's Grid."""
    text = small(**overrides).to_toml()
    fed = federation(text)
    path.mkdir(parents=True)
    grid = grid_for(len(fed.nodes), {"experiment": text, "stores": str(path / STORES)}, run_id(fed))
    info = serve(fed, grid, path, "test", on_round)
    return info, {
        name: pd.read_parquet(path / f"{name}.parquet") for name in ("rounds", "clients", "messages", "layers")
    }


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def ray_grid(request: pytest.FixtureRequest) -> Iterator[Any]:
    with runtime([small(runtime={"name": "ray", "workers": request.param})]) as grid_for:
        yield grid_for


@pytest.fixture(scope="module")
def local_grid() -> Iterator[Any]:
    with runtime([small()]) as grid_for:
        yield grid_for


def test_there_are_strategies() -> None:
    assert {"fedavg", "feddip", "personalized_masks"} <= {name for name, _ in VARIANTS}


@pytest.mark.ray
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=lambda v: v if isinstance(v, str) else str(v))
def test_local_and_ray_agree(name: str, options: Any, local_grid: Any, ray_grid: Any, tmp_path: Path) -> None:
    strategy = {"strategy": {"name": name, **options}, "clients_per_round": 3}
    here, mine = ran(local_grid, tmp_path / "local", **strategy)
    there, theirs = ran(ray_grid, tmp_path / "ray", **strategy)
    for key in ("model_hash", "clients_hash", "final", "final_personal", "bytes_up", "bytes_down", "density"):
        assert here[key] == there[key], key
    assert here["model_hash"]
    for table, times in (
        ("messages", []),
        ("clients", ["seconds"]),
        ("rounds", ["seconds"]),
        ("layers", []),
    ):
        pd.testing.assert_frame_equal(mine[table].drop(columns=times), theirs[table].drop(columns=times))
    assert set(mine["messages"]["status"]) == {"ok"}


@pytest.mark.ray
def test_a_worker_killed_between_rounds_changes_nothing(ray_grid: Any, local_grid: Any, tmp_path: Path) -> None:
    pool = ray_grid.__self__

    def kill(row: dict[str, Any]) -> None:
        if row["round"] == 2:
            os.kill(pool.pids()[0], signal.SIGKILL)

    before, _ = ran(local_grid, tmp_path / "quiet", rounds=5)
    after, tables = ran(ray_grid, tmp_path / "killed", on_round=kill, rounds=5)
    assert after["model_hash"] == before["model_hash"]
    assert (tables["clients"]["status"] == "ok").all()
    assert tables["clients"].query("phase == 'train'").groupby("round").size().tolist() == [4] * 5


@pytest.mark.ray
def test_a_worker_killed_in_its_batch_is_replaced_and_its_clients_asked_again(
    ray_grid: Any, local_grid: Any, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    killed, tables = ran(ray_grid, tmp_path / "killed", rounds=4, strategy={"name": KILLER, "marker": str(marker)})
    assert marker.exists()
    quiet, _ = ran(local_grid, tmp_path / "quiet", rounds=4, strategy={"name": KILLER, "marker": str(marker)})
    assert killed["model_hash"] == quiet["model_hash"]
    assert (
        killed["clients_hash"] == quiet["clients_hash"]
    )  # trained from the same state as before, not from the half-done one
    messages = tables["messages"]
    again = messages.query("client == 1 and round == 2 and direction == 'down' and phase == 'train'")
    assert again["attempt"].tolist() == [1, 2]
    assert again["status"].tolist() == ["lost", "ok"]
    assert tables["clients"]["status"].eq("ok").all()


@pytest.mark.ray
def test_a_client_that_kills_two_workers_is_lost_and_takes_nobody_with_it(ray_grid: Any, tmp_path: Path) -> None:
    info, tables = ran(ray_grid, tmp_path / "run", rounds=4, strategy={"name": KILLER})
    lost = tables["clients"].query("status == 'lost'")
    assert lost[["round", "phase", "client"]].values.tolist() == [[2, "train", 1]]
    assert info["status"] == "done"
    later = tables["clients"].query("phase == 'train' and round > 2")
    assert later.groupby("round").size().tolist() == [4, 4]
    assert later["status"].eq("ok").all()
    down = tables["messages"].query("client == 1 and round == 2 and phase == 'train'")
    assert down["status"].tolist() == ["lost", "lost"]
    assert down["bytes"].gt(0).all()


@pytest.mark.parametrize(
    ("workers", "clients", "cores", "wanted"), [(6, 2, 8, 2), (3, 9, 8, 3), (0, 9, 4, 4), (0, 2, 4, 2), (0, None, 4, 4)]
)
def test_no_more_workers_than_work(workers: int, clients: int | None, cores: int, wanted: int) -> None:
    pool = ray_grid_module.Pool(workers, small(runtime={"name": "ray", "workers": workers}).runtime, clients)
    assert pool._wanted(cores) == wanted


@pytest.mark.ray
def test_a_worker_that_raises_past_everything_is_replaced(ray_grid: Any, tmp_path: Path) -> None:
    strategy = {"name": f"{HERE.parent / 'killer.py'}:Panic", "marker": str(tmp_path / "marker")}
    info, tables = ran(ray_grid, tmp_path / "run", strategy=strategy)
    assert (tmp_path / "marker").exists()
    assert info["status"] == "done"
    assert tables["clients"]["status"].eq("ok").all()


@pytest.mark.ray
def test_phases_with_equal_bytes_keep_their_own_headers(ray_grid: Any) -> None:
    from fedsparse import codec
    from fedsparse.flower import wire
    from fedsparse.payload import Ids, Payload

    grid = ray_grid(3, {}, 1)
    sent = [
        codec.encode(Payload(kind=kind), ids=Ids(client=i)) for i, kind in enumerate(("weights", "update", "weights"))
    ]
    letters, contents = grid._pack([grid.create_message(wire.content(d, "train"), "train", 1, "1") for d in sent])
    again = [codec.stamp(contents[place], ids) for _, _, ids, place in letters]
    assert again == sent


@pytest.mark.ray
def test_workers_import_the_drivers_copy(ray_grid: Any) -> None:
    import ray

    import fedsparse
    from fedsparse.flower.ray_grid import _path, worker_class

    assert ray_grid.__self__.pids()  # an actor with another copy would have failed to start, as this one does
    with pytest.raises(ray.exceptions.RayError, match="imported fedsparse from"):
        stranger = ray.remote(num_cpus=0)(worker_class()).remote(_path(), "/elsewhere/" + str(fedsparse.__file__))
        ray.get(stranger.ready.remote())

"""Workers on a Ray cluster of two nodes, here on one machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from federations import small

import fedsparse as fs
from fedsparse.flower.runtimes import runtime

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster() -> Any:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    made.shutdown()


def test_the_command_joins_it_and_the_result_is_the_same(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(small().to_toml())
    command = [sys.executable, "-m", "fedsparse", "run", "small.toml", "--runtime", "ray", "--out", "joined", "--quiet"]
    done = subprocess.run(
        [*command, "--ray-address", cluster.address], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    joined = json.loads((tmp_path / "joined" / "run.json").read_text())
    here = fs.run(small(), out=tmp_path / "here", runtime={"name": "local"}).info
    assert joined["runtime"] == "ray" and here["runtime"] == "local"
    assert (joined["model_hash"], joined["clients_hash"]) == (here["model_hash"], here["clients_hash"])


def test_workers_take_the_cores_of_all_nodes(cluster: Any) -> None:
    import ray

    with runtime([small(runtime={"name": "ray", "ray_address": cluster.address})]) as grid_for:
        pool: Any = grid_for.__self__  # type: ignore[attr-defined]
        assert pool.workers == 2  # of one core each, as each node has
        assert len(set(pool.pids())) == 2
        assert len([node for node in ray.nodes() if node["Alive"]]) == 2

"""Real clients over gRPC: Flower's stock processes, on this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from deploy.proxy import Proxy
from deploy.seen import heed, mentioning
from federations import small

import fedsparse as fs
from fedsparse.deploy.credentials import make
from fedsparse.deploy.deployment import Deployment
from fedsparse.errors import RunError
from fedsparse.experiment import Experiment
from fedsparse.federation import federation
from fedsparse.flower.grpc import Remote

pytestmark = pytest.mark.grpc
TABLES = {"messages": [], "clients": ["seconds"], "rounds": ["seconds"], "layers": []}


FEW = f"{Path(__file__).with_name('few.py')}:Few"


def wanted(**changes: Any) -> Experiment:
    fixed = {"dataset": FEW, "clients": 2, "eval_every": 3, "train": {"batch_size": 16}, "runtime": {"name": "grpc"}}
    return small(**{**fixed, **changes})


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    home = tmp_path_factory.mktemp("grpc")
    made = Remote(lambda: Deployment(home / f"flower-{len(list(home.iterdir()))}", 2))
    yield made
    made.close()


def ran(remote: Remote, path: Path, experiment: Experiment) -> dict[str, Any]:
    path.mkdir()
    return remote(federation(experiment.to_toml()), path, "test")


@pytest.mark.parametrize("strategy", ["fedavg", "feddip", "personalized_masks"])
def test_the_result_is_that_of_local(strategy: str, remote: Remote, tmp_path: Path) -> None:
    real = ran(remote, tmp_path / "grpc", wanted(strategy=strategy))
    here = fs.run(wanted(strategy=strategy), out=tmp_path / "local", runtime={"name": "local"}).info
    assert real["status"] == "done" and real["runtime"] == "grpc" and real["clients_hash"] is None
    for key in ("model_hash", "final", "final_personal", "bytes_up", "bytes_down", "density"):
        assert real[key] == here[key], key
    for table, times in TABLES.items():
        mine, theirs = (pd.read_parquet(tmp_path / place / f"{table}.parquet") for place in ("local", "grpc"))
        pd.testing.assert_frame_equal(mine.drop(columns=times), theirs.drop(columns=times))
    assert sorted(p.name for p in (tmp_path / "grpc").iterdir()) == [
        "clients.parquet", "config.toml", "layers.parquet", "log.txt", "messages.parquet", "model.safetensors",
        "rounds.parquet", "run.json",
    ]  # fmt: skip


def test_whoever_has_no_registered_key_is_refused_and_the_run_goes_on(remote: Remote, tmp_path: Path) -> None:
    if remote.count == 0:
        ran(remote, tmp_path / "first", wanted(rounds=1))
    here, other = remote.deployment, make(tmp_path / "other", 1)
    mine = here.credentials
    assert mine is not None
    with_keys = ["--auth-supernode-private-key", str(other.nodes[0])]
    strangers = {
        "plaintext": ["--insecure"],
        "wrong-authority": ["--root-certificates", str(other.ca), *with_keys],
        "unregistered": ["--root-certificates", str(mine.ca), *with_keys],
    }
    command = here.node(0)
    rest = [*command[command.index("--superlink") :], "--max-retries", "2"]
    for name, secure in strangers.items():
        rest[rest.index("--port") + 1] = str(free_port())
        here.processes.start(name, [command[0], *secure, *rest])
    info = ran(remote, tmp_path / "run", wanted(rounds=1, eval_every=1))
    assert info["status"] == "done"
    assert (pd.read_parquet(tmp_path / "run" / "clients.parquet")["status"] == "ok").all()
    deadline = time.monotonic() + 60
    while not all(here.processes.ended(name) for name in strangers):
        assert time.monotonic() < deadline, here.processes.codes
        time.sleep(0.2)
    assert {name: here.processes.codes[name] for name in strangers} == dict.fromkeys(strangers, 1)
    server = here.processes.log("superlink").read_text()
    assert "Handshake failed" in server and "WRONG_VERSION_NUMBER" in server  # plaintext
    assert "No SuperNode found with the given public key" in server
    assert "handshake failed" in here.processes.log("wrong-authority").read_text()


def test_a_server_that_dies_fails_its_run_and_the_next_run_has_a_new_one(remote: Remote, tmp_path: Path) -> None:
    def kill(row: dict[str, Any]) -> None:
        os.kill(remote.deployment.processes.pids["superlink"], signal.SIGKILL)

    (tmp_path / "killed").mkdir()
    with pytest.raises(RunError, match="the SuperLink was ended by signal 9"):
        remote(federation(wanted(rounds=500).to_toml()), tmp_path / "killed", "test", kill)
    info = json.loads((tmp_path / "killed" / "run.json").read_text())
    assert info["status"] == "failed" and len(fs.load(tmp_path / "killed").rounds) >= 1
    assert ran(remote, tmp_path / "next", wanted(rounds=1, eval_every=1))["status"] == "done"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_what_is_on_the_socket(tls: bool, tmp_path: Path) -> None:
    proxy = Proxy()
    here = Deployment(tmp_path / "flower", 1, tls=tls, via={0: f"127.0.0.1:{proxy.port}"})
    proxy.target = here.fleet
    # An MLP of 1.2 MB, so that the payload is what travels.
    big = wanted(clients=1, rounds=1, model={"name": "mlp", "hidden": [16000]})
    remote = Remote(lambda: here)
    try:
        before = None

        def seen(row: dict[str, Any]) -> None:
            nonlocal before
            before = proxy.total()

        path = tmp_path / "run"
        path.mkdir()
        began = time.monotonic()
        remote(federation(big.to_toml()), path, "test", seen)
        up, down = proxy.total()
        took = time.monotonic() - began
        idle = proxy.idle(6.0)
    finally:
        here.close()
        proxy.close()
    sent = pd.read_parquet(path / "messages.parquet").groupby("direction")["bytes"].sum()
    assert sent["up"] > 1_000_000 and sent["down"] > 2_000_000  # the evaluation's reply is short
    assert (up - idle[0] * took) / sent["up"] == pytest.approx(1, abs=0.05)
    assert (down - idle[1] * took) / sent["down"] == pytest.approx(1, abs=0.05)
    readable = [b"PRI * HTTP/2.0", b"flwr.proto.Fleet", b"fedsparse/1", b"FSPC", b"hidden.0.weight"]
    found = {word: word in bytes(proxy.up) or word in bytes(proxy.down) for word in readable}
    assert bytes(proxy.up[:14]) == b"PRI * HTTP/2.0" or tls
    if tls:
        assert not any(found.values()), found
        assert proxy.up[0] == 0x16  # a TLS handshake record
    else:
        assert found[b"flwr.proto.Fleet"] or found[b"PRI * HTTP/2.0"]
        assert found[b"FSPC"]


# ---- the command ----


def command(tmp_path: Path, *arguments: str, **changes: Any) -> list[str]:
    config = tmp_path / "real.toml"
    config.write_text(wanted(**changes).to_toml())
    return [sys.executable, "-m", "fedsparse", "run", str(config), "--out", str(tmp_path / "run"), *arguments]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes under /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_driver_that_is_ended_in_mid_round_leaves_no_process(number: signal.Signals, tmp_path: Path) -> None:
    driver = subprocess.Popen(
        command(tmp_path, "--quiet", rounds=500), cwd=tmp_path, text=True, stderr=subprocess.PIPE,
        preexec_fn=heed,
    )  # fmt: skip
    try:
        rows, deadline = tmp_path / "run" / "rounds.jsonl", time.monotonic() + 200
        while not rows.exists():
            assert driver.poll() is None, driver.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        started = mentioning(str(tmp_path))
        assert len([line for line in started.values() if "flower-supernode" in line]) == 2
        secrets = tmp_path / "run" / "flower" / "credentials"
        assert len(list(secrets.glob("node-*"))) == 4
        for path in [secrets.parent, secrets, *secrets.iterdir(), *secrets.parent.glob("node-?")]:
            assert path.stat().st_mode & 0o077 == 0, path
        driver.send_signal(number)
        _, err = driver.communicate(timeout=60)
    finally:
        driver.kill()
    assert driver.returncode == 130, err
    assert "interrupted" in err and "Traceback" not in err
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["status"] == "interrupted"
    assert len(fs.load(tmp_path / "run").rounds) >= 1
    deadline = time.monotonic() + 10
    while (left := {pid for pid in started if pid in mentioning(str(tmp_path))}) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, [started[pid] for pid in left]


def test_a_driver_that_is_killed_takes_all_with_it(tmp_path: Path) -> None:
    driver = subprocess.Popen(command(tmp_path, "--quiet", rounds=500), cwd=tmp_path)
    deadline = time.monotonic() + 100
    while not (tmp_path / "run" / "flower" / "node-1.log").exists():
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    driver.kill()
    driver.wait(10)
    deadline = time.monotonic() + 20
    while (left := mentioning(str(tmp_path))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def test_a_taken_port_is_one_sentence_and_exit_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            command(tmp_path, "--set", f"runtime.port={port}"), cwd=tmp_path, capture_output=True, text=True
        )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        f"error: runtime.port = {port} cannot be used (Address already in use): "
        "take another one, or 0 for any free one."
    ]
    assert not (tmp_path / "run").exists()


def test_clients_that_do_not_come_in_time_end_the_run_with_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, "--quiet", "--set", "runtime.connect=0.5", rounds=1), cwd=tmp_path, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: 0 of 2 clients were there after runtime.connect = 0.5 seconds")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["status"] == "failed" and "0 of 2 clients" in info["why"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

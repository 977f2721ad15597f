"""Real clients over gRPC: Flower's stock processes, on this machine."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from deploy.proxy import Proxy
from deploy.seen import heed, mentioning
from federations import small

import fedsparse as fs
from fedsparse.deploy.credentials import Credentials, make
from fedsparse.deploy.deployment import Deployment
from fedsparse.experiment import Experiment
from fedsparse.federation import federation
from fedsparse.flower.grpc import Remote

pytestmark = pytest.mark.grpc
TABLES = {"messages": [], "clients": ["seconds"], "rounds": ["seconds"], "layers": []}


FEW = f"{Path(__file__).with_name('few.py')}:Few"


def wanted(**changes: Any) -> Experiment:
    fixed = {"dataset": FEW, "clients": 2, "eval_every": 3, "train": {"batch_size": 16}, "runtime": {"name": "grpc"}}
    return small(**{**fixed, **changes})


STRATEGIES = ("fedavg", "feddip", "personalized_masks")


def ran(remote: Remote, path: Path, experiment: Experiment) -> dict[str, Any]:
    path.mkdir()
    return remote(federation(experiment.to_toml()), path, "test")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run folder of each strategy, from deployments side by side: most of their time is Flower's waiting."""
    home = tmp_path_factory.mktemp("grpc")
    built = {strategy: federation(wanted(strategy=strategy).to_toml()) for strategy in STRATEGIES}

    def run(strategy: str) -> Path:
        remote = Remote(lambda: Deployment(home / f"{strategy}-flower", 2))
        (home / strategy).mkdir()
        try:
            remote(built[strategy], home / strategy, "test")
        finally:
            remote.close()
        return home / strategy

    with ThreadPoolExecutor(len(STRATEGIES)) as pool:
        return dict(zip(STRATEGIES, pool.map(run, STRATEGIES), strict=True))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_result_is_that_of_local(strategy: str, real: dict[str, Path], tmp_path: Path) -> None:
    here = fs.run(wanted(strategy=strategy), out=tmp_path / "local", runtime={"name": "local"}).info
    there = fs.load(real[strategy]).info
    assert there["status"] == "done" and there["runtime"] == "grpc" and there["clients_hash"] is None
    for key in ("model_hash", "final", "final_personal", "bytes_up", "bytes_down", "density"):
        assert there[key] == here[key], key
    for table, times in TABLES.items():
        mine, theirs = (pd.read_parquet(place / f"{table}.parquet") for place in (tmp_path / "local", real[strategy]))
        pd.testing.assert_frame_equal(mine.drop(columns=times), theirs.drop(columns=times))
    assert sorted(p.name for p in real[strategy].iterdir()) == [
        "clients.parquet", "config.toml", "layers.parquet", "log.txt", "messages.parquet", "model.safetensors",
        "rounds.parquet", "run.json",
    ]  # fmt: skip


class Run:
    """One client, some 2 MB a payload, a proxy between it and the server; with TLS, strangers at the server's door."""

    def __init__(self, tls: bool, folder: Path) -> None:
        self.tls, self.folder, self.proxy = tls, folder, Proxy()
        self.here = Deployment(folder / "flower", 1, tls=tls, via={0: f"127.0.0.1:{self.proxy.port}"})
        self.proxy.target = self.here.fleet
        try:
            self.here.start()
            if tls:
                self._knock(make(folder / "other", 1))
            began = time.monotonic()
            experiment = wanted(clients=1, rounds=1, model={"name": "mlp", "hidden": [32000]})
            self.info = ran(Remote(lambda: self.here), folder / "run", experiment)
            self.seen, self.took = self.proxy.total(), time.monotonic() - began
            self.idle = self.proxy.idle(6.0)
            deadline = time.monotonic() + 60
            while tls and not all(self.here.processes.ended(name) for name in STRANGERS):
                assert time.monotonic() < deadline, self.here.processes.codes
                time.sleep(0.2)
        finally:
            self.here.close()
            self.proxy.close()

    def _knock(self, other: Credentials) -> None:
        assert self.here.credentials is not None
        key = ["--auth-supernode-private-key", str(other.nodes[0])]
        command = self.here.node(0)
        rest = [*command[command.index("--superlink") :], "--max-retries", "2"]
        rest[1] = f"127.0.0.1:{self.here.fleet}"
        for name, secure in zip(
            STRANGERS,
            (
                ["--insecure"],
                ["--root-certificates", str(other.ca), *key],
                ["--root-certificates", str(self.here.credentials.ca), *key],
            ),
            strict=True,
        ):
            rest[rest.index("--port") + 1] = str(free_port())
            self.here.processes.start(name, [command[0], *secure, *rest])

    def said(self, process: str) -> str:
        return self.here.processes.log(process).read_text()


STRANGERS = ("plaintext", "wrong-authority", "unregistered")


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "tls"])
def watched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(request.param, tmp_path_factory.mktemp("watched"))


def test_the_ledger_agrees_with_the_socket(watched: Run) -> None:
    sent = pd.read_parquet(watched.folder / "run" / "messages.parquet").groupby("direction")["bytes"].sum()
    assert sent["up"] > 1_000_000 and sent["down"] > 2_000_000  # the evaluation's reply is short
    for way, seen, idle in zip(("up", "down"), watched.seen, watched.idle, strict=True):
        assert (seen - idle * watched.took) / sent[way] == pytest.approx(1, abs=0.05), way


def test_what_is_on_the_socket(watched: Run) -> None:
    up, both = bytes(watched.proxy.up), bytes(watched.proxy.up + watched.proxy.down)
    readable = [b"PRI * HTTP/2.0", b"flwr.proto.Fleet", b"fedsparse/1", b"FSPC", b"hidden"]
    if watched.tls:
        assert [word for word in readable if word in both] == []
        assert up[0] == 0x16  # a TLS handshake record
    else:
        assert up.startswith(b"PRI * HTTP/2.0")
        assert b"FSPC" in both


def test_whoever_has_no_registered_key_is_refused_and_the_run_goes_on(watched: Run) -> None:
    assert watched.info["status"] == "done"
    assert (pd.read_parquet(watched.folder / "run" / "clients.parquet")["status"] == "ok").all()
    if not watched.tls:
        return  # then anyone may come
    assert {name: watched.here.processes.codes[name] for name in STRANGERS} == dict.fromkeys(STRANGERS, 1)
    assert "Handshake failed" in watched.said("superlink") and "WRONG_VERSION_NUMBER" in watched.said("superlink")
    assert "No SuperNode found with the given public key" in watched.said("superlink")
    assert "handshake failed" in watched.said("wrong-authority")


# ---- the command ----


def command(tmp_path: Path, *arguments: str, **changes: Any) -> list[str]:
    config = tmp_path / "real.toml"
    config.write_text(wanted(**changes).to_toml())
    return [sys.executable, "-m", "fedsparse", "run", str(config), "--out", str(tmp_path / "run"), *arguments]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes under /proc")
def test_a_driver_that_is_ended_in_mid_round_leaves_no_process(tmp_path: Path) -> None:
    drivers = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        place = tmp_path / number.name
        place.mkdir()
        asked = command(place, "--quiet", rounds=500)
        drivers[number] = subprocess.Popen(asked, cwd=place, text=True, stderr=subprocess.PIPE, preexec_fn=heed)
    try:
        for number, driver in drivers.items():
            ended(driver, number, tmp_path / number.name)
    finally:
        for driver in drivers.values():
            driver.kill()


def ended(driver: subprocess.Popen[str], number: signal.Signals, place: Path) -> None:
    rows, deadline = place / "run" / "rounds.jsonl", time.monotonic() + 200
    while not rows.exists():
        assert driver.poll() is None, driver.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    started = mentioning(str(place))
    assert len([line for line in started.values() if "flower-supernode" in line]) == 2
    secrets = place / "run" / "flower" / "credentials"
    assert len(list(secrets.glob("node-*"))) == 4
    for path in [secrets.parent, secrets, *secrets.iterdir(), *secrets.parent.glob("node-?")]:
        assert path.stat().st_mode & 0o077 == 0, path
    driver.send_signal(number)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 130, err
    assert "interrupted" in err and "Traceback" not in err
    info = json.loads((place / "run" / "run.json").read_text())
    assert info["status"] == "interrupted"
    assert len(fs.load(place / "run").rounds) >= 1
    deadline = time.monotonic() + 10
    while (left := {pid for pid in started if pid in mentioning(str(place))}) and time.monotonic() < deadline:
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

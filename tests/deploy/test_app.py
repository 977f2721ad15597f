"""The app for `flwr run`: what is in the repository is what the command writes, and it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from deploy.seen import mentioning

import fedsparse as fs
from fedsparse.cli import main
from fedsparse.deploy import bundle
from fedsparse.deploy.deployment import ENVIRONMENT, program

APP = Path(__file__).resolve().parents[2] / "docs" / "flower-app"


def test_it_is_what_the_command_writes_and_carries_no_code(tmp_path: Path) -> None:
    assert main(["deploy", "app", str(tmp_path / "app")]) == 0
    written = {path.name: path.read_text() for path in (tmp_path / "app").iterdir()}
    assert written == {path.name: path.read_text() for path in APP.iterdir()}
    assert set(written) == {"pyproject.toml", "README.md"}


def test_it_names_functions_that_are_there() -> None:
    import importlib
    import tomllib

    parts = tomllib.loads(bundle.PROJECT)["tool"]["flwr"]["app"]["components"]
    for name in parts.values():
        module, _, thing = name.partition(":")
        assert hasattr(importlib.import_module(module), thing)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["deploy", "app", "."], "exists: name a folder that does not"),
        (["deploy", "keys", "no/such"], "is not there"),
        (["deploy", "keys", "lab", "--host", "a b"], '"a b" is no name or address'),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error and len(error.strip().splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_keys_come_with_a_home_for_the_command_flwr(tmp_path: Path) -> None:
    assert main(["deploy", "keys", str(tmp_path / "lab"), "--clients", "3"]) == 0
    assert len(list((tmp_path / "lab").glob("node-*.pub"))) == 3
    home = (tmp_path / "lab" / "home" / "config.toml").read_text()
    assert 'address = "127.0.0.1:8000"' in home and str(tmp_path / "lab" / "ca.crt") in home


@pytest.mark.slow
@pytest.mark.grpc
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="ends Flower's daemon by what it finds under /proc")
def test_flowers_own_simulation_engine_runs_it(tmp_path: Path) -> None:
    out = tmp_path / "run"
    home = {"FLWR_HOME": str(tmp_path / "home"), "RAY_USAGE_STATS_ENABLED": "0", "HOME": str(tmp_path)}
    asked = f'config="quickstart" strategy="feddip" rounds=2 clients=3 eval_every=2 out="{out}"'
    app = tmp_path / "app"
    bundle.write(app, bundle.DEFAULTS | {"eval_every": 1})
    command = [program("flwr"), "run", str(app), "--stream", "--federation-config", "num-supernodes=3"]
    path = f"{Path(program('flwr')).parent}{os.pathsep}{os.environ['PATH']}"
    try:
        subprocess.run(
            [*command, "--run-config", asked], cwd=tmp_path, env={**os.environ, **ENVIRONMENT, **home, "PATH": path},
            capture_output=True, timeout=240,
        )  # fmt: skip
    finally:  # its SuperLink is a daemon
        for pid in mentioning(str(tmp_path)):
            os.kill(pid, signal.SIGKILL)
    real = json.loads((out / "run.json").read_text())
    assert real["status"] == "done", real["why"]
    here = fs.run(
        "quickstart", strategy="feddip", rounds=2, clients=3, eval_every=2, runtime="local", out=tmp_path / "here"
    )
    assert real["model_hash"] == here.info["model_hash"]
    assert real["bytes_up"] == here.info["bytes_up"] and real["bytes_down"] == here.info["bytes_down"]

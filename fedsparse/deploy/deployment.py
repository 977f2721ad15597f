"""A SuperLink and SuperNodes on this machine, as stock processes, speaking gRPC over TLS with a key for each node."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fedsparse.deploy import bundle, credentials
from fedsparse.deploy.processes import Processes
from fedsparse.errors import InputError, RunError

HOST = "127.0.0.1"
START = 60.0  # seconds that the SuperLink has to open its ports, and a command of Flower to answer
AGAIN = 5.0  # seconds until a SuperNode that ended is started anew
POLL = 0.1
COMMANDS = ("flwr", "flower-superlink", "flower-supernode", "flower-superexec", "flwr-serverapp", "flwr-clientapp")
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}


class Deployment:
    """From `start` to `close`, `clients` SuperNodes are connected to a SuperLink; `submit` runs an app on them.

    Making one raises InputError where something is missing or taken, and writes nothing. Everything lies in `folder`,
    which is new and readable by its owner alone: credentials, logs, Flower's own files, what each client keeps. `port`
    is where clients connect (0: any free one), `data` the folder with data sets that each client reads, or with a
    folder `client-N` for each. `tls = False` leaves TLS and keys out, for tests that look at the bytes; `via` puts
    something between a client and the server: its address by client.
    """

    def __init__(
        self, folder: Path, clients: int, *, port: int = 0, data: Path | None = None, tls: bool = True,
        via: Mapping[int, str] | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.clients, self.data, self.tls, self.via = folder, clients, data, tls, dict(via or {})
        self.nodes: dict[int, int] = {}  # client -> id of its SuperNode, where keys tell them apart
        self.home = folder / "home"
        self.credentials: credentials.Credentials | None = None
        for command in COMMANDS:
            program(command)
        if tls:
            credentials.check()
        for path in (folder, data):
            if '"' in str(path):  # Flower's way to write a node's config has no word for it
                raise InputError(f"The path {path} has a quotation mark in it, which Flower cannot pass on.")
        self.started = self.closed = False
        self.processes = Processes(folder, self._environment())
        self.fleet, self.control = _port(port), _port(0)

    def start(self) -> None:
        """Start all processes; RunError when the SuperLink does not come up."""
        self.started = True
        self.folder.mkdir(mode=0o700)
        made = credentials.make(self.folder / "credentials", self.clients) if self.tls else None
        self.credentials = made
        bundle.connection(self.home, f"{HOST}:{self.control}", made.ca if made else None)
        self.processes.open()
        try:
            self._start_server()
            if made is not None:
                with ThreadPoolExecutor(os.cpu_count()) as pool:
                    self.nodes = dict(enumerate(pool.map(self._register, made.nodes)))
            for client in range(self.clients):
                self.processes.start(f"node-{client}", self.node(client), again=AGAIN)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End every process."""
        self.closed = True
        self.processes.close()

    # ---- the app ----

    def submit(self, name: str, config: Mapping[str, str | int | float]) -> Callable[[], bool]:
        """Run the app with this run config; what is returned says whether it goes on."""
        app = self.folder / name
        bundle.write(app, dict.fromkeys(config, ""))
        asked = self.folder / f"{name}.toml"
        lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in config.items()]
        asked.write_text("".join(lines), encoding="utf-8")
        self.processes.start(name, [program("flwr"), "run", str(app), "--stream", "--run-config", str(asked)])
        return lambda: not self.processes.ended(name) and not self.processes.ended("superlink")

    def why(self, name: str) -> str:
        """What Flower said last about a run that did not get to say it itself."""
        if self.processes.ended("superlink"):
            code = self.processes.codes.get("superlink")
            how = f"was ended by signal {-code}" if code and code < 0 else f"ended with exit code {code}"
            return f"the SuperLink {how}; its last words: {_last(self.processes.log('superlink'))}"
        try:
            runs = json.loads(self._flwr("list", "--format", "json"))["runs"]
            last = max(runs, key=lambda run: str(run.get("created-at", "")))
            return f"the run is {last['status']}: {last.get('status-details') or 'no reason is given'}"
        except (RunError, ValueError, KeyError):
            return _last(self.processes.log(name))

    # ---- processes ----

    def node(self, client: int) -> list[str]:
        """The command of a client's SuperNode."""
        told = {"partition-id": client, "state": str(self.folder / f"node-{client}")}
        if self.data is not None:
            own = self.data.absolute() / f"client-{client}"
            told["data"] = str(own if own.is_dir() else own.parent)
        secure, made = ["--insecure"], self.credentials
        if made is not None:
            secure = ["--root-certificates", str(made.ca), "--auth-supernode-private-key", str(made.nodes[client])]
        return [
            program("flower-supernode"), *secure, "--superlink", self.via.get(client, f"{HOST}:{self.fleet}"),
            "--port", str(_port(0)), "--node-config", " ".join(f"{k}={json.dumps(v)}" for k, v in told.items()),
        ]  # fmt: skip

    def _start_server(self) -> None:
        made = self.credentials
        secure, trusting = ["--insecure"], ["--insecure"]
        if made is not None:
            secure = ["--ssl-ca-certfile", str(made.ca), "--ssl-certfile", str(made.certificate),
                      "--ssl-keyfile", str(made.key), "--enable-supernode-auth"]  # fmt: skip
            trusting = ["--root-certificates", str(made.ca)]
        self.processes.start("superlink", [
            "env", "GRPC_VERBOSITY=INFO",  # a refused handshake is logged
            program("flower-superlink"), *secure, "--port", str(self.control),
            "--fleet-api-address", f"{HOST}:{self.fleet}", "--isolation", "process",
        ])  # fmt: skip
        deadline = time.monotonic() + START
        while not (_open(self.fleet) and _open(self.control)):
            if self.processes.ended("superlink") or time.monotonic() > deadline:
                raise RunError(f"the SuperLink did not start; its last words: {_last(self.processes.log('superlink'))}")
            time.sleep(POLL)
        # Started by the SuperLink itself, it would leave our process group.
        self.processes.start(
            "superexec", [program("flower-superexec"), *trusting, "--runtime-api-address", f"{HOST}:{self.control}"]
        )

    def _register(self, key: Path) -> int:
        """The id of the SuperNode that holds this key."""
        said = self._flwr("supernode", "register", f"{key}.pub", "--name", key.name, "--format", "json")
        return int(json.loads(said)["node-id"])

    def _flwr(self, *arguments: str) -> str:
        command = [program("flwr"), *arguments]
        try:
            done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, timeout=START)
        except subprocess.TimeoutExpired:
            raise RunError(f"flwr {' '.join(arguments[:2])} did not answer within {START:g} s") from None
        if done.returncode:
            raise RunError(f"flwr {' '.join(arguments[:2])} failed: {_words(done.stderr or done.stdout)}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        scripts = str(Path(program("flwr")).parent)
        path = os.pathsep.join([scripts, os.environ.get("PATH", "")])  # Flower looks for its commands there
        near = {name: f"{HOST},localhost" for name in ("no_proxy", "NO_PROXY")}
        return {**os.environ, **ENVIRONMENT, **near, "PATH": path, "FLWR_HOME": str(self.home)}


def program(name: str) -> str:
    """The path of one of Flower's commands: beside this Python, else where PATH has it."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise InputError(f"Flower's command {name} is not installed beside this Python: pip install flwr.")
    return found


def _port(wanted: int) -> int:
    """A port of the loopback interface that is free now; InputError when the wanted one is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError as error:
            raise InputError(
                f"runtime.port = {wanted} cannot be used ({error.strerror}): take another one, or 0 for any free one."
            ) from None
        return int(probe.getsockname()[1])


def _open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def _last(log: Path) -> str:
    return _words(log.read_text(encoding="utf-8", errors="replace") if log.is_file() else "")


def _words(text: str) -> str:
    """The last line that says anything, without colours."""
    lines = [line.strip(" │╭╮╰╯─\t") for line in text.splitlines() if "uvicorn.access" not in line]
    return next((line for line in reversed(lines) if line), "nothing was said")

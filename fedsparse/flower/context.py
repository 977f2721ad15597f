"""What a run config and a node config mean: the experiment, and where a client's data and states lie.

Run config, of the whole run: `experiment`, the text of one; or `config`, a path or a shipped name, with changes:
`set = "a.b=1 c=2"`, and any other key as in a config (`strategy = "feddip"`, `rounds = 3`), as far as the app declares
it. `out` is the run's folder, `nodes` which node is which client.
Node config, of one client: `partition-id`, which client it is; `data`, the folder with its data sets; `state`, the
folder for what it keeps between rounds.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context

import fedsparse
from fedsparse import codec
from fedsparse.errors import InputError, RunError
from fedsparse.experiment import Experiment
from fedsparse.federation import Federation, federation

CALL = "call"  # the record of the roll call
RUN_KEYS = ("experiment", "config", "set", "out", "label", "nodes", "command", "stores")


def experiment_text(config: Mapping[str, Any]) -> str:
    """The text of the experiment that a run config asks for; InputError when it asks for none."""
    if config.get("experiment"):
        return str(config["experiment"])
    if not config.get("config"):
        raise InputError('The run config has no key config: it names a config, such as config = "quickstart".')
    changes = [f"{key}={_toml(value)}" for key, value in config.items() if key not in RUN_KEYS and value != ""]
    changes += shlex.split(str(config.get("set", "")))
    return Experiment.load(str(config["config"]), [*changes, "runtime.name=grpc"]).to_toml()


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def home(context: Context) -> tuple[Federation, Path | None]:
    """The federation that a client is part of, and the folder of the states."""
    config, node = context.run_config, context.node_config
    if "stores" in config:  # a simulation: all clients' states lie together, if anywhere
        return federation(str(config["experiment"])), Path(str(config["stores"])) if config["stores"] else None
    torch.set_num_threads(1)
    if "data" in node:
        os.environ["FEDSPARSE_DATA"] = str(node["data"])
    text = experiment_text(config)
    state = Path(str(node.get("state", "~/.cache/fedsparse/clients"))).expanduser()
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    state /= f"{hashlib.sha256(text.encode()).hexdigest()[:16]}-{context.run_id}"
    state.mkdir(mode=0o700, exist_ok=True)
    return federation(text, state / "split.npz", client_number(context)), state


def client_number(context: Context) -> int:
    """Which client this is; RunError when its node config does not say."""
    found = context.node_config.get("partition-id")
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise RunError(f"the node config must have partition-id, the client's number from 0, not {found!r}")
    return found


def present(built: Federation) -> dict[str, str]:
    """What server and clients must have alike: versions, the experiment as each of them resolves it, and shapes."""
    return {
        "fedsparse": fedsparse.__version__,
        "the wire format": codec.FORMAT,
        "the experiment's hash": built.experiment.hash(),
        "inputs of the shape": str(built.data.shape),
        "as outputs": str(built.data.outputs),
    }


def numbered(config: Mapping[str, Any]) -> dict[int, int]:
    """Client numbers to node ids, of the run config's key `nodes`: "0:123 1:456". Empty where nobody knows them."""
    said = str(config.get("nodes", ""))
    try:
        return {int(client): int(node) for client, node in (part.split(":") for part in said.split())}
    except ValueError:
        raise InputError(
            f'The key nodes must be client numbers and node ids, such as "0:123 1:456", not "{said}".'
        ) from None

"""Names that people and scripts rely on: a config's keys and defaults, commands, options. A change is a break."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from typer.main import get_command

from fedsparse import registry, settings
from fedsparse.cli import app
from fedsparse.experiment import Experiment

DEFAULTS = {
    "rounds": 40,
    "clients": 20,
    "clients_per_round": "all",
    "seed": 0,
    "eval_every": 1,
    "local_bn": False,
    "partition.name": "dirichlet",
    "partition.validation": 0.1,
    "partition.test": 0.2,
    "partition.alpha": 0.3,
    "partition.min_samples": 10,
    "strategy.name": "fedavg",
    "train.epochs": 1,
    "train.batch_size": 32,
    "train.optimizer": "sgd",
    "train.lr": 0.05,
    "train.momentum": 0.0,
    "train.weight_decay": 0.0,
    "train.lr_decay": 1.0,
    "train.clip": 0.0,
    "wire.values": "fp32",
    "wire.references": True,
    "wire.history": 4,
    "devices.default.share": 1.0,
    "devices.default.memory": 0.0,
    "devices.default.dropout": 0.0,
    "devices.default.sparse_kernels": False,
    "devices.default.spread": 1.0,
    "devices.default.profile": "",
    "devices.default.availability": "always",
    "devices.default.csv": "",
    "devices.default.trace": "",
    "clock.deadline": 0.0,
    "clock.over_selection": 0.0,
    "clock.minimum": 1,
    "runtime.name": "ray",
    "runtime.workers": 0,
    "runtime.device": "auto",
    "runtime.client_gpus": 0.0,
    "compare.seeds": 3,
    "compare.strategies": [],
    "compare.budget": "",
}
WITHOUT_A_PINNED_DEFAULT = {
    "dataset.name",
    "model.name",
    "devices.default.flops",
    "devices.default.down",
    "devices.default.up",
    "devices.default.latency",
    "runtime.ray_address",
    "runtime.port",
    "runtime.connect",
    "runtime.reply",
}
STRATEGIES = {
    "feddip": {
        "density": 0.1,
        "start": 0.5,
        "reach": 0.75,
        "every": 1,
        "uplink": "masked",
        "residual_share": 0.02,
        "residual_decay": 1.0,
        "penalty": 1e-3,
    },
    "personalized_masks": {"density": 0.2, "prune_share": 0.415, "first": 0.075, "interval": 0.2},
}
RUN = {"--set", "--seed", "--runtime", "--workers", "--clients", "--ray-address", "--out", "--json", "--quiet"}
COMMANDS = {
    "run": RUN,
    "compare": RUN | {"--strategies", "--seeds", "--resume"},
    "list": {"--json"},
    "show": {"--out"},
    "report": {"--out", "--devices"},
}


def test_keys_and_defaults():
    experiment = Experiment.load({"dataset": "digits", "model": "mlp"})
    found = settings.flat(experiment.table())
    own = {f"model.{option}" for option in experiment.model.options} | {
        f"dataset.{option}" for option in experiment.dataset.options
    }
    assert set(found) - own == set(DEFAULTS) | WITHOUT_A_PINNED_DEFAULT
    assert {key: found[key] for key in DEFAULTS} == DEFAULTS


def test_other_partitions():
    options = Experiment.load({"dataset": "digits", "model": "mlp", "partition": "pathological"}).partition.options
    assert options == {"classes": 2, "min_samples": 10}
    assert Experiment.load({"dataset": "digits", "model": "mlp", "partition": "iid"}).partition.options == {}


@pytest.mark.parametrize("name", STRATEGIES)
def test_options_of_strategies(name):
    options = Experiment.load({"dataset": "digits", "model": "mlp", "strategy": name}).strategy.options
    assert {key: options.get(key) for key in STRATEGIES[name]} == STRATEGIES[name]


def test_uplinks():
    kind = registry.find("strategies", "feddip")
    for uplink in ("dense", "masked", "masked_residual", "topk"):
        assert kind(uplink=uplink).uplink == uplink


def test_commands_and_their_options():
    commands = get_command(app).commands
    assert set(COMMANDS) <= set(commands)
    for name, options in COMMANDS.items():
        assert options <= {text for parameter in commands[name].params for text in parameter.opts}, name


def test_kinds():
    assert registry.KINDS == ("strategies", "datasets", "models", "partitions", "sparsifiers", "configs")


def test_the_command_is_the_entry_point():
    scripts = [point.value for point in entry_points(group="console_scripts") if point.name == "fedsparse"]
    assert scripts in ([], ["fedsparse.cli:main"]), "[] in a source tree that is not installed"


def test_the_command_line_imports_nothing_large():
    code = "import sys, fedsparse.cli; print(sorted({'torch', 'numpy', 'flwr', 'ray', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"

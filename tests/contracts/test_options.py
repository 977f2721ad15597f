"""What the options of every plug-in keep to: described, valid by default, the same after a trip through text."""

import pytest

from fedsparse import registry
from fedsparse.experiment import Experiment
from fedsparse.options import Options
from fedsparse.settings import PLUGS

BASE = {"dataset": "digits", "model": "mlp"}
EVERY = [(key, name) for key, kind in PLUGS.items() for name in registry.names(kind)]


def test_there_are_plugins_of_every_kind():
    assert {key for key, _ in EVERY} == set(PLUGS)
    assert {"fedavg", "feddip", "personalized_masks"} <= {name for key, name in EVERY if key == "strategy"}
    assert registry.names("sparsifiers")


@pytest.mark.parametrize(("key", "name"), EVERY)
def test_the_options_of(key, name):
    kind = registry.find(PLUGS[key], name)
    assert issubclass(kind, Options) and kind.model_config["extra"] == "forbid" and kind.model_config["frozen"]
    for option, field in kind.model_fields.items():
        assert field.description, f"{option} has no line of its own"
        assert option != "name" and not option.startswith("_")
    if any(field.is_required() for field in kind.model_fields.values()):
        pytest.skip(f"{name} has options without a default")
    experiment = Experiment.load(BASE | {key: name})
    chosen = getattr(experiment, key)
    assert chosen.build() == kind()
    assert set(chosen.options) <= set(kind.model_fields)
    assert Experiment.load(experiment.to_toml()) == experiment


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in registry.KINDS for name in registry.names(kind)])
def test_everything_has_a_summary(kind, name):
    summary = registry.summary(kind, name)
    assert summary and "\n" not in summary and summary[0].isupper(), f"{kind} {name}: {summary!r}"

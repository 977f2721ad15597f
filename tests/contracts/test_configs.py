"""What every shipped config keeps to."""

import pytest

from fedsparse import registry
from fedsparse.experiment import Experiment

NAMES = registry.names("configs")


def test_there_are_configs():
    assert {"quickstart", "fashion_mnist"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_config(name):
    assert registry.summary("configs", name), "the first line is a comment that says what the config is"
    experiment = Experiment.load(name)
    assert experiment == Experiment.load(registry.find("configs", name))
    text = experiment.to_toml()
    assert Experiment.load(text) == experiment and Experiment.load(text).to_toml() == text
    assert "fedavg" in experiment.variants()
    for label, variant in experiment.variants().items():
        assert Experiment.load(variant.to_toml()) == variant
        assert isinstance(experiment.overrides(label), str)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_holds_only_what_differs(name):
    import tomllib

    from fedsparse import settings

    written = settings.flat(tomllib.loads(registry.find("configs", name).read_text(encoding="utf-8")))
    named = {f"{plug}.name" for plug in settings.PLUGS}
    # What a reader looks for first may be repeated.
    named |= {"rounds", "clients", "partition.alpha", "train.lr", "compare.seeds"}
    bare = Experiment.load({"dataset": written["dataset.name"], "model": written["model.name"]})
    defaults = settings.flat(bare.table())
    assert [key for key, value in written.items() if key not in named and defaults.get(key) == value] == []

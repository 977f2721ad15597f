"""Experiments: what is accepted, what is refused and how it is said, and that text and experiment are one."""

import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsparse import settings
from fedsparse.errors import InputError
from fedsparse.experiment import Experiment

BASE = {"dataset": "digits", "model": "mlp"}

MINE = """
from fedsparse.strategies.fedavg import FedAvg

class Mine(FedAvg):
    '''Mine: FedAvg with an option.'''
    strength: float = 1.0
    '''How strong.'''
"""


def load(*sets, **overrides):
    return Experiment.load(BASE, sets, **overrides)


def refused(*sets, source=BASE, **overrides):
    with pytest.raises(InputError) as caught:
        Experiment.load(source, sets, **overrides)
    message = str(caught.value)
    assert "\n" not in message and message.endswith("."), message
    return message


# ---- changes ----


def test_a_name_alone_is_a_plugin():
    assert load("strategy=feddip") == load(strategy="feddip") == load("strategy.name=feddip")
    assert load(strategy={"name": "feddip"}) == load(**{"strategy.name": "feddip"})
    assert load("strategy=feddip").strategy.options["density"] == 0.1


def test_values_have_toml_syntax_and_bare_words_are_strings():
    experiment = load("rounds=7", "local_bn = true", "train.lr=1e-2", "model.hidden=[3, 4]", "train.optimizer=adam")
    assert (experiment.rounds, experiment.local_bn, experiment.train.lr) == (7, True, 0.01)
    assert experiment.model.options["hidden"] == [3, 4]
    assert load("train.lr=.5").train.lr == 0.5
    assert load('train.optimizer="adam"') == load("train.optimizer=adam")


def test_a_new_name_drops_the_options_of_the_old_one():
    first = Experiment.load(BASE | {"strategy": {"name": "feddip", "density": 0.3, "uplink": "topk"}})
    other = Experiment.load(first, ["strategy=personalized_masks"])
    assert other.strategy == load("strategy=personalized_masks").strategy
    same = Experiment.load(first, ["strategy=feddip"])
    assert same == first
    # whatever the order on the command line
    assert load("strategy.density=0.3", "strategy=feddip") == load("strategy=feddip", "strategy.density=0.3")
    assert Experiment.load(first, ["strategy.density=0.2", "strategy=personalized_masks"]).strategy.options[
        "density"
    ] == 0.2  # fmt: skip


def test_a_new_partition_keeps_the_common_keys():
    first = load("partition.alpha=0.7", "partition.test=0.3")
    other = Experiment.load(first, ["partition=iid"])
    assert (other.partition.name, other.partition.test, other.partition.options) == ("iid", 0.3, {})


def test_a_natural_partition_says_how_many_clients_there_are():
    assert load("partition=natural").clients is None and load("partition=natural", "clients=7").clients == 7
    experiment = load("partition=natural", "clients_per_round=9")
    assert Experiment.load(experiment.to_toml()) == experiment and "clients =" not in experiment.to_toml()
    # A number that nobody wrote does not stand in its way; one that is written stays, to be refused with the data.
    assert Experiment.load(load(), partition="natural").clients is None
    assert Experiment.load(load("clients=7"), partition="natural").clients == 7
    assert Experiment.load(experiment, partition="iid").clients == 20
    assert load("compare.variants.n.partition=natural").variant("n").clients is None


def test_a_partitions_file_lies_beside_the_config(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    text = 'dataset.name = "digits"\nmodel.name = "mlp"\npartition = {name = "fixed", file = "rows.json"}\n'
    (tmp_path / "a" / "c.toml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path / "b")
    nowhere = Experiment.load(tmp_path / "a" / "c.toml")
    assert nowhere.partition.options["file"] == "rows.json"
    for folder, rows in {"b": "[[0]]", "a": "[[1]]"}.items():
        (tmp_path / folder / "rows.json").write_text(rows, encoding="utf-8")
        found = Experiment.load(tmp_path / "a" / "c.toml")
        assert found.partition.options["file"] == str(tmp_path / folder / "rows.json")
        assert Experiment.load(found.to_toml()) == found
    here = load("partition=fixed", "partition.file=rows.json")
    assert here.partition.options["file"] == str(tmp_path / "b" / "rows.json")
    there = load("partition=fixed", f"partition.file={tmp_path}/a/rows.json")
    assert here.hash() != there.hash()
    (tmp_path / "b" / "rows.json").write_text("[[1]]", encoding="utf-8")
    assert here.hash() == there.hash(), "of what the file holds, not of where it lies"


def test_none_goes_back_to_the_default():
    assert Experiment.load(load(rounds=3, train={"lr": 0.9}), rounds=None, train={"lr": None}) == load()


def test_numbers_of_numpy_and_paths_are_fine():
    assert load(rounds=np.int64(3), train={"lr": np.float64(0.1)}) == load("rounds=3", "train.lr=0.1")


def test_an_experiment_without_changes_is_itself():
    experiment = load()
    assert Experiment.load(experiment) is experiment


# ---- sources ----


def test_a_path_a_name_and_text_are_the_same(tmp_path, monkeypatch):
    named = Experiment.load("quickstart")
    path = tmp_path / "mine.toml"
    path.write_text(named.to_toml(), encoding="utf-8")
    assert Experiment.load(path) == Experiment.load(str(path)) == Experiment.load(named.to_toml()) == named
    monkeypatch.chdir(tmp_path)
    assert Experiment.load("mine.toml") == named


def test_a_folder_of_a_configs_name_does_not_hide_it(tmp_path, monkeypatch):
    (tmp_path / "quickstart").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Experiment.load("quickstart").dataset.name == "digits"


def test_files_that_are_no_configs(tmp_path):
    broken = tmp_path / "broken.toml"
    broken.write_text("rounds = 3\nseed == 4\n", encoding="utf-8")
    assert f"{broken} is not TOML" in (told := refused(source=broken)) and "line 2" in told
    broken.write_bytes(b"\xff\xfe\x00rounds")
    assert "is not TOML" in refused(source=broken)
    assert "is a folder" in refused(source=tmp_path)
    assert str(tmp_path / "no.toml") in refused(source=tmp_path / "no.toml")
    assert 'nearest is "quickstart"' in refused(source="quickstrat")
    assert "is not TOML" in refused(source="rounds = = 3\n")


def test_a_plugin_beside_its_config(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    config = tmp_path / "mine.toml"
    config.write_text(
        'dataset.name = "digits"\nmodel.name = "mlp"\nstrategy.name = "mine.py:Mine"\nstrategy.strength = 2\n', "utf-8"
    )
    experiment = Experiment.load(config)  # from another working directory
    assert experiment.strategy.name == f"{(tmp_path / 'mine.py').resolve()}:Mine"
    assert experiment.strategy.label == "Mine" and experiment.strategy.build().strength == 2.0
    assert Experiment.load(experiment.to_toml()) == experiment
    monkeypatch.chdir(tmp_path)
    assert load("strategy=mine.py:Mine", "strategy.strength=2").strategy == experiment.strategy
    assert load("compare.strategies=['mine.py:Mine']").labels() == ["fedavg", "Mine"]


# ---- what is refused ----


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (["rouns=3"], ['"rouns"', 'nearest is "rounds"', "clients_per_round", "compare"]),
        (["strategy=feddip", "strategy.densty=0.1"], ['"strategy.densty"', 'nearest is "density"', "uplink", "name"]),
        (["partition.alhpa=1"], ['nearest is "alpha"', "validation", "min_samples"]),
        (["train.learning_rate=1"], ['"train.learning_rate"', "lr_decay"]),
        (["devices.phone.shar=1"], ['"devices.phone.shar"', 'nearest is "share"', "flops"]),
        (["strategy=feddip", "strategy.density=1.5"],
         ["strategy.density must be a number greater than 0 and at most 1, not 1.5."]),
        (["strategy=feddip", "strategy.density=0"], ["strategy.density", "not 0."]),
        (["strategy=feddip", "strategy.density=nan"], ["strategy.density", "not nan."]),
        (["strategy=feddip", "strategy.uplink=sparse"], ["strategy.uplink", '"masked", "masked_residual"', '"sparse"']),
        (["rounds=0"], ["rounds must be a whole number of at least 1, not 0."]),
        (["rounds=2.5"], ["rounds must be a whole number of at least 1, not 2.5."]),
        (["rounds=true"], ["rounds", "not true"]),
        (["rounds='3'"], ["rounds", 'not "3"']),
        (["rounds.x=3"], ["rounds", "not {x = 3}"]),
        (["train=3"], ["train must be a table, not 3."]),
        (["train.lr=inf"], ["train.lr", "not inf"]),
        (["train.momentum=1"], ["train.momentum must be a number of at least 0 and less than 1, not 1."]),
        (["train.optimizer=sdg"], ["train.optimizer", 'nearest is "sgd"']),
        (["train.optimizer=lbfgs"], ["train.optimizer", "adam"]),
        (["train.optimizer=adam", "train.momentum=0.9"], ["train", "momentum", '"adam" has none']),
        (["local_bn=1"], ["local_bn must be true or false, not 1."]),
        (["model.hidden=['a']"], ["model.hidden must be a list, each item a whole number", '["a"]']),
        (["clients=0"], ["clients must be a whole number of at least 1, not 0."]),
        (["clients=5", "clients_per_round=6"], ["clients_per_round", "at most", "5", "not 6"]),
        (["clients_per_round=1.5"], ["clients_per_round", "not 1.5"]),
        (["clients_per_round=some"], ["clients_per_round", '"all"', '"some"']),
        (["partition.validation=0.5", "partition.test=0.5"], ["validation = 0.5", "test = 0.5", "less than 1"]),
        (["strategy=fedavgg"], ['no strategy "fedavgg"', 'nearest is "fedavg"', "feddip", "path/to/file.py:Name"]),
        (["dataset.name=3"], ["dataset.name must be a text, not 3", "digits"]),
        (["runtime.name=grid"], ["runtime.name", '"local", "ray"', '"grid"']),
        (["wire.values=fp8"], ["wire.values", '"fp32"']),
        (["devices.a.share=0.5", "devices.b.share=0.6"], ["shares of the devices", "1.1", "a 0.5, b 0.6"]),
        (["foo"], ["KEY=VALUE", '"foo"']),
        (["=3"], ["KEY=VALUE"]),
        (["seed=[1"], ["value of seed", "[1"]),
        (["compare.strategies=[3]"], ["compare.strategies must be a list, each item a text, not [3]."]),
        (["compare.strategies=['fedavgg']"], ["variant fedavgg", 'nearest is "fedavg"']),
        (["compare.seeds=0"], ["compare.seeds", "not 0"]),
        (["compare.variants.x.rouns=3"], ["variant x", 'nearest is "rounds"']),
        (["compare.variants.x=3"], ["compare.variants", "x"]),
        (["compare.variants.'a/b'.rounds=3"], ['"a/b"', "letters, digits"]),
        (["compare.variants.'..'.rounds=3"], ['".."', "letter or digit"]),
        (["compare.variants.fedavg.strategy=feddip"], ['"fedavg"', "is kept"]),
        (["compare.strategies=['feddip']", "compare.variants.FedDIP.rounds=3"], ["feddip", "more than once"]),
        (["compare.variants.x.compare.seeds=3"], ["cannot have a key compare"]),
        (["compare.variants.low.rounds=3", "compare.budget=lo"], ['not "lo", nearest is "low"', "fedavg, low"]),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(sets, told):
    message = refused(*sets)
    assert [part for part in told if part not in message] == [], message


def test_what_is_required_is_said():
    message = refused(source={})
    assert "dataset.name is required" in message and "digits" in message and "model.name is required" in message
    assert "rounds" in refused("rounds=0", source={}), "everything that is wrong is told at once"


def test_more_clients_than_samples_are_for_the_partition_to_refuse():
    experiment = load("clients=5000")
    with pytest.raises(InputError, match="5000"):
        experiment.partition.build().split(experiment.dataset.build().load(), experiment.clients, 0)


# ---- as text ----


def test_text_and_experiment_are_one():
    experiment = load(
        "strategy=feddip", "clients_per_round=0.5", "devices.'a b'.share=1", "partition=pathological",
        "compare.variants.'low_0.1'.strategy=feddip", "compare.variants.'low_0.1'.strategy.density=0.01",
        "compare.variants.bn.local_bn=false", "compare.strategies=['fedavg']",
    )  # fmt: skip
    text = experiment.to_toml()
    again = Experiment.load(text)
    assert again == experiment and again.to_toml() == text
    assert set(settings.flat(tomllib.loads(text))) >= {"strategy.residual_share", "train.clip", "partition.classes"}


def test_clients_per_round_keeps_its_kind():
    assert load("clients_per_round=1").cohort_size(20) == 1
    assert load("clients_per_round=1.0").cohort_size(20) == 20
    for text in ("1", "1.0", "0.25"):
        experiment = load(f"clients_per_round={text}")
        assert Experiment.load(experiment.to_toml()).cohort_size(20) == experiment.cohort_size(20)
    assert load().cohort_size(20) == 20 and load("clients_per_round=0.01").cohort_size(20) == 1
    assert load("clients_per_round=0.5").cohort_size(5) == 3, "half up"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_written_exactly(value):
    assert tomllib.loads(f"v = {settings.shown(value)}")["v"] == value


@given(st.text(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_texts_and_keys_are_written_exactly(value, key):
    value = value.encode("utf-8", "ignore").decode()
    table = {key: value, "t": {key: [value, 1], "deep": {key: {"x": True}}}}
    if key != "t":
        assert tomllib.loads(settings.emit(table)) == table


def test_the_hash_is_of_what_changes_results():
    base = load("strategy=feddip")
    assert base.hash() == Experiment.load(base, runtime={"name": "local", "workers": 3}).hash()
    assert base.hash() == Experiment.load(base, ["compare.seeds=5", "compare.strategies=['fedavg']"]).hash()
    changed = ["seed=1", "rounds=3", "strategy.density=0.2", "train.lr=0.1", "partition.alpha=1", "wire.values=fp32"]
    assert len({Experiment.load(base, [text]).hash() for text in changed}) == len(changed)


def test_the_hash_of_a_plugin_is_of_its_content(tmp_path):
    hashes = []
    for folder in ("a", "b"):
        path = tmp_path / folder / "mine.py"
        path.parent.mkdir()
        path.write_text(MINE, encoding="utf-8")
        hashes.append(load(strategy=f"{path}:Mine").hash())
    assert hashes[0] == hashes[1]
    path.write_text(MINE + "# changed\n", encoding="utf-8")
    assert load(strategy=f"{path}:Mine").hash() != hashes[0]


# ---- comparisons ----


def test_each_strategy_is_a_variant_with_its_defaults():
    experiment = load("strategy=feddip", "strategy.density=0.3", "compare.strategies=['feddip', 'personalized_masks']")
    variants = experiment.variants()
    assert list(variants) == ["fedavg", "feddip", "personalized_masks"], "fedavg is added"
    assert variants["feddip"].strategy.options["density"] == 0.3, "[strategy] applies to the strategy that it names"
    assert variants["personalized_masks"].strategy == load("strategy=personalized_masks").strategy
    assert variants["feddip"].compare == load().compare, "a variant is an experiment of its own"
    named = Experiment.load(experiment, ["compare.budget=feddip"]).variant("fedavg").compare
    assert named == load("compare.budget=feddip").compare, "but for the budget, which reports of it need"
    assert experiment.overrides("feddip") == "density = 0.3"
    assert experiment.overrides("fedavg") == experiment.overrides("personalized_masks") == ""


def test_variants_change_anything():
    experiment = load(
        "compare.strategies=['fedavg', 'feddip']",
        "compare.variants.low.strategy=feddip", "compare.variants.low.strategy.density=0.02",
        "compare.variants.slow.train.lr=0.001", "compare.variants.slow.model.hidden=[5]",
    )  # fmt: skip
    assert experiment.labels() == ["fedavg", "feddip", "low", "slow"]
    assert experiment.variant("low").strategy.options["density"] == 0.02
    slow = experiment.variant("slow")
    assert (slow.strategy.name, slow.train.lr, slow.model.options["hidden"]) == ("fedavg", 0.001, [5])
    assert experiment.overrides("low") == "density = 0.02"
    assert experiment.overrides("slow") == "model.hidden = [5], train.lr = 0.001"


def test_variants_in_a_file_may_be_nested_or_dotted():
    nested = Experiment.load('[compare.variants.low]\nstrategy = {name = "feddip", density = 0.1}\n'
                             '[dataset]\nname = "digits"\n[model]\nname = "mlp"\n')  # fmt: skip
    dotted = Experiment.load('[compare.variants.low]\nstrategy = "feddip"\n"strategy.density" = 0.1\n'
                             '[dataset]\nname = "digits"\n[model]\nname = "mlp"\n')  # fmt: skip
    assert nested == dotted and nested.labels() == ["fedavg", "low"]


def test_without_a_list_the_strategy_is_compared_with_fedavg():
    assert load("strategy=feddip").labels() == ["fedavg", "feddip"]
    assert load().labels() == ["fedavg"]


def test_seeds():
    experiment = load("seed=5", "compare.seeds=3")
    assert list(experiment.seeds()) == [5, 6, 7]
    assert experiment.with_seed(6) == load("seed=6", "compare.seeds=3")


def test_an_unknown_variant():
    with pytest.raises(InputError, match="fedavg"):
        load().variant("nothing")


def test_everything_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load().rounds = 3


def test_a_runtime_is_named_like_a_strategy():
    assert Experiment.load(BASE, ["runtime=local"]).runtime.name == "local"
    assert Experiment.load(BASE, runtime="local").runtime.name == "local"


def test_what_is_no_config_is_said():
    with pytest.raises(InputError, match="A config is a path"):
        Experiment.load(3)

"""What run configs and node configs mean."""

from __future__ import annotations

import pytest
from flwr.app import Context, RecordDict

from fedsparse.errors import InputError
from fedsparse.flower.context import client_number, experiment_text, numbered


def test_a_run_config_names_a_config_and_changes_it() -> None:
    text = experiment_text({"config": "quickstart", "strategy": "feddip", "rounds": 3, "set": "train.lr=0.25 seed=4"})
    assert 'name = "feddip"' in text and "rounds = 3" in text and "lr = 0.25" in text and "seed = 4" in text
    dotted = experiment_text({"config": "quickstart", "train.lr": 0.25, "local_bn": False, "out": "/x", "strategy": ""})
    assert "lr = 0.25" in dotted and 'name = "fedavg"' in dotted


def test_a_run_config_without_a_config_is_refused() -> None:
    with pytest.raises(InputError, match="names a config"):
        experiment_text({"rounds": 3})


def test_node_ids_in_a_run_config() -> None:
    assert numbered({"nodes": "0:7001 1:903"}) == {0: 7001, 1: 903}
    assert numbered({}) == {}
    with pytest.raises(InputError, match='such as "0:123 1:456", not "0=7"'):
        numbered({"nodes": "0=7"})


def test_a_client_number_is_a_number() -> None:
    assert client_number(Context(1, 2, {"partition-id": 3}, RecordDict(), {})) == 3

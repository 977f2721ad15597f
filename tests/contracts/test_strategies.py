"""What every shipped strategy keeps to: its file, and one round of it through the wire."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
import torch
from federations import built, client_of

from fedsparse import registry
from fedsparse.flower import wire
from fedsparse.payload import Ids, Payload
from fedsparse.strategy import Reply, State, Strategy, Task

NAMES = registry.names("strategies")


def test_there_are_strategies() -> None:
    assert len(NAMES) >= 10


@pytest.mark.parametrize("name", NAMES)
def test_its_file_is_short_and_says_where_it_departs_from_its_paper(name: str) -> None:
    kind = registry.find("strategies", name)
    module = sys.modules[kind.__module__]
    assert issubclass(kind, Strategy)
    assert "Differences from the paper" in str(module.__doc__) and "arXiv" in str(module.__doc__)
    assert lines_of_code(Path(str(module.__file__)).read_text(encoding="utf-8")) < 150


def lines_of_code(source: str) -> int:
    """Lines without module's, classes' and functions' docstrings."""
    nodes = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef)]
    texts = [n.body[0] for n in nodes if ast.get_docstring(n) is not None]
    return len(source.splitlines()) - sum((text.end_lineno or 0) - text.lineno + 1 for text in texts)


@pytest.mark.parametrize("name", NAMES)
def test_a_round_through_the_wire(name: str, tmp_path: Path) -> None:
    fed = built(strategy=name)
    strategy, task = fed.strategy, Task("train", 1, fed.nodes)
    state = strategy.init(fed.shared, fed.nodes)
    replies = []
    for node in fed.nodes:
        down, up = strategy.downlink_schema("train"), strategy.uplink_schema("train")
        received = wire.decode(wire.encode(strategy.send(state, node, task), down, Ids()), down)
        sent = strategy.train(received, client_of(fed, tmp_path, node.id))
        data = wire.encode(sent, up, Ids(), known=received.masks)
        replies.append(Reply(node, wire.decode(data, up, received.masks)))
    after = strategy.merge(state, replies, task)
    plain_tree(after)
    model = strategy.global_model(after)
    assert model is None or {n: tuple(w.shape) for n, w in model.weights.items()} == dict(fed.setup.shapes)
    assert model is None or any(not torch.equal(after.weights[n], state.weights[n]) for n in after.weights)
    owned = strategy.personal(strategy.send(after, fed.nodes[0], task), client_of(fed, tmp_path, 0))
    assert all(bool(tensor.isfinite().all()) for tensor in owned.state_dict().values())
    assert isinstance(strategy.merge(state, [], task), State)  # when nobody replied in time
    assert isinstance(strategy.send(state, fed.nodes[0], task), Payload)


def plain_tree(state: State) -> None:
    """A state is tensors and scalars by name, so that it can be written down."""
    for tree in (state.weights, state.masks, state.clients):
        assert all(isinstance(n, str) and isinstance(t, torch.Tensor) for n, t in tree.items())
    assert all(isinstance(value, bool | int | float | str) for value in state.stats.values())

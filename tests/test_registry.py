"""How plug-ins are found: by name, by entry point, by file."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from fedsparse import registry
from fedsparse.errors import InputError
from fedsparse.strategy import Strategy

MINE = """
from fedsparse.strategy import Strategy

class Mine(Strategy):
    '''Mine: does nothing.'''
    strength: float = 1.0
    '''How strong.'''

class Other:
    pass
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "my method.py"
    path.write_text(MINE, encoding="utf-8")
    return path


def test_shipped_names():
    assert "fedavg" in registry.names("strategies") == sorted(registry.names("strategies"))
    assert registry.find("strategies", "fedavg").__module__ == "fedsparse.strategies.fedavg"
    assert registry.find("configs", "quickstart").name == "quickstart.toml"
    assert registry.find("partitions", "dirichlet").name == "dirichlet"
    assert callable(registry.find("sparsifiers", "magnitude"))
    assert "base" not in registry.names("models")


def test_summaries():
    assert registry.summary("strategies", "fedavg").startswith("FedAvg")
    assert registry.summary("configs", "quickstart").startswith("FedAvg against")
    assert "magnitude" in registry.summary("sparsifiers", "magnitude")


@pytest.mark.parametrize("kind", registry.KINDS)
def test_an_unknown_name_tells_the_nearest_and_the_allowed(kind):
    known = registry.names(kind)[0]
    with pytest.raises(InputError) as caught:
        registry.find(kind, f"{known}x")
    assert f'nearest is "{known}"' in str(caught.value)
    assert all(name in str(caught.value) for name in registry.names(kind))


def test_an_unknown_kind():
    with pytest.raises(InputError, match="strategies, datasets"):
        registry.names("optimisers")


def test_a_file(mine):
    found = registry.find("strategies", f"{mine}:Mine")
    assert issubclass(found, Strategy) and found().strength == 1.0
    assert found is registry.find("strategies", f"{mine}:Mine")
    assert registry.summary("strategies", f"{mine}:Mine") == "Mine: does nothing."
    assert found.model_fields["strength"].description == "How strong."


def test_a_file_relative_to_the_working_directory(mine, monkeypatch):
    monkeypatch.chdir(mine.parent)
    assert registry.find("strategies", "my method.py:Mine") is registry.find("strategies", f"{mine}:Mine")
    assert registry.absolute("my method.py:Mine") == f"{mine.resolve()}:Mine"
    assert registry.absolute("fedavg") == "fedavg"


def test_a_changed_file_is_read_again(mine):
    before = registry.find("strategies", f"{mine}:Mine")
    mine.write_text(MINE.replace("1.0", "2.0"), encoding="utf-8")
    after = registry.find("strategies", f"{mine}:Mine")
    assert (before().strength, after().strength) == (1.0, 2.0)


def test_a_file_has_the_same_module_name_in_another_process(mine):
    code = f"from fedsparse import registry; print(registry.find('strategies', {f'{mine}:Mine'!r}).__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == registry.find("strategies", f"{mine}:Mine").__module__


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nothing.py:Mine", "There is no file"),
        ("nothing.py", "must be a name or path/to/file.py:Name"),
        ("{mine}:Mne", 'nearest is "Mine"'),
        ("{mine}:Other", "must be a subclass of fedsparse.strategy.Strategy"),
        ("{mine}:Strategy", "must be a subclass of fedsparse.strategy.Strategy"),
    ],
)
def test_what_a_file_may_lack(mine, name, told):
    with pytest.raises(InputError, match=told):
        registry.find("strategies", name.format(mine=mine))


def test_a_file_that_cannot_be_loaded(mine):
    mine.write_text("import nothing_of_this_name", encoding="utf-8")
    with pytest.raises(InputError, match="my method.py cannot be loaded: ModuleNotFoundError: .*nothing_of_this_name"):
        registry.find("strategies", f"{mine}:Mine")
    assert not [name for name in sys.modules if name.startswith("fedsparse_file_my_method_") and "Mine" not in name
                and not hasattr(sys.modules[name], "Mine")]  # fmt: skip


def test_what_a_class_has_to_define(tmp_path):
    path = tmp_path / "p.py"
    path.write_text(
        "from fedsparse.partition import Partition\nclass P(Partition):\n    name = 'p'\n", encoding="utf-8"
    )
    with pytest.raises(InputError, match="must define assign"):
        registry.find("partitions", f"{path}:P")


def test_entry_points(monkeypatch):
    points = [
        EntryPoint("elsewhere", "fedsparse.strategies.fedavg:FedAvg", "fedsparse.strategies"),
        EntryPoint("broken", "nothing_of_this_name:X", "fedsparse.strategies"),
        EntryPoint("wrong", "fedsparse.payload:Payload", "fedsparse.strategies"),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: [p for p in points if p.group == group])
    assert {"elsewhere", "broken", "fedavg"} <= set(registry.names("strategies"))
    assert registry.find("strategies", "elsewhere").__name__ == "FedAvg"
    for name, told in {"broken": "cannot be loaded", "wrong": "must be a subclass"}.items():
        with pytest.raises(InputError, match=told):
            registry.find("strategies", name)


def test_a_shipped_file_with_two_classes_is_refused():
    from types import ModuleType

    module = ModuleType("two")
    module.__file__ = "strategies/two.py"
    for name in ("A", "B"):
        setattr(module, name, type(name, (Strategy,), {"__module__": "two"}))
    with pytest.raises(InputError, match="must define one public class of Strategy, not A, B"):
        registry._only("strategies", module)


def test_a_fingerprint_does_not_say_where_a_file_lies(mine, tmp_path):
    copy = tmp_path / "elsewhere" / "x.py"
    copy.parent.mkdir()
    copy.write_bytes(Path(mine).read_bytes())
    assert registry.fingerprint(f"{mine}:Mine") == registry.fingerprint(f"{copy}:Mine")
    assert registry.fingerprint("fedavg") == "fedavg"

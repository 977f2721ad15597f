"""Data sets: what they hold, where their files are looked for, and what is said when they are not there."""

import gzip
import os
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsparse import data as module
from fedsparse.data import Data, cached, downloading
from fedsparse.datasets.digits import Digits
from fedsparse.datasets.fashion_mnist import FILES, RAW, FashionMNIST
from fedsparse.errors import InputError

REAL = os.environ.get("FEDSPARSE_DATA")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FEDSPARSE_DATA", raising=False)


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_fashion(folder: Path, packed: bool = True, seed: int = 0) -> Path:
    """A tiny Fashion-MNIST: 30 training pictures, 20 test pictures."""
    rng = np.random.default_rng(seed)
    (folder / RAW).mkdir(parents=True)
    for name, count in zip(FILES, (30, 30, 20, 20), strict=True):
        content = idx(rng.integers(0, 256, (count, 28, 28)) if "images" in name else np.arange(count) % 10)
        if packed:
            (folder / RAW / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / RAW / name).write_bytes(content)
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def one_sentence(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and ". " not in text and text[0].isupper()
    return text


def test_digits():
    data = Digits().load()
    assert data.x.shape == (1797, 1, 8, 8) and data.x.dtype == torch.float32
    assert float(data.x.min()) == 0.0 and float(data.x.max()) == 1.0
    assert data.y.dtype == torch.int64 and data.y.unique().tolist() == list(range(10))
    assert (data.test, data.clients, data.groups) == (None, None, None)


def test_what_follows_from_the_targets():
    x = torch.zeros(4, 3)
    labels = Data(x=x, y=torch.tensor([0, 1, 2, 1]), classes=3)
    assert (labels.task, labels.outputs, labels.metric, labels.higher_is_better) == (
        "classification",
        3,
        "accuracy",
        True,
    )
    assert labels.shape == (3,)
    yields = Data(x=x, y=torch.zeros(4))
    assert (yields.task, yields.outputs, yields.metric, yields.higher_is_better) == ("regression", 1, "rmse", False)
    assert Data(x=x, y=torch.zeros(4, 2)).outputs == 2


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"y": torch.tensor([0, 1, 3, 1])}, "label 3 .* 0 to 2"),
        ({"y": torch.tensor([0, -1, 2, 1])}, "label -1"),
        ({"y": torch.tensor([0, 1])}, "4 inputs and 2 targets"),
        ({"test": (torch.zeros(2, 3), torch.tensor([0, 9]))}, "label 9 among its test rows"),
        ({"clients": np.zeros(3)}, "3 ids of clients"),
        ({"groups": np.zeros(5)}, "5 ids of groups"),
    ],
)
def test_data_that_do_not_fit_together(fields, named):
    with pytest.raises(InputError, match=named):
        Data(**{"x": torch.zeros(4, 3), "y": torch.tensor([0, 1, 2, 1]), "classes": 3, **fields})


# ---- Fashion-MNIST ----


@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_from_the_data_folder(tmp_path, monkeypatch, packed):
    home = write_fashion(tmp_path / "home", packed)
    before = files(home)
    monkeypatch.setenv("FEDSPARSE_DATA", str(home))
    first, again = FashionMNIST(download=False).load(), FashionMNIST(download=False).load()
    assert first.x.shape == (30, 1, 28, 28) and first.test and first.test[0].shape == (20, 1, 28, 28)
    assert first.y.tolist() == [i % 10 for i in range(30)]
    assert torch.equal(first.x, again.x) and torch.equal(first.test[0], again.test[0])
    assert files(home) == before
    assert len(files(tmp_path / "cache")) == (4 if packed else 0)


def test_other_files_in_the_data_folder_are_not_mistaken_for_the_unpacked_ones(tmp_path, monkeypatch):
    loaded = []
    for seed in (0, 1):
        monkeypatch.setenv("FEDSPARSE_DATA", str(write_fashion(tmp_path / f"home{seed}", seed=seed)))
        loaded.append(FashionMNIST().load().x)
    assert not torch.equal(*loaded)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("home", [None, "empty", "partial"])
def test_fashion_mnist_missing_and_no_network(tmp_path, monkeypatch, home):
    lacks = FILES[0]
    if home:
        (tmp_path / home).mkdir()
        monkeypatch.setenv("FEDSPARSE_DATA", str(tmp_path / home))
    if home == "partial":
        lacks = FILES[2]
        (write_fashion(tmp_path / home) / RAW / f"{lacks}.gz").unlink()
    start = time.monotonic()
    with pytest.raises(InputError) as error:
        FashionMNIST().load()
    assert time.monotonic() - start < 10
    text = one_sentence(error)
    assert f"{RAW / lacks}[.gz]" in text and "FEDSPARSE_DATA" in text and "Name or service not known" in text
    assert str(tmp_path / home) in text if home else "not set" in text
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.name != "fedsparse"]


def test_fashion_mnist_missing_and_not_to_be_downloaded(tmp_path):
    with pytest.raises(InputError, match="download = false"):
        FashionMNIST(download=False).load()
    assert not (tmp_path / "cache").exists()


def test_fashion_mnist_is_downloaded_once(tmp_path, monkeypatch):
    from fedsparse.vision import torchvision

    asked = []

    class Server(torchvision.datasets.FashionMNIST):
        def download(self):
            asked.append(self.root)
            write_fashion(Path(self.root), packed=False)
            (Path(self.root) / RAW / f"{FILES[0]}.gz").write_bytes(b"what was downloaded")

    Server.__name__ = "FashionMNIST"  # torchvision names the folder after the class
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", Server)
    monkeypatch.setattr("fedsparse.datasets.fashion_mnist.downloading", lambda url: nullcontext())
    assert torch.equal(FashionMNIST().load().x, FashionMNIST(download=False).load().x)
    assert len(asked) == 1
    assert files(tmp_path / "cache") == sorted(str("fedsparse/fashion_mnist" / RAW / name) for name in FILES)


def test_fashion_mnist_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDSPARSE_DATA", str(home := write_fashion(tmp_path / "home")))
    file = home / RAW / f"{FILES[0]}.gz"
    whole = file.read_bytes()
    for broken in (whole[:-30], b"not packed at all", whole[:200] + b"\0" * 50 + whole[250:]):
        file.write_bytes(broken)
        with pytest.raises(InputError, match="damaged") as error:
            FashionMNIST().load()
        assert str(file) in one_sentence(error)
        assert files(tmp_path / "cache") == []
    file.write_bytes(gzip.compress(gzip.decompress(whole)[:-100]))  # well packed, but too short
    with pytest.raises(InputError, match="training files .* are damaged"):
        FashionMNIST().load()


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("FEDSPARSE_DATA", str(write_fashion(tmp_path / "home")))
    with pytest.raises(InputError, match="XDG_CACHE_HOME") as error:
        FashionMNIST().load()
    assert str(tmp_path / "file") in one_sentence(error)


@pytest.mark.data
@pytest.mark.skipif(not REAL or not (Path(REAL) / RAW).is_dir(), reason=f"FEDSPARSE_DATA ({REAL}) has no {RAW}")
def test_fashion_mnist_itself(monkeypatch):
    monkeypatch.setenv("FEDSPARSE_DATA", str(REAL))
    data = FashionMNIST(download=False).load()
    assert data.x.shape == (60_000, 1, 28, 28) and data.test and data.test[0].shape == (10_000, 1, 28, 28)
    assert data.y.bincount().tolist() == [6_000] * 10 and data.test[1].bincount().tolist() == [1_000] * 10
    assert abs(float(data.x.mean())) < 1e-3 and abs(float(data.x.std()) - 1) < 1e-3


# ---- the cache ----


def test_cached_keeps_nothing_of_what_failed(tmp_path):
    def fail(draft):
        (draft / "half").write_text("half")
        raise RuntimeError("torn")

    with pytest.raises(RuntimeError, match="torn"):
        cached("thing", fail)
    assert list((tmp_path / "cache" / "fedsparse").iterdir()) == []


def test_two_threads_fill_the_same_folder(tmp_path):
    both = threading.Barrier(2, timeout=20)
    seen = []

    def fill(draft):
        both.wait()  # nobody is done before both have begun
        (draft / "whole").write_text("whole")

    def use():
        folder = cached("thing", fill)
        seen.append((folder, (folder / "whole").read_text()))

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [(module.cache() / "thing", "whole")] * 2
    assert [path.name for path in module.cache().iterdir()] == ["thing"]


def test_processes_unpack_at_once(tmp_path):
    home = write_fashion(tmp_path / "home")
    script = textwrap.dedent("""
        from fedsparse.datasets.fashion_mnist import FashionMNIST
        print(float(FashionMNIST(download=False).load().x.double().sum()))
    """)
    env = {**os.environ, "FEDSPARSE_DATA": str(home), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    results = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], results
    assert len({out for out, _ in results}) == 1
    assert len(files(tmp_path / "cache")) == 4


def test_a_server_that_swallows_everything_costs_seconds():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        with (
            pytest.raises(OSError, match="does not answer"),
            downloading(f"http://127.0.0.1:{silent.getsockname()[1]}/", 0.3),
        ):
            pytest.fail("nothing answered")
        assert time.monotonic() - start < 5
    assert socket.getdefaulttimeout() is None

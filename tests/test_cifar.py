"""CIFAR-10 and CIFAR-100: small files in each of their layouts, and what is said of damaged ones."""

import hashlib
import os
import pickle
import shutil
import socket
import tarfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sentence import one_sentence

from fedsparse.datasets import cifar10
from fedsparse.datasets.cifar10 import CIFAR10, FILES, MEAN, SD
from fedsparse.datasets.cifar100 import CIFAR100
from fedsparse.errors import InputError
from fedsparse.vision import torchvision

REAL = os.environ.get("FEDSPARSE_DATA")
KINDS = {"CIFAR10": (CIFAR10, 10, "labels"), "CIFAR100": (CIFAR100, 100, "fine_labels")}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FEDSPARSE_DATA", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# ---- the published files ----


@pytest.fixture(params=list(KINDS))
def published(request, tmp_path, monkeypatch):
    """A small data set as torchvision lays it out, whose MD5s torchvision's class is told: (class, folder).

    Every training file has 20 pictures, every test file 10; picture i of a file is of class i.
    """
    loader = getattr(torchvision.datasets, request.param)
    folder = tmp_path / "made" / loader.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def write(name: str, content: object) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def part(names: list[list[str]], count: int) -> list[list[str]]:
        pictures = rng.integers(0, 256, (count, 3 * 32 * 32), dtype=np.uint8)
        labels = {KINDS[request.param][2]: [i % 10 for i in range(count)], "coarse_labels": [0] * count}
        if request.param == "CIFAR10":
            del labels["coarse_labels"]
        return [[name, write(name, {"data": pictures, **labels})] for name, _ in names]

    monkeypatch.setattr(loader, "train_list", part(loader.train_list, 20))
    monkeypatch.setattr(loader, "test_list", part(loader.test_list, 10))
    meta = loader.meta | {"md5": write(loader.meta["filename"], {loader.meta["key"]: list(map(str, range(10)))})}
    monkeypatch.setattr(loader, "meta", meta)
    archive = folder.parent / loader.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, loader.base_folder)
    monkeypatch.setattr(loader, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    return loader, folder


def dataset(loader, **options):
    return KINDS[loader.__name__][0](**options)


def check(data, loader, folder: Path) -> None:
    files = len(loader.train_list)
    assert data.classes == KINDS[loader.__name__][1]
    assert data.x.shape == (20 * files, 3, 32, 32) and data.x.dtype == torch.float32 and data.x.is_contiguous()
    assert data.y.tolist() == [i % 10 for i in range(20)] * files
    assert data.test and data.test[0].shape == (10, 3, 32, 32) and data.test[1].tolist() == list(range(10))
    raw = pickle.loads((folder / loader.train_list[0][0]).read_bytes())["data"][7].reshape(3, 32, 32)
    mean, sd = (0.48215841, 0.24348513) if loader.__name__ == "CIFAR10" else (0.48654887, 0.25643846)
    assert float(data.x[7, 1, 2, 3]) == pytest.approx((raw[1, 2, 3] / 255 - mean) / sd, abs=1e-6)


def test_the_folder(home, tmp_path, published):
    loader, folder = published
    shutil.copytree(folder, home / folder.name)
    check(dataset(loader, download=False).load(), loader, folder)
    assert not (tmp_path / "cache").exists()


def test_the_archive_is_unpacked_once_into_the_cache(home, tmp_path, published):
    loader, folder = published
    archive = home / loader.filename
    shutil.copy(folder.parent / loader.filename, archive)
    check(dataset(loader, download=False).load(), loader, folder)
    assert [path.name for path in home.iterdir()] == [loader.filename]
    archive.write_bytes(b"not opened again")
    check(dataset(loader, download=False).load(), loader, folder)


def test_a_damaged_archive(home, tmp_path, published):
    loader, folder = published
    (home / loader.filename).write_bytes((folder.parent / loader.filename).read_bytes()[:-100])
    with pytest.raises(InputError, match="not the published one") as error:
        dataset(loader).load()
    assert str(home / loader.filename) in one_sentence(error)
    assert list((tmp_path / "cache" / "fedsparse").iterdir()) == []


@pytest.mark.parametrize("damage", ["missing", "truncated"])
@pytest.mark.parametrize("which", ["train_list", "test_list", "meta"])
def test_a_damaged_file_is_named(home, published, damage, which):
    loader, folder = published
    shutil.copytree(folder, home / folder.name)
    name = loader.meta["filename"] if which == "meta" else getattr(loader, which)[-1][0]
    file = home / folder.name / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="missing or not the published one") as error:
        dataset(loader).load()
    assert f"The file {file} of {loader.__name__.lower()} " in one_sentence(error)


def test_downloaded_once(home, tmp_path, published, monkeypatch):
    loader, folder = published
    asked = []

    def download(url, root, filename, md5):  # all but the network
        asked.append(url)
        shutil.copy(folder.parent / filename, root)
        torchvision.datasets.utils.extract_archive(str(Path(root) / filename), str(root))

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", download)
    monkeypatch.setattr("fedsparse.datasets._cifar.downloading", lambda url: nullcontext())
    for allowed in (True, False):
        check(dataset(loader, download=allowed).load(), loader, folder)
    assert asked == [loader.url]
    kept = tmp_path / "cache" / "fedsparse" / loader.__name__.lower()
    assert [path.name for path in kept.iterdir()] == [folder.name]
    assert list(home.iterdir()) == []


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", list(KINDS))
def test_missing_and_no_network(tmp_path, monkeypatch, name):
    with pytest.raises(InputError, match="Name or service not known") as error:
        KINDS[name][0]().load()
    assert "FEDSPARSE_DATA" in one_sentence(error) and str(tmp_path / "home") in str(error.value)
    monkeypatch.delenv("FEDSPARSE_DATA")
    with pytest.raises(InputError, match="which is not set.*download = false"):
        KINDS[name][0](download=False).load()


# ---- mosaics ----


@pytest.fixture
def mosaics(home, monkeypatch):
    """Mosaics of 2 x 3 pictures, and the pictures: (folder, uint8 (36, 32, 32, 3)), the test's six at the end."""
    monkeypatch.setattr(cifar10, "DOWN", 2)
    monkeypatch.setattr(cifar10, "ACROSS", 3)
    pictures = np.random.default_rng(0).integers(0, 256, (36, 32, 32, 3), dtype=np.uint8)
    folder = home / "cifar10"
    folder.mkdir()
    for name, six in zip(FILES[:-1], pictures.reshape(6, 6, 32, 32, 3), strict=True):
        rows = [np.concatenate(list(six[i : i + 3]), axis=1) for i in (0, 3)]
        Image.fromarray(np.concatenate(rows)).save(folder / name, lossless=True)
    np.savez(folder / FILES[-1], train=np.arange(30) % 10, test=np.arange(6))
    return folder, pictures


def test_mosaics_hold_the_pictures_row_by_row(home, mosaics):
    _, pictures = mosaics
    data = CIFAR10(download=False).load()
    due = (torch.from_numpy(pictures) / 255 - torch.tensor(MEAN)) / torch.tensor(SD)
    assert data.test and data.x.is_contiguous()
    assert torch.allclose(torch.cat([data.x, data.test[0]]), due.permute(0, 3, 1, 2), atol=1e-5)
    assert data.y.tolist() == [i % 10 for i in range(30)] and data.test[1].tolist() == list(range(6))


def test_mosaics_are_decoded_once_and_others_anew(tmp_path, mosaics, monkeypatch):
    folder, _ = mosaics
    first = CIFAR10().load().x
    decode = cifar10._decode
    monkeypatch.setattr(cifar10, "_decode", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(CIFAR10().load().x, first)
    monkeypatch.setattr(cifar10, "_decode", decode)
    shutil.copy(folder / FILES[1], folder / FILES[0])
    changed = CIFAR10().load().x
    assert torch.equal(changed[:6], first[6:12]) and torch.equal(changed[6:], first[6:])
    for kept in (tmp_path / "cache").rglob("train.npy"):
        kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(InputError, match="of the cache is damaged: remove") as error:
        CIFAR10().load()
    one_sentence(error)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_of_the_mosaics(mosaics, name):
    (mosaics[0] / name).unlink()
    with pytest.raises(InputError, match="lacks the file") as error:
        CIFAR10().load()
    assert str(mosaics[0] / name) in one_sentence(error)


@pytest.mark.parametrize("content", [b"", b"nothing like a picture", None])
@pytest.mark.parametrize("name", [FILES[2], FILES[-1]])
def test_a_damaged_file_of_the_mosaics(tmp_path, mosaics, name, content):
    file = mosaics[0] / name
    file.write_bytes(file.read_bytes()[:-200] if content is None else content)
    with pytest.raises(InputError, match="cannot be read|damaged") as error:
        CIFAR10().load()
    assert str(file) in one_sentence(error)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_mosaics_and_labels_of_other_sizes(mosaics):
    folder, _ = mosaics
    np.savez(folder / FILES[-1], train=np.arange(29) % 10, test=np.arange(6))
    with pytest.raises(InputError, match="30 inputs and 29 targets"):
        CIFAR10().load()
    np.savez(folder / FILES[-1], train=np.arange(30), test=np.arange(6))
    with pytest.raises(InputError, match="label 29 .* 0 to 9"):
        CIFAR10().load()
    Image.new("RGB", (96, 32)).save(folder / FILES[0], lossless=True)
    with pytest.raises(InputError, match="is 96 x 32 pixels: 96 x 64 are due"):
        CIFAR10().load()


def test_the_published_files_come_first(home, mosaics, published):
    loader, folder = published
    if loader.__name__ == "CIFAR10":
        shutil.copytree(folder, home / folder.name)
        check(CIFAR10().load(), loader, folder)


@pytest.mark.data
@pytest.mark.skipif(
    not REAL or not (Path(REAL) / "cifar10").is_dir(), reason=f"FEDSPARSE_DATA ({REAL}) has no folder cifar10"
)
def test_cifar10_itself(monkeypatch):
    monkeypatch.setenv("FEDSPARSE_DATA", str(REAL))
    data = CIFAR10(download=False).load()
    assert data.x.shape == (50_000, 3, 32, 32) and data.test and data.test[0].shape == (10_000, 3, 32, 32)
    assert data.y.bincount().tolist() == [5_000] * 10 and data.test[1].bincount().tolist() == [1_000] * 10
    for channel in data.x.unbind(1):
        assert abs(float(channel.mean())) < 1e-3 and abs(float(channel.std()) - 1) < 1e-3

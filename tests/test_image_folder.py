"""A folder of pictures: what becomes of them, and what is said of those that are none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sentence import one_sentence

from fedsparse.datasets.image_folder import ImageFolder
from fedsparse.errors import InputError
from fedsparse.experiment import Experiment


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.delenv("FEDSPARSE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, colour=(255, 0, 0), size=(8, 8), name="a.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(folder / name)
    return folder / name


@pytest.fixture
def pets(here):
    """Two red cats, one blue dog, of several sizes and kinds."""
    write(here / "pets" / "cat")
    write(here / "pets" / "cat", size=(50, 20), name="b.bmp")
    write(here / "pets" / "dog", (0, 0, 255))
    (here / "pets" / "cat" / "notes.txt").write_text("no picture")
    return here / "pets"


def test_pictures_in_the_order_of_classes_and_names(pets):
    data = ImageFolder(folder="pets", size=4).load()
    assert data.x.shape == (3, 3, 4, 4) and data.x.dtype == torch.float32 and data.x.is_contiguous()
    assert (data.y.tolist(), data.classes, data.test) == ([0, 0, 1], 2, None)
    assert data.x[:, :, 2, 1].tolist() == [[1, -1, -1], [1, -1, -1], [-1, -1, 1]]


def test_grey(pets):
    x = ImageFolder(folder="pets", size=4, grey=True).load().x
    assert x.shape == (3, 1, 4, 4)
    assert float(x[0, 0, 0, 0]) == pytest.approx(76 / 255 * 2 - 1)  # red is 29.9 % of white's light


def test_shrinking_takes_the_mean(here):
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[::2] = 200
    for name in ("a", "b"):
        (here / "lines" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(here / "lines" / name / "x.png")
    x = ImageFolder(folder="lines", size=2).load().x
    assert torch.allclose(x, torch.full_like(x, 100 / 255 * 2 - 1), atol=0.1)


def test_train_and_test_are_the_official_split(pets):
    split = pets.parent / "split"
    split.mkdir()
    pets.rename(split / "train")
    write(split / "test" / "dog")
    write(split / "test" / "cat")
    data = ImageFolder(folder="split", size=4).load()
    assert data.y.tolist() == [0, 0, 1]
    assert data.test and data.test[0].shape == (2, 3, 4, 4) and data.test[1].tolist() == [0, 1]
    write(split / "test" / "elk")
    with pytest.raises(InputError, match="has a class elk that train does not have") as error:
        ImageFolder(folder="split").load()
    one_sentence(error)


def test_under_the_data_folder_first(pets, here, monkeypatch):
    monkeypatch.setenv("FEDSPARSE_DATA", str(here / "home"))
    assert len(ImageFolder(folder="pets", size=4).load().x) == 3  # the data folder has none of this name
    write(here / "home" / "pets" / "cat")
    write(here / "home" / "pets" / "dog")
    assert len(ImageFolder(folder="pets", size=4).load().x) == 2
    assert len(ImageFolder(folder=str(pets), size=4).load().x) == 3


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "deep"])
def test_a_picture_that_cannot_be_read_is_named(pets, damage):
    file = write(pets / "dog", size=(64, 64), name="c.png")
    if damage == "deep":
        Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(file)
    else:
        file.write_bytes({"truncated": file.read_bytes()[:-60], "text": b"not a picture", "empty": b""}[damage])
    with pytest.raises(InputError, match="more than 8 bits" if damage == "deep" else "cannot be read") as error:
        ImageFolder(folder="pets").load()
    assert "pets/dog/c.png" in one_sentence(error)


def test_folders_that_hold_no_classes(pets, here):
    (here / "bare").mkdir()
    (here / "file").write_text("")
    write(here / "alone" / "cat")
    (pets / "elk").mkdir()
    for folder, says in {
        "nowhere": "The folder nowhere .* is not there",
        "file": "The folder file .* is not there",
        "bare": "The folder bare holds no classes",
        "alone": "holds the class cat alone",
        "pets": "The class pets/elk holds no pictures",
    }.items():
        with pytest.raises(InputError, match=says) as error:
            ImageFolder(folder=folder).load()
        one_sentence(error)


@pytest.mark.parametrize("size", [0, 1025, 100_000])
def test_a_side_has_bounds(size):
    dataset = {"name": "image_folder", "folder": "pets", "size": size}
    with pytest.raises(InputError, match=f"dataset.size must be .*at least 1 and at most 1024, not {size}"):
        Experiment.load({"dataset": dataset, "model": "cnn"})


def test_a_config_must_name_the_folder():
    with pytest.raises(InputError, match="dataset.folder"):
        Experiment.load({"dataset": "image_folder", "model": "cnn"})

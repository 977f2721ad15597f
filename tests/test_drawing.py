"""The picture of a split: as wide for any number of clients, nothing cut off, clients told apart or sorted."""

import io
import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from fedsparse.cli import drawing
from fedsparse.cli.views import Split


def split(clients: int, classes: int | None, names: list[str] | None = None, most: int = 400) -> Split:
    """Clients of 10 to `most` samples; a client's share of class c falls with the distance of c from its own."""
    sizes = np.linspace(10, most, clients).astype(int)
    columns: dict[str, object] = {"client": range(clients), "device": "default"}
    if names:
        columns["name"] = names
    columns |= {"train": sizes * 7 // 10, "validation": sizes // 10, "test": sizes - sizes * 7 // 10 - sizes // 10}
    if classes:
        own = np.arange(clients)[::-1] % classes
        counts = (sizes[:, None] * 0.3 ** np.abs(np.arange(classes) - own[:, None])).astype(int)
        columns |= {f"class_{c}": counts[:, c] for c in range(classes)}
    else:
        spread = {"q05": -2.0, "q25": -1.0, "median": 0.0, "q75": 1.0, "q95": 3.0}
        columns |= {name: at * 1e4 + np.sin(np.arange(clients)) for name, at in spread.items()}
    details = ("by dirichlet, " + "alpha = 0.3, " * 12, "700 train, 100 validation, 200 test")
    return Split(pd.DataFrame(columns), pd.DataFrame(), classes, f"{clients} clients", details)


NAMED = [f"THE_TRAGEDY_OF_$x^2$_NUMBER_{i}" for i in range(50)]


@pytest.mark.parametrize(
    "drawn",
    [
        split(1, 2, ["a"]), split(5, 10, most=123_456), split(50, 10, NAMED), split(400, 62),
        split(12, None, NAMED[:12], most=9_999_999), split(400, None),
    ],
    ids=lambda drawn: f"{len(drawn.table)}-{drawn.classes}",
)  # fmt: skip
def test_a_picture_is_whole(drawn):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as of a layout that does not fit
        png = drawing.draw(drawn)
    picture = imread(io.BytesIO(png))[..., :3]
    height, width, _ = picture.shape
    assert width == 1403 and width / 4 < height < 1.8 * width
    edge = np.concatenate([picture[:3].reshape(-1, 3), picture[-3:].reshape(-1, 3)])
    sides = np.concatenate([picture[:, :3].reshape(-1, 3), picture[:, -3:].reshape(-1, 3)])
    assert (edge == 1).all() and (sides == 1).all(), "something is cut off"


def test_the_same_split_has_the_same_bytes():
    assert drawing.draw(split(5, 4)) == drawing.draw(split(5, 4))


def test_many_clients_are_sorted():
    counts = pd.DataFrame({"class_0": [1, 0, 5, 9], "class_1": [0, 3, 6, 1], "client": range(4)})
    labelled = Split(counts, pd.DataFrame(), 2, "", ())
    # 0 has class 0 alone, 3 has nine tenths of it; 1 has class 1 alone, 2 just more than half.
    assert drawing._order(labelled).tolist() == [0, 3, 1, 2]
    numbers = Split(pd.DataFrame({"median": [3.0, -1.0, 2.0]}), pd.DataFrame(), None, "", ())
    assert drawing._order(numbers).tolist() == [1, 2, 0]


def test_a_long_name_keeps_both_ends():
    assert drawing._cut("wi") == "wi"
    assert drawing._cut("THE_TRAGEDY_OF_MACBETH_LADY_MACBETH") == "THE_TRAGEDY…LADY_MACBETH"
    assert len(drawing._cut("x" * 99)) == drawing.LONGEST

"""Next characters of plays: roles from small texts, the data set made of them, a federation on it, the real file."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from federations import built, client_of
from sentence import one_sentence

from fedsparse import train
from fedsparse.convert import shakespeare as converter
from fedsparse.convert.shakespeare import speeches
from fedsparse.datasets.shakespeare import FILE, VOCABULARY, Shakespeare, tokens
from fedsparse.errors import InputError
from fedsparse.natural import Natural
from fedsparse.split import parts

REAL = os.environ.get("FEDSPARSE_DATA")
real = pytest.mark.skipif(
    not REAL or not (Path(REAL) / FILE).is_file(), reason=f"FEDSPARSE_DATA ({REAL}) has no {FILE}"
)

ROLES = {
    "play/one": "abcdefghijklmnopqrstuvwxyz",
    "play/two": "The quality of mercy is not strain'd,\nIt droppeth",
    "play/few": "Ay.",
    "other/one": "To be, or not to be: that is",
}


def write(home: Path, texts: object) -> Path:
    (home / FILE).parent.mkdir(parents=True, exist_ok=True)
    (home / FILE).write_bytes(gzip.compress(json.dumps(texts).encode(), mtime=0))
    return home


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A data folder with a few short roles."""
    monkeypatch.setenv("FEDSPARSE_DATA", str(tmp_path / "home"))
    return write(tmp_path / "home", ROLES)


def text(row: torch.Tensor) -> str:
    return "".join(VOCABULARY[token - 1] for token in row.tolist())


# ---- the data set ----


def test_tokens():
    assert tokens("\n !z}").tolist() == [1, 2, 3, 81, 83]
    assert tokens("é\x7f\t€~\U0001f600").tolist() == [0] * 6  # any other character
    assert len(set(VOCABULARY)) == len(VOCABULARY) == 83


def test_no_character_is_in_two_samples(home):
    data = Shakespeare(length=4, min_characters=20).load()
    assert data.x.dtype == data.y.dtype == torch.int64 and data.x.shape == (9 + 5 + 5, 4)
    assert data.clients is not None and data.clients.tolist() == ["play/two"] * 9 + ["other/one"] * 5 + ["play/one"] * 5
    samples = [text(row) for row in torch.cat([data.x, data.y[:, None]], dim=1)]
    assert samples[-5:] == ["abcde", "fghij", "klmno", "pqrst", "uvwxy"]
    assert "".join(samples[:9]) == ROLES["play/two"][:45]
    assert (data.classes, data.groups, data.gap) == (84, None, 0)


def test_samples_that_overlap_are_not_torn_apart(home):
    write(home, {"b": "y" * 200, "a": ROLES["play/one"] * 5})
    data = Shakespeare(length=4, stride=2, min_characters=93).load()
    assert text(data.x[-2]) == "stuv" and text(data.y[-3:]) == "uwy" and data.gap == 2
    assert data.groups is not None and data.groups[:98].tolist() == [k // 15 for k in range(98)]
    assert data.groups[98:].tolist() == [7 + k // 15 for k in range(63)]
    write(home, {"a": "x" * 500, "b": "y" * 700})
    for stride in (1, 2, 3, 4):
        data = Shakespeare(length=4, stride=stride, min_characters=125).load()
        assert data.gap == 4 // stride and data.groups is not None
        assert len(np.unique(data.clients[np.unique(data.groups, return_index=True)[1]])) == 2
        for own in parts(Natural().split(data, None, seed=0), data, 0.2, 0.2, seed=0):
            begins = [(rows - own_start(data, rows)) * stride for rows in (own.train, own.validation, own.test)]
            used = [{begin + i for begin in part.tolist() for i in range(5)} for part in begins]
            assert all(used) and not (used[0] & used[1] or used[0] & used[2] or used[1] & used[2])


def own_start(data, rows: np.ndarray) -> int:
    return int(np.flatnonzero(data.clients == data.clients[rows[0]])[0])


def test_those_who_say_most(home):
    data = Shakespeare(length=4, min_characters=20, roles=2).load()
    assert sorted(set(data.clients.tolist())) == ["other/one", "play/two"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"length": 4, "min_characters": 20, "roles": 4}, "has 3 roles .* 20 characters, but 4 are wanted"),
        ({"length": 4}, "has 0 roles of at least min_characters = 2000 characters, but 1 are wanted"),
        ({"length": 40, "min_characters": 122}, "length = 40 and stride = 41 a role needs 123 for three samples"),
        ({"length": 4, "stride": 2, "min_characters": 92}, "needs 93 for three blocks"),
    ],
)
def test_options_that_leave_nothing(home, options, named):
    with pytest.raises(InputError, match=named) as error:
        Shakespeare(**options).load()
    one_sentence(error)


def test_three_samples_are_enough_for_a_client(home):
    write(home, {"a": "x" * 123})
    data = Shakespeare(length=40, min_characters=123).load()
    assert [len(part) for part in vars(parts([np.arange(3)], data, 0.1, 0.2, seed=0)[0]).values()] == [1, 1, 1]


@pytest.mark.parametrize("there", [True, False])
def test_missing(tmp_path, monkeypatch, there):
    if there:
        monkeypatch.setenv("FEDSPARSE_DATA", str(tmp_path))
    else:
        monkeypatch.delenv("FEDSPARSE_DATA", raising=False)
    with pytest.raises(InputError, match="Project Gutenberg") as error:
        Shakespeare().load()
    said = one_sentence(error)
    assert "`python -m fedsparse.convert.shakespeare SOURCE OUT`" in said and str(FILE) in said
    assert (str(tmp_path) if there else "not set") in said


def test_damaged(home):
    whole = (home / FILE).read_bytes()
    for broken in (
        whole[:-30],
        whole[:40],
        b"",
        b"not packed",
        whole[:40] + b"\0" * 20 + whole[60:],
        gzip.compress(b'{"a": "b'),
        gzip.compress(b'{"a": "\xff"}'),
        gzip.compress(b'["a", "b"]'),
        gzip.compress(b'{"a": 1}'),
        gzip.compress(b"[" * 100_000),
    ):
        (home / FILE).write_bytes(broken)
        with pytest.raises(InputError, match="is damaged") as error:
            Shakespeare().load()
        assert str(home / FILE) in one_sentence(error)


# ---- in a federation ----

TINY = {"name": "shakespeare", "length": 6, "min_characters": 22}


@pytest.mark.parametrize("strategy", ["fedavg", "personalized_masks"])
def test_a_client_trains_and_is_evaluated(home, tmp_path, strategy):
    fed = built(
        dataset=TINY,
        partition={"name": "natural"},
        model={"name": "lstm", "hidden": 8},
        strategy=strategy,
        clients=3,
        train={"batch_size": 2, "lr": 0.5},
    )
    assert len(fed.nodes) == 3 and fed.setup.maskable == ("fc.weight",)
    client = client_of(fed, tmp_path)
    state = fed.strategy.init(fed.shared, fed.nodes)
    sent = fed.strategy.train(state.payload, client)
    assert all(not torch.equal(sent.weights[name], tensor) for name, tensor in fed.shared.items())
    model = client.model(sent.weights)
    metric, loss = train.evaluate(model, *client.part("test"), fed.data.task)
    assert 0 <= metric <= 1 and loss < 20
    assert all(torch.equal(tensor, sent.weights[name]) for name, tensor in client.weights(model).items())


# ---- the converter ----

PLAY = """\
The Project Gutenberg eBook of Hamlet
HELP. This is not a speech
*** START OF THE PROJECT GUTENBERG EBOOK HAMLET ***

THE TRAGEDY OF HAMLET

Dramatis Personæ.
ACT I. SCENE I. Elsinore.
 Enter Barnardo and Francisco.

BARNARDO.
Who’s there?

FRANCISCO. Nay, answer me.
  Stand [_He
stands._] and unfold yourself—

A LORD.
“Élan”, I say.
O hell.
BARNARDO.
Long live the King!
ACT II
THE END.
*** END OF THE PROJECT GUTENBERG EBOOK HAMLET ***
LICENSE. None of this
"""


def test_speeches():
    assert speeches(PLAY) == {
        "barnardo": ["Who's there?", "Long live the King!", "ACT II"],
        "francisco": ["Nay, answer me.", "Stand  and unfold yourself--"],
        "a lord": ['"Elan", I say.', "O hell."],
    }


def test_from_texts_to_samples(tmp_path, monkeypatch):
    plays = tmp_path / "plays"
    plays.mkdir()
    (plays / "hamlet.txt").write_text(PLAY, encoding="utf-8-sig")
    (plays / "lear.txt").write_text("LEAR.\n" + "Howl, howl, howl!\n" * 9)
    out = tmp_path / "home" / FILE
    for source, roles in ((plays, 4), (plays / "lear.txt", 1)):
        command = [sys.executable, "-m", "fedsparse.convert.shakespeare", str(source), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0 and f"role ({roles},)" in done.stdout, done.stderr
    assert json.loads(gzip.decompress(out.read_bytes())) == {"lear/lear": "\n".join(["Howl, howl, howl!"] * 9)}
    monkeypatch.setenv("FEDSPARSE_DATA", str(tmp_path / "home"))
    assert text(Shakespeare(length=10, min_characters=100).load().x[0]) == "Howl, howl"


def test_texts_that_are_none(tmp_path):
    (tmp_path / "prose.txt").write_text("Nobody speaks here.\n")
    (tmp_path / "bytes.txt").write_bytes(b"HAM. \xff\xfe\xfa")
    for source, named in (("prose.txt", "no speech in"), ("bytes.txt", "is not UTF-8"), ("none.txt", "cannot be read")):
        with pytest.raises(InputError, match=named) as error:
            converter.arrays(tmp_path / source)
        assert str(tmp_path / source) in one_sentence(error)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no speech"):
        converter.arrays(tmp_path / "empty")


# ---- the real file ----


@pytest.mark.data
@real
def test_the_plays_themselves(monkeypatch):
    monkeypatch.setenv("FEDSPARSE_DATA", str(REAL))
    data = Shakespeare().load()
    assert data.x.shape == (45_189, 80) and len(np.unique(data.clients)) == 427
    assert int(data.x.min()) == 1  # no character is outside the vocabulary
    assert text(data.x[0][:18]) == "Not so, my lord; I"  # Hamlet says most
    split = Natural().split(data, None, seed=0)
    assert min(map(len, split)) == 24 and len(parts(split, data, 0.1, 0.2, seed=0)) == 427

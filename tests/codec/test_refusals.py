"""What the encoder and the choice of kernels refuse, in words that help."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from fedsparse import codec
from fedsparse.codec import kernels
from fedsparse.errors import InputError
from fedsparse.payload import Ids, Packed, Payload, Schema, Spec

ONE = np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (Payload({"a/b": ONE}), "'a/b'"),
        (Payload({"": ONE}), "empty"),
        (Payload({}, {}, {"g/h": {"a": ONE}}), "'g/h'"),
        (Payload({"a": ONE}, {"a": np.ones(4, bool)}), r"mask of tensor 'a' has shape \(4,\)"),
        (Payload({"a": np.array(["x"])}), "'a' has dtype .* allowed are bool, int8"),
        (Payload({"a": np.array([object()])}), "'a' has dtype object"),
        (Payload({"a": torch.zeros(3, dtype=torch.bfloat16)}), "'a' cannot be read"),
        (Payload({"a": torch.zeros(3, requires_grad=True)}), "'a' cannot be read"),
        (Payload({"a": np.zeros((1,) * 33, np.int8)}), "axes"),
        (Payload({"a" * 1025: ONE}), "1025 bytes"),
        (Payload(info={"a": 1 << 63}), "'a' is 9223372036854775808"),
        (Payload(info={"a": None}), "'a' is a NoneType, allowed are bool, int, float and str"),  # type: ignore[dict-item]
        (Payload(info={"a": "x" * 65537}), "65537 bytes"),
        (Payload(info={str(i): i for i in range(1025)}), "1025 entries"),
        (Payload(info={5: 1, "a": 2}), "info has the key 5, which is no text"),  # type: ignore[dict-item]
        (Payload(info={"\ud800": 1}), "is not a text of UTF-8"),
        (Payload({5: ONE}), "5 names a weight or a group: it must be a text"),  # type: ignore[dict-item]
        (Payload({"\ud800": ONE}), "is not a text of UTF-8"),
        (Payload({}, {5: np.ones(3, bool)}), "5 is not a text"),  # type: ignore[dict-item]
        (Payload({"a": ONE}, kind="foo"), "kind is 'foo'"),  # type: ignore[arg-type]
        (Payload({"a": ONE}, absent="bar"), "absent 'bar': allowed are .*'unheld', 'zero'"),  # type: ignore[arg-type]
        (
            Payload({"a": ONE}, {"a": Packed(np.array([255], np.uint8), (3,), 3)}),
            "mask of tensor 'a' is no bitmap of 3",
        ),
        (Payload({"a": ONE}, {"a": Packed(np.zeros(2, np.uint8), (3,), 0)}), "mask of tensor 'a' is no bitmap of 3"),
        (Payload({"a": ONE}, {"a": Packed(np.zeros(2, np.uint8)[::2], (16,), 0)}), "mask of tensor 'a'"),
    ],
)
def test_payloads_without_a_place_in_the_format(payload: Payload, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        codec.encode(payload)


@pytest.mark.parametrize("ids", [Ids(run=1 << 64), Ids(round=-1), Ids(client=-1), Ids(generation=1 << 32)])
def test_ids_out_of_range(ids: Ids) -> None:
    with pytest.raises(ValueError, match="id is .* allowed is 0 to"):
        codec.encode(Payload(), ids=ids)


def test_values_that_there_are_not() -> None:
    with pytest.raises(ValueError, match="values is 'int3', allowed are: fp32, bf16, fp16, int8, int4"):
        codec.encode(Payload(), values="int3")


@pytest.mark.parametrize("values", ["int8", "int4"])
def test_rounding_at_random_needs_a_seed(values: str) -> None:
    with pytest.raises(ValueError, match="a seed is needed"):
        codec.encode(Payload(), values=values)


def test_a_mask_that_the_schema_does_not_allow() -> None:
    schema = Schema({"a": Spec("float32", (3,)), "b": Spec("float32", (3,))}, frozenset({"b"}))
    with pytest.raises(ValueError, match="'a' has a mask, which the schema does not allow"):
        codec.encode(Payload({"a": ONE, "b": ONE}, {"a": ONE == 0, "b": ONE == 0}), schema=schema)


@pytest.mark.parametrize("seed", [-7, 2**80 + 7, np.int64(7), np.int8(-7), torch.tensor(7)])
def test_any_integer_is_a_seed(seed: int) -> None:
    payload = Payload({"w": np.linspace(-1, 1, 600, dtype=np.float32).reshape(2, 300)})
    word = int(seed) % (1 << 64)
    assert codec.encode(payload, values="int8", seed=seed) == codec.encode(payload, values="int8", seed=word)
    assert codec.Seeded((9,), 3, (seed, 2)) == codec.Seeded((9,), 3, (word, 2))


@pytest.mark.parametrize("seed", [1.5, "1"])
def test_nothing_else_is_one(seed: object) -> None:
    with pytest.raises(ValueError, match=f"seed is {seed!r}, needed is an integer"):
        codec.encode(Payload(), values="int8", seed=seed)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"seed is {seed!r}, needed is an integer"):
        codec.Seeded((9,), 3, (1, seed))  # type: ignore[arg-type]


def test_more_kept_than_there_are() -> None:
    with pytest.raises(ValueError, match="5 of 4 positions cannot be kept"):
        codec.encode(Payload({}, {"w": codec.Seeded((4,), 5, (0, 0))}))


def test_missing_kernels_warn_once_and_name_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    monkeypatch.setattr(kernels, "COMPILED", "fedsparse.codec._nowhere")
    with pytest.warns(RuntimeWarning) as caught:
        assert kernels._choose()[1] == "numpy"
    assert len(caught) == 1
    words = str(caught[0].message)
    assert "_nowhere" in words and "source tree" in words and "compiler" in words


def test_stale_kernels_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    monkeypatch.setattr(kernels, "COMPILED", "fedsparse.codec.wire")  # a module without a version
    with pytest.warns(RuntimeWarning, match="another version"):
        assert kernels._choose()[1] == "numpy"


def test_numpy_by_wish_gives_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.VARIABLE, "numpy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels._choose() == (kernels.reference, "numpy")


def test_unknown_isa(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.VARIABLE, "mmx")
    with pytest.raises(InputError, match="FEDSPARSE_ISA is 'mmx', allowed are c, avx2, avx512, numpy"):
        kernels._choose()

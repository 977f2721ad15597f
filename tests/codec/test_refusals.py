"""What the encoder and the choice of kernels refuse, in words that help."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from fedsparse import codec
from fedsparse.codec import kernels
from fedsparse.errors import InputError
from fedsparse.payload import Ids, Payload

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

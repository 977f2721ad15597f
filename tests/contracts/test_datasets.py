"""What every shipped data set keeps to."""

import numpy as np
import pytest
import torch

from fedsparse import registry
from fedsparse.data import Data, Dataset
from fedsparse.errors import InputError

NAMES = registry.names("datasets")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def test_there_are_datasets():
    assert {"digits", "fashion_mnist"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_dataset(name):
    kind = registry.find("datasets", name)
    assert issubclass(kind, Dataset) and registry.summary("datasets", name)
    assert all(field.description for field in kind.model_fields.values())
    if any(field.is_required() for field in kind.model_fields.values()):
        pytest.skip(f"{name} has options without a default")
    dataset = kind(**({"download": False} if "download" in kind.model_fields else {}))
    hash(dataset)  # the runs of a comparison share it by its options
    try:
        data = dataset.load()
    except InputError as error:
        assert "\n" not in str(error) and "FEDSPARSE_DATA" in str(error)
        pytest.skip(str(error))
    check(data)
    again = dataset.load()
    assert torch.equal(data.x, again.x) and torch.equal(data.y, again.y)


def check(data: Data) -> None:
    for x, y in [(data.x, data.y), *([data.test] if data.test else [])]:
        assert x.is_contiguous() and x.dtype in (torch.float32, torch.int64)
        assert x.shape[1:] == data.x.shape[1:] and torch.isfinite(x).all() and torch.isfinite(y).all()
        assert y.dtype == (torch.float32 if data.classes is None else torch.int64)
    if data.classes is not None and data.x.dtype == torch.float32:  # of tokens some are too rare to be a target
        assert data.y.unique().tolist() == list(range(data.classes))
    for ids in (data.clients, data.groups):
        assert ids is None or isinstance(ids, np.ndarray)

"""torchvision can be imported beside any PyTorch, before and after others try."""

import subprocess
import sys

import pytest

USE = """
import torch
assert torchvision.models.resnet18(num_classes=3).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
assert torchvision.transforms.functional.hflip(torch.arange(2.0).reshape(1, 1, 2)).tolist() == [[[1.0, 0.0]]]
assert torchvision.datasets.FashionMNIST and torchvision.extension and torchvision.ops
"""

OURS = "from fedsparse.vision import torchvision\n"
AFTER_A_FAILURE = (
    "try:\n    import torchvision\nexcept RuntimeError:\n    pass\n" + OURS + "import torchvision.datasets\n"
)


@pytest.mark.parametrize("first", [OURS, OURS + "import torchvision\n", AFTER_A_FAILURE])
def test_import(first):
    path = f"import sys; sys.path[:] = {sys.path!r}\n"
    done = subprocess.run([sys.executable, "-c", path + first + USE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_what_torchvision_declares_itself_is_left_alone():
    # A stand-in for a torchvision that fits its PyTorch: its operators are there before ours are declared.
    script = f"""import sys; sys.path[:] = {sys.path!r}
from torch import library
theirs = library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    theirs.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import fedsparse.vision
assert fedsparse.vision._declared == []
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

"""Residual networks for small pictures, after He et al. (arXiv 1512.03385), section 4.2."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from fedsparse.models.base import Scaled, he, picture


class ResNet(Scaled):
    """CIFAR ResNet: three stages of 16, 32 and 64 channels with BatchNorm; ResNet-20 has 269,722 weights."""

    depth: Literal[20, 32, 44, 56] = 20
    """Layers with weights: two in each of 9, 15, 21 or 27 blocks, one before and one after them."""

    def build(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """On 3 x 32 x 32 with 10 classes 269,722, 464,154, 658,586 and 853,018 weights. Pictures have 8 to 256 pixels a
        side.

        Shortcuts are the paper's option A, which has no weights: where a stage begins, every second pixel, and zeros
        as the new channels.
        """
        channels, _, _ = picture(shape, "resnet", "pictures of 8 to 256 pixels a side", range(8, 257))
        wide = self.units(16)
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv=nn.Conv2d(channels, wide, 3, padding=1, bias=False), norm=nn.BatchNorm2d(wide), relu=nn.ReLU()
        )
        for stage, planned in enumerate((16, 32, 64), start=1):
            blocks = []
            for i in range((self.depth - 2) // 6):
                before, wide = wide, self.units(planned)
                blocks.append(Block(before, wide, stride=2 if stage > 1 and i == 0 else 1))
            layers[f"stage{stage}"] = nn.Sequential(*blocks)
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["fc"] = nn.Linear(wide, outputs)
        return he(nn.Sequential(layers))


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut without weights: (N, before, H, W) to (N, after, H/stride, W/stride)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        new = out.shape[1] - x.shape[1]
        if self.stride > 1 or new:
            x = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, new))
        return (out + x).relu()

"""torchvision's ResNet-18 and ResNet-34 with a stem for small pictures, as papers train them on CIFAR."""

from __future__ import annotations

from typing import Literal

from torch import nn

from fedsparse.models.base import Model, picture


class TorchvisionResNet(Model):
    """ResNet-18 or ResNet-34 of torchvision with the CIFAR stem; ResNet-18 has 11,220,132 weights for 100 classes."""

    depth: Literal[18, 34] = 18
    """Layers with weights."""

    def build(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """On 3 x 32 x 32 with 10 classes 11,173,962 and 21,282,122 weights, none pretrained. Pictures have 8 to 256
        pixels a side.

        The stem is one 3 x 3 convolution of stride 1 without pooling, in place of 7 x 7, stride 2 and pooling.
        """
        channels, _, _ = picture(shape, "torchvision_resnet", "pictures of 8 to 256 pixels a side", range(8, 257))
        from fedsparse.vision import torchvision  # costs a second: only who needs it pays

        models = torchvision.models
        net: nn.Module = {18: models.resnet18, 34: models.resnet34}[self.depth](weights=None, num_classes=outputs)
        net.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's own are drawn
        net.maxpool = nn.Identity()
        return net

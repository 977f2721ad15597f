"""LeNet-5 (LeCun et al., 1998), as today's papers use it: ReLU and max pooling, full connections between the maps."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from fedsparse.models.base import Scaled, picture


class LeNet5(Scaled):
    """LeNet-5 for pictures of 28 x 28 or 32 x 32: 61,706 weights on 1 x 28 x 28 and 10 classes."""

    def build(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """The first convolution pads 28 x 28 to the 32 x 32 of the original; both end in 16 maps of 5 x 5."""
        channels, height, width = picture(shape, "lenet5", "pictures of 28 x 28 or 32 x 32", (28, 32))
        maps1, maps2, units1, units2 = map(self.units, (6, 16, 120, 84))
        padding = ((32 - height) // 2, (32 - width) // 2)
        return nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(channels, maps1, 5, padding=padding),
                pool1=nn.MaxPool2d(2),  # pooling first costs less, and gives the same bits
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(maps1, maps2, 5),
                pool2=nn.MaxPool2d(2),
                relu2=nn.ReLU(),
                flatten=nn.Flatten(),
                fc1=nn.Linear(25 * maps2, units1),
                relu3=nn.ReLU(),
                fc2=nn.Linear(units1, units2),
                relu4=nn.ReLU(),
                fc3=nn.Linear(units2, outputs),
            )
        )

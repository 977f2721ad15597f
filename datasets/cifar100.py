"""CIFAR-100 (Krizhevsky, 2009), read by torchvision's loader.

Looked for under FEDSPARSE_DATA as torchvision lays it out (cifar-100-python/, or cifar-100-python.tar.gz), else
downloaded once into the user's cache folder. Tested on small files in this format, never yet on the published ones.
"""

from __future__ import annotations

from fedsparse.data import Data, Dataset
from fedsparse.datasets._cifar import Published
from fedsparse.datasets._pictures import standardised

PUBLISHED = Published("cifar100", "CIFAR100", "cifar-100-python", "cifar-100-python.tar.gz")
MEAN, SD = (0.50707516, 0.48654887, 0.44091784), (0.26733429, 0.25643846, 0.27615047)
"""Red, green and blue of the training pictures, as shares of white."""


class CIFAR100(Dataset):
    """CIFAR-100: 50,000 + 10,000 pictures of 3 x 32 x 32, 100 fine classes, official test set; standardised."""

    download: bool = True
    """Download the 170 MB into the user's cache folder when they are not under FEDSPARSE_DATA."""

    def load(self) -> Data:
        """Pictures as 3 x 32 x 32, each channel with mean 0 and standard deviation 1; fine labels."""
        (x, y), (test, labels) = PUBLISHED.read(self.download)
        return Data(x=standardised(x, MEAN, SD), y=y, classes=100, test=(standardised(test, MEAN, SD), labels))

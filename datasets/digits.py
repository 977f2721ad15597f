"""Handwritten digits of scikit-learn (UCI Optical Recognition of Handwritten Digits): no download."""

from __future__ import annotations

import torch

from fedsparse.data import Data, Dataset


class Digits(Dataset):
    """Handwritten digits of scikit-learn: 1,797 pictures of 8 x 8, 10 classes, no official test set; no download."""

    def load(self) -> Data:
        """Pictures as 1 x 8 x 8 in [0, 1]."""
        from sklearn.datasets import load_digits  # costs half a second: only who needs it pays

        pictures, labels = load_digits(return_X_y=True)
        x = torch.from_numpy(pictures).float().div_(16.0).reshape(-1, 1, 8, 8)
        return Data(x=x, y=torch.from_numpy(labels).long(), classes=10)

"""Small dense: FedAvg on a thinner net of given bytes.

The comparison of Zhu and Gupta, To prune, or not to prune, arXiv 1710.01878: a large sparse net against a small dense
one of the same size. The thinner net has the same layers with fewer channels and hidden units, all by one factor (the
model's option `width`), so that its weights are `share` of the configured model's.

Differences from the paper: the paper compares MobileNets by their own width multiplier after central training; here any
model that has the option `width` is thinned, and trained by FedAvg.
"""

from __future__ import annotations

import torch

from fedsparse.errors import InputError
from fedsparse.models.base import Model
from fedsparse.options import Share
from fedsparse.strategies.fedavg import FedAvg

HALVINGS = 16


class SmallDense(FedAvg):
    """Small dense: FedAvg on a thinner net of given bytes."""

    share: Share = 0.2
    """Weights of the thinner net, as a share of the model's."""

    def model(self, model: Model, shape: tuple[int, ...], outputs: int) -> Model:
        """The model at the width whose number of weights is nearest to `share` of its own."""
        if "width" not in type(model).model_fields:
            raise InputError(f"small_dense needs a model with an option width, and {type(model).__name__} has none.")

        def at(width: float) -> Model:
            return model.model_copy(update={"width": width})

        def weights(width: float) -> int:
            with torch.device("meta"):  # shapes only
                return sum(tensor.numel() for tensor in at(width).build(shape, outputs).state_dict().values())

        full: float = model.width  # type: ignore[attr-defined]
        wanted, low, high = self.share * weights(full), 0.0, full
        for _ in range(HALVINGS):  # weights grow with the width, in steps
            middle = (low + high) / 2
            low, high = (middle, high) if weights(middle) <= wanted else (low, middle)
        found = min((w for w in (low, high) if w), key=lambda w: abs(weights(w) - wanted))
        if abs(weights(found) - wanted) > 0.1 * wanted:
            raise InputError(
                f"small_dense finds no width at which {type(model).__name__} has a share of {self.share:g} of its "
                f"weights: the nearest has {weights(found) / weights(full):.3g}."
            )
        return at(found)

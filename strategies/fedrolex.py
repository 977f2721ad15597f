"""FedRolex: HeteroFL whose window of units moves on by one each round, so that every weight is trained in its turn.

Alam, Liu, Yan, Zhang: FedRolex, Model-Heterogeneous Federated Learning with Rolling Sub-Model Extraction,
arXiv 2212.01548 (NeurIPS 2022). A sub-model's units are as many as in HeteroFL; they begin at unit 0 in the first
round, one further in each round after it, and go on at unit 0 when they have come to the last.

Differences from the paper: those of `heterofl`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fedsparse.strategies.heterofl import HeteroFL


class FedRolex(HeteroFL):
    """FedRolex: HeteroFL whose window of units moves on by one each round."""

    def kept(self, width: float, t: int) -> Mapping[str, Tensor]:
        return self.setup.channels.ordered(width, start=t - 1)

"""FedProx: FedAvg with a pull of every local model towards the global one.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith: Federated Optimization in Heterogeneous Networks, arXiv 1812.06127.
The local loss gets mu / 2 times the squared distance to the weights that the client received, so that clients with
unlike data drift less far apart.

Differences from the paper: all clients do the same number of epochs (the paper also lets slow ones do fewer), cohorts
are uniform and the mean is weighted by training samples, as in FedAvg.
"""

from __future__ import annotations

import torch
from torch import nn

from fedsparse.client import Client
from fedsparse.options import NonNegative
from fedsparse.payload import Payload
from fedsparse.strategies.fedavg import FedAvg


class FedProx(FedAvg):
    """FedProx: FedAvg with a pull of every local model towards the global one."""

    mu: NonNegative = 0.01
    """Strength of the pull: the factor of half the squared distance in the loss."""

    def train(self, received: Payload, client: Client) -> Payload:
        model = client.model(received.weights)
        anchors = [(p, p.detach().clone()) for p in model.parameters()]

        def pull(model: nn.Module) -> None:
            with torch.no_grad():
                for own, anchor in anchors:
                    if own.grad is not None:
                        own.grad.add_(own - anchor, alpha=self.mu)  # the gradient of mu / 2 |own - anchor|^2

        client.fit(model, before_step=pull)
        return Payload(weights=client.weights(model))

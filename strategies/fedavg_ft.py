"""FedAvg with fine-tuning: each client trains the global model a little further on its own data before it uses it.

Wang, Mathews, Kiddon, Eichner, Beaufays, Ramage: Federated Evaluation of On-device Personalization, arXiv 1910.10252.
The global model and the traffic are FedAvg's to the byte; only the model that a client uses (`metric_personal`) is
another. It says how much of a personal gain needs no personal method.

Differences from the paper: the paper tunes the learning rate and length of fine-tuning for each task; here both are the
run's, and `epochs` is the length.
"""

from __future__ import annotations

from torch import nn

from fedsparse.client import Client
from fedsparse.options import Count
from fedsparse.payload import Payload
from fedsparse.strategies.fedavg import FedAvg


class FedAvgFT(FedAvg):
    """FedAvg with fine-tuning: each client trains the global model further on its own data before it uses it."""

    epochs: Count = 1
    """Passes over the client's training part before it uses the model."""

    def personal(self, received: Payload, client: Client) -> nn.Module:
        model = client.model(received.weights)
        client.fit(model, epochs=self.epochs)
        return model

"""A recurrent network for text, after the character model of McMahan et al. (arXiv 1602.05629)."""

from __future__ import annotations

from torch import Tensor, nn

from fedsparse.errors import InputError
from fedsparse.models.base import Scaled
from fedsparse.options import Count


class LSTM(Scaled):
    """LSTM for text: an embedding, recurrent layers, one linear layer over the last step; predicts the next token.

    Only the weights of convolutions and linear layers can be masked: the embedding and the recurrent layers, here
    nearly all weights, travel dense whatever the strategy.
    """

    embedding: Count = 8
    """Numbers that a token becomes; `width` leaves them."""
    hidden: Count = 256
    """Units of each recurrent layer."""
    layers: Count = 2
    """Recurrent layers."""

    def build(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """820,980 weights for 84 outputs. Inputs are tokens from 0 to `outputs` - 1: both have one vocabulary."""
        if len(shape) != 1 or shape[0] < 1:
            got = " x ".join(map(str, shape)) or "single numbers"
            raise InputError(f"The model lstm takes sequences of tokens, not inputs of {got}.")
        return _Network(outputs, self.embedding, self.units(self.hidden), self.layers)


class _Network(nn.Module):
    def __init__(self, vocabulary: int, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True)
        self.fc = nn.Linear(hidden, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        """(N, outputs) from tokens (N, length), as integers or as floats that hold them."""
        steps, _ = self.lstm(self.embedding(x.long()))
        logits: Tensor = self.fc(steps[:, -1])
        return logits

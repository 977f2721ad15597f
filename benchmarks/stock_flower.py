"""What the codec saves under a stock Flower app: `python benchmarks/stock_flower.py [--rounds 10]`.

FedAvg of Flower, three clients, scikit-learn's digits, three linear layers (301,066 weights), SGD with learning rate
0.05 and momentum 0.9; dense, and with 10 % of the weights, by magnitude. Each row is one run with our two lines; its
bytes are a share of what np.save makes of the same arrays, as Flower sends them. The last column says whether the run
ends with the weights of a run without our lines.
"""

from __future__ import annotations

import argparse
import logging
import random
from collections.abc import Iterable, Iterator

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from sklearn.datasets import load_digits
from torch import nn

from fedsparse.flower import CompressedGrid, compress_mod, private
from fedsparse.flower.grids import OwnGrid

CLIENTS = 3
VALUES = ("fp32", "bf16", "int8", "int4")


class InProcess(OwnGrid):
    """Three clients in this process."""

    def __init__(self, app: ClientApp) -> None:
        super().__init__(CLIENTS, {})
        self.app = app

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        for i, message in enumerate(messages):
            private.set_message_id(message, str(i))
            yield self.app(message, Context(1, message.metadata.dst_node_id, {}, RecordDict(), {}))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def initial(density: float) -> ArrayRecord:
    model = net()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1 and density < 1:
                weights.masked_fill_(weights.abs() < weights.abs().flatten().quantile(1 - density), 0)
    return ArrayRecord(model.state_dict())


def client(mods: list) -> ClientApp:
    """A pass over a third of the digits; zeros stay zero."""
    pictures, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pictures / 16).float(), torch.tensor(labels)
    app = ClientApp(mods=mods)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        model = net()
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        zeros = [weights == 0 for weights in model.parameters()]
        mine = torch.arange(context.node_id % CLIENTS, len(x), CLIENTS)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for batch in mine[torch.randperm(len(mine), generator=torch.Generator().manual_seed(0))].split(32):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
            with torch.no_grad():
                for weights, zero in zip(model.parameters(), zeros, strict=True):
                    weights.masked_fill_(zero, 0)
        told = MetricRecord({"num-examples": len(mine)})
        return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": told}), reply_to=message)

    return app


def run(grid: OwnGrid | CompressedGrid, density: float, rounds: int) -> ArrayRecord:
    random.seed(0)  # Flower draws the order of clients
    strategy = FedAvg(fraction_evaluate=0.0)
    return strategy.start(grid=grid, initial_arrays=initial(density), num_rounds=rounds).arrays


def share(grid: CompressedGrid, direction: str) -> float:
    rows = [row for row in grid.transfers if row.direction == direction]
    return sum(row.sent for row in rows) / sum(row.stock for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    print("| density | values | down | up | same weights |\n|---|---|---|---|---|")
    for density in (1.0, 0.1):
        stock = run(InProcess(client([])), density, rounds)
        for values in VALUES:
            grid = CompressedGrid(InProcess(client([compress_mod])), values)
            equal = [*run(grid, density, rounds).items()] == [*stock.items()]
            down, up = share(grid, "down"), share(grid, "up")
            print(f"| {density:g} | {values} | {down:.1%} | {up:.1%} | {'yes' if equal else 'no'} |", flush=True)


if __name__ == "__main__":
    main()

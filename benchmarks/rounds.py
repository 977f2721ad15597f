"""What a round costs when nobody trains: our `ray` runtime against Flower's own simulation, in one run.

    python benchmarks/rounds.py [--rounds 100] [--clients 10] [--turns 2]

60k parameters each way, 10 clients a round, two workers, evaluation and figures off (the last round is always evaluated
and not counted). Both sides run in turn, in processes of their own; the first round of each (start of Ray, imports) is
left out. Ours encodes, checks, decodes, averages and books every message; Flower's FedAvg averages.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHAPES = {
    "fc1.weight": (512, 64),
    "fc1.bias": (512,),
    "fc2.weight": (50, 512),
    "fc2.bias": (50,),
    "fc3.weight": (10, 50),
    "fc3.bias": (10,),
}


def ours(rounds: int, clients: int) -> list[float]:
    """Seconds of each round of ours."""
    from fedsparse.experiment import Experiment
    from fedsparse.federation import federation
    from fedsparse.flower.runtimes import runtime
    from fedsparse.flower.server_app import run_id, serve

    experiment = Experiment.load(
        {"dataset": "digits", "partition": "iid", "model": {"name": "mlp", "hidden": [512, 50]}},
        rounds=rounds + 1,
        clients=clients,
        eval_every=rounds + 1,
        strategy=f"{HERE / 'noop.py'}:NoOp",
        runtime={"name": "ray", "workers": 2},
    )
    text = experiment.to_toml()
    built = federation(text)
    times: list[float] = []
    with tempfile.TemporaryDirectory() as place, runtime([experiment]) as grid_for:
        grid = grid_for(clients, {"experiment": text, "stores": f"{place}/clients"}, run_id(built))
        serve(built, grid, Path(place), "noop", lambda row: times.append(row["seconds"]))
    return times[1:-1]


def flowers(rounds: int, clients: int) -> list[float]:
    """Seconds of each round of Flower's simulation."""
    import numpy as np
    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    times: list[float] = []

    class Timed(FedAvg):
        def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid):  # type: ignore[no-untyped-def]
            times.append(time.perf_counter())
            return super().configure_train(server_round, arrays, config, grid)

    client, server = ClientApp(), ServerApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        content = RecordDict({"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})})
        return Message(content, reply_to=message)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        arrays = ArrayRecord([np.zeros(shape, dtype=np.float32) for shape in SHAPES.values()])
        Timed(fraction_evaluate=0.0, min_available_nodes=clients).start(grid, arrays, num_rounds=rounds + 2)

    backend = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "init_args": {"num_cpus": 2, "include_dashboard": False},
    }
    run_simulation(server, client, clients, backend_config=backend)
    return [b - a for a, b in zip(times[1:], times[2:], strict=False)]


def child(side: str, rounds: int, clients: int) -> list[float]:
    """Run one side in its own process."""
    environment = os.environ | {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with tempfile.NamedTemporaryFile(suffix=".json") as answer:
        command = [
            sys.executable,
            __file__,
            "--side",
            side,
            "--rounds",
            str(rounds),
            "--clients",
            str(clients),
            "--answer",
            answer.name,
        ]
        subprocess.run(
            command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600
        )
        return list(json.loads(Path(answer.name).read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--side", choices=["ours", "flower"])
    parser.add_argument("--answer")
    options = parser.parse_args()
    if options.side:
        times = (ours if options.side == "ours" else flowers)(options.rounds, options.clients)
        Path(options.answer).write_text(json.dumps(times))
        return
    found: dict[str, list[float]] = {"ours": [], "flower": []}
    for _ in range(options.turns):
        for side, times in found.items():
            times += child(side, options.rounds, options.clients)
    for side, times in found.items():
        print(
            f"{side:7} {len(times):4} rounds: median {statistics.median(times) * 1e3:8.1f} ms, "
            f"min {min(times) * 1e3:8.1f} ms"
        )
    middle, least = (f(found["ours"]) / f(found["flower"]) for f in (statistics.median, min))
    print(f"ours / Flower: median {middle:.3f}, min {least:.3f}")


if __name__ == "__main__":
    main()

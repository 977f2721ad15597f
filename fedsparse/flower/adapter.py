"""The Flower strategy that drives any of ours: Flower's hooks, our rounds."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result
from flwr.serverapp.strategy import Strategy as FlowerStrategy
from torch import Tensor

from fedsparse import clock, masks, train
from fedsparse.errors import RunError
from fedsparse.federation import Federation
from fedsparse.flower.client_app import EVALUATE
from fedsparse.flower.exchange import Exchange
from fedsparse.flower.held import Holdings
from fedsparse.ledger import Ledger
from fedsparse.payload import Payload
from fedsparse.strategy import State, Task

log = logging.getLogger("fedsparse")
REPLY_DEADLINE = 3600.0  # seconds; Flower's own default


class Adapter(FlowerStrategy):
    """Drives a federation's strategy over any Flower Grid and keeps the run's book.

    `start` overrides Flower's loop, because a round may hold several tasks and a run may start later than at round 1.
    `on_round(row)` is called with each finished row of the `rounds` table.
    """

    def __init__(
        self,
        federation: Federation,
        ledger: Ledger,
        run_id: int,
        on_round: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.federation, self.ledger, self.run_id = federation, ledger, run_id
        self.on_round = on_round or (lambda row: None)
        self.strategy = federation.strategy
        self.state: State = self.strategy.init(federation.shared, federation.setup.nodes)
        self.generations: dict[int, int] = {}
        options = federation.experiment.wire
        self.holdings = Holdings(options.history if options.references else 0)
        self.exchange: Exchange | None = None
        self.now = 0.0  # simulated seconds since the run began
        self._used = 0  # replies that entered a model
        self._first = 0  # so many replies end a task; 0: all
        self._task: Task | None = None
        self._grid: Grid | None = None
        self._timeout: float | None = None
        self._row: dict[str, Any] = {}
        self._held: dict[int, dict[str, Tensor]] = {}  # the masks that the clients of this round hold

    def summary(self) -> None:
        """Log what is run."""
        log.info("%s with %d clients", self.federation.experiment.strategy.label, len(self.federation.nodes))

    # ---- one task: Flower's hooks ----

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The messages of the task at hand (by default the round's first)."""
        task = self._task or self.strategy.plan(self.state, server_round)[0]
        return self._open(task, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Merge the replies into the server's state. RunError when nobody replied: there is nothing to go on with."""
        exchange = self._receive(replies)
        self.state = self.strategy.merge(self.state, exchange, exchange.task)
        seen = exchange.close()
        self._used += len(seen)
        self._row["sim_seconds"] = self._row.get("sim_seconds", 0.0) + exchange.end.seconds
        if not seen and exchange.excused:
            log.warning("round %d: no reply came in time; the model stays as it is", server_round)
            return None, None
        if not seen:
            why = exchange.why or "nobody replied in time"
            raise RunError(f"round {server_round}: no client's {exchange.task.phase} reply could be used ({why})")
        losses = [(self.federation.nodes[c].examples, s.info["loss"]) for c, s in seen.items() if "loss" in s.info]
        if losses:
            self._row["loss"] = sum(n * float(v) for n, v in losses) / sum(n for n, _ in losses)
        if losses or "density" not in self._row:  # of the models that were trained
            self._row["density"] = sum(s.density for s in seen.values()) / len(seen)
        return None, None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """All clients evaluate the model that each would use."""
        return self._open(Task(EVALUATE, server_round, self.federation.nodes), grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Book the clients' own metrics: their unweighted mean and the worst decile's."""
        seen = self._receive(replies).close()
        if not seen:
            log.warning("round %d: no client could be evaluated", server_round)
        values = sorted(
            (float(s.info["metric"]) for s in seen.values()), reverse=not self.federation.data.higher_is_better
        )
        if values:
            worst = values[: max(1, len(values) // 10)]
            self._row |= {"metric_personal": sum(values) / len(values), "metric_worst_decile": sum(worst) / len(worst)}
        return None

    def _open(self, task: Task, grid: Grid) -> Iterable[Message]:
        self._grid = grid
        held = self._held if self._due(task.round) and task.phase != EVALUATE else None
        if task.phase != EVALUATE:
            self.holdings.begin()
        self.exchange = Exchange(
            self.federation, self.ledger, task, self.run_id, self.generations, self.holdings, held=held,
            first=self._first if task.phase != EVALUATE else 0,
        )  # fmt: skip
        return self.exchange.messages(grid, lambda node: self.strategy.send(self.state, node, task))

    def _receive(self, replies: Iterable[Message]) -> Exchange:
        if self.exchange is None:
            raise RunError("replies came before any message was made")
        self.exchange.receive(replies, self._grid, self._timeout)
        return self.exchange

    # ---- the run ----

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int | None = None,
        timeout: float | None = REPLY_DEADLINE,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """All rounds. The weights are the federation's own, so Flower's arrays and configs may be left out."""
        self.summary()
        self._timeout = timeout
        arrays, config = initial_arrays or ArrayRecord(), train_config or ConfigRecord()
        for t in range(1, (num_rounds or self.federation.experiment.rounds) + 1):
            began, self._row, self._held = time.perf_counter(), {"round": t}, {}
            self._wait()
            for task in self.strategy.plan(self.state, t):
                self._task = task
                self.aggregate_train(
                    t, grid.send_and_receive(self.configure_train(t, arrays, config, grid), timeout=timeout)
                )
            self._layers(t)
            if self._due(t):
                messages = self.configure_evaluate(t, arrays, evaluate_config or ConfigRecord(), grid)
                self.aggregate_evaluate(t, grid.send_and_receive(messages, timeout=timeout))
                self._central()
            self._end_round(time.perf_counter() - began)
        if not self._used:
            raise RunError("no reply came in time in any round: the model was never trained")
        return Result()

    def _wait(self) -> None:
        """Let the clock wait until clients are ready, and draw this round's cohort from them."""
        options, nodes = self.federation.experiment.clock, self.federation.nodes
        wanted = self.federation.setup.per_round
        moment = clock.wait([node.profile for node in nodes], self.now, options.minimum)
        ready = tuple(node for node in nodes if node.profile.availability.ready(moment))
        asked = math.ceil(wanted * (1 + options.over_selection) - 1e-9)
        self.strategy = self.federation.strategy.among(ready, min(asked, len(ready)))
        self._first = wanted if options.over_selection else 0
        self._row |= {"sim_wait": moment - self.now, "sim_seconds": moment - self.now}

    def _due(self, t: int) -> bool:
        experiment = self.federation.experiment
        return t % experiment.eval_every == 0 or t == experiment.rounds

    def model(self) -> Payload | None:
        """The model that is evaluated centrally; None where there is none, or BatchNorm never leaves the clients."""
        return None if self.federation.local else self.strategy.global_model(self.state)

    def _central(self) -> None:
        if (model := self.model()) is not None:
            (x, y), data = self.federation.test, self.federation.data
            self._row["metric"] = train.evaluate(self.federation.module(model), x, y, data.task, unit=data.unit)[0]

    def _layers(self, t: int) -> None:
        """Density of every maskable layer, and how far the clients' own masks agree, in rounds with an evaluation."""
        model, sizes = self.strategy.global_model(self.state), self.federation.setup.sizes
        shared = masks.bits(model) if model else {}
        if shared:
            self._row["density"] = masks.density(shared, sizes)
        if not self._due(t):
            return
        held = list(self._held.values())
        for name, size in sizes.items():
            if name in shared:  # one mask for all, though each client may send it
                layer = [shared[name]]
            elif any(name in client for client in held):  # then a client without this mask holds the layer whole
                whole = torch.ones(self.federation.setup.shapes[name], dtype=torch.bool)
                layer = [client.get(name, whole) for client in held]
            else:
                layer = []
            kept = sum(int(mask.sum()) for mask in layer) / (size * len(layer)) if layer else 1.0
            agreement = masks.jaccard(layer) if len(layer) > 1 else None
            self.ledger.add("layers", round=t, layer=name, density=kept, agreement=agreement)

    def _end_round(self, seconds: float) -> None:
        empty = dict.fromkeys(("loss", "metric", "metric_personal", "metric_worst_decile", "density"))
        self.now += self._row["sim_seconds"]
        told = {f"x_{k}": float(v) for k, v in self.state.stats.items() if not isinstance(v, str)}
        self.on_round(self.ledger.end_round(**{**empty, **self._row}, seconds=seconds, **told))


def named_tensors(model: Payload) -> dict[str, Tensor]:
    """The tensors of a model as they are stored: weights by name, masks beside them as `NAME.__mask__` (uint8)."""
    stored = {
        name: torch.as_tensor(tensor).contiguous()
        for name, tensor in masks.apply(model.weights, masks.bits(model)).items()
    }
    return stored | {f"{n}.__mask__": m.dense().to(torch.uint8).contiguous() for n, m in model.masks.items()}

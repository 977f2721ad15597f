"""The client, in every runtime: one Flower ClientApp that runs a phase of the strategy on one client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedsparse import codec, train
from fedsparse.client import Client
from fedsparse.codec import NotHeld
from fedsparse.errors import RunError
from fedsparse.federation import Federation
from fedsparse.flops import Flops
from fedsparse.flower import held, wire
from fedsparse.flower.context import CALL, client_number, home, present
from fedsparse.payload import Payload
from fedsparse.randomness import integer
from fedsparse.store import Store

EVALUATE = "evaluate"

app = ClientApp()


@app.train()
@app.evaluate()
def handle(message: Message, context: Context) -> Message:
    """One message: decode, run the phase, encode. The experiment comes with the run config.

    The reply to a message that relies on what this client does not hold says so, and no more.
    """
    began = time.perf_counter()
    data, phase, _ = wire.unpack(message)
    built, stores = home(context)
    if codec.header(data).ids.client != client_number(context):
        raise RunError(f"a message for another client came to client {client_number(context)}")
    try:
        reply, flops = perform(built, phase, data, stores)
    except NotHeld:
        reply, flops = codec.encode(Payload(), schema=wire.NOTHING, ids=codec.header(data).ids), Flops()
        phase = wire.NOT_HELD
    cost = wire.Cost(time.perf_counter() - began, flops.dense, flops.sparse)
    return Message(wire.content(reply, phase, cost), reply_to=message)


@app.query()
def answer(message: Message, context: Context) -> Message:
    """The roll call: who this is, once it has loaded its data."""
    built, _ = home(context)
    client = client_number(context)
    examples = len(built.parts[client].train) if client < len(built.parts) else 0
    told = ConfigRecord({"client": client, "examples": examples, **present(built)})
    return Message(RecordDict({CALL: told}), reply_to=message)


def perform(built: Federation, phase: str, data: bytes, stores: Path | None) -> tuple[bytes, Flops]:
    """The reply to an encoded payload, and what it cost. Everything that it depends on is in the arguments.

    NotHeld when the payload relies on what this client does not hold.
    """
    ids = codec.header(data).ids
    strategy, options = built.strategy, built.experiment.wire
    if ids.client >= len(built.nodes):
        raise RunError(f"there is no client {ids.client}: the federation has {len(built.nodes)}")
    keeps = options.references and phase != EVALUATE
    folder = stores / held.RECEIVED / str(ids.client) if stores and keeps else None
    received = held.receive(data, strategy.downlink_schema(phase), folder)
    client = built.client(ids.client, ids.round, phase, Store(stores and stores / str(ids.client), ids.generation))
    with seeded(integer(built.setup.seed, ids.round, phase, ids.client, "torch")):
        if phase == EVALUATE:
            reply, schema = _evaluate(built, held.copied(received), client), wire.NOTHING
        else:
            reply = _train(built, phase, held.copied(received), client)
            schema = strategy.uplink_schema(phase)
    generation = client.store.commit() if phase != EVALUATE else ids.generation
    near = held.arrays(received) if held.differs(reply.kind, options) else {}
    ids = replace(ids, generation=generation)
    return wire.encode(reply, schema, ids, options.values, client.wire_seed, received.masks, near), client.flops


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, PyTorch's own generators (dropout draws from them) are seeded; afterwards the CPU's is as it was."""
    before = torch.get_rng_state()
    if torch.cuda.is_available():
        torch.cuda.manual_seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed costs 2 ms: it also visits devices that are not there
    try:
        yield
    finally:
        torch.set_rng_state(before)


def _train(built: Federation, phase: str, received: Payload, client: Client) -> Payload:
    method = getattr(built.strategy, phase, None) if phase.isidentifier() and not phase.startswith("_") else None
    if method is None:
        raise RunError(f"strategy {built.experiment.strategy.name!r} has no phase {phase!r}")
    reply: Payload = method(received, client)
    told = {"examples": len(client.parts.train), "steps": client.steps_done}
    if client.losses:
        told["loss"] = sum(client.losses) / len(client.losses)  # type: ignore[assignment]
    return replace(reply, info={**reply.info, **told})


def _evaluate(built: Federation, received: Payload, client: Client) -> Payload:
    model = built.strategy.personal(received, client)
    x, y = client.part("test")
    metric, loss = train.evaluate(model, x, y, built.data.task, unit=built.data.unit)
    return Payload(info={"examples": len(y), "metric": metric, "loss": loss})

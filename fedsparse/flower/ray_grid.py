"""The `ray` runtime: a pool of Ray actors that keep data and model between clients.

A batch of messages is one actor call, because a call costs more than its bytes; at most two batches of an actor are
under way. When an actor dies it is replaced and its unanswered messages are asked once more, one message a call, so
that a message that kills its worker takes no other with it. Clients' states lie on disk, so it does not matter who
asks.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import Error, Message, UserConfig

from fedsparse import codec
from fedsparse.errors import InputError, RunError
from fedsparse.flower import letters, private, wire
from fedsparse.flower.grids import WORKER_DIED, OwnGrid, answer
from fedsparse.flower.letters import Letter

if TYPE_CHECKING:
    from fedsparse.sections import Runtime

log = logging.getLogger("fedsparse")
UNDER_WAY = 2  # batches of an actor
BATCHES = 4  # a cohort is cut into this many batches an actor, so that the faster one gets more,
SHORT = 0.05  # unless all of an actor's messages take less than this many seconds: then the calls would cost more
LARGEST_BATCH = 32
START_DEADLINE = 120.0  # seconds for an actor to import and answer
Batch = list[Message]


@dataclass
class Content:
    """An encoded payload, what it has beside its ids, and where Ray keeps it, if it does."""

    data: bytes
    key: tuple[bytes, bytes]
    kept: Any = None


def worker_class() -> type:
    """The actor's class, defined here so that Ray pickles it by value.

    A worker first takes over the driver's `sys.path`, then imports fedsparse, and so gets the driver's very copy
    whatever its working directory holds.
    """

    class Worker:
        def __init__(self, path: list[str], origin: str) -> None:
            import sys

            sys.path[:] = path
            import fedsparse

            if fedsparse.__file__ != origin:
                raise ImportError(f"this worker imported fedsparse from {fedsparse.__file__}, the driver from {origin}")
            import torch

            torch.set_num_threads(1)
            from fedsparse.flower import ray_grid

            self.work_on = ray_grid.work

        def ready(self) -> int:
            import os

            return os.getpid()

        def work(self, asked: bytes, run_config: dict[str, Any], *contents: bytes) -> list[bytes]:
            return self.work_on(asked, run_config, contents)

    return Worker


def work(asked: bytes, run_config: UserConfig, contents: tuple[bytes, ...]) -> list[bytes]:
    """The worker's half of a batch: the replies, and the seconds that they took."""
    began = time.perf_counter()
    replies = [answer(message, run_config) for message in letters.unpack(asked, contents)]
    return letters.pack_replies(replies, time.perf_counter() - began)


class Pool:
    """Ray, started for this process alone (or joined), with actors that live until the pool is closed."""

    def __init__(self, workers: int, options: Runtime, most: int | None = None) -> None:
        self.workers, self.options, self.most = workers, options, most
        self.actors: list[Any] = []

    def __enter__(self) -> Pool:
        import ray

        import fedsparse

        # Meant for those who rely on GPUs that they did not ask for: `client_gpus` asks.
        warnings.filterwarnings("ignore", message="Tip: In future versions of Ray", category=FutureWarning)
        self._ray, self._joined = ray, ray.is_initialized()
        if not self._joined:
            _start(ray, self._wanted(os.cpu_count() or 1), self.options.ray_address)
        self.workers = self._wanted(int(ray.cluster_resources().get("CPU", 1)))
        origin = str(fedsparse.__file__)
        actor: Any = ray.remote(num_cpus=1, num_gpus=self.options.client_gpus, max_restarts=0)(worker_class())
        self._new = lambda: actor.remote(_path(), origin)
        self.actors = [self._new() for _ in range(self.workers)]
        try:
            ray.get([one.ready.remote() for one in self.actors], timeout=START_DEADLINE)
        except BaseException as error:
            self.__exit__()
            if not isinstance(error, Exception):
                raise
            raise RunError(f"the Ray workers did not start: {str(error).strip().splitlines()[-1]}") from error
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self.actors:
            self._ray.kill(actor)
        self.actors = []
        if not self._joined:
            self._ray.shutdown()

    def _wanted(self, cores: int) -> int:  # as many as asked for, else one a core; never more than there is work for
        return max(1, min(self.workers or cores, self.most or self.workers or cores))

    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return list(self._ray.get([one.ready.remote() for one in self.actors]))

    def replace(self, dead: Any) -> None:
        """Put a new actor in the place of one that died or failed, unless that was done already."""
        if dead in self.actors:
            self._ray.kill(dead)  # it may only have raised: its CPU must be free for the next one
            place = self.actors.index(dead)
            log.warning("worker %d died and is replaced", place)
            self.actors[place] = self._new()

    def grid(self, clients: int, run_config: UserConfig, run_id: int) -> RayGrid:
        """The Grid of one run."""
        return RayGrid(self, clients, run_config, run_id)


def _start(ray: Any, workers: int, address: str) -> None:
    # Answers of up to 4 MB come with the call and not through the object store, which costs more below that.
    os.environ.setdefault("RAY_max_direct_call_object_size", "4000000")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        _knock(address)
        ray.init(address=address, **quiet)
    else:
        ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)


def _knock(address: str) -> None:
    """InputError when nobody listens at HOST:PORT: Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise InputError(f"no Ray cluster answers at runtime.ray_address = {address!r} ({error})") from None


def _path() -> list[str]:
    """The driver's import path with absolute entries; an empty entry means its working directory."""
    return [str(Path(entry or os.getcwd()).absolute()) for entry in sys.path]


class RayGrid(OwnGrid):
    """Sends batches of messages to the pool's actors and yields replies as they come."""

    def __init__(self, pool: Pool, clients: int, run_config: UserConfig, run_id: int = 1) -> None:
        super().__init__(clients, run_config, run_id)
        self.pool, self._ray = pool, pool._ray
        self._config = self._ray.put(dict(run_config))
        self._pace: float | None = None  # seconds that a message of the last batch took
        self._last: Content | None = None  # what was sent last

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Replies in the order in which they come; messages are made as workers become free.

        What has not come after `timeout` seconds is given up, its worker is replaced so that it does not answer later.
        """
        self.attempts = {}
        deadline = None if timeout is None else time.monotonic() + timeout
        rest, again = iter(messages), deque[Batch]()
        head = list(islice(rest, len(self.pool.actors) * UNDER_WAY * LARGEST_BATCH))
        size = self._batch_size(len(head))
        waiting = chain(head, rest)
        flying: dict[Any, tuple[Any, Batch]] = {}
        try:
            while True:
                self._fill(flying, waiting, again, size)
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                done = self._ray.wait(list(flying), num_returns=1, timeout=left)[0] if flying else []
                if not done:
                    return
                actor, batch = flying.pop(done[0])
                yield from self._collect(done[0], actor, batch, again)
        finally:  # also when the driver stops listening
            self._give_up(flying)

    def _batch_size(self, messages: int) -> int:
        """Messages a call, from how long the last ones took."""
        share = -(-messages // len(self.pool.actors))
        short = self._pace is not None and self._pace * share < SHORT
        return min(LARGEST_BATCH, max(1, share if short else -(-share // BATCHES)))

    def _fill(
        self, flying: dict[Any, tuple[Any, Batch]], waiting: Iterator[Message], again: deque[Batch], size: int
    ) -> None:
        """Give work to every actor that has less than two batches. What is asked again has its actor for itself."""
        load = dict.fromkeys(self.pool.actors, 0)
        for actor, batch in flying.values():
            load[actor] = load.get(actor, 0) + (UNDER_WAY if self._again(batch) else 1)
        for _ in range(UNDER_WAY):
            for actor in self.pool.actors:
                if again and not load[actor]:
                    batch = again.popleft()
                elif not again and load[actor] < UNDER_WAY:
                    batch = list(islice(waiting, size))
                else:
                    continue
                if not batch:
                    return
                load[actor] += UNDER_WAY if self._again(batch) else 1
                asked, contents = self._pack(batch)
                call = actor.work.remote(letters.pack(asked), self._config, *contents)
                flying[call] = (actor, batch)

    def _pack(self, batch: Batch) -> tuple[list[Letter], list[Any]]:
        """Messages as letters (what differs between them) and the distinct contents that they refer to.

        A content that is sent again and again, as a broadcast is, goes to Ray's object store once.
        """
        asked: list[Letter] = []
        contents: list[Content] = []
        for message in batch:
            data, phase, _ = wire.unpack(message)
            key = codec.content(data)
            if self._last is None or key != self._last.key:
                self._last = Content(data, key)
            if not contents or contents[-1] is not self._last:
                contents.append(self._last)
            asked.append((message, phase, codec.header(data).ids, len(contents) - 1))
        if len(contents) > 1:
            return asked, [content.data for content in contents]
        contents[0].kept = contents[0].kept or self._ray.put(contents[0].data)
        return asked, [contents[0].kept]

    def _again(self, batch: Batch) -> bool:
        return self.attempts.get(batch[0].metadata.dst_node_id - 1, 1) > 1

    def _collect(self, done: Any, actor: Any, batch: Batch, again: deque[Batch]) -> Iterator[Message]:
        try:
            replies, seconds = letters.unpack_replies(self._ray.get(done))
        except self._ray.exceptions.RayError as error:
            self.pool.replace(actor)
            for message in batch:
                client = message.metadata.dst_node_id - 1
                if self.attempts.get(client, 1) == 1:
                    self.attempts[client] = 2
                    again.append([message])
                else:
                    yield _lost(message, f"its worker died twice ({type(error).__name__})")
            return
        self._pace = seconds / len(batch)
        yield from replies

    def _give_up(self, flying: dict[Any, tuple[Any, Batch]]) -> None:
        """Nobody waits for these any more: their workers must not go on with them."""
        for actor in {actor for actor, _ in flying.values()}:
            self.pool.replace(actor)


def _lost(message: Message, why: str) -> Message:
    reply = Message(Error(code=WORKER_DIED, reason=why), reply_to=message)
    private.set_message_id(reply, f"reply-{message.metadata.message_id}")
    return reply

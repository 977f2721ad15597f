"""How the rows of a data set come to clients; `fedsparse.natural` has the partitions that need no number of them.

Everything here is a pure function of its arguments and the seed. The partitioners are those of flwr-datasets over
tables of two columns (label, index): the data itself stays where it is.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fedsparse.errors import InputError
from fedsparse.options import Count, Options, Positive, Whole
from fedsparse.randomness import generator

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner

    from fedsparse.data import Data

Indices = np.ndarray
"""Row numbers, int64, ascending, each once."""

TRIES = 20
"""Seeds that are tried until every client has `min_samples`; Dirichlet draws 11 times with each."""


class Partition(Options):
    """The base of every partition: which rows belong to which client.

    class Halves(Partition):
        '''Two clients: the first half of the rows and the second.'''
        name = "halves"
        def assign(self, data, clients, seed):
            return np.array_split(np.arange(len(data.x)), 2)
    """

    name: ClassVar[str]
    """What a config calls it."""
    natural: ClassVar[bool] = False
    """Whether the data say how many clients there are, so that a config may leave `clients` out."""
    own: ClassVar[bool] = False
    """Whether each client has its data on its own machine, so that nobody deals them out."""
    blind: ClassVar[bool] = False
    """Whether it looks at nothing but how many rows there are: then whole groups are dealt out, where there are any."""

    def split(self, data: Data, clients: int | None, seed: int) -> list[Indices]:
        """The rows of each client: row numbers, sorted. Raises InputError when it cannot be done."""
        if not self.natural:
            self._check(clients, len(data.x))
        whole = self.blind and data.groups is not None
        found = self._by_group(data, clients or 0, seed) if whole else self.assign(data, clients or 0, seed)
        if self.natural and clients not in (None, len(found)):
            raise InputError(
                f"clients = {clients} is written, but the partition {self.name} finds {len(found)} clients: "
                f"leave clients out or write {len(found)}."
            )
        parts = [np.sort(np.asarray(part, dtype=np.int64)) for part in found]
        for client, part in enumerate(parts):
            if len(part) == 0:
                raise InputError(
                    f"The partition {self.name} leaves client {client} without samples: each needs some, so take fewer "
                    f"clients{' or raise min_samples' if 'min_samples' in type(self).model_fields else ''}."
                )
        self._check_groups(data, parts)
        return parts

    def _by_group(self, data: Data, clients: int, seed: int) -> list[Indices]:
        """`assign` with a row for each group, then each group's rows."""
        _, first, group = np.unique(np.asarray(data.groups), return_index=True, return_inverse=True)
        units = replace(data, x=data.x[first], y=data.y[first], clients=None, groups=None, times=None)
        return [np.flatnonzero(np.isin(group, own)) for own in self.assign(units, clients, seed)]

    def _check_groups(self, data: Data, parts: list[Indices]) -> None:
        """A group of two clients would be in one's test part and another's training part: nothing would be unseen."""
        if data.groups is None:
            return
        owner: dict[Any, int] = {}
        for client, rows in enumerate(parts):
            for group in np.unique(data.groups[rows]).tolist():
                if owner.setdefault(group, client) != client:
                    raise InputError(
                        f"The partition {self.name} tears the group {group} apart between clients {owner[group]} and "
                        f"{client}, so that test rows would be known from training: take {fitting(data)}."
                    )
        if data.gap and not self.natural:
            raise InputError(
                f"The partition {self.name} parts rows that overlap in time between clients: take {fitting(data)}."
            )

    @abstractmethod
    def assign(self, data: Data, clients: int, seed: int) -> list[Indices]:
        """The rows of each client in any order: what a partition has to say. A natural one ignores `clients`."""

    def names(self, data: Data) -> list[str] | None:
        """What the clients are called, in their order; None where they are just numbered."""
        return None

    def left_out(self, data: Data) -> str:
        """Whose or which samples are no client's, in words; empty where all are somebody's."""
        return ""

    def _check(self, clients: int | None, samples: int) -> None:
        if clients is None:
            raise InputError(f"The partition {self.name} needs a number of clients.")
        if clients < 1:
            raise InputError(f"clients = {clients} is not possible: a federation has at least 1.")
        if clients > samples:
            raise InputError(
                f"clients = {clients} is more than the samples of the data set: allowed are 1 to {samples}."
            )


class IID(Partition):
    """Rows are dealt out at random, equally many to each client."""

    name = "iid"
    blind = True

    def assign(self, data: Data, clients: int, seed: int) -> list[Indices]:
        from flwr_datasets.partitioner import IidPartitioner

        # This partitioner cuts the table as it lies, so it gets the rows shuffled.
        order = generator(seed, "partition").permutation(len(data.x))
        return _load(IidPartitioner(clients), clients, order, order)


class Quantity(Partition):
    """Clients of unequal size: shares from one Dirichlet distribution, rows at random; labels are not looked at."""

    name = "quantity"
    blind = True

    alpha: Positive = 0.3
    """Concentration: 100 is nearly even, 0.1 leaves most samples to a few clients."""
    min_samples: Whole = 10
    """Fewest samples of a client: so many are dealt out to each before the rest is shared."""

    def assign(self, data: Data, clients: int, seed: int) -> list[Indices]:
        rest = len(data.x) - self.min_samples * clients
        if rest < 0:
            raise InputError(
                f"The partition quantity cannot give each of {clients} clients min_samples = {self.min_samples} of "
                f"{len(data.x)} samples: lower min_samples or clients."
            )
        rng = generator(seed, "partition")
        # NumPy's gamma variates overflow somewhere above: by then all shares are equal.
        shares = rng.dirichlet(np.full(clients, min(self.alpha, 1e9)))
        dealt = np.arange(1, clients) * self.min_samples
        return np.split(rng.permutation(len(data.x)), dealt + np.rint(rest * shares.cumsum()[:-1]).astype(np.int64))


class Dirichlet(Partition):
    """Each class is shared out by proportions from a Dirichlet distribution: the smaller alpha, the more skewed."""

    name = "dirichlet"

    alpha: Positive = 0.3
    """Concentration: 100 is nearly iid, 0.1 leaves most clients a few classes."""
    min_samples: Whole = 10
    """Fewest samples of a client; proportions are drawn again until every client has them."""

    def assign(self, data: Data, clients: int, seed: int) -> list[Indices]:
        from flwr_datasets.partitioner import DirichletPartitioner

        labels = _labels(self.name, data)
        for attempt in range(TRIES if self.min_samples * clients <= len(labels) else 0):
            try:
                return _load(
                    DirichletPartitioner(clients, "label", self.alpha, self.min_samples, seed=_seed(seed, attempt)),
                    clients,
                    labels,
                )
            except ValueError:
                continue  # no draw gave every client enough
        raise InputError(
            f"The partition dirichlet found no way to give each of {clients} clients min_samples = {self.min_samples} "
            f"of {len(labels)} samples with alpha = {self.alpha:g}: raise alpha, or lower min_samples or clients."
        )


class Pathological(Partition):
    """Each client has samples of a few classes only, after McMahan et al. (2017)."""

    name = "pathological"

    classes: Count = 2
    """Classes of each client; where clients are fewer than classes, one may get less, so that every class is used."""
    min_samples: Whole = 10
    """Fewest samples of a client; classes are drawn again until every client has them."""

    def assign(self, data: Data, clients: int, seed: int) -> list[Indices]:
        labels = _labels(self.name, data)
        values, labels = np.unique(labels, return_inverse=True)
        if self.classes > len(values):
            raise InputError(
                f"The partition pathological has classes = {self.classes}, allowed are 1 to {len(values)}."
            )
        if self.classes * clients < len(values):
            raise InputError(
                f"The partition pathological leaves some of {len(values)} classes to nobody with clients = {clients} "
                f"and classes = {self.classes}: raise either."
            )
        for attempt in range(TRIES if self.min_samples * clients <= len(labels) else 0):
            try:
                parts = self._draw(labels, clients, seed, attempt)
            except ValueError:
                continue  # a class was drawn by more clients than it has samples
            if min(map(len, parts)) >= self.min_samples:
                return parts
        raise InputError(
            f"The partition pathological found no way to give each of {clients} clients min_samples = "
            f"{self.min_samples} of {len(labels)} samples with classes = {self.classes}: lower min_samples or clients, "
            f"or raise classes."
        )

    def _draw(self, labels: Indices, clients: int, seed: int, attempt: int) -> list[Indices]:
        from flwr_datasets.partitioner import PathologicalPartitioner

        total = int(labels.max()) + 1
        if clients >= total:
            # The first class of client i is class i modulo their number, so each class is somebody's.
            return _load(
                PathologicalPartitioner(
                    clients, "label", self.classes, "first-deterministic", seed=_seed(seed, attempt)
                ),
                clients,
                labels,
            )
        # The partitioner would leave classes to nobody: here it deals out bundles of classes, drawn by the seed.
        bundle = generator(seed, "partition", attempt).permutation(total) // self.classes
        return _load(PathologicalPartitioner(clients, "label", 1, "deterministic"), clients, bundle[labels])


def fitting(data: Data) -> str:
    """The shipped partitions that the data set allows, in words."""
    labelled = data.classes is not None and data.y.ndim == 1 and data.groups is None
    names = [] if data.gap else ["iid", "quantity"]
    names += ["dirichlet", "pathological"] * labelled + ["natural"] * (data.clients is not None)
    return f"{', '.join(names)} or fixed" if names else "fixed"


def _labels(partition: str, data: Data) -> Indices:
    if data.classes is None or data.y.ndim != 1:
        raise InputError(
            f"The partition {partition} needs one class label a sample, which the data set does not have: "
            f"take {fitting(data)}."
        )
    return data.y.numpy()


def _seed(seed: int, attempt: int) -> int:
    return int(generator(seed, "partition", attempt).integers(2**31))


def _load(partitioner: Partitioner, clients: int, labels: Indices, rows: Indices | None = None) -> list[Indices]:
    """What the partitioner gives each client of a table (label, index); `rows` are the indices, else 0, 1, 2, ..."""
    with _quiet():
        partitioner.dataset = _table(label=labels, index=np.arange(len(labels)) if rows is None else rows)
        return [partitioner.load_partition(client)["index"][:] for client in range(clients)]


def _table(**columns: Indices) -> Any:
    from datasets.arrow_dataset import Dataset  # Hugging Face's

    class Table(Dataset):
        """A column is one array: by itself it is an iterator, that costs the partitioner seconds for 60,000 rows."""

        def __getitem__(self, key: Any) -> Any:
            found = super().__getitem__(key)
            return found[:] if isinstance(key, str) else found

    return Table.from_dict(columns).with_format("numpy")


@contextmanager
def _quiet() -> Iterator[None]:
    # Every draw that Dirichlet throws away is a warning; what it means is said here, once, as an error.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

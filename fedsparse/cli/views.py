"""What an experiment's split and devices look like, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsparse import devices, folder
from fedsparse.experiment import Experiment
from fedsparse.split import parts as divide

if TYPE_CHECKING:
    import pandas as pd

_EIGHTHS = "·▁▂▃▄▅▆▇█"
_BINS = 40


@dataclass(frozen=True)
class Split:
    """One row a client: `client, device, train, validation, test`; for labels also `classes, class_0, class_1, ...`."""

    table: pd.DataFrame
    classes: int | None
    title: str

    def counts(self) -> np.ndarray:
        """Samples of each client (rows) and class (columns)."""
        return self.table[[f"class_{c}" for c in range(self.classes or 0)]].to_numpy()

    def bar(self, row: dict[str, Any]) -> str:
        """A client's label histogram as text, one character a class (or a few classes), high against its commonest."""
        counts = np.array([row[f"class_{c}"] for c in range(self.classes or 0)], dtype=float)
        binned = np.array([part.sum() for part in np.array_split(counts, min(len(counts), _BINS))])
        # Whoever has a single sample of a class is seen to have it.
        return "".join(_EIGHTHS[int(np.ceil(share * 8))] for share in binned / max(binned.max(), 1))


def split(experiment: Experiment) -> Split:
    """How the experiment's data come to its clients."""
    import pandas as pd

    data = experiment.dataset.build().load()
    rows = experiment.partition.build().split(data, experiment.clients, experiment.seed)
    options = experiment.partition
    parts = divide(rows, data, options.validation, options.test, experiment.seed)
    tiers = devices.assign(experiment.devices, len(parts), experiment.seed)
    table = pd.DataFrame(
        {
            "client": range(len(parts)),
            "device": tiers,
            "train": [len(p.train) for p in parts],
            "validation": [len(p.validation) for p in parts],
            "test": [len(p.test) for p in parts],
        }
    )
    if data.classes is not None:
        counts = np.stack([np.bincount(data.y[r].reshape(-1).numpy(), minlength=data.classes) for r in rows])
        table["classes"] = (counts > 0).sum(1)
        for label in range(data.classes):
            table[f"class_{label}"] = counts[:, label]
    official = f", official test set of {len(data.test[0])}" if data.test is not None else ""
    title = (
        f"{experiment.dataset.label}: {sum(map(len, rows))} samples on {len(rows)} clients "
        f"by {options.label}, seed {experiment.seed}{official}"
    )
    return Split(table, data.classes, title)


def tiers(experiment: Experiment) -> list[dict[str, Any]]:
    """One row a tier of devices: its numbers, and how many clients are of it."""
    clients = experiment.clients
    if clients is None:
        clients = len(experiment.partition.build().split(experiment.dataset.build().load(), clients, experiment.seed))
    dealt = devices.assign(experiment.devices, clients, experiment.seed)
    return [{"device": n, "clients": dealt.count(n), **tier.model_dump()} for n, tier in experiment.devices.items()]


def write(found: Split | list[dict[str, Any]], out: Path) -> list[Path]:
    """Tables and figures into a folder of their own, which is not there yet or is empty; what was written."""
    import pandas as pd

    place = folder.claim(out, "show")
    if not isinstance(found, Split):
        pd.DataFrame(found).to_csv(place / "devices.csv", index=False)
        return [place / "devices.csv"]
    found.table.to_csv(place / "data.csv", index=False)
    if found.classes is None:
        return [place / "data.csv"]
    draw(found, place / "label_distribution.png")
    return [place / "data.csv", place / "label_distribution.png"]


def draw(split: Split, path: Path) -> None:
    """Each client's samples as a bar, stacked by class."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    counts = split.counts()
    clients, classes = counts.shape
    figure = Figure(figsize=(min(14.0, 3.5 + 0.25 * clients), 4.2), layout="constrained")
    axes = figure.subplots()
    colors = matplotlib.colormaps["tab10" if classes <= 10 else "tab20" if classes <= 20 else "turbo"]
    below = np.zeros(clients)
    for label in range(classes):
        color = colors(label) if classes <= 20 else colors(label / (classes - 1))
        axes.bar(range(clients), counts[:, label], bottom=below, width=0.85, color=color, label=str(label))
        below += counts[:, label]
    axes.set(xlabel="client", ylabel="samples", xlim=(-0.6, clients - 0.4), title=split.title)
    axes.title.set_fontsize(9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    if classes <= 20:
        axes.legend(title="class", fontsize=7, title_fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.savefig(path, dpi=120)

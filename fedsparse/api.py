"""The Python interface: `run`, `compare`, `load`."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from fedsparse import columns, folder, results
from fedsparse.errors import InputError
from fedsparse.experiment import Experiment
from fedsparse.results import Comparison, Run, write_comparison

log = logging.getLogger("fedsparse")
__all__ = ["Progress", "compare", "load", "run"]

Source = str | Path | Mapping[str, Any] | Experiment


class Progress(Protocol):
    """Who is told how far a run is: the command line's bar, or yours."""

    def start(self, label: str, rounds: int, index: int, total: int) -> None:
        """Run `label` begins, the `index`th (from 1) of `total`."""

    def round(self, row: Mapping[str, Any]) -> None:
        """A round has ended: its row of the `rounds` table, with `mb`, the training MB so far."""

    def end(self, status: str) -> None:
        """The run has ended: done, failed or interrupted."""


class Silent:
    """Tells nobody."""

    def start(self, label: str, rounds: int, index: int, total: int) -> None: ...

    def round(self, row: Mapping[str, Any]) -> None: ...

    def end(self, status: str) -> None: ...


def run(
    source: Source, *, out: str | Path | None = None, progress: Progress | None = None, sets: Iterable[str] = (),
    **overrides: Any,
) -> Run:  # fmt: skip
    """Run one experiment and return its Run.

    source: a config's path, the bare name of a shipped one, a dictionary or an Experiment; `overrides` are keys of the
    config (`strategy="feddip"`, `rounds=10`, `train={"lr": 0.1}`), `sets` the same as `--set` strings; `out` is the
    run's folder (default: runs/NAME-DATE-TIME). Raises InputError before anything is written, RunError when the run
    fails.
    """
    from fedsparse.flower.runtimes import serving

    experiment = Experiment.load(source, list(sets), **overrides)
    _forget()
    _build(experiment)
    with _place(out, _name(source, experiment)) as path, serving([experiment], path) as serve:
        _one(experiment, path, experiment.strategy.label, serve, progress or Silent(), 1, 1)
    from fedsparse.report import report

    report([path])
    return Run(path)


def compare(
    source: Source, *, out: str | Path | None = None, strategies: Iterable[str] | None = None, seeds: int | None = None,
    resume: bool = False, progress: Progress | None = None, sets: Iterable[str] = (), **overrides: Any,
) -> Comparison:  # fmt: skip
    """Run every variant with every seed, FedAvg among them, and return the Comparison.

    Same data split, cohorts, initial weights and batches for all variants of a seed. A run that fails is recorded and
    the others go on. `strategies` and `seeds` replace the config's `[compare]` keys; the rest is as in `run`.
    With `resume`, runs of this comparison that `out` holds and that are done stay as they are; one that was cut off
    begins again. Two processes may share a folder as long as they do not run the same seeds or variants.
    """
    from fedsparse.flower.runtimes import serving

    wanted = dict(overrides.pop("compare", {}))
    wanted |= {} if strategies is None else {"strategies": list(strategies)}
    wanted |= {} if seeds is None else {"seeds": seeds}
    experiment = Experiment.load(source, list(sets), **overrides, **({"compare": wanted} if wanted else {}))
    planned = [
        (label, variant.with_seed(experiment.seed + n))
        for n in range(experiment.compare.seeds)
        for label, variant in experiment.variants().items()
    ]
    done = _finished(out, planned) if resume else set()
    missing = [(label, one) for label, one in planned if (label, one.seed) not in done]
    _forget()
    for _, one in missing:
        _build(one)
    with _place(out, _name(source, experiment), resume) as path:
        if missing:
            with serving([one for _, one in missing], path) as serve:
                _each(missing, path, serve, progress or Silent())
    places = [path / f"{label}-seed{one.seed}" for label, one in planned]
    runs = [Run(place) for place in places if (place / "run.json").is_file()]
    overrides_of = {label: experiment.overrides(label) for label in experiment.variants()}
    comparison = write_comparison(path, runs, overrides_of, experiment.compare.budget)
    from fedsparse.report import report

    report([path])
    return comparison


def load(folder: str | Path, devices: str | Path | None = None) -> Run | Comparison:
    """The run or comparison in a folder; InputError when it holds neither.

    With `devices`, a TOML file with tables `[devices.NAME]`, simulated times are those of these devices.
    """
    from fedsparse.retime import load_retimed

    return results.load(folder) if devices is None else load_retimed(folder, devices)


def _finished(out: str | Path | None, planned: list[tuple[str, Experiment]]) -> set[tuple[str, int]]:
    """Label and seed of the planned runs that `out` holds; InputError where it holds another experiment's."""
    if out is None:
        raise InputError("resume needs a folder to go on in: name it with --out.")
    holds = {path.name for path in Path(out).iterdir()} if Path(out).is_dir() else set()
    if holds and not any(Path(out).glob("*/run.json")) and holds != {"log.txt"}:
        raise InputError(f"{str(out)!r} is not the folder of a comparison: take another --out.")
    found = set()
    for label, one in planned:
        place = Path(out) / f"{label}-seed{one.seed}"
        if not place.is_dir() or not any(place.iterdir()):
            continue
        if not (place / "config.toml").is_file() or not (place / "run.json").is_file():
            raise InputError(f"{str(place)!r} is not the folder of a run: move it away, or take another --out.")
        if Experiment.load(place / "config.toml").hash() != one.hash():
            raise InputError(f"{str(place)!r} holds another experiment under this name: take another --out.")
        if Run(place).info.get("status") == columns.DONE:
            found.add((label, one.seed))
    return found


def _each(planned: list[tuple[str, Experiment]], path: Path, serve: Callable[..., Any], tell: Progress) -> None:
    """One run after the other, each in its own folder."""
    for index, (label, one) in enumerate(planned, start=1):
        place = path / f"{label}-seed{one.seed}"
        shutil.rmtree(place, ignore_errors=True)  # cut off: there only with `resume`
        place.mkdir()
        try:
            with folder.logged(place / "log.txt"):
                _one(one, place, label, serve, tell, index, len(planned))
        except Exception:  # also in its run.json, where it got that far; the other runs go on
            log.exception("%s, seed %d, failed", label, one.seed)


@contextmanager
def _place(out: str | Path | None, name: str, again: bool = False) -> Iterator[Path]:
    """A run's folder of our own, with everything logged there.

    An exception carries it as `folder`; one that comes before anything was written takes the folder with it.
    """
    existed = out is not None and Path(out).exists()
    path = Path(out).absolute() if again and out is not None and existed else folder.claim(out, name)
    try:
        with folder.logged(path / "log.txt"):
            yield path
    except BaseException as error:
        if existed or any(path.iterdir()):
            error.folder = path  # type: ignore[attr-defined]
        else:
            path.rmdir()
        raise


def _forget() -> None:
    """Build anew what was built before: a strategy's file or a table may have changed since."""
    from fedsparse.federation import forget

    forget()


def _build(experiment: Experiment) -> None:
    """Build the federation, so that whatever does not fit is said before anything is written."""
    from fedsparse.federation import federation

    federation(experiment.to_toml())


def _one(
    experiment: Experiment, path: Path, label: str, serve: Callable[..., Any], tell: Progress, index: int, total: int
) -> None:
    from fedsparse.federation import federation

    built, megabytes = federation(experiment.to_toml()), 0.0

    def on_round(row: Mapping[str, Any]) -> None:
        nonlocal megabytes
        megabytes += (row["bytes_up"] + row["bytes_down"]) / 1e6
        tell.round({**row, "mb": megabytes})

    tell.start(label, experiment.rounds, index, total)
    status = "failed"
    try:
        status = serve(built, path, label, on_round)["status"]
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        tell.end(status)


def _name(source: Source, experiment: Experiment) -> str:
    if isinstance(source, str | Path):
        return Path(source).stem
    return f"{experiment.dataset.label}-{experiment.strategy.label}"

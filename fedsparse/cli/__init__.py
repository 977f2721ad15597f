"""The command `fedsparse`. Results go to standard output, progress and warnings to standard error.

Exit codes: 0 done; 1 a run failed; 2 bad input; 130 interrupted. Whatever is slow to import is imported by the command
that needs it.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import click
import typer

import fedsparse
from fedsparse import registry
from fedsparse.cli import coding, deploying
from fedsparse.errors import InputError, RunError

app = typer.Typer(
    name="fedsparse",
    help="Federated sparse learning with every byte counted.",
    epilog="CONFIG is a path or the bare name of a shipped config: try  fedsparse compare quickstart",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(deploying.app)
app.add_typer(coding.app)

# The docstrings say what arguments are: not every pair of typer and click shows an argument's own help.
Config = Annotated[str, typer.Argument(metavar="CONFIG")]
_SET = "Change a key, such as strategy=feddip or strategy.density=0.05; may be repeated."
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=_SET)]
Seed = Annotated[int | None, typer.Option(help="Seed that everything random is drawn from.")]
_RUNTIME = "local (this process), ray (worker processes) or grpc (real clients, each a process of its own)."
RuntimeName = Annotated[str | None, typer.Option("--runtime", metavar="NAME", help=_RUNTIME)]
Workers = Annotated[int | None, typer.Option(help="Worker processes; 0 is one a core.")]
Clients = Annotated[int | None, typer.Option(help="Number of clients.")]
_RAY = "A Ray cluster that runs already, such as 10.0.0.1:6379 or auto; workers are started there."
RayAddress = Annotated[str | None, typer.Option("--ray-address", metavar="ADDRESS", help=_RAY)]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="The folder to write; default: a new one under runs/.")]
_DEVICES = "A TOML file of other devices, tables [devices.NAME] and if wanted [clock]: times as on those."
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON in place of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


class Interrupted(Exception):
    """Ctrl-C in a run. Typer would turn the KeyboardInterrupt itself into a silent exit."""


class State:
    """What holds for the whole command."""

    debug = False


def _version(wanted: bool) -> None:
    if wanted:
        print(f"fedsparse {fedsparse.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", envvar="FEDSPARSE_DEBUG", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    State.debug = debug


@app.command()
def run(
    config: Config, sets: Sets = None, seed: Seed = None, runtime: RuntimeName = None, workers: Workers = None,
    clients: Clients = None, ray_address: RayAddress = None, out: Out = None, json: Json = False, quiet: Quiet = False,
) -> int:  # fmt: skip
    """Run one experiment. CONFIG is a path or the bare name of a shipped config."""
    from fedsparse import api
    from fedsparse.cli import tables

    changes = _changes(seed, clients, name=runtime, workers=workers, ray_address=ray_address)
    with _watched(quiet) as progress:
        done = api.run(config, out=out, progress=progress, sets=sets or (), **changes)
    tables.print_json(done.summary) if json else tables.print_run(done)
    return tables.exit_code([done])


@app.command()
def compare(
    config: Config,
    strategies: Annotated[str | None, typer.Option(metavar="A,B", help="Strategies in place of the config's.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs of each variant.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in --out: runs that are done there stay.")] = False,
    sets: Sets = None, seed: Seed = None, runtime: RuntimeName = None, workers: Workers = None,
    clients: Clients = None, ray_address: RayAddress = None, out: Out = None, json: Json = False, quiet: Quiet = False,
) -> int:  # fmt: skip
    """Run several strategies with several seeds, side by side with FedAvg.

    CONFIG is a path or the bare name of a shipped config; its table [compare] says what is compared.
    """
    from fedsparse import api
    from fedsparse.cli import comparing, tables

    listed = None if strategies is None else [name.strip() for name in strategies.split(",") if name.strip()]
    if listed == []:
        raise InputError('--strategies must name at least one strategy, such as "fedavg,feddip".')
    changes = _changes(seed, clients, name=runtime, workers=workers, ray_address=ray_address)
    changes |= {"strategies": listed, "seeds": seeds}
    with _watched(quiet) as progress:
        done = api.compare(config, out=out, resume=resume, progress=progress, sets=sets or (), **changes)
    tables.print_json(tables.records(done.summary)) if json else comparing.print_comparison(done)
    return tables.exit_code(done.runs)


@app.command(name="list")
def list_(
    kind: Annotated[str, typer.Argument(metavar="KIND")],
    json: Annotated[bool, typer.Option("--json", help="Print a list of objects with name and summary.")] = False,
) -> None:
    """List what is shipped and what installed packages add.

    KIND is strategies, datasets, models, partitions, sparsifiers or configs.
    """
    from fedsparse.cli import tables

    rows = [{"name": name, "summary": registry.summary(kind, name)} for name in registry.names(kind)]
    tables.print_json(rows) if json else tables.print_list(kind, rows)


@app.command()
def show(
    what: Annotated[str, typer.Argument(metavar="WHAT")],
    config: Config, sets: Sets = None, seed: Seed = None, clients: Clients = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder to write tables and figures to.")] = None,
) -> None:  # fmt: skip
    """Show the resolved experiment, how its data are split, or its devices.

    WHAT is config, data or devices. CONFIG is a path or the bare name of a shipped config. data also draws the labels
    or targets of each client, devices how fast each client is and when it is ready: without --out into a new folder
    under runs/.
    """
    from fedsparse.experiment import Experiment

    if what not in ("config", "data", "devices"):
        raise InputError(f'There is no "show {what}"; allowed: config, data, devices.')
    experiment = Experiment.load(config, sets or (), **_changes(seed, clients))
    if what == "config":
        text = experiment.to_toml()
        if out is not None:
            from fedsparse.folder import claim

            (claim(out, what) / "config.toml").write_text(text, encoding="utf-8")
        print(text, end="")
        return
    from fedsparse.cli import tables, views

    found = views.split(experiment) if what == "data" else views.fleet(experiment)
    written = views.write(found, out, f"{Path(config).stem}-{what}")
    tables.print_split(found) if isinstance(found, views.Split) else tables.print_tiers(found)
    for path in written:
        tables.note(f"wrote {tables.near(path)}")


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write; default: into the folder.")] = None,
    devices: Annotated[Path | None, typer.Option(metavar="FILE", help=_DEVICES)] = None,
) -> None:
    """Draw figures and page of runs or comparisons again; several folders make one comparison of all.

    With --devices the simulated times are those on other devices, and the page goes to --out or to a new folder under
    runs/.
    """
    from fedsparse.report import report as write

    page = write(folders, out, devices)
    if devices is not None:
        from fedsparse.cli import comparing

        comparing.print_times(folders, devices)
    print(page)


@contextmanager
def _watched(quiet: bool) -> Iterator[Any]:
    """Who is told how far a run is; a run that is interrupted, or ended by SIGTERM, ends in Interrupted."""
    from fedsparse.cli.progress import reporter

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with reporter(quiet) as progress:
            yield progress
    except KeyboardInterrupt as error:
        interrupted = Interrupted("interrupted: what was done until then is kept.")
        interrupted.__dict__.update(error.__dict__)  # the folder
        raise interrupted from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _changes(seed: int | None, clients: int | None, **runtime: str | int | None) -> dict[str, Any]:
    """Options of the command line as changes of the experiment; `runtime` those of its table."""
    changes: dict[str, Any] = {"seed": seed, "clients": clients}
    changes["runtime"] = {key: value for key, value in runtime.items() if value is not None} or None
    return {key: value for key, value in changes.items() if value is not None}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (default: the process's) and return its exit code."""
    State.debug = os.environ.get("FEDSPARSE_DEBUG", "") not in ("", "0")
    before, warnings.formatwarning = warnings.formatwarning, _warning
    try:
        return int(app(args=None if arguments is None else list(arguments), standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return 2
    except Interrupted as error:
        return _fail(str(error), error, 130)
    except (KeyboardInterrupt, click.Abort) as error:
        return _fail("interrupted.", error, 130)
    except InputError as error:
        return _fail(str(error), error, 2)
    except RunError as error:
        return _fail(str(error), error, 1)
    except BrokenPipeError:  # the reader of our output has gone, as in `fedsparse list ... | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _fail(f"{type(error).__name__}: {error}", error, 1)
    finally:
        warnings.formatwarning = before


def _warning(message: Warning | str, *_: Any, **__: Any) -> str:
    return f"warning: {message}\n"


def _fail(message: str, error: BaseException, code: int) -> int:
    if State.debug:
        traceback.print_exception(error)
    folder = getattr(error, "folder", None)
    if folder is not None and code != 2:
        where = f" Its folder is {folder}" + (", what happened stands in log.txt there." if code == 1 else ".")
    else:
        known = code != 1 or isinstance(error, RunError) or State.debug
        where = "" if known else " (--debug before the command shows where.)"
    prefix = "" if code == 130 else "error: "
    text = message.strip() or type(error).__name__
    print(f"{prefix}{text}{'' if text[-1] in '.!?' else '.'}{where}", file=sys.stderr)
    return code

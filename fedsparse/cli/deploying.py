"""`fedsparse deploy`: what is needed to start Flower's own processes on several machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedsparse.errors import InputError

_HELP = "Credentials and an app for real clients on several machines."
app = typer.Typer(name="deploy", help=_HELP, no_args_is_help=True)
New = Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")]


@app.command()
def keys(
    out: New,
    clients: Annotated[int, typer.Option(help="How many clients get a key.", min=1)] = 2,
    host: Annotated[list[str] | None, typer.Option(help="Name or address of the server; may be repeated.")] = None,
    control: Annotated[str, typer.Option(help="Where the command flwr finds the server.")] = "127.0.0.1:8000",
) -> None:
    """Make certificates for the server and a key for each client.

    DIR also holds home/config.toml, with which the command flwr finds the server: export FLWR_HOME=DIR/home.
    """
    from fedsparse.cli import tables
    from fedsparse.deploy import bundle, credentials

    place = _free(out)
    made = credentials.make(place, clients, host or ())
    bundle.connection(place / "home", control, made.ca)
    for path, what in (
        (made.ca, "for everyone: the server is who it says"),
        (made.certificate, "for the server"),
        (made.key, "for the server alone"),
        (place / "node-N", f"for client N alone, 0 to {clients - 1}"),
        (place / "node-N.pub", "to register client N's key"),
        (place / "home", "for the command flwr: FLWR_HOME"),
    ):
        tables.note(f"{tables.near(path)}  {what}")


@app.command(name="app")
def app_(out: New) -> None:
    """Write the app that `flwr run DIR` starts. It carries no code: each machine's own fedsparse runs."""
    from fedsparse.cli import tables
    from fedsparse.deploy import bundle

    place = _free(out)
    bundle.write(place, bundle.DEFAULTS)
    tables.note(f"{tables.near(place)}  flwr run {tables.near(place)} --stream")


def _free(out: Path) -> Path:
    if out.exists():
        raise InputError(f"{out} exists: name a folder that does not, nothing is overwritten.")
    if not out.absolute().parent.is_dir():
        raise InputError(f"The folder {out.absolute().parent} is not there: {out.name} is to be made in it.")
    return out.absolute()

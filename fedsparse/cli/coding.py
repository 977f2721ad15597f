"""`fedsparse codec`: look into a payload, and measure the codec on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from fedsparse.errors import InputError

app = typer.Typer(name="codec", help="The wire codec: look into a payload, measure it here.", no_args_is_help=True)


@app.command()
def inspect(file: Annotated[Path, typer.Argument(metavar="FILE", help="A payload, as encode returns it.")]) -> None:
    """Print what a payload's bytes were spent on, by kind and by tensor."""
    from fedsparse import codec
    from fedsparse.cli import tables

    try:
        data = file.read_bytes()
        head, found = codec.header(data), codec.inspect(data)
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}).") from None
    except codec.DecodeError as error:
        raise InputError(f"{file}: {error}.") from None
    tables.print_payload(head, found)


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="A million values in place of eight, fewer rounds.")] = False,
) -> None:
    """Bytes against the information bound, speed against memcpy, beside np.save, savez and zstd (a minute or two)."""
    from fedsparse import bench as measuring
    from fedsparse.cli import tables

    size = (1 << 20, 3) if quick else (measuring.ELEMENTS, measuring.ROUNDS)
    with Console(stderr=True).status("Measuring ..."):
        found = measuring.report(*size)
    tables.console().print(Markdown(found))
    if quick:
        tables.note("The limits are meant for eight million values: --quick measures one million.")

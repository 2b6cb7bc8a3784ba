"""The Typer application: version, errors in one line, exit codes 0 done, 1 failed, 2 wrong use."""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

import geounet
from geounet.errors import ConfigError, GeounetError, GeounetWarning

if TYPE_CHECKING:
    from collections.abc import Iterator


app = typer.Typer(
    name="geounet",
    help="Land/water maps from satellite scenes of any size.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_FAILED, _WRONG_USE, _INTERRUPTED = 1, 2, 130


def main() -> NoReturn:
    """Entry point of the ``geounet`` command."""
    with _one_line_errors():
        app(prog_name="geounet")
    sys.exit(0)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Say what geounet raises or warns of in one line each, and exit with its code."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        typer.echo(f"geounet: warning: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", GeounetWarning)
        warnings.showwarning = show
        try:
            yield
        except GeounetError as error:
            typer.echo(f"geounet: error: {' '.join(str(error).split())}", err=True)
            sys.exit(_WRONG_USE if isinstance(error, ConfigError) else _FAILED)
        except SystemExit as stop:
            if stop.code == _INTERRUPTED:  # what Typer makes of Ctrl-C, without a word
                typer.echo("geounet: stopped; nothing half-written was left.", err=True)
            raise


def _version(wanted: bool) -> None:  # noqa: FBT001 - Typer's callback
    if wanted:
        typer.echo(f"geounet {geounet.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass

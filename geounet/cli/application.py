"""The Typer application: version, errors in one line, exit codes 0 done, 1 failed, 2 wrong use."""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

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


_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""Of the click that Typer brings along, or of the one that is installed."""


def main() -> NoReturn:
    """Entry point of the ``geounet`` command."""
    with _one_line_errors():
        try:
            code = app(prog_name="geounet", standalone_mode=False)
        except typer.Abort:
            code = _INTERRUPTED
    if code == _INTERRUPTED:
        typer.echo("geounet: stopped; nothing half-written was left.", err=True)
    sys.exit(code or 0)


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
        except _UsageError as error:
            _say_usage(error)
            sys.exit(_WRONG_USE)


def _say_usage(error: Any) -> None:
    """What is wrong with the command as it was given; the help where nothing was given."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    command = error.ctx.command_path if error.ctx else "geounet"
    said = " ".join(error.format_message().split()).rstrip(".")
    for words, plain in ((": Value error, ", ": "), (": Input should be ", ": must be ")):
        said = said.replace(words, plain)  # pydantic's, which Typer asks
    end = "" if said.endswith("?") else "."
    typer.echo(f"geounet: error: {said}{end} See {command} --help.", err=True)


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

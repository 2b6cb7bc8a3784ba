"""How commands print: records, tables, a progress bar."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from geounet.evaluate import Progress as Judged
    from geounet.timing import Progress
    from geounet.training import TrainProgress


def say(record: dict[str, Any], *, as_json: bool, to_stderr: bool = False) -> None:
    """Print a record: a line for each key, or one JSON document."""
    if as_json:
        print_json(record, to_stderr=to_stderr)
        return
    width = max(len(key) for key in record)
    for key, value in record.items():
        typer.echo(f"{key:<{width}}  {value}", err=to_stderr)


def print_json(document: Any, *, to_stderr: bool = False) -> None:
    """Print one JSON document; what JSON does not know is printed as its text."""
    typer.echo(json.dumps(document, indent=2, default=str), err=to_stderr)


@contextmanager
def progress_bar(
    *, hidden: bool, unit: str = "tiles"
) -> Iterator[Callable[[Progress | Judged | TrainProgress], None] | None]:
    """A bar on standard error with units per second and time left; none if it is no terminal."""
    if hidden or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - only where there is a terminal
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f} {unit}/s" if task.speed else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(unit, total=None)
        yield lambda at: bars.update(
            task,
            completed=at.done,
            total=at.total,
            description=getattr(at, "line", unit),
        )


def terminal_width() -> int:
    """Characters of a line on standard output; without end where it is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def print_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: range,
    bold: Callable[[Sequence[str]], bool],
) -> None:
    """Print columns of text; those in ``right`` end at the same place and are never wrapped.

    Where standard output is no terminal a row is a line, and plain.
    """
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        cells = (f"{{:{'>' if i in right else '<'}{width}}}" for i, width in enumerate(widths))
        line = "  ".join(cells)
        for row in (header, *rows):
            typer.echo(line.format(*row).rstrip())
        return
    from rich.console import Console  # noqa: PLC0415 - only where there is a terminal
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for i, title in enumerate(header):
        justify: Literal["left", "right"] = "right" if i in right else "left"
        table.add_column(title, justify=justify, no_wrap=i in right)
    for row in rows:
        table.add_row(*row, style="bold" if bold(row) else None)
    Console(markup=False, highlight=False).print(table)

"""The command about many scenes: batch, and what became of one."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
import tomllib
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path  # noqa: TC003 - Typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from geounet.cli.application import app
from geounet.cli.options import AsJson, Format, Overwrite  # noqa: TC001 - as above
from geounet.cli.show import print_table, say
from geounet.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

    from geounet.archive import Event, Manifest

_INTERRUPTED = 130
_EVERY = 10.0
"""Seconds between lines of progress where there is no terminal."""
_SHOWN = 20
"""Failed scenes that are listed."""
_MOST = 12
"""Scenes whose stage the live view shows."""
_FEW = 3
"""Scenes whose stage a plain line tells."""


class _Batch(TyperGroup):
    """``geounet batch SOURCES`` is ``geounet batch run SOURCES``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the command that is meant if none is."""
        named = args if args[:1] == ["status"] else ["run", *args]
        rest: list[str] = super().parse_args(ctx, named)
        return rest


batch = typer.Typer(cls=_Batch, help="Segment many scenes; the same command again goes on.")
app.add_typer(batch, name="batch")


@batch.command(name="run")
def run(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Scenes, folders, 'globs/**/*.tif', s3://bucket/prefix/, lists (.txt, .csv, "
            ".parquet), STAC items (.json), or - for standard input."
        ),
    ] = None,
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write to.", show_default="out"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="TOML file of these options and those of geounet run."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any option of geounet run: --set threshold=0.6; repeatable."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="A model's name or file.", show_default="default"),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Path of the outputs, of {stem}, {parent}, {date}.", show_default="{stem}"
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="An existing Dask cluster: tcp://host:8786.",
            show_default="workers of this machine",
        ),
    ] = None,
    scheduler_file: Annotated[
        Path | None, typer.Option(help="The same, by the file that its scheduler wrote.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes on this machine.", show_default="by cores, memory, GPUs"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of the network in each.", show_default="all cores")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", show_default="auto")
    ] = None,
    retries: Annotated[
        int | None,
        typer.Option(help="Further attempts where not the scene is at fault.", show_default="3"),
    ] = None,
    max_failures: Annotated[
        int | None, typer.Option(help="Stop when more scenes than this have failed.")
    ] = None,
    retry_failed: Annotated[
        bool | None, typer.Option("--retry-failed", help="Also try again what was at fault itself.")
    ] = None,
    probability: Annotated[
        bool | None, typer.Option("--probability", help="Also write the water probability.")
    ] = None,
    polygons: Annotated[
        bool | None,
        typer.Option(
            "--polygons/--no-polygons", help="Write the water's polygons.", show_default="polygons"
        ),
    ] = None,
    shoreline: Annotated[
        bool | None,
        typer.Option("--shoreline", help="Also write lines with the water on their left."),
    ] = None,
    format: Annotated[  # noqa: A002
        Format | None,
        typer.Option(help="Format of the polygons and shorelines.", show_default="gpkg"),
    ] = None,
    stac: Annotated[
        bool | None,
        typer.Option("--stac", help="Also write a STAC item a scene, and a collection of all."),
    ] = None,
    merge: Annotated[
        bool | None, typer.Option("--merge", help="Also write all polygons into one GeoParquet.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print events as JSON, one a line.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Segment many scenes on Dask workers; the same command again does only what is left.

    `geounet batch status OUTPUT` shows how far a batch is and what failed.
    Exit code: 0 all done, 3 some failed or are left, 1 none done, 130 interrupted.
    """
    told = {
        "output": output,
        "model": model,
        "name": name,
        "scheduler": scheduler or scheduler_file,
        "workers": workers,
        "threads": threads,
        "device": device,
        "retries": retries,
        "max_failures": max_failures,
        "retry_failed": retry_failed,
        "probability": probability,
        "polygons": polygons,
        "shoreline": shoreline,
        "format": format.value if format else None,
        "stac": stac,
        "merge": merge,
        "overwrite": overwrite or None,
    }
    options = _options(config, setting or [], told)
    listed = options.pop("sources", None)
    found = sources or listed
    if not found:
        raise ConfigError("a batch needs scenes: give SOURCES, or sources = [...] with --config.")
    from geounet import archive  # noqa: PLC0415 - torch and Dask take seconds to load

    stop = threading.Event()
    with _stopping(stop), _watching(as_json=as_json, quiet=quiet) as on_event:
        result = archive.batch(found, stop=stop, on_event=on_event, **options)
    if as_json:
        typer.echo(json.dumps({"kind": "result", **result.as_dict()}, default=str))
    elif not quiet:
        _print_status(result.output)
    sys.exit(_INTERRUPTED if result.stopped == "interrupted" else result.exit_code)


def _options(config: Path | None, settings: list[str], told: dict[str, Any]) -> dict[str, Any]:
    """What was asked for: flags before ``--set`` before the file.

    Raises:
        ConfigError: no such file, no TOML, or a setting that is none.
    """
    from geounet.training.config import parse_setting  # noqa: PLC0415 - keeps --help fast

    found: dict[str, Any] = {}
    if config:
        try:
            found = tomllib.loads(config.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"--config is a TOML file; {config}: {error}.") from error
    for text in settings:
        found |= parse_setting(text)
    return found | {key: value for key, value in told.items() if value is not None}


@contextmanager
def _stopping(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C once finishes what runs, twice stops at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.default_int_handler(number, frame)
        stop.set()
        typer.echo("geounet: finishing what runs; Ctrl-C again to stop at once.", err=True)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# -- seeing it -------------------------------------------------------------------------------------


@contextmanager
def _watching(*, as_json: bool, quiet: bool) -> Iterator[Callable[[Event], None] | None]:
    """What shows events: JSON lines, a live bar on a terminal, else lines now and then."""
    if as_json:
        yield lambda event: typer.echo(json.dumps(event.as_dict()))
    elif quiet:
        yield None
    elif sys.stderr.isatty():
        with _live() as show:
            yield show
    else:
        yield _Lines()


class _Lines:
    """Progress as plain lines on standard error."""

    def __init__(self) -> None:
        self._last = -_EVERY
        self._at: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        _follow(self._at, event)
        if text := _news(event):
            typer.echo(text, err=True)
        due = time.monotonic() - self._last > _EVERY
        if event.kind == "ended" or (event.kind in {"done", "stage"} and due):
            self._last = time.monotonic()
            typer.echo(_standing(event, self._at), err=True)


def _follow(at: dict[str, str], event: Event) -> None:
    """Keep what workers do with which scene."""
    if event.uri is None:
        return
    if event.kind == "stage":
        at[event.uri] = _at(event.stage, event.share)
    else:
        at.pop(event.uri, None)


def _at(stage: str | None, share: float | None) -> str:
    return f"{stage}" if share is None else f"{stage} {share:.0%}"


def _name(uri: str) -> str:
    """What tells scenes of a list apart, short."""
    return "/".join(uri.rstrip("/").split("/")[-2:])


def _news(event: Event) -> str | None:
    """A line about what people want to know at once; None for what the count tells."""
    lines = {
        "begun": f"workers: {event.message}",
        "failed": f"failed: {event.uri}: {event.message}",
        "again": f"will be tried again: {event.uri}: {event.message}",
        "waiting": f"waiting: {event.message}",
        "stopping": f"stopping: {event.message}",
    }
    return lines.get(event.kind)


def _standing(event: Event, at: Mapping[str, str]) -> str:
    shown = [f"{_name(uri)} {stage}" for uri, stage in islice(at.items(), _FEW)]
    more = f", and {len(at) - _FEW} more" if len(at) > _FEW else ""
    return (
        f"{event.done} of {event.total} scenes done, {event.failed} failed, "
        f"{event.running} in the cluster, {event.seconds:.0f} s"
        + (f": {', '.join(shown)}{more}" if shown else "")
    )


@contextmanager
def _live() -> Iterator[Callable[[Event], None]]:
    """A bar with what is done, failed and running, the rate and the time left.

    News come above it, and below it a line for each scene that a worker is at.
    """
    from rich.console import Console, Group  # noqa: PLC0415 - only where there is a terminal
    from rich.live import Live  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text  # noqa: PLC0415

    columns = (
        TextColumn("scenes"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("[red]{task.fields[failed]} failed[/]"),
        TextColumn("{task.fields[running]} in the cluster"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    bars = Progress(*columns, speed_estimate_period=600)
    scenes = Text()
    task = bars.add_task("scenes", total=None, failed=0, running=0, rate="")
    at: dict[str, str] = {}
    with Live(Group(bars, scenes), console=console, transient=True):

        def show(event: Event) -> None:
            if text := _news(event):
                console.print(text, markup=False, highlight=False)
            _follow(at, event)
            scenes.plain = _listing(at)
            speed = bars.tasks[0].finished_speed or bars.tasks[0].speed
            bars.update(
                task,
                completed=event.done + event.failed,
                total=event.total,
                failed=event.failed,
                running=event.running,
                rate=f"{speed * 60:.1f}/min" if speed else "",
            )

        yield show


def _listing(at: Mapping[str, str]) -> str:
    """A line a scene, few enough for a terminal."""
    shown = [f"  {stage:<16} {_name(uri)}" for uri, stage in islice(at.items(), _MOST)]
    return "\n".join([*shown, *([f"  and {len(at) - _MOST} more"] if len(at) > _MOST else [])])


# -- status ----------------------------------------------------------------------------------------


@batch.command()
def status(
    output: Annotated[Path, typer.Argument(help="The output folder of a batch.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show how far a batch is, what runs now and at what stage, and what failed and why."""
    _print_status(output, as_json=as_json)


def _print_status(output: Path, *, as_json: bool = False) -> None:
    from geounet.archive import Manifest  # noqa: PLC0415 - keeps --help fast
    from geounet.remote import redact  # noqa: PLC0415

    with Manifest.read(output) as manifest:
        record = _standing_of(manifest)
        failures = [
            {
                "scene": redact(entry.uri),
                "why": entry.kind,
                "attempts": entry.attempts,
                "message": f"{entry.error}: {entry.message}",
            }
            for entry in manifest.entries("failed")
        ]
        running = _running(manifest) if record["state"] == "running" else []
    if as_json:
        typer.echo(json.dumps({**record, "now": running, "failures": failures}, indent=2))
        return
    say(_readable(record), as_json=False)
    for scene in running:
        typer.echo(f"{_at(scene['stage'], scene['share']):<16} {scene['scene']}")
    if failures:
        typer.echo("")
        rows = [tuple(map(str, failure.values())) for failure in failures[:_SHOWN]]
        print_table(tuple(failures[0]), rows, right=range(2, 3), bold=lambda _: False)
    if len(failures) > _SHOWN:
        typer.echo(f"… and {len(failures) - _SHOWN} more; --json lists all.")


def _running(manifest: Manifest) -> list[dict[str, Any]]:
    """The scenes that workers are at now."""
    from geounet.remote import redact  # noqa: PLC0415 - keeps --help fast

    return [
        {
            "scene": redact(running.uri),
            "stage": running.stage.name,
            "share": running.stage.share,
            "worker": running.stage.worker,
            "told": datetime.fromtimestamp(running.stage.since, UTC).isoformat(timespec="seconds"),
        }
        for running in manifest.running()
    ]


def _standing_of(manifest: Manifest) -> dict[str, Any]:
    last, counts = manifest.last_batch(), manifest.counts()
    running = manifest.in_use()
    until = last.get("finished") or (time.time() if running else None)
    return {
        "state": "running" if running else "finished" if last.get("finished") else "broken off",
        "stopped": last.get("stopped"),
        **{str(status): count for status, count in counts.items()},
        "area_km2": manifest.areas(),
        "seconds": round(until - last["started"], 1) if last and until else None,
    }


def _readable(record: dict[str, Any]) -> dict[str, Any]:
    areas = record["area_km2"].items()
    seconds = record["seconds"]
    return {
        "state": record["state"] + (f" ({record['stopped']})" if record["stopped"] else ""),
        **{kind: record[kind] for kind in ("done", "failed", "running", "pending")},
        **{name: f"{area:.3f} km2" for name, area in areas},
        **({} if seconds is None else {"last batch": f"{seconds:.1f} s"}),
    }

"""A batch from its sources to its result.

sources → manifest ⇄ drive → catalogue, merged polygons
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from geounet.archive.catalogue import write_catalogue
from geounet.archive.cluster import gather
from geounet.archive.drive import Drive, Orders, sweep_all
from geounet.archive.manifest import Manifest, Planned
from geounet.archive.merging import merge_polygons
from geounet.archive.settings import BatchConfig, Event
from geounet.archive.sources import (
    Source,
    check_template,
    find_scenes,
    identify,
    target_of,
)
from geounet.errors import ConfigError, broken_rule
from geounet.model import load_model, shipped_models
from geounet.pipeline import RunConfig
from geounet.remote import is_remote

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence

    from geounet.archive.settings import BatchResult

__all__ = ["batch", "parameters_digest"]


_LISTING = 5.0
"""Seconds between words on how many scenes are listed."""


def batch(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    output: str | os.PathLike[str] = "out",
    stop: threading.Event | None = None,
    on_event: Callable[[Event], None] | None = None,
    **options: Any,
) -> BatchResult:
    """Segment many scenes with Dask workers; the same call again does only what is left.

    Scenes fail one by one and never stop the rest. What is done is in the manifest in the output
    folder (`geounet.archive.Manifest`), which says for each scene what happened.

    Args:
        sources: scenes, folders, globs, lists, catalogues; see `geounet.archive.find_scenes`.
        output: folder of the outputs and the manifest.
        stop: when it is set, scenes that run are finished and no other begins.
        on_event: called as things happen, in this thread.
        options: fields of `BatchConfig` and of `RunConfig`.

    Raises:
        ConfigError: an option is not known or breaks a rule, there is no scene, two scenes have
            the same outputs, or the layout would oversubscribe cores or GPUs.
        ModelError: the model cannot be loaded.
        OutputError: another batch runs in the folder, or it cannot be written to.
    """
    several = [sources] if isinstance(sources, str) or hasattr(sources, "__fspath__") else sources
    settings, config = _settled(options, Path(output))
    folder = config.output
    check_template(settings.name)
    model = load_model(config.model)
    orders = Orders(settings, config, model, folder, stop, on_event, time.monotonic())
    found = _found(several, folder)
    with Manifest.create(folder) as manifest:
        left = manifest.folders()
        manifest.begin({"sources": [str(s) for s in several], "options": options})
        _register(manifest, found, orders)
        sweep_all(folder, left)
        try:
            result = _drive(manifest, orders)
        finally:  # of workers that ended with the batch, or were still dying when it began
            sweep_all(folder, left | manifest.folders())
        if settings.stac:
            write_catalogue(folder, model=config.model)
        if settings.merge:
            merge_polygons(folder, overwrite=True)
        return result


def _register(manifest: Manifest, found: Iterator[Source], orders: Orders) -> None:
    settings, config = orders.settings, orders.config
    manifest.register(
        _counted(_planned(found, settings, manifest), orders),
        model=orders.model.digest,
        parameters=parameters_digest(config),
        retry_failed=settings.retry_failed,
        overwrite=config.overwrite,
    )


def _drive(manifest: Manifest, orders: Orders) -> BatchResult:
    """Do what is pending; workers are started only where something is."""
    drive, settings = Drive(manifest, orders), orders.settings
    if manifest.counts(batch=True)["pending"]:
        with gather(
            settings.scheduler,
            device=orders.config.device,
            workers=settings.workers,
            threads=settings.threads,
            on_wait=drive.wait_for,
        ) as team:
            drive.run(team)
    return drive.end()


def _found(sources: Sequence[str | os.PathLike[str]], output: Path) -> Iterator[Source]:
    """The scenes, one by one; that there is one is known before anything is written."""
    found = find_scenes(sources, output=output)
    first = next(found, None)
    if first is None:
        raise ConfigError(
            f"a batch needs scenes; there are none in {', '.join(map(str, sources))}."
        )
    return chain((first,), found)


def _settled(options: dict[str, Any], output: Path) -> tuple[BatchConfig, RunConfig]:
    """Tell the batch's options from those of each run."""
    runs = RunConfig.model_fields.keys() - BatchConfig.model_fields.keys()
    own = {name: value for name, value in options.items() if name not in runs}
    rest = {name: value for name, value in options.items() if name in runs}
    try:
        settings = BatchConfig(**own)
    except ValidationError as error:
        raise broken_rule(error, BatchConfig, runs) from error
    config = RunConfig.of(**rest, output=output)
    config.shaping()
    return settings, config.model_copy(update=_absolute(config))


def _absolute(config: RunConfig) -> dict[str, Any]:
    """Files that the parameters name, for workers in another folder."""
    found: dict[str, Any] = {"output": config.output.absolute()}
    if config.model not in shipped_models():
        found["model"] = str(Path(config.model).absolute())
    if config.geometry:
        found["geometry"] = config.geometry.absolute()
    if config.cloud_mask not in {None, "product"} and os.path.lexists(config.cloud_mask):
        found["cloud_mask"] = str(Path(config.cloud_mask).absolute())
    return found


_WITHOUT_EFFECT = {"model", "output", "name", "device", "batch", "overwrite"}
"""Parameters that do not decide what an output says; the model has a digest of its own."""


def parameters_digest(config: RunConfig) -> str:
    """SHA-256 of the parameters that decide what the outputs say."""
    told = config.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
    named = (config.geometry, config.cloud_mask)
    told["files"] = [identify(str(file)) for file in named if file not in {None, "product"}]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _planned(
    found: Iterator[Source], settings: BatchConfig, manifest: Manifest
) -> Iterator[Planned]:
    """The scenes and where they go, a page at a time.

    Servers are asked for the identity of a scene only where an earlier batch settled it: a new one
    is looked at by the worker that reads it.
    """
    with ThreadPoolExecutor(16, thread_name_prefix="geounet-look") as pool:
        while page := list(islice(found, 256)):
            unknown = [s.uri for s in page if s.identity is None and is_remote(s.uri)]
            ask = [uri for uri in unknown if manifest.get(uri)]
            asked = dict(zip(ask, pool.map(identify, ask), strict=True))
            for source in page:
                identity = source.identity or asked.get(source.uri)
                yield Planned(source.uri, target_of(source.uri, settings.name), identity)


def _counted(scenes: Iterator[Planned], orders: Orders) -> Iterator[Planned]:
    """The same scenes; how many there are so far is told where listing them takes long."""
    told = time.monotonic()
    for count, scene in enumerate(scenes, start=1):
        yield scene
        if orders.on_event and time.monotonic() - told > _LISTING:
            told = time.monotonic()
            seconds = round(told - orders.start, 3)
            message = f"all scenes are listed first; {count} so far"
            orders.on_event(Event("waiting", count, 0, 0, 0, seconds, message=message))

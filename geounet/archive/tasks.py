"""What a worker does with a scene. Everything that goes in and comes out can be pickled.

A failure comes back as a value, told apart where the error still has its causes.
"""

from __future__ import annotations

import hashlib
import socket
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from rasterio.errors import RasterioError

from geounet.archive.manifest import Failure, Kind, Made, Output, Stage
from geounet.archive.sources import identify
from geounet.archive.stages import Teller, here, to_the_client
from geounet.engines import EngineChoice, choose_engine, resolve_device, use_threads
from geounet.errors import (
    ConfigError,
    GeounetError,
    GeounetWarning,
    ModelError,
    OutputError,
    SceneError,
)
from geounet.model import Model, load_model
from geounet.pipeline import Job, RunConfig, RunResult, prepare, run_job
from geounet.remote import redact
from geounet.staging import sweep

__all__ = [
    "Extra",
    "Large",
    "Task",
    "UnfitWorkerError",
    "check_fit",
    "classify",
    "model_of",
    "segment",
]

Extra: TypeAlias = Callable[[Job, RunResult], Mapping[str, Path]]
"""Makes more outputs of a scene that was done, in the worker: a function of a module, which is
pickled by its name. Returns the files by kind; they are recorded as the others are."""


@dataclass(frozen=True, slots=True)
class Task:
    """One scene for one worker."""

    uri: str
    config: RunConfig
    """With the folder and name of this scene's outputs."""
    model: str
    """Digest that the model must have where it is loaded."""
    root: Path
    """The batch's output folder."""
    threads: int | None = None
    """Of the network; None leaves it to the process."""
    again: bool = False
    """Whether an earlier attempt may have left something."""
    large: int | None = None
    """Pixels above which a scene is given back, to be done in strips; None does any."""
    extras: tuple[Extra, ...] = ()


@dataclass(frozen=True, slots=True)
class Large:
    """A scene that is better done in strips, by several workers."""

    pixels: int


def segment(
    task: Task,
    run: Callable[..., RunResult] = run_job,
    tell: Callable[[Stage], None] | None = None,
) -> Made | Failure | Large:
    """Segment a scene and make its further outputs.

    Args:
        task: the scene.
        run: what does it once it is checked, called as `run_job` is.
        tell: called with each stage; None tells the client of the task that this runs in.
    """
    start = time.perf_counter()
    with _noted() as notes:
        try:
            done = _segment(task, run, Teller(tell or to_the_client()))
        except Exception as error:  # noqa: BLE001 - told apart and reported by the client
            return Failure(
                classify(error),
                type(error).__name__,
                _message(error),
                here(),
                time.perf_counter() - start,
            )
    if isinstance(done, Large):
        return done
    return replace(
        done,
        seconds=time.perf_counter() - start,
        details={**done.details, "warnings": list(dict.fromkeys(notes))},
    )


_notes: dict[int, list[str]] = {}
"""What was warned of in the threads that are at a scene."""
_noting = threading.Lock()
_filters = ExitStack()


@contextmanager
def _noted() -> Iterator[list[str]]:
    """What geounet warns of in this thread, and in those that it starts while no other is at one.

    A worker may do several scenes at once, and `warnings.catch_warnings` is the whole process's: a
    scene would get the warnings of another, and whoever ends last leaves the wrong state behind.
    """
    with _noting:
        if not _notes:
            _filters.enter_context(warnings.catch_warnings())
            warnings.simplefilter("always")
            warnings.showwarning = _note
        notes = _notes[threading.get_ident()] = []
    try:
        yield notes
    finally:
        with _noting:
            del _notes[threading.get_ident()]
            if not _notes:
                _filters.close()


def _note(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if issubclass(category, GeounetWarning):
        all_notes = list(_notes.values())
        alone = all_notes[0] if len(all_notes) == 1 else []
        _notes.get(threading.get_ident(), alone).append(str(message))


def _segment(task: Task, run: Callable[..., RunResult], tell: Teller) -> Made | Large:
    tell("opening")
    if task.again:
        sweep(task.config.output)
    if task.threads:
        use_threads(task.threads)
    identity = identify(task.uri)
    model = model_of(task.config.model, task.model)
    check_fit(model, task.config.device, task.config.engine)
    job = prepare(task.uri, task.config, model)
    pixels = job.plan.width * job.plan.height
    if task.large is not None and pixels > task.large:
        return Large(pixels)
    return record(task, job, run(job, on_progress=tell.progress), identity)


def record(task: Task, job: Job, result: RunResult, identity: str | None) -> Made:
    """What is kept of a run, once its input is known to be the one that was begun with."""
    outputs = dict(result.outputs)
    if identify(task.uri) != identity:
        for path in outputs.values():
            path.unlink(missing_ok=True)
        raise TimeoutError(f"{redact(task.uri)} was changed or went away while it was read")
    for extra in task.extras:
        outputs |= extra(job, result)
    kept = (
        "pixels",
        "polygons",
        "model",
        "device",
        "engine",
        "bands",
        "bands_missing",
        "radiometry",
        "cloud_mask",
    )
    record = result.as_dict()
    return Made(
        outputs={kind: _output(path, task.root) for kind, path in outputs.items()},
        areas=result.area_km2,
        seconds=result.seconds["total"],
        worker=here(),
        identity=identity,
        details={**{key: record[key] for key in kept}, "stages": result.seconds},
    )


def _output(path: Path, root: Path) -> Output:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Output(path.relative_to(root).as_posix(), path.stat().st_size, digest)


class UnfitWorkerError(GeounetError):
    """A worker that came late and cannot do what all others agreed on."""


def check_fit(model: Model, device: str, engine: EngineChoice) -> None:
    """Refuse to work where the device or the engine that all agreed on is not there.

    Raises:
        UnfitWorkerError: it is not.
    """
    try:
        choose_engine(model, resolve_device(device), engine)
    except ConfigError as error:
        raise UnfitWorkerError(
            f"all workers must run what those do that the batch began with; {socket.gethostname()} "
            f"cannot: {error}"
        ) from error


# -- the model -------------------------------------------------------------------------------------

_model: dict[str, Model] = {}
_loading = threading.Lock()


def model_of(source: str, digest: str) -> Model:
    """The batch's model, loaded once in this process.

    Args:
        source: name or path.
        digest: SHA-256 that its file must have here.

    Raises:
        ModelError: it is another one on this machine, or not there.
    """
    with _loading:
        if digest not in _model:
            model = load_model(source)
            if model.digest != digest:
                raise ModelError(
                    f"all workers run one model; {source} has the SHA-256 {model.digest} on "
                    f"{socket.gethostname()} and {digest} where the batch was begun. "
                    f"Give --model a file that all machines share, and one version of geounet."
                )
            _model.clear()
            _model[digest] = model
        return _model[digest]


# -- whose fault it was ----------------------------------------------------------------------------


def classify(error: BaseException) -> Kind:
    """Whose fault an error is, and so whether the scene is worth another attempt."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "memory"
    lost = {"KilledWorker", "CancelledError", "FutureCancelledError"}  # of a scene in strips
    if isinstance(error, UnfitWorkerError) or type(error).__name__ in lost:
        return "lost"
    if isinstance(error, OutputError):
        return "output"
    if isinstance(error, SceneError) and error.passing:
        return "network"
    if isinstance(error, (GeounetError, RasterioError)):
        return "input"
    return "network" if isinstance(error, OSError) else "unexpected"


def _message(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, GeounetError):
        return text
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{text} (in {last.name}, {Path(last.filename).name}:{last.lineno})"

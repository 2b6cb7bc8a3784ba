"""The loop of a batch: give scenes to workers, a few ahead, and keep the manifest.

    manifest → a window of tasks → workers
        ↑                              │
        └── results, stages, losses ←──┘

The scheduler holds a few tasks a worker and the client no more, however many scenes there are.
Results come back through a queue that each future's callback fills: unlike `as_completed` it can be
waited on for a while only, for scenes that rest before another attempt and for people who stop.
"""

from __future__ import annotations

import heapq
import math
import queue
import threading
import time
import uuid
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from dask.utils import key_split
from distributed import KilledWorker

from geounet.archive.agreement import Asked, agree
from geounet.archive.catalogue import ItemWriter
from geounet.archive.manifest import MANIFEST, Entry, Failure, Made, Manifest, Stage
from geounet.archive.settings import BatchResult, Event
from geounet.archive.stages import listening
from geounet.archive.strips import run_spread
from geounet.archive.tasks import Extra, Large, Task, segment
from geounet.errors import GeounetWarning
from geounet.remote import redact
from geounet.staging import sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from distributed import Client, Future

    from geounet.archive.cluster import Team
    from geounet.archive.settings import BatchConfig
    from geounet.model import Model
    from geounet.pipeline import RunConfig

__all__ = ["Drive", "Orders", "sweep_all"]

_Came: TypeAlias = "Made | Failure | Large | Stage | None"

_AHEAD = 2
"""Scenes in the cluster for each that can run."""
_LONGEST_REST = 60.0
"""Seconds before another attempt, at most."""
_DESERTED = 600.0
"""Seconds without any worker after which a batch on this machine gives up."""
_LOOK = 2.0
"""Seconds between looks at how many workers there are."""
_UNWRITTEN = 3
"""Scenes in a row whose outputs cannot be written, after which it is the disk and not a scene."""
_KILLED = KilledWorker.__name__
_SPARED = 20
"""Times that a scene may wait in a worker that another one kills, before it counts as its own."""


def sweep_all(folder: Path, names: set[str], client: Client | None = None) -> None:
    """Remove what workers that were killed left half-made: each machine removes its own."""
    folders = [folder / name for name in names if (folder / name).is_dir()]
    _sweep_folders(folders)
    if client and folders:
        client.run(_sweep_folders, folders, on_error="ignore")


def _sweep_folders(folders: Sequence[Path]) -> None:
    for folder in folders:
        sweep(folder)


@dataclass(frozen=True, slots=True)
class Orders:
    """What a batch is to do."""

    settings: BatchConfig
    config: RunConfig
    model: Model
    output: Path
    stop: threading.Event | None
    on_event: Callable[[Event], None] | None
    start: float


@dataclass(frozen=True, slots=True)
class _Flight:
    """A scene in the cluster."""

    scene: Entry
    task: Task
    future: Future


class Drive:
    """The loop of a batch. All of it runs in one thread."""

    def __init__(self, manifest: Manifest, orders: Orders) -> None:
        self._manifest, self._orders = manifest, orders
        counts = manifest.counts(batch=True)
        self._total = sum(counts.values())
        self._unchanged = self._done = counts["done"]
        self._failed = counts["failed"]
        self._new_failures = 0
        self._unwritten = 0
        self._flying: dict[str, _Flight] = {}
        self._stages: dict[str, Stage] = {}
        self._greedy: set[str] = set()
        self._spared = Counter[int]()
        self._spreading: set[str] = set()
        self._spreader = ThreadPoolExecutor(1, thread_name_prefix="geounet-spread")
        self._given_up = threading.Event()
        self._resting: list[tuple[float, int, Entry]] = []
        self._back: queue.SimpleQueue[tuple[str, Callable[[], _Came]]] = queue.SimpleQueue()
        self._stopped: str | None = None
        self._recalled = False
        self._deserted: float | None = None
        self._token = uuid.uuid4().hex[:8]

    def run(self, team: Team) -> None:
        """Do all scenes that are pending.

        Raises:
            ConfigError: a worker lacks the engine that was told.
        """
        config, model = self._orders.config, self._orders.model
        asked = Asked(config.model, model.spec, model.digest, config.engine, team.device)
        self._team, self._engine = team, agree(team, asked)
        self._compare_engines(f"{self._engine} on {team.device}")
        self._slots, self._looked = team.slots, time.monotonic()
        pending = self._manifest.pending()
        self._tell("begun", message=self._describe(team))
        try:
            with listening(team.client, on_stage=self._hear, on_memory=self._greedy.add):
                self._loop(pending)
        finally:
            self._abandon()

    def _compare_engines(self, now: str) -> None:
        """Warn where scenes that are done were made by another engine than the rest will be.

        It is no part of what settles a scene, or a machine of another kind would do all anew.
        """
        before = sorted(self._manifest.engines() - {now})
        if before:
            warnings.warn(
                f"scenes of this batch were made by {', '.join(before)}, and the rest will be by "
                f"{now}: their masks may differ in a few pixels of a thousand. Name one engine for "
                f"all, which does all anew: --set engine=torch.",
                GeounetWarning,
                stacklevel=4,
            )

    def wait_for(self, what: str) -> None:
        """Say what is waited for."""
        self._tell("waiting", message=what)

    def _loop(self, pending: Iterator[Entry]) -> None:
        while True:
            self._look()
            self._fill(pending)
            if not self._flying and (self._stopped or not self._resting):
                return
            self._take()

    def _describe(self, team: Team) -> str:
        workers = ("GPU" if team.resources else "worker") + "s" * (self._slots > 1)
        dashboard = f", dashboard {team.dashboard}" if team.dashboard else ""
        return f"{team.client.scheduler.address}, {self._slots} {workers}{dashboard}"

    # -- out ---------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Look at whether to stop, and now and then at how many workers there are."""
        if self._orders.stop and self._orders.stop.is_set() and not self._stopped:
            self._stopped = "interrupted"
        if self._stopped and not self._recalled:
            self._recall()
        if time.monotonic() - self._looked > _LOOK:
            self._looked = time.monotonic()
            if self._team.client.status != "running":
                self._stopped = self._stopped or "the scheduler went away"
                self._recalled = True
                self._drop(list(self._flying))
                return
            self._slots = self._team.slots
            self._wait_for_workers()
            self._show()

    def _wait_for_workers(self) -> None:
        """Say that there are none; stop where none can come any more."""
        if self._slots or not self._flying:
            self._deserted = None
            return
        if self._deserted is None:
            self._deserted = time.monotonic()
            self._tell("waiting", message="the cluster has no workers")
        if self._team.ours and time.monotonic() - self._deserted > _DESERTED:
            self._stopped = self._stopped or "all workers were lost and could not be started anew"
            self._recalled = True
            self._drop(list(self._flying))

    def _fill(self, pending: Iterator[Entry]) -> None:
        """Keep a few scenes a worker in the cluster; those that rest take their places."""
        room = max(_AHEAD * self._slots, 1)
        while not self._stopped and self._resting and self._resting[0][0] <= time.monotonic():
            self._submit(heapq.heappop(self._resting)[2])
        while not self._stopped and len(self._flying) + len(self._resting) < room:
            scene = next(pending, None)
            if scene is None:
                return
            if not self._refused(scene):
                self._submit(scene)

    def _refused(self, scene: Entry) -> bool:
        """Leave outputs alone that no batch of this folder made."""
        config = self._config_of(scene)
        there = [str(p) for p in config.outputs("").values() if p.exists()]
        if scene.claimed or config.overwrite or not there:
            return False
        message = f"not made by this batch and in its way: {', '.join(there)}. Give --overwrite."
        self._fail(scene, Failure("refused", "OutputError", message))
        return True

    def _config_of(self, scene: Entry) -> RunConfig:
        target = self._orders.output / scene.target
        return self._orders.config.model_copy(update={"output": target.parent, "name": target.name})

    def _submit(self, scene: Entry) -> None:
        attempt = scene.attempts + 1
        self._manifest.start(scene)
        config = self._config_of(scene).model_copy(
            update={
                "device": self._team.device,
                "engine": self._engine,
                "overwrite": True,
            }
        )
        task = Task(
            scene.uri,
            config,
            self._orders.model.digest,
            self._orders.output,
            threads=self._team.threads,
            again=attempt > 1 or scene.claimed,
            large=self._orders.settings.large if self._slots > 1 else None,
            extras=self._extras(),
        )
        # One of its own each time: under a key of before Dask may give the answer of before.
        key = f"scene-{scene.id}-{attempt}-{self._spared[scene.id]}-{self._token}"
        future = self._team.client.submit(
            segment, task, key=key, resources=self._team.resources or None, pure=False
        )
        self._flying[key] = _Flight(replace(scene, attempts=attempt), task, future)
        self._await(future)

    def _await(self, future: Future) -> None:
        future.add_done_callback(lambda it: self._back.put((it.key, partial(self._result, it))))

    def _spread(self, key: str) -> None:
        """Do a large scene with all workers together, in strips that this process writes."""
        self._spreading.add(key)
        task = self._flying[key].task
        # What the workers agreed on may not be here.
        told = {"device": "cpu", "engine": self._orders.config.engine}
        checked = task.config.model_copy(update=told)
        run = partial(run_spread, team=self._team, engine=self._engine, stop=self._given_up)
        tell = partial(self._hear, key)
        done = self._spreader.submit(segment, replace(task, config=checked, large=None), run, tell)
        done.add_done_callback(lambda it: self._back.put((key, it.result)))

    def _extras(self) -> tuple[Extra, ...]:
        settings = self._orders.settings
        items: tuple[Extra, ...] = (ItemWriter(self._orders.output),) if settings.stac else ()
        return (*settings.extras, *items)

    # -- back --------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Wait a little for a scene to come back, and write down what became of it."""
        rest = self._resting[0][0] - time.monotonic() if self._resting else math.inf
        try:
            key, result = self._back.get(timeout=max(min(rest, 0.5), 0.01))
        except queue.Empty:
            return
        if key not in self._flying:
            return
        came = result()
        if isinstance(came, Large):
            self._spread(key)
        elif isinstance(came, Stage):
            self._reach(key, came)
        elif came is not None:
            self._land(key, came)

    def _land(self, key: str, came: Made | Failure) -> None:
        """A scene is back."""
        self._spreading.discard(key)
        scene = self._flying.pop(key).scene
        begun = self._stages.pop(key, None)
        if isinstance(came, Made):
            self._finish(scene, came)
        elif not begun and came.error == _KILLED and self._spared[scene.id] < _SPARED:
            self._spared[scene.id] += 1
            self._manifest.put_back(scene)
            self._rest(replace(scene, attempts=scene.attempts - 1), 0.0)
        else:
            self._fail(scene, came)

    def _result(self, future: Future) -> _Came:
        """What a task returned, or why it could not; None if it has to be made again."""
        if future.status == "error":
            return self._lost(future.exception())
        if future.status == "cancelled":
            return Failure("lost", "CancelledError", "the scheduler dropped the scene")
        try:
            return future.result(timeout=30)  # type: ignore[no-any-return]
        except TimeoutError:  # its worker died before it gave the result away
            self._await(future)
            return None
        except Exception as error:  # noqa: BLE001 - whatever Dask raises, the scene is not lost
            return Failure("lost", type(error).__name__, " ".join(str(error).split()))

    def _lost(self, error: BaseException) -> Failure:
        """Why a worker did not give a scene back."""
        if not isinstance(error, KilledWorker):
            return Failure("lost", type(error).__name__, " ".join(str(error).split()))
        address = error.last_worker.address
        if address in self._greedy:
            return Failure(
                "memory",
                _KILLED,
                f"its worker, {address}, took more memory than it may have and was stopped; if it "
                f"happens again give fewer --workers, or workers of more memory",
            )
        return Failure("lost", _KILLED, f"its worker, {address}, was killed, or its machine")

    def _finish(self, scene: Entry, made: Made) -> None:
        self._manifest.finish(scene, made)
        self._unwritten = 0
        self._done += 1
        self._tell("done", uri=redact(scene.uri), spent=made.seconds, worker=made.worker)

    def _fail(self, scene: Entry, failure: Failure) -> None:
        again = failure.passing and scene.attempts <= self._orders.settings.retries
        self._manifest.fail(scene, failure, again=again)
        message = f"{failure.error}: {failure.message}"
        if again:
            self._rest(scene, self._orders.settings.rest * 2 ** (scene.attempts - 1))
            self._tell(
                "again", uri=redact(scene.uri), message=message, worker=failure.worker or None
            )
            return
        self._failed += 1
        self._new_failures += 1
        self._tell("failed", uri=redact(scene.uri), message=message, worker=failure.worker or None)
        self._consider_stopping(failure)

    def _rest(self, scene: Entry, seconds: float) -> None:
        until = time.monotonic() + min(seconds, _LONGEST_REST)
        heapq.heappush(self._resting, (until, scene.id, scene))

    def _consider_stopping(self, failure: Failure) -> None:
        most = self._orders.settings.max_failures
        self._unwritten += failure.kind == "output"
        if self._unwritten >= _UNWRITTEN:
            self._stopped = self._stopped or f"outputs cannot be written: {failure.message}"
        elif most is not None and self._new_failures > most:
            self._stopped = self._stopped or f"more than {most} scenes failed"

    # -- on the way --------------------------------------------------------------------------------

    def _hear(self, key: str, stage: Stage) -> None:
        """In another thread: a worker says where a scene is."""
        self._back.put((key, lambda: stage))

    def _reach(self, key: str, stage: Stage) -> None:
        """A scene is at a stage."""
        before, self._stages[key] = self._stages.get(key), stage
        uri = redact(self._flying[key].scene.uri)
        self._tell("stage", uri=uri, worker=stage.worker, stage=stage.name, share=stage.share)
        if before and before.worker != stage.worker and key not in self._spreading:
            self._count(key, before.worker)
        if stage.name == "opening" and not self._team.ours and self._is_last(key):
            self._team.client.run_on_scheduler(_give_no_other_chance, key)

    def _is_last(self, key: str) -> bool:
        """Whether a scene that runs now is not tried again if its worker dies."""
        flight = self._flying.get(key)
        return flight is not None and flight.scene.attempts > self._orders.settings.retries

    def _count(self, key: str, worker: str) -> None:
        """Count an attempt of Dask's own.

        It gives a task whose worker died to another one and tells nobody, as often as the cluster's
        ``allowed-failures`` say.
        """
        flight = self._flying[key]
        failure = Failure("lost", _KILLED, f"its worker, {worker}, was killed", worker)
        if flight.scene.attempts > self._orders.settings.retries:
            self._flying.pop(key)
            self._stages.pop(key)
            self._team.client.cancel([flight.future])
            self._fail(flight.scene, failure)
            return
        self._manifest.start(flight.scene)
        scene = replace(flight.scene, attempts=flight.scene.attempts + 1)
        self._flying[key] = replace(flight, scene=scene)
        message = f"{failure.error}: {failure.message}; Dask gave the scene to another"
        self._tell("again", uri=redact(scene.uri), message=message, worker=worker)

    def _show(self) -> None:
        """Let readers of the manifest see where scenes are."""
        key_split.cache_clear()  # Dask remembers the names of a hundred thousand tasks, 170 B each
        flying = {self._flying[key].scene.id: stage for key, stage in self._stages.items()}
        self._manifest.show(flying)

    # -- stopping ----------------------------------------------------------------------------------

    def _recall(self) -> None:
        """Take back what has not begun; what runs is finished."""
        self._recalled = True
        executing = self._executing()
        waiting = [key for key in self._flying if key not in executing]
        running = len(self._flying) - len(waiting)
        self._drop(waiting)
        self._tell("stopping", message=f"{self._stopped}; {running} scenes are being finished")
        while self._executing() & set(waiting):  # begun meanwhile: dropped, they go on and write
            time.sleep(0.1)

    def _executing(self) -> set[str]:
        found = self._team.client.run(_executing_here, on_error="ignore")
        return self._spreading.union(*found.values())

    def _drop(self, keys: Sequence[str]) -> None:
        taken = [self._flying.pop(key) for key in keys]
        for key in keys:
            self._stages.pop(key, None)
        if taken and self._team.client.status == "running":
            self._team.client.cancel([flight.future for flight in taken])
        for flight in taken:
            self._manifest.put_back(flight.scene)

    def _abandon(self) -> None:
        """What is left in the cluster when the loop ends, by an error or by force, is pending."""
        self._given_up.set()
        self._spreader.shutdown(cancel_futures=True)
        self._drop(list(self._flying))
        if self._team.client.status == "running":
            sweep_all(self._orders.output, self._manifest.folders(), self._team.client)

    # -- telling -----------------------------------------------------------------------------------

    def _tell(self, kind: Any, **more: Any) -> None:
        if self._orders.on_event:
            seconds = round(time.monotonic() - self._orders.start, 3)
            self._orders.on_event(
                Event(
                    kind, self._total, self._done, self._failed, len(self._flying), seconds, **more
                )
            )

    def end(self) -> BatchResult:
        """Write down the end and say what became of all."""
        self._manifest.end(self._stopped)
        result = BatchResult(
            output=self._orders.output,
            manifest=self._orders.output / MANIFEST,
            total=self._total,
            done=self._done,
            unchanged=self._unchanged,
            failed=self._failed,
            left=self._total - self._done - self._failed,
            area_km2=self._manifest.areas(),
            seconds=round(time.monotonic() - self._orders.start, 3),
            stopped=self._stopped,
        )
        self._tell("ended", message=self._stopped)
        return result


def _give_no_other_chance(key: str, dask_scheduler: Any) -> None:
    """In the scheduler: if the worker of a task dies now, the task fails, whatever is allowed."""
    if task := dask_scheduler.tasks.get(key):
        task.suspicious = dask_scheduler.allowed_failures


def _executing_here(dask_worker: Any) -> list[str]:
    """In a worker: the tasks that it is at."""
    return [task.key for task in dask_worker.state.executing]

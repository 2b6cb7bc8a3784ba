"""The record of a batch: one SQLite file in the output folder, one row a scene.

SQLite rather than Parquet or JSON lines: a batch changes rows all the time and must survive
``kill -9`` at any moment. Each change is a transaction in a write-ahead log, so the file opens
after any crash, with every scene in it once and no change half made; other processes read it while
it is written; and a million rows need no memory. It has one writer, the process that runs the
batch, which holds a lock file for as long as it lives. A write-ahead log needs a file system of one
machine: keep the output folder's manifest on one that the client's machine shares with nobody who
writes (readers elsewhere may see an older state).

A scene is not done because a file exists. It is done while its input is the one that was read
(size and modification time, or an object's ETag), the model and the parameters are the same by
their digests, and every output is there with the size that was recorded. An update of geounet
alone redoes nothing; the version that made each output is in its row.
"""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from filelock import FileLock, Timeout

import geounet
from geounet.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType

__all__ = [
    "MANIFEST",
    "Entry",
    "Failure",
    "Kind",
    "Made",
    "Manifest",
    "Output",
    "Planned",
    "Running",
    "Stage",
    "StageName",
    "Status",
]

MANIFEST = "geounet-batch.sqlite"
"""Name of the manifest in the output folder."""

Status = Literal["pending", "running", "done", "failed"]

Kind = Literal["input", "refused", "network", "lost", "memory", "output", "unexpected"]
"""Why a scene failed.

``input``: the scene or a parameter is at fault. ``refused``: outputs of somebody else are in the
way. ``network``: the source could not be reached. ``lost``: the worker died, was stopped, or lacks
what the others have.
``memory``: the worker ran out of it. ``output``: the outputs could not be written. ``unexpected``:
an error that geounet does not raise on purpose.
"""

StageName = Literal["opening", "predicting", "writing"]
"""What a worker does with a scene: ``writing`` includes the polygons, overviews and extras."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS scenes (
    id INTEGER PRIMARY KEY,
    uri TEXT NOT NULL UNIQUE,
    target TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL CHECK (status IN ('pending', 'running', 'done', 'failed')),
    attempts INTEGER NOT NULL DEFAULT 0,
    claimed INTEGER NOT NULL DEFAULT 0,
    identity TEXT,
    model TEXT NOT NULL,
    parameters TEXT NOT NULL,
    kind TEXT,
    error TEXT,
    message TEXT,
    outputs TEXT NOT NULL DEFAULT '{}',
    areas TEXT NOT NULL DEFAULT '{}',
    details TEXT NOT NULL DEFAULT '{}',
    seconds REAL,
    worker TEXT,
    version TEXT,
    started REAL,
    finished REAL,
    batch INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS scenes_by_status ON scenes (status, id);
CREATE TABLE IF NOT EXISTS stages (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    share REAL,
    worker TEXT NOT NULL,
    since REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY,
    started REAL NOT NULL,
    finished REAL,
    stopped TEXT,
    settings TEXT NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Output:
    """A file that was made."""

    path: str
    """Relative to the output folder."""
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a scene that was done."""

    outputs: dict[str, Output]
    """By kind: ``mask``, ``polygons``, …"""
    areas: dict[str, float]
    """True area of each class in square kilometres."""
    seconds: float
    worker: str
    identity: str | None
    """Of the input, as the worker saw it."""
    details: dict[str, Any] = field(default_factory=dict)
    """More of the result, for JSON."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a scene could not be done."""

    kind: Kind
    error: str
    """Class of the error."""
    message: str
    worker: str = ""
    seconds: float = 0.0

    @property
    def passing(self) -> bool:
        """Whether the scene itself is not at fault, so that another attempt may do it."""
        return self.kind in {"network", "lost", "memory", "output"}


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a scene is in the worker that has it."""

    name: StageName
    share: float | None
    """Of the windows that are predicted; None where that is not what is done."""
    worker: str
    since: float
    """Unix time at which it was told."""


@dataclass(frozen=True, slots=True)
class Running:
    """A scene that a worker is at."""

    uri: str
    stage: Stage


@dataclass(frozen=True, slots=True)
class Planned:
    """A scene that is to be in the batch."""

    uri: str
    target: str
    """Path of the outputs in the output folder, without the suffixes that say the kind."""
    identity: str | None
    """Of the input; None where nobody can tell."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A row."""

    id: int
    uri: str
    target: str
    status: Status
    attempts: int
    """Since the scene was last new."""
    claimed: bool
    """Whether it was ever begun, so that outputs under its name are its own."""
    identity: str | None
    model: str
    """SHA-256 of the model's file."""
    parameters: str
    """SHA-256 of the parameters that decide what the outputs say."""
    kind: Kind | None
    error: str | None
    message: str | None
    outputs: dict[str, Output]
    areas: dict[str, float]
    details: dict[str, Any]
    seconds: float | None
    worker: str | None
    version: str | None
    """Of geounet, when it was done."""
    started: float | None
    """Unix time."""
    finished: float | None
    """Unix time."""

    def there(self, folder: Path) -> bool:
        """Whether all outputs are in the output folder with the sizes that were recorded."""
        return bool(self.outputs) and all(
            _size(folder / output.path) == output.size for output in self.outputs.values()
        )


_COLUMNS = ", ".join(Entry.__dataclass_fields__)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _entry(row: tuple[Any, ...]) -> Entry:
    values = dict(zip(Entry.__dataclass_fields__, row, strict=True))
    outputs = json.loads(values["outputs"])
    values["outputs"] = {kind: Output(**output) for kind, output in outputs.items()}
    values["areas"] = json.loads(values["areas"])
    values["details"] = json.loads(values["details"])
    values["claimed"] = bool(values["claimed"])
    return Entry(**values)


class Manifest:
    """The manifest of an output folder.

    A context manager. One thread of one process may write; see `create` and `read`.
    """

    def __init__(self, database: sqlite3.Connection, folder: Path, lock: FileLock | None) -> None:
        self._db = database
        self._folder = folder
        self._lock = lock
        self._batch = 0

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Open the manifest of an output folder to write, or make one.

        Raises:
            OutputError: another batch runs in that folder, or it cannot be written to.
        """
        path = folder / MANIFEST
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Who looks at whether a batch runs holds the lock for a moment.
            lock = FileLock(path.with_suffix(".lock"), timeout=1)
            lock.acquire()
            database = sqlite3.connect(path, isolation_level=None)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(_SCHEMA)
        except Timeout as error:
            raise OutputError(
                f"one batch at a time may write to a folder; another runs in {folder}. "
                f"Wait for it or choose another --output."
            ) from error
        except (OSError, sqlite3.Error) as error:
            raise OutputError(
                f"a batch keeps its manifest in the output folder; cannot open {path}: {error}. "
                f"Make room there and see that it may be written to, or choose another --output."
            ) from error
        return cls(database, folder, lock)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Open a manifest to read; a batch may write to it meanwhile.

        Raises:
            ConfigError: the folder holds none.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise ConfigError(f"a batch leaves {MANIFEST} in its output folder; {folder} has none.")
        return cls(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True), folder, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock:
            # one plain file again, which readers leave nothing beside; not while one of them reads
            with suppress(sqlite3.Error):
                self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.close()
        if self._lock:
            self._lock.release()
        if isinstance(error, sqlite3.Error):
            raise OutputError(
                f"a batch keeps its manifest in the output folder; {self._folder / MANIFEST}: "
                f"{error}. Make room there; the same command goes on with what is left."
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:  # on a full disk SQLite has rolled back by itself
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # -- registering -------------------------------------------------------------------------------

    def begin(self, settings: dict[str, Any]) -> None:
        """Begin a batch; what an earlier one left running is pending again.

        Args:
            settings: what it was asked to do, for people who look later.
        """
        with self._transaction():
            self._db.execute("UPDATE scenes SET status = 'pending' WHERE status = 'running'")
            self._db.execute("DELETE FROM stages")
            done = self._db.execute(
                "INSERT INTO batches (started, settings) VALUES (?, ?)",
                (time.time(), json.dumps(settings, default=str)),
            )
            self._batch = int(done.lastrowid or 0)

    def register(
        self,
        scenes: Iterable[Planned],
        *,
        model: str,
        parameters: str,
        retry_failed: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Take scenes into the batch, all or none of them.

        A scene that is done or at fault itself stays so unless its input, the model, the parameters
        or its outputs changed.

        Args:
            scenes: taken one by one and never held together.
            model: digest of the model.
            parameters: digest of the parameters.
            retry_failed: also take scenes whose input was at fault.
            overwrite: whether a scene may take the place of one of an earlier batch.

        Raises:
            ConfigError: two scenes have the same outputs.
        """
        with self._transaction():
            for scene in scenes:
                self._register(
                    scene, (model, parameters), retry_failed=retry_failed, overwrite=overwrite
                )

    def _register(
        self, scene: Planned, made_with: tuple[str, str], *, retry_failed: bool, overwrite: bool
    ) -> None:
        known = self.get(scene.uri)
        if known is None or known.target != scene.target:
            self._make_room(scene, overwrite=overwrite)
        if known is None:
            self._db.execute(
                "INSERT INTO scenes (uri, target, status, identity, model, parameters, batch)"
                " VALUES (?, ?, 'pending', ?, ?, ?, ?)",
                (scene.uri, scene.target, scene.identity, *made_with, self._batch),
            )
        elif self._settled(known, scene, made_with, retry_failed=retry_failed):
            self._db.execute("UPDATE scenes SET batch = ? WHERE id = ?", (self._batch, known.id))
        else:
            claimed = known.claimed and known.target == scene.target
            self._db.execute(
                "UPDATE scenes SET target = ?, status = 'pending', attempts = 0, claimed = ?,"
                " identity = ?, model = ?, parameters = ?, batch = ? WHERE id = ?",
                (scene.target, claimed, scene.identity, *made_with, self._batch, known.id),
            )

    def _settled(
        self, known: Entry, scene: Planned, made_with: tuple[str, str], *, retry_failed: bool
    ) -> bool:
        """Whether nothing is left to do for a scene."""
        same_input = scene.identity is None or scene.identity == known.identity
        if not same_input or (known.model, known.parameters) != made_with:
            return False
        if known.target != scene.target:
            return False
        if known.status == "done":
            return known.there(self._folder)
        at_fault = known.kind is not None and not Failure(known.kind, "", "").passing
        return known.status == "failed" and at_fault and not retry_failed

    def _make_room(self, scene: Planned, *, overwrite: bool) -> None:
        """Refuse a scene whose outputs would be those of another."""
        row = self._db.execute(
            "SELECT uri, batch FROM scenes WHERE target = ? AND uri != ?", (scene.target, scene.uri)
        ).fetchone()
        if row is None:
            return
        other, batch = row
        if batch == self._batch:
            raise ConfigError(
                f"each scene has outputs of its own; {other} and {scene.uri} would both be "
                f"{scene.target}. Tell them apart with --name, like '{{parent}}/{{stem}}'."
            )
        if not overwrite:
            raise ConfigError(
                f"each scene has outputs of its own; {scene.uri} would replace {scene.target}, "
                f"which an earlier batch made of {other}. Give --overwrite, --name or another "
                f"--output."
            )
        self._db.execute("DELETE FROM scenes WHERE uri = ?", (other,))

    # -- running -----------------------------------------------------------------------------------

    def pending(self, page: int = 256) -> Iterator[Entry]:
        """The batch's pending scenes in the order in which they came, a page in memory at once.

        Each comes once, however its status changes meanwhile.
        """
        last = 0
        while rows := self._db.execute(
            f"SELECT {_COLUMNS} FROM scenes WHERE status = 'pending' AND id > ? AND batch = ?"  # noqa: S608 - names of columns
            " ORDER BY id LIMIT ?",
            (last, self._batch, page),
        ).fetchall():
            for row in rows:
                last = row[0]
                yield _entry(row)

    def start(self, scene: Entry) -> None:
        """A scene is given to the cluster: one attempt more."""
        self._db.execute(
            "UPDATE scenes SET status = 'running', attempts = attempts + 1, claimed = 1,"
            " started = ?, finished = NULL WHERE id = ?",
            (time.time(), scene.id),
        )

    def finish(self, scene: Entry, made: Made) -> None:
        """A scene is done; outputs that an earlier version of it had and it has no more go."""
        outputs = {kind: asdict(output) for kind, output in made.outputs.items()}
        self._db.execute(
            "UPDATE scenes SET status = 'done', identity = ?, kind = NULL, error = NULL,"
            " message = NULL, outputs = ?, areas = ?, details = ?, seconds = ?, worker = ?,"
            " version = ?, finished = ? WHERE id = ?",
            (
                made.identity,
                json.dumps(outputs),
                json.dumps(made.areas),
                json.dumps(made.details, default=str),
                made.seconds,
                made.worker,
                geounet.__version__,
                time.time(),
                scene.id,
            ),
        )
        kept = {output.path for output in made.outputs.values()}
        for output in scene.outputs.values():
            if output.path not in kept:
                (self._folder / output.path).unlink(missing_ok=True)

    def fail(self, scene: Entry, failure: Failure, *, again: bool = False) -> None:
        """A scene failed, for good or to be tried again."""
        self._db.execute(
            "UPDATE scenes SET status = ?, kind = ?, error = ?, message = ?, seconds = ?,"
            " worker = ?, finished = ? WHERE id = ?",
            (
                "pending" if again else "failed",
                failure.kind,
                failure.error,
                failure.message,
                failure.seconds,
                failure.worker,
                time.time(),
                scene.id,
            ),
        )

    def put_back(self, scene: Entry) -> None:
        """A scene was taken from the cluster before it began: the attempt does not count."""
        self._db.execute(
            "UPDATE scenes SET status = 'pending', attempts = attempts - 1 WHERE id = ?",
            (scene.id,),
        )

    def show(self, stages: Mapping[int, Stage]) -> None:
        """Let readers see where scenes are.

        Args:
            stages: of the scenes that workers are at, by the row's id.
        """
        rows = [(i, s.name, s.share, s.worker, s.since) for i, s in stages.items()]
        with self._transaction():
            self._db.execute("DELETE FROM stages")
            self._db.executemany("INSERT INTO stages VALUES (?, ?, ?, ?, ?)", rows)

    def end(self, stopped: str | None = None) -> None:
        """The batch ends.

        Args:
            stopped: why it ended early, if it did.
        """
        self._db.execute("DELETE FROM stages")
        self._db.execute(
            "UPDATE batches SET finished = ?, stopped = ? WHERE id = ?",
            (time.time(), stopped, self._batch),
        )

    # -- reading -----------------------------------------------------------------------------------

    def get(self, uri: str) -> Entry | None:
        """The row of a scene."""
        found = self._db.execute(f"SELECT {_COLUMNS} FROM scenes WHERE uri = ?", (uri,)).fetchone()  # noqa: S608
        return None if found is None else _entry(found)

    def entries(self, status: Status | None = None) -> Iterator[Entry]:
        """All rows, or those of a status, in the order in which they came, read one by one."""
        where, values = ("WHERE status = ?", (status,)) if status else ("", ())
        query = f"SELECT {_COLUMNS} FROM scenes {where} ORDER BY id"  # noqa: S608
        for row in self._db.execute(query, values):
            yield _entry(row)

    def counts(self, *, batch: bool = False) -> dict[Status, int]:
        """How many scenes there are of each status.

        Args:
            batch: of the batch that was begun here only.
        """
        where, values = ("WHERE batch = ?", (self._batch,)) if batch else ("", ())
        query = f"SELECT status, count(*) FROM scenes {where} GROUP BY status"  # noqa: S608
        found = dict(self._db.execute(query, values).fetchall())
        statuses: tuple[Status, ...] = ("pending", "running", "done", "failed")
        return {status: found.get(status, 0) for status in statuses}

    def running(self) -> list[Running]:
        """The scenes that workers are at, as told in the last seconds of a batch that runs."""
        rows = self._db.execute(
            "SELECT uri, name, share, stages.worker, since FROM stages JOIN scenes USING (id)"
            " ORDER BY since"
        ).fetchall()
        return [Running(uri, Stage(*stage)) for uri, *stage in rows]

    def areas(self) -> dict[str, float]:
        """Areas of all scenes that are done, added up by class, in square kilometres."""
        return dict(
            self._db.execute(
                "SELECT area.key, sum(area.value) FROM scenes, json_each(scenes.areas) AS area"
                " WHERE status = 'done' GROUP BY area.key ORDER BY min(area.id)"
            ).fetchall()
        )

    def engines(self) -> set[str]:
        """What made the batch's scenes that are done: ``openvino on cpu``."""
        rows = self._db.execute(
            "SELECT DISTINCT json_extract(details, '$.engine'), json_extract(details, '$.device')"
            " FROM scenes WHERE status = 'done' AND batch = ?",
            (self._batch,),
        )
        return {f"{engine} on {device}" for engine, device in rows}

    def folders(self) -> set[str]:
        """Folders in which a worker that died may have left something, relative to the output's."""
        rows = self._db.execute(
            "SELECT target FROM scenes WHERE attempts > 1 OR (claimed AND status != 'done')"
        )
        return {str(Path(target).parent) for (target,) in rows}

    def in_use(self) -> bool:
        """Whether a batch is writing; to who may not write there, whether the last one goes on."""
        lock = FileLock((self._folder / MANIFEST).with_suffix(".lock"), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return True
        except OSError:
            return "started" in (last := self.last_batch()) and last["finished"] is None
        lock.release()
        return False

    def last_batch(self) -> dict[str, Any]:
        """When the last batch started and finished, why it was stopped, what it was asked to do."""
        row = self._db.execute(
            "SELECT started, finished, stopped, settings FROM batches ORDER BY id DESC LIMIT 1"
        ).fetchone()
        if row is None:
            return {}
        started, finished, stopped, settings = row
        return {
            "started": started,
            "finished": finished,
            "stopped": stopped,
            "settings": json.loads(settings),
        }

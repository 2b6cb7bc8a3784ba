"""The workers of a batch: a cluster on this machine, or one that runs already.

On this machine a worker is a process that does one scene at a time, with as many threads for the
network as its share of the cores. A process owns a GPU or none; reading and writing run beside the
network in threads of the same process. Workers of an existing cluster that own a GPU say so with
``--resources GPU=1``.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import spawn
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.config
import rasterio.env
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.scheduler import DEFAULT_EXTENSIONS
from distributed.spans import SpansSchedulerExtension
from distributed.system import MEMORY_LIMIT

from geounet.engines import count_gpus
from geounet.errors import ConfigError, GeounetWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from distributed import Worker

__all__ = ["Layout", "Machine", "Seen", "Team", "carried", "gather", "judge", "plan_layout"]

GPU = "GPU"
"""Name of the worker resource that stands for owning a GPU."""

_MEMORY = 2 << 30
"""Bytes that a worker needs at least."""
_SAID_EVERY = 5.0
"""Seconds between words on what is waited for."""
_CORES = 4
"""Cores that a network uses well; a machine with more gets more workers."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to share out."""

    cores: int
    memory: int
    """Bytes."""
    gpus: tuple[str, ...] = ()
    """CUDA devices, as ``CUDA_VISIBLE_DEVICES`` names them."""

    @classmethod
    def this(cls) -> Machine:
        """The machine that this process sees: its cores, its share of memory, its GPUs."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        count = count_gpus()
        gpus = visible.split(",")[:count] if visible else map(str, range(count))
        return cls(CPU_COUNT, int(MEMORY_LIMIT), tuple(gpus))


@dataclass(frozen=True, slots=True)
class Layout:
    """How a machine is shared out."""

    workers: int
    """Processes."""
    threads: int
    """Threads of the network in each."""
    memory: int
    """Bytes that each may take before it is started anew."""
    gpus: tuple[str, ...] = ()
    """The GPU of each worker; empty without."""


def plan_layout(
    machine: Machine,
    *,
    device: str = "auto",
    workers: int | None = None,
    threads: int | None = None,
) -> Layout:
    """Share out a machine: never more threads than cores, never two processes on a GPU.

    Args:
        machine: what there is.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        workers: processes; None chooses.
        threads: threads of the network in each; None gives them all cores.

    Raises:
        ConfigError: a layout that asks for more than there is.
    """
    gpus = _gpus(machine, device)
    most = len(gpus) if gpus else 1 if device == "mps" else machine.cores
    if workers and workers > most:
        owned = f"{most} GPU{'s' if most > 1 else ''}" if most < machine.cores else f"{most} cores"
        raise ConfigError(
            f"one process owns a GPU or a core; {workers} workers would share {owned}. "
            f"Give --workers {most} or fewer."
        )
    if workers is None:
        share = threads or max(machine.cores // -(-machine.cores // _CORES), 1)
        fits = max(min(machine.cores // share, machine.memory // _MEMORY), 1)
        workers = most if gpus or device == "mps" else fits
    if threads and workers * threads > machine.cores:
        raise ConfigError(
            f"{workers} workers of {threads} threads would share {machine.cores} cores and slow "
            f"each other down. Give --threads {max(machine.cores // workers, 1)} or fewer."
        )
    return Layout(
        workers,
        threads or max(machine.cores // workers, 1),
        machine.memory // workers,
        gpus[:workers],
    )


def _gpus(machine: Machine, device: str) -> tuple[str, ...]:
    if device == "auto":
        return machine.gpus
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return ()
    if not machine.gpus or (number and not int(number) < len(machine.gpus)):
        raise ConfigError(f"--device must be there; this machine has no {device}.")
    return (machine.gpus[int(number)],) if number else machine.gpus


@dataclass(frozen=True, slots=True)
class Seen:
    """A worker of an existing cluster."""

    host: str
    threads: int
    """Tasks that it runs at once."""
    cores: int
    gpu: str | None
    """The GPU that its tasks would use; None without."""
    owns: bool
    """Whether it says that it owns a GPU."""


def judge(workers: Sequence[Seen], device: str) -> tuple[bool, int | None]:
    """Whether scenes go to the workers that own GPUs, and the network's threads in each task.

    Raises:
        ConfigError: the workers would share a GPU.

    Warns:
        GeounetWarning: the workers of a machine run more tasks at once than it has cores.
    """
    owners = [worker for worker in workers if worker.owns]
    if device.startswith("cuda") and not owners:
        raise ConfigError(
            f"one process owns a GPU; no worker of the cluster says that it does, and --device "
            f"is {device}. Start them with: dask worker ... --nthreads 1 --resources GPU=1, "
            f"each with a CUDA_VISIBLE_DEVICES of its own."
        )
    if device == "auto" and not owners and any(worker.gpu for worker in workers):
        raise ConfigError(
            "one process owns a GPU; workers of the cluster see GPUs and none says that it owns "
            "one. Start them with: dask worker ... --nthreads 1 --resources GPU=1, or give "
            "--device cpu."
        )
    use_gpus = bool(owners) and (device == "auto" or device.startswith("cuda"))
    if use_gpus:
        shared = Counter((worker.host, worker.gpu) for worker in owners).most_common(1)[0]
        if shared[1] > 1:
            raise ConfigError(
                f"one process owns a GPU; {shared[1]} workers on {shared[0][0]} would share "
                f"GPU {shared[0][1]}. Give each a CUDA_VISIBLE_DEVICES of its own."
            )
    return use_gpus, _threads(workers)


def _threads(workers: Sequence[Seen]) -> int | None:
    tasks = Counter[str]()
    cores: dict[str, int] = {}
    for worker in workers:
        tasks[worker.host] += worker.threads
        cores[worker.host] = worker.cores
    for host, count in tasks.items():
        if count > cores[host]:
            warnings.warn(
                f"the workers on {host} run {count} scenes at once on {cores[host]} cores and "
                f"slow each other down; start them with fewer threads.",
                GeounetWarning,
                stacklevel=4,
            )
    return min((max(cores[host] // count, 1) for host, count in tasks.items()), default=None)


# -- settings that travel --------------------------------------------------------------------------

_CARRIED = ("AWS_", "AZURE_", "CPL_", "CURL_", "GDAL_", "GOOGLE_", "GS_", "OSS_", "SWIFT_", "VSI_")
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"})
_OF_THE_MACHINE = frozenset({"GDAL_DATA", "GDAL_DRIVER_PATH", "GDAL_CACHEMAX", "GDAL_NUM_THREADS"})


def carried(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """GDAL's settings and the credentials of this process, for the workers.

    They are those of the environment and of a `rasterio.Env` around the call. Paths of GDAL's own
    files stay where they are.
    """
    settings = {
        name: value
        for name, value in env.items()
        if (name.startswith(_CARRIED) or name.upper() in _PROXIES) and name not in _OF_THE_MACHINE
    }
    options = rasterio.env.getenv() if rasterio.env.hasenv() else {}
    for name, value in options.items():
        if name not in _OF_THE_MACHINE and value is not None:
            text = ("YES" if value else "NO") if isinstance(value, bool) else str(value)
            settings[name.upper()] = text
    return settings


class _Settings(WorkerPlugin):  # type: ignore[misc] # distributed has no types
    """Hands settings to workers, those that come later too."""

    name = "geounet-settings"
    idempotent = False

    def __init__(self, env: dict[str, str], *, ours: bool) -> None:
        self._env = env
        self._ours = ours

    def setup(self, worker: Worker) -> None:  # noqa: ARG002 - Dask's signature
        os.environ.update(self._env)
        if self._ours and threading.current_thread() is threading.main_thread():
            # Ctrl-C reaches all processes of a terminal; the client alone decides what it means.
            signal.signal(signal.SIGINT, signal.SIG_IGN)


# -- the team --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Team:
    """Workers that are ready."""

    client: Client
    device: str
    """What scenes run on."""
    threads: int | None
    """Of the network in each task; None leaves it to the worker."""
    resources: dict[str, float]
    """What a task that runs the network takes."""
    dashboard: str | None
    ours: bool
    """Whether the workers were started here and will not come back if all are lost."""

    @property
    def slots(self) -> int:
        """Scenes that run at once now."""
        workers = _workers(self.client).values()
        if self.resources:
            return int(sum(worker["resources"].get(GPU, 0) for worker in workers))
        return int(sum(worker["nthreads"] for worker in workers))

    def members(self) -> list[str]:
        """Addresses of the workers that run the network now."""
        workers = _workers(self.client)
        return [
            w for w, facts in workers.items() if not self.resources or facts["resources"].get(GPU)
        ]


class _NoSpans(SpansSchedulerExtension):  # type: ignore[misc] # distributed has no types
    """Keeps nothing; Dask's own keeps a dict for every task that was ever submitted."""

    def observe_tasks(self, *_: object, **__: object) -> dict[str, Any]:
        return {}

    def heartbeat(self, *_: object) -> None: ...


class _LocalTeam(LocalCluster):  # type: ignore[misc] # distributed has no types
    """Worker processes on this machine, each with its GPU."""

    def __init__(self, layout: Layout, dashboard: str) -> None:
        self._gpus = list(layout.gpus)
        super().__init__(
            n_workers=0,
            threads_per_worker=1,
            processes=True,
            memory_limit=layout.memory,
            dashboard_address=dashboard,
            resources={GPU: 1} if layout.gpus else {},
            silence_logs=logging.CRITICAL,
            scheduler_kwargs={"extensions": {**DEFAULT_EXTENSIONS, "spans": _NoSpans}},
        )
        self.scale(layout.workers)

    def new_worker_spec(self) -> dict[Any, dict[str, Any]]:
        (item,) = super().new_worker_spec().items()
        name, spec = item
        if not self._gpus:
            return {name: spec}
        env = {"CUDA_VISIBLE_DEVICES": self._gpus[name % len(self._gpus)]}
        return {name: {**spec, "options": {**spec["options"], "env": env}}}


@contextmanager
def gather(
    scheduler: str | Path | Client | None = None,
    *,
    device: str = "auto",
    workers: int | None = None,
    threads: int | None = None,
    patience: float = 60.0,
    on_wait: Callable[[str], None] = lambda _: None,
) -> Iterator[Team]:
    """Workers for as long as the block lasts.

    Args:
        scheduler: address (``tcp://...``) or file of an existing cluster's scheduler, or a client;
            None starts worker processes on this machine.
        device: what scenes run on.
        workers: processes on this machine; None chooses.
        threads: threads of the network in each; None chooses.
        patience: seconds to wait for the first worker of an existing cluster.
        on_wait: called with what is waited for, now and then.

    Raises:
        ConfigError: a layout that would oversubscribe cores or GPUs, or no scheduler there.
    """
    with ExitStack() as stack:
        if scheduler is None:
            machine = Machine.this()
            layout = plan_layout(machine, device=device, workers=workers, threads=threads)
            on_wait(f"worker processes start: {layout.workers}")
            team = _start(stack, layout, device, on_wait)
        else:
            client = _connect(stack, scheduler, patience)
            if not _workers(client):
                on_wait(f"workers of {client.scheduler.address}; there are none yet")
            team = _join(client, device, threads, patience)
        settings = _Settings(carried(), ours=scheduler is None)
        team.client.register_plugin(settings)
        stack.callback(_forget, team.client, settings)
        yield team


def _forget(client: Client, settings: _Settings) -> None:
    """Leave no credentials with a cluster that goes on."""
    if client.status == "running":
        client.unregister_worker_plugin(settings.name)


_SETTINGS = {
    # A worker that dies is reported at once and not tried again behind the manifest's back.
    "distributed.scheduler.allowed-failures": 0,
    # Loading torch on a busy machine takes longer than the 15 s after which Dask would give up a
    # worker that is started anew.
    "distributed.deploy.lost-worker-timeout": "10 minutes",
    # Dask has freed pages given back at once: arrays of a scene's rows are taken again and again,
    # and finding new pages for each cost a seventh of a small scene's processor time.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    # A hundred looks a second at what each thread does, kept for half an hour; nobody reads them.
    "distributed.worker.profile.enabled": False,
    # Five minutes of what the machine did, rather than an hour.
    "distributed.admin.system-monitor.log-length": 600,
}


@contextmanager
def _workers_that_leave_scripts_alone() -> Iterator[None]:
    """Start workers without the script that the user runs.

    A process that is spawned runs its parent's script again. One that calls `batch` without
    ``if __name__ == "__main__":`` would begin its batch anew in each worker, and none would come
    up. Tasks are geounet's own and need nothing of the script.
    """
    prepare = spawn.get_preparation_data

    def without_script(name: str) -> dict[str, Any]:
        data = prepare(name)
        if name.startswith("Dask Worker"):
            data = {key: value for key, value in data.items() if not key.startswith("init_main")}
        return data

    spawn.get_preparation_data = without_script
    try:
        yield
    finally:
        spawn.get_preparation_data = prepare


def _start(stack: ExitStack, layout: Layout, device: str, on_wait: Callable[[str], None]) -> Team:
    stack.enter_context(dask.config.set(_SETTINGS))
    stack.enter_context(_workers_that_leave_scripts_alone())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Port 8787 is already in use")
        cluster = _LocalTeam(layout, "127.0.0.1:8787")

    def say() -> None:
        up = len(cluster.scheduler.workers)
        on_wait(f"{up} of {layout.workers} worker processes have started")

    _patiently(lambda: stack.enter_context(cluster), say)
    client = stack.enter_context(Client(cluster))
    client.wait_for_workers(layout.workers)
    return Team(
        client,
        "cuda" if layout.gpus else "cpu" if device == "auto" else device,
        layout.threads,
        {GPU: 1} if layout.gpus else {},
        _dashboard(client),
        ours=True,
    )


def _patiently(work: Callable[[], object], say: Callable[[], None]) -> None:
    """Do in another thread what takes long, and say in this one now and then that it does."""
    with ThreadPoolExecutor(1, thread_name_prefix="geounet-start") as pool:
        working = pool.submit(work)
        while not wait([working], timeout=_SAID_EVERY).done:
            say()
        working.result()


def _dashboard(client: Client) -> str | None:
    """Its address; Dask serves none without bokeh."""
    return client.dashboard_link if find_spec("bokeh") else None


def _connect(stack: ExitStack, scheduler: str | Path | Client, patience: float) -> Client:
    if isinstance(scheduler, Client):
        return scheduler
    try:
        address = _address(str(scheduler))
        return stack.enter_context(Client(address, timeout=patience, set_as_default=False))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"--scheduler is the address of a Dask scheduler, like tcp://host:8786, or its file; "
            f"cannot reach {scheduler}: {error}."
        ) from error


def _address(scheduler: str) -> str:
    """An address as told, or the one in a scheduler's file: Dask waits for that without end."""
    if "://" in scheduler:
        return scheduler
    return str(json.loads(Path(scheduler).read_text(encoding="utf-8"))["address"])


def _join(client: Client, device: str, threads: int | None, patience: float) -> Team:
    try:
        client.wait_for_workers(1, timeout=patience)
    except TimeoutError as error:
        raise ConfigError(
            f"a cluster needs workers; that at {client.scheduler.address} had none for "
            f"{patience:g} s. Start some with: dask worker {client.scheduler.address}"
        ) from error
    use_gpus, share = judge(_see(client), device)
    chosen = ("cuda" if use_gpus else "cpu") if device == "auto" else device
    resources = {GPU: 1.0} if use_gpus else {}
    return Team(client, chosen, threads or share, resources, _dashboard(client), ours=False)


def _see(client: Client) -> list[Seen]:
    looks = client.run(_look)
    workers = _workers(client)
    return [
        Seen(
            host,
            worker["nthreads"],
            cores,
            gpu,
            owns=worker["resources"].get(GPU, 0) > 0,
        )
        for address, worker in workers.items()
        if address in looks
        for host, cores, gpu in [looks[address]]
    ]


def _workers(client: Client) -> dict[str, Any]:
    """What the scheduler knows of its workers, by address.

    Asked for directly: the client's own answer may be the one of its heartbeat, without workers.
    """
    found: dict[str, Any] = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
    return found


def _look() -> tuple[str, int, str | None]:
    """In a worker: its host, cores, and the GPU that it would use."""
    count = count_gpus()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or "0"
    return socket.gethostname(), CPU_COUNT, visible.split(",")[0] if count else None

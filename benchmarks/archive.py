"""What a batch costs beyond its runs, and whether memory stays flat.

    python benchmarks/archive.py scenes SCENE.tif [--count 8] [--repeat 3]
    python benchmarks/archive.py tasks [--count 100000] [--workers 2]

scenes   the same scene under many names: a plain loop over run, and batches with 1 and 2 workers,
         each once the network is compiled. By the clock, in seconds of the processor (which other
         programs hardly change), and how much longer a scene's turn is than its own time.
tasks    tasks that do nothing, through the batch's own loop and manifest: milliseconds a task, and
         the memory of this process, which holds the client and the scheduler, as it goes on.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import dask.utils
import psutil

import geounet
from geounet.archive import Event, Failure, Made, drive
from geounet.archive.tasks import Task  # noqa: TC001 - of a function that is sent to workers


def scenes(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Of each way, medians a scene in seconds: by the clock, and of the processor."""
    found: dict[str, list[tuple[float, ...]]] = {"loop": [], "1 worker": [], "2 workers": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = folder / "in"
        archive.mkdir()
        for i in range(options.count):
            shutil.copyfile(options.scene, archive / f"s{i}{options.scene.suffix}")
        for turn in range(options.repeat):
            found["loop"].append(_loop(archive, folder / f"loop{turn}", options))
            for workers in (1, 2):
                spent = _batch(archive, folder / f"batch{turn}-{workers}", workers, options)
                found[f"{workers} worker{'s' * (workers > 1)}"].append(spent)
    return {name: _medians(rounds) for name, rounds in found.items()}


_FIGURES = (
    "clock, s",
    "processor, s",
    "processor of this process, s",
    "clock beside the scene's own, ms",
)


def _medians(rounds: list[tuple[float, ...]]) -> dict[str, float]:
    return {
        name: round(statistics.median(values), 4)
        for name, values in zip(_FIGURES, zip(*rounds, strict=True), strict=False)
    }


def _loop(archive: Path, output: Path, options: argparse.Namespace) -> tuple[float, ...]:
    """A plain loop over run, once two scenes have compiled the network and read the libraries."""
    times, us = [], psutil.Process()
    for path in [*sorted(archive.iterdir())[:2], *sorted(archive.iterdir())]:
        times.append((time.perf_counter(), _processor(us)))
        geounet.run(path, output=output, device=options.device, overwrite=True)
    times.append((time.perf_counter(), _processor(us)))
    clock, processor = (
        (end - start) / options.count for start, end in zip(times[2], times[-1], strict=True)
    )
    return clock, processor


def _batch(
    archive: Path, output: Path, workers: int, options: argparse.Namespace
) -> tuple[float, ...]:
    """A batch from the second scene of each worker on: by then the network is compiled."""
    seen: list[tuple[float, float, float, float]] = []
    us = psutil.Process()

    def watch(event: Event) -> None:
        if event.kind == "done":
            ours = _processor(us)
            all_of_us = ours + sum(_processor(child) for child in us.children(recursive=True))
            seen.append((event.seconds, all_of_us, ours, event.spent or 0.0))

    geounet.batch(
        str(archive), output=output, workers=workers, device=options.device, on_event=watch
    )
    count = len(seen) - 2 * workers
    first, last = seen[2 * workers - 1], seen[-1]
    clock, both, ours = ((last[i] - first[i]) / count for i in range(3))
    scene = sum(each[3] for each in seen[-count:]) / count / workers
    return clock, both, ours, 1000 * (clock - scene)


def _processor(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def nothing(task: Task) -> Made | Failure:
    """A scene that takes no time."""
    return Made({}, {"water": 0.0}, 0.0, str(os.getpid()), "none", {"uri": task.uri})


def tasks(options: argparse.Namespace) -> dict[str, object]:
    """Milliseconds a task, and memory in MiB at each tenth of the way."""
    watch = _Watch(options.count)
    drive.segment = nothing
    with tempfile.TemporaryDirectory() as name:
        listed = Path(name) / "list.txt"
        with listed.open("w") as file:
            file.writelines(f"/nowhere/{i}.tif\n" for i in range(options.count))
        start = time.perf_counter()
        geounet.batch(
            str(listed), output=Path(name) / "out", workers=options.workers, on_event=watch
        )
        size = (Path(name) / "out" / "geounet-batch.sqlite").stat().st_size
    before = watch.process.memory_info().rss
    dask.utils.key_split.cache_clear()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return {
        "tasks": options.count,
        "registering and starting, s": round(watch.begun - start, 1),
        **watch.costs(),
        "MiB that Dask's cache of names and free pages took at the end": round(
            (before - watch.process.memory_info().rss) / 2**20, 1
        ),
        "manifest bytes a scene": round(size / options.count),
    }


class _Watch:
    """Clock, processor and memory as a batch goes on."""

    def __init__(self, count: int) -> None:
        self.process = psutil.Process()
        self.begun = 0.0
        self._count = count
        self._ours: list[float] = []
        self._workers: list[float] = []

    def __call__(self, event: Event) -> None:
        if event.kind == "begun":
            self.begun, self._spent = time.perf_counter(), self._processor()
        if event.kind == "done" and event.done % max(self._count // 10, 1) == 0:
            children = self.process.children(recursive=True)
            self._ours.append(round(self.process.memory_info().rss / 2**20, 1))
            self._workers.append(round(sum(c.memory_info().rss for c in children) / 2**20, 1))
        if event.kind == "done" and event.done == self._count:
            self._ended, self._spent = time.perf_counter(), self._processor() - self._spent

    def _processor(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def costs(self) -> dict[str, object]:
        return {
            "ms a task": round(1000 * (self._ended - self.begun) / self._count, 3),
            "ms of processor a task, client and scheduler": round(
                1000 * self._spent / self._count, 3
            ),
            "MiB, client and scheduler": self._ours,
            "MiB, all else that was started": self._workers,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    of_scenes = commands.add_parser("scenes")
    of_scenes.add_argument("scene", type=Path)
    of_scenes.add_argument("--count", type=int, default=8)
    of_scenes.add_argument("--repeat", type=int, default=3)
    of_scenes.add_argument("--device", default="cpu")
    of_scenes.set_defaults(measure=scenes)
    of_tasks = commands.add_parser("tasks")
    of_tasks.add_argument("--count", type=int, default=100_000)
    of_tasks.add_argument("--workers", type=int, default=2)
    of_tasks.set_defaults(measure=tasks)
    options = parser.parse_args()
    print(json.dumps(options.measure(options), indent=2))


if __name__ == "__main__":
    main()

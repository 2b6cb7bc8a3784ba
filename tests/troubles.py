"""What goes wrong in worker processes, kept where they need not load torch to find it."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from geounet import pipeline
from geounet.archive import cluster

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from geounet.pipeline import Job, RunResult

resource = pytest.importorskip("resource")


def meddle(name: str, trouble: Callable[[], None]) -> None:
    """Something happens once a scene is predicted and before it is written."""
    plain = pipeline.predict_strips

    def strips(job, *arguments, **options):
        yield from plain(job, *arguments, **options)
        if job.scene.stem == name:
            trouble()

    pipeline.predict_strips = strips


def hoard() -> None:
    """Take more and more memory."""
    held = []
    while len(held) < 60:
        held.append(np.ones(1 << 23))
        time.sleep(0.05)


def ask_for_too_much() -> None:
    np.empty(1 << 44)  # 128 TiB


def allow_files(size: int | None) -> None:
    """No file may be larger. A limit on a file's size stands for the disk."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most if size is None else size, most))


def die(job: Job, result: RunResult) -> dict[str, Path]:
    """An extra that kills the worker over one scene, each time, once the batch knows of it."""
    if job.scene.stem == "deadly":
        folder = result.outputs["mask"].parent.parent
        until = time.monotonic() + 60
        while not (folder / "heard").exists() and time.monotonic() < until:
            time.sleep(0.01)
        (folder / "heard").unlink()
        with (folder / "deaths").open("a") as file:
            file.write(f"{os.getpid()}\n")
        os.kill(os.getpid(), signal.SIGKILL)
    return {}


def pretend_gpus(count: int) -> None:
    cluster.count_gpus = lambda: count

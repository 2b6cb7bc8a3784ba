"""Where scenes are: the workers say it, by way of the scheduler, to whoever runs the batch.

Messages are few: one when a scene begins, one every few seconds while it is predicted, one when all
is predicted. The scheduler keeps the last thousand, whatever comes.
"""

from __future__ import annotations

import math
import os
import socket
import time
from contextlib import contextmanager
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from distributed import get_worker

from geounet.archive.manifest import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client

    from geounet.archive.manifest import StageName
    from geounet.pipeline import Progress

__all__ = ["Teller", "here", "listening", "to_the_client"]

_STAGES = "geounet-stages"
"""Topic of the scheduler's events."""
_OUT_OF_MEMORY = "worker-restart-memory"
"""Topic on which Dask says that it stops a worker that took more memory than it may."""
_EVERY = 2.0
"""Seconds between messages while a scene is predicted."""


def here() -> str:
    """This process, as the manifest names workers."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Teller:
    """Tells the stages of one scene."""

    def __init__(self, send: Callable[[Stage], None]) -> None:
        self._send = send
        self._last = -math.inf

    def __call__(self, name: StageName, share: float | None = None) -> None:
        """Tell that a stage is reached, or how far it is."""
        self._send(Stage(name, share, here(), time.time()))

    def progress(self, progress: Progress) -> None:
        """Tell how far the prediction is, now and then; when it is at its end, writing is next."""
        if progress.done >= progress.total:
            self("writing")
        elif time.monotonic() - self._last > _EVERY:
            self._last = time.monotonic()
            self("predicting", round(progress.done / progress.total, 3))


def to_the_client() -> Callable[[Stage], None]:
    """In a worker's task: what sends a stage to the client; nothing where this is no worker."""
    try:
        worker = get_worker()
    except ValueError:
        return lambda _: None
    key = worker.get_current_task()
    # Not as a dict: Dask would put the worker's address into it, under a name that is taken.
    return lambda stage: worker.log_event(_STAGES, [key, *astuple(stage)])


@contextmanager
def listening(
    client: Client,
    *,
    on_stage: Callable[[str, Stage], None],
    on_memory: Callable[[str], None],
) -> Iterator[None]:
    """Hear what the workers of a cluster tell, in Dask's thread.

    Args:
        client: of the cluster.
        on_stage: called with a task's key and its stage; tasks of other clients are among them.
        on_memory: called with the address of a worker that is stopped as it took too much memory.
    """

    def hear(event: tuple[float, list[Any]]) -> None:
        key, *told = event[1]
        on_stage(key, Stage(*told))

    client.subscribe_topic(_STAGES, hear)
    client.subscribe_topic(_OUT_OF_MEMORY, lambda event: on_memory(event[1]["worker"]))
    try:
        yield
    finally:
        if client.status == "running":
            client.unsubscribe_topic(_STAGES)
            client.unsubscribe_topic(_OUT_OF_MEMORY)

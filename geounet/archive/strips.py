"""One huge scene on many workers: each predicts some of the output's rows.

A task owns rows, so strips need no talk with each other; see `geounet.pipeline.predict_strips`.
Here they are put in order and written, a few at once, so that memory does not grow with the scene.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
from distributed import KilledWorker

from geounet.archive.agreement import Asked, agree
from geounet.archive.cluster import Team, gather
from geounet.archive.tasks import check_fit, model_of
from geounet.engines import use_threads
from geounet.model import Model
from geounet.pipeline import Job, Progress, RunResult, Strip, predict_strips, run_job

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Generator
    from pathlib import Path

    from distributed import Client, Future

    from geounet.engines import EngineChoice
    from geounet.tiling import WindowPlan
    from geounet.timing import Clock

__all__ = ["cut", "run_on", "run_spread"]

_LEAST = 4
"""Rows of windows in a strip: one of them is predicted twice, by its neighbour too."""
_BYTES = 256 << 20
"""Of a strip that comes back, at most, as long as it has one row of windows."""
_ATTEMPTS = 4


def cut(plan: WindowPlan, parts: int) -> list[tuple[int, int]]:
    """Cut a scene's rows into strips that begin where windows do.

    Args:
        plan: the scene's windows.
        parts: strips that are wanted; there may be fewer or more.

    Returns:
        First row of each strip and the row after its last, from the top down.
    """
    starts = plan.rows.starts
    stride = starts[1] - starts[0] if len(starts) > 1 else plan.height
    most = max(_BYTES // (2 * plan.width * stride), 1)
    each = min(max(-(-len(starts) // parts), _LEAST), most)
    edges = [*starts[::each], plan.height]
    return list(pairwise(edges))


def run_on(
    job: Job,
    scheduler: str | Path | Client | None = None,
    *,
    device: str = "auto",
    on_progress: Callable[[Progress], None] | None = None,
) -> RunResult:
    """Run one scene on all workers of a cluster; the outputs are those of `run_job`.

    Args:
        job: what to run, prepared for any device.
        scheduler: as `gather` takes it.
        device: what the workers run on.
        on_progress: called as strips are done.

    Raises:
        ConfigError: no scheduler there, or a layout that would oversubscribe.
        KilledWorker: workers died again and again over the same rows.
    """
    config, model = job.config, job.model
    with gather(scheduler, device=device) as team:
        asked = Asked(config.model, model.spec, model.digest, config.engine, team.device)
        return run_spread(job, team, agree(team, asked), on_progress=on_progress)


def run_spread(
    job: Job,
    team: Team,
    engine: EngineChoice,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
) -> RunResult:
    """Run one scene on all workers of a team; outputs are written here, as `run_job` does.

    Args:
        job: what to run.
        team: the workers.
        engine: what they agreed on.
        on_progress: called as strips are done.
        stop: gives up when it is set, with a `TimeoutError`.
    """
    job = replace(job, device=team.device, engine=job.engine if engine == "auto" else engine)
    model = Model(job.model.spec, job.model.source, job.model.digest)  # without its network
    part = _Part(replace(job, model=model), team.threads)
    strips = partial(_strips, part=part, team=team, stop=stop)
    return run_job(job, on_progress=on_progress, strips=strips)


@dataclass(frozen=True, slots=True)
class _Part:
    """What a worker is told: handles and networks are its own."""

    job: Job
    threads: int | None


def _predict(part: _Part, rows: tuple[int, int]) -> Strip:
    """In a worker: some rows of the output."""
    if part.threads:
        use_threads(part.threads)
    job = replace(part.job, model=model_of(part.job.config.model, part.job.model.digest))
    check_fit(job.model, job.device, job.engine)
    found = list(predict_strips(job, rows))
    codes = np.concatenate([strip.codes for strip in found])
    return Strip(rows[0], codes, np.concatenate([strip.probability for strip in found]))


def _strips(
    job: Job,
    *,
    part: _Part,
    team: Team,
    stop: threading.Event | None,
    on_progress: Callable[[Progress], None] | None,
    clock: Clock,
) -> Generator[Strip]:
    """All strips from the top down, predicted by the team; stands in for `predict_strips`."""
    slots, name = team.slots, uuid4().hex[:8]
    spans = deque(cut(job.plan, 4 * max(slots, 1)))

    def submit(span: tuple[int, int], attempt: int = 1) -> Future:
        key = f"strip-{span[0]}-{attempt}-{name}"
        return team.client.submit(
            _predict, part, span, key=key, resources=team.resources or None, pure=False
        )

    flying: deque[tuple[tuple[int, int], Future]] = deque()
    try:
        while spans or flying:
            while spans and len(flying) < slots + 2:
                span = spans.popleft()
                flying.append((span, submit(span)))
            span, future = flying.popleft()
            with clock("predict"):
                strip = _await(future, partial(submit, span), stop)
            if on_progress:
                done = job.plan.count * span[1] // job.plan.height
                on_progress(Progress(done, job.plan.count))
            del future  # so that the cluster forgets the rows
            yield strip
    finally:
        team.client.cancel([future for _, future in flying])


def _await(future: Future, again: Callable[[int], Future], stop: threading.Event | None) -> Strip:
    """A strip's rows; one whose worker died is predicted anew."""
    attempt = 1
    while True:
        try:
            strip: Strip = future.result(timeout=1)
        except TimeoutError:
            if stop and stop.is_set():
                raise
        except KilledWorker:
            attempt += 1
            if attempt > _ATTEMPTS:
                raise
            future = again(attempt)
        else:
            return strip

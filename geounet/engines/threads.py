"""How many threads engines take on the CPU."""

from __future__ import annotations

import os
import threading

__all__ = ["told_threads", "use_threads", "usual_threads"]

_told = threading.local()


def use_threads(count: int) -> None:
    """Let engines that this thread opens from now on take so many: tasks share the cores."""
    _told.count = count


def told_threads() -> int | None:
    """What `use_threads` was told; None if nothing."""
    return getattr(_told, "count", None)


def usual_threads() -> int:
    """What `use_threads` was told, else one for each core that this process may use."""
    return told_threads() or _cores()


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1

"""How far work is, and the seconds that it spends by stage."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

__all__ = ["Clock", "Progress"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far work is."""

    done: int
    """Windows of a run, rows of a mask, files: what the work goes by."""
    total: int


class Clock:
    """Adds up seconds by stage. Each stage belongs to one thread."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time that a block takes, also if it ends with an error."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

    def over(self, stage: str, items: Iterable[_T]) -> Generator[_T]:
        """The same items; the time until each comes is added."""
        items = iter(items)
        done = object()
        while True:
            with self(stage):
                item = next(items, done)
            if item is done:
                return
            yield item  # type: ignore[misc] # not the sentinel

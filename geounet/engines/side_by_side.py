"""Work on a row's windows side by side, each in a thread of its own."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["side_by_side"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def side_by_side(
    work: Callable[[_Item], _Result],
    items: Iterable[_Item],
    threads: int,
    begin: Callable[[], None] | None = None,
) -> Iterator[_Result]:
    """Results in the order of the items; what runs is waited for where nobody wants the rest.

    Args:
        work: called in any of the threads.
        items: each is worked on once.
        threads: how many.
        begin: called in each thread before all else.
    """
    rest = iter(items)
    pool = ThreadPoolExecutor(threads, "geounet-predict", initializer=begin)
    try:  # one more than run at once, so that none waits for us
        running = deque(pool.submit(work, item) for item in islice(rest, threads + 1))
        while running:
            made = running.popleft().result()
            running.extend(pool.submit(work, item) for item in islice(rest, 1))
            yield made
    finally:
        pool.shutdown(cancel_futures=True)

"""Reading a scene by rows of windows, in a thread of its own that is one row ahead."""

from __future__ import annotations

import queue
import threading
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from geounet.tiling import Window

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    from geounet.scene import Scene, SceneReader
    from geounet.tiling import Axis
    from geounet.timing import Clock

__all__ = ["WindowRow", "ahead", "read_window_rows"]

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False, slots=True)
class WindowRow:
    """The pixels of one row of windows, with a margin around, until the row after the next."""

    index: int
    dn: NDArray[Any]
    """Numbers as stored [bands read, tile + 2 margins, width + 2 margins]."""
    valid: NDArray[np.bool_]
    """True where observed [tile + 2 margins, width + 2 margins]."""


def read_window_rows(
    scene: Scene, bands: Sequence[int], axis: Axis, indices: range, *, margin: int, clock: Clock
) -> Generator[WindowRow]:
    """Read rows of windows from the top down; scene rows that two of them share are read once.

    Two arrays take turns, so that a row's pixels stand until the row after the next one is asked
    for, and memory is neither taken nor given back along the way.

    Args:
        scene: what to read.
        bands: bands to read, 0-based in file order.
        axis: the windows down the scene.
        indices: which of them.
        margin: pixels around the windows; they are mirrored where they lie outside the scene.
        clock: adds up ``read``.

    Raises:
        SceneError: the file is damaged or went away.
    """
    height = scene.grid.height
    with scene.open() as reader:
        rows = _Rows(scene, reader, bands, most=min(axis.tile + 2 * margin, height))
        for index in indices:
            start, stop = axis.starts[index] - margin, axis.starts[index] + axis.tile + margin
            with clock("read"):
                dn, valid = rows.between(max(start, 0), min(stop, height))
                if margin:
                    down = (max(-start, 0), max(stop - height, 0))
                    dn, valid = _mirror(dn, valid, down, (margin, margin))
            yield WindowRow(index, dn, valid)


class _Rows:
    """Rows of a scene, from the top down, in two arrays that take turns."""

    def __init__(
        self, scene: Scene, reader: SceneReader, bands: Sequence[int], *, most: int
    ) -> None:
        self._scene, self._reader, self._bands = scene, reader, bands
        shape = (2, most, scene.grid.width)
        self._valid = np.empty(shape, np.bool_)
        self._dn = np.empty((2, len(bands), *shape[1:]), scene.dtype)
        self._turn, self._first, self._stop = 0, 0, 0

    def between(self, first: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Numbers [bands, n, width] and validity [n, width] of ``first <= row < stop``."""
        held, old = max(self._stop - first, 0), slice(first - self._first, self._stop - self._first)
        before = self._dn[self._turn], self._valid[self._turn]
        self._turn = 1 - self._turn
        dn = self._dn[self._turn, :, : stop - first]
        valid = self._valid[self._turn, : stop - first]
        if held:
            dn[:, :held], valid[:held] = before[0][:, old], before[1][old]
        for row, end in self._scene.pieces(first + held, stop):
            piece = slice(row - first, end - first)
            window = Window(row, 0, end - row, valid.shape[1])
            valid[piece] = self._reader.read(window, self._bands, out=dn[:, piece]).valid
        self._first, self._stop = first, stop
        return dn, valid


def _mirror(
    dn: NDArray[Any], valid: NDArray[np.bool_], down: tuple[int, int], across: tuple[int, int]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Extend by mirroring where a margin reaches over the scene's edge.

    The overlap-tile strategy of Ronneberger et al. 2015 (arXiv:1505.04597, figure 2).
    """
    return (
        np.pad(dn, ((0, 0), down, across), mode="reflect"),
        np.pad(valid, (down, across), mode="reflect"),
    )


def ahead(items: Generator[_T]) -> Generator[_T]:
    """Run a generator in a thread of its own, one item ahead and no more.

    The next item is begun when the last one is taken. Errors are raised here. Closing this
    generator stops the thread and waits for it.
    """
    done = object()
    ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
    room = threading.Semaphore(1)
    stop = threading.Event()

    def work() -> None:
        try:
            with closing(items):
                while room.acquire() and not stop.is_set():
                    ready.put(next(items, done))
        except BaseException as error:  # noqa: BLE001 - raised again by the reader of the queue
            ready.put(error)

    thread = threading.Thread(target=work, name="geounet-read", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not done:
            if isinstance(item, BaseException):
                raise item
            room.release()
            yield item
    finally:
        stop.set()
        room.release()
        thread.join()

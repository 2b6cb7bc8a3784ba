"""Which windows cover a scene. Pure arithmetic: no pixels, no files.

    scene rows   0 ........................................ height
    window rows  [---- tile ----]
                          [---- tile ----]
                                    [---- tile ----]     the last one is flush
                          |overlap| at least

Windows form a full grid: every row of windows has the same columns. That is what lets blend
weights be fixed per axis (see `blending`) and lets a task own rows without talking to another.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property

from geounet.errors import ConfigError

__all__ = ["Axis", "Window", "WindowPlan"]


@dataclass(frozen=True)
class Axis:
    """Windows along one axis, evenly spread, the last one flush with the end."""

    size: int
    """Pixels along the axis."""
    tile: int
    """Pixels of a window; never more than `size`."""
    overlap: int
    """Pixels that neighbouring windows share at least; less than `tile`."""

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First pixel of each window, strictly rising."""
        span = self.size - self.tile
        if span == 0:
            return (0,)
        gaps = -(-span // (self.tile - self.overlap))
        return tuple((i * span + gaps // 2) // gaps for i in range(gaps + 1))

    def touching(self, start: int, stop: int) -> range:
        """Indices of the windows that hold a pixel of ``start <= pixel < stop``."""
        first = bisect_right(self.starts, start - self.tile)
        return range(first, bisect_left(self.starts, stop) if start < stop else first)


@dataclass(frozen=True)
class WindowPlan:
    """The grid of windows that covers a scene.

    Raises:
        ConfigError: a size below 1, or an overlap that is not in ``0 <= overlap < tile``.
    """

    height: int
    width: int
    tile: int
    """Side of a window in pixels, where the scene is that large."""
    overlap: int
    """Pixels that neighbouring windows share at least."""

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.tile) < 1:
            raise ConfigError(
                f"scene and tile must be at least 1 pixel; got scene {self.height} x {self.width}, "
                f"tile {self.tile}."
            )
        if not 0 <= self.overlap < self.tile:
            raise ConfigError(
                f"overlap must be at least 0 and less than the tile; got overlap {self.overlap}, "
                f"tile {self.tile}. Choose a smaller --overlap or a larger --tile."
            )

    def _axis(self, size: int) -> Axis:
        tile = min(self.tile, size)
        return Axis(size, tile, min(self.overlap, tile - 1))

    @cached_property
    def rows(self) -> Axis:
        """Windows down the scene."""
        return self._axis(self.height)

    @cached_property
    def cols(self) -> Axis:
        """Windows across the scene."""
        return self._axis(self.width)

    @property
    def count(self) -> int:
        """Number of windows."""
        return len(self.rows.starts) * len(self.cols.starts)


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels."""

    row: int
    col: int
    height: int
    width: int

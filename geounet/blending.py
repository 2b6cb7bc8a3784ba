"""Blending overlapping windows, seamless and without a division.

Each window is weighted by the outer product of two profiles, one per axis. Windows form a full
grid, so the weights at a pixel sum to a product of two sums, and each axis can be normalised on
its own before anything is predicted: the weights are a partition of unity, and blending is ``+=``.
No count array, no division, no special case at the scene's edge, where one window has it all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from geounet.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from geounet.tiling import Axis, WindowPlan

__all__ = ["BlendWindow", "StripBlender", "axis_weights"]

BlendWindow = Literal["hann", "cosine", "gaussian", "linear", "none"]
"""Profiles of a window's weight from its edge to its centre."""


def _profile(kind: BlendWindow, size: int) -> NDArray[np.float64]:
    """Weight at the centre of each pixel of a window, above zero everywhere: float64 [size]."""
    centre = (np.arange(size) + 0.5) / size
    match kind:
        case "hann":
            return np.sin(np.pi * centre) ** 2
        case "cosine":
            return np.sin(np.pi * centre)
        case "gaussian":
            return np.exp(-0.5 * ((centre - 0.5) / 0.125) ** 2)
        case "linear":
            return 1.0 - np.abs(2.0 * centre - 1.0)
        case "none":
            return np.ones(size)
    raise ConfigError(f"blend must be one of {', '.join(get_args(BlendWindow))}; got {kind!r}.")


def axis_weights(axis: Axis, kind: BlendWindow = "hann") -> list[NDArray[np.float32]]:
    """Weights of each window along one axis; at every pixel they sum to one.

    Args:
        axis: the windows.
        kind: the profile. ``none`` weighs all windows over a pixel alike.

    Returns:
        float32 [tile] for each window.

    Raises:
        ConfigError: a profile that is not known.
    """
    profile = _profile(kind, axis.tile)
    total = np.zeros(axis.size)
    for start in axis.starts:
        total[start : start + axis.tile] += profile
    return [
        (profile / total[start : start + axis.tile]).astype(np.float32) for start in axis.starts
    ]


class StripBlender:
    """Sums weighted windows, row of windows by row of windows, and lets finished rows go.

    It holds one window's height of rows, whatever the scene's height, in one array for the whole
    run: what a window covers first is written there, what it shares with those before it is added.
    Arrays are whatever `zeros` makes: numpy arrays, or tensors that stay on their device.

    Args:
        plan: the windows.
        channels: channels of a window's scores.
        kind: the blend profile.
        zeros: makes a float32 array of zeros of a shape.
        asarray: turns numpy weights into that kind of array.
    """

    def __init__(
        self,
        plan: WindowPlan,
        channels: int,
        kind: BlendWindow = "hann",
        *,
        zeros: Callable[[tuple[int, ...]], Any] = lambda shape: np.zeros(shape, np.float32),
        asarray: Callable[[NDArray[np.float32]], Any] = np.asarray,
    ) -> None:
        self._plan = plan
        self._sums = zeros((channels, plan.rows.tile, plan.width))
        self._down = [asarray(w[:, None]) for w in axis_weights(plan.rows, kind)]
        self._across = [asarray(w[None, :]) for w in axis_weights(plan.cols, kind)]
        self._held = 0  # rows at the top that hold sums of the rows of windows before
        self._reached = 0  # columns below them that hold sums of the row of windows in hand
        self._done = 0  # rows that were taken and make room before the next window is added

    def add(self, row: int, col: int, scores: Any) -> None:
        """Add the window at grid position (row, col).

        The windows of a row come from left to right; one may be left out.

        Args:
            row: index of the window down the scene.
            col: index of the window across the scene.
            scores: [channels, tile, tile].

        Raises:
            ValueError: the window lies left of one that was added.
        """
        self._make_room()
        sums, held = self._sums, self._held
        left = self._plan.cols.starts[col]
        right = left + self._plan.cols.tile
        if right <= self._reached:
            raise ValueError(f"windows come from left to right; got {col} after one beyond it.")
        self._fill(left)
        shared = self._reached - left
        weighted = scores * (self._down[row] * self._across[col])
        sums[:, :held, left:right] += weighted[:, :held]
        sums[:, held:, left : self._reached] += weighted[:, held:, :shared]
        sums[:, held:, self._reached : right] = weighted[:, held:, shared:]
        self._reached = right

    def finish(self, row: int) -> Any:
        """Take the rows that no window after this row of windows covers: [channels, n, width].

        They begin at ``plan.rows.starts[row]``, if rows of windows were finished in order, and
        are valid until the next window is added.
        """
        self._make_room()
        self._fill(self._plan.width)
        starts = self._plan.rows.starts
        n: int = self._sums.shape[1]
        self._done = starts[row + 1] - starts[row] if row + 1 < len(starts) else n
        return self._sums[:, : self._done]

    def _fill(self, stop: int) -> None:
        """Put zeros where no window of this row reached."""
        if self._reached < stop:
            self._sums[:, self._held :, self._reached : stop] = 0
            self._reached = stop

    def _make_room(self) -> None:
        """Move the rows that go on being summed to the top, once the finished ones were taken."""
        if not self._done:
            return
        sums, done = self._sums, self._done
        self._held, self._reached, self._done = sums.shape[1] - done, 0, 0
        for row in range(0, self._held, done):  # in pieces that do not overlap their targets
            stop = min(row + done, self._held)
            sums[:, row:stop] = sums[:, row + done : stop + done]

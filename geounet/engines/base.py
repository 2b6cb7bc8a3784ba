"""What every engine does, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from geounet.deciding import decide
from geounet.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geounet.spec import ModelSpec
    from geounet.tiling import Axis

__all__ = ["Decided", "Engine", "Precision", "decide_at_once", "not_numbers", "padding"]

Decided = Callable[[], tuple[NDArray[np.uint8], NDArray[np.uint8]]]
"""Gives mask codes and water probability, as `geounet.deciding.decide` does."""

Precision = Literal["float32", "bfloat16", "int8"]
"""The numbers that a network computes with: int8 for most of it, where such a network was made."""


class Engine(Protocol):
    """Runs a model on rows of windows. It belongs to the thread that opened it.

    Scores are arrays of the engine's own kind, which stay where it computes: numpy arrays on the
    CPU. `zeros` and `asarray` make such arrays, `decide` brings finished rows back as numpy ones.
    """

    batch: int
    """Windows predicted at once; it may be set between rows."""

    @property
    def behind(self) -> int:
        """Rows of windows to predict before what was decided is asked for.

        0 where that is there at once; 1 on a card, so that it has work while it is waited for.
        """

    @property
    def channels(self) -> int:
        """Channels of the scores: one a class."""

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """A float32 array of zeros."""

    def asarray(self, array: NDArray[Any]) -> Any:
        """An array with a numpy array's numbers."""

    def predict(
        self, dn: NDArray[Any], observed: NDArray[np.bool_], cols: Axis
    ) -> Iterator[tuple[int, Any]]:
        """Class probabilities of one row of windows, window by window, from left to right.

        Args:
            dn: numbers as stored [bands read, tile + 2 margins, width + 2 margins].
            observed: bool [tile + 2 margins, width + 2 margins].
            cols: the windows across, without margins.

        Yields:
            Index of a window across, rising, and its probabilities float32 [classes, tile, tile],
            as what `zeros` makes. A window with nothing observed is left out.

        Raises:
            ModelError: the network cannot be run by this engine.
        """

    def decide(self, scores: Any, observed: NDArray[np.bool_], threshold: float = 0.5) -> Decided:
        """Begin to decide what finished rows show; both arrays may change at once.

        Args:
            scores: blended probabilities [classes, n, width], as what `zeros` makes.
            observed: bool [n, width].
            threshold: least probability of water.

        Returns:
            What gives the mask codes and water probability when it is called, and waits for a card
            that is not so far yet: see `behind`.

        Raises:
            ModelError: the network gave scores that are no numbers; here or when that is called.
        """


def padding(spec: ModelSpec, height: int, width: int) -> tuple[int, int]:
    """Rows and columns to add to an output of this size so that the network can make it."""
    down, across = ((spec.tile_remainder - side) % spec.tile_multiple for side in (height, width))
    return down, across


def decide_at_once(
    spec: ModelSpec,
    scores: NDArray[np.float32],
    observed: NDArray[np.bool_],
    threshold: float,
) -> Decided:
    """What `Engine.decide` does where scores are numpy arrays."""
    try:
        made = decide(scores, observed, spec.classes, threshold)
    except FloatingPointError as error:
        raise not_numbers(spec, "cpu") from error
    return lambda: made


def not_numbers(spec: ModelSpec, device: str) -> ModelError:
    """The error of a network that gives NaN or infinity."""
    return ModelError(
        f"scores must be numbers; the model {spec.name} gave NaN or infinity on {device}. Its "
        f"weights are damaged, or overflow in half precision: try --device cpu."
    )

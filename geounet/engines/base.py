"""What every engine does, and what all of them share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

from geounet.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from geounet.spec import ModelSpec
    from geounet.tiling import Axis

__all__ = ["Engine", "Precision", "not_numbers", "padding"]

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

    def decide(
        self, scores: Any, observed: NDArray[np.bool_], threshold: float = 0.5
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Mask codes and water probability of finished rows; see `geounet.deciding.decide`.

        Args:
            scores: blended probabilities [classes, n, width], as what `zeros` makes.
            observed: bool [n, width].
            threshold: least probability of water.

        Raises:
            ModelError: the network gave scores that are no numbers.
        """


def padding(spec: ModelSpec, height: int, width: int) -> tuple[int, int]:
    """Rows and columns to add to an output of this size so that the network can make it."""
    down, across = ((spec.tile_remainder - side) % spec.tile_multiple for side in (height, width))
    return down, across


def not_numbers(spec: ModelSpec, device: str) -> ModelError:
    """The error of a network that gives NaN or infinity."""
    return ModelError(
        f"scores must be numbers; the model {spec.name} gave NaN or infinity on {device}. Its "
        f"weights are damaged, or overflow in half precision: try --device cpu."
    )

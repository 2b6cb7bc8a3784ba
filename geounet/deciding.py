"""From blended class probabilities to mask codes, in numpy.

Rows go through in pieces that stay in the processor's cache: the ten steps on a pixel then cost
about as much as reading its scores once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["decide"]

_OBSCURED, _UNSEEN = 2, 255
_LEVELS = 250
_LEAST = np.float32(1e-6)
"""Of the surface's probability, so that nothing is divided by zero."""
_PIECE = 1 << 17
"""Pixels at a time."""


def decide(
    scores: NDArray[np.float32],
    observed: NDArray[np.bool_],
    classes: Sequence[str],
    threshold: float = 0.5,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Mask codes and water probability of finished rows.

    A pixel is obscured where that class is likelier than not; else it is water where the
    probability of water, given that the surface shows, reaches the threshold.

    Args:
        scores: blended probabilities float32 [classes, n, width].
        observed: bool [n, width].
        classes: ``land``, ``water`` and maybe ``obscured``, in the order of the scores.
        threshold: least probability of water.

    Returns:
        codes uint8 [n, width] (0 land, 1 water, 2 obscured, 255 not observed) and the probability
        of water given that the surface shows, uint8 [n, width] in steps of 1/250 (255 not
        observed).

    Raises:
        FloatingPointError: scores that are NaN or infinite.
    """
    codes, levels = np.empty((2, *observed.shape), np.uint8)
    step = max(_PIECE // max(observed.shape[1], 1), 1)
    for top in range(0, len(observed), step):
        piece = slice(top, top + step)
        if not np.isfinite(scores[:, piece].sum()):
            raise FloatingPointError("scores must be numbers; some are NaN or infinite")
        place = {name: scores[i, piece] for i, name in enumerate(classes)}
        _decide(place, ~observed[piece], threshold, codes[piece], levels[piece])
    return codes, levels


def _decide(
    place: dict[str, NDArray[np.float32]],
    unseen: NDArray[np.bool_],
    threshold: float,
    codes: NDArray[np.uint8],
    levels: NDArray[np.uint8],
) -> None:
    """Fill the codes and levels of some rows."""
    water = np.maximum(place["water"] + place["land"], _LEAST)
    np.divide(place["water"], water, out=water)
    np.greater_equal(water, np.float32(threshold), out=codes.view(np.bool_))
    if "obscured" in place:
        np.copyto(codes, _OBSCURED, where=place["obscured"] > 0.5)
    np.rint(np.multiply(water, _LEVELS, out=water), out=water)
    np.copyto(levels, water, casting="unsafe")
    for array in (codes, levels):
        np.copyto(array, _UNSEEN, where=unseen)

"""Weights of convolutions that do the work of others with fewer products.

A U-Net's decoder enlarges a map twofold, sets the encoder's beside it, and convolves both:

    coarse ─ enlarge ─┐                  coarse ─ transposed 4 x 4, stride 2 ─┐
                      ├─ 3 x 3   becomes                                     add
    skip ─────────────┘                  skip ─ 3 x 3 ────────────────────────┘

Where nearest-neighbour enlargement repeats a pixel, the products with it are one with the sum of
their weights: 4 are left of 9 (after Shi et al. 2016, "Is the deconvolution layer the same as a
convolutional layer?", arXiv:1609.07009), and neither the enlarged map nor the joint one is written.

The last convolution gives few channels, and processors compute 16 at a time. It is made to give
those of two by two pixels at once, which are then put in their places.

Only the order of sums changes: results differ by float32's rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LANES", "enlarging_kernel", "two_by_two_kernel"]

LANES = 16
"""Channels that processors compute at once."""

_MERGED = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], np.float32)
"""Which of three weights fall on the same repeated pixel, for each of four of the transposed."""


def enlarging_kernel(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weights of the transposed convolution that enlarges and convolves in one.

    Args:
        weights: of a padded 3 x 3 convolution of the map that is enlarged twofold, nearest
            neighbour [out, in, 3, 3].

    Returns:
        [in, out, 4, 4], for a stride of 2 and a padding of 1.
    """
    merged: NDArray[np.float32] = np.einsum("oiab,ya,xb->ioyx", weights, _MERGED, _MERGED)
    return np.ascontiguousarray(merged)


def two_by_two_kernel(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weights of a convolution of stride 2 that gives two by two pixels as channels.

    Args:
        weights: of a padded 3 x 3 convolution [out, in, 3, 3].

    Returns:
        [4 out, in, 4, 4], for a padding of 1: first the channels of the upper left pixel, then of
        the upper right, the lower left and the lower right.
    """
    out, channels = weights.shape[:2]
    made = np.zeros((2, 2, out, channels, 4, 4), np.float32)
    for down in range(2):
        for right in range(2):
            made[down, right, ..., down : down + 3, right : right + 3] = weights
    return made.reshape(4 * out, channels, 4, 4)

"""Mixed pixels: how much of a pixel's area is water, kept beside its set of classes.

A label is one integer. Its low eight bits are the set of classes that the pixel can be (`losses`).
Where land and water share a pixel and it is known how, the bits above hold the water's share in
128ths, so whatever turns, cuts or pastes labels takes the shares along. Labels that know no shares
are as they were, and may be of any integer type.
"""

import torch
from torch import Tensor

LAND, WATER, OBSCURED = 1, 2, 4
"""Sets of one class, for the classes land, water and obscured in this order."""
MIXED = LAND | WATER
SETS = 255
"""The bits of a label that are its set."""
_STEPS = 128
_PURE = 0.03
"""A smaller share of land or water than this is none."""


def water_share(labels: Tensor) -> Tensor:
    """Share of the area that is water, of labels of any shape.

    Returns:
        float32: 1 for water, 0 for land, between them for mixed pixels of known shares; NaN for
        every other label.
    """
    level = mixed_level(labels)
    share = torch.where(level > 0, level / _STEPS, torch.nan)
    share = torch.where(labels == WATER, 1.0, share)
    share = torch.where(labels == LAND, 0.0, share)
    return torch.where((labels & SETS) > MIXED, torch.nan, share)


def mixed_share(labels: Tensor) -> Tensor:
    """The share that a label holds in so many words, float32; 0 where it holds none."""
    return mixed_level(labels) / _STEPS


def mixed_level(labels: Tensor) -> Tensor:
    """The same in 128ths, int32."""
    return labels.int() >> 8


def from_share(share: Tensor) -> Tensor:
    """Labels, int16, for shares of water in [0, 1]: pure, or mixed with the share.

    NaN gives the set of land and water without a share.
    """
    level = (share.nan_to_num(0.0) * _STEPS).round().clamp(1, _STEPS - 1).to(torch.int16)
    labels = torch.where(share.isnan(), MIXED, MIXED + (level << 8))
    labels = torch.where(share < _PURE, LAND, labels)
    return torch.where(share > 1 - _PURE, WATER, labels).to(torch.int16)

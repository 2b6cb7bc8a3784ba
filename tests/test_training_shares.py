"""Labels that say how much of a pixel is water."""

import pytest
import torch

from geounet.training.shares import from_share, mixed_share, water_share


def test_shares_come_back_within_their_step():
    share = torch.linspace(0, 1, 1001)
    back = water_share(from_share(share))
    inside = (share > 0.031) & (share < 0.969)
    assert (back - share)[inside].abs().max() <= 0.5 / 128 + 1e-6
    assert back[share < 0.029].eq(0).all()
    assert back[share > 0.971].eq(1).all()


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16])
def test_pure_labels_are_what_they_always_were(kind):
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7], dtype=kind)
    share = water_share(labels)
    assert share[1] == 0
    assert share[2] == 1
    assert share[[0, 3, 4, 5, 6, 7]].isnan().all()
    assert not mixed_share(labels).any()


def test_an_unknown_share_is_land_or_water():
    label = from_share(torch.tensor(torch.nan))
    assert label == 3
    assert label.dtype == torch.int16


def test_a_label_under_a_veil_keeps_its_share_but_is_no_plain_surface():
    label = from_share(torch.tensor([0.5])) | 4
    assert mixed_share(label).item() == 0.5
    assert water_share(label).isnan().all()

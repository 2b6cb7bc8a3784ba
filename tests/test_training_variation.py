import pytest
import torch

from geounet.training.dataset import Batch
from geounet.training.variation import BandDropout, Intensity, Restrict, Warp


def generator():
    return torch.Generator().manual_seed(0)


def batch(n=3, bands=2, size=(24, 24)):
    pixels = torch.rand(n, bands, *size, generator=generator()) + 0.1
    observed = torch.ones(n, 1, *size, dtype=torch.bool)
    allowed = torch.where(pixels[:, 0] > 0.6, 2, 1).to(torch.uint8)
    return Batch(pixels, torch.ones(n, bands, dtype=torch.bool), observed, allowed)


def test_no_warp_changes_nothing():
    before, after = batch(), batch()
    Warp(rotation=False)(after, generator())
    torch.testing.assert_close(after.pixels, before.pixels, atol=1e-5, rtol=0)
    assert torch.equal(after.allowed, before.allowed)
    assert after.observed.all()


@pytest.mark.parametrize(("rotation", "elastic"), [(True, 0.0), (False, 3.0), (True, 3.0)])
def test_labels_move_with_their_pixels(rotation, elastic):
    rows, cols = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = ((rows - 20) ** 2 + (cols - 34) ** 2 < 100).float().expand(2, 1, 64, 64)
    moved = Batch(
        disc + 0.1,
        torch.ones(2, 1, dtype=torch.bool),
        torch.ones(2, 1, 64, 64, dtype=torch.bool),
        torch.where(disc[:, 0] > 0, 2, 1).to(torch.uint8),
    )
    Warp(rotation=rotation, elastic=elastic)(moved, generator())
    wet = moved.pixels[:, 0] > 0.6
    assert ((moved.allowed == 2) != wet).float().mean() < 0.005
    assert wet.any()
    assert not torch.equal(wet[0], disc[0, 0] > 0)
    assert not torch.equal(wet[0], wet[1])


def test_a_turn_keeps_shapes_in_windows_that_are_not_square():
    rows, cols = torch.meshgrid(torch.arange(40), torch.arange(80), indexing="ij")
    disc = ((rows - 19.5) ** 2 + (cols - 39.5) ** 2 < 100).float().expand(4, 1, 40, 80)
    turned = Batch(
        disc + 0.1,
        torch.ones(4, 1, dtype=torch.bool),
        torch.ones(4, 1, 40, 80, dtype=torch.bool),
        torch.ones(4, 40, 80, dtype=torch.uint8),
    )
    Warp()(turned, generator())
    moved = (turned.pixels > 0.6) != (disc > 0.5)
    assert moved[..., 20:60].float().mean() < 0.02  # its mirror images lie further out


def test_unobserved_pixels_do_not_bleed():
    holed = batch()
    holed.observed[:, :, 10:14, 10:14] = False
    holed.pixels *= holed.observed
    holed.pixels[holed.observed.expand_as(holed.pixels)] = 0.5
    Warp()(holed, generator())
    assert (~holed.observed).any()
    values = holed.pixels[holed.observed.expand_as(holed.pixels)]
    torch.testing.assert_close(values, torch.full_like(values, 0.5))
    assert (holed.allowed[~holed.observed[:, 0]] == 0).all()


def test_intensity_is_a_gain_of_the_whole_window():
    before, after = batch(64), batch(64)
    Intensity(0.2)(after, generator())
    gain = after.pixels / before.pixels
    torch.testing.assert_close(gain, gain[:, :, :1, :1].expand_as(gain))
    assert gain[:, :, 0, 0].log().std().item() == pytest.approx(0.2 * 1.25**0.5, rel=0.2)


def test_only_optional_bands_drop_out():
    dropped = batch(200, bands=3)
    dropped.present[:, 2] = False
    BandDropout(optional=(1, 2), chance=0.3)(dropped, generator())
    assert dropped.present[:, 0].all()
    assert 0.2 < (~dropped.present[:, 1]).float().mean() < 0.4
    assert not dropped.present[:, 2].any()
    assert ((dropped.pixels == 0) == ~dropped.present[:, :, None, None]).all()


def test_classes_that_the_model_lacks_are_forgotten():
    some = batch(1, size=(1, 4))
    some.allowed[:] = torch.tensor([[1, 6, 4, 7]], dtype=torch.uint8)
    Restrict(2)(some, generator())
    assert some.allowed.tolist() == [[[1, 2, 0, 3]]]

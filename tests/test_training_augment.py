"""Augmentations keep labels in place, follow their physics, and repeat with their seed."""

import pytest
import torch

from geounet.sensors import SENSORS
from geounet.training import augment
from geounet.training.dataset import Batch
from geounet.training.shares import from_share, water_share

WAVES = tuple(band.centre for band in SENSORS["sentinel-2-l2a"].bands)
BLUE, GREEN, RED, NIR, SWIR = 1, 2, 3, 7, 10
PATTERNS = augment.BandPatterns(((1, 2, 3, 7, 10, 11), (1, 2, 3, 7)), (0.4, 0.3), (2, 3, 7), (7, 8))


def make_batch(n=6, size=48, allowed=augment.LAND, reflectance=0.2):
    return Batch(
        pixels=torch.full((n, 12, size, size), reflectance),
        present=torch.ones(n, 12, dtype=torch.bool),
        observed=torch.ones(n, 1, size, size, dtype=torch.bool),
        allowed=torch.full((n, size, size), allowed, dtype=torch.uint8),
    )


def mixing_batch(**options):
    batch = make_batch(**options)
    batch.allowed = batch.allowed.to(torch.int16)
    return batch


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


EACH = [
    augment.Dihedral(),
    augment.Paste(1.0),
    augment.Streams(WAVES, 1.0),
    augment.WaterColour(WAVES, 1.0, 1.0),
    augment.GroundCover(WAVES, 1.0),
    augment.Relief(WAVES, 1.0),
    augment.SnowCover(WAVES, 1.0),
    augment.Clouds(WAVES, 1.0),
    augment.Atmosphere(WAVES, 1.0, 1.0),
    augment.SensorNoise(WAVES, 1.0, 1.0),
    augment.CoarseBands((SWIR, 11), 1.0),
    PATTERNS,
]


def varied(allowed=augment.LAND):
    batch = make_batch(allowed=allowed)
    batch.pixels *= torch.rand(batch.pixels.shape, generator=generator(9)) + 0.5
    batch.observed[:, :, :5] = False
    batch.allowed[:, :5] = 0
    batch.present[:3, 0] = False
    batch.pixels *= batch.present[:, :, None, None] & batch.observed
    return batch


@pytest.mark.parametrize("step", EACH, ids=lambda s: type(s).__name__)
def test_a_seed_fixes_everything(step):
    batches = [varied(augment.WATER), varied(augment.WATER), varied(augment.WATER)]
    for batch, seed in zip(batches, (1, 1, 2), strict=True):
        step(batch, generator(seed))
    for name in ("pixels", "present", "observed", "allowed"):
        assert torch.equal(getattr(batches[0], name), getattr(batches[1], name))
    if not isinstance(
        step, augment.GroundCover | augment.Relief | augment.Streams
    ):  # these leave water alone
        assert not torch.equal(batches[0].pixels, batches[2].pixels)


@pytest.mark.parametrize("step", EACH[2:], ids=lambda s: type(s).__name__)
def test_missing_and_unobserved_stay_zero_and_the_rest_positive(step):
    for allowed in (augment.LAND, augment.WATER):
        batch = varied(allowed)
        step(batch, generator())
        seen = batch.present[:, :, None, None] & batch.observed
        assert not batch.pixels[~seen].any()
        assert (batch.pixels[seen] > 0).all()
        assert torch.isfinite(batch.pixels).all()


def test_turning_moves_pixels_and_labels_together():
    batch = make_batch(n=32)
    place = torch.arange(48 * 48).reshape(48, 48)
    batch.pixels[:] = place.float()
    batch.observed[:] = place % 3 > 0
    batch.allowed[:] = (place % 7).to(torch.uint8)
    augment.Dihedral()(batch, generator())
    index = batch.pixels[:, 0].long()
    assert torch.equal(batch.allowed, (index % 7).to(torch.uint8))
    assert torch.equal(batch.observed[:, 0], index % 3 > 0)
    assert len({tuple(corner) for corner in index[:, ::47, ::47].flatten(1).tolist()}) == 8


def test_pasted_pixels_bring_their_labels_and_only_shared_bands():
    batch = make_batch(n=2)
    batch.pixels[1], batch.allowed[1] = 0.05, augment.WATER
    batch.present[1, 0] = False
    batch.pixels[1, 0] = 0
    augment.Paste(1.0, (0.3, 0.3))(batch, generator())
    water = batch.allowed[0] == augment.WATER
    assert 0.1 < water.float().mean() < 0.6
    assert (batch.pixels[0, GREEN][water] < 0.13).all()
    assert not batch.present[0, 0]
    assert not batch.pixels[0, 0].any()


def test_shadow_keeps_the_blue_of_the_sky():
    batch = make_batch()
    batch.pixels[:, :, :16, :16] = 0.001  # the darkest place gives the path reflectance: none here
    before = batch.pixels.clone()
    augment.Clouds(WAVES, 1.0, cloud_share=0.0)(batch, generator())
    deep = batch.allowed == augment.OBSCURED
    assert deep.any()
    left = (batch.pixels / before).permute(0, 2, 3, 1)[deep]
    lit = left[:, GREEN] > 0
    assert (left[lit][:, NIR] < left[lit][:, BLUE]).float().mean() > 0.99
    assert left[:, NIR].median() < 0.6


def test_shadow_on_water_may_still_be_water_and_unknown_stays_unknown():
    for allowed, possible in ((augment.WATER, {2, 6}), (0, {0}), (augment.LAND, {1, 5, 4})):
        batch = make_batch(allowed=allowed)
        augment.Clouds(WAVES, 1.0, cloud_share=0.0)(batch, generator())
        assert set(batch.allowed.unique().tolist()) == possible


def test_thick_cloud_is_bright_and_obscured_over_anything():
    batch = make_batch(allowed=augment.WATER, reflectance=0.03)
    augment.Clouds(WAVES, 1.0, cloud_share=1.0)(batch, generator())
    thick = batch.allowed == augment.OBSCURED
    assert (batch.pixels[:, GREEN][thick] > 0.1).all()


def test_water_colour_keeps_land_and_stays_dark_beyond_the_near_infrared():
    for step in (augment.WaterColour(WAVES, 1.0, 0.0), augment.WaterColour(WAVES, 1.0, 1.0)):
        land = make_batch()
        step(land, generator())
        assert (land.pixels == 0.2).all()
    water = make_batch(n=32, allowed=augment.WATER, reflectance=0.02)
    augment.WaterColour(WAVES, 1.0, 0.0)(water, generator())
    assert water.pixels[:, SWIR].max() < 0.03
    assert water.pixels[:, GREEN].max() > 0.1


@pytest.mark.parametrize("lakes", [0.0, 1.0])
def test_streams_and_lakes_are_labelled_by_the_area_they_cover(lakes):
    batch = make_batch(n=16)
    augment.Streams(WAVES, 1.0, lakes=lakes, blur=0.0)(batch, generator())
    nir = batch.pixels[:, NIR]
    assert set(batch.allowed.unique().tolist()) == {1, 2, 3}
    assert nir[batch.allowed == 1].min() > 0.17
    assert nir[batch.allowed == 2].max() < 0.185
    assert nir[batch.allowed == 2].min() < 0.03
    share = (batch.allowed == 2).float().mean((1, 2))
    assert (share < 0.6).all()
    assert (share > 0).sum() >= 12


@pytest.mark.parametrize("lakes", [0.0, 1.0])
def test_streams_and_lakes_say_exactly_how_much_of_a_pixel_they_are(lakes):
    batch = mixing_batch(n=8)
    augment.Streams(WAVES, 1.0, width=(3.0, 5.0), lakes=lakes, blur=0.0)(batch, generator())
    share = water_share(batch.allowed)
    mixed = (share > 0) & (share < 1)
    assert mixed.sum() > 100
    for nir, wet in zip(batch.pixels[:, NIR], share, strict=True):
        water = nir.min()
        assert ((0.2 - nir) / (0.2 - water) - wet).abs().max() < 0.035


def test_a_narrow_river_covers_its_width():
    rows = torch.arange(9.0).view(1, 1, 9, 1).expand(1, 1, 9, 9)
    distance = augment._distance(rows - 4.25)
    torch.testing.assert_close(distance[0, 0, :, 0], torch.arange(9.0) - 4.25)


def test_blur_moves_light_and_makes_none():
    cover = torch.zeros(1, 1, 7, 7)
    cover[..., 3, 3] = 1
    blurred = augment._blurred(cover, torch.tensor(0.1))
    assert blurred.sum() == pytest.approx(1)
    assert blurred[0, 0, 3].tolist() == pytest.approx([0, 0, 0.1, 0.6, 0.1, 0, 0])


def test_pasted_edges_hold_the_shares_that_they_show():
    batch = mixing_batch(n=2)
    batch.pixels[1], batch.allowed[1] = 0.05, augment.WATER
    augment.Paste(1.0, (0.3, 0.3))(batch, generator())
    share = water_share(batch.allowed[0])
    assert ((0.2 - batch.pixels[0, NIR]) / 0.15 - share).abs().max() < 0.035
    assert ((share > 0) & (share < 1)).any()


def test_ground_covers_the_land_of_a_mixed_pixel_and_not_its_water():
    batch = mixing_batch(n=40, size=32)
    batch.pixels[:, :, ::2], batch.allowed[:, ::2] = 0.02, augment.WATER
    batch.pixels[:, :, 1::4] = 0.25 * 0.02 + 0.75 * 0.2
    batch.allowed[:, 1::4] = from_share(torch.tensor(0.25))
    augment.GroundCover(WAVES, 1.0)(batch, generator())
    assert (batch.pixels[:, :, ::2] == 0.02).all()
    assert (batch.pixels[:, :, 1::4] >= 0.25 * 0.02 - 1e-6).all()
    assert batch.pixels[:, NIR, 1::4].min() < 0.06
    assert batch.pixels[:, NIR, 1::4].max() > 0.2


def test_sediment_reaches_a_mixed_pixel_by_its_share_of_water():
    batch = mixing_batch(n=16, size=97)
    batch.allowed[:] = from_share(torch.tensor(0.5))
    batch.allowed[:, ::2] = augment.WATER
    augment.WaterColour(WAVES, 1.0, 0.0)(batch, generator())
    added = batch.pixels[:, GREEN] - 0.2
    top = added.mean((1, 2)).argmax()
    beside = (added[top, :-1:2] + added[top, 2::2]) / 2
    assert beside.max() > 0.05
    torch.testing.assert_close(added[top, 1::2], 0.5 * beside, rtol=0, atol=0.012)


def test_thick_haze_may_be_called_obscured_and_thin_haze_may_not():
    batch = make_batch(n=32, allowed=augment.WATER, reflectance=0.02)
    augment.Atmosphere(WAVES, 0.0, 1.0)(batch, generator())
    assert set(batch.allowed.unique().tolist()) == {2, 6}
    veil = batch.pixels[:, SWIR] - 0.02
    assert (batch.pixels[:, BLUE][batch.allowed == 6] > 0.2).all()
    assert veil[batch.allowed == 2].max() < 0.2


def test_glint_is_flat_over_the_spectrum():
    batch = make_batch(allowed=augment.WATER, reflectance=0.02)
    augment.WaterColour(WAVES, 0.0, 1.0)(batch, generator())
    added = batch.pixels - 0.02
    assert added.max() > 0.02
    torch.testing.assert_close(added[:, BLUE], added[:, SWIR])


def test_relief_darkens_land_and_leaves_water():
    land, water = make_batch(), make_batch(allowed=augment.WATER)
    for batch in (land, water):
        batch.pixels[:, :, :16, :16] = 0.001
        augment.Relief(WAVES, 1.0)(batch, generator())
    assert land.pixels[:, NIR, 16:].min() < 0.08
    assert (land.allowed == augment.LAND).all()
    assert water.pixels[:, NIR, 16:].unique().tolist() == pytest.approx([0.2])


def test_snow_is_bright_then_dark_and_obscured():
    batch = make_batch()
    augment.SnowCover(WAVES, 1.0)(batch, generator())
    snow = batch.allowed == augment.OBSCURED
    deep = snow & (batch.pixels[:, SWIR] < 0.11)
    assert deep.any()
    assert (batch.pixels[:, NIR][deep] > batch.pixels[:, SWIR][deep]).all()


def test_air_is_bluest_where_it_is_thickest():
    air = augment.RAYLEIGH.at(WAVES)
    assert (air[1:] <= air[:-1]).all()
    torch.testing.assert_close(augment.RAYLEIGH.at([0.443, 0.4665]), torch.tensor([0.10, 0.084]))


def test_band_patterns_are_drawn_in_their_shares():
    batch = make_batch(n=4000, size=1)
    batch.present[:, 8] = False
    augment.BandPatterns(PATTERNS.patterns, PATTERNS.shares, PATTERNS.required, (7, 8), drop=0.0)(
        batch, generator()
    )
    counts = batch.present.sum(1)
    assert set(counts.tolist()) == {12, 6, 4}  # 12: the missing infrared is filled from the other
    assert (counts == 6).float().mean() == pytest.approx(0.4, abs=0.03)
    assert batch.present[:, [2, 3, 7]].all()
    assert not batch.pixels[~batch.present].any()


@pytest.mark.parametrize("size", [48, 49])
def test_coarse_bands_are_means_of_two_by_two_and_others_stay(size):
    batch = make_batch(n=2, size=size)
    batch.pixels *= torch.rand(batch.pixels.shape, generator=generator(4)) + 0.5
    before = batch.pixels.clone()
    augment.CoarseBands((SWIR,), 1.0)(batch, generator())
    others = [i for i in range(12) if i != SWIR]
    assert torch.equal(batch.pixels[:, others], before[:, others])
    fits = []
    for top in (0, 1):
        for left in (0, 1):
            inner = (
                before[:, SWIR, top : top + 46, left : left + 46].unfold(1, 2, 2).unfold(2, 2, 2)
            )
            found = batch.pixels[:, SWIR, top : top + 46, left : left + 46]
            block = found.unfold(1, 2, 2).unfold(2, 2, 2)
            expected = inner.mean((-2, -1))[..., None, None].expand_as(block)
            fits.append(torch.allclose(block, expected))
    assert fits.count(True) == 1


def test_blur_may_choose_no_band_at_all():
    for seed in range(12):
        batch = make_batch(n=2, size=8)
        batch.pixels, batch.present = batch.pixels[:, :1], batch.present[:, :1]
        augment.SensorNoise((0.56,), 2.0, 0.0)(batch, generator(seed))
        assert batch.pixels.shape == (2, 1, 8, 8)

"""Windows come from where they should, with labels in their place."""

from collections import Counter

import pytest
import torch

from geounet.errors import ConfigError
from geounet.training import dataset
from geounet.training.dataset import LabelledScene, MemorySource, WindowSampler
from geounet.training.shares import water_share


def made_scene(name="a", site=None, shape=(70, 90), labelled=((10, 12),), **options):
    """Reflectance of band 0 is the row, of band 1 the column, so that windows tell their place."""
    rows, cols = torch.meshgrid(torch.arange(shape[0]), torch.arange(shape[1]), indexing="ij")
    pixels = torch.stack([rows + 1, cols + 1]).to(torch.int16)
    allowed = torch.zeros(shape, dtype=torch.uint8)
    for row, col in labelled:
        allowed[row, col] = 1
    source = MemorySource(pixels, allowed, scale=1.0)
    return LabelledScene.index(name, source, (True, True), site=site or name, **options)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_windows_over_the_edge_are_zero_outside():
    pixels, allowed = made_scene().source.read(-2, 88, 4, 4)
    assert pixels[0].tolist() == [[0] * 4, [0] * 4, [1, 1, 0, 0], [2, 2, 0, 0]]
    assert pixels[1, 2].tolist() == [89, 90, 0, 0]
    assert allowed.shape == (4, 4)


def test_anchors_are_exactly_the_cells_that_hold_a_set():
    scene = made_scene(labelled=((0, 0), (17, 40), (69, 89)))
    assert sorted(map(tuple, scene.anchors[1].tolist())) == [(0, 0), (16, 32), (64, 80)]


def test_a_scene_without_labels_is_refused():
    with pytest.raises(ConfigError, match="lonely has none"):
        made_scene("lonely", labelled=())


@pytest.mark.parametrize("zoom", [(1.0, 1.0), (0.5, 0.9), (1.1, 2.0)])
def test_every_window_holds_a_label_however_rare(zoom):
    sampler = WindowSampler([made_scene(labelled=((69, 3),))], 32, 4, zoom, zoom_chance=1.0)
    rng = generator()
    for _ in range(10):
        assert (sampler.draw(rng).allowed != 0).flatten(1).any(1).all()


def test_labels_lie_where_their_pixels_lie():
    sampler = WindowSampler([made_scene(labelled=((33, 55), (40, 3)))], 32, 8, zoom_chance=0.0)
    batch = sampler.draw(generator())
    n, row, col = (batch.allowed == 1).nonzero().T
    places = batch.pixels[n, :, row, col] - 1
    assert set(map(tuple, places.tolist())) == {(33.0, 55.0), (40.0, 3.0)}


def test_the_same_state_gives_the_same_windows():
    sampler = WindowSampler([made_scene(), made_scene("b")], 32, 4)
    first, again, other = (sampler.draw(generator(s)) for s in (3, 3, 4))
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.pixels, other.pixels)


def test_sites_are_drawn_evenly_however_many_scenes_they_have():
    scenes = [made_scene(f"a{i}", "many") for i in range(9)] + [made_scene("one")]
    shares = WindowSampler(scenes, 32).shares
    by_site = Counter()
    for scene, share in zip(scenes, shares.tolist(), strict=True):
        by_site[scene.site] += share
    assert by_site["many"] == pytest.approx(by_site["one"])


def test_unobserved_pixels_take_no_part_in_averages():
    pixels = torch.full((1, 64, 64), 5, dtype=torch.int16)
    pixels[:, :, ::4] = 0
    allowed = torch.ones(64, 64, dtype=torch.uint8)
    scene = LabelledScene.index("holes", MemorySource(pixels, allowed, 1.0), (True,), site="holes")
    batch = WindowSampler([scene], 32, 2, (2.0, 2.0), zoom_chance=1.0).draw(generator())
    assert batch.pixels[batch.observed].unique().tolist() == [5.0]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((1, 1, 1, 1), 1),
        ((1, 1, 1, 2), 1),
        ((1, 1, 2, 2), 3),
        ((1, 2, 2, 2), 2),
        ((1, 2, 0, 0), 0),
        ((1, 1, 1, 0), 1),
        ((5, 5, 1, 1), 5),
        ((7, 7, 7, 7), 7),
    ],
)
def test_labels_of_mixed_pixels_allow_what_covers_a_third(parts, expected):
    allowed = torch.tensor(parts, dtype=torch.uint8).reshape(2, 2).repeat(32, 32)
    source = MemorySource(torch.ones(1, 64, 64, dtype=torch.int16), allowed, 1.0)
    scene = LabelledScene.index("mixed", source, (True,), site="mixed")
    sampler = WindowSampler([scene], 32, 1, (2.0, 2.0), zoom_chance=1.0)
    seen = set()
    rng = generator()
    for _ in range(20):  # windows start at odd corners too, but each averages two by two
        window = sampler._read(scene, 2.0, rng)[1]
        seen |= set(window.unique().tolist())
    assert expected in seen


@pytest.mark.parametrize(
    ("parts", "share"),
    [((1, 1, 1, 2), 0.25), ((1, 1, 2, 2), 0.5), ((1, 2, 3 + (64 << 8), 2), 0.625)],
)
def test_averaged_labels_hold_the_exact_share_of_water(parts, share):
    allowed = torch.tensor(parts, dtype=torch.int16).reshape(2, 2)
    averaged = dataset._average_sets(allowed, 1)
    assert averaged.dtype == torch.int16
    assert water_share(averaged).item() == pytest.approx(share)


def test_shares_need_nine_tenths_of_the_area_labelled():
    allowed = torch.tensor([[1, 2], [2, 3]], dtype=torch.int16)
    assert dataset._average_sets(allowed, 1).item() == 3
    allowed = torch.tensor([[1, 2], [4, 2]], dtype=torch.int16)
    assert dataset._average_sets(allowed, 1).item() == 2


def test_magnified_labels_keep_their_shares():
    allowed = torch.tensor([[1, 3 + (40 << 8)]], dtype=torch.int16).expand(2, 2)
    near = dataset._nearest_sets(allowed, 4)
    assert near[0].tolist() == [1, 1, 3 + (40 << 8), 3 + (40 << 8)]


def test_a_coarse_scene_is_not_averaged_further():
    scene = made_scene(shape=(300, 300), coarsest=1.0)
    batch = WindowSampler([scene], 32, 4, (2.0, 3.0), zoom_chance=1.0).draw(generator())
    step = batch.pixels[:, 0, 1:] - batch.pixels[:, 0, :-1]
    assert step.unique().tolist() == [1.0]

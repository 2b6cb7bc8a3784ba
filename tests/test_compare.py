"""Change and mosaic: every pair of codes, grids that differ, zones, the antimeridian."""

import json
import warnings

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.features import shapes
from rio_cogeo.cogeo import cog_validate

from geounet import compare
from geounet.compare import CHANGES, change, mosaic
from geounet.errors import ConfigError, GeounetWarning, OutputError, SceneError
from geounet.outlines import Shaping, vectorize

CODES = np.array([0, 1, 2, 255], np.uint8)
X, Y = 500_000, 4_400_000
UTM = Affine(10, 0, X, 0, -10, Y)
COS, SIN = np.cos(np.radians(31)).item(), np.sin(np.radians(31)).item()
ROTATED = Affine(10 * COS, 20 * SIN, X, 10 * SIN, -20 * COS, Y)


@pytest.fixture
def make_mask(make_raster):
    def make(codes, name, **profile):
        codes = np.asarray(codes, np.uint8)
        return make_raster(codes[None], name, **{"nodata": 255, **profile})

    return make


@pytest.fixture
def small_strips(monkeypatch):
    """Strips of a few rows, so that small masks have many."""
    monkeypatch.setattr(compare, "_STRIP_PIXELS", 200)


@pytest.fixture
def strips(monkeypatch):
    """The same for masks of some 300 pixels to a side."""
    monkeypatch.setattr(compare, "_STRIP_PIXELS", 4000)


def _random(*shape, seed=0):
    return np.random.default_rng(seed).choice(CODES, shape)


def _blobs(height, width, seed=0):
    """Water and land in blobs, with obscured and not observed ones."""
    random = np.random.default_rng(seed)
    coarse = random.choice(CODES, (height // 6 + 1, width // 6 + 1), p=[0.4, 0.4, 0.1, 0.1])
    return np.kron(coarse, np.ones((6, 6), np.uint8))[:height, :width]


def _bays(height, width, seed):
    """Water and land with winding shores, and a patch that was not observed."""
    noise = np.random.default_rng(seed).standard_normal((height, width))
    for axis in (0, 1, 0, 1):
        noise = sum(np.roll(noise, step, axis) for step in range(5))
    codes = (noise > 0).astype(np.uint8)
    codes[10 * seed : 15 * seed, 20:40] = 255
    return codes


def _read(path):
    with rasterio.open(path) as file:
        return file.read(1)


def _at(transform, col, row):
    a, b, c, d, e, f = transform[:6]
    return a * col + b * row + c, d * col + e * row + f


def _moved(transform, col, row, *, scale=1):
    a, b, _, d, e, _ = (scale * value for value in transform[:6])
    x, y = _at(transform, col, row)
    return Affine(a, b, x, d, e, y)


def _polygons(path):
    frame = geopandas.read_file(path)
    return sorted(shapely.to_wkb(shapely.normalize(frame.geometry.array)))


# -- change ----------------------------------------------------------------------------------------


def test_every_pair_of_codes(make_mask, tmp_path):
    before, after = np.meshgrid(CODES, CODES, indexing="ij")
    result = change(make_mask(before, "a.tif"), make_mask(after, "b.tif"), output=tmp_path / "out")
    expected = np.array(
        [[0, 3, 255, 255], [4, 1, 255, 255], [255, 255, 255, 255], [255, 255, 255, 255]]
    )
    np.testing.assert_array_equal(_read(result.outputs["change"]), expected)
    assert result.pixels == {"land": 1, "water": 1, "gain": 1, "loss": 1, "unknown": 12}
    assert result.polygons == {"land": 1, "water": 1, "gain": 1, "loss": 1, "unknown": 1}
    assert not result.aligned


def test_the_raster_tells_its_classes(make_mask, tmp_path):
    mask = make_mask(_random(30, 20), "a_20240131.tif")
    result = change(mask, mask, output=tmp_path / "out")
    path = result.outputs["change"]
    assert cog_validate(path, strict=True)[0]
    with rasterio.open(path) as file:
        tags, colours = file.tags(), file.colormap(1)
        assert (file.crs.to_epsg(), file.transform, file.nodata) == (32629, UTM, 255)
    assert {int(k[6:]): v for k, v in tags.items() if k.startswith("CLASS_")} == CHANGES
    assert tags["BEFORE"] == tags["AFTER"] == "a_20240131.tif"
    assert len({colours[code] for code in CHANGES}) == len(CHANGES)


@pytest.mark.parametrize("transform", [UTM, ROTATED])
def test_polygons_are_those_of_the_whole_and_their_areas_add_up(
    make_mask, tmp_path, small_strips, transform
):
    before, after = _blobs(61, 47), _blobs(61, 47, seed=1)
    paths = (
        make_mask(before, "a.tif", transform=transform),
        make_mask(after, "b.tif", transform=transform),
    )
    result = change(*paths, output=tmp_path / "out")
    codes = _read(result.outputs["change"])
    frame = geopandas.read_file(result.outputs["polygons"])
    assert set(frame["class"]) == set(CHANGES.values())
    for code, name in CHANGES.items():
        part = frame[frame["class"] == name]
        found = shapes(codes, codes == code, transform=transform)
        whole = [shapely.geometry.shape(geometry) for geometry, _ in found]
        assert len(part) == len(whole) == result.polygons[name]
        assert shapely.union_all(part.geometry.array).equals(shapely.union_all(whole))
        # a raster's areas are those of its middle column: 1e-7 over the 300 m to either side
        assert part["area_m2"].sum() / 1e6 == pytest.approx(result.area_km2[name], rel=1e-7)
        assert result.pixels[name] == (codes == code).sum()
    assert frame.crs.to_epsg() == 32629


def test_strips_do_not_show(make_mask, tmp_path, monkeypatch):
    paths = make_mask(_random(83, 31), "a.tif"), make_mask(_random(83, 31, seed=1), "b.tif")
    whole = change(*paths, output=tmp_path / "whole")
    monkeypatch.setattr(compare, "_STRIP_PIXELS", 70)
    cut = change(*paths, output=tmp_path / "cut")
    np.testing.assert_array_equal(_read(cut.outputs["change"]), _read(whole.outputs["change"]))
    assert _polygons(cut.outputs["polygons"]) == _polygons(whole.outputs["polygons"])
    assert cut.pixels == whole.pixels
    assert cut.area_km2 == pytest.approx(whole.area_km2, rel=1e-12)


def test_a_shifted_grid_is_unknown_where_it_has_no_pixels(make_mask, tmp_path, small_strips):
    whole = _random(40, 30)
    first = make_mask(whole, "a.tif")
    second = make_mask(whole[5:25, 8:], "b.tif", transform=_moved(UTM, 8, 5))
    result = change(first, second, output=tmp_path / "out")
    expected = np.full((40, 30), 255)
    expected[5:25, 8:] = np.where(whole <= 1, whole, 255)[5:25, 8:]
    np.testing.assert_array_equal(_read(result.outputs["change"]), expected)
    assert result.aligned


@pytest.mark.parametrize("transform", [UTM, ROTATED])
def test_a_coarser_grid_takes_the_nearest_pixel(make_mask, tmp_path, small_strips, transform):
    coarse = _random(11, 9)
    first = make_mask(np.zeros((33, 27)), "a.tif", transform=transform)
    second = make_mask(coarse, "b.tif", transform=_moved(transform, 0, 0, scale=3))
    result = change(first, second, output=tmp_path / "out")
    fine = np.kron(coarse, np.ones((3, 3), np.uint8))
    expected = np.select([fine == 0, fine == 1], [0, 3], 255)
    np.testing.assert_array_equal(_read(result.outputs["change"]), expected)


def test_another_crs_takes_the_nearest_pixel(make_mask, tmp_path, strips):
    """A disc of water, drawn in two zones by its distance on the ground: its rim may differ."""
    masks = []
    for name, epsg in (("a.tif", 32629), ("b.tif", 32630)):
        to_xy = pyproj.Transformer.from_crs(4326, epsg, always_xy=True)
        x, y = (round(v, -1) for v in to_xy.transform(-6.02, 43.0))
        transform = Affine(10, 0, x - 1500, 0, -10, y + 1500)
        col, row = np.meshgrid(np.arange(300) + 0.5, np.arange(300) + 0.5)
        lon, lat = to_xy.transform(*_at(transform, col, row), direction="INVERSE")
        centre = np.full_like(lon, -6.02), np.full_like(lat, 43.0)
        distance = pyproj.Geod(ellps="WGS84").inv(*centre, lon, lat)[2]
        masks.append(make_mask(distance < 1000, name, crs=f"EPSG:{epsg}", transform=transform))
    result = change(*masks, output=tmp_path / "out")
    assert result.aligned
    rim = 2 * np.pi * 1000 / 10
    assert result.pixels["gain"] + result.pixels["loss"] < 0.5 * rim
    assert result.area_km2["water"] == pytest.approx(np.pi, rel=0.01)


def test_geographic_areas_are_geodesic(make_mask, tmp_path):
    transform = Affine(0.001, 0, 20, 0, -0.001, 60)
    mask = make_mask(np.ones((30, 40)), "a.tif", crs="EPSG:4326", transform=transform)
    result = change(mask, mask, output=tmp_path / "out")
    lat = np.linspace(59.97, 60, 31)  # along a parallel, many points: no geodesic shortcut
    ring_x = np.concatenate([np.linspace(20, 20.04, 401), np.linspace(20.04, 20, 401)])
    ring_y = np.concatenate([np.full(401, lat[0]), np.full(401, lat[-1])])
    area = pyproj.Geod(ellps="WGS84").polygon_area_perimeter(ring_x, ring_y)[0]
    assert result.area_km2["water"] == pytest.approx(area / 1e6, rel=1e-6)


def test_areas_of_a_wide_grid_are_those_of_its_polygons(make_mask, tmp_path):
    """Six degrees off the central meridian a UTM pixel is 1% smaller than on it."""
    codes = np.zeros((3, 4000), np.uint8)
    codes[:, 3000:] = 1
    wide = Affine(250, 0, X, 0, -250, Y)
    mask = make_mask(codes, "a.tif", transform=wide)
    result = mosaic([mask], output=tmp_path / "m.tif")
    area = geopandas.read_file(result.outputs["polygons"]).area_m2.sum() / 1e6
    assert result.area_km2["water"] == pytest.approx(area, rel=1e-4)
    assert result.area_km2["water"] < 0.985 * 3 * 1000 * 0.25**2


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_one_grid_needs_no_crs_and_two_grids_do(make_mask, tmp_path):
    flat = make_mask([[0, 1]], "a.tif", crs=None), make_mask([[1, 1]], "b.tif", crs=None)
    result = change(*flat, output=tmp_path / "out")
    assert result.pixels["gain"] == result.pixels["water"] == 1
    other = make_mask([[0, 1]], "c.tif", crs=None, transform=_moved(UTM, 0.5, 0))
    with pytest.raises(SceneError, match="need a CRS each"):
        change(flat[0], other, output=tmp_path / "out2")
    with pytest.raises(ConfigError, match="GeoJSON"):
        change(*flat, output=tmp_path / "out2", format="geojson")
    assert not (tmp_path / "out2").exists()


@pytest.mark.parametrize("col", [20, 20.5, 5000])
def test_masks_that_do_not_overlap_are_refused(make_mask, tmp_path, col):
    first = make_mask(np.ones((10, 20)), "a.tif")
    second = make_mask(np.ones((10, 20)), "b.tif", transform=_moved(UTM, col, 0))
    with pytest.raises(SceneError, match="no pixel in common"):
        change(first, second, output=tmp_path / "out")


def test_what_is_no_mask_is_refused(make_mask, make_raster, tmp_path):
    mask = make_mask([[0, 1]], "a.tif")
    floats = make_raster(np.zeros((1, 1, 2), np.float32), "f.tif")
    probability = make_raster(np.zeros((1, 1, 2), np.uint8), "p.tif", scale=0.004)
    strange = make_mask([[0, 7]], "s.tif")
    for bad, words in (
        (floats, "uint8 band of codes.* gdalwarp -ot Byte"),
        (probability, r"p\.tif is a water probability\. Give the mask"),
        (strange, r"s\.tif holds 7"),
        (tmp_path / "none.tif", "none.tif"),
    ):
        with pytest.raises(SceneError, match=words):
            change(mask, bad, output=tmp_path / "out")
    with pytest.raises(ConfigError, match="min_area"):
        change(mask, mask, output=tmp_path / "out", min_area=-1)
    with pytest.raises(ConfigError, match="shapefiles are not written"):
        change(mask, mask, output=tmp_path / "out", format="shp")
    assert not list(tmp_path.glob("out/*"))
    assert not list(tmp_path.glob("out/.geounet*"))


def test_outputs_are_replaced_only_if_told(make_mask, tmp_path):
    masks = make_mask([[0, 1]], "a.tif"), make_mask([[1, 1]], "b.tif")
    first = change(*masks, output=tmp_path / "out")
    kept = first.outputs["change"].read_bytes()
    with pytest.raises(OutputError, match="--overwrite"):
        change(*masks[::-1], output=tmp_path / "out")
    assert first.outputs["change"].read_bytes() == kept
    second = change(*masks[::-1], output=tmp_path / "out", overwrite=True)
    assert second.pixels["loss"] == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "change.gpkg", "change.tif"
    ]  # fmt: skip
    json.dumps(second.as_dict())


@pytest.mark.parametrize("smooth", [0, 5])
@pytest.mark.parametrize(("least", "kept"), [(1000, 1), (101, 1), (100, 2)])
def test_min_area_drops_polygons_only(make_mask, tmp_path, smooth, least, kept):
    """A pixel has 100.08 m2, rounded or not."""
    before, after = np.zeros((10, 10)), np.zeros((10, 10))
    after[2, 2], after[5:, 5:] = 1, 1
    paths = make_mask(before, "a.tif"), make_mask(after, "b.tif")
    result = change(*paths, output=tmp_path / "out", min_area=least, smooth=smooth)
    assert result.polygons == {"land": 1, "water": 0, "gain": kept, "loss": 0, "unknown": 0}
    assert result.pixels["gain"] == 26


@pytest.mark.parametrize("crs", ["EPSG:32629", "EPSG:4326"])
@pytest.mark.parametrize(("simplify", "smooth"), [(0, 10), (25, 0), (25, 15)])
def test_changed_polygons_do_not_gape_when_reshaped(
    make_mask, tmp_path, small_strips, crs, simplify, smooth
):
    """Simplified and smoothed they cover the grid as they did, and share their vertices."""
    transform = UTM if crs != "EPSG:4326" else Affine(1e-4, 0, -9, 0, -1e-4, 0.1)
    masks = [
        make_mask(_bays(50, 70, seed), f"{seed}.tif", crs=crs, transform=transform)
        for seed in (1, 2)
    ]
    plain = change(*masks, output=tmp_path / "plain")
    result = change(*masks, output=tmp_path / "out", simplify=simplify, smooth=smooth)
    before = geopandas.read_file(plain.outputs["polygons"])
    after = geopandas.read_file(result.outputs["polygons"])
    assert after.is_valid.all()
    assert shapely.coverage_is_valid(after.geometry.array)
    assert after.geometry.union_all().area == pytest.approx(before.geometry.union_all().area)
    columns = ["class", "touches_edge", "touches_unobserved"]
    assert after[columns].equals(before[columns])
    assert after.area_m2.sum() == pytest.approx(before.area_m2.sum())
    scale = after.area_m2 / shapely.area(after.geometry.array)
    assert scale.std() < 1e-4 * scale.mean()
    assert not after.geometry.geom_equals(before.geometry).all()
    assert result.polygons == plain.polygons
    assert result.area_km2 == plain.area_km2
    least = before.area_m2.median()
    options = {"simplify": simplify, "smooth": smooth, "min_area": least}
    some = change(*masks, output=tmp_path / "some", **options)
    assert sum(some.polygons.values()) == (before.area_m2 >= least).sum()


@pytest.mark.parametrize(
    ("crs", "x", "y"), [(32633, 1e5, 55e5), (3413, 0, 0), (3413, -5e5, 4e5), (3031, 0, 0)]
)
def test_masks_of_the_world_and_about_a_pole_are_compared(make_mask, tmp_path, crs, x, y):
    """On either grid each pixel takes the nearest one of the other, wherever its outline lies."""
    world, place = Affine(1, 0, -180, 0, -1, 90), Affine(2e4, 0, x - 1e6, 0, -2e4, y + 1e6)
    codes = np.indices((180, 360)).sum(axis=0) % 2
    far = make_mask(codes, "world.tif", crs="EPSG:4326", transform=world)
    near = make_mask(np.zeros((100, 100)), "near.tif", crs=f"EPSG:{crs}", transform=place)
    to_near = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    col, row = np.meshgrid(np.arange(100) + 0.5, np.arange(100) + 0.5)
    lon, lat = to_near.transform(*_at(place, col, row), direction="INVERSE")
    expected = 3 * codes[np.floor(90 - lat).astype(int), np.floor(lon + 180).astype(int) % 360]
    found = _read(change(near, far, output=tmp_path / "near").outputs["change"])
    assert (found == expected).mean() > 0.95
    col, row = np.meshgrid(np.arange(360) + 0.5, np.arange(180) + 0.5)
    there = np.nan_to_num(to_near.transform(*_at(world, col, row)), posinf=1e12)
    there = np.stack(_at(~place, *there))
    sees = ((there > 0) & (there < 100)).all(axis=0)
    found = _read(change(far, near, output=tmp_path / "far").outputs["change"])
    assert (found == np.where(sees, 4 * codes, 255)).mean() > 0.95


# -- mosaic ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", [UTM, ROTATED])
def test_tiles_of_a_mask_give_it_back(make_mask, tmp_path, small_strips, transform):
    whole = _blobs(70, 60)
    tiles = [
        make_mask(
            whole[top:bottom, left:right],
            f"{top}_{left}.tif",
            transform=_moved(transform, left, top),
        )
        for top, bottom in ((0, 40), (33, 70))
        for left, right in ((0, 25), (20, 60))
    ]
    result = mosaic(tiles, output=tmp_path / "all_mask.tif")
    np.testing.assert_array_equal(_read(result.outputs["mask"]), whole)
    assert result.outputs["polygons"] == tmp_path / "all_water.gpkg"
    one = mosaic([make_mask(whole, "w.tif", transform=transform)], output=tmp_path / "one.tif")
    assert _polygons(result.outputs["polygons"]) == _polygons(one.outputs["polygons"])
    assert result.area_km2 == pytest.approx(one.area_km2, rel=1e-12)
    assert (result.size, result.pixels["water"]) == ((60, 70), (whole == 1).sum())
    assert cog_validate(result.outputs["mask"], strict=True)[0]


def test_the_first_mask_may_lie_anywhere(make_mask, tmp_path):
    whole = _random(20, 30)
    south = make_mask(whole[10:, 12:], "s.tif", transform=_moved(UTM, 12, 10))
    north = make_mask(whole[:12], "n.tif")
    result = mosaic([south, north], output=tmp_path / "m.tif")
    expected = whole.copy()
    expected[12:, :12] = 255
    np.testing.assert_array_equal(_read(result.outputs["mask"]), expected)
    with rasterio.open(result.outputs["mask"]) as file:
        assert file.transform.almost_equals(UTM)


def test_the_most_observed_wins_then_the_first(make_mask, tmp_path):
    first, second = np.meshgrid(CODES, CODES, indexing="ij")
    paths = [make_mask(first, "a.tif"), make_mask(second, "b.tif")]
    result = mosaic(paths, output=tmp_path / "m.tif")
    expected = [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 255]]
    np.testing.assert_array_equal(_read(result.outputs["mask"]), expected)
    assert not result.by_confidence


def _with_probability(make_mask, make_raster, name, codes, levels, **profile):
    make_raster(
        np.array([levels], np.uint8),
        f"{name}_probability.tif",
        scale=1 / 250,
        nodata=255,
        **profile,
    )
    return make_mask(codes, f"{name}_mask.tif", **profile)


def test_the_surest_of_those_that_saw_it_wins(make_mask, make_raster, tmp_path):
    first = _with_probability(
        make_mask, make_raster, "a", [[0, 0, 1, 2, 1]], [[120, 0, 200, 0, 130]]
    )
    second = _with_probability(
        make_mask, make_raster, "b", [[1, 1, 0, 1, 0]], [[200, 249, 50, 126, 120]]
    )
    result = mosaic([first, second], output=tmp_path / "m.tif", probability=True)
    # surer, less sure, as sure (first), observed though hardly sure, as sure (first)
    np.testing.assert_array_equal(_read(result.outputs["mask"]), [[1, 0, 1, 1, 1]])
    probability = _read(result.outputs["probability"])
    np.testing.assert_array_equal(probability, [[200, 0, 200, 126, 130]])
    assert result.by_confidence


def test_confidence_counts_only_if_all_have_it(make_mask, make_raster, tmp_path):
    first = _with_probability(make_mask, make_raster, "a", [[0]], [[120]])
    second = make_mask([[1]], "b_mask.tif")
    with pytest.warns(GeounetWarning, match="b_mask.tif"):
        result = mosaic([first, second], output=tmp_path / "m.tif")
    np.testing.assert_array_equal(_read(result.outputs["mask"]), [[0]])
    with pytest.warns(GeounetWarning, match="b_mask.tif"):
        result = mosaic([second, first], output=tmp_path / "turned.tif")
    np.testing.assert_array_equal(_read(result.outputs["mask"]), [[1]])
    third = _with_probability(make_mask, make_raster, "c", [[1, 1]], [[9]])
    for options in ({"probability": True}, {"shaping": Shaping(edges="contour")}):
        with pytest.raises(ConfigError, match=r"none beside .*b_mask.tif"):
            mosaic([first, second], output=tmp_path / "n.tif", **options)
    with pytest.raises(SceneError, match="on the grid of the mask beside it"):
        mosaic([first, third], output=tmp_path / "n.tif")
    blind = _with_probability(make_mask, make_raster, "d", [[1, 255]], [[255, 255]])
    with pytest.raises(SceneError, match=r"d_probability\.tif holds 255 there"):
        mosaic([blind], output=tmp_path / "n.tif")


def _halves(make_mask, make_raster, *, times=()):
    """A mask of 40 x 60 pixels with its probability, and its overlapping halves on the disk."""
    random = np.random.default_rng(5)
    level = np.kron(random.integers(0, 251, (10, 15)), np.ones((4, 4))).astype(np.uint8)
    codes = (level >= 125).astype(np.uint8)
    codes[:5, :7], codes[30:, 33:40] = 255, 2
    level[(codes == 255) | (codes == 2)] = 255
    paths = []
    for name, part in {"w": np.s_[:, :35], "e": np.s_[:, 25:], "whole": np.s_[:, :]}.items():
        place = _moved(UTM, part[1].start or 0, 0)
        path = _with_probability(
            make_mask, make_raster, name, codes[part], level[part], transform=place
        )
        paths.append(path)
    for path, time in zip(paths, times, strict=False):
        with rasterio.open(path, "r+") as file:
            file.update_tags(ACQUIRED=time)
    return *paths, level


@pytest.mark.parametrize("edges", ["pixel", "contour"])
def test_a_mosaic_with_probability_is_vectorized_as_the_whole_is(
    make_mask, make_raster, tmp_path, small_strips, edges
):
    west, east, whole, level = _halves(make_mask, make_raster)
    shaping = Shaping(edges=edges, min_area=500, fill_holes=2000)
    result = mosaic(
        [west, east], output=tmp_path / "m.tif", probability=True, shaping=shaping, shoreline=True
    )
    assert set(result.outputs) == {"mask", "polygons", "shoreline", "probability"}
    with rasterio.open(result.outputs["probability"]) as file:
        np.testing.assert_array_equal(file.read(1), level)
        assert file.scales[0] == pytest.approx(1 / 250)
    beside = whole.with_name("whole_probability.tif")
    expected = vectorize(whole, probability=beside, shaping=shaping, shoreline=True)
    for kind, frame in (("polygons", expected.polygons), ("shoreline", expected.shorelines)):
        found = geopandas.read_file(result.outputs[kind])
        assert found.geometry.geom_equals(frame.geometry).all()
        columns = [name for name in frame if name not in ("geometry", "source")]
        assert set(columns) >= ({"gradient"} if kind == "shoreline" else {"area_low_m2"})
        assert found[columns].equals(frame[columns])
        sources = {"w_mask.tif", "e_mask.tif"} if kind == "polygons" else {"m.tif"}
        assert set(", ".join(found.source).split(", ")) == sources
    assert result.polygons == len(expected.polygons)


@pytest.mark.parametrize(
    ("times", "acquired"),
    [
        (("2024-05-01T10:00:00", "2024-05-01T10:00:00"), "2024-05-01T10:00:00"),
        (("2024-05-01T10:00:00", "2024-05-01T10:00:25"), "2024-05-01"),
        (("2024-05-01T10:00:00", "2024-05-03"), None),
        (("2024-05-01T10:00:00",), None),
        ((), None),
    ],
)
def test_a_mosaic_tells_the_time_that_its_masks_share(
    make_mask, make_raster, tmp_path, times, acquired
):
    west, east, _, _ = _halves(make_mask, make_raster, times=times)
    result = mosaic([west, east], output=tmp_path / "m.tif", shoreline=True)
    frames = {kind: geopandas.read_file(result.outputs[kind]) for kind in ("polygons", "shoreline")}
    with rasterio.open(result.outputs["mask"]) as file:
        assert file.tags().get("ACQUIRED") == acquired
    assert set(frames["shoreline"].get("acquired", [None])) == {acquired}
    polygons = frames["polygons"]
    west_time, east_time = (*times, None, None)[:2]
    for source, time in {
        "w_mask.tif": west_time,
        "e_mask.tif": east_time,
        "e_mask.tif, w_mask.tif": "/".join(dict.fromkeys(sorted(filter(None, times)))) or None,
    }.items():
        own = polygons[polygons.source == source].get("acquired", [None])
        assert {None if value != value else value for value in own} == {time}  # NaN is not itself


def test_polygons_of_a_mosaic_name_the_scenes_in_the_masks_tags(make_mask, tmp_path):
    masks = [
        make_mask([[1, 0, 1]], "a.tif"),
        make_mask([[1]], "b.tif", transform=_moved(UTM, 3, 0)),
    ]
    with rasterio.open(masks[0], "r+") as file:
        file.update_tags(SOURCE="S2A_T31.SAFE")
    result = mosaic(masks, output=tmp_path / "m.tif")
    frame = geopandas.read_file(result.outputs["polygons"])
    assert list(frame.source) == ["S2A_T31.SAFE", "S2A_T31.SAFE, b.tif"]


def test_a_mosaic_moves_its_polygons(make_mask, tmp_path):
    mask = make_mask([[1, 1], [1, 0]], "a.tif")
    result = mosaic([mask], output=tmp_path / "m.tif", to_crs="EPSG:4326")
    frame = geopandas.read_file(result.outputs["polygons"])
    assert frame.crs == pyproj.CRS(4326)
    assert frame.area_m2[0] == pytest.approx(300, rel=2e-3)


def test_progress_is_told_by_rows(make_mask, tmp_path, small_strips):
    mask = make_mask(_random(30, 20), "a.tif")
    told = []
    change(mask, mask, output=tmp_path / "out", on_progress=told.append)
    mosaic([mask], output=tmp_path / "m.tif", on_progress=told.append)
    assert [(at.done, at.total) for at in told] == 2 * [(10, 30), (20, 30), (30, 30)]


def _lake(make_mask, lon, epsg, name):
    """A tile of 3 km about a place, with a lake of 1 km radius about lon 180 or -6."""
    to_xy = pyproj.Transformer.from_crs(4326, epsg, always_xy=True)
    centre_lon = 180.0 if abs(lon) > 170 else -6.0
    x, y = (round(v, -1) for v in to_xy.transform(lon, 43.0))
    transform = Affine(10, 0, x - 1500, 0, -10, y + 1500)
    col, row = np.meshgrid(np.arange(300) + 0.5, np.arange(300) + 0.5)
    place = to_xy.transform(*_at(transform, col, row), direction="INVERSE")
    middle = np.full_like(col, centre_lon), np.full_like(col, 43.0)
    distance = pyproj.Geod(ellps="WGS84").inv(*middle, *place)[2]
    return make_mask(distance < 1000, name, crs=f"EPSG:{epsg}", transform=transform)


@pytest.mark.parametrize("crs", [None, "EPSG:32630", "EPSG:3035", "EPSG:4326"])
def test_a_lake_across_two_zones_is_one_polygon(make_mask, tmp_path, strips, crs):
    """Neither tile holds the whole lake: each reaches 1.5 km to either side of its centre."""
    tiles = [
        _lake(make_mask, -6.012, 32629, "w.tif"),
        _lake(make_mask, -5.988, 32630, "e.tif"),
    ]
    result = mosaic(tiles, output=tmp_path / "m.tif", crs=crs)
    frame = geopandas.read_file(result.outputs["polygons"])
    assert len(frame) == result.polygons == 1
    assert frame.area_m2[0] == pytest.approx(np.pi * 1e6, rel=0.01)
    assert frame.crs == pyproj.CRS(crs or 32629)
    with rasterio.open(result.outputs["mask"]) as file:
        assert file.res[0] == pytest.approx(10 if crs != "EPSG:4326" else 1.1e-4, rel=0.2)


def test_a_mask_of_another_crs_lies_in_the_middle(make_mask, tmp_path, small_strips):
    """It takes the columns that it covers, and none to their right or left."""
    unseen = make_mask(np.full((60, 90), 255), "unseen.tif")
    to_lonlat = pyproj.Transformer.from_crs(32629, 4326, always_xy=True)
    west, north = to_lonlat.transform(X + 303, Y - 204)
    step = 1e-5
    water = make_mask(
        np.ones((200, 300)), "w.tif", crs="EPSG:4326",
        transform=Affine(step, 0, west, 0, -step, north),
    )  # fmt: skip
    result = mosaic([unseen, water], output=tmp_path / "m.tif")
    col, row = np.meshgrid(np.arange(90) + 0.5, np.arange(60) + 0.5)
    lon, lat = to_lonlat.transform(*_at(UTM, col, row))
    inside = (lon > west) & (lon < west + 300 * step) & (lat < north) & (lat > north - 200 * step)
    np.testing.assert_array_equal(_read(result.outputs["mask"]), np.where(inside, 1, 255))
    assert 0 < inside.sum() < 900


@pytest.mark.parametrize("crs", [None, "EPSG:4326", "EPSG:32601"])
def test_a_lake_across_the_antimeridian_is_one_polygon(make_mask, tmp_path, strips, crs):
    tiles = [
        _lake(make_mask, 179.988, 32660, "w.tif"),
        _lake(make_mask, -179.988, 32601, "e.tif"),
    ]
    for order in (tiles, tiles[::-1]):
        result = mosaic(order, output=tmp_path / "m.tif", crs=crs, overwrite=True)
        assert result.polygons == 1
        assert result.area_km2["water"] == pytest.approx(np.pi, rel=0.01)
        assert max(result.size) < 1000


def test_degrees_on_either_side_of_the_antimeridian_adjoin(make_mask, tmp_path, small_strips):
    west, east = np.zeros((20, 30)), np.zeros((20, 30))
    west[5:10, 20:], east[5:10, :10] = 1, 1
    cell = 2.0**-13
    tiles = [
        make_mask(mask, name, crs="EPSG:4326", transform=Affine(cell, 0, lon, 0, -cell, 10))
        for mask, name, lon in ((west, "w.tif", 180 - 30 * cell), (east, "e.tif", -180))
    ]
    result = mosaic(tiles, output=tmp_path / "m.tif")
    np.testing.assert_array_equal(_read(result.outputs["mask"]), np.hstack([west, east]))
    assert result.polygons == 1
    compared = change(*tiles[:1], result.outputs["mask"], output=tmp_path / "out")
    assert compared.pixels["gain"] == compared.pixels["loss"] == compared.pixels["unknown"] == 0


def test_a_crs_that_tears_a_mask_apart_is_refused(make_mask, tmp_path):
    tile = _lake(make_mask, 179.9999, 32660, "w.tif")
    with pytest.raises(ConfigError, match="in one piece"):
        mosaic([tile], output=tmp_path / "m.tif", crs="EPSG:3857")
    assert not (tmp_path / "m.tif").exists()


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_a_mask_about_a_pole_is_torn_apart_in_longitudes(make_mask, tmp_path, crs):
    place = Affine(2e4, 0, -1e6, 0, -2e4, 1e6)
    mask = make_mask(np.ones((100, 100)), "a.tif", crs="EPSG:3413", transform=place)
    with pytest.raises(ConfigError, match="in one piece"):
        mosaic([mask], output=tmp_path / "m.tif", crs=crs)


def test_refused_mosaics(make_mask, tmp_path):
    mask = make_mask([[0, 1]], "a.tif")
    with pytest.raises(ConfigError, match="got none"):
        mosaic([], output=tmp_path / "m.tif")
    with pytest.raises(ConfigError, match="'nowhere'"):
        mosaic([mask], output=tmp_path / "m.tif", crs="nowhere")
    with pytest.raises(ConfigError, match=r"map's or in longitude and latitude; got 'EPSG:4978'"):
        mosaic([mask], output=tmp_path / "m.tif", crs="EPSG:4978")
    with pytest.raises(ConfigError, match=r"is a GeoTIFF, NAME\.tif; got .*m\.jpg"):
        mosaic([mask], output=tmp_path / "m.jpg")
    with pytest.raises(SceneError, match="holds 9"):
        mosaic([mask, make_mask([[9]], "b.tif")], output=tmp_path / "m.tif")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif"]
    with pytest.raises(OutputError, match="--overwrite"):
        mosaic([mask], output=mask)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bare = make_mask([[1]], "c.tif", crs=None, transform=_moved(UTM, 3, 0))
    with pytest.raises(SceneError, match="need a CRS each"):
        mosaic([mask, bare], output=tmp_path / "m.tif")


def test_a_damaged_mask_leaves_nothing(make_mask, tmp_path):
    path = make_mask(_random(600, 600), "a.tif", compress="deflate")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(SceneError, match=r"a\.tif"):
        mosaic([path], output=tmp_path / "out" / "m.tif")
    assert not list(tmp_path.glob("out/*"))

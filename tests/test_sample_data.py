"""The sample scene is what its README says, and its truth holds below the pixel."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

FOLDER = Path(__file__).parents[1] / "sample_data"
SEED = 20240607


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_scene", FOLDER / "make_scene.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_scene = load_script()


def read(name: str, folder: Path = FOLDER) -> NDArray[np.generic]:
    with rasterio.open(folder / name) as src:
        return src.read()


def readme_table(folder: Path) -> dict[str, tuple[int, str]]:
    rows = re.findall(
        r"^\| `(\S+)` \| (\d+) \| `([0-9a-f]{64})` \|$",
        (folder / "README.md").read_text(),
        re.MULTILINE,
    )
    return {name: (int(size), digest) for name, size, digest in rows}


def actual_table(folder: Path) -> dict[str, tuple[int, str]]:
    data = {name: (folder / name).read_bytes() for name in make_scene.FILES}
    return {name: (len(d), hashlib.sha256(d).hexdigest()) for name, d in data.items()}


@pytest.fixture(scope="module")
def remade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remade")
    (folder / "README.md").write_text("before\n<!-- sums -->\nold\n<!-- /sums -->\nafter\n")
    make_scene.write_all(folder)
    return folder


def test_readme_lists_every_file_with_its_size_and_sum() -> None:
    assert readme_table(FOLDER) == actual_table(FOLDER)
    assert (FOLDER / "scene.tif").stat().st_size < 3_000_000
    assert (FOLDER / "truth_shoreline.fgb").stat().st_size < 400_000


@pytest.mark.parametrize("name", ["scene.tif", "truth_mask.tif", "truth_water_fraction.tif"])
def test_script_makes_the_same_pixels(remade: Path, name: str) -> None:
    np.testing.assert_array_equal(read(name, remade), read(name))


def test_script_makes_the_same_shoreline(remade: Path) -> None:
    ours, theirs = (
        gpd.read_file(folder / "truth_shoreline.fgb").union_all() for folder in (FOLDER, remade)
    )
    # Another GEOS may start a line elsewhere, so compare the shapes: within 2 mm.
    assert ours.length == pytest.approx(theirs.length, abs=0.1)
    assert max(ours.hausdorff_distance(theirs), theirs.hausdorff_distance(ours)) < 0.002


def test_script_renews_the_readme_and_nothing_else_in_it(remade: Path) -> None:
    text = (remade / "README.md").read_text()
    assert readme_table(remade) == actual_table(remade)
    assert text.startswith("before\n<!-- sums -->\n| file |")
    assert text.endswith("|\n<!-- /sums -->\nafter\n")


def test_scene_says_what_it_is() -> None:
    with rasterio.open(FOLDER / "scene.tif") as src:
        assert src.descriptions == make_scene.BANDS
        assert src.dtypes == ("uint16",) * 12
        assert src.nodata == 0
        assert src.scales == (1e-4,) * 12
        assert src.offsets == (0.0,) * 12
        assert src.crs.to_epsg() == 32629
        assert tuple(src.transform)[:6] == (10.0, 0.0, 493_620.0, 0.0, -10.0, 4_512_340.0)
        assert src.width % 2 == 1
        assert src.height % 2 == 1
        assert src.width * src.height > 1_000_000
        assert src.block_shapes == [(512, 512)] * 12


@pytest.mark.parametrize("name", ["truth_mask.tif", "truth_water_fraction.tif"])
def test_truth_lies_on_the_scenes_grid(name: str) -> None:
    with rasterio.open(FOLDER / "scene.tif") as scene, rasterio.open(FOLDER / name) as truth:
        assert truth.crs == scene.crs
        assert truth.transform == scene.transform
        assert truth.shape == scene.shape
        assert truth.nodata == 255
        assert truth.count == 1


def test_wedge_is_the_same_in_every_band_and_in_the_truth() -> None:
    empty = read("scene.tif") == 0
    wedge = empty[0]
    assert (empty == wedge).all()
    np.testing.assert_array_equal(wedge, read("truth_mask.tif")[0] == 255)
    np.testing.assert_array_equal(wedge, read("truth_water_fraction.tif")[0] == 255)
    assert 0.05 < wedge.mean() < 0.15
    assert not wedge[0].any()
    assert (np.diff(wedge.sum(axis=1)) >= 0).all(), "the swath's edge slants one way"


def test_mask_is_half_of_the_fraction() -> None:
    mask, steps = read("truth_mask.tif")[0], read("truth_water_fraction.tif")[0]
    seen = mask != 255
    assert set(np.unique(mask)) == {0, 1, 255}
    assert steps[seen].max() == 250
    # The fraction is rounded to 1/250, so exactly 125 may stand on either side.
    clear = seen & (steps != 125)
    np.testing.assert_array_equal(mask[clear] == 1, steps[clear] > 125)


def test_fraction_adds_up_to_the_polygons_area() -> None:
    share = make_scene.coverage(make_scene.water())
    frame = shapely.box(0, 0, make_scene.WIDTH, make_scene.HEIGHT)
    assert share.sum() == pytest.approx(make_scene.water().intersection(frame).area, rel=1e-12)


def test_coverage_of_a_triangle_with_a_hole_is_exact() -> None:
    shape = shapely.Polygon(
        [(10, 10), (14, 10), (10, 14)],
        [[(10.25, 10.25), (10.75, 10.25), (10.75, 10.75), (10.25, 10.75)]],
    )
    expected = np.zeros((5, 5))
    for row in range(4):
        expected[row, : 3 - row], expected[row, 3 - row] = 1.0, 0.5
    expected[0, 0] = 0.75
    np.testing.assert_allclose(make_scene.coverage(shape)[10:15, 10:15], expected, atol=1e-12)


def test_fraction_agrees_with_supersampled_signed_distance() -> None:
    steps = read("truth_water_fraction.tif")[0]
    rows, cols = np.nonzero((steps > 0) & (steps < 250))
    pick = np.random.default_rng(SEED).choice(len(rows), 300, replace=False)
    sub = (np.arange(16) + 0.5) / 16
    x = cols[pick][:, None, None] + sub[None, None, :]
    y = rows[pick][:, None, None] + sub[None, :, None]
    sampled = (make_scene.signed_distance(x, y) > 0).mean(axis=(1, 2))
    # A straight edge through 16 x 16 samples is off by a sample a row at the very most.
    np.testing.assert_allclose(steps[rows[pick], cols[pick]] / 250, sampled, atol=1 / 16)
    assert abs(steps[rows[pick], cols[pick]] / 250 - sampled).mean() < 0.01


def shore_points() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points every 0.7 pixel along the shoreline file, and the unit normals there, in pixels."""
    points, normals = [], []
    for line in gpd.read_file(FOLDER / "truth_shoreline.fgb").geometry:
        x, y = make_scene.to_pixel(*np.asarray(line.coords).T)
        pixels = shapely.LineString(np.column_stack([x, y]))
        at = np.arange(0.5, pixels.length - 0.5, 0.7)
        before, here, after = (
            shapely.get_coordinates(shapely.line_interpolate_point(pixels, at + step))
            for step in (-0.05, 0.0, 0.05)
        )
        along = (after - before) / np.hypot(*(after - before).T)[:, None]
        points.append(here)
        normals.append(np.column_stack([along[:, 1], -along[:, 0]]))
    return np.concatenate(points), np.concatenate(normals)


def interpolated(image: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bilinear value of ``image`` at pixel coordinates (..., 2)."""
    at = points - 0.5
    base = np.floor(at).astype(int)
    u, v = np.moveaxis(at - base, -1, 0)
    col, row = np.moveaxis(base, -1, 0)
    upper = (1 - u) * image[row, col] + u * image[row, col + 1]
    lower = (1 - u) * image[row + 1, col] + u * image[row + 1, col + 1]
    return (1 - v) * upper + v * lower


def test_shoreline_lies_on_the_true_shore_with_water_on_its_left() -> None:
    points, normals = shore_points()
    assert len(points) > 5000
    assert abs(make_scene.signed_distance(*points.T)).max() < 0.02
    left = points + 0.1 * normals
    assert (make_scene.signed_distance(*left.T) > 0).mean() > 0.999, "but for sharp corners"


def test_shoreline_keeps_within_the_observed_area_and_off_its_edge() -> None:
    points, _ = shore_points()
    col, row = np.floor(points).astype(int).T
    assert make_scene.observed()[row, col].all()
    # Were the swath's edge counted as shore, the lake that it cuts would add some 40 pixels of it.
    edge = make_scene.swath_edge()[row]
    assert (edge - points[:, 0] < 0.5).sum() < 12


def test_shoreline_is_the_half_level_of_the_fraction() -> None:
    points, normals = shore_points()
    inside = ((points > 4) & (points < [make_scene.WIDTH - 4, make_scene.HEIGHT - 4])).all(axis=1)
    points, normals = points[inside], normals[inside]
    reach = [make_scene.signed_distance(*(points + d * normals).T) / d for d in (-2.0, 2.0)]
    # Smooth shore only: at corners and on bars a few pixels wide a half level means less.
    smooth = (np.minimum(*reach) > 0.99) & (
        points[:, 0] < make_scene.swath_edge()[points[:, 1].astype(int)] - 4
    )
    assert smooth.mean() > 0.8
    offsets = np.linspace(-0.5, 0.5, 201)
    along = points[smooth][:, None, :] + offsets[None, :, None] * normals[smooth][:, None, :]
    levels = interpolated(make_scene.coverage(make_scene.water()), along)
    distance = offsets[abs(levels - 0.5).argmin(axis=1)]
    # A straight edge along the pixels is misplaced by up to 3/2 - sqrt(2) = 0.086 pixel when pixel
    # means are interpolated; a bend of a few pixels adds a little, and neither side is favoured.
    assert abs(distance.mean()) < 0.002
    assert abs(distance).mean() < 0.05
    assert np.quantile(abs(distance), 0.99) < 0.1
    assert abs(distance).max() < 0.15


def test_clear_open_sea_reads_as_water_and_dry_land_does_not() -> None:
    dn = dict(zip(make_scene.BANDS, read("scene.tif").astype(np.float64), strict=True))
    mask = read("truth_mask.tif")[0]
    index = (dn["B03"] - dn["B11"]) / np.maximum(dn["B03"] + dn["B11"], 1)
    distance = make_scene.shore_distance()
    here = make_scene.ground()
    sea = (mask == 1) & (here.shares["sea"] > 0.99) & (distance > 16) & (here.silt < 0.02)
    assert sea.mean() > 0.2
    assert (index[sea] > 0.3).all()
    assert (dn["B08"][sea] < dn["B03"][sea]).all()
    assert dn["B11"][sea].max() < 150
    land = (mask == 0) & (distance < -60)
    assert land.mean() > 0.1
    assert (index[land] < 0).mean() > 0.99


def test_coarse_bands_repeat_their_own_pixels() -> None:
    scene = read("scene.tif")[:, :, :828]
    for band, factor in enumerate(make_scene.NATIVE_PIXELS):
        small = scene[band, ::factor, ::factor]
        full = small.repeat(factor, axis=0).repeat(factor, axis=1)
        np.testing.assert_array_equal(scene[band], full[: make_scene.HEIGHT, :828])
        assert factor == 6 or (scene[band, ::2, ::2] != scene[band, ::2, 1::2]).any() == (
            factor == 1
        )

from types import SimpleNamespace

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize

from geounet.errors import ConfigError, GeounetWarning, SceneError
from geounet.labels import UNKNOWN, LabelRules, Pair, find_pairs, open_labels
from geounet.model import Inputs
from geounet.radiometry import Radiometry
from geounet.scene import Grid, open_scene
from geounet.tiling import Window
from geounet.training.dataset import LabelledScene, MemorySource, WindowSampler
from geounet.training.scenes import SceneSource, keep_back, sites_of, survey

BANDS = ("blue", "green", "red", "nir")
INPUTS = Inputs(read=(1, 3), take=(0, 0, 1), gain=(1e-4, 0.0, 1e-4), bias=(0.0, 0.0, 0.0))
"""Green, a band that is missing, and near infrared."""


def write(path, array, *, transform=None, crs="EPSG:32629", nodata=None, names=None):
    array = array if array.ndim == 3 else array[None]
    with rasterio.open(
        path, "w", driver="GTiff", width=array.shape[2], height=array.shape[1],
        count=len(array), dtype=array.dtype, crs=crs, nodata=nodata,
        transform=transform or Affine(10, 0, 500000, 0, -10, 4000000),
    ) as file:  # fmt: skip
        file.write(array)
        for i, name in enumerate(names or (), start=1):
            file.set_band_description(i, name)
    return path


def scene(folder, name="a", shape=(40, 50), **options):
    rng = np.random.default_rng(0)
    stack = rng.integers(100, 5000, (4, *shape)).astype(np.uint16)
    stack[:, :3, :5] = 0
    return write(folder / f"{name}.tif", stack, names=BANDS, **options)


def labels(shape=(40, 50)):
    label = np.zeros(shape, np.uint8)
    label[10:20] = 1
    label[30:] = 255
    return label


def pair(folder, label=None, **options):
    path = scene(folder)
    write(folder / "a.label.tif", labels() if label is None else label, **options)
    with pytest.warns(GeounetWarning):
        return Pair(open_scene(path), folder / "a.label.tif")


def source_of(found, **options):
    rules = LabelRules()
    return SceneSource(found.scene, INPUTS, open_labels(found, rules), **options)


def test_pairs_are_found_by_name(tmp_path):
    for name in ("b", "a", "alone"):
        scene(tmp_path, name)
    write(tmp_path / "a.label.tif", labels())
    square = geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:4326")
    square.to_file(tmp_path / "b.geojson")
    with pytest.warns(GeounetWarning, match="1 of 3 scenes"):
        found = find_pairs([tmp_path], scale=1e-4)
    assert [(p.name, p.label.name) for p in found] == [("a", "a.label.tif"), ("b", "b.geojson")]


def test_a_scene_is_no_folder_of_scenes(tmp_path):
    with pytest.raises(ConfigError, match=r"no folder .*\. For the file alone .* --label"):
        find_pairs([scene(tmp_path)])


def test_a_folder_without_labelled_scenes(tmp_path):
    scene(tmp_path)
    with pytest.raises(ConfigError, match="no labelled scene"):
        find_pairs([tmp_path])
    with pytest.raises(ConfigError, match="there is no folder"):
        find_pairs([tmp_path / "none"])


def test_a_window_is_the_scenes_reflectance_and_its_labels(tmp_path):
    found = pair(tmp_path)
    with rasterio.open(tmp_path / "a.tif") as file:
        stack = file.read()
    pixels, allowed = source_of(found).read(2, 3, 30, 20)
    assert pixels.dtype == torch.float32
    expected = stack[[1, 3], 2:32, 3:23] * np.float32(1e-4)
    np.testing.assert_allclose(pixels[[0, 2]].numpy(), expected, rtol=1e-6)
    assert (pixels[1] == 0).all()  # the missing band
    truth = labels()[2:32, 3:23]
    sets = np.where(truth == 255, 0, 1 << np.minimum(truth, 1))
    sets[0, :2] = 0  # not observed
    np.testing.assert_array_equal(allowed.numpy(), sets)


def test_a_held_scene_reads_the_same(tmp_path):
    found = pair(tmp_path)
    from_file = source_of(found, area=Window(5, 7, 30, 35), margin=6)
    held = source_of(found, area=Window(5, 7, 30, 35), margin=6)
    held.hold()
    for window in ((0, 0, 42, 47), (-9, 3, 20, 70), (30, 30, 5, 5)):
        for a, b in zip(from_file.read(*window), held.read(*window), strict=True):
            assert torch.equal(a, b)
    assert held.bytes == 30 * 35 * (2 * 2 + 2)


def test_the_margin_is_mirrored_and_has_no_labels(tmp_path):
    found = pair(tmp_path)
    plain, allowed = source_of(found, area=Window(4, 0, 36, 50)).read(0, 0, 36, 50)
    source = source_of(found, area=Window(4, 0, 36, 50), margin=5)
    assert source.shape == (46, 60)
    pixels, sets = source.read(-2, -2, 50, 64)
    mirrored = np.pad(plain.numpy(), ((0, 0), (5, 5), (5, 5)), mode="reflect")
    np.testing.assert_array_equal(pixels[:, 2:-2, 2:-2].numpy(), mirrored)
    assert (pixels[:, :2] == 0).all()
    np.testing.assert_array_equal(sets[7:-7, 7:-7].numpy(), allowed.numpy())
    sets[7:-7, 7:-7] = 0
    assert (sets == 0).all()


def test_a_scene_smaller_than_its_margin_is_mirrored_again_and_again(tmp_path):
    found = pair(tmp_path)
    area = Window(10, 10, 3, 4)
    plain, _ = source_of(found, area=area).read(0, 0, 3, 4)
    pixels, _ = source_of(found, area=area, margin=11).read(0, 0, 25, 26)
    mirrored = np.pad(plain.numpy(), ((0, 0), (11, 11), (11, 11)), mode="reflect")
    np.testing.assert_array_equal(pixels.numpy(), mirrored)


def test_label_values_are_told_and_others_refused(tmp_path):
    label = np.full((40, 50), 7, np.uint8)
    label[0] = 99
    found = pair(tmp_path, label)
    rules = LabelRules(values={"land": (99,), "water": (7, 8)}, ignored=())
    read = open_labels(found, rules).read(Window(0, 0, 2, 3))
    assert read.tolist() == [[0, 0, 0], [1, 1, 1]]
    with pytest.raises(SceneError, match=r"holds 99\. Say what it means with label_values"):
        open_labels(found, LabelRules()).read(Window(0, 0, 2, 3))


def test_nan_is_unknown(tmp_path):
    label = labels().astype(np.float32)
    label[5] = np.nan
    read = open_labels(pair(tmp_path, label), LabelRules()).read(Window(4, 0, 2, 50))
    assert read.tolist() == [[0] * 50, [UNKNOWN] * 50]


def test_a_labels_nodata_is_unknown(tmp_path):
    found = pair(tmp_path, np.zeros((40, 50), np.float32), nodata=0)
    assert (open_labels(found, LabelRules()).read(Window(0, 0, 4, 4)) == UNKNOWN).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": np.zeros((40, 49), np.uint8)}, "size of 50 x 40 pixels; .* has 49 x 40"),
        ({"crs": "EPSG:32630"}, "CRS, EPSG:32629; .* has EPSG:32630"),
        ({"transform": Affine(10, 0, 500005, 0, -10, 4000000)}, "up to 0.5 pixels off"),
        ({"transform": Affine(10.1, 0, 500000, 0, -10, 4000000)}, "pixels off"),
    ],
)
def test_labels_that_do_not_lie_on_their_scene(tmp_path, options, message):
    with pytest.raises(SceneError, match=message):
        open_labels(pair(tmp_path, **options), LabelRules())


def test_a_label_that_is_no_raster(tmp_path):
    found = pair(tmp_path)
    found.label.write_bytes(b"text")
    with pytest.raises(SceneError, match="must be a raster"):
        open_labels(found, LabelRules())


def polygons(folder, shapes, classes=None, *, crs="EPSG:32629", to=None, suffix="gpkg"):
    path = scene(folder)
    frame = geopandas.GeoDataFrame({"class": classes} if classes else None, geometry=shapes)
    frame = frame.set_crs(crs) if crs else frame
    frame = frame.to_crs(to) if to else frame
    label = folder / f"a.{suffix}"
    frame.to_parquet(label) if suffix == "parquet" else frame.to_file(label)
    with pytest.warns(GeounetWarning):
        return Pair(open_scene(path), label)


def blob(x, y, size):
    return shapely.Point(500000 + 10 * x, 4000000 - 10 * y).buffer(10 * size)


BLOBS = [blob(10, 10, 6.3), blob(30, 20, 9.1), blob(33, 35, 3.2), blob(49, 2, 4.4)]


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "fgb", "parquet", "shp"])
def test_polygons_are_burned_as_if_all_at_once(tmp_path, suffix):
    to = "EPSG:4326" if suffix == "geojson" else None
    found = polygons(tmp_path, BLOBS, to=to, suffix=suffix)
    read = open_labels(found, LabelRules())
    whole = rasterize(BLOBS, (40, 50), transform=found.scene.grid.transform, dtype="uint8")
    for window in (Window(0, 0, 40, 50), Window(7, 9, 20, 21), Window(39, 0, 1, 50)):
        down = slice(window.row, window.row + window.height)
        across = slice(window.col, window.col + window.width)
        burned = read.read(window)
        assert (burned != whole[down, across]).sum() <= (2 if to else 0)  # centres on an edge
        assert burned.shape == (window.height, window.width)
    assert whole.any()


def test_polygons_in_another_crs_are_brought_to_the_scenes(tmp_path):
    found = polygons(tmp_path, BLOBS, to="EPSG:3857")
    whole = rasterize(BLOBS, (40, 50), transform=found.scene.grid.transform, dtype="uint8")
    burned = open_labels(found, LabelRules()).read(Window(0, 0, 40, 50))
    assert (burned != whole).mean() < 0.001


@pytest.mark.parametrize(
    ("classes", "outside", "rest"),
    [
        (None, "auto", 0),
        (None, "unknown", 255),
        (["water", "land", "unknown", 1], "auto", 255),
        (["water", "land", "unknown", 1], "land", 0),
    ],
)
def test_classes_of_polygons_and_what_is_outside(tmp_path, classes, outside, rest):
    classes = classes and [str(c) if isinstance(c, str) else "water" for c in classes]
    found = polygons(tmp_path, BLOBS, classes)
    burned = open_labels(found, LabelRules(outside=outside)).read(Window(0, 0, 40, 50))
    assert burned[10, 10] == 1
    assert burned[20, 30] == (0 if classes else 1)
    assert burned[35, 33] == (255 if classes else 1)
    assert burned[0, 0] == rest


@pytest.mark.parametrize("column", ["class", "Class", "CLASS"])
def test_classes_are_read_whatever_their_letters(tmp_path, column):
    found = polygons(tmp_path, BLOBS)
    frame = geopandas.read_file(found.label)
    frame.assign(**{column: ["Water", "LAND ", "unknown", "1"]}).to_file(found.label)
    burned = open_labels(found, LabelRules()).read(Window(0, 0, 40, 50))
    assert burned[[10, 20, 35, 2], [10, 30, 33, 48]].tolist() == [1, 0, 255, 1]


def test_layers_of_a_geopackage(tmp_path):
    """QGIS keeps styles in a table beside the polygons; of two layers of polygons one is meant."""
    found = polygons(tmp_path, BLOBS)
    frame, area = geopandas.read_file(found.label), Window(0, 0, 40, 50)
    expected = open_labels(found, LabelRules()).read(area)
    found.label.unlink()
    pyogrio.write_dataframe(pd.DataFrame({"styleQML": ["<qgis/>"]}), found.label, "styles")
    frame.to_file(found.label, layer="lakes", mode="a")
    assert np.array_equal(open_labels(found, LabelRules()).read(area), expected)
    frame.to_file(found.label, layer="rivers", mode="a")
    with pytest.raises(SceneError, match=r"one layer; .* has lakes, rivers: .* a\.gpkg lakes,"):
        open_labels(found, LabelRules())


def test_a_file_without_polygons_says_how_to_label_land(tmp_path):
    found = polygons(tmp_path, BLOBS)
    geopandas.read_file(found.label).iloc[:0].to_file(found.label)
    with pytest.raises(SceneError, match=r"holds nothing\. A scene without water"):
        open_labels(found, LabelRules())


def test_of_polygons_that_overlap_the_later_one_counts(tmp_path):
    """Smaller and smaller, on top of each other."""
    shapes = [blob(25, 20, 18 - 2 * i) for i in range(8)]
    found = polygons(tmp_path, shapes, ["water", "land"] * 4)
    burned = open_labels(found, LabelRules()).read(Window(0, 0, 40, 50))
    assert burned[20, 8:25].tolist() == [1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0]


def test_polygon_classes_may_be_values(tmp_path):
    found = polygons(tmp_path, BLOBS, [3, 3, 5, 255])
    rules = LabelRules(values={"land": (5,), "water": (3,)})
    burned = open_labels(found, rules).read(Window(0, 0, 40, 50))
    assert (burned[10, 10], burned[35, 33], burned[2, 48]) == (1, 0, 255)
    found = polygons(tmp_path, BLOBS, ["water", "water", "obscured", "water"])
    rules = LabelRules(classes=("land", "water"), values={"water": (1,), "obscured": (2,)})
    burned = open_labels(found, rules).read(Window(0, 0, 40, 50))
    assert (burned[10, 10], burned[35, 33]) == (1, 255)  # told, but no class of the model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shapes": [shapely.Point(500100, 3999900)]}, "must be polygons; .* holds Point"),
        ({"shapes": BLOBS, "crs": None}, "must both have a CRS"),
        ({"shapes": BLOBS, "crs": "EPSG:32635"}, "must lie on their scene"),
        ({"shapes": BLOBS, "classes": ["sea"] * 4}, "holds 'sea'"),
    ],
)
@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_polygons_that_cannot_be_labels(tmp_path, options, message):
    with pytest.raises(SceneError, match=message):
        open_labels(polygons(tmp_path, **options), LabelRules())


def test_survey_counts_what_is_there(tmp_path):
    source = source_of(pair(tmp_path))
    found = survey(source, 2, 1e-3)
    assert found.counts.tolist() == [20 * 50 - 15, 10 * 50]
    pixels, _ = source.read(0, 0, 40, 50)
    log = pixels[:, ::4, ::4].numpy()[[0, 2]]
    log = np.log(np.maximum(log[:, (log != 0).any(0)], 1e-3)).astype(float)
    np.testing.assert_allclose(found.moments[0, [0, 2]], log.mean(1))
    np.testing.assert_allclose(found.moments[1, [0, 2]], (log**2).mean(1))
    assert np.isnan(found.moments[:, 1]).all()
    assert set(found.anchors) == {1, 2}


def test_anchors_of_a_tall_scene_lead_to_its_classes(tmp_path):
    path = scene(tmp_path, shape=(600, 20))
    label = np.zeros((600, 20), np.uint8)
    label[555:560, 3:9] = 1
    write(tmp_path / "a.label.tif", label)
    with pytest.warns(GeounetWarning):
        source = source_of(Pair(open_scene(path), tmp_path / "a.label.tif"))
    found = survey(source, 2, 1e-3)
    assert found.anchors[2].tolist() == [[544, 0]]
    labelled = LabelledScene("a", "a", source, (True, False, True), anchors=found.anchors)
    sampler = WindowSampler([labelled], size=32, batch=16, zoom_chance=0.0)
    batch = sampler.draw(torch.Generator().manual_seed(0))
    with_water = (batch.allowed == 2).flatten(1).any(1).float().mean()
    assert 0.3 < with_water < 0.8
    assert "a at row" in batch.origin[0]


def test_with_a_margin_labels_lie_within_it(tmp_path):
    source = source_of(pair(tmp_path), margin=20)
    found = survey(source, 2, 1e-3)
    labelled = LabelledScene("a", "a", source, (True, False, True), anchors=found.anchors)
    sampler = WindowSampler([labelled], size=56, batch=32, zoom_chance=0.0, margin=20)
    batch = sampler.draw(torch.Generator().manual_seed(0))
    inner = batch.allowed[:, 20:-20, 20:-20]
    assert (inner != 0).flatten(1).any(1).all()
    assert ((inner == 2).flatten(1).any(1)).float().mean() > 0.3


def test_with_a_margin_a_rare_class_still_lies_within_it():
    allowed = torch.ones(800, 800, dtype=torch.uint8)
    allowed[400:416, 400:416] = 2
    memory = MemorySource(torch.full((1, 800, 800), 500), allowed)
    labelled = LabelledScene.index("a", memory, (True,), site="a")
    sampler = WindowSampler([labelled], size=120, batch=64, zoom=(0.7, 1.4), margin=44)
    batch = sampler.draw(torch.Generator().manual_seed(0))
    inner = (batch.allowed[:, 44:-44, 44:-44] == 2).flatten(1).any(1)
    assert 0.35 < inner.float().mean() < 0.65


def test_scenes_of_one_place_are_one_site(tmp_path):
    near, far = Affine(10, 0, 500900, 0, -10, 4000000), Affine(10, 0, 540000, 0, -10, 4000000)
    for name, options in (
        ("a1", {}), ("a2", {"transform": near}), ("b", {"transform": far}), ("c", {"crs": None})
    ):  # fmt: skip
        scene(tmp_path, name, **options)
    with pytest.warns(GeounetWarning):
        scenes = [open_scene(tmp_path / f"{name}.tif") for name in ("a1", "a2", "b", "c")]
    assert sites_of(scenes) == ("a1", "a1", "b", "c")
    assert sites_of(scenes, "^([abc])") == ("a", "a", "b", "c")
    with pytest.raises(ConfigError, match="c does not"):
        sites_of(scenes, "^[ab]")
    with pytest.raises(ConfigError, match="regular expression"):
        sites_of(scenes, "(")


def test_sites_at_the_antimeridian():
    """Three that meet there, in two zones and in degrees, and one far from them as far south."""
    places = {
        "west": (32760, Affine(10, 0, 810_000, 0, -10, 8_000_000)),
        "east": (32701, Affine(10, 0, 180_000, 0, -10, 8_000_000)),
        "whole": (4326, Affine(1e-4, 0, 179.9, 0, -1e-4, -18.05)),
        "far": (32738, Affine(10, 0, 500_000, 0, -10, 8_000_000)),
    }
    scenes = [
        SimpleNamespace(stem=name, grid=Grid(CRS.from_epsg(code), transform, 3000, 3000))
        for name, (code, transform) in places.items()
    ]
    assert sites_of(scenes) == ("west", "west", "west", "far")


@pytest.mark.parametrize(
    ("sites", "share", "kept"), [("aabc", 0.4, 1), ("abcdefghij", 0.3, 3), ("ab", 0.01, 1),
                                 ("ab", 0.99, 1), ("aaa", 0.5, 0), ("abc", 0, 0)]
)  # fmt: skip
def test_sites_kept_back(sites, share, kept):
    chosen = keep_back(list(sites), share, seed=3)
    assert len(chosen) == kept
    assert chosen <= set(sites)
    assert chosen == keep_back(list(sites), share, seed=3)


def test_folds_part_the_sites():
    sites = [name for name in "abcdefg" for _ in range(2)]
    folds = [keep_back(sites, 0.2, 3, (number, 3)) for number in (1, 2, 3)]
    assert sorted(len(fold) for fold in folds) == [2, 2, 3]
    assert frozenset.union(*folds) == set("abcdefg")
    assert folds != [keep_back(sites, 0.2, 4, (number, 3)) for number in (1, 2, 3)]
    with pytest.raises(ConfigError, match="there are 7 for 8 folds"):
        keep_back(sites, 0.2, 3, (1, 8))


def test_reflectance_needs_scale_and_offset(tmp_path):
    found = pair(tmp_path)
    radiometry = Radiometry((1e-4,) * 4, (-0.1,) * 4, "told")
    inputs = Inputs(read=(1,), take=(0,), gain=radiometry.scale[:1], bias=radiometry.offset[:1])
    source = SceneSource(found.scene, inputs, open_labels(found, LabelRules()))
    pixels, _ = source.read(0, 0, 40, 50)
    with rasterio.open(tmp_path / "a.tif") as file:
        expected = np.maximum(file.read(2) * 1e-4 - 0.1, 1e-4)
    expected[:3, :5] = 0
    np.testing.assert_allclose(pixels[0].numpy(), expected, rtol=1e-4)

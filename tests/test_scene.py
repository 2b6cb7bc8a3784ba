import pickle
import re
import shutil
import threading
import warnings
from contextlib import contextmanager
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

import geounet
from geounet import scene as scene_module
from geounet.errors import ConfigError, GeounetWarning, SceneError
from geounet.products import Layer, stack
from geounet.products.raster import acquisition_time
from geounet.scene import Grid, Scene, observed, open_scene
from geounet.tiling import Window

GRN = ("green", "red", "nir")
TOLD = {"descriptions": GRN, "scale": 1e-4}


def _numbers(height=37, width=29, bands=3, dtype=np.uint16):
    random = np.random.default_rng(height * 1009 + width)
    return random.integers(1, 9000, (bands, height, width)).astype(dtype)


def _read(scene, window=None, indexes=(0, 1, 2), **options):
    with scene.open(**options) as reader:
        return reader.read(window or Window(0, 0, *scene.grid.shape), indexes)


# -- what the file says ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32629", Affine(10, 0, 499_980, 0, -10, 4_400_040)),
        ("EPSG:4326", Affine(1e-4, 0, -8.123456789, 0, -1e-4, 39.987654321)),
        ("EPSG:3857", Affine(30, 0, -1e6, 0, -30, 5e6)),
        ("EPSG:32733", Affine(10, 0, 3e5, 0, 10, 7e6)),  # rows go north
        ("EPSG:32629", Affine(7.5, 3.25, 5e5, 2.75, -8.5, 4.4e6)),  # rotated and sheared
    ],
)
def test_crs_and_transform_are_kept_exactly(make_raster, crs, transform):
    scene = open_scene(make_raster(_numbers(), crs=crs, transform=transform, **TOLD))
    assert scene.grid == Grid(CRS.from_string(crs), transform, 29, 37)
    assert scene.grid.shape == (37, 29)


def test_a_scene_and_a_model_show_themselves_in_a_line(make_raster):
    scene = open_scene(make_raster(_numbers(), **TOLD))
    assert repr(scene) == f"<Scene {scene.uri}: 29 x 37 pixels, EPSG:32629; green, red, nir>"
    assert re.fullmatch(r"<Model default \S+: B02, .*; sha256 \w{12}>", repr(geounet.load_model()))


def test_a_file_with_ground_control_points_alone_is_told_so(tmp_path):
    corners = [(0, 0), (0, 9), (9, 0), (9, 9)]
    points = [GroundControlPoint(r, c, 5e5 + 10 * c, 4e6 - 10 * r) for r, c in corners]
    shape = {"count": 3, "height": 9, "width": 9, "dtype": "uint16"}
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", gcps=points, crs="EPSG:32629", **shape
    ) as file:
        file.write(_numbers(9, 9))
        file.descriptions, file.scales = GRN, (1e-4,) * 3
    alone = r"a.tif is placed by ground control points alone.*a pixel as 1 m2"
    with pytest.warns(GeounetWarning, match=alone):
        assert open_scene(tmp_path / "a.tif").grid.crs is None


def test_a_file_without_a_crs_works_and_warns(make_raster):
    path = make_raster(_numbers(), crs=None, **TOLD)
    with pytest.warns(GeounetWarning, match=r"scene.tif has no CRS.*a pixel as 100 m2, its"):
        scene = open_scene(path)
    assert scene.grid.crs is None
    assert np.array_equal(_read(scene).dn, _numbers())


@pytest.mark.parametrize(
    ("tags", "time"),
    [
        ({"ACQUISITION_DATETIME": "2023-05-01T10:50:31Z"}, "2023-05-01T10:50:31Z"),
        ({"TIFFTAG_DATETIME": "2023:05:01 10:50:31"}, "2023-05-01T10:50:31"),
        ({"DATE_ACQUIRED": "2023-05-01", "TIFFTAG_DATETIME": "2024:01:01 00:00:00"}, "2023-05-01"),
        ({"ACQUISITION_DATE": "last summer"}, None),
        ({}, None),
    ],
)
def test_when_a_scene_was_taken(make_raster, tags, time):
    path = make_raster(_numbers(), **TOLD)
    with rasterio.open(path, "r+") as file:
        file.update_tags(**tags)
    assert acquisition_time(path) == open_scene(path).product.acquired == time


def test_radiometry_that_nothing_states_warns(make_raster):
    path = make_raster(_numbers(), descriptions=GRN)
    with pytest.warns(GeounetWarning, match=r"uint16 taken as reflectance x 10000.*--scale"):
        scene = open_scene(path)
    assert scene.radiometry.assumed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = open_scene(path, scale=1e-4, offset=-0.1)
    assert told.radiometry.offset == (-0.1,) * 3
    assert not told.radiometry.assumed


def test_scale_and_offset_come_from_the_tags(make_raster):
    path = make_raster(_numbers(), descriptions=GRN, scale=2.75e-5, offset=-0.2)
    scene = open_scene(path)
    assert scene.radiometry.scale == (2.75e-5,) * 3
    assert scene.radiometry.offset == (-0.2,) * 3


def test_what_else_is_known_before_a_pixel_is_read(make_raster):
    path = make_raster(
        _numbers(80, 90, 4), name="a.b.tif", descriptions=(*GRN, "QA"), scale=1e-4, nodata=0,
        tiled=True, blockxsize=32, blockysize=16,
    )  # fmt: skip
    scene = open_scene(path)
    assert scene.stem == "a.b"
    assert scene.uri == str(path)
    assert scene.bands == (*GRN, "QA")
    assert (scene.dtype, scene.nodata, scene.alpha, scene.block) == ("uint16", 0, 0, (16, 32))
    assert open_scene(path, nodata=7).nodata == 7
    for never in (70_000, -1, 0.5, float("nan")):
        with pytest.raises(ConfigError, match=f"a pixel can hold; got {never:g}.*uint16"):
            open_scene(path, nodata=never)
    assert open_scene(path, bands=("nir", "-", "B04", "-")).bands == ("nir", "-", "red", "-")


def test_opening_reads_no_pixels(make_raster, monkeypatch):
    path = make_raster(_numbers(), **TOLD)

    def refuse(*_, **__):
        pytest.fail("open_scene reads pixels")

    monkeypatch.setattr(scene_module.SceneReader, "read", refuse)
    assert open_scene(path).bands == GRN


def test_a_scene_can_be_pickled_and_holds_no_handle(make_raster):
    """Invariant 10: handles are never pickled; what is pickled opens its own."""
    scene = open_scene(make_raster(_numbers(), **TOLD))
    with scene.open():
        again = pickle.loads(pickle.dumps(scene))
    assert again == scene
    assert np.array_equal(_read(again).dn, _numbers())


def test_each_thread_opens_its_own_handle(make_raster, monkeypatch):
    """Invariant 10: one rasterio handle per thread."""
    scene = open_scene(make_raster(_numbers(), **TOLD))
    handles = []
    opened = rasterio.open

    def spy(*path):
        handles.append((threading.get_ident(), opened(*path)))
        return handles[-1][1]

    monkeypatch.setattr(rasterio, "open", spy)
    both_open = threading.Barrier(2)

    def read():
        with scene.open():
            both_open.wait(timeout=30)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (one, first), (two, second) = handles
    assert one != two
    assert first is not second
    assert first.closed
    assert second.closed


# -- what was observed -----------------------------------------------------------------------------


def _stack(*pixels, dtype=np.uint16):
    """One row of pixels, each given as its numbers in every band."""
    return np.array(pixels, dtype).T[:, None, :]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("dn", "nodata", "valid"),
    [
        (_stack((1, 2, 3), (0, 0, 0), (0, 0, 5)), None, [1, 0, 1]),
        # nodata 0 with one dark band: only all bands together say that nothing was seen
        (_stack((1, 2, 0), (0, 0, 0), (0, 4, 5)), 0, [1, 0, 1]),
        # any other nodata value counts in any band; all zero never is an observation
        (_stack((1, 2, 7), (7, 7, 7), (0, 0, 0), (6, 6, 6)), 7, [0, 0, 0, 1]),
        (_stack((1, 2, 3), (-9999,) * 3, (5, -9999, 5), (-1, 0, 0), dtype=np.int16), -9999,
         [1, 0, 0, 1]),
        (_stack((1, 2, 3), (65535,) * 3, (0, 1, 65535)), 65535, [1, 0, 0]),
        # a nodata value that the type cannot hold never occurs
        (_stack((1, 2, 3), (0, 0, 1)), -9999, [1, 1]),
        (_stack((1, 2, 3), (0, 0, 1)), NAN, [1, 1]),
        (_stack((0.1, 0.2, 0.3), (NAN,) * 3, (0.1, NAN, 0.3), (0, 0, 0), dtype=np.float32), None,
         [1, 0, 0, 0]),
        (_stack((0.1, 0.2, 0.3), (NAN,) * 3, (0.1, 0.2, NAN), dtype=np.float32), NAN, [1, 0, 0]),
        (_stack((0.1, 0.2, 0.3), (INF,) * 3, (0.1, -INF, 0.3), dtype=np.float32), None, [1, 0, 0]),
        (_stack((0.1, 0.2, 0.3), (-9999,) * 3, (-0.1, 0.2, 0.3), dtype=np.float32), -9999,
         [1, 0, 1]),
        (_stack((0.1, 0.2), (-3.4028234663852886e38,) * 2, dtype=np.float32),
         -3.4028234663852886e38, [1, 0]),
        (_stack((0.1, 0.2), (NAN, NAN), dtype=np.float64), None, [1, 0]),
        (_stack((0,), (5,)), None, [0, 1]),
    ],
)  # fmt: skip
def test_observed(dn, nodata, valid):
    """Invariant 4: what was not observed is told apart before anything is predicted."""
    assert observed(dn, nodata).tolist() == [[bool(v) for v in valid]]


def test_nodata_of_the_file_reaches_the_pixels(make_raster):
    dn = _numbers()
    dn[:, 3, 4] = 0
    dn[1, 5, 6] = 60_000
    scene = open_scene(make_raster(dn, nodata=60_000, **TOLD))
    expected = np.ones((37, 29), bool)
    expected[3, 4] = expected[5, 6] = False
    assert np.array_equal(_read(scene).valid, expected)


def test_an_internal_mask_is_heeded(make_raster):
    mask = np.full((37, 29), 255, np.uint8)
    mask[10:20, 5:9] = 0
    scene = open_scene(make_raster(_numbers(), mask=mask, **TOLD))
    assert np.array_equal(_read(scene).valid, mask > 0)
    part = _read(scene, Window(8, 3, 10, 11))
    assert np.array_equal(part.valid, mask[8:18, 3:14] > 0)


def test_an_alpha_band_is_a_mask_and_no_band(make_raster):
    dn = _numbers(bands=4)
    dn[3] = 65535
    dn[3, :, 7] = 0
    path = make_raster(dn, descriptions=(*GRN, None), scale=1e-4, alpha=True)
    scene = open_scene(path)
    assert scene.bands == (*GRN, "-")
    assert np.array_equal(_read(scene).valid, dn[3] > 0)


def test_an_alpha_band_beside_nodata_and_a_mask(make_raster):
    """GDAL makes a mask of one of the three; each says of pixels that they were not observed."""
    dn = _numbers(bands=4)
    dn[3] = 65535
    dn[3, :, 7] = 0
    dn[:3, 4] = 9
    mask = np.full((37, 29), 255, np.uint8)
    mask[20] = 0
    options = {"descriptions": (*GRN, None), "scale": 1e-4, "alpha": True, "nodata": 9}
    expected = (dn[3] > 0) & (dn[0] != 9)
    assert np.array_equal(_read(open_scene(make_raster(dn, **options))).valid, expected)
    path = make_raster(dn, "masked.tif", mask=mask, **options)
    assert np.array_equal(_read(open_scene(path)).valid, expected & (mask > 0))


def _virtual(path, files, *, masked=False):
    """A VRT of single-band files, each with its own nodata or mask, as gdalbuildvrt makes it."""
    root = ET.Element("VRTDataset", rasterXSize="29", rasterYSize="37")
    ET.SubElement(root, "SRS").text = "EPSG:32629"
    for i, file in enumerate(files, start=1):
        band = ET.SubElement(root, "VRTRasterBand", dataType="UInt16", band=str(i))
        ET.SubElement(band, "Description").text = GRN[i - 1]
        sources = {"1": band}
        if masked:
            mask = ET.SubElement(band, "MaskBand")
            sources["mask,1"] = ET.SubElement(mask, "VRTRasterBand", dataType="Byte")
        with rasterio.open(file) as source:
            if source.nodata is not None:
                ET.SubElement(band, "NoDataValue").text = str(source.nodata)
        for number, parent in sources.items():
            part = ET.SubElement(parent, "SimpleSource")
            ET.SubElement(part, "SourceFilename").text = str(file)
            ET.SubElement(part, "SourceBand").text = number
    path.write_bytes(ET.tostring(root))
    return path


def test_masks_of_bands_of_their_own_are_heeded(make_raster, tmp_path):
    """Of the bands that are read alone, as nodata is."""
    masks = np.full((3, 37, 29), 255, np.uint8)
    masks[0, 3], masks[1, :, 5], masks[2, 30:] = 0, 0, 0
    numbers = _numbers()
    files = [make_raster(numbers[[i]], f"{i}.tif", mask=masks[i]) for i in range(3)]
    scene = open_scene(_virtual(tmp_path / "all.vrt", files, masked=True), scale=1e-4, offset=0)
    assert np.array_equal(_read(scene).valid, (masks > 0).all(axis=0))
    with scene.open() as reader:
        one = reader.read(Window(2, 3, 10, 11), [1])
    assert np.array_equal(one.valid, masks[1, 2:12, 3:14] > 0)


def test_bands_of_several_nodata_values_are_refused(make_raster, tmp_path):
    numbers = _numbers()
    files = [make_raster(numbers[[i]], f"{i}.tif", nodata=i or None) for i in range(3)]
    with pytest.raises(SceneError, match=r"one nodata value; .*all\.vrt has 2: 1, 3: 2"):
        open_scene(_virtual(tmp_path / "all.vrt", files), scale=1e-4)
    with pytest.raises(SceneError, match=r"one nodata value; .* has 1: 1, 2: 2"):
        stack([Layer(str(file), 1, file.stem) for file in files])
    assert (
        open_scene(_virtual(tmp_path / "two.vrt", [*files[:2], files[1]]), scale=1e-4).nodata == 1
    )


@pytest.mark.parametrize(
    ("name", "descriptions", "told"),
    [
        ("m_4212362_sw_10_060_20220717.tif", (), None),
        ("x.tif", ("red", "green", "blue", "nir"), None),
        ("x.tif", (), ("red", "green", "blue", "nir")),
    ],
)
def test_near_infrared_that_goes_as_alpha_is_a_band(make_raster, name, descriptions, told):
    """GDAL calls the fourth of four bands alpha where nobody says what it is."""
    dn = _numbers(bands=4)
    dn[3, :, 7] = 0
    path = make_raster(dn, name, descriptions=descriptions, alpha=True, scale=1e-4)
    scene = open_scene(path, bands=told)
    assert scene.bands == ("red", "green", "blue", "nir")
    assert _read(scene).valid.all()


def test_naip_is_refused_by_its_name_with_what_to_do(make_raster):
    path = make_raster(np.ones((4, 5, 6), np.uint8), "m_4212362_sw_10_060_20220717.tif")
    with pytest.raises(SceneError, match=r"m_4212362\S+\.tif: pixels must be.*NAIP.*--scale"):
        open_scene(path)
    assert open_scene(path, scale=0.004).bands == ("red", "green", "blue", "nir")


def test_an_alpha_band_does_not_count_when_the_number_of_bands_decides(make_raster):
    """Twelve bands and alpha are L2A with a mask, not the thirteen bands of L1C."""
    scene = open_scene(make_raster(_numbers(bands=13), scale=1e-4, alpha=True))
    assert scene.bands == (*geounet.sensors.name_bands(12), "-")
    six = open_scene(make_raster(_numbers(bands=7), "six.tif", scale=1e-4, alpha=True))
    assert six.bands == ("blue", "green", "red", "nir", "swir16", "swir22", "-")


# -- pixels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (17, 23), (300, 257)])
def test_every_window_is_the_arrays_slice(make_raster, shape):
    dn = _numbers(*shape)
    scene = open_scene(make_raster(dn, **TOLD))
    random = np.random.default_rng(1)
    with scene.open() as reader:
        for _ in range(10):
            rows = np.sort(random.integers(0, shape[0] + 1, 2))
            cols = np.sort(random.integers(0, shape[1] + 1, 2))
            row, col = min(rows[0], shape[0] - 1), min(cols[0], shape[1] - 1)
            window = Window(row, col, max(rows[1] - row, 1), max(cols[1] - col, 1))
            tile = reader.read(window, (2, 0))
            expected = dn[[2, 0], row : row + window.height, col : col + window.width]
            assert tile.window == window
            assert np.array_equal(tile.dn, expected)
            assert tile.valid.all()


def test_reading_into_part_of_an_array(make_raster):
    """A slice of a larger array is filled in place: rows that are held already are not moved."""
    dn = _numbers()
    scene = open_scene(make_raster(dn, **TOLD))
    larger = np.zeros((2, 20, 29), np.uint16)
    with scene.open() as reader:
        tile = reader.read(Window(4, 0, 15, 29), (0, 2), out=larger[:, 5:])
    assert np.array_equal(larger[:, 5:], dn[[0, 2], 4:19])
    assert not larger[:, :5].any()
    assert np.shares_memory(tile.dn, larger)


LAYOUTS = {
    "pixel interleaved": {"interleave": "pixel"},
    "striped": {"tiled": False, "blockysize": 1, "interleave": "band"},
    "tiled": {"tiled": True, "blockxsize": 64, "blockysize": 32, "interleave": "band"},
    "deflate": {"compress": "deflate", "predictor": 2},
    "lzw tiled": {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "lzw"},
    "big endian": {"endianness": "big"},
}


@pytest.mark.parametrize("layout", [*LAYOUTS, "vrt", "cog"])
def test_the_layout_of_the_file_does_not_matter(make_raster, tmp_path, layout):
    dn = _numbers(150, 131)
    dn[:, 40:50, 60:] = 0
    path = make_raster(dn, nodata=0, **TOLD, **LAYOUTS.get(layout, {}))
    if layout in {"vrt", "cog"}:
        copy = tmp_path / f"copy.{'vrt' if layout == 'vrt' else 'tif'}"
        rasterio.shutil.copy(path, copy, driver=layout.upper())
        path = copy
    scene = open_scene(path)
    assert scene.bands == GRN
    assert scene.radiometry.scale == (1e-4,) * 3
    assert np.array_equal(_read(scene).dn, dn)
    part = _read(scene, Window(33, 21, 60, 70))
    assert np.array_equal(part.dn, dn[:, 33:93, 21:91])
    assert np.array_equal(part.valid, (dn != 0).any(0)[33:93, 21:91])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "float32"])
def test_numbers_come_as_stored(make_raster, dtype):
    dn = _numbers(dtype=np.dtype(dtype))
    tile = _read(open_scene(make_raster(dn, **TOLD)))
    assert tile.dn.dtype == np.dtype(dtype)
    assert np.array_equal(tile.dn, dn)


def test_reflectance(make_raster):
    dn = _numbers()
    dn[:, 2, 3] = 0
    scene = open_scene(make_raster(dn, descriptions=GRN, scale=2e-4, offset=-0.1))
    made = scene.reflectance(("nir", "green"), Window(1, 2, 5, 6))
    expected = dn[[2, 0], 1:6, 2:8] * 2e-4 - 0.1
    expected[:, 1, 1] = np.nan
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected, atol=1e-6)
    assert scene.reflectance(("red",)).shape == (1, 37, 29)
    with pytest.raises(SceneError, match=r"lacks swir16, blue; it has green, red, nir"):
        scene.reflectance(("swir16", "green", "blue"))


# -- areas -----------------------------------------------------------------------------------------


def _cell_area(grid, row):
    """The ellipsoid's area of the middle column's pixel, its sides cut into 20 parts each."""
    side = np.linspace(0, 1, 21)[:-1]
    zero, one = np.zeros(20), np.ones(20)
    cols = grid.width / 2 - 0.5 + np.concatenate([side, one, 1 - side, zero])
    rows = row + np.concatenate([zero, side, one, 1 - side])
    a, b, c, d, e, f, *_ = grid.transform
    x, y = a * cols + b * rows + c, d * cols + e * rows + f
    lonlat = pyproj.Transformer.from_crs(grid.crs.to_wkt(), "EPSG:4326", always_xy=True)
    lon, lat = lonlat.transform(x, y)
    return abs(pyproj.Geod(ellps="WGS84").polygon_area_perimeter(lon, lat)[0])


@pytest.mark.parametrize(
    ("crs", "transform", "roughly"),
    [
        ("EPSG:32629", Affine(10, 0, 500_000, 0, -10, 4_400_000), 100),
        ("EPSG:32629", Affine(10, 0, 100_000, 0, -10, 4_400_000), 100),
        ("EPSG:4326", Affine(1e-3, 0, 10, 0, -1e-3, 60), 111_000**2 * 1e-6 / 2),
        ("EPSG:4326", Affine(1e-2, 0, 10, 0, -1e-2, 75), 111_000**2 * 1e-4 / 3),
        ("EPSG:3857", Affine(30, 0, 1e6, 0, -30, 8.4e6), 900 / 4),
        ("EPSG:3857", Affine(200, 50, 1e6, 40, -200, 8.4e6), (4e4 + 2e3) / 4),
        ("EPSG:32629", Affine(7, 3, 5e5, 2, -9, 4.4e6), 69),
        ("EPSG:2263", Affine(30, 0, 980_000, 0, -30, 200_000), 900 * 0.3048**2),  # feet
    ],
)
def test_pixel_areas_against_the_ellipsoid(crs, transform, roughly):
    grid = Grid(CRS.from_string(crs), transform, 50, 400)
    areas = grid.pixel_areas()
    assert areas.shape == (400,)
    for row in (0, 5, 123, 399):
        assert areas[row] == pytest.approx(_cell_area(grid, row), rel=1e-5)
    assert areas[0] == pytest.approx(roughly, rel=0.25)


def test_pixel_areas_of_a_crs_whose_longitudes_are_in_grads():
    """NTF (Paris) / Lambert zone II: its scale is 0.99987742 on the standard parallel."""
    grid = Grid(CRS.from_epsg(27572), Affine(10, 0, 600_000, 0, -10, 2_200_000), 4, 4)
    assert grid.pixel_areas() == pytest.approx(100 / 0.99987742**2, rel=1e-6)


def test_a_whole_zone_of_latitude_has_the_ellipsoids_area():
    """Rows from 40 to 41 degrees north summed up, against one polygon along both parallels."""
    grid = Grid(CRS.from_epsg(4326), Affine(1e-3, 0, 0, 0, -1e-3, 41), 1000, 1000)
    lon = np.concatenate([np.linspace(0, 1, 2001), np.linspace(1, 0, 2001)])
    lat = np.repeat([41.0, 40.0], 2001)
    whole = abs(pyproj.Geod(ellps="WGS84").polygon_area_perimeter(lon, lat)[0])
    assert grid.pixel_areas().sum() * 1000 == pytest.approx(whole, rel=1e-5)


def test_without_a_crs_units_are_metres():
    areas = Grid(None, Affine(2, 1, 0, 1, -3, 0), 5, 4).pixel_areas()
    assert areas.tolist() == [7.0] * 4


def test_a_local_crs_has_no_ellipsoid():
    """An engineering CRS says nothing of the Earth; its units do."""
    crs = CRS.from_wkt('LOCAL_CS["site",UNIT["foot",0.3048]]')
    areas = Grid(crs, Affine(2, 0, 0, 0, -2, 0), 5, 4).pixel_areas()
    np.testing.assert_allclose(areas, 4 * 0.3048**2)


@pytest.mark.parametrize("height", [1, 2, 33, 34])
def test_low_scenes_have_areas(height):
    grid = Grid(CRS.from_epsg(4326), Affine(0.1, 0, 0, 0, -0.1, 60), 1, height)
    areas = grid.pixel_areas()
    assert areas.shape == (height,)
    assert areas[-1] == pytest.approx(_cell_area(grid, height - 1), rel=1e-5)


def test_areas_of_a_scene_far_from_its_zones_middle():
    """UTM's scale is not 1: a 10 m pixel 400 km off the central meridian is not 100 m2."""
    crs = CRS.from_epsg(32629)
    area = Grid(crs, Affine(10, 0, 900_000, 0, -10, 4_400_000), 2, 2).pixel_areas()[0]
    factors = pyproj.Proj("EPSG:32629").get_factors(
        *pyproj.Transformer.from_crs(32629, 4326, always_xy=True).transform(900_010, 4_399_995)
    )
    assert abs(area - 100) > 0.2
    assert area == pytest.approx(100 / factors.areal_scale, rel=1e-6)


def test_rows_beyond_the_pole_have_no_area():
    grid = Grid(CRS.from_epsg(4326), Affine(0.1, 0, 0, 0, -0.1, 90.2), 4, 6)
    areas = grid.pixel_areas()
    assert areas[:2].tolist() == [0, 0]
    for row in (2, 3, 5):
        assert areas[row] == pytest.approx(_cell_area(grid, row), rel=1e-5)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [(10, 0, 0, 0, 0, 0), (10, 0, float("nan"), 0, -10, 0)])
def test_a_transform_gives_each_pixel_its_place(make_raster, numbers):
    path = make_raster(_numbers(), transform=Affine(*numbers), **TOLD)
    with pytest.raises(SceneError, match=r"transform must .* is 10, 0, .*gdal_edit.py -a_ullr"):
        open_scene(path)


def test_a_geocentric_crs_has_no_pixels(make_raster):
    path = make_raster(_numbers(), crs="EPSG:4978", **TOLD)
    with pytest.raises(SceneError, match=r"map's or in longitude.*geocentric WGS 84.*-a_srs"):
        open_scene(path)


def test_a_missing_file():
    with pytest.raises(SceneError, match=r"a scene must exist: there is no nowhere/x\.tif"):
        open_scene("nowhere/x.tif")


@pytest.mark.parametrize("content", [b"", b"no raster at all\n", b"II*\x00\x08\x00\x00\x00"])
def test_not_a_raster(tmp_path, content):
    path = tmp_path / "notes.tif"
    path.write_bytes(content)
    with pytest.raises(
        SceneError, match=r"must be a raster that GDAL opens; .*notes\.tif is none: "
    ):
        open_scene(path)


def test_a_file_of_several_rasters(make_raster):
    """As HDF5 and GeoPackages may be; one of them is a scene."""
    kind = {"driver": "GPKG", "TILE_FORMAT": "PNG"}
    dn = np.ones((1, 300, 300), np.uint8)
    make_raster(dn, "two.gpkg", RASTER_TABLE="a", **kind)
    path = make_raster(dn, "two.gpkg", RASTER_TABLE="b", APPEND_SUBDATASET="YES", **kind)
    with pytest.raises(SceneError, match=r"must be one raster; .*two\.gpkg holds several.*:b\."):
        open_scene(path)
    with pytest.raises(SceneError, match="which bands these are: 3"):
        open_scene(f"GPKG:{path}:b", scale=0.01)


def test_a_folder(tmp_path):
    with pytest.raises(SceneError, match="must be a raster"):
        open_scene(tmp_path)


def test_a_band_count_that_fits_no_sensor(make_raster):
    with pytest.raises(SceneError, match=r"5 bands.*--bands B02,B03,B04,B08"):
        open_scene(make_raster(_numbers(bands=5), scale=1e-4))


def test_a_picture(make_raster):
    with pytest.raises(SceneError, match="uint8 without a scale is a picture"):
        open_scene(make_raster(_numbers(dtype=np.uint8), descriptions=GRN))


def test_told_bands_that_do_not_fit(make_raster):
    with pytest.raises(ConfigError, match="it has 3, 2 names given"):
        open_scene(make_raster(_numbers(), **TOLD), bands=("B03", "B08"))


def test_bands_of_several_types(make_raster, tmp_path):
    one = make_raster(_numbers(bands=1), "one.tif")
    two = make_raster(_numbers(bands=1, dtype=np.float32), "two.tif")
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{i}"><Description>{name}</Description>'
        f"<Scale>0.0001</Scale><SimpleSource><SourceFilename>{path}</SourceFilename>"
        f"<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for i, (kind, name, path) in enumerate(
            [("UInt16", "green", one), ("UInt16", "red", one), ("Float32", "nir", two)], start=1
        )
    )
    vrt = tmp_path / "mixed.vrt"
    vrt.write_text(f'<VRTDataset rasterXSize="29" rasterYSize="37">{bands}</VRTDataset>')
    with pytest.raises(SceneError, match=r"one type; .*mixed\.vrt has float32, uint16"):
        open_scene(vrt)


def test_complex_numbers(make_raster):
    with pytest.raises(SceneError, match="complex64"):
        open_scene(make_raster(_numbers().astype(np.complex64), **TOLD))


def test_a_truncated_file_is_reported_when_its_rows_are_read(make_raster):
    path = make_raster(_numbers(400, 300), tiled=False, blockysize=1, compress="deflate", **TOLD)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    # A TIFF whose directory lies at its end cannot be opened at all; both ways are one error.
    with pytest.raises(SceneError, match=r"scene\.tif"):
        _read(open_scene(path))


def test_a_damaged_block_names_the_rows(make_raster, tmp_path):
    path = make_raster(_numbers(400, 300), compress="deflate", **TOLD)
    copy = tmp_path / "cog.tif"
    rasterio.shutil.copy(path, copy, driver="COG")
    shutil.copyfile(copy, tmp_path / "cut.tif")
    with (tmp_path / "cut.tif").open("r+b") as file:
        file.truncate(copy.stat().st_size * 3 // 4)
    scene = open_scene(tmp_path / "cut.tif")
    with pytest.raises(SceneError, match=r"cannot read rows 0 to 400 of .*cut\.tif.*truncated"):
        _read(scene)


def test_a_file_that_goes_away(make_raster):
    path = make_raster(_numbers(), **TOLD)
    scene = open_scene(path)
    path.unlink()
    with pytest.raises(SceneError, match="there is no"):
        _read(scene)


# -- sensor and radiometry -------------------------------------------------------------------------


def test_bands_that_several_sensors_have_are_settled_by_the_sensor(make_raster):
    """B1 to B7 of Landsat were once read as Sentinel-2's."""
    path = make_raster(_numbers(8, 8, 7), descriptions=[f"B{i}" for i in range(1, 8)], scale=1e-4)
    with pytest.raises(SceneError, match=r"may be those of .*--sensor"):
        open_scene(path)
    scene = open_scene(path, sensor="landsat-8")
    assert scene.bands == ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")
    assert scene.product.sensor == scene.product.evidence.sensor == "landsat-8"
    assert open_scene(path, sensor="landsat-5").bands[3:5] == ("nir08", "swir16")
    with pytest.raises(ConfigError, match=r"--sensor must be one of .*got spot-5"):
        open_scene(path, sensor="spot-5")


def test_what_speaks_of_two_sensors_is_refused_until_one_is_told(make_raster):
    name = "LC08_L2SP_017051_20151205_20200908_02_T1.tif"
    path = make_raster(_numbers(), name=name, descriptions=("B03", "B04", "B8A"), scale=1e-4)
    with pytest.raises(SceneError, match="landsat-8, which has no band B8A"):
        open_scene(path)
    assert open_scene(path, sensor="sentinel-2").bands == ("green", "red", "nir08")
    assert open_scene(path, bands=("green", "red", "nir")).bands == ("green", "red", "nir")


def test_a_name_with_its_baseline_is_evidence(make_raster):
    name = "S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T164454.tif"
    scene = open_scene(make_raster(_numbers(), name=name, descriptions=("B03", "B04", "B08")))
    assert scene.radiometry.offset == (-0.1,) * 3
    assert scene.radiometry.reason == "scale and offset from the processing baseline 04.00"
    assert (scene.product.sensor, scene.product.level) == ("sentinel-2-l2a", "L2A")


def test_pixels_that_settle_the_radiometry_are_read_at_nine_places_by_one_reader(
    make_raster, monkeypatch
):
    """The archive took the 1000 out, and the name says that it is in."""
    name = "S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T164454.tif"
    numbers = np.random.default_rng(3).integers(20, 3000, (3, 900, 800)).astype(np.uint16)
    path = make_raster(numbers, name=name, descriptions=("B03", "B04", "B08"))
    scene, opened, seen = open_scene(path), [], []
    really = Scene.open

    @contextmanager
    def spied(self):
        opened.append(self)
        with really(self) as reader:
            read = reader.read
            monkeypatch.setattr(reader, "read", lambda w, *rest: seen.append(w) or read(w, *rest))
            yield reader

    monkeypatch.setattr(Scene, "open", spied)
    with pytest.warns(GeounetWarning, match=r"below zero.*scale 0.0001, offset 0 is taken instead"):
        checked = scene.checked()
    assert checked.radiometry.offset == (0.0,) * 3
    assert replace(checked, radiometry=scene.radiometry) == scene
    assert len(opened) == 1
    assert {(w.row, w.col) for w in seen} == {(r, c) for r in (0, 322, 644) for c in (0, 272, 544)}


def test_a_refusal_by_pixels_names_the_scene(make_raster):
    numbers = np.full((3, 40, 40), 40_000, np.uint16)
    scene = open_scene(make_raster(numbers, descriptions=GRN, scale=1e-4))
    with pytest.raises(SceneError, match=r"scene\.tif: reflectance must lie .* median is 4"):
        scene.checked()


def test_what_holds_no_reflectance_is_not_looked_at(make_raster):
    scene = open_scene(make_raster(_numbers(8, 8, 4), descriptions=(*GRN, "QA"), scale=1e-4))
    assert scene.checked((3,)) is scene


def test_the_share_observed_of_a_scene_and_of_its_parts(make_raster, monkeypatch):
    dn = _numbers(40, 60)
    dn[:, :, :15] = 0
    scene = open_scene(make_raster(dn, **TOLD))
    assert scene.share_observed() == 0.75
    assert scene.crop(Window(0, 0, 40, 30)).share_observed() == 0.5
    assert scene.share_observed(side=4) == 0.75
    # a remote scene without overviews would be fetched whole
    monkeypatch.setattr(scene_module.remote, "is_remote", lambda _: True)
    assert scene.share_observed() is None

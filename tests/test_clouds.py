import pickle
import warnings
from dataclasses import replace

import numpy as np
import pyproj
import pytest
from affine import Affine
from rasterio.crs import CRS

import geounet.scene
from geounet.clouds import cloud_layer, obscured, open_clouds
from geounet.errors import ConfigError, GeounetWarning, SceneError
from geounet.mask import mask_writer
from geounet.products import CloudLayer
from geounet.scene import Grid, open_scene
from geounet.tiling import Window

GRN = ("green", "red", "nir")

# -- what the numbers mean -------------------------------------------------------------------------


def test_scene_classes():
    hidden = obscured(np.arange(12, dtype=np.uint8), "scl")
    assert np.flatnonzero(hidden).tolist() == [3, 8, 9, 10, 11]


@pytest.mark.parametrize(
    ("value", "hidden"),
    [
        # what USGS's guide calls these numbers of Landsat 8-9
        (1, False),  # fill
        (21824, False),  # clear with lows set
        (21826, True),  # dilated cloud over land
        (21888, False),  # water with lows set
        (21890, True),  # dilated cloud over water
        (22280, True),  # high confidence cloud
        (23888, True),  # high confidence cloud shadow
        (23952, True),  # water with cloud shadow
        (30048, True),  # high confidence snow or ice
        (54596, True),  # high confidence cirrus
        (55052, True),  # high confidence cirrus and cloud
        (0b0000001000000000, False),  # cloud of medium confidence, which sets no flag
    ],
)
def test_landsats_bits(value, hidden):
    assert obscured(np.array([value], np.uint16), "qa_pixel").tolist() == [hidden]


@pytest.mark.parametrize(
    ("value", "hidden"),
    [
        (0, False),
        (0b00000001, True),  # cirrus
        (0b00000010, True),  # cloud
        (0b00000100, True),  # beside cloud or shadow
        (0b00001000, True),  # shadow
        (0b00010000, True),  # snow or ice
        (0b00100000, False),  # water
        (0b11000000, False),  # much aerosol
        (0b11100000, False),
        (0b11100010, True),
        (255, False),  # fill
    ],
)
def test_hls_bits(value, hidden):
    assert obscured(np.array([value], np.uint8), "fmask").tolist() == [hidden]


@pytest.mark.parametrize(
    ("values", "nodata", "hidden"),
    [
        (np.array([0, 1, 255], np.uint8), None, [0, 1, 1]),
        (np.array([0, 1, 255], np.uint8), 255, [0, 1, 0]),
        (np.array([0, 0.5, np.nan], np.float32), None, [0, 1, 0]),
        (np.array([False, True]), None, [0, 1]),
        (np.array([0, 3, -9999], np.int16), -9999, [0, 1, 0]),
    ],
)
def test_whatever_is_not_zero(values, nodata, hidden):
    assert obscured(values, "nonzero", nodata).tolist() == [bool(h) for h in hidden]


@pytest.mark.parametrize(
    ("rule", "values", "hidden"),
    [("udm2", [0, 1], [True, False]), ("geounet", [0, 1, 2, 255], [False, False, True, False])],
)
def test_masks_of_few_codes(rule, values, hidden):
    assert obscured(np.array(values, np.uint8), rule).tolist() == hidden


def test_bands_of_level_1cs_mask():
    """Opaque cloud, cirrus, snow or ice: one of them is enough."""
    bands = np.array([[1, 0, 0, 0, 1], [0, 1, 0, 0, 1], [0, 0, 1, 0, 0]], np.uint8)
    assert obscured(bands, "classi").tolist() == [True, True, True, False, True]


def test_nodata_says_nothing_whatever_the_rule():
    assert obscured(np.array([8, 9], np.uint8), "scl", 8).tolist() == [False, True]


# -- which rule ------------------------------------------------------------------------------------


def _layer(make_raster, values, name="mask.tif", **options):
    return make_raster(np.asarray(values, options.pop("dtype", np.uint8))[None], name, **options)


@pytest.mark.parametrize(
    ("name", "description", "values", "rule"),
    [
        ("T29TNE_20230501T112119_SCL_20m.tif", None, [[4, 8]], "scl"),
        ("scl.tif", None, [[0, 0]], "scl"),
        ("LC09_L2SP_204032_20230501_02_T1_QA_PIXEL.TIF", None, [[1, 2]], "qa_pixel"),
        ("HLS.S30.T29TNE.2023121T112119.v2.0.Fmask.tif", None, [[0, 2]], "fmask"),
        ("clouds.tif", "SCL", [[4, 8]], "scl"),
        ("clouds.tif", None, [[0, 1]], "nonzero"),
        ("clouds.tif", None, [[0, 255]], "nonzero"),
        ("clouds.tif", None, [[0, 0]], "nonzero"),
        ("clouds.tif", None, [[7, 7]], "nonzero"),
    ],
)
def test_the_rule_is_told_by_name_or_numbers(make_raster, name, description, values, rule):
    path = _layer(make_raster, values, name, descriptions=(description,))
    assert cloud_layer(path) == CloudLayer(str(path), 1, rule)
    assert cloud_layer(path, "fmask").rule == "fmask"


@pytest.mark.parametrize("values", [[[0, 1, 2, 255]], [[0, 1, 0, 1]], [[255] * 4]])
def test_geounets_own_masks_are_known(tmp_path, values):
    """Also one without clouds, whose water a mask of 0 and 1 would hide."""
    codes, path = np.array(values, np.uint8), tmp_path / "after_scl.tif"
    grid = Grid(CRS.from_epsg(32629), Affine(10, 0, 500_000, 0, -10, 4_400_000), 4, 1)
    with mask_writer(path, grid, {"GEOUNET_VERSION": "1"}) as writer:
        writer.write(codes)
    layer = cloud_layer(path)
    assert layer == CloudLayer(str(path), 1, "geounet")
    with open_clouds(layer, grid) as reader:
        assert np.array_equal(reader.read(Window(0, 0, 1, 4)), codes == 2)
    assert cloud_layer(path, "nonzero").rule == "nonzero"


@pytest.mark.parametrize(
    ("name", "rule", "hidden"),
    [
        ("20230415_102437_58_2475_3B_udm2_clip.tif", "udm2", [[True, False, True]]),
        ("T31UFU_MSK_CLASSI_B00.tif", "classi", [[False, True, True]]),
    ],
)
def test_masks_of_many_bands(make_raster, name, rule, hidden):
    dn = np.array([[[0, 1, 0]], [[0, 0, 1]], [[0, 0, 0]]], np.uint8)
    layer = cloud_layer(make_raster(dn, name))
    assert (layer.band, layer.rule) == (1, rule)
    scene = open_scene(make_raster(np.ones((3, 1, 3), np.uint16), scale=1e-4, descriptions=GRN))
    with open_clouds(layer, scene.grid) as reader:
        assert reader.read(Window(0, 0, 1, 3)).tolist() == hidden


def test_a_band_of_the_stack_itself(make_raster):
    """As exported along by Google Earth Engine."""
    dn = np.ones((4, 1, 3), np.uint16)
    dn[3] = 4, 9, 3
    path = make_raster(dn, descriptions=(*GRN, "SCL"), scale=1e-4)
    scene = open_scene(path, cloud_mask="product")
    assert scene.cloud_mask == "scene (scl)"
    assert _hidden(scene).tolist() == [[False, True, True]]


def _gml(*polygons, crs="urn:ogc:def:crs:EPSG:8.7:32629") -> str:
    """As ESA writes it: rings of posList, the outer one first."""
    features = "".join(
        "<eop:MaskFeature><eop:maskType>OPAQUE</eop:maskType><eop:extentOf><gml:Polygon>"
        + "".join(
            f"<gml:{kind}><gml:LinearRing><gml:posList srsDimension='2'>{ring}</gml:posList>"
            f"</gml:LinearRing></gml:{kind}>"
            for kind, ring in zip(("exterior", "interior"), rings, strict=False)
        )
        + "</gml:Polygon></eop:extentOf></eop:MaskFeature>"
        for rings in polygons
    )
    return (
        '<?xml version="1.0"?><eop:Mask xmlns:eop="http://www.opengis.net/eop/2.0" '
        'xmlns:gml="http://www.opengis.net/gml/3.2"><gml:boundedBy>'
        f'<gml:Envelope srsName="{crs}"/></gml:boundedBy>'
        f"<eop:maskMembers>{features}</eop:maskMembers></eop:Mask>"
    )


def _ring(col, row, width, height) -> str:
    corners = [(col, row), (col + width, row), (col + width, row + height), (col, row + height)]
    return " ".join(f"{500_000 + 10 * c} {4_400_000 - 10 * r}" for c, r in [*corners, corners[0]])


def test_polygons_as_old_products_of_level_1c_have_them(make_raster, tmp_path):
    path = tmp_path / "MSK_CLOUDS_B00.gml"
    path.write_text(_gml((_ring(2, 3, 20, 10), _ring(5, 5, 4, 2)), (_ring(60, 70, 5, 5),)))
    expected = np.zeros(SHAPE, bool)
    expected[3:13, 2:22] = True
    expected[5:7, 5:9] = False
    expected[70:75, 60:65] = True
    scene = open_scene(_scene(make_raster), cloud_mask=path)
    assert scene.cloud_mask == "MSK_CLOUDS_B00 (polygons)"
    assert np.array_equal(_hidden(pickle.loads(pickle.dumps(scene))), expected)
    part = scene.crop(Window(4, 3, 30, 30))
    assert np.array_equal(_hidden(part, Window(0, 0, 30, 30)), expected[4:34, 3:33])


def test_polygons_lie_in_their_own_crs(make_raster, tmp_path):
    across = pyproj.Transformer.from_crs(32629, 32630, always_xy=True)
    numbers = np.array(_ring(2, 3, 20, 10).split(), float).reshape(-1, 2)
    moved = " ".join(f"{x} {y}" for x, y in zip(*across.transform(*numbers.T), strict=True))
    path = tmp_path / "MSK_CLOUDS_B00.gml"
    path.write_text(_gml((moved,), crs="urn:ogc:def:crs:EPSG:8.7:32630"))
    expected = np.zeros(SHAPE, bool)
    expected[3:13, 2:22] = True
    assert np.array_equal(_hidden(open_scene(_scene(make_raster), cloud_mask=path)), expected)


def test_a_mask_without_polygons_is_a_clear_sky(make_raster, tmp_path):
    (path := tmp_path / "MSK_CLOUDS_B00.gml").write_text(_gml())
    assert not _hidden(open_scene(_scene(make_raster), cloud_mask=path)).any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_gml((_ring(2, 3, 20, 10),))[:500], "cannot read .*MSK_CLOUDS_B00.gml"),
        (_gml(("1 2 3",)), "cannot read the polygons of .*MSK_CLOUDS_B00.gml"),
        (_gml((_ring(900, 900, 5, 5),)), "MSK_CLOUDS_B00.gml must overlap the scene"),
    ],
)
def test_polygons_that_are_damaged_or_elsewhere(make_raster, tmp_path, content, message):
    (path := tmp_path / "MSK_CLOUDS_B00.gml").write_text(content)
    with pytest.raises(SceneError, match=message):
        open_scene(_scene(make_raster), cloud_mask=path)


def test_numbers_that_may_mean_anything_are_refused(make_raster):
    path = _layer(make_raster, [[0, 1, 2, 3]], "clouds.tif")
    with pytest.raises(
        ConfigError, match=r"clouds.tif mean: 0, 1, 2, 3\. Settle it with --cloud-r"
    ):
        cloud_layer(path)
    assert cloud_layer(path, "nonzero").rule == "nonzero"
    assert cloud_layer(_layer(make_raster, [[0, 1, 9]], "b.tif", nodata=9)).rule == "nonzero"


def test_of_several_bands_the_named_one_is_taken(make_raster):
    dn = np.ones((3, 2, 2), np.uint8)
    named = make_raster(dn, "stack.tif", descriptions=("B02", "SCL", "B04"))
    assert cloud_layer(named) == CloudLayer(str(named), 2, "scl")
    with pytest.raises(ConfigError, match=r"has one band.*other.tif has 3: a, b, c"):
        cloud_layer(make_raster(dn, "other.tif", descriptions=("a", "b", "c")))


def test_what_is_no_raster_is_refused(tmp_path):
    with pytest.raises(SceneError, match=r"a cloud mask must exist: there is no .*none.tif"):
        cloud_layer(tmp_path / "none.tif")


# -- on the scene's pixels -------------------------------------------------------------------------

SHAPE = (90, 120)


def _scene(make_raster, **options):
    dn = np.random.default_rng(1).integers(1, 9000, (3, *SHAPE)).astype(np.uint16)
    return make_raster(dn, descriptions=("green", "red", "nir"), scale=1e-4, **options)


def _hidden(scene, window=None):
    with scene.open_clouds() as read:
        return read(window or Window(0, 0, *scene.grid.shape))


def _random(shape, seed=2):
    return (np.random.default_rng(seed).random(shape) < 0.3).astype(np.uint8)


def test_a_mask_on_the_scenes_grid(make_raster):
    values = _random(SHAPE)
    path, mask = _scene(make_raster), _layer(make_raster, values)
    scene = open_scene(path, cloud_mask=mask)
    assert scene.cloud_mask == "mask (nonzero)"
    assert np.array_equal(_hidden(scene), values == 1)
    assert np.array_equal(_hidden(scene, Window(7, 11, 20, 30)), values[7:27, 11:41] == 1)
    part = scene.crop(Window(5, 9, 40, 50))
    assert np.array_equal(_hidden(part, Window(2, 3, 10, 10)), values[7:17, 12:22] == 1)
    assert open_scene(path).cloud_mask is None
    with open_scene(path).open_clouds() as none:
        assert none is None


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_a_coarser_mask_repeats_its_pixels(make_raster, factor):
    size = 10.0 * factor
    values = _random((SHAPE[0] // factor, SHAPE[1] // factor))
    mask = _layer(make_raster, values, transform=Affine(size, 0, 500_000, 0, -size, 4_400_000))
    scene = open_scene(_scene(make_raster), cloud_mask=mask)
    assert np.array_equal(_hidden(scene), np.kron(values, np.ones((factor, factor))) == 1)


def test_a_finer_or_shifted_mask_gives_what_lies_at_each_centre(make_raster):
    """The other mask's pixels of 7 m begin 33 m up and left."""
    values = _random((200, 200))
    place = Affine(7, 0, 499_967, 0, -7, 4_400_033)
    scene = open_scene(_scene(make_raster), cloud_mask=_layer(make_raster, values, transform=place))
    rows = ((33 + 10 * (np.arange(SHAPE[0]) + 0.5)) // 7).astype(int)
    cols = ((33 + 10 * (np.arange(SHAPE[1]) + 0.5)) // 7).astype(int)
    assert np.array_equal(_hidden(scene), values[np.ix_(rows, cols)] == 1)


def test_a_mask_in_another_crs(make_raster):
    path = _scene(make_raster)
    to_lonlat = pyproj.Transformer.from_crs(32629, 4326, always_xy=True)
    west, north = to_lonlat.transform(499_900, 4_400_100)
    values = _random((400, 400))
    mask = _layer(
        make_raster, values, crs="EPSG:4326", transform=Affine(5e-5, 0, west, 0, -5e-5, north)
    )
    scene = open_scene(path, cloud_mask=mask)
    col, row = np.meshgrid(np.arange(SHAPE[1]) + 0.5, np.arange(SHAPE[0]) + 0.5)
    lon, lat = to_lonlat.transform(500_000 + 10 * col, 4_400_000 - 10 * row)
    expected = values[((north - lat) / 5e-5).astype(int), ((lon - west) / 5e-5).astype(int)] == 1
    whole = _hidden(scene)
    assert np.array_equal(whole, expected)
    strips = [_hidden(scene, Window(top, 0, min(7, 90 - top), 120)) for top in range(0, 90, 7)]
    assert np.array_equal(np.concatenate(strips), whole)


def test_what_a_mask_does_not_cover_is_not_obscured(make_raster):
    values = np.ones((20, 120), np.uint8)
    for nodata in (None, 255):
        mask = _layer(make_raster, values, f"{nodata}.tif", nodata=nodata)
        with pytest.warns(GeounetWarning, match=r"covers 22.2% of the scene; elsewhere nothing"):
            scene = open_scene(_scene(make_raster), cloud_mask=mask)
        assert np.array_equal(_hidden(scene).all(axis=1), np.arange(90) < 20)
        assert not _hidden(scene)[20:].any()


def test_beyond_a_mask_that_calls_0_hidden_nothing_is(make_raster):
    clear = np.ones((20, 120), np.uint8)
    clear[3] = 0
    mask = make_raster(clear[None], "x_udm2.tif")
    with pytest.warns(GeounetWarning, match="elsewhere nothing is taken for obscured"):
        scene = open_scene(_scene(make_raster), cloud_mask=mask)
    assert np.flatnonzero(_hidden(scene).any(axis=1)).tolist() == [3]


@pytest.mark.parametrize("rows", [89, 90])
def test_a_mask_that_lacks_a_row_is_told(make_raster, rows):
    mask = _layer(make_raster, np.ones((rows, 120), np.uint8))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_scene(_scene(make_raster), cloud_mask=mask)
    assert ["covers 98.9%" in str(w.message) for w in caught] == [True] * (rows < 90)


def test_a_mask_elsewhere_is_refused(make_raster):
    path = _scene(make_raster)
    far = _layer(make_raster, [[1]], transform=Affine(10, 0, 600_000, 0, -10, 4_400_000))
    with pytest.raises(
        SceneError, match=r"the cloud mask .*mask.tif must overlap the scene; it cov"
    ):
        open_scene(path, cloud_mask=far)


def test_without_a_crs_sizes_must_agree(make_raster):
    values = _random(SHAPE)
    mask = _layer(make_raster, values, crs=None, transform=Affine.identity())
    assert np.array_equal(_hidden(open_scene(_scene(make_raster), cloud_mask=mask)), values == 1)
    small = _layer(make_raster, values[1:], "small.tif", crs=None, transform=Affine.identity())
    with pytest.raises(SceneError, match=r"have 120 x 89 and 120 x 90 pixels"):
        open_scene(_scene(make_raster), cloud_mask=small)


def test_the_products_own_layer(make_raster, monkeypatch):
    path = _scene(make_raster)
    with pytest.raises(
        ConfigError, match=r"takes the product's own; .*scene.tif \(raster\) has none"
    ):
        open_scene(path, cloud_mask="product")
    values = np.full(SHAPE, 4)
    values[3:9] = 9
    layer = CloudLayer(str(_layer(make_raster, values, "classes.tif")), 1, "scl")
    found = geounet.scene.find_product(path, resampling="bilinear", wanted=None)
    monkeypatch.setattr(
        geounet.scene, "find_product", lambda *_, **__: replace(found, clouds=layer)
    )
    scene = open_scene(path, cloud_mask="product")
    assert np.array_equal(_hidden(scene), values == 9)
    assert scene.cloud_mask == "classes (scl)"
    assert open_scene(path).clouds is None
    told = open_scene(path, cloud_mask="product", cloud_rule="nonzero")
    assert _hidden(told).all()


def test_a_rule_without_a_mask_is_refused(make_raster):
    with pytest.raises(ConfigError, match=r"--cloud-rule is how --cloud-mask is read"):
        open_scene(_scene(make_raster), cloud_rule="scl")


def test_a_damaged_mask_is_refused(make_raster):
    values = _random((400, 400))
    mask = _layer(make_raster, values, transform=Affine(10, 0, 5e5, 0, -10, 4.4e6), compress="lzw")
    scene = open_scene(_scene(make_raster), cloud_mask=mask)
    with mask.open("r+b") as file:
        file.truncate(mask.stat().st_size // 8)
    with pytest.raises(SceneError, match=r"cloud mask .*mask.tif.*"):
        _hidden(scene)

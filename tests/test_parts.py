import json
import pickle
import warnings

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.features import rasterize

from geounet.errors import ConfigError, SceneError
from geounet.parts import Area, area_on_grid, read_polygons, window_of_bbox, window_within
from geounet.scene import Grid, open_scene
from geounet.tiling import Window

UTM29 = Grid(CRS.from_epsg(32629), Affine(10, 0, 500_000, 0, -10, 4_400_000), 300, 200)


def _at(transform, x, y):
    a, b, c, d, e, f, *_ = transform
    return a * x + b * y + c, d * x + e * y + f


def _grid(crs, transform, width, height):
    return Grid(CRS.from_user_input(crs), transform, width, height)


def _window(left, top, right, bottom):
    return Window(top, left, bottom - top, right - left)


# -- boxes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bbox", "window"),
    [
        ((500_100, 4_399_000, 500_400, 4_399_500), (10, 50, 40, 100)),  # on pixel edges: no more
        ((500_101, 4_399_001, 500_399, 4_399_499), (10, 50, 40, 100)),  # within: whole pixels
        ((500_099, 4_398_999, 500_401, 4_399_501), (9, 49, 41, 101)),
        ((0, 0, 1e7, 1e7), (0, 0, 300, 200)),  # around all of it
        ((400_000, 4_399_990, 500_010, 5e6), (0, 0, 1, 1)),  # its first pixel
        ((500_005.1, 4_399_994.9, 500_005.2, 4_399_995), (0, 0, 1, 1)),
    ],
)
def test_a_box_in_the_scenes_crs_is_the_pixels_that_it_touches(bbox, window):
    assert window_of_bbox(UTM29, bbox) == _window(*window)
    assert window_of_bbox(UTM29, bbox, "EPSG:32629") == _window(*window)


def test_a_box_of_a_scene_with_rows_that_go_north():
    grid = _grid("EPSG:32629", Affine(10, 0, 500_000, 0, 10, 4_400_000), 300, 200)
    assert window_of_bbox(grid, (500_100, 4_400_500, 500_400, 4_401_000)) == _window(
        10, 50, 40, 100
    )


def test_a_box_of_a_rotated_scene_is_the_window_around_it():
    turned = Affine(5 * 3**0.5, 5, 500_000, 5, -5 * 3**0.5, 4_400_000)
    grid = _grid("EPSG:32629", turned, 300, 200)
    corners = [_at(turned, *c) for c in [(50, 60), (90, 60), (90, 100), (50, 100)]]
    found = window_of_bbox(grid, shapely.Polygon(corners).bounds)
    # a square of 40 pixels, turned and boxed (cos 30 + sin 30), turned back and boxed again
    side = 40 * (np.cos(np.pi / 6) + np.sin(np.pi / 6)) ** 2
    assert found == _window(
        *(int(np.floor(c - side / 2)) for c in (70, 80)),
        *(int(np.ceil(c + side / 2)) for c in (70, 80)),
    )


def _densely(grid, bbox, crs, n=4001):
    """The window around a box whose edges are followed by many points."""
    west, south, east, north = bbox
    xs, ys = np.linspace(west, east, n), np.linspace(south, north, n)
    x = np.concatenate([xs, xs, np.full(n, west), np.full(n, east)])
    y = np.concatenate([np.full(n, south), np.full(n, north), ys, ys])
    to_scene = pyproj.Transformer.from_crs(crs, grid.crs.to_wkt(), always_xy=True)
    col, row = _at(~grid.transform, *to_scene.transform(x, y))
    col, row = np.clip(col, 0, grid.width), np.clip(row, 0, grid.height)
    return _window(
        *(int(np.floor(v.min())) for v in (col, row)), *(int(np.ceil(v.max())) for v in (col, row))
    )


@pytest.mark.parametrize(
    ("crs", "transform", "bbox", "bbox_crs"),
    [
        # parallels bend in UTM by several pixels around the central meridian
        ("EPSG:32633", Affine(10, 0, 4.5e5, 0, -10, 6.8e6), (14.4, 60.6, 15.6, 60.8), "EPSG:4326"),
        ("EPSG:32733", Affine(10, 0, 4.5e5, 0, -10, 6.8e6), (14.6, -29.7, 15.4, -29.1),
         "EPSG:4326"),
        ("EPSG:3857", Affine(30, 0, 1e6, 0, -30, 5e6), (9.1, 38.0, 10.5, 40.0), "EPSG:4326"),
        ("EPSG:4326", Affine(1e-4, 0, 14.5, 0, -1e-4, 61.0), (4.8e5, 6.72e6, 5.2e5, 6.75e6),
         "EPSG:32633"),
        ("EPSG:3413", Affine(100, 0, -1e5, 0, -100, -9e5), (-50.0, 80.0, -40.0, 81.0), "EPSG:4326"),
    ],
)  # fmt: skip
def test_the_edges_of_a_box_bend_with_its_crs(crs, transform, bbox, bbox_crs):
    grid = _grid(crs, transform, 10_000, 9000)
    expected = _densely(grid, bbox, bbox_crs)
    assert window_of_bbox(grid, bbox, bbox_crs) == expected
    corners = _densely(grid, bbox, bbox_crs, 2)
    if crs != "EPSG:3857":  # where edges of this box are straight
        assert corners != expected


DATELINE = (178.9, -17.0, -179.5, -16.5)


@pytest.mark.parametrize(
    ("crs", "transform", "bbox", "window"),
    [
        # degrees beyond 180, as a mosaic around Fiji has them; and the two sides of the dateline
        ("EPSG:4326", Affine(0.1, 0, 178, 0, -0.1, -16), DATELINE, (9, 5, 25, 10)),
        ("EPSG:4326", Affine(0.1, 0, -182, 0, -0.1, -16), DATELINE, (9, 5, 25, 10)),
        ("EPSG:4326", Affine(0.1, 0, 177, 0, -0.1, -16), (178.9, -17.0, 180.5, -16.5),
         (19, 5, 35, 10)),
        ("EPSG:4326", Affine(0.1, 0, -180, 0, -0.1, -16), DATELINE, (0, 5, 5, 10)),
        ("EPSG:4326", Affine(0.1, 0, 350, 0, -0.1, -16), (-5.0, -17.0, -4.0, -16.5),
         (50, 5, 60, 10)),
    ],
)  # fmt: skip
def test_a_box_across_the_antimeridian(crs, transform, bbox, window):
    grid = _grid(crs, transform, 100, 50)
    assert window_of_bbox(grid, bbox) == _window(*window)
    assert window_of_bbox(grid, bbox, "EPSG:4326") == _window(*window)


@pytest.mark.parametrize("crs", ["EPSG:32760", "EPSG:32701", "EPSG:3832"])
def test_a_box_across_the_antimeridian_in_a_projected_scene(crs):
    """Zone 60 ends there, zone 1 begins there, PDC Mercator has it in its middle."""
    to_crs = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x, y = to_crs.transform(179.0, -16.0)
    grid = _grid(crs, Affine(100, 0, x, 0, -100, y), 2500, 2000)
    found = window_of_bbox(grid, (179.5, -17.0, -179.6, -16.5), "EPSG:4326")
    expected = _densely(grid, (179.5, -17.0, 180.4, -16.5), "EPSG:4326")
    assert found == expected
    assert 900 < found.width < 1010


def test_a_box_around_the_pole():
    grid = _grid("EPSG:3413", Affine(1000, 0, -3e6, 0, -1000, 3e6), 6000, 6000)
    found = window_of_bbox(grid, (-180, 80, 180, 90), "EPSG:4326")
    to_scene = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:3413", always_xy=True)
    x, y = to_scene.transform(np.linspace(-180, 180, 100_001), np.full(100_001, 80.0))
    assert found == _window(
        *(int(np.floor(v)) for v in ((x.min() + 3e6) / 1000, (3e6 - y.max()) / 1000)),
        *(int(np.ceil(v)) for v in ((x.max() + 3e6) / 1000, (3e6 - y.min()) / 1000)),
    )


@pytest.mark.parametrize("crs", ["EPSG:32629", "EPSG:3857", "EPSG:3413", "EPSG:4326"])
def test_the_whole_world_is_all_of_any_scene(crs):
    to_crs = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x, y = to_crs.transform(-8.0, 71.0)
    size = 0.001 if crs == "EPSG:4326" else 100
    grid = _grid(crs, Affine(size, 0, x, 0, -size, y), 300, 200)
    assert window_of_bbox(grid, (-180, -90, 180, 90), "EPSG:4326") == _window(0, 0, 300, 200)
    world = _grid("EPSG:3857", Affine(40_000, 0, -20e6, 0, -40_000, 20e6), 1000, 1000)
    assert window_of_bbox(world, (-180, -90, 180, 90), "EPSG:4326") == _window(0, 0, 1000, 1000)


def test_a_box_of_which_the_scene_has_two_ends_is_refused():
    grid = _grid("EPSG:4326", Affine(0.1, 0, -180, 0, -0.1, 90), 3600, 1800)
    with pytest.raises(ConfigError, match=r"two ends"):
        window_of_bbox(grid, (170, -10, -170, 10), "EPSG:4326")


@pytest.mark.parametrize(
    ("bbox", "crs", "message"),
    [
        ((2, 0, 1, 1), None, r"minx < maxx.*got 2, 0, 1, 1"),
        ((0, 1, 1, 1), None, r"miny < maxy"),
        ((0, 0, float("nan"), 1), None, r"got 0, 0, nan, 1"),
        ((0, 0, float("inf"), 1), None, r"inf"),
        ((0, 0, 1, 1), "EPSG:0", r"like EPSG:4326; got 'EPSG:0'"),
        ((600_000, 0, 500_000, 1e7), None, r"minx < maxx"),  # no antimeridian in metres
    ],
)
def test_a_box_that_is_none_is_refused(bbox, crs, message):
    with pytest.raises(ConfigError, match=message):
        window_of_bbox(UTM29, bbox, crs)


def test_a_box_outside_the_scene_is_refused_with_both_extents():
    both = r"covers 10, 50, 11, 51 \(WGS 84\), the scene 500000, 4398000, 503000, 4400000 \(WGS 84 "
    with pytest.raises(SceneError, match=both + r"/ UTM zone 29N\), that is -9.*, 39\.7.* in WGS"):
        window_of_bbox(UTM29, (10, 50, 11, 51), "EPSG:4326")
    with pytest.raises(SceneError, match=r"must overlap the scene"):
        window_of_bbox(UTM29, (503_000, 4_398_000, 504_000, 4_400_000))  # touches an edge
    with pytest.raises(SceneError, match=r"needs a CRS.*--window"):
        window_of_bbox(Grid(None, Affine.identity(), 10, 10), (0, 0, 1, 1), "EPSG:4326")


def test_a_box_of_a_scene_without_a_crs():
    grid = Grid(None, Affine(2, 0, 100, 0, -2, 50), 30, 20)
    assert window_of_bbox(grid, (110, 20, 120, 40)) == _window(5, 5, 10, 15)


@pytest.mark.parametrize(
    "crs", ['LOCAL_CS["a building", UNIT["metre", 1]]', "+proj=longlat +R=1737400"]
)
def test_a_part_of_a_scene_that_lies_nowhere_on_earth(crs):
    """Its own coordinates will do."""
    grid = _grid(crs, Affine(0.5, 0, 0, 0, -0.5, 60), 120, 90)
    assert window_of_bbox(grid, (10, 20, 20, 40)) == _window(20, 40, 40, 80)
    for part in (window_of_bbox, lambda g, b, c: area_on_grid(np.array([shapely.box(*b)]), c, g)):
        with pytest.raises(SceneError, match=r"leads to the scene's; WGS 84 does not lead to \w+"):
            part(grid, (10, 20, 20, 40), "EPSG:4326")


def test_what_reaches_out_of_the_scene_is_cut_off():
    assert window_within(Window(-5, -5, 10, 10), UTM29, "it") == Window(0, 0, 5, 5)
    assert window_within(Window(190, 290, 99, 99), UTM29, "it") == Window(190, 290, 10, 10)
    with pytest.raises(
        SceneError, match=r"it must overlap.*columns 300 to 310 and rows 0 to 5 of a"
    ):
        window_within(Window(0, 300, 5, 10), UTM29, "it")


# -- areas -----------------------------------------------------------------------------------------


def _star(random, grid, vertices=31):
    """A ragged polygon with a hole in it, in the grid's CRS."""
    angle = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    rings = []
    for least, most in ((0.4, 0.6), (0.05, 0.15)):
        radius = random.uniform(least, most, vertices)
        col = grid.width * (0.5 + radius * np.cos(angle))
        row = grid.height * (0.5 + radius * np.sin(angle))
        rings.append(np.stack(_at(grid.transform, col, row), axis=1))
    return shapely.Polygon(rings[0], [rings[1]])


def test_an_area_is_the_pixels_whose_centres_it_holds():
    area = shapely.box(500_104, 4_399_006, 500_396, 4_399_494)
    found = area_on_grid(np.array([area]), None, UTM29)
    assert found.window == _window(10, 50, 40, 100)
    inside = found.inside(_window(0, 0, 300, 200))
    expected = np.zeros((200, 300), bool)
    expected[51:99, 10:40] = True  # 4 m are less than half a pixel, 6 m are more
    assert np.array_equal(inside, expected)


def test_an_area_agrees_with_rasterizing_it_at_once():
    area = _star(np.random.default_rng(1), UTM29)
    found = area_on_grid(np.array([area]), None, UTM29).inside(_window(0, 0, 300, 200))
    expected = rasterize([area], out_shape=(200, 300), transform=UTM29.transform).astype(bool)
    assert 5_000 < expected.sum() < 50_000
    assert np.array_equal(found, expected)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10), data=st.data())
def test_the_answer_for_a_pixel_does_not_depend_on_the_window(seed, data):
    area = area_on_grid(np.array([_star(np.random.default_rng(seed), UTM29)]), None, UTM29)
    whole = area.inside(_window(0, 0, 300, 200))
    left, right = sorted(
        data.draw(st.lists(st.integers(0, 300), min_size=2, max_size=2, unique=True))
    )
    top, bottom = sorted(
        data.draw(st.lists(st.integers(0, 200), min_size=2, max_size=2, unique=True))
    )
    assert np.array_equal(
        area.inside(_window(left, top, right, bottom)), whole[top:bottom, left:right]
    )


def test_edges_through_pixel_centres_do_not_depend_on_the_window():
    """The hardest case: every edge meets centres exactly."""
    diamond = shapely.Polygon([(150.5, 10.5), (240.5, 100.5), (150.5, 190.5), (60.5, 100.5)])
    area = Area((diamond,))
    whole = area.inside(_window(0, 0, 300, 200))
    for step in (1, 7, 64):
        rows = [
            area.inside(Window(top, 0, min(step, 200 - top), 300)) for top in range(0, 200, step)
        ]
        assert np.array_equal(np.concatenate(rows), whole)
        cols = [
            area.inside(Window(0, left, 200, min(step, 300 - left))) for left in range(0, 300, step)
        ]
        assert np.array_equal(np.concatenate(cols, axis=1), whole)


def test_areas_that_overlap_count_once():
    boxes = [
        shapely.box(500_000, 4_399_000, 500_200, 4_399_100),
        shapely.box(500_100, 4_399_000, 500_300, 4_399_100),
    ]
    expected = area_on_grid(np.array([shapely.union_all(boxes)]), None, UTM29).inside(
        _window(0, 0, 300, 200)
    )
    for given_as in (np.array(boxes), np.array([shapely.MultiPolygon(boxes)])):
        found = area_on_grid(given_as, None, UTM29).inside(_window(0, 0, 300, 200))
        assert expected.sum() == 300
        assert np.array_equal(found, expected)


def test_a_coarser_answer():
    area = Area((shapely.box(0, 0, 150, 200),))
    coarse = area.inside(_window(0, 0, 300, 200), (20, 30))
    assert coarse.shape == (20, 30)
    assert np.array_equal(coarse, np.arange(30) < np.full((20, 1), 15))


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32628", "EPSG:3857", "EPSG:4258"])
def test_an_area_in_another_crs_is_the_same_pixels(crs):
    """Its centres are moved into the area's CRS one by one, which is what must come out."""
    area = _star(np.random.default_rng(3), UTM29, 9)
    to_other = pyproj.Transformer.from_crs(32629, crs, always_xy=True)
    moved = shapely.transform(area, lambda xy: np.stack(to_other.transform(*xy.T), axis=1))
    col, row = np.meshgrid(np.arange(300) + 0.5, np.arange(200) + 0.5)
    x, y = to_other.transform(*_at(UTM29.transform, col.ravel(), row.ravel()))
    expected = shapely.contains_xy(moved, x, y).reshape(200, 300)
    found = area_on_grid(np.array([moved]), crs, UTM29).inside(_window(0, 0, 300, 200))
    assert np.array_equal(found, expected)


def test_an_area_of_the_world_is_all_of_a_scene():
    found = area_on_grid(np.array([shapely.box(-180, -90, 180, 90)]), "EPSG:4326", UTM29)
    assert found.window == _window(0, 0, 300, 200)
    assert found.inside(_window(0, 0, 300, 200)).all()


@pytest.mark.parametrize(
    ("crs", "south", "north"), [("EPSG:3413", 89.97, 90), ("EPSG:3031", -90, -89.97)]
)
def test_an_area_around_a_pole_holds_the_pole(crs, south, north):
    grid = _grid(crs, Affine(50, 0, -5e3, 0, -50, 5e3), 200, 200)
    cap = np.array([shapely.box(-180, south, 180, north)])
    found = area_on_grid(cap, "EPSG:4326", grid).inside(_window(0, 0, 200, 200))
    col, row = np.meshgrid(np.arange(200) + 0.5, np.arange(200) + 0.5)
    to_lonlat = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    _, lat = to_lonlat.transform(*_at(grid.transform, col, row))
    assert found[np.abs(lat) > 89.971].all()
    assert not found[np.abs(lat) < 89.969].any()


def test_an_area_cut_at_the_antimeridian_is_whole_again():
    """RFC 7946 has polygons cut there."""
    to_crs = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32701", always_xy=True)
    x, y = to_crs.transform(179.9, -16.0)
    grid = _grid("EPSG:32701", Affine(100, 0, x, 0, -100, y), 300, 200)
    halves = shapely.MultiPolygon(
        [shapely.box(179.95, -16.15, 180, -16.05), shapely.box(-180, -16.15, -179.9, -16.05)]
    )
    whole = shapely.box(179.95, -16.15, 180.1, -16.05)
    found = [
        area_on_grid(np.array([a]), "EPSG:4326", grid).inside(_window(0, 0, 300, 200))
        for a in (halves, whole)
    ]
    assert found[0].sum() > 10_000
    assert np.array_equal(*found)


@pytest.mark.parametrize(
    "geometries",
    [
        [],
        [shapely.Point(0, 0)],
        [shapely.LineString([(0, 0), (1, 1)])],
        [shapely.Polygon()],
        [shapely.GeometryCollection([shapely.Point(0, 0)]), None],
    ],
)
def test_what_holds_no_polygon_is_refused(geometries):
    with pytest.raises(ConfigError, match=r"must hold a polygon"):
        area_on_grid(np.array(geometries, object), None, UTM29)


def test_a_polygon_that_reaches_to_infinity_is_refused():
    with pytest.raises(ConfigError, match="must have finite coordinates"):
        area_on_grid(np.array([shapely.Polygon([(0, 0), (np.inf, 0), (1, 1)])]), None, UTM29)


def test_a_polygon_that_crosses_itself_is_taken_by_its_parts():
    bow = shapely.Polygon([(0, 0), (100, 100), (100, 0), (0, 100)])
    moved = shapely.transform(bow, lambda xy: xy * (10, -10) + (500_000, 4_400_000))
    inside = area_on_grid(np.array([moved]), None, UTM29).inside(_window(0, 0, 100, 100))
    col, row = np.meshgrid(np.arange(100), np.arange(100))
    off_edge = (col != row) & (col + row != 99)
    expected = (col < row) == (col + row < 99)
    assert np.array_equal(inside[off_edge], expected[off_edge])


def test_an_area_outside_the_scene_is_refused_with_both_extents():
    far = np.array([shapely.box(10, 50, 11, 51)])
    with pytest.raises(
        SceneError, match=r"the geometry must overlap.*10, 50, 11, 51 \(WGS 84\), the scene 5"
    ):
        area_on_grid(far, "EPSG:4326", UTM29)


# -- files of polygons -----------------------------------------------------------------------------


def _geojson(path, *geometries):
    features = [
        {"type": "Feature", "properties": {"a": 1}, "geometry": shapely.geometry.mapping(g)}
        for g in geometries
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.mark.parametrize("suffix", ["geojson", "gpkg", "fgb", "shp"])
def test_polygons_of_a_file(tmp_path, suffix):
    boxes = [shapely.box(0, 0, 1, 2), shapely.box(3, 3, 4, 4)]
    path = tmp_path / f"area.{suffix}"
    crs = "EPSG:4326" if suffix == "geojson" else "EPSG:32629"
    gpd.GeoDataFrame({"a": [1, 2]}, geometry=boxes, crs=crs).to_file(path)
    found, named = read_polygons(path)
    assert shapely.union_all(found).equals(shapely.union_all(boxes))
    assert pyproj.CRS(named) == pyproj.CRS(crs)


def test_what_is_no_vector_file_is_refused(tmp_path):
    (tmp_path / "text.geojson").write_text("not JSON")
    for name in ("none.gpkg", "text.geojson"):
        with pytest.raises(ConfigError, match=rf"must be a vector file.*{name}"):
            read_polygons(tmp_path / name)
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match=r"no geometries at all"):
        read_polygons(tmp_path / "table.csv")


# -- scenes ----------------------------------------------------------------------------------------


def _scene(make_raster, height=97, width=131, **options):
    random = np.random.default_rng(4)
    dn = random.integers(1, 9000, (3, height, width)).astype(np.uint16)
    dn[:, 20:30, 40:60] = 0
    options = {"descriptions": ("green", "red", "nir"), "scale": 1e-4, "nodata": 0, **options}
    return make_raster(dn, **options), dn


def _read(scene, indexes=(0, 1, 2)):
    with scene.open() as reader:
        return reader.read(Window(0, 0, *scene.grid.shape), indexes)


def test_a_part_is_the_same_pixels_in_the_same_place(make_raster):
    path, dn = _scene(make_raster)
    whole, part = open_scene(path), open_scene(path, window=(11, 7, 50, 40))
    assert part.grid.shape == (40, 50)
    assert part.grid.transform == Affine(10, 0, 500_110, 0, -10, 4_399_930)
    tile = _read(part)
    assert np.array_equal(tile.dn, dn[:, 7:47, 11:61])
    assert np.array_equal(tile.valid, (dn != 0).all(0)[7:47, 11:61])
    again = part.crop(Window(3, 4, 10, 20)).crop(Window(1, 1, 5, 5))
    assert again == whole.crop(Window(11, 16, 5, 5))
    assert np.array_equal(_read(again).dn, dn[:, 11:16, 16:21])
    assert pickle.loads(pickle.dumps(part)) == part
    assert np.array_equal(
        part.reflectance(["nir"])[0], whole.reflectance(["nir"])[0, 7:47, 11:61], equal_nan=True
    )


def test_a_window_that_reaches_out_is_cut_off_and_one_outside_refused(make_raster):
    path, _ = _scene(make_raster)
    assert open_scene(path, window=(-5, 90, 50, 40)).grid.shape == (7, 45)
    with pytest.raises(SceneError, match=r"columns 131 to 141 and rows 0 to 10 of a scene of 131"):
        open_scene(path, window=(131, 0, 10, 10))
    with pytest.raises(SceneError, match=r"must overlap"):
        open_scene(path, window=(0, 0, 10, 10)).crop(Window(20, 20, 5, 5))
    with pytest.raises(ConfigError, match=r"--bbox-crs is that of --bbox"):
        open_scene(path, bbox_crs="EPSG:4326")


def test_parts_are_what_they_have_in_common(make_raster):
    path, _ = _scene(make_raster)
    box = (500_200, 4_399_500, 500_500, 4_399_900)  # columns 20 to 50, rows 10 to 50
    part = open_scene(path, window=(30, 0, 100, 30), bbox=box)
    assert part.part.window == _window(30, 10, 50, 30)
    with pytest.raises(SceneError, match=r"must overlap"):
        open_scene(path, window=(60, 0, 20, 20), bbox=box)


def test_pixels_outside_an_area_are_not_observed(make_raster, tmp_path):
    path, dn = _scene(make_raster)
    scene = open_scene(path)
    area = _star(np.random.default_rng(5), Grid(scene.grid.crs, scene.grid.transform, 90, 80))
    to_wgs84 = pyproj.Transformer.from_crs(32629, 4326, always_xy=True)
    moved = shapely.transform(area, lambda xy: np.stack(to_wgs84.transform(*xy.T), axis=1))
    clipped = open_scene(path, geometry=_geojson(tmp_path / "area.geojson", moved))
    inside = rasterize([area], out_shape=(97, 131), transform=scene.grid.transform).astype(bool)
    at = clipped.part.window
    rows, cols = slice(at.row, at.row + at.height), slice(at.col, at.col + at.width)
    assert not inside[: at.row].any()
    assert (at.height, at.width) < (97, 131)
    tile = _read(clipped)
    seen = (dn != 0).all(0) & inside
    assert np.array_equal(tile.valid, seen[rows, cols])
    assert np.array_equal(tile.dn[:, tile.valid], dn[:, rows, cols][:, tile.valid])
    assert pickle.loads(pickle.dumps(clipped)) == clipped
    narrower = clipped.clip(shapely.box(500_400, 0, 500_700, 1e7))
    at = narrower.part.window
    assert (at.col, at.col + at.width) == (40, 70)
    assert np.array_equal(_read(narrower).valid, seen[at.row : at.row + at.height, 40:70])


def test_reading_a_part_by_windows_is_reading_it_at_once(make_raster):
    path, _ = _scene(make_raster)
    scene = open_scene(path).clip(_star(np.random.default_rng(6), open_scene(path).grid))
    whole = _read(scene)
    with scene.open() as reader:
        for top in range(0, scene.grid.height, 10):
            out = np.full((3, min(10, scene.grid.height - top), scene.grid.width), 7, np.uint16)
            tile = reader.read(Window(top, 0, *out.shape[1:]), (0, 1, 2), out=out)
            rows = slice(top, top + out.shape[1])
            assert np.array_equal(tile.valid, whole.valid[rows])
            assert np.array_equal(tile.dn[:, tile.valid], whole.dn[:, rows][:, tile.valid])


def test_only_what_is_needed_is_read(make_raster, monkeypatch):
    path, _ = _scene(make_raster)
    read = []
    opened = rasterio.open

    class Spy:
        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self._file.close()

        def read(self, *args, window, **options):
            read.append((window.row_off, window.col_off, window.height, window.width))
            return self._file.read(*args, window=window, **options)

    scene = open_scene(path).clip(
        [
            shapely.box(500_000, 4_399_900, 500_100, 4_400_000),
            shapely.box(500_300, 4_399_700, 500_400, 4_399_800),
        ]
    )  # columns and rows 0 to 10; columns 30 to 40, rows 20 to 30
    monkeypatch.setattr(rasterio, "open", lambda *a, **k: Spy(opened(*a, **k)))
    with scene.open() as reader:
        for top in range(0, 30, 10):
            tile = reader.read(Window(top, 0, 10, 40), (0,))
            assert tile.valid.sum() == (0 if top == 10 else 100)
    assert read == [(0, 0, 10, 10), (20, 30, 10, 10)]


def test_rows_are_cut_where_the_files_blocks_end(make_raster):
    path, _ = _scene(make_raster, 600, 40, tiled=True, blockxsize=32, blockysize=64)
    assert list(open_scene(path).pieces(10, 600)) == [(10, 256), (256, 512), (512, 600)]
    part = open_scene(path, window=(0, 100, 40, 500))
    assert list(part.pieces(0, 500)) == [(0, 156), (156, 412), (412, 500)]
    assert list(part.pieces(156, 200)) == [(156, 200)]


def test_a_part_warns_of_no_more_than_the_scene(make_raster, tmp_path):
    path, _ = _scene(make_raster)
    area = _geojson(tmp_path / "area.geojson", shapely.box(-9, 39.0, -8.5, 39.8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_scene(
            path,
            window=(1, 1, 50, 50),
            bbox=(-9.0, 39.0, -8.0, 40.0),
            bbox_crs="EPSG:4326",
            geometry=area,
        )

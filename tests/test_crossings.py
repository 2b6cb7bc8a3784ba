"""Where shorelines cross transects: known shores, known distances, known gaps."""

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import pytest
import shapely
from affine import Affine

from geounet import transects, vectorize
from geounet.errors import ConfigError, GeounetWarning, OutputError, SceneError

X, Y = 500_000, 4_400_000
TRUE = "+proj=tmerc +lon_0=-9 +k=1 +x_0=500000 +datum=WGS84"
"""Lengths along its central meridian, x = 500000, are true ones."""
WGS84 = pyproj.Geod(ellps="WGS84")
COS, SIN = np.cos(np.radians(31)).item(), np.sin(np.radians(31)).item()
ROTATED = Affine(10 * COS, 10 * SIN, X, 10 * SIN, -10 * COS, Y)


@pytest.fixture
def make_lines(tmp_path):
    def make(lines, file="transects.gpkg", *, crs=TRUE, **columns):
        path = tmp_path / file
        geometry = [shapely.LineString(line) for line in lines]
        geopandas.GeoDataFrame(columns, geometry=geometry, crs=crs).to_file(path, layer="lines")
        return path

    return make


@pytest.fixture
def make_shore(make_raster):
    """A mask or a probability of 40 by 40 pixels of 10 m in which water begins at a row."""

    def make(codes, name="mask.tif", **profile):
        profile = {"crs": TRUE, "transform": Affine(10, 0, X - 200, 0, -10, Y), **profile}
        return make_raster(np.asarray(codes, np.uint8)[None], name, nodata=255, **profile)

    return make


def _half(row, size=40):
    """Land in the north, water from a row on."""
    codes = np.zeros((size, size), np.uint8)
    codes[row:] = 1
    return codes


def _southward(start=-5, length=300, x=X + 3):
    """A transect from near the mask's north edge to the south."""
    return [(x, Y + start), (x, Y + start - length)]


def _distances(*args, **options):
    return transects(*args, **options).crossings["distance_m"].to_numpy()


# -- distances -------------------------------------------------------------------------------------


def test_a_shore_moved_by_three_pixels_is_30_metres_further(make_lines, make_shore):
    lines = make_lines([_southward(), _southward(-17.5)])
    masks = [make_shore(_half(10), "20230501.tif"), make_shore(_half(13), "20240501.tif")]
    found = transects(lines, masks).crossings
    assert found["distance_m"].to_numpy() == pytest.approx([95, 82.5, 125, 112.5], abs=1e-6)
    assert list(found["transect"]) == ["0", "1", "0", "1"]
    assert list(found["date"]) == ["2023-05-01"] * 2 + ["2024-05-01"] * 2
    assert list(found["source"]) == ["20230501.tif"] * 2 + ["20240501.tif"] * 2
    assert (found["n_crossings"] == 1).all()
    assert found["observed"].all()
    assert found.geometry[0].distance(shapely.Point(X + 3, Y - 100)) < 1e-6


def test_distances_are_on_the_ground_whatever_the_crs(make_lines, make_shore):
    """UTM is 0.04% short on its central meridian, Web Mercator 31% long at 40 degrees."""
    lines = make_lines([[(X, 4_399_990), (X, 4_399_700)]], crs="EPSG:32629")
    mask = make_shore(_half(10), crs="EPSG:32629")
    assert _distances(lines, [mask]) == pytest.approx([90 / 0.9996], abs=1e-6)
    lines = make_lines([[(0, 4_865_990), (0, 4_865_700)]], "mercator.gpkg", crs="EPSG:3857")
    mask = make_shore(
        _half(10), "m.tif", crs="EPSG:3857", transform=Affine(10, 0, -200, 0, -10, 4_866_000)
    )
    to_lonlat = pyproj.Transformer.from_crs(3857, 4326, always_xy=True).transform
    expected = WGS84.inv(*to_lonlat(0, 4_865_990), *to_lonlat(0, 4_865_900))[2]
    # between points of a transect metres are linear: right within a millimetre, not a micrometre
    assert _distances(lines, [mask]) == pytest.approx([expected], abs=1e-3)


@pytest.mark.parametrize("x", [20.0, 179.99])
def test_degrees_are_measured_by_geodesics(make_lines, make_shore, x):
    """Also where transects have 180.005 degrees and the raster the other sign, or none."""
    cell = 0.001
    lon = x + 0.0155
    mask = make_shore(_half(10), crs="EPSG:4326", transform=Affine(cell, 0, x, 0, -cell, 60))
    expected = WGS84.inv(lon, 59.995, lon, 59.99)[2]
    for turn in (0, -360):
        line = [(lon + turn, 59.995), (lon + turn, 59.97)]
        lines = make_lines([line], f"{turn}.gpkg", crs="EPSG:4326")
        assert _distances(lines, [mask]) == pytest.approx([expected], abs=1e-5)


def test_a_rotated_grid(make_lines, make_shore):
    """A transect along a column of a rotated grid, and one that crosses its rows aslant."""

    def at(col, row):
        return X + 10 * (COS * col + SIN * row), Y + 10 * (SIN * col - COS * row)

    lines = make_lines([[at(5.5, 2), at(5.5, 30)], [at(2, 4), at(18, 20)]])
    found = _distances(lines, [make_shore(_half(10), transform=ROTATED)])
    # x is off the meridian by 300 m at most: scale 1 within 1e-9
    assert found == pytest.approx([80, 60 * np.sqrt(2)], abs=1e-4)


def test_a_mask_in_another_crs(make_lines, make_shore):
    """Transects in degrees on a UTM mask: to the same place as computed on the ellipsoid."""
    mask = make_shore(_half(10), crs="EPSG:32629")
    to_lonlat = pyproj.Transformer.from_crs(32629, 4326, always_xy=True).transform
    start, end, shore = (to_lonlat(X, Y - down) for down in (5, 305, 100))
    lines = make_lines([[start, end]], crs="EPSG:4326")
    expected = WGS84.inv(*start, *shore)[2]
    assert _distances(lines, [mask]) == pytest.approx([expected], abs=1e-4)


def test_a_probability_is_crossed_below_the_pixel(make_lines, make_shore):
    """Land, a row of mixed pixels, water: the shore cuts the row by its share of water."""
    levels = np.zeros((40, 40), np.uint8)
    levels[10:] = 250
    lines = make_lines([_southward(), [(X - 50, Y - 50), (X + 50, Y - 150)]])
    step = 10 * 0.002  # contours lie at 124.5 of 250
    path = make_shore(levels, "p.tif", scale=1 / 250)
    assert _distances(lines, [path]) == pytest.approx([95, 50 * np.sqrt(2)], abs=step)
    levels[10] = 175
    path = make_shore(levels, "q.tif", scale=1 / 250)
    assert _distances(lines, [path])[0] == pytest.approx(98, abs=step)


def test_a_probability_and_its_contour_are_crossed_at_the_same_places(
    make_lines, make_shore, tmp_path
):
    """Along lines through pixel centres, on rows and on columns."""
    levels = np.random.default_rng(5).integers(0, 251, (40, 40)).astype(np.uint8)
    path = make_shore(levels, "p.tif", scale=1 / 250)
    vectorize(path, shoreline=True).shorelines.to_file(tmp_path / "lines.gpkg")
    centres = X - 200 + 5 + 10 * np.arange(1, 39), Y - 5 - 10 * np.arange(1, 39)
    down = [[(x, Y - 20), (x, Y - 380)] for x in centres[0]]
    across = [[(X - 180, y), (X + 180, y)] for y in centres[1]]
    lines = make_lines([*down, *across])
    for pick in ("first", "last"):
        one, two = (
            _distances(lines, [shore], pick=pick) for shore in (path, tmp_path / "lines.gpkg")
        )
        assert one == pytest.approx(two, abs=1e-3)


def test_bilinear_between_four_centres(make_lines, make_shore):
    """On the diagonal of a square with 250 in one corner the level is 250 t²."""
    levels = np.zeros((40, 40), np.uint8)
    levels[20:, 20:] = 250
    path = make_shore(levels, "p.tif", scale=1 / 250)
    centre = X - 200 + 195, Y - 195  # of pixel (19, 19)
    lines = make_lines([[(centre[0] - 10, centre[1] + 10), (centre[0] + 50, centre[1] - 50)]])
    expected = 10 * np.sqrt(2) * (1 + np.sqrt(0.5))
    assert _distances(lines, [path]) == pytest.approx([expected], abs=0.15)  # steps of 2.5 m


def test_shorelines_are_crossed_where_they_are(make_lines):
    shore = make_lines([[(X - 100, Y - 80), (X + 100, Y - 60)]], "2021-07-08_shore.fgb")
    found = transects(make_lines([_southward(x=X), _southward(x=X + 500)]), [shore]).crossings
    assert found["distance_m"].to_numpy() == pytest.approx([65, np.nan], abs=1e-4, nan_ok=True)
    assert list(found["observed"]) == [True, False]
    assert list(found["n_crossings"]) == [1, 0]
    assert list(found["date"]) == ["2021-07-08"] * 2


@pytest.mark.parametrize(
    ("shores", "distance", "count"),
    [
        ([[(-9, -95), (0, -80), (0, -170), (9, -190)]], 75, 1),
        ([[(-9, -190), (0, -170), (0, -80), (-9, -95)]], 75, 1),
        ([[(-9, -80), (0, -90), (9, -80)]], 85, 1),
        ([[(-9, -80), (0, -90)], [(0, -90), (9, -80)]], 85, 1),
        ([[(-9, -80), (9, -80), (9, -90), (-9, -90)]], 75, 2),
        ([[(0, -80), (0, -100)], [(-9, -90), (9, -90)], [(-9, -99), (9, -111)]], 75, 2),
    ],
    ids=["along", "along it backwards", "touched", "where two meet", "twice", "across a stretch"],
)
def test_what_adjoins_is_crossed_once(make_lines, shores, distance, count):
    lines = [[(X + x, Y + y) for x, y in shore] for shore in shores]
    row = transects(make_lines([_southward(x=X)]), [make_lines(lines, "shore.fgb")]).crossings
    assert row["distance_m"].to_numpy() == pytest.approx([distance], abs=1e-4)
    assert list(row["n_crossings"]) == [count]


# -- several crossings, gaps -----------------------------------------------------------------------


def _striped(*codes):
    """Bands of 5 rows of these codes from the north, then land."""
    column = np.zeros(40, np.uint8)
    for at, code in enumerate(codes):
        column[5 * at : 5 * at + 5] = code
    return np.repeat(column[:, None], 40, axis=1)


@pytest.mark.parametrize(
    ("codes", "pick", "distance", "count", "observed"),
    [
        ((0, 1, 0, 1, 0), "first", 45, 4, True),
        ((0, 1, 0, 1, 0), "last", 195, 4, True),
        ((0, 0, 0, 0, 0), "first", None, 0, True),
        ((0, 255, 1, 1, 0), "first", None, 1, False),
        ((0, 2, 1, 1, 0), "first", None, 1, False),
        ((0, 255, 1, 1, 0), "last", 195, 1, True),
        ((0, 1, 255, 0, 0), "first", 45, 1, True),
        ((0, 1, 255, 0, 0), "last", None, 1, False),
        ((0, 2, 0, 0, 0), "first", None, 0, False),
        ((2, 2, 0, 1, 1), "last", 245, 2, True),
        ((1, 1, 0, 0, 0), "first", 95, 1, True),
    ],
)
@pytest.mark.filterwarnings("ignore:transects go from land to sea")
def test_what_is_met_before_the_shore(
    make_lines, make_shore, codes, pick, distance, count, observed
):
    lines = make_lines([_southward()])
    row = transects(lines, [make_shore(_striped(*codes))], pick=pick).crossings.iloc[0]
    expected = np.nan if distance is None else distance
    assert row["distance_m"] == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert (row["n_crossings"], row["observed"]) == (count, observed)
    assert (row["geometry"] is None) == (distance is None)


def test_beyond_the_raster_is_not_observed(make_lines, make_shore):
    mask = make_shore(_half(10))
    lines = make_lines([_southward(5), _southward(-150, 500), _southward(x=X + 5000)])
    found = transects(lines, [mask]).crossings
    assert list(found["observed"]) == [False] * 3
    assert found["distance_m"].isna().all()
    assert list(found["n_crossings"]) == [1, 0, 0]


def test_a_probability_beside_what_was_not_seen(make_lines, make_shore):
    levels = np.where(_half(10), np.uint8(250), np.uint8(0))
    levels[:, 25:] = 255
    path = make_shore(levels, "a_probability.tif", scale=1 / 250)
    lines = make_lines([_southward(), _southward(x=X + 40), _southward(x=X + 100)])
    assert list(transects(lines, [path]).crossings["observed"]) == [True, True, False]
    codes = _half(10)
    codes[3:5, :21] = 2
    make_shore(codes, "a_mask.tif")  # its obscured pixels hide the first transect's shore
    assert list(transects(lines, [path]).crossings["observed"]) == [False, True, False]
    make_shore(codes[:-1], "a_mask.tif")
    with pytest.raises(SceneError, match="another grid"):
        transects(lines, [path])


@pytest.mark.parametrize("kind", ["mask", "probability"])
def test_transects_that_begin_in_water_are_told(make_lines, make_shore, kind):
    shore = make_shore(_half(20)) if kind == "mask" else make_shore(250 * _half(20), scale=0.004)
    lines = [_southward(), _southward()[::-1], _southward(x=X + 9)[::-1]]
    with pytest.warns(GeounetWarning, match=r"2 of 3 that cross the shore begin in water"):
        turned = _distances(make_lines(lines), [shore])
    np.testing.assert_allclose(turned[1:], 300 - turned[0], atol=1e-3)
    assert len(_distances(make_lines([_southward()] * 2 + lines[:2]), [shore])) == 4


def test_transects_that_lie_elsewhere_are_told(make_lines, make_shore):
    shores = [make_shore(_half(20)), make_shore(250 * _half(20), "p.tif", scale=0.004)]
    contour = make_lines([[(X - 9, Y), (X + 9, Y)]], "shore.gpkg")
    away = _southward(x=X + 5000)
    with pytest.warns(GeounetWarning, match=r"none meets a shore .* of the 3 given"):
        found = transects(make_lines([away, away]), [*shores, contour]).crossings
    assert not found["observed"].any()
    transects(make_lines([away, _southward(-160, 20)]), shores)  # land is something


def test_files_of_one_name_are_told_apart(make_lines, make_shore, tmp_path):
    for year in ("2023", "2024"):
        (tmp_path / year).mkdir()
    shores = [make_shore(_half(20), f"{name}.tif") for name in ("2023/mask", "2024/mask", "other")]
    found = transects(make_lines([_southward()]), shores).crossings
    assert list(found["source"]) == [str(shores[0]), str(shores[1]), "other.tif"]


def test_along_the_edge_of_pixels_and_through_corners(make_lines, make_shore):
    """A transect on a lattice line, and a diagonal through lattice points, meet one shore."""
    mask = make_shore(_half(10))
    lines = make_lines([[(X, Y), (X, Y - 300)], [(X - 100, Y), (X + 100, Y - 200)]])
    found = transects(lines, [mask]).crossings
    assert found["distance_m"].to_numpy() == pytest.approx([100, 100 * np.sqrt(2)], abs=1e-5)
    assert list(found["n_crossings"]) == [1, 1]


# -- setting up ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "sign"), [("left", 1), ("right", -1)])
def test_transects_stand_at_right_angles(make_lines, make_shore, side, sign):
    """Westward along y: the left is the south."""
    base = make_lines([[(X + 100, Y - 20), (X - 100, Y - 20)]])
    made = transects(base, [make_shore(_half(10))], spacing=50, length=120, side=side)
    ends = np.array([line.coords for line in made.lines.geometry])
    tip = Y - 20 - 120 * sign
    expected = np.array([[(X + x, Y - 20), (X + x, tip)] for x in (100, 50, 0, -50, -100)])
    np.testing.assert_allclose(ends, expected, atol=2e-3)  # a parallel of y is no geodesic
    assert made.lines["length_m"].to_numpy() == pytest.approx([120] * 5, abs=1e-6)
    assert list(made.lines["transect"]) == [str(number) for number in range(5)]
    if side == "left":
        assert made.crossings["distance_m"].to_numpy() == pytest.approx([80] * 5, abs=2e-3)


@pytest.mark.parametrize("lon", [15.0, 179.999])
def test_a_baseline_in_degrees(make_lines, make_shore, lon):
    """Spacing and length are metres at 60 degrees north too, and across 180 degrees."""
    base = make_lines([[(lon, 60), (lon + 0.01, 60)]], crs="EPSG:4326")
    mask = make_shore(_half(3), crs="EPSG:4326", transform=Affine(0.01, 0, lon, 0, -0.01, 60.1))
    lines = transects(base, [mask], spacing=100, length=250, side="right").lines
    total = WGS84.inv(lon, 60, lon + 0.01, 60)[2]
    assert len(lines) == int(total // 100) + 1
    ends = np.array([line.coords for line in lines.geometry])
    for foot, tip in ends:
        assert WGS84.inv(*foot, *tip)[2] == pytest.approx(250, abs=1e-4)
        assert tip[1] < foot[1]
    feet = ends[:, 0]
    steps = WGS84.inv(*feet[:-1].T, *feet[1:].T)[2]
    assert steps == pytest.approx([100] * len(steps), abs=1e-3)
    assert np.ptp(ends[:, :, 0]) < 0.02


def test_names_come_from_the_file_if_they_are_different(make_lines, make_shore):
    mask = make_shore(_half(10))
    lines = [_southward(), _southward(x=X + 20)]
    for names, expected in ((["b", "a"], ["b", "a"]), (["a", "a"], ["0", "1"])):
        path = make_lines(lines, f"{names}.gpkg", name=names)
        assert list(transects(path, [mask]).lines["transect"]) == expected


@pytest.mark.parametrize(
    ("name", "date"),
    [
        ("S2A_MSIL2A_20240131T101031.tif", "2024-01-31"),
        ("coast-2024-01-31.tif", "2024-01-31"),
        ("20241331_20240131.tif", "2024-01-31"),
        ("120240131.tif", ""),
        ("coast.tif", ""),
    ],
)
def test_dates_in_names(make_lines, make_shore, name, date):
    found = transects(make_lines([_southward()]), [make_shore(_half(10), name)])
    assert found.crossings["date"][0] == date


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "fgb"])
@pytest.mark.parametrize("time", ["2023-05-01T10:50:31Z", None])
@pytest.mark.filterwarnings("ignore:transects must lie where the files do")
def test_dates_in_files_of_lines(make_lines, suffix, time):
    """GeoJSON's reader makes a time of the text."""
    file = f"20240131.{suffix}"
    shore = make_lines([[(-9, 39), (-8, 39)]], file, crs="OGC:CRS84", acquired=[time])
    found = transects(make_lines([_southward()]), [shore]).crossings["date"][0]
    assert found.removesuffix("Z").removesuffix("+00:00") == (time or "2024-01-31").removesuffix(
        "Z"
    )


# -- files, errors ---------------------------------------------------------------------------------


def test_the_table_comes_back(make_lines, make_shore, tmp_path):
    lines = make_lines([_southward(), _southward(5)])
    found = transects(lines, [make_shore(_half(10), "20230501.tif")])
    plain = found.crossings.drop(columns="geometry")
    csv = pd.read_csv(
        found.write(tmp_path / "t.csv"), dtype={"transect": "str", "n_crossings": "int32"}
    )
    pd.testing.assert_frame_equal(csv, plain, check_dtype=False)
    parquet = geopandas.read_parquet(found.write(tmp_path / "t.parquet"))
    pd.testing.assert_frame_equal(parquet, found.crossings)
    path = found.write(tmp_path / "t.gpkg")
    assert [list(row) for row in pyogrio.list_layers(path)] == [
        ["crossings", "Point"], ["transects", "LineString"]
    ]  # fmt: skip
    layer = geopandas.read_file(path, layer="crossings").drop(columns="geometry")
    pd.testing.assert_frame_equal(layer, plain, check_dtype=False)
    with pytest.raises(OutputError, match="--overwrite"):
        found.write(path)
    with pytest.raises(ConfigError, match=r"t\.shp"):
        found.write(tmp_path / "t.shp")
    assert found.write(path, overwrite=True) == path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"spacing": 10}, "both a spacing and a length"),
        ({"length": 10}, "both a spacing and a length"),
        ({"spacing": 0, "length": 10}, "spacing is a number of metres"),
        ({"spacing": 10, "length": float("nan")}, "length is a number of metres"),
        ({"spacing": 1e-6, "length": 10}, "a million"),
        ({"side": "up"}, "left or right"),
        ({"pick": "best"}, "first or the last"),
    ],
)
def test_wrong_options(make_lines, make_shore, options, words):
    with pytest.raises(ConfigError, match=words):
        transects(make_lines([_southward()]), [make_shore(_half(10))], **options)


def test_files_that_do_not_fit(make_lines, make_shore, make_raster, tmp_path):
    lines, mask = make_lines([_southward()]), make_shore(_half(10))
    points = tmp_path / "points.gpkg"
    geopandas.GeoDataFrame(geometry=[shapely.Point(X, Y)], crs=TRUE).to_file(points)
    ring = tmp_path / "ring.gpkg"
    geopandas.GeoDataFrame(geometry=[shapely.box(X, Y, X + 9, Y + 9)], crs=TRUE).to_file(ring)
    bare = make_lines([_southward()], "bare.gpkg", crs="EPSG:32629")
    text = tmp_path / "text.txt"
    text.write_text("nothing")
    with pytest.raises(ConfigError, match="got none"):
        transects(lines, [])
    for baseline, source, words in (
        (points, mask, "features of type Point"),
        (ring, mask, "1 features of type Polygon"),
        (tmp_path / "none.gpkg", mask, "none.gpkg"),
        (mask, mask, r"mask\.tif cannot be read|has no geometry"),
        (lines, points, "holds Point"),
        (lines, text, "text.txt"),
        (lines, tmp_path / "none.tif", "none.tif"),
        (lines, make_raster(np.zeros((2, 4, 4), np.float32), "f.tif"), "2 bands of type float32"),
        (lines, make_shore(np.full((40, 40), 7), "s.tif"), "holds 7"),
        (make_lines([[(X, Y), (X, Y)]], "zero.gpkg"), mask, "in one piece"),
    ):
        with pytest.raises(SceneError, match=words):
            transects(baseline, [source])
    with pytest.warns(GeounetWarning, match="transects must lie where the files do"):
        assert len(transects(bare, [mask]).crossings) == 1  # of another scale: kilometres away


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_mask_without_crs(make_lines, make_shore):
    with pytest.raises(SceneError, match="need a CRS each"):
        transects(make_lines([_southward()]), [make_shore(_half(10), crs=None)])

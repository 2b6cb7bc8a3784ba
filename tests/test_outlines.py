"""Tables of polygons and shorelines: statistics, clean-up, attributes, files."""

from __future__ import annotations

import json
import textwrap
import warnings
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.features import shapes

from geounet import outlines, vectors
from geounet.errors import ConfigError, OutputError, SceneError
from geounet.outlines import (
    Origin,
    Outliner,
    Shaping,
    check_crs,
    polygonize,
    vectorize,
    vectorize_to_files,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PIXEL = Affine(10, 0, 0, 0, -10, 0)
UTM = Affine(10, 0, 399960, 0, -10, 4700040)
SHAPES = [
    Shaping(),
    Shaping(connectivity=8),
    Shaping(edges="contour"),
]


def pixels(text: str) -> np.ndarray:
    """A mask from a drawing: # water, . land, o obscured, x not observed."""
    codes = {"#": 1, ".": 0, "o": 2, "x": 255}
    lines = textwrap.dedent(text).strip("\n").splitlines()
    return np.array([[codes[letter] for letter in line] for line in lines], np.uint8)


def gathered(
    codes: np.ndarray,
    shaping: Shaping,
    probability: np.ndarray | None = None,
    *,
    height: int = 99,
    shoreline: bool = False,
) -> Outliner:
    outliner = Outliner(
        codes.shape[1], shaping, shoreline=shoreline, probability=probability is not None
    )
    for top in range(0, len(codes), height):
        rows = slice(top, top + height)
        outliner.add(codes[rows], None if probability is None else probability[rows])
    return outliner


def tables(outliner: Outliner, *place: object, **options: object) -> list[gpd.GeoDataFrame]:
    """The tables that were asked for, each in one piece; polygons come first."""
    made = outliner.tables(*place or (PIXEL,), **options)
    return [outlines._together(parts) for parts in made.values()]


def table(codes: np.ndarray, shaping: Shaping, **options: object) -> gpd.GeoDataFrame:
    """The polygons, in pixels of 10 m without a CRS."""
    return tables(gathered(codes, shaping, **options))[0]


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Codes and the probability that they come from; obscured pixels have a probability too."""
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    values = st.sampled_from([0, 62, 63, 124, 125, 187, 188, 250])
    probability = draw(hnp.arrays(np.uint8, shape, elements=values, fill=st.nothing()))
    kinds = draw(st.sampled_from([[0], [0, 0, 0, 2, 255]]))
    veil = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from(kinds), fill=st.nothing()))
    codes = np.where(veil == 0, probability >= 125, veil).astype(np.uint8)
    probability[codes == 255] = 255
    return codes, probability


@pytest.mark.parametrize("shaping", SHAPES, ids=["4", "8", "contour"])
@given(scene=scenes(), height=st.integers(1, 9), fill=st.sampled_from([0, 150, 450]))
@settings(max_examples=60, deadline=None)
def test_the_same_whatever_the_strips(
    shaping: Shaping, scene: tuple[np.ndarray, np.ndarray], height: int, fill: float
) -> None:
    shaping = Shaping(shaping.edges, connectivity=shaping.connectivity, fill_holes=fill)
    whole = gathered(scene[0], shaping, scene[1], shoreline=True)
    cut = gathered(scene[0], shaping, scene[1], shoreline=True, height=height)
    for one, other in zip(tables(whole), tables(cut), strict=True):
        assert one.equals(other)


@pytest.mark.parametrize("shaping", SHAPES, ids=["4", "8", "contour"])
@given(
    scene=scenes(),
    fill=st.sampled_from([0, 150, 450]),
    simplify=st.sampled_from([0, 12, 30]),
    smooth=st.sampled_from([0, 10]),
    least=st.sampled_from([0, 150]),
)
@settings(max_examples=150, deadline=None)
def test_valid_after_any_clean_up(
    shaping: Shaping,
    scene: tuple[np.ndarray, np.ndarray],
    fill: float,
    simplify: float,
    smooth: float,
    least: float,
) -> None:
    """Also apart from each other, measured right, and never over what was not observed."""
    shaping = Shaping(
        shaping.edges,
        connectivity=shaping.connectivity,
        fill_holes=fill,
        simplify=simplify,
        smooth=smooth,
        min_area=least,
    )
    found = table(scene[0], shaping, probability=scene[1])
    assert found.is_valid.all()
    area = found.geometry.union_all()
    assert area.area == pytest.approx(found.area.sum(), abs=1e-6)
    assert found.area_m2.to_numpy() == pytest.approx(found.area.to_numpy())
    assert found.perimeter_m.to_numpy() == pytest.approx(found.length.to_numpy())
    assert all(polygon.exterior.is_ccw for polygon in shapely.get_parts(found.geometry.array))
    y, x = np.nonzero((scene[0] == 2) | (scene[0] == 255))
    if not simplify:
        assert not shapely.contains_xy(area, *(PIXEL @ (x + 0.5, y + 0.5))).any()


@pytest.mark.parametrize("shaping", SHAPES, ids=["4", "8", "contour"])
@given(scene=scenes())
@settings(max_examples=80, deadline=None)
def test_statistics_are_those_of_the_pixels_inside(
    shaping: Shaping, scene: tuple[np.ndarray, np.ndarray]
) -> None:
    codes, probability = scene
    y, x = np.mgrid[: codes.shape[0], : codes.shape[1]] + 0.5
    for row in table(codes, shaping, probability=probability).itertuples():
        inside = probability[shapely.contains_xy(row.geometry, *(PIXEL @ (x, y))) & (codes == 1)]
        assert row.mean_probability == pytest.approx(inside.mean() / 250)
        assert row.min_probability == pytest.approx(inside.min() / 250)
        likely = 100 * (inside >= 188).sum()
        assert row.area_low_m2 == pytest.approx(min(row.area_m2, likely))
        assert row.area_high_m2 >= max(row.area_m2, 100 * inside.size) - 1e-6


@pytest.mark.parametrize("connectivity", [4, 8])
@given(scene=scenes())
@settings(max_examples=80, deadline=None)
def test_upper_bounds_share_out_the_possible_water(
    connectivity: Literal[4, 8], scene: tuple[np.ndarray, np.ndarray]
) -> None:
    """All of it that lies in one piece with water, and no more."""
    codes, probability = scene
    possible = ((codes == 1) | ((codes == 0) & (probability >= 63))).astype(np.uint8)
    bodies = table(possible, Shaping())
    wet = table(codes, Shaping(connectivity=connectivity), probability=probability)
    parts = shapely.get_parts(wet.geometry.array)
    inside = shapely.STRtree(bodies.geometry.array).query(parts, "covered_by")[1]
    expected = bodies.area.iloc[np.unique(inside)].sum()
    assert wet.area_high_m2.sum() == pytest.approx(expected)


@pytest.mark.parametrize("shaping", SHAPES, ids=["4", "8", "contour"])
@given(scene=scenes(), least=st.sampled_from([0, 150]))
@settings(max_examples=40, deadline=None)
def test_tables_in_parts_are_the_whole(
    shaping: Shaping, scene: tuple[np.ndarray, np.ndarray], least: float
) -> None:
    shaping = Shaping(shaping.edges, connectivity=shaping.connectivity, min_area=least)
    whole = gathered(scene[0], shaping, scene[1], shoreline=True)
    with pytest.MonkeyPatch.context() as monkeypatch:
        polygons, lines = tables(whole)
        monkeypatch.setattr(vectors, "_FEATURES", 2)
        parts = gathered(scene[0], shaping, scene[1], shoreline=True).tables(PIXEL)
        for kind, expected in (("polygons", polygons), ("shoreline", lines)):
            cut = list(parts[kind])
            assert max(len(part) for part in cut) <= (2 if kind == "polygons" else len(lines))
            rows = [row for part in cut for row in part.to_dict("records")]
            assert [repr(row) for row in rows] == [repr(row) for row in expected.to_dict("records")]


def test_clean_up_that_looks_at_neighbours_sees_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "_FEATURES", 1)
    assert table(NESTED, Shaping(fill_holes=900)).area_m2.tolist() == [3200, 2500]
    squares = np.kron(np.eye(4, dtype=np.uint8), np.ones((5, 5), np.uint8))
    (parts,) = gathered(squares, Shaping(simplify=20)).tables(PIXEL).values()
    assert [len(one) for one in parts] == [4]


NESTED = pixels("""
    #########
    #.......#
    #.#####.#
    #.#...#.#
    #.#.#.#.#
    #.#...#.#
    #.#####.#
    #.......#
    #########
    """)


@pytest.mark.parametrize(
    ("fill", "areas"),
    [(0, [3200, 1600, 100]), (899, [3200, 1600, 100]), (900, [3200, 2500]), (4900, [8100])],
)
def test_filled_holes_take_what_lies_in_them(fill: float, areas: list[float]) -> None:
    assert table(NESTED, Shaping(fill_holes=fill)).area_m2.tolist() == areas


@pytest.mark.parametrize("code", [2, 255])
@pytest.mark.parametrize("edges", ["pixel", "contour"])
def test_holes_with_something_not_observed_are_never_filled(edges: str, code: int) -> None:
    codes = np.ones((5, 9), np.uint8)
    codes[1:4, 1:4] = codes[1:4, 5:8] = 0
    codes[2, 2] = code
    probability = (codes == 1).astype(np.uint8) * 250
    found = table(codes, Shaping(edges=edges, fill_holes=1e9), probability=probability)
    (polygon,) = found.geometry
    (hole,) = polygon.interiors
    assert shapely.Polygon(hole).contains(shapely.Point(25, -25))


def test_small_polygons_go_and_their_shorelines_with_them() -> None:
    codes = pixels("#..##.\n......")
    polygons, lines = tables(gathered(codes, Shaping(min_area=150), shoreline=True))
    assert (polygons.area_m2.tolist(), lines.length_m.tolist()) == ([200], [40])
    _, lines = tables(gathered(codes, Shaping(), shoreline=True))
    assert lines.length_m.tolist() == [20, 40]


@pytest.mark.parametrize("code", [0, 1, 2])
def test_shorelines_of_any_code_bound_its_polygons(code: int) -> None:
    """The probability of water places the shores of water alone."""
    codes = pixels("....\n.#o.\n.#o.\n....")
    probability = np.where(codes == 1, 200, 20).astype(np.uint8)
    _, plain = tables(gathered(codes, Shaping(code=code), shoreline=True))
    _, known = tables(gathered(codes, Shaping(code=code), probability, shoreline=True))
    assert len(known) == len(plain) > 0
    assert known.geometry.equals(plain.geometry) == (code != 1)


def test_neighbours_keep_their_shared_edge_when_simplified() -> None:
    """A staircase of 4-connected squares that touch at corners: simplified, still touching."""
    codes = np.kron(np.eye(4, dtype=np.uint8), np.ones((5, 5), np.uint8))
    found = table(codes, Shaping(simplify=20))
    assert len(found) == 4
    assert shapely.coverage_is_valid(found.geometry.array)
    assert found.geometry.union_all().is_valid


def test_simplifying_takes_out_steps() -> None:
    codes = np.tri(40, dtype=np.uint8)
    (polygon,) = table(codes, Shaping(simplify=15)).geometry
    assert len(polygon.exterior.coords) < 12
    assert polygon.area == pytest.approx(820 * 100, rel=0.03)


@pytest.mark.parametrize("edges", ["pixel", "contour"])
def test_smoothing_leaves_what_is_no_shore(edges: str) -> None:
    """On the raster's frame and along pixels that nobody saw nothing moves; steps of shore do."""
    codes = pixels("""
        #####x..
        ####xx..
        ###.....
        ##......
        #.......
        """)
    probability = np.where(codes == 255, 255, 250 * codes).astype(np.uint8)
    parts = []
    for smooth in (0, 10):
        (polygon,) = table(codes, Shaping(edges, smooth=smooth), probability=probability).geometry
        blank = shapely.box(40, -20, 60, 0)
        frame = shapely.LineString([(0, -50), (0, 0), (80, 0)])
        parts.append([polygon.intersection(one) for one in (frame, blank.boundary)])
        parts[-1].append(polygon.difference(shapely.box(0, -20, 80, 0)))
    assert parts[0][0].equals(parts[1][0])
    assert parts[0][1].equals(parts[1][1])
    assert not parts[0][2].equals(parts[1][2])


def test_areas_are_true_in_any_output_crs() -> None:
    codes = NESTED
    (plain,) = tables(gathered(codes, Shaping()), UTM, "EPSG:32631")
    (moved,) = tables(gathered(codes, Shaping()), UTM, "EPSG:32631", to_crs="EPSG:3857")
    assert moved.crs.to_epsg() == 3857
    assert moved.area_m2.tolist() == plain.area_m2.tolist()
    assert moved.area.iloc[0] > 1.7 * plain.area.iloc[0]
    assert moved.to_crs(plain.crs).geometry.geom_equals_exact(plain.geometry, 1e-3).all()


def test_long_edges_bend_with_the_crs() -> None:
    """100 km along a row of UTM is no straight line in degrees."""
    codes = np.ones((10, 10_000), np.uint8)
    (found,) = tables(gathered(codes, Shaping()), UTM, "EPSG:32631", to_crs="EPSG:4326")
    (back,) = found.to_crs(32631).geometry
    assert back.symmetric_difference(shapely.box(399960, 4699940, 499960, 4700040)).area < 100


def test_what_crosses_the_antimeridian_stays_in_one_piece_in_degrees() -> None:
    codes = np.kron(NESTED, np.ones((4, 4), np.uint8))
    place = Affine(1000, 0, 818_000 - 500 * codes.shape[1], 0, -1000, 2_000_000), "EPSG:32660"
    outliner = gathered(codes, Shaping(), shoreline=True)
    polygons, lines = tables(outliner, *place, to_crs="EPSG:4326")
    assert polygons.is_valid.all()
    for found in (polygons, lines):
        west, _, east, _ = found.total_bounds
        assert 179 < west < 180 < east < 181
    assert polygons.to_crs("+proj=cea +lon_0=180").area.to_numpy() == pytest.approx(
        polygons.area_m2.to_numpy(), rel=1e-4
    )


def test_an_output_crs_that_ends_before_the_raster_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"must reach .* \+proj=ortho \+lat_0=-80"):
        tables(gathered(NESTED, Shaping()), UTM, "EPSG:32631", to_crs="+proj=ortho +lat_0=-80")


def test_contours_and_shorelines_of_a_geographic_raster_have_true_sizes() -> None:
    degree = Affine(0.0001, 0, 10, 0, -0.0001, 60)
    codes = np.zeros((30, 30), np.uint8)
    codes[5:25, 5:25] = 1
    outliner = gathered(codes, Shaping(edges="contour"), codes * 250, shoreline=True)
    found, lines = tables(outliner, degree, "EPSG:4326")
    (row,), geod = found.itertuples(), found.crs.get_geod()
    area, length = geod.geometry_area_perimeter(row.geometry)
    assert row.area_m2 == pytest.approx(area, rel=1e-6)
    assert row.perimeter_m == pytest.approx(length, rel=1e-6)
    assert lines.length_m.sum() == pytest.approx(length)


def test_the_columns() -> None:
    codes = pixels("##.\n##.")
    outliner = gathered(codes, Shaping(), codes * 200, shoreline=True)
    polygons, lines = tables(outliner, UTM, "EPSG:32631", extra={"source": "a.tif"})
    assert polygons.columns.tolist() == [
        *("class", "area_m2", "perimeter_m", "area_low_m2", "area_high_m2"),
        *("mean_probability", "min_probability", "touches_edge", "touches_unobserved"),
        *("source", "geometry"),
    ]
    assert polygons.source.tolist() == ["a.tif"]
    assert lines.columns.tolist() == ["length_m", "closed", "gradient", "source", "geometry"]
    assert table(codes, Shaping()).columns.tolist() == [
        *("class", "area_m2", "perimeter_m", "touches_edge", "touches_unobserved", "geometry"),
    ]


def test_codes_rule_where_rounding_hides_the_decision() -> None:
    """0.499 rounds to the stored 125, which alone would be water."""
    codes, probability = np.array([[0, 1]], np.uint8), np.array([[125, 125]], np.uint8)
    (polygon,) = table(codes, Shaping(edges="contour"), probability=probability).geometry
    assert not polygon.contains(shapely.Point(5, -5))
    assert polygon.contains(shapely.Point(15, -5))


@pytest.mark.parametrize(
    "options",
    [
        {"min_area": -1},
        {"fill_holes": float("nan")},
        {"simplify": float("inf")},
        {"edges": "round"},
        {"smooth": -1},
        {"connectivity": 6},
        {"threshold": 1},
        {"edges": "contour", "connectivity": 8},
        {"edges": "contour", "code": 2},
        {"code": 256},
    ],
)
def test_shapings_that_are_none_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="got"):
        Shaping(**options)


def test_contours_need_a_probability() -> None:
    with pytest.raises(ConfigError, match="there is none"):
        Outliner(3, Shaping(edges="contour"))


def test_output_crs_that_cannot_be_are_refused() -> None:
    check_crs(None, None)
    check_crs("EPSG:4326", "EPSG:32631")
    with pytest.raises(ConfigError, match="does not lead to EPSG:4326"):
        check_crs("EPSG:4326", 'LOCAL_CS["a building", UNIT["metre", 1]]')
    with pytest.raises(ConfigError, match="without a CRS"):
        check_crs("EPSG:4326", None)
    with pytest.raises(ConfigError, match="got 'EPSG:0'"):
        check_crs("EPSG:0", "EPSG:32631")


# -- files -----------------------------------------------------------------------------------------


def write(
    path: Path,
    rows: np.ndarray,
    *,
    scale: float = 1.0,
    crs: str | None = "EPSG:32631",
    transform: Affine = UTM,
    layout: Mapping[str, object] = MappingProxyType({}),
    **tags: str,
) -> Path:
    profile = {"driver": "GTiff", "dtype": rows.dtype, "count": 1, "nodata": 255, **layout}
    size = {"height": rows.shape[0], "width": rows.shape[1]}
    with rasterio.open(path, "w", **profile, **size, crs=crs, transform=transform) as file:
        file.write(rows, 1)
        if scale != 1:
            file.scales = (scale,)
        if tags:  # they move the directory to the file's end
            file.update_tags(**tags)
    return path


def test_a_mask_a_probability_and_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlines, "_STRIP_PIXELS", 40)
    probability = np.random.default_rng(4).integers(0, 251, (30, 20)).astype(np.uint8)
    codes = (probability >= 125).astype(np.uint8)
    mask = write(tmp_path / "mask.tif", codes, SOURCE="scene.tif", ACQUIRED="2023-05-01")
    level = write(tmp_path / "level.tif", probability, scale=1 / 250)
    alone = vectorize(mask).polygons
    assert alone.area_m2.sum() == pytest.approx(codes.sum() * 100, rel=1e-3)
    assert alone[["source", "acquired"]].iloc[0].tolist() == ["scene.tif", "2023-05-01"]
    both = vectorize(mask, probability=level, shaping=Shaping(edges="contour"), shoreline=True)
    lone = vectorize(level, shaping=Shaping(edges="contour"), shoreline=True)
    assert both.polygons.geometry.geom_equals(lone.polygons.geometry).all()
    assert lone.polygons.source.iloc[0] == "level.tif"
    assert both.shorelines is not None
    assert both.shorelines.gradient.gt(0).all()
    assert vectorize(mask).shorelines is None


@pytest.mark.parametrize("transform", [UTM, UTM @ Affine.rotation(31)])
@pytest.mark.parametrize("tiled", [True, False])
def test_polygons_of_a_file_are_rasterios(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transform: Affine, tiled: bool
) -> None:
    monkeypatch.setattr(outlines, "_STRIP_PIXELS", 100 * 40)
    mask = (np.random.default_rng(2).random((130, 100)) < 0.6).astype(np.uint8)
    layout = {"tiled": True, "blockxsize": 32, "blockysize": 32} if tiled else {"blockysize": 130}
    path = write(tmp_path / "mask.tif", mask, transform=transform, layout=layout)
    found = polygonize(path, min_area=150)
    assert found.crs == pyproj.CRS("EPSG:32631")
    expected = shapes(mask, mask=mask == 1, transform=transform)
    expected = [shapely.geometry.shape(shape) for shape, _ in expected]
    expected = [shape for shape in expected if shape.area > 150]
    both = [shapely.normalize(np.array(one)) for one in (found.geometry, expected)]
    assert set(shapely.to_wkb(both[0])) == set(shapely.to_wkb(both[1]))


def test_a_file_without_crs_works(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        write(path, pixels("#.#"), crs=None, transform=Affine.identity(), layout={"driver": "PNG"})
    found = polygonize(path)
    assert found.crs is None
    assert found.area_m2.tolist() == [1.0, 1.0]


def test_what_is_not_a_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match=r"a mask must exist: there is no .*none\.tif"):
        polygonize(tmp_path / "none.tif")
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(SceneError, match=r"a mask must be a raster that GDAL opens; .*text\.tif"):
        polygonize(tmp_path / "text.tif")
    with pytest.raises(SceneError, match=r"one uint8 band.* gdalwarp -ot Byte"):
        polygonize(write(tmp_path / "float.tif", np.zeros((2, 2), np.float32)))
    path = write(tmp_path / "cut.tif", np.ones((400, 400), np.uint8))
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(SceneError, match="cannot be read"):
        polygonize(path)


@pytest.mark.parametrize(
    ("codes", "nodata", "code", "told"),
    [((0, 255), None, 1, 1), ((0, 255), 0, 1, 1), ((0, 255), 255, 1, 0), ((0, 255), None, 0, 0),
     ((1, 255), None, 1, 0), ((0, 2), None, 1, 0)],
)  # fmt: skip
def test_a_white_picture_of_water_is_told(
    tmp_path: Path, codes: tuple[int, int], nodata: int | None, code: int, told: int
) -> None:
    pixels = np.repeat(np.array(codes, np.uint8), 8).reshape(4, 4)
    mask = write(tmp_path / "mask.tif", pixels, layout={"nodata": nodata})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outlines.vectorize(mask, shaping=Shaping(code=code))
    said = ["255, which it does not call nodata" in str(one.message) for one in caught]
    assert said == [True] * told


def test_pairs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    codes = np.zeros((4, 5), np.uint8)
    mask, other = write(tmp_path / "a.tif", codes), write(tmp_path / "b.tif", codes[:3])
    level = write(tmp_path / "c.tif", codes, scale=1 / 250)
    with pytest.raises(SceneError, match="differ in grid"):
        vectorize(mask, probability=other)
    with pytest.raises(SceneError, match="no water probability"):
        vectorize(mask, probability=mask)
    with pytest.raises(ConfigError, match="probability already"):
        vectorize(level, probability=level)
    with pytest.raises(SceneError, match="uint8"):
        vectorize(write(tmp_path / "d.tif", codes.astype(np.uint16)))
    with pytest.raises(SceneError, match=r"e\.tif has 1 bands of type uint8 with scale 0\.5\."):
        vectorize(write(tmp_path / "e.tif", codes, scale=0.5))
    with pytest.raises(SceneError, match=r"a mask must exist: there is no .*none\.tif"):
        vectorize(tmp_path / "none.tif")


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("strange", [251, 255])
def test_a_probability_knows_what_its_mask_does(tmp_path: Path, code: int, strange: int) -> None:
    """Such a pixel would have no statistics, and no place in contours."""
    codes = np.array([[code, 2, 255]], np.uint8)
    mask = write(tmp_path / "mask.tif", codes)
    level = write(tmp_path / "level.tif", np.full((1, 3), strange, np.uint8), scale=1 / 250)
    with pytest.raises(SceneError, match=rf"0 to 250; \S+level\.tif holds {strange} there"):
        vectorize(mask, probability=level)
    hidden = write(tmp_path / "hidden.tif", np.full((1, 3), 255, np.uint8))
    assert vectorize(hidden, probability=level).polygons.empty


@given(data=st.data(), edges=st.sampled_from(["pixel", "contour", "8"]), height=st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_polygons_know_the_scenes_of_their_pixels(
    data: st.DataObject, edges: str, height: int
) -> None:
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    codes = data.draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 1, 255])))
    origin = data.draw(hnp.arrays(np.uint16, shape, elements=st.integers(0, 2)))
    level = np.where(codes == 255, 255, 250 * codes).astype(np.uint8)
    shaping = Shaping(connectivity=8) if edges == "8" else Shaping(edges=edges)
    origins = [Origin("b"), Origin("c", "2024-05-03"), Origin("a", "2024-05-01")]
    outliner = Outliner(shape[1], shaping, probability=edges == "contour", origins=origins)
    for top in range(0, shape[0], height):
        rows = slice(top, top + height)
        chance = level[rows] if edges == "contour" else None
        outliner.add(codes[rows], chance, origin[rows])
    (frame,) = tables(outliner, Affine.identity(), extra={"source": "mosaic", "more": "x"})
    y, x = np.nonzero(codes == 1)
    for row in frame.itertuples():
        inside = shapely.contains_xy(row.geometry, x + 0.5, y + 0.5)
        chosen = [origins[number] for number in set(origin[y, x][inside].tolist())]
        times = sorted({one.acquired for one in chosen} - {None})
        assert row.source == ", ".join(sorted(one.source for one in chosen))
        assert (row.acquired if isinstance(row.acquired, str) else "") == "/".join(times)
        assert row.more == "x"


@pytest.mark.parametrize("suffix", ["gpkg", "fgb", "parquet", "geojson"])
def test_every_format_holds_polygons_and_shorelines(tmp_path: Path, suffix: str) -> None:
    codes = pixels("##..\n##.#\n....")
    mask = write(tmp_path / "mask.tif", codes)
    made = vectorize_to_files(mask, tmp_path / f"water.{suffix}", shoreline=True)
    assert made["shoreline"].name == f"water_shoreline.{suffix}"
    read = gpd.read_parquet if suffix == "parquet" else gpd.read_file
    polygons, lines = (read(made[kind]) for kind in ("polygons", "shoreline"))
    assert sorted(polygons.area_m2.round()) == [100, 400]
    assert (lines.geom_type == "LineString").all()
    assert len(lines) == 2
    with pytest.raises(OutputError, match="may not exist"):
        vectorize_to_files(mask, made["polygons"])
    vectorize_to_files(mask, made["polygons"], overwrite=True)


def test_geojson_without_a_crs_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    mask = write(tmp_path / "mask.tif", pixels("##.."), crs=None)
    told: list[object] = []
    with pytest.raises(ConfigError, match="GeoJSON is in WGS 84"):
        vectorize_to_files(mask, tmp_path / "out" / "water.geojson", on_progress=told.append)
    assert (told, [path.name for path in tmp_path.iterdir()]) == ([], ["mask.tif"])


def test_a_gradient_that_is_not_known_is_null_in_geojson(tmp_path: Path) -> None:
    level = write(tmp_path / "p.tif", np.array([[250, 0]], np.uint8), scale=1 / 250)
    made = vectorize_to_files(level, tmp_path / "p.geojson", shoreline=True)
    (line,) = json.loads(made["shoreline"].read_text())["features"]
    assert line["properties"]["gradient"] is None


def test_contours_finer_than_a_centimetre_stay_valid_in_geojson(tmp_path: Path) -> None:
    """Rounded to 7 decimals of a degree, the diamond round a lone 125 would be a point."""
    field = np.zeros((3, 3), np.uint8)
    field[1, 1] = 125
    level = write(tmp_path / "p.tif", field, scale=1 / 250)
    with rasterio.open(level, "r+") as file:
        file.transform = Affine(0.1, 0, 399960, 0, -0.1, 4700040)
    made = vectorize_to_files(level, tmp_path / "p.geojson", shaping=Shaping(edges="contour"))
    (polygon,) = gpd.read_file(made["polygons"]).geometry
    assert polygon.is_valid
    assert polygon.area > 0


def test_no_water_at_all_is_an_empty_layer(tmp_path: Path) -> None:
    mask = write(tmp_path / "mask.tif", np.zeros((3, 3), np.uint8))
    shaping = Shaping(fill_holes=100, simplify=10)
    made = vectorize_to_files(mask, shaping=shaping, shoreline=True, to_crs="EPSG:4326")
    assert made["polygons"] == tmp_path / "mask.gpkg"
    assert all(len(gpd.read_file(path)) == 0 for path in made.values())

"""Contours equal contourpy's, know no strips, and keep what was not observed apart from shore."""

from __future__ import annotations

import pickle
import tracemalloc
from itertools import pairwise
from pathlib import Path

import contourpy
import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geounet import contours, vectors
from geounet.contours import Contourer, ContourPolygons, level_of, stretched
from geounet.errors import ConfigError
from geounet.vectors import polygonize_rows

SAMPLE = Path(__file__).parents[1] / "sample_data"
UTM = Affine(10, 0, 399960, 0, -10, 4700040)
BLANK = 255


def strips(field: np.ndarray, height: int) -> list[np.ndarray]:
    return [field[top : top + height] for top in range(0, len(field), height)]


def found(field: np.ndarray, height: int = 99) -> ContourPolygons:
    contourer = Contourer(field.shape[1])
    for rows in strips(field, height):
        contourer.add(rows)
    return contourer.finish()


def pixel_edges(field: np.ndarray) -> ContourPolygons:
    contourer = Contourer(field.shape[1], smooth=False)
    contourer.add(field)
    return contourer.finish()


def squares(where: np.ndarray) -> shapely.Geometry:
    """The area of the pixels where it is True."""
    return shapely.union_all([shapely.box(x, y, x + 1, y + 1) for y, x in np.argwhere(where)])


def holds(area: shapely.Geometry, shape: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres lie in an area."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return shapely.contains_xy(area, x, y)


@st.composite
def fields(draw: st.DrawFn, *, blanks: bool = True) -> np.ndarray:
    """Small rasters of stored probabilities, dense in saddles and values beside the level."""
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    values = draw(st.sampled_from([[0, 250], [0, 60, 124, 125, 126, 200, 250], [124, 125]]))
    if blanks:
        values = [*values, *draw(st.sampled_from([[], [BLANK], [BLANK, BLANK]]))]
    return draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from(values), fill=st.nothing()))


@given(field=fields(), height=st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_the_same_whatever_the_strips(field: np.ndarray, height: int) -> None:
    whole, cut = found(field), found(field, height)
    for name in ("vertices", "shore", "ring_offsets", "polygon_offsets", "touches_edge"):
        assert np.array_equal(getattr(whole, name), getattr(cut, name))
    assert np.array_equal(whole.steep, cut.steep, equal_nan=True)


@given(field=fields())
@settings(max_examples=300, deadline=None)
def test_valid_apart_and_with_the_water_inside(field: np.ndarray) -> None:
    polygons = found(field)
    geometries = polygons.geometries()
    assert shapely.is_valid(geometries).all()
    area = shapely.union_all(geometries)
    assert area.area == pytest.approx(shapely.area(geometries).sum(), abs=1e-9)
    assert (holds(area, field.shape) == ((field >= 125) & (field != BLANK))).all()
    assert area.intersection(squares(field == BLANK)).area < 1e-6
    for polygon in geometries:
        assert polygon.exterior.is_ccw
        assert not any(hole.is_ccw for hole in polygon.interiors)


@given(field=fields(blanks=False))
@settings(max_examples=200, deadline=None)
def test_equal_to_contourpy_between_the_centres(field: np.ndarray) -> None:
    """contourpy ends at the outer centres; so compare what lies between them."""
    if min(field.shape) < 2:
        return
    generator = contourpy.contour_generator(
        z=stretched(field), fill_type=contourpy.FillType.OuterOffset
    )
    points, offsets = generator.filled(stretched(124.5), 1e9)
    expected = [
        shapely.Polygon(rings[0], rings[1:])
        for rings in (
            [xy[a:b] + 0.5 for a, b in pairwise(at)] for xy, at in zip(points, offsets, strict=True)
        )
    ]
    inner = shapely.box(0.5, 0.5, field.shape[1] - 0.5, field.shape[0] - 0.5)
    got = shapely.union_all(found(field).geometries()).intersection(inner)
    wanted = shapely.union_all(shapely.make_valid(expected))
    assert got.symmetric_difference(wanted).area < 1e-6


@given(field=fields())
@settings(max_examples=100, deadline=None)
def test_without_interpolation_it_is_the_pixels(field: np.ndarray) -> None:
    """Only the shorelines of masks use it: rings may touch themselves at corners."""
    wet = (field >= 125) & (field != BLANK)
    polygons = pixel_edges(field)
    assert (polygons.vertices == np.round(polygons.vertices)).all()
    area = shapely.union_all(shapely.make_valid(polygons.geometries()))
    assert area.symmetric_difference(squares(wet)).area == 0
    assert len(polygons) == len(polygonize_rows([wet.astype(np.uint8)], field.shape[1]))


@given(field=fields())
@settings(max_examples=150, deadline=None)
def test_shorelines_lie_between_observed_pixels(field: np.ndarray) -> None:
    wet = (field >= 125) & (field != BLANK)
    land = (field < 125) & (field != BLANK)
    domain = squares(wet | land)
    expected = squares(wet).boundary.difference(domain.boundary) if wet.any() else shapely.Point()
    lines = pixel_edges(field).shorelines().geometries()
    assert shapely.length(lines).sum() == pytest.approx(expected.length)
    assert shapely.union_all(lines).difference(expected.buffer(1e-9)).is_empty


@given(field=fields(), smooth=st.booleans())
@settings(max_examples=150, deadline=None)
def test_water_lies_left_of_shorelines(field: np.ndarray, smooth: bool) -> None:
    contourer = Contourer(field.shape[1], smooth=smooth)
    contourer.add(field)
    polygons = contourer.finish()
    water = shapely.union_all(shapely.make_valid(polygons.geometries(UTM)))
    frame = shapely.buffer(shapely.make_valid(water), 1e-4)
    for line in polygons.shorelines().geometries(UTM):
        assert line.is_valid
        start, end = np.array(line.coords[:2])
        middle, along = (start + end) / 2, end - start
        left = np.array([-along[1], along[0]]) / np.hypot(*along) * 1e-3
        assert frame.contains(shapely.Point(middle + left))
        assert not water.contains(shapely.Point(middle - left))


@given(field=fields())
@settings(max_examples=100, deadline=None)
def test_runs_know_their_polygon(field: np.ndarray) -> None:
    wet = (field >= 125) & (field != BLANK)
    y, x = np.nonzero(wet & ~np.pad(wet, ((0, 0), (1, 0)))[:, :-1])
    polygons = found(field)
    owner = polygons.geometries()[polygons.feature_of(x, y)]
    assert shapely.contains_xy(owner, x + 0.5, y + 0.5).all()


@given(field=fields(), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_selection_keeps_exactly_the_chosen(field: np.ndarray, seed: int) -> None:
    polygons = found(field)
    keep = np.random.default_rng(seed).random(len(polygons)) < 0.5
    chosen = polygons.select(keep)
    assert (chosen.geometries() == polygons.geometries()[keep]).all()
    assert (chosen.touches_unobserved == polygons.touches_unobserved[keep]).all()


def test_the_line_runs_where_the_level_is() -> None:
    """Between 250 and 0 half way, and beyond by what 124.5 is below 125."""
    (line,) = found(np.array([[250, 0]] * 3, np.uint8)).shorelines().geometries()
    x = 1 + 0.002 / 0.998 / 2
    assert line.coords[0] == pytest.approx((x, 0))
    assert line.coords[-1] == pytest.approx((x, 3))
    assert line.length == pytest.approx(3)


@pytest.mark.parametrize("share", range(0, 251, 10))
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_straight_shore_along_pixels_lies_where_their_shares_say(share: int, turns: int) -> None:
    """Linear interpolation puts the shore up to 0.09 pixels too near the mixed one's centre."""
    field = np.array([[250, 250, share, 0, 0]] * 5, np.uint8)
    turned = np.rot90(field, turns).copy()
    (line,) = found(turned).shorelines().geometries()
    across = np.array(line.coords)[:, turns % 2]
    expected = 2 + share / 250
    expected = 5 - expected if turns in (1, 2) else expected
    assert across == pytest.approx(np.full(len(across), expected), abs=0.0021)  # 124.5 for 125


def test_straight_shores_of_any_direction() -> None:
    """Shares of a half plane: the mean distance of vertices to its edge."""
    rng = np.random.default_rng(3)
    pixels = np.array([shapely.box(x, y, x + 1, y + 1) for y in range(10) for x in range(10)])
    distances = []
    for angle, shift in zip(rng.uniform(0, 2 * np.pi, 40), rng.uniform(-1, 1, 40), strict=True):
        normal = np.array([np.cos(angle), np.sin(angle)])
        corners = np.array([(0, -99), (0, 99), (-99, 99), (-99, -99)])
        frame = np.stack([normal, normal[::-1] * (-1, 1)])
        plane = shapely.Polygon(np.add(corners, (shift, 0)) @ frame + 5)
        share = shapely.area(shapely.intersection(pixels, plane)).reshape(10, 10)
        vertices = found(np.round(250 * share).astype(np.uint8)).shorelines().vertices - 5
        inner = vertices[(abs(vertices) < 3.5).all(axis=1)]
        distances.append(abs(inner @ normal - shift))
    assert np.concatenate(distances).mean() < 0.005


@pytest.mark.parametrize("threshold", [0.001, 0.3, 0.5, 0.99])
def test_vertices_lie_strictly_between_centres(threshold: float) -> None:
    """Of all pairs of values on both sides of the level, also as they are kept in 32 bits."""
    level = level_of(threshold)
    dry, wet = np.meshgrid(np.arange(level), np.arange(level, 251))
    pairs = np.stack([dry.ravel(), wet.ravel()], axis=1).astype(np.uint8)
    apart = np.full((len(pairs), 1), BLANK, np.uint8)
    for one, two in ((0, 1), (1, 0)):
        rows = np.concatenate([pairs[:, [one]], pairs[:, [two]], apart], axis=1)
        rows = np.repeat(rows, 2, axis=0)
        rows[1::2] = BLANK
        contourer = Contourer(3, threshold=threshold)
        contourer.add(rows)
        vertices = contourer.finish().vertices
        between = vertices[(vertices[:, 0] > 0) & (vertices[:, 0] < 2)][:, 0]
        assert len(between) >= len(pairs)
        assert ((between > 0.5) & (between < 1.5)).all()


def test_water_at_the_scenes_edge_follows_it() -> None:
    polygons = found(np.full((3, 4), 200, np.uint8))
    assert polygons.geometries()[0].equals(shapely.box(0, 0, 4, 3))
    assert len(polygons.vertices) == 4
    assert polygons.touches_edge.tolist() == [True]
    assert polygons.touches_unobserved.tolist() == [False]
    assert len(polygons.shorelines()) == 0


def test_a_not_observed_hole_follows_its_pixels_and_is_no_shore() -> None:
    field = np.zeros((7, 7), np.uint8)
    field[1:6, 1:6] = 250
    field[3, 3] = BLANK
    polygons = found(field)
    (polygon,) = polygons.geometries()
    assert shapely.Polygon(polygon.interiors[0]).equals(shapely.box(3, 3, 4, 4))
    assert polygons.touches_unobserved.tolist() == [True]
    assert polygons.touches_edge.tolist() == [False]
    (line,) = polygons.shorelines().geometries()
    assert line.is_closed
    assert line.length == pytest.approx(polygon.exterior.length)


def test_a_shoreline_is_broken_where_it_meets_a_cloud() -> None:
    field = np.full((6, 7), 250, np.uint8)
    field[:3] = 0
    field[2:5, 3] = BLANK
    lines = found(field).shorelines().geometries()
    ends = sorted(line.coords[i] for line in lines for i in (0, -1))
    level = pytest.approx(3 - 0.002 / 0.998 / 2, abs=1e-6)
    assert ends == [(0, level), (3, level), (4, level), (7, level)]


def test_the_gradient_is_that_of_the_probability() -> None:
    """A ramp of 50/250 a pixel of 10 m is 0.02 a metre, whatever its direction."""
    y, x = np.mgrid[:5, :40]
    for ramp in (x * 50, 125 + (y - 2) * 50, x * 30 + y * 40 - 400):
        field = np.clip(ramp, 0, 250).astype(np.uint8)
        (gradient,) = found(field).shorelines().attributes(UTM)["gradient"]
        assert gradient == pytest.approx(0.02, rel=1e-6)


def test_saddles_join_by_their_mean() -> None:
    assert len(found(np.array([[250, 100], [100, 250]], np.uint8))) == 1
    assert len(found(np.array([[150, 0], [0, 150]], np.uint8))) == 2


@pytest.mark.parametrize(
    ("threshold", "level"), [(0.5, 125), (0.25, 63), (0.75, 188), (0.001, 1), (0.3, 75), (0.37, 93)]
)
def test_the_least_stored_probability_that_is_water(threshold: float, level: int) -> None:
    assert level_of(threshold) == level


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0, float("nan")])
def test_refuses_levels_that_are_none(threshold: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        Contourer(3, threshold=threshold)


def test_refuses_rows_of_another_kind() -> None:
    with pytest.raises(ConfigError, match=r"uint8\[n, 3\]; got float64\[2, 3\]"):
        Contourer(3).add(np.zeros((2, 3)))
    with pytest.raises(ConfigError, match="width=0"):
        Contourer(0)


def test_nothing_at_all() -> None:
    polygons = found(np.zeros((2, 2), np.uint8))
    assert len(polygons) == 0
    assert polygons.geometries().tolist() == []
    assert len(polygons.shorelines()) == 0
    assert len(polygons.shorelines().attributes(UTM)["length_m"]) == 0


def test_constant_pixels_are_dropped_as_they_are_scanned() -> None:
    contourer = Contourer(1000)
    for _ in range(20):
        contourer.add(np.full((1000, 1000), 250, np.uint8))
    held = len(pickle.dumps(contourer._gathered))
    assert held < 20_000 * 2 * 40  # two vertices a row; the pixels were 20 MB
    assert contourer.finish().geometries()[0].area == 2e7


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    field = np.random.default_rng(2).integers(0, 256, (120, 90)).astype(np.uint8)
    whole = found(field)
    monkeypatch.setattr(contours, "_CHUNK_PIXELS", 90 * 7)
    assert (found(field).vertices == whole.vertices).all()
    areas = shapely.area(whole.geometries())
    for module in (contours, vectors):
        monkeypatch.setattr(module, "_BLOCK", 50)
    cut = found(field)
    assert (cut.vertices == whole.vertices).all()
    assert (cut.ring_offsets == whole.ring_offsets).all()
    assert cut.areas() == pytest.approx(areas)


def test_memory_grows_by_the_boundary_alone() -> None:
    """At the end about 50 bytes a vertex are held at once, 21 of which are the result."""
    field = np.random.default_rng(4).integers(0, 251, (600, 600)).astype(np.uint8)
    contourer = Contourer(600)
    contourer.add(field)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    polygons = contourer.finish()
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert peak < 90 * len(polygons.vertices)  # the parts that are worked on at once included


def test_names_beyond_32_bits() -> None:
    """Of rasters with over two billion pixels."""
    names = contours._Growing(np.uint32)
    names.add(np.array([5, 2**32 - 1]))
    assert names.array.dtype == np.uint32
    names.add(np.array([2**32, 2**40]))
    assert names.array.tolist() == [5, 2**32 - 1, 2**32, 2**40]


def test_a_hundredth_of_a_pixel_from_the_true_shore() -> None:
    """On the made scene, with the exact share of water in each pixel as the probability."""
    truth = gpd.read_file(SAMPLE / "truth_shoreline.fgb").geometry.union_all()
    shapely.prepare(truth)
    with rasterio.open(SAMPLE / "truth_water_fraction.tif") as source:
        field, transform = source.read(1), source.transform

    def distance(polygons: ContourPolygons) -> float:
        lines = shapely.segmentize(polygons.shorelines().geometries(transform), 5.0)
        points = shapely.points(shapely.get_coordinates(lines))
        return float(shapely.distance(points, truth).mean() / transform.a)

    assert distance(found(field, 100)) < 0.01
    assert distance(pixel_edges(field)) > 0.2

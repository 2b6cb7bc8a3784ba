"""Polygons equal rasterio's, whatever the strips; areas and attributes."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.features import shapes

from geounet import vectors
from geounet.errors import ConfigError
from geounet.vectors import Polygonizer, polygonize_rows

UTM = Affine(10, 0, 399960, 0, -10, 4700040)
COS, SIN = np.cos(np.radians(31)).item(), np.sin(np.radians(31)).item()
ROTATED = Affine(10 * COS, 20 * SIN, 5e5, 10 * SIN, -20 * COS, 5e6)
COLUMNS = ["class", "area_m2", "perimeter_m", "touches_edge", "touches_unobserved", "geometry"]


def pixels(text: str) -> np.ndarray:
    """A mask from a drawing: # water, . land, o obscured, space not observed."""
    lines = textwrap.dedent(text).strip("\n").splitlines()
    codes = {"#": 1, ".": 0, "o": 2, "x": 255}
    return np.array([[codes[letter] for letter in line] for line in lines], np.uint8)


def strips(mask: np.ndarray, height: int) -> list[np.ndarray]:
    return [mask[top : top + height] for top in range(0, len(mask), height)]


def reference(mask: np.ndarray, connectivity: int = 4, transform: Affine | None = None) -> list:
    found = shapes(
        mask, mask=mask == 1, connectivity=connectivity, transform=transform or Affine.identity()
    )
    return [shapely.geometry.shape(geometry) for geometry, _ in found]


def as_set(geometries: list) -> list[bytes]:
    return sorted(shapely.to_wkb(shapely.normalize(np.asarray(geometries, dtype=object))))


def assert_sound(mask: np.ndarray, geometries: np.ndarray) -> None:
    """Valid, shells counter-clockwise, holes clockwise, and as many pixels as the mask."""
    assert shapely.is_valid(geometries).all()
    assert shapely.area(geometries).sum() == (mask == 1).sum()
    for polygon in shapely.get_parts(geometries):
        assert polygon.exterior.is_ccw
        assert not any(hole.is_ccw for hole in polygon.interiors)


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    """Small masks of every shape and density; most hold checkerboards and nested rings."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    codes = draw(st.sampled_from([[0, 1], [0, 1, 1, 1], [0, 0, 0, 1], [0, 1, 2, 255]]))
    return draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from(codes), fill=st.nothing()))


@given(mask=masks(), height=st.integers(1, 13))
@settings(max_examples=300, deadline=None)
def test_equal_to_rasterio_whatever_the_strips(mask: np.ndarray, height: int) -> None:
    geometries = polygonize_rows(strips(mask, height), mask.shape[1]).geometries()
    assert_sound(mask, geometries)
    assert as_set(geometries) == as_set(reference(mask))


@given(mask=masks(), height=st.integers(1, 13))
@settings(max_examples=200, deadline=None)
def test_8_connected_covers_what_rasterio_covers(mask: np.ndarray, height: int) -> None:
    polygons = polygonize_rows(strips(mask, height), mask.shape[1], connectivity=8)
    geometries = polygons.geometries()
    assert_sound(mask, geometries)
    assert (shapely.get_type_id(geometries) == shapely.GeometryType.MULTIPOLYGON).all()
    expected = [
        shapely.MultiPolygon(shapely.get_parts(shapely.make_valid(one)).tolist())
        for one in reference(mask, 8)
    ]
    assert as_set(geometries) == as_set(expected)


@given(mask=masks())
@settings(max_examples=100, deadline=None)
def test_flags_of_each_polygon(mask: np.ndarray) -> None:
    polygons = polygonize_rows(strips(mask, 3), mask.shape[1])
    unobserved = np.pad((mask == 2) | (mask == 255), 1)
    beside = unobserved[:-2, 1:-1] | unobserved[2:, 1:-1] | unobserved[1:-1, :-2]
    beside |= unobserved[1:-1, 2:]
    rim = np.ones(mask.shape, bool)
    rim[1:-1, 1:-1] = False
    for number, geometry in enumerate(polygons.geometries()):
        body = rasterio.features.rasterize([geometry], mask.shape).astype(bool)
        assert polygons.touches_edge[number] == rim[body].any()
        assert polygons.touches_unobserved[number] == beside[body].any()


@given(mask=masks(), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_selection_keeps_exactly_the_chosen(mask: np.ndarray, seed: int) -> None:
    for connectivity in (4, 8):
        polygons = polygonize_rows([mask], mask.shape[1], connectivity=connectivity)
        keep = np.random.default_rng(seed).random(len(polygons)) < 0.5
        chosen = polygons.select(keep)
        assert (chosen.geometries() == polygons.geometries()[keep]).all()
        assert (chosen.touches_edge == polygons.touches_edge[keep]).all()


CASES = {
    "pinched ring: a hole that touches its shell": """
        .##.
        #.##
        ####
        """,
    "ring round land that leaks at corners only": """
        .#.
        #.#
        .#.
        """,
    "two holes that touch in a point": """
        ####
        #.##
        ##.#
        ####
        """,
    "holes that touch the shell and each other": """
        .#####
        #.####
        ##.###
        ###.##
        ####.#
        """,
    "rings inside rings": """
        #########
        #.......#
        #.#####.#
        #.#...#.#
        #.#.#.#.#
        #.#...#.#
        #.#####.#
        #.......#
        #########
        """,
    "checkerboard": """
        #.#.#
        .#.#.
        #.#.#
        """,
    "single pixels at strip borders": """
        #..#
        ....
        .#..
        #..#
        """,
    "a spiral": """
        #######
        ......#
        #####.#
        #...#.#
        #.###.#
        #.....#
        #######
        """,
    "all water": "###\n###",
    "no water": "...\n...",
    "one pixel": "#",
    "one row": "#.##.#",
    "one column": "#\n.\n#\n#",
}


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("drawing", CASES.values(), ids=CASES)
def test_shapes_that_stitching_gets_wrong(drawing: str, connectivity: int) -> None:
    mask = pixels(drawing)
    expected = shapely.unary_union(reference(mask)) if mask.any() else shapely.Polygon()
    counts = len(reference(mask, connectivity))
    for height in (1, 2, 3, len(mask)):
        polygons = polygonize_rows(strips(mask, height), mask.shape[1], connectivity=connectivity)
        assert len(polygons) == counts
        assert_sound(mask, polygons.geometries())
        assert shapely.unary_union(polygons.geometries()).equals(expected)


def test_a_pinched_ring_becomes_a_shell_with_a_hole() -> None:
    mask = pixels(CASES["pinched ring: a hole that touches its shell"])
    (polygon,) = polygonize_rows([mask], 4).geometries()
    assert len(polygon.interiors) == 1
    assert polygon.interiors[0].bounds == (1, 1, 2, 2)


def test_long_chains_of_corners_are_one_8_connected_feature() -> None:
    diagonal = np.eye(200, dtype=np.uint8)[:, np.random.default_rng(0).permutation(200)]
    mask = np.kron(np.eye(2, dtype=np.uint8), np.eye(100, dtype=np.uint8))
    assert len(polygonize_rows([mask], 200, connectivity=8)) == 1
    assert len(polygonize_rows([diagonal], 200, connectivity=8)) == len(reference(diagonal, 8))


def test_wide_rasters_sort_columns_beyond_16_bits() -> None:
    mask = (np.random.default_rng(3).random((2, 70_000)) < 0.5).astype(np.uint8)
    assert as_set(polygonize_rows([mask], 70_000).geometries()) == as_set(reference(mask))


def test_a_large_mask_equals_rasterio_and_does_not_depend_on_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noise = np.random.default_rng(1).random((300, 700))
    mask = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1) > 1.5).astype(np.uint8)
    whole = polygonize_rows([mask], 700)
    assert as_set(whole.geometries()) == as_set(reference(mask))
    monkeypatch.setattr(vectors, "_CHUNK_PIXELS", 700 * 7)
    cut = polygonize_rows(strips(mask, 41), 700)
    assert (cut.corners == whole.corners).all()
    assert (cut.ring_offsets == whole.ring_offsets).all()
    assert (cut.polygon_offsets == whole.polygon_offsets).all()


def test_pixels_are_dropped_as_they_are_scanned() -> None:
    polygonizer = Polygonizer(1000)
    for _ in range(50):
        polygonizer.add(np.ones((1000, 1000), np.uint8))
    held = sum(getattr(part, name).nbytes for part in polygonizer._parts for name in part.__slots__)
    assert held < 50 * 1000 * 8  # the lattice rows' counts; the pixels were 50 MB
    assert polygonizer.finish().geometries()[0].area == 5e7


def test_other_codes_have_polygons_too() -> None:
    mask = pixels("#o.\nxxo")
    polygons = polygonize_rows([mask], 3, code=2)
    assert [one.bounds for one in polygons.geometries()] == [(1, 0, 2, 1), (2, 1, 3, 2)]
    assert polygons.touches_unobserved.tolist() == [True, True]
    frame = polygons.to_frame(UTM, "EPSG:32631")
    assert frame["class"].tolist() == ["obscured", "obscured"]


@pytest.mark.parametrize("transform", [UTM, ROTATED, Affine(0.1, 0, 0.3, 0, 0.7, 0.9)])
def test_coordinates_equal_rasterios_to_the_last_bit(transform: Affine) -> None:
    mask = (np.random.default_rng(5).random((40, 50)) < 0.6).astype(np.uint8)
    geometries = polygonize_rows([mask], 50).geometries(transform)
    assert as_set(geometries) == as_set(reference(mask, transform=transform))
    assert all(polygon.exterior.is_ccw for polygon in geometries)


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        ({"width": 0}, None),
        ({"width": 3, "connectivity": 6}, None),
        ({"width": 3}, np.zeros((2, 4), np.uint8)),
        ({"width": 3}, np.zeros((2, 3), np.int16)),
        ({"width": 3}, np.zeros(3, np.uint8)),
    ],
)
def test_wrong_parameters_and_rows_are_refused(arguments: dict, rows: np.ndarray | None) -> None:
    width = arguments.pop("width")
    with pytest.raises(ConfigError):
        polygonize_rows([] if rows is None else [rows], width, **arguments)


@pytest.mark.parametrize("blank", [2, 255])
@pytest.mark.parametrize("turn", range(4))
def test_corners_beside_what_nobody_saw_are_bound(turn: int, blank: int) -> None:
    """Both ends of an edge are, upright or level, if any pixel across it was not observed."""
    mask = pixels("""
        ......
        .xx...
        .####.
        .####x
        .####.
        ......
        """)
    mask[mask == 255] = blank
    middle, angle = np.array([3, 3]), np.radians(-90 * turn)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    expected = (np.array([(1, 2), (5, 2), (5, 5)]) - middle) @ rotation + middle
    found = polygonize_rows([np.ascontiguousarray(np.rot90(mask, turn))], 6).bound_points()
    assert sorted(found.tolist()) == sorted(expected.round().tolist())


@given(mask=masks(), seed=st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_polygons_of_all_codes_share_their_vertices(mask: np.ndarray, seed: int) -> None:
    mask = np.random.default_rng(seed).permutation(mask)
    codes = np.unique(mask).tolist()
    parts = [polygonize_rows([mask], mask.shape[1], code=code) for code in codes]
    found = vectors.coverage(parts)
    whole = np.concatenate(found)
    assert shapely.coverage_is_valid(whole)
    assert shapely.area(whole).sum() == mask.size
    for part, shared in zip(parts, found, strict=True):
        assert shapely.equals(part.geometries(), shared).all()
        alike = shapely.get_coordinates(shapely.simplify(shared, 0))
        assert len(alike) >= len(shapely.get_coordinates(shapely.simplify(part.geometries(), 0)))


# -- areas and attributes --------------------------------------------------------------------------


def test_minimum_area_looks_at_whole_features() -> None:
    mask = pixels(
        """
        ###.#
        #.#..
        ###.#
        ....#
        """
    )
    polygons = polygonize_rows(strips(mask, 1), 5)
    sizes = {
        least: polygons.to_frame(Affine.identity(), min_area=least).area_m2.tolist()
        for least in (0, 2, 8, 9)
    }
    assert sizes == {0: [8.0, 1.0, 2.0], 2: [8.0, 2.0], 8: [8.0], 9: []}
    assert list(polygons.to_frame(UTM, 32631, min_area=1e9).columns) == COLUMNS
    with pytest.raises(ConfigError, match="minimum area"):
        polygons.to_frame(UTM, min_area=-1.0)

"""Smoothing: the topology, the areas and the neighbours stay; steps become lines."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geounet import smoothing
from geounet.smoothing import smoothed
from geounet.vectors import polygonize_rows

NOTHING = np.empty((0, 2))


def traced(mask: np.ndarray, code: int = 1, connectivity: int = 4) -> np.ndarray:
    mask = np.ascontiguousarray(mask, np.uint8)
    return polygonize_rows([mask], mask.shape[1], connectivity=connectivity, code=code).geometries()


def turns(polygon: shapely.Polygon) -> np.ndarray:
    """Angle in degrees at each corner of the shell."""
    legs = np.diff(shapely.get_coordinates(polygon.exterior), axis=0)
    angle = np.arctan2(*legs.T[::-1])
    turn = np.diff(np.append(angle, angle[0]))
    return np.degrees(np.abs((turn + np.pi) % (2 * np.pi) - np.pi))


def assert_areas_kept(before: np.ndarray, after: np.ndarray) -> None:
    """Every ring within 5% of the area that it had."""
    rings = [shapely.get_rings(shapely.get_parts(which)) for which in (before, after)]
    areas = [shapely.area(shapely.polygons(ring)) for ring in rings]
    assert (np.abs(areas[1] - areas[0]) <= 0.0501 * areas[0]).all()


@st.composite
def masks(draw: st.DrawFn, codes: int = 2) -> np.ndarray:
    """Random codes in blocks of one to three pixels, so that corners of all sizes occur."""
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    coarse = draw(
        hnp.arrays(np.uint8, shape, elements=st.integers(0, codes - 1), fill=st.nothing())
    )
    factor = draw(st.integers(1, 3))
    return np.kron(coarse, np.ones((factor, factor), np.uint8))


@pytest.mark.parametrize("connectivity", [4, 8])
@given(mask=masks(), distance=st.sampled_from([0.3, 1, 2, 50]))
@settings(max_examples=150, deadline=None)
def test_valid_apart_and_with_every_ring(
    connectivity: int, mask: np.ndarray, distance: float
) -> None:
    before = traced(mask, connectivity=connectivity)
    after = smoothed(before, NOTHING, distance)
    assert shapely.is_valid(after).all()
    assert shapely.union_all(after).area == pytest.approx(shapely.area(after).sum())
    rings = [shapely.get_rings(shapely.get_parts(which)) for which in (before, after)]
    assert len(rings[0]) == len(rings[1])
    assert_areas_kept(before, after)
    moved = shapely.hausdorff_distance(*rings, densify=0.1) if len(before) else np.zeros(1)
    assert moved.max() <= distance + 1e-9


# Once lost 6%: shortening a neighbour's cuts, which both share, spoiled the balance of its own.
@example(mask=np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [1, 0, 0], [1, 1, 1]], np.uint8))
@given(mask=masks(codes=3))
@settings(max_examples=150, deadline=None)
def test_neighbours_keep_their_shared_edges(mask: np.ndarray) -> None:
    """Polygons of all codes cover the raster without gaps, and so they do when smoothed."""
    whole = np.concatenate([traced(mask, code) for code in range(3)])
    parts = shapely.segmentize(whole, 1.0)  # so that corners of one are corners of its neighbours
    frame = shapely.get_coordinates(shapely.segmentize(shapely.box(0, 0, *mask.shape[::-1]), 1.0))
    found = smoothed(parts, frame, 1.0)
    assert shapely.is_valid(found).all()
    assert shapely.coverage_is_valid(found)
    assert shapely.area(found).sum() == pytest.approx(mask.size)
    assert shapely.union_all(found).area == pytest.approx(mask.size)
    assert_areas_kept(parts, found)


def test_both_sides_of_a_shared_edge_are_smoothed() -> None:
    mask = np.tri(12, 14, 1, dtype=np.uint8)
    parts = shapely.segmentize(np.concatenate([traced(mask), traced(mask, 0)]), 1.0)
    frame = shapely.get_coordinates(shapely.segmentize(shapely.box(0, 0, 14, 12), 1.0))
    water, land = smoothed(parts, frame, 1.0)
    shared = shapely.line_merge(water.intersection(land))
    assert shared.geom_type == "LineString"
    assert shared.length < 1.1 * np.hypot(11, 11)
    assert water.touches(land)


@pytest.mark.parametrize("slope", [1, 2, 5, 9])
def test_regular_steps_become_the_line_that_they_stand_for(slope: int) -> None:
    rows = np.arange(90)
    mask = (np.arange(120)[None] < 10 + rows[:, None] // slope).astype(np.uint8)
    (polygon,) = smoothed(traced(mask), NOTHING, 2.0)
    shore = shapely.get_coordinates(polygon)
    shore = shore[(shore[:, 0] > 11) & (shore[:, 1] > slope) & (shore[:, 1] < 90 - slope)]
    off = shore[:, 0] - 9.5 - shore[:, 1] / slope
    assert len(shore) >= 4
    assert off == pytest.approx(np.zeros(len(off)), abs=1e-9)


def test_a_round_lake_is_round_again() -> None:
    """Closer to the true shore than pixel edges are, with no sharp corner, and as large."""
    y, x = np.mgrid[:120, :120] + 0.5
    mask = np.hypot(x - 60.3, y - 59.8) < 45
    (before,) = traced(mask)
    (after,) = smoothed(np.array([before]), NOTHING, 1.0)
    off = [
        np.abs(shapely.distance(shapely.points(xy), shapely.Point(60.3, 59.8)) - 45).mean()
        for xy in (shapely.get_coordinates(shapely.segmentize(p, 0.05)) for p in (before, after))
    ]
    assert off[0] > 0.22
    assert off[1] < off[0] / 2
    assert turns(before).max() > 89
    assert turns(after).max() < 8
    assert after.area == pytest.approx(np.pi * 45**2, rel=2e-3)


def test_fixed_vertices_stay() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[2:, 3:] = 1
    fixed = np.array([[3.0, 8.0], [8.0, 8.0], [8.0, 2.0]])
    (polygon,) = smoothed(traced(mask), fixed, 1.0)
    found = {tuple(xy) for xy in shapely.get_coordinates(polygon).tolist()}
    assert {tuple(xy) for xy in fixed.tolist()} < found
    assert (3.0, 2.0) not in found
    assert shapely.box(3, 2, 8, 8).contains(polygon)


def test_a_corner_keeps_clear_of_what_lies_in_it() -> None:
    """The great corner is not cut through the small polygon that lies in it; others are."""
    great = shapely.Polygon([(0, 0), (0, 40), (10, 40), (10, 10), (40, 10), (40, 0)])
    small = shapely.box(10.5, 10.5, 11, 11)
    alone = smoothed(np.array([great]), NOTHING, 8.0)
    both = smoothed(np.array([great, small]), NOTHING, 8.0)
    corner = shapely.Point(10, 10)
    assert not alone[0].boundary.contains(corner)
    assert both[0].boundary.contains(corner)
    assert not shapely.intersects(*both)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.random.default_rng(3).integers(0, 2, (40, 40), np.uint8)
    whole = smoothed(traced(mask), NOTHING, 1.0)
    monkeypatch.setattr(smoothing, "_CHUNK", 7)
    assert shapely.equals_exact(smoothed(traced(mask), NOTHING, 1.0), whole).all()


def test_nothing_is_nothing() -> None:
    assert len(smoothed(traced(np.zeros((2, 2))), NOTHING, 1.0)) == 0

"""Make the sample scene and its truth, the same bytes every time.

    python sample_data/make_scene.py                  # rewrite the files beside this script
    python sample_data/make_scene.py --output DIR     # write them somewhere else

The scene is made, not measured: a coast drawn from closed formulas, painted with typical
reflectance spectra of water and land, mixed by the exact share of water in every pixel, blurred and
noised like a Sentinel-2 L2A product. The shoreline is therefore known far below the pixel.

Coordinates are pixels unless a name says ``map``: x runs right, y runs down, and pixel (row, col)
covers [col, col + 1] x [row, row + 1]. Distances are positive in the water.

Everything random comes from ``PCG64.random_raw``, whose stream numpy guarantees, and the arithmetic
is float64 with the result rounded to whole steps, so the pixels do not depend on the machine.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine
from shapely import LineString, MultiLineString, MultiPolygon, Polygon

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray
    from shapely.geometry.base import BaseGeometry

    Array = NDArray[np.float64]

WIDTH, HEIGHT = 1023, 1009
SHAPE = (HEIGHT, WIDTH)
PIXEL = 10.0
TRANSFORM = Affine(PIXEL, 0.0, 493_620.0, 0.0, -PIXEL, 4_512_340.0)
CRS_CODE = 32629
SCALE = 1e-4
NODATA = 0
FRACTION_STEPS = 250
UNOBSERVED = 255

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
WAVELENGTHS_NM = (443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1610, 2190)
NATIVE_PIXELS = (6, 1, 1, 1, 2, 2, 2, 1, 2, 6, 2, 2)

SCENE, MASK, FRACTION, SHORELINE = (
    "scene.tif",
    "truth_mask.tif",
    "truth_water_fraction.tif",
    "truth_shoreline.fgb",
)
FILES = (SCENE, MASK, FRACTION, SHORELINE)

# --------------------------------------------------------------------------------------------------
# Spectra: typical surface reflectance in percent at the twelve bands, rounded. They follow the
# shapes that spectral libraries (USGS, ECOSTRESS) and textbooks of water optics print for such
# covers; no single measurement is copied. Water includes about half a percent of reflected sky.

WATER = {
    "sea": (3.4, 3.0, 2.0, 0.95, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.45, 0.35),
    "river": (5.2, 6.8, 10.2, 10.8, 9.8, 5.6, 5.4, 4.5, 4.1, 3.0, 0.9, 0.6),
    "lagoon": (3.0, 3.9, 6.2, 3.7, 4.2, 2.1, 2.0, 1.7, 1.6, 1.3, 0.6, 0.5),
    "lake": (1.7, 1.6, 1.8, 1.2, 1.1, 0.85, 0.8, 0.75, 0.7, 0.65, 0.4, 0.3),
    "pond": (3.2, 4.2, 6.8, 5.6, 6.0, 3.9, 3.7, 3.1, 2.8, 2.2, 0.8, 0.6),
}
LAND = {
    "scrub": (3.2, 4.2, 6.6, 6.6, 10.2, 17.0, 19.5, 21.5, 23.0, 23.5, 20.5, 12.5),
    "grass": (2.8, 3.6, 7.0, 4.6, 10.8, 27.0, 34.0, 36.0, 37.5, 37.0, 20.5, 10.5),
    "crop": (2.2, 2.8, 6.2, 3.2, 9.5, 33.0, 43.0, 45.0, 46.5, 45.5, 19.0, 9.0),
    "stubble": (6.2, 8.2, 12.4, 16.6, 19.0, 21.5, 23.5, 26.0, 28.0, 29.0, 34.0, 25.0),
    "soil": (6.6, 8.6, 12.0, 16.4, 18.2, 20.0, 21.8, 24.0, 26.0, 27.5, 34.0, 30.0),
    "ploughed": (4.8, 5.8, 7.8, 10.2, 11.4, 12.5, 13.5, 15.0, 16.2, 17.0, 22.5, 19.5),
    "broadleaf": (1.6, 2.1, 4.2, 2.4, 7.0, 22.0, 28.0, 30.0, 31.5, 31.0, 13.5, 5.8),
    "conifer": (1.3, 1.7, 2.9, 1.9, 4.6, 14.0, 17.5, 19.0, 20.0, 20.0, 8.8, 3.8),
    "marsh": (3.0, 4.0, 6.2, 5.4, 8.4, 15.0, 17.5, 19.0, 20.0, 19.0, 12.0, 6.4),
    "dry_sand": (15.0, 19.0, 26.0, 32.0, 34.0, 35.5, 37.0, 38.5, 39.5, 40.0, 45.0, 42.0),
    "wet_sand": (8.0, 10.2, 13.6, 16.6, 17.6, 18.2, 18.6, 19.0, 19.0, 17.0, 13.0, 9.0),
    "mud": (5.6, 6.8, 8.8, 10.4, 11.0, 11.6, 12.0, 12.4, 12.3, 10.8, 8.8, 5.8),
    "basalt": (4.6, 5.2, 6.2, 7.2, 7.6, 8.0, 8.4, 8.8, 9.0, 9.2, 10.4, 9.6),
    "burn": (3.2, 3.5, 4.0, 4.4, 4.9, 5.6, 6.2, 7.2, 8.0, 8.8, 12.6, 13.4),
    "asphalt": (7.2, 8.2, 9.4, 10.4, 10.9, 11.4, 11.9, 12.4, 12.8, 13.0, 14.6, 13.6),
    "tiles": (6.8, 8.2, 11.8, 20.5, 23.5, 25.5, 26.5, 27.5, 28.5, 29.0, 32.0, 27.5),
    "bright_roof": (26.0, 29.0, 32.0, 34.0, 35.0, 35.5, 36.0, 36.5, 37.0, 37.0, 38.0, 36.0),
}
CLOUD = (68.0, 67.0, 66.0, 66.5, 67.0, 67.5, 68.0, 68.0, 68.0, 60.0, 52.0, 42.0)
SHADOW_KEEPS = (0.52, 0.47, 0.40, 0.34, 0.33, 0.32, 0.31, 0.30, 0.30, 0.30, 0.26, 0.25)
# Loss of light per metre of clear coastal water: absorption of pure water, rounded (after Pope and
# Fry 1997 below 730 nm, older tables above), plus a little for what drifts in it.
ATTENUATION_PER_M = (0.10, 0.08, 0.12, 0.48, 0.80, 2.6, 2.4, 3.6, 4.8, 25.0, 600.0, 2000.0)
LAND_NAMES = tuple(LAND)

# --------------------------------------------------------------------------------------------------
# Geometry


def coast_x(y: ArrayLike) -> Array:
    """X of the open coast at row ``y``: waves, a headland to the west, a bay to the east."""
    y = np.asarray(y, np.float64)
    waves = (
        (34.0, 640.0, 0.4),
        (13.0, 233.0, 1.9),
        (4.5, 89.0, 0.5),
        (1.7, 37.0, 2.0),
        (0.6, 17.3, 0.0),
    )
    x = 372.0 + sum(a * np.sin(2 * np.pi * y / length + p) for a, length, p in waves)
    headland = -78.0 * np.exp(-(((y - 112.0) / 46.0) ** 2))
    bay = 72.0 * np.exp(-(((y - 262.0) / 50.0) ** 2))
    return np.asarray(x + headland + bay)


def blob(
    centre: tuple[float, float],
    radii: tuple[float, float],
    *,
    turn: float = 0.0,
    waves: Sequence[tuple[int, float, float]] = (),
) -> Polygon:
    """A wavy ellipse; ``waves`` are (order, relative amplitude, phase) of its radius."""
    n = max(64, int(16 * max(radii)))
    phi = np.linspace(0.0, 2 * np.pi, n, endpoint=False)
    r = 1.0 + sum((a * np.cos(k * phi + p) for k, a, p in waves), np.zeros(n))
    u, v = radii[0] * r * np.cos(phi), radii[1] * r * np.sin(phi)
    x = centre[0] + u * np.cos(turn) - v * np.sin(turn)
    y = centre[1] + u * np.sin(turn) + v * np.cos(turn)
    return Polygon(np.column_stack([x, y]))


def ribbon(line: Array, half_width: ArrayLike) -> Polygon:
    """The area within ``half_width`` (one value a vertex) either side of ``line`` (n, 2)."""
    slope = np.gradient(line, axis=0)
    normal = np.column_stack([-slope[:, 1], slope[:, 0]]) / np.hypot(*slope.T)[:, None]
    offset = normal * np.broadcast_to(half_width, len(line))[:, None]
    return Polygon(np.vstack([line + offset, (line - offset)[::-1]]))


def bar(start: tuple[float, float], end: tuple[float, float], width: float) -> Polygon:
    """A straight bar with square ends."""
    return ribbon(np.array([start, end], np.float64), width / 2)


def arc(points: Sequence[tuple[float, float]], n: int = 240) -> Array:
    """A Bezier curve over ``points``, as ``n`` vertices."""
    t = np.linspace(0.0, 1.0, n)[:, None]
    rest = [np.asarray(p, np.float64)[None] for p in points]
    while len(rest) > 1:
        rest = [a * (1 - t) + b * t for a, b in itertools.pairwise(rest)]
    return rest[0]


class River(NamedTuple):
    """The river's middle line, (n, 2) from the sea upstream, and its half width there, (n,)."""

    line: Array
    half_width: Array
    step: float


@functools.cache
def river() -> River:
    """A sine-generated curve (Langbein and Leopold 1966): the heading swings evenly."""
    step = 0.25
    s = np.arange(0.0, 1160.0, step)
    swing = 1.12 * (1 - np.exp(-((s / 150.0) ** 2))) * (1 - 0.35 * np.sin(s / 190.0))
    heading = 0.14 * np.sin(s / 260.0) + swing * np.sin(2 * np.pi * s / 150.0)
    y_mouth = 452.0
    x = float(coast_x(y_mouth)) - 12.0 + np.cumsum(np.cos(heading)) * step
    y = y_mouth + np.cumsum(np.sin(heading)) * step
    half = 1.9 + 4.2 * np.exp(-s / 330.0) + 11.0 * np.exp(-s / 42.0) + 0.35 * np.sin(s / 17.0)
    return River(np.column_stack([x, y]), half, step)


def _sea() -> BaseGeometry:
    y = np.arange(-40.0, HEIGHT + 40.0, 0.25)
    shore = np.column_stack([coast_x(y), y])
    return Polygon(np.vstack([shore, [(-40.0, y[-1]), (-40.0, y[0])]]))


def _lagoon() -> BaseGeometry:
    u = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 2400)) * 0.5 + 0.5
    y = 604.0 + 262.0 * u
    west = coast_x(y) + 19.0 + 4.0 * np.sin(y / 23.0) + 9.0 * (2 * u - 1) ** 2
    waist = 1 + 0.2 * np.sin(y / 29.0) + 0.08 * np.sin(y / 9.0 + 1.0)
    east = west + 104.0 * np.sqrt(np.clip(4 * u * (1 - u), 0.0, None)) * waist
    edge = np.vstack([np.column_stack([west, y]), np.column_stack([east, y])[-2:0:-1]])
    x0 = float(coast_x(790.0))
    line = arc([(x0 - 7.0, 786.0), (x0 + 8.0, 786.0), (x0 + 16.0, 797.0), (x0 + 40.0, 794.0)])
    s = np.linspace(0.0, 47.0, len(line))
    inlet = ribbon(line, 3.4 + 9.0 * np.exp(-s / 5.0) + 9.0 * np.exp((s - 47.0) / 7.0))
    return shapely.union_all([Polygon(edge), inlet])


def _lake() -> BaseGeometry:
    lake = blob(
        (766.0, 214.0),
        (74.0, 41.0),
        turn=0.45,
        waves=((2, 0.10, 0.3), (3, 0.13, 1.1), (5, 0.07, 2.0), (9, 0.03, 0.4)),
    )
    return lake - blob((776.0, 206.0), (9.0, 6.0), turn=0.9, waves=((3, 0.12, 0.0),))


def _reservoir() -> BaseGeometry:
    """A drowned valley with a dam in the west; the swath's edge cuts it in the east."""
    stems = (
        ([(806.0, 724.0), (836.0, 690.0), (866.0, 766.0), (960.0, 712.0)], 16.0, 6.0),
        ([(842.0, 728.0), (838.0, 692.0), (880.0, 684.0), (858.0, 632.0)], 8.0, 0.5),
        ([(864.0, 688.0), (842.0, 674.0), (830.0, 662.0), (818.0, 662.0)], 4.5, 0.4),
        ([(866.0, 730.0), (862.0, 774.0), (838.0, 770.0), (836.0, 812.0)], 8.0, 0.4),
        ([(856.0, 758.0), (868.0, 772.0), (868.0, 784.0), (874.0, 796.0)], 4.0, 0.4),
        ([(880.0, 728.0), (890.0, 712.0), (882.0, 700.0), (894.0, 690.0)], 5.0, 0.5),
    )
    lines = [(arc(points), start, end) for points, start, end in stems]
    t = np.linspace(0.0, 1.0, 240)
    wavy = 1 + 0.16 * np.sin(19.0 * t) + 0.08 * np.sin(41.0 * t + 1.0)
    return shapely.union_all([ribbon(p, (a + (b - a) * t) * wavy) for p, a, b in lines])


def _ponds() -> BaseGeometry:
    turn = 0.32
    basins = [
        blob_box((596.0, 856.0), (18.5 * i, 12.5 * j), (16.0, 10.0), turn)
        for i in range(4)
        for j in range(3)
    ]
    natural = [
        blob((622.0, 96.0), (11.0, 7.5), turn=0.4, waves=((3, 0.12, 0.6), (5, 0.05, 0.0))),
        blob((704.0, 612.0), (5.5, 4.4), waves=((2, 0.1, 0.0),)),
        blob((912.0, 330.0), (3.0, 2.4)),
        blob((566.0, 560.0), (7.0, 3.6), turn=-0.7, waves=((3, 0.1, 0.2),)),
    ]
    return shapely.union_all(basins + natural)


def blob_box(
    origin: tuple[float, float], at: tuple[float, float], size: tuple[float, float], turn: float
) -> Polygon:
    """A rectangle at offset ``at`` in a frame that is turned about ``origin``."""
    u, v = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]).T
    u, v = at[0] + u * size[0], at[1] + v * size[1]
    x = origin[0] + u * np.cos(turn) - v * np.sin(turn)
    y = origin[1] + u * np.sin(turn) + v * np.cos(turn)
    return Polygon(np.column_stack([x, y]))


def _islands() -> BaseGeometry:
    waves = ((2, 0.16, 0.5), (3, 0.10, 2.2), (5, 0.05, 0.3), (8, 0.03, 1.0), (13, 0.012, 0.0))
    return shapely.union_all(
        [
            blob((146.0, 628.0), (58.0, 41.0), turn=1.1, waves=waves),
            blob((211.0, 702.0), (12.0, 7.0), turn=0.6, waves=((3, 0.12, 0.0),)),
            blob((231.0, 718.0), (3.2, 2.6)),
            blob((262.0, 92.0), (4.5, 3.0), turn=0.3, waves=((3, 0.15, 0.0),)),
            blob((249.0, 104.0), (1.9, 1.6)),
            blob((255.0, 128.0), (2.6, 1.8), turn=1.0),
        ]
    )


def _harbour_basin() -> BaseGeometry:
    x = float(coast_x(262.0))
    return blob_box((x - 8.0, 274.0), (0.0, 0.0), (44.0, 17.0), 0.06)


def _breakwaters() -> list[BaseGeometry]:
    """Two moles that close the bay but for a gap, a finger pier and a jetty on the open beach."""
    x = float(coast_x(262.0))
    north = arc([(float(coast_x(205.0)) + 6.0, 205.0), (x - 44.0, 212.0), (x - 47.0, 250.0)])
    south = arc([(float(coast_x(299.0)) + 5.0, 299.0), (x - 56.0, 290.0), (x - 46.0, 266.0)])
    jetty_x = float(coast_x(560.0))
    return [
        ribbon(north, 1.7),
        ribbon(south, 1.7),
        bar((x + 4.0, 248.0), (x - 27.0, 246.0), 3.0),
        bar((jetty_x + 4.0, 560.0), (jetty_x - 34.0, 563.0), 2.0),
    ]


@functools.cache
def bridge() -> tuple[tuple[float, float], tuple[float, float]]:
    """The two ends of the road bridge, square to the river."""
    course = river()
    i = int(300.0 / course.step)
    along = course.line[i + 1] - course.line[i - 1]
    across = np.array([-along[1], along[0]]) / np.hypot(*along)
    a, b = course.line[i] + 16.0 * across, course.line[i] - 16.0 * across
    return (float(a[0]), float(a[1])), (float(b[0]), float(b[1]))


@functools.cache
def bodies() -> dict[str, BaseGeometry]:
    """The water bodies by kind, before islands, moles and the bridge are cut out."""
    course = river()
    return {
        "sea": _sea() | _harbour_basin(),
        "river": ribbon(course.line, course.half_width),
        "lagoon": _lagoon(),
        "lake": _lake() | _reservoir(),
        "pond": _ponds(),
    }


@functools.cache
def water() -> MultiPolygon:
    """All water, reaching beyond the scene's edges so that they are no shore."""
    built = shapely.union_all([*_breakwaters(), bar(*bridge(), 2.2)])
    dry = shapely.union_all([_islands(), built])
    wet = shapely.union_all(list(bodies().values())) - dry
    return shapely.orient_polygons(MultiPolygon(shapely.get_parts(wet).tolist()))


@functools.cache
def _shore_index() -> shapely.STRtree:
    parts = shapely.get_parts(shapely.boundary(shapely.get_parts(water())))
    coords = [shapely.get_coordinates(p) for p in parts]
    pairs = np.concatenate([np.stack([c[:-1], c[1:]], axis=1) for c in coords])
    return shapely.STRtree(shapely.linestrings(pairs))


def signed_distance(x: ArrayLike, y: ArrayLike) -> Array:
    """Distance in pixels from points to the true shore, positive in the water.

    Args:
        x: Pixel coordinates, to the right; any shape.
        y: Pixel coordinates, downwards; a shape that broadcasts with that of ``x``.

    Returns:
        The distances, in the broadcast shape.
    """
    x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
    points = shapely.points(x.ravel(), y.ravel())
    (order, _), distance = _shore_index().query_nearest(
        points, return_distance=True, all_matches=False
    )
    out = np.empty(points.size)
    out[order] = distance
    area = water()
    shapely.prepare(area)
    inside = shapely.contains_xy(area, x.ravel(), y.ravel())
    return np.where(inside, out, -out).reshape(x.shape)


def swath_edge() -> NDArray[np.int64]:
    """Observed pixels of each row, counted from the left: (height,)."""
    edge = 1046.0 - 0.205 * (np.arange(HEIGHT) + 0.5)
    return np.clip(np.floor(edge + 0.5), 0, WIDTH).astype(np.int64)


def observed() -> NDArray[np.bool_]:
    """True where the scene is observed: (height, width)."""
    return np.arange(WIDTH)[None, :] < swath_edge()[:, None]


def observed_area() -> Polygon:
    """The outline of the observed pixels."""
    rows = np.arange(HEIGHT)
    right = np.column_stack([np.repeat(swath_edge(), 2), np.column_stack([rows, rows + 1]).ravel()])
    return Polygon(np.vstack([[(0, 0)], right, [(0, HEIGHT)]])).buffer(0)


def shoreline() -> list[LineString]:
    """The true shore on the map, broken at the edge of the observed area; water on the left."""
    lines = shapely.boundary(water()).intersection(observed_area())
    parts = shapely.get_parts(
        shapely.line_merge(MultiLineString(shapely.get_parts(lines).tolist()))
    )
    parts = shapely.simplify(parts, 0.004)
    return [_to_map(_water_on_left(line)) for line in sorted(parts, key=lambda p: p.bounds)]


def _water_on_left(line: LineString) -> LineString:
    (x0, y0), (x1, y1) = np.asarray(line.coords)[:2]
    # y runs down here, so left of the way on the map is (dy, -dx).
    probe = ((x0 + x1) / 2 + 0.01 * (y1 - y0), (y0 + y1) / 2 - 0.01 * (x1 - x0))
    return line if signed_distance(*probe) > 0 else line.reverse()


def _to_map(line: LineString) -> LineString:
    x, y = to_map(*np.asarray(line.coords).T)
    return LineString(np.round(np.column_stack([x, y]), 3))


def to_map(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Map coordinates (easting, northing) of pixel coordinates."""
    return TRANSFORM.c + PIXEL * np.asarray(x), TRANSFORM.f - PIXEL * np.asarray(y)


def to_pixel(east: ArrayLike, north: ArrayLike) -> tuple[Array, Array]:
    """Pixel coordinates of map coordinates (easting, northing)."""
    return (np.asarray(east) - TRANSFORM.c) / PIXEL, (TRANSFORM.f - np.asarray(north)) / PIXEL


def coverage(geometry: BaseGeometry) -> Array:
    """Exact share of each pixel that ``geometry`` covers, (height, width) in [0, 1].

    Signed areas are gathered edge by edge and summed along the rows, as font renderers do.
    """
    clipped = shapely.clip_by_rect(geometry, 0.0, 0.0, WIDTH, HEIGHT)
    polygons = [p for p in shapely.get_parts(clipped) if p.geom_type == "Polygon"]
    # Short edges cross at most one grid line a direction.
    rings = shapely.get_rings(shapely.segmentize(shapely.orient_polygons(polygons), 0.5))
    edges = np.concatenate(
        [np.hstack([c[:-1], c[1:]]) for c in map(shapely.get_coordinates, rings)]
    )
    x0, y0, x1, y1 = _split(*_split(*edges.T)[[1, 0, 3, 2]])[[1, 0, 3, 2]]
    col, row = np.floor((x0 + x1) / 2), np.floor((y0 + y1) / 2)
    rise, within = y1 - y0, (x0 + x1) / 2 - col
    cell = (np.clip(row, 0, HEIGHT - 1) * (WIDTH + 2) + col).astype(np.int64)
    size = HEIGHT * (WIDTH + 2)
    total = np.bincount(cell, rise * (1 - within), size) + np.bincount(
        cell + 1, rise * within, size
    )
    share = np.cumsum(total.reshape(HEIGHT, WIDTH + 2), axis=1)[:, :WIDTH]
    # Sums along a row end within a few rounding errors of 0 or 1; truly dry and full are exact.
    return np.clip(np.round(np.abs(share), 10), 0.0, 1.0)


def _split(x0: Array, y0: Array, x1: Array, y1: Array) -> Array:
    """Cut edges shorter than 1 where they cross a whole x: (4, 2n), some of length 0."""
    line = np.maximum(np.floor(x0), np.floor(x1))
    crosses = np.floor(x0) != np.floor(x1)
    t = np.where(crosses, (line - x0) / np.where(crosses, x1 - x0, 1.0), 1.0)
    xm, ym = np.where(crosses, line, x1), y0 + t * (y1 - y0)
    return np.concatenate([np.stack([x0, y0, xm, ym]), np.stack([xm, ym, x1, y1])], axis=1)


# --------------------------------------------------------------------------------------------------
# Random fields and filters


def normal(seed: int, shape: tuple[int, int]) -> Array:
    """Near-normal noise of unit deviation: the sum of the four 16-bit words of a raw draw."""
    raw = np.random.PCG64(seed).random_raw(shape[0] * shape[1])
    words = sum((raw >> np.uint64(shift)) & np.uint64(0xFFFF) for shift in (0, 16, 32, 48))
    unit = (np.asarray(words, np.float64) - 2 * 65535.0) / (2 * 65536.0 / np.sqrt(12.0))
    return unit.reshape(shape)


def spline_weights(t: Array) -> tuple[Array, Array, Array, Array]:
    """Weights of the cubic B-spline on four neighbours."""
    return (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )


def enlarge(lattice: Array, cell: float) -> Array:
    """Smooth field over the scene from values ``cell`` pixels apart; node 1 lies on edge 0."""
    for size in SHAPE:
        at = (np.arange(size) + 0.5) / cell
        base = np.floor(at).astype(np.int64)
        weights = spline_weights(at - base)
        lattice = sum(w[:, None] * lattice[base + k] for k, w in enumerate(weights)).T
    return lattice


def field(seed: int, *cells: float) -> Array:
    """Correlated noise of about unit deviation, one equal share for each of ``cells`` (pixels)."""
    total = np.zeros(SHAPE)
    for k, cell in enumerate(cells):
        lattice = normal(seed * 100 + k, (int(HEIGHT / cell) + 5, int(WIDTH / cell) + 5))
        total += enlarge(lattice, cell) / 0.48
    return total / np.sqrt(len(cells))


def cell_hash(seed: int, *keys: NDArray[np.int64]) -> Array:
    """One even number in [0, 1) for each tuple of whole numbers."""
    state = np.full(keys[0].shape, seed * 0x9E3779B97F4A7C15 % 2**64, np.uint64)
    for key in keys:
        state = (state ^ key.astype(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
        state ^= state >> np.uint64(29)
    return ((state * np.uint64(0x94D049BB133111EB)) >> np.uint64(40)) / 2.0**24


def blur(image: Array, sigma: float) -> Array:
    """Gaussian blur with repeated edges."""
    radius = int(np.ceil(3 * sigma))
    taps = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    for _ in range(2):
        padded = np.pad(image, ((radius, radius), (0, 0)), mode="edge")
        image = sum(w * padded[k : k + image.shape[0]] for k, w in enumerate(taps)).T
    return image


def coarsen(image: Array, factor: int) -> Array:
    """Means over ``factor`` squared pixels, the last row and column repeated to fill up."""
    pad = [(0, -size % factor) for size in image.shape]
    h, w = (size + extra[1] for size, extra in zip(image.shape, pad, strict=True))
    blocks = np.pad(image, pad, mode="edge").reshape(h // factor, factor, w // factor, factor)
    return blocks.mean(axis=(1, 3))


def wide_blur(image: Array) -> Array:
    """Blur over about 100 m, on every 8th pixel."""
    small = np.pad(coarsen(image, 8), ((2, 3), (2, 3)), mode="edge")
    lattice = (small[:-1, :-1] + small[1:, :-1] + small[:-1, 1:] + small[1:, 1:]) / 4
    return enlarge(lattice, 8.0)


def ramp(value: ArrayLike, low: float, high: float) -> Array:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((np.asarray(value, np.float64) - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


# --------------------------------------------------------------------------------------------------
# What covers the ground


class Ground(NamedTuple):
    """What lies in each pixel of the scene; every array is (height, width)."""

    fraction: Array
    """Share of water."""
    depth: Array
    """Depth of the water in metres."""
    shares: dict[str, Array]
    """Kind of water, as weights that sum to 1."""
    silt: Array
    """How much of the river's silt the water holds, 0 to 1."""
    foam: Array
    """Share of white water."""
    cover: NDArray[np.int64]
    """Index into LAND_NAMES."""
    second: NDArray[np.int64]
    """Index of the cover that is mixed in."""
    mix: Array
    """Share of the second cover."""
    light: Array
    """Brightness of the land: albedo and slope."""
    cloud: Array
    """Share of cloud."""
    shadow: Array
    """Share of cloud shadow."""


def pixel_centres() -> tuple[Array, Array]:
    """X and y of the pixel centres, each (height, width)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return x, y


@functools.cache
def shore_distance() -> Array:
    """Signed distance at the pixel centres, taken every second pixel and filled in between."""
    step = 2
    x = np.arange(0, WIDTH + step, step) + 0.5
    y = np.arange(0, HEIGHT + step, step) + 0.5
    d = signed_distance(x[None, :], y[:, None])
    d = np.stack([d[:-1], (d[:-1] + d[1:]) / 2], axis=1).reshape(-1, d.shape[1])
    d = np.stack([d[:, :-1], (d[:, :-1] + d[:, 1:]) / 2], axis=2).reshape(d.shape[0], -1)
    return d[:HEIGHT, :WIDTH]


def water_shares() -> dict[str, Array]:
    """Weights of the kinds of water, drifting into each other where bodies meet."""
    near = {name: blur(coverage(body), 5.0) + 1e-9 for name, body in bodies().items()}
    total = sum(near.values())
    return {name: value / total for name, value in near.items()}


def river_silt(x: Array, y: Array) -> Array:
    """The plume: silt leaves the mouth to the west, is turned south and thins out in eddies."""
    x = x + 9.0 * field(11, 70.0) + 3.0 * field(12, 24.0)
    y = y + 9.0 * field(13, 70.0) + 3.0 * field(14, 24.0)
    mouth_x = float(coast_x(452.0))
    out = np.clip(mouth_x - x, 0.0, None)
    axis_y = 452.0 + 0.0042 * out**2
    spread = 17.0 + 0.33 * out
    across = np.exp(-(((y - axis_y) / spread) ** 2))
    return across * np.exp(-out / 85.0) * ramp(mouth_x + 26.0 - x, 0.0, 12.0)


def sea_depth(x: Array, y: Array, distance: Array) -> Array:
    """Metres of water: a steep coast, with sandy shelves off the spit and the island."""
    shelf = np.exp(-(((y - 740.0) / 130.0) ** 2)) * ramp(x, 230.0, 330.0)
    bank = np.exp(-(((x - 205.0) / 62.0) ** 2) - (((y - 712.0) / 48.0) ** 2))
    slope = 0.42 - 0.3 * np.clip(shelf + 1.2 * bank, 0.0, 1.0)
    slope = slope * (1 + 0.18 * field(21, 45.0))
    return np.clip(distance, 0.02, None) * np.clip(slope, 0.06, None)


def breakers(y: Array, distance: Array, sea: Array) -> Array:
    """White water along the open beaches, in broken lines."""
    band = np.exp(-(((distance - 2.6 - 0.9 * field(31, 22.0)) / 0.9) ** 2))
    band += 0.5 * np.exp(-(((distance - 7.2 - 1.4 * field(32, 26.0)) / 0.8) ** 2))
    # The swell comes from the west, so water with land to its west lies in the lee.
    exposed = ramp(np.abs(y - 262.0), 55.0, 80.0) * ramp(sea, 0.85, 0.98)
    exposed *= ramp(-np.gradient(distance, axis=1), -0.1, 0.7)
    return 0.6 * band * exposed * ramp(field(33, 19.0, 5.0), 0.0, 1.6)


def turned(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    """Coordinates in a frame turned by ``angle``."""
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def line_distance(x: Array, y: Array, points: Sequence[tuple[float, float]]) -> Array:
    """Distance to a polyline."""
    best = np.full(x.shape, np.inf)
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        dx, dy = x1 - x0, y1 - y0
        t = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
        best = np.minimum(best, np.hypot(x - x0 - t * dx, y - y0 - t * dy))
    return best


class Canvas:
    """Land cover under way: later strokes lie on top."""

    def __init__(self) -> None:
        self.cover = np.zeros(SHAPE, np.int64)
        self.second = np.zeros(SHAPE, np.int64)
        self.mix = np.zeros(SHAPE)
        self.light = np.ones(SHAPE)

    def lay(
        self,
        where: NDArray[np.bool_],
        cover: str,
        second: str | None = None,
        mix: ArrayLike = 0.0,
        light: ArrayLike = 1.0,
    ) -> None:
        """Lay ``cover``, with a share ``mix`` of ``second`` in it, where ``where`` is True."""
        self.cover[where] = LAND_NAMES.index(cover)
        self.second[where] = LAND_NAMES.index(second or cover)
        self.mix[where] = np.broadcast_to(mix, SHAPE)[where]
        self.light[where] = np.broadcast_to(light, SHAPE)[where]


def lay_wild(canvas: Canvas, height: Array) -> None:
    """Scrub and grass, woods on the hills; the sun stands in the south-east."""
    rise = np.gradient(height, axis=1) * -0.6 + np.gradient(height, axis=0) * -0.8
    light = np.clip(1.0 + 2.6 * rise, 0.55, 1.45)
    everywhere = np.ones(SHAPE, bool)
    patchy = np.clip(0.5 + 0.3 * field(41, 34.0, 11.0, 4.0), 0.0, 1.0)
    canvas.lay(everywhere, "scrub", "grass", patchy, light)
    woods = height + 0.35 * field(42, 40.0, 12.0) > 0.55
    canvas.lay(woods, "conifer", "broadleaf", ramp(field(43, 50.0, 6.0), -0.6, 1.4), light)
    clearings = woods & (field(44, 34.0, 8.0) > 1.55)
    canvas.lay(clearings, "stubble", "scrub", 0.6, light)


CROPS = (
    ("crop", "soil", 0.05),
    ("crop", "grass", 0.5),
    ("grass", "soil", 0.15),
    ("stubble", "soil", 0.3),
    ("soil", "stubble", 0.2),
    ("ploughed", "soil", 0.25),
    ("crop", "ploughed", 0.4),
    ("stubble", "grass", 0.45),
)


def lay_fields(canvas: Canvas, x: Array, y: Array, height: Array) -> None:
    """Field polygons in two directions, each with one crop, with tracks between the rows."""
    plain = height + 0.12 * field(51, 60.0) < 0.12
    plain &= x - coast_x(y) + 22.0 * field(58, 46.0, 15.0) > 92.0
    west = x + 40.0 * field(52, 120.0) < 720.0
    for zone, angle, long, wide in ((west, 0.28, 37.0, 17.0), (~west, -0.5, 46.0, 21.0)):
        u, v = turned(x, y, angle)
        v = v + 2.5 * np.sin(u / 60.0)
        row = np.floor(v / wide)
        along = u / long + 7.0 * cell_hash(53, row.astype(np.int64))
        # Half of the fields are split once more, so that sizes differ.
        column = np.floor(along * (1 + (cell_hash(54, row.astype(np.int64)) > 0.5)))
        plot = cell_hash(55, row.astype(np.int64), column.astype(np.int64))
        tone = 0.82 + 0.36 * cell_hash(56, row.astype(np.int64), column.astype(np.int64))
        lines = 1 + 0.03 * np.sin(v * 2.1) * (tone > 1.0)
        unequal = np.clip(0.35 * (plot * 97.0 % 1.0) + 0.1 * field(57, 12.0, 4.0), -0.1, 0.5)
        for k, (cover, second, share) in enumerate(CROPS):
            here = zone & plain & (np.floor(plot * len(CROPS)) == k)
            canvas.lay(here, cover, second, np.clip(share + unequal, 0.0, 0.9), tone * lines)
        track = zone & plain & (v - row * wide < 1.1) & (row % 3 == 0)
        canvas.lay(track, "soil", "grass", 0.35)


def lay_shores(canvas: Canvas, x: Array, y: Array, distance: Array, near: dict[str, Array]) -> None:
    """Beaches, dunes, the tidal flat, marsh at the lagoon, trees along the river, bare rock."""
    inland = -distance + 0.8 * field(61, 18.0, 6.0)
    salt = near["lagoon"] > 0.02
    canvas.lay((inland < 13.0) & salt, "marsh", "grass", ramp(field(62, 16.0, 5.0), 0.0, 2.0))
    canvas.lay((inland < 2.2) & salt, "mud", "wet_sand", 0.3)
    trees = (near["river"] > 0.3) & (inland < 4.2 + 2.5 * field(63, 14.0)) & (inland > 0.6)
    canvas.lay(trees, "broadleaf", "scrub", 0.2)
    canvas.lay((near["lake"] > 0.5) & (inland < 1.6), "soil", "scrub", 0.4)
    behind = x - coast_x(y) + 1.2 * field(64, 20.0, 7.0)
    reach = 36.0 * np.sqrt(np.clip(1 - ((y - 735.0) / 158.0) ** 2, 0.0, 1.0))
    spit = (behind < reach) & (behind > 0.0) & (near["lagoon"] < 0.6)
    canvas.lay(spit, "dry_sand", "scrub", 0.75 * ramp(behind, 8.0, 13.0) * ramp(inland, 2, 5))
    open_sea = near["sea"] > 0.35
    beach = open_sea & (inland < 4.4 + 1.6 * np.sin(y / 57.0))
    canvas.lay(beach, "dry_sand", "wet_sand", 1 - ramp(inland, 0.6, 2.2))
    rock = open_sea & (np.hypot((x - 300.0) / 1.3, y - 108.0) < 70.0 + 6.0 * field(65, 12.0))
    canvas.lay(rock & (inland < 14.0 + 5.0 * field(66, 9.0)), "basalt", "scrub", 0.08)
    _lay_flat(canvas, y, behind, open_sea | (behind < 60.0))


def _lay_flat(canvas: Canvas, y: Array, behind: Array, here: NDArray[np.bool_]) -> None:
    width = 62.0 * np.sqrt(ramp(y, 885.0, 985.0))
    flat = here & (behind > 0.0) & (behind < width)
    wet = np.clip(0.55 + 0.3 * field(71, 26.0, 8.0, 3.5) - behind / 130.0, 0.0, 1.0)
    canvas.lay(flat, "wet_sand", "mud", wet, 1 + 0.05 * field(72, 9.0, 3.0))
    canvas.lay(flat & (behind > width - 9.0), "marsh", "mud", 0.35)


def lay_town(canvas: Canvas, x: Array, y: Array) -> None:
    """Blocks of roofs, gardens and bright halls between streets, thinning out at the edge."""
    core = np.hypot((x - 520.0) / 1.15, (y - 262.0) / 0.9) + 14.0 * field(81, 40.0, 14.0)
    u, v = turned(x, y, 0.17)
    lot = cell_hash(82, np.floor(u / 2.6).astype(np.int64), np.floor(v / 2.2).astype(np.int64))
    block = cell_hash(83, np.floor(u / 15.0).astype(np.int64), np.floor(v / 11.0).astype(np.int64))
    town = (core < 74.0) & (x > coast_x(y) + 3.0) & (lot < 1.35 - core / 110.0)
    tone = 0.8 + 0.45 * cell_hash(
        84, np.floor(u / 2.6).astype(np.int64), np.floor(v / 2.2).astype(np.int64)
    )
    canvas.lay(town, "tiles", "asphalt", 0.35, tone)
    canvas.lay(town & (lot > 0.62), "broadleaf", "asphalt", 0.3)
    canvas.lay(town & (lot < 0.12), "bright_roof", "asphalt", 0.2, tone)
    canvas.lay(town & (block > 0.88), "grass", "broadleaf", 0.5)
    canvas.lay(town & (block < 0.08), "bright_roof", "bright_roof", 0.0, tone)
    street = (core < 78.0) & ((np.mod(u, 15.0) < 1.3) | (np.mod(v, 11.0) < 1.1))
    canvas.lay(street & (x > coast_x(y) + 3.0), "asphalt", "tiles", 0.15)
    quay = (np.abs(y - 268.0) < 36.0) & (x > coast_x(y) - 40.0) & (x < coast_x(y) + 42.0)
    canvas.lay(quay & (core < 95.0) & (x < coast_x(y) + 5.0), "asphalt", "bright_roof", 0.35)
    canvas.lay(quay & (x > coast_x(y) + 5.0), "asphalt", "bright_roof", 0.8 * (block > 0.75))


def lay_built(canvas: Canvas, x: Array, y: Array) -> None:
    """Moles, dikes and roads."""
    for part in _breakwaters():
        canvas.lay(coverage(part) > 0.02, "bright_roof", "asphalt", 0.65)
    canvas.lay(coverage(_pond_dikes()) > 0.5, "soil", "grass", 0.3)
    start, end = bridge()
    upper, lower = sorted([start, end], key=lambda p: p[1])
    roads = (
        [(560.0, -20.0), (548.0, 120.0), (545.0, 262.0), (600.0, 360.0), upper],
        [upper, lower, (lower[0] + 20.0, lower[1] + 70.0), (660.0, 760.0), (690.0, 1040.0)],
        [(545.0, 262.0), (700.0, 318.0), (862.0, 300.0), (1040.0, 380.0)],
    )
    for road in roads:
        canvas.lay(line_distance(x, y, road) < 1.05, "asphalt", "soil", 0.1)


def _pond_dikes() -> BaseGeometry:
    return blob_box((596.0, 856.0), (-3.0, -3.0), (77.5, 41.0), 0.32)


def lay_burn(canvas: Canvas, x: Array, y: Array) -> None:
    """A fresh burn scar in the woods: as dark as water in the visible and the near infrared."""
    edge = np.hypot((x - 868.0) / 1.5, y - 96.0) + 9.0 * field(91, 26.0, 9.0)
    canvas.lay(edge < 40.0, "burn", "scrub", ramp(field(92, 9.0, 3.5), 0.7, 2.6) * 0.5)


def clouds(x: Array, y: Array) -> tuple[Array, Array]:
    """Share of cloud and of its shadow; both lie over land only."""

    def puff(cx: float, cy: float) -> Array:
        shape = np.exp(-(((x - cx) / 27.0) ** 2) - (((y - cy) / 19.0) ** 2))
        small = 0.8 * np.exp(-(((x - cx - 36.0) / 12.0) ** 2) - (((y - cy + 9.0) / 9.0) ** 2))
        return np.maximum(shape, small)

    ragged = 0.16 * field(95, 18.0, 7.0, 3.0)
    cloud = ramp(puff(742.0, 892.0) + ragged, 0.42, 0.95) * (puff(742.0, 892.0) > 0.03)
    moved = np.roll(ragged, (-31, -24), axis=(0, 1))
    cast = puff(718.0, 861.0)
    return cloud, ramp(cast + moved, 0.45, 0.75) * (cast > 0.03)


@functools.cache
def ground() -> Ground:
    """Everything that is known of the scene before a sensor looks at it."""
    x, y = pixel_centres()
    distance = shore_distance()
    shares = water_shares()
    height = field(40, 150.0, 60.0) * 0.35 + 0.9 * ramp(x * 0.6 - y * 0.8, 60.0, 520.0)
    height += 0.75 * np.exp(-((np.hypot((x - 140.0), (y - 618.0)) / 34.0) ** 2))
    height += 0.55 * ramp(y - 0.15 * x, 700.0, 900.0) * ramp(x, 560.0, 800.0)
    canvas = Canvas()
    lay_wild(canvas, height)
    lay_fields(canvas, x, y, height)
    lay_burn(canvas, x, y)
    lay_shores(canvas, x, y, distance, shares)
    lay_town(canvas, x, y)
    lay_built(canvas, x, y)
    cloud, shadow = clouds(x, y)
    return Ground(
        fraction=coverage(water()),
        depth=sea_depth(x, y, distance),
        shares=shares,
        silt=river_silt(x, y),
        foam=breakers(y, distance, shares["sea"]),
        cover=canvas.cover,
        second=canvas.second,
        mix=canvas.mix,
        light=canvas.light * (1 + 0.045 * field(96, 3.0, 9.0)),
        cloud=cloud,
        shadow=shadow,
    )


# --------------------------------------------------------------------------------------------------
# What the sensor sees


def water_reflectance(here: Ground, band: int) -> Array:
    """Reflectance of the water alone, its bottom and its foam included."""
    kinds = {name: value[band] / 100 for name, value in WATER.items()}
    colour = sum(here.shares[name] * value for name, value in kinds.items())
    colour = colour + here.silt * here.shares["sea"] * (kinds["river"] - colour)
    clear = (here.shares["sea"] + 0.35 * here.shares["lagoon"]) * (1 - here.silt)
    murk = 1 + 2.2 * here.shares["lagoon"] + 3 * here.silt
    reach = np.exp(-np.clip(2 * ATTENUATION_PER_M[band] * here.depth * murk, 0.0, 60.0))
    bottom = (0.75 * LAND["wet_sand"][band] + 0.25 * LAND["dry_sand"][band]) / 100
    colour = colour + np.clip(clear, 0.0, 1.0) * reach * (bottom - colour)
    colour = colour * (1 + 0.05 * field(101, 120.0, 30.0)) + 0.0010 * (1 + field(102, 60.0, 3.2))
    return colour + here.foam * (0.42 * np.exp(-max(WAVELENGTHS_NM[band] - 900, 0) / 700) - colour)


def land_reflectance(here: Ground, band: int) -> Array:
    """Reflectance of the land alone."""
    table = np.array([LAND[name][band] for name in LAND_NAMES]) / 100
    return ((1 - here.mix) * table[here.cover] + here.mix * table[here.second]) * here.light


def scene_reflectance(here: Ground, band: int) -> Array:
    """Reflectance at the pixel's own size before the sensor: mixed, shaded, clouded."""
    wet, dry = water_reflectance(here, band), land_reflectance(here, band)
    mixed = here.fraction * wet + (1 - here.fraction) * dry
    mixed = mixed * (1 - here.shadow * (1 - SHADOW_KEEPS[band]))
    mixed = mixed + here.cloud * (CLOUD[band] / 100 - mixed)
    stray = 0.035 if WAVELENGTHS_NM[band] < 1000 else 0.012
    return mixed + stray * (wide_blur(mixed) - mixed)


def quantise(dn: Array) -> Array:
    """Round to steps near the noise of the signal: 8 in the dark, wider where it is bright."""
    step = 8.0 * 2.0 ** np.clip(np.floor(np.log2(np.clip(dn, 1, None) / 300.0)), 0, 3)
    return np.round(dn / step) * step


def sense(reflectance: Array, band: int) -> NDArray[np.uint16]:
    """One band as the sensor delivers it: blurred, at its own pixel size, noisy, in whole DN."""
    factor = NATIVE_PIXELS[band]
    native = coarsen(blur(reflectance, 0.5 * factor), factor)
    noise = np.sqrt(0.0004**2 + (0.004 * native) ** 2) * normal(7000 + band, native.shape)
    dn = np.clip(quantise((native + noise) / SCALE), 8, 12_000)
    full = np.repeat(np.repeat(dn, factor, axis=0), factor, axis=1)[:HEIGHT, :WIDTH]
    return np.where(observed(), full, NODATA).astype(np.uint16)


def scene() -> NDArray[np.uint16]:
    """The scene in DN: (12, height, width)."""
    here = ground()
    return np.stack([sense(scene_reflectance(here, band), band) for band in range(len(BANDS))])


def truth_fraction() -> NDArray[np.uint8]:
    """Water share in 1/250, 255 where not observed: (height, width)."""
    steps = np.round(ground().fraction * FRACTION_STEPS)
    return np.where(observed(), steps, UNOBSERVED).astype(np.uint8)


def truth_mask() -> NDArray[np.uint8]:
    """1 where water covers at least half of the pixel, else 0, 255 where not observed."""
    return np.where(observed(), ground().fraction >= 0.5, UNOBSERVED).astype(np.uint8)


# --------------------------------------------------------------------------------------------------
# Files


def write_raster(
    path: Path, data: NDArray[np.generic], *, names: Sequence[str], nodata: int, scale: float
) -> None:
    """Write (bands, height, width) as a tiled, compressed GeoTIFF on the scene's grid."""
    profile = {
        "driver": "GTiff",
        "count": len(data),
        "height": HEIGHT,
        "width": WIDTH,
        "dtype": data.dtype,
        "nodata": nodata,
        "crs": CRS.from_epsg(CRS_CODE),
        "transform": TRANSFORM,
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "interleave": "band",
        "compress": "deflate",
        "zlevel": 9,
        "predictor": 2,
    }
    with rasterio.open(path, "w", **profile) as dst:
        dst.descriptions = tuple(names)
        dst.scales, dst.offsets = (scale,) * len(data), (0.0,) * len(data)
        dst.update_tags(SOURCE="made by sample_data/make_scene.py; holds no satellite data")
        dst.write(data)


def write_shoreline(path: Path) -> None:
    """Write the true shore as FlatGeobuf, which holds no time stamp."""
    lines = shoreline()
    frame = gpd.GeoDataFrame(
        {"length_m": [round(line.length, 2) for line in lines]}, geometry=lines, crs=CRS_CODE
    )
    frame.to_file(path, driver="FlatGeobuf", engine="pyogrio")


def write_all(folder: Path) -> None:
    """Write the scene and its truth into ``folder``, and their sums into its README if any."""
    folder.mkdir(parents=True, exist_ok=True)
    write_raster(folder / SCENE, scene(), names=BANDS, nodata=NODATA, scale=SCALE)
    write_raster(folder / MASK, truth_mask()[None], names=["water"], nodata=UNOBSERVED, scale=1.0)
    write_raster(
        folder / FRACTION,
        truth_fraction()[None],
        names=["water_fraction"],
        nodata=UNOBSERVED,
        scale=1 / FRACTION_STEPS,
    )
    write_shoreline(folder / SHORELINE)
    readme = folder / "README.md"
    if readme.exists():
        table = r"(?s)(?<=<!-- sums -->\n).*?(?=<!-- /sums -->)"
        readme.write_text(re.sub(table, sums(folder), readme.read_text("utf-8")), "utf-8")


def sums(folder: Path) -> str:
    """The README's table of sizes and SHA-256 sums."""
    lines = ["| file | bytes | SHA-256 |", "|---|---|---|"]
    for name in FILES:
        data = (folder / name).read_bytes()
        lines.append(f"| `{name}` | {len(data)} | `{hashlib.sha256(data).hexdigest()}` |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, metavar="FOLDER")
    folder = parser.parse_args().output
    write_all(folder)
    print(sums(folder), end="")


if __name__ == "__main__":
    main()

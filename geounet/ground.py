"""Sizes on the ground: true areas and lengths of geometries that are given in pixels.

The Earth is the ellipsoid of the CRS, and edges are straight in the CRS: what a program that draws
a polygon there would show of it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, cast

import numpy as np
import pyproj
import rasterio
import shapely
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from affine import Affine

__all__ = [
    "GroundScale",
    "Site",
    "along",
    "geodesic_measures",
    "has_ellipsoid",
    "on_map",
    "place",
    "pyproj_crs",
    "scale_of",
    "unit_of",
]

Bools: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[Any]
"""Integers of 32 or 64 bits."""
Floats: TypeAlias = NDArray[np.float64]
Geometries: TypeAlias = NDArray[np.object_]

_BLOCK = 1 << 17
"""Vertices that are worked on at once."""
_NODES = 48
"""Chebyshev nodes an axis: the whole world in Web Mercator comes out within 1e-9."""
_STEP_M = 64.0
"""Step of the differences that give the scale; far above rounding, far below the Earth's bend."""
_CHORD_PIXELS = 256.0
"""Longest edge whose length is that of a chord."""


def pyproj_crs(crs: object) -> pyproj.CRS | None:
    """A CRS as pyproj has it, from rasterio's or anything that it understands."""
    if not crs:
        return None
    if isinstance(crs, rasterio.crs.CRS):  # WKT 1, its default, loses part of some CRS
        crs = crs.to_wkt(version="WKT2_2019")
    return pyproj.CRS.from_user_input(crs)


def has_ellipsoid(crs: pyproj.CRS | None) -> TypeGuard[pyproj.CRS]:
    """Whether a CRS lies on one, and is no plane of its own."""
    return crs is not None and crs.get_geod() is not None and crs.geodetic_crs is not None


def unit_of(crs: pyproj.CRS | None) -> float:
    """The unit of a CRS's first axis in metres or radians; without a CRS 1."""
    return float(crs.axis_info[0].unit_conversion_factor) if crs is not None else 1.0


def place(transform: Affine, column: Any, row: Any) -> tuple[Floats, Floats]:
    """Coordinates of points, summed in GDAL's order to be equal to the last bit."""
    a, b, c, d, e, f = transform[:6]
    return c + column * a + row * b, f + column * d + row * e


def along(transform: Affine, points: Ints | Floats) -> Floats:
    """Points [n, 2], column and row, in coordinates of the transform: float64 [n, 2]."""
    return np.stack(place(transform, *points.T), axis=1)


def on_map(geometries: Geometries, transform: Affine) -> Geometries:
    """Geometries given in pixels, in coordinates of the transform."""
    moved: Geometries = shapely.transform(geometries, lambda xy: along(transform, xy))
    return moved


@dataclass(frozen=True)
class Site:
    """Where a raster's pixels lie. Geometries to measure are given in (column, row) within it."""

    transform: Affine
    """From (column, row) to coordinates of the CRS; may rotate and shear."""
    crs: pyproj.CRS | None
    """Whose ellipsoid they lie on; without one, or with none, sizes are plain ones."""
    shape: tuple[int, int]
    """Rows and columns."""

    def areas(self, geometries: Geometries) -> Floats:
        """True area in m² of polygons or multipolygons: float64[n] of object[n].

        Edges are straight in the CRS, see `PixelPolygons.to_frame`.
        """
        scale = scale_of(self)
        if scale is None:
            return self._by_geodesics(geometries)[0]
        rings, feature, is_shell = _rings_of(geometries)
        first = shapely.get_coordinates(shapely.get_point(rings, 0))[:, 1]
        total = np.zeros(len(rings))
        for start, end, ring in _edge_blocks(rings):
            product = np.zeros(len(start))
            for fx, fy in zip(scale.area_x, scale.area_y, strict=True):
                width = _between(fx, start[:, 0]) - _between(fx, end[:, 0])
                down = (_between(fy, start[:, 1]) + _between(fy, end[:, 1])) / 2
                # measured from the ring's first row, so that small ones keep all their digits
                product += width * (down - _between(fy, first)[ring])
            total += np.bincount(ring, weights=product, minlength=len(rings))
        sizes = np.where(is_shell, 1, -1) * np.abs(total)
        return np.bincount(feature, weights=sizes, minlength=len(geometries)).astype(np.float64)

    def lengths(self, geometries: Geometries) -> Floats:
        """True length in m of lines, or of polygons' rings: float64[n] of object[n].

        Chords between points at most 256 pixels apart, on the CRS's ellipsoid: of an edge of 2.5 km
        the chord is 0.02 mm short.
        """
        lines, feature, _ = _rings_of(geometries)
        in_space, total = self._to_space(), np.zeros(len(lines))
        for start, end, line in _edge_blocks(lines):
            pieces, owner, step = _cut_up(start, end, _CHORD_PIXELS)
            low, high = (start[owner] + at[:, None] * step for at in (pieces, pieces + 1))
            sizes = np.linalg.norm(in_space(*high.T) - in_space(*low.T), axis=1)
            total += np.bincount(line[owner], weights=sizes, minlength=len(lines))
        return np.bincount(feature, weights=total, minlength=len(geometries)).astype(np.float64)

    def measures(self, geometries: Geometries) -> tuple[Floats, Floats]:
        """True areas in m² and perimeters in m of polygons."""
        if scale_of(self) is None:
            return self._by_geodesics(geometries)
        return self.areas(geometries), self.lengths(geometries)

    def pixel_size(self) -> float:
        """Side in metres of a square as large as the raster's middle pixel."""
        row, column = (size // 2 for size in self.shape)
        middle = np.array([shapely.box(column, row, column + 1, row + 1)])
        return float(np.sqrt(self.areas(middle)[0]))

    def _by_geodesics(self, geometries: Geometries) -> tuple[Floats, Floats]:
        return geodesic_measures(on_map(geometries, self.transform), cast("pyproj.CRS", self.crs))

    def _to_space(self) -> Callable[[Floats, Floats], Floats]:
        """From (column, row) to metres, from the Earth's centre or in a plane."""
        if has_ellipsoid(self.crs):
            return _geocentric(self.transform, self.crs)
        a, b, _, d, e, _ = (unit_of(self.crs) * number for number in self.transform[:6])
        return lambda x, y: np.stack([a * x + b * y, d * x + e * y], axis=-1)


def _between(table: Floats, at: Floats) -> Floats:
    """A function tabulated at 0, 1, 2 …, linear in between."""
    values: Floats = np.interp(at, np.arange(len(table)), table)
    return values


def _cut_up(start: Floats, end: Floats, longest: float) -> tuple[Ints, Ints, Floats]:
    """Edges in pieces that are no longer: each piece's number, its edge, and its vector."""
    step = end - start
    count = np.maximum(np.ceil(np.linalg.norm(step, axis=1) / longest), 1).astype(np.int64)
    owner = np.repeat(np.arange(len(count)), count)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    return number, owner, (step / count[:, None])[owner]


def _rings_of(geometries: Geometries) -> tuple[Geometries, Ints, Bools]:
    """The rings of polygons, or lines; whose they are; and which ones bound from outside."""
    parts, feature = shapely.get_parts(geometries, return_index=True)
    if not (len(parts) and shapely.get_dimensions(parts[0]) == 2):
        return parts, feature, np.ones(len(parts), np.bool_)
    rings, part = shapely.get_rings(parts, return_index=True)
    return rings, feature[part], np.diff(part, prepend=-1) > 0


def _edge_blocks(lines: Geometries) -> Iterator[tuple[Floats, Floats, Ints]]:
    """Both ends of some edges at a time, and whose they are."""
    xy, line = shapely.get_coordinates(lines, return_index=True)
    for first in range(0, len(xy) - 1, _BLOCK):
        some = slice(first, first + _BLOCK + 1)
        owner = line[some]
        edge = np.flatnonzero(owner[:-1] == owner[1:])
        yield xy[some][edge], xy[some][edge + 1], owner[edge]


@dataclass(frozen=True, slots=True, eq=False)
class GroundScale:
    """Metres on the ground of a pixel's sides and of its area, as a function of the place.

    Each of the three is a short sum of products f(column) g(row), tabulated at the lattice points.
    The factors to sum over are tabulated as antiderivatives, so a polygon's area is a sum over its
    horizontal edges (Green's theorem), exact for edges of any length, without projecting a corner.
    """

    area_x: Floats
    """float64[terms, columns + 1]: antiderivative along columns."""
    area_y: Floats
    """float64[terms, rows + 1]: antiderivative along rows."""
    across_x: Floats
    """float64[terms, columns + 1]: antiderivative along columns."""
    across_y: Floats
    """float64[terms, rows + 1]: value."""
    down_x: Floats
    """float64[terms, columns + 1]: value."""
    down_y: Floats
    """float64[terms, rows + 1]: antiderivative along rows."""

    @classmethod
    def flat(cls, transform: Affine, unit: float, shape: tuple[int, int]) -> GroundScale:
        """The scale of a plane with coordinates in `unit` metres."""
        rows, columns = (np.arange(size + 1, dtype=np.float64)[None] for size in shape)
        across = unit * float(np.hypot(transform.a, transform.d))
        down = unit * float(np.hypot(transform.b, transform.e))
        return cls(
            area_x=unit**2 * abs(transform.determinant) * columns,
            area_y=rows,
            across_x=across * columns,
            across_y=np.ones_like(rows),
            down_x=np.ones_like(columns),
            down_y=down * rows,
        )

    @classmethod
    def curved(
        cls, transform: Affine, crs: pyproj.CRS, shape: tuple[int, int]
    ) -> GroundScale | None:
        """The scale on the CRS's ellipsoid; None if the raster reaches beyond the CRS's domain."""
        node = (chebyshev.chebpts1(_NODES) + 1) / 2
        x, y = np.meshgrid(node * shape[1], node * shape[0], indexing="ij")
        across, down, area = _pixel_size(transform, crs, x, y)
        if not np.isfinite(area).all():
            return None
        area_x, area_y = _separate(area, shape, (True, True))
        across_x, across_y = _separate(across, shape, (True, False))
        down_x, down_y = _separate(down, shape, (False, True))
        return cls(area_x, area_y, across_x, across_y, down_x, down_y)

    def areas(self, start: Ints, end: Ints, row: Ints, base: Ints) -> Floats:
        """Between horizontal edges, from column to column in a row, and another row; signed."""
        total = np.zeros(len(row))
        for fx, fy in zip(self.area_x, self.area_y, strict=True):
            total += (fx[start] - fx[end]) * (fy[row] - fy[base])
        return total

    def widths(self, start: Ints, end: Ints, row: Ints) -> Floats:
        """Length of horizontal edges."""
        total = np.zeros(len(row))
        for fx, fy in zip(self.across_x, self.across_y, strict=True):
            total += (fx[end] - fx[start]) * fy[row]
        return np.abs(total)

    def heights(self, column: Ints, start: Ints, end: Ints) -> Floats:
        """Length of vertical edges, from row to row in a column."""
        total = np.zeros(len(column))
        for fx, fy in zip(self.down_x, self.down_y, strict=True):
            total += fx[column] * (fy[end] - fy[start])
        return np.abs(total)


@functools.lru_cache(maxsize=2)
def scale_of(site: Site) -> GroundScale | None:
    """The scale of a raster; None if it reaches beyond its CRS's domain."""
    if has_ellipsoid(site.crs):
        return GroundScale.curved(site.transform, site.crs, site.shape)
    return GroundScale.flat(site.transform, unit_of(site.crs), site.shape)


def geodesic_measures(geometries: Geometries, crs: pyproj.CRS) -> tuple[Floats, Floats]:
    """Areas in m² and perimeters in m of polygons in a CRS, by geodesics (Karney 2013), slower."""
    to_angles, geod = _to_angles(crs), _geod(crs)
    parts, feature = shapely.get_parts(geometries, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    sums = np.zeros((2, len(geometries)))
    for ring, at in zip(rings, feature[part], strict=True):
        lon, lat = to_angles(*shapely.get_coordinates(ring).T)
        area, length = geod.polygon_area_perimeter(lon, lat, radians=True)
        sums[:, at] += (area, length) if np.isfinite(lon).all() else np.nan
    return np.abs(sums[0]), sums[1]


def _geod(crs: pyproj.CRS) -> pyproj.Geod:
    return cast("pyproj.Geod", crs.get_geod())


def _to_angles(crs: pyproj.CRS) -> Callable[[Floats, Floats], tuple[Floats, Floats]]:
    """From a CRS's coordinates to longitude and latitude in radians; NaN where there are none."""
    geodetic = cast("pyproj.CRS", crs.geodetic_crs)
    transform = pyproj.Transformer.from_crs(crs, geodetic, always_xy=True).transform

    def angles(x: Floats, y: Floats) -> tuple[Floats, Floats]:
        lon, lat = (
            unit_of(geodetic) * np.where(np.isfinite(a), a, np.nan) for a in transform(x, y)
        )
        return lon, lat

    return angles


def _pixel_size(
    transform: Affine, crs: pyproj.CRS, x: Floats, y: Floats
) -> tuple[Floats, Floats, Floats]:
    """Metres along a column step and a row step, and m² of the cell that they span, at (x, y).

    Differences of geocentric coordinates: no case for poles, the antimeridian or axis units.
    """
    centre = np.array([x.mean()]), np.array([y.mean()])
    to_space = _geocentric(transform, crs)
    size = [float(np.linalg.norm(_slope(to_space, *centre, axis, 0.5))) for axis in (0, 1)]
    east, south = (_slope(to_space, x, y, axis, _STEP_M / size[axis]) for axis in (0, 1))
    across, down = np.linalg.norm(east, axis=-1), np.linalg.norm(south, axis=-1)
    area = np.linalg.norm(np.cross(east, south), axis=-1)
    return across, down, area


def _slope(
    at: Callable[[Floats, Floats], Floats], x: Floats, y: Floats, axis: int, step: float
) -> Floats:
    """Derivative of a place by x (axis 0) or y (axis 1), by central differences."""
    dx, dy = (step, 0.0) if axis == 0 else (0.0, step)
    return (at(x + dx, y + dy) - at(x - dx, y - dy)) / (2 * step)


def _geocentric(transform: Affine, crs: pyproj.CRS) -> Callable[[Floats, Floats], Floats]:
    """From (column, row) to metres from the Earth's centre, on the ellipsoid."""
    to_angles, geod = _to_angles(crs), _geod(crs)

    def in_space(x: Floats, y: Floats) -> Floats:
        lon, lat = to_angles(*place(transform, x, y))
        normal = geod.a / np.sqrt(1 - geod.es * np.sin(lat) ** 2)
        across = normal * np.cos(lat)
        up = normal * (1 - geod.es) * np.sin(lat)
        return np.stack([across * np.cos(lon), across * np.sin(lon), up], axis=-1)

    return in_space


def _separate(
    values: Floats, shape: tuple[int, int], antiderivative: tuple[bool, bool]
) -> tuple[Floats, Floats]:
    """Tables f, g with sum(f[i] g[i]) equal to a smooth function that is known at the nodes.

    Args:
        values: float64[nodes, nodes], at Chebyshev nodes of (column, row).
        shape: Rows and columns of the raster.
        antiderivative: Whether to tabulate that of f, of g.

    Returns:
        float64[terms, columns + 1] and float64[terms, rows + 1].
    """
    left, weight, right = np.linalg.svd(values)
    terms = int((weight > 1e-10 * weight[0]).sum())
    factors = (left * weight)[:, :terms], right[:terms].T
    return tuple(  # type: ignore[return-value]
        _tabulate(factor, size, antiderivative=whole)
        for factor, size, whole in zip(factors, shape[::-1], antiderivative, strict=True)
    )


def _tabulate(factor: Floats, size: int, *, antiderivative: bool) -> Floats:
    """float64[terms, size + 1]: Chebyshev interpolation, at 0, 1 .. size, from the nodes."""
    series = chebyshev.chebfit(chebyshev.chebpts1(_NODES), factor, _NODES - 1)
    if antiderivative:
        series = chebyshev.chebint(series, scl=size / 2)
    return np.asarray(chebyshev.chebval(np.linspace(-1, 1, size + 1), series))

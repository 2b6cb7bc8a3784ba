"""Parts of a scene: a box or an area in any CRS, laid onto the scene's pixels.

Both become polygons in pixel coordinates (column, row) of the scene's grid. A box gives only the
window around it; of an area, pixels whose centres lie outside were not observed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import shapely
from affine import Affine
from rasterio.features import rasterize

from geounet.errors import ConfigError, SceneError
from geounet.tiling import Window

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from geounet.scene import Grid

__all__ = [
    "Area",
    "area_on_grid",
    "corners",
    "leads_to",
    "read_polygons",
    "window_of_bbox",
    "window_within",
]

_PIECES = 1000
"""An edge as long as the scene is moved to another CRS in so many pieces. Each bends by a
millionth of what all of it does: by less than a millimetre where the scene has 100 km."""
_SNAP = 2.0**20
"""Vertices lie on this many places a pixel, so that moving them by whole pixels is exact."""
_TURNS = (-360.0, 0.0, 360.0)
_NEAR_POLE = 89.99
"""Latitude beyond which a scene that does not hold the pole has nothing."""
_REACH = 0.1
"""How far around the scene polygons are kept, as a share of its sides."""


@dataclass(frozen=True)
class Area:
    """An area laid onto a grid's pixels."""

    polygons: tuple[shapely.Polygon, ...]
    """In pixel coordinates (column, row)."""

    @cached_property
    def _bounds(self) -> NDArray[np.float64]:
        """[n, 4]: least column and row, greatest column and row."""
        bounds: NDArray[np.float64] = shapely.bounds(np.array(self.polygons, object))
        return bounds

    @property
    def window(self) -> Window:
        """The pixels around all of it."""
        return _around(self._bounds)

    def inside(self, window: Window, shape: tuple[int, int] | None = None) -> NDArray[np.bool_]:
        """Which pixels have their centre inside: bool [height, width].

        The answer for a pixel does not depend on the window that it is asked with.

        Args:
            window: the pixels.
            shape: height and width of a coarser answer, whose pixels are spread evenly over the
                window; None takes the window's.
        """
        height, width = shape or (window.height, window.width)
        least, greatest = self._bounds[:, :2], self._bounds[:, 2:]
        stop = (window.col + window.width, window.row + window.height)
        near = (least < stop).all(axis=1) & (greatest > (window.col, window.row)).all(axis=1)
        chosen = [self.polygons[i] for i in np.flatnonzero(near)]
        if not chosen:
            return np.zeros((height, width), np.bool_)
        place = Affine(window.width / width, 0, window.col, 0, window.height / height, window.row)
        burnt = rasterize(chosen, out_shape=(height, width), transform=place, dtype=np.uint8)
        inside: NDArray[np.bool_] = burnt.view(np.bool_)
        return inside


def window_within(window: Window, grid: Grid, what: str) -> Window:
    """What of a window lies within a grid.

    Raises:
        SceneError: nothing of it does.
    """
    top, left = max(window.row, 0), max(window.col, 0)
    bottom = min(window.row + window.height, grid.height)
    right = min(window.col + window.width, grid.width)
    if bottom <= top or right <= left:
        raise SceneError(
            f"{what} must overlap the scene; it covers columns {window.col} to "
            f"{window.col + window.width} and rows {window.row} to {window.row + window.height} "
            f"of a scene of {grid.width} columns and {grid.height} rows."
        )
    return Window(top, left, bottom - top, right - left)


def window_of_bbox(
    grid: Grid, bbox: tuple[float, float, float, float], crs: str | None = None
) -> Window:
    """The pixels around a box.

    Args:
        grid: of the scene.
        bbox: least x, least y, greatest x, greatest y. In a geographic CRS x is the longitude, and
            the first may be the greater one: the box then crosses the antimeridian.
        crs: of the box, as PROJ knows it (``EPSG:4326``); None takes the scene's. The edges of a
            box in another CRS bend, and the window is the one around all of them.

    Raises:
        ConfigError: a box that is none, a CRS that is not known, or a box of which the scene has
            its two ends alone.
        SceneError: the box lies outside the scene, or the scene has no CRS to lay it by.
    """
    given = _parse_crs(crs)
    own = given or _crs_of(grid)
    west, south, east, north = bbox
    if west > east and own is not None and own.is_geographic:
        east += 360.0
    if not (all(map(math.isfinite, bbox)) and west < east and south < north):
        raise ConfigError(
            f"a bbox is minx,miny,maxx,maxy with minx < maxx and miny < maxy; got {_text(bbox)}."
        )
    box = np.array([shapely.box(west, south, east, north)], object)
    bounds = shapely.bounds(_within(_on_pixels(box, given, grid), grid))
    pieces = bounds[(bounds[:, 2:] > bounds[:, :2]).all(axis=1)]
    if not len(pieces):
        raise _outside("the bbox", box, given, grid)
    pieces = pieces[np.argsort(pieces[:, 0])]
    if (pieces[1:, 0] > np.maximum.accumulate(pieces[:-1, 2])).any():
        raise ConfigError(
            f"a bbox must be one piece of the scene; {_text(bbox)} crosses the seam of the "
            f"scene's longitudes and covers its two ends. Take its halves one by one."
        )
    return window_within(_around(pieces), grid, "the bbox")


def area_on_grid(
    polygons: NDArray[np.object_], crs: object, grid: Grid, *, what: str = "the geometry"
) -> Area:
    """An area laid onto a grid.

    Args:
        polygons: polygons and multipolygons of shapely, in any number.
        crs: theirs, as pyproj understands it; None takes the grid's.
        grid: of the scene.
        what: what to call it in an error.

    Raises:
        ConfigError: there is no polygon, or all of them are empty.
        SceneError: they lie outside the scene, or the scene has no CRS to lay them by.
    """
    given = _parse_crs(crs)
    if np.isinf(shapely.get_coordinates(polygons)).any():
        raise ConfigError("a geometry must have finite coordinates; some are not.")
    polygons = _polygons(shapely.make_valid(polygons))
    if not len(polygons):
        raise ConfigError("a geometry must hold a polygon that is not empty; it has none.")
    found = shapely.make_valid(_on_pixels(polygons, given, grid))
    near = shapely.transform(_polygons(_within(found, grid)), _snapped)
    if not len(near):
        raise _outside(what, polygons, given, grid)
    return Area(tuple(near))


def read_polygons(path: str | os.PathLike[str]) -> tuple[NDArray[np.object_], str | None]:
    """Geometries of a vector file's first layer, and their CRS; None where the file has none.

    Raises:
        ConfigError: there is no such file, or it is no vector file.
    """
    import pyogrio  # noqa: PLC0415 - only who gives a geometry needs it
    from pyogrio.errors import DataLayerError, DataSourceError  # noqa: PLC0415

    try:
        meta, _, geometries, _ = pyogrio.raw.read(path, columns=[], force_2d=True)
    except (DataSourceError, DataLayerError, OSError) as error:
        raise ConfigError(
            f"a geometry must be a vector file with polygons (GeoJSON, GeoPackage, …); {path} is "
            f"none: {str(error).removeprefix(f'{path}: ').split('; ')[0].rstrip('.')}."
        ) from error
    if geometries is None:
        raise ConfigError(f"a geometry must hold a polygon; {path} has no geometries at all.")
    found = shapely.from_wkb(geometries)
    if not len(_polygons(found)):
        raise ConfigError(f"a geometry must hold a polygon that is not empty; {path} has none.")
    return found, meta["crs"]


def leads_to(crs: object, target: object) -> bool:
    """Whether PROJ knows a way from one CRS to another: from a local one, or the Moon's, none.

    Args:
        crs: as pyproj understands it.
        target: likewise.
    """
    try:
        pyproj.Transformer.from_crs(crs, target, always_xy=True)
    except pyproj.exceptions.ProjError:
        return False
    return True


def corners(transform: Affine, width: int, height: int) -> list[tuple[float, float]]:
    """Where a raster's four corners lie."""
    pixels = [(0, 0), (width, 0), (width, height), (0, height)]
    return [_place(transform, *pixel) for pixel in pixels]


def _parse_crs(crs: object) -> pyproj.CRS | None:
    if crs is None:
        return None
    try:
        return pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError as error:
        raise ConfigError(f"a CRS is one that PROJ knows, like EPSG:4326; got {crs!r}.") from error


def _crs_of(grid: Grid) -> pyproj.CRS | None:
    return None if grid.crs is None else pyproj.CRS.from_wkt(grid.crs.to_wkt(version="WKT2_2019"))


def _polygons(geometries: NDArray[np.object_]) -> NDArray[np.object_]:
    """The polygons among geometries and collections of them, those that are not empty."""
    parts = shapely.get_parts(shapely.get_parts(geometries))
    chosen = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    found: NDArray[np.object_] = parts[chosen & ~shapely.is_empty(parts)]
    return found


def _on_pixels(
    polygons: NDArray[np.object_], crs: pyproj.CRS | None, grid: Grid
) -> NDArray[np.object_]:
    """Polygons in pixel coordinates of a grid; what lies far from it may be left out."""
    own = _crs_of(grid)
    if crs is not None and own is None:
        raise SceneError(
            f"a scene needs a CRS for a part in {crs.name} to be found; it has none. Give the "
            f"part in the scene's coordinates, or as --window."
        )
    if crs is not None and own is not None and not crs.equals(own, ignore_axis_order=True):
        if not leads_to(crs, own):
            raise SceneError(
                f"a part must be in a CRS that leads to the scene's; {crs.name} does not lead to "
                f"{own.name}. Give the part in the scene's coordinates, or as --window."
            )
        polygons = _to_crs(polygons, crs, own, grid)
    if own is not None and own.is_geographic:
        polygons = _turned(polygons, _TURNS)
    inverse = ~grid.transform
    moved: NDArray[np.object_] = shapely.transform(
        polygons, lambda xy: _snapped(np.stack(_place(inverse, *xy.T), axis=1))
    )
    return moved


def _snapped(places: NDArray[np.float64]) -> NDArray[np.float64]:
    snapped: NDArray[np.float64] = np.round(places * _SNAP) / _SNAP
    return snapped


def _to_crs(
    polygons: NDArray[np.object_], crs: pyproj.CRS, own: pyproj.CRS, grid: Grid
) -> NDArray[np.object_]:
    """What of polygons lies near a grid, in its CRS.

    They are cut first: far from the grid its projection may not be defined.
    """
    forth = pyproj.Transformer.from_crs(crs, own, always_xy=True, force_over=True)
    back = pyproj.Transformer.from_crs(own, crs, always_xy=True, force_over=True)
    if crs.is_geographic:
        polygons = _turned(polygons, _TURNS)
    reach = _reach(grid, forth, back, crs)
    west, south, east, north = reach.bounds
    near = _polygons(shapely.intersection(polygons, reach))
    cut = shapely.segmentize(near, max(east - west, north - south) / _PIECES)
    moved: NDArray[np.object_] = shapely.transform(
        cut, lambda xy: np.stack(forth.transform(xy[:, 0], xy[:, 1]), axis=1)
    )
    return moved[np.isfinite(shapely.bounds(moved)).all(axis=1)] if len(moved) else moved


def _reach(
    grid: Grid, forth: pyproj.Transformer, back: pyproj.Transformer, crs: pyproj.CRS
) -> shapely.Polygon:
    """A box around a grid in another CRS, with room to spare.

    Raises:
        SceneError: the other CRS has no coordinates for where the grid is.
    """
    col, row = np.meshgrid(np.linspace(0, grid.width, 33), np.linspace(0, grid.height, 33))
    x, y = back.transform(*_place(grid.transform, col.ravel(), row.ravel()))
    seen = np.isfinite(x) & np.isfinite(y)
    if not seen.any():
        raise SceneError(
            f"a part must be in a CRS that reaches the scene; {crs.name} does not. Give it in "
            f"EPSG:4326, or as --window."
        )
    west, east, south, north = x[seen].min(), x[seen].max(), y[seen].min(), y[seen].max()
    across, along = _REACH * (east - west), _REACH * (north - south)
    if not crs.is_geographic:
        return shapely.box(west - across, south - along, east + across, north + along)
    if east - west > 180:  # around a pole, or around the world
        west, east, across = -180.0, 180.0, 0.0
    south, north = max(south - along, -_NEAR_POLE), min(north + along, _NEAR_POLE)
    if _holds(grid, *forth.transform(0.0, -90.0)):
        south = -90.0
    if _holds(grid, *forth.transform(0.0, 90.0)):
        north = 90.0
    return shapely.box(west - across, south, east + across, north)


def _holds(grid: Grid, x: float, y: float) -> bool:
    """Whether a place lies in a grid."""
    if not (math.isfinite(x) and math.isfinite(y)):
        return False
    col, row = _place(~grid.transform, x, y)
    return bool(0 <= col <= grid.width and 0 <= row <= grid.height)


def _turned(polygons: NDArray[np.object_], turns: Sequence[float]) -> NDArray[np.object_]:
    """Polygons on the globe, and again a turn further west and east."""
    shifts = [np.array([turn, 0.0]) for turn in turns]
    return np.concatenate([shapely.transform(polygons, shift.__add__) for shift in shifts])


def _place(transform: Affine, x: Any, y: Any) -> tuple[Any, Any]:
    """Where a transform takes numbers or arrays."""
    a, b, c, d, e, f, *_ = transform
    return a * x + b * y + c, d * x + e * y + f


def _within(polygons: NDArray[np.object_], grid: Grid) -> NDArray[np.object_]:
    cut: NDArray[np.object_] = shapely.intersection(
        polygons, shapely.box(0, 0, grid.width, grid.height)
    )
    return cut


def _around(bounds: NDArray[np.float64]) -> Window:
    """The pixels that boxes of pixel coordinates [n, 4] touch."""
    left, top = (math.floor(v) for v in bounds[:, :2].min(axis=0))
    right, bottom = (math.ceil(v) for v in bounds[:, 2:].max(axis=0))
    return Window(top, left, bottom - top, right - left)


def _outside(
    what: str, polygons: NDArray[np.object_], crs: pyproj.CRS | None, grid: Grid
) -> SceneError:
    """Both extents, each in its own CRS and the scene's in that of the part as well."""
    own = _crs_of(grid)
    scene = shapely.Polygon(corners(grid.transform, grid.width, grid.height)).bounds
    extent = f"{_text(scene)} ({own.name if own else 'no CRS'})"
    if crs is not None and own is not None and crs != own:
        back = pyproj.Transformer.from_crs(own, crs, always_xy=True)
        extent += f", that is {_text(back.transform_bounds(*scene))} in {crs.name}"
    given = crs or own
    return SceneError(
        f"{what} must overlap the scene; it covers {_text(shapely.total_bounds(polygons))} "
        f"({given.name if given else 'no CRS'}), the scene {extent}."
    )


def _text(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:.10g}" for number in numbers)

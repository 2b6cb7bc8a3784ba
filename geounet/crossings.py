"""Where shorelines cross transects: distances in metres on the ground, one table for many dates.

A transect begins on land. Along a mask it passes whole pixels, and the shore is the exact edge
between two of them. Along a water probability it passes the squares between pixel centres, and the
shore is where the probability reaches 0.5, below the pixel, interpolated as contours have it: on
the lines between centres the two are the same. Lines are crossed where they are.

The name is not `transects`, because a module of that name would hide the function in `geounet`.
"""

from __future__ import annotations

import math
import re
import warnings
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
import rasterio
import shapely
from pyproj.exceptions import ProjError
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geounet import remote
from geounet.buckets import fetch
from geounet.compare import check_codes, grid_of, neighbour, on_turn
from geounet.contours import level_of, stretched
from geounet.errors import ConfigError, GeounetWarning, OutputError, SceneError
from geounet.ground import along, has_ellipsoid, pyproj_crs, unit_of
from geounet.mask import NOT_OBSERVED
from geounet.outlines import is_probability
from geounet.products.raster import (
    file_name,
    iso_time,
    open_raster,
    read_band,
    shown,
    time_of,
)
from geounet.staging import check_free, staged
from geounet.timing import Progress

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["TransectResult", "check_table", "transects"]

Ints: TypeAlias = "NDArray[Any]"
Bytes: TypeAlias = "NDArray[np.uint8]"
Floats: TypeAlias = "NDArray[np.float64]"
Pick: TypeAlias = Literal["first", "last"]
Side: TypeAlias = Literal["left", "right"]

_SHORE = stretched(level_of(0.5) - 0.5)
"""The level of contours at 0.5, as it is interpolated."""
_PIECE_M = 250.0
"""Transects are projected by points at most this far apart: straight within millimetres."""
_LEAST_PIECES = 8
_STEPS = 4
"""Steps by which each square between pixel centres is passed."""
_MOST_TRANSECTS = 1_000_000
_NAME_COLUMNS = ("transect", "transect_id", "id", "name")
_VECTORS = (".gpkg", ".fgb", ".geojson", ".json", ".parquet", ".geoparquet")
_DATE_IN_NAME = re.compile(r"(?<!\d)(\d{4})(-?)(\d{2})\2(\d{2})(?!\d)")


@dataclass(frozen=True, eq=False)
class TransectResult:
    """Transects and where shorelines cross them."""

    lines: gpd.GeoDataFrame
    """`transect`, `length_m`, and the line, from land to sea."""
    crossings: gpd.GeoDataFrame
    """For each source and transect: `transect`, `source` (file name, or the path where several
    files have one name), `date` (ISO 8601, from the file's tags or its name; empty if not known),
    `distance_m` from the transect's origin (NaN where there is none), `n_crossings`, `observed`,
    and the point of the crossing in the CRS of the transects."""

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the table: .csv without geometry, .parquet (GeoParquet), or .gpkg with both layers.

        Raises:
            ConfigError: the suffix is another one.
            OutputError: the file exists and may not be replaced, or cannot be written.
        """
        path = Path(path)
        check_table(path, overwrite=overwrite)
        with staged({"table": path}) as drafts:
            try:
                _write(self, drafts["table"])
            except (OSError, pyogrio.errors.DataSourceError) as error:
                raise OutputError(f"the table {path} cannot be written: {error}.") from error
        return path


def check_table(path: Path, *, overwrite: bool = False) -> None:
    """Refuse a table of another format, and one that exists and may not be replaced.

    Raises:
        ConfigError: the suffix is none of .csv, .parquet and .gpkg.
        OutputError: the file exists.
    """
    if path.suffix.lower() not in (".csv", ".parquet", ".gpkg"):
        raise ConfigError(f"the table is a .csv, .parquet or .gpkg file; got {str(path)!r}.")
    check_free({"table": path}, overwrite=overwrite)


def _write(result: TransectResult, path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        result.crossings.drop(columns="geometry").to_csv(path, index=False)
    elif suffix == ".parquet":
        result.crossings.to_parquet(path, schema_version="1.1.0", compression="zstd")
    else:
        layers = {"crossings": (result.crossings, "Point"), "transects": (result.lines, None)}
        for layer, (frame, kind) in layers.items():
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "'crs' was not provided")  # a frame without
                pyogrio.write_dataframe(
                    frame, path, driver="GPKG", layer=layer, geometry_type=kind, append=False
                )


def transects(
    baseline: str | os.PathLike[str],
    sources: Sequence[str | os.PathLike[str]],
    *,
    spacing: float | None = None,
    length: float | None = None,
    side: Side = "left",
    pick: Pick = "first",
    on_progress: Callable[[Progress], None] | None = None,
) -> TransectResult:
    """Measure where the shoreline of each date crosses transects.

    Distances are geodesic, on the CRS's ellipsoid, whatever the CRS; without one, or in one that
    has no ellipsoid, they are plain ones in its units.

    A transect that meets pixels that are not observed or obscured before it meets the shore (seen
    from land for "first", from the sea for "last"), or the raster's edge, gives no distance and
    counts as not observed. Line files do not tell what was observed: a transect counts as observed
    where a line crosses it.

    Args:
        baseline: a file of lines: transects from land to sea, or, with `spacing` and `length`,
            lines on land along the coast on which transects are set up at right angles.
        sources: one file a date: a mask (0 land, 1 water, 2 obscured, 255 not observed), a water
            probability as `run` writes it (of which pixels that ``NAME_mask.tif`` beside
            ``NAME_probability.tif`` calls obscured are left out), or a file of shorelines.
        spacing: metres between transects along each baseline, the first at its start.
        length: metres of each transect.
        side: the side of the baseline, seen along it, on which the sea lies.
        pick: which crossing to measure where there are several: the first or the last from land.
        on_progress: called as sources are done.

    Raises:
        SceneError: a file cannot be read, or is none of these, or has no CRS where others have.
        ConfigError: a parameter breaks a rule.

    Warns:
        GeounetWarning: most transects that cross a raster's shore begin in water, or none meets
            anything that was observed.
    """
    _check(spacing, length, side, pick)
    if not sources:
        raise ConfigError("transects are measured on one file or more; got none.")
    lines, names = _read_baseline(baseline)
    ground = _Ground(lines.crs)
    if spacing is not None and length is not None:
        cast = [ray for line in lines for ray in ground.rays(line, spacing, length, side)]
        lines = gpd.GeoSeries(cast, crs=lines.crs)
        names = [str(number) for number in range(len(cast))]
    paths = [ground.path(name, line) for name, line in zip(names, lines, strict=True)]
    rows: list[_Row] = []
    for number, (source, called) in enumerate(zip(sources, _called(sources), strict=True), start=1):
        rows += _measure(source, called, paths, lines.crs, pick)
        if on_progress:
            on_progress(Progress(number, len(sources)))
    _warn_of_turned(rows)
    _warn_of_nothing(rows, len(sources))
    return TransectResult(_lines_frame(paths, lines), _crossings_frame(rows, lines.crs))


def _called(sources: Sequence[str | os.PathLike[str]]) -> list[str]:
    """What to call each source: its file's name, or its path where several have that name."""
    names = [file_name(source) for source in sources]
    return [
        name if names.count(name) == 1 else shown(source)
        for name, source in zip(names, sources, strict=True)
    ]


def _warn_of_turned(rows: list[_Row]) -> None:
    """Say it where most transects begin in water: their distances are not from land."""
    crossing = [row for row in rows if row.count]
    wet = sum(row.wet for row in crossing)
    if 2 * wet > len(crossing):
        warnings.warn(
            f"transects go from land to sea; {wet} of {len(crossing)} that cross the shore begin "
            f"in water, and their distances are from there. Turn the lines, or put the baseline "
            f"on land, or the transects on its other side (--side).",
            GeounetWarning,
            stacklevel=3,
        )


def _warn_of_nothing(rows: list[_Row], files: int) -> None:
    """Say it where all transects lie beside all files: often one of the two CRS is wrong."""
    if rows and all(row.blank for row in rows):
        warnings.warn(
            f"transects must lie where the files do; none meets a shore or an observed pixel of "
            f"the {files} given. Check where both lie, and their CRS.",
            GeounetWarning,
            stacklevel=3,
        )


def _check(spacing: float | None, length: float | None, side: str, pick: str) -> None:
    if (spacing is None) != (length is None):
        raise ConfigError(
            "transects are set up on a baseline with both a spacing and a length, or given as "
            f"lines without either; got spacing={spacing} and length={length}."
        )
    for name, value in (("spacing", spacing), ("length", length)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"the {name} is a number of metres above 0; got {value!r}.")
    if side not in ("left", "right"):
        raise ConfigError(f"the side is left or right; got {side!r}.")
    if pick not in ("first", "last"):
        raise ConfigError(f"the crossing to pick is the first or the last; got {pick!r}.")


def _crossings_frame(rows: list[_Row], crs: pyproj.CRS | None) -> gpd.GeoDataFrame:
    columns = {
        "transect": [row.transect for row in rows],
        "source": [row.source for row in rows],
        "date": [row.date for row in rows],
        "distance_m": np.array([row.distance for row in rows], np.float64),
        "n_crossings": np.array([row.count for row in rows], np.int32),
        "observed": np.array([row.observed for row in rows], np.bool_),
    }
    return gpd.GeoDataFrame(columns, geometry=[row.point for row in rows], crs=crs)


def _lines_frame(paths: list[_Path], lines: gpd.GeoSeries) -> gpd.GeoDataFrame:
    columns = {
        "transect": [path.name for path in paths],
        "length_m": np.array([path.metres[-1] for path in paths], np.float64),
    }
    return gpd.GeoDataFrame(columns, geometry=list(lines), crs=lines.crs)


# -- transects on the ground -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class _Path:
    """A transect as points close enough to be straight between them in any CRS."""

    name: str
    points: Floats
    """float64 [n, 2], from land to sea, in the CRS of the transects."""
    metres: Floats
    """float64 [n]: distance of each from the first."""

    def at(self, metres: float) -> shapely.Point:
        """The point at a distance from the origin."""
        x, y = (np.interp(metres, self.metres, axis) for axis in self.points.T)
        return shapely.Point(x, y)


class _Ground:
    """Lengths and right angles on the ground for coordinates of a CRS."""

    def __init__(self, crs: pyproj.CRS | None) -> None:
        self._geod = crs.get_geod() if crs is not None else None
        self._unit = unit_of(crs)
        self._to_lonlat: pyproj.Transformer | None = None
        if has_ellipsoid(crs):
            self._to_lonlat = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
            self._radians = unit_of(crs.geodetic_crs)
            self._round = 2 * math.pi / self._unit if crs.is_geographic else None

    def path(self, name: str, line: shapely.LineString) -> _Path:
        """Measure a line.

        Raises:
            SceneError: it reaches beyond its CRS's domain, or has no length.
        """
        points = shapely.get_coordinates(line)
        rough = float(self._steps(points)[2].sum())
        if not (math.isfinite(rough) and rough > 0):
            raise SceneError(
                f"a transect has a length on the ground; number {name} has {rough:g} m. "
                f"Check its coordinates and the CRS of its file."
            )
        pieces = max(_LEAST_PIECES, math.ceil(rough / _PIECE_M))
        points = _densified(points, pieces)
        metres = np.concatenate([[0.0], np.cumsum(self._steps(points)[2])])
        return _Path(name, points, metres)

    def _steps(self, points: Floats) -> tuple[Floats, Floats, Floats]:
        """Start (radians or units), heading and length in metres of each step between points."""
        if self._to_lonlat is None or self._geod is None:
            moves = np.diff(points, axis=0)
            heading = np.arctan2(moves[:, 0], moves[:, 1])
            return points[:-1], heading, np.hypot(*moves.T) * self._unit
        lon, lat = (a * self._radians for a in self._to_lonlat.transform(*points.T))
        heading, _, length = self._geod.inv(lon[:-1], lat[:-1], lon[1:], lat[1:], radians=True)
        return np.stack([lon, lat], axis=1)[:-1], np.asarray(heading), np.asarray(length)

    def rays(
        self, line: shapely.LineString, spacing: float, length: float, side: Side
    ) -> Iterator[shapely.LineString]:
        """Lines at right angles to a baseline, from it, at even distances along it."""
        points = _densified(shapely.get_coordinates(line), _LEAST_PIECES)
        starts, headings, lengths = self._steps(points)
        reach = np.concatenate([[0.0], np.cumsum(lengths)])
        if not np.isfinite(reach[-1]) or reach[-1] / spacing > _MOST_TRANSECTS:
            raise ConfigError(
                f"a baseline holds a million transects at most; one of {reach[-1]:g} m with a "
                f"spacing of {spacing:g} m does not."
            )
        turn = -math.pi / 2 if side == "left" else math.pi / 2
        for metres in np.arange(0, reach[-1] + 1e-6 * spacing, spacing).tolist():
            leg = min(int(np.searchsorted(reach, metres, side="right")) - 1, len(lengths) - 1)
            foot, heading = self._go(starts[leg], headings[leg], metres - reach[leg])
            tip, _ = self._go(foot, heading + turn, length)
            yield self._line(foot, tip, near=points[leg])

    def _go(self, start: Floats, heading: float, metres: float) -> tuple[Floats, float]:
        """Where one arrives, and the heading there."""
        if self._to_lonlat is None or self._geod is None:
            step = metres / self._unit
            return start + step * np.array([math.sin(heading), math.cos(heading)]), heading
        lon, lat, back = self._geod.fwd(start[0], start[1], heading, metres, radians=True)
        return np.array([lon, lat]), back + math.pi

    def _line(self, foot: Floats, tip: Floats, near: Floats) -> shapely.LineString:
        """A line in the CRS between two places, on the same turn of longitude as a point."""
        ends = np.stack([foot, tip])
        if self._to_lonlat is not None:
            lon, lat = (ends / self._radians).T
            x, y = self._to_lonlat.transform(lon, lat, direction="INVERSE")
            ends = np.stack([x, y], axis=1)
            if self._round:
                ends[:, 0] -= self._round * np.round((ends[:, 0] - near[0]) / self._round)
        return shapely.LineString(ends)


def _densified(points: Floats, pieces: int) -> Floats:
    """Each leg of a line cut into so many pieces."""
    at = np.arange((len(points) - 1) * pieces + 1) / pieces
    return np.stack([np.interp(at, np.arange(len(points)), axis) for axis in points.T], axis=1)


def _read_baseline(path: str | os.PathLike[str]) -> tuple[gpd.GeoSeries, list[str]]:
    """The lines of a file and their names."""
    frame = _read_vectors(path)
    kinds = sorted(set(frame.geom_type))
    merged = shapely.line_merge(frame.geometry.array)
    whole = shapely.get_type_id(merged) == shapely.GeometryType.LINESTRING
    if not kinds or not set(kinds) <= {"LineString", "MultiLineString"} or not whole.all():
        raise SceneError(
            f"a baseline or transects are a file of lines, each in one piece; {shown(path)} has "
            f"{len(frame)} features of type {', '.join(kinds) or 'none'}."
        )
    named = [column for column in _NAME_COLUMNS if column in frame]
    names = [str(name) for name in frame[named[0]]] if named else []
    if len(set(names)) < len(frame):
        names = [str(number) for number in range(len(frame))]
    return gpd.GeoSeries(merged, crs=frame.crs), names


def _read_vectors(path: str | os.PathLike[str], called: str = "") -> gpd.GeoDataFrame:
    """Features with a geometry of any file that OGR or GeoParquet reads.

    Args:
        path: the file.
        called: what to call it in an error, where that is something else.

    Raises:
        SceneError: it cannot be read, or holds no geometry.
    """
    called = called or shown(path)
    if remote.is_remote(str(path)):
        with TemporaryDirectory() as folder:  # OGR tells some formats by the file's name
            copy = Path(folder, file_name(path))
            copy.write_bytes(fetch(str(path)))
            return _read_vectors(copy, called)
    try:
        if Path(path).suffix.lower() in (".parquet", ".geoparquet"):
            frame = gpd.read_parquet(path)
        else:
            frame = pyogrio.read_dataframe(path)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).removeprefix(f"{path}: ").rstrip(".")
        raise SceneError(f"lines are wanted; {called} cannot be read: {reason}.") from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise SceneError(f"lines are wanted; {called} has no geometry.")
    return frame[~(frame.geometry.isna() | frame.geometry.is_empty)]


# -- one source ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class _Row:
    """A transect at a date."""

    transect: str
    source: str
    date: str
    distance: float
    count: int
    observed: bool
    point: shapely.Point | None
    wet: bool
    """Whether it begins in water."""
    blank: bool
    """Whether it meets nothing."""


@dataclass(frozen=True, eq=False, slots=True)
class _Meeting:
    """What a transect meets, in metres from its origin."""

    crossings: Floats
    """float64 [n]: where it crosses the shore, ascending."""
    gaps: Floats
    """float64 [m, 2]: from where to where nothing was observed, ascending."""
    wet: bool = False
    """Whether it begins in water; lines do not tell."""

    def blank(self, length: float) -> bool:
        """Whether a transect of so many metres meets no shore and nothing that was observed."""
        return not len(self.crossings) and self.gaps.tolist() == [[0.0, length]]

    def pick(self, which: Pick) -> tuple[float, bool]:
        """Distance, NaN if there is none, and whether it was observed up to there."""
        if not len(self.crossings):
            return math.nan, not len(self.gaps)
        if which == "first":
            distance = float(self.crossings[0])
            seen = not (self.gaps[:, 0] < distance).any()
        else:
            distance = float(self.crossings[-1])
            seen = not (self.gaps[:, 1] > distance).any()
        return (distance, True) if seen else (math.nan, False)


def _measure(
    source: str | os.PathLike[str],
    called: str,
    paths: list[_Path],
    crs: pyproj.CRS | None,
    pick: Pick,
) -> Iterator[_Row]:
    """All transects on one source."""
    date, meetings = _meet(source, paths, crs)
    for path, meeting in zip(paths, meetings, strict=True):
        distance, observed = meeting.pick(pick)
        point = None if math.isnan(distance) else path.at(distance)
        count, blank = len(meeting.crossings), meeting.blank(path.metres[-1])
        yield _Row(path.name, called, date, distance, count, observed, point, meeting.wet, blank)


def _meet(
    source: str | os.PathLike[str], paths: list[_Path], crs: pyproj.CRS | None
) -> tuple[str, list[_Meeting]]:
    """The date, and what each transect meets."""
    name = file_name(source)
    with ExitStack() as stack:
        raster = _raster_or_none(stack, source)
        if raster is None:
            shores = _read_vectors(source)
            when = _date_of_lines(shores) or date_in_name(name)
            return when, _meet_lines(source, shores, paths, crs)
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=256 << 20))
        try:
            when = time_of(raster) or date_in_name(name)
            return when, _meet_raster(source, raster, paths, crs)
        except RasterioError as error:
            called = shown(source)
            raise SceneError(f"{called} cannot be read: {error} Get it again.") from error


def _date_of_lines(shores: gpd.GeoDataFrame) -> str:
    """The acquisition time that all lines of a file share; empty if there is none."""
    times = {iso_time(str(time)) for time in shores.get("acquired", ())}
    return (times.pop() or "") if len(times) == 1 else ""


def _raster_or_none(
    stack: ExitStack, source: str | os.PathLike[str]
) -> rasterio.DatasetReader | None:
    """The open raster, or None where the file may be one of shorelines."""
    suffix = PurePath(file_name(source)).suffix.lower()
    if remote.is_remote(str(source)) and suffix in _VECTORS:
        return None
    try:
        return stack.enter_context(open_raster(source, what="mask"))
    except SceneError:
        if not Path(source).exists() or suffix in (".tif", ".tiff", ".vrt"):
            raise
        return None


def date_in_name(name: str) -> str:
    """The first date in a file's name, as 20240131 or 2024-01-31; empty if there is none."""
    for year, _, month, day in _DATE_IN_NAME.findall(name):
        try:
            return date(int(year), int(month), int(day)).isoformat()
        except ValueError:
            continue
    return ""


def _mover(
    source: object, own: pyproj.CRS | None, crs: pyproj.CRS | None
) -> Callable[[Floats], Floats]:
    """From the CRS of the transects to that of a source; infinite where there is no way.

    Raises:
        SceneError: one of the two has no CRS, or none leads to the other.
    """
    if own == crs:
        return lambda points: points
    if own is None or crs is None:
        raise SceneError(
            f"transects and shorelines need a CRS each; {shown(source)} has "
            f"{'none' if own is None else own.to_string()} and the transects have "
            f"{'none' if crs is None else crs.to_string()}."
        )
    try:
        transform = pyproj.Transformer.from_crs(crs, own, always_xy=True).transform
    except ProjError as error:
        raise SceneError(f"the transects cannot be put on {shown(source)}: {error}") from error
    return lambda points: np.stack(transform(*points.T), axis=1)


# -- lines -----------------------------------------------------------------------------------------


def _meet_lines(
    source: object, shores: gpd.GeoDataFrame, paths: list[_Path], crs: pyproj.CRS | None
) -> list[_Meeting]:
    """Where transects cross shorelines."""
    if not shores.geom_type.isin(("LineString", "MultiLineString")).all():
        kinds = ", ".join(sorted(set(shores.geom_type)))
        raise SceneError(
            f"shorelines are lines; {shown(source)} holds {kinds}. Give the mask, the probability "
            f"or the shorelines instead of polygons."
        )
    move = _mover(source, shores.crs, crs)
    moved = [_beside_lines(move(path.points), shores) for path in paths]
    lines = shapely.get_parts(shores.geometry.array)
    tree = shapely.STRtree(lines)
    meetings = []
    for path, points in zip(paths, moved, strict=True):
        if not np.isfinite(points).all():
            meetings.append(_nothing(path))
            continue
        way = shapely.LineString(points)
        found = shapely.intersection(way, shapely.multilinestrings(lines[tree.query(way)]))
        reach = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
        crossings = np.interp(_met(way, found), reach, path.metres)
        gaps = np.empty((0, 2)) if len(crossings) else np.array([[0.0, path.metres[-1]]])
        meetings.append(_Meeting(crossings, gaps))
    return meetings


def _met(way: shapely.LineString, found: shapely.Geometry) -> Floats:
    """How far along a line one meets points and stretches of it: a stretch where it begins.

    What adjoins counts once: an intersection comes in pieces, cut at both lines' vertices.
    """
    xy, part = shapely.get_coordinates(shapely.get_parts(found), return_index=True)
    at = shapely.line_locate_point(way, shapely.points(xy))
    first = np.flatnonzero(np.diff(part, prepend=-1))
    low, high = np.minimum.reduceat(at, first), np.maximum.reduceat(at, first)
    order = np.lexsort((high, low))
    low, high = low[order], high[order]
    met: Floats = low[low > np.maximum.accumulate(np.append(-np.inf, high))[:-1]]
    return met


def _beside_lines(points: Floats, shores: gpd.GeoDataFrame) -> Floats:
    """The same points on the turn of longitude on which shorelines in degrees lie."""
    if shores.crs is None or not shores.crs.is_geographic or not len(shores):
        return points
    west, _, east, _ = shores.total_bounds
    return on_turn(points, shores.crs, (west + east) / 2)


def _nothing(path: _Path) -> _Meeting:
    """Nothing was observed along a transect."""
    return _Meeting(np.empty(0), np.array([[0.0, path.metres[-1]]]))


# -- rasters ---------------------------------------------------------------------------------------


def _meet_raster(
    source: str | os.PathLike[str],
    raster: rasterio.DatasetReader,
    paths: list[_Path],
    crs: pyproj.CRS | None,
) -> list[_Meeting]:
    """Where transects cross the shore of a mask or a water probability."""
    smooth = is_probability(raster, source)
    own = pyproj_crs(raster.crs)
    move = _mover(source, own, crs)
    middle = along(raster.transform, np.array([(raster.width / 2, raster.height / 2)]))[0, 0]
    beside = neighbour(source, "probability", "mask") if smooth else None
    meet = _meet_probability if smooth else _meet_codes
    meetings = []
    with open_raster(beside, what="mask") if beside else nullcontext() as mask:
        if mask and grid_of(mask) != grid_of(raster):
            raise SceneError(
                f"{shown(beside)} lies on another grid than {shown(source)}; move it away."
            )
        reader = _Reader(source, raster, mask)
        for path in paths:
            points = move(path.points)
            if own is not None and own.is_geographic:
                points = on_turn(points, own, float(middle))
            pixels = along(~raster.transform, points)
            inside = np.isfinite(pixels).all()
            meetings.append(meet(reader, path, pixels) if inside else _nothing(path))
    return meetings


@dataclass(frozen=True, eq=False, slots=True)
class _Reader:
    """Reads what lies around a transect."""

    source: object
    raster: rasterio.DatasetReader
    mask: rasterio.DatasetReader | None
    """Whose obscured pixels do not count."""

    def around(self, pixels: Floats) -> tuple[Bytes, tuple[int, int]]:
        """Values of all pixels around points (column, row), and the first row and column."""
        low = np.floor(pixels.min(axis=0)).astype(int) - 1
        high = np.ceil(pixels.max(axis=0)).astype(int) + 1
        shape = self.raster.width, self.raster.height
        left, top = (max(int(a), 0) for a in low)
        right, bottom = (min(int(a), size) for a, size in zip(high, shape, strict=True))
        if left >= right or top >= bottom:
            return np.empty((0, 0), np.uint8), (0, 0)
        area = Window(left, top, right - left, bottom - top)
        values = read_band(self.raster, area)
        if self.mask is not None:
            values[read_band(self.mask, area) == 2] = NOT_OBSERVED
        return values, (top, left)


def _cuts(values: Floats) -> Floats:
    """Where a coordinate that is linear between its values takes whole numbers.

    Args:
        values: float64 [n], the coordinate at 0, 1 .. n - 1.
    """
    start, end = values[:-1], values[1:]
    low, high = np.ceil(np.minimum(start, end)), np.floor(np.maximum(start, end))
    count = np.where(start == end, 0, np.maximum(high - low + 1, 0)).astype(int)
    leg = np.repeat(np.arange(len(count)), count)
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    cuts: Floats = leg + (low[leg] + step - start[leg]) / (end - start)[leg]
    return cuts


def _stations(pixels: Floats, shift: float) -> Floats:
    """Where a transect passes from one square of a lattice into the next, ends included.

    In units of its points' numbers; passing a corner, it leaves out slivers due to rounding.
    """
    column, row = pixels.T - shift
    ends = np.arange(len(pixels), dtype=np.float64)
    at = np.unique(np.concatenate([ends, _cuts(column), _cuts(row)]))
    keep = np.diff(at, append=np.inf) > 1e-7
    return at[keep]


def _spans(blank: NDArray[np.bool_], metres: Floats) -> Floats:
    """Stretches of intervals that are blank: float64 [n, 2], in metres."""
    edge = np.flatnonzero(np.diff(np.concatenate([[False], blank, [False]])))
    return metres[edge].reshape(-1, 2)


def _meet_codes(reader: _Reader, path: _Path, pixels: Floats) -> _Meeting:
    """On a mask: the shore is the edge between a land and a water pixel."""
    at = _stations(pixels, 0.0)
    ends = np.arange(len(pixels))
    metres = np.interp(at, ends, path.metres)
    middle = (at[:-1] + at[1:]) / 2
    col, row = (np.floor(np.interp(middle, ends, axis)).astype(int) for axis in pixels.T)
    codes = _lookup(reader, pixels, row, col)
    check_codes(codes, reader.source)
    shore = (codes[:-1] <= 1) & (codes[1:] <= 1) & (codes[:-1] != codes[1:])
    return _Meeting(metres[1:-1][shore], _spans(codes > 1, metres), wet=bool(codes[0] == 1))


def _lookup(reader: _Reader, pixels: Floats, row: Ints, col: Ints) -> Bytes:
    """Values at pixels, 255 beyond the raster."""
    values, (top, left) = reader.around(pixels)
    out = np.full(row.shape, NOT_OBSERVED, np.uint8)
    height, width = values.shape
    inside = (row >= top) & (row < top + height) & (col >= left) & (col < left + width)
    out[inside] = values[row[inside] - top, col[inside] - left]
    return out


def _meet_probability(reader: _Reader, path: _Path, pixels: Floats) -> _Meeting:
    """On a probability: the shore is where it reaches 0.5 between pixel centres."""
    squares = _stations(pixels, 0.5)
    number = np.arange(len(squares))
    at = np.interp(np.arange((len(squares) - 1) * _STEPS + 1) / _STEPS, number, squares)
    ends = np.arange(len(pixels))
    metres = np.interp(at, ends, path.metres)
    col, row = (np.interp(at, ends, axis) for axis in pixels.T)
    level = _bilinear(reader, pixels, row, col) - _SHORE
    start, end = level[:-1], level[1:]
    shore = np.isfinite(start + end) & ((start >= 0) != (end >= 0))
    share = start[shore] / (start - end)[shore]
    crossings = metres[:-1][shore] + share * np.diff(metres)[shore]
    return _Meeting(crossings, _spans(np.isnan(start + end), metres), wet=bool(level[0] >= 0))


def _bilinear(reader: _Reader, pixels: Floats, row: Floats, col: Floats) -> Floats:
    """Stretched values, bilinear between pixel centres.

    NaN beside a pixel that was not observed and off the raster. Within half a pixel of the
    raster's edge the outermost pixels go on.
    """
    height, width = reader.raster.shape
    off = (row < 0) | (row > height) | (col < 0) | (col > width)
    y, x = np.clip(row - 0.5, 0, height - 1), np.clip(col - 0.5, 0, width - 1)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    down, across = y - top, x - left
    i, j = np.array([(0, 0, 1, 1), (0, 1, 0, 1)])[:, :, None]
    weight = np.abs(1 - i - down) * np.abs(1 - j - across)
    near = np.minimum(top + i, height - 1), np.minimum(left + j, width - 1)
    stored = _lookup(reader, pixels, *near)
    value = np.where(stored == NOT_OBSERVED, np.nan, stretched(stored))
    total = np.where(weight > 1e-9, value * weight, 0).sum(axis=0)
    level: Floats = np.where(off, np.nan, total)
    return level

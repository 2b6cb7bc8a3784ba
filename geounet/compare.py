"""Masks beside and upon each other: what changed between two, and one mosaic of many.

Both read their masks by rows on one grid and write as they go, so memory grows with the grid's
width and with the corners of the polygons, not with its height:

    masks → their place on the grid → strips of rows → codes → raster, areas, polygons

A mask on the grid's own lattice is read as it is; another is warped, by the nearest pixel.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pyproj
import rasterio
import shapely
from affine import Affine
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

import geounet
from geounet import remote
from geounet.errors import ConfigError, GeounetWarning, SceneError
from geounet.ground import Site, along, pyproj_crs, unit_of
from geounet.mask import (
    CLASSES,
    NOT_OBSERVED,
    RasterWriter,
    mask_writer,
    probability_writer,
)
from geounet.outlines import (
    LAYERS,
    Origin,
    Outliner,
    Shaping,
    check_crs,
    check_known,
    is_probability,
    reshaped,
    table_of,
)
from geounet.products.raster import file_name, open_raster, read_band, shown, time_of
from geounet.scene import Grid
from geounet.staging import check_free, staged
from geounet.timing import Progress
from geounet.vector_files import check_format, save
from geounet.vectors import Polygonizer, coverage, stretches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import geopandas as gpd
    from numpy.typing import NDArray

__all__ = [
    "CHANGES",
    "ChangeResult",
    "MosaicResult",
    "change",
    "check_codes",
    "grid_of",
    "mosaic",
    "neighbour",
    "on_turn",
]

Bytes: TypeAlias = "NDArray[np.uint8]"
Floats: TypeAlias = "NDArray[np.float64]"
Format: TypeAlias = Literal["gpkg", "parquet", "fgb", "geojson"]

CHANGES: Mapping[int, str] = {0: "land", 1: "water", 3: "gain", 4: "loss", 255: "unknown"}
"""Codes of a change raster: land and water at both dates, water gained, water lost, and not
observed or obscured at either. 2 is left out: in a mask it means obscured."""

_CHANGE_COLOURS = {
    0: (219, 211, 186, 255),
    1: (33, 102, 172, 255),
    3: (90, 200, 220, 255),
    4: (214, 96, 32, 255),
    255: (0, 0, 0, 0),
}
_BAD = 254
"""What a pair of codes becomes of which one is no mask code."""
_BLOCK = 512
_CACHE_BYTES = 256 << 20
"""What GDAL may keep of decoded blocks."""
_STRIP_PIXELS = 1 << 23
"""Pixels of the grid worked on at once."""
_BAND = 256
"""Columns whose pixels are taken for equally large in a row."""
_MOST_BANDS = 64
_SIDE_POINTS = 65
"""Points on each side of an outline that is projected."""


# -- masks and their place on a grid ---------------------------------------------------------------


def grid_of(source: rasterio.DatasetReader) -> Grid:
    """The grid of an open raster."""
    return Grid(source.crs, source.transform, source.width, source.height)


def _mask_grid(path: str | os.PathLike[str]) -> Grid:
    """The grid of a file that must be a mask."""
    with open_raster(path, what="mask") as source:
        if is_probability(source, path):
            raise SceneError(
                f"a mask is wanted; {shown(path)} is a water probability. Give the mask that was "
                f"written beside it."
            )
        return grid_of(source)


@dataclass(frozen=True, eq=False)
class _Placed:
    """A raster of codes and where it lies on a grid."""

    path: str
    own: Grid
    """Its own grid, moved by whole turns of longitude to lie beside the other."""
    grid: Grid
    """The grid to read it on."""
    offset: tuple[int, int] | None
    """(row, column) of its first pixel, if it lies on the grid's lattice; else it is warped."""
    rows: tuple[int, int]
    """First row of the grid that it touches and the row after the last, within the grid."""
    cols: tuple[int, int]
    """The same for columns."""

    def read(self, rows: tuple[int, int]) -> Bytes:
        """Codes uint8 [rows, its columns] of rows of the grid; 255 where it has none.

        Raises:
            SceneError: the file cannot be read.
        """
        try:
            with open_raster(self.path, what="mask") as source:
                if self.offset is not None:
                    return self._read_lattice(source, self.offset, rows)
                return self._read_warped(source, rows)
        except (RasterioError, OSError) as error:
            called = shown(self.path)
            raise SceneError(f"{called} cannot be read: {error} Get it again.") from error

    def _read_lattice(
        self, source: rasterio.DatasetReader, offset: tuple[int, int], rows: tuple[int, int]
    ) -> Bytes:
        out = np.full((rows[1] - rows[0], self.cols[1] - self.cols[0]), NOT_OBSERVED, np.uint8)
        top, bottom = max(rows[0], self.rows[0]), min(rows[1], self.rows[1])
        if top < bottom:
            area = Window(self.cols[0] - offset[1], top - offset[0], out.shape[1], bottom - top)
            out[top - rows[0] : bottom - rows[0]] = read_band(source, area)
        return out

    def _read_warped(self, source: rasterio.DatasetReader, rows: tuple[int, int]) -> Bytes:
        options = {
            "src_transform": self.own.transform,
            "src_nodata": NOT_OBSERVED,
            "nodata": NOT_OBSERVED,
            "crs": self.grid.crs,
            "transform": self.grid.transform,
            "width": self.grid.width,
            "height": self.grid.height,
        }
        area = Window(self.cols[0], rows[0], self.cols[1] - self.cols[0], rows[1] - rows[0])
        with WarpedVRT(source, **options) as warped:
            codes: Bytes = remote.attempt(self.path, lambda: warped.read(1, window=area))
        return codes


def _place(path: str | os.PathLike[str], own: Grid, grid: Grid) -> _Placed:
    """Where a raster lies on a grid; its rows or columns are empty if it lies beside it."""
    if own.crs is None and own != grid:
        raise _no_crs()
    own = _beside(own, grid.crs, _middle(grid))
    offset = _lattice_offset(own, grid)
    if offset is not None:
        top, left = offset
        bottom, right = top + own.height, left + own.width
    else:
        top, left, bottom, right = _box(_outline(own, grid.crs, _middle(grid)), grid.transform)
    rows = min(max(top, 0), grid.height), min(max(bottom, 0), grid.height)
    cols = min(max(left, 0), grid.width), min(max(right, 0), grid.width)
    return _Placed(str(path), own, grid, offset, rows, cols)


def _lattice_offset(own: Grid, grid: Grid) -> tuple[int, int] | None:
    """(row, column) of the first pixel on the grid's lattice; None if it is on another."""
    if own.crs != grid.crs:
        return None
    corners = np.array([(0, 0), (own.width, 0), (0, own.height)], np.float64)
    moved = along(~grid.transform, along(own.transform, corners))
    col, row = (round(value) for value in moved[0].tolist())
    # a hundredth of a pixel over the whole raster: the digits that files keep of a transform
    return (row, col) if np.abs(moved - corners - (col, row)).max() < 0.01 else None


def _middle(grid: Grid) -> float:
    """The x coordinate of a grid's middle."""
    return float(along(grid.transform, np.array([(grid.width / 2, grid.height / 2)]))[0, 0])


def _beside(own: Grid, crs: CRS | None, near: float) -> Grid:
    """A grid in degrees, moved by whole turns to lie beside a longitude; others as they are."""
    if crs is None or own.crs is None or not (crs.is_geographic and own.crs.is_geographic):
        return own
    turn = _turn(own.crs)
    a, b, c, d, e, f = own.transform[:6]
    moved = Affine(a, b, c - turn * round((_middle(own) - near) / turn), d, e, f)
    return replace(own, transform=moved)


def on_turn(points: Floats, crs: CRS | pyproj.CRS, near: float | None) -> Floats:
    """Points in degrees moved by whole turns: in one piece and, if wanted, beside a longitude."""
    if not len(points) or not np.isfinite(points).all():
        return points
    turn = _turn(crs)
    x = points[:, 0] - turn * np.round((points[:, 0] - points[0, 0]) / turn)
    if near is not None:
        x -= turn * np.round((x.mean() - near) / turn)
    return np.stack([x, points[:, 1]], axis=1)


def _turn(crs: CRS | pyproj.CRS) -> float:
    """A whole turn in the units of a geographic CRS."""
    return 2 * math.pi / unit_of(pyproj_crs(crs))


def _outline(own: Grid, crs: CRS | None, near: float | None = None) -> Floats:
    """A grid's frame in a CRS: float64 [n, 2], without a jump at the antimeridian.

    Args:
        own: the grid.
        crs: where to.
        near: a longitude to lie beside, in a geographic CRS.

    Raises:
        SceneError: one of the two has no CRS, or none leads to the other.
    """
    side = np.linspace(0, 1, _SIDE_POINTS)[:-1]
    x = np.concatenate([side, np.ones_like(side), 1 - side, np.zeros_like(side)])
    points = np.stack([x * own.width, np.roll(x, len(side)) * own.height], axis=1)
    moved = _moved(along(own.transform, points), own.crs, crs)
    return on_turn(moved, crs, near) if crs is not None and crs.is_geographic else moved


def _moved(points: Floats, source: CRS | None, target: CRS | None) -> Floats:
    """Points of a CRS in another; those that have no place there are left out."""
    if source == target:
        return points
    if source is None or target is None:
        raise _no_crs()
    try:
        to_target = pyproj.Transformer.from_crs(
            pyproj_crs(source), pyproj_crs(target), always_xy=True
        )
        moved = np.stack(to_target.transform(*points.T), axis=1)
    except ProjError as error:
        raise SceneError(
            f"masks must have CRS of which one leads to the other; got {source.to_string()} and "
            f"{target.to_string()}: {error}. Give --crs or set the right CRS."
        ) from error
    return np.asarray(moved[np.isfinite(moved).all(axis=1)])


def _no_crs() -> SceneError:
    return SceneError(
        "masks on grids that differ need a CRS each; one of them has none. Give it one "
        "(gdal_edit.py -a_srs) or put both on one grid."
    )


def _box(outline: Floats, transform: Affine) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) in pixels around an outline; empty for one without points."""
    if not len(outline):
        return 0, 0, 0, 0
    pixels = along(~transform, outline)
    left, top = (math.floor(value) for value in (pixels.min(axis=0) + 1e-3).tolist())
    right, bottom = (math.ceil(value) for value in (pixels.max(axis=0) - 1e-3).tolist())
    return top, left, bottom, right


def _strips(grid: Grid) -> Iterator[tuple[int, int]]:
    """(first row, row after the last) from the top down, whole blocks where they fit."""
    height = max(1, _STRIP_PIXELS // grid.width)
    height = height // _BLOCK * _BLOCK or height
    for top in range(0, grid.height, height):
        yield top, min(top + height, grid.height)


# -- what changed ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChangeResult:
    """What a comparison of two masks made."""

    outputs: dict[str, Path]
    """Files by kind: ``change``, ``polygons``."""
    area_km2: dict[str, float]
    """True area of each of `CHANGES` in square kilometres, on the first mask's grid."""
    pixels: dict[str, int]
    """Pixels of each."""
    polygons: dict[str, int]
    """Polygons written of each."""
    aligned: bool
    """True where the second mask had to be put on the first one's grid."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return _record(self)


def _record(result: ChangeResult | MosaicResult) -> dict[str, Any]:
    record = asdict(result)
    record["outputs"] = {kind: str(path) for kind, path in result.outputs.items()}
    return record


class _Tally:
    """Pixels and true area of each code, counted by rows.

    `Grid.pixel_areas` measures the middle column; a wide mosaic bends too much for one.
    """

    def __init__(self, grid: Grid, names: Mapping[int, str]) -> None:
        step = max(_BAND, -(-grid.width // _MOST_BANDS))
        self._bands = [slice(left, left + step) for left in range(0, grid.width, step)]
        self._pixel_areas = [_columns(grid, band).pixel_areas() / 1e6 for band in self._bands]
        self._names = names
        self._row = 0
        self.pixels = dict.fromkeys(names.values(), 0)
        self.area_km2 = dict.fromkeys(names.values(), 0.0)

    def add(self, codes: Bytes) -> None:
        """Take the next rows."""
        rows = slice(self._row, self._row + len(codes))
        for band, areas in zip(self._bands, self._pixel_areas, strict=True):
            for code, name in self._names.items():
                counts = (codes[:, band] == code).sum(axis=1)
                self.pixels[name] += int(counts.sum())
                self.area_km2[name] += float(counts @ areas[rows])
        self._row += len(codes)


def _columns(grid: Grid, band: slice) -> Grid:
    """A part of a grid, from its top to its bottom."""
    a, b, _, d, e, _ = grid.transform[:6]
    x, y = along(grid.transform, np.array([(band.start, 0)], np.float64))[0].tolist()
    width = min(band.stop, grid.width) - band.start
    return replace(grid, transform=Affine(a, b, x, d, e, y), width=width)


def change(
    before: str | os.PathLike[str],
    after: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] = "out",
    format: Format = "gpkg",  # noqa: A002
    min_area: float = 0.0,
    simplify: float = 0.0,
    smooth: float = 0.0,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> ChangeResult:
    """Compare two masks: where water was gained, where lost, where nobody knows.

    Writes ``change.tif``, a COG of the codes `CHANGES` on the grid of `before`, and
    ``change.gpkg`` (or another format), the polygons of all five on exact pixel edges, which cover
    the grid without gaps, also when they are simplified or smoothed. A mask on another grid or in
    another CRS takes the nearest pixel.

    Args:
        before: a mask: 0 land, 1 water, 2 obscured, 255 not observed.
        after: another.
        output: folder to write to.
        format: of the polygons: gpkg, parquet, fgb or geojson.
        min_area: polygons smaller than this many square metres are left out of the polygons'
            file; the raster and the areas know nothing of it.
        simplify: detail of the polygons in metres to take out; neighbours keep what they share.
        smooth: how far in metres their edges may move for corners to be rounded; the same.
        overwrite: whether to replace outputs that exist.
        on_progress: called as rows are done.

    Raises:
        SceneError: a file is no mask, the two do not overlap, or their grids differ and one has
            no CRS.
        ConfigError: the format is not known, or `min_area`, `simplify` or `smooth` negative.
        OutputError: an output exists, or cannot be written.
    """
    grid = _mask_grid(before)
    placed = _place(after, _mask_grid(after), grid)
    _check_overlap(before, after, placed)
    if placed.offset is None:  # around a pole, or of the whole world, its outline tells no box
        placed = replace(placed, rows=(0, grid.height), cols=(0, grid.width))
    folder = Path(output)
    outputs = {"change": folder / "change.tif", "polygons": folder / f"change.{format}"}
    shaping = Shaping(min_area=min_area, simplify=simplify, smooth=smooth)
    check_format(outputs["polygons"], format, grid.crs)
    check_free(outputs, overwrite=overwrite)
    first = _place(before, grid, grid)
    tally = _Tally(grid, CHANGES)
    tracers = {code: Polygonizer(grid.width, code=code) for code in CHANGES}
    with staged(outputs) as drafts, rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
        with _change_writer(drafts["change"], grid, before, after) as writer:
            for rows in _strips(grid):
                codes = _compare(first.read(rows), _read_full(placed, rows), (before, after))
                writer.write(codes)
                tally.add(codes)
                for tracer in tracers.values():
                    tracer.add(codes)
                if on_progress:
                    on_progress(Progress(rows[1], grid.height))
        polygons = _write_changes(tracers, grid, drafts["polygons"], shaping)
    return ChangeResult(
        outputs, tally.area_km2, tally.pixels, polygons, aligned=placed.offset != (0, 0)
    )


def _check_overlap(before: object, after: object, placed: _Placed) -> None:
    """Refuse two masks without a pixel in common."""
    if placed.offset is not None:
        common = placed.rows[0] < placed.rows[1] and placed.cols[0] < placed.cols[1]
    else:  # a small mask has an outline on a large one's grid, not always the other way round
        common = _reaches(placed.own, placed.grid) or _reaches(placed.grid, placed.own)
    if not common:
        raise SceneError(
            f"masks must overlap to be compared; {shown(before)} and {shown(after)} have no pixel "
            f"in common."
        )


def _reaches(own: Grid, grid: Grid) -> bool:
    """Whether a raster's outline on another grid takes a part of it."""
    frame = along(~grid.transform, _outline(own, grid.crs, _middle(grid)))
    if len(frame) < 3:
        return False
    shape = shapely.make_valid(shapely.Polygon(frame))
    return bool(shapely.intersection(shape, shapely.box(0, 0, grid.width, grid.height)).area > 0)


def _read_full(placed: _Placed, rows: tuple[int, int]) -> Bytes:
    """Rows of the whole grid, 255 where the raster has none."""
    out = np.full((rows[1] - rows[0], placed.grid.width), NOT_OBSERVED, np.uint8)
    out[:, slice(*placed.cols)] = placed.read(rows)
    return out


def _change_table() -> Bytes:
    """uint8 [256, 256]: the change for each pair of codes."""
    table = np.full((256, 256), _BAD, np.uint8)
    known = np.array(list(CLASSES))
    table[known[:, None], known] = 255
    table[:2, :2] = [[0, 3], [4, 1]]
    return table


_CHANGE_TABLE = _change_table()


def _compare(before: Bytes, after: Bytes, paths: tuple[object, object]) -> Bytes:
    """Change of each pixel; the codes of both are checked."""
    codes = _CHANGE_TABLE[before, after]
    if (codes == _BAD).any():
        for path, mask in zip(paths, (before, after), strict=True):
            check_codes(mask, path)
    return codes


def check_codes(codes: Bytes, path: object) -> None:
    """Refuse codes that a mask does not have.

    Raises:
        SceneError: there is one.
    """
    counts = np.bincount(codes.ravel(), minlength=256)
    strange = [code for code in np.flatnonzero(counts).tolist() if code not in CLASSES]
    if strange:
        raise SceneError(
            f"a mask holds 0 (land), 1 (water), 2 (obscured) and 255 (not observed); "
            f"{shown(path)} holds {strange[0]}. Give its codes these numbers first (gdal_calc.py)."
        )


def _change_writer(path: Path, grid: Grid, before: object, after: object) -> RasterWriter:
    tags = {
        "GEOUNET_VERSION": geounet.__version__,
        "BEFORE": file_name(before),
        "AFTER": file_name(after),
    }
    names = {f"CLASS_{code}": name for code, name in CHANGES.items()}
    return RasterWriter(
        path, grid, description="change of water", tags={**tags, **names}, colours=_CHANGE_COLOURS
    )


def _write_changes(
    tracers: dict[int, Polygonizer], grid: Grid, path: Path, shaping: Shaping
) -> dict[str, int]:
    """Write the polygons of all classes, what changed first; how many there are of each."""
    counts = dict.fromkeys(CHANGES.values(), 0)
    make = _reshaped_changes if shaping.needs_neighbours else _traced_changes

    def tables() -> Iterator[gpd.GeoDataFrame]:
        for frame in make(tracers, grid, shaping):
            for name in counts:
                counts[name] += int((frame["class"] == name).sum())
            yield frame

    save(tables(), path, "polygons")
    return counts


_ORDER = (3, 4, 1, 0, 255)
"""Codes as they follow each other in the file."""


def _traced_changes(
    tracers: dict[int, Polygonizer], grid: Grid, shaping: Shaping
) -> Iterator[gpd.GeoDataFrame]:
    """Tables of polygons on exact pixel edges, some at a time."""
    for code in _ORDER:
        found = tracers.pop(code).finish()
        for some in stretches(found.ends):
            part = found.part(some)
            frame = part.to_frame(grid.transform, grid.crs, min_area=shaping.min_area)
            yield frame.assign(**{"class": CHANGES[code]})


def _reshaped_changes(
    tracers: dict[int, Polygonizer], grid: Grid, shaping: Shaping
) -> Iterator[gpd.GeoDataFrame]:
    """One table of all polygons, simplified and smoothed together, so that nothing gapes."""
    found = {code: tracers.pop(code).finish() for code in _ORDER}
    parts = list(found.values())
    site = Site(grid.transform, pyproj_crs(grid.crs), grid.shape)
    fixed = np.concatenate([part.bound_points() for part in parts])
    geometries = reshaped(np.concatenate(coverage(parts)), fixed, site, shaping, cover=True)
    area, perimeter = site.measures(geometries)
    columns = {
        "class": np.repeat([CHANGES[code] for code in found], [len(part) for part in parts]),
        "area_m2": area,
        "perimeter_m": perimeter,
        "touches_edge": np.concatenate([part.touches_edge for part in parts]),
        "touches_unobserved": np.concatenate([part.touches_unobserved for part in parts]),
    }
    sizes = np.concatenate([part.measure(site.transform, site.crs)[0] for part in parts])
    big = ~(sizes < shaping.min_area)  # before they are reshaped, as without that
    kept = {name: values[big] for name, values in columns.items()}
    yield table_of(kept, geometries[big], site, None)


# -- one mosaic of many ----------------------------------------------------------------------------


@dataclass(frozen=True)
class MosaicResult:
    """What merging masks made."""

    outputs: dict[str, Path]
    """Files by kind: ``mask``, ``polygons``, and ``probability``, ``shoreline`` if asked for."""
    area_km2: dict[str, float]
    """True area of each class in square kilometres."""
    pixels: dict[str, int]
    """Pixels of each class."""
    polygons: int
    """Number of polygons written."""
    crs: str | None
    size: tuple[int, int]
    """Width and height in pixels."""
    by_confidence: bool
    """Whether the water probability decided where several masks saw a pixel."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return _record(self)


@dataclass(frozen=True, eq=False)
class _Layer:
    """A mask of a mosaic."""

    mask: _Placed
    probability: _Placed | None


def mosaic(
    masks: Sequence[str | os.PathLike[str]],
    *,
    output: str | os.PathLike[str] = "mosaic.tif",
    crs: str | None = None,
    probability: bool = False,
    shaping: Shaping | None = None,
    shoreline: bool = False,
    to_crs: str | None = None,
    format: Format = "gpkg",  # noqa: A002
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> MosaicResult:
    """Merge masks of one date into one, and trace its water once, whatever tiles it spans.

    For each pixel the mask that observed most wins: land or water before obscured before not
    observed. Of several that saw it the surest wins, by the distance of its water probability from
    0.5, if ``NAME_probability.tif`` lies beside every ``NAME_mask.tif``; then the one given first.
    From these probabilities polygons then have their statistics, and contours their place: each
    pixel keeps that of the mask that won it.

    The mosaic lies on the pixels of the first mask, extended; in another `crs` on square pixels of
    about the first one's size. Masks in another CRS or on other pixels take the nearest pixel.

    Args:
        masks: 0 land, 1 water, 2 obscured, 255 not observed; of any zones and sizes.
        output: the mosaic, a COG; its water polygons are written beside it as NAME_water.gpkg.
        crs: of the mosaic, as rasterio understands it; None takes the first mask's.
        probability: whether to write the mosaic's probability too, as NAME_probability.tif.
        shaping: what polygons look like.
        shoreline: whether to write shorelines too, as NAME_shoreline.gpkg.
        to_crs: of the polygons and shorelines; None takes the mosaic's.
        format: of the polygons and shorelines: gpkg, parquet, fgb or geojson.
        overwrite: whether to replace outputs that exist.
        on_progress: called as rows are done.

    Raises:
        SceneError: a file is no mask, or has no CRS and another grid than the first.
        ConfigError: there are no masks; a parameter breaks its rule; the CRS tears a mask apart;
            a probability or contours are asked for and not every mask has one beside it.
        OutputError: an output exists, or cannot be written.

    Warns:
        GeounetWarning: some masks have a probability beside them and others do not.
    """
    if not masks:
        raise ConfigError("a mosaic is made of one mask or more; got none.")
    if Path(output).suffix.lower() not in {".tif", ".tiff"}:
        raise ConfigError(f"a mosaic is a GeoTIFF, NAME.tif; got {str(output)!r}.")
    shaping = shaping or Shaping()
    grids = [_mask_grid(path) for path in masks]
    grid = _mosaic_grid(masks, grids, crs)
    check_crs(to_crs, grid.crs)
    outputs = _mosaic_outputs(Path(output), format, probability=probability, shoreline=shoreline)
    check_format(outputs["polygons"], format, grid.crs)
    check_free(outputs, overwrite=overwrite)
    layers = _layers(masks, grids, grid, needed=probability or shaping.edges == "contour")
    sure = layers[0].probability is not None
    origins = [_origin(path) for path in masks]
    tags = _mosaic_tags(masks, origins)
    outliner = Outliner(grid.width, shaping, shoreline=shoreline, probability=sure, origins=origins)
    with staged(outputs) as drafts, rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
        tally = _write_mosaic(
            layers, grid, drafts, tags=tags, outliner=outliner, on_progress=on_progress
        )
        extra = {"source": outputs["mask"].name, **_lower(tags, "ACQUIRED")}
        tables = outliner.tables(grid.transform, grid.crs, to_crs=to_crs, extra=extra)
        counts = {kind: save(parts, drafts[kind], LAYERS[kind]) for kind, parts in tables.items()}
    return MosaicResult(
        outputs=outputs,
        area_km2=tally.area_km2,
        pixels=tally.pixels,
        polygons=counts["polygons"],
        crs=grid.crs.to_string() if grid.crs else None,
        size=(grid.width, grid.height),
        by_confidence=sure,
    )


def _mosaic_outputs(
    mask: Path, suffix: str, *, probability: bool, shoreline: bool
) -> dict[str, Path]:
    """Files of a mosaic by kind."""
    stem = mask.stem.removesuffix("_mask")
    outputs = {"mask": mask, "polygons": mask.with_name(f"{stem}_water.{suffix}")}
    if shoreline:
        outputs["shoreline"] = mask.with_name(f"{stem}_shoreline.{suffix}")
    if probability:
        outputs["probability"] = mask.with_name(f"{stem}_probability.tif")
    return outputs


def _write_mosaic(
    layers: Sequence[_Layer],
    grid: Grid,
    paths: Mapping[str, Path],
    *,
    tags: Mapping[str, str],
    outliner: Outliner,
    on_progress: Callable[[Progress], None] | None,
) -> _Tally:
    """Merge and write all rows, and trace their outlines."""
    tally = _Tally(grid, CLASSES)
    with ExitStack() as stack:
        mask = stack.enter_context(mask_writer(paths["mask"], grid, tags))
        chance = (
            stack.enter_context(probability_writer(paths["probability"], grid, tags))
            if "probability" in paths
            else None
        )
        for rows in _strips(grid):
            codes, level, origin = _merge(layers, grid.width, rows)
            mask.write(codes)
            if chance and level is not None:
                chance.write(level)
            tally.add(codes)
            outliner.add(codes, level, origin)
            if on_progress:
                on_progress(Progress(rows[1], grid.height))
    return tally


def _lower(tags: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name.lower(): tags[name] for name in names if name in tags}


def _origin(path: str | os.PathLike[str]) -> Origin:
    """The scene of a mask, as a run writes it into the tags, or else the mask itself."""
    with open_raster(path, what="mask") as source:
        return Origin(source.tags().get("SOURCE") or file_name(path), time_of(source))


def _mosaic_tags(
    masks: Sequence[str | os.PathLike[str]], origins: Sequence[Origin]
) -> dict[str, str]:
    names = ", ".join(file_name(path) for path in masks)
    when = _common_time([origin.acquired or "" for origin in origins])
    return {
        "GEOUNET_VERSION": geounet.__version__,
        "SOURCES": names,
        **({"ACQUIRED": when} if when else {}),
    }


def _common_time(times: Sequence[str]) -> str:
    """The time that all masks share, or their day; empty if they do not, or one has none."""
    for known in (set(times), {time[:10] for time in times}):
        if len(known) == 1:
            return known.pop()
    return ""


def _mosaic_grid(
    paths: Sequence[str | os.PathLike[str]], grids: Sequence[Grid], crs: str | None
) -> Grid:
    """The grid that holds all masks."""
    target, lattice = _lattice(grids[0], crs)
    near: float | None = None
    boxes = []
    for path, grid in zip(paths, grids, strict=True):
        outline = _outline(grid, target, near)
        _check_whole(path, target, outline)
        boxes.append(_box(outline, lattice))
        near = float(outline[:, 0].mean()) if near is None else near
    low, high = np.min(boxes, axis=0)[:2].tolist(), np.max(boxes, axis=0)[2:].tolist()
    corner = along(lattice, np.array([low[::-1]], np.float64))[0]
    a, b, _, d, e, _ = lattice[:6]
    transform = Affine(a, b, float(corner[0]), d, e, float(corner[1]))
    return Grid(target, transform, width=high[1] - low[1], height=high[0] - low[0])


def _lattice(first: Grid, crs: str | None) -> tuple[CRS | None, Affine]:
    """The mosaic's CRS and a transform that gives its pixels."""
    if crs is None:
        return first.crs, first.transform
    try:
        target = CRS.from_user_input(crs)
    except CRSError as error:
        raise ConfigError(f"the CRS is an EPSG code, WKT or PROJ text; got {crs!r}.") from error
    if (known := pyproj_crs(target)) and known.is_geocentric:
        raise ConfigError(f"the CRS must be a map's or in longitude and latitude; got {crs!r}.")
    if target == first.crs:
        return first.crs, first.transform
    col, row = first.width / 2, first.height / 2
    cross = np.array([(col, row), (col + 1, row), (col, row + 1)])
    moved = _moved(along(first.transform, cross), first.crs, target)
    if len(moved) < 3:
        raise ConfigError(f"the CRS must reach where the masks lie; {crs!r} does not.")
    across, down = moved[1] - moved[0], moved[2] - moved[0]
    side = math.sqrt(abs(across[0] * down[1] - across[1] * down[0]))
    side = float(f"{side:.1e}")  # two digits: 10 m stay 10 m in the zone next door
    return target, Affine(side, 0, 0, 0, -side, 0)


def _check_whole(path: object, target: CRS | None, outline: Floats) -> None:
    """Refuse a CRS in which a mask has no place or is torn apart: its outline leaps there."""
    leaps = np.abs(outline - np.roll(outline, 1, axis=0))
    if len(outline) < 4 * (_SIDE_POINTS - 1) or (leaps > np.ptp(outline, axis=0) / 4).any():
        name = target.to_string() if target else "none"
        raise ConfigError(
            f"the mosaic's CRS must hold every mask in one piece; {name} does not hold "
            f"{shown(path)}. "
            f"Give --crs one that is made for the place, such as its UTM zone."
        )


def _layers(
    paths: Sequence[str | os.PathLike[str]], grids: Sequence[Grid], grid: Grid, *, needed: bool
) -> list[_Layer]:
    """The masks on the mosaic's grid, with their probabilities if all of them have one."""
    beside = [neighbour(path, "mask", "probability") for path in paths]
    bare = [shown(path) for path, found in zip(paths, beside, strict=True) if not found]
    if bare and needed:
        raise ConfigError(
            f"a mosaic's probability and contours take NAME_probability.tif beside every "
            f"NAME_mask.tif; there is none beside {', '.join(bare)}. Run with --probability."
        )
    if bare and any(beside):
        warnings.warn(
            f"no probability lies beside {', '.join(bare)}: where masks overlap, the one given "
            f"first wins.",
            GeounetWarning,
            stacklevel=3,
        )
    layers = []
    for path, own, found in zip(paths, grids, beside, strict=True):
        confidence = _place_probability(found, own, grid) if found and all(beside) else None
        layers.append(_Layer(_place(path, own, grid), confidence))
    return layers


def neighbour(path: str | os.PathLike[str], own: str, other: str) -> str | None:
    """``NAME_other.tif`` for ``NAME_own.tif``, if it is there and may be read.

    Raises:
        SceneError: a server failed, so that nobody knows.
    """
    text = os.fspath(path)
    far = remote.is_remote(text)
    place, mark, query = text.partition("?") if far else (text, "", "")
    name, found, suffix = place.rpartition(f"_{own}.")
    if not found or re.search(r"[./\\]", suffix):
        return None
    beside = f"{name}_{other}.{suffix}{mark}{query}"
    if not far:
        return beside if Path(beside).is_file() else None
    try:
        with open_raster(beside):
            return beside
    except SceneError as error:
        if error.passing:
            raise
        return None


def _place_probability(path: str, own: Grid, grid: Grid) -> _Placed:
    with open_raster(path, what="probability") as source:
        if not is_probability(source, path) or grid_of(source) != own:
            raise SceneError(
                f"a probability is uint8 in steps of 1/250, on the grid of the mask beside it; "
                f"{shown(path)} is not. Make it again, or move it away."
            )
    return _place(path, own, grid)


def _merge(
    layers: Sequence[_Layer], width: int, rows: tuple[int, int]
) -> tuple[Bytes, Bytes | None, NDArray[np.uint16]]:
    """Codes of rows of the mosaic, their probabilities where the masks have them, whose they are.

    The last are numbers of layers; 0 where no mask observed anything.
    """
    codes = np.full((rows[1] - rows[0], width), NOT_OBSERVED, np.uint8)
    level = codes.copy() if layers[0].probability else None
    best = np.zeros(codes.shape, np.int16)
    origin = np.zeros(codes.shape, np.uint16)
    for number, layer in enumerate(layers):
        if layer.mask.rows[1] <= rows[0] or layer.mask.rows[0] >= rows[1]:
            continue
        own = layer.mask.read(rows)
        check_codes(own, layer.mask.path)
        merit, chance = _MERIT[own], None
        if layer.probability:
            chance = layer.probability.read(rows)
            check_known(own, chance, layer.probability.path)
            merit += _CONFIDENCE[chance] * (own <= 1)
        part = slice(*layer.mask.cols)
        better = merit > best[:, part]
        codes[:, part][better] = own[better]
        origin[:, part][better] = number
        best[:, part][better] = merit[better]
        if level is not None and chance is not None:
            level[:, part][better] = chance[better]
    return codes, level, origin


_MERIT = np.zeros(256, np.int16)
"""What a code is worth: land and water before obscured before not observed."""
_MERIT[:3] = 512, 512, 256
_CONFIDENCE = np.abs(np.arange(256) - 125).astype(np.int16)
"""Distance of a stored probability from 0.5."""
_CONFIDENCE[NOT_OBSERVED] = 0

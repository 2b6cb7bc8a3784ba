"""Water bodies and shorelines as tables: gathered as rows arrive, cleaned up once they are whole.

    rows of codes and probability  →  add()     polygons (vectors or contours), statistics of runs
                                      tables()  fill holes, drop small ones, simplify, smooth

Clean-up looks at whole polygons and works in pixels, so that it means the same in every CRS.
"""

from __future__ import annotations

import math
import os
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import geopandas as gpd
import numpy as np
import pyproj
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geounet import remote
from geounet.contours import Contourer, ContourPolygons, level_of
from geounet.errors import ConfigError, GeounetWarning, SceneError
from geounet.ground import Site, on_map, pyproj_crs
from geounet.mask import CLASSES, MAKE_ONE, NOT_OBSERVED, PROBABILITY_SCALE
from geounet.parts import leads_to
from geounet.products.raster import file_name, open_raster, read_band, shown
from geounet.smoothing import smoothed
from geounet.staging import check_free
from geounet.timing import Progress
from geounet.vector_files import check_format, densified, in_crs, save
from geounet.vectors import PixelPolygons, Polygonizer, stretches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from affine import Affine

    from geounet.vector_files import Format, Layer

__all__ = [
    "LAYERS",
    "Origin",
    "Outliner",
    "Outlines",
    "Shaping",
    "check_crs",
    "check_known",
    "is_probability",
    "polygonize",
    "reshaped",
    "table_of",
    "vectorize",
    "vectorize_to_files",
]

Bools: TypeAlias = NDArray[np.bool_]
Bytes: TypeAlias = NDArray[np.uint8]
Ints: TypeAlias = NDArray[Any]
"""Integers of 32 or 64 bits."""
Floats: TypeAlias = NDArray[np.float64]
Geometries: TypeAlias = NDArray[np.object_]

LAYERS: Mapping[str, Layer] = {"polygons": "polygons", "shoreline": "shorelines"}
"""Layers of files by kind of output."""
_CERTAIN = round(1 / PROBABILITY_SCALE)
"""Stored probability of what is water for sure."""
_LIKELY, _POSSIBLE = level_of(0.75), level_of(0.25)
"""Stored probabilities from which a pixel counts into an area's lower and upper bound."""
_CHUNK_PIXELS = 1 << 19
"""Pixels worked on at once, so that temporaries stay in the processor's cache."""
_STRIP_PIXELS = 1 << 23
"""Pixels read at once from a file."""
_CACHE_BYTES = 128 << 20
"""What GDAL may keep of decoded blocks."""
_EDGE_PIXELS = 50.0
"""Longest edge that is moved to another CRS by its ends alone."""


@dataclass(frozen=True)
class Shaping:
    """What polygons look like."""

    edges: Literal["pixel", "contour"] = "pixel"
    """Along pixel edges, or through the pixels at a level of the probability."""
    threshold: float = 0.5
    """Least probability of water; the level of contours."""
    connectivity: Literal[4, 8] = 4
    """Whether pixels that touch at a corner only belong together (8) or not (4)."""
    code: int = 1
    """The mask value whose polygons are wanted."""
    min_area: float = 0.0
    """Least area of a polygon in m²."""
    fill_holes: float = 0.0
    """Greatest area in m² of holes that are filled, with what lies in them. Holes with a
    not-observed pixel in them stay."""
    simplify: float = 0.0
    """Detail in metres to take out: bends that span less than this squared (Visvalingam and
    Whyatt 1993), keeping neighbours' shared edges and every ring."""
    smooth: float = 0.0
    """How far in metres edges may move for corners to be rounded; see `smoothed`. What lies on
    the raster's frame or along not-observed pixels stays."""

    @property
    def needs_neighbours(self) -> bool:
        """Whether a polygon's shape may depend on the others."""
        return bool(self.fill_holes or self.simplify or self.smooth)

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            ConfigError: If a value breaks its rule.
        """
        for name in ("min_area", "fill_holes", "simplify", "smooth"):
            value = getattr(self, name)
            if not (value >= 0 and np.isfinite(value)):
                raise ConfigError(f"{name} is a number, 0 or more; got {value!r}.")
        if self.connectivity not in (4, 8):
            raise ConfigError(f"connectivity is 4 or 8; got {self.connectivity!r}.")
        level_of(self.threshold)
        if self.edges not in ("pixel", "contour"):
            raise ConfigError(f"edges are pixel or contour; got {self.edges!r}.")
        if not 0 <= self.code <= 255:
            raise ConfigError(f"code is a value of a mask, 0 to 255; got {self.code!r}.")
        if self.edges == "contour" and (self.connectivity, self.code) != (4, 1):
            raise ConfigError(
                "contours are those of water, and never touch at a corner: they take neither "
                f"connectivity 8 nor another code; got {self.connectivity} and {self.code}."
            )


# -- statistics of the probability -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """Runs of water pixels along rows, and the probability in each."""

    x: Ints
    """int32[n]: first column."""
    y: Ints
    """int32[n]: row."""
    around: Ints
    """int32[n]: first column of the run of possible water around it."""
    pixels: Ints
    """int32[n]"""
    total: Ints
    """int32[n]: sum of the stored probabilities."""
    least: Bytes
    """uint8[n]: least stored probability."""
    likely: Ints
    """int32[n]: pixels that are likely water."""


def _runs(wet: Bools, possible: Bools, probability: Bytes, first_row: int) -> _Runs:
    width = wet.shape[1]
    start, end = _ends(wet)
    around = _ends(possible)[0]
    bounds = np.stack([start, end], axis=1).ravel()

    def each(combine: np.ufunc, values: Ints) -> Ints:
        padded = np.append(values, values.dtype.type(0))  # a run may end with the rows
        found: Ints = combine.reduceat(padded, bounds)[::2] if len(bounds) else padded[:0]
        return found

    flat = probability.ravel()
    return _Runs(
        x=(start % width).astype(np.int32),
        y=(start // width + first_row).astype(np.int32),
        around=(around[np.searchsorted(around, start, side="right") - 1] % width).astype(np.int32)
        if len(start)
        else start.astype(np.int32),
        pixels=(end - start).astype(np.int32),
        total=each(np.add, flat.astype(np.int32)),
        least=each(np.minimum, flat),
        likely=each(np.add, (flat >= _LIKELY).astype(np.int32)),
    )


def _ends(wet: Bools) -> tuple[Ints, Ints]:
    """Flat index of each run's first pixel, and the one after its last."""
    stride = wet.shape[1] + 1
    apart = np.zeros(wet.size + len(wet) + 1, np.bool_)  # a dry pixel before each row, and at last
    apart[:-1].reshape(-1, stride)[:, 1:] = wet
    change = np.flatnonzero(apart[1:] != apart[:-1])
    change -= change // stride
    return change[::2], change[1::2]


class _Statistics:
    """Probability statistics of polygons, from the runs of pixels that they are made of."""

    def __init__(self, width: int) -> None:
        self._parts: list[_Runs] = []
        self._possible = Polygonizer(width)
        self._rows = 0

    def add(self, codes: Bytes, probability: Bytes) -> None:
        """Take the next rows: mask codes and stored probabilities, uint8[n, width]."""
        wet = codes == 1
        possible = wet | ((codes == 0) & (probability >= _POSSIBLE))
        self._possible.add(possible.view(np.uint8))
        self._parts.append(_runs(wet, possible, probability, self._rows))
        self._rows += len(codes)

    def finish(self, polygons: PixelPolygons | ContourPolygons) -> dict[str, Floats]:
        """Statistics of each polygon.

        Returns:
            `mean_probability`, `min_probability`; `less` and `more`, by which its area may be
            smaller or greater, in pixels.
        """
        count = len(polygons)
        owner = polygons.feature_of(self._all("x"), self._all("y")).astype(np.int32)

        def add_up(name: str) -> Floats:
            values = self._all(name)
            return np.bincount(owner, weights=values, minlength=count).astype(np.float64)

        lowest = np.full(count, NOT_OBSERVED, np.uint8)
        np.minimum.at(lowest, owner, self._all("least"))
        size, area, likely = add_up("pixels"), polygons.areas(), add_up("likely")
        mean = add_up("total") / size * PROBABILITY_SCALE
        possible = self._possible.finish()
        host = possible.feature_of(self._all("around"), self._all("y"))
        surplus = _surplus(possible, owner, host, self._all("pixels"), size)
        self._parts = []
        return {
            "mean_probability": mean,
            "min_probability": lowest.astype(np.float64) * PROBABILITY_SCALE,
            "less": np.maximum(area - likely, 0),
            "more": np.maximum(size + surplus - area, 0),
        }

    def _all(self, name: str) -> Ints:
        """A field of all runs; put together when it is needed, as there are millions."""
        return np.concatenate([getattr(part, name) for part in self._parts])


def _surplus(
    possible: PixelPolygons, owner: Ints, host: Ints, pixels: Ints, size: Floats
) -> Floats:
    """Possible water pixels around each polygon.

    Polygons that lie in one body of possible water share what is between them by the root of
    their sizes, as their perimeters would if they were of one shape. One whose parts lie in several
    bodies, as pixels that touch at a corner may, has of each by the part of it that lies there.

    Args:
        possible: The bodies of possible water.
        owner: Of each run of water pixels its polygon.
        host: The body around it.
        pixels: How many it has.
        size: How many each polygon has.
    """
    body = possible.areas()
    spare = np.maximum(body - np.bincount(host, weights=pixels, minlength=len(body)), 0)
    weight = pixels / np.sqrt(size)[owner]
    share = weight / np.bincount(host, weights=weight, minlength=len(body))[host]
    surplus = np.bincount(owner, weights=spare[host] * share, minlength=len(size))
    return surplus.astype(np.float64)


# -- where pixels come from ------------------------------------------------------------------------


@dataclass(frozen=True)
class Origin:
    """A scene of several that a raster was put together from."""

    source: str
    acquired: str | None = None
    """In ISO 8601."""


class _Origins:
    """The scenes of polygons, from the runs of pixels that they are made of.

    A run of one scene's pixels below a pixel of the same scene tells nothing new, so only the
    topmost ones are kept.
    """

    def __init__(self, width: int, origins: Sequence[Origin]) -> None:
        self._origins = origins
        self._above = np.zeros((1, width), np.uint16)
        self._parts: list[Ints] = []
        self._rows = 0

    def add(self, wet: Bools, origin: Ints) -> None:
        """Take the next rows: where polygons are, and the number of each pixel's origin."""
        label = np.where(wet, origin + 1, 0).astype(np.uint16)
        beside = np.pad(label, ((0, 0), (1, 0)))[:, :-1]
        begins = wet & (label != beside)
        starts = np.maximum.accumulate(
            np.where(wet & (beside == 0), np.arange(wet.shape[1], dtype=np.int32), 0), axis=1
        )
        known = wet & (label == np.concatenate([self._above, label[:-1]]))
        at = np.flatnonzero(begins)
        run = np.cumsum(begins.ravel())[known.ravel()] - 1
        new = np.ones(len(at), np.bool_)
        new[run] = False
        y, x = np.divmod(at[new], wet.shape[1])
        number = label[y, x].astype(np.int32) - 1
        found = np.stack([starts[y, x], y + self._rows, number], axis=1)
        self._parts.append(found.astype(np.int32))
        self._above = label[-1:]
        self._rows += len(wet)

    def finish(self, polygons: PixelPolygons | ContourPolygons) -> dict[str, NDArray[Any]]:
        """`source` and, if one of the origins has a time, `acquired` of each polygon."""
        x, y, number = np.concatenate([np.empty((0, 3), np.int32), *self._parts]).T
        self._parts = []
        count = len(self._origins)
        pairs = np.unique(polygons.feature_of(x, y).astype(np.int64) * count + number)
        owner, number = np.divmod(pairs, count)
        first = np.searchsorted(owner, np.arange(len(polygons) + 1))
        columns = {"source": self._named(number, first, self._sources)}
        if any(origin.acquired for origin in self._origins):
            columns["acquired"] = self._named(number, first, self._times)
        return columns

    def _named(
        self, number: Ints, first: Ints, name: Callable[[tuple[int, ...]], str | None]
    ) -> NDArray[np.object_]:
        """What origins are called together, for stretches of their numbers, most of one alone."""
        alone = np.array([name((one,)) for one in range(len(self._origins))], object)
        names = alone[number[first[:-1]]]
        known: dict[tuple[int, ...], str | None] = {}
        for at in np.flatnonzero(np.diff(first) > 1):
            group = tuple(number[first[at] : first[at + 1]].tolist())
            if group not in known:
                known[group] = name(group)
            names[at] = known[group]
        return names

    def _sources(self, group: tuple[int, ...]) -> str:
        return ", ".join(sorted({self._origins[number].source for number in group}))

    def _times(self, group: tuple[int, ...]) -> str | None:
        """The time of all, or the first and the last one."""
        times = sorted({time for n in group if (time := self._origins[n].acquired)})
        return "/".join(dict.fromkeys([times[0], times[-1]])) if times else None


_Part: TypeAlias = "tuple[dict[str, Any], Geometries, Site]"
"""Columns and geometries, in pixels, of some rows of a table, and where they lie."""


# -- gathering -------------------------------------------------------------------------------------


class Outliner:
    """Turns a mask and its probability, arriving by rows, into tables of polygons and shorelines.

    Example:
        >>> outliner = Outliner(3, Shaping())
        >>> outliner.add(np.array([[1, 1, 0]], np.uint8))
        >>> [polygons] = outliner.tables(Affine.identity())["polygons"]
        >>> polygons.area_m2.tolist()
        [2.0]
    """

    def __init__(
        self,
        width: int,
        shaping: Shaping,
        *,
        polygons: bool = True,
        shoreline: bool = False,
        probability: bool = False,
        origins: Sequence[Origin] = (),
    ) -> None:
        """Start at the top of a raster.

        Args:
            width: Pixels in a row.
            shaping: What polygons look like.
            polygons: Whether polygons are wanted.
            shoreline: Whether shorelines are wanted.
            probability: Whether rows of probability will come with the rows of codes.
            origins: The scenes that the raster was put together from, if polygons shall name
                theirs; the number of each pixel's will come with the rows.

        Raises:
            ConfigError: If contours are asked for without probability.
        """
        if shaping.edges == "contour" and not probability:
            raise ConfigError("contours follow the probability of water; there is none.")
        contour = shaping.edges == "contour" and polygons
        known = probability and shaping.code == 1  # of water: it says nothing of other codes
        asked = {"polygons": polygons, "shoreline": shoreline}
        self._kinds = [kind for kind, wanted in asked.items() if wanted]
        self._shaping = shaping
        self._level = level_of(shaping.threshold)
        self._pixel = (
            Polygonizer(width, connectivity=shaping.connectivity, code=shaping.code)
            if polygons and not contour
            else None
        )
        self._contoured = contour or shoreline
        self._contour = Contourer(width, threshold=shaping.threshold, smooth=known)
        self._known = known
        self._statistics = _Statistics(width) if polygons and known else None
        self._origins = _Origins(width, origins) if polygons and origins else None
        self._seeds = _Seeds(width, shaping.code) if polygons and shaping.fill_holes else None

    def add(
        self, codes: Bytes, probability: Bytes | None = None, origin: Ints | None = None
    ) -> None:
        """Take the next rows.

        Args:
            codes: Mask codes, uint8[n, width].
            probability: Of water in steps of 1/250, uint8[n, width], 255 not observed.
            origin: Which of the origins each pixel is from, uint16[n, width].
        """
        step = max(1, _CHUNK_PIXELS // codes.shape[1])
        for top in range(0, len(codes), step):
            rows = slice(top, top + step)
            self._add(codes[rows], None if probability is None else probability[rows])
            if self._origins and origin is not None:
                self._origins.add(codes[rows] == self._shaping.code, origin[rows])

    def _add(self, codes: Bytes, probability: Bytes | None) -> None:
        if self._pixel:
            self._pixel.add(codes)
        if self._seeds:
            self._seeds.add(codes)
        if self._statistics and probability is not None:
            self._statistics.add(codes, probability)
        if self._contoured:
            self._contour.add(self._field(codes, probability if self._known else None))

    def _field(self, codes: Bytes, probability: Bytes | None) -> Bytes:
        """Probabilities that say the same as the codes, which were decided before rounding."""
        water, land = codes == self._shaping.code, codes == 0
        if probability is None:  # two values on either side of the level
            land = ~water & (codes != 2) & (codes != NOT_OBSERVED)
            probability = np.full(codes.shape, self._level, np.uint8)
        field = np.full(codes.shape, NOT_OBSERVED, np.uint8)
        field[water] = np.maximum(probability[water], self._level)
        field[land] = np.minimum(probability[land], self._level - 1)
        return field

    @cached_property
    def _contours(self) -> ContourPolygons:
        """Of all rows: what polygons and shorelines may share."""
        return self._contour.finish()

    def tables(
        self,
        transform: Affine,
        crs: object = None,
        *,
        to_crs: str | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> dict[str, Iterator[gpd.GeoDataFrame]]:
        """The tables that were asked for, "polygons" and "shoreline", once the last row has come.

        Each comes in parts of some thousand rows, one or more, made when they are due. What
        `Shaping` asks for that looks at neighbours (filling holes, simplifying, smoothing) needs
        all polygons at once: then there is one part.

        Shorelines follow the level of the probability if there is one, else pixel edges. Those of
        water below the minimum area are left out, where pixels that touch at a corner only are
        apart; no other clean-up, smoothing included, touches them.

        Args:
            transform: From (column, row) to coordinates of the CRS; may rotate and shear.
            crs: Anything that pyproj understands, a rasterio CRS, or None.
            to_crs: The CRS of the result, by default `crs`. Areas and lengths are the true ones in
                any.
            extra: More columns, each with one value.

        Returns:
            Shorelines have the columns of `Shorelines.attributes`, polygons those of
            `PixelPolygons.to_frame` and, if there is a probability,

            - `mean_probability`, `min_probability`: of water, over the pixels whose centres the
              polygon holds, before clean-up;
            - `area_low_m2`, `area_high_m2`: what the area would be if only pixels from
              probability 0.75 on were water, or all from 0.25 on. Where the model is calibrated
              these are odds of 3 to 1, and as they move the whole shore at once they assume
              nothing about pixels being independent. Possible water that several polygons share
              is dealt out by the root of their sizes.

            With origins `source` are those of its pixels, sorted and separated by commas, and
            `acquired` their time, or the first and the last one as in 2024-05-01/2024-05-03.
        """
        make = {"polygons": self._polygons, "shoreline": self._shorelines}
        more = extra or {}

        def tables(parts: Iterator[_Part]) -> Iterator[gpd.GeoDataFrame]:
            for columns, geometries, at in parts:  # what they know themselves goes before `more`
                yield table_of({**columns, **more, **columns}, geometries, at, to_crs)

        return {kind: tables(make[kind](transform, pyproj_crs(crs))) for kind in self._kinds}

    def _polygons(self, transform: Affine, crs: pyproj.CRS | None) -> Iterator[_Part]:
        found = self._pixel.finish() if self._pixel else self._contours
        at = Site(transform, crs, found.shape)
        columns = self._columns(found)
        seeds = self._seeds.finish() if self._seeds else None

        def part(some: slice) -> _Part:
            geometries, measures, kept = _cleaned(found.part(some), at, self._shaping, seeds)
            known = {name: values[some][kept] for name, values in columns.items()}
            return self._attributes(measures, shapely.area(geometries), known), geometries, at

        whole = self._shaping.needs_neighbours
        return (part(some) for some in stretches(found.ends, whole=whole))

    def _shorelines(self, transform: Affine, crs: pyproj.CRS | None) -> Iterator[_Part]:
        found = self._contours
        at = Site(transform, crs, found.shape)

        def part(some: slice) -> _Part:
            bodies = found.part(some)
            if self._shaping.min_area:
                bodies = bodies.select(~(at.areas(bodies.geometries()) < self._shaping.min_area))
            lines = bodies.shorelines()
            columns = lines.attributes(transform, crs, gradient=self._known)
            return columns, lines.geometries(), at

        return (part(some) for some in stretches(found.ends))

    def _attributes(
        self, measures: tuple[Floats, Floats], pixels: Floats, known: dict[str, NDArray[Any]]
    ) -> dict[str, Any]:
        """Columns of a table from areas and perimeters, areas in pixels, and what is known."""
        area, perimeter = measures
        less, more = known.pop("less", None), known.pop("more", None)
        name = CLASSES.get(self._shaping.code, f"code {self._shaping.code}")
        columns = {"class": np.full(len(area), name), "area_m2": area, "perimeter_m": perimeter}
        if less is not None and more is not None:
            pixel = area / pixels
            low, high = np.maximum(area - less * pixel, 0), area + more * pixel
            columns |= {"area_low_m2": low, "area_high_m2": high}
        return {**columns, **known}

    def _columns(self, found: PixelPolygons | ContourPolygons) -> dict[str, NDArray[Any]]:
        """What is known of the polygons before clean-up."""
        return {
            **(self._statistics.finish(found) if self._statistics else {}),
            "touches_edge": found.touches_edge,
            "touches_unobserved": found.touches_unobserved,
            **(self._origins.finish(found) if self._origins else {}),
        }


def _together(tables: Iterator[gpd.GeoDataFrame]) -> gpd.GeoDataFrame:
    """One table of those with rows, or an empty one."""
    parts = list(tables)
    filled = [part for part in parts if len(part)]
    if len(filled) < 2:
        return [*filled, parts[0]][0]
    columns = {
        name: np.concatenate([part[name].to_numpy() for part in filled]) for name in filled[0]
    }
    return gpd.GeoDataFrame(columns, crs=filled[0].crs)


class _Seeds:
    """One pixel or more of every patch that was not observed (or is of another code's kind)."""

    def __init__(self, width: int, code: int) -> None:
        self._code = code
        self._above = np.zeros((1, width), np.bool_)
        self._rows = 0
        self._parts: list[Floats] = []

    def add(self, codes: Bytes) -> None:
        """Take the next rows: mask codes, uint8[n, width]."""
        blank = ((codes == 2) | (codes == NOT_OBSERVED)) & (codes != self._code)
        first = blank & ~np.concatenate([self._above, blank[:-1]])
        first[:, 1:] &= ~blank[:, :-1]
        y, x = np.nonzero(first)
        self._parts.append(np.stack([x + 0.5, y + self._rows + 0.5], axis=1))
        self._above = blank[-1:]
        self._rows += len(codes)

    def finish(self) -> Floats:
        """Centres of these pixels: float64[n, 2], column and row."""
        return np.concatenate(self._parts) if self._parts else np.empty((0, 2))


# -- clean-up, once everything is whole ------------------------------------------------------------


def _cleaned(
    found: PixelPolygons | ContourPolygons, at: Site, shaping: Shaping, seeds: Floats | None
) -> tuple[Geometries, tuple[Floats, Floats], Ints]:
    """Fill holes, drop what is small, simplify, smooth.

    Returns:
        Geometries in pixels, their areas and perimeters, and which of `found` they are.
    """
    geometries, kept = found.geometries(), np.arange(len(found))
    if seeds is not None:
        geometries, kept = _fill_holes(geometries, seeds, at, shaping.fill_holes)
    if isinstance(found, PixelPolygons) and seeds is None:
        measures = found.measure(at.transform, at.crs)
    else:
        measures = at.measures(geometries)
    big = ~(measures[0] < shaping.min_area)  # an area that cannot be known is no reason to drop
    geometries, kept, measures = geometries[big], kept[big], (measures[0][big], measures[1][big])
    if shaping.simplify or shaping.smooth:
        geometries = reshaped(geometries, found.bound_points(), at, shaping)
        measures = at.measures(geometries)
    return geometries, measures, kept


def reshaped(
    geometries: Geometries, fixed: Floats, at: Site, shaping: Shaping, *, cover: bool = False
) -> Geometries:
    """Simplify and smooth polygons that are given in pixels, with all their neighbours.

    Args:
        geometries: Polygons that have the same vertices where they share an edge.
        fixed: float64[k, 2], vertices that smoothing leaves where they are.
        at: Where pixels lie.
        shaping: By how much.
        cover: Whether they cover the raster, so that what only one of them has is its frame, which
            stays.
    """
    if shaping.simplify and len(geometries):
        tolerance = shaping.simplify / at.pixel_size()
        simple = shapely.coverage_simplify(geometries, tolerance, simplify_boundary=not cover)
        geometries = shapely.orient_polygons(simple)
    if shaping.smooth:
        geometries = smoothed(geometries, fixed, shaping.smooth / at.pixel_size())
    return geometries


def _fill_holes(
    geometries: Geometries, seeds: Floats, at: Site, max_area: float
) -> tuple[Geometries, Ints]:
    """Fill holes up to an area, and drop the polygons in them; holes with a seed in them stay.

    Returns:
        Geometries and which ones of those given they are.
    """
    parts, feature = shapely.get_parts(geometries, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    hole = np.flatnonzero(part[1:] == part[:-1]) + 1
    holes = shapely.polygons(rings[hole])
    fill = at.areas(holes) <= max_area if len(holes) else np.zeros(0, np.bool_)
    fill[_seeded(holes, seeds)] = False
    if not fill.any():
        return geometries, np.arange(len(geometries))
    stays = np.ones(len(rings), np.bool_)
    stays[hole[fill]] = False
    parts = _polygons(rings[stays], part[stays])
    inside = shapely.STRtree(holes[fill]).query(parts, predicate="covered_by")[0]
    outside = np.ones(len(parts), np.bool_)
    outside[inside] = False
    kept, group = np.unique(feature[outside], return_inverse=True)
    if shapely.get_type_id(geometries[0]) == shapely.GeometryType.MULTIPOLYGON:
        return shapely.multipolygons(parts[outside], indices=group), kept
    return parts[outside], kept


def _seeded(holes: Geometries, seeds: Floats) -> Ints:
    """Which holes have a seed in them."""
    if not len(holes) or not len(seeds):
        return np.empty(0, np.int64)
    found: Ints = shapely.STRtree(holes).query(shapely.points(seeds), predicate="within")[1]
    return found


def _polygons(rings: Geometries, owner: Ints) -> Geometries:
    """Polygons from rings that are sorted by owner, the shell first."""
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    counts = np.bincount(ring), np.bincount(owner)
    offsets = [np.concatenate([[0], np.cumsum(count)]) for count in counts]
    polygons: Geometries = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, offsets)
    return polygons


# -- tables ----------------------------------------------------------------------------------------


def table_of(
    columns: Mapping[str, object], geometries: Geometries, at: Site, to_crs: str | None
) -> gpd.GeoDataFrame:
    """A table from columns, or one value for all rows, and geometries that are given in pixels."""
    if to_crs:
        check_crs(to_crs, at.crs)
        geometries = densified(geometries, _EDGE_PIXELS)
    world = on_map(geometries, at.transform)
    if at.transform.determinant < 0:
        world = shapely.reverse(world)
    frame = gpd.GeoDataFrame(columns, geometry=world, crs=at.crs)
    return frame.set_geometry(in_crs(frame, to_crs), crs=to_crs) if to_crs else frame


def check_crs(to_crs: str | None, crs: object) -> None:
    """Check that coordinates can be moved from one CRS to another.

    Raises:
        ConfigError: If the new CRS is not known, or there is no old one or none that leads there.
    """
    if not to_crs:
        return
    if not crs:
        raise ConfigError(f"without a CRS there is no way to {to_crs}; give the raster one.")
    try:
        pyproj.CRS.from_user_input(to_crs)
    except pyproj.exceptions.CRSError as error:
        raise ConfigError(
            f"the CRS of the output is one that PROJ knows, like EPSG:4326; got {to_crs!r}."
        ) from error
    if not leads_to(crs, to_crs):
        raise ConfigError(f"the raster's CRS does not lead to {to_crs}; leave it as it is.")


# -- files -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outlines:
    """What `vectorize` found."""

    polygons: gpd.GeoDataFrame
    """See `Outliner.tables`."""
    shorelines: gpd.GeoDataFrame | None
    """The same; None if they were not asked for."""


def vectorize(
    path: str | os.PathLike[str],
    *,
    probability: str | os.PathLike[str] | None = None,
    shaping: Shaping | None = None,
    shoreline: bool = False,
    to_crs: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Outlines:
    """Polygons and shorelines of a mask, of a water probability, or of both, read by strips.

    Args:
        path: One uint8 band: mask codes (0 land, 1 water, 2 obscured, 255 not observed), or the
            water probability in steps of 1/250 that geounet writes, told apart by its scale.
        probability: The probability that belongs to the mask.
        shaping: What polygons look like.
        shoreline: Whether to find shorelines too.
        to_crs: The CRS of the result, by default the file's.
        on_progress: Called as rows have been read.

    Raises:
        SceneError: If a file cannot be read, is neither, or the two have different grids, or the
            probability says nothing of a pixel that the mask calls land or water.
        ConfigError: If a parameter breaks its rule.

    Warns:
        GeounetWarning: In what should be a mask 255 may well mean water.
    """
    made = _tables(
        path,
        probability=probability,
        shaping=shaping or Shaping(),
        shoreline=shoreline,
        to_crs=to_crs,
        on_progress=on_progress,
    )
    whole = {kind: _together(tables) for kind, tables in made.items()}
    return Outlines(whole["polygons"], whole.get("shoreline"))


def polygonize(
    path: str | os.PathLike[str],
    *,
    connectivity: Literal[4, 8] = 4,
    code: int = 1,
    min_area: float = 0.0,
) -> gpd.GeoDataFrame:
    """Polygons of a mask: those of `vectorize`, with the options of `Shaping` that masks have.

    Raises:
        SceneError: As `vectorize`.
        ConfigError: As `vectorize`.
    """
    shaping = Shaping(connectivity=connectivity, code=code, min_area=min_area)
    return vectorize(path, shaping=shaping).polygons


def _tables(
    path: str | os.PathLike[str],
    *,
    probability: str | os.PathLike[str] | None,
    shaping: Shaping,
    shoreline: bool,
    to_crs: str | None,
    on_progress: Callable[[Progress], None] | None,
    check: Callable[[object], object] = lambda _: None,
) -> dict[str, Iterator[gpd.GeoDataFrame]]:
    """Parts of tables, "polygons" and "shoreline", of files that have been read.

    What is wrong with their CRS, `check` says before that.
    """
    try:
        with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES), ExitStack() as stack:
            source, level = _open_pair(stack, path, probability)
            check_crs(to_crs, source.crs)
            check(source.crs)
            outliner = Outliner(
                source.width, shaping, shoreline=shoreline, probability=level is not None
            )
            suspect = shaping.code == 1 and level is not source and source.nodata != NOT_OBSERVED
            water = white = False
            for window in _windows(source):
                codes, stored = _read(source, level, window, level_of(shaping.threshold))
                if level and stored is not None:
                    check_known(codes, stored, level.name)
                outliner.add(codes, stored)
                if suspect:
                    water = water or bool((codes == 1).any())
                    white = white or bool((codes == NOT_OBSERVED).any())
                if on_progress:
                    on_progress(Progress(window.row_off + window.height, source.height))
            if white and not water:
                _warn_of_white(source)
            place, extra = (source.transform, source.crs), _provenance(source)
    except RasterioError as error:
        reason = str(error).removeprefix(f"{path}: ").rstrip(".")
        raise SceneError(f"{shown(path)} cannot be read: {reason}.") from error
    return outliner.tables(*place, to_crs=to_crs, extra=extra)


def _warn_of_white(source: rasterio.DatasetReader) -> None:
    """Say it where 255 may well mean water, as in masks that are pictures: white on black."""
    warnings.warn(
        f"in a mask 1 is water and 255 is not observed; {shown(source.name)} holds 255, which it "
        f"does not call nodata, and no 1. If 255 is water there, make it 1 first "
        f"(gdal_calc.py --calc 'A == 255').",
        GeounetWarning,
        stacklevel=4,
    )


def vectorize_to_files(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    probability: str | os.PathLike[str] | None = None,
    shaping: Shaping | None = None,
    shoreline: bool = False,
    format: Format | None = None,  # noqa: A002
    to_crs: str | None = None,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, Path]:
    """Like `vectorize`, and write what was found.

    Args:
        path: As for `vectorize`.
        output: File of the polygons; by default beside the raster, under its name, of a remote
            raster in the folder one is in. Shorelines get the same name with "_shoreline".
        probability: As for `vectorize`.
        shaping: As for `vectorize`.
        shoreline: As for `vectorize`.
        format: "gpkg", "parquet", "fgb" or "geojson"; by default what the output's suffix says.
        to_crs: As for `vectorize`.
        overwrite: Whether existing files may be replaced.
        on_progress: As for `vectorize`.

    Returns:
        The files by kind, "polygons" and "shoreline".

    Raises:
        SceneError: As `vectorize`.
        ConfigError: As `vectorize`, or if the format is unknown.
        OutputError: If a file exists and may not be replaced, or cannot be written.
    """
    target = Path(output) if output else _beside(os.fspath(path), format or "gpkg")
    paths = {"polygons": target}
    if shoreline:
        paths["shoreline"] = target.with_name(f"{target.stem}_shoreline{target.suffix}")
    check_free(paths, overwrite=overwrite)
    made = _tables(
        path,
        probability=probability,
        shaping=shaping or Shaping(),
        shoreline=shoreline,
        to_crs=to_crs,
        on_progress=on_progress,
        check=lambda crs: check_format(target, format, crs),
    )
    for kind, tables in made.items():
        save(tables, paths[kind], LAYERS[kind], format, overwrite=overwrite)
    return paths


def _beside(path: str, suffix: str) -> Path:
    """Where polygons of a raster go: beside it, of a remote one into the folder one is in."""
    if remote.is_remote(path):
        return Path(f"{remote.stem(path)}.{suffix}")
    return Path(path).with_suffix(f".{suffix}")


def _open_pair(
    stack: ExitStack, path: str | os.PathLike[str], probability: str | os.PathLike[str] | None
) -> tuple[rasterio.DatasetReader, rasterio.DatasetReader | None]:
    """The mask and the probability; without a mask the probability twice."""
    first = stack.enter_context(open_raster(path, what="mask"))
    if is_probability(first, path):
        if probability is not None:
            raise ConfigError(f"{shown(path)} is a probability already; give a mask, or it alone.")
        return first, first
    if probability is None:
        return first, None
    second = stack.enter_context(open_raster(probability, what="probability"))
    if (second.shape, second.transform, second.crs) != (first.shape, first.transform, first.crs):
        names = shown(path), shown(probability)
        raise SceneError(f"the mask {names[0]} and the probability {names[1]} differ in grid.")
    if not is_probability(second, probability):
        raise SceneError(f"{shown(probability)} is no water probability in steps of 1/250.")
    return first, second


def is_probability(source: rasterio.DatasetReader, path: object) -> bool:
    """Whether a raster is a water probability in geounet's steps, or a mask, by type and scale.

    Args:
        source: The open raster.
        path: What to call it in an error.

    Raises:
        SceneError: If it is neither.
    """
    scale, known = source.scales[0], source.dtypes == ("uint8",)
    if known and math.isclose(scale, PROBABILITY_SCALE):
        return True
    if known and scale == 1:
        return False
    raise SceneError(
        f"a mask is one uint8 band of codes, a water probability one in steps of 1/250; "
        f"{shown(path)} has {source.count} bands of type "
        f"{', '.join(sorted(set(source.dtypes)))} with scale {scale}. {MAKE_ONE}"
    )


def check_known(codes: Bytes, probability: Bytes, path: object) -> None:
    """Refuse a probability that says nothing of a pixel that its mask calls land or water.

    Raises:
        SceneError: If there is one, or a number that is no probability.
    """
    strange = probability[(codes <= 1) & (probability > _CERTAIN)]
    if strange.size:
        raise SceneError(
            f"where a mask has land or water its probability goes from 0 to {_CERTAIN}; "
            f"{shown(path)} holds {strange[0]} there. Make both again, or leave it out."
        )


def _windows(source: rasterio.DatasetReader) -> Iterator[Window]:
    """All rows, whole blocks at a time."""
    block = source.block_shapes[0][0]
    height = max(1, _STRIP_PIXELS // source.width)
    height = height // block * block if height >= block else height
    for top in range(0, source.height, height):
        yield Window(0, top, source.width, min(height, source.height - top))


def _read(
    source: rasterio.DatasetReader,
    level: rasterio.DatasetReader | None,
    window: Window,
    least: int,
) -> tuple[Bytes, Bytes | None]:
    """Codes and probability of some rows."""
    rows: Bytes = read_band(source, window)
    if source is not level:
        return rows, None if level is None else read_band(level, window)
    codes = np.where(rows == NOT_OBSERVED, np.uint8(NOT_OBSERVED), rows >= least)
    return codes.astype(np.uint8), rows


def _provenance(source: rasterio.DatasetReader) -> dict[str, str]:
    """Scene and time, as a run writes them into the tags of its rasters."""
    tags = {"SOURCE": file_name(source.name), **source.tags()}
    return {name.lower(): tags[name] for name in ("SOURCE", "ACQUIRED") if tags.get(name)}

"""Polygons and shorelines through the pixels, at a level of the water probability.

Marching squares (Lorensen and Cline 1987, in the plane) on the lattice of pixel centres. Where the
level crosses the line between two neighbouring centres is a vertex (`stretched` says how far), and
its name is that lattice edge; a segment is a pair of such names. So rows may arrive in strips with
one row carried, and the rings are closed at the end by looking names up: nothing is cut at a
strip's border and nothing has to be stitched.

    add(rows)  keep the segments, water on their left in (column, row); drop the pixels
    finish()   each name begins one segment and ends one: following them gives the rings

What was not observed takes no part in the interpolation. There, and at the scene's edge, the
boundary follows pixel edges, and it is not shore:

      o     o     o        o: centre of an observed pixel, x: of a not-observed one
         ___________
      o |   x     x        ___: pixel edge, reached at right angles
        |

Vertices lie strictly between two centres and a lattice cell's segments never touch, so rings
neither cross nor touch: geometries are valid by construction (OGC 06-103r4, 6.1.11.1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from geounet.errors import ConfigError
from geounet.mask import NOT_OBSERVED, PROBABILITY_SCALE
from geounet.vectors import (
    cycles,
    ground_lengths,
    kept_offsets,
    place,
    ragged_polygons,
    ring_index,
    signed_areas,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyproj

__all__ = ["ContourPolygons", "Contourer", "Shorelines", "contour_rows", "level_of", "stretched"]

Bools: TypeAlias = NDArray[np.bool_]
Bytes: TypeAlias = NDArray[np.uint8]
Ints: TypeAlias = NDArray[Any]
"""Integers of 32 or 64 bits."""
Floats: TypeAlias = NDArray[np.float64]

_CHUNK_PIXELS = 1 << 19
"""Pixels scanned at once, so that a chunk's temporaries stay in the processor's cache."""

# A cell's corners and sides, counter-clockwise in (column, row): corner 0 is the upper left one,
# side i lies between the corners i and i + 1.
_CORNERS = ((0, 0), (0, 1), (1, 1), (1, 0))
_SADDLES = (0b0101, 0b1010)


def level_of(threshold: float) -> int:
    """The least stored probability (in steps of 1/250) that is water.

    Raises:
        ConfigError: If the threshold is not between 0 and 1.
    """
    if not 0 < threshold < 1:
        raise ConfigError(f"the threshold lies between 0 and 1; got {threshold!r}.")
    return max(1, int(np.ceil(round(threshold / PROBABILITY_SCALE, 6))))


def stretched(stored: NDArray[Any] | float) -> Any:
    """What is interpolated between pixel centres, from stored probabilities (0 to 250).

    Near a shore the probability is about the pixel's share of water, and that stops at 0 and 1
    however far the shore is: between a pixel of share s > 1/2 and one of 0 a straight shore along
    the pixels' edges lies s - 1/2 from the first centre, not (s - 1/2) / s as linear interpolation
    has it. Interpolated as d / (1 - |d|) with d = s - 1/2 the crossing is exact there. Of straight
    shores in any direction the mean error falls from 0.04 to 0.004 pixels.

    Returns:
        -1 to 1, float64; strictly ascending, 0 where the probability is 1/2.
    """
    off = np.asarray(stored, np.float64) * PROBABILITY_SCALE - 0.5
    return off / (1 - np.abs(off))


# -- rows become segments --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Segments:
    """Segments of some rows of cells; each begins at a vertex of its own."""

    start: Ints
    """int64[n]: name of the vertex where it begins."""
    end: Ints
    """int64[n]: name of the vertex where it ends."""
    fraction: NDArray[np.float32]
    """float32[n]: where on its lattice edge the start lies, 0 to 1."""
    steep: NDArray[np.float32]
    """float32[n]: stored probability per pixel across it; NaN beside a not-observed pixel."""
    border: Bools
    """bool[n]: the start lies on the edge of a not-observed pixel."""
    bend: Ints
    """int64[k]: which segments have a corner on their way."""
    bend_at: Floats
    """float64[k, 2]: column and row of that corner."""


def _table() -> tuple[Ints, Ints]:
    """Sides where segments leave and reach the water's rim, by case.

    The case is the four corners' water bits, plus 16 where the water of a saddle is joined.

    Returns:
        int8[32, 2] each, -1 where there is no (second) segment.
    """
    leave, reach = np.full((2, 32, 2), -1, np.int8)
    for case in range(32):
        wet = [bool(case >> i & 1) for i in range(4)]
        exits = [i for i in range(4) if wet[i] and not wet[(i + 1) % 4]]
        entries = [i for i in range(4) if not wet[i] and wet[(i + 1) % 4]]
        for number, side in enumerate(exits):
            step = 1 if case >= 16 else -1
            leave[case, number] = side
            reach[case, number] = (side + step) % 4 if len(exits) == 2 else entries[0]
    return leave, reach


_LEAVE, _REACH = _table()


def _scan(field: Bytes, first_row: int, level: int, *, smooth: bool) -> _Segments:
    """Segments between the rows of a block.

    Args:
        field: uint8[n + 1, width + 2], stored probabilities, framed by not-observed columns; row 0
            repeats the row above the block.
        first_row: The padded row of the field's row 0.
        level: The least value that is water.
        smooth: Whether to interpolate; else boundaries follow pixel edges.
    """
    width = field.shape[1]
    wet = ((field >= level) & (field != NOT_OBSERVED)).view(np.uint8)
    down = wet[:-1] + wet[1:]
    total = down[:, :-1] + down[:, 1:]
    row, column = np.divmod(np.flatnonzero((total > 0) & (total < 4)), width - 1)
    corners = np.stack([field[row + r, column + c] for r, c in _CORNERS], axis=1)
    return _march(corners, row + first_row, column, width, level, smooth=smooth)


def _march(
    corners: Bytes, row: Ints, column: Ints, width: int, level: int, *, smooth: bool
) -> _Segments:
    """Segments of the cells that the boundary passes: uint8[n, 4] corners at (row, column)."""
    blank = corners == NOT_OBSERVED
    wet = (corners >= level) & ~blank
    case, saddle = _cases(corners.astype(np.float64), wet, blank, level, smooth=smooth)
    second = np.flatnonzero(saddle)
    cell = np.concatenate([np.arange(len(case)), second])
    number = np.concatenate([np.zeros(len(case), np.intp), np.ones(len(second), np.intp)])
    leave, reach = _LEAVE[case[cell], number], _REACH[case[cell], number]
    values, hidden = corners[cell].astype(np.float64), blank[cell]
    at = [_crossing(values, hidden, side, level, smooth=smooth) for side in (leave, reach)]
    names = [_name(row[cell], column[cell], side, width) for side in (leave, reach)]
    bend, bend_at = _bends(
        (leave, reach), at, hidden, cut=saddle[cell] & (case[cell] < 16), smooth=smooth
    )
    origin = np.stack([column[cell[bend]], row[cell[bend]]], axis=1) - 0.5
    return _Segments(
        start=names[0],
        end=names[1],
        fraction=np.where(leave >= 2, 1 - at[0].along, at[0].along).astype(np.float32),
        steep=_steepness(values, hidden) if smooth else np.zeros(len(cell), np.float32),
        border=at[0].border,
        bend=bend,
        bend_at=origin + bend_at,
    )


def _cases(
    values: Floats, wet: Bools, blank: Bools, level: int, *, smooth: bool
) -> tuple[Ints, Bools]:
    """The case of each cell, and which cells are saddles.

    A saddle's water is joined if the mean of its observed corners, stretched, is; with two
    not-observed corners there is no room for that, and pixel edges never join at a point.
    """
    case = wet @ np.array([1, 2, 4, 8])
    saddle = np.isin(case, _SADDLES)
    seen = ~blank
    mean = (stretched(values) * seen).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    joined = saddle & (mean > stretched(level - 0.5)) & (blank.sum(axis=1) < 2) & smooth
    return case + 16 * joined, saddle


@dataclass(frozen=True, slots=True, eq=False)
class _Crossing:
    """Where the boundary crosses a side of each cell."""

    along: Floats
    """float64[n]: from the side's first corner (0) to its second (1)."""
    border: Bools
    """bool[n]: one of the side's two corners is not observed, so it is the pixel's edge."""


def _crossing(values: Floats, blank: Bools, side: Ints, level: int, *, smooth: bool) -> _Crossing:
    cell = np.arange(len(side))
    other = (side + 1) % 4
    one, two = stretched(values[cell, side]), stretched(values[cell, other])
    border = blank[cell, side] | blank[cell, other]
    # half a step below the level: never a corner itself, so that no vertex falls on another
    with np.errstate(divide="ignore"):
        along = (stretched(level - 0.5) - one) / (two - one)
    fixed = border if smooth else np.ones_like(border)
    return _Crossing(np.where(fixed, 0.5, along), border)


def _name(row: Ints, column: Ints, side: Ints, width: int) -> Ints:
    """Number of a cell's side: even between pixels of a row, odd between pixels of a column."""
    at = (row + (side == 2)) * width + column + (side == 1)
    name: Ints = 2 * at + side % 2
    return name


def _bends(
    sides: tuple[Ints, Ints], at: list[_Crossing], blank: Bools, *, cut: Bools, smooth: bool
) -> tuple[Ints, Floats]:
    """Segments with a corner on their way, and where in the cell it lies (column, row; 0 to 1).

    A segment that meets the edge of a not-observed pixel goes on along it: by the lattice point in
    the cell's middle, or, where the cell's other half is not observed, straight on to its edge.
    """
    leave, reach = sides
    opposite = (reach - leave) % 4 == 2
    if smooth:
        needed = (at[0].border | at[1].border) & ~cut
        needed &= ~(opposite & at[0].border & at[1].border)
    else:
        needed = ~opposite | (at[0].border != at[1].border)
    index = np.flatnonzero(needed)
    where = np.full((len(index), 2), 0.5)
    halved = blank[index].sum(axis=1) == 2
    for side, crossing in zip(sides, at, strict=True):
        straight = halved & ~crossing.border[index]
        x, y = _point(side[index], crossing.along[index])
        upright = side[index] % 2 == 0
        where[straight & upright, 0] = x[straight & upright]
        where[straight & ~upright, 1] = y[straight & ~upright]
    return index, where


def _point(side: Ints, along: Floats) -> tuple[Floats, Floats]:
    """Column and row in the cell of a point on its side."""
    x = np.choose(side, [along, 1.0, 1 - along, 0.0])
    y = np.choose(side, [0.0, along, 1.0, 1 - along])
    return x, y


def _steepness(values: Floats, blank: Bools) -> NDArray[np.float32]:
    """Length of the bilinear surface's gradient in the cell's middle."""
    one, two, three, four = values.T
    slope = np.hypot(two + three - one - four, three + four - one - two) / 2
    return np.where(blank.any(axis=1), np.nan, slope).astype(np.float32)


class Contourer:
    """Turns a water probability that arrives by rows into polygons at one of its levels.

    The result does not depend on how the rows are cut into strips. Memory grows with the length of
    the boundary (about 30 bytes a pixel that it passes while rows arrive), not with the raster.

    Example:
        >>> contourer = Contourer(3)
        >>> contourer.add(np.array([[0, 0, 0], [0, 250, 0]], np.uint8))
        >>> contourer.add(np.array([[0, 0, 0]], np.uint8))
        >>> round(contourer.finish().geometries()[0].area, 2)
        0.5
    """

    def __init__(self, width: int, *, threshold: float = 0.5, smooth: bool = True) -> None:
        """Start at the top of a raster.

        Args:
            width: Pixels in a row.
            threshold: Least probability of water.
            smooth: Whether to interpolate; else boundaries follow pixel edges.

        Raises:
            ConfigError: If the width is not positive or the threshold not between 0 and 1.
        """
        if width < 1:
            raise ConfigError(f"a raster is at least one pixel wide; got width={width}.")
        self._width = width
        self._level = level_of(threshold)
        self._smooth = smooth
        self._rows = 0
        self._parts: list[_Segments] = []
        self._above = np.full(width + 2, NOT_OBSERVED, np.uint8)

    def add(self, rows: Bytes) -> None:
        """Take the next rows.

        Args:
            rows: uint8[n, width], water probability in steps of 1/250, top to bottom; 255 is not
                observed.

        Raises:
            ConfigError: If the rows have another type or width.
        """
        if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != self._width:
            raise ConfigError(
                f"rows of a probability are uint8[n, {self._width}]; "
                f"got {rows.dtype}{list(rows.shape)}."
            )
        step = max(1, _CHUNK_PIXELS // self._width)
        for top in range(0, len(rows), step):
            self._add_chunk(rows[top : top + step])

    def _add_chunk(self, rows: Bytes) -> None:
        field = np.full((len(rows) + 1, self._width + 2), NOT_OBSERVED, np.uint8)
        field[0] = self._above
        field[1:, 1:-1] = rows
        self._parts.append(_scan(field, self._rows, self._level, smooth=self._smooth))
        self._above = field[-1]
        self._rows += len(rows)

    def finish(self) -> ContourPolygons:
        """The polygons of all rows so far, in row order of their first vertices."""
        field = np.full((2, self._width + 2), NOT_OBSERVED, np.uint8)
        field[0] = self._above
        last = _scan(field, self._rows, self._level, smooth=self._smooth)
        segments = _join([*self._parts, last])
        self._parts = []
        return _assemble(segments, (self._rows, self._width))


def contour_rows(strips: Iterable[Bytes], width: int, *, threshold: float = 0.5) -> ContourPolygons:
    """Polygons of a water probability given as strips of rows, top to bottom.

    Args:
        strips: Arrays uint8[n, width], probability in steps of 1/250, 255 not observed.
        width: Pixels in a row.
        threshold: Least probability of water.

    Raises:
        ConfigError: If a parameter or a strip's shape or type breaks its rule.
    """
    contourer = Contourer(width, threshold=threshold)
    for strip in strips:
        contourer.add(strip)
    return contourer.finish()


def _join(parts: list[_Segments]) -> _Segments:
    """Segments of all rows, in the order of the names of their starts."""
    shift = np.cumsum([0, *(len(part.start) for part in parts)])
    start = np.concatenate([part.start for part in parts])
    order = np.argsort(start, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    bends = (part.bend + first for part, first in zip(parts, shift, strict=False))
    return _Segments(
        start=start[order],
        end=np.concatenate([part.end for part in parts])[order],
        fraction=np.concatenate([part.fraction for part in parts])[order],
        steep=np.concatenate([part.steep for part in parts])[order],
        border=np.concatenate([part.border for part in parts])[order],
        bend=rank[np.concatenate(list(bends))],
        bend_at=np.concatenate([part.bend_at for part in parts]),
    )


# -- segments become rings -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """Vertices of rings, one ring after the other; an edge leaves each for the next one."""

    xy: Floats
    """float64[n, 2]: column and row."""
    ring: Ints
    """int64[n]: which ring the vertex is on."""
    shore: Bools
    """bool[n]: the edge lies between observed pixels."""
    steep: NDArray[np.float32]
    """float32[n]: stored probability per pixel across the edge."""

    def select(self, index: Ints | Bools) -> _Line:
        return _Line(self.xy[index], self.ring[index], self.shore[index], self.steep[index])


def _assemble(segments: _Segments, shape: tuple[int, int]) -> ContourPolygons:
    """Polygons from all segments of a raster of `shape` (rows, columns)."""
    following = np.searchsorted(segments.start, segments.end)
    walk, starts = cycles(following)
    ring = np.empty(len(walk), np.int64)
    ring[walk] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(walk)))
    line = _expand(segments, following, walk, ring, shape[1] + 2)
    line = line.select(_corners(line, len(starts)))
    is_shell = signed_areas(line.xy, _offsets(line.ring, len(starts))) > 0
    level = np.flatnonzero(segments.start % 2 == 0)  # names between pixels of a row
    body = _bodies(ring[level], is_shell)
    order = np.lexsort((~is_shell, body))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    line = line.select(np.argsort(rank[line.ring], kind="stable"))
    shells = np.flatnonzero(is_shell[order])
    edge, unobserved = _touched(segments, body[ring], len(shells), shape)
    return ContourPolygons(
        shape=shape,
        vertices=line.xy,
        shore=line.shore,
        steep=line.steep,
        ring_offsets=_offsets(rank[line.ring], len(order)),
        polygon_offsets=np.append(shells, len(order)),
        touches_edge=edge,
        touches_unobserved=unobserved,
        _run_start=segments.start[level],
        _run_polygon=body[ring[level]],
    )


def _expand(segments: _Segments, following: Ints, walk: Ints, ring: Ints, width: int) -> _Line:
    """Starts and bends in the order of the rings."""
    bent = np.zeros(len(walk), np.bool_)
    bent[segments.bend] = True
    place = np.empty(len(walk), np.int64)
    place[walk] = np.cumsum(1 + bent[walk]) - 1 - bent[walk]
    count = len(walk) + len(segments.bend)
    xy, owner = np.empty((count, 2)), np.empty(count, np.int64)
    shore, steep = np.empty(count, np.bool_), np.empty(count, np.float32)
    ahead = segments.border[following]
    xy[place] = _position(segments, width)
    shore[place] = ~segments.border & (bent | ~ahead)
    owner[place], steep[place] = ring, segments.steep
    at = place[segments.bend] + 1
    xy[at] = segments.bend_at
    shore[at] = ~ahead[segments.bend]
    owner[at], steep[at] = ring[segments.bend], segments.steep[segments.bend]
    return _Line(xy, owner, shore, steep)


def _position(segments: _Segments, width: int) -> Floats:
    """Column and row of the segments' starts; pixel centres lie at halves."""
    at, upright = np.divmod(segments.start, 2)
    row, column = np.divmod(at, width)
    xy = np.stack([column, row], axis=1) - 0.5
    xy[np.arange(len(xy)), upright] += segments.fraction
    return xy


def _corners(line: _Line, rings: int) -> Bools:
    """Which vertices matter: not those on a straight run along a row or column of pixel edges."""
    offsets = _offsets(line.ring, rings)
    before, after = ring_index(offsets, -1), ring_index(offsets, 1)
    straight = (line.xy[before] == line.xy) & (line.xy == line.xy[after])
    alike = (line.shore[before] == line.shore) & (~line.shore | (line.steep[before] == line.steep))
    keep: Bools = ~(straight.any(axis=1) & alike)
    return keep


def _offsets(ring: Ints, rings: int) -> Ints:
    """Where each ring begins among vertices that are sorted by their ring."""
    return np.concatenate([[0], np.cumsum(np.bincount(ring, minlength=rings))])


def _bodies(ring: Ints, is_shell: Bools) -> Ints:
    """The polygon, numbered by shell, that each ring bounds.

    Along a row of pixel centres boundaries take turns: water begins, water ends. At a hole's
    leftmost crossing in its topmost row water ends; where that water began is the crossing before,
    on another ring of the same polygon, which reaches further up or further to the left. So the
    chain of these rings ends at the shell.

    Args:
        ring: The ring of each crossing of the rows of pixel centres, in row order.
        is_shell: bool[rings].
    """
    first = np.unique(ring, return_index=True)[1]
    parent = np.arange(len(is_shell))
    holes = np.flatnonzero(~is_shell)
    parent[holes] = ring[first[holes] - 1]
    while not is_shell[parent].all():
        parent = parent[parent]
    number: Ints = np.cumsum(is_shell) - 1
    return number[parent]


def _touched(
    segments: _Segments, polygon: Ints, count: int, shape: tuple[int, int]
) -> tuple[Bools, Bools]:
    """Which polygons have pixels at the raster's edge, and which beside not-observed ones."""
    xy, polygon = _position(segments, shape[1] + 2)[segments.border], polygon[segments.border]
    frame = (xy == 0).any(axis=1) | (xy == shape[::-1]).any(axis=1)
    edge, unobserved = (np.bincount(polygon[at], minlength=count) > 0 for at in (frame, ~frame))
    return edge, unobserved


# -- polygons and shorelines -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class ContourPolygons:
    """Polygons at a level of the probability, in row order of their first vertices.

    Shells turn counter-clockwise in (x, y) = (column, row), holes clockwise.
    """

    shape: tuple[int, int]
    """Rows and columns of the raster."""
    vertices: Floats
    """float64[n, 2]: column and row of the rings' vertices, the first one not repeated."""
    shore: Bools
    """bool[n]: the edge to the ring's next vertex lies between observed pixels."""
    steep: NDArray[np.float32]
    """float32[n]: stored probability per pixel across that edge; NaN where it is not known."""
    ring_offsets: Ints
    """int64[rings + 1]: where each ring begins in `vertices`."""
    polygon_offsets: Ints
    """int64[polygons + 1]: where each polygon begins among the rings; its shell is first."""
    touches_edge: Bools
    """bool[polygons]: a pixel lies in the raster's first or last row or column."""
    touches_unobserved: Bools
    """bool[polygons]: a pixel shares an edge with a not-observed one."""
    _run_start: Ints
    _run_polygon: Ints

    def __len__(self) -> int:
        """Number of polygons."""
        return len(self.polygon_offsets) - 1

    def geometries(self, transform: Affine = Affine.identity()) -> NDArray[np.object_]:  # noqa: B008
        """Shapely polygons, valid, shells counter-clockwise, in the transform's coordinates."""
        return ragged_polygons(self.vertices, [self.ring_offsets, self.polygon_offsets], transform)

    def areas(self) -> Floats:
        """Area of each polygon in pixels."""
        per_ring = signed_areas(self.vertices, self.ring_offsets)
        return np.add.reduceat(per_ring, self.polygon_offsets[:-1])

    def select(self, keep: Bools) -> ContourPolygons:
        """The polygons where `keep` (bool[polygons]) is True."""
        ring = np.repeat(keep, np.diff(self.polygon_offsets))
        vertex = np.repeat(ring, np.diff(self.ring_offsets))
        number = np.cumsum(keep) - 1
        run = keep[self._run_polygon]
        return replace(
            self,
            vertices=self.vertices[vertex],
            shore=self.shore[vertex],
            steep=self.steep[vertex],
            ring_offsets=kept_offsets(self.ring_offsets, ring),
            polygon_offsets=kept_offsets(self.polygon_offsets, keep),
            touches_edge=self.touches_edge[keep],
            touches_unobserved=self.touches_unobserved[keep],
            _run_start=self._run_start[run],
            _run_polygon=number[self._run_polygon[run]],
        )

    def part(self, some: slice) -> ContourPolygons:
        """The polygons from `some.start` up to `some.stop`, without `feature_of`."""
        polygons = self.polygon_offsets[some.start : some.stop + 1]
        rings = self.ring_offsets[polygons[0] : polygons[-1] + 1]
        vertices = slice(rings[0], rings[-1])
        return replace(
            self,
            vertices=self.vertices[vertices],
            shore=self.shore[vertices],
            steep=self.steep[vertices],
            ring_offsets=rings - rings[0],
            polygon_offsets=polygons - polygons[0],
            touches_edge=self.touches_edge[some],
            touches_unobserved=self.touches_unobserved[some],
            _run_start=self._run_start[:0],
            _run_polygon=self._run_polygon[:0],
        )

    def bound_points(self) -> Floats:
        """Vertices at the end of an edge that is no shore: float64[k, 2], column and row."""
        return self.vertices[~(self.shore & self.shore[ring_index(self.ring_offsets, -1)])]

    def feature_of(self, x: Ints, y: Ints) -> Ints:
        """The polygon of the run of water pixels that begins at column x of row y."""
        names = 2 * ((y.astype(np.int64) + 1) * (self.shape[1] + 2) + x)
        return self._run_polygon[np.searchsorted(self._run_start, names)]

    def shorelines(self) -> Shorelines:
        """The boundary between observed pixels: rings, cut where they leave it."""
        size = np.diff(self.ring_offsets)
        first = self.ring_offsets[:-1]
        breaks = np.flatnonzero(~self.shore)
        ring = np.repeat(np.arange(len(size)), size)
        turn = np.zeros(len(size), np.int64)  # so that no line runs over its ring's end
        turn[ring[breaks]] = breaks + 1 - first[ring[breaks]]
        step = np.arange(len(ring)) - first[ring]
        index = first[ring] + (step + turn[ring]) % size[ring]
        closed = np.bincount(ring[breaks], minlength=len(size)) == 0
        return _cut_lines(self, index, self.shore[index], first[closed])


@dataclass(frozen=True, slots=True, eq=False)
class Shorelines:
    """Lines between water and land, both observed; the water lies to their left.

    Left is meant in (x, y) = (column, row) here, and on the map in `geometries`.
    """

    shape: tuple[int, int]
    """Rows and columns of the raster."""
    vertices: Floats
    """float64[n, 2]: column and row."""
    steep: NDArray[np.float32]
    """float32[n]: stored probability per pixel across the edge that leaves the vertex."""
    offsets: Ints
    """int64[lines + 1]: where each line begins in `vertices`; a closed one repeats its first."""

    def __len__(self) -> int:
        """Number of lines."""
        return len(self.offsets) - 1

    def geometries(self, transform: Affine = Affine.identity()) -> NDArray[np.object_]:  # noqa: B008
        """Shapely lines with the water on their left in the transform's coordinates."""
        index = np.arange(len(self.vertices))
        if transform.determinant < 0:
            size = np.diff(self.offsets)
            index = np.repeat(self.offsets[:-1] + self.offsets[1:] - 1, size) - index
        world = np.stack(place(transform, *self.vertices[index].T), axis=1)
        lines: NDArray[np.object_] = shapely.from_ragged_array(
            shapely.GeometryType.LINESTRING, world, [self.offsets]
        )
        return lines

    def attributes(
        self, transform: Affine, crs: pyproj.CRS | None = None, *, gradient: bool = True
    ) -> dict[str, NDArray[Any]]:
        """What is known of each line.

        Args:
            transform: From (column, row) to coordinates of the CRS; may rotate and shear.
            crs: Whose ellipsoid they lie on.
            gradient: Whether the lines come from a probability that has one.

        Returns:
            - `length_m`: on the CRS's ellipsoid; in plain units of the coordinates without one;
            - `closed`: it is a ring, not broken by what was not observed;
            - `gradient`: mean slope of the water probability across the line, weighted by length,
              in 1/m: 0.05 is a change from 0 to 1 within 20 m. Without it if not asked for.
        """
        length = ground_lengths(self.geometries(), transform, crs)
        ends = self.vertices[self.offsets[:-1]], self.vertices[self.offsets[1:] - 1]
        columns: dict[str, NDArray[Any]] = {
            "length_m": length,
            "closed": (ends[0] == ends[1]).all(axis=1),
        }
        if gradient:
            pixels, slope = self._slopes()
            with np.errstate(invalid="ignore", divide="ignore"):
                columns["gradient"] = slope * PROBABILITY_SCALE * pixels / length
        return columns

    def _slopes(self) -> tuple[Floats, Floats]:
        """Length in pixels of each line, and its mean slope per pixel; NaN where none is known."""
        line = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        edge = np.flatnonzero(line[:-1] == line[1:])
        size = np.linalg.norm(self.vertices[edge + 1] - self.vertices[edge], axis=1)
        pixels = np.bincount(line[edge], weights=size, minlength=len(self)).astype(np.float64)
        known = np.isfinite(self.steep[edge])
        edge, size = edge[known], size[known]
        weight = np.bincount(line[edge], weights=size, minlength=len(self))
        total = np.bincount(line[edge], weights=size * self.steep[edge], minlength=len(self))
        with np.errstate(invalid="ignore", divide="ignore"):
            return pixels, total / weight


def _cut_lines(polygons: ContourPolygons, index: Ints, shore: Bools, closed: Ints) -> Shorelines:
    """Lines along the shore edges of rings.

    Args:
        polygons: Whose rings they are.
        index: Its vertices, each ring turned so that its last edge is not shore if one is not.
        shore: Whether the edge that leaves each of these is shore.
        closed: First vertices of the rings that are shore all round.
    """
    before = np.concatenate([[False], shore[:-1]])
    ring_starts = np.zeros(len(index), np.bool_)
    ring_starts[polygons.ring_offsets[:-1]] = True
    begins = shore & (~before | ring_starts)
    kept = shore | (before & ~ring_starts)
    line = np.cumsum(begins)[kept] - 1
    points = index[kept]
    last = line[np.isin(points, closed)]
    order = np.argsort(np.concatenate([line, last]), kind="stable")
    points = np.concatenate([points, closed])[order]
    size = np.bincount(line, minlength=int(begins.sum())) + np.bincount(
        last, minlength=int(begins.sum())
    )
    return Shorelines(
        shape=polygons.shape,
        vertices=polygons.vertices[points],
        steep=polygons.steep[points],
        offsets=np.concatenate([[0], np.cumsum(size)]),
    )

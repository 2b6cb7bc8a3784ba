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
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from geounet.errors import ConfigError
from geounet.ground import Site, along
from geounet.mask import NOT_OBSERVED, PROBABILITY_SCALE
from geounet.vectors import (
    cycles,
    kept_offsets,
    ragged_polygons,
    ring_blocks,
    ring_index,
    signed_areas,
)

if TYPE_CHECKING:
    import pyproj

__all__ = ["ContourPolygons", "Contourer", "Shorelines", "level_of", "stretched"]

Bools: TypeAlias = NDArray[np.bool_]
Bytes: TypeAlias = NDArray[np.uint8]
Ints: TypeAlias = NDArray[Any]
"""Integers of 32 or 64 bits."""
Floats: TypeAlias = NDArray[np.float64]

_CHUNK_PIXELS = 1 << 19
"""Pixels scanned at once, so that a chunk's temporaries stay in the processor's cache."""
_BLOCK = 1 << 17
"""Vertices that are worked on at once."""

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
    """int32[n]: name of the vertex where it begins, counted from the first row of cells."""
    end: Ints
    """int32[n]: name of the vertex where it ends."""
    fraction: NDArray[np.float32]
    """float32[n]: where on its lattice edge the start lies, 0 to 1."""
    steep: NDArray[np.float32]
    """float32[n]: stored probability per pixel across it; NaN beside a not-observed pixel."""
    flags: Bytes
    """uint8[n]: see `_BORDER` and the ones that follow."""
    bend: Ints
    """int32[k]: which segments have a corner on their way, ascending."""
    bend_at: Floats
    """float64[k, 2]: column and row of that corner."""


_BORDER = 1
"""The start lies on the edge of a not-observed pixel."""
_SHORE = 2
"""Between its start and its corner, or its end, it lies between observed pixels."""
_BENT = 4
"""It has a corner on its way."""
_SHORE_ON = 8
"""So it does from there on."""


@dataclass(frozen=True, slots=True, eq=False)
class _Chains:
    """Segments of some rows of cells, one leading to the next: rings, and pieces of rings.

    A whole ring ends where it begins. A piece begins and ends at the first or the last row.
    """

    segments: _Segments
    """In the order of the chains."""
    offsets: Ints
    """int32[chains + 1]: where each begins among the segments."""
    tail: Ints
    """int32[chains]: name of the vertex where each ends."""
    first_row: int
    """Row of cells from which names are counted."""


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
    return _march(corners, (row, column, first_row), width, level, smooth=smooth)


def _march(
    corners: Bytes, at_cell: tuple[Ints, Ints, int], width: int, level: int, *, smooth: bool
) -> _Segments:
    """Segments of the cells that the boundary passes.

    Args:
        corners: uint8[n, 4], stored probabilities.
        at_cell: Row and column of each cell, and the row from which rows are counted.
        width: Columns of the padded raster.
        level: The least value that is water.
        smooth: Whether to interpolate.
    """
    row, column, first_row = at_cell
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
    origin = np.stack([column[cell[bend]], row[cell[bend]] + first_row], axis=1) - 0.5
    bent = np.zeros(len(cell), np.bool_)
    bent[bend] = True
    here, ahead = at[0].border, at[1].border
    flags = _BORDER * here + _SHORE * (~here & (bent | ~ahead))
    return _Segments(
        start=names[0].astype(np.int32),
        end=names[1].astype(np.int32),
        fraction=np.where(leave >= 2, 1 - at[0].along, at[0].along).astype(np.float32),
        steep=_steepness(values, hidden) if smooth else np.zeros(len(cell), np.float32),
        flags=(flags + _BENT * bent + _SHORE_ON * (bent & ~ahead)).astype(np.uint8),
        bend=bend.astype(np.int32),
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
    the boundary (13 bytes a pixel that it passes while rows arrive, about 40 at the end), not with
    the raster.

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
        self._gathered = _Gathered(width + 2)
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
        self._keep(field)
        self._above = field[-1]
        self._rows += len(rows)

    def _keep(self, field: Bytes) -> None:
        segments = _scan(field, self._rows, self._level, smooth=self._smooth)
        if len(segments.start):
            self._gathered.add(_chained(segments, self._rows))

    def finish(self) -> ContourPolygons:
        """The polygons of all rows so far, in row order of their first vertices."""
        field = np.full((2, self._width + 2), NOT_OBSERVED, np.uint8)
        field[0] = self._above
        self._keep(field)
        vertices = self._gathered.whole()
        self._gathered = _Gathered(self._width + 2)
        return _assemble(vertices, (self._rows, self._width))


# -- segments become rings -------------------------------------------------------------------------


def _chained(segments: _Segments, first_row: int) -> _Chains:
    """Segments in the order in which they lead to each other.

    Where a segment ends and none begins its chain leaves the rows; there must be as many places
    where one begins and none ends. Joined at random these make cycles of what there is, and each
    such cycle is cut again where chains begin.
    """
    order = np.argsort(segments.start)
    start, end = segments.start[order], segments.end[order]
    at = np.minimum(np.searchsorted(start, end), len(start) - 1)
    leaves = start[at] != end
    entered = np.zeros(len(start), np.bool_)
    entered[at[~leaves]] = True
    first = np.argsort(entered, kind="stable")  # chains that enter come before all others
    rank = np.empty(len(first), np.int32)
    rank[first] = np.arange(len(first), dtype=np.int32)
    following = rank[at]
    entries = int(leaves.sum())
    following[leaves] = np.arange(entries)
    walk, starts = cycles(following[first])
    begins = walk < entries
    begins[starts] = True
    offsets = np.append(np.flatnonzero(begins), len(walk)).astype(np.int32)
    walk = order[first[walk]]
    place = np.empty(len(walk), np.int32)
    place[walk] = np.arange(len(walk), dtype=np.int32)
    bend = place[segments.bend]
    sorted_bends = np.argsort(bend)
    return _Chains(
        segments=_Segments(
            start=segments.start[walk],
            end=np.empty(0, np.int32),
            fraction=segments.fraction[walk],
            steep=segments.steep[walk],
            flags=segments.flags[walk],
            bend=bend[sorted_bends],
            bend_at=segments.bend_at[sorted_bends],
        ),
        offsets=offsets,
        tail=segments.end[walk[offsets[1:] - 1]],
        first_row=first_row,
    )


class _Growing:
    """An array that grows in place: no pieces to put together at the end."""

    def __init__(self, kind: type, columns: tuple[int, ...] = ()) -> None:
        self._room: NDArray[Any] = np.empty((1024, *columns), kind)
        self._size = 0

    def add(self, rows: NDArray[Any]) -> None:
        """Append rows; whole numbers that are too large for its type make that int64."""
        if len(rows) and self._room.dtype == np.uint32 and rows.max() > np.iinfo(np.uint32).max:
            self._room = self._room.astype(np.int64)
        size = self._size + len(rows)
        if size > len(self._room):
            self._room.resize((size * 3 // 2, *self._room.shape[1:]), refcheck=False)
        self._room[self._size : size] = rows
        self._size = size

    def __len__(self) -> int:
        return self._size

    @property
    def array(self) -> NDArray[Any]:
        """What was added, not a copy."""
        return self._room[: self._size]


class _Gathered:
    """The chains of all rows so far."""

    def __init__(self, width: int) -> None:
        """Begin with none, for `width` columns of the padded raster."""
        self._width = width
        self._offsets, self._tail, self._bend = (_Growing(np.int64) for _ in range(3))
        self._bend_at = _Growing(np.float64, (2,))
        self._name, self._flags = _Growing(np.uint32), _Growing(np.uint8)
        self._fraction, self._steep = _Growing(np.float32), _Growing(np.float32)

    def add(self, chains: _Chains) -> None:
        """Take the chains of the next rows."""
        base, count = np.int64(2 * self._width * chains.first_row), np.int64(len(self._name))
        segments = chains.segments
        self._offsets.add(chains.offsets[:-1] + count)
        self._tail.add(chains.tail + base)
        self._bend.add(segments.bend + count)
        self._bend_at.add(segments.bend_at)
        self._name.add(segments.start + base)
        self._fraction.add(segments.fraction)
        self._steep.add(segments.steep)
        self._flags.add(segments.flags)

    def whole(self) -> _Vertices:
        """All of them."""
        return _Vertices(
            offsets=np.append(self._offsets.array, len(self._name)),
            tail=self._tail.array,
            name=self._name.array,
            fraction=self._fraction.array,
            steep=self._steep.array,
            flags=self._flags.array,
            bend=self._bend.array,
            bend_at=self._bend_at.array,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Vertices:
    """The vertices of all chains, one after the other; corners on the way to the next apart."""

    offsets: Ints
    """int64[chains + 1]: where each chain begins."""
    tail: Ints
    """int64[chains]: name of the vertex where each ends."""
    name: Ints
    """uint32[n] or, of the largest rasters, int64[n]"""
    fraction: NDArray[np.float32]
    steep: NDArray[np.float32]
    flags: Bytes
    bend: Ints
    """int64[k], ascending: after which vertices there is a corner."""
    bend_at: Floats
    """float64[k, 2]"""

    def position(self, index: Ints, width: int) -> Floats:
        """Column and row of vertices; pixel centres lie at halves."""
        at, upright = np.divmod(self.name[index].astype(np.int64), 2)
        row, column = np.divmod(at, width)
        xy = np.stack([column, row], axis=1) - 0.5
        xy[np.arange(len(xy)), upright] += self.fraction[index]
        return xy


@dataclass(frozen=True, slots=True, eq=False)
class _Rings:
    """Which chains make a ring, and in what order rings come."""

    walk: Ints
    """int32[chains]: chains, ring after ring."""
    starts: Ints
    """int64[rings]: where each ring begins in the walk."""
    turn: Ints
    """int64[rings]: where in the walk the chain with the ring's least name is."""
    of_chain: Ints
    """int64[chains]: the ring of each, numbered by their least names."""
    order: Ints
    """int64[rings]: the rings of the walk, by their least names."""


def _closed(vertices: _Vertices) -> _Rings:
    """Chains joined to rings."""
    head = vertices.name[vertices.offsets[:-1]].astype(np.int64)
    by_head = np.argsort(head)
    walk, starts = cycles(by_head[np.searchsorted(head[by_head], vertices.tail)].astype(np.int32))
    size = np.diff(starts, append=len(walk))
    least = _least(vertices.name, vertices.offsets)[walk]
    of_ring = _least(least, np.append(starts, len(walk)))
    order = np.argsort(of_ring)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    of_chain = np.empty(len(walk), np.int64)
    of_chain[walk] = np.repeat(number, size)
    turn = np.flatnonzero(least == np.repeat(of_ring, size))
    return _Rings(walk, starts, turn, of_chain, order)


def _least(values: Ints, offsets: Ints) -> Ints:
    """The least value of each stretch of an array; no stretch is empty."""
    least: Ints = np.minimum.reduceat(values, offsets[:-1]) if len(offsets) > 1 else values[:0]
    return least


def _assemble(vertices: _Vertices, shape: tuple[int, int]) -> ContourPolygons:
    """Polygons from the chains of a raster of `shape` (rows, columns)."""
    rings = _closed(vertices)
    level_name, level_ring = _levels(vertices, rings)
    is_shell, body = _bodies(level_ring, len(rings.order))
    order = np.lexsort((~is_shell, body))
    run_polygon = body[level_ring[::2]].astype(np.int32)
    edge, unobserved = _touched(vertices, body[rings.of_chain], int(is_shell.sum()), shape)
    line = _drawn(vertices, *_pieces(vertices, rings, order), shape[1] + 2)
    return ContourPolygons(
        shape=shape,
        vertices=line.xy,
        shore=line.shore,
        steep=line.steep,
        ring_offsets=line.offsets,
        polygon_offsets=np.append(np.flatnonzero(is_shell[order]), len(order)),
        touches_edge=edge,
        touches_unobserved=unobserved,
        _run_start=level_name[::2].copy(),
        _run_polygon=run_polygon,
    )


def _levels(vertices: _Vertices, rings: _Rings) -> tuple[Ints, Ints]:
    """Where rings cross rows of pixel centres, in row order.

    Returns:
        The name of each crossing, and its ring: int32. Along a row they take turns: water begins,
        water ends.
    """
    at = np.flatnonzero(vertices.name % 2 == 0)
    name = vertices.name[at]
    chain = np.searchsorted(vertices.offsets, at, side="right") - 1
    ring = rings.of_chain[chain].astype(np.int32)
    order = np.argsort(name)
    return name[order], ring[order]


def _bodies(level_ring: Ints, count: int) -> tuple[Bools, Ints]:
    """Which rings are shells, and the polygon, numbered by shell, that each ring bounds.

    At a shell's leftmost crossing in its topmost row water begins, at a hole's it ends. Where that
    water began is the crossing before, on another ring of the same polygon, which reaches further
    up or further to the left. So the chain of these rings ends at the shell.

    Args:
        level_ring: The ring of each crossing of the rows of pixel centres, in row order.
        count: How many rings there are.
    """
    first = np.empty(count, np.int64)
    first[level_ring[::-1]] = np.arange(len(level_ring))[::-1]  # of several the last one stays
    is_shell = first % 2 == 0
    parent = np.arange(count)
    holes = np.flatnonzero(~is_shell)
    parent[holes] = level_ring[first[holes] - 1]
    while not is_shell[parent].all():
        parent = parent[parent]
    number: Ints = np.cumsum(is_shell) - 1
    return is_shell, number[parent]


def _pieces(vertices: _Vertices, rings: _Rings, order: Ints) -> tuple[Ints, Ints, Ints]:
    """Stretches of vertices that one after the other are the rings, each from its least name on.

    Args:
        vertices: Of all chains.
        rings: Which chains make them.
        order: The rings, numbered by their least names, as they are to come.

    Returns:
        First vertex of each stretch, the one after its last, and where in these stretches each
        ring begins: int64[rings + 1].
    """
    ring = rings.order[order]
    first, size = rings.starts[ring], np.diff(rings.starts, append=len(rings.walk))[ring]
    turn = rings.turn[ring]
    split = _split(vertices, rings.walk[turn])
    begin = np.concatenate([[0], np.cumsum(size + 1)])
    owner = np.repeat(np.arange(len(ring)), size + 1)
    step = np.arange(begin[-1]) - begin[owner]
    chain = rings.walk[first[owner] + (turn[owner] - first[owner] + step) % size[owner]]
    start, stop = vertices.offsets[chain], vertices.offsets[chain + 1].copy()
    start[begin[:-1]] += split
    stop[begin[1:] - 1] = start[begin[1:] - 1] + split  # what was left out of the first one
    whole = size == 1  # there it is the first one that was shortened
    lone = begin[1:][whole] - 1
    start[lone] = vertices.offsets[chain[lone]]
    stop[lone] = start[lone] + split[whole]
    return start, stop, begin


def _split(vertices: _Vertices, chain: Ints) -> Ints:
    """How many vertices of each of these chains come before the one with its least name."""
    first, stop = vertices.offsets[chain], vertices.offsets[chain + 1]
    offsets = np.concatenate([[0], np.cumsum(stop - first)])
    name = vertices.name[_ranges(first, stop)]
    least = np.repeat(_least(name, offsets), np.diff(offsets))
    before: Ints = np.flatnonzero(name == least) - offsets[:-1]
    return before


def _ranges(start: Ints, stop: Ints) -> Ints:
    """All numbers from each start up to its stop, one range after the other."""
    size = stop - start
    first = np.concatenate([[0], np.cumsum(size)])
    numbers: Ints = np.arange(first[-1]) + np.repeat(start - first[:-1], size)
    return numbers


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """Vertices of rings, one ring after the other; an edge leaves each for the next one."""

    xy: Floats
    """float64[n, 2]: column and row."""
    shore: Bools
    """bool[n]: the edge lies between observed pixels."""
    steep: NDArray[np.float32]
    """float32[n]: stored probability per pixel across the edge."""
    offsets: Ints
    """int64[rings + 1]: where each ring begins."""


def _drawn(vertices: _Vertices, start: Ints, stop: Ints, begin: Ints, width: int) -> _Line:
    """Stretches of vertices, with the corners between them, as the lines of rings."""
    bends = (np.searchsorted(vertices.bend, at) for at in (stop, start))
    count = stop - start + np.subtract(*bends)
    place = np.concatenate([[0], np.cumsum(count)])
    line = _Line(
        xy=np.empty((place[-1], 2)),
        shore=np.empty(place[-1], np.bool_),
        steep=np.empty(place[-1], np.float32),
        offsets=place[begin],
    )
    cuts = np.unique(np.searchsorted(place, np.arange(0, place[-1] + _BLOCK, _BLOCK)))
    for low, high in pairwise(np.minimum(cuts, len(start))):
        out = slice(place[low], place[high])
        _draw(vertices, _ranges(start[low:high], stop[low:high]), width, line, out)
    return _without_straight(line)


def _draw(vertices: _Vertices, index: Ints, width: int, line: _Line, out: slice) -> None:
    """Write some vertices, and the corners that follow them, into a part of a line."""
    flags, steep = vertices.flags[index], vertices.steep[index]
    bent = (flags & _BENT) > 0
    place = np.cumsum(1 + bent) - 1 - bent
    xy, shore = line.xy[out], line.shore[out]
    xy[place] = vertices.position(index, width)
    shore[place] = (flags & _SHORE) > 0
    line.steep[out][place] = steep
    at = place[bent] + 1
    xy[at] = vertices.bend_at[np.searchsorted(vertices.bend, index[bent])]
    shore[at] = (flags[bent] & _SHORE_ON) > 0
    line.steep[out][at] = steep[bent]


def _without_straight(line: _Line) -> _Line:
    """Only vertices that matter: not those on a straight run along a row or column of edges."""
    keep = np.empty(len(line.xy), np.bool_)
    for some, before, after in ring_blocks(line.offsets):
        xy, shore, steep = line.xy[some], line.shore[some], line.steep[some]
        straight = (line.xy[before] == xy) & (xy == line.xy[after])
        alike = (line.shore[before] == shore) & (~shore | (line.steep[before] == steep))
        keep[some] = ~(straight.any(axis=1) & alike)
    offsets = np.zeros_like(line.offsets)
    if len(keep):
        offsets[1:] = np.cumsum(np.add.reduceat(keep, line.offsets[:-1], dtype=np.int64))
    xy, shore, steep = (_packed(array, keep) for array in (line.xy, line.shore, line.steep))
    return _Line(xy, shore, steep, offsets)


def _packed(array: NDArray[Any], keep: Bools) -> NDArray[Any]:
    """The rows to keep, moved to the front of the array itself, of which they are a part."""
    at = 0
    for first in range(0, len(keep), _BLOCK):
        rows = array[first : first + _BLOCK][keep[first : first + _BLOCK]]
        array[at : at + len(rows)] = rows
        at += len(rows)
    return array[:at]


def _touched(
    vertices: _Vertices, polygon: Ints, count: int, shape: tuple[int, int]
) -> tuple[Bools, Bools]:
    """Which polygons have pixels at the raster's edge, and which beside not-observed ones.

    Args:
        vertices: Of all chains.
        polygon: That of each chain.
        count: How many there are.
        shape: Rows and columns.
    """
    at = np.flatnonzero(vertices.flags & _BORDER)
    xy = vertices.position(at, shape[1] + 2)
    polygon = polygon[np.searchsorted(vertices.offsets, at, side="right") - 1]
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
        """The polygons where `keep` (bool[polygons]) is True, without `feature_of`."""
        ring = np.repeat(keep, np.diff(self.polygon_offsets))
        vertex = np.repeat(ring, np.diff(self.ring_offsets))
        return replace(
            self,
            vertices=self.vertices[vertex],
            shore=self.shore[vertex],
            steep=self.steep[vertex],
            ring_offsets=kept_offsets(self.ring_offsets, ring),
            polygon_offsets=kept_offsets(self.polygon_offsets, keep),
            touches_edge=self.touches_edge[keep],
            touches_unobserved=self.touches_unobserved[keep],
            _run_start=self._run_start[:0],
            _run_polygon=self._run_polygon[:0],
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

    @property
    def ends(self) -> Ints:
        """Where each polygon begins in `vertices`, and the end of the last one."""
        ends: Ints = self.ring_offsets[self.polygon_offsets]
        return ends

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
        world = along(transform, self.vertices[index])
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
        length = Site(transform, crs, self.shape).lengths(self.geometries())
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

"""Polygons out of a mask: exact pixel edges, no seams, memory bounded by the result.

A polygon with pixel edges is fixed by its corners. Whether a lattice point is a corner depends
only on the four pixels around it, so a mask that arrives in strips needs one carried row and
nothing else: no ring is ever cut at a strip's border, hence none has to be stitched.

    add(rows)  keep the corners in row order (a few bytes each), drop the pixels
    finish()   corners 2k and 2k + 1 of the row order bound a horizontal edge, those of the
               column order a vertical one; following the two in turn gives the rings

Where two water pixels touch at a corner only, four edges meet, and that point stands in the order
twice. Each copy joins the two edges of one water pixel, so a ring bounds one 4-connected body of
water. A ring that passes a point twice is split there, into a shell and a hole (or two holes) that
touch in a point: every geometry is valid by construction (OGC 06-103r4, 6.1.11.1) and nothing is
repaired afterwards.

With 8-connectivity the same polygons are grouped into multipolygons. Each covers the same points as
its counterpart in `rasterio.features.shapes(connectivity=8)`, which draws a single ring that passes
such points twice and is not valid there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import geopandas as gpd
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from geounet.errors import ConfigError
from geounet.ground import Site, along, geodesic_measures, pyproj_crs, scale_of
from geounet.mask import CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyproj

__all__ = [
    "PixelPolygons",
    "Polygonizer",
    "polygonize_rows",
]

Connectivity: TypeAlias = Literal[4, 8]
Bools: TypeAlias = NDArray[np.bool_]
Bytes: TypeAlias = NDArray[np.uint8]
Ints: TypeAlias = NDArray[Any]
"""Integers of 32 or 64 bits."""
Floats: TypeAlias = NDArray[np.float64]

_UNOBSERVED = (2, 255)
_CHUNK_PIXELS = 1 << 19
"""Pixels scanned at once, so that a chunk's temporaries stay in the processor's cache."""
_BLOCK = 1 << 17
"""Vertices that are worked on at once."""
_FEATURES = 20_000
"""Features of which geometries are made at once, at most."""
_VERTICES = 1 << 19
"""Vertices of which geometries are made at once, at most; a feature with more comes alone."""


# -- the mask's rows become corners ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Corners:
    """Corners of consecutive lattice rows, in row order; a checkerboard point stands twice."""

    per_row: Ints
    """int32[rows]: corners in each lattice row."""
    x: Ints
    """int32[n]: lattice column."""
    below: Bools
    """bool[n]: the pixel to the right and below is inside."""
    notch: Ints
    """int64[k]: corners (indices) that may be the top left one of a hole."""
    notch_run: Ints
    """int32[k]: lattice column where the run of inside pixels above each notch begins."""
    blank_edge: Ints
    """int64[m]: horizontal edges (corner index // 2) with a not-observed pixel across."""
    blank_x: Ints
    """int32[j]: lattice column of vertical edges with a not-observed pixel across."""
    blank_y: Ints
    """int32[j]: a pixel row that each of these vertical edges passes."""


def _scan(inside: Bytes, blank: Bytes, first_row: int) -> _Corners:
    """Find the corners between the rows of a block.

    Args:
        inside: uint8[n + 1, width + 2], 1 where the pixel has the code; row 0 repeats the row above
            the block, the outer columns are 0.
        blank: 1 where the pixel is not observed, in the same shape.
        first_row: The lattice row between rows 0 and 1.
    """
    stride = inside.shape[1] - 1
    across = inside[:-1] ^ inside[1:]
    along = inside[1:, :-1] ^ inside[1:, 1:]
    double = across[:, :-1] & across[:, 1:] & along
    point = (across[:, :-1] ^ across[:, 1:]) | double
    flat = np.flatnonzero(point.view(np.bool_))
    flat = np.repeat(flat, 1 + double.ravel()[flat])
    row = flat // stride
    pixels, above_left = inside.ravel(), flat + row
    below = pixels[above_left + stride + 2]
    notch = pixels[above_left] & pixels[above_left + 1] & pixels[above_left + stride + 1] & ~below
    at = np.flatnonzero(notch.view(np.bool_))
    edge, wall = _blank_sides(inside, blank, flat)
    return _Corners(
        per_row=np.bincount(row, minlength=len(across)).astype(np.int32),
        x=(flat - row * stride).astype(np.int32),
        below=below.view(np.bool_),
        notch=at,
        notch_run=_run_starts(inside[:-1], flat[at]),
        blank_edge=edge,
        blank_x=(wall % stride).astype(np.int32),
        blank_y=(wall // stride + first_row).astype(np.int32),
    )


def _run_starts(inside: Bytes, flat: Ints) -> Ints:
    """Column where the run of inside pixels up to each lattice point (of its row) begins."""
    stride = inside.shape[1] - 1
    starts = np.flatnonzero(inside[:, 1:] > inside[:, :-1])
    begin = starts[np.searchsorted(starts, flat) - 1] if len(flat) else flat
    run: Ints = (begin % stride).astype(np.int32)
    return run


def _blank_sides(inside: Bytes, blank: Bytes, flat: Ints) -> tuple[Ints, Ints]:
    """Edges between inside and not-observed pixels.

    Returns:
        Horizontal edges (index in `flat` // 2), and the flat lattice position of each vertical
        run's first step.
    """
    if not blank.any():
        return np.empty(0, np.int64), np.empty(0, np.int64)
    stride = inside.shape[1] - 1
    level = (inside[:-1] & blank[1:]) | (blank[:-1] & inside[1:])
    steps = np.flatnonzero(level[:, 1:].view(np.bool_))
    edge = np.unique((np.searchsorted(flat, steps, side="right") - 1) // 2)
    left, right = inside[:, :-1] & blank[:, 1:], blank[:, :-1] & inside[:, 1:]
    begin = (left[1:] & ~left[:-1]) | (right[1:] & ~right[:-1])
    return edge, np.flatnonzero(begin.view(np.bool_).reshape(-1, stride))


def _join(parts: list[_Corners]) -> _Corners:
    """One `_Corners` from those of consecutive blocks."""
    shift = np.cumsum([0, *(len(part.x) for part in parts)])

    def whole(name: str, per_corner: int = 0) -> Any:
        arrays = (getattr(part, name) for part in parts)
        if per_corner:
            arrays = (a + s // per_corner for a, s in zip(arrays, shift, strict=False))
        return np.concatenate(list(arrays))

    return _Corners(
        per_row=whole("per_row"),
        x=whole("x"),
        below=whole("below"),
        notch=whole("notch", 1),
        notch_run=whole("notch_run"),
        blank_edge=whole("blank_edge", 2),
        blank_x=whole("blank_x"),
        blank_y=whole("blank_y"),
    )


class Polygonizer:
    """Turns a mask that arrives by rows into the polygons of one class.

    The result does not depend on how the rows are cut into strips. Memory grows with the number of
    corners (about 10 bytes each while rows arrive, about 60 at the end), not with the raster.

    Example:
        >>> polygonizer = Polygonizer(3)
        >>> polygonizer.add(np.array([[1, 1, 0]], np.uint8))
        >>> polygonizer.add(np.array([[0, 1, 0]], np.uint8))
        >>> polygonizer.finish().geometries()[0].area
        3.0
    """

    def __init__(self, width: int, *, connectivity: Connectivity = 4, code: int = 1) -> None:
        """Start at the top of a mask.

        Args:
            width: Pixels in a row.
            connectivity: 4 keeps water that touches at a corner only apart, 8 joins it.
            code: The mask value whose polygons are wanted.

        Raises:
            ConfigError: If the width is not positive or the connectivity neither 4 nor 8.
        """
        if width < 1:
            raise ConfigError(f"a mask is at least one pixel wide; got width={width}.")
        if connectivity not in (4, 8):
            raise ConfigError(f"connectivity is 4 or 8; got {connectivity!r}.")
        self._width = width
        self._connectivity: Connectivity = connectivity
        self._code = code
        self._rows = 0
        self._parts: list[_Corners] = []
        self._inside_above = np.zeros(width, np.uint8)
        self._blank_above = np.zeros(width, np.uint8)

    def add(self, rows: Bytes) -> None:
        """Take the next rows.

        Args:
            rows: uint8[n, width], mask codes, top to bottom; 2 and 255 are not observed.

        Raises:
            ConfigError: If the rows have another type or width.
        """
        if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != self._width:
            raise ConfigError(
                f"rows of a mask are uint8[n, {self._width}]; got {rows.dtype}{list(rows.shape)}."
            )
        step = max(1, _CHUNK_PIXELS // self._width)
        for top in range(0, len(rows), step):
            self._add_chunk(rows[top : top + step])

    def _add_chunk(self, rows: Bytes) -> None:
        inside = np.zeros((len(rows) + 1, self._width + 2), np.uint8)
        blank = np.zeros_like(inside)
        inside[0, 1:-1], blank[0, 1:-1] = self._inside_above, self._blank_above
        inside[1:, 1:-1] = rows == self._code
        for code in _UNOBSERVED:
            if code != self._code:
                blank[1:, 1:-1] |= rows == code
        self._parts.append(_scan(inside, blank, self._rows))
        self._inside_above, self._blank_above = inside[-1, 1:-1], blank[-1, 1:-1]
        self._rows += len(rows)

    def finish(self) -> PixelPolygons:
        """The polygons of all rows so far, in row order of their top left corners."""
        inside = np.zeros((2, self._width + 2), np.uint8)
        inside[0, 1:-1] = self._inside_above
        corners = _join([*self._parts, _scan(inside, np.zeros_like(inside), self._rows)])
        self._parts = []
        return _assemble(corners, (self._rows, self._width), self._connectivity, self._code)


def polygonize_rows(
    strips: Iterable[Bytes], width: int, *, connectivity: Connectivity = 4, code: int = 1
) -> PixelPolygons:
    """Polygons of a mask given as strips of rows, top to bottom.

    Args:
        strips: Arrays uint8[n, width] of mask codes, of any heights.
        width: Pixels in a row.
        connectivity: 4 keeps water that touches at a corner only apart, 8 joins it.
        code: The mask value whose polygons are wanted.

    Raises:
        ConfigError: If a parameter or a strip's shape or type breaks its rule.
    """
    polygonizer = Polygonizer(width, connectivity=connectivity, code=code)
    for strip in strips:
        polygonizer.add(strip)
    return polygonizer.finish()


# -- corners become rings --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Rings:
    """Rings as cycles of horizontal edges; edge k lies between the corners 2k and 2k + 1."""

    walk: Ints
    """int32[edges]: the edges, ring after ring, in the order in which a ring passes them."""
    of_edge: Ints
    """int32[edges]: the ring that an edge belongs to."""
    first: Ints
    """int32[rings]: each ring's topmost, leftmost edge, with which it begins."""
    is_outer: Bools
    """bool[rings]: the ring goes round its body from outside."""


def _assemble(
    corners: _Corners, shape: tuple[int, int], connectivity: Connectivity, code: int
) -> PixelPolygons:
    """Polygons from all corners of a mask of `shape` (rows, columns)."""
    x, below = corners.x, corners.below[::2]
    y = np.repeat(np.arange(shape[0] + 1, dtype=np.int32), corners.per_row)
    double = 1 + 2 * np.flatnonzero((x[1:-1:2] == x[2::2]) & (y[1:-1:2] == y[2::2]))
    columns = _column_order(x, shape[1], double[~corners.below[double]])
    rings = _trace(columns, below)
    walls = _Walls(x, y, columns[::2], shape[0] + 1)
    body = _bodies(corners, y, rings, walls)
    feature = _join_bodies(body, rings, double) if connectivity == 8 else body
    edges, ring_offsets, is_shell = _lay_out(rings, below, double, body, feature)
    shells = np.flatnonzero(is_shell)
    feature_of_shell = feature[rings.of_edge[edges[ring_offsets[shells]]]]
    features = np.arange(int(feature.max(initial=-1)) + 2)

    def touched(edge: Ints) -> Bools:
        return np.bincount(feature[rings.of_edge[edge]], minlength=len(features) - 1) > 0

    frame = (x == 0) | (x == shape[1]) | (y == 0) | (y == shape[0])
    wall = walls.find(corners.blank_x, corners.blank_y)
    bound = frame.copy()
    bound[_pairs(corners.blank_edge)] = bound[columns[_pairs(wall)]] = True
    order = _ends(below, edges)
    return PixelPolygons(
        shape=shape,
        code=code,
        connectivity=connectivity,
        corners=np.stack([x[order], y[order]], axis=1),
        bound=bound[order],
        ring_offsets=2 * ring_offsets,
        polygon_offsets=np.append(shells, len(is_shell)),
        feature_offsets=np.searchsorted(feature_of_shell, features),
        touches_edge=touched(np.flatnonzero(frame) // 2),
        touches_unobserved=touched(np.concatenate([corners.blank_edge, columns[2 * wall] >> 1])),
    )


def _pairs(edges: Ints) -> Ints:
    """Both ends, 2k and 2k + 1, of edges k."""
    return np.concatenate([2 * edges, 2 * edges + 1])


def _column_order(x: Ints, width: int, crossed: Ints) -> Ints:
    """Corners in column order, so that entries 2k and 2k + 1 bound a vertical edge.

    The first copy of a checkerboard point ends the edge to its left. It also ends the edge above
    where the water is above left and below right; in the `crossed` ones it begins the edge below.
    """
    order = np.argsort(x.astype(np.uint16), kind="stable")  # 16 bits: numpy sorts by radix
    if width > np.iinfo(np.uint16).max:
        order = order[np.argsort((x >> 16).astype(np.uint16)[order], kind="stable")]
    swap = np.arange(len(x), dtype=np.int32)
    swap[crossed], swap[crossed + 1] = crossed + 1, crossed
    return swap[order]


def _trace(columns: Ints, below: Bools) -> _Rings:
    """Follow horizontal and vertical edges in turn, with the inside to the left of (x, y)."""
    across = np.empty(len(columns), np.int32)
    across[columns[::2]], across[columns[1::2]] = columns[1::2], columns[::2]
    walk, starts = cycles(across[2 * np.arange(len(below)) + below] >> 1)
    of_edge = np.empty_like(walk)
    lengths = np.diff(starts, append=len(walk))
    of_edge[walk] = np.repeat(np.arange(len(starts), dtype=np.int32), lengths)
    first = walk[starts]
    return _Rings(walk=walk, of_edge=of_edge, first=first, is_outer=below[first])


def cycles(successor: Ints) -> tuple[Ints, Ints]:
    """The cycles of a permutation one after the other, each from its least element, and starts.

    One pass of plain steps: list ranking by pointer doubling costs log2(longest ring) passes of
    random access over all edges and is slower.
    """
    following = memoryview(successor.copy().data)
    walk: list[int] = []
    starts: list[int] = []
    step = walk.append
    for first in range(len(successor)):
        edge = following[first]
        if edge < 0:
            continue
        starts.append(len(walk))
        step(first)
        following[first] = -1
        while edge != first:
            step(edge)
            after = following[edge]
            following[edge] = -1
            edge = after
    return np.array(walk, np.int32), np.array(starts, np.int64)


class _Walls:
    """Finds the vertical edge at a place."""

    def __init__(self, x: Ints, y: Ints, tops: Ints, rows: int) -> None:
        self._tops, self._rows = tops, rows
        self._keys = x[tops].astype(np.int64) * rows + y[tops]

    def find(self, x: Ints, y: Ints) -> Ints:
        """The vertical edge, in column order, at column x that passes pixel row y."""
        keys = x.astype(np.int64) * self._rows + y
        return np.searchsorted(self._keys, keys, side="right") - 1

    def edge(self, x: Ints, y: Ints) -> Ints:
        """A horizontal edge of the ring whose vertical edge at column x passes pixel row y."""
        return self._tops[self.find(x, y)] >> 1


def _bodies(corners: _Corners, y: Ints, rings: _Rings, walls: _Walls) -> Ints:
    """The 4-connected body, numbered by top left corner, that each ring bounds.

    Above a hole's top left corner lies a pixel of its body. The run of pixels that ends there
    begins at a wall of the same body, on a ring that reaches further up: so the chain of these
    rings ends at the outer one.
    """
    parent = np.arange(len(rings.first))
    holes = np.flatnonzero(~rings.is_outer)
    at = 2 * rings.first[holes]
    run = corners.notch_run[np.searchsorted(corners.notch, at)]
    parent[holes] = rings.of_edge[walls.edge(run, y[at] - 1)]
    while not rings.is_outer[parent].all():
        parent = parent[parent]
    number: Ints = np.cumsum(rings.is_outer) - 1
    return number[parent]


def _join_bodies(body: Ints, rings: _Rings, double: Ints) -> Ints:
    """The 8-connected feature of each ring: bodies that share a checkerboard point are one."""
    left, right = (body[rings.of_edge[(double + side) >> 1]] for side in (0, 1))
    label = np.arange(int(body.max(initial=-1)) + 1)
    while (label[left] != label[right]).any():
        least = np.minimum(label[left], label[right])
        np.minimum.at(label, label[left], least)
        np.minimum.at(label, label[right], least)
        label = label[label]
    feature: Ints = np.unique(label, return_inverse=True)[1][body]
    return feature


def _lay_out(
    rings: _Rings, below: Bools, double: Ints, body: Ints, feature: Ints
) -> tuple[Ints, Ints, Bools]:
    """Edges in final order: by feature, then body, the shell before its holes.

    Returns:
        Edges, ring offsets into them, and which rings are shells.
    """
    piece, owner, is_base = _split(rings, below, double)
    is_shell = is_base & rings.is_outer[owner]
    order = np.lexsort((~is_shell, body[owner], feature[owner]))
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    edges = rings.walk[np.argsort(rank[piece], kind="stable")]
    counts = np.bincount(rank[piece], minlength=len(order))
    return edges, np.concatenate([[0], np.cumsum(counts)]), is_shell[order]


def _split(rings: _Rings, below: Bools, double: Ints) -> tuple[Ints, Ints, Bools]:
    """Cut rings where they pass a point twice.

    What lies between the two passes is a ring of its own. These intervals nest, because a ring
    touches itself from one side only and nothing crosses in the plane. The rest, which holds the
    topmost edge, is the shell if the ring goes round its body.

    Returns:
        The piece of each entry of the walk, the ring of each piece, and whether it is the rest.
    """
    count = len(rings.first)
    ring = rings.of_edge[rings.walk]
    double = double[rings.of_edge[double >> 1] == rings.of_edge[(double + 1) >> 1]]
    place = np.empty_like(rings.walk)
    place[rings.walk] = np.arange(len(place), dtype=np.int32)
    is_end = below[double >> 1]  # both copies begin, or both end, their edge
    one, two = place[double >> 1] + is_end, place[(double + 1) >> 1] + is_end
    left, right = np.minimum(one, two), np.maximum(one, two)
    order = np.lexsort((-right, left))
    label = _innermost(left[order], right[order], len(ring))
    piece = np.where(label == 0, ring, label + (count - 1))
    owner = np.concatenate([np.arange(count), ring[left[order]]])
    return piece, owner, np.arange(len(owner)) < count


def _innermost(left: Ints, right: Ints, size: int) -> Ints:
    """The number, from 1, of the innermost of nested intervals around each position; 0 outside."""
    at, label, stack = [0], [0], [(size, 0)]
    for number, (begin, end) in enumerate(zip(left.tolist(), right.tolist(), strict=True), 1):
        while stack[-1][0] <= begin:
            at.append(stack.pop()[0])
            label.append(stack[-1][1])
        at.append(begin)
        label.append(number)
        stack.append((end, number))
    while len(stack) > 1:
        at.append(stack.pop()[0])
        label.append(stack[-1][1])
    return np.repeat(np.array(label, np.int32), np.diff(at, append=size))


def _ends(below: Bools, edges: Ints) -> Ints:
    """The corners at both ends of each edge in the direction of its ring."""
    start = 2 * edges + ~below[edges]
    return np.stack([start, start ^ 1], axis=1).ravel()


# -- polygons --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class PixelPolygons:
    """Polygons on a raster's pixel edges, in row order of their top left corners.

    A feature is one polygon with 4-connectivity, one multipolygon with 8-connectivity. Shells turn
    counter-clockwise in (x, y) = (column, row), holes clockwise.
    """

    shape: tuple[int, int]
    """Rows and columns of the mask."""
    code: int
    """The mask value inside."""
    connectivity: Connectivity
    """4 or 8."""
    corners: Ints
    """int32[n, 2]: column and row of the rings' corners, the first one not repeated; from even to
    odd index runs a horizontal edge."""
    bound: Bools
    """bool[n]: the corner lies on the raster's frame, or on an edge with an obscured or
    not-observed pixel across."""
    ring_offsets: Ints
    """int64[rings + 1]: where each ring begins in `corners`."""
    polygon_offsets: Ints
    """int64[polygons + 1]: where each polygon begins among the rings; its shell is first."""
    feature_offsets: Ints
    """int64[features + 1]: where each feature begins among the polygons."""
    touches_edge: Bools
    """bool[features]: a pixel lies in the mask's first or last row or column."""
    touches_unobserved: Bools
    """bool[features]: a pixel shares an edge with an obscured or not-observed one."""

    def __len__(self) -> int:
        """Number of features."""
        return len(self.feature_offsets) - 1

    def geometries(self, transform: Affine = Affine.identity()) -> NDArray[np.object_]:  # noqa: B008
        """Shapely geometries, valid, shells counter-clockwise, in the transform's coordinates.

        Args:
            transform: From (column, row) to coordinates; may rotate and shear.

        Returns:
            object[features] of Polygon, or of MultiPolygon with 8-connectivity.
        """
        offsets = [self.ring_offsets, self.polygon_offsets]
        if self.connectivity == 8:
            offsets.append(self.feature_offsets)
        return ragged_polygons(self.corners, offsets, transform)

    def areas(self) -> Floats:
        """Area of each feature in pixels."""
        start, end = self.corners[::2], self.corners[1::2]
        below = (start[:, 0] - end[:, 0]) * start[:, 1].astype(np.int64)  # Green's theorem
        return _sums(below, self).astype(np.float64)

    def select(self, keep: Bools) -> PixelPolygons:
        """The features where `keep` (bool[features]) is True."""
        polygon = np.repeat(keep, np.diff(self.feature_offsets))
        ring = np.repeat(polygon, np.diff(self.polygon_offsets))
        corner = np.repeat(ring, np.diff(self.ring_offsets))
        return replace(
            self,
            corners=self.corners[corner],
            bound=self.bound[corner],
            ring_offsets=kept_offsets(self.ring_offsets, ring),
            polygon_offsets=kept_offsets(self.polygon_offsets, polygon),
            feature_offsets=kept_offsets(self.feature_offsets, keep),
            touches_edge=self.touches_edge[keep],
            touches_unobserved=self.touches_unobserved[keep],
        )

    def part(self, some: slice) -> PixelPolygons:
        """The features from `some.start` up to `some.stop`, at the cost of these alone."""
        features, polygons = self.feature_offsets[some.start : some.stop + 1], self.polygon_offsets
        polygons = polygons[features[0] : features[-1] + 1]
        rings = self.ring_offsets[polygons[0] : polygons[-1] + 1]
        corners = slice(rings[0], rings[-1])
        return replace(
            self,
            corners=self.corners[corners],
            bound=self.bound[corners],
            ring_offsets=rings - rings[0],
            polygon_offsets=polygons - polygons[0],
            feature_offsets=features - features[0],
            touches_edge=self.touches_edge[some],
            touches_unobserved=self.touches_unobserved[some],
        )

    @property
    def ends(self) -> Ints:
        """Where each feature begins in `corners`, and the end of the last one."""
        ends: Ints = self.ring_offsets[self.polygon_offsets[self.feature_offsets]]
        return ends

    def bound_points(self) -> Floats:
        """Corners that are no shore: float64[k, 2], column and row."""
        return self.corners[self.bound].astype(np.float64)

    def feature_of(self, x: Ints, y: Ints) -> Ints:
        """The feature of the run of pixels in row y that begins at column x."""
        following = ring_index(self.ring_offsets, 1)[1::2]
        tops = np.minimum(self.corners[1::2, 1], self.corners[following, 1]).astype(np.int64)
        keys = self.corners[1::2, 0] * np.int64(self.shape[0] + 1) + tops
        order = np.argsort(keys)
        wall = np.searchsorted(keys[order], x * np.int64(self.shape[0] + 1) + y, side="right") - 1
        rings = self.polygon_offsets[self.feature_offsets]
        feature = np.repeat(np.arange(len(self)), np.diff(self.ring_offsets[rings] // 2))
        return feature[order[wall]]

    def measure(self, transform: Affine, crs: pyproj.CRS | None) -> tuple[Floats, Floats]:
        """Area in m² and perimeter in m of each feature; see `to_frame`."""
        scale = scale_of(Site(transform, crs, self.shape))
        if scale is None:
            return geodesic_measures(self.geometries(transform), cast("pyproj.CRS", crs))
        start, end, row, first, below = _edges(self)
        # measured from the feature's first row, so that small features keep all their digits
        areas = scale.areas(start, end, row, row[first])
        lengths = scale.widths(start, end, row) + scale.heights(end, row, row[below])
        return _sums(areas, self), _sums(lengths, self)

    def to_frame(
        self, transform: Affine, crs: object = None, *, min_area: float = 0.0
    ) -> gpd.GeoDataFrame:
        """A table of the polygons with their attributes.

        Args:
            transform: From (column, row) to coordinates of the CRS; may rotate and shear.
            crs: Anything that pyproj understands, a rasterio CRS, or None.
            min_area: Features smaller than this many square metres are left out. It looks at
                whole features, holes taken off.

        Returns:
            A frame with the columns

            - `class`: "water" for code 1;
            - `area_m2`, `perimeter_m`: on the CRS's ellipsoid, holes taken off and counted in
              respectively. Both are those of the polygon whose edges are straight in the CRS, and
              right in every CRS, Web Mercator and geographic ones too. Of a raster that reaches
              beyond its CRS's domain, edges are geodesics instead, and what touches a point
              without longitude and latitude has no area (NaN). Without a CRS, or with one
              that has no ellipsoid, in squared and plain units of the coordinates (of metres if
              the CRS gives the unit);
            - `touches_edge`, `touches_unobserved`: see the fields;
            - `geometry`: Polygon, or MultiPolygon with 8-connectivity.

        Raises:
            ConfigError: If `min_area` is negative or not finite.
        """
        if not (min_area >= 0 and np.isfinite(min_area)):
            raise ConfigError(f"the minimum area is a number of m², 0 or more; got {min_area!r}.")
        known = pyproj_crs(crs)
        area, perimeter = self.measure(transform, known)
        keep = ~(area < min_area)  # an area that cannot be known is no reason to drop water
        kept = self if keep.all() else self.select(keep)
        columns = {
            "class": np.full(len(kept), CLASSES.get(self.code, f"code {self.code}")),
            "area_m2": area[keep],
            "perimeter_m": perimeter[keep],
            "touches_edge": kept.touches_edge,
            "touches_unobserved": kept.touches_unobserved,
        }
        return gpd.GeoDataFrame(columns, geometry=kept.geometries(transform), crs=known)


def _edges(polygons: PixelPolygons) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Horizontal edges: columns of both ends, row, the feature's first edge, the ring's next."""
    corners, rings = polygons.corners, polygons.ring_offsets // 2
    start, end, row = corners[::2, 0], corners[1::2, 0], corners[::2, 1]
    features = rings[polygons.polygon_offsets[polygons.feature_offsets]]
    first = np.repeat(features[:-1], np.diff(features))
    following = np.arange(1, len(row) + 1)
    following[rings[1:] - 1] = rings[:-1]
    return start, end, row, first, following


def _sums(per_edge: NDArray[Any], polygons: PixelPolygons) -> NDArray[Any]:
    """Sum of a quantity of the horizontal edges over each feature."""
    rings = polygons.polygon_offsets[polygons.feature_offsets[:-1]]
    return np.add.reduceat(per_edge, polygons.ring_offsets[rings] // 2)


def coverage(parts: Sequence[PixelPolygons]) -> list[NDArray[np.object_]]:
    """Geometries in pixels of several codes' polygons, which share their vertices.

    Where three codes meet, the one whose edge goes straight on has no corner. It gets a vertex
    there, so that neighbours are the same point for point, and stay so when they are changed.

    Args:
        parts: 4-connected polygons of one raster.

    Returns:
        Of each part object[features].
    """
    rows, columns = parts[0].shape
    xy = np.concatenate([part.corners for part in parts]).astype(np.int64)
    along = np.unique(xy[:, 1] * (columns + 1) + xy[:, 0])
    down = np.unique(xy[:, 0] * (rows + 1) + xy[:, 1])
    points = np.concatenate(
        [
            np.stack(np.divmod(along, columns + 1)[::-1], axis=1),
            np.stack(np.divmod(down, rows + 1), axis=1),
        ]
    )
    keys = np.concatenate([along, down + (rows + 1) * (columns + 1)])
    return [_with_vertices(part, keys, points) for part in parts]


def _with_vertices(part: PixelPolygons, keys: Ints, points: Ints) -> NDArray[np.object_]:
    """Geometries with the points that lie on their edges.

    Args:
        part: The polygons.
        keys: int64[n], ascending: the points in row order, then, further up, in column order.
        points: int64[n, 2]: column and row of each.
    """
    rows, columns = part.shape
    x, y = part.corners.astype(np.int64).T
    after = ring_index(part.ring_offsets, 1)
    level = np.arange(len(x)) % 2 == 0
    own = np.where(level, y * (columns + 1) + x, (rows + 1) * (columns + 1 + x) + y)
    end = np.where(level, y * (columns + 1) + x[after], (rows + 1) * (columns + 1 + x) + y[after])
    low = np.searchsorted(keys, np.minimum(own, end), side="right")
    high = np.searchsorted(keys, np.maximum(own, end))
    first = np.concatenate([[0], np.cumsum(1 + high - low)])
    step = np.arange(first[-1]) - np.repeat(first[:-1], 1 + high - low)
    start, sign = np.where(end > own, low - 1, high), np.where(end > own, 1, -1)
    xy = points[np.repeat(start, 1 + high - low) + step * np.repeat(sign, 1 + high - low)]
    offsets = [first[part.ring_offsets], part.polygon_offsets]
    return ragged_polygons(xy, offsets, Affine.identity())


def ragged_polygons(
    xy: Ints | Floats, offsets: list[Ints], transform: Affine
) -> NDArray[np.object_]:
    """Shapely polygons, or multipolygons, from rings whose first vertex is not repeated.

    Args:
        xy: [n, 2], column and row; shells turn counter-clockwise.
        offsets: Of rings in `xy`, of polygons in rings and, for multipolygons, of these.
        transform: From (column, row) to coordinates; where it mirrors, rings are turned round.
    """
    start, end = offsets[0][:-1], offsets[0][1:]
    lengths = end - start + 1
    closed = np.concatenate([[0], np.cumsum(lengths)])
    index = np.arange(closed[-1]) - np.repeat(np.arange(len(lengths)), lengths)
    if transform.determinant < 0:
        index = np.repeat(start + end, lengths) - index
        index[closed[:-1]] = start
    else:
        index[closed[1:] - 1] = start
    world = along(transform, xy[index])
    kind = shapely.GeometryType.MULTIPOLYGON if offsets[2:] else shapely.GeometryType.POLYGON
    made: NDArray[np.object_] = shapely.from_ragged_array(kind, world, [closed, *offsets[1:]])
    return made


def stretches(ends: Ints, *, whole: bool = False) -> Iterator[slice]:
    """Some thousand features after the other, or all of them; one empty stretch if there are none.

    Args:
        ends: Where each feature begins among all vertices, and the end of the last one.
        whole: Whether all must stay together.
    """
    count, first = len(ends) - 1, 0
    if whole or not count:
        yield slice(0, count)
        return
    while first < count:
        stop = int(np.searchsorted(ends, ends[first] + _VERTICES, side="right")) - 1
        stop = min(max(stop, first + 1), first + _FEATURES, count)
        yield slice(first, stop)
        first = stop


def signed_areas(xy: Floats, offsets: Ints) -> Floats:
    """Area of each ring, positive where it turns counter-clockwise.

    Args:
        xy: float64[n, 2], the rings' vertices, the first one not repeated.
        offsets: int64[rings + 1], where each ring begins.
    """
    twice = np.zeros(len(offsets) - 1)
    for some, _, after in ring_blocks(offsets):
        low, high = np.searchsorted(offsets, (some.start, some.stop - 1), side="right")
        begins = np.maximum(offsets[low - 1 : high], some.start) - some.start
        size = np.diff(begins, append=some.stop - some.start)
        origin = np.repeat(xy[offsets[low - 1 : high]], size, axis=0)
        product = cross(xy[some] - origin, xy[after] - origin)
        twice[low - 1 : high] += np.add.reduceat(product, begins)
    return twice / 2


def ring_blocks(offsets: Ints) -> Iterator[tuple[slice, Ints, Ints]]:
    """Some vertices of rings at a time, and for each of them the ones before and after it."""
    for start in range(0, int(offsets[-1]), _BLOCK):
        stop = min(start + _BLOCK, int(offsets[-1]))
        before, after = np.arange(start - 1, stop - 1), np.arange(start + 1, stop + 1)
        low, high = np.searchsorted(offsets, (start, stop))  # of rings that begin here
        before[offsets[low:high] - start] = offsets[low + 1 : high + 1] - 1
        low, high = np.searchsorted(offsets, (start, stop), side="right")  # of those that end here
        after[offsets[low:high] - 1 - start] = offsets[low - 1 : high - 1]
        yield slice(start, stop), before, after


def cross(one: Floats, two: Floats) -> Floats:
    """Cross product of vectors in the plane: float64[n] of float64[n, 2] each."""
    product: Floats = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]
    return product


def kept_offsets(offsets: Ints, keep: Bools) -> Ints:
    return np.concatenate([[0], np.cumsum(np.diff(offsets)[keep])])


def ring_index(offsets: Ints, step: int) -> Ints:
    """For each vertex of rings the one `step` further along its ring.

    Args:
        offsets: int64[rings + 1], where each ring begins.
        step: 1 for the next vertex, -1 for the one before.
    """
    index = np.arange(offsets[-1]) + step
    if step > 0:
        index[offsets[1:] - 1] = offsets[:-1]
    else:
        index[offsets[:-1]] = offsets[1:] - 1
    return index

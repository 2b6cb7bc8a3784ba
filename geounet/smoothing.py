"""Smooth polygons whose topology stays as it was: corners are cut, and cut again.

Each round replaces a corner p by two points, on the way to the corners before and after it:

        ..p..            The first round goes half way: the midpoints of regular steps lie on the
      ..     ..          straight line that they stand for. The next ones go a quarter of the way
     a---------b         (Chaikin 1974), so that what is left of the corner becomes a curve.

A cut is made only where no other vertex lies in the triangle a p b. Then nothing can cross the new
edge: an edge that came in through it would have to end inside, as both sides are edges themselves.
So all cuts can be made at once, and geometries stay valid, rings as many and nested as they were.

A cut depends on a corner and its two neighbours only, in no order. Polygons that share a run of
vertices share its smoothed form; a vertex where more than two edges meet stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import shapely
from numpy.typing import NDArray

from geounet.vectors import cross, ring_index, signed_areas

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["smoothed"]

Bools: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[Any]
"""Integers of 32 or 64 bits."""
Floats: TypeAlias = NDArray[np.float64]
Geometries: TypeAlias = NDArray[np.object_]

_ROUNDS = ((1 / 2, 1 / 2), (1 / 4, 1 / 4), (1 / 4, 1 / 4))
"""Of each round how far it goes along edges, and its part of the distance that edges may move."""
_MOST_AREA = (0.03, 0.01, 0.01)
"""Part of a ring's area that each round may take or add."""
_LEAST_TURN = np.sin(np.radians(4))
"""Corners that turn less are smooth enough."""
_CHUNK = 1 << 18
"""Corners looked at at once."""


def smoothed(geometries: Geometries, fixed: Floats, distance: float) -> Geometries:
    """Polygons with their corners cut, valid if they were, and with as many rings.

    No edge moves further than `distance`, and no ring's area changes by more than 5%, so that
    polygons of a few pixels keep their size.

    Args:
        geometries: Polygons or multipolygons, object[n].
        fixed: float64[k, 2], vertices that stay where they are.
        distance: In the coordinates' units.
    """
    if not len(geometries):
        return geometries
    kind, xy, offsets = shapely.to_ragged_array(geometries)
    last = np.zeros(len(xy), np.bool_)
    last[offsets[0][1:] - 1] = True  # repeats its ring's first
    rings = _Rings(xy[~last], offsets[0] - np.arange(len(offsets[0])))
    free = _free(rings, fixed)
    for (share, part), area in zip(_ROUNDS, _MOST_AREA, strict=True):
        rings, free = _cut(rings, free, share, part * distance, area)
    closed, ends = rings.closed()
    result: Geometries = shapely.from_ragged_array(kind, closed, [ends, *offsets[1:]])
    return result


@dataclass(frozen=True, slots=True, eq=False)
class _Rings:
    """Vertices of rings, one ring after the other, the first one not repeated."""

    xy: Floats
    """float64[n, 2]"""
    offsets: Ints
    """int64[rings + 1]"""

    def beside(self) -> tuple[Ints, Ints]:
        """The vertices before and after each."""
        return ring_index(self.offsets, -1), ring_index(self.offsets, 1)

    def closed(self) -> tuple[Floats, Ints]:
        """With each ring's first vertex repeated at its end."""
        index = np.insert(np.arange(len(self.xy)), self.offsets[1:], self.offsets[:-1])
        return self.xy[index], self.offsets + np.arange(len(self.offsets))

    def sums(self, values: Floats) -> Floats:
        """Sum of a quantity of the vertices over each ring."""
        return np.add.reduceat(values, self.offsets[:-1])

    def areas(self) -> Floats:
        """Signed area of each ring."""
        return signed_areas(self.xy, self.offsets)


def _free(rings: _Rings, fixed: Floats) -> Bools:
    """Which vertices may be cut: not the fixed ones, nor those where more than two edges meet."""
    points, number = np.unique(_as_complex(rings.xy), return_inverse=True)
    ends = np.sort(np.stack([number[index] for index in rings.beside()], axis=1), axis=1)
    first = np.zeros((len(points), 2), number.dtype)
    first[number] = ends  # of one of the rings that pass the point
    node = np.zeros(len(points), np.bool_)
    node[number[(ends != first[number]).any(axis=1)]] = True
    stays = node | np.isin(points, _as_complex(fixed))
    free: Bools = ~stays[number]
    return free


def _as_complex(xy: Floats) -> NDArray[np.complex128]:
    return np.ascontiguousarray(xy, np.float64).view(np.complex128).ravel()


def _cut(
    rings: _Rings, free: Bools, share: float, distance: float, most_area: float
) -> tuple[_Rings, Bools]:
    """One round: the new rings, and which of their vertices are free.

    Args:
        rings: The old ones.
        free: bool[n], which vertices may be cut.
        share: How far cuts go along the edges to the next vertices.
        distance: Between a corner and its cut at most.
        most_area: Part of a ring's area that the cuts may change.
    """
    before, after = rings.beside()
    legs = rings.xy[before] - rings.xy, rings.xy[after] - rings.xy
    depth, turn = _depth_and_turn(*legs)
    cut = free & (turn > _LEAST_TURN)
    with np.errstate(divide="ignore"):
        part = np.where(cut, np.minimum(share, distance / depth), 0.0)
    part[_occupied(rings.xy, legs, part)] = 0  # shorter cuts will have less in them, never more
    return _replaced(rings, _with_areas_kept(rings, legs, part, most_area), free)


def _depth_and_turn(before: Floats, after: Floats) -> tuple[Floats, Floats]:
    """Distance of each corner from the line between its neighbours, and the sine of its turn.

    A corner that turns back by more than a right angle has 1.
    """
    twice = np.abs(cross(before, after))
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    sine = np.where((before * after).sum(axis=1) > 0, 1.0, twice / lengths)
    return twice / np.maximum(np.linalg.norm(after - before, axis=1), 1e-300), sine


def _with_areas_kept(
    rings: _Rings, legs: tuple[Floats, Floats], part: Floats, most_area: float
) -> Floats:
    """The cuts, shortened until each ring's area changes by `most_area` of it at most.

    What cuts take and what they add balances in most rings. Shortening another ring's cuts, which
    its neighbours share, can spoil a ring's balance: it is then held to what its cuts take and add
    together. That shrinks with every cut, so that no ring is shortened for it twice.
    """
    room = most_area * np.abs(rings.areas())
    limit = room * (1 + 1e-9)  # rounding is not worth another round
    moved = cross(legs[1], legs[0]) / 2
    change = np.abs(rings.sums(part**2 * moved))
    while (over := change > limit).any():
        shorter = np.ones(len(room))
        shorter[over] = np.sqrt(room[over] / change[over])
        part = part * _least_of_each(rings, shorter)
        balance, together = part**2 * moved, part**2 * np.abs(moved)
        change = np.where(np.abs(rings.sums(balance)) > limit, rings.sums(together), 0)
    return part


def _least_of_each(rings: _Rings, of_ring: Floats) -> Floats:
    """A ring's value at its vertices; the least one where rings share a vertex."""
    values = np.repeat(of_ring, np.diff(rings.offsets))
    if (values == 1).all():
        return values
    points, number = np.unique(_as_complex(rings.xy), return_inverse=True)
    least = np.ones(len(points))
    np.minimum.at(least, number, values)
    shared: Floats = least[number]
    return shared


def _replaced(rings: _Rings, part: Floats, free: Bools) -> tuple[_Rings, Bools]:
    """Rings with corners replaced by their cuts' ends; two ends that meet become one."""
    before, after = rings.beside()
    two = (part > 0) & ~((part == 0.5) & (part[after] == 0.5))
    first = np.concatenate([[0], np.cumsum(1 + two)])
    xy = np.empty((first[-1], 2))
    xy[first[:-1]] = _towards(rings.xy, rings.xy[before], part)
    xy[first[:-1][two] + 1] = _towards(rings.xy[two], rings.xy[after[two]], part[two])
    return _Rings(xy, first[rings.offsets]), np.repeat(free, 1 + two)


def _towards(start: Floats, end: Floats, part: Floats) -> Floats:
    """Points a part of the way; half way they are the same from both sides, to the last bit."""
    some = part[:, None]
    return np.where(some == 0.5, (start + end) / 2, start + some * (end - start))


# -- what lies in the triangles --------------------------------------------------------------------


def _occupied(xy: Floats, legs: tuple[Floats, Floats], part: Floats) -> Ints:
    """The corners whose triangle holds another vertex.

    Vertices are sorted by cells of a square grid, row by row: those near a triangle are a stretch
    of the order for each row of cells that it touches.
    """
    at = np.flatnonzero(part)
    if not len(at):
        return at
    cells = _Cells.of(xy, float(np.median(np.abs(legs[0][at]).max(axis=1))))
    found = []
    for some in (at[i : i + _CHUNK] for i in range(0, len(at), _CHUNK)):
        sides = [part[some, None] * leg[some] for leg in legs]
        for owner, vertex in cells.near(xy[some], *sides):
            point = xy[vertex] - xy[some][owner]
            inside = _within(point, *(side[owner] for side in sides))
            inside &= point.any(axis=1)  # the corner itself, also as its neighbour has it
            found.append(some[owner[inside]])
    return np.concatenate(found)


def _within(point: Floats, one: Floats, two: Floats) -> Bools:
    """Whether points lie in the closed triangles between the origin, `one` and `two`."""
    whole = cross(one, two)
    with np.errstate(divide="ignore", invalid="ignore"):
        along, across = cross(point, two) / whole, cross(one, point) / whole
    slack = 1e-9
    inside: Bools = (along >= -slack) & (across >= -slack) & (along + across <= 1 + slack)
    return inside


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """Points sorted by the cells of a square grid."""

    origin: Floats
    size: float
    columns: int
    keys: Ints
    """int64[n]: the points' cells, ascending."""
    order: Ints
    """int64[n]: the points in this order."""

    @classmethod
    def of(cls, xy: Floats, size: float) -> _Cells:
        low, high = xy.min(axis=0), xy.max(axis=0)
        size = max(size, float((high - low).max()) / 2**24)
        column, row = np.floor((xy - low) / size).astype(np.int64).T
        columns = int(column.max()) + 1
        keys = row * columns + column
        order = np.argsort(keys, kind="stable")
        return cls(low, size, columns, keys[order], order)

    def near(self, apex: Floats, one: Floats, two: Floats) -> Iterator[tuple[Ints, Ints]]:
        """Pairs of a triangle and a point in a cell that the triangle's box touches.

        Args:
            apex: A corner of each, float64[n, 2].
            one: From there to the second corner.
            two: From there to the third.
        """
        low = apex + np.minimum(np.minimum(one, two), 0) - self.origin
        high = apex + np.maximum(np.maximum(one, two), 0) - self.origin
        left, top = np.maximum(np.floor(low / self.size).astype(np.int64), 0).T
        right, bottom = np.floor(high / self.size).astype(np.int64).T
        right = np.minimum(right, self.columns - 1)
        for step in range(int((bottom - top).max()) + 1):
            some = np.flatnonzero(top + step <= bottom)
            row = (top[some] + step) * self.columns
            start = np.searchsorted(self.keys, row + left[some])
            count = np.searchsorted(self.keys, row + right[some], side="right") - start
            pair = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            yield np.repeat(some, count), self.order[np.repeat(start, count) + pair]

"""Labelled scenes as the sampler wants them, and which of them belong together.

Windows are read from the files, or from memory where a scene is held there.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from rasterio.warp import transform_bounds

from geounet.errors import ConfigError
from geounet.labels import UNKNOWN, outline
from geounet.tiling import Window
from geounet.training.dataset import MemorySource, cells_by_set

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from geounet.labels import Labels
    from geounet.model import Inputs
    from geounet.scene import Grid, Scene

__all__ = ["SceneSource", "Survey", "keep_back", "sites_of", "survey"]

_LEAST = 1e-4
"""Least reflectance of an observed pixel; 0 says that a band is missing."""
_BLOCK = 256


class SceneSource:
    """A scene's reflectance and labels for the sampler (`dataset.PixelSource`).

    With a margin it is larger than the scene by so much on each side, where the scene is mirrored
    and nothing is labelled; beyond that it is 0.

    Args:
        scene: the scene.
        inputs: which of its bands fill the model's.
        labels: its labels.
        area: which part of the scene; None for all of it.
        margin: pixels mirrored on each side.
    """

    def __init__(
        self,
        scene: Scene,
        inputs: Inputs,
        labels: Labels,
        *,
        area: Window | None = None,
        margin: int = 0,
    ) -> None:
        self._scene, self._inputs, self._labels = scene, inputs, labels
        self.area = area or Window(0, 0, *scene.grid.shape)
        self.margin = margin
        self._held: tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.uint8]] | None = None
        column = (-1, 1, 1)
        self._gain = np.array(inputs.gain, np.float32).reshape(column)
        self._bias = np.array(inputs.bias, np.float32).reshape(column)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, margins included."""
        return self.area.height + 2 * self.margin, self.area.width + 2 * self.margin

    @property
    def bands(self) -> int:
        """The model's."""
        return len(self._inputs.take)

    @property
    def bytes(self) -> int:
        """What `hold` takes."""
        width = len(self._inputs.read) * np.dtype(self._scene.dtype).itemsize + 2
        return self.area.height * self.area.width * width

    def hold(self) -> None:
        """Keep the scene in memory, as stored, instead of reading each window."""
        self._held = self._stored(Window(0, 0, self.area.height, self.area.width))

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Reflectance float32 [bands, height, width] and allowed sets uint8 [height, width]."""
        rows = _Places.of(row - self.margin, height, self.area.height, self.margin)
        cols = _Places.of(col - self.margin, width, self.area.width, self.margin)
        window = Window(rows.start, cols.start, rows.count, cols.count)
        dn, valid, labels = (_pick(array, rows, cols) for array in self._stored(window))
        inside = valid & rows.inside[:, None] & cols.inside
        known = inside & rows.own[:, None] & cols.own & (labels != UNKNOWN)
        allowed = np.where(known, 1 << np.minimum(labels, 7), 0).astype(np.uint8)
        pixels = dn[list(self._inputs.take)].astype(np.float32)
        if np.issubdtype(dn.dtype, np.floating):
            np.nan_to_num(pixels, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        pixels *= self._gain
        pixels += self._bias
        np.maximum(pixels, _LEAST, out=pixels)
        pixels *= inside & (self._gain != 0)
        return torch.from_numpy(pixels), torch.from_numpy(allowed)

    def _stored(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.uint8]]:
        """Numbers as stored, what was observed, and labels, of a window of the area."""
        if self._held:
            dn, valid, labels = self._held
            down = slice(window.row, window.row + window.height)
            across = slice(window.col, window.col + window.width)
            return dn[:, down, across], valid[down, across], labels[down, across]
        there = Window(
            self.area.row + window.row, self.area.col + window.col, window.height, window.width
        )
        with self._scene.open() as reader:
            tile = reader.read(there, self._inputs.read)
        return tile.dn, tile.valid, self._labels.read(there)


def _pick(array: NDArray[Any], rows: _Places, cols: _Places) -> NDArray[Any]:
    """The window's pixels, mirrored ones included, of those that were read for it."""
    if rows.plain and cols.plain:
        return array
    return array.take(rows.index, -2).take(cols.index, -1)


@dataclass(frozen=True, eq=False)
class _Places:
    """Where the pixels of a window come from along one axis."""

    start: int
    """First pixel to read."""
    count: int
    """Pixels to read."""
    index: NDArray[np.intp]
    """For each pixel of the window its place among those read."""
    inside: NDArray[np.bool_]
    """Whether it lies in the scene or its mirrored margin."""
    own: NDArray[np.bool_]
    """Whether it lies in the scene."""

    @property
    def plain(self) -> bool:
        """Whether the window is what was read, pixel by pixel."""
        return self.count == len(self.index) and bool(self.own.all())

    @classmethod
    def of(cls, start: int, size: int, extent: int, margin: int) -> _Places:
        at = np.arange(start, start + size)
        own = (at >= 0) & (at < extent)
        inside = (at >= -margin) & (at < extent + margin)
        period = max(2 * (extent - 1), 1)
        folded = np.where(inside, at, np.clip(at, 0, extent - 1)) % period
        folded = np.minimum(folded, period - folded) if extent > 1 else np.zeros_like(at)
        first = int(folded.min())
        return cls(first, int(folded.max()) - first + 1, folded - first, inside, own)


@dataclass(frozen=True, eq=False)
class Survey:
    """What one pass over a scene finds."""

    counts: NDArray[np.int64]
    """Observed pixels of each class."""
    anchors: dict[int, Tensor]
    """Cells that hold each class, for the sampler."""
    moments: NDArray[np.float64]
    """Mean and mean square of each band's log reflectance [2, bands]; NaN where missing."""


def survey(source: SceneSource, classes: int, floor: float) -> Survey:
    """Look at all of a scene once, some rows at a time.

    Args:
        source: the scene.
        classes: number of classes.
        floor: least reflectance whose logarithm is taken.
    """
    counts = np.zeros(classes, np.int64)
    anchors: dict[int, list[Tensor]] = {}
    sums, count = np.zeros((2, source.bands)), 0
    missing = np.ones(source.bands, np.bool_)
    for row in range(0, source.shape[0], _BLOCK):
        pixels, allowed = source.read(row, 0, _BLOCK, source.shape[1])
        seen = (pixels != 0).any(0)
        counts += np.array([int((allowed == 1 << k).sum()) for k in range(classes)])
        for value, cells in cells_by_set(MemorySource(pixels[:0], allowed)).items():
            anchors.setdefault(value, []).append(cells + torch.tensor([row, 0]))
        log = pixels[:, ::4, ::4][:, seen[::4, ::4]].clamp(min=floor).log().double().numpy()
        sums += log.sum(1), (log**2).sum(1)
        count += log.shape[1]
        missing &= np.isclose(log, np.log(floor), atol=1e-6).all(1)
    moments = np.where(missing, np.nan, sums / max(count, 1))
    return Survey(counts, {k: torch.cat(v) for k, v in anchors.items()}, moments)


def sites_of(scenes: Sequence[Scene], pattern: str = "") -> tuple[str, ...]:
    """Name the site of each scene, so that no place is both learned and judged.

    Args:
        scenes: the scenes.
        pattern: regular expression whose first group (or whole) is the site's name; without one,
            georeferenced scenes within about 1 km of each other are one site, and every other
            scene is one of its own.

    Raises:
        ConfigError: the pattern is none, or a scene's name does not match it.
    """
    if pattern:
        return tuple(_named_site(scene.stem, pattern) for scene in scenes)
    boxes = [_footprint(scene.grid) for scene in scenes]
    site = list(range(len(scenes)))
    for i, box in enumerate(boxes):
        for j, other in enumerate(boxes[:i]):
            if box and other and site[i] != site[j] and _meet(box, other):
                site = [site[j] if s == site[i] else s for s in site]
    return tuple(scenes[s].stem for s in site)


def _named_site(name: str, pattern: str) -> str:
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise ConfigError(f"site_pattern must be a regular expression: {error}.") from error
    if match is None:
        raise ConfigError(f"site_pattern {pattern!r} must fit every scene; {name} does not.")
    return match[1] if match.re.groups else match[0]


_Box: TypeAlias = tuple[float, float, float, float]
"""West and width, south and north, in degrees."""


def _footprint(grid: Grid) -> _Box | None:
    """Where a scene lies, with about half a kilometre around; None without a CRS."""
    if grid.crs is None:
        return None
    x, y = outline(grid).T
    west, south, east, north = transform_bounds(
        grid.crs, "EPSG:4326", x.min(), y.min(), x.max(), y.max()
    )
    up = 0.0045
    across = up / max(np.cos(np.radians((south + north) / 2)), 0.01)
    width = east - west if east >= west else east - west + 360  # across the antimeridian
    return west - across, width + 2 * across, south - up, north + up


def _meet(one: _Box, other: _Box) -> bool:
    """Whether two boxes overlap on the globe."""
    beside = (other[0] - one[0]) % 360 > one[1] and (one[0] - other[0]) % 360 > other[1]
    return not beside and one[2] <= other[3] and other[2] <= one[3]


def keep_back(
    sites: Sequence[str], share: float, seed: int, fold: tuple[int, int] | None = None
) -> frozenset[str]:
    """Choose the sites to validate on: at least one, and never all.

    Args:
        sites: the site of each scene.
        share: how many of them, 0 to 1; 0 for none.
        seed: chooses which.
        fold: number from 1 and count of folds, instead of a share.

    Raises:
        ConfigError: there are more folds than sites.
    """
    names = sorted(set(sites))
    random.Random(seed).shuffle(names)  # noqa: S311 - a split, no secret
    if fold is not None:
        number, count = fold
        if count > len(names):
            raise ConfigError(
                f"folds are made of whole sites; there are {len(names)} for {count} folds."
            )
        return frozenset(names[number - 1 :: count])
    if share == 0 or len(names) < 2:
        return frozenset()
    return frozenset(names[: min(max(round(share * len(names)), 1), len(names) - 1)])

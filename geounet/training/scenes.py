"""Scenes with their labels, found in folders and read window by window.

Labels are rasters beside the scenes, or polygons that are burned onto the scene's grid as windows
are read. Either way a label is the index of its class, or `UNKNOWN`.
"""

from __future__ import annotations

import random
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import geopandas
import numpy as np
import rasterio
import shapely
import torch
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.features import rasterize
from rasterio.warp import transform_bounds
from rasterio.windows import Window as RasterWindow

from geounet.errors import ConfigError, GeounetWarning, SceneError
from geounet.scene import Grid, Scene, open_scene
from geounet.tiling import Window
from geounet.training.dataset import MemorySource, cells_by_set
from geounet.training.losses import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from geounet.model import Inputs

__all__ = [
    "LabelRules",
    "Labels",
    "Pair",
    "PolygonLabels",
    "RasterLabels",
    "SceneSource",
    "Survey",
    "find_pairs",
    "keep_back",
    "open_labels",
    "sites_of",
    "survey",
]

_SCENES = (".tif", ".tiff", ".vrt", ".jp2")
_POLYGONS = (".gpkg", ".geojson", ".fgb", ".parquet", ".shp")
_LEAST = 1e-4
"""Least reflectance of an observed pixel; 0 says that a band is missing."""
_BLOCK = 256


@dataclass(frozen=True)
class LabelRules:
    """What labels mean."""

    classes: tuple[str, ...] = ("land", "water")
    """Classes in order; a label becomes the index of its class."""
    values: Mapping[str, Sequence[int]] | None = None
    """Values that stand for each class; None for its index."""
    ignored: tuple[int, ...] = (UNKNOWN,)
    """Values of rasters that mean "unknown"."""
    outside: str = "auto"
    """What lies outside all polygons: ``land``, ``unknown``, or ``auto``, which is unknown if some
    polygon is land, else land."""

    def of(self, name: str) -> tuple[int, ...]:
        """Values that stand for a class."""
        if self.values is None:
            return (self.classes.index(name),)
        return tuple(self.values.get(name, ()))


@dataclass(frozen=True)
class Pair:
    """A scene and the file that holds its labels."""

    scene: Scene
    label: Path

    @property
    def name(self) -> str:
        """The scene's."""
        return self.scene.stem


def find_pairs(
    folders: Sequence[Path], *, scale: float | None = None, offset: float | None = None
) -> tuple[Pair, ...]:
    """Find the labelled scenes of some folders, by name.

    Args:
        folders: where ``NAME.tif`` and ``NAME.label.tif`` (or polygons ``NAME.gpkg``) lie.
        scale: reflectance per stored number; None takes the files' word.
        offset: reflectance at stored number 0; None takes the files' word.

    Raises:
        ConfigError: a folder is none, or holds no labelled scene.
        SceneError: a scene cannot be read.

    Warns:
        GeounetWarning: some scenes have no labels and are left out.
    """
    pairs: list[Pair] = []
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"scenes are looked for in folders; there is no folder {folder}.")
        found = {path: _label_of(path) for path in sorted(folder.iterdir()) if _is_scene(path)}
        labelled = {path: label for path, label in found.items() if label}
        if not labelled:
            raise ConfigError(
                f"no labelled scene in {folder}: a scene NAME.tif needs NAME.label.tif, or "
                f"polygons in NAME{', NAME'.join(_POLYGONS)}."
            )
        if len(labelled) < len(found):
            warnings.warn(
                f"{len(found) - len(labelled)} of {len(found)} scenes in {folder} have no labels "
                f"and are left out.",
                GeounetWarning,
                stacklevel=2,
            )
        pairs += [_open_pair(path, label, scale, offset) for path, label in labelled.items()]
    return tuple(pairs)


def _is_scene(path: Path) -> bool:
    return path.suffix.lower() in _SCENES and not path.stem.endswith(".label")


def _label_of(path: Path) -> Path | None:
    names = [f".label{suffix}" for suffix in _SCENES] + list(_POLYGONS)
    candidates = (path.with_name(path.stem + name) for name in names)
    return next((c for c in candidates if c.exists()), None)


def _open_pair(path: Path, label: Path, scale: float | None, offset: float | None) -> Pair:
    with warnings.catch_warnings():
        # Scenes of unknown place are common in training sets and lose nothing by it.
        warnings.simplefilter("ignore", GeounetWarning)
        return Pair(open_scene(path, scale=scale, offset=offset), label)


class Labels(Protocol):
    """A scene's labels."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Class indices uint8 [height, width]; `UNKNOWN` where not known."""
        ...


def open_labels(pair: Pair, rules: LabelRules) -> Labels:
    """Open a scene's labels and check that they lie on it.

    Raises:
        SceneError: the labels cannot be read, or do not lie on the scene.
    """
    if pair.label.suffix.lower() in _POLYGONS:
        return PolygonLabels.open(pair.label, pair.scene.grid, rules)
    return RasterLabels.open(pair.label, pair.scene.grid, rules)


@dataclass(frozen=True)
class RasterLabels:
    """Labels in the first band of a raster on the scene's grid."""

    path: Path
    rules: LabelRules
    nodata: float | None

    @classmethod
    def open(cls, path: Path, grid: Grid, rules: LabelRules) -> RasterLabels:
        """Check that the raster is on the grid.

        Raises:
            SceneError: it cannot be read, or is on another grid.
        """
        with _quiet_open(path) as source:
            _check_alignment(path, Grid(source.crs, source.transform, *source.shape[::-1]), grid)
            return cls(path, rules, source.nodata)

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Read a window.

        Raises:
            SceneError: a value that no class has.
        """
        area = RasterWindow(window.col, window.row, window.width, window.height)
        with _quiet_open(self.path) as source:
            values = source.read(1, window=area)
        labels = np.full(values.shape, UNKNOWN, np.uint8)
        known = np.isin(values, self.rules.ignored)
        if self.nodata is not None:
            known |= (values == self.nodata) | np.isnan(values)
        for index, name in enumerate(self.rules.classes):
            here = np.isin(values, self.rules.of(name)) & ~known
            labels[here] = index
            known |= here
        if not known.all():
            raise SceneError(
                f"each label must be of a class or ignored; {self.path} holds "
                f"{values[~known][0]}. Say what it means with label_values or ignore_values; "
                f"classes are {', '.join(self.rules.classes)}."
            )
        return labels


def _quiet_open(path: Path) -> rasterio.DatasetReader:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            return rasterio.open(path)
        except (RasterioError, OSError) as error:
            raise SceneError(
                f"a label must be a raster that GDAL opens: {path}: {error}."
            ) from error


def _check_alignment(path: Path, label: Grid, scene: Grid) -> None:
    if label.shape != scene.shape:
        raise SceneError(
            f"a label must have its scene's size of {scene.width} x {scene.height} pixels; "
            f"{path} has {label.width} x {label.height}. Warp it onto the scene's grid."
        )
    if label.crs != scene.crs and label.crs is not None and scene.crs is not None:
        raise SceneError(
            f"a label must have its scene's CRS, {scene.crs.to_string()}; {path} has "
            f"{label.crs.to_string()}. Warp it onto the scene's grid."
        )
    corners = np.array(_corners(*scene.shape), np.float64)
    there = _along(~scene.transform, _along(label.transform, corners))
    off = float(np.abs(there - corners).max())
    if off > 0.05:
        raise SceneError(
            f"a label must lie on its scene's pixels; {path} is up to {off:.3g} pixels off. "
            f"Warp it onto the scene's grid."
        )


@dataclass(frozen=True, eq=False)
class PolygonLabels:
    """Labels burned from polygons; a pixel is inside where its centre is. Later ones lie on top."""

    transform: Affine
    shapes: NDArray[Any]
    """Polygons in the scene's CRS."""
    codes: NDArray[np.uint8]
    """Class index of each."""
    outside: int
    tree: shapely.STRtree

    @classmethod
    def open(cls, path: Path, grid: Grid, rules: LabelRules) -> PolygonLabels:
        """Read polygons and bring them into the scene's CRS.

        Without a column ``class`` they are all water.

        Raises:
            SceneError: they cannot be read, are no polygons, have no CRS, are of a class that is
                not known, or none lies on the scene.
        """
        frame = _read_polygons(path, grid)
        codes = _polygon_codes(path, frame, rules)
        shapes = np.asarray(frame.geometry.values)
        outline = shapely.Polygon(_along(grid.transform, _corners(*grid.shape)))
        if not shapely.intersects(shapes, outline).any():
            raise SceneError(
                f"polygons must lie on their scene; none in {path} does. Check its CRS and that "
                f"it belongs to this scene."
            )
        land = rules.classes.index("land")
        unknown = rules.outside == "unknown" or (rules.outside == "auto" and land in codes)
        outside = UNKNOWN if unknown else land
        return cls(grid.transform, shapes, codes, outside, shapely.STRtree(shapes))

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Burn the polygons of a window."""
        a, b, _, d, e, *_ = self.transform
        ((x, y),) = _along(self.transform, [(window.col, window.row)])
        transform = Affine(a, b, x, d, e, y)
        outline = shapely.Polygon(_along(transform, _corners(window.height, window.width)))
        hits = np.sort(self.tree.query(outline))
        shape = (window.height, window.width)
        if not len(hits):
            return np.full(shape, self.outside, np.uint8)
        pairs = zip(self.shapes[hits], self.codes[hits].tolist(), strict=True)
        burned: NDArray[np.uint8] = rasterize(
            pairs, shape, self.outside, transform=transform, dtype="uint8"
        )
        return burned


def _corners(height: int, width: int) -> list[tuple[int, int]]:
    """Columns and rows around."""
    return [(0, 0), (width, 0), (width, height), (0, height)]


def _along(transform: Affine, points: ArrayLike) -> NDArray[np.float64]:
    """Points [n, 2] moved by a transform; spelt out, since affine 3 and 2 share no operator."""
    a, b, c, d, e, f, *_ = transform
    x, y = np.asarray(points, np.float64).T
    return np.stack([a * x + b * y + c, d * x + e * y + f], 1)


def _read_polygons(path: Path, grid: Grid) -> geopandas.GeoDataFrame:
    try:
        reader = geopandas.read_parquet if path.suffix == ".parquet" else geopandas.read_file
        frame = reader(path)
    except Exception as error:
        raise SceneError(f"labels must be a file of polygons: {path}: {error}.") from error
    frame = frame[~(frame.geometry.isna() | frame.geometry.is_empty)]
    if frame.empty or not frame.geom_type.isin(["Polygon", "MultiPolygon"]).all():
        kinds = ", ".join(sorted(set(frame.geom_type))) or "nothing"
        raise SceneError(f"labels must be polygons; {path} holds {kinds}.")
    if (frame.crs is None) != (grid.crs is None):
        raise SceneError(
            f"polygons and scene must both have a CRS, or neither; {path} has "
            f"{frame.crs or 'none'}, the scene {grid.crs or 'none'}."
        )
    return frame if grid.crs is None else frame.to_crs(grid.crs.to_wkt())


def _polygon_codes(
    path: Path, frame: geopandas.GeoDataFrame, rules: LabelRules
) -> NDArray[np.uint8]:
    if "class" not in frame:
        return np.full(len(frame), rules.classes.index("water"), np.uint8)
    meaning: dict[Any, int] = dict.fromkeys(rules.ignored, UNKNOWN) | {"unknown": UNKNOWN}
    for index, name in enumerate(rules.classes):
        meaning |= {name: index} | dict.fromkeys(rules.of(name), index)
    strange = [value for value in frame["class"] if value not in meaning]
    if strange:
        raise SceneError(
            f"the column class must hold {', '.join(rules.classes)}, unknown, or their values; "
            f"{path} holds {strange[0]!r}."
        )
    return np.array([meaning[value] for value in frame["class"]], np.uint8)


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
        dn, valid, labels = self._stored(window)
        grid = np.ix_(rows.index, cols.index)
        valid = valid[grid] & rows.inside[:, None] & cols.inside
        number = dn[:, grid[0], grid[1]][list(self._inputs.take)].astype(np.float32)
        seen = valid & (self._gain != 0)
        lit = np.maximum(np.nan_to_num(number) * self._gain + self._bias, _LEAST)
        own = valid & rows.own[:, None] & cols.own
        known = own & (labels[grid] != UNKNOWN)
        allowed = np.where(known, 1 << np.minimum(labels[grid], 7), 0).astype(np.uint8)
        pixels = np.where(seen, lit, 0).astype(np.float32)
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
    unknown: int
    """Observed pixels without a label."""
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
    counts, unknown = np.zeros(classes, np.int64), 0
    anchors: dict[int, list[Tensor]] = {}
    logs: list[NDArray[np.float32]] = []
    for row in range(0, source.shape[0], _BLOCK):
        pixels, allowed = source.read(row, 0, _BLOCK, source.shape[1])
        seen = (pixels != 0).any(0)
        unknown += int((seen & (allowed == 0)).sum())
        counts += np.array([int((allowed == 1 << k).sum()) for k in range(classes)])
        for value, cells in cells_by_set(MemorySource(pixels[:0], allowed)).items():
            anchors.setdefault(value, []).append(cells + torch.tensor([row, 0]))
        logs.append(pixels[:, ::4, ::4][:, seen[::4, ::4]].clamp(min=floor).log().numpy())
    log = np.concatenate(logs, 1).astype(np.float64)
    missing = np.isclose(log, np.log(floor), atol=1e-6).all(1)
    moments = np.stack([log.mean(1), (log**2).mean(1)]) if log.size else np.zeros((2, len(log)))
    moments[:, missing] = np.nan
    return Survey(counts, unknown, {k: torch.cat(v) for k, v in anchors.items()}, moments)


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
        for j in range(i):
            if box is not None and boxes[j] is not None and box.intersects(boxes[j]):
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


def _footprint(grid: Grid) -> Any:
    """Bounds in degrees with about half a kilometre around; None without a CRS."""
    if grid.crs is None:
        return None
    corners = _along(grid.transform, _corners(*grid.shape))
    west, south, east, north = transform_bounds(
        grid.crs, "EPSG:4326", *corners.min(0), *corners.max(0)
    )
    up = 0.0045
    across = up / max(np.cos(np.radians((south + north) / 2)), 0.01)
    return shapely.box(west - across, south - up, east + across, north + up)


def keep_back(sites: Sequence[str], share: float, seed: int) -> frozenset[str]:
    """Choose the sites to validate on: at least one, and never all.

    Args:
        sites: the site of each scene.
        share: how many of them, 0 to 1; 0 for none.
        seed: chooses which.
    """
    names = sorted(set(sites))
    if share == 0 or len(names) < 2:
        return frozenset()
    random.Random(seed).shuffle(names)  # noqa: S311 - a split, no secret
    return frozenset(names[: min(max(round(share * len(names)), 1), len(names) - 1)])

"""Labels: found beside scenes in folders, and read window by window.

A label is a raster on its scene's grid, or polygons that are burned onto it as windows are read.
Either way what is read is the index of a class, or `UNKNOWN`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import geopandas
import numpy as np
import pyogrio
import shapely
from affine import Affine
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.windows import Window as RasterWindow

from geounet.errors import ConfigError, GeounetWarning, SceneError
from geounet.ground import along
from geounet.products.raster import open_raster
from geounet.scene import Grid, Scene, open_scene

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import rasterio
    from numpy.typing import NDArray

    from geounet.tiling import Window

__all__ = [
    "UNKNOWN",
    "LabelRules",
    "Labels",
    "Pair",
    "PolygonLabels",
    "RasterLabels",
    "checked_pairs",
    "find_pairs",
    "open_labels",
    "outline",
]

UNKNOWN = 255
"""Label of a pixel whose class is not known."""

_SCENES = (".tif", ".tiff", ".vrt", ".jp2")
_ARCHIVES = (".zip", ".tar")
_POLYGONS = (".gpkg", ".geojson", ".fgb", ".parquet", ".shp")


@dataclass(frozen=True)
class LabelRules:
    """What labels mean."""

    classes: tuple[str, ...] = ("land", "water", "obscured")
    """Classes in order; a label becomes the index of its class."""
    values: Mapping[str, Sequence[int]] | None = None
    """Values that stand for each class; None for its index."""
    ignored: tuple[int, ...] = (UNKNOWN,)
    """Values of rasters that mean "unknown"."""
    outside: str = "auto"
    """What lies outside all polygons: ``land``, ``unknown``, or ``auto``, which is unknown if some
    polygon is land, else land."""
    band: str | int | None = None
    """Band of rasters: its description, or its number from 1; None takes ``hand``, or the first."""

    def of(self, name: str) -> tuple[int, ...]:
        """Values that stand for a class."""
        if self.values is None:
            return (self.classes.index(name),)
        return tuple(self.values.get(name, ()))

    @property
    def unknown(self) -> frozenset[int | str]:
        """What is read as unknown: what is ignored, and classes that are told but not asked for."""
        told = self.values or {}
        others = [name for name in told if name not in self.classes]
        return frozenset(("unknown", *self.ignored, *others, *(v for n in others for v in told[n])))


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
    folders: Sequence[Path],
    *,
    scale: float | None = None,
    offset: float | None = None,
    broken: dict[str, SceneError] | None = None,
) -> tuple[Pair, ...]:
    """Find the labelled scenes of some folders, by name.

    Args:
        folders: where ``NAME.tif`` and ``NAME.label.tif`` (or polygons ``NAME.gpkg``) lie. A scene
            may be a product's folder or archive, too: ``NAME.SAFE``, ``NAME.zip``, ``NAME.tar``.
        scale: reflectance per stored number; None takes the files' word.
        offset: reflectance at stored number 0; None takes the files' word.
        broken: takes in, by name, what is wrong with scenes that cannot be opened; with None it is
            raised.

    Raises:
        ConfigError: a folder is none, or holds no labelled scene.
        SceneError: a scene cannot be opened.

    Warns:
        GeounetWarning: some scenes have no labels and are left out, or several; or what their
            numbers mean is assumed, or disputed.
    """
    pairs: list[Pair] = []
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(
                f"scenes are looked for in folders; there is no folder {folder}."
                + " For the file alone give evaluate its --label." * folder.is_file()
            )
        found = {path: _labels_of(path) for path in sorted(folder.iterdir()) if _is_scene(path)}
        labelled = {path: labels[0] for path, labels in found.items() if labels}
        if not labelled:
            raise ConfigError(
                f"no labelled scene in {folder}: a scene NAME.tif needs NAME.label.tif, or "
                f"polygons in NAME{', NAME'.join(_POLYGONS)}."
            )
        _warn_of_several(found.values(), folder)
        if len(labelled) < len(found):
            warnings.warn(
                f"{len(found) - len(labelled)} of {len(found)} scenes in {folder} have no labels "
                f"and are left out.",
                GeounetWarning,
                stacklevel=2,
            )
        for path, label in labelled.items():
            try:
                pairs.append(_open_pair(path, label, scale, offset))
            except SceneError as error:
                if broken is None:
                    raise
                broken[path.stem] = error
    _warn_of_radiometry([pair.scene for pair in pairs])
    return tuple(pairs)


def _is_scene(path: Path) -> bool:
    """Rasters; and products, which other things look like, if labels lie beside them."""
    if path.is_dir() or path.suffix.lower() in _ARCHIVES:
        return bool(_labels_of(path))
    return path.suffix.lower() in _SCENES and not path.stem.endswith(".label")


def _labels_of(path: Path) -> list[Path]:
    """The files that may be a scene's labels, the one that is taken first."""
    names = [f".label{suffix}" for suffix in _SCENES] + list(_POLYGONS)
    stem = path.name if path.is_dir() and path.suffix != ".SAFE" else path.stem
    candidates = (path.with_name(stem + name) for name in names)
    return [candidate for candidate in candidates if candidate.exists()]


def _warn_of_several(found: Iterable[list[Path]], folder: Path) -> None:
    """Say it once where scenes have several labels, of which one alone is read."""
    several = [[label.name for label in labels] for labels in found if len(labels) > 1]
    if several:
        taken, *others = several[0]
        warnings.warn(
            f"a scene has one label; {len(several)} in {folder} have several, as {taken} beside "
            f"{', '.join(others)}: {taken} is taken. Move away what is none.",
            GeounetWarning,
            stacklevel=3,
        )


def _open_pair(path: Path, label: Path, scale: float | None, offset: float | None) -> Pair:
    with warnings.catch_warnings():
        # Scenes of unknown place are common in training sets and lose nothing by it; what is
        # assumed of many alike is said once.
        warnings.simplefilter("ignore", GeounetWarning)
        return Pair(open_scene(path, scale=scale, offset=offset), label)


def _warn_of_radiometry(scenes: Sequence[Scene]) -> None:
    """Say once of all scenes alike what is assumed of their numbers, or contradicts itself."""
    doubts: dict[str, list[str]] = {}
    for scene in scenes:
        for text in scene.radiometry.warnings:
            doubts.setdefault(text, []).append(scene.stem)
        if scene.radiometry.assumed:
            text = (
                f"nothing says how numbers become reflectance: {scene.radiometry.reason}. "
                f"Settle it with scale and offset."
            )
            doubts.setdefault(text, []).append(scene.stem)
    for text, names in doubts.items():
        warnings.warn(f"{_some(names)}: {text}", GeounetWarning, stacklevel=3)


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


def checked_pairs(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """Look at pixels: the pairs with the radiometry that they bear out, as `Scene.checked` has it.

    Raises:
        SceneError: the pixels of some scenes contradict their radiometry, or do not settle what is
            disputed; or they cannot be read.

    Warns:
        GeounetWarning: another reading is taken for what the pixels say, or may be right.
    """
    found: list[Pair] = []
    refused: dict[str, SceneError] = {}
    for pair in pairs:
        try:
            found.append(replace(pair, scene=pair.scene.checked()))
        except SceneError as error:
            refused[pair.name] = error
    if refused:
        first = next(iter(refused.values()))
        others = "" if len(refused) == 1 else f" The same goes for {_some([*refused][1:])}."
        raise SceneError(
            f"{first}{others} Scale and offset given here hold for all scenes; for one alone set "
            f"those of its file, or leave the scene out."
        ) from first
    return tuple(found)


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
    """Labels in a band of a raster on the scene's grid."""

    path: Path
    rules: LabelRules
    nodata: float | None
    band: int
    """Number from 1."""

    @classmethod
    def open(cls, path: Path, grid: Grid, rules: LabelRules) -> RasterLabels:
        """Check that the raster is on the grid and has the band.

        Raises:
            SceneError: it cannot be read, is on another grid, or lacks the band.
        """
        with open_raster(path, what="label") as source:
            _check_alignment(path, Grid(source.crs, source.transform, *source.shape[::-1]), grid)
            return cls(path, rules, source.nodata, _band_number(path, source, rules.band))

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Read a window.

        Raises:
            SceneError: it is damaged, or holds a value that no class has.
        """
        area = RasterWindow(window.col, window.row, window.width, window.height)
        with open_raster(self.path, what="label") as source:
            try:
                values = source.read(self.band, window=area)
            except RasterioError as error:
                raise SceneError(f"a label must be readable: {self.path}: {error}.") from error
        labels = np.full(values.shape, UNKNOWN, np.uint8)
        ignored = [value for value in self.rules.unknown if isinstance(value, int)]
        known = np.isin(values, ignored) | np.isnan(values)
        if self.nodata is not None:
            known |= values == self.nodata
        for index, name in enumerate(self.rules.classes):
            here = np.isin(values, self.rules.of(name)) & ~known
            labels[here] = index
            known |= here
        if not known.all():
            strange = values[~known][0]
            raise SceneError(
                f"each label must be of a class or ignored; {self.path} holds {strange}. Say what "
                f"it means with label_values or ignore_values (--label-value water={strange}); "
                f"classes are {', '.join(self.rules.classes)}."
            )
        return labels


def _band_number(path: Path, source: rasterio.DatasetReader, band: str | int | None) -> int:
    names = [text or "" for text in source.descriptions]
    if band is None:
        return names.index("hand") + 1 if "hand" in names else 1
    if isinstance(band, int) and 1 <= band <= source.count:
        return band
    if band in names:
        return names.index(str(band)) + 1
    raise SceneError(
        f"a label must have the band that is asked for, {band!r}; {path} has {source.count}: "
        f"{', '.join(names)}."
    )


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
    corners = _corners(*scene.shape)
    there = along(~scene.transform, along(label.transform, corners))
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

        Without a column ``class``, in capitals or not, they are all water.

        Raises:
            SceneError: they cannot be read, are no polygons, have no CRS, are of a class that is
                not known, or none lies on the scene.
        """
        frame = _read_polygons(path, grid)
        codes = _polygon_codes(path, frame, rules)
        shapes = np.asarray(frame.geometry.values)
        if not shapely.intersects(shapes, shapely.Polygon(outline(grid))).any():
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
        ((x, y),) = along(self.transform, np.array([(window.col, window.row)])).tolist()
        transform = Affine(a, b, x, d, e, y)
        around = shapely.Polygon(along(transform, _corners(window.height, window.width)))
        hits = np.sort(self.tree.query(around))
        shape = (window.height, window.width)
        if not len(hits):
            return np.full(shape, self.outside, np.uint8)
        pairs = zip(self.shapes[hits], self.codes[hits].tolist(), strict=True)
        burned: NDArray[np.uint8] = rasterize(
            pairs, shape, self.outside, transform=transform, dtype="uint8"
        )
        return burned


def outline(grid: Grid) -> NDArray[np.float64]:
    """The grid's four corners in its CRS [4, (x, y)], in the order of a ring."""
    return along(grid.transform, _corners(*grid.shape))


def _corners(height: int, width: int) -> NDArray[np.int64]:
    """Columns and rows around [4, (column, row)]."""
    return np.array([(0, 0), (width, 0), (width, height), (0, height)])


def _read_polygons(path: Path, grid: Grid) -> geopandas.GeoDataFrame:
    layers: list[str] = []
    try:
        if path.suffix == ".parquet":
            frame = geopandas.read_parquet(path)
        else:  # a GeoPackage may also hold tables without geometry, as of styles
            layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
            frame = geopandas.read_file(path, layer=layers[0] if layers else None)
    except Exception as error:
        raise SceneError(f"labels must be a file of polygons: {path}: {error}.") from error
    if len(layers) > 1:
        raise SceneError(
            f"labels must be one layer; {path} has {', '.join(layers)}: write the one that is "
            f"meant to another file (ogr2ogr {path.stem}.fgb {path.name} {layers[0]}, say), and "
            f"move this one away."
        )
    frame = frame[~(frame.geometry.isna() | frame.geometry.is_empty)]
    if frame.empty or not frame.geom_type.isin(["Polygon", "MultiPolygon"]).all():
        kinds = ", ".join(sorted(set(frame.geom_type))) or "nothing"
        raise SceneError(
            f"labels must be polygons; {path} holds {kinds}. A scene without water takes one of "
            f"class land around it."
        )
    if (frame.crs is None) != (grid.crs is None):
        raise SceneError(
            f"polygons and scene must both have a CRS, or neither; {path} has "
            f"{frame.crs or 'none'}, the scene {grid.crs or 'none'}."
        )
    return frame if grid.crs is None else frame.to_crs(grid.crs.to_wkt())


def _polygon_codes(
    path: Path, frame: geopandas.GeoDataFrame, rules: LabelRules
) -> NDArray[np.uint8]:
    columns = sorted(name for name in frame.columns if name.lower() == "class")
    if not columns:
        return np.full(len(frame), rules.classes.index("water"), np.uint8)
    values = [_plain(value) for value in frame[columns[-1]]]  # small letters before capitals
    meaning: dict[Any, int] = dict.fromkeys(rules.unknown, UNKNOWN)
    for index, name in enumerate(rules.classes):
        meaning |= {name: index} | dict.fromkeys(rules.of(name), index)
    strange = [value for value in values if value not in meaning]
    if strange:
        raise SceneError(
            f"the column class must hold {', '.join(rules.classes)}, unknown, or their values; "
            f"{path} holds {strange[0]!r}."
        )
    return np.array([meaning[value] for value in values], np.uint8)


def _plain(value: Any) -> Any:
    """A class's name in small letters, a number as one: tables hold "Water", "WATER " and "1"."""
    if not isinstance(value, str):
        return value
    name = value.strip().lower()
    return int(name) if name.isdecimal() else name

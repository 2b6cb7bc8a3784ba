"""Where clouds, their shadows, cirrus and snow hide the ground, as a file beside the scene says.

A layer of any grid and CRS is read onto the scene's pixels by nearest neighbour. What it does not
cover, and where it says nothing itself (nodata, fill), is not obscured by its word.

    rule      obscured is                                                    not obscured alone
    scl       3 cloud shadow, 8 and 9 cloud, 10 thin cirrus, 11 snow or ice  1 defective, 2 dark, 7
    qa_pixel  bits 1 dilated cloud, 2 cirrus, 3 cloud, 4 shadow, 5 snow      0 fill, 6, 7 water
    fmask     bits 0 cirrus, 1 cloud, 2 beside one, 3 shadow, 4 snow or ice  5 water, 255 fill
    udm2      0 in the first band, clear: cloud, shadow, haze, snow
    classi    1 in any of three bands: opaque cloud, cirrus, snow or ice
    geounet   2 in a mask of geounet's                                       0, 1, 255
    nonzero   every number but 0, NaN and nodata
    polygons  what lies inside them

Sources: ESA, *Level-2A Algorithm Theoretical Basis Document*, scene classification; USGS, *Landsat
8-9 Collection 2 Level 2 Science Product Guide* (LSDS-1619), quality band, of which bit 1 counts as
USGS calls clear only what it leaves out; NASA, *HLS Product User Guide* v2.0, quality layer;
Planet, *PlanetScope Product Specification*, usable data mask; ESA, *Sentinel-2 Products
Specification Document*, version 14, quality indicators of Level 1C: ``MSK_CLASSI`` from baseline
04.00 on, ``MSK_CLOUDS`` before.
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np
import shapely
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterWindow

from geounet.errors import ConfigError, GeounetWarning, SceneError
from geounet.parts import area_on_grid, corners
from geounet.products.metadata import local_name, parse_xml
from geounet.products.product import CLOUD_NAMES, CloudLayer, CloudRule
from geounet.products.raster import open_raster
from geounet.remote import attempt, gdal_path, redact

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from xml.etree import ElementTree as ET

    import rasterio
    from numpy.typing import NDArray

    from geounet.parts import Area
    from geounet.products.cube import CubeReader
    from geounet.scene import Grid
    from geounet.tiling import Window

__all__ = [
    "RULES",
    "CloudReader",
    "Obscured",
    "check_clouds",
    "cloud_layer",
    "obscured",
    "open_clouds",
]

RULES: tuple[CloudRule, ...] = get_args(CloudRule)
"""How a layer's numbers may be read."""

_CLASSES = np.array([3, 8, 9, 10, 11])
_BITS = {"qa_pixel": 0b111110, "fmask": 0b11111}
_FILL = {"qa_pixel": 1, "fmask": 255}
_NAMES: dict[str, CloudRule] = {**CLOUD_NAMES, "msk_classi": "classi", "udm2": "udm2"}
_MANY_BANDS = {"classi", "udm2"}
_TOLERANCE = 1e-4
"""In pixels: where a layer is looked up must not depend on the window that is read."""
_SAMPLE = 1024
"""Side in pixels of what is looked at to tell what a layer's numbers mean."""


def obscured(
    values: NDArray[Any], rule: CloudRule, nodata: float | None = None
) -> NDArray[np.bool_]:
    """Which pixels a layer calls obscured: bool, of the shape of its numbers.

    Args:
        values: the layer's numbers; of ``classi`` all its bands, one after the other.
        rule: how they are read.
        nodata: the number with which the layer says nothing.
    """
    if rule == "classi":
        return np.asarray((values == 1).any(axis=0))
    if rule == "nonzero":
        hidden: NDArray[np.bool_] = (values != 0) & ~np.isnan(values)
    elif rule == "udm2":
        hidden = values == 0
    elif rule == "geounet":
        hidden = values == 2
    elif rule == "scl":
        hidden = np.isin(values, _CLASSES)
    else:
        whole = values.astype(np.int64)
        hidden = (whole & _BITS[rule] != 0) & (whole != _FILL[rule])
    if nodata is not None:
        hidden &= values != nodata
    return hidden


def cloud_layer(path: str | os.PathLike[str], rule: CloudRule | None = None) -> CloudLayer:
    """A raster as a cloud layer, or a mask of polygons as old Sentinel-2 products have it (GML).

    Args:
        path: path or URI; of several bands the one is taken that is called SCL, QA_PIXEL or Fmask.
        rule: how its numbers are read; None tells it by the file's or band's name, by its being a
            mask that geounet wrote, or by numbers that are all 0 and one other.

    Raises:
        SceneError: there is no such raster.
        ConfigError: nothing says which band it is, or what its numbers mean.
    """
    uri = gdal_path(str(path))
    if Path(uri).suffix.lower() == ".gml":
        return CloudLayer(uri, 0, "polygons", partial(_bytes_of, uri))
    with _opened(uri) as source:
        texts = [text or "" for text in source.descriptions]
        called = _rule_called(uri.rsplit("/", 1)[-1])
        if (rule or called) in _MANY_BANDS and source.count > 1:
            return CloudLayer(uri, 1, rule or called or "nonzero")
        named = [i for i, text in enumerate(texts, start=1) if _rule_called(text)]
        if source.count > 1 and len(named) != 1:
            raise ConfigError(
                f"a cloud mask has one band, or one that is called SCL, QA_PIXEL or Fmask; "
                f"{redact(str(path))} has {source.count}: {', '.join(texts)}."
            )
        band = named[0] if named else 1
        rule = rule or _rule_called(texts[band - 1]) or _own_rule(source) or called
        return CloudLayer(uri, band, rule or _rule_of_numbers(source, band, str(path)))


def _bytes_of(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SceneError(f"a cloud mask must be a file that can be read: {error}.") from error


def _own_rule(source: rasterio.DatasetReader) -> CloudRule | None:
    """That of geounet's own masks, by what they are tagged with."""
    own = "GEOUNET_VERSION" in source.tags() and source.descriptions[0] == "land/water mask"
    return "geounet" if own else None


@contextmanager
def _opened(uri: str) -> Iterator[rasterio.DatasetReader]:
    with ExitStack() as stack:
        try:
            source = stack.enter_context(open_raster(uri, redact(uri)))
        except SceneError as error:
            text = str(error).replace("a scene must", "a cloud mask must", 1)
            raise SceneError(text) from error
        yield source


def _rule_called(text: str) -> CloudRule | None:
    return next((rule for name, rule in _NAMES.items() if name in text.lower()), None)


def _rule_of_numbers(source: rasterio.DatasetReader, band: int, path: str) -> CloudRule:
    """``nonzero`` for a layer of 0 and one other number."""
    shape = (min(source.height, _SAMPLE), min(source.width, _SAMPLE))
    found = np.unique(source.read(band, out_shape=shape))
    if source.nodata is not None:
        found = found[found != source.nodata]
    if len(found[(found != 0) & ~np.isnan(found)]) <= 1:
        return "nonzero"
    raise ConfigError(
        f"cannot tell what the numbers of {redact(path)} mean: "
        f"{', '.join(f'{number:g}' for number in found[:8])}{', …' if len(found) > 8 else ''}. "
        f"Settle it with --cloud-rule: scl (Sentinel-2's classes), qa_pixel (Landsat's bits), "
        f"fmask (HLS's bits), geounet (2 of its masks) or nonzero (whatever is not 0)."
    )


def check_clouds(layer: CloudLayer, grid: Grid) -> None:
    """Check that a layer can be laid onto a scene's grid.

    Raises:
        SceneError: it lies elsewhere, or one of the two has no CRS and their sizes differ.

    Warns:
        GeounetWarning: it covers a part of the scene only.
    """
    name = f"the cloud mask {redact(layer.uri)}"
    if layer.rule == "polygons":
        _polygons_on(layer, grid)
        return
    if layer.cube is not None:
        return  # on the scene's own grid
    with _opened(layer.uri) as source:
        if source.crs is None or grid.crs is None:
            if source.shape != grid.shape:
                raise SceneError(
                    f"{name} and the scene must both have a CRS, or the same size; they have "
                    f"{source.width} x {source.height} and {grid.width} x {grid.height} pixels."
                )
            return
        extent = shapely.Polygon(corners(source.transform, source.width, source.height))
        crs = source.crs.to_wkt(version="WKT2_2019")
    area = area_on_grid(np.array([extent], object), crs, grid, what=name)
    covered = sum(polygon.area for polygon in area.polygons) / (grid.width * grid.height)
    if covered < 0.999:
        warnings.warn(
            f"{name} covers {covered:.1%} of the scene; elsewhere nothing is taken for obscured.",
            GeounetWarning,
            stacklevel=4,
        )


class Obscured(Protocol):
    """What tells which pixels a layer obscures."""

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Which pixels of a window of the whole grid are obscured: bool [height, width]."""
        ...


class CloudReader:
    """An open cloud layer on a scene's pixels. It belongs to the thread that opened it."""

    def __init__(
        self, layer: CloudLayer, dataset: rasterio.DatasetReader | WarpedVRT | CubeReader
    ) -> None:
        self._layer = layer
        self._dataset = dataset

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Which pixels of a window of the whole grid are obscured: bool [height, width].

        Raises:
            SceneError: the layer is damaged or went away.
        """
        layer = self._layer
        area = RasterWindow(window.col, window.row, window.width, window.height)
        bands = None if layer.rule == "classi" else layer.band
        try:
            values = attempt(layer.uri, lambda: self._dataset.read(bands, window=area))
        except (RasterioError, OSError) as error:
            raise SceneError(
                f"cannot read the cloud mask {redact(layer.uri)}: {error}. It is truncated or "
                f"damaged; get it again."
            ) from error
        return obscured(values, layer.rule, self._dataset.nodata)


class _PolygonReader:
    """A layer of polygons on a scene's pixels."""

    def __init__(self, area: Area | None) -> None:
        self._area = area

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Which pixels of a window of the whole grid have their centre inside."""
        if self._area is None:
            return np.zeros((window.height, window.width), np.bool_)
        return self._area.inside(window)


def _polygons_on(layer: CloudLayer, grid: Grid) -> Area | None:
    """The layer's polygons on a scene's pixels; None where it has none: a scene without clouds.

    Raises:
        SceneError: they cannot be read, or lie elsewhere.
    """
    root = parse_xml(layer.read() if layer.read else b"", layer.uri)
    polygons = [_polygon(one, layer.uri) for one in root.iter() if local_name(one) == "Polygon"]
    if not polygons:
        return None
    envelope = next((e.get("srsName", "") for e in root.iter() if "srsName" in e.attrib), "")
    code = envelope.rpartition(":")[2]
    crs = f"EPSG:{code}" if code.isdecimal() and grid.crs is not None else None
    found = np.array(polygons, object)
    return area_on_grid(found, crs, grid, what=f"the cloud mask {redact(layer.uri)}")


def _polygon(element: ET.Element, name: str) -> shapely.Polygon:
    """A polygon of GML 3.2: its first ring is the outer one."""
    lists = [ring.text or "" for ring in element.iter() if local_name(ring) == "posList"]
    try:
        shell, *holes = [np.array(text.split(), float).reshape(-1, 2) for text in lists]
        return shapely.Polygon(shell, holes)
    except ValueError as error:
        raise SceneError(
            f"cannot read the polygons of {redact(name)}: {error}. It is truncated or damaged; get "
            f"it again."
        ) from error


@contextmanager
def open_clouds(layer: CloudLayer, grid: Grid) -> Iterator[Obscured]:
    """Open a layer on a scene's whole grid, for one thread."""
    if layer.rule == "polygons":
        yield _PolygonReader(_polygons_on(layer, grid))
        return
    with ExitStack() as stack:
        if layer.cube is not None:
            yield CloudReader(layer, stack.enter_context(layer.cube.open()))
            return
        source = stack.enter_context(_opened(layer.uri))
        same = (source.crs, source.transform, source.shape) == (
            grid.crs,
            grid.transform,
            grid.shape,
        )
        if same or source.crs is None or grid.crs is None:
            yield CloudReader(layer, source)
            return
        laid = WarpedVRT(
            source, crs=grid.crs, transform=grid.transform, width=grid.width, height=grid.height,
            resampling=Resampling.nearest, tolerance=_TOLERANCE,
            nodata=255 if layer.rule == "udm2" else source.nodata,  # beyond it there is 0, else
        )  # fmt: skip
        yield CloudReader(layer, stack.enter_context(laid))

"""Bands of several files on one grid: a virtual dataset that repeats coarse pixels.

The virtual dataset is text, which can be pickled and needs no file of its own. It repeats the
pixels of coarser bands (nearest), so that any reader sees the true numbers at their true places;
`reading.read_bands` then interpolates where a product asks for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
from affine import Affine
from rasterio.enums import MaskFlags

from geounet.errors import SceneError
from geounet.products.product import Product
from geounet.products.raster import one_nodata, open_raster
from geounet.remote import redact

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray
    from rasterio.crs import CRS

    from geounet.products.product import Layer
    from geounet.radiometry import Evidence

__all__ = ["Stack", "stack", "stacked_product"]

_TOLERANCE = 0.01
"""How far a pixel corner may lie off the finest grid's, in its pixels."""

_GDAL_TYPES = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32",
    "int32": "Int32", "uint64": "UInt64", "int64": "Int64", "float32": "Float32",
    "float64": "Float64", "complex_int16": "CInt16", "complex64": "CFloat32",
    "complex128": "CFloat64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stack:
    """Layers on one grid."""

    path: str
    """XML of the virtual dataset, for `rasterio.open`."""
    layers: tuple[Layer, ...]
    """In band order; without those that are finer than the grid."""
    factors: tuple[int, ...]
    """How many of the grid's pixels one of the band's is, along each axis; one a band."""
    dtype: str
    """Numpy name of the stored type."""
    nodata: float | None
    """Of the files, or as told."""
    scales: tuple[float, ...]
    """One a band, as the files say; 1.0 where one does not."""
    offsets: tuple[float, ...]
    """One a band, as the files say; 0.0 where one does not."""
    block: tuple[int, int]
    """Height and width of the blocks of the bands on the finest grid."""


@dataclass(frozen=True, slots=True)
class _Source:
    """What a layer's file says of it."""

    layer: Layer
    crs: CRS | None
    transform: Affine
    height: int
    width: int
    dtype: str
    nodata: float | None
    scale: float
    offset: float
    block: tuple[int, int]
    masked: bool

    @property
    def pixel(self) -> float:
        """Side of a pixel in units of the CRS."""
        return math.sqrt(abs(self.transform.determinant))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a source lies on the finest grid, in its pixels."""

    row: int
    col: int
    factor: int
    source: _Source

    @property
    def stop_row(self) -> int:
        return self.row + self.source.height * self.factor

    @property
    def stop_col(self) -> int:
        return self.col + self.source.width * self.factor


@dataclass(frozen=True, slots=True)
class _Extent:
    """What all sources cover, on the finest grid."""

    row: int
    col: int
    height: int
    width: int


def stack(
    layers: Sequence[Layer],
    *,
    wanted: Collection[str] | None = None,
    nodata: float | None = None,
) -> Stack:
    """Put bands onto the finest grid among them.

    The stack covers what all of them cover. Pixels share their corners: a coarse pixel becomes a
    whole number of fine ones along each axis.

    Args:
        layers: the bands, in order.
        wanted: names of the layers that decide how fine the grid is; what is finer is left out.
            None for all of them.
        nodata: stored number that means "not observed", where the files do not say so.

    Raises:
        SceneError: a file is missing or damaged, or the bands do not fit onto one grid; the message
            names them.
    """
    if not layers:
        raise SceneError("a stack needs at least one band; got none.")
    sources = _same_origin([_look(layer) for layer in layers])
    deciding = [s for s in sources if wanted is None or s.layer.name in wanted] or sources
    finest = min(deciding, key=lambda source: source.pixel)
    sources = [s for s in sources if s.pixel > finest.pixel * (1 - 1e-6)]
    _check_alike(sources)
    places = [_place(source, finest) for source in sources]
    extent = _common_extent(places)
    sharp = [place.source for place in places if place.factor == 1]
    if nodata is None:
        nodata = one_nodata({s.layer.name: s.nodata for s in sources}, "the stack")
    return Stack(
        path=_virtual_dataset(places, extent, finest, nodata),
        layers=tuple(source.layer for source in sources),
        factors=tuple(place.factor for place in places),
        dtype=finest.dtype,
        nodata=nodata,
        scales=tuple(source.scale for source in sources),
        offsets=tuple(source.offset for source in sources),
        block=(max(s.block[0] for s in sharp), max(s.block[1] for s in sharp)),
    )


def stacked_product(stacked: Stack, evidence: Evidence, **facts: Any) -> Product:
    """A product whose bands were stacked.

    Args:
        stacked: its bands.
        evidence: what is known of their numbers.
        facts: further fields of `Product`.
    """
    return Product(
        path=stacked.path,
        names=tuple(layer.name for layer in stacked.layers),
        evidence=evidence,
        layers=stacked.layers,
        factors=stacked.factors,
        sensor=evidence.sensor,
        level=evidence.level,
        nodata=stacked.nodata,
        block=stacked.block,
        **facts,
    )


def _look(layer: Layer) -> _Source:
    with open_raster(layer.uri) as file:
        if not 1 <= layer.band <= file.count:
            raise SceneError(
                f"band {layer.name} is band {layer.band} of {redact(layer.uri)}, which has "
                f"{file.count}."
            )
        i = layer.band - 1
        return _Source(
            layer=layer,
            crs=file.crs,
            transform=file.transform,
            height=file.height,
            width=file.width,
            dtype=file.dtypes[i],
            nodata=file.nodatavals[i],
            scale=file.scales[i],
            offset=file.offsets[i],
            block=file.block_shapes[i],
            masked=not file.mask_flag_enums[i] or MaskFlags.per_dataset in file.mask_flag_enums[i],
        )


def _same_origin(sources: list[_Source]) -> list[_Source]:
    """Files without any georeference cover the same ground: their sizes tell their pixels."""
    if any(s.crs is not None or s.transform != Affine.identity() for s in sources):
        return sources
    height, width = max(s.height for s in sources), max(s.width for s in sources)
    return [replace(s, transform=Affine.scale(width / s.width, height / s.height)) for s in sources]


def _check_alike(sources: Sequence[_Source]) -> None:
    """One CRS and one type for all.

    Raises:
        SceneError: names the bands of each.
    """
    _check_one("be in one CRS", {s.layer.name: s.crs.to_string() if s.crs else "none"
                                 for s in sources})  # fmt: skip
    _check_one("be of one type", {s.layer.name: s.dtype for s in sources})


def _check_one(rule: str, values: dict[str, str]) -> None:
    if len(set(values.values())) > 1:
        groups = (
            f"{', '.join(name for name, of in values.items() if of == value)}: {value}"
            for value in dict.fromkeys(values.values())
        )
        raise SceneError(
            f"bands must {rule} to be stacked; got {'; '.join(groups)}. "
            f"Leave some out, or bring them together first (gdalwarp)."
        )


def _place(source: _Source, finest: _Source) -> _Place:
    """Find a source's pixels on the finest grid.

    Raises:
        SceneError: its pixel corners are not corners of the finest grid.
    """
    ends = np.array([(0, 0, 1), (source.width, source.height, 1), (source.width, 0, 1)])
    to_fine = np.linalg.inv(_matrix(finest.transform)) @ _matrix(source.transform)
    (left, right, across), (top, bottom, down), _ = (to_fine @ ends.T).tolist()
    factor = round((right - left) / source.width)
    corners = (left, top, right - left - factor * source.width,
               bottom - top - factor * source.height, across - right, down - top)  # fmt: skip
    off = [abs(x - round(x)) for x in corners[:2]] + [abs(x) for x in corners[2:]]
    if factor < 1 or max(off) > _TOLERANCE:
        raise SceneError(
            f"bands must lie on one grid, pixel corner on pixel corner; {source.layer.name} "
            f"({_grid(source)}) does not lie on {finest.layer.name}'s ({_grid(finest)}). "
            f"Leave one out, or bring them together first (gdalwarp)."
        )
    return _Place(round(top), round(left), factor, source)


def _matrix(transform: Affine) -> NDArray[np.float64]:
    return np.array(transform, float).reshape(3, 3)


def _grid(source: _Source) -> str:
    """A grid in words."""
    t = source.transform
    size = f"{source.width} x {source.height} pixels of {t.a:.9g} x {t.e:.9g}"
    return f"{size} from {t.c:.9g}, {t.f:.9g}"


def _common_extent(places: Sequence[_Place]) -> _Extent:
    """What all bands cover, in whole pixels of each of them.

    Raises:
        SceneError: they have nothing in common.
    """
    row, stop_row = _overlap([(p.row, p.stop_row, p.factor) for p in places])
    col, stop_col = _overlap([(p.col, p.stop_col, p.factor) for p in places])
    if row >= stop_row or col >= stop_col:
        names = ", ".join(place.source.layer.name for place in places)
        raise SceneError(
            f"bands must cover the same ground; these have nothing in common: {names}."
        )
    return _Extent(row, col, stop_row - row, stop_col - col)


def _overlap(spans: Sequence[tuple[int, int, int]]) -> tuple[int, int]:
    """The part that all spans (start, stop, step) cover, cut at a step of each; empty if none."""
    cycle = math.lcm(*(step for _, _, step in spans))
    start, stop = max(s[0] for s in spans), min(s[1] for s in spans)

    def fits(at: int) -> bool:
        return all((at - first) % step == 0 for first, _, step in spans)

    first = next((at for at in range(start, start + cycle) if fits(at)), stop)
    last = next((at for at in range(stop, stop - cycle, -1) if fits(at)), start)
    return first, last


def _virtual_dataset(
    places: Sequence[_Place], extent: _Extent, finest: _Source, nodata: float | None
) -> str:
    """The stack as GDAL's VRT: https://gdal.org/en/stable/drivers/raster/vrt.html."""
    root = ET.Element("VRTDataset", rasterXSize=str(extent.width), rasterYSize=str(extent.height))
    if finest.crs is not None:
        _add(root, "SRS", finest.crs.to_wkt(version="WKT2_2019"), dataAxisToSRSAxisMapping="1,2")
    a, b, c, d, e, f, *_ = finest.transform
    x, y = a * extent.col + b * extent.row + c, d * extent.col + e * extent.row + f
    if finest.transform != Affine.identity():
        _add(root, "GeoTransform", ", ".join(repr(float(n)) for n in (x, a, b, y, d, e)))
    for i, place in enumerate(places, start=1):
        band = _add(root, "VRTRasterBand", dataType=_GDAL_TYPES[place.source.dtype], band=str(i))
        _add(band, "Description", place.source.layer.name)
        if nodata is not None:
            _add(band, "NoDataValue", repr(nodata))
        if (place.source.scale, place.source.offset) != (1.0, 0.0):
            _add(band, "Offset", repr(place.source.offset))
            _add(band, "Scale", repr(place.source.scale))
        _add_source(band, place, extent, str(place.source.layer.band))
        if place.source.masked:
            mask = _add(_add(band, "MaskBand"), "VRTRasterBand", dataType="Byte")
            _add_source(mask, place, extent, f"mask,{place.source.layer.band}")
    return ET.tostring(root, encoding="unicode")


def _add_source(parent: ET.Element, place: _Place, extent: _Extent, band: str) -> None:
    """One band of a file; its properties spare GDAL opening the file before it is read."""
    source, factor = place.source, place.factor
    part = _add(parent, "SimpleSource", resampling="nearest")
    # Not shared: each open dataset then has handles of its own, as each thread has to.
    _add(part, "SourceFilename", source.layer.uri, relativeToVRT="0", shared="0")
    _add(part, "SourceBand", band)
    if not band.startswith("mask"):
        size = {"RasterXSize": source.width, "RasterYSize": source.height}
        blocks = {"BlockXSize": source.block[1], "BlockYSize": source.block[0]}
        facts: dict[str, Any] = {**size, "DataType": _GDAL_TYPES[source.dtype], **blocks}
        _add(part, "SourceProperties", **facts)
    _add(part, "SrcRect",
         xOff=(extent.col - place.col) // factor, yOff=(extent.row - place.row) // factor,
         xSize=extent.width // factor, ySize=extent.height // factor)  # fmt: skip
    _add(part, "DstRect", xOff=0, yOff=0, xSize=extent.width, ySize=extent.height)


def _add(parent: ET.Element, tag: str, text: str | None = None, **attributes: Any) -> ET.Element:
    element = ET.SubElement(parent, tag, {key: str(value) for key, value in attributes.items()})
    element.text = text
    return element

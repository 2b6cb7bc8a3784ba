"""A scene: what its file says it is, and reading it by windows.

`open_scene` is the only function here that takes a path or URI. A `Scene` holds no open handle and
can be pickled; each thread that reads opens its own with `Scene.open`.
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import rasterio
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from geounet.errors import GeounetWarning, SceneError
from geounet.products import find_product
from geounet.products.raster import open_raster
from geounet.products.reading import read_bands
from geounet.radiometry import Radiometry, decide_radiometry
from geounet.remote import attempt
from geounet.sensors import name_bands
from geounet.tiling import Window

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from affine import Affine
    from numpy.typing import NDArray
    from rasterio.crs import CRS

    from geounet.products import Product
    from geounet.resampling import Resampling

__all__ = ["Grid", "Scene", "SceneReader", "Tile", "open_scene"]

_CACHE_BYTES = (64 << 20, 512 << 20)
"""Least and most that GDAL may keep of decoded blocks."""


@dataclass(frozen=True)
class Grid:
    """Where a scene's pixels lie."""

    crs: CRS | None
    transform: Affine
    """Pixel corner (col, row) to CRS coordinates; may be rotated or sheared."""
    width: int
    height: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    def pixel_areas(self) -> NDArray[np.float64]:
        """True area of a pixel in each row, in square metres: float64 [height].

        With a CRS it is measured on the ellipsoid (Karney 2013, doi:10.1007/s00190-012-0578-z) at
        33 rows of the scene's middle column and interpolated between them, so that it is right in
        a geographic or a conformal CRS too. A local CRS is flat, in its own units; without a CRS
        units are taken as metres.
        """
        if self.crs is None:
            return np.full(self.height, abs(self.transform.determinant))
        crs = pyproj.CRS.from_wkt(self.crs.to_wkt(version="WKT2_2019"))
        if crs.geodetic_crs is None:
            unit = crs.axis_info[0].unit_conversion_factor
            return np.full(self.height, abs(self.transform.determinant) * unit**2)
        at = np.linspace(0.5, self.height - 0.5, min(self.height, 33))
        corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
        cols = self.width / 2 + corners[:, 0] + np.zeros((len(at), 1))
        rows = at[:, None] + corners[:, 1]
        a, b, c, d, e, f, *_ = self.transform
        x, y = a * cols + b * rows + c, d * cols + e * rows + f
        to_lonlat = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
        geod = crs.get_geod() or pyproj.Geod(ellps="WGS84")
        lon, lat = to_lonlat.transform(x, y)
        areas = [abs(geod.polygon_area_perimeter(*ring)[0]) for ring in zip(lon, lat, strict=True)]
        return np.asarray(np.interp(np.arange(self.height) + 0.5, at, areas))


@dataclass(frozen=True, eq=False, slots=True)
class Tile:
    """A window with its pixels."""

    window: Window
    dn: NDArray[Any]
    """Numbers as stored [bands, height, width]; `Radiometry` makes them reflectance."""
    valid: NDArray[np.bool_]
    """True where observed [height, width]."""


@dataclass(frozen=True)
class Scene:
    """What is known of a scene before a pixel is read."""

    uri: str
    """What the user gave, without passwords and signatures."""
    product: Product
    """What it is, and the path that GDAL opens."""
    grid: Grid
    bands: tuple[str, ...]
    """Common names in file order; a band whose name is not known keeps its own."""
    radiometry: Radiometry
    dtype: str
    nodata: float | None
    masked: bool
    """True where the file has a mask or an alpha band of its own."""
    block: tuple[int, int]
    """Height and width of the file's internal blocks."""

    @property
    def stem(self) -> str:
        """Outputs are named after it; of a file, its name without folder and suffix."""
        return self.product.stem

    @property
    def read_rows(self) -> int:
        """Rows to read at a time: whole rows of blocks, so that each block is decoded once."""
        return self.block[0] * -(-256 // self.block[0])

    @contextmanager
    def open(self) -> Iterator[SceneReader]:
        """Open the scene for one thread."""
        row_bytes = len(self.bands) * self.grid.width * np.dtype(self.dtype).itemsize
        wanted = int(1.1 * row_bytes * self.read_rows)
        cache = min(max(wanted, _CACHE_BYTES[0]), _CACHE_BYTES[1])
        with ExitStack() as stack:
            stack.enter_context(rasterio.Env(GDAL_CACHEMAX=cache, GDAL_NUM_THREADS="ALL_CPUS"))
            yield SceneReader(self, stack.enter_context(open_raster(self.product.path, self.uri)))

    def reflectance(
        self, names: Sequence[str], window: Window | None = None
    ) -> NDArray[np.float32]:
        """Read bands as reflectance: float32 [bands, height, width], NaN where not observed.

        Args:
            names: common names of the bands.
            window: which part to read; None for all of it.

        Raises:
            SceneError: the scene lacks a band, or cannot be read.
        """
        missing = [name for name in names if name not in self.bands]
        if missing:
            raise SceneError(
                f"the scene lacks {', '.join(missing)}; it has {', '.join(self.bands)}."
            )
        indexes = [self.bands.index(name) for name in names]
        window = window or Window(0, 0, *self.grid.shape)
        with self.open() as reader:
            tile = reader.read(window, indexes)
        scale, offset = (
            np.asarray([values[i] for i in indexes], np.float32)[:, None, None]
            for values in (self.radiometry.scale, self.radiometry.offset)
        )
        return np.where(tile.valid, tile.dn.astype(np.float32) * scale + offset, np.float32("nan"))


class SceneReader:
    """An open scene. It belongs to the thread that opened it and is never pickled."""

    def __init__(self, scene: Scene, dataset: rasterio.DatasetReader) -> None:
        self._scene = scene
        self._dataset = dataset

    def read(self, window: Window, indexes: Sequence[int], out: NDArray[Any] | None = None) -> Tile:
        """Read a window of some bands.

        Args:
            window: the pixels.
            indexes: bands, 0-based in file order.
            out: array of the scene's type to read into [bands, height, width]; a smaller one takes
                pixels spread evenly over the window, from an overview where there is one.

        Raises:
            SceneError: the file is damaged or went away.
        """
        area = RasterWindow(window.col, window.row, window.width, window.height)
        product = self._scene.product

        def read() -> tuple[NDArray[Any], NDArray[Any] | None]:
            dn = read_bands(
                self._dataset, indexes, window,
                factors=product.factors, resampling=product.resampling,
                nodata=self._scene.nodata, out=out,
            )  # fmt: skip
            if not self._scene.masked:
                return dn, None
            return dn, self._dataset.read_masks(1, window=area, out_shape=dn.shape[1:])

        try:
            dn, mask = attempt(product.path, read)
        except (RasterioError, OSError) as error:
            raise SceneError(
                f"cannot read rows {window.row} to {window.row + window.height} of "
                f"{self._scene.uri}: {error}. The file is truncated or damaged; get it again."
            ) from error
        valid = observed(dn, self._scene.nodata)
        if mask is not None:
            valid &= mask > 0
        return Tile(window, dn, valid)


def observed(dn: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Which pixels were observed: bool [height, width].

    Not observed is a pixel that is 0 in every band, whatever the file calls nodata; one with NaN
    or infinity in any band; and one that holds the nodata value in any band, unless that value is
    0: a single dark band may be 0 over deep water, and only all of them together say that nothing
    was seen.

    Args:
        dn: numbers as stored [bands, height, width].
        nodata: the file's nodata value.
    """
    valid: NDArray[np.bool_] = dn[0] != 0
    for band in dn[1:]:
        if valid.all():
            break
        valid |= band != 0
    if np.issubdtype(dn.dtype, np.floating):
        for band in dn:
            valid &= np.isfinite(band)
    if nodata:
        for band in dn:
            valid &= band != nodata
    return valid


def open_scene(
    uri: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    bands: Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    resampling: Resampling = "bilinear",
    wanted: Sequence[str] | None = None,
) -> Scene:
    """Look at a scene without reading its pixels.

    Args:
        uri: path or URI of a raster (GeoTIFF, COG, VRT, …); a product's folder, archive or metadata
            file (Sentinel-2, Landsat Collection 2, HLS); a pattern or list of single-band files.
        bands: names of all bands in file order, for a file that does not name them or names them
            wrongly; ``-`` for one to leave out.
        scale: reflectance per stored number, for all bands; None takes it from the file.
        offset: reflectance at stored number 0, for all bands; None takes it from the file.
        nodata: stored number that means "not observed"; None takes it from the file.
        resampling: how bands of coarser pixels come onto the grid of the finest.
        wanted: common names of the bands that decide how fine the grid is; None for all that
            a product of this kind is used with (of Sentinel-2 those of 10 and 20 m).

    Raises:
        SceneError: there is no such file, it is no raster, nothing says what its bands are, or
            its pixels are not reflectance.
        ConfigError: `bands`, `scale` or `offset` break a rule.

    Warns:
        GeounetWarning: the file has no CRS, or nothing in it says how its numbers become
            reflectance.
    """
    product = find_product(uri, resampling=resampling, wanted=wanted)
    uri = product.uri
    with open_raster(product.path, uri) as source:
        names = _name_bands(source, product.names, bands)
        scene = Scene(
            uri=uri,
            product=product,
            grid=Grid(source.crs, source.transform, source.width, source.height),
            bands=names,
            radiometry=decide_radiometry(product.evidence, scale=scale, offset=offset),
            dtype=source.dtypes[0],
            nodata=product.nodata if nodata is None else nodata,
            masked=MaskFlags.per_dataset in source.mask_flag_enums[0],
            block=product.block or source.block_shapes[0],
        )
        if len(set(source.dtypes)) > 1:
            raise SceneError(
                f"all bands must be of one type; {uri} has {', '.join(sorted(set(source.dtypes)))}."
            )
    _warn_of_assumptions(scene)
    return scene


def _name_bands(
    source: rasterio.DatasetReader, own: Sequence[str | None], told: Sequence[str] | None
) -> tuple[str, ...]:
    """Names of all bands; an alpha band is no band of the sensor and goes by ``-``."""
    alpha = [kind.name == "alpha" for kind in source.colorinterp]
    if told is not None:
        named = zip(name_bands(source.count, told=told), alpha, strict=True)
        return tuple("-" if is_alpha else name for name, is_alpha in named)
    texts = [t for t, is_alpha in zip(own, alpha, strict=True) if not is_alpha]
    names = iter(name_bands(len(texts), texts))
    return tuple("-" if is_alpha else next(names) for is_alpha in alpha)


def _warn_of_assumptions(scene: Scene) -> None:
    if scene.grid.crs is None:
        warnings.warn(
            f"{scene.uri} has no CRS: the outputs have none either, and areas are in squared "
            f"pixel units of its transform.",
            GeounetWarning,
            stacklevel=3,
        )
    if scene.radiometry.assumed:
        warnings.warn(
            f"nothing in {scene.uri} says how its numbers become reflectance: "
            f"{scene.radiometry.reason}. Settle it with --scale and --offset.",
            GeounetWarning,
            stacklevel=3,
        )

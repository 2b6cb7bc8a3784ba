"""A scene: what its file says it is, and reading it by windows.

`open_scene` is the only function here that takes a path or URI. A `Scene` holds no open handle and
can be pickled; each thread that reads opens its own with `Scene.open`.
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import rasterio
from affine import Affine
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from geounet import remote
from geounet.clouds import check_clouds, cloud_layer, open_clouds
from geounet.errors import ConfigError, GeounetWarning, SceneError
from geounet.ground import pyproj_crs, unit_of
from geounet.parts import Area, area_on_grid, read_polygons, window_of_bbox, window_within
from geounet.products import find_product
from geounet.products.raster import open_product, open_raster
from geounet.products.reading import explain_failure, read_bands
from geounet.radiometry import Radiometry, check_radiometry, decide_radiometry
from geounet.sensors import check_sensor, common_name, is_reflective, name_bands
from geounet.tiling import Window

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    import shapely
    from numpy.typing import NDArray
    from rasterio.crs import CRS

    from geounet.products import Product
    from geounet.products.cube import CubeReader
    from geounet.products.product import CloudLayer, CloudRule
    from geounet.resampling import Resampling

__all__ = ["Grid", "Part", "Scene", "SceneReader", "Tile", "open_scene"]

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

    def crop(self, window: Window) -> Grid:
        """The grid of a window's pixels."""
        a, b, c, d, e, f, *_ = self.transform
        col, row = window.col, window.row
        moved = Affine(a, b, a * col + b * row + c, d, e, d * col + e * row + f)
        return Grid(self.crs, moved, window.width, window.height)

    def pixel_areas(self) -> NDArray[np.float64]:
        """True area of a pixel in each row, in square metres: float64 [height].

        With a CRS it is measured on the ellipsoid (Karney 2013, doi:10.1007/s00190-012-0578-z) at
        33 rows of the scene's middle column and interpolated between them, so that it is right in
        a geographic or a conformal CRS too. A local CRS is flat, in its own units; without a CRS
        units are taken as metres. What lies beyond the Earth, as around a full disk, has none.
        """
        crs = pyproj_crs(self.crs)
        if crs is None or crs.geodetic_crs is None:
            return np.full(self.height, abs(self.transform.determinant) * unit_of(crs) ** 2)
        at = np.linspace(0.5, self.height - 0.5, min(self.height, 33))
        corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
        cols = self.width / 2 + corners[:, 0] + np.zeros((len(at), 1))
        rows = at[:, None] + corners[:, 1]
        a, b, c, d, e, f, *_ = self.transform
        x, y = a * cols + b * rows + c, d * cols + e * rows + f
        to_lonlat = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
        geod = crs.get_geod() or pyproj.Geod(ellps="WGS84")
        unit = unit_of(crs.geodetic_crs)  # of grads, in old French ones
        lon, lat = (unit * angles for angles in to_lonlat.transform(x, y))
        areas = [
            abs(geod.polygon_area_perimeter(east, north, radians=True)[0])
            for east, north in zip(lon, lat, strict=True)
        ]
        known = np.nan_to_num(areas, nan=0.0)
        return np.asarray(np.interp(np.arange(self.height) + 0.5, at, known))


@dataclass(frozen=True, eq=False, slots=True)
class Tile:
    """A window with its pixels."""

    window: Window
    dn: NDArray[Any]
    """Numbers as stored [bands, height, width]; `Radiometry` makes them reflectance."""
    valid: NDArray[np.bool_]
    """True where observed [height, width]."""


@dataclass(frozen=True)
class Part:
    """Which of a raster's pixels a scene is."""

    whole: Grid
    """Of the raster."""
    window: Window
    """The raster's pixels that the scene has."""
    areas: tuple[Area, ...] = ()
    """Laid onto `whole`; pixels with their centre outside one of them were not observed."""

    @property
    def place(self) -> str:
        """Column, row, width and height, and of how many pixels; for the record."""
        at, whole = self.window, self.whole
        inside = ", inside a geometry" if self.areas else ""
        return (
            f"{at.col},{at.row},{at.width},{at.height} of {whole.width} x {whole.height} pixels"
            f"{inside}"
        )

    def in_file(self, window: Window) -> Window:
        """A window of the scene among the raster's pixels."""
        return replace(window, row=window.row + self.window.row, col=window.col + self.window.col)

    def in_scene(self, window: Window) -> Window:
        """A window of the raster among the scene's pixels."""
        return replace(window, row=window.row - self.window.row, col=window.col - self.window.col)

    def inside(
        self, window: Window, shape: tuple[int, int] | None = None
    ) -> NDArray[np.bool_] | None:
        """Which pixels of a window of the raster lie in all areas: bool [height, width].

        None stands for all of them. `shape` is that of `Area.inside`.
        """
        if not self.areas:
            return None
        found: NDArray[np.bool_] = np.logical_and.reduce(
            [area.inside(window, shape) for area in self.areas]
        )
        return found


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
    block: tuple[int, int]
    """Height and width of the file's internal blocks."""
    masks: tuple[int, ...] = ()
    """For each band the one, 1-based, whose mask says where it was observed; 0 where none does."""
    alpha: int = 0
    """The band, 1-based, that is 0 where nothing was observed; 0 where there is none."""
    part: Part | None = None
    """Which of the file's pixels these are; None for all of them."""
    clouds: CloudLayer | None = None
    """What says where clouds hide the ground; None where nothing does."""

    def __repr__(self) -> str:
        crs = self.grid.crs.to_string() if self.grid.crs else "no CRS"
        size = f"{self.grid.width} x {self.grid.height} pixels"
        return f"<{type(self).__name__} {self.uri}: {size}, {crs}; {', '.join(self.bands)}>"

    @property
    def stem(self) -> str:
        """Outputs are named after it; of a file, its name without folder and suffix."""
        return self.product.stem

    @property
    def _read_rows(self) -> int:
        return self.block[0] * -(-256 // self.block[0])

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Cut rows where the file's blocks end, so that each block is decoded once.

        Yields:
            first row and the row after the last of what is best read at once.
        """
        step = self._read_rows
        above = self.part.window.row if self.part else 0
        while start < stop:
            end = min(start - (start + above) % step + step, stop)
            yield start, end
            start = end

    def crop(self, window: Window) -> Scene:
        """The scene of a window's pixels; what reaches out of this one is cut off.

        Raises:
            SceneError: the window lies outside the scene.
        """
        part = self.part or _all_of(self.grid)
        part = replace(part, window=part.in_file(window_within(window, self.grid, "the window")))
        return replace(self, grid=part.whole.crop(part.window), part=part)

    def clip(
        self, geometry: shapely.Geometry | Sequence[shapely.Geometry], crs: object = None
    ) -> Scene:
        """The scene of the pixels around polygons; outside of them nothing was observed.

        Args:
            geometry: polygons; what is none is left out. A pixel belongs to them by its centre.
            crs: theirs, as pyproj understands it; None takes the scene's.

        Raises:
            ConfigError: there is no polygon, or the CRS is not known.
            SceneError: the polygons lie outside the scene, or the scene has no CRS.
        """
        part = self.part or _all_of(self.grid)
        area = area_on_grid(np.atleast_1d(np.asarray(geometry, object)), crs, part.whole)
        part = replace(part, areas=(*part.areas, area))
        return replace(self, part=part).crop(part.in_scene(area.window))

    @contextmanager
    def open(self) -> Iterator[SceneReader]:
        """Open the scene for one thread."""
        width = self.grid.width + 2 * self.block[1]  # a part may begin and end within a block
        row_bytes = len(self.bands) * width * np.dtype(self.dtype).itemsize
        wanted = int(1.1 * row_bytes * self._read_rows)
        cache = min(max(wanted, _CACHE_BYTES[0]), _CACHE_BYTES[1])
        with ExitStack() as stack:
            stack.enter_context(rasterio.Env(GDAL_CACHEMAX=cache, GDAL_NUM_THREADS="ALL_CPUS"))
            yield SceneReader(self, stack.enter_context(open_product(self.product)))

    def share_observed(self, side: int = 512) -> float | None:
        """About which share of the pixels was observed, by a thin grid of them in three bands.

        None where that would fetch all of a remote scene, because it has no overviews.

        Args:
            side: rows and columns that are looked at, at most.

        Raises:
            SceneError: the scene cannot be read.
        """
        path, cube = self.product.path, self.product.cube
        if cube is not None and remote.is_remote(cube.uri):
            return None
        if remote.is_remote(path):
            with open_raster(path, self.uri) as source:
                if not source.overviews(1):
                    return None
        shape = tuple(min(side, size) for size in self.grid.shape)
        indexes = [i for i, name in enumerate(self.bands) if name != "-"][:3]
        with self.open() as reader:
            out = np.empty((len(indexes), *shape), self.dtype)
            tile = reader.read(Window(0, 0, *self.grid.shape), indexes, out=out)
        return float(tile.valid.mean())

    @property
    def cloud_mask(self) -> str | None:
        """Name and rule of the cloud layer, for the record."""
        if self.clouds is None:
            return None
        return f"{remote.stem(self.clouds.uri)} ({self.clouds.rule})"

    @contextmanager
    def open_clouds(self) -> Iterator[Callable[[Window], NDArray[np.bool_]] | None]:
        """Open the cloud layer for one thread.

        Yields:
            what reads which pixels of a window are obscured, bool [height, width]; None where the
            scene has no cloud layer.
        """
        if self.clouds is None:
            yield None
            return
        part = self.part or _all_of(self.grid)
        with open_clouds(self.clouds, part.whole) as reader:
            yield lambda window: reader.read(part.in_file(window))

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

    def checked(self, indexes: Sequence[int] | None = None) -> Scene:
        """Look at pixels: the scene with the radiometry that they bear out.

        Args:
            indexes: bands to look at, 0-based in file order; None for all that hold reflectance.

        Raises:
            SceneError: the pixels contradict the radiometry, or do not settle what is disputed
                (`check_radiometry`); or they cannot be read.

        Warns:
            GeounetWarning: another reading is taken for what the pixels say, or may be right.
        """
        indexes = range(len(self.bands)) if indexes is None else indexes
        bands = {i: self.bands[i] for i in indexes if is_reflective(self.bands[i])}
        if not bands:
            return self
        samples, evidence = self.sample(tuple(bands)), self.product.evidence
        try:
            radiometry = check_radiometry(self.radiometry, evidence, samples, bands)
        except SceneError as error:
            raise SceneError(f"{self.uri}: {error}") from error
        for text in radiometry.warnings:
            warnings.warn(f"{self.uri}: {text}", GeounetWarning, stacklevel=3)
        return replace(self, radiometry=radiometry)

    def sample(self, indexes: Sequence[int], size: int = 256) -> NDArray[Any]:
        """Stored numbers of the observed pixels at nine places of the scene: [bands, n]."""
        height, width = (min(size, side) for side in self.grid.shape)
        rows = {int(r) for r in np.linspace(0, self.grid.height - height, 3)}
        cols = {int(c) for c in np.linspace(0, self.grid.width - width, 3)}
        with self.open() as reader:
            windows = (Window(row, col, height, width) for row in sorted(rows) for col in cols)
            tiles = [reader.read(window, indexes) for window in windows]
        return np.concatenate([tile.dn[:, tile.valid] for tile in tiles], axis=1)


class SceneReader:
    """An open scene. It belongs to the thread that opened it and is never pickled."""

    def __init__(self, scene: Scene, dataset: rasterio.DatasetReader | CubeReader) -> None:
        self._scene = scene
        self._dataset: Any = dataset  # a cube has no masks to read, and is not asked for them

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
        if out is None:
            shape = (len(indexes), window.height, window.width)
            out = np.empty(shape, self._scene.dtype)
        part = self._scene.part
        place = part.in_file(window) if part else window
        inside = part.inside(place, out.shape[1:]) if part else None
        if inside is None:
            valid = self._fill(place, indexes, out)
        else:
            valid = self._fill_inside(place, indexes, out, inside)
        return Tile(window, out, valid)

    def _fill_inside(
        self, place: Window, indexes: Sequence[int], out: NDArray[Any], inside: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Like `_fill`, for the pixels of an area alone: no more than is around them is read."""
        if not inside.any():
            out[...] = 0
            return inside
        if inside.shape != (place.height, place.width):  # pixels are spread over the window
            return self._fill(place, indexes, out) & inside
        rows, cols = _span(inside, axis=1), _span(inside, axis=0)
        height, width = rows.stop - rows.start, cols.stop - cols.start
        smaller = Window(place.row + rows.start, place.col + cols.start, height, width)
        valid = np.zeros_like(inside)
        valid[rows, cols] = self._fill(smaller, indexes, fresh := np.empty_like(out[:, rows, cols]))
        out[...] = 0
        out[:, rows, cols] = fresh
        return valid & inside

    def _fill(self, place: Window, indexes: Sequence[int], out: NDArray[Any]) -> NDArray[np.bool_]:
        """Read a window of the file; returns which pixels were observed [height, width]."""
        area = RasterWindow(place.col, place.row, place.width, place.height)
        product = self._scene.product

        def read() -> NDArray[np.bool_] | None:
            read_bands(
                self._dataset, indexes, place,
                factors=product.factors, resampling=product.resampling,
                nodata=self._scene.nodata, out=out,
            )  # fmt: skip
            return self._mask(indexes, area, out.shape[1:])

        try:
            unmasked = remote.attempt(product.path, read)
        except (RasterioError, OSError) as error:
            why = explain_failure(error, self._dataset, indexes, place, product.layers)
            raise SceneError(
                f"cannot read rows {place.row} to {place.row + place.height} of "
                f"{self._scene.uri}: {why}. The file is truncated or damaged; get it again."
            ) from error
        valid = observed(out, self._scene.nodata)
        if unmasked is not None:
            valid &= unmasked
        return valid

    def _mask(
        self, indexes: Sequence[int], area: RasterWindow, shape: tuple[int, ...]
    ) -> NDArray[np.bool_] | None:
        """Where the file's masks and alpha band say that these bands were observed."""
        scene, source = self._scene, self._dataset
        masks = sorted({scene.masks[i] for i in indexes if scene.masks} - {0})
        seen = [source.read_masks(band, window=area, out_shape=shape) != 0 for band in masks]
        if scene.alpha:
            seen.append(source.read(scene.alpha, window=area, out_shape=shape) != 0)
        return np.logical_and.reduce(seen) if seen else None


def _all_of(grid: Grid) -> Part:
    return Part(grid, Window(0, 0, *grid.shape))


def _span(inside: NDArray[np.bool_], axis: int) -> slice:
    """From the first line across an axis with a true in it to the last."""
    places = np.flatnonzero(inside.any(axis=axis))
    return slice(int(places[0]), int(places[-1]) + 1)


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
    sensor: str | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    resampling: Resampling = "bilinear",
    wanted: Sequence[str] | None = None,
    window: tuple[int, int, int, int] | None = None,
    bbox: tuple[float, float, float, float] | None = None,
    bbox_crs: str | None = None,
    geometry: str | os.PathLike[str] | None = None,
    cloud_mask: str | os.PathLike[str] | None = None,
    cloud_rule: CloudRule | None = None,
    time: str | None = None,
) -> Scene:
    """Look at a scene without reading its pixels.

    Args:
        uri: path or URI of a raster (GeoTIFF, COG, VRT, …); a product's folder, archive or metadata
            file (Sentinel-2, Landsat Collection 2, HLS, PlanetScope); netCDF or Zarr; a pattern or
            list of single-band files.
        bands: names of all bands in file order, for a file that does not name them or names them
            wrongly; ``-`` for one to leave out.
        sensor: a key of `sensors.SENSORS`, where the scene does not say, or says wrongly.
        scale: reflectance per stored number, for all bands; None takes it from the file.
        offset: reflectance at stored number 0, for all bands; None takes it from the file.
        nodata: stored number that means "not observed"; None takes it from the file.
        resampling: how bands of coarser pixels come onto the grid of the finest.
        wanted: common names of the bands that decide how fine the grid is; None for all that
            a product of this kind is used with (of Sentinel-2 those of 10 and 20 m).
        window: a part of the scene in pixels: first column, first row, width, height.
        bbox: a part of the scene: minx, miny, maxx, maxy in `bbox_crs`.
        bbox_crs: CRS of `bbox`, as PROJ knows it; None takes the scene's.
        geometry: a vector file of polygons; what lies outside them is not observed. Of several
            kinds of part the scene is what they have in common.
        cloud_mask: a raster of any grid and CRS that says where clouds hide the ground, or
            ``product`` for the product's own.
        cloud_rule: how its numbers are read, see `clouds`; None tells it by its name or numbers.
        time: which moment of a netCDF's or Zarr's several, by how its time begins: ``2023-07-01``.

    Raises:
        SceneError: there is no such file, it is no raster, nothing says what its bands are, its
            pixels are not reflectance, or the part lies outside it.
        ConfigError: an argument breaks a rule.

    Warns:
        GeounetWarning: the file has no CRS, nothing in it says how its numbers become
            reflectance, or what it says contradicts itself or what was told.
    """
    found = find_product(uri, resampling=resampling, wanted=wanted, time=time)
    product = _of_sensor(found, sensor, settled=sensor or bands)
    uri = product.uri
    with open_product(product) as source:
        names = _name_bands(source, product, bands)
        scene = Scene(
            uri=uri,
            product=product,
            grid=Grid(source.crs, source.transform, source.width, source.height),
            bands=names,
            radiometry=_decide(product, scale, offset),
            dtype=source.dtypes[0],
            nodata=product.nodata if nodata is None else nodata,
            block=product.block or source.block_shapes[0],
            masks=_masks_of(source),
            alpha=_alpha_of(source, names),
        )
        _check_source(source, uri, nodata)
        points = bool(source.gcps[0])
    _warn_of_assumptions(scene, points=points)
    scene = replace(scene, clouds=_clouds_of(scene, cloud_mask, cloud_rule))
    return _part_of(scene, window, bbox, bbox_crs, geometry)


def _check_source(
    source: rasterio.DatasetReader | CubeReader, uri: str, nodata: float | None
) -> None:
    """Refuse what no mask could be made of, though GDAL opens it."""
    if nodata is not None and not _can_be(nodata, np.dtype(source.dtypes[0])):
        raise ConfigError(
            f"--nodata must be a number that a pixel can hold; got {nodata:g}, and {uri} is "
            f"{source.dtypes[0]}."
        )
    if len(set(source.dtypes)) > 1:
        raise SceneError(
            f"all bands must be of one type; {uri} has {', '.join(sorted(set(source.dtypes)))}."
        )
    if (crs := pyproj_crs(source.crs)) and crs.is_geocentric:
        raise SceneError(
            f"a scene's CRS must be a map's or in longitude and latitude; {uri} has the geocentric "
            f"{crs.name}. Set the right one, with gdal_edit.py "
            f"-a_srs, or warp it."
        )
    if not np.isfinite(tuple(source.transform)).all() or source.transform.is_degenerate:
        raise SceneError(
            f"a scene's transform must give each pixel a place of its own; that of {uri} is "
            f"{', '.join(f'{number:g}' for number in source.transform[:6])}. Set the right one, "
            f"with gdal_edit.py -a_ullr."
        )


def _can_be(number: float, dtype: np.dtype[Any]) -> bool:
    """Whether a pixel of a type can hold a number."""
    if not np.issubdtype(dtype, np.integer):
        return True
    limits = np.iinfo(dtype)
    return float(number).is_integer() and limits.min <= number <= limits.max


def _clouds_of(
    scene: Scene, mask: str | os.PathLike[str] | None, rule: CloudRule | None
) -> CloudLayer | None:
    """The cloud layer that was asked for, if it fits the scene."""
    if mask is None:
        if rule is not None:
            raise ConfigError("--cloud-rule is how --cloud-mask is read; there is none.")
        return None
    if str(mask) != "product":
        layer = cloud_layer(mask, rule)
    elif scene.product.clouds is None:
        raise ConfigError(
            f"--cloud-mask product takes the product's own; {scene.uri} ({scene.product.kind}) has "
            f"none. Give the path of a raster."
        )
    else:
        layer = replace(scene.product.clouds, rule=rule or scene.product.clouds.rule)
    check_clouds(layer, scene.grid)
    return layer


def _part_of(
    scene: Scene,
    window: tuple[int, int, int, int] | None,
    bbox: tuple[float, float, float, float] | None,
    bbox_crs: str | None,
    geometry: str | os.PathLike[str] | None,
) -> Scene:
    """What the parts have in common; each is laid onto the whole scene."""
    if bbox_crs is not None and bbox is None:
        raise ConfigError("--bbox-crs is that of --bbox; there is none.")
    whole = scene.grid
    if window is not None:
        col, row, width, height = window
        scene = scene.crop(Window(row, col, height, width))
    if bbox is not None:
        part = scene.part or _all_of(whole)
        scene = scene.crop(part.in_scene(window_of_bbox(whole, bbox, bbox_crs)))
    return scene if geometry is None else scene.clip(*read_polygons(geometry))


def _of_sensor(product: Product, told: str | None, *, settled: object) -> Product:
    """The product with the sensor that was told, if one was.

    Raises:
        SceneError: what there is speaks of different sensors, and nothing was told.
        ConfigError: the sensor is not known.
    """
    if product.evidence.conflict and not settled:
        raise SceneError(product.evidence.conflict)
    if told is None:
        return product
    sensor = check_sensor(told)
    return replace(product, sensor=sensor, evidence=replace(product.evidence, sensor=sensor))


def _name_bands(
    source: rasterio.DatasetReader | CubeReader, product: Product, told: Sequence[str] | None
) -> tuple[str, ...]:
    """Names of all bands; an alpha band is no band of the sensor and goes by ``-``.

    Who writes four bands of 8 bits is soon told by GDAL that the fourth is alpha: a name stands
    above that, the user's or the file's, and so does NAIP's custom.
    """
    if told is not None:
        return name_bands(source.count, told=told, sensor=product.sensor)
    four = product.sensor == "naip" and source.count == 4
    alpha = [
        kind.name == "alpha" and not four and not (text and common_name(text, product.sensor))
        for kind, text in zip(source.colorinterp, product.names, strict=True)
    ]
    texts = [t for t, is_alpha in zip(product.names, alpha, strict=True) if not is_alpha]
    names = iter(name_bands(len(texts), texts, sensor=product.sensor))
    return tuple("-" if is_alpha else next(names) for is_alpha in alpha)


def _masks_of(source: rasterio.DatasetReader | CubeReader) -> tuple[int, ...]:
    """For each band the one whose mask holds for it, see `Scene.masks`.

    GDAL flags a mask for all bands, one made of an alpha band or of nodata, and that there is none;
    a mask of a band's own has no flag.
    """
    flags = source.mask_flag_enums
    one = MaskFlags.per_dataset in flags[0] and MaskFlags.alpha not in flags[0]
    return tuple(1 if one else 0 if other else i for i, other in enumerate(flags, start=1))


def _alpha_of(source: rasterio.DatasetReader | CubeReader, names: Sequence[str]) -> int:
    """The alpha band, if its name is no band's; beside nodata, GDAL makes no mask of it."""
    kinds = enumerate(zip(source.colorinterp, names, strict=True), start=1)
    return next((i for i, (kind, name) in kinds if kind.name == "alpha" and name == "-"), 0)


def _decide(product: Product, scale: float | None, offset: float | None) -> Radiometry:
    try:
        return decide_radiometry(product.evidence, scale=scale, offset=offset)
    except SceneError as error:
        raise SceneError(f"{product.uri}: {error}") from error


def _warn_of_assumptions(scene: Scene, *, points: bool) -> None:
    """Warn of what had to be assumed; `points` says that ground control points place the scene."""
    if scene.grid.crs is None:
        a, b, _, d, e, *_ = scene.grid.transform
        size = f"{abs(a * e - b * d):g} m2"
        warnings.warn(
            f"{scene.uri} is placed by ground control points alone, which are not followed: the "
            f"outputs have no CRS, and areas count a pixel as {size}. Warp it first, with gdalwarp."
            if points
            else f"{scene.uri} has no CRS: the outputs have none either, and areas count a pixel "
            f"as {size}, its transform's units taken for metres.",
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
    for text in scene.radiometry.warnings:
        warnings.warn(f"{scene.uri}: {text}", GeounetWarning, stacklevel=3)

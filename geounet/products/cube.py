"""netCDF and Zarr: a cube of bands, whose moments are scenes of their own.

xarray opens it (extra ``geounet[xarray]``) and understands its coordinates by the CF conventions;
here is what of a cube is one scene. Two layouts are known:

    a variable a band          odc-stac, openEO, Earth Engine through xee
    one with an axis of bands   stackstac, rioxarray

Numbers are read as they are stored; ``scale_factor`` and ``add_offset`` are evidence like others.
"""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import CRSError

from geounet.buckets import store_below, url_of
from geounet.errors import ConfigError, GeounetError, SceneError
from geounet.products.product import CLOUD_NAMES, CloudLayer, Product
from geounet.products.raster import one_nodata
from geounet.radiometry import Evidence, Statement
from geounet.remote import explain, redact, stem
from geounet.sensors import common_name, find_sensor

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray
    from rasterio.windows import Window as RasterWindow

__all__ = ["BAND_DIMS", "Cube", "CubeReader", "band_names", "find_cube", "scale_and_offset"]

BAND_DIMS = ("band", "bands", "variable", "channel", "wavelength")
"""What dimensions of bands are called."""

_NETCDF = re.compile(r"[^/]*\.(nc4?|cdf)$", re.IGNORECASE)
_ZARR = re.compile(r"([^/]*\.zarr)(/.*)?$", re.IGNORECASE)
"""A store, and perhaps a group in it, like ``measurements/reflectance/r10m`` of ESA's products."""
_Y, _X = ("y", "latitude", "lat", "northing"), ("x", "longitude", "lon", "easting")
_UNEVEN = 0.05
"""How far a coordinate may lie off an even spacing, in pixels."""
_BLOCK = 256
"""Rows that are best read at once where nothing is stored in chunks."""


@dataclass(frozen=True, slots=True)
class Cube:
    """Which of a cube's numbers are a scene's bands. It holds no open handle."""

    uri: str
    """What xarray opens."""
    variables: tuple[str, ...]
    """One a band; or one for all of them, with a dimension of bands."""
    band_dim: str | None
    space: tuple[str, str]
    """Names of the dimensions from row to row and from column to column."""
    at: tuple[tuple[str, int], ...]
    """Place in each of the other dimensions."""
    crs: str | None
    """As WKT."""
    transform: Affine
    nodata: float | None
    block: tuple[int, int]
    """Height and width of its chunks."""

    @contextmanager
    def open(self) -> Iterator[CubeReader]:
        """Open it for one thread.

        Raises:
            SceneError: it is not there any more, or damaged.
        """
        with _opened(self.uri) as dataset:
            yield CubeReader(self, dataset)


class CubeReader:
    """An open cube, as far as scenes are read like an open raster of rasterio's."""

    def __init__(self, cube: Cube, dataset: xr.Dataset) -> None:
        self._cube = cube
        self._arrays = [
            array.isel({dim: i for dim, i in cube.at if dim in array.dims})
            for array in (dataset[name] for name in cube.variables)
        ]
        first = self._arrays[0]
        self.count = first.sizes[cube.band_dim] if cube.band_dim else len(self._arrays)
        self.height, self.width = (first.sizes[dim] for dim in cube.space)
        self.shape = self.height, self.width
        self.crs = CRS.from_wkt(cube.crs) if cube.crs else None
        self.transform = cube.transform
        self.gcps = (), None
        self.nodata = cube.nodata
        self.dtypes = (first.dtype.name,) * self.count
        self.colorinterp = (ColorInterp.undefined,) * self.count
        self.mask_flag_enums = ((MaskFlags.all_valid,),) * self.count
        self.block_shapes = (cube.block,) * self.count

    def read(
        self,
        indexes: int | Sequence[int] | None = None,
        *,
        window: RasterWindow | None = None,
        out: NDArray[Any] | None = None,
        out_shape: tuple[int, ...] | None = None,
    ) -> NDArray[Any]:
        """Read bands as rasterio's readers do: 1-based; fewer pixels are spread over the window.

        Raises:
            OSError: it is damaged or went away.
            SceneError: its server failed.
        """
        top, left, height, width = 0, 0, self.height, self.width
        if window is not None:
            top, left = int(window.row_off), int(window.col_off)
            height, width = int(window.height), int(window.width)
        shape = (out.shape if out is not None else out_shape or (height, width))[-2:]
        rows, cols = _places(top, height, shape[0]), _places(left, width, shape[1])
        bands = range(1, self.count + 1) if indexes is None else indexes
        try:
            taken = self._take(np.atleast_1d(bands) - 1, rows, cols)
        except Exception as error:  # each format's package raises its own
            _refuse_of_server(self._cube.uri, error)
            raise OSError(f"{type(error).__name__}: {error}") from error
        taken = taken if np.ndim(bands) else taken[0]
        if out is None:
            return taken
        out[...] = taken
        return out

    def _take(
        self, bands: NDArray[np.int64], rows: slice | NDArray[Any], cols: slice | NDArray[Any]
    ) -> NDArray[Any]:
        y, x = self._cube.space
        band_dim = self._cube.band_dim
        if band_dim is not None:
            part = self._arrays[0].isel({band_dim: list(bands), y: rows, x: cols})
            return np.asarray(part.transpose(band_dim, y, x).to_numpy())
        parts = [self._arrays[i].isel({y: rows, x: cols}).transpose(y, x) for i in bands]
        return np.stack([part.to_numpy() for part in parts])


def _places(start: int, length: int, wanted: int) -> slice | NDArray[Any]:
    """All of an axis' places, or fewer that are spread evenly."""
    if wanted == length:
        return slice(start, start + length)
    return np.asarray(start + ((np.arange(wanted) + 0.5) * length / wanted).astype(int))


def find_cube(uri: str, *, time: str | None = None) -> Product | None:
    """The scene that a netCDF file or a Zarr store holds, if this is one.

    Args:
        uri: path; of Zarr also a URL.
        time: which moment of several, by the beginning of its time in ISO 8601.

    Raises:
        SceneError: it cannot be read, has no bands, or holds several moments and none was chosen.
        ConfigError: no moment or several begin as was told, or xarray is not installed.
    """
    uri = uri.rstrip("/")
    if not (_NETCDF.search(_path(uri)) or _ZARR.search(_path(uri))):
        return None
    with _opened(uri) as dataset:
        try:
            return _product(uri, dataset, time)
        except GeounetError:
            raise
        except (LookupError, TypeError, ValueError) as error:
            raise SceneError(
                f"a cube's attributes and coordinates must be as the CF conventions have them; "
                f"those of {redact(uri)} are not: {error}. Mend them with xarray."
            ) from error


def _path(uri: str) -> str:
    return (urlsplit(uri).path if "://" in uri else uri).replace("\\", "/")


def _name(uri: str) -> str:
    """Of the file or store, whatever group of it is meant."""
    store = _ZARR.search(_path(uri))
    return store[1] if store else Path(_path(uri)).name


@contextmanager
def _opened(uri: str) -> Iterator[xr.Dataset]:
    try:
        import rioxarray  # noqa: F401, PLC0415 - registers .rio; xarray is slow to load
        import xarray as xr  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"{redact(uri)} is netCDF or Zarr, which is read with xarray: install it with "
            f"pip install 'geounet[xarray]'."
        ) from error
    if "://" not in uri and not Path(uri).exists():
        raise SceneError(f"a scene must exist: there is no {uri}.")
    engine = "zarr" if _ZARR.search(_path(uri)) else None
    if "://" in uri and engine is None:
        raise SceneError(f"netCDF is read from disk; download {redact(uri)} and give its path.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = xr.open_dataset(
                _store(uri) if "://" in uri else uri, engine=engine, mask_and_scale=False,
                decode_coords="all", cache=False, chunks=None,
            )  # fmt: skip
    except GeounetError:
        raise
    except Exception as error:  # noqa: BLE001 - each format's package raises its own
        _refuse_of_server(uri, error)
        raise SceneError(
            f"cannot open {redact(uri)} with xarray: {redact(str(error))}. Check the path; it may "
            f"be damaged, or a package be missing that pip install 'geounet[xarray]' brings."
        ) from None
    with dataset:
        yield dataset


def _refuse_of_server(uri: str, error: Exception) -> None:
    """Raise what a server's failure means, if it is one: the same may succeed later."""
    if type(error).__module__.startswith("obstore"):
        raise explain(uri, error) from None


def _store(uri: str) -> Any:
    """Zarr's store of a URL."""
    from zarr.storage import ObjectStore  # noqa: PLC0415 - only where it is asked for

    return ObjectStore(store_below(url_of(uri)), read_only=True)


# -- what of it is a scene -------------------------------------------------------------------------


def _product(uri: str, dataset: xr.Dataset, time: str | None) -> Product:
    arrays, band_dim = _bands(uri, dataset)
    first = arrays[0]
    space = _space(first, uri)
    at, moment, several = _moment(first, {*space, band_dim}, time, uri)
    names = band_names(first, band_dim) if band_dim else tuple(str(a.name) for a in arrays)
    tags = {str(k): v for k, v in dataset.attrs.items() if isinstance(v, str)}
    found = find_sensor(name=_name(uri), tags=tags, bands=names)
    count = first.sizes[band_dim] if band_dim else len(arrays)
    grid = _crs(dataset, first, space), _transform(first, space, uri)
    cube = Cube(
        uri, tuple(str(a.name) for a in arrays), band_dim, space, at,
        *grid, nodata=_one_nodata(arrays, uri), block=_block(first, space),
    )  # fmt: skip
    when = re.sub(r"[-:]|Z$", "", moment) if moment else ""
    return Product(
        kind="cube",
        uri=redact(uri),
        path="",
        stem=stem(_name(uri)) + (f"_{when.removesuffix('T000000')}" if several else ""),
        names=names or (None,) * count,
        evidence=Evidence.of(
            found,
            dtype=first.dtype.name,
            count=count,
            bands=_stated(arrays, band_dim, count),
        ),
        sensor=found.sensor,
        level=found.level,
        acquired=moment if moment and re.match(r"\d{4}-\d\d-\d\d", moment) else None,
        clouds=_clouds(uri, dataset, cube),
        nodata=cube.nodata,
        block=cube.block,
        cube=cube,
    )


def _bands(uri: str, dataset: xr.Dataset) -> tuple[list[xr.DataArray], str | None]:
    """The variables that are bands; or the one that has a dimension of them, and that dimension.

    Raises:
        SceneError: there is neither, or they do not go together.
    """
    named = [a for name, a in dataset.data_vars.items() if common_name(str(name)) and a.ndim > 1]
    if _ZARR.search(_path(uri)):
        named.sort(key=lambda array: str(array.name))  # a store lists them in any order
    if len(named) > 1:
        kinds = {str(a.name): f"{a.dtype} {dict(a.sizes)}" for a in named}
        if len(set(kinds.values())) > 1:
            raise SceneError(
                f"a cube's bands must be of one type and on one grid; {redact(uri)} has "
                f"{', '.join(f'{name} ({kind})' for name, kind in kinds.items())}. Write those of "
                f"one grid to a file of their own."
            )
        return named, None
    cubes = [
        (array, str(dim))
        for array in dataset.data_vars.values()
        for dim in array.dims
        if dim in BAND_DIMS and array.ndim > 2
    ]
    if len(cubes) != 1:
        raise SceneError(
            f"a cube must have variables that are bands, like B03 or green, or one variable with a "
            f"dimension called {', '.join(BAND_DIMS)}; {redact(uri)} has "
            f"{', '.join(f'{n} {a.dims}' for n, a in dataset.data_vars.items()) or 'none'}. Of a "
            f"store with groups give the one with the bands (x.zarr/measurements/reflectance/r10m)."
        )
    return [cubes[0][0]], cubes[0][1]


def _space(array: xr.DataArray, uri: str) -> tuple[str, str]:
    """Names of the dimensions from row to row and from column to column."""
    lower = {str(dim).lower(): str(dim) for dim in array.dims}
    y = next((lower[name] for name in _Y if name in lower), None)
    x = next((lower[name] for name in _X if name in lower), None)
    if y is None or x is None:
        raise SceneError(
            f"a cube must have dimensions of space, like y and x; {redact(uri)} has "
            f"{', '.join(map(str, array.dims))}."
        )
    return y, x


def _moment(
    array: xr.DataArray, taken: set[str | None], time: str | None, uri: str
) -> tuple[tuple[tuple[str, int], ...], str | None, bool]:
    """The place in further dimensions, the time there, and whether there are others.

    Raises:
        SceneError: nothing chooses one of several.
        ConfigError: none or several begin as was told.
    """
    further = [str(dim) for dim in array.dims if dim not in taken]
    long = [dim for dim in further if array.sizes[dim] > 1]
    if len(long) > 1:
        raise SceneError(
            f"besides bands and space a cube may have one dimension, time; {redact(uri)} has "
            f"{', '.join(long)}. Choose of the others with xarray, and write what is left."
        )
    dim = next((d for d in (*long, *further) if d in array.coords or d in long), None)
    if dim is None:
        return tuple((d, 0) for d in further), _scalar_time(array), False
    texts = _texts(array.coords[dim].to_numpy()) if dim in array.coords else [
        str(i) for i in range(array.sizes[dim])
    ]  # fmt: skip
    fitting = [i for i, text in enumerate(texts) if text.startswith(time or "")]
    few = f"{', '.join(texts[:6])}{', …' if len(texts) > 6 else ''}"
    if time is not None and len(fitting) != 1:
        raise ConfigError(
            f"--time must be how one time of the cube begins; {time!r} is that of {len(fitting)}. "
            f"{redact(uri)} has {few}."
        )
    if len(fitting) > 1:
        raise SceneError(
            f"a scene is one moment; {redact(uri)} holds {len(texts)}: {few}. Choose one with "
            f"--time {texts[0][:10]}."
        )
    at = tuple((d, fitting[0] if d == dim else 0) for d in further)
    return at, texts[fitting[0]], len(texts) > 1


def _texts(values: NDArray[Any]) -> list[str]:
    """Times in ISO 8601; what is no time as it is."""
    if values.dtype.kind == "M":
        return [f"{text}Z" for text in np.datetime_as_string(values, unit="s")]
    return [str(value).replace(" ", "T") for value in values]


def _scalar_time(array: xr.DataArray) -> str | None:
    """The time that goes with all of it, as `isel` leaves it."""
    found = [array.coords[name] for name in ("time", "t") if name in array.coords]
    times = [c.to_numpy().reshape(1) for c in found if c.ndim == 0 and c.dtype.kind == "M"]
    return _texts(times[0])[0] if times else None


def band_names(array: xr.DataArray, band_dim: Hashable) -> tuple[str | None, ...]:
    """What the coordinate calls the bands, or ``long_name`` as rioxarray writes it."""
    for key in (band_dim, "common_name", "title"):
        if key in array.coords and array.coords[key].dims == (band_dim,):
            values = array.coords[key].to_numpy()
            if values.dtype.kind in "UOT":
                return tuple(str(value) for value in values)
    long_name = array.attrs.get("long_name")
    if isinstance(long_name, tuple | list) and len(long_name) == array.sizes[band_dim]:
        return tuple(str(name) for name in long_name)
    return ()


def scale_and_offset(
    facts: Mapping[Any, Any], count: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """As CF and rioxarray write them: one for all bands, or one a band."""
    scale = np.broadcast_to(facts.get("scales", facts.get("scale_factor", 1.0)), count)
    offset = np.broadcast_to(facts.get("offsets", facts.get("add_offset", 0.0)), count)
    return tuple(map(float, scale)), tuple(map(float, offset))


def _stated(arrays: Sequence[xr.DataArray], band_dim: str | None, count: int) -> Statement | None:
    if band_dim is not None:
        scales, offsets = scale_and_offset(arrays[0].attrs, count)
    else:
        each = [scale_and_offset(array.attrs, 1) for array in arrays]
        scales, offsets = tuple(s for (s,), _ in each), tuple(o for _, (o,) in each)
    if set(scales) == {1.0} and set(offsets) == {0.0}:
        return None
    return Statement("attributes", scales, offsets)


def _one_nodata(arrays: Sequence[xr.DataArray], uri: str) -> float | None:
    """The stored number that means "not observed"."""
    keys = ("_FillValue", "missing_value", "nodata")
    found = {
        str(a.name): float(next(a.attrs[key] for key in keys if key in a.attrs))
        for a in arrays
        if any(key in a.attrs for key in keys)
    }
    return one_nodata(found, redact(uri))


def _block(array: xr.DataArray, space: tuple[str, str]) -> tuple[int, int]:
    """Height and width of the chunks."""
    chunks = array.encoding.get("chunksizes") or array.encoding.get("chunks")
    if not chunks or len(chunks) != array.ndim:
        return min(_BLOCK, array.sizes[space[0]]), array.sizes[space[1]]
    height, width = (int(chunks[array.dims.index(dim)]) for dim in space)
    return height, width


def _clouds(uri: str, dataset: xr.Dataset, cube: Cube) -> CloudLayer | None:
    """A variable on the same grid that says where clouds are."""
    for name, array in dataset.data_vars.items():
        rule = CLOUD_NAMES.get(str(name).lower())
        if rule is None or not set(cube.space) <= {str(dim) for dim in array.dims}:
            continue
        nodata = _one_nodata([array], uri)
        layer = Cube(uri, (str(name),), None, cube.space, cube.at, cube.crs, cube.transform,
                     nodata, cube.block)  # fmt: skip
        return CloudLayer(redact(uri), 1, rule, cube=layer)
    return None


# -- where it lies ---------------------------------------------------------------------------------


def _crs(dataset: xr.Dataset, array: xr.DataArray, space: tuple[str, str]) -> str | None:
    """The grid mapping's, or what stackstac and rioxarray note, as WKT; degrees are WGS 84."""
    said = array.rio.crs
    mapping = next((v.attrs["crs_wkt"] for v in dataset.variables.values() if "crs_wkt" in v.attrs),
                   None)  # fmt: skip
    noted = (of.attrs.get(key) for of in (array, dataset) for key in ("crs", "proj:epsg"))
    for other in (mapping, *noted, _scalar(array, "epsg")):
        said = said or other
    degrees = all("degree" in str(array.coords[d].attrs.get("units", "")) for d in space
                  if d in array.coords)  # fmt: skip
    if said is None and degrees and all(dim in array.coords for dim in space):
        said = 4326
    said = int(said) if isinstance(said, np.integer) else said  # as attributes hold EPSG codes
    try:
        return CRS.from_user_input(said).to_wkt(version="WKT2_2019") if said else None
    except CRSError as error:
        raise SceneError(f"the cube's CRS must be one that PROJ knows; got {said!r}.") from error


def _scalar(array: xr.DataArray, name: str) -> int | None:
    found = array.coords.get(name)
    return int(found) if found is not None and found.ndim == 0 else None


def _transform(array: xr.DataArray, space: tuple[str, str], uri: str) -> Affine:
    """Pixel corners, of coordinates that are pixels' centres, but stackstac's.

    Raises:
        SceneError: coordinates that are not evenly spaced.
    """
    if not all(dim in array.coords for dim in space):
        return Affine.identity()
    corner = 0.0 if _at_corners(array, space) else 0.5
    (y, dy), (x, dx) = (_even(array.coords[dim].to_numpy(), dim, uri) for dim in space)
    dy, dx = dy or -abs(dx or 1.0), dx or abs(dy or 1.0)
    return Affine(dx, 0.0, x - corner * dx, 0.0, dy, y - corner * dy)


def _at_corners(array: xr.DataArray, space: tuple[str, str]) -> bool:
    """Whether coordinates are pixels' upper left corners: by default stackstac's are.

    It snaps corners to multiples of the pixel, so centres lie half-way between these.
    """
    if not str(array.name).startswith("stackstac"):
        return False
    steps = [(c[0], c[1] - c[0]) for c in (array.coords[d].to_numpy() for d in space) if len(c) > 1]
    return bool(steps) and all(abs(c / d - round(c / d)) < 0.01 for c, d in steps)


def _even(values: NDArray[Any], dim: str, uri: str) -> tuple[float, float]:
    """First of evenly spaced coordinates, and their distance; 0 of a single one."""
    places = values.astype(float)
    if len(places) == 1:
        return float(places[0]), 0.0
    step = (places[-1] - places[0]) / (len(places) - 1)
    off = np.abs(places - (places[0] + step * np.arange(len(places)))).max()
    if step == 0 or not off <= _UNEVEN * abs(step):
        raise SceneError(
            f"a cube's coordinates must be evenly spaced; {dim} of {redact(uri)} is not. Bring it "
            f"onto a grid first (odc.geo, rioxarray's reproject)."
        )
    return float(places[0]), float(step)

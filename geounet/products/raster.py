"""The plain kind: one raster that GDAL opens as it is."""

from __future__ import annotations

import math
import os
import re
import warnings
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geounet import remote
from geounet.errors import SceneError
from geounet.products.product import CLOUD_NAMES, CloudLayer, Product
from geounet.radiometry import Evidence, state_bands, state_tags
from geounet.sensors import find_sensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from rasterio.windows import Window

    from geounet.products.cube import CubeReader

__all__ = [
    "acquisition_time",
    "file_name",
    "iso_time",
    "one_nodata",
    "open_product",
    "open_raster",
    "raster_product",
    "read_band",
    "shown",
    "time_of",
]

_TIME_TAGS = (
    "ACQUIRED",
    "ACQUISITION_DATETIME",
    "ACQUISITIONDATETIME",
    "ACQUISITION_DATE",
    "DATE_ACQUIRED",
    "DATATAKE_1_DATATAKE_SENSING_START",
    "PRODUCT_START_TIME",
    "SENSING_TIME",
    "DATETIME",
    "TIFFTAG_DATETIME",
)
"""Where files say when they were taken, the surest first: what geounet and GDAL's readers write."""


@contextmanager
def open_raster(
    path: str | os.PathLike[str], uri: str | None = None, *, what: str = "scene"
) -> Iterator[rasterio.DatasetReader]:
    """Open a raster, quiet about a missing georeference: `open_scene` says that once.

    A remote one stays in GDAL's settings for that as long as it is open.

    Args:
        path: a path, a URI, or what else GDAL opens.
        uri: what to call it in an error, where that is another.
        what: what it should be, as in "a scene must exist".

    Raises:
        SceneError: there is no such file, it cannot be had, or it is no raster, or several.
    """
    path = os.fspath(path)
    with (
        rasterio.Env(**remote.settings(path)),
        _opened(remote.gdal_path(path), uri or path, what) as source,
    ):
        if not source.count:
            raise SceneError(
                f"a {what} must be one raster; {shown(uri or path)} holds several. Give one of "
                f"{', '.join(map(shown, source.subdatasets[:6]))}."
            )
        yield source


def read_band(source: rasterio.DatasetReader, window: Window) -> NDArray[Any]:
    """The first band of a part of an open raster, again where a server may have failed.

    Raises:
        SceneError: a remote raster cannot be had.
        rasterio.errors.RasterioError: a local one cannot be read.
    """
    band: NDArray[Any] = remote.attempt(source.name, lambda: source.read(1, window=window))
    return band


def shown(path: object) -> str:
    """What to call a raster in messages: its path or URI without what may open doors."""
    text = str(path)
    return remote.redact(text) if remote.is_remote(text) else text


def file_name(path: object) -> str:
    """The name of a raster's file, wherever it lies."""
    text = str(path)
    return remote.file_name(text) if remote.is_remote(text) else Path(text).name


@contextmanager
def open_product(product: Product) -> Iterator[rasterio.DatasetReader | CubeReader]:
    """Open what a product is read from.

    Raises:
        SceneError: it cannot be opened.
    """
    if product.cube is not None:
        with product.cube.open() as cube:
            yield cube
    else:
        with open_raster(product.path, product.uri) as source:
            yield source


def _opened(path: str, uri: str, what: str) -> rasterio.DatasetReader:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            return remote.attempt(path, lambda: rasterio.open(path))
        except (RasterioError, OSError, UnicodeEncodeError) as error:
            if "://" not in uri and not uri.startswith("/vsi") and not os.path.lexists(uri):
                raise SceneError(f"a {what} must exist: there is no {uri}.") from error
            reason = str(error).removeprefix(f"{uri}: ").rstrip(".")
            raise SceneError(
                f"a {what} must be a raster that GDAL opens; {uri} is none: {reason}. If it was "
                f"downloaded it may have been cut short; get it again."
            ) from error


def raster_product(path: str, *, uri: str | None = None) -> Product:
    """A raster as a product: its bands' descriptions and what it says of its numbers.

    Args:
        path: what GDAL opens.
        uri: what the user gave, where that is another.

    Raises:
        SceneError: there is no such file, it is no raster, or its bands differ in nodata.
    """
    inside = PurePosixPath(path).name if uri else ""
    uri = uri or path
    path = remote.gdal_path(path)
    called = shown(uri)
    name = f"{inside} {Path(called).name}".strip()
    with open_raster(path, uri) as source:
        tags = source.tags()
        found = find_sensor(name=name, tags=tags, bands=source.descriptions)
        return Product(
            kind="raster",
            uri=called,
            path=path,
            stem=remote.stem(uri) if remote.is_remote(uri) else Path(uri).stem,
            names=source.descriptions,
            evidence=Evidence.of(
                found,
                dtype=source.dtypes[0],
                count=source.count,
                bands=state_bands("band metadata", source.scales, source.offsets),
                tags=state_tags(tags, source.count),
            ),
            sensor=found.sensor,
            level=found.level,
            acquired=time_of(source),
            clouds=_clouds_inside(path, source.descriptions),
            nodata=one_nodata(dict(enumerate(source.nodatavals, start=1)), called),
        )


def one_nodata(values: Mapping[Any, float | None], uri: str) -> float | None:
    """The number with which bands say "not observed", None where none does.

    Args:
        values: of each band; NaN goes beside another, as it is never a measurement.
        uri: what to call the scene in an error.

    Raises:
        SceneError: they have several.
    """
    told = {band: value for band, value in values.items() if value is not None}
    numbers = {value for value in told.values() if not math.isnan(value)}
    if len(numbers) > 1:
        said = ", ".join(f"{band}: {value:g}" for band, value in told.items())
        raise SceneError(
            f"all bands must have one nodata value; {uri} has {said}. Leave some out, or bring "
            f"them to one first (gdalwarp)."
        )
    return next(iter(numbers or told.values()), None)


def _clouds_inside(path: str, bands: Sequence[str | None]) -> CloudLayer | None:
    """The band of a stack that says where clouds are, as Google Earth Engine exports it along."""
    for i, text in enumerate(bands, start=1):
        rule = CLOUD_NAMES.get((text or "").lower())
        if rule is not None and len(bands) > 1:
            return CloudLayer(path, i, rule)
    return None


def acquisition_time(path: str | os.PathLike[str]) -> str | None:
    """When a raster was acquired, in ISO 8601, if its tags say it.

    TIFF's own date comes last: strictly it is the time when the image was made.
    """
    with open_raster(path) as source:
        return time_of(source)


def time_of(source: rasterio.DatasetReader) -> str | None:
    """The same of a raster that is open."""
    tags = {**source.tags(ns="IMAGERY"), **source.tags()}
    tags = {name.upper(): text for name, text in tags.items()}
    times = (iso_time(tags.get(name, "")) for name in _TIME_TAGS)
    return next((time for time in times if time), None)


def iso_time(text: str) -> str | None:
    """A time as ISO 8601, None if it is no time; TIFF writes 2023:05:01 10:50:31."""
    text = re.sub(r"^(\d{4}):(\d{2}):(\d{2})", r"\1-\2-\3", text.strip())
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return None
    return text.replace(" ", "T")

"""Tell what kind of product a path is."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from geounet.errors import ConfigError, SceneError
from geounet.products.bundle import list_bundle, open_bundle
from geounet.products.cube import find_cube
from geounet.products.landsat import find_landsat
from geounet.products.planetscope import find_planetscope, planetscope_beside
from geounet.products.raster import raster_product
from geounet.products.sentinel2 import find_sentinel2
from geounet.products.singles import RASTERS, find_hls, find_singles
from geounet.products.stac import find_stac

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geounet.products.bundle import Bundle
    from geounet.products.product import Product
    from geounet.resampling import Resampling

__all__ = ["METADATA", "find_product"]

METADATA = re.compile(r"MTD_MSIL(1C|2A)\.xml|manifest\.safe|.*_MTL\.(txt|xml|json)")
"""Files that tell that their folder is one scene."""


def find_product(
    uri: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    resampling: Resampling = "bilinear",
    wanted: Sequence[str] | None = None,
    time: str | None = None,
) -> Product:
    """Look at what a path or URI is, without reading pixels.

    Args:
        uri: a raster; a STAC item; a product's folder, archive or metadata file; a pattern
            (``LC08*_B*.TIF``) or list of single-band files.
        resampling: how bands of coarser pixels come onto the finest grid.
        wanted: common names of the bands that decide what the finest grid is; None for all that
            the kind of product is used with.
        time: which moment of a netCDF's or Zarr's several, by how its time begins.

    Raises:
        SceneError: it is nothing that geounet reads; the message says what it holds.
        ConfigError: `time` fits no moment, or several; or something has no moments to choose from.
    """
    try:
        return _found(uri, resampling, wanted, time)
    except OSError as error:
        raise SceneError(
            f"a scene must be something that can be read: {error}. Check its name, and who may "
            f"read it."
        ) from error


def _found(
    uri: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    resampling: Resampling,
    wanted: Sequence[str] | None,
    time: str | None,
) -> Product:
    cube = find_cube(os.fspath(uri), time=time) if isinstance(uri, (str, os.PathLike)) else None
    if cube is not None:
        return cube
    if time is not None:
        raise ConfigError(f"--time chooses a moment of netCDF or Zarr; {uri} is neither.")
    bundle = _bundle(uri)
    if isinstance(bundle, str):
        return (
            find_stac(bundle, resampling=resampling, wanted=wanted)
            or planetscope_beside(bundle)
            or raster_product(bundle)
        )
    found = (
        find_sentinel2(bundle, resampling=resampling, wanted=wanted)
        or find_landsat(bundle, resampling=resampling)
        or find_hls(bundle, resampling=resampling)
        or find_planetscope(bundle)
        or find_singles(bundle, resampling=resampling, wanted=wanted)
    )
    return found or _only_raster(bundle)


def _bundle(uri: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Bundle | str:
    """The files that belong together, or what GDAL opens as it is."""
    if not isinstance(uri, (str, os.PathLike)):
        return list_bundle(uri)
    text = os.fspath(uri)
    if not text:
        raise SceneError("a scene must be named; got an empty text.")
    path = Path(text)
    if METADATA.fullmatch(path.name) and path.is_file():
        text = str(path.parent)
    if glob.has_magic(text) and "://" not in text and not path.exists():
        matches = sorted(glob.glob(text))  # noqa: PTH207 - Path.glob takes no absolute patterns
        if matches:
            return list_bundle(matches)
        raise SceneError(f"a pattern must fit at least one file; none fits {text}.")
    return open_bundle(text) or text


def _only_raster(bundle: Bundle) -> Product:
    """The one raster of a folder or archive.

    Raises:
        SceneError: there is none, or more than one.
    """
    rasters = [n for n in bundle.names if PurePosixPath(n).suffix.lower() in RASTERS]
    if len(rasters) == 1:
        return raster_product(bundle.gdal(rasters[0]), uri=bundle.uri)
    if bundle.kind == "folder" and not rasters:
        return raster_product(bundle.uri)
    few = ", ".join((rasters or bundle.names)[:6]) or "nothing"
    raise SceneError(
        f"a folder, archive or list must be one product or hold one raster; {bundle.uri} holds "
        f"{few}{', …' if len(rasters or bundle.names) > 6 else ''}. Read are Sentinel-2 products, "
        f"Landsat Collection 2, HLS, and single-band files whose names end with the band's "
        f"(…_B03.tif)."
    )

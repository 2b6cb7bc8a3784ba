"""Writing rasters row by row, and finishing them as Cloud Optimized GeoTIFFs.

A COG has its overviews before its pixels, so it cannot be written in one pass. Rows stream into a
plain tiled GeoTIFF beside the target, and GDAL's COG driver copies that once.
"""

from __future__ import annotations

import warnings
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Self

import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterWindow

from geounet.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from geounet.scene import Grid

__all__ = [
    "CLASSES",
    "MAKE_ONE",
    "NOT_OBSERVED",
    "RasterWriter",
    "mask_writer",
    "probability_writer",
]

CLASSES: Mapping[int, str] = {0: "land", 1: "water", 2: "obscured", 255: "not observed"}
"""Codes of a mask and what they mean."""
NOT_OBSERVED = 255
"""Code of a pixel that was not observed, in masks and probabilities; their nodata value."""
PROBABILITY_SCALE = 1 / 250
"""Water probability per stored number."""
MAKE_ONE = (
    "Codes of another type become a mask with gdalwarp -ot Byte -dstnodata 255; a probability p "
    "is stored as round(250 p), with the scale 0.004 and nodata 255."
)
"""What to do with masks and probabilities that other tools made."""

_COLOURS = {
    0: (219, 211, 186, 255),
    1: (33, 102, 172, 255),
    2: (178, 178, 178, 255),
    255: (0, 0, 0, 0),
}
_BLOCK = 512


class RasterWriter:
    """Writes one uint8 band from the top row down; a COG when it is closed without an error.

    A context manager. It belongs to one thread. If it is left by an error nothing remains.

    Args:
        path: the file to make. It must not be the final name of an output that exists: a caller
            that replaces one writes elsewhere in the same folder and renames.
        grid: where the pixels lie.
        description: of the band.
        tags: of the file.
        colours: RGBA of each value, for a palette.
        scale: value of the quantity per stored number.
        overviews: how overviews are resampled.
    """

    def __init__(
        self,
        path: Path,
        grid: Grid,
        *,
        description: str,
        tags: Mapping[str, str],
        colours: Mapping[int, tuple[int, int, int, int]] | None = None,
        scale: float | None = None,
        overviews: Literal["nearest", "average"] = "nearest",
    ) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.part.tif")
        self._overviews = overviews
        self._row = 0
        self._checksum = 0
        with _reported(path), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            self._file = rasterio.open(self._part, "w", **_profile(grid))
            self._file.update_tags(**tags)
            self._file.set_band_description(1, description)
            if colours:
                self._file.write_colormap(1, dict(colours))
            if scale is not None:
                self._file.scales = (scale,)

    def write(self, rows: NDArray[np.uint8]) -> None:
        """Write the next rows: uint8 [n, width].

        Raises:
            OutputError: the file cannot be written.
        """
        area = RasterWindow(0, self._row, rows.shape[1], rows.shape[0])
        with _reported(self._path):
            self._file.write(rows, 1, window=area)
        self._row += rows.shape[0]
        self._checksum = zlib.crc32(rows.tobytes(), self._checksum)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with _reported(self._path):
                self._file.close()
                if kind is None:
                    self._finish()
        except OutputError:
            self._path.unlink(missing_ok=True)
            raise
        finally:
            self._part.unlink(missing_ok=True)

    def _finish(self) -> None:
        with warnings.catch_warnings(), rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS"):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            rasterio.shutil.copy(
                self._part,
                self._path,
                driver="COG",
                compress="DEFLATE",
                blocksize=_BLOCK,
                overview_resampling=self._overviews,
                bigtiff="IF_SAFER",
            )
            self._check()

    def _check(self) -> None:
        """Read all rows back: closing a file, GDAL keeps quiet about what it could not write."""
        checksum = 0
        with rasterio.open(self._path) as file:
            for top in range(0, file.height, _BLOCK):
                area = RasterWindow(0, top, file.width, min(_BLOCK, file.height - top))
                checksum = zlib.crc32(file.read(1, window=area).tobytes(), checksum)
        if checksum != self._checksum:
            raise OSError("what was read back is not what was written")


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn what GDAL and the file system raise into an `OutputError` that names the output."""
    try:
        with rasterio.Env():  # so that GDAL logs its errors and prints none
            yield
    except (RasterioError, CPLE_BaseError, OSError) as error:  # the copy raises the second kind
        raise OutputError(
            f"cannot write {path.name} in {path.parent}: {str(error).rstrip('.')}. "
            f"Check that the folder is writable and that the disk has room."
        ) from error


def _profile(grid: Grid) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "width": grid.width,
        "height": grid.height,
        "crs": grid.crs,
        "transform": grid.transform,
        "nodata": NOT_OBSERVED,
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "bigtiff": "IF_SAFER",
    }


def mask_writer(path: Path, grid: Grid, tags: Mapping[str, str]) -> RasterWriter:
    """A writer of masks: palette, class names and nearest overviews."""
    names = {f"CLASS_{code}": name for code, name in CLASSES.items()}
    return RasterWriter(
        path, grid, description="land/water mask", tags={**tags, **names}, colours=_COLOURS
    )


def probability_writer(path: Path, grid: Grid, tags: Mapping[str, str]) -> RasterWriter:
    """A writer of water probabilities, stored in steps of 1/250."""
    return RasterWriter(
        path,
        grid,
        description="probability of water where the surface shows",
        tags=tags,
        scale=PROBABILITY_SCALE,
        overviews="average",
    )

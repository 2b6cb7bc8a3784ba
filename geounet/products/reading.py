"""Read bands of a stack, coarse ones interpolated onto the grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from geounet.remote import redact
from geounet.resampling import HALO, upsample

if TYPE_CHECKING:
    from collections.abc import Sequence

    import rasterio
    from numpy.typing import NDArray

    from geounet.products.product import Layer
    from geounet.resampling import Resampling
    from geounet.tiling import Window

__all__ = ["explain_failure", "read_bands"]


def read_bands(
    source: rasterio.DatasetReader,
    indexes: Sequence[int],
    window: Window,
    *,
    factors: Sequence[int] = (),
    resampling: Resampling = "nearest",
    nodata: float | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Read a window of some bands, the same numbers however windows are cut.

    Args:
        source: the open raster; its coarse bands hold repeated pixels.
        indexes: bands, 0-based.
        window: the pixels.
        factors: per band of the raster, how many of its pixels are one of the band's own along
            each axis; empty where all are its own.
        resampling: how coarse bands are interpolated.
        nodata: stored number that means "not observed"; it is never mixed into others.
        out: array to read into [bands, height, width]; a smaller one takes pixels spread evenly
            over the window, which are not interpolated.

    Returns:
        Numbers as stored [bands, height, width].
    """
    area = RasterWindow(window.col, window.row, window.width, window.height)
    coarse = {i for i in indexes if factors and factors[i] > 1 and resampling != "nearest"}
    thinned = out is not None and out.shape[1:] != (window.height, window.width)
    if not coarse or thinned:
        dn: NDArray[Any] = source.read([i + 1 for i in indexes], window=area, out=out)
        return dn
    if out is None:
        out = np.empty((len(indexes), window.height, window.width), source.dtypes[0])
    for into, i in zip(out, indexes, strict=True):
        if i in coarse:
            rows = _span(window.row, window.height, factors[i], HALO[resampling], source.height)
            cols = _span(window.col, window.width, factors[i], HALO[resampling], source.width)
            own = _own_pixels(source, i, rows, cols)
            fine = upsample(own, factors[i], resampling, nodata=nodata)
            into[:] = fine[rows.wanted, cols.wanted]
        else:
            source.read(i + 1, window=area, out=into)
    return out


def explain_failure(
    error: BaseException,
    source: rasterio.DatasetReader,
    indexes: Sequence[int],
    window: Window,
    layers: Sequence[Layer],
) -> str:
    """Why `read_bands` failed: what GDAL said first, and of which of the files.

    Args:
        error: what was raised.
        source: the open raster.
        indexes: bands, 0-based.
        window: the pixels.
        layers: the raster's bands in their files; none where it is one file.
    """
    reason = error
    while reason.__cause__ is not None:
        reason = reason.__cause__
    text = getattr(reason, "errmsg", None) or str(reason)
    area = RasterWindow(window.col, window.row, window.width, window.height)
    for i in indexes if layers else ():
        try:
            source.read(i + 1, window=area)
        except (RasterioError, OSError):
            return redact(f"{layers[i].uri}: {text}")
    return redact(text)


def _own_pixels(
    source: rasterio.DatasetReader, index: int, rows: _Span, cols: _Span
) -> NDArray[Any]:
    """A band's pixels before they were repeated; beyond the image its outermost ones repeat."""
    height, width = rows.stop - rows.first, cols.stop - cols.first
    factor = rows.factor
    window = RasterWindow(cols.first * factor, rows.first * factor, width * factor, height * factor)
    own = source.read(index + 1, window=window, out_shape=(height, width))
    return np.pad(own, (rows.beyond, cols.beyond), mode="edge")


class _Span(NamedTuple):
    """A coarse band's own pixels that a window needs along one axis."""

    factor: int
    first: int
    stop: int
    beyond: tuple[int, int]
    """How many more are needed beyond the image, before and after."""
    wanted: slice
    """The window in what they become."""


def _span(start: int, length: int, factor: int, halo: int, size: int) -> _Span:
    first, stop = start // factor - halo, -(-(start + length) // factor) + halo
    before, after = max(-first, 0), max(stop - size // factor, 0)
    skip = start % factor
    wanted = slice(skip, skip + length)
    return _Span(factor, first + before, stop - after, (before, after), wanted)

"""Tell what kind of product a path is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geounet.products.raster import raster_product

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from geounet.products.product import Product
    from geounet.resampling import Resampling

__all__ = ["find_product"]


def find_product(
    uri: str | os.PathLike[str],
    *,
    resampling: Resampling = "bilinear",  # noqa: ARG001 - for kinds of several files
    wanted: Sequence[str] | None = None,  # noqa: ARG001
) -> Product:
    """Look at what a path or URI is, without reading pixels.

    Args:
        uri: a raster.
        resampling: how bands of coarser pixels come onto the finest grid.
        wanted: common names of the bands that decide what the finest grid is; None for all.

    Raises:
        SceneError: it is nothing that geounet reads.
    """
    return raster_product(str(uri))

"""Raster factories, one thread for small networks, property tests that anyone can repeat."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import settings
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# Before torch is imported: beside networks this small, a second thread only waits, busily.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples everywhere: `pytest --hypothesis-profile default` looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

UTM_10M = Affine(10, 0, 500_000, 0, -10, 4_400_000)


class MakeRaster(Protocol):
    def __call__(
        self,
        data: NDArray[Any],
        name: str = ...,
        *,
        descriptions: Sequence[str | None] = ...,
        scale: float | None = ...,
        offset: float | None = ...,
        mask: NDArray[Any] | None = ...,
        alpha: bool = ...,
        **profile: Any,
    ) -> Path: ...


@pytest.fixture
def make_raster(tmp_path: Path) -> MakeRaster:
    """Write an array [bands, height, width] as a GeoTIFF in UTM with 10 m pixels."""

    def make(
        data: NDArray[Any],
        name: str = "scene.tif",
        *,
        descriptions: Sequence[str | None] = (),
        scale: float | None = None,
        offset: float | None = None,
        mask: NDArray[Any] | None = None,
        alpha: bool = False,
        **profile: Any,
    ) -> Path:
        path = tmp_path / name
        count, height, width = data.shape
        profile = {"driver": "GTiff", "crs": "EPSG:32629", "transform": UTM_10M, **profile}
        with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            shape = {"count": count, "height": height, "width": width, "dtype": data.dtype}
            with rasterio.open(path, "w", **shape, **profile) as file:
                if alpha:
                    rest = (ColorInterp.undefined,) * (count - 2)
                    file.colorinterp = (ColorInterp.gray, *rest, ColorInterp.alpha)
                file.write(data)
                for i, text in enumerate(descriptions, start=1):
                    if text:
                        file.set_band_description(i, text)
                if scale is not None:
                    file.scales = (scale,) * count
                if offset is not None:
                    file.offsets = (offset,) * count
                if mask is not None:
                    file.write_mask(mask)
        return path

    return make


@pytest.fixture
def make_water(make_raster: MakeRaster):
    """Write a uint16 scene of green, red, nir where water is exactly where green > nir.

    Returns the path and the mask that must come out of it.
    """

    def make(
        height: int, width: int, *, unobserved: NDArray[np.bool_] | None = None, **options: Any
    ) -> tuple[Path, NDArray[np.uint8]]:
        random = np.random.default_rng(height * 10_007 + width)
        green, red = random.integers(200, 3000, (2, height, width), np.uint16)
        # Blobs of a few pixels, so that polygons have edges to trace.
        coarse = random.random((height // 5 + 1, width // 5 + 1)) < 0.4
        water = np.kron(coarse, np.ones((5, 5), bool))[:height, :width]
        step = random.integers(20, 150, (height, width), np.uint16)
        nir = np.where(water, green - step, green + step).astype(np.uint16)
        data = np.stack([green, red, nir])
        expected = water.astype(np.uint8)
        if unobserved is not None:
            data[:, unobserved] = 0
            expected[unobserved] = 255
        options = {
            "descriptions": ("green", "red", "nir"), "scale": 1e-4, "offset": 0.0, **options
        }  # fmt: skip
        return make_raster(data, **options), expected

    return make

"""Coarse pixels on a finer grid: at the right place, the same however they are cut."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling as RasterioResampling
from rasterio.io import MemoryFile

from geounet.resampling import HALO, missing_pixels, upsample

SMOOTH = ("bilinear", "cubic")


def _pad(dn, method):
    return np.pad(dn, HALO[method], mode="edge")


def _numbers(shape, *, holes=0.0, dtype=np.uint16, seed=0):
    random = np.random.default_rng(seed)
    dn = random.integers(1, 6000, shape).astype(dtype)
    dn[random.random(shape) < holes] = 0
    return dn


@pytest.mark.parametrize("method", SMOOTH)
@pytest.mark.parametrize("factor", [2, 3, 6])
def test_a_ramp_stays_where_it_is(method, factor):
    """No half-pixel shift: a plane through the coarse centres passes through the fine ones."""
    row, col = np.mgrid[0:20, 0:30] + 0.5
    fine_row, fine_col = (np.mgrid[0 : 20 * factor, 0 : 30 * factor] + 0.5) / factor
    dn = (1000 + 120 * row - 24 * col).astype(np.float64)
    found = upsample(_pad(dn, method), factor, method)
    inner = slice(2 * factor, -2 * factor)
    expected = 1000 + 120 * fine_row - 24 * fine_col
    assert found[inner, inner] == pytest.approx(expected[inner, inner], rel=1e-6)


@pytest.mark.parametrize(("method", "gdal"), [("bilinear", "bilinear"), ("cubic", "cubic")])
@pytest.mark.parametrize("factor", [2, 3, 6])
def test_it_is_what_gdal_makes_where_nothing_is_missing(method, gdal, factor):
    dn = _numbers((40, 50))
    profile = {"driver": "GTiff", "height": 40, "width": 50, "count": 1, "dtype": dn.dtype,
               "transform": Affine(10, 0, 0, 0, -10, 0), "crs": "EPSG:32629"}  # fmt: skip
    with MemoryFile() as memory:
        with memory.open(**profile) as file:
            file.write(dn, 1)
        with memory.open() as file:
            shape = (40 * factor, 50 * factor)
            theirs = file.read(1, out_shape=shape, resampling=RasterioResampling[gdal])
    ours = upsample(_pad(dn, method), factor, method)
    inner = slice(2 * factor, -2 * factor)
    gap = np.abs(ours[inner, inner].astype(int) - theirs[inner, inner])
    assert gap.max() <= 1  # a half rounds to either side


@pytest.mark.parametrize("method", ["nearest", *SMOOTH])
@pytest.mark.parametrize("holes", [0.0, 0.05, 1.0])
@settings(max_examples=40, deadline=None)
@given(
    factor=st.sampled_from([2, 3, 6]), top=st.integers(0, 20), left=st.integers(0, 15),
    height=st.integers(1, 9), width=st.integers(1, 12), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_part_is_the_same_as_that_part_of_the_whole(
    method, holes, factor, top, left, height, width, seed
):
    halo = HALO[method]
    dn = _pad(_numbers((30, 28), holes=holes, seed=seed), method)
    whole = upsample(dn, factor, method, nodata=0)
    part = dn[top : top + height + 2 * halo, left : left + width + 2 * halo]
    rows, cols = (part.shape[0] - 2 * halo) * factor, (part.shape[1] - 2 * halo) * factor
    expected = whole[top * factor :, left * factor :][:rows, :cols]
    assert np.array_equal(upsample(part, factor, method, nodata=0), expected)


@pytest.mark.parametrize("method", ["nearest", *SMOOTH])
@pytest.mark.parametrize("nodata", [0, 60_000, -9999])
def test_what_is_missing_is_not_mixed_into_others(method, nodata):
    """The values that nodata has leave no trace; a fine pixel is missing with its coarse one."""
    dtype = np.int16 if nodata < 0 else np.uint16
    dn = _numbers((30, 30), holes=0.1, dtype=dtype)
    missing = dn == 0
    marked = np.where(missing, nodata, dn).astype(dtype)
    found = upsample(_pad(marked, method), 3, method, nodata=nodata)
    zeros = upsample(_pad(dn, method), 3, method, nodata=0)
    fine = missing.repeat(3, axis=0).repeat(3, axis=1)
    assert np.array_equal(found == nodata, fine)
    assert np.array_equal(found[~fine], zeros[~fine])
    assert (found[~fine] != 0).all()


@pytest.mark.parametrize("method", SMOOTH)
def test_bilinear_beside_nodata_stays_within_its_neighbours(method):
    """Weights of missing pixels go to the others: no dark fringe along the swath's edge."""
    dn = np.full((12, 12), 3000, np.uint16)
    dn[:, 6:] = 0
    found = upsample(_pad(dn, method), 6, method, nodata=0)
    assert set(np.unique(found[:, :36])) == {3000}
    assert not found[:, 36:].any()


def test_cubic_is_held_within_the_type():
    dn = np.full((12, 12), 65535, np.uint16)
    dn[:, 6:] = 1
    found = upsample(_pad(dn, "cubic"), 2, "cubic", nodata=0)
    assert found[:, :10].min() > 60_000, "an overshoot does not wrap around"
    assert found.min() >= 1, "nor does an undershoot become nodata"


def test_nan_is_missing_and_stays():
    dn = np.full((5, 5), 0.25, np.float32)
    dn[2, 2] = np.nan
    found = upsample(_pad(dn, "bilinear"), 2, "bilinear")
    expected = np.full((10, 10), 0.25, np.float32)
    expected[4:6, 4:6] = np.nan
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("dtype", "nodata", "left", "right", "method", "stored"),
    [
        (np.uint16, 700, 650, 850, "bilinear", 701),
        (np.int16, -9999, -9949, -10_149, "bilinear", -10_000),
        (np.uint16, 65_535, 65_500, 1, "cubic", 65_534),  # held within the type, whose last it is
        (np.int16, -32_768, -32_700, 1, "cubic", -32_767),
    ],
)
def test_what_would_become_nodata_is_moved_by_one(dtype, nodata, left, right, method, stored):
    dn = np.full((6, 12), left, dtype)
    dn[:, 6:] = right
    found = upsample(_pad(dn, method), 2, method, nodata=nodata)
    assert nodata not in found
    assert stored in found


@pytest.mark.parametrize(
    ("value", "dtype", "nodata", "expected"),
    [
        (0, np.uint16, None, True),
        (1, np.uint16, None, False),
        (-9999, np.int16, -9999.0, True),
        (-9999, np.int16, None, False),
        (np.nan, np.float32, None, True),
        (np.inf, np.float32, None, True),
        (0.1, np.float32, -1.0, False),
    ],
)
def test_missing_pixels(value, dtype, nodata, expected):
    assert missing_pixels(np.array([[value]], dtype), nodata).item() is expected

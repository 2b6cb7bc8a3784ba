"""Bands of several files on one grid."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from geounet.errors import SceneError
from geounet.products import Layer, stack
from geounet.products.reading import read_bands
from geounet.resampling import HALO, upsample
from geounet.tiling import Window

FACTORS = (1, 2, 3, 6)


@pytest.fixture
def make_layer(make_raster):
    def make(name, pixel, data, *, col=0.0, row=0.0, **options):
        transform = Affine(pixel, 0, 500_000 + 10 * col, 0, -pixel, 4_400_000 - 10 * row)
        path = make_raster(data[None], f"{name}.tif", **{"transform": transform, **options})
        return Layer(str(path), 1, name)

    return make


def _numbers(height, width, seed=0, holes=0.02):
    random = np.random.default_rng(seed)
    dn = random.integers(1, 6000, (height, width), np.uint16)
    dn[random.random(dn.shape) < holes] = 0
    return dn


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory):
    """Layers of 10, 20, 30 and 60 m that cover the same 600 m x 720 m, one of them as JPEG 2000."""
    folder = tmp_path_factory.mktemp("pyramid")
    layers, pixels = [], []
    for i, factor in enumerate(FACTORS):
        dn = _numbers(60 // factor, 72 // factor, seed=i)
        kind = {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES", "BLOCKXSIZE": 64,
                "BLOCKYSIZE": 64} if factor == 2 else {"driver": "GTiff"}  # fmt: skip
        path = folder / f"B{i}.{'jp2' if factor == 2 else 'tif'}"
        profile = {"height": dn.shape[0], "width": dn.shape[1], "count": 1, "dtype": "uint16",
                   "crs": "EPSG:32629",
                   "transform": Affine(10 * factor, 0, 5e5, 0, -10 * factor, 44e5)}  # fmt: skip
        with rasterio.open(path, "w", **profile, **kind) as file:
            file.write(dn, 1)
        layers.append(Layer(str(path), 1, f"B{i}"))
        pixels.append(dn)
    return layers, pixels


@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic"])
@settings(max_examples=60, deadline=None)
@given(row=st.integers(0, 59), col=st.integers(0, 71), height=st.integers(1, 60),
       width=st.integers(1, 72))  # fmt: skip
def test_any_window_is_that_part_of_the_whole(pyramid, method, row, col, height, width):
    layers, pixels = pyramid
    found = stack(layers, nodata=0)
    whole = [
        upsample(np.pad(dn, HALO[method], mode="edge"), factor, method, nodata=0)
        for dn, factor in zip(pixels, FACTORS, strict=True)
    ]
    window = Window(row, col, min(height, 60 - row), min(width, 72 - col))
    order = [2, 0, 3, 1]
    with rasterio.open(found.path) as source:
        read = read_bands(source, order, window, factors=found.factors, resampling=method, nodata=0)
    part = np.s_[row : row + window.height, col : col + window.width]
    for i, dn in zip(order, read, strict=True):
        assert np.array_equal(dn, whole[i][part])


def test_what_a_stack_says_of_itself(pyramid):
    layers, _ = pyramid
    found = stack(layers, nodata=0)
    assert found.factors == FACTORS
    assert (found.dtype, found.nodata) == ("uint16", 0)
    with rasterio.open(pickle.loads(pickle.dumps(found)).path) as source:
        assert source.shape == (60, 72)
        assert source.transform == Affine(10, 0, 5e5, 0, -10, 44e5)
        assert source.crs.to_epsg() == 32629
        assert source.descriptions == ("B0", "B1", "B2", "B3")
        assert source.nodata == 0


def test_wanted_bands_decide_the_grid_and_finer_ones_are_left_out(pyramid):
    layers, pixels = pyramid
    found = stack(layers, wanted={"B2"}, nodata=0)
    assert [layer.name for layer in found.layers] == ["B2", "B3"]
    assert found.factors == (1, 2)
    with rasterio.open(found.path) as source:
        assert np.array_equal(source.read(1), pixels[2])


def test_a_band_that_covers_less_decides_what_is_covered(make_layer):
    """It begins 3 fine pixels further in: whole pixels of all bands are kept."""
    fine = _numbers(40, 40)
    coarse = _numbers(15, 15, seed=1)
    found = stack([make_layer("B03", 10, fine), make_layer("B11", 20, coarse, col=3, row=4)])
    with rasterio.open(found.path) as source:
        assert (source.transform.c, source.transform.f) == (500_030, 4_399_960)
        assert np.array_equal(source.read(1), fine[4:34, 3:33])
        assert np.array_equal(source.read(2)[::2, ::2], coarse)


def test_the_extent_is_cut_to_whole_pixels_of_each_band(make_layer):
    """Coarse pixels begin at fine rows 1, 3, …; fine ones at 2, where the third band begins."""
    bands = [
        make_layer("a", 10, _numbers(20, 20)),
        make_layer("b", 20, _numbers(9, 9, seed=1), row=1, col=1),
        make_layer("c", 10, _numbers(17, 17, seed=2), row=2, col=2),
    ]
    with rasterio.open(stack(bands).path) as source:
        assert (source.transform.c, source.transform.f) == (500_030, 4_399_970)
        assert source.shape == (16, 16)


def test_files_without_georeference_are_told_by_their_sizes(make_layer):
    plain = {"transform": Affine.identity(), "crs": None}
    layers = [
        make_layer("B03", 10, _numbers(12, 18), **plain),
        make_layer("B11", 10, _numbers(4, 6), **plain),
    ]
    assert stack(layers).factors == (1, 3)


@pytest.mark.parametrize(
    ("pixel", "where", "options", "message"),
    [
        (10, {"col": 0.5}, {}, r"pixel corner on pixel corner; B11 .* B03"),
        (15, {}, {}, r"pixel corner on pixel corner; B11"),
        (10, {}, {"crs": "EPSG:32630"}, r"one CRS.*B03: EPSG:32629; B11: EPSG:32630"),
        (10, {"col": 100}, {}, r"same ground.*B03, B11"),
    ],
)
def test_bands_that_do_not_fit_are_refused_by_name(make_layer, pixel, where, options, message):
    layers = [
        make_layer("B03", 10, _numbers(12, 12)),
        make_layer("B11", pixel, _numbers(8, 8), **where, **options),
    ]
    with pytest.raises(SceneError, match=message):
        stack(layers)


def test_bands_of_two_types_are_refused_by_name(make_layer):
    layers = [
        make_layer("B03", 10, _numbers(12, 12)),
        make_layer("B11", 10, _numbers(12, 12).astype(np.float32)),
    ]
    with pytest.raises(SceneError, match=r"one type.*B03: uint16; B11: float32"):
        stack(layers)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32",
              "float64", "complex64", "complex128"],
)  # fmt: skip
def test_numbers_of_any_type_that_gdal_has(make_layer, dtype):
    numbers = np.arange(25).reshape(5, 5).astype(dtype)
    found = stack([make_layer("a", 10, numbers), make_layer("b", 10, numbers)])
    with rasterio.open(found.path) as source:
        assert (found.dtype, source.dtypes) == (dtype, (dtype, dtype))
        assert np.array_equal(source.read(2), numbers)


def test_a_missing_file_is_named(make_layer, tmp_path):
    layers = [make_layer("B03", 10, _numbers(12, 12)), Layer(str(tmp_path / "gone.jp2"), 1, "B04")]
    with pytest.raises(SceneError, match=r"there is no .*gone\.jp2"):
        stack(layers)


def test_scale_and_offset_of_the_files_are_kept(make_layer):
    layers = [
        make_layer("a", 10, _numbers(5, 5), scale=1e-4, offset=-0.1),
        make_layer("b", 10, _numbers(5, 5)),
    ]
    found = stack(layers)
    assert (found.scales, found.offsets) == ((1e-4, 1.0), (-0.1, 0.0))
    with rasterio.open(found.path) as source:
        assert source.scales == (1e-4, 1.0)


def test_a_mask_of_the_files_own_is_kept(make_layer):
    seen = np.full((5, 5), 255, np.uint8)
    seen[2, 3] = 0
    layers = [
        make_layer("a", 10, _numbers(5, 5)),
        make_layer("b", 10, _numbers(5, 5), mask=seen),
        make_layer("c", 10, _numbers(5, 5), mask=seen.T),
    ]
    with rasterio.open(stack(layers).path) as source:
        assert (source.read_masks(1) == 255).all()
        assert np.array_equal(source.read_masks([2, 3]), [seen, seen.T])


def test_blocks_are_those_of_the_finest_bands(make_layer):
    """What is read at once is whole rows of the files' blocks, not of the virtual dataset's."""
    tiled = {"tiled": True, "blockxsize": 32, "blockysize": 16}
    layers = [
        make_layer("fine", 10, _numbers(96, 96), **tiled),
        make_layer("coarse", 20, _numbers(48, 48), tiled=True, blockxsize=64, blockysize=64),
    ]
    assert stack(layers).block == (16, 32)

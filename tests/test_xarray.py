import dask.array as da
import numpy as np
import pytest
import xarray as xr
from models import ratio_model

import geounet.xarray  # noqa: F401 - registers the accessor
from geounet.arrays import segment
from geounet.errors import ConfigError, GeounetWarning, SceneError

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")

GRN = ("green", "red", "nir")


@pytest.fixture
def model():
    return ratio_model()


def _numbers(seed=1, height=70, width=40):
    dn = np.random.default_rng(seed).integers(100, 9000, (3, height, width)).astype(np.uint16)
    dn[:, 20:33, 10:30] = 0
    return dn


def _cube(dn, **attrs):
    height, width = dn.shape[-2:]
    cube = xr.DataArray(
        dn,
        dims=("band", "y", "x"),
        coords={
            "band": list(GRN),
            "y": 4_400_000 - 10 * (np.arange(height) + 0.5),
            "x": 500_000 + 10 * (np.arange(width) + 0.5),
        },
        attrs={"scale_factor": 1e-4, "add_offset": 0.0, **attrs},
    )
    return cube.rio.write_crs("EPSG:32629")


def _expected(dn, model, **options):
    return segment(dn, GRN, **{"scale": 1e-4, "offset": 0.0, "model": model, **options})


def test_a_mask_keeps_coordinates_and_crs(model):
    cube = _cube(_numbers())
    mask = cube.geounet.segment(model=model)
    assert np.array_equal(mask, _expected(cube.to_numpy(), model))
    assert mask.dims == ("y", "x")
    assert mask.name == "land_water"
    assert mask.x.equals(cube.x)
    assert mask.y.equals(cube.y)
    assert mask.rio.crs.to_epsg() == 32629
    assert mask.rio.transform() == cube.rio.transform()
    assert mask.rio.nodata == 255
    assert mask.attrs["flag_values"].tolist() == [0, 1, 2, 255]
    assert mask.attrs["flag_meanings"] == "land water obscured not_observed"
    assert "band" not in mask.coords
    assert cube.attrs["scale_factor"] == 1e-4  # it is left as it was


def test_the_order_of_dimensions_does_not_matter(model):
    cube = _cube(_numbers())
    expected = _expected(cube.to_numpy(), model)
    assert np.array_equal(cube.transpose("y", "x", "band").geounet.segment(model=model), expected)
    renamed = cube.rename(band="spectral")
    with pytest.raises(ConfigError, match=r"dimension of bands.*spectral, y, x.*band_dim"):
        renamed.geounet.segment(model=model)
    assert np.array_equal(renamed.geounet.segment(model=model, band_dim="spectral"), expected)


def test_probability(model):
    cube = _cube(_numbers())
    made = cube.geounet.segment(model=model, probability=True)
    assert made.dtype == np.float32
    assert made.name == "water_probability"
    assert np.array_equal(made, _expected(cube.to_numpy(), model, probability=True), equal_nan=True)


def test_each_time_is_a_scene_of_its_own(model):
    first, second = _cube(_numbers(1)), _cube(_numbers(2))
    times = np.array(["2023-05-01", "2023-05-11"], "datetime64[ns]")
    cube = xr.concat([first, second], dim=xr.Variable("time", times))
    mask = cube.geounet.segment(model=model)
    assert mask.dims == ("time", "y", "x")
    assert np.array_equal(mask.time, times)
    for step, part in zip(mask, (first, second), strict=True):
        assert np.array_equal(step, part.geounet.segment(model=model))
    assert mask.rio.crs.to_epsg() == 32629
    with pytest.raises(ConfigError, match=r"must have a pixel; its shape is \{'time': 0, "):
        cube.isel(time=slice(0)).geounet.segment(model=model)
    with pytest.raises(ConfigError, match=r"one dimension, like time; there are model, time"):
        cube.expand_dims("model").geounet.segment(model=model)


@pytest.mark.parametrize("times", [0, 2])
def test_a_lazy_array_gives_a_lazy_mask(model, times):
    dn = _numbers(height=150)
    cube = _cube(dn)
    if times:
        cube = xr.concat([cube, cube + 100], dim="time")
    lazy = cube.chunk(y=40).geounet.segment(model=model)
    assert isinstance(lazy.data, da.Array)
    assert lazy.dtype == np.uint8
    assert lazy.compute(scheduler="sync").identical(cube.geounet.segment(model=model))


def test_scale_offset_and_nodata_of_the_attributes(model):
    dn = _numbers().astype(np.int32)
    expected = _expected(dn.astype(np.uint16), model)
    shifted = np.where(dn == 0, -9999, dn * 2 + 1000)
    cube = _cube(shifted, scale_factor=5e-5, add_offset=-0.05, _FillValue=-9999)
    assert np.array_equal(cube.geounet.segment(model=model), expected)
    decoded = xr.decode_cf(cube.to_dataset(name="a"), decode_coords="all").a
    assert np.isnan(decoded).any()
    assert np.array_equal(decoded.geounet.segment(model=model), expected)
    bare = _cube(dn)
    bare.attrs.clear()
    with pytest.warns(GeounetWarning, match=r"int32 taken as reflectance x 10000"):
        bare.geounet.segment(model=model)
    assert np.array_equal(bare.geounet.segment(model=model, scale=1e-4), expected)


def test_bands_by_long_name_or_as_told(model):
    cube = _cube(_numbers())
    expected = _expected(cube.to_numpy(), model)
    numbered = cube.assign_coords(band=[1, 2, 3])
    told = numbered.geounet.segment(["B03", "B04", "B08"], model=model)
    assert np.array_equal(told, expected)
    named = numbered.assign_attrs(long_name=("B03", "B04", "B08"))
    assert np.array_equal(named.geounet.segment(model=model), expected)
    stacked = numbered.assign_coords(common_name=("band", list(GRN)))
    assert np.array_equal(stacked.geounet.segment(model=model), expected)


def test_a_dataset_of_a_variable_a_band(model):
    """As odc-stac loads them; variables that are no bands are left out."""
    cube = _cube(_numbers())
    bands = cube.to_dataset("band").rename(green="B03", red="B04", nir="B08")
    for name in bands:
        bands[name].attrs = dict(cube.attrs)
    bands["SCL"] = (("y", "x"), np.zeros((70, 40), np.uint8))
    mask = bands.geounet.segment(model=model)
    assert np.array_equal(mask, _expected(cube.to_numpy(), model))
    assert mask.rio.crs.to_epsg() == 32629
    with pytest.raises(ConfigError, match=r"must have variables that are bands.*it has SCL"):
        bands[["SCL"]].geounet.segment(model=model)


def test_bands_of_a_dataset_have_scales_of_their_own(model):
    """As of Landsat's reflectance with its surface temperature."""
    cube = _cube(_numbers())
    bands = cube.to_dataset("band")
    for name in bands:
        bands[name].attrs = {"scale_factor": 1e-4, "add_offset": 0.0, "nodata": 0}
    bands["nir"] = (bands.nir / 2).astype(np.uint16).assign_attrs(scale_factor=2e-4)
    bands["lwir11"] = bands.green.assign_attrs(scale_factor=0.0034, add_offset=149.0)
    numbers = np.stack([bands.green, bands.red, bands.nir * 2])
    assert np.array_equal(bands.geounet.segment(model=model), _expected(numbers, model))
    bands["red"].attrs["nodata"] = 7
    with pytest.raises(SceneError, match=r"one nodata value; the dataset has .*red: 7"):
        bands.geounet.segment(model=model)
    assert (bands.geounet.segment(model=model, nodata=0) == 255).any()


def test_without_dimensions_of_space_it_is_refused(model):
    with pytest.raises(ConfigError, match=r"dimensions of space.*band, a, b"):
        _cube(_numbers()).rename(y="a", x="b").drop_vars(["a", "b"]).geounet.segment(model=model)


@pytest.mark.parametrize("engine", ["netcdf4", "zarr"])
def test_a_cube_from_a_file(model, tmp_path, engine):
    """What xarray writes and reads again, lazily, gives the same mask, which can be written too."""
    pytest.importorskip("zarr" if engine == "zarr" else "netCDF4")
    cube = _cube(_numbers()).assign_attrs(_FillValue=0)
    path = tmp_path / "cube"
    made = cube.to_dataset(name="reflectance")
    if engine == "zarr":
        made.to_zarr(path, zarr_format=2)
    else:
        made.to_netcdf(path, engine=engine)
    with xr.open_dataset(path, engine=engine, chunks={}, decode_coords="all") as opened:
        mask = opened.reflectance.geounet.segment(model=model)
        assert isinstance(mask.data, da.Array)
        assert np.array_equal(mask, _expected(cube.to_numpy(), model))
        assert mask.rio.crs.to_epsg() == 32629
        mask.to_dataset().to_netcdf(tmp_path / "mask.nc")
    with xr.open_dataset(tmp_path / "mask.nc", mask_and_scale=False) as again:
        assert np.array_equal(again.land_water, _expected(cube.to_numpy(), model))

"""netCDF and Zarr as odc-stac, openEO, stackstac and rioxarray write them."""

from __future__ import annotations

import builtins
import pickle
import re

import numpy as np
import pytest
import rioxarray  # noqa: F401 - registers .rio
import xarray as xr
from affine import Affine
from serving import serving

from geounet.errors import ConfigError, SceneError
from geounet.pipeline import RunConfig
from geounet.products import find_product
from geounet.scene import open_scene
from geounet.tiling import Window

GRN = ("green", "red", "nir")
TIMES = np.array(["2023-07-01T10:50:31", "2023-07-06T10:50:29"], "datetime64[ns]")
SHAPE = (20, 30)
CORNER = Affine(10, 0, 500_000, 0, -10, 4_400_000)


def _numbers(times=1) -> np.ndarray:
    """[times, bands, height, width]"""
    dn = np.random.default_rng(1).integers(100, 9000, (times, 3, *SHAPE)).astype(np.uint16)
    dn[:, :, :3] = 0
    return dn


def _places(offset=0.5):
    y = 4_400_000 - 10 * (np.arange(SHAPE[0]) + offset)
    return {"y": y, "x": 500_000 + 10 * (np.arange(SHAPE[1]) + offset)}


def _variables(dn, times=TIMES[:1], **attrs) -> xr.Dataset:
    """A variable a band, as odc-stac loads it."""
    each = {
        name: (("time", "y", "x"), dn[:, i], {"nodata": 0, **attrs}) for i, name in enumerate(GRN)
    }
    cube = xr.Dataset(each, coords={"time": times, **_places()})
    return cube.rio.write_crs(32629)


@pytest.fixture(params=["nc", "zarr"])
def write(tmp_path, request):
    def made(cube, stem="cube"):
        path = tmp_path / f"{stem}.{request.param}"
        if request.param == "nc":
            cube.to_netcdf(path)
        else:
            cube.to_zarr(path, zarr_format=2, consolidated=True)
        return path

    return made


def _read(scene, window=None, names=GRN):
    indexes = [scene.bands.index(name) for name in names]  # Zarr sorts its variables
    with scene.open() as reader:
        return reader.read(window or Window(0, 0, *scene.grid.shape), indexes)


def test_a_variable_a_band(write):
    dn = _numbers()
    path = write(_variables(dn, scale_factor=1e-4, add_offset=-0.1))
    scene = pickle.loads(pickle.dumps(open_scene(path)))
    assert (scene.product.kind, scene.stem, {*scene.bands}) == ("cube", "cube", {*GRN})
    assert (scene.grid.shape, scene.grid.transform) == (SHAPE, CORNER)
    assert scene.grid.crs.to_epsg() == 32629
    assert (scene.dtype, scene.nodata) == ("uint16", 0)
    assert scene.product.acquired == "2023-07-01T10:50:31Z"
    assert scene.radiometry.scale == pytest.approx((1e-4,) * 3)
    assert scene.radiometry.offset == pytest.approx((-0.1,) * 3)
    assert scene.radiometry.reason == "scale and offset from the attributes"
    tile = _read(scene)
    assert np.array_equal(tile.dn, dn[0])
    assert np.array_equal(tile.valid, dn[0].any(axis=0))
    part = _read(scene, Window(2, 5, 7, 11), ("nir", "green"))
    assert np.array_equal(part.dn, dn[0, [2, 0], 2:9, 5:16])
    assert scene.share_observed() == pytest.approx(17 / 20)


def test_fewer_pixels_are_spread_over_the_window(write):
    dn = _numbers()
    scene = open_scene(write(_variables(dn, scale_factor=1e-4)))
    with scene.open() as reader:
        out = np.empty((1, 4, 5), np.uint16)
        reader.read(Window(4, 10, 8, 20), [scene.bands.index("red")], out=out)
    assert np.array_equal(out[0], dn[0, 1, 5:12:2, 12:30:4])


def test_parts_and_windows_without_a_box(write):
    """What rows are stored from the south is read as it lies."""
    dn = _numbers()
    cube = _variables(dn, scale_factor=1e-4).isel(y=slice(None, None, -1))
    scene = open_scene(write(cube), window=(5, 4, 10, 8))
    assert scene.grid.transform == Affine(10, 0, 500_050, 0, 10, 4_400_000 - 200 + 40)
    assert np.array_equal(_read(scene).dn, dn[0, :, ::-1][:, 4:12, 5:15])


def test_one_of_several_times_is_chosen(write):
    dn = _numbers(2)
    path = write(_variables(dn, TIMES, scale_factor=1e-4))
    with pytest.raises(
        SceneError,
        match=r"one moment; .* holds 2: 2023-07-01T10:50:31Z, 2023-07-06T10:50:29Z\. "
        r"Choose one with --time 2023-07-01",
    ):
        open_scene(path)
    scene = open_scene(path, time="2023-07-06")
    assert np.array_equal(_read(scene).dn, dn[1])
    assert (scene.stem, scene.product.acquired) == ("cube_20230706T105029", "2023-07-06T10:50:29Z")
    assert RunConfig(time="2023-07-01").opened(path).stem == "cube_20230701T105031"
    for none, count in (("2023-07", 2), ("2024", 0)):
        with pytest.raises(ConfigError, match=f"{none}' is that of {count}. .* has 2023-07-01"):
            open_scene(path, time=none)


def test_days_name_outputs_by_the_day(write):
    days = np.array(["2023-07-01", "2023-07-06"], "datetime64[ns]")
    path = write(_variables(_numbers(2), days, scale_factor=1e-4))
    assert open_scene(path, time="2023-07-06").stem == "cube_20230706"


def test_a_time_is_a_cubes(make_raster):
    path = make_raster(_numbers()[0], descriptions=GRN, scale=1e-4)
    with pytest.raises(ConfigError, match=r"--time chooses .*netCDF or Zarr; .*scene.tif is neit"):
        open_scene(path, time="2023")


def test_openeo(write):
    """CF: the grid mapping is a variable, the time is t."""
    dn = _numbers().astype(np.int16)
    dn[dn == 0] = -32768
    each = {
        name: (("t", "y", "x"), dn[:, i], {"grid_mapping": "crs", "_FillValue": np.int16(-32768)})
        for i, name in enumerate(("B03", "B04", "B08"))
    }
    crs = xr.DataArray(b"", attrs={"crs_wkt": xr.Dataset().rio.write_crs(32629).rio.crs.to_wkt()})
    cube = xr.Dataset(each, coords={"t": TIMES[:1], **_places()}).assign(crs=crs)
    with pytest.warns(match="int16 taken as reflectance x 10000"):
        scene = open_scene(write(cube, "openEO"))
    assert (scene.bands, scene.product.sensor, scene.nodata) == (GRN, "sentinel-2", -32768)
    assert scene.grid.crs.to_epsg() == 32629
    assert np.array_equal(_read(scene).valid, dn[0, 0] > 0)


@pytest.mark.parametrize("corner", [0.0, 0.5])
def test_stackstac(tmp_path, corner):
    """Its coordinates are corners by default, which only their being whole pixels tells."""
    cube = xr.DataArray(
        _numbers() * 1e-4, dims=("time", "band", "y", "x"), name="stackstac-1a2b",
        coords={"time": TIMES[:1], "band": list(GRN), "epsg": 32629, **_places(corner)},
    )  # fmt: skip
    cube.to_netcdf(tmp_path / "s.nc")
    with pytest.warns(match="floating point taken as reflectance 0 to 1"):
        scene = open_scene(tmp_path / "s.nc")
    assert (scene.bands, scene.grid.transform) == (GRN, CORNER)
    assert scene.grid.crs.to_epsg() == 32629
    dn = _numbers()[0] * 1e-4
    part = _read(scene, Window(2, 5, 7, 11), ("nir", "green"))
    assert np.array_equal(part.dn, dn[[2, 0], 2:9, 5:16])


def test_degrees_without_a_crs_are_wgs_84(tmp_path):
    y, x = 39 - 0.001 * np.arange(SHAPE[0]), -9 + 0.001 * np.arange(SHAPE[1])
    units = {"lat": "degrees_north", "lon": "degrees_east"}
    cube = xr.DataArray(
        _numbers()[0], dims=("band", "lat", "lon"), name="reflectance",
        coords={"band": list(GRN), "lat": y, "lon": x}, attrs={"scale_factor": 1e-4},
    )  # fmt: skip
    for dim, unit in units.items():
        cube[dim].attrs["units"] = unit
    cube.to_netcdf(tmp_path / "d.nc")
    scene = open_scene(tmp_path / "d.nc")
    assert scene.grid.crs.to_epsg() == 4326
    assert scene.grid.transform.almost_equals(Affine(0.001, 0, -9.0005, 0, -0.001, 39.0005))


@pytest.mark.parametrize("key", ["crs", "proj:epsg"])
def test_a_crs_that_is_noted_as_a_number(write, key):
    """As stackstac notes it; files give it back as an integer of numpy's."""
    cube = _variables(_numbers(), scale_factor=1e-4).drop_vars("spatial_ref")
    for array in cube.data_vars.values():
        array.encoding.clear()
    assert open_scene(write(cube.assign_attrs({key: 32629}))).grid.crs.to_epsg() == 32629


def test_its_own_cloud_layer(write):
    cube = _variables(_numbers(2), TIMES, scale_factor=1e-4)
    classes = np.full((2, *SHAPE), 4, np.uint8)
    classes[1, 5:9] = 9
    cube["SCL"] = (("time", "y", "x"), classes)
    scene = open_scene(write(cube), time="2023-07-06", cloud_mask="product", window=(0, 4, 30, 10))
    assert ({*scene.bands}, scene.cloud_mask) == ({*GRN}, "cube (scl)")
    with scene.open_clouds() as read:
        hidden = read(Window(0, 0, 10, 30))
    assert np.array_equal(hidden, classes[1, 4:14] == 9)


def test_a_group_of_a_product_as_esa_writes_it(tmp_path):
    """The Sentinel-2 Zarr of EOPF: bands of one pixel size in a group, the CRS in an attribute."""
    dn, name = _numbers()[0], "S2B_MSIL2A_20230701T105031_N0509_R051_T31UFU_20230701T165800"
    facts = {"scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": 0, "proj:epsg": 32629}
    each = {b: (("y", "x"), dn[i], facts) for i, b in enumerate(("b03", "b04", "b08"))}
    group = "measurements/reflectance/r10m"
    store = tmp_path / f"{name}.zarr"
    xr.Dataset(each, coords=_places()).to_zarr(store, group=group, zarr_format=2, consolidated=True)
    scene = open_scene(store / group)
    assert (scene.stem, scene.product.sensor, scene.bands) == (name, "sentinel-2-l2a", GRN)
    assert open_scene(store / group, bands=("B03", "B04", "B08")).bands == GRN
    assert (scene.product.evidence.baseline, scene.radiometry.offset[0]) == (5.09, -0.1)
    assert (scene.grid.crs.to_epsg(), scene.grid.transform) == (32629, CORNER)
    assert np.array_equal(_read(scene).dn, dn)
    with pytest.raises(SceneError, match=r"has none\. Of a store with groups give the one with"):
        open_scene(store)


def _serve(server, folder, dn):
    """A store at ``/a/c.zarr``."""
    _variables(dn, scale_factor=1e-4).to_zarr(folder / "c.zarr", zarr_format=2, consolidated=True)
    for path in (folder / "c.zarr").rglob("*"):
        if path.is_file():
            server.files[f"/a/{path.relative_to(folder).as_posix()}"] = path.read_bytes()


def test_zarr_on_a_server(tmp_path):
    dn = _numbers()
    with serving() as server:
        _serve(server, tmp_path, dn)
        scene = open_scene(f"{server.url}/a/c.zarr/")
        assert (scene.stem, scene.share_observed()) == ("c", None)
        assert np.array_equal(_read(scene).dn, dn[0])
        with pytest.raises(SceneError, match=r"cannot open http\S+/b\.zarr with xarray"):
            find_product(f"{server.url}/b.zarr")
        with pytest.raises(SceneError, match=r"netCDF is read from disk; download http\S+c\.nc"):
            find_product(f"{server.url}/c.nc?sig=x")


@pytest.mark.parametrize(
    ("fault", "message", "passing"),
    [
        (403, r"refuses access \(HTTP 403\)", False),
        (500, r"keeps failing \(HTTP 500\)", True),
        ("cut", "come back cut short", True),
    ],
)
def test_a_server_that_fails_is_no_damaged_cube(tmp_path, fault, message, passing):
    with serving() as server:
        _serve(server, tmp_path, _numbers())
        scene = open_scene(f"{server.url}/a/c.zarr")
        with scene.open() as reader:
            server.fault = lambda number, method: fault
            with pytest.raises(SceneError, match=message) as while_reading:
                reader.read(Window(0, 0, 9, 9), [0])
        with pytest.raises(SceneError, match=message) as on_opening:
            open_scene(scene.uri)
    assert (while_reading.value.passing, on_opening.value.passing) == (passing, passing)


def _uneven(cube):
    return cube.assign_coords(x=[*cube.x.to_numpy()[:-1], 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.rename(green="a", red="b", nir="c"), r"variables that are bands.*has a \('ti"),
        (_uneven, r"evenly spaced; x of .* is not"),
        (lambda c: c.assign(red=c.red.astype("f4")), r"one type and on one grid; .*red \(float32"),
        (lambda c: c.rename(y="row"), r"dimensions of space, like y and x; .* has time, row, x"),
        (lambda c: c.assign(red=c.red.assign_attrs(nodata=9)), "one nodata value.*red: 9"),
        (lambda c: xr.concat([c, c], "run"), r"holds 2: 0, 1"),
        (lambda c: xr.concat([c, c], "run").isel(time=[0, 0]), r"one dimension, time; .*run"),
        (lambda c: c.assign(red=c.red.assign_attrs(nodata="no")), "as the CF conventions have"),
        (lambda c: c.isel(y=slice(0)), "as the CF conventions have them; those of .*cube.nc"),
    ],
)
def test_what_is_no_scene_is_said(tmp_path, change, message):
    change(_variables(_numbers(), scale_factor=1e-4)).to_netcdf(tmp_path / "cube.nc")
    with pytest.raises(SceneError, match=message):
        open_scene(tmp_path / "cube.nc")


def test_damaged_and_missing(tmp_path):
    (tmp_path / "bad.nc").write_bytes(b"CDF" + bytes(40))
    with pytest.raises(SceneError, match=r"cannot open .*bad\.nc with xarray"):
        find_product(tmp_path / "bad.nc")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(SceneError, match=r"cannot open .*empty\.zarr with xarray"):
        find_product(tmp_path / "empty.zarr")
    with pytest.raises(SceneError, match=r"there is no .*none\.zarr"):
        find_product(tmp_path / "none.zarr")


def test_the_extra_is_named_where_it_is_missing(write, monkeypatch):
    path = write(_variables(_numbers()))
    real = builtins.__import__

    def without(name, *rest):
        if name == "rioxarray":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=re.escape("pip install 'geounet[xarray]'")):
        find_product(path)


def test_a_file_cut_short_is_one_clear_error(tmp_path):
    path = tmp_path / "cube.nc"
    cube = _variables(_numbers(), scale_factor=1e-4)
    cube.to_netcdf(path, encoding={n: {"zlib": True, "chunksizes": (1, 5, 30)} for n in GRN})
    scene = open_scene(path)
    assert scene.block == (5, 30)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * (path.stat().st_size // 3))
    with pytest.raises(SceneError, match=r"cube\.nc"):
        _read(scene)

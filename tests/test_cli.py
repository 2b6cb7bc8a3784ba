"""The command line as a person meets it: exit codes, one line on errors, nothing half-written."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import rioxarray  # noqa: F401 - registers .rio
import torch
import xarray as xr
from affine import Affine
from disks import little_space
from models import tiny_model
from safetensors.torch import save_file

import geounet
from geounet.cli import main
from geounet.model import Architecture, ModelSpec, save_model, shipped_models


@pytest.fixture
def network(tmp_path):
    """A model file: a U-Net whose random weights do not matter here."""
    return tiny_model(tmp_path)


@pytest.fixture
def call(capfd, monkeypatch):
    """Run the command in this process: exit code, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["geounet", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0, *capfd.readouterr()

    return run


@pytest.fixture
def scene(make_water):
    return make_water(90, 70)[0]


def test_parts_of_a_scene(call, network, scene, tmp_path):
    part = ("--model", network, "--output", tmp_path / "out")
    box = ("--bbox", "-8.9988,39.7465,-8.9964,39.7483", "--bbox-crs", "EPSG:4326")
    code, out, err = call("run", scene, *part, "--window", "10,5,50,60", *box, "--quiet")
    assert (code, err) == (0, "")
    with rasterio.open(tmp_path / "out" / "scene_mask.tif") as mask, rasterio.open(scene) as whole:
        place = mask.tags()["PART"]
        col, row, width, height = (int(n) for n in place.split(" of ")[0].split(","))
        assert place == f"{col},{row},{width},{height} of 70 x 90 pixels"
        assert (mask.width, mask.height) == (width, height)
        assert mask.xy(0, 0) == whole.xy(row, col)
    west, north = whole.transform.c, whole.transform.f
    code, out, err = call(
        "run", scene, "--dry-run", "--json", *part, "--overwrite", "--window", "10,5,90,20"
    )
    record = _strict_json(out)
    assert record["size"] == "60 x 20 pixels"
    assert record["part"] == "10,5,60,20 of 70 x 90 pixels"
    assert record["transform"] == [10, 0, west + 100, 0, -10, north - 50]


def test_two_parts_in_one_folder_go_by_names(call, network, scene, tmp_path):
    def part(*arguments):
        where = ("--model", network, "--output", tmp_path / "out", "--window", "10,5,50,60")
        return call("run", scene, *where, "--quiet", "--no-polygons", *arguments)

    assert part()[0] == 0
    code, _, err = part()
    assert code == 1
    assert "scene_mask.tif. Give --overwrite, or another --output or --name." in err
    assert part("--name", "east", "--quicklook")[0] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "scene_mask.tif", "east_mask.tif", "east_quicklook.png"
    }  # fmt: skip
    code, _, err = part("--name", "a/b")
    assert (code, "name: " in err) == (2, True)


def test_a_time_of_a_cube(call, network, make_raster, tmp_path):
    data = np.random.default_rng(1).integers(100, 5000, (2, 3, 20, 30)).astype(np.int16)
    bands = {name: (("time", "y", "x"), data[:, i]) for i, name in enumerate(("B03", "B04", "B08"))}
    places = {"y": 4_400_000 - 10.0 * np.arange(20), "x": 500_000 + 10.0 * np.arange(30)}
    times = np.array(["2023-07-01", "2023-07-06"], "datetime64[ns]")
    path = tmp_path / "cube.nc"
    xr.Dataset(bands, coords={"time": times, **places}).rio.write_crs(32629).to_netcdf(path)
    code, _, err = call("info", path)
    assert (code, "Choose one with --time 2023-07-01." in err) == (1, True)
    code, said, _ = call("info", path, "--time", "2023-07-06")
    assert (code, _table(said)["acquired"]) == (0, "2023-07-06T00:00:00Z")
    told = ("--time", "2023-07-06", "--model", network, "--output", tmp_path / "out", "--json")
    code, said, _ = call("run", path, *told, "--scale", "0.0001", "--offset", "0")
    assert code == 0
    with rasterio.open(_strict_json(said)["outputs"]["mask"]) as mask:
        assert mask.name.endswith("cube_20230706_mask.tif")
        assert (mask.tags()["ACQUIRED"], mask.shape) == ("2023-07-06T00:00:00Z", (20, 30))
        assert mask.transform == Affine(10, 0, 499_995, 0, -10, 4_400_005)


def test_a_scene_with_nothing_observed_is_a_warning(call, network, make_raster, tmp_path):
    path = make_raster(
        np.zeros((3, 90, 70), np.uint16), descriptions=("green", "red", "nir"), scale=1e-4
    )
    code, out, err = call(
        "run", path, "--model", network, "--output", tmp_path / "out", "--shoreline",
        "--probability", "--quicklook", "--json",
    )  # fmt: skip
    assert code == 0
    assert "warning: nothing was observed in" in err
    record = _strict_json(out)
    assert record["pixels"]["not observed"] == 6300
    assert record["polygons"] == 0
    assert len(record["outputs"]) == 5
    assert all(os.path.getsize(path) for path in record["outputs"].values())  # noqa: PTH202


def test_a_cloud_mask(call, network, scene, make_raster, tmp_path):
    mask = make_raster(np.full((1, 90, 70), 9, np.uint8), "clouds.tif")
    common = ("run", scene, "--model", network, "--output", tmp_path / "out", "--json")
    code, out, _ = call(*common, "--cloud-mask", mask, "--cloud-rule", "scl")
    assert code == 0
    assert _strict_json(out)["pixels"]["obscured"] == 6300
    assert _strict_json(out)["cloud_mask"] == "clouds (scl)"
    code, _, err = call(*common, "--cloud-mask", "product")
    assert code
    assert "takes the product's own" in err


def test_parts_that_are_none(call, network, scene, tmp_path):
    common = ("run", scene, "--model", network, "--output", tmp_path / "out")
    for options, message in [
        (
            ("--window", "1,2,3"),
            "--window takes four whole numbers with commas between; got '1,2,3'",
        ),
        (("--window", "1,2,3,4.5"), "--window takes four whole numbers"),
        (("--bbox", "1,2,3,x"), "--bbox takes four numbers with commas between; got '1,2,3,x'"),
        (("--bbox", "10,50,11,51", "--bbox-crs", "EPSG:4326"), "the bbox must overlap the scene"),
        (("--bbox-crs", "EPSG:4326"), "--bbox-crs is that of --bbox"),
        (("--geometry", tmp_path / "no.gpkg"), "a geometry must be a vector file"),
    ]:
        code, _, err = call(*common, *options)
        assert code
        assert message in err
        assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def _table(text):
    pairs = (line.split("  ", 1) for line in text.splitlines())
    return {key.strip(): value.strip() for key, value in pairs}


def _strict_json(text):
    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


# -- what works ------------------------------------------------------------------------------------


def test_run_writes_and_says_what_it_did(call, scene, network, tmp_path):
    out = tmp_path / "out"
    code, said, err = call("run", scene, "-o", out, "--model", network)
    assert (code, err) == (0, "")  # no terminal, no progress bar
    lines = _table(said)
    assert lines["model"].startswith("tiny 7 on ")
    assert lines["bands"] == "B03=green, B04=red, B08=nir"
    assert lines["radiometry"] == "scale and offset from the band metadata"
    assert lines["mask"] == str(out / "scene_mask.tif")
    assert lines["polygons"] == str(out / "scene_water.gpkg")
    assert lines["water"].endswith(" km2")
    count = len(geopandas.read_file(out / "scene_water.gpkg"))
    assert lines["water bodies"] == f"{count} polygons"
    assert all(stage in lines["time"] for stage in ("read", "predict", "write", "polygons"))
    assert sorted(p.name for p in out.iterdir()) == ["scene_mask.tif", "scene_water.gpkg"]


def test_json_is_all_there_is_on_standard_output(call, scene, network, tmp_path):
    out = tmp_path / "out"
    code, said, err = call("run", scene, "-o", out, "-m", network, "--json", "--probability")
    assert (code, err) == (0, "")
    record = _strict_json(said)
    with rasterio.open(out / "scene_mask.tif") as file:
        codes = file.read(1)
    assert record["pixels"]["water"] == (codes == 1).sum()
    assert record["pixels"]["land"] == (codes == 0).sum()
    assert record["polygons"] == len(geopandas.read_file(out / "scene_water.gpkg"))
    assert set(record["outputs"]) == {"mask", "polygons", "probability"}
    assert record["model"] == "tiny 7"


def test_the_same_from_python(call, scene, network, tmp_path):
    call("run", scene, "-o", tmp_path / "a", "-m", network)
    result = geounet.run(scene, output=tmp_path / "b", model=str(network))
    with (
        rasterio.open(tmp_path / "a/scene_mask.tif") as a,
        rasterio.open(result.outputs["mask"]) as b,
    ):
        assert np.array_equal(a.read(), b.read())
        assert a.tags() == b.tags()


def test_every_option_reaches_the_run(call, scene, network, tmp_path):
    options = (
        "--bands", "B03,-,B08", "--scale", "0.0002", "--offset", "-0.01", "--nodata", "7",
        "--tile", "32", "--overlap", "6", "--blend", "cosine", "--threshold", "0.3",
        "--device", "cpu", "--batch", "3", "--probability", "--format", "geojson",
        "--min-area", "300", "--connectivity", "8", "--overwrite",
    )  # fmt: skip
    code, _, err = call("run", scene, "-o", tmp_path, "-m", network, *options)
    assert code == 1
    assert "needs red (B04)" in err  # told that it is not there
    options = ("--bands", "B03,B04,B08", *options[2:])
    assert call("run", scene, "-o", tmp_path / "out", "-m", network, *options)[0] == 0
    with rasterio.open(tmp_path / "out/scene_mask.tif") as file:
        tags = file.tags()
    expected = {
        "SCALE": "0.0002 0.0002 0.0002", "OFFSET": "-0.01 -0.01 -0.01", "TILE": "32",
        "OVERLAP": "6", "BLEND": "cosine", "THRESHOLD": "0.3",
        "RADIOMETRY": "scale and offset as told",
    }  # fmt: skip
    assert {key: tags[key] for key in expected} == expected
    assert (tmp_path / "out/scene_water.geojson").exists()
    assert (tmp_path / "out/scene_probability.tif").exists()


def test_no_polygons(call, scene, network, tmp_path):
    code, said, _ = call("run", scene, "-o", tmp_path / "o", "-m", network, "--no-polygons")
    assert code == 0
    assert not {"water bodies", "polygons"} & _table(said).keys()
    assert [p.name for p in (tmp_path / "o").iterdir()] == ["scene_mask.tif"]


def test_a_quicklook_is_made_and_replaces_none(call, scene, network, tmp_path):
    out = tmp_path / "out"
    arguments = ("run", scene, "-o", out, "-m", network, "--quicklook", "--json")
    code, said, err = call(*arguments)
    assert (code, err) == (0, "")
    picture = out / "scene_quicklook.png"
    assert _strict_json(said)["outputs"]["quicklook"] == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    for name in ("scene_mask.tif", "scene_water.gpkg"):
        (out / name).unlink()
    code, said, err = call(*arguments)
    assert (code, said) == (1, "")
    assert "scene_quicklook.png" in err
    assert [p.name for p in out.iterdir()] == [picture.name]  # refused before anything was done
    assert call(*arguments, "--overwrite")[0] == 0


def test_quiet_prints_nothing(call, make_raster, network, tmp_path):
    """Not even what it had to assume."""
    dn = np.random.default_rng(0).integers(200, 3000, (3, 30, 30)).astype(np.uint16)
    path = make_raster(dn, descriptions=("green", "red", "nir"))
    assert call("run", path, "-o", tmp_path / "out", "-m", network, "-q") == (0, "", "")
    assert (tmp_path / "out/scene_mask.tif").exists()


def test_what_is_assumed_is_said_in_one_line_on_standard_error(
    call, make_raster, network, tmp_path
):
    dn = np.random.default_rng(0).integers(200, 3000, (3, 30, 30)).astype(np.uint16)
    path = make_raster(dn, descriptions=("green", "red", "nir"))
    code, said, err = call("run", path, "-o", tmp_path / "out", "-m", network, "--json")
    assert code == 0
    assert _strict_json(said)["radiometry"].endswith("(assumed)")
    (line,) = err.splitlines()
    assert line.startswith("geounet: warning: nothing in ")


def test_verbose_adds_the_plan(call, scene, network, tmp_path):
    code, said, err = call("run", scene, "-o", tmp_path / "out", "-m", network, "-v")
    assert code == 0
    assert "sha256" in said
    assert "overlap 16" in err


def test_a_profile_says_where_the_time_went(call, scene, network, tmp_path):
    code, said, err = call("run", scene, "-o", tmp_path / "a", "-m", network, "--profile")
    assert (code, err) == (0, "")
    lines = [line.split() for line in said.splitlines()]
    rows = lines[lines.index(["thread", "stage", "seconds", "share"]) + 1 :]
    assert [row[:2] for row in rows[:2]] == [["reader", "read"], ["reader", "else"]]
    assert {row[0] for row in rows} == {"reader", "predictor", "writer"}
    shares = [int(row[-1].rstrip("%")) for row in rows if row[0] == "writer"]
    assert abs(sum(shares) - 100) <= len(shares)
    said = call("run", scene, "-o", tmp_path / "b", "-m", network, "--profile", "--json")[1]
    assert set(_strict_json(said)["profile"]) == {"reader", "predictor", "writer"}


def test_a_dry_run_prints_the_plan_and_writes_nothing(call, scene, network, tmp_path):
    before = sorted(tmp_path.iterdir())
    out = tmp_path / "deep" / "out"
    code, said, err = call("run", scene, "-o", out, "-m", network, "--dry-run", "--probability")
    assert (code, err) == (0, "")
    lines = _table(said)
    assert lines["windows"] == "4 of 64 x 64, overlap 16"
    assert lines["strips"] == "2"
    assert lines["crs"] == "EPSG:32629"
    assert lines["bands used"] == "B03=green, B04=red, B08=nir"
    assert lines["memory"].startswith("about ")
    assert lines["probability"] == str(out / "scene_probability.tif")
    assert sorted(tmp_path.iterdir()) == before


def test_a_dry_run_as_json(call, scene, network, tmp_path):
    code, said, _ = call("run", scene, "-o", tmp_path, "-m", network, "--dry-run", "--json")
    assert code == 0
    assert _strict_json(said)["mask"] == str(tmp_path / "scene_mask.tif")


def test_info(call, make_water):
    path, _ = make_water(30, 20, nodata=0)
    code, said, err = call("info", path)
    assert (code, err) == (0, "")
    for part in ("20 x 30 pixels", "EPSG:32629", "uint16", "green, red, nir", "band metadata"):
        assert part in said
    assert _table(said)["clouds"] == "none"


def test_info_says_all_that_was_understood(call, make_raster, tmp_path):
    dn = np.full((4, 40, 60), 900, np.uint16)
    dn[:, :, :15] = 0
    path = make_raster(dn, descriptions=("B02", "B03", "B8A", "SCL"), scale=1e-4, offset=-0.1)
    mask = make_raster(np.ones((1, 40, 60), np.uint8), "clouds.tif")
    code, said, _ = call("info", path, "--cloud-mask", mask, "--window", "0,10,30,30")
    assert code == 0
    lines = _table(said)
    assert lines["kind"] == "raster"
    assert lines["size"] == "30 x 30 pixels"
    assert lines["part"] == "0,10,30,30 of 60 x 40 pixels"
    assert lines["observed"] == "about 50.0%"
    assert lines["clouds"] == "clouds (nonzero)"
    assert lines["bands"].startswith("blue, green, nir08, ")
    assert lines["- green"].startswith("B03")
    record = _strict_json(call("info", path, "--json")[1])
    assert [band["own name"] for band in record["bands"]] == ["B02", "B03", "B8A", "SCL"]
    assert [band["name"] for band in record["bands"]][:3] == ["blue", "green", "nir08"]
    assert record["bands"][1]["scale"] == 1e-4
    assert record["observed"] == 0.75
    assert record["acquired"] is None
    assert record["clouds"] == "not used; --cloud-mask product"


def test_info_as_json(call, make_raster):
    dn = np.full((3, 20, 30), 0.1, np.float32)
    path = make_raster(dn, descriptions=("green", "red", "nir"), nodata=float("nan"), offset=0.01)
    code, said, err = call("info", path, "--json", "--scale", "1")
    assert (code, err) == (0, "")
    record = _strict_json(said)  # NaN is no JSON
    assert record["nodata"] == "nan"
    assert record["crs"] == "EPSG:32629"
    assert record["assumed"] is False
    assert record["transform"] == [10, 0, 500_000, 0, -10, 4_400_000]


def test_models(call, network):
    code, said, err = call("models", network)
    assert (code, err) == (0, "")
    assert "tiny" in said
    assert re.search("^needs +B03, B04, B08$", said, re.MULTILINE)
    record = _strict_json(call("models", network, "--json")[1])
    assert ModelSpec.model_validate({k: v for k, v in record.items() if k != "sha256"})
    assert record["sha256"] == geounet.load_model(network).digest


def test_models_without_a_name_are_one_json_list(call, network, monkeypatch):
    """However many ship: all that is printed is one document."""
    both = {"tiny": network, **shipped_models()}
    monkeypatch.setattr("geounet.model.shipped_models", lambda: both)
    records = _strict_json(call("models", "--json")[1])
    assert len(records) == len(both) >= 2
    assert records[0] == _strict_json(call("models", network, "--json")[1])


def test_version_and_help(call):
    assert call("--version") == (0, f"geounet {geounet.__version__}\n", "")
    for arguments in (("--help",), ("-h",), ("run", "--help"), ("info", "-h"), ("models", "-h")):
        code, said, err = call(*arguments)
        assert (code, err) == (0, "")
        assert "Usage: geounet" in said


# -- bad input -------------------------------------------------------------------------------------


def _missing_file(path, network):
    path.unlink()
    return 1, "a scene must exist: there is no", ()


def _not_a_raster(path, network):
    path.write_text("hello")
    return 1, "a scene must be a raster that GDAL opens", ()


def _empty_file(path, network):
    path.write_bytes(b"")
    return 1, "a scene must be a raster", ()


def _truncated(path, network):
    cog = path.with_name("cog.tif")
    rasterio.shutil.copy(path, cog, driver="COG", overviews="NONE")
    cog.replace(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 2 // 3)
    return 1, "The file is truncated or damaged", ()


def _missing_bands(path, network):
    return 1, "tiny needs red (B04), nir (B08); the scene has green", ("--bands", "B03,-,-")


def _fits_no_sensor(path, network):
    with rasterio.open(path) as file:
        data, profile = file.read(), file.profile
    with rasterio.open(path, "w", **profile) as file:
        file.write(data)
    return 1, "3 bands", ()


def _wrong_bands(path, network):
    return 2, "--bands does not know B99", ("--bands", "B03,B99,B08")


def _too_few_bands(path, network):
    return 2, "it has 3, 2 names given", ("--bands", "B03,B08")


def _tile_not_taken(path, network):
    return 2, "takes tiles of a multiple of 2 pixels; got 63. Try --tile 62 or 64", ("--tile", "63")


def _overlap_not_less(path, network):
    return 2, "got overlap 32, tile 32", ("--tile", "32", "--overlap", "32")


def _no_such_device(path, network):
    return 2, "--device must be auto, cpu", ("--device", "tpu9")


def _threshold(path, network):
    return 2, "threshold should ", ("--threshold", "2")


def _not_a_number(path, network):
    return 2, "threshold should ", ("--threshold", "nan")


def _connectivity(path, network):
    return 2, "connectivity should ", ("--connectivity", "5")


def _no_model(path, network):
    network.unlink()
    return 1, "there is no", ()


def _not_a_model(path, network):
    network.write_text("weights")
    return 1, "not a whole safetensors file", ()


def _foreign_model(path, network):
    save_file({"a": torch.zeros(2)}, network)
    return 1, "holds its spec under 'geounet'", ()


def _model_that_does_not_fit(path, network):
    model = geounet.load_model(network)
    spec = model.spec.model_copy(
        update={"architecture": Architecture(decoder="unet2015", options={"features": [3],
                                                                          "padded": True})}
    )  # fmt: skip
    save_model(network, spec, model.network)
    return 1, "do not fit its network", ()


def _is_a_picture(path, network):
    with rasterio.open(path) as file:
        names, profile = file.descriptions, file.profile | {"dtype": "uint8"}
    with rasterio.open(path, "w", **profile) as file:
        file.descriptions = names
        file.write(np.full((3, 90, 70), 9, np.uint8))
    return 1, "uint8 without a scale is a picture", ()


BAD = [
    _missing_file, _not_a_raster, _empty_file, _truncated, _missing_bands, _fits_no_sensor,
    _wrong_bands, _too_few_bands, _tile_not_taken, _overlap_not_less, _no_such_device, _threshold,
    _not_a_number, _connectivity, _no_model, _not_a_model, _foreign_model,
    _model_that_does_not_fit, _is_a_picture,
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_gets_one_clear_line(call, scene, network, tmp_path, bad):
    """Rule, value, what to do; the exit code says whose fault; no output is left."""
    expected, message, options = bad(scene, network)
    out = tmp_path / "out"
    code, said, err = call("run", scene, "-o", out, "-m", network, *options)
    assert (code, said) == (expected, "")
    (line,) = err.splitlines()
    assert line.startswith("geounet: error: ")
    assert message in line
    assert not out.exists()


def test_an_output_that_exists(call, scene, network, tmp_path):
    out = tmp_path / "out"
    assert call("run", scene, "-o", out, "-m", network, "-q")[0] == 0
    before = (out / "scene_mask.tif").read_bytes()
    code, said, err = call("run", scene, "-o", out, "-m", network)
    assert (code, said) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("geounet: error: an output may not exist")
    assert "--overwrite" in line
    assert (out / "scene_mask.tif").read_bytes() == before
    assert call("run", scene, "-o", out, "-m", network, "--dry-run")[0] == 1
    assert call("run", scene, "-o", out, "-m", network, "--overwrite")[0] == 0


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_folder_that_cannot_be_written_to(call, scene, network, tmp_path, dry):
    (tmp_path / "file").write_text("")
    code, said, err = call("run", scene, "-o", tmp_path / "file/out", "-m", network, *dry)
    assert (code, said) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("geounet: error: outputs need a folder that can be written to")


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("run", "scene.tif", "--tiel", "3"),
        ("run", "scene.tif", "--tile", "big"),
        ("run", "scene.tif", "--blend", "hanning"),
        ("run", "scene.tif", "--format", "shp"),
        ("segment", "scene.tif"),
        ("rum", "scene.tif"),
    ],
)
def test_wrong_use_exits_with_two_and_says_how(call, arguments):
    code, said, err = call(*arguments)
    assert (code, said) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("geounet: error: ")
    assert line.endswith(f" See geounet{' run' * (arguments[0] == 'run')} --help.")
    assert not re.search(r"\?\.|Value error|Input should|\.\. See", line)


@pytest.mark.parametrize("command", ["info", "models"])
def test_the_other_commands_report_in_one_line_too(call, command):
    code, said, err = call(command, "nowhere.x")
    assert (code, said) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("geounet: error: ")
    assert "nowhere.x" in line


def test_a_full_disk(call, scene, network, tmp_path):
    """A limit on the size of a file stands for the disk."""
    out = tmp_path / "out"
    with little_space(60_000):
        code, said, err = call("run", scene, "-o", out, "-m", network)
    assert (code, said) == (1, "")
    # What libtiff, SQLite and GDAL print themselves comes before; geounet says one thing, last.
    *_, last = lines = err.splitlines()
    assert last.startswith("geounet: error: ")
    assert sum(line.startswith("geounet: ") for line in lines) == 1
    assert "Traceback" not in err
    assert not out.exists()


# -- in a process of its own -----------------------------------------------------------------------

STOPPABLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from geounet.cli import main
main()
"""


def test_an_interrupt_leaves_nothing(make_water, network, tmp_path):
    path, _ = make_water(3000, 2000)
    out = tmp_path / "out"
    command = [sys.executable, "-c", STOPPABLE, "run", path, "-o", out, "-m", network]
    command += ["--tile", "32", "--overlap", "16"]  # 23,000 windows: it lasts for many seconds
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        for _ in range(1200):  # until it has begun to write
            if out.exists() and any(out.iterdir()):
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, err = process.communicate(timeout=120)
    assert (process.returncode, said) == (130, "")
    assert err == "geounet: stopped; nothing half-written was left.\n"
    assert not out.exists()


# -- the model that ships --------------------------------------------------------------------------


def test_the_default_model_segments_the_scene_with_no_flag(call, make_raster, tmp_path):
    """Deep water and bare soil by twelve published reflectances: nothing subtle."""
    water = [0.03, 0.035, 0.03, 0.015, 0.01, 0.008, 0.007, 0.006, 0.005, 0.005, 0.003, 0.002]
    soil = [0.10, 0.12, 0.15, 0.19, 0.22, 0.24, 0.26, 0.28, 0.29, 0.29, 0.36, 0.31]
    dn = np.empty((12, 200, 300), np.uint16)
    dn[:, :, :150] = np.array(water)[:, None, None] * 1e4
    dn[:, :, 150:] = np.array(soil)[:, None, None] * 1e4
    dn[:, 150:, 100:200] = 0
    path = make_raster(dn, scale=1e-4, nodata=0)
    code, said, err = call("run", path, "-o", tmp_path / "out", "--json", "--device", "cpu")
    assert (code, err) == (0, "")
    record = _strict_json(said)
    assert len(record["bands"]) == len(geounet.load_model().spec.bands)
    assert record["bands_missing"] == []
    with rasterio.open(record["outputs"]["mask"]) as file:
        codes = file.read(1)
    assert (codes[150:, 100:200] == 255).all()
    assert record["pixels"]["not observed"] == 50 * 100
    assert (codes[10:140, 10:130] == 1).all()
    assert (codes[10:140, 170:290] == 0).all()


class TestVectorize:
    @pytest.fixture
    def mask(self, tmp_path, make_raster):
        codes = np.zeros((1, 20, 30), np.uint8)
        codes[:, 5:15, 5:15] = 1
        codes[:, 8:10, 8:10] = 0
        return make_raster(codes, nodata=255, name="mask.tif")

    def test_writes_polygons_and_shorelines(self, call, mask, tmp_path):
        target = tmp_path / "water.fgb"
        options = ("--shoreline", "--fill-holes", "500", "--to-crs", "EPSG:4326", "--json")
        code, said, err = call("vectorize", mask, "-o", target, *options)
        assert (code, err) == (0, "")
        made = _strict_json(said)
        assert made["polygons"] == str(target)
        polygons = geopandas.read_file(made["polygons"])
        assert polygons.crs.to_epsg() == 4326
        assert polygons.geometry.iloc[0].interiors[:] == []
        assert len(geopandas.read_file(made["shoreline"])) == 2

    def test_says_in_one_line_what_is_wrong(self, call, mask, tmp_path):
        for options, code, words in (
            (("--edges", "contour"), 2, "there is none"),
            (("--connectivity", "6"), 2, "4 or 8; got 6"),
            (("--to-crs", "EPSG:1"), 2, "got 'EPSG:1'"),
            (("-o", tmp_path / "a.shp"), 2, "shapefiles are not written"),
            (("-o", mask / "a.gpkg"), 1, "mask.tif is a file"),
        ):
            got, said, err = call("vectorize", mask, *options)
            assert (got, said) == (code, "")
            assert words in err
            assert err.count("\n") == 1

    def test_keeps_what_exists(self, call, mask):
        assert call("vectorize", mask)[0] == 0
        code, _, err = call("vectorize", mask)
        assert code == 1
        assert "may not exist unless it is to be replaced: " in err
        assert call("vectorize", mask, "--overwrite")[0] == 0


# -- across dates and scenes -----------------------------------------------------------------------


@pytest.fixture
def masks(make_raster):
    """Two masks of one grid: in the second the sea has come one pixel, 10 m, nearer."""
    codes = np.zeros((2, 30, 20), np.uint8)
    codes[0, 10:], codes[1, 9:] = 1, 1
    names = ("a_20230501.tif", "b_20240501.tif")
    return [
        make_raster(code[None], name, nodata=255) for code, name in zip(codes, names, strict=True)
    ]


def test_change_prints_areas_and_writes_both_files(call, masks, tmp_path):
    code, out, _ = call("change", *masks, "--output", tmp_path / "out", "--format", "fgb")
    table = _table(out)
    assert (code, table["gain"], table["loss"]) == (0, "0.002 km2", "0.000 km2")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "change.fgb", "change.tif"
    ]  # fmt: skip
    code, _, error = call("change", *masks, "--output", tmp_path / "out", "--format", "fgb")
    assert (code, error.count("\n")) == (1, 1)
    code, out, _ = call("change", *masks[::-1], "-o", tmp_path / "out", "--overwrite", "--json")
    assert (code, json.loads(out)["pixels"]["loss"]) == (0, 20)


def test_mosaic_takes_many_masks(call, masks, tmp_path):
    path = tmp_path / "out" / "all.tif"
    code, out, _ = call("mosaic", *masks, "--output", path, "--format", "geojson", "--json")
    record = json.loads(out)
    assert (code, record["pixels"]["water"], record["by_confidence"]) == (0, 400, False)
    assert (path.is_file(), (tmp_path / "out" / "all_water.geojson").is_file()) == (True, True)
    shaped = ("--min-area", 1e6, "--to-crs", "EPSG:4326", "--shoreline")
    code, out, _ = call("mosaic", *masks, "--output", path, *shaped, "--overwrite", "--json")
    made = json.loads(out)["outputs"]
    assert (code, geopandas.read_file(made["shoreline"]).crs.to_epsg()) == (0, 4326)
    assert len(geopandas.read_file(made["polygons"])) == 0
    for option in ("--smooth", "--simplify", "--fill-holes"):
        code, _, error = call("mosaic", *masks, "--output", path, option, -1, "--overwrite")
        assert (code, option[2:].replace("-", "_") in error) == (2, True)
    code, _, error = call("mosaic", *masks, "--output", path, "--edges", "contour", "--overwrite")
    assert (code, "NAME_probability.tif" in error) == (2, True)
    code, _, error = call("mosaic", *masks, "--output", path, "--crs", "EPSG:0", "--overwrite")
    assert (code, "EPSG:0" in error) == (2, True)


@pytest.mark.parametrize("command", ["vectorize", "change", "mosaic", "transects"])
def test_commands_on_masks_show_how_far_they_are(call, masks, tmp_path, monkeypatch, command):
    """On a terminal; never beside JSON."""
    line = geopandas.GeoSeries.from_wkt(["LINESTRING (500180 4399990, 500020 4399990)"])
    line.set_crs(32629).to_file(tmp_path / "base.gpkg")
    first = {"transects": [tmp_path / "base.gpkg", *masks], "vectorize": masks[:1]}
    units = {"transects": "files"}
    name = {"vectorize": "w.gpkg", "mosaic": "m.tif", "transects": "t.csv"}.get(command, "out")
    words = (command, *first.get(command, masks), "-o", tmp_path / name, "--overwrite")
    shown = []

    @contextmanager
    def bar(*, hidden, unit="tiles"):
        yield None if hidden else lambda at: shown.append((at.done, at.total, unit))

    monkeypatch.setattr("geounet.cli.masks.progress_bar", bar)
    assert call(*words)[0] == 0
    done, total, unit = shown[-1]
    assert (done, unit) == (total, units.get(command, "rows"))
    shown.clear()
    assert (call(*words, "--json")[0], shown) == (0, [])


def test_transects_makes_one_table_of_many_dates(call, masks, tmp_path):
    line = geopandas.GeoSeries.from_wkt(["LINESTRING (500180 4399990, 500020 4399990)"])
    line.set_crs(32629).to_file(tmp_path / "base.gpkg")
    table = tmp_path / "t.csv"
    told = ("--spacing", 50, "--length", 150, "--output", table)
    code, out, _ = call("transects", tmp_path / "base.gpkg", *masks, *told)
    record = _table(out)
    assert (code, record["transects"], record["measured"]) == (0, "4", "8")
    assert record["dates"] == "2023-05-01 to 2024-05-01"
    rows = [line.split(",") for line in table.read_text().splitlines()]
    distances = np.array([float(row[3]) for row in rows[1:]]).reshape(2, 4)
    assert distances[0] - distances[1] == pytest.approx([10 / 0.9996] * 4, abs=1e-3)
    code, _, error = call("transects", tmp_path / "base.gpkg", *masks, *told)
    assert (code, error.count("\n"), "--overwrite" in error) == (1, 1, True)
    code, _, error = call("transects", tmp_path / "base.gpkg", *masks, "--spacing", 50)
    assert (code, "both a spacing and a length" in error) == (2, True)

from __future__ import annotations

import base64
import json
import logging
import pickle
import sys
import traceback
from typing import TYPE_CHECKING

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from rasterio.shutil import copy
from serving import FileServer, serving

import geounet
from geounet import ConfigError, SceneError, buckets, outlines, remote
from geounet.buckets import fetch
from geounet.cli import main
from geounet.model import Architecture, InputBand, ModelSpec, Normalisation, save_model
from geounet.segmenter import build_network
from geounet.tiling import Window

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SECRET = "5e" + "c3e7"
"""Spelt so that a traceback that shows this file's lines does not hold it."""
SIGNED = f"/scene.tif?X-Amz-Signature={SECRET}&sig={SECRET}%3D&se=2026"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server, and waits that suit a test."""
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "2")
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    monkeypatch.setattr(remote, "_DELAY", 0.01)
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def cog(tmp_path_factory) -> tuple[bytes, NDArray[np.uint16]]:
    """A COG of random numbers, which do not compress, and the numbers."""
    folder = tmp_path_factory.mktemp("cog")
    data = np.random.default_rng(0).integers(1, 3000, (3, 1024, 1024), np.uint16)
    grid = {"crs": "EPSG:32629", "transform": Affine(10, 0, 500_000, 0, -10, 4_400_000)}
    shape = {"count": 3, "height": 1024, "width": 1024, "dtype": "uint16"}
    with rasterio.open(folder / "plain.tif", "w", driver="GTiff", **shape, **grid) as file:
        file.write(data)
        file.descriptions = ("green", "red", "nir")
        file.scales = (1e-4,) * 3
    copy(folder / "plain.tif", folder / "cog.tif", driver="COG", blocksize=256, overviews="none")
    return (folder / "cog.tif").read_bytes(), data


@pytest.fixture
def served(server: FileServer, cog) -> tuple[FileServer, NDArray[np.uint16]]:
    server.files["/scene.tif"] = cog[0]
    return server, cog[1]


@pytest.mark.parametrize(
    ("uri", "shown", "stem"),
    [
        ("https://host/a/T32.tif?sig=abc%3D&se=1", "https://host/a/T32.tif", "T32"),
        ("https://user:pa@ss@host/a/T32.tif", "https://host/a/T32.tif", "T32"),
        ("https://host/a/two%20words.tif#x", "https://host/a/two%20words.tif#x", "two words"),
        ("https://host/a/b%2Fc:d.tif", "https://host/a/b%2Fc:d.tif", "c_d"),
        ("https://user:word@host/?q=1", "https://host/", "host"),
        ("s3://bucket/S2A.SAFE/B03.jp2", "s3://bucket/S2A.SAFE/B03.jp2", "B03"),
        ("/vsicurl/https://host/x.tif?sig=abc", "/vsicurl/https://host/x.tif", "x"),
        ("/vsicurl?header.Authorization=abc&url=https://host/x", "/vsicurl", "vsicurl"),
        ("/vsis3/bucket/x@y.tif", "/vsis3/bucket/x@y.tif", "x@y"),
        ("https://host/users/@me/x.tif", "https://host/users/@me/x.tif", "x"),
    ],
)
def test_a_url_shows_no_secret_and_gives_a_clean_stem(uri: str, shown: str, stem: str) -> None:
    assert remote.redact(uri) == shown
    assert remote.stem(uri) == stem
    assert remote.file_name(uri).removesuffix(".tif").removesuffix(".jp2") == stem
    assert remote.is_remote(uri)


def test_secrets_are_taken_out_of_any_text() -> None:
    text = "'/vsicurl/https://h/a.tif?sig=SECRET' and <b>https://me:SECRET@h/b?c=SECRET</b>; why?"
    assert remote.redact(text) == "'/vsicurl/https://h/a.tif' and <b>https://h/b</b>; why?"


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("https://host/x.tif?a=b", "/vsicurl/https://host/x.tif?a=b"),
        ("s3://bucket/x.tif", "/vsis3/bucket/x.tif"),
        ("gs://bucket/x.tif", "/vsigs/bucket/x.tif"),
        ("az://container/x.tif", "/vsiaz/container/x.tif"),
        ("zip+https://host/x.zip!a.tif", "zip+https://host/x.zip!a.tif"),
        ("/vsis3/bucket/x.tif", "/vsis3/bucket/x.tif"),
        ("NETCDF:x.nc:y", "NETCDF:x.nc:y"),
    ],
)
def test_schemes_become_file_systems_of_gdal(uri: str, path: str) -> None:
    assert remote.gdal_path(uri) == path


@pytest.mark.parametrize("uri", ["scene.tif", "C:/x/y.tif", "/data/https/x.tif", "/vsizip/a.zip/b"])
def test_a_local_path_is_read_as_ever(uri: str) -> None:
    def fail() -> None:
        raise OSError("its own words")

    assert not remote.is_remote(uri)
    assert remote.settings(uri) == {}
    with pytest.raises(OSError, match=r"^its own words$"):
        remote.attempt(uri, fail)


def test_settings_leave_alone_what_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "9")
    monkeypatch.setenv("GDAL_NUM_THREADS", "9")
    with rasterio.Env(GDAL_HTTP_CONNECTTIMEOUT="7"):
        settings = remote.settings("s3://bucket/x.tif")
    assert settings["GDAL_DISABLE_READDIR_ON_OPEN"] == "EMPTY_DIR"
    assert not {"GDAL_HTTP_MAX_RETRY", "GDAL_HTTP_CONNECTTIMEOUT"} & set(settings)
    assert settings["GDAL_NUM_THREADS"] == "1", "more than one hides failed requests"


def test_only_what_is_needed_is_read(served) -> None:
    server, data = served
    scene = geounet.open_scene(server.url + SIGNED)
    assert server.sent < 100_000
    with scene.open() as reader:
        tile = reader.read(Window(300, 600, 100, 50), [0, 2])
    np.testing.assert_array_equal(tile.dn, data[[0, 2], 300:400, 600:650])
    block = 256 * 256 * 2 * 3
    assert server.sent < 100_000 + 1.5 * block < len(server.files["/scene.tif"]) / 4


def test_a_scene_is_named_without_its_signature(served) -> None:
    server, _ = served
    scene = geounet.open_scene(server.url + SIGNED)
    assert (scene.uri, scene.stem) == (f"{server.url}/scene.tif", "scene")
    assert SECRET not in repr(scene)
    with pickle.loads(pickle.dumps(scene)).open() as reader:
        assert reader.read(Window(0, 0, 2, 2), [0]).dn.shape == (1, 2, 2)


@pytest.fixture
def network(tmp_path) -> Path:
    """A model file: a U-Net whose random weights do not matter here."""
    torch.manual_seed(0)
    names = ("green", "red", "nir")
    spec = ModelSpec(
        name="tiny",
        version="1",
        architecture=Architecture(decoder="unet2015", options={"features": [2], "padded": True}),
        bands=tuple(InputBand(name=n, common_name=n, required=True) for n in names),
        classes=("land", "water"),
        normalisation=Normalisation(mean=(0.1,) * 3, std=(0.1,) * 3),
        tile=512,
        overlap=32,
        tile_multiple=2,
    )
    save_model(tmp_path / "tiny.safetensors", spec, build_network(spec))
    return tmp_path / "tiny.safetensors"


def test_a_run_over_http_is_that_of_the_file_and_records_no_secret(
    served, network, tmp_path, monkeypatch, caplog, capsys
) -> None:
    caplog.set_level(logging.DEBUG)
    server, _ = served
    server.fault = lambda number, method: 503 if number % 5 == 3 else None
    options = {"model": str(network), "polygons": False}
    far = geounet.run(server.url + SIGNED, output=tmp_path / "far", **options)
    (tmp_path / "scene.tif").write_bytes(server.files["/scene.tif"])
    near = geounet.run(tmp_path / "scene.tif", output=tmp_path / "near", **options)
    monkeypatch.setattr("sys.argv", ["geounet", "info", server.url + SIGNED, "--json"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    out = capsys.readouterr()
    assert "503" in caplog.text
    written = b"".join(p.read_bytes() for p in (tmp_path / "far").iterdir())
    for text in (caplog.text, repr(far), out.out, out.err, written.decode("latin1")):
        assert SECRET not in text
    assert json.loads(out.out)["scene"] == f"{server.url}/scene.tif"
    with rasterio.open(far.outputs["mask"]) as a, rasterio.open(near.outputs["mask"]) as b:
        np.testing.assert_array_equal(a.read(), b.read())
        assert a.tags()["SOURCE"] == "scene.tif"


@pytest.mark.parametrize(
    ("fault", "message", "tries"),
    [
        (401, r"refuses access \(HTTP 401\). Check the credentials; a signed URL may", 1),
        (403, r"refuses access \(HTTP 403\). Check the credentials; a signed URL may", 1),
        (404, r"nothing there \(HTTP 404\). Check the address", 1),
        (410, r"nothing there \(HTTP 410\). Check the address", 1),
        (429, r"keeps failing \(HTTP 429\). Try again later", 3),
        (503, r"keeps failing \(HTTP 503\). Try again later", 3),
        ("ranges", "does not serve parts of a file. Download it", None),
    ],
)
def test_each_failure_of_a_server_is_one_clear_error(served, fault, message, tries) -> None:
    server, _ = served
    server.fault = lambda number, method: fault
    with pytest.raises(SceneError, match=rf"cannot read {server.url}/scene.tif: .*{message}") as e:
        geounet.open_scene(server.url + SIGNED)
    assert SECRET not in "".join(traceback.format_exception(e.value))
    assert e.value.passing is (fault in (429, 503))
    if tries:
        assert len({request[1] for request in server.requests}) == 1
        # GDAL asks twice for a file whose header it does not keep.
        assert len(server.requests) <= 2 * tries
        assert len(server.requests) >= tries


def test_a_server_that_recovers_is_no_failure(served) -> None:
    server, data = served
    server.fault = lambda number, method: 503 if number % 3 < 2 else None
    scene = geounet.open_scene(server.url + "/scene.tif")
    np.testing.assert_allclose(scene.reflectance(["green"])[0], data[0] * 1e-4, rtol=1e-6)


def test_a_failure_is_not_remembered(served) -> None:
    """GDAL keeps it in memory that a file could not be had, unless told not to."""
    server, _ = served
    server.fault = lambda number, method: 404
    with pytest.raises(SceneError, match="404"):
        geounet.open_scene(server.url + "/scene.tif")
    server.fault = lambda number, method: None
    assert geounet.open_scene(server.url + "/scene.tif").bands == ("green", "red", "nir")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (403, r"refuses access \(HTTP 403\).*signed URL may have expired"),
        (503, r"keeps failing \(HTTP 503\)"),
        ("cut", "come back cut short or damaged"),
    ],
)
def test_a_failure_in_the_middle_says_what_it_was(served, fault, message, caplog) -> None:
    server, _ = served
    scene = geounet.open_scene(server.url + SIGNED)
    with scene.open() as reader:
        server.fault = lambda number, method: fault
        with pytest.raises(SceneError, match=message) as caught:
            reader.read(Window(0, 0, 512, 512), [0])
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + caplog.text


def test_a_body_that_is_cut_short_is_asked_for_again(served) -> None:
    server, data = served
    scene = geounet.open_scene(server.url + "/scene.tif")
    with scene.open() as reader:
        count = len(server.requests)
        server.fault = lambda number, method: "cut" if number < count + 4 else None
        tile = reader.read(Window(0, 0, 512, 512), [0, 1])
    np.testing.assert_array_equal(tile.dn, data[:2, :512, :512])


def test_a_server_that_hangs_is_given_up(served, monkeypatch: pytest.MonkeyPatch) -> None:
    server, _ = served
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")
    monkeypatch.setattr(remote, "_TRIES", 2)
    server.fault = lambda number, method: "hang"
    with pytest.raises(SceneError, match=r"stopped answering. Try again later"):
        geounet.open_scene(server.url + "/scene.tif")
    assert len(server.requests) >= 2


def test_a_page_that_asks_to_log_in_is_no_raster(server) -> None:
    server.files["/scene.tif"] = b"<html>log in</html>"
    with pytest.raises(SceneError, match=r"no raster that GDAL opens. Open the address"):
        geounet.open_scene(server.url + SIGNED)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1/x.tif", "cannot be reached"),
        ("http://nowhere.invalid/x.tif", "name of the server is not known"),
    ],
)
def test_a_server_that_is_not_there(server, url: str, message: str) -> None:
    for read in (geounet.open_scene, fetch):
        with pytest.raises(SceneError, match=message):
            read(url)


def test_storage_without_credentials_says_so(server, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("CPL_AWS_AUTODETECT_EC2", "NO")
    with pytest.raises(
        SceneError, match=r"no credentials .* public bucket set AWS_NO_SIGN_REQUEST"
    ):
        geounet.open_scene("s3://bucket/scene.tif")


@pytest.fixture
def storage(served, monkeypatch) -> tuple[FileServer, NDArray[np.uint16]]:
    """The server as S3, Azure and Google storage, which GDAL signs its requests for."""
    server, _ = served
    host = server.url.removeprefix("http://")
    key = base64.b64encode(b"key").decode()
    for name, value in {
        "AWS_S3_ENDPOINT": host, "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "eu-west-1",
        "AZURE_STORAGE_CONNECTION_STRING": f"DefaultEndpointsProtocol=http;AccountName=me;"
        f"AccountKey={key};BlobEndpoint={server.url}",
        "CPL_GS_ENDPOINT": f"{server.url}/", "GS_ACCESS_KEY_ID": "me",
        "GS_SECRET_ACCESS_KEY": SECRET,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    server.files["/bucket/scene.tif"] = server.files["/scene.tif"]
    return served


@pytest.mark.parametrize("scheme", ["s3", "az", "gs"])
def test_object_storage_is_read_in_parts(storage, scheme: str) -> None:
    server, data = storage
    scene = geounet.open_scene(f"{scheme}://bucket/scene.tif")
    assert (scene.uri, scene.stem) == (f"{scheme}://bucket/scene.tif", "scene")
    np.testing.assert_allclose(
        scene.reflectance(["red"], Window(300, 600, 100, 50))[0],
        data[1, 300:400, 600:650] * 1e-4,
        rtol=1e-6,
    )
    assert server.sent < len(server.files["/scene.tif"]) / 3
    assert all(server.signed)


@pytest.mark.parametrize("scheme", ["s3", "az", "gs"])
@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        (403, "AccessDenied", "refuses access"),
        (404, "NoSuchKey", "nothing there"),
        (503, "SlowDown", "HTTP 503"),
    ],
)
def test_object_storage_fails_as_a_server_does(storage, scheme, fault, code, message) -> None:
    server, _ = storage
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>Not now.</Message></Error>"
    server.refusal = body.encode()
    server.fault = lambda number, method: fault
    with pytest.raises(SceneError, match=rf"cannot read {scheme}://bucket/scene.tif: .*{message}"):
        geounet.open_scene(f"{scheme}://bucket/scene.tif")


def test_fetch_reads_small_files_whole(server) -> None:
    server.files["/item.json"] = b"{}"
    server.fault = lambda number, method: {0: 503, 1: "cut"}.get(number)
    assert fetch(f"{server.url}/item.json?sig={SECRET}") == b"{}"
    assert [request[1] for request in server.requests] == [f"/item.json?sig={SECRET}"] * 3


@pytest.mark.parametrize(("status", "tries"), [(400, 1), (403, 1), (404, 1), (408, 3),
                                                (429, 3), (451, 1), (500, 3)])  # fmt: skip
def test_fetch_retries_what_may_pass(server, status: int, tries: int) -> None:
    server.fault = lambda number, method: status
    with pytest.raises(SceneError, match=rf"HTTP {status}") as caught:
        fetch(f"{server.url}/item.json?sig={SECRET}")
    assert len(server.requests) == tries
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_fetch_refuses_what_is_no_small_file(server, monkeypatch) -> None:
    server.files["/item.json"] = b"x" * 100
    monkeypatch.setattr(buckets, "_FETCH_BYTES", 99)
    with pytest.raises(SceneError, match="is larger"):
        fetch(f"/vsicurl/{server.url}/item.json")


def test_a_storage_whose_package_is_missing(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ConfigError, match=r"pip install 'geounet\[cloud\]'"):
        fetch("gs://bucket/item.json")


# -- masks -----------------------------------------------------------------------------------------


@pytest.fixture
def masks(server, make_raster, tmp_path) -> list[Path]:
    """Two masks that overlap, with their probabilities, here and on the server."""
    random, paths = np.random.default_rng(4), []
    for number, name in enumerate("ab"):
        level = random.integers(0, 251, (1, 60, 70)).astype(np.uint8)
        place = {"transform": Affine(10, 0, 500_000 + 300 * number, 0, -10, 4_400_000)}
        codes = (level >= 125).astype(np.uint8)
        codes[0, :3, :3] = 2
        level[0, :3, :3] = 255
        paths.append(make_raster(codes, f"{name}_mask.tif", nodata=255, **place))
        chance = make_raster(level, f"{name}_probability.tif", nodata=255, scale=1 / 250, **place)
        for path in (paths[-1], chance):
            server.files[f"/{path.name}"] = path.read_bytes()
    return paths


def _signed(server: FileServer, name: str) -> str:
    return f"{server.url}/{name}?sig={SECRET}"


def test_masks_on_a_server_become_polygons(server, masks, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    far = [_signed(server, name) for name in ("a_mask.tif", "a_probability.tif")]
    near = geounet.vectorize(masks[0], probability=tmp_path / "a_probability.tif").polygons
    found = geounet.vectorize(far[0], probability=far[1]).polygons
    assert found.equals(near)
    assert set(found["source"]) == {"a_mask.tif"}
    assert len(geounet.polygonize(far[0])) == len(near)
    outlines.vectorize_to_files(far[0])
    assert (tmp_path / "a_mask.gpkg").is_file()


def test_masks_on_a_server_are_compared_and_merged(server, masks, tmp_path) -> None:
    far = [_signed(server, path.name) for path in masks]
    for side, paths in (("near", masks), ("far", far)):
        folder = tmp_path / side
        folder.mkdir()
        geounet.change(*paths, output=folder, format="geojson")
        geounet.mosaic(paths, output=folder / "m.tif", format="geojson", probability=True)
    for name in ("change.tif", "m.tif", "m_probability.tif"):  # the surest won: they were found
        pixels = [rasterio.open(tmp_path / side / name) for side in ("near", "far")]
        assert np.array_equal(*(source.read() for source in pixels))
        assert pixels[0].tags() == pixels[1].tags()
        for source in pixels:
            source.close()
    for name in ("change.geojson", "m_water.geojson"):
        assert (tmp_path / "far" / name).read_text() == (tmp_path / "near" / name).read_text()


def test_masks_and_shorelines_on_a_server_are_crossed(server, masks, tmp_path) -> None:
    line = shapely.LineString([(500_005, 4_399_900), (500_600, 4_399_700)])
    geopandas.GeoDataFrame(geometry=[line], crs=32629).to_file(tmp_path / "lines.gpkg")
    geounet.vectorize(masks[0], shoreline=True).shorelines.to_file(tmp_path / "a_shore.gpkg")
    server.files["/a_shore.gpkg"] = (tmp_path / "a_shore.gpkg").read_bytes()
    names = ("a_mask.tif", "a_probability.tif", "a_shore.gpkg")
    near = geounet.transects(tmp_path / "lines.gpkg", [tmp_path / name for name in names])
    far = geounet.transects(tmp_path / "lines.gpkg", [_signed(server, name) for name in names])
    assert far.crossings.equals(near.crossings)
    assert far.crossings["distance_m"].notna().all()
    assert f"/a_mask.tif?sig={SECRET}" in [path for _, path, _ in server.requests]


def test_a_probability_that_may_not_be_read_is_not_there(server, masks, tmp_path) -> None:
    refused = "/a_probability.tif"
    server.files.pop(refused)
    with pytest.warns(geounet.GeounetWarning, match=r"beside http://[^?]*/a_mask.tif: where"):
        made = geounet.mosaic(
            [_signed(server, path.name) for path in masks], output=tmp_path / "m.tif"
        )
    assert not made.by_confidence


@pytest.mark.parametrize("status", [404, 503])
def test_masks_that_cannot_be_had(server, tmp_path, status: int) -> None:
    server.fault = lambda number, method: status
    url = _signed(server, "x_mask.tif")
    for fail in (
        lambda: geounet.vectorize(url),
        lambda: geounet.change(url, url, output=tmp_path / "out"),
        lambda: geounet.mosaic([url], output=tmp_path / "m.tif"),
    ):
        with pytest.raises(SceneError, match=rf"x_mask.tif: .*HTTP {status}") as caught:
            fail()
        assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_what_does_not_fit_is_named_without_its_signature(server, masks, tmp_path) -> None:
    line = shapely.LineString([(500_005, 4_399_900), (500_600, 4_399_700)])
    bare = tmp_path / "bare.geoparquet"
    geopandas.GeoDataFrame(geometry=[line]).to_parquet(bare)
    point = geopandas.GeoDataFrame(geometry=[shapely.Point(0, 0)])
    server.files["/point.geojson"] = point.to_json().encode()
    server.files["/text.gpkg"] = b"nothing"
    for baseline, source, name in (
        (bare, _signed(server, "a_mask.tif"), r"/a_mask\.tif has EPSG"),
        (_signed(server, "point.geojson"), masks[0], r"/point\.geojson has 1 features"),
        (bare, _signed(server, "point.geojson"), r"/point\.geojson holds Point"),
        (bare, _signed(server, "text.gpkg"), r"lines are wanted; http\S+/text\.gpkg cannot be"),
    ):
        with pytest.raises(SceneError, match=name) as caught:
            geounet.transects(baseline, [source])
        assert SECRET not in str(caught.value)

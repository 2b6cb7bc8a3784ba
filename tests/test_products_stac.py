"""STAC items as archives write them; their rasters are small and made here."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from affine import Affine
from serving import FileServer, serving

import geounet
from geounet import SceneError, remote
from geounet.products import Layer, find_product
from geounet.products.stac import read_items
from geounet.radiometry import Statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COG = "image/tiff; application=geotiff; profile=cloud-optimized"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "1")
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    monkeypatch.setattr(remote, "_DELAY", 0.01)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        yield server


@pytest.fixture
def make_band(make_raster) -> Callable[[str, int, int], Path]:
    """Write a band of 240 m x 120 m at a pixel size; its numbers are value, value + 1, …"""

    def make(name: str, pixel: int, value: int) -> Path:
        shape = (1, 120 // pixel, 240 // pixel)
        data = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape) + value
        transform = Affine(pixel, 0, 500_000, 0, -pixel, 4_400_000)
        return make_raster(data.astype(np.uint16), name, transform=transform)

    return make


def make_item(
    name: str, assets: dict[str, Any], properties: dict[str, Any], **more: Any
) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": None,
        "properties": {"datetime": "2023-07-01T10:46:30.262000Z", **properties},
        "links": [],
        "assets": assets,
        **more,
    }


def write(path: Path, content: object) -> str:
    path.write_text(json.dumps(content))
    return str(path)


# -- archives --------------------------------------------------------------------------------------


def earth_search(base: str = ".") -> dict[str, Any]:
    """Earth Search v1, collection sentinel-2-l2a; it still says an offset that it has taken out."""

    def band(key: str, common: str, gsd: int) -> dict[str, Any]:
        return {
            "href": f"{base}/{key}.tif",
            "type": COG,
            "eo:bands": [{"name": key, "common_name": common}],
            "gsd": gsd,
            "raster:bands": [{"nodata": 0, "data_type": "uint16", "scale": 0.0001, "offset": -0.1}],
            "roles": ["data", "reflectance"],
        }

    jp2 = {"href": "s3://sentinel-s2-l2a/B04.jp2", "type": "image/jp2", "roles": ["data"]}
    assets = {
        "red": band("red", "red", 10),
        "nir": band("nir", "nir", 10),
        "nir08": band("nir08", "nir08", 20),
        "rededge2": band("rededge2", "rededge", 20),
        "rededge3": band("rededge3", "rededge", 20),
        "visual": {
            "href": f"{base}/TCI.tif",
            "type": COG,
            "eo:bands": [{"name": c, "common_name": c} for c in ("red", "green", "blue")],
            "roles": ["visual"],
        },
        "thumbnail": {"href": f"{base}/x.jpg", "type": "image/jpeg", "roles": ["thumbnail"]},
        "scl": {"href": f"{base}/SCL.tif", "type": COG, "roles": ["data", "reflectance"]},
        "scl-jp2": {"href": "s3://sentinel-s2-l2a/SCL.jp2", "type": "image/jp2", "roles": ["data"]},
        "aot": {"href": f"{base}/AOT.tif", "type": COG, "roles": ["data", "reflectance"]},
        "red-jp2": {**jp2, "eo:bands": [{"name": "red", "common_name": "red"}]},
    }
    properties = {
        "platform": "sentinel-2a",
        "constellation": "sentinel-2",
        "s2:product_type": "S2MSI2A",
        "s2:processing_baseline": "05.09",
        "earthsearch:boa_offset_applied": True,
    }
    return make_item("S2A_31UFU_20230701_0_L2A", assets, properties)


def planetary_computer_sentinel2(base: str = ".") -> dict[str, Any]:
    bands = {"B05": "rededge", "B06": "rededge", "B08": "nir", "B8A": "rededge", "B11": "swir16"}
    assets: dict[str, Any] = {
        key: {
            "href": f"{base}/{key}.tif",
            "type": COG,
            "eo:bands": [{"name": key, "common_name": common, "description": "Band"}],
            "gsd": 10 if key == "B08" else 20,
            "roles": ["data"],
        }
        for key, common in bands.items()
    }
    assets["visual"] = {"href": f"{base}/TCI.tif", "type": COG, "roles": ["data"],
                        "eo:bands": [{"name": "B04", "common_name": "red"}] * 3}  # fmt: skip
    assets["SCL"] = {"href": f"{base}/SCL.tif", "type": COG, "roles": ["data"]}
    assets["product-metadata"] = {"href": f"{base}/MTD.xml", "type": "application/xml"}
    name = "S2B_MSIL2A_20220105T102409_R065_T32UPU_20220106T003349"
    return make_item(name, assets, {"platform": "Sentinel-2B", "s2:processing_baseline": "03.01"})


def landsatlook() -> dict[str, Any]:
    base = "collection02/level-2/LC08_L2SP_205031_20170105_20201008_02_T1"
    bands = {"red": "B4", "nir08": "B5", "swir16": "B6"}
    assets: dict[str, Any] = {
        key: {
            "href": f"https://landsatlook.usgs.gov/data/{base}_SR_{name}.TIF",
            "alternate": {
                "s3": {
                    "href": f"s3://usgs-landsat/{base}_SR_{name}.TIF",
                    "storage:requester_pays": True,
                }
            },
            "type": "image/vnd.stac.geotiff; cloud-optimized=true",
            "eo:bands": [{"name": name, "common_name": key, "gsd": 30}],
            "roles": ["data"],
        }
        for key, name in bands.items()
    }
    assets["qa_pixel"] = {
        "href": f"https://landsatlook.usgs.gov/data/{base}_QA_PIXEL.TIF",
        "type": "image/vnd.stac.geotiff; cloud-optimized=true",
        "roles": ["cloud", "cloud-shadow"],
    }
    properties = {"platform": "LANDSAT_8", "landsat:correction": "L2SP",
                  "landsat:collection_number": "02"}  # fmt: skip
    return make_item("LC08_L2SP_205031_20170105_20201008_02_T1_SR", assets, properties)


def planetary_computer_landsat5() -> dict[str, Any]:
    bands = {"green": "TM_B2", "red": "TM_B3", "nir08": "TM_B4", "swir16": "TM_B5"}
    assets: dict[str, Any] = {
        key: {
            "href": f"./{key}.tif",
            "type": COG,
            "eo:bands": [{"name": name, "common_name": key}],
            "raster:bands": [{"scale": 2.75e-05, "nodata": 0, "offset": -0.2}],
            "roles": ["data", "reflectance"],
        }
        for key, name in bands.items()
    }
    assets["lwir"] = {**assets["red"], "eo:bands": [{"name": "TM_B6", "common_name": "lwir"}]}
    assets["qa_pixel"] = {"href": "./qa_pixel.tif", "type": COG, "roles": ["cloud"]}
    properties = {"platform": "landsat-5", "landsat:correction": "L2SP"}
    return make_item("LT05_L2SP_090079_19950715_02_T1", assets, properties)


def hls() -> dict[str, Any]:
    """LP CLOUD, collection HLSL30: nothing but keys says what the bands are."""
    keys = ("B04", "B05", "B06", "B10", "Fmask")
    assets = {key: {"href": f"./{key}.tif", "type": COG, "roles": ["data"]} for key in keys}
    return make_item("HLS.L30.T10TEM.2022078T184452.v2.0", assets, {"platform": "LANDSAT-8"})


def copernicus() -> dict[str, Any]:
    """Copernicus Data Space, STAC 1.1: an asset for each band and pixel size."""

    def band(name: str, pixel: int, common: str) -> dict[str, Any]:
        return {
            "href": f"./{name}_{pixel}m.tif",
            "type": "image/jp2",
            "bands": [{"name": name, "eo:common_name": common}],
            "gsd": pixel,
            "nodata": 0,
            "raster:scale": 0.0001,
            "raster:offset": -0.1,
            "roles": ["data", "reflectance"],
        }

    assets = {
        "B04_20m": band("B04", 20, "red"),
        "B04_10m": band("B04", 10, "red"),
        "B8A_20m": band("B8A", 20, "nir08"),
        "SCL_20m": {"href": "./SCL_20m.tif", "type": "image/jp2", "roles": ["data"]},
    }
    properties = {"platform": "sentinel-2a", "processing:version": "05.11",
                  "processing:level": "L2", "constellation": "sentinel-2"}  # fmt: skip
    name = "S2A_MSIL2A_20250105T102409_N0511_R065_T32UPU_20250106T003349"
    return make_item(name, assets, properties, stac_version="1.1.0")


def planet() -> dict[str, Any]:
    bands = [{"name": c.title(), "common_name": c} for c in ("blue", "green", "red", "nir")]
    assets = {
        "ortho_analytic_4b_sr": {"href": "./all.tif", "type": COG, "eo:bands": bands,
                                 "roles": ["data", "reflectance"]},
        "ortho_udm2": {"href": "./udm2.tif", "type": COG, "roles": ["data"]},
    }  # fmt: skip
    return make_item("20230415_102437_58_2475", assets, {"platform": "2475"})


def test_earth_search(tmp_path, make_band) -> None:
    pixels = {"red": 10, "nir": 10, "nir08": 20, "rededge2": 20, "rededge3": 20}
    for i, (key, pixel) in enumerate(pixels.items()):
        make_band(f"{key}.tif", pixel, 1000 * (i + 1))
    product = find_product(write(tmp_path / "item.json", earth_search()), resampling="nearest")
    assert (product.kind, product.stem) == ("stac", "S2A_31UFU_20230701_0_L2A")
    assert product.names == tuple(pixels)
    assert (product.sensor, product.level) == ("sentinel-2-l2a", "L2A")
    assert product.acquired == "2023-07-01T10:46:30.262000Z"
    assert product.nodata == 0
    said = Statement("STAC item", (1e-4,) * 5, (-0.1,) * 5)
    evidence = product.evidence
    assert (evidence.bands, evidence.baseline, evidence.offset_removed) == (said, 5.09, True)
    assert product.clouds is not None
    assert (product.clouds.rule, product.clouds.uri) == ("scl", str(tmp_path / "SCL.tif"))
    with pytest.warns(geounet.GeounetWarning, match=r"STAC item says scale 0.0001, offset -0.1"):
        scene = geounet.open_scene(tmp_path / "item.json", scale=1e-4, offset=0.0)
    assert scene.bands == ("red", "nir", "nir08", "rededge075", "rededge078")
    assert scene.grid.shape == (12, 24)
    with pickle.loads(pickle.dumps(scene)).open() as reader:
        dn = reader.read(geounet.tiling.Window(0, 0, 12, 24), [0, 2]).dn
    assert dn[0, 0, :3].tolist() == [1000, 1001, 1002]
    assert dn[1, 0, 0] == 3000


def test_planetary_computer_sentinel2(tmp_path, make_band) -> None:
    for key in ("B05", "B06", "B08", "B8A", "B11"):
        make_band(f"{key}.tif", 10 if key == "B08" else 20, 1)
    product = find_product(write(tmp_path / "item.json", planetary_computer_sentinel2()))
    assert product.names == ("B05", "B06", "B08", "B8A", "B11")
    assert (product.sensor, product.evidence.baseline) == ("sentinel-2-l2a", 3.01)
    assert (product.evidence.bands, product.evidence.offset_removed) == (None, None)


@pytest.mark.parametrize("storage", ["https", "s3"])
def test_landsatlook(monkeypatch, server, storage: str) -> None:
    """Its https needs a log-in: with AWS credentials at hand the copy on S3 is taken."""
    if storage == "s3":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    seen: list[Layer] = []
    monkeypatch.setattr(
        "geounet.products.stac.stack", lambda layers, **_: seen.extend(layers) or 1 / 0
    )
    server.files["/items/x"] = json.dumps(landsatlook()).encode()
    with pytest.raises(ZeroDivisionError):
        find_product(f"{server.url}/items/x")
    assert [layer.name for layer in seen] == ["B4", "B5", "B6"]
    start = {"https": "/vsicurl/https://landsatlook.usgs.gov/data/", "s3": "/vsis3/usgs-landsat/"}
    assert {layer.uri.partition("collection02")[0] for layer in seen} == {start[storage]}


def test_planetary_computer_landsat5(tmp_path, make_band) -> None:
    """B4 is near infrared on Landsat 5; what measures heat is left out."""
    for key in ("green", "red", "nir08", "swir16"):
        make_band(f"{key}.tif", 30, 1)
    product = find_product(write(tmp_path / "item.json", planetary_computer_landsat5()))
    assert product.sensor == "landsat-5"
    assert geounet.open_scene(tmp_path / "item.json").bands == ("green", "red", "nir08", "swir16")
    assert product.evidence.level == "L2SP"
    assert product.evidence.bands == Statement("STAC item", (2.75e-5,) * 4, (-0.2,) * 4)
    assert product.clouds is not None
    assert product.clouds.rule == "qa_pixel"


def test_hls(tmp_path, make_band) -> None:
    """B05 is near infrared on Landsat 8, and red edge on Sentinel-2."""
    for key in ("B04", "B05", "B06"):
        make_band(f"{key}.tif", 30, 1)
    product = find_product(write(tmp_path / "item.json", hls()))
    assert (product.sensor, product.names) == ("hls-l30", ("B04", "B05", "B06"))
    assert geounet.open_scene(tmp_path / "item.json").bands == ("red", "nir08", "swir16")
    assert product.clouds is not None
    assert product.clouds.rule == "fmask"


def test_copernicus_takes_the_finest_of_each_band(tmp_path, make_band) -> None:
    make_band("B04_10m.tif", 10, 7)
    make_band("B8A_20m.tif", 20, 9)
    product = find_product(write(tmp_path / "item.json", copernicus()))
    assert product.names == ("B04", "B8A")
    assert product.layers[0].uri.endswith("B04_10m.tif")
    assert product.evidence.bands == Statement("STAC item", (1e-4,) * 2, (-0.1,) * 2)
    assert (product.evidence.baseline, product.level) == (5.11, "L2A")


def test_all_bands_in_one_asset(tmp_path, make_raster) -> None:
    make_raster(np.full((4, 5, 6), 300, np.uint16), "all.tif")
    product = find_product(write(tmp_path / "item.json", planet()))
    assert [(layer.band, layer.name) for layer in product.layers] == [
        (1, "Blue"), (2, "Green"), (3, "Red"), (4, "Nir")
    ]  # fmt: skip
    scene = geounet.open_scene(tmp_path / "item.json", scale=1e-4)
    assert scene.bands == ("blue", "green", "red", "nir")


# -- where items and assets lie --------------------------------------------------------------------


def test_an_item_at_a_url_has_its_assets_beside_it(server, tmp_path, make_band) -> None:
    item = planetary_computer_sentinel2()
    for key in ("B05", "B06", "B08", "B8A", "B11"):
        path = make_band(f"{key}.tif", 10 if key == "B08" else 20, 1000)
        server.files[f"/a/{key}.tif"] = path.read_bytes()
    server.files["/a/item.json"] = json.dumps(item).encode()
    scene = geounet.open_scene(f"{server.url}/a/item.json?sig=0123", scale=1e-4, offset=0.0)
    assert scene.uri == f"{server.url}/a/item.json"
    assert scene.reflectance(["nir"])[0, 0, 0] == pytest.approx(0.1)


def test_a_downloaded_item_finds_its_assets_by_its_self_link(server, tmp_path, make_band) -> None:
    assets = {"red": {"href": "./far.tif", "type": COG}, "nir": {"href": "near.tif", "type": COG}}
    link = {"rel": "self", "href": f"{server.url}/a/item.json"}
    make_band("near.tif", 10, 1)
    server.files["/a/far.tif"] = make_band("elsewhere.tif", 10, 1).read_bytes()
    product = find_product(write(tmp_path / "x.json", make_item("x", assets, {}, links=[link])))
    assert [layer.uri for layer in product.layers] == [
        f"/vsicurl/{server.url}/a/far.tif", str(tmp_path / "near.tif")
    ]  # fmt: skip


@pytest.mark.parametrize("href", ["file:///etc/x.tif", "/etc/x.tif", "/vsistdin/x.tif"])
def test_an_item_from_elsewhere_opens_no_file_here(server, href: str) -> None:
    item = make_item("x", {"red": {"href": href, "type": COG}}, {})
    server.files["/a/item.json"] = json.dumps(item).encode()
    with pytest.raises(SceneError, match=r"none is a raster|nothing there \(HTTP 404\)"):
        find_product(f"{server.url}/a/item.json")


def test_an_item_collection_of_one_is_a_scene(tmp_path, make_band) -> None:
    make_band("red.tif", 10, 1)
    item = make_item("one", {"red": {"href": "red.tif", "type": COG}}, {})
    path = write(tmp_path / "items.json", {"type": "FeatureCollection", "features": [item]})
    assert find_product(path).stem == "one"
    assert read_items(path) == (item,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"type": "FeatureCollection", "features": [earth_search(), hls(), planet(), planet()]},
         r"holds 4 \(S2A_31UFU_20230701_0_L2A, HLS.*, …\)\. Give them to geounet batch"),
        ({"type": "FeatureCollection", "features": []}, "holds 0. Give an item"),
        ({"type": "Catalog", "links": []}, "is a Catalog. Give the address of an item"),
        ({"type": "Feature", "geometry": None}, "is a Feature. Give the address of an item"),
        ({"type": "FeatureCollection", "features": None}, "is a FeatureCollection. Give the"),
        (make_item("x", {"a": "a.tif"}, {}), "is a Feature. Give the address of an item"),
        (make_item("x", {}, {}, links={"rel": "self"}), "is a Feature. Give the address"),
        ([1, 2], "is neither"),
        ("text", "is neither"),
        (make_item("x", {"a": {"href": "a.tif"}, "t": {"href": "t.png"}}, {}),
         "STAC item x has a, t, and none is a raster whose band is known"),
    ],
)  # fmt: skip
def test_what_is_no_one_item_is_refused(tmp_path, content: object, message: str) -> None:
    with pytest.raises(SceneError, match=message):
        find_product(write(tmp_path / "item.json", content))


@pytest.mark.parametrize(
    ("asset", "link"),
    [
        ({"href": 1}, "x"), ({"roles": 1}, "x"), ({"eo:bands": "red"}, "x"),
        ({"raster:bands": [None]}, "x"), ({"alternate": ["s3"]}, "x"), ({}, None),
        ({"href": "http://[x"}, "https://h/i.json"),
    ],
)  # fmt: skip
def test_an_item_that_is_malformed_is_refused(tmp_path, asset: object, link: object) -> None:
    assets = {"red": {"href": "red.tif", "type": COG, **asset}}
    item = make_item("x", assets, {}, links=[{"rel": "self", "href": link}])
    with pytest.raises(SceneError, match=r"as the specification has it; .*item\.json is not"):
        find_product(write(tmp_path / "item.json", item))


def test_what_is_no_json_is_refused(tmp_path) -> None:
    (tmp_path / "item.json").write_text("{broken")
    with pytest.raises(SceneError, match=r"must be JSON; .*item\.json is not"):
        find_product(tmp_path / "item.json")
    with pytest.raises(SceneError, match=r"must be a file that can be read: .*none\.json"):
        find_product(tmp_path / "none.json")


def test_assets_that_are_gone_are_named(server, tmp_path, make_band) -> None:
    item = planetary_computer_sentinel2(base=server.url)
    for asset in item["assets"].values():
        asset["href"] += "?sig=5ec7e7"
    with pytest.raises(SceneError, match=r"asset of the STAC item S2B_.*B05\.tif: .*HTTP 404") as e:
        find_product(write(tmp_path / "item.json", item))
    assert "5ec7e7" not in str(e.value)
    assert e.value.__cause__ is None


def test_an_asset_that_fails_later_says_so(server, tmp_path, make_band) -> None:
    assets = {}
    for key in ("green", "red", "nir"):
        server.files[f"/{key}.tif"] = make_band(f"{key}.tif", 10, 1000).read_bytes()
        assets[key] = {"href": f"{server.url}/{key}.tif?sig=5ec7e7", "type": COG}
    scene = geounet.open_scene(write(tmp_path / "i.json", make_item("x", assets, {})), scale=1e-4)
    server.fault = lambda number, method: 403
    with pytest.raises(SceneError, match=r"HTTP 403\).*signed URL") as caught:
        scene.reflectance(["red"])
    assert "5ec7e7" not in str(caught.value) + repr(scene)

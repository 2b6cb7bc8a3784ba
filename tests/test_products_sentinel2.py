"""Sentinel-2 products as downloaded."""

from __future__ import annotations

import io
import pickle
import shutil
import traceback
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from obstore.store import MemoryStore
from serving import serving

import geounet.products.bundle as bundle_module
import geounet.remote
from geounet import buckets
from geounet.errors import GeounetWarning, SceneError
from geounet.pipeline import RunConfig, prepare, run
from geounet.products import find_product
from geounet.products.bundle import open_bundle
from geounet.resampling import HALO, upsample
from geounet.scene import open_scene
from geounet.tiling import Window

TITLE = "S2A_MSIL2A_20230701T105031_N0509_R051_T31UFU_20230701T165800"
GRANULE = "GRANULE/L2A_T31UFU_A041915_20230701T105525"
PIXELS = {"B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B08": 10, "B8A": 20, "B11": 20}
L2A_FILES = {(b, p) for b, finest in PIXELS.items() for p in (10, 20, 60)
             if p >= finest and not (b == "B08" and p > 10)}  # fmt: skip
L2A_FILES |= {("SCL", 20), ("SCL", 60)}


def _write_jp2(path: Path, dn: np.ndarray, pixel: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dn = dn if dn.ndim == 3 else dn[None]
    profile = {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES", "count": len(dn),
               "height": dn.shape[1], "width": dn.shape[2], "dtype": dn.dtype,
               "crs": "EPSG:32631",
               "transform": Affine(pixel, 0, 600_000, 0, -pixel, 5_900_040)}  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", **profile) as file:
            file.write(dn)


def _numbers(band: str, pixel: int) -> np.ndarray:
    """1200 m x 1440 m; a different picture for each band and pixel size."""
    random = np.random.default_rng([*band.encode(), pixel])
    dn = random.integers(1001, 5000, (1200 // pixel, 1440 // pixel), np.uint16)
    dn[: 120 // pixel] = 0
    return dn


def _metadata(level="2A", baseline="05.09", offset=-1000, files=()) -> str:
    kind = "BOA" if level == "2A" else "RADIO"
    offsets = "".join(
        f'<{kind}_ADD_OFFSET band_id="{i}">{offset}</{kind}_ADD_OFFSET>' for i in range(13)
    )
    scale = "BOA_QUANTIFICATION_VALUE" if level == "2A" else "QUANTIFICATION_VALUE"
    images = "".join(f"<IMAGE_FILE>{name}</IMAGE_FILE>" for name in files)
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{level}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/x.xsd">
<n1:General_Info><Product_Info>
<PRODUCT_START_TIME>2023-07-01T10:50:31.024Z</PRODUCT_START_TIME>
<PRODUCT_URI>{TITLE}.SAFE</PRODUCT_URI>
<PROCESSING_LEVEL>Level-{level}</PROCESSING_LEVEL>
<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>{images}</Product_Info>
<Product_Image_Characteristics>
<QUANTIFICATION_VALUES_LIST><{scale} unit="none">10000</{scale}></QUANTIFICATION_VALUES_LIST>
{offsets if offset is not None else ""}
</Product_Image_Characteristics></n1:General_Info></n1:Level-{level}_User_Product>"""


@pytest.fixture(scope="module")
def whole_safe(tmp_path_factory):
    safe = tmp_path_factory.mktemp("download") / f"{TITLE}.SAFE"
    names = []
    for band, pixel in L2A_FILES:
        name = f"{GRANULE}/IMG_DATA/R{pixel}m/T31UFU_20230701T105031_{band}_{pixel}m"
        dn = _numbers(band, pixel)
        _write_jp2(safe / f"{name}.jp2", dn if band != "SCL" else (dn % 12).astype(np.uint8), pixel)
        names.append(name)
    (safe / "MTD_MSIL2A.xml").write_text(_metadata(files=names))
    mask = safe / GRANULE / "QI_DATA" / "MSK_DETFOO_B02.jp2"
    _write_jp2(mask, np.ones((4, 4), np.uint8), 10)
    return safe


@pytest.fixture
def safe(whole_safe, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(whole_safe, tmp_path / whole_safe.name))


def _image(safe, band, pixel):
    return safe / GRANULE / f"IMG_DATA/R{pixel}m/T31UFU_20230701T105031_{band}_{pixel}m.jp2"


def _zip(safe, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in safe.rglob("*"):
            if file.is_file():
                archive.write(file, f"{safe.name}/{file.relative_to(safe).as_posix()}")
    return path


def _level_1c(folder: Path, masks: dict[str, str | np.ndarray]) -> Path:
    """A product of Level 1C with what lies in its QI_DATA."""
    granule = folder / f"{TITLE}.SAFE" / "GRANULE/L1C_T31UFU"
    for band, pixel in (("B03", 10), ("B04", 10), ("B08", 10)):
        _write_jp2(granule / f"IMG_DATA/T31UFU_{band}.jp2", _numbers(band, pixel), pixel)
    for name, content in masks.items():
        (path := granule / "QI_DATA" / name).parent.mkdir(exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        else:
            _write_jp2(path, content, 60)
    (granule.parents[1] / "MTD_MSIL1C.xml").write_text(_metadata("1C", offset=None, baseline="3"))
    return granule.parents[1]


RING = "600000 5900040 600600 5900040 600600 5899440 600000 5899440 600000 5900040"
GML = f"""<eop:Mask xmlns:eop="http://www.opengis.net/eop/2.0" xmlns:gml="http://www.opengis.net/gml/3.2">
<gml:Envelope srsName="urn:ogc:def:crs:EPSG:8.7:32631"/><eop:maskMembers><gml:Polygon>
<gml:posList>{RING}</gml:posList></gml:Polygon></eop:maskMembers></eop:Mask>"""


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize("kind", ["classi", "polygons"])
def test_level_1cs_own_cloud_mask(tmp_path, kind, form):
    """An image of three bands from baseline 04.00 on, polygons before."""
    image = np.zeros((3, 20, 24), np.uint8)
    image[0, :10, :4], image[1, :10, 4:8], image[2, :10, 8:10] = 1, 1, 1
    files = {"MSK_CLASSI_B00.jp2": image} if kind == "classi" else {"MSK_CLOUDS_B00.gml": GML}
    safe = _level_1c(tmp_path, {**files, "MSK_DEFECT_B03.gml": "no XML"})
    given = safe if form == "folder" else _zip(safe, tmp_path / "product.zip")
    scene = open_scene(given, cloud_mask="product")
    assert scene.clouds is not None
    assert scene.clouds.rule == kind
    expected = np.zeros((120, 144), bool)
    expected[:60, :60] = True
    with pickle.loads(pickle.dumps(scene)).open_clouds() as read:
        assert np.array_equal(read(Window(0, 0, 120, 144)), expected)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    monkeypatch.setattr(geounet.remote, "_DELAY", 0.001)
    with serving() as server:
        yield server


def test_a_zip_on_a_server(whole_safe, server, tmp_path):
    """Its contents and metadata come first, then only the bands that are read."""
    path = _zip(whole_safe, tmp_path / "product.zip")
    server.files["/a/product.zip"] = path.read_bytes()
    scene = open_scene(f"{server.url}/a/product.zip?sig=SECRET", wanted=["green"])
    assert (scene.stem, scene.uri) == (TITLE, f"{server.url}/a/product.zip")
    local = open_scene(path, wanted=["green"])
    assert (scene.bands, scene.product.evidence) == (local.bands, local.product.evidence)
    green = pickle.loads(pickle.dumps(scene)).reflectance(["green"])
    assert np.array_equal(green, local.reflectance(["green"]), equal_nan=True)
    assert not any("SECRET" in text for text in (repr(scene), str(scene.product)))
    assert all(span for method, _, span in server.requests if method == "GET")


@pytest.mark.parametrize(
    ("fault", "name", "message"),
    [
        (None, "none.zip", r"cannot read http\S+none.zip: there is nothing there \(HTTP 404\)"),
        (403, "product.zip", r"refuses access \(HTTP 403\)"),
        ("ranges", "product.zip", r"does not serve parts of a file. Download it"),
        (None, "broken.zip", r"a zip must be whole; http\S+broken.zip: File is not a zip file"),
        (None, "x.SAFE/", r"does not list a folder; got http\S+x.SAFE/. Give the address of its"),
    ],
)
def test_what_goes_wrong_with_a_remote_product(server, fault, name, message):
    server.files |= {"/product.zip": b"PK", "/broken.zip": bytes(500)}
    server.fault = lambda number, method: fault
    with pytest.raises(SceneError, match=message) as caught:
        find_product(f"{server.url}/{name}?sig={'SEC' + 'RET'}")
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))


def test_a_server_that_fails_at_times_is_asked_again(whole_safe, server, tmp_path):
    path = _zip(whole_safe, tmp_path / "product.zip")
    server.files["/product.zip"] = path.read_bytes()
    server.fault = lambda number, method: {0: 503, 2: "cut"}.get(number)
    assert open_bundle(f"{server.url}/product.zip").names == open_bundle(str(path)).names


def test_a_safe_folder_in_a_bucket(monkeypatch):
    store = MemoryStore()
    for name in ("MTD_MSIL2A.xml", "GRANULE/g/IMG_DATA/R10m/T_B03_10m.jp2", ".hidden"):
        store.put(f"2023/{TITLE}.SAFE/{name}", name.encode())
    store.put(f"2023/{TITLE}.SAFE2/other.xml", b"")

    def store_of(url):
        return store, url.removeprefix("s3://bucket/")

    for module in (buckets, bundle_module):
        monkeypatch.setattr(module, "store_of", store_of)
    bundle = open_bundle(f"s3://bucket/2023/{TITLE}.SAFE/")
    assert bundle.names == ("GRANULE/g/IMG_DATA/R10m/T_B03_10m.jp2", "MTD_MSIL2A.xml")
    assert bundle.gdal(bundle.names[1]) == f"/vsis3/bucket/2023/{TITLE}.SAFE/MTD_MSIL2A.xml"
    assert bundle.read("MTD_MSIL2A.xml") == b"MTD_MSIL2A.xml"
    assert open_bundle(f"/vsis3/bucket/2023/{TITLE}.SAFE").names == bundle.names
    with pytest.raises(SceneError, match=r"there is nothing in s3://bucket/2022/a.SAFE"):
        open_bundle("s3://bucket/2022/a.SAFE")
    with pytest.raises(SceneError, match=r"cannot read s3://bucket/\S+none.xml"):
        bundle.read("none.xml")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.SAFE/MTD_MSIL2A.xml", "x" * 9)
    store.put("p.zip", buffer.getvalue())
    far = open_bundle("s3://bucket/p.zip")
    assert (far.names, far.read(far.names[0])) == (("a.SAFE/MTD_MSIL2A.xml",), b"x" * 9)
    assert far.gdal("b") == "/vsizip/{/vsis3/bucket/p.zip}/b"


def test_a_safe_folder(whole_safe):
    product = find_product(whole_safe)
    assert (product.kind, product.level, product.stem) == ("sentinel-2", "L2A", TITLE)
    assert product.names == ("B01", "B02", "B03", "B04", "B05", "B08", "B8A", "B11")
    assert product.factors == (6, 1, 1, 1, 2, 1, 2, 2)
    assert product.acquired == "2023-07-01T10:50:31.024Z"
    assert product.clouds is not None
    assert (product.clouds.rule, Path(product.clouds.uri)) == ("scl", _image(whole_safe, "SCL", 20))
    stated = product.evidence.product
    assert stated is not None
    assert stated.source == "MTD_MSIL2A.xml"
    assert set(stated.scale) == {1e-4}
    assert stated.offset == pytest.approx((-0.1,) * 8)
    assert (product.evidence.baseline, product.nodata) == (5.09, 0)


@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic"])
def test_each_band_comes_from_its_finest_file(whole_safe, method):
    scene = open_scene(whole_safe, resampling=method)
    assert scene.grid.shape == (120, 144)
    again = pickle.loads(pickle.dumps(scene))
    with again.open() as reader:
        tile = reader.read(Window(0, 0, 120, 144), range(8))
    for band, factor, dn in zip(scene.product.names, scene.product.factors, tile.dn, strict=True):
        own = np.pad(_numbers(band, 10 * factor), HALO[method], mode="edge")
        assert np.array_equal(dn, upsample(own, factor, method, nodata=0)), band
    assert np.array_equal(tile.valid, np.indices((120, 144))[0] >= 12)


@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic"])
def test_a_part_holds_the_numbers_of_the_whole(whole_safe, method):
    """Its edges lie inside coarse pixels; what lies around them is looked at all the same."""
    whole = open_scene(whole_safe, resampling=method).reflectance(["coastal", "swir16"])
    part = open_scene(whole_safe, resampling=method, window=(31, 7, 40, 55))
    found = part.reflectance(["coastal", "swir16"])
    assert np.array_equal(found, whole[:, 7:62, 31:71], equal_nan=True)


def test_the_wanted_bands_decide_the_grid(whole_safe):
    product = find_product(whole_safe, wanted=["swir16", "rededge071"])
    assert set(product.factors) == {1, 3}
    assert product.names == ("B01", "B02", "B03", "B04", "B05", "B8A", "B11"), (
        "B08 has no 20 m file"
    )
    assert "_B02_20m.jp2" in product.path


def test_a_zipped_safe_is_read_in_place(whole_safe, tmp_path):
    archive = _zip(whole_safe, tmp_path / "product.zip")
    product = find_product(archive)
    assert product.stem == TITLE
    assert product.evidence == find_product(whole_safe).evidence
    window = Window(7, 9, 50, 60)
    with open_scene(archive).open() as zipped, open_scene(whole_safe).open() as folder:
        assert np.array_equal(zipped.read(window, range(8)).dn, folder.read(window, range(8)).dn)
    assert [path.name for path in tmp_path.iterdir()] == ["product.zip"], "nothing is unpacked"


@pytest.mark.parametrize("part", ["MTD_MSIL2A.xml", f"{GRANULE}/IMG_DATA", GRANULE])
def test_a_part_of_the_product_finds_its_metadata(whole_safe, part):
    product = find_product(whole_safe / part)
    assert product.stem == TITLE
    assert product.evidence == find_product(whole_safe).evidence


def test_a_subset_of_the_bands_is_a_scene_and_says_so(safe):
    _image(safe, "B08", 10).unlink()
    _image(safe, "B02", 10).unlink()
    with pytest.warns(GeounetWarning, match=r"not all.*B02 \(20 m, not 10 m\), B08 \(missing\)"):
        product = find_product(safe)
    assert product.names == ("B01", "B02", "B03", "B04", "B05", "B8A", "B11")
    assert product.factors == (6, 2, 1, 1, 2, 2, 2)


def test_a_folder_of_jp2_files_of_l1c(tmp_path):
    folder = tmp_path / "tile"
    for band, pixel in {"B02": 10, "B11": 20, "B10": 60}.items():
        _write_jp2(folder / f"T31UFU_20170216T102101_{band}.jp2", _numbers(band, pixel), pixel)
    product = find_product(folder)
    assert (product.level, product.sensor, product.stem) == ("L1C", "sentinel-2-l1c", "tile")
    assert product.acquired == "2017-02-16T10:21:01Z"
    assert (product.names, product.factors) == (("B02", "B10", "B11"), (1, 6, 2))
    assert product.evidence.product is None


def test_bare_names_in_folders_of_pixel_sizes(tmp_path):
    """As the bucket sentinel-s2-l2a has them; other folders are other scenes."""
    folder = tmp_path / "tile"
    for band, pixel in {"B02": 10, "B11": 20}.items():
        _write_jp2(folder / f"R{pixel}m/{band}.jp2", _numbers(band, pixel), pixel)
    product = find_product(folder)
    assert (product.names, product.level, product.stem) == (("B02", "B11"), "L2A", "tile")
    files = [folder / "R10m/B02.jp2", folder / "R20m/B11.jp2"]
    assert find_product(files).stem == "tile"
    _write_jp2(folder / "other/R20m/B12.jp2", _numbers("B12", 20), 20)
    with pytest.raises(SceneError, match=r"must hold one scene; .* holds 2: \., other"):
        find_product(folder)


def test_a_pattern_of_jp2_files_is_named_by_what_they_share(tmp_path):
    for band in ("B03", "B04", "B08"):
        _write_jp2(tmp_path / f"T31UFU_{band}.jp2", _numbers(band, 10), 10)
    assert find_product(f"{tmp_path}/T31UFU_B*.jp2").stem == "T31UFU"


def test_names_tell_the_baseline_where_there_is_no_metadata(safe):
    (safe / "MTD_MSIL2A.xml").unlink()
    evidence = find_product(safe).evidence
    assert (evidence.level, evidence.baseline, evidence.product) == ("L2A", 5.09, None)


@pytest.mark.parametrize(
    ("level", "baseline", "offset", "expected"),
    [
        ("2A", "04.00", -1000, -0.1),
        ("1C", "05.10", -1000, -0.1),
        ("2A", "02.14", None, 0.0),
        ("1C", "02.04", None, 0.0),
        ("2A", "04.00", None, None),
    ],
)
def test_the_offset_of_the_metadata(tmp_path, level, baseline, offset, expected):
    """From baseline 04.00 on the metadata has offsets; where they are gone it says nothing."""
    (tmp_path / f"MTD_MSIL{level}.xml").write_text(_metadata(level, baseline, offset))
    _write_jp2(tmp_path / "T31UFU_20230701T105031_B03.jp2", _numbers("B03", 10), 10)
    evidence = find_product(tmp_path).evidence
    assert evidence.level == f"L{level}"
    stated = None if evidence.product is None else evidence.product.offset
    assert stated == (None if expected is None else pytest.approx((expected,)))


def test_a_truncated_band_is_named(safe):
    path = _image(safe, "B03", 10)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SceneError, match=r"_B03_10m\.jp2 .*ends early.*get it again"):
        find_product(safe)


def test_an_empty_band_is_named(safe):
    _image(safe, "B03", 10).write_bytes(b"")
    with pytest.raises(SceneError, match=r"_B03_10m\.jp2"):
        find_product(safe)


def test_a_damaged_metadata_file_is_named(safe):
    path = safe / "MTD_MSIL2A.xml"
    path.write_text(path.read_text()[:900])
    with pytest.raises(SceneError, match=r"cannot read MTD_MSIL2A\.xml.*get the product again"):
        find_product(safe)


def test_a_quantification_value_of_zero_is_refused(safe):
    path = safe / "MTD_MSIL2A.xml"
    path.write_text(path.read_text().replace(">10000<", ">0<"))
    with pytest.raises(SceneError, match=r"must be a positive number .* MTD_MSIL2A\.xml has scale"):
        open_scene(safe)


def test_a_damaged_zip_is_named(whole_safe, tmp_path):
    """Its contents are whole, and the metadata are not."""
    path = _zip(whole_safe, tmp_path / "product.zip")
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo(f"{TITLE}.SAFE/MTD_MSIL2A.xml").header_offset + 100
    data = bytearray(path.read_bytes())
    data[place : place + 40] = bytes(255 - byte for byte in data[place : place + 40])
    path.write_bytes(data)
    with pytest.raises(SceneError, match=r"cannot read \S+MTD_MSIL2A\.xml of .*get it again"):
        find_product(path)


def test_entities_are_refused_before_they_grow(safe):
    bomb = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>'
    (safe / "MTD_MSIL2A.xml").write_text(bomb)
    with pytest.raises(SceneError, match="document type"):
        find_product(safe)


def test_two_tiles_in_one_folder_are_refused(tmp_path):
    for tile in ("T31UFU", "T31UGU"):
        _write_jp2(tmp_path / f"{tile}_20170216T102101_B03.jp2", _numbers("B03", 10), 10)
    with pytest.raises(SceneError, match=r"one scene.*T31UFU_20170216T102101, T31UGU_2017"):
        find_product(tmp_path)


def test_metadata_without_bands_is_refused(safe):
    shutil.rmtree(safe / "GRANULE")
    with pytest.raises(SceneError, match="must hold bands"):
        find_product(safe)


def test_the_grid_is_the_finest_that_the_model_needs(whole_safe, tmp_path):
    """`prepare` says what the model takes, and how to resample goes through."""
    job = prepare(whole_safe, RunConfig(output=tmp_path, resampling="cubic"))
    assert job.scene.grid.shape == (120, 144)
    assert job.scene.product.resampling == "cubic"


def test_a_run_on_a_product_is_named_after_it(whole_safe, tmp_path):
    outputs = run(whole_safe, output=tmp_path, tile=64, device="cpu").outputs
    with rasterio.open(outputs["mask"]) as mask:
        assert (mask.shape, mask.transform.a) == ((120, 144), 10)
        assert (mask.read(1)[:12] == 255).all()
        assert mask.tags()["ACQUIRED"] == "2023-07-01T10:50:31.024Z"
    assert outputs["mask"].name == f"{TITLE}_mask.tif"

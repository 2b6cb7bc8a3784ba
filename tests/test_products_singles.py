"""Single-band files told apart by their names, and single rasters in folders and archives."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from serving import serving

from geounet.errors import SceneError
from geounet.products import find_product
from geounet.scene import open_scene
from geounet.tiling import Window

HLS = "HLS.S30.T10TEM.2022078T092029.v2.0"
EXPORT = "2023-07-01-00:00_2023-07-01-23:59_Sentinel-2_L2A"
TWENTY = {"transform": Affine(20, 0, 500_000, 0, -20, 4_400_000)}


@pytest.fixture
def make_single(make_raster, tmp_path):
    def make(name, value=500, shape=(6, 8), **options):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        return make_raster(np.full((1, *shape), value, np.int16), name, **options)

    return make


def test_hls(make_single, tmp_path):
    for band in ("B02", "B03", "B8A", "B11", "Fmask", "SAA"):
        make_single(f"{HLS}.{band}.tif", nodata=-9999, scale=1e-4)
    product = find_product(tmp_path)
    assert (product.kind, product.sensor, product.stem) == ("hls", "hls-s30", HLS)
    assert product.names == ("B02", "B03", "B11", "B8A")
    assert product.nodata == -9999
    assert product.acquired == "2022-03-19T09:20:29Z"
    assert product.evidence.product is not None
    assert product.evidence.product.scale == (1e-4,) * 4
    assert product.clouds is not None
    assert (product.clouds.rule, Path(product.clouds.uri).name) == ("fmask", f"{HLS}.Fmask.tif")


def test_hls_thermal_bands_are_left_out(make_single, tmp_path):
    for band in ("B03", "B05", "B10", "B11"):
        make_single(f"{HLS.replace('S30', 'L30')}.{band}.tif")
    product = find_product(tmp_path)
    assert (product.sensor, product.names) == ("hls-l30", ("B03", "B05"))


def test_exports_of_eo_browser(make_single, tmp_path):
    for band in ("B03", "B04", "B8A"):
        make_single(f"export/{EXPORT}_{band}_(Raw).tiff")
    make_single(f"export/{EXPORT}_True_color.tiff")
    product = find_product(tmp_path / "export")
    assert (product.kind, product.names) == ("bands", ("B03", "B04", "B8A"))
    assert (product.stem, product.acquired) == ("export", "2023-07-01")


@pytest.mark.parametrize(("dtype", "one"), [(np.uint16, 65535), (np.uint8, 255), (np.float32, 1.0)])
def test_eo_browsers_numbers_are_shares_of_the_types_greatest(make_raster, tmp_path, dtype, one):
    """Not reflectance x 10000, as which 16 bits were six times too bright."""
    for band in ("B03", "B04", "B08"):
        make_raster(np.full((1, 6, 8), 0.2 * one, dtype), f"{EXPORT}_{band}_(Raw).tiff")
    scene = open_scene(tmp_path)
    assert scene.reflectance(["nir"]) == pytest.approx(0.2, abs=0.5 / one if one > 1 else 1e-6)
    assert (scene.radiometry.assumed, scene.product.level) == (False, "L2A")
    assert scene.radiometry.reason == "scale and offset from the way EO Browser exports raw bands"


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("B03.tif", "B03"),
        ("scene_B8A_20m.tif", "B8A"),
        ("my.scene.SR_B3.TIF", "SR_B3"),
        ("green.tif", "green"),
        ("S2_2020 nir08.tif", "nir08"),
    ],
)
def test_names_end_with_the_band(make_single, tmp_path, name, band):
    make_single(name)
    make_single("other_swir22.tif")
    make_single("preview.tif")
    assert find_product(tmp_path).names == tuple(sorted([band, "swir22"]))


def test_a_list_and_a_pattern(make_single, tmp_path):
    paths = [make_single("a_B03.tif"), make_single("a_B04.tif"), make_single("a_B8A.tif", 7)]
    make_single("b_B03.tif")
    assert find_product(paths[:2]).stem == "a"  # and not a_B0
    listed, fitting = find_product(paths), find_product(f"{tmp_path}/a_B*.tif")
    assert listed.names == fitting.names == ("B03", "B04", "B8A")
    assert listed.stem == fitting.stem == "a"
    assert listed.uri == f"{tmp_path}/a_*"


def test_resolutions_may_differ(make_single, tmp_path):
    for band in ("B03", "B04", "B08"):
        make_single(f"{band}.tif", shape=(8, 8), scale=1e-4)
    make_single("B11.tif", shape=(4, 4), scale=1e-4, **TWENTY)
    scene = open_scene(tmp_path)
    assert (scene.grid.shape, scene.bands) == ((8, 8), ("green", "red", "nir", "swir16"))
    assert scene.product.factors == (1, 1, 1, 2)
    assert scene.reflectance(["swir16"]) == pytest.approx(np.full((1, 8, 8), 0.05))


@pytest.mark.parametrize(
    ("name", "rule"),
    [("SCL.tif", "scl"), ("x_SCL_20m.jp2.tif", None), ("x_SCL_20m.tif", "scl"),
     ("x_QA_PIXEL.TIF", "qa_pixel"), ("a.Fmask.tif", "fmask"), ("muscl.tif", None)],
)  # fmt: skip
def test_a_cloud_layer_among_the_bands(make_single, tmp_path, name, rule):
    for file in ("x_B03.tif", "x_B04.tif", name):
        make_single(file)
    clouds = find_product(tmp_path).clouds
    assert (clouds and (clouds.rule, Path(clouds.uri).name)) == (rule and (rule, name))


@pytest.mark.parametrize(
    ("folder", "sensor", "baseline"),
    [
        ("S2B_MSIL2A_20230701T105031_N0509_R051_T31UFU_20230701T165800", "sentinel-2-l2a", 5.09),
        ("landsat8 and others", "sentinel-2", None),
    ],
)
def test_the_folder_may_say_which_product_it_was(make_single, tmp_path, folder, sensor, baseline):
    for band in ("B03", "B04", "B08", "B8A"):
        make_single(f"{folder}/{band}.tif")
    evidence = find_product(tmp_path / folder).evidence
    assert (evidence.sensor, evidence.baseline) == (sensor, baseline)


def test_one_band_alone_is_no_scene(make_single):
    with pytest.raises(SceneError, match=r"several bands, and this file has one\. Give the folder"):
        open_scene(make_single("LC08_L2SP_017051_20151205_20200908_02_T1_SR_B3.TIF"))


def test_what_the_files_call_nodata_was_not_observed(make_raster, tmp_path):
    dn = np.full((1, 6, 8), 500, np.int16)
    dn[0, 2, 3] = -9999
    for band in ("B03", "B04", "B08"):
        make_raster(dn, f"{band}.tif", nodata=-9999, scale=1e-4)
    scene = open_scene(tmp_path)
    assert scene.nodata == -9999
    assert np.array_equal(np.isnan(scene.reflectance(["red"])), dn < 0)


def test_two_files_of_one_band_are_refused(make_single, tmp_path):
    for name in ("a_B03.tif", "b_B03.tif", "a_B04.tif"):
        make_single(name)
    with pytest.raises(SceneError, match=r"2 files of B03: a_B03\.tif, b_B03\.tif"):
        find_product(tmp_path)


def test_a_folder_of_bands_among_other_scenes_is_not_guessed(make_single, tmp_path):
    for name in ("one/x_B03.tif", "one/x_B04.tif", "one/preview.png", "one/x_mask.tif"):
        make_single(name) if name.endswith("tif") else (tmp_path / name).touch()
    assert find_product(tmp_path).names == ("B03", "B04")
    make_single("other.tif")
    with pytest.raises(SceneError, match=r"bands in one, and other\.tif beside them\. Give the"):
        find_product(tmp_path)


def test_a_pattern_that_fits_nothing(tmp_path):
    with pytest.raises(SceneError, match="none fits"):
        find_product(f"{tmp_path}/*.tif")


def test_an_empty_name_is_refused():
    with pytest.raises(SceneError, match="a scene must be named"):
        find_product("")


def test_the_one_raster_of_a_folder_is_the_scene(make_single, tmp_path):
    path = make_single("one/picture.tif")
    assert find_product(path.parent).path == str(path)


def test_the_one_raster_of_a_folder_says_what_it_is(make_raster, tmp_path):
    name = "S2B_MSIL2A_20230701T105031_N0509_R051_T31UFU_20230701T165800.tif"
    (tmp_path / "one").mkdir()
    make_raster(np.ones((12, 6, 8), np.uint16), f"one/{name}")
    product = find_product(tmp_path / "one")
    assert (product.stem, product.sensor) == ("one", "sentinel-2-l2a")
    assert product.evidence.baseline == 5.09


def test_rasters_without_band_names_are_listed(make_single, tmp_path):
    for name in ("left.tif", "right.tif"):
        make_single(name)
    with pytest.raises(SceneError, match=r"one raster.*left\.tif, right\.tif"):
        find_product(tmp_path)


@pytest.mark.parametrize("harm", ["truncated", "gone"])
def test_a_band_that_cannot_be_read_is_named(make_single, tmp_path, harm):
    """The header is whole, so that it shows when pixels are read."""
    bands = [make_single(f"{b}.tif", shape=(64, 64), scale=1e-4) for b in ("B03", "B04", "B08")]
    scene = open_scene(tmp_path)
    if harm == "gone":
        bands[1].unlink()
    else:
        bands[1].write_bytes(bands[1].read_bytes()[:-4000])
    with (
        scene.open() as reader,
        pytest.raises(SceneError, match=r"cannot read .*B04\.tif: .*again"),
    ):
        reader.read(Window(0, 0, 64, 64), range(3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("x" * 300 + ".tif", "must be something that can be read: .*too long"),
        (["none_B02.jp2", "none_B03.jp2"], r"must exist: there is no \S+none_B02\.jp2"),
        ("caf\udce9.tif", "must be a raster that GDAL opens"),
    ],
)
def test_a_name_that_cannot_be_opened_is_one_clear_error(monkeypatch, tmp_path, given, message):
    monkeypatch.chdir(tmp_path)
    Path("caf\udce9.tif").write_bytes(b"in Latin-1")
    with pytest.raises(SceneError, match=message):
        find_product(given)


def test_a_list_of_signed_addresses(make_single, monkeypatch):
    """Bands are named by the addresses' paths, and nothing shows what opens doors."""
    with serving() as server:
        for band in ("B03", "B04", "B08"):
            server.files[f"/a_{band}.tif"] = make_single(f"a_{band}.tif", scale=1e-4).read_bytes()
        host = server.url.removeprefix("http://")
        urls = [f"http://me:SECRET@{host}/a_{b}.tif?sig=SECRET" for b in ("B03", "B04", "B08")]
        scene = open_scene(urls)
        assert (scene.bands, scene.stem, scene.uri) == (("green", "red", "nir"), "a",
                                                        f"{server.url}/a_*")  # fmt: skip
        assert scene.reflectance(["red"]) == pytest.approx(0.05)
    with pytest.raises(SceneError, match=r"2 files of B03") as caught:
        find_product([*urls, urls[0].replace("/a_", "/b_")])
    assert "SECRET" not in repr(scene) + str(caught.value)


# -- archives --------------------------------------------------------------------------------------


def _zip(path, *files, names=None):
    with zipfile.ZipFile(path, "w") as archive:
        for file, name in zip(files, names or [f.name for f in files], strict=True):
            archive.writestr(zipfile.ZipInfo(name), file.read_bytes())
    return path


def test_a_zipped_raster(make_single, tmp_path):
    archive = _zip(tmp_path / "scene {1}.zip", make_single("inner.tif", 321))
    product = find_product(archive)
    assert (product.kind, product.stem, product.uri) == ("raster", "scene {1}", str(archive))


def test_zipped_bands(make_single, tmp_path):
    names = [f"{EXPORT}_{band}_(Raw).tiff" for band in ("B03", "B04", "B08")]
    bands = [make_single(name, value) for value, name in enumerate(names, start=1)]
    archive = _zip(tmp_path / "bands.zip", *bands)
    with open_scene(archive, scale=1e-4).open() as reader:
        assert reader.read(Window(0, 0, 6, 8), range(3)).dn[:, 0, 0].tolist() == [1, 2, 3]


def test_several_rasters_in_a_zip_are_listed(make_single, tmp_path):
    archive = _zip(tmp_path / "two.zip", make_single("left.tif"), make_single("right.tif"))
    with pytest.raises(SceneError, match=r"one raster.*left\.tif, right\.tif"):
        find_product(archive)


@pytest.mark.parametrize("name", ["../B03.tif", "/etc/B03.tif", "a/../../B03.tif", "..\\B03.tif",
                                  "C:/B03.tif"])  # fmt: skip
def test_names_that_climb_out_of_an_archive_are_refused(make_single, tmp_path, name):
    archive = _zip(tmp_path / "bad.zip", make_single("B03.tif"), names=[name])
    with pytest.raises(SceneError, match=r"must stay inside.*do not trust it"):
        find_product(archive)
    tar = tmp_path / "bad.tar"
    with tarfile.open(tar, "w") as file:
        file.addfile(tarfile.TarInfo(name))
    with pytest.raises(SceneError, match="must stay inside"):
        find_product(tar)


@pytest.mark.parametrize("name", ["scene.zip", "scene.tar"])
def test_an_archive_that_was_cut_short_is_said_to_be(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(SceneError, match=r"must be whole.*cut short"):
        find_product(path)


def test_a_compressed_tar_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "scene.tar.gz"
    path.write_bytes(b"\x1f\x8b")
    with pytest.raises(SceneError, match="Unpack it"):
        find_product(path)

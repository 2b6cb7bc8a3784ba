import re

import pytest

from geounet.errors import ConfigError, SceneError
from geounet.sensors import (
    SENSORS,
    Identity,
    check_sensor,
    common_name,
    find_sensor,
    is_reflective,
    name_bands,
)

L2A = (
    "coastal", "blue", "green", "red", "rededge071", "rededge075", "rededge078",
    "nir", "nir08", "nir09", "swir16", "swir22",
)  # fmt: skip
L1C = (*L2A[:10], "cirrus", *L2A[10:])
SIX = ("blue", "green", "red", "nir", "swir16", "swir22")
S2_NAMES = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("B03", "green"), ("b3", "green"), (" B03 ", "green"), ("B3", "green"),
        ("B8", "nir"), ("B08", "nir"), ("B8A", "nir08"), ("b8a", "nir08"),
        ("B09", "nir09"), ("B9", "nir09"), ("B10", "cirrus"), ("B11", "swir16"), ("B1", "coastal"),
        ("B5", "rededge071"), ("SR_B5", "nir08"), ("sr_b3", "green"), ("SR_B7", "swir22"),
        ("green", "green"), ("NIR", "nir"), ("nir08", "nir08"), ("swir1", "swir16"),
        ("rededge1", "rededge071"), ("rededge", "rededge071"), ("coastal aerosol", "coastal"),
        ("SWIR_2", "swir22"), ("Red Edge 1", "rededge071"), ("B_1", None), ("b 8a", None),
        ("", None), ("-", None), ("B13", None), ("SR_B9", None), ("QA_PIXEL", None), ("B0", None),
    ],
)  # fmt: skip
def test_common_name(name, expected):
    assert common_name(name) == expected


@pytest.mark.parametrize(
    ("name", "sensor", "expected"),
    [
        ("B5", "landsat-8", "nir08"), ("B5", "landsat-5", "swir16"), ("B05", "hls-l30", "nir08"),
        ("B5", "sentinel-2", "rededge071"), ("B05", "hls-s30", "rededge071"),
        ("SR_B5", "landsat-7", "swir16"), ("SR_B4", "landsat-9", "red"),
        ("B1", "landsat-7", "blue"),
        ("B10", "landsat-8", "lwir11"), ("B10", "sentinel-2-l1c", "cirrus"),
        ("B8A", "landsat-8", None), ("B8A", "hls-l30", None), ("B8A", "hls-s30", "nir08"),
        ("green", "landsat-5", "green"), ("green_i", "planetscope-8", "green05"),
        ("coastal_blue", "planetscope-8", "coastal"), ("yellow", "planetscope", "yellow"),
    ],
)  # fmt: skip
def test_a_band_is_what_its_sensor_means_by_it(name, sensor, expected):
    assert common_name(name, sensor) == expected


@pytest.mark.parametrize(
    ("count", "descriptions", "told", "sensor", "expected"),
    [
        # the number of bands decides where nothing else does
        (12, (), None, None, L2A),
        (13, (), None, None, L1C),
        (6, (), None, None, SIX),
        (12, (None,) * 12, None, None, L2A),
        (12, ("",) * 12, None, None, L2A),
        # names that mean nothing do not keep the order from deciding
        (6, tuple(f"Band {i}" for i in range(1, 7)), None, None, SIX),
        # descriptions win over the number
        (12, S2_NAMES, None, None, L2A),
        (12, tuple(reversed(S2_NAMES)), None, None, L2A[::-1]),
        (4, ("B02", "B03", "B04", "B08"), None, None, ("blue", "green", "red", "nir")),
        (4, ("blue", "green", "red", "nir"), None, None, ("blue", "green", "red", "nir")),
        (6, ("B2", "B3", "B4", "B8A", "B11", "B12"), None, None,
         ("blue", "green", "red", "nir08", "swir16", "swir22")),
        (4, ("SR_B3", "SR_B4", "SR_B5", "SR_B6"), None, None, ("green", "red", "nir08", "swir16")),
        # in other spellings
        (6, ("Blue", "green", "RED", "nir_narrow", "SWIR 1", "swir-2"), None, None,
         ("blue", "green", "red", "nir08", "swir16", "swir22")),
        # as GDAL describes a Sentinel-2 product's bands of 10 m
        (6, ("B4, central wavelength 665 nm", "B3, central wavelength 560 nm",
             "B2, central wavelength 490 nm", "B8, central wavelength 842 nm",
             "AOT, at 550 nm", "WVP, a mean"),
         None, None, ("red", "green", "blue", "nir", "AOT, at 550 nm",
                      "WVP, a mean")),
        (3, ("B3 (green)", "T30TUT_B04_10m", "x_B8A"), None, None, ("green", "red", "nir08")),
        # what a name ends with counts where whole names do not tell
        (4, ("green", "red", "nir", "std_nir"), None, None, ("green", "red", "nir", "std_nir")),
        # surface temperature tells the older Landsats from the newer
        (7, ("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "ST_B6", "SR_B7"), None, None,
         ("blue", "green", "red", "nir08", "swir16", "lwir", "swir22")),
        # a band that is not known keeps its name, one without a name gets a number
        (4, ("green", "red", "nir", "QA"), None, None, ("green", "red", "nir", "QA")),
        (4, ("green", None, "red", "nir"), None, None, ("green", "band2", "red", "nir")),
        # fewer than three known names prove nothing
        (6, ("blue", "green", None, None, None, None), None, None, SIX),
        # a sensor's order
        (7, (), None, "landsat-8",
         ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")),
        # its bands by number, which mean others elsewhere
        (7, tuple(f"B{i}" for i in range(1, 8)), None, "landsat-8",
         ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")),
        (7, tuple(f"B{i}" for i in range(1, 8)), None, "landsat-5",
         ("blue", "green", "red", "nir08", "swir16", "lwir", "swir22")),
        (6, ("B02", "B03", "B04", "B05", "B06", "B07"), None, "hls-l30",
         ("blue", "green", "red", "nir08", "swir16", "swir22")),
        (6, ("B02", "B03", "B04", "B8A", "B11", "B12"), None, "hls-s30",
         ("blue", "green", "red", "nir08", "swir16", "swir22")),
        (6, ("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7"), None, "landsat-7",
         ("blue", "green", "red", "nir08", "swir16", "swir22")),
        (7, tuple(f"SR_B{i}" for i in range(1, 8)), None, None,
         ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")),
        (4, ("B2", "B3", "B4", "B8"), None, None, ("blue", "green", "red", "nir")),
        (6, (), None, "landsat-8", ("blue", "green", "red", "nir08", "swir16", "swir22")),
        (6, (), None, "sentinel-2", SIX),
        (12, (), None, "sentinel-2", L2A),
        (13, (), None, "sentinel-2", L1C),
        (4, (), None, "planetscope", ("blue", "green", "red", "nir")),
        (8, (), None, "planetscope",
         ("coastal", "blue", "green05", "green", "yellow", "red", "rededge071", "nir")),
        (4, (), None, "naip", ("red", "green", "blue", "nir")),
        (4, ("Red", "Green", "Blue", "NIR"), None, None, ("red", "green", "blue", "nir")),
        # what is said of several bands tells none apart
        (12, ("stack.tif",) * 12, None, None, L2A),
        (12, ("Coastal aerosol", "Blue", "Green", "Red", "Vegetation Red Edge 1", "RE2",
              "Red Edge 3", "NIR", "Narrow NIR", "Water vapour", "SWIR 1", "SWIR 2"),
         None, None, L2A),
        # what the user told wins over all, as the sensor means it
        (3, (), ("B3", "B4", "B5"), "landsat-8", ("green", "red", "nir08")),
        (3, (), ("B3", "B8A", "nir"), "landsat-8", ("green", "nir08", "nir")),
        (4, ("B02", "B03", "B04", "B08"), ("nir", "red", "green", "blue"), None,
         ("nir", "red", "green", "blue")),
        (4, (), ("B03", "-", "-", "b8a"), None, ("green", "-", "-", "nir08")),
        (2, (), ("-", "-"), None, ("-", "-")),
    ],
)  # fmt: skip
def test_name_bands(count, descriptions, told, sensor, expected):
    assert name_bands(count, descriptions, told, sensor) == expected


@pytest.mark.parametrize(
    ("count", "descriptions", "told", "sensor", "error", "message"),
    [
        (4, (), None, None, SceneError, r"4 bands, described as nothing\..*--bands B02,B03"),
        (1, (None,), None, None, SceneError, r"this file has one\. Give the folder"),
        (0, (), None, None, SceneError, r"0 bands"),
        (4, ("a", "b", "c", "d"), None, None, SceneError, r"described as 'a', 'b', 'c', 'd'\."),
        (5, (), None, "landsat-8", SceneError, "5 bands of landsat-8"),
        (12, (), None, "landsat-8", SceneError, "12 bands of landsat-8"),
        (6, (), None, "planetscope", SceneError, "6 bands of planetscope"),
        # names that speak against the order, known or not
        (6, ("red", "green", None, None, None, None), None, None, SceneError, "'red', 'green'"),
        (6, ("Rouge", "Vert", "Bleu", "PIR", "MIR1", "MIR2"), None, None, SceneError, "'Rouge'"),
        # numbers that mean other bands elsewhere
        (7, tuple(f"B{i}" for i in range(1, 8)), None, None, SceneError,
         r"B1, B2, .* landsat-5, .*\(sentinel-2-l1c or landsat-4 or landsat-8\).*--bands"),
        (6, ("B02", "B03", "B04", "B05", "B06", "B07"), None, None, SceneError,
         r"--sensor \(sentinel-2-l1c or landsat-8\)"),
        (11, tuple(f"B{i}" for i in range(1, 12)), None, None, SceneError, "landsat-8"),
        (3, ("SR_B3", "SR_B4", "SR_B5"), None, None, SceneError, "landsat-7, landsat-8"),
        (3, ("B3", "B4", "B5"), None, None, SceneError, "--sensor"),
        (3, ("B03", "green", "B04"), None, None, SceneError, "cannot tell"),
        (5, ("B03", "green", "B04", "B08", "B11"), None, None, SceneError,
         "green occurs more than once in green, green, red, nir, swir16.*--bands"),
        (4, (), ("B02", "B03"), None, ConfigError,
         r"has 4, 2 names given \(B02, B03\).*'-' for a band to leave out"),
        (2, (), ("B02", "B03", "B04"), None, ConfigError, "has 2, 3 names given"),
        (2, (), ("B02", "C99"), None, ConfigError, "does not know C99.*common names"),
        (3, (), ("X", "B02", "Y"), None, ConfigError, "does not know X, Y"),
        (3, (), ("B03", "green", "nir"), None, SceneError, "green occurs more than once"),
    ],
)  # fmt: skip
def test_name_bands_refuses(count, descriptions, told, sensor, error, message):
    with pytest.raises(error, match=message):
        name_bands(count, descriptions, told, sensor)


def test_two_bands_that_nobody_asked_for_may_share_a_name():
    names = name_bands(5, ("green", "red", "nir", "mask", "mask"))
    assert names[:3] == ("green", "red", "nir")


def test_every_sensor_names_each_band_once_and_lists_wavelengths_in_micrometres():
    for sensor in SENSORS.values():
        bands = (*sensor.bands, *sensor.others)
        assert len({b.common_name for b in bands}) == len(bands)
        assert len({b.name for b in bands}) == len(bands)
        assert all(0.4 < band.centre < 2.5 for band in sensor.bands)
        assert all(is_reflective(band.common_name) for band in sensor.bands)


@pytest.mark.parametrize("name", ["lwir", "lwir11", "pan", "-", "QA"])
def test_what_is_no_reflectance_of_the_scene(name):
    assert not is_reflective(name)


def test_bands_of_one_common_name_see_about_the_same_light():
    """The models take them for each other: within 50 nm."""
    seen = {}
    for band in (band for sensor in SENSORS.values() for band in sensor.bands):
        seen.setdefault(band.common_name, []).append(band.centre)
    spread = {name: max(centres) - min(centres) for name, centres in seen.items()}
    assert {name: s for name, s in spread.items() if s > 0.051} == {}


# -- which sensor ----------------------------------------------------------------------------------

HLS_S30 = {  # tags of HLS.S30.T60FXK.2022331T214909.v2.0.B04.tif
    "HLS_PROCESSING_TIME": "2022-11-29T07:10:51Z",
    "PROCESSING_BASELINE": "04.00",
    "PRODUCT_URI": "S2B_MSIL1C_20221127T214909_N0400_R143_T60FXK_20221127T223847.SAFE",
    "SPACECRAFT_NAME": "Sentinel-2B",
}
HLS_L30 = {
    "HLS_PROCESSING_TIME": "2022-03-21T13:33:15Z",
    "LANDSAT_PRODUCT_ID": "LC08_L1TP_045029_20220319_20220319_02_RT",
    "SENSOR": "OLI_TIRS; OLI_TIRS",
}
GDAL_S2 = {  # tags of GDAL's Sentinel-2 driver
    "PRODUCT_URI": "S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T164454.SAFE",
    "PROCESSING_BASELINE": "04.00",
    "PROCESSING_LEVEL": "Level-2A",
    "DATATAKE_1_SPACECRAFT_NAME": "Sentinel-2A",
}


@pytest.mark.parametrize(
    ("name", "tags", "bands", "sensor", "level", "baseline", "collection"),
    [
        # names
        ("S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T164454.SAFE", {}, (),
         "sentinel-2-l2a", "L2A", 4.0, None),
        ("S2B_MSIL1C_20190808T051659_N0208_R062_T44RPP_20190808T082834.tif", {}, (),
         "sentinel-2-l1c", "L1C", 2.08, None),
        ("S2B_10SGF_20250808_0_L2A.tif", {}, (), "sentinel-2-l2a", "L2A", None, None),
        ("2019-08-09-00:00_2019-08-09-23:59_Sentinel-2_L1C_B02_(Raw).tiff", {}, (),
         "sentinel-2-l1c", "L1C", None, None),
        ("LC08_L2SP_017051_20151205_20200908_02_T1.tif", {}, (), "landsat-8", "L2SP", None, 2),
        ("LT05_L1TP_028030_19880704_20200917_02_T1", {}, (), "landsat-5", "L1TP", None, 2),
        ("LE07_L1TP_028030_20020804_20160928_01_T1.tif", {}, (), "landsat-7", "L1TP", None, 1),
        ("LC09_L2SP_231062_20230723.tif", {}, (), "landsat-9", "L2SP", None, None),
        ("LC80420342014023LGN00.tif", {}, (), "landsat-8", None, None, None),
        # as Google Earth Engine calls images and bands
        ("LC09_044034_20240318.tif", {}, (), "landsat-9", None, None, None),
        ("LC08_044034_20140318.tif", {}, ("SR_B3", "SR_B4", "ST_B10"), "landsat-8", "L2SP", None,
         None),
        ("LE07_044034_20040318.tif", {}, (), "landsat-7", None, None, None),
        ("my_LT05_toa.tif", {}, (), "landsat-5", None, None, None),
        ("LT07_x.tif", {}, (), None, None, None, None),
        ("aLC08_x.tif", {}, (), None, None, None, None),
        ("coast.tif", {}, tuple(f"SR_B{i}" for i in range(1, 8)), None, "L2SP", None, None),
        ("clip_of_landsat_8_2020.tif", {}, (), "landsat-8", None, None, None),
        ("HLS.S30.T35UNQ.2022078T092029.v2.0.B8A.tif", {}, (), "hls-s30", None, None, None),
        ("HLS.L30.T22VEQ.2021248T143156.v2.0.tif", {}, (), "hls-l30", None, None, None),
        ("20230415_102437_58_2475_3B_AnalyticMS_SR_8b_clip.tif", {}, (), "planetscope-8", "SR",
         None, None),
        ("20180612_100254_100c_3B_AnalyticMS_SR.tif", {}, (), "planetscope", "SR", None, None),
        ("20180612_100254_100c_3B_AnalyticMS.tif", {}, (), "planetscope", "TOA", None, None),
        ("m_4212362_sw_10_060_20220717.tif", {}, (), "naip", None, None, None),
        ("scene.tif", {}, (), None, None, None, None),
        ("sentinel.tif", {}, (), None, None, None, None),
        ("snaip2.tif", {}, (), None, None, None, None),
        # tags; HLS keeps those of the product that it was made from
        ("scene.tif", GDAL_S2, (), "sentinel-2-l2a", "L2A", 4.0, None),
        ("scene.tif", HLS_S30, (), "hls-s30", None, None, None),
        ("scene.tif", HLS_L30, (), "hls-l30", None, None, None),
        ("scene.tif", {"SPACECRAFT_ID": "LANDSAT_8", "SENSOR_ID": "OLI_TIRS"}, (), "landsat-8",
         None, None, None),
        ("scene.tif", {"SPACECRAFT_NAME": "Sentinel-2A", "PROCESSING_LEVEL": "Level-1C",
                       "PROCESSING_BASELINE": "05.11"}, (), "sentinel-2-l1c", "L1C", 5.11, None),
        ("scene.tif", {"PLATFORM": "sentinel-2b"}, (), "sentinel-2", None, None, None),
        ("scene.tif", {"SENSOR": "MSI"}, (), None, None, None, None),
        # both: the one that says more
        ("S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T164454.tif",
         {"SENSOR": "sentinel-2"}, (), "sentinel-2-l2a", "L2A", 4.0, None),
        ("HLS.S30.T60FXK.2022331T214909.v2.0.tif", HLS_S30, (), "hls-s30", None, None, None),
        # twins
        ("LC09_L2SP_231062_20230723.tif", {"SENSOR": "landsat-8"}, (), "landsat-9", "L2SP", None,
         None),
        # a word in a file's name gives way to tags and bands that agree
        ("like_landsat5.tif", {"SENSOR": "sentinel-2"}, ("B02", "B03", "B04", "B08"), "sentinel-2",
         None, None, None),
        # bands
        ("scene.tif", {}, S2_NAMES, "sentinel-2", None, None, None),
        ("scene.tif", {}, ("B2", "B3", "B4", "B8"), "sentinel-2", None, None, None),
        ("scene.tif", {}, tuple(f"B{i}" for i in range(1, 8)), None, None, None, None),
        ("scene.tif", {}, ("blue", "green", "red", "nir"), None, None, None, None),
        ("LC08_L2SP_017051_20151205.tif", {}, ("SR_B3", "SR_B4", "ST_B10"), "landsat-8", "L2SP",
         None, None),
    ],
)  # fmt: skip
def test_find_sensor(name, tags, bands, sensor, level, baseline, collection):
    found = find_sensor(name=name, tags=tags, bands=bands)
    assert (found.sensor, found.level) == (sensor, level)
    assert (found.baseline, found.collection) == (baseline, collection)
    assert found.conflict is None


@pytest.mark.parametrize(
    ("name", "tags", "bands", "conflict"),
    [
        ("LC08_L2SP_017051_20151205.tif", GDAL_S2, (),
         r"tag PRODUCT_URI says sentinel-2-l2a, and its file name LC08.* says landsat-8.*--sensor"),
        ("LC08_L2SP_017051_20151205.tif", {}, ("B03", "B04", "B8A"),
         "says landsat-8, which has no band B8A. Settle it with --sensor, or .* --bands"),
        ("HLS.L30.T22VEQ.2021248T143156.v2.0.tif", {}, ("B04", "B05", "B12"), "no band B12"),
        ("landsat5.tif", {"SENSOR": "sentinel-2"}, ("B1", "B2", "B3", "B4"),
         "tag SENSOR says sentinel-2, and its file name landsat5.tif says landsat-5"),
    ],
)  # fmt: skip
def test_what_speaks_of_different_sensors_is_kept_for_the_user(name, tags, bands, conflict):
    found = find_sensor(name=name, tags=tags, bands=bands)
    assert found.conflict is not None
    assert re.search(conflict, found.conflict)


def test_nothing_known_is_nothing_said():
    assert find_sensor() == Identity()


def test_a_sensor_that_is_told_is_known():
    assert check_sensor("Landsat-8") == "landsat-8"
    assert check_sensor("sentinel-2") == "sentinel-2"
    with pytest.raises(ConfigError, match=r"one of sentinel-2-l1c, .*landsat-9.*; got spot-5"):
        check_sensor("spot-5")

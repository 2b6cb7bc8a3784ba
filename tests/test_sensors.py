import pytest

from geounet.errors import ConfigError, SceneError
from geounet.sensors import SENSORS, common_name, name_bands

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
        ("", None), ("-", None), ("B13", None), ("SR_B9", None), ("QA_PIXEL", None), ("B0", None),
    ],
)  # fmt: skip
def test_common_name(name, expected):
    assert common_name(name) == expected


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
        # a band that is not known keeps its name, one without a name gets a number
        (4, ("green", "red", "nir", "QA"), None, None, ("green", "red", "nir", "QA")),
        (4, ("green", None, "red", "nir"), None, None, ("green", "band2", "red", "nir")),
        # fewer than three known names prove nothing
        (6, ("blue", "green", None, None, None, None), None, None, SIX),
        # a sensor's order
        (7, (), None, "landsat-8",
         ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")),
        # what the user told wins over all
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
        (4, (), None, None, SceneError, r"4 bands, descriptions \[\].*--bands B02,B03,B04,B08"),
        (1, (None,), None, None, SceneError, r"1 bands, descriptions \[''\].*--bands"),
        (0, (), None, None, SceneError, r"0 bands"),
        (4, ("a", "b", "c", "d"), None, None, SceneError, r"\['a', 'b', 'c', 'd'\]"),
        (6, (), None, "landsat-8", SceneError, "6 bands"),
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
        assert len({b.common_name for b in sensor.bands}) == len(sensor.bands)
        assert len({b.name for b in sensor.bands}) == len(sensor.bands)
        assert all(0.4 < band.centre < 2.5 for band in sensor.bands)

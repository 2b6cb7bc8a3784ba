import re

import numpy as np
import pytest

from geounet.errors import ConfigError, SceneError
from geounet.radiometry import (
    Evidence,
    Radiometry,
    Statement,
    check_radiometry,
    decide_radiometry,
    state_bands,
    state_tags,
)


def _of(source, scale, offset, count=2):
    return Statement(source, (scale,) * count, (offset,) * count)


def _evidence(dtype="uint16", count=2, **known):
    """What is known; statements as (scale, offset), in short."""
    names = {"product": "MTD_MSIL2A.xml", "bands": "band metadata", "tags": "tag scale_factor"}
    said = {key: _of(name, *known[key], count) for key, name in names.items() if key in known}
    return Evidence(dtype, count, **(known | said))


S2, L8 = {"sensor": "sentinel-2-l2a"}, {"sensor": "landsat-8"}
EARTH_SEARCH = {**S2, "bands": (1e-4, -0.1)}


@pytest.mark.parametrize(
    ("dtype", "known", "told", "scale", "offset", "reason", "assumed"),
    [
        # the file says so
        ("uint16", {"bands": (1e-4, 0.0)}, {}, 1e-4, 0.0, "scale and offset from the band", False),
        ("uint16", {"bands": (1e-4, -0.1)}, {}, 1e-4, -0.1, "scale and offset from", False),
        ("uint16", {"bands": (2.75e-5, -0.2)}, {}, 2.75e-5, -0.2, "scale and offset from", False),
        ("uint8", {"bands": (0.004, 0.0)}, {}, 0.004, 0.0, "scale and offset from", False),
        ("float32", {"bands": (1.0, -0.1)}, {}, 1.0, -0.1, "scale and offset from", False),
        ("int16", {"tags": (1e-4, 0.0)}, {}, 1e-4, 0.0, "scale and offset from the tag", False),
        # the product's own metadata above the bands', these above the tags, these above flags
        ("uint16", {"product": (1e-4, -0.1), "bands": (1e-4, 0.0)}, {}, 1e-4, -0.1,
         "scale and offset from the MTD_MSIL2A.xml", False),
        ("uint16", {"bands": (1e-4, -0.1), "tags": (1e-4, 0.0)}, {}, 1e-4, -0.1,
         "scale and offset from the band metadata", False),
        ("uint16", {**S2, "tags": (1e-4, 0.0), "baseline": 4.0}, {}, 1e-4, 0.0,
         "scale and offset from the tag", False),
        # S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T164454: its own MTD_MSIL2A.xml
        ("uint16", {**S2, "product": (1e-4, -0.1), "baseline": 4.0}, {}, 1e-4, -0.1,
         "scale and offset from the MTD_MSIL2A.xml", False),
        # a name or a tag alone: N0400 and N0511 add 1000, N0301 does not
        ("uint16", {**S2, "baseline": 4.0}, {}, 1e-4, -0.1,
         "scale and offset from the processing baseline 04.00", False),
        ("uint16", {**S2, "baseline": 5.11}, {}, 1e-4, -0.1, "scale and offset from", False),
        ("uint16", {**S2, "baseline": 3.01}, {}, 1e-4, 0.0,
         "scale and offset from the processing baseline 03.01", False),
        # archives' flags
        ("uint16", {**S2, "baseline": 4.0, "offset_removed": True}, {}, 1e-4, 0.0,
         ("scale and offset from the processing baseline 04.00 and the archive's flag that the "
         "offset is out"), False),
        ("uint16", {**S2, "baseline": 4.0, "offset_removed": False}, {}, 1e-4, -0.1,
         ("scale and offset from the processing baseline 04.00 and the archive's flag that the "
         "offset is still in"), False),
        ("uint16", {**S2, "offset_removed": True}, {}, 1e-4, 0.0,
         "scale and offset from the archive's flag", False),
        ("uint16", {**S2, "baseline": 3.0, "offset_removed": False}, {}, 1e-4, 0.0,
         "scale and offset from the processing baseline 03.00", False),
        # HLS.S30.T60FXK.2022331: its tags hold the baseline of the product it was made from
        ("int16", {"sensor": "hls-s30", "baseline": 4.0}, {}, 1e-4, 0.0, "HLS holds", False),
        # the user says so, whatever the file says
        ("uint16", {"bands": (1e-4, -0.1)}, {"scale": 2e-4, "offset": 0.0}, 2e-4, 0.0,
         "scale and offset as told", False),
        ("uint8", {}, {"scale": 0.004}, 0.004, 0.0, "scale as told, offset from conv", False),
        # what the user leaves open comes from the file, else from convention
        ("uint16", {"bands": (1e-4, -0.1)}, {"scale": 2e-4}, 2e-4, -0.1,
         "scale as told, offset from band metadata", False),
        ("uint16", {**S2, "bands": (1e-4, -0.1)}, {"scale": 2e-4}, 2e-4, -0.1,
         "scale as told, offset from band metadata", False),
        ("uint16", {"bands": (2e-4, 0.0)}, {"offset": -0.1}, 2e-4, -0.1,
         "offset as told, scale from band metadata", False),
        ("uint16", {**S2, "baseline": 4.0}, {"offset": 0.0}, 1e-4, 0.0,
         "offset as told, scale from processing baseline 04.00", False),
        ("uint16", {}, {"offset": -0.1}, 1e-4, -0.1, "offset as told, scale from conv", False),
        ("float32", {}, {"offset": -0.1}, 1.0, -0.1, "offset as told", False),
        ("uint16", {}, {"scale": 1e-3}, 1e-3, 0.0, "scale as told", False),
        # nobody says so
        ("uint16", {}, {}, 1e-4, 0.0, "uint16 taken as reflectance x 10000", True),
        ("int16", {}, {}, 1e-4, 0.0, "int16 taken as", True),
        ("uint16", S2, {}, 1e-4, 0.0, "uint16 taken as reflectance x 10000", True),
        ("uint16", {**L8, "level": "L1TP", "collection": 2}, {}, 1e-4, 0.0, "uint16 taken", True),
        # 20230415_102437_58_2475_3B_AnalyticMS_SR_8b.tif: its specification leaves nothing open
        ("uint16", {"sensor": "planetscope-8", "level": "SR"}, {}, 1e-4, 0.0,
         "PlanetScope SR holds reflectance x 10000", False),
        # Google Earth Engine's bands SR_B1 …, whose image may be called anything
        ("uint16", {"level": "L2SP"}, {}, 2.75e-5, -0.2, "uint16 of Landsat L2SP taken", True),
        ("float32", {}, {}, 1.0, 0.0, "floating point taken as reflectance 0 to 1", True),
        ("float64", {**S2, "baseline": 4.0}, {}, 1.0, 0.0, "floating point taken as", True),
        # LC08_L2SP_017051_20151205_20200908_02_T1 and a product of Collection 1
        ("uint16", {**L8, "level": "L2SP", "collection": 2}, {}, 2.75e-5, -0.2,
         "uint16 of Landsat L2SP taken as Collection 2 surface reflectance", True),
        ("int16", {**L8, "level": "L2SP", "collection": 1}, {}, 1e-4, 0.0, "int16 taken as", True),
    ],
)  # fmt: skip
def test_decide_radiometry(dtype, known, told, scale, offset, reason, assumed):
    """Invariant 6's order of evidence; and it says which it was."""
    made = decide_radiometry(_evidence(dtype, **known), **told)
    assert made.scale == (scale,) * 2
    assert made.offset == (offset,) * 2
    assert made.reason.startswith(reason)
    assert made.assumed is assumed
    assert made.told is bool(told)


def test_each_band_keeps_its_own_scale():
    made = decide_radiometry(
        Evidence("uint16", 2, bands=state_bands("band metadata", (1e-4, 2e-4), (0.0, -0.1)))
    )
    assert made.scale == (1e-4, 2e-4)
    assert made.offset == (0.0, -0.1)


@pytest.mark.parametrize(
    ("known", "told", "warning", "disputed", "rival"),
    [
        ({"bands": (1e-4, -0.1)}, {}, None, False, None),
        ({**S2, "product": (1e-4, -0.1), "baseline": 4.0}, {}, None, False, None),
        # items of an archive whose flag agrees with the rest may still be wrong
        ({**EARTH_SEARCH, "baseline": 5.11, "offset_removed": False}, {}, None, False, 0.0),
        ({**S2, "baseline": 4.0}, {}, None, False, 0.0),
        ({**S2, "baseline": 4.0, "offset_removed": True}, {}, None, False, -0.1),
        ({**S2, "baseline": 3.01}, {}, None, False, None),
        # raster:bands says -0.1 and boa_offset_applied says that it is out already
        ({**EARTH_SEARCH, "baseline": 5.11, "offset_removed": True}, {},
         ("band metadata says scale 0.0001, offset -0.1, but its processing baseline 05.11 and the "
         "archive's flag that the offset is out says scale 0.0001, offset 0"), True, 0.0),
        ({**S2, "bands": (1e-4, 0.0), "baseline": 4.0}, {}, "offset -0.1; the first", True, -0.1),
        # the product's own word is only questioned by pixels
        ({"product": (1e-4, -0.1), "bands": (1e-4, 0.0)}, {}, "MTD_MSIL2A.xml says", False, 0.0),
        # told against what the scene says
        ({"product": (1e-4, -0.1)}, {"offset": 0.0},
         ("scale 0.0001, offset 0 was told, though the scene's MTD_MSIL2A.xml says scale 0.0001, "
         "offset -0.1"), False, None),
        ({"product": (1e-4, -0.1)}, {"offset": -0.1, "scale": 1e-4}, None, False, None),
    ],
)  # fmt: skip
def test_a_conflict_is_said_and_kept_for_the_pixels(known, told, warning, disputed, rival):
    made = decide_radiometry(_evidence(**known), **told)
    assert (made.rival.offset[0] if made.rival else None) == rival
    assert made.disputed is disputed
    assert len(made.warnings) == (warning is not None)
    assert warning is None or warning in made.warnings[0]


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("told", [{}, {"offset": 0.1}])
@pytest.mark.parametrize("sensor", [None, "naip"])
def test_a_picture_is_not_reflectance(dtype, told, sensor):
    with pytest.raises(SceneError, match=f"{dtype} without a scale.*--scale"):
        decide_radiometry(_evidence(dtype, sensor=sensor), **told)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"dtype": "complex64"}, "got complex64"),
        ({"sensor": "planetscope-4", "level": "TOA"}, "holds radiance.*_SR"),
        # the scene's fault, not the user's
        ({"bands": (0.0, 0.0)}, r"band metadata has scale \(0.0, 0.0\).*stand above it"),
        ({"bands": (-1e-4, 0.0)}, "must be a positive number"),
        ({"bands": (float("nan"), 0.0)}, "must be a positive number"),
        ({"tags": (1e-4, float("inf"))}, "tag scale_factor has"),
        ({"bands": (1e-4, -1000.0)}, "a reflectance between -1 and 1"),
        ({"product": (0.0, 0.0)}, "MTD_MSIL2A.xml"),
    ],
)
def test_what_a_scene_may_not_say(known, message):
    with pytest.raises(SceneError, match=message):
        decide_radiometry(_evidence(**known))


@pytest.mark.parametrize("bands", [(1e-4, -1000.0), (0.0, 0.0), (float("nan"), 0.0)])
def test_the_user_stands_above_what_a_scene_may_not_say(bands):
    made = decide_radiometry(_evidence(bands=bands), scale=1e-4, offset=-0.1)
    assert (set(made.scale), set(made.offset)) == ({1e-4}, {-0.1})
    for one in ({"scale": 1e-4}, {"offset": -0.1}):
        with pytest.raises(SceneError, match=r"--scale and --offset, which stand above it"):
            decide_radiometry(_evidence(bands=bands), **one)


def test_a_thermal_band_beside_others_has_an_offset_of_its_own():
    said = Statement("band metadata", (2.75e-5, 0.00341802), (-0.2, 149.0))
    assert decide_radiometry(Evidence("uint16", 2, bands=said)).offset == (-0.2, 149.0)


@pytest.mark.parametrize("scale", [0.0, -1e-4, float("nan"), float("inf")])
def test_a_scale_is_a_positive_number(scale):
    with pytest.raises(ConfigError, match=f"positive number.*{re.escape(str(scale))}"):
        decide_radiometry(_evidence(), scale=scale)
    with pytest.raises(ConfigError, match=f"positive number.*{re.escape(str(scale))}"):
        Radiometry((scale,), (0.0,), "as told")


@pytest.mark.parametrize("offset", [-1000.0, 1.5, float("nan"), float("inf")])
def test_an_offset_is_told_in_reflectance(offset):
    with pytest.raises(ConfigError, match=r"units of reflectance.*--offset -0\.1"):
        decide_radiometry(_evidence(), offset=offset)


def test_an_offset_is_a_number():
    with pytest.raises(ConfigError, match="offset a number"):
        Radiometry((1e-4,), (float("nan"),), "as told")


# -- sources ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "scale", "offset"),
    [
        ({"scale_factor": "0.0001", "add_offset": "0", "ACCODE": "LaSRC"}, 1e-4, 0.0),  # HLS
        ({"SCALE_FACTOR": "0.0001", "ADD_OFFSET": "-0.1"}, 1e-4, -0.1),
        ({"UNITS": "reflectance x 10000, no offset"}, 1e-4, 0.0),
        ({"scale_factor": "1"}, None, None),
        ({"scale_factor": "none"}, None, None),
        ({"UNITS": "metres"}, None, None),
        ({}, None, None),
    ],
)
def test_state_tags(tags, scale, offset):
    made = state_tags(tags, 2)
    assert (made is None) == (scale is None)
    if made:
        assert (made.scale, made.offset) == ((scale,) * 2, (offset,) * 2)


def test_what_is_not_stated():
    assert state_bands("band metadata", (1.0, 1.0), (0.0, 0.0)) is None


# -- the look at pixels ----------------------------------------------------------------------------

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")

SCENES = {
    # reflectance of the darkest and the brightest pixels of each band
    "lake": ((0.020, 0.030, 0.015, 0.008, 0.004, 0.002), (0.12, 0.14, 0.15, 0.35, 0.30, 0.22)),
    "forest": ((0.020, 0.035, 0.018, 0.180, 0.080, 0.035), (0.05, 0.08, 0.06, 0.40, 0.22, 0.12)),
    "snow": ((0.700, 0.710, 0.690, 0.600, 0.060, 0.040), (0.95, 0.96, 0.95, 0.85, 0.15, 0.12)),
    "cloud": ((0.500, 0.490, 0.500, 0.520, 0.350, 0.280), (1.10, 1.05, 1.05, 1.00, 0.60, 0.50)),
    "desert": ((0.110, 0.170, 0.250, 0.320, 0.400, 0.340), (0.20, 0.28, 0.40, 0.50, 0.60, 0.52)),
    "sea": ((0.030, 0.015, 0.004, 0.002, 0.001, 0.001), (0.04, 0.03, 0.01, 0.01, 0.01, 0.01)),
}


def _pixels(kind, *, scale=1e-4, offset=0.0, n=2000, dtype="uint16", bands=BANDS):
    """Stored numbers of a scene [bands, n] from darkest to brightest."""
    low, high = (np.array(values) for values in SCENES[kind])
    reflectance = np.linspace(low, high, n, axis=1)
    stored = ((reflectance - offset) / scale).round() if dtype != "float32" else reflectance
    return stored.astype(dtype)[[BANDS.index(band) for band in bands]]


def _looked(samples, names=BANDS, *, dtype="uint16", told=(), **known):
    evidence = _evidence(dtype, len(names), **known)
    made = decide_radiometry(evidence, **dict(told))
    return check_radiometry(made, evidence, samples, dict(enumerate(names)))


OUT, IN = {"offset": 0.0}, {"offset": -0.1}
"""How pixels are stored: the 1000 taken out, or still in."""


@pytest.mark.parametrize("kind", SCENES)
@pytest.mark.parametrize(
    ("stored", "known", "told"),
    [
        (OUT, {}, {}),
        (OUT, S2, {}),
        (OUT, {"bands": (1e-4, 0.0)}, {}),
        (OUT, {}, {"scale": 1e-4, "offset": 0.0}),
        (IN, {**S2, "product": (1e-4, -0.1)}, {}),
        (IN, {"bands": (1e-4, -0.1)}, {}),
        (IN, {}, {"offset": -0.1}),
        ({"scale": 2.75e-5, "offset": -0.2}, {**L8, "level": "L2SP"}, {}),
        ({"scale": 2.75e-5, "offset": -0.2}, {"bands": (2.75e-5, -0.2)}, {}),
        ({"dtype": "float32"}, {"dtype": "float32"}, {}),
    ],
)  # fmt: skip
def test_pixels_bear_out_what_is_right(kind, stored, known, told):
    """No scene is refused for what lies in it: snow, cloud and desert have no dark pixels."""
    made = _looked(_pixels(kind, **stored), told=told, **known)
    assert made.warnings == ()
    assert made.rival is None
    assert made.offset[0] == (told or stored).get("offset", 0.0)


@pytest.mark.parametrize(
    ("stored", "known", "offset", "warning"),
    [
        # the baseline adds 1000, the archive took it out and nothing says so
        (OUT, {**S2, "baseline": 4.0}, 0.0, r"below zero.*04.00: scale 0.0001, offset 0 is"),
        # the flag says that it is still in, and so does raster:bands, and it is not
        (OUT, {**EARTH_SEARCH, "baseline": 5.11, "offset_removed": False}, 0.0, "below zero"),
        # the flag says that it is out, and it is not
        (IN, {**S2, "baseline": 4.0, "offset_removed": True}, -0.1, r"near 0.1 in short-wave inf"),
        (IN, {**EARTH_SEARCH, "baseline": 5.11, "offset_removed": True}, -0.1, None),
        (OUT, {**EARTH_SEARCH, "baseline": 5.11, "offset_removed": True}, 0.0, "below zero"),
        # the bands state a scale and forget the offset
        (IN, {**S2, "bands": (1e-4, 0.0), "baseline": 4.0}, -0.1, "near 0.1"),
        # reflectance x 10000 under the name of a Landsat product
        (OUT, {**L8, "level": "L2SP", "collection": 2}, 0.0, "median is -0.1"),
    ],
)  # fmt: skip
def test_dark_pixels_settle_what_flags_leave_open(stored, known, offset, warning):
    made = _looked(_pixels("lake", **stored), **known)
    assert made.offset == pytest.approx((offset,) * 6)
    assert not made.disputed
    assert not made.assumed
    assert [bool(re.search(warning or "", text)) for text in made.warnings] == [True] * bool(
        warning
    )


def test_a_scale_alone_does_not_answer_for_sentinel_2s_offset():
    """Google Earth Engine's not harmonised collection, averaged in floating point."""
    samples, told = _pixels("lake", offset=-0.1) + 0.25, {"scale": 1e-4}
    with pytest.raises(SceneError, match=r"alike, with scale as told.*Give --offset -0.1 if"):
        _looked(samples, told=told, dtype="float32", **S2)
    assert _looked(samples, told={**told, "offset": -0.1}, dtype="float32", **S2).told
    (warning,) = _looked(samples, told={**told, "offset": 0.0}, dtype="float32", **S2).warnings
    assert "alike, with scale and offset as told" in warning


@pytest.mark.parametrize("kind", ["snow", "cloud", "desert"])
def test_what_no_dark_pixel_settles_is_refused_with_what_to_do(kind):
    known = {**EARTH_SEARCH, "baseline": 5.11, "offset_removed": True}
    samples = _pixels(kind, offset=-0.1)
    with pytest.raises(SceneError, match=r"dark enough to tell.*--offset -0.1 or --offset 0"):
        _looked(samples, **known)
    assert _looked(samples, told={"offset": -0.1}, **known).offset[0] == -0.1


@pytest.mark.parametrize(
    ("samples", "known", "message"),
    [
        (_pixels("lake", offset=-0.1), {},
         (r"near 0.1 in short-wave infrared \(0.10\d\), near infrared \(0.11\d\), red \(0.11\d\) "
         r"alike, with uint16 taken as.*Give --offset -0.1 if .* or --offset 0 if")),
        (_pixels("lake", offset=-0.1), S2, "alike, with uint16 taken as"),
        (_pixels("lake", offset=-0.1), {"bands": (1e-4, 0.0)}, "alike, with scale and offset from"),
        (_pixels("lake", offset=-0.1), {**S2, "product": (1e-4, 0.0)}, "MTD_MSIL2A.xml"),
        (_pixels("lake", offset=-0.1) * 1e-4, {"dtype": "float32"}, "alike, with floating point"),
        (_pixels("lake"), {**S2, "product": (1e-4, -0.1)}, "below zero.*MTD_MSIL2A.xml"),
        (_pixels("forest"), {"bands": (1e-4, -0.1)}, r"median is -0.035.*or --offset 0 if"),
        # another scale: Landsat's Collection 2, and Level 1 without its MTL
        (_pixels("lake", scale=2.75e-5, offset=-0.2), {}, r"darker than 0.7\d.*0.0000275 with"),
        (_pixels("forest", scale=2.75e-5, offset=-0.2), L8, r"no pixel is darker than 0.7"),
        (_pixels("lake", scale=2e-5, offset=-0.1), {**L8, "level": "L1TP"}, "keep the MTL"),
        (_pixels("lake"), {"dtype": "float32"}, r"median is \d+, with floating.*Give --scale"),
        (_pixels("lake", dtype="float32"), {"dtype": "float32", "bands": (1e-4, 0.0)},
         "brightest pixels have a reflectance of only"),
        (_pixels("lake"), {"bands": (2.75e-5, -0.2)}, r"median is -0\.1"),
    ],
)  # fmt: skip
def test_pixels_that_contradict_are_refused(samples, known, message):
    with pytest.raises(SceneError, match=message):
        _looked(samples, **known)


@pytest.mark.parametrize(
    ("samples", "told", "message"),
    [
        (_pixels("lake"), {"offset": -0.1}, "below zero.*with offset as told"),
        (_pixels("lake", offset=-0.1), {"scale": 1e-4, "offset": 0.0}, "alike, with scale and off"),
    ],
)
def test_what_was_told_stands_with_a_warning(samples, told, message):
    made = _looked(samples, told=told)
    assert made.offset[0] == told["offset"]
    assert len(made.warnings) == 1
    assert re.search(message, made.warnings[0])


@pytest.mark.parametrize("told", [{"scale": 0.01}, {"scale": 1e-7}, {"scale": 1.0}])
def test_what_was_told_and_cannot_be_reflectance_is_refused(told):
    with pytest.raises(SceneError, match=r"with scale as told.*Give --scale"):
        _looked(_pixels("lake"), told=told)


@pytest.mark.parametrize(
    ("fill", "dtype", "told"),
    [(-9999, "int16", ()), (-32768, "int16", {"scale": 1e-4, "offset": 0.0}), (-1, "float32", ())],
)
@pytest.mark.parametrize("share", [0.01, 0.9])
def test_nodata_that_nobody_told_is_refused(fill, dtype, told, share):
    """A network would find land or water there."""
    samples = _pixels("lake", dtype=dtype)
    samples[:, : int(share * 2000)] = fill
    with pytest.raises(SceneError, match=rf"{100 * share:.2f}% of .* are {fill} .*--nodata {fill}"):
        _looked(samples, dtype=dtype, told=told)
    samples[:, : int(share * 2000)] = -0.4 if dtype == "float32" else -4000  # dark, wherever from
    samples[0, : int(share * 2000)] = fill
    if share < 0.5:
        assert _looked(samples, dtype=dtype, told=told)


def test_whole_numbers_in_floating_point_are_the_sensors_integers():
    """Told apart with evidence alone: a sensor whose products hold them, and whole numbers."""
    whole = _pixels("lake").astype(np.float32)
    made = _looked(whole, dtype="float32", **S2)
    assert made.scale == (1e-4,) * 6
    assert "whole numbers" in made.reason
    with pytest.raises(SceneError, match="median"):
        _looked(whole + 0.25, dtype="float32", **S2)


@pytest.mark.parametrize(
    ("bands", "refused"),
    [
        (BANDS[:4], False),  # shaded snow or thin cloud may look so without short-wave infrared
        (("blue", "green", "red", "swir16"), False),
        (("green", "nir", "swir16"), False),
        (("red", "nir", "swir22"), True),
        (("red", "nir", "swir16"), True),
    ],
)
def test_fewer_bands_than_prove_it_are_a_warning(bands, refused):
    samples = _pixels("lake", offset=-0.1, bands=bands)
    if refused:
        with pytest.raises(SceneError, match="alike"):
            _looked(samples, bands)
    else:
        made = _looked(samples, bands)
        assert len(made.warnings) == 1
        assert re.search(r"near 0\.1 in .*--offset -0\.1", made.warnings[0])


def test_the_cirrus_band_is_dark_over_land_too():
    """Water vapour takes all light at 1.37 um before it reaches the ground (Gao et al. 1993)."""
    land = _pixels("desert", offset=-0.1)
    cirrus = np.linspace(1008, 1030, land.shape[1], dtype=np.uint16)
    with pytest.raises(SceneError, match=r"near 0.1 in cirrus \(0.101\)"):
        _looked(np.vstack([land, cirrus[None]]), (*BANDS, "cirrus"), sensor="sentinel-2-l1c")


def test_few_pixels_prove_nothing_of_how_dark_it_gets():
    samples = _pixels("lake", offset=-0.1, n=900)
    assert _looked(samples).warnings == ()
    assert _looked(samples[:, :0]).warnings == ()


def test_bands_are_found_by_their_place_in_the_file():
    """Samples of some bands only, each with its own scale."""
    evidence = Evidence("uint16", 3, bands=Statement("x", (1.0, 1e-4, 2e-4), (0.0, 0.0, 0.0)))
    samples = np.array([[500] * 10, [250] * 10], np.uint16)
    made = check_radiometry(decide_radiometry(evidence), evidence, samples, {1: "red", 2: "nir"})
    assert made.scale == (1.0, 1e-4, 2e-4)
    with pytest.raises(SceneError, match="median is 125"):
        check_radiometry(decide_radiometry(evidence), evidence, samples[::-1], {0: "red", 1: "nir"})

import re

import pytest

from geounet.errors import ConfigError, SceneError
from geounet.radiometry import Evidence, Radiometry, decide_radiometry, state_bands


def _stored(dtype, scales, offsets):
    """What a raster says with GDAL's scale and offset per band."""
    return Evidence(dtype, len(scales), bands=state_bands("band metadata", scales, offsets))


@pytest.mark.parametrize(
    ("dtype", "scales", "offsets", "told", "scale", "offset", "reason", "assumed"),
    [
        # the file says so
        ("uint16", (1e-4,) * 2, (0.0,) * 2, {}, 1e-4, 0.0, "scale and offset from", False),
        ("uint16", (1e-4,) * 2, (-0.1,) * 2, {}, 1e-4, -0.1, "scale and offset from", False),
        ("uint16", (2.75e-5,) * 2, (-0.2,) * 2, {}, 2.75e-5, -0.2, "scale and offset from", False),
        ("uint8", (0.004,) * 2, (0.0,) * 2, {}, 0.004, 0.0, "scale and offset from", False),
        ("float32", (1.0,) * 2, (-0.1,) * 2, {}, 1.0, -0.1, "scale and offset from", False),
        # the user says so, whatever the file says
        ("uint16", (1e-4,) * 2, (-0.1,) * 2, {"scale": 2e-4, "offset": 0.0}, 2e-4, 0.0,
         "scale and offset as told", False),
        ("uint8", (1.0,) * 2, (0.0,) * 2, {"scale": 0.004}, 0.004, 0.0, "scale as told", False),
        # what the user leaves open comes from the file, else from convention
        ("uint16", (1e-4,) * 2, (-0.1,) * 2, {"scale": 2e-4}, 2e-4, -0.1, "scale as told", False),
        ("uint16", (2e-4,) * 2, (0.0,) * 2, {"offset": -0.1}, 2e-4, -0.1, "offset as told", False),
        ("uint16", (1.0,) * 2, (0.0,) * 2, {"offset": -0.1}, 1e-4, -0.1, "offset as told", False),
        ("float32", (1.0,) * 2, (0.0,) * 2, {"offset": -0.1}, 1.0, -0.1, "offset as told", False),
        ("uint16", (1.0,) * 2, (0.0,) * 2, {"scale": 1e-3}, 1e-3, 0.0, "scale as told", False),
        # nobody says so
        ("uint16", (1.0,) * 2, (0.0,) * 2, {}, 1e-4, 0.0, "uint16 taken as reflectance x 10000",
         True),
        ("int16", (1.0,) * 2, (0.0,) * 2, {}, 1e-4, 0.0, "int16 taken as", True),
        ("float32", (1.0,) * 2, (0.0,) * 2, {}, 1.0, 0.0, "floating point taken as", True),
        ("float64", (1.0,) * 2, (0.0,) * 2, {}, 1.0, 0.0, "floating point taken as", True),
    ],
)  # fmt: skip
def test_decide_radiometry(dtype, scales, offsets, told, scale, offset, reason, assumed):
    """Invariant 6's order of evidence: the user, the file, convention; and it says which."""
    made = decide_radiometry(_stored(dtype, scales, offsets), **told)
    assert made.scale == (scale,) * 2
    assert made.offset == (offset,) * 2
    assert made.reason.startswith(reason)
    assert made.assumed is assumed


def test_each_band_keeps_its_own_scale():
    made = decide_radiometry(_stored("uint16", (1e-4, 2e-4), (0.0, -0.1)))
    assert made.scale == (1e-4, 2e-4)
    assert made.offset == (0.0, -0.1)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("told", [{}, {"offset": 0.1}])
def test_a_picture_is_not_reflectance(dtype, told):
    with pytest.raises(SceneError, match=f"{dtype} without a scale.*--scale"):
        decide_radiometry(_stored(dtype, (1.0,), (0.0,)), **told)


@pytest.mark.parametrize("scale", [0.0, -1e-4, float("nan"), float("inf")])
def test_a_scale_is_a_positive_number(scale):
    with pytest.raises(ConfigError, match=f"positive number.*{re.escape(str(scale))}"):
        decide_radiometry(_stored("uint16", (1.0,), (0.0,)), scale=scale)


@pytest.mark.parametrize("offset", [float("nan"), float("inf")])
def test_an_offset_is_a_number(offset):
    with pytest.raises(ConfigError, match="offset a number"):
        Radiometry((1e-4,), (offset,), "as told")

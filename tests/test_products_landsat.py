"""Landsat Collection 2 as downloaded."""

from __future__ import annotations

import json
import math
import tarfile
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geounet.errors import SceneError
from geounet.products import find_product
from geounet.scene import open_scene

SURFACE = "LC08_L2SP_017051_20151205_20200908_02_T1"
TOP = "LE07_L1TP_017051_20101205_20200908_02_T1"
SUN = 30.0


def _groups(*, rescaled: tuple[float, float], bands="1234567") -> dict[str, dict[str, str]]:
    def parameters(scale, offset):
        return {
            **{f"REFLECTANCE_MULT_BAND_{n}": str(scale) for n in bands},
            **{f"REFLECTANCE_ADD_BAND_{n}": str(offset) for n in bands},
        }

    return {
        "PRODUCT_CONTENTS": {"PROCESSING_LEVEL": "L2SP"},
        "IMAGE_ATTRIBUTES": {
            "DATE_ACQUIRED": "2015-12-05",
            "SCENE_CENTER_TIME": "15:56:28.1234560Z",
            "SUN_ELEVATION": str(SUN),
        },
        # A Level 2 product's metadata has Level 1's numbers too, under the same names.
        "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": parameters(2.75e-05, -0.2),
        "LEVEL1_RADIOMETRIC_RESCALING": parameters(*rescaled),
    }


def _text(groups) -> str:
    lines = ["GROUP = LANDSAT_METADATA_FILE"]
    for group, items in groups.items():
        lines += [f"  GROUP = {group}"]
        lines += [
            f'    {k} = "{v}"' if "-" in v[1:] else f"    {k} = {v}" for k, v in items.items()
        ]
        lines += [f"  END_GROUP = {group}"]
    return "\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END", ""])


def _xml(groups) -> str:
    inner = "".join(
        f"<{group}>{''.join(f'<{k}>{v}</{k}>' for k, v in items.items())}</{group}>"
        for group, items in groups.items()
    )
    return f'<?xml version="1.0"?><LANDSAT_METADATA_FILE>{inner}</LANDSAT_METADATA_FILE>'


def _json(groups) -> str:
    return json.dumps({"LANDSAT_METADATA_FILE": groups})


@pytest.fixture
def landsat(make_raster, tmp_path):
    def make(scene=SURFACE, bands=("SR_B1", "SR_B3", "SR_B5"), form="txt"):
        for i, band in enumerate((*bands, "QA_PIXEL", "ST_B10", "SR_QA_AEROSOL")):
            make_raster(np.full((1, 6, 8), 9000 + i, np.uint16), f"{scene}_{band}.TIF")
        groups = _groups(rescaled=(2e-05, -0.1))
        write = {"txt": _text, "xml": _xml, "json": _json}[form]
        (tmp_path / f"{scene}_MTL.{form}").write_text(write(groups))
        return tmp_path

    return make


@pytest.mark.parametrize("form", ["txt", "xml", "json"])
def test_surface_reflectance(landsat, form):
    product = find_product(landsat(form=form))
    assert (product.kind, product.stem, product.level) == ("landsat", SURFACE, "L2SP")
    assert (product.sensor, product.names) == ("landsat-8", ("SR_B1", "SR_B3", "SR_B5"))
    stated = product.evidence.product
    assert stated is not None
    assert (stated.scale, stated.offset) == ((2.75e-05,) * 3, (-0.2,) * 3)
    assert product.acquired == "2015-12-05T15:56:28.1234560Z"
    assert product.nodata == 0
    assert product.clouds is not None
    assert (product.clouds.rule, Path(product.clouds.uri).name) == (
        "qa_pixel", f"{SURFACE}_QA_PIXEL.TIF"
    )  # fmt: skip


def test_top_of_the_atmosphere_needs_the_sun(landsat):
    """Reflectance at the sensor is divided by the sine of the sun's elevation (LSDS-1619)."""
    product = find_product(landsat(TOP, ("B1", "B4", "B6", "B7", "B8")))
    assert (product.sensor, product.level) == ("landsat-7", "L1TP")
    assert product.names == ("B1", "B4", "B7"), "thermal and panchromatic bands are left out"
    stated = product.evidence.product
    assert stated is not None
    light = math.sin(math.radians(SUN))
    assert stated.scale == pytest.approx((2e-05 / light,) * 3)
    assert stated.offset == pytest.approx((-0.1 / light,) * 3)


@pytest.mark.parametrize(
    ("scene", "bands", "names"),
    [
        (SURFACE, ("SR_B3", "SR_B4", "SR_B5"), ("green", "red", "nir08")),
        (TOP, ("B2", "B3", "B4"), ("green", "red", "nir08")),
    ],
)
def test_bands_go_by_the_satellite(landsat, scene, bands, names):
    """B3 is green on Landsat 8 and red on Landsat 7."""
    found = open_scene(landsat(scene, bands))
    assert found.bands == names
    expected = 9000 * 2.75e-05 - 0.2 if scene == SURFACE else (9000 * 2e-05 - 0.1) / 0.5
    assert found.reflectance(["green"])[0, 0, 0] == pytest.approx(expected, rel=1e-5)


def test_surface_temperature_of_landsat_5_is_no_other_scene(landsat, make_raster):
    """It is ST_B6 there, and B6 would be a band of reflected light on Landsat 8."""
    scene = "LT05_L2SP_017051_20051205_20200908_02_T1"
    folder = landsat(scene, ("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7"))
    make_raster(np.full((1, 6, 8), 7, np.uint16), f"{scene}_ST_B6.TIF")
    product = find_product(folder)
    assert (product.stem, product.names) == (
        scene, ("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7")
    )  # fmt: skip


def test_names_in_lower_case(landsat):
    """As tools write them that cut or convert the bands."""
    folder = landsat()
    for path in folder.glob("*.TIF"):
        path.rename(path.with_suffix(".tif"))
    product = find_product(folder)
    assert product.names == ("SR_B1", "SR_B3", "SR_B5")
    assert product.evidence.product is not None
    assert product.clouds is not None


def test_a_scene_taken_at_night_is_refused(landsat):
    folder = landsat(TOP, ("B2", "B3", "B4"))
    path = folder / f"{TOP}_MTL.txt"
    path.write_text(path.read_text().replace(f"SUN_ELEVATION = {SUN}", "SUN_ELEVATION = -5.0"))
    with pytest.raises(SceneError, match="sun above the horizon"):
        find_product(folder)


@pytest.mark.parametrize("top", ["", "./", "./a/"])
def test_a_tar_as_downloaded(landsat, tmp_path, top):
    """Or packed with ``tar -cf x.tar .``, which puts a dot before all names."""
    folder = landsat()
    archive = tmp_path / f"{SURFACE}.tar"
    with tarfile.open(archive, "w") as tar:
        for file in sorted(folder.glob(f"{SURFACE}_*")):
            tar.add(file, f"{top}{file.name}")
    product = find_product(archive)
    assert product.evidence == find_product(folder / f"{SURFACE}_MTL.txt").evidence
    with rasterio.open(product.path) as source:
        assert np.unique(source.read(2)).tolist() == [9001]


def test_without_metadata_names_say_what_it_is(landsat):
    folder = landsat()
    (folder / f"{SURFACE}_MTL.txt").unlink()
    product = find_product(folder)
    assert (product.sensor, product.level, product.acquired) == ("landsat-8", "L2SP", "2015-12-05")
    assert product.evidence.product is None


def test_two_scenes_in_one_folder_are_refused(landsat):
    landsat()
    folder = landsat(TOP, ("B1", "B2"))
    with pytest.raises(SceneError, match=f"one scene.*{SURFACE}, {TOP}"):
        find_product(folder)


@pytest.mark.parametrize("form", ["txt", "xml", "json"])
def test_a_truncated_mtl_is_named(landsat, form):
    folder = landsat(form=form)
    path = folder / f"{SURFACE}_MTL.{form}"
    path.write_text(path.read_text()[:300])
    with pytest.raises(SceneError, match=rf"cannot read {SURFACE}_MTL\.{form}"):
        find_product(folder)


@pytest.mark.parametrize(
    ("form", "text"), [("txt", "END_GROUP = A\n"), ("json", "{}"), ("json", '{"a": [1]}')]
)
def test_an_mtl_of_something_else_is_named(landsat, form, text):
    folder = landsat(form=form)
    (folder / f"{SURFACE}_MTL.{form}").write_text(text)
    with pytest.raises(SceneError, match=rf"cannot read {SURFACE}_MTL\.{form}"):
        find_product(folder)


def test_metadata_alone_is_refused(landsat):
    folder = landsat()
    for path in folder.glob("*.TIF"):
        path.unlink()
    with pytest.raises(SceneError, match="metadata and no band"):
        find_product(folder)

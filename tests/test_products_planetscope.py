"""PlanetScope as ordered: image, metadata and usable-data mask."""

from __future__ import annotations

import numpy as np
import pytest

from geounet.errors import SceneError
from geounet.products import CloudLayer, find_product
from geounet.scene import open_scene
from geounet.tiling import Window

SCENE = "20230415_102437_58_2475_3B"
FOUR = ("blue", "green", "red", "nir")
XML = """<?xml version="1.0" encoding="UTF-8"?>
<ps:EarthObservation xmlns:ps="http://schemas.planet.com/ps/v1/planet_product_metadata"
 xmlns:eop="http://earth.esa.int/eop">
<eop:acquisitionDateTime>2023-04-15T10:24:37.58+00:00</eop:acquisitionDateTime>{bands}
</ps:EarthObservation>"""
BAND = """<ps:bandSpecificMetadata><ps:bandNumber>{number}</ps:bandNumber>
<ps:radiometricScaleFactor>0.01</ps:radiometricScaleFactor>
<ps:reflectanceCoefficient>{coefficient}</ps:reflectanceCoefficient></ps:bandSpecificMetadata>"""
COEFFICIENTS = (2.1e-5, 2.2e-5, 2.4e-5, 3.6e-5)


def _metadata(coefficients=COEFFICIENTS) -> str:
    bands = (BAND.format(number=i, coefficient=c) for i, c in enumerate(coefficients, start=1))
    return XML.format(bands="".join(bands))


@pytest.fixture
def order(make_raster, tmp_path):
    """A folder as it comes unpacked; returns the image's path."""

    def make(kind="SR", count=4, suffix="_clip"):
        name = f"{SCENE}_AnalyticMS{f'_{kind}' if kind else ''}{suffix}.tif"
        numbers = np.arange(1000, 1000 + count, dtype=np.uint16)[:, None, None]
        image = make_raster(np.tile(numbers, (1, 6, 8)), name, nodata=0)
        usable = np.ones((8, 6, 8), np.uint8)
        usable[0, 2] = 0
        make_raster(usable, f"{SCENE}_udm2{suffix}.tif")
        (tmp_path / f"{SCENE}_AnalyticMS_metadata{suffix}.xml").write_text(_metadata())
        (tmp_path / f"{SCENE}_metadata.json").write_text("{}")
        return image

    return make


@pytest.mark.parametrize("given", ["folder", "image"])
def test_surface_reflectance(order, given):
    image = order()
    scene = open_scene(image.parent if given == "folder" else image)
    product = scene.product
    assert (product.kind, product.level, product.stem) == ("planetscope", "SR", image.stem)
    assert scene.bands == FOUR
    assert product.acquired == "2023-04-15T10:24:37.58+00:00"
    # the coefficients are of the radiances, which this is not
    assert (set(scene.radiometry.scale), scene.radiometry.assumed) == ({1e-4}, False)
    assert product.clouds == CloudLayer(str(image).replace("AnalyticMS_SR", "udm2"), 1, "udm2")


def test_radiance_becomes_reflectance_by_the_metadata(order):
    scene = open_scene(order(kind=""))
    assert scene.product.level == "TOA"
    assert scene.radiometry.scale == COEFFICIENTS
    assert scene.reflectance(["nir"]) == pytest.approx(np.full((1, 6, 8), 1003 * 3.6e-5))


def test_radiance_without_its_metadata_is_refused(order):
    image = order(kind="")
    (image.parent / f"{SCENE}_AnalyticMS_metadata_clip.xml").unlink()
    with pytest.raises(SceneError, match=r"clip.tif: .*radiance.*_metadata\.xml beside it"):
        open_scene(image)


def test_surface_reflectance_goes_before_radiance(order):
    order(kind="")
    image = order()
    assert find_product(image.parent).stem == image.stem


def test_eight_bands_without_names(order):
    scene = open_scene(order(kind="SR_8b", count=8, suffix="_harmonized_clip"))
    assert scene.product.sensor == "planetscope-8"
    assert scene.bands == (
        "coastal", "blue", "green05", "green", "yellow", "red", "rededge071", "nir"
    )  # fmt: skip


def test_what_is_not_clear_is_obscured(order):
    scene = open_scene(order(), cloud_mask="product")
    with scene.open_clouds() as read:
        hidden = read(Window(0, 0, 6, 8))
    assert hidden.any(axis=1).tolist() == [False, False, True, False, False, False]


def test_a_coefficient_that_is_no_number(order):
    image = order(kind="")
    path = image.parent / f"{SCENE}_AnalyticMS_metadata_clip.xml"
    path.write_text(_metadata((1e-5, "x", 1e-5, 1e-5)))
    with pytest.raises(SceneError, match=r"reflectanceCoefficient in .*must be a number; got"):
        open_scene(image)


def test_several_scenes_in_one_folder_are_refused(order):
    image = order()
    image.rename(image.with_name(image.name.replace("102437", "102439")))
    image = order()
    with pytest.raises(SceneError, match=r"holds 2: 20230415_102437.*20230415_102439"):
        find_product(image.parent)
    assert find_product(image).stem == image.stem

"""Which band of a label raster is read; what else labels do is tested with training's scenes."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine

from geounet.errors import ConfigError, SceneError
from geounet.labels import LabelRules, Pair, find_pairs, open_labels
from geounet.scene import open_scene
from geounet.tiling import Window

WHOLE = Window(0, 0, 1, 4)


def write(path, bands, names, **extra):
    array = np.array(bands)[:, None]
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(array),
        height=1,
        width=array.shape[2],
        dtype=array.dtype,
        crs="EPSG:32631",
        transform=extra.pop("transform", Affine(10, 0, 0, 0, -10, 0)),
        **extra,
    ) as out:
        out.write(array)
        out.descriptions = names
        out.scales = (1e-4,) * len(array)
    return path


@pytest.fixture
def pair(tmp_path):
    scene = write(tmp_path / "a.tif", np.ones((3, 4), np.uint16), ["blue", "green", "red"])
    label = np.array([[1, 0, 0, 0], [1, 1, 2, 255]], np.uint8)
    write(tmp_path / "a.label.tif", label, ["consensus", "hand"])
    return Pair(open_scene(scene), tmp_path / "a.label.tif")


def read(pair, **rules):
    return open_labels(pair, LabelRules(("land", "water", "obscured"), **rules)).read(WHOLE)[0]


@pytest.mark.parametrize(
    ("band", "expected"),
    [
        (None, [1, 1, 2, 255]),
        ("hand", [1, 1, 2, 255]),
        ("consensus", [1, 0, 0, 0]),
        (1, [1, 0, 0, 0]),
        (2, [1, 1, 2, 255]),
    ],
)
def test_band(pair, band, expected):
    assert read(pair, band=band).tolist() == expected


def test_the_first_band_where_none_is_by_hand(pair):
    write(pair.label, np.array([[1, 0, 0, 255], [0, 0, 0, 0]], np.uint8), ["consensus", "class"])
    assert read(pair).tolist() == [1, 0, 0, 255]


@pytest.mark.parametrize("band", ["expert", 0, 3])
def test_a_band_that_is_not_there(pair, band):
    with pytest.raises(SceneError, match=f"asked for, {band!r}; .* has 2: consensus, hand"):
        read(pair, band=band)


def test_nodata_is_unknown(pair):
    write(pair.label, np.array([[0, 1, 9, 255]], np.uint8), ["hand"], nodata=9)
    assert read(pair).tolist() == [0, 1, 255, 255]


def test_a_label_that_lies_elsewhere(pair):
    shifted = Affine(10, 0, 5, 0, -10, 0)
    write(pair.label, np.array([[0, 1, 0, 0]], np.uint8), ["hand"], transform=shifted)
    with pytest.raises(SceneError, match=r"0\.5 pixels off"):
        read(pair)


def test_a_label_of_another_size(pair):
    write(pair.label, np.array([[0, 1, 0]], np.uint8), ["hand"])
    with pytest.raises(SceneError, match=r"size of 4 x 1 pixels; .* has 3 x 1"):
        read(pair)


def test_finds_pairs_by_name(pair, tmp_path):
    (found,) = find_pairs([tmp_path])
    assert (found.name, found.label) == ("a", pair.label)
    pair.label.unlink()
    with pytest.raises(ConfigError, match="no labelled scene"):
        find_pairs([tmp_path])

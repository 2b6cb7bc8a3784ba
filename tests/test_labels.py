"""Which band of a label raster is read; what else labels do is tested with training's scenes."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import rasterio
from affine import Affine

from geounet.errors import ConfigError, GeounetWarning, SceneError
from geounet.labels import LabelRules, Pair, checked_pairs, find_pairs, open_labels
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


def test_one_label_of_several_is_taken_and_told(pair, tmp_path):
    (tmp_path / "a.gpkg").touch()
    with pytest.warns(GeounetWarning, match=r"1 in .* a\.label\.tif beside a\.gpkg: a\.label"):
        (found,) = find_pairs([tmp_path])
    assert found.label == pair.label


def bright(folder, name, **extra):
    """A scene that is nowhere darker than 0.1, and its label."""
    stack = np.random.default_rng(0).integers(1100, 4000, (4, 40, 50)).astype(np.uint16)
    for path, array in ((f"{name}.tif", stack), (f"{name}.label.tif", (stack[:1] > 2000))):
        with rasterio.open(
            folder / path, "w", driver="GTiff", count=len(array), height=40, width=50,
            dtype=np.uint16, crs="EPSG:32631", transform=Affine(10, 0, 0, 0, -10, 0),
        ) as out:  # fmt: skip
            out.write(array.astype(np.uint16))
            out.update_tags(SENSOR="sentinel-2")
            if len(array) > 1:
                out.descriptions = ("B03", "B04", "B08", "B11")
                out.scales = extra.get("scales", (1.0,) * 4)


def test_what_is_assumed_of_scenes_alike_is_said_once(tmp_path):
    for name in "abcde":
        bright(tmp_path, name)
    with pytest.warns(GeounetWarning) as said:
        find_pairs([tmp_path])
    (text,) = [str(one.message) for one in said]
    assert text.startswith("a, b, c and 2 more: nothing says how numbers become reflectance: ")


def test_scenes_whose_pixels_contradict_their_scale_are_refused_by_name(tmp_path):
    for name in "abc":
        bright(tmp_path, name, scales=(1e-4,) * 4)
    pairs = find_pairs([tmp_path])
    with pytest.raises(SceneError, match=r"a\.tif: the darkest .* same goes for b, c\. Scale"):
        checked_pairs(pairs)
    with pytest.warns(GeounetWarning, match="^a, b, c: scale 0.0001, offset -0.1 was told"):
        told = find_pairs([tmp_path], scale=1e-4, offset=-0.1)
    for pair in checked_pairs(told):
        assert pair.scene.radiometry.offset == (-0.1,) * 4


@pytest.mark.parametrize("suffix", [".SAFE", ".v2", ""])
def test_a_folder_is_a_scene_where_labels_lie_beside_it(tmp_path, suffix):
    """As products come: a folder of single-band files."""
    for name in ("site", "unlabelled"):
        (tmp_path / (name + suffix)).mkdir()
        for band in ("B03", "B04", "B08"):
            write(
                tmp_path / (name + suffix) / f"S2A_{band}.tif", np.ones((1, 4), np.uint16), [band]
            )
    label = "site" if suffix == ".SAFE" else f"site{suffix}"
    write(tmp_path / f"{label}.label.tif", np.array([[1, 0, 0, 1]], np.uint8), ["hand"])
    (found,) = find_pairs([tmp_path])
    assert found.scene.bands == ("green", "red", "nir")
    assert read(found).tolist() == [1, 0, 0, 1]


def test_an_archive_is_a_scene_where_labels_lie_beside_it(tmp_path):
    write(tmp_path / "in.tif", np.ones((3, 4), np.uint16), ["blue", "green", "red"])
    for name in ("a", "unlabelled"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.write(tmp_path / "in.tif", "in.tif")
    (tmp_path / "in.tif").unlink()
    write(tmp_path / "a.label.tif", np.array([[1, 0, 0, 1]], np.uint8), ["hand"])
    (found,) = find_pairs([tmp_path])
    assert found.scene.bands == ("blue", "green", "red")

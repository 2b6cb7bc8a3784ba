import os
import pickle
import threading

import dask
import dask.array as da
import numpy as np
import pytest
from affine import Affine
from models import Ratio, ratio_model, tiny_model
from torch import nn

import geounet
from geounet import arrays
from geounet.arrays import array_scene, segment, segment_lazily
from geounet.errors import ConfigError, GeounetWarning, SceneError
from geounet.pipeline import predict_mask
from geounet.scene import open_scene
from geounet.tiling import Window

GRN = ("green", "red", "nir")
TOLD = {"scale": 1e-4, "offset": 0.0}


class Blur(Ratio):
    """Of means of 3 x 3 pixels, 0 beyond a window's edge."""

    def forward(self, x):
        return super().forward(nn.functional.avg_pool2d(x, 3, stride=1, padding=1))


@pytest.fixture
def model():
    return ratio_model(Blur())


def _numbers(height=90, width=50):
    random = np.random.default_rng(height)
    dn = random.integers(100, 9000, (3, height, width)).astype(np.uint16)
    dn[:, 20:33, 10:30] = 0
    return dn


def test_an_array_is_segmented_like_a_file(make_raster, model):
    dn = _numbers()
    path = make_raster(dn, descriptions=GRN, scale=1e-4)
    expected = predict_mask(open_scene(path), model)
    made = segment(dn, GRN, **TOLD, model=model)
    assert made.dtype == np.uint8
    assert np.array_equal(made, expected)
    assert set(np.unique(made)) == {0, 1, 255}
    assert np.array_equal(geounet.segment(dn, ["B03", "B04", "B08"], **TOLD, model=model), expected)
    reflectance = np.where(dn == 0, np.nan, dn * 1e-4).astype(np.float32)
    assert np.array_equal(segment(reflectance, GRN, scale=1.0, model=model), expected)
    masked = np.ma.masked_array(np.where(dn == 0, 7, dn), dn == 0)
    assert np.array_equal(segment(masked, GRN, **TOLD, model=model), expected)
    filled = np.where(dn == 0, 60_000, dn)
    assert np.array_equal(segment(filled, GRN, **TOLD, nodata=60_000, model=model), expected)


def test_the_probability_of_an_array(model):
    dn = _numbers()
    mask = segment(dn, GRN, **TOLD, model=model)
    made = segment(dn, GRN, **TOLD, model=model, probability=True)
    assert made.dtype == np.float32
    assert np.array_equal(np.isnan(made), mask == 255)
    seen = mask != 255
    assert ((made >= 0) & (made <= 1))[seen].all()
    clear = seen & (np.abs(made - 0.5) > 0.01)
    assert np.array_equal(made[clear] > 0.5, mask[clear] == 1)
    higher = segment(dn, GRN, **TOLD, model=model, threshold=0.9)
    assert (higher == 1).sum() < (mask == 1).sum()


def test_place_and_crs_travel_and_change_nothing(model):
    dn, place = _numbers(), Affine(10, 0, 500_000, 0, -10, 4_400_000)
    scene = array_scene(dn, bands=GRN, transform=place, crs="EPSG:32629", **TOLD)
    assert scene.grid.transform == place
    assert scene.grid.crs.to_epsg() == 32629
    assert np.array_equal(predict_mask(scene, model), segment(dn, GRN, **TOLD, model=model))


def test_a_scene_of_an_array_has_parts_and_reads_them():
    dn = _numbers()
    scene = array_scene(dn, bands=("nir", "-", "green"), **TOLD)
    assert scene.bands == ("nir", "-", "green")
    part = scene.crop(Window(15, 5, 30, 20))
    with part.open() as reader:
        tile = reader.read(Window(2, 1, 10, 12), (2, 0))
        assert np.array_equal(tile.dn, dn[[2, 0], 17:27, 6:18])
        assert np.array_equal(tile.valid, (dn != 0).any(0)[17:27, 6:18])
        few = reader.read(Window(0, 0, 30, 20), (1,), out=np.empty((1, 3, 2), np.uint16))
        assert np.array_equal(few.dn, dn[1:2, 15:45][:, 5::10][:, :, 10:25:10])
    again = pickle.loads(pickle.dumps(scene))
    assert again == scene
    assert np.array_equal(again.array, dn)


def test_what_nothing_says_is_a_warning(model):
    with pytest.warns(
        GeounetWarning, match=r"nothing says how the array's numbers.*scale= and offs"
    ):
        segment(_numbers(), GRN, model=model)


@pytest.mark.parametrize(
    ("array", "options", "error", "message"),
    [
        ([[1]], {}, ConfigError, r"must be \[bands, height, width\].*\(1, 1\)"),
        (np.ones((4, 5)), {}, ConfigError, r"must be \[bands, height, width\].*\(4, 5\)"),
        (np.ones((3, 0, 5)), {}, ConfigError, r"with a pixel; its shape is \(3, 0, 5\)"),
        (np.ones((2, 4, 5)), {"bands": GRN}, ConfigError, r"it has 2, 3 names .* Use '-'"),
        (
            np.ones((4, 5, 3)),
            {"bands": GRN},
            ConfigError,
            r"\(4, 5, 3\), .*numpy\.moveaxis\(array, -1",
        ),
        (np.ones((3, 4, 5)), {}, SceneError, r"cannot tell which bands"),
        (np.ones((2, 4, 5)), {"bands": ("green", "red"), "scale": 1.0}, SceneError, r"needs nir"),
        (np.ones((3, 4, 5), np.uint8), {"bands": GRN}, SceneError, r"made for display"),
        (np.ones((3, 4, 5)), {"bands": GRN, "crs": "none"}, ConfigError, r"got 'none'"),
        (np.ones((3, 4, 5)), {"bands": GRN, "scale": 1.0, "tiles": 3}, ConfigError, r"tiles"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(model, array, options, error, message):
    with pytest.raises(error, match=message):
        segment(array, model=model, **options)


def test_a_model_that_was_written_anew_is_loaded_anew(tmp_path):
    """As in a notebook that trains and segments in turn."""
    first = arrays._model(str(tiny_model(tmp_path)))
    assert arrays._model(first.source.as_posix()) is first
    path = tiny_model(tmp_path, version="8")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert arrays._model(str(path)).spec.version == "8"


# -- lazy arrays -----------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [(3, 90, 50), (1, 7, 50), (2, 33, 11)])
@pytest.mark.parametrize("probability", [False, True])
def test_a_lazy_result_is_the_same_whatever_the_chunks(model, chunks, probability):
    """Pixels of a window see each other, so that a seam between strips would show."""
    dn = _numbers(200, 50)
    expected = segment(dn, GRN, **TOLD, model=model, probability=probability)
    scene = array_scene(da.from_array(dn, chunks), bands=GRN, **TOLD)
    lazy = segment_lazily(scene, model=model, probability=probability)
    assert isinstance(lazy, da.Array)
    assert lazy.shape == (200, 50)
    assert lazy.dtype == expected.dtype
    assert lazy.numblocks[0] > 2
    assert np.array_equal(lazy.compute(scheduler="threads"), expected, equal_nan=True)
    some = lazy[100:120, 5:9].compute(scheduler="sync")
    assert np.array_equal(some, expected[100:120, 5:9], equal_nan=True)


def test_nothing_is_read_before_it_is_asked_for_and_then_only_what_is_needed(model):
    dn, read = _numbers(200, 50), []

    def load(block, block_info):
        read.append(block_info[0]["array-location"][1][0])
        return block

    array = da.from_array(dn, (3, 10, 50)).map_blocks(load, dtype=dn.dtype, meta=dn[:0])
    lazy = segment_lazily(array_scene(array, bands=GRN), model=model)  # looks at no pixel either
    assert read == []
    lazy[:5].compute(scheduler="sync")
    assert 0 in read
    assert max(read) <= 90


def test_strips_run_one_at_a_time(model, monkeypatch):
    running, most = [], []
    predict = arrays.predict_strips

    def spy(*args):
        running.append(threading.get_ident())
        most.append(len(running))
        yield from predict(*args)
        running.pop()

    monkeypatch.setattr(arrays, "predict_strips", spy)
    scene = array_scene(da.from_array(_numbers(300, 20), -1), bands=GRN, **TOLD)
    with dask.config.set(scheduler="threads", num_workers=4):
        segment_lazily(scene, model=model).compute()
    assert len(most) > 3
    assert set(most) == {1}


def test_a_lazy_array_may_also_be_segmented_at_once(model):
    dn = _numbers()
    made = segment(da.from_array(dn, (1, 30, 50)), GRN, **TOLD, model=model)
    assert np.array_equal(made, segment(dn, GRN, **TOLD, model=model))

"""Scene to mask and polygons, with networks so simple that numpy knows the exact answer.

`Ratio` gives the logits (0, ln green - ln nir): a pixel is water exactly where green > nir, and its
probability is green / (green + nir).
"""

import gc
import json
import shutil
import tempfile
import threading
import time
import tracemalloc
import warnings
from collections import deque
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.features
import rasterio.shutil
import shapely
import torch
from affine import Affine
from disks import little_space
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import Ratio, ratio_model
from rio_cogeo.cogeo import cog_validate
from shapely import make_valid
from shapely.geometry import shape as to_shape
from torch import nn

import geounet
from geounet import pipeline
from geounet import scene as scene_module
from geounet.blending import StripBlender
from geounet.engines.torch_engine import TorchEngine
from geounet.errors import ConfigError, GeounetWarning, ModelError, OutputError, SceneError
from geounet.model import InputBand, Normalisation
from geounet.pipeline import RunConfig, predict_mask, predict_strips, prepare, run
from geounet.scene import SceneReader, Tile, open_scene
from geounet.staging import check_free

BANDS = tuple(
    InputBand(name=own, common_name=name, required=name != "swir16")
    for own, name in [("B03", "green"), ("B04", "red"), ("B08", "nir"), ("B11", "swir16")]
)


class Counted(Ratio):
    """Counts every window that passes, in whatever thread, also where networks are rewritten."""

    def __init__(self):
        super().__init__()
        self._lock = threading.Lock()

    def forward(self, x):
        float(x.sum())  # a number that tracing does not have, so that this runs as it is
        with self._lock:
            return super().forward(x)


class Crop(nn.Module):
    """A body whose output lacks a margin, as that of unpadded convolutions does."""

    def __init__(self, body, margin):
        super().__init__()
        self.body, self.margin = body, margin

    def forward(self, x):
        m = self.margin
        return self.body(x)[..., m : x.shape[-2] - m, m : x.shape[-1] - m]


class Blur(nn.Module):
    """Ratio of 3 x 3 means without padding: loses one pixel on each side."""

    def forward(self, x):
        return Ratio()(nn.functional.avg_pool2d(x, 3, stride=1))


def _model(body=None, **spec):
    base = {
        "version": "1",
        "bands": BANDS,
        "normalisation": Normalisation(floor=1e-6, mean=(0.0,) * 4, std=(1.0,) * 4),
        "tile": 32,
        "overlap": 8,
        "licence": "CC0",
    }
    return ratio_model(body, **(base | spec))


@pytest.fixture
def model(monkeypatch):
    """The model that `run` loads, whatever its name."""
    made = _model()
    monkeypatch.setattr(pipeline, "load_model", lambda _: made)
    return made


def _job(path, model, **options):
    return pipeline.fit(open_scene(path), model, RunConfig(device="cpu", **options))


def _files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def _mask(result):
    with rasterio.open(result.outputs["mask"]) as file:
        return file.read(1)


# -- the mask is exactly right ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (5, 7), (32, 32), (33, 31), (97, 141)])
def test_the_mask_is_exact(make_water, size):
    """Scenes smaller than a tile, one pixel wide, of odd sizes."""
    path, expected = make_water(*size)
    made = predict_mask(open_scene(path), _model())
    assert made.dtype == np.uint8
    assert np.array_equal(made, expected)


@pytest.fixture
def wedge(make_water):
    """A scene with an unobserved corner, and its mask."""
    path, expected = make_water(43, 31, unobserved=np.add.outer(np.arange(43), np.arange(31)) < 20)
    return open_scene(path), expected


many = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@many
@given(
    tile=st.integers(1, 50),
    overlap=st.integers(0, 30),
    batch=st.integers(1, 5),
    blend=st.sampled_from(["hann", "cosine", "gaussian", "linear", "none"]),
)
def test_tile_overlap_batch_and_blend_do_not_change_it(wedge, tile, overlap, batch, blend):
    """Invariants 2 and 3: for a network that sees one pixel at a time, exactly."""
    scene, expected = wedge
    options = {"tile": tile, "overlap": min(overlap, tile // 2), "batch": batch, "blend": blend}
    made = predict_mask(scene, _model(), RunConfig(device="cpu", **options))
    assert np.array_equal(made, expected)


@pytest.mark.parametrize("tile_multiple", [16, 32, 64])
def test_a_scene_smaller_than_the_network_takes_is_padded(make_water, tile_multiple):
    path, expected = make_water(19, 45)
    model = _model(tile_multiple=tile_multiple, tile=64)
    assert np.array_equal(predict_mask(open_scene(path), model), expected)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "uint32", "float32", "float64"])
def test_any_type_of_numbers(make_raster, dtype):
    random = np.random.default_rng(8)
    top = 20_000 if dtype == "int16" else 60_000  # numbers whose sixteenth bit is set, too
    dn = random.integers(100, top, (3, 40, 50))
    dn[2] += dn[0] == dn[2]
    scale = 1e-5
    path = make_raster(dn.astype(dtype), descriptions=("green", "red", "nir"), scale=scale)
    made = predict_mask(open_scene(path), _model())
    assert np.array_equal(made, dn[0] > dn[2])


def test_a_part_is_the_same_pixels_of_the_whole(make_water):
    path, expected = make_water(90, 110)
    made = predict_mask(open_scene(path, window=(13, 7, 71, 60)), _model())
    assert np.array_equal(made, expected[7:67, 13:84])
    triangle = shapely.Polygon([(500_000, 4_400_000), (500_700, 4_400_000), (500_000, 4_399_300)])
    clipped = predict_mask(open_scene(path).clip(triangle), _model())
    outside = np.add.outer(np.arange(70), np.arange(70)) >= 70  # 69: the centre is on the edge
    assert (clipped[outside] == 255).all()
    inside = np.add.outer(np.arange(70), np.arange(70)) < 69
    assert np.array_equal(clipped[inside], expected[:70, :70][inside])


def test_what_was_not_observed_stays_so(make_water):
    """Invariant 4: nodata, NaN and all-zero pixels are 255, and only they."""
    unobserved = np.random.default_rng(6).random((70, 50)) < 0.3
    path, expected = make_water(70, 50, unobserved=unobserved)
    made = predict_mask(open_scene(path), _model())
    assert np.array_equal(made, expected)
    assert np.array_equal(made == 255, unobserved)


def test_an_unobserved_neighbour_does_not_leak_into_a_pixel(make_raster):
    """Invariant 4: what stands in unobserved pixels (here huge numbers) changes nothing else."""
    random = np.random.default_rng(9)
    dn = random.uniform(0.01, 0.5, (3, 50, 40)).astype(np.float32)
    hole = np.zeros((50, 40), bool)
    hole[10:20, 5:30] = True
    masks = []
    for i, filler in enumerate((np.nan, np.inf, -9999.0)):
        dn[:, hole] = filler
        path = make_raster(dn, f"{i}.tif", descriptions=("green", "red", "nir"), nodata=-9999)
        scene = open_scene(path, scale=1.0, offset=0.0)
        masks.append(predict_mask(scene, _model(Crop(Blur(), 0), margin=1)))
    assert (masks[0][hole] == 255).all()
    assert np.array_equal(masks[0], masks[1])
    assert np.array_equal(masks[0], masks[2])


def test_scale_and_offset_reach_the_network(make_raster):
    """Invariant 6: an offset left in turns land into water; here it decides each pixel."""
    random = np.random.default_rng(4)
    dn = random.integers(1100, 4000, (3, 30, 30)).astype(np.uint16)
    options = {"descriptions": ("green", "red", "nir"), "scale": 1e-4}
    model = _model(Shifted())
    for offset in (0.0, -0.1):
        path = make_raster(dn, f"{offset}.tif", offset=offset, **options)
        reflectance = dn[0] * 1e-4 + offset
        made = predict_mask(open_scene(path), model)
        assert np.array_equal(made, reflectance > 0.15005)


class Shifted(nn.Module):
    """Water where green reflectance is above 0.15005, between two stored numbers."""

    def forward(self, x):
        green = x[:, :1] - float(np.log(0.15005))
        return torch.cat([torch.zeros_like(green), green], dim=1)


# -- networks that lose a margin -------------------------------------------------------------------


@pytest.mark.parametrize("margin", [1, 3, 20, 60])
@pytest.mark.parametrize("size", [(40, 30), (1, 25), (77, 1), (90, 101)])
def test_a_cropped_network_gives_the_mask_of_its_padded_twin(make_water, size, margin):
    """Windows are read with the margin around, mirrored at the scene's edge: nothing shifts."""
    unobserved = np.random.default_rng(5).random(size) < 0.1
    path, expected = make_water(*size, unobserved=unobserved)
    model = _model(Crop(Ratio(), margin), margin=margin)
    for tile, overlap in ((32, 8), (16, 0), (64, 20)):
        made = predict_mask(open_scene(path), model, RunConfig(tile=tile, overlap=overlap))
        assert np.array_equal(made, expected)


@pytest.mark.parametrize(("multiple", "remainder"), [(16, 4), (4, 4), (2, 6), (8, 0)])
def test_sizes_with_a_remainder(make_water, multiple, remainder):
    """Unpadded networks take tiles of multiple * n + remainder, the remainder of any size."""
    path, expected = make_water(75, 53)
    model = _model(
        Crop(Ratio(), 5), margin=5, tile_multiple=multiple, tile_remainder=remainder,
        tile=2 * multiple + remainder, overlap=1,
    )  # fmt: skip
    assert np.array_equal(predict_mask(open_scene(path), model), expected)
    with pytest.raises(ConfigError, match=f"a multiple of {multiple}"):
        predict_mask(open_scene(path), model, RunConfig(tile=4 * multiple + remainder + 1))


@pytest.mark.parametrize("tile", [8, 21, 64])
def test_unpadded_convolutions_see_real_neighbours_and_a_mirrored_border(make_water, tile):
    """The whole scene, mirrored by numpy and run at once, is what all windows together give."""
    path, _ = make_water(60, 50)
    scene = open_scene(path)
    x = np.log(scene.reflectance(("green", "red", "nir")))
    x = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    logits = Blur()(torch.from_numpy(x)[None])[0].numpy()
    assert np.abs(logits[1]).min() > 1e-5  # no pixel on the fence
    made = predict_mask(scene, _model(Blur(), margin=1), RunConfig(tile=tile, overlap=tile // 4))
    assert np.array_equal(made, logits[1] > 0)


# -- strips ----------------------------------------------------------------------------------------


@many
@given(
    cuts=st.lists(st.integers(0, 43), max_size=4),
    tile=st.integers(5, 40),
    overlap=st.integers(0, 20),
    margin=st.sampled_from([0, 1]),
)
def test_tasks_that_own_rows_together_equal_the_serial_run(wedge, cuts, tile, overlap, margin):
    """Invariant 3: any split of the rows, with no talk between the tasks."""
    model = _model(Blur() if margin else None, margin=margin)
    config = RunConfig(device="cpu", tile=tile, overlap=min(overlap, tile // 2))
    job = pipeline.fit(wedge[0], model, config)
    serial = list(predict_strips(job))
    edges = [0, *sorted(cuts), 43]
    parts = []
    for top, bottom in pairwise(edges):
        mine = list(predict_strips(job, (top, bottom)))
        assert sum(len(strip.codes) for strip in mine) == bottom - top
        row = top
        for strip in mine:
            assert strip.row == row
            row += len(strip.codes)
        parts += mine
    for name in ("codes", "probability"):
        whole = np.concatenate([getattr(strip, name) for strip in serial])
        assert np.array_equal(np.concatenate([getattr(s, name) for s in parts]), whole)


def test_a_task_predicts_only_windows_that_touch_its_rows(make_water):
    path, _ = make_water(100, 20)
    job = _job(path, _model(Counted()), tile=20, overlap=5)
    list(predict_strips(job, (40, 45)))
    touching = len(job.plan.rows.touching(40, 45)) * len(job.plan.cols.starts)
    assert job.model.network.body.windows == touching < job.plan.count


def test_windows_with_nothing_observed_are_neither_predicted_nor_blended(make_water, monkeypatch):
    unobserved = np.zeros((64, 64), bool)
    unobserved[:, 32:] = True
    path, expected = make_water(64, 64, unobserved=unobserved)
    job = _job(path, _model(Counted()), tile=32, overlap=0)
    blended, add = [], StripBlender.add

    def spy(self, row, col, scores):
        blended.append((row, col))
        add(self, row, col, scores)

    monkeypatch.setattr(StripBlender, "add", spy)
    assert np.array_equal(np.concatenate([s.codes for s in predict_strips(job)]), expected)
    assert job.plan.count == 4
    assert job.model.network.body.windows == 2
    assert blended == [(0, 0), (1, 0)]


def test_progress_ends_at_the_number_of_windows(make_water):
    path, _ = make_water(70, 70)
    job = _job(path, _model())
    seen = []
    list(predict_strips(job, on_progress=seen.append))
    across = len(job.plan.cols.starts)
    assert [p.done for p in seen] == list(range(across, job.plan.count + 1, across))
    assert {p.total for p in seen} == {job.plan.count}


def test_a_run_that_is_out_of_memory_goes_on_with_fewer_windows(make_water, tmp_path, monkeypatch):
    """The network has room for two; the mask is what it is without the limit."""

    room = threading.Semaphore(2)

    class Large(Counted):
        def forward(self, x):
            made = super().forward(x)
            if not room.acquire(blocking=False):
                raise torch.OutOfMemoryError("CUDA out of memory")
            time.sleep(0.05)  # so that those that run at once meet
            room.release()
            return made

    path, expected = make_water(90, 110)
    monkeypatch.setattr(pipeline, "load_model", lambda _: _model(Large()))
    with pytest.warns(GeounetWarning, match="with 8 windows at once on cpu") as said:
        result = run(path, output=tmp_path / "out", batch=8, device="cpu", polygons=False)
    assert len(said) == 1
    assert np.array_equal(_mask(result), expected)


# -- memory and threads ----------------------------------------------------------------------------


class FakeReader:
    """Makes the rows that it is asked for and writes down who asked."""

    def __init__(self):
        self.rows = []
        self.threads = set()
        self.lock = threading.Lock()

    @contextmanager
    def open(self, *_, **__):
        self.threads.add(threading.get_ident())
        yield self

    def read(self, window, indexes, out=None):
        with self.lock:
            self.rows.append((window.row, window.row + window.height))
        self.threads.add(threading.get_ident())
        if out is None:
            out = np.empty((len(indexes), window.height, window.width), np.uint16)
        out[:] = 1000
        out[0] = 2000
        return Tile(window, out, np.ones(out.shape[1:], bool))


@pytest.fixture
def fake(monkeypatch, make_water):
    """A job of any height whose scene is made as it is read."""
    path, _ = make_water(8, 8)
    small = open_scene(path)

    def make(height, width=64, **options):
        reader = FakeReader()
        monkeypatch.setattr(scene_module.Scene, "open", reader.open)
        scene = replace(small, grid=replace(small.grid, height=height, width=width))
        job = pipeline.fit(scene, _model(), RunConfig(device="cpu", **options))
        reader.rows.clear()  # what was looked at before the run begins
        reader.threads.clear()
        return job, reader

    return make


@pytest.mark.parametrize(("tile", "overlap"), [(32, 8), (32, 24), (32, 0), (500, 100)])
def test_rows_that_windows_share_are_read_once(fake, tile, overlap):
    job, reader = fake(300, tile=tile, overlap=overlap)
    list(predict_strips(job))
    rows = [row for first, stop in reader.rows for row in range(first, stop)]
    assert rows == list(range(300))


def test_peak_memory_does_not_grow_with_the_scenes_height(fake):
    """Invariant 1: numpy's peak. What is kept per row is a few numbers, less than a row of mask."""

    def peak(height):
        job, reader = fake(height, width=512)
        reader.rows = deque(maxlen=0)  # what the test itself writes down does not count
        gc.collect()
        tracemalloc.start()
        rows = sum(len(strip.codes) for strip in predict_strips(job))
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert rows == height
        return top

    peak(100)  # what is allocated once only
    low, high = peak(400), peak(2400)
    assert (high - low) / 2000 < 64  # bytes a row; one of the scene has 3072, one of the mask 512


def test_tensors_do_not_grow_with_the_scenes_height(fake, monkeypatch):
    """Invariant 1: torch's memory is not traced, so the largest tensor is watched instead."""
    sizes = []
    for name in ("zeros", "asarray"):
        made = getattr(TorchEngine, name)

        def spy(self, what, made=made):
            sizes.append(np.size(made(self, what)))
            return made(self, what)

        monkeypatch.setattr(TorchEngine, name, spy)
    largest = []
    for height in (100, 1600):
        sizes.clear()
        job, _ = fake(height)
        for _ in predict_strips(job):
            pass
        largest.append(max(sizes))
    assert largest[0] == largest[1] <= 4 * 32 * 64


def test_rows_leave_as_soon_as_no_window_covers_them(fake):
    """Invariant 1: a strip comes out before the next row of windows but one is read."""
    job, reader = fake(400, tile=32, overlap=8)
    starts = job.plan.rows.starts
    for i, strip in enumerate(predict_strips(job)):
        assert strip.row == starts[i]
        time.sleep(0.002)  # time for a reader that knows no bounds to run ahead
        assert len(reader.rows) <= i + 3


def test_a_card_has_its_next_work_before_it_is_waited_for(fake, monkeypatch):
    """Else it would idle from when it is done with a row until the next is read and sent."""
    job, _ = fake(80, tile=32, overlap=8)
    order = []
    predict, decide = TorchEngine.predict, TorchEngine.decide

    def predicted(self, *given):
        order.append("predict")
        return predict(self, *given)

    def decided(self, *given):
        asked = decide(self, *given)
        return lambda: order.append("wait") or asked()

    monkeypatch.setattr(TorchEngine, "_on_cpu", False)
    monkeypatch.setattr(TorchEngine, "predict", predicted)
    monkeypatch.setattr(TorchEngine, "decide", decided)
    assert [len(strip.codes) for strip in predict_strips(job)] == [24, 24, 32]
    assert order == ["predict", "predict", "wait", "predict", "wait", "wait"]


def test_a_slow_writer_holds_the_rest_back(fake, tmp_path, monkeypatch):
    """Invariant 1: strips that wait for the writer are few, whatever the height."""
    ahead = []
    write = pipeline._Outputs.write
    written = []

    def slow(self, strip):
        time.sleep(0.004)
        ahead.append(len(reader.rows) - len(written))
        write(self, strip)
        written.append(strip.row)

    monkeypatch.setattr(pipeline._Outputs, "write", slow)
    job, reader = fake(1200, output=tmp_path, polygons=False)
    pipeline.run_job(job)
    assert len(written) > 40
    assert max(ahead) <= 8


def test_one_thread_reads_and_it_is_not_this_one(fake):
    """Invariant 10: the thread that reads has opened the file itself."""
    job, reader = fake(200)
    list(predict_strips(job))
    assert len(reader.threads) == 1
    assert threading.get_ident() not in reader.threads


def test_one_thread_writes_and_it_is_not_the_reader(make_water, model, tmp_path, monkeypatch):
    """Invariant 10: a writer's handle lives in one thread, from its opening to its end."""
    threads = {"open": set(), "write": set(), "close": set()}
    for kind, method in (("open", "__init__"), ("write", "write"), ("close", "__exit__")):
        real = getattr(geounet.mask.RasterWriter, method)

        def spy(self, *args, kind=kind, real=real, **options):
            threads[kind].add(threading.get_ident())
            return real(self, *args, **options)

        monkeypatch.setattr(geounet.mask.RasterWriter, method, spy)
    path, _ = make_water(150, 40)
    run(path, output=tmp_path / "out", probability=True)
    assert threads["open"] == threads["write"] == threads["close"]
    assert len(threads["open"]) == 1
    assert threading.get_ident() not in threads["open"]


def test_no_thread_outlives_a_run_that_is_given_up(fake):
    before = threading.active_count()
    strips = predict_strips(fake(2000)[0])
    next(strips)
    strips.close()
    assert threading.active_count() == before


# -- run: what it makes ----------------------------------------------------------------------------


def test_run_end_to_end(make_water, model, tmp_path):
    """Mask, probability, polygons and figures, each against numpy and rasterio."""
    unobserved = np.zeros((230, 170), bool)
    unobserved[:60, 100:] = True
    path, expected = make_water(230, 170, unobserved=unobserved, nodata=0)
    result = run(path, output=tmp_path / "out", probability=True)

    assert _files(tmp_path / "out") == [
        "scene_mask.tif", "scene_probability.tif", "scene_water.gpkg"
    ]  # fmt: skip
    assert np.array_equal(_mask(result), expected)
    with rasterio.open(path) as file:
        green, _, nir = file.read().astype(float)
    with rasterio.open(result.outputs["probability"]) as file:
        level = file.read(1)
        assert file.scales == (1 / 250,)
    exact = 250 * green / np.maximum(green + nir, 1)
    assert (level[unobserved] == 255).all()
    assert np.abs(level - exact)[~unobserved].max() < 0.502  # rounding, and float32 at its edge

    counts = {name: int((expected == code).sum()) for code, name in geounet.mask.CLASSES.items()}
    assert result.pixels == counts
    areas = open_scene(path).grid.pixel_areas()
    for code, name in geounet.mask.CLASSES.items():
        by_hand = float(((expected == code) * areas[:, None]).sum()) / 1e6
        assert result.area_km2[name] == pytest.approx(by_hand, rel=1e-12)
    assert result.windows == geounet.tiling.WindowPlan(230, 170, 32, 8).count
    assert result.model == "ratio 1"
    assert result.model_sha256 == "test"
    assert set(result.seconds) == {"read", "predict", "write", "polygons", "finish", "total"}
    assert json.loads(json.dumps(result.as_dict()))["outputs"]["mask"].endswith("scene_mask.tif")


def _key(polygon):
    return (*polygon.bounds, polygon.area)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize(("tile", "overlap"), [(16, 4), (32, 0), (300, 30)])
def test_polygons_know_no_tiles(make_water, model, tmp_path, tile, overlap, connectivity):
    """Invariant 9: those of the whole raster at once, by rasterio, whatever the tiling."""
    unobserved = np.zeros((120, 90), bool)
    unobserved[50:, 70:] = True
    path, expected = make_water(120, 90, unobserved=unobserved)
    options = {"tile": tile, "overlap": overlap, "connectivity": connectivity}
    result = run(path, output=tmp_path / "out", **options)
    made = geopandas.read_file(result.outputs["polygons"])
    with rasterio.open(result.outputs["mask"]) as file:
        codes = file.read(1)
        assert made.crs == file.crs
        shapes = rasterio.features.shapes(codes, codes == 1, connectivity, file.transform)
        whole = [make_valid(to_shape(geometry)) for geometry, _ in shapes]
    assert np.array_equal(codes, expected)
    assert result.polygons == len(made) == len(whole)
    ours = {_key(p): p for p in made.geometry}
    theirs = {_key(p): p for p in whole}
    assert ours.keys() == theirs.keys()
    assert all(ours[key].equals(theirs[key]) for key in ours)
    if connectivity == 4:  # no ring touches itself, so that there is one way to write it
        assert all(ours[key].normalize() == theirs[key].normalize() for key in ours)
    # UTM is not true to area; the mask's own area is.
    assert made["area_m2"].sum() == pytest.approx(result.area_km2["water"] * 1e6, rel=1e-6)


def test_unobserved_pixels_are_no_polygons_and_no_land(make_water, model, tmp_path):
    """Invariant 4."""
    unobserved = np.zeros((60, 60), bool)
    unobserved[20:40] = True
    path, _ = make_water(60, 60, unobserved=unobserved)
    result = run(path, output=tmp_path / "out")
    assert result.pixels["not observed"] == 20 * 60
    assert sum(result.pixels.values()) == 3600
    made = geopandas.read_file(result.outputs["polygons"])
    band = made.cx[500_000:500_600, 4_400_000 - 399 : 4_400_000 - 201]
    assert len(band) == 0


def test_a_least_area_leaves_small_water_out(make_water, model, tmp_path):
    path, _ = make_water(80, 80)
    every = run(path, output=tmp_path / "a")
    large = run(path, output=tmp_path / "b", min_area=5000)
    areas = geopandas.read_file(every.outputs["polygons"])["area_m2"]
    assert large.polygons == (areas >= 5000).sum() < every.polygons
    assert large.pixels == every.pixels  # the mask keeps them


@pytest.mark.parametrize("edges", ["pixel", "contour"])
def test_a_run_outlines_like_vectorizing_its_rasters(make_water, model, tmp_path, edges):
    """Whatever the strips: the run has its own, the rasters are read in others."""
    unobserved = np.zeros((90, 70), bool)
    unobserved[30:50, 20:40] = True
    path, _ = make_water(90, 70, unobserved=unobserved)
    options = {"edges": edges, "shoreline": True, "fill_holes": 300.0, "to_crs": "EPSG:3857"}
    result = run(path, output=tmp_path / "out", tile=32, overlap=8, probability=True, **options)
    found = geounet.vectorize(
        result.outputs["mask"],
        probability=result.outputs["probability"],
        shaping=geounet.Shaping(edges=edges, fill_holes=300),
        shoreline=True,
        to_crs="EPSG:3857",
    )
    for kind, expected in (("polygons", found.polygons), ("shoreline", found.shorelines)):
        made = geopandas.read_file(result.outputs[kind])
        assert len(made) == len(expected) > 0
        assert made.geometry.geom_equals(expected.geometry).all()
        assert made["source"].unique().tolist() == [path.name]
        numbers = [name for name in expected if made[name].dtype == float]
        assert len(numbers) >= 2
        assert np.allclose(made[numbers], expected[numbers], equal_nan=True)


def test_when_it_was_acquired_is_passed_on(make_water, model, tmp_path):
    path, _ = make_water(40, 40)
    with rasterio.open(path, "r+") as file:
        file.update_tags(ACQUISITION_DATETIME="2023-05-01T10:50:31Z")
    result = run(path, output=tmp_path / "out")
    with rasterio.open(result.outputs["mask"]) as file:
        assert file.tags()["ACQUIRED"] == "2023-05-01T10:50:31Z"
    table = geopandas.read_file(result.outputs["polygons"], ignore_geometry=True)
    assert set(table["acquired"].astype(str)) == {"2023-05-01T10:50:31Z"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"edges": "contour", "connectivity": 8}, "never touch at a corner"),
        ({"to_crs": "EPSG:1"}, "got 'EPSG:1'"),
    ],
)
def test_outlines_that_cannot_be_are_refused_before_anything_is_done(
    make_water, model, tmp_path, options, words
):
    path, _ = make_water(40, 40)
    with pytest.raises(ConfigError, match=words):
        run(path, output=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["gpkg", "parquet", "fgb", "geojson"])
def test_formats(make_water, model, tmp_path, kind):
    path, _ = make_water(40, 40)
    result = run(path, output=tmp_path / "out", format=kind)
    target = result.outputs["polygons"]
    assert target.name == f"scene_water.{kind}"
    read = geopandas.read_parquet if kind == "parquet" else geopandas.read_file
    assert len(read(target)) == result.polygons > 0


def test_outputs_are_valid_cogs_with_provenance(make_water, model, tmp_path):
    """What the tags say, by others' tools."""
    path, _ = make_water(700, 600)
    result = run(path, output=tmp_path / "out", probability=True, threshold=0.4, blend="linear")
    for kind in ("mask", "probability"):
        assert cog_validate(result.outputs[kind], strict=True)[:2] == (True, [])
        with rasterio.open(result.outputs[kind]) as file:
            tags = file.tags()
            assert file.nodata == 255
            assert file.overviews(1) == [2]
        expected = {
            "GEOUNET_VERSION": geounet.__version__,
            "MODEL": "ratio 1",
            "MODEL_SHA256": "test",
            "MODEL_LICENCE": "CC0",
            "SOURCE": "scene.tif",
            "BANDS": "B03=green, B04=red, B08=nir",
            "BANDS_MISSING": "B11",
            "RADIOMETRY": "scale and offset from the band metadata",
            "SCALE": "0.0001 0.0001 0.0001",
            "OFFSET": "0 0 0",
            "TILE": "32",
            "OVERLAP": "8",
            "BLEND": "linear",
            "THRESHOLD": "0.4",
        }
        assert {key: tags.get(key) for key in expected} == expected
    assert result.bands == {"B03": "green", "B04": "red", "B08": "nir"}
    assert result.bands_missing == ("B11",)
    assert result.radiometry == "scale and offset from the band metadata"


def test_what_was_assumed_is_recorded(make_raster, model, tmp_path):
    """Invariant 6: the decision is in the result and in the file."""
    dn = np.random.default_rng(1).integers(200, 3000, (3, 20, 20)).astype(np.uint16)
    path = make_raster(dn, descriptions=("green", "red", "nir"))
    with pytest.warns(GeounetWarning, match="nothing in .* says how its numbers become"):
        result = run(path, output=tmp_path / "out")
    said = "uint16 taken as reflectance x 10000, no offset (assumed)"
    assert result.radiometry == said
    with rasterio.open(result.outputs["mask"]) as file:
        assert file.tags()["RADIOMETRY"] == said


def test_bands_in_another_order_give_the_same_mask(make_water, model, tmp_path):
    path, expected = make_water(40, 40)
    with rasterio.open(path) as file:
        data, profile = file.read()[::-1], file.profile
    turned = tmp_path / "turned.tif"
    with rasterio.open(turned, "w", **profile) as file:
        file.write(data)
    told = {"bands": ("B08", "B04", "B03"), "scale": 1e-4}
    assert np.array_equal(_mask(run(turned, output=tmp_path / "out", **told)), expected)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32629", Affine(7.5, 3.25, 5e5, 2.75, -8.5, 4.4e6)),
        ("EPSG:4326", Affine(2e-4, 0, 10, 0, -2e-4, 60)),
    ],
)
def test_any_grid_goes_through(make_water, model, tmp_path, crs, transform):
    path, expected = make_water(50, 40, crs=crs, transform=transform)
    result = run(path, output=tmp_path / "out")
    with rasterio.open(result.outputs["mask"]) as file:
        assert file.transform == transform
        assert file.crs.to_string() == crs
        assert np.array_equal(file.read(1), expected)
    made = geopandas.read_file(result.outputs["polygons"])
    assert made["area_m2"].sum() == pytest.approx(result.area_km2["water"] * 1e6, rel=1e-4)


@pytest.mark.parametrize(("size", "told"), [(5, True), (8, False), (40, False), (60, True)])
def test_pixels_of_another_size_than_the_model_learned_are_told(make_water, model, size, told):
    path, _ = make_water(50, 40, transform=Affine(size, 0, 5e5, 0, -size, 4.4e6))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pipeline.prepare(path, RunConfig())
    text = f"pixels of {size} m, and the model ratio learned from 10 to 30 m"
    assert [text in str(warning.message) for warning in caught] == [True] * told


def test_rows_beyond_the_pole_add_nothing(make_water, model, tmp_path):
    step = 2e-4
    path, expected = make_water(
        50, 40, crs="EPSG:4326", transform=Affine(step, 0, 0, 0, -step, 90 + 9.5 * step)
    )
    with pytest.warns(GeounetWarning, match=r"has pixels of 0\.1\d+ m"):
        result = run(path, output=tmp_path / "out", polygons=False)
    rows = pipeline.open_scene(path).grid.pixel_areas()
    assert not rows[:9].any()
    assert rows[10:].all()
    water = ((expected == 1).sum(axis=1) * rows).sum() / 1e6
    assert result.area_km2["water"] > 0
    assert result.area_km2["water"] == pytest.approx(water)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_scene_without_a_crs(make_water, model, tmp_path):
    path, expected = make_water(50, 40, crs=None, transform=Affine(2, 0, 0, 0, -2, 0))
    with pytest.warns(GeounetWarning, match="has no CRS"):
        result = run(path, output=tmp_path / "out")
    assert np.array_equal(_mask(result), expected)
    assert result.area_km2["water"] == pytest.approx((expected == 1).sum() * 4e-6)


def test_geojson_without_a_crs_is_refused_before_anything_is_done(make_water, model, tmp_path):
    path, _ = make_water(50, 40, crs=None, transform=Affine(2, 0, 0, 0, -2, 0))
    with (
        pytest.warns(GeounetWarning, match="has no CRS"),
        pytest.raises(ConfigError, match=r"GeoJSON.*no CRS"),
    ):
        run(path, output=tmp_path / "out", format="geojson")
    assert model.network.body.windows == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["gpkg", "parquet", "fgb", "geojson"])
@pytest.mark.parametrize("edges", ["pixel", "contour"])
def test_an_empty_result_is_valid_in_every_format(make_water, model, tmp_path, kind, edges):
    path, _ = make_water(40, 30, unobserved=np.ones((40, 30), bool))
    with pytest.warns(GeounetWarning, match=r"nothing was observed in .*scene.tif"):
        result = run(
            path, output=tmp_path / "out", format=kind, edges=edges, shoreline=True,
            min_area=100, fill_holes=100, simplify=5, smooth=8, to_crs="EPSG:4326",
        )  # fmt: skip
    read = geopandas.read_parquet if kind == "parquet" else geopandas.read_file
    for name in ("polygons", "shoreline"):
        made = read(result.outputs[name])
        assert len(made) == 0
        assert made.crs == "EPSG:4326"


@pytest.mark.filterwarnings("ignore:nothing in .*scene.tif says how its numbers")
def test_what_the_pixels_say_of_the_radiometry_is_what_is_predicted_with(make_raster):
    """Reflectance x 10000 in floating point; the sensor is known by B8A."""
    dn = np.random.default_rng(1).integers(100, 5000, (5, 40, 40)).astype(np.float32)
    path = make_raster(dn, descriptions=("B03", "B04", "B08", "B8A", "B11"))
    with pytest.warns(GeounetWarning, match=r"scale 0.0001, offset 0 is taken instead"):
        job = _job(path, _model())
    assert job.inputs.gain == (1e-4,) * 4
    assert job.scene.radiometry.scale[0] == 1e-4
    assert "whole numbers as its sensor's products hold" in job.tags()["RADIOMETRY"]


def test_a_cloud_mask_hides_what_it_covers(make_water, make_raster, model, tmp_path):
    """Invariant 4: what is under it is neither water nor land; what was not observed stays so."""
    unobserved = np.random.default_rng(5).random((70, 50)) < 0.2
    hidden = np.kron(np.random.default_rng(6).random((14, 10)) < 0.4, np.ones((5, 5))) == 1
    path, expected = make_water(70, 50, unobserved=unobserved)
    mask = make_raster(hidden[None].astype(np.uint8), "clouds.tif")
    expected[hidden & ~unobserved] = 2
    assert len(np.unique(expected)) == 4
    result = run(path, output=tmp_path / "out", cloud_mask=str(mask), probability=True)
    assert np.array_equal(_mask(result), expected)
    assert result.cloud_mask == result.as_dict()["cloud_mask"] == "clouds (nonzero)"
    assert result.pixels["obscured"] == (expected == 2).sum()
    with rasterio.open(result.outputs["mask"]) as file:
        assert file.tags()["CLOUD_MASK"] == "clouds (nonzero)"
    with rasterio.open(result.outputs["probability"]) as file:
        assert np.array_equal(file.read(1) == 255, expected >= 2)
    polygons = geopandas.read_file(result.outputs["polygons"])
    assert polygons.area.sum() == pytest.approx(100 * (expected == 1).sum())
    part = run(path, output=tmp_path / "part", cloud_mask=str(mask), window=(7, 9, 30, 40), tile=16)
    assert np.array_equal(_mask(part), expected[9:49, 7:37])
    job = prepare(path, RunConfig(cloud_mask=str(mask), tile=16))
    for top, bottom in ((0, 13), (13, 29), (29, 70)):
        rows = [strip.codes for strip in predict_strips(job, (top, bottom))]
        assert np.array_equal(np.concatenate(rows), expected[top:bottom])


@pytest.mark.parametrize("edges", ["pixel", "contour"])
def test_a_scene_under_cloud_has_no_water_and_no_shore(
    make_water, make_raster, model, tmp_path, edges
):
    path, _ = make_water(70, 50)
    mask = make_raster(np.ones((1, 70, 50), np.uint8), "clouds.tif")
    result = run(path, output=tmp_path / "out", cloud_mask=str(mask), edges=edges, shoreline=True)
    assert (_mask(result) == 2).all()
    assert result.polygons == 0
    assert len(geopandas.read_file(result.outputs["shoreline"])) == 0


def test_a_scene_with_nothing_observed_gives_a_valid_empty_result(make_water, model, tmp_path):
    path, _ = make_water(70, 40, unobserved=np.ones((70, 40), bool))
    with pytest.warns(GeounetWarning, match=r"nothing was observed in .*scene.tif"):
        result = run(path, output=tmp_path / "out", probability=True)
    assert (_mask(result) == 255).all()
    assert result.pixels == {"land": 0, "water": 0, "obscured": 0, "not observed": 2800}
    assert result.area_km2["land"] == 0
    assert result.polygons == 0
    assert len(geopandas.read_file(result.outputs["polygons"])) == 0
    assert model.network.body.windows == 0


def test_a_geometry_between_pixel_centres_is_named(make_water, model, tmp_path):
    path, _ = make_water(70, 40)
    with rasterio.open(path) as scene:
        x, y = scene.xy(20, 20)
        box = shapely.box(x + 1, y + 1, x + 3, y + 3)
        geopandas.GeoDataFrame(geometry=[box], crs=scene.crs).to_file(tmp_path / "small.gpkg")
    with pytest.warns(GeounetWarning, match=r"whether .*small.gpkg holds a pixel's centre"):
        run(path, output=tmp_path / "out", geometry=tmp_path / "small.gpkg")


def test_the_profile_accounts_for_all_of_the_time(make_water, model, tmp_path):
    """Each thread's stages, and what is left, add up to the run's time by the clock."""
    path, _ = make_water(150, 130)
    result = run(path, output=tmp_path / "out")
    assert set(result.profile) == {"reader", "predictor", "writer"}
    for stages in result.profile.values():
        assert sum(stages.values()) == pytest.approx(result.seconds["total"], abs=0.01)
        assert min(stages.values()) >= -0.001
    spent = {stage: s for stages in result.profile.values() for stage, s in stages.items()}
    assert all(spent[stage] > 0 for stage in ("read", "predict", "write", "polygons", "finish"))
    assert {"blend", "decide", "trace"} < set(spent)
    assert result.seconds["write"] == pytest.approx(spent["write"] + spent["trace"], abs=0.002)


def test_without_polygons(make_water, model, tmp_path):
    path, _ = make_water(30, 30)
    result = run(path, output=tmp_path / "out", polygons=False)
    assert result.polygons is None
    assert _files(tmp_path / "out") == ["scene_mask.tif"]


def test_layouts_give_one_mask(make_water, model, tmp_path):
    path, expected = make_water(150, 130, tiled=True, blockxsize=64, blockysize=64)
    for driver in ("COG", "VRT"):
        copy = tmp_path / f"{driver}.{'vrt' if driver == 'VRT' else 'tif'}"
        rasterio.shutil.copy(path, copy, driver=driver)
        assert np.array_equal(_mask(run(copy, output=tmp_path / driver)), expected)


# -- run: what it refuses, and what is left --------------------------------------------------------


def test_outputs_that_exist_are_kept_unless_they_may_be_replaced(make_water, model, tmp_path):
    """Invariant 7."""
    path, expected = make_water(30, 30)
    out = tmp_path / "out"
    out.mkdir()
    (out / "scene_mask.tif").write_text("precious")
    with pytest.raises(OutputError, match=r"exist.*scene_mask\.tif.*--overwrite"):
        run(path, output=out)
    assert model.network.body.windows == 0
    assert (out / "scene_mask.tif").read_text() == "precious"
    assert _files(out) == ["scene_mask.tif"]
    result = run(path, output=out, overwrite=True)
    assert np.array_equal(_mask(result), expected)
    again = run(path, output=out, overwrite=True)
    assert np.array_equal(_mask(again), expected)
    assert _files(out) == ["scene_mask.tif", "scene_water.gpkg"]


@pytest.mark.parametrize("output", ["s3://bucket/x", "https://h/x", "/vsis3/bucket/x"])
def test_outputs_go_to_folders_and_not_to_object_storage(output):
    for told in (output, Path(output)):
        with pytest.raises(ConfigError, match=r"output: .*copy them to object storage after; got"):
            RunConfig.of(output=told)


@pytest.mark.parametrize("name", ["", "a/b", "..\\b", "/"])
def test_names_of_outputs_lead_to_no_other_folder(name):
    with pytest.raises(ConfigError, match=r"name: .*not empty and has no / or \\; got"):
        RunConfig.of(name=name)
    assert RunConfig.of(name="a,b é").name == "a,b é"


@pytest.mark.parametrize("output", ["out", "C:/out", "a:b/c", "/data/s3/out", "in/vsis3/x"])
def test_folders_that_only_look_like_object_storage(output):
    assert RunConfig.of(output=output).output == Path(output)


def test_a_folder_in_an_outputs_place_is_refused(make_water, model, tmp_path):
    path, _ = make_water(30, 30)
    (tmp_path / "out" / "scene_water.gpkg").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"scene_water\.gpkg"):
        run(path, output=tmp_path / "out", overwrite=True)
    assert _files(tmp_path / "out") == ["scene_water.gpkg"]


def _fails_at_reading(monkeypatch):
    read = SceneReader.read

    def fail(self, window, *args, **options):
        if window.row > 50:
            raise SceneError("cannot read rows; the file is truncated")
        return read(self, window, *args, **options)

    monkeypatch.setattr(SceneReader, "read", fail)
    return SceneError, "the file is truncated"


def _fails_at_predicting(monkeypatch):
    def fail(self, x):
        raise RuntimeError("the network fell over")

    monkeypatch.setattr(Ratio, "forward", fail)
    return RuntimeError, "the network fell over"


def _fails_at_writing(monkeypatch):
    write = geounet.mask.RasterWriter.write

    def fail(self, rows):
        if self._row > 50:
            raise OutputError("cannot write; the disk is full")
        write(self, rows)

    monkeypatch.setattr(geounet.mask.RasterWriter, "write", fail)
    return OutputError, "the disk is full"


def _fails_at_the_last_strip(monkeypatch):
    write = geounet.mask.RasterWriter.write

    def fail(self, rows):
        if self._row + len(rows) == 150:
            raise OutputError("cannot write; the disk is full")
        write(self, rows)

    monkeypatch.setattr(geounet.mask.RasterWriter, "write", fail)
    return OutputError, "the disk is full"


def _fails_at_tracing(monkeypatch):
    def fail(self, codes, probability):
        raise RuntimeError("the polygons fell over")

    monkeypatch.setattr(pipeline.Outliner, "add", fail)
    return RuntimeError, "the polygons fell over"


def _fails_at_the_polygons(monkeypatch):
    def fail(*_, **__):
        raise OutputError("cannot write polygons; the disk is full")

    monkeypatch.setattr(pipeline, "save", fail)
    return OutputError, "the disk is full"


def _fails_at_finishing(monkeypatch):
    def fail(self):
        raise OSError("no space left on device")

    monkeypatch.setattr(geounet.mask.RasterWriter, "_finish", fail)
    return OutputError, "no space left"


def _is_interrupted(monkeypatch):
    def fail(self, x):
        raise KeyboardInterrupt("Ctrl-C")

    monkeypatch.setattr(Ratio, "forward", fail)
    return KeyboardInterrupt, "Ctrl-C"


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "trouble",
    [
        _fails_at_reading,
        _fails_at_predicting,
        _fails_at_writing,
        _fails_at_the_last_strip,
        _fails_at_tracing,
        _fails_at_the_polygons,
        _fails_at_finishing,
        _is_interrupted,
    ],
)
def test_trouble_is_raised_and_leaves_what_was_there(
    make_water, model, tmp_path, monkeypatch, trouble, old
):
    """Invariants 7 and 8: no half-written output, no staging folder, no error lost, no thread."""
    path, _ = make_water(150, 40)
    out = tmp_path / "out"
    names = ("scene_mask.tif", "scene_water.gpkg", "scene_probability.tif") if old else ()
    out.mkdir()
    for name in names:
        (out / name).write_text(f"old {name}")
    threads = threading.active_count()
    error, message = trouble(monkeypatch)
    with pytest.raises(error, match=message) as raised:
        run(path, output=out, probability=True, overwrite=True)
    assert ".geounet-" not in str(raised.value)
    assert _files(out) == sorted(names)
    assert all((out / name).read_text() == f"old {name}" for name in names)
    assert threading.active_count() == threads


def test_scores_that_are_no_numbers_are_refused(make_water):
    """They compare as false, so that they would pass for land."""

    class Broken(nn.Module):
        def forward(self, x):
            return x[:, :2] / 0 * 0

    with pytest.raises(ModelError, match="ratio gave NaN or infinity on cpu"):
        predict_mask(open_scene(make_water(20, 20)[0]), _model(Broken()), RunConfig(device="cpu"))


def test_a_truncated_file_is_a_scene_error_and_leaves_nothing(
    make_water, model, tmp_path, monkeypatch
):
    """It opens, its first rows can be read, then it ends."""
    path, _ = make_water(600, 300)
    whole = tmp_path / "whole.tif"
    rasterio.shutil.copy(path, whole, driver="COG", blocksize=128, overviews="NONE")
    cut = tmp_path / "cut.tif"
    shutil.copyfile(whole, cut)
    with cut.open("r+b") as file:
        file.truncate(whole.stat().st_size // 2)
    said = r"cannot read rows \d+ to \d+ of .*cut\.tif"
    with pytest.raises(SceneError, match=said):  # a look at nine places finds it
        run(cut, output=tmp_path / "out")
    assert model.network.body.windows == 0
    monkeypatch.setattr(scene_module.Scene, "checked", lambda scene, _: scene)
    with pytest.raises(SceneError, match=said):
        run(cut, output=tmp_path / "out")
    assert model.network.body.windows > 0
    assert not (tmp_path / "out").exists() or _files(tmp_path / "out") == []


def test_an_output_folder_that_cannot_be_made(make_water, model, tmp_path):
    path, _ = make_water(30, 30)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match=r"folder that can be written to; .* is a file.*--output"):
        run(path, output=tmp_path / "file" / "out")
    assert model.network.body.windows == 0
    with pytest.raises(OutputError, match="folder that can be written to"):
        run(path, output=tmp_path / "file")


def test_an_output_folder_that_may_not_be_written_to(make_water, model, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    path, _ = make_water(30, 30)
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(OutputError, match=r"Permission denied.*--output"):
        run(path, output=tmp_path / "out")
    assert model.network.body.windows == 0


def test_a_check_of_outputs_sees_a_folder_that_cannot_be_written_to(make_water, tmp_path):
    """So that a dry run says it, and a real run before it loads anything more."""
    path, _ = make_water(30, 30)
    (tmp_path / "file").write_text("no folder")
    job = _job(path, _model(), output=tmp_path / "file" / "deep" / "out")
    with pytest.raises(OutputError, match="folder that can be written to"):
        check_free(job.outputs)
    fine = _job(path, _model(), output=tmp_path / "new" / "deep" / "out")
    check_free(fine.outputs)
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_an_output_error_and_leaves_nothing(make_water, model, tmp_path):
    """Invariant 7; the polygons fit, the mask's blocks do not."""
    path, _ = make_water(900, 40)
    out = tmp_path / "out"
    with little_space(250_000), pytest.raises(OutputError):
        run(path, output=out)
    assert _files(out) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 0}, r"^tile should .*greater than or equal to 1; got 0"),
        ({"overlap": -1}, r"^overlap should "),
        ({"tile": 16, "overlap": 16}, "got overlap 16, tile 16"),
        ({"blend": "hanning"}, r"^blend should .*'hann'.*got 'hanning'"),
        ({"threshold": 0}, r"^threshold should "),
        ({"threshold": 1.5}, r"^threshold should .*got 1\.5"),
        ({"threshold": float("nan")}, r"^threshold should be a finite number; got nan"),
        ({"min_area": -1}, r"^min_area should "),
        ({"min_area": float("nan")}, r"^min_area should "),
        ({"scale": 0}, r"^scale should "),
        ({"scale": float("nan")}, r"scale"),
        ({"batch": 0}, r"^batch should "),
        ({"connectivity": 6}, r"^connectivity should .*4 or 8.*got 6"),
        ({"format": "shp"}, r"^format should .*'gpkg'.*got 'shp'"),
        ({"device": "tpu9"}, "got 'tpu9'"),
        ({"tiles": 3}, r"no option .tiles.; did you mean .tile."),
    ],
)
def test_parameters_that_break_a_rule(make_water, model, tmp_path, options, message):
    path, _ = make_water(30, 30)
    with pytest.raises(ConfigError, match=message):
        run(path, output=tmp_path / "out", **options)
    assert model.network.body.windows == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("tile", "multiple", "remainder", "hint"),
    [
        (100, 32, 0, "a multiple of 32 pixels; got 100. Try --tile 96 or 128"),
        (10, 32, 0, "got 10. Try --tile 32 or 64"),
        (400, 16, 4, "a multiple of 16 plus 4 pixels; got 400. Try --tile 388 or 404"),
        (3, 16, 4, "got 3. Try --tile 20 or 36"),
    ],
)
def test_a_tile_that_the_network_does_not_take(make_water, tile, multiple, remainder, hint):
    path, _ = make_water(30, 30)
    spec = {"tile_multiple": multiple, "tile_remainder": remainder}
    with pytest.raises(ConfigError, match=hint):
        _job(path, _model(**spec), tile=tile)
    for number in (int(n) for n in hint.split("--tile ")[1].split(" or ")):
        _job(path, _model(**spec), tile=number)


def test_a_scene_that_lacks_a_band(make_raster, model, tmp_path):
    dn = np.ones((3, 20, 20), np.uint16)
    path = make_raster(dn, descriptions=("blue", "green", "red"), scale=1e-4)
    with pytest.raises(SceneError, match=r"ratio needs nir \(B08\); the scene has blue, green"):
        run(path, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_there(make_water, tmp_path):
    path, _ = make_water(20, 20)
    with pytest.raises(ModelError, match="there is no 'mine'"):
        run(path, output=tmp_path / "out", model="mine")


@pytest.mark.parametrize(
    ("dtype", "numbers", "message", "told"),
    [
        ("float32", (500, 3000), r"must lie between 0 and about 1\.5.*median.*--scale \(0\.0001",
         {"scale": 1e-4}),
        ("uint16", (30_000, 60_000), "must lie between 0 and about", {"scale": 1e-5}),
        ("int16", (-900, -100), "must lie between 0 and about", {"scale": 1e-3, "offset": 1}),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_what_is_assumed(make_raster, dtype, numbers, message, told):
    """Invariant 6: never guessed at."""
    dn = np.random.default_rng(1).integers(*numbers, (3, 40, 40)).astype(dtype)
    path = make_raster(dn, descriptions=("green", "red", "nir"))
    with (
        pytest.warns(GeounetWarning, match="nothing in"),
        pytest.raises(SceneError, match=message),
    ):
        _job(path, _model())
    assert pipeline.fit(open_scene(path, **told), _model(), RunConfig()).plan.count


def test_an_offset_left_in_is_suspected(make_raster):
    """Invariant 6: no pixel is darker than 0.1, so Sentinel-2's 1000 is still in."""
    dn = np.random.default_rng(1).integers(1010, 3000, (3, 300, 300)).astype(np.uint16)
    path = make_raster(dn, descriptions=("green", "red", "nir"))
    with pytest.warns(GeounetWarning) as caught:
        _job(path, _model())
    assert "--offset -0.1" in str(caught[-1].message)


def test_a_dark_scene_without_the_offset_is_not_suspected(make_raster):
    dn = np.random.default_rng(1).integers(100, 3000, (3, 300, 300)).astype(np.uint16)
    path = make_raster(dn, descriptions=("green", "red", "nir"))
    with pytest.warns(GeounetWarning) as caught:
        _job(path, _model())
    assert [("says how its numbers" in str(w.message)) for w in caught] == [True]


def test_the_config_is_frozen():
    config = RunConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.tile = 3

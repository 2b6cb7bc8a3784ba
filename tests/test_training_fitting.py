import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from disks import little_space
from matplotlib import image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import geounet
from geounet.errors import ConfigError, GeounetWarning, ModelError, OutputError, SceneError
from geounet.model import InputBand, ModelSpec, Normalisation, load_model, save_model
from geounet.segmenter import build_network
from geounet.training import (
    TrainConfig,
    augment,
    figures,
    fitting,
    gathering,
    judging,
    losses,
    train,
    variation,
)
from geounet.training.loop import LoopConfig

pytestmark = [
    pytest.mark.filterwarnings("ignore::geounet.errors.GeounetWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard"),
]

SAMPLE = Path(__file__).parents[1] / "sample_data"
SMALL = {"decoder": "unet2015", "options": {"features": [8, 16, 32], "padded": True,
                                            "batch_norm": True, "dropout": 0.1}}  # fmt: skip
TINY = {"decoder": "unet2015", "options": {"features": [4], "padded": True, "batch_norm": True}}


@pytest.fixture
def pictures():
    """Asked for where a picture is looked at."""


@pytest.fixture(autouse=True)
def empty_pictures(request, monkeypatch):
    """Elsewhere it stays an empty file: to draw it takes longer than a small training."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(figures, "_save", lambda figure, path: path.write_bytes(b""))


def write(path, array, *, east=0, names=()):
    with rasterio.open(
        path, "w", driver="GTiff", width=array.shape[2], height=array.shape[1], count=len(array),
        dtype=array.dtype, crs="EPSG:32629", transform=Affine(10, 0, east, 0, -10, 4e6),
    ) as file:  # fmt: skip
        file.write(array)
        for i, name in enumerate(names, start=1):
            file.set_band_description(i, name)


def made(folder, name="a", *, east=500000, names=("B03", "B04", "B08"), seed=0, label=None):
    """A lake that is dark in the near infrared."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:96, :80]
    lake = (rows - rng.integers(30, 60)) ** 2 + (cols - 40) ** 2 < 700
    stack = np.stack(
        [np.where(lake, 600, 900), np.where(lake, 400, 1000), np.where(lake, 200, 2500)]
    )
    stack = stack[[min(i, 2) for i in range(len(names))]]
    stack = (stack + rng.normal(0, 150, stack.shape)).clip(50).astype(np.uint16)
    write(folder / f"{name}.tif", stack, east=east, names=names)
    truth = lake.astype(np.uint8)[None] if label is None else np.full((1, 96, 80), label, np.uint8)
    write(folder / f"{name}.label.tif", truth, east=east)


def three_sites(folder):
    for i, name in enumerate("abc"):
        made(folder, name, east=300000 + 50000 * i, seed=i)
    return folder


def config(folder, **options):
    settings = {
        "data": [folder / "scenes"], "output": folder / "run", "architecture": TINY, "window": 32,
        "batch": 2, "steps": 6, "validate_every": 2, "mixed": False, "average": 0.5,
        "schedule": {"warmup": 1}, "optimiser": {"rate": 0.01}, "device": "cpu",
    }  # fmt: skip
    return TrainConfig.of(**{**settings, **options})


def curve(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.usefixtures("pictures")
def test_it_learns_the_sample_scene(tmp_path):
    (tmp_path / "scenes").mkdir()
    shutil.copy(SAMPLE / "scene.tif", tmp_path / "scenes" / "scene.tif")
    shutil.copy(SAMPLE / "truth_mask.tif", tmp_path / "scenes" / "scene.label.tif")
    seen = []
    result = train(
        config(tmp_path, architecture=SMALL, window=64, batch=8, steps=80, validate_every=40,
               average=0.9, augment={"flips": True, "rotation": True, "elastic": 2.0}),
        on_progress=seen.append,
    )  # fmt: skip
    assert result.metrics["mean_iou"] > 0.9  # a constant answer has less than 0.5
    assert (seen[-1].done, seen[-1].total) == (80, 80)
    assert seen[-1].loss < 0.5 * seen[0].loss
    run = geounet.run(SAMPLE / "scene.tif", output=tmp_path / "out", model=str(result.model))
    with rasterio.open(run.outputs["mask"]) as mask, rasterio.open(SAMPLE / "truth_mask.tif") as t:
        found, truth = mask.read(1), t.read(1)
    both = ((found == 1) & (truth == 1)).sum()
    assert both / ((found == 1) | (truth == 1))[truth != 255].sum() > 0.9
    for kind in ("curves", "samples"):
        assert image.imread(result.outputs[kind]).std() > 0.05
    assert list((tmp_path / "run" / "tensorboard").iterdir())


@pytest.mark.usefixtures("pictures")
def test_what_a_training_leaves(tmp_path):
    three_sites(tmp_path / "scenes")
    seen = []
    result = train(config(tmp_path), on_progress=seen.append)
    assert (len(result.train), len(result.valid)) == (2, 1)
    assert set(result.train) | set(result.valid) == {"a", "b", "c"}
    rows = curve(tmp_path / "run")
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert all(row["valid_water_iou"] and row["valid_loss"] for row in rows)
    told = [float(row["valid_mean_iou"]) for row in rows]
    assert [at.score for at in seen] == pytest.approx(told, abs=1e-8)  # each step's own
    model = load_model(result.model)
    best = max(float(row["valid_mean_iou"]) for row in rows)
    assert model.spec.metrics["mean_iou"] == pytest.approx(best, abs=1e-4)
    assert model.spec == result.spec
    assert [band.common_name for band in model.spec.bands] == ["green", "red", "nir"]
    assert model.spec.normalisation.mean[2] < model.spec.normalisation.mean[0] + 3
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "config.json", "curves.png", "last.ckpt", "metrics.csv", "model.safetensors",
        "samples.png", "tensorboard",
    }  # fmt: skip


class Killed(BaseException):
    pass


def train_until(told, step):
    """A training that is killed as it reports a step."""

    def kill(at):
        if at.done == step:
            raise Killed

    with pytest.raises(Killed):
        train(told, on_progress=kill)


def test_a_killed_training_goes_on_with_the_same_curve_and_model(tmp_path):
    three_sites(tmp_path / "scenes")
    options = {"architecture": SMALL, "steps": 8,
               "augment": {"rotation": True, "spectral": True}}  # fmt: skip
    train(config(tmp_path, output=tmp_path / "whole", **options))
    train_until(config(tmp_path, **options), 6)
    left = curve(tmp_path / "run")
    assert [row["step"] for row in left][-1] == "6"  # but the last checkpoint is of step 4
    assert (tmp_path / "run" / "curves.png").exists()
    train(config(tmp_path, memory_mb=0, **options))  # now from the files
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")
    bodies = [load_model(tmp_path / n / "model.safetensors").network.body for n in ("run", "whole")]
    for a, b in zip(*(body.state_dict().values() for body in bodies), strict=True):
        assert a.equal(b)
    again = train(config(tmp_path, **options))  # and once more, with nothing left to do
    assert again.steps == 8
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")


def test_an_unpadded_network_trains_and_runs(tmp_path):
    made(tmp_path / "scenes")
    result = train(
        config(tmp_path, architecture={"decoder": "unet2015", "options": {"features": [4, 8, 8]}},
               window=36, gradient_checkpointing=True, augment={"scales": [0.7, 1.5]})
    )  # fmt: skip
    spec = load_model(result.model).spec
    assert (spec.margin, spec.tile_multiple, spec.tile_remainder) == (44, 8, 4)
    run = geounet.run(
        tmp_path / "scenes" / "a.tif", output=tmp_path / "out", model=str(result.model)
    )
    assert sum(run.pixels.values()) == 96 * 80


def test_a_validation_predicts_what_lies_within_the_margin(tmp_path):
    made(tmp_path / "scenes")
    arch = {"decoder": "unet2015", "options": {"features": [4, 8, 8]}}
    told = config(tmp_path, architecture=arch, window=36)
    data = gathering.gather(told)
    judge = judging.Judge(data, None, told, torch.device("cpu"), None)
    pixels, allowed, logits = next(judge.predictions(build_network(data.spec).eval()))
    assert pixels.shape[-2:] == allowed.shape[-2:] == logits.shape[-2:] == (36, 36)
    own, labels = data.valid[0].source.read(
        44, 44, 36, 36
    )  # the first 36 pixels within a margin of 44
    assert torch.equal(pixels[0], own)
    assert torch.equal(allowed[0], labels)


def test_windows_of_a_large_validation_are_spread_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "_MOST_WINDOWS", 3)
    three_sites(tmp_path / "scenes")
    told = config(tmp_path)
    places = judging.Judge(gathering.gather(told), None, told, torch.device("cpu"), None)._places
    assert len(places) <= 3
    assert {row for _, row, _ in places} == {0, 32, 64}


@pytest.mark.parametrize("features", [[4], [4, 8, 8]])
def test_few_labels_of_a_large_scene_are_judged(tmp_path, monkeypatch, features):
    monkeypatch.setattr(judging, "_MOST_WINDOWS", 1)
    made(tmp_path / "scenes")
    made(tmp_path / "kept", "k", label=255)
    with rasterio.open(tmp_path / "kept" / "k.label.tif", "r+") as file:
        file.write(np.array([[[0, 1]]], np.uint8), window=((71, 72), (40, 42)))
    arch = {"decoder": "unet2015", "options": {"features": features}}
    told = config(tmp_path, valid=[tmp_path / "kept"], architecture=arch, window=36)
    judge = judging.Judge(gathering.gather(told), None, told, torch.device("cpu"), None)
    assert [place[1:] for place in judge._places] == [(36, 36)]
    ((_, allowed, _),) = judge.predictions(build_network(judge._data.spec).eval())
    assert allowed.count_nonzero() == 2


def test_smp_networks_by_name(tmp_path):
    made(tmp_path / "scenes")
    arch = {"decoder": "UnetPlusPlus", "encoder": "resnet18",
            "options": {"encoder_depth": 3, "decoder_channels": [16, 16, 16],
                        "decoder_attention_type": "scse"}}  # fmt: skip
    result = train(config(tmp_path, architecture=arch, steps=1))
    assert load_model(result.model).spec.tile_multiple == 8


def test_a_network_that_cannot_be_built_leaves_nothing(tmp_path):
    made(tmp_path / "scenes")
    with pytest.raises(ModelError, match="cannot build Unett"):
        train(config(tmp_path, architecture={"decoder": "Unett"}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("decoder", "encoder"), [("PAN", "resnet18"), ("DPT", "tu-vit_tiny_patch16_224")]
)
def test_decoders_that_take_not_every_window(tmp_path, decoder, encoder):
    """The scene is smaller than the least window of the one, and no window of the other's."""
    made(tmp_path / "scenes")
    arch = {"decoder": decoder, "encoder": encoder}
    result = train(config(tmp_path, architecture=arch, window=128, batch=2, steps=1))
    run = geounet.run(tmp_path / "scenes" / "a.tif", output=tmp_path, model=str(result.model))
    assert run.pixels["land"] + run.pixels["water"] == 96 * 80


def test_a_batch_that_a_decoder_cannot_learn_from(tmp_path):
    """Its pooling leaves one pixel of one window: nothing to normalise a batch by."""
    made(tmp_path / "scenes")
    arch = {"decoder": "DeepLabV3Plus", "encoder": "resnet18"}
    with pytest.raises(ConfigError, match=r"from 1 windows of 32 x 32 .* a batch of 2 at least"):
        train(config(tmp_path, architecture=arch, batch=1))


@pytest.mark.parametrize("loss", ["bce", "dice", "bce_dice", "focal", "lovasz", "lovasz_hinge",
                                  "cross_entropy", "border", "partial"])  # fmt: skip
def test_every_loss_trains(tmp_path, loss):
    made(tmp_path / "scenes")
    train(config(tmp_path, loss={"name": loss, "weights": {"water": 2.0}}, steps=2))
    assert all(np.isfinite(float(row["loss"])) for row in curve(tmp_path / "run"))


def test_what_is_told_reaches_the_loop(tmp_path):
    made(tmp_path / "scenes")
    told = config(
        tmp_path, steps=7, average=0.25, seed=4, mixed=True, validate_every=23, patience=5,
        optimiser={"name": "sgd", "rate": 0.5, "weight_decay": 0.25, "momentum": 0.75,
                   "clip": 3.0, "accumulate": 2},
        schedule={"name": "plateau", "warmup": 6, "factor": 0.125, "patience": 9},
    )  # fmt: skip
    assert fitting._loop_config(told, gathering.gather(told)) == LoopConfig(
        steps=7, average=0.25, seed=4, mixed=True, validate_every=23, save_every=23,
        report_every=20, patience=5, optimiser=told.optimiser, schedule=told.schedule,
    )  # fmt: skip


WEIGHTED = {"weights": {"water": 3.0}}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"name": "bce"}, losses.binary_cross_entropy),
        ({"name": "dice", "smooth": 9.0}, partial(losses.dice, smooth=9.0)),
        ({"name": "bce_dice", "smooth": 9.0, "dice_weight": 0.9},
         partial(losses.bce_dice, smooth=9.0, dice_weight=0.9)),
        ({"name": "focal", "gamma": 4.0, **WEIGHTED},
         partial(losses.focal, gamma=4.0, weights=[1.0, 3.0])),
        ({"name": "cross_entropy", **WEIGHTED}, partial(losses.cross_entropy, weights=[1.0, 3.0])),
        ({"name": "border", "w0": 50.0, "sigma": 2.0, **WEIGHTED},
         partial(losses.border_cross_entropy, w0=50.0, sigma=2.0, weights=[1.0, 3.0])),
        ({"name": "lovasz"}, losses.lovasz),
        ({"name": "lovasz_hinge"}, losses.lovasz_hinge),
    ],
)  # fmt: skip
def test_what_is_told_reaches_the_loss(tmp_path, told, expected):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 16, 16, generator=generator)
    labels = (torch.rand(2, 16, 16, generator=generator) < 0.3).long()
    loss = fitting._loss(config(tmp_path, loss=told), SimpleNamespace(classes=("land", "water")))
    torch.testing.assert_close(loss(logits, 1 << labels), expected(logits, labels))


def test_what_is_told_reaches_the_augmentation(tmp_path):
    bands = [InputBand(name=n, common_name=n, required=n == "green") for n in ("green", "nir")]
    spec = SimpleNamespace(bands=bands, classes=("land", "water"))
    nothing = {"flips": False, "intensity": 0.0}

    def steps(**told):
        return fitting._augmentation(config(tmp_path, augment={**nothing, **told}), spec).steps[:-1]

    assert steps() == ()
    assert steps(flips=True) == (augment.Dihedral(),)
    assert steps(rotation=True) == (variation.Warp(rotation=True, elastic=0.0),)
    assert steps(elastic=7.0) == (variation.Warp(rotation=False, elastic=7.0),)
    assert steps(intensity=0.5) == (variation.Intensity(0.5),)
    assert steps(band_dropout=0.25) == (variation.BandDropout((1,), 0.25),)
    kinds = {type(step).__name__ for step in steps(spectral=True)}
    assert kinds >= {"Atmosphere", "Clouds", "WaterColour", "SnowCover", "SensorNoise"}


def test_epochs_are_passes_over_the_pixels(tmp_path):
    made(tmp_path / "scenes")
    result = train(config(tmp_path, steps=None, epochs=2, valid_share=0))
    assert result.steps == -(-2 * 96 * 80 // (32 * 32 * 2))
    assert result.metrics == {}
    assert result.valid == ()
    assert load_model(result.model).spec.metrics == {}


def test_a_single_site_is_split_by_rows_and_says_so(tmp_path):
    made(tmp_path / "scenes")
    with pytest.warns(GeounetWarning, match="of one site, a: the last 20%"):
        result = train(config(tmp_path, steps=1))
    assert result.train == result.valid == ("a",)


def test_a_folder_for_validation(tmp_path):
    made(tmp_path / "scenes", "a")
    made(tmp_path / "kept", "v", seed=5)
    with pytest.warns(GeounetWarning, match="share the sites a: the figures will flatter"):
        result = train(config(tmp_path, valid=[tmp_path / "kept"], steps=1))
    assert (result.train, result.valid) == (("a",), ("v",))
    made(tmp_path / "kept", "v", seed=5, east=700000)
    with warnings.catch_warnings():
        warnings.simplefilter("error", GeounetWarning)
        train(
            config(tmp_path, valid=[tmp_path / "kept"], steps=1, output=tmp_path / "apart",
                   scale=1e-4, offset=0.0)
        )  # fmt: skip


def test_folds_validate_on_each_site_once(tmp_path):
    three_sites(tmp_path / "scenes")
    judged = []
    for number in (1, 2, 3):
        data = gathering.gather(config(tmp_path, fold=[number, 3]))
        judged += data.judged
        assert set(data.seen) == {"a", "b", "c"} - {judged[-1]}
    assert sorted(judged) == ["a", "b", "c"]


def test_without_matplotlib_the_model_is_still_made(tmp_path, monkeypatch):
    made(tmp_path / "scenes")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.warns(GeounetWarning, match="complete, but pictures need matplotlib"):
        result = train(config(tmp_path, steps=1))
    assert set(result.outputs) == {"model", "checkpoint", "metrics"}
    assert load_model(result.model)


def test_optional_bands_may_be_missing(tmp_path):
    made(tmp_path / "scenes", "a")
    made(tmp_path / "scenes", "b", east=800000, names=("green", "red", "nir", "swir16"))
    result = train(
        config(tmp_path, bands=["B03", "B08"], optional_bands=["swir16"], valid_share=0,
               augment={"band_dropout": 0.5}, steps=2)
    )  # fmt: skip
    assert [(b.name, b.required) for b in result.spec.bands] == [
        ("B03", True), ("B08", True), ("swir16", False)
    ]  # fmt: skip


def three_classes(folder):
    """A model file of three classes."""
    spec = ModelSpec(
        name="three",
        architecture=TINY,
        bands=[InputBand(name=n, common_name=n) for n in ("green", "red", "nir")],
        classes=("land", "water", "obscured"),
        normalisation=Normalisation(mean=(-3.0,) * 3, std=(1.0,) * 3),
        tile_multiple=2,
        version="7",
        sources=("elsewhere",),
    )
    save_model(folder / "three.safetensors", spec, build_network(spec))
    return folder / "three.safetensors"


def test_reflectance_is_what_the_pixels_bear_out(tmp_path):
    """As in `run`: 1000 that was left in against the file's word is taken out, or refused."""
    rng = np.random.default_rng(0)
    clean = rng.integers(100, 3000, (4, 96, 80))
    names, folder = ("B03", "B04", "B08", "B11"), tmp_path / "scenes"
    folder.mkdir()
    for name, added in (("clean", 0), ("left", 1000)):
        write(folder / f"{name}.tif", (clean + added).astype(np.uint16), names=names)
        write(folder / f"{name}.label.tif", (clean[:1] > 1500).astype(np.uint8))
        with rasterio.open(folder / f"{name}.tif", "r+") as file:
            file.update_tags(SENSOR="sentinel-2", UNITS="reflectance x 10000, no offset")
    with pytest.warns(GeounetWarning, match=r"left.tif: the darkest .* offset -0.1 is taken"):
        data = gathering.gather(config(tmp_path))
    sources = {scene.name: scene.source for scene in (*data.train, *data.valid)}
    whole = [sources[name].read(0, 0, 77, 80)[0] for name in ("clean", "left")]
    torch.testing.assert_close(*whole, atol=1e-6, rtol=0)
    with rasterio.open(folder / "left.tif", "r+") as file:
        file.scales, file.offsets = (1e-4,) * 4, (0.0,) * 4
    with pytest.raises(SceneError, match=r"left.tif: the darkest .* for one alone set those"):
        train(config(tmp_path))
    assert not (tmp_path / "run").exists()
    with pytest.warns(GeounetWarning, match="scale as told, offset from"):
        gathering.gather(config(tmp_path, scale=1e-4))


def test_a_class_that_the_model_lacks_is_unknown(tmp_path):
    made(tmp_path / "scenes")
    path = tmp_path / "scenes" / "a.label.tif"
    with rasterio.open(path, "r+") as file:
        label = file.read(1)
        label[:, :9] = 2
        file.write(label, 1)
    (scene,) = gathering.gather(config(tmp_path, valid_share=0)).train
    sets = np.array([1, 2, 0])[label]  # land, water, nothing known
    np.testing.assert_array_equal(scene.source.read(0, 0, 96, 80)[1], sets)
    with rasterio.open(path, "r+") as file:
        file.write(np.where(label == 2, 3, label), 1)
    with pytest.raises(SceneError, match="holds 3"):
        gathering.gather(config(tmp_path))


def test_starting_from_a_model(tmp_path):
    made(tmp_path / "scenes")
    first = train(config(tmp_path, steps=20, validate_every=20))
    on = {"start": str(first.model), "output": tmp_path / "on", "steps": 1,
          "optimiser": {"rate": 1e-8}}  # fmt: skip
    second = train(config(tmp_path, **on))
    assert second.metrics["mean_iou"] == pytest.approx(first.metrics["mean_iou"], abs=0.02)
    assert second.spec.normalisation == first.spec.normalisation
    three = three_classes(tmp_path)
    with pytest.warns(GeounetWarning, match="never occurs .* may fade"):
        again = train(config(tmp_path, **{**on, "start": str(three), "output": tmp_path / "3"}))
    assert again.spec.classes == ("land", "water", "obscured")
    assert second.spec.sources == first.spec.sources == ("scenes in scenes",)
    assert again.spec.sources == ("elsewhere", "scenes in scenes")
    assert again.spec.version == "0"  # not that of the model at the start


@pytest.mark.parametrize(
    ("told", "what"),
    [
        ({"classes": ["land", "water"]}, "classes"),
        ({"bands": ["B03", "B04"]}, "bands"),
        ({"bands": ["B03"], "optional_bands": ["B08"]}, "bands"),
        ({"architecture": SMALL}, "architecture"),
    ],
)
def test_what_a_start_settles_may_not_be_told_otherwise(tmp_path, told, what):
    made(tmp_path / "scenes")
    with pytest.raises(ConfigError, match=f"got another {what}. Leave it out"):
        train(config(tmp_path, start=str(three_classes(tmp_path)), **told))
    train(config(tmp_path, start=str(three_classes(tmp_path)), steps=1, architecture=TINY,
                 bands=["B03", "B04"], optional_bands=["B08"]))  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 33}, "window must be a multiple of 2 pixels .* got 33. Try 32 or 34"),
        ({"classes": ["land", "water", "obscured"]}, "obscured never does"),
        ({"bands": ["B03", "B11"]}, "every scene must have the bands B03, B11; a has"),
        ({"bands": ["B03"], "optional_bands": ["B11"]}, "B11 does in none"),
        ({"valid_share": 0, "patience": 2}, "need validation"),
        ({"valid_share": 0, "schedule": {"name": "plateau"}}, "need validation"),
        ({"device": "abacus"}, "--device must be"),
    ],
)
def test_settings_that_do_not_fit_the_data(tmp_path, options, message):
    made(tmp_path / "scenes")
    with pytest.raises(ConfigError, match=message):
        train(config(tmp_path, **options))


def test_scenes_without_labelled_pixels_are_left_out(tmp_path):
    made(tmp_path / "scenes", "a")
    made(tmp_path / "scenes", "b", label=255, east=300000)
    made(tmp_path / "kept", "c", east=700000)
    made(tmp_path / "kept", "d", label=255, east=800000)
    said = (
        r"; b \(rows 0 to 96, to learn\), d \(rows 0 .* on\) have none\. What has no labels is left"
    )
    with pytest.warns(GeounetWarning, match=said):
        data = gathering.gather(config(tmp_path, valid=[tmp_path / "kept"]))
    assert (data.seen, data.judged) == (("a",), ("c",))


def test_labels_that_are_all_unknown(tmp_path):
    made(tmp_path / "scenes", "a", label=255)
    made(tmp_path / "kept", "b")
    with pytest.raises(ConfigError, match=r"a \(rows 0 to 96, to learn\) has none"):
        train(config(tmp_path, valid_share=0))
    with pytest.raises(ConfigError, match=r"a \(rows 0 to 96, to validate on\) has none"):
        train(config(tmp_path, data=[tmp_path / "kept"], valid=[tmp_path / "scenes"]))


def test_normalisation_counts_every_site_alike():
    """Two scenes of one site, of log reflectance 0, beside one of another, of 3 and -3."""
    spec = SimpleNamespace(bands=[SimpleNamespace(name="green")])
    surveys = [SimpleNamespace(moments=np.array([[m], [s]])) for m, s in ((0, 0), (0, 0), (0, 9))]
    found = gathering._normalisation(spec, ["x", "x", "y"], surveys)
    assert (found.mean, found.std) == ((0.0,), (pytest.approx(4.5**0.5, abs=1e-4),))


def test_bands_that_differ_between_scenes(tmp_path):
    made(tmp_path / "scenes", "a")
    made(tmp_path / "scenes", "b", names=("B02", "B03", "B04", "B08"))
    with pytest.raises(ConfigError, match="which to use; a has green, red, nir, b blue"):
        train(config(tmp_path))


def test_bands_without_reflectance_are_not_learned_unasked(tmp_path):
    made(tmp_path / "scenes", "a")
    made(tmp_path / "scenes", "b", east=800000, names=("B03", "B04", "B08", "SCL"))
    spec = gathering.gather(config(tmp_path)).spec
    assert [band.name for band in spec.bands] == ["green", "red", "nir"]


def test_an_output_with_another_training(tmp_path):
    made(tmp_path / "scenes")
    train(config(tmp_path, steps=2))
    with pytest.raises(ConfigError, match="another seed: 0, now 1"):
        train(config(tmp_path, steps=2, seed=1))
    with pytest.raises(ConfigError, match=r"another optimiser\.rate: 0\.01, now 0\.02.*start = "):
        train(config(tmp_path, steps=2, optimiser={"rate": 0.02}))
    told = json.loads((tmp_path / "run" / "config.json").read_text())
    assert told["seed"] == 0


def test_a_checkpoint_of_another_architecture(tmp_path):
    made(tmp_path / "scenes")
    train(config(tmp_path, steps=2))
    other = {"architecture": SMALL, "output": tmp_path / "other", "window": 32, "steps": 2}
    train(config(tmp_path, **other))
    shutil.copy(tmp_path / "run" / "last.ckpt", tmp_path / "other" / "last.ckpt")
    with pytest.raises(ModelError, match="same network"):
        train(config(tmp_path, **other))


def test_a_rate_that_makes_the_loss_no_number_names_the_batch(tmp_path):
    made(tmp_path / "scenes")
    wild = {"optimiser": {"name": "sgd", "rate": 1e30, "clip": 1e30}, "steps": 20,
            "validate_every": 1, "schedule": {"name": "constant", "warmup": 0}}  # fmt: skip
    with pytest.raises(ModelError, match=r"must stay a number.* batch of a at row"):
        train(config(tmp_path, **wild))


def test_a_batch_that_does_not_fit_the_gpu(tmp_path, monkeypatch):
    def full(*_):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(fitting, "_train", full)
    with pytest.raises(ConfigError, match=r"batch 2 of window 32 does not\. Lower batch"):
        train(config(tmp_path))


def test_an_output_that_cannot_be_written(tmp_path):
    made(tmp_path / "scenes")
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OutputError, match="a folder that can be written to"):
        train(config(tmp_path))


def test_a_folder_of_tensorboards_that_cannot_be_made(tmp_path):
    made(tmp_path / "scenes")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("a file")
    with pytest.raises(OutputError, match=r"outputs must be writable: .*tensorboard"):
        train(config(tmp_path))


def test_tensorboard_shows_the_curves_once(tmp_path):
    made(tmp_path / "scenes")
    train_until(config(tmp_path), 4)
    train(config(tmp_path))
    found = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    for tag, column in (("train/loss", "loss"), ("valid/mean_iou", "valid_mean_iou")):
        shown = [(event.step, event.value) for event in found.Scalars(tag)]
        rows = [(row["step"], row[column]) for row in curve(tmp_path / "run")]
        np.testing.assert_allclose(shown, np.array(rows, np.float64), rtol=1e-6)


def test_tensorboard_says_at_once_that_its_file_cannot_grow(tmp_path):
    """Not in a thread of its own, whose traceback Python prints beside the one error."""
    board = judging._Board(tmp_path, 0)
    with little_space(32), pytest.raises(OSError, match="File too large"):
        board.show(1, {"loss": 0.5}, "train")


def test_a_full_disk_is_one_error_and_loses_nothing(tmp_path):
    made(tmp_path / "scenes")
    train_until(config(tmp_path), 4)
    for size in (100, 3000):  # not even a text, not the checkpoint
        with little_space(size), pytest.raises(OutputError):
            train(config(tmp_path))
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.startswith(".")]
    assert train(config(tmp_path)).steps == 6


def test_figures_of_a_confusion_table():
    table = np.array([[6, 2, 0], [1, 2, 1], [0, 0, 0]])
    found = judging._figures(table, ("land", "water", "obscured"))
    assert found == pytest.approx(
        {"land_iou": 6 / 9, "water_iou": 2 / 6, "mean_iou": (6 / 9 + 2 / 6) / 2, "accuracy": 8 / 12}
    )


def test_temperature_undoes_what_scales_the_logits():
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 200, 200)
    water = torch.rand(1, 200, 200) < logits.softmax(1)[:, 1]
    allowed = torch.where(water, 2, 1).to(torch.uint8)
    allowed[:, :20] = 0

    class Judge:
        def predictions(self, network):
            yield None, allowed, 2.5 * logits

    assert judging.temperature_of(Judge(), None) == pytest.approx(2.5, rel=0.08)


@pytest.mark.parametrize(("size", "starts"), [(64, [0, 32]), (79, [0, 32]), (81, [0, 32, 64]),
                                              (10, [0])])  # fmt: skip
def test_windows_of_a_validation(size, starts):
    assert list(judging._starts(size, 32)) == starts


def test_two_processes_train_one_model(tmp_path):
    three_sites(tmp_path / "scenes")
    made_config = config(tmp_path, output=tmp_path / "run").model_dump_json()
    script = (
        "import torch; torch.set_num_threads(1)\n"
        "from geounet.training import TrainConfig, train\n"
        f"result = train(TrainConfig.model_validate_json({made_config!r}))\n"
        "assert result.steps == 6, result.steps\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen([sys.executable, "-c", script], env={**shared, "RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(timeout=180) for process in processes] == [0, 0]
    assert len(curve(tmp_path / "run")) == 3
    assert load_model(tmp_path / "run" / "model.safetensors").spec.metrics["mean_iou"] > 0

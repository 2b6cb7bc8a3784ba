"""Make a large scene for the benchmarks out of the sample scene.

    python benchmarks/scene.py scene_10980.tif [--width 10980] [--height 10980]

The sample is mirrored into a mosaic without seams; each copy has its own brightness and noise, so
that the file compresses about as real scenes do. Made, contains no satellite data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

SAMPLE = Path(__file__).parents[1] / "sample_data" / "scene.tif"


def make(path: Path, width: int, height: int, block: int = 512) -> None:
    """Write the scene row of blocks by row of blocks."""
    with rasterio.open(SAMPLE) as source:
        sample, profile, names = source.read(), source.profile, source.descriptions
    profile |= {
        "width": width,
        "height": height,
        "tiled": True,
        "blockxsize": block,
        "blockysize": block,
        "compress": "deflate",
        "predictor": 2,
        "zlevel": 1,
        "interleave": "band",
        "num_threads": "all_cpus",
        "bigtiff": "if_safer",
    }
    with rasterio.open(path, "w", **profile) as target:
        target.descriptions = names
        target.scales, target.offsets = (1e-4,) * 12, (0.0,) * 12
        for row in range(0, height, block):
            rows = np.arange(row, min(row + block, height))
            target.write(_rows(sample, rows, width), window=Window(0, row, width, len(rows)))


def _rows(sample: np.ndarray, rows: np.ndarray, width: int) -> np.ndarray:
    """Some rows of the mosaic: [bands, rows, width]."""
    _, high, wide = sample.shape
    cols = np.arange(width)
    copy = (rows // high)[:, None] * 1000 + cols // wide
    gain = 0.85 + 0.3 * (np.sin(copy * 12.9898) * 43758.5453 % 1.0)
    rng = np.random.default_rng(rows[0])
    picked = sample[:, _mirrored(rows, high)[:, None], _mirrored(cols, wide)]
    noise = rng.normal(0.0, 12.0, picked.shape[1:])
    made = np.clip(picked * gain + noise, 1, 16000).astype(np.uint16)
    made[:, (picked == 0).all(axis=0)] = 0
    return made


def _mirrored(index: np.ndarray, size: int) -> np.ndarray:
    turn = index % (2 * size)
    return np.where(turn < size, turn, 2 * size - 1 - turn)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--width", type=int, default=10980)
    parser.add_argument("--height", type=int, default=10980)
    options = parser.parse_args()
    make(options.path, options.width, options.height)

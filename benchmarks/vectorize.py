"""Polygons of a large mask: geounet against `rasterio.features.shapes`, side by side in one run.

    python benchmarks/vectorize.py [--size 10980] [--repeat 3] [--json PATH]

The mask is smoothed noise; at full size it has about 43,000 polygons. Each measurement is a fresh
process, the methods take turns, and peak memory is what a method adds to the loaded mask. Ratios
are those of processor seconds: all methods use one thread, and these hold on a busy machine too.
`geounet` makes shapely geometries, `geounet_frame` a table with true areas and perimeters too,
`rasterio` the GeoJSON-like dicts that it ends with.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from affine import Affine
from rasterio.features import shapes

from geounet.vectors import polygonize_rows

METHODS = ("geounet", "geounet_frame", "rasterio")
STRIP = 512


def make_mask(size: int, *, seed: int = 7) -> np.ndarray:
    """Noise under two box filters, above its median: uint8[size, size], 1 is water."""
    noise = np.random.default_rng(seed).standard_normal((size, size), dtype=np.float32)
    for width in (7, 10):
        for axis in (0, 1):
            noise = _box(noise, width, axis)
    return (noise > np.median(noise)).astype(np.uint8)


def _box(values: np.ndarray, width: int, axis: int) -> np.ndarray:
    total = np.cumsum(values, axis=axis, dtype=np.float64)
    return (total - np.roll(total, width, axis=axis)).astype(np.float32)


def vectorize(method: str, mask: np.ndarray) -> int:
    """Number of polygons, after making them all."""
    if method == "rasterio":
        return sum(1 for _ in shapes(mask, mask=mask == 1))
    strips = (mask[top : top + STRIP] for top in range(0, len(mask), STRIP))
    polygons = polygonize_rows(strips, mask.shape[1])
    transform = Affine(10, 0, 399960, 0, -10, 4700040)
    if method == "geounet":
        return len(polygons.geometries(transform))
    return len(polygons.to_frame(transform, "EPSG:32631"))


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(method: str, path: str) -> dict[str, float]:
    """Time and memory of one method in this process."""
    mask = np.load(path)
    warm = np.zeros((8, 8), np.uint8)
    warm[2:5, 2:5] = 1
    vectorize(method, warm)  # imports are not what is measured
    before = peak_mib()
    start, spent = time.perf_counter(), time.process_time()
    count = vectorize(method, mask)
    return {
        "seconds": time.perf_counter() - start,
        "processor": time.process_time() - spent,
        "polygons": count,
        "peak_mib": peak_mib() - before,
    }


def run(path: Path, repeat: int) -> dict[str, list[dict[str, float]]]:
    results: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    for _ in range(repeat):
        for method in METHODS:
            command = [sys.executable, __file__, "--child", method, str(path)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[method].append(json.loads(out))
    return results


def summarize(results: dict[str, list[dict[str, float]]], size: int) -> dict[str, object]:
    clock, spent = (
        {m: statistics.median(one[kind] for one in runs) for m, runs in results.items()}
        for kind in ("seconds", "processor")
    )
    return {
        "size": size,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "polygons": {method: runs[0]["polygons"] for method, runs in results.items()},
        "median_seconds": clock,
        "median_processor": spent,
        "peak_mib": {m: max(one["peak_mib"] for one in runs) for m, runs in results.items()},
        "ratio_to_rasterio": {m: spent[m] / spent["rasterio"] for m in METHODS},
        "runs": results,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=10980, help="pixels a side")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each method")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        method, path = arguments.child
        print(json.dumps(measure(method, path)))
    elif arguments.make:
        np.save(arguments.make, make_mask(arguments.size))
    else:
        compare(arguments.size, arguments.repeat, arguments.json)


def compare(size: int, repeat: int, to: Path | None) -> None:
    """Make the mask, measure each method and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.npy"
        make = [sys.executable, __file__, "--make", str(path), "--size", str(size)]
        subprocess.run(make, check=True)  # a child's peak memory begins at its parent's
        summary = summarize(run(path, repeat), size)
    for method in METHODS:
        print(
            f"{method:14} {summary['median_seconds'][method]:7.2f} s  "
            f"{summary['median_processor'][method]:7.2f} s of processor  "
            f"{summary['peak_mib'][method]:7.0f} MiB  "
            f"x{summary['ratio_to_rasterio'][method]:.2f} of rasterio  "
            f"{summary['polygons'][method]} polygons"
        )
    if to:
        to.write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()

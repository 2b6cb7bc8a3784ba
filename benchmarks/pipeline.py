"""Where a run's time and memory go, side by side in one go.

    python benchmarks/scene.py scene.tif
    python benchmarks/pipeline.py scene.tif [--device cuda] [--repeat 3] [--json out.json]

Each line is measured in a process of its own, in turn, so that a machine's moods fall on all alike:

    read      the scene read by rasterio alone, by rows of blocks, all bands
    plain     the same, and green > nir written as a tiled, compressed GeoTIFF
    forward   the same engine's passes over the same windows, already in memory
    mask      the whole run with an engine that costs nothing, without polygons
    free      the same with polygons
    run       the whole run with the model: read, predict, blend, mask, polygons

The engine that costs nothing compares two bands' numbers as they are stored, so that its masks and
polygons are those of real water. Printed are medians and their ratios: mask / plain and
run / forward are what the pipeline adds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

from geounet import pipeline
from geounet.deciding import decide
from geounet.engines import open_engine
from geounet.tiling import Axis
from geounet.tiling import Window as Tiles

if TYPE_CHECKING:
    from collections.abc import Iterator

LINES = ("read", "plain", "forward", "mask", "free", "run")
RATIOS = (("mask", "plain"), ("free", "plain"), ("run", "forward"))
GREEN, NIR = 2, 7


def read(options: argparse.Namespace) -> dict[str, float]:
    """Seconds to read the scene with rasterio alone."""
    start = time.perf_counter()
    with rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS"), rasterio.open(options.scene) as scene:
        for window in windows(scene):
            scene.read(window=window)
    return {"total": time.perf_counter() - start}


def plain(options: argparse.Namespace) -> dict[str, float]:
    """Seconds to read the scene and to write a mask with rasterio alone."""
    start = time.perf_counter()
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": 255, "tiled": True,
               "blockxsize": 512, "blockysize": 512, "compress": "deflate"}  # fmt: skip
    with rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS"), rasterio.open(options.scene) as scene:
        size = {"width": scene.width, "height": scene.height}
        place = {"crs": scene.crs, "transform": scene.transform}
        with rasterio.open(options.output / "m.tif", "w", **profile, **size, **place) as target:
            for window in windows(scene):
                dn = scene.read(window=window)
                target.write((dn[GREEN] > dn[NIR]).view(np.uint8), 1, window=window)
    return {"total": time.perf_counter() - start}


def windows(scene: rasterio.DatasetReader) -> Iterator[Window]:
    """Rows of blocks."""
    step = scene.block_shapes[0][0]
    for row in range(0, scene.height, step):
        yield Window(0, row, scene.width, min(step, scene.height - row))


def forward(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of the engine's passes over as many windows as the scene has, one row repeated."""
    job = pipeline.prepare(options.scene, config(options))
    engine = open_engine(
        job.model, job.inputs, device=job.device, engine=job.engine, batch=options.batch
    )
    cols = job.plan.cols
    width = cols.starts[min(len(cols.starts) - 1, 3)] + cols.tile
    with job.scene.open() as reader:
        tile = reader.read(Tiles(0, 0, job.plan.rows.tile, width), job.inputs.read)
    valid = np.ones_like(tile.valid)
    few = Axis(width, cols.tile, cols.overlap)
    rounds = -(-job.plan.count // len(few.starts))
    for turn in range(rounds + 1):
        if turn == 1:  # the first warms up
            sync(options.device)
            start = time.perf_counter()
        for _ in engine.predict(tile.dn, valid, few):
            pass
    sync(options.device)
    seconds = time.perf_counter() - start
    return {"total": seconds * job.plan.count / (rounds * len(few.starts))}


def sync(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


class FreeEngine:
    """Probabilities of water out of one comparison of two bands' stored numbers."""

    channels = 3

    def __init__(self, *_: object, **__: object) -> None: ...

    def zeros(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape, np.float32)

    def asarray(self, array: np.ndarray) -> np.ndarray:
        return array

    def predict(
        self, dn: np.ndarray, _: np.ndarray, cols: Axis
    ) -> Iterator[tuple[int, np.ndarray]]:
        scores = np.zeros((3, cols.tile, cols.tile), np.float32)
        for i, start in enumerate(cols.starts):
            span = slice(start, start + cols.tile)
            np.copyto(scores[1], dn[GREEN, :, span] > dn[NIR, :, span])
            np.subtract(1, scores[1], out=scores[0])
            yield i, scores

    def decide(
        self, scores: np.ndarray, observed: np.ndarray, threshold: float
    ) -> tuple[np.ndarray, np.ndarray]:
        return decide(scores, observed, ("land", "water", "obscured"), threshold)


def mask(options: argparse.Namespace) -> dict[str, float]:
    """Seconds by stage of a run without polygons whose engine costs nothing."""
    return free(options, polygons=False)


def free(options: argparse.Namespace, *, polygons: bool = True) -> dict[str, float]:
    """Seconds by stage of a run whose engine costs nothing."""
    pipeline.open_ladder = FreeEngine
    return finished(pipeline.prepare(options.scene, config(options, polygons=polygons)))


def run(options: argparse.Namespace) -> dict[str, float]:
    """Seconds by stage of a run."""
    return finished(pipeline.prepare(options.scene, config(options)))


def processor() -> float:
    """Seconds that all threads spent on a processor; other programs hardly change them."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def finished(job: pipeline.Job) -> dict[str, float]:
    result = pipeline.run_job(job)
    return {**result.seconds, "polygons_written": result.polygons or 0, "profile": result.profile}


def config(options: argparse.Namespace, **more: Any) -> pipeline.RunConfig:
    return pipeline.RunConfig.of(
        model=options.model,
        output=options.output,
        device=options.device,
        engine=options.engine,
        batch=options.batch,
        format=options.format,
        overwrite=True,
        **more,
    )


def measure(name: str) -> dict[str, float]:
    """Run one line in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--one", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(options: argparse.Namespace) -> None:
    """Measure the lines in turn, print medians and ratios."""
    records: dict[str, list[dict[str, float]]] = {name: [] for name in options.lines}
    for _ in range(options.repeat):
        for name, found in records.items():
            found.append(measure(name))
            print(name, json.dumps(found[-1]), flush=True)
    total = {k: statistics.median(r["total"] for r in found) for k, found in records.items()}
    peak = {k: max(r["peak_mib"] for r in found) for k, found in records.items()}
    for name, seconds in total.items():
        print(f"{name:<8} {seconds:8.2f} s   peak {peak[name]:6.0f} MiB")
    for above, below in RATIOS:
        if above in total and below in total:
            print(f"{above} / {below}: {total[above] / total[below]:.2f}")
    if options.json:
        machine = {"cores": len(os.sched_getaffinity(0)), "torch": torch.__version__}
        if torch.cuda.is_available():
            machine["card"] = torch.cuda.get_device_name()
        options.json.write_text(json.dumps({"machine": machine, "records": records}, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--format", default="gpkg")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--lines", nargs="+", choices=LINES, default=LINES)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=LINES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        with tempfile.TemporaryDirectory() as folder:
            given.output = Path(folder)
            before = processor()
            record = globals()[given.one](given)
            record["processor"] = processor() - before
        record["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(record))
    else:
        main(given)

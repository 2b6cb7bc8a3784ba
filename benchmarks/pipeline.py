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
polygons are those of real water. Printed are medians, their ratios (mask / plain and run / forward
are what the pipeline adds), and the same of the processor's seconds, which other programs on the
machine hardly change.
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
from contextlib import contextmanager
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
    from collections.abc import Callable, Iterator

    from geounet.engines import Engine

LINES = ("read", "plain", "forward", "mask", "free", "run")
RATIOS = (("mask", "plain"), ("free", "plain"), ("run", "forward"))
GREEN, NIR = 2, 7


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Seconds of a block by the clock, and those that all threads spent on a processor."""
    record: dict[str, float] = {}
    start, spent = time.perf_counter(), processor()
    yield record
    record["total"] = time.perf_counter() - start
    record["processor"] = processor() - spent


def processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def read(options: argparse.Namespace) -> dict[str, float]:
    """The scene read with rasterio alone."""
    with (
        measured() as record,
        rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS"),
        rasterio.open(options.scene) as scene,
    ):
        for window in windows(scene):
            scene.read(window=window)
    return record


def plain(options: argparse.Namespace) -> dict[str, float]:
    """The scene read and a mask written with rasterio alone."""
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": 255, "tiled": True,
               "blockxsize": 512, "blockysize": 512, "compress": "deflate"}  # fmt: skip
    with (
        measured() as record,
        rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS"),
        rasterio.open(options.scene) as scene,
    ):
        profile |= {"width": scene.width, "height": scene.height}
        profile |= {"crs": scene.crs, "transform": scene.transform}
        with rasterio.open(options.output / "mask.tif", "w", **profile) as target:
            for window in windows(scene):
                dn = scene.read(window=window)
                target.write((dn[GREEN] > dn[NIR]).view(np.uint8), 1, window=window)
    return record


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
    plan = job.plan
    with job.scene.open() as reader:
        tile = reader.read(Tiles(0, 0, plan.rows.tile, plan.width), job.inputs.read)
    valid = np.ones_like(tile.valid)
    passes(engine, tile.dn, valid, plan.cols, 1)  # warms up
    with measured() as record:
        passes(engine, tile.dn, valid, plan.cols, len(plan.rows.starts))
        if job.device.startswith("cuda"):
            torch.cuda.synchronize()
    return record


def passes(engine: Engine, dn: np.ndarray, valid: np.ndarray, cols: Axis, rounds: int) -> None:
    for _ in range(rounds):
        for _ in engine.predict(dn, valid, cols):
            pass


class FreeEngine:
    """Probabilities of water out of one comparison of two bands' stored numbers."""

    channels = 3
    behind = 0

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
    ) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        made = decide(scores, observed, ("land", "water", "obscured"), threshold)
        return lambda: made


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


def finished(job: pipeline.Job) -> dict[str, Any]:
    with measured() as record:
        result = pipeline.run_job(job)
    return {**record, "polygons": result.polygons, "profile": result.profile}


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
    middle = {
        name: {kind: statistics.median(r[kind] for r in found) for kind in ("total", "processor")}
        for name, found in records.items()
    }
    for name, seconds in middle.items():
        peak = max(record["peak_mib"] for record in records[name])
        print(
            f"{name:<8} {seconds['total']:8.2f} s {seconds['processor']:8.2f} s of processor   "
            f"peak {peak:6.0f} MiB"
        )
    ratios = {
        f"{above} / {below}": {
            kind: middle[above][kind] / middle[below][kind] for kind in ("total", "processor")
        }
        for above, below in RATIOS
        if above in middle and below in middle
    }
    for name, ratio in ratios.items():
        print(f"{name}: {ratio['total']:.2f}, of processor {ratio['processor']:.2f}")
    if options.json:
        machine = {"cores": len(os.sched_getaffinity(0)), "torch": torch.__version__}
        if torch.cuda.is_available():
            machine["card"] = torch.cuda.get_device_name()
        found = {"machine": machine, "medians": middle, "ratios": ratios, "records": records}
        options.json.write_text(json.dumps(found, indent=2))


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
            record = globals()[given.one](given)
        record["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(record))
    else:
        main(given)

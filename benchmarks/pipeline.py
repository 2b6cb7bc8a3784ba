"""Where a run's time and memory go, side by side in one go.

    python benchmarks/scene.py scene.tif
    python benchmarks/pipeline.py scene.tif [--device cuda] [--repeat 3] [--json out.json]

Each line is measured in a process of its own, in turn, so that a machine's moods fall on all alike:

    read      the scene read by rasterio alone, by rows of blocks, all bands
    forward   the same engine's passes over the same windows, already in memory
    free      the whole run with a network that costs nothing (one 1 x 1 convolution)
    run       the whole run with the model: read, predict, blend, mask, polygons

Printed are medians and their ratios: free / read and run / forward are what the pipeline adds.
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

import numpy as np
import rasterio
import torch
from rasterio.windows import Window
from torch import nn

from geounet import pipeline
from geounet.engines.torch_engine import TorchEngine
from geounet.model import Model, load_model
from geounet.scene import open_scene
from geounet.segmenter import Segmenter
from geounet.tiling import Axis
from geounet.tiling import Window as Tiles

LINES = ("read", "forward", "free", "run")


def read(options: argparse.Namespace) -> dict[str, float]:
    """Seconds to read the scene with rasterio alone."""
    start = time.perf_counter()
    with rasterio.Env(GDAL_NUM_THREADS="ALL_CPUS"), rasterio.open(options.scene) as scene:
        step = scene.block_shapes[0][0]
        for row in range(0, scene.height, step):
            scene.read(window=Window(0, row, scene.width, min(step, scene.height - row)))
    return {"total": time.perf_counter() - start}


def forward(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of the engine's passes over as many windows as the scene has, one row repeated."""
    job = pipeline.prepare(options.scene, config(options))
    engine = TorchEngine(job.model, job.inputs, device=options.device, batch=options.batch)
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


class Free(nn.Module):
    """NDWI-like scores in one 1 x 1 convolution."""

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.scores = nn.Conv2d(bands, classes, 1, bias=False)
        nn.init.zeros_(self.scores.weight)
        with torch.no_grad():
            self.scores.weight[1, 2], self.scores.weight[1, 7] = 4.0, -4.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(x)


def free(options: argparse.Namespace) -> dict[str, float]:
    """Seconds by stage of a run whose network costs nothing."""
    spec = load_model(options.model).spec
    body = Free(len(spec.bands), len(spec.classes))
    model = Model(spec, Segmenter(body, spec.normalisation), "free")
    return finished(pipeline.fit(open_scene(options.scene), model, config(options)))


def run(options: argparse.Namespace) -> dict[str, float]:
    """Seconds by stage of a run."""
    return finished(pipeline.prepare(options.scene, config(options)))


def finished(job: pipeline.Job) -> dict[str, float]:
    result = pipeline.run_job(job)
    return dict(result.seconds) | {"polygons_written": result.polygons or 0}


def config(options: argparse.Namespace) -> pipeline.RunConfig:
    return pipeline.RunConfig.of(
        model=options.model,
        output=options.output,
        device=options.device,
        batch=options.batch,
        format=options.format,
        overwrite=True,
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
    for above, below in (("free", "read"), ("run", "forward")):
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
            record = {"read": read, "forward": forward, "free": free, "run": run}[given.one](given)
        record["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(record))
    else:
        main(given)

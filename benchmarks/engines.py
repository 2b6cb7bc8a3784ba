"""Engines side by side: million pixels a second over the same windows, and how far masks agree.

    python benchmarks/engines.py [scene.tif] [--scenes FOLDER] [--repeat 5] [--json out.json]

Windows are those of one row of the scene, already in memory; without a scene one is made
(`benchmarks/scene.py`). Engines take turns, so that a machine's moods fall on all alike; printed
are medians. What is measured is what a run has: stored integers in, probabilities out.

With --scenes, every scene of a folder is segmented by each engine, and its mask compared with that
of PyTorch: share of the pixels with the same code and, where NAME.label.tif lies beside it (its
band "hand" if there is one, else the first; 0 land, 1 water), IoU of water.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
import torch

from geounet import pipeline
from geounet.engines import choose_engine, open_engine
from geounet.errors import ConfigError
from geounet.model import load_model
from geounet.scene import open_scene
from geounet.tiling import Axis, Window

if TYPE_CHECKING:
    from geounet.model import Model

ENGINES = ("torch", "openvino", "openvino-bf16", "openvino-int8")


def speeds(scene: Path, options: argparse.Namespace) -> dict[str, float]:
    """Median million pixels a second of each engine over one row of windows."""
    config = pipeline.RunConfig(model=options.model, device="cpu", tile=options.tile)
    job = pipeline.prepare(scene, config)
    tile = job.plan.cols.tile
    width = min(tile * options.windows, job.plan.width)
    margin = 2 * job.model.spec.margin
    with job.scene.open() as reader:
        found = reader.read(Window(0, 0, tile + margin, width + margin), job.inputs.read)
    cols, seen = Axis(width, tile, 0), np.ones_like(found.valid)
    spent: dict[str, list[float]] = {}
    engines = {
        name: open_engine(job.model, job.inputs, device="cpu", engine=name, batch=options.batch)
        for name in available(job.model)
    }
    for turn in range(options.repeat + 1):
        for name, engine in engines.items():
            start = time.perf_counter()
            for _ in engine.predict(found.dn, seen, cols):
                pass
            if turn:  # the first warms up
                spent.setdefault(name, []).append(time.perf_counter() - start)
    pixels = len(cols.starts) * tile * tile / 1e6
    return {name: pixels / statistics.median(seconds) for name, seconds in spent.items()}


def available(model: Model) -> list[str]:
    """Engines that this model and this processor have."""
    found = []
    for name in ENGINES:
        with suppress(ConfigError):
            found.append(choose_engine(model, "cpu", name))
    return found


def agreements(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, object]]:
    """Share of each scene's pixels that agree with PyTorch, and IoU where there are labels."""
    model, found = load_model(options.model), {}
    names = available(model)
    for path in sorted(p for p in folder.glob("*.tif") if not p.name.endswith(".label.tif")):
        masks = {name: predict(path, model, name) for name in names}
        seen = masks["torch"] != 255
        record: dict[str, object] = {"pixels": int(seen.sum())}
        truth = labels(path)
        for name, mask in masks.items():
            record[name] = {
                "agreement": float((mask == masks["torch"])[seen].mean()),
                **({} if truth is None else {"iou": iou(mask, truth)}),
            }
        found[path.stem] = record
        print(path.stem, json.dumps(record), flush=True)
    return found


def predict(path: Path, model: Model, engine: str) -> np.ndarray:
    config = pipeline.RunConfig(device="cpu", engine=engine)
    with rasterio.open(path) as file:  # bands are what the file calls them, if it names them all
        bands = file.descriptions if all(file.descriptions) else None
    return pipeline.predict_mask(open_scene(path, bands=bands), model, config)


def labels(path: Path) -> np.ndarray | None:
    label = path.with_name(f"{path.stem}.label.tif")
    if not label.exists():
        return None
    with rasterio.open(label) as file:
        names = file.descriptions
        return file.read(names.index("hand") + 1 if "hand" in names else 1)


def iou(mask: np.ndarray, truth: np.ndarray) -> float | None:
    known = (truth < 2) & (mask != 255)
    either = ((mask == 1) | (truth == 1)) & known
    both = (mask == 1) & (truth == 1) & known
    return float(both.sum() / either.sum()) if either.any() else None


def pooled(found: dict[str, dict[str, object]]) -> dict[str, float]:
    """Share of all scenes' pixels that agree."""
    weights = [record["pixels"] for record in found.values()]
    names = [name for name in next(iter(found.values())) if name != "pixels"]
    return {
        name: float(np.average([r[name]["agreement"] for r in found.values()], weights=weights))
        for name in names
    }


def main(options: argparse.Namespace) -> None:
    result: dict[str, object] = {
        "machine": {"cores": len(os.sched_getaffinity(0)), "processor": platform.machine()},
        "torch": torch.__version__,
    }
    with tempfile.TemporaryDirectory() as folder:
        scene = options.scene or make_scene(Path(folder) / "scene.tif")
        result["mpx_per_second"] = speeds(scene, options)
    for name, speed in result["mpx_per_second"].items():
        ratio = speed / result["mpx_per_second"]["torch"]
        print(f"{name:14} {speed:6.2f} million pixels/s   x{ratio:.2f} of torch")
    if options.scenes:
        result["scenes"] = agreements(options.scenes, options)
        result["agreement"] = pooled(result["scenes"])
        print("agreement over all pixels:", json.dumps(result["agreement"]))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def make_scene(path: Path) -> Path:
    from scene import make  # noqa: PLC0415 - the module beside this one

    make(path, 4096, 512)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene", type=Path, nargs="?")
    parser.add_argument("--model", default="default")
    parser.add_argument("--scenes", type=Path, help="folder of scenes to compare the masks of")
    parser.add_argument("--tile", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path)
    try:
        main(parser.parse_args())
    except ConfigError as error:
        parser.error(str(error))

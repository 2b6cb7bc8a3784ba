"""A run against what people write or install today: same weights, same overlap, same outputs.

    pip install monai
    python benchmarks/scene.py scene.tif
    python benchmarks/peers.py scene.tif [--repeat 3] [--json out.json]

Every line reads the scene, predicts it with the model's own network, blends windows that overlap by
as much, and writes the mask as a tiled GeoTIFF and the water's polygons as GeoPackage. Each is
measured in a process of its own, in turn, so that a machine's moods fall on all alike:

    geounet         geounet.run as it is
    geounet-float32 the same with OpenVINO in float32, where geounet takes bfloat16 by default
    geounet-torch   the same with PyTorch in float32, as the peers have it
    monai           rasterio around MONAI's sliding_window_inference
    loop            rasterio's windows, sums and weights of the whole scene in arrays, one division

Printed are medians by the clock and of the processor (what all threads spent on a core: the one to
trust where other programs run, with OMP_NUM_THREADS=1, as PyTorch's threads spin while they wait),
peak memory, how much slower than geounet each is by both, and the share of pixels whose code is
that of geounet-torch. The peers know no nodata and no obscured class by themselves:
they are given geounet's rules for both.
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
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
import rasterio.features
import torch
from rasterio.windows import Window

import geounet
from geounet.model import load_model, match_bands
from geounet.scene import open_scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LINES = ("geounet", "geounet-float32", "geounet-torch", "monai", "loop")


class Network:
    """The model as a peer calls it: reflectance of the model's bands in, probabilities out."""

    def __init__(self, name: str, scene: geounet.Scene) -> None:
        model = load_model(name)
        self.spec = model.spec
        self.inputs = match_bands(model.spec, scene.bands, scene.radiometry)
        self._segmenter = model.network.to(memory_format=torch.channels_last)
        self._gain = torch.tensor([[float(gain != 0) for gain in self.inputs.gain]])

    def reflectance(self, dn: np.ndarray) -> torch.Tensor:
        """Stored numbers of all bands of the scene as the network's bands: [bands, h, w]."""
        x = dn[[self.inputs.read[place] for place in self.inputs.take]].astype(np.float32)
        x *= np.float32(self.inputs.gain)[:, None, None]
        x += np.float32(self.inputs.bias)[:, None, None]
        return torch.from_numpy(x)

    @torch.no_grad()  # the peers change in place what they are given
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        seen = (x > 0).any(dim=1, keepdim=True)
        logits = self._segmenter(x, self._gain, torch.zeros_like(self._gain), seen)
        return torch.softmax(logits / self.spec.temperature, dim=1)

    def mask(self, scores: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Codes of probabilities [classes, h, w], by geounet's rule."""
        place = {name: scores[i] for i, name in enumerate(self.spec.classes)}
        codes = (place["water"] >= place["land"]).astype(np.uint8)
        if "obscured" in place:
            codes[place["obscured"] > 0.5] = 2
        codes[~seen] = 255
        return codes


def run_geounet(options: argparse.Namespace, **more: object) -> Path:
    result = geounet.run(options.scene, model=options.model, output=options.output, **more)
    return result.outputs["mask"]


def run_monai(options: argparse.Namespace) -> Path:
    from monai.inferers import sliding_window_inference  # noqa: PLC0415 - one line needs it

    scene = open_scene(options.scene)
    network = Network(options.model, scene)
    with rasterio.open(options.scene) as source:
        dn = source.read()
    seen, x = (dn != 0).any(axis=0), network.reflectance(dn)
    del dn
    spec = network.spec
    scores = sliding_window_inference(
        x[None], spec.tile, 2, network, overlap=spec.overlap / spec.tile, mode="gaussian"
    )
    return write(options, network.mask(scores[0].numpy(), seen))


def run_loop(options: argparse.Namespace) -> Path:
    scene = open_scene(options.scene)
    network = Network(options.model, scene)
    spec, (height, width) = network.spec, scene.grid.shape
    ramp = np.hanning(spec.tile + 2)[1:-1].astype(np.float32)
    weight = np.outer(ramp, ramp)
    total = np.zeros((len(spec.classes), height, width), np.float32)
    weights = np.zeros((height, width), np.float32)
    seen = np.zeros((height, width), bool)
    with rasterio.open(options.scene) as source:
        for row in starts(height, spec.tile, spec.overlap):
            for col in starts(width, spec.tile, spec.overlap):
                at = slice(row, row + spec.tile), slice(col, col + spec.tile)
                dn = source.read(window=Window(col, row, spec.tile, spec.tile))
                seen[at] = (dn != 0).any(axis=0)
                scores = network(network.reflectance(dn)[None])[0].numpy()
                total[:, *at] += scores * weight
                weights[at] += weight
    return write(options, network.mask(total / weights, seen))


def starts(size: int, tile: int, overlap: int) -> list[int]:
    return [*range(0, size - tile, tile - overlap), size - tile]


def write(options: argparse.Namespace, codes: np.ndarray) -> Path:
    """The mask as GeoTIFF, the water as GeoPackage, as the libraries' manuals show it."""
    import geopandas as gpd  # noqa: PLC0415 - as late as geounet loads it
    from shapely.geometry import shape  # noqa: PLC0415

    with rasterio.open(options.scene) as source:
        profile = {"crs": source.crs, "transform": source.transform}
    path = options.output / "mask.tif"
    profile |= {"width": codes.shape[1], "height": codes.shape[0], "count": 1, "dtype": "uint8"}
    profile |= {"driver": "GTiff", "tiled": True, "compress": "deflate", "nodata": 255}
    with rasterio.open(path, "w", **profile) as target:
        target.write(codes, 1)
    found = rasterio.features.shapes(codes, mask=codes == 1, transform=profile["transform"])
    frame = gpd.GeoDataFrame(geometry=[shape(made) for made, _ in found], crs=profile["crs"])
    frame["area_m2"] = frame.area
    frame.to_file(options.output / "water.gpkg")
    return path


RUNS: dict[str, Callable[[argparse.Namespace], Path]] = {
    "geounet": run_geounet,
    "geounet-float32": lambda options: run_geounet(options, engine="openvino"),
    "geounet-torch": lambda options: run_geounet(options, engine="torch"),
    "monai": run_monai,
    "loop": run_loop,
}


def measure(name: str, keep: Path) -> dict[str, float]:
    """One line in a process of its own; the mask is kept for the comparison."""
    command = [sys.executable, __file__, *sys.argv[1:], "--one", name, "--keep", str(keep)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        options.output = Path(folder)
        start, spent = time.perf_counter(), time.process_time()
        mask = RUNS[options.one](options)
        record = {
            "seconds": time.perf_counter() - start,
            "processor": time.process_time() - spent,
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        mask.replace(options.keep)
    print(json.dumps(record))


def rows(path: Path) -> Iterator[np.ndarray]:
    with rasterio.open(path) as source:
        for row in range(0, source.height, 1024):
            yield source.read(1, window=Window(0, row, source.width, 1024))


def agreement(path: Path, truth: Path) -> float:
    """Share of the pixels that are the same."""
    same = [(a == b).sum() / a.size * len(a) for a, b in zip(rows(path), rows(truth), strict=True)]
    with rasterio.open(path) as source:
        return float(sum(same) / source.height)


def main(options: argparse.Namespace) -> None:
    """Measure the lines in turn, print medians, ratios and agreement."""
    records: dict[str, list[dict[str, float]]] = {name: [] for name in options.lines}
    with tempfile.TemporaryDirectory() as folder:
        masks = {name: Path(folder) / f"{name}.tif" for name in options.lines}
        for _ in range(options.repeat):
            for name, found in records.items():
                found.append(measure(name, masks[name]))
                print(name, json.dumps(found[-1]), flush=True)
        truth = masks.get("geounet-torch")
        same = {n: agreement(path, truth) for n, path in masks.items()} if truth else {}
    median, spent = (
        {n: statistics.median(r[key] for r in found) for n, found in records.items()}
        for key in ("seconds", "processor")
    )
    peak = {n: max(r["peak_mib"] for r in found) for n, found in records.items()}
    for name, seconds in median.items():
        print(
            f"{name:15} {seconds:8.2f} s  x{seconds / median['geounet']:.2f} of geounet"
            f"  processor {spent[name]:8.2f} s  x{spent[name] / spent['geounet']:.2f}"
            f"  {peak[name]:7.0f} MiB"
            + (f"  {same[name]:.4%} of pixels as geounet-torch" if same else "")
        )
    if options.json:
        machine = {"cores": len(os.sched_getaffinity(0)), "torch": torch.__version__}
        record = {"machine": machine, "median_seconds": median, "processor": spent}
        record["peak_mib"] = peak
        options.json.write_text(
            json.dumps({**record, "agreement": same, "runs": records}, indent=1)
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--lines", nargs="+", choices=LINES, default=None)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=LINES, help=argparse.SUPPRESS)
    parser.add_argument("--keep", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.lines = given.lines or [n for n in LINES if n != "monai" or find_spec("monai")]
    if "geounet" not in given.lines:
        parser.error("--lines must hold geounet, which the others are compared with")
    child(given) if given.one else main(given)

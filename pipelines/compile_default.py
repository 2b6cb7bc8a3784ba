"""Make the networks that OpenVINO runs on the CPU, beside the file of the model that they are for.

    python pipelines/compile_default.py [--model default] [--data DATA --check CHECK]

    default.float-164ee4e6aac7.xml, .bin    in seconds: computes in float32, weights in float16
    default.int8-164ee4e6aac7.xml, .bin     with --data: most of it in 8-bit integers

Names and contents hold the SHA-256 of the model file, and fit no other: run this again whenever the
model file changes. Networks of older model files of the same name are removed.

DATA and CHECK are folders of scenes, NAME.tif; labels beside them are not looked at. Windows of
DATA, some with bands left out, tell the range of every number inside the network. Post-training
quantization (NNCF, ``pip install nncf``) then rounds as much of the network as the masks of CHECK
allow: what is most sensitive, the first and the last convolutions, stays in floats, more and more
of it until the masks agree with those of the float32 network on a share of the pixels. Where no
step reaches that share, there is no 8-bit network.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openvino as ov
import rasterio
import torch

from geounet.deciding import decide
from geounet.engines.openvino_engine import DIGEST_KEY, convert_network
from geounet.evaluate import restrict_bands
from geounet.model import compiled_path, load_model, match_bands, shipped_models
from geounet.scene import open_scene
from geounet.tiling import Window, WindowPlan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from geounet.model import Model
    from geounet.scene import Scene

STEPS = ((0, 0), (1, 1), (5, 1), (5, 3), (5, 5), (5, 7), (5, 11), (5, 21))
"""How many of the first and of the last convolutions stay in float32."""
PATTERNS = (None, None, "6", "4")
"""Bands that a window has: all that there are in half of them, or as many as other sensors have."""
BIT_OF_DATA = 0.3
"""Least share of a window that must be observed."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A window as the network sees it."""

    bands: np.ndarray
    """Normalised, float32 [1, bands, height, width]."""
    observed: np.ndarray
    """bool [height, width]"""


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    path = Path(shipped_models().get(options.model, options.model))
    model = load_model(path)
    network = convert_network(model)
    for old in (
        *path.parent.glob(f"{path.stem}.float-*"),
        *path.parent.glob(f"{path.stem}.int8-*"),
    ):
        old.unlink()
    save(network, model, compiled_path(path, model.digest, "float"))
    if options.data:
        quantized(model, network, compiled_path(path, model.digest, "int8"), options)


def quantized(model: Model, network: ov.Model, path: Path, options: argparse.Namespace) -> None:
    """Take the first step whose masks agree well enough."""
    inputs = list(calibration(model, options.data, options))
    checks = [sample for scene in scenes(options.check) for sample in whole(model, scene)]
    print(f"{len(inputs)} windows to calibrate, {len(checks)} to check", file=sys.stderr)
    for first, last in STEPS[options.begin :]:
        save(quantize(network, inputs, first, last), model, path)
        share = agreement(model, network, ov.Core().read_model(path), checks)
        found = {"float_first": first, "float_last": last, "agreement": round(share, 6)}
        print(json.dumps(found), flush=True)
        if share >= options.agreement:
            return
    for part in (path, path.with_suffix(".bin")):
        part.unlink()
    sys.exit(f"no 8-bit network agrees on {options.agreement:.2%} of the pixels: none was kept")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of scenes to calibrate 8 bits with")
    parser.add_argument("--check", type=Path, help="folder of scenes to judge 8 bits by")
    parser.add_argument("--model", default="default", help="a model's name or file")
    parser.add_argument("--begin", type=int, default=0, help="steps to leave out, of 8")
    parser.add_argument("--agreement", type=float, default=0.999, help="least share of pixels")
    parser.add_argument("--windows", type=int, default=200, help="windows to calibrate with")
    parser.add_argument("--size", type=int, default=256, help="side of these windows in pixels")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.data and not options.check:
        parser.error("--data needs --check: scenes to judge the 8-bit network by")
    return options


def scenes(folder: Path) -> list[Scene]:
    """Scenes of a folder. Their bands are what the files call them, whatever else is said."""
    paths = sorted(p for p in folder.glob("*.tif") if not p.name.endswith(".label.tif"))
    return [open_scene(path, bands=named(path)) for path in paths]


def named(path: Path) -> tuple[str, ...] | None:
    """Names of all bands, if the file has them all."""
    with rasterio.open(path) as file:
        return file.descriptions if all(file.descriptions) else None


def calibration(model: Model, folder: Path, options: argparse.Namespace) -> Iterator[Sample]:
    """Random windows, scene after scene, so that a large scene counts no more than a small one."""
    draw = random.Random(options.seed)  # noqa: S311 - nothing secret
    found, made = scenes(folder), 0
    for turn in range(20 * options.windows):
        if made == options.windows:
            return
        scene = found[turn % len(found)]
        height, width = (min(options.size, side) for side in scene.grid.shape)
        top, left = (
            draw.randint(0, scene.grid.height - height),
            draw.randint(0, scene.grid.width - width),
        )
        sample = read(
            model, restricted(scene, draw.choice(PATTERNS)), Window(top, left, height, width)
        )
        if sample.observed.mean() >= BIT_OF_DATA:
            made += 1
            yield sample


def restricted(scene: Scene, pattern: str | None) -> Scene:
    """The scene with a pattern's bands only, if it has them all."""
    has_six = {"blue", "green", "red", "swir16", "swir22"} <= set(scene.bands)
    if pattern is None or (pattern == "6" and not has_six):
        return scene
    return restrict_bands(scene, pattern)


def whole(model: Model, scene: Scene) -> Iterator[Sample]:
    """All of a scene in windows of the model's own size."""
    plan = WindowPlan(*scene.grid.shape, model.spec.tile, 0)
    for top in plan.rows.starts:
        for left in plan.cols.starts:
            sample = read(model, scene, Window(top, left, plan.rows.tile, plan.cols.tile))
            if sample.observed.any():
                yield sample


@torch.inference_mode()
def read(model: Model, scene: Scene, window: Window) -> Sample:
    """A window's network input, padded with pixels that were not observed."""
    inputs = match_bands(model.spec, scene.bands, scene.radiometry)
    with scene.open() as reader:
        tile = reader.read(window, inputs.read)
    pad = [(0, -side % model.spec.tile_multiple) for side in tile.valid.shape]
    dn, valid = np.pad(tile.dn, ((0, 0), *pad)), np.pad(tile.valid, pad)
    bands = model.network.normalise(
        torch.from_numpy(dn[list(inputs.take)].astype(np.float32))[None],
        torch.tensor([inputs.gain]),
        torch.tensor([inputs.bias]),
        torch.from_numpy(valid)[None, None],
    )
    return Sample(bands.numpy(), valid)


def quantize(network: ov.Model, inputs: list[Sample], first: int, last: int) -> ov.Model:
    """Quantize all convolutions but some of the first and of the last.

    Sums and enlargements stay in float32 too: rounding them costs agreement and gains no time.
    Ranges are those that lose least by the numbers' histogram; the largest number seen is a poor
    bound for logarithms of reflectance, which have long tails over dark water.
    """
    import nncf  # noqa: PLC0415 - only 8 bits need it
    from nncf.quantization.advanced_parameters import (  # noqa: PLC0415
        AdvancedQuantizationParameters,
    )
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet  # noqa: PLC0415

    nncf.set_log_level(logging.ERROR)
    names = [
        o.get_friendly_name()
        for o in network.get_ordered_ops()
        if "Convolution" in o.get_type_name()
    ]
    return nncf.quantize(
        network.clone(),
        nncf.Dataset(inputs, lambda sample: sample.bands),
        subset_size=len(inputs),
        ignored_scope=nncf.IgnoredScope(
            names=sorted({*names[:first], *names[len(names) - last :]}),
            types=["Add", "Interpolate"],
            validate=False,
        ),
        advanced_parameters=AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM
        ),
    )


def agreement(model: Model, network: ov.Model, made: ov.Model, checks: list[Sample]) -> float:
    """Share of observed pixels that get the same code from both networks."""
    same = total = 0
    core, settings = ov.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    both = [core.compile_model(which, "CPU", settings) for which in (network, made)]
    for sample in checks:
        one, other = (codes(model, run(sample.bands)[0], sample.observed) for run in both)
        same += int(((one == other) & sample.observed).sum())
        total += int(sample.observed.sum())
    return same / total


def codes(model: Model, logits: np.ndarray, observed: np.ndarray) -> np.ndarray:
    scores = np.exp((logits[0] - logits[0].max(axis=0)) / model.spec.temperature)
    scores /= scores.sum(axis=0)
    return decide(scores, observed, model.spec.classes)[0]


def save(network: ov.Model, model: Model, path: Path) -> None:
    """Write the network and the model file's SHA-256; floats are rounded to float16."""
    made = network.clone()
    made.set_rt_info(model.digest, DIGEST_KEY)
    ov.save_model(made, path)


if __name__ == "__main__":
    main()

"""Make the networks that OpenVINO runs on the CPU, beside the file of the model that they are for.

    python pipelines/compile_default.py [--model default] [--check CHECK] [--data DATA]

    default.float-164ee4e6aac7.xml, .bin    in seconds: computes in floats, weights in float16
    default.int8-164ee4e6aac7.xml, .bin     with --data: coarse maps in 8-bit integers

Names and contents hold the SHA-256 of the model file, and fit no other: run this again whenever the
model file changes. Networks of older model files of the same name are removed.

CHECK is a folder of scenes, NAME.tif, with hand labels NAME.label.tif beside them where there are
some. With it, the network is run in bfloat16 too, and may compute in it from then on if enough
pixels get the code that PyTorch gives them in float32, and water's IoU loses little.

DATA is a folder of scenes for 8 bits; labels beside them are not looked at. Windows of it, some
with bands left out, tell the range of every number inside the network. Post-training quantization
(NNCF, ``pip install nncf``) then rounds its coarse maps: fine ones, next to the result, are what
masks are sensitive to, and stay in floats from finer to coarser until the masks of CHECK agree.
Where none do, there is no 8-bit network. NNCF, unlike geounet, reports its use to its makers
unless ``opt_in_out --opt_out`` was run once.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
import torch

from geounet.engines.openvino_engine import DIGEST_KEY, convert_network, has_bfloat16
from geounet.engines.silent_openvino import ov
from geounet.evaluate import confusion, restrict_bands
from geounet.model import BFLOAT16_NOTE, compiled_path, load_model, match_bands, shipped_models
from geounet.pipeline import RunConfig, predict_mask
from geounet.scene import open_scene
from geounet.tiling import Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from geounet.model import CompiledKind, Model
    from geounet.scene import Scene

STEPS = (1, 2, 4, 8, 16)
"""Maps this much coarser than the scene, and coarser ones, are computed in 8 bits: one try each."""
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


@dataclass(frozen=True)
class Verdict:
    """How well masks of one engine agree with PyTorch's in float32."""

    agreement: float
    """Share of all observed pixels that have the same code."""
    iou_loss: float
    """By how much water's IoU with the hand labels fell, on the scene where it fell most."""


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
    save(network, model, "float")
    if not options.check:
        return
    checks = scenes(options.check)
    expected = masks(model, checks, "torch")
    if has_bfloat16():
        verdict = judge("openvino-bf16", model, checks, expected)
        if passes(verdict, options):
            save(network, model, "float", {BFLOAT16_NOTE: f"{verdict.agreement:.6f}"})
    else:
        print("this processor has no bfloat16: it was not tried", file=sys.stderr)
    if options.data:
        quantized(model, network, checks, expected, options)


def quantized(
    model: Model,
    network: ov.Model,
    checks: list[Scene],
    expected: list[np.ndarray],
    options: argparse.Namespace,
) -> None:
    """Take the first step whose masks agree well enough."""
    inputs = list(calibration(model, options.data, options))
    for coarse in STEPS[options.begin :]:
        print(f"8 bits for maps {coarse} times coarser, {len(inputs)} windows", file=sys.stderr)
        path = save(quantize(network, inputs, coarse), model, "int8")
        if passes(judge("openvino-int8", model, checks, expected), options):
            return
    for part in (path, path.with_suffix(".bin")):
        part.unlink()
    sys.exit(f"no 8-bit network agrees on {options.agreement:.2%} of the pixels: none was kept")


def judge(engine: str, model: Model, checks: list[Scene], expected: list[np.ndarray]) -> Verdict:
    """Compare an engine's masks of some scenes with those expected of them, and with labels."""
    same, total, losses = 0, 0, [0.0]
    for scene, truth, made in zip(checks, expected, masks(model, checks, engine), strict=True):
        seen = truth != 255
        same += int((made == truth)[seen].sum())
        total += int(seen.sum())
        if (hand := hand_label(scene)) is not None:
            losses.append(confusion(hand, truth).iou - confusion(hand, made).iou)
    verdict = Verdict(round(same / total, 6), round(max(losses), 6))
    print(json.dumps({"engine": engine, **asdict(verdict)}), flush=True)
    return verdict


def passes(verdict: Verdict, options: argparse.Namespace) -> bool:
    return verdict.agreement >= options.agreement and verdict.iou_loss < options.iou_loss


def masks(model: Model, checks: list[Scene], engine: str) -> list[np.ndarray]:
    config = RunConfig.of(device="cpu", engine=engine)
    return [predict_mask(scene, model, config) for scene in checks]


def hand_label(scene: Scene) -> np.ndarray | None:
    """The hand label beside a scene, if there is one."""
    path = Path(scene.uri)
    path = path.with_name(f"{path.stem}.label.tif")
    if not path.is_file():
        return None
    with rasterio.open(path) as file:
        return (
            file.read(file.descriptions.index("hand") + 1) if "hand" in file.descriptions else None
        )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of scenes to calibrate 8 bits with")
    parser.add_argument("--check", type=Path, help="folder of scenes to judge fewer bits by")
    parser.add_argument("--model", default="default", help="a model's name or file")
    parser.add_argument("--begin", type=int, default=0, help="steps to leave out, of 5")
    parser.add_argument("--agreement", type=float, default=0.999, help="least share of pixels")
    parser.add_argument("--iou-loss", type=float, default=0.002, help="greatest loss of IoU")
    parser.add_argument("--windows", type=int, default=120, help="windows to calibrate with")
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


def quantize(network: ov.Model, inputs: list[Sample], coarse: int) -> ov.Model:
    """Quantize the convolutions that give maps so much coarser than the input, or coarser still.

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
    return nncf.quantize(
        network.clone(),
        nncf.Dataset(inputs, lambda sample: sample.bands),
        subset_size=len(inputs),
        ignored_scope=nncf.IgnoredScope(
            names=finer_convolutions(network, coarse),
            types=["Add", "Interpolate"],
            validate=False,
        ),
        advanced_parameters=AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM
        ),
    )


def finer_convolutions(network: ov.Model, coarse: int) -> list[str]:
    """Names of the convolutions whose maps are less than so many times coarser than the input."""
    side = 1024
    sized = network.clone()
    sized.reshape([1, network.input(0).get_partial_shape()[1].get_length(), side, side])
    return [
        node.get_friendly_name()
        for node in sized.get_ordered_ops()
        if "Convolution" in node.get_type_name()
        and coarse * list(node.output(0).get_shape())[2] > side
    ]


def save(
    network: ov.Model, model: Model, kind: CompiledKind, notes: dict[str, str] | None = None
) -> Path:
    """Write the network with the model file's SHA-256; floats are rounded to float16."""
    path = compiled_path(model.source, model.digest, kind)
    made = network.clone()
    made.set_rt_info(model.digest, DIGEST_KEY)
    for name, value in (notes or {}).items():
        made.set_rt_info(value, [DIGEST_KEY[0], name])
    ov.save_model(made, path)
    return path


if __name__ == "__main__":
    main()

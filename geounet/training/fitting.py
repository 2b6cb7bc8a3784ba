"""Train a model as a `TrainConfig` says: from folders of scenes to a model file and its figures.

Outputs::

    output/
    ├── model.safetensors    the best model so far; `geounet run --model` takes it
    ├── last.ckpt            all that is needed to go on as if nothing had happened
    ├── config.json          what the training was told
    ├── metrics.csv          the curves, and `curves.png`
    ├── samples.png          predictions beside their labels
    └── tensorboard/         the curves again, where tensorboard is installed
"""

from __future__ import annotations

import csv
import json
import math
import os
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, distributed

from geounet.errors import ConfigError, GeounetWarning, OutputError, SceneError
from geounet.labels import UNKNOWN, LabelRules, Pair, find_pairs, open_labels
from geounet.model import (
    InputBand,
    ModelSpec,
    Normalisation,
    Segmenter,
    build_network,
    load_model,
    match_bands,
    resolve_device,
    save_model,
)
from geounet.networks import Geometry, unet_geometry
from geounet.sensors import SENSORS, common_name
from geounet.tiling import Window
from geounet.training.augment import Dihedral, Sequential, spectral_augmentations
from geounet.training.dataset import LabelledScene, WindowSampler
from geounet.training.figures import Sample, draw_curves, draw_samples
from geounet.training.loop import LoopConfig, Progress, Trainer, checkpoint_gradients, rank
from geounet.training.losses import (
    LOSSES,
    PartialDice,
    PartialLabelLoss,
    SingleLabelLoss,
    class_labels,
)
from geounet.training.scenes import SceneSource, Survey, keep_back, sites_of, survey
from geounet.training.variation import BandDropout, Intensity, Restrict, Warp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from geounet.scene import Scene
    from geounet.training.augment import Augmentation
    from geounet.training.config import TrainConfig
    from geounet.training.loop import Loss

__all__ = ["TrainProgress", "TrainResult", "train"]

_FREE = {"output", "device", "memory_mb", "data", "valid"}
"""What may differ when a training goes on; scenes are compared by name instead of by folder."""
_MOST_WINDOWS = 256
"""Windows of a validation at most, spread evenly."""


@dataclass(frozen=True)
class TrainProgress:
    """How far a training is."""

    done: int
    """Steps taken."""
    total: int
    """Steps in all."""
    loss: float
    """Mean since the last report."""
    rate: float
    seconds: float
    score: float | None
    """Mean IoU of the classes at the last validation."""
    best: float | None
    """The best one."""

    @property
    def line(self) -> str:
        """For people to read."""
        judged = "" if self.score is None else f", IoU {self.score:.4f} (best {self.best:.4f})"
        return f"step {self.done} of {self.total}: loss {self.loss:.4f}{judged}"


@dataclass(frozen=True)
class TrainResult:
    """What a training made."""

    model: Path
    spec: ModelSpec
    steps: int
    """Steps taken."""
    stopped_early: bool
    metrics: dict[str, float]
    """Of the model that was kept, on what it was validated on; empty without validation."""
    train: tuple[str, ...]
    """Scenes that it learned."""
    valid: tuple[str, ...]
    """Scenes that it was validated on."""
    seconds: float
    outputs: dict[str, Path]
    """Files by kind: ``model``, ``checkpoint``, ``metrics``, ``curves``, ``samples``."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.spec.name,
            "steps": self.steps,
            "stopped_early": self.stopped_early,
            "metrics": self.metrics,
            "temperature": self.spec.temperature,
            "train": list(self.train),
            "valid": list(self.valid),
            "seconds": self.seconds,
            "outputs": {kind: str(path) for kind, path in self.outputs.items()},
        }


def train(
    config: TrainConfig, *, on_progress: Callable[[TrainProgress], None] | None = None
) -> TrainResult:
    """Train a model, or go on with a training that was interrupted in the same folder.

    Under ``torchrun`` each process takes a GPU of its own, and they train one model together.

    Args:
        config: what to do.
        on_progress: called now and then.

    Raises:
        ConfigError: the settings contradict each other or the data: no labelled scene or pixel, a
            class that never occurs, bands that differ between scenes, other settings than those
            that `output` was begun with.
        SceneError: a scene or its labels cannot be read, or do not lie on each other.
        ModelError: the network cannot be built, the loss is no longer a number (the message names
            the batch; the last checkpoint is kept), or the checkpoint is of another network.
        OutputError: an output cannot be written.
    """
    device = resolve_device(config.device)
    try:
        with _joined_processes(device) as device:
            return _train(config, device, on_progress)
    except torch.cuda.OutOfMemoryError as error:
        raise ConfigError(
            f"a batch must fit the memory of {device}; batch {config.batch} of window "
            f"{config.window} does not. Lower batch (and raise optimiser.accumulate), lower "
            f"window, or set gradient_checkpointing."
        ) from error


def _train(
    config: TrainConfig,
    device: torch.device,
    on_progress: Callable[[TrainProgress], None] | None,
) -> TrainResult:
    torch.manual_seed(config.seed)
    data = _gather(config)
    _check_same(config, data)
    network = _network(config, data)
    diary = _Diary(config.output)
    judge = _Judge(data, _loss(config), config, device, diary)
    trainer = Trainer(
        network,
        _sampler(config, data),
        judge.loss,
        _loop_config(config, data),
        augment=_augmentation(config, data.spec),
        device=device,
        checkpoint=config.output / "last.ckpt",
        validate=judge if data.valid else None,
        on_best=lambda best: save_model(_model_path(config), data.spec, best),
        ahead=2 if device.type == "cuda" else 0,
    )
    if config.gradient_checkpointing:
        checkpoint_gradients(network.body)
    if (config.output / "last.ckpt").exists():
        trainer.resume(config.output / "last.ckpt")
    diary.begin(trainer.step)

    def report(progress: Progress) -> None:
        diary.note(progress)
        if rank() == 0 and on_progress:
            on_progress(_progress(progress, trainer, diary, data))

    trainer.run(report)
    return _finish(config, data, trainer, judge, diary)


def _progress(at: Progress, trainer: Trainer, diary: _Diary, data: _Data) -> TrainProgress:
    best = trainer.best if math.isfinite(trainer.best) else None
    return TrainProgress(
        at.step, data.steps, at.loss, at.rate, at.seconds, diary.last("mean_iou"), best
    )


def _model_path(config: TrainConfig) -> Path:
    return config.output / "model.safetensors"


@contextmanager
def _joined_processes(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that torchrun started, if it did; the device of this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or distributed.is_initialized():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


@dataclass(frozen=True, eq=False)
class _Data:
    """The scenes, read once, and the model's contract that follows from them."""

    spec: ModelSpec
    train: tuple[LabelledScene, ...]
    valid: tuple[tuple[str, SceneSource, tuple[bool, ...]], ...]
    """Name, source and bands present of each scene that is validated on."""
    steps: int
    seen: tuple[str, ...]
    """Scenes that are learned, by name."""


def _gather(config: TrainConfig) -> _Data:
    pairs = find_pairs(config.data, scale=config.scale, offset=config.offset)
    valid = find_pairs(config.valid, scale=config.scale, offset=config.offset)
    spec = _contract(config, [p.scene for p in (*pairs, *valid)])
    _check_window(config, spec)
    sites = sites_of([p.scene for p in pairs], config.site_pattern)
    parts = _split(config, pairs, valid, sites)
    sources = [(p, _source(config, spec, p.pair, p.area)) for p in parts]
    _hold([source for _, source in sources], config.memory_mb << 20)
    learned = [(p, source) for p, source in sources if not p.valid]
    surveys = [survey(source, len(spec.classes), 1e-3) for _, source in learned]
    _check_classes(spec, learned, surveys)
    if config.start is None:
        normalisation = _normalisation(spec, [p.site for p, _ in learned], surveys)
        spec = spec.model_copy(update={"normalisation": normalisation})
    scenes = tuple(
        LabelledScene(p.pair.name, p.site, source, _present(spec, p.pair), anchors=found.anchors)
        for (p, source), found in zip(learned, surveys, strict=True)
    )
    return _Data(
        spec,
        scenes,
        tuple((p.pair.name, s, _present(spec, p.pair)) for p, s in sources if p.valid),
        _steps(config, [source for _, source in learned]),
        tuple(sorted({scene.name for scene in scenes})),
    )


@dataclass(frozen=True)
class _Part:
    """A scene, or some rows of it, that is learned or validated on."""

    pair: Pair
    site: str
    area: Window
    valid: bool


def _split(
    config: TrainConfig, pairs: Sequence[Pair], valid: Sequence[Pair], sites: Sequence[str]
) -> list[_Part]:
    """Keep whole sites back; of a single site the last rows of its scenes."""
    whole = [Window(0, 0, *p.scene.grid.shape) for p in pairs]
    kept = frozenset() if valid else keep_back(sites, config.valid_share, config.seed)
    parts = [
        _Part(pair, site, area, site in kept)
        for pair, site, area in zip(pairs, sites, whole, strict=True)
    ]
    _warn_of_shared_sites(config, pairs, valid)
    parts += [
        _Part(pair, pair.name, Window(0, 0, *pair.scene.grid.shape), valid=True) for pair in valid
    ]
    if any(part.valid for part in parts) or config.valid_share == 0:
        return parts
    warnings.warn(
        f"all scenes are of one site, {sites[0]}: the last {config.valid_share:.0%} of their rows "
        f"are kept for validation, whose figures will flatter the model. Name other places with "
        f"valid.",
        GeounetWarning,
        stacklevel=4,
    )
    return [half for part in parts for half in _halves(part, config.valid_share)]


def _warn_of_shared_sites(
    config: TrainConfig, pairs: Sequence[Pair], valid: Sequence[Pair]
) -> None:
    sites = sites_of([p.scene for p in (*pairs, *valid)], config.site_pattern)
    shared = set(sites[: len(pairs)]) & set(sites[len(pairs) :])
    if shared:
        warnings.warn(
            f"scenes to learn and to validate on share the sites {', '.join(sorted(shared))}: the "
            f"figures will flatter the model.",
            GeounetWarning,
            stacklevel=5,
        )


def _halves(part: _Part, share: float) -> tuple[_Part, _Part]:
    height, width = part.area.height, part.area.width
    cut = max(1, min(height - 1, round((1 - share) * height)))
    return (
        _Part(part.pair, part.site, Window(0, 0, cut, width), valid=False),
        _Part(part.pair, part.site, Window(cut, 0, height - cut, width), valid=True),
    )


def _source(config: TrainConfig, spec: ModelSpec, pair: Pair, area: Window) -> SceneSource:
    rules = LabelRules(
        classes=config.classes,
        values={str(name): values for name, values in config.label_values.items()},
        ignored=config.ignore_values,
        outside=config.outside,
        band=config.label_band,
    )
    try:
        inputs = match_bands(spec, pair.scene.bands, pair.scene.radiometry)
    except SceneError as error:
        raise ConfigError(
            f"every scene must have the bands "
            f"{', '.join(b.name for b in spec.bands if b.required)}; {pair.name} has "
            f"{', '.join(pair.scene.bands)}. Name fewer bands, or some as optional_bands."
        ) from error
    return SceneSource(pair.scene, inputs, open_labels(pair, rules), area=area, margin=spec.margin)


def _present(spec: ModelSpec, pair: Pair) -> tuple[bool, ...]:
    return tuple(g > 0 for g in match_bands(spec, pair.scene.bands, pair.scene.radiometry).gain)


def _hold(sources: Sequence[SceneSource], budget: int) -> None:
    for source in sources:
        if source.bytes <= budget:
            source.hold()
            budget -= source.bytes


def _contract(config: TrainConfig, scenes: Sequence[Scene]) -> ModelSpec:
    """The model's contract, its normalisation still open."""
    if config.start is not None:
        return _contract_of_start(config, config.start)
    bands = _bands(config, [scene.bands for scene in scenes])
    geometry = _geometry(config)
    return ModelSpec(
        name=config.name,
        architecture=config.architecture,
        bands=bands,
        classes=config.classes,
        normalisation=Normalisation(mean=(0.0,) * len(bands), std=(1.0,) * len(bands)),
        tile=config.window,
        overlap=config.window // 4,
        gsd=_pixel_sizes(config, scenes),
        licence=config.licence,
        sources=tuple(sorted({f"scenes in {folder.name}" for folder in config.data})),
        margin=geometry.margin,
        tile_multiple=geometry.multiple,
        tile_remainder=geometry.remainder,
    )


def _pixel_sizes(config: TrainConfig, scenes: Sequence[Scene]) -> tuple[float, float]:
    """Least and largest pixel in metres that training sees, scaling included."""
    sizes = [float(np.sqrt(scene.grid.pixel_areas().mean())) for scene in scenes]
    low, high = config.augment.scales
    return round(low * min(sizes), 3), round(high * max(sizes), 3)


def _check_window(config: TrainConfig, spec: ModelSpec) -> None:
    multiple, remainder = spec.tile_multiple, spec.tile_remainder
    if config.window % multiple != remainder:
        low = config.window - (config.window - remainder) % multiple
        fits = f"a multiple of {multiple}" + (f" plus {remainder}" if remainder else "")
        raise ConfigError(
            f"window must be {fits} pixels for this network; got {config.window}. "
            f"Try {max(low, multiple + remainder)} or {low + multiple}."
        )


def _contract_of_start(config: TrainConfig, start: str) -> ModelSpec:
    spec = load_model(start).spec
    names = {common_name(n) for n in config.bands} or {b.common_name for b in spec.bands}
    if spec.classes != config.classes or names != {b.common_name for b in spec.bands}:
        raise ConfigError(
            f"a training that starts from {start} has its bands "
            f"({', '.join(b.name for b in spec.bands)}) and classes ({', '.join(spec.classes)}); "
            f"got classes {', '.join(config.classes)} and bands {', '.join(config.bands) or 'none'}"
        )
    return spec.model_copy(
        update={"name": config.name, "licence": config.licence, "metrics": {}, "temperature": 1.0}
    )


def _bands(config: TrainConfig, found: Sequence[tuple[str, ...]]) -> tuple[InputBand, ...]:
    if config.bands:
        told = [(name, True) for name in config.bands]
        told += [(name, False) for name in config.optional_bands]
    else:
        told = [(name, True) for name in _shared(found)]
    names = [common_name(name) or name for name, _ in told]
    stand_in = ("nir08",) if "nir" in names and "nir08" not in names else ()
    return tuple(
        InputBand(
            name=name,
            common_name=common,
            accepts=stand_in if common == "nir" else (),
            required=required,
        )
        for (name, required), common in zip(told, names, strict=True)
    )


def _shared(found: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The bands that all scenes have, if all have the same."""
    first = tuple(name for name in found[0] if name != "-")
    for other in found[1:]:
        if {name for name in other if name != "-"} != set(first):
            raise ConfigError(
                f"scenes must all have the same bands, or bands must say which to use; one has "
                f"{', '.join(first)}, another {', '.join(other)}."
            )
    return first


def _geometry(config: TrainConfig) -> Geometry:
    options = config.architecture.options
    if config.architecture.decoder != "unet2015":
        return Geometry(0, 2 ** int(options.get("encoder_depth", 5)), 0)
    depth = len(options.get("features", (64, 128, 256, 512)))
    up = options.get("up", "transpose")
    return unet_geometry(depth, padded=options.get("padded", False), up=up)


def _check_classes(
    spec: ModelSpec, learned: Sequence[tuple[_Part, SceneSource]], found: Sequence[Survey]
) -> None:
    empty = [p.pair.name for (p, _), s in zip(learned, found, strict=True) if not s.counts.any()]
    if empty:
        raise ConfigError(
            f"a training scene needs labelled pixels where it was observed; {', '.join(empty)} "
            f"{'has' if len(empty) == 1 else 'have'} none. Leave out what has no labels."
        )
    total = sum((s.counts for s in found), np.zeros(len(spec.classes), np.int64))
    never = [name for name, n in zip(spec.classes, total, strict=True) if n == 0]
    if never:
        raise ConfigError(
            f"each class must occur in the labels that are learned; {', '.join(never)} never "
            f"does. Check label_values, or leave the class out of classes."
        )


def _normalisation(spec: ModelSpec, sites: Sequence[str], found: Sequence[Survey]) -> Normalisation:
    """Mean and spread of each band's log reflectance, every site counting the same."""
    weights = np.array([1 / sites.count(site) for site in sites])[:, None, None]
    moments = np.stack([s.moments for s in found])
    has = ~np.isnan(moments)
    share = (has * weights).sum(0)
    absent = [b.name for b, n in zip(spec.bands, share[0], strict=True) if n == 0]
    if absent:
        raise ConfigError(
            f"each band must occur in some training scene; {', '.join(absent)} does in none. "
            f"Leave it out of bands and optional_bands."
        )
    mean, square = (np.where(has, moments, 0) * weights).sum(0) / share
    std = np.sqrt(np.maximum(square - mean**2, 0.05**2))
    return Normalisation(mean=tuple(mean.round(4).tolist()), std=tuple(std.round(4).tolist()))


def _steps(config: TrainConfig, sources: Sequence[SceneSource]) -> int:
    if config.epochs is None:
        return config.steps or 4000
    world = distributed.get_world_size() if distributed.is_initialized() else 1
    drawn = config.window**2 * config.batch * config.optimiser.accumulate * world
    pixels = sum(s.area.height * s.area.width for s in sources)
    return max(1, math.ceil(config.epochs * pixels / drawn))


def _check_same(config: TrainConfig, data: _Data) -> None:
    """Begin the output folder, or make sure that it was begun with the same settings."""
    path = config.output / "config.json"
    told = {
        **{k: v for k, v in config.model_dump(mode="json").items() if k not in _FREE},
        "train": list(data.seen),
        "valid": sorted({name for name, *_ in data.valid}),
    }
    told = json.loads(json.dumps(told))
    if (config.output / "last.ckpt").exists() and path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        other = sorted(k for k in told.keys() | before.keys() if told.get(k) != before.get(k))
        if other:
            raise ConfigError(
                f"{config.output} holds a training with another {other[0]}: "
                f"{before.get(other[0])!r}, now {told.get(other[0])!r}. Give another output, or "
                f"delete {config.output / 'last.ckpt'} to start anew."
            )
    if rank() == 0:
        _write_text(path, json.dumps(told, indent=1))


def _network(config: TrainConfig, data: _Data) -> Segmenter:
    if config.start is None:
        return build_network(data.spec)
    return load_model(config.start).network


def _sampler(config: TrainConfig, data: _Data) -> WindowSampler:
    zoom = config.augment.scales
    return WindowSampler(
        data.train,
        config.window + 2 * data.spec.margin,
        config.batch,
        zoom=zoom,
        zoom_chance=0.0 if zoom == (1, 1) else 0.5,
        margin=data.spec.margin,
    )


def _augmentation(config: TrainConfig, spec: ModelSpec) -> Augmentation:
    told, steps = config.augment, list[Any]()
    if told.flips:
        steps.append(Dihedral())
    if told.rotation or told.elastic:
        steps.append(Warp(rotation=told.rotation, elastic=told.elastic))
    if told.spectral:
        steps += spectral_augmentations(_wavelengths(spec))
    if told.intensity:
        steps.append(Intensity(told.intensity))
    optional = tuple(i for i, band in enumerate(spec.bands) if not band.required)
    if told.band_dropout and optional:
        steps.append(BandDropout(optional, told.band_dropout))
    return Sequential((*steps, Restrict(len(spec.classes))))


def _wavelengths(spec: ModelSpec) -> tuple[float, ...]:
    known = {b.common_name: b.centre for sensor in SENSORS.values() for b in sensor.bands}
    return tuple(known[band.common_name] for band in spec.bands)


def _loss(config: TrainConfig) -> Loss:
    told = config.loss
    weights = [told.weights.get(name, 1.0) for name in config.classes] if told.weights else []
    options: dict[str, dict[str, Any]] = {
        "dice": {"smooth": told.smooth},
        "bce_dice": {"smooth": told.smooth, "dice_weight": told.dice_weight},
        "focal": {"gamma": told.gamma, "weights": weights},
        "cross_entropy": {"weights": weights},
        "border": {"w0": told.w0, "sigma": told.sigma, "weights": weights},
    }
    if told.name == "partial":
        return PartialLabelLoss(dice=PartialDice(), dice_weight=told.dice_weight)
    return SingleLabelLoss(partial(LOSSES[told.name], **options.get(told.name, {})))


def _loop_config(config: TrainConfig, data: _Data) -> LoopConfig:
    schedule, optimiser = config.schedule, config.optimiser
    if not data.valid and (config.patience or schedule.name == "plateau"):
        raise ConfigError(
            "patience and the schedule plateau need validation; give valid or a valid_share "
            "above 0."
        )
    every = config.validate_every
    return LoopConfig(
        steps=data.steps,
        optimiser=optimiser.name,
        rate=optimiser.rate,
        schedule=schedule.name,
        warmup=schedule.warmup,
        plateau_factor=schedule.factor,
        plateau_patience=schedule.patience,
        momentum=optimiser.momentum,
        weight_decay=optimiser.weight_decay,
        average=config.average,
        clip=optimiser.clip,
        accumulate=optimiser.accumulate,
        seed=config.seed,
        mixed=config.mixed,
        report_every=max(n for n in range(1, min(every, 20) + 1) if every % n == 0),
        save_every=every,
        validate_every=every,
        patience=config.patience,
    )


class _Judge:
    """Validates a network on windows that are always the same."""

    def __init__(
        self, data: _Data, loss: Loss, config: TrainConfig, device: torch.device, diary: _Diary
    ) -> None:
        self.loss, self._data, self._device, self._diary = loss, data, device, diary
        self._batch, self._mixed, self._window = config.batch, config.mixed, config.window
        places = [
            (i, row, col)
            for i, (_, source, _) in enumerate(data.valid)
            for row in _starts(source.area.height, config.window)
            for col in _starts(source.area.width, config.window)
        ]
        step = max(1, -(-len(places) // _MOST_WINDOWS))
        self._places = places[::step]

    def __call__(self, network: Segmenter) -> float:
        """Mean IoU of the classes that occur; all figures go into the diary."""
        k = len(self._data.spec.classes)
        table, losses = np.zeros((k, k), np.int64), list[tuple[float, int]]()
        for _, allowed, logits in self.predictions(network):
            labels = class_labels(allowed, k)
            known = labels != UNKNOWN
            pairs = labels[known] * k + logits.argmax(1)[known]
            table += torch.bincount(pairs, minlength=k * k).view(k, k).cpu().numpy()
            losses.append((float(self.loss(logits, allowed)), int(known.sum())))
        figures = _figures(table, self._data.spec.classes)
        seen = max(sum(n for _, n in losses), 1)
        figures["loss"] = sum(value * n for value, n in losses) / seen
        self._diary.judge(figures)
        return figures["mean_iou"]

    @torch.inference_mode()
    def predictions(self, network: Segmenter) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Pixels, allowed sets and logits, batch by batch, of the size that is predicted."""
        margin = self._data.spec.margin
        side = self._window + 2 * margin
        inner = slice(margin, margin + self._window)
        for first in range(0, len(self._places), self._batch):
            chosen = self._places[first : first + self._batch]
            read = [self._data.valid[i][1].read(r, c, side, side) for i, r, c in chosen]
            pixels = torch.stack([p for p, _ in read]).to(self._device)
            allowed = torch.stack([a for _, a in read])[:, inner, inner].to(self._device)
            present = torch.tensor([self._data.valid[i][2] for i, *_ in chosen])
            gain = present.float().to(self._device)
            seen = (pixels != 0).any(1, keepdim=True)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._mixed):
                logits = network(pixels, gain, torch.zeros_like(gain), seen)
            yield pixels[..., inner, inner], allowed, logits.float()

    def name(self, index: int) -> str:
        """Scene of a window."""
        return self._data.valid[self._places[index][0]][0]


def _starts(size: int, window: int) -> range:
    return range(0, max(size - window // 2, 1), window)


def _figures(table: NDArray[np.int64], classes: Sequence[str]) -> dict[str, float]:
    """IoU of each class that occurs, their mean, and accuracy, of counts [truth, prediction]."""
    both = np.diag(table)
    either = table.sum(0) + table.sum(1) - both
    figures = {
        f"{name}_iou": float(both[i] / either[i]) for i, name in enumerate(classes) if either[i]
    }
    mean = sum(figures.values()) / max(len(figures), 1)
    accuracy = float(both.sum() / max(table.sum(), 1))
    return {**figures, "mean_iou": mean, "accuracy": accuracy}


class _Diary:
    """The curves, in ``metrics.csv`` and for TensorBoard."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.csv"
        self.rows: list[dict[str, float]] = []
        self._board: Any = None

    def begin(self, step: int) -> None:
        """Go on after a step: what was noted later is forgotten."""
        if step and self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = [{k: float(v) for k, v in r.items() if v} for r in csv.DictReader(file)]
            self.rows = [row for row in rows if row["step"] <= step]
        if rank() == 0:
            self._board = _board(self.path.parent / "tensorboard", step)

    def note(self, progress: Progress) -> None:
        """A report of the loop."""
        self.rows.append(
            {
                "step": progress.step,
                "loss": progress.loss,
                "rate": progress.rate,
                "seconds": round(progress.seconds, 3),
            }
        )
        self._show({"loss": progress.loss, "rate": progress.rate}, "train")
        self.write()

    def judge(self, figures: dict[str, float]) -> None:
        """A validation, of the step reported last."""
        self.rows[-1] |= {f"valid_{name}": value for name, value in figures.items()}
        self._show(figures, "valid")
        self.write()

    def last(self, name: str) -> float | None:
        """A figure's value at the last validation."""
        return next((r[f"valid_{name}"] for r in self.rows[::-1] if f"valid_{name}" in r), None)

    def best(self) -> dict[str, float]:
        """The figures of the best validation, the first where several are alike."""
        judged = [row for row in self.rows if "valid_mean_iou" in row]
        best = max(judged, key=lambda row: row["valid_mean_iou"], default={})
        found = {k.removeprefix("valid_"): v for k, v in best.items() if k.startswith("valid_")}
        return {name: round(value, 4) for name, value in found.items()}

    def write(self) -> None:
        """Write the file whole."""
        if rank() == 0:
            names = list(dict.fromkeys(name for row in self.rows for name in row))
            lines = [",".join(names)]
            lines += [
                ",".join(f"{row[n]:.9g}" if n in row else "" for n in names) for row in self.rows
            ]
            _write_text(self.path, "\n".join(lines) + "\n")

    def _show(self, figures: dict[str, float], group: str) -> None:
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(f"{group}/{name}", value, int(self.rows[-1]["step"]))

    def close(self) -> None:
        """Let the files go."""
        if self._board is not None:
            self._board.close()


def _board(folder: Path, step: int) -> Any:
    """TensorBoard's writer, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - of the train extra
    except ImportError:
        return None
    return SummaryWriter(folder, purge_step=step + 1 if step else None)


def _finish(
    config: TrainConfig, data: _Data, trainer: Trainer, judge: _Judge, diary: _Diary
) -> TrainResult:
    """Put the best weights, their temperature and figures into the model file, and draw."""
    path, metrics = _model_path(config), diary.best()
    network = load_model(path).network if data.valid else trainer.averaged()
    network = network.to(trainer.device).eval()
    outputs = {
        "model": path,
        "checkpoint": config.output / "last.ckpt",
        "metrics": diary.path,
    }
    temperature = _temperature(judge, network) if data.valid else 1.0
    spec = data.spec.model_copy(update={"metrics": metrics, "temperature": temperature})
    if rank() == 0:
        save_model(path, spec, network)
        try:
            outputs["curves"] = draw_curves(diary.rows, config.output / "curves.png")
            if data.valid:
                samples = _samples(judge, network, spec)
                outputs["samples"] = draw_samples(
                    samples, [b.common_name for b in data.spec.bands], config.output / "samples.png"
                )
        except ConfigError as error:
            warnings.warn(f"the model is complete, but {error}", GeounetWarning, stacklevel=4)
    diary.close()
    return TrainResult(
        model=path,
        spec=spec,
        steps=trainer.step,
        stopped_early=trainer.stopped,
        metrics=metrics,
        train=data.seen,
        valid=tuple(sorted({name for name, *_ in data.valid})),
        seconds=diary.rows[-1]["seconds"] if diary.rows else 0.0,
        outputs=outputs,
    )


def _temperature(judge: _Judge, network: Segmenter) -> float:
    """What logits are divided by for the least cross-entropy (Guo et al. 2017, 1706.04599)."""
    choices = torch.logspace(-1, 1, 61, base=4.0)
    total = torch.zeros(len(choices), dtype=torch.float64)
    for _, allowed, logits in judge.predictions(network):
        labels = class_labels(allowed, logits.shape[1])
        for i, choice in enumerate(choices):
            total[i] += torch.nn.functional.cross_entropy(
                logits / choice, labels, ignore_index=UNKNOWN, reduction="sum"
            ).cpu()
    return round(float(choices[total.argmin()]), 3)


def _samples(judge: _Judge, network: Segmenter, spec: ModelSpec) -> list[Sample]:
    """The windows that are hardest to get right: those with the most errors, six at most."""
    found: list[tuple[int, Sample]] = []
    water = spec.classes.index("water")
    for pixels, allowed, logits in judge.predictions(network):
        labels = class_labels(allowed, len(spec.classes))
        wrong = ((logits.argmax(1) != labels) & (labels != UNKNOWN)).sum((1, 2))
        p = torch.softmax(logits / spec.temperature, 1)[:, water]
        for i in range(len(pixels)):
            sample = Sample(
                judge.name(len(found)),
                pixels[i].cpu().numpy(),
                labels[i].to(torch.uint8).cpu().numpy(),
                p[i].cpu().numpy(),
            )
            found.append((int(wrong[i]), sample))
    return [sample for _, sample in sorted(found, key=lambda item: -item[0])[:6]]


def _write_text(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise OutputError(
            f"an output must be writable: {path}: {error}. Check the folder and the free space."
        ) from error

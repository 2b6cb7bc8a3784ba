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

import json
import math
import os
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from geounet.engines import resolve_device
from geounet.errors import ConfigError, GeounetWarning, OutputError
from geounet.model import ModelSpec, load_model, save_model
from geounet.segmenter import Segmenter, build_network
from geounet.sensors import SENSORS
from geounet.staging import sweep, whole_file
from geounet.training.augment import Dihedral, Sequential, spectral_augmentations
from geounet.training.dataset import WindowSampler
from geounet.training.figures import draw_curves, draw_samples
from geounet.training.gathering import Data, gather
from geounet.training.judging import Diary, Judge, temperature_of, worst_samples
from geounet.training.loop import LoopConfig, Progress, Trainer, checkpoint_gradients, rank
from geounet.training.losses import LOSSES, PartialDice, PartialLabelLoss, SingleLabelLoss
from geounet.training.variation import BandDropout, Intensity, Restrict, Warp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from geounet.training.augment import Augmentation
    from geounet.training.config import TrainConfig
    from geounet.training.loop import Loss

__all__ = ["TrainProgress", "TrainResult", "train"]

_FREE = {"output", "device", "memory_mb", "data", "valid"}
"""What may differ when a training goes on; scenes are compared by name instead of by folder."""


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
        SceneError: a scene or its labels cannot be read, do not lie on each other, or pixels
            contradict what is said of their reflectance.
        ModelError: the network cannot be built, the loss is no longer a number (the message names
            the batch; the last checkpoint is kept), or the checkpoint is of another network.
        OutputError: an output cannot be written.
    """
    device = torch.device(resolve_device(config.device))
    try:
        with _joined_processes(device) as device:
            return _train(config, device, on_progress)
    except torch.cuda.OutOfMemoryError as error:
        raise ConfigError(
            f"a batch must fit the memory of {device}; batch {config.batch} of window "
            f"{config.window} does not. Lower batch (and raise optimiser.accumulate), lower "
            f"window, or set gradient_checkpointing."
        ) from error
    except OutputError:
        raise
    except OSError as error:  # of TensorBoard's file
        raise OutputError(
            f"outputs must be writable: {config.output}: {error}. Check the folder and the free "
            f"space, and run again to go on from the last checkpoint."
        ) from error


def _train(
    config: TrainConfig,
    device: torch.device,
    on_progress: Callable[[TrainProgress], None] | None,
) -> TrainResult:
    torch.manual_seed(config.seed)
    data = gather(config)
    network = _network(config, data)
    _check_same(config, data)
    diary = Diary(config.output)
    judge = Judge(data, _loss(config, data.spec), config, device, diary)
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
        if rank() == 0 and "valid_loss" in diary.rows[-1]:
            with suppress(ConfigError):  # without matplotlib; it is said when all is done
                draw_curves(diary.rows, config.output / "curves.png")
        if rank() == 0 and on_progress:
            on_progress(_progress(progress, trainer, diary, data))

    trainer.run(report)
    return _finish(config, data, trainer, judge, diary)


def _progress(at: Progress, trainer: Trainer, diary: Diary, data: Data) -> TrainProgress:
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
    if device.type == "cuda":
        distributed.init_process_group("nccl", device_id=device)
    else:
        distributed.init_process_group("gloo")
    try:
        yield device
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def _check_same(config: TrainConfig, data: Data) -> None:
    """Begin the output folder, or make sure that it was begun with the same settings."""
    path = config.output / "config.json"
    told = {
        **{k: v for k, v in config.model_dump(mode="json").items() if k not in _FREE},
        "train": data.seen,
        "valid": data.judged,
    }
    told = json.loads(json.dumps(told))
    if (config.output / "last.ckpt").exists() and path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        now, then = _leaves(told), _leaves(before)
        other = sorted(k for k in now.keys() | then.keys() if now.get(k) != then.get(k))
        if other:
            raise ConfigError(
                f"{config.output} holds a training with another {other[0]}: "
                f"{then.get(other[0])!r}, now {now.get(other[0])!r}. Give another output (start = "
                f"{_model_path(config)} goes on from its weights), or delete "
                f"{config.output / 'last.ckpt'} to start anew."
            )
    if rank() == 0:
        sweep(config.output)
        with whole_file(path) as draft:
            draft.write_text(json.dumps(told, indent=1), encoding="utf-8")


def _leaves(table: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Values of nested tables by their keys with dots between."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        tree = isinstance(value, dict)
        found |= _leaves(value, f"{above}{key}.") if tree else {above + key: value}
    return found


def _network(config: TrainConfig, data: Data) -> Segmenter:
    if config.start is None:
        return build_network(data.spec)
    return load_model(config.start).network


def _sampler(config: TrainConfig, data: Data) -> WindowSampler:
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
    known = {b.common_name: b.centre for s in reversed([*SENSORS.values()]) for b in s.bands}
    return tuple(known[band.common_name] for band in spec.bands)


def _loss(config: TrainConfig, spec: ModelSpec) -> Loss:
    told = config.loss
    weights = [told.weights.get(name, 1.0) for name in spec.classes] if told.weights else []
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


def _loop_config(config: TrainConfig, data: Data) -> LoopConfig:
    if not data.valid and (config.patience or config.schedule.name == "plateau"):
        raise ConfigError(
            "patience and the schedule plateau need validation; give valid or a valid_share "
            "above 0."
        )
    every = config.validate_every
    return LoopConfig(
        steps=data.steps,
        optimiser=config.optimiser,
        schedule=config.schedule,
        average=config.average,
        seed=config.seed,
        mixed=config.mixed,
        report_every=min(every, 20),
        save_every=every,
        validate_every=every,
        patience=config.patience,
    )


def _finish(
    config: TrainConfig, data: Data, trainer: Trainer, judge: Judge, diary: Diary
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
    temperature = temperature_of(judge, network) if data.valid else 1.0
    spec = data.spec.model_copy(update={"metrics": metrics, "temperature": temperature})
    if rank() == 0:
        save_model(path, spec, network)
        try:
            outputs["curves"] = draw_curves(diary.rows, config.output / "curves.png")
            if data.valid:
                samples = worst_samples(judge, network, spec)
                outputs["samples"] = draw_samples(
                    samples, [b.common_name for b in data.spec.bands], config.output / "samples.png"
                )
        except ConfigError as error:
            warnings.warn(f"the model is complete, but {error}", GeounetWarning, stacklevel=4)
    return TrainResult(
        model=path,
        spec=spec,
        steps=trainer.step,
        stopped_early=trainer.stopped,
        metrics=metrics,
        train=data.seen,
        valid=data.judged,
        seconds=diary.rows[-1]["seconds"] if diary.rows else 0.0,
        outputs=outputs,
    )

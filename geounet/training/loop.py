"""The training loop: moving average of weights, mixed precision, checkpoints, exact resume."""

import math
import pickle
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any, Protocol

import torch
from torch import Tensor, distributed, nn
from torch.utils.checkpoint import checkpoint as recompute

from geounet.errors import ConfigError, GeounetWarning, ModelError, OutputError
from geounet.segmenter import Segmenter
from geounet.staging import whole_file
from geounet.training.augment import Augmentation
from geounet.training.config import OptimiserConfig, ScheduleConfig
from geounet.training.dataset import Batch
from geounet.training.distilling import Teacher


class Sampler(Protocol):
    """Draws batches; the same generator state gives the same batch."""

    def draw(self, generator: torch.Generator) -> Batch:
        """One batch."""
        ...


Loss = Callable[[Tensor, Tensor], Tensor]
"""Of logits ``[N, K, h, w]`` and allowed sets ``[N, h, w]``."""

_FORMAT = 1
"""Of checkpoints."""


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast to learn."""

    steps: int = 4000
    minutes: float | None = None
    """Wall-clock budget; where it ends before ``steps``, the rate falls with the clock instead."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    average: float = 0.998
    """Decay of the weights' moving average, per step; smaller in the first steps."""
    seed: int = 0
    mixed: bool = True
    """Half precision where the device is the faster for it (`half_type`); weights and their average
    stay float32."""
    report_every: int = 50
    """Steps between reports; each validation is reported too."""
    save_every: int = 500
    validate_every: int = 500
    patience: int | None = None
    """Validations in a row without a gain after which it stops early; None never does."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.average < 1:
            raise ConfigError(
                f"training needs steps >= 1 and 0 <= average < 1; got {self.steps} and "
                f"{self.average}"
            )


@dataclass(frozen=True)
class Progress:
    """What a report says."""

    step: int
    fraction: float
    """Of the budget, 0 to 1."""
    loss: float
    """Mean since the last report."""
    rate: float
    seconds: float


class Trainer:
    """Trains a network's weights on what a sampler draws.

    The averaged weights are the result: `averaged` puts them into the network. Several processes
    that `torch.distributed` joined train one network together, each on batches of its own.

    Args:
        network: what is trained.
        sampler: draws batches.
        loss: what is made small.
        config: how long and how fast.
        augment: changes batches before they are learned.
        teacher: what else is learned from, beside the labels.
        device: where to compute.
        checkpoint: file to save to every ``save_every`` steps.
        validate: a score of the network with its averaged weights, the higher the better.
        on_best: called with that network whenever its score is the best so far.
        ahead: batches that a thread draws while others are learned; 0 for no thread. The same
            batches are learned either way.
    """

    def __init__(
        self,
        network: Segmenter,
        sampler: Sampler,
        loss: Loss,
        config: LoopConfig,
        *,
        augment: Augmentation | None = None,
        teacher: Teacher | None = None,
        device: torch.device | str = "cpu",
        checkpoint: Path | None = None,
        validate: Callable[[Segmenter], float] | None = None,
        on_best: Callable[[Segmenter], None] | None = None,
        ahead: int = 0,
    ) -> None:
        self.config, self._sampler, self._loss, self._augment = config, sampler, loss, augment
        self.device = torch.device(device)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self._teacher = teacher
        if teacher:
            teacher.network.to(self.device).to(memory_format=torch.channels_last).eval()
        self._optimiser = _optimiser(network, config.optimiser)
        self._shadow = {k: v.detach().clone() for k, v in network.state_dict().items()}
        seed = config.seed + 1000 * rank()
        self._windows = torch.Generator().manual_seed(seed)
        self._noise = torch.Generator(self.device).manual_seed(seed + 1)
        self._half = half_type(self.device) if config.mixed else None
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self._half is torch.float16)
        self._checkpoint, self._validate, self._on_best = checkpoint, validate, on_best
        self._ahead, self._drawn = ahead, self._windows.get_state()
        """Batches to draw ahead, and the generator's state after the last batch that was used."""
        self.step, self._seconds = 0, 0.0
        self.best, self._stale, self._drops = -math.inf, 0, 0
        """Best score, validations since, and how often ``plateau`` lowered the rate."""

    def run(self, on_progress: Callable[[Progress], None] | None = None) -> None:
        """Train until the budget is spent or gains stay away, from where a checkpoint left off.

        Raises:
            ModelError: the loss is no longer a number; the last checkpoint holds a state before.
            ConfigError: the network does not take windows of this size, or so few.
            OutputError: a checkpoint cannot be written.
        """
        self.network.train()
        with _batches(self._sampler, self._windows, self._drawn, self._ahead) as self._next:
            self._run(on_progress)

    def _run(self, on_progress: Callable[[Progress], None] | None) -> None:
        began, losses = time.monotonic() - self._seconds, []
        while (fraction := _agree(self._fraction(), self.device)) < 1 and not self.stopped:
            rate = learning_rate(self.config, self.step, fraction, self._drops)
            losses.append(self._learn(rate))
            self.step += 1
            self._seconds = time.monotonic() - began
            over = _agree(self._fraction(), self.device) >= 1
            judged = over or self.step % self.config.validate_every == 0
            if judged:
                self._judge()
            over |= self.stopped
            if judged or self.step % self.config.report_every == 0:
                mean = sum(losses) / len(losses)
                losses.clear()
                if on_progress:
                    on_progress(Progress(self.step, self._fraction(), mean, rate, self._seconds))
            if self._checkpoint and (over or self.step % self.config.save_every == 0):
                self.save(self._checkpoint)

    @property
    def stopped(self) -> bool:
        """Whether gains have stayed away for too long."""
        return self.config.patience is not None and self._stale >= self.config.patience

    def _judge(self) -> None:
        if not self._validate:
            return
        with self._averaged_for_now() as network:
            score = _of_first(self._validate(network), self.device)
            if score > self.best:
                self.best, self._stale = score, 0
                if self._on_best and rank() == 0:
                    self._on_best(network)
            else:
                self._stale += 1
                self._drops += self._stale % self.config.schedule.patience == 0

    @contextmanager
    def _averaged_for_now(self) -> Iterator[Segmenter]:
        own = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        yield self.averaged()
        self.network.load_state_dict(own)
        self.network.train()

    def averaged(self) -> Segmenter:
        """The network with its averaged weights, ready to predict."""
        self.network.load_state_dict(self._shadow)
        return self.network.eval()

    def save(self, path: Path) -> None:
        """Write everything that `resume` needs; the file appears whole or not at all.

        Of several processes the first writes, and all must call this.

        Raises:
            OutputError: it cannot be written.
        """
        random = _random_state(self.device)
        generators = _gather((self._drawn, self._noise.get_state(), random))
        state = {
            "format": _FORMAT,
            "network": self.network.state_dict(),
            "average": self._shadow,
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "device": self.device.type,
            "generators": generators,
            "judged": (self.best, self._stale, self._drops),
            "step": self.step,
            "seconds": self._seconds,
        }
        if rank() == 0:
            _write_whole(path, state)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint: the same steps follow as if it had never stopped.

        Raises:
            ModelError: it is no checkpoint, of another network, optimiser or number of processes.
        """
        state = _read_whole(path)
        try:
            self.network.load_state_dict(state["network"])
            self._optimiser.load_state_dict(state["optimiser"])
            windows, *drawn = state["generators"][rank()]
            self._drawn = windows
            self._resume_drawing(state, *drawn)
        except (RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
            raise ModelError(
                f"a checkpoint must come from the same network, optimiser and number of "
                f"processes, but {path} does not fit ({shorten(str(error), 200)}); start anew "
                f"or give the settings it was trained with"
            ) from error
        self._shadow = {k: v.to(self.device) for k, v in state["average"].items()}
        self.step, self._seconds = state["step"], state["seconds"]
        self.best, self._stale, self._drops = state["judged"]

    def _resume_drawing(
        self, state: dict[str, Any], noise: Tensor, random: tuple[Tensor, list[Tensor]]
    ) -> None:
        """Go on with the generators that live on the device; kinds of devices differ in theirs."""
        if state.get("device", self.device.type) != self.device.type:
            self._noise.manual_seed(self.config.seed + 1000 * rank() + 1 + state["step"])
            warnings.warn(
                f"the training was on {state['device']} and goes on on {self.device.type}: the "
                f"same windows follow, but other random changes of them, so another curve.",
                GeounetWarning,
                stacklevel=3,
            )
            return
        self._noise.set_state(noise)
        _set_random_state(random, self.device)
        if state.get("scaler") and self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])

    def _learn(self, rate: float) -> float:
        """One step; its loss."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.zero_grad(set_to_none=True)
        batches = [self._draw() for _ in range(self.config.optimiser.accumulate)]
        losses = [self._add_gradient(batch) for batch in batches]
        self._check([float(loss) for loss in losses], batches, "loss")
        _share_gradients(self.network)
        self._scaler.unscale_(self._optimiser)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimiser.clip)
        if self._scaler.get_scale() <= 1:  # a larger one may overflow; its step is left out
            self._check([float(norm)], batches, "gradient")
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._follow()
        return float(torch.stack(losses).mean())

    def _draw(self) -> Batch:
        batch, self._drawn = self._next()
        batch = on_device(batch, self.device)
        if self._augment:
            self._augment(batch, self._noise)
        return batch

    def _add_gradient(self, batch: Batch) -> Tensor:
        with torch.autocast(self.device.type, self._half, enabled=self._half is not None):
            gain = batch.present.float()
            logits = self._logits(batch, gain)
            answer = self._teacher.answer(batch, self._noise) if self._teacher else None
        loss = self._loss(logits.float(), centre(batch.allowed, logits))
        if self._teacher and answer is not None:
            observed = centre(batch.observed[:, 0], logits)
            loss = loss + self._teacher.loss(logits.float(), answer, observed)
        self._scaler.scale(loss / self.config.optimiser.accumulate).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _logits(self, batch: Batch, gain: Tensor) -> Tensor:
        try:
            logits: Tensor = self.network(
                batch.pixels, gain, torch.zeros_like(gain), batch.observed
            )
        except (ValueError, RuntimeError) as error:
            if isinstance(error, torch.cuda.OutOfMemoryError) or "alloc" in str(error):
                raise
            count, _, height, width = batch.pixels.shape
            raise ConfigError(
                f"the network must learn from {count} windows of {width} x {height} pixels at "
                f"once, and does not ({str(error).splitlines()[0]}). Give a larger window; some "
                f"decoders need a batch of 2 at least, too"
            ) from error
        return logits

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self._shadow[name].lerp_(value, 1 - decay)
            else:
                self._shadow[name].copy_(value)

    def _fraction(self) -> float:
        by_clock = self._seconds / (60 * self.config.minutes) if self.config.minutes else 0.0
        return min(1.0, max(self.step / self.config.steps, by_clock))

    def _check(self, values: list[float], batches: list[Batch], what: str) -> None:
        """Stop before a step that would spoil the weights; all processes together."""
        good = [math.isfinite(value) for value in values]
        if _agree(float(not all(good)), self.device) == 0:
            return
        spoilt = batches[good.index(False)].origin if False in good else ("another process",)
        raise ModelError(
            f"the {what} must stay a number, but it is not at step {self.step + 1}, in the batch "
            f"of {'; '.join(spoilt) or 'unnamed windows'}. The last checkpoint holds a state "
            f"before. Lower the learning rate or look for broken pixels there"
        )


@contextmanager
def _batches(
    sampler: Sampler, generator: torch.Generator, state: Tensor, ahead: int
) -> Iterator[Callable[[], tuple[Batch, Tensor]]]:
    """Draw batches, each with the generator's state after it, some of them ahead in a thread.

    The thread's error is raised where its batch would have been used.
    """
    generator.set_state(state)

    def draw() -> tuple[Batch, Tensor]:
        return sampler.draw(generator), generator.get_state()

    if not ahead:
        yield draw
        return
    with ThreadPoolExecutor(1, "geounet-batches") as thread:
        waiting = deque(thread.submit(draw) for _ in range(ahead))

        def drawn() -> tuple[Batch, Tensor]:
            waiting.append(thread.submit(draw))
            return waiting.popleft().result()

        try:
            yield drawn
        finally:
            thread.shutdown(cancel_futures=True)


def learning_rate(config: LoopConfig, step: int, fraction: float, drops: int = 0) -> float:
    """The learning rate of a step.

    ``cosine`` falls to 1% as half a wave. ``onecycle`` rises from 1/25 over 0.3 of the budget and
    falls to next to nothing, both as half waves (Smith and Topin 2017, arXiv:1708.07120, in the
    form of torch's ``OneCycleLR``). ``plateau`` falls by a factor whenever gains stay away.

    Args:
        config: the schedule.
        step: steps done.
        fraction: of the budget that is spent, 0 to 1.
        drops: how often gains have stayed away.
    """

    def wave(start: float, end: float, share: float) -> float:
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))

    schedule, peak = config.schedule, config.optimiser.rate
    rise = min(1.0, (step + 1) / max(1, min(schedule.warmup, config.steps // 10)))
    match schedule.name:
        case "cosine":
            return peak * rise * wave(1, 0.01, fraction)
        case "onecycle" if fraction < 0.3:
            return peak * wave(1 / 25, 1, fraction / 0.3)
        case "onecycle":
            return peak * wave(1, 1 / 25e4, (fraction - 0.3) / 0.7)
        case "plateau":
            return peak * rise * schedule.factor**drops
        case "constant":
            return peak * rise


def centre(labels: Tensor, logits: Tensor) -> Tensor:
    """The part of labels ``[N, H, W]`` that logits ``[N, K, h, w]`` are about."""
    (height, width), (h, w) = labels.shape[-2:], logits.shape[-2:]
    top, left = (height - h) // 2, (width - w) // 2
    return labels[..., top : top + h, left : left + w]


def half_type(device: torch.device) -> torch.dtype | None:
    """The half precision that a device computes faster in than in float32; None where it has none.

    bfloat16 needs an Nvidia card of 2020 or later (Ampere), or a processor with instructions for
    it: one without takes twice (AVX-512) to eight times (AVX2) as long in it, as measured. Older
    cards have float16, whose gradients have to be scaled.
    """
    if device.type == "cuda":
        modern = torch.cuda.get_device_capability(device)[0] >= 8
        return torch.bfloat16 if modern else torch.float16
    able = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if device.type == "cpu" and able() else None


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device."""
    return Batch(
        batch.pixels.to(device, non_blocking=True),
        batch.present.to(device, non_blocking=True),
        batch.observed.to(device, non_blocking=True),
        batch.allowed.to(device, non_blocking=True),
        batch.origin,
    )


def checkpoint_gradients(network: nn.Module) -> None:
    """Make the network's blocks forget what they computed, and compute it again going backward.

    Memory for a third more time (Chen et al. 2016, arXiv:1604.06174). A block is the outermost
    member of a sequence or list of modules that holds more than one convolution. Running means of
    batch normalisation are moved once, as without this.
    """
    for module in network.children():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            for block in module:
                if sum(isinstance(m, nn.Conv2d) for m in block.modules()) > 1:
                    _forget(block)
                else:
                    checkpoint_gradients(block)
        else:
            checkpoint_gradients(module)


def _forget(block: nn.Module) -> None:
    inner = block.forward

    def forward(*args: Any, **options: Any) -> Any:
        if not (block.training and torch.is_grad_enabled()):
            return inner(*args, **options)
        return recompute(inner, *args, use_reentrant=False, context_fn=contexts, **options)

    @contextmanager
    def still() -> Iterator[None]:
        norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001
        before = [m.momentum for m in norms]
        for m in norms:
            m.momentum = 0.0
        yield
        for m, momentum in zip(norms, before, strict=True):
            m.momentum = momentum

    @contextmanager
    def plain() -> Iterator[None]:
        yield

    def contexts() -> tuple[Any, Any]:
        return plain(), still()

    block.forward = forward


def _optimiser(network: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    groups = _parameter_groups(network, config.weight_decay)
    match config.name:
        case "adamw":
            return torch.optim.AdamW(groups, lr=config.rate)
        case "adam":
            return torch.optim.Adam(groups, lr=config.rate)
        case "sgd":
            return torch.optim.SGD(groups, lr=config.rate, momentum=config.momentum)


def _write_whole(path: Path, state: dict[str, Any]) -> None:
    with whole_file(path) as draft:
        try:
            torch.save(state, draft)
        except (OSError, RuntimeError) as error:  # torch has an error of its own for a full disk
            raise OutputError(
                f"a checkpoint must be writable: {path}: {error}. The one before is still whole; "
                f"free some space and run again to go on from it."
            ) from error


def _read_whole(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(
            f"a checkpoint must be a whole file: {path}: {str(error).splitlines()[0]}; "
            f"delete it to start anew"
        ) from error
    found = state.get("format") if isinstance(state, dict) else None
    if found != _FORMAT:
        raise ModelError(
            f"a checkpoint must be of this geounet's format {_FORMAT}, but {path} is of {found}: "
            f"it comes from other code; delete it to start anew"
        )
    return dict(state)


def _random_state(device: torch.device) -> tuple[Tensor, list[Tensor]]:
    """State of torch's own generators, which dropout draws from."""
    card = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return torch.get_rng_state(), card


def _set_random_state(state: tuple[Tensor, list[Tensor]], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    for card in state[1]:
        torch.cuda.set_rng_state(card, device)


def _gather(value: Any) -> list[Any]:
    """Every process's value, in order of rank."""
    if not distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def rank() -> int:
    """This process's number among those that train together; 0 where there is one alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def _share_gradients(network: torch.nn.Module) -> None:
    """Average the gradients over the processes that train together.

    On a busy machine one thread in each of several processes is much faster than several threads in
    one: they wait for each other once a step and not in every layer.
    """
    if not distributed.is_initialized():
        return
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    parts = torch.split(flat, [g.numel() for g in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def _agree(value: float, device: torch.device) -> float:
    """The largest value of any process, so that all decide alike."""
    if not distributed.is_initialized():
        return value
    shared = torch.tensor([value], dtype=torch.float32, device=device)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return float(shared)


def _of_first(value: float, device: torch.device) -> float:
    """The first process's value: it is its network that is kept."""
    if not distributed.is_initialized():
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=device)
    distributed.broadcast(shared, 0)
    return float(shared)


def _parameter_groups(network: torch.nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels only, not for biases and normalisation."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]

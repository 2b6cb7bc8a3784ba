"""The training loop: weights' moving average, mixed precision, a budget, checkpoints, exact resume."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from geounet.errors import ConfigError, ModelError
from geounet.model import Segmenter
from geounet.training.augment import Augmentation
from geounet.training.dataset import Batch


class Sampler(Protocol):
    """Draws batches; the same generator state gives the same batch."""

    def draw(self, generator: torch.Generator) -> Batch:
        """One batch."""
        ...


Loss = Callable[[Tensor, Tensor], Tensor]
"""Of logits ``[N, K, h, w]`` and allowed sets ``[N, h, w]``."""


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast to learn."""

    steps: int = 4000
    minutes: float | None = None
    """Wall-clock budget; where it ends before ``steps``, the rate falls with the clock instead."""
    rate: float = 2e-3
    """Peak learning rate of AdamW; it rises over ``warmup`` and falls as a half cosine to 1%."""
    warmup: int = 100
    weight_decay: float = 0.02
    average: float = 0.998
    """Decay of the weights' moving average, per step; smaller in the first steps."""
    clip: float = 2.0
    """Largest norm of the gradient."""
    seed: int = 0
    mixed: bool = True
    """bfloat16 where that is safe; weights and their average stay float32."""
    report_every: int = 50
    save_every: int = 500

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rate <= 0 or not 0 <= self.average < 1:
            raise ConfigError(
                "training needs steps >= 1, rate > 0 and 0 <= average < 1, "
                f"but got {self.steps}, {self.rate} and {self.average}"
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

    The averaged weights are the result: `averaged` puts them into the network.
    """

    def __init__(
        self,
        network: Segmenter,
        sampler: Sampler,
        loss: Loss,
        config: LoopConfig,
        *,
        augment: Augmentation | None = None,
        device: torch.device | str = "cpu",
        checkpoint: Path | None = None,
    ) -> None:
        self.config, self._sampler, self._loss, self._augment = config, sampler, loss, augment
        self.device = torch.device(device)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self._optimiser = torch.optim.AdamW(
            _parameter_groups(network, config.weight_decay), lr=config.rate
        )
        self._shadow = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self._windows = torch.Generator().manual_seed(config.seed)
        self._noise = torch.Generator(self.device).manual_seed(config.seed + 1)
        self._checkpoint = checkpoint
        self.step, self._seconds = 0, 0.0

    def run(self, on_progress: Callable[[Progress], None] | None = None) -> None:
        """Train until the budget is spent, from wherever a checkpoint left off.

        Raises:
            ModelError: the loss is no longer a number; the last checkpoint holds the state before.
        """
        self.network.train()
        began, losses = time.monotonic() - self._seconds, []
        while (fraction := self._fraction()) < 1:
            rate = self._rate(fraction)
            losses.append(self._learn(rate))
            self.step += 1
            self._seconds = time.monotonic() - began
            if self.step % self.config.report_every == 0 or self._fraction() >= 1:
                mean = float(torch.stack(losses).mean())
                losses.clear()
                self._check(mean)
                if on_progress:
                    on_progress(Progress(self.step, self._fraction(), mean, rate, self._seconds))
            if self._checkpoint and self.step % self.config.save_every == 0:
                self.save(self._checkpoint)

    def averaged(self) -> Segmenter:
        """The network with its averaged weights, ready to predict."""
        self.network.load_state_dict(self._shadow)
        return self.network.eval()

    def save(self, path: Path) -> None:
        """Write everything that `resume` needs; the file appears whole or not at all."""
        state = {
            "config": asdict(self.config),
            "network": self.network.state_dict(),
            "average": self._shadow,
            "optimiser": self._optimiser.state_dict(),
            "generators": (self._windows.get_state(), self._noise.get_state()),
            "step": self.step,
            "seconds": self._seconds,
        }
        part = path.with_name(f".{path.name}.part")
        torch.save(state, part)
        os.replace(part, path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint: the same steps follow as if it had never stopped.

        Raises:
            ModelError: the checkpoint belongs to another network.
        """
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        try:
            self.network.load_state_dict(state["network"])
        except RuntimeError as error:
            raise ModelError(
                f"a checkpoint must come from the same network, but {path} does not fit; "
                "start anew or give the architecture it was trained with"
            ) from error
        self._shadow = state["average"]
        self._optimiser.load_state_dict(state["optimiser"])
        windows, noise = state["generators"]
        self._windows.set_state(windows.cpu())
        self._noise.set_state(noise.cpu())
        self.step, self._seconds = state["step"], state["seconds"]

    def _learn(self, rate: float) -> Tensor:
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        batch = self._sampler.draw(self._windows)
        if self._augment:
            self._augment(batch, self._noise)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.mixed):
            gain = batch.present.float()
            logits = self.network(batch.pixels, gain, torch.zeros_like(gain), batch.observed)
        loss = self._loss(logits.float(), batch.allowed)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self._optimiser.step()
        self._follow()
        return loss.detach()

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

    def _rate(self, fraction: float) -> float:
        rise = min(1.0, (self.step + 1) / max(1, self.config.warmup))
        fall = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fraction))
        return self.config.rate * rise * fall

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise ModelError(
                f"the loss must stay a number, but it is {loss} at step {self.step}; "
                "lower the learning rate or look for broken pixels in the data"
            )


def _parameter_groups(network: torch.nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels only, not for biases and normalisation."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]

"""Plain variations of windows, which any training can switch on; those of light are in `augment`.

Each works on a whole `Batch` in place, on the batch's own device, and draws from one generator.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from geounet.training.dataset import Batch

__all__ = ["BandDropout", "Intensity", "Restrict", "Warp"]


@dataclass(frozen=True)
class Warp:
    """Turn windows by any angle, and deform them as the U-Net paper does.

    The deformation draws displacements on a grid of 3 x 3 points from a Gaussian and interpolates
    them bicubically (Ronneberger et al. 2015, section 3.1). What comes from beyond the window is
    its mirror image.
    """

    rotation: bool = True
    elastic: float = 0.0
    """Standard deviation of the displacements in pixels."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> None:
        """Move pixels, observed and labels alike; unobserved pixels take no part in any mean."""
        grid = self._grid(batch, generator)
        observed = batch.observed.to(batch.pixels.dtype)
        weight = _sample(observed, grid, "bilinear")
        mean = _sample(batch.pixels * observed, grid, "bilinear") / weight.clamp(min=1e-6)
        labels = _sample(batch.allowed[:, None].to(mean.dtype), grid, "nearest")
        batch.observed = weight > 0.5
        batch.pixels = torch.where(batch.observed, mean, 0.0)
        seen = batch.observed[:, 0]
        batch.allowed = torch.where(seen, labels[:, 0], 0).round().to(batch.allowed.dtype)

    def _grid(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Where each pixel comes from, in units of half a window: [N, h, w, 2]."""
        n, (height, width) = len(batch.pixels), batch.pixels.shape[-2:]
        device = generator.device
        angle = 2 * math.pi * torch.rand(n, generator=generator, device=device)
        angle = angle if self.rotation else torch.zeros_like(angle)
        cos, sin, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
        turn = torch.stack(
            [
                torch.stack([cos, -sin * height / width, none], 1),
                torch.stack([sin * width / height, cos, none], 1),
            ],
            1,
        )
        grid = functional.affine_grid(turn, [n, 1, height, width], align_corners=False)
        coarse = self.elastic * torch.randn(n, 2, 3, 3, generator=generator, device=device)
        moved = functional.interpolate(
            coarse, (height, width), mode="bicubic", align_corners=True
        ).movedim(1, -1)
        return grid + moved * torch.tensor([2 / width, 2 / height], device=device)


def _sample(values: Tensor, grid: Tensor, mode: str) -> Tensor:
    return functional.grid_sample(
        values, grid.to(values.dtype), mode=mode, padding_mode="reflection", align_corners=False
    )


@dataclass(frozen=True)
class Intensity:
    """Another gain for each window and, half as strong, for each of its bands."""

    spread: float = 0.1
    """Standard deviation of the gain's logarithm."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> None:
        """Multiply reflectance."""
        n, bands = batch.present.shape
        noise = torch.randn(n, bands + 1, generator=generator, device=generator.device)
        gain = torch.exp(self.spread * (noise[:, :1] + 0.5 * noise[:, 1:]))
        batch.pixels *= gain[:, :, None, None]


@dataclass(frozen=True)
class BandDropout:
    """Let bands go missing, each on its own."""

    optional: tuple[int, ...]
    """Positions of the bands that may."""
    chance: float = 0.2

    def __call__(self, batch: Batch, generator: torch.Generator) -> None:
        """Clear the pixels of the bands that are left out."""
        draw = torch.rand(batch.present.shape, generator=generator, device=generator.device)
        keep = draw >= self.chance
        keep[:, [i for i in range(keep.shape[1]) if i not in self.optional]] = True
        batch.leave_out(keep)


@dataclass(frozen=True)
class Restrict:
    """Forget classes that the model does not have."""

    classes: int

    def __call__(self, batch: Batch, generator: torch.Generator) -> None:  # noqa: ARG002
        """Take them out of the allowed sets."""
        batch.allowed &= (1 << self.classes) - 1

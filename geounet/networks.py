"""The U-Net of Ronneberger, Fischer and Brox (2015), and its padded form with batch normalisation.

    572 ─ 570 ─ 568 ······················ crop ······················ 392 ─ 390 ─ 388 ─ classes
                 ╰ 284 ─ 282 ─ 280 ·········· crop ·········· 200 ─ 198 ─ 196 ╯
                            ╰ 140 ─ … ─ 136 ··· 104 ─ … ─ 100 ╯
                                        ╰ 68 ─ … ─ 64 ··· 56 ─ … ─ 52 ╯
                                                 ╰ 32 ─ 30 ─ 28 ╯

Convolutions without padding see real pixels only, so tiles cut from a larger image agree exactly
where they meet; the price is an output that is smaller than the input, which `Geometry` describes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from geounet.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Geometry", "InputSkip", "UNet", "Upsampling", "unet_geometry"]

Upsampling = Literal["transpose", "resize"]
"""Up-convolution: a transposed 2 x 2 convolution, or nearest-neighbour resizing and 3 x 3."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Which sizes a network gives for which it takes, in pixels."""

    margin: int
    """What the output lacks of the input on each side."""
    multiple: int
    """Outputs have sides of ``multiple * n + remainder``."""
    remainder: int
    """Less than `multiple`."""


def unet_geometry(depth: int, *, padded: bool, up: Upsampling = "transpose") -> Geometry:
    """Geometry of a `UNet`.

    Without padding, a bottleneck of ``b`` pixels comes from ``(b + 8) * 2**depth - 4`` pixels and
    becomes ``(b - c) * 2**depth + c``, where ``c`` pixels are lost at each level of the expanding
    path: 4 in its two convolutions, and 2 more in that of an up-sampling by resizing.

    Args:
        depth: number of poolings.
        padded: whether convolutions keep the size.
        up: kind of up-sampling.
    """
    multiple = 2**depth
    if padded:
        return Geometry(0, multiple, 0)
    lost = 4 if up == "transpose" else 6
    return Geometry(((8 + lost) * multiple - 4 - lost) // 2, multiple, lost % multiple)


class UNet(nn.Module):
    """U-Net: arXiv:1505.04597 with its default arguments; padded and normalised on request.

    Weights start normally distributed with standard deviation ``sqrt(2 / n)``, ``n`` the numbers
    that go into one neuron (He et al. 2015, arXiv:1502.01852), as the paper has it.

    Args:
        in_channels: bands of the input.
        classes: channels of the output.
        features: channels of each level of the contracting path; the bottleneck has twice the
            last.
        padded: convolutions keep the size (zeros outside); False as in the paper.
        batch_norm: batch normalisation between each 3 x 3 convolution and its ReLU.
        dropout: chance of dropping a number at the end of the contracting path: after its last
            level and after the bottleneck.
        up: ``transpose`` as in the paper, or ``resize``, which has no checkerboard pattern
            (Odena et al. 2016, doi:10.23915/distill.00003).

    Raises:
        ConfigError: an argument breaks its rule.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        features: Sequence[int] = (64, 128, 256, 512),
        *,
        padded: bool = False,
        batch_norm: bool = False,
        dropout: float = 0.5,
        up: Upsampling = "transpose",
    ) -> None:
        super().__init__()
        _check(features, dropout, up)
        pad = 1 if padded else 0
        widths = (in_channels, *features)
        self.down = nn.ModuleList(_Convolutions(a, b, pad, batch_norm) for a, b in pairwise(widths))
        self.bottleneck = _Convolutions(features[-1], 2 * features[-1], pad, batch_norm)
        self.dropout = nn.Dropout(dropout)
        widths = (2 * features[-1], *reversed(features))
        self.up = nn.ModuleList(_Up(a, b, pad, batch_norm, up) for a, b in pairwise(widths))
        self.head = nn.Conv2d(features[0], classes, 1)
        self.geometry = unet_geometry(len(features), padded=padded, up=up)
        for module in self.modules():
            _start(module)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes, h - 2 margin, w - 2 margin] of images [N, in_channels, h, w]."""
        skips: list[Tensor] = []
        for level in self.down:
            x = level(x)
            if len(skips) + 1 == len(self.down):
                x = self.dropout(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.dropout(self.bottleneck(x))
        for level in self.up:
            x = level(x, skips.pop())
        return cast("Tensor", self.head(x))


class _Convolutions(nn.Sequential):
    """Two 3 x 3 convolutions, each with a ReLU."""

    def __init__(self, channels: int, out: int, pad: int, batch_norm: bool) -> None:  # noqa: FBT001
        layers: list[nn.Module] = []
        for width in (channels, out):
            layers.append(nn.Conv2d(width, out, 3, padding=pad, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm2d(out))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class _Up(nn.Module):
    """Up-sample, set the contracting path's features beside, convolve twice."""

    def __init__(
        self,
        channels: int,
        out: int,
        pad: int,
        batch_norm: bool,  # noqa: FBT001
        up: Upsampling,
    ) -> None:
        super().__init__()
        self.enlarge: nn.Module = nn.ConvTranspose2d(channels, out, 2, stride=2)
        if up == "resize":
            self.enlarge = nn.Sequential(
                nn.Upsample(scale_factor=2, mode="nearest"),
                nn.Conv2d(channels, out, 3, padding=pad),
            )
        self.convolutions = _Convolutions(2 * out, out, pad, batch_norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.enlarge(x)
        top, left = ((s - n) // 2 for s, n in zip(skip.shape[-2:], x.shape[-2:], strict=True))
        skip = skip[..., top : top + x.shape[-2], left : left + x.shape[-1]]
        return cast("Tensor", self.convolutions(torch.cat([skip, x], 1)))


class InputSkip(nn.Module):
    """A U-Net's decoder of segmentation-models-pytorch whose last block sees the input as well.

    Encoders start with a stride of 2, so that the finest skip has half the resolution and a single
    pixel has to be guessed from two by two: fatal for shores and for rivers a pixel wide. At its
    start the decoder gives what it gave before, as the input's weights are 0.

    Args:
        decoder: a ``UnetDecoder`` without attention; its last block is changed.
        bands: channels of the input.
    """

    def __init__(self, decoder: nn.Module, bands: int) -> None:
        super().__init__()
        last = cast("Any", decoder).blocks[-1]
        narrow = last.conv1[0]
        wide = nn.Conv2d(narrow.in_channels + bands, narrow.out_channels, 3, padding=1, bias=False)
        with torch.no_grad():
            wide.weight.zero_()[:, : narrow.in_channels] = narrow.weight
        last.conv1[0] = wide
        self.decoder = decoder

    def forward(self, features: list[Tensor]) -> Tensor:
        """Features from fine to coarse, the input first; the decoder drops the first."""
        return cast("Tensor", self.decoder([features[0], *features]))


def _check(features: Sequence[int], dropout: float, up: str) -> None:
    if not features or min(features) < 1:
        raise ConfigError(
            f"features must be the channels of each level, at least 1 each, such as "
            f"(64, 128, 256, 512); got {tuple(features)}."
        )
    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout must be at least 0 and less than 1; got {dropout}.")
    if up not in get_args(Upsampling):
        raise ConfigError(f"up must be one of {', '.join(get_args(Upsampling))}; got {up!r}.")


def _start(module: nn.Module) -> None:
    """He initialisation. A transposed 2 x 2 convolution of stride 2 feeds each output but once."""
    if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return
    once = isinstance(module, nn.ConvTranspose2d)
    inputs = module.in_channels * (1 if once else math.prod(module.kernel_size))
    nn.init.normal_(module.weight, std=math.sqrt(2 / inputs))
    if module.bias is not None:
        nn.init.zeros_(module.bias)

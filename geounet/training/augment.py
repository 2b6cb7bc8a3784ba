"""Augmentations in reflectance: what the sky, the ground and the sensor can do to the same place.

Each works on a whole `Batch` in place, on the batch's own device, and draws from one generator
there, so that a seed fixes everything. Where an augmentation changes what a pixel is, it changes
the pixel's allowed set too. Spectra are given over wavelength and read off at the model's own
bands, so nothing here knows a sensor.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from geounet.training.dataset import Batch
from geounet.training.shares import LAND, OBSCURED, WATER, from_share, mixed_share, water_share

_LEAST = 1e-4
"""Reflectance stays above 0, which means a band is missing or a pixel was not observed."""


class Augmentation(Protocol):
    """Changes a batch in place."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> None:
        """Apply to a random part of the batch."""
        ...


@dataclass(frozen=True)
class Spectrum:
    """A curve over wavelength in micrometres, linear between its points."""

    points: tuple[tuple[float, float], ...]

    def at(self, wavelengths: Sequence[float]) -> Tensor:
        """Values at the wavelengths, ``[C]`` float32."""
        x, y = np.array(self.points).T
        return torch.from_numpy(np.interp(wavelengths, x, y)).float()


SEDIMENT = Spectrum(
    (
        (0.44, 0.02),
        (0.56, 0.07),
        (0.665, 0.10),
        (0.74, 0.085),
        (0.84, 0.065),
        (0.945, 0.02),
        (1.61, 0.002),
        (2.2, 0.001),
    )
)
"""What suspended sediment adds to water: most in the red, some near infrared, none beyond."""
BOTTOM = Spectrum(
    (
        (0.44, 0.10),
        (0.49, 0.13),
        (0.56, 0.12),
        (0.6, 0.08),
        (0.665, 0.04),
        (0.705, 0.02),
        (0.74, 0.004),
        (0.84, 0.001),
        (1.0, 0.0),
        (2.2, 0.0),
    )
)
"""What a sunlit sand bottom under shallow clear water adds: blue and green, none beyond red."""
ALGAE = Spectrum(
    (
        (0.44, 0.0),
        (0.56, 0.035),
        (0.62, 0.02),
        (0.665, 0.01),
        (0.705, 0.06),
        (0.74, 0.03),
        (0.84, 0.02),
        (0.945, 0.01),
        (1.61, 0.0),
        (2.2, 0.0),
    )
)
"""What a bloom adds to water: a green and a red-edge peak."""
CHAR = Spectrum(
    (
        (0.44, 0.035),
        (0.56, 0.045),
        (0.665, 0.055),
        (0.84, 0.08),
        (0.945, 0.09),
        (1.61, 0.14),
        (2.2, 0.15),
    )
)
"""Freshly burnt ground; lava and asphalt are flatter."""
BRIGHT_SOIL = Spectrum(
    ((0.44, 0.25), (0.56, 0.36), (0.665, 0.42), (0.84, 0.48), (1.61, 0.50), (2.2, 0.42))
)
"""Dry salt and sand."""
SNOW = Spectrum(
    (
        (0.44, 0.85),
        (0.56, 0.85),
        (0.665, 0.82),
        (0.84, 0.72),
        (0.945, 0.62),
        (1.61, 0.08),
        (2.2, 0.06),
    )
)
"""Snow and ice: bright to the near infrared, dark beyond."""
CLOUD = Spectrum(
    ((0.44, 0.80), (0.56, 0.76), (0.84, 0.78), (0.945, 0.50), (1.61, 0.60), (2.2, 0.42))
)
"""Thick cloud."""
SKYLIGHT = Spectrum(
    (
        (0.44, 0.30),
        (0.49, 0.24),
        (0.56, 0.17),
        (0.665, 0.11),
        (0.74, 0.08),
        (0.84, 0.06),
        (0.945, 0.05),
        (1.61, 0.02),
        (2.2, 0.012),
    )
)
"""Share of the irradiance that comes from the sky and not from the sun, clear air, sea level."""
RAYLEIGH = Spectrum(
    (
        (0.443, 0.10),
        (0.49, 0.068),
        (0.56, 0.042),
        (0.665, 0.021),
        (0.705, 0.017),
        (0.74, 0.013),
        (0.78, 0.011),
        (0.84, 0.008),
        (0.865, 0.007),
        (0.945, 0.005),
        (1.61, 0.0007),
        (2.2, 0.0002),
    )
)
"""Path reflectance of clear air: the main difference between top-of-atmosphere and surface."""


def smooth_noise(
    count: int, size: Sequence[int], cells: Sequence[int], generator: torch.Generator
) -> Tensor:
    """Random fields ``[count, 1, h, w]`` of mean 0 and spread 1, with detail down to ``cells``.

    Each octave is white noise on a grid of so many cells a side, interpolated; its strength falls
    as its detail grows, as in natural scenes.
    """
    device = generator.device
    total = torch.zeros(count, 1, *size, device=device)
    for octave, side in enumerate(cells):
        grid = torch.randn(count, 1, side + 1, side + 1, generator=generator, device=device)
        total += 0.6**octave * functional.interpolate(grid, size=list(size), mode="bilinear")
    spread, mean = torch.std_mean(total, (2, 3), keepdim=True)
    return (total - mean) / spread.clamp(min=1e-6)


def _uniform(
    low: float, high: float, count: int, generator: torch.Generator, dims: int = 4
) -> Tensor:
    draw = torch.rand(count, *[1] * (dims - 1), generator=generator, device=generator.device)
    return low + (high - low) * draw


def _chosen(batch: Batch, chance: float, generator: torch.Generator) -> Tensor:
    draw = torch.rand(len(batch.pixels), generator=generator, device=generator.device)
    return (draw < chance).nonzero()[:, 0]


def _write(batch: Batch, index: Tensor, pixels: Tensor) -> None:
    """Store new pixels; missing bands and unobserved pixels stay 0."""
    keep = batch.present[index][:, :, None, None] & batch.observed[index]
    batch.pixels[index] = torch.where(keep, pixels.clamp(min=_LEAST), 0.0)


def _column(spectrum: Spectrum, wavelengths: Sequence[float], like: Tensor) -> Tensor:
    return spectrum.at(wavelengths).to(like.device).view(1, -1, 1, 1)


def _blobs(
    count: int,
    size: Sequence[int],
    cover: tuple[float, float],
    softness: float,
    generator: torch.Generator,
) -> Tensor:
    """Soft-edged random shapes in [0, 1] that cover a random share of each window."""
    cells = [(2, 4, 9, 20), (4, 9, 20, 40), (7, 14, 30), (16, 32, 64)][
        int(torch.randint(4, (1,), generator=generator, device=generator.device))
    ]
    noise = smooth_noise(count, size, cells, generator)
    share = _uniform(*cover, count, generator)
    threshold = -torch.special.ndtri(share)
    return torch.sigmoid((noise - threshold) / softness)


def _is(batch: Batch, index: Tensor, bits: int) -> Tensor:
    """``[n, 1, h, w]`` True where the allowed set is exactly ``bits``."""
    return (batch.allowed[index] == bits).unsqueeze(1)


def _with_shares(labels: Tensor, water: Tensor, where: Tensor) -> Tensor:
    """Labels with shares of water written where those are known, if the labels have room for it.

    Args:
        labels: ``[n, h, w]``; sets of a narrow type stay as they are.
        water: ``[n, h, w]``, NaN where not known.
        where: ``[n, h, w]`` bool.
    """
    if labels.dtype != torch.int16:
        return labels
    return torch.where(where & ~water.isnan(), from_share(water), labels)


def _land_share(batch: Batch, index: Tensor) -> Tensor:
    """``[n, 1, h, w]``: 1 on land, the land's share of mixed pixels, 0 elsewhere."""
    labels = batch.allowed[index]
    dry = torch.where(mixed_share(labels) > 0, 1 - water_share(labels), (labels == LAND).float())
    return dry.nan_to_num(0.0).unsqueeze(1)


def _water_part(batch: Batch, index: Tensor) -> Tensor:
    """``[n, C, h, w]``: what the water in mixed pixels adds to them, by the window's mean water."""
    pixels, labels = batch.pixels[index], batch.allowed[index]
    water = (labels == WATER).unsqueeze(1)
    mean = (pixels * water).sum((2, 3)) / water.sum((2, 3)).clamp(min=1)
    return torch.minimum(mixed_share(labels).unsqueeze(1) * mean[:, :, None, None], pixels)


SYMMETRIES = 8
"""Of the square: four turns, each mirrored or not."""


def turned(windows: Tensor, code: int) -> Tensor:
    """Windows ``[..., h, w]`` under one of the square's symmetries, 0 to 7; 0 changes nothing."""
    rotated = torch.rot90(windows, code % 4, (-2, -1))
    return rotated.flip(-1) if code >= 4 else rotated


def turned_back(windows: Tensor, code: int) -> Tensor:
    """What `turned` has made of windows, undone."""
    upright = windows.flip(-1) if code >= 4 else windows
    return torch.rot90(upright, -(code % 4), (-2, -1))


@dataclass(frozen=True)
class Dihedral:
    """One of the square's eight symmetries for each window."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> None:
        """Turn and mirror pixels, observed and labels alike."""
        count = (len(batch.pixels),)
        codes = torch.randint(SYMMETRIES, count, generator=generator, device=generator.device)
        for code in range(1, SYMMETRIES):
            index = (codes == code).nonzero()[:, 0]
            for name in ("pixels", "observed", "allowed"):
                tensor = getattr(batch, name)
                tensor[index] = turned(tensor[index], code)


@dataclass(frozen=True)
class Paste:
    """Blobs of one window laid into another, so that spectra and surroundings come apart.

    The result has the bands that both windows have.
    """

    chance: float = 0.2
    cover: tuple[float, float] = (0.05, 0.4)

    def __call__(self, batch: Batch, generator: torch.Generator) -> None:
        """Paste from the batch's previous window."""
        index = _chosen(batch, self.chance, generator)
        if not len(index):
            return
        blob = _blobs(len(index), batch.pixels.shape[-2:], self.cover, 0.03, generator)
        donor = (index - 1) % len(batch.pixels)
        hard = (blob > 0.5) & batch.observed[donor]
        present = batch.present[index] & batch.present[donor]
        mixed = torch.lerp(batch.pixels[index], batch.pixels[donor], blob * batch.observed[donor])
        allowed = torch.where(hard[:, 0], batch.allowed[donor], batch.allowed[index])
        wet = torch.lerp(
            water_share(batch.allowed[index]), water_share(batch.allowed[donor]), blob[:, 0]
        )
        allowed = _with_shares(allowed, wet, batch.observed[donor][:, 0])
        batch.observed[index] |= hard
        batch.present[index] = present
        batch.allowed[index] = allowed
        _write(batch, index, mixed)


def _distance(field_: Tensor) -> Tensor:
    """Distance in pixels to the field's zero line, near it: the field over its gradient."""
    down, right = torch.gradient(field_, dim=(2, 3))
    return field_ / torch.hypot(down, right).clamp(min=1e-3)


def _lakes(count: int, size: Sequence[int], generator: torch.Generator) -> Tensor:
    """Share ``[count, 1, h, w]`` of each pixel that lies within random shapes."""
    noise = smooth_noise(count, size, (3, 7, 16), generator)
    noise = functional.avg_pool2d(noise, 3, 1, 1)
    threshold = -torch.special.ndtri(_uniform(0.01, 0.2, count, generator))
    return (_distance(noise - threshold) + 0.5).clamp(0, 1)


def _blurred(cover: Tensor, strength: Tensor) -> Tensor:
    """Each pixel with so much of each of its four neighbours in it."""
    padded = functional.pad(cover, (1, 1, 1, 1), mode="replicate")
    around = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
    around = around + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    return cover * (1 - 4 * strength) + around * strength


@dataclass(frozen=True)
class Streams:
    """Rivers and canals a few pixels wide, ponds and lakes, mixed into land by the area they cover.

    The courses of rivers are contour lines of smooth noise; distance to such a line is about the
    noise over its gradient. Labels get the exact share of water; labels without room for it are
    water from 30% covered on, as people label narrow water, and either one from an eighth on. Lakes
    are as dark as cloud shadows, and have a sharp edge. Some windows see all that a little blurred,
    as a sensor's optics do.
    """

    wavelengths: tuple[float, ...]
    chance: float = 0.22
    width: tuple[float, float] = (0.6, 5.0)
    """Full width of rivers in pixels, drawn evenly in its logarithm."""
    lakes: float = 0.5
    """Share of the chosen windows that get lakes instead of rivers."""
    blur: float = 0.08
    """Largest part of a pixel's signal that comes from each of its four neighbours."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> None:
        """Draw water over the labelled land of some windows."""
        index = _chosen(batch, self.chance, generator)
        if not len(index):
            return
        size = batch.pixels.shape[-2:]
        rivers = self._rivers(len(index), size, generator)
        lakes = _lakes(len(index), size, generator)
        cover = torch.where(_uniform(0, 1, len(index), generator) < self.lakes, lakes, rivers)
        pixels, allowed = batch.pixels[index], batch.allowed[index]
        land = allowed == LAND
        cover = cover * land.unsqueeze(1)
        strength = self.blur * _uniform(-0.7, 1, len(index), generator).clamp(min=0)
        seen = _blurred(cover, strength)
        mixed = torch.lerp(pixels, self._water(pixels, generator), seen)
        batch.allowed[index] = self._labels(allowed, cover[:, 0], land)
        _write(batch, index, mixed)

    def _labels(self, allowed: Tensor, wet: Tensor, land: Tensor) -> Tensor:
        if allowed.dtype == torch.int16:
            return _with_shares(allowed, wet, land & (wet > 0))
        sets = torch.where(wet >= 0.3, WATER, torch.where(wet > 0.12, LAND | WATER, allowed))
        return sets.to(allowed.dtype)

    def _rivers(self, count: int, size: Sequence[int], generator: torch.Generator) -> Tensor:
        noise = smooth_noise(count, size, (2, 4, 9), generator)
        noise = functional.avg_pool2d(noise, 5, 1, 2) + _uniform(-0.7, 0.7, count, generator)
        distance = _distance(noise).abs()
        low, high = np.log(self.width)
        width = _uniform(low, high, count, generator).exp()
        # A strip of that width meets so much of a pixel whose middle is that far from its own.
        return torch.minimum((width / 2 - distance + 0.5).clamp(0, 1), width)

    def _water(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Dark water, more or less turbid, green and brown, under the window's own air."""
        n = len(pixels)
        least = functional.avg_pool2d(pixels, 8).flatten(2).amin(2)[:, :, None, None]
        air = _column(RAYLEIGH, self.wavelengths, pixels) * _uniform(0.2, 1.3, n, generator)
        dark = torch.minimum(least * _uniform(0.4, 0.9, n, generator), air + 0.01)
        sediment = _column(SEDIMENT, self.wavelengths, pixels) * _uniform(0, 1.1, n, generator) ** 3
        algae = _column(ALGAE, self.wavelengths, pixels) * _uniform(0, 0.8, n, generator) ** 2
        return dark + sediment + algae + _uniform(0, 0.01, n, generator)


@dataclass(frozen=True)
class WaterColour:
    """Sediment, sunlit bottom, algae, darkness and sun glint on labelled water; the label stays.

    Glint is the sun mirrored by waves: about the same reflectance in every band, in fine streaks
    (Kay, Hedley and Lavender 2009, "Sun Glint Correction of High and Low Spatial Resolution
    Images", Remote Sensing 1).
    """

    wavelengths: tuple[float, ...]
    chance: float = 0.45
    glint_chance: float = 0.15

    def __call__(self, batch: Batch, generator: torch.Generator) -> None:
        """Recolour the water of some windows."""
        self._recolour(batch, generator)
        self._glint(batch, generator)

    def _recolour(self, batch: Batch, generator: torch.Generator) -> None:
        index = _chosen(batch, self.chance, generator)
        if not len(index):
            return
        n, size = len(index), batch.pixels.shape[-2:]
        pixels = batch.pixels[index]
        kind = torch.randint(4, (n, 1, 1, 1), generator=generator, device=generator.device)
        tops = ((SEDIMENT, 2.6), (BOTTOM, 2.2), (ALGAE, 2.0))
        field_ = torch.sigmoid(
            1.5 * smooth_noise(n, size, (2, 5, 12), generator) + _uniform(-1, 1.5, n, generator)
        )
        strength = _uniform(0, 1, n, generator).sqrt() * field_
        added = torch.zeros_like(pixels)
        for i, (spectrum, top) in enumerate(tops):
            added += (kind == i) * top * _column(spectrum, self.wavelengths, pixels)
        dark = torch.where(kind == 3, 1 - 0.8 * _uniform(0, 1, n, generator), 1.0)
        water = _is(batch, index, WATER)
        partly = mixed_share(batch.allowed[index]).unsqueeze(1) * added * strength
        coloured = torch.where(water, pixels * dark + added * strength, pixels + partly)
        _write(batch, index, coloured)

    def _glint(self, batch: Batch, generator: torch.Generator) -> None:
        index = _chosen(batch, self.glint_chance, generator)
        if not len(index):
            return
        n, size = len(index), batch.pixels.shape[-2:]
        waves = torch.randn(n, 1, *size, generator=generator, device=generator.device)
        waves = functional.avg_pool2d(waves, (3, 1), 1, (1, 0)) * 0.5
        drift = torch.sigmoid(smooth_noise(n, size, (2, 4), generator))
        level = _uniform(0.01, 0.10, n, generator) * drift * (1 + waves).clamp(min=0)
        pixels = batch.pixels[index]
        _write(batch, index, torch.where(_is(batch, index, WATER), pixels + level, pixels))


@dataclass(frozen=True)
class GroundCover:
    """Burn scars, lava, dark wet soil, salt, sand and coloured roofs on labelled land."""

    wavelengths: tuple[float, ...]
    chance: float = 0.2

    def __call__(self, batch: Batch, generator: torch.Generator) -> None:
        """Cover blobs of the land of some windows with another ground; the label stays land."""
        index = _chosen(batch, self.chance, generator)
        if not len(index):
            return
        n, size = len(index), batch.pixels.shape[-2:]
        pixels, device = batch.pixels[index], batch.pixels.device
        kind = torch.randint(4, (n, 1, 1, 1), generator=generator, device=generator.device)
        flat = _uniform(0.02, 0.09, n, generator) * torch.ones_like(pixels[:, :, :1, :1])
        char = _column(CHAR, self.wavelengths, pixels) * _uniform(0.5, 1.3, n, generator)
        soil = _column(BRIGHT_SOIL, self.wavelengths, pixels) * _uniform(0.6, 1.6, n, generator)
        tilt = torch.rand(n, 4, generator=generator, device=device)
        roof = (
            0.08
            + 0.35
            * functional.interpolate(
                tilt[:, None], size=len(self.wavelengths), mode="linear", align_corners=True
            )[:, 0, :, None, None]
        )
        ground = torch.where(
            kind == 0, char, torch.where(kind == 1, flat, torch.where(kind == 2, soil, roof))
        )
        relief = (1 + 0.15 * smooth_noise(n, size, (20, 40), generator)).clamp(0.4, 1.6)
        cover = _blobs(n, size, (0.05, 0.4), 0.08, generator) * _uniform(0.6, 1.0, n, generator)
        dry, wet = _land_share(batch, index), _water_part(batch, index)
        covered = wet + torch.lerp(pixels - wet, dry * ground * relief, cover)
        _write(batch, index, torch.where(dry > 0, covered, pixels))


@dataclass(frozen=True)
class Relief:
    """Mountain sides that turn from the sun: direct light falls, skylight stays; land stays land.

    Sun-facing slopes grow brighter. Only land is shaded, as water lies flat.
    """

    wavelengths: tuple[float, ...]
    chance: float = 0.15

    def __call__(self, batch: Batch, generator: torch.Generator) -> None:
        """Shade the land of some windows."""
        index = _chosen(batch, self.chance, generator)
        if not len(index):
            return
        n, size = len(index), batch.pixels.shape[-2:]
        slope = smooth_noise(n, size, (5, 11, 24), generator)
        sun = (1 + _uniform(0.3, 0.9, n, generator) * slope).clamp(0.12, 1.6)
        pixels = batch.pixels[index]
        shaded = _shade(pixels, sun, _column(SKYLIGHT, self.wavelengths, pixels), generator)
        _write(batch, index, torch.lerp(pixels, shaded, _land_share(batch, index)))


def _shade(pixels: Tensor, sun: Tensor, sky: Tensor, generator: torch.Generator) -> Tensor:
    """Reflectance where the sun's share of the light is multiplied by ``sun``.

    The air in between still glows, so the darkest value of the window is taken as its path
    reflectance and left alone.
    """
    n = len(pixels)
    path = 0.9 * functional.avg_pool2d(pixels, 8).flatten(2).amin(2)[:, :, None, None]
    path = torch.minimum(path, pixels)
    sky = (sky * _uniform(0.5, 1.6, n, generator)).clamp(max=0.6)
    return path + (pixels - path) * (sun * (1 - sky) + sky)


@dataclass(frozen=True)
class Clouds:
    """Clouds with soft edges, and the shadows that they cast some way off.

    Thick cloud is obscured, whatever lies below. A shadow keeps the sky's blue light and 15 to 50%
    of the sun's; on land it is obscured, on water it is water or obscured. Where either is thin,
    the label below stays possible.
    """

    wavelengths: tuple[float, ...]
    chance: float = 0.3
    cloud_share: float = 0.85
    """How often the cloud that casts the shadow lies in the window too."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> None:
        """Draw shadows first, clouds over them."""
        index = _chosen(batch, self.chance, generator)
        if not len(index):
            return
        n, size = len(index), batch.pixels.shape[-2:]
        cover = _blobs(n, size, (0.04, 0.4), 0.12, generator)
        shift = torch.randint(
            6, max(7, size[0] // 3), (2,), generator=generator, device=generator.device
        ).tolist()
        self._shadow(batch, index, cover.roll(shift, (-2, -1)), generator)
        shown = _uniform(0, 1, n, generator) < self.cloud_share
        self._cloud(batch, index, cover * shown, generator)

    def _shadow(
        self, batch: Batch, index: Tensor, cover: Tensor, generator: torch.Generator
    ) -> None:
        pixels = batch.pixels[index]
        left = _uniform(0.15, 0.5, len(index), generator)
        sky = _column(SKYLIGHT, self.wavelengths, pixels)
        shaded = _shade(pixels, 1 - cover * (1 - left), sky, generator)
        allowed = batch.allowed[index]
        dark, known = cover[:, 0], allowed != 0
        both = torch.where(dark > 0.25, allowed | OBSCURED, allowed)
        deep = torch.where(allowed == LAND, OBSCURED, both).to(allowed.dtype)
        batch.allowed[index] = torch.where(
            known & (dark > 0.6), deep, torch.where(known, both, allowed)
        )
        _write(batch, index, shaded)

    def _cloud(
        self, batch: Batch, index: Tensor, cover: Tensor, generator: torch.Generator
    ) -> None:
        n, size = len(index), batch.pixels.shape[-2:]
        pixels = batch.pixels[index]
        level = _uniform(0.4, 1.2, n, generator) * (
            1 + 0.12 * smooth_noise(n, size, (8, 24), generator)
        )
        white = _column(CLOUD, self.wavelengths, pixels) * level.clamp(min=0.25)
        white = white * (
            1 + 0.1 * torch.randn(n, white.shape[1], 1, 1, generator=generator, device=white.device)
        )
        allowed, thick = batch.allowed[index], cover[:, 0]
        some = torch.where((thick > 0.12) & (allowed != 0), allowed | OBSCURED, allowed)
        batch.allowed[index] = torch.where(thick > 0.45, OBSCURED, some).to(allowed.dtype)
        _write(batch, index, torch.lerp(pixels, white, cover))


@dataclass(frozen=True)
class SnowCover:
    """Snow and ice over anything, in blobs: obscured. It is bright up to the near infrared.

    On slopes that turn from the sun only the sky lights it, so that it is as dark and as blue as
    water.
    """

    wavelengths: tuple[float, ...]
    chance: float = 0.18

    def __call__(self, batch: Batch, generator: torch.Generator) -> None:
        """Cover parts of some windows."""
        index = _chosen(batch, self.chance, generator)
        if not len(index):
            return
        n, size = len(index), batch.pixels.shape[-2:]
        cover = _blobs(n, size, (0.03, 0.7), 0.15, generator)
        light = (
            _uniform(0.5, 1.1, n, generator)
            * (1 + 0.2 * smooth_noise(n, size, (10, 30), generator))
        ).clamp(0.2, 1.2)
        pixels = batch.pixels[index]
        waves = torch.tensor(self.wavelengths, device=pixels.device).view(1, -1, 1, 1)
        # Old snow is darker in the blue; its shortwave infrared falls as its grains grow.
        dust = (waves / 0.84).clamp(max=1) ** _uniform(0.0, 0.9, n, generator)
        grain = torch.where(waves > 1.3, _uniform(0.2, 1.3, n, generator), 1.0)
        slope = 1 + _uniform(-0.5, 0.9, n, generator).clamp(min=0) * smooth_noise(
            n, size, (5, 11, 24), generator
        )
        sky = _column(SKYLIGHT, self.wavelengths, pixels)
        lit = slope.clamp(0.1, 1.2) * (1 - sky) + sky
        snow = _column(SNOW, self.wavelengths, pixels) * light * dust * grain * lit
        allowed, thick = batch.allowed[index], cover[:, 0]
        some = torch.where((thick > 0.15) & (allowed != 0), allowed | OBSCURED, allowed)
        batch.allowed[index] = torch.where(thick > 0.5, OBSCURED, some).to(allowed.dtype)
        _write(batch, index, torch.lerp(pixels, snow, cover))


@dataclass(frozen=True)
class Atmosphere:
    """Air added or taken away: Rayleigh path reflectance, haze in drifts, and the sensor's gains.

    Haze of larger drops falls more slowly with wavelength than clear air does (Ångström exponent 0
    to 2 against 4).
    """

    wavelengths: tuple[float, ...]
    chance: float = 0.6
    haze_chance: float = 0.3
    thick: float = 0.2
    """A veil of this weight may be called obscured; what lies below it stays right too."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> None:
        """Change the light of some windows; labels stay, but below the thickest haze."""
        index = _chosen(batch, self.chance, generator)
        if len(index):
            self._path_and_gain(batch, index, generator)
        index = _chosen(batch, self.haze_chance, generator)
        if len(index):
            self._haze(batch, index, generator)

    def _path_and_gain(self, batch: Batch, index: Tensor, generator: torch.Generator) -> None:
        pixels, n = batch.pixels[index], len(index)
        air = _column(RAYLEIGH, self.wavelengths, pixels) * _uniform(-0.9, 1.3, n, generator)
        floor = functional.avg_pool2d(pixels, 8).flatten(2).amin(2)[:, :, None, None]
        air = torch.maximum(air, -0.85 * floor)
        noise = torch.randn(n, pixels.shape[1], 1, 1, generator=generator, device=pixels.device)
        gain = torch.exp(0.07 * noise + _uniform(-0.2, 0.2, n, generator))
        _write(batch, index, pixels * gain + air)

    def _haze(self, batch: Batch, index: Tensor, generator: torch.Generator) -> None:
        pixels, n, size = batch.pixels[index], len(index), batch.pixels.shape[-2:]
        waves = torch.tensor(self.wavelengths, device=pixels.device).view(1, -1, 1, 1)
        shape = (waves / 0.49) ** -_uniform(0.0, 2.0, n, generator)
        drift = torch.sigmoid(1.5 * smooth_noise(n, size, (2, 4, 9), generator))
        # Squared, so that thin haze is commoner than a veil of thin cloud.
        veil = (0.01 + 0.34 * _uniform(0, 1, n, generator) ** 2) * drift
        allowed = batch.allowed[index]
        hidden = (veil[:, 0] > self.thick) & (allowed != 0)
        batch.allowed[index] = torch.where(hidden, allowed | OBSCURED, allowed)
        _write(batch, index, pixels * (1 - veil) + veil * shape)


@dataclass(frozen=True)
class SensorNoise:
    """Detector noise, the 8-bit steps of older sensors, and bands of coarser native resolution."""

    wavelengths: tuple[float, ...]
    chance: float = 0.4
    coarse_chance: float = 0.1

    def __call__(self, batch: Batch, generator: torch.Generator) -> None:
        """Blur, shift and roughen some windows."""
        index = _chosen(batch, self.chance, generator)
        if len(index):
            pixels = batch.pixels[index]
            sigma = _uniform(0.0002, 0.004, len(index), generator)
            noise = torch.randn(pixels.shape, generator=generator, device=pixels.device)
            _write(batch, index, pixels + sigma * noise)
        index = _chosen(batch, self.coarse_chance, generator)
        if len(index):
            step = _uniform(0.001, 0.006, len(index), generator)
            _write(batch, index, (batch.pixels[index] / step).round() * step)
        self._blur(batch, _chosen(batch, 0.5 * self.chance, generator), generator)

    def _blur(self, batch: Batch, index: Tensor, generator: torch.Generator) -> None:
        if not len(index):
            return
        pixels = batch.pixels[index]
        bands = (
            torch.rand(1, pixels.shape[1], 1, 1, generator=generator, device=pixels.device) < 0.5
        )
        padded = functional.pad(pixels, (0, 1, 0, 1), mode="replicate")
        pixels = torch.where(bands, functional.avg_pool2d(padded, 2, 1), pixels)
        _write(batch, index, pixels)


@dataclass(frozen=True)
class CoarseBands:
    """Bands measured at twice the pixel size and repeated, as in stacks of Sentinel-2's 20 m bands.

    Without it, whatever is drawn into a window is as sharp in the shortwave infrared as elsewhere,
    and shores are looked for there, where a real sensor does not show them so finely.
    """

    positions: tuple[int, ...]
    chance: float = 0.35

    def __call__(self, batch: Batch, generator: torch.Generator) -> None:
        """Average two by two pixels of these bands in some windows."""
        index = _chosen(batch, self.chance, generator)
        if not len(index) or not self.positions:
            return
        pixels, bands = batch.pixels[index], list(self.positions)
        # The blocks may start at an odd row or column of the window.
        top, left = torch.randint(2, (2,), generator=generator, device=pixels.device).tolist()
        height, width = pixels.shape[-2:]
        pad = (left, (width + left) % 2, top, (height + top) % 2)
        padded = functional.pad(pixels[:, bands], pad, mode="replicate")
        blocks = functional.avg_pool2d(padded, 2).repeat_interleave(2, -1).repeat_interleave(2, -2)
        pixels[:, bands] = blocks[..., top : top + height, left : left + width]
        _write(batch, index, pixels)


@dataclass(frozen=True)
class BandPatterns:
    """Leave out bands as real sensors do.

    A pattern lists the positions that it keeps; what a window lacks stays lacking. ``swap`` fills
    the near infrared of one position from another, as a sensor with one such band may be filed
    under either.
    """

    patterns: tuple[tuple[int, ...], ...]
    shares: tuple[float, ...]
    """How often each pattern is drawn; what is left of 1 keeps everything."""
    required: tuple[int, ...]
    swap: tuple[int, int] | None = None
    drop: float = 0.08
    """In a tenth of the windows: a third of the chance for a band that is not required to go."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> None:
        """Clear the pixels of the bands left out."""
        device, (n, bands) = batch.pixels.device, batch.present.shape
        self._fill_swap(batch)
        keep = torch.zeros(len(self.patterns) + 1, bands, dtype=torch.bool, device=device)
        for row, pattern in enumerate(self.patterns):
            keep[row, list(pattern)] = True
        keep[-1] = True
        edges = torch.tensor(self.shares, device=device).cumsum(0)
        draw = torch.rand(n, generator=generator, device=device)
        kept = keep[torch.bucketize(draw, edges, right=True)]
        lone = torch.rand(n, bands, generator=generator, device=device) < 3 * self.drop
        lone &= torch.rand(n, 1, generator=generator, device=device) < 0.1
        lone[:, list(self.required)] = False
        batch.leave_out(kept & ~lone)

    def _fill_swap(self, batch: Batch) -> None:
        if self.swap is None:
            return
        for here, there in (self.swap, self.swap[::-1]):
            index = (~batch.present[:, here] & batch.present[:, there]).nonzero()[:, 0]
            batch.pixels[index, here] = batch.pixels[index, there]
            batch.present[index, here] = True


@dataclass(frozen=True)
class Sequential:
    """Augmentations one after the other."""

    steps: tuple[Augmentation, ...] = field(default_factory=tuple)

    def __call__(self, batch: Batch, generator: torch.Generator) -> None:
        """Apply them all."""
        for step in self.steps:
            step(batch, generator)


def spectral_augmentations(wavelengths: Sequence[float]) -> tuple[Augmentation, ...]:
    """What sky, ground, water and sensor can do, in the order in which light meets them."""
    waves = tuple(wavelengths)
    return (
        Paste(),
        Streams(waves),
        WaterColour(waves),
        GroundCover(waves),
        Relief(waves),
        SnowCover(waves),
        Clouds(waves),
        Atmosphere(waves),
        SensorNoise(waves),
    )


def water_augmentation(
    wavelengths: Sequence[float], patterns: BandPatterns, *, coarse: Sequence[int] = ()
) -> Sequential:
    """The default model's augmentations.

    Args:
        wavelengths: of the model's bands, in micrometres.
        patterns: bands that sensors lack.
        coarse: positions of bands that a sensor measures at twice the pixel size.
    """
    *light, noise = spectral_augmentations(wavelengths)
    return Sequential((Dihedral(), *light, CoarseBands(tuple(coarse)), noise, patterns))

"""Labelled scenes and the windows drawn from them.

A source hands out windows and nothing more, so the same sampler draws from arrays in memory, from
tensors on a device and straight from files.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from geounet.errors import ConfigError
from geounet.training.losses import IGNORED
from geounet.training.shares import SETS, from_share, water_share

CELL = 16
"""Side in pixels of the cells by which a scene's classes are found again."""
_REDRAWS = 16


@dataclass(eq=False)
class Batch:
    """Windows on their way to the network; augmentations change it in place."""

    pixels: Tensor
    """``[N, C, h, w]`` float32 reflectance, 0 where a band is missing."""
    present: Tensor
    """``[N, C]`` bool, True where the band was measured."""
    observed: Tensor
    """``[N, 1, h, w]`` bool, True where the pixel was observed."""
    allowed: Tensor
    """``[N, h, w]`` integer, the set of classes the pixel can be (see ``losses``); 0 = unknown.
    Of a narrow type, uint8 or, where mixed pixels have their shares (``shares``), int16."""
    origin: tuple[str, ...] = ()
    """Where each window comes from, for messages."""
    whole: tuple[Tensor, Tensor] | None = None
    """``pixels`` and ``present`` with the bands that `leave_out` took; None where it took none."""

    def leave_out(self, keep: Tensor) -> None:
        """Let bands go missing: those that ``keep``, ``[N, C]`` bool, does not name."""
        self.whole = self.whole or (self.pixels, self.present)
        self.present = self.present & keep
        self.pixels = self.pixels * self.present[:, :, None, None]


class PixelSource(Protocol):
    """Where windows come from. Windows may reach over the scene's edge; what lies outside is 0."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        ...

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Reflectance ``[C, height, width]`` float32 and allowed sets ``[height, width]``."""
        ...


@dataclass(frozen=True, eq=False)
class MemorySource:
    """A scene held in memory or on a device."""

    pixels: Tensor
    """``[C, h, w]`` of any real dtype; times ``scale`` it is reflectance."""
    allowed: Tensor
    """``[h, w]`` uint8, or int16 with the shares of mixed pixels."""
    scale: float = 1e-4

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return int(self.allowed.shape[0]), int(self.allowed.shape[1])

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Cut the window, zeros outside."""
        top, left = max(row, 0), max(col, 0)
        bottom, right = min(row + height, self.shape[0]), min(col + width, self.shape[1])
        pad = (left - col, col + width - right, top - row, row + height - bottom)
        pixels = self.pixels[:, top:bottom, left:right].float() * self.scale
        return functional.pad(pixels, pad), functional.pad(
            self.allowed[top:bottom, left:right], pad
        )


@dataclass(frozen=True, eq=False)
class LabelledScene:
    """A source, the bands it has, and the site it belongs to (splits and balance go by site)."""

    name: str
    site: str
    source: PixelSource
    present: tuple[bool, ...]
    """For each of the model's bands: does this scene have it?"""
    weight: float = 1.0
    """Share within its site."""
    coarsest: float = math.inf
    """Largest zoom, for a scene whose pixels are large already."""
    anchors: dict[int, Tensor] = field(default_factory=dict, repr=False)
    """For each allowed set that occurs: ``[M, 2]`` rows and columns of cells that hold it."""

    @classmethod
    def index(
        cls,
        name: str,
        source: PixelSource,
        present: Sequence[bool],
        *,
        site: str,
        weight: float = 1.0,
        coarsest: float = math.inf,
    ) -> "LabelledScene":
        """Find where each class lies, a band of rows at a time.

        Raises:
            ConfigError: the scene holds no labelled pixel.
        """
        anchors = cells_by_set(source)
        if not anchors:
            raise ConfigError(
                f"a training scene needs labelled pixels, but {name} has none; leave it out"
            )
        return cls(name, site, source, tuple(present), weight, coarsest, anchors)


def cells_by_set(source: PixelSource) -> dict[int, Tensor]:
    """Rows and columns ``[M, 2]`` of the cells that hold each allowed set but the empty one."""
    height, width = source.shape
    found: dict[int, list[Tensor]] = {}
    for row in range(0, height, CELL):
        _, allowed = source.read(row, 0, CELL, -(-width // CELL) * CELL)
        cells = allowed.reshape(CELL, -1, CELL).permute(1, 0, 2).flatten(1)
        for value in torch.unique(cells).tolist():
            if value == IGNORED:
                continue
            columns = (cells == value).any(1).nonzero()[:, 0] * CELL
            found.setdefault(value, []).append(
                torch.stack([torch.full_like(columns, row), columns], 1).cpu()
            )
    return {value: torch.cat(parts) for value, parts in found.items()}


@dataclass(eq=False)
class WindowSampler:
    """Draws windows evenly over sites, then over the single classes that a scene holds.

    The zoom is the side of the window read over the side handed out: above 1 the window is averaged
    down, which turns 10 m into 20 or 30 m; below 1 it is interpolated. Every window holds a
    labelled pixel.
    """

    scenes: Sequence[LabelledScene]
    size: int = 160
    batch: int = 10
    zoom: tuple[float, float] = (0.6, 2.5)
    zoom_chance: float = 0.5
    site_weights: dict[str, float] = field(default_factory=dict)
    margin: int = 0
    """Pixels of a window's frame that the network does not predict; labels count within it only."""

    def __post_init__(self) -> None:
        if not self.scenes:
            raise ConfigError("a sampler needs at least one labelled scene, but got none")
        sites = [s.site for s in self.scenes]
        totals = {site: sum(s.weight for s in self.scenes if s.site == site) for site in set(sites)}
        shares = [
            s.weight / totals[s.site] * self.site_weights.get(s.site, 1.0) for s in self.scenes
        ]
        self.shares = torch.tensor(shares, dtype=torch.float64)

    def draw(self, generator: torch.Generator) -> Batch:
        """One batch. ``generator`` lives on the CPU; the same state gives the same windows."""
        picks = torch.multinomial(self.shares, self.batch, replacement=True, generator=generator)
        scenes = [self.scenes[i] for i in picks.tolist()]
        windows = [self._window(scene, generator) for scene in scenes]
        pixels = torch.stack([w[0] for w in windows])
        present = torch.tensor([s.present for s in scenes], device=pixels.device)
        observed = torch.stack([w[2] for w in windows])
        allowed = torch.stack([w[1] for w in windows])
        return Batch(pixels, present, observed, allowed, tuple(w[3] for w in windows))

    def _window(
        self, scene: LabelledScene, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, str]:
        inner = slice(self.margin, self.size - self.margin)
        for _ in range(_REDRAWS):
            window = self._read(scene, self._zoom(scene, generator), generator)
            if bool((window[1][inner, inner] != IGNORED).any()):
                return window
        return self._read(scene, 1.0, generator)

    def _zoom(self, scene: LabelledScene, generator: torch.Generator) -> float:
        chance, where = torch.rand(2, generator=generator).tolist()
        if chance >= self.zoom_chance:
            return 1.0
        low, high = np.log(self.zoom)
        widest = max(1.0, 1.25 * min(scene.source.shape) / self.size)
        return float(min(np.exp(low + (high - low) * where), widest, scene.coarsest))

    def _read(
        self, scene: LabelledScene, zoom: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, str]:
        side = max(CELL, round(self.size * zoom))
        row, col = self._corner(scene, side, generator)
        pixels, allowed = scene.source.read(row, col, side, side)
        observed = (pixels != 0).any(0, keepdim=True)
        if side != self.size:
            pixels, observed, allowed = _resize(pixels, observed, allowed, self.size)
        origin = f"{scene.name} at row {row}, column {col}, {side} pixels wide"
        return pixels, torch.where(observed[0], allowed, IGNORED), observed, origin

    def _corner(
        self, scene: LabelledScene, side: int, generator: torch.Generator
    ) -> tuple[int, int]:
        values = sorted(scene.anchors)
        # Single classes first: a set such as "not water" is no reason to look somewhere by itself.
        values = [v for v in values if v.bit_count() == 1] or values
        value = values[_below(len(values), generator)]
        anchor = scene.anchors[value][_below(len(scene.anchors[value]), generator)].tolist()
        frame = round(self.margin * side / self.size)
        corner = [
            _inside(
                a - frame - _below(max(1, side - 2 * frame - CELL + 1), generator), side, extent
            )
            for a, extent in zip(anchor, scene.source.shape, strict=True)
        ]
        return corner[0], corner[1]


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (1,), generator=generator))


def _inside(start: int, side: int, extent: int) -> int:
    """Move a window so that it lies within the scene, or around it if the scene is the smaller."""
    low, high = sorted((0, extent - side))
    return min(max(start, low), high)


def _resize(
    pixels: Tensor, observed: Tensor, allowed: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Average down or interpolate up; unobserved pixels take no part in any average."""
    shrink = pixels.shape[-1] > size
    mode = {"mode": "area"} if shrink else {"mode": "bilinear", "align_corners": False}
    weight = functional.interpolate(observed[None].float(), size=size, **mode)
    mean = functional.interpolate((pixels * observed)[None], size=size, **mode)
    seen = weight[0] > 0.5
    resized = torch.where(seen, mean[0] / weight[0].clamp(min=1e-6), 0.0)
    return resized, seen, _average_sets(allowed, size) if shrink else _nearest_sets(allowed, size)


def _nearest_sets(allowed: Tensor, size: int) -> Tensor:
    near = functional.interpolate(allowed[None, None].float(), size=size, mode="nearest-exact")
    return near[0, 0].to(allowed.dtype)


def _average_sets(allowed: Tensor, size: int) -> Tensor:
    """Sets of mixed pixels: a class is allowed where it was in a third of the labelled area.

    Where labels have room for shares (int16), land and water that meet get the exact share of each,
    if nine tenths of the area are labelled as the one or the other.
    """
    bits = torch.arange(8, device=allowed.device).view(-1, 1, 1)
    planes = torch.cat([(allowed >> bits) & 1, (allowed & SETS != IGNORED)[None]]).float()
    water = water_share(allowed)
    planes = torch.cat([planes, water.nan_to_num(0.0)[None], ~water.isnan()[None]])
    parts = functional.interpolate(planes[None], size=size, mode="area")[0]
    labelled, wet, surface = parts[8:]
    sets = ((parts[:8] > labelled / 3).long() << bits).sum(0)
    if allowed.dtype == torch.int16:
        sets = torch.where(surface > 0.9, from_share(wet / surface.clamp(min=0.1)), sets)
    return torch.where(labelled > 0.5, sets, IGNORED).to(allowed.dtype)

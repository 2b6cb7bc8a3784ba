"""Models for tests: a small U-Net with random weights, and one whose answers are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from geounet.model import Architecture, InputBand, Model, ModelSpec, Normalisation, save_model
from geounet.segmenter import Segmenter, build_network

if TYPE_CHECKING:
    from pathlib import Path

_BANDS = (("B03", "green"), ("B04", "red"), ("B08", "nir"))


def tiny_model(folder: Path, **changes: Any) -> Path:
    """Write tiny.safetensors of three bands; `changes` are fields of its spec."""
    torch.manual_seed(0)
    fields = {
        "name": "tiny",
        "version": "7",
        "architecture": Architecture(decoder="unet2015", options={"features": [2], "padded": True}),
        "bands": tuple(InputBand(name=n, common_name=c, required=True) for n, c in _BANDS),
        "classes": ("land", "water"),
        "normalisation": Normalisation(mean=(-2.0,) * 3, std=(1.0,) * 3),
        "tile": 64,
        "overlap": 16,
        "tile_multiple": 2,
    }
    spec = ModelSpec(**{**fields, **changes})
    path = folder / "tiny.safetensors"
    save_model(path, spec, build_network(spec))
    return path


class Ratio(nn.Module):
    """Logits (0, ln green - ln nir); counts the windows that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.windows = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.windows += len(x)
        ratio = x[:, :1] - x[:, 2:3]
        return torch.cat([torch.zeros_like(ratio), ratio], dim=1)


def ratio_model(body: nn.Module | None = None, **changes: Any) -> Model:
    """A model that finds water where green > nir; `changes` are fields of its spec."""
    fields = {
        "name": "ratio",
        "architecture": Architecture(),
        "bands": tuple(InputBand(name=n, common_name=n, required=True) for _, n in _BANDS),
        "classes": ("land", "water"),
        "normalisation": Normalisation(floor=1e-6, mean=(0.0,) * 3, std=(1.0,) * 3),
        "tile": 16,
        "overlap": 4,
        "tile_multiple": 1,
    }
    spec = ModelSpec(**{**fields, **changes})
    return Model(spec, Segmenter(body or Ratio(), spec.normalisation).eval(), "test")

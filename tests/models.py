"""A model for the tests that need one and not its answers: a small U-Net with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from geounet.model import Architecture, InputBand, ModelSpec, Normalisation, save_model
from geounet.segmenter import build_network

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

"""Models for tests: a small U-Net with random weights, and one whose answers are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from geounet.engines.openvino_engine import DIGEST_KEY, convert_network
from geounet.engines.silent_openvino import ov
from geounet.model import (
    BFLOAT16_NOTE,
    Architecture,
    InputBand,
    Model,
    ModelSpec,
    Normalisation,
    compiled_path,
    load_model,
    save_model,
)
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


def compiled(path: Path, *, bfloat16: bool = False) -> Path:
    """Put OpenVINO's network beside a model file: processes run it without loading torch."""
    model = load_model(path)
    network = convert_network(model)
    network.set_rt_info(model.digest, DIGEST_KEY)
    if bfloat16:
        network.set_rt_info("0.9995", [DIGEST_KEY[0], BFLOAT16_NOTE])
    ov.save_model(network, compiled_path(path, model.digest, "float"))
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

"""What a model takes and gives: its contract, and how a scene's bands fill it.

The field names follow the STAC Machine Learning Model extension (MLM 1.4) where it has one. The
contract travels as JSON in the model file's metadata (`model`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from geounet.errors import SceneError
from geounet.sensors import SENSORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geounet.radiometry import Radiometry

__all__ = [
    "UNET2015",
    "Architecture",
    "InputBand",
    "Inputs",
    "ModelSpec",
    "Normalisation",
    "default_bands",
    "match_bands",
]

UNET2015 = "unet2015"
"""Decoder name of geounet's own U-Net (`networks`); others are segmentation-models-pytorch's."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputBand(_Frozen):
    """One band that the network takes."""

    name: str
    """The training data's name for it: ``B03``."""
    common_name: str
    """Common name of the band (`sensors`): ``green``."""
    accepts: tuple[str, ...] = ()
    """Other common names that may stand in when the scene lacks it, best first."""
    required: bool = False
    """A scene without it is refused; any other missing band is declared missing to the network."""


class Normalisation(_Frozen):
    """``(ln(max(reflectance, floor)) - mean) / std``, band by band."""

    floor: float = Field(default=1e-3, gt=0)
    """Least reflectance that is told apart from none."""
    mean: tuple[float, ...]
    """Mean of the logarithm per band."""
    std: tuple[float, ...]
    """Standard deviation of the logarithm per band."""


class Architecture(_Frozen):
    """A network of segmentation-models-pytorch, or ``unet2015`` (`networks`)."""

    decoder: str = "Unet"
    """Name of the network: ``Unet``, ``UnetPlusPlus``, ``DeepLabV3Plus``, …, ``unet2015``."""
    encoder: str = Field(default="resnet18", pattern=r"^[\w.-]*$")
    """Name of the encoder (none for ``unet2015``): ``resnet34``, ``tu-mobilenetv4_conv_small``.

    No colon, which in timm stands for a place to fetch the network from.
    """
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the network's constructor; for ``Unet`` also ``input_skip: true``, which
    shows the last block the input (`networks.InputSkip`)."""

    @model_validator(mode="before")
    @classmethod
    def _no_encoder(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("decoder") != UNET2015:
            return values
        if values.get("encoder"):
            raise ValueError(f"{UNET2015} has no encoder; leave out encoder={values['encoder']!r}")
        return {**values, "encoder": ""}


class ModelSpec(_Frozen):
    """The contract of a model: what it takes, what it gives, and where it comes from."""

    name: str
    version: str = "0"
    architecture: Architecture
    bands: tuple[InputBand, ...] = Field(min_length=1)
    """Bands in the network's order."""
    classes: tuple[Literal["land", "water", "obscured"], ...]
    """Classes in the network's order; ``land`` and ``water`` are always among them."""
    normalisation: Normalisation
    temperature: float = Field(default=1.0, gt=0)
    """Logits are divided by it before the softmax (Guo et al. 2017, arXiv:1706.04599)."""
    tile: int = Field(default=512, ge=1)
    """Window size in pixels that suits the model."""
    overlap: int = Field(default=64, ge=0)
    """Overlap in pixels that suits the model."""
    tile_multiple: int = Field(default=32, ge=1)
    """Network outputs have sides of ``tile_multiple * n + tile_remainder`` pixels."""
    tile_remainder: int = Field(default=0, ge=0)
    """Not 0 for networks of unpadded convolutions."""
    margin: int = Field(default=0, ge=0)
    """Pixels that the network's output lacks of its input on each side (unpadded convolutions)."""
    gsd: tuple[float, float] = (10.0, 30.0)
    """Pixel sizes in metres that the model was trained for."""
    licence: str = ""
    sources: tuple[str, ...] = ()
    """What it was trained on, with licences."""
    metrics: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        n = len(self.bands)
        if len(self.normalisation.mean) != n or len(self.normalisation.std) != n:
            raise ValueError(f"normalisation must have one mean and std for each of {n} bands")
        if min(self.normalisation.std) <= 0:
            raise ValueError("normalisation.std must be above 0")
        if not {"land", "water"} <= set(self.classes) or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must be distinct and hold land and water: {self.classes}")
        if self.overlap >= self.tile:
            raise ValueError(f"overlap {self.overlap} must be less than tile {self.tile}")
        return self


def default_bands() -> tuple[InputBand, ...]:
    """The twelve Sentinel-2 bands; green, red and a near infrared are required."""
    stand_ins = {"nir": ("nir08",)}
    return tuple(
        InputBand(
            name=band.name,
            common_name=band.common_name,
            accepts=stand_ins.get(band.common_name, ()),
            required=band.common_name in {"green", "red", "nir"},
        )
        for band in SENSORS["sentinel-2-l2a"].bands
    )


@dataclass(frozen=True, slots=True)
class Inputs:
    """How a scene's bands fill a model's inputs."""

    read: tuple[int, ...]
    """Which of the scene's bands are read (0-based), in the order in which the model has them."""
    take: tuple[int, ...]
    """For each of the model's bands its place in `read`; 0 where it is missing."""
    gain: tuple[float, ...]
    """For each of the model's bands the reflectance per stored number; 0 where it is missing."""
    bias: tuple[float, ...]
    """For each of the model's bands the reflectance at stored number 0."""


def match_bands(spec: ModelSpec, found: Sequence[str], radiometry: Radiometry) -> Inputs:
    """Find each of the model's bands among a scene's; each of these fills one at most.

    Args:
        spec: the model's contract.
        found: common names of the scene's bands, in file order.
        radiometry: scale and offset of those bands.

    Raises:
        SceneError: a required band is missing (all missing ones are named), or all bands are.
    """
    chosen: list[int | None] = []
    for band in spec.bands:
        names = [n for n in (band.common_name, *band.accepts) if n in found]
        places = [found.index(n) for n in names]
        chosen.append(next((place for place in places if place not in chosen), None))
    missing = [
        f"{b.common_name} ({b.name})"
        for b, index in zip(spec.bands, chosen, strict=True)
        if b.required and index is None
    ]
    if missing or all(index is None for index in chosen):
        needs = ", ".join(missing) or "at least one of its bands"
        raise SceneError(
            f"the model {spec.name} needs {needs}; the scene has {', '.join(found)}. "
            f"If a band goes by another name, name them all in file order with --bands."
        )
    read = tuple(index for index in chosen if index is not None)
    return Inputs(
        read=read,
        take=tuple(0 if index is None else read.index(index) for index in chosen),
        gain=tuple(0.0 if index is None else radiometry.scale[index] for index in chosen),
        bias=tuple(0.0 if index is None else radiometry.offset[index] for index in chosen),
    )

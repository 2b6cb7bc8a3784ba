"""What a training is told: one frozen value, from a TOML file or from keyword arguments."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from geounet.errors import ConfigError, broken_rule
from geounet.model import Architecture
from geounet.sensors import common_name

__all__ = [
    "AugmentConfig",
    "LossConfig",
    "OptimiserConfig",
    "ScheduleConfig",
    "TrainConfig",
    "joined",
    "parse_setting",
    "read_config",
]

_Class = Literal["land", "water", "obscured"]
_CODES: dict[_Class, tuple[int, ...]] = {"land": (0,), "water": (1,), "obscured": (2,)}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LossConfig(_Frozen):
    """What a training makes small (`losses`)."""

    name: Literal[
        "bce",
        "dice",
        "bce_dice",
        "focal",
        "lovasz",
        "lovasz_hinge",
        "cross_entropy",
        "border",
        "partial",
    ] = "bce_dice"
    """``partial`` is the default model's: labels may be sets of classes, and wrong now and then."""
    dice_weight: float = Field(default=0.5, ge=0, le=1)
    """Share of Dice in ``bce_dice``; its weight beside 1 in ``partial``."""
    smooth: float = Field(default=1.0, ge=0)
    """Added to both sides of the fraction in ``dice`` and ``bce_dice``."""
    gamma: float = Field(default=2.0, ge=0)
    """How far ``focal`` turns from easy pixels."""
    weights: dict[_Class, float] = Field(default_factory=dict)
    """Weight of each class in ``cross_entropy``, ``focal`` and ``border``; else 1."""
    w0: float = Field(default=10.0, ge=0)
    """Weight that ``border`` gives to what lies between water bodies that all but touch."""
    sigma: float = Field(default=5.0, gt=0)
    """Pixels over which that falls."""


class OptimiserConfig(_Frozen):
    """How weights follow their gradients."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate; 1e-2 suits ``sgd``."""
    weight_decay: float = Field(default=0.01, ge=0)
    momentum: float = Field(default=0.99, ge=0, lt=1)
    """Of ``sgd``, as in the U-Net paper."""
    clip: float = Field(default=2.0, gt=0)
    """Largest norm of a gradient."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients are added up for one step."""


class ScheduleConfig(_Frozen):
    """How the learning rate goes."""

    name: Literal["cosine", "onecycle", "plateau", "constant"] = "cosine"
    warmup: int = Field(default=100, ge=0)
    """Steps of a linear rise at the start, a tenth of all at most (``onecycle`` has its own)."""
    factor: float = Field(default=0.5, gt=0, lt=1)
    """What ``plateau`` multiplies the rate by."""
    patience: int = Field(default=3, ge=1)
    """Validations without a gain before ``plateau`` does so."""


class AugmentConfig(_Frozen):
    """How windows are varied. Each switch is independent."""

    flips: bool = True
    """The square's eight symmetries."""
    rotation: bool = False
    """Any angle."""
    elastic: float = Field(default=0.0, ge=0)
    """Pixels by which smooth random displacements move the picture (the paper's deformation)."""
    scales: tuple[float, float] = (0.7, 1.5)
    """Pixel sizes relative to the scenes'; (1, 1) for none."""
    intensity: float = Field(default=0.1, ge=0)
    """Spread of the logarithm of a gain for each window, half of it for each band."""
    spectral: bool = False
    """The default model's physics: haze, clouds, shadows, glint, sediment, snow, sensor noise."""
    band_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Chance for each of `TrainConfig.optional_bands` to go missing."""

    @field_validator("scales")
    @classmethod
    def _rising(cls, scales: tuple[float, float]) -> tuple[float, float]:
        if not 0.1 <= scales[0] <= 1 <= scales[1] <= 10:
            raise ValueError("must be a least size of 0.1 to 1 and a largest of 1 to 10")
        return scales


class TrainConfig(_Frozen):
    """Everything that decides how a model is trained. Unknown keys are refused."""

    data: tuple[Path, ...] = Field(min_length=1)
    """Folders of scenes ``NAME.tif`` with labels beside them: ``NAME.label.tif``, or polygons in
    ``NAME.gpkg``, ``.geojson``, ``.fgb``, ``.parquet`` or ``.shp``."""
    output: Path
    """Folder of the outputs. A training that was interrupted there goes on."""
    name: str = Field(default="custom", min_length=1)
    """The model's name."""
    licence: str = ""
    """The model's licence, for its file."""
    valid: tuple[Path, ...] = ()
    """Folders of scenes to validate on; none keeps back a share of the sites in `data`."""
    valid_share: float = Field(default=0.2, ge=0, lt=1)
    """Share of the sites kept back; 0 for no validation."""
    fold: tuple[int, int] | None = None
    """Number, from 1, and count of folds: sites are dealt out to so many, and those of this one are
    kept back, instead of a `valid_share`. Each site is in one fold, whatever the fold's number."""
    site_pattern: str = ""
    """Regular expression whose first group, found in a scene's name, names its site; without one,
    scenes within 1 km of each other are one site."""

    bands: tuple[str, ...] = ()
    """Bands that the model needs, e.g. ``B02 B03 B04 B08``; none takes those of the scenes, which
    must then all have the same."""
    optional_bands: tuple[str, ...] = ()
    """Bands that it uses where a scene has them."""
    scale: float | None = Field(default=None, gt=0)
    """Reflectance per stored number in all scenes; None takes the files' word."""
    offset: float | None = None
    """Reflectance at stored number 0 in all scenes; None takes the files' word."""
    classes: tuple[_Class, ...] = ("land", "water")
    label_values: dict[_Class, tuple[int, ...]] = Field(default_factory=lambda: dict(_CODES))
    """Values of label rasters, and of a column ``class`` of polygons, that mean each class."""
    ignore_values: tuple[int, ...] = (255,)
    """Values of label rasters that mean "unknown"; so does the raster's own nodata."""
    label_band: str | int | None = None
    """Band of label rasters: its description, or its number from 1; None takes ``hand``, or the
    first."""
    outside: Literal["auto", "land", "unknown"] = "auto"
    """What lies outside all polygons; ``auto`` is unknown if some polygon is land, else land."""

    architecture: Architecture = Architecture(encoder="resnet18")
    start: str | None = None
    """A model's name or file to start from: its weights, architecture and bands."""
    gradient_checkpointing: bool = False
    """Compute parts again instead of keeping them: less memory, a third more time."""

    loss: LossConfig = LossConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    augment: AugmentConfig = AugmentConfig()
    average: float = Field(default=0.995, ge=0, lt=1)
    """Decay per step of the weights' moving average, which is what becomes the model."""

    window: int = Field(default=256, ge=16)
    """Side in pixels of the windows that the network predicts."""
    batch: int = Field(default=8, ge=1)
    """Windows at once (on each GPU)."""
    steps: int | None = Field(default=None, ge=1)
    """Steps to train for; 4000 if neither this nor `epochs` is given."""
    epochs: float | None = Field(default=None, gt=0)
    """The same, in how often as many pixels are drawn as the training scenes have."""
    validate_every: int = Field(default=200, ge=1)
    """Steps between validations, and between checkpoints."""
    patience: int | None = Field(default=None, ge=1)
    """Validations without a gain after which training stops; None never stops early."""

    seed: int = 0
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""
    mixed: bool = True
    """Compute in half precision where the device is the faster for it."""
    memory_mb: int = Field(default=2048, ge=0)
    """Scenes are held in memory up to this many megabytes; the rest is read window by window."""

    @field_validator("bands", "optional_bands")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if common_name(name) is None]
        if unknown:
            raise ValueError(f"not known: {', '.join(unknown)}; use names such as B03, SR_B5, nir")
        return names

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.classes not in (("land", "water"), ("land", "water", "obscured")):
            raise ValueError(f"classes must be land, water and perhaps obscured: {self.classes}")
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both")
        if self.fold is not None:
            self._check_fold(*self.fold)
        if self.optional_bands and not self.bands:
            raise ValueError("optional_bands go with bands: name those that every scene has too")
        names = [common_name(name) for name in (*self.bands, *self.optional_bands)]
        if len(set(names)) < len(names):
            raise ValueError(f"each band may be named once: {names}")
        values = [v for name in self.classes for v in self.label_values.get(name, ())]
        values += self.ignore_values
        if len(set(values)) < len(values):
            raise ValueError(f"label_values and ignore_values may hold each value once: {values}")
        return self

    def _check_fold(self, number: int, count: int) -> None:
        if not 1 <= number <= count or count < 2:
            raise ValueError(
                f"a fold is its number and how many there are, as 2/5: {number}/{count}"
            )
        if self.valid:
            raise ValueError("give a fold or folders to validate on (valid), not both")

    @classmethod
    def of(cls, **options: Any) -> TrainConfig:
        """Build it, with one clear error.

        Raises:
            ConfigError: a key that is not known, or a value that breaks its rule.
        """
        try:
            return cls(**options)
        except ValidationError as error:
            raise broken_rule(error, cls) from error


def read_config(path: Path, **options: Any) -> TrainConfig:
    """Read a TOML file; folders in it, and a model file to start from, are relative to it.

    Args:
        path: the file.
        options: keys that stand above the file's; tables are joined key by key.

    Raises:
        ConfigError: there is no such file, it is not TOML, a key is not known, or a value breaks
            its rule.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"a configuration must be a TOML file: {path}: {error}.") from error
    for key in ("data", "valid"):
        if isinstance(found.get(key), str):
            found[key] = [found[key]]
        if isinstance(found.get(key), list):
            found[key] = [path.parent / str(folder) for folder in found[key]]
    if isinstance(found.get("output"), str):
        found["output"] = path.parent / found["output"]
    start = path.parent / str(found.get("start", ""))
    if start.is_file():
        found["start"] = str(start)
    return TrainConfig.of(**joined(found, options))


def joined(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two nested tables as one; where both have a key, the second has its way."""
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = joined(result[key], value) if both else value
    return result


def parse_setting(text: str) -> dict[str, Any]:
    """A setting as typed, ``loss.gamma=1.5``, as a nested table; what is no TOML is a string.

    Raises:
        ConfigError: it has no ``=``, or no key.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise ConfigError(f"a setting is KEY=VALUE; got {text!r}.")
    for written in (value, json.dumps(value)):
        try:
            return tomllib.loads(f"{key} = {written}")
        except tomllib.TOMLDecodeError:
            continue
    raise ConfigError(f"a setting's key must be letters, dots and underscores; got {key!r}.")

"""The model: its contract, its file, and the engine that runs it.

A model is one safetensors file: the weights, and the `ModelSpec` as JSON in the file's metadata.
The spec's field names follow the STAC Machine Learning Model extension (MLM 1.4) where it has one.
Nothing in the file is executed when it is loaded.

This module and `training` are the only ones that import torch and segmentation-models-pytorch.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from geounet.deciding import decide
from geounet.errors import ConfigError, ModelError, OutputError, SceneError
from geounet.networks import Geometry, InputSkip, UNet
from geounet.sensors import SENSORS

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from geounet.radiometry import Radiometry
    from geounet.tiling import Axis

__all__ = [
    "Architecture",
    "InputBand",
    "Inputs",
    "Model",
    "ModelSpec",
    "Normalisation",
    "Segmenter",
    "TorchEngine",
    "build_network",
    "default_bands",
    "load_model",
    "match_bands",
    "resolve_device",
    "save_model",
    "shipped_models",
]

_METADATA_KEY = "geounet"
_UNET = "unet2015"
_CODES = {"land": 0, "water": 1, "obscured": 2}


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
        if not isinstance(values, dict) or values.get("decoder") != _UNET:
            return values
        if values.get("encoder"):
            raise ValueError(f"{_UNET} has no encoder; leave out encoder={values['encoder']!r}")
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


class Segmenter(nn.Module):
    """A network with its normalisation inside, so that it takes a scene's numbers as stored.

    A band that the scene lacks has gain 0. It and every pixel that was not observed are zero
    after normalisation, which is the mean of the training data.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        self.body = body
        self._floor = normalisation.floor
        column = (1, -1, 1, 1)
        mean, std = torch.tensor(normalisation.mean), torch.tensor(normalisation.std)
        self.register_buffer("mean", mean.view(column), persistent=False)
        self.register_buffer("std", std.view(column), persistent=False)

    def normalise(self, dn: Tensor, gain: Tensor, bias: Tensor, observed: Tensor) -> Tensor:
        """Network input of numbers as stored; the arguments are those of `forward`."""
        gain, bias = gain[..., None, None], bias[..., None, None]
        x = dn.to(gain.dtype, copy=True)
        if dn.is_floating_point():
            x.nan_to_num_()
        x.mul_(gain).add_(bias).clamp_(min=self._floor).log_().sub_(self.mean).div_(self.std)
        return x.masked_fill_(~((gain != 0) & observed), 0.0)  # not "*": 0 * inf is NaN

    def forward(self, dn: Tensor, gain: Tensor, bias: Tensor, observed: Tensor) -> Tensor:
        """Logits of each class.

        Args:
            dn: numbers as stored [N, bands, h, w], of any real type.
            gain: reflectance per number, float32 [N or 1, bands]; 0 where the band is missing.
            bias: reflectance at number 0, float32 [N or 1, bands].
            observed: bool [N, 1, h, w].

        Returns:
            [N, classes, h, w]
        """
        logits: Tensor = self.body(self.normalise(dn, gain, bias, observed))
        return logits


def build_network(spec: ModelSpec) -> Segmenter:
    """The network that a spec describes, with random weights (nothing is downloaded).

    Raises:
        ModelError: there is no such network, it refuses its arguments, or the spec's margin,
            tile_multiple and tile_remainder are not what it has.
    """
    arch = spec.architecture
    build = _build_unet if arch.decoder == _UNET else _build_smp
    try:
        body = build(arch, len(spec.bands), len(spec.classes))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"cannot build {arch.decoder} with encoder {arch.encoder or 'none'} and "
            f"{arch.options}: {error}. Names are {_UNET} and those of segmentation-models-pytorch."
        ) from error
    _check_geometry(spec, body)
    return Segmenter(body, spec.normalisation)


def _build_unet(arch: Architecture, bands: int, classes: int) -> nn.Module:
    return UNet(bands, classes, **arch.options)


def _build_smp(arch: Architecture, bands: int, classes: int) -> nn.Module:
    import segmentation_models_pytorch as smp  # noqa: PLC0415 - costs a second; not every use needs it

    options = dict(arch.options)
    input_skip = options.pop("input_skip", False)
    body: nn.Module = smp.create_model(
        arch=arch.decoder,
        encoder_name=arch.encoder,
        encoder_weights=None,
        in_channels=bands,
        classes=classes,
        **options,
    )
    if input_skip:
        if arch.decoder != "Unet" or options.get("decoder_attention_type"):
            raise ValueError("input_skip is for the decoder Unet without attention")
        body.decoder = InputSkip(cast("nn.Module", body.decoder), bands)
    return body


def _check_geometry(spec: ModelSpec, body: nn.Module) -> None:
    """A wrong margin would move every pixel of the mask, so it is refused."""
    wanted = body.geometry if isinstance(body, UNet) else Geometry(0, spec.tile_multiple, 0)
    told = Geometry(spec.margin, spec.tile_multiple, spec.tile_remainder)
    if told != wanted:
        raise ModelError(
            f"the spec of {spec.name} must have its network's margin {wanted.margin}, "
            f"tile_multiple {wanted.multiple} and tile_remainder {wanted.remainder}; "
            f"got {told.margin}, {told.multiple} and {told.remainder}."
        )


@dataclass(frozen=True, eq=False)
class Model:
    """A spec with its network, ready for an engine."""

    spec: ModelSpec
    network: Segmenter
    digest: str
    """SHA-256 of the model file, or of the weights of a network that came from no file."""


def save_model(path: str | os.PathLike[str], spec: ModelSpec, network: Segmenter) -> None:
    """Write a model file: safetensors with the spec as JSON in its metadata.

    It appears under its name only when it is complete.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    tensors = {key: value.contiguous().cpu() for key, value in network.body.state_dict().items()}
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            part = Path(folder) / path.name
            part.write_bytes(save(tensors, metadata={_METADATA_KEY: spec.model_dump_json()}))
            part.replace(path)
    except OSError as error:
        raise OutputError(
            f"a model file must be writable: {path}: {error}. Check the folder and the free space."
        ) from error


def shipped_models() -> dict[str, Path]:
    """Model files inside the package, by name."""
    folder = resources.files("geounet") / "models"
    return {p.stem: p for p in sorted(Path(str(folder)).glob("*.safetensors"))}


def load_model(source: str | os.PathLike[str] = "default") -> Model:
    """Load a model by the name of one that ships in the package, or from a file.

    Raises:
        ModelError: there is no such model, the file is not a model file or is damaged, or its
            weights do not fit the network that its spec describes.
    """
    path = shipped_models().get(str(source), Path(source))
    if not path.is_file():
        raise ModelError(
            f"a model is a file or one of {', '.join(shipped_models()) or 'none shipped'}; "
            f"there is no {str(source)!r}."
        )
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_METADATA_KEY)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise ModelError(f"not a whole safetensors file: {path}: {error}.") from error
    if text is None:
        raise ModelError(
            f"a model file holds its spec under {_METADATA_KEY!r} in the metadata; {path} has "
            f"none. Write model files with geounet.save_model."
        )
    spec = _parse_spec(text, path)
    network = build_network(spec)
    _load_weights(network.body, tensors, path)
    return Model(spec, network.eval(), hashlib.sha256(path.read_bytes()).hexdigest())


def _parse_spec(text: str, path: Path) -> ModelSpec:
    try:
        return ModelSpec.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "spec"
        raise ModelError(
            f"the spec in {path} breaks the contract at {where}: {first['msg']}. "
            f"The file may come from a newer geounet."
        ) from error


def _load_weights(body: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load weights (float16 on disk is allowed) that must fit the network exactly."""
    wanted = body.state_dict()
    if wanted.keys() != tensors.keys():
        odd = sorted(wanted.keys() ^ tensors.keys())
        raise ModelError(f"weights in {path} do not fit its network; first odd one: {odd[0]}.")
    try:
        body.load_state_dict({key: value.to(wanted[key].dtype) for key, value in tensors.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"weights in {path} do not fit its network: {reason}") from error


def resolve_device(name: str = "auto") -> torch.device:
    """The device to run on: CUDA, else MPS, else the CPU, or the one that is named.

    Raises:
        ConfigError: a name that torch does not know, or a device that this machine lacks.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"--device must be auto, cpu, cuda, cuda:N or mps, and present; got {name!r} ({reason})"
        ) from error
    return device


def _portable(dn: NDArray[Any]) -> NDArray[Any]:
    """Stored numbers in a type that torch can move and index on every device.

    It can't do so with unsigned ones of 16 bits: their bits travel as signed ones.
    """
    if dn.dtype == np.uint16:
        return dn.view(np.int16)
    if dn.dtype in (np.uint8, np.int16, np.int32, np.float32):
        return dn
    return dn.astype(np.float32)


class TorchEngine:
    """Runs a model in PyTorch on one device; scores stay there until rows are finished.

    Args:
        model: the model.
        inputs: how the scene's bands fill the model's.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        batch: windows predicted at once; None chooses by the device.
    """

    def __init__(
        self,
        model: Model,
        inputs: Inputs,
        *,
        device: str = "auto",
        batch: int | None = None,
    ) -> None:
        self.device = resolve_device(device)
        self.batch = batch or (2 if self.device.type == "cpu" else 16)
        self._spec = model.spec
        network = model.network.to(self.device).to(memory_format=torch.channels_last)
        self._network = network.eval()
        self._take = torch.tensor(inputs.take, device=self.device)
        self._gain = torch.tensor([inputs.gain], device=self.device, dtype=torch.float32)
        self._bias = torch.tensor([inputs.bias], device=self.device, dtype=torch.float32)
        self._half = torch.float16 if self.device.type == "cuda" else None

    @property
    def channels(self) -> int:
        """Channels of the scores: one a class."""
        return len(self._spec.classes)

    @property
    def _on_cpu(self) -> bool:
        """Scores are then numpy arrays: blending and deciding take a tenth of torch's time."""
        return self.device.type == "cpu"

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """Float32 zeros: a numpy array on the CPU, else a tensor on the device."""
        return (
            np.zeros(shape, np.float32) if self._on_cpu else torch.zeros(shape, device=self.device)
        )

    def asarray(self, array: NDArray[Any]) -> Any:
        """A numpy array as what `zeros` makes."""
        return array if self._on_cpu else self._tensor(array)

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    @torch.inference_mode()
    def predict(
        self, dn: NDArray[Any], observed: NDArray[np.bool_], cols: Axis
    ) -> Iterator[tuple[int, Any]]:
        """Class probabilities of one row of windows, window by window.

        Args:
            dn: numbers as stored [bands read, tile + 2 margins, width + 2 margins].
            observed: bool [tile + 2 margins, width + 2 margins].
            cols: the windows across, without margins.

        Yields:
            Index of a window across, rising, and its probabilities float32 [classes, tile, tile],
            as what `zeros` makes. A window with nothing observed is left out.
        """
        seen, rows = self._tensor(observed), self._tensor(_portable(dn))
        spec, frame = self._spec, 2 * self._spec.margin
        size = (dn.shape[1] - frame, cols.tile)
        pad = [(spec.tile_remainder - side) % spec.tile_multiple for side in size]
        spans = [slice(start, start + cols.tile + frame) for start in cols.starts]
        wanted = [i for i, span in enumerate(spans) if observed[:, span].any()]
        for first in range(0, len(wanted), self.batch):
            group = wanted[first : first + self.batch]
            x = torch.stack([rows[:, :, spans[i]] for i in group])
            m = torch.stack([seen[None, :, spans[i]] for i in group])
            if any(pad):
                x = nn.functional.pad(x, (0, pad[1], 0, pad[0]))
                m = nn.functional.pad(m, (0, pad[1], 0, pad[0]))
            x = x[:, self._take]
            if dn.dtype == np.uint16:
                x = x.int() & 0xFFFF
            scores = self._probabilities(x, m)[:, :, : size[0], : size[1]]
            yield from zip(group, scores.numpy() if self._on_cpu else scores, strict=True)

    def _probabilities(self, dn: Tensor, observed: Tensor) -> Tensor:
        x = self._network.normalise(dn, self._gain, self._bias, observed)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self._half, enabled=self._half is not None):
            logits = self._network.body(x)
        return torch.softmax(logits.float() / self._spec.temperature, dim=1)

    @torch.inference_mode()
    def decide(
        self, scores: Any, observed: NDArray[np.bool_], threshold: float = 0.5
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Mask codes and water probability of finished rows; see `geounet.deciding.decide`.

        Args:
            scores: blended probabilities [classes, n, width], as what `zeros` makes.
            observed: bool [n, width].
            threshold: least probability of water.

        Raises:
            ModelError: the network gave scores that are no numbers.
        """
        decided = decide if self._on_cpu else self._decide
        try:
            return decided(scores, observed, self._spec.classes, threshold)
        except FloatingPointError as error:
            raise ModelError(
                f"scores must be numbers; the model {self._spec.name} gave NaN or infinity on "
                f"{self.device}. Its weights are damaged, or overflow in half precision: try "
                f"--device cpu."
            ) from error

    def _decide(
        self, scores: Tensor, observed: NDArray[np.bool_], classes: Sequence[str], threshold: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """`decide` on a card."""
        if not torch.isfinite(scores).all():
            raise FloatingPointError
        place = {name: scores[i] for i, name in enumerate(classes)}
        water = place["water"] / (place["water"] + place["land"]).clamp(min=1e-6)
        codes = (water >= threshold).to(torch.uint8)
        if "obscured" in place:
            codes[place["obscured"] > 0.5] = _CODES["obscured"]
        unseen = ~self._tensor(observed)
        codes[unseen] = 255
        level = (water * 250).round().to(torch.uint8)
        level[unseen] = 255
        return codes.cpu().numpy(), level.cpu().numpy()

"""The network of a model: built from its spec, with the normalisation inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from geounet.errors import ModelError
from geounet.networks import Geometry, InputSkip, UNet
from geounet.spec import UNET2015

if TYPE_CHECKING:
    from pathlib import Path

    from geounet.spec import Architecture, ModelSpec, Normalisation

__all__ = ["Segmenter", "build_network", "load_network"]


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
    build = _build_unet if arch.decoder == UNET2015 else _build_smp
    try:
        body = build(arch, len(spec.bands), len(spec.classes))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"cannot build {arch.decoder} with encoder {arch.encoder or 'none'} and "
            f"{arch.options}: {_reason(error, arch.encoder)}. Names are {UNET2015} and those of "
            f"segmentation-models-pytorch."
        ) from error
    _check_geometry(spec, body)
    return Segmenter(body, spec.normalisation)


def _reason(error: Exception, encoder: str | None) -> str:
    """What an error says; of a hundred encoders only those with names like the one that is not."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    head, listed, _ = text.partition(", supported encoders: ")
    if not listed:
        return text
    import difflib  # noqa: PLC0415 - for this alone

    from segmentation_models_pytorch.encoders import get_encoder_names  # noqa: PLC0415

    near = difflib.get_close_matches(encoder or "", get_encoder_names())
    return head + (f"; the nearest are {', '.join(near)}" if near else "")


def _build_unet(arch: Architecture, bands: int, classes: int) -> nn.Module:
    return UNet(bands, classes, **arch.options)


def _build_smp(arch: Architecture, bands: int, classes: int) -> nn.Module:
    import segmentation_models_pytorch as smp  # noqa: PLC0415 - costs a second; not every use needs it

    options = dict(arch.options)
    input_skip = options.pop("input_skip", False)
    if arch.decoder.lower() == "dpt":  # its transformers else take windows of one size only
        options.setdefault("dynamic_img_size", True)
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


def load_network(path: Path, spec: ModelSpec) -> Segmenter:
    """The network in a model file, ready to predict.

    Raises:
        ModelError: the file is damaged, or its weights do not fit the network of its spec.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"not a whole safetensors file: {path}: {error}.") from error
    network = build_network(spec)
    _load_weights(network.body, tensors, path)
    return network.eval()


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

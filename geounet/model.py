"""The model: its contract with its network, and the file that holds both.

A model is one safetensors file: the weights, and the `ModelSpec` as JSON in the file's metadata.
Nothing in the file is executed when it is loaded. Beside it may lie its network as OpenVINO runs
it on the CPU, named after the SHA-256 of the very file that it was made from; then torch is not
imported until something asks for `Model.network`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from geounet.errors import ModelError
from geounet.spec import (
    Architecture,
    InputBand,
    Inputs,
    ModelSpec,
    Normalisation,
    default_bands,
    match_bands,
)
from geounet.staging import whole_file

if TYPE_CHECKING:
    import os

    from geounet.segmenter import Segmenter

__all__ = [
    "BFLOAT16_NOTE",
    "Architecture",
    "CompiledKind",
    "InputBand",
    "Inputs",
    "Model",
    "ModelSpec",
    "Normalisation",
    "compiled_path",
    "default_bands",
    "load_model",
    "match_bands",
    "save_model",
    "shipped_models",
]

_METADATA_KEY = "geounet"

CompiledKind = Literal["float", "int8"]
"""OpenVINO's network in floats, or with most of it in 8-bit integers."""

BFLOAT16_NOTE = "bfloat16_agreement"
"""What the file of a network in floats notes if it may compute in bfloat16: the share of pixels
whose codes were those of float32."""
_NOTES = 2048
"""Bytes at the end of such a file that hold its notes."""


@dataclass(frozen=True, eq=False)
class Model:
    """A spec with its network, ready for an engine."""

    spec: ModelSpec
    source: Segmenter | Path
    """The network, or the model file that holds it."""
    digest: str
    """SHA-256 of the model file, or of the weights of a network that came from no file."""

    def __repr__(self) -> str:
        bands = ", ".join(band.name for band in self.spec.bands)
        return f"<Model {self.spec.name} {self.spec.version}: {bands}; sha256 {self.digest[:12]}>"

    @cached_property
    def network(self) -> Segmenter:
        """The network. The first use of one that is in a file imports torch and reads it.

        Raises:
            ModelError: the weights do not fit the network that the spec describes.
        """
        if not isinstance(self.source, Path):
            return self.source
        from geounet.segmenter import load_network  # noqa: PLC0415 - brings torch, which costs seconds

        return load_network(self.source, self.spec)

    def compiled(self, kind: CompiledKind) -> Path | None:
        """OpenVINO's network beside the model file, if there is one made from this very file."""
        if not isinstance(self.source, Path):
            return None
        path = compiled_path(self.source, self.digest, kind)
        return path if path.is_file() else None

    def allows_bfloat16(self) -> bool:
        """Whether masks in bfloat16 were found to agree with those in float32 well enough.

        `pipelines/compile_default.py` looks, and notes it in OpenVINO's network.
        """
        path = self.compiled("float")
        return path is not None and f"<{BFLOAT16_NOTE} ".encode() in path.read_bytes()[-_NOTES:]


def compiled_path(model: Path, digest: str, kind: CompiledKind) -> Path:
    """Where OpenVINO's network of a model file lies: ``NAME.KIND-DIGEST.xml``, and ``.bin``."""
    return model.with_name(f"{model.stem}.{kind}-{digest[:12]}.xml")


def save_model(path: str | os.PathLike[str], spec: ModelSpec, network: Segmenter) -> None:
    """Write a model file: safetensors with the spec as JSON in its metadata.

    It appears under its name only when it is complete.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.torch import save  # noqa: PLC0415 - brings torch, which costs seconds

    tensors = {key: value.contiguous().cpu() for key, value in network.body.state_dict().items()}
    with whole_file(Path(path)) as draft:
        draft.write_bytes(save(tensors, metadata={_METADATA_KEY: spec.model_dump_json()}))


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
    spec = _read_spec(path)
    model = Model(spec, path, hashlib.sha256(path.read_bytes()).hexdigest())
    if not model.compiled("float"):  # a file that one was made from is whole, to the bit
        _ = model.network
    return model


def _read_spec(path: Path) -> ModelSpec:
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(_METADATA_KEY)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"not a whole safetensors file: {path}: {error}.") from error
    if text is None:
        raise ModelError(
            f"a model file holds its spec under {_METADATA_KEY!r} in the metadata; {path} has "
            f"none. Write model files with geounet.save_model."
        )
    return _parse_spec(text, path)


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

"""Which engine runs a model, and on which device."""

from __future__ import annotations

import ctypes
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from geounet.errors import ConfigError

if TYPE_CHECKING:
    from geounet.engines.base import Engine, Precision
    from geounet.model import Model
    from geounet.spec import Inputs

__all__ = [
    "EngineChoice",
    "EngineName",
    "choose_engine",
    "count_gpus",
    "open_engine",
    "resolve_device",
]

EngineName = Literal["torch", "openvino", "openvino-bf16", "openvino-int8"]
"""PyTorch; OpenVINO in float32, in bfloat16, or with the 8-bit network beside the model."""

EngineChoice = Literal["auto", "torch", "openvino", "openvino-bf16", "openvino-int8"]
"""An engine by name, or whichever suits the model and the device."""

_PRECISIONS: dict[str, Precision] = {
    "openvino": "float32",
    "openvino-bf16": "bfloat16",
    "openvino-int8": "int8",
}


def resolve_device(name: str = "auto") -> str:
    """The device to run on: CUDA, else MPS, else the CPU, or the one that is named.

    torch, which takes seconds to load, is asked only where the answer may be another than the CPU.

    Raises:
        ConfigError: a name that is none of these, or a device that this machine lacks.
    """
    if name == "cpu" or (name == "auto" and not _may_have_a_card()):
        return "cpu"
    if not re.fullmatch(r"auto|mps|cuda(:\d+)?", name):
        raise ConfigError(f"--device must be auto, cpu, cuda, cuda:N or mps; got {name!r}.")
    import torch  # noqa: PLC0415 - costs seconds

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=torch.device(name))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise ConfigError(
            f"--device must be there; got {name!r}: {reason}. auto takes the best that is."
        ) from error
    return name


def count_gpus() -> int:
    """How many CUDA devices this process sees."""
    if not _may_have_a_card():
        return 0
    import torch  # noqa: PLC0415 - costs seconds

    return torch.cuda.device_count()


def _may_have_a_card() -> bool:
    """Whether torch may find a device: a Mac, AMD's kernel driver, or NVIDIA's library is there."""
    if sys.platform == "darwin" or Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def choose_engine(model: Model, device: str, engine: EngineChoice = "auto") -> EngineName:
    """The engine for a model on a device that is resolved.

    ``auto`` takes OpenVINO on the CPU, where its network lies beside the model file and OpenVINO
    is installed, and PyTorch otherwise. OpenVINO then computes in bfloat16 where the processor does
    and the model allows it, else in float32. 8-bit integers, whose masks differ a little more, are
    for those who ask for them.

    Raises:
        ConfigError: an engine that this device, model or installation does not have.
    """
    if engine == "torch":
        return "torch"
    if engine == "auto":
        if device != "cpu" or not model.compiled("float") or not _has_openvino():
            return "torch"
        return "openvino-bf16" if model.allows_bfloat16() and _has_bfloat16() else "openvino"
    if device != "cpu":
        raise ConfigError(
            f"--engine {engine} runs on the CPU; got --device {device}. Use --device cpu, or "
            f"--engine torch."
        )
    if not _has_openvino():
        raise ConfigError(
            f"--engine {engine} needs OpenVINO, which is not installed. Install it with "
            f"'pip install openvino', or use --engine torch."
        )
    if engine == "openvino-bf16" and not _has_bfloat16():
        raise ConfigError(
            f"--engine {engine} needs a processor that computes in bfloat16 (AVX512-BF16 or AMX), "
            f"which this one does not. Use --engine openvino."
        )
    if engine == "openvino-int8" and not model.compiled("int8"):
        raise ConfigError(
            f"--engine openvino-int8 needs a quantized network made from this very model file "
            f"(SHA-256 {model.digest[:12]}…), and beside {model.spec.name} there is none. "
            f"Use --engine openvino or torch."
        )
    return engine


def _has_openvino() -> bool:
    return find_spec("openvino") is not None


def _has_bfloat16() -> bool:
    from geounet.engines.openvino_engine import has_bfloat16  # noqa: PLC0415 - may not be there

    return has_bfloat16()


def open_engine(
    model: Model,
    inputs: Inputs,
    *,
    device: str = "auto",
    engine: EngineChoice = "auto",
    batch: int | None = None,
) -> Engine:
    """Make a model ready to run on scenes whose bands fill it in one way.

    Args:
        model: the model.
        inputs: how the scene's bands fill the model's.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        engine: ``auto``, ``torch``, ``openvino``, ``openvino-bf16`` or ``openvino-int8``.
        batch: windows predicted at once; None chooses by the device.

    Raises:
        ConfigError: a device or an engine that is not there.
        ModelError: the network is damaged, or OpenVINO cannot convert it.
    """
    device = resolve_device(device)
    chosen = choose_engine(model, device, engine)
    if chosen == "torch":
        from geounet.engines.torch_engine import TorchEngine  # noqa: PLC0415 - costs seconds

        return TorchEngine(model, inputs, device=device, batch=batch)
    from geounet.engines.openvino_engine import OpenVinoEngine  # noqa: PLC0415 - may not be there

    return OpenVinoEngine(model, inputs, precision=_PRECISIONS[chosen], batch=batch)

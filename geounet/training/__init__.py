"""Training models of one's own, and judging the labels for it.

    >>> from geounet.training import TrainConfig, train
    >>> result = train(TrainConfig.of(data=["scenes"], output="runs/mine", bands=["B03", "B08"]))
    >>> result.metrics["water_iou"]

Names are loaded when they are first used, as torch takes its time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geounet.training.auditing import Audit, audit
    from geounet.training.config import TrainConfig, read_config
    from geounet.training.fitting import TrainProgress, TrainResult, train

__all__ = [
    "Audit",
    "TrainConfig",
    "TrainProgress",
    "TrainResult",
    "audit",
    "read_config",
    "train",
]

_HOMES = {
    "Audit": "auditing",
    "TrainConfig": "config",
    "TrainProgress": "fitting",
    "TrainResult": "fitting",
    "audit": "auditing",
    "read_config": "config",
    "train": "fitting",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'geounet.training' has no attribute {name!r}")
    return getattr(import_module(f"geounet.training.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

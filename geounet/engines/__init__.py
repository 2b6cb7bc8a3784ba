"""Engines: what runs a model's network over windows, behind one protocol.

`open_engine` picks one, `open_ladder` one that goes on with less where memory runs out. PyTorch
runs every network on every device; OpenVINO runs networks on the CPU, and in 8-bit
integers those that have such a form.
"""

from __future__ import annotations

from geounet.engines.base import Decided, Engine
from geounet.engines.choice import (
    EngineChoice,
    EngineName,
    choose_engine,
    count_gpus,
    open_engine,
    resolve_device,
)
from geounet.engines.ladder import open_ladder
from geounet.engines.threads import use_threads

__all__ = [
    "Decided",
    "Engine",
    "EngineChoice",
    "EngineName",
    "choose_engine",
    "count_gpus",
    "open_engine",
    "open_ladder",
    "resolve_device",
    "use_threads",
]

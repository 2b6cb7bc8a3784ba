"""Compiled networks, kept in this process for its next scene.

Compiling takes longer than predicting a small scene. What is kept never changes, any thread may use
it, and it is dropped where memory runs out.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["forget", "keep"]

_MOST = 2
"""Each holds some 80 MiB of the default model: enough for scenes of two sensors in turn."""

_kept: OrderedDict[Hashable, Any] = OrderedDict()
_lock = threading.Lock()


def keep(key: Hashable, make: Callable[[], Any]) -> Any:
    """What was made under a key before, or is made now; the one longest unused makes room for it.

    Args:
        key: all that decides what is made.
        make: called where there is none; threads wait for each other, so that none is made twice.
    """
    with _lock:
        if key not in _kept:
            while len(_kept) >= _MOST:
                _kept.popitem(last=False)
            _kept[key] = make()
        _kept.move_to_end(key)
        return _kept[key]


def forget() -> None:
    """Give all memory back but what is in use."""
    with _lock:
        _kept.clear()

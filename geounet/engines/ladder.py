"""When memory runs out while predicting: go on with less, and give the same result.

    batch → half → … → 1 window at once → the CPU → an error that says so

Smaller windows are no rung. What a network makes of a pixel depends on the window around it, so
that a plan of other windows gives another mask; and cutting one window into parts that overlap
keeps the result only if the parts overlap by the network's whole receptive field, which in a U-Net
is wider than a window. One window on the CPU is the least that gives what was asked for.
"""

from __future__ import annotations

import logging
import re
import sys
import warnings
from typing import TYPE_CHECKING, Any

import psutil

from geounet.engines.choice import open_engine
from geounet.engines.keeping import forget
from geounet.errors import GeounetWarning, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from geounet.engines.base import Decided, Engine
    from geounet.engines.choice import EngineName
    from geounet.model import Model
    from geounet.spec import Inputs
    from geounet.tiling import Axis

__all__ = ["Ladder", "is_out_of_memory", "open_ladder", "suited_batch"]

_LOG = logging.getLogger("geounet")
_WORDS = re.compile(
    "out of memory|can't allocate memory|cannot allocate memory|bad.?alloc|alloc_failed"
    "|can't start new thread|unable to find (an engine|a valid cudnn algorithm)",
    re.IGNORECASE,
)
_BYTES_PER_PIXEL = 4096
"""What a network may hold at once for a pixel of a window: eight times what the default model
holds in float32 (550, measured), as others are larger."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, torch's of any device, OpenVINO's.

    torch has a type for it on CUDA only; from a CPU allocator, cuBLAS and OpenVINO it comes as a
    RuntimeError, known by its words. cuDNN without room to work in says that it finds no engine.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and bool(_WORDS.search(str(error)))


def suited_batch(free: int, tile: int, most: int) -> int:
    """Windows to predict at once so that memory hardly runs out: half of what is free serves.

    Args:
        free: bytes that are free on the device.
        tile: side of a window in pixels, margins included.
        most: more do not make it faster.
    """
    return max(1, min(most, free // 2 // (tile * tile * _BYTES_PER_PIXEL)))


def open_ladder(
    model: Model,
    inputs: Inputs,
    *,
    device: str,
    engine: EngineName,
    batch: int | None = None,
) -> Ladder:
    """Like `open_engine`, on the ladder.

    Args:
        model: the model.
        inputs: how the scene's bands fill the model's.
        device: to begin on, resolved.
        engine: to begin with; on the rung from a card to the CPU it is PyTorch.
        batch: windows predicted at once; None chooses, no more than free memory suits.
    """
    side = model.spec.tile + 2 * model.spec.margin

    def open_on(place: str) -> Engine:
        first = place == device
        kind: EngineName = engine if first else "torch"
        made = open_engine(model, inputs, device=place, engine=kind, batch=batch if first else None)
        if batch is None and (free := _free_on(place)) is not None:
            made.batch = suited_batch(free, side, most=made.batch)
        return made

    return Ladder(open_on, device)


def _free_on(device: str) -> int | None:
    """Bytes that are free on a device; None where nobody can tell."""
    if device == "cpu":
        available: int = psutil.virtual_memory().available
        return available
    if not device.startswith("cuda"):
        return None
    import torch  # noqa: PLC0415 - costs seconds

    with torch.cuda.device(device):  # told to mem_get_info, PyTorch 2.4 refuses one without number
        free: int = torch.cuda.mem_get_info()[0]
        kept: int = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return free + kept  # what torch holds from runs before serves the next


class Ladder:
    """An engine that goes on with less where memory runs out; its methods are those of `Engine`.

    It warns once of each kind of step, logs them all, and stays where it stands.

    Args:
        open_on: makes the engine on a device.
        device: to begin on.
    """

    def __init__(self, open_on: Callable[[str], Engine], device: str) -> None:
        self._open_on = open_on
        self._device = device
        self._warned = False
        try:
            self._engine = open_on(device)
        except Exception as error:
            if device == "cpu" or not is_out_of_memory(error):
                raise
            self._move(str(error))
        self._home = self._engine  # whose arrays the scores are summed in
        self.channels = self._engine.channels

    @property
    def batch(self) -> int:
        """Windows predicted at once, as it stands."""
        return self._engine.batch

    @property
    def behind(self) -> int:
        """Rows of windows to predict before what was decided is asked for."""
        return self._home.behind

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """A float32 array of zeros, to be asked for before all else: it decides where sums are."""
        try:
            return self._home.zeros(shape)
        except Exception as error:
            if self._device == "cpu" or not is_out_of_memory(error):
                raise
            self._move(str(error))
        self._home = self._engine
        return self._home.zeros(shape)

    def asarray(self, array: NDArray[Any]) -> Any:
        """An array with a numpy array's numbers."""
        return self._home.asarray(array)

    def decide(self, scores: Any, observed: NDArray[np.bool_], threshold: float = 0.5) -> Decided:
        """Begin to decide what finished rows show."""
        return self._home.decide(scores, observed, threshold)

    def predict(
        self, dn: NDArray[Any], observed: NDArray[np.bool_], cols: Axis
    ) -> Iterator[tuple[int, Any]]:
        """Class probabilities of one row of windows.

        Raises:
            ModelError: there is no room for one window on the CPU.
        """
        last = -1
        while True:
            try:
                for index, scores in self._engine.predict(dn, observed, cols):
                    if index > last:  # the others were given out before memory ran out
                        yield index, self._at_home(scores)
                        last = index
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error)
            else:
                return
            self._step_down(reason)  # not above, where the error still holds what was allocated

    def _at_home(self, scores: Any) -> Any:
        return scores if self._engine is self._home else self._home.asarray(scores)

    def _step_down(self, reason: str) -> None:
        """Take the next rung."""
        windows = self._engine.batch
        if windows > 1:
            self._engine.batch = windows // 2
            _LOG.info("memory ran out with %d windows at once: %s", windows, reason)
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"memory ran out with {windows} windows at once on {self._device}; going on "
                    f"with {windows // 2}, and with fewer if need be. The result is the same.",
                    GeounetWarning,
                    stacklevel=3,
                )
            _free_cache()
        elif self._device != "cpu":
            self._move(reason)
        else:
            raise ModelError(
                f"a window must fit into memory, which ran out: {' '.join(reason.split())[:200]}. "
                f"Close other programs, or give a smaller --tile, whose mask differs a little."
            )

    def _move(self, reason: str) -> None:
        """Go on on the CPU."""
        _LOG.info("memory of %s ran out with one window: %s", self._device, reason)
        warnings.warn(
            f"{self._device} has no room for one window; going on on the CPU, which is slower.",
            GeounetWarning,
            stacklevel=4,
        )
        self._device = "cpu"
        self._engine = self._open_on("cpu")
        _free_cache()


def _free_cache() -> None:
    """Give back what is kept for later: torch's may be in pieces too small for the next try."""
    forget()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        torch.cuda.empty_cache()

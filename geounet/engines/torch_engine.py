"""The engine that runs a model in PyTorch, on any device."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from geounet.deciding import decide
from geounet.engines.base import not_numbers, padding
from geounet.engines.choice import resolve_device
from geounet.engines.threads import told_threads, usual_threads
from geounet.engines.torch_rewriting import lighten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from geounet.model import Model
    from geounet.spec import Inputs
    from geounet.tiling import Axis

__all__ = ["TorchEngine"]

_THREADS = 4
"""Windows in flight at most by default on the CPU: more would cost memory."""


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

    On the CPU its network is rewritten (see `kernels`), and windows are predicted side by side,
    each in a thread with its share of the cores: threads that share a window wait for each other
    after every layer. Elsewhere windows go in batches through the network as it is; whether the
    rewritten one would be faster on a card was not measured.

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
        if threads := told_threads():
            torch.set_num_threads(threads)
        self.device = torch.device(resolve_device(device))
        self.batch = batch or (min(usual_threads(), _THREADS) if self._on_cpu else 16)
        self._spec = model.spec
        network = model.network.to(self.device).to(memory_format=torch.channels_last)
        self._network = network.eval()
        self._take = torch.tensor(inputs.take, device=self.device)
        self._gain = torch.tensor([inputs.gain], device=self.device, dtype=torch.float32)
        self._bias = torch.tensor([inputs.bias], device=self.device, dtype=torch.float32)
        self._half = torch.float16 if self.device.type == "cuda" else None
        self._light: dict[tuple[int, ...], Callable[[Tensor], Tensor]] = {}

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
        """A numpy array on the device.

        To a CUDA card it goes from a copy in pinned memory, and nobody waits for it: torch keeps
        that copy until the card has it, and the card computes with it only then. So the array may
        change at once.
        """
        made = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type != "cuda":
            return made.to(self.device)
        return made.pin_memory().to(self.device, non_blocking=True)

    def predict(
        self, dn: NDArray[Any], observed: NDArray[np.bool_], cols: Axis
    ) -> Iterator[tuple[int, Any]]:
        """Class probabilities of one row of windows: see `Engine`."""
        frame = 2 * self._spec.margin
        size = (dn.shape[1] - frame, cols.tile)
        spans = [slice(start, start + cols.tile + frame) for start in cols.starts]
        wanted = [i for i, span in enumerate(spans) if observed[:, span].any()]
        if not wanted:
            return
        rows, seen = self._tensor(_portable(dn)), self._tensor(observed)
        body = self._body(size)

        def predict(group: Sequence[int]) -> Any:
            x = torch.stack([rows[:, :, spans[i]] for i in group])
            m = torch.stack([seen[None, :, spans[i]] for i in group])
            scores = self._scores(body, x, m, size, unsigned=dn.dtype == np.uint16)
            return scores.numpy() if self._on_cpu else scores

        together = 1 if self._on_cpu else self.batch
        groups = [wanted[first : first + together] for first in range(0, len(wanted), together)]
        side_by_side = self._on_cpu and self.batch > 1
        passes = self._side_by_side(predict, groups) if side_by_side else map(predict, groups)
        for group, scores in zip(groups, passes, strict=True):
            yield from zip(group, scores, strict=True)

    def _side_by_side(
        self, predict: Callable[[Sequence[int]], Any], groups: Sequence[Sequence[int]]
    ) -> Iterator[Any]:
        """Results of all groups in order, some predicted at once, each in a thread of its own."""
        share, rest = max(usual_threads() // self.batch, 1), iter(groups)
        pool = ThreadPoolExecutor(
            self.batch, "geounet-predict", initializer=torch.set_num_threads, initargs=(share,)
        )
        try:  # one more than run at once, so that none waits for us
            running = deque(pool.submit(predict, g) for g in islice(rest, self.batch + 1))
            while running:
                made = running.popleft().result()
                running.extend(pool.submit(predict, group) for group in islice(rest, 1))
                yield made
        finally:
            pool.shutdown(cancel_futures=True)

    def _body(self, size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
        """The network for windows of one size, made at the first of them."""
        if not self._on_cpu:
            return self._network.body
        if size not in self._light:
            spec, pad = self._spec, padding(self._spec, *size)
            sides = (n + more + 2 * spec.margin for n, more in zip(size, pad, strict=True))
            self._light[size] = lighten(self._network.body, (1, len(spec.bands), *sides))
        return self._light[size]

    @torch.inference_mode()
    def _scores(
        self,
        body: Callable[[Tensor], Tensor],
        dn: Tensor,
        observed: Tensor,
        size: tuple[int, int],
        *,
        unsigned: bool,
    ) -> Tensor:
        """Probabilities of some windows whose numbers came as `_portable` gives them."""
        pad = padding(self._spec, *size)
        if any(pad):
            dn = nn.functional.pad(dn, (0, pad[1], 0, pad[0]))
            observed = nn.functional.pad(observed, (0, pad[1], 0, pad[0]))
        dn = dn[:, self._take]
        if unsigned:
            dn = dn.int() & 0xFFFF
        x = self._network.normalise(dn, self._gain, self._bias, observed)
        x = x.contiguous(memory_format=torch.channels_last)
        # no autocast elsewhere: not each torch has it for each device, be it only to switch it off
        with torch.autocast("cuda", self._half) if self._half else nullcontext():
            logits = body(x)
        scores = torch.softmax(logits.float() / self._spec.temperature, dim=1)
        return scores[..., : size[0], : size[1]]

    @torch.inference_mode()
    def decide(
        self, scores: Any, observed: NDArray[np.bool_], threshold: float = 0.5
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Mask codes and water probability of finished rows: see `Engine`."""
        decided = decide if self._on_cpu else self._decide
        try:
            return decided(scores, observed, self._spec.classes, threshold)
        except FloatingPointError as error:
            raise not_numbers(self._spec, str(self.device)) from error

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
            codes[place["obscured"] > 0.5] = 2
        unseen = ~self._tensor(observed)
        codes[unseen] = 255
        level = (water * 250).round().to(torch.uint8)
        level[unseen] = 255
        return codes.cpu().numpy(), level.cpu().numpy()

"""The engine that runs a model in PyTorch, on any device."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from geounet.engines.base import decide_at_once, not_numbers, padding
from geounet.engines.choice import resolve_device
from geounet.engines.normalising import normalise
from geounet.engines.side_by_side import side_by_side
from geounet.engines.threads import told_threads, usual_threads
from geounet.engines.torch_rewriting import lighten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from geounet.engines.base import Decided
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
        self._inputs = inputs
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
    def behind(self) -> int:
        """Rows of windows to predict before what was decided is asked for: see `Engine`."""
        return 0 if self._on_cpu else 1

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
        wanted = {i: span for i, span in enumerate(spans) if observed[:, span].any()}
        if not wanted:
            return
        predicted = self._in_threads if self._on_cpu else self._in_batches
        made = predicted(dn, observed, list(wanted.values()), size)
        yield from zip(wanted, made, strict=True)

    def _in_threads(
        self,
        dn: NDArray[Any],
        observed: NDArray[np.bool_],
        spans: Sequence[slice],
        size: tuple[int, int],
    ) -> Iterator[NDArray[np.float32]]:
        """Probabilities of windows, each in a thread of its own."""
        spec, pad, frame = self._spec, padding(self._spec, *size), 2 * self._spec.margin
        shape = (len(spec.bands), size[0] + frame + pad[0], size[1] + frame + pad[1])
        if size not in self._light:
            self._light[size] = lighten(self._network.body, (1, *shape))
        body = self._light[size]

        def work(span: slice) -> NDArray[np.float32]:
            x = np.empty(shape, np.float32)
            normalise(dn[:, :, span], observed[:, span], self._inputs, spec.normalisation, x)
            scores = self._probabilities(body, torch.from_numpy(x)[None])
            return scores[0, :, : size[0], : size[1]].numpy()

        if self.batch == 1:
            return map(work, spans)
        share = max(usual_threads() // self.batch, 1)
        return side_by_side(work, spans, self.batch, partial(torch.set_num_threads, share))

    def _in_batches(
        self,
        dn: NDArray[Any],
        observed: NDArray[np.bool_],
        spans: Sequence[slice],
        size: tuple[int, int],
    ) -> Iterator[Tensor]:
        """Probabilities of windows, some in one pass; they stay on the device."""
        rows, seen = self._tensor(_portable(dn)), self._tensor(observed)
        for first in range(0, len(spans), self.batch):
            group = spans[first : first + self.batch]
            with torch.inference_mode():
                x = torch.stack([rows[:, :, span] for span in group])
                m = torch.stack([seen[None, :, span] for span in group])
                x = self._normalised(x, m, padding(self._spec, *size), dn.dtype)
                scores = self._probabilities(self._network.body, x)
            yield from scores[..., : size[0], : size[1]]

    def _normalised(
        self, dn: Tensor, observed: Tensor, pad: tuple[int, int], dtype: np.dtype[Any]
    ) -> Tensor:
        """Network input from numbers that came as `_portable` gives them."""
        if any(pad):
            dn = nn.functional.pad(dn, (0, pad[1], 0, pad[0]))
            observed = nn.functional.pad(observed, (0, pad[1], 0, pad[0]))
        dn = dn[:, self._take]
        if dtype == np.uint16:
            dn = dn.int() & 0xFFFF
        return self._network.normalise(dn, self._gain, self._bias, observed)

    @torch.inference_mode()
    def _probabilities(self, body: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        # no autocast elsewhere: not each torch has it for each device, be it only to switch it off
        with torch.autocast("cuda", self._half) if self._half else nullcontext():
            logits = body(x)
        return torch.softmax(logits.float() / self._spec.temperature, dim=1)

    def decide(self, scores: Any, observed: NDArray[np.bool_], threshold: float = 0.5) -> Decided:
        """Begin to decide what finished rows show: see `Engine`."""
        if self._on_cpu:
            return decide_at_once(self._spec, scores, observed, threshold)
        coming = _to_cpu(*self._decide(scores, self._tensor(observed), threshold))

        def decided() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
            finite, codes, level = coming()
            if not finite:
                raise not_numbers(self._spec, str(self.device))
            return codes.numpy(), level.numpy()

        return decided

    @torch.inference_mode()
    def _decide(
        self, scores: Tensor, observed: Tensor, threshold: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Whether all scores are numbers, and what `geounet.deciding.decide` makes of them."""
        place = {name: scores[i] for i, name in enumerate(self._spec.classes)}
        water = place["water"] / (place["water"] + place["land"]).clamp(min=1e-6)
        codes = (water >= threshold).to(torch.uint8)
        if "obscured" in place:
            codes.masked_fill_(place["obscured"] > 0.5, 2)
        codes.masked_fill_(~observed, 255)
        level = (water * 250).round().to(torch.uint8).masked_fill_(~observed, 255)
        return torch.isfinite(scores).all(), codes, level


def _to_cpu(*tensors: Tensor) -> Callable[[], list[Tensor]]:
    """Begin to copy tensors of one device to the CPU; what is given waits for them.

    A CUDA card copies them into pinned memory as soon as it has them. What it is given to do
    afterwards is not waited for.
    """
    if not tensors[0].is_cuda:
        return lambda: [tensor.cpu() for tensor in tensors]
    copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    arrived = torch.cuda.current_stream(tensors[0].device).record_event()

    def waited() -> list[Tensor]:
        arrived.synchronize()
        return copies

    return waited

"""The engine that runs a model in OpenVINO on the CPU.

    dn, observed ─ normalise ─ [ the network ] ─ softmax ─ probabilities
    as stored      in numpy    └───── in OpenVINO ─────┘

The network comes from a file beside the model, or is converted from PyTorch.
"""

from __future__ import annotations

import logging
import warnings
from collections import deque
from copy import deepcopy
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from geounet.engines.base import decide_at_once, padding
from geounet.engines.keeping import keep
from geounet.engines.normalising import normalise
from geounet.engines.rewriting import lighten
from geounet.engines.silent_openvino import ops, ov
from geounet.engines.threads import usual_threads
from geounet.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from geounet.engines.base import Decided, Precision
    from geounet.model import Model
    from geounet.spec import Inputs, ModelSpec
    from geounet.tiling import Axis

__all__ = ["DIGEST_KEY", "OpenVinoEngine", "convert_network", "has_bfloat16"]

DIGEST_KEY = ["geounet", "model_sha256"]
"""Where a network's file says which model file it was made from."""

_STREAMS = 4
"""Windows in flight at most by default: more would cost memory, and a window keeps cores busy."""


def has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16 by itself: AVX512-BF16, AMX."""
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def convert_network(model: Model, height: int = -1, width: int = -1) -> ov.Model:
    """A model's network in OpenVINO: normalised bands in, logits out.

    Args:
        model: the model.
        height: rows of the network's input; -1 leaves them open.
        width: columns of the network's input; -1 leaves them open.

    Raises:
        ModelError: OpenVINO cannot convert it.
    """
    import torch  # noqa: PLC0415 - only where there is no file

    spec = model.spec
    shape = (1, len(spec.bands), height, width)
    side = spec.tile + 2 * spec.margin
    example = torch.zeros([side if n < 0 else n for n in shape])
    body = deepcopy(model.network.body).cpu().to(memory_format=torch.contiguous_format).eval()
    level = logging.root.level
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            # the tracer's: on conditions that a fixed shape settles
            warnings.simplefilter("ignore")
            made = ov.convert_model(body, example_input=example, input=[shape])
    except Exception as error:  # its many own types share no other parent
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"OpenVINO cannot convert the network of {spec.name} "
            f"({spec.architecture.decoder}): {reason}. Use --engine torch."
        ) from error
    finally:
        logging.root.setLevel(level)  # the converter raises it for the whole process
    if spec.tile_multiple % 2 == spec.tile_remainder % 2 == 0:
        lighten(made, [side, side + spec.tile_multiple])
    return made


def _read_compiled(path: Path, model: Model, height: int, width: int) -> ov.Model:
    """The network beside a model file, for inputs of a size, if made from this very file."""
    try:
        made = ov.Core().read_model(path)
        digest = made.get_rt_info(DIGEST_KEY).astype(str) if made.has_rt_info(DIGEST_KEY) else ""
        made.reshape([1, len(model.spec.bands), height, width])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"not a whole OpenVINO network: {path}: {reason}. Use --engine torch."
        ) from error
    if digest != model.digest:
        raise ModelError(
            f"{path} must be made from the model file {model.digest}; it says "
            f"{digest or 'nothing'}. Make it anew, or use --engine torch."
        )
    return made


def _with_probabilities(network: ov.Model, spec: ModelSpec) -> ov.Model:
    """Put a softmax after a network.

    OpenVINO, where it is told to compute in bfloat16, computes it in float32, as it leads to an
    output by no convolution.
    """
    logits = network.output(0).get_node().input_value(0)
    scores = ops.softmax(ops.divide(logits, np.float32(spec.temperature)), 1)
    return ov.Model([scores], network.get_parameters(), spec.name)


class OpenVinoEngine:
    """Runs a model in OpenVINO on the CPU; scores are numpy arrays.

    Windows are predicted side by side, each by its share of the cores: cores kept busy by windows
    of their own wait less for each other than those that share one.

    Args:
        model: the model.
        inputs: how the scene's bands fill the model's.
        precision: ``int8`` runs the 8-bit network beside the model file; the others the one in
            floats, or one converted from PyTorch where there is none. ``bfloat16`` is float32 on
            processors that have no bfloat16.
        batch: windows predicted at once; None takes one a core, and four at most.
    """

    def __init__(
        self,
        model: Model,
        inputs: Inputs,
        *,
        precision: Precision = "float32",
        batch: int | None = None,
    ) -> None:
        self.batch = batch or min(usual_threads(), _STREAMS)
        self._model = model
        self._spec = model.spec
        self._inputs = inputs
        self._file = model.compiled("int8" if precision == "int8" else "float")
        # told in any case: OpenVINO by itself takes bfloat16 where the processor has it
        self._numbers = "bf16" if precision == "bfloat16" and has_bfloat16() else "f32"
        self._compiled: dict[tuple[int, int], ov.CompiledModel] = {}

    behind = 0
    """What was decided is there at once: see `Engine`."""

    @property
    def channels(self) -> int:
        """Channels of the scores: one a class."""
        return len(self._spec.classes)

    def zeros(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """A float32 array of zeros."""
        return np.zeros(shape, np.float32)

    def asarray(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array itself."""
        return array

    def predict(
        self, dn: NDArray[Any], observed: NDArray[np.bool_], cols: Axis
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Class probabilities of one row of windows: see `Engine`."""
        spec, frame = self._spec, 2 * self._spec.margin
        size = (dn.shape[1] - frame, cols.tile)
        spans = [slice(start, start + cols.tile + frame) for start in cols.starts]
        wanted = iter([i for i, span in enumerate(spans) if observed[:, span].any()])
        compiled = self._compile(size)
        running: deque[tuple[int, ov.InferRequest]] = deque()

        def start(request: ov.InferRequest) -> None:
            for i in islice(wanted, 1):
                x, span = request.get_input_tensor(0).data[0], spans[i]
                normalise(dn[:, :, span], observed[:, span], self._inputs, spec.normalisation, x)
                request.start_async()
                running.append((i, request))

        for _ in range(self.batch + 1):  # one more than run at once, so that none waits for us
            start(compiled.create_infer_request())
        try:
            while running:
                index, request = running.popleft()
                request.wait()
                scores = request.get_output_tensor(0).data[0, :, : size[0], : size[1]].copy()
                start(request)
                yield index, scores
        finally:  # where nobody wants the rest
            for _, request in running:
                request.wait()

    def _compile(self, size: tuple[int, int]) -> ov.CompiledModel:
        """The network for windows of one size, made at the first of them or by an earlier engine.

        One in memory may be trained on, so that only those in files are shared between engines.
        """
        if size not in self._compiled:
            settings = {
                "NUM_STREAMS": self.batch,
                "INFERENCE_NUM_THREADS": usual_threads(),
                "INFERENCE_PRECISION_HINT": self._numbers,
            }
            make = partial(self._make, size, settings)
            self._compiled[size] = (
                keep((*size, *settings.values(), *self._identity(self._file)), make)
                if self._file
                else make()
            )
        return self._compiled[size]

    def _identity(self, file: Path) -> tuple[Hashable, ...]:
        """What else decides what a network in a file computes."""
        files = (file, file.with_suffix(".bin"))
        there = [path.stat() for path in files if path.is_file()]
        seen = tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in there)
        return (file, seen, self._model.digest, self._spec.model_dump_json())

    def _make(self, size: tuple[int, int], settings: dict[str, Any]) -> ov.CompiledModel:
        pad, frame = padding(self._spec, *size), 2 * self._spec.margin
        shape = (size[0] + pad[0] + frame, size[1] + pad[1] + frame)
        network = (
            _read_compiled(self._file, self._model, *shape)
            if self._file
            else convert_network(self._model, *shape)
        )
        whole = _with_probabilities(network, self._spec)
        return ov.Core().compile_model(whole, "CPU", settings)

    def decide(
        self, scores: NDArray[np.float32], observed: NDArray[np.bool_], threshold: float = 0.5
    ) -> Decided:
        """Decide what finished rows show, at once: see `Engine`."""
        return decide_at_once(self._spec, scores, observed, threshold)

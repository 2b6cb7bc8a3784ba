"""Validation while training, and the curves that it leaves."""

from __future__ import annotations

import csv
import os
import time
from contextlib import suppress
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from geounet.labels import UNKNOWN
from geounet.staging import whole_file
from geounet.training.dataset import CELL
from geounet.training.figures import Sample
from geounet.training.loop import Progress, half_type, rank
from geounet.training.losses import class_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from geounet.model import ModelSpec
    from geounet.segmenter import Segmenter
    from geounet.training.config import TrainConfig
    from geounet.training.dataset import LabelledScene
    from geounet.training.gathering import Data
    from geounet.training.loop import Loss

__all__ = ["Diary", "Judge", "temperature_of", "worst_samples"]

_MOST_WINDOWS = 256
"""Windows of a validation at most, spread evenly."""


class Judge:
    """Validates a network on windows that are always the same."""

    def __init__(
        self, data: Data, loss: Loss, config: TrainConfig, device: torch.device, diary: Diary
    ) -> None:
        self.loss, self._data, self._device, self._diary = loss, data, device, diary
        self._batch, self._window = config.batch, config.window
        self._half = half_type(device) if config.mixed else None
        places = [
            (scene, row, col)
            for scene in data.valid
            for row, col in _windows(scene, config.window, data.spec.margin)
        ]
        step = max(1, -(-len(places) // _MOST_WINDOWS))
        self._places = places[::step]

    def __call__(self, network: Segmenter) -> float:
        """Mean IoU of the classes that the labels hold; all figures go into the diary."""
        k = len(self._data.spec.classes)
        table, losses = np.zeros((k, k), np.int64), list[tuple[float, int]]()
        for _, allowed, logits in self.predictions(network):
            labels = class_labels(allowed, k)
            known = labels != UNKNOWN
            pairs = labels[known] * k + logits.argmax(1)[known]
            table += torch.bincount(pairs, minlength=k * k).view(k, k).cpu().numpy()
            losses.append((float(self.loss(logits, allowed)), int(known.sum())))
        figures = _figures(table, self._data.spec.classes)
        seen = max(sum(n for _, n in losses), 1)
        figures["loss"] = sum(value * n for value, n in losses) / seen
        self._diary.judge(figures)
        return figures["mean_iou"]

    @torch.inference_mode()
    def predictions(self, network: Segmenter) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Pixels, allowed sets and logits, batch by batch, of the size that is predicted."""
        margin = self._data.spec.margin
        side = self._window + 2 * margin
        inner = slice(margin, margin + self._window)
        for first in range(0, len(self._places), self._batch):
            chosen = self._places[first : first + self._batch]
            read = [scene.source.read(row, col, side, side) for scene, row, col in chosen]
            pixels = torch.stack([p for p, _ in read]).to(self._device)
            allowed = torch.stack([a for _, a in read])[:, inner, inner].to(self._device)
            present = torch.tensor([scene.present for scene, *_ in chosen])
            gain = present.float().to(self._device)
            seen = (pixels != 0).any(1, keepdim=True)
            with torch.autocast(self._device.type, self._half, enabled=self._half is not None):
                logits = network(pixels, gain, torch.zeros_like(gain), seen)
            yield pixels[..., inner, inner], allowed, logits.float()

    def name(self, index: int) -> str:
        """Scene of a window."""
        return self._places[index][0].name


def _windows(scene: LabelledScene, window: int, margin: int) -> list[tuple[int, int]]:
    """Rows and columns of windows side by side, of those that hold labels if any does."""
    shape = [side - 2 * margin for side in scene.source.shape]
    rows, cols = (_starts(side, window) for side in shape)
    windows = [*product(rows, cols)]
    labelled = np.zeros([side // window + 2 for side in shape], np.bool_)
    cells = torch.cat([*scene.anchors.values()]).numpy() - margin
    for corner in product((0, CELL - 1), repeat=2):
        labelled[tuple(np.maximum(cells + np.array(corner), 0).T // window)] = True
    return [at for at in windows if labelled[at[0] // window, at[1] // window]] or windows


def _starts(size: int, window: int) -> range:
    return range(0, max(size - window // 2, 1), window)


def _figures(table: NDArray[np.int64], classes: Sequence[str]) -> dict[str, float]:
    """IoU of each class that the labels hold, their mean, and accuracy.

    Args:
        table: counts [truth, prediction].
        classes: their names.
    """
    both, truth = np.diag(table), table.sum(1)
    either = table.sum(0) + truth - both
    figures = {
        f"{name}_iou": float(both[i] / either[i]) for i, name in enumerate(classes) if truth[i]
    }
    mean = sum(figures.values()) / max(len(figures), 1)
    accuracy = float(both.sum() / max(table.sum(), 1))
    return {**figures, "mean_iou": mean, "accuracy": accuracy}


class Diary:
    """The curves, in ``metrics.csv`` and for TensorBoard."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.csv"
        self.rows: list[dict[str, float]] = []
        self._judged: dict[str, float] = {}
        self._board: _Board | None = None

    def begin(self, step: int) -> None:
        """Go on after a step: what was noted later is forgotten."""
        if step and self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = [{k: float(v) for k, v in r.items() if v} for r in csv.DictReader(file)]
            self.rows = [row for row in rows if row["step"] <= step]
        if rank() == 0:
            with suppress(ImportError):  # TensorBoard is of the train extra
                self._board = _Board(self.path.parent / "tensorboard", step)

    def judge(self, figures: dict[str, float]) -> None:
        """A validation, of the step that is reported next."""
        self._judged = figures

    def note(self, progress: Progress) -> None:
        """A report of the loop."""
        self.rows.append(
            {
                "step": progress.step,
                "loss": progress.loss,
                "rate": progress.rate,
                "seconds": round(progress.seconds, 3),
                **{f"valid_{name}": value for name, value in self._judged.items()},
            }
        )
        self._show({"loss": progress.loss, "rate": progress.rate}, "train")
        self._show(self._judged, "valid")
        self._judged = {}
        self._write()

    def last(self, name: str) -> float | None:
        """A figure's value at the last validation."""
        return next((r[f"valid_{name}"] for r in self.rows[::-1] if f"valid_{name}" in r), None)

    def best(self) -> dict[str, float]:
        """The figures of the best validation, the first where several are alike."""
        judged = [row for row in self.rows if "valid_mean_iou" in row]
        best = max(judged, key=lambda row: row["valid_mean_iou"], default={})
        found = {k.removeprefix("valid_"): v for k, v in best.items() if k.startswith("valid_")}
        return {name: round(value, 4) for name, value in found.items()}

    def _write(self) -> None:
        """Write the file whole."""
        if rank() == 0:
            names = list(dict.fromkeys(name for row in self.rows for name in row))
            lines = [",".join(names)]
            lines += [
                ",".join(f"{row[n]:.9g}" if n in row else "" for n in names) for row in self.rows
            ]
            with whole_file(self.path) as draft:
                draft.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _show(self, figures: dict[str, float], group: str) -> None:
        if self._board and figures:
            self._board.show(int(self.rows[-1]["step"]), figures, group)


class _Board:
    """A file of TensorBoard's; its own writer has a thread that prints what goes wrong in it."""

    def __init__(self, folder: Path, step: int) -> None:
        """Begin a file, in which what others have from a step on is taken back."""
        from tensorboard.compat.proto import event_pb2, summary_pb2  # noqa: PLC0415
        from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415

        self._events, self._summary, self._writer = event_pb2, summary_pb2.Summary, RecordWriter
        folder.mkdir(exist_ok=True)
        self._path = folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        self._add(file_version="brain.Event:2")
        if step:
            begun = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._add(step=step + 1, session_log=begun)

    def show(self, step: int, figures: dict[str, float], group: str) -> None:
        """Add figures of a step."""
        value = self._summary.Value
        values = [value(tag=f"{group}/{name}", simple_value=v) for name, v in figures.items()]
        self._add(step=step, summary=self._summary(value=values))

    def _add(self, **fields: Any) -> None:
        event = self._events.Event(wall_time=time.time(), **fields)
        with self._path.open("ab") as file:
            self._writer(file).write(event.SerializeToString())


def temperature_of(judge: Judge, network: Segmenter) -> float:
    """What logits are divided by for the least cross-entropy (Guo et al. 2017, 1706.04599)."""
    choices = torch.logspace(-1, 1, 61, base=4.0)
    total = torch.zeros(len(choices), dtype=torch.float64)
    for _, allowed, logits in judge.predictions(network):
        labels = class_labels(allowed, logits.shape[1])
        for i, choice in enumerate(choices):
            total[i] += torch.nn.functional.cross_entropy(
                logits / choice, labels, ignore_index=UNKNOWN, reduction="sum"
            ).cpu()
    return round(float(choices[total.argmin()]), 3)


def worst_samples(judge: Judge, network: Segmenter, spec: ModelSpec) -> list[Sample]:
    """The windows that are hardest to get right: those with the most errors, six at most."""
    found: list[tuple[int, Sample]] = []
    water = spec.classes.index("water")
    for pixels, allowed, logits in judge.predictions(network):
        labels = class_labels(allowed, len(spec.classes))
        wrong = ((logits.argmax(1) != labels) & (labels != UNKNOWN)).sum((1, 2))
        p = torch.softmax(logits / spec.temperature, 1)[:, water]
        for i in range(len(pixels)):
            sample = Sample(
                judge.name(len(found)),
                pixels[i].cpu().numpy(),
                labels[i].to(torch.uint8).cpu().numpy(),
                p[i].cpu().numpy(),
            )
            found.append((int(wrong[i]), sample))
    return [sample for _, sample in sorted(found, key=lambda item: -item[0])[:6]]

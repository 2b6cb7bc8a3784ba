"""Learning from a teacher's answers to the same windows, turned and mirrored.

A network answers a window and its mirror image a little differently, and the mean of its answers
over the square's eight symmetries is better than each. That mean costs eight passes. A student gets
near it in one: each batch it learns what the teacher says under one symmetry drawn by chance, and
as cross-entropy is linear in its target, that comes to learning the mean (distillation: Hinton,
Vinyals and Dean 2015, arXiv:1503.02531). Where the student does without some of the scene's bands,
the teacher has them: what it sees by them is privileged information (Lopez-Paz et al. 2016,
arXiv:1511.03643).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from geounet.training.augment import SYMMETRIES, turned, turned_back

if TYPE_CHECKING:
    from torch import Tensor

    from geounet.segmenter import Segmenter
    from geounet.training.dataset import Batch

__all__ = ["Teacher"]


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network whose answers are learned beside the labels."""

    network: Segmenter
    """Takes the student's bands and gives its classes; it learns nothing."""
    weight: float = 4.0
    """Of its loss beside that of the labels."""

    @torch.no_grad()
    def answer(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Probabilities ``[N, K, h, w]`` of a batch, seen under one symmetry with all its bands.

        Args:
            batch: on the network's device.
            generator: draws the symmetry.
        """
        device = generator.device
        code = int(torch.randint(SYMMETRIES, (1,), generator=generator, device=device))
        pixels, present = batch.whole or (batch.pixels, batch.present)
        gain, observed = present.float(), turned(batch.observed, code)
        logits: Tensor = self.network(turned(pixels, code), gain, torch.zeros_like(gain), observed)
        return turned_back(logits.float(), code).softmax(1)

    def loss(self, logits: Tensor, answer: Tensor, observed: Tensor) -> Tensor:
        """The weighted mean divergence of Kullback and Leibler from what the teacher answers.

        Args:
            logits: the student's, ``[N, K, h, w]``.
            answer: the teacher's probabilities, ``[N, K, h, w]``.
            observed: ``[N, h, w]`` bool; other pixels do not count.
        """
        each = functional.kl_div(logits.log_softmax(1), answer, reduction="none").sum(1)
        mean: Tensor = (each * observed).sum() / observed.sum().clamp(min=1)
        return self.weight * mean

"""Losses for labels that may be partial: each pixel carries the *set* of classes it can be.

A set is a bit mask: bit ``k`` is on where class ``k`` is allowed. One bit is an ordinary label, all
bits (or none) say nothing. "Not water" is a set too, and that is what a cloud's shadow is worth.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = 0
"""The empty set: a pixel without any label."""


def allowed_log_probability(logits: Tensor, allowed: Tensor) -> Tensor:
    """Log of the probability that the class is one of the allowed ones.

    Args:
        logits: ``[N, K, h, w]``.
        allowed: ``[N, h, w]`` integer sets of classes.

    Returns:
        ``[N, h, w]``; 0 where the set is empty or full.
    """
    bits = 2 ** torch.arange(logits.shape[1], device=logits.device)
    outside = (allowed.long().unsqueeze(1) & bits.view(1, -1, 1, 1)) == 0
    inside = functional.log_softmax(logits, 1).masked_fill(outside, -torch.inf)
    known = is_informative(allowed, logits.shape[1]).unsqueeze(1)
    return inside.masked_fill(~known, 0.0).logsumexp(1) * known.squeeze(1)


def is_informative(allowed: Tensor, classes: int) -> Tensor:
    """True where a set excludes some class and allows some other."""
    return (allowed != IGNORED) & (allowed != 2**classes - 1)


@dataclass(frozen=True)
class PartialCrossEntropy:
    """Generalised cross-entropy of the allowed set, ``(1 - q**robustness) / robustness``.

    ``q`` is the probability of the set. At ``robustness`` 0 it is ``-log q``: cross-entropy where the
    set is one class, the marginal likelihood of partial labels otherwise. Above 0 a wrong label's pull
    is bounded (Zhang and Sabuncu 2018, "Generalized Cross Entropy Loss for Training Deep Neural
    Networks with Noisy Labels").
    """

    robustness: float = 0.0

    def __call__(self, logits: Tensor, allowed: Tensor) -> Tensor:
        """Mean over the informative pixels; 0 where there are none."""
        known = is_informative(allowed, logits.shape[1])
        log_q = allowed_log_probability(logits.float(), allowed)
        loss = (
            (1 - torch.exp(self.robustness * log_q)) / self.robustness
            if self.robustness
            else -log_q
        )
        return (loss * known).sum() / known.sum().clamp(min=1)


@dataclass(frozen=True)
class PartialDice:
    """Soft Dice of one class over the pixels whose set decides whether they are that class.

    It is computed over the whole batch, so that windows without the class do not jump between 0 and 1.
    """

    target: int = 1
    smooth: float = 10.0

    def __call__(self, logits: Tensor, allowed: Tensor) -> Tensor:
        """One minus Dice, in [0, 1]."""
        probability = logits.float().softmax(1)[:, self.target]
        bit = 1 << self.target
        truth = (allowed == bit).float()
        decided = ((allowed == bit) | ((allowed & bit == 0) & (allowed != IGNORED))).float()
        overlap = (probability * truth).sum()
        total = (probability * decided).sum() + truth.sum()
        return 1 - (2 * overlap + self.smooth) / (total + self.smooth)


@dataclass(frozen=True)
class PartialLabelLoss:
    """Generalised cross-entropy of the set, plus the water's Dice by ``dice_weight``."""

    cross_entropy: PartialCrossEntropy = PartialCrossEntropy(robustness=0.2)
    dice: PartialDice = PartialDice()
    dice_weight: float = 0.5

    def __call__(self, logits: Tensor, allowed: Tensor) -> Tensor:
        """The weighted sum of both."""
        return self.cross_entropy(logits, allowed) + self.dice_weight * self.dice(logits, allowed)

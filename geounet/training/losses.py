"""Losses for labels that may be partial: each pixel carries the *set* of classes it can be.

A set is a bit mask: bit ``k`` is on where class ``k`` is allowed. One bit is an ordinary label, all
bits (or none) say nothing. "Not water" is a set too, and that is what a cloud's shadow is worth.
A set of land and water may come with the share of each (`shares`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from geounet.errors import ConfigError
from geounet.labels import UNKNOWN
from geounet.training.shares import LAND, SETS, WATER, mixed_level, mixed_share

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
    sets = allowed & SETS
    known: Tensor = (sets != IGNORED) & (sets != 2**classes - 1)
    return known


@dataclass(frozen=True)
class PartialCrossEntropy:
    """Generalised cross-entropy of the allowed set, ``(1 - q**robustness) / robustness``.

    ``q`` is the probability of the set. At ``robustness`` 0 it is ``-log q``: cross-entropy where
    the set is one class, the marginal likelihood of partial labels otherwise. Above 0 a wrong
    label's pull is bounded (Zhang and Sabuncu 2018, "Generalized Cross Entropy Loss for Training
    Deep Neural Networks with Noisy Labels"). A mixed pixel of known shares counts as its part of
    water and its part of land, so its loss is least where the probability of water among the two is
    the water's share.
    """

    robustness: float = 0.0
    mixed_weight: float = 1.0
    """How much a mixed pixel counts. They are few, and all of a shore's place is in them."""

    def __call__(self, logits: Tensor, allowed: Tensor) -> Tensor:
        """Mean over the informative pixels; 0 where there are none."""
        mixed = mixed_level(allowed) > 0
        known = is_informative(allowed, logits.shape[1]) & ~mixed
        total = (self._of(allowed_log_probability(logits.float(), allowed)) * known).sum()
        total = total + self.mixed_weight * self._of_mixed(logits.float(), allowed, mixed)
        return total / (known | mixed).sum().clamp(min=1)

    def _of(self, log_q: Tensor) -> Tensor:
        if not self.robustness:
            return -log_q
        return (1 - torch.exp(self.robustness * log_q)) / self.robustness

    def _of_mixed(self, logits: Tensor, allowed: Tensor, mixed: Tensor) -> Tensor:
        """Sum over the mixed pixels."""
        chosen, labels = logits.movedim(1, -1)[mixed], allowed[mixed]
        chosen, sets = chosen.T[None, :, None], (labels.long() & SETS)[None, None]
        share = mixed_share(labels)
        wet = self._of(allowed_log_probability(chosen, sets & ~LAND))
        dry = self._of(allowed_log_probability(chosen, sets & ~WATER))
        return (share * wet + (1 - share) * dry).sum()


@dataclass(frozen=True)
class PartialDice:
    """Soft Dice of one class over the pixels whose set decides whether they are that class.

    It is computed over the whole batch, so that windows without the class do not jump between 0
    and 1.
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


LabelLoss = Callable[[Tensor, Tensor], Tensor]
"""Of logits ``[N, K, h, w]`` and labels ``[N, h, w]``: 0 to K - 1, or `UNKNOWN`."""


def class_labels(allowed: Tensor, classes: int) -> Tensor:
    """The single class that a set allows, or `UNKNOWN` where it allows several or none.

    Args:
        allowed: ``[N, h, w]`` sets.
        classes: how many there are; other bits say nothing.
    """
    table = torch.full((256,), UNKNOWN, device=allowed.device)
    for k in range(classes):
        table[1 << k] = k
    return table[allowed.long() & SETS]


@dataclass(frozen=True)
class SingleLabelLoss:
    """A loss of single classes, for sets: pixels that may be several classes take no part."""

    loss: LabelLoss

    def __call__(self, logits: Tensor, allowed: Tensor) -> Tensor:
        """The loss; 0 where no pixel has a single class."""
        labels = class_labels(allowed, logits.shape[1])
        if not bool((labels != UNKNOWN).any()):
            return logits.sum() * 0.0
        return self.loss(logits.float(), labels)


def cross_entropy(logits: Tensor, labels: Tensor, *, weights: Sequence[float] = ()) -> Tensor:
    """Cross-entropy, weighted by class: ``sum(w[y] * -log p[y]) / sum(w[y])``."""
    weight = logits.new_tensor(weights) if weights else None
    return functional.cross_entropy(logits, labels, weight, ignore_index=UNKNOWN)


def focal(
    logits: Tensor, labels: Tensor, *, gamma: float = 2.0, weights: Sequence[float] = ()
) -> Tensor:
    """Mean of ``-w[y] * (1 - p[y])**gamma * log p[y]`` (Lin et al. 2017, arXiv:1708.02002)."""
    loss = functional.cross_entropy(logits, labels, ignore_index=UNKNOWN, reduction="none")
    known = labels != UNKNOWN
    focused = (1 - torch.exp(-loss)) ** gamma * loss
    if weights:
        focused = focused * logits.new_tensor(weights)[labels.where(known, 0)]
    return focused[known].mean()


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of each class against the rest, mean over classes and pixels.

    With two classes that is the binary cross-entropy of the one.
    """
    log_p = functional.log_softmax(logits, 1)
    # log(1 - p), where p near 1 would leave nothing to take the logarithm of.
    rest = [
        torch.cat([log_p[:, :k], log_p[:, k + 1 :]], 1).logsumexp(1) for k in range(log_p.shape[1])
    ]
    known = labels != UNKNOWN
    truth = functional.one_hot(labels.where(known, 0), logits.shape[1]).movedim(-1, 1)
    loss = -torch.where(truth == 1, log_p, torch.stack(rest, 1)).mean(1)
    return loss[known].mean()


def dice(logits: Tensor, labels: Tensor, *, smooth: float = 1.0) -> Tensor:
    """``1 - (2 sum(p t) + s) / (sum(p) + sum(t) + s)`` over the batch, mean over classes.

    The soft Dice of Milletari et al. 2016 (arXiv:1606.04797), without its squares.
    """
    known = (labels != UNKNOWN).unsqueeze(1)
    p = logits.softmax(1) * known
    truth = functional.one_hot(labels.where(known[:, 0], 0), logits.shape[1]).movedim(-1, 1) * known
    axes = (0, 2, 3)
    overlap, total = (p * truth).sum(axes), p.sum(axes) + truth.sum(axes)
    return (1 - (2 * overlap + smooth) / (total + smooth)).mean()


def bce_dice(
    logits: Tensor, labels: Tensor, *, dice_weight: float = 0.5, smooth: float = 1.0
) -> Tensor:
    """``(1 - dice_weight) * BCE + dice_weight * Dice``."""
    entropy = binary_cross_entropy(logits, labels)
    return (1 - dice_weight) * entropy + dice_weight * dice(logits, labels, smooth=smooth)


def lovasz(logits: Tensor, labels: Tensor) -> Tensor:
    """Lovász-softmax, over the batch and the classes that occur (Berman et al. 2018).

    The authors' code (arXiv:1705.08790), as segmentation-models-pytorch ships it.
    """
    return cast("Tensor", _smp_lovasz("multiclass")(logits, labels))


def lovasz_hinge(logits: Tensor, labels: Tensor) -> Tensor:
    """Lovász hinge of the second of two classes, over the batch (Berman et al. 2018)."""
    if logits.shape[1] != 2:
        raise ConfigError(
            f"the loss lovasz_hinge is for two classes; got {logits.shape[1]}. Use lovasz."
        )
    return cast("Tensor", _smp_lovasz("binary")(logits[:, 1] - logits[:, 0], labels))


def _smp_lovasz(mode: str) -> Any:
    from segmentation_models_pytorch.losses import LovaszLoss  # noqa: PLC0415 - loads in a second

    return LovaszLoss(mode, ignore_index=UNKNOWN)


def border_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    w0: float = 10.0,
    sigma: float = 5.0,
    target: int = 1,
    weights: Sequence[float] = (),
) -> Tensor:
    """Mean of ``(w_class + w_border) * -log p``, the loss of Ronneberger et al. 2015.

    Args:
        logits: ``[N, K, h, w]``.
        labels: ``[N, h, w]``.
        w0: weight between objects that all but touch.
        sigma: pixels over which it falls.
        target: class whose connected areas are the objects.
        weights: of each class; 1 where none are given.
    """
    loss = functional.cross_entropy(logits, labels, ignore_index=UNKNOWN, reduction="none")
    known = labels != UNKNOWN
    border = torch.from_numpy(
        np.stack([border_weights(w, w0=w0, sigma=sigma) for w in (labels == target).cpu().numpy()])
    ).to(loss)
    by_class = logits.new_tensor(weights or [1.0] * logits.shape[1])[labels.where(known, 0)]
    return (loss * (by_class + border))[known].mean()


def border_weights(
    objects: NDArray[np.bool_], *, w0: float = 10.0, sigma: float = 5.0
) -> NDArray[np.float32]:
    """``w0 * exp(-(d1 + d2)**2 / (2 sigma**2))`` outside of objects, 0 inside.

    ``d1`` and ``d2`` are the distances to the nearest and to the second nearest object (arXiv:
    1505.04597, equation 2). Beyond ``5 sigma`` the weight, below 4e-6 w0, is taken as 0.

    Args:
        objects: bool ``[h, w]``; pixels that touch by a side are one object.
        w0: weight where both distances are 0.
        sigma: pixels.

    Returns:
        float32 ``[h, w]``.
    """
    ndimage = _ndimage()
    parts, _ = ndimage.label(objects)
    reach = int(np.ceil(5 * sigma)) + 1
    near = np.full((2, *objects.shape), np.inf, np.float32)
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        around = tuple(slice(max(side.start - reach, 0), side.stop + reach) for side in box)
        distance = ndimage.distance_transform_edt(parts[around] != number)
        first, second = near[0][around], near[1][around]
        second[...] = np.minimum(second, np.maximum(first, distance))
        first[...] = np.minimum(first, distance)
    weight = w0 * np.exp(-(near.sum(0) ** 2) / (2 * sigma**2))
    return np.where(objects, 0.0, weight).astype(np.float32)


def _ndimage() -> Any:
    try:
        from scipy import ndimage  # noqa: PLC0415 - of the train extra
    except ImportError as error:
        raise ConfigError(
            "the loss border needs scipy, which is not installed. Install geounet[train]."
        ) from error
    return ndimage


LOSSES: Mapping[str, LabelLoss] = {
    "bce": binary_cross_entropy,
    "dice": dice,
    "bce_dice": bce_dice,
    "focal": focal,
    "lovasz": lovasz,
    "lovasz_hinge": lovasz_hinge,
    "cross_entropy": cross_entropy,
    "border": border_cross_entropy,
}
"""Losses of single classes, by name."""

import math

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional

from geounet.errors import ConfigError
from geounet.labels import UNKNOWN
from geounet.training.losses import (
    LOSSES,
    SingleLabelLoss,
    border_cross_entropy,
    border_weights,
    class_labels,
)


def case(classes=3, *, unknown=True):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, classes, 8, 9, generator=generator) * 2
    labels = torch.randint(classes, (2, 8, 9), generator=generator)
    if unknown:
        labels[:, :3] = UNKNOWN
    return logits, labels


def test_sets_become_labels():
    allowed = torch.tensor([[[0, 1, 2, 3, 4, 7]]], dtype=torch.uint8)
    assert class_labels(allowed, 3).tolist() == [[[255, 0, 1, 255, 2, 255]]]
    assert class_labels(allowed, 2).tolist() == [[[255, 0, 1, 255, 255, 255]]]


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_what_stands_at_unknown_pixels_does_not_matter(name):
    logits, labels = case(2)
    other = logits.clone()
    other[:, :, :3] = 77.0
    loss = LOSSES[name]
    assert loss(logits, labels).item() == pytest.approx(loss(other, labels).item(), rel=1e-6)
    logits.requires_grad_()
    loss(logits, labels).backward()
    assert logits.grad[:, :, :3].abs().max() == 0
    assert logits.grad[:, :, 3:].abs().max() > 0


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_no_label_at_all_is_a_loss_of_zero_with_a_gradient(name):
    logits = torch.randn(1, 2, 8, 8, requires_grad=True)
    loss = SingleLabelLoss(LOSSES[name])(logits, torch.zeros(1, 8, 8, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_better_predictions_cost_less(name):
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[..., 2:6, 2:6] = 1
    truth = functional.one_hot(labels, 2).movedim(-1, 1).float() - 0.5
    costs = [LOSSES[name](scale * truth, labels).item() for scale in (-4.0, 0.5, 4.0, 40.0)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == pytest.approx(0, abs=1e-3)
    assert LOSSES[name](1e4 * truth, labels).isfinite()


def test_cross_entropy_against_its_formula():
    logits, labels = case()
    p = logits.softmax(1).numpy()
    w, top, bottom = (1.0, 3.0, 0.5), 0.0, 0.0
    for n, row, col in np.ndindex(*labels.shape):
        y = int(labels[n, row, col])
        if y != UNKNOWN:
            top += w[y] * -math.log(p[n, y, row, col])
            bottom += w[y]
    assert LOSSES["cross_entropy"](logits, labels, weights=w).item() == pytest.approx(top / bottom)


def test_focal_against_its_formula_and_cross_entropy_at_gamma_0():
    logits, labels = case()
    p = logits.softmax(1).numpy()
    terms = [
        (1 - q) ** 2 * -math.log(q) * (1.0, 3.0, 0.5)[y]
        for n, row, col in np.ndindex(*labels.shape)
        if (y := int(labels[n, row, col])) != UNKNOWN and (q := p[n, y, row, col])
    ]
    assert LOSSES["focal"](logits, labels, weights=(1.0, 3.0, 0.5)).item() == pytest.approx(
        np.mean(terms), rel=1e-5
    )
    plain = LOSSES["cross_entropy"](logits, labels).item()
    assert LOSSES["focal"](logits, labels, gamma=0.0).item() == pytest.approx(plain, rel=1e-6)


def test_focal_of_two_classes_is_the_published_binary_one():
    logits, labels = case(2, unknown=False)
    published = smp.losses.FocalLoss("binary", gamma=2.0)(logits[:, 1] - logits[:, 0], labels)
    assert LOSSES["focal"](logits, labels).item() == pytest.approx(published.item(), rel=1e-5)


def test_bce_of_two_classes_is_torchs():
    logits, labels = case(2)
    known = labels != UNKNOWN
    expected = functional.binary_cross_entropy_with_logits(
        (logits[:, 1] - logits[:, 0])[known], labels[known].float()
    )
    assert LOSSES["bce"](logits, labels).item() == pytest.approx(expected.item(), rel=1e-6)


def test_bce_of_three_classes_is_one_against_the_rest():
    logits, labels = case()
    p, known = logits.softmax(1), labels != UNKNOWN
    expected = np.mean(
        [
            functional.binary_cross_entropy(p[:, k][known], (labels == k)[known].float()).item()
            for k in range(3)
        ]
    )
    assert LOSSES["bce"](logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_dice_is_the_published_one():
    logits, labels = case()
    # Its ``smooth`` is added to the overlap, which is half of ours.
    published = smp.losses.DiceLoss("multiclass", smooth=0.5, ignore_index=UNKNOWN)(logits, labels)
    assert LOSSES["dice"](logits, labels).item() == pytest.approx(published.item(), rel=1e-5)


def test_bce_dice_is_their_weighted_sum():
    logits, labels = case()
    bce, dice = (LOSSES[name](logits, labels).item() for name in ("bce", "dice"))
    both = LOSSES["bce_dice"](logits, labels, dice_weight=0.3).item()
    assert both == pytest.approx(0.7 * bce + 0.3 * dice, rel=1e-6)


def test_lovasz_hinge_of_certain_predictions_is_twice_the_jaccard_distance():
    # With margins of exactly 1 every error is 0 or 2, and the extension of the Jaccard loss is
    # then linear: 2 * (1 - IoU) (Berman et al. 2018, section 3).
    labels = torch.tensor([[[1, 1, 1, 0, 0, 0, UNKNOWN]]])
    predicted = torch.tensor([[[1, 1, 0, 1, 0, 0, 1]]])
    logits = torch.stack([torch.zeros(1, 1, 7), 2.0 * predicted - 1], 1)
    assert LOSSES["lovasz_hinge"](logits, labels).item() == pytest.approx(2 * (1 - 2 / 4))


def test_lovasz_softmax_of_certain_predictions_is_the_jaccard_distance():
    labels = torch.tensor([[[1, 1, 1, 0, 0, 0, UNKNOWN]]])
    predicted = torch.tensor([[[1, 1, 0, 1, 0, 0, 1]]])
    logits = 100.0 * functional.one_hot(predicted, 2).movedim(-1, 1)
    assert LOSSES["lovasz"](logits, labels).item() == pytest.approx(1 - (2 / 4 + 2 / 4) / 2)


def test_lovasz_hinge_is_for_two_classes():
    with pytest.raises(ConfigError, match="two classes; got 3"):
        LOSSES["lovasz_hinge"](*case())


def brute_border(objects, w0, sigma):
    """Distances to every object's every pixel, by hand."""
    ndimage = pytest.importorskip("scipy.ndimage")
    parts, count = ndimage.label(objects)
    places = [np.argwhere(parts == i + 1) for i in range(count)]
    weight = np.zeros(objects.shape)
    for row, col in np.argwhere(~objects):
        away = sorted(np.hypot(*(p - (row, col)).T).min() for p in places)
        if len(away) > 1:
            weight[row, col] = w0 * math.exp(-((away[0] + away[1]) ** 2) / (2 * sigma**2))
    return weight


def test_border_weights_against_the_papers_formula():
    rng = np.random.default_rng(0)
    objects = np.zeros((40, 60), bool)
    for row, col in zip(rng.integers(0, 36, 9), rng.integers(0, 56, 9), strict=True):
        objects[row : row + 4, col : col + 3] = True
    weights = border_weights(objects, w0=10.0, sigma=5.0)
    np.testing.assert_allclose(weights, brute_border(objects, 10.0, 5.0), atol=1e-4)
    assert weights.max() > 5
    assert (weights[objects] == 0).all()


@pytest.mark.parametrize("objects", [np.zeros((9, 9), bool), np.eye(9, dtype=bool)[:1]])
def test_fewer_than_two_objects_have_no_border(objects):
    assert (border_weights(objects) == 0).all()


def test_border_loss_is_cross_entropy_and_the_borders_part():
    logits, _ = case(2, unknown=False)
    labels = torch.zeros(2, 8, 9, dtype=torch.long)
    labels[:, 2:6, 1:4] = 1
    labels[:, 2:6, 5:8] = 1  # one pixel of land between
    labels[0, 0] = UNKNOWN
    weights = torch.from_numpy(np.stack([border_weights((lab == 1).numpy()) for lab in labels]))
    entropy = functional.cross_entropy(logits, labels, ignore_index=UNKNOWN, reduction="none")
    expected = (entropy * (1 + weights))[labels != UNKNOWN].mean()
    assert border_cross_entropy(logits, labels).item() == pytest.approx(expected.item(), rel=1e-6)
    gap = weights[0, 3, 4].item()
    assert gap == pytest.approx(10 * math.exp(-(2**2) / 50), rel=1e-5)

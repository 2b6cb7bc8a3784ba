"""Losses of partial labels against the formulas they stand for."""

import pytest
import torch
from torch.nn import functional

from geounet.training.losses import (
    PartialCrossEntropy,
    PartialDice,
    PartialLabelLoss,
    allowed_log_probability,
    class_labels,
    is_informative,
)
from geounet.training.shares import from_share

LOGITS = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
CLASSES = torch.randint(3, (2, 5, 7), generator=torch.Generator().manual_seed(1))
SINGLE = (1 << CLASSES).to(torch.uint8)


def test_a_set_of_one_class_is_cross_entropy():
    torch.testing.assert_close(
        PartialCrossEntropy()(LOGITS, SINGLE), functional.cross_entropy(LOGITS, CLASSES)
    )


def test_a_set_of_two_classes_is_the_log_of_their_sum():
    allowed = torch.full((2, 5, 7), 0b101, dtype=torch.uint8)
    p = LOGITS.softmax(1)
    torch.testing.assert_close(
        PartialCrossEntropy()(LOGITS, allowed), -(p[:, 0] + p[:, 2]).log().mean()
    )


@pytest.mark.parametrize("nothing", [0b000, 0b111])
def test_empty_and_full_sets_say_nothing(nothing):
    allowed = torch.full((2, 5, 7), nothing, dtype=torch.uint8)
    logits = LOGITS.clone().requires_grad_()
    loss = PartialCrossEntropy(0.2)(logits, allowed)
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()
    assert not is_informative(allowed, 3).any()


def test_unknown_pixels_do_not_change_the_mean():
    mixed = SINGLE.clone()
    mixed[:, ::2] = 0
    part = PartialCrossEntropy()(LOGITS[:, :, 1::2], SINGLE[:, 1::2])
    torch.testing.assert_close(PartialCrossEntropy()(LOGITS, mixed), part)


def test_generalised_form_is_bounded_and_tends_to_cross_entropy():
    wrong = torch.tensor([-40.0, 40.0, 0.0]).view(1, 3, 1, 1)
    land = torch.ones(1, 1, 1, dtype=torch.uint8)
    assert PartialCrossEntropy(0.25)(wrong, land) == pytest.approx(4.0)
    torch.testing.assert_close(
        PartialCrossEntropy(1e-4)(LOGITS, SINGLE),
        PartialCrossEntropy()(LOGITS, SINGLE),
        rtol=1e-3,
        atol=0,
    )


def test_gradients_stay_finite_where_an_allowed_class_is_impossible():
    logits = torch.tensor([-200.0, 200.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    PartialLabelLoss()(logits, torch.full((1, 1, 1), 0b101, dtype=torch.uint8)).backward()
    assert torch.isfinite(logits.grad).all()


def test_log_probability_of_any_class_is_zero():
    full = torch.full((2, 5, 7), 0b111, dtype=torch.uint8)
    assert not allowed_log_probability(LOGITS, full).any()


def test_dice_against_the_formula_and_its_ends():
    water = (SINGLE == 2).float()
    p = LOGITS.softmax(1)[:, 1]
    expected = 1 - (2 * (p * water).sum() + 10) / (p.sum() + water.sum() + 10)
    torch.testing.assert_close(PartialDice()(LOGITS, SINGLE), expected)
    sure = 100.0 * functional.one_hot(CLASSES, 3).permute(0, 3, 1, 2).float()
    assert PartialDice()(sure, SINGLE) == pytest.approx(0, abs=1e-6)


def test_dice_counts_not_water_and_leaves_out_the_undecided():
    water = torch.tensor([0.0, 100.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    dice = PartialDice(smooth=1.0)
    not_water = torch.tensor([[[0b101, 0b101]]], dtype=torch.uint8)
    undecided = torch.tensor([[[0b011, 0b111]]], dtype=torch.uint8)
    assert dice(water, not_water) == pytest.approx(1 - 1 / 3)
    assert dice(water, undecided) == pytest.approx(0)


@pytest.mark.parametrize("robustness", [0.0, 0.05])
def test_a_mixed_pixel_asks_for_the_share_of_each(robustness):
    logits = torch.zeros(1, 3, 1, 1, requires_grad=True)
    label = from_share(torch.tensor(0.25)).view(1, 1, 1)
    optimiser = torch.optim.SGD([logits], lr=2.0)
    for _ in range(400):
        optimiser.zero_grad()
        PartialCrossEntropy(robustness)(logits, label).backward()
        optimiser.step()
    land, water, obscured = logits.detach().softmax(1)[0, :, 0, 0].tolist()
    assert obscured < 0.01
    odds = (0.25 / 0.75) ** (1 / (1 - robustness))
    assert water / land == pytest.approx(odds, rel=0.02)


def test_mixed_pixels_against_the_formula_beside_pure_ones():
    labels = SINGLE.to(torch.int16)
    labels[:, :2] = from_share(torch.tensor(0.75))
    log_p = LOGITS.log_softmax(1)
    mixed = -(0.75 * log_p[:, 1] + 0.25 * log_p[:, 0])[:, :2]
    pure = functional.cross_entropy(LOGITS, CLASSES, reduction="none")[:, 2:]
    expected = torch.cat([mixed, pure], 1).mean()
    torch.testing.assert_close(PartialCrossEntropy()(LOGITS, labels), expected)


def test_a_veiled_mixed_pixel_may_be_obscured():
    label = (from_share(torch.tensor(0.5)) | 4).view(1, 1, 1)
    cloud = torch.tensor([0.0, 0.0, 30.0]).view(1, 3, 1, 1)
    assert PartialCrossEntropy()(cloud, label) == pytest.approx(0, abs=1e-6)
    assert is_informative(label, 3).item() is False


def test_dice_and_single_class_losses_leave_mixed_pixels_out():
    labels = SINGLE.to(torch.int16)
    without = labels.clone()
    labels[:, 1], without[:, 1] = from_share(torch.tensor(0.9)), 0
    torch.testing.assert_close(PartialDice()(LOGITS, labels), PartialDice()(LOGITS, without))
    assert (class_labels(labels, 3)[:, 1] == 255).all()


def test_mixed_pixels_count_by_their_weight():
    labels = SINGLE.to(torch.int16)
    labels[:, :2] = from_share(torch.tensor(0.5))
    once, thrice = (PartialCrossEntropy(mixed_weight=w)(LOGITS, labels) for w in (1.0, 3.0))
    of_mixed = -0.5 * LOGITS.log_softmax(1)[:, :2, :2].sum() / labels.numel()
    torch.testing.assert_close(thrice - once, 2 * of_mixed)

"""Codes and probabilities of pixels, against the rule written out pixel by pixel."""

import numpy as np
import pytest

from geounet import deciding
from geounet.deciding import decide

CLASSES = ("land", "water", "obscured")


def _by_the_rule(scores, observed, classes, threshold):
    """One pixel: its code and its stored probability."""
    place = dict(zip(classes, scores, strict=True))
    if not observed:
        return 255, 255
    surface = max(place["water"] + place["land"], np.float32(1e-6))
    water = place["water"] / surface
    code = 2 if place.get("obscured", 0) > 0.5 else int(water >= np.float32(threshold))
    return code, round(float(water * np.float32(250)))


@pytest.mark.parametrize("classes", [("land", "water"), CLASSES, CLASSES[::-1]])
@pytest.mark.parametrize(("threshold", "piece"), [(0.5, 1 << 17), (0.3, 60), (0.7, 1)])
def test_every_pixel_follows_the_rule(monkeypatch, classes, threshold, piece):
    """Whatever the size of the pieces that rows go through in."""
    monkeypatch.setattr(deciding, "_PIECE", piece)
    random = np.random.default_rng(3)
    scores = random.dirichlet([0.3] * len(classes), (23, 29)).astype(np.float32)
    scores[:2, :5] = 0  # as where no window was predicted
    scores[2, :5] = (0.5, 0.25, 0.25)[-len(classes) :]  # as likely as not
    scores[3, :5] = (0.25, 0.25, 0.5)[-len(classes) :]
    scores = np.moveaxis(scores, -1, 0)
    observed = random.random((23, 29)) > 0.2
    codes, levels = decide(scores, observed, classes, threshold)
    expected = [
        _by_the_rule(scores[:, row, col], observed[row, col], classes, threshold)
        for row, col in np.ndindex(23, 29)
    ]
    assert codes.dtype == levels.dtype == np.uint8
    assert list(zip(codes.ravel().tolist(), levels.ravel().tolist(), strict=True)) == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_scores_that_are_no_numbers_are_refused(bad, at):
    scores = np.full((3, 40, 50), 1 / 3, np.float32)
    scores[at, 39, 49] = bad
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        decide(scores, np.ones((40, 50), bool), CLASSES)


def test_no_rows_are_no_codes():
    codes, levels = decide(np.empty((2, 0, 7), np.float32), np.empty((0, 7), bool), CLASSES[:2])
    assert codes.shape == levels.shape == (0, 7)

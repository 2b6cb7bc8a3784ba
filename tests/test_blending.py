from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geounet.blending import BlendWindow, StripBlender, axis_weights
from geounet.errors import ConfigError
from geounet.tiling import Axis, WindowPlan

KINDS = get_args(BlendWindow)
MOST = 7e-7


@st.composite
def plans(draw):
    height, width = draw(st.integers(1, 150)), draw(st.integers(1, 150))
    tile = draw(st.integers(1, 64))
    return WindowPlan(height, width, tile, draw(st.integers(0, tile * 3 // 4)))


def _blend(plan, image, kind, **arrays):
    """Cut an image into a plan's windows and put it together again, row by row."""
    blender = StripBlender(plan, image.shape[0], kind, **arrays)
    done = []
    for row, top in enumerate(plan.rows.starts):
        for col, left in enumerate(plan.cols.starts):
            tile = image[:, top : top + plan.rows.tile, left : left + plan.cols.tile]
            blender.add(row, col, tile)
        done.append(blender.finish(row) + 0)  # a copy: the next window goes where it lies
    return done


@settings(max_examples=250, deadline=None)
@given(plans(), st.sampled_from(KINDS))
def test_weights_are_a_partition_of_unity(plan, kind):
    """Invariant 2: over every pixel the weights of the windows sum to one."""
    total = np.zeros((plan.height, plan.width), np.float32)
    down, across = axis_weights(plan.rows, kind), axis_weights(plan.cols, kind)
    for top, v in zip(plan.rows.starts, down, strict=True):
        for left, h in zip(plan.cols.starts, across, strict=True):
            weight = v[:, None] * h[None]
            assert weight.dtype == np.float32
            assert weight.min() > 0  # no weight reaches 0, least of all at the scene's frame
            total[top : top + plan.rows.tile, left : left + plan.cols.tile] += weight
    assert np.abs(total - 1).max() <= MOST


@settings(max_examples=250, deadline=None)
@given(plans(), st.sampled_from(KINDS), st.integers(1, 3))
def test_blending_an_image_with_itself_gives_the_image(plan, kind, channels):
    """Invariant 2, through `StripBlender` as rows leave it one by one."""
    random = np.random.default_rng(plan.height * 151 + plan.width)
    image = random.random((channels, plan.height, plan.width), np.float32)
    done = _blend(plan, image, kind)
    ends = [*plan.rows.starts[1:], plan.height]
    tops = plan.rows.starts
    assert [part.shape[1] for part in done] == [b - a for a, b in zip(tops, ends, strict=True)]
    whole = np.concatenate(done, axis=1)
    assert whole.dtype == np.float32
    assert np.abs(whole - image).max() <= MOST


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_blend_as_arrays_do(kind):
    plan = WindowPlan(70, 45, 32, 9)
    image = np.random.default_rng(4).random((2, 70, 45), np.float32)
    arrays = np.concatenate(_blend(plan, image, kind), axis=1)
    tensors = _blend(plan, torch.from_numpy(image), kind, zeros=torch.zeros,
                     asarray=lambda w: torch.from_numpy(w.copy()))  # fmt: skip
    assert all(isinstance(part, torch.Tensor) for part in tensors)
    assert np.array_equal(torch.cat(tensors, dim=1).numpy(), arrays)


def test_two_windows_fade_into_each_other():
    """Ones beside zeros: the seam is the profile itself, known in closed form."""
    plan = WindowPlan(1, 12, 8, 4)
    blender = StripBlender(plan, 1, "hann")
    blender.add(0, 0, np.ones((1, 1, 8), np.float32))
    blender.add(0, 1, np.zeros((1, 1, 8), np.float32))
    centre = (np.arange(8) + 0.5) / 8
    hann = np.sin(np.pi * centre) ** 2
    seam = hann[4:] / (hann[4:] + hann[:4])
    expected = np.concatenate([np.ones(4), seam, np.zeros(4)])
    np.testing.assert_allclose(blender.finish(0)[0, 0], expected, atol=1e-7)
    np.testing.assert_allclose(seam + seam[::-1], 1, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "profile"),
    [
        ("hann", lambda c: np.sin(np.pi * c) ** 2),
        ("cosine", lambda c: np.sin(np.pi * c)),
        ("gaussian", lambda c: np.exp(-((c - 0.5) ** 2) / (2 * 0.125**2))),
        ("linear", lambda c: np.minimum(c, 1 - c)),
        ("none", np.ones_like),
    ],
)
def test_each_profile_is_what_it_is_called(kind, profile):
    axis = Axis(40, 16, 4)
    profile = profile((np.arange(16) + 0.5) / 16)
    total = np.zeros(40)
    for start in axis.starts:
        total[start : start + 16] += profile
    for start, weight in zip(axis.starts, axis_weights(axis, kind), strict=True):
        np.testing.assert_allclose(weight, profile / total[start : start + 16], rtol=1e-6)


def test_what_one_window_covers_alone_is_all_its_own():
    (only,) = axis_weights(Axis(9, 9, 0), "gaussian")
    assert np.array_equal(only, np.ones(9, np.float32))


def test_a_blender_holds_one_window_of_rows_whatever_the_height():
    """Invariant 1."""
    shapes = []

    def zeros(shape):
        shapes.append(shape)
        return np.zeros(shape, np.float32)

    plan = WindowPlan(5000, 20, 16, 4)
    blender = StripBlender(plan, 2, zeros=zeros)
    rows = sum(blender.finish(row).shape[1] for row in range(len(plan.rows.starts)))
    assert rows == 5000
    assert shapes == [(2, 16, 20)]


@settings(max_examples=150, deadline=None)
@given(plans(), st.integers(0, 2**32 - 1))
def test_a_window_that_is_left_out_adds_nothing(plan, seed):
    """Against sums over the whole scene; what stood in the array before never shows."""
    random = np.random.default_rng(seed)
    across, tile = plan.cols.starts, (plan.rows.tile, plan.cols.tile)
    whole = np.zeros((plan.height, plan.width), np.float32)
    blender = StripBlender(plan, 1)
    down_weights, across_weights = axis_weights(plan.rows), axis_weights(plan.cols)
    done = []
    for row, top in enumerate(plan.rows.starts):
        for col, left in enumerate(across):
            if random.random() < 0.4:
                continue
            scores = random.random((1, *tile), np.float32)
            blender.add(row, col, scores)
            weight = down_weights[row][:, None] * across_weights[col][None]
            whole[top : top + tile[0], left : left + tile[1]] += scores[0] * weight
        done.append(blender.finish(row) + 0)
    assert np.array_equal(np.concatenate(done, axis=1)[0], whole)  # the order of sums is the same


def test_windows_come_from_left_to_right():
    plan = WindowPlan(8, 20, 8, 2)
    blender = StripBlender(plan, 1)
    blender.add(0, 1, np.ones((1, 8, 8), np.float32))
    for col in (0, 1):
        with pytest.raises(ValueError, match="left to right"):
            blender.add(0, col, np.ones((1, 8, 8), np.float32))


def test_a_profile_that_is_not_known_is_refused():
    with pytest.raises(ConfigError, match="hann, cosine, gaussian, linear, none; got 'hanning'"):
        axis_weights(Axis(9, 4, 1), "hanning")

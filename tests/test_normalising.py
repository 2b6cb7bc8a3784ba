import numpy as np
import pytest
import torch
from torch import nn

from geounet.engines.normalising import normalise
from geounet.segmenter import Segmenter
from geounet.spec import Inputs, Normalisation

BY = Normalisation(floor=0.002, mean=(-2.0, -1.5, -1.0, -0.5), std=(0.5, 1.5, 1.0, 2.0))
INPUTS = Inputs((5, 2, 7), (2, 0, 1, 0), (2e-4, 1e-4, 3e-4, 0.0), (-0.1, 0.0, 0.02, 0.0))


def _scene(dtype, high):
    random = np.random.default_rng(8)
    dn = random.integers(0, high, (3, 9, 13)).astype(dtype)
    return dn, random.random((9, 13)) < 0.8


@pytest.mark.parametrize(
    ("dtype", "high"),
    [
        ("uint8", 255),
        ("int16", 9000),
        ("uint16", 65535),
        ("int32", 90000),
        ("uint32", 90000),
        ("float32", 9000),
        ("float64", 9000),
    ],
)
@pytest.mark.parametrize("pad", [(0, 0), (3, 5)])
def test_it_gives_what_the_network_s_own_gives(dtype, high, pad):
    """With bands that are missing or change places, offsets, and pixels beyond the window."""
    dn, observed = _scene(dtype, high)
    sides = ((0, pad[0]), (0, pad[1]))
    numbers = torch.from_numpy(np.pad(dn, ((0, 0), *sides)).astype(np.float64))
    expected = Segmenter(nn.Identity(), BY).normalise(
        numbers[None, list(INPUTS.take)].float(),
        torch.tensor([INPUTS.gain]),
        torch.tensor([INPUTS.bias]),
        torch.from_numpy(np.pad(observed, sides))[None, None],
    )
    made = np.full((4, 9 + pad[0], 13 + pad[1]), np.nan, np.float32)
    normalise(dn, observed, INPUTS, BY, made)
    np.testing.assert_allclose(made, expected[0], rtol=1e-6, atol=2e-6)
    assert not made[:, :9, :13][:, ~observed].any()
    assert made[:3, :9, :13][:, observed].all()
    assert not made[3].any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_was_not_observed_may_be_any_number(dtype):
    dn, observed = _scene(dtype, 9000)
    observed[0] = False
    dn[:, 0, :4] = np.nan, np.inf, -np.inf, np.finfo(dtype).max
    made = np.empty((4, 9, 13), np.float32)
    normalise(dn, observed, INPUTS, BY, made)
    assert np.isfinite(made).all()
    assert not made[:, 0].any()


def test_all_that_was_observed_is_filled_in():
    dn, _ = _scene("uint16", 9000)
    made = np.full((4, 9, 13), np.nan, np.float32)
    normalise(dn, np.ones((9, 13), bool), INPUTS, BY, made)
    assert made[:3].all()

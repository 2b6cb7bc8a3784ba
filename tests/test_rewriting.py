import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from geounet.engines.rewriting import enlarging_kernel, lighten, two_by_two_kernel
from geounet.engines.silent_openvino import ov


def _weights(out, channels, seed=0):
    return torch.randn(out, channels, 3, 3, generator=torch.Generator().manual_seed(seed))


def _twice(x):
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def test_one_transposed_convolution_enlarges_and_convolves():
    """At the edges too, where the padding's zeros lie."""
    x, weights = torch.arange(60.0).reshape(1, 3, 4, 5).cos(), _weights(2, 3)
    expected = functional.conv2d(_twice(x), weights, padding=1)
    kernel = torch.from_numpy(enlarging_kernel(weights.numpy()))
    made = functional.conv_transpose2d(x, kernel, stride=2, padding=1)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


def test_one_convolution_gives_two_by_two_pixels():
    x, weights = torch.arange(144.0).reshape(1, 3, 6, 8).cos(), _weights(2, 3)
    expected = functional.conv2d(x, weights, padding=1)
    kernel = torch.from_numpy(two_by_two_kernel(weights.numpy()))
    pixels = functional.conv2d(x, kernel, stride=2, padding=1).reshape(1, 2, 2, 2, 3, 4)
    made = pixels.permute(0, 3, 4, 1, 5, 2).reshape(1, 2, 6, 8)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


class _Decoder(nn.Module):
    """Halves its input, enlarges it by `enlarge`, joins it with `beside`, and convolves."""

    def __init__(self, enlarge=_twice, beside=None, classes=3, *, bias=True, **options):
        super().__init__()
        torch.manual_seed(1)
        self.down = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.enlarge, self.beside = enlarge, beside or (lambda x, skip: torch.cat([x, skip], 1))
        joined = self.beside(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, 2)).shape[1]
        self.join = nn.Conv2d(joined, 5, 3, bias=bias, **({"padding": 1} | options))
        self.head = nn.Conv2d(5, classes, 3, padding=1)

    def forward(self, x):
        return self.head(torch.relu(self.join(self.beside(self.enlarge(self.down(x)), x))))


def _converted(module):
    shape = (1, 2, -1, -1)
    return ov.convert_model(module.eval(), example_input=torch.zeros(1, 2, 8, 8), input=[shape])


def _kinds(network):
    return [node.get_type_name() for node in network.get_ordered_ops()]


def _run(network, x):
    made = ov.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return made(x)[0]


def _alone(x, skip):
    return x


def _three(x, skip):
    return torch.cat([x, skip, 2 * skip], 1)


def _second(x, skip):
    return torch.cat([skip, x], 1)


def _bilinear(x):
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear")


def _to_one_size(x):
    return functional.interpolate(x, size=(8, 8), mode="nearest")


@pytest.mark.parametrize(
    ("options", "taken", "head"),
    [
        ({}, True, True),
        ({"bias": False}, True, True),
        ({"beside": _alone}, True, True),
        ({"beside": _three}, True, True),
        ({"classes": 4}, True, True),
        ({"classes": 5}, True, False),
        ({"beside": _second}, False, True),
        ({"enlarge": _bilinear}, False, True),
        ({"enlarge": _to_one_size, "beside": _alone}, False, True),
        ({"padding": 2, "dilation": 2}, False, True),
    ],
)
@pytest.mark.filterwarnings("ignore")  # the tracer's
def test_a_network_gives_the_same_after_rewriting(options, taken, head):
    """And what is not of the kind stays as it is."""
    network = _converted(_Decoder(**options))
    x = np.random.default_rng(3).normal(size=(1, 2, 8, 8)).astype(np.float32)
    expected = _run(network, x)
    lighten(network, [8, 12])
    kinds = _kinds(network)
    assert ("ConvolutionBackpropData" in kinds, "Interpolate" in kinds) == (taken, not taken)
    assert ("DepthToSpace" in kinds) is head
    made = _run(network, x)
    assert np.ptp(made) > 0.1
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5)

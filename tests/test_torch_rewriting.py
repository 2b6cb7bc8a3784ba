import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.nn import functional

from geounet.engines.torch_rewriting import lighten
from geounet.model import load_model
from geounet.networks import UNet

OPS = torch.ops.aten


def _filled(network):
    """With weights and statistics that are all other than what they start as."""
    torch.manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.running_var):
                nn.init.uniform_(value, 0.8, 1.25)
            for value in (module.bias, module.running_mean):
                nn.init.normal_(value, std=0.3)
    return network.eval().to(memory_format=torch.channels_last)


def _count(made):
    """How often each function is called."""
    called = [step.target for step in made.graph.nodes if step.op == "call_function"]
    return {target: called.count(target) for target in called}


@torch.inference_mode()
def _assert_same(network, shape):
    """The same but for rounding, for inputs of a shape; gives how often functions are called."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    x = x.contiguous(memory_format=torch.channels_last)
    expected, made = network(x.clone()), lighten(network, shape)
    assert expected.max() - expected.min() > 0.1
    torch.testing.assert_close(made(x), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    return _count(made)


# -- whole networks --------------------------------------------------------------------------------


def test_the_default_model_gives_the_same():
    """Windows may be of any size that the network takes."""
    counted = _assert_same(_filled(load_model().network.body), (1, 10, 64, 96))
    assert OPS.batch_norm.default not in counted
    assert OPS.upsample_nearest2d.vec not in counted
    assert OPS.cat.default not in counted
    assert counted[OPS.conv_transpose2d.input] == 5
    assert counted[OPS.pixel_shuffle.default] == 1


def _smp(decoder, encoder="resnet18", **options):
    options |= {"in_channels": 3, "classes": 3, "encoder_weights": None}
    return smp.create_model(decoder, encoder, **options)


@pytest.mark.parametrize(
    ("network", "shape", "enlarged", "left"),
    [
        (lambda: _smp("Unet"), (2, 3, 64, 96), 5, 0),
        (lambda: _smp("Unet", "mit_b0"), (1, 3, 64, 96), 5, 0),  # a skip without channels
        (lambda: _smp("Unet", decoder_attention_type="scse"), (1, 3, 64, 32), 1, 4),
        (lambda: _smp("UnetPlusPlus"), (1, 3, 32, 64), 11, 0),
        (lambda: _smp("Linknet"), (1, 3, 32, 64), 5, 0),  # transposed from the start
        (lambda: _smp("FPN"), (1, 3, 32, 64), 0, 3),
        (lambda: UNet(3, 2, (4, 8)), (1, 3, 92, 108), 2, 0),
        (lambda: UNet(3, 2, (4, 8), up="resize"), (1, 3, 94, 110), 0, 2),  # convolves unpadded
        (
            lambda: UNet(3, 2, (4, 8), padded=True, batch_norm=True, up="resize"),
            (1, 3, 12, 20),
            2,
            0,
        ),
    ],
)
def test_networks_give_the_same(network, shape, enlarged, left):
    counted = _assert_same(_filled(network()), shape)
    assert counted.get(OPS.conv_transpose2d.input, 0) == enlarged
    assert counted.get(OPS.upsample_nearest2d.vec, 0) == left


# -- patterns --------------------------------------------------------------------------------------


def _twice(x):
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


class _Decoder(nn.Module):
    """Halves its input, enlarges it by `enlarge`, joins it with `beside`, and convolves."""

    def __init__(self, enlarge=_twice, beside=None, classes=3, **options):
        super().__init__()
        torch.manual_seed(1)
        self.down = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.enlarge, self.beside = enlarge, beside or (lambda x, skip: torch.cat([x, skip], 1))
        joined = self.beside(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, 2)).shape[1]
        self.join = nn.Conv2d(joined, 4, 3, **({"padding": 1} | options))
        self.head = nn.Conv2d(4, classes, 3, padding=1)

    def forward(self, x):
        return self.head(torch.relu(self.join(self.beside(self.enlarge(self.down(x)), x))))


def _meanwhile(x, skip):
    """The skip changes after it was joined."""
    skip = skip + 1
    joined = torch.cat([x, skip], 1)
    skip.neg_()
    return joined


def _to(size, mode="nearest"):
    return lambda x: functional.interpolate(x, size=size, mode=mode)


@pytest.mark.parametrize(
    ("options", "taken", "head"),
    [
        ({}, True, True),
        ({"bias": False}, True, True),
        ({"beside": lambda x, skip: x}, True, True),
        ({"beside": lambda x, skip: torch.cat([x, skip, 2 * skip], 1)}, True, True),
        ({"beside": _meanwhile}, True, True),
        ({"enlarge": _to((8, 12))}, True, True),
        ({"classes": 4}, True, True),
        ({"classes": 5}, True, False),
        ({"beside": lambda x, skip: torch.cat([skip, x], 1)}, False, True),
        ({"beside": lambda x, skip: torch.cat([x, skip], 1).relu()}, False, True),
        ({"enlarge": _to((8, 12), "bilinear")}, False, True),
        ({"enlarge": _to((8, 6)), "beside": lambda x, skip: x}, False, True),
        ({"enlarge": _to((7, 12)), "beside": lambda x, skip: x}, False, False),
        ({"padding": 2, "dilation": 2}, False, True),
        ({"groups": 2}, False, True),
    ],
)
def test_what_is_of_the_kind_is_rewritten(options, taken, head):
    counted = _assert_same(_Decoder(**options).eval(), (1, 2, 8, 12))
    assert (OPS.conv_transpose2d.input in counted) is taken
    assert (OPS.pixel_shuffle.default in counted) is head


class _Normalised(nn.Module):
    """A convolution with a normalisation after it, which may not be all that sees it."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(2, 3, 3, bias=options.pop("bias", False))
        self.seen = options.pop("seen", False)
        self.norm = nn.BatchNorm2d(3, **options)

    def forward(self, x):
        x = self.conv(x)
        return self.norm(x) + x if self.seen else self.norm(x)


@pytest.mark.parametrize(
    ("options", "folded"),
    [
        ({}, True),
        ({"bias": True}, True),
        ({"affine": False}, True),
        ({"eps": 0.3}, True),
        ({"seen": True}, False),
        ({"track_running_stats": False}, False),
    ],
)
def test_a_normalisation_goes_into_the_convolution_before_it(options, folded):
    network = _Normalised(**options)
    if network.norm.running_mean is not None:
        network.norm.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3]))
        network.norm.running_var.copy_(torch.tensor([0.5, 2.0, 1.0]))
    counted = _assert_same(network.eval(), (1, 2, 6, 7))
    assert (OPS.batch_norm.default in counted) is not folded


class _Asking(nn.Module):
    """What it does depends on the numbers, so that no trace of it is right for all."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_what_cannot_be_traced_stays_as_it_is():
    network = _Asking()
    assert lighten(network, (1, 2, 4, 4)) is network

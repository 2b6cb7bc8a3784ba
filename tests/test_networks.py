import math

import pytest
import torch
from torch import nn

from geounet.errors import ConfigError, ModelError
from geounet.model import (
    Architecture,
    ModelSpec,
    Normalisation,
    default_bands,
    load_model,
    save_model,
)
from geounet.networks import UNet, unet_geometry
from geounet.segmenter import build_network


def test_the_papers_sizes_from_572_to_388():
    with torch.device("meta"):
        net = UNet(1, 2)
        seen = {}
        net.bottleneck.register_forward_hook(lambda m, i, o: seen.update(bottleneck=o.shape))
        out = net(torch.empty(1, 1, 572, 572))
    assert seen["bottleneck"] == (1, 1024, 28, 28)
    assert out.shape == (1, 2, 388, 388)


def test_the_papers_levels():
    with torch.device("meta"):
        net = UNet(1, 2)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) + 4 == 23  # "In total the network has 23 convolutional layers"
    assert [m.out_channels for m in convolutions[:10:2]] == [64, 128, 256, 512, 1024]
    ups = [m for m in net.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels) for m in ups] == [
        (1024, 512), (512, 256), (256, 128), (128, 64)
    ]  # fmt: skip
    assert sum(p.numel() for p in net.parameters()) == 31_030_658


def test_the_papers_geometry():
    geometry = unet_geometry(4, padded=False)
    assert (geometry.margin, geometry.multiple, geometry.remainder) == (92, 16, 4)


@pytest.mark.parametrize("up", ["transpose", "resize"])
@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize("padded", [False, True])
def test_geometry_is_that_of_the_network(depth, padded, up):
    geometry = unet_geometry(depth, padded=padded, up=up)
    with torch.device("meta"):
        net = UNet(3, 2, (2,) * depth, padded=padded, up=up).eval()
        assert net.geometry == geometry
        for n in (1, 4):
            size = geometry.multiple * n + geometry.remainder
            out = net(torch.empty(1, 3, size + 2 * geometry.margin, size + 2 * geometry.margin))
            assert out.shape == (1, 2, size, size)


@pytest.mark.parametrize("up", ["transpose", "resize"])
def test_tiles_of_an_unpadded_network_agree_exactly_with_the_whole(up):
    torch.manual_seed(0)
    net = UNet(2, 2, (3, 4), dropout=0, up=up).double().eval()
    g = net.geometry
    image = torch.randn(1, 2, 60 + g.remainder + 2 * g.margin, 60 + g.remainder + 2 * g.margin)
    image = image.double()
    whole = net(image)
    side = 20 + g.remainder
    tile = net(image[..., 8 : 8 + side + 2 * g.margin, 24 : 24 + side + 2 * g.margin])
    torch.testing.assert_close(tile, whole[..., 8 : 8 + side, 24 : 24 + side], rtol=0, atol=1e-12)


@pytest.mark.parametrize("up", ["transpose", "resize"])
def test_features_are_cropped_about_their_middle(up):
    net = UNet(1, 1, (2, 2), dropout=0, up=up).double().eval()
    for parameter in net.parameters():  # kernels that are their own mirror image
        torch.nn.init.constant_(parameter, 0.1)
    g = net.geometry
    side = 4 * g.multiple + g.remainder + 2 * g.margin
    image = torch.randn(1, 1, side, side).double()
    mirrored = net(image.flip(-1, -2)).flip(-1, -2)
    torch.testing.assert_close(mirrored, net(image), rtol=1e-9, atol=0)


def test_each_output_sees_exactly_the_margin():
    net = UNet(1, 1, (2, 2), dropout=0).double()
    g = net.geometry
    side = g.remainder + g.multiple * 4
    image = torch.randn(1, 1, side + 2 * g.margin, side + 2 * g.margin).double()
    image.requires_grad_()
    net(image)[0, 0, 0, 0].backward()
    reached = image.grad[0, 0].ne(0).nonzero()
    assert reached.max() <= 2 * g.margin + g.multiple  # and not the far side
    assert reached.min() == 0


def test_padded_form_with_batch_norm_keeps_the_size():
    net = UNet(4, 3, [4, 8], padded=True, batch_norm=True, dropout=0.1, up="resize")
    assert net(torch.randn(2, 4, 32, 48)).shape == (2, 3, 32, 48)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == 10
    assert not any(isinstance(m, nn.ConvTranspose2d) for m in net.modules())


def test_he_initialisation_keeps_the_signals_size():
    torch.manual_seed(0)
    net = UNet(3, 2, (64, 128))
    kernel = net.down[1][2].weight
    assert kernel.std().item() == pytest.approx(math.sqrt(2 / (9 * 128)), rel=0.02)
    enlarge = net.up[0].enlarge.weight
    assert enlarge.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.02)
    out = net.eval()(torch.randn(1, 3, 140, 140))
    assert 0.3 < out.std().item() < 30


def test_dropout_only_at_the_end_of_the_contracting_path():
    torch.manual_seed(0)
    net = UNet(1, 1, (4, 4), dropout=0.5)
    seen = []
    net.dropout.register_forward_hook(lambda m, i, o: seen.append(o.shape[1]))
    net(torch.randn(1, 1, 60, 60))
    assert seen == [4, 8]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"features": ()}, "features"),
        ({"features": (8, 0)}, "features"),
        ({"dropout": 1.0}, "dropout"),
        ({"up": "shuffle"}, "up"),
    ],
)
def test_arguments_that_break_a_rule(arguments, word):
    with pytest.raises(ConfigError, match=word):
        UNet(1, 2, **arguments)


def spec(*, margin, multiple, remainder, **options):
    return ModelSpec(
        name="paper",
        architecture=Architecture(decoder="unet2015", options=options),
        bands=default_bands(),
        classes=("land", "water"),
        normalisation=Normalisation(mean=(-2.0,) * 12, std=(1.0,) * 12),
        margin=margin,
        tile_multiple=multiple,
        tile_remainder=remainder,
    )


def test_a_model_file_holds_it(tmp_path):
    made = spec(margin=8, multiple=2, remainder=0, features=[4])
    assert made.architecture.encoder == ""
    network = build_network(made).eval()
    save_model(tmp_path / "m.safetensors", made, network)
    loaded = load_model(tmp_path / "m.safetensors")
    assert isinstance(loaded.network.body, UNet)
    x = torch.randn(1, 12, 22, 22)
    torch.testing.assert_close(loaded.network.body(x), network.body(x), rtol=0, atol=0)


@pytest.mark.parametrize("wrong", [{"margin": 0}, {"multiple": 16}, {"remainder": 1}])
def test_a_spec_whose_geometry_is_not_the_networks_is_refused(wrong):
    right = {"margin": 8, "multiple": 2, "remainder": 0}
    with pytest.raises(ModelError, match="margin 8, tile_multiple 2 and tile_remainder 0"):
        build_network(spec(**{**right, **wrong}, features=[4]))


def test_a_margin_that_an_smp_network_does_not_have_is_refused():
    made = spec(margin=8, multiple=2, remainder=0).model_copy(
        update={"architecture": Architecture(decoder="Unet", encoder="resnet18")}
    )
    with pytest.raises(ModelError, match="margin"):
        build_network(made)


def test_unknown_options_and_an_encoder_are_refused():
    with pytest.raises(ModelError, match="depth"):
        build_network(spec(margin=8, multiple=2, remainder=0, depth=3))
    with pytest.raises(ValueError, match="encoder"):
        Architecture(decoder="unet2015", encoder="resnet18")


SMALL_UNET = {"encoder_depth": 3, "decoder_channels": [8, 8, 8]}


def smp_network(**options):
    torch.manual_seed(0)
    made = spec(margin=0, multiple=32, remainder=0).model_copy(
        update={"architecture": Architecture(encoder="resnet18", options={**SMALL_UNET, **options})}
    )
    return build_network(made).body.eval()


def test_a_decoder_that_sees_the_input_starts_as_it_was():
    plain, seeing = smp_network(), smp_network(input_skip=True)
    same = {k.replace("decoder.decoder.", "decoder."): v for k, v in seeing.state_dict().items()}
    first = "decoder.blocks.2.conv1.0.weight"
    same[first] = same[first][:, :8]
    plain.load_state_dict(same)
    x = torch.randn(1, 12, 32, 64)
    torch.testing.assert_close(seeing(x), plain(x), rtol=0, atol=1e-6)


def test_its_last_block_learns_from_single_pixels_of_the_input():
    body = smp_network(input_skip=True)
    first = body.decoder.decoder.blocks[-1].conv1[0]
    assert first.in_channels == 8 + 12
    body.encoder.requires_grad_(False)
    x = torch.randn(1, 12, 32, 32)
    body(x).square().sum().backward()
    assert (first.weight.grad[:, 8:].abs().amax((0, 2, 3)) > 0).all()


def test_a_model_file_holds_a_decoder_that_sees_the_input(tmp_path):
    made = spec(margin=0, multiple=32, remainder=0).model_copy(
        update={
            "architecture": Architecture(
                encoder="resnet18", options={**SMALL_UNET, "input_skip": True}
            )
        }
    )
    network = build_network(made).eval()
    nn.init.normal_(network.body.decoder.decoder.blocks[-1].conv1[0].weight)
    save_model(tmp_path / "m.safetensors", made, network)
    loaded = load_model(tmp_path / "m.safetensors").network
    x = torch.randn(1, 12, 32, 32)
    torch.testing.assert_close(loaded.body(x), network.body(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("decoder", "options"), [("Unet", {"decoder_attention_type": "scse"}), ("FPN", {})]
)
def test_other_decoders_cannot_see_the_input(decoder, options):
    arch = Architecture(decoder=decoder, options={**options, "input_skip": True})
    made = spec(margin=0, multiple=32, remainder=0).model_copy(update={"architecture": arch})
    with pytest.raises(ModelError, match="input_skip is for the decoder Unet"):
        build_network(made)

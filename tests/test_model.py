import hashlib
import json
import socket
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from geounet.errors import ModelError, OutputError, SceneError
from geounet.model import (
    Architecture,
    InputBand,
    ModelSpec,
    Normalisation,
    default_bands,
    load_model,
    match_bands,
    save_model,
    shipped_models,
)
from geounet.radiometry import Radiometry
from geounet.segmenter import Segmenter, build_network
from geounet.sensors import SENSORS

SMALL = Architecture(decoder="unet2015", options={"features": [2], "padded": True, "dropout": 0.0})
GRN = (
    InputBand(name="B03", common_name="green", required=True),
    InputBand(name="B04", common_name="red", required=True),
    InputBand(name="B08", common_name="nir", accepts=("nir08",), required=True),
    InputBand(name="B11", common_name="swir16"),
)


def _spec(**changes):
    n = len(changes.get("bands", GRN))
    base = {
        "name": "small",
        "version": "3",
        "architecture": SMALL,
        "bands": GRN,
        "classes": ("land", "water"),
        "normalisation": Normalisation(mean=(-2.0,) * n, std=(0.5,) * n),
        "tile": 32,
        "overlap": 8,
        "tile_multiple": 2,
    }
    return ModelSpec(**(base | changes))


@pytest.fixture
def saved(tmp_path):
    """A whole model file, and the network that is in it."""
    torch.manual_seed(1)
    network = build_network(_spec())
    path = tmp_path / "small.safetensors"
    save_model(path, _spec(), network)
    return path, network


def _rewrite(path, *, spec=None, tensors=None, metadata=None):
    """Write the file again with another spec (a dict of changes), weights or metadata."""
    tensors = load_file(path) if tensors is None else tensors
    if metadata is None:
        metadata = {"geounet": json.dumps(_spec().model_dump(mode="json") | (spec or {}))}
    save_file(tensors, path, metadata=metadata)
    return path


# -- the file --------------------------------------------------------------------------------------


def test_spec_and_weights_come_back_as_they_were(saved):
    """Invariant 5: one file holds the model and its contract."""
    path, network = saved
    model = load_model(path)
    assert model.spec == _spec()
    assert not model.network.training
    before, after = network.body.state_dict(), model.network.body.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_every_field_of_a_spec_travels(tmp_path):
    """Invariant 5: names, order, units, normalisation and provenance are in the file."""
    spec = _spec(
        classes=("water", "obscured", "land"),
        normalisation=Normalisation(floor=2e-3, mean=(-1, -2, -3, -4), std=(1, 2, 3, 4)),
        temperature=1.5,
        gsd=(10.0, 20.0),
        licence="Apache-2.0",
        sources=("some data, CC-BY-4.0",),
        metrics={"iou": 0.7},
    )
    save_model(tmp_path / "m.safetensors", spec, build_network(spec))
    assert load_model(tmp_path / "m.safetensors").spec == spec


def test_the_file_is_safetensors_with_json_and_no_pickle(saved):
    """Invariant 5: the layout by the safetensors specification, read by hand."""
    path, network = saved
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    assert json.loads(header.pop("__metadata__")["geounet"]) == _spec().model_dump(mode="json")
    assert header.keys() == network.body.state_dict().keys()
    end = max(entry["data_offsets"][1] for entry in header.values())
    assert len(raw) == 8 + length + end  # nothing else is in it
    assert b"PK\x03\x04" not in raw[:8]
    assert not raw.startswith(b"\x80")


def test_the_digest_is_that_of_the_file(saved):
    path, _ = saved
    assert load_model(path).digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_half_precision_weights_load_as_single(saved):
    path, network = saved
    halves = {k: v.half() if v.is_floating_point() else v for k, v in load_file(path).items()}
    model = load_model(_rewrite(path, tensors=halves))
    for key, value in model.network.body.state_dict().items():
        assert value.dtype == network.body.state_dict()[key].dtype
        torch.testing.assert_close(value, network.body.state_dict()[key], rtol=1e-3, atol=1e-6)


def test_saving_replaces_a_file_and_leaves_nothing_else(saved):
    """Invariant 7."""
    path, network = saved
    path.write_text("an older file")
    save_model(path, _spec(version="4"), network)
    assert load_model(path).spec.version == "4"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_saving_makes_the_folder_and_refuses_one_that_is_none(saved):
    path, network = saved
    save_model(path.parent / "new" / "m.safetensors", _spec(), network)
    assert (path.parent / "new" / "m.safetensors").is_file()
    with pytest.raises(OutputError, match=r"a folder that can be written to; .* is none"):
        save_model(path / "m.safetensors", _spec(), network)


def test_saving_to_a_full_disk_leaves_the_old_file(saved):
    """Invariant 7, with a limit on the file size for a disk that fills up."""
    path, _ = saved
    before = path.read_bytes()
    code = (
        "import resource, sys\n"
        "from geounet.errors import OutputError\n"
        "from geounet.model import load_model, save_model\n"
        "model = load_model(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))\n"
        "try: save_model(sys.argv[1], model.spec, model.network)\n"
        "except OutputError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "an output must be writable" in done.stdout, done.stderr
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


# -- files that are refused ------------------------------------------------------------------------


def _foreign(path):
    save_file({"a": torch.zeros(3)}, path)


def _unnamed(path):
    _rewrite(path, metadata={"format": "pt"})


def _truncated(path):
    path.write_bytes(path.read_bytes()[:-20])


def _cut_header(path):
    path.write_bytes(path.read_bytes()[:40])


def _empty(path):
    path.write_bytes(b"")


def _pickle(path):
    torch.save({"a": torch.zeros(3)}, path)


def _unknown_field(path):
    _rewrite(path, spec={"colour": "blue"})


def _missing_field(path):
    spec = _spec().model_dump(mode="json")
    del spec["classes"]
    _rewrite(path, metadata={"geounet": json.dumps(spec)})


def _no_json(path):
    _rewrite(path, metadata={"geounet": "{not json"})


def _more_weights(path):
    _rewrite(path, tensors=load_file(path) | {"zz.extra": torch.zeros(1)})


def _fewer_weights(path):
    tensors = load_file(path)
    del tensors["head.bias"]
    _rewrite(path, tensors=tensors)


def _other_shape(path):
    _rewrite(path, tensors=load_file(path) | {"head.bias": torch.zeros(7)})


def _no_such_network(path):
    _rewrite(path, spec={"architecture": {"decoder": "Vnet", "encoder": "resnet18"}})


def _no_such_encoder(path):
    _rewrite(path, spec={"architecture": {"decoder": "Unet", "encoder": "resnet19"}})


def _no_such_timm_encoder(path):
    _rewrite(path, spec={"architecture": {"decoder": "Unet", "encoder": "tu-resnet19"}})


def _from_a_hub(path):
    _rewrite(path, spec={"architecture": {"decoder": "Unet", "encoder": "tu-hf-hub:a/b"}})


def _no_such_option(path):
    _rewrite(path, spec={"architecture": {"decoder": "unet2015", "options": {"depht": 2}}})


def _other_margin(path):
    _rewrite(path, spec={"margin": 4})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_foreign, "holds its spec under 'geounet'.*has none.*save_model"),
        (_unnamed, "holds its spec under 'geounet'"),
        (_truncated, "not a whole safetensors file"),
        (_cut_header, "not a whole safetensors file"),
        (_empty, "not a whole safetensors file"),
        (_pickle, "not a whole safetensors file"),
        (_unknown_field, "breaks the contract at colour.*newer geounet"),
        (_missing_field, "breaks the contract at classes"),
        (_no_json, "breaks the contract at spec"),
        (_more_weights, "do not fit its network; first odd one: zz.extra"),
        (_fewer_weights, "do not fit its network; first odd one: head.bias"),
        (_other_shape, "do not fit its network.*head.bias"),
        (_no_such_network, "cannot build Vnet"),
        (_no_such_encoder, r"cannot build .*resnet19`; the nearest are resnet1\d, [^\[]*\. Names"),
        (_no_such_timm_encoder, "cannot build Unet with encoder tu-resnet19"),
        (_from_a_hub, "breaks the contract at architecture.encoder"),
        (_no_such_option, "depht"),
        (_other_margin, "margin 0, tile_multiple 2 and tile_remainder 0; got 4, 2 and 0"),
    ],
)
def test_a_file_that_is_no_model_is_refused_in_one_line(saved, damage, message):
    """Invariant 5."""
    path, _ = saved
    damage(path)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_no_network_is_asked_for_what_a_file_names(saved, monkeypatch):
    """A model file must not make geounet fetch anything."""

    def refuse(*_, **__):
        pytest.fail("a model file made geounet open a connection")

    path, _ = saved
    _from_a_hub(path)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(ModelError):
        load_model(path)


@pytest.mark.parametrize("source", ["nowhere.safetensors", "defaultt", "."])
def test_a_model_that_is_not_there(source):
    with pytest.raises(ModelError, match=r"a file or one of .*; there is no"):
        load_model(source)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("land", "obscured")}, "hold land and water"),
        ({"classes": ("land", "water", "water")}, "distinct"),
        ({"classes": ("land", "water", "snow")}, "classes"),
        ({"bands": ()}, "at least 1"),
        ({"overlap": 32}, "overlap 32 must be less than tile 32"),
        ({"normalisation": Normalisation(mean=(0,), std=(1,))}, "each of 4 bands"),
        ({"normalisation": Normalisation(mean=(0,) * 4, std=(1, 1, 0, 1))}, "above 0"),
        ({"temperature": 0}, "temperature"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_spec_checks_itself(changes, message):
    with pytest.raises(ValueError, match=message):
        _spec(**changes)


# -- bands -----------------------------------------------------------------------------------------


def _radiometry(n, scale=1e-4, offset=0.0):
    return Radiometry((scale,) * n, (offset,) * n, "as told")


@pytest.mark.parametrize(
    ("found", "read", "take", "present"),
    [
        (("green", "red", "nir", "swir16"), (0, 1, 2, 3), (0, 1, 2, 3), (1, 1, 1, 1)),
        (("swir16", "nir", "red", "green"), (3, 2, 1, 0), (0, 1, 2, 3), (1, 1, 1, 1)),
        (("blue", "green", "red", "nir"), (1, 2, 3), (0, 1, 2, 0), (1, 1, 1, 0)),
        # a stand-in where the band itself is missing, and only there
        (("green", "red", "nir08"), (0, 1, 2), (0, 1, 2, 0), (1, 1, 1, 0)),
        (("nir08", "green", "red", "nir"), (1, 2, 3), (0, 1, 2, 0), (1, 1, 1, 0)),
        (("-", "green", "QA", "red", "-", "nir"), (1, 3, 5), (0, 1, 2, 0), (1, 1, 1, 0)),
    ],
)
def test_match_bands(found, read, take, present):
    """Invariant 5: bands are found by name, whatever their order in the file."""
    inputs = match_bands(_spec(), found, _radiometry(len(found), offset=-0.1))
    assert inputs.read == read
    assert inputs.take == take
    assert inputs.gain == tuple(1e-4 if p else 0.0 for p in present)
    assert inputs.bias == tuple(-0.1 if p else 0.0 for p in present)


def test_each_band_takes_its_own_scale():
    radiometry = Radiometry((1e-4, 2e-4, 3e-4), (-0.1, -0.2, -0.3), "as told")
    inputs = match_bands(_spec(), ("nir", "red", "green"), radiometry)
    assert inputs.gain == (3e-4, 2e-4, 1e-4, 0.0)
    assert inputs.bias == (-0.3, -0.2, -0.1, 0.0)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (("green", "red"), r"small needs nir \(B08\); the scene has green, red.*--bands"),
        (("swir16", "red"), r"needs green \(B03\), nir \(B08\); the scene has swir16, red"),
        (("-", "-"), r"needs green \(B03\), red \(B04\), nir \(B08\)"),
    ],
)
def test_missing_bands_are_named(found, message):
    """Invariant 5: a scene that does not fit is refused with the bands that are missing."""
    with pytest.raises(SceneError, match=message):
        match_bands(_spec(), found, _radiometry(len(found)))


def test_a_scene_with_none_of_the_bands_is_refused_though_none_is_required():
    optional = tuple(band.model_copy(update={"required": False}) for band in GRN)
    with pytest.raises(SceneError, match="the scene has thermal"):
        match_bands(_spec(bands=optional), ("thermal",), _radiometry(1))


@pytest.mark.parametrize("sensor", SENSORS)
def test_the_default_bands_are_found_in_every_sensor(sensor):
    found = [band.common_name for band in SENSORS[sensor].bands]
    spec = _spec(bands=default_bands())
    inputs = match_bands(spec, found, _radiometry(len(found)))
    filled = [band for band, gain in zip(spec.bands, inputs.gain, strict=True) if gain]
    assert {"green", "red", "nir"} <= {band.common_name for band in filled}
    assert len(set(inputs.read)) == len(inputs.read) == len(filled)
    for band, index in zip(filled, inputs.read, strict=True):
        assert found[index] in (band.common_name, *band.accepts)


# -- normalisation ---------------------------------------------------------------------------------


def _normalised(dn, gain, bias, observed, normalisation):
    reflectance = np.nan_to_num(dn.astype(np.float64)) * gain[:, None, None] + bias[:, None, None]
    mean, std = (np.array(v)[:, None, None] for v in (normalisation.mean, normalisation.std))
    x = (np.log(np.maximum(reflectance, normalisation.floor)) - mean) / std
    return np.where(observed & (gain != 0)[:, None, None], x, 0)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "float32"])
def test_normalisation_against_numpy(dtype):
    random = np.random.default_rng(3)
    dn = random.integers(0, 250, (4, 9, 7)).astype(dtype)
    observed = random.random((9, 7)) < 0.7
    gain, bias = np.array([4e-3, 1e-3, 0.0, 2e-3]), np.array([0.0, -0.1, 0.0, 0.01])
    normalisation = Normalisation(floor=2e-3, mean=(-2, -1.5, -1, -3), std=(0.5, 1, 2, 0.8))
    segmenter = Segmenter(nn.Identity(), normalisation)
    x = segmenter.normalise(
        torch.from_numpy(dn)[None],
        torch.tensor(gain, dtype=torch.float32)[None],
        torch.tensor(bias, dtype=torch.float32)[None],
        torch.from_numpy(observed)[None, None],
    )
    assert x.dtype == torch.float32
    expected = _normalised(dn, gain, bias, observed, normalisation)
    np.testing.assert_allclose(x[0].numpy(), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), 3e38, -3e38, -9999])
def test_missing_bands_and_unobserved_pixels_are_exactly_zero(number):
    """Whatever stands in their place."""
    dn = torch.full((1, 3, 4, 4), 0.2)
    dn[:, :, 1, 2] = number
    dn[:, 1] = number
    observed = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    observed[..., 1, 2] = False
    segmenter = Segmenter(nn.Identity(), Normalisation(mean=(1, 2, 3), std=(1, 1, 1)))
    x = segmenter.normalise(dn, torch.tensor([[1.0, 0, 5]]), torch.zeros(1, 3), observed)
    assert (x[:, 1] == 0).all()
    assert (x[..., 1, 2] == 0).all()
    assert (x[:, ::2, 0] != 0).all()
    assert torch.isfinite(x).all()


def test_the_forward_pass_is_normalisation_and_body():
    body = nn.Conv2d(2, 3, 1)
    segmenter = Segmenter(body, Normalisation(mean=(0, 0), std=(1, 1)))
    arguments = (
        torch.rand(2, 2, 5, 5),
        torch.ones(1, 2),
        torch.zeros(1, 2),
        torch.ones(2, 1, 5, 5, dtype=torch.bool),
    )
    assert torch.equal(segmenter(*arguments), body(segmenter.normalise(*arguments)))


def test_normalisation_is_no_weight(saved):
    """It lives in the spec alone, so that the two can't differ."""
    path, network = saved
    assert not {"mean", "std"} & network.state_dict().keys()
    other = Normalisation(mean=(9, 9, 9, 9), std=(2, 2, 2, 2))
    _rewrite(path, spec={"normalisation": other.model_dump(mode="json")})
    assert load_model(path).network.mean.flatten().tolist() == [9.0] * 4


# -- networks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decoder", "encoder", "options"),
    [
        ("Unet", "resnet18", {"decoder_channels": [32, 16, 8, 8, 4]}),
        ("FPN", "mobilenet_v2", {}),
        ("Linknet", "tu-mobilenetv3_small_050", {}),
    ],
)
def test_networks_of_segmentation_models_pytorch(tmp_path, decoder, encoder, options):
    architecture = Architecture(decoder=decoder, encoder=encoder, options=options)
    spec = _spec(architecture=architecture, tile_multiple=32, classes=("land", "water", "obscured"))
    path = tmp_path / "m.safetensors"
    save_model(path, spec, build_network(spec))
    model = load_model(path)
    inputs = (torch.rand(1, 4, 64, 64), torch.ones(1, 4), torch.zeros(1, 4))
    observed = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    with torch.inference_mode():
        assert model.network(*inputs, observed).shape == (1, 3, 64, 64)


# -- the model that ships --------------------------------------------------------------------------


def test_the_default_model_is_whole_small_and_says_where_it_comes_from():
    model = load_model()
    spec = model.spec
    assert model.spec.name == "default"
    assert {b.name for b in spec.bands} <= {b.name for b in SENSORS["sentinel-2-l2a"].bands}
    assert {b.common_name for b in spec.bands if b.required} == {"green", "red", "nir"}
    assert spec.licence
    assert spec.sources
    assert spec.tile % spec.tile_multiple == spec.tile_remainder
    assert all(torch.isfinite(v).all() for v in model.network.state_dict().values())
    assert shipped_models()["default"].stat().st_size < 15 << 20

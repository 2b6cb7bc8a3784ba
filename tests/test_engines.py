import hashlib
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from geounet.engines import (
    choice,
    choose_engine,
    keeping,
    open_engine,
    openvino_engine,
    resolve_device,
    torch_engine,
    use_threads,
)
from geounet.engines.openvino_engine import (
    DIGEST_KEY,
    OpenVinoEngine,
    convert_network,
    has_bfloat16,
)
from geounet.engines.silent_openvino import ov
from geounet.engines.threads import _told, told_threads, usual_threads
from geounet.engines.torch_engine import TorchEngine
from geounet.errors import ConfigError, ModelError
from geounet.model import (
    BFLOAT16_NOTE,
    Architecture,
    InputBand,
    Inputs,
    Model,
    ModelSpec,
    Normalisation,
    compiled_path,
    load_model,
    match_bands,
    save_model,
    shipped_models,
)
from geounet.scene import open_scene
from geounet.segmenter import Segmenter, build_network
from geounet.tiling import Axis, Window

SMALL = Architecture(decoder="unet2015", options={"features": [2], "padded": True, "dropout": 0.0})
BANDS = tuple(
    InputBand(name=own, common_name=name)
    for own, name in [("B03", "green"), ("B04", "red"), ("B08", "nir"), ("B11", "swir16")]
)
ENGINES = ("torch", "openvino")
needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="the processor has no bfloat16")


def _spec(**changes):
    base = {
        "name": "small",
        "architecture": SMALL,
        "bands": BANDS,
        "classes": ("land", "water"),
        "normalisation": Normalisation(mean=(-2.0,) * 4, std=(0.5,) * 4),
        "tile": 32,
        "overlap": 8,
        "tile_multiple": 2,
    }
    return ModelSpec(**(base | changes))


# -- PyTorch ---------------------------------------------------------------------------------------


class _Count(nn.Module):
    """Logits (0, x of the first band); counts what it is given."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, x):
        self.batches.append(tuple(x.shape))
        self.grad = torch.is_grad_enabled()
        self.channels_last = x.is_contiguous(memory_format=torch.channels_last)
        return torch.cat([torch.zeros_like(x[:, :1]), x[:, :1]], dim=1)


def _engine(batch=None, **changes):
    spec = _spec(normalisation=Normalisation(mean=(0,) * 4, std=(1,) * 4), **changes)
    body = _Count()
    inputs = Inputs((0, 1, 2), (0, 1, 2, 0), (1.0, 1.0, 1.0, 0.0), (0.0,) * 4)
    model = Model(spec, Segmenter(body, spec.normalisation), "test")
    return TorchEngine(model, inputs, device="cpu", batch=batch), body


def _row(height=8, width=20):
    dn = np.random.default_rng(5).uniform(0.1, 0.9, (3, height, width)).astype(np.float32)
    return dn, np.ones((height, width), bool)


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_on_a_card_a_row_of_windows_is_predicted_in_batches(batch, monkeypatch):
    monkeypatch.setattr(TorchEngine, "_on_cpu", False)
    engine, body = _engine(batch)
    dn, observed = _row()
    cols = Axis(20, 8, 2)
    made = list(engine.predict(dn, observed, cols))
    assert [i for i, _ in made] == [0, 1, 2]
    assert [shape[0] for shape in body.batches] == [
        min(batch, 3 - first) for first in range(0, 3, batch)
    ]
    assert body.channels_last
    assert not body.grad
    for (_, scores), start in zip(made, cols.starts, strict=True):
        green = dn[0, :, start : start + 8]
        np.testing.assert_allclose(scores[1], green / (1 + green), rtol=1e-5)
        np.testing.assert_allclose(scores.sum(0), 1, rtol=1e-6)


def test_windows_with_nothing_observed_are_not_predicted(monkeypatch):
    monkeypatch.setattr(TorchEngine, "_on_cpu", False)
    engine, body = _engine(batch=1)
    dn, observed = _row()
    observed[:, :8] = False
    assert [i for i, _ in engine.predict(dn, observed, Axis(20, 8, 2))] == [1, 2]
    observed[:] = False
    assert list(engine.predict(dn, observed, Axis(20, 8, 2))) == []
    assert len(body.batches) == 2


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "uint32", "float64"])
def test_small_windows_are_padded_to_what_the_network_takes(dtype):
    engine, body = _engine(tile_multiple=32)
    dn = np.ones((3, 5, 7), dtype)
    ((_, scores),) = engine.predict(dn, np.ones((5, 7), bool), Axis(7, 7, 0))
    assert body.batches == [(1, 4, 32, 32)]
    assert scores.shape == (2, 5, 7)


def test_temperature_divides_the_logits():
    dn, observed = _row()
    warm, _ = _engine(temperature=2.0)
    ((_, scores), *_) = warm.predict(dn, observed, Axis(20, 8, 2))
    root = np.sqrt(dn[0, :, :8])  # exp(log(green) / 2)
    np.testing.assert_allclose(scores[1], root / (1 + root), rtol=1e-5)


def _decide(scores, observed, threshold=0.5, **changes):
    """What the engine decides of one row of pixels, and that it decides the same on a card."""
    engine, _ = _engine(**changes)
    row, seen = np.array(scores, np.float32)[:, None], np.array([observed])
    made = engine.decide(row, seen, threshold)()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TorchEngine, "_on_cpu", False)
        on_card = engine.decide(torch.from_numpy(row), seen, threshold)()
    assert all(np.array_equal(a, b) for a, b in zip(made, on_card, strict=True))
    return made


def test_decide():
    """Invariant 4: land, water and not observed are three answers."""
    water = [0.0, 0.49, 0.5, 0.51, 1.0, 1.0, 0.0]
    scores = [[1 - w for w in water], water]
    codes, level = _decide(scores, [True] * 5 + [False] * 2)
    assert codes.dtype == level.dtype == np.uint8
    assert codes.tolist() == [[0, 0, 1, 1, 1, 255, 255]]
    assert level.tolist() == [[0, 122, 125, 128, 250, 255, 255]]


def test_the_threshold_moves_the_line():
    scores = [[0.7, 0.4], [0.3, 0.6]]
    assert _decide(scores, [True, True], 0.25)[0].tolist() == [[1, 1]]
    assert _decide(scores, [True, True], 0.75)[0].tolist() == [[0, 0]]


def test_an_obscured_class_has_a_code_of_its_own():
    """Invariant 4: clouds and shadows are neither land nor water."""
    scores = [[0.1, 0.1, 0.3, 0.0], [0.6, 0.1, 0.4, 0.0], [0.3, 0.8, 0.3, 1.0]]
    order = ("water", "land", "obscured")
    codes, level = _decide(scores, [True] * 4, classes=order)
    assert codes.tolist() == [[0, 2, 0, 2]]
    assert level.tolist() == [[round(250 / 7), 125, round(250 * 3 / 7), 0]]


def test_scores_that_are_no_numbers_are_refused_on_a_card(monkeypatch):
    monkeypatch.setattr(TorchEngine, "_on_cpu", False)
    engine, _ = _engine()
    decided = engine.decide(torch.tensor([[[0.5]], [[float("inf")]]]), np.ones((1, 1), bool))
    with pytest.raises(ModelError, match="gave NaN or infinity on cpu"):
        decided()


class OnCard:
    """Stands in for a tensor on a card: its copy is there once the card was waited for."""

    is_cuda, device = True, "cuda:1"

    def __init__(self, value, done):
        self.value, self.done = value, done

    def to(self, device, *, non_blocking):
        assert (device, non_blocking) == ("cpu", True)
        self.done.append("copy")
        return self.value


def test_a_card_copies_what_it_decided_while_nobody_waits(monkeypatch):
    """The event is recorded on the tensors' own card, after the copies."""
    done = []
    event = SimpleNamespace(synchronize=lambda: done.append("waited"))
    streams = {"cuda:1": SimpleNamespace(record_event=lambda: done.append("recorded") or event)}
    monkeypatch.setattr(torch.cuda, "current_stream", streams.__getitem__)
    coming = torch_engine._to_cpu(OnCard(1, done), OnCard(2, done))
    assert done == ["copy", "copy", "recorded"]
    assert coming() == [1, 2]
    assert done[3:] == ["waited"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_card_gives_what_the_cpu_gives():
    """In half precision; the arrays that it was given change while it computes."""
    model, cols = _model(**THREE), Axis(200, 32, 8)
    dn, observed = _scene(32, 200)
    expected = _scores(
        open_engine(model, MATCHED, device="cpu", engine="torch"), dn, observed, cols
    )
    engine = TorchEngine(model, MATCHED, device="cuda", batch=3)
    windows = engine.predict(dn, observed, cols)
    made = [next(windows)]
    dn[:], observed[:] = 0, False
    made += windows
    assert tuple(i for i, _ in made) == expected[0]
    scores = np.stack([scores.cpu().numpy() for _, scores in made])
    np.testing.assert_allclose(scores, expected[1], rtol=0, atol=0.05)
    seen = np.ones((32, 32), bool)
    on_card = engine.decide(made[0][1], seen)()
    on_cpu = open_engine(model, MATCHED, device="cpu", engine="torch").decide(scores[0], seen)()
    assert all(np.array_equal(a, b) for a, b in zip(on_card, on_cpu, strict=True))


# -- devices ---------------------------------------------------------------------------------------


def test_devices():
    assert resolve_device("cpu") == "cpu"
    best = "cuda" if torch.cuda.is_available() else "cpu"
    if not torch.backends.mps.is_available():
        assert resolve_device("auto") == best


@pytest.mark.parametrize("name", ["tpu9", "cuda:99", "", "meta:x", "CPU 1"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ConfigError, match=r"--device must be .*got '.*'") as caught:
        resolve_device(name)
    assert "\n" not in str(caught.value)


def test_torch_is_not_asked_for_a_card_where_there_is_no_driver(monkeypatch):
    monkeypatch.setattr(choice, "_may_have_a_card", lambda: False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert resolve_device("auto") == "cpu"


def test_what_a_task_is_told_of_threads_holds_in_its_thread():
    def task():
        use_threads(3)
        return usual_threads()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(task).result() == 3
    assert told_threads() is None


# -- OpenVINO --------------------------------------------------------------------------------------

UNPADDED = {
    "architecture": Architecture(
        decoder="unet2015", options={"features": [3, 4], "padded": False, "up": "resize"}
    ),
    "tile_multiple": 4,
    "tile_remainder": 2,
    "margin": 23,
}
SMP = {"architecture": Architecture(decoder="Linknet", encoder="resnet18"), "tile_multiple": 32}
THREE = {"classes": ("water", "obscured", "land"), "temperature": 1.7}
MATCHED = Inputs((5, 2, 7), (0, 1, 2, 0), (2e-4, 1e-4, 3e-4, 0.0), (-0.1, 0.0, 0.02, 0.0))


def _model(**changes):
    torch.manual_seed(4)
    spec = _spec(**changes)
    return Model(spec, build_network(spec).eval(), "test")


def _scene(height, width, dtype="uint16", seed=8):
    """Numbers as stored, a good part of them not observed; NaN there where there can be."""
    random = np.random.default_rng(seed)
    observed = random.random((height, width)) < 0.8
    dn = random.integers(0, 250 if dtype == "uint8" else 9000, (3, height, width)).astype(dtype)
    if dtype.startswith("float"):
        dn[:, ~observed] = np.nan
    return dn, observed


def _scores(engine, dn, observed, cols):
    indices, scores = zip(*engine.predict(dn, observed, cols), strict=True)
    return indices, np.stack(scores)


@pytest.mark.parametrize(
    ("changes", "height", "cols"),
    [
        ({}, 32, Axis(76, 32, 8)),
        (THREE, 17, Axis(30, 29, 0)),  # padded to an even side
        (UNPADDED, 6, Axis(16, 10, 3)),
        (UNPADDED, 5, Axis(9, 9, 0)),
        (SMP, 32, Axis(50, 40, 10)),
    ],
)
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_openvino_gives_what_torch_gives(changes, height, cols, dtype):
    """With a missing band, offsets, unobserved pixels, odd sizes, margins: within 1e-5."""
    model = _model(**changes)
    frame = 2 * model.spec.margin
    dn, observed = _scene(height + frame, cols.size + frame, dtype)
    expected, made = (
        _scores(open_engine(model, MATCHED, device="cpu", engine=e), dn, observed, cols)
        for e in ENGINES
    )
    assert made[0] == expected[0] == tuple(range(len(cols.starts)))
    assert made[1].dtype == np.float32
    assert made[1].shape == (len(cols.starts), len(model.spec.classes), height, cols.tile)
    assert np.ptp(made[1]) > 0.01
    np.testing.assert_allclose(made[1], expected[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "float64"])
def test_openvino_takes_numbers_of_every_type(dtype):
    model, cols = _model(), Axis(40, 32, 8)
    dn, observed = _scene(32, 40, dtype)
    dn[0, :5] = 60000 if dtype.startswith("u") and dtype != "uint8" else 100
    expected, made = (
        _scores(open_engine(model, MATCHED, device="cpu", engine=e), dn, observed, cols)[1]
        for e in ENGINES
    )
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_openvino_does_not_depend_on_the_batch(batch):
    model, cols = _model(), Axis(200, 32, 8)
    dn, observed = _scene(32, 200)
    observed[:, 60:160] = False  # some windows are left out
    one = _scores(OpenVinoEngine(model, MATCHED, batch=1), dn, observed, cols)
    many = _scores(OpenVinoEngine(model, MATCHED, batch=batch), dn, observed, cols)
    assert many[0] == one[0] == (0, 1, 2, 6, 7)
    assert np.array_equal(many[1], one[1])


def _numbers(engine, dn, cols):
    """Which numbers each kind of operation is computed with in the compiled network."""
    made = engine._compile((dn.shape[1], cols.tile)).get_runtime_model()
    found = {}
    for node in made.get_ordered_ops():
        name, numbers = (
            node.rt_info[key].astype(str) for key in ("originalLayersNames", "runtimePrecision")
        )
        for part in name.split(","):
            found.setdefault(part.split("_")[0], set()).add(numbers)
    return found


@needs_bfloat16
def test_in_bfloat16_only_the_network_is_rounded():
    """Reflectance and its logarithm are computed by numpy, the softmax in float32."""
    model, cols = _model(**THREE), Axis(76, 32, 8)
    dn, observed = _scene(32, 76)
    exact = _scores(OpenVinoEngine(model, MATCHED), dn, observed, cols)[1]
    engine = OpenVinoEngine(model, MATCHED, precision="bfloat16")
    made = _scores(engine, dn, observed, cols)[1]
    assert 0 < np.abs(made - exact).max() < 0.05
    numbers = _numbers(engine, dn, cols)
    assert numbers["Softmax"] == {"f32"}
    assert {"bf16"} in numbers.values()


@needs_bfloat16
@pytest.mark.parametrize("batch", [2, 3])
def test_in_bfloat16_openvino_does_not_depend_on_the_batch(batch):
    model, cols = _model(), Axis(200, 32, 8)
    dn, observed = _scene(32, 200)
    one, many = (
        _scores(OpenVinoEngine(model, MATCHED, precision="bfloat16", batch=n), dn, observed, cols)[
            1
        ]
        for n in (1, batch)
    )
    assert np.array_equal(one, many)


def test_without_bfloat16_it_is_float32(monkeypatch):
    """A worker's processor may have less than that of the one that chose."""
    monkeypatch.setattr(openvino_engine, "has_bfloat16", lambda: False)
    model, cols = _model(), Axis(40, 32, 8)
    dn, observed = _scene(32, 40)
    exact, made = (
        _scores(OpenVinoEngine(model, MATCHED, precision=p), dn, observed, cols)[1]
        for p in ("float32", "bfloat16")
    )
    assert np.array_equal(made, exact)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_number_of_threads_changes_nothing(engine, monkeypatch):
    """But the order of sums, and with it float32's rounding."""
    model, cols = _model(**THREE), Axis(76, 32, 8)
    dn, observed = _scene(32, 76)
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(_told, "count", threads, raising=False)
        opened = open_engine(model, MATCHED, device="cpu", engine=engine, batch=2)
        found.append(_scores(opened, dn, observed, cols)[1])
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("threads", "batch", "share"), [(1, None, 1), (2, None, 1), (9, 4, 2), (2, 3, 1), (6, 1, 6)]
)
def test_windows_in_torch_share_the_cores(threads, batch, share, monkeypatch):
    """Each thread that predicts takes its part; one window at a time takes all of them."""
    monkeypatch.setattr(_told, "count", threads, raising=False)
    taken = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    engine = TorchEngine(_model(**THREE), MATCHED, device="cpu", batch=batch)
    assert engine.batch == (batch or min(threads, 4))
    assert taken == [threads]
    _scores(engine, *_scene(32, 200), Axis(200, 32, 8))
    assert {taken[-1]} == set(taken[1:] or taken) == {share}
    assert len(taken) <= 1 + engine.batch


@pytest.mark.parametrize("batch", [2, 3, 5])
def test_torch_does_not_depend_on_the_batch(batch):
    model, cols = _model(), Axis(200, 32, 8)
    dn, observed = _scene(32, 200)
    observed[:, 60:160] = False  # some windows are left out
    one, many = (
        _scores(TorchEngine(model, MATCHED, device="cpu", batch=n), dn, observed, cols)
        for n in (1, batch)
    )
    assert many[0] == one[0] == (0, 1, 2, 6, 7)
    np.testing.assert_allclose(many[1], one[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ENGINES)
def test_it_can_be_stopped_in_the_middle_and_used_again(name):
    model, cols = _model(), Axis(200, 32, 8)
    dn, observed = _scene(32, 200)
    engine = open_engine(model, MATCHED, device="cpu", engine=name, batch=2)
    windows = engine.predict(dn, observed, cols)
    _, first = next(windows)
    windows.close()
    assert np.array_equal(_scores(engine, dn, observed, cols)[1][0], first)
    observed[:] = False
    assert list(engine.predict(dn, observed, cols)) == []


def test_openvino_refuses_scores_that_are_no_numbers():
    engine = OpenVinoEngine(_model(), MATCHED)
    with pytest.raises(ModelError, match="small gave NaN or infinity on cpu"):
        engine.decide(np.full((2, 1, 3), np.nan, np.float32), np.ones((1, 3), bool))


class _Unconvertible(nn.Module):
    def forward(self, x):
        return torch.linalg.eigvals(x[..., :4, :4]).real


def test_a_network_that_does_not_convert_is_named():
    spec = _spec()
    model = Model(spec, Segmenter(_Unconvertible(), spec.normalisation), "test")
    engine = OpenVinoEngine(model, MATCHED)
    level = logging.root.level
    with pytest.raises(ModelError, match=r"cannot convert the network of small.*--engine torch"):
        list(engine.predict(*_scene(32, 32), Axis(32, 32, 0)))
    assert logging.root.level == level  # what others log must not be lost


# -- networks beside a model file ------------------------------------------------------------------


@pytest.fixture
def beside(tmp_path):
    """A model file and OpenVINO's networks of it; that of 8 bits is one that gives all land."""
    path = tmp_path / "m.safetensors"
    save_model(path, _spec(), _model().network)
    model = load_model(path)
    _write(convert_network(model), model, "float")
    with torch.no_grad():
        model.network.body.head.weight.zero_()
        model.network.body.head.bias.copy_(torch.tensor([20.0, -20.0]))
    _write(convert_network(model), model, "int8")
    return path


def _write(network, model, kind):
    network.set_rt_info(model.digest, DIGEST_KEY)
    ov.save_model(network, compiled_path(model.source, model.digest, kind))


def _first(model, engine):
    opened = open_engine(model, MATCHED, device="cpu", engine=engine)
    return next(opened.predict(*_scene(32, 32), Axis(32, 32, 0)))[1]


def test_the_network_beside_a_model_serves_on_the_cpu(beside):
    model = load_model(beside)
    assert choose_engine(model, "cpu") == "openvino"
    assert choose_engine(model, "cuda") == "torch"
    assert _first(model, "openvino-int8")[0].min() == 1
    made = _first(model, "auto")
    assert np.array_equal(made, _first(model, "openvino"))
    np.testing.assert_allclose(made, _first(model, "torch"), rtol=0, atol=2e-3)  # float16 weights


@pytest.mark.parametrize(
    ("noted", "processor", "expected"),
    [
        (True, True, "openvino-bf16"),
        (True, False, "openvino"),
        (False, True, "openvino"),
    ],
)
def test_bfloat16_serves_where_model_and_processor_allow_it(
    beside, monkeypatch, noted, processor, expected
):
    monkeypatch.setattr(choice, "_has_bfloat16", lambda: processor)
    model = load_model(beside)
    if noted:
        network = convert_network(model)
        network.set_rt_info("0.9995", [DIGEST_KEY[0], BFLOAT16_NOTE])
        _write(network, model, "float")
    assert model.allows_bfloat16() is noted
    assert choose_engine(model, "cpu") == expected
    assert choose_engine(model, "cuda") == "torch"
    assert choose_engine(model, "cpu", "openvino") == "openvino"


def test_bfloat16_is_refused_where_the_processor_lacks_it(beside, monkeypatch):
    monkeypatch.setattr(choice, "_has_bfloat16", lambda: False)
    with pytest.raises(ConfigError, match=r"openvino-bf16 needs a processor.*--engine openvino"):
        choose_engine(load_model(beside), "cpu", "openvino-bf16")


def test_a_model_without_openvinos_network_notes_nothing():
    assert not _model().allows_bfloat16()


def test_torch_is_not_loaded_where_the_network_beside_the_model_serves(beside):
    code = (
        "import sys\n"
        "from geounet.engines import open_engine\n"
        "from geounet.model import Inputs, load_model\n"
        "open_engine(load_model(sys.argv[1]), Inputs((), (), (), ()), device='cpu')\n"
        "assert 'openvino' in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(beside)], check=True, timeout=120)


def test_openvino_reports_nothing_and_forks_nothing(tmp_path):
    """By itself it calls a server at each import and conversion, from a copy of the process."""
    save_model(tmp_path / "m.safetensors", _model().spec, _model().network)
    code = (
        "import os, sys\n"
        "forks = []\n"
        "os.register_at_fork(before=lambda: forks.append(1))\n"
        "from geounet.engines.openvino_engine import convert_network\n"
        "from geounet.model import load_model\n"
        "convert_network(load_model(sys.argv[1]))\n"
        "assert not forks, len(forks)\n"
        "assert 'openvino_telemetry' not in sys.modules"
    )
    outside_ci = {k: v for k, v in os.environ.items() if k not in ("CI", "TF_BUILD", "JENKINS_URL")}
    home = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    command = [sys.executable, "-c", code, str(tmp_path / "m.safetensors")]
    subprocess.run(command, check=True, timeout=120, env={**outside_ci, **home})
    assert not (tmp_path / "intel").exists()


def test_a_network_of_another_model_file_is_not_taken(beside):
    old = load_model(beside).compiled("int8")
    assert old.name == f"m.int8-{hashlib.sha256(beside.read_bytes()).hexdigest()[:12]}.xml"
    save_model(beside, _spec(version="2"), _model().network)
    model = load_model(beside)
    assert choose_engine(model, "cpu") == "torch"
    with pytest.raises(ConfigError, match=f"made from this very model file.*{model.digest[:12]}"):
        choose_engine(model, "cpu", "openvino-int8")
    for suffix in (".xml", ".bin"):  # under a name that lies
        new = compiled_path(beside, model.digest, "int8").with_suffix(suffix)
        old.with_suffix(suffix).rename(new)
    with pytest.raises(ModelError, match=f"must be made from the model file {model.digest}"):
        _first(model, "openvino-int8")


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_a_damaged_network_is_refused(beside, suffix):
    model = load_model(beside)
    file = model.compiled("float").with_suffix(suffix)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"not a whole OpenVINO network.*--engine torch"):
        _first(model, "openvino")


@pytest.fixture
def compiled(monkeypatch):
    """Counts how often OpenVINO compiles a network; none is kept from before."""
    counted = []
    make = OpenVinoEngine._make

    def count(engine, *arguments):
        counted.append(arguments)
        return make(engine, *arguments)

    keeping.forget()
    monkeypatch.setattr(OpenVinoEngine, "_make", count)
    yield counted
    keeping.forget()


def test_a_network_in_a_file_is_compiled_once_for_all_scenes(beside, compiled):
    first = _first(load_model(beside), "openvino")
    assert np.array_equal(_first(load_model(beside), "openvino"), first)
    assert len(compiled) == 1
    keeping.forget()
    assert np.array_equal(_first(load_model(beside), "openvino"), first)
    assert len(compiled) == 2


def test_scenes_of_other_numbers_share_a_network(beside, compiled):
    """What they differ by is computed before it."""
    model, cols = load_model(beside), Axis(32, 32, 0)
    brighter = replace(MATCHED, gain=tuple(2 * g for g in MATCHED.gain))
    scenes = [(MATCHED, "uint16"), (brighter, "uint16"), (MATCHED, "float32")]

    def scores(inputs, dtype):
        engine = open_engine(model, inputs, device="cpu", engine="openvino")
        return _scores(engine, *_scene(32, 32, dtype), cols)[1]

    made = [scores(*scene) for scene in scenes]
    assert len(compiled) == 1
    assert not np.allclose(made[0], made[1])
    for scene, shared in zip(scenes, made, strict=True):
        keeping.forget()
        assert np.array_equal(scores(*scene), shared)


def _rewritten(model):
    """The same network, written anew by another model file under the same name."""
    with torch.no_grad():
        model.network.body.head.bias.add_(0.5)
    _write(convert_network(model), model, "float")
    return {}


@pytest.mark.parametrize(
    "change",
    [
        lambda model: {"model": replace(model, spec=_spec(temperature=2.0))},
        lambda _: {"engine": "openvino-int8"},
        lambda _: {"batch": 3},
        lambda _: use_threads(1) or {},
        _rewritten,
    ],
    ids=["spec", "precision", "batch", "threads", "file"],
)
def test_another_network_is_compiled_where_anything_differs(beside, compiled, monkeypatch, change):
    monkeypatch.setattr(_told, "count", 2, raising=False)
    model = load_model(beside)
    usual = {"model": model, "inputs": MATCHED, "device": "cpu", "engine": "openvino", "batch": 2}
    for differs in (lambda _: {}, change):
        opened = open_engine(**usual | differs(model))
        next(opened.predict(*_scene(32, 32), Axis(32, 32, 0)))
    assert len(compiled) == 2


def test_a_network_in_memory_is_compiled_for_each_scene(compiled):
    """It may have learned meanwhile."""
    model = _model()
    before = _first(model, "openvino")
    with torch.no_grad():
        model.network.body.head.bias.add_(torch.tensor([3.0, -3.0]))
    assert not np.allclose(_first(model, "openvino"), before)
    assert len(compiled) == 2


def test_threads_share_a_network_and_get_what_is_theirs(beside):
    model, cols = load_model(beside), Axis(200, 32, 8)
    rows = [_scene(32, 200, seed=seed) for seed in range(4)]
    alone = [
        _scores(open_engine(model, MATCHED, device="cpu", engine="openvino"), *row, cols)[1]
        for row in rows
    ]

    def predict(row):
        opened = open_engine(load_model(beside), MATCHED, device="cpu", engine="openvino")
        return [_scores(opened, *row, cols)[1] for _ in range(5)]

    with ThreadPoolExecutor(len(rows)) as pool:
        for expected, found in zip(alone, pool.map(predict, rows), strict=True):
            assert all(np.array_equal(scores, expected) for scores in found)


# -- the networks that ship ------------------------------------------------------------------------


def test_each_shipped_model_has_its_network_and_no_other_ships():
    """If not: python pipelines/compile_default.py."""
    models = shipped_models()
    shipped = {path.name for path in models["default"].parent.glob("*.xml")}
    wanted = {load_model(path).compiled("float") for path in models.values()}
    assert None not in wanted
    assert shipped == {path.name for path in wanted}
    assert all(path.with_suffix(".bin").stat().st_size < 15 << 20 for path in wanted)


@pytest.mark.parametrize(
    "engine", ["openvino", pytest.param("openvino-bf16", marks=needs_bfloat16)]
)
def test_the_default_models_network_gives_what_its_weights_give(engine):
    """On the sample scene: the same code for 99.9% of the pixels, probabilities within 0.05."""
    model = load_model()
    scene = open_scene("sample_data/scene.tif")
    inputs = match_bands(model.spec, scene.bands, scene.radiometry)
    with scene.open() as reader:
        tile = reader.read(Window(300, 300, 256, 256), inputs.read)
    expected, made = (
        _scores(open_engine(model, inputs, device="cpu", engine=e), *row, Axis(256, 256, 0))[1]
        for e in ("torch", engine)
        for row in [(tile.dn, np.ones_like(tile.valid))]
    )
    assert np.ptp(expected[0].argmax(0)) > 0
    assert (made[0].argmax(0) == expected[0].argmax(0)).mean() > 0.999
    np.testing.assert_allclose(made, expected, rtol=0, atol=0.05)


# -- choosing --------------------------------------------------------------------------------------


def test_without_openvino_torch_serves(beside, monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    model = load_model(beside)
    assert choose_engine(model, "cpu") == "torch"
    assert isinstance(open_engine(model, MATCHED, device="cpu"), TorchEngine)
    for engine in ("openvino", "openvino-bf16", "openvino-int8"):
        with pytest.raises(ConfigError, match=f"--engine {engine} needs OpenVINO.*pip install"):
            choose_engine(model, "cpu", engine)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
@pytest.mark.parametrize("engine", ["openvino", "openvino-bf16", "openvino-int8"])
def test_openvino_is_for_the_cpu(device, engine):
    with pytest.raises(ConfigError, match=f"{engine} runs on the CPU; got --device {device}"):
        choose_engine(_model(), device, engine)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_model_without_a_quantized_file_runs_in_torch(device):
    assert choose_engine(_model(), device) == "torch"
    assert choose_engine(_model(), device, "torch") == "torch"

"""Workers of a cluster whose processors differ: one engine for all, and the same bytes."""

from dataclasses import replace

import pytest
import rasterio
from batches import entries, make_scene, serial, tree, two_workers
from distributed import Client
from models import compiled, tiny_model

import geounet
from geounet.archive import tasks
from geounet.archive.agreement import common
from geounet.archive.cluster import gather
from geounet.archive.strips import run_on, run_spread
from geounet.archive.tasks import Task, classify, segment
from geounet.engines import choice
from geounet.errors import ConfigError, GeounetWarning
from geounet.model import load_model
from geounet.pipeline import RunConfig, prepare, run_job

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize(
    ("offers", "taken"),
    [
        ({"a": "openvino-bf16", "b": "openvino-bf16"}, "openvino-bf16"),
        ({"a": "torch"}, "torch"),
    ],
)
def test_workers_that_are_alike(offers, taken):
    assert common(offers) == taken


@pytest.mark.parametrize(
    ("offers", "taken"),
    [
        ({"a": "openvino-bf16", "b": "openvino"}, "openvino"),
        ({"a": "openvino-bf16", "b": "openvino", "c": "torch"}, "torch"),
        ({"a": "openvino", "b": "torch"}, "torch"),
    ],
)
def test_workers_that_differ_take_what_all_have(offers, taken):
    with pytest.warns(GeounetWarning, match=rf"would take .* All take {taken}\."):
        assert common(offers) == taken


# -- a real cluster --------------------------------------------------------------------------------


def _set_bfloat16(here):
    choice._has_bfloat16 = lambda: here


@pytest.fixture(scope="module")
def cluster():
    """Of two workers the second says that its processor has no bfloat16."""
    with two_workers() as address, Client(address, set_as_default=False) as client:
        first, second = client.scheduler_info(n_workers=-1)["workers"]
        client.run(_set_bfloat16, True, workers=[first])
        client.run(_set_bfloat16, False, workers=[second])
        yield address


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model file with OpenVINO's network beside it, which may compute in bfloat16."""
    path = tiny_model(tmp_path_factory.mktemp("model"), tile=32, overlap=8)
    return compiled(path, bfloat16=True)


@pytest.fixture
def inputs(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(4):
        make_scene(tmp_path / "in" / f"s{i}.tif", seed=i, height=150, width=90)
    return tmp_path / "in"


def test_a_batch_on_workers_that_differ_makes_what_serial_runs_make(
    cluster, inputs, model, tmp_path
):
    with pytest.warns(GeounetWarning, match=r"All take openvino\."):
        result = geounet.batch(
            inputs, output=tmp_path / "out", scheduler=cluster, model=str(model), device="cpu",
            polygons=False, large=100 * 90,
        )  # fmt: skip
    assert result.done == 4
    assert {e.details["engine"] for e in entries(tmp_path / "out").values()} == {"openvino"}
    expected = serial(inputs, tmp_path / "serial", model, polygons=False, engine="openvino")
    assert tree(tmp_path / "out") == expected


def test_a_batch_that_goes_on_with_another_engine_says_so(cluster, inputs, model, tmp_path):
    options = {"output": tmp_path / "out", "model": str(model), "polygons": False, "device": "cpu"}
    with pytest.warns(GeounetWarning, match=r"All take openvino\."):
        geounet.batch(inputs / "s0.tif", scheduler=cluster, **options)
    with Client(cluster, set_as_default=False) as client:
        second = client.scheduler_info(n_workers=-1)["workers"].popitem()[0]
        client.run(_set_bfloat16, True, workers=[second])
        with pytest.warns(GeounetWarning, match=r"made by openvino on cpu, .* by openvino-bf16"):
            result = geounet.batch(inputs, scheduler=cluster, **options)
        client.run(_set_bfloat16, False, workers=[second])
    assert (result.done, result.unchanged) == (4, 1)
    made = {e.details["engine"] for e in entries(tmp_path / "out").values()}
    assert made == {"openvino", "openvino-bf16"}


def test_strips_of_workers_that_differ_fit_together(cluster, inputs, model, tmp_path):
    config = RunConfig(model=str(model), output=tmp_path / "spread", device="cpu", polygons=False)
    with pytest.warns(GeounetWarning, match="All take openvino"):
        made = run_on(prepare(inputs / "s0.tif", config), cluster, device="cpu")
    told = config.model_copy(update={"engine": "openvino", "output": tmp_path / "serial"})
    alone = run_job(prepare(inputs / "s0.tif", told))
    assert made.outputs["mask"].read_bytes() == alone.outputs["mask"].read_bytes()
    with rasterio.open(made.outputs["mask"]) as mask:
        assert mask.tags()["ENGINE"] == made.engine == "openvino"


def test_strips_too_are_refused_by_a_worker_that_came_late(cluster, inputs, model, tmp_path):
    config = RunConfig(model=str(model), output=tmp_path / "out", device="cpu", polygons=False)
    job = prepare(inputs / "s0.tif", config)
    with (
        gather(cluster, device="cpu") as team,
        pytest.raises(tasks.UnfitWorkerError, match="needs a processor that computes in bfloat16"),
    ):
        run_spread(job, team, "openvino-bf16")
    assert not list((tmp_path / "out").glob("*"))


def test_an_engine_that_a_worker_lacks_is_refused(cluster, inputs, model, tmp_path):
    with pytest.raises(ConfigError, match=r"tcp://.* cannot: --engine openvino-bf16 needs a proc"):
        geounet.batch(
            inputs, output=tmp_path / "out", scheduler=cluster, model=str(model), device="cpu",
            engine="openvino-bf16",
        )  # fmt: skip
    assert {entry.status for entry in entries(tmp_path / "out").values()} == {"pending"}


def test_a_worker_that_came_late_and_lacks_the_engine_is_at_fault_itself(
    inputs, model, tmp_path, monkeypatch
):
    monkeypatch.setattr(choice, "_has_bfloat16", lambda: False)
    config = RunConfig(
        model=str(model), output=tmp_path, device="cpu", engine="openvino-bf16", name="s0"
    )
    task = Task(str(inputs / "s0.tif"), config, load_model(model).digest, tmp_path)
    failure = segment(task)
    assert (failure.kind, failure.error) == ("lost", "UnfitWorkerError")
    assert failure.passing
    assert "needs a processor that computes in bfloat16" in failure.message
    assert classify(tasks.UnfitWorkerError("")) == "lost"
    made = segment(replace(task, config=config.model_copy(update={"engine": "openvino"})))
    assert made.details["engine"] == "openvino"

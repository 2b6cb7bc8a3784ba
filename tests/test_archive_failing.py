"""Batches whose workers die, run out of memory or out of disk: all in real processes."""

import os

import pytest
from batches import entries, make_scene, serial, tree, two_workers
from distributed import Client
from models import compiled, tiny_model
from troubles import allow_files, ask_for_too_much, die, hoard, meddle, pretend_gpus

import geounet
from geounet.archive import cluster as clusters
from geounet.archive.cluster import _SETTINGS
from geounet.archive.drive import Drive
from geounet.errors import ConfigError

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="limits and signals of POSIX"),
    # Sockets and processes that Dask closes a moment after it says so.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LIMIT = 3 << 29
"""Bytes of memory that a worker may take; one with a model loaded takes a third of it."""


@pytest.fixture(scope="module")
def cluster():
    """Workers of little memory, each of which says that it owns a GPU."""
    with two_workers(memory_limit=LIMIT, resources={"GPU": 1}) as address:
        yield address


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return compiled(tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
def inputs(tmp_path):
    """Four small scenes; a test adds the one that makes trouble."""
    (tmp_path / "in").mkdir()
    for i in range(4):
        make_scene(tmp_path / "in" / f"s{i}.tif", seed=i, height=70 + 13 * i, width=90)
    return tmp_path / "in"


@pytest.fixture
def batch(cluster, model, inputs, tmp_path):
    def run(**options):
        events = []

        def keep(event):
            events.append(event)
            if event.stage == "writing" and event.uri.endswith("deadly.tif"):
                (tmp_path / "heard").touch()

        told = {
            "output": tmp_path / "out", "scheduler": cluster, "model": str(model), "device": "cpu",
            "rest": 0.01, "polygons": False, **options,
        }  # fmt: skip
        return geounet.batch(inputs, on_event=keep, **told), events

    return run


def _in_workers(cluster, function, *arguments):
    with Client(cluster, set_as_default=False) as client:
        return client.run(function, *arguments)


def _all_but(name, made):
    return {path: digest for path, digest in made.items() if not path.startswith(name)}


# -- memory ----------------------------------------------------------------------------------------


def test_a_worker_that_takes_too_much_memory_is_stopped_and_the_batch_goes_on(
    cluster, batch, inputs, model, tmp_path
):
    make_scene(inputs / "hoard.tif", seed=9, height=80, width=80)
    _in_workers(cluster, meddle, "hoard", hoard)
    out, expected = tmp_path / "out", serial(inputs, tmp_path / "serial", model, polygons=False)
    result, events = batch(retries=0)
    assert (result.done, result.failed, result.exit_code) == (4, 1, 3)
    (failed,) = [event for event in events if event.kind == "failed"]
    assert "took more memory than it may have and was stopped" in failed.message
    entry = entries(out)["hoard"]
    assert (entry.status, entry.kind, entry.attempts) == ("failed", "memory", 1)
    assert tree(out) == _all_but("hoard", expected)

    result, _ = batch()  # the worker's memory is its own again: what it does now is plain
    assert (result.done, result.unchanged, result.exit_code) == (5, 4, 0)
    assert tree(out) == expected
    assert not list(out.glob(".geounet-*"))


def test_memory_that_there_is_not_fails_one_scene(cluster, batch, inputs, model, tmp_path):
    make_scene(inputs / "vast.tif", seed=9, height=80, width=80)
    _in_workers(cluster, meddle, "vast", ask_for_too_much)
    result, events = batch(retries=1)
    assert (result.done, result.failed) == (4, 1)
    assert [e.kind for e in events if e.uri and e.uri.endswith("vast.tif")][-1] == "failed"
    entry = entries(tmp_path / "out")["vast"]
    assert (entry.kind, entry.error, entry.attempts) == ("memory", "MemoryError", 2)
    expected = serial(inputs, tmp_path / "serial", model, polygons=False)
    assert tree(tmp_path / "out") == _all_but("vast", expected)


# -- disk ------------------------------------------------------------------------------------------


@pytest.fixture
def limit_files(cluster):
    yield lambda size: _in_workers(cluster, allow_files, size)
    _in_workers(cluster, allow_files, None)


def test_a_scene_that_there_is_no_room_for(batch, inputs, model, tmp_path, limit_files):
    make_scene(inputs / "large.tif", seed=9, height=1500, width=1500)
    expected = serial(inputs, tmp_path / "serial", model, polygons=False, probability=True)
    sizes = {p.name: p.stat().st_size for p in (tmp_path / "serial").iterdir()}
    small = max(size for name, size in sizes.items() if not name.startswith("large"))
    limit = sizes["large_probability.tif"] // 2
    assert 10 * small < limit
    limit_files(limit)
    result, _ = batch(retries=1, probability=True)
    assert (result.done, result.failed, result.stopped) == (4, 1, None)
    entry = entries(tmp_path / "out")["large"]
    assert (entry.status, entry.kind, entry.error, entry.attempts) == (
        "failed", "output", "OutputError", 2,
    )  # fmt: skip
    assert tree(tmp_path / "out") == _all_but("large", expected)
    assert not list((tmp_path / "out").glob(".geounet-*"))
    limit_files(None)
    result, _ = batch(probability=True)
    assert (result.done, result.unchanged) == (5, 4)
    assert tree(tmp_path / "out") == expected


def test_a_full_disk_stops_the_batch_and_leaves_the_rest(batch, inputs, tmp_path, limit_files):
    for i in range(4, 12):
        make_scene(inputs / f"s{i}.tif", seed=i, height=70, width=90)
    limit_files(100)
    result, _ = batch(retries=0)
    assert result.stopped.startswith("outputs cannot be written: ")
    assert (result.done, result.exit_code) == (0, 1)
    assert result.left > 0
    assert tree(tmp_path / "out") == {}
    limit_files(None)
    result, _ = batch()
    assert (result.done, result.exit_code) == (12, 0)


# -- workers that die ------------------------------------------------------------------------------


def _deaths(folder):
    return len((folder / "deaths").read_text().splitlines())


def test_scenes_that_wait_in_a_worker_that_dies_are_not_blamed(
    batch, inputs, tmp_path, monkeypatch
):
    """Nor given Dask's answer of before, which it remembers while somebody holds the future."""
    held, await_it = [], Drive._await
    monkeypatch.setattr(Drive, "_await", lambda *told: (held.append(told), await_it(*told)))
    for i in range(4, 10):
        make_scene(inputs / f"s{i}.tif", seed=i, height=70, width=90)
    make_scene(inputs / "deadly.tif", seed=9, height=80, width=80)
    result, _ = batch(retries=0, extras=(die,))
    assert (result.done, result.failed) == (10, 1)
    assert _deaths(tmp_path) == 1
    entry = entries(tmp_path / "out")["deadly"]
    assert (entry.kind, entry.error, entry.attempts) == ("lost", "KilledWorker", 1)
    assert "was killed, or its machine" in entry.message


def test_a_clusters_own_retries_count(batch, inputs, tmp_path):
    """Dask gives a task to four workers, one after another, where nothing else is said."""
    make_scene(inputs / "deadly.tif", seed=9, height=80, width=80)
    own = {**_SETTINGS, "distributed.scheduler.allowed-failures": 3}
    with two_workers(settings=own) as address:
        result, events = batch(scheduler=address, retries=1, extras=(die,))
    assert (result.done, result.failed) == (4, 1)
    assert _deaths(tmp_path) == 2
    entry = entries(tmp_path / "out")["deadly"]
    assert (entry.kind, entry.attempts) == ("lost", 2)
    (again,) = [e for e in events if e.kind == "again" and e.uri.endswith("deadly.tif")]
    assert "Dask gave the scene to another" in again.message


# -- GPUs that there are not -----------------------------------------------------------------------


@pytest.fixture
def one_gpu(cluster, monkeypatch):
    monkeypatch.setattr(clusters, "count_gpus", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    _in_workers(cluster, pretend_gpus, 1)
    yield
    _in_workers(cluster, pretend_gpus, 0)


def test_a_layout_that_would_share_a_gpu_is_refused(batch, one_gpu, tmp_path):
    for device in ("auto", "cuda"):
        with pytest.raises(ConfigError, match=r"2 workers on .* would share GPU 0"):
            batch(device=device)
        with pytest.raises(ConfigError, match="2 workers would share 1 GPU"):
            batch(scheduler=None, workers=2, device=device)
    assert {entry.status for entry in entries(tmp_path / "out").values()} == {"pending"}

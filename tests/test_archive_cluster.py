"""How machines are shared out, and what travels to workers."""

import os
import subprocess
import sys
import threading
import time
import warnings

import pytest
import rasterio

from geounet.archive import cluster as clusters
from geounet.archive.cluster import Layout, Machine, Seen, carried, gather, judge, plan_layout
from geounet.errors import ConfigError, GeounetWarning

GIB = 1 << 30
SMALL = Machine(2, 16 * GIB)
LARGE = Machine(64, 256 * GIB)
TIGHT = Machine(16, 4 * GIB)
GPUS = Machine(32, 128 * GIB, ("0", "1", "2", "3"))


@pytest.mark.parametrize(
    ("machine", "options", "layout"),
    [
        (SMALL, {}, Layout(1, 2, 16 * GIB)),
        (SMALL, {"workers": 2}, Layout(2, 1, 8 * GIB)),
        (SMALL, {"threads": 1}, Layout(2, 1, 8 * GIB)),
        (LARGE, {}, Layout(16, 4, 16 * GIB)),
        (LARGE, {"workers": 3}, Layout(3, 21, 256 * GIB // 3)),
        (Machine(6, 64 * GIB), {}, Layout(2, 3, 32 * GIB)),
        (TIGHT, {}, Layout(2, 8, 2 * GIB)),
        (Machine(1, GIB), {}, Layout(1, 1, GIB)),
        (GPUS, {}, Layout(4, 8, 32 * GIB, ("0", "1", "2", "3"))),
        (GPUS, {"workers": 2}, Layout(2, 16, 64 * GIB, ("0", "1"))),
        (GPUS, {"device": "cuda:2"}, Layout(1, 32, 128 * GIB, ("2",))),
        (GPUS, {"device": "cpu"}, Layout(8, 4, 16 * GIB)),
        (SMALL, {"device": "mps"}, Layout(1, 2, 16 * GIB)),
    ],
)
def test_layouts(machine, options, layout):
    assert plan_layout(machine, **options) == layout


@pytest.mark.parametrize(
    ("machine", "options", "message"),
    [
        (SMALL, {"workers": 3}, "3 workers would share 2 cores. Give --workers 2"),
        (SMALL, {"workers": 2, "threads": 2}, "2 workers of 2 threads would share 2 cores"),
        (GPUS, {"workers": 5}, "5 workers would share 4 GPUs"),
        (GPUS, {"device": "cuda:1", "workers": 2}, "2 workers would share 1 GPU"),
        (SMALL, {"device": "cuda"}, "this machine has no cuda"),
        (GPUS, {"device": "cuda:4"}, "this machine has no cuda:4"),
        (LARGE, {"device": "mps", "workers": 2}, "2 workers would share"),
    ],
)
def test_layouts_that_are_refused(machine, options, message):
    with pytest.raises(ConfigError, match=message):
        plan_layout(machine, **options)


def _seen(**more):
    return Seen(**{"host": "h", "threads": 1, "cores": 8, "gpu": None, "owns": False, **more})


@pytest.mark.parametrize(
    ("workers", "device", "judged"),
    [
        ([_seen()], "auto", (False, 8)),
        ([_seen(), _seen()], "cpu", (False, 4)),
        ([_seen(threads=8)], "auto", (False, 1)),
        ([_seen(), _seen(host="i", cores=2)], "auto", (False, 2)),
        ([_seen(gpu="0", owns=True), _seen(gpu="1", owns=True)], "auto", (True, 4)),
        ([_seen(gpu="0", owns=True), _seen(host="i", gpu="0", owns=True)], "cuda", (True, 8)),
        ([_seen(gpu="0", owns=True)], "cpu", (False, 8)),
        ([_seen(gpu="0")], "cpu", (False, 8)),
    ],
)
def test_clusters_that_are_well_laid_out(workers, device, judged):
    assert judge(workers, device) == judged


@pytest.mark.parametrize(
    ("workers", "device", "message"),
    [
        ([_seen()], "cuda", "no worker of the cluster says that it does"),
        ([_seen(gpu="0")], "auto", "none says that it owns one"),
        ([_seen(gpu="0", owns=True)] * 2, "auto", "2 workers on h would share GPU 0"),
    ],
)
def test_clusters_that_are_refused(workers, device, message):
    with pytest.raises(ConfigError, match=message):
        judge(workers, device)


def test_a_cluster_with_more_threads_than_cores_is_warned_of():
    with pytest.warns(GeounetWarning, match="9 scenes at once on 8 cores"):
        assert judge([_seen(threads=9)], "cpu") == (False, 1)


def test_settings_that_travel():
    env = {
        "AWS_SECRET_ACCESS_KEY": "s",
        "GDAL_HTTP_MAX_RETRY": "3",
        "GDAL_DATA": "/here",
        "https_proxy": "p",
        "HOME": "/home",
    }
    kept = {"AWS_SECRET_ACCESS_KEY": "s", "GDAL_HTTP_MAX_RETRY": "3", "https_proxy": "p"}
    assert carried(env) == kept
    with rasterio.Env(aws_unsigned=False, AWS_NO_SIGN_REQUEST=True, GDAL_CACHEMAX=5):
        assert carried(env)["AWS_NO_SIGN_REQUEST"] == "YES"
        assert "GDAL_CACHEMAX" not in carried(env)


@pytest.mark.parametrize("scheduler", ["tcp://127.0.0.1:9", "no/such/file.json"])
def test_no_scheduler_there(scheduler):
    with (
        warnings.catch_warnings(),
        pytest.raises(ConfigError, match="--scheduler"),
        gather(scheduler, patience=0.5),
    ):
        pass


def test_a_script_runs_once_though_it_guards_nothing(tmp_path):
    """Without ``if __name__ == "__main__":`` workers would run it again as they come up."""
    script = tmp_path / "script.py"
    script.write_text(
        "print('run', flush=True)\n"
        "from geounet.archive.cluster import gather\n"
        "with gather(workers=1) as team:\n"
        "    print(team.client.submit(sum, [1, 2]).result(), flush=True)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=120, env=env, check=True
    )
    assert done.stdout.split() == ["run", "3"]


def test_while_something_takes_long_that_is_said(monkeypatch):
    monkeypatch.setattr(clusters, "_SAID_EVERY", 0.001)
    said, enough = [], threading.Event()

    def say():
        said.append(threading.current_thread())
        if len(said) == 3:
            enough.set()

    clusters._patiently(lambda: enough.wait(20), say)
    assert len(said) >= 3
    assert set(said) == {threading.main_thread()}


def test_what_goes_wrong_meanwhile_is_raised():
    with pytest.raises(TimeoutError, match="no worker"):
        clusters._patiently(_fail, pytest.fail)


def _fail():
    raise TimeoutError("no worker")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_workers_keep_their_pages_and_the_scheduler_nothing_of_what_is_done(monkeypatch):
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    with gather(workers=1, threads=1, device="cpu") as team:
        (found,) = team.client.run(lambda: dict(os.environ)).values()
        assert "MALLOC_TRIM_THRESHOLD_" not in found
        assert found["OMP_NUM_THREADS"] == "1"  # Dask's other settings are as they were
        for i in range(20):
            assert team.client.submit(abs, -i, key=f"scene-{i}-1-ab", pure=False).result() == i
        time.sleep(1)  # a heartbeat of the worker, which tells what it measured
        scheduler = team.client.cluster.scheduler
        assert scheduler.transition_counter > 20
        spans = scheduler.extensions["spans"]
        assert (spans.spans, spans.root_spans) == ({}, [])
        assert {worker.status.name for worker in scheduler.workers.values()} == {"running"}

"""A huge scene in strips on several workers: byte for byte what one process makes."""

import os
import signal
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
import rasterio
from batches import two_workers
from distributed import Client
from models import tiny_model

import geounet
from geounet.archive.strips import cut, run_on
from geounet.cli import main
from geounet.pipeline import RunConfig, prepare
from geounet.tiling import WindowPlan

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize(
    ("height", "tile", "overlap", "parts"),
    [(10, 32, 8, 4), (1000, 32, 8, 4), (1001, 64, 0, 7), (5000, 32, 16, 1), (64, 64, 16, 3)],
)
def test_strips_own_all_rows_once_and_begin_at_windows(height, tile, overlap, parts):
    plan = WindowPlan(height, 500, tile, overlap)
    spans = cut(plan, parts)
    assert spans[0][0] == 0
    assert spans[-1][1] == height
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    assert {top for top, _ in spans} <= set(plan.rows.starts)
    assert all(top < bottom for top, bottom in spans)


def test_wide_scenes_have_flat_strips():
    plan = WindowPlan(100_000, 400_000, 512, 128)
    rows = max(bottom - top for top, bottom in cut(plan, 4))
    assert rows < 2 * plan.tile


@pytest.fixture(scope="module")
def cluster():
    with two_workers() as address:
        yield address


@pytest.fixture
def job(make_water, tmp_path):
    model = tiny_model(tmp_path, tile=32, overlap=8)
    path, _ = make_water(700, 61, unobserved=np.add.outer(np.arange(700), np.arange(61)) < 90)

    def make(output, **options):
        config = RunConfig(
            model=str(model), output=tmp_path / output, device="cpu", probability=True,
            format="fgb", min_area=2000.0, **options,
        )  # fmt: skip
        return prepare(path, config)

    return make


def _same(one, two):
    assert one.outputs.keys() == two.outputs.keys() == {"mask", "polygons", "probability"}
    for kind, path in one.outputs.items():
        assert path.read_bytes() == two.outputs[kind].read_bytes(), kind
    assert one.area_km2 == pytest.approx(two.area_km2, rel=1e-12)  # summed in another order
    assert one.pixels == two.pixels
    assert one.polygons == two.polygons


def test_strips_on_workers_make_what_one_process_makes(cluster, job):
    seen = []
    spread = run_on(job("spread"), cluster, device="cpu", on_progress=seen.append)
    _same(spread, geounet.pipeline.run_job(job("serial")))
    assert len(seen) > 2
    assert seen[-1].done == seen[-1].total
    with rasterio.open(spread.outputs["mask"]) as mask:
        assert set(np.unique(mask.read(1))) == {0, 1, 255}


def test_the_command_takes_a_scheduler(cluster, job, monkeypatch):
    serial = geounet.pipeline.run_job(job("serial"))
    config, uri = job("command").config, job("command").scene.uri
    told = ("-o", config.output, "-m", config.model, "--probability", "--format", "fgb",
            "--min-area", "2000", "-q", "--scheduler", cluster, "--device", "cpu")  # fmt: skip
    monkeypatch.setattr("sys.argv", ["geounet", "run", uri, *map(str, told)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    for path in serial.outputs.values():
        assert (config.output / path.name).read_bytes() == path.read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="workers are killed by POSIX signals")
def test_a_worker_is_killed_in_the_middle(cluster, job):
    with Client(cluster, set_as_default=False) as client:
        pids = list(client.run(os.getpid).values())
    killer = threading.Timer(0.05, lambda: [os.kill(pid, signal.SIGKILL) for pid in pids])

    def kill(progress):
        if not killer.is_alive() and not killer.finished.is_set():
            killer.start()
            time.sleep(0.1)

    spread = run_on(job("spread"), cluster, device="cpu", on_progress=kill)
    killer.join()
    _same(spread, geounet.pipeline.run_job(job("serial")))

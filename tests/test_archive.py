"""Batches on a real cluster of worker processes, compared with serial runs of the same scenes."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import rasterio
from batches import entries, make_scene, serial, tree, two_workers
from distributed import Client
from models import compiled, tiny_model

import geounet
from geounet.archive import Manifest, drive, engine, tasks
from geounet.archive.manifest import Made
from geounet.archive.sources import identify
from geounet.archive.tasks import classify
from geounet.errors import ConfigError, GeounetWarning, OutputError, SceneError
from geounet.pipeline import RunConfig
from geounet.staging import staged, sweep

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="workers are killed by POSIX signals"),
    # Sockets and processes that Dask closes a moment after it says so.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    with two_workers() as address:
        yield address


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small U-Net with random weights, as a file that workers load."""
    return compiled(tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Six scenes of different sizes, made once."""
    folder = tmp_path_factory.mktemp("archive")
    for i in range(6):
        make_scene(folder / f"s{i}.tif", seed=i, height=70 + 13 * i, width=90)
    return folder


@pytest.fixture
def inputs(archive, tmp_path):
    """The archive, in a folder that a test may change."""
    return Path(shutil.copytree(archive, tmp_path / "in"))


@pytest.fixture
def batch(cluster, model, tmp_path):
    """Run a batch on the shared cluster."""

    def run(*sources, **options):
        events, run.stages = [], []
        told = {
            "output": tmp_path / "out", "scheduler": cluster, "model": str(model), "device": "cpu",
            "rest": 0.01, **options,
        }  # fmt: skip
        on_event = told.pop("on_event", lambda event: None)

        def keep(event):
            (run.stages if event.kind == "stage" else events).append(event)
            on_event(event)

        return geounet.batch([str(s) for s in sources], on_event=keep, **told), events

    return run


FAST = {"format": "fgb"}
"""FlatGeobuf is the same byte for byte each time; GeoPackage holds the time."""


def test_a_batch_makes_what_serial_runs_make(batch, inputs, model, tmp_path):
    result, events = batch(inputs, probability=True, **FAST)
    assert tree(tmp_path / "out") == serial(inputs, tmp_path / "s", model, probability=True, **FAST)
    assert (result.total, result.done, result.failed, result.left) == (6, 6, 0, 0)
    assert (result.exit_code, result.stopped) == (0, None)
    assert [e.kind for e in events] == ["begun", *["done"] * 6, "ended"]
    assert events[0].message.startswith("tcp://")
    assert [e.done for e in events[1:-1]] == [1, 2, 3, 4, 5, 6]


def test_large_scenes_are_done_in_strips(batch, inputs, model, tmp_path):
    """The two largest scenes, by both workers together, with the same bytes."""
    result, _ = batch(inputs, polygons=False, large=90 * 115)
    assert (result.done, result.failed) == (6, 0)
    assert tree(tmp_path / "out") == serial(inputs, tmp_path / "s", model, polygons=False)
    mine = f":{os.getpid()}"
    here = {stem for stem, e in entries(tmp_path / "out").items() if e.worker.endswith(mine)}
    assert here == {"s4", "s5"}


def test_the_manifest_says_what_was_made(batch, inputs, model, tmp_path):
    batch(inputs / "s0.tif", **FAST)
    (entry,) = entries(tmp_path / "out").values()
    assert (entry.status, entry.attempts, entry.claimed) == ("done", 1, True)
    assert entry.identity == identify(str(inputs / "s0.tif"))
    assert entry.model == hashlib.sha256(model.read_bytes()).hexdigest()
    assert entry.version == geounet.__version__
    for output in entry.outputs.values():
        content = (tmp_path / "out" / output.path).read_bytes()
        assert output.size == len(content)
        assert output.sha256 == hashlib.sha256(content).hexdigest()
    assert {kind: o.path for kind, o in entry.outputs.items()} == {
        "mask": "s0_mask.tif",
        "polygons": "s0_water.fgb",
    }
    assert sum(entry.areas.values()) == pytest.approx(70 * 90 * 1e-4, rel=1e-2)
    _, pid = entry.worker.split(":")
    assert int(pid) != os.getpid()


def test_the_second_time_nothing_is_done(batch, inputs, tmp_path):
    batch(inputs, polygons=False)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tif")}
    result, events = batch(inputs, polygons=False)
    assert (result.done, result.unchanged, result.exit_code) == (6, 6, 0)
    assert [e.kind for e in events] == ["ended"]
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.tif")} == before


def _change_input(inputs, out, model):
    make_scene(inputs / "s2.tif", seed=99, height=80, width=80)


def _touch_input(inputs, out, model):
    os.utime(inputs / "s2.tif", ns=(1, 1))


def _lose_output(inputs, out, model):
    (out / "s2_mask.tif").unlink()


def _cut_output(inputs, out, model):
    path = out / "s2_mask.tif"
    path.write_bytes(path.read_bytes()[:-1])


def _add_input(inputs, out, model):
    shutil.copy(inputs / "s0.tif", inputs / "s9.tif")


@pytest.mark.parametrize(
    "change", [_change_input, _touch_input, _lose_output, _cut_output, _add_input]
)
def test_the_second_time_only_what_changed_is_done(batch, inputs, model, tmp_path, change):
    batch(inputs, polygons=False)
    change(inputs, tmp_path / "out", model)
    _, events = batch(inputs, polygons=False)
    done = {Path(e.uri).stem for e in events if e.kind == "done"}
    assert done == {"s9" if change is _add_input else "s2"}
    assert tree(tmp_path / "out") == serial(inputs, tmp_path / "serial", model, polygons=False)


def test_other_parameters_do_all_again_and_leave_nothing_of_the_old(batch, inputs, model, tmp_path):
    batch(inputs, format="geojson")
    result, _ = batch(inputs, format="fgb", threshold=0.6)
    assert (result.done, result.unchanged) == (6, 0)
    out = tmp_path / "out"
    assert tree(out) == serial(inputs, tmp_path / "s", model, format="fgb", threshold=0.6)


def test_a_bad_scene_among_good_ones(batch, inputs, tmp_path):
    (inputs / "s1.tif").write_bytes(b"no raster")
    result, events = batch(inputs, inputs / "gone.tif", polygons=False)
    assert (result.done, result.failed, result.exit_code) == (5, 2, 3)
    failed = {Path(e.uri).stem: e.message for e in events if e.kind == "failed"}
    assert failed.keys() == {"s1", "gone"}
    assert "SceneError: a scene must exist: there is no" in failed["gone"]
    entry = entries(tmp_path / "out")["s1"]
    assert (entry.status, entry.kind, entry.error, entry.attempts) == (
        "failed", "input", "SceneError", 1,
    )  # fmt: skip
    result, events = batch(inputs, inputs / "gone.tif", polygons=False)
    assert [e.kind for e in events] == ["ended"]
    assert result.failed == 2
    _, events = batch(inputs, inputs / "gone.tif", polygons=False, retry_failed=True)
    assert [e.kind for e in events] == ["begun", "failed", "failed", "ended"]


def test_no_scene_done(batch, inputs):
    result, _ = batch(inputs / "gone.tif")
    assert (result.done, result.exit_code) == (0, 1)


def test_too_many_failures_stop_the_batch(batch, inputs, tmp_path):
    for i in range(20):
        (inputs / f"b{i:02}.tif").write_bytes(b"no raster")
    sources = sorted(inputs.glob("b*.tif")) + sorted(inputs.glob("s*.tif"))
    result, events = batch(*sources, polygons=False, max_failures=2)
    assert result.stopped == "more than 2 scenes failed"
    assert events[-1].kind == "ended"
    assert result.left > 0
    assert result.done + result.failed + result.left == result.total == 26
    statuses = [entry.status for entry in entries(tmp_path / "out").values()]
    assert statuses.count("pending") == result.left
    assert "running" not in statuses


def test_outputs_of_somebody_else_are_left_alone(batch, inputs, tmp_path):
    mine = tmp_path / "out" / "s3_mask.tif"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    result, _ = batch(inputs, polygons=False)
    assert (result.done, result.failed) == (5, 1)
    assert entries(tmp_path / "out")["s3"].kind == "refused"
    assert mine.read_bytes() == b"mine"
    result, _ = batch(inputs, polygons=False, overwrite=True, retry_failed=True)
    assert result.done == 6
    assert mine.read_bytes() != b"mine"


def test_names_of_outputs(batch, inputs, tmp_path):
    (inputs / "2024-05-06").mkdir()
    shutil.move(inputs / "s0.tif", inputs / "2024-05-06" / "s1.tif")
    with pytest.raises(ConfigError, match=r"s1\.tif and .*s1\.tif would both be s1"):
        batch(inputs)
    assert not list((tmp_path / "out").glob("*.tif"))
    result, _ = batch(inputs, name="{date}/{parent}-{stem}", polygons=False)
    assert result.done == 6
    names = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.tif")}
    assert "2024-05-06/2024-05-06-s1_mask.tif" in names
    assert "undated/in-s2_mask.tif" in names


def _sidecar(job, result):
    """An extra output, made in the worker."""
    path = result.outputs["mask"].with_suffix(".json")
    path.write_text(json.dumps({"pid": os.getpid(), "scene": job.scene.stem}))
    return {"note": path}


def test_extras_are_made_in_the_worker_and_recorded(batch, inputs, tmp_path):
    batch(inputs / "s0.tif", polygons=False, extras=(_sidecar,))
    entry = entries(tmp_path / "out")["s0"]
    note = json.loads((tmp_path / "out" / entry.outputs["note"].path).read_text())
    assert note["scene"] == "s0"
    assert note["pid"] != os.getpid()


def _vanish(job, result):
    raise ConnectionError("the archive does not answer")


def test_a_passing_failure_is_tried_again_and_told(batch, inputs, tmp_path):
    result, events = batch(inputs / "s0.tif", polygons=False, extras=(_vanish,), retries=2)
    assert [e.kind for e in events] == ["begun", "again", "again", "failed", "ended"]
    assert result.failed == 1
    entry = entries(tmp_path / "out")["s0"]
    assert (entry.kind, entry.attempts) == ("network", 3)
    assert "does not answer (in _vanish" in entry.message
    result, _ = batch(inputs / "s0.tif", polygons=False)
    assert result.done == 1  # the next batch tries again without being told


def test_a_source_that_changes_while_it_is_read_leaves_no_output(
    inputs, model, tmp_path, monkeypatch
):
    identities = iter(["first", "second"])
    monkeypatch.setattr(tasks, "identify", lambda uri: next(identities))
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    config = RunConfig(model=str(model), output=tmp_path / "out", device="cpu")
    made = tasks.segment(tasks.Task(str(inputs / "s0.tif"), config, digest, tmp_path / "out"))
    assert (made.kind, made.error) == ("network", "TimeoutError")
    assert "was changed or went away while it was read" in made.message
    assert tree(tmp_path / "out") == {}


def test_another_model_on_a_worker_is_refused(inputs, model, tmp_path):
    config = RunConfig(model=str(model), output=tmp_path / "out")
    failure = tasks.segment(tasks.Task(str(inputs / "s0.tif"), config, "0" * 64, tmp_path / "out"))
    assert (failure.kind, failure.error) == ("input", "ModelError")


def _kill_a_worker(out, killed):
    """Kill the process that owns the first hidden folder that appears."""
    until = time.monotonic() + 60
    while time.monotonic() < until and not killed:
        for stage in out.rglob(".geounet-*"):
            pid = int(stage.name.rsplit("-", 2)[1])
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            return
        time.sleep(0.001)


def test_a_worker_is_killed_in_the_middle_of_a_scene(batch, inputs, model, tmp_path):
    out, killed = tmp_path / "out", []
    make_scene(inputs / "s0.tif", seed=1, height=300, width=300)  # long enough to be caught at
    killer = threading.Thread(target=_kill_a_worker, args=(out, killed))
    killer.start()
    result, events = batch(inputs, polygons=False)
    killer.join()
    assert killed
    assert (result.done, result.failed) == (6, 0)
    again = [e for e in events if e.kind == "again"]
    assert again
    assert "KilledWorker" in again[0].message
    assert max(entry.attempts for entry in entries(out).values()) > 1
    assert tree(out) == serial(inputs, tmp_path / "serial", model, polygons=False)
    assert not list(out.rglob(".geounet-*"))


def test_stopping_finishes_what_runs_and_leaves_the_rest_pending(batch, inputs, tmp_path):
    for i in range(20):
        shutil.copy(inputs / "s0.tif", inputs / f"t{i}.tif")
    stop = threading.Event()
    result, events = batch(
        inputs, polygons=False, stop=stop, on_event=lambda e: e.kind == "done" and stop.set()
    )
    assert result.stopped == "interrupted"
    assert result.exit_code == 3
    assert 1 <= result.done < 10
    assert result.done + result.left == result.total == 26
    assert "stopping" in [e.kind for e in events]
    rows = entries(tmp_path / "out").values()
    assert {entry.status for entry in rows} == {"done", "pending"}
    assert all(entry.there(tmp_path / "out") for entry in rows if entry.status == "done")
    result, _ = batch(inputs, polygons=False)
    assert (result.done, result.exit_code) == (26, 0)


def test_a_scene_that_begins_while_it_is_taken_back_has_ended_when_the_batch_has(
    batch, inputs, cluster, tmp_path, monkeypatch
):
    """Dropped, it goes on in its worker: nothing half-made lies there, nothing comes after."""
    make_scene(inputs / "large.tif", seed=9, height=1500, width=1500)
    looks, stop = [], threading.Event()

    def too_early(self, really=drive.Drive._executing):
        looks.append(len(looks))
        return really(self) if len(looks) > 1 else set()

    monkeypatch.setattr(drive.Drive, "_executing", too_early)
    batch(
        inputs / "large.tif", polygons=False, stop=stop,
        on_event=lambda event: event.stage == "predicting" and stop.set(),
    )  # fmt: skip
    assert len(looks) > 2
    with Client(cluster, set_as_default=False) as client:
        assert not any(client.run(drive._executing_here).values())
    assert not list((tmp_path / "out").rglob(".geounet-*"))


_CLIENT = """
import sys
import geounet
if __name__ == "__main__":
    inputs, out, model = sys.argv[1:]
    geounet.batch(inputs, output=out, model=model, device="cpu", workers=1, polygons=False,
                  on_event=lambda e: print(e.kind, flush=True))
"""


def test_the_client_is_killed_and_the_batch_goes_on(batch, inputs, model, tmp_path):
    """With workers of its own, which end with it."""
    for i in range(10):
        shutil.copy(inputs / f"s{i % 3}.tif", inputs / f"t{i}.tif")
    script, out = tmp_path / "client.py", tmp_path / "out"
    script.write_text(_CLIENT)
    client = subprocess.Popen(
        [sys.executable, script, inputs, out, model], stdout=subprocess.PIPE, text=True
    )
    with client:
        for line in client.stdout:
            if line.strip() == "done":
                break
        client.send_signal(signal.SIGKILL)
    rows = entries(out)
    assert len(rows) == 16
    before = sum(entry.status == "done" for entry in rows.values())
    assert before >= 1
    result, _ = batch(inputs, polygons=False)
    assert (result.done, result.unchanged) == (16, before)
    assert tree(out) == serial(inputs, tmp_path / "serial", model, polygons=False)
    assert not list(out.rglob(".geounet-*"))


def test_one_window_of_scenes_is_in_the_cluster(batch, inputs):
    for i in range(20):
        shutil.copy(inputs / "s0.tif", inputs / f"t{i}.tif")
    _, events = batch(inputs, polygons=False)
    assert max(event.running for event in events) <= drive._AHEAD * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tail": 5}, "tail"),
        ({"retries": -1}, "retries"),
        ({"threshold": 2}, "threshold"),
        ({"name": "x"}, "--name"),
    ],
)
def test_options_that_are_refused(inputs, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        geounet.batch(inputs, output=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_no_scenes_and_nothing_written(tmp_path):
    with pytest.raises(ConfigError, match="a batch needs scenes"):
        geounet.batch(tmp_path / "*.tif", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_long_listings_say_how_far_they_are(batch, inputs, monkeypatch):
    monkeypatch.setattr(engine, "_LISTING", 0.0)
    result, events = batch(inputs, **FAST)
    assert result.done == 6
    assert [(e.kind, e.total, e.done) for e in events[:6]] == [
        ("waiting", n, 0) for n in range(1, 7)
    ]
    assert events[5].message == "all scenes are listed first; 6 so far"
    assert events[6].kind == "begun"


def test_the_parameters_that_decide_what_an_output_says():
    base = engine.parameters_digest(RunConfig())
    same = {"output": Path("x"), "name": "y", "device": "cuda", "batch": 3, "overwrite": True}
    for name, value in same.items():
        assert engine.parameters_digest(RunConfig(**{name: value})) == base, name
    other = {"threshold": 0.4, "format": "fgb", "scale": 1e-3, "bands": ("a",), "tile": 64}
    digests = {engine.parameters_digest(RunConfig(**{k: v})) for k, v in other.items()}
    assert len(digests | {base}) == 6


def test_a_products_own_cloud_mask_is_no_file_of_that_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = RunConfig(cloud_mask="product")
    base = engine.parameters_digest(config)
    Path("product").mkdir()
    assert "cloud_mask" not in engine._absolute(config)
    assert engine.parameters_digest(config) == base
    mask = engine._absolute(RunConfig(cloud_mask="./product"))["cloud_mask"]
    assert mask == str(tmp_path / "product")


# -- whose fault -----------------------------------------------------------------------------------


def _passing(text):
    error = SceneError(text)
    error.passing = True
    return error


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SceneError("lacks a band"), "input"),
        (_passing("the server keeps failing"), "network"),
        (ConfigError("tile"), "input"),
        (OutputError("no room"), "output"),
        (MemoryError(), "memory"),
        (OutOfMemoryError("CUDA"), "memory"),
        (ConnectionResetError(), "network"),
        (TimeoutError(), "network"),
        (rasterio.errors.RasterioIOError("tags"), "input"),
        (ZeroDivisionError(), "unexpected"),
    ],
)
def test_whose_fault_an_error_is(error, kind):
    assert classify(error) == kind


def test_scenes_beside_each_other_in_a_process_have_each_its_own_warnings(monkeypatch, tmp_path):
    """Those of threads that a scene starts go to it while it is alone."""
    both, one = threading.Barrier(2, timeout=60), threading.Event()

    def run(task, *_):
        both.wait()
        warnings.warn(f"first of {task.uri}", GeounetWarning, stacklevel=1)
        both.wait()
        if task.uri == "b":
            one.wait(60)
            later = threading.Thread(target=warnings.warn, args=("a thread's", GeounetWarning))
            later.start()
            later.join()
        warnings.warn(f"last of {task.uri}", GeounetWarning, stacklevel=1)
        return Made({}, {}, 1.0, "w", None)

    def done(uri):
        made = tasks.segment(tasks.Task(uri, RunConfig(), "", tmp_path), tell=lambda _: None)
        if uri == "a":
            one.set()
        return made.details["warnings"]

    monkeypatch.setattr(tasks, "_segment", run)
    before = warnings.showwarning, list(warnings.filters)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(done, "ab")) == [
            ["first of a", "last of a"], ["first of b", "a thread's", "last of b"]
        ]  # fmt: skip
    assert (warnings.showwarning, list(warnings.filters)) == before


# -- what killed workers leave ---------------------------------------------------------------------


def test_only_what_a_dead_process_of_ours_left_is_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with staged({"mask": tmp_path / "a.tif"}) as drafts:
        stage = drafts["mask"].parent
        gone = tmp_path / stage.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-")
        elsewhere = tmp_path / f".geounet-another.host-{dead.pid}-x"
        foreign = tmp_path / ".geounet-x"
        for folder in (gone, elsewhere, foreign):
            folder.mkdir()
        (gone / "a.tif").touch()
        assert sweep(tmp_path) == [gone]
        assert {p.name for p in tmp_path.iterdir()} == {stage.name, elsewhere.name, foreign.name}
        drafts["mask"].touch()


@pytest.mark.parametrize(("later", "removed"), [(-60, 0), (0, 0), (60, 1)])
def test_a_number_may_be_another_process_s_by_now(tmp_path, monkeypatch, later, removed):
    """A process that began after the folder was made is not the one that made it."""
    with staged({"mask": tmp_path / "a.tif"}) as drafts:
        made = drafts["mask"].parent.stat().st_ctime
        monkeypatch.setattr("psutil.Process.create_time", lambda _: made + later)
        assert len(sweep(tmp_path)) == removed
        drafts["mask"].parent.mkdir(exist_ok=True)
        drafts["mask"].touch()


# -- stages ----------------------------------------------------------------------------------------


def test_stages_are_told_in_order_and_seen_by_readers(batch, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(drive, "_LOOK", 0.0)
    seen = {}

    def look(event):
        with Manifest.read(tmp_path / "out") as manifest:
            seen.update({running.uri: running.stage for running in manifest.running()})

    make_scene(inputs / "s0.tif", seed=1, height=300, width=300)  # long enough to be looked at
    batch(inputs, polygons=False, on_event=look)
    for i in range(6):
        uri = str(inputs / f"s{i}.tif")
        mine = [event for event in batch.stages if event.uri == uri]
        assert [e.stage for e in mine] == ["opening", "predicting", "writing"]
        assert [e.share is None for e in mine] == [True, False, True]
        assert 0 < mine[1].share < 1
        assert len({e.worker for e in mine}) == 1
        assert mine[0].worker == entries(tmp_path / "out")[f"s{i}"].worker
    assert seen
    uri, stage = next(iter(seen.items()))
    assert (stage.name, stage.worker) in {(e.stage, e.worker) for e in batch.stages if e.uri == uri}
    with Manifest.read(tmp_path / "out") as manifest:
        assert manifest.running() == []

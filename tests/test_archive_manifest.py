"""The manifest: what is left to do after any change and any crash."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from filelock import FileLock

from geounet.archive.manifest import MANIFEST, Failure, Made, Manifest, Output, Planned
from geounet.errors import ConfigError, OutputError

A = Planned("/in/a.tif", "a", "1 bytes, 1 ns")
B = Planned("/in/b.tif", "b", "1 bytes, 2 ns")
KEYS = {"model": "m", "parameters": "p"}
BAD_INPUT = Failure("input", "SceneError", "no raster")
LOST = Failure("lost", "KilledWorker", "gone")


def _made(scene, *kinds, identity="same"):
    identity = scene.identity if identity == "same" else identity
    outputs = {kind: Output(f"{scene.target}_{kind}", 3, "0" * 64) for kind in kinds or ("mask",)}
    return Made(outputs, {"water": 1.5, "land": 2.0}, 0.5, "host:1", identity)


def _write(folder, made):
    for output in made.outputs.values():
        (folder / output.path).write_bytes(b"123")


def _begin(folder, *scenes, **options):
    manifest = Manifest.create(folder)
    manifest.begin({})
    manifest.register(scenes, **{**KEYS, **options})
    return manifest


def _do(manifest, folder, planned, made=None):
    scene = manifest.get(planned.uri)
    manifest.start(scene)
    made = made or _made(planned)
    _write(folder, made)
    manifest.finish(scene, made)


def _refuse(*_, **__):
    raise PermissionError


def _uris(manifest):
    return [scene.uri for scene in manifest.pending()]


def test_a_scene_goes_from_pending_to_done(tmp_path):
    with _begin(tmp_path, A, B) as manifest:
        assert _uris(manifest) == [A.uri, B.uri]
        manifest.start(manifest.get(A.uri))
        assert manifest.counts() == {"pending": 1, "running": 1, "done": 0, "failed": 0}
        _do(manifest, tmp_path, B)
        entry = manifest.get(B.uri)
        assert (entry.status, entry.attempts, entry.seconds) == ("done", 1, 0.5)
        assert (entry.worker, entry.identity) == ("host:1", B.identity)
        assert entry.outputs == {"mask": Output("b_mask", 3, "0" * 64)}
        assert manifest.areas() == {"water": 1.5, "land": 2.0}


def _nothing(folder):
    return A


def _other_input(folder):
    return replace(A, identity="2 bytes, 9 ns")


def _unknown_input(folder):
    return replace(A, identity=None)


def _other_target(folder):
    return replace(A, target="there/a")


def _output_gone(folder):
    (folder / "a_mask").unlink()
    return A


def _output_cut(folder):
    (folder / "a_mask").write_bytes(b"12")
    return A


@pytest.mark.parametrize(
    ("change", "keys", "left"),
    [
        (_nothing, {}, False),
        (_unknown_input, {}, False),
        (_nothing, {"retry_failed": True}, False),
        (_other_input, {}, True),
        (_other_target, {}, True),
        (_output_gone, {}, True),
        (_output_cut, {}, True),
        (_nothing, {"model": "n"}, True),
        (_nothing, {"parameters": "q"}, True),
    ],
)
def test_what_a_second_batch_does_of_what_was_done(tmp_path, change, keys, left):
    with _begin(tmp_path, A) as manifest:
        _do(manifest, tmp_path, A)
    with _begin(tmp_path, change(tmp_path), **keys) as manifest:
        assert _uris(manifest) == [A.uri] * left
        assert manifest.counts(batch=True)["done"] == (not left)


@pytest.mark.parametrize(
    ("failure", "change", "keys", "left"),
    [
        (BAD_INPUT, _nothing, {}, False),
        (BAD_INPUT, _nothing, {"retry_failed": True}, True),
        (BAD_INPUT, _other_input, {}, True),
        (BAD_INPUT, _nothing, {"model": "n"}, True),
        (LOST, _nothing, {}, True),
    ],
)
def test_what_a_second_batch_does_of_what_failed(tmp_path, failure, change, keys, left):
    with _begin(tmp_path, A) as manifest:
        scene = manifest.get(A.uri)
        manifest.start(scene)
        manifest.fail(scene, failure)
        entry = manifest.get(A.uri)
        assert (entry.status, entry.kind) == ("failed", failure.kind)
        assert (entry.error, entry.message) == (failure.error, failure.message)
    with _begin(tmp_path, change(tmp_path), **keys) as manifest:
        assert _uris(manifest) == [A.uri] * left


@pytest.mark.parametrize("kind", ["network", "lost", "memory", "output"])
def test_passing_failures(kind):
    assert Failure(kind, "", "").passing


@pytest.mark.parametrize("kind", ["input", "refused", "unexpected"])
def test_lasting_failures(kind):
    assert not Failure(kind, "", "").passing


def test_attempts_are_counted_and_taken_back(tmp_path):
    with _begin(tmp_path, A) as manifest:
        for _ in range(2):
            manifest.start(manifest.get(A.uri))
            manifest.fail(manifest.get(A.uri), LOST, again=True)
        manifest.start(manifest.get(A.uri))
        manifest.put_back(manifest.get(A.uri))
        entry = manifest.get(A.uri)
        assert (entry.status, entry.attempts, entry.claimed) == ("pending", 2, True)


def test_what_was_running_is_pending_again(tmp_path):
    with _begin(tmp_path, A) as manifest:
        manifest.start(manifest.get(A.uri))
    with _begin(tmp_path, A) as manifest:
        assert _uris(manifest) == [A.uri]
        assert manifest.get(A.uri).claimed


def test_a_scene_of_an_earlier_batch_is_not_in_this_one(tmp_path):
    with _begin(tmp_path, A):
        pass
    with _begin(tmp_path, B) as manifest:
        assert _uris(manifest) == [B.uri]
        assert sum(manifest.counts(batch=True).values()) == 1
        assert sum(manifest.counts().values()) == 2


def test_the_same_scene_twice_is_one(tmp_path):
    with _begin(tmp_path, A, B, A) as manifest:
        assert _uris(manifest) == [A.uri, B.uri]


def test_two_scenes_with_the_same_outputs_are_refused_and_nothing_changes(tmp_path):
    with _begin(tmp_path, A) as manifest, pytest.raises(ConfigError) as caught:
        manifest.register([B, replace(B, uri="/in/x/a.tif", target="a")], **KEYS)
    assert A.uri in str(caught.value)
    assert "/in/x/a.tif" in str(caught.value)
    with Manifest.read(tmp_path) as manifest:
        assert [entry.uri for entry in manifest.entries()] == [A.uri]


def test_the_place_of_an_earlier_scene_is_taken_only_if_told(tmp_path):
    other = replace(A, uri="/moved/a.tif")
    with _begin(tmp_path, A):
        pass
    with pytest.raises(ConfigError, match=r"an earlier batch made of /in/a\.tif"):
        _begin(tmp_path, other)
    with _begin(tmp_path, other, overwrite=True) as manifest:
        assert [entry.uri for entry in manifest.entries()] == [other.uri]


def test_outputs_that_a_scene_has_no_more_go(tmp_path):
    with _begin(tmp_path, A) as manifest:
        _do(manifest, tmp_path, A, _made(A, "mask", "polygons"))
    with _begin(tmp_path, A, parameters="q") as manifest:
        _do(manifest, tmp_path, A, _made(A, "mask"))
    assert (tmp_path / "a_mask").exists()
    assert not (tmp_path / "a_polygons").exists()


def test_pending_scenes_come_once_in_pages_whatever_happens_to_them(tmp_path):
    scenes = [Planned(f"/in/{i}.tif", str(i), None) for i in range(10)]
    with _begin(tmp_path, *scenes) as manifest:
        seen = []
        for scene in manifest.pending(page=3):
            seen.append(scene.uri)
            manifest.start(scene)
            manifest.fail(scene, LOST, again=True)
        assert seen == [scene.uri for scene in scenes]


def test_registering_takes_scenes_one_by_one(tmp_path):
    """Ten thousand scenes: were they kept, their addresses would not come back."""
    held = set()

    def scenes():
        for i in range(10_000):
            scene = Planned(f"/in/{i}.tif", str(i), None)
            held.add(id(scene))
            yield scene

    with _begin(tmp_path) as manifest:
        manifest.register(scenes(), **KEYS)
        assert sum(manifest.counts().values()) == 10_000
    assert len(held) < 100


def test_where_workers_that_died_may_have_left_something(tmp_path):
    nested = Planned("/in/n.tif", "2024/n", None)
    with _begin(tmp_path, A, nested) as manifest:
        assert manifest.folders() == set()
        manifest.start(manifest.get(nested.uri))
        assert manifest.folders() == {"2024"}
        manifest.fail(manifest.get(nested.uri), LOST, again=True)
        _do(manifest, tmp_path, A)
        assert manifest.folders() == {"2024"}


def test_one_batch_at_a_time(tmp_path):
    with _begin(tmp_path, A), pytest.raises(OutputError, match="another runs"):
        Manifest.create(tmp_path)
    with _begin(tmp_path, A):
        pass


def test_who_looks_whether_a_batch_runs_keeps_none_from_beginning(tmp_path):
    """It holds the lock for a moment."""
    with _begin(tmp_path, A):
        pass
    lock = FileLock(tmp_path / "geounet-batch.lock", thread_local=False)
    lock.acquire()
    release = threading.Timer(0.2, lock.release)
    release.start()
    with _begin(tmp_path, A):
        pass
    release.join()


@pytest.mark.parametrize("ended", [True, False])
def test_a_batch_in_a_folder_that_may_only_be_read(tmp_path, monkeypatch, ended):
    with _begin(tmp_path, A) as manifest:
        assert manifest.in_use()
        if ended:
            manifest.end()
    with Manifest.read(tmp_path) as manifest:
        assert not manifest.in_use()
        monkeypatch.setattr(FileLock, "acquire", _refuse)
        assert manifest.in_use() is not ended


def test_a_manifest_is_read_while_it_is_written(tmp_path):
    with _begin(tmp_path, A) as writer, Manifest.read(tmp_path) as reader:
        writer.start(writer.get(A.uri))
        assert reader.counts()["running"] == 1
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.start(reader.get(A.uri))


def test_a_manifest_that_is_done_is_one_file_also_after_it_was_read(tmp_path):
    with _begin(tmp_path, A), Manifest.read(tmp_path) as meanwhile:
        assert meanwhile.counts()["pending"] == 1
    with Manifest.read(tmp_path) as after:
        assert after.counts()["pending"] == 1
    assert {path.suffix for path in tmp_path.iterdir()} <= {".sqlite", ".lock"}


def test_no_manifest(tmp_path):
    with pytest.raises(ConfigError, match=f"leaves {MANIFEST}"):
        Manifest.read(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot open"):
        Manifest.create(tmp_path / "file" / "out")


def test_the_last_batch(tmp_path):
    with _begin(tmp_path, A) as manifest:
        manifest.end("interrupted")
        last = manifest.last_batch()
    assert last["stopped"] == "interrupted"
    assert last["finished"] >= last["started"]


_WRITER = """
import sys
from pathlib import Path
from geounet.archive.manifest import Made, Manifest, Planned
with Manifest.create(Path(sys.argv[1])) as manifest:
    manifest.begin({})
    scenes = (Planned(f"/in/{i}.tif", str(i), "x") for i in range(100_000))
    manifest.register(scenes, model="m", parameters="p")
    print("registered", flush=True)
    for scene in manifest.pending():
        manifest.start(scene)
        manifest.finish(scene, Made({}, {"water": 1.0}, 0.1, "w", "x"))
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
@pytest.mark.parametrize("moment", ["while registering", "while running"])
def test_a_manifest_survives_kill_9(tmp_path, moment):
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with writer:
        if moment == "while running":
            assert writer.stdout.readline() == "registered\n"
        else:
            while not (tmp_path / f"{MANIFEST}-wal").exists():
                time.sleep(0.01)
        time.sleep(0.3)
        writer.send_signal(signal.SIGKILL)
    with _begin(tmp_path, A) as manifest:
        check = manifest._db.execute("PRAGMA integrity_check").fetchone()
        assert check == ("ok",)
        counts = manifest.counts()
        assert counts["running"] == 0
        if moment == "while running":
            assert counts["done"] > 0
            assert sum(counts.values()) == 100_001
            assert manifest.areas() == {"water": float(counts["done"])}
        else:
            assert sum(counts.values()) == 1


def _overfill(folder):
    with Manifest.create(folder) as manifest:
        manifest._db.execute("PRAGMA max_page_count = 20")
        manifest.begin({})
        manifest.register((Planned(f"/in/{i}", f"{i}", None) for i in range(2000)), **KEYS)


def test_a_full_disk_leaves_the_manifest_as_it_was(tmp_path):
    """SQLite is told that it may grow no more: its error is that of a full disk."""
    with _begin(tmp_path, A) as manifest:
        _do(manifest, tmp_path, A)
    with pytest.raises(OutputError, match=r"sqlite: database or disk is full\. Make"):
        _overfill(tmp_path)
    with _begin(tmp_path, A, B) as manifest:
        assert manifest.counts() == {"pending": 1, "running": 0, "done": 1, "failed": 0}

"""geounet batch as a person meets it: words, exit codes, Ctrl-C, status."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from models import compiled, tiny_model

from geounet.archive import BatchResult, Event, Manifest
from geounet.archive.manifest import Failure, Planned, Stage
from geounet.cli import batch as command
from geounet.cli import main


@pytest.fixture
def network(tmp_path):
    return compiled(tiny_model(tmp_path))


@pytest.fixture
def scenes(make_water, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(3):
        make_water(60 + i, 70, name=f"in/s{i}.tif")
    return tmp_path / "in"


def _geounet(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "geounet.cli", "batch", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_batch_from_beginning_to_status(scenes, network, tmp_path):
    (scenes / "bad.tif").write_bytes(b"no raster")
    settings = tmp_path / "batch.toml"
    settings.write_text(f'sources = ["{scenes}"]\nmodel = "{network}"\npolygons = false\n')
    out = tmp_path / "out"
    asked = ("--config", settings, "-o", out, "--workers", 1, "--device", "cpu", "--set", "tile=48")
    process = _geounet(*asked)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 3, errors
    assert f"failed: {scenes}/bad.tif: SceneError" in errors
    assert "3 of 4 scenes done, 1 failed" in errors
    said = errors.splitlines()
    assert said[0] == "waiting: worker processes start: 1"
    lines = output.splitlines()
    assert lines[0].split() == ["state", "finished"]
    assert any(line.split()[:2] == ["done", "3"] for line in lines)
    assert any("bad.tif" in line and "input" in line for line in lines)
    again = _geounet(*asked, "--json")
    output, _ = again.communicate(timeout=240)
    assert again.returncode == 3
    events = [json.loads(line) for line in output.splitlines()]
    assert [event["kind"] for event in events] == ["ended", "result"]
    assert events[-1]["unchanged"] == 3
    assert len(list(out.glob("*_mask.tif"))) == 3


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C of a whole process group")
def test_ctrl_c_once_finishes_what_runs(scenes, network, tmp_path):
    """The signal reaches all processes of the terminal, workers too."""
    for i in range(40):
        os.link(scenes / "s0.tif", scenes / f"t{i}.tif")
    out = tmp_path / "out"
    process = _geounet(
        scenes, "-o", out, "-m", network, "--workers", 1, "--device", "cpu", "--json",
        start_new_session=True,
    )  # fmt: skip
    with process:
        for line in process.stdout:
            if json.loads(line)["kind"] == "done":
                break
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=240)
    assert process.returncode == 130, errors
    assert "finishing what runs" in errors
    result = json.loads(output.splitlines()[-1])
    assert result["stopped"] == "interrupted"
    assert result["failed"] == 0
    assert 0 < result["done"] < 43
    with Manifest.read(out) as manifest:
        entries = list(manifest.entries())
        assert {entry.status for entry in entries} == {"done", "pending"}
        assert all(entry.there(out) for entry in entries if entry.status == "done")
    assert not list(out.glob(".geounet-*"))


def _call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["geounet", "batch", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What the library is asked for, which answers what it is told to."""
    found = {"answer": {}}

    def fake(sources, *, stop, on_event, **options):
        found.update(sources=sources, options=options, stop=stop)
        counts = {"total": 2, "done": 2, "unchanged": 0, "failed": 0, "left": 0}
        made = {**counts, "area_km2": {}, "seconds": 1.0, "stopped": None, **found["answer"]}
        return BatchResult(output=tmp_path, manifest=tmp_path / "m", **made)

    monkeypatch.setattr("geounet.archive.batch", fake)
    return found


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({}, 0),
        ({"done": 1, "failed": 1}, 3),
        ({"done": 1, "left": 1, "stopped": "more than 0 scenes failed"}, 3),
        ({"done": 0, "failed": 2}, 1),
        ({"done": 1, "left": 1, "stopped": "interrupted"}, 130),
    ],
)
def test_exit_codes(monkeypatch, asked, answer, code):
    asked["answer"] = answer
    assert _call(monkeypatch, "a.tif", "-q") == code


def test_a_file_of_a_windows_editor_begins_with_a_mark(monkeypatch, asked, tmp_path):
    (tmp_path / "b.toml").write_text('sources = ["ä"]\n', encoding="utf-8-sig")
    assert _call(monkeypatch, "--config", tmp_path / "b.toml", "-q") == 0
    assert asked["sources"] == ["ä"]
    (tmp_path / "b.toml").write_bytes(b'sources = ["\xe4"]\n')
    assert _call(monkeypatch, "--config", tmp_path / "b.toml", "-q") == 2


def test_flags_go_before_settings_and_these_before_the_file(monkeypatch, asked, tmp_path):
    file = tmp_path / "b.toml"
    file.write_text('sources = ["x"]\nthreshold = 0.1\ntile = 1\nworkers = 1\nname = "{stem}"\n')
    told = ("--config", file, "--set", "threshold=0.2", "--set", "workers=2", "--workers", 3)
    assert _call(monkeypatch, *told, "-q") == 0
    assert asked["sources"] == ["x"]
    assert asked["options"] == {"threshold": 0.2, "tile": 1, "workers": 3, "name": "{stem}"}
    assert _call(monkeypatch, "y", *told, "-q") == 0
    assert asked["sources"] == ["y"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "a batch needs scenes"),
        (("x", "--config", "no.toml"), "--config is a TOML file"),
        (("x", "--set", "tile"), "KEY=VALUE"),
        (("status", "no/folder"), "leaves geounet-batch.sqlite"),
    ],
)
def test_wrong_use(monkeypatch, capsys, asked, arguments, message):
    assert _call(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err


def _event(kind, **more):
    return Event(kind, total=5, done=2, failed=1, running=2, seconds=9.0, **more)


def test_plain_lines(capsys):
    show = command._Lines()
    for event in [
        _event("begun", message="tcp://x, 2 workers"),
        _event("done", uri="a"),
        _event("done", uri="b"),
        _event("failed", uri="c", message="SceneError: no"),
        _event("ended"),
    ]:
        show(event)
    standing = "2 of 5 scenes done, 1 failed, 2 in the cluster, 9 s"
    assert capsys.readouterr().err.splitlines() == [
        "workers: tcp://x, 2 workers",
        standing,
        "failed: c: SceneError: no",
        standing,
    ]


def test_plain_lines_say_what_runs_now_and_then(capsys, monkeypatch):
    clock = iter(range(100, 1000, 11))
    monkeypatch.setattr(command.time, "monotonic", lambda: next(clock))
    show = command._Lines()
    for event in [
        _event("stage", uri="/in/a.tif", stage="opening"),
        _event("stage", uri="/in/a.tif", stage="predicting", share=0.456),
        *[_event("stage", uri=f"/in/{i}.tif", stage="writing") for i in range(3)],
        _event("done", uri="/in/a.tif"),
    ]:
        show(event)
    standing = "2 of 5 scenes done, 1 failed, 2 in the cluster, 9 s: "
    told = [line.removeprefix(standing) for line in capsys.readouterr().err.splitlines()]
    assert told == [
        "in/a.tif opening",
        "in/a.tif predicting 46%",
        "in/a.tif predicting 46%, in/0.tif writing",
        "in/a.tif predicting 46%, in/0.tif writing, in/1.tif writing",
        "in/a.tif predicting 46%, in/0.tif writing, in/1.tif writing, and 1 more",
        "in/0.tif writing, in/1.tif writing, in/2.tif writing",
    ]


def test_the_live_view_lists_what_runs():
    at = {}
    for i in range(15):
        command._follow(at, _event("stage", uri=f"/in/{i}.tif", stage="predicting", share=0.5))
    for i in range(1, 3):
        command._follow(at, _event("failed" if i == 1 else "done", uri=f"/in/{i}.tif"))
    command._follow(at, _event("ended"))
    lines = command._listing(at).splitlines()
    assert lines[0] == "  predicting 50%   in/0.tif"
    assert lines[1] == "  predicting 50%   in/3.tif"
    assert (len(lines), lines[-1]) == (13, "  and 1 more")
    assert command._listing({}) == ""


def test_the_live_view_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with command._live() as show:
        show(_event("begun", message="tcp://x, 2 workers"))
        show(_event("stage", uri="/in/a.tif", stage="predicting", share=0.456))
        show(_event("failed", uri="c", message="SceneError: [no]"))
    text = capsys.readouterr().err
    for part in ("tcp://x, 2 workers", "failed: c: SceneError: [no]", "predicting 46%", "in/a.tif",
                 "3/5", "1 failed"):  # fmt: skip
        assert part in text


def test_a_table_is_plain_where_there_is_no_terminal(tmp_path, capsys):
    with Manifest.create(tmp_path) as manifest:
        manifest.begin({})
        names = ("long name", "b")
        planned = [Planned(f"https://h/{name}.tif", name, None) for name in names]
        manifest.register(planned, model="m", parameters="p")
        for entry, text in zip(list(manifest.pending()), ("short", "x" * 500), strict=True):
            manifest.start(entry)
            manifest.fail(entry, Failure("input", "SceneError", text))
        manifest.end()
    command._print_status(tmp_path)
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "scene                    why    attempts  message",
        "https://h/long name.tif  input         1  SceneError: short",
        f"https://h/b.tif          input         1  SceneError: {'x' * 500}",
    ]


def test_status_of_a_batch_that_runs(tmp_path, monkeypatch, capsys):
    planned = [Planned(f"https://u:p@h/s{i}.tif?sig=1", f"s{i}", None) for i in range(3)]
    with Manifest.create(tmp_path) as manifest:
        manifest.begin({})
        manifest.register(planned, model="m", parameters="p")
        for entry in list(manifest.pending())[:2]:
            manifest.start(entry)
        manifest.show(
            {2: Stage("predicting", 0.45, "h:2", 5.0), 1: Stage("opening", None, "h:1", 6)}
        )
        assert _call(monkeypatch, "status", tmp_path) == 0
        text = capsys.readouterr().out
        assert "predicting 45%   https://h/s1.tif\nopening          https://h/s0.tif" in text
        assert _call(monkeypatch, "status", tmp_path, "--json") == 0
        record = json.loads(capsys.readouterr().out)
        assert (record["state"], record["running"], record["pending"]) == ("running", 2, 1)
        assert record["now"][0] == {
            "scene": "https://h/s1.tif", "stage": "predicting", "share": 0.45, "worker": "h:2",
            "told": "1970-01-01T00:00:05+00:00",
        }  # fmt: skip
    assert _call(monkeypatch, "status", tmp_path, "--json") == 0  # its process died
    record = json.loads(capsys.readouterr().out)
    assert (record["state"], record["now"]) == ("broken off", [])


def _press_twice(stop):
    with command._stopping(stop):
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        signal.raise_signal(signal.SIGINT)


def test_a_second_ctrl_c_stops_at_once():
    stop = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        _press_twice(stop)
    assert signal.getsignal(signal.SIGINT) == before

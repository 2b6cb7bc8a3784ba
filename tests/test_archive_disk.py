"""A disk that is really full: a batch stops, space is made, the same command finishes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from batches import make_scene, serial
from models import compiled, tiny_model

MOUNT = 'mount -t tmpfs -o size=8m none "$0" && exec "$@"'
"""In a mount namespace of its own, which nobody else sees and which goes with the process."""

SCRIPT = """
import json, os, subprocess, sys
from pathlib import Path
from batches import entries, tree
from geounet import GeounetError

disk, left, *command = sys.argv[1:]
out = Path(disk) / "out"

def run():
    done = subprocess.run([sys.executable, "-m", "geounet.cli", *command, "-o", str(out)],
                          capture_output=True, text=True, timeout=200)
    try:
        found = entries(out)
    except GeounetError:  # there was no room for a manifest
        found = {}
    return {
        "code": done.returncode,
        "said": done.stderr,
        "tree": tree(out),
        "changed": {path.name: path.stat().st_mtime_ns for path in out.rglob("*_mask.tif")},
        "status": {name: entry.status for name, entry in found.items()},
        "hidden": [path.name for path in out.rglob(".geounet-*")],
    }

filler = Path(disk) / "filler"
with filler.open("wb") as file:
    file.write(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - int(left)))
full = run()
filler.unlink()
print(json.dumps([full, run()]))
"""


def _may_mount():
    if not shutil.which("unshare"):
        return False
    try_it = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"]
    return subprocess.run(try_it, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not _may_mount(), reason="needs a disk of its own (Linux)")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Scenes, a model, and what a serial run makes where there is room."""
    folder = tmp_path_factory.mktemp("disk")
    (folder / "in").mkdir()
    for i in range(10):
        make_scene(folder / "in" / f"s{i}.tif", seed=i, height=400, width=300)
    model = compiled(tiny_model(folder))
    return (
        folder,
        model,
        serial(folder / "in", folder / "serial", model, polygons=False, probability=True),
    )


@pytest.mark.parametrize("left", [16 << 10, 300 << 10])
def test_where_space_is_made_the_same_command_finishes(made, tmp_path, left):
    """The first disk has no room for the manifest, the second for it and a few scenes."""
    folder, model, expected = made
    disk = tmp_path / "disk"
    disk.mkdir()
    batch = (
        f"batch {folder / 'in'} -m {model} --device cpu --workers 1 --retries 0"
        " --no-polygons --probability"
    )
    command = [sys.executable, "-c", SCRIPT, disk, left, *batch.split()]
    ran = subprocess.run(
        ["unshare", "-rm", "sh", "-c", MOUNT, disk, *map(str, command)],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=400,
    )  # fmt: skip
    full, after = json.loads(ran.stdout)
    assert full["code"] in {1, 3}, full["said"]
    assert "Make room there" in full["said"] or "outputs cannot be written" in full["said"]
    assert full["tree"].items() < expected.items()
    assert not full["hidden"] + after["hidden"]
    done = {name for name, status in full["status"].items() if status == "done"}
    assert {f"{name}_mask.tif" for name in done} == full["changed"].keys()
    assert after["code"] == 0, after["said"]
    assert after["tree"] == expected
    assert set(after["status"].values()) == {"done"}
    assert full["changed"].items() <= after["changed"].items()  # not made a second time

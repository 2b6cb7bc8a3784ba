"""`geounet train` and `geounet audit` as a person meets them."""

import csv
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio

from geounet.cli import main
from geounet.model import load_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")

CONFIG = """
data = "scenes"
output = "run"
window = 32
batch = 2
steps = 4
validate_every = 2
mixed = false
device = "cpu"
[architecture]
decoder = "unet2015"
options = {features = [4], padded = true}
"""


@pytest.fixture
def call(capfd, monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["geounet", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0, *capfd.readouterr()

    return run


@pytest.fixture
def folder(make_raster, tmp_path):
    """A configuration and one scene with its label: a lake that reaches the rows kept apart."""
    (tmp_path / "scenes").mkdir()
    rows, cols = np.mgrid[:96, :80]
    lake = (rows - 62) ** 2 + (cols - 40) ** 2 < 700
    stack = np.stack([np.where(lake, *pair) for pair in ((600, 900), (400, 1000), (200, 2500))])
    noise = np.random.default_rng(0).normal(0, 100, stack.shape)
    stack = (stack + noise).clip(50).astype(np.uint16)
    make_raster(stack, "scenes/a.tif", descriptions=("B03", "B04", "B08"), scale=1e-4)
    make_raster(lake.astype(np.uint8)[None], "scenes/a.label.tif")
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path


def test_train_by_a_file_and_what_stands_above_it(call, folder):
    code, said, err = call(
        "train", folder / "config.toml", "--steps", 6, "--set", "loss.name=focal"
    )
    assert code == 0
    lines = dict(line.split(maxsplit=1) for line in said.splitlines())
    assert lines["steps"] == "6"
    assert 0 <= float(lines["water_iou"]) <= 1
    assert lines["model"] == str(folder / "run" / "model.safetensors")
    assert "warning: all scenes are of one site" in err
    assert "step 6 of 6: loss " in err
    told = json.loads((folder / "run" / "config.json").read_text())
    assert (told["loss"]["name"], told["steps"], told["batch"]) == ("focal", 6, 2)


def test_train_by_flags_alone(call, folder):
    code, said, err = call(
        "train", "--data", folder / "scenes", "-o", folder / "flags", "--decoder", "unet2015",
        "--set", "architecture.options.features=[4]", "--set", "architecture.options.padded=true",
        "--bands", "B03,B08", "--window", 32, "--batch", 1, "--steps", 1, "--rate", 0.01,
        "--seed", 3, "--device", "cpu", "--loss", "dice", "--set", "name=mine",
        "--set", "valid_share=0", "--json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    record = json.loads(said)
    assert (record["name"], record["steps"], record["train"], record["valid"]) == (
        "mine", 1, ["a"], []
    )  # fmt: skip
    spec = load_model(record["outputs"]["model"]).spec
    assert [band.name for band in spec.bands] == ["B03", "B08"]
    told = json.loads((folder / "flags" / "config.json").read_text())
    assert (told["seed"], told["optimiser"]["rate"], told["loss"]["name"]) == (3, 0.01, "dice")


def test_labels_of_other_numbers(call, folder):
    with rasterio.open(folder / "scenes" / "a.label.tif", "r+") as file:
        file.write(np.where(file.read() == 1, 9, 4).astype(np.uint8))
    told = ["--label-value", "water=9", "--label-value", "land=3,4", "--label-value", "unknown=0"]
    code, said, _ = call("audit", folder / "scenes", "--json", *told, "--scale", 1e-4)
    assert (code, json.loads(said)["scenes"][0]["remarks"]) == (0, [])
    assert call("train", folder / "config.toml", *told, "--steps", 1, "--outside", "land")[0] == 0
    settings = json.loads((folder / "run" / "config.json").read_text())
    assert settings["label_values"] == {"water": [9], "land": [3, 4]}
    assert (settings["ignore_values"], settings["outside"]) == ([0], "land")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "loss.nam=1"], "there is no option 'loss.nam'; did you mean 'name'?"),
        (["--set", "seed"], "a setting is KEY=VALUE"),
        (["--set", "a b=1"], "a setting's key must be"),
        (["--window", "33"], "window must be a multiple of 2"),
        (["--data", "nowhere"], "there is no folder nowhere"),
        (["--device", "abacus"], "device"),
        (["--fold", "1/2"], "there are 1 for 2 folds"),
        (["--fold", "1"], "fold has too few values"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_two(call, folder, arguments, message):
    code, said, err = call("train", folder / "config.toml", *arguments)
    assert (code, said) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (folder / "run").exists()


def test_a_label_off_its_scene_is_one_line_and_exit_code_one(call, folder, make_raster):
    make_raster(np.zeros((1, 95, 80), np.uint8), "scenes/a.label.tif")
    code, _, err = call("train", folder / "config.toml")
    assert code == 1
    assert "a label must have its scene's size of 80 x 96 pixels" in err.splitlines()[-1]


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_a_training_that_was_killed_goes_on(folder):
    command = [sys.executable, "-m", "geounet.cli", "train", folder / "config.toml", "--steps",
               "60", "--set", "augment.rotation=true", "--set", "validate_every=5"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    checkpoint = folder / "run" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 1 <= len(rows(folder / "run")) < 12
    # In processes too: tests before this one may have left torch another number of threads.
    subprocess.run(command, stderr=subprocess.DEVNULL, check=True)
    subprocess.run([*command, "-o", folder / "whole"], stderr=subprocess.DEVNULL, check=True)
    assert rows(folder / "run") == rows(folder / "whole")
    assert len(rows(folder / "run")) == 12


def test_audit(call, folder):
    code, said, err = call("audit", folder / "scenes", "--sheet", folder / "sheet.png")
    assert (code, err) == (0, "")
    header, row = said.splitlines()
    assert header.split()[:4] == ["scene", "size", "water", "unknown"]
    assert row.split()[:4] == ["a", "80", "x", "96"]
    assert (folder / "sheet.png").stat().st_size > 1000


def test_audit_as_json(call, folder, make_raster):
    make_raster(np.zeros((1, 9, 9), np.uint8), "scenes/a.label.tif")
    code, said, _ = call("audit", folder / "scenes", "--json")
    assert code == 0
    (check,) = json.loads(said)["scenes"]
    assert check["remarks"][0].startswith("cannot be used: a label must have its scene's size")


def test_audit_of_nothing(call, tmp_path):
    assert call("audit", tmp_path)[0] == 2
    (tmp_path / "file").write_text("")
    assert call("audit", tmp_path, "--sheet", tmp_path / "file" / "sheet.png")[0] == 1

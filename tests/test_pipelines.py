"""The recipes in pipelines/ do what they say, on made scenes; cluster jobs are built, not run."""

from __future__ import annotations

import csv
import json
import os
import runpy
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
import yaml
from distributed import Client
from distributed.cli import dask_scheduler, dask_worker
from models import tiny_model
from typer.testing import CliRunner

import geounet
from geounet.cli.application import app

PIPELINES = Path(__file__).parents[1] / "pipelines"


@pytest.fixture
def network(tmp_path) -> Path:
    return tiny_model(tmp_path)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_archive_by_a_toml_file(make_water, network, tmp_path, capsys, monkeypatch) -> None:
    (tmp_path / "in").mkdir()
    for day in ("20230501", "20230601"):
        make_water(40, 50, name=f"in/S2_{day}.tif")
    (tmp_path / "in" / "bad_20230701.tif").write_bytes(b"no raster")
    text = (PIPELINES / "segment_archive.toml").read_text(encoding="utf-8")
    options = tomllib.loads(text)
    assert options["name"] == "{date}/{stem}"
    settings = tmp_path / "settings.toml"
    told = {"sources": [f"{tmp_path}/in/*.tif"], "output": f"{tmp_path}/out", "model": f"{network}"}
    lines = [line for line in text.splitlines() if line.split(" =")[0] not in told]
    head = [f"{key} = {json.dumps(value)}" for key, value in told.items()]
    settings.write_text("\n".join([*head, *lines]), encoding="utf-8")
    script = runpy.run_path(str(PIPELINES / "segment_archive.py"))
    batch = geounet.batch
    with Client(n_workers=1, processes=False, dashboard_address=":0") as client:
        monkeypatch.setattr(
            geounet, "batch", lambda *a, **k: batch(*a, scheduler=client, device="cpu", **k)
        )
        assert script["main"]([str(settings)]) == 3
    assert capsys.readouterr().out == "2 of 3 scenes done, 1 failed\n"
    table = {row["scene"]: row for row in rows(tmp_path / "out" / "scenes.csv")}
    assert sorted(table) == [
        "2023-05-01/S2_20230501", "2023-06-01/S2_20230601", "2023-07-01/bad_20230701"
    ]  # fmt: skip
    assert table["2023-07-01/bad_20230701"]["status"] == "failed"
    assert "raster" in table["2023-07-01/bad_20230701"]["message"]
    areas = [float(table["2023-05-01/S2_20230501"][f"{name}_km2"]) for name in ("water", "land")]
    assert sum(areas) == pytest.approx(0.2, rel=0.01)
    merged = gpd.read_parquet(tmp_path / "out" / "polygons.parquet")
    assert set(merged.scene) <= set(table)
    assert merged.area_m2.min() >= 900
    assert (tmp_path / "out" / "collection.json").is_file()


def test_the_water_area_of_a_site(make_water, network, tmp_path, capsys) -> None:
    site = gpd.GeoDataFrame(
        geometry=[shapely.box(500_050, 4_399_700, 500_350, 4_399_950)], crs="EPSG:32629"
    )
    site.to_file(tmp_path / "site.geojson")
    hidden = np.zeros((40, 50), bool)
    hidden[:, :20] = True
    first, _ = make_water(40, 50, name="S2_20230601.tif")
    second, _ = make_water(40, 50, name="S2_20230501.tif", unobserved=hidden)
    script = runpy.run_path(str(PIPELINES / "water_area.py"))
    out = tmp_path / "out"
    asked = [
        "--site",
        str(tmp_path / "site.geojson"),
        "--output",
        str(out),
        "--model",
        str(network),
    ]
    assert script["main"]([str(first), str(second), *asked]) == 0
    found = rows(out / "water_area.csv")
    assert [row["date"] for row in found] == ["2023-05-01", "2023-06-01"]
    assert [float(row["seen"]) for row in found] == [pytest.approx(0.5, abs=0.01), 1.0]
    whole = geounet.run(
        first, output=tmp_path / "own", model=str(network), polygons=False,
        geometry=tmp_path / "site.geojson",
    )  # fmt: skip
    assert float(found[1]["water_km2"]) == pytest.approx(whole.area_km2["water"], abs=1e-6)
    assert found[1]["most_km2"] == found[1]["water_km2"]
    gap = float(found[0]["most_km2"]) - float(found[0]["water_km2"])
    assert gap == pytest.approx(0.0375, rel=0.03)
    assert (out / "water_area.png").read_bytes().startswith(b"\x89PNG")
    assert script["main"]([str(first), str(tmp_path / "none.tif"), *asked]) == 3
    assert "left out: a scene must exist" in capsys.readouterr().err
    undated, _ = make_water(40, 50, name="undated.tif")
    assert script["main"]([str(undated), *asked]) == 1
    assert "needs dates; nothing in" in capsys.readouterr().err
    assert not (out / "undated_mask.tif").exists()


def test_a_hollow_point_is_a_day_that_was_hardly_seen(tmp_path) -> None:
    script = runpy.run_path(str(PIPELINES / "water_area.py"))
    days = [script["Day"](f"2023-0{i}-01", "s", 1.0, land, 0.0) for i, land in ((5, 9.0), (6, 2.0))]
    drawn = {}
    figure = script["Figure"]

    class Seen(figure):
        def savefig(self, *args, **options):
            axes = self.axes[0]
            drawn.update({line.get_markerfacecolor(): line.get_xdata() for line in axes.lines})

    script["plot"].__globals__["Figure"] = Seen
    script["plot"](days, 10.0, 0.9, tmp_path / "x.png")
    assert list(drawn["none"]) == [date(2023, 6, 1)]
    assert list(drawn["#2166ac"]) == [date(2023, 5, 1)]


def test_a_scene_is_disturbed_in_all_ways(make_raster, network, capsys) -> None:
    random = np.random.default_rng(1)
    water = np.kron(random.random((8, 9)) < 0.5, np.ones((7, 7), bool))
    bands = random.integers(900, 1100, (6, *water.shape)).astype(np.uint16)
    bands[3:] += np.where(water, 0, 1000).astype(np.uint16)
    bands[4:, water] -= 500
    names = ("blue", "green", "red", "nir", "swir16", "swir22")
    scene = make_raster(bands, "scene.tif", descriptions=names, scale=1e-4)
    label = make_raster(np.stack([water * 0 + 255, water]).astype(np.uint8), "label.tif")
    script = runpy.run_path(str(PIPELINES / "disturb.py"))
    script["main"]([str(scene), str(label), "--label-band", "2", "--model", str(network)])
    head, _, *lines = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in capsys.readouterr().out.splitlines()
    )
    assert head == ["change", "6", "4", "MNDWI > 0"]
    scores = {name: [float(cell) for cell in cells] for name, *cells in lines}
    assert len(scores) == len(lines) == 15
    codes = geounet.segment(bands, names, scale=1e-4, offset=0.0, model=str(network))
    alike = round(((codes == 1) & water).sum() / ((codes == 1) | water).sum(), 3)
    assert scores["none"] == [alike, alike, 1.0]
    index = {name: row[2] for name, row in scores.items()}
    for change in ("gaps as of Landsat 7", "all bands 0.4", "interpolated", "noise"):
        (found,) = (score for name, score in index.items() if name.startswith(change))
        assert found > 0.93  # an index bears these
    assert index["bands shifted by up to a pixel"] < 0.9


def test_disturbed_labels_go_with_their_pixels() -> None:
    script = runpy.run_path(str(PIPELINES / "disturb.py"))
    random = np.random.default_rng(2)
    label = random.choice(np.array([0, 1, 255], np.uint8), (60, 80), p=[0.5, 0.45, 0.05])
    pixels = np.broadcast_to((label == 1).astype(np.float32), (2, *label.shape))
    bands, truth = script["gaps"](pixels, label)
    missing = np.isnan(bands[0])
    assert 0.1 < missing.mean() < 0.4
    assert not missing[:, 40].any()
    assert (truth == np.where(missing, 255, label)).all()
    bands, truth = script["coarser"](pixels, label, times=3)
    assert bands.shape == (2, 20, 26)
    known = truth != 255
    assert (known == (label[:60, :78].reshape(20, 3, 26, 3) != 255).all(axis=(1, 3))).all()
    assert (truth[known] == (bands[0][known] >= 0.5)).all()
    bands, truth = script["finer"](pixels, label)
    assert bands.shape == (2, 120, 160)
    assert (truth[1::2, ::2] == label).all()


def test_a_slurm_job_is_built() -> None:
    asked = ["--partition", "fast", "--cores", "6", "--memory", "12GiB", "--gpu", "--dry-run"]
    done = subprocess.run(
        [sys.executable, str(PIPELINES / "slurm.py"), "a/**/*.tif", *asked],
        capture_output=True, text=True, timeout=120, check=True,
        env={**os.environ, "PYTHONPATH": str(PIPELINES.parent)},
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    for directive in ("-p fast", "--cpus-per-task=6", "--mem=12G", "--gres=gpu:1"):
        assert f"#SBATCH {directive}" in lines
    assert "export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK" in lines
    assert "--nthreads 1" in lines[-1]
    assert "--resources GPU=1" in lines[-1]


def test_a_slurm_worker_without_a_gpu_claims_none() -> None:
    script = runpy.run_path(str(PIPELINES / "slurm.py"))
    script["make_cluster"].__globals__["SLURMCluster"] = dict
    told = script["make_cluster"](script["parse"](["a.tif"]))
    assert (told["job_extra_directives"], told["worker_extra_args"]) == ([], [])


def test_the_parts_of_the_kubernetes_file_fit_each_other() -> None:
    text = (PIPELINES / "kubernetes.yaml").read_text(encoding="utf-8")
    service, *rest = yaml.safe_load_all(text)
    parts = {part["metadata"]["name"]: part["spec"]["template"] for part in rest}
    scheduler = parts["geounet-scheduler"]
    assert service["spec"]["selector"].items() <= scheduler["metadata"]["labels"].items()
    ports = {port["containerPort"] for port in scheduler["spec"]["containers"][0]["ports"]}
    assert {port["port"] for port in service["spec"]["ports"]} == ports
    address = f"tcp://{service['metadata']['name']}:8786"
    worker = parts["geounet-workers"]["spec"]["containers"][0]["command"]
    command = parts["geounet-batch"]["spec"]["containers"][0]["command"]
    assert address in worker
    assert address in command
    for part in rest:
        labels = part["spec"]["template"]["metadata"]["labels"]
        assert part["spec"].get("selector", {}).get("matchLabels", labels) == labels
        mounts = part["spec"]["template"]["spec"]["containers"][0].get("volumeMounts", [])
        volumes = part["spec"]["template"]["spec"].get("volumes", [])
        assert [m["name"] for m in mounts] == [v["name"] for v in volumes]
    told = CliRunner().invoke(app, [*command[1:], "--help"])
    assert told.exit_code == 0
    programs = {
        dask_worker.main: worker,
        dask_scheduler.main: scheduler["spec"]["containers"][0]["command"],
    }
    for program, words in programs.items():
        known = {option for parameter in program.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known

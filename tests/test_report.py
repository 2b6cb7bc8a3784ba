"""Pictures have the right pixels in the right places; pages hold the figures and nothing remote."""

from __future__ import annotations

import base64
import json
import re
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from typer.testing import CliRunner

from geounet.cli import app
from geounet.errors import ConfigError, OutputError, SceneError
from geounet.evaluate import METRICS, Settings, baselines, compare
from geounet.labels import Pair
from geounet.model import Architecture, ModelSpec, Normalisation, default_bands, save_model
from geounet.report import (
    _figure,
    composite,
    evaluation_report,
    evaluation_table,
    fit_columns,
    quicklook,
)
from geounet.scene import open_scene
from geounet.segmenter import build_network

PROFILE = {
    "driver": "GTiff",
    "crs": CRS.from_epsg(32631),
    "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000),
}
HATCH = {(244, 244, 244), (222, 222, 222)}


def write(path, array, names, scale=1e-4, **extra):
    count, height, width = array.shape
    profile = {**PROFILE, "count": count, "height": height, "width": width, "dtype": array.dtype}
    with rasterio.open(path, "w", **profile, **extra) as out:
        out.write(array)
        out.descriptions = names
        out.scales = (scale,) * count
    return path


def halves(height=40, width=60):
    """DN of one band: 1000 on the left half and 3000 on the right."""
    band = np.full((height, width), 1000, np.uint16)
    band[:, width // 2 :] = 3000
    return band


def read_png(source):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(source) as image:
            assert image.driver in {"PNG", "JPEG"}
            return np.moveaxis(image.read(), 0, -1)


@pytest.fixture
def scene(tmp_path):
    """Red rises to the right, green to the left, blue downwards; the first row is not observed."""
    red = halves()
    blue = np.full_like(red, 1000)
    blue[20:] = 3000
    stack = np.stack([blue, red[:, ::-1], red])
    stack[:, 0] = 0
    return open_scene(write(tmp_path / "scene.tif", stack, ["blue", "green", "red"]))


class TestComposite:
    def test_true_colour_at_known_pixels(self, scene):
        rgb = composite(scene)
        assert rgb.shape == (40, 60, 3)
        assert rgb.dtype == np.uint8
        assert rgb[10, 5].tolist() == [0, 255, 0]
        assert rgb[10, 50].tolist() == [255, 0, 0]
        assert rgb[30, 5].tolist() == [0, 255, 255]
        assert {tuple(pixel) for pixel in rgb[0].tolist()} == HATCH

    def test_is_thinned_when_it_is_read(self, scene):
        rgb = composite(scene, shape=(20, 30))
        assert rgb.shape == (20, 30, 3)
        assert rgb[15, 20].tolist() == [255, 0, 255]

    def test_a_dark_picture_is_lifted_to_a_third(self, tmp_path):
        band = np.full((10, 10), 500, np.uint16)
        band[:, 0] = 100
        band[:, -1] = 8100
        path = write(tmp_path / "cloudy.tif", np.stack([band] * 3), ["blue", "green", "red"])
        assert composite(open_scene(path))[5, 4].tolist() == [85, 85, 85]

    def test_falls_back_to_the_bands_there_are(self, tmp_path):
        stack = np.stack([halves()[:, ::-1], halves(), halves()])
        path = write(tmp_path / "no_blue.tif", stack, ["green", "red", "nir08"])
        assert composite(open_scene(path))[0, 59].tolist() == [255, 255, 0]
        with pytest.raises(SceneError, match=r"needs red, green, blue; .* has green, red, nir08"):
            composite(open_scene(path), "true")

    def test_refuses_an_unknown_kind(self, scene):
        with pytest.raises(ConfigError, match="true, swir, infrared; got 'ir'"):
            composite(scene, "ir")

    def test_nothing_observed_is_all_hatch(self, tmp_path):
        path = write(tmp_path / "x.tif", np.zeros((3, 8, 8), np.uint16), ["blue", "green", "red"])
        found = {tuple(pixel) for pixel in composite(open_scene(path)).reshape(-1, 3).tolist()}
        assert found == HATCH

    def test_a_scene_with_a_mask_of_its_own_is_thinned_too(self, tmp_path):
        path = tmp_path / "masked.tif"
        write(path, np.stack([halves()] * 3), ["blue", "green", "red"])
        seen = np.full((40, 60), 255, np.uint8)
        seen[:, 40:] = 0
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as out:
            out.write_mask(seen)
        rgb = composite(open_scene(path), shape=(20, 30))
        assert rgb[10, 5].tolist() == [0, 0, 0]
        assert tuple(rgb[10, 25].tolist()) in HATCH


class TestQuicklook:
    def codes(self):
        """Water in rows 10 to 19 and columns 10 to 19, obscured pixels below, the rest land."""
        codes = np.zeros((40, 60), np.uint8)
        codes[10:20, 10:20] = 1
        codes[25:30, 10:20] = 2
        codes[35:] = 255
        return codes

    def test_pixels(self, scene, tmp_path):
        quicklook(scene, self.codes(), tmp_path / "look.png")
        image = read_png(tmp_path / "look.png")
        assert image.shape == (40, 60 + 8 + 60, 3)
        left, right = image[:, :60], image[:, 68:]
        np.testing.assert_array_equal(left, composite(scene))
        assert (image[:, 60:68] == 255).all()
        assert (right[10, 10:20] == (255, 221, 0)).all()
        assert (right[10:20, 19] == (255, 221, 0)).all()
        # Half of green (0, 255, 0) and half of the water's blue (33, 102, 172).
        assert right[15, 15].tolist() == [16, 178, 86]
        # Half of cyan (0, 255, 255) and half of pink (231, 41, 138), to even.
        assert right[27, 15].tolist() == [116, 148, 196]
        np.testing.assert_array_equal(right[20:24], left[20:24])
        assert tuple(right[36, 30].tolist()) in HATCH

    def test_a_mask_file_gives_the_same_as_its_codes(self, scene, tmp_path):
        path = write(tmp_path / "mask.tif", self.codes()[None], ["mask"], nodata=255)
        quicklook(scene, path, tmp_path / "a.png", side=30)
        quicklook(scene, self.codes(), tmp_path / "b.png", side=30)
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
        assert read_png(tmp_path / "a.png").shape == (20, 30 + 8 + 30, 3)

    def test_leaves_nothing_else(self, scene, tmp_path):
        out = tmp_path / "out"
        out.mkdir()
        quicklook(scene, self.codes(), out / "look.png")
        assert [path.name for path in out.iterdir()] == ["look.png"]

    def test_refuses_a_mask_of_another_size(self, scene, tmp_path):
        with pytest.raises(SceneError, match=r"\(40, 60\), the mask \(40, 59\)"):
            quicklook(scene, self.codes()[:, 1:], tmp_path / "look.png")

    def test_a_mask_that_is_not_there(self, scene, tmp_path):
        with pytest.raises(SceneError, match=r"gone\.tif"):
            quicklook(scene, tmp_path / "gone.tif", tmp_path / "look.png")

    def test_the_folder_is_made_unless_it_is_a_file(self, scene, tmp_path):
        quicklook(scene, self.codes(), tmp_path / "new" / "look.png")
        with pytest.raises(OutputError, match=r"look\.png is none"):
            quicklook(scene, self.codes(), tmp_path / "new" / "look.png" / "look.png")


class Page(HTMLParser):
    """Cells of the tables, pictures, links, and whether each tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.images, self.links, self.open = [], {}, [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in {"meta", "img"}:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag == "img":
            self.images.setdefault(attrs["alt"], []).append(attrs["src"])
        self.links += [attrs[name] for name in ("href", "src") if name in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data if self.open[-1] != "small" else f" {data}"


@pytest.fixture
def evaluation(tmp_path):
    """Two scenes of 8 x 8 pixels; in the second the indices lack a band."""
    truth = np.zeros((8, 8), np.uint8)
    truth[:, :4] = 1
    truth[0] = 255
    green, other = np.where(truth == 1, 1000, 500), np.where(truth == 1, 100, 3000)
    stack = np.stack([other, green, other, other, other]).astype(np.uint16)
    pairs = []
    for name, bands in {
        "a<b": ["blue", "green", "red", "nir", "swir16"],
        "plain": ["blue", "green", "red", "-", "-"],
    }.items():
        scene = write(tmp_path / f"{name}.tif", stack, bands)
        label = write(tmp_path / f"{name}.label.tif", truth[None], ["hand"], 1.0)
        pairs.append(Pair(open_scene(scene), label))

    def too_much(scene):
        answer = np.where(truth == 255, 0, truth).astype(np.uint8)
        answer[:, 4] = 1
        answer[7] = 2
        return answer

    predictors = {"made & up": too_much} | baselines()
    return compare(predictors, pairs, settings=Settings(block=2, replicates=50))


def test_the_table_holds_the_figures(evaluation):
    header, rows = evaluation_table(evaluation)
    assert header == ("Method", "Scene", *METRICS.values(), "Obscured")
    assert all(len(row) == len(header) for row in rows)
    assert [row[:2] for row in rows[:3]] == [
        ("made & up", "a<b"),
        ("made & up", "plain"),
        ("made & up", "mean of 2"),
    ]
    # Known are 7 rows of 8: 24 hits, 6 false, 4 missed in the obscured row.
    first = dict(zip(header, rows[0], strict=True))
    assert first["IoU"].startswith("0.706 [0.")
    assert first["Precision"] == "0.800"
    assert first["Recall"] == "0.857"
    assert first["Obscured"] == "14.3%"
    assert first["Shore median (m)"] == "10.0"
    assert first["Shore bias (m)"] == "+10.0"
    ndwi = [row for row in rows if row[0] == "NDWI > 0"]
    assert ndwi[0][2] == "1.000 [1.000, 1.000]"
    assert ndwi[1][2:] == ("n/a",) * 12
    assert ndwi[2][1] == "mean of 1 (n/a on 1)"


def test_the_page_holds_the_figures_and_pictures_and_needs_no_network(evaluation, tmp_path):
    evaluation_report(evaluation, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.links
    assert all(link.startswith("data:image/") for link in page.links)
    assert "url(" not in text
    assert "<script" not in text
    assert "<h2>a&lt;b</h2>" in text
    overall = dict(zip(page.rows[0], page.rows[1], strict=True))
    assert overall["Method"] == "made & up"
    assert overall["Scenes"] == "2"
    assert overall["Worst IoU"] == "0.706"
    scene = dict(zip(page.rows[5], page.rows[6], strict=True))
    assert [scene[key] for key in ("TP", "FP", "FN", "TN")] == ["24", "6", "4", "22"]
    assert re.fullmatch(r"0\.706 \[0\.\d{3}, 0\.\d{3}\]", scene["IoU"])
    refused = page.rows[-3]
    assert refused[0] == "NDWI > 0"
    assert "lacks nir" in refused[1]
    titles = ["True colour", "Short-wave infrared", "Truth", "made & up", "Errors"]
    assert {title: len(found) for title, found in page.images.items()} == {
        **dict.fromkeys(titles, 2),
        "Short-wave infrared": 1,
    }


def test_the_error_map_at_known_pixels(evaluation, tmp_path):
    evaluation_report(evaluation, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    data = page.images["Errors"][0].removeprefix("data:image/png;base64,")
    with MemoryFile(base64.b64decode(data, validate=True)) as file:
        image = read_png(file.name)
    assert image.shape == (8, 8, 3)
    expected = {
        (0, 0): (255, 255, 255),
        (3, 1): (33, 102, 172),
        (3, 4): (203, 24, 29),
        (3, 6): (219, 211, 186),
        (7, 1): (115, 85, 30),
        (7, 6): (140, 140, 140),
    }
    assert {place: tuple(image[place].tolist()) for place in expected} == expected


def test_run_writes_a_quicklook_and_replaces_it_only_when_told(tmp_path):
    n = len(default_bands())
    spec = ModelSpec(
        name="tiny",
        architecture=Architecture(options={"encoder_depth": 3, "decoder_channels": [8, 8, 8]}),
        bands=default_bands(),
        classes=("land", "water"),
        normalisation=Normalisation(mean=(-2.5,) * n, std=(1.0,) * n),
        tile=64,
        overlap=16,
    )
    save_model(tmp_path / "tiny.safetensors", spec, build_network(spec))
    stack = np.stack([halves()] * 4)
    scene = str(write(tmp_path / "scene.tif", stack, ["blue", "green", "red", "nir"]))
    out = tmp_path / "out"
    options = ["--model", str(tmp_path / "tiny.safetensors"), "--output", str(out), "--quicklook"]
    found = CliRunner().invoke(app, ["run", scene, *options, "--json"])
    assert found.exit_code == 0, found.output
    picture = out / "scene_quicklook.png"
    assert json.loads(found.stdout)["outputs"]["quicklook"] == str(picture)
    assert read_png(picture).shape == (40, 128, 3)
    for other in out.iterdir():
        if other != picture:
            other.unlink()
    found = CliRunner().invoke(app, ["run", scene, *options])
    assert isinstance(found.exception, OutputError)
    assert "scene_quicklook.png" in str(found.exception)
    assert [path.name for path in out.iterdir()] == ["scene_quicklook.png"]
    assert CliRunner().invoke(app, ["run", scene, *options, "--overwrite", "-q"]).exit_code == 0


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("iou", 0.98765, "0.988"),
        ("shore_p95", 12.34, "12.3"),
        ("shore_bias", 12.34, "+12.3"),
        ("shore_bias", -0.04, "+0.0"),
        ("precision", float("nan"), "-"),
    ],
)
def test_figures_as_text(name, value, text):
    assert _figure(name, value) == text


def test_a_narrow_terminal_gets_the_columns_that_fit(evaluation):
    header, rows = evaluation_table(evaluation)
    needed = sum(max(len(row[i]) for row in (header, *rows)) for i in range(14)) + 2 * 13
    assert fit_columns(header, rows, needed) == (header, rows)
    fewer, shorter = fit_columns(header, rows, needed - 1)
    assert fewer == tuple(title for title in header if title != "Kappa")
    assert [len(row) for row in shorter] == [13] * len(rows)
    least, _ = fit_columns(header, rows, 10)
    assert least == ("Method", "Scene", "IoU", "Obscured")

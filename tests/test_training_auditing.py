import json
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from matplotlib import image

from geounet.errors import ConfigError
from geounet.training.auditing import audit, best_shift

SAMPLE = Path(__file__).parents[1] / "sample_data"
LAYOUT = {"blockxsize", "blockysize", "tiled", "driver", "interleave"}
AREA = rasterio.windows.Window(150, 150, 400, 300)


def cut(path, source, change=None):
    """A part of a sample file, changed."""
    with rasterio.open(source) as file:
        data = file.read(window=AREA)
        profile = {k: v for k, v in file.profile.items() if k not in LAYOUT}
        profile |= {"width": 400, "height": 300}
        names, scales = file.descriptions, file.scales
    with rasterio.open(path, "w", **profile) as file:
        file.write(data if change is None else change(data))
        file.scales = scales
        for i, name in enumerate(names, start=1):
            if name:
                file.set_band_description(i, name)


def folder(tmp_path, **changes):
    for name, change in changes.items():
        cut(tmp_path / f"{name}.tif", SAMPLE / "scene.tif")
        cut(tmp_path / f"{name}.label.tif", SAMPLE / "truth_mask.tif", change)
    return tmp_path


def swap(label):
    return np.where(label == 255, 255, 1 - label).astype(np.uint8)


def shift(label):
    return np.roll(label, (-3, 5), (1, 2))


def forget(label):
    label = label.copy()
    label[:, 100:] = 255
    return label


def test_what_is_wrong_with_labels_is_named(tmp_path):
    found = audit(
        folder(
            tmp_path, good=None, swapped=swap, shifted=shift, unknown=forget,
            strange=lambda d: d + 7, land=lambda d: d * 0, empty=lambda d: d * 0 + 255,
            counted=lambda d: np.where(d == 255, 255, d + 1).astype(np.uint8),
        ),
        sheet=tmp_path / "sheet.png",
    )  # fmt: skip
    checks = {check.scene: check for check in found.checks}
    good = checks["good"]
    assert good.remarks == ()
    assert good.size == (400, 300)
    assert good.mndwi > 0.9
    assert good.correlation > 0.8
    assert good.shift == (0, 0)
    with rasterio.open(tmp_path / "good.label.tif") as file:
        label = file.read(1)
    assert good.water == pytest.approx((label == 1).sum() / (label != 255).sum())
    assert "classes look swapped" in checks["swapped"].remarks
    assert checks["swapped"].mndwi == pytest.approx(1 - good.mndwi)
    assert checks["shifted"].shift == (-5, 3)
    assert "labels look (-5, 3) pixels (columns, rows) off" in checks["shifted"].remarks
    assert checks["unknown"].unknown == pytest.approx(2 / 3)
    assert "67% unknown" in checks["unknown"].remarks
    assert "one class only" in checks["land"].remarks
    assert checks["empty"].remarks == ("no labelled pixel",)
    assert "cannot be used: each label must be of a class" in checks["strange"].remarks[0]
    assert checks["counted"].water == pytest.approx(1 - good.water)
    assert checks["counted"].land == 0
    assert checks["counted"].remarks[0].startswith("no land: do the numbers mean")
    assert {d["scene"] for d in json.loads(json.dumps(found.as_dict()))["scenes"]} == set(checks)
    sheet = image.imread(tmp_path / "sheet.png")
    assert sheet.shape[1] == 1440
    assert sheet.std() > 0.1


def test_radiometry_that_pixels_contradict_is_among_the_remarks(tmp_path):
    """1000 that was left in: taken out where tags are doubtful, else the scene is refused."""
    folder(tmp_path, clean=None, doubtful=None, sure=None)
    for name in ("doubtful", "sure"):
        with rasterio.open(tmp_path / f"{name}.tif", "r+") as file:
            data = file.read()
            file.write(np.where(data > 0, data + 1000, 0).astype(data.dtype))
            file.update_tags(SENSOR="sentinel-2", UNITS="reflectance x 10000, no offset")
            if name == "doubtful":
                file.scales = (1.0,) * file.count
    clean, doubtful, sure = audit(tmp_path).checks
    assert clean.remarks == ()
    assert (doubtful.ndwi, doubtful.mndwi) == (clean.ndwi, clean.mndwi)
    assert doubtful.remarks[0].startswith("the darkest pixels are near 0.1")
    assert "offset -0.1 is taken instead" in doubtful.remarks[0]
    assert re.match("cannot be used: .*/sure.tif: the darkest pixels", sure.remarks[0])


def test_a_broken_scene_does_not_keep_the_others_from_being_looked_at(tmp_path):
    folder(tmp_path, broken=None, good=None)
    (tmp_path / "broken.tif").write_bytes(b"II*")
    steps = []
    found = audit(tmp_path, sheet=tmp_path / "s.png", on_progress=steps.append)
    assert [(check.scene, check.size) for check in found.checks] == [
        ("broken", (0, 0)), ("good", (400, 300))
    ]  # fmt: skip
    assert found.checks[0].remarks[0].startswith("cannot be used: a scene must be a raster")
    assert [(at.done, at.total) for at in steps] == [(2, 2)]


def test_progress_and_an_empty_folder(tmp_path):
    with pytest.raises(ConfigError, match="no labelled scene"):
        audit(tmp_path)
    steps = []
    audit(folder(tmp_path, a=None), on_progress=lambda at: steps.append((at.done, at.total)))
    assert steps == [(1, 1)]


@pytest.mark.parametrize("moved", [(0, 0), (4, -7), (-12, 12)])
def test_shifts_are_found_where_both_count(moved):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(120, 150))
    smooth = sum(np.roll(noise, (i, j), (0, 1)) for i in range(6) for j in range(6))
    label = (smooth > 0).astype(np.float32)
    image = np.roll(label, (moved[1], moved[0]), (0, 1)) + 0.1 * rng.normal(size=label.shape)
    seen, known = np.ones(label.shape, bool), np.ones(label.shape, bool)
    seen[:, :30], known[90:] = False, False
    assert best_shift(image.astype(np.float32), seen, label, known) == moved


def test_nothing_in_common_has_no_shift():
    rng = np.random.default_rng(0)
    image, label = rng.normal(size=(2, 64, 64)).astype(np.float32)
    everywhere = np.ones((64, 64), bool)
    assert best_shift(image, everywhere, (label > 0).astype(np.float32), everywhere) is None

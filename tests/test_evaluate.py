"""Figures against hand-worked cases, brute force and analytic intervals."""

from __future__ import annotations

import json
import math
import runpy
import sys
from itertools import product
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from typer.testing import CliRunner

from geounet.cli import app
from geounet.errors import ConfigError, GeounetWarning, OutputError, SceneError
from geounet.evaluate import (
    METRICS,
    Confusion,
    Settings,
    baselines,
    boundary_band,
    compare,
    confusion,
    evaluate,
    mndwi_mask,
    ndwi_mask,
    otsu_mask,
    otsu_threshold,
    pixel_size,
    read_truth,
    restrict_bands,
    score_mask,
    shore_offsets,
)
from geounet.labels import LabelRules, Pair, find_pairs
from geounet.model import Architecture, Model, ModelSpec, Normalisation, default_bands, save_model
from geounet.pipeline import predict_mask
from geounet.scene import Grid, open_scene
from geounet.segmenter import build_network

UTM = CRS.from_epsg(32631)
TEN_METRES = Affine(10, 0, 500_000, 0, -10, 5_000_000)


def mask(*rows: str) -> np.ndarray:
    """Codes from text: ``.`` land, ``w`` water, ``o`` obscured, ``?`` unknown."""
    codes = {".": 0, "w": 1, "o": 2, "?": 255}
    return np.array([[codes[c] for c in row] for row in rows], np.uint8)


def shore_at(col: int, shape=(6, 20)) -> np.ndarray:
    """Water left of a column."""
    codes = np.zeros(shape, np.uint8)
    codes[:, :col] = 1
    return codes


def write(path, array, names, *, scale=1e-4, offset=0.0, transform=TEN_METRES, nodata=None):
    array = np.asarray(array)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(array),
        height=array.shape[1],
        width=array.shape[2],
        dtype=array.dtype,
        crs=UTM,
        transform=transform,
        nodata=nodata,
    ) as out:
        out.write(array)
        out.descriptions = names
        out.scales = (scale,) * len(array)
        out.offsets = (offset,) * len(array)
    return path


def write_pair(folder, name, truth, *, bands=("green", "nir", "swir16"), **label):
    """A scene that every index maps exactly as ``truth`` (255 counts as land), and its label."""
    water = np.asarray(truth) == 1
    green = np.where(water, 1000, 500)
    other = np.where(water, 100, 3000)
    stack = [green if band in {"green", "B03"} else other for band in bands]
    scene = write(folder / f"{name}.tif", np.array(stack, np.uint16), bands)
    labels = write(folder / f"{name}.label.tif", truth[None], ["consensus"], scale=1.0, **label)
    return Pair(open_scene(scene), labels)


class TestConfusion:
    def test_counts_each_combination_once(self):
        truth = mask(".w?w.w.w?.")
        answer = mask(".ww.wo??oo")
        assert confusion(truth, answer) == Confusion(
            tp=1, fp=1, fn=2, tn=2, obscured=2, unobserved=2
        )

    def test_ratios_by_hand(self):
        # Cohen's kappa: observed 35/50, by chance (30 * 25 + 20 * 25) / 50^2 = 0.5.
        counts = Confusion(tp=20, fp=10, fn=5, tn=15)
        assert counts.judged == 50
        assert counts.iou == pytest.approx(20 / 35, abs=1e-15)
        assert counts.f1 == pytest.approx(40 / 55, abs=1e-15)
        assert counts.precision == pytest.approx(20 / 30, abs=1e-15)
        assert counts.recall == pytest.approx(20 / 25, abs=1e-15)
        assert counts.accuracy == pytest.approx(0.7, abs=1e-15)
        assert counts.kappa == pytest.approx(0.4, abs=1e-15)

    def test_adds_up(self):
        total = Confusion(1, 2, 3, 4, 5, 6) + Confusion(10, 20, 30, 40, 50, 60)
        assert total == Confusion(11, 22, 33, 44, 55, 66)

    @pytest.mark.parametrize(
        ("counts", "iou", "precision", "recall", "accuracy", "kappa"),
        [
            (Confusion(tn=9), 1, math.nan, math.nan, 1, 1),
            (Confusion(tp=9), 1, 1, 1, 1, 1),
            (Confusion(fp=1, tn=9), 0, 0, math.nan, 0.9, 0),
            (Confusion(fn=1, tn=9), 0, math.nan, 0, 0.9, 0),
            (Confusion(unobserved=5), *[math.nan] * 5),
        ],
        ids=["no water at all", "water only", "none to find", "none found", "nothing judged"],
    )
    def test_nothing_to_speak_of(self, counts, iou, precision, recall, accuracy, kappa):
        found = [counts.iou, counts.precision, counts.recall, counts.accuracy, counts.kappa]
        assert found == pytest.approx([iou, precision, recall, accuracy, kappa], nan_ok=True)
        assert counts.f1 == pytest.approx(iou, nan_ok=True)

    def test_obscured_share(self):
        assert confusion(mask("w..."), mask("oo..")).obscured_share == 0.5
        assert math.isnan(confusion(mask("?"), mask("o")).obscured_share)

    @pytest.mark.parametrize(
        ("truth", "answer", "said"),
        [
            (mask("w."), mask("w"), r"\(1, 2\) and \(1, 1\)"),
            (mask("wo"), mask("ww"), r"truth .* \[2\]"),
            (mask("ww"), np.array([[1, 7]], np.uint8), r"a mask .* \[7\]"),
        ],
    )
    def test_refuses(self, truth, answer, said):
        with pytest.raises(ConfigError, match=said):
            confusion(truth, answer)


class TestBoundary:
    def test_ring_by_hand(self):
        water = np.zeros((9, 9), bool)
        water[2:7, 2:7] = True
        known = np.ones_like(water)
        assert boundary_band(water, known, 1).sum() == 16
        assert boundary_band(water, known, 2).sum() == 24
        assert not boundary_band(water, known, 2)[4, 4]

    def test_frame_and_unknown_pixels_are_no_shore(self):
        water, known = np.ones((4, 6), bool), np.ones((4, 6), bool)
        assert not boundary_band(water, known).any()
        water[:, 4:] = False
        known[:, 4:] = False
        assert not boundary_band(water, known).any()
        known[:, 5] = True
        band = boundary_band(water, known, 2)
        assert band[:, 3].all()
        assert band.sum() == 4

    @pytest.mark.parametrize("distance", [1, 2, 3])
    def test_is_the_published_one_away_from_the_frame(self, distance):
        """Mask minus its erosion by a 3 x 3 square, ``distance`` times (Cheng et al. 2021)."""
        rng = np.random.default_rng(distance)
        water = np.zeros((40, 44), bool)
        water[4:-4, 4:-4] = rng.random((32, 36)) < 0.97
        eroded = water.copy()
        for _ in range(distance):
            padded = np.pad(eroded, 1)
            shifts = product(range(3), range(3))
            eroded = np.all([padded[i : i + 40, j : j + 44] for i, j in shifts], axis=0)
        expected = water & ~eroded
        assert 0 < expected.sum() < water.sum()
        np.testing.assert_array_equal(boundary_band(water, np.ones_like(water), distance), expected)

    @pytest.mark.parametrize(("thickness", "expected"), [(1, 0), (2, 1 / 3), (3, 0.5)])
    def test_iou_of_a_shore_one_pixel_off(self, thickness, expected):
        found = score_mask(shore_at(5), shore_at(6), settings=Settings(boundary=thickness))
        assert found.metrics["boundary_iou"].value == pytest.approx(expected)
        assert found.boundary == (6 * (thickness - 1), 6 * (thickness + 1))

    def test_agreeing_on_no_boundary_is_1(self):
        everywhere = np.ones((4, 4), np.uint8)
        assert score_mask(everywhere, everywhere).metrics["boundary_iou"].value == 1

    def test_refuses_no_thickness(self):
        with pytest.raises(ConfigError, match="at least 1 pixel; got 0"):
            boundary_band(np.ones((2, 2), bool), np.ones((2, 2), bool), 0)


class TestShoreline:
    @pytest.mark.parametrize("shift", [-4, -1, 0, 1, 3])
    def test_a_shifted_straight_shore_is_exact(self, shift):
        truth, answer = shore_at(9), shore_at(9 + shift)
        expected = {
            "shore_mean": abs(shift) * 10.0,
            "shore_median": abs(shift) * 10.0,
            "shore_p95": abs(shift) * 10.0,
            "shore_bias": shift * 10.0,
        }
        assert shore_offsets(truth, answer, (20.0, 10.0)).summary() == expected
        assert shore_offsets(truth.T, answer.T, (10.0, 20.0)).summary() == expected

    def test_counts_both_lines_and_leaves_out_what_is_not_known(self):
        truth, answer = shore_at(9), shore_at(11)
        assert len(shore_offsets(truth, answer).metres) == 12
        truth[0], answer[1], answer[2] = 255, 2, 255
        assert len(shore_offsets(truth, answer).metres) == 6

    def test_obscured_water_is_no_shore(self):
        truth, answer = mask("wwww...."), mask("wwoo....")
        assert math.isnan(shore_offsets(truth, answer).summary()["shore_mean"])

    @pytest.mark.parametrize(
        ("truth", "answer"), [("wwww", "ww.."), ("ww..", "...."), ("??", "w.")]
    )
    def test_a_missing_line_gives_nan(self, truth, answer):
        values = shore_offsets(mask(truth), mask(answer)).summary()
        assert len(values) == 4
        assert all(math.isnan(value) for value in values.values())

    def test_false_water_on_land_is_a_positive_bias_and_a_hole_a_negative_one(self):
        truth = shore_at(9, (9, 24))
        puddle, hole = truth.copy(), truth.copy()
        puddle[4, 18] = 1
        hole[4, 2] = 0
        assert shore_offsets(truth, puddle).summary()["shore_bias"] > 0
        assert shore_offsets(truth, hole).summary()["shore_bias"] < 0

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 2**32 - 1))
    def test_is_the_exact_distance_between_segments(self, seed):
        rng = np.random.default_rng(seed)
        truth, answer = (rng.random((2, 7, 8)) < 0.5).astype(np.uint8)
        size = (3.0, 2.0)
        lines = [_brute_edges(image, size) for image in (truth, answer)]
        expected = [
            min(_to_segment(middle, segment) for segment in other)
            for own, other in (lines, lines[::-1])
            for middle in (np.mean(segment, axis=0) for segment in own)
            if other
        ]
        found = np.abs(shore_offsets(truth, answer, size).metres)
        np.testing.assert_allclose(np.sort(found), np.sort(expected), atol=1e-5)

    def test_resampling_is_repeating(self):
        rng = np.random.default_rng(5)
        truth, answer = (rng.random((2, 20, 20)) < 0.5).astype(np.uint8)
        offsets = shore_offsets(truth, answer)
        weights = rng.integers(0, 4, len(offsets.metres))
        again = np.repeat(np.arange(len(weights)), weights)
        repeated = type(offsets)(offsets.metres[again], offsets.row[again], offsets.col[again])
        found = offsets.resample(np.arange(len(weights)), weights[None])
        assert found[0] == pytest.approx(list(repeated.summary().values()), rel=1e-12)

    def test_quantiles_by_hand(self):
        offsets = shore_offsets(shore_at(3), shore_at(4))
        metres = np.arange(1, 21, dtype=np.float32)
        made = type(offsets)(metres, np.zeros(20, np.int32), np.zeros(20, np.int32))
        assert made.summary() == {
            "shore_mean": 10.5,
            "shore_median": 10.0,
            "shore_p95": 19.0,
            "shore_bias": 10.5,
        }


def _brute_edges(image, size):
    """Both ends (y, x) of each pixel edge between water and land, by looking at each pixel."""
    height, width = image.shape
    found = []
    for r, c in product(range(height), range(width)):
        if r + 1 < height and image[r, c] != image[r + 1, c]:
            found.append(np.array([(r + 1, c), (r + 1, c + 1)]) * size)
        if c + 1 < width and image[r, c] != image[r, c + 1]:
            found.append(np.array([(r, c + 1), (r + 1, c + 1)]) * size)
    return found


def _to_segment(point, segment):
    a, b = segment
    t = np.clip(np.dot(point - a, b - a) / np.dot(b - a, b - a), 0, 1)
    return float(np.linalg.norm(point - a - t * (b - a)))


class TestIntervals:
    def test_is_seeded(self):
        rng = np.random.default_rng(1)
        truth, answer = (rng.random((2, 64, 64)) < 0.5).astype(np.uint8)
        first, again, other = (
            score_mask(truth, answer, settings=Settings(block=8, replicates=200, seed=seed))
            for seed in (3, 3, 4)
        )
        assert set(first.metrics) == set(METRICS)
        assert first.metrics == again.metrics
        for name in METRICS:
            a, b = first.metrics[name], other.metrics[name]
            assert a.value == b.value
            assert a.low <= a.value <= a.high
            assert (a.low, a.high) != (b.low, b.high) or name in {"shore_median", "shore_p95"}

    def test_has_the_width_that_theory_gives(self):
        """256 blocks, each all right or all wrong: the accuracy is a binomial share."""
        wrong = np.random.default_rng(0).random((16, 16)) < 0.3
        truth = np.zeros((64, 64), np.uint8)
        answer = np.kron(wrong, np.ones((4, 4))).astype(np.uint8)
        found = score_mask(truth, answer, settings=Settings(block=4, replicates=4000)).metrics
        share = 1 - wrong.mean()
        half = 1.96 * math.sqrt(share * (1 - share) / 256)
        assert found["accuracy"].value == pytest.approx(share)
        assert found["accuracy"].low == pytest.approx(share - half, abs=0.08 * half)
        assert found["accuracy"].high == pytest.approx(share + half, abs=0.08 * half)

    def test_equal_blocks_leave_no_doubt(self):
        truth = np.tile(mask("w.", ".w"), (4, 4))
        answer = np.tile(mask("w.", "ww"), (4, 4))
        found = score_mask(truth, answer, settings=Settings(block=2, replicates=50)).metrics
        for name, value in {"iou": 2 / 3, "accuracy": 0.75, "recall": 1.0}.items():
            estimate = found[name]
            assert [estimate.value, estimate.low, estimate.high] == pytest.approx([value] * 3)

    def test_blocks_are_sixteen_across_at_most(self):
        rng = np.random.default_rng(0)
        truth, answer = (rng.random((2, 64, 64)) < 0.5).astype(np.uint8)
        small, right = (score_mask(truth, answer, settings=Settings(block=n)) for n in (1, 4))
        assert small.metrics == right.metrics

    def test_one_block_gives_no_interval(self):
        estimate = score_mask(shore_at(9), shore_at(8)).metrics["iou"]
        assert estimate.value == pytest.approx(8 / 9)
        assert math.isnan(estimate.low)
        assert math.isnan(estimate.high)

    def test_counts_by_block_add_up_to_the_whole(self):
        rng = np.random.default_rng(2)
        truth = rng.choice([0, 1, 255], (50, 70)).astype(np.uint8)
        answer = rng.choice([0, 1, 2, 255], (50, 70)).astype(np.uint8)
        small = score_mask(truth, answer, settings=Settings(block=9, replicates=2))
        assert small.confusion == confusion(truth, answer)
        assert small.boundary == score_mask(truth, answer).boundary

    def test_unknown_blocks_are_not_drawn(self):
        """Unknown surroundings change nothing, not even the draws."""
        rng = np.random.default_rng(7)
        truth, answer = (rng.random((2, 16, 16)) < 0.5).astype(np.uint8)
        wide = np.pad(truth, ((0, 16), (0, 0)), constant_values=255)
        picked = Settings(block=8, replicates=100)
        assert (
            score_mask(wide, np.pad(answer, ((0, 16), (0, 0))), settings=picked).metrics
            == score_mask(truth, answer, settings=picked).metrics
        )

    def test_nothing_judged_is_nan(self):
        found = score_mask(mask("??", "??"), mask("w.", "..")).metrics
        assert set(found) == set(METRICS)
        assert all(math.isnan(estimate.value) for estimate in found.values())

    @pytest.mark.parametrize("wrong", [{"block": 0}, {"confidence": 1.0}, {"replicates": 0}])
    def test_refuses_settings(self, wrong):
        with pytest.raises(ConfigError, match="confidence between 0 and 1"):
            Settings(**wrong)


class TestOtsu:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(0, 50), min_size=2, max_size=24))
    def test_leaves_the_least_variance_within_the_sides(self, counts):
        counts = np.array(counts)
        if np.count_nonzero(counts) < 2:
            return
        edges = np.linspace(-1, 1, len(counts) + 1)
        centres = (edges[:-1] + edges[1:]) / 2
        values = np.repeat(centres, counts)
        within = {}
        for edge in edges[1:-1]:
            low, high = values[values < edge], values[values > edge]
            if low.size and high.size:
                within[edge] = low.var() * low.size + high.var() * high.size
        best = [edge for edge, spread in within.items() if spread <= min(within.values()) + 1e-9]
        assert otsu_threshold(counts, edges) == pytest.approx((best[0] + best[-1]) / 2)

    def test_parts_two_modes_in_the_middle_of_the_gap(self):
        assert otsu_threshold(np.array([5, 5, 0, 0, 4, 4]), np.arange(7.0)) == 3.0


class TestBaselines:
    def test_on_a_made_raster(self, tmp_path):
        """Reflectance is number / 10000 - 0.1; the last pixel was not observed."""
        green = [1800, 1800, 1300, 1500, 1000, 0]
        nir = [1100, 2600, 1400, 1200, 1000, 0]
        swir = [1050, 1100, 1290, 3000, 1000, 0]
        path = write(
            tmp_path / "made.tif",
            np.array([green, nir, swir], np.uint16)[:, None],
            ["green", "nir", "swir16"],
            offset=-0.1,
        )
        scene = open_scene(path)
        np.testing.assert_array_equal(ndwi_mask(scene), [[1, 0, 0, 1, 0, 255]])
        np.testing.assert_array_equal(mndwi_mask(scene), [[1, 1, 1, 0, 0, 255]])
        # MNDWI is 0.88, 0.78, 0.02, -0.6 and 0: Otsu parts the first two from the rest.
        np.testing.assert_array_equal(otsu_mask(scene), [[1, 1, 0, 0, 0, 255]])

    def test_strips_fit_together(self, tmp_path):
        truth = (np.random.default_rng(0).random((1100, 5)) < 0.5).astype(np.uint8)
        scene = write_pair(tmp_path, "tall", truth).scene
        for predict in baselines().values():
            np.testing.assert_array_equal(predict(scene), truth)

    def test_a_narrow_near_infrared_stands_in(self, tmp_path):
        truth = mask("ww..")
        scene = write_pair(tmp_path, "landsat", truth, bands=("green", "nir08", "swir16")).scene
        np.testing.assert_array_equal(ndwi_mask(scene), truth)

    def test_a_missing_band_is_named(self, tmp_path):
        scene = write_pair(tmp_path, "visible", mask("w."), bands=("blue", "green", "red")).scene
        with pytest.raises(SceneError, match="lacks nir"):
            ndwi_mask(scene)
        with pytest.raises(SceneError, match="lacks swir16"):
            otsu_mask(scene)

    def test_otsu_needs_contrast(self, tmp_path):
        scene = write_pair(tmp_path, "flat", mask("www")).scene
        with pytest.raises(SceneError, match="varies"):
            otsu_mask(scene)


class TestBandPatterns:
    BANDS = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")

    def scene(self, tmp_path, bands):
        return write_pair(tmp_path, "s", mask("w."), bands=bands).scene

    def test_drops_by_name(self, tmp_path):
        scene = self.scene(tmp_path, self.BANDS)
        six = ("blue", "green", "red", "nir", "-", "swir16", "swir22")
        assert restrict_bands(scene, "6").bands == six
        assert restrict_bands(scene, "4").bands == (*six[:4], "-", "-", "-")

    def test_nir08_stands_in_for_nir(self, tmp_path):
        scene = self.scene(tmp_path, ("B02", "B03", "B04", "B8A", "B11", "B12"))
        assert "nir08" in restrict_bands(scene, "4").bands

    def test_refuses(self, tmp_path):
        scene = self.scene(tmp_path, self.BANDS)
        with pytest.raises(SceneError, match="lacks rededge071, rededge075, rededge078 of the 10"):
            restrict_bands(scene, "10")
        with pytest.raises(ConfigError, match="'5'"):
            restrict_bands(scene, "5")


class TestPixelSize:
    def test_without_a_crs_units_are_metres(self):
        assert pixel_size(Grid(None, Affine(30, 0, 7, 0, -20, 9), 5, 4)) == (20.0, 30.0)

    def test_on_the_ellipsoid(self):
        """One degree at the equator: 110.574 km by 111.320 km (WGS 84)."""
        step = 1e-4
        grid = Grid(CRS.from_epsg(4326), Affine(step, 0, 10, 0, -step, step), 2, 2)
        assert pixel_size(grid) == pytest.approx((11.0574, 11.1320), abs=1e-3)

    def test_a_local_crs_is_flat_in_its_own_units(self):
        feet = 'LOCAL_CS["site",UNIT["foot",0.3048],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
        grid = Grid(CRS.from_wkt(feet), Affine(100, 0, 0, 0, -50, 0), 2, 2)
        assert pixel_size(grid) == pytest.approx((15.24, 30.48))

    def test_utm_scale_factor(self):
        """0.9996 on the central meridian."""
        grid = Grid(UTM, TEN_METRES, 2, 2)
        assert pixel_size(grid) == pytest.approx((10 / 0.9996,) * 2, abs=1e-4)

    def test_a_crs_whose_longitudes_are_in_grads(self):
        """NTF (Paris) / Lambert zone II: 0.99987742 on the standard parallel."""
        grid = Grid(CRS.from_epsg(27572), Affine(10, 0, 6e5, 0, -10, 22e5), 2, 2)
        assert pixel_size(grid) == pytest.approx((10 / 0.99987742,) * 2, abs=1e-5)


class TestTruth:
    def test_reads_codes_in_strips(self, tmp_path):
        label = np.random.default_rng(0).choice([0, 1, 2, 255], (1100, 3)).astype(np.uint8)
        truth = read_truth(write_pair(tmp_path, "tall", label))
        np.testing.assert_array_equal(truth, np.where(label == 2, 255, label))

    def test_takes_the_band_that_is_told(self, tmp_path):
        pair = write_pair(tmp_path, "a", mask("w..."))
        both = np.stack([mask("w..."), mask("wwo?")])
        write(pair.label, both, ["consensus", "hand"], scale=1.0)
        everything = {"all": lambda scene: np.ones(scene.grid.shape, np.uint8)}
        for band, expected in {
            None: Confusion(tp=2),
            "hand": Confusion(tp=2),
            "consensus": Confusion(tp=1, fp=3),
            1: Confusion(tp=1, fp=3),
        }.items():
            found = compare(everything, [pair], settings=Settings(labels=LabelRules(band=band)))
            assert found.confusion("all") == expected

    def test_burns_polygons(self, tmp_path):
        """A square that covers the pixels of columns 1 and 2 is water."""
        pair = write_pair(tmp_path, "a", mask("....", "...."))
        pair.label.unlink()
        square = shapely.box(500_010, 4_999_980, 500_030, 5_000_000)
        frame = geopandas.GeoDataFrame(geometry=[square], crs=UTM)
        frame.to_file(tmp_path / "a.geojson")
        (found,) = find_pairs([tmp_path])
        np.testing.assert_array_equal(read_truth(found), mask(".ww.", ".ww."))

    def test_refuses_a_label_without_a_known_pixel(self, tmp_path):
        with pytest.raises(SceneError, match="a known pixel"):
            read_truth(write_pair(tmp_path, "a", mask("?oo")))

    def test_refuses_other_codes(self, tmp_path):
        with pytest.raises(SceneError, match="holds 7"):
            read_truth(write_pair(tmp_path, "a", np.array([[0, 1, 7, 7]], np.uint8)))


class TestCompare:
    def folder(self, tmp_path):
        """Two scenes; a land answer has IoU 0 on both, a water answer 0.5 and 0.25."""
        write_pair(tmp_path, "a", mask("ww.."))
        write_pair(tmp_path, "b", mask("w..."), bands=("blue", "green", "red"))
        return find_pairs([tmp_path])

    def test_means_worst_and_pool_by_hand(self, tmp_path):
        water = {"water": lambda scene: np.ones(scene.grid.shape, np.uint8)}
        found = compare(water, self.folder(tmp_path), settings=Settings(replicates=200))
        mean, pooled = found.mean("water")["iou"], found.pooled("water")["iou"]
        assert (mean.value, mean.low, mean.high) == (0.375, 0.25, 0.5)
        assert (pooled.value, pooled.low, pooled.high) == (0.375, 0.25, 0.5)
        assert found.worst("water") == 0.25
        assert found.confusion("water") == Confusion(tp=3, fp=5)
        assert found.scenes == ("a", "b")

    def test_a_method_that_does_not_apply_is_said_to(self, tmp_path):
        found = compare(
            {"land": lambda scene: np.zeros(scene.grid.shape, np.uint8)} | baselines(),
            self.folder(tmp_path),
        )
        assert found.methods == ("land", "NDWI > 0", "MNDWI > 0", "Otsu on MNDWI")
        scored, refused = found.of("NDWI > 0")
        assert scored.score.confusion == Confusion(tp=2, tn=2)
        assert refused.score is None
        assert "lacks nir" in refused.note
        assert found.mean("NDWI > 0")["iou"].value == 1.0
        record = json.loads(json.dumps(found.as_dict(), allow_nan=False))
        ndwi = record["methods"]["NDWI > 0"]
        assert ndwi["scenes_scored"] == 1
        assert "lacks nir" in ndwi["scenes"]["b"]["not_applicable"]
        assert ndwi["scenes"]["a"]["metrics"]["iou"] == {"value": 1.0, "low": None, "high": None}
        assert record["methods"]["land"]["scenes"]["a"]["metrics"]["precision"]["value"] is None

    def test_the_judged_method_must_apply_somewhere(self, tmp_path):
        def refuse(scene):
            raise SceneError(f"not {scene.stem}")

        with pytest.raises(SceneError, match="a: not a; b: not b"):
            compare({"never": refuse}, self.folder(tmp_path))

    def test_a_scene_whose_truth_is_unknown_is_left_out(self, tmp_path):
        pairs = (write_pair(tmp_path, "c", mask("?o??")), *self.folder(tmp_path))
        water, seen = {"water": lambda scene: np.ones(scene.grid.shape, np.uint8)}, []
        with pytest.warns(GeounetWarning, match=r"pixel; \S+c\.label\.tif has none\. It is left"):
            found = compare(water, pairs, on_progress=seen.append)
        assert (found.scenes, seen[-1].done) == (("a", "b"), 3)
        with pytest.raises(SceneError, match="a known pixel"):
            compare(water, pairs[:1])

    def test_progress_counts_every_mask(self, tmp_path):
        seen = []
        compare(baselines() | {"no": mndwi_mask}, self.folder(tmp_path), on_progress=seen.append)
        assert [(at.done, at.total) for at in seen] == [(i, 8) for i in range(1, 9)]
        assert [at.scene for at in seen] == ["a"] * 4 + ["b"] * 4

    def test_a_scene_that_cannot_be_read_is_said_and_the_rest_judged(self, tmp_path):
        pairs = self.folder(tmp_path)
        Path(pairs[0].scene.uri).unlink()
        land = {"land": lambda scene: np.zeros(scene.grid.shape, np.uint8)}
        found = compare(land | baselines(), pairs)
        gone, _ = found.of("MNDWI > 0")
        assert gone.score is None
        assert "a.tif" in gone.note

    def test_views_are_thinned_for_pictures(self, tmp_path):
        truth = np.zeros((2000, 1300), np.uint8)
        truth[1000:] = 1
        write_pair(tmp_path, "big", truth)
        found = compare(baselines(), find_pairs([tmp_path]), settings=Settings(replicates=2))
        (view,) = found.views
        assert view.truth.shape == (500, 325)
        np.testing.assert_array_equal(view.truth, np.repeat([0, 1], 250)[:, None] * np.ones(325))
        np.testing.assert_array_equal(view.prediction, view.truth)


def _tiny_model() -> Model:
    n = len(default_bands())
    spec = ModelSpec(
        name="tiny",
        architecture=Architecture(
            options={"encoder_depth": 3, "decoder_channels": [8, 8, 8]},
        ),
        bands=default_bands(),
        classes=("land", "water", "obscured"),
        normalisation=Normalisation(mean=(-2.5,) * n, std=(1.0,) * n),
        tile=64,
        overlap=16,
    )
    return Model(spec, build_network(spec).eval(), "digest")


def test_evaluate_judges_the_masks_that_a_run_would_write(tmp_path):
    rng = np.random.default_rng(0)
    truth = (rng.random((70, 80)) < 0.5).astype(np.uint8)
    bands = ("B02", "B03", "B04", "B08", "B11", "B12")
    pair = write_pair(tmp_path, "a", truth, bands=bands)
    model = _tiny_model()
    found = evaluate(model, tmp_path, band_patterns=["12", "4"], device="cpu")
    assert found.methods[:3] == ("tiny", "tiny, 12 bands", "tiny, 4 bands")
    assert (found.model, found.model_sha256) == ("tiny 0", "digest")
    scene = pair.scene
    assert found.confusion("tiny") == confusion(truth, predict_mask(scene, model))
    four = predict_mask(restrict_bands(scene, "4"), model)
    assert found.confusion("tiny, 4 bands") == confusion(truth, four)
    assert found.of("tiny, 12 bands")[0].score is None
    assert found.confusion("MNDWI > 0").iou == 1.0
    np.testing.assert_array_equal(found.views[0].prediction, predict_mask(scene, model))
    save_model(tmp_path / "tiny.safetensors", model.spec, model.network)
    assert evaluate(tmp_path / "tiny.safetensors", [pair], device="cpu").scenes == ("a",)


def test_model_and_baselines_see_what_the_pixels_bear_out(tmp_path, monkeypatch):
    """1000 that was left in against the tags is taken out for all of them."""
    bands = ("B02", "B03", "B04", "B08", "B11", "B12")
    truth = (np.random.default_rng(0).random((70, 80)) < 0.5).astype(np.uint8)
    for name, added in (("clean", 0), ("left", 1000)):
        pair = write_pair(tmp_path, name, truth, bands=bands)
        with rasterio.open(tmp_path / f"{name}.tif", "r+") as file:
            file.write(file.read() + np.uint16(added))
            file.scales = (1.0,) * len(bands)
            file.update_tags(SENSOR="sentinel-2", UNITS="reflectance x 10000, no offset")
    seen = []
    module = sys.modules["geounet.evaluate"]
    monkeypatch.setattr(module, "otsu_mask", lambda s: seen.append(s.radiometry) or otsu_mask(s))
    with pytest.warns(GeounetWarning, match="darkest pixels") as said:
        found = evaluate(_tiny_model(), tmp_path, device="cpu")
    assert [str(one.message).split(":")[0] for one in said] == [pair.scene.uri]
    for method in found.methods:
        clean, left = (score.score.confusion for score in found.of(method))
        assert clean == left
    assert [radiometry.offset[0] for radiometry in seen] == [0.0, -0.1]


def test_evaluate_refuses_an_unknown_pattern(tmp_path):
    write_pair(tmp_path, "a", mask("w."))
    with pytest.raises(ConfigError, match="got '7'"):
        evaluate(_tiny_model(), tmp_path, band_patterns=["7"])


class TestCommand:
    @pytest.fixture
    def model(self, tmp_path):
        found = _tiny_model()
        save_model(tmp_path / "tiny.safetensors", found.spec, found.network)
        return str(tmp_path / "tiny.safetensors")

    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "data"
        folder.mkdir()
        truth = (np.random.default_rng(0).random((40, 50)) < 0.5).astype(np.uint8)
        write_pair(folder, "a", truth, bands=("B02", "B03", "B04", "B08", "B11", "B12"))
        return folder

    def test_table_and_report(self, model, folder, tmp_path):
        page = tmp_path / "page.html"
        found = CliRunner().invoke(app, ["evaluate", model, str(folder), "--report", str(page)])
        assert found.exit_code == 0, found.output
        figures, counts = found.output.split("\n\n")
        lines = figures.splitlines()
        assert [line.split()[0] for line in lines] == ["Method", "tiny", "NDWI", "MNDWI", "Otsu"]
        assert "1.000" in lines[3]
        header, *rows = [line.split("  ") for line in counts.splitlines()]
        names = ["water found", "water missed", "land found", "false water", "IoU"]
        assert [name.strip() for name in header[1:] if name.strip()] == names
        assert [row[0].split()[0] for row in rows] == ["tiny", "NDWI", "MNDWI", "Otsu"]
        with rasterio.open(folder / "a.label.tif") as label:
            water = int(label.read(1).sum())
        numbers = [float(cell.replace(",", "")) for cell in rows[2][1:] if cell.strip()]
        assert numbers == [water, 0, 2000 - water, 0, 1]
        assert page.read_text(encoding="utf-8").startswith("<!doctype html>")

    def test_what_no_scene_has_the_bands_for_is_not_counted(self, model, tmp_path):
        write_pair(tmp_path, "a", mask("w.", ".w"), bands=("B03", "B04", "B08"))
        found = CliRunner().invoke(app, ["evaluate", model, str(tmp_path)])
        assert found.exit_code == 0, found.output
        assert "MNDWI" not in found.output.split("\n\n")[1]

    def test_json_with_patterns_of_a_single_scene(self, model, folder):
        pair = [str(folder / "a.tif"), "--label", str(folder / "a.label.tif")]
        options = ["--patterns", "--label-band", "1", "--seed", "5", "--json"]
        found = CliRunner().invoke(app, ["evaluate", model, *pair, *options])
        assert found.exit_code == 0, found.output
        record = json.loads(found.stdout)
        assert record["settings"]["seed"] == 5
        assert record["settings"]["labels"]["band"] == 1
        assert "tiny, 4 bands" in record["methods"]
        assert record["methods"]["MNDWI > 0"]["scenes"]["a"]["metrics"]["iou"]["value"] == 1.0

    def test_labels_of_other_numbers(self, model, folder):
        with rasterio.open(folder / "a.label.tif", "r+") as file:
            label = np.where(file.read() == 1, 9, 4).astype(np.uint8)
            label[:, 0] = 0
            file.write(label)
        told = ["--label-value", "water=9", "--label-value", "land=3,4", "--label-value",
                "unknown=0", "--outside", "unknown", "--offset", "0"]  # fmt: skip
        found = CliRunner().invoke(app, ["evaluate", model, str(folder), "--json", *told])
        assert found.exit_code == 0, found.output
        record = json.loads(found.stdout)
        assert record["methods"]["MNDWI > 0"]["scenes"]["a"]["metrics"]["iou"]["value"] == 1.0
        counts = record["methods"]["MNDWI > 0"]["confusion"]
        assert counts["tp"] + counts["tn"] == 39 * 50
        labels = record["settings"]["labels"]
        assert labels["values"] == {"water": [9], "land": [3, 4]}
        assert (labels["ignored"], labels["outside"]) == ([0], "unknown")

    def test_255_may_be_water(self, model, folder):
        with rasterio.open(folder / "a.label.tif", "r+") as file:
            file.write(np.where(file.read() == 1, 255, 0).astype(np.uint8))
        told = ["--label-value", "water=255", "--label-value", "land=0"]
        found = CliRunner().invoke(app, ["evaluate", model, str(folder), "--json", *told])
        assert found.exit_code == 0, found.output
        record = json.loads(found.stdout)
        assert record["methods"]["MNDWI > 0"]["scenes"]["a"]["metrics"]["iou"]["value"] == 1.0

    @pytest.mark.parametrize("told", ["sea=1", "water", "water=", "water=a"])
    def test_senseless_label_values(self, model, folder, told):
        arguments = ["evaluate", model, str(folder), "--label-value", told]
        found = CliRunner().invoke(app, arguments)
        assert isinstance(found.exception, ConfigError)
        assert repr(told) in str(found.exception)

    def test_a_report_that_cannot_be_written_is_refused_at_once(self, folder):
        file = folder / "a.tif" / "page.html"
        found = CliRunner().invoke(app, ["evaluate", "none", str(folder), "--report", str(file)])
        assert isinstance(found.exception, OutputError)


def test_the_pipeline_writes_what_the_card_needs(tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    write_pair(folder, "a", mask("wwww...."), bands=("B02", "B03", "B04", "B08", "B11", "B12"))
    found = _tiny_model()
    save_model(tmp_path / "tiny.safetensors", found.spec, found.network)
    script = runpy.run_path(str(Path(__file__).parents[1] / "pipelines" / "evaluate_default.py"))
    out = tmp_path / "out"
    script["main"](
        [str(folder), "--output", str(out), "--model", str(tmp_path / "tiny.safetensors")]
    )
    names = {"evaluation.html", "evaluation.json", "evaluation.md"}
    assert {path.name for path in out.iterdir()} == names
    lines = (out / "evaluation.md").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("| scene | tiny | tiny, 12 bands | tiny, 10 bands | tiny, 6 bands |")
    assert lines[2].startswith("| a |")
    assert lines[2].endswith("| 1.000 | 1.000 | 1.000 |")
    assert "| n/a | n/a |" in lines[2]
    assert capsys.readouterr().out.strip().splitlines() == lines

import json
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rio_cogeo.cogeo import cog_validate

from geounet.errors import OutputError
from geounet.mask import CLASSES, NOT_OBSERVED, mask_writer, probability_writer
from geounet.scene import Grid

CODES = np.array([0, 1, 2, 255], np.uint8)
no_georeference = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


UTM_10M = Affine(10, 0, 5e5, 0, -10, 4.4e6)


def _grid(height, width, transform=UTM_10M, crs="EPSG:32629"):
    return Grid(CRS.from_string(crs) if crs else None, transform, width, height)


def _mask(height, width):
    return np.random.default_rng(height).choice(CODES, (height, width))


def _write(path, codes, grid, rows=(), writer=mask_writer, tags=None):
    with writer(path, grid, tags or {}) as file:
        for part in np.split(codes, rows):
            file.write(part)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mask.tif"


@pytest.mark.parametrize(
    ("shape", "rows"),
    [
        ((1300, 1100), (1, 2, 500, 513, 1100)),
        ((700, 1), (300,)),
        ((1, 700), ()),
        ((1, 1), ()),
        ((511, 513), (510,)),
    ],
)
def test_rows_come_back_from_a_valid_cog(path, shape, rows):
    codes = _mask(*shape)
    _write(path, codes, _grid(*shape), rows)
    _, errors, warnings = cog_validate(path, strict=True)
    if shape == (700, 1):  # halved, a width of 1 stays 1; the validator takes that for an error
        errors.remove("Invalid Decimation 1 for overview level 0")
    assert (errors, warnings) == ([], [])
    with rasterio.open(path) as file:
        assert file.count == 1
        assert file.dtypes == ("uint8",)
        assert np.array_equal(file.read(1), codes)
        assert file.compression.name == "deflate"
        assert file.block_shapes == [(512, 512)]


def test_the_mask_says_what_its_codes_mean(path):
    """Invariant 4: land, water, obscured and not observed are told apart in the file itself."""
    codes = _mask(40, 30)
    _write(path, codes, _grid(40, 30), tags={"MODEL": "default 1", "BANDS_MISSING": ""})
    with rasterio.open(path) as file:
        tags = file.tags()
        assert file.nodata == NOT_OBSERVED == 255
        assert {code: tags[f"CLASS_{code}"] for code in CLASSES} == {
            0: "land", 1: "water", 2: "obscured", 255: "not observed"
        }  # fmt: skip
        assert tags["MODEL"] == "default 1"
        assert file.descriptions == ("land/water mask",)
        assert file.colorinterp == (ColorInterp.palette,)
        palette = file.colormap(1)
        assert len({palette[code] for code in CLASSES}) == 4
        assert palette[1][2] > palette[1][0]  # water is blue
        assert [palette[code][3] for code in CLASSES] == [255, 255, 255, 0]
        assert np.array_equal(file.read_masks(1) > 0, codes != 255)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32629", Affine(10, 0, 499_980, 0, -10, 4_400_040)),
        ("EPSG:4326", Affine(1e-4, 0, -8.123456789, 0, -1e-4, 39.987654321)),
        ("EPSG:32629", Affine(7.5, 3.25, 5e5, 2.75, -8.5, 4.4e6)),
        ("EPSG:32733", Affine(10, 0, 3e5, 0, 10, 7e6)),
    ],
)
def test_the_grid_is_kept_exactly(path, crs, transform):
    grid = _grid(60, 50, transform, crs)
    _write(path, _mask(60, 50), grid)
    with rasterio.open(path) as file:
        assert Grid(file.crs, file.transform, file.width, file.height) == grid


@no_georeference
def test_a_grid_without_crs_gives_a_file_without_one(path):
    codes = _mask(60, 50)
    _write(path, codes, _grid(60, 50, Affine.identity(), None))
    with rasterio.open(path) as file:
        assert file.crs is None
        assert file.transform == Affine.identity()
        assert np.array_equal(file.read(1), codes)


def test_overviews_of_a_mask_hold_no_code_that_is_not_there(path):
    """Nearest: an average of water (1) and not observed (255) would be 128."""
    codes = _mask(1500, 1400)
    _write(path, codes, _grid(1500, 1400))
    with rasterio.open(path) as file:
        assert file.overviews(1)
        assert file.overviews(1)[0] == 2
    with rasterio.open(path, overview_level=0) as half:
        small = half.read(1)
    assert small.shape == (750, 700)
    blocks = codes.reshape(750, 2, 700, 2).transpose(0, 2, 1, 3).reshape(750, 700, 4)
    assert (blocks == small[..., None]).any(axis=2).all()
    # Not the mode either, which would lose thin water: one corner of each block is taken.
    assert (blocks == small[..., None]).all(axis=(0, 1)).any()


def test_a_probability_has_its_scale_and_averaged_overviews(path):
    level = np.random.default_rng(2).integers(0, 251, (1200, 1100)).astype(np.uint8)
    level[:, :64] = 255
    _write(path, level, _grid(1200, 1100), (600,), probability_writer)
    assert cog_validate(path, strict=True)[0]
    with rasterio.open(path) as file:
        assert np.array_equal(file.read(1), level)
        assert file.scales == (1 / 250,)
        assert file.offsets == (0.0,)
        assert file.nodata == 255
        assert file.descriptions == ("probability of water where the surface shows",)
        assert file.colorinterp == (ColorInterp.gray,)
        half = file.read(1, out_shape=(600, 550), resampling=Resampling.nearest)
    with rasterio.open(path, overview_level=0) as overview:
        assert np.array_equal(overview.read(1), half)
    mean = level.reshape(600, 2, 550, 2).mean(axis=(1, 3))
    assert (half[:, :32] == 255).all()  # not observed is not averaged in
    assert np.abs(half[:, 32:] - mean[:, 32:]).max() <= 0.5


def test_nothing_is_there_under_the_name_until_it_is_whole(path):
    """Invariant 7."""
    with mask_writer(path, _grid(20, 30), {}) as file:
        file.write(_mask(20, 30))
        assert not path.exists()
    assert path.exists()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_error_leaves_nothing(path):
    """Invariant 7."""
    writer = mask_writer(path, _grid(20, 30), {})
    writer.write(_mask(10, 30))
    error = ZeroDivisionError()
    writer.__exit__(type(error), error, None)
    assert list(path.parent.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path):
    path = tmp_path / "nowhere" / "mask.tif"
    with pytest.raises(OutputError, match=r"cannot write mask\.tif in .*nowhere.*folder is writ"):
        mask_writer(path, _grid(20, 30), {})


FULL = """
import json, resource, sys, warnings
import numpy as np
from pathlib import Path
from affine import Affine
from geounet.errors import OutputError
from geounet.mask import mask_writer
from geounet.scene import Grid
path, limit, side = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
warnings.simplefilter("ignore")  # of the grid without georeference
codes = np.random.default_rng(0).integers(0, 3, (side, side), np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
said = "no error"
try:
    with mask_writer(path, Grid(None, Affine(1, 0, 0, 0, -1, 0), side, side), {}) as file:
        for top in range(0, side, 100):
            file.write(codes[top : top + 100])
except OutputError as error:
    said = str(error)
print(json.dumps([said, sorted(p.name for p in path.parent.iterdir())]))
"""


def test_rows_that_never_came_are_missed(path):
    """Invariant 7."""
    with (
        pytest.raises(OutputError, match="read back is not what was written"),
        mask_writer(path, _grid(20, 30), {}) as file,
    ):
        file.write(_mask(19, 30))
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("limit", [100, 5_000, 200_000, 1_000_000, 4_000_000])
def test_a_disk_that_fills_up_is_reported_whenever_it_does(path, limit):
    """Invariant 7; a limit on the size of a file stands for the disk. 4 MB of pixels.

    GDAL writes the last blocks when the file is closed, and says nothing if that fails.
    """
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(limit), "2000"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "ERROR" not in done.stderr  # GDAL prints none; libtiff itself does
    said, left = json.loads(done.stdout)
    assert "cannot write mask.tif" in said
    assert "disk has room" in said
    assert left == []


def test_the_same_disk_with_room(path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), "6000000", "2000"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == ["no error", ["mask.tif"]]

"""Rows of windows against the whole scene, mirrored by numpy and cut."""

import threading
import time
from contextlib import closing

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geounet.reading import ahead, read_window_rows
from geounet.scene import open_scene
from geounet.tiling import Axis
from geounet.timing import Clock


@pytest.fixture
def scene(make_raster):
    """61 x 23 pixels in blocks of 16, some not observed; and its pixels."""
    random = np.random.default_rng(2)
    dn = random.integers(1, 9000, (4, 61, 23)).astype(np.uint16)
    dn[:, random.random((61, 23)) < 0.1] = 0
    names = ("green", "red", "nir", "swir16")
    options = {"tiled": True, "blockxsize": 16, "blockysize": 16, "scale": 1e-4}
    return open_scene(make_raster(dn, descriptions=names, **options)), dn


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_rows_are_what_the_scene_holds(scene, data):
    """While a row is in hand the one after it is read, and does not touch it."""
    found, dn = scene
    tile = data.draw(st.integers(1, 61))
    axis = Axis(61, tile, data.draw(st.integers(0, tile - 1)))
    margin = data.draw(st.sampled_from([0, 1, 7]))
    first = data.draw(st.integers(0, len(axis.starts) - 1))
    indices = range(first, data.draw(st.integers(first, len(axis.starts))))
    bands = data.draw(st.sampled_from([[0, 1, 2, 3], [2, 0]]))
    whole = np.pad(dn[bands], ((0, 0), (margin,) * 2, (margin,) * 2), mode="reflect")
    rows = read_window_rows(found, bands, axis, indices, margin=margin, clock=Clock())
    wanted = iter(indices)
    with closing(ahead(rows)) as taken:
        for row in taken:
            assert row.index == next(wanted)
            time.sleep(0.0005)
            part = slice(axis.starts[row.index], axis.starts[row.index] + tile + 2 * margin)
            assert np.array_equal(row.dn, whole[:, part])
            assert np.array_equal(row.valid, (whole != 0).any(axis=0)[part])
    assert next(wanted, None) is None


def test_pixels_stay_in_two_arrays(scene):
    """Invariant 1: none is made along the way."""
    found, _ = scene
    axis = Axis(61, 16, 4)
    rows = read_window_rows(found, [0, 1], axis, range(5), margin=0, clock=Clock())
    kept = list(rows)
    assert len({row.dn.__array_interface__["data"][0] for row in kept}) == 2
    assert not np.shares_memory(kept[0].dn, kept[1].dn)


def test_it_is_one_item_ahead_and_no_more():
    made = []

    def items():
        for i in range(9):
            made.append(i)
            yield i

    with closing(ahead(items())) as taken:
        for i in taken:
            time.sleep(0.002)
            assert len(made) <= i + 2
    assert made == list(range(9))


def test_an_error_of_the_thread_is_raised_here_and_the_thread_ends():
    def items():
        yield 1
        raise OSError("the disk went away")

    threads = threading.active_count()
    with closing(ahead(items())) as taken:
        assert next(taken) == 1
        with pytest.raises(OSError, match="went away"):
            next(taken)
    assert threading.active_count() == threads

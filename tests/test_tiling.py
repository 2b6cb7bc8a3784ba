from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geounet.errors import ConfigError
from geounet.tiling import Axis, Window, WindowPlan


@st.composite
def axes(draw):
    size = draw(st.integers(1, 3000))
    tile = draw(st.integers(1, size))
    return Axis(size, tile, draw(st.integers(0, tile - 1)))


@given(axes())
def test_windows_cover_the_axis_and_end_flush(axis):
    starts = axis.starts
    assert starts[0] == 0
    assert starts[-1] + axis.tile == axis.size
    assert all(b - a <= axis.tile for a, b in pairwise(starts))


@given(axes())
def test_windows_rise_and_overlap_at_least_as_asked(axis):
    steps = [b - a for a, b in pairwise(axis.starts)]
    assert all(0 < step <= axis.tile - axis.overlap for step in steps)


@given(axes())
def test_windows_are_evenly_spread(axis):
    steps = [b - a for a, b in pairwise(axis.starts)]
    assert not steps or max(steps) - min(steps) <= 1


@given(axes())
def test_no_fewer_windows_would_do(axis):
    fewer = len(axis.starts) - 1
    reach = axis.tile + (fewer - 1) * (axis.tile - axis.overlap)
    assert fewer == 0 or reach < axis.size


@given(axes(), st.data())
def test_touching_equals_a_search(axis, data):
    """Invariant 3 rests on it: a task predicts every window that touches its rows."""
    start = data.draw(st.integers(-5, axis.size + 5))
    stop = data.draw(st.integers(-5, axis.size + 5))
    found = [
        i
        for i, first in enumerate(axis.starts)
        if any(start <= pixel < stop for pixel in range(first, first + axis.tile))
    ]
    assert list(axis.touching(start, stop)) == found


@pytest.mark.parametrize(
    ("size", "tile", "overlap", "starts"),
    [
        (1, 1, 0, (0,)),
        (512, 512, 64, (0,)),
        (513, 512, 64, (0, 1)),
        (960, 512, 64, (0, 448)),
        (961, 512, 64, (0, 225, 449)),  # not (0, 448, 449): evenly spread
        (10, 5, 0, (0, 5)),
        (11, 5, 0, (0, 3, 6)),
        (4, 2, 1, (0, 1, 2)),
        (10980, 512, 64, tuple(round(i * 10468 / 24) for i in range(25))),
    ],
)
def test_starts(size, tile, overlap, starts):
    assert len(Axis(size, tile, overlap).starts) == len(starts)
    assert all(
        abs(a - b) <= 1 for a, b in zip(Axis(size, tile, overlap).starts, starts, strict=True)
    )


def test_starts_of_a_known_case():
    assert Axis(961, 512, 64).starts == (0, 225, 449)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 400), st.data())
def test_a_plan_fits_the_scene(height, width, tile, data):
    plan = WindowPlan(height, width, tile, data.draw(st.integers(0, tile - 1)))
    for axis, size in ((plan.rows, height), (plan.cols, width)):
        assert (axis.size, axis.tile) == (size, min(tile, size))
        assert axis.overlap == min(plan.overlap, axis.tile - 1)
    assert plan.count == len(plan.rows.starts) * len(plan.cols.starts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 10, 4, 4), "got overlap 4, tile 4. Choose a smaller --overlap or a larger --tile"),
        ((10, 10, 4, 9), "got overlap 9, tile 4"),
        ((10, 10, 4, -1), "got overlap -1"),
        ((0, 10, 4, 1), "got scene 0 x 10, tile 4"),
        ((10, 0, 4, 1), "got scene 10 x 0"),
        ((10, 10, 0, 0), "tile 0"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        WindowPlan(*arguments)


def test_value_types_are_frozen_and_compare_by_value():
    assert WindowPlan(5, 6, 4, 1) == WindowPlan(5, 6, 4, 1)
    assert hash(Window(0, 1, 2, 3)) == hash(Window(0, 1, 2, 3))
    with pytest.raises(AttributeError):
        WindowPlan(5, 6, 4, 1).tile = 3

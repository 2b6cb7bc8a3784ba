"""The out-of-memory ladder, with an engine whose memory holds so many windows and no more."""

import logging
import os
import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from geounet.blending import StripBlender
from geounet.engines import keeping, torch_engine
from geounet.engines import ladder as ladder_module
from geounet.engines.ladder import Ladder, is_out_of_memory, open_ladder, suited_batch
from geounet.errors import GeounetWarning, ModelError
from geounet.model import Architecture, InputBand, Inputs, Model, ModelSpec, Normalisation
from geounet.segmenter import build_network
from geounet.tiling import Axis, WindowPlan

COLS = Axis(100, 16, 4)
MATCHED = Inputs((0, 1, 2), (0, 1, 2), (1e-4,) * 3, (0.0,) * 3)


def tiny_model(tile, features=(2,)):
    options = {"features": list(features), "padded": True, "dropout": 0.0}
    spec = ModelSpec(
        name="tiny",
        architecture=Architecture(decoder="unet2015", options=options),
        bands=[InputBand(name=name, common_name=name) for name in ("green", "red", "nir")],
        classes=("land", "water"),
        normalisation=Normalisation(mean=(-2.0,) * 3, std=(0.5,) * 3),
        tile=tile,
        tile_multiple=2,
    )
    return Model(spec, build_network(spec).eval(), "test")


class Box(np.ndarray):
    """Stands for a tensor on a card."""


class Small:
    """Scores are the numbers themselves; more windows at once than `room` are too many."""

    channels = 1

    def __init__(self, device, room, batch):
        self.device, self.room, self.batch = device, room, batch
        self.tries = []

    def zeros(self, shape):
        return self.asarray(np.zeros(shape, np.float32))

    def asarray(self, array):
        return array if self.device == "cpu" else array.view(Box)

    def predict(self, dn, observed, cols):
        for first in range(0, len(cols.starts), self.batch):
            group = range(len(cols.starts))[first : first + self.batch]
            self.tries.append(len(group))
            if len(group) > self.room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
            for i in group:
                start = cols.starts[i]
                yield i, self.asarray(dn[:, :, start : start + cols.tile].copy())

    def decide(self, scores, observed, threshold):
        return lambda: (type(scores), threshold)


def _ladder(rooms, batch=8):
    """A ladder that begins on the card, if it has one, and the engines that it opened."""
    opened = []

    def open_on(device):
        opened.append(Small(device, rooms[device], batch if device != "cpu" else 2))
        return opened[-1]

    return Ladder(open_on, next(iter(rooms))), opened


@pytest.fixture
def row():
    return np.random.default_rng(0).random((1, 16, 100), np.float32), np.ones((16, 100), bool)


def _same(found, row):
    """Each window once, in order, with what stands under it."""
    assert [i for i, _ in found] == list(range(len(COLS.starts)))
    return all(
        np.array_equal(scores, row[0][:, :, start : start + 16])
        for (_, scores), start in zip(found, COLS.starts, strict=True)
    )


@pytest.mark.filterwarnings("error")
def test_where_memory_is_enough_nothing_is_said(row):
    ladder, opened = _ladder({"cuda": 8, "cpu": 8})
    assert _same(list(ladder.predict(*row, COLS)), row)
    assert len(opened) == 1


@pytest.mark.parametrize(("room", "left"), [(7, 4), (4, 4), (3, 2), (1, 1)])
def test_the_batch_is_halved_until_it_fits_and_stays_so(row, room, left, caplog):
    ladder, (engine,) = _ladder({"cuda": room, "cpu": 1})
    caplog.set_level(logging.INFO, "geounet")
    with pytest.warns(GeounetWarning, match="with 8 windows at once on cuda; going on with 4") as w:
        assert _same(list(ladder.predict(*row, COLS)), row)
    assert len(w) == 1
    assert ladder.batch == left
    assert len(caplog.records) == {4: 1, 2: 2, 1: 3}[left]
    engine.tries.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _same(list(ladder.predict(*row, COLS)), row)
    assert max(engine.tries) <= room


def test_what_is_kept_for_later_goes_where_memory_runs_out(row):
    keeping.forget()
    keeping.keep("a network", object)
    list(_ladder({"cpu": 8})[0].predict(*row, COLS))
    assert keeping._kept
    with pytest.warns(GeounetWarning, match="with 8 windows"):
        list(_ladder({"cuda": 7, "cpu": 1})[0].predict(*row, COLS))
    assert not keeping._kept


def test_windows_that_were_given_out_are_not_given_again(row):
    """Memory runs out in the second group of a row: another program took its share."""
    ladder, (engine,) = _ladder({"cpu": 2})
    windows = ladder.predict(*row, COLS)
    found = [next(windows)]
    engine.room = 1
    with pytest.warns(GeounetWarning, match="with 2 windows"):
        found += windows
    assert _same(found, row)


def test_below_one_window_comes_the_cpu_and_sums_stay_where_they_are(row):
    ladder, opened = _ladder({"cuda": 4, "cpu": 2})
    blender = StripBlender(
        WindowPlan(16, 100, 16, 4), 1, zeros=ladder.zeros, asarray=ladder.asarray
    )
    opened[0].room = 0
    with pytest.warns(GeounetWarning) as said:
        found = list(ladder.predict(*row, COLS))
    for i, scores in found:
        assert isinstance(scores, Box)
        blender.add(0, i, scores)
    assert "cuda has no room for one window; going on on the CPU" in str(said[-1].message)
    assert len(said) == 2
    assert [engine.device for engine in opened] == ["cuda", "cpu"]
    np.testing.assert_allclose(blender.finish(0), row[0], atol=1e-6)
    assert ladder.decide(blender.finish(0), row[1], 0.3)() == (Box, 0.3)


def test_a_card_that_has_no_room_at_all_is_left_at_once(row):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    def open_on(device):
        return full() if device == "cuda" else Small("cpu", 8, 4)

    with pytest.warns(GeounetWarning, match="going on on the CPU"):
        ladder = Ladder(open_on, "cuda")
    assert _same(list(ladder.predict(*row, COLS)), row)
    ladder, (engine,) = _ladder({"cuda": 8, "cpu": 8})
    engine.zeros = full
    with pytest.warns(GeounetWarning, match="going on on the CPU"):
        assert not isinstance(ladder.zeros((1, 2, 3)), Box)
    assert not isinstance(ladder.asarray(row[0]), Box)
    assert _same(list(ladder.predict(*row, COLS)), row)


@pytest.mark.filterwarnings("ignore::geounet.errors.GeounetWarning")
def test_at_the_end_of_the_ladder_an_error_says_what_to_do(row):
    for rooms in ({"cpu": 0}, {"cuda": 0, "cpu": 0}):
        ladder, _ = _ladder(rooms)
        with pytest.raises(ModelError, match=r"must fit into memory.*2 GiB.*--tile"):
            list(ladder.predict(*row, COLS))


def test_other_errors_pass(row):
    ladder, (engine,) = _ladder({"cpu": 8})
    engine.predict = lambda *_: iter([1 / 0] for _ in range(2))
    with pytest.raises(ZeroDivisionError):
        list(ladder.predict(*row, COLS))
    with pytest.raises(RuntimeError, match="shape"):
        Ladder(lambda _: (_ for _ in ()).throw(RuntimeError("a wrong shape")), "cuda")


def _raised(work):
    try:
        work()
    except Exception as error:  # noqa: BLE001 - whichever it is
        return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (_raised(lambda: torch.empty(1 << 50)), True),
        (_raised(lambda: np.empty(1 << 58)), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("Exception from src/inference: std::bad_alloc"), True),
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (_raised(lambda: torch.ones(2) @ torch.ones(3)), False),
        (OSError("cannot allocate memory"), False),
    ],
)
def test_what_says_that_memory_ran_out(error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(
    ("free", "tile", "expected"),
    [(80 << 30, 512, 16), (8 << 30, 512, 4), (1 << 30, 512, 1), (0, 512, 1), (8 << 30, 2048, 1)],
)
def test_the_batch_suits_the_memory(free, tile, expected):
    assert suited_batch(free, tile, 16) == expected


@pytest.mark.parametrize(
    ("free", "told", "expected"), [(64 << 30, None, 2), (64 << 20, None, 1), (64 << 20, 3, 3)]
)
def test_on_the_cpu_too_the_batch_suits_the_memory(free, told, expected, monkeypatch):
    """A full machine kills processes rather than let them know."""
    monkeypatch.setattr(ladder_module, "_free_on", lambda device: free)
    monkeypatch.setattr(torch_engine, "usual_threads", lambda: 2)
    ladder = open_ladder(tiny_model(512), MATCHED, device="cpu", engine="torch", batch=told)
    assert ladder.batch == expected


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_the_card_that_is_meant_is_asked_for_its_memory(device, monkeypatch):
    """In PyTorch 2.4 `mem_get_info` takes no device without a number, which "cuda" is."""
    meant = []

    @contextmanager
    def on(device):
        meant.append(device)
        yield
        meant.pop()

    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda: ({"cuda": 7, "cuda:1": 8}[meant[-1]], 9)
    )
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 20)
    assert ladder_module._free_on(device) == 30 + (8 if device == "cuda:1" else 7)


OUT_OF_MEMORY = """
import resource, sys, warnings
import numpy as np, psutil, torch
sys.path.insert(0, sys.argv[1])
from test_ladder import MATCHED, tiny_model
from geounet.engines import open_ladder
from geounet.tiling import Axis

torch.set_num_threads(1)
model, cols = tiny_model(256, features=[16]), Axis(256 * 8, 256, 0)
dn = np.random.default_rng(0).integers(0, 9000, (3, 256, 256 * 8)).astype("uint16")
seen = np.ones(dn.shape[1:], bool)
one, ladder = (
    open_ladder(model, MATCHED, device="cpu", engine="torch", batch=batch) for batch in (1, 8)
)
expected = [scores.copy() for _, scores in one.predict(dn, seen, cols)]
limit = psutil.Process().memory_info().vms + (100 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
with warnings.catch_warnings(record=True) as said:
    made = [scores.copy() for _, scores in ladder.predict(dn, seen, cols)]
assert [str(each.message)[:38] for each in said] == ["memory ran out with 8 windows at once "], said
assert ladder.batch < 8
assert len(made) == 8 and all(map(np.array_equal, made, expected))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits are set as on Linux")
def test_memory_that_really_runs_out_gives_the_same_result():
    """With an address space that has no room for eight windows at once."""
    folder = str(Path(__file__).parent)
    command = [sys.executable, "-c", OUT_OF_MEMORY, folder]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},  # else each thread claims 64 MiB, some luck
    )
    assert done.returncode == 0, done.stderr

"""Arrays in memory, or lazy ones, as scenes.

    numpy array   →  segment()        →  mask codes or probability [height, width]
    dask array    →  segment_lazily() →  the same as a dask array, made of strips

The pipeline reads an array as it reads a file: window by window.
"""

from __future__ import annotations

import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from geounet.errors import ConfigError, GeounetWarning
from geounet.model import Model, load_model
from geounet.pipeline import Job, RunConfig, fit, predict_strips
from geounet.products import Product
from geounet.radiometry import Evidence, Statement, decide_radiometry
from geounet.scene import Grid, Scene, SceneReader, observed
from geounet.sensors import name_bands

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from geounet.tiling import Window

__all__ = [
    "ArrayScene",
    "array_scene",
    "segment",
    "segment_lazily",
    "segment_scene",
    "warn_of_assumptions",
]

_TILES = 4
"""Rows of windows that a task of a lazy result owns, about."""
_ONE_AT_A_TIME = threading.Lock()
"""A model takes the whole machine: strips that a scheduler starts together wait for each other."""


@dataclass(frozen=True, repr=False)
class ArrayScene(Scene):
    """A scene whose pixels are an array's."""

    array: Any = field(default=None, compare=False, repr=False)
    """[bands, height, width]: anything with numpy's ``shape``, ``dtype`` and slices."""

    @contextmanager
    def open(self) -> Iterator[SceneReader]:
        """Make a reader for one thread."""
        yield _ArrayReader(self)


class _ArrayReader(SceneReader):
    """Reads an array; what is lazy in it is computed for the window alone."""

    def __init__(self, scene: ArrayScene) -> None:
        self._scene = scene
        self._array = scene.array

    def _fill(self, place: Window, indexes: Sequence[int], out: NDArray[Any]) -> NDArray[np.bool_]:
        rows = slice(place.row, place.row + place.height)
        cols = slice(place.col, place.col + place.width)
        taken = self._array[list(indexes), rows, cols]
        if out.shape[1:] != (place.height, place.width):
            row, col = (
                ((np.arange(n) + 0.5) * size / n).astype(int)
                for n, size in zip(out.shape[1:], (place.height, place.width), strict=True)
            )
            taken = taken[:, row][:, :, col]
        masked = np.ma.getmaskarray(taken).any(axis=0) if np.ma.isMaskedArray(taken) else None
        out[...] = np.ma.getdata(taken) if masked is not None else np.asarray(taken)
        valid = observed(out, self._scene.nodata)
        return valid if masked is None else valid & ~masked


def array_scene(
    array: Any,
    names: Sequence[str | None] = (),
    *,
    bands: Sequence[str] | None = None,
    transform: Affine | None = None,
    crs: object = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    stated: Statement | None = None,
) -> ArrayScene:
    """An array as a scene; nothing of it is read.

    Args:
        array: [bands, height, width].
        names: what something calls the bands; None where nothing does.
        bands: what the user calls all bands; ``-`` for one to leave out.
        transform: pixel corner (column, row) to coordinates; None takes pixels.
        crs: of these coordinates, as rasterio understands it.
        scale: reflectance per number, for all bands; None finds it out.
        offset: reflectance at number 0, for all bands; None finds it out.
        nodata: number that means "not observed".
        stated: what comes with the array on scale and offset.

    Raises:
        SceneError: nothing says what the bands are, or the numbers are not reflectance.
        ConfigError: the array has no three axes or no pixels, or an argument breaks a rule.
    """
    if not hasattr(array, "dtype"):
        array = np.asarray(array)
    if len(array.shape) != 3 or not all(array.shape):
        raise ConfigError(
            f"an array must be [bands, height, width] with a pixel; its shape is {array.shape}."
        )
    count, height, width = (int(size) for size in array.shape)
    if bands is not None and len(bands) == width != count:
        raise ConfigError(
            f"an array must be [bands, height, width]; its shape is {tuple(array.shape)}, and its "
            f"last axis has as many places as names were given ({', '.join(bands)}). Give "
            f"numpy.moveaxis(array, -1, 0)."
        )
    dtype = np.dtype(array.dtype).name
    evidence = Evidence(dtype=dtype, count=count, bands=stated)
    return ArrayScene(
        uri="the array",
        product=Product("array", "the array", "", "array", tuple(names), evidence, nodata=nodata),
        grid=Grid(_parse_crs(crs), transform or Affine.identity(), width, height),
        bands=name_bands(count, names, told=bands),
        radiometry=decide_radiometry(evidence, scale=scale, offset=offset),
        dtype=dtype,
        nodata=nodata,
        block=(256, width),
        array=array,
    )


def _parse_crs(crs: object) -> CRS | None:
    try:
        return None if crs is None else CRS.from_user_input(crs)
    except CRSError as error:
        raise ConfigError(f"a CRS is one that PROJ knows, like EPSG:32629; got {crs!r}.") from error


def segment(
    array: Any,
    bands: Sequence[str] | None = None,
    *,
    transform: Affine | None = None,
    crs: object = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    model: str | Model = "default",
    probability: bool = False,
    **options: Any,
) -> NDArray[Any]:
    """Segment an array: a land/water mask of the same pixels.

    Args:
        array: numbers as stored or reflectance [bands, height, width]; NaN, `nodata`, 0 in every
            band and what a masked array masks in any band were not observed.
        bands: names of all bands in order (``B03``, ``green``); ``-`` for one to leave out. None
            takes the order that goes with their number.
        transform: pixel corner (column, row) to coordinates; it changes no pixel of the mask.
        crs: of these coordinates; likewise.
        scale: reflectance per number, for all bands; None finds it out.
        offset: reflectance at number 0, for all bands; None finds it out.
        nodata: number that means "not observed".
        model: name or file of a model, or one that `load_model` gave.
        probability: whether to return the probability of water in place of the mask.
        options: further fields of `RunConfig`: ``threshold=0.4``, ``device="cuda"``, …

    Returns:
        Mask codes uint8 [height, width] (0 land, 1 water, 2 obscured, 255 not observed), or the
        water probability float32 [height, width], NaN where not observed.

    Raises:
        SceneError: a band is missing, or the numbers cannot be reflectance.
        ConfigError: an argument breaks a rule.
        ModelError: the model cannot be loaded.

    Warns:
        GeounetWarning: nothing says how the numbers become reflectance.
    """
    scene = array_scene(
        array, bands=bands, transform=transform, crs=crs, scale=scale, offset=offset, nodata=nodata
    )
    warn_of_assumptions(scene)
    return segment_scene(scene, model=model, probability=probability, **options)


def segment_scene(
    scene: ArrayScene, *, model: str | Model = "default", probability: bool = False, **options: Any
) -> NDArray[Any]:
    """Segment a scene of an array; see `segment`."""
    job = fit(scene, _model(model), RunConfig.of(**options))
    return _rows(job, None, probability=probability)


def warn_of_assumptions(scene: Scene) -> None:
    """Say where nothing says how the numbers become reflectance."""
    if scene.radiometry.assumed:
        warnings.warn(
            f"nothing says how the array's numbers become reflectance: "
            f"{scene.radiometry.reason}. Settle it with scale= and offset=.",
            GeounetWarning,
            stacklevel=4,
        )


def segment_lazily(
    scene: ArrayScene,
    *,
    model: str | Model = "default",
    probability: bool = False,
    **options: Any,
) -> Any:
    """Segment an array of dask; nothing is read or predicted before the result is computed.

    Tasks own rows of the result and are given the rows of the array that their windows need, so
    the result is the same, whatever the chunks. They run one after the other in a process.

    Args:
        scene: of an array of dask.
        model: as for `segment`; a name or file is loaded where a task runs.
        probability: as for `segment`.
        options: as for `segment`.

    Returns:
        A dask array [height, width] of what `segment` returns.

    Raises:
        SceneError: a band is missing.
        ConfigError: an argument breaks a rule.
        ModelError: the model cannot be loaded.
    """
    import dask.array as da  # noqa: PLC0415 - only for arrays of dask
    from dask.delayed import delayed  # noqa: PLC0415

    config = RunConfig.of(**options)
    job = fit(scene, _model(model), config, look=False)
    plan, margin = job.plan, job.model.spec.margin
    bare = replace(scene, array=None)
    dtype = np.float32 if probability else np.uint8
    strips = []
    step = _TILES * plan.rows.tile
    for top in range(0, plan.height, step):
        bottom = min(top + step, plan.height)
        windows = plan.rows.touching(top, bottom)
        first = max(plan.rows.starts[windows[0]] - margin, 0)
        stop = min(plan.rows.starts[windows[-1]] + plan.rows.tile + margin, plan.height)
        task = partial(
            _strip, scene=bare, model=model, config=config, first=first, rows=(top, bottom),
            probability=probability,
        )  # fmt: skip
        slab = scene.array[:, first:stop].rechunk(-1)
        made = delayed(task, pure=False)(slab)
        shape = (bottom - top, plan.width)
        strips.append(da.from_delayed(made, shape, dtype))  # type: ignore[no-untyped-call]
    return da.concatenate(strips)  # type: ignore[no-untyped-call]


class _Slab:
    """Some rows of an array under the numbers that they have in all of it."""

    def __init__(self, rows: NDArray[Any], first: int) -> None:
        self._rows, self._first = rows, first

    def __getitem__(self, key: tuple[list[int], slice, slice]) -> NDArray[Any]:
        bands, rows, cols = key
        at = slice(rows.start - self._first, rows.stop - self._first)
        taken: NDArray[Any] = self._rows[bands, at, cols]
        return taken


def _strip(
    slab: NDArray[Any],
    *,
    scene: ArrayScene,
    model: str | Model,
    config: RunConfig,
    first: int,
    rows: tuple[int, int],
    probability: bool,
) -> NDArray[Any]:
    """Some rows of the result, of the rows of the array that they need."""
    with _ONE_AT_A_TIME:
        job = fit(replace(scene, array=_Slab(slab, first)), _model(model), config, look=False)
        return _rows(job, rows, probability=probability)


def _rows(job: Job, rows: tuple[int, int] | None, *, probability: bool) -> NDArray[Any]:
    strips = predict_strips(job, rows)
    if not probability:
        return np.concatenate([strip.codes for strip in strips])
    levels = np.concatenate([strip.probability for strip in strips])
    return np.where(levels == 255, np.float32("nan"), levels / np.float32(250))


def _model(model: str | Model) -> Model:
    if isinstance(model, Model):
        return model
    path = Path(model)
    return _loaded(model, path.stat().st_mtime_ns if path.is_file() else None)


@lru_cache(maxsize=2)
def _loaded(name: str, _: int | None) -> Model:
    """A model, anew where its file was written anew since."""
    return load_model(name)

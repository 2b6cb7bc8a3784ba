"""Bring coarse pixels onto a grid a whole number of times finer (pure, numpy only).

A fine pixel's value depends on nothing but the coarse pixels around it, in a fixed order of
operations, so that any way of cutting an image into windows gives the same numbers, bit for bit.
Pixels are areas and grids share their corners: the centre of fine pixel ``k`` lies at
``(k + 0.5) / factor - 0.5`` in coarse pixels, and nothing is shifted by half a pixel.

Missing pixels are never mixed into others: beside them the weights are those of the pixels that
are there, and a fine pixel inside a missing one stays missing. (GDAL 3.10's virtual datasets blend
nodata in where the source does not declare it, and their cubic reaches three times the source's
range beside it.)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["HALO", "Resampling", "missing_pixels", "upsample"]

Resampling: TypeAlias = Literal["nearest", "bilinear", "cubic"]
"""How a band of coarser pixels comes onto the finest grid."""

HALO: dict[Resampling, int] = {"nearest": 0, "bilinear": 1, "cubic": 2}
"""How many coarse pixels around a window are needed, on each side."""

_Kernel: TypeAlias = "Sequence[tuple[int, np.float32]]"
"""Offsets in coarse pixels and their weights."""

_CHUNK = 1 << 18
"""Fine pixels worked on at a time: temporary arrays stay in the processor's cache."""


def missing_pixels(dn: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Which numbers of one band are no measurements: nodata, 0, NaN or infinity.

    Args:
        dn: numbers as stored, of any shape.
        nodata: the band's nodata value.
    """
    missing: NDArray[np.bool_] = dn == 0
    if nodata:
        missing |= dn == nodata
    if np.issubdtype(dn.dtype, np.floating):
        missing |= ~np.isfinite(dn)
    return missing


def upsample(
    dn: NDArray[Any],
    factor: int,
    method: Resampling,
    *,
    nodata: float | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Resample one band onto a grid that is `factor` times finer.

    Args:
        dn: coarse pixels [height + 2 halo, width + 2 halo], with `HALO` of the method around the
            part that is wanted; beyond an image's edge its outermost pixels repeat.
        factor: fine pixels per coarse pixel along each axis.
        method: ``nearest`` repeats; ``bilinear`` weighs the 4 nearest centres; ``cubic`` is the
            convolution of 16 by Keys 1981 (doi:10.1109/TASSP.1981.1163711, a = -0.5), held within
            what the type stores, and bilinear where one of the 16 is missing.
        nodata: the band's nodata value; 0, NaN and infinity are missing in any case.
        out: array to write to [height * factor, width * factor].

    Returns:
        Fine pixels of the same type, whole numbers rounded.
    """
    halo = HALO[method]
    height, width = (side - 2 * halo for side in dn.shape)
    if out is None:
        out = np.empty((height * factor, width * factor), dn.dtype)
    rows = max(_CHUNK // (factor * factor * max(width, 1)), 1)
    for row in range(0, height, rows):
        part = dn[row : min(row + rows, height) + 2 * halo]
        into = out[row * factor : (row + rows) * factor]
        if method == "nearest":
            into[:] = _repeat(part, factor)
        else:
            _interpolate(part, factor, method, nodata, into)
    return out


def _interpolate(
    dn: NDArray[Any], factor: int, method: Resampling, nodata: float | None, out: NDArray[Any]
) -> None:
    halo = HALO[method]
    missing = missing_pixels(dn, nodata)
    any_missing = bool(missing.any())
    values = dn.astype(np.float32)
    if any_missing:
        values[missing] = 0
    fine = _expand(values, _kernels(factor, method), halo)
    if any_missing:
        _mend(fine, values, missing, factor, method)
    _store(fine, nodata, out)
    if any_missing:
        inner = slice(halo, dn.shape[0] - halo), slice(halo, dn.shape[1] - halo)
        np.copyto(out, _repeat(dn[inner], factor), where=_repeat(missing[inner], factor))


def _mend(
    fine: NDArray[np.float32],
    values: NDArray[np.float32],
    missing: NDArray[np.bool_],
    factor: int,
    method: Resampling,
) -> None:
    """Weigh again what missing pixels had a share in; only the columns where there is any."""
    halo = HALO[method]
    near = _dilate(missing, halo) & ~missing[halo:-halo, halo:-halo]
    columns = np.flatnonzero(near.any(axis=0))
    if not columns.size:
        return
    first, stop = int(columns[0]), int(columns[-1]) + 1
    values, missing = values[:, first : stop + 2 * halo], missing[:, first : stop + 2 * halo]
    touched = _touch(missing, _kernels(factor, method), halo)
    trim = slice(halo - 1, values.shape[0] - halo + 1), slice(halo - 1, values.shape[1] - halo + 1)
    part = fine[:, first * factor : stop * factor]
    np.copyto(part, _among_present(values[trim], missing[trim], factor), where=touched)


def _dilate(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Pixels within reach of one that is true, along both axes; smaller by `reach` on each side."""
    for _ in range(2):
        count = mask.shape[0] - 2 * reach
        shifted = [mask[i : i + count] for i in range(2 * reach + 1)]
        mask = np.logical_or.reduce(shifted).T
    return mask


def _among_present(
    values: NDArray[np.float32], missing: NDArray[np.bool_], factor: int
) -> NDArray[np.float32]:
    """Bilinear with the weights of missing pixels given to the others."""
    kernels = _kernels(factor, "bilinear")
    weight = _expand((~missing).astype(np.float32), kernels, 1)
    total = _expand(values, kernels, 1)
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)


def _store(fine: NDArray[np.float32], nodata: float | None, out: NDArray[Any]) -> None:
    """Round to the stored type; a measurement never becomes a number that means it is none."""
    if not np.issubdtype(out.dtype, np.integer):
        np.copyto(out, fine, casting="unsafe")
        return
    limits = np.iinfo(out.dtype)
    np.rint(fine, out=fine)
    np.clip(fine, limits.min, limits.max, out=fine)
    np.copyto(out, fine, casting="unsafe")
    out[out == 0] = 1
    if nodata:
        away = nodata + math.copysign(1, nodata)
        out[out == nodata] = away if limits.min <= away <= limits.max else 2 * nodata - away


def _kernels(factor: int, method: Resampling) -> list[_Kernel]:
    """For each fine pixel in a coarse one: which coarse pixels it is made of."""
    return [_kernel((k + 0.5) / factor - 0.5, method) for k in range(factor)]


def _kernel(at: float, method: Resampling) -> _Kernel:
    first = math.floor(at)
    reach = range(first, first + 2) if method == "bilinear" else range(first - 1, first + 3)
    weigh = _linear if method == "bilinear" else _cubic
    weights = [(i, weigh(abs(at - i))) for i in reach]
    return [(i, np.float32(weight)) for i, weight in weights if weight]


def _linear(distance: float) -> float:
    return max(1.0 - distance, 0.0)


def _cubic(x: float) -> float:
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def _expand(
    values: NDArray[np.float32], kernels: Sequence[_Kernel], halo: int
) -> NDArray[np.float32]:
    """Weighted sums along columns, then rows: float32 [height * factor, width * factor]."""
    factor, width = len(kernels), values.shape[1] - 2 * halo
    wide = np.empty((values.shape[0], width * factor), np.float32)
    for k, kernel in enumerate(kernels):
        wide[:, k::factor] = _sum(values.T, kernel, halo, width).T
    height = values.shape[0] - 2 * halo
    fine = np.empty((height * factor, width * factor), np.float32)
    for k, kernel in enumerate(kernels):
        fine[k::factor] = _sum(wide, kernel, halo, height)
    return fine


def _sum(values: NDArray[np.float32], kernel: _Kernel, halo: int, count: int) -> NDArray[Any]:
    """One fine row per coarse row: the kernel's rows around it, weighted."""
    parts = (values[halo + i : halo + i + count] * weight for i, weight in kernel)
    total = next(parts)
    for part in parts:
        total += part
    return total


def _touch(missing: NDArray[np.bool_], kernels: Sequence[_Kernel], halo: int) -> NDArray[np.bool_]:
    """Fine pixels of whose coarse pixels one is missing: bool [height * factor, ...]."""
    fine = missing
    for _ in range(2):
        count = fine.shape[1] - 2 * halo
        wide = np.zeros((fine.shape[0], count * len(kernels)), np.bool_)
        for k, kernel in enumerate(kernels):
            for i, _weight in kernel:
                wide[:, k :: len(kernels)] |= fine[:, halo + i : halo + i + count]
        fine = wide.T
    return fine


def _repeat(dn: NDArray[Any], factor: int) -> NDArray[Any]:
    return dn.repeat(factor, axis=0).repeat(factor, axis=1)

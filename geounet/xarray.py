"""The accessor of xarray: ``da.geounet.segment()`` after ``import geounet.xarray``.

Dimensions, CRS, transform and nodata are found as rioxarray finds them, which is how odc-stac,
stackstac and rioxarray write them. Needs the extra ``geounet[xarray]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import rioxarray  # noqa: F401 - registers .rio
import xarray as xr
from rioxarray.exceptions import RioXarrayError

import geounet
from geounet.arrays import array_scene, segment_lazily, segment_scene, warn_of_assumptions
from geounet.errors import ConfigError
from geounet.mask import CLASSES, NOT_OBSERVED
from geounet.products.cube import BAND_DIMS, band_names, scale_and_offset
from geounet.products.raster import one_nodata
from geounet.radiometry import Statement
from geounet.sensors import common_name

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from geounet.model import Model

__all__ = ["GeounetDataArray", "GeounetDataset"]


@xr.register_dataarray_accessor("geounet")  # type: ignore[no-untyped-call]
class GeounetDataArray:
    """What geounet does with a DataArray that has a dimension of bands."""

    def __init__(self, array: xr.DataArray) -> None:
        self._array = array

    def segment(
        self,
        bands: Sequence[str] | None = None,
        *,
        band_dim: Hashable | None = None,
        scale: float | None = None,
        offset: float | None = None,
        nodata: float | None = None,
        model: str | Model = "default",
        probability: bool = False,
        **options: Any,
    ) -> xr.DataArray:
        """Segment it: a land/water mask with its coordinates and CRS.

        Each step of one further dimension, like time, is a scene of its own. An array of dask
        gives a lazy mask, the same as one computed at once.

        Args:
            bands: names of all bands in order; None takes the coordinate of the dimension of
                bands, then ``long_name``, then the order that goes with their number.
            band_dim: the dimension of bands; None takes band, bands, variable, channel or
                wavelength.
            scale: reflectance per number; None takes ``scale_factor``, or finds it out.
            offset: reflectance at number 0; None takes ``add_offset``, or finds it out.
            nodata: number that means "not observed"; None takes what rioxarray finds.
            model: name or file of a model, or one that `load_model` gave.
            probability: whether to return the probability of water in place of the mask.
            options: further fields of `RunConfig`.

        Returns:
            Mask codes uint8 (0 land, 1 water, 2 obscured, 255 not observed; CF flags), or the water
            probability float32, NaN where not observed.

        Raises:
            SceneError: a band is missing, or the numbers cannot be reflectance.
            ConfigError: no dimension of bands or of space, or an argument breaks a rule.
        """
        array = self._array
        band_dim = _band_dim(array) if band_dim is None else band_dim
        y, x = _space(array)
        further = [dim for dim in array.dims if dim not in {band_dim, y, x}]
        if len(further) > 1:
            raise ConfigError(
                f"besides bands, {y} and {x} there may be one dimension, like time; there are "
                f"{', '.join(map(str, further))}. Choose a step of the others with isel."
            )
        if not array.size:
            raise ConfigError(f"an array must have a pixel; its shape is {dict(array.sizes)}.")
        told = {
            "bands": bands, "scale": scale, "offset": offset, "nodata": nodata, "model": model,
            "probability": probability, **options,
        }  # fmt: skip
        array = array.transpose(*further, band_dim, y, x)
        if not further:
            return _described(_one(array, band_dim, told), array, probability=probability)
        steps = [array.isel({further[0]: i}) for i in range(array.sizes[further[0]])]
        made = xr.concat(
            [_one(step, band_dim, told) for step in steps],
            dim=further[0], coords="different", compat="equals", join="exact",
        )  # fmt: skip
        return _described(made, array, probability=probability)


@xr.register_dataset_accessor("geounet")  # type: ignore[no-untyped-call]
class GeounetDataset:
    """What geounet does with a Dataset of a variable a band."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def segment(self, **options: Any) -> xr.DataArray:
        """Segment it; see `GeounetDataArray.segment`. Variables that are no bands are left out."""
        names = [name for name in self._dataset.data_vars if common_name(str(name))]
        if not names:
            raise ConfigError(
                f"a dataset must have variables that are bands, like B03 or green; it has "
                f"{', '.join(map(str, self._dataset.data_vars)) or 'none'}."
            )
        chosen = self._dataset[names]
        first = chosen[names[0]]
        array = chosen.to_dataarray("band")
        array.attrs = {
            key: value
            for key, value in first.attrs.items()
            if all(chosen[name].attrs.get(key) == value for name in names)
        }
        each = [scale_and_offset(chosen[name].attrs, 1) for name in names]
        array.attrs |= {"scales": [s for (s,), _ in each], "offsets": [o for _, (o,) in each]}
        array.encoding = dict(first.encoding)
        if options.get("nodata") is None:
            told = {name: chosen[name].rio.nodata for name in names}
            options["nodata"] = one_nodata(told, "the dataset")
        found: xr.DataArray = array.geounet.segment(band_dim="band", **options)
        return found


def _band_dim(array: xr.DataArray) -> Hashable:
    found = [dim for dim in BAND_DIMS if dim in array.dims]
    if len(found) != 1:
        raise ConfigError(
            f"the dimension of bands is called one of {', '.join(BAND_DIMS)}; there are "
            f"{', '.join(map(str, array.dims))}. Name it with band_dim=."
        )
    return found[0]


def _space(array: xr.DataArray) -> tuple[Hashable, Hashable]:
    try:
        return array.rio.y_dim, array.rio.x_dim
    except RioXarrayError as error:
        raise ConfigError(
            f"there must be dimensions of space, like y and x; there are "
            f"{', '.join(map(str, array.dims))}. Name them with .rio.set_spatial_dims."
        ) from error


def _one(array: xr.DataArray, band_dim: Hashable, told: dict[str, Any]) -> xr.DataArray:
    """The mask of one scene [band, y, x]."""
    told = dict(told)
    facts = {name: told.pop(name) for name in ("bands", "scale", "offset", "nodata")}
    if facts["nodata"] is None:
        facts["nodata"] = array.rio.nodata
    scene = array_scene(array.data, band_names(array, band_dim), stated=_stated(array), **facts)
    warn_of_assumptions(scene)
    lazy = hasattr(array.data, "dask")
    data = (segment_lazily if lazy else segment_scene)(scene, **told)
    return array.isel({band_dim: 0}, drop=True).copy(data=data)


def _stated(array: xr.DataArray) -> Statement | None:
    """Scale and offset that come with the array, or that xarray has applied."""
    count = array.sizes[array.dims[0]]
    stated = scale_and_offset(array.attrs, count)
    if stated != ((1.0,) * count, (0.0,) * count):
        return Statement("attributes", *stated)
    applied = scale_and_offset(array.encoding, count)
    if applied != stated:
        return Statement("attributes, which xarray applied", *stated)
    return None


def _described(result: xr.DataArray, source: xr.DataArray, *, probability: bool) -> xr.DataArray:
    """With CF attributes, and the CRS of what it was made from."""
    result.attrs = {"geounet_version": geounet.__version__}
    result.encoding = {}
    if probability:
        result.name = "water_probability"
        result.attrs |= {"long_name": "probability of water where the surface shows", "units": "1"}
    else:
        result.name = "land_water"
        result.attrs |= {
            "long_name": "land/water mask",
            "flag_values": np.array(list(CLASSES), np.uint8),
            "flag_meanings": " ".join(name.replace(" ", "_") for name in CLASSES.values()),
            "_FillValue": NOT_OBSERVED,
        }
    if source.rio.grid_mapping in result.coords:
        result.encoding["grid_mapping"] = source.rio.grid_mapping
    elif source.rio.crs is not None:
        result = result.rio.write_crs(source.rio.crs)
    return result

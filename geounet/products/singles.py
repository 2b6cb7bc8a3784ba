"""Folders and lists of single-band files that are told apart by their names.

HLS L30 and S30 (NASA, *HLS Product User Guide*, version 2.0: reflectance = DN * 0.0001, nodata
-9999), EO Browser's exports (``…_Sentinel-2_L2A_B03_(Raw).tiff``), and any others whose names end
with their band's name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from geounet.errors import SceneError
from geounet.products.product import CLOUD_NAMES, CloudLayer, Layer, Product
from geounet.products.stacking import stack, stacked_product
from geounet.radiometry import Evidence, Statement, state_bands
from geounet.sensors import band_in, common_name, find_sensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from geounet.products.bundle import Bundle
    from geounet.products.stacking import Stack
    from geounet.resampling import Resampling

__all__ = ["RASTERS", "find_hls", "find_singles"]

RASTERS = frozenset({".tif", ".tiff", ".jp2", ".img", ".vrt", ".bil", ".bsq", ".dat", ".png"})
"""Endings of the files that are taken for bands or scenes in a folder or archive."""

_HLS_FILE = re.compile(
    r"(?P<scene>HLS\.(?P<sensor>[LS]30)\.T\w{5}\.(?P<time>\d{7}T\d{6})\.v[\d.]+)"
    r"\.(?P<band>B\d[\dA]|Fmask)\.tiff?"
)
_HLS_THERMAL = {("L30", "B10"), ("L30", "B11")}
_EO_BROWSER = re.compile(r".*_\(Raw\)\.tiff?", re.IGNORECASE)
_EO_BROWSER_SCALES = {"uint8": 1 / 255, "uint16": 1 / 65535, "float32": 1.0}
"""Its raw bands hold reflectance times the type's greatest number (``getRawBandsScalingFactor`` in
https://github.com/sentinel-hub/EOBrowser), not times 10000; Sentinel Hub has no offset in them."""


def find_hls(bundle: Bundle, *, resampling: Resampling) -> Product | None:
    """A Harmonized Landsat Sentinel-2 granule, if this is one.

    Raises:
        SceneError: it holds several granules, no band, or a file that is missing or damaged.
    """
    files = _hls_files(bundle)
    if not files:
        return None
    clouds = next((name for name, match in files.items() if match["band"] == "Fmask"), None)
    bands = {
        match["band"]: name
        for name, match in files.items()
        if match["band"] != "Fmask" and (match["sensor"], match["band"]) not in _HLS_THERMAL
    }
    any_file = next(iter(files.values()))
    stacked = stack(
        [Layer(bundle.gdal(name), 1, band) for band, name in sorted(bands.items())], nodata=-9999
    )
    count, sensor = len(stacked.layers), f"hls-{any_file['sensor'].lower()}"
    return stacked_product(
        stacked,
        Evidence(
            dtype=stacked.dtype,
            count=count,
            product=Statement("HLS product guide", (1e-4,) * count, (0.0,) * count),
            bands=state_bands("band metadata", stacked.scales, stacked.offsets),
            sensor=sensor,
        ),
        kind="hls",
        uri=bundle.uri,
        stem=any_file["scene"],
        resampling=resampling,
        acquired=_day_of_year(any_file["time"]),
        clouds=CloudLayer(bundle.gdal(clouds), 1, "fmask") if clouds else None,
    )


def _hls_files(bundle: Bundle) -> dict[str, re.Match[str]]:
    """The files of a granule, and what their names say."""
    files = bundle.matching(_HLS_FILE)
    scenes = sorted({match["scene"] for match in files.values()})
    if len(scenes) > 1:
        raise SceneError(
            f"a folder must hold one HLS granule; {bundle.uri} holds {', '.join(scenes[:4])}. "
            f"Give the folder of one of them."
        )
    return files


def find_singles(
    bundle: Bundle, *, resampling: Resampling, wanted: Sequence[str] | None
) -> Product | None:
    """Single-band files named by their bands, if there are at least two.

    Raises:
        SceneError: a band occurs more than once, other scenes lie beside the bands' folder, a file
            is missing or damaged, or the bands do not fit onto one grid.
    """
    named = _named_bands(bundle.names)
    if len(named) < 2:
        return None
    _refuse_twice(bundle, named)
    _refuse_strangers(bundle, named)
    layers = [Layer(bundle.gdal(names[0]), 1, band) for band, names in sorted(named.items())]
    first = PurePosixPath(named[layers[0].name][0]).name
    found = find_sensor(name=_told_by(first, bundle), bands=[layer.name for layer in layers])
    common = {layer.name: common_name(layer.name, found.sensor) for layer in layers}
    stacked = stack(
        layers, wanted=[own for own, name in common.items() if wanted is None or name in wanted]
    )
    return stacked_product(
        stacked,
        Evidence.of(
            found,
            dtype=stacked.dtype,
            count=len(stacked.layers),
            product=_of_eo_browser(first, stacked),
            bands=state_bands("band metadata", stacked.scales, stacked.offsets),
        ),
        kind="bands",
        uri=bundle.uri,
        stem=_stem(bundle, [names[0] for names in named.values()]),
        resampling=resampling,
        acquired=_one_day(first),
        clouds=_cloud_layer(bundle),
    )


def _refuse_twice(bundle: Bundle, named: Mapping[str, Sequence[str]]) -> None:
    for band, names in named.items():
        if len(names) > 1:
            raise SceneError(
                f"each band may occur once; {bundle.uri} holds {len(names)} files of {band}: "
                f"{', '.join(names[:4])}. Give one scene's files."
            )


def _told_by(first: str, bundle: Bundle) -> str:
    """The name that says what the scene is: a product's identifier as the folder's, else a file's.

    A mere word in a folder's name, like ``landsat8``, may be of anything else in it.
    """
    folder = Path(bundle.uri).name
    whole = find_sensor(name=folder).level and not find_sensor(name=first).level
    return f"{first} {folder}" if whole and bundle.kind != "list" else first


def _of_eo_browser(name: str, stacked: Stack) -> Statement | None:
    """What EO Browser's way of naming its raw bands says of their numbers."""
    scale = _EO_BROWSER_SCALES.get(stacked.dtype)
    if scale is None or not _EO_BROWSER.fullmatch(name):
        return None
    count = len(stacked.layers)
    return Statement("way EO Browser exports raw bands", (scale,) * count, (0.0,) * count)


def _cloud_layer(bundle: Bundle) -> CloudLayer | None:
    """The file that says where clouds are, by its name; of two the finer one comes first."""
    found = [
        (name, rule)
        for name in bundle.names
        for rule in (CLOUD_NAMES.get(_last_part(PurePosixPath(name).stem)),)
        if rule and PurePosixPath(name).suffix.lower() in RASTERS
    ]
    return CloudLayer(bundle.gdal(found[0][0]), 1, found[0][1]) if found else None


def _last_part(stem: str) -> str:
    """What a file's name ends with, in lower case and without its pixel size."""
    short = re.sub(r"_[126]0m$", "", stem.lower())
    return next((end for end in CLOUD_NAMES if re.search(rf"(^|[ _.-]){end}$", short)), "")


def _named_bands(names: Iterable[str]) -> dict[str, list[str]]:
    """Band → files named by it."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        path = PurePosixPath(name)
        if path.suffix.lower() in RASTERS and (band := band_in(path.stem)):
            found[band].append(name)
    return found


def _refuse_strangers(bundle: Bundle, named: Mapping[str, Sequence[str]]) -> None:
    """Refuse a folder of many scenes, one of which happens to be a folder of bands."""
    homes = {PurePosixPath(names[0]).parent for names in named.values()}
    if PurePosixPath() in homes or bundle.kind == "list":
        return
    scenes = RASTERS - {".png"}  # quicklooks
    others = [PurePosixPath(n) for n in bundle.names if PurePosixPath(n).suffix.lower() in scenes]
    strangers = [str(path) for path in others if path.parent not in homes]
    if strangers:
        raise SceneError(
            f"a scene's folder holds one product; {bundle.uri} holds bands in "
            f"{', '.join(sorted(map(str, homes)))}, and {', '.join(strangers[:4])} beside them. "
            f"Give the folder of the bands, or one of the others. geounet batch takes many scenes."
        )


def _stem(bundle: Bundle, names: Sequence[str]) -> str:
    """The folder's or archive's name; for a list, what its files' names have in common."""
    if bundle.kind != "list":
        path = Path(bundle.uri).absolute()
        return path.name if path.is_dir() else path.stem
    common = Path(bundle.uri).name.rstrip("*_-. ")
    return common or Path(names[0]).parent.name or "scene"


def _day_of_year(text: str) -> str:
    """``2022078T092029`` as ISO 8601."""
    day = datetime.strptime(text, "%Y%jT%H%M%S").replace(tzinfo=UTC)
    return day.isoformat().replace("+00:00", "Z")


def _one_day(name: str) -> str | None:
    """The day in a file's name, if it holds one and no other."""
    days = set(re.findall(r"(?<!\d)(\d{4}-\d{2}-\d{2})(?!\d)", name))
    return days.pop() if len(days) == 1 else None

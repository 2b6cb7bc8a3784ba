"""Landsat Collection 2 as downloaded: a folder or tar of single-band files with their MTL.

Names and metadata are those of USGS, *Landsat Collection 2 Data Dictionary*, and *Landsat 8-9
Collection 2 Level 2 Science Product Guide* (LSDS-1619). Surface reflectance is
DN * 0.0000275 - 0.2; at the top of the atmosphere it is
(DN * multiplier + addend) / sin(sun elevation).
"""

from __future__ import annotations

import math
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from geounet.errors import SceneError
from geounet.products.metadata import Groups, parse_mtl
from geounet.products.product import CloudLayer, Layer, Product
from geounet.products.stacking import stack, stacked_product
from geounet.radiometry import Evidence, Statement

if TYPE_CHECKING:
    from geounet.products.bundle import Bundle
    from geounet.products.stacking import Stack
    from geounet.resampling import Resampling

__all__ = ["find_landsat"]

_BAND_FILE = re.compile(
    # Level 2 of Landsat 4 to 7 has surface temperature as ST_B6.
    r"(?P<scene>L[COTEM]0\d_(?P<level>L\d\w\w)_.+?)(?<!_ST)_(?P<band>(?:SR_)?B\d)\.tiff?",
    re.IGNORECASE,
)
_PIXEL_QUALITY = re.compile(r"L[COTEM]0\d_L\d\w\w_.+_QA_PIXEL\.tiff?", re.IGNORECASE)
_METADATA = re.compile(r".*_MTL\.(txt|xml|json)", re.IGNORECASE)

_REFLECTIVE = {"4": "123457", "5": "123457", "7": "123457", "8": "1234567", "9": "1234567"}
"""Satellite → numbers of the bands of reflected light at 30 m."""


def find_landsat(bundle: Bundle, *, resampling: Resampling) -> Product | None:
    """A Landsat Collection 2 product, if this is one.

    Raises:
        SceneError: it holds several scenes, no band, or a file that is missing or damaged.
    """
    files = bundle.matching(_BAND_FILE)
    metadata = next(iter(bundle.matching(_METADATA)), None)
    if not files and metadata is None:
        return None
    scene = _one_scene(files, bundle)
    level, satellite = scene[5:9].upper(), scene[3]
    names = _reflective(files, satellite)
    groups = parse_mtl(bundle.read(metadata), metadata) if metadata else {}
    layers = [Layer(bundle.gdal(name), 1, band) for band, name in sorted(names.items())]
    stacked = stack(layers, nodata=0)
    source = PurePosixPath(metadata).name if metadata else ""
    clouds = next(iter(bundle.matching(_PIXEL_QUALITY)), None)
    return stacked_product(
        stacked,
        Evidence(
            dtype=stacked.dtype,
            count=len(stacked.layers),
            product=_statement(groups, stacked, level, source),
            sensor=f"landsat-{satellite}",
            level=level,
            collection=2,
        ),
        kind="landsat",
        uri=bundle.uri,
        stem=scene,
        resampling=resampling,
        acquired=_acquired(groups, scene),
        clouds=CloudLayer(bundle.gdal(clouds), 1, "qa_pixel") if clouds else None,
    )


def _one_scene(files: dict[str, re.Match[str]], bundle: Bundle) -> str:
    scenes = sorted({match["scene"] for match in files.values()})
    if len(scenes) != 1:
        raise SceneError(
            f"a Landsat folder must hold the bands of one scene; {bundle.uri} holds "
            f"{', '.join(scenes) or 'metadata and no band (*_B?.TIF)'}. Give one scene's folder."
        )
    return scenes[0]


def _reflective(files: dict[str, re.Match[str]], satellite: str) -> dict[str, str]:
    """Band → file, of the bands of reflected light at 30 m."""
    numbers = _REFLECTIVE.get(satellite, "1234567")
    return {
        match["band"].upper(): name for name, match in files.items() if match["band"][-1] in numbers
    }


def _number(groups: Groups, group: str, key: str) -> float | None:
    text = groups.get(group, {}).get(key)
    if text is None:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise SceneError(
            f"{key} in the metadata must be a number; got {text!r}. Get the product again."
        ) from error


def _statement(groups: Groups, stacked: Stack, level: str, source: str) -> Statement | None:
    """The metadata's word on the bands' numbers; None where it has none for one of them."""
    surface = level.startswith("L2")
    group = "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS" if surface else "LEVEL1_RADIOMETRIC_RESCALING"
    numbers = [layer.name[-1] for layer in stacked.layers]
    scales = [_number(groups, group, f"REFLECTANCE_MULT_BAND_{n}") for n in numbers]
    offsets = [_number(groups, group, f"REFLECTANCE_ADD_BAND_{n}") for n in numbers]
    if any(value is None for value in (*scales, *offsets)):
        return None
    sun = None if surface else _number(groups, "IMAGE_ATTRIBUTES", "SUN_ELEVATION")
    if not surface and sun is None:
        return None
    if sun is not None and not 0 < sun <= 90:
        raise SceneError(
            f"reflectance needs the sun above the horizon; {source} says SUN_ELEVATION {sun:g}. "
            f"Use a scene taken by day."
        )
    light = math.sin(math.radians(sun)) if sun is not None else 1.0
    return Statement(
        source + (f", sun {sun:.1f} degrees above the horizon" if sun else ""),
        tuple(value / light for value in scales if value is not None),
        tuple(value / light for value in offsets if value is not None),
    )


def _acquired(groups: Groups, scene: str) -> str | None:
    """Day and time, or the day in the name."""
    facts = groups.get("IMAGE_ATTRIBUTES", {})
    day, time = facts.get("DATE_ACQUIRED"), facts.get("SCENE_CENTER_TIME", "")
    if day:
        return f"{day}T{time}" if time else day
    named = re.search(r"_(\d{4})(\d{2})(\d{2})_", scene)
    return "-".join(named.groups()) if named else None

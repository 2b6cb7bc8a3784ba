"""PlanetScope as ordered: an image, and beside it its metadata and its usable-data mask.

Names, bands and units are those of Planet, *PlanetScope Product Specification*: surface reflectance
(``_SR``) is reflectance * 10000; the others hold radiance, which the metadata's
``reflectanceCoefficient`` of each band turns into reflectance at the top of the atmosphere.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from geounet.errors import SceneError
from geounet.products.bundle import Bundle
from geounet.products.metadata import local_name, parse_xml, text_of
from geounet.products.product import CloudLayer, Product
from geounet.products.raster import raster_product
from geounet.radiometry import Statement

if TYPE_CHECKING:
    from xml.etree import ElementTree as ET

__all__ = ["find_planetscope", "planetscope_beside"]

_IMAGE = re.compile(
    r"(?P<scene>\d{8}_\d{6}_\w+)_AnalyticMS(?P<surface>_SR)?(?!\w*_metadata)\w*\.tiff?",
    re.IGNORECASE,
)
_MASK = re.compile(r"(?P<scene>\d{8}_\d{6}_\w+)_udm2\w*\.tiff?", re.IGNORECASE)
_METADATA = re.compile(r"(?P<scene>\d{8}_\d{6}_\w+)_AnalyticMS\w*_metadata\w*\.xml", re.IGNORECASE)


def find_planetscope(bundle: Bundle) -> Product | None:
    """The PlanetScope image of a folder or archive, surface reflectance first, if it has one.

    Raises:
        SceneError: it holds several scenes, or a file that is damaged.
    """
    images = bundle.matching(_IMAGE)
    if not images:
        return None
    scenes = sorted({match["scene"] for match in images.values()})
    if len(scenes) > 1:
        raise SceneError(
            f"a scene's folder holds one product; {bundle.uri} holds {len(scenes)}: "
            f"{', '.join(scenes[:4])}{', …' if len(scenes) > 4 else ''}. Give the path of one."
        )
    best = min(images, key=lambda name: (images[name]["surface"] is None, name))
    return _described(bundle, best, images[best])


def planetscope_beside(path: str) -> Product | None:
    """A PlanetScope image by its own path, with what lies beside it."""
    image = Path(path)
    match = _IMAGE.fullmatch(image.name)
    if match is None or not image.is_file():
        return None
    folder = image.absolute().parent
    names = tuple(sorted(file.name for file in folder.iterdir()))
    bundle = Bundle(path, f"{folder}/", names, "folder", folder)
    return _described(bundle, image.name, match)


def _described(bundle: Bundle, name: str, match: re.Match[str]) -> Product:
    """An image with what the files of its scene say."""
    scene, surface = match["scene"], match["surface"] is not None
    product = raster_product(bundle.gdal(name), uri=bundle.uri)
    mask = _of_scene(bundle, _MASK, scene)
    metadata = _of_scene(bundle, _METADATA, scene)
    root = parse_xml(bundle.read(metadata), metadata) if metadata else None
    said = None if surface or root is None else _coefficients(root, str(metadata), product)
    return replace(
        product,
        kind="planetscope",
        stem=PurePosixPath(name).stem,
        evidence=replace(product.evidence, product=said),
        acquired=(text_of(root, "acquisitionDateTime") if root is not None else None)
        or _time_in(scene),
        clouds=CloudLayer(bundle.gdal(mask), 1, "udm2") if mask else None,
    )


def _of_scene(bundle: Bundle, pattern: re.Pattern[str], scene: str) -> str | None:
    found = bundle.matching(pattern).items()
    return next((name for name, match in found if match["scene"] == scene), None)


def _coefficients(root: ET.Element, name: str, product: Product) -> Statement | None:
    """Reflectance per number of radiance, if the metadata has it for each of the image's bands."""
    found: dict[str | None, str | None] = {
        text_of(band, "bandNumber"): text_of(band, "reflectanceCoefficient")
        for band in root.iter()
        if local_name(band) == "bandSpecificMetadata"
    }
    numbers = [found.get(str(i)) for i in range(1, product.evidence.count + 1)]
    if not all(numbers):
        return None
    try:
        scale = tuple(float(number or "") for number in numbers)
    except ValueError as error:
        raise SceneError(
            f"reflectanceCoefficient in {name} must be a number; got {numbers}. Get the product "
            f"again."
        ) from error
    return Statement(PurePosixPath(name).name, scale, (0.0,) * len(scale))


def _time_in(scene: str) -> str:
    """``20210809_043211_…`` as ISO 8601."""
    day, time = scene[:8], scene[9:15]
    return f"{day[:4]}-{day[4:6]}-{day[6:]}T{time[:2]}:{time[2:4]}:{time[4:]}Z"

"""Sentinel-2 products as downloaded: a ``.SAFE`` folder, its zip, or a folder of one tile's JP2s.

Names, folders and metadata are those of ESA, *Sentinel-2 Products Specification Document*
(S2-PDGS-TAS-DI-PSD), versions 13 to 15. From processing baseline 04.00 on the metadata states an
offset per band (``RADIO_ADD_OFFSET``, ``BOA_ADD_OFFSET``): reflectance = (DN + offset) /
quantification value. DN 0 is nodata, 65535 saturated.
"""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from geounet.errors import GeounetWarning, SceneError
from geounet.products.metadata import local_name, parse_xml, text_of
from geounet.products.product import CloudLayer, Layer, Product
from geounet.products.stacking import stack, stacked_product
from geounet.radiometry import Evidence, Statement
from geounet.sensors import common_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from xml.etree import ElementTree as ET

    from geounet.products.bundle import Bundle
    from geounet.products.stacking import Stack
    from geounet.resampling import Resampling

__all__ = ["find_sentinel2"]

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""In the order of ``band_id`` in the metadata."""

_PIXELS = dict.fromkeys(BANDS, 20) | dict.fromkeys(("B02", "B03", "B04", "B08"), 10)
_PIXELS |= dict.fromkeys(("B01", "B09", "B10"), 60)
"""Side of a band's pixels in metres."""

_BAND_FILE = re.compile(
    r"(?P<scene>.*?)[_.]?(?<![A-Za-z0-9])(?P<band>B(?:0[1-9]|1[0-2]|8A)|SCL)(?:_(?P<pixel>[126]0)m)?\.jp2",
    re.IGNORECASE,
)
_METADATA = re.compile(r"(.*_)?MTD_(MSI|SAF)L(1C|2A).*\.xml")
_OLD_MASK = re.compile(r"(.*_)?MSK_CLOUDS_(.*_)?B00(_.*)?\.GML")
_NAME = re.compile(r"S2[A-D]_MSI(?P<level>L1C|L2A)_(?P<time>\d{8}T\d{6})_N(?P<base>\d{4})_")


@dataclass(frozen=True, slots=True)
class _File:
    """One band at one pixel size."""

    name: str
    band: str
    pixel: int
    scene: str
    """What comes before the band in its name; of a bare ``R10m/B02.jp2`` the folder around it."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the metadata and the names say."""

    source: str = ""
    title: str | None = None
    """The product's name without ``.SAFE``."""
    level: str | None = None
    baseline: float | None = None
    acquired: str | None = None
    quantification: float | None = None
    offsets: Mapping[str, float] | None = None
    """Band → what is added to its stored number."""
    listed: tuple[str, ...] = ()
    """Names of the images that the product was made with."""


def find_sentinel2(
    bundle: Bundle, *, resampling: Resampling, wanted: Sequence[str] | None
) -> Product | None:
    """A Sentinel-2 product, if this is one.

    For each band the finest file there is is taken, on the finest grid that the wanted bands have;
    by default the bands of 10 and 20 m are wanted.

    Raises:
        SceneError: it holds several scenes, no band, or a file that is missing or damaged.
    """
    metadata = _find_metadata(bundle)
    files = _band_files(bundle.names)
    if metadata is None and not any(file.band != "SCL" for file in files):
        return None
    _check_one_scene(files, bundle)
    facts = _facts(metadata, bundle, files)
    chosen = _choose([file for file in files if file.band != "SCL"], wanted)
    _check_images(bundle, facts, files, chosen)
    layers = [Layer(bundle.gdal(file.name), 1, file.band) for file in chosen]
    stacked = stack(layers, nodata=0)
    return stacked_product(
        stacked,
        _evidence(facts, stacked),
        kind="sentinel-2",
        uri=bundle.uri,
        stem=facts.title or _stem(bundle, chosen[0]),
        resampling=resampling,
        acquired=facts.acquired,
        clouds=_clouds(bundle, files, facts.level),
    )


# -- which files -----------------------------------------------------------------------------------


def _band_files(names: Iterable[str]) -> list[_File]:
    """The bands among a product's files; masks (``MSK_DETFOO_B02.jp2``) have bands' endings too."""
    found = []
    for name in names:
        home, _, own = name.rpartition("/")
        match = _BAND_FILE.fullmatch(own)
        if match is None or "MSK_" in name or "QI_DATA" in name:
            continue
        band = match["band"].upper()
        folder = re.search(r"R([126]0)m/", name)
        pixel = match["pixel"] or (folder[1] if folder else None) or _PIXELS.get(band, 20)
        scene = match["scene"] or re.sub(r"/?R[126]0m$", "", home) or "."
        found.append(_File(name, band, int(pixel), scene))
    return found


def _check_one_scene(files: Sequence[_File], bundle: Bundle) -> None:
    scenes = sorted({file.scene for file in files})
    if len(scenes) > 1:
        raise SceneError(
            f"a product must hold one scene; {bundle.uri} holds {len(scenes)}: "
            f"{', '.join(scenes[:4])}{', …' if len(scenes) > 4 else ''}. "
            f"Give the folder of one of them."
        )


def _choose(files: Sequence[_File], wanted: Sequence[str] | None) -> list[_File]:
    """For each band its finest file that is not finer than the wanted bands' finest."""

    def is_wanted(band: str) -> bool:
        return _PIXELS[band] <= 20 if wanted is None else common_name(band) in wanted

    deciding = [file.pixel for file in files if is_wanted(file.band)]
    finest = min(deciding or [file.pixel for file in files], default=0)
    fitting = [file for file in files if file.pixel >= finest]
    best = {f.band: f for f in sorted(fitting, key=lambda f: (-f.pixel, f.name))}
    return [best[band] for band in BANDS if band in best]


def _clouds(bundle: Bundle, files: Sequence[_File], level: str | None) -> CloudLayer | None:
    """Scene classes; of Level 1C its cloud mask: an image, or before baseline 04.00 polygons.

    A Level 2A product has that of the Level 1C that it was made from too; it is coarser and knows
    no shadow.
    """
    classes = sorted((f for f in files if f.band == "SCL"), key=lambda f: f.pixel)
    if classes:
        return CloudLayer(bundle.gdal(classes[0].name), 1, "scl")
    if level != "L1C":
        return None
    masks = {PurePosixPath(name).name.upper(): name for name in bundle.names if "MSK_C" in name}
    if image := masks.get("MSK_CLASSI_B00.JP2"):
        return CloudLayer(bundle.gdal(image), 1, "classi")
    polygons = next((name for own, name in masks.items() if _OLD_MASK.fullmatch(own)), None)
    if polygons is None:
        return None
    return CloudLayer(bundle.gdal(polygons), 0, "polygons", partial(bundle.read, polygons))


def _check_whole(bundle: Bundle, file: _File) -> None:
    """A JPEG 2000 codestream ends with a marker that occurs nowhere in it (ISO/IEC 15444-1, A.4.4).

    Decoders make up what is missing from one that was cut short, so it has to be looked for. Other
    boxes may follow.
    """
    path = Path(bundle.gdal(file.name))
    if not path.is_file():  # in an archive, elsewhere, or gone: GDAL says so
        return
    with path.open("rb") as raw:
        size = raw.seek(0, 2)
        raw.seek(max(size - (1 << 16), 0))
        end = raw.read()
    if b"\xff\xd9" not in end:
        raise SceneError(
            f"band files must be whole; {file.name} of {bundle.uri} ends early, after {size} "
            f"bytes. The download was cut short; get it again."
        )


def _check_images(
    bundle: Bundle, facts: _Facts, files: Sequence[_File], chosen: Sequence[_File]
) -> None:
    """Refuse a product without bands or with damaged ones; say which are not there."""
    if not chosen:
        raise SceneError(
            f"a Sentinel-2 product must hold bands; {bundle.uri} holds its metadata and no "
            f"*_B??.jp2. Get the product again, or give the folder that has them."
        )
    _warn_of_lost(facts, files)
    for file in chosen:
        _check_whole(bundle, file)


def _warn_of_lost(facts: _Facts, files: Sequence[_File]) -> None:
    """Say once which bands the product was made with and is without now."""
    made = {(f.band, f.pixel) for f in _band_files(f"{name}.jp2" for name in facts.listed)}
    there = {f.band: min(o.pixel for o in files if o.band == f.band) for f in files}
    lost = []
    for band in BANDS:
        finest = min((pixel for other, pixel in made if other == band), default=None)
        if finest is not None and band not in there:
            lost.append(f"{band} (missing)")
        elif finest is not None and there[band] > finest:
            lost.append(f"{band} ({there[band]} m, not {finest} m)")
    if lost:
        warnings.warn(
            f"not all files that {facts.source} lists are there: {', '.join(lost)}. The scene is "
            f"made of those that are.",
            GeounetWarning,
            stacklevel=5,
        )


# -- metadata --------------------------------------------------------------------------------------


def _find_metadata(bundle: Bundle) -> tuple[str, bytes] | None:
    """Name and content of the product's metadata, also of a product that this is a part of."""
    named = list(bundle.matching(_METADATA))
    if len(named) > 1:
        raise SceneError(
            f"a product must hold one scene; {bundle.uri} holds {len(named)}: "
            f"{', '.join(named[:4])}. Give one of them."
        )
    if named:
        return PurePosixPath(named[0]).name, bundle.read(named[0])
    if bundle.kind == "folder":
        for folder in [*bundle.path.absolute().parents][:4]:
            if "GRANULE" in bundle.path.absolute().relative_to(folder).parts:
                for path in folder.glob("MTD_MSIL*.xml"):
                    return path.name, path.read_bytes()
    return None


def _facts(metadata: tuple[str, bytes] | None, bundle: Bundle, files: Sequence[_File]) -> _Facts:
    if metadata is not None:
        return _facts_of_xml(parse_xml(metadata[1], metadata[0]), metadata[0])
    text = " ".join([Path(bundle.uri).name, *bundle.names[:1]])
    name = _NAME.search(text)
    time = re.search(r"(?<!\d)(\d{8}T\d{6})(?!\d)", name["time"] if name else text)
    return _Facts(
        level=name["level"] if name else _level_of_files(files),
        baseline=int(name["base"]) / 100 if name else None,
        acquired=_iso(time[1]) if time else None,
    )


def _facts_of_xml(root: ET.Element, source: str) -> _Facts:
    level = (text_of(root, "PROCESSING_LEVEL") or source).replace("Level-", "L")
    told = re.search(r"L(1C|2A)", level)
    second = told is not None and told[1] == "2A"
    scale = text_of(root, "BOA_QUANTIFICATION_VALUE" if second else "QUANTIFICATION_VALUE")
    title = text_of(root, "PRODUCT_URI") or text_of(root, "PRODUCT_URI_2A") or ""
    tag = "BOA_ADD_OFFSET" if second else "RADIO_ADD_OFFSET"
    offsets = {
        BANDS[int(element.get("band_id", "-1"))]: _number(element.text, tag, source)
        for element in root.iter()
        if local_name(element) == tag and element.get("band_id", "") in _BAND_IDS
    }
    baseline = text_of(root, "PROCESSING_BASELINE")
    return _Facts(
        source=source,
        title=Path(title).stem or None,
        level=f"L{told[1]}" if told else None,
        baseline=_number(baseline, "PROCESSING_BASELINE", source) if baseline else None,
        acquired=text_of(root, "PRODUCT_START_TIME"),
        quantification=_number(scale, "QUANTIFICATION_VALUE", source) if scale else None,
        offsets=offsets or None,
        listed=tuple(
            e.text.strip() for e in root.iter() if local_name(e) == "IMAGE_FILE" and e.text
        ),
    )


_BAND_IDS = frozenset(str(i) for i in range(len(BANDS)))


def _number(text: str | None, name: str, source: str) -> float:
    try:
        return float(text or "")
    except ValueError as error:
        raise SceneError(
            f"{name} in {source} must be a number; got {text!r}. Get the product again."
        ) from error


def _level_of_files(files: Sequence[_File]) -> str | None:
    """L2A files carry their pixel size, and only L1C has the cirrus band."""
    if any(re.search(r"_[126]0m\.jp2$|R[126]0m/", f.name) or f.band == "SCL" for f in files):
        return "L2A"
    return "L1C" if any(f.band == "B10" for f in files) else None


def _evidence(facts: _Facts, stacked: Stack) -> Evidence:
    return Evidence(
        dtype=stacked.dtype,
        count=len(stacked.layers),
        product=_statement(facts, stacked.layers),
        sensor=f"sentinel-2-{facts.level.lower()}" if facts.level else "sentinel-2",
        level=facts.level,
        baseline=facts.baseline,
    )


def _statement(facts: _Facts, layers: Sequence[Layer]) -> Statement | None:
    """The metadata's word on the numbers; None where it does not have the offset it should."""
    if facts.quantification is None:
        return None
    if facts.offsets is None and facts.baseline is not None and facts.baseline >= 4:
        return None
    scale = 1 / facts.quantification if facts.quantification else math.inf  # which is refused
    offsets = facts.offsets or {}
    return Statement(
        facts.source,
        (scale,) * len(layers),
        tuple(offsets.get(layer.name, 0.0) * scale for layer in layers),
    )


def _iso(text: str) -> str:
    """``20170216T102101`` as ISO 8601."""
    return f"{text[:4]}-{text[4:6]}-{text[6:11]}:{text[11:13]}:{text[13:15]}Z"


def _stem(bundle: Bundle, file: _File) -> str:
    """The folder's name, but for those that every product has; of a list what files share."""
    if bundle.kind == "list":
        return PurePosixPath(file.scene).name.strip("_-. ") or "scene"
    for part in reversed([*Path(bundle.uri).absolute().parts]):
        if not re.fullmatch(r"IMG_DATA|R[126]0m|GRANULE", part):
            return Path(part).stem if part.lower().endswith((".safe", ".zip")) else part
    return file.scene

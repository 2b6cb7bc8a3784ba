"""A STAC item: bands in assets of their own, described by JSON.

Read are items of versions 1.0 and 1.1 of the specification (https://stacspec.org) with its ``eo``,
``raster`` and ``alternate-assets`` extensions, from a file or a URL, alone or as the only one of an
item collection. Archives differ in what they fill in; here is what theirs agree on.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from geounet.buckets import fetch, url_of
from geounet.errors import GeounetError, SceneError
from geounet.products.product import CLOUD_NAMES, CloudLayer, Layer, Product
from geounet.products.stacking import stack, stacked_product
from geounet.radiometry import Evidence, Statement, state_bands
from geounet.remote import gdal_path, is_remote, redact, stem
from geounet.sensors import Identity, common_name, find_sensor, is_reflective

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from geounet.products.product import CloudRule
    from geounet.products.stacking import Stack
    from geounet.resampling import Resampling

__all__ = ["find_stac", "read_items"]

_CLOUDS: Mapping[str, CloudRule] = {**CLOUD_NAMES, "pixel_qa": "qa_pixel"}
"""Beginning of an asset's key in lower case → how its numbers are read."""

_PICTURES = frozenset({"thumbnail", "overview", "visual", "metadata"})
"""Roles and keys of assets that hold no reflectance."""

_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
"""With one of these set, assets are read from S3 where an item offers both."""


@dataclass(frozen=True, slots=True)
class _Band:
    """One band of one asset."""

    layer: Layer
    common_name: str
    scale: float | None
    offset: float | None
    nodata: float | None
    rank: tuple[object, ...]
    """The least is the best of several that hold the same band."""


def find_stac(uri: str, *, resampling: Resampling, wanted: Sequence[str] | None) -> Product | None:
    """The scene that a STAC item describes, if this is one.

    Raises:
        SceneError: the item cannot be read, is none, has no band that is known, or an asset of it
            cannot be had; or there are several items.
    """
    if not _is_json(uri):
        return None
    items = read_items(uri)
    if len(items) != 1:
        few = ", ".join(str(item.get("id")) for item in items[:3])
        raise SceneError(
            f"a scene must be one STAC item; {redact(uri)} holds {len(items)}"
            + (f" ({few}{', …' if len(items) > 3 else ''}). Give them to geounet batch." if items
               else ". Give an item that describes a scene.")
        )  # fmt: skip
    try:
        return _product(items[0], uri, resampling, wanted)
    except GeounetError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise SceneError(
            f"a STAC item must be as the specification has it; {redact(uri)} is not: "
            f"{redact(str(error))}. Get it again, or mend it."
        ) from error


def _is_json(uri: str) -> bool:
    """Whether this is a JSON file's name, or an item's address at a STAC API."""
    path = PurePosixPath(urlsplit(uri).path if "://" in uri else uri)
    api = uri.startswith(("http://", "https://")) and path.parent.name == "items"
    return path.suffix.lower() in {".json", ".geojson"} or api


def read_items(uri: str) -> tuple[dict[str, Any], ...]:
    """The items in a STAC item's or item collection's file, as JSON objects.

    Args:
        uri: path or URL.

    Raises:
        SceneError: it cannot be had, or is something else.
    """
    try:
        found = json.loads(_read(uri))
    except json.JSONDecodeError as error:
        raise SceneError(f"a STAC item must be JSON; {redact(uri)} is not: {error}.") from error
    kind = found.get("type") if isinstance(found, dict) else None
    items = [found] if kind == "Feature" else []
    if kind == "FeatureCollection":
        features = found.get("features")
        items = features if isinstance(features, list) else [None]
    if (kind != "FeatureCollection" and not items) or not all(_is_item(item) for item in items):
        raise SceneError(
            f"a JSON file must be a STAC item or item collection, with assets; {redact(uri)} is "
            f"{f'a {kind}' if kind else 'neither'}. Give the address of an item."
        )
    return tuple(items)


def _read(uri: str) -> bytes:
    if is_remote(uri):
        return fetch(uri)
    try:
        return Path(uri).read_bytes()
    except OSError as error:
        raise SceneError(f"a STAC item must be a file that can be read: {uri}: {error}.") from error


def _is_item(item: object) -> bool:
    """Whether it has what an item must have, of the types that it must be."""
    if not isinstance(item, dict) or not isinstance(item.get("assets"), dict):
        return False
    properties, links = item.get("properties") or {}, item.get("links") or []
    objects = [*item["assets"].values(), *(links if isinstance(links, list) else [None])]
    return isinstance(properties, dict) and all(isinstance(one, dict) for one in objects)


# -- the product -----------------------------------------------------------------------------------


def _product(
    item: Mapping[str, Any], uri: str, resampling: Resampling, wanted: Sequence[str] | None
) -> Product:
    properties = item.get("properties") or {}
    found = _identify(item, properties)
    hrefs = _Hrefs(item, uri)
    bands = _choose(item, hrefs, found.sensor)
    name = str(item.get("id"))
    if not bands:
        raise SceneError(
            f"a scene needs assets that hold reflectance; the STAC item {name} has "
            f"{', '.join(item['assets']) or 'none'}, and none is a raster whose band is known."
        )
    stacked = _stacked(bands, name, wanted)
    kept = [band for band in bands if band.layer in stacked.layers]
    return stacked_product(
        stacked,
        Evidence.of(
            found,
            dtype=stacked.dtype,
            count=len(stacked.layers),
            bands=_statement(kept) or state_bands("band metadata", stacked.scales, stacked.offsets),
            offset_removed=properties.get("earthsearch:boa_offset_applied"),
        ),
        kind="stac",
        uri=redact(uri),
        stem=stem(name) or stem(uri),
        resampling=resampling,
        acquired=properties.get("datetime") or properties.get("start_datetime"),
        clouds=_clouds(item, hrefs),
    )


def _stacked(bands: Sequence[_Band], name: str, wanted: Sequence[str] | None) -> Stack:
    deciding = [b.layer.name for b in bands if wanted is None or b.common_name in wanted]
    nodata = {band.nodata for band in bands}
    try:
        return stack(
            [band.layer for band in bands],
            wanted=deciding,
            nodata=nodata.pop() if len(nodata) == 1 else None,
        )
    except SceneError as error:
        # Not its cause: that may show the signature of an asset's address.
        failure = SceneError(f"an asset of the STAC item {name}: {redact(str(error))}")
        failure.passing = error.passing
    raise failure


def _statement(bands: Sequence[_Band]) -> Statement | None:
    """The item's word on the bands' numbers; None unless it speaks of all of them."""
    if all(band.scale is None and band.offset is None for band in bands):
        return None
    if any(band.scale is None for band in bands):
        return None
    return Statement(
        "STAC item",
        tuple(band.scale or 1.0 for band in bands),
        tuple(band.offset or 0.0 for band in bands),
    )


def _identify(item: Mapping[str, Any], properties: Mapping[str, Any]) -> Identity:
    """The sensor, by the first of the item's names that tells it, and what else is said of it."""
    level = str(properties.get("s2:product_type", "")).replace("S2MSI", "L")
    texts = (
        item.get("id"), properties.get("s2:product_uri"), item.get("collection"),
        f"{properties.get('platform')} {level}".replace("-", ""), properties.get("constellation"),
    )  # fmt: skip
    found = next(
        (i for text in texts if text and (i := find_sensor(name=str(text))).sensor), Identity()
    )
    baseline = properties.get("s2:processing_baseline") or properties.get("processing:version")
    return Identity(
        sensor=found.sensor,
        level=found.level or properties.get("landsat:correction") or level or None,
        baseline=_number(baseline) if _is_sentinel2(found.sensor) else None,
        collection=found.collection or _whole(properties.get("landsat:collection_number")),
        source="STAC item",
        conflict=found.conflict,
    )


def _is_sentinel2(sensor: str | None) -> bool:
    return sensor is not None and sensor.startswith("sentinel-2")


def _clouds(item: Mapping[str, Any], hrefs: _Hrefs) -> CloudLayer | None:
    """The asset that says where clouds are; a GeoTIFF rather than a JPEG 2000."""
    found = [
        (_is_jp2(asset), hrefs.of(asset), rule)
        for key, asset in item["assets"].items()
        for start, rule in _CLOUDS.items()
        if re.match(rf"{start}(?![a-z])", key.lower())
    ]
    usable = sorted(((jp2, uri, rule) for jp2, uri, rule in found if uri), key=lambda x: x[0])
    return CloudLayer(usable[0][1], 1, usable[0][2]) if usable else None


# -- assets ----------------------------------------------------------------------------------------


class _Hrefs:
    """Turns an asset into what GDAL opens."""

    def __init__(self, item: Mapping[str, Any], uri: str) -> None:
        links = item.get("links") or []
        found = (link.get("href", "") for link in links if link.get("rel") == "self")
        self._self = next((href for href in found if "://" in href), "")
        self._uri = url_of(uri)
        self._s3_first = any(os.environ.get(name) for name in _CREDENTIALS)

    def of(self, asset: Mapping[str, Any]) -> str | None:
        """Where to read an asset: of its addresses the best that GDAL can open."""
        others = (asset.get("alternate") or {}).values()
        hrefs = [h for h in (asset.get("href"), *(o.get("href") for o in others)) if h]
        usable = sorted(
            (uri for href in hrefs if (uri := self._resolve(href)) is not None), key=self._order
        )
        return gdal_path(usable[0]) if usable else None

    def _order(self, uri: str) -> int:
        """Local first; then S3 with credentials at hand, else https."""
        if "://" not in uri:
            return 0
        return 2 if uri.startswith("s3://") is not self._s3_first else 1

    def _resolve(self, href: str) -> str | None:
        """An absolute path or URI; None for a scheme that GDAL has no file system for."""
        if "://" in href and not href.startswith("file://"):
            return href if is_remote(href) else None
        if is_remote(self._uri):
            # Nobody else's item opens files of this machine.
            return None if href.startswith("file://") else _join(self._uri, href)
        href = href.removeprefix("file://")
        if href.startswith("/vsi"):
            return href
        beside = (Path(self._uri).absolute().parent / href).resolve()
        return _join(self._self, href) if self._self and not beside.exists() else str(beside)


def _join(base: str, href: str) -> str:
    """`urljoin`, which knows no object storage."""
    scheme, _, rest = base.partition("://")
    return scheme + urljoin(f"http://{rest}", href).removeprefix("http")


def _choose(item: Mapping[str, Any], hrefs: _Hrefs, sensor: str | None) -> list[_Band]:
    """One layer for each band of reflectance, in the order of the assets."""
    best: dict[str, _Band] = {}
    for band in _bands(item, hrefs, sensor):
        other = best.get(band.common_name)
        if other is None or band.rank < other.rank:
            best[band.common_name] = band
    return list(best.values())


def _bands(item: Mapping[str, Any], hrefs: _Hrefs, sensor: str | None) -> Iterator[_Band]:
    for key, asset in item["assets"].items():
        roles = {str(role) for role in asset.get("roles") or ()}
        if not _is_raster(asset) or (roles | {key.lower()}) & _PICTURES:
            continue
        uri = hrefs.of(asset)
        described = _described(asset)
        for i, facts in enumerate(described, start=1):
            keys = (key,) if len(described) == 1 else ()
            name = _name(facts, keys, sensor)
            if uri is None or name is None:
                continue
            yield _Band(
                layer=Layer(uri, i, name),
                common_name=str(common_name(name, sensor)),
                scale=_number(facts.get("scale", facts.get("raster:scale"))),
                offset=_number(facts.get("offset", facts.get("raster:offset"))),
                nodata=_number(facts.get("nodata")),
                rank=(len(described) > 1, _pixel(asset, facts), _is_jp2(asset)),
            )


def _described(asset: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What an asset says of each of its bands; of version 1.1, or of the extensions before it."""
    common = {k: asset[k] for k in ("raster:scale", "raster:offset", "nodata", "gsd") if k in asset}
    if asset.get("bands"):
        return [{**common, **band} for band in asset["bands"]]
    eo, raster = asset.get("eo:bands") or [], asset.get("raster:bands") or []
    count = max(len(eo), len(raster), 1)
    padded = ([*of, *[{}] * count][:count] for of in (eo, raster))
    return [{**common, **two, **one} for one, two in zip(*padded, strict=True)]


def _name(facts: Mapping[str, Any], keys: Sequence[str], sensor: str | None) -> str | None:
    """A band's name that is known: its own, the asset's key, or its common name.

    Common names come last, since several of Sentinel-2's bands share one.
    """
    own, common = facts.get("name"), facts.get("eo:common_name", facts.get("common_name"))
    own = re.sub(r"^(?:OLI|ETM|TM)_(?=B\d)", "", str(own)) if own else None
    own = re.sub(r"_[126]0m$", "", own) if own else None
    for text in (own, *keys, common):
        known = common_name(text, sensor) if text else None
        if text and known and is_reflective(known):
            return str(text)
    return None


def _is_raster(asset: Mapping[str, Any]) -> bool:
    kind = str(asset.get("type", ""))
    ending = PurePosixPath(urlsplit(str(asset.get("href", ""))).path).suffix.lower()
    return re.search(r"tiff|jp2|jpeg2000|geotiff", kind) is not None or (
        not kind and ending in {".tif", ".tiff", ".jp2", ".vrt"}
    )


def _is_jp2(asset: Mapping[str, Any]) -> bool:
    return "jp2" in str(asset.get("type", "")) or str(asset.get("href", "")).endswith(".jp2")


def _pixel(asset: Mapping[str, Any], facts: Mapping[str, Any]) -> float:
    """Side of a pixel in metres, as far as the item says."""
    transform = asset.get("proj:transform") or [math.inf]
    stated = facts.get("raster:spatial_resolution", facts.get("spatial_resolution"))
    size = _number(stated) or _number(facts.get("gsd")) or _number(transform[0])
    return abs(size) if size else math.inf


def _number(value: object) -> float | None:
    """A JSON number, or one written as text (``"05.09"``, ``"nan"``); None for anything else."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _whole(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number.is_integer() else None

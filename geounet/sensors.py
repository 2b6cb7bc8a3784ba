"""Bands of the sensors that geounet knows, and how to tell which sensor a scene is from.

Bands go by their STAC ``eo`` common names inside geounet ("green", "nir08"), so that one model
serves several sensors: ``B5`` is red edge on Sentinel-2, near infrared on Landsat 8 and short-wave
infrared on Landsat 5. Centre wavelengths are those of the missions' documents:

- Sentinel-2: ESA, *Sentinel-2 Spectral Response Functions* (S2A).
- Landsat 8 and 9: USGS, *Landsat 8 Data Users Handbook*; OLI-2 was built as a copy of OLI.
- Landsat 4 to 7: the middle of the band ranges in USGS, *Landsat 7 Data Users Handbook*, and in
  *Landsat 4-7 Collection 2 Level 2 Science Product Guide*.
- HLS: the sensor of each product; names from NASA, *HLS Product User Guide*, version 2.0.
- PlanetScope: Planet, *PlanetScope Product Specification* (4 bands: PS2; 8 bands: PSB.SD).
- NAIP: the middle of the band ranges of the Leica ADS cameras that most of it was flown with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from geounet.errors import ConfigError, SceneError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "SENSORS",
    "Band",
    "Identity",
    "Sensor",
    "band_in",
    "check_sensor",
    "common_name",
    "find_sensor",
    "is_reflective",
    "name_bands",
]


@dataclass(frozen=True, slots=True)
class Band:
    """One spectral band."""

    name: str
    """The mission's own name: ``B03``."""
    common_name: str
    """STAC ``eo:common_name``, with the red-edge bands told apart: ``green``, ``rededge071``."""
    centre: float
    """Centre wavelength in micrometres."""


@dataclass(frozen=True, slots=True)
class Sensor:
    """A sensor's bands, in the order in which its products stack them."""

    name: str
    bands: tuple[Band, ...]
    """Those that hold reflectance at the pixel size of the multispectral product."""
    others: tuple[Band, ...] = ()
    """Further ones that go by this sensor's numbers: panchromatic, cirrus, thermal."""

    def common_name(self, name: str) -> str | None:
        """The common name of a band that goes by this sensor's own name, or None."""
        return _own_words(self).get(_plain(name))


_S2_L1C = (
    Band("B01", "coastal", 0.443),
    Band("B02", "blue", 0.493),
    Band("B03", "green", 0.560),
    Band("B04", "red", 0.665),
    Band("B05", "rededge071", 0.704),
    Band("B06", "rededge075", 0.741),
    Band("B07", "rededge078", 0.783),
    Band("B08", "nir", 0.833),
    Band("B8A", "nir08", 0.865),
    Band("B09", "nir09", 0.945),
    Band("B10", "cirrus", 1.374),
    Band("B11", "swir16", 1.614),
    Band("B12", "swir22", 2.202),
)
_S2_L2A = tuple(band for band in _S2_L1C if band.name != "B10")

_OLI = (
    Band("B1", "coastal", 0.443),
    Band("B2", "blue", 0.482),
    Band("B3", "green", 0.561),
    Band("B4", "red", 0.655),
    Band("B5", "nir08", 0.865),
    Band("B6", "swir16", 1.609),
    Band("B7", "swir22", 2.201),
)
_OLI_OTHERS = (
    Band("B8", "pan", 0.590),
    Band("B9", "cirrus", 1.373),
    Band("B10", "lwir11", 10.9),
    Band("B11", "lwir12", 12.0),
)
_TM = (
    Band("B1", "blue", 0.485),
    Band("B2", "green", 0.560),
    Band("B3", "red", 0.660),
    Band("B4", "nir08", 0.830),
    Band("B5", "swir16", 1.650),
    Band("B7", "swir22", 2.215),
)
_THERMAL = Band("B6", "lwir", 11.45)
_ETM = (
    Band("B1", "blue", 0.483),
    Band("B2", "green", 0.565),
    Band("B3", "red", 0.660),
    Band("B4", "nir08", 0.835),
    Band("B5", "swir16", 1.650),
    Band("B7", "swir22", 2.220),
)

SENSORS: Mapping[str, Sensor] = {
    sensor.name: sensor
    for sensor in (
        Sensor("sentinel-2-l1c", _S2_L1C),
        Sensor("sentinel-2-l2a", _S2_L2A),
        Sensor("landsat-4", _TM, (_THERMAL,)),
        Sensor("landsat-5", _TM, (_THERMAL,)),
        Sensor("landsat-7", _ETM, (_THERMAL, Band("B8", "pan", 0.710))),
        Sensor("landsat-8", _OLI, _OLI_OTHERS),
        Sensor("landsat-9", _OLI, _OLI_OTHERS),
        Sensor(
            "hls-l30",
            tuple(Band(b.name.replace("B", "B0"), b.common_name, b.centre) for b in _OLI),
            tuple(b for b in _OLI_OTHERS if b.common_name != "pan"),
        ),
        Sensor("hls-s30", _S2_L1C),
        Sensor(
            "planetscope-4",
            (
                Band("blue", "blue", 0.485),
                Band("green", "green", 0.545),
                Band("red", "red", 0.630),
                Band("nir", "nir", 0.820),
            ),
        ),
        Sensor(
            "planetscope-8",
            (
                Band("coastal_blue", "coastal", 0.443),
                Band("blue", "blue", 0.490),
                Band("green_i", "green05", 0.531),
                Band("green", "green", 0.565),
                Band("yellow", "yellow", 0.610),
                Band("red", "red", 0.665),
                Band("rededge", "rededge071", 0.705),
                Band("nir", "nir", 0.865),
            ),
        ),
        Sensor(
            "naip",
            (
                Band("red", "red", 0.635),
                Band("green", "green", 0.560),
                Band("blue", "blue", 0.460),
                Band("nir", "nir", 0.860),
            ),
        ),
        # What six-band Landsat and HLS stacks share, in their usual order.
        Sensor(
            "common-6",
            (
                Band("blue", "blue", 0.482),
                Band("green", "green", 0.561),
                Band("red", "red", 0.655),
                Band("nir", "nir", 0.865),
                Band("swir16", "swir16", 1.609),
                Band("swir22", "swir22", 2.201),
            ),
        ),
    )
}
"""Sensors by name. A name without its last part (``sentinel-2``) stands for all that begin so."""

_BY_COUNT = {13: "sentinel-2-l1c", 12: "sentinel-2-l2a", 6: "common-6"}
"""Which sensor's order an unnamed stack of so many bands is in."""

_ALIASES = {
    "rededge1": "rededge071",
    "rededge2": "rededge075",
    "rededge3": "rededge078",
    "rededge": "rededge071",
    "re1": "rededge071",
    "re2": "rededge075",
    "re3": "rededge078",
    "vegetationrededge1": "rededge071",
    "vegetationrededge2": "rededge075",
    "vegetationrededge3": "rededge078",
    "nirnarrow": "nir08",
    "narrownir": "nir08",
    "watervapour": "nir09",
    "watervapor": "nir09",
    "nearinfrared": "nir",
    "nir1": "nir",
    "swir1": "swir16",
    "swir2": "swir22",
    "b8": "nir",
    "coastalaerosol": "coastal",
}

_NUMBERED = re.compile(r"(sr_|st_)?b(0?)(\d{1,2})(a?)", re.IGNORECASE)
_SEPARATORS = re.compile(r"[ _.-]+")
_ENDING = re.compile(r"[ _.-]*(\(raw\)|raw|[1-6]0m|reflectance)$", re.IGNORECASE)


def _plain(name: str) -> str:
    """A band's name without case, product prefix and leading zero: ``SR_B03`` is ``b3``."""
    text = name.strip().lower()
    number = _NUMBERED.fullmatch(text)
    return f"b{int(number[3])}{number[4]}" if number else text


def _own_words(sensor: Sensor) -> dict[str, str]:
    return {_plain(band.name): band.common_name for band in (*sensor.bands, *sensor.others)}


def _vocabulary() -> dict[str, str]:
    """Lower-case name → common name; Sentinel-2's names win over Landsat's where both exist."""
    words = dict(_ALIASES)
    for sensor in SENSORS.values():
        for band in (*sensor.bands, *sensor.others):
            words.setdefault(band.common_name, band.common_name)
            if not _NUMBERED.fullmatch(band.name):
                words.setdefault(_SEPARATORS.sub("", band.name), band.common_name)
    for band in _S2_L1C:
        words[band.name.lower()] = band.common_name
        words[band.name.lower().replace("b0", "b")] = band.common_name
    for band in _OLI:
        words[f"sr_{band.name.lower()}"] = band.common_name
    return words


_WORDS = _vocabulary()
_REFLECTIVE = {band.common_name for sensor in SENSORS.values() for band in sensor.bands}


def common_name(name: str, sensor: str | None = None) -> str | None:
    """The common name that a band's own name stands for, or None if it is not known.

    Without a sensor ``B3`` is Sentinel-2's green, and Landsat's numbers are read as Landsat 8's
    only with their product prefix (``SR_B3``).

    Args:
        name: the band's own name.
        sensor: a key of `SENSORS`, or the beginning that several of them share.
    """
    text = name.strip().lower()
    if not _NUMBERED.fullmatch(text):
        text = _SEPARATORS.sub("", text)  # SWIR 1, swir_1
        return None if _NUMBERED.fullmatch(text) else _WORDS.get(text)
    if sensor is None:
        return _WORDS.get(text)
    found = (SENSORS[key].common_name(name) for key in _kin(sensor))
    return next((word for word in found if word), None)


def band_in(text: str) -> str | None:
    """The band that a text ends with, or begins with where a remark follows, by its own name.

    ``T30TUT_B02_10m`` is ``B02``, ``B4, central wavelength 665 nm`` (GDAL) ``B4``.
    """
    for part in (text, re.split(r"\s*[,(]", text)[0]):
        while (shorter := _ENDING.sub("", part)) != part:
            part = shorter  # noqa: PLW2901 - one ending after the other
        words = _SEPARATORS.split(part)
        for end in ("_".join(words[-2:]), words[-1]):
            if common_name(end):
                return end
    return None


def _kin(sensor: str) -> tuple[str, ...]:
    """The sensors that a name stands for: itself, or all whose names begin with it."""
    return tuple(key for key in SENSORS if key == sensor or key.startswith(f"{sensor}-"))


def is_reflective(name: str) -> bool:
    """Whether a band of this common name holds reflectance."""
    return name in _REFLECTIVE


def check_sensor(sensor: str) -> str:
    """Check a sensor that the user told.

    Raises:
        ConfigError: it is not known.
    """
    if not _kin(sensor.lower()):
        known = ", ".join(key for key in SENSORS if key != "common-6")
        raise ConfigError(f"--sensor must be one of {known}; got {sensor}.")
    return sensor.lower()


# -- which sensor ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Identity:
    """Where a scene comes from, as far as its name, tags and bands say."""

    sensor: str | None = None
    """A key of `SENSORS`, or the beginning that several of them share (``sentinel-2``)."""
    level: str | None = None
    """Processing level as the product calls it: ``L1C``, ``L2A``, ``L1TP``, ``L2SP``, ``SR``."""
    baseline: float | None = None
    """Sentinel-2 processing baseline: 4.0."""
    collection: int | None = None
    """Landsat collection: 1 or 2."""
    source: str = ""
    """What says so, for people to read."""
    conflict: str | None = None
    """Where what there is speaks of different sensors: an error's words."""


_PRODUCTS = (
    # HLS.S30.T10TEM.2022078T092029.v2.0
    (r"HLS[._-]?(?P<hls>[LS]30)", "hls-{hls}"),
    # S2B_MSIL1C_20221127T214909_N0400_R143_T60FXK_20221127T223847
    (r"S2[A-D]_MSI(?P<level>L1C|L2A)_\d{8}T\d{6}(_N(?P<base>\d{4}))?", "sentinel-2-{level}"),
    # S2B_10SGF_20250808_0_L2A: an item of an archive of COGs
    (r"S2[A-D]_\d{1,2}[A-Z]{3}_\d{8}_\d+_(?P<level>L1C|L2A)", "sentinel-2-{level}"),
    # 2019-08-09-00:00_2019-08-09-23:59_Sentinel-2_L2A_B02_(Raw).tiff; Sentinel-2B
    (r"sentinel-?2[A-D]?(?:[ _-]?MSI)?[ _-](?P<level>L1C|L2A)", "sentinel-2-{level}"),
    (r"sentinel-?2[A-D]?", "sentinel-2"),
    # LC08_L2SP_017051_20151205_20200908_02_T1
    (
        r"L[CEOT]0?(?P<n>[45789])_(?P<level>L[12][A-Z]{2})_\d{6}_\d{8}(_\d{8}_0(?P<coll>[12]))?",
        "landsat-{n}",
    ),
    # LC80420342014023LGN00: before the collections
    (r"L[CEOT](?P<n>[45789])\d{13}[A-Z]{3}\d{2}", "landsat-{n}"),
    # LC08_044034_20140318: without level and collection, as Google Earth Engine calls its images
    (r"L[CO]0(?P<n>[89])(?:_\d{6}_\d{8})?", "landsat-{n}"),
    (r"L(?:T0(?=[45])|E0(?=7))(?P<n>[457])(?:_\d{6}_\d{8})?", "landsat-{n}"),
    (r"landsat[ _-]?(?P<n>[45789])", "landsat-{n}"),
    # 20230415_102437_58_2475_3B_AnalyticMS_SR_8b_harmonized_clip.tif
    (r"AnalyticMS_(?P<level>SR)_(?P<n>8)b", "planetscope-{n}"),
    (r"AnalyticMS_(?P<level>SR)", "planetscope"),
    (r"AnalyticMS_(?P<n>8)b", "planetscope-{n}"),
    (r"AnalyticMS", "planetscope"),
    # m_4212362_sw_10_060_20220717.tif
    (r"m_\d{7}_[ns][ew]_\d{1,2}", "naip"),
    (r"naip", "naip"),
)
_PATTERNS = tuple(
    (re.compile(rf"(?<![a-z0-9]){text}(?![a-z0-9])", re.IGNORECASE), sensor)
    for text, sensor in _PRODUCTS
)

_TELLING = (
    "PRODUCT_URI", "LANDSAT_PRODUCT_ID", "PRODUCT_ID", "SPACECRAFT_NAME", "SPACECRAFT_ID",
    "DATATAKE_1_SPACECRAFT_NAME", "PLATFORM", "SATELLITE", "SENSOR",
)  # fmt: skip
"""Tags that name the product or the satellite, the most exact first."""


def _identity_of(text: str, source: str) -> Identity | None:
    """What a product's or a satellite's name says."""
    for pattern, sensor in _PATTERNS:
        found = pattern.search(text)
        if not found:
            continue
        parts = {key: value for key, value in found.groupdict().items() if value}
        level = parts.get("level", "").upper() or ("TOA" if "AnalyticMS" in text else None)
        name = sensor.format(**{key: value.lower() for key, value in parts.items()})
        return Identity(
            sensor=name,
            level=level or None,
            baseline=int(parts["base"]) / 100 if "base" in parts else None,
            collection=int(parts["coll"]) if "coll" in parts else None,
            source=source,
        )
    return None


def _identity_of_tags(tags: Mapping[str, str]) -> Identity | None:
    """What a file's tags say. HLS keeps the tags of the product that it was made from."""
    upper = {key.upper(): value for key, value in tags.items()}
    named = [(upper[key], key) for key in _TELLING if upper.get(key)]
    made = next((found for text, key in named if (found := _identity_of(text, f"tag {key}"))), None)
    if "HLS_PROCESSING_TIME" in upper or "HLS" in upper.get("IDENTIFIER_PRODUCT_DOI", ""):
        landsat = "LANDSAT_PRODUCT_ID" in upper or bool(made and "landsat" in (made.sensor or ""))
        return Identity("hls-l30" if landsat else "hls-s30", source="tag HLS_PROCESSING_TIME")
    if made is None:
        return None
    baseline, level = upper.get("PROCESSING_BASELINE", ""), upper.get("PROCESSING_LEVEL", "")
    told = re.fullmatch(r"(?:Level-|L)?(1C|2A)(?:p)?", level, re.IGNORECASE)
    if made.sensor == "sentinel-2" and told:
        short = f"L{told[1].upper()}"
        made = Identity(f"sentinel-2-{short.lower()}", short, source=made.source)
    if not re.fullmatch(r"\d{1,2}\.\d\d", baseline) or made.baseline is not None:
        return made
    return Identity(made.sensor, made.level, float(baseline), made.collection, made.source)


def find_sensor(
    *, name: str = "", tags: Mapping[str, str] | None = None, bands: Sequence[str | None] = ()
) -> Identity:
    """Tell which sensor a scene is from, by its tags, its file's name and its bands' names.

    Args:
        name: the file's name, without its folder.
        tags: the file's tags.
        bands: names of its bands, None where one has none.

    Returns:
        What they say; where they speak of different sensors, with the conflict, which the user has
        to settle. A mere word in the name (``landsat5.tif``, no product's identifier) gives way to
        tags and bands that agree.
    """
    return _with_level(_find(name, tags or {}, bands), bands)


def _find(name: str, tags: Mapping[str, str], bands: Sequence[str | None]) -> Identity:
    tagged = _identity_of_tags(tags)
    named = _identity_of(name, f"file name {name}")
    if tagged is None or named is None:
        found = tagged or named
        return _beside_bands(found, bands) if found else Identity(_sensor_of_bands(bands))
    both = _narrower(tagged, named)
    if both is not None:
        return _beside_bands(both, bands)
    if _same_bands(tagged, named):
        return _beside_bands(named, bands)
    if named.level is None and _sensor_of_bands(bands) == tagged.sensor:
        return tagged  # the bands side with the tags, against a word in a file's name
    conflict = (
        f"the scene's {tagged.source} says {tagged.sensor}, and its {named.source} says "
        f"{named.sensor}. Settle it with --sensor."
    )
    return Identity(conflict=conflict)


def _with_level(found: Identity, bands: Sequence[str | None]) -> Identity:
    """The level, where bands are called ``SR_B3``: as in Landsat's Level 2 and nowhere else."""
    surface = any(text and text.strip().upper().startswith("SR_B") for text in bands)
    if not surface or found.level or not (found.sensor or "landsat").startswith("landsat"):
        return found
    return replace(found, level="L2SP")


def _same_bands(one: Identity, other: Identity) -> bool:
    """Whether two sensors differ in name only, as far as bands and numbers go: Landsat 8 and 9."""
    first, second = SENSORS.get(one.sensor or ""), SENSORS.get(other.sensor or "")
    return bool(first and second and first.bands == second.bands)


def _narrower(one: Identity, other: Identity) -> Identity | None:
    """What two say together; None where they speak of different sensors."""
    both = set(_kin(one.sensor or "")) & set(_kin(other.sensor or ""))
    if not both:
        return None
    least = min((one.sensor or "", other.sensor or ""), key=lambda key: len(_kin(key)))
    return Identity(
        sensor=least,
        level=one.level or other.level,
        baseline=other.baseline if one.baseline is None else one.baseline,
        collection=one.collection or other.collection,
        source=one.source,
    )


def _beside_bands(found: Identity, bands: Sequence[str | None]) -> Identity:
    """Say so where the bands are not the sensor's."""
    numbers = _numbers(bands)
    strange = [text for text in numbers if common_name(text, found.sensor) is None]
    if not strange:
        return found
    conflict = (
        f"the scene's {found.source} says {found.sensor}, which has no band {', '.join(strange)}. "
        f"Settle it with --sensor, or name all bands with --bands."
    )
    return replace(found, conflict=conflict)


# -- which bands -----------------------------------------------------------------------------------


def _numbers(bands: Sequence[str | None]) -> list[str]:
    """The names that mean different bands on different sensors: ``B5``, ``SR_B5``."""
    return [text.strip() for text in bands if text and _NUMBERED.fullmatch(text.strip())]


def _fits(sensor: Sensor, numbers: Sequence[str]) -> bool:
    """Whether numbered bands may be this sensor's.

    Panchromatic and thermal bands are seldom in a stack but of all its bands, and only Landsat 8
    and 9 and HLS have names with a leading zero somewhere (Sentinel Hub, HLS).
    """
    words, main = _own_words(sensor), {_plain(band.name) for band in sensor.bands}
    plain = {_plain(text) for text in numbers}
    if not plain <= words.keys() or (plain - main and not main <= plain):
        return False
    forms = [_NUMBERED.fullmatch(text) for text in numbers]
    prefixed = any(form and form[1] for form in forms)
    padded = any(form and form[2] for form in forms)
    surface = {_plain(t) for t in numbers if t.lower().startswith("sr_")} <= main
    thermal = main.isdisjoint(_plain(t) for t in numbers if t.lower().startswith("st_"))
    if prefixed:
        return surface and thermal and sensor.name.startswith("landsat")
    return not (padded and sensor.name in {"landsat-4", "landsat-5", "landsat-7"})


def _candidates(numbers: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Sensors whose bands these may be, each with the common names in order."""
    return {
        key: tuple(sensor.common_name(text) or "-" for text in numbers)
        for key, sensor in SENSORS.items()
        if key != "common-6" and _fits(sensor, numbers)
    }


def _sensor_of_bands(bands: Sequence[str | None]) -> str | None:
    """The sensor that the bands' names alone tell, if they do."""
    numbers = _numbers(bands)
    if len(numbers) < 3:
        return None
    found = {key for key in _candidates(numbers) if key != "hls-s30"}
    return "sentinel-2" if found and found <= set(_kin("sentinel-2")) else None


def name_bands(
    count: int,
    descriptions: Sequence[str | None] = (),
    told: Sequence[str] | None = None,
    sensor: str | None = None,
) -> tuple[str, ...]:
    """Common names of a raster's bands, in file order.

    What the user told wins, then the band descriptions as the sensor means them, then the sensor's
    order, then the order that goes with the number of bands. A band whose name is not known keeps
    its name.

    Args:
        count: number of bands in the raster.
        descriptions: the raster's band descriptions, None where there is none.
        told: names for all bands in file order, as the user gave them (``--bands``).
        sensor: a key of `SENSORS`, or the beginning that several of them share, where something
            says which it is (`find_sensor`).

    Raises:
        ConfigError: `told` does not name each band once, or holds a name that is not known.
        SceneError: nothing says what the bands are, or their names mean different bands on
            different sensors.
    """
    if told is not None:
        return _told_names(count, told, sensor)
    for texts in (descriptions, [text and (band_in(text) or text) for text in descriptions]):
        known = {common_name(text, sensor) for text in texts if text} - {None}
        if len(known) >= 3:
            return _by_names(texts, sensor)
    return _in_order(count, descriptions, sensor)


def _by_names(descriptions: Sequence[str | None], sensor: str | None) -> tuple[str, ...]:
    """What descriptions say, of which some are known."""
    texts = [text or f"band{i}" for i, text in enumerate(descriptions, start=1)]
    words = _numbers_meant(texts) if sensor is None else {}
    return _distinct([words.get(t) or common_name(t, sensor) or t for t in texts])


def _numbers_meant(texts: Sequence[str]) -> dict[str, str]:
    """What numbered bands mean where nothing names the sensor.

    Raises:
        SceneError: they mean different bands on different sensors.
    """
    numbers = _numbers(texts)
    found = _candidates(numbers)
    if len(set(found.values())) > 1:
        raise SceneError(
            f"bands named {', '.join(numbers)} may be those of {', '.join(found)}, and nothing "
            f"says which. Tell it with --sensor ({' or '.join(_one_each(found))}), or name all "
            f"bands in file order with --bands."
        )
    meant = next(iter(found.values()), ())
    return {text: word for text, word in zip(numbers, meant, strict=False) if word != "-"}


def _one_each(found: Mapping[str, tuple[str, ...]]) -> list[str]:
    """One sensor for each thing that the bands may mean."""
    firsts: dict[tuple[str, ...], str] = {}
    for key, words in found.items():
        firsts.setdefault(words, key)
    return list(firsts.values())


def _in_order(count: int, texts: Sequence[str | None], sensor: str | None) -> tuple[str, ...]:
    """The order of a stack that does not name its bands, or numbers them.

    Raises:
        SceneError: there is none for so many, or what the bands are called is another.
    """
    order = _order(count, sensor)
    own = [text if texts.count(text) == 1 else None for text in texts]  # a file's name tells none
    if order is not None and not all(map(_may_be_called, order, own)):
        order = None
    if order is None and count == 1:
        raise SceneError(
            "a scene has several bands, and this file has one. Give the folder of all its bands, "
            "or a quoted pattern of their files ('scene_*_B*.tif')."
        )
    if order is None:
        of = f" of {sensor}" if sensor else ""
        called = ", ".join(repr(text) for text in texts if text) or "nothing"
        raise SceneError(
            f"cannot tell which bands these are: {count} bands{of}, described as {called}. Known "
            f"without names are 13 bands (Sentinel-2 L1C), 12 (L2A), 6 (blue, green, red, nir, "
            f"swir16, swir22), and all bands of a sensor told with --sensor. Name them in file "
            f"order, e.g. --bands B02,B03,B04,B08."
        )
    return order


def _may_be_called(word: str, text: str | None) -> bool:
    """Whether a description leaves it open that a band is this one: ``Band 2`` says nothing."""
    known = common_name(text) if text else None
    return known == word if known else not text or any(c.isdecimal() for c in text)


def _order(count: int, sensor: str | None) -> tuple[str, ...] | None:
    """Common names of so many unnamed bands, if a sensor's products stack so many."""
    for key in _kin(sensor) if sensor else ():
        words = tuple(band.common_name for band in SENSORS[key].bands)
        # Landsat 8 without its coastal band is stacked as Landsat 5 is.
        for order in (words, words[1:] if words[0] == "coastal" and len(words) == 7 else ()):
            if len(order) == count:
                return order
    usual = _BY_COUNT.get(count, "")
    if not usual or (sensor and not _may_be(sensor, usual)):
        return None
    return tuple(band.common_name for band in SENSORS[usual].bands)


def _may_be(sensor: str, usual: str) -> bool:
    """Whether a stack in this usual order may be of that sensor."""
    return usual == "common-6" and sensor.startswith(("sentinel-2", "hls", "landsat"))


def _told_names(count: int, told: Sequence[str], sensor: str | None) -> tuple[str, ...]:
    if len(told) != count:
        raise ConfigError(
            f"--bands must name every band of the scene in order: it has {count}, "
            f"{len(told)} names given ({', '.join(told)}). Use '-' for a band to leave out."
        )
    meant = [common_name(name, sensor) or common_name(name) for name in told]
    unknown = [name for name, word in zip(told, meant, strict=True) if name != "-" and not word]
    if unknown:
        raise ConfigError(
            f"--bands does not know {', '.join(unknown)}. Use Sentinel-2 names (B02, B8A), "
            f"Landsat's with their prefix (SR_B5) or common names (green, nir, swir16)."
        )
    return _distinct([word or "-" for word in meant])


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Refuse two known bands of one name: which of them is meant cannot be guessed."""
    named = [name for name in names if common_name(name)]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise SceneError(
            f"each band may occur once; {', '.join(twice)} occurs more than once in "
            f"{', '.join(names)}. Tell them apart with --bands ('-' leaves one out)."
        )
    return tuple(names)

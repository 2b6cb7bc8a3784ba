"""Bands of the sensors that geounet knows.

Bands go by their STAC ``eo`` common names inside geounet ("green", "nir08"), so that one model
serves several sensors. Centre wavelengths are those of the missions' spectral response documents:
ESA, *Sentinel-2 Spectral Response Functions* (S2A); USGS, *Landsat 8 Data Users Handbook*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from geounet.errors import ConfigError, SceneError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["SENSORS", "Band", "Sensor", "name_bands"]


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

SENSORS: Mapping[str, Sensor] = {
    sensor.name: sensor
    for sensor in (
        Sensor("sentinel-2-l1c", _S2_L1C),
        Sensor("sentinel-2-l2a", tuple(band for band in _S2_L1C if band.name != "B10")),
        Sensor(
            "landsat-8",
            (
                Band("B1", "coastal", 0.443),
                Band("B2", "blue", 0.482),
                Band("B3", "green", 0.561),
                Band("B4", "red", 0.655),
                Band("B5", "nir08", 0.865),
                Band("B6", "swir16", 1.609),
                Band("B7", "swir22", 2.201),
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
"""Sensors by name."""

_BY_COUNT = {13: "sentinel-2-l1c", 12: "sentinel-2-l2a", 6: "common-6"}
"""Which sensor's order an unnamed stack of so many bands is in."""

_ALIASES = {
    "rededge1": "rededge071",
    "rededge2": "rededge075",
    "rededge3": "rededge078",
    "rededge": "rededge071",
    "nir narrow": "nir08",
    "swir1": "swir16",
    "swir2": "swir22",
    "b8": "nir",
    "coastal aerosol": "coastal",
}


def _vocabulary() -> dict[str, str]:
    """Lower-case name → common name; Sentinel-2's names win over Landsat's where both exist."""
    words = dict(_ALIASES)
    for sensor in SENSORS.values():
        for band in sensor.bands:
            words.setdefault(band.common_name, band.common_name)
    for band in _S2_L1C:
        words[band.name.lower()] = band.common_name
        words[band.name.lower().replace("b0", "b")] = band.common_name
    for band in SENSORS["landsat-8"].bands:
        words[f"sr_{band.name.lower()}"] = band.common_name
    return words


_WORDS = _vocabulary()


def common_name(name: str) -> str | None:
    """The common name that a band's own name stands for, or None if it is not known.

    ``B3`` alone is Sentinel-2's green; Landsat's numbers are read as Landsat's only with their
    product prefix (``SR_B3``), since ``B5`` means red edge on the one and near infrared on the
    other.
    """
    return _WORDS.get(name.strip().lower())


def name_bands(
    count: int,
    descriptions: Sequence[str | None] = (),
    told: Sequence[str] | None = None,
    sensor: str | None = None,
) -> tuple[str, ...]:
    """Common names of a raster's bands, in file order.

    What the user told wins, then the band descriptions, then the sensor's order, then the order
    that goes with the number of bands. A band whose name is not known keeps its name.

    Args:
        count: number of bands in the raster.
        descriptions: the raster's band descriptions, None where there is none.
        told: names for all bands in file order, as the user gave them (``--bands``).
        sensor: a key of `SENSORS`, where something says which it is.

    Raises:
        ConfigError: `told` does not name each band once, or holds a name that is not known.
        SceneError: nothing says what the bands are.
    """
    if told is not None:
        return _told_names(count, told)
    named = [text for text in descriptions if text and common_name(text)]
    if len({common_name(text) for text in named}) >= 3:
        texts = [text or f"band{i}" for i, text in enumerate(descriptions, start=1)]
        return _distinct([common_name(text) or text for text in texts])
    known = SENSORS.get(sensor or _BY_COUNT.get(count, ""))
    if known is None or len(known.bands) != count:
        raise SceneError(
            f"cannot tell which bands these are: {count} bands, descriptions "
            f"{[d or '' for d in descriptions]}. Known without names are 13 bands (Sentinel-2 "
            f"L1C), 12 (L2A) and 6 (blue, green, red, nir, swir16, swir22). "
            f"Name them in file order, e.g. --bands B02,B03,B04,B08."
        )
    return tuple(band.common_name for band in known.bands)


def _told_names(count: int, told: Sequence[str]) -> tuple[str, ...]:
    if len(told) != count:
        raise ConfigError(
            f"--bands must name every band of the file in order: it has {count}, "
            f"{len(told)} names given ({', '.join(told)}). Use '-' for a band to leave out."
        )
    unknown = [name for name in told if name != "-" and common_name(name) is None]
    if unknown:
        raise ConfigError(
            f"--bands does not know {', '.join(unknown)}. Use Sentinel-2 names (B02, B8A), "
            f"Landsat's with their prefix (SR_B5) or common names (green, nir, swir16)."
        )
    return _distinct([common_name(name) or "-" for name in told])


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

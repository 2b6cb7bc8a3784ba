"""Bands of the sensors that geounet knows, and how their numbers become reflectance.

Bands go by their STAC ``eo`` common names inside geounet ("green", "nir08"), so that one model
serves several sensors. Centre wavelengths are those of the missions' spectral response documents:
ESA, *Sentinel-2 Spectral Response Functions* (S2A); USGS, *Landsat 8 Data Users Handbook*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from geounet.errors import ConfigError, SceneError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["SENSORS", "Band", "Radiometry", "Sensor", "decide_radiometry", "name_bands"]


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


@dataclass(frozen=True, slots=True)
class Radiometry:
    """How stored numbers become reflectance: ``reflectance = number * scale + offset``."""

    scale: tuple[float, ...]
    """One a band, in file order."""
    offset: tuple[float, ...]
    """One a band, in file order."""
    reason: str
    """What the decision rests on, for people to read."""
    assumed: bool = False
    """True where nothing in the file or from the user says so."""

    @property
    def decision(self) -> str:
        """The reason, marked where it was assumed; for the record."""
        return self.reason + (" (assumed)" if self.assumed else "")

    def __post_init__(self) -> None:
        numbers = (*self.scale, *self.offset)
        if not all(math.isfinite(x) for x in numbers) or not all(s > 0 for s in self.scale):
            raise ConfigError(
                f"scale must be a positive number and offset a number; "
                f"got scale {self.scale}, offset {self.offset}."
            )


def decide_radiometry(
    dtype: str,
    scales: Sequence[float],
    offsets: Sequence[float],
    *,
    scale: float | None = None,
    offset: float | None = None,
) -> Radiometry:
    """Decide scale and offset from evidence: the user's word, then the file's, then convention.

    Args:
        dtype: numpy name of the stored type.
        scales: the raster's scale per band (1.0 where it has none).
        offsets: the raster's offset per band, in units of reflectance (0.0 where it has none).
        scale: what the user says, for all bands.
        offset: what the user says, for all bands, in units of reflectance.

    Raises:
        SceneError: 8-bit numbers without a scale (a picture made for display, not reflectance), or
            complex ones.
        ConfigError: a scale that is not a positive number.
    """
    count = len(scales)
    stated = any(s != 1.0 for s in scales) or any(o != 0.0 for o in offsets)
    floating = dtype.startswith("float")
    if dtype.startswith("complex"):
        raise SceneError(f"pixels must be reflectance; got {dtype}. Use an optical product.")
    if scale is None and not stated and dtype in {"uint8", "int8"}:
        raise SceneError(
            f"pixels must be reflectance; {dtype} without a scale is a picture made for display. "
            f"Use the product itself, or give --scale and --offset if these are reflectances."
        )
    if scale is not None or offset is not None:
        convention = 1.0 if floating else 1e-4
        base = tuple(scales) if stated else (convention,) * count
        told = {"scale": scale is not None, "offset": offset is not None}
        rest = "band metadata" if stated else "convention"
        return Radiometry(
            base if scale is None else (scale,) * count,
            tuple(offsets) if offset is None else (offset,) * count,
            " and ".join(name for name, given in told.items() if given)
            + " as told"
            + "".join(f", {name} from {rest}" for name, given in told.items() if not given),
        )
    if stated:
        return Radiometry(tuple(scales), tuple(offsets), "scale and offset from the band metadata")
    if floating:
        return Radiometry(
            (1.0,) * count,
            (0.0,) * count,
            "floating point taken as reflectance 0 to 1",
            assumed=True,
        )
    return Radiometry(
        (1e-4,) * count,
        (0.0,) * count,
        f"{dtype} taken as reflectance x 10000, no offset",
        assumed=True,
    )

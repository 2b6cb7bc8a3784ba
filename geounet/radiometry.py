"""How a scene's stored numbers become reflectance, decided from evidence.

    Statement   what one source says: a scale and an offset per band
    Evidence    all that is known before a pixel is read
    Radiometry  the decision, with its reason

The functions here are pure: who reads files and pixels hands in what they found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from geounet.errors import ConfigError, SceneError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Evidence", "Radiometry", "Statement", "decide_radiometry", "state_bands"]


@dataclass(frozen=True, slots=True)
class Statement:
    """One source's word: ``reflectance = number * scale + offset``."""

    source: str
    """Where it stands, for people to read: ``MTD_MSIL2A.xml``, ``band metadata``."""
    scale: tuple[float, ...]
    """One a band, in file order."""
    offset: tuple[float, ...]
    """One a band, in file order, in units of reflectance."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a scene's numbers before a pixel is read; None where nothing says so."""

    dtype: str
    """Numpy name of the stored type."""
    count: int
    """Number of bands in the raster."""
    product: Statement | None = None
    """The product's own metadata file (Sentinel-2 ``MTD_*.xml``, Landsat ``*_MTL``)."""
    bands: Statement | None = None
    """Scale and offset per band in the file, or in a STAC item's ``raster:bands``."""
    sensor: str | None = None
    """A key of `sensors.SENSORS`."""
    level: str | None = None
    """Processing level as the product calls it: ``L1C``, ``L2A``, ``L1TP``, ``L2SP``."""
    baseline: float | None = None
    """Sentinel-2 processing baseline, from tags, a STAC item or the product's name: 4.0."""
    offset_removed: bool | None = None
    """An archive's flag that it took the offset out (``earthsearch:boa_offset_applied``)."""
    sun_elevation: float | None = None
    """Degrees above the horizon at the scene's centre."""


def state_bands(source: str, scales: Sequence[float], offsets: Sequence[float]) -> Statement | None:
    """What a raster's scales (1.0 where it has none) and offsets (0.0) say, if anything."""
    if all(s == 1.0 for s in scales) and all(o == 0.0 for o in offsets):
        return None
    return Statement(source, tuple(scales), tuple(offsets))


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
    warnings: tuple[str, ...] = ()
    """What a person should know of how it was decided; whoever decides has to say it."""

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
    evidence: Evidence, *, scale: float | None = None, offset: float | None = None
) -> Radiometry:
    """Decide scale and offset from evidence: the user's word, then the file's, then convention.

    Args:
        evidence: what is known of the scene.
        scale: what the user says, for all bands.
        offset: what the user says, for all bands, in units of reflectance.

    Raises:
        SceneError: 8-bit numbers without a scale (a picture made for display, not reflectance), or
            complex ones.
        ConfigError: a scale that is not a positive number.
    """
    count, dtype = evidence.count, evidence.dtype
    stated = evidence.product or evidence.bands
    floating = dtype.startswith("float")
    if dtype.startswith("complex"):
        raise SceneError(f"pixels must be reflectance; got {dtype}. Use an optical product.")
    if scale is None and stated is None and dtype in {"uint8", "int8"}:
        raise SceneError(
            f"pixels must be reflectance; {dtype} without a scale is a picture made for display. "
            f"Use the product itself, or give --scale and --offset if these are reflectances."
        )
    if scale is not None or offset is not None:
        convention = 1.0 if floating else 1e-4
        base = stated or Statement("convention", (convention,) * count, (0.0,) * count)
        told = {"scale": scale is not None, "offset": offset is not None}
        return Radiometry(
            base.scale if scale is None else (scale,) * count,
            base.offset if offset is None else (offset,) * count,
            " and ".join(name for name, given in told.items() if given)
            + " as told"
            + "".join(f", {name} from {base.source}" for name, given in told.items() if not given),
        )
    if stated is not None:
        where = f"scale and offset from the {stated.source}"
        return Radiometry(stated.scale, stated.offset, where)
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

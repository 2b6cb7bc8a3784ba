"""How a scene's stored numbers become reflectance, decided from evidence.

    Evidence    all that is known before a pixel is read, made of
    Statement   what one source says: a scale and an offset per band
    Radiometry  the decision, with its reason, and what its pixels may still overturn

`decide_radiometry` takes the first of what the sources say: the product's own metadata, scale and
offset per band, tags, archives' flags with the Sentinel-2 baseline, convention. What the user says
stands above all. `check_radiometry` then looks at pixels. The functions here are pure: who reads
files and pixels hands in what they found.

Why a look at pixels: Sentinel-2 products of processing baseline 04.00 and later (from 25 January
2022) store ``reflectance * 10000 + 1000``; many archives take the 1000 out again, and their flags
are known to be wrong both ways (Element84/earth-search issues 66 and 71). With it left in, NDWI of
clear water falls from 0.43 to 0.11.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geounet.errors import ConfigError, SceneError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from geounet.sensors import Identity

__all__ = [
    "Evidence",
    "Radiometry",
    "Statement",
    "check_radiometry",
    "decide_radiometry",
    "state_bands",
    "state_tags",
]

_FIRST_WITH_OFFSET = 4.0
"""Sentinel-2 processing baseline from which 1000 is added to the numbers."""


_LANDSAT_LEVELS = {"L1TP", "L1GT", "L1GS", "L2SP", "L2SR"}


@dataclass(frozen=True, slots=True)
class Statement:
    """One source's word: ``reflectance = number * scale + offset``."""

    source: str
    """Where it stands, for people to read: ``MTD_MSIL2A.xml``, ``band metadata``."""
    scale: tuple[float, ...]
    """One a band, in file order."""
    offset: tuple[float, ...]
    """One a band, in file order, in units of reflectance."""

    def agrees(self, other: Statement) -> bool:
        """Whether it makes no difference which of the two is followed."""
        scales = zip(self.scale, other.scale, strict=True)
        offsets = zip(self.offset, other.offset, strict=True)
        return all(math.isclose(a, b, rel_tol=0.01) for a, b in scales) and all(
            abs(a - b) < 0.005 for a, b in offsets
        )

    def __str__(self) -> str:
        """Scale and offset, shortened where all bands have the same."""
        scale, offset = (
            f"{values[0]:g}" if len(set(values)) == 1 else "per band"
            for values in (self.scale, self.offset)
        )
        return f"scale {scale}, offset {offset}"


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
    tags: Statement | None = None
    """The file's tags (`state_tags`)."""
    sensor: str | None = None
    """A key of `sensors.SENSORS`, or the beginning that several of them share."""
    level: str | None = None
    """Processing level as the product calls it: ``L1C``, ``L2A``, ``L1TP``, ``L2SP``."""
    baseline: float | None = None
    """Sentinel-2 processing baseline, from tags, a STAC item or the product's name: 4.0."""
    collection: int | None = None
    """Landsat collection: 1 or 2."""
    offset_removed: bool | None = None
    """An archive's flag that it took the offset out (``earthsearch:boa_offset_applied``)."""
    conflict: str | None = None
    """Where what there is speaks of different sensors: an error's words."""

    @classmethod
    def of(cls, found: Identity, **facts: Any) -> Evidence:
        """What an identity says, and further fields."""
        return cls(
            sensor=found.sensor,
            level=found.level,
            baseline=found.baseline,
            collection=found.collection,
            conflict=found.conflict,
            **facts,
        )

    def is_of(self, *sensors: str) -> bool:
        """Whether the scene is from one of these sensors, told by how their names begin.

        Only Landsat's levels are called as they are, also where its satellite is not known.
        """
        name = self.sensor or ("landsat" if self.level in _LANDSAT_LEVELS else "")
        return bool(name) and name.startswith(sensors)


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
    rival: Statement | None = None
    """Another reading that the evidence allows: `check_radiometry` chooses by the pixels."""
    disputed: bool = False
    """True where sources contradict each other, so that only pixels or the user can settle it."""
    told: bool = False
    """True where the user said so; pixels that contradict are no more than a warning."""

    @property
    def numbers(self) -> str:
        """Scale and offset, for people to read."""
        return str(Statement(self.reason, self.scale, self.offset))

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


# -- what the sources say --------------------------------------------------------------------------


def state_bands(source: str, scales: Sequence[float], offsets: Sequence[float]) -> Statement | None:
    """What a raster's scales (1.0 where it has none) and offsets (0.0) say, if anything."""
    if all(s == 1.0 for s in scales) and all(o == 0.0 for o in offsets):
        return None
    return Statement(source, tuple(scales), tuple(offsets))


def state_tags(tags: Mapping[str, str], count: int) -> Statement | None:
    """What a file's tags say of all its bands, if anything.

    Read are ``scale_factor`` and ``add_offset`` (HLS; the CF conventions' names), and ``UNITS`` as
    ``reflectance x 10000``.
    """
    lower = {key.lower(): value for key, value in tags.items()}
    units = re.match(r"reflectance (?:x|\*) (\d+)\b", lower.get("units", ""))
    scale = 1 / float(units[1]) if units and float(units[1]) else None
    source = "tag UNITS"
    if "scale_factor" in lower:
        source = "tag scale_factor"
        scale = _number(lower["scale_factor"])
    if scale is None or scale == 1.0:
        return None
    offset = _number(lower.get("add_offset", "0")) or 0.0
    return Statement(source, (scale,) * count, (offset,) * count)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


# -- the decision ----------------------------------------------------------------------------------


def decide_radiometry(
    evidence: Evidence, *, scale: float | None = None, offset: float | None = None
) -> Radiometry:
    """Decide scale and offset from evidence: the user's word, then the sources', then convention.

    Args:
        evidence: what is known of the scene.
        scale: what the user says, for all bands.
        offset: what the user says, for all bands, in units of reflectance.

    Raises:
        SceneError: 8-bit numbers without a scale (a picture made for display, not reflectance),
            complex ones, radiances, or a scale in the scene that is not a positive number.
        ConfigError: a scale that is not a positive number, or an offset that is not in units of
            reflectance.
    """
    _check_told(scale, offset)
    if evidence.dtype.startswith("complex"):
        raise SceneError(
            f"pixels must be reflectance; got {evidence.dtype}. Use an optical product."
        )
    said = [s for s in (evidence.product, evidence.bands, evidence.tags) if s]
    if scale is None or offset is None:
        _refuse_impossible(said)
    said = [s for s in said if _is_possible(s)]
    flagged = _flags(evidence)
    said += [flagged] if flagged else []
    if not said and scale is None:
        _refuse_other_than_reflectance(evidence)
    found = _settle(evidence, said) if said else _convention(evidence)
    if scale is None and offset is None:
        return found
    return _as_told(evidence, found, said[0] if said else None, scale, offset)


def _check_told(scale: float | None, offset: float | None) -> None:
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise ConfigError(f"scale must be a positive number; got {scale}.")
    if offset is not None and not abs(offset) <= 1:
        raise ConfigError(
            f"offset must be in units of reflectance, between -1 and 1; got {offset}. For the 1000 "
            f"that Sentinel-2 adds to its numbers give --offset -0.1."
        )


def _refuse_impossible(said: Sequence[Statement]) -> None:
    for impossible in (s for s in said if not _is_possible(s)):
        raise SceneError(
            f"a scene's scale must be a positive number and its offset a reflectance between -1 "
            f"and 1; its {impossible.source} has scale {impossible.scale}, offset "
            f"{impossible.offset}. Give --scale and --offset, which stand above it, or mend the "
            f"file."
        )


def _is_possible(said: Statement) -> bool:
    """Whether it can be a scale and offset of reflectance; a thermal band may be among them."""
    numbers = all(math.isfinite(x) for x in (*said.scale, *said.offset))
    return numbers and all(s > 0 for s in said.scale) and any(abs(o) <= 1 for o in said.offset)


def _refuse_other_than_reflectance(evidence: Evidence) -> None:
    if evidence.dtype in {"uint8", "int8"} and evidence.is_of("naip"):
        raise SceneError(
            f"pixels must be reflectance; NAIP as {evidence.dtype} without a scale is brightness "
            f"that was stretched for the eye, flight by flight, and a model made for reflectance "
            f"goes wrong on it. With a model of such numbers give --scale (0.004 takes 250 as 1)."
        )
    if evidence.dtype in {"uint8", "int8"}:
        raise SceneError(
            f"pixels must be reflectance; {evidence.dtype} without a scale is a picture made for "
            f"display. Use the product itself, or give --scale and --offset if these are "
            f"reflectances."
        )
    if evidence.is_of("planetscope") and evidence.level == "TOA":
        raise SceneError(
            "pixels must be reflectance; this PlanetScope product holds radiance. Use the surface "
            "reflectance (its name has _SR), or keep its *_metadata.xml beside it, which has the "
            "coefficients."
        )


def _flags(evidence: Evidence) -> Statement | None:
    """What a Sentinel-2 baseline and an archive's flag say together of stored integers."""
    baseline, removed = evidence.baseline, evidence.offset_removed
    if not evidence.is_of("sentinel-2") or evidence.dtype.startswith("float"):
        return None
    if baseline is None and removed is None:
        return None
    old = baseline is not None and baseline < _FIRST_WITH_OFFSET
    offset = 0.0 if old or removed else -0.1
    sources = [f"processing baseline {baseline:05.2f}"] if baseline is not None else []
    if removed is not None and not old:
        sources.append(f"archive's flag that the offset is {'out' if removed else 'still in'}")
    return _for_all(evidence, " and the ".join(sources), 1e-4, offset)


def _for_all(evidence: Evidence, source: str, scale: float, offset: float) -> Statement:
    return Statement(source, (scale,) * evidence.count, (offset,) * evidence.count)


def _settle(evidence: Evidence, said: Sequence[Statement]) -> Radiometry:
    """Follow the first source; another that contradicts it stays as the rival."""
    first = said[0]
    against = next((other for other in said[1:] if not other.agrees(first)), None)
    warnings: tuple[str, ...] = ()
    if against is not None:
        conflict = (
            f"the scene's {first.source} says {first}, but its {against.source} says {against}; "
            f"the first is followed unless the pixels contradict it. Settle it with --scale and "
            f"--offset."
        )
        warnings = (conflict,)
    rival = against or _unflagged(evidence, first)
    return Radiometry(
        first.scale,
        first.offset,
        f"scale and offset from the {first.source}",
        warnings=warnings,
        rival=rival,
        disputed=against is not None and first is not evidence.product,
    )


def _unflagged(evidence: Evidence, first: Statement) -> Statement | None:
    """The other offset, where no more than a baseline or an archive's flag speaks for this one.

    A product's own metadata and a plain scale and offset per band mean the numbers they come with;
    a baseline means those that ESA made, and an archive's flag may be wrong.
    """
    sure = first is evidence.product or (
        first is evidence.bands and evidence.offset_removed is None
    )
    modern = evidence.baseline is None or evidence.baseline >= _FIRST_WITH_OFFSET
    if sure or not evidence.is_of("sentinel-2") or not modern:
        return None
    offset = 0.0 if first.offset[0] < -0.05 else -0.1
    return _for_all(evidence, "dark pixels", first.scale[0], offset)


def _convention(evidence: Evidence) -> Radiometry:
    """What numbers of this type and sensor usually are, where nothing says so."""
    count, dtype = evidence.count, evidence.dtype
    if dtype.startswith("float"):
        return Radiometry(
            (1.0,) * count,
            (0.0,) * count,
            "floating point taken as reflectance 0 to 1",
            assumed=True,
            rival=_stored_as_float(evidence),
        )
    if (
        evidence.is_of("landsat")
        and evidence.level in {"L2SP", "L2SR"}
        and evidence.collection != 1
    ):
        usual = _for_all(evidence, "Landsat Collection 2 Level 2 convention", 2.75e-5, -0.2)
        return Radiometry(
            usual.scale,
            usual.offset,
            f"{dtype} of Landsat {evidence.level} taken as Collection 2 surface reflectance",
            assumed=True,
            rival=_for_all(evidence, "reflectance x 10000", 1e-4, 0.0),
        )
    for sensor, level, name in (("hls", None, "HLS"), ("planetscope", "SR", "PlanetScope SR")):
        if evidence.is_of(sensor) and level in {None, evidence.level}:
            said = f"{name} holds reflectance x 10000"
            return Radiometry((1e-4,) * count, (0.0,) * count, said)
    return Radiometry(
        (1e-4,) * count,
        (0.0,) * count,
        f"{dtype} taken as reflectance x 10000, no offset",
        assumed=True,
    )


def _stored_as_float(evidence: Evidence) -> Statement | None:
    """The product's integers kept in floating point, for sensors whose products hold such."""
    if not evidence.is_of("sentinel-2", "hls", "planetscope"):
        return None
    integers = replace(evidence, dtype="uint16")
    offset = flagged.offset[0] if (flagged := _flags(integers)) else 0.0
    return _for_all(evidence, "whole numbers as its sensor's products hold", 1e-4, offset)


def _as_told(
    evidence: Evidence,
    found: Radiometry,
    said: Statement | None,
    scale: float | None,
    offset: float | None,
) -> Radiometry:
    """The user's word over what was found."""
    count = len(found.scale)
    told = {"scale": scale is not None, "offset": offset is not None}
    rest = said.source if said else "convention"
    made = Statement(
        " and ".join(name for name, given in told.items() if given)
        + " as told"
        + "".join(f", {name} from {rest}" for name, given in told.items() if not given),
        found.scale if scale is None else (scale,) * count,
        found.offset if offset is None else (offset,) * count,
    )
    warnings: tuple[str, ...] = ()
    if said is not None and not said.agrees(made):
        warnings = (f"{made} was told, though the scene's {said.source} says {said}.",)
    # Who tells a scale alone has not spoken of the 1000 that may be in Sentinel-2's numbers.
    silent = offset is None and said is None and evidence.is_of("sentinel-2")
    return Radiometry(made.scale, made.offset, made.source, warnings=warnings, told=not silent)


# -- the look at pixels ----------------------------------------------------------------------------

_LEAST_PIXELS = 1000
"""Fewer say nothing of how dark a scene gets."""

_FLOOR = 0.5
"""Per cent of a band's pixels that lie below its floor."""


def check_radiometry(
    radiometry: Radiometry,
    evidence: Evidence,
    samples: NDArray[Any],
    bands: Mapping[int, str],
) -> Radiometry:
    """Check a decision against pixels; where two readings are open, let them choose.

    The evidence is in each band's *floor*, the value that 0.5% of its pixels lie below. Somewhere
    in nearly every scene a pixel is dark: water and shadow in the infrared, vegetation in the
    visible. So

    - floors far below zero say that an offset was subtracted that was not there;
    - floors near 0.1 in the visible, near and short-wave infrared at once say that Sentinel-2's
      1000 is still in: no scene is 0.1 bright in all of them and nowhere darker in one;
    - numbers that are impossible as reflectance say that the scale is wrong.

    Looked at: 105 real scenes (Sentinel-2 L1C and L2A, Landsat, HLS; land, sea, snow, cloud) and
    136 chips, all meant to be without the offset. The least floor of any band was 0.039 or lower
    in all of the scenes but one. There it was 0.111, and 0.111 to 0.134 in all bands but the water
    vapour's, over a river and forest: the 1000 had been left in, unnoticed. It is the only one of
    all that this refuses. With 1000 added to all 241, 147 were refused, 10 warned of, and 84
    have nowhere the dark pixels that would tell. In an L2A product of baseline 04.00,
    mostly cloud, the floors of the stored numbers were 837 (coastal) to 1076, so reflectance
    rightly read reaches down to -0.016.

    A scene without dark pixels (snow, cloud, desert) says nothing, and is not refused for it.

    Args:
        radiometry: the decision.
        evidence: what it was decided on.
        samples: stored numbers of observed pixels [bands, n].
        bands: their common names by their place in the file, in the order of `samples`.

    Returns:
        The decision, or its rival where the pixels speak for that.

    Raises:
        SceneError: the pixels contradict the decision; or sources contradict each other and the
            pixels don't settle it.
    """
    if not samples.size:
        return radiometry
    made = Statement(radiometry.reason, radiometry.scale, radiometry.offset)
    faults = _faults(made, evidence, samples, bands, assumed=radiometry.assumed)
    rival = _possible(radiometry.rival, evidence, samples, bands)
    if not faults.certain:
        return _kept(radiometry, rival, faults)
    if radiometry.told and not faults.impossible:
        return _with(radiometry, f"{faults.certain[0]}, with {radiometry.reason}.")
    if rival is None:
        raise SceneError(f"{faults.certain[0]}, with {radiometry.reason}. {faults.advice}")
    warning = (
        f"{faults.certain[0]}, with {radiometry.reason}: {rival} is taken instead "
        f"({rival.source}). Settle it with --scale and --offset."
    )
    reason = f"{rival} ({rival.source}), against {radiometry.reason}: {faults.certain[0]}"
    return Radiometry(rival.scale, rival.offset, reason, warnings=(warning,))


def _kept(radiometry: Radiometry, rival: Statement | None, faults: _Faults) -> Radiometry:
    """A decision that the pixels do not contradict."""
    if radiometry.disputed and rival:
        raise SceneError(
            f"{radiometry.warnings[0]} No pixel is dark enough to tell which is right. Give "
            f"--offset {radiometry.offset[0]:g} or --offset {rival.offset[0]:g}."
        )
    return _with(radiometry, *(faults.suspected if radiometry.assumed else ()))


def _with(radiometry: Radiometry, *warnings: str) -> Radiometry:
    """A decision that was looked at: only what the pixels say is left to be warned of."""
    return replace(radiometry, warnings=warnings, rival=None, disputed=False)


def _possible(
    rival: Statement | None, evidence: Evidence, samples: NDArray[Any], bands: Mapping[int, str]
) -> Statement | None:
    """The rival, if the pixels do not contradict it."""
    if rival is None or _faults(rival, evidence, samples, bands).certain:
        return None
    whole = not evidence.dtype.startswith("float") or bool(np.all(samples == np.rint(samples)))
    return rival if whole or set(rival.scale) == {1.0} else None


@dataclass(frozen=True, slots=True)
class _Faults:
    """What speaks against a reading."""

    impossible: tuple[str, ...] = ()
    """No scene has such reflectance."""
    contradicted: tuple[str, ...] = ()
    """Such floors mean another offset, or another scale."""
    suspected: tuple[str, ...] = ()
    """May be so, or not: worth a word where nothing else says how it is."""
    advice: str = ""
    """What the user may do about it."""

    @property
    def certain(self) -> tuple[str, ...]:
        return self.impossible + self.contradicted


_SCALES = (
    "Give --scale (0.0001 for reflectance x 10000; 0.0000275 with --offset -0.2 for Landsat "
    "Collection 2 Level 2) and --offset; for Landsat Level 1 keep the MTL file with the bands."
)
_OFFSETS = (
    "Give --offset -0.1 if the 1000 that Sentinel-2 adds from baseline 04.00 on is still in the "
    "numbers, or --offset 0 if it is not."
)


def _faults(
    said: Statement,
    evidence: Evidence,
    samples: NDArray[Any],
    bands: Mapping[int, str],
    *,
    assumed: bool = False,
) -> _Faults:
    """What the pixels say against a reading."""
    scale, offset = (
        np.asarray([values[i] for i in bands], np.float32)[:, None]
        for values in (said.scale, said.offset)
    )
    values = samples * scale + offset
    impossible = _unnoticed_nodata(values, samples) or _impossible(values)
    if impossible.certain:
        return impossible
    if values.shape[1] < _LEAST_PIXELS:
        return _Faults()
    lowest = np.percentile(values, _FLOOR, axis=1)
    floors = {name: float(x) for name, x in zip(bands.values(), lowest, strict=True)}
    if float(offset.min()) <= -0.05 and not evidence.is_of("landsat"):
        return _too_dark(floors)
    if assumed and not evidence.is_of("sentinel-2", "hls", "planetscope"):
        bright = _never_dark(floors)
        if bright:
            return bright
    if evidence.is_of("landsat", "hls", "planetscope", "naip") or float(offset.max()) >= 0.05:
        return _Faults()
    return _offset_left_in(floors)


def _unnoticed_nodata(values: NDArray[Any], samples: NDArray[Any]) -> _Faults | None:
    """One number in all bands that is far below zero, like -9999, means that nothing was seen."""
    alike = (samples == samples[0]).all(axis=0) & (values < -0.5).all(axis=0)
    if not alike.any():
        return None
    number = f"{samples[0][alike][0]:g}"
    said = f"{alike.mean():.2%} of the pixels that were looked at are {number} in every band"
    return _Faults(
        impossible=(said,), advice=f"If nothing was observed there give --nodata {number}."
    )


def _impossible(values: NDArray[Any]) -> _Faults:
    """Numbers that are no reflectance of anything."""
    middle = float(np.median(values))
    if not -0.02 < middle < 2.0:
        said = f"reflectance must lie between 0 and about 1.5, and its median is {middle:.4g}"
        return _Faults(
            impossible=(said,), advice=_SCALES if middle > 0 else f"{_OFFSETS} {_SCALES}"
        )
    brightest = float(np.percentile(values.max(axis=0), 99.5))
    if brightest < 0.003:
        said = f"the brightest pixels have a reflectance of only {brightest:.2g}"
        return _Faults(impossible=(said,), advice=_SCALES)
    return _Faults()


def _too_dark(floors: Mapping[str, float]) -> _Faults:
    """An offset was subtracted that was not there: two bands (one may be noise) are negative."""
    ordered = sorted(floors.items(), key=lambda item: item[1])
    name, least = ordered[min(1, len(ordered) - 1)]
    if least >= -0.04:
        return _Faults()
    said = f"the darkest pixels are below zero (0.5% of {name} are under {least:.3f})"
    return _Faults(contradicted=(said,), advice=_OFFSETS)


def _never_dark(floors: Mapping[str, float]) -> _Faults | None:
    """Numbers of another scale: cloud is as bright in the visible, snow too, but not in SWIR."""
    infrared = {"swir16", "swir22"} & floors.keys()
    if not infrared or min(floors.values()) < 0.48:
        return None
    said = f"no pixel is darker than {min(floors.values()):.2f} in any band"
    return _Faults(contradicted=(said,), advice=_SCALES)


def _offset_left_in(floors: Mapping[str, float]) -> _Faults:
    """Sentinel-2's 1000 is still in: bands that are never dark together all begin at 0.1."""
    kinds = {
        "cirrus": ("cirrus",),
        "short-wave infrared": ("swir16", "swir22"),
        "near infrared": ("nir", "nir08"),
        "red": ("red",),
    }
    near: dict[str, float] = {}
    for kind, names in kinds.items():
        found = [floors[name] for name in names if name in floors]
        if found and min(found) >= 0.085 and max(found) <= (0.14 if "wave" in kind else 0.17):
            near[kind] = min(found)
    if min(floors.values()) < 0.07 or not ("cirrus" in near or len(near) > 1):
        return _Faults()
    said = "the darkest pixels are near 0.1 in " + ", ".join(
        f"{kind} ({floor:.3f})" for kind, floor in near.items()
    )
    if "cirrus" in near or len(near) == 3:
        return _Faults(contradicted=(f"{said} alike",), advice=_OFFSETS)
    return _Faults(suspected=(f"{said}. {_OFFSETS}",))

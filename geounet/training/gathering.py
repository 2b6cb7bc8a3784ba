"""What is trained on: scenes are found, split and surveyed; the model's contract follows."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import distributed

from geounet.errors import ConfigError, GeounetWarning, SceneError
from geounet.labels import LabelRules, Pair, checked_pairs, find_pairs, open_labels
from geounet.model import InputBand, ModelSpec, Normalisation, load_model, match_bands
from geounet.networks import Geometry, unet_geometry
from geounet.sensors import common_name, is_reflective
from geounet.tiling import Window
from geounet.training.dataset import LabelledScene
from geounet.training.scenes import SceneSource, Survey, keep_back, sites_of, survey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geounet.scene import Scene
    from geounet.training.config import TrainConfig

__all__ = ["Data", "gather"]

_LEAST_SIDE = {"pan": 128}
"""Pixels that a network needs at least: smaller windows vanish in PAN's pyramid of poolings."""


@dataclass(frozen=True, eq=False)
class Data:
    """The scenes, read once, and the model's contract that follows from them."""

    spec: ModelSpec
    train: tuple[LabelledScene, ...]
    valid: tuple[LabelledScene, ...]
    steps: int

    @property
    def seen(self) -> tuple[str, ...]:
        """Scenes that are learned, by name."""
        return _names(self.train)

    @property
    def judged(self) -> tuple[str, ...]:
        """Scenes that are validated on, by name."""
        return _names(self.valid)


def _names(scenes: Sequence[LabelledScene]) -> tuple[str, ...]:
    return tuple(sorted({scene.name for scene in scenes}))


def gather(config: TrainConfig) -> Data:
    """Find the scenes, decide which are learned, look at all of them once.

    Raises:
        ConfigError: the settings contradict the data.
        SceneError: a scene or its labels cannot be read, do not lie on each other, or pixels
            contradict what is said of their reflectance.
        ModelError: `TrainConfig.start` is no model.

    Warns:
        GeounetWarning: what is validated on is not independent of what is learned; a scene has no
            labels where it was observed; a class of the model that is started from never occurs;
            or what a scene's numbers mean is in doubt.
    """
    pairs, valid = (
        checked_pairs(find_pairs(folders, scale=config.scale, offset=config.offset))
        for folders in (config.data, config.valid)
    )
    spec = _contract(config, [p.scene for p in (*pairs, *valid)])
    _check_window(config, spec)
    sites = sites_of([p.scene for p in pairs], config.site_pattern)
    parts = _split(config, pairs, valid, sites)
    sources = [(p, _source(config, spec, p.pair, p.area)) for p in parts]
    _hold([source for _, source in sources], config.memory_mb << 20)
    surveyed = _labelled([(p, s, survey(s, len(spec.classes), 1e-3)) for p, s in sources])
    learned = [(p, source, found) for p, source, found in surveyed if not p.valid]
    surveys = [found for *_, found in learned]
    _check_classes(config, spec, surveys)
    if config.start is None:
        normalisation = _normalisation(spec, [p.site for p, *_ in learned], surveys)
        spec = spec.model_copy(update={"normalisation": normalisation})
    train, judged = (
        tuple(
            LabelledScene(p.pair.name, p.site, s, _present(spec, p.pair), anchors=found.anchors)
            for p, s, found in surveyed
            if p.valid == valid
        )
        for valid in (False, True)
    )
    return Data(spec, train, judged, _steps(config, [source for _, source, _ in learned]))


@dataclass(frozen=True)
class _Part:
    """A scene, or some rows of it, that is learned or validated on."""

    pair: Pair
    site: str
    area: Window
    valid: bool


def _split(
    config: TrainConfig, pairs: Sequence[Pair], valid: Sequence[Pair], sites: Sequence[str]
) -> list[_Part]:
    """Keep whole sites back; of a single site the last rows of its scenes."""
    whole = [Window(0, 0, *p.scene.grid.shape) for p in pairs]
    kept = frozenset[str]()
    if not valid:
        kept = keep_back(sites, config.valid_share, config.seed, config.fold)
    parts = [
        _Part(pair, site, area, site in kept)
        for pair, site, area in zip(pairs, sites, whole, strict=True)
    ]
    _warn_of_shared_sites(config, pairs, valid)
    parts += [
        _Part(pair, pair.name, Window(0, 0, *pair.scene.grid.shape), valid=True) for pair in valid
    ]
    if any(part.valid for part in parts) or config.valid_share == 0:
        return parts
    warnings.warn(
        f"all scenes are of one site, {sites[0]}: the last {config.valid_share:.0%} of their rows "
        f"are kept for validation, whose figures will flatter the model. Name other places with "
        f"valid.",
        GeounetWarning,
        stacklevel=4,
    )
    return [half for part in parts for half in _halves(part, config.valid_share)]


def _warn_of_shared_sites(
    config: TrainConfig, pairs: Sequence[Pair], valid: Sequence[Pair]
) -> None:
    sites = sites_of([p.scene for p in (*pairs, *valid)], config.site_pattern)
    shared = set(sites[: len(pairs)]) & set(sites[len(pairs) :])
    if shared:
        warnings.warn(
            f"scenes to learn and to validate on share the sites {', '.join(sorted(shared))}: the "
            f"figures will flatter the model.",
            GeounetWarning,
            stacklevel=5,
        )


def _halves(part: _Part, share: float) -> tuple[_Part, _Part]:
    height, width = part.area.height, part.area.width
    cut = max(1, min(height - 1, round((1 - share) * height)))
    return (
        _Part(part.pair, part.site, Window(0, 0, cut, width), valid=False),
        _Part(part.pair, part.site, Window(cut, 0, height - cut, width), valid=True),
    )


def _source(config: TrainConfig, spec: ModelSpec, pair: Pair, area: Window) -> SceneSource:
    rules = LabelRules(
        classes=spec.classes,
        values={str(name): values for name, values in config.label_values.items()},
        ignored=config.ignore_values,
        outside=config.outside,
        band=config.label_band,
    )
    try:
        inputs = match_bands(spec, pair.scene.bands, pair.scene.radiometry)
    except SceneError as error:
        raise ConfigError(
            f"every scene must have the bands "
            f"{', '.join(b.name for b in spec.bands if b.required)}; {pair.name} has "
            f"{', '.join(pair.scene.bands)}. Name fewer bands, or some as optional_bands."
        ) from error
    return SceneSource(pair.scene, inputs, open_labels(pair, rules), area=area, margin=spec.margin)


def _present(spec: ModelSpec, pair: Pair) -> tuple[bool, ...]:
    return tuple(g > 0 for g in match_bands(spec, pair.scene.bands, pair.scene.radiometry).gain)


def _hold(sources: Sequence[SceneSource], budget: int) -> None:
    for source in sources:
        if source.bytes <= budget:
            source.hold()
            budget -= source.bytes


def _contract(config: TrainConfig, scenes: Sequence[Scene]) -> ModelSpec:
    """The model's contract, its normalisation still open."""
    if config.start is not None:
        return _contract_of_start(config, config.start)
    bands = _bands(config, scenes)
    geometry = _geometry(config)
    return ModelSpec(
        name=config.name,
        architecture=config.architecture,
        bands=bands,
        classes=config.classes,
        normalisation=Normalisation(mean=(0.0,) * len(bands), std=(1.0,) * len(bands)),
        tile=config.window,
        overlap=config.window // 4,
        gsd=_pixel_sizes(config, scenes),
        licence=config.licence,
        sources=_sources(config),
        margin=geometry.margin,
        tile_multiple=geometry.multiple,
        tile_remainder=geometry.remainder,
    )


def _pixel_sizes(config: TrainConfig, scenes: Sequence[Scene]) -> tuple[float, float]:
    """Least and largest pixel in metres that training sees, scaling included."""
    sizes = [float(np.sqrt(scene.grid.pixel_areas().mean())) for scene in scenes]
    low, high = config.augment.scales
    return round(low * min(sizes), 3), round(high * max(sizes), 3)


def _check_window(config: TrainConfig, spec: ModelSpec) -> None:
    multiple, remainder = spec.tile_multiple, spec.tile_remainder
    if config.window % multiple != remainder:
        low = config.window - (config.window - remainder) % multiple
        fits = f"a multiple of {multiple}" + (f" plus {remainder}" if remainder else "")
        raise ConfigError(
            f"window must be {fits} pixels for this network; got {config.window}. "
            f"Try {max(low, multiple + remainder)} or {low + multiple}."
        )


def _contract_of_start(config: TrainConfig, start: str) -> ModelSpec:
    spec = load_model(start).spec
    bands = [*config.bands, *config.optional_bands]
    names = {common_name(n) for n in bands} or {b.common_name for b in spec.bands}
    same = {
        "bands": names == {b.common_name for b in spec.bands},
        "classes": config.classes == spec.classes or "classes" not in config.model_fields_set,
        "architecture": config.architecture == spec.architecture
        or "architecture" not in config.model_fields_set,
    }
    other = [what for what, kept in same.items() if not kept]
    if other:
        raise ConfigError(
            f"a training that starts from {start} has its architecture, bands "
            f"({', '.join(b.name for b in spec.bands)}) and classes ({', '.join(spec.classes)}); "
            f"got another {other[0]}. Leave it out."
        )
    return spec.model_copy(
        update={
            "name": config.name,
            "version": "0",
            "licence": config.licence,
            "sources": tuple(dict.fromkeys((*spec.sources, *_sources(config)))),
            "metrics": {},
            "temperature": 1.0,
        }
    )


def _sources(config: TrainConfig) -> tuple[str, ...]:
    return tuple(sorted({f"scenes in {folder.name}" for folder in config.data}))


def _bands(config: TrainConfig, scenes: Sequence[Scene]) -> tuple[InputBand, ...]:
    if config.bands:
        told = [(name, True) for name in config.bands]
        told += [(name, False) for name in config.optional_bands]
    else:
        told = [(name, True) for name in _shared(scenes)]
    names = [common_name(name) or name for name, _ in told]
    stand_in = ("nir08",) if "nir" in names and "nir08" not in names else ()
    return tuple(
        InputBand(
            name=name,
            common_name=common,
            accepts=stand_in if common == "nir" else (),
            required=required,
        )
        for (name, required), common in zip(told, names, strict=True)
    )


def _shared(scenes: Sequence[Scene]) -> tuple[str, ...]:
    """The bands of reflectance that all scenes have, if all have the same."""
    found = [tuple(name for name in scene.bands if is_reflective(name)) for scene in scenes]
    for scene, other in zip(scenes, found, strict=True):
        if set(other) != set(found[0]):
            raise ConfigError(
                f"scenes must all have the same bands, or bands must say which to use; "
                f"{scenes[0].stem} has {', '.join(found[0])}, {scene.stem} {', '.join(other)}."
            )
    return found[0]


def _geometry(config: TrainConfig) -> Geometry:
    options = config.architecture.options
    if config.architecture.decoder != "unet2015":
        least = _LEAST_SIDE.get(config.architecture.decoder.lower(), 1)
        return Geometry(0, max(least, 2 ** int(options.get("encoder_depth", 5))), 0)
    depth = len(options.get("features", (64, 128, 256, 512)))
    up = options.get("up", "transpose")
    return unet_geometry(depth, padded=options.get("padded", False), up=up)


def _labelled(
    surveyed: Sequence[tuple[_Part, SceneSource, Survey]],
) -> list[tuple[_Part, SceneSource, Survey]]:
    """What has labels where it was observed; the rest is named in a warning."""
    labelled = [entry for entry in surveyed if entry[2].counts.any()]
    empty = [
        f"{part.pair.name} (rows {part.area.row} to {part.area.row + part.area.height}, "
        f"to {'validate on' if part.valid else 'learn'})"
        for part, _, found in surveyed
        if not found.counts.any()
    ]
    if not empty:
        return labelled
    said = (
        f"a scene needs labelled pixels where it was observed; {', '.join(empty)} "
        f"{'has' if len(empty) == 1 else 'have'} none"
    )
    if {part.valid for part, *_ in labelled} != {part.valid for part, *_ in surveyed}:
        raise ConfigError(f"{said}. Leave out what has no labels.")
    warnings.warn(f"{said}. What has no labels is left out.", GeounetWarning, stacklevel=5)
    return labelled


def _check_classes(config: TrainConfig, spec: ModelSpec, found: Sequence[Survey]) -> None:
    total = sum((s.counts for s in found), np.zeros(len(spec.classes), np.int64))
    never = [name for name, n in zip(spec.classes, total, strict=True) if n == 0]
    if never and config.start is not None:
        warnings.warn(
            f"{', '.join(never)} never occurs in the labels that are learned: what {config.start} "
            f"knows of it may fade.",
            GeounetWarning,
            stacklevel=5,
        )
    elif never:
        raise ConfigError(
            f"each class must occur in the labels that are learned; {', '.join(never)} never "
            f"does. Check label_values, keep other sites for validation (seed, fold, valid), or "
            f"train without obscured (classes)."
        )


def _normalisation(spec: ModelSpec, sites: Sequence[str], found: Sequence[Survey]) -> Normalisation:
    """Mean and spread of each band's log reflectance, every site counting the same."""
    weights = np.array([1 / sites.count(site) for site in sites])[:, None, None]
    moments = np.stack([s.moments for s in found])
    has = ~np.isnan(moments)
    share = (has * weights).sum(0)
    absent = [b.name for b, n in zip(spec.bands, share[0], strict=True) if n == 0]
    if absent:
        raise ConfigError(
            f"each band must occur in some training scene; {', '.join(absent)} does in none. "
            f"Leave it out of bands and optional_bands."
        )
    mean, square = (np.where(has, moments, 0) * weights).sum(0) / share
    std = np.sqrt(np.maximum(square - mean**2, 0.05**2))
    return Normalisation(mean=tuple(mean.round(4).tolist()), std=tuple(std.round(4).tolist()))


def _steps(config: TrainConfig, sources: Sequence[SceneSource]) -> int:
    if config.epochs is None:
        return config.steps or 4000
    world = distributed.get_world_size() if distributed.is_initialized() else 1
    drawn = config.window**2 * config.batch * config.optimiser.accumulate * world
    pixels = sum(s.area.height * s.area.width for s in sources)
    return max(1, math.ceil(config.epochs * pixels / drawn))

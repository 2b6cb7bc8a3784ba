"""From a scene to its mask and polygons: the only place where I/O meets compute.

    reader thread          this thread                          writer thread
    rows of windows  →  predict → blend → decide  →  strips  →  mask, probability, polygons

Each side runs ahead of the next by an item or two at most, so memory does not grow with the scene.
"""

from __future__ import annotations

import re
import warnings
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

import geounet
from geounet.blending import BlendWindow, StripBlender
from geounet.engines import (
    Decided,
    EngineChoice,
    EngineName,
    choose_engine,
    open_ladder,
    resolve_device,
)
from geounet.errors import ConfigError, GeounetWarning, broken_rule
from geounet.mask import CLASSES, NOT_OBSERVED, mask_writer, probability_writer
from geounet.model import Inputs, Model, ModelSpec, load_model, match_bands
from geounet.outlines import LAYERS, Outliner, Shaping, check_crs
from geounet.products.product import CloudRule  # noqa: TC001 - pydantic looks it up
from geounet.reading import ahead, read_window_rows
from geounet.resampling import Resampling  # noqa: TC001 - pydantic reads it
from geounet.scene import Grid, Scene, open_scene
from geounet.staging import check_free, staged
from geounet.tiling import Window, WindowPlan
from geounet.timing import Clock, Progress
from geounet.vector_files import check_format, save

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Sequence

    from numpy.typing import NDArray

__all__ = [
    "Job",
    "Progress",
    "RunConfig",
    "RunResult",
    "Strip",
    "fit",
    "predict_mask",
    "predict_strips",
    "prepare",
    "run",
    "run_job",
]


_SLACK = 1.5
"""How many times finer or coarser than a model's own pixels may be without a word."""


class RunConfig(BaseModel):
    """Everything that decides what a run does. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "default"
    """Name of a model that ships, or path of a model file."""
    output: Path = Path("out")
    """Folder of the outputs; made if it is not there."""
    name: str | None = None
    """What the outputs' names begin with; None takes the scene's."""
    bands: tuple[str, ...] | None = None
    """Names of all bands in file order; None finds them out."""
    sensor: str | None = None
    """Which sensor the scene is from, a key of `sensors.SENSORS`; None finds it out."""
    scale: float | None = Field(default=None, gt=0)
    """Reflectance per stored number; None finds it out."""
    offset: float | None = None
    """Reflectance at stored number 0; None finds it out."""
    nodata: float | None = None
    """Stored number that means "not observed"; None takes the file's."""
    resampling: Resampling = "bilinear"
    """How bands of coarser pixels come onto the grid of the finest."""
    window: tuple[int, int, int, int] | None = None
    """A part of the scene in pixels: first column, first row, width, height."""
    bbox: tuple[float, float, float, float] | None = None
    """A part of the scene: minx, miny, maxx, maxy in `bbox_crs`."""
    bbox_crs: str | None = None
    """CRS of `bbox`, like ``EPSG:4326``; None takes the scene's."""
    geometry: Path | None = None
    """Vector file of polygons; what lies outside them is not observed."""
    cloud_mask: str | None = None
    """Raster that says where clouds hide the ground, or ``product`` for the product's own."""
    cloud_rule: CloudRule | None = None
    """How the cloud mask's numbers are read; None tells it by its name or numbers."""
    time: str | None = None
    """Which moment of a netCDF's or Zarr's several, by how its time begins."""
    tile: int | None = Field(default=None, ge=1)
    """Window size in pixels; None takes the model's."""
    overlap: int | None = Field(default=None, ge=0)
    """Pixels that windows share at least; None takes the model's."""
    blend: BlendWindow = "hann"
    """Profile of a window's weight."""
    threshold: float = Field(default=0.5, gt=0, lt=1, allow_inf_nan=False)
    """Least probability of water."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""
    engine: EngineChoice = "auto"
    """``auto``, ``torch``, ``openvino``, ``openvino-bf16`` or ``openvino-int8``."""
    batch: int | None = Field(default=None, ge=1)
    """Windows predicted at once; None chooses by the device."""
    probability: bool = False
    """Also write the water probability."""
    polygons: bool = True
    """Write the water's polygons."""
    edges: Literal["pixel", "contour"] = "pixel"
    """Polygons along pixel edges, or through the pixels at the threshold's level."""
    shoreline: bool = False
    """Also write the shorelines: lines with the water on their left."""
    format: Literal["gpkg", "parquet", "fgb", "geojson"] = "gpkg"
    """Format of the polygons and shorelines."""
    to_crs: str | None = None
    """CRS of the polygons and shorelines, like ``EPSG:4326``; None takes the scene's."""
    min_area: float = Field(default=0.0, ge=0)
    """Least area of a polygon in square metres."""
    connectivity: Literal[4, 8] = 4
    """Whether pixels that touch at a corner only belong together (8) or not (4)."""
    fill_holes: float = Field(default=0.0, ge=0)
    """Greatest area in square metres of holes that are filled, with what lies in them."""
    simplify: float = Field(default=0.0, ge=0)
    """Detail of the polygons in metres to take out."""
    smooth: float = Field(default=0.0, ge=0)
    """How far in metres the polygons' edges may move for corners to be rounded."""
    overwrite: bool = False
    """Replace outputs that exist."""

    @field_validator("output")
    @classmethod
    def _is_local(cls, output: Path) -> Path:
        """Outputs are renamed when they are whole, which object storage cannot do."""
        if re.match(r"[A-Za-z][\w+.-]+:/|/vsi", str(output)):
            raise ValueError("outputs are written to a folder; copy them to object storage after")
        return output

    @field_validator("name")
    @classmethod
    def _names_no_folder(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[^/\\]+", name):
            raise ValueError("what files' names begin with is not empty and has no / or \\")
        return name

    @classmethod
    def of(cls, **options: Any) -> RunConfig:
        """Build it, with one clear error.

        Raises:
            ConfigError: a key that is not known, or a value that breaks its rule.
        """
        try:
            return cls(**options)
        except ValidationError as error:
            raise broken_rule(error, cls) from error

    def opened(
        self,
        uri: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        wanted: Sequence[str] | None = None,
    ) -> Scene:
        """The scene, as `open_scene` opens it with what is told here of it.

        Args:
            uri: what `open_scene` takes.
            wanted: common names of the bands that decide how fine the grid is.
        """
        return open_scene(
            uri,
            bands=self.bands,
            sensor=self.sensor,
            scale=self.scale,
            offset=self.offset,
            nodata=self.nodata,
            window=self.window,
            bbox=self.bbox,
            bbox_crs=self.bbox_crs,
            geometry=self.geometry,
            resampling=self.resampling,
            wanted=wanted,
            cloud_mask=self.cloud_mask,
            cloud_rule=self.cloud_rule,
            time=self.time,
        )

    def outputs(self, stem: str) -> dict[str, Path]:
        """What will be written, by kind.

        Args:
            stem: of the scene; `name` goes before it.
        """
        base = self.output / (self.name or stem)
        paths = {"mask": base.with_name(f"{base.name}_mask.tif")}
        if self.polygons:
            paths["polygons"] = base.with_name(f"{base.name}_water.{self.format}")
        if self.shoreline:
            paths["shoreline"] = base.with_name(f"{base.name}_shoreline.{self.format}")
        if self.probability:
            paths["probability"] = base.with_name(f"{base.name}_probability.tif")
        return paths

    def shaping(self) -> Shaping:
        """What polygons look like.

        Raises:
            ConfigError: contours with connectivity 8.
        """
        return Shaping(
            edges=self.edges,
            threshold=self.threshold,
            connectivity=self.connectivity,
            min_area=self.min_area,
            fill_holes=self.fill_holes,
            simplify=self.simplify,
            smooth=self.smooth,
        )


@dataclass(frozen=True, eq=False, slots=True)
class Strip:
    """Finished rows of the output."""

    row: int
    """First row."""
    codes: NDArray[np.uint8]
    """Mask codes [rows, width]."""
    probability: NDArray[np.uint8]
    """Water probability in steps of 1/250 [rows, width]; 255 not observed."""


@dataclass(frozen=True)
class Job:
    """A run that was checked and has not begun: scene, model and plan fit each other."""

    scene: Scene
    model: Model
    inputs: Inputs
    plan: WindowPlan
    config: RunConfig
    device: str
    engine: EngineName

    @property
    def bands_used(self) -> dict[str, str]:
        """The model's bands that the scene has, and the scene's name for each."""
        return {
            band.name: self.scene.bands[self.inputs.read[place]]
            for band, place, gain in zip(
                self.model.spec.bands, self.inputs.take, self.inputs.gain, strict=True
            )
            if gain
        }

    @property
    def bands_missing(self) -> tuple[str, ...]:
        """The model's bands that the scene lacks."""
        return tuple(b.name for b in self.model.spec.bands if b.name not in self.bands_used)

    @property
    def outputs(self) -> dict[str, Path]:
        """What will be written, by kind."""
        return self.config.outputs(self.scene.stem)

    @property
    def expected_memory(self) -> int:
        """About how many bytes the run will hold at its peak, the libraries included."""
        margin = 2 * self.model.spec.margin
        rows = (self.plan.rows.tile + margin) * (self.plan.width + margin)
        numbers = rows * len(self.inputs.read) * np.dtype(self.scene.dtype).itemsize
        scores = rows * len(self.model.spec.classes) * 4
        libraries = 1280 << 20 if self.engine == "torch" else 512 << 20  # measured on small scenes
        return 4 * numbers + 3 * scores + libraries

    def tags(self) -> dict[str, str]:
        """Provenance, for the outputs."""
        spec, radiometry = self.model.spec, self.scene.radiometry
        product, part = self.scene.product, self.scene.part
        return {
            **({"ACQUIRED": product.acquired} if product.acquired else {}),
            "GEOUNET_VERSION": geounet.__version__,
            "MODEL": f"{spec.name} {spec.version}",
            "MODEL_SHA256": self.model.digest,
            "MODEL_LICENCE": spec.licence,
            "ENGINE": self.engine,
            "SOURCE": Path(self.scene.uri).name,
            "BANDS": ", ".join(f"{k}={v}" for k, v in self.bands_used.items()),
            "BANDS_MISSING": ", ".join(self.bands_missing),
            "RADIOMETRY": radiometry.decision,
            "SCALE": " ".join(f"{radiometry.scale[i]:g}" for i in self.inputs.read),
            "OFFSET": " ".join(f"{radiometry.offset[i]:g}" for i in self.inputs.read),
            **({"PART": part.place} if part else {}),
            **({"CLOUD_MASK": said} if (said := self.scene.cloud_mask) else {}),
            "TILE": str(self.plan.tile),
            "OVERLAP": str(self.plan.overlap),
            "BLEND": self.config.blend,
            "THRESHOLD": f"{self.config.threshold:g}",
        }


@dataclass(frozen=True)
class RunResult:
    """What a run made."""

    outputs: dict[str, Path]
    """Files by kind: ``mask``, ``polygons``, ``shoreline``, ``probability``."""
    area_km2: dict[str, float]
    """True area of each class in square kilometres."""
    pixels: dict[str, int]
    """Pixels of each class."""
    polygons: int | None
    """Number of polygons written; None if none were asked for."""
    model: str
    model_sha256: str
    device: str
    engine: str
    bands: dict[str, str]
    """The model's bands and what filled them."""
    bands_missing: tuple[str, ...]
    radiometry: str
    windows: int
    seconds: dict[str, float]
    """Time by stage. ``read`` and ``write`` run beside ``predict``; ``total`` is by the clock."""
    profile: dict[str, dict[str, float]]
    """Seconds by thread and stage; those of a thread add up to the total."""
    cloud_mask: str | None = None
    """Name and rule of the cloud mask; None where there was none."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        record = asdict(self)
        record["outputs"] = {kind: str(path) for kind, path in self.outputs.items()}
        return record


def prepare(
    uri: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    config: RunConfig | None = None,
    model: Model | None = None,
) -> Job:
    """Check that scene, model and parameters fit each other, without predicting anything.

    Args:
        uri: what `open_scene` takes.
        config: what to do.
        model: that of `config`, where it is loaded already.

    Raises:
        SceneError: the scene cannot be read, or lacks a band.
        ModelError: the model cannot be loaded.
        ConfigError: a parameter breaks a rule.
    """
    config = config or RunConfig()
    model = model or load_model(config.model)
    needed = [name for band in model.spec.bands for name in (band.common_name, *band.accepts)]
    return fit(config.opened(uri, needed), model, config)


def fit(scene: Scene, model: Model, config: RunConfig, *, look: bool = True) -> Job:
    """Like `prepare`, for a scene and a model that are at hand; `look` reads a few pixels.

    Warns:
        GeounetWarning: the scene's pixels are of another size than those that the model learned.
    """
    inputs = match_bands(model.spec, scene.bands, scene.radiometry)
    plan = _plan(scene.grid, model, config)
    config.shaping()
    if config.polygons or config.shoreline:
        check_crs(config.to_crs, scene.grid.crs)
        check_format(config.output, config.format, scene.grid.crs)
    if look:
        _warn_of_pixel_size(scene, model.spec)
        scene = scene.checked(inputs.read)
        inputs = match_bands(model.spec, scene.bands, scene.radiometry)
    device = resolve_device(config.device)
    engine = choose_engine(model, device, config.engine)
    return Job(scene, model, inputs, plan, config, device, engine)


def _warn_of_pixel_size(scene: Scene, spec: ModelSpec) -> None:
    """Say so where pixels are clearly finer or coarser than those that the model learned."""
    if scene.grid.crs is None:
        return
    areas = scene.grid.pixel_areas()
    on_earth = areas[areas > 0]
    if not len(on_earth):
        return
    size, (least, most) = float(np.sqrt(np.median(on_earth))), spec.gsd
    if not least / _SLACK <= size <= most * _SLACK:
        warnings.warn(
            f"{scene.uri} has pixels of {size:.3g} m, and the model {spec.name} learned from "
            f"{least:g} to {most:g} m: how good its mask is there was not measured.",
            GeounetWarning,
            stacklevel=3,
        )


def _plan(grid: Grid, model: Model, config: RunConfig) -> WindowPlan:
    """The windows; a tile that is told must be one that the network takes."""
    spec = model.spec
    tile = config.tile or spec.tile
    multiple, remainder = spec.tile_multiple, spec.tile_remainder
    if (tile - remainder) % multiple:
        fits = f"a multiple of {multiple}" + (f" plus {remainder}" if remainder else "")
        lower = max(tile - (tile - remainder) % multiple, multiple + remainder)
        raise ConfigError(
            f"the model {spec.name} takes tiles of {fits} pixels; got {tile}. "
            f"Try --tile {lower} or {lower + multiple}."
        )
    overlap = min(spec.overlap, tile // 4) if config.overlap is None else config.overlap
    return WindowPlan(grid.height, grid.width, tile, overlap)


def predict_strips(
    job: Job,
    rows: tuple[int, int] | None = None,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    clock: Clock | None = None,
) -> Generator[Strip]:
    """Predict output rows from the top down.

    A task owns rows, not windows: it predicts every window that touches its rows and drops what
    lies outside them, so that the strips of two tasks fit together as if one had made them.

    Args:
        job: what to run.
        rows: first row and the row after the last; None for all.
        on_progress: called after each row of windows.
        clock: where to add up seconds by stage.
    """
    clock = clock or Clock()
    top, bottom = rows or (0, job.plan.height)
    indices = job.plan.rows.touching(top, bottom)
    across = len(job.plan.cols.starts)
    margin = job.model.spec.margin
    engine = open_ladder(
        job.model, job.inputs, device=job.device, engine=job.engine, batch=job.config.batch
    )
    blender = StripBlender(
        job.plan, engine.channels, job.config.blend, zeros=engine.zeros, asarray=engine.asarray
    )
    reading = read_window_rows(
        job.scene, job.inputs.read, job.plan.rows, indices, margin=margin, clock=clock
    )
    with closing(ahead(reading)) as window_rows, job.scene.open_clouds() as clouds:
        strips: deque[Callable[[], Strip]] = deque()
        for done, row in enumerate(clock.over("wait for reader", window_rows), start=1):
            windows = engine.predict(row.dn, row.valid, job.plan.cols)
            for col, scores in clock.over("predict", windows):
                with clock("blend"):
                    blender.add(row.index, col, scores)
            with clock("decide"):
                scores = blender.finish(row.index)
                start = job.plan.rows.starts[row.index]
                skip = max(top - start, 0)
                keep = slice(skip, min(bottom - start, scores.shape[1]))
                valid = row.valid[margin:, margin : margin + job.plan.width][keep]
                decided = engine.decide(scores[:, keep], valid, job.config.threshold)
            if on_progress:
                on_progress(Progress(done * across, len(indices) * across))
            if len(valid):
                strips.append(partial(_strip, start + skip, decided, clouds, clock))
            if len(strips) > engine.behind:
                yield strips.popleft()()
        for strip in strips:
            yield strip()


def _strip(
    row: int, decided: Decided, clouds: Callable[[Window], NDArray[np.bool_]] | None, clock: Clock
) -> Strip:
    """What was decided of rows; what is observed and hidden by clouds is obscured."""
    with clock("decide"):
        codes, level = decided()
        if clouds:
            hidden = clouds(Window(row, 0, *codes.shape)) & (codes != NOT_OBSERVED)
            codes[hidden] = 2
            level[hidden] = NOT_OBSERVED
    return Strip(row, codes, level)


def predict_mask(scene: Scene, model: Model, config: RunConfig | None = None) -> NDArray[np.uint8]:
    """Predict a scene in memory: mask codes uint8 [height, width].

    Raises:
        SceneError: the scene cannot be read, or lacks a band that the model needs.
        ConfigError: a parameter breaks a rule.
    """
    job = fit(scene, model, config or RunConfig())
    return np.concatenate([strip.codes for strip in predict_strips(job)])


class _Outputs:
    """The files of a run: rasters written from the top row down, by one thread; then outlines."""

    def __init__(self, job: Job, paths: dict[str, Path], stack: ExitStack, clock: Clock) -> None:
        self._clock = clock
        tags, grid = job.tags(), job.scene.grid
        self._mask = stack.enter_context(mask_writer(paths["mask"], grid, tags))
        self._probability = (
            stack.enter_context(probability_writer(paths["probability"], grid, tags))
            if "probability" in paths
            else None
        )
        self._extra = {name.lower(): tags[name] for name in ("SOURCE", "ACQUIRED") if name in tags}
        self._outliner = Outliner(
            grid.width,
            job.config.shaping(),
            polygons="polygons" in paths,
            shoreline="shoreline" in paths,
            probability=True,
        )
        self._pixel_areas = grid.pixel_areas()
        self.pixels = dict.fromkeys(CLASSES, 0)
        self.area = dict.fromkeys(CLASSES, 0.0)

    def write(self, strip: Strip) -> None:
        """Write and count a strip's pixels, and trace their outlines."""
        with self._clock("write"):
            areas = self._pixel_areas[strip.row : strip.row + len(strip.codes)]
            for code in CLASSES:
                counts = (strip.codes == code).sum(axis=1)
                self.pixels[code] += int(counts.sum())
                self.area[code] += float(counts @ areas)
            self._mask.write(strip.codes)
            if self._probability:
                self._probability.write(strip.probability)
        with self._clock("trace"):
            self._outliner.add(strip.codes, strip.probability)

    def write_outlines(self, job: Job, paths: dict[str, Path]) -> dict[str, int]:
        """Write polygons and shorelines of all rows; how many there are, by kind of output."""
        grid, config = job.scene.grid, job.config
        made = self._outliner.tables(
            grid.transform, grid.crs, to_crs=config.to_crs, extra=self._extra
        )
        return {
            kind: save(tables, paths[kind], LAYERS[kind], config.format)
            for kind, tables in made.items()
        }


def run(
    scene: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    on_progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> RunResult:
    """Segment a scene: write its land/water mask, the water's polygons, and what else is asked for.

    Args:
        scene: path or URI of a raster, or what else `open_scene` takes.
        on_progress: called as windows are done.
        options: fields of `RunConfig`, the command's options (`geounet run --help`): output, name,
            overwrite; model, device, engine, batch, tile, overlap, blend, threshold; of the scene
            bands, sensor, scale, offset, nodata, resampling, time, window, bbox, bbox_crs,
            geometry, cloud_mask, cloud_rule; of what is written probability, polygons, shoreline,
            edges, format, to_crs, min_area, fill_holes, simplify, smooth, connectivity.

    Raises:
        ConfigError: an option that is not known or breaks a rule.
        SceneError: the scene cannot be read, or lacks a band that the model needs.
        ModelError: the model cannot be loaded.
        OutputError: an output exists and `overwrite` is not set, or cannot be written. What
            existed before is then as it was.
    """
    return run_job(prepare(scene, RunConfig.of(**options)), on_progress=on_progress)


def run_job(
    job: Job,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    strips: Callable[..., Generator[Strip]] | None = None,
) -> RunResult:
    """Do what `prepare` checked; see `run`.

    Args:
        job: what to run.
        on_progress: called as windows are done.
        strips: what predicts all rows from the top down, called as `predict_strips` is, which it
            stands in for.
    """
    check_free(job.outputs, overwrite=job.config.overwrite)
    clock = Clock()
    with clock("total"), staged(job.outputs) as paths:
        found = (strips or predict_strips)(job, on_progress=on_progress, clock=clock)
        outputs, polygons = _write(job, paths, clock, found)
    if outputs.pixels[NOT_OBSERVED] == sum(outputs.pixels.values()):
        geometry = job.config.geometry
        inside = f", and whether {geometry} holds a pixel's centre" if geometry else ""
        warnings.warn(
            f"nothing was observed in {job.scene.uri}: the outputs are valid and empty. If that is "
            f"wrong, look at its nodata value and mask with geounet info{inside}.",
            GeounetWarning,
            stacklevel=3,
        )
    spec = job.model.spec
    return RunResult(
        outputs=job.outputs,
        area_km2={CLASSES[code]: area / 1e6 for code, area in outputs.area.items()},
        pixels={CLASSES[code]: n for code, n in outputs.pixels.items()},
        polygons=polygons if job.config.polygons else None,
        model=f"{spec.name} {spec.version}",
        model_sha256=job.model.digest,
        device=job.device,
        engine=job.engine,
        bands=job.bands_used,
        bands_missing=job.bands_missing,
        radiometry=job.scene.radiometry.decision,
        cloud_mask=job.scene.cloud_mask,
        windows=job.plan.count,
        seconds=_by_stage(clock),
        profile=_by_thread(clock),
    )


_STAGES = {
    "read": ("read",),
    "predict": ("predict", "blend", "decide"),
    "write": ("write", "trace"),
    "polygons": ("polygons",),
    "finish": ("finish",),
    "total": ("total",),
}
_THREADS = {
    "reader": ("read",),
    "predictor": ("predict", "blend", "decide", "wait for reader", "wait for writer", "polygons"),
    "writer": ("write", "trace", "finish"),
}


def _by_stage(clock: Clock) -> dict[str, float]:
    """Seconds of the stages that people know."""
    spent = clock.seconds
    return {
        stage: round(sum(spent.get(part, 0.0) for part in parts), 3)
        for stage, parts in _STAGES.items()
    }


def _by_thread(clock: Clock) -> dict[str, dict[str, float]]:
    """Seconds of each thread; ``else`` is what is left of the whole time: idle, or starting."""
    found = {
        thread: {stage: clock.seconds.get(stage, 0.0) for stage in stages}
        for thread, stages in _THREADS.items()
    }
    return {
        thread: {
            **{stage: round(seconds, 3) for stage, seconds in stages.items()},
            "else": round(clock.seconds["total"] - sum(stages.values()), 3),
        }
        for thread, stages in found.items()
    }


def _write(
    job: Job,
    paths: dict[str, Path],
    clock: Clock,
    strips: Generator[Strip],
) -> tuple[_Outputs, int]:
    """Write strips as they come; the writer thread is at most two behind.

    While it finishes the rasters, this one makes and writes the polygons. Without a CRS they take
    turns, as both silence warnings then, which threads can't do side by side.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="geounet-write") as pool:
        stack = ExitStack()
        waiting: deque[Future[None]] = deque()
        try:
            outputs = pool.submit(_Outputs, job, paths, stack, clock).result()
            with closing(strips):
                for strip in strips:
                    waiting.append(pool.submit(outputs.write, strip))
                    if len(waiting) > 2:
                        _await(waiting.popleft(), clock)
            for future in waiting:
                _await(future, clock)
        except BaseException as error:
            pool.submit(stack.__exit__, type(error), error, error.__traceback__).result()
            raise
        finishing = pool.submit(_finish, stack, clock)
        if job.scene.grid.crs is None:
            _await(finishing, clock)
        try:
            with clock("polygons"):
                counts = outputs.write_outlines(job, paths)
        finally:
            _await(finishing, clock)
    return outputs, counts.get("polygons", 0)


def _finish(stack: ExitStack, clock: Clock) -> None:
    with clock("finish"):
        stack.close()


def _await(future: Future[None], clock: Clock) -> None:
    with clock("wait for writer"):
        future.result()

"""The command line: a thin layer over the Python API.

The only place with progress bars, printing and exit codes: 0 done, 1 failed, 2 wrong use.
Heavy modules are imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

import geounet
from geounet.errors import ConfigError, GeounetError, GeounetWarning, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console

    from geounet.compare import ChangeResult, MosaicResult
    from geounet.crossings import TransectResult
    from geounet.evaluate import Evaluation
    from geounet.evaluate import Progress as Judged
    from geounet.pipeline import Job, Progress, RunResult
    from geounet.scene import Scene
    from geounet.training import Audit, TrainProgress, TrainResult
    from geounet.training.auditing import AuditProgress

app = typer.Typer(
    name="geounet",
    help="Land/water maps from satellite scenes of any size.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_FAILED, _WRONG_USE, _INTERRUPTED = 1, 2, 130


class _Blend(StrEnum):
    hann = "hann"
    cosine = "cosine"
    gaussian = "gaussian"
    linear = "linear"
    none = "none"


class _Edges(StrEnum):
    pixel = "pixel"
    contour = "contour"


class _Format(StrEnum):
    gpkg = "gpkg"
    parquet = "parquet"
    fgb = "fgb"
    geojson = "geojson"


class _Side(StrEnum):
    left = "left"
    right = "right"


class _Pick(StrEnum):
    first = "first"
    last = "last"


def main() -> NoReturn:
    """Entry point of the ``geounet`` command."""
    with _one_line_errors():
        app(prog_name="geounet")
    sys.exit(0)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Say what geounet raises or warns of in one line each, and exit with its code."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        typer.echo(f"geounet: warning: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", GeounetWarning)
        warnings.showwarning = show
        try:
            yield
        except GeounetError as error:
            typer.echo(f"geounet: error: {' '.join(str(error).split())}", err=True)
            sys.exit(_WRONG_USE if isinstance(error, ConfigError) else _FAILED)
        except SystemExit as stop:
            if stop.code == _INTERRUPTED:  # what Typer makes of Ctrl-C, without a word
                typer.echo("geounet: stopped; nothing half-written was left.", err=True)
            raise


def _version(wanted: bool) -> None:  # noqa: FBT001 - Typer's callback
    if wanted:
        typer.echo(f"geounet {geounet.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


_SceneArgument = Annotated[str, typer.Argument(help="A multi-band raster that GDAL opens.")]
_Bands = Annotated[
    str | None,
    typer.Option(
        help="Names of all bands in file order, e.g. B02,B03,B04,B08; '-' leaves one out.",
        show_default="found out",
    ),
]
_Scale = Annotated[
    float | None,
    typer.Option(help="Reflectance per stored number.", show_default="found out"),
]
_Offset = Annotated[
    float | None,
    typer.Option(
        help="Reflectance at stored number 0: -0.1 for Sentinel-2 from baseline 04.00 on.",
        show_default="found out",
    ),
]
_Nodata = Annotated[
    float | None,
    typer.Option(help="Stored number that means 'not observed'.", show_default="the file's"),
]
_Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
_EdgesOption = Annotated[
    _Edges,
    typer.Option(help="Polygons along pixel edges, or through pixels at the threshold's level."),
]
_OutFormat = Annotated[_Format, typer.Option(help="Format of the polygons and shorelines.")]
_Threshold = Annotated[float, typer.Option(help="Least probability of water.")]
_ToCrs = Annotated[
    str | None,
    typer.Option(help="CRS of polygons and shorelines: EPSG:4326, …", show_default="the raster's"),
]
_Connectivity = Annotated[
    int, typer.Option(help="8 joins pixels that touch at a corner only, 4 does not.")
]
_MinArea = Annotated[float, typer.Option(help="Least area of a polygon in m2.")]
_FillHoles = Annotated[
    float, typer.Option(help="Fill holes up to this many m2, with what lies in them.")
]
_Simplify = Annotated[
    float, typer.Option(help="Take out detail below this many metres; shared edges stay shared.")
]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]


@app.command()
def run(
    scene: _SceneArgument,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path(
        "out"
    ),
    model: Annotated[
        str, typer.Option("--model", "-m", help="A model's name or file.")
    ] = "default",
    bands: _Bands = None,
    scale: _Scale = None,
    offset: _Offset = None,
    nodata: _Nodata = None,
    tile: Annotated[
        int | None, typer.Option(help="Window size in pixels.", show_default="the model's")
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(help="Pixels that windows share at least.", show_default="the model's"),
    ] = None,
    blend: Annotated[_Blend, typer.Option(help="How windows fade into each other.")] = _Blend.hann,
    threshold: _Threshold = 0.5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    batch: Annotated[
        int | None,
        typer.Option(help="Windows predicted at once.", show_default="by the device"),
    ] = None,
    probability: Annotated[
        bool, typer.Option("--probability", help="Also write the water probability.")
    ] = False,
    polygons: Annotated[bool, typer.Option(help="Write the water's polygons.")] = True,
    edges: _EdgesOption = _Edges.pixel,
    shoreline: Annotated[
        bool, typer.Option("--shoreline", help="Also write lines with the water on their left.")
    ] = False,
    format: _OutFormat = _Format.gpkg,  # noqa: A002
    to_crs: _ToCrs = None,
    min_area: _MinArea = 0.0,
    fill_holes: _FillHoles = 0.0,
    simplify: _Simplify = 0.0,
    connectivity: _Connectivity = 4,
    quicklook: Annotated[
        bool, typer.Option("--quicklook", help="Also write a PNG of scene and water.")
    ] = False,
    overwrite: _Overwrite = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")
    ] = False,
    as_json: _Json = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also print the plan and all stages.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Segment a scene: a land/water mask and the water's polygons."""
    if quiet:
        warnings.simplefilter("ignore", GeounetWarning)
    config = {
        "output": output,
        "model": model,
        "bands": _names(bands),
        "scale": scale,
        "offset": offset,
        "nodata": nodata,
        "tile": tile,
        "overlap": overlap,
        "blend": blend.value,
        "threshold": threshold,
        "device": device,
        "batch": batch,
        "probability": probability,
        "polygons": polygons,
        "edges": edges.value,
        "shoreline": shoreline,
        "format": format.value,
        "to_crs": to_crs,
        "min_area": min_area,
        "fill_holes": fill_holes,
        "simplify": simplify,
        "connectivity": connectivity,
        "overwrite": overwrite,
    }
    from geounet import pipeline  # noqa: PLC0415 - torch takes a second to load
    from geounet.staging import check_free  # noqa: PLC0415

    job = pipeline.prepare(scene, pipeline.RunConfig.of(**config))
    picture = output / f"{job.scene.stem}_quicklook.png"
    check_free(job.outputs | ({"quicklook": picture} if quicklook else {}), overwrite=overwrite)
    if dry_run or verbose:
        _say(_plan_record(job), as_json=as_json and dry_run, to_stderr=not dry_run)
    if dry_run:
        return
    with _progress_bar(hidden=quiet or as_json) as on_progress:
        result = pipeline.run_job(job, on_progress=on_progress)
    if quicklook:
        from geounet import report  # noqa: PLC0415 - only where it is asked for

        report.quicklook(job.scene, result.outputs["mask"], picture)
        result = replace(result, outputs={**result.outputs, "quicklook": picture})
    if not quiet or as_json:
        _say(result.as_dict() if as_json else _summary(result, verbose=verbose), as_json=as_json)


@app.command()
def vectorize(
    raster: Annotated[
        Path, typer.Argument(help="A mask of geounet's codes, or a water probability.")
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write; shorelines get the same name with _shoreline.",
            show_default="beside the raster",
        ),
    ] = None,
    probability: Annotated[
        Path | None, typer.Option(help="The probability that belongs to the mask.")
    ] = None,
    edges: _EdgesOption = _Edges.pixel,
    threshold: _Threshold = 0.5,
    code: Annotated[int, typer.Option(help="Mask value whose polygons are wanted.")] = 1,
    connectivity: _Connectivity = 4,
    shoreline: Annotated[
        bool, typer.Option("--shoreline", help="Also write lines with the water on their left.")
    ] = False,
    format: Annotated[  # noqa: A002
        _Format | None,
        typer.Option(
            help="Format of the polygons and shorelines.", show_default="the output's, else gpkg"
        ),
    ] = None,
    to_crs: _ToCrs = None,
    min_area: _MinArea = 0.0,
    fill_holes: _FillHoles = 0.0,
    simplify: _Simplify = 0.0,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
) -> None:
    """Turn a mask or a water probability into polygons, and shorelines."""
    from geounet import outlines  # noqa: PLC0415 - keeps --help fast

    shaping = outlines.Shaping(
        edges=edges.value,
        threshold=threshold,
        connectivity=connectivity,  # type: ignore[arg-type] # checked there
        code=code,
        min_area=min_area,
        fill_holes=fill_holes,
        simplify=simplify,
    )
    made = outlines.vectorize_to_files(
        raster,
        output,
        probability=probability,
        shaping=shaping,
        shoreline=shoreline,
        format=format.value if format else None,
        to_crs=to_crs,
        overwrite=overwrite,
    )
    _say({name: str(value) for name, value in made.items()}, as_json=as_json)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A model's name or file.")],
    data: Annotated[
        Path,
        typer.Argument(
            help="A folder of NAME.tif with NAME.label.tif or NAME.gpkg; or a scene with --label."
        ),
    ],
    *,
    label: Annotated[
        Path | None, typer.Option(help="The label of a single scene: a raster or polygons.")
    ] = None,
    label_band: Annotated[
        str | None,
        typer.Option(
            help="Band of label rasters: its description, or its number from 1.",
            show_default="'hand', else the first",
        ),
    ] = None,
    patterns: Annotated[
        bool, typer.Option("--patterns", help="Judge again with 12, 10, 6 and 4 bands only.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write an HTML page with pictures.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the intervals' draws.")] = 0,
    as_json: _Json = False,
) -> None:
    """Judge a model on labelled scenes, beside NDWI, MNDWI and Otsu's threshold."""
    from geounet import evaluate as judge  # noqa: PLC0415 - keeps --help fast
    from geounet.labels import Pair  # noqa: PLC0415
    from geounet.model import load_model  # noqa: PLC0415
    from geounet.scene import open_scene  # noqa: PLC0415

    if report and not report.parent.is_dir():
        raise OutputError(f"the report's folder must exist; there is no {report.parent}.")
    band = int(label_band) if label_band and label_band.isdecimal() else label_band
    pairs = [Pair(open_scene(data), label)] if label else data
    with _progress_bar(hidden=as_json, unit="masks") as on_progress:
        found = judge.evaluate(
            load_model(model),
            pairs,
            band_patterns=tuple(judge.BAND_PATTERNS) if patterns else (),
            device=device,
            settings=judge.Settings(label_band=band, seed=seed),
            on_progress=on_progress,
        )
    if as_json:
        _say(found.as_dict(), as_json=True)
    else:
        _print_evaluation(found)
    if report:
        from geounet.report import evaluation_report  # noqa: PLC0415

        evaluation_report(found, report)


@app.command()
def train(
    config: Annotated[
        Path | None, typer.Argument(help="A TOML file.", show_default="flags alone")
    ] = None,
    *,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of NAME.tif with NAME.label.tif or NAME.gpkg; may be repeated."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write to, or to go on in."),
    ] = None,
    valid: Annotated[
        list[Path] | None,
        typer.Option(help="The same for validation.", show_default="a fifth of the sites"),
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(help="Bands to use, e.g. B02,B03,B04,B08.", show_default="the scenes'"),
    ] = None,
    decoder: Annotated[
        str | None, typer.Option(help="Unet, UnetPlusPlus, DeepLabV3Plus, …, unet2015.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="resnet18, densenet121, tu-mobilenetv4_conv_small, …")
    ] = None,
    start: Annotated[str | None, typer.Option(help="A model to start from.")] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="bce, dice, bce_dice, focal, lovasz, lovasz_hinge, cross_entropy, border, partial."
        ),
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps to train for.")] = None,
    epochs: Annotated[float | None, typer.Option(help="The same, in passes over the data.")] = None,
    batch: Annotated[int | None, typer.Option(help="Windows at once.")] = None,
    window: Annotated[int | None, typer.Option(help="Side of a window in pixels.")] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes everything that is drawn.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other key of the TOML file: loss.gamma=1.5; repeatable."),
    ] = None,
    as_json: _Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Train a model on labelled scenes. Run it again to go on with one that was interrupted."""
    from geounet.training import config as settings  # noqa: PLC0415 - keeps --help fast

    told: dict[str, Any] = {
        "data": data,
        "output": output,
        "valid": valid,
        "bands": _names(bands),
        "architecture": _given(decoder=decoder, encoder=encoder),
        "start": start,
        "loss": _given(name=loss),
        "optimiser": _given(rate=rate),
        "steps": steps,
        "epochs": epochs,
        "batch": batch,
        "window": window,
        "seed": seed,
        "device": device,
    }
    told = {key: value for key, value in told.items() if value not in (None, {}, [])}
    for text in setting or []:
        told = settings.joined(told, settings.parse_setting(text))
    if config is None:
        plan = settings.TrainConfig.of(**told)
    else:
        plan = settings.read_config(config, **told)
    from geounet.training import fitting  # noqa: PLC0415 - torch takes a second to load

    with _progress_bar(hidden=quiet or as_json, unit="steps") as bar:
        quietly = bar is None and (quiet or as_json)
        result = fitting.train(plan, on_progress=None if quietly else bar or _log)
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
    if first and (not quiet or as_json):
        _say(result.as_dict() if as_json else _training_record(result), as_json=as_json)


def _log(at: TrainProgress) -> None:
    typer.echo(at.line, err=True)


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _training_record(result: TrainResult) -> dict[str, Any]:
    return {
        "steps": f"{result.steps}" + (" (stopped early)" if result.stopped_early else ""),
        **{name: f"{value:.4f}" for name, value in result.metrics.items()},
        "learned": ", ".join(result.train),
        "validated on": ", ".join(result.valid) or "nothing",
        "time": f"{result.seconds:.1f} s",
        **{kind: str(path) for kind, path in result.outputs.items()},
    }


@app.command()
def audit(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders of NAME.tif with NAME.label.tif or NAME.gpkg.")
    ],
    *,
    sheet: Annotated[
        Path | None, typer.Option(help="Contact sheet to write (PNG): scenes beside their labels.")
    ] = None,
    label_band: Annotated[
        str | None,
        typer.Option(
            help="Band of label rasters: its description, or its number from 1.",
            show_default="'hand', else the first",
        ),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Check labels before training: against water indices, swapped classes, shifts, unknown."""
    from geounet.labels import LabelRules  # noqa: PLC0415 - keeps --help fast
    from geounet.training import auditing  # noqa: PLC0415

    if sheet and not sheet.parent.is_dir():
        raise OutputError(f"the contact sheet's folder must exist; there is no {sheet.parent}.")
    band = int(label_band) if label_band and label_band.isdecimal() else label_band
    rules = LabelRules(classes=("land", "water", "obscured"), band=band)
    with _progress_bar(hidden=as_json, unit="scenes") as on_progress:
        found = auditing.audit(*folders, sheet=sheet, rules=rules, on_progress=on_progress)
    if as_json:
        _say(found.as_dict(), as_json=True)
    else:
        _print_audit(found)


def _print_audit(found: Audit) -> None:
    """A table; as wide as it needs to be where the output is no terminal."""

    def share(value: float | None) -> str:
        return "" if value is None else f"{value:.1%}"

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    rows = [
        (
            check.scene,
            f"{check.size[0]} x {check.size[1]}",
            share(check.water),
            share(check.unknown),
            share(check.ndwi),
            share(check.mndwi),
            number(check.correlation),
            "" if check.shift is None else f"{check.shift[0]}, {check.shift[1]}",
            "; ".join(check.remarks),
        )
        for check in found.checks
    ]
    header = ("scene", "size", "water", "unknown", "NDWI", "MNDWI", "r", "shift", "remarks")
    _print_table(header, rows, right=range(1, 8), bold=lambda row: bool(row[-1]))


@app.command()
def transects(
    baseline: Annotated[
        Path,
        typer.Argument(help="Lines on land along the coast, or transects from land to sea."),
    ],
    sources: Annotated[
        list[str], typer.Argument(help="One a date: a mask, a water probability or shorelines.")
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The table: .csv, .parquet or .gpkg.")
    ] = Path("transects.csv"),
    spacing: Annotated[
        float | None,
        typer.Option(
            help="Metres between transects along the baseline.", show_default="lines are transects"
        ),
    ] = None,
    length: Annotated[
        float | None, typer.Option(help="Metres of each transect, with --spacing.")
    ] = None,
    side: Annotated[
        _Side, typer.Option(help="Where the sea lies, seen along the baseline.")
    ] = _Side.left,
    pick: Annotated[
        _Pick, typer.Option(help="Which crossing, where there are several, seen from land.")
    ] = _Pick.first,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
) -> None:
    """Measure where the shoreline of each date crosses transects, in metres from land."""
    from geounet import crossings  # noqa: PLC0415 - keeps --help fast

    crossings.check_table(output, overwrite=overwrite)
    found = crossings.transects(
        baseline, sources, spacing=spacing, length=length, side=side.value, pick=pick.value
    )
    found.write(output, overwrite=overwrite)
    _say(_transects_record(found, output), as_json=as_json)


def _transects_record(found: TransectResult, output: Path) -> dict[str, Any]:
    distances = found.crossings["distance_m"]
    dates = sorted(set(found.crossings["date"]) - {""})
    return {
        "transects": len(found.lines),
        "sources": int(found.crossings["source"].size // max(len(found.lines), 1)),
        "dates": f"{dates[0]} to {dates[-1]}" if dates else "not known",
        "measured": int(distances.notna().sum()),
        "not observed": int((~found.crossings["observed"]).sum()),
        "table": str(output),
    }


@app.command()
def change(
    before: Annotated[str, typer.Argument(help="A mask.")],
    after: Annotated[str, typer.Argument(help="A mask of a later date.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path(
        "out"
    ),
    format: Annotated[_Format, typer.Option(help="Format of the polygons.")] = _Format.gpkg,  # noqa: A002
    min_area: _MinArea = 0.0,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
) -> None:
    """Compare two masks: water gained, lost, unchanged, unknown; a raster, polygons and areas."""
    from geounet import compare  # noqa: PLC0415 - keeps --help fast

    result = compare.change(
        before,
        after,
        output=output,
        format=format.value,
        min_area=min_area,
        overwrite=overwrite,
    )
    note = {"aligned": "the second mask took the nearest pixel"} if result.aligned else {}
    _say(
        result.as_dict() if as_json else {**_areas(result), **note, **_paths(result)},
        as_json=as_json,
    )


@app.command()
def mosaic(
    masks: Annotated[list[str], typer.Argument(help="Masks of one date, of any zones.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The mosaic.")] = Path(
        "mosaic.tif"
    ),
    crs: Annotated[
        str | None, typer.Option(help="Of the mosaic: EPSG:32633, …", show_default="the first's")
    ] = None,
    format: Annotated[_Format, typer.Option(help="Format of the polygons.")] = _Format.gpkg,  # noqa: A002
    min_area: _MinArea = 0.0,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
) -> None:
    """Merge masks that overlap or adjoin, and trace the water of the whole."""
    from geounet import compare  # noqa: PLC0415 - keeps --help fast

    result = compare.mosaic(
        masks,
        output=output,
        crs=crs,
        format=format.value,
        min_area=min_area,
        overwrite=overwrite,
    )
    record = {
        **_areas(result),
        "water bodies": f"{result.polygons} polygons",
        "size": f"{result.size[0]} x {result.size[1]} pixels",
        "crs": result.crs,
        "overlaps": "the surest wins" if result.by_confidence else "the first given wins",
        **_paths(result),
    }
    _say(result.as_dict() if as_json else record, as_json=as_json)


def _areas(result: ChangeResult | MosaicResult) -> dict[str, str]:
    return {name: f"{area:.3f} km2" for name, area in result.area_km2.items()}


def _paths(result: ChangeResult | MosaicResult) -> dict[str, str]:
    return {kind: str(path) for kind, path in result.outputs.items()}


@app.command()
def info(
    scene: _SceneArgument,
    *,
    bands: _Bands = None,
    scale: _Scale = None,
    offset: _Offset = None,
    nodata: _Nodata = None,
    as_json: _Json = False,
) -> None:
    """Show what is understood of a scene: bands, grid, radiometry."""
    from geounet.scene import open_scene  # noqa: PLC0415 - keeps --help fast

    found = open_scene(scene, bands=_names(bands), scale=scale, offset=offset, nodata=nodata)
    _say(_scene_record(found), as_json=as_json)


@app.command()
def models(
    model: Annotated[
        str | None, typer.Argument(help="A model's name or file.", show_default="all that ship")
    ] = None,
    *,
    as_json: _Json = False,
) -> None:
    """Show the contract of a model: what it takes and gives, and where it comes from."""
    from geounet.model import load_model, shipped_models  # noqa: PLC0415 - keeps --help fast

    for name in [model] if model else shipped_models():
        loaded = load_model(name)
        record = {**loaded.spec.model_dump(mode="json"), "sha256": loaded.digest}
        if not as_json:
            record["bands"] = ", ".join(
                b.name + (" (required)" if b.required else "") for b in loaded.spec.bands
            )
            del record["normalisation"]
        _say(record, as_json=as_json)


def _print_evaluation(found: Evaluation) -> None:
    from geounet.report import evaluation_table, fit_columns  # noqa: PLC0415 - keeps --help fast

    header, rows = fit_columns(*evaluation_table(found), _console().width)
    for score in found.of(found.methods[0]):
        if score.score is None:
            typer.echo(f"geounet: warning: {score.scene} was not judged: {score.note}", err=True)
    right = range(2, len(header))
    _print_table(header, rows, right=right, bold=lambda row: row[0] == found.methods[0])
    if "Kappa" not in header:
        typer.echo("A wider terminal, --json and --report show more columns.", err=True)


def _console() -> Console:
    """Standard output; as wide as a table needs to be where it is no terminal."""
    from rich.console import Console  # noqa: PLC0415 - keeps --help fast

    console = Console(markup=False, highlight=False)
    console.width = console.width if console.is_terminal else 400
    return console


def _print_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: range,
    bold: Callable[[Sequence[str]], bool],
) -> None:
    from rich.table import Table  # noqa: PLC0415 - keeps --help fast

    table = Table(box=None, pad_edge=False)
    for i, title in enumerate(header):
        justify: Literal["left", "right"] = "right" if i in right else "left"
        table.add_column(title, justify=justify, no_wrap=i in right)
    for row in rows:
        table.add_row(*row, style="bold" if bold(row) else None)
    _console().print(table)


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(","))


def _scene_record(scene: Scene) -> dict[str, Any]:
    grid, radiometry, nodata = scene.grid, scene.radiometry, scene.nodata
    crs = grid.crs.to_string() if grid.crs else None
    return {
        "scene": scene.uri,
        "size": f"{grid.width} x {grid.height} pixels",
        "crs": crs,
        "transform": list(grid.transform)[:6],
        "blocks": f"{scene.block[1]} x {scene.block[0]}",
        "type": scene.dtype,
        "nodata": str(nodata) if nodata is not None and not math.isfinite(nodata) else nodata,
        "bands": ", ".join(scene.bands),
        "radiometry": radiometry.reason,
        "assumed": radiometry.assumed,
    }


def _plan_record(job: Job) -> dict[str, Any]:
    plan = job.plan
    return {
        **_scene_record(job.scene),
        "model": f"{job.model.spec.name} {job.model.spec.version}",
        "bands used": ", ".join(f"{k}={v}" for k, v in job.bands_used.items()),
        "bands missing": ", ".join(job.bands_missing) or "none",
        "device": job.device,
        "windows": f"{plan.count} of {plan.cols.tile} x {plan.rows.tile}, overlap {plan.overlap}",
        "strips": len(plan.rows.starts),
        "memory": f"about {job.expected_memory / 2**30:.1f} GiB",
        **{kind: str(path) for kind, path in job.outputs.items()},
    }


def _summary(result: RunResult, *, verbose: bool) -> dict[str, Any]:
    stages = {k: v for k, v in result.seconds.items() if k != "total"}
    return {
        "water": f"{result.area_km2['water']:.3f} km2",
        "land": f"{result.area_km2['land']:.3f} km2",
        "obscured": f"{result.area_km2['obscured']:.3f} km2",
        "not observed": f"{result.area_km2['not observed']:.3f} km2",
        **({} if result.polygons is None else {"water bodies": f"{result.polygons} polygons"}),
        "model": f"{result.model} on {result.device}",
        "bands": ", ".join(f"{k}={v}" for k, v in result.bands.items()),
        **({"missing": ", ".join(result.bands_missing)} if result.bands_missing else {}),
        "radiometry": result.radiometry,
        **({"sha256": result.model_sha256, "windows": result.windows} if verbose else {}),
        "time": f"{result.seconds['total']:.1f} s ("
        + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in stages.items())
        + ")",
        **{kind: str(path) for kind, path in result.outputs.items()},
    }


def _say(record: dict[str, Any], *, as_json: bool, to_stderr: bool = False) -> None:
    if as_json:
        typer.echo(json.dumps(record, indent=2, default=str), err=to_stderr)
        return
    width = max(len(key) for key in record)
    for key, value in record.items():
        typer.echo(f"{key:<{width}}  {value}", err=to_stderr)


@contextmanager
def _progress_bar(
    *, hidden: bool, unit: str = "tiles"
) -> Iterator[Callable[[Progress | Judged | TrainProgress | AuditProgress], None] | None]:
    """A bar on standard error with units per second and time left; none if it is no terminal."""
    if hidden or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - only where there is a terminal
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f} {unit}/s" if task.speed else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(unit, total=None)
        yield lambda at: bars.update(
            task,
            completed=at.done,
            total=at.total,
            description=getattr(at, "line", unit),
        )


if __name__ == "__main__":
    main()

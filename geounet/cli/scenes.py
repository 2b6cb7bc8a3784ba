"""Commands about one scene: run, info."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geounet.cli.application import app
from geounet.cli.options import (
    POLYGONS,
    PREDICTION,
    AsJson,
    Bands,
    Blend,
    CloudMask,
    CloudRule,
    Connectivity,
    Edges,
    EdgesOption,
    Engine,
    FillHoles,
    Format,
    MinArea,
    Moment,
    Nodata,
    Offset,
    OutFormat,
    Overwrite,
    PartBox,
    PartBoxCrs,
    PartGeometry,
    PartWindow,
    Resample,
    Resampling,
    Scale,
    SceneArgument,
    SensorOption,
    Simplify,
    Smooth,
    Threshold,
    ToCrs,
    told,
)
from geounet.cli.show import print_table, progress_bar, say
from geounet.errors import GeounetWarning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geounet.pipeline import Job, RunResult
    from geounet.scene import Scene


@app.command()
def run(
    scene: SceneArgument,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path(
        "out"
    ),
    name: Annotated[
        str | None,
        typer.Option(help="What the outputs' names begin with.", show_default="the scene's name"),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="A model's name or file.")
    ] = "default",
    bands: Bands = None,
    sensor: SensorOption = None,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    resampling: Resampling = Resample.bilinear,
    window: PartWindow = None,
    bbox: PartBox = None,
    bbox_crs: PartBoxCrs = None,
    geometry: PartGeometry = None,
    cloud_mask: CloudMask = None,
    cloud_rule: CloudRule = None,
    time: Moment = None,
    tile: Annotated[
        int | None,
        typer.Option(
            help="Window size in pixels.", show_default="the model's", rich_help_panel=PREDICTION
        ),
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(
            help="Pixels that windows share at least.",
            show_default="the model's",
            rich_help_panel=PREDICTION,
        ),
    ] = None,
    blend: Annotated[
        Blend, typer.Option(help="How windows fade into each other.", rich_help_panel=PREDICTION)
    ] = Blend.hann,
    threshold: Threshold = 0.5,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=PREDICTION)
    ] = "auto",
    engine: Annotated[
        Engine,
        typer.Option(
            help="What runs the network; OpenVINO does on the CPU.", rich_help_panel=PREDICTION
        ),
    ] = Engine.auto,
    batch: Annotated[
        int | None,
        typer.Option(
            help="Windows predicted at once.",
            show_default="by the device",
            rich_help_panel=PREDICTION,
        ),
    ] = None,
    probability: Annotated[
        bool,
        typer.Option("--probability", help="Also write the water probability."),
    ] = False,
    polygons: Annotated[
        bool, typer.Option(help="Write the water's polygons.", rich_help_panel=POLYGONS)
    ] = True,
    edges: EdgesOption = Edges.pixel,
    shoreline: Annotated[
        bool,
        typer.Option(
            "--shoreline",
            help="Also write lines with the water on their left.",
            rich_help_panel=POLYGONS,
        ),
    ] = False,
    format: OutFormat = Format.gpkg,  # noqa: A002
    to_crs: ToCrs = None,
    min_area: MinArea = 0.0,
    fill_holes: FillHoles = 0.0,
    simplify: Simplify = 0.0,
    smooth: Smooth = 0.0,
    connectivity: Connectivity = 4,
    quicklook: Annotated[
        bool,
        typer.Option("--quicklook", help="Also write a PNG of scene and water."),
    ] = False,
    overwrite: Overwrite = False,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="A Dask cluster (tcp://host:8786 or its scheduler's file) that shares the rows.",
            show_default="this process",
            rich_help_panel=PREDICTION,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")
    ] = False,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Also print where the time went; --json always says it."),
    ] = False,
    as_json: AsJson = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also print the plan and all stages.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Segment a scene: a land/water mask and the water's polygons."""
    given = dict(locals())
    if quiet:
        warnings.simplefilter("ignore", GeounetWarning)
    from geounet import pipeline  # noqa: PLC0415 - torch takes a second to load
    from geounet.staging import check_free  # noqa: PLC0415

    config = told(given, pipeline.RunConfig.model_fields)
    if scheduler:
        config["device"] = "cpu"  # of the check here; the workers say what they use
    job = pipeline.prepare(scene, pipeline.RunConfig.of(**config))
    picture = output / f"{name or job.scene.stem}_quicklook.png"
    check_free(job.outputs | ({"quicklook": picture} if quicklook else {}), overwrite=overwrite)
    if dry_run or verbose:
        in_json = as_json and dry_run
        say(_plan_record(job, as_json=in_json), as_json=in_json, to_stderr=not dry_run)
    if dry_run:
        return
    with progress_bar(hidden=quiet or as_json) as on_progress:
        if scheduler:
            from geounet.archive import run_on  # noqa: PLC0415 - Dask takes a second to load

            result = run_on(job, scheduler, device=device, on_progress=on_progress)
        else:
            result = pipeline.run_job(job, on_progress=on_progress)
    if quicklook:
        from geounet import report  # noqa: PLC0415 - only where it is asked for

        report.quicklook(job.scene, result.outputs["mask"], picture)
        result = replace(result, outputs={**result.outputs, "quicklook": picture})
    if as_json:
        say(result.as_dict(), as_json=True)
        return
    if not quiet:
        say(_summary(result, verbose=verbose), as_json=False)
    if profile:
        _print_profile(result)


@app.command()
def info(
    scene: SceneArgument,
    *,
    bands: Bands = None,
    sensor: SensorOption = None,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    resampling: Resampling = Resample.bilinear,
    window: PartWindow = None,
    bbox: PartBox = None,
    bbox_crs: PartBoxCrs = None,
    geometry: PartGeometry = None,
    cloud_mask: CloudMask = None,
    cloud_rule: CloudRule = None,
    time: Moment = None,
    as_json: AsJson = False,
) -> None:
    """Show what is understood of a scene: kind, sensor, bands, grids, radiometry and why."""
    given = dict(locals())
    from geounet.scene import open_scene  # noqa: PLC0415 - keeps --help fast

    found = open_scene(scene, **told(given, open_scene.__kwdefaults__ or ()))
    say(_info_record(found, as_json=as_json), as_json=as_json)


def _info_record(scene: Scene, *, as_json: bool) -> dict[str, Any]:
    """All that is understood; for people in lines, for machines in parts."""
    product, details = scene.product, _band_details(scene)
    share = scene.share_observed()
    clouds = scene.cloud_mask or ("not used; --cloud-mask product" if product.clouds else "none")
    known = {
        "kind": product.kind,
        "sensor": product.sensor or "not known",
        "level": product.level or "not known",
        "acquired": product.acquired or "not known",
    }
    record = _scene_record(scene, as_json=as_json)
    return {
        "scene": record.pop("scene"),
        **({key: getattr(product, key) for key in known} if as_json else known),
        **record,
        **({"bands": details} if as_json else _band_lines(details)),
        "observed": share if as_json else _share(share),
        "clouds": clouds,
    }


def _share(share: float | None) -> str:
    return "not looked at: it has no overviews" if share is None else f"about {share:.1%}"


def _band_details(scene: Scene) -> list[dict[str, Any]]:
    """Of each band its names, centre wavelength, own grid and radiometry."""
    from geounet.sensors import SENSORS  # noqa: PLC0415 - keeps --help fast

    product, count = scene.product, len(scene.bands)
    sensor = SENSORS.get(product.sensor or "")
    centres = {band.common_name: band.centre for band in sensor.bands} if sensor else {}
    own = product.names if len(product.names) == count else (None,) * count
    return [
        {
            "name": name,
            "own name": called,
            "wavelength": centres.get(name),
            "pixels": factor,
            "scale": scale,
            "offset": offset,
        }
        for name, called, factor, scale, offset in zip(
            scene.bands, own, product.factors or (1,) * count,
            scene.radiometry.scale, scene.radiometry.offset, strict=True,
        )
    ]  # fmt: skip


def _band_lines(details: Sequence[dict[str, Any]]) -> dict[str, str]:
    """All bands in a line, and below it what is known of each."""
    lines = {"bands": ", ".join(band["name"] for band in details)}
    for band in details:
        notes = [
            band["own name"] if band["own name"] not in {None, band["name"]} else "",
            f"{band['wavelength']:.3f} um" if band["wavelength"] else "",
            "one for {0} x {0} pixels".format(band["pixels"]) if band["pixels"] > 1 else "",
        ]
        if any(notes) and band["name"] != "-":
            lines[f"- {band['name']}"] = ", ".join(note for note in notes if note)
    return lines


def _scene_record(scene: Scene, *, as_json: bool) -> dict[str, Any]:
    grid, radiometry, nodata = scene.grid, scene.radiometry, scene.nodata
    crs = grid.crs.to_string() if grid.crs else None
    return {
        "scene": scene.uri,
        "size": f"{grid.width} x {grid.height} pixels",
        "crs": crs,
        **({"part": scene.part.place} if scene.part else {}),
        "transform": list(grid.transform)[:6],
        "blocks": f"{scene.block[1]} x {scene.block[0]}",
        "type": scene.dtype,
        "nodata": str(nodata) if nodata is not None and not math.isfinite(nodata) else nodata,
        "bands": ", ".join(scene.bands),
        **(
            {"radiometry": radiometry.reason, "assumed": radiometry.assumed}
            if as_json
            else {"reflectance": radiometry.numbers, "radiometry": radiometry.decision}
        ),
    }


def _plan_record(job: Job, *, as_json: bool) -> dict[str, Any]:
    plan = job.plan
    return {
        **_scene_record(job.scene, as_json=as_json),
        "model": f"{job.model.spec.name} {job.model.spec.version}",
        "bands used": ", ".join(f"{k}={v}" for k, v in job.bands_used.items()),
        "bands missing": ", ".join(job.bands_missing) or "none",
        "device": f"{job.device}, {job.engine}",
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
        "model": f"{result.model} on {result.device}, {result.engine}",
        "bands": ", ".join(f"{k}={v}" for k, v in result.bands.items()),
        **({"missing": ", ".join(result.bands_missing)} if result.bands_missing else {}),
        "radiometry": result.radiometry,
        **({"sha256": result.model_sha256, "windows": result.windows} if verbose else {}),
        "time": f"{result.seconds['total']:.1f} s ("
        + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in stages.items())
        + ")",
        **{kind: str(path) for kind, path in result.outputs.items()},
    }


def _print_profile(result: RunResult) -> None:
    """Where each thread's time went; "else" is what is left of the whole: idle, or starting."""
    total = result.seconds["total"]
    rows = [
        (thread, stage, f"{seconds:.2f}", f"{seconds / total:.0%}")
        for thread, stages in result.profile.items()
        for stage, seconds in stages.items()
    ]
    print_table(
        ("thread", "stage", "seconds", "share"), rows, right=range(2, 4), bold=lambda _: False
    )

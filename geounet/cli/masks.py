"""Commands about masks: vectorize, change, mosaic, transects."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geounet.cli.application import app
from geounet.cli.options import (
    AsJson,
    Connectivity,
    Edges,
    EdgesOption,
    FillHoles,
    Format,
    MinArea,
    OutFormat,
    Overwrite,
    Pick,
    Side,
    Simplify,
    Smooth,
    Threshold,
    ToCrs,
    told,
)
from geounet.cli.show import progress_bar, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from geounet.compare import ChangeResult, MosaicResult
    from geounet.crossings import TransectResult
    from geounet.outlines import Shaping


@app.command()
def vectorize(
    raster: Annotated[
        str, typer.Argument(help="A mask of geounet's codes, or a water probability.")
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
        str | None, typer.Option(help="The probability that belongs to the mask.")
    ] = None,
    edges: EdgesOption = Edges.pixel,
    threshold: Threshold = 0.5,
    code: Annotated[int, typer.Option(help="Mask value whose polygons are wanted.")] = 1,
    connectivity: Connectivity = 4,
    shoreline: Annotated[
        bool, typer.Option("--shoreline", help="Also write lines with the water on their left.")
    ] = False,
    format: Annotated[  # noqa: A002
        Format | None,
        typer.Option(
            help="Format of the polygons and shorelines.", show_default="the output's, else gpkg"
        ),
    ] = None,
    to_crs: ToCrs = None,
    min_area: MinArea = 0.0,
    fill_holes: FillHoles = 0.0,
    simplify: Simplify = 0.0,
    smooth: Smooth = 0.0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Turn a mask or a water probability into polygons, and shorelines."""
    given = dict(locals())
    from geounet import outlines  # noqa: PLC0415 - keeps --help fast

    shaping = _shaping(given)
    with progress_bar(hidden=as_json, unit="rows") as on_progress:
        made = outlines.vectorize_to_files(
            raster,
            output,
            probability=probability,
            shaping=shaping,
            shoreline=shoreline,
            format=format.value if format else None,
            to_crs=to_crs,
            overwrite=overwrite,
            on_progress=on_progress,
        )
    say({name: str(value) for name, value in made.items()}, as_json=as_json)


@app.command()
def change(
    before: Annotated[str, typer.Argument(help="A mask.")],
    after: Annotated[str, typer.Argument(help="A mask of a later date.")],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path(
        "out"
    ),
    format: Annotated[Format, typer.Option(help="Format of the polygons.")] = Format.gpkg,  # noqa: A002
    min_area: MinArea = 0.0,
    simplify: Simplify = 0.0,
    smooth: Smooth = 0.0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compare two masks: water gained, lost, unchanged, unknown; a raster, polygons and areas."""
    from geounet import compare  # noqa: PLC0415 - keeps --help fast

    with progress_bar(hidden=as_json, unit="rows") as on_progress:
        result = compare.change(
            before,
            after,
            output=output,
            format=format.value,
            min_area=min_area,
            simplify=simplify,
            smooth=smooth,
            overwrite=overwrite,
            on_progress=on_progress,
        )
    aligned = "the second mask was put on the first one's pixels"
    note = {"aligned": aligned} if result.aligned else {}
    say(
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
    probability: Annotated[
        bool, typer.Option("--probability", help="Also write the mosaic's water probability.")
    ] = False,
    edges: EdgesOption = Edges.pixel,
    threshold: Threshold = 0.5,
    connectivity: Connectivity = 4,
    shoreline: Annotated[
        bool, typer.Option("--shoreline", help="Also write lines with the water on their left.")
    ] = False,
    format: OutFormat = Format.gpkg,  # noqa: A002
    to_crs: ToCrs = None,
    min_area: MinArea = 0.0,
    fill_holes: FillHoles = 0.0,
    simplify: Simplify = 0.0,
    smooth: Smooth = 0.0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Merge masks that overlap or adjoin, and trace the water of the whole."""
    given = dict(locals())
    from geounet import compare  # noqa: PLC0415 - keeps --help fast

    shaping = _shaping(given)
    with progress_bar(hidden=as_json, unit="rows") as on_progress:
        result = compare.mosaic(
            masks,
            output=output,
            crs=crs,
            probability=probability,
            shaping=shaping,
            shoreline=shoreline,
            to_crs=to_crs,
            format=format.value,
            overwrite=overwrite,
            on_progress=on_progress,
        )
    record = {
        **_areas(result),
        "water bodies": f"{result.polygons} polygons",
        "size": f"{result.size[0]} x {result.size[1]} pixels",
        "crs": result.crs,
        "overlaps": "the surest wins" if result.by_confidence else "the first given wins",
        **_paths(result),
    }
    say(result.as_dict() if as_json else record, as_json=as_json)


def _shaping(given: Mapping[str, Any]) -> Shaping:
    """What polygons look like, from a command's options of the same names."""
    from geounet.outlines import Shaping  # noqa: PLC0415 - keeps --help fast

    return Shaping(**told(given, {field.name for field in fields(Shaping)}))


def _areas(result: ChangeResult | MosaicResult) -> dict[str, str]:
    return {name: f"{area:.3f} km2" for name, area in result.area_km2.items()}


def _paths(result: ChangeResult | MosaicResult) -> dict[str, str]:
    return {kind: str(path) for kind, path in result.outputs.items()}


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
        Side, typer.Option(help="Where the sea lies, seen along the baseline.")
    ] = Side.left,
    pick: Annotated[
        Pick, typer.Option(help="Which crossing, where there are several, seen from land.")
    ] = Pick.first,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Measure where the shoreline of each date crosses transects, in metres from land."""
    from geounet import crossings  # noqa: PLC0415 - keeps --help fast

    crossings.check_table(output, overwrite=overwrite)
    with progress_bar(hidden=as_json, unit="files") as on_progress:
        found = crossings.transects(
            baseline,
            sources,
            spacing=spacing,
            length=length,
            side=side.value,
            pick=pick.value,
            on_progress=on_progress,
        )
    found.write(output, overwrite=overwrite)
    say(_transects_record(found, output), as_json=as_json)


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

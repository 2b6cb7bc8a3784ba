"""What several commands ask for: options with their help, and their choices."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Blend(StrEnum):
    """How windows fade into each other."""

    hann = "hann"
    cosine = "cosine"
    gaussian = "gaussian"
    linear = "linear"
    none = "none"


class Edges(StrEnum):
    """What polygons follow."""

    pixel = "pixel"
    contour = "contour"


class Format(StrEnum):
    """Vector formats by their suffix."""

    gpkg = "gpkg"
    parquet = "parquet"
    fgb = "fgb"
    geojson = "geojson"


class Side(StrEnum):
    """Where the sea lies, seen along a baseline."""

    left = "left"
    right = "right"


class Pick(StrEnum):
    """Which crossing of a transect, seen from land."""

    first = "first"
    last = "last"


SceneArgument = Annotated[str, typer.Argument(help="A multi-band raster that GDAL opens.")]
Bands = Annotated[
    str | None,
    typer.Option(
        help="Names of all bands in file order, e.g. B02,B03,B04,B08; '-' leaves one out.",
        show_default="found out",
    ),
]
Scale = Annotated[
    float | None,
    typer.Option(help="Reflectance per stored number.", show_default="found out"),
]
Offset = Annotated[
    float | None,
    typer.Option(
        help="Reflectance at stored number 0: -0.1 for Sentinel-2 from baseline 04.00 on.",
        show_default="found out",
    ),
]
Nodata = Annotated[
    float | None,
    typer.Option(help="Stored number that means 'not observed'.", show_default="the file's"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
EdgesOption = Annotated[
    Edges,
    typer.Option(help="Polygons along pixel edges, or through pixels at the threshold's level."),
]
OutFormat = Annotated[Format, typer.Option(help="Format of the polygons and shorelines.")]
Threshold = Annotated[float, typer.Option(help="Least probability of water.")]
ToCrs = Annotated[
    str | None,
    typer.Option(help="CRS of polygons and shorelines: EPSG:4326, …", show_default="the raster's"),
]
Connectivity = Annotated[
    int, typer.Option(help="8 joins pixels that touch at a corner only, 4 does not.")
]
MinArea = Annotated[float, typer.Option(help="Least area of a polygon in m2.")]
FillHoles = Annotated[
    float, typer.Option(help="Fill holes up to this many m2, with what lies in them.")
]
Simplify = Annotated[
    float, typer.Option(help="Take out detail below this many metres; shared edges stay shared.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
LabelBand = Annotated[
    str | None,
    typer.Option(
        help="Band of label rasters: its description, or its number from 1.",
        show_default="'hand', else the first",
    ),
]


def names(text: str | None) -> tuple[str, ...] | None:
    """Names of bands in a text with commas between them."""
    return None if text is None else tuple(part.strip() for part in text.split(","))


def band_of(text: str | None) -> int | str | None:
    """A band by its description, or by its number where the text is one."""
    return int(text) if text and text.isdecimal() else text

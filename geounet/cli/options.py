"""What several commands ask for: options with their help, and their choices."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import typer

from geounet.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

_Number = TypeVar("_Number", int, float)
_Four: TypeAlias = tuple[_Number, _Number, _Number, _Number]

_SCENE, _PART, _CLOUDS = "What the scene is", "A part of it", "Clouds"
PREDICTION, POLYGONS = "Prediction", "Polygons and shorelines"


class Resample(StrEnum):
    """How bands of coarser pixels come onto the grid of the finest."""

    nearest = "nearest"
    bilinear = "bilinear"
    cubic = "cubic"


class Blend(StrEnum):
    """How windows fade into each other."""

    hann = "hann"
    cosine = "cosine"
    gaussian = "gaussian"
    linear = "linear"
    none = "none"


class Engine(StrEnum):
    """What runs the network."""

    auto = "auto"
    torch = "torch"
    openvino = "openvino"
    openvino_bf16 = "openvino-bf16"
    openvino_int8 = "openvino-int8"


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


class Outsides(StrEnum):
    """What lies outside all polygons of a label."""

    land = "land"
    unknown = "unknown"


SceneArgument = Annotated[
    str,
    typer.Argument(help="A raster that GDAL opens, a product's folder or archive, netCDF or Zarr."),
]
Bands = Annotated[
    str | None,
    typer.Option(
        help="Names of all bands in file order, e.g. B02,B03,B04,B08; '-' leaves one out.",
        show_default="found out",
        rich_help_panel=_SCENE,
    ),
]
SensorOption = Annotated[
    str | None,
    typer.Option(
        "--sensor",
        help="Which sensor it is from: sentinel-2-l2a, landsat-8, hls-l30, ...",
        show_default="found out",
        rich_help_panel=_SCENE,
    ),
]
Scale = Annotated[
    float | None,
    typer.Option(
        help="Reflectance per stored number.", show_default="found out", rich_help_panel=_SCENE
    ),
]
Offset = Annotated[
    float | None,
    typer.Option(
        help="Reflectance at stored number 0: -0.1 for Sentinel-2 from baseline 04.00 on.",
        show_default="found out",
        rich_help_panel=_SCENE,
    ),
]
Nodata = Annotated[
    float | None,
    typer.Option(
        help="Stored number that means 'not observed'.",
        show_default="the file's",
        rich_help_panel=_SCENE,
    ),
]
Resampling = Annotated[
    Resample,
    typer.Option(
        help="How bands of coarser pixels come onto the grid of the finest.", rich_help_panel=_SCENE
    ),
]
PartWindow = Annotated[
    str | None,
    typer.Option(
        "--window",
        help="A part of the scene in pixels: first column, first row, width, height.",
        metavar="COL,ROW,WIDTH,HEIGHT",
        show_default="all of it",
        rich_help_panel=_PART,
    ),
]
PartBox = Annotated[
    str | None,
    typer.Option(
        "--bbox",
        help="A part of the scene in coordinates of its CRS or --bbox-crs.",
        metavar="MINX,MINY,MAXX,MAXY",
        show_default="all of it",
        rich_help_panel=_PART,
    ),
]
PartBoxCrs = Annotated[
    str | None,
    typer.Option(
        "--bbox-crs",
        help="CRS of --bbox: EPSG:4326 for longitude and latitude, …",
        show_default="the scene's",
        rich_help_panel=_PART,
    ),
]
PartGeometry = Annotated[
    Path | None,
    typer.Option(
        "--geometry",
        help="Vector file of polygons; what lies outside them is not observed.",
        show_default="all of it",
        rich_help_panel=_PART,
    ),
]


class CloudRules(StrEnum):
    """How a cloud mask's numbers are read."""

    scl = "scl"
    qa_pixel = "qa_pixel"
    fmask = "fmask"
    udm2 = "udm2"
    classi = "classi"
    geounet = "geounet"
    nonzero = "nonzero"


CloudMask = Annotated[
    str | None,
    typer.Option(
        help="Raster that says where clouds hide the ground, of any grid; 'product' for its own.",
        show_default="none",
        rich_help_panel=_CLOUDS,
    ),
]
CloudRule = Annotated[
    CloudRules | None,
    typer.Option(
        help="What its numbers are: Sentinel-2's classes, Landsat's or HLS's bits, bands of "
        "PlanetScope's or Sentinel-2 L1C's, a mask of geounet's, or all but 0.",
        show_default="found out",
        rich_help_panel=_CLOUDS,
    ),
]
Moment = Annotated[
    str | None,
    typer.Option(
        "--time",
        help="Which time of a netCDF or Zarr cube, by how it begins: 2023-07-01.",
        show_default="the only one",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
EdgesOption = Annotated[
    Edges,
    typer.Option(
        help="Polygons along pixel edges, or through pixels at the threshold's level.",
        rich_help_panel=POLYGONS,
    ),
]
OutFormat = Annotated[
    Format, typer.Option(help="Format of the polygons and shorelines.", rich_help_panel=POLYGONS)
]
Threshold = Annotated[float, typer.Option(help="Least probability of water.")]
ToCrs = Annotated[
    str | None,
    typer.Option(
        help="CRS of polygons and shorelines: EPSG:4326, …",
        show_default="the raster's",
        rich_help_panel=POLYGONS,
    ),
]
Connectivity = Annotated[
    int,
    typer.Option(
        help="8 joins pixels that touch at a corner only, 4 does not.", rich_help_panel=POLYGONS
    ),
]
MinArea = Annotated[
    float, typer.Option(help="Least area of a polygon in m2.", rich_help_panel=POLYGONS)
]
FillHoles = Annotated[
    float,
    typer.Option(
        help="Fill holes up to this many m2, with what lies in them.", rich_help_panel=POLYGONS
    ),
]
Simplify = Annotated[
    float,
    typer.Option(
        help="Take out polygons' detail below this many metres; shared edges stay shared.",
        rich_help_panel=POLYGONS,
    ),
]
Smooth = Annotated[
    float,
    typer.Option(
        help="Round polygons' corners, moving edges by up to this many metres: a pixel's size or "
        "two. Shorelines stay: of a probability they need none, of a mask they are pixel edges.",
        rich_help_panel=POLYGONS,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
LabelValues = Annotated[
    list[str] | None,
    typer.Option(
        "--label-value",
        help="What numbers in labels mean: water=2, land=1,3, obscured=4, unknown=0; repeatable.",
        show_default="land=0, water=1, obscured=2, unknown=255",
    ),
]
Outside = Annotated[
    Outsides | None,
    typer.Option(
        help="What lies outside all polygons of a label.",
        show_default="unknown if some polygon is land, else land",
    ),
]
LabelBand = Annotated[
    str | None,
    typer.Option(
        help="Band of label rasters: its description, or its number from 1.",
        show_default="'hand', else the first",
    ),
]


def told(given: Mapping[str, Any], known: Container[str]) -> dict[str, Any]:
    """What a command was given, of what a function or configuration knows, as that takes it.

    Raises:
        ConfigError: a text that should hold four numbers does not.
    """
    read: dict[str, Callable[[str | None], Any]] = {
        "bands": names,
        "window": lambda text: four(text, "--window", int),
        "bbox": lambda text: four(text, "--bbox", float),
    }
    return {
        name: read[name](value) if name in read else _plain(value)
        for name, value in given.items()
        if name in known
    }


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, StrEnum) else value


def names(text: str | None) -> tuple[str, ...] | None:
    """Names of bands in a text with commas between them."""
    return None if text is None else tuple(part.strip() for part in text.split(","))


def four(text: str | None, option: str, kind: type[_Number]) -> _Four[_Number] | None:
    """Four numbers in a text with commas between them.

    Raises:
        ConfigError: the text is something else.
    """
    if text is None:
        return None
    try:
        a, b, c, d = (kind(part) for part in text.split(","))
    except ValueError as error:
        what = "whole numbers" if kind is int else "numbers"
        raise ConfigError(
            f"{option} takes four {what} with commas between; got {text!r}."
        ) from error
    return a, b, c, d


def band_of(text: str | None) -> int | str | None:
    """A band by its description, or by its number where the text is one."""
    return int(text) if text and text.isdecimal() else text


def label_meaning(texts: Sequence[str] | None) -> dict[str, Any]:
    """Keys ``label_values`` and ``ignore_values`` of what was told; empty where nothing was.

    Raises:
        ConfigError: a text is not a class, or unknown, and whole numbers.
    """
    values: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        name, _, numbers = (part.strip() for part in text.partition("="))
        try:
            found = tuple(int(number) for number in numbers.split(","))
        except ValueError:
            found = ()
        if name not in ("land", "water", "obscured", "unknown") or not found:
            raise ConfigError(
                f"--label-value takes land, water, obscured or unknown and its numbers, such as "
                f"land=1,3; got {text!r}."
            )
        values[name] = values.get(name, ()) + found
    ignored = values.pop("unknown", None)
    if ignored is None and any(255 in numbers for numbers in values.values()):
        ignored = ()
    told = {"label_values": values or None, "ignore_values": ignored}
    return {key: value for key, value in told.items() if value is not None}

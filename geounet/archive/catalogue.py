"""What a batch made, as a static STAC catalogue: an item a scene, the model, and a collection.

    out/collection.json          the whole: extent in space and time, a link to each item
    out/model.json               the model that made it (extension mlm), beside its file
    out/…/NAME.json              one scene: its outputs as assets (proj, raster, processing, …)

Items are written by the workers, the rest when a batch ends. All links are relative: the folder
can be moved, or served as it is.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.crs import CRS
from rasterio.warp import transform_geom

import geounet
from geounet.archive.manifest import Manifest
from geounet.crossings import date_in_name
from geounet.errors import OutputError
from geounet.ground import place
from geounet.mask import CLASSES, NOT_OBSERVED, PROBABILITY_SCALE
from geounet.model import load_model, shipped_models
from geounet.parts import leads_to
from geounet.products.raster import open_raster
from geounet.remote import redact
from geounet.scene import Grid
from geounet.staging import staged, whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from geounet.archive.manifest import Entry
    from geounet.model import Model, ModelSpec
    from geounet.pipeline import Job, RunResult

__all__ = ["ItemWriter", "write_catalogue"]

COLLECTION = "collection.json"
MODEL = "model.json"

_STAC = {"stac_version": "1.1.0"}
_EXTENSIONS = "https://stac-extensions.github.io"
_OF_ITEMS = tuple(
    f"{_EXTENSIONS}/{name}/schema.json"
    for name in ("projection/v2.0.0", "raster/v2.0.0", "processing/v1.2.0", "classification/v2.0.0")
)
_OF_MODELS = tuple(
    f"{_EXTENSIONS}/{name}/schema.json"
    for name in ("mlm/v1.5.0", "classification/v2.0.0", "eo/v2.0.0")
)
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_TYPES = {
    ".tif": _COG, ".gpkg": "application/geopackage+sqlite3", ".fgb": "application/vnd.flatgeobuf",
    ".parquet": "application/vnd.apache.parquet", ".geojson": "application/geo+json",
    ".png": "image/png", ".json": "application/json",
}  # fmt: skip
_TITLES = {
    "mask": "Land/water mask", "probability": "Probability of water", "polygons": "Water polygons",
    "shoreline": "Shorelines", "quicklook": "Quicklook",
}  # fmt: skip
_EARLIEST = "1972-07-23T00:00:00Z"
"""Launch of Landsat 1: before it no scene was taken."""
_ANY_TIME = {
    "datetime": None,
    "start_datetime": "1900-01-01T00:00:00Z",
    "end_datetime": "9999-12-31T23:59:59Z",
}
"""For what times a model is meant, as the extension's best practices write "any"."""
_COLOURS = {"land": "B5A27F", "water": "2166AC", "obscured": "D9D9D9"}


# -- items -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Facts:
    """What an item says, whoever makes it."""

    uri: str
    """Of the scene."""
    grid: Grid
    outputs: Mapping[str, Path]
    areas: Mapping[str, float]
    acquired: str | None
    model: str
    """Its name."""
    made_with: str
    """Its name, version and digest."""
    radiometry: str


@dataclass(frozen=True, slots=True)
class ItemWriter:
    """Makes a scene's STAC item, in the worker that made its outputs (an `Extra` of a batch)."""

    root: Path
    """The batch's output folder, where the collection will be."""

    def __call__(self, job: Job, result: RunResult) -> dict[str, Path]:
        """Write the item beside the outputs.

        Returns:
            The file, as the kind ``item``.
        """
        spec = job.model.spec
        facts = _Facts(
            uri=job.scene.uri,
            grid=job.scene.grid,
            outputs=result.outputs,
            areas=result.area_km2,
            acquired=job.tags().get("ACQUIRED"),
            model=spec.name,
            made_with=f"{spec.name} {spec.version} (SHA-256 {result.model_sha256})",
            radiometry=result.radiometry,
        )
        return {"item": _write_item(facts, self.root)}


def _write_item(facts: _Facts, root: Path) -> Path:
    mask = facts.outputs["mask"]
    path = mask.with_name(f"{mask.stem.removesuffix('_mask')}.json")
    _write(path, _item(facts, path.stem, os.path.relpath(root, path.parent)))
    return path


def _item(facts: _Facts, name: str, up: str) -> dict[str, Any]:
    """A scene's outputs as a STAC item; `up` is the way from its folder to the collection's."""
    geometry, bbox = _footprint(facts.grid)
    return {
        "type": "Feature",
        **_STAC,
        "stac_extensions": list(_OF_ITEMS),
        "id": name,
        "collection": "water",
        "geometry": geometry,
        **({"bbox": bbox} if bbox else {}),
        "properties": _properties(facts, name),
        "assets": {kind: _asset(kind, path, facts.grid) for kind, path in facts.outputs.items()},
        "links": _links(facts, up),
    }


def _properties(facts: _Facts, name: str) -> dict[str, Any]:
    made = _now()
    when, known = _when(facts.acquired or date_in_name(name), made)
    lineage = f"Segmented by {facts.made_with}; radiometry: {facts.radiometry}."
    if not known:
        lineage += " When the scene was taken is not known, but that it was before that."
    return {
        **when,
        "created": made,
        **_grid(facts.grid),
        "processing:lineage": lineage,
        "processing:level": "L4",
        "processing:software": {"geounet": geounet.__version__},
        "processing:datetime": made,
        **{
            f"geounet:{kind.replace(' ', '_')}_km2": round(area, 6)
            for kind, area in facts.areas.items()
        },
    }


def _links(facts: _Facts, up: str) -> list[dict[str, Any]]:
    whole = {"href": f"{up}/{COLLECTION}", "type": "application/json"}
    return [
        *({"rel": rel, **whole} for rel in ("root", "parent", "collection")),
        {"rel": "derived_from", "href": _source(facts.uri), "title": "The scene"},
        {
            "rel": "derived_from",
            "href": f"{up}/{MODEL}",
            "type": "application/geo+json",
            "title": "The model",
            "mlm:name": facts.model,
        },
    ]


def _now() -> str:
    return _written(datetime.now(UTC).replace(microsecond=0))


def _written(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def _when(acquired: str, made: str) -> tuple[dict[str, str | None], bool]:
    """When a scene was taken, in STAC's words, and whether anything says so.

    A day is the interval of its seconds. Where nothing says when, it is the interval in which it
    must have been: STAC allows no item without time, and the time of processing would be wrong.
    """
    try:
        time = datetime.fromisoformat(acquired)
    except ValueError:
        return {"datetime": None, "start_datetime": _EARLIEST, "end_datetime": made}, False
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    if len(acquired) > len("2024-01-31"):
        return {"datetime": _written(time)}, True
    last = time + timedelta(days=1, seconds=-1)
    ends = {"start_datetime": _written(time), "end_datetime": _written(last)}
    return {"datetime": None, **ends}, True


def _source(uri: str) -> str:
    return uri if "://" in uri or uri.startswith("/vsi") else Path(uri).absolute().as_uri()


def _footprint(grid: Grid) -> tuple[dict[str, Any] | None, list[float] | None]:
    """Outline of the grid in longitude and latitude, cut at the antimeridian, and its box."""
    if grid.crs is None or not leads_to(grid.crs, "OGC:CRS84"):
        return None, None
    steps = 8  # the edge of a UTM tile bends by less than a pixel between them
    ring = [
        *((grid.width * i / steps, 0.0) for i in range(steps)),
        *((grid.width, grid.height * i / steps) for i in range(steps)),
        *((grid.width * (1 - i / steps), grid.height) for i in range(steps)),
        *((0.0, grid.height * (1 - i / steps)) for i in range(steps + 1)),
    ]
    if grid.transform.determinant < 0:  # rows go down: the other way round is counterclockwise
        ring.reverse()
    columns, rows = np.array(ring).T
    outline = np.stack(place(grid.transform, columns, rows), axis=1).tolist()
    shape = {"type": "Polygon", "coordinates": [outline]}
    geometry = transform_geom(
        grid.crs, CRS.from_string("OGC:CRS84"), shape, antimeridian_cutting=True, precision=6
    )
    whole = geometry["type"] == "Polygon"
    parts = [geometry["coordinates"]] if whole else geometry["coordinates"]
    boxes = [_box(part[0]) for part in parts]
    west, east = min(b[0] for b in boxes), max(b[2] for b in boxes)
    if len(boxes) > 1 and east - west > 180:  # over the antimeridian: west is the larger number
        west, east = max(b[0] for b in boxes), min(b[2] for b in boxes)
    return geometry, [west, min(b[1] for b in boxes), east, max(b[3] for b in boxes)]


def _box(ring: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    x, y = [point[0] for point in ring], [point[1] for point in ring]
    return min(x), min(y), max(x), max(y)


def _grid(grid: Grid) -> dict[str, Any]:
    """The grid in the words of the projection extension."""
    facts = {"proj:shape": list(grid.shape), "proj:transform": [*grid.transform][:6]}
    if grid.crs is None:
        return {"proj:code": None, **facts}
    authority = grid.crs.to_authority()
    if authority:
        return {"proj:code": ":".join(authority), **facts}
    return {"proj:code": None, "proj:wkt2": grid.crs.to_wkt(version="WKT2_2019"), **facts}


def _asset(kind: str, path: Path, grid: Grid) -> dict[str, Any]:
    return {
        "href": f"./{path.name}",
        "type": _TYPES.get(path.suffix, "application/octet-stream"),
        "title": _TITLES.get(kind, kind.capitalize()),
        "roles": ["thumbnail"] if path.suffix == ".png" else ["data"],
        **_bands(kind, grid),
    }


def _bands(kind: str, grid: Grid) -> dict[str, Any]:
    """What the numbers of a raster mean."""
    size = {"raster:sampling": "area"}
    if grid.crs is not None and grid.crs.is_projected:
        metres = abs(grid.transform.determinant) ** 0.5 * grid.crs.linear_units_factor[1]
        size["raster:spatial_resolution"] = metres
    common = {"data_type": "uint8", "nodata": NOT_OBSERVED, **size}
    if kind == "mask":
        classes = [
            {"value": code, "name": name, "description": name, "color_hint": _COLOURS[name]}
            for code, name in CLASSES.items()
            if name in _COLOURS
        ]
        return {"bands": [{"name": "mask", **common, "classification:classes": classes}]}
    if kind == "probability":
        scaled = {"raster:scale": PROBABILITY_SCALE, "raster:offset": 0}
        return {"bands": [{"name": "probability", **common, **scaled}]}
    return {}


# -- the model -------------------------------------------------------------------------------------


def model_item(model: Model, file: str) -> dict[str, Any]:
    """A model's contract as an item of the machine learning model extension.

    Args:
        model: it.
        file: name of its file beside the item.
    """
    spec = model.spec
    return {
        "type": "Feature",
        **_STAC,
        "stac_extensions": list(_OF_MODELS),
        "id": "model",
        "collection": "water",
        "geometry": None,
        "properties": {
            **_ANY_TIME,
            "description": f"{spec.name} {spec.version}, SHA-256 {model.digest}",
            **_licence(spec.licence),
            "mlm:name": spec.name,
            "mlm:architecture": spec.architecture.decoder,
            "mlm:framework": "PyTorch",
            "mlm:tasks": ["semantic-segmentation"],
            "mlm:input": [_model_input(spec)],
            "mlm:output": [_model_output(spec)],
        },
        "assets": {
            "model": {
                "href": f"./{file}",
                "type": "application/octet-stream; framework=pytorch",
                "title": "Weights, and the contract as JSON in their metadata",
                "roles": ["mlm:model", "mlm:weights"],
                "mlm:artifact_type": "safetensors.torch.save_file",
                "bands": [{"name": b.name, "eo:common_name": b.common_name} for b in spec.bands],
            }
        },
        "links": [
            {"rel": rel, "href": f"./{COLLECTION}", "type": "application/json"}
            for rel in ("root", "parent", "collection")
        ],
    }


def _licence(text: str) -> dict[str, str]:
    """A model's own licence: STAC takes an SPDX identifier, or ``other`` for what is none."""
    if not text:
        return {}
    return {"license": text if re.fullmatch(r"[\w.+-]+", text) else "other"}


def _model_input(spec: ModelSpec) -> dict[str, Any]:
    scaling = [
        {"type": "z-score", "mean": mean, "stddev": std}
        for mean, std in zip(spec.normalisation.mean, spec.normalisation.std, strict=True)
    ]
    return {
        "name": "reflectance",
        "bands": [band.name for band in spec.bands],
        "input": _structure("bands", len(spec.bands), spec),
        "pre_processing_function": {
            "format": "text",
            "expression": f"ln(max(reflectance, {spec.normalisation.floor:g}))",
        },
        "value_scaling": scaling,
        "resize_type": None,
    }


def _model_output(spec: ModelSpec) -> dict[str, Any]:
    classes = [{"value": i, "name": n, "description": n} for i, n in enumerate(spec.classes)]
    return {
        "name": "scores",
        "tasks": ["semantic-segmentation"],
        "result": _structure("class", len(spec.classes), spec),
        "classification:classes": classes,
    }


def _structure(kind: str, count: int, spec: ModelSpec) -> dict[str, Any]:
    return {
        "shape": [-1, count, spec.tile, spec.tile],
        "dim_order": ["batch", kind, "height", "width"],
        "data_type": "float32",
    }


# -- the whole -------------------------------------------------------------------------------------


def write_catalogue(output: Path, *, model: str = "default") -> dict[str, Path]:
    """Write the collection of all scenes that are done, and the model beside it.

    Memory does not grow with the number of scenes.

    Args:
        output: a batch's output folder.
        model: name or path of the model that made it.

    Returns:
        The files: ``collection``, ``model``, ``weights``.

    Raises:
        ConfigError: there is no manifest in the folder.
        OutputError: the files cannot be written, or outputs are gone.
    """
    with Manifest.read(output) as manifest:
        loaded = load_model(model)
        paths = {
            "collection": output / COLLECTION,
            "model": output / MODEL,
            "weights": output / f"{loaded.spec.name}.safetensors",
        }
        _write_all(paths, output, manifest, loaded, model)
    return paths


def _write_all(
    paths: Mapping[str, Path], output: Path, manifest: Manifest, loaded: Model, source: str
) -> None:
    with staged(paths) as drafts:
        _write_collection(drafts["collection"], output, manifest, loaded.spec)
        _write(drafts["model"], model_item(loaded, paths["weights"].name))
        shutil.copyfile(shipped_models().get(source, Path(source)), drafts["weights"])


def _write_collection(draft: Path, output: Path, manifest: Manifest, spec: ModelSpec) -> None:
    """The links come first, as they are found; the extent is known when all are."""
    extent = _Extent()
    head = {
        "type": "Collection",
        **_STAC,
        "stac_extensions": [],
        "id": "water",
        "title": "Land/water maps",
        "description": f"Made by geounet {geounet.__version__} with {spec.name} {spec.version}. "
        f"What may be done with it depends on the scenes, whose licences geounet does not know.",
        "license": "other",
    }
    with draft.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head)[:-1] + ', "links": [\n')
        first = {"rel": "root", "href": f"./{COLLECTION}", "type": "application/json"}
        file.write(json.dumps(first))
        model = {"rel": "item", "href": f"./{MODEL}", "type": "application/geo+json"}
        file.write(",\n" + json.dumps(model))
        for path, item in _items(manifest, output, spec):
            extent.add(item)
            link = {"rel": "item", "href": f"./{path}", "type": "application/geo+json"}
            file.write(",\n" + json.dumps(link))
        file.write('\n], "extent": ' + json.dumps(extent.as_stac()) + "}\n")


def _items(
    manifest: Manifest, output: Path, spec: ModelSpec
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each scene's item and its path; one is made where an earlier batch left a scene without."""
    for entry in manifest.entries("done"):
        try:
            if made := entry.outputs.get("item"):
                path = output / made.path
            else:
                path = _write_item(_facts_of(entry, output, spec), output)
            item = json.loads(path.read_text(encoding="utf-8"))
        except OutputError:
            raise
        except (OSError, ValueError) as error:
            raise OutputError(
                f"all scenes that are done are in the catalogue; of {entry.target} an output "
                f"cannot be read: {error}. Run the batch again to have it made anew."
            ) from error
        yield path.relative_to(output).as_posix(), item


def _facts_of(entry: Entry, output: Path, spec: ModelSpec) -> _Facts:
    """What the manifest and the mask itself say of a scene."""
    paths = {kind: output / made.path for kind, made in entry.outputs.items()}
    with open_raster(paths["mask"], what="mask") as mask:
        grid = Grid(mask.crs, mask.transform, mask.width, mask.height)
        tags = mask.tags()
    return _Facts(
        uri=redact(entry.uri),
        grid=grid,
        outputs=paths,
        areas=entry.areas,
        acquired=tags.get("ACQUIRED"),
        model=spec.name,
        made_with=f"{tags.get('MODEL')} (SHA-256 {tags.get('MODEL_SHA256')})",
        radiometry=tags.get("RADIOMETRY", "not recorded"),
    )


class _Extent:
    """Grows with each item."""

    def __init__(self) -> None:
        self._box: list[float] | None = None
        self._times: tuple[str, str] | None = None

    def add(self, item: Mapping[str, Any]) -> None:
        self._add_time(item["properties"])
        if box := item.get("bbox"):
            if box[0] > box[2]:  # over the antimeridian
                box = [-180, box[1], 180, box[3]]
            old = self._box or box
            low = [min(a, b) for a, b in zip(old[:2], box[:2], strict=True)]
            self._box = low + [max(a, b) for a, b in zip(old[2:], box[2:], strict=True)]

    def _add_time(self, properties: Mapping[str, Any]) -> None:
        start = properties["datetime"] or properties["start_datetime"]
        end = properties["datetime"] or properties["end_datetime"]
        if start == _EARLIEST:  # nobody knows
            return
        first, last = self._times or (start, end)
        self._times = min(first, start), max(last, end)

    def as_stac(self) -> dict[str, Any]:
        return {
            "spatial": {"bbox": [self._box or [-180, -90, 180, 90]]},
            "temporal": {"interval": [list(self._times or (None, None))]},
        }


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with whole_file(path) as draft:
        draft.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")

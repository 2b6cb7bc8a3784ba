"""All polygons of a batch in one GeoParquet file, a few thousand at a time."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pyarrow as pa
import pyogrio
import pyproj
import shapely
from pyarrow import parquet

from geounet.archive.manifest import Manifest
from geounet.errors import GeounetWarning, OutputError
from geounet.parts import leads_to
from geounet.remote import redact
from geounet.staging import check_free, staged
from geounet.vector_files import GeoParquetWriter, to_wgs84

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from geounet.archive.manifest import Entry

__all__ = ["merge_polygons"]

_ROWS = 20_000
"""Polygons in memory at once."""

_COLUMNS: dict[str, pa.DataType] = {
    "scene": pa.string(),
    "source": pa.string(),
    "acquired": pa.string(),
    "class": pa.string(),
    **dict.fromkeys(
        ("area_m2", "perimeter_m", "area_low_m2", "area_high_m2", "mean_probability",
         "min_probability"), pa.float64(),
    ),
    "touches_edge": pa.bool_(),
    "touches_unobserved": pa.bool_(),
}  # fmt: skip


def merge_polygons(output: Path, path: Path | None = None, *, overwrite: bool = False) -> Path:
    """Put the polygons of all scenes that are done into one GeoParquet file.

    It is GeoParquet 1.1 in WGS 84 with a bounding box column, and a column ``scene`` that says
    where in the output folder each comes from. A polygon that spans scenes stays in parts; the
    masks' `mosaic` joins it. Memory does not grow with the number of scenes.

    Args:
        output: a batch's output folder.
        path: what to write; ``polygons.parquet`` in that folder if None.
        overwrite: whether an existing file may be replaced.

    Returns:
        The file.

    Raises:
        ConfigError: there is no manifest in the folder.
        OutputError: the file exists or cannot be written, or polygons are gone.

    Warns:
        GeounetWarning: a scene has no place on Earth; its polygons are left out.
    """
    path = path or output / "polygons.parquet"
    check_free({"polygons": path}, overwrite=overwrite)
    schema = pa.schema(list(_COLUMNS.items()))
    crs = pyproj.CRS.from_user_input("OGC:CRS84")
    with (
        Manifest.read(output) as manifest,
        staged({"polygons": path}) as drafts,
        GeoParquetWriter(drafts["polygons"], schema, crs) as writer,
    ):
        for name, frame in _frames(manifest, output):
            writer.write(_table(name, frame, schema), to_wgs84(frame))
    return path


def _frames(manifest: Manifest, output: Path) -> Iterator[tuple[str, gpd.GeoDataFrame]]:
    for entry in manifest.entries("done"):
        polygons = entry.outputs.get("polygons")
        if polygons is None:
            continue
        try:
            for frame in _read(output / polygons.path):
                if frame.crs is None or not leads_to(frame.crs, "OGC:CRS84"):
                    _warn_of_no_place(entry)
                    break
                if len(frame):
                    yield entry.target, frame
        except (OSError, pyogrio.errors.DataSourceError, pa.ArrowInvalid) as error:
            raise OutputError(
                f"the polygons of all scenes that are done are merged; {polygons.path} cannot be "
                f"read: {error}. Run the batch again to have it made anew."
            ) from error


def _read(path: Path) -> Iterator[gpd.GeoDataFrame]:
    """A file's features, some at a time."""
    if path.suffix == ".parquet":
        with parquet.ParquetFile(path) as file:
            about = json.loads(file.metadata.metadata[b"geo"])["columns"]["geometry"]
            for rows in file.iter_batches(_ROWS):
                yield _frame(pa.Table.from_batches([rows]), "geometry", about.get("crs"))
        return
    with pyogrio.raw.open_arrow(path, batch_size=_ROWS, use_pyarrow=True) as (about, rows):
        for some in rows:
            geometry = about["geometry_name"] or "wkb_geometry"
            yield _frame(pa.Table.from_batches([some]), geometry, about["crs"])


def _warn_of_no_place(entry: Entry) -> None:
    warnings.warn(
        f"polygons of many scenes are put into WGS 84; those of {redact(entry.uri)} have no CRS "
        f"that leads there and are left out. Give the scene one.",
        GeounetWarning,
        stacklevel=2,
    )


def _frame(table: pa.Table, geometry: str, crs: Any) -> gpd.GeoDataFrame:
    shapes = shapely.from_wkb(table[geometry].to_numpy())
    columns = [name for name in table.column_names if name in _COLUMNS]
    values = {name: table[name].to_pandas() for name in columns}
    return gpd.GeoDataFrame(values, geometry=shapes, crs=crs and pyproj.CRS.from_user_input(crs))


def _table(name: str, frame: gpd.GeoDataFrame, schema: pa.Schema) -> pa.Table:
    """Columns of the file; what a scene's polygons do not have is null."""
    columns = {
        column: pa.array(frame[column], from_pandas=True)
        for column in schema.names
        if column in frame
    }
    columns["scene"] = pa.array([name] * len(frame))
    nothing = pa.nulls(len(frame))
    arrays = [columns.get(field.name, nothing).cast(field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)

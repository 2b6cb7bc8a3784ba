"""Vector files: every format read back by others' tools; whole or absent; a few rows at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import pytest
import shapely
from affine import Affine

from geounet import vector_files
from geounet.errors import ConfigError, OutputError, SceneError
from geounet.vector_files import write_polygons, write_shorelines
from geounet.vectors import polygonize_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

UTM = Affine(10, 0, 399960, 0, -10, 4700040)
COLUMNS = ["class", "area_m2", "perimeter_m", "touches_edge", "touches_unobserved", "geometry"]
SUFFIXES = ["gpkg", "parquet", "fgb", "geojson"]


def as_set(geometries: np.ndarray) -> list[bytes]:
    return sorted(shapely.to_wkb(shapely.normalize(geometries)))


@pytest.fixture
def frame() -> gpd.GeoDataFrame:
    mask = (np.random.default_rng(2).random((30, 40)) < 0.6).astype(np.uint8)
    return polygonize_rows([mask], 40).to_frame(UTM, "EPSG:32631")


@pytest.fixture
def empty() -> gpd.GeoDataFrame:
    return polygonize_rows([np.zeros((3, 4), np.uint8)], 4).to_frame(UTM, "EPSG:32631")


def read(path: Path) -> gpd.GeoDataFrame:
    return gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["frame", "empty"])
def test_formats_read_back(
    tmp_path: Path, request: pytest.FixtureRequest, suffix: str, kind: str
) -> None:
    frame = request.getfixturevalue(kind)
    path = write_polygons(frame, tmp_path / f"water.{suffix}")
    if suffix in ("gpkg", "fgb"):
        assert pyogrio.list_layers(path)[:, 0].tolist() == ["polygons"]
    if suffix in ("gpkg", "fgb") and kind == "frame":
        assert pyogrio.read_info(path)["capabilities"]["fast_spatial_filter"]
    assert list(tmp_path.iterdir()) == [path]
    found = read(path)
    if suffix == "geojson":
        assert found.crs == pyproj.CRS(4326)
        found = found.to_crs(32631)
    assert found.crs == frame.crs
    if suffix == "geojson" and kind == "empty":
        return  # it has no place for columns
    assert set(found.columns) == set(COLUMNS)
    found = found.sort_values("area_m2", kind="stable")  # FlatGeobuf orders by place
    frame = frame.sort_values("area_m2", kind="stable")
    assert np.allclose(found.area_m2, frame.area_m2, rtol=1e-14)
    assert found["class"].tolist() == frame["class"].tolist()
    assert found.touches_edge.dtype == np.bool_
    if suffix != "geojson":
        assert as_set(found.geometry.to_numpy()) == as_set(frame.geometry.to_numpy())
    elif len(frame):  # 7 decimals are half a centimetre either way
        moved = shapely.hausdorff_distance(found.geometry.to_numpy(), frame.geometry.to_numpy())
        assert moved.max() < 0.01
    if len(frame):
        assert set(found.geom_type) == {"Polygon"}


def test_8_connected_features_are_written_as_multipolygons(tmp_path: Path) -> None:
    polygons = polygonize_rows([np.eye(2, 3, dtype=np.uint8)], 3, connectivity=8)
    for suffix in ("gpkg", "fgb", "parquet", "geojson"):
        path = write_polygons(polygons.to_frame(UTM, 32631), tmp_path / f"water.{suffix}")
        assert read(path).geom_type.tolist() == ["MultiPolygon"]


def test_geoparquet_has_a_bounding_box_column(tmp_path: Path, frame: gpd.GeoDataFrame) -> None:
    import pyarrow.parquet  # noqa: PLC0415

    path = write_polygons(frame, tmp_path / "water.parquet")
    meta = json.loads(pyarrow.parquet.read_metadata(path).metadata[b"geo"])
    assert meta["version"] == "1.1.0"
    assert meta["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    part = gpd.read_parquet(path, bbox=tuple(frame.geometry[0].bounds))
    assert 0 < len(part) < len(frame)


def test_geojson_follows_rfc_7946(tmp_path: Path, frame: gpd.GeoDataFrame) -> None:
    frame = frame.set_geometry(frame.geometry.reverse())  # clockwise, which it must not stay
    path = write_polygons(frame, tmp_path / "water.geojson")
    data = json.loads(path.read_text())
    assert set(data) == {"type", "features"}
    shells = [feature["geometry"]["coordinates"][0] for feature in data["features"]]
    assert all(shapely.LinearRing(shell).is_ccw for shell in shells)
    assert all(round(x, 7) == x for shell in shells for point in shell for x in point)
    with pytest.raises(ConfigError, match="no CRS"):
        write_polygons(frame.set_crs(None, allow_override=True), tmp_path / "no.geojson")


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32601", Affine(2000, 0, 100000, 0, -2000, 1000000)),
        ("EPSG:4326", Affine(0.02, 0, 179.0, 0, -0.02, 10)),
    ],
)
def test_geojson_is_cut_at_the_antimeridian(tmp_path: Path, crs: str, transform: Affine) -> None:
    mask = np.zeros((80, 100), np.uint8)
    mask[5:75, 5:95] = 1
    mask[30:40, 20:60] = 0
    frame = polygonize_rows([mask], 100).to_frame(transform, crs)
    (cut,) = gpd.read_file(write_polygons(frame, tmp_path / "water.geojson")).geometry
    west, _, east, _ = cut.bounds
    assert (west, east) == (-180, 180)
    assert cut.is_valid
    assert all(part.bounds[2] - part.bounds[0] < 3 for part in cut.geoms)
    cea = "+proj=cea +lon_0=180 +ellps=WGS84"
    whole = frame.to_crs(cea).area[0]
    assert gpd.GeoSeries([cut], crs=4326).to_crs(cea).area[0] == pytest.approx(whole, rel=1e-4)


def test_geojson_of_the_world_ocean_is_not_unwrapped(tmp_path: Path) -> None:
    mask = np.ones((18, 36), np.uint8)
    mask[3:9, 3:20] = 0
    frame = polygonize_rows([mask], 36).to_frame(Affine(10, 0, -180, 0, -10, 90), 4326)
    path = write_polygons(frame, tmp_path / "water.geojson")
    assert gpd.read_file(path).geometry[0].equals(frame.geometry[0])


@pytest.mark.parametrize("west", [-182, 178, 538])
def test_geojson_of_any_turn_of_longitude_lies_within_180(tmp_path: Path, west: float) -> None:
    mask = np.ones((10, 40), np.uint8)
    frame = polygonize_rows([mask], 40).to_frame(Affine(0.1, 0, west, 0, -0.1, 1), 4326)
    (cut,) = gpd.read_file(write_polygons(frame, tmp_path / "water.geojson")).geometry
    assert sorted(part.bounds for part in cut.geoms) == [(-180, 0, -178, 1), (178, 0, 180, 1)]


@pytest.mark.parametrize("shape", ["round the pole", "over the pole", "cape"])
@pytest.mark.parametrize("turn", range(4))
def test_geojson_of_polygons_about_a_pole(tmp_path: Path, shape: str, turn: int) -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[10:50, 5:45] = 1
    mask[12:14, 25:35] = 0
    if shape != "over the pole":
        mask[20:40, 15:40] = 0
    if shape == "cape":
        mask[29:32, 38:50] = 0
    corner = Affine(10_000, 0, -300_000, 0, -10_000, 300_000)
    frame = polygonize_rows([np.rot90(mask, turn)], 60).to_frame(corner, 3413)
    (cut,) = gpd.read_file(write_polygons(frame, tmp_path / "water.geojson")).geometry
    assert cut.is_valid
    back = gpd.GeoSeries([cut], crs=4326).to_crs("+proj=laea +lat_0=90").area[0]
    assert back == pytest.approx(frame.area_m2[0], rel=1e-7)


def test_a_shoreline_round_a_pole_does_not_reach_it(tmp_path: Path) -> None:
    ring = shapely.Point(0, 0).buffer(200_000).exterior
    line = gpd.GeoDataFrame(geometry=[shapely.LineString(ring)], crs=3413)
    cut = gpd.read_file(write_shorelines(line, tmp_path / "shore.geojson"))
    assert cut.total_bounds == pytest.approx([-180, 88, 180, 88], abs=0.5)
    assert cut.to_crs(3413).length[0] == pytest.approx(ring.length, rel=1e-3)


def test_long_edges_bend_in_geojson(tmp_path: Path) -> None:
    """100 km along a row of UTM is no straight line in degrees."""
    frame = polygonize_rows([np.ones((10, 10_000), np.uint8)], 10_000).to_frame(UTM, 32631)
    path = write_polygons(frame, tmp_path / "water.geojson")
    (back,) = gpd.read_file(path).to_crs(32631).geometry
    assert back.symmetric_difference(frame.geometry[0]).area < 3000  # 3 cm times 100 km


@pytest.mark.parametrize("kind", ["line", "polygon", "multipolygon"])
def test_points_are_added_where_shapely_adds_them(kind: str) -> None:
    rows = ("11111", "10001", "10101", "11111", "00000", "00110")
    mask = np.array([list(row) for row in rows]).astype(np.uint8)
    connectivity = 8 if kind == "multipolygon" else 4
    shapes = polygonize_rows([mask], 5, connectivity=connectivity).geometries()
    if kind == "line":
        shapes = shapely.get_rings(shapes)
        shapes = shapely.linestrings([ring.coords for ring in shapes[:1]])
    dense = vector_files.densified(shapes, 1.2)
    expected = shapely.segmentize(shapes, 1.2)
    assert shapely.get_coordinates(dense) == pytest.approx(shapely.get_coordinates(expected))
    assert shapely.equals(dense, shapes).all()
    assert shapely.get_num_coordinates(dense).sum() > shapely.get_num_coordinates(shapes).sum()
    assert len(vector_files.densified(shapes[:0], 1)) == 0


@pytest.mark.parametrize("name", ["water.shp", "water.txt", "water"])
def test_unknown_formats_are_refused(tmp_path: Path, frame: gpd.GeoDataFrame, name: str) -> None:
    with pytest.raises(ConfigError, match="gpkg, parquet, fgb"):
        write_polygons(frame, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_the_format_may_be_named(tmp_path: Path, frame: gpd.GeoDataFrame) -> None:
    path = write_polygons(frame, tmp_path / "water.pq", format="parquet")
    assert len(gpd.read_parquet(path)) == len(frame)
    with pytest.raises(ConfigError, match="shapefiles"):
        write_polygons(frame, tmp_path / "water.gpkg", format="shp")


def test_existing_files_are_kept_unless_told(tmp_path: Path, frame: gpd.GeoDataFrame) -> None:
    path = tmp_path / "water.gpkg"
    path.write_text("old")
    with pytest.raises(OutputError, match=r"may not exist .*water\.gpkg"):
        write_polygons(frame, path)
    assert path.read_text() == "old"
    write_polygons(frame, path, overwrite=True)
    assert len(read(path)) == len(frame)
    assert len(read(write_polygons(frame, tmp_path / "new" / "water.gpkg"))) == len(frame)
    with pytest.raises(OutputError, match="name must be one that the disk takes"):
        write_polygons(frame, tmp_path / f"{'x' * 300}.gpkg")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    """A limit on file size stands for the full disk; set in a process of its own."""
    path = tmp_path / f"water.{suffix}"
    path.write_text("old")
    script = f"""
import resource, signal, numpy as np
from affine import Affine
from geounet.errors import OutputError
from geounet.vector_files import write_polygons
from geounet.vectors import polygonize_rows
mask = (np.random.default_rng(0).random((200, 200)) < 0.6).astype(np.uint8)
frame = polygonize_rows([mask], 200).to_frame(Affine(10, 0, 4e5, 0, -10, 4e6), "EPSG:32631")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_polygons(frame, {str(path)!r}, overwrite=True)
except OutputError as error:
    print("refused:", error)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "refused:" in out.stdout
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tables_that_come_one_by_one_are_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame: gpd.GeoDataFrame, suffix: str
) -> None:
    """Also where the first has no row, and what is not known is null, not NaN."""
    frame = frame.assign(gradient=np.where(frame.touches_edge, np.nan, 1.5), source="a.tif")
    whole = read(write_polygons(frame, tmp_path / f"whole.{suffix}"))
    monkeypatch.setattr(vector_files, "_ROWS", 5)
    taken: list[int] = []

    def tables() -> Iterator[gpd.GeoDataFrame]:
        for first, stop in ((0, 0), (0, 7), (7, 8), (8, len(frame))):
            taken.append(first)
            yield frame.iloc[first:stop]

    parts = read(write_polygons(tables(), tmp_path / f"parts.{suffix}"))
    assert taken == [0, 0, 7, 8]
    assert parts.gradient.isna().sum() == frame.touches_edge.sum() > 0
    assert parts.crs == whole.crs
    assert list(parts.columns) == list(whole.columns)
    order = ["area_m2", "perimeter_m", "gradient"]  # FlatGeobuf orders by place
    parts, whole = (one.sort_values(order, kind="stable") for one in (parts, whole))
    assert parts[order].equals(whole[order].set_index(parts.index))
    assert as_set(parts.geometry.to_numpy()) == as_set(whole.geometry.to_numpy())
    if suffix in ("gpkg", "fgb"):
        table = pyogrio.read_arrow(tmp_path / f"parts.{suffix}")[1]
        assert table["gradient"].null_count == frame.touches_edge.sum()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_are_taken_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame: gpd.GeoDataFrame, suffix: str
) -> None:
    """Pieces are small, and no table is asked for long before those before it are written."""
    monkeypatch.setattr(vector_files, "_ROWS", 5)
    taken, sizes, ahead = [0], [0], [0]

    def count(shapes: object, write: Callable[..., object]) -> object:
        sizes.append(np.size(shapes))
        return write(shapes)

    for name in ("to_wkb", "to_geojson"):
        monkeypatch.setattr(shapely, name, partial(count, write=getattr(shapely, name)))

    def tables() -> Iterator[gpd.GeoDataFrame]:
        for first in range(0, len(frame), 10):
            ahead.append(taken[0] - sum(sizes))
            table = frame.iloc[first : first + 10]
            taken[0] += len(table)
            yield table

    write_polygons(tables(), tmp_path / f"water.{suffix}")
    assert sum(sizes) == len(frame)
    assert max(sizes) <= 5
    assert max(ahead) <= 10


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_multiples_among_later_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame: gpd.GeoDataFrame, suffix: str
) -> None:
    """The type of a file's geometries is that of all rows, not of those that are written first."""
    monkeypatch.setattr(vector_files, "_ROWS", 5)
    shapes = frame.geometry.to_numpy().copy()
    shapes[-1] = shapely.MultiPolygon([shapely.box(x, 0, x + 1, 1) for x in (400_000, 400_002)])
    several = frame.set_geometry(shapes, crs=frame.crs)
    for number, tables in enumerate((several, [frame.iloc[:0], several])):
        path = write_polygons(tables, tmp_path / f"{number}.{suffix}")
        assert "MultiPolygon" in set(read(path).geom_type)
        if suffix in ("gpkg", "fgb"):
            assert pyogrio.read_info(path)["geometry_type"] == "MultiPolygon"


def test_columns_of_times_are_text_in_geojson(tmp_path: Path, frame: gpd.GeoDataFrame) -> None:
    path = write_polygons(frame.assign(day=pd.Timestamp("2023-07-01")), tmp_path / "w.geojson")
    assert json.loads(path.read_text())["features"][0]["properties"]["day"][:10] == "2023-07-01"


def test_rows_without_a_geometry_in_geoparquet(tmp_path: Path, frame: gpd.GeoDataFrame) -> None:
    path = write_polygons(
        frame.set_geometry([None, *frame.geometry[1:]], crs=frame.crs), tmp_path / "w.parquet"
    )
    assert read(path).geometry.isna().tolist() == [True] + [False] * (len(frame) - 1)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_error_on_the_way_is_that_error_and_leaves_the_old_file(
    tmp_path: Path, frame: gpd.GeoDataFrame, suffix: str
) -> None:
    path = tmp_path / f"water.{suffix}"
    path.write_text("old")

    def tables() -> Iterator[gpd.GeoDataFrame]:
        yield frame
        raise SceneError("the scene ends here")

    with pytest.raises(SceneError, match="ends here"):
        write_polygons(tables(), path, overwrite=True)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_lacks_a_feature_does_not_replace_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame: gpd.GeoDataFrame
) -> None:
    """As where a writer says nothing of what it could not write."""
    path = tmp_path / "water.gpkg"
    path.write_text("old")
    whole = vector_files._WRITERS["gpkg"]
    monkeypatch.setitem(vector_files._WRITERS, "gpkg", lambda *given: whole(*given) - 1)
    with pytest.raises(OutputError, match=f"would hold {len(frame) - 1} of {len(frame)} polygons"):
        write_polygons(frame, path, overwrite=True)
    assert path.read_text() == "old"


def test_no_table_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one table or more"):
        write_polygons([], tmp_path / "water.gpkg")


@pytest.mark.parametrize("suffix", ["gpkg", "fgb", "parquet"])
def test_no_crs_is_no_crs(tmp_path: Path, frame: gpd.GeoDataFrame, suffix: str) -> None:
    bare = frame.set_crs(None, allow_override=True)
    found = read(write_polygons(bare, tmp_path / f"water.{suffix}"))
    assert found.crs is None or found.crs.name == "Undefined Cartesian SRS"
    assert len(found) == len(frame)


def test_geojson_of_what_lies_nowhere_on_earth_is_refused(
    tmp_path: Path, frame: gpd.GeoDataFrame
) -> None:
    local = frame.set_crs('LOCAL_CS["a building", UNIT["metre", 1]]', allow_override=True)
    with pytest.raises(ConfigError, match="does not lead there"):
        write_polygons(local, tmp_path / "water.geojson")
    assert len(read(write_polygons(local, tmp_path / "water.gpkg"))) == len(frame)


def test_geoparquet_tells_what_it_holds(tmp_path: Path) -> None:
    """As the specification 1.1 has it: box, CRS, types of geometry."""
    import pyarrow.parquet  # noqa: PLC0415

    mixed = [shapely.box(0, 0, 1, 2), shapely.multipolygons([shapely.box(5, 5, 9, 8)])]
    tables = (gpd.GeoDataFrame({"n": [1]}, geometry=[one], crs=32631) for one in mixed)
    path = write_polygons(tables, tmp_path / "water.parquet")
    meta = json.loads(pyarrow.parquet.read_metadata(path).metadata[b"geo"])
    column = meta["columns"][meta["primary_column"]]
    assert column["geometry_types"] == ["MultiPolygon", "Polygon"]
    assert column["bbox"] == [0, 0, 9, 8]
    assert column["encoding"] == "WKB"
    assert pyproj.CRS.from_json_dict(column["crs"]) == pyproj.CRS(32631)
    boxes = pyarrow.parquet.read_table(path)["bbox"].to_pylist()
    assert boxes[1] == {"xmin": 5, "ymin": 5, "xmax": 9, "ymax": 8}


def test_lines_are_cut_at_the_antimeridian_too(tmp_path: Path) -> None:
    across = shapely.LineString([(179, 1), (181, 2)])
    line = gpd.GeoDataFrame({"n": [1]}, geometry=[across], crs=4326)
    (cut,) = gpd.read_file(write_shorelines(line, tmp_path / "shore.geojson")).geometry
    assert cut.geom_type == "MultiLineString"
    assert [part.bounds for part in cut.geoms] == [(179, 1, 180, 1.5), (-180, 1.5, -179, 2)]

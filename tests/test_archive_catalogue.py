"""STAC items, the collection and the merged polygons of a batch's folder, read by others' tools."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
import shapely
from distributed import Client
from models import tiny_model
from pystac.extensions.mlm import MLMExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.validation.stac_validator import JsonSchemaSTACValidator

import geounet
from geounet.archive import Manifest
from geounet.archive.catalogue import (
    ItemWriter,
    _Extent,
    _Facts,
    _when,
    _write_item,
    model_item,
    write_catalogue,
)
from geounet.archive.manifest import MANIFEST, Made, Planned
from geounet.archive.merging import merge_polygons
from geounet.archive.tasks import Task, segment
from geounet.errors import ConfigError, OutputError
from geounet.model import Model, load_model
from geounet.pipeline import RunConfig
from geounet.scene import Grid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
def do(make_water, model, tmp_path) -> Callable[..., Path]:
    """Segment scenes into a batch's folder, in this process; a scene is its raster's options."""

    def do(*scenes: dict, extras: tuple | None = None, **options) -> Path:
        out = tmp_path / "out"
        digest = load_model(model).digest
        with Manifest.create(out) as manifest:
            manifest.begin({})
            paths = [
                make_water(40, 50, name=f"s{i}.tif", **scene)[0] for i, scene in enumerate(scenes)
            ]
            planned = [Planned(str(p), f"{p.stem}/{p.stem}", None) for p in paths]
            manifest.register(planned, model=digest, parameters="")
            for entry in list(manifest.pending()):
                config = RunConfig(model=model, output=out / f"s{entry.id - 1}", **options)
                more = (ItemWriter(out),) if extras is None else extras
                made = segment(Task(entry.uri, config, digest, out, extras=more))
                assert isinstance(made, Made), made
                manifest.start(entry)
                manifest.finish(entry, made)
        return out

    return do


ANTIMERIDIAN = 242_820
"""Its easting in UTM zone 1 where the scenes lie, to some 10 m."""


def at(x: float, y: float = 4_400_000) -> rasterio.Affine:
    return rasterio.Affine(10, 0, x, 0, -10, y)


def load(path: Path) -> dict:
    """An object that keeps STAC's core schema, which pystac has; extensions' have to be fetched."""
    content = json.loads(path.read_text())
    kind = pystac.STACObjectType.COLLECTION if "extent" in content else pystac.STACObjectType.ITEM
    JsonSchemaSTACValidator().validate_core(content, kind, content["stac_version"])
    return content


def test_an_item_describes_a_scenes_outputs(do) -> None:
    out = do({}, probability=True, shoreline=True)
    item = pystac.Item.from_dict(load(out / "s0" / "s0.json"))
    assert item.id == "s0"
    projection = ProjectionExtension.ext(item)
    with rasterio.open(out / "s0" / "s0_mask.tif") as mask:
        assert projection.code == str(mask.crs)
        assert projection.shape == list(mask.shape)
        assert projection.transform == list(mask.transform)[:6]
        expected = rasterio.warp.transform_bounds(mask.crs, "OGC:CRS84", *mask.bounds)
    np.testing.assert_allclose(item.bbox, expected, atol=1e-4)
    assert set(item.assets) == {"mask", "polygons", "probability", "shoreline"}
    for asset in item.assets.values():
        assert (out / "s0" / asset.href).is_file()
    band = item.assets["mask"].extra_fields["bands"][0]
    codes = {c["value"]: c["name"] for c in band["classification:classes"]}
    assert codes == {0: "land", 1: "water", 2: "obscured"}
    assert (band["nodata"], band["raster:spatial_resolution"]) == (255, 10)
    scale = item.assets["probability"].extra_fields["bands"][0]["raster:scale"]
    assert scale == pytest.approx(1 / 250)
    assert item.properties["processing:software"] == {"geounet": geounet.__version__}
    with Manifest.read(out) as manifest:
        (entry,) = manifest.entries("done")
    assert item.properties["geounet:water_km2"] == pytest.approx(entry.areas["water"], abs=1e-6)
    assert entry.outputs["item"].path == "s0/s0.json"


@pytest.mark.parametrize(
    ("acquired", "name", "time"),
    [
        ("2023-05-01T10:50:31", "s", ("2023-05-01T10:50:31Z", None, None)),
        ("2023-05-01T10:50:31+02:00", "s", ("2023-05-01T08:50:31Z", None, None)),
        ("2023-05-01", "s", (None, "2023-05-01T00:00:00Z", "2023-05-01T23:59:59Z")),
        (None, "T29_20240131_x", (None, "2024-01-31T00:00:00Z", "2024-01-31T23:59:59Z")),
        (None, "s", (None, "1972-07-23T00:00:00Z", "processing:datetime")),
    ],
)
def test_the_time_of_an_item_is_when_its_scene_was_taken(
    make_water, tmp_path, acquired, name, time
):
    path, _ = make_water(40, 50, name=f"{name}.tif")
    with rasterio.open(path) as file:
        grid = Grid(file.crs, file.transform, file.width, file.height)
    mask = tmp_path / f"{name}_mask.tif"
    facts = _Facts(str(path), grid, {"mask": mask}, {"water": 1.0}, acquired, "m", "m", "r")
    properties = load(_write_item(facts, tmp_path))["properties"]
    when, start, end = time
    end = properties["processing:datetime"] if end == "processing:datetime" else end
    found = {key: properties.get(key) for key in ("datetime", "start_datetime", "end_datetime")}
    assert found == {"datetime": when, "start_datetime": start, "end_datetime": end}
    unknown = "When the scene was taken is not known" in properties["processing:lineage"]
    assert unknown == (acquired is None and name == "s")


def test_the_collections_time_is_that_of_the_scenes_that_have_one() -> None:
    extent = _Extent()
    unknown, _ = _when("", "2026-01-01T00:00:00Z")
    for when in (unknown, _when("2023-05-01", "")[0], _when("2022-01-01T10:00:00", "")[0]):
        extent.add({"properties": when})
    times = extent.as_stac()["temporal"]["interval"]
    assert times == [["2022-01-01T10:00:00Z", "2023-05-01T23:59:59Z"]]


@pytest.mark.parametrize(
    ("licence", "told"),
    [
        ("Apache-2.0", {"license": "Apache-2.0"}),
        ("LicenseRef-mine", {"license": "LicenseRef-mine"}),
        ("ask the authors", {"license": "other"}),
        ("", {}),
    ],
)
def test_a_models_licence_is_its_own(model, licence, told) -> None:
    loaded = load_model(model)
    spec = loaded.spec.model_copy(update={"licence": licence})
    item = model_item(Model(spec, loaded.source, loaded.digest), "m.safetensors")
    assert {k: v for k, v in item["properties"].items() if k == "license"} == told


def test_the_catalogue_of_a_batch(do, model, tmp_path) -> None:
    far = {"crs": "EPSG:32601", "transform": at(ANTIMERIDIAN)}
    out = do({}, far)
    files = write_catalogue(out, model=model)
    load(out / "model.json")
    collection = pystac.Collection.from_dict(
        load(files["collection"]), href=str(files["collection"])
    )
    items = {item.id: item for item in collection.get_items()}
    assert set(items) == {"model", "s0", "s1"}
    assert items["s1"].get_collection().id == collection.id
    west, south, east, north = collection.extent.spatial.bboxes[0]
    for name in ("s0", "s1"):
        left, bottom, right, top = items[name].bbox
        assert west <= min(left, right)
        assert east >= max(left, right)
        assert south <= bottom < top <= north
    described = MLMExtension.ext(items["model"])
    assert (described.mlm_name, described.architecture) == ("tiny", "unet2015")
    assert described.input[0].bands == ["B03", "B04", "B08"]
    weights = items["model"].assets["model"].get_absolute_href()
    assert load_model(weights).digest == load_model(model).digest
    derived = [link.href for link in items["s0"].get_links("derived_from")]
    assert derived == [(tmp_path / "s0.tif").as_uri(), "../model.json"]


def test_a_scene_of_an_earlier_batch_gets_an_item_too(do, model) -> None:
    out = do({}, extras=())
    assert not (out / "s0" / "s0.json").exists()
    write_catalogue(out, model=model)
    late = load(out / "s0" / "s0.json")
    (out / MANIFEST).unlink(missing_ok=True)
    soon = load(do({}, overwrite=True) / "s0" / "s0.json")
    for item in (late, soon):
        for name in ("created", "processing:datetime", "end_datetime"):
            del item["properties"][name]
    assert late == soon


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("lost", ["item", "damaged item", "mask"])
def test_outputs_that_are_gone_are_named(do, model, lost) -> None:
    out = do({}, extras=() if lost == "mask" else None)
    if lost == "damaged item":
        (out / "s0/s0.json").write_text("{")
    else:
        (out / ("s0/s0_mask.tif" if lost == "mask" else "s0/s0.json")).unlink()
    with pytest.raises(OutputError, match=r"of s0/s0 an output cannot be read: .*batch again"):
        write_catalogue(out, model=model)
    assert not (out / "collection.json").exists()


def test_a_batch_writes_them(make_water, model, tmp_path) -> None:
    make_water(40, 50, name="a.tif")
    with Client(n_workers=1, processes=False, dashboard_address=":0") as client:
        result = geounet.batch(
            tmp_path / "a.tif", output=tmp_path / "out", model=model, scheduler=client,
            device="cpu", stac=True, merge=True,
        )  # fmt: skip
    assert result.done == 1
    collection = load(tmp_path / "out" / "collection.json")
    items = [link["href"] for link in collection["links"] if link["rel"] == "item"]
    assert items == ["./model.json", "./a.json"]
    assert len(gpd.read_parquet(tmp_path / "out" / "polygons.parquet"))


def test_a_scene_over_the_antimeridian_has_two_parts(do) -> None:
    out = do({"crs": "EPSG:32601", "transform": at(ANTIMERIDIAN - 200)})
    item = load(out / "s0" / "s0.json")
    west, _, east, _ = item["bbox"]
    assert item["geometry"]["type"] == "MultiPolygon"
    assert 179 < west < 180
    assert -180 < east < -179


@pytest.mark.parametrize("crs", [None, 'LOCAL_CS["a building", UNIT["metre", 1]]'])
def test_a_scene_without_a_crs_has_no_place(do, crs) -> None:
    out = do({"crs": crs}, {})
    with pytest.warns(geounet.GeounetWarning, match=r"s0\.tif have no CRS that leads there and"):
        merge_polygons(out)
    assert set(gpd.read_parquet(out / "polygons.parquet").scene) == {"s1/s1"}
    item = load(out / "s0" / "s0.json")
    assert item["geometry"] is None
    assert "bbox" not in item
    assert item["properties"]["proj:code"] is None


@pytest.mark.parametrize("kind", ["gpkg", "parquet", "fgb", "geojson"])
def test_all_polygons_in_one_file(do, kind: str) -> None:
    out = do({}, {"crs": "EPSG:32633", "transform": at(400_000)}, format=kind)
    whole = gpd.read_parquet(merge_polygons(out))
    assert whole.crs == "OGC:CRS84"
    for name in ("s0", "s1"):
        path = out / name / f"{name}_water.{kind}"
        own = gpd.read_parquet(path) if kind == "parquet" else gpd.read_file(path)
        part = whole[whole.scene == f"{name}/{name}"]
        assert part.area_m2.tolist() == own.area_m2.tolist()
        assert part.touches_edge.tolist() == own.touches_edge.tolist()
        moved = own.geometry.to_crs("OGC:CRS84").array
        assert shapely.hausdorff_distance(part.geometry.array, moved).max() < 2e-7
    near = gpd.read_parquet(out / "polygons.parquet", bbox=tuple(whole.total_bounds[[0, 1, 0, 3]]))
    assert 0 < len(near) < len(whole)


def test_polygons_are_merged_a_few_at_a_time(do, monkeypatch) -> None:
    monkeypatch.setattr("geounet.archive.merging._ROWS", 100)
    out = do({})
    whole = gpd.read_parquet(merge_polygons(out))
    own = gpd.read_file(out / "s0" / "s0_water.gpkg")
    assert whole.area_m2.tolist() == own.area_m2.tolist()
    assert len(own) > 200


def test_merged_polygons_are_not_replaced_unasked(do) -> None:
    out = do({})
    merge_polygons(out)
    with pytest.raises(OutputError, match="--overwrite"):
        merge_polygons(out)
    merge_polygons(out, overwrite=True)
    (out / "s0" / "s0_water.gpkg").unlink()
    with pytest.raises(OutputError, match=r"s0_water\.gpkg cannot be read"):
        merge_polygons(out, overwrite=True)
    assert len(gpd.read_parquet(out / "polygons.parquet"))


def test_a_folder_without_a_batch_has_no_catalogue(tmp_path, model) -> None:
    for write in (write_catalogue, merge_polygons):
        with pytest.raises(ConfigError, match="has none"):
            write(tmp_path)

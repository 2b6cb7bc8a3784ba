"""Areas and lengths are those on the CRS's ellipsoid."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine

from geounet.ground import Site, pyproj_crs
from geounet.vectors import polygonize_rows

UTM = Affine(10, 0, 399960, 0, -10, 4700040)
COS, SIN = np.cos(np.radians(31)).item(), np.sin(np.radians(31)).item()
ROTATED = Affine(10 * COS, 20 * SIN, 5e5, 10 * SIN, -20 * COS, 5e6)


def dense(polygon: shapely.Polygon, crs: object, step: float) -> shapely.Polygon:
    """The polygon in longitude and latitude, its edges straight in the CRS."""
    to_angles = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
    return shapely.transform(
        shapely.segmentize(polygon, step), to_angles.transform, interleaved=False
    )


GEODESIC = {
    "utm": ("EPSG:32631", UTM, 100.0),
    "utm, far from its meridian": ("EPSG:32631", Affine(10, 0, 900000, 0, -10, 7.2e6), 100.0),
    "utm, rotated": ("EPSG:32631", ROTATED, 100.0),
    "web mercator": ("EPSG:3857", Affine(30, 0, 5e5, 0, -30, 8.4e6), 300.0),
    "geographic": ("EPSG:4326", Affine(0.0002, 0, 5, 0, -0.0003, 61), 0.002),
    "geographic, grads": ("EPSG:4807", Affine(0.0002, 0, 1, 0, -0.0002, 52), 0.002),
    "us feet": ("EPSG:2263", Affine(30, 0, 9e5, 0, -30, 3e5), 300.0),
    "across the pole": ("EPSG:3995", Affine(1000, 0, -5e4, 0, -1000, 6e4), 2000.0),
    "across the antimeridian": ("EPSG:32601", Affine(20, 0, 150000, 0, -20, 2000000), 200.0),
}


@pytest.mark.parametrize(("crs", "transform", "step"), GEODESIC.values(), ids=GEODESIC)
def test_area_and_perimeter_are_those_on_the_ellipsoid(
    crs: str, transform: Affine, step: float
) -> None:
    mask = np.zeros((90, 110), np.uint8)
    mask[10:80, 5:100] = 1
    mask[30:35, 20:70] = 0
    mask[32, 40] = 1
    polygons = polygonize_rows([mask], 110)
    frame = polygons.to_frame(transform, crs)
    geod = pyproj.CRS(crs).get_geod()
    for row in frame.itertuples():
        # an equal-area map of the dense polygon: nothing shared with the way under test
        polygon = dense(row.geometry, crs, step)
        if crs == "EPSG:4807":  # a shift of datum is not part of an area
            polygon = shapely.transform(shapely.segmentize(row.geometry, step), lambda c: c * 0.9)
        area, _ = geod.geometry_area_perimeter(polygon)
        rings = [polygon.exterior, *polygon.interiors]
        perimeter = sum(geod.geometry_length(ring) for ring in rings)
        assert row.area_m2 == pytest.approx(abs(area), rel=2e-6)
        assert row.perimeter_m == pytest.approx(perimeter, rel=2e-6)
    site = Site(transform, pyproj_crs(crs), mask.shape)
    areas, perimeters = site.measures(polygons.geometries())
    assert areas == pytest.approx(frame.area_m2.to_numpy(), rel=1e-9)
    short = 1e-5 if transform.a == 1000 else 1e-7  # chords are, of arcs of 100 km most
    assert perimeters == pytest.approx(frame.perimeter_m.to_numpy(), rel=short)
    assert site.pixel_size() ** 2 == pytest.approx(areas.sum() / mask.sum(), rel=0.01)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_area_of_a_world_wide_raster(crs: str) -> None:
    """The zone between two parallels, whose area is known in closed form."""
    if crs == "EPSG:4326":
        transform, rows = Affine(1, 0, -180, 0, -1, 90), slice(30, 60)
    else:
        half = 20037508.342789244
        transform, rows = Affine(half / 180, 0, -half, 0, -half / 180, half), slice(90, 170)
    mask = np.zeros((180 if crs == "EPSG:4326" else 360, 360), np.uint8)
    mask[rows] = 1
    frame = polygonize_rows([mask], 360).to_frame(transform, crs)
    to_angles = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
    _, (north, south) = to_angles.transform(
        [0, 0], [transform.f + transform.e * row for row in (rows.start, rows.stop)]
    )
    equal_area = pyproj.Proj("+proj=cea +ellps=WGS84")
    zone = 2 * equal_area(180, 0)[0] * (equal_area(0, north)[1] - equal_area(0, south)[1])
    assert frame.area_m2[0] == pytest.approx(zone, rel=1e-7)


def test_small_polygons_keep_their_digits() -> None:
    mask = np.zeros((3000, 3000), np.uint8)
    mask[99::100, ::100] = 1
    frame = polygonize_rows([mask], 3000).to_frame(UTM, "EPSG:32631")
    alone = polygonize_rows([mask[-1:]], 3000)
    near = alone.to_frame(Affine(10, 0, UTM.c, 0, -10, UTM.f - 29990), "EPSG:32631")
    assert np.abs(frame.area_m2[-30:].to_numpy() - near.area_m2.to_numpy()).max() < 1e-6


def test_without_a_crs_units_are_those_of_the_transform() -> None:
    mask = np.array([[1, 1, 0], [1, 1, 1]], np.uint8)
    frame = polygonize_rows([mask], 3).to_frame(Affine(2, 0, 7, 0, -3, 1))
    assert frame.crs is None
    assert frame.area_m2.tolist() == [30.0]
    assert frame.perimeter_m.tolist() == [2 * 2 * 3 + 2 * 3 * 2]


def test_engineering_crs_area_is_in_its_metres() -> None:
    feet = pyproj.CRS.from_wkt(
        'LOCAL_CS["site",UNIT["foot",0.3048],AXIS["X",EAST],AXIS["Y",NORTH]]'
    )
    frame = polygonize_rows([np.ones((1, 1), np.uint8)], 1).to_frame(
        Affine(10, 0, 0, 0, -10, 0), feet
    )
    assert frame.area_m2[0] == pytest.approx(3.048**2, rel=1e-12)


def test_a_raster_that_reaches_beyond_the_earth_is_measured_by_geodesics() -> None:
    """A world map with an oval rim; the raster's eastern end lies outside."""
    sphere = "+proj=moll +R=6371007.181 +units=m"
    transform = Affine(1000, 0, 13e6, 0, -1000, 6e6)
    mask = np.zeros((300, 900), np.uint8)
    mask[290:298, :5] = 1  # equal-area projection: 40 pixels of 1 km², less a hole
    mask[293, 2] = 0
    mask[10, 890] = 1
    beyond, found = (
        polygonize_rows([mask], 900).to_frame(transform, sphere, min_area=9).itertuples()
    )
    assert np.isnan(beyond.area_m2)
    assert found.area_m2 == pytest.approx(39e6, rel=1e-4)
    inner = polygonize_rows([mask[280:, :10]], 10)
    (same,) = inner.to_frame(Affine(1000, 0, 13e6, 0, -1000, 5.72e6), sphere).itertuples()
    assert found.area_m2 == pytest.approx(same.area_m2, rel=1e-4)
    assert found.perimeter_m == pytest.approx(same.perimeter_m, rel=1e-4)

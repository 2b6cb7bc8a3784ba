"""The water area of one site over time, from Sentinel-2 (or other) scenes: a table and a plot.

    python pipelines/water_area.py scenes/*.SAFE.zip --site lake.geojson --output lake/

A scene is anything that `geounet run` takes: a product as downloaded, a STAC item's address, a
GeoTIFF. The site is a vector file of polygons; only what lies inside is read and counted. Clouds
come from the product's own mask where it has one. The output folder gets the masks and

    water_area.csv   date, scene, water_km2, most_km2 (had all that is hidden been water), seen
    water_area.png   the same as a plot; days on which less than --seen was seen are left hollow

`seen` is the share of the site that was neither hidden nor unobserved, of the most that any scene
covers.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

import geounet
from geounet.crossings import date_in_name
from geounet.pipeline import prepare, run_job

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Day:
    """What one scene shows of the site, in square kilometres."""

    date: str
    scene: str
    water: float
    land: float
    obscured: float

    @property
    def observed(self) -> float:
        """Area that was seen."""
        return self.water + self.land


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    days, failed = [], 0
    for uri in options.scenes:
        try:
            days.append(measure(uri, options))
        except geounet.GeounetError as error:
            print(f"left out: {error}", file=sys.stderr)
            failed += 1
    if not days:
        return 1
    days.sort(key=lambda day: day.date)
    site = max(day.observed + day.obscured for day in days)
    write_table(days, site, options.output / "water_area.csv")
    plot(days, site, options.seen, options.output / "water_area.png")
    print(f"{len(days)} scenes, {failed} left out: {options.output / 'water_area.csv'}")
    return 3 if failed else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Water area of a site over time.")
    parser.add_argument("scenes", nargs="+", help="scenes of the site, one a date")
    parser.add_argument("--site", type=Path, required=True, help="vector file of polygons")
    parser.add_argument("--output", type=Path, default=Path("water_area"))
    parser.add_argument("--model", default="default")
    parser.add_argument("--seen", type=float, default=0.9, help="least share for the line")
    return parser.parse_args(arguments)


def measure(uri: str, options: argparse.Namespace) -> Day:
    scene = geounet.open_scene(uri)
    config = geounet.RunConfig.of(
        output=options.output,
        model=options.model,
        geometry=options.site,
        cloud_mask="product" if scene.product.clouds else None,
        polygons=False,
        overwrite=True,
    )
    job = prepare(uri, config)
    acquired = job.tags().get("ACQUIRED") or date_in_name(scene.stem)
    if not acquired:
        raise geounet.SceneError(f"a time series needs dates; nothing in {scene.uri} says one.")
    areas = run_job(job).area_km2
    return Day(acquired[:10], scene.stem, areas["water"], areas["land"], areas["obscured"])


def write_table(days: Sequence[Day], site: float, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["date", "scene", "water_km2", "most_km2", "seen"])
        for day in days:
            seen = day.observed / site if site else 0.0
            most = day.water + site - day.observed
            rows.writerow([day.date, day.scene, f"{day.water:.6f}", f"{most:.6f}", f"{seen:.4f}"])


def plot(days: Sequence[Day], site: float, least: float, path: Path) -> None:
    """Area by date; a bar goes up to what the area would be if all that is hidden were water."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    times = [date.fromisoformat(day.date) for day in days]
    water = [day.water for day in days]
    hidden = [max(site - day.observed, 0.0) for day in days]
    axes.errorbar(times, water, [[0.0] * len(days), hidden], fmt="none", ecolor="0.8", lw=3)
    clear = [i for i, gap in enumerate(hidden) if gap <= (1 - least) * site]
    axes.plot([times[i] for i in clear], [water[i] for i in clear], "-o", color="#2166ac")
    rest = sorted(set(range(len(days))) - set(clear))
    axes.plot([times[i] for i in rest], [water[i] for i in rest], "o", color="#2166ac", mfc="none")
    axes.set_ylabel("water, km²")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.autofmt_xdate()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())

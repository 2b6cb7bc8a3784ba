"""Segment an archive as a TOML file says, and write one table of what came of each scene.

    python pipelines/segment_archive.py pipelines/segment_archive.toml

The output folder gets the scenes' outputs and

    scenes.csv        scene, status, areas by class in km², what was wrong
    collection.json   a STAC catalogue of all (stac = true)
    polygons.parquet  the polygons of all (merge = true)

The same command again does only what is left. Exit codes are those of `geounet batch`.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import geounet
from geounet.archive import Manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geounet.archive import Event

CLASSES = ("water", "land", "obscured", "not observed")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Segment an archive as a TOML file says.")
    parser.add_argument("settings", type=Path, help="options of geounet batch and geounet run")
    settings = parser.parse_args(arguments).settings
    options = tomllib.loads(settings.read_text(encoding="utf-8"))
    result = geounet.batch(options.pop("sources"), on_event=show, **options)
    write_table(result.output)
    print(f"{result.done} of {result.total} scenes done, {result.failed} failed")
    return result.exit_code


def show(event: Event) -> None:
    if event.kind in {"begun", "failed", "stopping"}:
        said = " ".join(text for text in (event.uri, event.message) if text)
        print(f"{event.kind}: {said}", file=sys.stderr)


def write_table(output: Path) -> None:
    """One row a scene, read from the manifest."""
    with (
        Manifest.read(output) as manifest,
        (output / "scenes.csv").open("w", encoding="utf-8", newline="") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(["scene", "status", *(f"{name}_km2" for name in CLASSES), "message"])
        for entry in manifest.entries():
            areas = [f"{entry.areas[name]:.6f}" if entry.areas else "" for name in CLASSES]
            rows.writerow([entry.target, entry.status, *areas, entry.message or ""])


if __name__ == "__main__":
    sys.exit(main())

"""Whole archives: many scenes on Dask workers, with a manifest that survives any crash.

sources.py → engine.py → drive.py ⇄ manifest.py
                            ⇅ cluster.py, agreement.py, stages.py
                         tasks.py, strips.py (in the workers)
    catalogue.py, merging.py (what comes of the whole)
"""

from geounet.archive.catalogue import ItemWriter, write_catalogue
from geounet.archive.engine import batch
from geounet.archive.manifest import Entry, Failure, Made, Manifest, Output
from geounet.archive.merging import merge_polygons
from geounet.archive.settings import BatchConfig, BatchResult, Event
from geounet.archive.sources import find_scenes
from geounet.archive.strips import run_on
from geounet.archive.tasks import Extra

__all__ = [
    "BatchConfig",
    "BatchResult",
    "Entry",
    "Event",
    "Extra",
    "Failure",
    "ItemWriter",
    "Made",
    "Manifest",
    "Output",
    "batch",
    "find_scenes",
    "merge_polygons",
    "run_on",
    "write_catalogue",
]

"""Whole archives: many scenes on Dask workers, with a manifest that survives any crash.

sources.py → engine.py ⇄ manifest.py
                 ⇅ cluster.py
             tasks.py (in the workers)
"""

from geounet.archive.engine import BatchConfig, BatchResult, Event, batch
from geounet.archive.manifest import Entry, Failure, Made, Manifest, Output
from geounet.archive.sources import find_scenes
from geounet.archive.tasks import Extra

__all__ = [
    "BatchConfig",
    "BatchResult",
    "Entry",
    "Event",
    "Extra",
    "Failure",
    "Made",
    "Manifest",
    "Output",
    "batch",
    "find_scenes",
]

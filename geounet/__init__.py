"""Land/water maps from satellite scenes of any size.

    >>> import geounet
    >>> result = geounet.run("scene.tif", output="out/")
    >>> result.area_km2["water"]

Names are loaded when they are first used (PEP 562): ``import geounet`` loads neither torch nor
rasterio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geounet.errors import (
    ConfigError,
    GeounetError,
    GeounetWarning,
    ModelError,
    OutputError,
    SceneError,
)

if TYPE_CHECKING:
    from geounet.archive import BatchResult, batch
    from geounet.arrays import segment
    from geounet.compare import ChangeResult, MosaicResult, change, mosaic
    from geounet.crossings import TransectResult, transects
    from geounet.model import Model, ModelSpec, load_model, save_model
    from geounet.outlines import Outlines, Shaping, polygonize, vectorize
    from geounet.pipeline import RunConfig, RunResult, predict_mask, run
    from geounet.scene import Grid, Scene, open_scene
    from geounet.vector_files import write_polygons, write_shorelines

__version__ = "0.1.0"

__all__ = [
    "BatchResult",
    "ChangeResult",
    "ConfigError",
    "GeounetError",
    "GeounetWarning",
    "Grid",
    "Model",
    "ModelError",
    "ModelSpec",
    "MosaicResult",
    "Outlines",
    "OutputError",
    "RunConfig",
    "RunResult",
    "Scene",
    "SceneError",
    "Shaping",
    "TransectResult",
    "__version__",
    "batch",
    "change",
    "load_model",
    "mosaic",
    "open_scene",
    "polygonize",
    "predict_mask",
    "run",
    "save_model",
    "segment",
    "transects",
    "vectorize",
    "write_polygons",
    "write_shorelines",
]

_HOMES = {
    "BatchResult": "archive",
    "ChangeResult": "compare",
    "Grid": "scene",
    "Model": "model",
    "ModelSpec": "model",
    "MosaicResult": "compare",
    "Outlines": "outlines",
    "RunConfig": "pipeline",
    "RunResult": "pipeline",
    "Scene": "scene",
    "Shaping": "outlines",
    "TransectResult": "crossings",
    "batch": "archive",
    "change": "compare",
    "load_model": "model",
    "mosaic": "compare",
    "open_scene": "scene",
    "polygonize": "outlines",
    "predict_mask": "pipeline",
    "run": "pipeline",
    "save_model": "model",
    "segment": "arrays",
    "transects": "crossings",
    "vectorize": "outlines",
    "write_polygons": "vector_files",
    "write_shorelines": "vector_files",
}


_ROOMS = ("evaluate", "training")
"""Modules that are to be had without an import of their own: ``geounet.training.train``."""


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"geounet.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'geounet' has no attribute {name!r}")
    return getattr(import_module(f"geounet.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

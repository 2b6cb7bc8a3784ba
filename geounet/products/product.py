"""The value types of a product: what is known of it before it is a scene."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from geounet.products.cube import Cube
    from geounet.radiometry import Evidence
    from geounet.resampling import Resampling

__all__ = ["CLOUD_NAMES", "CloudLayer", "CloudRule", "Layer", "Product"]

CloudRule: TypeAlias = Literal[
    "scl", "qa_pixel", "fmask", "udm2", "classi", "geounet", "nonzero", "polygons"
]
"""How a cloud layer's numbers are read, see `geounet.clouds`."""
CLOUD_NAMES: Mapping[str, CloudRule] = {"scl": "scl", "qa_pixel": "qa_pixel", "fmask": "fmask"}
"""What bands, variables and files of classes or bits are called in lower case."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One band of one file."""

    uri: str
    """What GDAL opens."""
    band: int
    """1-based."""
    name: str
    """As the product calls it: ``B03``, ``SR_B3``."""


@dataclass(frozen=True, slots=True)
class CloudLayer:
    """A file that says where cloud, shadow and the like hide the ground."""

    uri: str
    """What GDAL opens."""
    band: int
    """1-based; 0 of one that is no raster."""
    rule: CloudRule
    read: Callable[[], bytes] | None = field(default=None, repr=False, compare=False)
    """Gives the bytes of one that is no raster (``polygons``)."""
    cube: Cube | None = field(default=None, repr=False)
    """In place of what GDAL opens."""


@dataclass(frozen=True, slots=True)
class Product:
    """One scene as it came, with everything that its files and names say."""

    kind: str
    """``raster``, ``sentinel-2``, ``landsat``, ``hls``, ``bands``, ``cube``, …"""
    uri: str
    """What the user gave, without passwords and signatures."""
    path: str = field(repr=False)
    """The one raster that GDAL opens: a file's name, or a VRT's XML. It may hold signatures.
    Empty for a cube."""
    stem: str
    """Outputs are named after it."""
    names: tuple[str | None, ...]
    """The bands' own names in the order of `path`; None where nothing names one."""
    evidence: Evidence
    """What is known of the stored numbers."""
    layers: tuple[Layer, ...] = field(default=(), repr=False)
    """What `path` was stacked from; none for a plain raster."""
    factors: tuple[int, ...] = ()
    """How many pixels of `path` one of the band's own is, along each axis; empty for all 1."""
    resampling: Resampling = "nearest"
    """How bands of factors above 1 are read."""
    sensor: str | None = None
    """A key of `sensors.SENSORS`."""
    level: str | None = None
    """Processing level as the product calls it: ``L1C``, ``L2A``, ``L2SP``."""
    acquired: str | None = None
    """When it was taken, in ISO 8601."""
    clouds: CloudLayer | None = field(default=None, repr=False)
    """The product's own word on clouds."""
    nodata: float | None = None
    """Stored number that means "not observed"."""
    block: tuple[int, int] | None = None
    """Height and width of what is best read at once; None for the blocks of `path`."""
    cube: Cube | None = field(default=None, repr=False)
    """What is read in place of `path`, of netCDF and Zarr."""

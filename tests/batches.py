"""What tests of batches share: scenes, a cluster of real workers, what came out."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.config
import numpy as np
import rasterio
from distributed import LocalCluster

import geounet
from geounet.archive import Manifest
from geounet.archive.cluster import _SETTINGS
from geounet.archive.manifest import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geounet.archive import Entry


@contextmanager
def two_workers(*, settings: dict[str, Any] = _SETTINGS, **options: Any) -> Iterator[str]:
    """The TCP address of a cluster of two worker processes, by default with a batch's settings."""
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", **options}
    with dask.config.set(settings), LocalCluster(silence_logs=50, **options) as cluster:
        assert cluster.scheduler_address.startswith("tcp://")
        yield cluster.scheduler_address


def make_scene(path: Path, *, seed: int, height: int, width: int) -> None:
    """Write a scene of green, red and nir in blobs."""
    random = np.random.default_rng(seed)
    blobs = random.integers(300, 2500, (3, height // 9 + 1, width // 9 + 1))
    data = np.kron(blobs, np.ones((9, 9)))[:, :height, :width].astype(np.uint16)
    shape = {"count": 3, "height": height, "width": width, "dtype": "uint16"}
    transform = rasterio.Affine(10, 0, 500_000 + seed, 0, -10, 4_400_000)
    with rasterio.open(path, "w", "GTiff", crs="EPSG:32629", transform=transform, **shape) as file:
        file.write(data)
        file.scales, file.offsets = (1e-4,) * 3, (0.0,) * 3
        for i, name in enumerate(("green", "red", "nir"), start=1):
            file.set_band_description(i, name)


def tree(folder: Path) -> dict[str, str]:
    """Digests of all files of a folder but the manifest's."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(MANIFEST.split(".")[0])
    }


def serial(inputs: Path, folder: Path, model: Path, **options: Any) -> dict[str, str]:
    """What a plain loop over `run` makes."""
    for path in sorted(inputs.glob("*.tif")):
        geounet.run(path, output=folder, model=str(model), device="cpu", overwrite=True, **options)
    return tree(folder)


def entries(folder: Path) -> dict[str, Entry]:
    """The manifest's rows by the scenes' names."""
    with Manifest.read(folder) as manifest:
        return {Path(entry.uri).stem: entry for entry in manifest.entries()}

"""How a batch is done, what happens in it, and what became of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path  # noqa: TC003 - of a dataclass that others look at
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from geounet.archive.manifest import StageName  # noqa: TC001 - as above
from geounet.archive.tasks import Extra  # noqa: TC001 - pydantic looks it up

__all__ = ["BatchConfig", "BatchResult", "Event"]


class BatchConfig(BaseModel):
    """How a batch is done; what is done with each scene says `RunConfig`."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: str = "{stem}"
    """Path of a scene's outputs in the output folder, of ``{stem}``, ``{parent}``, ``{date}``."""
    scheduler: Any = None
    """Address or file of an existing cluster's scheduler, or a `distributed.Client`."""
    workers: int | None = Field(default=None, ge=1)
    """Processes on this machine; None chooses by its cores, memory and GPUs."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of the network in each; None shares out the cores."""
    retries: int = Field(default=3, ge=0)
    """Further attempts at a scene that is not at fault itself."""
    rest: float = Field(default=1.0, ge=0)
    """Seconds before the second attempt; each further one waits twice as long."""
    max_failures: int | None = Field(default=None, ge=0)
    """Failed scenes that are borne; one more stops the batch."""
    retry_failed: bool = False
    """Also do scenes that failed by a fault of their own."""
    large: int | None = Field(default=500_000_000, ge=1)
    """Pixels above which all workers do a scene together, in strips; None for never."""
    extras: tuple[Extra, ...] = ()
    """What else is made of each scene, in the worker."""
    stac: bool = False
    """Write a STAC item for each scene, a collection of all, and the model."""
    merge: bool = False
    """Write all polygons into one GeoParquet file, too."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. Counts are of the scenes of this batch."""

    kind: Literal["begun", "stage", "done", "failed", "again", "waiting", "stopping", "ended"]
    total: int
    done: int
    """Those of earlier batches with the same input, model and parameters included."""
    failed: int
    running: int
    """In the cluster."""
    seconds: float
    """Since the batch began."""
    uri: str | None = None
    message: str | None = None
    spent: float | None = None
    """Seconds that a scene took."""
    worker: str | None = None
    stage: StageName | None = None
    """What a worker does with the scene from now on."""
    share: float | None = None
    """Of its windows that are predicted."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class BatchResult:
    """What became of a batch."""

    output: Path
    manifest: Path
    total: int
    done: int
    """Scenes whose outputs are there, those of earlier batches included."""
    unchanged: int
    """Of them, those of earlier batches."""
    failed: int
    left: int
    """Scenes that were not tried, or not to the end."""
    area_km2: dict[str, float]
    """True area of each class in all scenes that are done, in square kilometres."""
    seconds: float
    stopped: str | None
    """Why it ended early; None if it did not."""

    @property
    def exit_code(self) -> int:
        """0 all done, 3 some failed or are left, 1 none done."""
        if self.done == self.total:
            return 0
        return 3 if self.done else 1

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "output": str(self.output), "manifest": str(self.manifest)}

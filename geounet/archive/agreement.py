"""One engine for all workers: what comes out may not depend on which of them a scene meets."""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geounet.engines import EngineName, choose_engine
from geounet.errors import ConfigError, GeounetWarning
from geounet.model import Model, shipped_models

if TYPE_CHECKING:
    from collections.abc import Mapping

    from geounet.archive.cluster import Team
    from geounet.engines import EngineChoice
    from geounet.spec import ModelSpec

__all__ = ["Asked", "agree", "common"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What each worker is asked: which engine it would take."""

    source: str
    """Name or path of the model."""
    spec: ModelSpec
    digest: str
    engine: EngineChoice
    device: str


def common(offers: Mapping[str, EngineName]) -> EngineName:
    """The engine that all workers have; PyTorch is always there.

    Args:
        offers: what each worker would take by itself, by its address.

    Warns:
        GeounetWarning: they would take different ones.
    """
    by_engine: defaultdict[EngineName, list[str]] = defaultdict(list)
    for worker, engine in sorted(offers.items()):
        by_engine[engine].append(worker)
    if len(by_engine) == 1:
        return next(iter(by_engine))
    taken: EngineName = "torch" if "torch" in by_engine else "openvino"
    told = "; ".join(f"{name} on {', '.join(found[:3])}" for name, found in by_engine.items())
    warnings.warn(
        f"all workers must run one engine, or masks would depend on which worker made them; they "
        f"would take {told}. All take {taken}.",
        GeounetWarning,
        stacklevel=3,
    )
    return taken


def agree(team: Team, asked: Asked) -> EngineChoice:
    """The engine for all workers of a team, those that come later too.

    Args:
        team: the workers.
        asked: for what. An engine that was told is kept.

    Returns:
        The engine; what was asked where no worker has the model, which its scenes will say.

    Raises:
        ConfigError: a worker lacks the engine that was told.

    Warns:
        GeounetWarning: ``auto`` would be another engine on some workers than on others.
    """
    answers = team.client.run(_offer, asked, workers=team.members(), on_error="ignore")
    lacking = {worker: said for worker, (engine, said) in answers.items() if said}
    if lacking:
        worker, said = next(iter(lacking.items()))
        raise ConfigError(f"all workers must run one engine; {worker} cannot: {said}")
    offers = {worker: engine for worker, (engine, _) in answers.items() if engine}
    return common(offers) if offers else asked.engine


def _offer(asked: Asked) -> tuple[EngineName | None, str]:
    """In a worker: the engine that it would take, or why it has none."""
    path = shipped_models().get(asked.source, Path(asked.source))
    if not path.is_file():
        return None, ""
    try:
        return choose_engine(Model(asked.spec, path, asked.digest), asked.device, asked.engine), ""
    except ConfigError as error:
        return None, str(error)

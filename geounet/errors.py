"""What geounet raises, and nothing else.

    GeounetError
    ├── SceneError   (ValueError)   the input cannot be read as a scene, or does not fit the model
    ├── ModelError   (ValueError)   the model file is not one, or the network cannot be built
    ├── OutputError  (OSError)      an output cannot be written, or exists and may not be replaced
    └── ConfigError  (ValueError)   a parameter breaks a rule

Each message gives the rule, the value received, and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel, ValidationError


class GeounetError(Exception):
    """Parent of every error that geounet raises on purpose."""


class SceneError(GeounetError, ValueError):
    """The input cannot be read as a scene, or lacks what the model needs."""

    passing: bool = False
    """True where a server failed, so that the same may succeed later."""


class ModelError(GeounetError, ValueError):
    """The model file is not one, is damaged, or describes a network that cannot be built."""


class OutputError(GeounetError, OSError):
    """An output cannot be written, or exists and may not be replaced."""


class ConfigError(GeounetError, ValueError):
    """A parameter breaks a rule; nothing was read or written."""


class GeounetWarning(UserWarning):
    """Something that the result depends on had to be assumed."""


def broken_rule(
    error: ValidationError, schema: type[BaseModel], others: Iterable[str] = ()
) -> ConfigError:
    """The first of the rules that options break, with the option's name and value.

    Args:
        error: what pydantic says.
        schema: whose options they are.
        others: names of options that may stand beside them.
    """
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    name, got = ".".join(place), f"got {first['input']!r}"
    if first["type"] == "extra_forbidden":
        return ConfigError(f"there is no option {name!r}{_nearest(place, schema, others)}")
    if first["type"] == "missing":
        short = isinstance(first["loc"][-1], int)
        return ConfigError(
            f"{place[0]} has too few values; {got}." if short else f"{name} must be given."
        )
    text = first["msg"].removeprefix("Value error, ")
    if text.startswith("Input "):
        return ConfigError(f"{name} {text.removeprefix('Input ')}; {got}.")
    return ConfigError(f"{name}: {text}; {got}." if name else f"{text}.")


def _nearest(place: list[str], schema: Any, others: Iterable[str]) -> str:
    import difflib  # noqa: PLC0415 - keeps `import geounet` fast

    for part in place[:-1]:
        schema = schema.model_fields[part].annotation
    near = difflib.get_close_matches(place[-1], [*schema.model_fields, *others], 1)
    return f"; did you mean {near[0]!r}?" if near else "."

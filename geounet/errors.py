"""What geounet raises, and nothing else.

    GeounetError
    ├── SceneError   (ValueError)   the input cannot be read as a scene, or does not fit the model
    ├── ModelError   (ValueError)   the model file is not one, or the network cannot be built
    ├── OutputError  (OSError)      an output cannot be written, or exists and may not be replaced
    └── ConfigError  (ValueError)   a parameter breaks a rule

Each message gives the rule, the value received, and what to do.
"""


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

"""The command line: a thin layer over the Python API.

The only place with progress bars, printing and exit codes: 0 done, 1 failed, 2 wrong use, 3 a batch
that did some of its scenes.
Heavy modules are imported inside the commands, so that ``--help`` answers at once.
"""

from geounet.cli.application import app, main

# Importing a module adds its commands; the help lists them in this order.
from geounet.cli import scenes, batch, masks, learning  # isort: skip

__all__ = ["app", "batch", "learning", "main", "masks", "scenes"]

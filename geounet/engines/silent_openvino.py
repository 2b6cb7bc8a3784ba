"""OpenVINO without its telemetry; import it from here.

By itself it reports each import and each conversion to its makers unless the user has opted out: it
forks the process, however large and however many threads it has, writes to the home folder and
calls a server. Where the package that does so cannot be imported, OpenVINO has a stub for it.
"""

from __future__ import annotations

import sys

_TELEMETRY = "openvino_telemetry"

if {_TELEMETRY, "openvino"} & sys.modules.keys():  # the user's own import came first
    import openvino as ov
else:
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment] # an import of it now fails
    try:
        import openvino as ov
    finally:
        del sys.modules[_TELEMETRY]

ops = ov.opset13

__all__ = ["ops", "ov"]

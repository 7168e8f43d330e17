"""OpenTelemetry for ezmsg graphs: the only code of this distribution that imports ``opentelemetry``.

Importing this package lets spans and log records of the program join the traces of the messages it handles.
"""

from __future__ import annotations

import sys

from ezmsg.core.telemetry import pump
from ezmsg.otel.propagation import extract, inject, install

__all__ = ["extract", "flush", "inject"]

install()


def flush(timeout_s: float = 1.0) -> bool:
    """Let what was recorded so far leave this process: before the program shuts down its OpenTelemetry providers.

    With `EZMSG_OTEL=global` it goes to those providers, else only to the GraphServer, whose agent exports it. May be
    called from any thread, and blocks.

    Returns:
        Whether that was done in time, or there was nothing to do.
    """
    inprocess = sys.modules.get("ezmsg.otel.inprocess")
    return pump.flush(timeout_s) if inprocess is None else inprocess.flush(timeout_s)

"""The door for `ezmsg.otel` into the processes of a graph, opened by `EZMSG_OTEL`.

`ezmsg.otel` is named here, not imported: nothing of OpenTelemetry is loaded where it is not asked for.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from typing import Final

from ezmsg.core import config
from ezmsg.core.telemetry.link import Listener
from ezmsg.core.wire.records import GraphState, ServerTelemetry

GraphListener = Callable[[GraphState | ServerTelemetry | None], None]
"""Hears what one GraphServer knows, and None when that ends."""

PACKAGE: Final = "ezmsg.otel"
IN_PROCESS: Final = "ezmsg.otel.inprocess"
OTEL_API: Final = "opentelemetry.trace"

logger = logging.getLogger("ezmsg")


def load() -> Listener | None:
    """Let `ezmsg.otel` into this process as far as it is asked for.

    `global`: it feeds the providers of this process, and hears what the links tell. Where an agent exports and the
    program uses the API of OpenTelemetry, it is imported, so that spans of the program join those of messages.

    Returns:
        Who hears what the links tell, if anybody does.
    """
    try:
        if config.otel_mode() == "global":
            return importlib.import_module(IN_PROCESS).start()
        if config.agent_exports() and OTEL_API in sys.modules:
            importlib.import_module(PACKAGE)
    except Exception:  # telemetry must not end with what is optional about it
        logger.exception("telemetry goes on without OpenTelemetry in this process")
    return None


def load_graph_listener() -> GraphListener | None:
    """Who hears in its process what a GraphServer knows of its graph: in `global` mode, what feeds the providers."""
    try:
        if config.otel_mode() == "global":
            return importlib.import_module(IN_PROCESS).start_graph()
    except Exception:  # as above
        logger.exception("the graph goes on without OpenTelemetry in the process of its server")
    return None

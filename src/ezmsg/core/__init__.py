"""Publishers, subscribers and channels over local, shared-memory and TCP transports, held together by a GraphServer.

`import ezmsg.core as ez` gives the names below; their homes are the modules they come from.
"""

import logging
import os

from ezmsg.core import dag as dag
from ezmsg.core import graphserver as graphserver
from ezmsg.core import sync as sync
from ezmsg.core._version import __version__
from ezmsg.core.command import run_command
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphserver import GraphServer, GraphService
from ezmsg.core.processclient import ProcessControlClient
from ezmsg.core.pubclient import Publisher
from ezmsg.core.subclient import Subscriber
from ezmsg.core.sync import SyncContext, SyncPublisher, SyncSubscriber
from ezmsg.core.telemetry.pump import install as install_telemetry

__all__ = [
    "GraphContext",
    "GraphServer",
    "GraphService",
    "ProcessControlClient",
    "Publisher",
    "Subscriber",
    "SyncContext",
    "SyncPublisher",
    "SyncSubscriber",
    "__version__",
    "run_command",
    "sync",
]

LOGLEVEL = os.environ.get("EZMSG_LOGLEVEL", "INFO").upper()

logger = logging.getLogger("ezmsg")
formatter = logging.Formatter(
    "%(asctime)s - pid: %(process)d - %(threadName)s - %(levelname)s - %(funcName)s: %(message)s"
)
handler = logging.StreamHandler()
handler.setFormatter(formatter)
logger.addHandler(handler)
try:
    logger.setLevel(LOGLEVEL)
except ValueError:
    logger.setLevel(logging.INFO)
    logger.warning("EZMSG_LOGLEVEL=%r is no level of the logging module; using INFO", LOGLEVEL)

install_telemetry()

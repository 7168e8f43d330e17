"""Publishers, subscribers and channels over local, shared-memory and TCP transports, held together by a GraphServer.

`import ezmsg.core as ez` gives the names below; their homes are the modules they come from.
"""

import logging
import os

from ezmsg.core import dag as dag
from ezmsg.core import graphserver as graphserver
from ezmsg.core import settings as settings
from ezmsg.core import stream as stream
from ezmsg.core import sync as sync
from ezmsg.core import unit as unit
from ezmsg.core._version import __version__
from ezmsg.core.addressable import Addressable as Addressable
from ezmsg.core.backend import GraphRunner, GraphRunnerStartError, run, run_system
from ezmsg.core.backendprocess import Complete, NormalTermination
from ezmsg.core.collection import Collection, NetworkDefinition, System
from ezmsg.core.command import run_command
from ezmsg.core.component import Component
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphserver import GraphServer, GraphService
from ezmsg.core.message import Flag, Message
from ezmsg.core.processclient import ProcessControlClient
from ezmsg.core.pubclient import Publisher
from ezmsg.core.settings import Settings
from ezmsg.core.state import State
from ezmsg.core.stream import InputRelay, InputStream, InputTopic, OutputRelay, OutputStream, OutputTopic, Topic
from ezmsg.core.subclient import Subscriber, profile
from ezmsg.core.sync import SyncContext, SyncPublisher, SyncSubscriber
from ezmsg.core.telemetry.pump import install as install_telemetry
from ezmsg.core.unit import Unit, main, process, publisher, subscriber, task, thread, timeit
from ezmsg.core.util import LogHandler

__all__ = [
    "Collection",
    "Complete",
    "Component",
    "Flag",
    "GraphContext",
    "GraphRunner",
    "GraphRunnerStartError",
    "GraphServer",
    "GraphService",
    "InputRelay",
    "InputStream",
    "InputTopic",
    "Message",
    "NetworkDefinition",
    "NormalTermination",
    "OutputRelay",
    "OutputStream",
    "OutputTopic",
    "ProcessControlClient",
    "Publisher",
    "Settings",
    "State",
    "Subscriber",
    "SyncContext",
    "SyncPublisher",
    "SyncSubscriber",
    "System",
    "Topic",
    "Unit",
    "__version__",
    "main",
    "process",
    "profile",
    "publisher",
    "run",
    "run_command",
    "run_system",
    "subscriber",
    "sync",
    "task",
    "thread",
    "timeit",
]

LOGLEVEL = os.environ.get("EZMSG_LOGLEVEL", "INFO").upper()

logger = logging.getLogger("ezmsg")
formatter = logging.Formatter(
    "%(asctime)s - pid: %(process)d - %(threadName)s - %(levelname)s - %(funcName)s: %(message)s"
)
handler = LogHandler()
handler.setFormatter(formatter)
logger.addHandler(handler)
try:
    logger.setLevel(LOGLEVEL)
except ValueError:
    logger.setLevel(logging.INFO)
    logger.warning("EZMSG_LOGLEVEL=%r is no level of the logging module; using INFO", LOGLEVEL)

install_telemetry()

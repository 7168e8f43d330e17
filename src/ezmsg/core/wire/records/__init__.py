"""The records of the control protocol and of the telemetry link, by noun, and the table of them all.

A record is a msgspec struct in msgpack. Its opcode is explicit and never reused. Bytes that belong to the user
(payloads of process requests) and columns of rows are opaque here. All of it is imported from here.
"""

from ezmsg.core.wire.records import (
    answers,
    channels,
    events,
    fields,
    graph,
    memory,
    processes,
    profiling,
    roles,
    settings,
    table,
    telemetry,
)
from ezmsg.core.wire.records.answers import *
from ezmsg.core.wire.records.channels import *
from ezmsg.core.wire.records.events import *
from ezmsg.core.wire.records.fields import *
from ezmsg.core.wire.records.graph import *
from ezmsg.core.wire.records.memory import *
from ezmsg.core.wire.records.processes import *
from ezmsg.core.wire.records.profiling import *
from ezmsg.core.wire.records.roles import *
from ezmsg.core.wire.records.settings import *
from ezmsg.core.wire.records.table import *
from ezmsg.core.wire.records.telemetry import *

__all__: list[str] = []
__all__ += fields.__all__
__all__ += answers.__all__
__all__ += roles.__all__
__all__ += graph.__all__
__all__ += settings.__all__
__all__ += events.__all__
__all__ += processes.__all__
__all__ += memory.__all__
__all__ += telemetry.__all__
__all__ += profiling.__all__
__all__ += channels.__all__
__all__ += table.__all__

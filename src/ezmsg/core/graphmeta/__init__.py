"""The records of the control plane: what a graph, a process, its settings and its timings look like from outside.

Plain mutable dataclasses, compared by value, picklable. They know nothing of the wire. Users import all of it from
here.
"""

from typing import Any as Any
from uuid import UUID as UUID

from ezmsg.core.graphmeta import components, processes, profiling, settings, topology, traces
from ezmsg.core.graphmeta.components import *
from ezmsg.core.graphmeta.processes import *
from ezmsg.core.graphmeta.profiling import *
from ezmsg.core.graphmeta.settings import *
from ezmsg.core.graphmeta.topology import *
from ezmsg.core.graphmeta.traces import *

__all__: list[str] = []
__all__ += components.__all__
__all__ += settings.__all__
__all__ += topology.__all__
__all__ += processes.__all__
__all__ += profiling.__all__
__all__ += traces.__all__

# Pickles name a class by its module, and peers know all of them by this one. That is also where the names in their
# annotations are looked up, hence `Any` and `UUID`.
for _name in __all__:
    if isinstance(_it := globals()[_name], type):
        _it.__module__ = __name__

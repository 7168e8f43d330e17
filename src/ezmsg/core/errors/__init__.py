"""Every error this runtime raises on purpose, in one tree.

Each class carries its facts as fields, and also inherits the builtin that callers already catch for that kind of
failure. `code` names the class on the wire: a server refuses with a code, and the client raises the same class.
"""

from ezmsg.core.errors import commands, components, connections, memory, messages, requests, root, runs, settings, tls
from ezmsg.core.errors.commands import *
from ezmsg.core.errors.components import *
from ezmsg.core.errors.connections import *
from ezmsg.core.errors.memory import *
from ezmsg.core.errors.messages import *
from ezmsg.core.errors.requests import *
from ezmsg.core.errors.root import *
from ezmsg.core.errors.root import _restored  # pyright: ignore[reportPrivateUsage] - pickles name it
from ezmsg.core.errors.runs import *
from ezmsg.core.errors.settings import *
from ezmsg.core.errors.tls import *

__all__: list[str] = []
__all__ += root.__all__
__all__ += connections.__all__
__all__ += tls.__all__
__all__ += requests.__all__
__all__ += components.__all__
__all__ += settings.__all__
__all__ += messages.__all__
__all__ += memory.__all__
__all__ += runs.__all__
__all__ += commands.__all__

# In which room of this package a class stands is nobody's business: tracebacks and pickles say `ezmsg.core.errors`.
for _name in __all__:
    globals()[_name].__module__ = __name__
_restored.__module__ = __name__

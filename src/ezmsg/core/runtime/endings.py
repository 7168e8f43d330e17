"""How user code ends a part of a run, or all of it."""

from __future__ import annotations


class Complete(Exception):
    """Raised by a task, a subscriber, a `main` or a `thread` function: it is done, everything else goes on."""


class NormalTermination(Exception):
    """Raised by any of them: the run is done; all tasks of all processes are cancelled, and the units shut down."""

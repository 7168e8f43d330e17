"""What the coordinator of a run and the processes that take part in it tell each other. Pickled between processes."""

from __future__ import annotations

import pickle
import traceback
from dataclasses import dataclass
from typing import Self

from ezmsg.core.errors import BackendProcessFailed

# -- told to a process ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """The GraphServer is there: set the units up. `address` is `host:port`."""

    address: str


@dataclass(frozen=True, slots=True)
class Start:
    """All processes are ready: publishers may publish, tasks begin."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Cancel whatever goes on; after an interrupt that includes a `main` function, at once."""

    is_interrupt: bool


@dataclass(frozen=True, slots=True)
class Close:
    """All processes are finished: shut the units down."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Close what the units used.

    Attributes:
        is_last: Nobody else is in the graph, which ends now: nothing need be told to it any more.
    """

    is_last: bool


Command = Begin | Start | Stop | Close | Leave

# -- reported by a process --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Up:
    """The process hears commands."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Units are set up, endpoints are open, the units are registered."""


@dataclass(frozen=True, slots=True)
class Terminate:
    """A unit asked for the end of the run, or somebody for the end of its process."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """This cannot go on, and neither can the run."""

    error: BaseException | Failure


@dataclass(slots=True)
class Tally:
    """How a process ended.

    Attributes:
        task_errors: Exceptions of tasks that were logged.
        cancelled: Tasks that were cancelled.
        pending: Tasks and functions that did not end when they were told to.
        workers: Blocking calls that still ran.
        suppressed: Errors nobody waited for, while the process ended.
    """

    task_errors: int = 0
    cancelled: int = 0
    pending: int = 0
    workers: int = 0
    suppressed: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing went wrong; merely cancelled tasks are fine."""
        return not (self.task_errors or self.pending or self.workers or self.suppressed)


@dataclass(frozen=True, slots=True)
class Finished:
    """No task runs any more."""

    tally: Tally


@dataclass(frozen=True, slots=True)
class ShutDown:
    """The units are shut down.

    Attributes:
        connections: To the GraphServer that are still open, that of telemetry aside.
        is_linking: That of telemetry is not there yet, and may be on its way.
    """

    connections: int
    is_linking: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing of the units is left."""

    tally: Tally


@dataclass(frozen=True, slots=True)
class Left:
    """It has no word left for anybody, telemetry included: only the process itself has to end."""


Event = Up | Ready | Terminate | Failed | Finished | ShutDown | Ended | Left


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception on its way to another process."""

    type_name: str
    text: str
    pickled: bytes | None

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """How `error`, which was raised in this process, travels."""
        text = "".join(traceback.format_exception(error)).rstrip()
        try:
            pickled = pickle.dumps(error)
        except Exception:  # it holds something of a user that cannot travel
            pickled = None
        return cls(type(error).__qualname__, text, pickled)

    def error(self, process: str) -> BaseException:
        """The exception as it was raised, or one that tells about it where its class is not known here."""
        found: object = None
        if self.pickled is not None:
            try:
                found = pickle.loads(self.pickled)  # from a process this one started
            except Exception:  # whatever the constructor of a user's class raises
                found = None
        error = found if isinstance(found, BaseException) else BackendProcessFailed(process, self.type_name)
        error.add_note(f"raised in {process}:\n{self.text}")
        return error

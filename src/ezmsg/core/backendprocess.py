"""The processes of a run, and how units end it."""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
from collections.abc import Sequence
from typing import Self

from ezmsg.core.errors import SeveralMains
from ezmsg.core.runtime.backendhost import Report, run_backend
from ezmsg.core.runtime.endings import Complete, NormalTermination
from ezmsg.core.runtime.loopthread import LoopThread
from ezmsg.core.runtime.mainthread import MainThread
from ezmsg.core.runtime.participant import Participant
from ezmsg.core.unit import Unit, main_of

__all__ = ["BackendProcess", "Complete", "DefaultBackendProcess", "NormalTermination"]


class BackendProcess(multiprocessing.Process):
    """A process with some of the units of a run; the first of a run is the calling process, and is never started.

    Subclasses say what happens with the units.

    Args:
        units: What runs in it.
        name: What it is called, in telemetry, too.
        strict: Whether to suppress nothing and leave nobody behind at the end.

    Raises:
        SeveralMains: More than one of the units has a `main` function.
    """

    def __init__(self, units: Sequence[Unit], name: str = "ezmsg", strict: bool = False) -> None:
        super().__init__(name=name)
        self.units = list(units)
        self.strict = strict
        self._line: socket.socket | None = None
        mains = [unit.address for unit in self.units if main_of(unit) is not None]
        if len(mains) > 1:
            raise SeveralMains(mains)

    def participant(self, report: Report, host: LoopThread, main_thread: MainThread) -> Participant:
        """What takes part in the run; made in the process itself.

        Args:
            report: Takes what the coordinator has to know.
            host: The thread of the units' event loop.
            main_thread: The main thread of the process.
        """
        raise NotImplementedError

    def begin(self, line: socket.socket) -> Self:
        """Start the process; `line` is its end of the line to the coordinator."""
        self._line = line
        try:
            self.start()
        finally:
            self._line = None
        return self

    def release(self) -> None:
        """Close the descriptors that are kept of a process, if it has ended; it still tells how."""
        with contextlib.suppress(ValueError):  # whoever started it has closed it
            if self.ident is not None and self.exitcode is not None:
                # `close` would take the exit code away, too.
                self._popen.close()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType] - multiprocessing

    def run(self) -> None:
        """The process."""
        assert self._line is not None
        run_backend(self._line, self.participant, self.name, self.strict)


class DefaultBackendProcess(BackendProcess):
    """Sets its units up, runs their tasks until they are finished, and shuts them down."""

    def participant(self, report: Report, host: LoopThread, main_thread: MainThread) -> Participant:
        """What takes part in the run."""
        return Participant(self.units, report, host, main_thread, self.strict)

"""The processes that take part in a run, as its coordinator sees them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from enum import IntEnum
from multiprocessing.process import BaseProcess

from ezmsg.core.runtime.link import CoordinatorEnd
from ezmsg.core.runtime.loopthread import LoopThread
from ezmsg.core.runtime.messages import Command, Ended, Event, Failed, Tally
from ezmsg.core.runtime.participant import Participant

logger = logging.getLogger("ezmsg")

# For what a process said last, once it has ended.
LAST_WORDS_S = 0.2


class State(IntEnum):
    """How far a process is."""

    LAUNCHED = 0
    UP = 1
    READY = 2
    FINISHED = 3
    SHUT_DOWN = 4
    ENDED = 5
    LEFT = 6
    GONE = 7


class Member:
    """One process of a run.

    Attributes:
        label: What it is called in errors and in the log.
        state: How far it is.
        tally: How it ended, as far as it has.
        connections: To the GraphServer, when its units are shut down.
        is_linking: Whether that of telemetry may be on its way then.
        is_given_up: Whether it did not react when it should have.
    """

    label: str

    def __init__(self) -> None:
        self.state = State.LAUNCHED
        self.tally = Tally()
        self.connections = 0
        self.is_linking = False
        self.is_given_up = False

    def attach(self, on_event: Callable[[Event], object], on_exit: Callable[[int | None], object]) -> None:
        """Hear it, in the running loop, from now on."""
        raise NotImplementedError

    def tell(self, command: Command) -> None:
        """Tell it something."""
        raise NotImplementedError

    def give_up(self) -> None:
        """It does not react: do not wait for it any longer."""
        self.is_given_up = True
        self.tally.pending += 1

    async def detach(self) -> None:
        """Hear it no more."""


class LocalMember(Member):
    """The part of a run in the calling process.

    Args:
        host: The thread of its event loop.
        make: Makes the participant, given what it reports with.
        units: Addresses.
    """

    def __init__(
        self, host: LoopThread, make: Callable[[Callable[[Event], object]], Participant], units: Sequence[str]
    ) -> None:
        super().__init__()
        self.label = f"the calling process, with units {', '.join(units)}"
        self.state = State.UP
        self._host, self._make = host, make
        self._participant: Participant | None = None

    def attach(self, on_event: Callable[[Event], object], on_exit: Callable[[int | None], object]) -> None:
        """Hear it, in the running loop, from now on."""
        loop = asyncio.get_running_loop()

        def report(event: Event) -> None:
            with contextlib.suppress(RuntimeError):  # nobody waits for it any more
                loop.call_soon_threadsafe(on_event, event)

        def ended(taking_part: Future[None]) -> None:
            _tell_of_loss(taking_part, report)
            self._host.end()  # while other things end, too

        self._participant = self._make(report)
        self._host.submit(self._participant.take_part()).add_done_callback(ended)

    def tell(self, command: Command) -> None:
        """Tell it something."""
        if self._participant is not None:
            self._host.call(self._participant.obey, command)

    def give_up(self) -> None:
        """Leave its thread behind."""
        super().give_up()
        self.state = State.GONE
        logger.error("%s does not react and is left behind", self.label)


def _tell_of_loss(taking_part: Future[None], report: Callable[[Event], object]) -> None:
    """A participant reports its own end, unless its event loop ended before."""
    if not taking_part.cancelled() and (error := taking_part.exception()) is not None:
        report(Failed(error))
        report(Ended(Tally(pending=1)))


class BackendMember(Member):
    """A backend process.

    Args:
        process: The process, started.
        line: Our end of the line to it.
        label: What it is called.
    """

    def __init__(self, process: BaseProcess, line: CoordinatorEnd, label: str) -> None:
        super().__init__()
        self.process, self.label = process, label
        self._line = line
        self._listening: asyncio.Task[None] | None = None
        self._watch: ExitWatch | None = None

    def attach(self, on_event: Callable[[Event], object], on_exit: Callable[[int | None], object]) -> None:
        """Hear it, in the running loop, from now on."""
        self._listening = asyncio.create_task(self._line.listen(on_event), name=f"line to {self.label}")
        self._watch = ExitWatch(self.process, lambda: self._has_exited(on_exit))

    def _has_exited(self, on_exit: Callable[[int | None], object]) -> None:
        self.process.join()
        if self.state >= State.LEFT:
            on_exit(self.process.exitcode)
        else:
            self._ending = asyncio.create_task(self._hear_last_words(on_exit))

    async def _hear_last_words(self, on_exit: Callable[[int | None], object]) -> None:
        # The end of the line may not come: a process that it forked may have it, too.
        if self._listening is not None:
            await asyncio.wait([self._listening], timeout=LAST_WORDS_S)
        on_exit(self.process.exitcode)

    def tell(self, command: Command) -> None:
        """Tell it something."""
        self._line.tell(command)

    def give_up(self) -> None:
        """Kill it."""
        super().give_up()
        logger.error("%s does not react and is killed", self.label)
        self.kill()

    def withdraw(self) -> None:
        """Kill it before anything of the run has begun in it: it may be an interpreter that is still starting."""
        self.is_given_up = True
        self.kill()

    def kill(self) -> None:
        """End it at once; from any thread."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def detach(self) -> None:
        """Hear it no more."""
        if self._watch is not None:
            self._watch.close()
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
        self.close()

    def close(self) -> None:
        """Let go of the line, where nobody hears it."""
        self._line.close()


class ExitWatch:
    """Calls `on_exit`, in the running loop, when a process has ended, even where it left children behind."""

    def __init__(self, process: BaseProcess, on_exit: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_exit = on_exit
        self._descriptor = -1
        assert process.pid is not None
        try:
            # The sentinel of multiprocessing is a pipe, which children of the process keep open.
            self._descriptor = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else os.dup(process.sentinel)
        except ProcessLookupError:
            self._loop.call_soon(on_exit)
            return
        self._loop.add_reader(self._descriptor, self._ended)

    def _ended(self) -> None:
        self.close()
        self._on_exit()

    def close(self) -> None:
        """Watch no more."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

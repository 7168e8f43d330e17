"""Takes the processes of a run through its phases, and ends it, whatever happens to one of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ezmsg.core.errors import BackendProcessLost, FrameTooLarge, SettingsTooLarge
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import GraphMetadata
from ezmsg.core.graphserver import GraphService
from ezmsg.core.runtime.members import BackendMember, Member, State
from ezmsg.core.runtime.messages import (
    Begin,
    Close,
    Command,
    Ended,
    Event,
    Failed,
    Failure,
    Finished,
    Leave,
    Left,
    Ready,
    ShutDown,
    Start,
    Stop,
    Tally,
    Terminate,
    Up,
)
from ezmsg.core.runtime.metadata import without_large_settings
from ezmsg.core.runtime.network import Pair
from ezmsg.core.runtime.together import in_turns, together

logger = logging.getLogger("ezmsg")

# A process that was told to stop cancels its tasks and waits for them a second.
REACT_S = 2.0
# For the shutdown of units, before more is logged, or (when the run was interrupted) before they are left behind.
CLOSE_S = 5.0
# For a process that has said that nothing is left of it.
EXIT_S = 3.0


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        error: What ended it; None if it ended in order.
        is_of_process: Whether a process reported the error.
        tally: What its processes counted, together.
        signal: The last signal that interrupted it; None without.
        is_forced: It was interrupted again before it had ended.
    """

    error: BaseException | None
    is_of_process: bool
    tally: Tally
    signal: int | None = None
    is_forced: bool = False


class Coordinator:
    """One run, from processes that were launched to processes that have ended. Used on one event loop.

    Args:
        members: Its processes.
        context: The session in which its edges and metadata live; not entered yet.
        connections: Its edges.
        metadata: What it tells the graph about itself; asked for once.
        on_running: Called when server, session and processes are all up.
        on_started: Called when its tasks begin.
        strict: Wait for everybody, however long that takes.
    """

    def __init__(
        self,
        members: Sequence[Member],
        context: GraphContext,
        connections: Iterable[Pair],
        metadata: Callable[[], GraphMetadata],
        on_running: Callable[[], object],
        on_started: Callable[[], object],
        strict: bool,
    ) -> None:
        self._strict = strict
        self._members, self._context, self._connections, self._metadata = members, context, connections, metadata
        self._on_running, self._on_started = on_running, on_started
        self._error: BaseException | None = None
        self._is_of_process = False
        self._signal: int | None = None
        self._is_interrupted = self._is_winding_up = False
        self._stopped, self._forced, self._changed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    # -- what ends it -------------------------------------------------------------------------------------------------

    def interrupt(self, count: int = 1, number: int | None = None) -> None:
        """End the run in order, or, the second time, at once.

        Args:
            count: How often it was interrupted.
            number: The signal, if it was one.
        """
        self._is_interrupted = True
        self._signal = number
        if count > 1:
            self._force()
        elif self._is_winding_up:
            self._tell(Stop(is_interrupt=True))
        else:
            self._stopped.set()

    def _force(self) -> None:
        self._forced.set()
        self._stopped.set()
        self._changed.set()
        for member in self._members:
            if isinstance(member, BackendMember):
                member.kill()

    def _fail(self, error: BaseException, *, is_of_process: bool = True) -> None:
        if self._error is None:
            self._error, self._is_of_process = error, is_of_process
        elif error is not self._error:
            logger.error("the run that ends with %r had another error", self._error, exc_info=error)
        self._stopped.set()

    # -- what processes say -------------------------------------------------------------------------------------------

    def _heard(self, member: Member, event: Event) -> None:
        match event:
            case Up():
                self._advance(member, State.UP)
            case Ready():
                self._advance(member, State.READY)
            case Finished(tally):
                member.tally = tally
                self._advance(member, State.FINISHED)
            case ShutDown(connections, is_linking):
                member.connections, member.is_linking = connections, is_linking
                self._advance(member, State.SHUT_DOWN)
            case Ended(tally):
                member.tally = tally
                self._advance(member, State.ENDED)
            case Left():
                self._advance(member, State.LEFT)
            case Failed(error):
                self._fail(error.error(member.label) if isinstance(error, Failure) else error)
            case Terminate(reason):
                logger.info("the run ends: %s", reason)
                self._stopped.set()

    def _has_exited(self, member: Member, exitcode: int | None) -> None:
        is_expected = member.state >= State.ENDED or self._forced.is_set()
        self._advance(member, State.GONE)
        if not is_expected and not member.is_given_up:
            self._fail(BackendProcessLost(member.label, exitcode))

    def _advance(self, member: Member, state: State) -> None:
        member.state = max(member.state, state)
        self._changed.set()

    # -- the phases ---------------------------------------------------------------------------------------------------

    async def run(self) -> Outcome:
        """Everything; returns when all processes have ended and the server knows nothing of the run any more."""
        for member in self._members:
            self._attach(member)
        try:
            await self._until_stopped(self._work())
            await self._wind_up()
            # The server has no more to do with processes that end, and they take some milliseconds.
            await together(self._all_exited(), self._leave())
        finally:
            for member in self._members:
                await member.detach()
            await self._leave()
        tally = _total(self._members)
        return Outcome(self._error, self._is_of_process, tally, self._signal, self._forced.is_set())

    def _attach(self, member: Member) -> None:
        member.attach(lambda event: self._heard(member, event), lambda exitcode: self._has_exited(member, exitcode))

    async def _until_stopped(self, coroutine: Coroutine[Any, Any, None]) -> None:
        working = asyncio.create_task(coroutine, name="phases of the run")
        stopped = asyncio.create_task(self._stopped.wait(), name="end of the run")
        await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        working.cancel()
        await asyncio.wait([working, stopped])
        if not working.cancelled() and (error := working.exception()) is not None:
            self._fail(error, is_of_process=False)

    async def _work(self) -> None:
        # Processes that were launched take a while.
        await together(self._enter(), self._all(State.UP))
        self._on_running()
        self._tell(Begin(str(self._context.graph_address or GraphService.default_address())))
        await self._all(State.READY)
        # All subscribers are there: settings that somebody sends as soon as this is known will arrive.
        await self._register(self._metadata())
        self._tell(Start())
        self._on_started()
        await self._all(State.FINISHED)

    async def _enter(self) -> None:
        await self._context.__aenter__()
        await in_turns([partial(self._context.connect, *pair) for pair in self._connections])

    async def _register(self, metadata: GraphMetadata) -> None:
        try:
            await self._context.register_metadata(metadata)
        except (SettingsTooLarge, FrameTooLarge) as error:
            logger.warning("the graph is told of the run without its large settings: %s", error)
            await self._context.register_metadata(without_large_settings(metadata))

    async def _wind_up(self) -> None:
        self._is_winding_up = True
        if self._stopped.is_set():
            for member in self._members:
                if isinstance(member, BackendMember) and member.state is State.LAUNCHED:
                    member.withdraw()
            # Who is finished may still run a `main` function, which only an interrupt ends.
            self._tell(Stop(self._is_interrupted), State.ENDED if self._is_interrupted else State.FINISHED)
            if len(self._members) == 1:
                self._tell(Close())  # it waits for nobody
            if not await self._all_within(State.FINISHED, None if self._strict else REACT_S):
                self._give_up(State.FINISHED)
        self._tell(Close(), State.SHUT_DOWN)
        is_last = False
        if self._context.has_started_server:
            await self._all_shut_down(State.SHUT_DOWN)
            # Ourselves, and the processes.
            peers = 1 + sum(member.connections for member in self._members)
            is_last = self._context.has_only(peers, sum(member.is_linking for member in self._members))
        self._tell(Leave(is_last))
        if is_last:
            self._context.end_unheard()
        await self._all_shut_down(State.ENDED)

    async def _all_shut_down(self, state: State) -> None:
        while not await self._all_within(state, CLOSE_S):
            if not self._strict and (self._is_interrupted or self._error is not None):
                self._give_up(state)
                break
            late = "; ".join(member.label for member in self._members if member.state < state)
            logger.warning("still waiting for the shutdown of units: %s", late)

    async def _leave(self) -> None:
        """Leave the graph, once all processes have told it what they had to tell."""
        await self._all_within(State.LEFT, EXIT_S, of=BackendMember)
        if not self._forced.is_set():
            await self._context.__aexit__(None, None, None)

    async def _all_exited(self) -> None:
        if not await self._all_within(State.GONE, None if self._strict else EXIT_S, of=BackendMember):
            self._give_up(State.GONE, of=BackendMember)
            await self._all_within(State.GONE, EXIT_S, of=BackendMember)

    def _give_up(self, state: State, of: type[Member] = Member) -> None:
        for member in self._members:
            if isinstance(member, of) and member.state < state and not self._forced.is_set():
                member.give_up()

    def _tell(self, command: Command, until: State = State.ENDED) -> None:
        """Tell those who are not so far."""
        for member in self._members:
            if member.state < until:
                member.tell(command)

    async def _all(self, state: State, of: type[Member] = Member) -> None:
        """Wait until every process is so far, or gone."""
        while not self._forced.is_set() and any(m.state < state for m in self._members if isinstance(m, of)):
            self._changed.clear()
            await self._changed.wait()

    async def _all_within(self, state: State, timeout_s: float | None, of: type[Member] = Member) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self._all(state, of)
        except TimeoutError:
            return False
        return True


def _total(members: Iterable[Member]) -> Tally:
    total = Tally()
    for member in members:
        total.task_errors += member.tally.task_errors
        total.cancelled += member.tally.cancelled
        total.pending += member.tally.pending
        total.workers += member.tally.workers
        total.suppressed += member.tally.suppressed
    return total

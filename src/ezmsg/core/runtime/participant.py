"""One process's part of a run: its phases, on the event loop of its units."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ezmsg.core.errors import RunCancelled
from ezmsg.core.processclient import ProcessControlClient
from ezmsg.core.runtime.blocking import BlockingCalls
from ezmsg.core.runtime.endings import NormalTermination
from ezmsg.core.runtime.endpoints import Endpoints
from ezmsg.core.runtime.livesettings import LiveSettings
from ezmsg.core.runtime.loopthread import LoopThread
from ezmsg.core.runtime.mainthread import MainThread
from ezmsg.core.runtime.messages import (
    Begin,
    Close,
    Command,
    Ended,
    Event,
    Failed,
    Finished,
    Leave,
    Ready,
    ShutDown,
    Start,
    Stop,
    Terminate,
)
from ezmsg.core.runtime.publishing import spare_the_loop
from ezmsg.core.runtime.together import together
from ezmsg.core.runtime.unittasks import Job, jobs_of, label_of
from ezmsg.core.runtime.work import Work
from ezmsg.core.telemetry import pump
from ezmsg.core.unit import Unit, main_of, threads_of

logger = logging.getLogger("ezmsg")

# For what was cancelled; for blocking calls; for a `main` function that was interrupted.
GRACE_S = 1.0


class Participant:
    """Sets units up, runs their tasks and shuts them down, each when it is told to.

    Made anywhere, used on the event loop of the units.

    Args:
        units: In the order in which they are set up and shut down.
        report: Takes what the coordinator has to know; thread-safe.
        host: The thread of the loop.
        main_thread: Where a `main` function runs.
        strict: Nothing is suppressed and nobody left behind at the end; an exception of a task ends the run.

    Attributes:
        ends_process: The process ends next: connections that nobody waits for may be left to that.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        report: Callable[[Event], object],
        host: LoopThread,
        main_thread: MainThread,
        strict: bool,
    ) -> None:
        self._units, self._report, self._host, self._main_thread = units, report, host, main_thread
        self._grace_s = None if strict else GRACE_S
        self.ends_process = self._is_last = False
        self._begun: list[Unit] = []
        self._setting_up: Unit | None = None
        self._error: BaseException | None = None
        self._endpoints = Endpoints()
        self._client: ProcessControlClient | None = None
        self._work = Work(self._terminate, self._fail, strict)
        self._blocking = BlockingCalls(main_thread, host.executor)
        self._address: asyncio.Future[str] = host.loop.create_future()
        self._started, self._stopped = asyncio.Event(), asyncio.Event()
        self._closing, self._leaving = asyncio.Event(), asyncio.Event()
        host.on_exit = self._fail

    def obey(self, command: Command) -> None:
        """Hear the coordinator."""
        match command:
            case Begin(address):
                self._address.set_result(address)
            case Start():
                self._started.set()
            case Stop(is_interrupt):
                self._stopped.set()
                if is_interrupt:
                    self._main_thread.interrupt()
            case Close():
                self._closing.set()
            case Leave(is_last):
                self._is_last = is_last
                self._leaving.set()

    def _terminate(self, label: str) -> None:
        self._report(Terminate(f"{label} raised NormalTermination"))
        # It receives no more, and holds publishers of this process up until all that runs is stopped.
        self._endpoints.warn_no_more()

    def _fail(self, error: BaseException) -> None:
        # A SystemExit comes out of the loop as well as out of what raised it.
        if error is not self._error:
            self._error = error
            self._report(Failed(error))

    # -- the phases ---------------------------------------------------------------------------------------------------

    async def take_part(self) -> None:
        """Everything, from the first command to the last; ends with `Ended`, whatever happens."""
        tally = self._work.tally
        try:
            try:
                await self._live_until_stopped()
            except NormalTermination:
                self._terminate("the set-up of a unit")
            except asyncio.CancelledError:
                unit = self._setting_up
                self._fail(
                    RunCancelled(f"the set-up of {unit.address}" if unit else "the life of all units of a process")
                )
            except BaseException as error:  # whatever code of units raises: the others are shut down all the same
                self._fail(error)
            self._host.quiet()
            self._endpoints.let_go()
            await self._work.cancel(self._grace_s)
            self._report(Finished(replace(tally)))
            await self._closing.wait()
            await self._shut_down()
            self._report(ShutDown(self._connections, self._is_linking))
            await self._leaving.wait()
            await self._leave()
        except Exception as error:
            self._fail(error)
        finally:
            tally.suppressed += self._host.suppressed
            self._report(Ended(tally))

    async def _live_until_stopped(self) -> None:
        living = asyncio.create_task(self._live(), name="life of the units")
        stopped = asyncio.create_task(self._stopped.wait(), name="stop of the run")
        await asyncio.wait([living, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not living.done():
            living.cancel()
            await asyncio.wait([living], timeout=self._grace_s)
        stopped.cancel()
        if not living.done():
            self._work.tally.pending += 1
            logger.warning(
                "the set-up of %s goes on although it was cancelled",
                self._begun[-1].address if self._begun else "this process",
            )
        elif not (living.cancelled() and self._stopped.is_set()):
            living.result()

    async def _live(self) -> None:
        address = await self._address
        for unit in self._units:
            await self._set_up(unit)
        jobs = await self._open(address)
        self._report(Ready())
        await self._started.wait()
        self._start_threads()
        spare_the_loop(self._endpoints.outlets.exhausted)
        self._endpoints.resume()
        for label, job in jobs:
            self._work.begin(label, job())
        for unit in self._units:
            if (main := main_of(unit)) is not None:
                self._work.begin(label_of(unit, main.__name__), self._blocking.run_main(main))
        await self._work.done()

    async def _set_up(self, unit: Unit) -> None:
        self._begun.append(unit)
        self._setting_up = unit
        try:
            await unit.setup()
        except BaseException as error:
            error.add_note(f"raised while {unit.address} was set up")
            raise
        self._setting_up = None

    async def _open(self, address: str) -> list[Job]:
        """Open the streams of the units, and make the units known to the graph."""
        self._client = ProcessControlClient(address)
        # The client becomes known with its units only when all endpoints are there, but need not wait to be connected.
        await together(self._endpoints.open(self._units, address), self._client.connect())
        settings = LiveSettings(self._client, address)
        self._client.set_request_handler(settings.answer)
        jobs = [job for unit in self._units for job in jobs_of(unit, self._endpoints, self._work, settings.gate)]
        await self._client.register(unit.address for unit in self._units)
        return jobs

    def _start_threads(self) -> None:
        functions = [(label_of(unit, name), it) for unit in self._units for name, it in threads_of(unit).items()]
        if functions:
            self._blocking.open_threads(len(functions))
        for label, function in functions:
            self._work.begin(label, self._blocking.run_thread(function))

    async def _shut_down(self) -> None:
        for unit in self._begun:
            await self._shut_down_unit(unit)
        await self._blocking.end(self._grace_s, self._work.tally)

    @property
    def _connections(self) -> int:
        has_client = self._client is not None and self._client.client_id is not None
        return self._endpoints.connections + has_client

    @property
    def _is_linking(self) -> bool:
        return self._address.done() and pump.is_linking(self._address.result())

    async def _leave(self) -> None:
        """Close the streams of the units, and leave the graph; without a word to it where it ends."""
        is_last = self._is_last
        if is_last and self._address.done():
            pump.abandon(self._address.result())
            if self.ends_process:
                return
        ends = [self._endpoints.close(graph_ends=is_last)]
        if self._client is not None:
            ends.append(self._client.abandon() if is_last else self._client.close())
        await together(*ends)

    async def _shut_down_unit(self, unit: Unit) -> None:
        try:
            outcome: Any = unit.shutdown()
            if inspect.isawaitable(outcome):
                await outcome
        except BaseException as error:  # the next unit must be shut down as well, whatever this one does
            if unit is self._setting_up:
                # It has only half of what its shutdown expects; what went wrong first is told elsewhere.
                logger.warning("%s, set up by half, could not be shut down: %r", unit.address, error)
                return
            self._work.tally.task_errors += 1
            logger.error("Exception in shutdown of %s", unit.address, exc_info=error)

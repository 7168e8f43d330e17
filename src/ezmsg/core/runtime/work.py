"""Everything that runs in one process between the start of a run and its end, and how it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ezmsg.core.errors import RunCancelled
from ezmsg.core.runtime.endings import Complete, NormalTermination
from ezmsg.core.runtime.messages import Tally

logger = logging.getLogger("ezmsg")


class Work:
    """The tasks of a process.

    Args:
        on_terminate: Called with the label of a task that ends the run.
        on_failure: Called with an exception that ends the run.
        strict: Every exception of a task does.

    Attributes:
        tally: How the tasks ended, up to now.
        is_stopping: They were told to end.
        terminate: `on_terminate`.
    """

    def __init__(
        self, on_terminate: Callable[[str], object], on_failure: Callable[[BaseException], object], strict: bool
    ) -> None:
        self.tally = Tally()
        self.terminate, self._on_failure, self._strict = on_terminate, on_failure, strict
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_stopping = False

    def begin(self, label: str, coroutine: Awaitable[Any]) -> asyncio.Task[None]:
        """Start a task, called `unit:name`."""
        task = asyncio.get_running_loop().create_task(self._watch(label, coroutine), name=label)
        self._tasks.add(task)
        return task

    async def _watch(self, label: str, coroutine: Awaitable[Any]) -> None:
        try:
            await coroutine
        except Complete:
            pass
        except NormalTermination:
            self.terminate(label)
        except (SystemExit, KeyboardInterrupt) as error:
            self._on_failure(error)
        except BaseException as error:  # also what is no Exception: nobody else would tell of it
            if self.is_stopping and isinstance(error, asyncio.CancelledError):
                raise
            self.failed(label, error)

    def failed(self, label: str, error: BaseException) -> bool:
        """Note an exception of a task; whether the task has to end."""
        self.tally.task_errors += 1
        logger.error("Exception in Task: %s", label, exc_info=error)
        if self._strict:
            self._on_failure(RunCancelled(label) if isinstance(error, asyncio.CancelledError) else error)
        return self._strict or self.is_stopping

    async def done(self) -> None:
        """Wait until every task has ended."""
        while running := [task for task in self._tasks if not task.done()]:
            await asyncio.wait(running)

    async def cancel(self, grace_s: float | None) -> None:
        """Cancel what still runs, and wait for it, at most `grace_s` seconds."""
        self.is_stopping = True
        running = [task for task in self._tasks if not task.done()]
        for task in running:
            task.cancel()
        pending: set[asyncio.Task[None]] = set()
        if running:
            _, pending = await asyncio.wait(running, timeout=grace_s)
        self.tally.cancelled += sum(task.cancelled() for task in running if task.done())
        self.tally.pending += len(pending)
        for task in pending:
            logger.warning("%s goes on although it was cancelled", task.get_name())

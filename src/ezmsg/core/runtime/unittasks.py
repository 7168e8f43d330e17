"""What there is to run of one unit: its tasks, bound to publishers and subscribers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

from ezmsg.core.decorators import TIMEIT_ATTR, Function
from ezmsg.core.profiling import PROFILES
from ezmsg.core.runtime.endings import Complete, NormalTermination
from ezmsg.core.runtime.endpoints import Endpoints, receivers
from ezmsg.core.runtime.preparation import SETTINGS_INPUT
from ezmsg.core.runtime.publishing import Run, publishing
from ezmsg.core.runtime.receiving import Failed, Handle, Several, is_cancelled, receive
from ezmsg.core.runtime.work import Work
from ezmsg.core.stream import InputStream
from ezmsg.core.unit import Unit, subscribed, tasks_of

Job = tuple[str, Callable[[], Awaitable[Any]]]
"""Something to run once, and how it is called."""
Gate = Callable[[Unit, InputStream, Handle], Handle]
"""Puts something between the settings that arrive at a unit and its tasks."""


def jobs_of(unit: Unit, endpoints: Endpoints, work: Work, gate: Gate) -> Iterator[Job]:
    """What is to be started for a unit; tasks that receive from the same stream are one job.

    Args:
        unit: The unit, set up.
        endpoints: Its publishers and subscribers.
        work: Where exceptions are noted.
        gate: Put before the tasks that receive from INPUT_SETTINGS.
    """
    for stream, tasks in receivers(unit).items():
        runs = {label_of(unit, name): _run(unit, name, task, endpoints) for name, task in tasks.items()}
        label = ", ".join(runs)
        handle, failed = _handle(runs, work)
        is_leaky = stream.leaky
        if stream.name == SETTINGS_INPUT:
            # The gate copies messages itself, and must see the very object that was sent.
            handle, is_leaky = gate(unit, stream, handle), False
        subscriber = endpoints.subscribers[stream]
        yield label, partial(
            receive, subscriber, handle, failed, lambda: work.is_stopping,
            leaky=is_leaky, beside=endpoints.publisher_ids,
        )  # fmt: skip
    for name, task in tasks_of(unit).items():
        if subscribed(unit, task) is None:
            yield label_of(unit, name), _counting(unit.address, name, _run(unit, name, task, endpoints))


def label_of(unit: Unit, name: str) -> str:
    """How a function of a unit is called in logs."""
    return f"{unit.address}:{name}"


def _run(unit: Unit, name: str, task: Function, endpoints: Endpoints) -> Run:
    is_timed = getattr(task, TIMEIT_ATTR, False)
    label = label_of(unit, name)
    return publishing(label, task, endpoints.outlets.timed(label) if is_timed else endpoints.outlets)


def _counting(unit: str, name: str, run: Run) -> Run:
    """A task that handles no messages: there is no edge to count its exceptions."""

    async def counting() -> None:
        try:
            await run()
        except (Complete, NormalTermination):
            raise
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled(error):
                raise
            PROFILES.task_failed(unit, name, type(error).__qualname__)
            raise

    return counting


def _handle(runs: dict[str, Run], work: Work) -> tuple[Handle, Failed]:
    if len(runs) == 1:
        ((label, run),) = runs.items()
        return run, partial(work.failed, label)
    several = Several(dict(runs), work.failed, work.terminate)
    return several, several.has_failed

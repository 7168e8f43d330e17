"""An event loop in a thread that can be left behind."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator

import pytest

from ezmsg.core.runtime.loopthread import LoopThread

DEADLINE_S = 40


def test_coroutines_run_there_until_it_is_stopped() -> None:
    thread = LoopThread("loop")
    thread.start()

    async def name() -> str:
        return threading.current_thread().name

    assert thread.submit(name()).result(DEADLINE_S) == "loop"
    assert thread.stop(DEADLINE_S)
    thread.call(print)  # does nothing


def test_what_is_left_in_the_loop_is_ended_with_it() -> None:
    thread = LoopThread("loop")
    thread.start()
    ended: list[str] = []
    generators: list[AsyncIterator[int]] = []

    begun: list[asyncio.Task[None]] = []

    async def begin_late(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def generate() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            ended.append("generator")
            begun.append(asyncio.create_task(begin_late("begun by the generator")))
            await asyncio.sleep(0)

    async def forget() -> None:
        generators.append(generate())
        await anext(generators[0])
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("task")
            begun.append(asyncio.create_task(begin_late("begun by the task")))
            await asyncio.sleep(0)

    thread.submit(forget())
    while not generators:
        threading.Event().wait(0.001)
    assert thread.stop(DEADLINE_S)
    assert sorted(ended) == ["begun by the generator", "begun by the task", "generator", "task"]


@pytest.mark.parametrize("how", ["stopped", "cancelled"])
def test_a_loop_goes_on_when_code_of_a_unit_ends_it(how: str, caplog: pytest.LogCaptureFixture) -> None:
    thread = LoopThread("loop")
    thread.start()

    async def end_it() -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def name() -> str:
        return threading.current_thread().name

    if how == "stopped":
        thread.call(thread.loop.stop)
    else:
        thread.submit(end_it()).result(DEADLINE_S)
    assert thread.submit(name()).result(DEADLINE_S) == "loop"
    assert thread.stop(DEADLINE_S)
    assert "goes on: raise NormalTermination to end a run" in caplog.text


BREAKS_ITS_LOOP = """
import asyncio, os
from ezmsg.core.runtime.loopthread import LoopThread
thread = LoopThread("loop")
thread.start()
waiting = thread.submit(asyncio.sleep(3600))
thread.call(os.closerange, 3, 100)
waiting.result()
"""


def test_nobody_waits_for_a_loop_that_broke() -> None:
    # In a program of its own, which it would not do any good either.
    program = subprocess.run(
        [sys.executable, "-c", BREAKS_ITS_LOOP], capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert program.returncode == 1
    assert "the event loop 'loop' ended" in program.stderr
    assert "OSError: [Errno 9] Bad file descriptor" in program.stderr


def test_a_loop_that_is_blocked_is_left_behind() -> None:
    thread = LoopThread("loop")
    thread.start()
    gate = threading.Event()
    thread.call(gate.wait)

    assert not thread.stop(0.01)

    gate.set()
    assert thread.stop(DEADLINE_S)


def test_an_exit_in_a_task_is_told_of_and_the_loop_goes_on() -> None:
    thread = LoopThread("loop")
    told: list[BaseException] = []
    thread.on_exit = told.append
    thread.start()

    async def leave() -> None:
        raise SystemExit(3)

    future = thread.submit(leave())
    with pytest.raises(SystemExit):
        future.result(DEADLINE_S)
    assert thread.submit(asyncio.sleep(0, "alive")).result(DEADLINE_S) == "alive"
    assert [str(error) for error in told] == ["3"]
    assert thread.stop(DEADLINE_S)


def test_errors_nobody_waits_for_are_logged_and_when_it_ends_only_counted(caplog: pytest.LogCaptureFixture) -> None:
    thread = LoopThread("loop")
    thread.start()

    def fail() -> None:
        raise ValueError("unheard")

    thread.call(fail)
    thread.submit(asyncio.sleep(0)).result(DEADLINE_S)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    thread.quiet()
    thread.call(fail)
    assert thread.stop(DEADLINE_S)
    assert len(caplog.records) == 1
    assert thread.suppressed == 1

"""Coroutines that another thread waits for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar, copy_context

import pytest

from ezmsg.core.errors import CallTimeout, SyncContextClosed
from ezmsg.core.sync.bridge import Bridge
from tests.core.sync.conftest import Background, wait_until

VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="nothing")


@contextlib.asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    yield


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    """A running loop."""
    bridge = Bridge(nothing(), "test loop")
    bridge.start()
    yield bridge
    bridge.stop()


def brief(bridge: Bridge, coroutine: object, timeout_s: float | None = 10) -> object:
    return bridge.run_brief(coroutine, "it", timeout_s, copy_context())  # type: ignore[arg-type]


async def steps(log: list[str]) -> str:
    """Waits several times, for a turn, for a future, and for an error of one."""
    log.append(threading.current_thread().name)
    await asyncio.sleep(0)
    async with asyncio.timeout(40):  # by now it has a task
        await asyncio.sleep(0.001)
    failing = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(failing.set_exception, KeyError("inside"))
    try:
        await failing
    except KeyError:
        return "done"
    return "not failed"


async def at_once() -> str:
    return VARIABLE.get()


async def failing_at_once() -> None:
    raise LookupError("at once")


async def failing_later() -> None:
    await asyncio.sleep(0)
    raise LookupError("later")


async def forever(log: list[str]) -> None:
    log.append("begun")
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        log.append("cancelled")


def test_a_brief_call_runs_on_the_loop_however_often_it_waits(bridge: Bridge) -> None:
    log: list[str] = []
    assert brief(bridge, steps(log)) == "done"
    assert log == ["test loop"]


def test_a_call_runs_in_the_context_of_the_caller(bridge: Bridge) -> None:
    token = VARIABLE.set("mine")
    try:
        assert brief(bridge, at_once()) == "mine"
        assert bridge.run(at_once(), "it") == "mine"
    finally:
        VARIABLE.reset(token)


@pytest.mark.parametrize("failing", [failing_at_once, failing_later])
def test_errors_arrive(bridge: Bridge, failing: object) -> None:
    with pytest.raises(LookupError):
        brief(bridge, failing())  # type: ignore[operator]
    with pytest.raises(LookupError):
        bridge.run(failing(), "it")  # type: ignore[operator]


def test_what_takes_longer_is_cancelled_before_the_error_arrives(bridge: Bridge) -> None:
    for run in (lambda log: brief(bridge, forever(log), 0.01), lambda log: bridge.run(forever(log), "it", 0.01)):
        log: list[str] = []
        while not log:  # on a busy machine the time is over before it has begun
            with pytest.raises(CallTimeout, match=r"it took longer than 0.01 s"):
                run(log)
        assert log == ["begun", "cancelled"]


def test_what_ends_just_in_time_is_not_lost(bridge: Bridge) -> None:
    for _ in range(200):
        # It is posted, and given up at once: begun before the end of the wait is told.
        assert brief(bridge, at_once(), 0) == "nothing"


def test_the_end_of_the_thread_ends_calls_that_wait(bridge: Bridge, background: Background) -> None:
    log: list[str] = []

    def wait() -> None:
        with pytest.raises(SyncContextClosed):
            bridge.run(forever(log), "it")
        with pytest.raises(SyncContextClosed):
            brief(bridge, at_once())

    background.run(wait)
    wait_until(lambda: len(asyncio.all_tasks(bridge.loop)) > 1)
    bridge.stop()
    bridge.stop()
    background.join()
    assert log == ["begun", "cancelled"]


def test_calls_that_race_with_the_end_never_hang(background: Background) -> None:
    for _ in range(20):
        bridge = Bridge(nothing(), "short")
        bridge.start()

        def call(bridge: Bridge = bridge) -> None:
            with contextlib.suppress(SyncContextClosed):
                while True:
                    brief(bridge, at_once())

        calling = [background.run(call) for _ in range(3)]
        bridge.stop()
        for caller in calling:
            caller.join(40)
            assert not caller.is_alive()


def test_what_begins_while_the_loop_ends_ends_with_it(bridge: Bridge) -> None:
    ended: list[str] = []
    kept: list[object] = []

    async def begin_late() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("begun by the generator")

    async def generate() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            kept.append(asyncio.create_task(begin_late()))
            await asyncio.sleep(0)

    async def leave_open() -> int:
        kept.append(generator := generate())
        return await anext(generator)

    assert brief(bridge, leave_open()) == 1
    bridge.stop()
    assert ended == ["begun by the generator"]


def test_what_entering_the_resource_raises_arrives_and_ends_the_thread() -> None:
    @contextlib.asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise OSError("broken")
        yield

    bridge = Bridge(broken(), "broken")
    with pytest.raises(OSError, match="broken"):
        bridge.start()
    assert not bridge.is_alive


def test_the_resource_is_left_once_however_often_the_end_is_asked_for(background: Background) -> None:
    log: list[str] = []

    @contextlib.asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.sleep(0.05)
            log.append("left")

    bridge = Bridge(slow(), "slow")
    bridge.start()
    for _ in range(3):
        background.run(bridge.stop)
    background.join()
    assert log == ["left"]


def test_what_is_given_up_before_it_goes_on_is_cancelled_on_the_loop(bridge: Bridge) -> None:
    log: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            log.append(threading.current_thread().name)
            raise

    for _ in range(10):  # mostly it begins, and is given up, in one turn of the loop
        with pytest.raises(CallTimeout):
            brief(bridge, wait(), timeout_s=0)
    assert log == ["test loop"] * 10

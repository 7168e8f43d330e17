"""Time limits that share one timer."""

from __future__ import annotations

import asyncio

import pytest

from ezmsg.core.net.deadlines import Deadlines

LONG_S = 1000.0


async def test_deadlines_are_reached_in_the_order_of_their_times() -> None:
    deadlines, reached, last = Deadlines(asyncio.get_running_loop()), [], asyncio.Event()
    deadlines.after(LONG_S, reached.append, "never")
    deadlines.after(0.03, last.set)
    deadlines.after(0.02, reached.append, "second")
    deadlines.after(0.01, reached.append, "first")
    async with asyncio.timeout(10):
        await last.wait()
    assert reached == ["first", "second"]
    assert len(deadlines) == 1
    deadlines.close()


async def test_what_came_in_time_is_not_called_and_others_still_are() -> None:
    deadlines, reached, last = Deadlines(asyncio.get_running_loop()), [], asyncio.Event()
    in_time = deadlines.after(0.001, reached.append, "in time")
    deadlines.after(0.002, last.set)
    in_time.cancel()
    in_time.cancel()
    async with asyncio.timeout(10):
        await last.wait()
    assert reached == []
    assert len(deadlines) == 0


async def test_deadlines_of_one_moment_are_all_reached_though_one_fails(caplog: pytest.LogCaptureFixture) -> None:
    deadlines, reached, last = Deadlines(asyncio.get_running_loop()), [], asyncio.Event()
    deadlines.after(0, [].pop)
    deadlines.after(0, reached.append, "other")
    deadlines.after(0.001, last.set)
    async with asyncio.timeout(10):
        await last.wait()
    assert reached == ["other"]
    assert "pop from empty list" in caplog.text


async def test_a_thousand_deadlines_of_one_moment_are_reached_in_a_few_turns_of_the_loop() -> None:
    loop = asyncio.get_running_loop()
    deadlines, reached, last = Deadlines(loop), [], asyncio.Event()
    for number in range(1000):
        deadlines.after(0, reached.append, number)
    deadlines.after(0, last.set)
    turns = 0
    while not last.is_set():
        await asyncio.sleep(0)
        turns += 1
    assert len(reached) == 1000
    assert turns < 100


async def test_a_deadline_cancelled_by_one_of_the_same_moment_is_not_reached() -> None:
    deadlines, reached, last = Deadlines(asyncio.get_running_loop()), [], asyncio.Event()
    cancelled = [deadlines.after(0, lambda: cancelled[1].cancel()), deadlines.after(0, reached.append, "cancelled")]
    deadlines.after(LONG_S, reached.append, "never")
    deadlines.after(0.001, last.set)
    async with asyncio.timeout(10):
        await last.wait()
    assert reached == []
    assert len(deadlines) == 1
    deadlines.close()


async def test_nothing_is_called_after_the_end() -> None:
    loop = asyncio.get_running_loop()
    deadlines, reached, later = Deadlines(loop), [], asyncio.Event()
    deadlines.after(0, reached.append, "late")
    deadlines.close()
    loop.call_later(0.001, later.set)
    async with asyncio.timeout(10):
        await later.wait()
    assert reached == []

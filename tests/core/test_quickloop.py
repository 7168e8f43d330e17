"""Our loop does what asyncio's does, with fewer calls."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from ezmsg.core.quickloop import new_loop

Make = Callable[[], asyncio.AbstractEventLoop]
WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


@pytest.fixture(params=[asyncio.new_event_loop, new_loop], ids=["asyncio", "ours"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    loop = request.param()
    yield loop
    loop.close()


def turn(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_until_complete(asyncio.sleep(0))


def test_this_python_builds_its_loop_so_that_ours_can_be_quicker() -> None:
    loop = new_loop()
    try:
        assert type(loop.call_soon(print)) is not asyncio.Handle
    finally:
        loop.close()


def test_callbacks_are_called_in_order_with_their_arguments(loop: asyncio.AbstractEventLoop) -> None:
    called: list[tuple[Any, ...]] = []
    for number in range(3):
        loop.call_soon(lambda *args: called.append(args), number, "x")
    turn(loop)
    assert called == [(0, "x"), (1, "x"), (2, "x")]


def test_a_callback_runs_in_the_context_it_was_given_or_a_copy_of_the_present_one(
    loop: asyncio.AbstractEventLoop,
) -> None:
    seen: list[str] = []
    given = copy_context()
    given.run(WHO.set, "given")
    token = WHO.set("here")
    loop.call_soon(lambda: seen.append(WHO.get()))
    loop.call_soon(lambda: seen.append(WHO.get()), context=given)
    loop.call_soon(lambda: WHO.set("callback"))
    WHO.reset(token)
    turn(loop)
    assert seen == ["here", "given"]
    assert WHO.get() == "nobody"


def test_a_cancelled_callback_is_not_called(loop: asyncio.AbstractEventLoop) -> None:
    called: list[int] = []
    handle = loop.call_soon(called.append, 1)
    loop.call_soon(called.append, 2)
    assert not handle.cancelled()
    handle.cancel()
    assert handle.cancelled()
    assert "cancelled" in repr(handle)
    turn(loop)
    assert called == [2]


def test_an_exception_in_a_callback_is_told_and_the_loop_goes_on(loop: asyncio.AbstractEventLoop) -> None:
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    handle = loop.call_soon(lambda: [][0])
    turn(loop)
    assert [type(context["exception"]) for context in told] == [IndexError]
    assert told[0]["handle"] is handle


def test_a_closed_loop_takes_no_callback(loop: asyncio.AbstractEventLoop) -> None:
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(print)


def test_a_loop_that_debugs_tells_of_a_call_from_another_thread(loop: asyncio.AbstractEventLoop) -> None:
    async def call_elsewhere() -> None:
        await asyncio.to_thread(loop.call_soon, print)

    loop.set_debug(True)
    with pytest.raises(RuntimeError, match="thread"):
        loop.run_until_complete(call_elsewhere())
    loop.run_until_complete(loop.shutdown_default_executor())


def test_a_policy_decides_which_loop_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(asyncio.SelectorEventLoop):
        pass

    monkeypatch.setattr(asyncio, "new_event_loop", Other)
    loop = new_loop()
    try:
        assert type(loop) is Other
        assert type(loop.call_soon(print)) is asyncio.Handle
    finally:
        loop.close()
        gc.collect()

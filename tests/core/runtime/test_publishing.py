"""What tasks yield."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

import pytest

from ezmsg.core.errors import InvalidResult
from ezmsg.core.runtime.publishing import Outlets, publishing, spare_the_loop


@pytest.mark.parametrize("yielded", ["a message", 7, ([], [])])
async def test_a_yield_without_a_stream_says_what_a_task_yields(yielded: Any) -> None:
    async def task() -> AsyncIterator[Any]:
        yield yielded

    with pytest.raises(InvalidResult, match=r"^UNIT:task gave .*yield self\.OUTPUT, message"):
        await publishing("UNIT:task", task, Outlets())()


def test_the_loop_lists_no_generator_of_a_task_but_all_others() -> None:
    closed: list[str] = []

    async def task() -> AsyncGenerator[Any]:
        try:
            yield "a task"
        finally:
            closed.append("a task")

    async def other() -> AsyncGenerator[Any]:
        try:
            yield "another"
        finally:
            closed.append("another")

    async def end_the_loop() -> None:
        outlets = Outlets()
        publishing("UNIT:task", task, outlets)
        spare_the_loop(outlets.exhausted)
        of_task, of_other = task(), other()
        await anext(of_task)
        await anext(of_other)
        await asyncio.get_running_loop().shutdown_asyncgens()
        assert closed == ["another"]
        await of_task.aclose()

    asyncio.run(end_the_loop())


class Compiled:
    """A generator that Cython made: it tells the loop of itself, and has no code object."""

    is_closed = False

    async def aclose(self) -> None:
        self.is_closed = True


def test_a_generator_of_compiled_code_is_left_to_the_loop() -> None:
    async def end_the_loop() -> None:
        spare_the_loop(set())
        generator, began = Compiled(), sys.get_asyncgen_hooks().firstiter
        assert began is not None
        began(cast(Any, generator))
        await asyncio.get_running_loop().shutdown_asyncgens()
        assert generator.is_closed

    asyncio.run(end_the_loop())


async def test_a_mistake_in_a_task_is_left_as_it_is() -> None:
    async def task() -> AsyncIterator[Any]:
        raise ValueError("no")
        yield

    with pytest.raises(ValueError, match=r"^no$") as failure:
        await publishing("UNIT:task", task, Outlets())()
    assert not isinstance(failure.value, InvalidResult)


class Failing:
    """An iterator whose awaitables raise without a frame, as compiled ones do."""

    def __aiter__(self) -> Failing:
        return self

    def __anext__(self) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(ValueError("no"))
        return future

    async def aclose(self) -> None:
        pass


async def test_a_mistake_in_compiled_code_is_left_as_it_is() -> None:
    with pytest.raises(ValueError, match=r"^no$") as failure:
        await publishing("UNIT:task", Failing, Outlets())()
    assert not isinstance(failure.value, InvalidResult)

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

import ezmsg.core as ez
from ezmsg.core.unit import (
    LEAKY_ATTR,
    MAIN_ATTR,
    MAX_QUEUE_ATTR,
    PROCESS_ATTR,
    PUBLISHES_ATTR,
    SUBSCRIBES_ATTR,
    TASK_ATTR,
    THREAD_ATTR,
    TIMEIT_ATTR,
    ZERO_COPY_ATTR,
)

IN = ez.InputStream(int, leaky=True, max_queue=3)
OUT = ez.OutputStream(int)
OTHER = ez.OutputStream(int)
NO_OUTPUTS = [IN, ez.OutputTopic(int), ez.OutputRelay(int), "OUT", None, lambda: None]
NO_INPUTS = [OUT, ez.InputTopic(int), ez.InputRelay(int), "IN", None, lambda: None]


async def act(self: Any) -> None:
    pass


@pytest.fixture
def function() -> Any:
    async def fresh(self: Any, message: Any = None) -> AsyncIterator[Any]:
        yield OUT, message

    return fresh


def test_the_attributes_have_the_documented_names() -> None:
    assert (MAIN_ATTR, THREAD_ATTR, TASK_ATTR) == ("__ez_main__", "__ez_thread__", "__ez_task__")
    assert (PUBLISHES_ATTR, SUBSCRIBES_ATTR) == ("__ez_publishes__", "__ez_subscribes__")
    assert (TIMEIT_ATTR, ZERO_COPY_ATTR, PROCESS_ATTR) == ("__ez_timeit__", "__ez_zerocopy__", "__ez_process__")
    assert (LEAKY_ATTR, MAX_QUEUE_ATTR) == ("__ez_leaky__", "__ez_max_queue__")


def test_publisher_marks_a_task_and_can_be_stacked(function: Any) -> None:
    assert ez.publisher(OTHER)(ez.publisher(OUT)(function)) is function
    assert function.__ez_publishes__ == [OUT, OTHER]
    assert function.__ez_task__ is True


@pytest.mark.parametrize("stream", NO_OUTPUTS)
def test_publisher_wants_an_output_stream(stream: Any) -> None:
    with pytest.raises(ValueError, match="@publisher: a task publishes on an OutputStream"):
        ez.publisher(stream)


def test_a_mistake_in_a_class_body_tells_the_class_and_the_line() -> None:
    with pytest.raises(ValueError, match=rf"@publisher: .*not on 'OUT' \(class .*Wrong, {__file__}, line \d+\)$"):

        class Wrong(ez.Unit):  # pyright: ignore[reportUnusedClass] - it cannot be made
            @ez.publisher("OUT")  # type: ignore[arg-type] - the mistake
            async def go(self) -> AsyncIterator[Any]:
                yield OUT, 1


def test_subscriber_marks_a_task_with_what_its_stream_says(function: Any) -> None:
    assert ez.subscriber(IN)(function) is function
    assert function.__ez_subscribes__ is IN
    assert (function.__ez_task__, function.__ez_leaky__, function.__ez_max_queue__) == (True, True, 3)


@pytest.mark.parametrize("stream", NO_INPUTS)
def test_subscriber_wants_an_input_stream(stream: Any) -> None:
    with pytest.raises(ValueError, match="@subscriber: a task receives from an InputStream"):
        ez.subscriber(stream)


def test_a_second_subscription_is_refused(function: Any) -> None:
    ez.subscriber(IN)(function)
    with pytest.raises(Exception, match="fresh: a task can receive from one InputStream only"):
        ez.subscriber(IN)(function)


@pytest.mark.parametrize("zero_copy", [True, False, None])
def test_zero_copy_is_deprecated(function: Any, zero_copy: Any) -> None:
    with pytest.warns(DeprecationWarning, match="zero_copy") as caught:
        ez.subscriber(IN, zero_copy=zero_copy)(function)
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="zero_copy"):
        ez.subscriber(IN, zero_copy)
    assert function.__ez_subscribes__ is IN


def test_task_main_and_timeit_mark_functions(function: Any) -> None:
    def plain(self: Any) -> None:
        pass

    assert ez.task(function).__ez_task__ is True  # type: ignore[attr-defined]
    assert ez.timeit(function).__ez_timeit__ is True  # type: ignore[attr-defined]
    assert ez.main(plain).__ez_main__ is True  # type: ignore[attr-defined]
    assert not hasattr(plain, TASK_ATTR)


def test_thread_is_deprecated_where_it_is_written() -> None:
    def plain(self: Any) -> None:
        pass

    with pytest.warns(DeprecationWarning, match="thread is deprecated") as caught:
        ez.thread(plain)
    assert caught[0].filename == __file__
    assert plain.__ez_thread__ is True  # type: ignore[attr-defined]


def test_what_runs_in_a_thread_is_no_async_function(function: Any) -> None:
    with pytest.raises(ValueError, match=r"@main on .*fresh: what runs in a thread is a plain function"):
        ez.main(function)
    with pytest.raises(ValueError, match="@main on act"):
        ez.main(act)
    with pytest.warns(DeprecationWarning, match="thread"), pytest.raises(ValueError, match="@thread on act"):
        ez.thread(act)


@pytest.mark.parametrize("decorator", [ez.task, ez.main, ez.timeit, ez.publisher(ez.OutputStream(int))])
def test_what_takes_no_mark_is_told(decorator: Any) -> None:
    with pytest.raises(ValueError, match=r"^@\w+: it marks functions, not 5"):
        decorator(5)


def test_process_is_for_classes() -> None:
    with pytest.raises(ValueError, match="@process: it marks classes of units, not <Unit"):
        ez.process(ez.Unit())  # type: ignore[type-var]


def test_process_marks_a_class() -> None:
    @ez.process
    class Alone(ez.Unit):
        pass

    assert isinstance(Alone, ez.unit.UnitMeta)
    assert Alone.__ez_process__ is True  # type: ignore[attr-defined]
    assert not hasattr(ez.Unit, PROCESS_ATTR)

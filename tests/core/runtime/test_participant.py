"""The life of units in one process: its order, what their tasks get, and what an exception of theirs does."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import AsyncIterator
from dataclasses import field
from typing import Any

import numpy as np
import pytest

import ezmsg.core as ez
from ezmsg.core.errors import RunCancelled
from ezmsg.core.graphmeta import TraceSpan
from ezmsg.core.graphserver import GraphServer
from tests.core.runtime.running import running
from tests.core.rununits import Collector, Counter, CounterSettings, Forwarder, Idle

LOG: list[str] = []


@pytest.fixture(autouse=True)
def _clear_log() -> None:
    LOG.clear()


class Living(ez.Unit):
    """Writes down what happens to it."""

    INPUT = ez.InputStream(int)
    OUTPUT = ez.OutputStream(int)

    def note(self, what: str) -> None:
        LOG.append(f"{self.name} {what}")

    async def initialize(self) -> None:
        self.note("initialize")

    async def shutdown(self) -> None:
        self.note("shutdown")


def test_setup_comes_before_all_tasks_and_shutdown_after_all_in_the_order_of_units() -> None:
    class Short(Living):
        @ez.task
        async def live(self) -> None:
            await asyncio.sleep(0)
            self.note("task")

        @ez.main
        def run(self) -> None:
            self.note(f"main in {threading.current_thread().name}")

    class Shorter(Living):
        @ez.task
        async def live(self) -> None:
            self.note("task")

        def initialize(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            self.note("initialize, plainly")

        def shutdown(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            self.note("shutdown, plainly")

    ez.run(A=Short(), B=Shorter())

    assert LOG[:2] == ["A initialize", "B initialize, plainly"]
    assert sorted(LOG[2:5]) == ["A main in MainThread", "A task", "B task"]
    assert LOG[5:] == ["A shutdown", "B shutdown, plainly"]


def test_streams_are_opened_with_what_initialize_made_of_them() -> None:
    class Slow(Living):
        async def initialize(self) -> None:
            self.OUTPUT.num_buffers = 1

        @ez.publisher(Living.OUTPUT)
        async def publish(self) -> AsyncIterator[Any]:
            for number in range(3):
                yield self.OUTPUT, number
                self.note(f"published {number}")
            raise ez.Complete

    class Taker(Living):
        @ez.subscriber(Living.INPUT)
        async def take(self, number: int) -> None:
            self.note(f"took {number}")
            if number == 2:
                raise ez.Complete

    source, sink = Slow(), Taker()
    ez.run(A=source, B=sink, connections=[(source.OUTPUT, sink.INPUT)])

    # With one buffer the second message has to wait for the first.
    assert LOG.index("A published 1") > LOG.index("B took 0")


def test_an_exception_in_shutdown_keeps_nobody_from_shutting_down(caplog: pytest.LogCaptureFixture) -> None:
    class Bad(Living):
        @ez.task
        async def live(self) -> None:
            raise ez.NormalTermination

        async def shutdown(self) -> None:
            raise ValueError("not now")

    class Good(Living):
        @ez.task
        async def live(self) -> None:
            await asyncio.Event().wait()

    ez.run(A=Bad(), B=Good())

    assert LOG[-1] == "B shutdown"
    assert "Exception in shutdown of A" in caplog.text


@pytest.mark.parametrize("error", [BaseException("odd"), GeneratorExit("odd")])
def test_whatever_is_raised_in_setup_leaves_run(error: BaseException) -> None:
    class Odd(Living):
        async def initialize(self) -> None:
            raise error

    with pytest.raises(type(error), match="odd") as caught:
        ez.run(LIVING=Living(), ODD=Odd())
    assert caught.value.__notes__ == ["raised while ODD was set up"]
    assert LOG == ["LIVING initialize", "LIVING shutdown", "ODD shutdown"]


def test_a_setup_that_cancels_itself_is_told_of() -> None:
    class Cancels(Living):
        async def initialize(self) -> None:
            raise asyncio.CancelledError

    with pytest.raises(RunCancelled, match="the set-up of CANCELS was cancelled from within"):
        ez.run(LIVING=Living(), CANCELS=Cancels())
    assert LOG == ["LIVING initialize", "LIVING shutdown", "CANCELS shutdown"]


def test_units_are_shut_down_when_one_cancels_every_task_it_finds() -> None:
    class Cancels(Living):
        @ez.task
        async def cancel(self) -> None:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    with pytest.raises(RunCancelled, match="the life of all units of a process was cancelled from within"):
        ez.run(LIVING=Living(), CANCELS=Cancels())
    assert LOG[2:] == ["LIVING shutdown", "CANCELS shutdown"]


def test_what_a_task_raises_is_logged_whatever_it_is(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(Living):
        @ez.task
        async def live(self) -> None:
            raise GeneratorExit("odd")

    ez.run(ODD=Odd())
    assert "Exception in Task: ODD:live" in caplog.text


def test_units_that_were_set_up_are_shut_down_when_another_is_not(caplog: pytest.LogCaptureFixture) -> None:
    class Good(Living):
        pass

    class Bad(Living):
        async def initialize(self) -> None:
            raise ValueError("no such device")

        async def shutdown(self) -> None:
            raise AttributeError("STATE has no device")

    with pytest.raises(ValueError, match="no such device"):
        ez.run(A=Good(), B=Bad(), C=Good())

    assert LOG == ["A initialize", "A shutdown"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# -- tasks ------------------------------------------------------------------------------------------------------------


def test_complete_ends_one_task_and_normal_termination_all() -> None:
    class Two(Living):
        @ez.task
        async def first(self) -> None:
            self.note("first")
            raise ez.Complete

        @ez.task
        async def second(self) -> None:
            await asyncio.sleep(0.01)
            self.note("second")
            raise ez.NormalTermination

    ez.run(A=Two(), B=Idle())

    assert LOG[1:3] == ["A first", "A second"]


def test_all_tasks_of_a_stream_get_each_message_and_end_one_by_one() -> None:
    class Both(Living):
        @ez.subscriber(Living.INPUT)
        async def one(self, number: int) -> None:
            self.note(f"one {number}")
            if number == 1:
                raise ez.Complete

        @ez.subscriber(Living.INPUT)
        async def other(self, number: int) -> None:
            await asyncio.sleep(0)
            self.note(f"other {number}")
            if number == 2:
                raise ez.Complete

    source, sink = Counter(CounterSettings(5)), Both()
    ez.run(A=source, B=sink, connections=[(source.OUTPUT, sink.INPUT)])

    assert LOG == ["B initialize", "B one 0", "B other 0", "B one 1", "B other 1", "B other 2", "B shutdown"]


def test_messages_of_a_stream_come_one_at_a_time_and_streams_side_by_side() -> None:
    class Slow(Living):
        OTHER = ez.InputStream(int)

        async def initialize(self) -> None:
            self.meets = asyncio.Event()

        @ez.subscriber(Living.INPUT)
        async def take(self, number: int) -> None:
            self.note(f"begin {number}")
            await self.meets.wait()
            self.note(f"end {number}")
            if number == 1:
                raise ez.Complete

        @ez.subscriber(OTHER)
        async def take_other(self, number: int) -> None:
            self.note(f"other {number}")
            if number == 1:
                self.meets.set()
                raise ez.Complete

    source, sink = Counter(CounterSettings(2)), Slow()
    ez.run(A=source, B=sink, connections=[(source.OUTPUT, sink.INPUT), (source.OUTPUT, sink.OTHER)])

    ours = [line for line in LOG if "begin" in line or "end " in line]
    assert ours == ["B begin 0", "B end 0", "B begin 1", "B end 1"]
    assert LOG.index("B other 1") < LOG.index("B end 0")


def test_an_exception_is_logged_and_the_subscription_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Clumsy(Living):
        @ez.subscriber(Living.INPUT)
        async def take(self, number: int) -> None:
            if number == 1:
                raise ValueError("one is bad")
            self.note(f"took {number}")
            if number == 2:
                raise ez.Complete

    source, sink = Counter(CounterSettings(3)), Clumsy()
    ez.run(A=source, B=sink, connections=[(source.OUTPUT, sink.INPUT)])

    assert LOG[1:3] == ["B took 0", "B took 2"]
    (error,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert error.getMessage() == "Exception in Task: B:take"
    assert error.exc_info is not None
    assert "one is bad" in str(error.exc_info[1])


def test_what_a_task_waits_for_may_be_cancelled_and_the_subscription_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Waits(Living):
        @ez.subscriber(Living.INPUT)
        async def take(self, number: int) -> None:
            if number == 1:
                waited_for = asyncio.ensure_future(asyncio.Event().wait())
                waited_for.cancel()
                await waited_for
            self.note(f"took {number}")
            if number == 2:
                raise ez.Complete

        @ez.subscriber(Living.INPUT)
        async def other(self, number: int) -> None:
            self.note(f"other {number}")
            if number == 2:
                raise ez.Complete

    source, sink = Counter(CounterSettings(3)), Waits()
    ez.run(A=source, B=sink, connections=[(source.OUTPUT, sink.INPUT)])

    assert sorted(LOG[1:-1]) == ["B other 0", "B other 1", "B other 2", "B took 0", "B took 2"]
    (error,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert error.getMessage() == "Exception in Task: B:take"


def test_a_task_that_cancels_itself_is_told_of_and_holds_nobody_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cancels(Living):
        @ez.subscriber(Living.INPUT)
        async def take(self, number: int) -> None:
            asyncio.current_task().cancel()  # type: ignore[union-attr]
            await asyncio.sleep(0)

    source, sink = Counter(CounterSettings(100)), Cancels()
    ez.run(A=source, B=sink, connections=[(source.OUTPUT, sink.INPUT)])

    assert "Exception in Task: B:take" in caplog.text

    monkeypatch.setenv("EZMSG_STRICT_SHUTDOWN", "1")
    source, sink = Counter(CounterSettings(100)), Cancels()
    with pytest.raises(RunCancelled, match="B:take was cancelled from within"):
        ez.run(A=source, B=sink, connections=[(source.OUTPUT, sink.INPUT)])


def test_an_exception_of_one_task_does_not_keep_the_message_from_another(caplog: pytest.LogCaptureFixture) -> None:
    class Both(Living):
        @ez.subscriber(Living.INPUT)
        async def bad(self, number: int) -> None:
            raise ValueError(f"{number} is bad")

        @ez.subscriber(Living.INPUT)
        async def good(self, number: int) -> None:
            self.note(f"took {number}")
            if number == 1:
                raise ez.NormalTermination

    source, sink = Counter(CounterSettings(2)), Both()
    ez.run(A=source, B=sink, connections=[(source.OUTPUT, sink.INPUT)])

    assert LOG[1:3] == ["B took 0", "B took 1"]
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == ["Exception in Task: B:bad"] * 2


def test_strictly_an_exception_of_a_task_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EZMSG_STRICT_SHUTDOWN", "1")

    class Clumsy(Living):
        @ez.subscriber(Living.INPUT)
        async def take(self, number: int) -> None:
            raise ValueError(f"{number} is bad")

    source, sink = Counter(CounterSettings(2)), Clumsy()
    with pytest.raises(ValueError, match="0 is bad"):
        ez.run(A=source, B=sink, IDLE=Idle(), connections=[(source.OUTPUT, sink.INPUT)])

    assert LOG == ["B initialize", "B shutdown"]


def test_strictly_an_exception_in_another_process_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EZMSG_STRICT_SHUTDOWN", "1")

    class Clumsy(Living):
        @ez.task
        async def work(self) -> None:
            raise ValueError("it is bad")

    clumsy = Clumsy()
    with pytest.raises(ValueError, match="it is bad"):
        ez.run(CLUMSY=clumsy, IDLE=Idle(), process_components=[clumsy])


# -- messages ---------------------------------------------------------------------------------------------------------


class Box:
    """A message that can be told from its copies."""

    def __init__(self) -> None:
        self.marks: list[str] = []


class SendsBox(Living):
    OUTPUT = ez.OutputStream(Box)

    def __init__(self) -> None:
        super().__init__()
        self.box = Box()

    @ez.publisher(OUTPUT)
    async def publish(self) -> AsyncIterator[Any]:
        yield self.OUTPUT, self.box
        raise ez.Complete


def test_a_task_gets_the_very_object_that_was_published_here() -> None:
    source, sink = SendsBox(), Collector(CounterSettings(1))

    ez.run(A=source, B=sink, connections=[(source.OUTPUT, sink.INPUT)])

    assert sink.received[0] is source.box


def test_a_task_of_a_leaky_stream_gets_a_copy_and_holds_nobody_up() -> None:
    class Leaky(Living):
        INPUT = ez.InputStream(Box, leaky=True)

        @ez.subscriber(INPUT)
        async def take(self, box: Box) -> None:
            box.marks.append("mine")
            raise ez.Complete

    source, sink = SendsBox(), Leaky()
    ez.run(A=source, B=sink, connections=[(source.OUTPUT, sink.INPUT)])

    assert source.box.marks == []


def test_a_stream_without_tasks_holds_nobody_up() -> None:
    source, sink = Counter(CounterSettings(100)), Living()
    ez.run(A=source, B=sink, connections=[(source.OUTPUT, sink.INPUT)])


def test_a_stream_whose_tasks_are_complete_holds_nobody_up() -> None:
    class TakesOne(Living):
        @ez.subscriber(Living.INPUT)
        async def take(self, number: int) -> None:
            raise ez.Complete

    source, sink = Counter(CounterSettings(100)), TakesOne()
    ez.run(A=source, B=sink, connections=[(source.OUTPUT, sink.INPUT)])


def test_what_is_yielded_for_streams_of_others_is_ignored() -> None:
    class Wrong(Living):
        @ez.publisher(Living.OUTPUT)
        async def publish(self) -> AsyncIterator[Any]:
            yield Living.OUTPUT, 1
            yield ez.OutputStream(int), 2
            yield self.INPUT, 3
            yield self.OUTPUT, 4
            raise ez.Complete

    source, sink = Wrong(), Collector(CounterSettings(1))
    ez.run(A=source, B=sink, connections=[(source.OUTPUT, sink.INPUT)])

    assert sink.received == [4]


def test_what_is_yielded_in_vain_is_told_of_once_and_what_is_no_pair_is_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Wrong(ez.Unit):
        OUTPUT = ez.OutputStream(int)

        @ez.publisher(OUTPUT)
        async def publish(self) -> AsyncIterator[Any]:
            for number in range(3):
                yield number, self.OUTPUT
            yield self.OUTPUT

        @ez.publisher(OUTPUT)
        async def fail(self) -> AsyncIterator[Any]:
            yield self.OUTPUT, 1
            raise TypeError("of its own")

    ez.run(WRONG=Wrong())

    in_vain = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert in_vain == ["WRONG:publish yields for 0, which is no output of this process: ignored"]
    errors = {str(record.exc_info[1]) for record in caplog.records if record.exc_info}
    assert "of its own" in errors
    assert any(text.startswith("WRONG:publish gave") and "yield self.OUTPUT, message" in text for text in errors)


def test_publishers_take_turns() -> None:
    class Notes(Living):
        @ez.publisher(Living.OUTPUT)
        async def publish(self) -> AsyncIterator[Any]:
            for number in range(3):
                self.note(str(number))
                yield self.OUTPUT, number

    ez.run(A=Notes(), B=Notes())

    assert LOG[2:8] == ["A 0", "B 0", "A 1", "B 1", "A 2", "B 2"]


def test_a_generator_is_closed_when_its_message_cannot_be_sent(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(Living):
        @ez.publisher(Living.OUTPUT)
        async def publish(self) -> AsyncIterator[Any]:
            try:
                yield "no pair"
            finally:
                self.note("closed")

    ez.run(A=Odd())

    assert LOG == ["A initialize", "A closed", "A shutdown"]
    assert "Exception in Task: A:publish" in caplog.text


def test_a_task_may_be_wrapped_by_a_decorator_that_hides_what_it_is() -> None:
    def decorated(function: Any) -> Any:
        def wrapper(*args: Any) -> Any:
            return function(*args)

        wrapper.__dict__.update(function.__dict__)
        return wrapper

    class Wrapped(Living):
        @decorated
        @ez.publisher(Living.OUTPUT)
        async def publish(self) -> AsyncIterator[Any]:
            yield self.OUTPUT, 1

        @decorated
        @ez.task
        async def plain(self) -> None:
            self.note("plain")

    source, sink = Wrapped(), Collector(CounterSettings(1))
    ez.run(A=source, B=sink, connections=[(source.OUTPUT, sink.INPUT)])

    assert sink.received == [1]
    assert "A plain" in LOG


def test_timed_tasks_log_how_long_publishing_took(caplog: pytest.LogCaptureFixture) -> None:
    class Timed(Living):
        @ez.timeit
        @ez.publisher(Living.OUTPUT)
        async def publish(self) -> AsyncIterator[Any]:
            yield self.OUTPUT, 1

    with caplog.at_level(logging.INFO, "ezmsg"):
        ez.run(A=Timed())

    assert "A:publish on A/OUTPUT: publishing took" in caplog.text


def test_messages_carry_their_context_into_threads_of_tasks() -> None:
    mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="none")

    class Works(Living):
        @ez.task
        async def work(self) -> None:
            mark.set("ours")
            loop = asyncio.get_running_loop()
            self.note(await loop.run_in_executor(None, mark.get))

    ez.run(A=Works())

    assert LOG[1] == "A ours"


# -- blocking functions -----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:thread is deprecated:DeprecationWarning")
def test_thread_functions_run_beside_the_tasks_and_are_waited_for() -> None:
    class Worker(Living):
        async def initialize(self) -> None:
            self.may_end = threading.Event()

        @ez.thread
        def work(self) -> None:
            self.may_end.wait(40)
            self.note(f"worked in {threading.current_thread().name}")

        @ez.task
        async def live(self) -> None:
            self.may_end.set()

    ez.run(A=Worker())

    assert LOG == ["A worked in ezmsg thread 0", "A shutdown"]


def test_a_main_function_may_end_the_run_or_fail(caplog: pytest.LogCaptureFixture) -> None:
    class Ends(ez.Unit):
        @ez.main
        def main(self) -> None:
            raise ez.NormalTermination

    class Fails(ez.Unit):
        @ez.main
        def main(self) -> None:
            raise ValueError("it does not want to")

    ez.run(A=Ends(), B=Idle())
    ez.run(A=Fails())

    assert "Exception in Task: A:main" in caplog.text


def test_sys_exit_in_a_main_function_ends_the_run_and_leaves_it() -> None:
    class Exits(Living):
        @ez.main
        def main(self) -> None:
            raise SystemExit(3)

    with pytest.raises(SystemExit, match="3"):
        ez.run(A=Exits(), B=Idle())
    assert LOG[-1] == "A shutdown"


def test_a_main_function_that_goes_on_is_interrupted_when_the_run_ends() -> None:
    class Stays(Living):
        async def initialize(self) -> None:
            self.began = threading.Event()

        @ez.main
        def main(self) -> None:
            try:
                self.began.set()
                threading.Event().wait()
            finally:
                self.note("main ended")

        @ez.task
        async def live(self) -> None:
            await asyncio.to_thread(self.began.wait)
            raise ez.NormalTermination

    ez.run(A=Stays())

    assert LOG == ["A shutdown", "A main ended"]


# -- on the control plane ---------------------------------------------------------------------------------------------


async def test_units_are_owned_and_described_while_they_run(server: GraphServer, context: ez.GraphContext) -> None:
    source, sink = Counter(CounterSettings(0)), Idle()
    source.SETTINGS = CounterSettings(0)
    runner = ez.GraphRunner(A=source, B=sink, root_name="ROOT", graph_address=server.address)
    async with running(runner, context):
        snapshot = await context.snapshot()
        (process,) = [entry for entry in snapshot.processes.values() if entry.units]
        assert process.units == ["ROOT/A", "ROOT/B"]
        (metadata,) = [session.metadata for session in snapshot.sessions.values() if session.metadata]
        assert metadata.root_name == "ROOT"
        assert sorted(metadata.components) == ["ROOT/A", "ROOT/B"]
        assert (await context.process_stats("ROOT/A")).owned_units == ["ROOT/A", "ROOT/B"]
    snapshot = await context.snapshot()
    assert not any(entry.units for entry in snapshot.processes.values())
    assert not any(session.metadata for session in snapshot.sessions.values())


class Large(ez.Settings):
    table: Any = field(default_factory=lambda: np.zeros(17 << 20, np.uint8))


class HasLarge(Idle):
    SETTINGS = Large


async def test_settings_that_are_too_large_to_be_told_do_not_keep_a_run_from_starting(
    server: GraphServer, context: ez.GraphContext, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(ez.GraphRunner(LARGE=HasLarge(), IDLE=Idle(), graph_address=server.address), context):
        settings = await context.settings_snapshot()

    assert str(settings["LARGE"].repr_value).endswith("bytes, too large to be told")
    assert settings["IDLE"].serialized is not None
    assert "without its large settings" in caplog.text


async def test_spans_name_units_and_tasks_and_tell_errors(
    server: GraphServer, context: ez.GraphContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EZMSG_TRACE_RATIO", "1")

    class Clumsy(Forwarder):
        @ez.subscriber(Forwarder.INPUT)
        @ez.publisher(Forwarder.OUTPUT)
        async def forward(self, message: Any) -> AsyncIterator[Any]:
            if message == 1:
                raise ValueError("one is bad")
            yield self.OUTPUT, message

    source, middle, sink = Counter(CounterSettings(3)), Clumsy(), Collector(CounterSettings(9))
    runner = ez.GraphRunner(
        A=source, B=middle, C=sink, graph_address=server.address,
        connections=[(source.OUTPUT, middle.INPUT), (middle.OUTPUT, sink.INPUT)],
        process_components=[middle],
    )  # fmt: skip
    runner.start()
    try:
        spans: list[TraceSpan] = []
        async with asyncio.timeout(40):
            while sum(span.name == "process B/OUTPUT" for span in spans) < 2:
                for unit in ("A", "B"):
                    spans += (await context.process_profiling_trace_batch(unit)).spans
    finally:
        runner.stop()

    def task_of(name: str) -> set[Any]:
        found = [span.attributes for span in spans if span.name == name]
        return {(span.get("ezmsg.unit.address"), span.get("ezmsg.task.name")) for span in found}

    assert task_of("publish A/OUTPUT") == {("A", "publish")}
    assert task_of("process A/OUTPUT") == {("B", "forward")}
    assert task_of("publish B/OUTPUT") == {("B", "forward")}
    assert task_of("process B/OUTPUT") == {("C", "receive")}
    assert [span.error for span in spans if span.name == "process A/OUTPUT"] == [None, "ValueError", None]
    assert len({span.trace_id for span in spans}) == 3


class Ends(ez.Unit):
    INPUT = ez.InputStream(int)

    @ez.subscriber(INPUT)
    async def take(self, number: int) -> None:
        raise ez.NormalTermination


def test_who_ends_the_run_is_not_warned_of_as_backpressure(caplog: pytest.LogCaptureFixture) -> None:
    class Endless(ez.Unit):
        OUTPUT = ez.OutputStream(int)

        @ez.publisher(OUTPUT)
        async def publish(self) -> AsyncIterator[Any]:
            while True:
                yield self.OUTPUT, 0

    source, sink = Endless(), Ends()
    ez.run(SOURCE=source, SINK=sink, connections=[(source.OUTPUT, sink.INPUT)])
    assert "backpressure" not in caplog.text


def test_who_is_cancelled_can_publish_last_words_to_who_has_ended_the_run(caplog: pytest.LogCaptureFixture) -> None:
    has_said: list[int] = []

    class Flushes(ez.Unit):
        OUTPUT = ez.OutputStream(int, num_buffers=2)

        @ez.publisher(OUTPUT)
        async def publish(self) -> AsyncIterator[Any]:
            yield self.OUTPUT, 0
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                for number in range(5):
                    yield self.OUTPUT, number
                    has_said.append(number)
                raise

    source, sink = Flushes(), Ends()
    ez.run(SOURCE=source, SINK=sink, connections=[(source.OUTPUT, sink.INPUT)])
    assert has_said == [0, 1, 2, 3, 4]
    assert "although it was cancelled" not in caplog.text


async def test_who_ends_the_run_holds_up_nobody_else_while_units_shut_down(
    server: GraphServer, context: ez.GraphContext, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = await context.publisher("T")
    is_shutting_down, has_published = threading.Event(), threading.Event()
    was_free: list[bool] = []

    class Slow(Ends):
        async def shutdown(self) -> None:
            is_shutting_down.set()
            was_free.append(await asyncio.to_thread(has_published.wait, 10.0))

    sink = Slow()
    runner = ez.GraphRunner(SINK=sink, connections=[("T", sink.INPUT)], graph_address=server.address)
    async with asyncio.timeout(20), running(runner, context):
        await publisher.broadcast(0)
        await asyncio.to_thread(is_shutting_down.wait)
        for number in range(2 * publisher.num_buffers):
            await publisher.broadcast(number)
        has_published.set()
    assert was_free == [True]
    assert "backpressure" not in caplog.text

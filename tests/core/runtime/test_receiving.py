"""What is measured of the tasks of units, whatever they do with their messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import ezmsg.core as ez
from ezmsg.core import config
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import ProcessProfilingSnapshot, TraceSpan
from ezmsg.core.processclient import ProcessControlClient
from ezmsg.core.profiling import PROFILES
from ezmsg.core.runtime.receiving import TURNS_AFTER_S, receive
from tests.core.rununits import Counter, CounterSettings


class Leaky(ez.Unit):
    """Fails with its first message, and ends the run with its second."""

    INPUT = ez.InputStream(int, leaky=True, max_queue=8)
    OUTPUT = ez.OutputStream(int)
    seen = 0

    @ez.subscriber(INPUT)
    @ez.publisher(OUTPUT)
    async def take(self, number: int) -> AsyncIterator[Any]:
        self.seen += 1
        with ez.profile("work"):
            await asyncio.sleep(0)
        yield self.OUTPUT, number
        if self.seen == 1:
            raise ValueError(number)
        raise ez.NormalTermination


class Fails(ez.Unit):
    @ez.task
    async def run(self) -> None:
        raise LookupError


@pytest.fixture
def traced() -> Iterator[None]:
    PROFILES.trace_batch(100_000, "receiving")
    PROFILES.set_trace_sampling(0, ratio=1)
    yield
    PROFILES.set_trace_sampling(config.trace_rate_hz(), config.trace_ratio())


async def run(**units: ez.Unit) -> tuple[list[TraceSpan], ProcessProfilingSnapshot]:
    source, leaky = Counter(CounterSettings(2)), Leaky()
    connections = [(source.OUTPUT, leaky.INPUT)]
    await asyncio.to_thread(
        ez.run, SOURCE=source, LEAKY=leaky, connections=connections, force_single_process=True, **units
    )
    # What is read after a graph was left comes from elsewhere than what was read before.
    spans = sorted(PROFILES.trace_batch(100_000, "receiving").spans, key=lambda span: span.start_unix_ns)
    return spans, PROFILES.snapshot()


@pytest.mark.usefixtures("traced")
async def test_a_leaky_task_is_measured_to_its_end_with_its_error() -> None:
    spans, _ = await run()
    processing = [span for span in spans if span.name == "process SOURCE/OUTPUT"]
    assert [span.error for span in processing] == ["ValueError", None]
    for span in processing:
        within = [it for it in spans if it.parent_span_id == span.span_id and it.name != "process LEAKY/OUTPUT"]
        assert sorted(it.name for it in within) == ["publish LEAKY/OUTPUT", "work"]
        assert all(span.start_unix_ns <= it.start_unix_ns <= it.end_unix_ns <= span.end_unix_ns for it in within)


WAITING = 2000
"""Messages in a queue, each of which blocks the loop longer than it may be; many, for a busy machine answers late."""


@pytest.mark.parametrize("leaky", [False, True])
async def test_a_task_that_never_waits_lets_requests_be_answered_between_two_messages(
    context: GraphContext, leaky: bool
) -> None:
    publisher = await context.publisher("T", num_buffers=WAITING)
    subscriber = await context.subscriber("T", leaky=leaky, max_queue=WAITING - 1)
    process = ProcessControlClient(context.graph_address)
    await process.connect()
    for number in range(WAITING):
        await publisher.broadcast(number)
    handled: list[int] = []

    async def block(number: int) -> None:
        handled.append(number)
        time.sleep(1.1 * TURNS_AFTER_S)

    receiving = asyncio.create_task(receive(subscriber, block, lambda error: True, lambda: False, leaky=leaky))
    await context.process_ping(process_id=process.client_id, timeout=40)
    at_ping = len(handled)
    receiving.cancel()
    await asyncio.wait([receiving])
    assert receiving.cancelled()
    assert 0 < at_ping <= len(handled) < WAITING - 1
    await process.close()


@pytest.mark.parametrize(("ending", "is_closed"), [(ez.Complete, True), (ez.NormalTermination, False)])
async def test_only_a_task_that_ends_the_run_leaves_its_subscriber_to_the_run(
    context: GraphContext, ending: type[Exception], is_closed: bool
) -> None:
    publisher, subscriber = await context.publisher("T"), await context.subscriber("T")
    await publisher.broadcast(0)

    async def end(message: int) -> None:
        raise ending

    with pytest.raises(ending):
        await receive(subscriber, end, lambda error: True, lambda: False)
    assert ("closed" in repr(subscriber)) == is_closed


async def test_an_error_of_a_task_without_messages_is_counted() -> None:
    _, snapshot = await run(FAILS=Fails())
    assert snapshot.process is not None
    assert snapshot.process.task_errors[("FAILS", "run", "LookupError")] >= 1

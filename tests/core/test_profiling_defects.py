"""What ezmsg 3.9.0 gets wrong when it measures: each test fails there, by what it shows through the API of 3.9."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import ProcessProfilingTraceBatch, ProfilingTraceControl
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.processclient import ProcessControlClient
from ezmsg.core.profiling import TRACE_MAX_SAMPLES

UNIT = "UNIT"


class Measured:
    """A process with a publisher and a subscriber, and two sessions that look at it."""

    def __init__(self, one: GraphContext, other: GraphContext, publisher: Any, subscriber: Any) -> None:
        self.one, self.other, self._publisher, self._subscriber = one, other, publisher, subscriber

    async def pass_messages(self, count: int, hold_s: float = 0.0) -> None:
        for number in range(count):
            await self._publisher.broadcast(number)
            async with self._subscriber.recv_zero_copy():
                if hold_s:
                    await asyncio.sleep(hold_s)

    async def pass_messages_that_wait(self, count: int) -> None:
        """Each of them waits for the one before it."""

        async def receive() -> None:
            for _ in range(count):
                async with self._subscriber.recv_zero_copy():
                    await asyncio.sleep(0.001)

        receiving = asyncio.create_task(receive())
        for number in range(count):
            await self._publisher.broadcast(number)
        await receiving

    async def trace(self, **control: Any) -> None:
        answer = await self.one.process_set_profiling_trace(UNIT, ProfilingTraceControl(enabled=True, **control))
        assert answer.ok

    async def batch(self, context: GraphContext) -> ProcessProfilingTraceBatch:
        return await context.process_profiling_trace_batch(UNIT, max_samples=100_000)

    async def values(self, metric: str) -> list[float]:
        return [sample.value for sample in (await self.batch(self.one)).samples if sample.metric == metric]


@asynccontextmanager
async def measured(server: GraphServer, num_buffers: int = 32) -> AsyncIterator[Measured]:
    process = ProcessControlClient(server.address)
    # What was recorded stays here, for those who ask.
    process._trace_push_interval_s = 60.0  # type: ignore[attr-defined]
    await process.connect()
    await process.register([UNIT])
    async with GraphContext(server.address) as one, GraphContext(server.address) as other:
        publisher = await one.publisher("T", num_buffers=num_buffers)
        subscriber = await one.subscriber("T")
        yield Measured(one, other, publisher, subscriber)
        await one.process_set_profiling_trace(UNIT, ProfilingTraceControl(enabled=False))
    await process.close()


async def test_two_readers_of_snapshots_do_not_share_a_window(server: GraphServer) -> None:
    async with measured(server) as process:
        for context in (process.one, process.other):
            await context.process_profiling_snapshot(UNIT)
        await process.pass_messages(5)
        seen: list[int] = []
        for context in (process.one, process.other):
            [publisher] = (await context.process_profiling_snapshot(UNIT)).publishers.values()
            seen.append(publisher.messages_published_window)
    assert seen == [5, 5]


async def test_an_interval_is_between_consecutive_messages_however_few_are_sampled(server: GraphServer) -> None:
    async with measured(server) as process:
        await process.trace(sample_mod=10)
        await process.pass_messages(100, hold_s=0.002)
        of_tenth = await process.values("publish_delta_ns")
        await process.trace(sample_mod=1)
        await process.pass_messages(30, hold_s=0.002)
        of_each = await process.values("publish_delta_ns")
    # 3.9 shows the time since the last sampled message, ten times as much.
    assert median(of_tenth) < 5 * median(of_each)


async def test_waits_are_sampled_like_messages(server: GraphServer) -> None:
    async with measured(server, num_buffers=1) as process:
        await process.trace(sample_mod=10)
        await process.pass_messages_that_wait(40)
        waits = await process.values("backpressure_wait_ns")
    assert 0 < len(waits) <= 4


async def test_reading_a_trace_takes_nothing_from_another_reader(server: GraphServer) -> None:
    async with measured(server) as process:
        await process.trace(metrics=["publish_delta_ns"])
        await process.pass_messages(5)
        seen = [len((await process.batch(context)).samples) for context in (process.one, process.other)]
    assert seen == [5, 5]


async def test_what_a_trace_has_no_room_for_is_counted(server: GraphServer) -> None:
    async with measured(server) as process:
        await process.trace(metrics=["publish_delta_ns"])
        await process.pass_messages(TRACE_MAX_SAMPLES + 50)
        batch = await process.batch(process.one)
    assert len(batch.samples) + batch.dropped["sample:sample_store"] == TRACE_MAX_SAMPLES + 50


async def test_a_process_without_units_is_measured(server: GraphServer) -> None:
    """It registers nothing; what it was asked for is asked of its client, which no unit leads to."""
    async with GraphContext(server.address) as context:
        process = ProcessControlClient(server.address)
        await process.connect()
        async with GraphContext(server.address) as other:
            publisher = await other.publisher("T")
            await publisher.broadcast(1)
            seen = await context.profiling_snapshot_all(timeout_per_process=10)
        await process.close()
    assert [publisher.messages_published_total for one in seen.values() for publisher in one.publishers.values()] == [1]


async def test_samples_can_be_told_the_time_of_day(server: GraphServer) -> None:
    async with measured(server) as process:
        await process.trace(metrics=["publish_delta_ns"])
        before_ns = time.time_ns()
        await process.pass_messages(1)
        after_ns = time.time_ns()
        batch = await process.batch(process.one)
    [sample] = batch.samples
    unix_ns = sample.timestamp - batch.anchor_mono_ns + batch.anchor_unix_ns
    # Both clocks were read one after the other, and time has gone by since.
    assert before_ns - 1e9 < unix_ns < after_ns + 1e9

"""What a GraphContext learns of the measurements of processes: snapshots, traces and streams."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from uuid import UUID, uuid4

import pytest

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import ProcessControlErrorCode as Code
from ezmsg.core.graphmeta import (
    ProcessControlOperation,
    ProcessControlResponse,
    ProcessProfilingTraceBatch,
    ProfilingStreamControl,
    ProfilingTraceControl,
    ProfilingTraceSample,
    ProfilingTraceStreamBatch,
)
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.processclient import ProcessControlClient
from ezmsg.core.profiling import PROFILES
from tests.core.conftest import StartProcess

ON = ProfilingTraceControl(enabled=True)
OFF = ProfilingTraceControl(enabled=False)
QUIET = ProfilingTraceControl(enabled=True, level="off")


@pytest.fixture
async def process(server: GraphServer) -> AsyncIterator[ProcessControlClient]:
    process = ProcessControlClient(server.address)
    await process.register(["UNIT"])
    yield process
    PROFILES.set_trace_control(OFF)
    await process.close()


@pytest.fixture
async def another(server: GraphServer) -> AsyncIterator[GraphContext]:
    async with GraphContext(server.address) as another:
        yield another


class Flow:
    """Messages from a publisher to a subscriber."""

    def __init__(self, publisher: Any, subscriber: Any) -> None:
        self.publisher, self.subscriber = publisher, subscriber

    @classmethod
    async def open(cls, context: GraphContext, topic: str = "T") -> Flow:
        return cls(await context.publisher(topic), await context.subscriber(topic))

    async def carry(self, count: int) -> None:
        for number in range(count):
            await self.publisher.broadcast(number)
            await self.subscriber.recv()


@pytest.fixture
async def flow(context: GraphContext, process: ProcessControlClient) -> Flow:
    return await Flow.open(context)


def of(metric: str, samples: list[ProfilingTraceSample]) -> list[int | None]:
    """The message numbers of the samples of one metric."""
    return [sample.sample_seq for sample in samples if sample.metric == metric]


class Reader:
    """Reads a profiling stream."""

    def __init__(self, context: GraphContext, **control: Any) -> None:
        control.setdefault("interval", 0.01)
        self.stream = context.subscribe_profiling_trace(ProfilingStreamControl(**control))
        self.batches: list[ProfilingTraceStreamBatch] = []

    async def next(self) -> ProfilingTraceStreamBatch:
        async with asyncio.timeout(40):
            batch = await anext(self.stream)
        self.batches.append(batch)
        return batch

    async def until(self, process_id: UUID, metric: str, count: int) -> list[int | None]:
        """Read until there are so many samples of a metric."""
        while len(found := of(metric, self.samples(process_id))) < count:
            await self.next()
        return found

    def samples(self, process_id: UUID) -> list[ProfilingTraceSample]:
        entries = [batch.batches.get(process_id) for batch in self.batches]
        return [sample for entry in entries if entry is not None for sample in entry.samples]


# -- snapshots ------------------------------------------------------------------------------------------------------


async def test_every_context_has_a_window_of_its_own(
    context: GraphContext, another: GraphContext, process: ProcessControlClient, flow: Flow
) -> None:
    async def window(reader: GraphContext) -> tuple[bool, int, int, int]:
        snapshot = await reader.process_profiling_snapshot("UNIT")
        [sent], [received] = snapshot.publishers.values(), snapshot.subscribers.values()
        assert (sent.publish_rate_hz_window > 0) == (sent.messages_published_window > 0)
        return (
            snapshot.window_seconds > 0,
            sent.messages_published_total,
            sent.messages_published_window,
            received.messages_received_window,
        )

    await flow.carry(2)
    assert await window(context) == (False, 2, 0, 0)
    await flow.carry(3)
    assert await window(context) == (True, 5, 3, 3)
    assert await window(another) == (False, 5, 0, 0)
    await flow.carry(4)
    assert await window(another) == (True, 9, 4, 4)
    assert await window(context) == (True, 9, 4, 4)
    assert await window(context) == (True, 9, 0, 0)


async def test_a_context_is_one_reader_however_it_asks(
    context: GraphContext, process: ProcessControlClient, flow: Flow
) -> None:
    await flow.carry(1)
    await context.process_profiling_snapshot(process_id=process.process_id)
    await flow.carry(2)
    [snapshot] = (await context.profiling_snapshot_all()).values()
    [sent] = snapshot.publishers.values()
    assert (sent.messages_published_total, sent.messages_published_window) == (3, 2)


async def test_connecting_forgets_nothing_that_was_measured(server: GraphServer, context: GraphContext) -> None:
    flow = await Flow.open(context)
    await flow.carry(3)
    late = ProcessControlClient(server.address)
    await late.connect()
    snapshot = await context.process_profiling_snapshot(process_id=late.process_id)
    [sent] = snapshot.publishers.values()
    assert (snapshot.process_id, sent.messages_published_total) == (late.process_id, 3)
    await late.close()


async def test_endpoints_vanish_from_snapshots_when_they_close(
    context: GraphContext, process: ProcessControlClient, flow: Flow
) -> None:
    flow.publisher.close()
    await flow.publisher.wait_closed()
    snapshot = await context.process_profiling_snapshot("UNIT")
    assert (len(snapshot.publishers), len(snapshot.subscribers)) == (0, 1)


async def test_a_snapshot_tells_of_the_process_and_of_messages_that_wait(
    context: GraphContext, process: ProcessControlClient
) -> None:
    flow = await Flow.open(context)
    await flow.publisher.broadcast(1)
    await flow.publisher.broadcast(2)
    async with asyncio.timeout(40):
        while "main" not in (snapshot := await context.process_profiling_snapshot("UNIT")).process.loop_lag:
            await asyncio.sleep(0.01)
    assert snapshot.process.memory_bytes > 1_000_000
    assert snapshot.process.cpu_user_seconds > 0
    assert [edge.counters["queue_depth"] for edge in snapshot.edges if edge.subscription == "T"] == [2]
    await flow.subscriber.recv()
    snapshot = await context.process_profiling_snapshot("UNIT")
    assert [edge.counters["queue_depth"] for edge in snapshot.edges if edge.subscription == "T"] == [1]


async def test_snapshots_of_several_processes_are_keyed_by_client_id(
    server: GraphServer, context: GraphContext, process: ProcessControlClient, start_process: StartProcess
) -> None:
    worker = await start_process("own", server.address, "OTHER")
    await worker.tell("5")
    assert await worker.line() == "published"
    async with asyncio.timeout(40):
        snapshots = await context.profiling_snapshot_all(timeout_per_process=20)
    other = UUID(worker.ready)
    assert set(snapshots) == {process.process_id, other}
    assert {snapshot.process_id for snapshot in snapshots.values()} == set(snapshots)
    assert snapshots[other].pid == worker.process.pid
    [sent] = snapshots[other].publishers.values()
    assert (sent.topic, sent.messages_published_total) == ("OTHER/OUT", 5)


# -- traces ---------------------------------------------------------------------------------------------------------


async def test_every_context_reads_all_samples_once_and_oldest_first(
    context: GraphContext, another: GraphContext, process: ProcessControlClient, flow: Flow
) -> None:
    assert (await context.process_set_profiling_trace("UNIT", ON)).ok
    await flow.carry(6)
    first = await context.process_profiling_trace_batch("UNIT", max_samples=4)
    assert len(first.samples) == 4
    rest = await context.process_profiling_trace_batch(process_id=process.process_id)
    samples = first.samples + rest.samples
    assert [sample.timestamp for sample in samples] == sorted(sample.timestamp for sample in samples)
    assert of("publish_delta_ns", samples) == of("lease_time_ns", samples) == [0, 1, 2, 3, 4, 5]
    assert (await context.process_profiling_trace_batch("UNIT")).samples == []
    assert (await another.process_profiling_trace_batch("UNIT")).samples == samples
    assert rest.process_id == process.process_id
    assert rest.timestamp > 0


async def test_a_trace_can_be_set_by_process_id_and_filters(
    context: GraphContext, process: ProcessControlClient
) -> None:
    one, two = await Flow.open(context, "ONE"), await Flow.open(context, "TWO")
    control = ProfilingTraceControl(enabled=True, sample_mod=3, publisher_topics=["ONE"], metrics=["publish_delta_ns"])
    assert (await context.process_set_profiling_trace(None, control, process_id=process.process_id)).ok
    for flow in (one, two):
        await flow.carry(9)
    samples = (await context.process_profiling_trace_batch("UNIT")).samples
    assert [(sample.topic, sample.metric, sample.sample_seq) for sample in samples] == [
        ("ONE", "publish_delta_ns", number) for number in (2, 5, 8)
    ]


async def test_a_control_for_the_whole_graph_reaches_every_process_and_tells_what_each_said(
    server: GraphServer, context: GraphContext, process: ProcessControlClient, flow: Flow
) -> None:
    other = ProcessControlClient(server.address)
    await other.connect()
    processes = {process.client_id, other.client_id}
    answers = await context.set_profiling_trace_all(ProfilingTraceControl(True, metrics=[], level="off"))
    assert {process_id for process_id, answer in answers.items() if answer.ok} == processes
    await flow.carry(3)
    answers = await context.set_profiling_trace_all(ProfilingTraceControl(True, metrics=[], level="loud"))
    assert {answer.error_code for answer in answers.values()} == {Code.INVALID_RESPONSE}
    await context.set_profiling_trace_all(OFF)
    await flow.carry(2)
    [publisher] = (edge for edge in PROFILES.snapshot().edges if edge.subscription is None)
    assert (publisher.counters["sent"], publisher.histograms["publish"].count) == (5, 2)
    await other.close()


async def control_all(context: GraphContext, control: ProfilingTraceControl) -> dict[UUID, ProcessControlResponse]:
    """The answers of all processes, of which there is one at least whose telemetry link is on the way."""
    async with asyncio.timeout(20):
        while not (answers := await context.set_profiling_trace_all(control)):
            await asyncio.sleep(0.01)
    return answers


async def test_a_process_without_a_client_is_switched_live_and_collects_no_samples(
    server: GraphServer, context: GraphContext
) -> None:
    flow = await Flow.open(context, "PLAIN")

    def published() -> tuple[int, int]:
        [publisher] = (edge for edge in PROFILES.snapshot().edges if edge.subscription is None)
        durations = publisher.histograms.get("publish")
        return publisher.counters["sent"], 0 if durations is None else durations.count

    [(process_id, answer)] = (await control_all(context, ProfilingTraceControl(True, trace_ratio=1.0))).items()
    assert answer.ok
    assert process_id not in (await context.snapshot()).processes
    await flow.carry(2)
    assert published() == (2, 2)
    batch = await context.process_profiling_trace_batch(process_id=process_id, max_samples=100_000)
    spans = [span.name for span in batch.spans if span.name.endswith(" PLAIN")]
    assert (spans, batch.samples) == (["publish PLAIN", "process PLAIN"] * 2, [])
    assert (await context.process_set_profiling_trace(None, QUIET, process_id=process_id)).ok
    await flow.carry(3)
    assert published() == (5, 2)
    snapshot = await context.process_profiling_snapshot(process_id=process_id)
    assert [profile.messages_published_total for profile in snapshot.publishers.values()] == [5]
    [answer] = (await control_all(context, ProfilingTraceControl(True, level="loud"))).values()
    assert answer.error_code is Code.INVALID_RESPONSE
    answer = await context.process_request(None, "PAINT", process_id=process_id)
    assert answer.error_code is Code.HANDLER_NOT_CONFIGURED
    await control_all(context, OFF)
    await flow.carry(1)
    assert published() == (6, 3)


async def test_spans_of_a_process_without_a_client_are_in_streams_that_ask_for_spans(
    server: GraphServer, context: GraphContext
) -> None:
    flow = await Flow.open(context, "UNCLAIMED")
    reader = Reader(context, include_spans=True)
    ids = list(await control_all(context, ProfilingTraceControl(True, trace_ratio=1.0)))
    await flow.carry(2)
    names: list[str] = []
    while names.count("process UNCLAIMED") < 2:
        [(process_id, told)] = (await reader.next()).batches.items()
        assert ([process_id], told.samples) == (ids, [])
        names += [span.name for span in told.spans if span.name.endswith(" UNCLAIMED")]
    await context.set_profiling_trace_all(OFF)
    await reader.stream.aclose()
    assert sorted(names) == ["process UNCLAIMED"] * 2 + ["publish UNCLAIMED"] * 2


async def test_a_process_whose_client_came_after_its_link_answers_under_the_id_of_that(
    server: GraphServer, context: GraphContext
) -> None:
    await Flow.open(context)
    await control_all(context, OFF)
    process = ProcessControlClient(server.address)
    await process.connect()
    assert list(await context.set_profiling_trace_all(ON)) == [process.client_id]
    await context.set_profiling_trace_all(OFF)
    await process.close()


async def test_setting_a_trace_clears_it_for_all(
    context: GraphContext, another: GraphContext, process: ProcessControlClient, flow: Flow
) -> None:
    for control in (ON, OFF):
        await context.process_set_profiling_trace("UNIT", ON)
        await flow.carry(3)
        await another.process_set_profiling_trace("UNIT", control)
        for reader in (context, another):
            assert (await reader.process_profiling_trace_batch("UNIT")).samples == []


async def test_a_batch_is_a_thousand_samples_unless_told_otherwise(
    context: GraphContext, process: ProcessControlClient, flow: Flow
) -> None:
    control = ProfilingTraceControl(enabled=True, metrics=["lease_time_ns", "publish_delta_ns"])
    await context.process_set_profiling_trace("UNIT", control)
    await flow.carry(600)
    response = await context.process_request("UNIT", ProcessControlOperation.GET_PROFILING_TRACE_BATCH)
    assert len(context.decode_process_payload(response, ProcessProfilingTraceBatch).samples) == 1000
    assert (await context.process_profiling_trace_batch("UNIT", max_samples=0)).samples == []
    assert (await context.process_profiling_trace_batch("UNIT", max_samples=-1)).samples == []
    assert len((await context.process_profiling_trace_batch("UNIT", max_samples=10**12)).samples) == 200


@pytest.mark.parametrize("payload", [b"garbage", pickle.dumps("many"), pickle.dumps(None)])
async def test_a_limit_that_is_none_is_refused(
    context: GraphContext, process: ProcessControlClient, payload: bytes
) -> None:
    operation = ProcessControlOperation.GET_PROFILING_TRACE_BATCH
    response = await context.process_request("UNIT", operation, payload=payload)
    assert (response.ok, response.error_code) == (False, Code.INVALID_RESPONSE)


@pytest.mark.parametrize(
    "control",
    [
        None,
        {"enabled": True},
        ProfilingTraceControl(True, sample_mod="3"),  # type: ignore[arg-type]
        ProfilingTraceControl(True, publisher_topics="T"),  # type: ignore[arg-type]
        ProfilingTraceControl(True, subscriber_topics=7),  # type: ignore[arg-type]
        ProfilingTraceControl(True, metrics=[[]]),  # type: ignore[list-item]
        ProfilingTraceControl(True, ttl_seconds=float("nan")),
        ProfilingTraceControl(True, ttl_seconds="1"),  # type: ignore[arg-type]
    ],
)
async def test_a_control_that_cannot_be_used_is_refused_and_the_trace_goes_on(
    context: GraphContext, process: ProcessControlClient, flow: Flow, control: Any
) -> None:
    await context.process_set_profiling_trace("UNIT", ON)
    response = await context.process_set_profiling_trace("UNIT", control)
    assert (response.ok, response.error_code) == (False, Code.INVALID_RESPONSE)
    assert response.error
    more = await Flow.open(context, "MORE")
    await flow.carry(1)
    await more.carry(1)
    samples = (await context.process_profiling_trace_batch("UNIT")).samples
    assert {sample.topic for sample in samples} == {"T", "MORE"}


async def test_asking_a_process_that_is_not_there_names_the_code(context: GraphContext) -> None:
    for asked in (
        context.process_profiling_snapshot("NOWHERE"),
        context.process_profiling_trace_batch(process_id=uuid4()),
    ):
        with pytest.raises(RuntimeError, match="UNROUTABLE_UNIT"):
            await asked
    assert (await context.process_set_profiling_trace("NOWHERE", ON)).error_code is Code.UNROUTABLE_UNIT
    assert await context.profiling_snapshot_all() == {}


# -- streams --------------------------------------------------------------------------------------------------------


async def test_several_streams_get_everything_also_one_that_starts_late(
    context: GraphContext, another: GraphContext, process: ProcessControlClient, flow: Flow
) -> None:
    created, early = Reader(context), Reader(another)
    await context.process_set_profiling_trace("UNIT", ON)
    await flow.carry(5)
    numbers = [0, 1, 2, 3, 4]
    async with aclosing(created.stream), aclosing(early.stream):
        assert await early.until(process.process_id, "lease_time_ns", 5) == numbers
        late = Reader(context)
        async with aclosing(late.stream):
            for reader in (created, late):
                assert await reader.until(process.process_id, "lease_time_ns", 5) == numbers
            await flow.carry(1)
            for reader in (created, early, late):
                assert await reader.until(process.process_id, "lease_time_ns", 6) == [*numbers, 5]
                assert of("publish_delta_ns", reader.samples(process.process_id)) == [*numbers, 5]


async def test_streams_and_batches_take_nothing_from_each_other(
    context: GraphContext, process: ProcessControlClient, flow: Flow
) -> None:
    await context.process_set_profiling_trace("UNIT", ON)
    await flow.carry(4)
    reader = Reader(context)
    async with aclosing(reader.stream):
        await reader.until(process.process_id, "lease_time_ns", 4)
        pulled = await context.process_profiling_trace_batch("UNIT")
        assert sorted(map(repr, pulled.samples)) == sorted(map(repr, reader.samples(process.process_id)))


async def test_a_stream_gives_so_many_samples_at_once_in_unix_time(
    context: GraphContext, process: ProcessControlClient, flow: Flow
) -> None:
    await context.process_set_profiling_trace("UNIT", ON)
    await flow.carry(10)
    reader = Reader(context, max_samples=3)
    async with aclosing(reader.stream):
        await reader.until(process.process_id, "lease_time_ns", 10)
    for batch in reader.batches:
        assert batch.timestamp > 1.7e9
        [entry] = batch.batches.values()
        assert 0 < len(entry.samples) <= 3
        assert 0 < entry.timestamp < 1e18  # PROFILE_TIME
        assert entry.process_id == process.process_id


async def test_unknown_processes_are_empty_entries_where_those_are_wanted(
    context: GraphContext, process: ProcessControlClient
) -> None:
    unknown = uuid4()
    reader = Reader(context, process_ids=[unknown, process.process_id], include_empty_batches=True)
    async with aclosing(reader.stream):
        batch = await reader.next()
    assert list(batch.batches) == [unknown, process.process_id]
    assert (batch.batches[unknown].pid, batch.batches[unknown].samples) == (-1, [])
    assert batch.batches[unknown].process_id == unknown
    assert batch.batches[unknown].timestamp > 0


async def test_a_process_without_endpoints_is_known_to_streams(
    server: GraphServer, context: GraphContext, start_process: StartProcess
) -> None:
    bare = ProcessControlClient(server.address)
    await bare.connect()
    reader = Reader(context, include_empty_batches=True)
    async with aclosing(reader.stream):
        entry = (await reader.next()).batches[bare.process_id]
        assert (entry.pid, entry.samples) == ((await context.process_ping(process_id=bare.process_id)).pid, [])
        gone = bare.process_id
        worker = await start_process("own", server.address, "UNIT")
        await bare.close()
        # Batches that were made before are still on their way.
        while gone in (await reader.next()).batches or not reader.batches[-1].batches:
            pass
        assert list(reader.batches[-1].batches) == [UUID(worker.ready)]


async def test_without_empty_batches_only_processes_with_samples_come(
    server: GraphServer, context: GraphContext, process: ProcessControlClient, start_process: StartProcess
) -> None:
    worker = await start_process("own", server.address, "OTHER")
    other = UUID(worker.ready)
    all_of_them, only_ours = Reader(context), Reader(context, process_ids=[process.process_id])
    assert (await context.process_set_profiling_trace("OTHER", ON, timeout=40)).ok
    await worker.tell("3")
    assert await worker.line() == "published"
    async with aclosing(all_of_them.stream), aclosing(only_ours.stream):
        assert await all_of_them.until(other, "publish_delta_ns", 3) == [0, 1, 2]
        assert all(set(batch.batches) == {other} for batch in all_of_them.batches)
        assert all_of_them.batches[0].batches[other].pid == worker.process.pid
        await context.process_set_profiling_trace("UNIT", ON)
        flow = await Flow.open(context)
        await flow.carry(2)
        assert await only_ours.until(process.process_id, "lease_time_ns", 2) == [0, 1]
        assert all(set(batch.batches) == {process.process_id} for batch in only_ours.batches)


async def test_samples_go_under_the_latest_client_still_open(
    server: GraphServer, context: GraphContext, process: ProcessControlClient, flow: Flow
) -> None:
    later = ProcessControlClient(server.address)
    await later.connect()
    await context.process_set_profiling_trace("UNIT", ON)
    await flow.carry(2)
    reader = Reader(context)
    async with aclosing(reader.stream):
        assert await reader.until(later.process_id, "lease_time_ns", 2) == [0, 1]
        await later.close()
        await flow.carry(1)
        assert await reader.until(process.process_id, "lease_time_ns", 1) == [2]


async def test_a_stream_gets_what_a_process_measured_up_to_its_end(
    context: GraphContext, process: ProcessControlClient, flow: Flow
) -> None:
    reader, process_id = Reader(context), process.process_id
    PROFILES.set_trace_control(ON)
    await flow.carry(1)
    await reader.until(process_id, "lease_time_ns", 1)
    await flow.carry(50)
    await process.close()
    assert await reader.until(process_id, "lease_time_ns", 51) == list(range(51))
    await reader.stream.aclose()


async def test_a_stream_connects_at_its_first_batch_and_ends_silently_with_the_server(
    server: GraphServer, context: GraphContext, process: ProcessControlClient
) -> None:
    unused = Reader(context)
    reader = Reader(context, include_empty_batches=True)
    await reader.next()
    await asyncio.to_thread(server.stop)
    async with asyncio.timeout(40):
        async for _ in reader.stream:
            pass
    assert (reader.stream.ended, unused.stream.ended) == ("the GraphServer stops", "")
    await unused.stream.aclose()


@pytest.mark.parametrize("control", [{"max_samples": 7}, {"include_empty_batches": True}])
async def test_a_stream_that_is_not_due_yet_gets_all_that_was_measured_when_its_server_stops(
    server: GraphServer, context: GraphContext, process: ProcessControlClient, flow: Flow, control: dict[str, Any]
) -> None:
    PROFILES.set_trace_control(ON)
    await flow.carry(1)
    assert await PROFILES.flushed(40)
    reader = Reader(context, interval=3600.0, **control)
    async with aclosing(reader.stream):
        assert await reader.until(process.process_id, "lease_time_ns", 1) == [0]
        await flow.carry(50)
        server.stop()  # nor can this loop read meanwhile
        async with asyncio.timeout(40):
            async for batch in reader.stream:
                reader.batches.append(batch)
    assert of("lease_time_ns", reader.samples(process.process_id)) == list(range(51))
    assert "stops" in reader.stream.ended


async def test_a_stream_that_is_not_read_is_held_back_and_gets_the_rest_when_its_server_stops(
    server: GraphServer,
    context: GraphContext,
    process: ProcessControlClient,
    flow: Flow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ezmsg.core.server.telemetry.STREAM_AHEAD", 20)
    PROFILES.set_trace_control(ON)
    reader = Reader(context, max_samples=1)
    async with aclosing(reader.stream):
        await flow.carry(1)
        await reader.next()
        await flow.carry(20)
        # Beyond what is sent ahead: only the reader makes room for more.
        while len(reader.batches) < 30:
            await reader.next()
        await flow.carry(20)
        await asyncio.to_thread(server.stop)
        async with asyncio.timeout(40):
            async for batch in reader.stream:
                reader.batches.append(batch)
    assert of("lease_time_ns", reader.samples(process.process_id)) == list(range(41))
    assert "stops" in reader.stream.ended


async def test_what_a_server_that_stops_has_no_time_to_tell_is_counted(
    server: GraphServer,
    context: GraphContext,
    process: ProcessControlClient,
    flow: Flow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ezmsg.core.server.telemetry.STREAM_FINISH_TIMEOUT_S", 0.01)
    PROFILES.set_trace_control(ON)
    await flow.carry(1)
    assert await PROFILES.flushed(40)
    reader = Reader(context, interval=3600.0, max_samples=1)
    async with aclosing(reader.stream):
        await reader.next()
        await flow.carry(400)
        server.stop()
        async with asyncio.timeout(40):
            async for batch in reader.stream:
                reader.batches.append(batch)
    told, dropped = reader.samples(process.process_id), reader.batches[-1].batches[process.process_id].dropped
    assert dropped["sample:server_stopped"] > 0
    assert len(told) + dropped["sample:server_stopped"] == 401 * 5  # as each message has


async def test_a_stream_that_is_closed_is_over(context: GraphContext, process: ProcessControlClient) -> None:
    reader = Reader(context, include_empty_batches=True)
    await reader.next()
    await reader.stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(reader.stream)

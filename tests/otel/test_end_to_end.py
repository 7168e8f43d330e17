"""A graph of three processes, its telemetry read natively and over OTLP from the agent that its server starts."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from examples.otlp_receiver import GrpcReceiver, HttpReceiver, Receiver
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import ProfilingStreamControl, TraceSpan
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.telemetry import pump

CHAIN = Path(__file__).with_name("chain.py")
MESSAGES = 300
SPANS = 4 * MESSAGES  # publish, process, publish, process


@pytest.fixture(params=["http", "grpc"])
def receiver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver, and a configuration that sends there."""
    with HttpReceiver() if request.param == "http" else GrpcReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", receiver.protocol)
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")  # longer than anybody here is to wait
        monkeypatch.setenv("EZMSG_TRACE_RATIO", "1")
        yield receiver


@pytest.fixture
def server(receiver: Receiver) -> Iterator[GraphServer]:
    """A server that starts an agent of its own."""
    server = GraphServer()
    server.start("127.0.0.1:0")
    yield server
    server.stop()


def agents() -> list[psutil.Process]:
    """The agents this process has started, and that still run."""
    return [child for child in psutil.Process().children() if is_agent(child)]


def is_agent(process: psutil.Process) -> bool:
    """Whether it is one, and not at its end."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and "ezmsg.otel" in process.cmdline()
    except psutil.Error:
        return False


def sent_and_consumed(receiver: Receiver) -> tuple[int | float, int | float]:
    """The last totals of the source's messages."""
    topic = {"messaging.destination.name": "SOURCE/OUT"}
    sent = receiver.store.points("messaging.client.sent.messages", **topic)
    consumed = receiver.store.points("messaging.client.consumed.messages", **topic)
    return sent[-1].value if sent else 0, consumed[-1].value if consumed else 0


class Chain:
    """Three processes that pass messages on."""

    def __init__(self, address: str, count: int) -> None:
        self._command = [sys.executable, str(CHAIN)]
        self._arguments = [address, str(count)]
        self._processes: dict[str, subprocess.Popen[str]] = {}

    async def __aenter__(self) -> Chain:
        for role in ("sink", "relay", "source"):
            self._processes[role] = subprocess.Popen(
                [*self._command, role, *self._arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert await self._line(role) == "ready"
        return self

    async def run(self) -> None:
        """Send every message through the chain."""
        source = self._processes["source"].stdin
        assert source is not None
        source.write("go\n")
        source.flush()
        assert await self._line("source") == "sent"
        assert await self._line("sink") == "received"

    async def _line(self, role: str) -> str:
        stdout = self._processes[role].stdout
        assert stdout is not None
        return (await asyncio.wait_for(asyncio.to_thread(stdout.readline), 40)).strip()

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes.values():
            with contextlib.suppress(BrokenPipeError):
                process.communicate(timeout=40)


@contextlib.asynccontextmanager
async def native_spans(context: GraphContext) -> AsyncIterator[list[TraceSpan]]:
    """Everything the native stream delivers meanwhile."""
    spans: list[TraceSpan] = []

    async def collect() -> None:
        stream = context.subscribe_profiling_trace(ProfilingStreamControl(max_samples=10_000, include_spans=True))
        async with contextlib.aclosing(stream):
            async for delivery in stream:
                for batch in delivery.batches.values():
                    spans.extend(batch.spans)
                    assert not batch.dropped

    task = asyncio.create_task(collect())
    yield spans
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def until(condition: object, timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.02)


async def test_spans_of_every_hop_arrive_over_otlp_as_in_the_native_stream_id_for_id(
    receiver: Receiver, server: GraphServer
) -> None:
    async with GraphContext(server.address) as context, native_spans(context) as native:
        async with Chain(str(server.address), MESSAGES) as chain:
            await chain.run()
            await until(lambda: len(native) >= SPANS)
        await until(lambda: len(receiver.store.spans) >= SPANS)
    await asyncio.to_thread(server.stop)

    received = Counter(span.span_id for span in receiver.store.spans)
    assert received == Counter(span.span_id for span in native)
    assert set(received.values()) == {1}
    assert len(received) == SPANS

    by_trace = receiver.store.traces()
    assert len(by_trace) == MESSAGES
    for spans in by_trace.values():
        by_id = {span.span_id: span for span in spans}
        chain_of_names: list[str] = []
        [span] = [span for span in spans if not span.parent_span_id]
        while True:
            chain_of_names.append(span.span.name)
            children = [other for other in spans if other.parent_span_id == span.span_id]
            if not children:
                break
            [span] = children
        assert chain_of_names == [
            "publish SOURCE/OUT", "process SOURCE/OUT", "publish RELAY/OUT", "process RELAY/OUT"
        ]  # fmt: skip
        assert len(by_id) == 4

    metrics = receiver.store.metric_names()
    assert metrics >= {
        "messaging.client.sent.messages",
        "messaging.client.consumed.messages",
        "messaging.client.operation.duration",
        "messaging.process.duration",
        "ezmsg.channel.transport.duration",
        "ezmsg.subscriber.queue.duration",
        "ezmsg.message.age",
        "ezmsg.publisher.backpressure.time",
        "ezmsg.subscriber.dropped.messages",
        "ezmsg.telemetry.recorded",
        "ezmsg.telemetry.dropped",
    }
    sent = {"messaging.destination.name": "SOURCE/OUT"}
    assert max(point.value for point in receiver.store.points("messaging.client.sent.messages", **sent)) == MESSAGES
    for destination in ("SOURCE/OUT", "RELAY/OUT"):
        points = receiver.store.points(
            "messaging.client.consumed.messages", **{"messaging.destination.name": destination}
        )
        assert max(point.value for point in points) == MESSAGES


@pytest.mark.parametrize("receiver", ["http"], indirect=True)
async def test_a_bad_receiver_costs_the_graph_nothing_and_the_agent_ends_when_told(
    receiver: Receiver, server: GraphServer
) -> None:
    receiver.behave("slow", seconds=600)
    [agent] = agents()
    async with GraphContext(server.address):
        async with Chain(str(server.address), 20 * MESSAGES) as chain:
            await chain.run()
        # Spans that nobody takes are dropped, not hoarded.
        assert agent.memory_info().rss < 400e6
    await asyncio.wait_for(asyncio.to_thread(server.stop), 40)
    assert not agent.is_running()


@pytest.mark.parametrize("receiver", ["http"], indirect=True)
async def test_a_run_that_is_over_before_its_agent_is_there_waits_for_it(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ezmsg.core.server.agent.JOIN_TIMEOUT_S", 30.0)  # of 1.5; nothing here is about durations
    server = GraphServer()
    server.start("127.0.0.1:0")
    async with GraphContext(server.address) as context:
        publisher = await context.publisher("SOURCE/OUT")
        for number in range(3):
            await publisher.broadcast(number)
        assert await asyncio.to_thread(pump.flush, 30)
    await asyncio.to_thread(server.stop)
    assert sent_and_consumed(receiver) == (3, 0)


@pytest.mark.parametrize("receiver", ["http"], indirect=True)
async def test_an_agent_that_is_killed_is_started_again_doubles_nothing_and_counts_what_is_lost(
    receiver: Receiver, server: GraphServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ezmsg.core.server.agent.FIRST_WAIT_S", 0.01)
    async with GraphContext(server.address) as context, native_spans(context) as native:
        async with Chain(str(server.address), MESSAGES) as chain:
            await chain.run()
            await until(lambda: len(receiver.store.spans) >= SPANS)
            receiver.behave("black_hole")
            already = receiver.requests
            await chain.run()
            await until(lambda: len(native) >= 2 * SPANS and receiver.requests > already)
            [agent] = agents()
            agent.kill()
            await until(lambda: [other.pid for other in agents()] not in ([agent.pid], []))
            receiver.behave("ok")
            await chain.run()
            # The new agent has joined and exports.
            await until(lambda: len(receiver.store.spans) > SPANS)
        await until(lambda: len(native) >= 3 * SPANS)
    await asyncio.to_thread(server.stop)

    received = Counter(span.span_id for span in receiver.store.spans)
    assert max(received.values()) == 1
    assert received.keys() <= {span.span_id for span in native}
    lost = {
        (point.resource["service.instance.id"], point.attributes["ezmsg.telemetry.reason"]): point.value
        for point in receiver.store.points("ezmsg.telemetry.dropped", ezmsg__telemetry__kind="span")
    }
    assert len(received) + sum(lost.values()) == 3 * SPANS == len(native)
    assert any(reason == "exporter_gone" and count for (_, reason), count in lost.items())
    assert sent_and_consumed(receiver) == (3 * MESSAGES, 3 * MESSAGES)


@pytest.mark.parametrize("receiver", ["http"], indirect=True)
async def test_the_culprit_of_a_complete_stall_is_exported_while_it_lasts(
    receiver: Receiver, server: GraphServer
) -> None:
    def caused(topic: str) -> list[float]:
        name, subscription = "ezmsg.graph.backpressure.culprit", {"messaging.destination.subscription.name": topic}
        return [point.value for point in receiver.store.points(name, **subscription)]

    async with GraphContext(server.address) as context:
        await context.connect("SOURCE", "RELAY.IN")
        await context.connect("RELAY.OUT", "SINK")
        source = await context.publisher("SOURCE", num_buffers=1)
        onward = await context.publisher("RELAY.OUT", num_buffers=1)
        relay, sink = await context.subscriber("RELAY.IN"), await context.subscriber("SINK")

        async def feed() -> None:
            while True:
                await source.broadcast("data")

        async def pass_on() -> None:
            while True:
                async with relay.recv_zero_copy() as message:
                    await onward.broadcast(message)

        tasks = [asyncio.create_task(feed()), asyncio.create_task(pass_on())]
        async with sink.recv_zero_copy():
            await until(lambda: len(caused("SINK")) > 1 and caused("SINK")[-1] > caused("SINK")[0] > 0)
            assert sum(caused("RELAY.IN")[-1:]) < 0.1 * caused("SINK")[-1]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

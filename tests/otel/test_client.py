"""The agent's connection, against a server that does as it is told."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from ezmsg.core.errors import ExporterLeased, EzmsgError, Refused, ServerUnreachable, TlsRequired
from ezmsg.core.net.address import Address
from ezmsg.core.net.authkey import load_key
from ezmsg.core.net.connection import Connection
from ezmsg.core.net.listener import Listener, bind_tcp
from ezmsg.core.wire.handshake import PeerInfo
from ezmsg.core.wire.records import (
    ClockAnchor,
    Done,
    DrainTelemetry,
    GetGraph,
    Goodbye,
    GraphState,
    OpenTelemetryReader,
    ProcessTelemetry,
    Record,
    ServerTelemetry,
    StreamOpened,
    TelemetryAck,
    TelemetryBatch,
)
from ezmsg.otel import client as module
from ezmsg.otel.agent import AgentCore
from ezmsg.otel.client import AgentClient, Place
from ezmsg.otel.outcome import Outcome
from tests import certificates
from tests.certificates import Authority
from tests.otel.feeds import FakeSender, exported_ids, first, histogram, settings, span_ids, span_rows, telemetry
from tests.ports import KeptPort

PATIENCE_S = 40.0


class FakeGraph:
    """A server that grants leases, or does not, and remembers what agents say."""

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self.refusals: list[EzmsgError] = []
        self.readers: asyncio.Queue[Connection] = asyncio.Queue()
        self.epoch = "first"
        self.openings: list[OpenTelemetryReader] = []
        self.acknowledged = 0
        self.settled: Counter[str] = Counter()
        self.heard = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._connections: list[Connection] = []

    async def start(self) -> FakeGraph:
        sock = bind_tcp("127.0.0.1", self._port, load_key())
        self.address = Address(*sock.getsockname())
        self._listener = await Listener.start([sock], load_key(), self._on_peer)
        return self

    async def stop(self) -> None:
        await self._listener.close()
        for connection in self._connections:
            await connection.close()

    def _on_peer(self, sock: socket.socket, peer: PeerInfo, name: str) -> None:
        task = asyncio.create_task(self._serve(sock, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket, peer: PeerInfo) -> None:
        self._connections.append(await Connection.over(sock, peer, self, name="agent"))

    def on_request(self, connection: Connection, record: Record) -> Record:
        assert isinstance(record, OpenTelemetryReader)
        if self.refusals:
            raise self.refusals.pop(0)
        self.readers.put_nowait(connection)
        self.openings.append(record)
        return StreamOpened(self.epoch)

    def on_notice(self, connection: Connection, record: Record) -> None:
        assert isinstance(record, TelemetryAck)
        self.acknowledged += record.count
        self.settled.update(record.settled)
        self.heard.set()

    def on_closed(self, connection: Connection, error: Exception | None) -> None:
        pass

    async def heard_that(self, is_so: Callable[[], bool]) -> None:
        """Wait until agents have said enough."""
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():
                self.heard.clear()
                await self.heard.wait()

    async def next_reader(self) -> Connection:
        return await asyncio.wait_for(self.readers.get(), PATIENCE_S)


@pytest.fixture
async def graph() -> AsyncIterator[FakeGraph]:
    graph = await FakeGraph().start()
    yield graph
    await graph.stop()


@pytest.fixture
def sender() -> FakeSender:
    return FakeSender()


@pytest.fixture
def metrics() -> FakeSender:
    return FakeSender()


@pytest.fixture
async def core(sender: FakeSender, metrics: FakeSender) -> AsyncIterator[AgentCore]:
    core = AgentCore(settings(), spans=sender, metrics=metrics)
    core.start()
    yield core
    core.stop()


Follow = Callable[..., asyncio.Task[None]]


@pytest.fixture
async def follow(core: AgentCore, graph: FakeGraph) -> AsyncIterator[Follow]:
    """Starts clients; those that still run in the end are cancelled."""
    tasks: list[asyncio.Task[None]] = []

    def start(address: str = "", patience_s: float = 0.0) -> asyncio.Task[None]:
        client = AgentClient(core, address or str(graph.address))
        tasks.append(asyncio.create_task(client.run(patience_s)))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
        await asyncio.wait([task])


def ids(sender: FakeSender) -> list[str]:
    return exported_ids(sender.batches)


async def test_deliveries_are_taken_and_acknowledged_together(graph: FakeGraph, follow: Follow) -> None:
    follow()
    server = await graph.next_reader()
    server.notify(first())
    server.notify(GraphState(["A"], [], ["h:1"]))
    for seq in range(1, 10):
        server.notify(telemetry(seq))
    await graph.heard_that(lambda: graph.acknowledged == 10)


async def test_the_server_is_told_what_became_of_the_spans_it_sent(graph: FakeGraph, follow: Follow) -> None:
    follow()
    server = await graph.next_reader()
    server.notify(first("a", spans=span_rows(10)))
    server.notify(first("b", spans=span_rows(4, 20)))
    server.notify(telemetry(1, "a", spans=span_rows(5) + span_rows(2, 30)))  # five for the second time
    await server.request(DrainTelemetry(), PATIENCE_S)
    await graph.heard_that(lambda: graph.settled == Counter({"a": 17, "b": 4}))


async def test_spans_that_are_given_up_are_settled_too(graph: FakeGraph, follow: Follow, sender: FakeSender) -> None:
    sender.outcomes = [Outcome("lost", "rejected")]
    follow()
    server = await graph.next_reader()
    server.notify(first(spans=span_rows(10) + bytes(128)))
    await server.request(DrainTelemetry(), PATIENCE_S)
    await graph.heard_that(lambda: graph.settled == Counter({"link-1": 11}))


async def test_an_agent_that_is_back_says_where_it_was_and_what_is_still_to_be_exported(
    graph: FakeGraph, follow: Follow, sender: FakeSender, core: AgentCore
) -> None:
    follow()
    server = await graph.next_reader()
    server.notify(first("a", spans=span_rows(10), position=10))
    await server.request(DrainTelemetry(), PATIENCE_S)
    server.notify(telemetry(1, "a", spans=span_rows(3, 11), position=13))
    server.notify(first("b", position=0))
    server.notify(first("gone", spans=span_rows(2, 20), position=2, gone=True))
    server.notify(first("gone and settled", position=7, gone=True))
    await graph.heard_that(lambda: graph.acknowledged == 5)
    await server.close()
    server = await graph.next_reader()
    assert graph.openings[0].positions == {}
    assert (graph.openings[1].epoch, graph.openings[1].positions) == (
        "first",
        {"a": (13, 3), "b": (0, 0), "gone": (2, 2)},
    )
    graph.settled.clear()
    await server.request(DrainTelemetry(), PATIENCE_S)
    await graph.heard_that(lambda: graph.settled == Counter({"a": 3, "gone": 2}))


async def test_positions_of_one_server_mean_nothing_to_the_next(graph: FakeGraph, follow: Follow) -> None:
    follow()
    server = await graph.next_reader()
    server.notify(first("a", position=10))
    await graph.heard_that(lambda: graph.acknowledged == 1)
    graph.epoch = "second"
    await server.close()
    server = await graph.next_reader()
    server.notify(first("b", position=5))
    await graph.heard_that(lambda: graph.acknowledged == 2)
    await server.close()
    await graph.next_reader()
    assert (graph.openings[2].epoch, graph.openings[2].positions) == ("second", {"b": (5, 0)})


async def test_a_drain_is_answered_when_everything_was_exported(
    graph: FakeGraph, follow: Follow, sender: FakeSender
) -> None:
    follow()
    server = await graph.next_reader()
    server.notify(first(spans=span_rows(700)))
    assert await server.request(DrainTelemetry(), PATIENCE_S) == Done()
    assert ids(sender) == span_ids(700)


async def test_a_goodbye_is_the_end(graph: FakeGraph, follow: Follow) -> None:
    task = follow()
    server = await graph.next_reader()
    server.notify(Goodbye("the test is over"))
    await asyncio.wait_for(task, PATIENCE_S)


async def test_a_lost_connection_is_opened_again_and_no_span_is_exported_twice(
    graph: FakeGraph, follow: Follow, sender: FakeSender, core: AgentCore
) -> None:
    follow()
    server = await graph.next_reader()
    server.notify(first(spans=span_rows(10)))
    await server.request(DrainTelemetry(), PATIENCE_S)
    await server.close()
    server = await graph.next_reader()
    server.notify(first(spans=span_rows(12)))
    await server.request(DrainTelemetry(), PATIENCE_S)
    assert ids(sender) == span_ids(12)
    assert core.totals.exported["span"] == 12


async def test_a_server_that_was_restarted_is_found_again(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_WAIT_S", 0.05)
    with KeptPort() as kept:
        graph = await FakeGraph(kept.address.port).start()
        task = follow(str(graph.address))
        await graph.next_reader()
        await graph.stop()
        successor = await FakeGraph(kept.address.port).start()
        try:
            (await successor.next_reader()).notify(Goodbye())
            await asyncio.wait_for(task, PATIENCE_S)
        finally:
            await successor.stop()


async def test_what_a_server_counted_goes_on_at_its_successor_and_never_falls(
    graph: FakeGraph, follow: Follow, metrics: FakeSender
) -> None:
    def told() -> list[float]:
        points = {
            name: points_of(metrics, name)
            for name in ("ezmsg.settings.updates", "ezmsg.graph.operation.duration", "ezmsg.telemetry.dropped")
        }
        [updates], [operations], dropped = points.values()
        [lost] = [point for point in dropped if point.attributes.get("ezmsg.telemetry.reason") == "server_ring"]
        return [updates.value, operations.count, lost.value]

    follow()
    counts: list[list[float]] = []
    for epoch, count in (("first", 5), ("first", 6), ("second", 2), ("second", 3)):
        graph.epoch = epoch
        server = await graph.next_reader()
        measured = [histogram(0, "graph_operation", [5] * count, label="Connect")]
        server.notify(ServerTelemetry(measured, {"settings:update": count}))
        server.notify(first(server_dropped={"span:server_ring": count}))
        await server.request(DrainTelemetry(), PATIENCE_S)
        counts.append(told())
        graph.epoch = "second" if epoch == "first" and count == 6 else epoch
        await server.close()
    assert [of_one[0] for of_one in counts] == [5, 6, 8, 9]
    assert [of_one[2] for of_one in counts] == [5, 6, 8, 9]
    assert [of_one[1] for of_one in counts] == [25, 30, 40, 45]


def points_of(metrics: FakeSender, name: str) -> list[Any]:
    """The points of a metric, as exported last."""
    return [
        point
        for resource in metrics.batches[-1].resource_metrics
        for metric in resource.scope_metrics[0].metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


async def test_processes_that_do_not_come_back_after_a_reconnection_have_ended(
    graph: FakeGraph, core: AgentCore, metrics: FakeSender, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_ended = asyncio.Event()
    end_missing = core.end_missing

    def ended() -> None:
        end_missing()
        has_ended.set()

    monkeypatch.setattr(module, "MISSING_AFTER_S", 0.01)
    monkeypatch.setattr(core, "end_missing", ended)
    follow()
    server = await graph.next_reader()
    server.notify(first())
    await server.request(DrainTelemetry(), PATIENCE_S)
    await server.close()
    server = await graph.next_reader()
    await asyncio.wait_for(has_ended.wait(), PATIENCE_S)
    await server.request(DrainTelemetry(), PATIENCE_S)
    assert [point.value for point in points_of(metrics, "ezmsg.publisher.message.inflight")] == [0]


async def test_a_graph_that_is_not_there_yet_is_waited_for(follow: Follow) -> None:
    with KeptPort() as kept:
        task = follow(str(kept.address), patience_s=PATIENCE_S)
        graph = await FakeGraph(kept.address.port).start()
        try:
            (await graph.next_reader()).notify(Goodbye())
            await asyncio.wait_for(task, PATIENCE_S)
        finally:
            await graph.stop()


async def test_a_graph_that_does_not_come_is_given_up(follow: Follow) -> None:
    with KeptPort() as unused, pytest.raises(ServerUnreachable, match=str(unused.address.port)):
        await asyncio.wait_for(follow(str(unused.address)), PATIENCE_S)


async def test_a_lease_of_another_agent_is_no_reason_to_wait(graph: FakeGraph, follow: Follow) -> None:
    graph.refusals.append(ExporterLeased("another", 1))
    with pytest.raises(ExporterLeased, match="another"):
        await asyncio.wait_for(follow(patience_s=PATIENCE_S), PATIENCE_S)


async def test_after_a_reconnection_the_lease_of_before_is_waited_out(graph: FakeGraph, follow: Follow) -> None:
    follow()
    server = await graph.next_reader()
    graph.refusals += [ExporterLeased("another", 1), ExporterLeased("another", 1)]
    await server.close()
    await graph.next_reader()
    assert graph.refusals == []


async def test_another_refusal_is_the_end(graph: FakeGraph, follow: Follow) -> None:
    graph.refusals.append(Refused("no telemetry here"))
    with pytest.raises(Refused, match="no telemetry here"):
        await asyncio.wait_for(follow(patience_s=PATIENCE_S), PATIENCE_S)


async def test_a_graph_is_followed_over_tls_and_one_that_wants_it_is_no_reason_to_wait(
    follow: Follow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates.use(Authority(tmp_path).issue("graph.example"), monkeypatch)
    graph = await FakeGraph().start()
    try:
        task = follow(str(graph.address))
        (await graph.next_reader()).notify(Goodbye())
        await asyncio.wait_for(task, PATIENCE_S)
        certificates.use(None, monkeypatch)
        with pytest.raises(TlsRequired, match="it uses TLS, this process does not"):
            await asyncio.wait_for(follow(str(graph.address), patience_s=PATIENCE_S), PATIENCE_S)
    finally:
        await graph.stop()


async def test_what_an_agent_does_not_know_it_refuses(graph: FakeGraph, follow: Follow) -> None:
    follow()
    server = await graph.next_reader()
    with pytest.raises(Refused, match="GetGraph"):
        await server.request(GetGraph(), PATIENCE_S)


def test_a_process_that_is_back_after_its_end_is_not_forgotten() -> None:
    place = Place()
    anchor, batch = ClockAnchor("boot", 0, 0), TelemetryBatch(0, "", 0)
    place.note(ProcessTelemetry("link", anchor, batch, gone=True, position=3))
    place.note(ProcessTelemetry("link", anchor, batch, position=5))
    assert place.told({}) == {"link": (5, 0)}

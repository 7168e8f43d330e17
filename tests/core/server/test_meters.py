"""What a server measures of its own work, and how exporters hear of it."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

import ezmsg.core as ez
from ezmsg.core.control import ControlClient
from ezmsg.core.errors import EzmsgError
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.net.address import Address
from ezmsg.core.server.books import meters
from ezmsg.core.server.books.meters import CONTROL, OPERATION, WAITING, ServerMeters
from ezmsg.core.wire.records import GraphState, OpenTelemetryReader, Record, ServerTelemetry, StreamOpened

PATIENCE_S = 40.0


def durations(telemetry: ServerTelemetry) -> dict[tuple[str, ...], int]:
    """How many, by name, operation and error."""
    return {(state.name, *state.label.split("\0")): state.count for state in telemetry.histograms}


def test_durations_are_sorted_by_operation_and_error() -> None:
    book = ServerMeters()
    assert not book.has_news
    for duration_ns in range(WAITING + 3):
        book.took(OPERATION, "Connect", "", duration_ns)
    book.took(OPERATION, "Connect", "CYCLE", 7)
    book.took(CONTROL, "PING", "TIMEOUT", -1)
    assert book.has_news
    told = book.take()
    assert durations(told) == {
        (OPERATION, "Connect", ""): WAITING + 3,
        (OPERATION, "Connect", "CYCLE"): 1,
        (CONTROL, "PING", "TIMEOUT"): 1,
    }
    assert [state.sum_ns for state in told.histograms] == [sum(range(WAITING + 3)), 7, 0]
    assert not book.has_news
    assert durations(book.take()) == durations(told)


def test_what_can_be_told_apart_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "SERIES", 2)
    book = ServerMeters()
    for operation in ("A", "B", "C", "D"):
        book.took(CONTROL, operation, "", 1)
        book.settings_changed(operation, "SETTINGS_UPDATED")
    told = book.take()
    assert durations(told) == {(CONTROL, "A", ""): 1, (CONTROL, "B", ""): 1, (CONTROL, "other", ""): 2}
    assert list(told.counters.values()) == [1, 1, 2]


class Reader:
    """What an exporter hears."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[ServerTelemetry] = asyncio.Queue()
        self.graphs: asyncio.Queue[GraphState] = asyncio.Queue()

    def on_request(self, connection: object, record: Record) -> Record:
        raise EzmsgError("nothing is answered")

    def on_notice(self, connection: object, record: Record) -> None:
        if isinstance(record, ServerTelemetry):
            self.told.put_nowait(record)
        elif isinstance(record, GraphState):
            self.graphs.put_nowait(record)

    def on_closed(self, connection: object, error: Exception | None) -> None:
        pass


async def test_an_exporter_hears_what_the_server_was_asked(server: GraphServer, context: GraphContext) -> None:
    process = ez.ProcessControlClient(server.address)
    await process.connect()
    await process.register(["U"])
    await process.report_settings_update("U", {"gain": 1})
    await context.connect("A", "B")
    with pytest.raises(ez.dag.CyclicException):
        await context.connect("B", "A")
    await context.process_ping("U")
    with pytest.raises(RuntimeError):
        await context.process_ping(process_id=uuid4())
    reader = Reader()
    client = await ControlClient.connect(Address.from_string(str(server.address)), reader, name="exporter")
    async with asyncio.timeout(PATIENCE_S):
        await client.request(OpenTelemetryReader("exporter", 1), StreamOpened)
        first = await reader.told.get()
        expected: dict[tuple[Any, ...], int] = {
            (OPERATION, "ProcessRegister", ""): 1,
            (OPERATION, "ReportSettings", ""): 1,
            (OPERATION, "Connect", ""): 1,
            (OPERATION, "Connect", "CYCLE"): 1,
            (CONTROL, "PING", ""): 1,
            (CONTROL, "PING", "UNROUTABLE_UNIT"): 1,
        }
        assert expected.items() <= durations(first).items()
        assert first.counters == {"settings:U\0SETTINGS_UPDATED": 1}
        # A process that delivers is the occasion to tell more.
        await context.publisher("T")
        while durations(again := await reader.told.get()).get((OPERATION, "OpenPublisher", "")) != 1:
            pass
        assert again.counters == first.counters
    await client.close()
    await process.close()


async def test_a_graph_that_changes_all_the_time_is_told_now_and_then_and_as_it_is_in_the_end(
    server: GraphServer, context: GraphContext
) -> None:
    reader = Reader()
    client = await ControlClient.connect(Address.from_string(str(server.address)), reader, name="exporter")
    edges = [("A", f"B{number:03}") for number in range(300)]
    async with asyncio.timeout(PATIENCE_S):
        await client.request(OpenTelemetryReader("exporter", 1), StreamOpened)
        for edge in edges:
            await context.connect(*edge)
        count = 1
        while (await reader.graphs.get()).edges != edges:
            count += 1
    assert count < len(edges)
    await client.close()

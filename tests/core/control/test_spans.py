"""Spans of operations: at who asks, at who is asked, and of settings that follow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

import ezmsg.core as ez
from ezmsg.core import config
from ezmsg.core.control.spans import answering
from ezmsg.core.currentmessage import Surroundings, current_message
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import ProcessControlRequest, ProcessControlResponse, ProfilingTraceControl, TraceSpan
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.profiling import PROFILES
from tests.core.runtime.running import running

TRACE = bytes(range(16)), 7
DEADLINE_S = 40


@pytest.fixture(autouse=True)
def _read_up() -> Iterator[None]:
    """Spans of other tests, and when they began traces, are nothing to us."""
    PROFILES.trace_batch(100_000, "operations")
    PROFILES.recorder.recording._operations.clear()
    yield
    PROFILES.set_trace_sampling(config.trace_rate_hz(), config.trace_ratio())


def spans() -> list[TraceSpan]:
    return PROFILES.trace_batch(100_000, "operations").spans


def told(span: TraceSpan) -> tuple[str, str, str | None]:
    return span.name, span.kind, span.error


@dataclass
class Process:
    """A process that is asked."""

    client: ez.ProcessControlClient

    @property
    def id(self) -> str:
        return str(self.client.process_id)


@pytest.fixture
async def process(server: GraphServer) -> AsyncIterator[Process]:
    client = ez.ProcessControlClient(server.address)
    await client.connect()
    await client.register(["U"])
    yield Process(client)
    await client.close()


async def test_a_request_is_a_span_at_both_ends(process: Process, context: GraphContext) -> None:
    await context.process_ping("U")
    server_span, client_span = spans()
    assert told(client_span) == ("control PING", "CLIENT", None)
    assert told(server_span) == ("control PING", "SERVER", None)
    assert client_span.parent_span_id is None
    assert (server_span.trace_id, server_span.parent_span_id) == (client_span.trace_id, client_span.span_id)
    assert client_span.start_unix_ns <= server_span.start_unix_ns <= server_span.end_unix_ns
    assert server_span.end_unix_ns <= client_span.end_unix_ns
    assert client_span.attributes == {
        "messaging.system": "ezmsg",
        "ezmsg.control.operation": "PING",
        "ezmsg.unit.address": "U",
    }
    assert server_span.attributes["ezmsg.process.id"] == process.id


async def test_failures_are_told_by_their_codes(process: Process, context: GraphContext) -> None:
    with pytest.raises(RuntimeError):
        await context.process_ping(process_id=uuid4())
    await context.process_request("U", "TUNE")
    assert [told(span) for span in spans()] == [
        ("control PING", "CLIENT", "UNROUTABLE_UNIT"),
        ("control TUNE", "SERVER", "HANDLER_NOT_CONFIGURED"),
        ("control TUNE", "CLIENT", "HANDLER_NOT_CONFIGURED"),
    ]


async def test_a_request_that_is_taken_back_is_told_at_both_ends(process: Process, context: GraphContext) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def handle(_request: ProcessControlRequest) -> ProcessControlResponse:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    process.client.set_request_handler(handle)
    asking = asyncio.create_task(context.process_request("U", "TUNE"))
    async with asyncio.timeout(DEADLINE_S):
        await begun.wait()
        asking.cancel()
        await asyncio.wait([asking])
        await ended.wait()
        await asyncio.sleep(0)
    assert sorted(told(span) for span in spans()) == [
        ("control TUNE", "CLIENT", "CancelledError"),
        ("control TUNE", "SERVER", "CancelledError"),
    ]


async def test_requests_begin_traces_at_the_rate_of_messages_and_reading_them_begins_none(
    process: Process, context: GraphContext
) -> None:
    PROFILES.set_trace_sampling(1e-6)
    for _ in range(3):
        await context.process_ping("U")
    await context.process_stats("U")
    assert len(spans()) == 4
    PROFILES.set_trace_sampling(0.0)
    await context.process_request("U", "TUNE")
    PROFILES.set_trace_sampling(1e9)
    await context.process_profiling_snapshot("U")
    await context.process_profiling_trace_batch("U")
    await context.process_set_profiling_trace("U", ProfilingTraceControl(enabled=False))
    assert spans() == []


async def test_requests_begin_traces_in_the_share_of_messages_that_do(process: Process, context: GraphContext) -> None:
    for ratio, count in ((1.0, 3), (0.0, 0)):
        PROFILES.set_trace_sampling(1e9, ratio)
        for _ in range(3):
            await context.process_ping("U")
        assert [told(span) for span in spans()] == [
            ("control PING", "SERVER", None), ("control PING", "CLIENT", None)
        ] * count  # fmt: skip


@pytest.mark.parametrize(
    ("control", "count"),
    [
        ({"trace_ratio": 1.0}, 2),
        ({"trace_rate": 0.0}, 0),
        ({"trace_ratio": 1.0, "level": "off"}, 0),
        ({"level": "off", "publisher_topics": ["OTHER"]}, 1),
    ],
)
async def test_a_control_for_all_endpoints_is_one_for_requests_too(
    process: Process, context: GraphContext, control: dict[str, Any], count: int
) -> None:
    PROFILES.set_trace_sampling(1e-6)
    await context.process_set_profiling_trace("U", ProfilingTraceControl(True, metrics=[], **control))
    for _ in range(2):
        await context.process_ping("U")
    found = [told(span) for span in spans()]
    await context.process_set_profiling_trace("U", ProfilingTraceControl(False))
    assert found == [("control PING", "SERVER", None), ("control PING", "CLIENT", None)] * count


async def test_what_is_asked_within_a_sampled_message_is_part_of_its_trace(
    process: Process, context: GraphContext
) -> None:
    PROFILES.set_trace_sampling(0.0)
    token = current_message.set(Surroundings(TRACE))
    await context.process_profiling_snapshot("U")
    current_message.reset(token)
    server_span, client_span = spans()
    assert (client_span.trace_id, client_span.parent_span_id) == (TRACE[0].hex(), f"{7:016x}")
    assert server_span.parent_span_id == client_span.span_id


async def test_at_level_off_nothing_is_recorded(process: Process, context: GraphContext) -> None:
    PROFILES.set_level("off")
    try:
        await context.process_ping("U")
    finally:
        PROFILES.set_level(config.telemetry_level())
    assert spans() == []


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"00-{'0' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        f"00-{'1' * 32}-{'1' * 16}-00",
        f"00-{'1' * 32}-{'1' * 16}-01-more",
    ],
)
def test_a_header_without_a_sampled_trace_is_none(header: str) -> None:
    with answering("PING", "U", "", "", header, PROFILES) as span:
        pass
    assert (span.traceparent, spans()) == ("", [])


class Gain(ez.Settings):
    gain: int = 1


class Amplifier(ez.Unit):
    SETTINGS = Gain
    INPUT_SETTINGS = ez.InputStream(Gain)

    @ez.subscriber(INPUT_SETTINGS)
    async def on_settings(self, settings: Any) -> None:
        if settings.gain < 0:
            raise ValueError


async def test_settings_that_are_applied_are_a_span_without_their_value(
    server: GraphServer, context: GraphContext
) -> None:
    async with running(ez.GraphRunner(AMP=Amplifier(), graph_address=server.address), context):
        await context.update_setting("AMP", "gain", 4711)
        by_name: dict[str, TraceSpan] = {span.name if span.kind != "SERVER" else "SERVER": span for span in spans()}
        PROFILES.recorder.recording._operations.clear()
        with pytest.raises(RuntimeError):
            await context.update_setting("AMP", "gain", -1)
        (refused,) = (span for span in spans() if span.name.startswith("settings"))
        assert refused.error == "SettingsTaskFailed"
    applied = by_name["settings SETTINGS_UPDATED"]
    assert applied.attributes == {
        "messaging.system": "ezmsg",
        "ezmsg.unit.address": "AMP",
        "ezmsg.settings.field": "gain",
    }
    assert not any(4711 in span.attributes.values() for span in by_name.values())
    # From the request to the task that takes the settings over: one trace.
    chain = ["control UPDATE_SETTING_FIELD", "SERVER", "settings SETTINGS_UPDATED", "publish AMP/INPUT_SETTINGS"]
    for outer, inner in zip(chain, [*chain[1:], "process AMP/INPUT_SETTINGS"], strict=True):
        assert by_name[inner].parent_span_id == by_name[outer].span_id, inner
    assert len({span.trace_id for span in by_name.values()}) == 1

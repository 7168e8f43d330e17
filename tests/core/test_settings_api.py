"""Settings, from outside: the GraphServer knows them, tells their changes, and carries updates."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from annotated_types import Ge

from ezmsg.core.errors import SettingsInvalid, UnitNotOwned
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import (
    GraphMetadata,
    ProcessControlErrorCode,
    ProcessControlRequest,
    ProcessControlResponse,
    SettingsChangedEvent,
    SettingsEventType,
    SettingsFieldMetadata,
    SettingsFieldUpdateRequest,
    SettingsSchemaMetadata,
    SettingsSnapshotValue,
    UnitMetadata,
)
from ezmsg.core.graphserver import GraphServer, GraphService
from ezmsg.core.processclient import ProcessControlClient
from ezmsg.core.schema.document import json_schema
from ezmsg.core.schema.validation import validate
from ezmsg.core.wire.limits import EVENT_QUEUE, EVENT_WINDOW
from tests.core.metadatamaking import component, graph, schema

INITIAL, UPDATED = SettingsEventType.INITIAL_SETTINGS, SettingsEventType.SETTINGS_UPDATED


@dataclass
class Gain:
    gain: int


class Explosive:
    """Must not be unpickled by the server."""

    def __reduce__(self) -> Any:
        return (_explode, ())


def _explode() -> None:
    raise AssertionError("unpickled")


@pytest.fixture
async def process(server: GraphServer) -> AsyncIterator[ProcessControlClient]:
    process = ProcessControlClient(server.address)
    await process.register(["UNIT"])
    yield process
    await process.close()


def short(events: list[SettingsChangedEvent]) -> list[tuple[int, SettingsEventType, str, str | None, Any, Any]]:
    return [
        (
            event.seq,
            event.event_type,
            event.component_address,
            event.source_session_id,
            event.source_process_id,
            event.value.repr_value,
        )
        for event in events
    ]


async def test_metadata_tells_initial_settings_with_their_schema(context: GraphContext) -> None:
    before = time.time()
    await context.register_metadata(graph("UNIT", "ANOTHER", gain=4))
    expected = SettingsSnapshotValue(b"gain 4", {"gain": 4}, {"gain": 4}, schema())
    table = await context.settings_snapshot()
    assert table == {"ANOTHER": expected, "UNIT": expected}
    assert list(table) == ["ANOTHER", "UNIT"]
    events = await context.settings_events()
    session = str(context._session_id)
    assert short(events) == [
        (1, INITIAL, "ANOTHER", session, None, {"gain": 4}),
        (2, INITIAL, "UNIT", session, None, {"gain": 4}),
    ]
    assert all(before - 1 < event.timestamp < time.time() + 1 for event in events)


async def test_settings_in_words_only_have_no_structure(context: GraphContext) -> None:
    unit = component("UNIT", UnitMetadata)
    unit.initial_settings, unit.settings_schema = (None, "Settings(...)"), None
    await context.register_metadata(GraphMetadata(1, None, {"UNIT": unit}))
    assert await context.settings_snapshot() == {"UNIT": SettingsSnapshotValue(None, "Settings(...)", None, None)}


async def test_a_report_holds_and_is_told_with_its_process_and_time(
    context: GraphContext, process: ProcessControlClient
) -> None:
    await process.report_settings_update("UNIT", Gain(7), timestamp=123.5)
    [event] = await context.settings_events()
    assert short([event]) == [(1, UPDATED, "UNIT", None, process.client_id, {"gain": 7})]
    assert event.timestamp == 123.5
    [reported] = (await context.settings_snapshot()).values()
    assert pickle.loads(reported.serialized or b"") == Gain(7)
    assert reported.structured_value == {"gain": 7}
    await context.register_metadata(graph("UNIT"))
    await process.report_settings_update("UNIT", {"gain": 8})
    events = await context.settings_events(after_seq=1)
    session = str(context._session_id)
    assert short(events) == [
        (2, INITIAL, "UNIT", session, None, {"gain": 7}),
        (3, UPDATED, "UNIT", session, process.client_id, {"gain": 8}),
    ]
    assert events[1].timestamp > 1.7e9


async def test_a_snapshot_value_is_reported_as_it_is_and_never_unpickled_by_the_server(
    context: GraphContext, process: ProcessControlClient
) -> None:
    fields = [SettingsFieldMetadata("gain", "builtins.int", False, (1, 2), None, (0.0, None), [(1,)], "slider")]
    described = SettingsSchemaMetadata("dataclass", "module.Settings", fields)
    value = SettingsSnapshotValue(pickle.dumps(Explosive()), {"gain": (1, 2)}, {"gain": (1, 2)}, described)
    await process.report_settings_update("UNIT", value)
    assert await context.settings_snapshot() == {"UNIT": value}


async def test_what_cannot_be_pickled_is_told_in_words(context: GraphContext, process: ProcessControlClient) -> None:
    value = lambda: None  # noqa: E731 - something that cannot be pickled
    await process.report_settings_update("UNIT", value)
    assert await context.settings_snapshot() == {"UNIT": SettingsSnapshotValue(None, repr(value))}


async def test_a_report_of_a_unit_that_is_not_owned_is_refused_and_changes_nothing(
    server: GraphServer, context: GraphContext, process: ProcessControlClient
) -> None:
    await process.report_settings_update("UNIT", {"gain": 1})
    other = ProcessControlClient(server.address)
    for unit in ("UNIT", "NOBODYS"):
        with pytest.raises(RuntimeError, match="Process control command failed: PROCESS_SETTINGS_UPDATE") as refusal:
            await other.report_settings_update(unit, {"gain": 2})
        assert isinstance(refusal.value, UnitNotOwned)
    assert len(await context.settings_events()) == 1
    assert (await context.settings_snapshot())["UNIT"].repr_value == {"gain": 1}
    await other.register(["MINE"])
    await other.report_settings_update("MINE", {"gain": 3})
    await other.close()


async def test_settings_too_large_are_refused_with_the_limit(process: ProcessControlClient) -> None:
    with pytest.raises(RuntimeError, match=r"Process control command failed: PROCESS_SETTINGS_UPDATE.*the limit is"):
        await process.report_settings_update("UNIT", b"x" * (17 << 20))
    await process.report_settings_update("UNIT", b"x")


async def test_settings_fall_back_when_the_close_of_their_process_returns(
    server: GraphServer, context: GraphContext
) -> None:
    await context.register_metadata(graph("UNIT"))
    process = ProcessControlClient(server.address)
    await process.register(["UNIT", "FREE"])
    await process.report_settings_update("UNIT", {"gain": 2})
    await process.report_settings_update("FREE", {"gain": 3})
    await process.close()
    assert {a: v.repr_value for a, v in (await context.settings_snapshot()).items()} == {"UNIT": {"gain": 1}}
    events = await context.settings_events(after_seq=3)
    assert short(events) == [(4, UPDATED, "UNIT", str(context._session_id), None, {"gain": 1})]


async def test_a_living_process_keeps_its_settings_when_the_session_goes(
    server: GraphServer, context: GraphContext, process: ProcessControlClient
) -> None:
    async with GraphContext(server.address) as other:
        await other.register_metadata(graph("UNIT", "SILENT"))
        await process.report_settings_update("UNIT", {"gain": 2})
    assert {a: v.repr_value for a, v in (await context.settings_snapshot()).items()} == {"UNIT": {"gain": 2}}
    assert len(await context.settings_events()) == 3


async def test_a_stream_replays_and_goes_on_and_ends_with_the_server() -> None:
    server = GraphServer()
    server.start("127.0.0.1:0")
    async with GraphContext(server.address) as context:
        stream = context.subscribe_settings_events()
        await context.register_metadata(graph("UNIT"))
        async with asyncio.timeout(40):
            first = await anext(stream)
            assert first == (await context.settings_events())[0]
            process = ProcessControlClient(server.address)
            await process.register(["UNIT"])
            await process.report_settings_update("UNIT", {"gain": 2})
            assert short([await anext(stream)])[0][:3] == (2, UPDATED, "UNIT")
            await process.close()
            assert (await anext(stream)).value.repr_value == {"gain": 1}
            assert stream.ended == ""
            await asyncio.to_thread(server.stop)
            assert [event async for event in stream] == []
            assert stream.ended == "the GraphServer stops"


async def test_the_history_has_a_limit_and_is_read_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EZMSG_SETTINGS_EVENT_HISTORY_LIMIT", "4")
    server = GraphServer()
    server.start("127.0.0.1:0")
    async with GraphContext(server.address) as context:
        process = ProcessControlClient(server.address)
        await process.register(["UNIT"])
        for number in range(6):
            await process.report_settings_update("UNIT", SettingsSnapshotValue(bytes(7 << 20), str(number)))
        events = await context.settings_events()
        assert [(event.seq, event.missed) for event in events] == [(3, 2), (4, 0), (5, 0), (6, 0)]
        async with asyncio.timeout(30):
            stream = context.subscribe_settings_events()
            assert [(await anext(stream)).seq for _ in range(4)] == [3, 4, 5, 6]
            await stream.aclose()
        await process.close()
        assert len(await context.settings_events()) == 4
    await asyncio.to_thread(server.stop)


# -- changing them ----------------------------------------------------------------------------------------------------


async def test_events_stay_when_their_processes_and_sessions_are_gone(
    server: GraphServer, context: GraphContext
) -> None:
    async with GraphContext(server.address) as other:
        await other.register_metadata(graph("GONE", gain=1))
        process = ProcessControlClient(server.address)
        await process.register(["GONE"])
        await process.report_settings_update("GONE", {"gain": 2})
        await process.close()
    assert await context.settings_snapshot() == {}
    events = await context.settings_events()
    assert [(event.seq, event.event_type) for event in events] == [(1, INITIAL), (2, UPDATED), (3, UPDATED)]
    assert [event.value.repr_value for event in events] == [{"gain": 1}, {"gain": 2}, {"gain": 1}]


async def test_a_reader_that_is_too_slow_is_told_how_many_it_missed_and_another_gets_all(
    server: GraphServer, context: GraphContext, process: ProcessControlClient
) -> None:
    total = EVENT_QUEUE + EVENT_WINDOW + 200
    slow, fast = context.subscribe_settings_events(), context.subscribe_settings_events()
    await process.report_settings_update("UNIT", {"gain": 1})
    first = await anext(slow)
    seen = [await anext(fast)]
    for gain in range(2, total + 1):
        await process.report_settings_update("UNIT", {"gain": gain})
        seen.append(await anext(fast))
    assert [(event.seq, event.missed, event.value.repr_value) for event in seen] == [
        (gain, 0, {"gain": gain}) for gain in range(1, total + 1)
    ]
    expected = first.seq
    missed = 0
    async with asyncio.timeout(30):
        while expected < total:
            event = await anext(slow)
            expected += event.missed + 1
            missed += event.missed
            assert (event.seq, event.value.repr_value) == (expected, {"gain": expected})
    assert missed == 200
    assert (await GraphService(server.address).counts())["missed:settings"] == 200
    await slow.aclose()
    await fast.aclose()


async def test_a_history_of_large_settings_is_bounded_and_the_gap_is_told(
    server: GraphServer, context: GraphContext, process: ProcessControlClient
) -> None:
    large = bytes(15 << 20)
    for gain in range(1, 7):
        await process.report_settings_update("UNIT", SettingsSnapshotValue(large, {"gain": gain}))
    events = await context.settings_events()
    assert [(event.seq, event.missed) for event in events] == [(3, 2), (4, 0), (5, 0), (6, 0)]
    assert [event.seq for event in await context.settings_events(5)] == [6]
    stream = context.subscribe_settings_events(after_seq=1)
    event = await anext(stream)
    assert (event.seq, event.missed, event.value.serialized) == (3, 1, large)
    await stream.aclose()
    assert (await GraphService(server.address).counts())["evicted:settings"] == 2


async def test_a_table_larger_than_any_frame_is_read_in_parts(
    context: GraphContext, process: ProcessControlClient
) -> None:
    addresses = [f"UNIT{number}" for number in range(5)]
    await process.register(addresses)
    large = bytes(15 << 20)
    for number, address in enumerate(addresses):
        await process.report_settings_update(address, SettingsSnapshotValue(large, {"number": number}))
    settings = await context.settings_snapshot()
    assert list(settings) == addresses
    assert [value.repr_value for value in settings.values()] == [{"number": number} for number in range(5)]
    assert all(value.serialized == large for value in settings.values())


async def test_the_topic_for_settings_is_unknown_until_metadata_tells_it(
    server: GraphServer, context: GraphContext
) -> None:
    with pytest.raises(RuntimeError, match="Component 'UNIT' does not expose dynamic settings metadata"):
        await context.settings_input_topic("UNIT")
    async with GraphContext(server.address) as other:
        await other.register_metadata(graph("UNIT"))
        assert await context.settings_input_topic("UNIT") == "UNIT/INPUT_SETTINGS"
    with pytest.raises(RuntimeError, match="does not expose"):
        await context.update_settings("UNIT", Gain(1))


@pytest.mark.parametrize("input_topic", [None, "ELSEWHERE"])
async def test_new_settings_arrive_although_their_publisher_is_closed_at_once(
    server: GraphServer, context: GraphContext, input_topic: str | None
) -> None:
    await context.register_metadata(graph("UNIT"))
    async with GraphContext(server.address) as unit:
        subscriber = await unit.subscriber(input_topic or "UNIT/INPUT_SETTINGS")
        for gain in range(20):
            await context.update_settings("UNIT", Gain(gain), input_topic=input_topic)
        async with asyncio.timeout(40):
            assert [(await subscriber.recv()).gain for _ in range(20)] == list(range(20))
    assert context._clients == set()


async def test_one_field_is_changed_by_the_handler_of_the_process(
    context: GraphContext, process: ProcessControlClient
) -> None:
    seen: list[ProcessControlRequest] = []
    answered = asyncio.Event()

    async def handler(request: ProcessControlRequest) -> ProcessControlResponse:
        seen.append(request)
        await asyncio.sleep(0)
        value = SettingsSnapshotValue(b"s", {"inner": {"gain": 5}})
        answered.set()
        return ProcessControlResponse(request.request_id, True, payload=pickle.dumps(value))

    process.set_request_handler(handler)
    value = await context.update_setting("UNIT", "inner.gain", 5)
    assert answered.is_set()
    assert value == SettingsSnapshotValue(b"s", {"inner": {"gain": 5}})
    assert (seen[0].operation, seen[0].unit_address) == ("UPDATE_SETTING_FIELD", "UNIT")
    assert pickle.loads(seen[0].payload or b"") == SettingsFieldUpdateRequest("inner.gain", 5)


async def test_a_refused_change_says_what_the_handler_said(
    context: GraphContext, process: ProcessControlClient
) -> None:
    def handler(request: ProcessControlRequest) -> ProcessControlResponse:
        code = ProcessControlErrorCode.HANDLER_ERROR
        return ProcessControlResponse(request.request_id, False, error="gain must be odd", error_code=code)

    process.set_request_handler(handler)
    with pytest.raises(RuntimeError, match="gain must be odd"):
        await context.update_setting("UNIT", "gain", 2)
    with pytest.raises(RuntimeError, match="No process owns unit"):
        await context.update_setting("NOWHERE", "gain", 2)


async def test_a_change_that_takes_too_long_is_given_up(context: GraphContext, process: ProcessControlClient) -> None:
    async def handler(request: ProcessControlRequest) -> ProcessControlResponse:
        await asyncio.Event().wait()
        raise AssertionError("never")

    process.set_request_handler(handler)
    with pytest.raises(RuntimeError, match="Timed out waiting for process response"):
        await context.update_setting("UNIT", "gain", 2, timeout=0.05)


@dataclass
class Bounded:
    rate_hz: Annotated[float, Ge(0.0)] = 10.0


async def test_a_reported_value_comes_with_a_schema_that_is_enough_to_check_a_patch(
    context: GraphContext, process: ProcessControlClient
) -> None:
    await process.report_settings_update("UNIT", Bounded())
    told = (await context.settings_snapshot())["UNIT"].settings_schema
    assert told is not None
    assert (told.provider, told.json_schema) == ("dataclass", json_schema(Bounded))
    validate(told, {"rate_hz": 20.0})
    with pytest.raises(SettingsInvalid, match="rate_hz"):
        validate(told, {"rate_hz": -1.0})

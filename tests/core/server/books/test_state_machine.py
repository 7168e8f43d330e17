"""The books of a server, put together as its handlers do it, without a loop or a socket: as the model says."""

from __future__ import annotations

from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis.stateful import run_state_machine_as_test

from ezmsg.core.errors import UnitNotOwned
from ezmsg.core.graphmeta import TopologyEventType
from ezmsg.core.server.books.events import EventLog
from ezmsg.core.server.books.processes import ProcessBook
from ezmsg.core.server.books.requests import RequestBook
from ezmsg.core.server.books.routing import PERSISTENT, GraphChange, RoutingBook
from ezmsg.core.server.books.sessions import SessionBook
from ezmsg.core.server.books.settings import SettingsBook, initial_settings
from ezmsg.core.wire.frames import HEADER_BYTES
from ezmsg.core.wire.metadata import GraphRecord, SettingsValue, record_of
from ezmsg.core.wire.records import (
    Event,
    Settings,
    SettingsEvent,
    Snapshot,
    TopologyEvent,
    decode_record,
    encode_record,
)
from ezmsg.core.wire.values import packed, unpacked
from tests.core.controlmachine import TIMEOUT_S, ControlMachine, Events, fuzzing
from tests.core.metadatamaking import graph

EVERYTHING = 1 << 30


class Books:
    """All books of one graph."""

    def __init__(self) -> None:
        self._routing = RoutingBook()
        self._sessions = SessionBook(self._routing)
        self._processes = ProcessBook()
        self._settings = SettingsBook()
        self._requests = RequestBook(per_client=1, at_once=1)
        self._logs: dict[str, EventLog[Any]] = {
            "topology": EventLog(TopologyEvent, EVERYTHING),
            "settings": EventLog(SettingsEvent, EVERYTHING),
        }
        self._numbers = count()
        self.first_session = self.open_session()

    def close(self) -> None:
        assert len(self._requests) == 0

    def _graph_changed(self, change: GraphChange, owner: str) -> None:
        if change.topics:
            kind = TopologyEventType.GRAPH_CHANGED.value
            session = None if owner == PERSISTENT else owner
            self._logs["topology"].publish(
                TopologyEvent(timestamp=1.0, event_type=kind, changed_topics=change.topics, source_session_id=session)
            )

    def _process_changed(self, process: str) -> None:
        kind = TopologyEventType.PROCESS_CHANGED.value
        self._logs["topology"].publish(TopologyEvent(timestamp=1.0, event_type=kind, source_process_id=process))

    def _settings_changed(self, events: list[SettingsEvent]) -> None:
        for event in events:
            self._logs["settings"].publish(event)

    # -- sessions and edges -------------------------------------------------------------------------------------------

    def open_session(self) -> str:
        session = f"session{next(self._numbers)}"
        self._sessions.open(session)
        return session

    def end_session(self, session: str, how: str) -> None:
        change = self._sessions.close(session)
        self._settings.session_closed(session)
        self._graph_changed(change, session)

    def revert(self, session: str) -> None:
        change = self._sessions.revert(session)
        self._settings.session_closed(session)
        self._graph_changed(change, session)

    def connect(self, owner: str, a: str, b: str) -> None:
        self._graph_changed(self._routing.connect(a, b, owner), owner)

    def disconnect(self, owner: str, a: str, b: str) -> None:
        self._graph_changed(self._routing.disconnect(a, b, owner), owner)

    # -- metadata -----------------------------------------------------------------------------------------------------

    def register_metadata(self, session: str, components: dict[str, int]) -> None:
        metadata = graph()
        for address, gain in components.items():
            metadata.components.update(graph(address, gain=gain).components)
        record = record_of(metadata, GraphRecord)
        self._sessions.register(session, record)
        self._settings_changed(
            self._settings.registered(session, self._settings.encoded(initial_settings(record)), 1.0)
        )

    def input_topic(self, address: str) -> str:
        return self._sessions.settings_input_topic(address)

    # -- processes ----------------------------------------------------------------------------------------------------

    def open_process(self) -> str:
        process = f"process{next(self._numbers)}"
        self._processes.connect(process)
        return process

    def end_process(self, process: str, how: str) -> None:
        assert self._processes.disconnect(process) is not None
        self._settings_changed(self._settings.process_gone(process, 1.0))
        self._process_changed(process)

    def register(self, process: str, units: set[str]) -> None:
        if self._processes.register(process, 1, "host", units):
            self._process_changed(process)

    def update(self, process: str, added: set[str], removed: set[str]) -> None:
        if self._processes.update(process, added, removed):
            self._process_changed(process)

    def report(self, process: str, unit: str, gain: int) -> None:
        owner = self._processes.owner(unit)
        if owner != process:
            raise UnitNotOwned(unit, process, owner)
        self._settings_changed(self._settings.report(process, unit, SettingsValue(None, packed({"gain": gain})), 1.0))

    def ask(self, unit: str, process: str | None) -> str | None:
        owner = process or self._processes.owner(unit)
        if owner is not None:
            ticket = self._requests.open("requester", owner, "ECHO")
            assert self._requests.working(owner) == 1
            self._requests.end(ticket)
            self._requests.leave(ticket)
        return owner

    # -- streams ------------------------------------------------------------------------------------------------------

    def open_stream(self, kind: str, after_seq: int) -> tuple[str, str]:
        reader = f"reader{next(self._numbers)}"
        self._logs[kind].open(reader, after_seq)
        return kind, reader

    def read(self, stream: tuple[str, str], count: int) -> Events:
        kind, reader = stream
        record = TopologyEvent if kind == "topology" else SettingsEvent
        events: Events = []
        for _ in range(count):
            frame = self._logs[kind].take(reader)
            assert frame is not None
            events.append(seen(msgspec.msgpack.decode(frame[HEADER_BYTES:], type=record)))
            self._logs[kind].acknowledged(reader, 1)
        return events

    def close_stream(self, stream: tuple[str, str]) -> None:
        kind, reader = stream
        self._logs[kind].close(reader)

    # -- what is to be seen -------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        edges = self._routing.edges()
        snapshot = Snapshot(edges, self._sessions.states(), self._processes.states())
        decoded = decode_record(*encode_record(snapshot))
        assert isinstance(decoded, Snapshot)
        targets: dict[str, list[str]] = {node: [] for node in edges.nodes}
        for a, b, _ in edges.edges:
            targets[a].append(b)
        return {
            "graph": targets,
            "owners": {(a, b): owners for a, b, owners in edges.edges},
            "sessions": {
                state.session_id: (
                    state.edges,
                    state.metadata
                    and {
                        address: unpacked(component.initial_settings[1])["gain"]
                        for address, component in state.metadata.components.items()
                    },
                )
                for state in decoded.sessions
            },
            "processes": {state.process_id: (state.pid is not None, state.units) for state in self._processes.states()},
        }

    def values(self) -> dict[str, int | None]:
        decoded = decode_record(*encode_record(self._settings.values()))
        assert isinstance(decoded, Settings)
        return {address: unpacked(value.repr_value)["gain"] for address, value in decoded.values.items()}

    def settings_events(self, after_seq: int) -> Events:
        page = self._logs["settings"].since(after_seq)
        assert page.is_last
        return [seen(msgspec.msgpack.decode(event, type=SettingsEvent)) for event in page.events]


def seen(event: Event) -> tuple[Any, ...]:
    assert event.missed == 0
    if isinstance(event, TopologyEvent):
        return event.seq, event.event_type, event.changed_topics, event.source_session_id, event.source_process_id
    assert isinstance(event, SettingsEvent)
    gain = unpacked(event.value.repr_value)["gain"]
    where, session, process = event.component_address, event.source_session_id, event.source_process_id
    return event.seq, event.event_type, where, session, process, gain


class BooksMachine(ControlMachine):
    make = Books


@pytest.mark.timeout(TIMEOUT_S)
def test_the_books_do_what_the_model_does_whatever_is_asked_of_them() -> None:
    run_state_machine_as_test(BooksMachine, settings=fuzzing(examples=60, steps=150))

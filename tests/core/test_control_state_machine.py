"""One real GraphServer, whatever its users do: snapshots, settings and events are what a simple model says.

`FUZZ=100 make test PYTEST_ARGS='-k state_machine'` runs a hundred times as long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis.stateful import run_state_machine_as_test

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import (
    ProcessControlErrorCode,
    ProcessControlRequest,
    ProcessControlResponse,
    SettingsChangedEvent,
    TopologyChangedEvent,
)
from ezmsg.core.graphserver import GraphServer, GraphService
from ezmsg.core.processclient import ProcessControlClient
from tests.core.controlmachine import TIMEOUT_S, ControlMachine, Events, fuzzing
from tests.core.controlmodel import PERSISTENT
from tests.core.metadatamaking import graph

PATIENCE_S = 40.0


def echo(request: ProcessControlRequest) -> ProcessControlResponse:
    return ProcessControlResponse(request.request_id, True, payload=request.payload)


class PublicApi:
    """A GraphServer, and clients of it on one loop."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._server = GraphServer()
        self._server.start("127.0.0.1:0")
        self._service = GraphService(self._server.address)
        self._sessions: dict[str, GraphContext] = {}
        self._processes: dict[str, ProcessControlClient] = {}
        self.first_session = self.open_session()
        self._observer = self._sessions.pop(self.first_session)

    def _run(self, work: Any) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(PATIENCE_S):
                return await work

        return self._runner.run(bounded())

    def close(self) -> None:
        try:
            for session in list(self._sessions):
                self.end_session(session, "exit")
            for process in list(self._processes):
                self.end_process(process, "close")
            self._run(self._observer.__aexit__(None, None, None))
        finally:
            self._server.stop()
            self._runner.close()

    # -- sessions and edges -------------------------------------------------------------------------------------------

    def open_session(self) -> str:
        context = GraphContext(self._server.address)
        self._run(context.__aenter__())
        session = str(context._session_id)
        self._sessions[session] = context
        return session

    def end_session(self, session: str, how: str) -> None:
        context = self._sessions.pop(session)

        async def end() -> None:
            if how == "close":
                await context._close_session()
            elif how == "kill":
                assert context._session is not None
                assert context._session._client is not None
                context._session._client.connection.abort()
            await context.__aexit__(None, None, None)
            while session in (await self._observer.snapshot()).sessions:
                assert how == "kill", "an orderly end is confirmed"

        self._run(end())

    def revert(self, session: str) -> None:
        self._run(self._sessions[session].revert())

    def connect(self, owner: str, a: str, b: str) -> None:
        self._run((self._service if owner == PERSISTENT else self._sessions[owner]).connect(a, b))

    def disconnect(self, owner: str, a: str, b: str) -> None:
        self._run((self._service if owner == PERSISTENT else self._sessions[owner]).disconnect(a, b))

    # -- metadata -----------------------------------------------------------------------------------------------------

    def register_metadata(self, session: str, components: dict[str, int]) -> None:
        metadata = graph()
        for address, gain in components.items():
            metadata.components.update(graph(address, gain=gain).components)
        self._run(self._sessions[session].register_metadata(metadata))

    def input_topic(self, address: str) -> str:
        return self._run(self._observer.settings_input_topic(address))

    # -- processes ----------------------------------------------------------------------------------------------------

    def open_process(self) -> str:
        client = ProcessControlClient(self._server.address)
        client.set_request_handler(echo)
        self._run(client.connect())
        process = str(client.client_id)
        self._processes[process] = client
        return process

    def end_process(self, process: str, how: str) -> None:
        client = self._processes.pop(process)

        async def end() -> None:
            if how == "kill":
                assert client._control is not None
                assert client._control._client is not None
                client._control._client.connection.abort()
            await client.close()
            while any(str(known) == process for known in (await self._observer.snapshot()).processes):
                assert how == "kill", "an orderly end is confirmed"

        self._run(end())

    def register(self, process: str, units: set[str]) -> None:
        self._run(self._processes[process].register(units))

    def update(self, process: str, added: set[str], removed: set[str]) -> None:
        self._run(self._processes[process].update_ownership(added, removed))

    def report(self, process: str, unit: str, gain: int) -> None:
        self._run(self._processes[process].report_settings_update(unit, {"gain": gain}, 1.5))

    def ask(self, unit: str, process: str | None) -> str | None:
        async def ask() -> str | None:
            who = None if process is None else self._processes[process].client_id
            response = await self._observer.process_request(unit, "ECHO", payload=b"payload", process_id=who)
            if response.error_code is ProcessControlErrorCode.UNROUTABLE_UNIT:
                return None
            assert (response.ok, response.payload) == (True, b"payload")
            return str(response.process_id)

        return self._run(ask())

    # -- streams ------------------------------------------------------------------------------------------------------

    def open_stream(self, kind: str, after_seq: int) -> AsyncGenerator[Any, None]:
        if kind == "topology":
            return self._observer.subscribe_topology_events(after_seq=after_seq)
        return self._observer.subscribe_settings_events(after_seq=after_seq)

    def read(self, stream: AsyncGenerator[Any, None], count: int) -> Events:
        async def read() -> Events:
            return [seen(await anext(stream)) for _ in range(count)]

        return self._run(read())

    def close_stream(self, stream: AsyncGenerator[Any, None]) -> None:
        self._run(stream.aclose())

    # -- what is to be seen -------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        snapshot = self._run(self._observer.snapshot())
        return {
            "graph": snapshot.graph,
            "owners": {tuple(edge): owners for edge, owners in snapshot.edge_owners.items()},
            "sessions": {
                session: (
                    [tuple(edge) for edge in state.edges],
                    state.metadata
                    and {
                        address: component.initial_settings[1]["gain"]
                        for address, component in state.metadata.components.items()
                    },
                )
                for session, state in snapshot.sessions.items()
            },
            "processes": {
                str(process): (state.pid is not None, state.units) for process, state in snapshot.processes.items()
            },
        }

    def values(self) -> dict[str, int | None]:
        settings = self._run(self._observer.settings_snapshot())
        return {address: value.repr_value["gain"] for address, value in settings.items()}

    def settings_events(self, after_seq: int) -> Events:
        return [seen(event) for event in self._run(self._observer.settings_events(after_seq))]


def seen(event: TopologyChangedEvent | SettingsChangedEvent) -> tuple[Any, ...]:
    assert event.timestamp > 0
    assert event.missed == 0
    process = None if event.source_process_id is None else str(event.source_process_id)
    if isinstance(event, TopologyChangedEvent):
        return event.seq, event.event_type.value, event.changed_topics, event.source_session_id, process
    assert isinstance(event.value.repr_value, dict)
    gain = event.value.repr_value["gain"]
    return event.seq, event.event_type.value, event.component_address, event.source_session_id, process, gain


class ServerMachine(ControlMachine):
    make = PublicApi


@pytest.mark.timeout(TIMEOUT_S)
def test_a_server_does_what_the_model_does_whatever_its_users_do() -> None:
    run_state_machine_as_test(ServerMachine, settings=fuzzing(examples=60, steps=60))

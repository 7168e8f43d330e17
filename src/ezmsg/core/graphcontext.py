"""GraphContext: a session with a GraphServer, and the publishers and subscribers made in it."""

from __future__ import annotations

import asyncio
import logging
import math
import pickle
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID, uuid4

from ezmsg.core import config
from ezmsg.core.control import ControlClient
from ezmsg.core.control.eventstream import event_stream
from ezmsg.core.control.views import graph_snapshot, settings_event, settings_table, topology_event
from ezmsg.core.errors import (
    BacklogFull,
    ConnectionLost,
    EzmsgError,
    FrameTooLarge,
    RequestTimeout,
    SessionClosed,
    TooManyRequests,
)
from ezmsg.core.graphmeta import (
    GraphMetadata,
    GraphSnapshot,
    ProcessControlErrorCode,
    ProcessControlOperation,
    ProcessControlResponse,
    ProcessPing,
    ProcessProfilingSnapshot,
    ProcessProfilingTraceBatch,
    ProcessStats,
    ProfilingStreamControl,
    ProfilingTraceControl,
    ProfilingTraceStreamBatch,
    SettingsChangedEvent,
    SettingsFieldUpdateRequest,
    SettingsSnapshotValue,
    TopologyChangedEvent,
)
from ezmsg.core.graphserver import GraphServer, GraphService
from ezmsg.core.net.address import Address, AddressType
from ezmsg.core.pubclient import Publisher
from ezmsg.core.subclient import Subscriber
from ezmsg.core.telemetry.stream import profiling_stream
from ezmsg.core.wire import records as r
from ezmsg.core.wire.limits import ROUTED_PER_CLIENT
from ezmsg.core.wire.metadata import GraphRecord, record_of

logger = logging.getLogger("ezmsg")
T = TypeVar("T")

# How long leaving a context waits for a server that does not answer; and the session, if the clients took all of it.
CLOSE_TIMEOUT_S = 1.0
LAST_TIMEOUT_S = 0.25
# What a server may take to answer, besides the time that is spent on what it was asked for.
SERVER_TIMEOUT_S = 1.0
# The same for a whole graph, which it may have to tell much of.
GRAPH_TIMEOUT_S = 5.0
# Half of what a requester may have in flight: the other half is for the program.
SNAPSHOTS_AT_ONCE = ROUTED_PER_CLIENT // 2


class GraphContext:
    """A session with a graph, used as an async context manager.

    Entering makes sure that a server is there and opens a session; leaving closes the publishers and subscribers made
    here, drops the edges, metadata and settings of this session, and stops the server if this context started it.

    Args:
        graph_address: Of the GraphServer; None for the default.
        auto_start: Start a server when none answers; None does so only where no address is configured.
    """

    def __init__(self, graph_address: AddressType | None = None, auto_start: bool | None = None) -> None:
        self._service = GraphService(graph_address)
        self._given = None if graph_address is None else self._service.address
        self._auto_start = auto_start
        self._server: GraphServer | None = None
        self._session: ControlClient | None = None
        self._session_id: UUID | None = None
        self._reader = str(uuid4())
        self._clients: set[Publisher | Subscriber] = set()

    def __repr__(self) -> str:
        state = "closed" if self._session is None else f"session={self._session_id}"
        return f"<GraphContext {self._service.address} {state} clients={len(self._clients)}>"

    @property
    def graph_address(self) -> Address | None:
        """Of the server this context started, else as it was given (perhaps None)."""
        return self._given if self._server is None else self._server.address

    # -- the session --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Make sure that a server is there, and open a session.

        Raises:
            ServerUnreachable: None answers and none may be started.
            HandshakeError: What answers does not hold our key, or is no GraphServer.
        """
        self._server = await self._service.ensure(self._auto_start)
        try:
            self._session = await ControlClient.connect(self._service.address, self, name="session")
            opened = await self._session.request(r.OpenSession(), r.SessionOpened, GRAPH_TIMEOUT_S)
            self._session_id = UUID(opened.session_id)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close what was made here, close the session, and stop the server if this context started it."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + CLOSE_TIMEOUT_S
        try:
            await self._close_clients()
        finally:
            await self._end(max(LAST_TIMEOUT_S, deadline_s - loop.time()))

    async def _end(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        try:
            await self._close_session(timeout_s)
        finally:
            server, self._server = self._server, None
            if server is not None:
                self._given = server.address
                await asyncio.to_thread(server.stop)

    async def _close_session(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Close only the session; its edges, metadata and settings are gone when this returns."""
        session, self._session, self._session_id = self._session, None, None
        if session is None:
            return
        if await self._confirmed(session, r.CloseSession(), timeout_s):
            await session.close()
        else:
            await session.abort()

    async def _confirmed(self, session: ControlClient, record: r.Record, timeout_s: float) -> bool:
        try:
            await session.request(record, timeout_s=timeout_s)
        except (ConnectionLost, RequestTimeout) as error:
            logger.debug("%r: the server did not confirm %s: %s", self, type(record).__name__, error)
            return False
        return True

    async def revert(self) -> None:
        """Close the publishers and subscribers made here, and drop the edges, metadata and settings of this session."""
        await self._close_clients()
        if self._session is not None:
            await self._confirmed(self._session, r.RevertSession(), CLOSE_TIMEOUT_S)

    async def _close_clients(self) -> None:
        clients, self._clients = list(self._clients), set()
        for client in clients:
            client.close()
        if clients:
            await asyncio.gather(*(client.wait_closed() for client in clients))

    def _active(self) -> ControlClient:
        if self._session is None:
            raise SessionClosed
        return self._session

    # -- handler of the session ---------------------------------------------------------------------------------------

    def on_request(self, connection: object, record: r.Record) -> r.Record:
        """A server asks nothing of a session."""
        raise EzmsgError(f"a session has no answer to {type(record).__name__}")

    def on_notice(self, connection: object, record: r.Record) -> None:
        """Nothing is told to a session but goodbye, which the client keeps."""

    def on_closed(self, connection: object, error: Exception | None) -> None:
        """Requests fail from now on; messages go on."""

    # -- endpoints ----------------------------------------------------------------------------------------------------

    async def publisher(self, topic: str, **kwargs: Any) -> Publisher:
        """A publisher on `topic`, closed with this context; keywords as in `Publisher.create`."""
        return self._keep(await Publisher.create(topic, self._address_for_clients, **kwargs))

    async def subscriber(self, topic: str, **kwargs: Any) -> Subscriber:
        """A subscriber on `topic`, closed with this context; keywords as in `Subscriber.create`."""
        return self._keep(await Subscriber.create(topic, self._address_for_clients, **kwargs))

    @property
    def _address_for_clients(self) -> Address | None:
        return self.graph_address

    def _keep(self, client: Any) -> Any:
        self._clients.add(client)
        return client

    # -- the graph ----------------------------------------------------------------------------------------------------

    async def connect(self, from_topic: str, to_topic: str) -> None:
        """Add an edge for as long as this session lives; when this returns, messages take it.

        Raises:
            CyclicException: It would close a cycle; the graph is unchanged.
            RequestTimeout: The server does not answer.
        """
        timeout_s = GRAPH_TIMEOUT_S + config.subscriber_update_timeout_s()
        await self._active().request(r.Connect(from_topic, to_topic), timeout_s=timeout_s)

    async def disconnect(self, from_topic: str, to_topic: str) -> None:
        """Give up this session's share of an edge; other owners keep it. Queued messages of it are dropped."""
        timeout_s = GRAPH_TIMEOUT_S + config.subscriber_update_timeout_s()
        await self._active().request(r.Disconnect(from_topic, to_topic), timeout_s=timeout_s)

    async def sync(self, timeout: float | None = None) -> None:
        """Pause all publishers of the graph, and wait until every message was released. They stay paused.

        Raises:
            TimeoutError: That took longer than `timeout` seconds.
        """
        timeout_s = None if timeout is None else timeout + SERVER_TIMEOUT_S
        await self._active().request(r.Sync(timeout), timeout_s=timeout_s)

    async def pause(self) -> None:
        """Pause all publishers of the graph."""
        await self._active().request(r.Pause())

    async def resume(self) -> None:
        """Let all publishers of the graph go on."""
        await self._active().request(r.Resume())

    async def snapshot(self) -> GraphSnapshot:
        """The whole graph at this moment."""
        return graph_snapshot(await self._active().request(r.GetSnapshot(), r.Snapshot, GRAPH_TIMEOUT_S))

    def subscribe_topology_events(self, *, after_seq: int = 0) -> AsyncGenerator[TopologyChangedEvent, None]:
        """Changes of edges and processes: those after `after_seq` that the server still has, then each as it happens.

        Connects at the first `anext`; ends when the server ends. A reader that is too slow finds in `missed` how many
        events it did not get.
        """
        return event_stream(self._service.address, "topology", after_seq, r.TopologyEvent, topology_event)

    # -- metadata and settings ----------------------------------------------------------------------------------------

    async def register_metadata(self, metadata: GraphMetadata) -> None:
        """Tell the graph what this session runs, in place of what it told before; forgotten when the session ends.

        Raises:
            RuntimeError: Another session has some of the components (`ComponentAddressCollision`); nothing was changed.
            NotSerializable: A field is not of its declared type (a TypeError). Values of type `Any` may be anything.
            SettingsTooLarge: The initial settings of a component are (a ValueError).
        """
        await self._active().request(r.RegisterMetadata(record_of(metadata, GraphRecord)), timeout_s=GRAPH_TIMEOUT_S)

    async def settings_snapshot(self) -> dict[str, SettingsSnapshotValue]:
        """The settings of every component of the graph, by address."""
        return settings_table(await self._active().request(r.GetSettings(), r.Settings, GRAPH_TIMEOUT_S))

    async def settings_events(self, after_seq: int = 0) -> list[SettingsChangedEvent]:
        """Every change of settings after `after_seq` that the server still has."""
        events: list[r.SettingsEvent] = []
        while True:
            page = await self._active().request(r.GetSettingsEvents(after_seq), r.SettingsEvents, GRAPH_TIMEOUT_S)
            events += page.events
            if page.is_last:
                return [settings_event(event) for event in events]
            after_seq = page.events[-1].seq

    def subscribe_settings_events(self, *, after_seq: int = 0) -> AsyncGenerator[SettingsChangedEvent, None]:
        """Changes of settings: those after `after_seq` that the server still has, then each as it happens.

        Connects at the first `anext`; ends when the server ends. A reader that is too slow finds in `missed` how many
        events it did not get.
        """
        return event_stream(self._service.address, "settings", after_seq, r.SettingsEvent, settings_event)

    async def settings_input_topic(self, component_address: str) -> str:
        """The topic on which a component takes new settings, as its metadata tells.

        Raises:
            RuntimeError: No metadata tells (`NoDynamicSettings`), or several topics (`ConflictingSettingsTopics`).
        """
        record = r.GetSettingsInputTopic(component_address)
        return (await self._active().request(record, r.SettingsInputTopic, GRAPH_TIMEOUT_S)).topic

    async def update_settings(self, component_address: str, value: Any, *, input_topic: str | None = None) -> None:
        """Send new settings to a component; when this returns they were delivered to its process.

        Args:
            component_address: The component.
            value: Whole settings, as its INPUT_SETTINGS takes them. They are not checked.
            input_topic: Where to send them; None asks `settings_input_topic`.
        """
        self._active()
        topic = await self.settings_input_topic(component_address) if input_topic is None else input_topic
        publisher = await Publisher.create(topic, self._address_for_clients)
        try:
            await publisher.broadcast(value)
        finally:
            publisher.close()
            await publisher.wait_closed()

    async def update_setting(
        self, component_address: str, field_path: str, value: Any, *, timeout: float = 2.0
    ) -> SettingsSnapshotValue:
        """Change one field of the settings of a component, and wait for its process to do it.

        Args:
            component_address: The component.
            field_path: The field, dotted where it lies in another.
            value: What it becomes.
            timeout: Seconds to wait for the process.

        Returns:
            Its settings afterwards.

        Raises:
            RuntimeError: The process refused, with its words, or there is none.
        """
        operation = ProcessControlOperation.UPDATE_SETTING_FIELD
        change = SettingsFieldUpdateRequest(field_path, value)
        return await self._ask(component_address, operation, SettingsSnapshotValue, timeout, None, change)

    # -- processes ----------------------------------------------------------------------------------------------------

    async def process_request(
        self,
        unit_address: str | None,
        operation: ProcessControlOperation | str,
        *,
        payload: bytes | None = None,
        payload_obj: Any = None,
        timeout: float = 2.0,
        process_id: UUID | None = None,
    ) -> ProcessControlResponse:
        """Ask the process that owns a unit, or the one with this id. Cancelling it cancels the handler, too.

        Args:
            unit_address: The unit; with a `process_id` it is only passed on, and may be None.
            operation: A built-in operation, or the name of one that the process's own handler knows.
            payload: Bytes for the handler, opaque to the server.
            payload_obj: Pickled and sent as payload.
            timeout: Seconds to wait for the process; a server that does not answer is given one second more.
            process_id: Ask this process, which need not own any unit; ids as in `snapshot().processes`.

        Returns:
            The answer; failures are answers too, with `ok` False and an `error_code`.

        Raises:
            ValueError: There are two payloads, neither a unit nor a process, or the timeout is no number of seconds.
            TypeError: What was given cannot be sent.
            ConnectionLost: The server is gone.
            SessionClosed: This context was not entered, or was left.
        """
        if payload is not None and payload_obj is not None:
            raise ValueError("give payload or payload_obj, not both")
        if payload_obj is not None:
            payload = pickle.dumps(payload_obj)
        if payload is not None and not isinstance(payload, (bytes, bytearray, memoryview)):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may err
            raise TypeError(f"payload must be bytes, not {type(payload).__name__}: give objects as payload_obj")
        if unit_address is None and process_id is None:
            raise ValueError("give a unit_address or a process_id")
        name = operation.value if isinstance(operation, ProcessControlOperation) else operation
        for what, text in (("unit_address", unit_address or ""), ("operation", name)):
            if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may err
                raise TypeError(f"{what} must be a string, not {type(text).__name__}")
        timeout = float(timeout)
        if not 0 <= timeout < math.inf:
            raise ValueError(f"timeout must be seconds, 0 or more, not {timeout:g}")
        request = r.ProcessRequest(
            unit_address or "", name, bytes(payload) if payload else None, timeout,
            "" if process_id is None else str(process_id), self._reader, str(uuid4()),
        )  # fmt: skip
        return await self._route(request, process_id)

    async def _route(self, request: r.ProcessRequest, process_id: UUID | None) -> ProcessControlResponse:
        session = self._active()
        try:
            answer = await session.request(
                request, r.ProcessResponse, request.timeout_s + SERVER_TIMEOUT_S, revocable=True
            )
        except RequestTimeout:
            text = (
                f"Timed out waiting for process response to {request.operation}: the GraphServer at {session.address} "
                f"does not answer"
            )
            return ProcessControlResponse(
                request.request_id, False, None, text, ProcessControlErrorCode.TIMEOUT, process_id
            )
        except (BacklogFull, FrameTooLarge) as error:
            text = f"Failed to route request {request.operation}: {error}"
            return ProcessControlResponse(
                request.request_id, False, None, text, ProcessControlErrorCode.ROUTE_WRITE_FAILED, process_id
            )
        except TooManyRequests as error:
            return ProcessControlResponse(
                request.request_id, False, None, str(error), ProcessControlErrorCode.TOO_MANY_REQUESTS, process_id
            )
        return ProcessControlResponse(
            request_id=request.request_id,
            ok=answer.ok,
            payload=answer.payload,
            error=answer.error,
            error_code=None if answer.error_code is None else ProcessControlErrorCode(answer.error_code),
            process_id=None if answer.process_id is None else UUID(answer.process_id),
        )

    def decode_process_payload(self, response: ProcessControlResponse, expected_type: type[T] = object) -> T:
        """The object in the payload of a successful response.

        Raises:
            RuntimeError: The request failed, or its payload is missing, cannot be read here, or is of another type.
        """
        if not response.ok:
            code = "UNKNOWN" if response.error_code is None else response.error_code.value
            raise RuntimeError(f"Process request failed ({code}): {response.error}")
        if response.payload is None:
            raise RuntimeError("Process response has no payload")
        try:
            value = pickle.loads(response.payload)  # from an authenticated peer, never looked at by the server
        except Exception as error:
            raise RuntimeError(f"Process response cannot be read: {error}") from error
        if not isinstance(value, expected_type):
            raise RuntimeError(f"Process response holds {type(value).__name__}, expected {expected_type.__name__}")
        return value

    async def _ask(
        self,
        unit_address: str | None,
        operation: ProcessControlOperation,
        expected: type[T],
        timeout: float,
        process_id: UUID | None,
        argument: Any = None,
    ) -> T:
        response = await self.process_request(
            unit_address, operation, payload_obj=argument, timeout=timeout, process_id=process_id
        )
        return self.decode_process_payload(response, expected)

    async def process_ping(
        self, unit_address: str | None = None, *, timeout: float = 2.0, process_id: UUID | None = None
    ) -> ProcessPing:
        """Ask the process of a unit, or the one with this id, whether it answers.

        This and all `process_*` below raise a RuntimeError that names the error code when it does not.
        """
        return await self._ask(unit_address, ProcessControlOperation.PING, ProcessPing, timeout, process_id)

    async def process_stats(
        self, unit_address: str | None = None, *, timeout: float = 2.0, process_id: UUID | None = None
    ) -> ProcessStats:
        """Ask the process of a unit, or the one with this id, what it is and owns."""
        operation = ProcessControlOperation.GET_PROCESS_STATS
        return await self._ask(unit_address, operation, ProcessStats, timeout, process_id)

    async def process_profiling_snapshot(
        self, unit_address: str | None = None, *, timeout: float = 2.0, process_id: UUID | None = None
    ) -> ProcessProfilingSnapshot:
        """Totals of all endpoints of a process; window values since this context asked last."""
        operation = ProcessControlOperation.GET_PROFILING_SNAPSHOT
        return await self._ask(unit_address, operation, ProcessProfilingSnapshot, timeout, process_id)

    async def process_set_profiling_trace(
        self,
        unit_address: str | None,
        control: ProfilingTraceControl,
        *,
        timeout: float = 2.0,
        process_id: UUID | None = None,
    ) -> ProcessControlResponse:
        """Switch the collection of trace samples in a process on or off; returns the answer, good or bad."""
        operation = ProcessControlOperation.SET_PROFILING_TRACE
        return await self.process_request(
            unit_address, operation, payload_obj=control, timeout=timeout, process_id=process_id
        )

    async def process_profiling_trace_batch(
        self,
        unit_address: str | None = None,
        *,
        max_samples: int = 1000,
        timeout: float = 2.0,
        process_id: UUID | None = None,
    ) -> ProcessProfilingTraceBatch:
        """The oldest samples of a process that this context has not read yet."""
        operation = ProcessControlOperation.GET_PROFILING_TRACE_BATCH
        return await self._ask(unit_address, operation, ProcessProfilingTraceBatch, timeout, process_id, max_samples)

    async def profiling_snapshot_all(self, *, timeout_per_process: float = 0.5) -> dict[UUID, ProcessProfilingSnapshot]:
        """Ask every process, at once; those that do not answer in time are left out.

        All in all this takes as long as the slowest, `timeout_per_process` at most; more where there are more processes
        than may be asked at once (200).
        """
        state = await self._active().request(r.GetSnapshot(), r.Snapshot, timeout_per_process + SERVER_TIMEOUT_S)
        at_once = asyncio.Semaphore(SNAPSHOTS_AT_ONCE)

        async def ask(process_id: UUID) -> tuple[UUID, ProcessProfilingSnapshot] | None:
            try:
                async with at_once:
                    answer = await self.process_profiling_snapshot(timeout=timeout_per_process, process_id=process_id)
            except RuntimeError as error:
                logger.debug("process %s gave no profiling snapshot: %s", process_id, error)
                return None
            return process_id, answer

        answers = await asyncio.gather(*(ask(UUID(entry.process_id)) for entry in state.processes))
        return dict(answer for answer in answers if answer is not None)

    def subscribe_profiling_trace(
        self, control: ProfilingStreamControl
    ) -> AsyncGenerator[ProfilingTraceStreamBatch, None]:
        """Samples and spans of all processes as they arrive, from the oldest the server keeps.

        Connects at the first `anext`; ends when the server ends. Every stream gets everything, whoever else reads.
        """
        return profiling_stream(self._service.address, control)

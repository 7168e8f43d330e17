"""One connection to the server: which role it opened, what it may ask, and what goes when it goes."""

from __future__ import annotations

import asyncio
import inspect
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, cast
from uuid import UUID, uuid4

import msgspec

from ezmsg.core.errors import EzmsgError, IdentityTaken, ProtocolError, SessionClosed, UnitNotOwned
from ezmsg.core.net.address import is_loopback
from ezmsg.core.net.connection import Connection
from ezmsg.core.net.latereply import LateReply
from ezmsg.core.server.books.meters import OPERATION
from ezmsg.core.server.books.routing import PERSISTENT, GraphChange, Reroute
from ezmsg.core.server.books.settings import initial_settings
from ezmsg.core.server.core import GraphCore
from ezmsg.core.server.restoring import Edge, Restoring
from ezmsg.core.wire import records as r

Answer = r.Record | Awaitable[r.Record] | LateReply
DONE = r.Done()


class WrongRole(EzmsgError, RuntimeError):
    """A request came on a connection that did not open the role for it."""

    code = "WRONG_ROLE"


def _identity(text: str) -> str:
    """The id a peer gives itself, which others will read; a new one for who gives none.

    Raises:
        ProtocolError: It is no UUID.
    """
    try:
        return str(UUID(text)) if text else str(uuid4())
    except ValueError:
        raise ProtocolError(f"{text[:100]!r} is no UUID, as ids of sessions, processes and their links are") from None


class Peer:
    """Handles one connection. A role is opened by the first request; a connection has one role at most.

    Args:
        core: The graph.
        host: Where the peer is, as we see it.
    """

    def __init__(self, core: GraphCore, host: str) -> None:
        self._core = core
        self._host = host
        self._role: type[r.Record] | None = None
        self._id = ""
        self._token = ""
        self._connection: Connection | None = None
        # Of a session.
        self._restoring: Restoring | None = None

    @property
    def has_role(self) -> bool:
        """Whether it has said what it is."""
        return self._role is not None

    @property
    def is_telemetry(self) -> bool:
        """Whether it delivers telemetry."""
        return self._role is r.OpenTelemetry

    def _refuse_second_role(self) -> None:
        if self._role is not None:
            raise WrongRole(f"this connection is already open as {self._role.__name__}")

    def _open(self, record: r.Record, identity: str) -> str:
        self._refuse_second_role()
        self._role, self._id = type(record), identity
        return identity

    def _claim(self, record: r.Record, identity: str, token: str, connection: Connection) -> bool:
        """Open a role under an id that others know; whether that peer is back, and what it held is still here.

        Raises:
            IdentityTaken: Another peer has it.
        """
        self._refuse_second_role()
        role = type(record)
        known = self._core.seats.get((role, identity))
        if known is not None:
            if not (token and secrets.compare_digest(known._token.encode(), token.encode())):
                raise IdentityTaken(role.__name__, identity)
            known._replaced()
        self._core.seats[role, identity] = self
        self._token, self._connection = token, connection
        self._open(record, identity)
        return known is not None

    def _replaced(self) -> None:
        """The peer came back over another connection, before this one was seen to be lost."""
        self._role = None
        self._stop_restoring()
        if self._connection is not None:
            self._connection.abort()

    # -- handler of the connection ------------------------------------------------------------------------------------

    def on_request(self, connection: Connection, record: r.Record) -> Answer:
        """Look the handler up and run it."""
        handler = HANDLERS.get(type(record))
        if handler is None:
            raise EzmsgError(f"a GraphServer has no answer to {type(record).__name__}")
        began_ns = time.perf_counter_ns()
        operation = type(record).__name__
        try:
            answer = handler(self, connection, record)
        except EzmsgError as error:
            self._took(operation, began_ns, error)
            raise
        if isinstance(record, r.ProcessRequest):
            return answer  # measured where it is passed on
        if inspect.iscoroutine(answer):
            return self._measured(operation, began_ns, answer)
        self._took(operation, began_ns, None)
        return answer

    def _measured(self, operation: str, began_ns: int, answer: Coroutine[Any, Any, r.Record]) -> Awaitable[r.Record]:
        def took(task: asyncio.Task[r.Record]) -> None:
            if not task.cancelled() and ((error := task.exception()) is None or isinstance(error, EzmsgError)):
                self._took(operation, began_ns, error)

        task = asyncio.get_running_loop().create_task(answer, name=f"{operation} of {self._host}")
        task.add_done_callback(took)
        return task

    def _took(self, operation: str, began_ns: int, error: EzmsgError | None) -> None:
        code = "" if error is None else error.code
        self._core.meters.took(OPERATION, operation, code, time.perf_counter_ns() - began_ns)

    def on_notice(self, connection: Connection, record: r.Record) -> None:
        """Telemetry and its acknowledgements; everything else is a request."""
        if isinstance(record, r.TelemetryBatch) and self._role is r.OpenTelemetry:
            self._core.telemetry.batch(self._id, record)
        elif isinstance(record, r.TelemetryAck) and self._role is r.OpenTelemetryReader:
            self._core.telemetry.reader_acknowledged(self._id, record)
        elif isinstance(record, r.EventAck) and self._role is r.OpenEventStream:
            self._core.events.acknowledged(self._id, record.count)
        elif isinstance(record, r.EventAck) and self._role is r.OpenProfilingStream:
            self._core.telemetry.stream_acknowledged(self._id, record.count)
        else:
            self._core.guard.counts["ignored:NOTICE"] += 1

    def on_closed(self, connection: Connection, error: Exception | None) -> None:
        """The peer is gone: so is what it held."""
        self._core.routes.requester_gone(connection)
        if self._role is not None:
            self._core.seats.pop((self._role, self._id), None)
            CLOSERS[self._role](self)
            self._role = None
        self._connection = None

    # -- sessions -----------------------------------------------------------------------------------------------------

    # What walks through the graph does so at once, for which a connection has its share of a turn, not in a task.

    def open_session(self, connection: Connection, record: r.OpenSession) -> Answer:
        session_id = _identity(record.session_id)
        is_back = self._claim(record, session_id, record.token, connection)
        if not is_back or session_id not in self._core.sessions:
            self._core.sessions.open(session_id)
        elif not record.keeps_metadata:
            self._core.settings.session_closed(session_id)
            self._core.sessions.forget_metadata(session_id)
        change, missing = self._core.routing.keep(session_id, record.edges)
        told = self._core.tell(self._core.graph_changed(change, session_id))
        self._restoring = restoring = Restoring(self._core, session_id, missing)
        told |= restoring.some()
        if restoring.missing:
            return self._opened(self._core.restore(restoring.rest(told)), restoring.refused)
        return self._told(told, r.SessionOpened(session_id, self._core.epoch, restoring.refused))

    async def _opened(self, restored: asyncio.Task[None], refused: list[Edge]) -> r.Record:
        await asyncio.wait({restored})
        if self._id not in self._core.sessions or self._role is None:
            raise SessionClosed
        return r.SessionOpened(self._id, self._core.epoch, refused)

    def revert_session(self, connection: Connection, record: r.RevertSession) -> Answer:
        self._require(r.OpenSession, record)
        self._stop_restoring()
        return self._rerouted(self._session_dropped(self._core.sessions.revert(self._owner)))

    def close_session(self, connection: Connection, record: r.CloseSession) -> Answer:
        self._require(r.OpenSession, record)
        self._stop_restoring()
        return self._rerouted(self._session_dropped(self._core.sessions.close(self._id)))

    def _rerouted(self, reroutes: list[Reroute], behind: Iterable[str] = (), answer: r.Record = DONE) -> Answer:
        return self._told(self._core.tell(reroutes, behind), answer)

    def _told(self, told: set[asyncio.Task[None]], answer: r.Record) -> Answer:
        return self._answered(told, answer) if told else answer

    async def _answered(self, told: set[asyncio.Task[None]], answer: r.Record) -> r.Record:
        await asyncio.wait(told)
        return answer

    def _stop_restoring(self) -> None:
        if self._restoring is not None:
            self._restoring.stop()

    def session_closed(self) -> None:
        self._stop_restoring()
        self._core.tell(self._session_dropped(self._core.sessions.close(self._id)))

    def _session_dropped(self, change: GraphChange) -> list[Reroute]:
        self._core.settings.session_closed(self._id)
        return self._core.graph_changed(change, self._id)

    def register_metadata(self, connection: Connection, record: r.RegisterMetadata) -> Answer:
        self._require(r.OpenSession, record)
        initial = self._core.settings.encoded(initial_settings(record.metadata))
        self._core.sessions.register(self._id, record.metadata)
        self._core.settings_changed(self._core.settings.registered(self._id, initial, time.time()))
        return DONE

    @property
    def _owner(self) -> str:
        """Who owns the edges made over this connection."""
        if self._role is not r.OpenSession:
            return PERSISTENT
        if self._id not in self._core.sessions:
            raise SessionClosed
        return self._id

    # -- endpoints ----------------------------------------------------------------------------------------------------

    def open_publisher(self, connection: Connection, record: r.OpenPublisher) -> Answer:
        publisher_id = record.publisher_id
        self._claim(record, publisher_id, record.token, connection)
        self._core.publishers[publisher_id] = connection
        route = r.PublisherRoute(
            publisher_id, record.topic, record.pid, record.boot_id,
            self._host_of(record), record.port, record.door, record.num_buffers,
        )  # fmt: skip
        opened = r.PublisherOpened(self._core.epoch)
        return self._rerouted(self._core.routing.add_publisher(route), answer=opened)

    def _host_of(self, record: r.OpenPublisher) -> str:
        """Where subscribers find a publisher that listens on every interface: where we see it.

        One that we see on loopback keeps its unspecified address: it is wherever subscribers find us.
        """
        is_everywhere = record.host in ("0.0.0.0", "::")
        return self._host if is_everywhere and not is_loopback(self._host) else record.host

    def publisher_closed(self) -> None:
        self._core.publishers.pop(self._id, None)
        self._core.tell(self._core.routing.remove_publisher(self._id))

    def open_subscriber(self, connection: Connection, record: r.OpenSubscriber) -> Answer:
        subscriber_id = record.subscriber_id
        self._claim(record, subscriber_id, record.token, connection)
        self._core.subscribers[subscriber_id] = connection
        return self._core.routing.add_subscriber(subscriber_id, record.topic)

    def subscriber_closed(self) -> None:
        self._core.subscribers.pop(self._id, None)
        self._core.routing.remove_subscriber(self._id)

    # -- the graph ----------------------------------------------------------------------------------------------------

    def connect(self, connection: Connection, record: r.Connect) -> Answer:
        change = self._core.routing.connect(record.from_topic, record.to_topic, self._owner)
        if self._owner == PERSISTENT:
            self._core.journal.connected(record.from_topic, record.to_topic)
        reroutes = self._core.graph_changed(change, self._owner)
        # Somebody else may just be making the same edge: it must carry when this returns as well.
        return self._rerouted(reroutes, self._core.routing.subscribers_behind(record.to_topic))

    def disconnect(self, connection: Connection, record: r.Disconnect) -> Answer:
        change = self._core.routing.disconnect(record.from_topic, record.to_topic, self._owner)
        if self._owner == PERSISTENT:
            self._core.journal.disconnected(record.from_topic, record.to_topic)
        return self._rerouted(self._core.graph_changed(change, self._owner))

    async def flow(self, connection: Connection, record: r.Pause | r.Resume | r.Sync) -> r.Record:
        # All publishers are meant, also those that are not back yet.
        await self._core.settled.wait()
        await self._core.flow(record)
        return DONE

    def shutdown(self, connection: Connection, record: r.Shutdown) -> Answer:
        self._core.stop.set()
        return DONE

    def status(self, connection: Connection, record: r.GetServerStatus) -> Answer:
        return self._core.status()

    def graph(self, connection: Connection, record: r.GetGraph) -> Answer:
        return self._core.routing.edges()

    def snapshot(self, connection: Connection, record: r.GetSnapshot) -> Answer:
        return self._core.snapshot()

    def counts(self, connection: Connection, record: r.GetCounts) -> Answer:
        return r.Counts(self._core.counts())

    def metadata(self, connection: Connection, record: r.GetMetadata) -> Answer:
        return self._core.sessions.metadata(record.session_id, record.version)

    # -- processes ----------------------------------------------------------------------------------------------------

    def open_process(self, connection: Connection, record: r.OpenProcess) -> Answer:
        client_id = _identity(record.client_id)
        if client_id in self._core.telemetry.links:
            raise IdentityTaken(type(record).__name__, client_id)
        if not self._claim(record, client_id, record.token, connection):
            self._core.processes.connect(client_id)
            self._core.telemetry.client_connected(client_id, record.pid, record.host)
        self._core.clients[client_id] = connection
        refused: dict[str, str] = {}
        if record.units is not None:
            refused = self._core.processes.conflicts(client_id, record.units)
            units = [unit for unit in record.units if unit not in refused]
            if self._core.processes.register(client_id, record.pid, record.host, units):
                self._core.events.process_changed(client_id)
        return r.ProcessOpened(client_id, refused)

    def process_closed(self) -> None:
        self._core.process_gone(self._id)

    def register(self, connection: Connection, record: r.ProcessRegister) -> Answer:
        self._require(r.OpenProcess, record)
        if self._core.processes.register(self._id, record.pid, record.host, record.units):
            self._core.events.process_changed(self._id)
        return DONE

    def update_ownership(self, connection: Connection, record: r.ProcessUpdateOwnership) -> Answer:
        self._require(r.OpenProcess, record)
        if self._core.processes.update(self._id, record.added_units, record.removed_units):
            self._core.events.process_changed(self._id)
        return DONE

    def route(self, connection: Connection, record: r.ProcessRequest) -> Answer:
        return self._core.routes.route(connection, record)

    def _require(self, role: type[r.Record], record: r.Record) -> None:
        if self._role is not role:
            raise WrongRole(f"{type(record).__name__} needs a connection opened with {role.__name__}")

    # -- settings and events ------------------------------------------------------------------------------------------

    def report_settings(self, connection: Connection, record: r.ReportSettings) -> Answer:
        self._require(r.OpenProcess, record)
        address = record.component_address
        owner = self._core.processes.owner(address)
        if owner != self._id:
            raise UnitNotOwned(address, self._id, owner)
        events = self._core.settings.report(self._id, address, record.value, record.timestamp)
        self._core.settings_changed(events)
        return DONE

    def settings(self, connection: Connection, record: r.GetSettings) -> Answer:
        return self._core.settings.values(record.after)

    def settings_input_topic(self, connection: Connection, record: r.GetSettingsInputTopic) -> Answer:
        return r.SettingsInputTopic(self._core.sessions.settings_input_topic(record.component_address))

    def settings_events(self, connection: Connection, record: r.GetSettingsEvents) -> Answer:
        # Encoded already; a client decodes them as what they are.
        events, is_last = self._core.events.settings.since(record.after_seq)
        return r.SettingsEvents(cast(list[r.SettingsEvent], events), is_last)

    def open_event_stream(self, connection: Connection, record: r.OpenEventStream) -> Answer:
        self._refuse_second_role()
        self._open(record, self._core.events.open(record, connection, self._core.epoch))
        return r.StreamOpened(self._core.epoch)

    def event_stream_closed(self) -> None:
        self._core.events.close(self._id)

    # -- telemetry ----------------------------------------------------------------------------------------------------

    def open_telemetry(self, connection: Connection, record: r.OpenTelemetry) -> Answer:
        self._refuse_second_role()
        record = msgspec.structs.replace(record, link_id=_identity(record.link_id))
        if record.link_id in self._core.clients:
            raise IdentityTaken(type(record).__name__, record.link_id)
        opened = self._core.telemetry.link_opened(record, connection)
        self._open(record, record.link_id)
        return msgspec.structs.replace(opened, epoch=self._core.epoch)

    def telemetry_closed(self) -> None:
        self._core.telemetry.link_closed(self._id)

    def open_reader(self, connection: Connection, record: r.OpenTelemetryReader) -> Answer:
        self._refuse_second_role()
        if record.epoch != self._core.epoch:
            record = msgspec.structs.replace(record, positions={})
        self._open(record, self._core.telemetry.open_reader(record, connection))
        return r.StreamOpened(self._core.epoch)

    def reader_closed(self) -> None:
        self._core.telemetry.close_reader(self._id)

    def open_stream(self, connection: Connection, record: r.OpenProfilingStream) -> Answer:
        self._refuse_second_role()
        if record.epoch != self._core.epoch:
            record = msgspec.structs.replace(record, positions={})
        self._open(record, self._core.telemetry.open_stream(record, connection))
        return r.StreamOpened(self._core.epoch)

    def stream_closed(self) -> None:
        self._core.telemetry.close_stream(self._id)

    # -- named shared memory ------------------------------------------------------------------------------------------

    def create_shm(self, connection: Connection, record: r.CreateShm) -> Answer:
        return self._core.shm.create(self._open(record, str(uuid4())), record)

    def attach_shm(self, connection: Connection, record: r.AttachShm) -> Answer:
        return self._core.shm.attach(self._open(record, str(uuid4())), record.name)

    def shm_closed(self) -> None:
        self._core.shm.release(self._id)


HANDLERS: dict[type[r.Record], Callable[[Peer, Connection, Any], Answer]] = {
    r.OpenSession: Peer.open_session,
    r.RevertSession: Peer.revert_session,
    r.CloseSession: Peer.close_session,
    r.OpenPublisher: Peer.open_publisher,
    r.OpenSubscriber: Peer.open_subscriber,
    r.OpenProcess: Peer.open_process,
    r.Connect: Peer.connect,
    r.Disconnect: Peer.disconnect,
    r.Pause: Peer.flow,
    r.Resume: Peer.flow,
    r.Sync: Peer.flow,
    r.Shutdown: Peer.shutdown,
    r.GetServerStatus: Peer.status,
    r.GetGraph: Peer.graph,
    r.GetSnapshot: Peer.snapshot,
    r.GetMetadata: Peer.metadata,
    r.GetCounts: Peer.counts,
    r.ProcessRegister: Peer.register,
    r.ProcessUpdateOwnership: Peer.update_ownership,
    r.ProcessRequest: Peer.route,
    r.RegisterMetadata: Peer.register_metadata,
    r.ReportSettings: Peer.report_settings,
    r.GetSettings: Peer.settings,
    r.GetSettingsInputTopic: Peer.settings_input_topic,
    r.GetSettingsEvents: Peer.settings_events,
    r.OpenEventStream: Peer.open_event_stream,
    r.OpenTelemetry: Peer.open_telemetry,
    r.OpenTelemetryReader: Peer.open_reader,
    r.OpenProfilingStream: Peer.open_stream,
    r.CreateShm: Peer.create_shm,
    r.AttachShm: Peer.attach_shm,
}
ACCEPTED = frozenset(
    r.OPCODE_OF[record] for record in (*HANDLERS, r.TelemetryBatch, r.TelemetryAck, r.EventAck, r.CancelRequest)
)
CLOSERS: dict[type[r.Record], Callable[[Peer], None]] = {
    r.OpenSession: Peer.session_closed,
    r.OpenPublisher: Peer.publisher_closed,
    r.OpenSubscriber: Peer.subscriber_closed,
    r.OpenProcess: Peer.process_closed,
    r.OpenEventStream: Peer.event_stream_closed,
    r.OpenTelemetry: Peer.telemetry_closed,
    r.OpenTelemetryReader: Peer.reader_closed,
    r.OpenProfilingStream: Peer.stream_closed,
    r.CreateShm: Peer.shm_closed,
    r.AttachShm: Peer.shm_closed,
}

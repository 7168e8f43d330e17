"""GraphContext: a session with a GraphServer, and the publishers and subscribers made in it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID, uuid4

from ezmsg.core.control import GRAPH_TIMEOUT_S, ControlClient
from ezmsg.core.control.asking import FLOW_TIMEOUT_S, routing_timeout_s, sync_all
from ezmsg.core.control.eventstream import event_stream
from ezmsg.core.control.link import ServerLink
from ezmsg.core.control.pages import all_settings, all_settings_events, whole_snapshot
from ezmsg.core.control.processrequests import ProcessRequests
from ezmsg.core.control.readerstream import ReaderStream
from ezmsg.core.control.views import graph_snapshot, settings_event, settings_table, topology_event
from ezmsg.core.errors import (
    ComponentAddressCollision,
    ConnectionLost,
    EzmsgError,
    RequestTimeout,
    SessionClosed,
)
from ezmsg.core.graphmeta import (
    BackpressureReport,
    GraphMetadata,
    GraphSnapshot,
    ProcessControlOperation,
    ProfilingStreamControl,
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
from ezmsg.core.telemetry.culprit import Waits, report
from ezmsg.core.telemetry.stream import profiling_stream
from ezmsg.core.wire import records as r
from ezmsg.core.wire.metadata import GraphRecord, record_of
from ezmsg.core.wire.records.fields import require_name

logger = logging.getLogger("ezmsg")
T = TypeVar("T")

# How long leaving a context waits for a server that does not answer; and the session, if the clients took all of it.
CLOSE_TIMEOUT_S = 1.0
LAST_TIMEOUT_S = 0.25
CLIENTS = 64
"""From so many publishers and subscribers on, a context forgets those that were closed before it."""


class _Observer(ProcessRequests):
    """Reads what is measured without moving the window of who asks for it."""

    def __init__(self, active: Callable[[], ServerLink]) -> None:
        self._reader = str(uuid4())
        self._active = active

    async def waits(self, timeout_s: float) -> Waits:
        """What publishers of the graph have waited, in processes without a client, too."""
        snapshots = (await self._snapshots(timeout_s, with_links=True)).values()
        # One whose client is new answers over its link, too.
        return Waits.of({snapshot.process_id: snapshot for snapshot in snapshots}.values())


class GraphContext(ProcessRequests):
    """A session with a graph, used as an async context manager.

    Entering makes sure that a server is there and opens a session; leaving closes the publishers and subscribers made
    here, drops the edges, metadata and settings of this session, and stops the server if this context started it.

    When the server is lost (not when it ends in order), messages go on, and the session is opened again at the next
    server at its address, with all it owns. What is asked meanwhile waits for that as long as its time limit says, then
    raises `ConnectionLost`; what was being asked raises it at once.

    Args:
        graph_address: Of the GraphServer; None for the default.
        auto_start: Start a server when none answers; None does so only where no address is configured.
    """

    def __init__(self, graph_address: AddressType | None = None, auto_start: bool | None = None) -> None:
        self._service = GraphService(graph_address)
        self._given = None if graph_address is None else self._service.address
        self._auto_start = auto_start
        self._server: GraphServer | None = None
        self._session: ServerLink | None = None
        self._session_id: UUID | None = None
        # What this session owns, to be told to the next server.
        self._edges: set[tuple[str, str]] = set()
        self._metadata: GraphRecord | None = None
        self._reader = str(uuid4())
        self._clients: set[Publisher | Subscriber] = set()
        self._forget_at = CLIENTS

    def __repr__(self) -> str:
        state = "closed" if self._session is None else f"session={self._session_id}"
        return f"<GraphContext {self._service.address} {state} clients={len(self._clients)}>"

    @property
    def graph_address(self) -> Address | None:
        """Of the server this context started, else as it was given (perhaps None)."""
        return self._given if self._server is None else self._server.address

    @property
    def has_started_server(self) -> bool:
        """Whether this context started the server that it will stop."""
        return self._server is not None

    def has_only(self, peers: int, arriving: int = 0) -> bool:
        """Whether this context started the server, and so many peers are all that is there (see GraphServer)."""
        return self._server is not None and self._server.has_only(peers, arriving)

    def end_unheard(self) -> None:
        """Begin to end session and server where nobody is left to hear of it; leaving the context waits for them."""
        if self._session is not None:
            self._session.abort_soon()
        if self._server is not None:
            self._server.stop_unheard()

    @property
    def is_connected(self) -> bool:
        """Whether the session has a server at this moment; if not, requests wait for its return (for 5 s)."""
        return self._session is not None and self._session.is_up

    # -- the session --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Make sure that a server is there, and open a session.

        Raises:
            ServerUnreachable: None answers and none may be started.
            HandshakeError: What answers does not hold our key, or is no GraphServer.
        """
        self._server = await self._service.ensure(self._auto_start)
        try:
            self._session = await ServerLink.connect(self._service.address, self, name="session")
            self._session_id = uuid4()
            await self._session.introduce()
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
                await server.stopped()

    async def _close_session(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Close only the session; its edges, metadata and settings are gone when this returns."""
        session, self._session, self._session_id = self._session, None, None
        self._edges, self._metadata = set(), None
        if session is None:
            return
        is_confirmed = False
        try:
            # A server of ours ends, and with it whatever it would confirm.
            is_confirmed = self._server is None and await self._confirmed(session, r.CloseSession(), timeout_s)
        finally:  # also when cancelled meanwhile
            await (session.close() if is_confirmed else session.abort())

    async def _confirmed(self, session: ServerLink, record: r.Record, timeout_s: float) -> bool:
        if not session.is_up:
            return False  # a server to come is not told of what is no more
        try:
            await session.request(record, timeout_s=timeout_s)
        except (ConnectionLost, RequestTimeout) as error:
            logger.debug("%r: the server did not confirm %s: %s", self, type(record).__name__, error)
            return False
        return True

    async def revert(self) -> None:
        """Close the publishers and subscribers made here, and drop the edges, metadata and settings of this session."""
        await self._close_clients()
        self._edges, self._metadata = set(), None
        if self._session is not None:
            await self._confirmed(self._session, r.RevertSession(), CLOSE_TIMEOUT_S)

    async def _close_clients(self) -> None:
        clients, self._clients = list(self._clients), set()
        for client in clients:
            client.close()
        if clients:
            await asyncio.gather(*(client.wait_closed() for client in clients))

    def _active(self) -> ServerLink:
        if self._session is None:
            raise SessionClosed
        return self._session

    # -- handler of the session ---------------------------------------------------------------------------------------

    async def introduce(self, client: ControlClient) -> None:
        """Open the session at a server, with all it owns."""
        assert self._session is not None
        owned, metadata = self._edges, self._metadata
        opening = r.OpenSession(str(self._session_id), self._session.token, sorted(owned), metadata is not None)
        opened = await client.request(opening, r.SessionOpened, GRAPH_TIMEOUT_S)
        if opened.refused:
            logger.warning(
                "%r lost edges that would now close a cycle (or are more than the server takes): %s",
                self,
                opened.refused,
            )
            owned.difference_update(opened.refused)
        if metadata is not None:
            try:
                await client.request(r.RegisterMetadata(metadata), timeout_s=GRAPH_TIMEOUT_S)
            except ComponentAddressCollision as error:
                logger.warning("%r lost its metadata: %s", self, error)
                self._metadata = None
        if self._edges is not owned:  # reverted meanwhile
            await client.request(r.RevertSession(), timeout_s=GRAPH_TIMEOUT_S)

    def on_request(self, connection: object, record: r.Record) -> r.Record:
        """A server asks nothing of a session."""
        raise EzmsgError(f"a session has no answer to {type(record).__name__}")

    def on_notice(self, connection: object, record: r.Record) -> None:
        """Nothing is told to a session but goodbye, which the link takes."""

    def on_end(self, reason: str) -> None:
        """Requests fail from now on; messages go on."""
        if self._session is not None and not self._session.is_closing:  # else it is this context that ends
            logger.info(
                "the GraphServer at %s ended: messages go on, but nobody new can join. Start this program again to be "
                "in the graph of another server", self._service.address,
            )  # fmt: skip

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
        if len(self._clients) >= self._forget_at:
            # The program closed some of them long ago.
            self._clients = {client for client in self._clients if not client.is_gone}
            self._forget_at = max(CLIENTS, 2 * len(self._clients))
        self._clients.add(client)
        return client

    # -- the graph ----------------------------------------------------------------------------------------------------

    async def connect(self, from_topic: str, to_topic: str) -> None:
        """Add an edge for as long as this session lives; when this returns, messages take it.

        Raises:
            CyclicException: It would close a cycle; the graph is unchanged.
            ValueError: A topic cannot be a name.
            RequestTimeout: The server does not answer.
        """
        require_name("from_topic", from_topic)
        require_name("to_topic", to_topic)
        edges = self._edges  # others, when it is reverted before the answer is here
        await self._active().request(r.Connect(from_topic, to_topic), timeout_s=routing_timeout_s())
        edges.add((from_topic, to_topic))

    async def disconnect(self, from_topic: str, to_topic: str) -> None:
        """Give up this session's share of an edge; other owners keep it. Queued messages of it are dropped."""
        await self._active().request(r.Disconnect(from_topic, to_topic), timeout_s=routing_timeout_s())
        self._edges.discard((from_topic, to_topic))

    async def sync(self, timeout: float | None = None) -> None:
        """Pause all publishers of the graph, and wait until every message was released. They stay paused.

        Args:
            timeout: Seconds to wait; None waits as long as the server lives and every publisher answers.

        Raises:
            TimeoutError: That took longer than `timeout` seconds, or the server or a publisher stands still.
        """
        await sync_all(self._active(), timeout)

    async def pause(self) -> None:
        """Pause all publishers of the graph.

        Raises:
            TimeoutError: The server or a publisher stands still.
        """
        await self._active().request(r.Pause(), timeout_s=FLOW_TIMEOUT_S)

    async def resume(self) -> None:
        """Let all publishers of the graph go on.

        Raises:
            TimeoutError: The server or a publisher stands still.
        """
        await self._active().request(r.Resume(), timeout_s=FLOW_TIMEOUT_S)

    async def snapshot(self) -> GraphSnapshot:
        """The whole graph at this moment.

        Raises:
            StaleSnapshot: It is too large for one answer, and changed again and again between several.
        """
        return graph_snapshot(await whole_snapshot(self._active(), GRAPH_TIMEOUT_S))

    def subscribe_topology_events(self, *, after_seq: int = 0) -> ReaderStream[TopologyChangedEvent]:
        """Changes of edges and processes: those after `after_seq` that the server still has, then each as it happens.

        Connects at the first `anext`; ends when the server ends, and says why in `ended`. A reader that is too slow
        finds in `missed` how many events it did not get.
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
        record = record_of(metadata, GraphRecord)
        await self._active().request(r.RegisterMetadata(record), timeout_s=GRAPH_TIMEOUT_S)
        self._metadata = record

    async def settings_snapshot(self) -> dict[str, SettingsSnapshotValue]:
        """The settings of every component of the graph, by address. A large table is read in parts."""
        return settings_table(await all_settings(self._active(), GRAPH_TIMEOUT_S))

    async def settings_events(self, after_seq: int = 0) -> list[SettingsChangedEvent]:
        """Every change of settings after `after_seq` that the server still has."""
        events = await all_settings_events(self._active(), after_seq, GRAPH_TIMEOUT_S)
        return [settings_event(event) for event in events]

    def subscribe_settings_events(self, *, after_seq: int = 0) -> ReaderStream[SettingsChangedEvent]:
        """Changes of settings: those after `after_seq` that the server still has, then each as it happens.

        Connects at the first `anext`; ends when the server ends, and says why in `ended`. A reader that is too slow
        finds in `missed` how many events it did not get.
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

    # -- profiling ----------------------------------------------------------------------------------------------------

    async def backpressure_report(
        self, window_s: float = 1.0, *, timeout_per_process: float = 0.5
    ) -> BackpressureReport:
        """Who holds up the graph: which publishers wait for whom, and which subscribers cause it in the end.

        A subscriber whose task waits itself, in `broadcast` for the next one, passes its blame on.

        Args:
            window_s: Observe the graph for so many seconds; 0 takes everything since the start.
            timeout_per_process: Processes that do not answer within this time are left out.
        """
        observer = _Observer(self._active)
        before = Waits()
        began_s = time.monotonic()
        if window_s > 0:
            before = await observer.waits(timeout_per_process)
            await asyncio.sleep(window_s)
        after = await observer.waits(timeout_per_process)
        return report(after.since(before), time.monotonic() - began_s if window_s > 0 else 0.0)

    def subscribe_profiling_trace(self, control: ProfilingStreamControl) -> ReaderStream[ProfilingTraceStreamBatch]:
        """Samples and spans of all processes as they arrive, from the oldest the server keeps.

        Connects at the first `anext`; ends when the server ends, and says why in `ended`. Every stream gets everything,
        whoever else reads.
        """
        return profiling_stream(self._service.address, control)

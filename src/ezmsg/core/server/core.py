"""The books of one server together with the connections of its peers: changes in, I/O out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ezmsg.core import config
from ezmsg.core.dag import CyclicException
from ezmsg.core.errors import EzmsgError
from ezmsg.core.net.connection import Connection
from ezmsg.core.net.guard import Guard
from ezmsg.core.server.books.meters import ServerMeters
from ezmsg.core.server.books.processes import ProcessBook
from ezmsg.core.server.books.routing import PERSISTENT, GraphChange, Reroute, RoutingBook
from ezmsg.core.server.books.sessions import SessionBook
from ezmsg.core.server.books.settings import SettingsBook
from ezmsg.core.server.events import EventDesk
from ezmsg.core.server.journal import Journal
from ezmsg.core.server.routes import RouteDesk
from ezmsg.core.server.shm import SharedMemoryDesk
from ezmsg.core.server.telemetry import TelemetryDesk
from ezmsg.core.wire.limits import PUBLISHER_FLOW_TIMEOUT_S
from ezmsg.core.wire.records import (
    Pause,
    Record,
    Resume,
    ServerStatus,
    SettingsEvent,
    Snapshot,
    Sync,
)

if TYPE_CHECKING:
    from ezmsg.core.server.peers import Peer

logger = logging.getLogger("ezmsg")

# How long the peers of a lost server have to come back before what they do not claim is taken away.
RETURN_S = 2.0
# How much longer sessions that are back, and have very many edges, may take for that.
RESTORE_S = 5.0


class GraphCore:
    """One graph: books, and how to reach each peer.

    Args:
        stop: Set when somebody asks the server to end.
        guard: The rules for peers.
        journal: Of the persistent edges.
    """

    def __init__(self, stop: asyncio.Event, guard: Guard, journal: Journal) -> None:
        self.epoch = str(uuid4())
        self._started_unix_ns = time.time_ns()
        self.journal = journal
        # Who holds a role under an id that others know.
        self.seats: dict[tuple[type[Record], str], Peer] = {}
        self.routing = RoutingBook()
        # Whether the book knows its graph: not in the first seconds of a successor.
        self.settled = asyncio.Event()
        self.settled.set()
        self.sessions = SessionBook(self.routing)
        self.processes = ProcessBook()
        self.settings = SettingsBook()
        self.events = EventDesk()
        self.meters = ServerMeters()
        self.telemetry = TelemetryDesk(self)
        self.shm = SharedMemoryDesk()
        self.publishers: dict[str, Connection] = {}
        self.subscribers: dict[str, Connection] = {}
        self.clients: dict[str, Connection] = {}
        self.routes = RouteDesk(self.processes, self.clients, self.telemetry.links, self.meters)
        self.stop = stop
        # It ends, and nobody is left who would be told of peers that go.
        self.is_over = False
        self.guard = guard
        # Peers that were not let in, by why.
        self.strangers: Counter[str] = Counter()
        self._telling: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        # Those that give sessions back their edges.
        self._restoring: set[asyncio.Task[None]] = set()

    # -- after a predecessor that was lost ----------------------------------------------------------------------------

    def succeed(self) -> None:
        """Take over the persistent edges of a predecessor; its peers have `RETURN_S` to come back.

        Until then this server knows only part of the graph, and takes nothing away from anybody.
        """
        for edge in list(self.journal.edges):
            try:
                self.routing.connect(*edge, PERSISTENT)
            except CyclicException as error:
                logger.warning("the journal of a lost GraphServer is wrong: %s", error)
                self.journal.disconnected(*edge)
        self.routing.is_partial = True
        self.settled.clear()
        self.spawn(self._settle(), "settle the graph of a lost server")

    async def _settle(self) -> None:
        await asyncio.sleep(RETURN_S)
        if self._restoring:
            await asyncio.wait(self._restoring, timeout=RESTORE_S)
        reroutes = self.routing.settle()
        logger.info(
            "succeeded a GraphServer that was lost: %d persistent edges, back are %d sessions, %d publishers, "
            "%d subscribers and %d processes",
            len(self.journal.edges), len(self.sessions), len(self.publishers), len(self.subscribers),
            len(self.processes),
        )  # fmt: skip
        self.settled.set()
        await self.reroute(reroutes)

    def restore(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Give a session back its edges, whoever waits for that, or does not any more."""
        task = self.spawn(work, "restore a session")
        self._restoring.add(task)
        task.add_done_callback(self._restoring.discard)
        return task

    # -- tasks --------------------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run something of the server's own; its failure is logged, never lost."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("GraphServer task %s failed", task.get_name(), exc_info=error)

    async def close(self) -> None:
        """End what the server does of its own accord."""
        self.shm.close()
        await self.telemetry.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # -- routing ------------------------------------------------------------------------------------------------------

    def graph_changed(self, change: GraphChange, owner: str) -> list[Reroute]:
        """Tell readers of events of a change of the topology; returns whom else to tell."""
        if change.topics:
            self.events.graph_changed(change.topics, None if owner == PERSISTENT else owner)
        return change.reroutes

    async def reroute(self, reroutes: Iterable[Reroute]) -> None:
        """Tell each affected subscriber its publishers, and wait until it is connected to them."""
        if told := self.tell(reroutes):
            await asyncio.wait(told)

    def tell(self, reroutes: Iterable[Reroute], behind: Iterable[str] = ()) -> set[asyncio.Task[None]]:
        """Tell each affected subscriber its publishers, whoever waits for that, or does not any more.

        Args:
            reroutes: The affected subscribers.
            behind: More subscribers to wait for, where they are just being told of an earlier change.

        Returns:
            What to wait for until they are connected to them.
        """
        self.telemetry.graph_changed()
        for reroute in reroutes:
            connection = self.subscribers.get(reroute.subscriber_id)
            if connection is not None:
                telling = self.spawn(self._tell(connection, reroute), f"tell {connection.name} its routing")
                self._telling[reroute.subscriber_id] = telling
        # A subscriber applies what it is told in order: the last is enough.
        concerned = {reroute.subscriber_id for reroute in reroutes}.union(behind)
        return {self._telling[subscriber] for subscriber in concerned if subscriber in self._telling}

    async def _tell(self, connection: Connection, reroute: Reroute) -> None:
        timeout_s = config.subscriber_update_timeout_s()
        try:
            await connection.request(reroute.routing, timeout_s)
        except TimeoutError:
            logger.warning("subscriber %s took longer than %g s to apply its routing", connection.name, timeout_s)
        except (OSError, EzmsgError) as error:
            logger.debug("subscriber %s was not told of its routing: %s", connection.name, error)
        finally:
            if self._telling.get(reroute.subscriber_id) is asyncio.current_task():
                del self._telling[reroute.subscriber_id]

    # -- publishers ---------------------------------------------------------------------------------------------------

    async def flow(self, record: Pause | Resume | Sync) -> None:
        """Pause, resume or sync every publisher.

        Raises:
            RequestTimeout: A publisher did not answer in time; the others did what was asked.
        """
        if not isinstance(record, Sync):
            await self._all_publishers(record, PUBLISHER_FLOW_TIMEOUT_S)
            return
        # To sync may take any time, to pause may not: so one that stands still is found.
        patience_s = (
            PUBLISHER_FLOW_TIMEOUT_S if record.timeout_s is None else min(PUBLISHER_FLOW_TIMEOUT_S, record.timeout_s)
        )
        await self._all_publishers(Pause(), patience_s)
        await self._all_publishers(record, record.timeout_s)

    async def _all_publishers(self, record: Pause | Resume | Sync, timeout_s: float | None) -> None:
        asked = [connection.request(record, timeout_s) for connection in self.publishers.values()]
        for result in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(result, TimeoutError):
                raise result
            if isinstance(result, BaseException) and not isinstance(result, ConnectionError):
                raise result

    # -- processes ----------------------------------------------------------------------------------------------------

    def process_gone(self, client_id: str) -> None:
        """A process left or was lost: so are its units, and the settings it reported."""
        self.clients.pop(client_id, None)
        if self.processes.disconnect(client_id) is None:
            return
        self.settings_changed(self.settings.process_gone(client_id, time.time()))
        self.events.process_changed(client_id)
        self.telemetry.client_gone(client_id)

    def settings_changed(self, events: list[SettingsEvent]) -> None:
        """Tell readers of events of settings, and count them."""
        for event in events:
            self.meters.settings_changed(event.component_address, event.event_type)
        self.events.settings_changed(events)

    # -- the whole ----------------------------------------------------------------------------------------------------

    def status(self) -> ServerStatus:
        """How this server is."""
        return ServerStatus(
            self.epoch, time.time_ns(), time.monotonic_ns(), self._started_unix_ns,
            len(self.sessions), len(self.publishers), len(self.subscribers), len(self.processes),
            self.telemetry.exporters,
        )  # fmt: skip

    def counts(self) -> dict[str, int]:
        """What was refused, dropped and given up so far, by what it was; only what happened."""
        counts = Counter(self.guard.counts)
        counts.update({f"handshake:{code}": count for code, count in self.strangers.items()})
        counts.update({f"missed:{kind}": log.missed for kind, log in self.events.logs.items()})
        counts.update({f"evicted:{kind}": log.evicted for kind, log in self.events.logs.items()})
        counts["unrouted:TOO_MANY_REQUESTS"] = self.routes.requests.refused
        return {what: count for what, count in sorted(counts.items()) if count}

    def snapshot(self) -> Snapshot:
        """The whole graph at this moment."""
        return Snapshot(
            self.routing.edges(), self.sessions.states(), self.processes.states(), self.telemetry.links_without_client()
        )

"""The GraphServer, a thread of its own, and GraphService, how programs find, start and ask one."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ClassVar

from ezmsg.core import config
from ezmsg.core.control import GRAPH_TIMEOUT_S, asking, dial, resolve
from ezmsg.core.dag import DAG
from ezmsg.core.errors import ServerUnreachable
from ezmsg.core.graph_util import get_compactified_graph, graph_string, prune_graph_connections
from ezmsg.core.net.address import Address, AddressType
from ezmsg.core.net.authkey import load_key
from ezmsg.core.net.connection import Connection
from ezmsg.core.net.door import open_door, server_door
from ezmsg.core.net.guard import Guard
from ezmsg.core.net.listener import Listener, bind_tcp
from ezmsg.core.server.agent import AgentProcess
from ezmsg.core.server.core import GraphCore
from ezmsg.core.server.journal import Journal
from ezmsg.core.server.peers import ACCEPTED, Peer
from ezmsg.core.shm import SHMContext
from ezmsg.core.wire.records import (
    Connect,
    Counts,
    Disconnect,
    GetCounts,
    GetGraph,
    GetServerStatus,
    Goodbye,
    GraphEdges,
    Pause,
    Resume,
    ServerStatus,
)
from ezmsg.core.wire.records.fields import require_name

logger = logging.getLogger("ezmsg")

# A peer that cannot take our goodbye within this time loses its connection without one.
GOODBYE_TIMEOUT_S = 0.1
# What the system takes for a busy peer at the door, that goodbye included, as far as it allows; over TCP it takes more.
DOOR_SEND_BYTES = 2 << 20


class GraphServer(threading.Thread):
    """Serves one graph from a daemon thread with an event loop of its own.

    Args:
        thread_kwargs: As for `threading.Thread`, except `target` and `daemon`.
    """

    def __init__(self, **thread_kwargs: Any) -> None:
        thread_kwargs.setdefault("name", "ezmsg-graphserver")
        thread_kwargs["daemon"] = True
        super().__init__(**thread_kwargs)
        self._address: Address | None = None
        self._serving = threading.Event()
        self._ended: Future[None] = Future()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._peers: dict[Connection, _Welcomed] = {}
        self._is_observed: Callable[[], bool] = lambda: True
        self._is_awaited: Callable[[], bool] = lambda: False
        self._is_unheard = False
        self._journal = Journal()

    def __repr__(self) -> str:
        state = "stopped" if self._serving.is_set() and not self.is_alive() else "serving"
        return f"<GraphServer {self._address} {state if self._address else 'not started'}>"

    @property
    def address(self) -> Address:
        """Where it listens."""
        assert self._address is not None, "the GraphServer was not started"
        return self._address

    def start(self, address: AddressType | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Bind and serve; returns when clients can connect.

        Args:
            address: Where to listen. None takes the first free port from EZMSG_SERVER_PORT_START on loopback; port 0
                takes any.

        Raises:
            OSError: The address cannot be bound.
            InsecureBind: It is not loopback, and no key was configured.
            ConfigError: A setting of the environment cannot be used.
        """
        config.otel_mode()  # a mistake there must not be found when everything is open, the journal among it
        key = load_key()
        if address is None:
            tcp = bind_tcp(
                config.DEFAULT_HOST, None, key,
                search_from=config.server_port_start(), skip={config.GRAPHSERVER_PORT_DEFAULT},
            )  # fmt: skip
        else:
            wanted = resolve(address)
            tcp = bind_tcp(wanted.host, wanted.port, key)
            if wanted.port:
                self._journal = Journal.open(Address(*tcp.getsockname()[:2]))
        self._key = key
        self._address = Address(*tcp.getsockname()[:2])
        self._sockets = [tcp]
        if name := server_door(self._address):
            door, _ = open_door(name)
            # Closed first: a successor at the address is to find its name free.
            self._sockets = [tcp] if door is None else [door, tcp]
        # A program that ends without `stop` ends in order, too.
        atexit.register(self._stop_at_exit, os.getpid())
        super().start()
        self._serving.wait()
        if self._error is not None:
            for sock in self._sockets:
                sock.close()
            raise self._error

    def stop(self) -> None:
        """End in order: tell every peer, then stop. Waits until the thread has ended; safe to call twice."""
        self._stop_soon()
        if self.is_alive():
            self.join()

    async def stopped(self) -> None:
        """As `stop`, without blocking the running loop."""
        self._stop_soon()
        if self.is_alive():
            await asyncio.shield(asyncio.wrap_future(self._ended))
            self.join()

    def has_only(self, peers: int, arriving: int = 0) -> bool:
        """Whether so many peers are all there is at this moment, those that deliver telemetry aside; from any thread.

        Then nobody reads events or telemetry either: readers are peers. False where telemetry is exported.

        Args:
            peers: How many there should be.
            arriving: So many more may be about to come and deliver telemetry; with none, nobody may be coming.
        """
        # Who comes is looked for on the way, too, and first: so nobody is missed.
        if self._is_observed() or (self._is_awaited() and not arriving):
            return False
        found = [peer for peer in list(self._peers.values()) if not peer.is_telemetry]
        # Who has said that it came for something else is none of those that are about to come.
        return sum(peer.has_role for peer in found) <= peers <= len(found) <= peers + arriving

    def stop_unheard(self) -> None:
        """Begin to end, where all peers are about to go: who does so soon is told nothing. `stopped` waits for it."""
        self._is_unheard = True
        self._stop_soon()

    def _stop_soon(self) -> None:
        loop, stop = self._loop, self._stopping
        if loop is not None and stop is not None and not stop.is_set():
            try:
                loop.call_soon_threadsafe(stop.set)
            except RuntimeError:
                logger.debug("%r had stopped already", self)

    def _stop_at_exit(self, pid: int) -> None:
        if pid == os.getpid():
            self.stop()

    def run(self) -> None:
        """The thread."""
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._serving.is_set():
                logger.exception("GraphServer at %s failed", self._address)
            self._error = error
        finally:
            atexit.unregister(self._stop_at_exit)
            self._serving.set()
            self._ended.set_result(None)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        core = GraphCore(self._stopping, Guard(ACCEPTED), self._journal)
        if self._journal.found:
            core.succeed()

        welcoming: set[asyncio.Task[None]] = set()

        def on_peer(sock: Any, info: Any, name: str) -> None:
            task = core.spawn(self._welcome(core, sock, info, name), f"welcome {name}")
            welcoming.add(task)
            task.add_done_callback(welcoming.discard)

        listener = await Listener.start(self._sockets, self._key, on_peer, name=f"GraphServer {self.address}")
        core.strangers = listener.refused
        agent = AgentProcess.launch(self.address)
        self._is_observed = lambda: agent.is_wanted or core.telemetry.is_heard
        self._is_awaited = lambda: bool(listener.unauthenticated or welcoming)
        self._serving.set()
        try:
            await self._stopping.wait()
        finally:
            self._is_observed = lambda: True
            core.is_over = self._is_unheard
            await agent.joined(core.telemetry)
            # While nobody else can listen here: a successor at this address would take itself for one of a lost server.
            self._journal.delete()
            await listener.close()
            if welcoming:
                await asyncio.wait(welcoming)  # else their sockets would be nobody's
            await agent.stop(core.telemetry)
            await core.telemetry.finish_streams()
            await self._goodbye()
            await core.close()

    async def _welcome(self, core: GraphCore, sock: Any, info: Any, name: str) -> None:
        if sock.family == socket.AF_UNIX:
            host = config.DEFAULT_HOST
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, DOOR_SEND_BYTES)
        else:
            host = Address.from_string(name).host
        peer = _Welcomed(core, self._peers, host)
        peer.connection = await Connection.over(sock, info, peer, name=name, guard=core.guard)
        self._peers[peer.connection] = peer

    async def _goodbye(self) -> None:
        if self._is_unheard:
            await self._most_gone()
        peers = list(self._peers.items())
        for connection, _ in peers:
            connection.notify(Goodbye("the GraphServer stops"))
        if peers:
            await asyncio.gather(*(connection.close(self._patience_s(peer)) for connection, peer in peers))

    async def _most_gone(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_TIMEOUT_S):
                for connection, peer in list(self._peers.items()):
                    if self._patience_s(peer):
                        await connection.wait_closed()

    def _patience_s(self, peer: Peer) -> float:
        # What telemetry may still have to tell is for nobody then.
        return 0.0 if self._is_unheard and peer.is_telemetry else GOODBYE_TIMEOUT_S


class _Welcomed(Peer):
    """A peer that the server forgets when it is gone."""

    def __init__(self, core: GraphCore, known: dict[Connection, _Welcomed], host: str) -> None:
        super().__init__(core, host)
        self._known = known
        self.connection: Connection | None = None

    def on_closed(self, connection: Connection, error: Exception | None) -> None:
        """Forget it."""
        self._known.pop(connection, None)
        self.connection = None
        if not self._core.is_over:
            super().on_closed(connection, error)


class GraphService:
    """Finds, starts and asks the GraphServer at an address.

    Args:
        address: `host:port`, a pair, or None for the default.
    """

    ADDR_ENV: ClassVar[str] = config.GRAPHSERVER_ADDR_ENV
    PORT_DEFAULT: ClassVar[int] = config.GRAPHSERVER_PORT_DEFAULT

    def __init__(self, address: AddressType | None = None) -> None:
        self._address = None if address is None else resolve(address)

    @staticmethod
    def default_address() -> Address:
        """`EZMSG_GRAPHSERVER_ADDR`, else 127.0.0.1:25978."""
        return resolve(None)

    @property
    def address(self) -> Address:
        """The address this service asks."""
        return self._address or self.default_address()

    def create_server(self) -> GraphServer:
        """Start a server at this address, or at a free port when none was given; `address` is then the server's.

        Raises:
            OSError: The address cannot be bound.
        """
        server = GraphServer()
        server.start(self._address)
        self._address = server.address
        return server

    async def ensure(self, auto_start: bool | None = None) -> GraphServer | None:
        """Make sure a server is there.

        Args:
            auto_start: True starts one when none answers, False never does; None starts one only where neither this
                service nor EZMSG_GRAPHSERVER_ADDR names an address.

        Returns:
            The server this call started, or None when one was there.

        Raises:
            ServerUnreachable: None answers and none may be started.
        """
        try:
            await asking.probe(self.address)
        except ServerUnreachable:
            implicit = self._address is None and not config.graph_address_is_set()
            if not (implicit if auto_start is None else auto_start):
                raise
            asked, server = self.address, self.create_server()
            logger.info(
                "no GraphServer answers at %s: this program has one of its own, at %s. ezmsg start makes one where "
                "programs meet", asked, server.address,
            )  # fmt: skip
            return server
        return None

    async def open_connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """An authenticated connection to the server that has no role; the caller closes it.

        Raises:
            ServerUnreachable: No server answers.
            HandshakeError: What answers is no GraphServer of ours.
        """
        sock, _ = await dial(self.address, is_tcp=True)
        try:
            return await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise

    async def status(self) -> ServerStatus:
        """How the server is, its clocks among it; it answers at once, or stands still.

        Raises:
            RequestTimeout: It does not answer.
        """
        return await asking.ask(self.address, GetServerStatus())

    async def connect(self, from_topic: str, to_topic: str) -> None:
        """Add a persistent edge: it stays until it is disconnected or the server ends.

        Raises:
            CyclicException: It would close a cycle.
            ValueError: A topic cannot be a name.
        """
        require_name("from_topic", from_topic)
        require_name("to_topic", to_topic)
        await asking.ask(self.address, Connect(from_topic, to_topic), asking.routing_timeout_s())

    async def disconnect(self, from_topic: str, to_topic: str) -> None:
        """Give up the persistent share of an edge."""
        await asking.ask(self.address, Disconnect(from_topic, to_topic), asking.routing_timeout_s())

    async def sync(self, timeout: float | None = None) -> None:
        """Pause all publishers, and wait until every message was released.

        Args:
            timeout: Seconds to wait; None waits as long as the server lives and every publisher answers.

        Raises:
            TimeoutError: That took longer than `timeout` seconds, or the server or a publisher stands still.
        """
        await asking.ask_to_sync(self.address, timeout)

    async def pause(self) -> None:
        """Pause all publishers.

        Raises:
            TimeoutError: The server or a publisher stands still.
        """
        await asking.ask(self.address, Pause(), asking.FLOW_TIMEOUT_S)

    async def resume(self) -> None:
        """Let all publishers go on.

        Raises:
            TimeoutError: The server or a publisher stands still.
        """
        await asking.ask(self.address, Resume(), asking.FLOW_TIMEOUT_S)

    async def shutdown(self) -> None:
        """End the server in order; when this returns, it does not listen any more.

        Raises:
            TimeoutError: It did not end.
        """
        await asking.ask_to_end(self.address)

    async def dag(self, timeout: float | None = None) -> DAG:
        """A copy of the graph.

        Args:
            timeout: Seconds to wait for the answer; None takes the default.
        """
        edges = await asking.ask(self.address, GetGraph(), GRAPH_TIMEOUT_S if timeout is None else timeout)
        assert isinstance(edges, GraphEdges)
        # No `add_edge`: the server has looked for cycles already.
        dag = DAG()
        for from_topic, to_topic, owners in edges.edges:
            dag.graph[from_topic].add(to_topic)
            dag.graph.setdefault(to_topic, set())
            dag.edge_owners[from_topic, to_topic] = set(owners)
        return dag

    async def get_formatted_graph(self, fmt: str, direction: str = "LR", compact_level: int | None = None) -> str:
        """The graph as text.

        Args:
            fmt: `mermaid` or `graphviz`.
            direction: Where edges point: `LR`, `RL`, `TB` or `BT`.
            compact_level: How many levels of the hierarchy collapse; topics that messages only pass through are left
                out then. None or 0 draws everything.

        Returns:
            The text; "" for a graph without edges.

        Raises:
            ServerUnreachable: No server answers.
            ValueError: The format is unknown.
            LeafNodeException: The graph cannot be made compact.
        """
        graph = (await self.dag()).graph
        if compact_level:
            graph = get_compactified_graph(prune_graph_connections(graph)[0], compact_level)
        return graph_string(graph, fmt, direction)

    async def counts(self) -> dict[str, int]:
        """What the server refused, dropped and gave up since it started, by what it was; only what happened.

        `handshake:CODE` are peers that were not let in, `refused:CODE` requests, `dropped:CODE` connections;
        `ignored:REPLY` and `ignored:NOTICE` what nobody waited for; `throttled` how often a peer was read no more until
        it had read itself; `unrouted:TOO_MANY_REQUESTS` requests to processes; `missed:KIND` events that readers did
        not get; `evicted:KIND` events given up because the history took too many bytes. What telemetry lost is told by
        telemetry.
        """
        counts = await asking.ask(self.address, GetCounts(), GRAPH_TIMEOUT_S)
        assert isinstance(counts, Counts)
        return counts.values

    # -- shared memory ------------------------------------------------------------------------------------------------

    async def create_shm(self, num_buffers: int, buf_size: int = 65536) -> SHMContext:
        """Make memory that processes of the server's host can attach by its name, zeroed and reserved.

        Args:
            num_buffers: How many buffers.
            buf_size: Bytes of each; 16 of them cannot be used.

        Raises:
            ConfigError: These numbers make no shared memory (a ValueError).
            SharedMemoryUnavailable: There is not so much memory, or the server may not keep so much.
            SharedMemoryElsewhere: The server is on another host, or its memory cannot be opened here.
            ServerUnreachable: No server answers.
        """
        return await SHMContext.create(self.address, num_buffers, buf_size)

    async def attach_shm(self, name: str) -> SHMContext:
        """Open the shared memory of that name.

        Raises:
            UnknownSharedMemory: There is none, or no more (a ValueError).
            SharedMemoryUnavailable: It cannot be mapped: address space or descriptors are used up.
            SharedMemoryElsewhere: The server is on another host, or its memory cannot be opened here.
            ServerUnreachable: No server answers.
        """
        return await SHMContext.attach(self.address, name)

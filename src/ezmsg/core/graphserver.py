"""The GraphServer, a thread of its own, and GraphService, how programs find, start and ask one."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from typing import Any, ClassVar

from ezmsg.core import config
from ezmsg.core.control import ControlClient, resolve
from ezmsg.core.dag import DAG
from ezmsg.core.errors import ConnectionLost, EzmsgError, ServerUnreachable
from ezmsg.core.net.address import Address, AddressType
from ezmsg.core.net.authkey import load_key
from ezmsg.core.net.connection import Connection
from ezmsg.core.net.listener import Listener, bind_tcp
from ezmsg.core.server.agent import AgentProcess
from ezmsg.core.server.core import GraphCore
from ezmsg.core.server.journal import Journal
from ezmsg.core.server.peers import Peer
from ezmsg.core.shm import SHMContext
from ezmsg.core.wire.records import (
    Connect,
    Disconnect,
    GetGraph,
    Goodbye,
    GraphEdges,
    Pause,
    Record,
    Resume,
    Shutdown,
    Sync,
)

logger = logging.getLogger("ezmsg")

# A peer that cannot take our goodbye within this time loses its connection without one.
GOODBYE_TIMEOUT_S = 0.1


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
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._peers: set[Connection] = set()
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
        """
        key = load_key()
        if address is None:
            self._socket = bind_tcp(
                config.DEFAULT_HOST, None, key,
                search_from=config.server_port_start(), skip={config.GRAPHSERVER_PORT_DEFAULT},
            )  # fmt: skip
        else:
            wanted = resolve(address)
            self._socket = bind_tcp(wanted.host, wanted.port, key)
            if wanted.port:
                self._journal = Journal.open(Address(*self._socket.getsockname()[:2]))
        self._key = key
        self._address = Address(*self._socket.getsockname()[:2])
        # A program that ends without `stop` ends in order, too.
        atexit.register(self._stop_at_exit, os.getpid())
        super().start()
        self._serving.wait()
        if self._error is not None:
            self._socket.close()
            raise self._error

    def stop(self) -> None:
        """End in order: tell every peer, then stop. Waits until the thread has ended; safe to call twice."""
        loop, stop = self._loop, self._stopping
        if loop is not None and stop is not None:
            try:
                loop.call_soon_threadsafe(stop.set)
            except RuntimeError:
                logger.debug("%r had stopped already", self)
        if self.is_alive():
            self.join()

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

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        core = GraphCore(self._stopping, self._journal)
        if self._journal.found:
            core.succeed()

        welcoming: set[asyncio.Task[None]] = set()

        def on_peer(sock: Any, info: Any, name: str) -> None:
            task = core.spawn(self._welcome(core, sock, info, name), f"welcome {name}")
            welcoming.add(task)
            task.add_done_callback(welcoming.discard)

        listener = await Listener.start([self._socket], self._key, on_peer, name=f"GraphServer {self.address}")
        agent = AgentProcess.launch(self.address)
        self._serving.set()
        try:
            await self._stopping.wait()
        finally:
            # While nobody else can listen here: a successor at this address would take itself for one of a lost server.
            self._journal.delete()
            await listener.close()
            if welcoming:
                await asyncio.wait(welcoming)  # else their sockets would be nobody's
            await agent.stop(core.telemetry)
            await self._goodbye()
            await core.close()

    async def _welcome(self, core: GraphCore, sock: Any, info: Any, name: str) -> None:
        peer = _Welcomed(core, self._peers, Address.from_string(name).host)
        peer.connection = await Connection.over(sock, info, peer, name=name)
        self._peers.add(peer.connection)

    async def _goodbye(self) -> None:
        peers = list(self._peers)
        for connection in peers:
            connection.notify(Goodbye("the GraphServer stops"))
        if peers:
            await asyncio.gather(*(connection.close(GOODBYE_TIMEOUT_S) for connection in peers))


class _Welcomed(Peer):
    """A peer that the server forgets when it is gone."""

    def __init__(self, core: GraphCore, known: set[Connection], host: str) -> None:
        super().__init__(core, host)
        self._known = known
        self.connection: Connection | None = None

    def on_closed(self, connection: Connection, error: Exception | None) -> None:
        """Forget it."""
        self._known.discard(connection)
        super().on_closed(connection, error)


class _Asker:
    """Handler of a client that only asks."""

    def on_request(self, connection: Connection, record: Record) -> Record:
        raise EzmsgError(f"{type(record).__name__} cannot be answered here")

    def on_notice(self, connection: Connection, record: Record) -> None:
        pass

    def on_closed(self, connection: Connection, error: Exception | None) -> None:
        pass


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
            probe = await ControlClient.connect(self.address, _Asker(), name="probe")
        except ServerUnreachable:
            implicit = self._address is None and not config.graph_address_is_set()
            if not (implicit if auto_start is None else auto_start):
                raise
            return self.create_server()
        await probe.close()
        return None

    async def _ask(self, record: Record, timeout_s: float | None = None) -> Any:
        client = await ControlClient.connect(self.address, _Asker(), name="service")
        try:
            return await client.request(record, timeout_s=timeout_s)
        finally:
            await client.close()

    async def connect(self, from_topic: str, to_topic: str) -> None:
        """Add a persistent edge: it stays until it is disconnected or the server ends.

        Raises:
            CyclicException: It would close a cycle.
        """
        await self._ask(Connect(from_topic, to_topic))

    async def disconnect(self, from_topic: str, to_topic: str) -> None:
        """Give up the persistent share of an edge."""
        await self._ask(Disconnect(from_topic, to_topic))

    async def sync(self, timeout: float | None = None) -> None:
        """Pause all publishers, and wait until every message was released.

        Raises:
            TimeoutError: That took longer than `timeout` seconds.
        """
        await self._ask(Sync(timeout))

    async def pause(self) -> None:
        """Pause all publishers."""
        await self._ask(Pause())

    async def resume(self) -> None:
        """Let all publishers go on."""
        await self._ask(Resume())

    async def shutdown(self) -> None:
        """End the server in order."""
        try:
            await self._ask(Shutdown())
        except ConnectionLost:
            logger.debug("the GraphServer at %s ended before it could answer", self.address)

    async def dag(self, timeout: float | None = None) -> DAG:
        """A copy of the graph.

        Args:
            timeout: Seconds to wait for the server; None waits as long as it is connected.
        """
        edges = await self._ask(GetGraph(), timeout)
        assert isinstance(edges, GraphEdges)
        # No `add_edge`: the server has looked for cycles already.
        dag = DAG()
        for from_topic, to_topic, owners in edges.edges:
            dag.graph[from_topic].add(to_topic)
            dag.graph.setdefault(to_topic, set())
            dag.edge_owners[from_topic, to_topic] = set(owners)
        return dag

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

"""The server and the service around it: start, stop, find, ask."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ezmsg.core.control import ControlClient, dial
from ezmsg.core.dag import CyclicException
from ezmsg.core.errors import ConfigError, InsecureBind, ServerUnreachable
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import ProcessControlRequest, ProcessControlResponse
from ezmsg.core.graphserver import DOOR_SEND_BYTES, GraphServer, GraphService
from ezmsg.core.net.address import Address
from ezmsg.core.net.connection import Connection
from ezmsg.core.net.door import door_path, has_doors, server_door
from ezmsg.core.netprotocol import close_stream_writer
from ezmsg.core.processclient import ProcessControlClient
from ezmsg.core.pubclient import Publisher
from ezmsg.core.server.journal import Journal, journal_path
from ezmsg.core.server.peers import Peer
from ezmsg.core.wire.frames import REQUEST, FrameDecoder, encode_frame
from ezmsg.core.wire.records import Goodbye, ProcessRequest, ProcessResponse, decode_record, encode_record
from tests.core.runtime.running import until
from tests.ports import KeptPort


@pytest.fixture
def free_address() -> Iterator[str]:
    """An address nobody listens on."""
    with KeptPort() as port:
        yield str(port.address)


def test_a_server_has_no_address_before_it_starts() -> None:
    with pytest.raises(AssertionError):
        _ = GraphServer().address


def test_a_server_without_an_address_takes_a_free_port_from_the_first_on_and_skips_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EZMSG_SERVER_PORT_START", str(GraphService.default_address().port))
    first, second = GraphServer(), GraphServer()
    first.start()
    second.start()
    try:
        # Others may give back ports meanwhile that come before the first one's.
        assert GraphService.default_address().port < min(first.address.port, second.address.port)
        assert first.address.port != second.address.port
    finally:
        first.stop()
        second.stop()


def test_stop_ends_the_thread_and_can_be_repeated() -> None:
    server = GraphServer()
    server.start("127.0.0.1:0")
    assert server.is_alive()
    assert server.daemon
    server.stop()
    assert not server.is_alive()
    server.stop()


async def test_waiting_for_the_end_of_a_server_that_never_started_returns_at_once() -> None:
    async with asyncio.timeout(40):
        await GraphServer().stopped()


def test_one_server_after_another_on_the_same_port(free_address: str) -> None:
    for _ in range(3):
        server = GraphServer()
        server.start(free_address)
        assert str(server.address) == free_address
        server.stop()


def test_a_port_that_is_taken_is_an_oserror_and_leaves_nothing(free_address: str) -> None:
    server = GraphServer()
    server.start(free_address)
    try:
        with pytest.raises(OSError, match="in use"):
            GraphServer().start(free_address)
    finally:
        server.stop()


def test_listening_beyond_loopback_without_a_key_of_ones_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EZMSG_AUTHKEY", raising=False)
    monkeypatch.delenv("EZMSG_AUTHKEY_FILE", raising=False)
    with pytest.raises(InsecureBind, match="EZMSG_AUTHKEY"):
        GraphServer().start("0.0.0.0:0")


def test_listening_beyond_loopback_with_a_key_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EZMSG_AUTHKEY", "a secret of this test")
    server = GraphServer()
    server.start("0.0.0.0:0")
    server.stop()


def test_a_bad_port_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EZMSG_SERVER_PORT_START", "many")
    with pytest.raises(ConfigError, match=r"EZMSG_SERVER_PORT_START='many'.*integer"):
        GraphServer().start()


def test_a_server_that_cannot_start_leaves_no_journal_and_takes_none(
    free_address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("EZMSG_OTEL", "nonsense")
    path = journal_path(Address.from_string(free_address))
    with pytest.raises(ConfigError):
        GraphServer().start(free_address)
    assert not path.exists()
    Journal.open(Address.from_string(free_address)).connected("A", "B")
    with pytest.raises(ConfigError):
        GraphServer().start(free_address)
    assert '"A"' in path.read_text()


async def test_a_server_says_whether_anybody_is_there_but_some_peers_it_is_asked_about() -> None:
    server = GraphServer()
    assert not server.has_only(0)
    server.start("127.0.0.1:0")
    try:
        assert server.has_only(0)
        async with GraphContext(server.address) as context:
            assert server.has_only(1)
            await context.publisher("A")
            await context.subscriber("A")
            # Telemetry comes, too, and is not told from others before it has said what it is.
            await until(lambda: server.has_only(3))
            with socket.create_connection(server.address):
                await until(lambda: not server.has_only(3))
                assert server.has_only(3, arriving=1)
            await until(lambda: server.has_only(3))
            sock, _ = await dial(server.address)
            with sock:
                # It has not said yet what it is.
                await until(lambda: server.has_only(4))
                assert server.has_only(3, arriving=1)
                assert not server.has_only(2, arriving=1)
            await until(lambda: server.has_only(3))
            await context.connect("A", "B")
            async with contextlib.aclosing(context.subscribe_topology_events()) as events:
                await anext(events)
                assert not server.has_only(3, arriving=1)
                assert not server.has_only(3)
    finally:
        await server.stopped()
    assert not server.has_only(0)


async def test_a_server_that_ends_unheard_says_goodbye_to_who_does_not_go_by_itself() -> None:
    server = GraphServer()
    server.start("127.0.0.1:0")
    going, _ = await dial(server.address)
    staying, _ = await dial(server.address)
    await until(lambda: server.has_only(2))
    server.stop_unheard()
    going.close()
    said = b""
    with staying:
        async with asyncio.timeout(40):
            while data := await asyncio.get_running_loop().sock_recv(staying, 1 << 16):
                said += data
            await server.stopped()
    [goodbye] = FrameDecoder().feed(said)
    assert isinstance(decode_record(goodbye.opcode, goodbye.body), Goodbye)


async def test_start_and_stop_work_inside_a_coroutine_whose_loop_carries_clients() -> None:
    server = GraphServer()
    server.start("127.0.0.1:0")
    async with GraphContext(server.address) as context:
        await context.publisher("A")
        await context.subscriber("A")
        server.stop()


async def test_the_service_asks_for_persistent_edges_and_gives_a_copy_of_the_graph(server: GraphServer) -> None:
    service = GraphService(server.address)
    await service.connect("A", "B")
    await service.connect("A", "B")
    dag = await service.dag()
    assert dag.graph == {"A": {"B"}, "B": set()}
    assert dag.edge_owners == {("A", "B"): {"persistent"}}
    with pytest.raises(CyclicException):
        await service.connect("B", "A")
    await service.disconnect("A", "B")
    assert (await service.dag()).nodes == set()


async def test_the_service_draws_the_graph_and_draws_it_smaller(server: GraphServer) -> None:
    service = GraphService(server.address)
    assert await service.get_formatted_graph("mermaid") == ""
    await service.connect("SYS/GEN/OUT", "SYS/TOPIC")
    await service.connect("SYS/TOPIC", "SYS/LOG/IN")
    assert (await service.get_formatted_graph("mermaid")).count("-->") == 2
    compact = await service.get_formatted_graph("graphviz", "TB", 1)
    assert compact.count("->") == 1
    assert "TOPIC" not in compact
    assert 'rankdir="TB"' in compact
    with pytest.raises(ValueError, match="'png'"):
        await service.get_formatted_graph("png")


async def test_drawing_the_graph_of_no_server_says_where_it_was_looked_for(free_address: str) -> None:
    with pytest.raises(ServerUnreachable, match=f"{free_address}.*start one"):
        await GraphService(free_address).get_formatted_graph("mermaid")


async def test_a_connection_without_a_role_lasts_until_it_is_closed(server: GraphServer) -> None:
    _, writer = await GraphService(server.address).open_connection()
    assert writer.get_extra_info("peername")[:2] == server.address
    await close_stream_writer(writer)


@pytest.mark.skipif(not has_doors(), reason="no doors here")
async def test_a_server_of_this_host_is_reached_through_its_door(server: GraphServer) -> None:
    sock, _ = await dial(server.address)
    with sock:
        assert sock.family == socket.AF_UNIX


@pytest.mark.skipif(not has_doors(), reason="no doors here")
async def test_a_server_whose_door_is_of_another_user_is_reached_over_tcp(
    server: GraphServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ezmsg.core.net.dial.credentials", lambda sock: (1, 4243))
    sock, _ = await dial(server.address)
    with sock:
        assert sock.getpeername() == server.address


@pytest.mark.skipif(not has_doors(), reason="no doors here")
async def test_a_server_that_finds_the_name_of_its_door_taken_is_reached_over_tcp(free_address: str) -> None:
    server, address = GraphServer(), Address.from_string(free_address)
    with socket.socket(socket.AF_UNIX) as squatter:
        squatter.bind(door_path(server_door(address)))
        server.start(address)
        try:
            sock, _ = await dial(server.address)
            with sock:
                assert sock.getpeername() == address
        finally:
            server.stop()


@pytest.mark.skipif(not has_doors(), reason="no doors here")
async def test_a_busy_peer_at_the_door_hears_goodbye_after_what_it_has_not_read_yet(free_address: str) -> None:
    with socket.socket(socket.AF_UNIX) as any_door:
        usual = any_door.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        any_door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, DOOR_SEND_BYTES)
        allowed = any_door.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    payload = bytes(min(usual + (allowed - usual) // 4, 800_000))

    async def answer(request: ProcessControlRequest) -> ProcessControlResponse:
        return ProcessControlResponse(request_id=request.request_id, ok=True, payload=payload)

    server = GraphServer()
    server.start(free_address)
    process = ProcessControlClient(server.address)
    process.set_request_handler(answer)
    await process.register(["U"])
    loop = asyncio.get_running_loop()
    decoder = FrameDecoder()
    sock, _ = await dial(server.address)
    with sock:
        await loop.sock_sendall(sock, encode_frame(*encode_record(ProcessRequest("U", "x", timeout_s=40)), 1, REQUEST))
        async with asyncio.timeout(40):
            said = await loop.sock_recv(sock, 1)
            await server.stopped()
            while data := await loop.sock_recv(sock, 1 << 16):
                said += data
    frames = list(decoder.feed(said))
    response, goodbye = [decode_record(frame.opcode, frame.body) for frame in frames]
    assert isinstance(response, ProcessResponse)
    assert response.payload == payload
    assert isinstance(goodbye, Goodbye)
    await process.close()


async def test_the_service_tells_how_the_server_is(server: GraphServer, context: GraphContext) -> None:
    await context.publisher("A")
    before_ns = time.time_ns()
    status = await GraphService(server.address).status()
    assert (status.sessions, status.publishers, status.subscribers, status.processes) == (1, 1, 0, 0)
    assert status.started_unix_ns <= before_ns <= status.unix_ns <= time.time_ns()


async def test_pausing_does_not_wait_for_a_publisher_that_stands_still(
    server: GraphServer, context: GraphContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ezmsg.core.server.core.PUBLISHER_FLOW_TIMEOUT_S", 0.2)
    running = await context.publisher("A")
    started, release = threading.Event(), threading.Event()

    async def stand_still() -> None:
        publisher = await Publisher.create("B", server.address)
        started.set()
        release.wait(30)  # not awaited: so does user code that keeps its loop
        publisher.close()
        await publisher.wait_closed()

    standing = asyncio.create_task(asyncio.to_thread(asyncio.run, stand_still()))
    await asyncio.to_thread(started.wait, 10)
    service = GraphService(server.address)
    try:
        for ask in (service.pause, service.resume, service.sync, context.pause, context.resume, context.sync):
            with pytest.raises(TimeoutError):
                await ask()
        assert not running.running
    finally:
        release.set()
        await standing


async def test_shutdown_ends_the_server(server: GraphServer) -> None:
    await GraphService(server.address).shutdown()
    server.address.bind_socket().close()  # it listens no more
    await asyncio.to_thread(server.join, 10)
    assert not server.is_alive()


async def test_ensure_follows_the_rules_of_auto_start(free_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerUnreachable, match=free_address):
        await GraphService(free_address).ensure()
    with pytest.raises(OSError, match=free_address):
        await GraphService(free_address).ensure(auto_start=False)
    started = await GraphService(free_address).ensure(auto_start=True)
    assert started is not None
    assert str(started.address) == free_address
    assert await GraphService(free_address).ensure(auto_start=True) is None
    started.stop()

    monkeypatch.setenv("EZMSG_GRAPHSERVER_ADDR", free_address)
    with pytest.raises(ServerUnreachable):
        await GraphService().ensure()


async def test_a_context_without_any_address_starts_a_server_and_stops_it(
    monkeypatch: pytest.MonkeyPatch, free_address: str
) -> None:
    monkeypatch.setattr("ezmsg.core.config.GRAPHSERVER_PORT_DEFAULT", int(free_address.rpartition(":")[2]))
    async with GraphContext() as context:
        assert context.graph_address is not None
        address = context.graph_address
        assert await GraphService(address).ensure(auto_start=False) is None
    with pytest.raises(ServerUnreachable):
        await GraphService(address).ensure(auto_start=False)
    assert not [thread for thread in threading.enumerate() if isinstance(thread, GraphServer)]


async def test_create_server_takes_a_free_port_and_the_service_then_knows_it() -> None:
    service = GraphService()
    server = service.create_server()
    try:
        assert service.address == server.address
        assert server.address.port != GraphService.default_address().port
    finally:
        server.stop()


async def test_what_ended_is_not_left_to_the_garbage_collector() -> None:
    server = GraphServer()
    server.start(("127.0.0.1", 0))
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for number in range(3):
            process = ProcessControlClient(server.address)
            await process.register([f"U{number}"])
            async with GraphContext(server.address) as context:
                await context.connect("A", "B")
            await process.close()
        server.stop()
        gc.collect()
        left = [item for item in gc.garbage if isinstance(item, (Connection, ControlClient, Peer))]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not left
